//! Sessions that nobody can go on with make room; those that somebody has are kept.

use super::active::ActiveSequencer;
use super::tests::{Feeder, batch, open, start, topic_spec};
use crate::log::View;
use crate::order::Origin;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::sim::memory::{HostMemory, plain_view};
use crate::wire::OrderLevel;

const STEP_NS: u64 = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Two brokers of a lane each; a table with 64 places.
struct Scene {
    view: View<HostMemory>,
    sequencer: ActiveSequencer<HostMemory>,
    feeder: Feeder<HostMemory>,
    now_ns: u64,
}

impl Scene {
    fn new(order: OrderLevel) -> Scene {
        let view = plain_view(1);
        let (sequencer, feeder) = (start(&view, 0), Feeder::new(&view, 0));
        let mut scene = Scene { view: view.clone(), sequencer, feeder, now_ns: 1 };
        scene.feeder.lane.publish(&topic_spec(&view, order));
        scene.pass_ns(2 * STEP_NS);
        scene
    }

    fn put(&mut self, slot: BatchSlot) {
        assert!(self.feeder.put(slot, 192));
        self.pass_ns(2 * STEP_NS);
    }

    fn pass_ns(&mut self, ns: u64) {
        for _ in 0..ns / STEP_NS {
            self.now_ns += STEP_NS;
            self.sequencer.pass(self.now_ns);
        }
    }

    /// A roll call in which broker 0's process is found gone, or not.
    fn call(&mut self, is_gone: bool) {
        self.sequencer.call_the_roll(self.now_ns, |member| is_gone && member == 0);
        self.pass_ns(STEP_NS);
    }

    fn is_open(&self, session: u64) -> bool {
        self.sequencer.core().table().slot_of(session).is_some()
    }

    fn open_count(&self) -> usize {
        (1..=200).filter(|session| self.is_open(*session)).count()
    }

    fn alive(&mut self, session: u64) {
        let watermark = self.sequencer.counters().watermark;
        self.put(BatchSlot { kind: slot_kind::SESSION_ALIVE, session, session_epoch: 1, ..BatchSlot::default() });
        assert_eq!(self.sequencer.counters().watermark, watermark, "nothing is appended");
        assert_eq!(self.sequencer.counters().invalid_slots, 0);
    }
}

/// Forty publishers, the broker is killed and started again, and they all come back: what the former process left is nobody's.
#[test]
fn a_restarted_broker_has_room_for_its_publishers() {
    let mut scene = Scene::new(OrderLevel::Total);
    (1..=64).for_each(|session| scene.put(open(session)));
    assert_eq!(scene.open_count(), 64);
    scene.feeder = Feeder::new(&scene.view, 0);
    (101..=164).for_each(|session| scene.put(open(session)));
    assert!((101..=164).all(|session| scene.is_open(session)));
    scene.call(false);
    assert_eq!(scene.open_count(), 64, "those of the process that is there are kept");
}

#[test]
fn sessions_end_with_the_process_that_opened_them_once_its_lane_is_drained() {
    let mut scene = Scene::new(OrderLevel::Connection);
    (1..=3).for_each(|session| scene.put(open(session)));
    // Published, and not taken yet when the next process has the lane.
    assert!(scene.feeder.put(batch(2, 0), 192));
    scene.feeder = Feeder::new(&scene.view, 0);
    scene.sequencer.call_the_roll(scene.now_ns, |_| false);
    assert_eq!(scene.open_count(), 3, "there is something of them in the lane");
    scene.pass_ns(STEP_NS);
    assert_eq!(scene.sequencer.counters().appended_batches, 1);
    scene.call(false);
    assert_eq!(scene.open_count(), 0);
}

#[test]
fn sessions_end_with_a_process_that_has_no_successor() {
    let mut scene = Scene::new(OrderLevel::Broker);
    // Its member line says that it was there.
    crate::log::member::Member::announce(&scene.view, 0, crate::pool::Process::default());
    scene.put(open(1));
    scene.call(false);
    assert!(scene.is_open(1));
    assert!(scene.feeder.put(batch(1, 0), 192));
    scene.sequencer.call_the_roll(scene.now_ns, |member| member == 0);
    assert!(scene.is_open(1), "not drained");
    scene.pass_ns(STEP_NS);
    scene.call(true);
    assert_eq!((scene.is_open(1), scene.sequencer.counters().appended_batches), (false, 1));
}

/// A session of level 5 goes on over any broker.
#[test]
fn sessions_that_outlive_connections_outlive_processes() {
    let mut scene = Scene::new(OrderLevel::Session);
    scene.put(open(1));
    scene.feeder = Feeder::new(&scene.view, 0);
    scene.call(false);
    scene.call(true);
    assert!(scene.is_open(1));
}

/// Thousands opened and abandoned shut nobody out for longer than it takes to tell them from those that are there.
#[test]
fn sessions_opened_and_abandoned_make_room_and_connected_ones_are_kept() {
    let mut scene = Scene::new(OrderLevel::Session);
    (1..=64).for_each(|session| scene.put(open(session)));
    scene.put(open(101));
    assert!(!scene.is_open(101), "full of new ones");
    for _ in 0..6 {
        scene.pass_ns(SECOND_NS / 2);
        scene.alive(7);
    }
    scene.pass_ns(2 * SECOND_NS);
    (102..=164).for_each(|session| scene.put(open(session)));
    assert!((102..=164).all(|session| scene.is_open(session)));
    assert!(scene.is_open(7), "somebody has it");
    scene.put(open(165));
    assert!(!scene.is_open(165));
}

/// It knows nothing of who was there while it slept.
#[test]
fn a_sequencer_that_slept_ends_no_session() {
    let mut scene = Scene::new(OrderLevel::Session);
    (1..=64).for_each(|session| scene.put(open(session)));
    scene.now_ns += 1000 * SECOND_NS;
    scene.put(open(101));
    assert!(!scene.is_open(101));
    assert_eq!(scene.open_count(), 64);
}

/// A successor knows who opened what.
#[test]
fn what_opened_a_session_outlives_a_takeover() {
    let mut scene = Scene::new(OrderLevel::Total);
    (1..=2).for_each(|session| scene.put(open(session)));
    let opened_by = |scene: &Scene, session| {
        let table = scene.sequencer.core().table();
        table.session(table.slot_of(session).unwrap()).opened_by
    };
    assert_eq!(opened_by(&scene, 2), Origin { lane: 0, slot: 2 });
    scene.sequencer = start(&scene.view, 0);
    assert_eq!(opened_by(&scene, 2), Origin { lane: 0, slot: 2 });
    scene.feeder = Feeder::new(&scene.view, 0);
    scene.call(false);
    assert_eq!(scene.open_count(), 0);
}
