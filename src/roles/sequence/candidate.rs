//! One sequencer candidate: stands by, claims when it may, takes over, orders, steps back. No I/O.
//!
//! A candidate watches whoever has the highest claim, active or on the way to it, and claims when that one is gone: at once when
//! its process left this host (its lock is free), otherwise when its heartbeat has not changed for a while. A lock that is held
//! proves nothing: a process may hang. Whoever sees a claim above its own yields to it, and claims again only when that one is
//! gone too. Time only decides when to try; safety does not rest on it.

use crate::log::View;
use crate::log::checkpoint::{check_claims, recover_alive};
use crate::log::commit::{CommitReader, CommitWriter, Epoch};
use crate::log::member::Silence;
use crate::log::mend::mend_candidate;
use crate::log::recover::RecoverError;
use crate::pool::{Access, Memory};
use crate::roles::locks::Locks;
use crate::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use crate::roles::sequence::attendance::ROLL_CALL_NS;

/// When a candidate may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeoverSettings {
    /// Silence of a sequencer, or of one that claims, after which it is taken for dead on whatever host, ns.
    pub after_ns: u64,
    /// Wait between claiming and reading the predecessor's lines, ns.
    pub settle_ns: u64,
}

const BEAT_NS: u64 = 10_000_000;
/// How long each candidate leaves to the one before it when somebody is gone,
const TURN_NS: u64 = 2 * BEAT_NS;
/// and all of them together.
const TURNS_MAX_NS: u64 = 5 * TURN_NS;
/// The first wait after it yielded, doubled at most so often.
const BACKOFF_NS: u64 = 2 * BEAT_NS;
const BACKOFF_DOUBLINGS_MAX: u32 = 3;

