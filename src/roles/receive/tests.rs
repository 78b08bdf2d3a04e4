//! Landed bytes to published slots, without a network: the bytes are put where a receive would land them.

use bytemuck::{Zeroable, bytes_of};

use super::desk::{Asked, Desk, Maker};
use super::hello;
use super::ingest::{Ingest, Next, StreamError};
use super::requests;
use super::stream::{Stream, Terms};
use crate::log::View;
use crate::log::commit::CommitWriter;
use crate::log::cursors::CursorReader;
use crate::log::entry::session_id;
use crate::log::lane::LaneReader;

use crate::log::topics::{Topic, TopicReader};
use crate::log::views::{plain_view, view_of};
use crate::pool::record::BatchSlot;
use crate::pool::{Geometry, Keep, Layout, Memory};
use crate::roles::addresses::{Address, AddressBounds, Addresses};
use crate::roles::tokens::Tokens;
use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};
use crate::testing::random::Random;
use crate::wire::frame::{self, BatchHeader, Request, TopicRecord};
use crate::wire::message::{Messages, push};
use crate::wire::{AckLevel, BatchDecoder, Operation, OrderLevel, Receipts, Refusal, WireError};

const NOW: u64 = 1_700_000_000_000_000_000;

fn stream(receipts: Receipts) -> Stream {
    let terms =
        Terms { session: 9, asked_slot: 0, session_epoch: 1, topic: 2, receipts, next_seq: None, counts_landed: false };
    Stream::new(terms, small_geometry(1).batch_bytes_max())
}

fn batch(batch_seq: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    payloads.iter().for_each(|payload| push(&mut body, payload));
    let header = BatchHeader {
        message_count: payloads.len() as u32,
        session: 9,
        session_epoch: 1,
        topic: 2,
        batch_seq,
        body_bytes: body.len() as u32,
        body_crc: crate::wire::crc32c(&body),
        ..BatchHeader::default()
    };
    let mut bytes = frame::seal(&header).to_vec();
    bytes.extend(body);
    bytes.resize(header.frame_bytes() as usize, 0xee);
    bytes
}

/// Takes in what is pending; what is not taken in stays there.
fn take_in<M: Memory>(ingest: &mut Ingest<M>, stream: &mut Stream, pending: &mut Vec<u8>) -> Result<Next, StreamError> {
    let (taken, next) = ingest.take_in(stream, pending, u64::MAX, NOW, &mut || NOW)?;
    pending.drain(..taken);
    Ok(next)
}

/// Takes `bytes` in as receives of at most `most` bytes would land them.
fn land<M: Memory>(
    ingest: &mut Ingest<M>,
    stream: &mut Stream,
    bytes: &[u8],
    most: impl Fn() -> usize,
) -> Result<Next, StreamError> {
    let (mut next, mut pending, mut bytes) = (Next::Receive, Vec::new(), bytes);
    while !bytes.is_empty() && next == Next::Receive {
        let (now, later) = bytes.split_at(most().clamp(1, bytes.len()));
        pending.extend_from_slice(now);
        bytes = later;
        next = take_in(ingest, stream, &mut pending)?;
    }
    Ok(next)
}

/// What the lane's slots name, read on another host: the payloads.
fn published(view: &View<HostMemory>, lane: &mut LaneReader<HostMemory>) -> Vec<(BatchSlot, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    loop {
        lane.prefetch();
        view.memory.full_fence();
        let Some(slot) = lane.peek() else { return all };
        lane.consume();
        view.memory.discard(slot.blog_at, slot.batch_bytes.into());
        let payloads = view.memory.with_bytes(slot.blog_at, slot.batch_bytes.into(), |bytes| {
            let header: BatchHeader = bytemuck::pod_read_unaligned(&bytes[..64]);
            assert_eq!(header.received_at, NOW, "a reader of the slot sees the receipt");
            let mut decoder = BatchDecoder::new(u64::MAX);
            assert!(matches!(decoder.advance(bytes), Ok(crate::wire::Progress::Complete(_))), "sound on another host");
            let messages = Messages::new(&bytes[64..64 + header.body_bytes as usize]);
            messages.map(|message| message.payload.to_vec()).collect()
        });
        all.push((slot, payloads));
    }
}

