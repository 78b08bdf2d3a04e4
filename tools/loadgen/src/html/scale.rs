//! Where values lie on an axis, and which of them are written beside it.

use super::number::short;

/// An axis from its least to its greatest value.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Values that are written, in their order, with their words. The first and the last one need not be the ends.
    pub ticks: Vec<(f64, String)>,
    from: f64,
    to: f64,
    is_log: bool,
}

impl Axis {
    /// From 0 to the first tick that no value is above.
    pub fn linear(label: &str, most: f64, about: usize) -> Axis {
        let step = step(most, about);
        let count = (most / step - 1e-9).ceil().max(1.0) as usize;
        let ticks = (0..=count).map(|index| index as f64 * step).map(|value| (value, short(value))).collect();
        Axis { label: label.to_owned(), ticks, from: 0.0, to: count as f64 * step, is_log: false }
    }

    /// From 0 to the greatest value, which need not be a tick.
    pub fn exact(label: &str, most: f64, about: usize) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let ticks = ticks(most, about).into_iter().map(|value| (value, short(value))).collect();
        Axis { label: label.to_owned(), ticks, from: 0.0, to: most, is_log: false }
    }

    /// From 0, with ticks of one's own.
    pub fn with_ticks(label: &str, to: f64, ticks: Vec<(f64, String)>) -> Axis {
        Axis { label: label.to_owned(), ticks, from: 0.0, to, is_log: false }
    }

    /// By factors, over all values, which are above 0: whole factors of ten, or 1-2-5 where there are few of them.
    pub fn log(label: &str, least: f64, most: f64, words: impl Fn(f64) -> String) -> Axis {
        let (from, to) = log_ends(least, most);
        let ticks = log_ticks(from, to).into_iter().map(|value| (value, words(value))).collect();
        Axis { label: label.to_owned(), ticks, from, to, is_log: true }
    }

    /// Where a value is: 0 at the beginning, 1 at the end. What lies outside is at an end.
    pub fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The greatest value.
    pub fn to(&self) -> f64 {
        self.to
    }
}

/// 1, 2 or 5 times a power of ten, of which about so many reach `most`, and not more than twice as many.
fn step(most: f64, about: usize) -> f64 {
    if !most.is_finite() || most <= 0.0 {
        return 1.0;
    }
    let least = most / about.max(1) as f64;
    let power = 10_f64.powf(least.log10().floor());
    // The logarithm of a power of ten may be a little too small.
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(power)
}

/// Multiples of 1, 2 or 5 times a power of ten, from 0 to `most`.
pub fn ticks(most: f64, about: usize) -> Vec<f64> {
    let step = step(most, about);
    (0..=(most / step + 1e-9).floor().max(0.0) as usize).map(|index| index as f64 * step).collect()
}

/// Ends of an axis by factors, a tick each.
fn log_ends(least: f64, most: f64) -> (f64, f64) {
    let least = if least.is_finite() && least > 0.0 { least } else { 1.0 };
    let most = most.max(least);
    let below = steps_from(10_f64.powf(least.log10().floor())).rfind(|step| *step <= least * 1.000_001);
    let above = steps_from(10_f64.powf(most.log10().floor())).find(|step| *step >= most * 0.999_999);
    let from = below.unwrap_or(least);
    let to = above.unwrap_or(most);
    if to > from { (from, to) } else { (from, from * 10.0) }
}

fn steps_from(power: f64) -> impl DoubleEndedIterator<Item = f64> {
    [1.0, 2.0, 5.0, 10.0].into_iter().map(move |factor| factor * power)
}

/// Powers of ten from one value to another; 1-2-5 if these are few.
pub fn log_ticks(from: f64, to: f64) -> Vec<f64> {
    let powers = (from.log10() - 1e-9).floor() as i32..=(to.log10() + 1e-9).ceil() as i32;
    let is_inside = |value: &f64| *value >= from * 0.999_999 && *value <= to * 1.000_001;
    let factors: &[f64] = if (to / from).log10() <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power))).filter(is_inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, words)| words.as_str()).collect()
    }

    #[test]
    fn ticks_are_1_2_5() {
        assert_eq!(ticks(10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.9, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8]);
        assert_eq!(ticks(1000.0, 10), (0..=10).map(|n| f64::from(n) * 100.0).collect::<Vec<_>>());
        assert_eq!(ticks(0.0, 5), [0.0]);
        for most in [0.003, 0.7, 1.0, 3.3, 99.0, 12_345.0, 8e9] {
            let count = ticks(most, 6).len();
            assert!((3..=7).contains(&count), "{most}: {count}");
        }
    }

    #[test]
    fn a_linear_axis_ends_with_a_tick_above_all_values() {
        assert_eq!(words(&Axis::linear("", 1700.0, 4)), ["0", "500", "1 k", "1.5 k", "2 k"]);
        assert_eq!(words(&Axis::linear("", 2000.0, 4)), ["0", "500", "1 k", "1.5 k", "2 k"]);
        for empty in [0.0, f64::NAN] {
            assert_eq!(words(&Axis::linear("", empty, 4)), ["0", "1"]);
        }
    }

    #[test]
    fn a_log_axis_has_powers_of_ten_and_1_2_5_where_they_are_few() {
        let number = |value: f64| format!("{value:.0}");
        assert_eq!(words(&Axis::log("", 3.0, 70_000.0, number)), ["10", "100", "1000", "10000", "100000"]);
        assert_eq!(words(&Axis::log("", 12.0, 90.0, number)), ["10", "20", "50", "100"]);
        assert_eq!(words(&Axis::log("", 100.0, 100.0, number)), ["100", "200", "500", "1000"]);
        assert!(!Axis::log("", 0.0, 0.0, number).ticks.is_empty());
    }

    #[test]
    fn places_are_between_the_ends() {
        let axis = Axis::log("", 10.0, 1000.0, |value| value.to_string());
        assert!((axis.place(100.0) - 0.5).abs() < 1e-9);
        assert_eq!([0.0, 10.0, 1000.0, 1e9].map(|value| axis.place(value)), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(Axis::exact("", 0.0, 5).place(f64::NAN), 0.0);
        assert_eq!(Axis::exact("", 8.0, 5).place(2.0), 0.25);
    }
}
