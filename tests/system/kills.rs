//! Brokers that are interrupted, killed and started again: whatever was acked is there, once and in order, and both
//! publishers and subscribers go on.

use std::time::Duration;

use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{ClientError, Start};

use crate::harness::{LIMIT, Setup, Signal, Site};
use crate::load::{Load, ROOMY, TOPIC, read_all};
use crate::traffic::{Fifo, Watcher, connect, flush, message, publish, send, send_sized, varied_bytes};

fn site(name: &str) -> Site {
    Site::new(name, &ROOMY)
}

/// The whole process is killed and started again, again and again, under load: the publisher's session goes on without a gap
/// or a repetition, and so does a subscriber.
#[test]
fn killed_and_started_again_on_the_same_pool() {
    let site = site("kill-all");
    let mut process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let load = Load::start(site.publisher(TOPIC), 0);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    for round in 0..3 {
        load.wait_for_more(500, &format!("before kill {round}"));
        process.kill();
        let acked = load.acked();
        process = site.process(&[]);
        watcher.read_until("what was acked before the kill", |seen| seen.complete(0) >= acked);
    }
    load.wait_for_more(500, "after the last kill");
    let (sent, publisher) = load.finish();
    watcher.read_exactly(sent);
    assert_eq!(watcher.seen.complete(0), sent);
    assert_eq!(watcher.seen.sessions(), 1, "one session all the time");
    assert!(publisher.stats().reconnects >= 3, "{:?}", publisher.stats());
    assert_eq!(publisher.stats().fences, 0, "nobody was fenced: {:?}", publisher.stats());
    let again = read_all(&site, 3, sent);
    assert_eq!(again.seen.hash, watcher.seen.hash, "who reads later reads the same");
    publisher.close(LIMIT).unwrap();
    // Sessions opened after all this have identities of their own.
    publish(site.publisher(TOPIC), 1, 100);
    watcher.read_exactly(sent + 100);
    assert_eq!(watcher.seen.sessions(), 2);
}

/// SIGINT under load: a clean end in good time, a typed error for the clients that have nowhere to go, and everything acked is
/// there when it is started again.
#[test]
fn interrupted_under_load() {
    let site = site("interrupt");
    let mut process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut options = site.publisher(TOPIC);
    options.connect_timeout = Duration::from_secs(1);
    let mut publisher = connect(options);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 2, Start::Earliest), Fifo::Publisher);
    send(&mut publisher, 0, 0..2000);
    let mut number = 2000;
    process.signal(Signal::INT);
    let error = loop {
        match publisher.send(&message(0, number, varied_bytes(number))) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "a clean end: {status}");
    let timed_out = publisher.flush(Duration::from_millis(200)).expect_err("nobody is there");
    assert!(matches!(timed_out, ClientError::AckTimeout { .. }), "{timed_out}");
    let acked = publisher.messages_acked();
    assert!(acked > 0);
    let _process = site.process(&[]);
    flush(&mut publisher, 0);
    send(&mut publisher, 0, number..number + 1000);
    flush(&mut publisher, 0);
    watcher.read_exactly(number + 1000);
    assert_eq!(watcher.seen.sessions(), 1);
    assert_eq!(read_all(&site, 0, number + 1000).seen.hash, watcher.seen.hash);
    publisher.close(LIMIT).unwrap();
}

/// A reader that takes nothing does not keep a broker from ending.
#[test]
fn interrupted_with_a_reader_that_takes_nothing() {
    let site = site("interrupt-reader");
    let mut process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let _paused = Watcher::connect(site.subscriber(TOPIC, 0, Start::Earliest), Fifo::Publisher);
    let mut options = site.publisher(TOPIC);
    options.batch_bytes = 64 << 10;
    let mut publisher = connect(options);
    // More than the kernel keeps for a socket that nobody reads.
    send_sized(&mut publisher, 0, 0..1600, |_| 16 << 10);
    flush(&mut publisher, 0);
    drop(publisher);
    process.signal(Signal::INT);
    let status = process.wait();
    assert_eq!(status.code(), Some(0), "a clean end: {status}");
}

/// Two processes share a pool; the one without the sequencer is killed under load. Sessions go on over the other's brokers.
#[test]
fn one_of_two_processes_is_killed_under_load() {
    let site = site("kill-half");
    let first = site.process(&["--brokers", "0,1"]);
    let second = site.process(&["--brokers", "2,3"]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut near = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    let mut far = Watcher::connect(site.subscriber(TOPIC, 3, Start::Earliest), Fifo::Publisher);
    let loads = [0, 1].map(|id| Load::start(site.publisher(TOPIC), id));
    loads.iter().for_each(|load| load.wait_for_more(500, "over both processes"));
    second.kill();
    loads.iter().for_each(|load| load.wait_for_more(500, "after one of two processes was killed"));
    let mut total = 0;
    let mut sent = [0; 2];
    for (id, load) in loads.into_iter().enumerate() {
        let (messages, publisher) = load.finish();
        (sent[id], total) = (messages, total + messages);
        assert_eq!(publisher.stats().fences, 0, "{:?}", publisher.stats());
        assert!(publisher.broker_progress().iter().all(|broker| broker.acked > 0), "{:?}", publisher.broker_progress());
        publisher.close(LIMIT).unwrap();
    }
    for watcher in [&mut near, &mut far] {
        watcher.read_exactly(total);
        (0..2).for_each(|id| assert_eq!(watcher.seen.complete(id), sent[id as usize]));
        assert_eq!(watcher.seen.sessions(), 2, "the sessions they began with");
    }
    assert_eq!(near.seen.hash, far.seen.hash, "the one that had to move saw the same");
    // Its brokers come back and are used.
    let third = site.process(&["--brokers", "2,3"]);
    publish(site.publisher(TOPIC), 2, 1000);
    far.read_exactly(total + 1000);
    drop((first, third));
}

/// What a dead process had pinned or blocked does not hold up those who live, however much is published after.
#[test]
fn a_dead_process_holds_no_memory() {
    let site = Site::new("dead-pin", &Setup { pool: "bytes: 32MiB", ..Setup::default() });
    let _first = site.process(&["--brokers", "0,1"]);
    let second = site.process(&["--brokers", "2,3"]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    // A subscriber makes its broker pin what it has not read yet.
    let reader = Watcher::connect(site.subscriber(TOPIC, 3, Start::Earliest), Fifo::Publisher);
    let mut options = site.publisher(TOPIC);
    options.batch_bytes = 64 << 10;
    let mut publisher = connect(options);
    let mut publish = |numbers: std::ops::Range<u64>| {
        send_sized(&mut publisher, 0, numbers, |_| 16 << 10);
        flush(&mut publisher, 0);
    };
    publish(0..200);
    second.kill();
    drop(reader);
    // Three times the pool.
    publish(200..6200);
}
