//! The sequencer role: one candidate, its lock, and its counters.
//!
//! * [`candidate`]: stands by, claims, takes over; no I/O.
//! * [`active`]: one pass of the sequencer of one epoch; no I/O.

pub mod active;
pub mod candidate;
#[cfg(test)]
pub(crate) mod tests;

use crate::log::View;
use crate::observe::counters::CounterBlock;
use crate::pool::region::{HostLock, LockName};
use crate::pool::{Memory, Pool};
use crate::runtime::{Io, Now, Role, RoleError};
use active::SequencerSettings;
use candidate::Candidate;
pub use candidate::TakeoverSettings;

const REPORT_NS: u64 = 1_000_000_000;

/// One sequencer candidate.
pub struct Sequence<M> {
    name: String,
    pool: Pool,
    candidate: Candidate<M>,
    block: CounterBlock<M>,
    report_ns: u64,
    reported_messages: u64,
    _lock: HostLock,
}

impl<M: Memory> Sequence<M> {
    /// The candidate of this slot, whose host lock the caller took.
    pub fn new(
        view: &View<M>,
        pool: Pool,
        candidate: u32,
        lock: HostLock,
        settings: SequencerSettings,
        takeover: TakeoverSettings,
    ) -> Self {
        Sequence {
            name: format!("sequence {candidate}"),
            block: CounterBlock::new(view.memory.clone(), view.layout.sequencer_counters(candidate)),
            pool,
            candidate: Candidate::new(view, candidate, settings, takeover),
            report_ns: 0,
            reported_messages: 0,
            _lock: lock,
        }
    }

    fn step(&mut self, now: Now) -> usize {
        let pool = &self.pool;
        // A lock that cannot be looked at counts as held: claiming is never urgent.
        let is_held = |slot| pool.is_locked(LockName::Candidate(slot)).unwrap_or(true);
        let moved = self.candidate.step(now.monotonic_ns, is_held);
        self.report(now);
        moved
    }

    /// Copies counters out and logs progress, at most once a second and only if there was any.
    fn report(&mut self, now: Now) {
        let Some(sequencer) = self.candidate.active() else { return };
        if now.monotonic_ns - self.report_ns < REPORT_NS {
            return;
        }
        self.report_ns = now.monotonic_ns;
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

impl<M: Memory, I: Io> Role<I> for Sequence<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self, _io: &mut I, _index: u8, _now: Now) -> Result<(), RoleError> {
        Ok(())
    }

    fn complete(&mut self, _io: &mut I, _completion: I::Completion, _now: Now) {}

    fn poll(&mut self, _io: &mut I, now: Now) -> usize {
        self.step(now)
    }

    fn drain(&mut self, _io: &mut I, now: Now) -> bool {
        // It orders as long as any receive core of this process may still publish; other processes' wait for a successor.
        let moved = if self.candidate.active().is_some() { self.step(now) } else { 0 };
        if moved == 0 {
            self.report_ns = 0;
            self.report(now);
        }
        moved == 0
    }
}
