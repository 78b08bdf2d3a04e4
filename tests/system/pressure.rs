//! Memory runs out: publishers wait for readers and for the sequencer, nothing is lost, and it goes on.

use embarcadero::Start;
use embarcadero::wire::{OrderLevel, Receipts};

use crate::harness::{LIMIT, Setup, Site, Task, wait_for};
use crate::traffic::{Fifo, Watcher, connect, flush, message, send_sized};

const TOPIC: &str = "t";
const MESSAGE_BYTES: usize = 16 << 10;

/// Four brokers on a pool of four times four extents of 256 KiB, and the smallest ring and index.
fn small(name: &str) -> Site {
    let geometry =
        "extent_bytes: 256KiB, ring_slots: 64, segment_entries: 256, segments: 4, sessions_max: 16, topics_max: 4";
    Site::new(
        name,
        &Setup {
            pool: "bytes: 16MiB",
            geometry,
            receive: "receive_bytes_max: 256KiB, connections_max: 64",
            ..Setup::default()
        },
    )
}

/// A subscriber that pauses holds the publishers up once the pool is full; when it reads on, everything is there.
#[test]
fn a_paused_subscriber_makes_publishers_wait_and_loses_nothing() {
    const MESSAGES: u64 = 4000;
    let site = small("paused");
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut paused = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    // Fill the pool and every buffer on the way, until no message goes in and no ack comes for a while.
    let mut options = site.publisher(TOPIC);
    options.batch_bytes = 64 << 10;
    let mut publisher = connect(options);
    let mut number = 0;
    let mut quiet_since = std::time::Instant::now();
    let mut acked = 0;
    while number < MESSAGES && quiet_since.elapsed() < std::time::Duration::from_millis(500) {
        if publisher.try_send(&message(0, number, MESSAGE_BYTES)).unwrap() {
            number += 1;
            quiet_since = std::time::Instant::now();
        } else {
            publisher.poll(std::time::Duration::from_millis(5)).unwrap();
        }
        if publisher.messages_acked() > acked {
            acked = publisher.messages_acked();
            quiet_since = std::time::Instant::now();
        }
    }
    assert!(
        number < MESSAGES,
        "{MESSAGES} messages of {MESSAGE_BYTES} bytes went into a pool of 16 MiB that nobody reads"
    );
    assert!(publisher.in_flight() > 0, "it waits for acks");
    // Reading goes on: so does publishing.
    let reader = Task::spawn("the subscriber that paused", move || {
        paused.read_exactly(MESSAGES);
        paused
    });
    send_sized(&mut publisher, 0, number..MESSAGES, |_| MESSAGE_BYTES);
    flush(&mut publisher, 0);
    let paused = reader.join();
    assert_eq!(paused.seen.complete(0), MESSAGES);
    assert_eq!(publisher.stats().fences, 0, "waiting for room fences nobody");
    assert_eq!(publisher.messages_acked(), MESSAGES);
    publisher.close(LIMIT).unwrap();
    drop(paused);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert!(counters.received("extent_wait") + counters.sequencer["index_full"] > 0, "somebody waited: {counters:#?}");
    assert!(counters.sequencer["trims"] > 0, "memory was used again");
}

/// Many publishers on few slots and extents, with a subscriber that keeps up as well as it can: no one is left behind for ever.
#[test]
fn many_publishers_share_little_room() {
    const PUBLISHERS: u32 = 6;
    const MESSAGES: u64 = 500;
    let site = small("crowded");
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 2, Start::Earliest), Fifo::Publisher);
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|id| {
            let mut options = site.publisher(TOPIC);
            options.batch_bytes = 32 << 10;
            Task::spawn(format!("publisher {id}"), move || {
                let mut publisher = connect(options);
                send_sized(&mut publisher, id, 0..MESSAGES, |_| MESSAGE_BYTES);
                flush(&mut publisher, id);
                assert_eq!(publisher.stats().fences, 0, "load fences nobody");
                publisher.close(LIMIT).unwrap();
            })
        })
        .collect();
    watcher.read_exactly(u64::from(PUBLISHERS) * MESSAGES);
    (0..PUBLISHERS).for_each(|id| assert_eq!(watcher.seen.complete(id), MESSAGES));
    tasks.into_iter().for_each(Task::join);
    drop(watcher);
    cluster.stop();
    site.counters().check_conserved();
}

/// A reader that takes nothing while others wait for its memory is let go after `reader_stall`; the publisher goes on.
#[test]
fn a_reader_that_takes_nothing_is_let_go() {
    let geometry =
        "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4";
    let export = "connections_max: 16, reader_stall: 300ms";
    let site = Site::new("stalled", &Setup { brokers: 1, pool: "bytes: 16MiB", geometry, export, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let stalled = Watcher::connect(site.subscriber(TOPIC, 0, Start::Earliest), Fifo::Publisher);
    let mut options = site.publisher(TOPIC);
    options.batch_bytes = 64 << 10;
    let mut publisher = connect(options);
    // Several times what the pool and the kernel's buffers hold.
    send_sized(&mut publisher, 0, 0..4000, |_| MESSAGE_BYTES);
    flush(&mut publisher, 0);
    publisher.close(LIMIT).unwrap();
    wait_for("the stalled reader to be counted", || (site.counters().export[0]["too_slow"] == 1).then_some(()));
    drop(stalled);
    cluster.stop();
    site.counters().check_conserved();
}
