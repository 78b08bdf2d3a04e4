//! One cursor for several topics, and what it does not deliver.

use super::*;
use crate::log::Homes;
use crate::log::order_index::IndexWriter;
use crate::pool::Keep;
use crate::pool::record::{TopicProgress, entry_kind};
use crate::testing::memory::{SharedMemory, Whim, small_geometry};
use crate::wire::frame;

/// A pool whose sequencer is written by hand: batches of two messages of the given topics, in order, from position 0.
struct Bench {
    view: View<crate::testing::memory::HostMemory>,
    index: IndexWriter<crate::testing::memory::HostMemory>,
    next_orders: [u64; 4],
}

impl Bench {
    fn new() -> Bench {
        let view = crate::log::views::plain_view(1);
        let mut commit = crate::log::commit::CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        let index = IndexWriter::new(&view, 0, 1, 0);
        // The topics are there; where they stand no checkpoint says yet.
        let writer = crate::log::topics::TopicWriter::new(&view, 0);
        let nowhere = TopicProgress { position: u64::MAX, ..TopicProgress::default() };
        (0..4).for_each(|topic| writer.write(&crate::log::topics::tests::topic(topic, "t"), &nowhere));
        Bench { view, index, next_orders: [0; 4] }
    }

    /// A batch received at `10 * position`.
    fn append(&mut self, topic: u32) {
        let position = self.index.next();
        let at = self.view.layout.extent(0) + 128 * position;
        let header = BatchHeader {
            message_count: 2,
            body_bytes: 64,
            batch_seq: position,
            topic,
            received_at: 10 * position,
            ..BatchHeader::default()
        };
        self.view.memory.copy_in(at, bytemuck::bytes_of(&header));
        let first_order = self.next_orders[topic as usize];
        self.next_orders[topic as usize] += 2;
        self.index.append(IndexEntry {
            kind: entry_kind::BATCH,
            batch_seq: position,
            message_count: 2,
            batch_bytes: 128,
            first_order,
            place: IndexEntry::pack_place(at, topic),
            ..IndexEntry::default()
        });
        self.view.memory.store_fence();
    }

    fn commit(&self) -> Commit {
        Commit { epoch: 1, candidate: 0, watermark: self.index.next() }
    }

    /// As a checkpoint at the tail.
    fn write_progress(&self) {
        let writer = crate::log::topics::TopicWriter::new(&self.view, 0);
        for (topic, next) in (0..).zip(self.next_orders) {
            let progress = TopicProgress { next_order: next, position: self.index.next(), ..TopicProgress::default() };
            writer.write(&crate::log::topics::tests::topic(topic, "t"), &progress);
        }
        self.view.memory.store_fence();
    }

    fn reader(&self, topics: &[(u32, StartAt)], skips: bool) -> Reader<crate::testing::memory::HostMemory> {
        let start = |(topic, start): &(u32, StartAt)| TopicStart { topic: *topic, created_position: 0, start: *start };
        Reader::new(&self.view, topics.iter().map(start), 0, skips)
    }

    fn seek(&self, reader: &mut Reader<crate::testing::memory::HostMemory>) -> Sought {
        let topics = TopicReader::new(&self.view);
        (0..50).map(|_| reader.seek(&self.commit(), &topics).unwrap()).find(|sought| *sought != Sought::NotYet).unwrap()
    }

    /// Place, first order, and what was skipped, of everything to come.
    fn rest(&self, reader: &mut Reader<crate::testing::memory::HostMemory>) -> Vec<(usize, u64, Option<u64>)> {
        let mut all = Vec::new();
        while reader.fetch(&self.commit()).unwrap() > 0 {
            while let Some(delivery) = reader.next_delivery().unwrap() {
                all.push((delivery.place, delivery.first_order, delivery.skipped_from));
            }
        }
        all
    }
}

