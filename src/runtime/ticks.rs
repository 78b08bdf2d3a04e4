//! Where the time of a thread went: every pass is charged whole to exactly one account, so that the accounts add up to
//! the thread's life and a core that is busy for nothing shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a pass was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Something moved.
    Working,
    /// Nothing moved, and the thread stayed awake.
    Idle,
    /// Nothing moved, and the thread slept.
    Asleep,
}

/// The accounts of one thread. Its runner writes; anybody reads, at any time, each value by itself.
///
/// Two lines wide, since neighbouring lines are prefetched in pairs: a reader of these must not disturb others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Ticks {
    working_ns: AtomicU64,
    idle_ns: AtomicU64,
    asleep_ns: AtomicU64,
    passes: AtomicU64,
    sleeps: AtomicU64,
    moved: AtomicU64,
}

/// A copy of a thread's accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickCounts {
    /// Time in passes that moved something, nanoseconds.
    pub working_ns: u64,
    /// Time awake in passes that moved nothing, nanoseconds.
    pub idle_ns: u64,
    /// Time in passes that ended in sleep, nanoseconds.
    pub asleep_ns: u64,
    /// Passes.
    pub passes: u64,
    /// Passes that ended in sleep.
    pub sleeps: u64,
    /// What the roles said moved, completions included.
    pub moved: u64,
}

impl Ticks {
    /// Charges a pass. Only the thread these accounts belong to calls this: adding is not atomic.
    pub fn charge(&self, charge: Charge, elapsed_ns: u64, moved: u64) {
        match charge {
            Charge::Working => add(&self.working_ns, elapsed_ns),
            Charge::Idle => add(&self.idle_ns, elapsed_ns),
            Charge::Asleep => {
                add(&self.asleep_ns, elapsed_ns);
                add(&self.sleeps, 1);
            }
        }
        add(&self.passes, 1);
        add(&self.moved, moved);
    }

    /// A copy of the accounts.
    pub fn read(&self) -> TickCounts {
        TickCounts {
            working_ns: self.working_ns.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
            asleep_ns: self.asleep_ns.load(Ordering::Relaxed),
            passes: self.passes.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
        }
    }
}

/// One writer: a load and a store, without the locked instruction that `fetch_add` is.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
