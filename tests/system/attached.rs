//! Clients that map the pool: beside clients over TCP, under pressure, killed, stopped, and while brokers are killed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embarcadero::config::CoherenceMode;
use embarcadero::log::retention::NO_PIN;
use embarcadero::pool::record::PinLine;
use embarcadero::pool::superblock::SuperblockError;
use embarcadero::pool::{Access, Hardware, Mapped, Peer, PlaceKind, PoolError};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts, Refusal};
use embarcadero::{
    ClientError, Order, OwnedEvent, PoolOptions, Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions,
    TopicProperties,
};

use crate::harness::{ANY, LIMIT, Setup, Site, Task, wait_for};
use crate::load::{Load, TOPIC};
use crate::traffic::{self, Fifo, STAMP_BYTES, Seen, Watcher, deadline, message, publish, read_message, varied_bytes};

/// One place for an attached publisher at each of four brokers.
const PLACES: Setup = Setup {
    brokers: 4,
    hosts: 1,
    pool: "bytes: 160MiB",
    geometry: "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 16, sessions_max: 64, topics_max: 16, \
               attached_per_broker: 1",
    sequencer: "session_lease: 5s",
    receive: "connections_max: 64, hello_timeout: 5s",
    per_address: ANY,
    export: "connections_max: 16",
};

/// So little memory that every extent is used many times over.
const TIGHT: &str = "extent_bytes: 256KiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4, \
                     attached_per_broker: 1";

/// Receives that fit the small extents.
const RECEIVE: &str = "connections_max: 64, receive_bytes_max: 64KiB";

fn pool(path: PathBuf) -> PoolOptions {
    PoolOptions { path, wait: LIMIT, ..PoolOptions::default() }
}

fn to_publish(site: &Site, topic: &str) -> PublisherOptions {
    PublisherOptions {
        pool: pool(site.pool.clone()),
        topic: topic.to_owned(),
        batch_bytes: 4096,
        ..PublisherOptions::default()
    }
}

fn to_subscribe(site: &Site, topic: &str, start: Start) -> SubscriberOptions {
    SubscriberOptions { pool: pool(site.pool.clone()), topic: topic.to_owned(), start, ..SubscriberOptions::default() }
}

fn attach(options: PublisherOptions) -> Publisher {
    Publisher::attach(options).unwrap_or_else(|error| panic!("attaching a publisher: {error}"))
}

fn send(publisher: &mut Publisher, id: u32, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let sent = publisher.send(&message(id, number, varied_bytes(number)));
        sent.unwrap_or_else(|error| panic!("publisher {id}, message {number}: {error}"));
    }
}

fn flush(publisher: &mut Publisher) {
    publisher.flush(LIMIT).unwrap_or_else(|error| panic!("flushing: {error}"));
    assert_eq!(publisher.messages_acked(), publisher.messages_sent());
}

/// An attached subscriber that checks what it gets.
struct Reader {
    subscriber: Subscriber,
    seen: Seen,
}

impl Reader {
    fn attach(options: SubscriberOptions, fifo: Fifo) -> Reader {
        let subscriber = Subscriber::attach(options).unwrap_or_else(|error| panic!("attaching a subscriber: {error}"));
        let seen = Seen::new(fifo, subscriber.next_order().0);
        Reader { subscriber, seen }
    }

    fn read_until(&mut self, what: &str, enough: impl Fn(&Seen) -> bool) {
        let mut until = deadline();
        while !enough(&self.seen) {
            let seen = &mut self.seen;
            let polled = self.subscriber.poll(Duration::from_millis(20), |batch| seen.take(batch));
            if polled.unwrap_or_else(|error| panic!("{error}; seen: {:?}", self.seen)) > 0 {
                until = deadline();
            }
            assert!(Instant::now() < until, "nothing came for {LIMIT:?}, waiting for {what}; seen: {:?}", self.seen);
        }
    }

