//! When each batch was where: a ring of times beside the order index, one place a position.
//!
//! The sequencer notes when a batch began to land, was published, ordered and committed; whoever follows the index takes that up, adds when it
//! acked or delivered the batch, and so knows where the time went. The notes come behind the watermark, and not before it: nobody waits
//! for them, so a follower that is quick, or so late that the place is another's by now, finds none, and counts that batch nowhere.
//!
//! All times are UTC, in ns: one clock within a host; between hosts as good as these are kept in step.

use std::sync::Arc;

use crate::limits::{LINE_BYTES, TIMELINE_PLACE_BYTES};
use crate::pool::{Access, Keep, Layout, Line, Memory};

const PLACE_WORDS: usize = 4;

/// When a batch was where, as far as the sequencer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Its slot was published then, UTC ns.
    pub published_at: u64,
    /// So long before that its header had landed, ns; at most 4.29 s.
    pub landing_ns: u32,
    /// So long after it was published it had its place in the order, ns.
    pub ordering_ns: u32,
    /// So long after that it was committed, ns.
    pub committing_ns: u32,
}

impl Times {
    /// When its header had landed, UTC ns.
    pub fn landed_at(&self) -> u64 {
        self.published_at.saturating_sub(self.landing_ns.into())
    }
    /// When it had its place in the order, UTC ns.
    pub fn ordered_at(&self) -> u64 {
        self.published_at + u64::from(self.ordering_ns)
    }
    /// When it was committed, UTC ns.
    pub fn committed_at(&self) -> u64 {
        self.ordered_at() + u64::from(self.committing_ns)
    }
}

/// A time between two moments as it is noted: none if the clock was set back, the longest there is if it was longer.
pub fn between(from: u64, to: u64) -> u32 {
    to.saturating_sub(from).min(u32::MAX.into()) as u32
}

/// The sequencer's side.
#[derive(Debug)]
pub struct TimelineWriter<M> {
    memory: M,
    layout: Arc<Layout>,
    candidate: u32,
    /// Somebody on another host may read it.
    is_shared: bool,
}

impl<M: Memory> TimelineWriter<M> {
    /// Of a candidate.
    pub fn new(memory: &M, layout: &Arc<Layout>, candidate: u32) -> Self {
        let is_shared = layout.geometry.hosts > 1;
        TimelineWriter { memory: memory.clone(), layout: layout.clone(), candidate, is_shared }
    }

    /// Notes the times of a batch.
    #[inline]
    pub fn note(&self, position: u64, times: &Times) {
        let at = self.layout.timeline_place(self.candidate, position);
        let (line, first) = place(&self.memory, at);
        line.store(first, 0);
        line.store(first + 1, times.published_at);
        line.store(first + 2, u64::from(times.landing_ns) << 32 | u64::from(times.ordering_ns));
        line.store(first + 3, times.committing_ns.into());
        line.store(first, position + 1);
        if self.is_shared {
            self.memory.write_back(at, TIMELINE_PLACE_BYTES, Keep::Cached);
        }
    }
}

/// A follower's side.
#[derive(Debug)]
pub struct TimelineReader<M> {
    memory: M,
    layout: Arc<Layout>,
}

impl<M: Memory> TimelineReader<M> {
    /// Of a pool.
    pub fn new(memory: &M, layout: &Arc<Layout>) -> Self {
        TimelineReader { memory: memory.clone(), layout: layout.clone() }
    }

    /// The times of the batch at a position that `candidate` committed; none if they are not there yet, or not any more.
    #[inline]
    pub fn read(&self, candidate: u32, access: Access, position: u64) -> Option<Times> {
        let at = self.layout.timeline_place(candidate, position);
        if access == Access::Remote {
            self.memory.discard(at, TIMELINE_PLACE_BYTES);
        }
        let (line, first) = place(&self.memory, at);
        if line.load(first) != position + 1 {
            return None;
        }
        let words = [1, 2, 3].map(|word| line.load(first + word));
        let times = Times {
            published_at: words[0],
            landing_ns: (words[1] >> 32) as u32,
            ordering_ns: words[1] as u32,
            committing_ns: words[2] as u32,
        };
        (line.load(first) == position + 1).then_some(times)
    }
}

