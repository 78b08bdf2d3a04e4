//! A writer and a reader on simulated memory of several hosts, with the real sequencer between them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::client::attached::reader::{Phase, PinnedReader, ReadError};
use crate::client::attached::subscribing::{Polled, Subscribing};
use crate::client::attached::writer::{Bounds, Times, Writer};
use crate::client::attached::{Clock, Life};
use crate::client::error::ClientError;
use crate::client::options::{Start, SubscriberOptions};
use crate::log::lane::LaneReader;
use crate::log::member::Member;
use crate::log::session::Standing;
use crate::log::topics::{Topic, TopicReader};
use crate::log::{Homes, View};
use crate::pool::Process;
use crate::pool::record::{BatchSlot, LaneStatus, slot_kind};
use crate::pool::{Geometry, Keep, Layout, Memory};
use crate::roles::locks::Locks;
use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::candidate::{Candidate, TakeoverSettings};
use crate::roles::sequence::tests::session_of;
use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};
use crate::testing::watched::Watched;
use crate::wire::{AckLevel, BatchDecoder, OrderLevel, Progress, StartAt};

const STALL_NS: u64 = 50_000_000;
const STEP_NS: u64 = 10_000_000;

/// Every process lives.
struct AllLive;

impl Locks for AllLive {
    fn while_member_free(&self, _member: u32, _act: &mut dyn FnMut()) {}
    fn is_candidate_held(&self, _: u32) -> bool {
        true
    }
    fn while_free(&self, _: u32, _: &mut dyn FnMut()) {}
    fn is_member_gone(&self, _: u32) -> bool {
        false
    }
}

/// The sequencer on host 0; one attached writer and reader on host 1, whose broker is broker 1.
struct Scene {
    views: [View<HostMemory>; 2],
    sequencer: Candidate<HostMemory>,
    now_ns: u64,
}

fn times() -> Times {
    Times { now: Instant::now(), utc_ns: 5 }
}

/// A place for a publisher and for subscribers at each of two hosts' brokers.
pub(super) fn of_two_hosts() -> Geometry {
    Geometry { hosts: 2, attached_per_broker: 1, pool_bytes: 8 << 20, ..small_geometry(1) }
}

impl Scene {
    fn new(whim: Whim, seed: u64) -> Scene {
        let layout = std::sync::Arc::new(Layout::new(of_two_hosts()).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, whim, seed);
        let homes = |here| Homes { here, brokers: vec![0, 1], candidates: vec![0] };
        let views = [0, 1].map(|host| View::new(pool.host(host as usize), layout.clone(), homes(host)));
        let settings = SequencerSettings {
            session_lease_ns: 1_000_000,
            session_expiry_ns: u64::MAX,
            retention_bytes: 0,
            retention_ns: 0,
            reader_stall_ns: STALL_NS,
            member_silence_ns: STALL_NS,
        };
        let takeover = TakeoverSettings { after_ns: 1, settle_ns: 0 };
        let sequencer = Candidate::new(&views[0], 0, settings, takeover);
        let mut scene = Scene { views, sequencer, now_ns: 1 };
        scene.steps(5);
        scene
    }

    fn steps(&mut self, count: u32) {
        for _ in 0..count {
            self.now_ns += STEP_NS;
            self.sequencer.step(self.now_ns, &AllLive);
        }
    }

    fn lane(&self) -> u32 {
        self.views[1].layout.geometry.attached_lane(1)
    }

    fn writer(&mut self) -> Writer<HostMemory> {
        let view = self.views[1].clone();
        self.writer_on(&view)
    }

    fn writer_on<M: Memory>(&mut self, view: &View<M>) -> Writer<M> {
        let bounds = Bounds {
            batch_bytes: 512,
            batch_bytes_max: 64 << 10,
            batch_messages: 100,
            window_batches: 100,
            keep: Keep::Cached,
        };
        let mut writer = Writer::take(view, self.lane(), bounds);
        let topic = Topic::new("t", OrderLevel::Session, AckLevel::Committed);
        // It has no memory yet: its lane is granted some once it is there.
        while !writer.ask_for_topic(&topic) {
            writer.report(true);
            self.steps(1);
        }
        self.steps(3);
        let topic = TopicReader::new(view).find("t").expect("it was made").clone();
        assert!(writer.ask_for_session(&topic, AckLevel::Committed));
        self.steps(3);
        for _ in 0..50 {
            writer.follow().unwrap();
        }
        assert_eq!(writer.standing(), Standing::Open);
        writer
    }

