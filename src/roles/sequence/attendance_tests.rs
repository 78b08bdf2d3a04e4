//! Members of two hosts that fall silent, are stopped, and come back, before a sequencer on the first.

use super::active::SequencerSettings;
use super::attendance::{Attendance, ROLL_CALL_NS};
use super::candidate::{Candidate, TakeoverSettings};
use super::tests::{FIRST, Feeder, SETTINGS, batch, open, topic_spec};
use crate::log::View;
use crate::log::lane::LaneWriter;
use crate::log::member::Member;
use crate::log::retention::Hold;
use crate::log::views::host_views;
use crate::pool::Process;
use crate::roles::locks::Locks;
use crate::testing::memory::{HostMemory, Whim};
use crate::wire::OrderLevel;

const SILENCE_NS: u64 = 500_000_000;
const STEP_NS: u64 = 10_000_000;

/// Locks of which some are free. Those of another host's members may not be asked about: they are not this host's.
struct Held {
    gone: Vec<u32>,
    here: Vec<u32>,
}

impl Locks for Held {
    fn while_member_free(&self, _member: u32, _act: &mut dyn FnMut()) {}
    fn is_candidate_held(&self, _: u32) -> bool {
        true
    }
    fn while_free(&self, _: u32, _: &mut dyn FnMut()) {}
    fn is_member_gone(&self, member: u32) -> bool {
        assert!(self.here.contains(&member), "the lock of member {member} is another host's");
        self.gone.contains(&member)
    }
}

/// Broker 0 and the sequencer on host 0, broker 1 on host 1.
struct Scene {
    views: Vec<View<HostMemory>>,
    sequencer: Candidate<HostMemory>,
    members: Vec<Member<HostMemory>>,
    locks: Held,
    now_ns: u64,
}

impl Scene {
    fn new() -> Scene {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 7);
        let settings = SequencerSettings { member_silence_ns: SILENCE_NS, ..SETTINGS };
        let sequencer = Candidate::new(&views[0], 0, settings, TakeoverSettings { after_ns: 1, settle_ns: 0 });
        let members = (0..2).map(|broker| Member::announce(&views[broker as usize], broker, Process::default()));
        let members = members.collect();
        let locks = Held { gone: Vec::new(), here: vec![0] };
        let mut scene = Scene { views, sequencer, members, locks, now_ns: 1 };
        scene.pass_ns(10 * STEP_NS, &[0, 1]);
        scene
    }

    /// Time goes by in which these members show themselves.
    fn pass_ns(&mut self, ns: u64, alive: &[usize]) {
        for _ in 0..ns / STEP_NS {
            self.now_ns += STEP_NS;
            alive.iter().for_each(|member| {
                self.members[*member].beat(self.now_ns);
            });
            self.sequencer.step(self.now_ns, &self.locks);
        }
    }

    /// Whether the lanes of both brokers are waited for.
    fn waited_for(&self) -> [bool; 2] {
        [0, 1].map(|lane| self.sequencer.active().expect("it is the only one").is_waited_for(lane))
    }
}

#[test]
fn a_silent_member_of_any_host_is_not_waited_for_until_it_is_back() {
    for silent in [0, 1] {
        let mut scene = Scene::new();
        scene.pass_ns(SILENCE_NS - 2 * ROLL_CALL_NS, &[1 - silent]);
        assert_eq!(scene.waited_for(), [true, true], "not silent for long");
        scene.pass_ns(4 * ROLL_CALL_NS, &[1 - silent]);
        // Its lock is held, as by a process that was stopped: that proves nothing.
        assert_eq!(scene.waited_for(), [silent == 1, silent == 0]);
        scene.pass_ns(2 * ROLL_CALL_NS, &[0, 1]);
        assert_eq!(scene.waited_for(), [true, true], "it is back");
    }
}

#[test]
fn a_free_lock_of_this_host_makes_it_faster() {
    let mut scene = Scene::new();
    scene.locks.gone = vec![0];
    scene.pass_ns(ROLL_CALL_NS, &[1]);
    assert_eq!(scene.waited_for(), [false, true]);
}

#[test]
fn a_member_that_stopped_in_good_order_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.members[1].stop();
    scene.pass_ns(2 * ROLL_CALL_NS, &[0]);
    assert_eq!(scene.waited_for(), [true, false]);
}

