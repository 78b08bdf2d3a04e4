//! What is published, and the reader that checks what comes out.
//!
//! A message says who published it and with which number, and the rest of it follows from that; so a reader can tell every
//! byte, and whether a message is missing, repeated or out of place, without knowing anything else.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use embarcadero::wire::{OrderLevel, crc32c};
use embarcadero::{ClientError, Delivered, Publisher, PublisherOptions, Subscriber, SubscriberOptions};
use verification::payload::{Payloads, Stamp, mix};

pub use verification::payload::STAMP_BYTES;

use crate::harness::LIMIT;

/// No message of these tests is longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

static PAYLOADS: LazyLock<Payloads> = LazyLock::new(|| Payloads::up_to(MESSAGE_BYTES_MAX));

/// `bytes` bytes that follow from `seed`.
pub fn filler(seed: u64, bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).flat_map(|word| mix(seed ^ word << 48).to_le_bytes());
    words.take(bytes).collect()
}

/// Message `number` of `publisher`, at least a stamp long. Its stamp says its length too.
pub fn message(publisher: u32, number: u64, bytes: usize) -> Vec<u8> {
    PAYLOADS.message(Stamp { run: bytes as u32, publisher, number }, bytes)
}

/// Publisher and number of a message, all of whose bytes are right.
pub fn read_message(payload: &[u8]) -> (u32, u64) {
    let stamp = PAYLOADS.check(payload).unwrap_or_else(|fault| panic!("a message is corrupt: {fault}"));
    let Stamp { run, publisher, number } = stamp.expect("each has a stamp");
    assert_eq!(payload.len(), run as usize, "message {number} of publisher {publisher} has another length");
    (publisher, number)
}

/// Sizes that differ, so that a slip of place shows.
pub fn varied_bytes(number: u64) -> usize {
    STAMP_BYTES + (number * 37 % 211) as usize
}

/// Which promises of an order level a reader can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fifo {
    /// Nothing but each message once.
    No,
    /// Messages of one connection keep their order.
    Connection,
    /// Messages of one publisher keep their order.
    Publisher,
}

impl From<OrderLevel> for Fifo {
    fn from(level: OrderLevel) -> Fifo {
        match level {
            OrderLevel::None | OrderLevel::Total => Fifo::No,
            OrderLevel::Broker | OrderLevel::Connection => Fifo::Connection,
            OrderLevel::Session => Fifo::Publisher,
        }
    }
}

/// What a reader has seen of a topic, checked as it came.
#[derive(Debug)]
pub struct Seen {
    fifo: Fifo,
    /// Every message's order is the one before it plus 1, from here.
    pub next_order: u64,
    pub messages: u64,
    pub batches: u64,
    /// Over everything seen, in order: two readers of the same stream have the same.
    pub hash: u64,
    last_position: Option<u64>,
    /// Next batch number of each session.
    sessions: BTreeMap<u64, u64>,
    /// Last message number of each (session, publisher).
    last_numbers: BTreeMap<(u64, u32), u64>,
    /// Messages of each publisher, by number.
    publishers: BTreeMap<u32, Vec<bool>>,
}

impl Seen {
    pub fn new(fifo: Fifo, next_order: u64) -> Seen {
        Seen {
            fifo,
            next_order,
            messages: 0,
            batches: 0,
            hash: 0,
            last_position: None,
            sessions: BTreeMap::new(),
            last_numbers: BTreeMap::new(),
            publishers: BTreeMap::new(),
        }
    }

    /// Checks a batch.
    pub fn take(&mut self, batch: &Delivered<'_>) {
        let place = format!("batch {} of session {:#x} at order {}", batch.batch_seq, batch.session, batch.first_order);
        assert_eq!(batch.first_order, self.next_order, "the topic's order is not dense at {place}");
        assert!(self.last_position.is_none_or(|last| last < batch.position.0), "positions do not ascend at {place}");
        assert!(batch.received_at > 0, "no receipt at {place}");
        self.last_position = Some(batch.position.0);
        let next = self.sessions.entry(batch.session.0).or_insert(0);
        assert_eq!(batch.batch_seq, *next, "{place}: its session's next is {next}");
        *next += 1;
        self.batches += 1;
        self.mix(batch.session.0);
        self.mix(batch.batch_seq.0);
        let before = self.next_order;
        for (order, message) in batch.messages() {
            assert_eq!(order, self.next_order, "{place}");
            self.next_order += 1;
            self.mix(u64::from(crc32c(message.payload)));
            let (publisher, number) = read_message(message.payload);
            self.note(batch.session.0, publisher, number, order.0);
        }
        assert_eq!(self.next_order - before, u64::from(batch.message_count), "messages counted in {place}");
    }

    fn mix(&mut self, value: u64) {
        self.hash = mix(self.hash ^ value);
    }

