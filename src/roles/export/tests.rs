//! Subscribers that read slowly, or not, or say what they must not; a kernel that lacks something; places that are pinned.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Export, ExportSettings, Phase, SEND, TRUST_NS};
use crate::config::SendMode;
use crate::log::View;
use crate::log::commit::CommitWriter;
use crate::log::order_index::IndexWriter;
use crate::log::retention::NO_PIN;
use crate::log::topics::TopicWriter;
use crate::net::{Completion, Ring, Stage};
use crate::pool::coherence::Mapping;
use crate::pool::line::Owned;
use crate::pool::record::{FloorLine, IndexEntry, entry_kind};
use crate::pool::{Hardware, Layout, Mapped, Memory};
use crate::roles::handoff::{SubscribedTopic, Subscription, Subscriptions};
use crate::runtime::{Io, Now, Role};
use crate::testing::memory::small_geometry;
use crate::wire::frame::{self, BatchHeader, FrameKind, Refused};
use crate::wire::{OrderLevel, Refusal, SlowReader, StartAt};

/// Body of a batch: many of them are more than sockets take.
const BODY_BYTES: u32 = 60 << 10;
pub(super) const BATCHES: u64 = 600;

/// An exporter, subscribers by the kernel's loopback, and a log written by hand: batches of topic 0, and none of topic 1.
pub(super) struct Bench {
    pub(super) view: View<Mapped<Hardware>>,
    ring: Ring,
    pub(super) export: Export<Mapped<Hardware>, Ring>,
    pub(super) commits: CommitWriter<Mapped<Hardware>>,
    pub(super) index: IndexWriter<Mapped<Hardware>>,
    subscriptions: Arc<Subscriptions<TcpStream>>,
    listener: TcpListener,
    begun: Instant,
    /// The clock stands still.
    pub(super) stands_at: Option<Now>,
    /// Makes something else of what the kernel says of a send.
    tamper: Option<fn(&Completion) -> Option<i32>>,
}

pub(super) fn settings(send: SendMode, slow_reader: SlowReader) -> ExportSettings {
    ExportSettings {
        connections_max: 2,
        batches_per_send: 64,
        send,
        slow_reader,
        client_silence_ns: 0,
        reader_stall_ns: 700_000_000,
        reader_lag_max: 0,
        reader_wait_max_ns: 0,
        return_grace_ns: 0,
        reader_grace_ns: 100_000_000,
        broker: 0,
        log: bytemuck::Zeroable::zeroed(),
    }
}

pub(super) fn batch_at<M: Memory>(view: &View<M>, topic: u32) -> u64 {
    view.layout.extent(0) + u64::from(topic * 2 * BODY_BYTES)
}

/// Appends a batch of a topic; all of one lie in the same place.
pub(super) fn append<M: Memory>(view: &View<M>, index: &mut IndexWriter<M>, topic: u32, first_order: u64) {
    let (batch_bytes, place) = (BODY_BYTES + 64, IndexEntry::pack_place(batch_at(view, topic), topic));
    let (kind, message_count) = (entry_kind::BATCH, 1);
    index.append(IndexEntry { kind, message_count, first_order, batch_bytes, place, ..IndexEntry::default() });
}

