//! What a thread does when a pass moved nothing. A state machine: it says what to do, the runner does it.

use std::fmt;
use std::time::Duration;

/// Time without anything to do after which a thread takes longer rests: who uses it now and then is not kept waiting, and who does not pays
/// little for it.
const REST_AFTER: Duration = Duration::from_secs(1);

/// How a thread rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Look again at once. Needs a core of its own.
    Spin,
    /// Let other threads run, then look again.
    Yield,
    /// Spin a little, then sleep until a completion or a timeout, each twice the one before.
    Park {
        /// Time to spin first.
        spin_for: Duration,
        /// First timeout.
        park_min: Duration,
        /// Longest timeout.
        park_max: Duration,
        /// Longest timeout once nothing has moved for `REST_AFTER`.
        rest_max: Duration,
    },
}

impl fmt::Display for IdlePolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            IdlePolicy::Spin => "spin",
            IdlePolicy::Yield => "yield",
            IdlePolicy::Park { .. } => "park",
        })
    }
}

/// What to do after a pass that moved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleStep {
    /// Look again at once.
    Spin,
    /// Let other threads run.
    Yield,
    /// Sleep until a completion or this time has passed, if the roles agree.
    Sleep(Duration),
}

/// A policy and how far it has backed off.
#[derive(Clone, Debug)]
pub struct Idle {
    policy: IdlePolicy,
    idle_since_ns: Option<u64>,
    next_sleep: Duration,
    sleep_max: Duration,
}

impl Idle {
    /// Not yet idle.
    ///
    /// # Panics
    /// If a parking policy has no time to sleep or its bounds are crossed: the configuration is checked.
    pub fn new(policy: IdlePolicy) -> Idle {
        let (next_sleep, sleep_max) = match policy {
            IdlePolicy::Park { park_min, park_max, rest_max, .. } => {
                assert!(park_min > Duration::ZERO && park_min <= park_max, "park_min is above 0 and at most park_max");
                assert!(park_max <= rest_max, "rests are not shorter than sleeps");
                (park_min, park_max)
            }
            _ => (Duration::ZERO, Duration::ZERO),
        };
        Idle { policy, idle_since_ns: None, next_sleep, sleep_max }
    }

    /// Something moved: start over.
    pub fn worked(&mut self) {
        self.idle_since_ns = None;
        if let IdlePolicy::Park { park_min, .. } = self.policy {
            self.next_sleep = park_min;
        }
    }

    /// Nothing moved in the pass of this time: what now?
    pub fn step(&mut self, monotonic_ns: u64) -> IdleStep {
        match self.policy {
            IdlePolicy::Spin => IdleStep::Spin,
            IdlePolicy::Yield => IdleStep::Yield,
            IdlePolicy::Park { spin_for, park_max, rest_max, .. } => {
                let idle_ns = monotonic_ns - *self.idle_since_ns.get_or_insert(monotonic_ns);
                let rests = u128::from(idle_ns) >= REST_AFTER.as_nanos();
                self.sleep_max = if rests { rest_max } else { park_max };
                match u128::from(idle_ns) < spin_for.as_nanos() {
                    true => IdleStep::Spin,
                    false => IdleStep::Sleep(self.next_sleep),
                }
            }
        }
    }

    /// It slept as told: the next sleep is twice as long.
    pub fn slept(&mut self) {
        self.next_sleep = self.next_sleep.saturating_mul(2).min(self.sleep_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn park(spin_for: Duration, park_max: Duration, rest_max: Duration) -> IdlePolicy {
        IdlePolicy::Park { spin_for, park_min: us(50), park_max, rest_max }
    }

    #[test]
    fn rests_longer_after_a_second_and_not_after_work() {
        let mut idle = Idle::new(park(us(20), us(100), us(400)));
        let after = |idle: &mut Idle, ns| {
            let step = idle.step(ns);
            idle.slept();
            step
        };
        assert_eq!(idle.step(5), IdleStep::Spin);
        let found = [30_000, 900_000_000, 1_000_000_004, 1_000_000_005, 1_100_000_000, 1_200_000_000]
            .map(|ns| after(&mut idle, ns));
        assert_eq!(found, [50, 100, 100, 100, 200, 400].map(|time| IdleStep::Sleep(us(time))));
        idle.worked();
        assert_eq!(idle.step(2_000_000_000), IdleStep::Spin);
        let found = [2_000_030_000, 2_000_040_000, 2_000_050_000].map(|ns| after(&mut idle, ns));
        assert_eq!(found, [50, 100, 100].map(|time| IdleStep::Sleep(us(time))));
    }

    #[test]
    fn parks_after_spinning_and_doubles_up_to_the_bound() {
        let mut idle = Idle::new(park(us(20), us(120), us(120)));
        assert_eq!(idle.step(1_000), IdleStep::Spin);
        assert_eq!(idle.step(20_999), IdleStep::Spin);
        for expected in [50, 100, 120, 120] {
            assert_eq!(idle.step(21_000), IdleStep::Sleep(us(expected)));
            idle.slept();
        }
        idle.worked();
        assert_eq!(idle.step(500_000), IdleStep::Spin);
        assert_eq!(idle.step(520_000), IdleStep::Sleep(us(50)));
    }

    #[test]
    fn a_sleep_refused_by_a_role_does_not_back_off() {
        let mut idle = Idle::new(park(Duration::ZERO, us(1000), us(1000)));
        assert_eq!(idle.step(1), IdleStep::Sleep(us(50)));
        assert_eq!(idle.step(2), IdleStep::Sleep(us(50)));
    }

    #[test]
    fn spinning_and_yielding_never_sleep() {
        for (policy, step) in [(IdlePolicy::Spin, IdleStep::Spin), (IdlePolicy::Yield, IdleStep::Yield)] {
            let mut idle = Idle::new(policy);
            assert_eq!(idle.step(1), step);
            assert_eq!(idle.step(u64::MAX), step);
        }
    }
}
