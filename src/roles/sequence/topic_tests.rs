//! Topics that come and go, through lane, sequencer and index: their numbers are given to others, and nobody is given the other's.

use std::sync::{Arc, Mutex};

use super::active::ActiveSequencer;
use super::tests::{Feeder, session_of, start};
use crate::log::View;
use crate::log::checkpoint::{Recovered, recover};
use crate::log::commit::CommitReader;
use crate::log::entry::to_event;
use crate::log::mend::mend_candidate;
use crate::log::order_index::IndexReader;
use crate::log::reader::{Reader, Sought, TopicStart};
use crate::log::recover::RecoverError;
use crate::log::retention::FloorReader;
use crate::log::topics::{Topic, TopicReader, write_spec};
use crate::log::views::{host_views, plain_view};
use crate::order::Event;
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, IndexEntry, slot_kind};
use crate::testing::memory::{HostMemory, Whim};
use crate::testing::random::Random;
use crate::testing::watched::Watched;
use crate::wire::frame::{self, BatchHeader};
use crate::wire::{AckLevel, OrderLevel, StartAt};

/// A request to create a topic; its specification lies where nothing else of these tests does.
fn create(view: &View<impl Memory>, number: u64, name: &str) -> BatchSlot {
    let at = super::tests::aside(view, 0) + number * 192;
    write_spec(view, at, &Topic::new(name, OrderLevel::Session, AckLevel::Committed));
    BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: at, batch_bytes: 192, ..BatchSlot::default() }
}

fn delete(topic: u32, created_position: u64) -> BatchSlot {
    BatchSlot { kind: slot_kind::TOPIC_DELETE, topic, batch_seq: created_position, ..BatchSlot::default() }
}

fn open(topic: u32, created_position: u64) -> BatchSlot {
    let (kind, batch_seq) = (slot_kind::SESSION_OPEN, created_position);
    BatchSlot { kind, session_epoch: 1, topic, batch_seq, ..BatchSlot::default() }
}

fn batch(view: &View<impl Memory>, place: u64, session: u64, topic: u32, batch_seq: u64) -> BatchSlot {
    let header = BatchHeader {
        session,
        session_epoch: 1,
        topic,
        batch_seq,
        message_count: 1,
        body_bytes: 64,
        ..BatchHeader::default()
    };
    let at = super::tests::aside(view, 0) + (64 << 10) + place * 128;
    view.memory.copy_in(at, &frame::seal(&header));
    view.memory.write_back(at, 128, crate::pool::Keep::Cached);
    view.memory.store_fence();
    BatchSlot {
        kind: slot_kind::BATCH,
        session,
        session_epoch: 1,
        topic,
        batch_seq,
        message_count: 1,
        batch_bytes: 128,
        blog_at: at,
        ..BatchSlot::default()
    }
}

/// Where the topic of this name was created, and its number.
fn known(view: &View<impl Memory>, name: &str) -> Option<(u32, u64)> {
    TopicReader::new(view).find(name).map(|topic| (topic.id, topic.created_position))
}

/// Batches that a subscriber is given, and whether it is told that the topic is gone.
fn subscribe(view: &View<impl Memory>, topic: u32, created_position: u64, start: StartAt) -> (Vec<u64>, bool) {
    let commit = CommitReader::new(view).current().expect("active");
    let topics = TopicReader::new(view);
    let floor = FloorReader::new(view).read().expect("active").floor;
    let mut reader = Reader::new(view, [TopicStart { topic, created_position, start }], floor, false);
    loop {
        match reader.seek(&commit, &topics).expect("sound") {
            Sought::NotYet => {}
            Sought::Found => break,
            Sought::Deleted { .. } => return (Vec::new(), true),
            Sought::Trimmed { earliest, .. } => panic!("nothing was given up: {earliest}"),
        }
    }
    let mut given = Vec::new();
    while reader.deleted().is_none() && reader.fetch(&commit).expect("sound") > 0 {
        while let Some(delivery) = reader.next_delivery().expect("sound") {
            given.push(delivery.end_order);
        }
    }
    (given, reader.deleted().is_some())
}