impl Bench {
    pub(super) fn new(settings: ExportSettings) -> Bench {
        let layout = Arc::new(Layout::new(small_geometry(2)).unwrap());
        let map = memmap2::MmapOptions::new().len(layout.geometry.pool_bytes as usize).map_anon().unwrap();
        let mapping = Mapping::new(map.into());
        let view = View::single_host(Mapped::<Hardware>::new(mapping.clone()), layout);
        drop(crate::roles::sequence::tests::start(&view, 0));
        let mut commits = CommitWriter::take(&view, 0);
        let mut index = IndexWriter::new(&view, 0, commits.epoch(), 0);
        let topics = TopicWriter::new(&view, 0);
        topics.write(&crate::log::topics::tests::topic(0, "a"), &Default::default());
        topics.write(&crate::log::topics::tests::topic(1, "b"), &Default::default());
        for topic in 0..2 {
            let header = BatchHeader { message_count: 1, body_bytes: BODY_BYTES, topic, ..BatchHeader::default() };
            view.memory.copy_in(batch_at(&view, topic), &frame::seal(&header));
        }
        (0..BATCHES).for_each(|first_order| append(&view, &mut index, 0, first_order));
        commits.advance(index.next(), index.segments());
        let subscriptions = Arc::new(Subscriptions::new(4));
        let export = Export::new(&view, 0, 1, settings.clone(), subscriptions.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ring = Ring::new(4 * settings.connections_max.max(4), 0, mapping).unwrap();
        Bench {
            view,
            ring,
            export,
            commits,
            index,
            subscriptions,
            listener,
            begun: Instant::now(),
            stands_at: None,
            tamper: None,
        }
    }

    /// Commits one more batch of a topic.
    pub(super) fn append(&mut self, topic: u32, first_order: u64) {
        append(&self.view, &mut self.index, topic, first_order);
        self.commits.advance(self.index.next(), self.index.segments());
    }

    pub(super) fn subscribe(&self, starts: &[StartAt]) -> TcpStream {
        self.subscribe_to(&(0..).zip(starts.iter().copied()).collect::<Vec<_>>())
    }

    /// Subscribes to topics by their numbers.
    pub(super) fn subscribe_to(&self, topics: &[(u32, StartAt)]) -> TcpStream {
        let peer = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        let order = OrderLevel::Session;
        let topic = |(topic, start): &(u32, StartAt)| SubscribedTopic {
            topic: *topic,
            created_position: 0,
            order,
            start: *start,
        };
        let topics = topics.iter().map(topic).collect();
        let slow_reader = SlowReader::AsConfigured;
        assert!(
            self.subscriptions
                .push(Subscription {
                    socket: stream,
                    topics,
                    slow_reader,
                    lag_bytes: 0,
                    version: 2,
                    heartbeat_ms: 0,
                    in_heartbeats: 1,
                    admission: None
                })
                .is_ok()
        );
        peer
    }

    /// Publishers want everything below `wanted`.
    pub(super) fn want(&self, wanted: u64) {
        self.publish_floors(0, FloorLine { wanted, ..FloorLine::default() });
    }

    /// Publishers did not wait for anybody below `closing`.
    pub(super) fn drop_pin(&self, closing: u64) {
        self.publish_floors(0, FloorLine { closing, wanted: closing, dropped_pins: 1, ..FloorLine::default() });
    }

    pub(super) fn publish_floors(&self, candidate: u32, floors: FloorLine) {
        let epoch = CommitWriter::take(&self.view, candidate).epoch();
        Owned::take(self.view.memory.clone(), self.view.layout.floor_line(candidate))
            .publish(&FloorLine { epoch, ..floors });
    }

    pub(super) fn now(&self) -> Now {
        let ns = self.begun.elapsed().as_nanos() as u64 + 1;
        self.stands_at.unwrap_or(Now { monotonic_ns: ns, utc_ns: ns })
    }

    /// One pass; `drains`: of a broker that ends. True: it has ended.
    pub(super) fn pass(&mut self, drains: bool) -> bool {
        let now = self.now();
        let is_over =
            if drains { self.export.drain(&mut self.ring, now) } else { self.export.poll(&mut self.ring, now) > 0 };
        self.ring.submit(Some(Duration::from_millis(2))).unwrap();
        while let Some(mut completion) = self.ring.next_completion() {
            let is_list = completion.tag >> 56 == SEND && completion.result > 10_000;
            if is_list && let Some(result) = self.tamper.and_then(|tamper| tamper(&completion)) {
                (completion.result, self.tamper) = (result, None);
            }
            self.export.complete(&mut self.ring, completion, now);
        }
        is_over && drains
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.pass(false);
        }
    }

    /// Passes until it is so.
    pub(super) fn run_until(&mut self, what: &str, is_so: impl Fn(&Bench) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < until, "{what} in 20 s: {:?}", self.export.counters);
            self.pass(false);
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        self.export
            .subscribers
            .iter()
            .flatten()
            .any(|subscriber| subscriber.lent_from != NO_PIN && subscriber.sending.is_some())
    }

    pub(super) fn subscribers(&self) -> usize {
        self.export.active.len()
    }
}

/// All that comes until the end, and the refusal in the last 64 to 256 bytes of it.
pub(super) fn last_words(peer: &mut TcpStream) -> Option<Refusal> {
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut all = Vec::new();
    match peer.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        Err(error) => panic!("{error}"),
    }
    let frames = (0..all.len().saturating_sub(63)).step_by(64).rev().take(5);
    let mut headers = frames.map(|at| all[at..at + 64].try_into().unwrap());
    let header = headers.find(|header| frame::check(header, 1 << 20) == Ok(FrameKind::Refused))?;
    Refusal::from_code(frame::read::<Refused>(&header).code)
}

