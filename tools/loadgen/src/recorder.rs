//! Latencies of an open-loop run: from the planned time, and from the time of sending.
//!
//! The first says what a client of this load waited; the second, that it would hide what queued up in front of the sender,
//! is what a closed loop reports. Every thread has a recorder; a run has the sum of them.

use serde_json::{Value, json};
use tools_common::figures::Latencies;
use tools_common::pace::Span;
use verification::payload::Times;

use crate::stages::Way;

/// Latencies of one path.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// From the planned time.
    pub corrected: Latencies,
    /// From the time of sending.
    pub raw: Latencies,
    /// Messages that arrived in the measured part, whenever they were planned.
    pub in_time: u64,
    /// Messages that arrived before its end.
    pub before_end: u64,
}

impl Recorder {
    /// A message with these times arrived at `now`. Those planned before or after the measured part are not recorded; those
    /// planned in it are, however late they arrive.
    pub fn arrived(&mut self, times: &Times, now: u64, span: &Span) {
        if span.measures(times.planned) {
            self.corrected.record(now.saturating_sub(times.planned));
            self.raw.record(now.saturating_sub(times.sent));
        }
        self.in_time += u64::from(span.measures(now));
        self.before_end += u64::from(now < span.start + span.end);
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Recorder) {
        self.corrected.add(&other.corrected);
        self.raw.add(&other.raw);
        self.in_time += other.in_time;
        self.before_end += other.before_end;
    }

    /// The sum of all threads'.
    pub fn sum<'a>(all: impl Iterator<Item = &'a Recorder>) -> Recorder {
        all.fold(Recorder::default(), |mut sum, one| {
            sum.add(one);
            sum
        })
    }

    /// Both ways of this path.
    pub fn ways(&self, path: &'static str) -> [Way<'_>; 2] {
        [(path, "from the planned time", &self.corrected), (path, "from sending", &self.raw)]
    }

    /// Both histograms, in µs.
    pub fn json(&self) -> Value {
        json!({ "corrected_us": self.corrected.json(), "raw_us": self.raw.json() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { start: 1000, warm_up: 100, end: 1000, lag_max: 0 };

    #[test]
    fn latency_counts_from_the_plan_and_warm_up_does_not_count() {
        let mut recorder = Recorder::default();
        recorder.arrived(&Times { planned: 1099, sent: 1099 }, 1200, &SPAN);
        recorder.arrived(&Times { planned: 1100, sent: 1150 }, 1160, &SPAN);
        // Planned in the measured part and late: it counts in full, but not for what was reached in that part.
        recorder.arrived(&Times { planned: 1999, sent: 2500 }, 2600, &SPAN);
        recorder.arrived(&Times { planned: 2000, sent: 2000 }, 2001, &SPAN);
        assert_eq!((recorder.corrected.count(), recorder.raw.count()), (2, 2));
        assert_eq!((recorder.corrected.min_us(), recorder.corrected.max_us()), (0.06, 0.601));
        assert_eq!((recorder.raw.min_us(), recorder.raw.max_us()), (0.01, 0.1));
        assert_eq!((recorder.in_time, recorder.before_end), (2, 2));
    }

    #[test]
    fn threads_are_summed() {
        let mut one = Recorder::default();
        one.arrived(&Times { planned: 1500, sent: 1500 }, 1510, &SPAN);
        let sum = Recorder::sum([&one, &one].into_iter());
        assert_eq!((sum.corrected.count(), sum.in_time), (2, 2));
    }
}
