//! The slowest batches of the last minute, each with its times, so that a tail can be explained after the fact.

use bytemuck::{Pod, Zeroable, cast};

use crate::limits::SLOWEST_BYTES;
use crate::observe::timeline::Times;
use crate::order::Arrival;
use crate::pool::{Keep, Memory};

/// Batches that are kept of each half minute.
const KEPT: usize = 8;
/// How long one half lasts, ns: what is kept is of the last 30 to 60 s.
const HALF_NS: u64 = 30_000_000_000;
const WORDS: usize = 8;
const _: () = assert!(SLOWEST_BYTES == (8 * WORDS * 2 * KEPT) as u64);

/// A batch, and when it was where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[cfg_attr(feature = "broker", derive(serde::Serialize))]
#[repr(C)]
pub struct SlowBatch {
    /// Its position in the order index.
    pub position: u64,
    /// Its session.
    pub session: u64,
    /// Its number there.
    pub batch_seq: u64,
    /// Its slot was published then, UTC ns; 0: no batch.
    pub published_at: u64,
    /// So long before that its header had landed, ns.
    pub landing_ns: u32,
    /// From published to ordered, ns.
    pub ordering_ns: u32,
    /// From ordered to committed, ns.
    pub committing_ns: u32,
    /// From committed to acked or delivered, ns.
    pub ending_ns: u32,
    /// Its length, bytes.
    pub bytes: u32,
    /// Messages in it.
    pub messages: u32,
    /// Lane it came in by.
    pub lane: u32,
    /// Its topic's id.
    pub topic: u32,
}

impl SlowBatch {
    /// A batch at a position, whose times are not known yet.
    #[inline]
    pub fn of(position: u64, session: u64, arrival: &Arrival) -> SlowBatch {
        let Arrival { batch_seq, batch_bytes: bytes, message_count: messages, lane, topic, .. } = *arrival;
        SlowBatch { position, session, batch_seq, bytes, messages, lane: lane.into(), topic, ..SlowBatch::default() }
    }

    /// A batch whose times are known but for its end.
    pub fn with_times(self, times: &Times) -> SlowBatch {
        let Times { published_at, landing_ns, ordering_ns, committing_ns } = *times;
        SlowBatch { published_at, landing_ns, ordering_ns, committing_ns, ..self }
    }

    /// From landed to acked or delivered, ns.
    pub fn whole_ns(&self) -> u64 {
        [self.landing_ns, self.ordering_ns, self.committing_ns, self.ending_ns].map(u64::from).iter().sum()
    }
}

/// The slowest batches that a role saw the end of.
#[derive(Debug, Default)]
pub struct Slowest {
    halves: [[SlowBatch; KEPT]; 2],
    /// The half that is being filled.
    current: usize,
    /// What a batch must take to be kept, ns.
    threshold_ns: u64,
    half_began_ns: u64,
    changed: bool,
}

impl Slowest {
    /// Keeps a batch if it is one of the slowest.
    #[inline]
    pub fn offer(&mut self, batch: &SlowBatch) {
        if batch.whole_ns() > self.threshold_ns {
            self.keep(batch);
        }
    }

    #[cold]
    fn keep(&mut self, batch: &SlowBatch) {
        let half = &mut self.halves[self.current];
        if let Some(fastest) = half.iter_mut().min_by_key(|kept| kept.whole_ns()) {
            *fastest = *batch;
        }
        self.threshold_ns = half.iter().map(SlowBatch::whole_ns).min().unwrap_or(0);
        self.changed = true;
    }

    /// Copies the list to the block at `at` if it changed; at times begins another half. The caller fences.
    pub fn write<M: Memory>(&mut self, memory: &M, at: u64, monotonic_ns: u64) {
        if monotonic_ns.saturating_sub(self.half_began_ns) >= HALF_NS {
            self.half_began_ns = monotonic_ns;
            self.current = 1 - self.current;
            self.halves[self.current] = Default::default();
            (self.threshold_ns, self.changed) = (0, true);
        }
        if !std::mem::take(&mut self.changed) {
            return;
        }
        for (line, batch) in (at..).step_by(64).zip(self.halves.iter().flatten()) {
            let words: [u64; WORDS] = cast(*batch);
            (line..).step_by(8).zip(words).for_each(|(at, word)| memory.store(at, word));
        }
        memory.write_back(at, SLOWEST_BYTES, Keep::Cached);
    }
}

/// Reads the list at `at`, slowest first, of a process that lives or is gone.
pub fn read<M: Memory>(memory: &M, at: u64) -> Vec<SlowBatch> {
    memory.discard(at, SLOWEST_BYTES);
    let batch = |line: u64| -> SlowBatch {
        let words: [u64; WORDS] = std::array::from_fn(|word| memory.load(line + 8 * word as u64));
        cast(words)
    };
    let mut batches: Vec<_> =
        (at..at + SLOWEST_BYTES).step_by(64).map(batch).filter(|one| one.published_at > 0).collect();
    batches.sort_by_key(|batch| std::cmp::Reverse(batch.whole_ns()));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::{SharedMemory, Whim};

    #[test]
    fn the_slowest_are_kept_for_a_minute() {
        let pool = SharedMemory::new(4096, 2, Whim::LAZY, 1);
        let (ours, theirs) = (pool.host(0), pool.host(1));
        let mut slowest = Slowest::default();
        let batch = |ns: u32| SlowBatch { published_at: 1, ending_ns: ns, position: ns.into(), ..SlowBatch::default() };
        let look = |slowest: &mut Slowest, seconds: u64| -> Vec<u64> {
            slowest.write(&ours, 1024, seconds * 1_000_000_000);
            ours.store_fence();
            read(&theirs, 1024).iter().map(|batch| batch.position).collect()
        };
        (1..=100).for_each(|ns| slowest.offer(&batch(ns * 7 % 101)));
        slowest.offer(&batch(1));
        assert_eq!(look(&mut slowest, 1), (93..=100).rev().collect::<Vec<_>>());
        assert_eq!(look(&mut slowest, 31).len(), 8);
        slowest.offer(&batch(5));
        assert_eq!(look(&mut slowest, 40).last(), Some(&5), "another half minute has its own");
        assert_eq!(look(&mut slowest, 62), [5]);
        assert_eq!(look(&mut slowest, 93), [0; 0]);
    }
}