/// A number is given to another topic: sessions and subscribers of the first end with it, whoever is the sequencer by then.
#[test]
fn a_topics_number_serves_another_and_nobody_is_given_the_others_messages() {
    // After which step a successor on the other host takes over.
    for takeover in 0..12 {
        let why = format!("takeover after step {takeover}");
        let (_, views) = host_views([0, 0], &[0, 1], Whim::HARSH, takeover);
        let (here, there) = (&views[0], &views[1]);
        let mut feeder = Feeder::new(here, 0);
        let mut sequencer = start(here, 0);
        let mut step = 0;
        let mut go = |feeder: &mut Feeder<HostMemory>, sequencer: &mut ActiveSequencer<HostMemory>, slot: BatchSlot| {
            feeder.lane.publish(&slot);
            sequencer.pass(step + 1);
            if step == takeover {
                *sequencer = start(there, 1);
            }
            step += 1;
        };
        go(&mut feeder, &mut sequencer, create(here, 0, "a"));
        go(&mut feeder, &mut sequencer, create(here, 1, "b"));
        let (a, b) = (known(here, "a").unwrap(), known(here, "b").unwrap());
        assert_eq!((a, b), ((0, 0), (1, 1)), "{why}");
        // At positions 2 and 3.
        go(&mut feeder, &mut sequencer, open(a.0, a.1));
        go(&mut feeder, &mut sequencer, open(b.0, b.1));
        go(&mut feeder, &mut sequencer, batch(here, 0, 3, a.0, 0));
        // Parked behind a gap when its topic goes.
        go(&mut feeder, &mut sequencer, batch(here, 1, 3, a.0, 2));
        go(&mut feeder, &mut sequencer, delete(a.0, a.1));
        assert_eq!((known(here, "a"), known(there, "b")), (None, Some(b)), "{why}");
        assert_eq!(subscribe(there, a.0, a.1, StartAt::Earliest), (vec![], true), "{why}: a stale subscription");
        assert!(sequencer.core().table().slot_of(3).is_none() && sequencer.core().table().slot_of(4).is_some());
        assert_eq!((sequencer.core().held(), sequencer.core().gapped()), (0, 0), "{why}");
        go(&mut feeder, &mut sequencer, create(here, 2, "c"));
        let c = known(there, "c").unwrap();
        assert_eq!(c.0, a.0, "{why}: its number is free");
        // Asked while "a" was there, and for "a": its batch, a session, its deletion once more.
        let unknown = sequencer.counters().unknown_batches;
        go(&mut feeder, &mut sequencer, batch(here, 2, 3, a.0, 1));
        go(&mut feeder, &mut sequencer, open(a.0, a.1));
        go(&mut feeder, &mut sequencer, delete(a.0, a.1));
        assert_eq!(sequencer.core().table().sessions_of(c.0).count(), 0, "{why}");
        assert!(sequencer.counters().unknown_batches == unknown + 1 || (8..11).contains(&takeover), "{why}");
        assert_eq!(known(there, "c"), Some(c), "{why}");
        go(&mut feeder, &mut sequencer, open(c.0, c.1));
        let session = session_of(&sequencer, 0, feeder.lane.produced() - 1).expect(&why);
        (0..3).for_each(|seq| go(&mut feeder, &mut sequencer, batch(here, 3 + seq, session, c.0, seq)));
        for view in [here, there] {
            assert_eq!(subscribe(view, c.0, c.1, StartAt::Earliest), (vec![1, 2, 3], false), "{why}");
            assert_eq!(subscribe(view, c.0, c.1, StartAt::Latest), (vec![], false), "{why}");
            assert_eq!(subscribe(view, a.0, a.1, StartAt::Latest), (vec![], true), "{why}");
            assert_eq!(TopicReader::new(view).stands(a.0, a.1), Some(false));
        }
    }
}

