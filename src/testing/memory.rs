//! Simulated pool memory: hosts whose caches nothing keeps coherent, as the seed wills.
//!
//! What lies between a host's instructions and the pool, and what it may do, is in `caches.rs`; here it gets an interface.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::limits::LINE_BYTES;
use crate::pool::{Geometry, Keep, Memory, WordByWord};
use crate::testing::caches::Caches;
pub use crate::testing::caches::Whim;
use crate::testing::random::{Chance, Random};

/// The pool, shared by all simulated hosts.
#[derive(Clone)]
pub struct SharedMemory {
    shared: Arc<Mutex<Caches>>,
}

/// The pool as a thread of one host sees it. Clones are the same thread's.
#[derive(Clone)]
pub struct HostMemory {
    core: Arc<Core>,
    bytes: u64,
}

/// A thread's core, until its last handle is dropped.
struct Core {
    shared: Arc<Mutex<Caches>>,
    number: usize,
}

impl Drop for Core {
    fn drop(&mut self) {
        lock(&self.shared).free(self.number);
    }
}

impl SharedMemory {
    /// `bytes` of zeros seen by `hosts` hosts.
    pub fn new(bytes: u64, hosts: usize, whim: Whim, seed: u64) -> SharedMemory {
        let caches = Caches::new(bytes, hosts, whim, Chance::Seeded(Random::new(seed)));
        SharedMemory { shared: Arc::new(Mutex::new(caches)) }
    }

    /// The view of another thread of a host.
    pub fn host(&self, host: usize) -> HostMemory {
        let mut shared = lock(&self.shared);
        let (number, bytes) = (shared.core(host), shared.memory.len() as u64);
        HostMemory { core: Arc::new(Core { shared: self.shared.clone(), number }), bytes }
    }

    /// What lies in the pool itself, behind all caches: for checkers, which are no host.
    pub fn behind_caches<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        read(&lock(&self.shared).memory[at as usize..(at + bytes) as usize])
    }

    /// The highest value of a word in any buffer or cache and behind them: for checkers.
    pub fn highest_copy(&self, at: u64) -> u64 {
        lock(&self.shared).copies(at).into_iter().max().expect("what lies in memory at least")
    }

    /// Every thread did something that its core's buffer does not outlast: a system call, a locked instruction.
    pub fn settle(&self) {
        lock(&self.shared).settle_all();
    }

    /// A host loses power: what its cores and its cache had not written back is gone. The pool is powered apart from it.
    pub fn lose_power(&self, host: usize) {
        lock(&self.shared).lose_power(host);
    }
}

fn lock(shared: &Mutex<Caches>) -> MutexGuard<'_, Caches> {
    // A panicking test poisons the lock; its memory is still memory.
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl HostMemory {
    fn with<R>(&self, act: impl FnOnce(&mut Caches, usize) -> R) -> R {
        act(&mut lock(&self.core.shared), self.core.number)
    }

    fn chunks(at: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut next = at;
        std::iter::from_fn(move || {
            (next < at + bytes).then(|| {
                let length = (LINE_BYTES - next % LINE_BYTES).min(at + bytes - next);
                next += length;
                (next - length, length)
            })
        })
    }
}

impl Memory for HostMemory {
    const SOFTWARE: bool = true;
    type Line<'a> = WordByWord<'a, Self>;

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }

    fn store(&self, at: u64, word: u64) {
        assert!(at.is_multiple_of(8));
        self.with(|caches, core| caches.store(core, at, word));
    }

    fn load(&self, at: u64) -> u64 {
        assert!(at.is_multiple_of(8));
        self.with(|caches, core| caches.load(core, at))
    }

    fn flush_line(&self, at: u64, keep: Keep) {
        self.with(|caches, core| caches.flush(core, at, keep));
    }

    fn store_fence(&self) {
        self.with(Caches::store_fence);
    }

    fn full_fence(&self) {
        self.with(Caches::full_fence);
    }

    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut copy = vec![0; bytes as usize];
        self.with(|caches, core| {
            for (start, length) in Self::chunks(at, bytes) {
                let from = (start - at) as usize;
                caches.read(core, start, &mut copy[from..from + length as usize]);
            }
        });
        read(&copy)
    }

    fn copy_in(&self, at: u64, bytes: &[u8]) {
        self.with(|caches, core| {
            for (start, length) in Self::chunks(at, bytes.len() as u64) {
                let from = (start - at) as usize;
                caches.write(core, start, &bytes[from..from + length as usize]);
            }
        });
    }

    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        let copy = self.with_bytes(from, bytes, <[u8]>::to_vec);
        self.copy_in(to, &copy);
    }
}

/// The geometry that tests use unless they need another: tiny rings and index, so that laps come often.
pub fn small_geometry(candidates: u32) -> Geometry {
    Geometry {
        pool_bytes: 16 << 20,
        extent_bytes: 256 << 10,
        hosts: 1,
        brokers: 2,
        lanes_per_broker: 1,
        candidates,
        ring_slots: 64,
        segment_entries: 128,
        segments: 8,
        sessions_max: 64,
        topics_max: 8,
        cursors_max: 4,
        extents: 0,
        attached_per_broker: 0,
        spare_per_host: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::line;
    use crate::pool::record::SegmentLine;
    use crate::pool::{Access, line::INVALID};

    #[test]
    fn without_a_flush_the_other_host_sees_nothing() {
        let pool = SharedMemory::new(4096, 2, Whim::NONE, 7);
        let (writer, reader) = (pool.host(0), pool.host(1));
        writer.store(64, 5);
        assert_eq!(reader.load(64), 0);
        writer.flush_line(64, Keep::Cached);
        writer.store_fence();
        assert_eq!(reader.load(64), 0, "its own stale copy");
        reader.discard(64, 8);
        assert_eq!(reader.load(64), 5);
    }

    /// A line that is rewritten in place is seen whole or not at all, whatever the caches do.
    #[test]
    fn published_lines_are_never_torn() {
        for seed in 0..200 {
            let pool = SharedMemory::new(4096, 2, Whim::HARSH, seed);
            let (writer, reader) = (pool.host(0), pool.host(1));
            let mut last = INVALID;
            for version in 1..60 {
                let record = SegmentLine {
                    epoch: version,
                    first: version * 3,
                    end: version,
                    filled_by: version,
                    reserved: [version; 3],
                };
                line::publish(&writer, 128, version, &record);
                let seen: Option<(u64, SegmentLine)> = line::observe(&reader, 128, Access::Remote);
                let (guard, seen) = seen.unwrap_or_else(|| panic!("seed {seed}: a fenced publication was not seen"));
                assert_eq!((guard, seen.epoch, seen.first), (version, version, version * 3), "seed {seed}");
                assert!(seen.reserved.iter().all(|word| *word == version), "seed {seed}: torn");
                assert!(guard >= last);
                last = guard;
            }
        }
    }

    /// The model must be able to show a missing mfence: a reader that fences with sfence only reads stale lines.
    #[test]
    fn a_reader_without_mfence_is_caught() {
        let stale = (0..200).any(|seed| {
            let pool = SharedMemory::new(4096, 2, Whim { prompt_flush: 300, ..Whim::LAZY }, seed);
            let (writer, reader) = (pool.host(0), pool.host(1));
            assert_eq!(reader.load(64), 0);
            writer.store(64, 5);
            writer.flush_line(64, Keep::Cached);
            writer.store_fence();
            reader.flush_line(64, Keep::Dropped);
            reader.store_fence();
            reader.load(64) == 0
        });
        assert!(stale);
    }
}