    fn reader(&mut self) -> PinnedReader<HostMemory> {
        self.reader_at(1)
    }

    /// On host 0 it sees nothing that was not written back; on host 1 it shares the writer's cache.
    fn reader_at(&mut self, host: u32) -> PinnedReader<HostMemory> {
        let view = &self.views[host as usize];
        let member = view.layout.geometry.reader_member(host * crate::limits::ATTACHED_READERS_PER_BROKER);
        let incarnation = Member::announce(view, member, Process::default()).incarnation();
        let topic = TopicReader::new(view).find("t").expect("it was made").clone();
        let mut reader = PinnedReader::new(view, member, incarnation, &topic, StartAt::Earliest, true);
        for _ in 0..50 {
            match reader.phase() {
                Phase::Unpinned => assert_eq!(reader.pin(), Ok(true)),
                Phase::Seeking => assert!(reader.seek().unwrap() < 1000),
                Phase::Streaming => return reader,
            }
            self.steps(1);
        }
        panic!("it never found its start");
    }
}

/// Reads what there is; gives how many messages.
fn read(reader: &mut PinnedReader<HostMemory>, next: &mut u64) -> Result<u64, ReadError> {
    let before = *next;
    reader.renew()?;
    while reader.take()? {
        reader.hand_on(&mut |batch| {
            for (order, message) in batch.messages() {
                assert_eq!(order, *next);
                assert_eq!(message.payload, payload(order.0));
                *next += 1;
            }
        });
    }
    Ok(*next - before)
}

fn payload(number: u64) -> Vec<u8> {
    // Now and then one that goes to the pool in several pieces.
    let bytes = if number % 500 == 77 { 20_000 } else { 50 } + number % 60;
    (0..bytes).map(|index| (number * 31 + index) as u8).collect()
}

/// Laps of ring and extents on memory that evicts, refills and delays as it likes: every message comes out whole and in order, and
/// what is not acked is never overwritten.
#[test]
fn what_is_published_here_is_read_on_incoherent_memory() {
    for seed in 0..8 {
        let mut scene = Scene::new(if seed % 2 == 0 { Whim::HARSH } else { Whim::LAZY }, seed);
        let mut writer = scene.writer();
        let mut readers = [0, 1].map(|host| (scene.reader_at(host), 0));
        let (mut sent, mut idle) = (0, 0);
        const MESSAGES: u64 = 12_000;
        while readers.iter().any(|(_, next)| *next < MESSAGES) {
            let before = (sent, readers[0].1, readers[1].1);
            while sent < MESSAGES && writer.push(&payload(sent), times) {
                sent += 1;
            }
            writer.seal(&times);
            writer.report(sent < MESSAGES);
            scene.steps(1);
            writer.follow().unwrap();
            for (reader, next) in &mut readers {
                read(reader, next).unwrap_or_else(|fault| panic!("seed {seed}, order {next}: {fault:?}"));
            }
            idle = if (sent, readers[0].1, readers[1].1) == before { idle + 1 } else { 0 };
            assert!(idle < 2000, "seed {seed}: nothing moves at {sent} sent");
        }
        assert_eq!(scene.sequencer.active().unwrap().counters().invalid_slots, 0);
        assert!(writer.counters().ring_full > 0, "the ring was never full");
    }
}

