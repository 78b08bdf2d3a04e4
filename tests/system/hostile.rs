//! Bad input over sockets: each case ends with a typed refusal where one can be sent, then the connection is closed, it is
//! counted, and whoever behaves notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use embarcadero::limits::{BATCH_MESSAGES_MAX, TOPIC_NAME_BYTES_MAX};
use embarcadero::testing::random::Random;
use embarcadero::wire::frame::{
    self, Ack, BatchHeader, CaughtUp, Deliver, Frame, Goodbye, Hello, Refused, Reply, Request, Role, Welcome, seal,
    with_body,
};
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{FrameKind, OrderLevel, Receipts, Refusal, StartAt};

use embarcadero::Start;

use crate::harness::{Cluster, LIMIT, PoolCounters, Setup, Site, Task};
use crate::raw::{Raw, batch, frame_of, join_hello, publisher_hello};
use crate::traffic::{Fifo, Watcher, connect, flush, message, send};

const TOPIC: &str = "t";
/// Where the bad input goes; those who behave use this broker too, and another.
const VICTIM: u32 = 1;

/// Two brokers under good traffic that must not notice anything.
struct Scene {
    site: Site,
    cluster: Cluster,
    stop: Arc<AtomicBool>,
    publisher: Task<u64>,
    watcher: Task<Watcher>,
}

impl Scene {
    fn new(name: &str, receive: &'static str) -> Scene {
        // A level-5 session without a goodbye is kept for a while: room for all that the bad input leaves behind.
        let geometry =
            "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 1024, topics_max: 16";
        let site = Site::new(name, &Setup { brokers: 2, geometry, receive, ..Setup::default() });
        let cluster = site.start();
        site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
        let mut watcher = Watcher::connect(site.subscriber(TOPIC, VICTIM, Start::Earliest), Fifo::No);
        let stop = Arc::new(AtomicBool::new(false));
        let (options, until) = (site.publisher(TOPIC), stop.clone());
        let publisher = Task::spawn("the good publisher", move || {
            let (mut publisher, mut sent) = (connect(options), 0);
            // Not as fast as it can: it is to be there all the time, not to take the machine.
            while !until.load(Ordering::Relaxed) || sent < 100 {
                send(&mut publisher, 0, sent..sent + 10);
                flush(&mut publisher, 0);
                sent += 10;
            }
            let stats = publisher.stats();
            assert_eq!((stats.reconnects, stats.fences), (0, 0), "the good publisher was disturbed");
            publisher.close(LIMIT).unwrap();
            sent
        });
        let until = stop.clone();
        let watcher = Task::spawn("the good subscriber", move || {
            while !until.load(Ordering::Relaxed) {
                watcher.poll();
            }
            watcher
        });
        Scene { site, cluster, stop, publisher, watcher }
    }

    fn victim(&self) -> String {
        self.site.address(VICTIM)
    }

    /// Ends the good traffic, checks that it lost nothing, and gives the victim's counters. `strangers` messages are others'.
    fn end(self, strangers: u64) -> PoolCounters {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.publisher.join();
        let mut watcher = self.watcher.join();
        watcher.read_exactly(sent + strangers);
        assert_eq!(watcher.seen.complete(0), sent, "the good publisher's messages");
        drop(watcher);
        self.cluster.stop();
        let counters = self.site.counters();
        counters.check_conserved();
        counters
    }
}

/// A frame header of any kind, changed after it was sealed.
fn broken(frame: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    change(&mut bytes);
    bytes
}

/// Sealed anew after a change, so that the lie itself is what is found.
fn resealed<F: Frame>(frame: &F, body: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = with_body(frame, body);
    change(&mut bytes[..60]);
    let header: [u8; 64] = bytes[..64].try_into().unwrap();
    bytes[60..64].copy_from_slice(&frame::header_crc(&header).to_le_bytes());
    bytes
}

fn hello() -> Vec<u8> {
    with_body(&publisher_hello(), TOPIC.as_bytes())
}

fn subscriber_hello() -> Hello {
    Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() }
}

fn with_subscriber(change: fn(&mut Hello), topics: &[&str]) -> Vec<u8> {
    let (mut hello, mut body) = (subscriber_hello(), Vec::new());
    change(&mut hello);
    topics.iter().for_each(|topic| push_start(&mut body, topic, StartAt::Earliest, 0));
    with_body(&hello, &body)
}

fn subscriber(topics: &[&str]) -> Vec<u8> {
    with_subscriber(|_| (), topics)
}

