//! What lies between the instructions of a host and the pool: store buffers of cores, and a write-back cache that the cores of a host
//! share. A state machine without time: what the hardware does on its own is an [`Act`], chosen by whoever drives it.
//!
//! What it models, and nothing kinder. `LITMUS.md` holds it against the published models of x86 and CXL.
//! * a store waits in its core's buffer: the core sees it at once, others of its host later, loads that follow it overtake it;
//! * a line may be written back after any prefix of its stores: eviction strikes between any two operations;
//! * a stale line may be refilled at any moment (prefetch), and a load that hits it sees the old bytes;
//! * `clflushopt` and `clwb` take effect late: a dirty line's write-back by the next fence *of the same core*, the drop that a later
//!   *load* relies on only by its next `mfence`;
//! * hosts see each other's stores only through the memory behind their caches.

use std::collections::VecDeque;

use crate::limits::LINE_BYTES;
use crate::pool::Keep;
use crate::testing::random::Chance;

/// The bytes of a line.
pub(super) type Line = [u8; LINE_BYTES as usize];

/// Stores and flushes that wait at most, of a core.
const WAITING_MAX: usize = 32;

/// How unkind the memory is: events in a thousand operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whim {
    /// A random cached line is evicted.
    pub evict: u64,
    /// A random line is prefetched.
    pub prefetch: u64,
    /// A `clflushopt` takes effect at once.
    pub prompt_flush: u64,
    /// The oldest store in a core's buffer goes on waiting there. 0: stores do not wait at all.
    pub delay: u64,
}

impl Whim {
    /// No surprises: for tests of logic on one host.
    pub const NONE: Whim = Whim { evict: 0, prefetch: 0, prompt_flush: 1000, delay: 0 };
    /// Nothing reaches memory, or leaves a cache, before a fence says so.
    pub const LAZY: Whim = Whim { evict: 0, prefetch: 0, prompt_flush: 0, delay: 0 };
    /// Surprises all the time, but for stores that wait: for tests that call one host's code after another's, which is as good as a message.
    pub const HARSH: Whim = Whim { evict: 60, prefetch: 60, prompt_flush: 300, delay: 0 };
    /// Surprises all the time: for worlds that say when a thread does something that no store waits through.
    pub const STORMY: Whim = Whim { delay: 700, ..Whim::HARSH };
    /// Nothing happens by itself in an operation, and everything may: for whoever chooses each act.
    #[cfg(test)]
    pub(super) const LISTED: Whim = Whim { evict: 0, prefetch: 0, prompt_flush: 500, delay: 1000 };
}

/// Something the hardware does on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The oldest in a core's buffer takes effect.
    Settle(usize),
    /// A host's cache gives a line up: it is written back if it is dirty.
    Evict(usize, u32),
    /// A host's cache takes a line in.
    Prefetch(usize, u32),
}

/// Not cached, or no line.
const NONE: u32 = u32::MAX;
/// The bit of a place that says its line was written and not written back.
const DIRTY: u32 = 1 << 31;

/// A host's cache. What decides an eviction or a fence lies apart from the lines' bytes, and lines never move: the tables stay in the
/// cache of the machine that simulates, the bytes do not.
#[derive(Clone)]
struct Cache {
    /// Where each line of the pool lies in `lines`, and whether it is dirty.
    place: Vec<u32>,
    /// Which line of the pool lies at each place.
    numbers: Vec<u32>,
    lines: Vec<Line>,
    /// Places without a line.
    free: Vec<u32>,
}

impl Cache {
    fn new(lines: usize) -> Cache {
        Cache { place: vec![NONE; lines], numbers: Vec::new(), lines: Vec::new(), free: Vec::new() }
    }

    fn holds(&self, number: u32) -> bool {
        self.place[number as usize] != NONE
    }

    fn is_dirty(&self, number: u32) -> bool {
        self.holds(number) && self.place[number as usize] & DIRTY != 0
    }

    fn get(&self, number: u32) -> Option<&Line> {
        self.holds(number).then(|| &self.lines[(self.place[number as usize] & !DIRTY) as usize])
    }

    /// Takes a clean line in that it does not hold.
    fn insert(&mut self, number: u32, bytes: Line) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.numbers.push(NONE);
            self.lines.push([0; LINE_BYTES as usize]);
            self.lines.len() as u32 - 1
        });
        self.lines[place as usize] = bytes;
        self.numbers[place as usize] = number;
        self.place[number as usize] = place;
    }

    fn remove(&mut self, number: u32) {
        let place = std::mem::replace(&mut self.place[number as usize], NONE);
        if place != NONE {
            self.numbers[(place & !DIRTY) as usize] = NONE;
            self.free.push(place & !DIRTY);
        }
    }

    /// What is dirty in a line, which is clean from then on.
    fn clean(&mut self, number: u32) -> Option<&Line> {
        if !self.is_dirty(number) {
            return None;
        }
        self.place[number as usize] &= !DIRTY;
        self.get(number)
    }
}

