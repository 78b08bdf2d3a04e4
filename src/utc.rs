//! The time of day, read in this one place. It goes into records only: whatever waits uses a clock that never goes back.

use std::time::{SystemTime, UNIX_EPOCH};

/// Since 1970 (UTC), nanoseconds. A clock before 1970 is not set: records then count from 1970, and nothing else depends on it.
pub fn utc_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