/// Everything that can be wrong with a first frame.
fn bad_hellos() -> Vec<(&'static str, Vec<u8>, Refusal)> {
    let with = |change: fn(&mut Hello), name: &[u8]| {
        let mut hello = publisher_hello();
        change(&mut hello);
        with_body(&hello, name)
    };
    let long_name = [b'x'; TOPIC_NAME_BYTES_MAX + 1];
    let protocol = Refusal::Protocol;
    vec![
        ("wrong magic", broken(&hello(), |bytes| bytes[0] ^= 1), protocol),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\nUser-Agent: a browser of some kind\r\n\r\n".to_vec(), protocol),
        ("version 0", resealed(&publisher_hello(), b"t", |bytes| bytes[4] = 0), protocol),
        ("version 1", resealed(&publisher_hello(), b"t", |bytes| bytes[4] = 1), protocol),
        ("version 4", resealed(&publisher_hello(), b"t", |bytes| bytes[4] = 4), protocol),
        (
            "no version that a broker speaks",
            with(|hello| (hello.version_lowest, hello.version_highest) = (4, 9), b"t"),
            protocol,
        ),
        (
            "versions from high to low",
            with(|hello| (hello.version_lowest, hello.version_highest) = (3, 2), b"t"),
            protocol,
        ),
        ("kind 0", resealed(&publisher_hello(), b"t", |bytes| bytes[5] = 0), protocol),
        ("kind 99", resealed(&publisher_hello(), b"t", |bytes| bytes[5] = 99), protocol),
        ("a flipped bit in the header", broken(&hello(), |bytes| bytes[30] ^= 1), protocol),
        ("a flipped bit in the header's CRC", broken(&hello(), |bytes| bytes[60] ^= 1), protocol),
        ("a flipped bit in the name", broken(&hello(), |bytes| bytes[64] ^= 1), protocol),
        ("no name", with(|_| (), b""), protocol),
        ("a name one byte too long", with(|_| (), &long_name), protocol),
        ("a name of 4 GiB", resealed(&publisher_hello(), b"t", |bytes| bytes[8..12].fill(0xff)), protocol),
        ("a name that is no UTF-8", with(|_| (), b"\xff\xfe"), protocol),
        ("a name with a line end", with(|_| (), b"a\nb"), protocol),
        ("a name with a zero byte", with(|_| (), b"a\0b"), protocol),
        ("role 0", with(|hello| hello.role = 0, TOPIC.as_bytes()), protocol),
        ("role 9", with(|hello| hello.role = 9, TOPIC.as_bytes()), protocol),
        ("ack level 3", with(|hello| hello.ack_level = 3, TOPIC.as_bytes()), protocol),
        ("ack level 2", with(|hello| hello.ack_level = 2, TOPIC.as_bytes()), Refusal::AckLevel),
        ("ack level 0 at order level 5", with(|hello| hello.ack_level = 0, TOPIC.as_bytes()), Refusal::AckLevel),
        ("another order level", with(|hello| hello.order_level = 4, TOPIC.as_bytes()), Refusal::TopicExists),
        ("an unknown topic", with(|_| (), b"nobody made this"), Refusal::UnknownTopic),
        ("a flag of old, to create the topic", with(|hello| hello.flags = 1, b"new"), protocol),
        ("an unknown flag", with(|hello| hello.flags = 1 << 15, TOPIC.as_bytes()), protocol),
        (
            "a forged token",
            with(|hello| (hello.session, hello.token) = (1 << 52 | 1 << 32 | 1, 7), b"t"),
            Refusal::BadToken,
        ),
        ("a subscriber without a topic", subscriber(&[]), protocol),
        ("a topic listed twice", subscriber(&[TOPIC, TOPIC]), protocol),
        ("a topic that is not there", subscriber(&[TOPIC, "nobody made this"]), Refusal::UnknownTopic),
        ("too many topics", subscriber(&["t"; 65]), Refusal::TooManyTopics),
        ("slow reader 4", with_subscriber(|hello| hello.slow_reader = 4, &[TOPIC]), protocol),
        ("a start record cut short", with_body(&subscriber_hello(), &[1, 9, 0, 0, 0, 0, 0, 0, 0, 0]), protocol),
        ("a Batch", frame_of(&BatchHeader { message_count: 1, ..BatchHeader::default() }, vec![0; 16]), protocol),
        ("a Welcome", with_body(&Welcome::default(), b"0 a:1\n"), protocol),
        ("a Refused", with_body(&Refused::default(), b"no"), protocol),
        ("an Ack", seal(&Ack::default()).to_vec(), protocol),
        ("a Deliver", seal(&Deliver::default()).to_vec(), protocol),
        ("a CaughtUp", seal(&CaughtUp::default()).to_vec(), protocol),
        ("a Goodbye", seal(&Goodbye::default()).to_vec(), protocol),
        ("a Reply", with_body(&Reply::default(), b""), protocol),
        ("a request of 257 bytes", seal(&Request { body_bytes: 257, ..Request::default() }).to_vec(), protocol),
        (
            "a flipped bit in a request's body",
            broken(&with_body(&Request { operation: 3, topic_bytes: 1, ..Request::default() }, b"t"), |b| b[64] ^= 1),
            protocol,
        ),
    ]
}