    fn read_exactly(&mut self, messages: u64) {
        self.read_until(&format!("{messages} messages"), |seen| seen.messages >= messages);
        wait_for("the tail", || {
            let seen = &mut self.seen;
            self.subscriber.poll(Duration::ZERO, |batch| seen.take(batch)).unwrap();
            self.subscriber.caught_up().then_some(())
        });
        assert_eq!(self.seen.messages, messages, "more messages than were published");
    }
}

/// Attached and over TCP, publishing and subscribing, at every order level: each reader sees the same, whole and in order.
#[test]
fn attached_and_connected_clients_see_the_same() {
    let site = Site::new("attached-both", &PLACES);
    let cluster = site.start();
    let levels = [OrderLevel::None, OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection, OrderLevel::Session];
    for (topic, order) in ["a", "b", "c", "d", "e"].into_iter().zip(levels) {
        let receipts = if order == OrderLevel::Total { Receipts::Message } else { Receipts::Batch };
        let ack = if order == OrderLevel::None { AckLevel::None } else { AckLevel::Committed };
        let create = Some(TopicProperties { order, ack, receipts, ..TopicProperties::default() });
        let mut attached = attach(PublisherOptions { create, ack, ..to_publish(&site, topic) });
        assert_eq!(attached.order_level(), order);
        let connected = site.publisher(topic);
        let connected = embarcadero::PublisherOptions { ack, ..connected };
        let other = Task::spawn("the publisher over TCP", move || publish(connected, 1, 2000));
        let mut reader = Reader::attach(to_subscribe(&site, topic, Start::Earliest), order.into());
        let mut watcher = Watcher::connect(site.subscriber(topic, 1, Start::Earliest), order.into());
        send(&mut attached, 0, 0..2000);
        flush(&mut attached);
        other.join();
        reader.read_exactly(4000);
        watcher.read_exactly(4000);
        assert_eq!(reader.seen.hash, watcher.seen.hash, "order level {order}");
        assert_eq!((reader.seen.complete(0), reader.seen.complete(1)), (2000, 2000));
        attached.close(LIMIT).unwrap();
        // From the middle, and from an order that is not the first of a batch.
        let middle = Reader::attach(to_subscribe(&site, topic, Start::Order(Order(2001))), order.into());
        assert_eq!(middle.subscriber.next_order(), 2001);
        let latest = Reader::attach(to_subscribe(&site, topic, Start::Latest), order.into());
        assert_eq!(latest.subscriber.next_order(), 4000);
    }
    cluster.stop();
    assert_eq!(site.counters().sequencer["invalid_slots"], 0);
}

/// With nothing on its way a message has no company to wait for.
#[test]
fn a_lone_attached_message_does_not_linger() {
    let site = Site::new("attached-lone", &PLACES);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut publisher = attach(PublisherOptions { linger: Duration::MAX, ..to_publish(&site, TOPIC) });
    for number in 0..3 {
        send(&mut publisher, 0, number..number + 1);
        wait_for("the ack of a lone message", || {
            publisher.poll(Duration::from_millis(1)).unwrap();
            (publisher.messages_acked() > number).then_some(())
        });
    }
    publisher.close(LIMIT).unwrap();
}

/// Far more than fits the pool, through an attached lane of four small extents: the publisher waits, nothing is lost or damaged,
/// for readers of either kind.
#[test]
fn an_attached_publisher_waits_for_memory_and_drops_nothing() {
    let setup = Setup { brokers: 1, pool: "bytes: 16MiB", geometry: TIGHT, receive: RECEIVE, ..PLACES };
    let site = Site::new("attached-tight", &setup);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut reader = Reader::attach(to_subscribe(&site, TOPIC, Start::Earliest), Fifo::Publisher);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 0, Start::Earliest), Fifo::Publisher);
    const MESSAGES: u64 = 20_000;
    let options = PublisherOptions { batch_bytes: 32 << 10, ..to_publish(&site, TOPIC) };
    let load = Task::spawn("the attached publisher", move || {
        let mut publisher = attach(options);
        for number in 0..MESSAGES {
            publisher.send(&message(0, number, STAMP_BYTES + (number * 7919 % 3000) as usize)).unwrap();
        }
        flush(&mut publisher);
        publisher.stats()
    });
    let follower = Task::spawn("the attached subscriber", move || {
        reader.read_exactly(MESSAGES);
        reader.seen.hash
    });
    watcher.read_exactly(MESSAGES);
    assert_eq!(follower.join(), watcher.seen.hash);
    let stats = load.join();
    assert!(stats.memory_full > 0, "it never waited for memory");
    assert_eq!((stats.fences, stats.let_go), (0, 0));
}