/// Promise 7 on memory that is not coherent: whoever sees a slot sees every byte of its batch, receipts included, however
/// the stream was cut, moved between runs and extents.
#[test]
fn a_stream_cut_anywhere_is_published_whole() {
    for seed in 0..60 {
        let layout = std::sync::Arc::new(Layout::new(small_geometry(1)).unwrap());
        let whim = if seed % 2 == 0 { Whim::HARSH } else { Whim::NONE };
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, whim, seed);
        let homes = |here| crate::log::Homes { here, brokers: vec![0, 0], candidates: vec![1] };
        let writer = View::new(pool.host(0), layout.clone(), homes(0));
        let reader = View::new(pool.host(1), layout.clone(), homes(1));
        let mut ingest = Ingest::take(&writer, 0, Keep::Dropped);
        let mut lane = LaneReader::new(&reader, 0, 0);
        let random = std::cell::RefCell::new(Random::new(seed));
        let mut stream = stream(if seed % 3 == 0 { Receipts::Message } else { Receipts::Batch });
        let mut sent = Vec::new();
        let mut bytes = Vec::new();
        for seq in 0..40 {
            let mut random = random.borrow_mut();
            let payloads: Vec<Vec<u8>> = (0..1 + random.below(6))
                .map(|_| (0..random.below(900)).map(|_| random.word() as u8).collect())
                .collect();
            bytes.extend(batch(seq, &payloads));
            sent.push(payloads);
        }
        let most = || random.borrow_mut().below(if seed % 4 == 0 { 200 } else { 20_000 }) as usize;
        assert_eq!(land(&mut ingest, &mut stream, &bytes, most), Ok(Next::Receive));
        let got = published(&reader, &mut lane);
        assert_eq!(got.len(), 40, "seed {seed}");
        for (seq, ((slot, payloads), sent)) in got.iter().zip(&sent).enumerate() {
            assert_eq!((slot.batch_seq, payloads), (seq as u64, sent), "seed {seed}");
        }
    }
}

#[test]
fn receipts_per_message_are_stamped_before_anyone_sees_them() {
    let view = plain_view(1);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut stream = stream(Receipts::Message);
    land(&mut ingest, &mut stream, &batch(0, &[vec![1; 5], vec![], vec![2; 100]]), || 1000).unwrap();
    let slot = LaneReader::new(&view, 0, 0).peek().unwrap();
    view.memory.with_bytes(slot.blog_at, slot.batch_bytes.into(), |bytes| {
        let header: BatchHeader = bytemuck::pod_read_unaligned(&bytes[..64]);
        let messages: Vec<_> = Messages::new(&bytes[64..64 + header.body_bytes as usize]).collect();
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| message.header.received == 1 && message.header.ts == NOW));
        assert_eq!(messages[2].payload, [2; 100]);
    });
}

#[test]
fn what_a_batch_names_must_be_the_connections() {
    let refused = |change: fn(&mut BatchHeader)| {
        let view = plain_view(1);
        let mut ingest = Ingest::take(&view, 0, Keep::Cached);
        let whole = batch(0, &[vec![1; 5]]);
        let mut header: BatchHeader = bytemuck::pod_read_unaligned(&whole[..64]);
        change(&mut header);
        let mut bytes = frame::seal(&header).to_vec();
        bytes.extend(&whole[64..]);
        let mut stream = stream(Receipts::Batch);
        stream.terms.next_seq = Some(0);
        let error = land(&mut ingest, &mut stream, &bytes, || 4096).unwrap_err();
        assert_eq!(ingest.lane.produced(), 0, "nothing of it is published");
        error
    };
    let why = |error| match error {
        StreamError::Refused(refusal, ..) => refusal,
        StreamError::Wire(error) => panic!("{error}"),
    };
    assert_eq!(why(refused(|header| header.session = 8)), Refusal::UnknownSession);
    assert_eq!(why(refused(|header| header.topic = 3)), Refusal::UnknownTopic);
    assert_eq!(why(refused(|header| header.session_epoch = 2)), Refusal::SessionEpoch);
    assert_eq!(why(refused(|header| header.batch_seq = 1)), Refusal::Protocol);
    assert!(matches!(refused(|header| header.body_crc ^= 1), StreamError::Wire(WireError::BodyCrc { .. })));
}

#[test]
fn a_full_ring_holds_the_stream_back_and_loses_nothing() {
    let view = plain_view(1);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut stream = stream(Receipts::Batch);
    let bytes: Vec<u8> = (0..100).flat_map(|seq| batch(seq, &[vec![seq as u8; 10]])).collect();
    let mut pending = bytes;
    assert_eq!(take_in(&mut ingest, &mut stream, &mut pending), Ok(Next::Room));
    assert_eq!((ingest.lane.produced(), ingest.counters.ring_full), (64, 1));
    // A sequencer that has consumed them makes room.
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    sequencer.pass(1);
    while take_in(&mut ingest, &mut stream, &mut pending) == Ok(Next::Room) {
        sequencer.pass(2);
    }
    assert!(pending.is_empty());
    assert_eq!(ingest.lane.produced(), 100);
}

