//! Quantities and words as people write them on a command line: `1GiB`, `5ms`, `wait:64MiB`. Every tool reads them alike.

use std::time::Duration;

use clap::Args;
use embarcadero::SlowReaderPolicy;
use embarcadero::config::CoherenceMode;
use embarcadero::config::units::{parse_bytes, parse_duration};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};

/// Who attaches to a pool.
#[derive(Clone, Debug, Args)]
pub struct HostArgs {
    /// With --attach: this host's number in the pool.
    #[arg(long, default_value = "0", requires = "attach")]
    pub host: u32,
    /// With --attach: the brokers' pool.coherence, software or hardware. Software is right on every pool.
    #[arg(long, default_value = "software", value_parser = coherence, requires = "attach")]
    pub coherence: CoherenceMode,
}

/// A number of bytes, as in the broker's configuration: `4096`, `64KiB`, `1GB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

/// A number of bytes, more than none.
pub fn size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("must be above 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A duration, as in the broker's configuration: `500us`, `5ms`, `2s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Whole seconds, from one to a day's: `30`, or `30s`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let whole = text.parse().map(Duration::from_secs).or_else(|_| duration(text));
    match whole {
        Ok(time) if time.subsec_nanos() == 0 && (1..=86_400).contains(&time.as_secs()) => Ok(time),
        _ => Err(format!("{text:?} is not a whole number of seconds from 1 to 86400, like 30 or 30s")),
    }
}

/// An order level by its number.
pub fn order(text: &str) -> Result<OrderLevel, String> {
    OrderLevel::from_byte(level(text)?).map_err(|error| error.to_string())
}

/// An ack level by its number.
pub fn ack(text: &str) -> Result<AckLevel, String> {
    AckLevel::from_byte(level(text)?).map_err(|error| error.to_string())
}

fn level(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("{text:?} is not a level's number"))
}

/// Where receipts are stamped.
pub fn receipts(text: &str) -> Result<Receipts, String> {
    match text {
        "batch" => Ok(Receipts::Batch),
        "message" => Ok(Receipts::Message),
        _ => Err(format!("{text:?} is neither batch nor message")),
    }
}

/// What becomes of slow readers: `wait`, `wait:64MiB`, `skip`, `disconnect`.
pub fn slow_reader(text: &str) -> Result<SlowReaderPolicy, String> {
    match text.split_once(':') {
        Some(("wait", size)) => match bytes(size)? {
            0 => Err("wait:0 would wait for nobody; write disconnect or skip".to_owned()),
            lag_bytes => Ok(SlowReaderPolicy::Wait { lag_bytes }),
        },
        None if text == "wait" => Ok(SlowReaderPolicy::Wait { lag_bytes: 0 }),
        None if text == "skip" => Ok(SlowReaderPolicy::Skip),
        None if text == "disconnect" => Ok(SlowReaderPolicy::Disconnect),
        _ => Err(format!("{text:?} is none of wait, wait:SIZE, skip, disconnect")),
    }
}

/// How hosts see each other's stores.
pub fn coherence(text: &str) -> Result<CoherenceMode, String> {
    match text {
        "software" => Ok(CoherenceMode::Software),
        "hardware" => Ok(CoherenceMode::Hardware),
        _ => Err(format!("{text:?} is neither software nor hardware")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert!(size("0").is_err());
        assert_eq!(size("1024B"), Ok(1024));
        assert_eq!(bytes("10GiB"), Ok(10 << 30));
        assert_eq!(bytes("2 MB"), Ok(2_000_000));
        for bad in ["", "GiB", "1.5GiB", "1gib", "-1", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert!(duration("5").is_err());
        assert_eq!(seconds("300"), Ok(Duration::from_secs(300)));
        assert_eq!(seconds("300s"), Ok(Duration::from_secs(300)));
        for bad in ["0", "0s", "1500ms", "86401", "-1", "soon"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn levels() {
        assert_eq!(order("5"), Ok(OrderLevel::Session));
        assert!(order("3").is_err());
        assert!(ack("9").is_err());
        assert!(receipts("none").is_err());
    }

    #[test]
    fn slow_readers() {
        assert_eq!(slow_reader("wait"), Ok(SlowReaderPolicy::Wait { lag_bytes: 0 }));
        assert_eq!(slow_reader("wait:64MiB"), Ok(SlowReaderPolicy::Wait { lag_bytes: 64 << 20 }));
        assert_eq!(slow_reader("skip"), Ok(SlowReaderPolicy::Skip));
        assert_eq!(slow_reader("disconnect"), Ok(SlowReaderPolicy::Disconnect));
        for bad in ["", "wait:", "wait:0", "skip:1MiB", "drop"] {
            assert!(slow_reader(bad).is_err(), "{bad:?}");
        }
    }
}
