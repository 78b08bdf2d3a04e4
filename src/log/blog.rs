//! The blog of one lane: its extents, and the runs its connections receive into.
//!
//! An extent is *free*, *current* (runs are cut from it), *sealed* (full, but runs are still being filled) or *closed* (every
//! batch in it has a slot below `end_slot`). A closed extent is free again when the lane's `reusable` count
//! reaches its `end_slot`: that is the only test. Invariant: `closed` is ordered by `end_slot`.
//!
//! What a run that is given back has not used is cut again for who wants no more than the shortest run: connections that rest between
//! batches give their runs back, and each would use an extent up for a few batches otherwise. Who is busy gets whole runs.

use std::collections::VecDeque;

use crate::limits::{LINE_BYTES, RUN_BYTES_MIN};
use crate::log::View;
use crate::pool::line::Owned;
use crate::pool::record::ExtentLine;
use crate::pool::record::extent_state::{CLOSED, OPEN};
use crate::pool::{Keep, Memory};

/// Shortest unused tail that is kept to be cut again, bytes.
const TAIL_BYTES_MIN: u64 = RUN_BYTES_MIN / 2;
/// Most of them; all lie in one extent.
const TAILS_MAX: usize = 256;

/// A piece of an extent in the hands of one connection. Give it back with [`Blog::release`].
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    extent: u32,
    /// First byte, from the start of the pool.
    pub start: u64,
    /// Length, bytes.
    pub bytes: u64,
}

fn closed_at(end_slot: u64) -> ExtentLine {
    ExtentLine { state: CLOSED, end_slot, ..ExtentLine::default() }
}

#[derive(Debug)]
struct Extent {
    /// Runs not given back.
    runs: u32,
    sealed: bool,
}

/// Extents and runs of one lane. Owned by its receive core.
#[derive(Debug)]
pub struct Blog<M> {
    view: View<M>,
    lane: u32,
    extents: Vec<Extent>,
    lines: Vec<Owned<ExtentLine, M>>,
    free: VecDeque<u32>,
    /// (extent, end slot), oldest first.
    closed: VecDeque<(u32, u64)>,
    /// The extent that runs are cut from, and how much of it is.
    current: Option<(u32, u64)>,
    /// Tails of its runs that nobody has: where in it each begins, and its length, bytes.
    tails: Vec<(u64, u64)>,
}

impl<M: Memory> Blog<M> {
    /// Takes the extents of a lane over. Whatever the last owner was filling counts as closed at `produced`: its
    /// published batches have slots below that.
    pub fn take(view: &View<M>, lane: u32, produced: u64, reusable: u64) -> Self {
        let count = view.layout.geometry.extents_of_lane(lane);
        let mut lines: Vec<Owned<ExtentLine, M>> =
            (0..count).map(|extent| Owned::take(view.memory.clone(), view.layout.extent_line(lane, extent))).collect();
        let mut closed = Vec::new();
        let mut free = VecDeque::with_capacity(count as usize);
        for extent in 0..count {
            let line = &mut lines[extent as usize];
            match line.current() {
                Some(record) if record.state == CLOSED && record.end_slot <= reusable => free.push_back(extent),
                Some(record) if record.state == CLOSED => closed.push((extent, record.end_slot)),
                // Never used since the pool was formatted.
                None if line.last() == ExtentLine::default() => free.push_back(extent),
                // It was open, or its owner was killed while it wrote the line: then nothing is known but that it was used.
                _ => {
                    line.publish(&closed_at(produced));
                    closed.push((extent, produced));
                }
            }
        }
        closed.sort_by_key(|(_, end_slot)| *end_slot);
        let mut waiting = VecDeque::with_capacity(count as usize);
        waiting.extend(closed);
        let extents = (0..count).map(|_| Extent { runs: 0, sealed: false }).collect();
        let tails = Vec::with_capacity(TAILS_MAX);
        Blog { view: view.clone(), lane, extents, lines, free, closed: waiting, current: None, tails }
    }

    /// Extents free now, the current one not counted.
    pub fn free_extents(&self) -> u64 {
        self.free.len() as u64
    }

    /// Takes closed extents back whose last slot lies below `reusable`. True if any was.
    pub fn reclaim(&mut self, reusable: u64) -> bool {
        let before = self.free.len();
        while let Some(&(extent, end_slot)) = self.closed.front() {
            if end_slot > reusable {
                break;
            }
            self.closed.pop_front();
            self.free.push_back(extent);
        }
        self.free.len() > before
    }