/// Found by simulation: the sequencer says that everything is reusable, then the last runs are given back and their extents close.
/// Nothing more is heard, because nothing more can come in.
#[test]
fn extents_that_close_after_the_last_word_come_back() {
    let view = view_of(Geometry { pool_bytes: 4 << 20, ..small_geometry(1) });
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut streams: Vec<Stream> = Vec::new();
    let one = batch(0, &[vec![1; 100]]);
    let mut now = 0;
    let mut wait = |ingest: &mut Ingest<HostMemory>| {
        for _ in 0..20 {
            now += 1_000_000;
            ingest.report(true);
            sequencer.pass(now);
            ingest.refresh();
        }
        ingest.lane.free_extents()
    };
    loop {
        let mut next = stream(Receipts::Batch);
        // A whole one, or its first half.
        let bytes = if streams.len() < 16 { &one[..] } else { &one[..128] };
        let mut land = |ingest: &mut Ingest<HostMemory>| land(ingest, &mut next, bytes, || 1 << 20);
        if land(&mut ingest) == Ok(Next::Room) && (wait(&mut ingest) == 0 || land(&mut ingest) == Ok(Next::Room)) {
            break;
        }
        streams.push(next);
    }
    assert_eq!(wait(&mut ingest), 0, "every extent has a run in use");
    assert_eq!(ingest.lane.progress().reusable, ingest.lane.produced());
    streams.iter_mut().for_each(|stream| assert!(ingest.release_run(stream)));
    assert!(wait(&mut ingest) > 0);
}

/// Found by simulation (seed 9865): a broker that died again and again before anything was ordered had used every extent for requests, and
/// nobody was told that the next one waits for memory: its topics were never made.
#[test]
fn a_request_that_finds_no_memory_is_waited_with() {
    let view = plain_view(1);
    let topic = Topic::new("t", OrderLevel::Session, AckLevel::Committed);
    let mut lives = 0;
    let mut ingest = loop {
        let mut ingest = Ingest::take(&view, 0, Keep::Cached);
        if ingest.lane.ask_for_topic(&topic).is_none() {
            break ingest;
        }
        lives += 1;
    };
    assert_eq!(lives, crate::limits::EXTENTS_FOUNDING, "each had opened an extent");
    assert!(ingest.lane.is_denied());
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    for now in 1..50 {
        ingest.report(ingest.lane.is_denied());
        sequencer.pass(now);
        ingest.refresh();
    }
    assert!(!ingest.lane.is_denied());
    assert!(ingest.lane.ask_for_topic(&Topic::new("u", OrderLevel::Session, AckLevel::Committed)).is_some());
}

/// Found by simulation (seed 5100): streams that had filled their runs each kept an extent, and no extent was left for any. Who waits for
/// memory keeps none, so that what it had comes back.
#[test]
fn streams_that_fill_every_extent_give_them_back() {
    let geometry = Geometry { pool_bytes: 4 << 20, ..small_geometry(1) };
    let (extent_bytes, view) = (geometry.extent_bytes, view_of(geometry));
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let large: Vec<u8> = (0..40_000).map(|n| n as u8).collect();
    let whole = |batch_seq| batch(batch_seq, std::slice::from_ref(&large));
    let mut streams = Vec::new();
    // One run to an extent, each full; the first half of the next batch has come.
    while ingest.lane.free_extents() > 0 {
        let mut stream = Stream { run_bytes: extent_bytes, ..stream(Receipts::Batch) };
        for batch_seq in 0..6 {
            assert_eq!(land(&mut ingest, &mut stream, &whole(batch_seq), || 1 << 20), Ok(Next::Receive));
        }
        streams.push((stream, whole(6)[..20_032].to_vec()));
    }
    assert!(streams.len() > 1);
    for (stream, pending) in &mut streams {
        assert_eq!(take_in(&mut ingest, stream, pending), Ok(Next::Room));
        assert!(stream.run.is_none() && stream.is_in_mid_frame() && !stream.has_half_a_batch());
    }
    // Nothing of them is kept: the sequencer knows no such session.
    let mut now = 0;
    for (stream, pending) in &mut streams {
        while take_in(&mut ingest, stream, pending) == Ok(Next::Room) {
            now += 1_000_000;
            assert!(now < 1_000_000_000, "memory comes back");
            ingest.report(true);
            sequencer.pass(now);
            ingest.refresh();
        }
        assert!(stream.has_half_a_batch() && pending.is_empty());
    }
    let mut lane = LaneReader::new(&view, 0, ingest.lane.produced());
    for (stream, _) in &mut streams {
        land(&mut ingest, stream, &whole(6)[20_032..], || 1 << 20).unwrap();
        let found = published(&view, &mut lane);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.batch_seq, &found[0].1), (6, &vec![large.clone()]));
    }
}

