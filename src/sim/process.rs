//! Pool memory as one simulated *process* sees it: its host's memory, and moments at which it is stopped.
//!
//! Before any single operation the world may hold the process up: run others for a while, as when its thread is
//! preempted or stopped by SIGSTOP, or kill it there, as `kill -9` does between two instructions. So every step of the
//! protocol is torn apart at every store, flush and fence, not only between duty cycles.
//!
//! [`Sabotage`] leaves instructions out, to show that the simulation notices.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::limits::LINE_BYTES;
use crate::pool::{Keep, Memory, WordByWord};
use crate::testing::memory::HostMemory;

/// What unwinds a killed process's stack. Not an error of anybody.
pub struct Killed;

/// Called when the countdown ends, with the depth it was armed for. Returns when the process may go on; unwinds with [`Killed`] if it may not.
pub type HoldUp = dyn Fn(u32) + Send + Sync;

/// Counts one actor's operations down to the next moment it is held up at.
pub struct Interrupts {
    left: AtomicU64,
    depth: AtomicU32,
    hold_up: Box<HoldUp>,
    /// The core that the actor's thread runs on: whatever view of the pool it has, its stores wait in one buffer.
    core: OnceLock<HostMemory>,
}

impl Interrupts {
    /// Never, until armed.
    pub fn new(hold_up: Box<HoldUp>) -> Arc<Interrupts> {
        Arc::new(Interrupts {
            left: AtomicU64::new(u64::MAX),
            depth: AtomicU32::new(0),
            hold_up,
            core: OnceLock::new(),
        })
    }

    /// The pool as the actor's thread sees it; `begin` gives it a core.
    pub fn memory(&self, begin: impl FnOnce() -> HostMemory) -> HostMemory {
        self.core.get_or_init(begin).clone()
    }

    /// Holds up before the `operations`-th operation from now on; `u64::MAX`: never.
    pub fn arm(&self, operations: u64, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
        self.left.store(operations, Ordering::Relaxed);
    }

    /// A moment at which it may be held up.
    pub fn tick(&self) {
        let left = self.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return;
        }
        if left > 1 {
            return self.left.store(left - 1, Ordering::Relaxed);
        }
        self.left.store(u64::MAX, Ordering::Relaxed);
        (self.hold_up)(self.depth.load(Ordering::Relaxed));
    }

    /// Operations until it is held up, the one before which it is included.
    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// So many operations, in none of which it is held up.
    fn pass(&self, operations: u64) {
        let left = self.left();
        debug_assert!(operations < left);
        if left != u64::MAX {
            self.left.store(left - operations, Ordering::Relaxed);
        }
    }
}

/// A part of the line protocol left out, for canaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// Lines of the blog are not flushed: payload is neither written back nor dropped before it is read.
    PayloadFlush,
    /// Lines outside the blog are not flushed.
    RecordFlush,
    /// `sfence` does nothing.
    StoreFence,
    /// `mfence` does nothing.
    FullFence,
}

/// The pool as a process sees it.
#[derive(Clone)]
pub struct ProcessMemory {
    host: HostMemory,
    interrupts: Arc<Interrupts>,
    sabotage: Sabotage,
    /// Where the blog begins.
    blog: u64,
}

impl ProcessMemory {
    /// A process on a host.
    pub fn new(host: HostMemory, interrupts: Arc<Interrupts>, sabotage: Sabotage, blog: u64) -> ProcessMemory {
        ProcessMemory { host, interrupts, sabotage, blog }
    }

    /// A copy of so many bytes, a line an operation: `part` copies a range of them, and between two ranges it is held up. So others
    /// see half of it, or it sees half of theirs.
    fn torn(&self, bytes: usize, mut part: impl FnMut(std::ops::Range<usize>)) {
        let mut done = 0;
        while done < bytes {
            let lines = ((bytes - done) as u64).div_ceil(LINE_BYTES);
            let uninterrupted = lines.min(self.interrupts.left() - 1);
            let end = bytes.min(done + (uninterrupted * LINE_BYTES) as usize);
            part(done..end);
            self.interrupts.pass(uninterrupted);
            if end < bytes {
                self.interrupts.tick();
                part(end..bytes.min(end + LINE_BYTES as usize));
            }
            done = bytes.min(end + LINE_BYTES as usize);
        }
    }
}

impl Memory for ProcessMemory {
    const SOFTWARE: bool = true;
    type Line<'a> = WordByWord<'a, Self>;

    fn bytes(&self) -> u64 {
        self.host.bytes()
    }

    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }

    fn store(&self, at: u64, word: u64) {
        self.interrupts.tick();
        self.host.store(at, word);
    }

    fn load(&self, at: u64) -> u64 {
        self.interrupts.tick();
        self.host.load(at)
    }

    fn flush_line(&self, at: u64, keep: Keep) {
        self.interrupts.tick();
        let is_left_out = match self.sabotage {
            Sabotage::PayloadFlush => at >= self.blog,
            Sabotage::RecordFlush => at < self.blog,
            _ => false,
        };
        if !is_left_out {
            self.host.flush_line(at, keep);
        }
    }

    fn store_fence(&self) {
        self.interrupts.tick();
        if self.sabotage != Sabotage::StoreFence {
            self.host.store_fence();
        }
    }

    fn full_fence(&self) {
        self.interrupts.tick();
        if self.sabotage != Sabotage::FullFence {
            self.host.full_fence();
        }
    }

    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        self.interrupts.tick();
        self.host.with_bytes(at, bytes, read)
    }

    fn copy_out(&self, at: u64, into: &mut [u8]) {
        self.torn(into.len(), |part| self.host.copy_out(at + part.start as u64, &mut into[part]));
    }

    fn copy_in(&self, at: u64, bytes: &[u8]) {
        self.torn(bytes.len(), |part| self.host.copy_in(at + part.start as u64, &bytes[part]));
    }

    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        self.interrupts.tick();
        self.host.copy_within(from, to, bytes);
    }
}
