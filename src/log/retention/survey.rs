//! What a takeover knows of the history it found: the steps in which it can be given up, told from the index.
//!
//! A predecessor's samples went with it. Without them everything older than a takeover would go as one piece, as soon as memory
//! is short: history that nobody is in need of, and, while one reader's pin stands anywhere below the takeover, not a byte. So the
//! entries are looked at once more, newest first, a bounded number a pass. A lane's slots below the lowest that any later entry
//! names were settled there: what was consumed and is named by no entry was forgotten with the predecessor.

use super::Trimmer;
use crate::log::View;
use crate::log::commit::Commit;
use crate::log::entry::to_sound_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::order::Event;
use crate::pool::Memory;
use crate::pool::record::IndexEntry;

/// Entries looked at in a pass that has other things to do.
pub const ENTRIES_PER_PASS: u64 = 64;
/// Entries looked at in a pass while somebody waits for memory.
pub const ENTRIES_IN_HASTE: u64 = 4096;
/// What is older than so many entries goes as one piece.
const ENTRIES_MAX: u64 = 1 << 20;
const ENTRIES_PER_READ: usize = 64;

/// The history that one takeover found, looked through from its end to its beginning.
///
/// Call order: [`Self::new`] once, when the takeover has replayed up to the commit and the trimmer has taken it over; [`Self::step`] in each pass until it says that that was
/// all, then it is dropped. Damage it meets ends it early: what is older goes as one piece, as if nobody had looked.
#[derive(Debug)]
pub struct Survey<M> {
    view: View<M>,
    index: IndexReader<M>,
    commit: Commit,
    /// Entries from here on were looked at.
    begin: u64,
    /// None below it is.
    end: u64,
    /// By lane: the lowest slot that one of them names.
    lowest: Vec<u64>,
    /// Position of the oldest sample.
    sampled: u64,
    /// Payload from `begin` up to it.
    bytes: u64,
    entries: Box<[IndexEntry; ENTRIES_PER_READ]>,
}

impl<M: Memory> Survey<M> {
    /// Of what is kept from `floor` on, when `commit` was taken over and `consumed` slots of each lane were.
    pub fn new(view: &View<M>, commit: Commit, floor: u64, consumed: Vec<u64>) -> Self {
        let watermark = commit.watermark;
        Survey {
            view: view.clone(),
            index: IndexReader::new(view, watermark),
            commit,
            begin: watermark,
            end: floor.max(watermark.saturating_sub(ENTRIES_MAX)),
            lowest: consumed,
            sampled: watermark,
            bytes: 0,
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_READ]),
        }
    }

    /// Looks at `entries_max` entries more at most, and tells `trimmer` of the steps they make. False: that was all.
    pub fn step(&mut self, entries_max: u64, trimmer: &mut Trimmer<M>) -> bool {
        let until = self.begin.saturating_sub(entries_max).max(self.end);
        while self.begin > until {
            match self.read_back(until, trimmer) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(fault) => {
                    log::warn!("what is older than index position {} goes as one piece: {fault}", self.begin);
                    return false;
                }
            }
        }
        self.begin > self.end
    }

    /// Looks at the entries before those that were looked at: as many as are read at once, down to `until`. False: there is no room
    /// for more samples.
    fn read_back(&mut self, until: u64, trimmer: &mut Trimmer<M>) -> Result<bool, IndexFault> {
        let first = self.begin.saturating_sub(ENTRIES_PER_READ as u64).max(until);
        let count = (self.begin - first) as usize;
        self.index.advance_to(first);
        let read = self.index.read(&self.commit, &mut self.entries[..count])?;
        debug_assert_eq!(read, count, "all of them are committed");
        for place in (0..count).rev() {
            let position = first + place as u64;
            if let Event::Batch { arrival, .. } = to_sound_event(position, &self.entries[place], &self.view.layout)? {
                let lowest = &mut self.lowest[usize::from(arrival.lane)];
                *lowest = arrival.lane_slot.min(*lowest);
                self.bytes += u64::from(arrival.batch_bytes);
            }
            self.begin = position;
            if trimmer.is_a_step(self.sampled - position, self.bytes) {
                if !trimmer.sample_before(position, self.bytes, &self.lowest) {
                    return Ok(false);
                }
                (self.sampled, self.bytes) = (position, 0);
            }
        }
        Ok(true)
    }
}
