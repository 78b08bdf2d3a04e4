//! One batch of one message in flight: publish to ack, and publish to deliver.
//!
//! Closed loop: the next message is sent when the last one is acked, so a slow answer delays the questions
//! behind it. These are service times, not what clients of a loaded system would see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embarcadero::Publisher;
use serde_json::{Value, json};
use tools_common::clock::monotonic_ns;
use tools_common::figures::Latencies;
use tools_common::pace::Span;
use verification::payload::{PayloadWriter, Times};

use crate::board::Board;
use crate::drive::enter;
use crate::events::PublisherWatch;
use crate::publish::{Ended, Published, SessionPlan, SessionResult, connect, no_ack};
use crate::recorder::Recorder;
use crate::stages::Way;

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
    /// The ways that were measured.
    pub fn ways(&self) -> Vec<Way<'_>> {
        let deliver = self.publish_to_deliver.iter().map(|of| ("publish to deliver", "", of));
        [("publish to ack", "", &self.publish_to_ack)].into_iter().chain(deliver).collect()
    }

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
    /// On the monotonic clock, ns; 0: not sent.
    sent: Vec<AtomicU64>,
    warm_up: u64,
}

impl SendTimes {
    /// Room for so many messages, of which so many at the start do not count.
    pub fn new(messages: u64, warm_up: u64) -> SendTimes {
        SendTimes { sent: (0..messages).map(|_| AtomicU64::new(0)).collect(), warm_up }
    }

    fn note(&self, number: u64, at: u64) {
        // Release: a subscriber that saw the message sees when it was sent.
        self.sent[number as usize].store(at, Ordering::Release);
    }

    /// When message `number` was sent; none if it was not, or does not count.
    pub fn of(&self, number: u64) -> Option<Times> {
        let sent = self.sent.get(number as usize)?.load(Ordering::Acquire);
        (sent > 0 && number >= self.warm_up).then_some(Times { planned: sent, sent })
    }
}

/// Connects, waits for the gate, and sends one message after the other. None if the run did not start.
pub fn publish(plans: Vec<SessionPlan>, board: &Board, times: &SendTimes) -> Option<Published> {
    let (plan, mut publisher) = enter(plans, board, connect)?.pop().expect("there is one session");
    let mut ended = Ended::new(board);
    let mut result = SessionResult::begin(&plan, &publisher);
    let mut recorder = Recorder::default();
    let mut writer = PayloadWriter::new(plan.payloads.clone(), plan.run, plan.index);
    let mut watch = PublisherWatch::new(publisher.stats(), publisher.broker_progress());
    result.first_send = Some(Instant::now());
    while result.account.sent < result.account.planned && !board.interrupted() {
        let number = result.account.sent;
        times.note(number, monotonic_ns());
        if let Err(reason) = one(&mut publisher, &mut writer, &mut result, plan.ack_timeout, board) {
            result.account.error = Some(reason);
            break;
        }
        if let Some(times) = times.of(number).filter(|_| result.account.acked > number) {
            recorder.arrived(&times, monotonic_ns(), &Span::ALL);
        }
        watch.look(publisher.stats(), Instant::now(), &board.events);
        board.sessions[0].sent.store(result.account.sent, Ordering::Relaxed);
        board.sessions[0].acked.store(result.account.acked, Ordering::Relaxed);
    }
    result.last_ack = Some(Instant::now());
    result.end(publisher, board);
    ended.failed = result.account.error.is_some();
    Some(Published { sessions: vec![result], latencies: Some(recorder) })
}

/// Sends one message and waits for its ack.
fn one(
    publisher: &mut Publisher,
    writer: &mut PayloadWriter,
    result: &mut SessionResult,
    ack_timeout: Duration,
    board: &Board,
) -> Result<(), String> {
    let describe = |error: embarcadero::ClientError| error.to_string();
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
        let times = SendTimes::new(3, 1);
        (0..2).for_each(|number| times.note(number, 7));
        assert_eq!([0, 1, 2, 3].map(|number| times.of(number).map(|times| times.sent)), [None, Some(7), None, None]);
    }
}
