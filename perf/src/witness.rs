//! Subscribers that hold what they are given against what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embarcadero::wire::OrderLevel;
use embarcadero::{ClientError, Start, Subscriber, SubscriberOptions};
use tools_common::clients::place;
use verification::ledger::Ledger;
use verification::payload::Payloads;
use verification::promise::Level;
use verification::verifier::{NUMBERS_MAX, Source, Verifier};

use crate::cluster::WAIT_MAX;

/// Number of every run in its messages: each has a pool of its own.
pub const RUN: u32 = 0;
/// Polls of a reader that is told to stop, and is still given less than is due, before it gives up.
const QUIET_MAX: u32 = 250;

fn subscribe(brokers: Vec<String>, topic: &str, start: Start) -> Result<Subscriber, ClientError> {
    let (topic, connect_timeout) = (topic.to_owned(), WAIT_MAX);
    Subscriber::connect(SubscriberOptions { brokers, topic, start, connect_timeout, ..SubscriberOptions::default() })
}

/// Reads a topic of order level 5 from its beginning until told to stop, or, once that is so, until as many as `due` came or
/// nothing more does.
pub fn watch(
    brokers: Vec<String>,
    topic: &str,
    payloads: &Payloads,
    stop: &AtomicBool,
    due: &AtomicU64,
) -> Result<Ledger, ClientError> {
    let mut subscriber = subscribe(brokers, topic, Start::Earliest)?;
    let (mut ledger, mut quiet) = (Ledger::new(0, 0), 0);
    loop {
        let count = subscriber.poll(Duration::from_millis(20), |batch| {
            let messages = batch.messages().map(|(order, message)| (order.0, message.payload));
            ledger.batch(&place(batch), 0, payloads, messages);
        })?;
        quiet = if count > 0 { 0 } else { quiet + 1 };
        if stop.load(Ordering::Acquire) {
            let all = ledger.delivered() >= due.load(Ordering::Acquire);
            if all && subscriber.caught_up() || quiet > QUIET_MAX {
                return Ok(ledger);
            }
        }
    }
}

/// How many different messages of one publisher a subscriber is given, whatever their order and however often. `reading` is set
/// once it is subscribed; once `published` is, it reads until it has everything.
pub fn different_messages(
    brokers: Vec<String>,
    (topic, order): (&str, OrderLevel),
    (publisher, payloads): (u32, Payloads),
    reading: &AtomicBool,
    published: &AtomicBool,
) -> Result<u64, ClientError> {
    let mut subscriber = subscribe(brokers, topic, Start::Latest)?;
    // Those of others are foreign, and do not count.
    let messages = (0..=publisher).map(|index| if index == publisher { NUMBERS_MAX } else { 0 }).collect();
    let source = Source::Run { run: RUN, messages };
    let mut verifier = Verifier::new(Level::of(order as u8), Arc::new(payloads), source, true);
    reading.store(true, Ordering::Release);
    let mut since: Option<Instant> = None;
    loop {
        // Looked at first: what is committed before it is set comes before it is caught up.
        if published.load(Ordering::Acquire) {
            since.get_or_insert_with(Instant::now);
        }
        let count = subscriber.poll(Duration::from_millis(500), |batch| {
            verifier.batch(&place(batch), batch.messages().map(|(order, message)| (order.0, message.payload)));
        })?;
        let is_late = since.is_some_and(|since| since.elapsed() > WAIT_MAX);
        if is_late || since.is_some() && count == 0 && subscriber.caught_up() {
            return Ok(verifier.accounted());
        }
    }
}
