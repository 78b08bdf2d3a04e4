//! A candidate whose claim, or whose epoch, is superseded.

use super::candidate::{Candidate, TakeoverSettings};
use super::tests::SETTINGS;
use crate::log::View;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::views::{host_views, plain_view};
use crate::pool::line::INVALID;
use crate::pool::record::EpochLine;
use crate::pool::{Access, Memory, line};
use crate::roles::locks::Locks;
use crate::testing::memory::{HostMemory, Whim};
use crate::testing::random::Random;

/// All other processes are gone.
struct Alone;

impl Locks for Alone {
    fn while_member_free(&self, _member: u32, _act: &mut dyn FnMut()) {}
    fn is_candidate_held(&self, _candidate: u32) -> bool {
        false
    }
    fn while_free(&self, _candidate: u32, act: &mut dyn FnMut()) {
        act();
    }
    fn is_member_gone(&self, _broker: u32) -> bool {
        false
    }
}

const SECOND: u64 = 1_000_000_000;

fn candidate(view: &View<HostMemory>) -> Candidate<HostMemory> {
    Candidate::new(view, 0, SETTINGS, TakeoverSettings { after_ns: SECOND, settle_ns: SECOND })
}

#[test]
fn a_claim_is_above_every_claim_and_is_given_up_for_a_higher_one() {
    let view = plain_view(2);
    let reader = CommitReader::new(&view);
    let mut other = CommitWriter::take(&view, 1);
    other.claim(10, 1);
    let mut candidate = candidate(&view);
    assert_eq!(candidate.step(SECOND, &Alone), 1);
    let claimed = reader.line(0).claimed;
    assert!(claimed > reader.line(1).claimed, "{claimed} is claimed");
    other.claim(claimed, 1);
    assert_eq!(candidate.step(3 * SECOND, &Alone), 1);
    assert!(candidate.active().is_none());
    assert_eq!(reader.line(0).active, 0, "it never was");
}

#[test]
fn an_active_one_steps_back_when_a_higher_epoch_is_claimed() {
    let view = plain_view(2);
    let mut candidate = candidate(&view);
    (1..4).for_each(|second| {
        candidate.step(second * SECOND, &Alone);
    });
    let epoch = candidate.active().expect("nobody else claims").epoch();
    CommitWriter::take(&view, 1).claim(epoch, 1);
    candidate.step(5 * SECOND, &Alone);
    assert!(candidate.active().is_none());
}

#[test]
fn lines_its_former_life_left_torn_are_mended() {
    let view = plain_view(2);
    let mut former = CommitWriter::take(&view, 0);
    former.claim(0, 1);
    former.activate(0);
    let at = view.layout.epoch_line(0);
    view.memory.store(at, INVALID);
    let _candidate = candidate(&view);
    let (_, mended) = line::observe::<_, EpochLine>(&view.memory, at, Access::Local).expect("it can be read");
    assert_eq!(mended.active, 1);
}

/// Who holds its slot's lock in a scene.
struct Held(Vec<bool>);

impl Locks for Held {
    fn while_member_free(&self, _member: u32, _act: &mut dyn FnMut()) {}
    fn is_candidate_held(&self, candidate: u32) -> bool {
        self.0[candidate as usize]
    }
    fn while_free(&self, candidate: u32, act: &mut dyn FnMut()) {
        if !self.0[candidate as usize] {
            act();
        }
    }
    fn is_member_gone(&self, _broker: u32) -> bool {
        false
    }
}

/// The process of the active one ends in good order, and no lock says so, as on another host: nobody waits until it is silent.
#[test]
fn nobody_waits_for_one_that_has_resigned() {
    for resigns in [false, true] {
        let (view, locks) = (plain_view(2), Held(vec![true, true]));
        let mut first = candidate(&view);
        (1..4).for_each(|second| {
            first.step(second * SECOND, &locks);
        });
        let epoch = first.active().expect("nobody else claims").epoch();
        let takeover = TakeoverSettings { after_ns: SECOND, settle_ns: 0 };
        let mut second = Candidate::new(&view, 1, SETTINGS, takeover);
        second.step(4 * SECOND, &locks);
        if resigns {
            first.resign();
            assert!(first.active().is_none());
        }
        (1..6).for_each(|step| {
            second.step(4 * SECOND + step * 20 * MS, &locks);
        });
        assert_eq!(second.active().map(|active| active.epoch() > epoch), resigns.then_some(true), "{resigns}");
    }
}

/// What happens to the active one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Killed,
    /// Stopped, its lock held, and revived later.
    Hung,
}

const MS: u64 = 1_000_000;
const AFTER_NS: u64 = 300 * MS;

/// Candidates that step at random times.
struct Scene {
    what: String,
    random: Random,
    reader: CommitReader<HostMemory>,
    candidates: Vec<Option<Candidate<HostMemory>>>,
    /// Which of them step.
    runs: Vec<bool>,
    locks: Held,
    now_ns: u64,
    /// Every claim that was seen.
    claims: u32,
    claimed: Vec<u64>,
}