/// The line that a place lies in, and its first word there.
fn place<M: Memory>(memory: &M, at: u64) -> (M::Line<'_>, usize) {
    let first = if at.is_multiple_of(LINE_BYTES) { 0 } else { PLACE_WORDS };
    (memory.line(at - at % LINE_BYTES), first)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::log::views::plain_view;
    use crate::testing::memory::{SharedMemory, Whim, small_geometry};
    use crate::testing::watched::Watched;

    fn times(n: u64) -> Times {
        Times { published_at: 1000 * n, landing_ns: 1, ordering_ns: u32::MAX, committing_ns: n as u32 }
    }

    #[test]
    fn times_are_found_until_the_place_is_anothers() {
        let view = plain_view(1);
        let (writer, reader) =
            (TimelineWriter::new(&view.memory, &view.layout, 0), TimelineReader::new(&view.memory, &view.layout));
        let read = |position| reader.read(0, Access::Remote, position);
        let places = view.layout.timeline_places();
        assert_eq!(read(0), None);
        (0..places + 3).for_each(|position| writer.note(position, &times(position)));
        assert_eq!(read(2), None);
        assert_eq!(read(3), Some(times(3)));
        assert_eq!(read(places + 2), Some(times(places + 2)));
        assert_eq!(read(places + 3), None);
        let found = times(3);
        assert_eq!((found.landed_at(), found.committed_at()), (2999, 3000 + u64::from(u32::MAX) + 3));
        assert_eq!((between(5, 3), between(3, 5), between(0, u64::MAX)), (0, 2, u32::MAX));
    }

    /// Whatever a reader sees while a place is written anew is what lay there, what comes to lie there, or nothing.
    #[test]
    fn times_are_seen_whole_or_not_at_all_while_they_are_noted() {
        let view = plain_view(1);
        let next = view.layout.timeline_places() + 3;
        let watched = Watched::new(view.memory.clone());
        let (writer, reader) =
            (TimelineWriter::new(&watched, &view.layout, 0), TimelineReader::new(&view.memory, &view.layout));
        writer.note(3, &times(3));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reader, looks) = (Arc::new(reader), Arc::clone(&seen));
        let looking = Arc::clone(&reader);
        watched.on_each(move || {
            looks.lock().unwrap().push([3, next].map(|position| looking.read(0, Access::Local, position)));
        });
        writer.note(next, &times(next));
        watched.stop();
        let seen = seen.lock().unwrap();
        assert!(seen.len() > 3, "{seen:?}");
        assert!(
            seen.iter().all(|[old, new]| old.is_none_or(|old| old == times(3)) && new.is_none()),
            "there before all of it was: {seen:?}"
        );
        assert_eq!(reader.read(0, Access::Local, next), Some(times(next)));
    }

    /// The same, where it is the reader that is slow.
    #[test]
    fn times_are_read_whole_or_not_at_all_while_others_come() {
        let view = plain_view(1);
        let next = view.layout.timeline_places() + 3;
        let watched = Watched::new(view.memory.clone());
        let reader = TimelineReader::new(&watched, &view.layout);
        for position in [3, next] {
            for step in 0..6 {
                let writer = TimelineWriter::new(&view.memory, &view.layout, 0);
                writer.note(3, &times(3));
                watched.at(step, move || writer.note(next, &times(next)));
                let found = reader.read(0, Access::Local, position);
                watched.stop();
                assert!(found.is_none_or(|found| found == times(position)), "{position} at step {step}: {found:?}");
            }
        }
    }

    #[test]
    fn times_reach_another_host() {
        let geometry = crate::pool::Geometry { hosts: 2, ..small_geometry(2) };
        let layout = Arc::new(Layout::new(geometry).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, Whim::LAZY, 1);
        let (ours, theirs) = (pool.host(0), pool.host(1));
        let (writer, reader) = (TimelineWriter::new(&ours, &layout, 1), TimelineReader::new(&theirs, &layout));
        for position in [3, layout.timeline_places() + 3] {
            assert_eq!(reader.read(1, Access::Remote, position), None);
            writer.note(position, &times(position));
            ours.store_fence();
            assert_eq!(reader.read(1, Access::Remote, position), Some(times(position)));
            assert_eq!(reader.read(0, Access::Remote, position), None, "of the candidate that noted it");
        }
    }
}