/// Copies a part of a line. Most are whole ones, which need no call.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    match (<&Line>::try_from(from), <&mut Line>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// What a core has executed and nobody else sees yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Waiting {
    Store(u64, u64),
    Flush(u64, Keep),
    StoreFence,
}

#[derive(Clone, Default)]
struct Core {
    host: usize,
    is_free: bool,
    /// Its stores do not wait.
    is_direct: bool,
    waiting: VecDeque<Waiting>,
    /// Flushes that have not taken effect, by line.
    flushing: Vec<(u32, Keep)>,
}

/// The pool, its hosts' caches, and their cores.
#[derive(Clone)]
pub(super) struct Caches {
    pub memory: Vec<u8>,
    hosts: Vec<Cache>,
    cores: Vec<Core>,
    /// How many wait in all buffers.
    waiting: usize,
    /// Operations until the next line is evicted, and prefetched.
    evict_in: u64,
    prefetch_in: u64,
    pub chance: Chance,
    whim: Whim,
}

impl Caches {
    pub fn new(bytes: u64, hosts: usize, whim: Whim, chance: Chance) -> Caches {
        assert!(bytes.is_multiple_of(LINE_BYTES) && bytes / LINE_BYTES < u64::from(DIRTY));
        let hosts = (0..hosts).map(|_| Cache::new((bytes / LINE_BYTES) as usize)).collect();
        let (memory, cores) = (vec![0; bytes as usize], Vec::new());
        let mut caches = Caches { memory, hosts, cores, waiting: 0, evict_in: 0, prefetch_in: 0, chance, whim };
        (caches.evict_in, caches.prefetch_in) = (caches.pause(whim.evict), caches.pause(whim.prefetch));
        caches
    }

    /// Operations until something happens that does so `rate` times in a thousand: chosen once instead of asked at each of them.
    fn pause(&mut self, rate: u64) -> u64 {
        2000_u64.checked_div(rate).map_or(u64::MAX, |most| 1 + self.chance.below(most))
    }

    /// A core of a host for another thread. What a former thread's core had not flushed is flushed by this one.
    pub fn core(&mut self, host: usize) -> usize {
        if let Some(free) = self.cores.iter().position(|core| core.is_free && core.host == host) {
            self.cores[free].is_free = false;
            return free;
        }
        self.cores.push(Core { host, ..Core::default() });
        self.cores.len() - 1
    }

    /// A core's stores do not wait from now on. Of a thread that loads nothing the same can be seen: it is as if it ran later.
    #[cfg(test)]
    pub fn make_direct(&mut self, core: usize) {
        self.cores[core].is_direct = true;
    }

    /// Its thread has ended: what it had stored, others see by now.
    pub fn free(&mut self, core: usize) {
        self.settle(core);
        self.cores[core].is_free = true;
    }

    /// Everything in a core's buffer takes effect.
    pub fn settle(&mut self, core: usize) {
        while self.settle_oldest(core) {}
    }

    /// Whether nothing waits in a core's buffer.
    #[cfg(test)]
    pub fn is_settled(&self, core: usize) -> bool {
        self.cores[core].waiting.is_empty()
    }

    /// Everything in every buffer takes effect.
    pub fn settle_all(&mut self) {
        if self.waiting > 0 {
            (0..self.cores.len()).for_each(|core| self.settle(core));
        }
    }

    /// What a host's cache and cores had not written back is gone.
    pub fn lose_power(&mut self, host: usize) {
        self.hosts[host] = Cache::new(self.memory.len() / LINE_BYTES as usize);
        for core in self.cores.iter_mut().filter(|core| core.host == host) {
            self.waiting -= core.waiting.len();
            core.waiting.clear();
            core.flushing.clear();
        }
    }

    pub fn store(&mut self, core: usize, at: u64, word: u64) {
        let (host, number) = (self.cores[core].host, (at / LINE_BYTES) as u32);
        self.surprise(host, number);
        match self.whim.delay == 0 || self.cores[core].is_direct {
            true => self.store_word(host, at, word),
            false => self.wait(core, Waiting::Store(at, word)),
        }
        self.surprise(host, number);
    }

    pub fn load(&mut self, core: usize, at: u64) -> u64 {
        let (host, number) = (self.cores[core].host, (at / LINE_BYTES) as u32);
        self.surprise(host, number);
        let own = self.cores[core].waiting.iter().rev().find_map(|waiting| match waiting {
            Waiting::Store(place, word) if *place == at => Some(*word),
            _ => None,
        });
        let word = own.unwrap_or_else(|| {
            let start = (at % LINE_BYTES) as usize;
            let bytes = &self.cached(host, number)[start..start + 8];
            u64::from_le_bytes(bytes.try_into().expect("a word"))
        });
        self.surprise(host, number);
        word
    }