/// Looked at from another host before each of the writer's operations: who sees a slot sees every byte of its batch.
#[test]
fn a_slot_is_never_seen_before_its_batch() {
    for seed in 0..60 {
        let mut scene = Scene::new(Whim::HARSH, seed);
        let watched = Watched::new(scene.views[1].memory.clone());
        let view = scene.views[1].with_memory(watched.clone());
        let mut writer = scene.writer_on(&view);
        let (there, lane) = (scene.views[0].clone(), scene.lane());
        let mut slots = LaneReader::new(&there, lane, 2);
        watched.on_each(move || {
            slots.prefetch();
            there.memory.full_fence();
            while let Some(slot) = slots.peek() {
                slots.consume();
                there.memory.discard(slot.blog_at, slot.batch_bytes.into());
                let check = |bytes: &[u8]| BatchDecoder::new(1 << 20).advance(bytes);
                let whole = there.memory.with_bytes(slot.blog_at, slot.batch_bytes.into(), check);
                assert!(matches!(whole, Ok(Progress::Complete(_))), "seed {seed}: {whole:?}");
            }
        });
        for number in 0..12 {
            assert!(writer.push(&payload(number), times));
            writer.seal(&times);
        }
        watched.stop();
    }
}

/// The sequencer dropped its pin: it is told before it looks at anything again, and goes on once it has pinned anew.
#[test]
fn a_reader_that_was_not_waited_for_is_told_first() {
    let mut scene = Scene::new(Whim::LAZY, 3);
    let mut writer = scene.writer();
    let mut reader = scene.reader();
    let (mut sent, mut next) = (0, 0);
    writer.push(&payload(sent), times);
    sent += 1;
    writer.seal(&times);
    scene.steps(2);
    assert_eq!(read(&mut reader, &mut next), Ok(1));
    let mut idle = 0;
    // Held back by the pin until the reader has been silent for too long.
    while sent < 20_000 {
        let taken = writer.push(&payload(sent), times);
        sent += u64::from(taken);
        idle = if taken { 0 } else { idle + 1 };
        if !taken {
            writer.report(true);
            writer.beat();
            scene.steps(1);
            writer.follow().unwrap();
        }
        assert!(idle < 200, "the publisher is held back for ever, at {sent}");
    }
    assert_eq!(scene.sequencer.active().unwrap().counters().dropped_pins, 1);
    assert_eq!(read(&mut reader, &mut next), Err(ReadError::Dropped));
    assert_eq!((reader.phase(), next), (Phase::Unpinned, 1));
    assert_eq!(reader.pin(), Ok(true));
    let sought = (0..400).find_map(|_| reader.seek().err());
    assert!(matches!(sought, Some(ReadError::Trimmed(earliest)) if earliest > 1), "{sought:?}");
}

/// A clock that is set by hand.
#[derive(Clone)]
struct SetClock(Rc<Cell<Instant>>);

impl Clock for SetClock {
    fn times(&self) -> Times {
        Times { now: self.0.get(), utc_ns: 5 }
    }
}

/// A subscriber that was held up looks whether it was waited for before it hands anything on, though all may still be there.
#[test]
fn nothing_is_handed_on_that_was_not_waited_for() {
    let mut scene = Scene::new(Whim::LAZY, 3);
    let mut writer = scene.writer();
    let clock = SetClock(Rc::new(Cell::new(Instant::now())));
    let view = scene.views[1].clone();
    let member = view.layout.geometry.reader_member(crate::limits::ATTACHED_READERS_PER_BROKER);
    let life = Life::begin(&view, member, None, Process::default(), clock.times().now).unwrap();
    let options = SubscriberOptions { topic: "t".into(), start: Start::Earliest, ..SubscriberOptions::default() };
    let mut subscriber = Subscribing::begin(&view, member, life, options, clock.clone());
    for _ in 0..50 {
        assert!(!matches!(subscriber.poll(1, &mut |_| panic!("nothing was sent")), Err(_) | Ok(Polled::Handed(_))));
        scene.steps(1);
    }
    assert!(subscriber.is_streaming());
    let mut sent = 0;
    while scene.sequencer.active().unwrap().counters().dropped_pins == 0 {
        if writer.push(&payload(sent % 70), times) {
            sent += 1;
            continue;
        }
        writer.report(true);
        writer.beat();
        scene.steps(1);
        writer.follow().unwrap();
        assert!(sent < 100_000, "its pin is held against everybody");
    }
    // What lies there is given up; nobody writes there yet.
    scene.steps(5);
    clock.0.set(clock.0.get() + std::time::Duration::from_secs(1));
    let polled = subscriber.poll(1, &mut |batch| panic!("{} messages are handed on", batch.messages().count()));
    assert!(matches!(polled, Err(ClientError::TooSlow { .. })), "{polled:?}");
}

