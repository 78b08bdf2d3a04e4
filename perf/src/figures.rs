//! Medians, spreads and ratios of rounds.

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
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "there is a round that counts");
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }

    /// Of each round's own ratio, so that what slowed both sides of a round cancels out.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]).median, 2.5);
        // The ratio of the medians would be 1: the rounds know better.
        assert_eq!(Spread::of_ratios(&[1.0, 4.0, 2.0], &[2.0, 8.0, 1.0]).words(2), "0.50 [0.50..2.00]");
    }
}