/// Half a batch of a stream that rests leaves an extent that waits for it, and goes on elsewhere.
#[test]
fn half_a_batch_moves_out_of_a_sealed_extent() {
    let (pool, views) = crate::log::views::host_views([0, 0], &[0], Whim::HARSH, 3);
    let view = &views[0];
    let mut ingest = Ingest::take(view, 0, Keep::Dropped);
    let mut half = stream(Receipts::Message);
    let whole = batch(0, &[vec![7; 5000], vec![8; 3000]]);
    land(&mut ingest, &mut half, &whole[..6016], || 1 << 20).unwrap();
    let extent_bytes = view.layout.geometry.extent_bytes;
    let rest = ingest.lane.acquire(extent_bytes, extent_bytes).expect("there are extents");
    assert!(ingest.lane.is_sealed(half.run.as_ref().unwrap()));
    ingest.move_out(&mut half);
    assert_eq!(ingest.counters.moved_bytes, 6016);
    assert!(!ingest.lane.is_sealed(half.run.as_ref().unwrap()) || ingest.lane.free_extents() == 0);
    land(&mut ingest, &mut half, &whole[6016..], || 1 << 20).unwrap();
    let at = LaneReader::new(view, 0, 0).peek().expect("it is published").blog_at;
    let header: BatchHeader = pool.behind_caches(at, 64, bytemuck::pod_read_unaligned);
    pool.behind_caches(at, header.frame_bytes(), |bytes| {
        let found = BatchDecoder::new(u64::MAX).advance(bytes);
        assert!(matches!(found, Ok(crate::wire::Progress::Complete(_))), "{found:?}");
        let messages: Vec<_> = Messages::new(&bytes[64..64 + header.body_bytes as usize]).collect();
        assert!(messages.iter().all(|message| message.header.ts == NOW));
        assert_eq!((messages[0].payload, messages[1].payload), (&[7; 5000][..], &[8; 3000][..]));
    });
    ingest.lane.release(rest, 0, 0);
}

/// Promise 7 between any two operations of the receive core: a reader on another host that sees a slot sees the whole batch and
/// the receipts in it.
#[test]
fn at_any_moment_a_seen_slot_is_a_whole_batch() {
    for seed in 0..8 {
        let layout = std::sync::Arc::new(Layout::new(small_geometry(1)).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, Whim::HARSH, seed);
        let homes = |here| crate::log::Homes { here, brokers: vec![0, 0], candidates: vec![1] };
        let watched = crate::testing::watched::Watched::new(pool.host(0));
        let writer = View::new(watched.clone(), layout.clone(), homes(0));
        let reader = View::new(pool.host(1), layout.clone(), homes(1));
        let mut ingest = Ingest::take(&writer, 0, Keep::Cached);
        let mut lane = LaneReader::new(&reader, 0, 0);
        let receipts = if seed % 2 == 0 { Receipts::Message } else { Receipts::Batch };
        watched.on_each(move || {
            for (slot, _) in published(&reader, &mut lane) {
                let at = slot.blog_at + 64;
                let message = reader.memory.with_bytes(at, 16, crate::wire::message::read_header);
                assert!(receipts == Receipts::Batch || message.ts == NOW, "seed {seed}: a stale receipt");
            }
        });
        let mut stream = stream(receipts);
        for seq in 0..8 {
            land(&mut ingest, &mut stream, &batch(seq, &[vec![seq as u8; 150]]), || 4096).unwrap();
        }
        watched.stop();
    }
}

