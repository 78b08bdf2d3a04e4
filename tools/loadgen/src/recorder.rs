//! Latencies of an open-loop run: from the planned time, and from the time of sending.
//!
//! The first says what a client of this load waited; the second, that it would hide what queued up in front of the sender,
//! is what a closed loop reports. Every thread has a recorder; a run has the sum of them.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::pace::Span;
use crate::payload::Times;

/// Longest latency that is recorded, ns; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of what is recorded.
const DIGITS: u8 = 3;

/// What is reported of a histogram.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("bounds that are tested")
}

/// Records `nanoseconds`, as the longest that can be recorded if it is longer.
pub fn record(into: &mut Histogram<u64>, nanoseconds: u64) {
    into.saturating_record(nanoseconds.max(1));
}

/// A histogram in µs, in words.
pub fn words(of: &Histogram<u64>) -> String {
    if of.is_empty() {
        return "no message was measured".to_owned();
    }
    let percentile = |(name, at): &(&str, f64)| format!("{name} {:.1}", of.value_at_percentile(*at) as f64 / 1e3);
    let all: Vec<String> = PERCENTILES.iter().map(percentile).collect();
    format!("{}, max {:.1} ({} messages)", all.join(", "), of.max() as f64 / 1e3, of.len())
}

/// A histogram in µs.
pub fn figures(of: &Histogram<u64>) -> Value {
    let mut figures = json!({ "messages": of.len(), "mean": of.mean() / 1e3, "max": of.max() as f64 / 1e3 });
    for (name, at) in PERCENTILES {
        figures[name] = json!(of.value_at_percentile(at) as f64 / 1e3);
    }
    figures
}

/// Latencies of one path.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// From the planned time.
    pub corrected: Histogram<u64>,
    /// From the time of sending.
    pub raw: Histogram<u64>,
    /// Messages that arrived in the measured part, whenever they were planned.
    pub in_time: u64,
    /// Messages that arrived before its end.
    pub before_end: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { corrected: histogram(), raw: histogram(), in_time: 0, before_end: 0 }
    }
}

impl Recorder {
    /// A message with these times arrived at `now`. Those planned before or after the measured part are not recorded; those
    /// planned in it are, however late they arrive.
    pub fn arrived(&mut self, times: &Times, now: u64, span: &Span) {
        if span.measures(times.planned) {
            record(&mut self.corrected, now.saturating_sub(times.planned));
            record(&mut self.raw, now.saturating_sub(times.sent));
        }
        self.in_time += u64::from(span.measures(now));
        self.before_end += u64::from(now < span.start + span.end);
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Recorder) {
        self.corrected.add(&other.corrected).expect("equal bounds");
        self.raw.add(&other.raw).expect("equal bounds");
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

    /// Both histograms, in µs.
    pub fn json(&self) -> Value {
        json!({ "corrected_us": figures(&self.corrected), "raw_us": figures(&self.raw) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { start: 1000, warm_up: 100, end: 1000, lag_max: 0 };

    #[test]
    fn figures_are_in_microseconds() {
        let mut of = histogram();
        (1..=1000).for_each(|n| record(&mut of, n * 1000));
        record(&mut of, u64::MAX);
        let figures = figures(&of);
        let p50 = figures["p50"].as_f64().unwrap();
        assert!((499.0..=502.0).contains(&p50), "{p50}");
        assert!(figures["max"].as_f64().unwrap() >= 60e6 * 0.99);
    }

    #[test]
    fn latency_counts_from_the_plan_and_warm_up_does_not_count() {
        let mut recorder = Recorder::default();
        recorder.arrived(&Times { planned: 1099, sent: 1099 }, 1200, &SPAN);
        recorder.arrived(&Times { planned: 1100, sent: 1150 }, 1160, &SPAN);
        // Planned in the measured part and late: it counts in full, but not for what was reached in that part.
        recorder.arrived(&Times { planned: 1999, sent: 2500 }, 2600, &SPAN);
        recorder.arrived(&Times { planned: 2000, sent: 2000 }, 2001, &SPAN);
        assert_eq!((recorder.corrected.len(), recorder.raw.len()), (2, 2));
        assert_eq!((recorder.corrected.min(), recorder.corrected.max()), (60, 601));
        assert_eq!((recorder.raw.min(), recorder.raw.max()), (10, 100));
        assert_eq!((recorder.in_time, recorder.before_end), (2, 2));
    }

    #[test]
    fn threads_are_summed() {
        let mut one = Recorder::default();
        one.arrived(&Times { planned: 1500, sent: 1500 }, 1510, &SPAN);
        let sum = Recorder::sum([&one, &one].into_iter());
        assert_eq!((sum.corrected.len(), sum.in_time), (2, 2));
    }
}