/// Runs `role` in a process of its own: this program again, told what to do by its standard input.
fn child(site: &Site, role: &str) -> Child {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(["--ignored", "--exact", "attached::an_attached_process"]);
    program.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = program.spawn().expect("this program runs");
    writeln!(child.stdin.as_mut().expect("piped"), "{role} {}", site.pool.display()).expect("it reads");
    child
}

fn kill(mut child: Child) {
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}

/// Not a test: what [`child`] runs.
#[test]
#[ignore = "started by the tests of this file, and killed by them"]
fn an_attached_process() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    let Some((role, pool)) = line.trim_end().split_once(' ') else { return eprintln!("nobody said what to do") };
    let pool = self::pool(PathBuf::from(pool));
    match role {
        "publish" => {
            let mut publisher = attach(PublisherOptions {
                pool,
                topic: TOPIC.to_owned(),
                batch_bytes: 64 << 10,
                ..PublisherOptions::default()
            });
            send(&mut publisher, 7, 0..u64::MAX);
        }
        "subscribe" => {
            let options = SubscriberOptions { pool, topic: TOPIC.to_owned(), ..Default::default() };
            let mut subscriber = Subscriber::attach(options).unwrap();
            let mut seen = 0;
            while seen == 0 {
                seen = subscriber.poll(Duration::from_secs(1), |_| ()).unwrap();
            }
            std::thread::sleep(20 * LIMIT);
        }
        role => panic!("no such role: {role:?}"),
    }
}

/// Killed in the middle of a batch, again and again: its published batches are in the order, the rest never was; its place is free
/// for the next; and a session over TCP goes on without a fence.
#[test]
fn a_killed_attached_publisher_frees_its_place_and_stops_nobody() {
    let setup = Setup { geometry: TIGHT, receive: RECEIVE, brokers: 1, pool: "bytes: 32MiB", ..PLACES };
    let site = Site::new("attached-kill", &setup);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let load = Load::start_at(site.publisher(TOPIC), 0, Duration::from_millis(1));
    for round in 0..3 {
        let mut reader = AttachedReaderOf::session(&site, 7);
        let process = child(&site, "publish");
        reader.see_more(200, &format!("before kill {round}"));
        assert!(matches!(
            Publisher::attach(to_publish(&site, TOPIC)),
            Err(ClientError::NoPlace { places: 1, kind: PlaceKind::Publisher, .. })
        ));
        kill(process);
        // It would be waited for, as long as `reader_stall`.
        drop(reader);
        load.wait_for_more(200, "after the kill");
        // The next one has the place, and goes on behind what the dead one left.
        let mut next = attach(to_publish(&site, TOPIC));
        send(&mut next, 100 + round, 0..500);
        flush(&mut next);
        next.close(LIMIT).unwrap();
        load.wait_for_more(200, "after the next publisher");
    }
    let (_, publisher) = load.finish();
    assert_eq!(publisher.stats().fences, 0, "{:?}", publisher.stats());
}

/// Counts a publisher's messages, whole and in order, from whatever comes next.
struct AttachedReaderOf {
    subscriber: Subscriber,
    id: u32,
    next: u64,
}

