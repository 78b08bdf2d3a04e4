//! Messages of every size, batches of one and of very many: the same bytes come out.

use std::time::Duration;

use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{ClientError, Order, Publisher, Start, Subscriber};

use crate::harness::{Cluster, LIMIT, Setup, Site};
use crate::traffic::{connect, deadline, filler, try_send};

/// Extents of 16 MiB, so that the largest batch has 4 MiB.
fn site(name: &str) -> (Site, Cluster) {
    let geometry =
        "extent_bytes: 16MiB, ring_slots: 64, segment_entries: 1024, segments: 4, sessions_max: 8, topics_max: 8";
    let site = Site::new(name, &Setup { brokers: 1, pool: "bytes: 128MiB", geometry, ..Setup::default() });
    let cluster = site.start();
    (site, cluster)
}

/// What one delivered batch was.
struct Batch {
    messages: u32,
    receipts: Vec<(u8, u64)>,
    received_at: u64,
}

/// Reads `messages` messages from the start; message `order` must be `expected(order)`.
fn read(site: &Site, topic: &str, messages: u64, expected: impl Fn(u64) -> Vec<u8>) -> Vec<Batch> {
    let mut subscriber = Subscriber::connect(site.subscriber(topic, 0, Start::Order(Order(0)))).unwrap();
    let mut batches = Vec::new();
    let deadline = deadline();
    while subscriber.next_order() < messages {
        let polled = subscriber.poll(Duration::from_millis(20), |batch| {
            let mut receipts = Vec::new();
            for (order, message) in batch.messages() {
                let wanted = expected(order.0);
                assert_eq!(message.payload.len(), wanted.len(), "{topic}: bytes of message {order}");
                assert!(message.payload == wanted, "{topic}: message {order} is corrupt");
                receipts.push((message.header.received, message.header.ts));
            }
            assert_eq!(receipts.len(), batch.message_count as usize);
            batches.push(Batch { messages: batch.message_count, receipts, received_at: batch.received_at });
        });
        polled.unwrap_or_else(|error| panic!("{topic}: {error}"));
        assert!(std::time::Instant::now() < deadline, "waited {LIMIT:?} for {messages} messages of {topic}");
    }
    assert_eq!(subscriber.next_order(), messages, "messages nobody published");
    batches
}

fn publish(publisher: &mut Publisher, payloads: impl Iterator<Item = Vec<u8>>) {
    payloads.for_each(|payload| {
        try_send(publisher, &payload).unwrap_or_else(|error| panic!("{} bytes: {error}", payload.len()))
    });
    publisher.flush(LIMIT).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_size_up_to_the_largest_comes_out_as_it_went_in() {
    let (site, cluster) = site("sizes");
    for receipts in [Receipts::Batch, Receipts::Message] {
        let topic = format!("receipts-{receipts}");
        site.create_topic(&topic, OrderLevel::Session, receipts);
        let mut options = site.publisher(&topic);
        options.batch_bytes = 64 << 10;
        let mut publisher = connect(options);
        let largest = publisher.batch_message_bytes_max() as usize;
        assert!(largest > 1 << 20, "the largest message is to be larger than 1 MiB, it is {largest}");
        // Many small ones, few large ones; every neighbour of every alignment.
        let mut sizes = vec![];
        (0..200).for_each(|_| sizes.extend([0, 1, 15, 16, 17, 1024]));
        sizes.extend((0..130).chain([1 << 20, largest - 1, largest, 0, largest, 1, 1 << 20]));
        let payload = |order: u64| filler(order, sizes[order as usize]);
        publish(&mut publisher, (0..sizes.len() as u64).map(payload));
        // One byte more: refused by name, and nothing of it was taken.
        match publisher.send(&vec![0; largest + 1]) {
            Err(ClientError::PayloadTooLarge { payload_bytes, max }) => {
                assert_eq!((payload_bytes, max), (largest as u64 + 1, largest as u64))
            }
            other => panic!("one byte more than the largest: {other:?}"),
        }
        assert_eq!(publisher.messages_sent(), sizes.len() as u64);
        publisher.close(LIMIT).unwrap();
        let batches = read(&site, &topic, sizes.len() as u64, payload);
        for batch in &batches {
            assert!(batch.received_at > 0);
            for (received, ts) in &batch.receipts {
                match receipts {
                    Receipts::Message => assert!(*received == 1 && *ts > 0, "a message without its receipt"),
                    Receipts::Batch => assert_eq!((*received, *ts), (0, 0), "a receipt nobody asked for"),
                }
            }
        }
    }
    cluster.stop();
    site.counters().check_conserved();
}

#[test]
fn batches_of_one_message_and_of_a_hundred_thousand() {
    const MANY: u32 = 100_000;
    let (site, cluster) = site("counts");
    site.create_topic("t", OrderLevel::Session, Receipts::Message);
    for (round, batch_messages, batches) in [(0u64, 1, 300u64), (1, MANY, 3)] {
        let mut options = site.publisher("t");
        (options.batch_messages, options.batch_bytes, options.linger) = (batch_messages, 4 << 20, LIMIT);
        let mut publisher = connect(options);
        let messages = u64::from(batch_messages) * batches;
        publish(&mut publisher, (0..messages).map(|number| filler(round << 32 | number, (number % 17) as usize)));
        publisher.close(LIMIT).unwrap();
    }
    let single = 300;
    let payload = |order: u64| match order.checked_sub(single) {
        None => filler(order, (order % 17) as usize),
        Some(number) => filler(1 << 32 | number, (number % 17) as usize),
    };
    let batches = read(&site, "t", single + 3 * u64::from(MANY), payload);
    let counts: Vec<u32> = batches.iter().map(|batch| batch.messages).collect();
    assert_eq!(counts, [vec![1; single as usize], vec![MANY; 3]].concat());
    let stamped = |batch: &Batch| batch.receipts.iter().all(|(received, ts)| *received == 1 && *ts > 0);
    assert!(batches.iter().all(stamped), "every message has its receipt");
    cluster.stop();
    site.counters().check_conserved();
}