    /// Reads a part of a line byte by byte, as a copy does: the line may come and go in between.
    pub fn read(&mut self, core: usize, at: u64, into: &mut [u8]) {
        self.settle(core);
        let host = self.cores[core].host;
        self.in_pieces(host, at, into.len(), |caches, at, from, to| {
            let start = (at % LINE_BYTES) as usize;
            let line = caches.cached(host, (at / LINE_BYTES) as u32);
            copy(&line[start..start + to - from], &mut into[from..to]);
        });
    }

    /// Writes a part of a line, as [`Self::read`] reads it. A copy's stores do not wait.
    pub fn write(&mut self, core: usize, at: u64, bytes: &[u8]) {
        self.settle(core);
        let host = self.cores[core].host;
        self.in_pieces(host, at, bytes.len(), |caches, at, from, to| caches.store_now(host, at, &bytes[from..to]));
    }

    /// Does something for a part of a line, in one piece or, now and then, in two with an eviction between.
    fn in_pieces(&mut self, host: usize, at: u64, length: usize, mut act: impl FnMut(&mut Caches, u64, usize, usize)) {
        let number = (at / LINE_BYTES) as u32;
        self.surprise(host, number);
        let words = length / 8;
        let cut = match words > 1 && self.whim.evict > 0 && self.chance.chance(self.whim.evict, 1000) {
            true => 8 * (1 + self.chance.below(words as u64 - 1) as usize),
            false => length,
        };
        act(self, at, 0, cut);
        if cut < length {
            self.drop_line(host, number);
            act(self, at + cut as u64, cut, length);
        }
        self.surprise(host, number);
    }

    pub fn flush(&mut self, core: usize, at: u64, keep: Keep) {
        match self.cores[core].waiting.is_empty() {
            true => self.flush_now(core, at, keep),
            false => self.wait(core, Waiting::Flush(at, keep)),
        }
    }

    pub fn store_fence(&mut self, core: usize) {
        match self.cores[core].waiting.is_empty() {
            true => self.fence_now(core, false),
            false => self.wait(core, Waiting::StoreFence),
        }
    }

    pub fn full_fence(&mut self, core: usize) {
        self.settle(core);
        self.fence_now(core, true);
    }

    fn wait(&mut self, core: usize, what: Waiting) {
        self.cores[core].waiting.push_back(what);
        self.waiting += 1;
        while self.cores[core].waiting.len() > WAITING_MAX || !self.chance.chance(self.whim.delay, 1000) {
            if !self.settle_oldest(core) {
                break;
            }
        }
    }

    fn settle_oldest(&mut self, core: usize) -> bool {
        let Some(oldest) = self.cores[core].waiting.pop_front() else { return false };
        self.waiting -= 1;
        match oldest {
            Waiting::Store(at, word) => self.store_word(self.cores[core].host, at, word),
            Waiting::Flush(at, keep) => self.flush_now(core, at, keep),
            Waiting::StoreFence => self.fence_now(core, false),
        }
        true
    }

    fn store_word(&mut self, host: usize, at: u64, word: u64) {
        self.store_now(host, at, &word.to_le_bytes());
    }

    #[inline]
    fn store_now(&mut self, host: usize, at: u64, bytes: &[u8]) {
        let (start, number) = ((at % LINE_BYTES) as usize, (at / LINE_BYTES) as u32);
        copy(bytes, &mut self.cached(host, number)[start..start + bytes.len()]);
        self.hosts[host].place[number as usize] |= DIRTY;
    }

    /// At once, or late. In between is like at once or like late with an eviction in between.
    fn flush_now(&mut self, core: usize, at: u64, keep: Keep) {
        let (host, number) = (self.cores[core].host, (at / LINE_BYTES) as u32);
        match (self.chance.chance(self.whim.prompt_flush, 1000), keep) {
            (true, Keep::Cached) => self.write_back(host, number),
            (true, Keep::Dropped) => self.drop_line(host, number),
            (false, _) => self.cores[core].flushing.push((number, keep)),
        }
    }

    /// Everything flushed is written back; what was to be dropped is gone if `drops`, else perhaps.
    fn fence_now(&mut self, core: usize, drops: bool) {
        let host = self.cores[core].host;
        let mut flushing = std::mem::take(&mut self.cores[core].flushing);
        flushing.retain(|&(number, keep)| {
            self.write_back(host, number);
            let is_cached = self.hosts[host].holds(number);
            let must_go = drops && keep == Keep::Dropped;
            // `clwb` may drop a line too.
            let goes = must_go || is_cached && self.chance.chance(1, 2);
            if goes {
                self.drop_line(host, number);
            }
            // A load may still hit the old copy until an mfence.
            !goes && is_cached && keep == Keep::Dropped
        });
        self.cores[core].flushing = flushing;
    }

