//! One batch of one message in flight: publish to ack, and publish to deliver.
//!
//! Closed loop: the next message is sent when the last one is acked, so a slow answer delays the questions
//! behind it. These are service times, not what clients of a loaded system would see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tools_common::clients::AnyPublisher;
use tools_common::figures::Latencies;
use verification::payload::PayloadWriter;

use crate::board::Board;
use crate::publish::{Ended, SessionPlan, SessionResult, connect, no_ack};

/// Longest time in the client before looking at the clock and the flags.
const POLL: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Clone, Debug)]
pub struct LatencyReport {
    /// From before the message is handed to the client until its ack was handed back.
    pub publish_to_ack: Latencies,
    /// From before the message is handed to the client until a subscriber's callback had it verified.
    pub publish_to_deliver: Option<Latencies>,
    /// Messages at the start that are in neither.
    pub warm_up: u64,
}

impl LatencyReport {
    /// A line for each path.
    pub fn words(&self) -> Vec<String> {
        let mut lines = vec![format!("  publish to ack,     µs: {}", self.publish_to_ack.words())];
        lines
            .extend(self.publish_to_deliver.iter().map(|paths| format!("  publish to deliver, µs: {}", paths.words())));
        lines.push(format!("  one message in flight; {} messages of warm-up are not counted", self.warm_up));
        lines
    }

    /// Every figure, in µs.
    pub fn json(&self) -> Value {
        json!({
            "warm_up_messages": self.warm_up,
            "publish_to_ack_us": self.publish_to_ack.json(),
            "publish_to_deliver_us": self.publish_to_deliver.as_ref().map(Latencies::json),
        })
    }
}

/// When each message was handed to the client, for the subscriber's thread. One session with one message in
/// flight: the n-th message delivered is the n-th sent, which the verifier checks.
pub struct SendTimes {
    begin: Instant,
    /// Nanoseconds after `begin`, plus one; 0: not sent.
    sent: Vec<AtomicU64>,
}

impl SendTimes {
    /// Room for so many messages.
    pub fn new(messages: u64) -> SendTimes {
        SendTimes { begin: Instant::now(), sent: (0..messages).map(|_| AtomicU64::new(0)).collect() }
    }

    fn note(&self, number: u64, at: Instant) {
        // Release: a subscriber that saw the message sees when it was sent.
        self.sent[number as usize].store(at.duration_since(self.begin).as_nanos() as u64 + 1, Ordering::Release);
    }

    /// Time since message `number` was sent; none if it was not.
    pub fn since(&self, number: u64) -> Option<u64> {
        let sent = self.sent.get(number as usize)?.load(Ordering::Acquire);
        (sent > 0).then(|| (self.begin.elapsed().as_nanos() as u64 + 1).saturating_sub(sent))
    }
}

/// Connects, waits for the gate, and sends one message after the other. None if the run did not start.
pub fn publish(
    plan: SessionPlan,
    board: &Board,
    times: &SendTimes,
    messages: u64,
    warm_up: u64,
) -> Option<(SessionResult, Latencies)> {
    let mut publisher = match connect(&plan) {
        Ok(publisher) => publisher,
        Err(reason) => {
            board.gate.arrive(Err(reason));
            return None;
        }
    };
    if !board.gate.arrive(Ok(())) {
        return None;
    }
    let mut ended = Ended::new(board);
    let mut result = SessionResult::begin(&plan, &publisher);
    let mut latencies = Latencies::default();
    let mut writer = PayloadWriter::new(plan.payloads.clone(), plan.run, plan.index);
    result.first_send = Some(Instant::now());
    while result.account.sent < messages && !board.interrupted() {
        let before = Instant::now();
        times.note(result.account.sent, before);
        if let Err(reason) = one(&mut publisher, &mut writer, &mut result, plan.ack_timeout, board) {
            result.account.error = Some(reason);
            break;
        }
        if result.account.acked > warm_up {
            latencies.record(before.elapsed().as_nanos() as u64);
        }
        board.sessions[0].sent.store(result.account.sent, Ordering::Relaxed);
        board.sessions[0].acked.store(result.account.acked, Ordering::Relaxed);
    }
    result.last_ack = Some(Instant::now());
    result.end(publisher, board);
    ended.failed = result.account.error.is_some();
    Some((result, latencies))
}

/// Sends one message and waits for its ack.
fn one(
    publisher: &mut AnyPublisher,
    writer: &mut PayloadWriter,
    result: &mut SessionResult,
    ack_timeout: Duration,
    board: &Board,
) -> Result<(), String> {
    let describe = |error: embarcadero::client::ClientError| error.to_string();
    let begin = Instant::now();
    writer.with(result.account.sent, |payload| publisher.send(payload)).map_err(describe)?;
    publisher.seal();
    result.account.sent += 1;
    while publisher.messages_acked() < result.account.sent && !board.interrupted() {
        publisher.poll(POLL).map_err(describe)?;
        if begin.elapsed() > ack_timeout {
            return Err(no_ack(publisher, ack_timeout));
        }
    }
    result.account.acked = publisher.messages_acked();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_what_was_not_sent_are_unknown() {
        let times = SendTimes::new(2);
        times.note(0, Instant::now());
        assert!(times.since(0).is_some());
        assert_eq!((times.since(1), times.since(2)), (None, None));
    }
}
