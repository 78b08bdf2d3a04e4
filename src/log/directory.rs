//! The segment directory: which segments of the order index can be read under an epoch, and where each of them begins and ends.
//!
//! Every candidate has a directory: a line for each (owner of the segment, place), twice, in two banks. An epoch's directory lists
//! *all* segments that can be read under it, its predecessors' too, and readers use the directory of the epoch they
//! read under and no other. So what a claimant writes that was paused, superseded, and went on is looked at by nobody.
//!
//! * A line belongs to the epoch it names; a reader takes lines of its commit's epoch only. A takeover writes into the bank that the
//!   candidate's last active epoch does not use, before the new epoch becomes active.
//! * Inherited segments end where they ended under the predecessor. The last one, if it was not full, is copied by its heir
//!   (see [`crate::log::order_index::IndexWriter::take_over`]); so an entry's epoch is at most that of who filled its segment.
//! * The owner of a place uses it again only when the active directory does not list it.
//! * A line that was cut short by a kill lists nothing: it was being taken off, or nothing of its segment is committed.

use crate::log::View;
use crate::log::commit::{Commit, Epoch};
use crate::log::damage::{COUNT_MAX, FieldFault, count, within, within_steps};
use crate::pool::line::{self};
use crate::pool::record::{EpochLine, SegmentLine};
use crate::pool::{Access, Memory};

/// Banks of a directory.
pub const BANKS: u32 = 2;

/// A segment as a directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// In whose places it lies.
    pub owner: u32,
    /// Its number among its owner's, ever.
    pub number: u64,
    /// Position of its first entry.
    pub first: u64,
    /// One past the last position it holds.
    pub end: u64,
    /// The last epoch that wrote into it.
    pub filled_by: Epoch,
}

impl Segment {
    /// Whether a position lies in it.
    pub fn holds(&self, position: u64) -> bool {
        (self.first..self.end).contains(&position)
    }

    /// Its line in the directory of `epoch`; 0: taken off the list.
    pub(crate) fn to_line(self, epoch: Epoch) -> SegmentLine {
        let Segment { first, end, filled_by, .. } = self;
        SegmentLine { epoch, first, end, filled_by, reserved: [0; 3] }
    }
}

/// Shows every line of a candidate's directory: bank, owner, place, guard and record.
fn look<M: Memory>(view: &View<M>, candidate: u32, mut show: impl FnMut(u32, u32, u64, u64, SegmentLine)) {
    let g = &view.layout.geometry;
    if view.access_to_candidate(candidate) == Access::Remote {
        let lines = u64::from(BANKS) * u64::from(g.candidates) * u64::from(g.segments);
        view.memory.discard(view.layout.directory_line(candidate, 0, 0, 0), lines * 64);
    }
    for (bank, owner) in (0..BANKS).flat_map(|bank| (0..g.candidates).map(move |owner| (bank, owner))) {
        for place in 0..u64::from(g.segments) {
            let at = view.layout.directory_line(candidate, bank, owner, place);
            if let Some((guard, record)) = line::read::<M, SegmentLine>(&view.memory, at) {
                show(bank, owner, place, guard, record);
            }
        }
    }
}

/// Shows the segments that a commit's epoch lists. What is not a segment of the geometry is left out: see [`check`].
pub(crate) fn listed<M: Memory>(view: &View<M>, commit: &Commit, mut show: impl FnMut(Segment)) {
    look(view, commit.candidate, |_, owner, place, guard, record| {
        if record.epoch == commit.epoch && check_line(view, place, guard, &record).is_ok() {
            let SegmentLine { first, end, filled_by, .. } = record;
            show(Segment { owner, number: guard - 1, first, end, filled_by });
        }
    });
}

/// The segment that holds a position. Allocates nothing: readers look while batches flow.
pub(crate) fn find<M: Memory>(view: &View<M>, commit: &Commit, position: u64) -> Option<Segment> {
    let mut found = None;
    listed(view, commit, |segment| found = found.or(segment.holds(position).then_some(segment)));
    found
}

/// Holds the line in a place of a directory against the geometry.
///
/// # Errors
/// The first field that no sequencer writes.
pub fn check_line<M: Memory>(view: &View<M>, place: u64, guard: u64, line: &SegmentLine) -> Result<(), FieldFault> {
    let g = &view.layout.geometry;
    let places = u64::from(g.segments);
    within_steps("guard", guard, place + 1, COUNT_MAX / places * places + place + 1, places)?;
    count("epoch", line.epoch)?;
    count("first position", line.first)?;
    within("end position", line.end, line.first + 1, line.first + u64::from(g.segment_entries))?;
    within("epoch that filled it", line.filled_by, 1, line.epoch)
}

/// Holds the directory of a commit's epoch against the geometry: every line lies in its segment's place, and no number overflows.
///
/// # Errors
/// The first field that no sequencer writes.
pub fn check<M: Memory>(view: &View<M>, commit: &Commit) -> Result<(), FieldFault> {
    let mut checked = Ok(());
    look(view, commit.candidate, |_, _, place, guard, record| {
        if checked.is_ok() && record.epoch == commit.epoch {
            checked = check_line(view, place, guard, &record);
        }
    });
    checked
}

/// The bank of a candidate's directory that its last active epoch does not use, and one past the highest number in either.
pub(crate) fn unused_bank<M: Memory>(view: &View<M>, candidate: u32) -> (u32, u64) {
    let epochs: EpochLine = line::observe_words(&view.memory, view.layout.epoch_line(candidate), Access::Local);
    let (mut bank_in_use, mut numbers) = (BANKS - 1, 0);
    look(view, candidate, |bank, owner, _, guard, record| {
        if record.epoch == epochs.active && epochs.active > 0 {
            bank_in_use = bank;
        }
        if owner == candidate && guard < COUNT_MAX {
            numbers = numbers.max(guard);
        }
    });
    ((bank_in_use + 1) % BANKS, numbers)
}