    pub fn behind(&mut self, number: u32) -> &mut Line {
        let at = number as usize * LINE_BYTES as usize;
        (&mut self.memory[at..at + LINE_BYTES as usize]).try_into().expect("one line")
    }

    fn cached(&mut self, host: usize, number: u32) -> &mut Line {
        if !self.hosts[host].holds(number) {
            let bytes = *self.behind(number);
            self.hosts[host].insert(number, bytes);
        }
        let cache = &mut self.hosts[host];
        &mut cache.lines[(cache.place[number as usize] & !DIRTY) as usize]
    }

    fn write_back(&mut self, host: usize, number: u32) {
        if let Some(line) = self.hosts[host].clean(number) {
            let at = number as usize * LINE_BYTES as usize;
            self.memory[at..at + LINE_BYTES as usize].copy_from_slice(line);
        }
    }

    fn drop_line(&mut self, host: usize, number: u32) {
        self.write_back(host, number);
        self.hosts[host].remove(number);
    }

    /// What the hardware does on its own between two operations of a host, as often as the whim says.
    fn surprise(&mut self, host: usize, near: u32) {
        let Whim { evict, prefetch, delay, .. } = self.whim;
        (self.evict_in, self.prefetch_in) = (self.evict_in - 1, self.prefetch_in - 1);
        if self.evict_in == 0 {
            self.evict_in = self.pause(evict);
            let places = self.hosts[host].numbers.len() as u64;
            if places > 0 {
                let number = self.hosts[host].numbers[self.chance.below(places) as usize];
                if number != NONE {
                    self.act(Act::Evict(host, number));
                }
            }
        }
        if self.prefetch_in == 0 {
            self.prefetch_in = self.pause(prefetch);
            // Hardware prefetches what lies around recent accesses, on any host that looked there; mostly ahead.
            let victim = self.chance.below(self.hosts.len() as u64) as usize;
            let line = (u64::from(near) + self.chance.below(6)).saturating_sub(2);
            if (line as usize) < self.hosts[victim].place.len() {
                self.act(Act::Prefetch(victim, line as u32));
            }
        }
        if self.waiting > 0 && !self.chance.chance(delay, 1000) {
            let core = self.chance.below(self.cores.len() as u64) as usize;
            self.act(Act::Settle(core));
        }
    }

    /// Does one thing.
    pub fn act(&mut self, act: Act) {
        match act {
            Act::Settle(core) => _ = self.settle_oldest(core),
            Act::Evict(host, number) => self.drop_line(host, number),
            Act::Prefetch(host, number) => _ = self.cached(host, number),
        }
    }

    /// All that may happen now, with prefetches of `wanted` lines (host, number) only.
    #[cfg(test)]
    pub fn acts(&self, wanted: &[(usize, u32)]) -> Vec<Act> {
        let waits = |core: &usize| !self.cores[*core].waiting.is_empty();
        let settles = (0..self.cores.len()).filter(waits).map(Act::Settle);
        let is_cached = |(host, number): (usize, u32)| self.hosts[host].holds(number);
        let lines = wanted.iter().map(|&(host, number)| match is_cached((host, number)) {
            true => Act::Evict(host, number),
            false => Act::Prefetch(host, number),
        });
        settles.chain(lines).collect()
    }

    /// All copies of a word: in memory, in caches, and on their way there.
    pub fn copies(&mut self, at: u64) -> Vec<u64> {
        let (number, start) = ((at / LINE_BYTES) as u32, (at % LINE_BYTES) as usize);
        let word = |line: &Line| u64::from_le_bytes(line[start..start + 8].try_into().expect("a word"));
        let mut copies = vec![word(self.behind(number))];
        copies.extend(self.hosts.iter().filter_map(|host| host.get(number).map(word)));
        copies.extend(self.cores.iter().flat_map(|core| &core.waiting).filter_map(|waiting| match waiting {
            Waiting::Store(place, word) if *place == at => Some(*word),
            _ => None,
        }));
        copies
    }

    /// What the future depends on, in one order.
    #[cfg(test)]
    pub fn hash(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        self.memory.hash(into);
        for host in &self.hosts {
            for number in 0..host.place.len() as u32 {
                host.get(number).map(|line| (line, host.is_dirty(number))).hash(into);
            }
        }
        for core in &self.cores {
            core.waiting.hash(into);
            core.flushing.hash(into);
        }
    }
}
