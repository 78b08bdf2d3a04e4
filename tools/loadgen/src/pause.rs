//! A subscriber that is stopped in the middle of a run, and what that does to publishers and to itself.
//!
//! The subscriber does what a process under SIGSTOP does: its connection stays, and nobody reads from it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// When to stop the subscriber, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PausePlan {
    /// After the begin of the run.
    pub after: Duration,
    /// How long.
    pub time: Duration,
}

/// The board's side: when the subscriber was stopped, and how far publishers were.
#[derive(Default)]
pub struct Pause {
    mark: Mutex<Option<Mark>>,
}

/// A pause that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When.
    pub begin: Instant,
    /// Messages acked until then.
    pub acked_before: u64,
    /// When it ended, and the messages acked until then.
    pub end: Option<(Instant, u64)>,
}

impl Pause {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Mark>> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It begins.
    pub fn begin(&self, now: Instant, acked: u64) {
        *self.lock() = Some(Mark { begin: now, acked_before: acked, end: None });
    }

    /// It ends.
    pub fn end(&self, now: Instant, acked: u64) {
        if let Some(mark) = self.lock().as_mut() {
            mark.end = Some((now, acked));
        }
    }

    /// The pause, if it has begun.
    pub fn mark(&self) -> Option<Mark> {
        *self.lock()
    }

    /// Whether a stretch of time lies in the pause, in part at least.
    pub fn touches(&self, from: Instant, to: Instant) -> bool {
        self.mark().is_some_and(|mark| to >= mark.begin && mark.end.is_none_or(|(end, _)| from <= end))
    }
}

/// Longest times a session waited for an ack while it had something in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct AckGaps {
    /// In a stretch that the pause touches.
    pub paused: Duration,
    /// Outside the pause.
    pub other: Duration,
}

impl AckGaps {
    /// Notes a stretch without an ack.
    pub fn note(&mut self, from: Instant, to: Instant, pause: &Pause) {
        let longest = if pause.touches(from, to) { &mut self.paused } else { &mut self.other };
        *longest = (*longest).max(to.saturating_duration_since(from));
    }

    /// Of two sessions.
    pub fn merge(self, other: AckGaps) -> AckGaps {
        AckGaps { paused: self.paused.max(other.paused), other: self.other.max(other.other) }
    }
}

/// What became of the stopped subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It went on where it was and missed nothing.
    WentOn,
    /// The brokers told it that it was too slow, in these words.
    Told(String),
    /// It missed messages.
    Skipped {
        /// How many.
        messages: u64,
    },
    /// The run was over before it was to be stopped, or before it went on.
    NotStopped,
}

impl Fate {
    /// In a word, for JSON.
    pub fn key(&self) -> &'static str {
        match self {
            Fate::WentOn => "went_on",
            Fate::Told(_) => "told",
            Fate::Skipped { .. } => "skipped",
            Fate::NotStopped => "not_stopped",
        }
    }
}

/// Everything about a pause, when the run is over.
#[derive(Clone, Debug)]
pub struct PauseReport {
    /// What was asked for.
    pub plan: PausePlan,
    /// Messages acked a second before, during and after.
    pub rates: [f64; 3],
    /// Longest waits for an ack.
    pub gaps: AckGaps,
    /// What became of the subscriber.
    pub fate: Fate,
    /// Size of each message.
    pub message_bytes: u64,
}

impl PauseReport {
    /// The rates of a run from `first_send` to `last_ack`.
    pub fn rates(mark: &Mark, first_send: Instant, last_ack: Instant, acked: u64) -> [f64; 3] {
        let (end, acked_end) = mark.end.unwrap_or((last_ack, acked));
        let rate = |messages: u64, from: Instant, to: Instant| {
            messages as f64 / to.saturating_duration_since(from).as_secs_f64().max(1e-9)
        };
        let during = acked_end.saturating_sub(mark.acked_before);
        let after = if end < last_ack { rate(acked.saturating_sub(acked_end), end, last_ack) } else { 0.0 };
        [rate(mark.acked_before, first_send, mark.begin), rate(during, mark.begin, end), after]
    }

    /// The pause in sentences.
    pub fn words(&self) -> Vec<String> {
        let (stopped, gaps) = (self.plan.time, &self.gaps);
        let [before, during, after] = self.rates.map(|rate| rate * self.message_bytes as f64 / 1e6);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let fate = match &self.fate {
            Fate::WentOn => "went on where it was and missed nothing".to_owned(),
            Fate::Told(text) => format!("was told: {text}"),
            Fate::Skipped { messages } => format!("skipped {messages} messages"),
            Fate::NotStopped => "was not stopped: the run was over first; publish more".to_owned(),
        };
        vec![
            format!("  subscriber 0, stopped for {stopped:?}, {fate}"),
            format!(
                "  publishers: {before:.1} MB/s acked before, {during:.1} during, {after:.1} after; longest wait for an ack {:.1} ms during, {:.1} ms otherwise",
                milliseconds(gaps.paused),
                milliseconds(gaps.other)
            ),
        ]
    }

    /// The pause as JSON.
    pub fn json(&self) -> Value {
        let [before, during, after] = self.rates;
        json!({
            "stopped_for_ms": self.plan.time.as_millis() as u64,
            "stopped_after_ms": self.plan.after.as_millis() as u64,
            "acked_messages_per_s": { "before": before, "during": during, "after": after },
            "longest_ack_wait_ms": {
                "during": self.gaps.paused.as_secs_f64() * 1e3,
                "otherwise": self.gaps.other.as_secs_f64() * 1e3,
            },
            "reader": self.fate.key(),
            "told": if let Fate::Told(text) = &self.fate { Some(text) } else { None },
            "skipped_messages": if let Fate::Skipped { messages } = &self.fate { *messages } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_apart_by_the_pause() {
        let (pause, start) = (Pause::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut gaps = AckGaps::default();
        gaps.note(at(0), at(40), &pause);
        pause.begin(at(100), 5);
        gaps.note(at(90), at(120), &pause);
        pause.end(at(200), 9);
        gaps.note(at(195), at(205), &pause);
        gaps.note(at(201), at(231), &pause);
        assert_eq!((gaps.paused, gaps.other), (Duration::from_millis(30), Duration::from_millis(40)));
    }

    #[test]
    fn rates_before_during_and_after() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mark = Mark { begin: at(2), acked_before: 20, end: Some((at(4), 22)) };
        assert_eq!(PauseReport::rates(&mark, at(0), at(5), 30), [10.0, 1.0, 8.0]);
        let unended = Mark { end: None, ..mark };
        assert_eq!(PauseReport::rates(&unended, at(0), at(4), 24), [10.0, 2.0, 0.0]);
    }
}