#[test]
fn every_bad_hello_is_refused_by_name() {
    let scene = Scene::new("hellos", "connections_max: 16");
    let cases = bad_hellos();
    for (what, bytes, refusal) in &cases {
        let mut raw = Raw::connect(&scene.victim());
        raw.send(bytes);
        refused(what, raw, *refusal);
    }
    let counters = scene.end(0);
    let protocol = cases.iter().filter(|(_, _, refusal)| *refusal == Refusal::Protocol).count();
    let victim = &counters.receive[VICTIM as usize];
    assert_eq!(victim["protocol_errors"], protocol as u64, "{victim:#?}");
    assert_eq!(victim["refused"], (cases.len() - protocol) as u64, "{victim:#?}");
    assert_eq!(victim["partial_batches"], 0);
}

/// Says which case it was if the answer is not the one due.
fn refused(what: &str, mut raw: Raw, refusal: Refusal) -> u64 {
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| raw.expect_refused(refusal)));
    checked.unwrap_or_else(|panic| {
        eprintln!("the case was: {what}");
        std::panic::resume_unwind(panic)
    })
}

/// Everything that can be wrong with a frame of a session that was opened properly. `first` is the batch due.
fn bad_streams(welcome: &Welcome) -> Vec<(&'static str, Vec<u8>, Refusal)> {
    let payloads = [message(9, 0, 40), message(9, 1, 100)];
    let whole = batch(welcome, 0, &payloads);
    let header: BatchHeader = frame::read(whole[..64].try_into().unwrap());
    let body = whole[64..64 + header.body_bytes as usize].to_vec();
    let with = |change: &dyn Fn(&mut BatchHeader)| {
        let mut header = header;
        change(&mut header);
        frame_of(&header, body.clone())
    };
    let body_of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = body.clone();
        change(&mut body);
        frame_of(&header, body)
    };
    // Only the header: its length lies, and what follows would never come.
    let header_only = |body_bytes: u32| {
        let header = BatchHeader { body_bytes, ..header };
        seal(&header).to_vec()
    };
    let protocol = Refusal::Protocol;
    vec![
        ("wrong magic", broken(&whole, |bytes| bytes[3] ^= 0x80), protocol),
        ("wrong version", broken(&whole, |bytes| bytes[4] = 7), protocol),
        ("an unknown kind", broken(&whole, |bytes| bytes[5] = 77), protocol),
        ("header CRC", broken(&whole, |bytes| bytes[61] ^= 4), protocol),
        ("a flipped bit under the header CRC", broken(&whole, |bytes| bytes[33] ^= 4), protocol),
        ("body CRC", broken(&whole, |bytes| bytes[64 + 16] ^= 1), protocol),
        ("a body one line past the limit", header_only(welcome.batch_bytes_max - 64 + 64), protocol),
        ("a body one byte past the limit", header_only(welcome.batch_bytes_max - 64 + 1), protocol),
        ("a body of 4 GiB", header_only(u32::MAX), protocol),
        ("no messages", with(&|header| header.message_count = 0), protocol),
        ("one message fewer than there are", with(&|header| header.message_count = 1), protocol),
        ("one message more than there are", with(&|header| header.message_count = 3), protocol),
        (
            "more messages than a batch may have",
            with(&|header| header.message_count = BATCH_MESSAGES_MAX + 1),
            protocol,
        ),
        ("a message past the end of its batch", body_of(&|body| body[0] = 0xff), protocol),
        ("a message of 4 GiB", body_of(&|body| body[..4].fill(0xff)), protocol),
        ("bytes behind the last message", body_of(&|body| body.extend([0; 16])), protocol),
        ("a body that ends in a message", body_of(&|body| body.truncate(body.len() - 16)), protocol),
        ("a body that is empty", frame_of(&header, vec![]), protocol),
        ("another session", with(&|header| header.session ^= 1 << 40), Refusal::UnknownSession),
        ("session 0", with(&|header| header.session = 0), Refusal::UnknownSession),
        ("another topic", with(&|header| header.topic += 1), Refusal::UnknownTopic),
        ("a session epoch to come", with(&|header| header.session_epoch += 1), Refusal::SessionEpoch),
        ("a session epoch gone by", with(&|header| header.session_epoch -= 1), Refusal::SessionEpoch),
        ("a second Hello", hello(), protocol),
        ("a Welcome", with_body(&Welcome::default(), b"0 a:1\n"), protocol),
        ("a Refused", with_body(&Refused { code: 1, ..Refused::default() }, b"no"), protocol),
        ("an Ack", seal(&Ack { session: welcome.session, committed_next: 5, ..Ack::default() }).to_vec(), protocol),
        ("a Deliver", with_body(&Deliver { message_count: 1, ..Deliver::default() }, &whole), protocol),
        ("a CaughtUp", seal(&CaughtUp::default()).to_vec(), protocol),
    ]
}

