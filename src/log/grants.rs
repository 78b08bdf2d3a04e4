//! How a lane hears which extents it was granted: a ring of lines, a copy per candidate, filled by the sequencer ahead of need.
//!
//! The `n`-th extent that a lane was ever granted is told by the line `n` of its ring, whose guard is `n + 1`, after the entry of the grant is committed.
//! A sequencer that takes over writes its own ring anew: what the lane has closed by then is passed over.

use crate::limits::GRANTS_AHEAD_MAX;
use crate::log::View;
use crate::log::commit::{CommitReader, Epoch};
use crate::log::extents::Extents;
use crate::pool::record::{GrantLine, holding};
use crate::pool::{Keep, Memory, line};

/// `extent` of a grant that was used up.
const PASSED: u64 = u64::MAX;

/// An extent that a lane was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The extent.
    pub extent: u32,
    /// Number of the grant.
    pub grant: u64,
}

/// The sequencer's side.
#[derive(Debug)]
pub struct GrantWriter<M> {
    view: View<M>,
    candidate: u32,
    epoch: Epoch,
}

impl<M: Memory> GrantWriter<M> {
    /// Writes every lane's last grants; visible by the next fence, which comes before the epoch becomes active.
    pub fn take_over(view: &View<M>, candidate: u32, epoch: Epoch, extents: &Extents) -> Self {
        let writer = GrantWriter { view: view.clone(), candidate, epoch };
        let ahead = u64::from(GRANTS_AHEAD_MAX);
        for lane in 0..view.layout.geometry.lanes() {
            let granted = extents.granted(lane);
            // What lies there of another life of this candidate goes too: its numbers may be given yet.
            for number in granted.saturating_sub(ahead)..granted {
                writer.put(lane, number, PASSED, 0);
            }
            for number in granted..ahead {
                let at = view.layout.grant_line(candidate, lane, number);
                view.memory.store(at, line::INVALID);
                view.memory.flush_line(at, Keep::Cached);
            }
        }
        for (extent, known) in (0..).zip(extents.all()) {
            let is_recent = known.number + ahead >= extents.granted(known.lane);
            if known.state == holding::GRANTED && is_recent {
                writer.write(known.lane, known.number, Grant { extent, grant: known.grant });
            }
        }
        writer
    }

    /// Tells a lane of its `number`-th grant, which is committed; visible by the next fence.
    pub fn write(&self, lane: u32, number: u64, grant: Grant) {
        self.put(lane, number, grant.extent.into(), grant.grant);
    }

    fn put(&self, lane: u32, number: u64, extent: u64, grant: u64) {
        let at = self.view.layout.grant_line(self.candidate, lane, number);
        line::write(
            &self.view.memory,
            at,
            number + 1,
            &GrantLine { epoch: self.epoch, extent, grant, ..GrantLine::default() },
        );
    }
}

/// A lane's side.
#[derive(Debug)]
pub struct GrantReader<M> {
    view: View<M>,
    lane: u32,
    next: u64,
}

impl<M: Memory> GrantReader<M> {
    /// From the grant `next` of a lane on.
    pub fn new(view: &View<M>, lane: u32, next: u64) -> Self {
        GrantReader { view: view.clone(), lane, next }
    }

    /// Grants taken, ever.
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// The next extent it was granted, if it was: for good.
    pub fn take(&mut self, reader: &CommitReader<M>) -> Option<Grant> {
        loop {
            let commit = reader.current()?;
            let place = |candidate| self.view.layout.grant_line(candidate, self.lane, self.next);
            let (guard, line) = reader.peek::<GrantLine>(commit, place)?;
            let is_told = guard == self.next + 1 && line.epoch == commit.epoch;
            if !is_told || !reader.confirm(commit.epoch) {
                return None;
            }
            self.next += 1;
            match u32::try_from(line.extent) {
                Ok(extent) if extent < self.view.layout.geometry.extents => {
                    return Some(Grant { extent, grant: line.grant });
                }
                // Used up before, or damaged: nobody writes there.
                _ => continue,
            }
        }
    }
}