impl AttachedReaderOf {
    fn session(site: &Site, id: u32) -> Self {
        let subscriber = Subscriber::attach(to_subscribe(site, TOPIC, Start::Latest)).unwrap();
        AttachedReaderOf { subscriber, id, next: 0 }
    }

    fn see_more(&mut self, messages: u64, when: &str) {
        let (goal, id) = (self.next + messages, self.id);
        let until = deadline();
        while self.next < goal {
            let next = &mut self.next;
            let polled = self.subscriber.poll(Duration::from_millis(20), |batch| {
                for (_, found) in batch.messages().filter(|(_, found)| read_message(found.payload).0 == id) {
                    assert_eq!(found.payload, message(id, *next, varied_bytes(*next)));
                    *next += 1;
                }
            });
            polled.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(Instant::now() < until, "waited {LIMIT:?} for {messages} messages {when}");
        }
    }
}

/// A subscriber is killed while its pin holds everything: the pin goes with it, and publishers go on.
#[test]
fn the_pin_of_a_killed_attached_subscriber_goes() {
    let setup = Setup {
        geometry: TIGHT,
        receive: RECEIVE,
        brokers: 1,
        pool: "bytes: 16MiB",
        export: "reader_stall: 1h",
        ..PLACES
    };
    let site = Site::new("attached-pin", &setup);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    publish(site.publisher(TOPIC), 0, 100);
    let pins = || {
        let (layout, memory) =
            (site.pool_now().layout().clone(), Mapped::<Hardware>::new(site.pool_now().mapping().clone()));
        let g = layout.geometry;
        g.members_of(PlaceKind::Subscriber).any(|member| {
            let pin: Peer<PinLine, _> = Peer::new(memory.clone(), layout.pin_line(member), Access::Remote);
            pin.observe().is_some_and(|pin| pin.position < NO_PIN)
        })
    };
    // One that leaves in good order takes it along: on another host nobody would see its end.
    let leaving = Subscriber::attach(to_subscribe(&site, TOPIC, Start::Earliest)).unwrap();
    assert!(pins(), "one that is there");
    drop(leaving);
    assert!(!pins(), "one that has left");
    let process = child(&site, "subscribe");
    wait_for("its pin", || pins().then_some(()));
    let mut publisher = attach(PublisherOptions { batch_bytes: 32 << 10, ..to_publish(&site, TOPIC) });
    // Until its pin stops the publisher.
    let mut sent = 0;
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_secs(2) {
        match publisher.try_send(&message(1, sent, 1000)).unwrap() {
            true => (sent, moved) = (sent + 1, Instant::now()),
            false => drop(publisher.poll(Duration::from_millis(5)).unwrap()),
        }
        assert!(sent < 200_000, "nothing holds this publisher back");
    }
    kill(process);
    for number in sent..sent + 5000 {
        publisher.send(&message(1, number, 1000)).unwrap();
    }
    flush(&mut publisher);
}