#[test]
fn every_bad_frame_in_a_stream_is_refused_by_name() {
    let scene = Scene::new("streams", "connections_max: 16");
    let (probe, welcome) = Raw::publisher(&scene.victim(), TOPIC);
    let cases = bad_streams(&welcome).len();
    drop(probe);
    let mut good_messages = 0;
    for case in 0..cases {
        // Once at once, and once behind a good batch in the same write, which counts all the same.
        for batches_before in [0, 1] {
            let (mut raw, welcome) = Raw::publisher(&scene.victim(), TOPIC);
            let before = batch(&welcome, 0, &[message(100 + good_messages as u32, 0, 50)]);
            let (what, bytes, refusal) = bad_streams(&welcome).swap_remove(case);
            raw.send(&[if batches_before == 1 { before } else { vec![] }, bytes].concat());
            let detail = refused(what, raw, refusal);
            if refusal == Refusal::SessionEpoch {
                assert_eq!(detail, u64::from(welcome.session_epoch), "{what}: the current epoch");
            }
            good_messages += batches_before;
        }
    }
    let counters = scene.end(good_messages);
    let victim = &counters.receive[VICTIM as usize];
    let total = 2 * cases as u64;
    let (protocol, other) = (victim["protocol_errors"], victim["refused"]);
    assert_eq!(protocol + other, total, "{victim:#?}");
    assert_eq!(other, 2 * 5, "other sessions, topics and epochs: {victim:#?}");
}