#[test]
fn the_pin_never_passes_what_a_subscription_of_two_topics_is_about_to_read() {
    let mut bench = Bench::new(ExportSettings { batches_per_send: 1, ..settings(SendMode::Copy, SlowReader::Wait) });
    let _peer = bench.subscribe(&[StartAt::Earliest, StartAt::Latest]);
    for _ in 0..12 {
        bench.pass(false);
        if let Some(subscriber) = &bench.export.subscribers[0]
            && subscriber.phase == Phase::Streaming
        {
            assert!(bench.export.hold.position() <= subscriber.reader.position(), "what it reads next is not pinned");
        }
    }
    assert!(bench.subscribers() == 1 && bench.export.counters.delivered_batches > 0);
}

/// The peer's process lives on, and its socket is full: the memory comes back all the same.
#[test]
fn what_a_subscriber_that_stopped_reading_was_lent_comes_back_when_it_ends() {
    for send in [SendMode::Copy, SendMode::ZeroCopy] {
        let mut bench = Bench::new(settings(send, SlowReader::Wait));
        let mut peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        bench.run(Duration::from_millis(300));
        assert!(bench.is_sending() && bench.export.hold.position() != NO_PIN);
        peer.write_all(b"x").unwrap();
        bench.run_until("it is forgotten", |bench| bench.subscribers() == 0);
        bench.pass(false);
        assert_eq!(bench.export.hold.position(), NO_PIN, "{send:?}");
        assert_eq!(bench.export.counters.endings_late, 0);
        drop(peer);
    }
}

#[test]
fn a_drain_ends_though_a_subscriber_takes_nothing_or_next_to_nothing() {
    for (send, crawls) in [(SendMode::Copy, false), (SendMode::ZeroCopy, false), (SendMode::ZeroCopy, true)] {
        let mut bench = Bench::new(settings(send, SlowReader::Wait));
        let mut peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        bench.run(Duration::from_millis(200));
        let until = Instant::now() + Duration::from_secs(20);
        while !bench.pass(true) {
            assert!(Instant::now() < until, "{send:?}: {:?}", bench.export.waits_for());
            if crawls {
                let _ = peer.read(&mut [0; 100]);
            }
        }
        assert_eq!(bench.export.hold.position(), NO_PIN);
    }
}

#[test]
fn one_that_breaks_the_protocol_hears_so_after_its_batch() {
    let mut bench = Bench::new(settings(SendMode::Copy, SlowReader::Wait));
    let mut peer = bench.subscribe(&[StartAt::Latest]);
    bench.run(Duration::from_millis(30));
    peer.write_all(&[7; 1000]).unwrap();
    let reading = std::thread::spawn(move || last_words(&mut peer));
    bench.run_until("it has ended", |bench| bench.subscribers() == 0);
    assert_eq!(reading.join().unwrap(), Some(Refusal::Protocol));
    // While batches are on their way.
    let mut peer = bench.subscribe(&[StartAt::Earliest]);
    bench.run_until("its socket is full", Bench::is_sending);
    peer.write_all(b"EMBR is how frames begin, but this is none of those that there are..").unwrap();
    let reading = std::thread::spawn(move || last_words(&mut peer));
    bench.run_until("it has ended", |bench| bench.subscribers() == 0);
    assert_eq!(reading.join().unwrap(), Some(Refusal::Protocol));
}

#[test]
fn one_more_than_there_are_places_hears_so_at_once() {
    let mut bench = Bench::new(settings(SendMode::Copy, SlowReader::Wait));
    let _others = [bench.subscribe(&[StartAt::Latest]), bench.subscribe(&[StartAt::Latest])];
    bench.run_until("they are served", |bench| bench.subscribers() == 2);
    let mut more = bench.subscribe(&[StartAt::Latest]);
    bench.pass(false);
    assert_eq!(last_words(&mut more), Some(Refusal::Busy));
    assert_eq!(bench.subscribers(), 2);
}

/// What a completion says instead; none: what it said.
type Tamper = fn(&Completion) -> Option<i32>;

#[test]
fn what_the_kernel_lacks_is_not_the_subscribers_fault() {
    let tampers: [(SendMode, Tamper); 3] = [
        (SendMode::ZeroCopy, |completion| (completion.stage == Stage::Accepted).then_some(-libc::ENOBUFS)),
        (SendMode::Copy, |_| Some(-libc::EAGAIN)),
        (SendMode::Copy, |_| Some(-libc::ENOMEM)),
    ];
    for (send, tamper) in tampers {
        let mut bench = Bench::new(settings(send, SlowReader::Wait));
        bench.tamper = Some(tamper);
        let mut peer = bench.subscribe(&[StartAt::Earliest]);
        let reading = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            let mut got = 0;
            while got < (BATCHES * u64::from(BODY_BYTES)) as usize {
                got += peer.read(&mut bytes).unwrap();
            }
        });
        bench.run_until("all of it is read", |_| reading.is_finished());
        reading.join().unwrap();
        let counters = bench.export.counters;
        assert!(bench.tamper.is_none(), "it met the shortage");
        assert_eq!(
            (counters.copied_connections, counters.sends_again),
            if send == SendMode::Copy { (0, 1) } else { (1, 0) }
        );
    }
}