/// A subscriber that was there before is given everything up to the end, and then told.
#[test]
fn a_subscriber_hears_the_end_behind_the_last_message() {
    let view = plain_view(1);
    let mut feeder = Feeder::new(&view, 0);
    let mut sequencer = start(&view, 0);
    [create(&view, 0, "a"), open(0, 0)].iter().for_each(|slot| {
        feeder.lane.publish(slot);
        sequencer.pass(1);
    });
    let commit = CommitReader::new(&view);
    let topics = TopicReader::new(&view);
    let mut reader =
        Reader::new(&view, [TopicStart { topic: 0, created_position: 0, start: StartAt::Earliest }], 0, false);
    assert_eq!(reader.seek(&commit.current().unwrap(), &topics), Ok(Sought::Found));
    assert_eq!(reader.next_order(0), 0);
    (0..3).for_each(|seq| {
        feeder.lane.publish(&batch(&view, seq, 2, 0, seq));
    });
    [delete(0, 0), create(&view, 1, "a"), open(0, 6)].iter().for_each(|slot| {
        feeder.lane.publish(slot);
        sequencer.pass(2);
    });
    feeder.lane.publish(&batch(&view, 3, 8, 0, 0));
    sequencer.pass(3);
    let current = commit.current().unwrap();
    assert!(reader.fetch(&current).unwrap() > 4);
    let mut orders = Vec::new();
    while let Some(delivery) = reader.next_delivery().unwrap() {
        orders.push(delivery.end_order);
    }
    assert_eq!((orders, reader.deleted().is_some()), (vec![1, 2, 3], true));
    assert_eq!((reader.next_delivery().unwrap(), reader.deleted().is_some()), (None, true), "however often it asks");
    // The pass was void: it looks again, and finds the same.
    reader.unfetch();
    assert_eq!(reader.deleted(), None);
    reader.fetch(&current).unwrap();
    assert_eq!((reader.next_delivery().unwrap(), reader.deleted().is_some()), (None, true));
}

/// Ids and creations of all topics, as the committed entries have them.
fn fold(view: &View<impl Memory>, watermark: u64) -> Vec<(u32, u64)> {
    let commit = crate::log::commit::Commit { watermark, ..CommitReader::new(view).current().expect("active") };
    let (mut index, mut entries, mut topics) = (IndexReader::new(view, 0), [IndexEntry::default(); 16], Vec::new());
    while index.next() < watermark {
        let count = index.read(&commit, &mut entries).expect("sound");
        for (position, entry) in (index.next()..).zip(&entries[..count]) {
            match to_event(entry).expect("known") {
                Event::Topic { topic, .. } => topics.push((topic, position)),
                Event::TopicDeleted { topic, .. } => topics.retain(|(id, _)| *id != topic),
                _ => {}
            }
        }
        index.advance(count);
    }
    topics.sort_unstable();
    topics
}

fn topics_of(found: &Recovered) -> Vec<(u32, u64)> {
    let all = found.topics.iter().flatten();
    all.map(|(topic, _)| (topic.id, topic.created_position)).collect()
}

/// Killed before any operation of the passes in which a topic goes and its number and name are given again: the successor, on either
/// host, finds what was committed, and what was asked for happens once.
#[test]
fn killed_at_any_operation_topics_are_what_was_committed() {
    for successor in 0..2 {
        for operation in (0..).step_by(3) {
            let why = format!("killed before operation {operation}, candidate {successor} goes on");
            let (_, views) = host_views([0, 0], &[0, 1], Whim::NONE, 1);
            let watched = views[0].with_memory(Watched::new(views[0].memory.clone()));
            let (mut feeder, here) = (Feeder::new(&views[0], 0), &views[0]);
            let mut sequencer = start(&watched, 0);
            for slot in [create(here, 0, "a"), create(here, 1, "b"), open(0, 0), open(1, 1)] {
                feeder.lane.publish(&slot);
                sequencer.pass(1);
            }
            (0..3).for_each(|seq| {
                feeder.lane.publish(&batch(here, seq, 3, 0, seq));
            });
            [delete(0, 0), create(here, 2, "c"), create(here, 3, "a"), delete(1, 1)].iter().for_each(|slot| {
                feeder.lane.publish(slot);
            });
            let ended = watched.memory.killed_at(operation, || {
                (2..8).for_each(|now| {
                    sequencer.pass(now);
                });
            });
            let view = &views[successor];
            mend_candidate(view, successor as u32);
            let mut sequencer = start(view, successor as u32);
            (100..108).for_each(|now| {
                sequencer.pass(now);
            });
            let commit = CommitReader::new(view);
            let watermark = commit.current().unwrap().watermark;
            let found = recover(view, &commit).unwrap().unwrap();
            assert_eq!(topics_of(&found), fold(view, watermark), "{why}");
            let (a, c) = (known(&views[0], "a").expect(&why), known(&views[1], "c").expect(&why));
            assert_eq!((a.0, c.0, known(&views[0], "b")), (2, 0, None), "{why}");
            assert!(sequencer.core().table().sessions().iter().all(|session| session.id == 0), "{why}");
            assert_eq!(subscribe(&views[1], c.0, c.1, StartAt::Earliest), (vec![], false), "{why}");
            let asked = feeder.lane.publish(&open(c.0, c.1));
            sequencer.pass(199);
            let session = session_of(&sequencer, 0, asked).expect(&why);
            feeder.lane.publish(&batch(here, 9, session, c.0, 0));
            (200..204).for_each(|now| {
                sequencer.pass(now);
            });
            assert_eq!(subscribe(&views[1], c.0, c.1, StartAt::Earliest), (vec![1], false), "{why}");
            if ended.is_some() {
                assert!(operation > 200, "these passes have more operations than {operation}");
                break;
            }
        }
    }
}

