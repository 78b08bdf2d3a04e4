//! One sequencer candidate: stands by, claims when it may, takes over, orders, steps back. No I/O.
//!
//! A candidate claims at once when the active one's process is gone from this host (its lock is free), or when the heartbeat
//! of another host's has not changed for a while. Time only decides when to try; safety does not rest on it.

use crate::log::View;
use crate::log::checkpoint::{RecoverError, check_claims, recover};
use crate::log::commit::{CommitReader, CommitWriter, Epoch};
use crate::log::mend::mend_candidate;
use crate::pool::{Access, Memory};
use crate::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use crate::roles::sequence::attendance::ROLL_CALL_NS;

/// When a candidate may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeoverSettings {
    /// Silence of another host's sequencer after which it is taken for dead, ns.
    pub after_ns: u64,
    /// Wait between claiming and reading the predecessor's lines, ns.
    pub settle_ns: u64,
}

/// The locks of this host: who of its processes lives.
pub trait Locks {
    /// Whether a process holds a candidate's slot. When in doubt it does: claiming is never urgent.
    fn is_candidate_held(&self, candidate: u32) -> bool;
    /// Runs `act` while holding a candidate's slot, if nobody else does.
    fn while_free(&self, candidate: u32, act: &mut dyn FnMut());
    /// Whether no process serves as a broker or has an attached place. When in doubt one does.
    fn is_member_gone(&self, member: u32) -> bool;
}

const BEAT_NS: u64 = 10_000_000;

enum State<M> {
    /// Another candidate is active, or none yet.
    Standby,
    /// A claim is published; the predecessor's lines are read after this time.
    Claimed(Box<(CommitWriter<M>, Epoch)>, u64),
    /// Ordering.
    Active(Box<ActiveSequencer<M>>),
}

/// See the head of the file.
pub struct Candidate<M> {
    view: View<M>,
    candidate: u32,
    settings: SequencerSettings,
    takeover: TakeoverSettings,
    commit: CommitReader<M>,
    state: State<M>,
    /// The active one's heartbeat as last seen, and since when.
    heartbeat: (u64, u64),
    beat_ns: u64,
    roll_call_ns: u64,
    /// What keeps it from ever taking over.
    fault: Option<RecoverError>,
}

impl<M: Memory> Candidate<M> {
    /// The candidate of this slot, whose host lock the caller holds.
    pub fn new(view: &View<M>, candidate: u32, settings: SequencerSettings, takeover: TakeoverSettings) -> Self {
        let mended = mend_candidate(view, candidate);
        if mended > 0 {
            log::info!("sequence {candidate}: its last process was killed while it wrote; {mended} lines were mended");
        }
        Candidate {
            commit: CommitReader::new(view),
            view: view.clone(),
            candidate,
            settings,
            takeover,
            state: State::Standby,
            heartbeat: (0, 0),
            beat_ns: 0,
            roll_call_ns: 0,
            fault: None,
        }
    }

    /// Its slot.
    pub fn slot(&self) -> u32 {
        self.candidate
    }

    /// The sequencer, while it is the active one.
    pub fn active(&self) -> Option<&ActiveSequencer<M>> {
        match &self.state {
            State::Active(sequencer) => Some(sequencer),
            State::Standby | State::Claimed(..) => None,
        }
    }

    /// What is damaged in the pool: this candidate orders nothing any more.
    pub fn fault(&self) -> Option<RecoverError> {
        self.fault
    }

