//! The line protocol: how one 64-byte record becomes visible to others, whole or not at all.
//!
//! A line is a guard word and seven body words. The guard says which record it is: `absolute index + 1` for a slot of
//! a ring, a version for a record rewritten in place; 0 is invalid. Every write passes through invalid, because
//! a line may be evicted, or read, after any prefix of its stores.

use std::marker::PhantomData;

use crate::limits::LINE_BYTES;
use crate::pool::coherence::{Keep, Line, Memory};
use crate::pool::record::Record;

/// Guard of a line that holds nothing.
pub const INVALID: u64 = 0;

/// Which word of a line the guard is,
const GUARD: usize = 0;
/// and where the words of its record begin.
const BODY: usize = 1;

/// Whose cache a line was last written from, as seen by its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By this host: its cache is coherent, nothing is dropped before reading.
    Local,
    /// By another host: drop our copy first.
    Remote,
}

/// Writes a record into its line; it becomes visible by the next `store_fence`.
#[inline]
pub fn write<M: Memory, R: Record>(memory: &M, at: u64, guard: u64, record: &R) {
    debug_assert!(at.is_multiple_of(LINE_BYTES) && guard != INVALID);
    let line = memory.line(at);
    line.store(GUARD, INVALID);
    (BODY..).zip(record.words()).for_each(|(word, value)| line.store(word, value));
    line.store(GUARD, guard);
    memory.flush_line(at, Keep::Cached);
}

/// Writes the next version of a record into a line of its one writer, who keeps no [`Owned`] for it: there are too many. Visible by
/// the next `store_fence`.
#[inline]
pub fn rewrite<M: Memory, R: Record>(memory: &M, at: u64, record: &R) {
    write(memory, at, next_version(memory.load(at)), record);
}

/// A damaged guard may be the highest number there is.
#[inline]
fn next_version(version: u64) -> u64 {
    version.checked_add(1).unwrap_or(1)
}

/// Writes a record into its line and makes it visible.
#[inline]
pub fn publish<M: Memory, R: Record>(memory: &M, at: u64, guard: u64, record: &R) {
    write(memory, at, guard, record);
    memory.store_fence();
}

/// Begins to drop this host's copy of a line another host writes; a `full_fence` must follow before reading it.
#[inline]
pub fn prefetch<M: Memory>(memory: &M, at: u64, access: Access) {
    if access == Access::Remote {
        memory.flush_line(at, Keep::Dropped);
    }
}

/// Reads a line without dropping it first. `None`: invalid, or being rewritten.
#[inline]
pub fn read<M: Memory, R: Record>(memory: &M, at: u64) -> Option<(u64, R)> {
    let line = memory.line(at);
    let guard = line.load(GUARD);
    if guard == INVALID {
        return None;
    }
    let words = std::array::from_fn(|index| line.load(BODY + index));
    (line.load(GUARD) == guard).then(|| (guard, R::from_words(words)))
}

/// Reads a line that another may be writing. `None`: invalid, or being rewritten.
#[inline]
pub fn observe<M: Memory, R: Record>(memory: &M, at: u64, access: Access) -> Option<(u64, R)> {
    if access == Access::Remote && M::SOFTWARE {
        memory.flush_line(at, Keep::Dropped);
        memory.full_fence();
    }
    read(memory, at)
}

/// Reads the words of a line whatever its guard says, for records whose every word stands alone: each is of the version
/// being written or of the one before, whoever was killed or stopped in the middle. All zero: never written.
#[inline]
pub fn observe_words<M: Memory, R: Record>(memory: &M, at: u64, access: Access) -> R {
    if access == Access::Remote && M::SOFTWARE {
        memory.flush_line(at, Keep::Dropped);
        memory.full_fence();
    }
    words(memory, at)
}

/// Drops this host's copies of many lines under one fence; then they are read without dropping each.
pub fn fetch_all<M: Memory>(memory: &M, lines: impl Iterator<Item = u64>, access: Access) {
    lines.for_each(|at| prefetch(memory, at, access));
    memory.full_fence();
}

/// The words of a line after [`fetch_all`]; see [`observe_words`].
#[inline]
pub fn fetched_words<M: Memory, R: Record>(memory: &M, at: u64) -> R {
    words(memory, at)
}