/// Every start of every topic, against what a reader of that topic alone gets.
#[test]
fn several_topics_are_delivered_as_each_alone_in_one_order() {
    let mut bench = Bench::new();
    // More than one pass; topic 3 has nothing.
    (0..300).for_each(|number| bench.append(number * 7 % 5 % 3));
    bench.write_progress();
    let starts = [
        StartAt::Earliest,
        StartAt::Latest,
        StartAt::Order(0),
        StartAt::Order(17),
        StartAt::Order(1000),
        StartAt::Timestamp(0),
        StartAt::Timestamp(1501),
        StartAt::Timestamp(u64::MAX),
    ];
    let alone = |topic: u32, start: StartAt| {
        let mut reader = bench.reader(&[(topic, start)], false);
        assert_eq!(bench.seek(&mut reader), Sought::Found);
        (reader.next_order(0), bench.rest(&mut reader))
    };
    let ends = bench.next_orders;
    assert_eq!(alone(0, StartAt::Latest), (ends[0], vec![]));
    assert_eq!(alone(0, StartAt::Timestamp(u64::MAX)), (ends[0], vec![]));
    assert_eq!(alone(3, StartAt::Earliest), (0, vec![]));
    assert_eq!(alone(1, StartAt::Order(17)).1[0], (0, 16, None), "the batch that holds it");
    let (first, _) = alone(1, StartAt::Timestamp(1501));
    let before = (0..=150).filter(|number| number * 7 % 5 % 3 == 1).count() as u64;
    assert_eq!(first, 2 * before, "the first batch at a position above 150");
    for first in starts {
        for second in starts {
            let mut reader = bench.reader(&[(2, first), (3, StartAt::Earliest), (1, second)], false);
            assert_eq!(bench.seek(&mut reader), Sought::Found);
            let all = bench.rest(&mut reader);
            for (place, topic, start) in [(0, 2, first), (2, 1, second)] {
                let (next, expected) = alone(topic, start);
                assert_eq!(reader.next_order(place), next);
                let own: Vec<_> = all.iter().filter(|batch| batch.0 == place).map(|batch| batch.1).collect();
                assert_eq!(own, expected.iter().map(|batch| batch.1).collect::<Vec<_>>(), "{first:?} {second:?}");
            }
        }
    }
}

#[test]
fn an_order_that_is_gone_is_named_or_skipped() {
    let mut bench = Bench::new();
    bench.next_orders = [100, 40, 0, 0];
    [1, 0, 0].into_iter().for_each(|topic| bench.append(topic));
    let topics = [(1, StartAt::Earliest), (0, StartAt::Order(7))];
    let mut reader = bench.reader(&topics, false);
    assert_eq!(bench.seek(&mut reader), Sought::Trimmed { place: 1, earliest: 100 });
    let mut reader = bench.reader(&topics, true);
    assert_eq!(bench.seek(&mut reader), Sought::Found);
    assert_eq!((reader.next_order(0), reader.next_order(1)), (40, 7));
    let expected = [(0, 40, None), (1, 100, Some(7)), (1, 102, None)];
    assert_eq!(bench.rest(&mut reader), expected);
    // It was read, and then taken back unsent.
    reader.skip_to(0, |place| [40, 7][place]);
    assert_eq!(bench.rest(&mut reader), expected);
}

/// Found by simulation (seed 51061): one topic was found at the tail while nothing told yet where the other one stands, and batches of the
/// first came meanwhile: they were taken for damage of the pool.
#[test]
fn what_comes_to_a_topic_that_was_found_is_read_again() {
    let mut bench = Bench::new();
    bench.append(1);
    let mut reader = bench.reader(&[(1, StartAt::Latest), (2, StartAt::Latest)], false);
    for _ in 0..3 {
        let found = reader.seek(&bench.commit(), &TopicReader::new(&bench.view));
        assert_eq!(found, Ok(Sought::NotYet), "nothing says where topic 2 stands");
        bench.append(1);
        bench.append(1);
    }
    bench.write_progress();
    assert_eq!(bench.seek(&mut reader), Sought::Found);
    let orders: Vec<u64> = bench.rest(&mut reader).iter().map(|batch| batch.1).collect();
    assert_eq!(orders, [2, 4, 6, 8, 10, 12]);
}

#[test]
fn what_is_skipped_is_told_with_the_next_batch_or_at_the_tail() {
    let mut bench = Bench::new();
    (0..40).for_each(|number| bench.append(number % 2));
    let mut reader = bench.reader(&[(0, StartAt::Earliest), (1, StartAt::Earliest)], false);
    assert_eq!(bench.seek(&mut reader), Sought::Found);
    assert_eq!(reader.lag_bytes(&bench.commit()), Ok(40 * 128));
    reader.fetch(&bench.commit()).unwrap();
    assert_eq!(reader.next_delivery().unwrap().unwrap().first_order, 0);
    assert_eq!(reader.lag_bytes(&bench.commit()), Ok(39 * 128));
    // Position 39 is the last, of topic 1: of topic 0 nothing comes any more.
    reader.skip_to(39, |place| [2, 0][place]);
    assert_eq!(reader.lag_bytes(&bench.commit()), Ok(128));
    assert_eq!(bench.rest(&mut reader), [(1, 38, Some(0))]);
    let topics = TopicReader::new(&bench.view);
    assert_eq!(reader.skipped_at_the_tail(0, &topics), TailSkip::NotKnownYet, "no checkpoint says where it stands");
    // A checkpoint ahead of what the reader has looked at.
    bench.append(2);
    bench.write_progress();
    assert_eq!(reader.skipped_at_the_tail(0, &topics), TailSkip::NotKnownYet);
    assert_eq!(bench.rest(&mut reader), []);
    assert_eq!(reader.skipped_at_the_tail(0, &topics), TailSkip::Skipped { from: 2, next: 40 });
    assert_eq!(reader.skipped_at_the_tail(0, &topics), TailSkip::Nothing);
    assert_eq!(reader.skipped_at_the_tail(1, &topics), TailSkip::Nothing);
    // Back to where it stood loses nothing.
    reader.skip_to(39, |place| [40, 38][place]);
    assert_eq!(bench.rest(&mut reader), [(1, 38, None)]);
}