    fn note(&mut self, session: u64, publisher: u32, number: u64, order: u64) {
        let seen = self.publishers.entry(publisher).or_default();
        if self.fifo == Fifo::Publisher {
            assert_eq!(number, seen.len() as u64, "publisher {publisher}, at order {order}: not the next number");
        }
        let at = number as usize;
        if seen.len() <= at {
            seen.resize(at + 1, false);
        }
        assert!(
            !std::mem::replace(&mut seen[at], true),
            "message {number} of publisher {publisher} again, at order {order}"
        );
        let last = self.last_numbers.insert((session, publisher), number);
        if self.fifo != Fifo::No {
            let place = format!("message {number} of publisher {publisher} at order {order}");
            assert!(last.is_none_or(|last| last < number), "{place} after {last:?} of the same connection");
        }
        self.messages += 1;
    }

    /// Messages of a publisher, all of which from 0 on were seen.
    pub fn complete(&self, publisher: u32) -> u64 {
        let Some(seen) = self.publishers.get(&publisher) else { return 0 };
        let missing = seen.iter().position(|seen| !seen);
        assert_eq!(missing, None, "publisher {publisher}: a message is missing, later ones are there");
        seen.len() as u64
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// A subscriber that checks what it gets.
pub struct Watcher {
    subscriber: Subscriber,
    pub seen: Seen,
}

impl Watcher {
    pub fn connect(options: SubscriberOptions, fifo: Fifo) -> Watcher {
        let name = format!("a subscriber of {} at {:?}", options.topic, options.brokers);
        let subscriber = Subscriber::connect(options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = Seen::new(fifo, subscriber.next_order().0);
        Watcher { subscriber, seen }
    }

    /// Reads once, for a little while at most.
    pub fn poll(&mut self) -> usize {
        let seen = &mut self.seen;
        let polled = self.subscriber.poll(Duration::from_millis(20), |batch| seen.take(batch));
        polled.unwrap_or_else(|error| panic!("topic {}, after {seen:?}: {error}", self.subscriber.topic()))
    }

    /// Reads until it has seen enough. The deadline is for progress: as long as something comes, it waits.
    pub fn read_until(&mut self, what: &str, enough: impl Fn(&Seen) -> bool) {
        let mut deadline = Instant::now() + LIMIT;
        while !enough(&self.seen) {
            if self.poll() > 0 {
                deadline = Instant::now() + LIMIT;
            }
            assert!(Instant::now() < deadline, "nothing came for {LIMIT:?}, waiting for {what}; seen: {:?}", self.seen);
        }
    }

    /// Reads until this many messages were seen, and checks that there are no more.
    pub fn read_exactly(&mut self, messages: u64) {
        self.read_until(&format!("{messages} messages"), |seen| seen.messages >= messages);
        self.read_to_the_tail();
        assert_eq!(self.seen.messages, messages, "more messages than were published");
    }

    /// Reads until the broker says that this was all.
    pub fn read_to_the_tail(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while !self.subscriber.caught_up() {
            self.poll();
            assert!(Instant::now() < deadline, "waited {LIMIT:?} to catch up; seen: {:?}", self.seen);
        }
    }
}

/// Connects a publisher.
pub fn connect(options: PublisherOptions) -> Publisher {
    let name = format!("a publisher of {} over {:?}", options.topic, options.brokers);
    Publisher::connect(options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn deadline() -> Instant {
    Instant::now() + LIMIT
}

/// Has a message taken; `Publisher::send` would wait for ever for a broker that is connected and takes nothing.
pub fn try_send(publisher: &mut Publisher, payload: &[u8]) -> Result<(), ClientError> {
    let deadline = deadline();
    while !publisher.try_send(payload)? {
        publisher.poll(Duration::from_millis(20))?;
        let progress = || publisher.progress_line(publisher.messages_sent());
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for room in the window: {}", progress());
    }
    Ok(())
}

/// Sends messages `numbers` of `publisher`, each as long as `bytes` says.
pub fn send_sized(publisher: &mut Publisher, id: u32, numbers: std::ops::Range<u64>, bytes: impl Fn(u64) -> usize) {
    for number in numbers {
        let sent = try_send(publisher, &message(id, number, bytes(number)));
        sent.unwrap_or_else(|error| panic!("publisher {id}, message {number}: {error}"));
    }
}

/// Sends messages `numbers` of `publisher` with sizes that differ.
pub fn send(publisher: &mut Publisher, id: u32, numbers: std::ops::Range<u64>) {
    send_sized(publisher, id, numbers, varied_bytes);
}

/// Waits until everything is acked.
pub fn flush(publisher: &mut Publisher, id: u32) {
    publisher.flush(LIMIT).unwrap_or_else(|error| panic!("publisher {id}: {error}"));
}

/// Publishes `count` messages and closes; what was not acked by then fails the test.
pub fn publish(options: PublisherOptions, id: u32, count: u64) {
    let mut publisher = connect(options);
    send(&mut publisher, id, 0..count);
    flush(&mut publisher, id);
    assert_eq!(publisher.messages_acked(), count, "publisher {id}: messages acked");
    publisher.close(LIMIT).unwrap_or_else(|error| panic!("publisher {id}: {error}"));
}
