//! The sequencer role: a candidate that stands by, claims when it may, and then orders.
//!
//! * [`active`]: one pass of the sequencer of one epoch; no I/O.
//!
//! A candidate claims at once when the active one's process is gone from this host (its lock is free), or when the heartbeat
//! of another host's has not changed for a while. Time only decides when to try; safety does not rest on it.

pub mod active;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
pub(crate) mod tests;

use crate::log::View;
use crate::log::checkpoint::{RecoverError, recover};
use crate::log::commit::{CommitReader, CommitWriter, Epoch};
use crate::observe::counters::CounterBlock;
use crate::pool::region::{HostLock, LockName};
use crate::pool::{Access, Memory, Pool};
use crate::runtime::{Io, Now, Role, RoleError};
use active::{ActiveSequencer, SequencerSettings};

/// When a candidate may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeoverSettings {
    /// Silence of another host's sequencer after which it is taken for dead, ns.
    pub after_ns: u64,
    /// Wait between claiming and reading the predecessor's lines, ns.
    pub settle_ns: u64,
}

const BEAT_NS: u64 = 10_000_000;
const REPORT_NS: u64 = 1_000_000_000;

enum State<M> {
    /// Another candidate is active, or none yet.
    Standby,
    /// A claim is published; the predecessor's lines are read after this time.
    Claimed(Box<(CommitWriter<M>, Epoch)>, u64),
    /// Ordering.
    Active(Box<ActiveSequencer<M>>),
}

/// One sequencer candidate.
pub struct Sequence<M> {
    name: String,
    view: View<M>,
    pool: Pool,
    candidate: u32,
    settings: SequencerSettings,
    takeover: TakeoverSettings,
    commit: CommitReader<M>,
    state: State<M>,
    /// The active one's heartbeat as last seen, and since when.
    heartbeat: (u64, u64),
    block: CounterBlock<M>,
    beat_ns: u64,
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
            commit: CommitReader::new(view),
            block: CounterBlock::new(view.memory.clone(), view.layout.sequencer_counters(candidate)),
            view: view.clone(),
            pool,
            candidate,
            settings,
            takeover,
            state: State::Standby,
            heartbeat: (0, 0),
            beat_ns: 0,
            report_ns: 0,
            reported_messages: 0,
            _lock: lock,
        }
    }

    /// Whether this candidate may claim now.
    fn may_claim(&mut self, now: Now) -> bool {
        let Some(commit) = self.commit.last() else {
            // Nobody ever was: the first candidate begins; the others give it time.
            return self.candidate == 0 || self.is_silent(0, now);
        };
        if commit.candidate == self.candidate {
            // A former life of this slot: its process is gone, since we hold its lock.
            return true;
        }
        if self.view.access_to_candidate(commit.candidate) == Access::Local {
            return self.pool.is_locked(LockName::Candidate(commit.candidate)).is_ok_and(|locked| !locked);
        }
        let beat = self.commit.line(commit.candidate).map_or(self.heartbeat.0, |line| line.heartbeat);
        self.is_silent(beat, now)
    }

    fn is_silent(&mut self, beat: u64, now: Now) -> bool {
        if self.heartbeat.1 == 0 || beat != self.heartbeat.0 {
            self.heartbeat = (beat, now.monotonic_ns);
        }
        now.monotonic_ns - self.heartbeat.1 > self.takeover.after_ns
    }

    fn stand_by(&mut self, now: Now) -> usize {
        if now.monotonic_ns - self.beat_ns < BEAT_NS && self.beat_ns != 0 {
            return 0;
        }
        self.beat_ns = now.monotonic_ns;
        if !self.may_claim(now) {
            return 0;
        }
        let mut writer = CommitWriter::take(&self.view, self.candidate);
        let epoch = writer.claim(self.commit.highest_claim(), std::process::id());
        self.view.memory.full_fence();
        log::info!("{}: claimed epoch {epoch}", self.name);
        self.state = State::Claimed(Box::new((writer, epoch)), now.monotonic_ns + self.takeover.settle_ns);
        1
    }

    fn take_over(&mut self, now: Now) -> usize {
        let State::Claimed(claim, due_ns) = &self.state else { return 0 };
        if now.monotonic_ns < *due_ns {
            return 0;
        }
        if !self.commit.confirm(claim.1) {
            log::info!("{}: another candidate claimed a higher epoch than {}; standing by", self.name, claim.1);
            self.state = State::Standby;
            return 1;
        }
        match recover(&self.view, &self.commit) {
            Err(RecoverError::Unsettled) => 0,
            Err(error @ RecoverError::Damaged(_)) => panic!("{}: cannot take over: {error}", self.name),
            Ok(recovered) => {
                let State::Claimed(claim, _) = std::mem::replace(&mut self.state, State::Standby) else { return 0 };
                let (writer, epoch) = *claim;
                let watermark = recovered.as_ref().map_or(0, |recovered| recovered.commit.watermark);
                let active =
                    ActiveSequencer::take_over(&self.view, self.candidate, writer, epoch, recovered, self.settings);
                log::info!("{}: active, epoch {epoch}, from index position {watermark}", self.name);
                self.state = State::Active(Box::new(active));
                1
            }
        }
    }

    fn order(&mut self, now: Now) -> usize {
        let State::Active(sequencer) = &mut self.state else { return 0 };
        let moved = sequencer.pass(now.monotonic_ns);
        if now.monotonic_ns - self.beat_ns >= BEAT_NS {
            self.beat_ns = now.monotonic_ns;
            sequencer.beat();
            if !self.commit.confirm(sequencer.epoch()) {
                // A higher epoch is claimed: whatever we write from here on is void.
                log::warn!("{}: epoch {} was taken over; standing by", self.name, sequencer.epoch());
                self.state = State::Standby;
                return moved + 1;
            }
        }
        self.report(now);
        moved
    }

    /// Copies counters out and logs progress, at most once a second and only if there was any.
    fn report(&mut self, now: Now) {
        if now.monotonic_ns - self.report_ns >= REPORT_NS {
            self.report_ns = now.monotonic_ns;
            self.report_now();
            self.look_for_dead();
        }
    }

    /// Of this host's brokers only: another host's process says nothing by a lock of ours.
    fn look_for_dead(&mut self) {
        let (view, pool) = (&self.view, &self.pool);
        if let State::Active(sequencer) = &mut self.state {
            sequencer.look_for_dead(|broker| {
                view.access_to_broker(broker) == Access::Local
                    && pool.is_locked(LockName::Broker(broker)).is_ok_and(|locked| !locked)
            });
        }
    }

    fn report_now(&mut self) {
        let State::Active(sequencer) = &self.state else { return };
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
        match self.state {
            State::Standby => self.stand_by(now),
            State::Claimed(..) => self.take_over(now),
            State::Active(_) => self.order(now),
        }
    }

    fn drain(&mut self, _io: &mut I, now: Now) -> bool {
        // It orders as long as any receive core of this process may still publish; other processes' wait for a successor.
        let moved = self.order(now);
        if moved == 0 {
            self.report_now();
        }
        moved == 0
    }
}