#[inline]
fn words<M: Memory, R: Record>(memory: &M, at: u64) -> R {
    let line = memory.line(at);
    R::from_words(std::array::from_fn(|index| line.load(BODY + index)))
}

/// The one writer of a record that is rewritten in place. Its guard is a version.
#[derive(Debug)]
pub struct Owned<R, M> {
    memory: M,
    at: u64,
    version: u64,
    record: PhantomData<R>,
}

impl<R: Record, M: Memory> Owned<R, M> {
    /// Takes the line over: versions go on from whatever it holds. The caller holds the host-local lock that
    /// makes it the line's one writer.
    pub fn take(memory: M, at: u64) -> Self {
        let version = memory.load(at);
        Owned { memory, at, version, record: PhantomData }
    }

    /// As [`Self::take`], of a line that a process of another host may have written last.
    pub fn take_from_another(memory: M, at: u64) -> Self {
        if M::SOFTWARE {
            memory.flush_line(at, Keep::Dropped);
            memory.full_fence();
        }
        Owned::take(memory, at)
    }

    /// What the line holds.
    pub fn current(&self) -> Option<R> {
        read(&self.memory, self.at).map(|(_, record)| record)
    }

    /// What its words say even if its last publication was cut short by a kill: each word is of that version or of the one
    /// before. For words that stay the same while one owner has the line.
    pub fn last(&self) -> R {
        words(&self.memory, self.at)
    }

    /// Rewrites the line and makes it visible.
    pub fn publish(&mut self, record: &R) {
        self.write(record);
        self.memory.store_fence();
    }

    /// Rewrites the line; visible by the next `store_fence`.
    pub fn write(&mut self, record: &R) {
        self.version = next_version(self.version);
        write(&self.memory, self.at, self.version, record);
    }
}

/// A reader of a record that another rewrites in place.
#[derive(Clone, Debug)]
pub struct Peer<R, M> {
    memory: M,
    at: u64,
    access: Access,
    record: PhantomData<R>,
}

impl<R: Record, M: Memory> Peer<R, M> {
    /// Observes the line at `at`.
    pub fn new(memory: M, at: u64, access: Access) -> Self {
        Peer { memory, at, access, record: PhantomData }
    }

    /// Where the line lies.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Reads the record. `None`: never written, or being rewritten now.
    #[inline]
    pub fn observe(&self) -> Option<R> {
        observe(&self.memory, self.at, self.access).map(|(_, record)| record)
    }

    /// Reads the record's words, each of which stands alone; see [`observe_words`].
    #[inline]
    pub fn observe_words(&self) -> R {
        observe_words(&self.memory, self.at, self.access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::record::SegmentLine;
    use crate::testing::memory::{SharedMemory, Whim};
    use crate::testing::watched::Watched;

    fn record(version: u64) -> SegmentLine {
        SegmentLine { epoch: version, first: version, end: version, filled_by: version, reserved: [version; 3] }
    }

    #[test]
    fn a_publication_is_seen_on_another_host_at_once() {
        let pool = SharedMemory::new(4096, 2, Whim::LAZY, 1);
        let mut owned: Owned<SegmentLine, _> = Owned::take(pool.host(0), 64);
        let peer: Peer<SegmentLine, _> = Peer::new(pool.host(1), 64, Access::Remote);
        for version in 1..30 {
            owned.publish(&record(version));
            match version % 2 {
                0 => assert_eq!(peer.observe(), Some(record(version))),
                _ => assert_eq!(peer.observe_words(), record(version)),
            }
        }
    }

    /// Versions go on over owners: a reader that began under the one and ends under the next must not take a mixture for whole.
    #[test]
    fn a_line_that_changes_owners_while_it_is_read_is_never_torn() {
        for moment in 0..20 {
            let host = SharedMemory::new(4096, 1, Whim::NONE, 1).host(0);
            Owned::take(host.clone(), 64).publish(&record(1));
            let watched = Watched::new(host.clone());
            watched.at(moment, move || Owned::take(host, 64).publish(&record(2)));
            let peer: Peer<SegmentLine, _> = Peer::new(watched, 64, Access::Local);
            if let Some(seen) = peer.observe() {
                assert!(seen == record(1) || seen == record(2), "moment {moment}: torn: {seen:?}");
            }
        }
    }
}