/// Below level 5 a connection's numbers leave no gap.
#[test]
fn a_number_out_of_turn_is_refused_below_level_5() {
    let site = Site::new("numbers", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    for order in [OrderLevel::None, OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection] {
        let topic = format!("order-{order}");
        site.create_topic(&topic, order, Receipts::Batch);
        for wrong in [0, 2, u64::MAX] {
            let mut raw = Raw::connect(&site.address(0));
            let hello = Hello { ack_level: u8::from(order != OrderLevel::None), ..publisher_hello() };
            raw.send(&with_body(&hello, topic.as_bytes()));
            let welcome: Welcome = raw.expect();
            let bytes = [0, wrong].map(|batch_seq| batch(&welcome, batch_seq, &[message(1, 0, 20)])).concat();
            raw.send(&bytes);
            assert_eq!(raw.expect_refused(Refusal::Protocol), 1, "the number that comes next");
        }
    }
    cluster.stop();
    site.counters().check_conserved();
}

#[test]
fn sessions_are_joined_with_their_token_while_they_are_open() {
    let scene = Scene::new("sessions", "connections_max: 16, hello_timeout: 300ms");
    let join = |welcome: &Welcome, change: fn(&mut Hello)| {
        let mut hello = join_hello(welcome);
        change(&mut hello);
        let mut raw = Raw::connect(&scene.victim());
        raw.send(&with_body(&hello, TOPIC.as_bytes()));
        raw
    };
    let (mut first, welcome) = Raw::publisher(&scene.victim(), TOPIC);
    first.send(&batch(&welcome, 0, &[message(50, 0, 20)]));
    first.wait_acked(1);
    let mut second = join(&welcome, |_| ());
    let joined: Welcome = second.expect();
    assert_eq!((joined.session, joined.session_epoch, joined.next), (welcome.session, 1, 1));
    refused("another token", join(&welcome, |hello| hello.token ^= 1), Refusal::BadToken);
    refused("another's session", join(&welcome, |hello| hello.session ^= 1), Refusal::BadToken);
    assert_eq!(refused("an epoch gone by", join(&welcome, |hello| hello.session_epoch = 0), Refusal::SessionEpoch), 1);
    assert_eq!(refused("an epoch far off", join(&welcome, |hello| hello.session_epoch = 9), Refusal::SessionEpoch), 1);
    // The session is not harmed by any of it.
    second.send(&batch(&welcome, 1, &[message(50, 1, 20)]));
    second.wait_acked(2);
    for raw in [&mut first, &mut second] {
        raw.send(&seal(&Goodbye::default()));
    }
    [&mut first, &mut second].into_iter().for_each(Raw::expect_closed);
    refused("a session that is closed", join(&welcome, |_| ()), Refusal::UnknownSession);
    let counters = scene.end(2);
    assert_eq!(counters.ack[VICTIM as usize]["refused"], 3, "two epochs and a closed session: {:#?}", counters.ack);
}

/// 500 connections of noise: before a hello, behind one, and as proper frames with a few bits flipped.
#[test]
fn random_bytes_hurt_nobody() {
    let scene = Scene::new("noise", "connections_max: 16");
    let mut random = Random::new(11);
    for round in 0..500 {
        let mut noise = |most: u64| {
            let bytes = 1 + random.below(most) as usize;
            (0..bytes).map(|_| random.word() as u8).collect::<Vec<u8>>()
        };
        let (mut raw, bytes) = match round % 4 {
            0 => (Raw::connect(&scene.victim()), noise(63)),
            1 => (Raw::connect(&scene.victim()), [noise(4096), noise(4096), vec![0; 64]].concat()),
            2 => (Raw::publisher(&scene.victim(), TOPIC).0, [noise(100_000), vec![0; 64]].concat()),
            _ => {
                let (raw, welcome) = Raw::publisher(&scene.victim(), TOPIC);
                let mut bytes = batch(&welcome, 0, &[message(9, 0, 500)]);
                // Anywhere but in the time of receipt, which the broker writes, and the padding, which nobody reads.
                let used = 64 + message(9, 0, 500).len() + 16;
                let bit = loop {
                    let bit = random.below(8 * used as u64) as usize;
                    if !frame::RECEIVED_AT.contains(&(bit / 8)) {
                        break bit;
                    }
                };
                bytes[bit / 8] ^= 1 << (bit % 8);
                (raw, bytes)
            }
        };
        raw.try_send(&bytes);
        if round % 4 == 0 {
            // Less than a header: there is nothing to answer before it ends.
            raw.finish();
            raw.expect_closed();
        } else {
            refused(&format!("round {round}"), raw, Refusal::Protocol);
        }
    }
    let counters = scene.end(0);
    assert_eq!(counters.receive[VICTIM as usize]["protocol_errors"], 375);
    assert_eq!(counters.receive[VICTIM as usize]["refused"], 0);
}

/// Connections that stop in the middle: closed, and silent.
#[test]
fn connections_that_stop_half_way() {
    let scene = Scene::new("half", "connections_max: 32, hello_timeout: 200ms, idle_release: 20ms");
    let hello = hello();
    let mut left_open = Vec::new();
    for cut in [0, 1, 63, 64, 65, hello.len() - 1] {
        let mut closed = Raw::connect(&scene.victim());
        closed.send(&hello[..cut]);
        closed.finish();
        closed.expect_closed();
        let mut silent = Raw::connect(&scene.victim());
        silent.send(&hello[..cut]);
        left_open.push(silent);
    }
    for silent in left_open {
        refused("half a hello, then silence", silent, Refusal::HelloTimeout);
    }
    let mut silent = Vec::new();
    let cuts = [1, 63, 64, 65, 200];
    for cut in cuts {
        for stays_open in [false, true] {
            let (mut raw, welcome) = Raw::publisher(&scene.victim(), TOPIC);
            let whole = batch(&welcome, 0, &[message(9, 0, 1000)]);
            raw.send(&whole[..cut]);
            raw.wait_taken();
            if stays_open {
                silent.push((raw, whole, cut));
            } else {
                raw.finish();
                raw.expect_closed();
            }
        }
    }
    // Half a batch is none, however it ends. The silent ones may still go on: 64 bytes of memory hold up nobody.
    let (mut raw, whole, cut) = silent.pop().unwrap();
    raw.send(&whole[cut..]);
    raw.wait_acked(1);
    raw.send(&seal(&Goodbye::default()));
    raw.expect_closed();
    drop(silent);
    let counters = scene.end(1);
    let victim = &counters.receive[VICTIM as usize];
    assert_eq!(victim["partial_batches"], 2 * cuts.len() as u64 - 1, "{victim:#?}");
    assert_eq!((victim["refused"], victim["protocol_errors"]), (6, 0), "the silent hellos: {victim:#?}");
}

/// A hello byte by byte, each in good time, all of it too slow.
#[test]
fn a_hello_that_trickles_is_cut_off() {
    let scene = Scene::new("trickle", "connections_max: 8, hello_timeout: 200ms");
    let mut raw = Raw::connect(&scene.victim());
    let (hello, began) = (hello(), Instant::now());
    let mut bytes = hello.iter();
    // The pause between two bytes is a wait for the broker to say something.
    while !raw.can_read(Duration::from_millis(5)) {
        let byte = bytes.next().unwrap_or_else(|| panic!("the whole hello went through in {:?}", began.elapsed()));
        assert!(raw.try_send(&[*byte]));
    }
    refused("a hello that trickles", raw, Refusal::HelloTimeout);
    scene.end(0);
}

#[test]
fn connections_beyond_the_most_are_told_so() {
    const MOST: usize = 4;
    let site = Site::new("busy", &Setup { brokers: 1, receive: "connections_max: 4", ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut served: Vec<_> = Vec::new();
    while served.len() < MOST {
        // The connection that created the topic may still be there for a moment.
        let mut raw = Raw::connect(&site.address(0));
        raw.send(&hello());
        match raw.receive().expect("an answer") {
            came if came.kind == FrameKind::Welcome => served.push((raw, frame::read::<Welcome>(&came.header))),
            came => assert_eq!(frame::read::<Refused>(&came.header).code, Refusal::Busy as u16),
        }
    }
    // More than it has spare places to say no from.
    for _ in 0..100 {
        refused("one too many", Raw::connect(&site.address(0)), Refusal::Busy);
    }
    let mut crowd: Vec<_> = (0..50).map(|_| Raw::connect(&site.address(0))).collect();
    for raw in crowd.drain(..) {
        refused("one of a crowd", raw, Refusal::Busy);
    }
    for (id, (raw, welcome)) in (0..).zip(&mut served) {
        raw.send(&batch(welcome, 0, &[message(id, 0, 30)]));
        raw.wait_acked(1);
    }
    // A place that comes free is given to the next.
    let (mut leaving, _) = served.pop().unwrap();
    leaving.send(&seal(&Goodbye::default()));
    leaving.expect_closed();
    let began = Instant::now();
    loop {
        let mut raw = Raw::connect(&site.address(0));
        raw.try_send(&hello());
        match raw.receive().expect("an answer") {
            came if came.kind == FrameKind::Welcome => break,
            _ => assert!(began.elapsed() < LIMIT, "waited {LIMIT:?} for the place of one that left"),
        }
    }
    drop(served);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert!(counters.received("refused") >= 150);
    assert_eq!(counters.received("protocol_errors"), 0);
}

/// A peer that was told that it broke the protocol and goes on sending is not read from without end: the network holds what fits it, and
/// then it is reset.
#[test]
fn who_was_refused_and_goes_on_sending_is_not_listened_to() {
    let scene = Scene::new("goes-on", "connections_max: 16");
    let garbage = vec![0x5a; 64 << 10];
    for what in ["instead of a hello", "in a session"] {
        let mut raw = match what {
            "in a session" => Raw::publisher(&scene.victim(), TOPIC).0,
            _ => Raw::connect(&scene.victim()),
        };
        let (begin, mut sent) = (Instant::now(), 0);
        while raw.try_send(&garbage) {
            sent += garbage.len() as u64;
            assert!(begin.elapsed() < LIMIT, "{what}: {sent} bytes were taken and there is no end");
        }
        assert!(sent <= 32 << 20, "{what}: {sent} bytes were taken from a peer that was told to go");
    }
    let counters = scene.end(0);
    assert_eq!(counters.receive[VICTIM as usize]["protocol_errors"], 2);
}
