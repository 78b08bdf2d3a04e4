//! Simulated pool memory: each host has a private write-back cache that evicts and refills at the whim of a seed.
//!
//! What it models, and nothing kinder:
//! * a line may be written back after any prefix of its stores: eviction strikes between any two operations;
//! * a stale line may be refilled at any moment (prefetch), and a load that hits it sees the old bytes;
//! * `clflushopt` takes effect late: a dirty line's write-back by the next fence, the drop that a later *load* relies on
//!   only by the next `mfence`;
//! * hosts see each other's stores only through the memory behind their caches.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::limits::LINE_BYTES;
use crate::pool::{Geometry, Keep, Memory};
use crate::testing::random::Random;

type Line = [u8; LINE_BYTES as usize];

struct Cached {
    /// Which line of the pool, by its number.
    number: u32,
    bytes: Line,
    dirty: bool,
    /// A `clflushopt` or `clwb` of it has not taken effect.
    flushing: bool,
}

/// Not cached.
const ABSENT: u32 = u32::MAX;

struct Cache {
    /// Where each line of the pool lies in `lines`.
    place: Vec<u32>,
    /// In no order, so that a victim is found and removed at once.
    lines: Vec<Cached>,
    /// Lines flagged `flushing`, oldest first; some of them are gone or flushed already.
    flushing: Vec<u32>,
}

impl Cache {
    fn new(lines: usize) -> Cache {
        Cache { place: vec![ABSENT; lines], lines: Vec::new(), flushing: Vec::new() }
    }

    fn get(&mut self, number: u32) -> Option<&mut Cached> {
        let place = self.place[number as usize];
        (place != ABSENT).then(|| &mut self.lines[place as usize])
    }

    fn remove(&mut self, number: u32) {
        let place = std::mem::replace(&mut self.place[number as usize], ABSENT);
        if place != ABSENT {
            self.lines.swap_remove(place as usize);
            if let Some(moved) = self.lines.get(place as usize) {
                self.place[moved.number as usize] = place;
            }
        }
    }
}

/// How unkind the memory is: events in a thousand operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whim {
    /// A random cached line is evicted.
    pub evict: u64,
    /// A random line is prefetched.
    pub prefetch: u64,
    /// A `clflushopt` takes effect at once.
    pub prompt_flush: u64,
}

impl Whim {
    /// No surprises: for tests of logic on one host.
    pub const NONE: Whim = Whim { evict: 0, prefetch: 0, prompt_flush: 1000 };
    /// Nothing reaches memory, or leaves a cache, before a fence says so.
    pub const LAZY: Whim = Whim { evict: 0, prefetch: 0, prompt_flush: 0 };
    /// Surprises all the time.
    pub const HARSH: Whim = Whim { evict: 60, prefetch: 60, prompt_flush: 300 };
}

struct Shared {
    memory: Vec<u8>,
    hosts: Vec<Cache>,
    random: Random,
    whim: Whim,
}

/// The pool, shared by all simulated hosts.
#[derive(Clone)]
pub struct SharedMemory {
    shared: Arc<Mutex<Shared>>,
}

/// One host's view of it.
#[derive(Clone)]
pub struct HostMemory {
    shared: Arc<Mutex<Shared>>,
    host: usize,
    bytes: u64,
}