    /// Cuts a run of `wanted` bytes, or of what is left in the current extent or of another run if that is at least `needed`. `None`:
    /// no extent is free; come again after [`Self::reclaim`].
    pub fn acquire(&mut self, needed: u64, wanted: u64, produced: u64) -> Option<Run> {
        if wanted <= RUN_BYTES_MIN
            && let Some(run) = self.cut_again(needed)
        {
            return Some(run);
        }
        let extent_bytes = self.view.layout.geometry.extent_bytes;
        let needed = needed.max(RUN_BYTES_MIN).next_multiple_of(LINE_BYTES);
        let wanted = wanted.clamp(needed, extent_bytes).next_multiple_of(LINE_BYTES);
        assert!(needed <= extent_bytes, "a run is never longer than an extent");
        if let Some((extent, used)) = self.current
            && extent_bytes - used < needed
        {
            self.current = None;
            self.tails.clear();
            self.extents[extent as usize].sealed = true;
            self.close_if_done(extent, produced);
        }
        let (extent, used) = match self.current {
            Some(current) => current,
            None => {
                let extent = self.free.pop_front()?;
                self.extents[extent as usize].sealed = false;
                // Open before the first byte lands, so that a successor knows it was in use.
                self.lines[extent as usize].publish(&ExtentLine { state: OPEN, ..ExtentLine::default() });
                (extent, 0)
            }
        };
        let bytes = wanted.min(extent_bytes - used);
        self.current = Some((extent, used + bytes));
        self.extents[extent as usize].runs += 1;
        Some(Run { extent, start: self.view.layout.extent(self.lane, extent) + used, bytes })
    }

    /// The shortest tail that will do.
    fn cut_again(&mut self, needed: u64) -> Option<Run> {
        let (extent, _) = self.current?;
        let fitting = self.tails.iter().enumerate().filter(|(_, (_, bytes))| *bytes >= needed);
        let (index, _) = fitting.min_by_key(|(_, (_, bytes))| *bytes)?;
        let (at, bytes) = self.tails.swap_remove(index);
        self.extents[extent as usize].runs += 1;
        Some(Run { extent, start: self.view.layout.extent(self.lane, extent) + at, bytes })
    }

    /// Whether the run's extent is waiting only for its runs.
    pub fn is_sealed(&self, run: &Run) -> bool {
        self.extents[run.extent as usize].sealed
    }

    /// Takes a run back. Bytes `published..landed` of it were received but never published; they are written back so
    /// that no dirty line of them is left to overwrite the extent's next content.
    pub fn release(&mut self, run: Run, published: u64, landed: u64, produced: u64) {
        debug_assert!(published <= landed && landed <= run.bytes);
        if landed > published {
            self.view.memory.write_back(run.start + published, landed - published, Keep::Dropped);
            self.view.memory.store_fence();
        }
        let extent = &mut self.extents[run.extent as usize];
        extent.runs -= 1;
        // The run's unused tail goes back, or is kept if something was cut behind it.
        if let Some((current, used)) = &mut self.current
            && *current == run.extent
        {
            let at = run.start - self.view.layout.extent(self.lane, run.extent);
            let (tail, end) = (at + published.next_multiple_of(LINE_BYTES), at + run.bytes);
            if *used == end {
                *used = tail;
            } else if end >= tail + TAIL_BYTES_MIN && self.tails.len() < TAILS_MAX {
                self.tails.push((tail, end - tail));
            }
        }
        self.close_if_done(run.extent, produced);
    }

