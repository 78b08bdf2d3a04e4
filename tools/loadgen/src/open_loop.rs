//! Open loop: sessions that send at planned times, and what that run reached.
//!
//! What is kept of a message between sending and ack are its two times; there are no more of these than a window of batches
//! and the open batch hold.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embarcadero::{AckedBatch, Publisher};
use serde_json::{Value, json};
use tools_common::clock::monotonic_ns;
use tools_common::pace::{Counts, Due, Pacer, Span};
use tools_common::schedule::{Arrival, Schedule};
use verification::payload::Times;

use crate::recorder::Recorder;
use crate::stages::Way;

/// Shortest sleep until a planned time, ns. A thread that slept for each of 50,000 messages a second would do little else, and take the
/// processor from the brokers on this machine: what is planned closer together is sent together, so much late at most.
const SLEEP_MIN: u64 = 100_000;
/// Below this part of what was asked for, a run says that it did not keep up.
const KEPT_UP: f64 = 0.99;

/// What all sessions of an open-loop run have in common.
#[derive(Clone, Copy, Debug)]
pub struct OpenPlan {
    /// How messages lie in time.
    pub arrival: Arrival,
    /// Over all sessions.
    pub messages_per_s: f64,
    /// Of the times.
    pub seed: u64,
    /// Sessions that share the rate.
    pub sessions: u32,
    /// Time at the start that is not measured.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
    /// More lag than this ends a session.
    pub lag_max: Duration,
}

impl OpenPlan {
    /// The parts of a run that began at `start`.
    pub fn span(&self, start: u64) -> Span {
        let end = self.warm_up + self.measured;
        let [warm_up, end, lag_max] = [self.warm_up, end, self.lag_max].map(|time| time.as_nanos() as u64);
        Span { start, warm_up, end, lag_max }
    }

    /// Every setting.
    pub fn json(&self) -> Value {
        json!({
            "arrival": self.arrival.to_string(),
            "messages_per_s": self.messages_per_s,
            "seed": self.seed,
            "warm_up_ms": self.warm_up.as_millis() as u64,
            "measured_ms": self.measured.as_millis() as u64,
            "lag_max_ms": self.lag_max.as_millis() as u64,
        })
    }
}

/// One thread's part: its sessions record together.
pub struct OpenLoop {
    span: Span,
    recorder: Arc<Mutex<Recorder>>,
}

impl OpenLoop {
    /// Of a run that began at `start`, on the monotonic clock.
    pub fn new(plan: &OpenPlan, start: u64) -> OpenLoop {
        // A sleep until a planned time is to end then, not up to 50 µs later. Without it latencies are a little longer.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        OpenLoop { span: plan.span(start), recorder: Arc::default() }
    }

    /// One session, whose acks are recorded from here on.
    pub fn session(&self, plan: &OpenPlan, index: u32, publisher: &mut Publisher) -> OpenSession {
        let schedule = Schedule::new(plan.arrival, plan.messages_per_s, plan.seed, index, plan.sessions);
        let flight = Flight { first: 0, times: VecDeque::new(), recorder: Arc::clone(&self.recorder), span: self.span };
        let flight = Arc::new(Mutex::new(flight));
        let acks = Arc::clone(&flight);
        publisher.on_acked(move |batch| lock(&acks).acked(&batch, monotonic_ns()));
        OpenSession { pacer: Pacer::new(schedule, self.span), flight, done: false, result: OpenResult::default() }
    }

