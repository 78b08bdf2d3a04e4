//! When each message is planned, whatever became of those before it.
//!
//! Pure: a seed and a rate in, times out. Constant arrivals lie a fixed interval apart; Poisson arrivals are independent of
//! each other, so their intervals are exponential. Several sessions share a rate: each has an equal part of it; constant ones
//! are shifted against each other by a part of the interval, Poisson ones have seeds of their own (a sum of Poisson processes
//! is one again).

use verification::payload::mix;

/// How many messages are asked for, or how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Messages a second, over all sessions.
    Messages(u64),
    /// Payload bytes a second, over all sessions.
    Bytes(u64),
}

impl Rate {
    /// Messages a second of messages of this size.
    pub fn messages_per_s(self, message_bytes: u64) -> f64 {
        match self {
            Rate::Messages(messages) => messages as f64,
            Rate::Bytes(bytes) => bytes as f64 / message_bytes.max(1) as f64,
        }
    }
}

/// How messages lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrival {
    /// One interval apart.
    Constant,
    /// At random, independent of each other.
    Poisson,
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if *self == Arrival::Constant { "constant" } else { "poisson" })
    }
}

/// The planned times of one session's messages, ns after the start, growing and without an end.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrival: Arrival,
    interval_ns: f64,
    shift_ns: f64,
    /// Messages given out.
    number: u64,
    /// Poisson: time of the last one.
    at_ns: f64,
    state: u64,
}

impl Schedule {
    /// Of session `index` of `sessions`, which have `messages_per_s` together.
    ///
    /// # Panics
    /// If the rate is not above 0 or there is no such session.
    pub fn new(arrival: Arrival, messages_per_s: f64, seed: u64, index: u32, sessions: u32) -> Schedule {
        assert!(messages_per_s > 0.0 && index < sessions, "a rate, and one of the sessions");
        let interval_ns = 1e9 * f64::from(sessions) / messages_per_s;
        Schedule {
            arrival,
            interval_ns,
            shift_ns: interval_ns * f64::from(index) / f64::from(sessions),
            number: 0,
            at_ns: 0.0,
            state: mix(seed ^ mix(u64::from(index))),
        }
    }

    /// Mean time between two messages, ns.
    pub fn interval_ns(&self) -> f64 {
        self.interval_ns
    }

    /// Gives up what was planned before this time and not given out.
    pub fn forgo_before(&mut self, at_ns: u64) {
        match self.arrival {
            Arrival::Constant => {
                let number = ((at_ns as f64 - self.shift_ns) / self.interval_ns).ceil();
                self.number = self.number.max(number.max(0.0) as u64);
            }
            Arrival::Poisson => self.at_ns = self.at_ns.max(at_ns as f64),
        }
    }

    /// A number from (0, 1], the next of the seed's sequence (SplitMix64).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((mix(self.state) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at = match self.arrival {
            // Not a sum, which would drift.
            Arrival::Constant => self.shift_ns + self.number as f64 * self.interval_ns,
            Arrival::Poisson => {
                self.at_ns -= self.uniform().ln() * self.interval_ns;
                self.at_ns
            }
        };
        self.number += 1;
        Some(at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_an_interval_apart_for_ever() {
        let times: Vec<u64> = Schedule::new(Arrival::Constant, 1000.0, 1, 0, 1).take(4).collect();
        assert_eq!(times, [0, 1_000_000, 2_000_000, 3_000_000]);
        let late = Schedule::new(Arrival::Constant, 3.0, 1, 0, 1).nth(3_000_000).unwrap();
        assert!(late.abs_diff(1_000_000 * 1_000_000_000) <= 1000, "no drift: {late}");
    }

    #[test]
    fn what_is_given_up_is_not_made_good() {
        let mut plan = Schedule::new(Arrival::Constant, 1000.0, 1, 0, 1);
        plan.forgo_before(2_500_000);
        assert_eq!(plan.next(), Some(3_000_000));
        plan.forgo_before(2_500_000);
        assert_eq!(plan.next(), Some(4_000_000), "what was given out stays so");
        let mut plan = Schedule::new(Arrival::Poisson, 1000.0, 1, 0, 1);
        plan.forgo_before(5_000_000);
        assert!(plan.next() > Some(5_000_000));
    }

    #[test]
    fn constant_sessions_take_turns() {
        let of = |index| Schedule::new(Arrival::Constant, 1000.0, 1, index, 4).take(2).collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(3)], [[0, 4_000_000], [1_000_000, 5_000_000], [3_000_000, 7_000_000]]);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let count = 100_000;
        let times: Vec<u64> = Schedule::new(Arrival::Poisson, 2000.0, 7, 1, 2).take(count).collect();
        assert!(times.is_sorted());
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Each of two sessions at 1000 a second. An exponential's deviation is its mean, 36.8 % lie above it.
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{variance}");
        let above = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((above - 0.368).abs() < 0.01, "{above}");
    }

    #[test]
    fn seeds_and_sessions_differ_and_repeat() {
        let of = |seed, index| Schedule::new(Arrival::Poisson, 1000.0, seed, index, 2).take(5).collect::<Vec<_>>();
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
    }

    #[test]
    fn bytes_are_messages_of_a_size() {
        assert_eq!(Rate::Bytes(1 << 20).messages_per_s(1 << 10), 1024.0);
        assert_eq!(Rate::Messages(5).messages_per_s(1 << 10), 5.0);
    }
}