impl Scene {
    fn new(seed: u64, homes: &[u32], settle_ns: u64, fate: Fate) -> Scene {
        let (_, views) = host_views([0, 0], homes, Whim::NONE, seed);
        let takeover = TakeoverSettings { after_ns: AFTER_NS, settle_ns };
        let new =
            |(slot, home): (usize, &u32)| Some(Candidate::new(&views[*home as usize], slot as u32, SETTINGS, takeover));
        Scene {
            what: format!("seed {seed}, homes {homes:?}, settle {} ms, {fate:?}", settle_ns / MS),
            random: Random::new(seed),
            reader: CommitReader::new(&views[0]),
            candidates: homes.iter().enumerate().map(new).collect(),
            runs: vec![true; homes.len()],
            locks: Held(vec![true; homes.len()]),
            now_ns: SECOND,
            claims: 0,
            claimed: vec![0; homes.len()],
        }
    }

    /// One ms: each that runs steps or does not, in any order.
    fn tick(&mut self) {
        self.now_ns += MS;
        let first = self.random.below(self.candidates.len() as u64) as usize;
        for slot in (first..self.candidates.len()).chain(0..first) {
            if self.runs[slot] && self.random.below(3) > 0 {
                let Some(candidate) = &mut self.candidates[slot] else { continue };
                candidate.step(self.now_ns, &self.locks);
                let claimed = self.reader.line(slot as u32).claimed;
                self.claims += u32::from(claimed != self.claimed[slot]);
                self.claimed[slot] = claimed;
            }
        }
    }

    fn run(&mut self, ns: u64) {
        (0..ns / MS).for_each(|_| self.tick());
    }

    /// The one that runs and is active, under the highest epoch claimed.
    fn active(&self) -> Option<usize> {
        let highest = self.reader.highest_claimed();
        self.candidates.iter().zip(&self.runs).position(|(candidate, runs)| {
            *runs && candidate.as_ref().and_then(Candidate::active).is_some_and(|active| active.epoch() == highest)
        })
    }

    /// Runs until one is active: within this time, with at most one claim of each. Gives which.
    fn becomes_active(&mut self, within_ns: u64) -> usize {
        let (since_ns, claims) = (self.now_ns, self.claims);
        while self.active().is_none() {
            self.tick();
            let took_ns = self.now_ns - since_ns;
            assert!(took_ns <= within_ns, "{}: nobody is active after {} ms", self.what, took_ns / MS);
        }
        let claims = self.claims - claims;
        assert!(claims as usize <= self.candidates.len(), "{}: {claims} claims", self.what);
        self.active().expect("just seen")
    }

    /// One stays active, and nobody claims.
    fn nothing_changes(&mut self, ns: u64, when: &str) {
        let before = (self.active(), self.claims);
        self.run(ns);
        assert_eq!((self.active(), self.claims), before, "{}: {when}", self.what);
        let active = self.candidates.iter().flatten().filter(|candidate| candidate.active().is_some()).count();
        assert!(!self.runs.iter().all(|runs| *runs) || active == 1, "{}: {active} are active {when}", self.what);
    }
}

fn succeeds(seed: u64, homes: &[u32], settle_ns: u64, fate: Fate) {
    let mut scene = Scene::new(seed, homes, settle_ns, fate);
    let within_ns = settle_ns + 200 * MS;
    scene.becomes_active(within_ns);
    // Whoever claimed at the same time found out.
    scene.run(100 * MS);
    scene.nothing_changes(2 * AFTER_NS + settle_ns, "after the beginning");
    // Their machine slept: the others wake first, and find everyone silent.
    let first = scene.active().expect("nothing changed");
    scene.now_ns += 100 * SECOND;
    scene.runs[first] = false;
    scene.run(50 * MS);
    scene.runs[first] = true;
    scene.nothing_changes(AFTER_NS, "after everybody slept");
    // The active one is gone.
    scene.runs[first] = false;
    let is_elsewhere = |slot: usize| slot != first && homes[slot] != homes[first];
    if fate == Fate::Killed {
        scene.candidates[first] = None;
        scene.locks.0[first] = false;
    }
    let all_elsewhere = (0..homes.len()).filter(|slot| *slot != first).all(is_elsewhere);
    let silence_ns = if fate == Fate::Hung || all_elsewhere { AFTER_NS } else { 0 };
    // Silence is counted by looks that may be a little apart.
    let second = scene.becomes_active(silence_ns + within_ns + silence_ns / 10);
    assert_ne!(second, first);
    scene.run(100 * MS);
    if fate == Fate::Hung {
        scene.runs[first] = true;
        scene.run(30 * MS);
        scene.nothing_changes(2 * AFTER_NS + settle_ns, "after the predecessor went on");
        assert!(scene.candidates[first].as_ref().is_some_and(|candidate| candidate.active().is_none()));
    }
}

/// With any settling time, on one host and between hosts, there is a sequencer soon, and no candidate drives another out.
#[test]
fn candidates_never_duel() {
    let homes: [&[u32]; 6] = [&[0, 0], &[0, 1], &[0, 0, 0], &[0, 1, 1], &[0, 0, 0, 0], &[0, 1, 0, 1]];
    for settle_ns in [0, 20 * MS, 600 * MS, 2 * SECOND] {
        for (seed, homes) in (0..3).flat_map(|round| (0..).map(move |n| 10 * n + round).zip(homes)) {
            succeeds(seed, homes, settle_ns, Fate::Killed);
            succeeds(seed, homes, settle_ns, Fate::Hung);
        }
    }
}