/// A subscriber that lives and is not polled: publishers wait for it for `reader_stall` and no longer; it is told.
#[test]
fn a_silent_attached_subscriber_is_not_waited_for() {
    let setup = Setup {
        geometry: TIGHT,
        receive: RECEIVE,
        brokers: 1,
        pool: "bytes: 16MiB",
        export: "reader_stall: 300ms",
        ..PLACES
    };
    let site = Site::new("attached-silent", &setup);
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut silent = Reader::attach(to_subscribe(&site, TOPIC, Start::Earliest), Fifo::Publisher);
    let mut busy = Reader::attach(to_subscribe(&site, TOPIC, Start::Earliest), Fifo::Publisher);
    const MESSAGES: u64 = 30_000;
    let options = PublisherOptions { batch_bytes: 32 << 10, ..to_publish(&site, TOPIC) };
    let load = Task::spawn("the attached publisher", move || {
        let mut publisher = attach(options);
        (0..MESSAGES).for_each(|number| publisher.send(&message(0, number, 1000)).unwrap());
        flush(&mut publisher);
    });
    busy.read_exactly(MESSAGES);
    load.join();
    let told = silent.subscriber.poll(Duration::ZERO, |_| panic!("it may be overwritten")).expect_err("not waited for");
    assert!(matches!(told, ClientError::TooSlow { next_order: Order(0), .. }), "{told}");
    // What it wants next is gone.
    let gone = wait_for("the earliest order", || silent.subscriber.poll(Duration::ZERO, |_| ()).err());
    assert_eq!(gone.refusal(), Some(Refusal::Trimmed), "{gone}");
    let ClientError::PoolRefused { detail: mut earliest, .. } = gone else { panic!("{gone}") };
    assert!(earliest > 0 && earliest < MESSAGES);
    // It goes on there itself. A lane that is still short gives up more meanwhile.
    wait_for("the subscriber to go on", || {
        silent.subscriber.go_on_at(0, Order(earliest));
        match silent.subscriber.batches(LIMIT).next() {
            Some(Ok(OwnedEvent::Batch(batch))) => {
                let (order, message) = batch.messages().next().expect("a batch has a message");
                let end = batch.messages().last().unwrap().0 + 1;
                assert_eq!((order, silent.subscriber.next_order()), (Order(earliest), end));
                assert_eq!(read_message(message.payload), (0, earliest));
                Some(())
            }
            Some(Err(ClientError::PoolRefused { detail, .. })) if detail > earliest => {
                earliest = detail;
                None
            }
            other => panic!("{other:?}"),
        }
    });
    // The slots of its place are good for another start. A lane that is still short gives up more meanwhile.
    let again = wait_for("a start that is kept", || {
        match Subscriber::attach(to_subscribe(&site, TOPIC, Start::Order(Order(earliest)))) {
            Ok(subscriber) => Some(subscriber),
            Err(ClientError::PoolRefused { detail, .. }) if detail > earliest => {
                earliest = detail;
                None
            }
            Err(error) => panic!("attaching again at {earliest}: {error}"),
        }
    });
    assert_eq!(again.next_order(), earliest);
    cluster.stop();
    assert!(site.counters().sequencer["dropped_pins"] > 0);
}