/// What was skipped may hold the deletion of a topic.
#[test]
fn a_topic_that_was_deleted_in_what_was_skipped_is_found_out() {
    let mut bench = Bench::new();
    (0..3).for_each(|_| bench.append(0));
    let mut reader = bench.reader(&[(0, StartAt::Earliest)], true);
    assert_eq!(bench.seek(&mut reader), Sought::Found);
    let topics = TopicReader::new(&bench.view);
    reader.skip_to(1, |_| 0);
    assert_eq!(reader.look_for_topics(&topics), None, "it is there");
    reader.skip_to(2, |_| 2);
    crate::log::topics::TopicWriter::new(&bench.view, 0).clear(0);
    bench.view.memory.store_fence();
    assert_eq!(reader.look_for_topics(&topics), Some(Sought::Deleted { place: 0 }));
}

/// The reader's host has the batch's lines in its cache from before they were written; and what lies there must be what the
/// index names.
#[test]
fn another_batch_or_a_stale_one_is_not_delivered() {
    let layout = std::sync::Arc::new(crate::pool::Layout::new(small_geometry(1)).unwrap());
    let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, Whim::NONE, 1);
    let homes = |here| Homes { here, brokers: vec![0, 0], candidates: vec![0] };
    let view = |host: u32| View::new(pool.host(host as usize), layout.clone(), homes(host));
    let (here, there) = (view(0), view(1));
    let at = layout.extent(0);
    there.memory.with_bytes(at, 128, |bytes| assert_eq!(bytes, [0; 128]));
    let header = BatchHeader { message_count: 1, body_bytes: 64, batch_seq: 3, ..BatchHeader::default() };
    here.memory.copy_in(at, &frame::seal(&header));
    here.memory.copy_in(at + 64, &[7; 64]);
    here.memory.write_back(at, 128, Keep::Cached);
    let mut index = IndexWriter::new(&here, 0, 1, 0);
    let entry = IndexEntry {
        kind: entry_kind::BATCH,
        batch_seq: 3,
        message_count: 1,
        batch_bytes: 128,
        place: IndexEntry::pack_place(at, 0),
        ..IndexEntry::default()
    };
    index.append(entry);
    index.append(IndexEntry { batch_seq: 4, first_order: 1, ..entry });
    here.memory.store_fence();
    let mut reader =
        Reader::new(&there, [TopicStart { topic: 0, created_position: 0, start: StartAt::Order(0) }], 0, false);
    assert_eq!(reader.fetch(&Commit { epoch: 1, candidate: 0, watermark: 2 }), Ok(2));
    let first = reader.next_delivery().expect("dropped before it was read").expect("it is there");
    assert_eq!((first.at, first.bytes, first.end_order), (at, 128, 1));
    there.memory.with_bytes(at + 64, 64, |body| assert_eq!(body, [7; 64], "the kernel sends it from here"));
    assert_eq!(reader.next_delivery(), Err(ReadFault::OtherBatch { position: 1 }));
}

/// Whatever a search finds, and however often a step of it is taken back: it never goes below what it said that it needs.
#[test]
fn a_search_never_goes_below_what_it_needs() {
    let mut bench = Bench::new();
    (0..900).for_each(|number| bench.append(u32::from(number % 300 == 299)));
    bench.write_progress();
    let topics = TopicReader::new(&bench.view);
    for starts in
        [&[(0, StartAt::Earliest), (1, StartAt::Latest)][..], &[(1, StartAt::Latest)], &[(1, StartAt::Order(3))]]
    {
        for is_taken_back in [false, true] {
            let mut reader = bench.reader(starts, false);
            let mut needed = 0;
            let mut sees = |reader: &Reader<_>| {
                assert!(needed <= reader.needs(), "{starts:?}: it goes back below {needed}, to {}", reader.needs());
                needed = reader.needs();
                assert!(needed <= reader.position());
            };
            loop {
                let mut sought = reader.seek(&bench.commit(), &topics).unwrap();
                sees(&reader);
                if is_taken_back {
                    reader.restart();
                    sees(&reader);
                    sought = reader.seek(&bench.commit(), &topics).unwrap();
                    sees(&reader);
                }
                if sought == Sought::Found {
                    break;
                }
            }
            let first = bench.reader(starts, false).position_found(&bench);
            assert_eq!(reader.position(), first);
            while reader.fetch(&bench.commit()).unwrap() > 0 {
                while reader.next_delivery().unwrap().is_some() {
                    sees(&reader);
                }
            }
        }
    }
}

impl Reader<crate::testing::memory::HostMemory> {
    fn position_found(mut self, bench: &Bench) -> u64 {
        assert_eq!(bench.seek(&mut self), Sought::Found);
        self.position()
    }
}