    /// One step. 0 iff nothing moved.
    pub fn step(&mut self, now_ns: u64, locks: &impl Locks) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        match self.state {
            State::Standby => self.stand_by(now_ns, locks),
            State::Claimed(..) => self.take_over(now_ns, locks),
            State::Active(_) => self.order(now_ns, locks),
        }
    }

    /// Whether this candidate may claim now.
    fn may_claim(&mut self, now_ns: u64, locks: &impl Locks) -> bool {
        let Some(commit) = self.commit.current() else {
            // Nobody ever was: the first candidate begins; the others give it time.
            return self.candidate == 0 || self.is_silent(0, now_ns);
        };
        if commit.candidate == self.candidate {
            // A former life of this slot: its process is gone, since we hold its lock.
            return true;
        }
        if self.view.access_to_candidate(commit.candidate) == Access::Local {
            return !locks.is_candidate_held(commit.candidate);
        }
        let beat = self.commit.line(commit.candidate).heartbeat;
        self.is_silent(beat, now_ns)
    }

    /// Epoch lines that other candidates of this host left in the middle of a publication when they were killed.
    fn mend_the_dead(&self, locks: &impl Locks) {
        for candidate in (0..self.view.layout.geometry.candidates).filter(|candidate| *candidate != self.candidate) {
            if self.view.access_to_candidate(candidate) == Access::Local {
                locks.while_free(candidate, &mut || {
                    if mend_candidate(&self.view, candidate) > 0 {
                        log::warn!("candidate {candidate} was killed while it wrote; its lines are mended");
                    }
                });
            }
        }
    }

    fn is_silent(&mut self, beat: u64, now_ns: u64) -> bool {
        if self.heartbeat.1 == 0 || beat != self.heartbeat.0 {
            self.heartbeat = (beat, now_ns);
        }
        now_ns - self.heartbeat.1 > self.takeover.after_ns
    }

    fn stand_by(&mut self, now_ns: u64, locks: &impl Locks) -> usize {
        if now_ns - self.beat_ns < BEAT_NS && self.beat_ns != 0 {
            return 0;
        }
        self.beat_ns = now_ns;
        if !self.may_claim(now_ns, locks) {
            return 0;
        }
        // A claim above a damaged one would outlive whatever restores the pool's lines.
        if let Err(fault) = check_claims(&self.commit) {
            self.fault = Some(fault);
            return 0;
        }
        let highest = self.commit.highest_claimed();
        let mut writer = CommitWriter::take(&self.view, self.candidate);
        let epoch = writer.claim(highest, std::process::id());
        self.view.memory.full_fence();
        log::info!("sequence {}: claimed epoch {epoch}", self.candidate);
        self.state = State::Claimed(Box::new((writer, epoch)), now_ns + self.takeover.settle_ns);
        1
    }

    fn take_over(&mut self, now_ns: u64, locks: &impl Locks) -> usize {
        let State::Claimed(claim, due_ns) = &self.state else { return 0 };
        if now_ns < *due_ns {
            return 0;
        }
        if !self.commit.confirm(claim.1) {
            let epoch = claim.1;
            log::info!("sequence {}: a higher epoch than {epoch} is claimed; standing by", self.candidate);
            self.state = State::Standby;
            return 1;
        }
        let recovered = recover(&self.view, &self.commit);
        // What was read of a predecessor that is no longer the last one is neither gone on from nor damage.
        if !self.commit.confirm(claim.1) {
            let epoch = claim.1;
            log::info!("sequence {}: a higher epoch than {epoch} is claimed; standing by", self.candidate);
            self.state = State::Standby;
            return 1;
        }
        match recovered {
            Err(RecoverError::Unsettled) => {
                self.mend_the_dead(locks);
                0
            }
            Err(error) => {
                self.fault = Some(error);
                0
            }
            Ok(recovered) => {
                let State::Claimed(claim, _) = std::mem::replace(&mut self.state, State::Standby) else { return 0 };
                let (writer, epoch) = *claim;
                let watermark = recovered.as_ref().map_or(0, |recovered| recovered.commit.watermark);
                let active =
                    ActiveSequencer::take_over(&self.view, self.candidate, writer, epoch, recovered, self.settings);
                log::info!("sequence {}: active, epoch {epoch}, from index position {watermark}", self.candidate);
                self.state = State::Active(Box::new(active));
                1
            }
        }
    }

    fn order(&mut self, now_ns: u64, locks: &impl Locks) -> usize {
        let State::Active(sequencer) = &mut self.state else { return 0 };
        let moved = sequencer.pass(now_ns);
        if now_ns - self.beat_ns >= BEAT_NS {
            self.beat_ns = now_ns;
            sequencer.beat();
            sequencer.look_at_the_waiting(now_ns);
            if !self.commit.confirm(sequencer.epoch()) {
                // A higher epoch is claimed: whatever we write from here on is void.
                log::warn!("sequence {}: epoch {} was taken over; standing by", self.candidate, sequencer.epoch());
                self.state = State::Standby;
                return moved + 1;
            }
        }
        if now_ns - self.roll_call_ns >= ROLL_CALL_NS {
            self.roll_call_ns = now_ns;
            // By locks of this host's members only: another host's process says nothing by a lock of ours.
            let view = &self.view;
            let is_gone = |member| view.access_to_member(member) == Access::Local && locks.is_member_gone(member);
            sequencer.call_the_roll(now_ns, is_gone);
        }
        moved
    }
}