/// A handler that does not return while publishers want the memory that its batch came from: they have it, the bytes it was given
/// stay what they were, and the subscriber is told that it was not waited for.
#[test]
fn a_handler_that_takes_too_long_keeps_its_bytes() {
    let geometry = TIGHT;
    let export = "reader_stall: 300ms";
    let setup = Setup { geometry, receive: RECEIVE, brokers: 1, pool: "bytes: 16MiB", export, ..PLACES };
    let site = Site::new("attached-stuck", &setup);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut stuck = Subscriber::attach(to_subscribe(&site, TOPIC, Start::Earliest)).unwrap();
    let options = PublisherOptions { batch_bytes: 32 << 10, ..to_publish(&site, TOPIC) };
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let finished = done.clone();
    let load = Task::spawn("the attached publisher", move || {
        let mut publisher = attach(options);
        (0..30_000).for_each(|number| publisher.send(&message(0, number, 1000)).unwrap());
        flush(&mut publisher);
        finished.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut calls = 0;
    let mut next = 0;
    let told = stuck.poll(LIMIT, |batch| {
        calls += 1;
        wait_for("the publisher", || done.load(std::sync::atomic::Ordering::Relaxed).then_some(()));
        for (order, found) in batch.messages() {
            assert_eq!(
                (order.0, found.payload),
                (next, &message(0, order.0, 1000)[..]),
                "overwritten under the handler"
            );
            next += 1;
        }
    });
    let told = told.expect_err("it was not waited for");
    assert!(matches!(told, ClientError::TooSlow { next_order, .. } if next_order == next && next > 0), "{told}");
    assert_eq!(calls, 1);
    load.join();
}

/// Who cannot attach is told why.
#[test]
fn what_cannot_be_attached_to_is_told() {
    let site = Site::new("attached-errors", &PLACES);
    let refused = |options| Publisher::attach(options).expect_err("it cannot attach");
    let missing = refused(to_publish(&site, TOPIC));
    assert!(matches!(&missing, ClientError::Pool(error) if matches!(**error, PoolError::Missing { .. })), "{missing}");
    let cluster = site.start();
    let unknown = refused(to_publish(&site, "nobody"));
    assert_eq!(unknown.refusal(), Some(Refusal::UnknownTopic), "{unknown}");
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let here = || pool(site.pool.clone());
    let no_host = refused(PublisherOptions { pool: PoolOptions { host: 1, ..here() }, ..to_publish(&site, TOPIC) });
    assert!(matches!(no_host, ClientError::Option { option: "host", .. }), "{no_host}");
    let hardware = refused(PublisherOptions {
        pool: PoolOptions { coherence: CoherenceMode::Hardware, ..here() },
        ..to_publish(&site, TOPIC)
    });
    let differs = |error: &PoolError| matches!(error, PoolError::Coherence { .. });
    assert!(matches!(&hardware, ClientError::Pool(error) if differs(error)), "{hardware}");
    let no_acks = refused(PublisherOptions { ack: AckLevel::None, ..to_publish(&site, TOPIC) });
    assert_eq!(no_acks.refusal(), Some(Refusal::AckLevel), "{no_acks}");
    let durable = TopicProperties { replicas: 3, ..TopicProperties::default() };
    let no_replicas = refused(PublisherOptions { create: Some(durable), ..to_publish(&site, "r") });
    assert_eq!(no_replicas.refusal(), Some(Refusal::AckLevel), "{no_replicas}");
    // Every place is taken, and each is free again.
    let all: Vec<_> = (0..4).map(|_| attach(to_publish(&site, TOPIC))).collect();
    let full = refused(to_publish(&site, TOPIC));
    assert!(matches!(full, ClientError::NoPlace { places: 4, kind: PlaceKind::Publisher, .. }), "{full}");
    let lanes: std::collections::BTreeSet<_> = all.iter().filter_map(Publisher::lane).collect();
    assert_eq!(lanes.len(), 4, "a lane of its own for each");
    drop(all);
    attach(to_publish(&site, TOPIC)).close(LIMIT).unwrap();
    let too_large = attach(to_publish(&site, TOPIC)).try_send(&vec![0; 1 << 20]).expect_err("no batch holds it");
    assert!(matches!(too_large, ClientError::PayloadTooLarge { .. }), "{too_large}");
    cluster.stop();
    // Other files.
    let file = site.file("not-a-pool");
    std::fs::write(&file, vec![7; 8192]).unwrap();
    let foreign = refused(PublisherOptions { pool: pool(file.clone()), ..to_publish(&site, TOPIC) });
    let is_foreign =
        |error: &PoolError| matches!(error, PoolError::Superblock { source: SuperblockError::Foreign { .. }, .. });
    assert!(matches!(&foreign, ClientError::Pool(error) if is_foreign(error)), "{foreign}");
    let mut head = std::fs::read(&site.pool).unwrap()[..8192].to_vec();
    head[8] = 77;
    std::fs::write(&file, head).unwrap();
    let version = refused(PublisherOptions { pool: pool(file), ..to_publish(&site, TOPIC) });
    assert!(version.to_string().contains("layout version is 77"), "{version}");
}

/// A pool formatted without places has none.
#[test]
fn a_pool_without_places_says_so() {
    let site = Site::new("attached-none", &Setup { brokers: 1, ..Setup::default() });
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let none = Publisher::attach(to_publish(&site, TOPIC)).expect_err("there is none");
    assert!(none.to_string().contains("has 0 places") && none.to_string().contains("attached_per_broker"), "{none}");
    let none = Subscriber::attach(to_subscribe(&site, TOPIC, Start::Earliest)).expect_err("there is none");
    assert!(matches!(none, ClientError::NoPlace { kind: PlaceKind::Subscriber, .. }), "{none}");
}

/// Every broker process is killed and started again, sequencer and all, and attached clients go on with the sessions and positions
/// they had.
#[test]
fn brokers_are_killed_and_started_again_under_attached_clients() {
    let site = Site::new("attached-restart", &PLACES);
    let mut process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut publisher = attach(to_publish(&site, TOPIC));
    let mut reader = Reader::attach(to_subscribe(&site, TOPIC, Start::Earliest), Fifo::Publisher);
    let mut sent = 0;
    for _ in 0..3 {
        send(&mut publisher, 0, sent..sent + 1000);
        sent += 1000;
        process.kill();
        // In flight while nobody orders it.
        send(&mut publisher, 0, sent..sent + 200);
        sent += 200;
        process = site.process(&[]);
        flush(&mut publisher);
        reader.read_exactly(sent);
    }
    assert_eq!(reader.seen.sessions(), 1, "one session all the time");
    assert_eq!(publisher.stats().fences, 0);
    publisher.close(LIMIT).unwrap();
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 2, Start::Earliest), Fifo::Publisher);
    watcher.read_exactly(sent);
    assert_eq!(watcher.seen.hash, reader.seen.hash);
}

