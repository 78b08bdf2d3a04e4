//! Where the time of a thread went: every pass is charged whole to exactly one account, so that the accounts add up to
//! the thread's life and a core that is busy for nothing shows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::role::{Blocked, RoleKind};

/// What a pass was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Something moved.
    Working,
    /// Nothing moved, and a role waits for somebody.
    Blocked(Blocked),
    /// Nothing moved, and the thread stayed awake.
    Idle,
    /// Nothing moved, and the thread slept.
    Asleep,
    /// The roles reported what they had counted.
    Housekeeping,
}

/// How long the longest pass of the last while is kept, ns: whoever looks once a second sees each.
const WHILE_NS: u64 = 2_000_000_000;

/// The accounts of one thread. Its runner writes; anybody reads, at any time, each value by itself.
///
/// Two lines wide, since neighbouring lines are prefetched in pairs: a reader of these must not disturb others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Ticks {
    working_ns: AtomicU64,
    blocked_ns: [AtomicU64; Blocked::COUNT],
    idle_ns: AtomicU64,
    asleep_ns: AtomicU64,
    housekeeping_ns: AtomicU64,
    passes: AtomicU64,
    sleeps: AtomicU64,
    moved: AtomicU64,
    /// Longest pass of the while that began at `while_began_ns`, and of the one before it.
    longest_ns: AtomicU64,
    longest_before_ns: AtomicU64,
    while_began_ns: AtomicU64,
    /// In sampled passes, times the passes that each stands for.
    role_ns: [AtomicU64; RoleKind::COUNT],
    /// The system's number of the thread, once it runs.
    task: OnceLock<u64>,
}

/// A copy of a thread's accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickCounts {
    /// Time in passes that moved something, nanoseconds.
    pub working_ns: u64,
    /// Time awake or asleep in passes that moved nothing while a role waited for somebody, by whom, nanoseconds.
    pub blocked_ns: [u64; Blocked::COUNT],
    /// Time awake in passes that moved nothing, nanoseconds.
    pub idle_ns: u64,
    /// Time in passes that ended in sleep, nanoseconds.
    pub asleep_ns: u64,
    /// Time in which the roles reported, nanoseconds.
    pub housekeeping_ns: u64,
    /// Passes.
    pub passes: u64,
    /// Passes that ended in sleep.
    pub sleeps: u64,
    /// What the roles said moved, completions included.
    pub moved: u64,
    /// The longest pass of the last two to four seconds that did not end in sleep, nanoseconds: so long nobody was looked after.
    pub longest_pass_ns: u64,
    /// Time in roles of each kind, estimated from a pass each millisecond, nanoseconds.
    pub role_ns: [u64; RoleKind::COUNT],
}

impl Ticks {
    /// Charges a pass that ended at `now_ns`. Only the thread these accounts belong to calls this: adding is not atomic.
    pub fn charge(&self, charge: Charge, elapsed_ns: u64, moved: u64, now_ns: u64) {
        match charge {
            Charge::Working => add(&self.working_ns, elapsed_ns),
            Charge::Blocked(on) => add(&self.blocked_ns[on as usize], elapsed_ns),
            Charge::Idle => add(&self.idle_ns, elapsed_ns),
            Charge::Asleep => add(&self.asleep_ns, elapsed_ns),
            Charge::Housekeeping => return add(&self.housekeeping_ns, elapsed_ns),
        }
        add(&self.passes, 1);
        add(&self.moved, moved);
        if matches!(charge, Charge::Working | Charge::Idle) && elapsed_ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.store(elapsed_ns, Ordering::Relaxed);
        }
        if now_ns.saturating_sub(self.while_began_ns.load(Ordering::Relaxed)) >= WHILE_NS {
            self.while_began_ns.store(now_ns, Ordering::Relaxed);
            self.longest_before_ns.store(self.longest_ns.load(Ordering::Relaxed), Ordering::Relaxed);
            self.longest_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a pass that ended in sleep.
    pub fn slept(&self) {
        add(&self.sleeps, 1);
    }

    /// Adds what a role of this kind took in a sampled pass, which stands for so many.
    pub fn sampled(&self, kind: RoleKind, elapsed_ns: u64, stands_for: u64) {
        add(&self.role_ns[kind as usize], elapsed_ns * stands_for);
    }

    /// Says which thread of the system this is.
    pub fn runs_as(&self, task: u64) {
        let _ = self.task.set(task);
    }

    /// The system's number of the thread, once it runs.
    pub fn task(&self) -> Option<u64> {
        self.task.get().copied()
    }

    /// A copy of the accounts.
    pub fn read(&self) -> TickCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TickCounts {
            working_ns: read(&self.working_ns),
            blocked_ns: std::array::from_fn(|on| read(&self.blocked_ns[on])),
            idle_ns: read(&self.idle_ns),
            asleep_ns: read(&self.asleep_ns),
            housekeeping_ns: read(&self.housekeeping_ns),
            passes: read(&self.passes),
            sleeps: read(&self.sleeps),
            moved: read(&self.moved),
            longest_pass_ns: read(&self.longest_ns).max(read(&self.longest_before_ns)),
            role_ns: std::array::from_fn(|kind| read(&self.role_ns[kind])),
        }
    }
}

/// One writer: a load and a store, without the locked instruction that `fetch_add` is.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_its_account() {
        let ticks = Ticks::default();
        let mut charged = 0;
        let mut charge = |charge, elapsed_ns| {
            charged += elapsed_ns;
            ticks.charge(charge, elapsed_ns, 2, 1);
        };
        charge(Charge::Working, 1);
        Blocked::ALL.into_iter().for_each(|on| charge(Charge::Blocked(on), 10 + on as u64));
        charge(Charge::Idle, 100);
        charge(Charge::Asleep, 1000);
        charge(Charge::Housekeeping, 10_000);
        let counts = ticks.read();
        assert_eq!((counts.working_ns, counts.idle_ns, counts.asleep_ns), (1, 100, 1000));
        assert_eq!((counts.blocked_ns, counts.housekeeping_ns), ([10, 11, 12, 13], 10_000));
        assert_eq!((counts.passes, counts.moved), (7, 14), "a report is no pass");
        assert_eq!(charged, 11_147, "all of it is in one account");
    }

    /// Whoever looks once a second sees each pass that was long, and not for ever.
    #[test]
    fn the_longest_pass_is_kept_for_a_while() {
        let ticks = Ticks::default();
        let pass = |charge, elapsed_ns, now_ns| {
            ticks.charge(charge, elapsed_ns, 0, now_ns);
            ticks.read().longest_pass_ns
        };
        assert_eq!(pass(Charge::Idle, 10, WHILE_NS + 1), 10);
        assert_eq!(pass(Charge::Working, 700, WHILE_NS + 2), 700);
        assert_eq!(pass(Charge::Asleep, 5000, WHILE_NS + 3), 700, "who sleeps looks after nobody by intent");
        assert_eq!(pass(Charge::Idle, 300, 2 * WHILE_NS), 700);
        assert_eq!(pass(Charge::Idle, 300, 2 * WHILE_NS + 1), 700, "of the while before");
        assert_eq!(pass(Charge::Idle, 300, 2 * WHILE_NS + 2), 700);
        assert_eq!(pass(Charge::Idle, 200, 3 * WHILE_NS + 1), 300);
        assert_eq!(pass(Charge::Idle, 100, 4 * WHILE_NS + 1), 100);
    }
}