    /// What was recorded.
    pub fn latencies(&self) -> Recorder {
        lock(&self.recorder).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Times of the messages that are sent and not acked.
struct Flight {
    /// Number of the first of `times`.
    first: u64,
    times: VecDeque<Option<Times>>,
    recorder: Arc<Mutex<Recorder>>,
    span: Span,
}

impl Flight {
    fn acked(&mut self, batch: &AckedBatch, now: u64) {
        let mut recorder = lock(&self.recorder);
        for number in batch.first_message..batch.first_message + u64::from(batch.messages) {
            let place = number.checked_sub(self.first).and_then(|place| self.times.get_mut(place as usize));
            if let Some(times) = place.and_then(Option::take) {
                recorder.arrived(&times, now, &self.span);
            }
        }
        while self.times.front().is_some_and(Option::is_none) {
            self.times.pop_front();
            self.first += 1;
        }
    }
}

/// One session at its planned times.
pub struct OpenSession {
    pacer: Pacer,
    flight: Arc<Mutex<Flight>>,
    done: bool,
    result: OpenResult,
}

/// What one session reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenResult {
    /// Planned and sent in the measured part.
    pub counts: Counts,
    /// Messages sent when it was over.
    pub sent: u64,
    /// Messages acked when it was over.
    pub acked: u64,
    /// Largest lag behind the plan, ns.
    pub lag_max: u64,
    /// It gave up this far behind, ns.
    pub gave_up: Option<u64>,
}

impl OpenSession {
    /// Hands what is due to `send`, at most `most` messages, and counts them in `sent`; `send` may refuse. Gives when the next
    /// one is due, if none is now.
    pub fn send(
        &mut self,
        sent: &mut u64,
        most: u64,
        mut send: impl FnMut(u64, Times) -> Result<bool, String>,
    ) -> Result<Option<Instant>, String> {
        for _ in 0..most {
            let now = monotonic_ns();
            match self.pacer.due(now) {
                Due::At(at) => {
                    return Ok(Some(Instant::now() + Duration::from_nanos((at - now).max(SLEEP_MIN))));
                }
                Due::Now(planned) => {
                    let times = Times { planned, sent: now };
                    // Before it is sent: the ack may be taken while sending.
                    lock(&self.flight).times.push_back(Some(times));
                    if !send(*sent, times)? {
                        lock(&self.flight).times.pop_back();
                        return Ok(None);
                    }
                    self.pacer.sent(now);
                    *sent += 1;
                }
                Due::Done => {
                    self.done = true;
                    return Ok(None);
                }
                Due::Behind { lag } => {
                    self.pacer.give_up();
                    self.result.gave_up = Some(lag);
                    self.done = true;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Whether nothing more will be sent.
    pub fn done(&self) -> bool {
        self.done
    }

    /// How far behind its plan it was when it gave up, if it did.
    pub fn gave_up(&self) -> Option<Duration> {
        self.result.gave_up.map(Duration::from_nanos)
    }

    /// Notes how far it is while the measured part lasts.
    pub fn look(&mut self, sent: u64, acked: u64) {
        if self.pacer.span().measuring(monotonic_ns()) {
            (self.result.sent, self.result.acked) = (sent, acked);
        }
    }

    /// At the end.
    pub fn result(self) -> OpenResult {
        OpenResult { counts: self.pacer.counts(), lag_max: self.pacer.lag_seen(), ..self.result }
    }
}

/// What an open-loop run reached in all.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// What was asked for.
    pub plan: OpenPlan,
    /// Sums of the sessions, and the largest lag.
    pub total: OpenResult,
    /// Publish to ack.
    pub ack: Recorder,
    /// Publish to deliver, over all subscribers.
    pub deliver: Option<Recorder>,
    /// Subscriptions that each message goes to.
    pub readers: u64,
}

impl OpenReport {
    /// Of the sessions' results.
    pub fn sum(results: impl Iterator<Item = OpenResult>) -> OpenResult {
        results.fold(OpenResult::default(), |sum, one| OpenResult {
            counts: Counts {
                planned: sum.counts.planned + one.counts.planned,
                sent: sum.counts.sent + one.counts.sent,
                unsent: sum.counts.unsent + one.counts.unsent,
            },
            sent: sum.sent + one.sent,
            acked: sum.acked + one.acked,
            lag_max: sum.lag_max.max(one.lag_max),
            gave_up: sum.gave_up.max(one.gave_up),
        })
    }

    fn per_s(&self, messages: u64) -> f64 {
        messages as f64 / self.plan.measured.as_secs_f64()
    }

    /// Messages planned a second of the measured part: what the plan asks for.
    pub fn asked_per_s(&self) -> f64 {
        self.per_s(self.total.counts.planned)
    }

    /// Messages sent a second of the measured part.
    pub fn sent_per_s(&self) -> f64 {
        self.per_s(self.total.counts.sent)
    }

    /// Messages acked a second of the measured part.
    pub fn acked_per_s(&self) -> f64 {
        self.per_s(self.ack.in_time)
    }

    /// Messages delivered a second of the measured part, to each subscription.
    pub fn delivered_per_s(&self) -> Option<f64> {
        self.deliver.as_ref().map(|deliver| self.per_s(deliver.in_time) / self.readers.max(1) as f64)
    }

    /// Messages sent and not delivered to some subscription when the measured part was over.
    fn undelivered(&self) -> Option<u64> {
        let owed = (self.total.sent) * self.readers.max(1);
        self.deliver.as_ref().map(|deliver| owed.saturating_sub(deliver.before_end))
    }

    /// Why the figures are those of an overloaded system, if they are.
    pub fn overload(&self) -> Option<String> {
        let reached = self.sent_per_s().min(self.acked_per_s()).min(self.delivered_per_s().unwrap_or(f64::INFINITY));
        if self.total.gave_up.is_none() && reached >= KEPT_UP * self.asked_per_s() {
            return None;
        }
        let (asked, lag) = (self.asked_per_s(), self.total.lag_max as f64 / 1e6);
        Some(format!(
            "the asked rate was not reached: {reached:.0} of {asked:.0} messages/s; up to {lag:.1} ms behind the plan, which the corrected latencies include"
        ))
    }

    /// The ways that were measured.
    pub fn ways(&self) -> Vec<Way<'_>> {
        let deliver = self.deliver.iter().flat_map(|deliver| deliver.ways("publish to deliver"));
        self.ack.ways("publish to ack").into_iter().chain(deliver).collect()
    }

    /// The run in sentences.
    pub fn words(&self) -> Vec<String> {
        let OpenPlan { arrival, warm_up, measured, .. } = self.plan;
        let (asked, sent, acked) = (self.asked_per_s(), self.sent_per_s(), self.acked_per_s());
        let delivered = self.delivered_per_s().map_or(String::new(), |rate| format!(", {rate:.0} delivered"));
        let undelivered = self.undelivered().map_or(String::new(), |messages| format!(", {messages} not delivered"));
        let (unsent, unacked) = (self.total.counts.unsent, self.total.sent - self.total.acked);
        let mut lines = vec![
            format!(
                "  open loop, {arrival}: {asked:.0} messages/s asked, {sent:.0} sent, {acked:.0} acked{delivered}, over {measured:?} after {warm_up:?} of warm-up"
            ),
            format!(
                "  backlog at its end: {unsent} planned and not sent, {unacked} not acked{undelivered}; at most {:.3} ms behind the plan",
                self.total.lag_max as f64 / 1e6
            ),
        ];
        let paths = [("ack", Some(&self.ack)), ("deliver", self.deliver.as_ref())];
        for (name, recorder) in paths.into_iter().filter_map(|(name, recorder)| Some((name, recorder?))) {
            lines.push(format!("  publish to {name}, µs, from the planned time: {}", recorder.corrected.words()));
            lines.push(format!("  publish to {name}, µs, from sending:          {}", recorder.raw.words()));
        }
        lines
    }

    /// The run as JSON.
    pub fn json(&self) -> Value {
        json!({
            "plan": self.plan.json(),
            "asked_messages_per_s": self.asked_per_s(),
            "sent_messages_per_s": self.sent_per_s(),
            "acked_messages_per_s": self.acked_per_s(),
            "delivered_messages_per_s": self.delivered_per_s(),
            "lag_max_us": self.total.lag_max as f64 / 1e3,
            "gave_up_behind_us": self.total.gave_up.map(|lag| lag as f64 / 1e3),
            "kept_up": self.overload().is_none(),
            "backlog_at_end": {
                "unsent": self.total.counts.unsent,
                "unacked": self.total.sent - self.total.acked,
                "undelivered": self.undelivered(),
            },
            "publish_to_ack": self.ack.json(),
            "publish_to_deliver": self.deliver.as_ref().map(Recorder::json),
        })
    }
}

#[cfg(test)]
mod tests {
    use embarcadero::{BatchSeq, Order};

    use super::*;

    fn flight() -> Flight {
        let span = Span { start: 0, warm_up: 0, end: 1000, lag_max: 0 };
        let times = (0..6).map(|n| Some(Times { planned: 10 * n, sent: 10 * n })).collect();
        Flight { first: 0, times, recorder: Arc::default(), span }
    }

    fn batch(first_message: u64, messages: u32) -> AckedBatch {
        let sealed_at = Instant::now();
        AckedBatch { batch_seq: BatchSeq(0), first_message, messages, bytes: 0, sealed_at, order_end: Order(0) }
    }

    #[test]
    fn acks_in_any_order_find_their_messages_and_nothing_is_kept() {
        let mut flight = flight();
        flight.acked(&batch(2, 2), 100);
        assert_eq!((flight.first, flight.times.len()), (0, 6));
        flight.acked(&batch(0, 2), 110);
        assert_eq!((flight.first, flight.times.len()), (4, 2));
        flight.acked(&batch(2, 2), 120); // Below order level 5 a batch may be acked twice; it counts once.
        flight.acked(&batch(4, 2), 130);
        assert_eq!((flight.first, flight.times.len()), (6, 0));
        let recorder = lock(&flight.recorder).clone();
        assert_eq!(
            (recorder.corrected.count(), recorder.corrected.min_us(), recorder.corrected.max_us()),
            (6, 0.07, 0.11)
        );
    }

    #[test]
    fn a_refused_message_is_offered_again_and_counts_from_its_plan() {
        let span = Span { start: monotonic_ns() - 50_000_000, warm_up: 0, end: 10_000_000, lag_max: u64::MAX };
        let pacer = Pacer::new(Schedule::new(Arrival::Constant, 1000.0, 0, 0, 1), span);
        let flight = Flight { first: 0, times: VecDeque::new(), recorder: Arc::default(), span };
        let flight = Arc::new(Mutex::new(flight));
        let mut session = OpenSession { pacer, flight, done: false, result: OpenResult::default() };
        let (mut sent, mut offered) = (0, Vec::new());
        // Ten messages are due; every second offer is refused, as by a full window.
        while !session.done() {
            let send = |number, times: Times| {
                offered.push((number, times.planned - span.start));
                Ok(offered.len() % 2 == 0)
            };
            assert_eq!(session.send(&mut sent, 4, send), Ok(None));
        }
        let expected: Vec<(u64, u64)> = (0..20).map(|offer| (offer / 2, offer / 2 * 1_000_000)).collect();
        assert_eq!((sent, offered), (10, expected));
        assert_eq!(lock(&session.flight).times.len(), 10, "times are kept of what was sent, and of nothing else");
    }

    #[test]
    fn a_rate_that_was_not_reached_is_said() {
        let second = Duration::from_secs(1);
        let plan = OpenPlan {
            arrival: Arrival::Constant,
            messages_per_s: 100.0,
            seed: 0,
            sessions: 1,
            warm_up: Duration::ZERO,
            measured: second,
            lag_max: second,
        };
        let total = OpenResult { counts: Counts { planned: 100, sent: 100, unsent: 0 }, ..OpenResult::default() };
        let ack = Recorder { in_time: 99, ..Recorder::default() };
        let good = OpenReport { plan, total, ack, deliver: None, readers: 0 };
        assert_eq!(good.overload(), None);
        let mut slow = good.clone();
        slow.ack.in_time = 98;
        assert!(slow.overload().unwrap().contains("98 of 100"));
        let deliver = |in_time| Some(Recorder { in_time, ..Recorder::default() });
        let behind = OpenReport { deliver: deliver(190), readers: 2, ..good.clone() };
        assert!(behind.overload().unwrap().contains("95 of 100"));
        assert_eq!(OpenReport { deliver: deliver(200), readers: 2, ..good.clone() }.overload(), None);
        let mut gave_up = good;
        gave_up.total.gave_up = Some(1);
        assert!(gave_up.overload().is_some());
    }
}