/// What any other host ever recovers is the fold of the index up to there.
#[test]
fn topics_that_come_and_go_are_the_fold_at_any_moment() {
    for seed in 0..6 {
        let (_, views) = host_views([0, 0], &[0, 1], Whim::HARSH, seed);
        let (here, there) = (views[0].clone(), views[1].clone());
        let watched = here.with_memory(Watched::new(here.memory.clone()));
        let (looked, mut random) = (Arc::new(Mutex::new(0)), Random::new(seed));
        let count = looked.clone();
        watched.memory.on_each(move || {
            if !random.chance(1, 12) {
                return;
            }
            let found = recover(&there, &CommitReader::new(&there));
            assert!(
                !matches!(found, Err(RecoverError::Damaged(_) | RecoverError::Record { .. })),
                "seed {seed}: {:?}",
                found.err()
            );
            let Ok(Some(found)) = found else { return };
            assert_eq!(topics_of(&found), fold(&there, found.commit.watermark), "seed {seed}");
            let alive = |(id, _): &(u32, u64)| found.table.topic(*id).is_some();
            assert!(topics_of(&found).iter().all(alive));
            *count.lock().unwrap() += 1;
        });
        let mut sequencer = start(&watched, 0);
        let mut feeder = Feeder::new(&here, 0);
        let (mut random, mut next) = (Random::new(seed), 0);
        for now in 1..60 {
            let name = ["a", "b", "c"][random.below(3) as usize];
            match known(&here, name) {
                Some((topic, created)) if random.chance(1, 3) => feeder.lane.publish(&delete(topic, created)),
                Some((topic, created)) => {
                    next += 1;
                    let asked = feeder.lane.publish(&open(topic, created));
                    sequencer.pass(now);
                    let session = session_of(&sequencer, 0, asked).unwrap_or_default();
                    feeder.lane.publish(&batch(&here, next % 64, session, topic, 0))
                }
                None => feeder.lane.publish(&create(&here, now % 32, name)),
            };
            sequencer.pass(now);
            feeder.lane.refresh(u64::MAX);
        }
        watched.memory.stop();
        assert!(*looked.lock().unwrap() > 100, "seed {seed}: it looked {} times", looked.lock().unwrap());
        assert!(sequencer.counters().deleted_topics > 3, "seed {seed}");
    }
}

const BATCH_BYTES: u64 = 32 << 10;

/// A few passes, in which all that waits in a lane is taken.
fn pass(sequencer: &mut ActiveSequencer<HostMemory>, now: u64) {
    (0..3).for_each(|_| {
        sequencer.pass(now);
    });
}

/// Fills a topic until `bytes` of it were taken. Nothing waits: the lane would have to.
fn fill(
    feeder: &mut Feeder<HostMemory>,
    sequencer: &mut ActiveSequencer<HostMemory>,
    (topic, created): (u32, u64),
    bytes: u64,
    now: &mut u64,
) {
    let asked = feeder.lane.produced();
    assert!(feeder.put(open(topic, created), 64));
    pass(sequencer, *now);
    let session = session_of(sequencer, 0, asked).expect("it is open");
    for batch_seq in 0..bytes / BATCH_BYTES {
        let kind = slot_kind::BATCH;
        let slot =
            BatchSlot { kind, session, session_epoch: 1, topic, batch_seq, message_count: 1, ..BatchSlot::default() };
        assert!(feeder.put(slot, BATCH_BYTES), "batch {batch_seq} waits for memory");
        *now += 20_000_000;
        sequencer.pass(*now);
        sequencer.pass(*now);
    }
}