/// The readers of a broker that was killed live on, and take what it had pinned for them to another: until then it stays.
#[test]
fn the_pins_of_a_broker_that_was_killed_outlive_it_for_a_while() {
    let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 7);
    let member = Member::announce(&views[0], 0, Process::default());
    let (mut attendance, mut buried, mut now_ns) = (Attendance::new(&views[0]), Vec::new(), 1);
    let until_ns = now_ns + SILENCE_NS;
    while buried.is_empty() && now_ns < 3 * SILENCE_NS {
        now_ns += ROLL_CALL_NS;
        attendance.call(
            now_ns,
            SILENCE_NS,
            |member| member == 0,
            |member, incarnation| buried.push((member, incarnation)),
        );
        assert!(!attendance.is_present(0), "nobody waits for what it does itself");
    }
    assert_eq!(buried, [(0, member.incarnation())]);
    assert!((until_ns..=until_ns + 3 * ROLL_CALL_NS).contains(&now_ns), "after {now_ns} ns");
}

/// It was stopped, or its host was: on its own clock everybody else was silent all the time.
#[test]
fn a_sequencer_that_slept_takes_nobody_for_dead() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.now_ns += 100 * SILENCE_NS;
        scene.sequencer.step(scene.now_ns, &scene.locks);
        assert_eq!(scene.waited_for(), [true, true]);
    }
}

/// A receive core that hangs in a process that lives: its lane said that it is paused, and shows nothing any more.
#[test]
fn a_paused_lane_that_shows_nothing_stops_no_clock_though_its_broker_lives() {
    let mut scene = Scene::new();
    let mut lane = LaneWriter::take(&scene.views[1], 1);
    lane.report(0, 4, true);
    scene.pass_ns(SILENCE_NS - 2 * STEP_NS, &[0, 1]);
    lane.beat();
    scene.pass_ns(SILENCE_NS - 2 * STEP_NS, &[0, 1]);
    assert_eq!(scene.waited_for(), [true, true]);
    scene.pass_ns(4 * STEP_NS, &[0, 1]);
    assert_eq!(scene.waited_for(), [true, false]);
}

/// What died before a takeover is found again by whoever takes over, wherever it runs.
#[test]
fn a_successor_finds_the_dead_again() {
    let mut scene = Scene::new();
    scene.pass_ns(2 * SILENCE_NS, &[1]);
    assert_eq!(scene.waited_for(), [false, true]);
    let settings = SequencerSettings { member_silence_ns: SILENCE_NS, ..SETTINGS };
    scene.sequencer = Candidate::new(&scene.views[0], 0, settings, TakeoverSettings { after_ns: 1, settle_ns: 0 });
    scene.pass_ns(10 * STEP_NS, &[1]);
    assert_eq!(scene.waited_for(), [true, true], "it has not looked for long");
    scene.pass_ns(2 * SILENCE_NS, &[1]);
    assert_eq!(scene.waited_for(), [false, true]);
}

/// Its readers had everything, and nobody here hears of its end but by its silence.
#[test]
fn a_dead_broker_of_another_host_holds_the_floor_for_a_while_only() {
    const BATCH_BYTES: u64 = 64 << 10;
    let mut scene = Scene::new();
    let mut feeder = Feeder::new(&scene.views[0], 0);
    feeder.lane.publish(&topic_spec(&scene.views[0], OrderLevel::Session));
    scene.pass_ns(2 * STEP_NS, &[0, 1]);
    feeder.put(open(), 64);
    scene.pass_ns(2 * STEP_NS, &[0, 1]);
    let mut hold = Hold::take(&scene.views[1], 1, scene.members[1].incarnation());
    assert!(hold.lower_to_floor().is_some_and(|floor| hold.look(floor) == Ok(true)));
    let mut fed = 0;
    let mut feed = |scene: &mut Scene, ns: u64, alive: &[usize], hold: Option<&mut Hold<HostMemory>>| {
        let (before, mut hold) = (fed, hold);
        for _ in 0..ns / STEP_NS {
            while fed < before + 500 && feeder.put(batch(FIRST, fed), BATCH_BYTES) {
                fed += 1;
                scene.sequencer.step(scene.now_ns, &scene.locks);
            }
            feeder.lane.beat();
            if let Some(hold) = &mut hold {
                assert_eq!(hold.look(hold.position()), Ok(true), "its holder shows itself");
            }
            scene.pass_ns(STEP_NS, alive);
        }
        fed - before
    };
    assert!(feed(&mut scene, SILENCE_NS, &[0, 1], Some(&mut hold)) < 500, "held by what it has pinned");
    assert_eq!(feed(&mut scene, 3 * SILENCE_NS, &[0, 1], Some(&mut hold)), 0, "for as long as it lives");
    assert_eq!(feed(&mut scene, SILENCE_NS - 4 * STEP_NS, &[0], None), 0, "and a while longer");
    assert_eq!(feed(&mut scene, 20 * STEP_NS, &[0], None), 500, "laps of the pool");
    assert!(hold.look(hold.position()).is_err(), "it would be told");
}
