//! The time, read once per pass of a runner and handed to everything that runs in it.

use std::sync::OnceLock;

use crate::runtime::os;
use crate::utc::utc_ns;

/// The time of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since a fixed moment in this process, nanoseconds; never goes back, never 0. For timeouts and leases.
    pub monotonic_ns: u64,
    /// Since 1970 (UTC), nanoseconds; follows the system's clock, also when that is set back. For records only.
    pub utc_ns: u64,
}

/// Where a runner reads the time: the system's clock, or a test's.
pub trait Clock {
    /// The time.
    fn now(&mut self) -> Now;
}

/// How long an offset between the two clocks is used. They drift apart by parts in a million, so 10 ms keeps UTC
/// within nanoseconds, and a step of the system's clock is seen soon.
const OFFSET_VALID_NS: u64 = 10_000_000;

/// The system's clocks: one reading per call, and a second one each 10 ms.
#[derive(Debug, Default)]
pub struct SystemClock {
    /// UTC at monotonic 0, nanoseconds.
    offset_ns: u64,
    offset_read_at_ns: Option<u64>,
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        let monotonic_ns = monotonic_ns();
        if self.offset_read_at_ns.is_none_or(|read_at| monotonic_ns - read_at >= OFFSET_VALID_NS) {
            self.offset_ns = utc_ns().saturating_sub(monotonic_ns);
            self.offset_read_at_ns = Some(monotonic_ns);
        }
        Now { monotonic_ns, utc_ns: self.offset_ns + monotonic_ns }
    }
}

/// All threads count from the same moment, so that a time taken on one means the same on another. Not by `Instant`: its arithmetic, checked for
/// clocks that go back, takes twice what the reading itself does, and several readings lie on a batch's way.
fn monotonic_ns() -> u64 {
    static ORIGIN: OnceLock<u64> = OnceLock::new();
    let since_boot_ns = os::since_boot_ns();
    1 + since_boot_ns.saturating_sub(*ORIGIN.get_or_init(|| since_boot_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_clocks_agree() {
        let (mut one, mut other) = (SystemClock::default(), SystemClock::default());
        let mut last = one.now();
        assert!(last.monotonic_ns > 0);
        for _ in 0..1000 {
            for clock in [&mut one, &mut other] {
                let now = clock.now();
                assert!(now.monotonic_ns >= last.monotonic_ns);
                last = now;
            }
        }
        let year_2024_ns = 54 * 365 * 24 * 3600 * 1_000_000_000;
        assert!(last.utc_ns > year_2024_ns, "utc_ns is {}", last.utc_ns);
    }
}
