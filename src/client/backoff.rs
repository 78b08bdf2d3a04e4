//! Pauses between attempts that fail: each twice as long as the one before, up to a bound.

use std::time::Duration;

/// First and longest pause between two attempts to reach the same broker.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The pause that is due, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::within(BACKOFF_MIN, BACKOFF_MAX)
    }
}

impl Backoff {
    pub const fn within(min: Duration, max: Duration) -> Backoff {
        assert!(!min.is_zero() && min.as_nanos() <= max.as_nanos());
        Backoff { min, max, pause: min }
    }

    /// The pause after the failure that there will be next.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    pub fn max(&self) -> Duration {
        self.max
    }

    /// An attempt has failed: gives the pause before the next one.
    pub fn fail(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.max);
        pause
    }

    /// An attempt has succeeded.
    pub fn reset(&mut self) {
        self.pause = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::within(ms(50), ms(300));
        assert_eq!([(); 5].map(|()| backoff.fail()), [ms(50), ms(100), ms(200), ms(300), ms(300)]);
        backoff.reset();
        assert_eq!((backoff.pause(), backoff.fail(), backoff.pause()), (ms(50), ms(50), ms(100)));
    }
}
