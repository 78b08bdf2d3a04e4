//! Memory that failed: where, as the processes that met it have noted. What lies there is lost; nobody is given that extent again.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::pool::Memory;
use crate::pool::coherence::Keep;
use crate::pool::line::observe_words;
use crate::pool::record::{BODY_WORDS, FaultLine};

/// Memory fails by pages at least: what is noted of one is known of all of it.
const PAGE_BYTES: u64 = 4096;

/// A broker's own side: its process notes there what ends it. The caller holds the member's host lock.
#[derive(Debug)]
pub struct FaultNotes<M> {
    memory: M,
    at: u64,
    noted: FaultLine,
    next: AtomicUsize,
}

impl<M: Memory> FaultNotes<M> {
    /// Goes on behind what was noted before.
    pub fn open(view: &View<M>, broker: u32) -> Self {
        let noted = of(view, broker);
        let next = noted.offsets.iter().position(|word| *word == 0).unwrap_or(BODY_WORDS);
        let (memory, at) = (view.memory.clone(), view.layout.fault_line(broker));
        FaultNotes { memory, at, noted, next: AtomicUsize::new(next) }
    }

    /// Notes a place, if there is room and it was not known. May be called in a signal's handler: it takes no lock and no memory.
    pub fn note(&self, offset: u64) {
        if offsets(self.noted).any(|known| known / PAGE_BYTES == offset / PAGE_BYTES) {
            return;
        }
        let word = self.next.fetch_add(1, Ordering::Relaxed);
        if word < BODY_WORDS {
            self.memory.store(self.at + 8 * (word as u64 + 1), offset + 1);
            self.memory.write_back(self.at, LINE_BYTES, Keep::Dropped);
            self.memory.store_fence();
        }
    }
}

fn of<M: Memory>(view: &View<M>, broker: u32) -> FaultLine {
    observe_words(&view.memory, view.layout.fault_line(broker), view.access_to_member(broker))
}

fn offsets(line: FaultLine) -> impl Iterator<Item = u64> {
    line.offsets.into_iter().filter_map(|word| word.checked_sub(1))
}

/// Where memory failed under a broker's processes: offsets in the pool.
pub fn noted<M: Memory>(view: &View<M>, broker: u32) -> impl Iterator<Item = u64> {
    offsets(of(view, broker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::host_views;
    use crate::testing::memory::Whim;

    #[test]
    fn what_a_process_notes_is_seen_on_another_host_and_by_its_successors() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let (here, there) = (&views[0], &views[1]);
        let notes = FaultNotes::open(here, 0);
        [70_000, 9_000_000].into_iter().for_each(|offset| notes.note(offset));
        assert_eq!(noted(there, 0).collect::<Vec<_>>(), [70_000, 9_000_000]);
        assert_eq!(noted(there, 1).count(), 0);
        let successor = FaultNotes::open(here, 0);
        successor.note(70_100);
        successor.note(0);
        assert_eq!(noted(there, 0).collect::<Vec<_>>(), [70_000, 9_000_000, 0], "a page once");
        (1..20).for_each(|page| successor.note(page << 20));
        assert_eq!(noted(there, 0).count(), BODY_WORDS, "and no more than there is room for");
        let full = FaultNotes::open(here, 0);
        full.note(1 << 30);
        assert_eq!(noted(there, 0).last(), Some(4 << 20));
    }
}
