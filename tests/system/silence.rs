//! Broker processes that fall silent, for good or for long, with a subscriber that had everything: publishers of other brokers wait
//! for it as long as `liveness.member_silence`, and no longer, whatever host it was on.

use std::time::{Duration, Instant};

use embarcadero::wire::frame::{self, Heartbeat, Hello, Reply, Request};
use embarcadero::wire::{Operation, OrderLevel, Receipts, Refusal};
use embarcadero::{ClientError, Order, PublisherOptions, Start, Subscriber};

use crate::harness::{LIMIT, Process, Setup, Signal, Site};
use crate::raw::{Raw, publisher_hello};
use crate::traffic::{Fifo, Seen, Watcher, connect, flush, send_sized};

const TOPIC: &str = "t";
const POOL_BYTES: u64 = 16 << 20;
const MESSAGE_BYTES: usize = 16 << 10;
const LAPS: u64 = 10;

/// Two brokers, each a process; the first orders.
fn site(name: &str, hosts: u32) -> (Site, [Process; 2]) {
    let geometry =
        "extent_bytes: 256KiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4";
    let (sequencer, receive) = ("candidates: 1, session_lease: 20s", "receive_bytes_max: 256KiB, connections_max: 64");
    let site = Site::new(
        name,
        &Setup { brokers: 2, hosts, pool: "bytes: 16MiB", geometry, sequencer, receive, ..Setup::default() },
    );
    let processes = ["0", "1"].map(|broker| site.process(&["--brokers", broker]));
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    (site, processes)
}

/// Publishes over broker 0 alone, in laps of the pool, the first of which a subscriber of broker 1 has seen.
fn publish_laps(site: &Site, seen: u64) {
    let all = site.publisher(TOPIC);
    let brokers = site.addresses()[..1].to_vec();
    let mut publisher = connect(PublisherOptions { brokers, discover: false, batch_bytes: 64 << 10, ..all });
    send_sized(&mut publisher, 1, 0..LAPS * POOL_BYTES / MESSAGE_BYTES as u64 - seen, |_| MESSAGE_BYTES);
    flush(&mut publisher, 1);
    assert_eq!(publisher.stats().fences, 0);
    publisher.close(LIMIT).unwrap();
}

/// Messages that everybody has.
fn begin(site: &Site) -> Watcher {
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    let all = site.publisher(TOPIC);
    let brokers = site.addresses()[..1].to_vec();
    let mut publisher = connect(PublisherOptions { brokers, discover: false, ..all });
    send_sized(&mut publisher, 0, 0..10, |_| MESSAGE_BYTES);
    flush(&mut publisher, 0);
    publisher.close(LIMIT).unwrap();
    watcher.read_exactly(10);
    watcher
}

/// Its locks are another host's: nobody here hears of its end but by its silence.
#[test]
fn a_broker_of_another_host_is_killed_for_good() {
    let (site, [first, second]) = site("killed-for-good", 2);
    let watcher = begin(&site);
    second.kill();
    publish_laps(&site, 10);
    // Counters are copied out once a second, and ten laps may take less.
    let since = Instant::now();
    while site.counters().sequencer["dropped_pins"] == 0 {
        assert!(since.elapsed() < LIMIT, "it was waited for, and then no longer: no dropped pin was counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(site.counters().sequencer["dropped_pins"], 1, "it was waited for, and then no longer");
    drop((watcher, first));
}

/// On the sequencer's own host its lock is held all the time. When it goes on, its subscriber is told that it was not waited for,
/// and is given nothing that was overwritten.
#[test]
fn a_broker_of_the_same_host_is_stopped_for_long() {
    let (site, [first, second]) = site("stopped-for-long", 1);
    begin(&site);
    let mut subscriber = Subscriber::connect(site.subscriber(TOPIC, 1, Start::Earliest)).unwrap();
    let mut seen = Seen::new(Fifo::Publisher, 0);
    let mut poll = |subscriber: &mut Subscriber| subscriber.poll(Duration::from_millis(20), |batch| seen.take(batch));
    while !subscriber.caught_up() {
        poll(&mut subscriber).unwrap();
    }
    second.signal(Signal::STOP);
    publish_laps(&site, 10);
    second.signal(Signal::CONT);
    let since = Instant::now();
    let error = loop {
        match poll(&mut subscriber) {
            Ok(_) => assert!(since.elapsed() < LIMIT, "it goes on, though what it needed next is gone"),
            Err(error) => break error,
        }
    };
    let ClientError::Refused { code, detail, .. } = error else { panic!("{error}") };
    assert_eq!(Refusal::from_code(code), Some(Refusal::Trimmed), "what it asked for was gone");
    assert_eq!((seen.messages, seen.next_order), (10, 10));
    assert!(detail > 10);
    subscriber.go_on_at(0, Order(detail));
    while !subscriber.caught_up() {
        assert!(subscriber.poll(Duration::from_millis(20), |_| {}).is_ok() && since.elapsed() < 2 * LIMIT);
    }
    drop(first);
}

/// One that promised to be heard and is not is let go, whatever it is; one that promised nothing is kept, and one that is heard.
#[test]
fn clients_that_promised_to_be_heard_and_are_not_are_let_go() {
    let sequencer = "session_lease: 5s }\nliveness: { client_silence: 1s";
    let setup = Setup { brokers: 1, sequencer, receive: "connections_max: 16, hello_timeout: 1s", ..Setup::default() };
    let site = Site::new("silent-clients", &setup);
    let cluster = site.start();
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    let address = site.address(0);
    let publisher = |heartbeat_ms| {
        let mut raw = Raw::connect(&address);
        raw.send(&frame::with_body(&Hello { heartbeat_ms, ..publisher_hello().speaking() }, b"t"));
        assert!(raw.is_welcome());
        raw
    };
    let control = || {
        let mut raw = Raw::connect(&address);
        raw.send(&frame::seal(&Request { operation: Operation::TopicList as u8, ..Request::default() }));
        assert_eq!(raw.expect::<Reply>().code, 0);
        raw
    };
    let (mut silent, mut heard, mut free) = (publisher(200), publisher(200), publisher(0));
    let (mut silent_control, mut heard_control) = (control(), control());
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        heard.send(&frame::seal(&Heartbeat { version: 3, ..Heartbeat::default() }));
        heard_control.send(&frame::seal(&Heartbeat { version: 3, ..Heartbeat::default() }));
        std::thread::sleep(Duration::from_millis(200));
    }
    silent.expect_end();
    silent_control.expect_end();
    heard_control.send(&frame::seal(&Request { operation: Operation::TopicList as u8, ..Request::default() }));
    assert_eq!(heard_control.expect::<Reply>().code, 0);
    assert!(!heard.has_ended() && !free.has_ended());
    drop((heard, free, heard_control));
    cluster.stop();
}
