//! Sessions that nobody can go on with make room; those that somebody has are kept.

use super::active::{ActiveSequencer, SequencerSettings};
use super::tests::{Feeder, SETTINGS, batch, open, session_of, start, topic_spec};
use crate::log::View;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::entry::to_sound_event;
use crate::log::order_index::IndexReader;
use crate::log::retention::{FloorReader, NO_PIN, Pin};
use crate::log::session::{SessionFollower, Standing};
use crate::log::views::plain_view;
use crate::order::{Event, Origin};
use crate::pool::record::{BatchSlot, IndexEntry, slot_kind};
use crate::testing::memory::HostMemory;
use crate::wire::{OrderLevel, Refusal};

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

    /// Asks for a session. Gives its id if it opened.
    fn open(&mut self) -> Option<u64> {
        // What its lane closes comes before.
        self.feeder.lane.refresh(u64::MAX);
        let asked = self.feeder.lane.produced();
        self.put(open());
        session_of(&self.sequencer, 0, asked)
    }

    fn open_all(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.open().expect("there is room")).collect()
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
        self.sequencer.core().table().sessions().iter().filter(|session| session.id != 0).count()
    }

    /// What its lane does not know the id of.
    fn close_asked(&mut self, asked: u64) {
        self.put(BatchSlot { kind: slot_kind::SESSION_CLOSE, batch_seq: asked, ..BatchSlot::default() });
    }

    /// Ids of the sessions that opened, as the index has them.
    fn opened(&self) -> Vec<u64> {
        let commit = CommitReader::new(&self.view).current().expect("it is active");
        let mut entries = [IndexEntry::default(); 256];
        let count = IndexReader::new(&self.view, 0).read(&commit, &mut entries).expect("all of it is kept");
        let id = |(position, entry): (u64, &IndexEntry)| match to_sound_event(position, entry, &self.view.layout) {
            Ok(Event::Open { session, .. }) => Some((position, session)),
            found => found.map(|_| None).expect("it is sound"),
        };
        let opened: Vec<_> = (0..).zip(&entries[..count]).filter_map(id).collect();
        assert!(opened.iter().all(|(position, session)| *session == position + 1), "{opened:?}");
        opened.into_iter().map(|(_, session)| session).collect()
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
    scene.open_all(64);
    assert_eq!(scene.open_count(), 64);
    scene.feeder = Feeder::new(&scene.view, 0);
    let now = scene.open_all(64);
    assert!(now.iter().all(|session| scene.is_open(*session)));
    scene.call(false);
    assert_eq!(scene.open_count(), 64, "those of the process that is there are kept");
}

#[test]
fn sessions_end_with_the_process_that_opened_them_once_its_lane_is_drained() {
    let mut scene = Scene::new(OrderLevel::Connection);
    let session = scene.open_all(3)[1];
    // Published, and not taken yet when the next process has the lane.
    assert!(scene.feeder.put(batch(session, 0), 192));
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
    let session = scene.open().unwrap();
    scene.call(false);
    assert!(scene.is_open(session));
    assert!(scene.feeder.put(batch(session, 0), 192));
    scene.sequencer.call_the_roll(scene.now_ns, |member| member == 0);
    assert!(scene.is_open(session), "not drained");
    scene.pass_ns(STEP_NS);
    scene.call(true);
    assert_eq!((scene.is_open(session), scene.sequencer.counters().appended_batches), (false, 1));
}

/// A session of level 5 goes on over any broker.
#[test]
fn sessions_that_outlive_connections_outlive_processes() {
    let mut scene = Scene::new(OrderLevel::Session);
    let session = scene.open().unwrap();
    scene.feeder = Feeder::new(&scene.view, 0);
    scene.call(false);
    scene.call(true);
    assert!(scene.is_open(session));
}

/// Thousands opened and abandoned shut nobody out for longer than it takes to tell them from those that are there.
#[test]
fn sessions_opened_and_abandoned_make_room_and_connected_ones_are_kept() {
    let mut scene = Scene::new(OrderLevel::Session);
    let kept = scene.open_all(64)[6];
    assert_eq!(scene.open(), None, "full of new ones");
    for _ in 0..6 {
        scene.pass_ns(SECOND_NS / 2);
        scene.alive(kept);
    }
    scene.pass_ns(2 * SECOND_NS);
    let now = scene.open_all(63);
    assert!(now.iter().all(|session| scene.is_open(*session)));
    assert!(scene.is_open(kept), "somebody has it");
    assert_eq!(scene.open(), None);
}

/// It knows nothing of who was there while it slept.
#[test]
fn a_sequencer_that_slept_ends_no_session() {
    let mut scene = Scene::new(OrderLevel::Session);
    scene.open_all(64);
    scene.now_ns += 1000 * SECOND_NS;
    assert_eq!(scene.open(), None);
    assert_eq!(scene.open_count(), 64);
}

/// A successor knows who opened what.
#[test]
fn what_opened_a_session_outlives_a_takeover() {
    let mut scene = Scene::new(OrderLevel::Total);
    let session = scene.open_all(2)[1];
    let opened_by = |scene: &Scene, session| {
        let table = scene.sequencer.core().table();
        table.session(table.slot_of(session).unwrap()).opened_by
    };
    assert_eq!(opened_by(&scene, session), Origin { lane: 0, slot: 2 });
    scene.sequencer = start(&scene.view, 0);
    assert_eq!(opened_by(&scene, session), Origin { lane: 0, slot: 2 });
    scene.feeder = Feeder::new(&scene.view, 0);
    scene.call(false);
    assert_eq!(scene.open_count(), 0);
}

