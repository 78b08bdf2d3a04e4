//! Who has each extent of the blog, and what of the log lies in it: a fold of the index.
//!
//! An extent is in *stock*, *granted* to a lane, or *closed* by it. What the index names lies in extents; so the oldest part of the log can be
//! given up extent by extent, in the order of the last entry that names bytes in each. Whoever has an extent that is closed and wholly below the
//! floor has it no longer: that is no event, since everybody can tell it from these two.

use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::damage::{FieldFault, count, place, within};
use crate::log::entry::grant_number;
use crate::log::recover::{RecoverError, in_record};
use crate::order::Event;
use crate::pool::record::{HoldingLine, holding};
use crate::pool::{Geometry, Layout, Memory, line};

/// What holding lines are called where they are damaged.
const HOLDING: &str = "holding of extent";

/// What became of all extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    all: Vec<HoldingLine>,
    /// By lane: extents granted to it, ever.
    granted: Vec<u64>,
}

impl Extents {
    /// As the pool was formatted: each lane of a broker has its founding extents, the others are in stock.
    pub fn founded(geometry: &Geometry) -> Extents {
        let mut all = vec![HoldingLine::default(); geometry.extents as usize];
        for lane in 0..geometry.broker_lanes() {
            for (number, extent) in (0..).zip(geometry.founding_extents(lane)) {
                all[extent as usize] = HoldingLine { lane, number, state: holding::GRANTED, ..HoldingLine::default() };
            }
        }
        let founding = |lane| geometry.founding_extents(lane).len() as u64;
        Extents { all, granted: (0..geometry.lanes()).map(founding).collect() }
    }

    /// As they stand: each of them, and by lane how many were granted to it, ever.
    pub fn of(all: Vec<HoldingLine>, granted: Vec<u64>) -> Extents {
        Extents { all, granted }
    }

    /// Each of them.
    pub fn all(&self) -> &[HoldingLine] {
        &self.all
    }

    /// One of them.
    #[inline]
    pub fn get(&self, extent: u32) -> &HoldingLine {
        &self.all[extent as usize]
    }

    /// Extents granted to a lane, ever.
    #[inline]
    pub fn granted(&self, lane: u32) -> u64 {
        self.granted[lane as usize]
    }

    /// Whether a lane has the extent, and has not closed it.
    #[inline]
    pub fn is_of(&self, extent: u32, lane: u32) -> bool {
        let known = self.get(extent);
        known.state == holding::GRANTED && known.lane == lane
    }

    /// Nothing that is kept lies in a closed extent.
    pub fn take_back(&mut self, extent: u32) {
        let known = &mut self.all[extent as usize];
        debug_assert_eq!(known.state, holding::CLOSED);
        known.state = holding::STOCK;
    }

    /// Folds in what happened at `position`; gives the extent it changed.
    #[inline(always)]
    pub fn apply(&mut self, position: u64, event: &Event, layout: &Layout) -> Option<u32> {
        match *event {
            Event::Batch { ref arrival, .. } => {
                Some(self.use_extent(position, arrival.blog_at, arrival.batch_bytes, layout))
            }
            _ => self.apply_rare(position, event, layout),
        }
    }

    /// As [`Self::apply`], of anything but a batch.
    #[inline(never)]
    fn apply_rare(&mut self, position: u64, event: &Event, layout: &Layout) -> Option<u32> {
        match *event {
            Event::Topic { blog_at, .. } | Event::CursorSet { blog_at, .. } => {
                Some(self.use_extent(position, blog_at, 0, layout))
            }
            Event::Granted { extent, lane, number } => {
                let (grant, lane) = (grant_number(position), u32::from(lane));
                self.all[extent as usize] =
                    HoldingLine { grant, number, lane, state: holding::GRANTED, ..HoldingLine::default() };
                let granted = &mut self.granted[lane as usize];
                *granted = (number + 1).max(*granted);
                Some(extent)
            }
            Event::ExtentClosed { extent, lane_slot, .. } => {
                let known = &mut self.all[extent as usize];
                (known.state, known.end_slot) = (holding::CLOSED, lane_slot);
                Some(extent)
            }
            _ => None,
        }
    }

    /// An entry names bytes there. Gives the extent they lie in.
    #[inline]
    fn use_extent(&mut self, position: u64, blog_at: u64, bytes: u32, layout: &Layout) -> u32 {
        let extent = layout.extent_of(blog_at).expect("what is appended lies in an extent");
        let known = &mut self.all[extent as usize];
        // A checkpoint may stand for later than what is replayed.
        if known.end <= position {
            known.end = position + 1;
            known.bytes += u64::from(bytes);
        }
        extent
    }
}

/// Reads what the sequencer of a commit checkpointed. `granted` of each lane is told by its progress.
///
/// # Errors
/// The first that no sequencer left behind.
pub fn restore<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
    granted: Vec<u64>,
) -> Result<Extents, RecoverError> {
    let (g, access) = (&view.layout.geometry, reader.access(commit.candidate));
    let at = |extent| view.layout.holding_line(commit.candidate, extent);
    line::fetch_all(&view.memory, (0..g.extents).map(at), access);
    let restore = |extent| {
        let found: HoldingLine = line::fetched_words(&view.memory, at(extent));
        reader.help_write_back(at(extent), access);
        check_holding(&found, g).map(|()| found).map_err(in_record(HOLDING, extent))
    };
    let all = (0..g.extents).map(restore).collect::<Result<_, _>>()?;
    Ok(Extents::of(all, granted))
}

/// Holds what a sequencer checkpointed of an extent against the geometry.
///
/// # Errors
/// The first field that none writes.
pub fn check_holding(found: &HoldingLine, geometry: &Geometry) -> Result<(), FieldFault> {
    count("grant", found.grant)
        .and_then(|()| count("number", found.number))
        .and_then(|()| count("end", found.end))
        .and_then(|()| count("bytes", found.bytes))
        .and_then(|()| place("lane", found.lane.into(), geometry.lanes().into()))
        .and_then(|()| within("state", found.state.into(), 0, holding::CLOSED.into()))
        .and_then(|()| count("end_slot", found.end_slot))
}