/// As long as it shows itself it is waited for, however slow it is.
#[test]
fn a_slow_reader_that_shows_itself_is_waited_for() {
    let mut scene = Scene::new(Whim::LAZY, 4);
    let mut writer = scene.writer();
    let mut reader = scene.reader();
    let mut sent = 0;
    for _ in 0..300 {
        while writer.push(&payload(sent), times) {
            sent += 1;
        }
        writer.report(true);
        writer.beat();
        scene.steps(1);
        writer.follow().unwrap();
        assert_eq!(reader.renew(), Ok(true));
    }
    assert!(!writer.push(&payload(sent), times), "it waits for the reader");
    assert_eq!(scene.sequencer.active().unwrap().counters().dropped_pins, 0);
    let mut next = 0;
    assert!(read(&mut reader, &mut next).unwrap() > 0, "nothing was overwritten");
}

/// The lease runs out on a gap that nobody but a fault could make: the session is opened again, and what was published under the
/// epoch that was over is published again, once and in order.
#[test]
fn a_fenced_session_goes_on_behind_its_frontier() {
    for seed in 0..10 {
        let mut scene = Scene::new(if seed % 2 == 0 { Whim::HARSH } else { Whim::LAZY }, seed);
        let mut writer = scene.writer();
        let mut reader = scene.reader_at(0);
        let publish = |writer: &mut Writer<HostMemory>, numbers: std::ops::Range<u64>| {
            numbers.for_each(|number| assert!(writer.push(&payload(number), times)));
            writer.seal(&times);
        };
        publish(&mut writer, 0..3);
        writer.forge_a_gap();
        scene.steps(30);
        assert_eq!(scene.sequencer.active().unwrap().counters().fences, 1);
        // It has not heard of the fence.
        publish(&mut writer, 3..6);
        publish(&mut writer, 6..9);
        scene.steps(2);
        for _ in 0..30 {
            writer.follow().unwrap();
            scene.steps(1);
        }
        publish(&mut writer, 9..12);
        scene.steps(2);
        writer.follow().unwrap();
        assert_eq!(writer.rarities(), (2, 0, 1), "resent, let go, fenced");
        assert_eq!((writer.in_flight(), writer.totals().1), (0, 12));
        let mut next = 0;
        assert_eq!(read(&mut reader, &mut next), Ok(12));
    }
}

/// What a lane's writer names is not trusted: another lane's bytes, another lane's session, a length past its extents.
#[test]
fn an_attached_lane_names_only_what_is_its_own() {
    let mut scene = Scene::new(Whim::NONE, 6);
    let lane = scene.lane();
    // Its topic stays, its session ends with it.
    drop(scene.writer());
    let layout = scene.views[1].layout.clone();
    let mut forger = crate::log::lane::LaneWriter::take(&scene.views[1], lane);
    forger.report(0, 0, false);
    scene.steps(3);
    let granted = scene.sequencer.active().unwrap().stock().extents();
    let own = layout.extent((0..layout.geometry.extents).find(|extent| granted.is_of(*extent, lane)).unwrap());
    let created = TopicReader::new(&scene.views[1]).find("t").expect("it was made").created_position;
    let (kind, batch_seq) = (slot_kind::SESSION_OPEN, created);
    let open = BatchSlot { kind, session_epoch: 1, batch_seq, ..BatchSlot::default() };
    let asked = forger.publish(&open);
    scene.steps(1);
    let session = session_of(scene.sequencer.active().unwrap(), lane as u16, asked).unwrap();
    let sound = BatchSlot {
        kind: slot_kind::BATCH,
        session,
        session_epoch: 1,
        message_count: 1,
        blog_at: own,
        batch_bytes: 128,
        ..BatchSlot::default()
    };
    let mut broker = crate::log::lane::LaneWriter::take(&scene.views[0], 0);
    let asked = broker.publish(&open);
    scene.steps(1);
    let foreign = session_of(scene.sequencer.active().unwrap(), 0, asked).unwrap();
    let forged = [
        BatchSlot { blog_at: layout.extent(0), ..sound },
        BatchSlot { blog_at: own + layout.geometry.extent_bytes - 64, ..sound },
        BatchSlot { session: foreign, ..sound },
        BatchSlot { kind: slot_kind::SESSION_CLOSE, session: foreign, ..sound },
        BatchSlot { kind: slot_kind::SESSION_OPEN, session: foreign, session_epoch: 2, ..sound },
        BatchSlot { kind: slot_kind::SESSION_OPEN, session: foreign + 99, ..sound },
    ];
    for (refused, slot) in (1..).zip(forged) {
        forger.publish(&slot);
        scene.steps(1);
        let counters = scene.sequencer.active().unwrap().counters();
        assert_eq!((counters.invalid_slots, counters.appended_batches), (refused, 0), "{slot:?}");
    }
    forger.publish(&sound);
    scene.steps(1);
    assert_eq!(scene.sequencer.active().unwrap().counters().appended_batches, 1);
}

