//! What the sequencer says of batches, as others read it from the pool: what became of them, by topic and by session, and how long they took.

use super::active::ActiveSequencer;
use super::tests::{FIRST, Feeder, batch, open, start, topic_spec, with_session};
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::log::views::plain_view;
use crate::observe::counters::{CounterBlock, Counters, SessionCounters, TopicCounters};
use crate::observe::histogram::Distribution;
use crate::observe::timeline::{TimelineReader, Times};
use crate::pool::Access;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::testing::memory::HostMemory;
use crate::wire::OrderLevel;

type Sequencer = ActiveSequencer<HostMemory>;

fn counted<C: Counters>(view: &View<HostMemory>, at: u64) -> C {
    C::from_words(&CounterBlock::new(view.memory.clone(), at).read(C::CATALOGUE))
}

/// Of the first topic.
fn of_topic(view: &View<HostMemory>) -> TopicCounters {
    counted(view, view.layout.topic_counts(0, 0))
}

/// Of the first session.
fn of_session(view: &View<HostMemory>) -> SessionCounters {
    counted(view, view.layout.session_counts(0, 0))
}

fn put_all(feeder: &mut Feeder<HostMemory>, batches: impl IntoIterator<Item = u64>) {
    batches.into_iter().for_each(|seq| assert!(feeder.put(batch(FIRST, seq), 192)));
}

/// Some passes, in which no lease ends, and a report.
fn pass_and_report(sequencer: &mut Sequencer, now_ns: &mut u64) {
    for _ in 0..4 {
        *now_ns += 10;
        sequencer.pass(*now_ns);
    }
    sequencer.report(0, *now_ns);
}

fn times(view: &View<HostMemory>) -> [Distribution; 2] {
    view.layout.sequencer_histograms(0).map(|at| Distribution::read(&view.memory, at))
}

#[test]
fn a_batch_is_timed_from_its_slot_to_its_place_and_from_there_to_its_commit() {
    let view = plain_view(2);
    let (mut sequencer, mut feeder) = with_session(&view);
    put_all(&mut feeder, [0]);
    sequencer.pass(2);
    sequencer.report(0, 3);
    assert_eq!(times(&view).map(|times| times.count()), [0, 0], "nobody measured");
    for seq in 1..4 {
        let slot = BatchSlot { received_at: 1000 * seq, landing_ns: 7, ..batch(FIRST, seq) };
        assert!(feeder.put(slot, 192));
    }
    let commit = CommitReader::new(&view);
    let watermark = || commit.current().unwrap().watermark;
    let first = watermark();
    let mut read = Vec::new();
    sequencer.pass_timed(4, &mut || {
        read.push(watermark());
        10_000 + 30 * read.len() as u64
    });
    assert_eq!(read, [first, first + 3], "read when they are ordered, and when they are committed");
    sequencer.report(0, 5);
    let [ordering, committing] = times(&view);
    assert_eq!((ordering.count(), ordering.sum(), ordering.max()), (3, 3 * 10_030 - 6000, 9030));
    assert_eq!((committing.count(), committing.sum(), committing.max()), (3, 90, 30));
    let timeline = TimelineReader::new(&view.memory, &view.layout);
    for (position, seq) in (first..).zip(1..4) {
        let ordering_ns = 10_030 - 1000 * seq as u32;
        let expected = Times { published_at: 1000 * seq, landing_ns: 7, ordering_ns, committing_ns: 30 };
        assert_eq!(timeline.read(0, Access::Local, position), Some(expected));
    }
    assert_eq!(timeline.read(0, Access::Local, first - 1), None, "of the one that nobody measured");
}

#[test]
fn every_batch_of_a_topic_and_of_a_session_is_one_thing() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut now_ns = 1;
    pass_and_report(&mut sequencer, &mut now_ns);
    put_all(&mut feeder, [0, 1, 1, 3, 4]);
    assert!(feeder.put(BatchSlot { session_epoch: 2, ..batch(FIRST, 2) }, 192));
    pass_and_report(&mut sequencer, &mut now_ns);
    let topic = TopicCounters {
        created: 1,
        received_batches: 6,
        ordered_batches: 2,
        ordered_messages: 4,
        ordered_bytes: 384,
        duplicate_batches: 1,
        refused_batches: 1,
        parked_batches: 2,
    };
    assert_eq!(of_topic(&view), topic);
    let session =
        SessionCounters { session: FIRST, not_counted: 0, duplicate_batches: 1, refused_batches: 1, parked_batches: 2 };
    assert_eq!(of_session(&view), session);
    // The gap is closed: a batch that comes in its turn costs nothing, and yet what was parked is no more.
    put_all(&mut feeder, [2]);
    pass_and_report(&mut sequencer, &mut now_ns);
    let topic = TopicCounters {
        received_batches: 7,
        ordered_batches: 5,
        ordered_messages: 10,
        ordered_bytes: 960,
        parked_batches: 0,
        ..topic
    };
    assert_eq!(of_topic(&view), topic);
    assert_eq!(of_session(&view), SessionCounters { parked_batches: 0, ..session });
    // Another, and it is not closed in time.
    put_all(&mut feeder, [6, 7]);
    for _ in 0..10 {
        now_ns += 1_000_000;
        sequencer.pass(now_ns);
    }
    assert_eq!(sequencer.counters().fences, 1);
    pass_and_report(&mut sequencer, &mut now_ns);
    assert_eq!(of_topic(&view), TopicCounters { received_batches: 9, refused_batches: 3, ..topic });
    assert_eq!(of_session(&view), SessionCounters { refused_batches: 3, parked_batches: 0, ..session });
}

#[test]
fn what_was_counted_of_others_with_a_number_is_not_taken_for_its_own() {
    let view = plain_view(1);
    // A former life of the candidate left this.
    let left = TopicCounters { created: 9, received_batches: 9, ..TopicCounters::default() };
    let beside = view.layout.topic_counts(0, 1);
    CounterBlock::new(view.memory.clone(), beside).write(&left);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut now_ns = 1;
    put_all(&mut feeder, [0, 2]);
    pass_and_report(&mut sequencer, &mut now_ns);
    assert_eq!((of_topic(&view).received_batches, of_topic(&view).parked_batches), (2, 1));
    assert_eq!(counted::<TopicCounters>(&view, beside), TopicCounters::default());
    // Its topic goes, and with it what is parked; another has its number.
    feeder.lane.publish(&BatchSlot { kind: slot_kind::TOPIC_DELETE, ..BatchSlot::default() });
    pass_and_report(&mut sequencer, &mut now_ns);
    assert_eq!(of_topic(&view), TopicCounters::default());
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    pass_and_report(&mut sequencer, &mut now_ns);
    let created = sequencer.counters().watermark;
    assert_eq!(of_topic(&view), TopicCounters { created, ..TopicCounters::default() });
}

/// A successor counts from where it began; of what was there before it is only known how far it had come.
#[test]
fn a_successor_counts_what_it_took_itself() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut now_ns = 1;
    put_all(&mut feeder, [0, 1, 2]);
    pass_and_report(&mut sequencer, &mut now_ns);
    drop(sequencer);
    let mut successor = start(&view, 0);
    put_all(&mut feeder, [3, 4]);
    feeder.lane.publish(&open());
    pass_and_report(&mut successor, &mut now_ns);
    let topic = of_topic(&view);
    assert_eq!((topic.created, topic.received_batches, topic.ordered_batches), (1, 2, 2));
    assert_eq!((of_session(&view).session, of_session(&view).not_counted), (FIRST, 3));
    assert_eq!(times(&view).map(|times| times.count()), [0, 0]);
}