impl SharedMemory {
    /// `bytes` of zeros seen by `hosts` hosts.
    pub fn new(bytes: u64, hosts: usize, whim: Whim, seed: u64) -> SharedMemory {
        assert!(bytes.is_multiple_of(LINE_BYTES) && bytes / LINE_BYTES < u64::from(ABSENT));
        let hosts = (0..hosts).map(|_| Cache::new((bytes / LINE_BYTES) as usize)).collect();
        let shared = Shared { memory: vec![0; bytes as usize], hosts, random: Random::new(seed), whim };
        SharedMemory { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The view of one host.
    pub fn host(&self, host: usize) -> HostMemory {
        let bytes = lock(&self.shared).memory.len() as u64;
        HostMemory { shared: self.shared.clone(), host, bytes }
    }

    /// What lies in the pool itself, behind all caches: for checkers, which are no host.
    pub fn behind_caches<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        read(&lock(&self.shared).memory[at as usize..(at + bytes) as usize])
    }

    /// The highest value of a word in any cache and behind them: for checkers.
    pub fn highest_copy(&self, at: u64) -> u64 {
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        let (number, start) = ((at / LINE_BYTES) as u32, (at % LINE_BYTES) as usize);
        let word = |line: &Line| u64::from_le_bytes(line[start..start + 8].try_into().expect("a word"));
        let behind = word(shared.behind(number));
        let cached = shared.hosts.iter_mut().filter_map(|host| host.get(number).map(|cached| word(&cached.bytes)));
        cached.fold(behind, u64::max)
    }

    /// A host loses power: what its cache had not written back is gone. The pool is powered apart from it.
    pub fn lose_power(&self, host: usize) {
        let mut shared = lock(&self.shared);
        let lines = shared.memory.len() / LINE_BYTES as usize;
        shared.hosts[host] = Cache::new(lines);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panicking test poisons the lock; its memory is still memory.
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    fn behind(&mut self, number: u32) -> &mut Line {
        let at = number as usize * LINE_BYTES as usize;
        (&mut self.memory[at..at + LINE_BYTES as usize]).try_into().expect("one line")
    }

    fn cached(&mut self, host: usize, number: u32) -> &mut Cached {
        if self.hosts[host].place[number as usize] == ABSENT {
            let bytes = *self.behind(number);
            let cache = &mut self.hosts[host];
            cache.place[number as usize] = cache.lines.len() as u32;
            cache.lines.push(Cached { number, bytes, dirty: false, flushing: false });
        }
        let cache = &mut self.hosts[host];
        &mut cache.lines[cache.place[number as usize] as usize]
    }

    fn write_back(&mut self, host: usize, number: u32) {
        if let Some(cached) = self.hosts[host].get(number)
            && std::mem::take(&mut cached.dirty)
        {
            let bytes = cached.bytes;
            *self.behind(number) = bytes;
        }
    }

    fn drop_line(&mut self, host: usize, number: u32) {
        self.write_back(host, number);
        self.hosts[host].remove(number);
    }

    /// Something the hardware does on its own between two operations of a host.
    fn whim(&mut self, host: usize, near: u32) {
        let (evict, prefetch) = (self.whim.evict, self.whim.prefetch);
        if evict > 0 && self.random.chance(evict, 1000) {
            let count = self.hosts[host].lines.len() as u64;
            if count > 0 {
                let victim = self.random.below(count) as usize;
                let number = self.hosts[host].lines[victim].number;
                self.drop_line(host, number);
            }
        }
        if prefetch > 0 && self.random.chance(prefetch, 1000) {
            // Hardware prefetches what lies ahead of recent accesses, on any host that looked there.
            let victim = self.random.below(self.hosts.len() as u64) as usize;
            let ahead = near + self.random.below(4) as u32;
            if (ahead as usize) < self.hosts[victim].place.len() {
                self.cached(victim, ahead);
            }
        }
    }

    fn access<R>(&mut self, host: usize, at: u64, use_line: impl FnOnce(&mut Cached) -> R) -> R {
        let number = (at / LINE_BYTES) as u32;
        self.whim(host, number);
        let result = use_line(self.cached(host, number));
        self.whim(host, number);
        result
    }

    fn flush(&mut self, host: usize, at: u64, keep: Keep) {
        let number = (at / LINE_BYTES) as u32;
        if self.random.chance(self.whim.prompt_flush, 1000) {
            match keep {
                // clwb: modelled at its weakest promise: written back by the next fence at the latest.
                Keep::Cached => self.write_back(host, number),
                Keep::Dropped => self.drop_line(host, number),
            }
        } else if let Some(cached) = self.hosts[host].get(number)
            && !std::mem::replace(&mut cached.flushing, true)
        {
            self.hosts[host].flushing.push(number);
        }
    }

    fn fence(&mut self, host: usize, drops: bool) {
        let mut flushing = std::mem::take(&mut self.hosts[host].flushing);
        flushing.retain(|&number| {
            let is_flushing = self.hosts[host].get(number).is_some_and(|cached| cached.flushing);
            if is_flushing && !drops && !self.random.chance(1, 2) {
                // Written back, but a load may still hit the old copy until an mfence.
                self.write_back(host, number);
                return true;
            }
            if is_flushing {
                self.drop_line(host, number);
            }
            false
        });
        self.hosts[host].flushing = flushing;
    }
}

impl HostMemory {
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

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn store(&self, at: u64, word: u64) {
        assert!(at.is_multiple_of(8));
        let start = (at % LINE_BYTES) as usize;
        lock(&self.shared).access(self.host, at, |cached| {
            cached.bytes[start..start + 8].copy_from_slice(&word.to_le_bytes());
            cached.dirty = true;
        });
    }

    fn load(&self, at: u64) -> u64 {
        assert!(at.is_multiple_of(8));
        let start = (at % LINE_BYTES) as usize;
        let mut word = [0; 8];
        lock(&self.shared).access(self.host, at, |cached| word.copy_from_slice(&cached.bytes[start..start + 8]));
        u64::from_le_bytes(word)
    }

    fn flush_line(&self, at: u64, keep: Keep) {
        lock(&self.shared).flush(self.host, at, keep);
    }

    fn store_fence(&self) {
        lock(&self.shared).fence(self.host, false);
    }

    fn full_fence(&self) {
        lock(&self.shared).fence(self.host, true);
    }

    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut copy = Vec::with_capacity(bytes as usize);
        let mut shared = lock(&self.shared);
        for (start, length) in Self::chunks(at, bytes) {
            let offset = (start % LINE_BYTES) as usize;
            shared.access(self.host, start, |cached| {
                copy.extend_from_slice(&cached.bytes[offset..offset + length as usize])
            });
        }
        drop(shared);
        read(&copy)
    }

    fn copy_in(&self, at: u64, bytes: &[u8]) {
        let mut shared = lock(&self.shared);
        for (start, length) in Self::chunks(at, bytes.len() as u64) {
            let (offset, from) = ((start % LINE_BYTES) as usize, (start - at) as usize);
            shared.access(self.host, start, |cached| {
                cached.bytes[offset..offset + length as usize].copy_from_slice(&bytes[from..from + length as usize]);
                cached.dirty = true;
            });
        }
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
        extents_per_lane: 0,
        attached_per_broker: 0,
        attached_extents: 0,
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
            let pool = SharedMemory::new(4096, 2, Whim { evict: 0, prefetch: 0, prompt_flush: 300 }, seed);
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