/// Spreads numbers that are near each other.
fn hash(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

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
    /// How long whoever has the highest claim has shown the same: its slot, its epoch, its beat.
    silence: Silence<(u32, Epoch, u64)>,
    /// Since when it is found gone.
    gone_ns: Option<u64>,
    /// After it yielded it claims nothing before this time, the longer the more often it yielded and nobody became active.
    not_before_ns: u64,
    yields: u32,
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
            silence: Silence::default(),
            gone_ns: None,
            not_before_ns: 0,
            yields: 0,
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

    /// The active one copies out what it counted.
    pub fn report(&mut self, now_ns: u64) {
        if let State::Active(sequencer) = &mut self.state {
            sequencer.report(self.candidate, now_ns);
        }
    }

    /// What is damaged in the pool: this candidate orders nothing any more.
    pub fn fault(&self) -> Option<RecoverError> {
        self.fault
    }

    /// [`Self::step_timed`] where nobody measures.
    pub fn step(&mut self, now_ns: u64, locks: &impl Locks) -> usize {
        self.step_timed(now_ns, locks, &mut || 0)
    }

    /// One step. 0 iff nothing moved. `clock` tells the time of day, UTC ns.
    pub fn step_timed(&mut self, now_ns: u64, locks: &impl Locks, clock: &mut dyn FnMut() -> u64) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        match self.state {
            State::Standby => self.stand_by(now_ns, locks),
            State::Claimed(..) => self.take_over(now_ns, locks),
            State::Active(_) => self.order(now_ns, locks, clock),
        }
    }

    /// Its process ends in good order: whoever takes over need not wait until it is found silent.
    pub fn resign(&mut self) {
        if let State::Active(sequencer) = &mut self.state {
            sequencer.resign();
            log::info!("sequence {}: epoch {} is given up", self.candidate, sequencer.epoch());
            self.stand_back();
        }
    }

    /// Whether this candidate may claim now. Everyone watches whoever has the highest claim, active or not yet: who claims above a
    /// living claimant only makes it begin again.
    fn may_claim(&mut self, now_ns: u64, locks: &impl Locks) -> bool {
        let holder = self.commit.highest_claimant();
        let is_gone = match holder {
            // Nobody ever was: the first candidate begins; the others give it time.
            None => self.candidate == 0 || self.is_silent((0, 0, 0), now_ns),
            // A former life of this slot: its process is gone, since we hold its lock. This life stands by only below others.
            Some((holder, _)) if holder == self.candidate => true,
            Some((holder, epoch)) => {
                let line = self.commit.line(holder);
                if line.active == epoch {
                    (self.yields, self.not_before_ns) = (0, 0);
                }
                let is_silent = self.is_silent((holder, epoch, line.heartbeat), now_ns) || line.resigned == epoch;
                // A free lock says at once what silence says late. One that is held says nothing: its process may hang.
                let is_local = self.view.access_to_candidate(holder) == Access::Local;
                is_silent || is_local && !locks.is_candidate_held(holder)
            }
        };
        if !is_gone {
            self.gone_ns = None;
            return false;
        }
        let since_ns = *self.gone_ns.get_or_insert(now_ns);
        let is_my_turn = holder.is_none_or(|(holder, _)| now_ns - since_ns >= self.turn_ns(holder));
        is_my_turn && now_ns >= self.not_before_ns
    }

    /// How long it leaves the claim to those before it: they are asked in turn, from the one that is gone on.
    fn turn_ns(&self, gone: u32) -> u64 {
        if gone == self.candidate {
            return 0;
        }
        let candidates = self.view.layout.geometry.candidates;
        let before_it = (self.candidate + candidates - gone - 1) % candidates;
        (u64::from(before_it) * TURN_NS).min(TURNS_MAX_NS)
    }

    /// Stands back from its claim if somebody else has a higher one.
    fn yields_to_higher(&mut self, epoch: Epoch, now_ns: u64) -> bool {
        if self.commit.confirm(epoch) {
            return false;
        }
        log::info!("sequence {}: a higher epoch than {epoch} is claimed; standing by", self.candidate);
        // The wait differs from one to the next, whatever made them claim together.
        let spread_ns = hash(u64::from(self.candidate) ^ now_ns.rotate_left(20) ^ epoch) % BACKOFF_NS;
        self.not_before_ns = now_ns + ((BACKOFF_NS + spread_ns) << self.yields);
        self.yields = (self.yields + 1).min(BACKOFF_DOUBLINGS_MAX);
        self.stand_back();
        true
    }

    fn stand_back(&mut self) {
        self.state = State::Standby;
        self.gone_ns = None;
        self.silence.broken();
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

    fn is_silent(&mut self, seen: (u32, Epoch, u64), now_ns: u64) -> bool {
        self.silence.look(seen, now_ns, BEAT_NS) > self.takeover.after_ns
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
        let State::Claimed(claim, due_ns) = &mut self.state else { return 0 };
        let (epoch, due_ns) = (claim.1, *due_ns);
        let is_beat = now_ns - self.beat_ns >= BEAT_NS;
        if !is_beat && now_ns < due_ns {
            return 0;
        }
        // One that cannot take over though it tries all the time leaves that to others.
        if is_beat && now_ns < due_ns + self.takeover.after_ns {
            claim.0.beat();
        }
        if is_beat {
            self.beat_ns = now_ns;
        }
        if self.yields_to_higher(epoch, now_ns) {
            return 1;
        }
        let State::Claimed(claim, _) = &mut self.state else { return 0 };
        if now_ns < due_ns {
            return 0;
        }
        let recovered = recover_alive(&self.view, &self.commit, &mut || claim.0.beat());
        // What was read of a predecessor that is no longer the last one is neither gone on from nor damage.
        if self.yields_to_higher(epoch, now_ns) {
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
                let mut active =
                    ActiveSequencer::take_over(&self.view, self.candidate, writer, epoch, recovered, self.settings);
                active.look_at_failed_memory();
                log::info!("sequence {}: active, epoch {epoch}, from index position {watermark}", self.candidate);
                self.state = State::Active(Box::new(active));
                1
            }
        }
    }

    fn order(&mut self, now_ns: u64, locks: &impl Locks, clock: &mut dyn FnMut() -> u64) -> usize {
        let State::Active(sequencer) = &mut self.state else { return 0 };
        let moved = sequencer.pass_timed(now_ns, clock);
        if now_ns - self.beat_ns >= BEAT_NS {
            self.beat_ns = now_ns;
            sequencer.beat();
            sequencer.look_at_the_waiting(now_ns);
            if !self.commit.confirm(sequencer.epoch()) {
                // A higher epoch is claimed: whatever we write from here on is void.
                log::warn!("sequence {}: epoch {} was taken over; standing by", self.candidate, sequencer.epoch());
                self.stand_back();
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