/// A successor has claimed and is not active yet: what a freshly started broker does not know may exist.
#[test]
fn what_is_not_known_yet_is_not_denied() {
    let view = plain_view(2);
    let sequencer = crate::roles::sequence::tests::start(&view, 0);
    let addresses = Addresses::new(AddressBounds::NONE);
    let ask = |operation, topic: &str| {
        let mut ingest = Ingest::take(&view, 0, Keep::Cached);
        let (mut topics, cursors) = (TopicReader::new(&view), CursorReader::new(&view));
        let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 };
        let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: NOW, maker };
        let request = Request { operation: operation as u8, topic_bytes: topic.len() as u16, ..Request::default() };
        let header = frame::seal(&request);
        let mut asked = Asked::read(&header, topic.as_bytes()).expect("it is sound");
        requests::look(&mut desk, &mut asked).map(|answer| answer.is_some()).map_err(|refuse| refuse.refusal)
    };
    let operations = [Operation::TopicDescribe, Operation::TopicDelete, Operation::CursorRead, Operation::CursorList];
    // A publisher, and a subscriber.
    let greet = || {
        let mut topics = TopicReader::new(&view);
        let publisher = hello::known_topic(&mut topics, "t").map(drop);
        let mut body = Vec::new();
        crate::wire::subscribe::push_start(&mut body, "t", crate::wire::StartAt::Latest, 0);
        let subscriber =
            hello::subscribed_topics(&frame::Hello::default(), &body, &mut TopicReader::new(&view)).map(drop);
        [publisher, subscriber].map(|result| result.unwrap_err().refusal)
    };
    assert_eq!(greet(), [Refusal::UnknownTopic; 2]);
    assert_eq!(ask(Operation::TopicList, ""), Ok(true), "there is none");
    operations.iter().for_each(|operation| assert_eq!(ask(*operation, "t"), Err(Refusal::UnknownTopic)));
    CommitWriter::take(&view, 1).claim(sequencer.epoch(), 1);
    assert_eq!(ask(Operation::TopicList, ""), Ok(false), "not now");
    operations.iter().for_each(|operation| assert_eq!(ask(*operation, "t"), Ok(false)));
    assert_eq!(greet(), [Refusal::NoSequencer; 2]);
}

/// A broker that knew a topic whose name is another's by now, and cannot read the table while a sequencer takes over, says nothing of it.
#[test]
fn what_may_be_another_topic_by_now_is_not_told() {
    let view = plain_view(2);
    let addresses = Addresses::new(AddressBounds::NONE);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let (mut topics, cursors) = (TopicReader::new(&view), CursorReader::new(&view));
    let mut look = |operation: Operation, number: u64| {
        let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 };
        let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: NOW, maker };
        let record = TopicRecord { order_level: 5, ack_level: 1, replicas: 1, ..TopicRecord::zeroed() };
        let request = Request { operation: operation as u8, topic_bytes: 1, number, ..Request::default() };
        let header = frame::with_body(&request, &[b"a", bytes_of(&record)].concat())[..64].try_into().unwrap();
        let mut asked = Asked::read(&header, &[b"a", bytes_of(&record)].concat()).expect("it is sound");
        requests::look(&mut desk, &mut asked).map(|answer| answer.map(|answer| answer.number)).map_err(|it| it.refusal)
    };
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    assert_eq!(look(Operation::TopicCreate, 0), Ok(None), "asked for");
    sequencer.pass(1);
    let known = look(Operation::TopicDescribe, 0).expect("it is there").expect("and readable");
    // Whom a hello is looked up for.
    let mut knew = TopicReader::new(&view);
    let mut greet = || hello::known_topic(&mut knew, "a").map(|topic| topic.generation()).map_err(|it| it.refusal);
    assert_eq!(greet(), Ok(known));
    CommitWriter::take(&view, 1).claim(1, 1);
    assert_eq!(greet(), Err(Refusal::NoSequencer));
    for operation in [Operation::TopicDescribe, Operation::TopicCreate, Operation::TopicDelete] {
        assert_eq!(look(operation, known + 30), Ok(None), "{operation:?}");
    }
    crate::roles::sequence::tests::start(&view, 0);
    assert_eq!(greet(), Ok(known));
    assert_eq!(look(Operation::TopicDescribe, 0), Ok(Some(known)));
    assert_eq!(look(Operation::TopicDelete, known + 30), Err(Refusal::UnknownTopic));
}

