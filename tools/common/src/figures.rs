//! Figures of several rounds, and latencies: how they are summed up, printed and written.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The middle of several rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// Without one.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "there is a round that counts");
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }

    /// Of each round's own ratio, so that what slowed both sides of a round cancels out.
    ///
    /// # Panics
    /// If one of the two was measured more often.
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Spread {
        assert_eq!(above.len(), below.len(), "both were measured in every round");
        Spread::of(above.iter().zip(below).map(|(above, below)| above / below))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    /// `0.71 [0.68..0.73]`, with so many decimals.
    pub fn words(&self, decimals: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.decimals$} [{min:.decimals$}..{max:.decimals$}]")
    }
}

/// Both sides of a round; which of them comes first changes with every round, and neither always profits from what the other left.
///
/// # Errors
/// Of the side that failed.
pub fn in_turn<T, E>(round: u32, mut side: impl FnMut(bool) -> Result<T, E>) -> Result<(T, T), E> {
    let is_first = round.is_multiple_of(2);
    let (first, second) = (side(is_first)?, side(!is_first)?);
    Ok(if is_first { (first, second) } else { (second, first) })
}

/// Longest latency that is recorded, ns; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of what is recorded.
const DIGITS: u8 = 3;

/// What is reported of latencies.
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Latencies, recorded in ns and told in µs.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("bounds that are tested"))
    }
}

impl Latencies {
    /// Records one, ns; as the longest that can be recorded if it is longer.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds.max(1));
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("equal bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// So many percent took no longer, µs.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1e3
    }

    /// The shortest, µs.
    pub fn min_us(&self) -> f64 {
        self.0.min() as f64 / 1e3
    }

    /// The longest, µs.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// In words, µs.
    pub fn words(&self) -> String {
        if self.0.is_empty() {
            return "no message was measured".to_owned();
        }
        let all = PERCENTILES.map(|(name, at)| format!("{name} {:.1}", self.percentile_us(at)));
        format!("{}, max {:.1} ({} messages)", all.join(", "), self.max_us(), self.count())
    }

    /// As JSON, µs.
    pub fn json(&self) -> Value {
        let mut figures = json!({ "messages": self.count(), "mean": self.0.mean() / 1e3, "max": self.max_us() });
        for (name, at) in PERCENTILES {
            figures[name] = json!(self.percentile_us(at));
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]).words(2), "2.50 [1.00..4.00]");
        // The ratio of the medians would be 1: the rounds know better.
        assert_eq!(Spread::of_ratios(&[1.0, 4.0, 2.0], &[2.0, 8.0, 1.0]).words(2), "0.50 [0.50..2.00]");
    }

    #[test]
    fn sides_take_turns_and_come_back_in_their_places() {
        let mut order = Vec::new();
        for round in 0..2 {
            let side = |is_one: bool| {
                order.push(is_one);
                Ok::<_, ()>(is_one)
            };
            assert_eq!(in_turn(round, side), Ok((true, false)));
        }
        assert_eq!(order, [true, false, false, true]);
    }

    #[test]
    fn latencies_are_told_in_microseconds() {
        let mut of = Latencies::default();
        (1..=1000).for_each(|n| of.record(n * 1000));
        of.record(u64::MAX);
        let p50 = of.json()["p50"].as_f64().unwrap();
        assert!((499.0..=502.0).contains(&p50), "{p50}");
        assert!(of.max_us() >= 60e6 * 0.99);
    }
}
