//! The sequencer role: one candidate, its lock, and its counters.
//!
//! * [`candidate`]: stands by, claims, takes over; no I/O.
//! * [`active`]: one pass of the sequencer of one epoch; no I/O. [`tables`]: what it derives: topics, checkpoints.
//!   [`attendance`]: who is waited for.

#[cfg(test)]
mod accounts_tests;
pub mod active;
pub mod attendance;
#[cfg(test)]
mod attendance_tests;
pub mod candidate;
#[cfg(test)]
mod candidate_tests;
#[cfg(test)]
mod cursor_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod session_tests;
pub mod stock;
#[cfg(test)]
mod stock_tests;
#[cfg(test)]
mod superseded_tests;
pub mod tables;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod topic_tests;
pub mod when_free;

use crate::log::View;
use crate::observe::counters::{CounterBlock, SequencerCounters};
use crate::pool::region::HostLock;
use crate::pool::{Memory, Pool};
use crate::roles::locks::Locks;
use crate::runtime::{Blocked, Io, Now, Role, RoleError, RoleKind};
use active::SequencerSettings;
use candidate::Candidate;
pub use candidate::TakeoverSettings;

/// Time for which it goes on ordering when it is told to end, if others go on publishing, ns: clients of its process have left by then, or will not.
const DRAIN_NS: u64 = 500_000_000;

/// One sequencer candidate, on a host whose locks are `L`, in a slot that is its own as long as it has `H`.
pub struct Sequence<M, L = Pool, H = HostLock> {
    name: String,
    locks: L,
    candidate: Candidate<M>,
    block: CounterBlock<M>,
    reported_messages: u64,
    draining_since_ns: Option<u64>,
    is_fault_counted: bool,
    _lock: H,
}

impl<M: Memory, L: Locks, H> Sequence<M, L, H> {
    /// The candidate of this slot, whose host lock the caller took.
    pub fn new(
        view: &View<M>,
        locks: L,
        candidate: u32,
        lock: H,
        settings: SequencerSettings,
        takeover: TakeoverSettings,
    ) -> Self {
        Sequence {
            name: format!("sequence {candidate}"),
            block: CounterBlock::new(view.memory.clone(), view.layout.sequencer_counters(candidate)),
            locks,
            candidate: Candidate::new(view, candidate, settings, takeover),
            reported_messages: 0,
            draining_since_ns: None,
            is_fault_counted: false,
            _lock: lock,
        }
    }

    /// The sequencer, while it is the active one.
    pub fn active(&self) -> Option<&active::ActiveSequencer<M>> {
        self.candidate.active()
    }

    fn step(&mut self, io: &mut impl Io, now: Now) -> usize {
        let moved = self.candidate.step_timed(now.monotonic_ns, &self.locks, &mut || io.now().utc_ns);
        if self.candidate.fault().is_some() && !self.is_fault_counted {
            self.is_fault_counted = true;
            self.block.write(&SequencerCounters { damaged: 1, ..SequencerCounters::default() });
        }
        moved
    }

    /// Copies counters out and logs progress, if there was any.
    fn report_now(&mut self, now: Now) {
        self.candidate.report(now.monotonic_ns);
        let Some(sequencer) = self.candidate.active() else { return };
        let counters = sequencer.counters();
        self.block.write(counters);
        if counters.appended_messages != self.reported_messages {
            self.reported_messages = counters.appended_messages;
            log::info!(
                "{}: total_processed={} batches={} duplicates={} held={} watermark={} floor={}",
                self.name,
                counters.appended_messages,
                counters.appended_batches,
                counters.duplicates,
                counters.held_batches,
                counters.watermark,
                counters.floor
            );
        }
    }
}

impl<M: Memory, L: Locks, H, I: Io> Role<I> for Sequence<M, L, H> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Sequence
    }

    fn start(&mut self, _io: &mut I, _index: u8, _now: Now) -> Result<(), RoleError> {
        Ok(())
    }

    fn complete(&mut self, _io: &mut I, _completion: I::Completion, _now: Now) {}

    fn poll(&mut self, io: &mut I, now: Now) -> usize {
        self.step(io, now)
    }

    fn report(&mut self, now: Now) {
        self.report_now(now);
    }

    fn blocked(&self) -> Option<Blocked> {
        self.candidate.active().filter(|sequencer| sequencer.is_held_back()).map(|_| Blocked::Index)
    }

    fn fault(&mut self) -> Option<RoleError> {
        self.candidate.fault().map(RoleError::new)
    }

    fn waits_for(&self) -> Option<String> {
        Some("what the receive cores of its process have published".to_owned())
    }

    fn drain(&mut self, io: &mut I, now: Now) -> bool {
        let since_ns = *self.draining_since_ns.get_or_insert(now.monotonic_ns);
        // It orders as long as any receive core of this process may still publish; other processes', which may publish for ever, wait for a successor.
        let moved = if self.candidate.active().is_some() { self.step(io, now) } else { 0 };
        moved == 0 || now.monotonic_ns - since_ns > DRAIN_NS
    }

    fn end(&mut self) {
        self.candidate.resign();
    }
}