/// What was passed on and nobody took within the time a client waits is no full table and no busy broker.
#[test]
fn what_no_sequencer_takes_is_refused_as_such() {
    let view = plain_view(2);
    let addresses = Addresses::new(AddressBounds::NONE);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let (mut topics, cursors) = (TopicReader::new(&view), CursorReader::new(&view));
    let mut see = |operation: Operation, asked: &mut Option<Asked>, name: &str| {
        let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 };
        let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: NOW, maker };
        let record = TopicRecord { order_level: 5, ack_level: 1, replicas: 1, ..TopicRecord::zeroed() };
        let request = Request { operation: operation as u8, topic_bytes: name.len() as u16, ..Request::default() };
        let body = [name.as_bytes(), bytes_of(&record)].concat();
        let header = frame::with_body(&request, &body)[..64].try_into().unwrap();
        let asked = asked.get_or_insert_with(|| Asked::read(&header, &body).expect("it is sound"));
        match requests::look(&mut desk, asked).expect("it is not refused at once") {
            Some(_) => None,
            None => Some(requests::too_late(&mut desk, asked).refusal),
        }
    };
    assert_eq!(see(Operation::TopicList, &mut None, ""), Some(Refusal::NoSequencer), "there never was one");
    let mut sequencer = crate::roles::sequence::tests::start(&view, 0);
    let mut asked = None;
    assert_eq!(see(Operation::TopicCreate, &mut asked, "a"), Some(Refusal::NoSequencer), "it takes nothing");
    sequencer.pass(1);
    assert_eq!(see(Operation::TopicCreate, &mut asked, "a"), None);
    // Full: said by a sequencer that took it, not by one that did not.
    let mut last = None;
    for number in 0..view.layout.geometry.topics_max {
        last = None;
        see(Operation::TopicCreate, &mut last, &format!("t{number}"));
        if number + 1 < view.layout.geometry.topics_max {
            sequencer.pass(2 + u64::from(number));
        }
    }
    let name = format!("t{}", view.layout.geometry.topics_max - 1);
    assert_eq!(see(Operation::TopicCreate, &mut last, &name), Some(Refusal::NoSequencer));
    sequencer.pass(1000);
    assert_eq!(see(Operation::TopicCreate, &mut last, &name), Some(Refusal::TopicTableFull));
}

/// Whoever published to a topic goes on in that, not in another of its name: below level 5 with a new session, at level 5 with its own.
#[test]
fn a_publisher_that_comes_back_is_told_that_its_topic_was_made_anew() {
    let topic = Topic { created_position: 40, ..Topic::new("t", OrderLevel::Total, AckLevel::Committed) };
    let hello = |token| frame::Hello { ack_level: 1, token, ..frame::Hello::default() };
    let check =
        |token| hello::check_publisher(&hello(token), &topic, &Tokens::new([1, 2])).map_err(|refuse| refuse.refusal);
    let (before, since) = (session_id(39), session_id(41));
    assert_eq!(check(before), Err(Refusal::TopicDeleted));
    assert_eq!((check(since), check(0)), (Ok(AckLevel::Committed), Ok(AckLevel::Committed)), "it was there, or is new");
    let joins = frame::Hello { session: before, ..hello(7) };
    let joined = hello::check_publisher(&joins, &topic, &Tokens::new([1, 2])).map_err(|refuse| refuse.refusal);
    assert_eq!(joined, Err(Refusal::TopicDeleted), "at level 5, whatever its token");
}

/// Heartbeats, and what is refused, take no place in the pool.
#[test]
fn what_is_no_batch_uses_no_memory() {
    let view = plain_view(1);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut stream = stream(Receipts::Batch);
    let heartbeat = frame::seal(&frame::Heartbeat::default());
    let bytes = [&heartbeat[..], &heartbeat[..], &batch(0, &[vec![1; 5]])[..64], &[0xff; 64][..]].concat();
    let mut pending = bytes[..130].to_vec();
    assert_eq!(take_in(&mut ingest, &mut stream, &mut pending), Ok(Next::Receive));
    assert_eq!((pending.len(), stream.run.is_none(), stream.is_in_mid_frame()), (2, true, false));
    pending.extend(&bytes[130..192]);
    assert_eq!(take_in(&mut ingest, &mut stream, &mut pending), Ok(Next::Receive));
    assert!(stream.run.is_none() && stream.is_in_mid_frame(), "a header alone has no place yet");
    pending.extend(&bytes[192..]);
    assert!(matches!(take_in(&mut ingest, &mut stream, &mut pending), Err(StreamError::Wire(_))));
    let run = stream.run.as_ref().expect("its body has come").start;
    view.memory.with_bytes(run, 128, |bytes| assert_eq!(bytes, [0; 128], "nothing of it"));
}
