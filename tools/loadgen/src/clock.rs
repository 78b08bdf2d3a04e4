//! The machine's monotonic clock, the same in every process of one host.

use rustix::time::{ClockId, clock_gettime};

/// Now, ns.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