/// Whoever has to go first, or is refused in between: an id says where its session's opening is.
#[test]
fn a_session_has_the_id_of_its_opening_though_another_makes_room_first() {
    let mut scene = Scene::new(OrderLevel::Session);
    let mut told = scene.open_all(64);
    assert_eq!(scene.open(), None, "full of new ones");
    scene.pass_ns(5 * SECOND_NS);
    told.extend(scene.open_all(10));
    assert_eq!(scene.opened(), told);
    assert_eq!((scene.open_count(), scene.sequencer.counters().invalid_slots), (64, 0));
}

/// Its connection ended before it heard of its session: that one is closed, and not the next to have its place.
#[test]
fn a_session_is_closed_by_the_slot_that_asked_for_it() {
    let mut scene = Scene::new(OrderLevel::Connection);
    let asked = scene.feeder.lane.produced();
    let session = scene.open().unwrap();
    scene.close_asked(asked);
    assert!(!scene.is_open(session));
    let next = scene.open().unwrap();
    scene.close_asked(asked);
    assert!(scene.is_open(next));
    scene.sequencer = start(&scene.view, 0);
    scene.close_asked(asked + 2);
    assert!(!scene.is_open(next), "a successor knows who asked, too");
}

/// Names for sessions are the sequencer's to give.
#[test]
fn a_lane_cannot_choose_an_id() {
    let mut scene = Scene::new(OrderLevel::Session);
    scene.put(BatchSlot { session: 99, ..open() });
    scene.put(BatchSlot { session_epoch: 2, ..open() });
    assert_eq!((scene.open_count(), scene.sequencer.counters().invalid_slots), (0, 2));
    scene.put(BatchSlot { session: 99, session_epoch: 2, ..open() });
    assert_eq!((scene.open_count(), scene.opened()), (0, vec![]), "refused");
}

/// An attached publisher that slept through the answer asks again; one whose request was not taken yet is not told that it was.
#[test]
fn an_answer_that_is_given_up_is_unheard() {
    let mut scene = Scene::new(OrderLevel::Session);
    let asked = scene.feeder.lane.next_origin();
    let mut sleeper = SessionFollower::new(&scene.view, asked);
    let mut early = SessionFollower::new(&scene.view, Origin { slot: asked.slot + 3, ..asked });
    let session = scene.open().expect("there is room");
    scene.put(batch(session, 0));
    // Its session goes with the topic, and so does everything that was said of it.
    scene.put(BatchSlot { kind: slot_kind::TOPIC_DELETE, ..BatchSlot::default() });
    scene.pass_ns(SECOND_NS);
    let counters = scene.sequencer.counters();
    assert_eq!(counters.floor, counters.watermark, "given up");
    for follower in [&mut sleeper, &mut early] {
        while follower.follow().expect("sound") > 0 {}
    }
    assert_eq!((sleeper.standing(), early.standing()), (Standing::Unheard, Standing::Asked));
}

/// A broker that had not read of a deletion asked for a session on what was deleted: the publisher is not told of a session it never had.
#[test]
fn a_new_session_on_a_topic_that_is_gone_is_refused_for_the_topic() {
    let mut scene = Scene::new(OrderLevel::Session);
    scene.put(BatchSlot { kind: slot_kind::TOPIC_DELETE, ..BatchSlot::default() });
    let mut publisher = SessionFollower::new(&scene.view, scene.feeder.lane.next_origin());
    assert_eq!(scene.open(), None);
    while publisher.follow().expect("sound") > 0 {}
    assert_eq!(publisher.standing(), Standing::Refused(Refusal::UnknownTopic as u8));
}

/// Found by simulation (seed 141662): a reader held the floor and the index was full, so that nothing was taken from the lanes, not even that somebody is
/// connected; when there was room again sessions made place for others as if they had been silent.
#[test]
fn nobody_is_silent_while_the_index_is_full() {
    let view = plain_view(1);
    let settings = SequencerSettings { session_expiry_ns: SECOND_NS, ..SETTINGS };
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    let mut sequencer = ActiveSequencer::take_over(&view, 0, commit, epoch, None, settings);
    let mut feeder = Feeder::new(&view, 0);
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    let mut pin = Pin::take(&view, 0, 1);
    pin.try_lower(0, &FloorReader::new(&view)).unwrap();
    let asked: Vec<u64> = (0..64)
        .map(|now| {
            feeder.lane.refresh(u64::MAX);
            let asked = feeder.lane.publish(&open());
            sequencer.pass(2 + now);
            asked
        })
        .collect();
    let session = session_of(&sequencer, 0, asked[0]).expect("there is room");
    let mut now_ns = 100;
    for seq in 0.. {
        now_ns += 1;
        feeder.put(batch(session, seq), 64);
        sequencer.pass(now_ns);
        if sequencer.counters().index_full > 0 {
            break;
        }
    }
    (0..200).for_each(|_| {
        now_ns += 100_000_000;
        sequencer.pass(now_ns);
    });
    pin.raise(NO_PIN);
    feeder.lane.refresh(u64::MAX);
    feeder.lane.publish(&open());
    (0..20).for_each(|_| {
        now_ns += 1;
        sequencer.pass(now_ns);
        feeder.lane.refresh(u64::MAX);
    });
    let is_there = |asked: &&u64| session_of(&sequencer, 0, **asked).is_some();
    assert_eq!(asked.iter().filter(is_there).count(), 64);
}
