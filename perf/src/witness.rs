//! A subscriber that holds the promises of order level 5 against what it is given: of every session batch 0, 1, 2, …, of every
//! message the number its publisher gave it, each once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embarcadero::client::{ClientError, Delivered, Start, Subscriber, SubscriberOptions};

use crate::cluster::WAIT_MAX;

/// Bytes at the front of a payload that say whose it is: session and number.
pub const STAMP_BYTES: usize = 16;

/// One word more of a hash (FNV-1a, by words).
fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x100_0000_01b3)
}

/// Writes the stamp.
pub fn stamp(payload: &mut [u8], session: u64, number: u64) {
    payload[..8].copy_from_slice(&session.to_le_bytes());
    payload[8..STAMP_BYTES].copy_from_slice(&number.to_le_bytes());
}

/// What was found wrong, and how much was right.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Messages delivered, by publisher.
    pub delivered: BTreeMap<u64, u64>,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages, batches or orders that were not the next.
    pub reorders: u64,
    /// Over every message in the order it came: equal of two that were given the same stream.
    pub hash: u64,
}

/// Takes note of one stream.
#[derive(Default)]
pub struct Witness {
    findings: Findings,
    batches: BTreeMap<u64, u64>,
    next_order: u64,
}

impl Witness {
    fn take(&mut self, batch: &Delivered<'_>) {
        let next = self.batches.entry(batch.session).or_insert(0);
        self.findings.reorders += u64::from(batch.batch_seq != *next) + u64::from(batch.first_order != self.next_order);
        *next = batch.batch_seq + 1;
        self.next_order = batch.first_order + u64::from(batch.message_count);
        for (_, message) in batch.messages() {
            let word = |at: usize| u64::from_le_bytes(message.payload[at..at + 8].try_into().expect("eight bytes"));
            self.findings.hash = fold(fold(self.findings.hash, word(0)), word(8));
            let next = self.findings.delivered.entry(word(0)).or_insert(0);
            match word(8).cmp(next) {
                std::cmp::Ordering::Equal => *next += 1,
                std::cmp::Ordering::Less => self.findings.duplicates += 1,
                std::cmp::Ordering::Greater => self.findings.reorders += 1,
            }
        }
    }

    /// Reads until told to stop, or, once that is so, until as many as `due` came or nothing more does.
    pub fn watch(
        mut self,
        brokers: Vec<String>,
        topic: &str,
        stop: &AtomicBool,
        due: &AtomicU64,
    ) -> Result<Findings, ClientError> {
        const QUIET_MAX: u32 = 250;
        let options = SubscriberOptions {
            brokers,
            topic: topic.to_owned(),
            start: Start::Earliest,
            connect_timeout: WAIT_MAX,
            ..Default::default()
        };
        let mut subscriber = Subscriber::connect(options)?;
        let mut quiet = 0;
        loop {
            let count = subscriber.poll(Duration::from_millis(20), &mut |batch| self.take(batch))?;
            quiet = if count > 0 { 0 } else { quiet + 1 };
            if stop.load(Ordering::Acquire) {
                let all = self.findings.delivered.values().sum::<u64>() >= due.load(Ordering::Acquire);
                if all && subscriber.caught_up() || quiet > QUIET_MAX {
                    return Ok(self.findings);
                }
            }
        }
    }
}

/// How many different numbers of one publisher a subscriber is given, whatever their order and however often. `reading` is set
/// once it is subscribed; once `published` is, it reads until it has everything.
pub fn numbers_seen(
    brokers: Vec<String>,
    topic: &str,
    publisher: u64,
    reading: &AtomicBool,
    published: &AtomicBool,
) -> Result<u64, ClientError> {
    let (topic, connect_timeout) = (topic.to_owned(), WAIT_MAX);
    let options = SubscriberOptions { brokers, topic, start: Start::Latest, connect_timeout, ..Default::default() };
    let mut subscriber = Subscriber::connect(options)?;
    reading.store(true, Ordering::Release);
    let mut seen: Vec<bool> = Vec::new();
    let mut since: Option<Instant> = None;
    loop {
        // Looked at first: what is committed before it is set comes before it is caught up.
        if published.load(Ordering::Acquire) {
            since.get_or_insert_with(Instant::now);
        }
        let count = subscriber.poll(Duration::from_millis(500), &mut |batch| {
            for (_, message) in batch.messages() {
                let word = |at: usize| u64::from_le_bytes(message.payload[at..at + 8].try_into().expect("eight bytes"));
                if word(0) == publisher {
                    let number = word(8) as usize;
                    seen.resize(seen.len().max(number + 1), false);
                    seen[number] = true;
                }
            }
        })?;
        let is_late = since.is_some_and(|since| since.elapsed() > WAIT_MAX);
        if is_late || since.is_some() && count == 0 && subscriber.caught_up() {
            return Ok(seen.into_iter().filter(|seen| *seen).count() as u64);
        }
    }
}