/// What is past its topic's target is given back before anybody is short of memory; another topic's data in between is not lost.
#[test]
fn memory_comes_back_by_retention_and_by_deletion_before_it_is_short() {
    let view = plain_view(1);
    let g = view.layout.geometry;
    // What else has been granted, or is ready to be.
    let fits = g.extent_bytes * u64::from(g.extents - 16);
    for deletes in [false, true] {
        let view = plain_view(1);
        let mut feeder = Feeder::new(&view, 0);
        let mut sequencer = start(&view, 0);
        let mut now = 1_000_000_000;
        let retention_bytes = if deletes { 0 } else { fits / 4 };
        let spec = create(&view, 0, "a");
        write_spec(
            &view,
            spec.blog_at,
            &Topic { retention_bytes, ..Topic::new("a", OrderLevel::Session, AckLevel::Committed) },
        );
        feeder.lane.publish(&spec);
        feeder.lane.publish(&create(&view, 1, "b"));
        pass(&mut sequencer, now);
        if deletes {
            fill(&mut feeder, &mut sequencer, (0, 0), fits / 2, &mut now);
            assert_eq!(sequencer.counters().floor, 0, "it has no target");
            feeder.lane.publish(&delete(0, 0));
            (0..30).for_each(|_| {
                now += 20_000_000;
                sequencer.pass(now);
            });
            assert!(sequencer.counters().floor > 2, "nobody wants it");
            // The other topic has all of the memory: in its lane nothing of the first is left.
            fill(&mut feeder, &mut sequencer, (1, 1), fits / 4 * 3, &mut now);
            assert_eq!(subscribe(&view, 1, 1, StartAt::Latest), (vec![], false));
            assert_eq!(TopicReader::new(&view).progress(1).unwrap().earliest_order, 0, "all of it is kept");
        } else {
            fill(&mut feeder, &mut sequencer, (0, 0), fits * 2, &mut now);
            let progress = TopicReader::new(&view).progress(0).unwrap();
            let kept = progress.bytes - progress.earliest_bytes;
            assert!((fits / 4..fits / 4 * 3).contains(&kept), "{kept} of {} kept", progress.bytes);
            assert!(progress.earliest_order > 0 && progress.next_order == fits * 2 / BATCH_BYTES);
            // One batch of a topic that has no target: the floor stands where it is.
            let floor = sequencer.counters().floor;
            fill(&mut feeder, &mut sequencer, (1, 1), BATCH_BYTES, &mut now);
            let place = sequencer.core().table().sessions_of(0).next().expect("it is open");
            let session = sequencer.core().table().session(place).id;
            for seq in 0..fits / 4 / BATCH_BYTES {
                let batch_seq = fits * 2 / BATCH_BYTES + seq;
                let slot = BatchSlot {
                    kind: slot_kind::BATCH,
                    session,
                    session_epoch: 1,
                    batch_seq,
                    message_count: 1,
                    ..BatchSlot::default()
                };
                assert!(feeder.put(slot, BATCH_BYTES));
                now += 20_000_000;
                sequencer.pass(now);
            }
            let held = sequencer.counters().floor;
            assert!(held >= floor);
            assert_eq!(TopicReader::new(&view).progress(1).unwrap().earliest_order, 0);
        }
        assert_eq!((sequencer.counters().let_go, feeder.lane.progress().consumed > 0), (0, true));
    }
}

/// By the sequencer's time, though nothing more comes in; a successor begins to count anew.
#[test]
fn what_is_too_old_goes_though_nothing_follows() {
    let view = plain_view(2);
    let mut feeder = Feeder::new(&view, 0);
    let mut sequencer = start(&view, 0);
    let spec = create(&view, 0, "a");
    let retention_ns = 1_000_000_000;
    write_spec(
        &view,
        spec.blog_at,
        &Topic { retention_ns, ..Topic::new("a", OrderLevel::Session, AckLevel::Committed) },
    );
    feeder.lane.publish(&spec);
    let second = 1_000_000_000;
    pass(&mut sequencer, second);
    let mut now = second;
    fill(&mut feeder, &mut sequencer, (0, 0), 10 * BATCH_BYTES, &mut now);
    let last = now;
    sequencer = start(&view, 1);
    // A clock of its own.
    let later = |sequencer: &mut ActiveSequencer<HostMemory>, from: u64, to: u64| {
        for ms in from..to {
            sequencer.pass(9 * last + ms * 1_000_000);
        }
        TopicReader::new(&view).progress(0).unwrap()
    };
    let progress = later(&mut sequencer, 0, 900);
    assert_eq!((progress.earliest_order, progress.next_order), (0, 10));
    let progress = later(&mut sequencer, 900, 1200);
    assert_eq!((progress.earliest_order, progress.earliest_bytes), (10, progress.bytes));
    assert_eq!(subscribe(&view, 0, 0, StartAt::Earliest), (vec![], false), "and whoever comes begins at the next");
}