    fn close_if_done(&mut self, extent: u32, produced: u64) {
        let state = &mut self.extents[extent as usize];
        if !state.sealed || state.runs > 0 {
            return;
        }
        state.sealed = false;
        self.lines[extent as usize].publish(&closed_at(produced));
        self.closed.push_back((extent, produced));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::{host_views, plain_view};
    use crate::testing::memory::Whim;

    fn blog() -> Blog<crate::testing::memory::HostMemory> {
        Blog::take(&plain_view(1), 0, 0, 0)
    }

    #[test]
    fn an_extent_comes_back_only_when_its_last_slot_is_reusable() {
        let mut blog = blog();
        let (count, extent) = (blog.extents.len() as u64, blog.view.layout.geometry.extent_bytes);
        for slot in 0..count {
            let run = blog.acquire(extent, extent, slot).unwrap();
            blog.release(run, extent, extent, slot + 1);
        }
        // The last extent is full but still current; asking seals it.
        assert_eq!(blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, count), None);
        assert!(!blog.reclaim(0));
        // Extent 0 was sealed when the second run was cut, at one slot produced.
        assert!(blog.reclaim(1));
        let run = blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, count).unwrap();
        assert_eq!(run.start, blog.view.layout.extent(0, 0));
        assert!(blog.reclaim(count));
        assert_eq!(blog.free_extents(), count - 1);
    }

    #[test]
    fn a_run_in_use_keeps_its_extent() {
        let mut blog = blog();
        let extent = blog.view.layout.geometry.extent_bytes;
        let small = blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 0).unwrap();
        let large = blog.acquire(extent, extent, 0).unwrap();
        assert!(blog.is_sealed(&small) && !blog.is_sealed(&large));
        assert!(!blog.reclaim(u64::MAX), "its run is still being filled");
        blog.release(small, 64, 128, 7);
        assert!(!blog.reclaim(6) && blog.reclaim(7));
    }

    #[test]
    fn a_successor_closes_what_was_open() {
        let view = plain_view(1);
        let mut first = Blog::take(&view, 0, 0, 0);
        let _run = first.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 0).unwrap();
        let mut second = Blog::take(&view, 0, 5, 0);
        assert_eq!(second.free_extents(), second.extents.len() as u64 - 1);
        assert!(!second.reclaim(4) && second.reclaim(5));
    }

    /// Its owner is killed after any of the stores of any rewrite of an extent's line: no extent in use looks free.
    #[test]
    fn a_line_cut_short_never_frees_its_extent() {
        let view = plain_view(1);
        let at = view.layout.extent_line(0, 0);
        let open = ExtentLine { state: OPEN, ..ExtentLine::default() };
        for (before, after) in [(open, closed_at(9)), (closed_at(3), open), (closed_at(3), closed_at(9))] {
            for stores in 0..=7 {
                let words = |record: &ExtentLine| {
                    <[u64; 7]>::try_from(bytemuck::cast_slice(bytemuck::bytes_of(record))).unwrap()
                };
                let (old, new) = (words(&before), words(&after));
                view.memory.store(at, crate::pool::line::INVALID);
                (0..7).for_each(|word| {
                    view.memory.store(at + 8 * (word as u64 + 1), if word < stores { new[word] } else { old[word] })
                });
                let mut blog = Blog::take(&view, 0, 9, 3);
                assert_eq!(
                    blog.free_extents(),
                    blog.extents.len() as u64 - 1,
                    "{before:?} to {after:?}, {stores} words"
                );
                assert!(!blog.reclaim(8) && blog.reclaim(9));
            }
        }
    }

    #[test]
    fn the_unused_tail_of_the_last_run_goes_back() {
        let mut blog = blog();
        let run = blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 0).unwrap();
        let start = run.start;
        blog.release(run, 100, 100, 1);
        assert_eq!(blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 1).unwrap().start, start + 128);
    }

    /// Two connections that rest after each small batch, in turn: they use what they send, not a run for each.
    #[test]
    fn connections_that_rest_do_not_use_extents_up() {
        let mut blog = blog();
        let (all, mut ranges) = (blog.free_extents(), Vec::new());
        for batch in 0..500 {
            let [first, second] = [0; 2].map(|_| blog.acquire(256, RUN_BYTES_MIN, 2 * batch).unwrap());
            assert!(first.bytes >= TAIL_BYTES_MIN && second.bytes >= TAIL_BYTES_MIN);
            for run in [first, second] {
                ranges.push(run.start..run.start + 192);
                blog.release(run, 192, 192, 2 * batch + 2);
            }
        }
        assert!(all - blog.free_extents() <= 3, "{} extents for 192,000 bytes", all - blog.free_extents());
        ranges.sort_unstable_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "no byte is cut twice");
    }

    /// What was cut again keeps its extent as any run does, and nothing is cut from an extent that is sealed.
    #[test]
    fn a_tail_is_its_extents() {
        let mut blog = blog();
        let extent = blog.view.layout.geometry.extent_bytes;
        let [first, second, third] = [0; 3].map(|_| blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 0).unwrap());
        let start = first.start;
        blog.release(first, 100, 100, 1);
        let [busy, again] = [2 * RUN_BYTES_MIN, RUN_BYTES_MIN].map(|wanted| blog.acquire(256, wanted, 1).unwrap());
        assert_eq!(
            (busy.start, busy.bytes),
            (start + 3 * RUN_BYTES_MIN, RUN_BYTES_MIN),
            "who is busy gets a whole run"
        );
        blog.release(busy, 0, 0, 1);
        assert_eq!((again.start, again.bytes), (start + 128, RUN_BYTES_MIN - 128));
        blog.release(second, 100, 100, 2);
        blog.release(third, 100, 100, 2);
        let whole = blog.acquire(extent, extent, 2).unwrap();
        assert!(blog.is_sealed(&again) && !blog.reclaim(u64::MAX), "its run is still being filled");
        blog.release(again, 64, 64, 7);
        assert!(!blog.reclaim(6) && blog.reclaim(7));
        blog.release(whole, extent, extent, 8);
        assert_eq!(blog.acquire(256, RUN_BYTES_MIN, 8).unwrap().bytes, RUN_BYTES_MIN, "of another extent");
    }

    /// A half batch whose connection broke: nothing of it stays in this host's cache to fall on the extent's next content.
    #[test]
    fn what_was_never_published_is_written_back() {
        let (pool, views) = host_views([0, 0], &[0], Whim::LAZY, 1);
        let mut blog = Blog::take(&views[0], 0, 0, 0);
        let run = blog.acquire(RUN_BYTES_MIN, RUN_BYTES_MIN, 0).unwrap();
        let start = run.start;
        views[0].memory.copy_in(start, &[7; 256]);
        blog.release(run, 64, 256, 0);
        pool.behind_caches(start, 256, |bytes| assert!(bytes[64..].iter().all(|byte| *byte == 7)));
    }
}