/// The sequencer's process is killed and the other half's candidate goes on: attached clients do not notice.
#[test]
fn the_sequencer_is_succeeded_under_attached_clients() {
    let sequencer = "candidates: 2, session_lease: 20s";
    let site = Site::new("attached-succeeded", &Setup { sequencer, ..PLACES });
    let mut halves = ["0,1", "2,3"].map(|brokers| Some(site.process(&["--brokers", brokers])));
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut publisher = attach(to_publish(&site, TOPIC));
    let mut reader = Reader::attach(to_subscribe(&site, TOPIC, Start::Earliest), Fifo::Publisher);
    let mut sent = 0;
    for (round, half) in [0, 1, 0].into_iter().enumerate() {
        halves[half].as_ref().expect("it runs").wait_for_line(&format!("active, epoch {}", round + 1));
        send(&mut publisher, 0, sent..sent + 2000);
        halves[half].take().expect("it runs").kill();
        send(&mut publisher, 0, sent + 2000..sent + 4000);
        sent += 4000;
        flush(&mut publisher);
        reader.read_exactly(sent);
        halves[half] = Some(site.process(&["--brokers", ["0,1", "2,3"][half]]));
    }
    assert_eq!((publisher.stats().fences, reader.seen.sessions()), (0, 1));
}

/// Several of each in one process, at once.
#[test]
fn many_attached_clients_of_one_process() {
    let site = Site::new("attached-many", &PLACES);
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let publishers: Vec<_> = (0..4)
        .map(|id| {
            let options = to_publish(&site, TOPIC);
            Task::spawn(format!("attached publisher {id}"), move || {
                let mut publisher = attach(options);
                send(&mut publisher, id, 0..3000);
                flush(&mut publisher);
            })
        })
        .collect();
    let readers: Vec<_> = (0..6)
        .map(|id| {
            let options = to_subscribe(&site, TOPIC, Start::Earliest);
            Task::spawn(format!("attached subscriber {id}"), move || {
                let mut reader = Reader::attach(options, Fifo::Publisher);
                reader.read_exactly_all(12_000);
                reader.seen.hash
            })
        })
        .collect();
    publishers.into_iter().for_each(Task::join);
    let hashes: std::collections::BTreeSet<u64> = readers.into_iter().map(Task::join).collect();
    assert_eq!(hashes.len(), 1, "all readers see the same");
    traffic::publish(site.publisher(TOPIC), 50, 10);
}

impl Reader {
    /// Reads this many messages, while more may come.
    fn read_exactly_all(&mut self, messages: u64) {
        self.read_until(&format!("{messages} messages"), |seen| seen.messages >= messages);
        assert_eq!(self.seen.messages, messages);
    }
}
