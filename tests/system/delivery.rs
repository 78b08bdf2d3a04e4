//! Delivery: several topics over one connection, starts by time, slow readers under each policy, zero-copy sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embarcadero::wire::{OrderLevel, Receipts, Refusal};
use embarcadero::{
    ClientError, Delivered, Event, Order, OwnedEvent, SlowReaderPolicy, Start, Subscriber, SubscriberOptions,
};

use crate::harness::{LIMIT, Setup, Site, Task, wait_for};
use crate::traffic::{Fifo, Seen, Watcher, connect, flush, message, publish, send_sized};

const MESSAGE_BYTES: usize = 16 << 10;
const TOPICS: [&str; 3] = ["a", "b", "c"];

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// A subscription to several topics, each checked like one of its own, and all in one total order.
struct Several {
    subscriber: Subscriber,
    seen: Vec<Seen>,
    last_position: Option<u64>,
}

impl Several {
    fn connect(options: SubscriberOptions) -> Several {
        let subscriber = Subscriber::connect(options).unwrap_or_else(|error| panic!("{error}"));
        let places = 0..subscriber.topics().count();
        let seen = places.map(|place| Seen::new(Fifo::Publisher, subscriber.next_order_of(place).0)).collect();
        Several { subscriber, seen, last_position: None }
    }