/// A publisher that stands still with a message in hand, and shows no life: nobody's gap waits for it.
#[test]
fn a_paused_attached_lane_without_a_beat_stops_no_clock() {
    let mut scene = Scene::new(Whim::NONE, 7);
    let lane = scene.lane();
    let view = scene.views[1].clone();
    let mut paused = crate::log::lane::LaneWriter::take(&view, lane);
    paused.report(0, 0, true);
    let is_waited_for = |scene: &Scene| scene.sequencer.active().unwrap().is_waited_for(lane);
    for _ in 0..20 {
        paused.beat();
        scene.steps(1);
        assert!(is_waited_for(&scene), "it shows itself");
    }
    scene.steps((STALL_NS / STEP_NS) as u32 + 3);
    assert!(!is_waited_for(&scene), "silent for too long");
    paused.beat();
    scene.steps(1);
    assert!(is_waited_for(&scene), "it is back");
    let status: LaneStatus = LaneReader::new(&view, lane, 0).status().unwrap();
    assert_eq!(status.paused, 1);
}

/// A successor of a killed publisher goes on where its published slots end, and touches none of their bytes.
#[test]
fn a_successor_keeps_what_was_published() {
    let mut scene = Scene::new(Whim::HARSH, 8);
    let mut writer = scene.writer();
    (0..40).for_each(|number| assert!(writer.push(&payload(number), times)));
    writer.seal(&times);
    let published = writer.totals().0;
    writer.push(&[7; 100], times);
    drop(writer);
    let bounds = Bounds {
        batch_bytes: 512,
        batch_bytes_max: 64 << 10,
        batch_messages: 9,
        window_batches: 8,
        keep: Keep::Cached,
    };
    let next_owner: Writer<HostMemory> = Writer::take(&scene.views[1], scene.lane(), bounds);
    scene.steps(5);
    let mut reader = scene.reader();
    let mut next = 0;
    assert_eq!(read(&mut reader, &mut next), Ok(published));
    assert_eq!(next_owner.session(), 0);
}

/// Whatever else is asked of the sequencer while it does not look: a batch that was begun has its slot.
#[test]
fn control_slots_never_take_the_open_batchs_slot() {
    let mut scene = Scene::new(Whim::NONE, 1);
    let mut writer = scene.writer();
    assert!(writer.push(&payload(0), times));
    let asked = (0..1 << 20).take_while(|_| writer.ask_to_close()).count();
    assert!(asked > 0, "there was room");
    writer.seal(&times);
    assert_eq!(writer.in_flight(), 1);
}

/// Who leaves in good order gives back all that it had: what it had in hand, and what it had begun.
#[test]
fn a_publisher_that_leaves_has_no_memory() {
    let mut scene = Scene::new(Whim::NONE, 9);
    let lane = scene.lane();
    let mut writer = scene.writer();
    (0..40).for_each(|number| assert!(writer.push(&payload(number), times)));
    scene.steps(2);
    let has = |scene: &Scene| {
        let extents = scene.sequencer.active().unwrap().stock().extents();
        (0..extents.all().len() as u32).filter(|extent| extents.is_of(*extent, lane)).count()
    };
    assert!(has(&scene) > 0);
    writer.retire();
    scene.steps(20);
    assert_eq!(has(&scene), 0);
}