/// The kernel took a part of a list, and the process stood still before it heard of it: what is left of the list is handed on only if it is known
/// that it was waited for. (Seed 14956 of its time.)
#[test]
fn the_rest_of_a_list_is_looked_after_before_it_is_handed_on() {
    for is_known in [true, false] {
        let mut bench = Bench::new(settings(SendMode::Copy, SlowReader::Wait));
        let mut peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        let sends = bench.export.counters.sends;
        if is_known {
            bench.drop_pin(BATCHES + 1);
        } else {
            // Whose floors are to be read is not known while another sequencer takes over.
            CommitWriter::take(&bench.view, 1).claim(0, 9);
        }
        let reading = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while peer.read(&mut bytes).is_ok_and(|got| got > 0) {}
        });
        let until = Instant::now() + Duration::from_secs(20);
        while bench.is_sending() {
            assert!(Instant::now() < until, "no send ended in 20 s");
            bench.ring.submit(Some(Duration::from_millis(2))).unwrap();
            let ns = bench.now().monotonic_ns + 10 * TRUST_NS;
            while let Some(mut completion) = bench.ring.next_completion() {
                completion.result = completion.result.min(10_000);
                bench.export.complete(&mut bench.ring, completion, Now { monotonic_ns: ns, utc_ns: ns });
            }
        }
        assert_eq!(bench.export.counters.sends, sends, "dropped: {is_known}");
        assert_eq!(bench.export.counters.too_slow, u64::from(is_known), "it ended, or waits to be told");
        drop(bench);
        reading.join().unwrap();
    }
}

/// Reads `bytes` every 20 ms until told to stop or it is over.
fn crawl(mut peer: TcpStream, bytes: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; bytes];
        while peer.read_exact(&mut buffer).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

/// A send of a megabyte takes it longer than `reader_stall`; it takes something all the time.
#[test]
fn a_steady_reader_that_others_wait_for_is_not_taken_for_one_that_stands_still() {
    for send in [SendMode::Copy, SendMode::ZeroCopy] {
        let mut bench = Bench::new(settings(send, SlowReader::Wait));
        let peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        bench.run(Duration::from_millis(100));
        let reading = crawl(peer, 8 << 10);
        bench.want(BATCHES);
        bench.run(Duration::from_secs(4));
        assert_eq!((bench.subscribers(), bench.export.counters.too_slow), (1, 0), "{send:?}");
        assert_eq!(bench.export.counters.waited_readers, 1, "and it was told for whom they wait");
        drop(bench);
        reading.join().unwrap();
    }
}

/// It takes something all the time, and does not get there: it is let go, whatever it takes.
#[test]
fn a_reader_that_crawls_is_not_waited_for_beyond_the_bound() {
    let most = settings(SendMode::Copy, SlowReader::Wait);
    let mut bench = Bench::new(ExportSettings { reader_wait_max_ns: 1_500_000_000, ..most });
    let peer = bench.subscribe(&[StartAt::Earliest]);
    bench.run_until("its socket is full", Bench::is_sending);
    let reading = crawl(peer, 8 << 10);
    bench.want(BATCHES);
    bench.run_until("it is let go", |bench| bench.export.counters.too_slow == 1);
    drop(bench);
    reading.join().unwrap();
}

/// What its peer may not have got is kept for a while; if publishers wait for that to no purpose, nobody's is for a long while.
#[test]
fn the_place_of_a_reader_whose_connection_broke_is_kept_for_a_while() {
    let most = settings(SendMode::Copy, SlowReader::Wait);
    let mut bench = Bench::new(ExportSettings { return_grace_ns: 300_000_000, ..most });
    for is_wanted in [false, true, true] {
        let peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        bench.run(Duration::from_millis(50));
        let before = bench.export.counters.kept_places;
        drop(peer);
        bench.run_until("it is forgotten", |bench| bench.subscribers() == 0);
        let is_kept = bench.export.counters.kept_places > before;
        if is_kept {
            assert!(bench.export.hold.position() < 200, "where it was: {}", bench.export.hold.position());
            bench.want(if is_wanted { BATCHES - 100 } else { 0 });
        }
        bench.run_until("its time is over", |bench| bench.export.hold.position() == NO_PIN);
        assert_eq!(is_kept, bench.export.kept.is_empty() && bench.export.counters.kept_places > before);
    }
    assert_eq!(bench.export.counters.kept_places, 2, "the third was not kept a place");
    let said = bench.subscribe(&[StartAt::Earliest]);
    bench.run_until("its socket is full", Bench::is_sending);
    drop(said);
}