    fn read_to_the_tail(&mut self, messages: u64) {
        let deadline = Instant::now() + LIMIT;
        while self.seen.iter().map(|seen| seen.messages).sum::<u64>() < messages || !self.subscriber.caught_up() {
            assert!(Instant::now() < deadline, "waited {LIMIT:?} for {messages} messages; seen: {:?}", self.seen);
            let (seen, last) = (&mut self.seen, &mut self.last_position);
            let each = &mut |batch: &Delivered<'_>| {
                assert!(last.is_none_or(|last| last < batch.position.0), "one total order over all topics");
                *last = Some(batch.position.0);
                seen[batch.place].take(batch);
            };
            self.subscriber.poll(Duration::from_millis(20), each).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Three topics published at once are read over one connection, from different starts; each is what a subscriber of that topic
/// alone sees. The broker is killed once; the subscription goes on where each topic was.
#[test]
fn several_topics_come_over_one_connection_in_one_order() {
    const MESSAGES: u64 = 600;
    let site = Site::new("several", &Setup { brokers: 2, ..Setup::default() });
    let cluster = site.start();
    TOPICS.iter().for_each(|topic| site.create_topic(topic, OrderLevel::Session, Receipts::Batch));
    let publish_all = |from: u32| {
        let one = |(id, topic): (usize, &&str)| {
            let (options, id) = (site.publisher(topic), 10 * from + id as u32);
            Task::spawn(format!("publisher {id}"), move || publish(options, id, MESSAGES))
        };
        TOPICS.iter().enumerate().map(one).collect::<Vec<_>>().into_iter().for_each(Task::join);
    };
    publish_all(0);
    let more_topics = vec![("b".to_owned(), Start::Latest), ("c".to_owned(), Start::Earliest)];
    let mut several = Several::connect(SubscriberOptions {
        more_topics,
        ..site.subscriber("a", 1, Start::Order(Order(MESSAGES - 7)))
    });
    assert_eq!(several.subscriber.topics().collect::<Vec<_>>(), TOPICS);
    let starts: Vec<u64> = (0..3).map(|place| several.subscriber.next_order_of(place).0).collect();
    assert_eq!(starts, [MESSAGES - 7, MESSAGES, 0]);
    // Positions below the start of `a` hold batches of it: one that begins below the start is filtered message by message.
    let mut first = Vec::new();
    while several.subscriber.next_order_of(0) < MESSAGES {
        let each = &mut |batch: &Delivered<'_>| {
            if batch.place == 0 {
                first.extend(batch.messages().map(|(order, _)| order));
            } else {
                several.seen[batch.place].take(batch);
            }
            assert!(several.last_position.is_none_or(|last| last < batch.position.0));
            several.last_position = Some(batch.position.0);
        };
        several.subscriber.poll(Duration::from_millis(20), each).unwrap();
    }
    assert_eq!(first, (MESSAGES - 7..MESSAGES).collect::<Vec<_>>());
    several.seen[0] = Seen::new(Fifo::Publisher, MESSAGES);
    several.read_to_the_tail(MESSAGES);
    publish_all(1);
    several.read_to_the_tail(4 * MESSAGES);
    assert_eq!(several.seen.iter().map(|seen| seen.messages).collect::<Vec<_>>(), [MESSAGES, MESSAGES, 2 * MESSAGES]);
    let mut alone = Watcher::connect(site.subscriber("c", 0, Start::Earliest), Fifo::Publisher);
    alone.read_exactly(2 * MESSAGES);
    assert_eq!(alone.seen.hash, several.seen[2].hash, "as a subscriber of that topic alone");
    drop((alone, several));
    cluster.stop();
    site.counters().check_conserved();
}

/// The iterator copies: what it gave outlives it, and what it was not asked for is not lost.
#[test]
fn an_iterator_gives_owned_batches() {
    const MESSAGES: u64 = 300;
    let site = Site::new("iterator", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    publish(site.publisher("a"), 0, MESSAGES);
    let options = SubscriberOptions { check_crc: false, ..site.subscriber("a", 0, Start::Earliest) };
    let mut subscriber = Subscriber::connect(options).unwrap();
    let idle = Duration::from_millis(500);
    let mut kept = Vec::new();
    for stop_after in [1, 2, usize::MAX] {
        kept.extend(subscriber.batches(idle).take(stop_after).map(|item| match item.unwrap() {
            OwnedEvent::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }));
    }
    let orders = kept.iter().flat_map(|batch| batch.messages()).map(|(order, _)| order);
    assert!(orders.eq(0..MESSAGES));
    drop(subscriber);
    cluster.stop();
}

#[test]
fn a_start_by_time_is_the_first_batch_received_then() {
    const MESSAGES: u64 = 200;
    let site = Site::new("time", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    let before = now_ns();
    publish(site.publisher("a"), 0, MESSAGES);
    let between = now_ns();
    publish(site.publisher("a"), 1, MESSAGES);
    let next = |start| Subscriber::connect(site.subscriber("a", 0, start)).unwrap().next_order();
    assert_eq!(next(Start::Timestamp(0)), 0);
    assert_eq!(next(Start::Timestamp(before)), 0);
    assert_eq!(next(Start::Timestamp(between)), MESSAGES);
    assert_eq!(next(Start::Timestamp(now_ns() + 3_600_000_000_000)), 2 * MESSAGES, "past the end: what comes next");
    let mut watcher = Watcher::connect(site.subscriber("a", 0, Start::Timestamp(between)), Fifo::No);
    watcher.read_exactly(MESSAGES);
    drop(watcher);
    cluster.stop();
}

/// A small pool on one broker, and a topic on it.
fn small(name: &str, export: &'static str) -> Site {
    let geometry =
        "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4";
    Site::new(name, &Setup { brokers: 1, pool: "bytes: 16MiB", geometry, export, ..Setup::default() })
}

fn slow(site: &Site, slow_reader: SlowReaderPolicy) -> SubscriberOptions {
    SubscriberOptions { slow_reader, ..site.subscriber("a", 0, Start::Earliest) }
}

/// Publishes several times what the pool and the kernel's buffers hold.
fn fill(site: &Site, messages: u64) {
    let mut options = site.publisher("a");
    options.batch_bytes = 64 << 10;
    let mut publisher = connect(options);
    send_sized(&mut publisher, 0, 0..messages, |_| MESSAGE_BYTES);
    flush(&mut publisher, 0);
    assert_eq!(publisher.stats().fences, 0);
    publisher.close(LIMIT).unwrap();
}

/// What a subscriber was given, told it missed, and the error that ended it.
#[derive(Default)]
struct Told {
    /// Orders handed on, in pieces without a gap.
    pieces: Vec<(u64, u64)>,
    skips: Vec<(u64, u64)>,
    error: Option<ClientError>,
}

/// Reads to the end, or to the first error, checking every message.
fn read_on(subscriber: &mut Subscriber) -> Told {
    let (mut told, deadline) = (Told::default(), Instant::now() + LIMIT);
    let mut is_quiet = false;
    // It may have been told that it had caught up long before the end of what it has not read.
    while told.error.is_none() && !(is_quiet && subscriber.caught_up()) {
        assert!(Instant::now() < deadline, "it never catches up: {:?} {:?}", told.pieces, told.skips);
        let each = &mut |event: Event<'_>| match event {
            Event::Batch(batch) => {
                for (order, found) in batch.messages() {
                    assert!(found.payload == message(0, order.0, MESSAGE_BYTES), "message {order} is another's");
                    match told.pieces.last_mut() {
                        Some((_, end)) if *end == order.0 => *end += 1,
                        _ => told.pieces.push((order.0, order.0 + 1)),
                    }
                }
            }
            Event::Skipped { from, next_order, .. } => told.skips.push((from.0, next_order.0)),
        };
        let polled = subscriber.poll_events(Duration::from_millis(20), each);
        is_quiet = matches!(polled, Ok(0));
        told.error = polled.err();
    }
    told
}

/// It is stopped while four times the pool is published. Publishers go on; when it reads on it is told exactly what is missing.
#[test]
fn a_stopped_reader_that_skips_is_told_what_it_missed() {
    const MESSAGES: u64 = 4000;
    for send in ["copy", "zero_copy"] {
        let site = match send {
            "copy" => small("skips", "connections_max: 16, reader_grace: 20ms, reader_stall: 30s, send: copy"),
            _ => small("skips-zc", "connections_max: 16, reader_grace: 20ms, reader_stall: 30s, send: zero_copy"),
        };
        let cluster = site.start();
        site.create_topic("a", OrderLevel::Session, Receipts::Batch);
        let mut subscriber = Subscriber::connect(slow(&site, SlowReaderPolicy::Skip)).unwrap();
        fill(&site, MESSAGES);
        let told = read_on(&mut subscriber);
        assert!(told.error.is_none(), "{send}: {:?}", told.error);
        let mut all = [told.pieces.clone(), told.skips.clone()].concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "pieces and skips fit together: {all:?}");
        assert_eq!((all[0].0, all.last().unwrap().1), (0, MESSAGES));
        assert!(!told.skips.is_empty() && told.pieces.len() > 1, "{:?} {:?}", told.pieces, told.skips);
        let missed: u64 = told.skips.iter().map(|(from, next)| next - from).sum();
        assert_eq!(subscriber.skipped_messages(), missed);
        drop(subscriber);
        cluster.stop();
        let counters = site.counters();
        counters.check_conserved();
        assert_eq!(counters.export[0]["skipped_messages"], missed);
        // Pages lent to a socket come back only by its reset, once; then it asks for what is gone, and skips.
        let resets = u64::from(send == "zero_copy");
        assert_eq!(counters.export[0]["too_slow"], resets, "{counters:#?}");
        assert!(counters.export[0]["skips"] > 0 || resets == 1, "{counters:#?}");
    }
}

/// It is let go as soon as publishers wait for it, with the end of what it was being sent, and learns the earliest order.
#[test]
fn a_stopped_reader_that_may_be_disconnected_is() {
    const MESSAGES: u64 = 4000;
    let site = small("disconnects", "connections_max: 16, reader_grace: 20ms, reader_stall: 30s");
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    let mut subscriber = Subscriber::connect(slow(&site, SlowReaderPolicy::Disconnect)).unwrap();
    fill(&site, MESSAGES);
    let told = read_on(&mut subscriber);
    let Some(ClientError::Refused { code, detail, place, .. }) = told.error else { panic!("{:?}", told.error) };
    // The words `TooSlow` made it come back by itself; what it asked for was gone.
    assert_eq!((Refusal::from_code(code), place), (Some(Refusal::Trimmed), 0));
    let [(0, end)] = told.pieces[..] else { panic!("one piece from the beginning: {:?}", told.pieces) };
    assert!(detail > end && detail < MESSAGES, "{detail} is the earliest after {end}");
    assert_eq!(site.counters().export[0]["skips"], 0);
    subscriber.go_on_at(0, Order(detail));
    let told = read_on(&mut subscriber);
    assert!(told.error.is_none(), "{:?}", told.error);
    assert_eq!(told.pieces, [(detail, MESSAGES)]);
    drop(subscriber);
    cluster.stop();
    let counters = site.counters();
    assert_eq!(counters.export[0]["too_slow"], 1);
    counters.check_conserved();
}

/// It is waited for while it lags little, and let go beyond that, long before `reader_stall`.
#[test]
fn a_stopped_reader_is_waited_for_up_to_its_lag() {
    const MESSAGES: u64 = 3000;
    let site = small("lags", "connections_max: 16, reader_stall: 60s");
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    // More than the pool holds: publishers wait.
    let patient = SlowReaderPolicy::Wait { lag_bytes: 1 << 30 };
    let mut subscriber = Subscriber::connect(slow(&site, patient)).unwrap();
    let mut options = site.publisher("a");
    options.batch_bytes = 64 << 10;
    let publisher = Task::spawn("the publisher", move || {
        let mut publisher = connect(options);
        send_sized(&mut publisher, 0, 0..MESSAGES, |_| MESSAGE_BYTES);
        flush(&mut publisher, 0);
        publisher.close(LIMIT).unwrap();
    });
    wait_for("publishers to wait for it", || (site.counters().received("extent_wait") > 0).then_some(()));
    let mut told = Told::default();
    while told.pieces.last().is_none_or(|(_, end)| *end < MESSAGES) {
        let more = read_on(&mut subscriber);
        assert!(more.error.is_none() && more.skips.is_empty(), "{:?} {:?}", more.error, more.skips);
        told.pieces.extend(more.pieces);
    }
    publisher.join();
    drop(subscriber);
    // Less than the pool holds: it is let go.
    let impatient = SubscriberOptions {
        slow_reader: SlowReaderPolicy::Wait { lag_bytes: 1 << 20 },
        ..site.subscriber("a", 0, Start::Latest)
    };
    let subscriber = Subscriber::connect(impatient).unwrap();
    fill(&site, MESSAGES);
    wait_for("the lagging reader to be counted", || (site.counters().export[0]["too_slow"] == 1).then_some(()));
    drop(subscriber);
    cluster.stop();
    site.counters().check_conserved();
}

/// A subscription that skips and asks for an order that is gone is told what it missed, not refused.
#[test]
fn an_order_that_is_gone_is_skipped_or_refused() {
    const MESSAGES: u64 = 3000;
    let site = small("gone", "connections_max: 16");
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    fill(&site, MESSAGES);
    let refused = Subscriber::connect(site.subscriber("a", 0, Start::Order(Order(3)))).err();
    let Some(ClientError::Refused { code, detail, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(Refusal::from_code(code), Some(Refusal::Trimmed));
    let options =
        SubscriberOptions { slow_reader: SlowReaderPolicy::Skip, ..site.subscriber("a", 0, Start::Order(Order(3))) };
    let mut subscriber = Subscriber::connect(options).unwrap();
    assert_eq!(subscriber.next_order(), 3);
    let told = read_on(&mut subscriber);
    assert_eq!((told.skips, told.pieces), (vec![(3, detail)], vec![(detail, MESSAGES)]));
    drop(subscriber);
    cluster.stop();
}

/// Zero-copy sends, over loopback: partial sends, and pins that hold until the kernel gives the bytes back.
#[test]
fn zero_copy_sends_deliver_the_same() {
    const MESSAGES: u64 = 3000;
    let site = small("zero-copy", "connections_max: 16, send: zero_copy");
    let cluster = site.start();
    site.create_topic("a", OrderLevel::Session, Receipts::Batch);
    let mut watchers: Vec<_> =
        (0..2).map(|_| Subscriber::connect(slow(&site, SlowReaderPolicy::AsConfigured)).unwrap()).collect();
    let options = site.publisher("a");
    let publisher = Task::spawn("the publisher", move || {
        let mut publisher = connect(options);
        send_sized(&mut publisher, 0, 0..MESSAGES, |_| MESSAGE_BYTES);
        flush(&mut publisher, 0);
        publisher.close(LIMIT).unwrap();
    });
    let mut ends = BTreeMap::new();
    let stop = Instant::now() + LIMIT;
    while ends.values().filter(|end| **end == MESSAGES).count() < 2 {
        assert!(Instant::now() < stop, "only {ends:?} came");
        for (number, subscriber) in watchers.iter_mut().enumerate() {
            let end = ends.entry(number).or_insert(0);
            let each = &mut |batch: &Delivered<'_>| {
                for (order, found) in batch.messages() {
                    assert_eq!(order, *end);
                    assert!(found.payload == message(0, order.0, MESSAGE_BYTES), "message {order} is another's");
                    *end += 1;
                }
            };
            subscriber.poll(Duration::from_millis(1), each).unwrap();
        }
    }
    publisher.join();
    drop(watchers);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert!(counters.export[0]["zero_copy_copied"] > 0, "on loopback the kernel copies zero-copy sends, and says so");
}
