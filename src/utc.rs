//! The time of day, read in this one place. It goes into records only: whatever waits uses a clock that never goes back.

use std::time::{SystemTime, UNIX_EPOCH};

/// Since 1970 (UTC), nanoseconds. A clock before 1970 is not set: records then count from 1970, and nothing else depends on it.
pub fn utc_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The hour of a moment, UTC, as people write it, to a thousandth of a second.
pub fn hour_of(utc_ns: u64) -> String {
    let ms = utc_ns / 1_000_000;
    let (hours, minutes, seconds) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_hour_is_written_in_full() {
        assert_eq!(super::hour_of(1_796_060_307_593_566_200), "17:38:27.593");
    }
}