/// Its goodbye lies unread when a send finds that it has closed.
#[test]
fn no_place_is_kept_for_one_that_said_goodbye_before_its_connection_broke() {
    let most = settings(SendMode::Copy, SlowReader::Wait);
    for says_goodbye in [false, true] {
        let mut bench = Bench::new(ExportSettings { return_grace_ns: 300_000_000, ..most.clone() });
        let mut peer = bench.subscribe(&[StartAt::Earliest]);
        bench.run_until("its socket is full", Bench::is_sending);
        if says_goodbye {
            peer.write_all(&frame::seal(&frame::Goodbye::default())).unwrap();
        }
        let now = bench.now();
        bench.export.broke(&mut bench.ring, 0, now);
        bench.run_until("it is forgotten", |bench| bench.subscribers() == 0);
        assert_eq!(bench.export.counters.kept_places, u64::from(!says_goodbye));
    }
}

/// A broker was killed and is started again: what its readers need is there for a while.
#[test]
fn what_a_former_process_had_pinned_is_kept_for_a_while() {
    let most = ExportSettings { return_grace_ns: 300_000_000, ..settings(SendMode::Copy, SlowReader::Wait) };
    let mut bench = Bench::new(most.clone());
    let peer = bench.subscribe(&[StartAt::Order(50)]);
    bench.run_until("its socket is full", Bench::is_sending);
    let pinned = bench.export.hold.position();
    assert!(pinned > 0 && pinned < BATCHES);
    drop(peer);
    let start = |bench: &mut Bench, incarnation| {
        let subscriptions = bench.subscriptions.clone();
        bench.export = Export::new(&bench.view, 0, incarnation, most.clone(), subscriptions);
        let now = bench.now();
        bench.export.start(&mut bench.ring, 0, now).unwrap();
    };
    start(&mut bench, 2);
    bench.want(BATCHES);
    bench.run(Duration::from_millis(100));
    assert_eq!(bench.export.hold.position(), pinned);
    // Once more, and it comes back to where it was.
    start(&mut bench, 3);
    let peer = bench.subscribe(&[StartAt::Order(50)]);
    bench.run_until("it is served again", Bench::is_sending);
    assert_eq!(bench.export.counters.refused, 0);
    drop(peer);
    bench.run_until("its time is over", |bench| bench.export.hold.position() == NO_PIN);
    // What was given up meanwhile is nobody's to keep.
    bench.publish_floors(0, FloorLine { closing: pinned + 1, wanted: BATCHES, ..FloorLine::default() });
    bench.export.hold.lower_to_floor().unwrap();
    start(&mut bench, 4);
    bench.run_until("it goes at once", |bench| bench.export.kept.is_empty());
}

/// It promised to be heard: who is gone without a word from TCP does not keep its place. Who promised nothing may be as quiet as it likes.
#[test]
fn a_silent_subscriber_is_ended_if_it_promised_to_be_heard() {
    let most = settings(SendMode::Copy, SlowReader::Wait);
    let log = crate::wire::frame::LogRecord { heartbeat_ms: 50, ..bytemuck::Zeroable::zeroed() };
    for (heartbeat_ms, is_heard, left) in [(100, false, 0), (100, true, 1), (0, false, 1)] {
        let mut bench = Bench::new(ExportSettings { client_silence_ns: 500_000_000, log, ..most.clone() });
        let mut peer = bench.subscribe(&[StartAt::Latest]);
        bench.run_until("it is served", |bench| bench.subscribers() == 1);
        let subscriber = bench.export.subscribers.iter_mut().flatten().next().unwrap();
        (subscriber.heartbeat_ms, subscriber.version) = (heartbeat_ms, frame::VERSION_3);
        for _ in 0..15 {
            if is_heard {
                let beat = frame::Heartbeat { version: frame::VERSION_3, ..frame::Heartbeat::default() };
                peer.write_all(&frame::seal(&beat)).unwrap();
            }
            bench.run(Duration::from_millis(100));
        }
        assert_eq!(bench.subscribers(), left, "{heartbeat_ms} ms, heard: {is_heard}");
    }
}
