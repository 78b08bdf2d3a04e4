//! How the process ends: run, drain, stop.
//!
//! A signal, a failed role or a caller asks for the end once; it cannot be taken back. Every runner then drains its
//! roles and says so. It stops when all runners have nothing left, or when the drain has lasted too long: what was
//! acked is in the pool, and what was not is sent again, so stopping early loses nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::runtime::clock::Now;

/// What a runner does in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Poll the roles.
    Run,
    /// Drain the roles.
    Drain,
    /// Nothing is left anywhere: end.
    Stop,
    /// The drain has lasted too long: end.
    TimedOut,
}

/// The end of the process, shared by all its runners.
#[derive(Debug)]
pub struct Shutdown {
    requested: Arc<AtomicBool>,
    drain_limit: Duration,
    members: AtomicUsize,
    drained: AtomicUsize,
}

impl Shutdown {
    /// Not yet asked for. A drain lasts at most `drain_limit`.
    pub fn new(drain_limit: Duration) -> Arc<Shutdown> {
        Arc::new(Shutdown {
            requested: Arc::default(),
            drain_limit,
            members: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
        })
    }

    /// Asks for the end.
    pub fn request(&self) {
        // Pairs with the Acquire in `is_requested`: who sees it also sees why it was asked for.
        self.requested.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Longest drain.
    pub fn drain_limit(&self) -> Duration {
        self.drain_limit
    }

    /// SIGINT and SIGTERM ask for the end; one that comes when it was already asked for, by a signal or by a failed
    /// role, ends the process at once, with 128 + its number.
    ///
    /// # Errors
    /// The kernel's, if it refuses to install a handler.
    pub fn on_signals(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: a handler sees the flag as earlier signals left it, then sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.requested))?;
            flag::register(signal, Arc::clone(&self.requested))?;
        }
        Ok(())
    }

    /// One more runner that has to drain. Taken before its thread starts, so that no other ends without it.
    pub fn member(self: &Arc<Self>) -> Member {
        self.members.fetch_add(1, Ordering::AcqRel);
        Member { shutdown: Arc::clone(self), drained: false, all_drained_before: false, deadline_ns: None }
    }

    fn all_drained(&self) -> bool {
        // Pairs with the AcqRel of `set_drained`: what a runner handed over before it was drained is seen.
        self.drained.load(Ordering::Acquire) >= self.members.load(Ordering::Acquire)
    }
}

/// A runner's part in the end. One that is dropped counts as drained: nobody waits for a runner that failed.
#[derive(Debug)]
pub struct Member {
    shutdown: Arc<Shutdown>,
    drained: bool,
    all_drained_before: bool,
    deadline_ns: Option<u64>,
}

impl Member {
    /// What to do in the pass of this time.
    pub fn phase(&mut self, now: Now) -> Phase {
        if !self.shutdown.is_requested() {
            return Phase::Run;
        }
        let limit_ns = u64::try_from(self.shutdown.drain_limit.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = *self.deadline_ns.get_or_insert(now.monotonic_ns.saturating_add(limit_ns));
        // Twice, with a pass between: the first look may come after another runner handed over its last, and before
        // this one saw it.
        let all_drained = self.shutdown.all_drained();
        if all_drained && self.all_drained_before {
            return Phase::Stop;
        }
        self.all_drained_before = all_drained;
        if now.monotonic_ns >= deadline_ns { Phase::TimedOut } else { Phase::Drain }
    }

    /// Says whether this runner has nothing left.
    pub fn set_drained(&mut self, drained: bool) {
        match (self.drained, drained) {
            (false, true) => drop(self.shutdown.drained.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.shutdown.drained.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
        self.drained = drained;
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.shutdown.request();
    }

    /// Longest drain.
    pub fn drain_limit(&self) -> Duration {
        self.shutdown.drain_limit
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_drained(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ns: u64) -> Now {
        Now { monotonic_ns, utc_ns: 0 }
    }

    #[test]
    fn ends_when_all_are_drained_and_were_a_pass_ago() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let (mut one, mut other) = (shutdown.member(), shutdown.member());
        assert_eq!(one.phase(at(1)), Phase::Run);
        shutdown.request();
        assert_eq!(one.phase(at(2)), Phase::Drain);
        one.set_drained(true);
        one.set_drained(true);
        assert_eq!(one.phase(at(3)), Phase::Drain);
        other.set_drained(true);
        assert_eq!(one.phase(at(4)), Phase::Drain, "one more pass, to see what the other handed over");
        one.set_drained(false);
        assert_eq!(one.phase(at(5)), Phase::Drain, "there was something");
        one.set_drained(true);
        assert_eq!(one.phase(at(6)), Phase::Drain);
        assert_eq!(one.phase(at(7)), Phase::Stop);
    }

    #[test]
    fn a_runner_that_is_gone_is_not_waited_for() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let (mut one, other) = (shutdown.member(), shutdown.member());
        shutdown.request();
        one.set_drained(true);
        assert_eq!(one.phase(at(1)), Phase::Drain);
        drop(other);
        assert_eq!((one.phase(at(2)), one.phase(at(3))), (Phase::Drain, Phase::Stop));
    }

    #[test]
    fn a_drain_is_bounded() {
        let shutdown = Shutdown::new(Duration::from_nanos(100));
        let mut one = shutdown.member();
        shutdown.request();
        assert_eq!(one.phase(at(1000)), Phase::Drain);
        assert_eq!(one.phase(at(1099)), Phase::Drain);
        assert_eq!(one.phase(at(1100)), Phase::TimedOut);
    }

    #[test]
    fn a_signal_asks_for_the_end() {
        let shutdown = Shutdown::new(Duration::ZERO);
        shutdown.on_signals().expect("handlers can be installed");
        assert!(!shutdown.is_requested());
        signal_hook::low_level::raise(SIGTERM).expect("a process may signal itself");
        assert!(shutdown.is_requested());
    }
}
