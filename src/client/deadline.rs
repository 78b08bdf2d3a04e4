//! Moments to come, of timeouts that callers choose freely.

use std::time::{Duration, Instant};

/// As good as for ever: a deadline that a clock, a `timespec` and every sum made from it still hold.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The moment `timeout` after `now`; for any timeout, `Duration::MAX` included, which callers write for "until it comes".
pub(crate) fn after(now: Instant, timeout: Duration) -> Instant {
    now + timeout.min(FAR)
}

/// The moment `timeout` from now.
pub(crate) fn within(timeout: Duration) -> Instant {
    after(Instant::now(), timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_has_a_deadline() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_millis(7)), now + Duration::from_millis(7));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(1 << 24));
    }
}
