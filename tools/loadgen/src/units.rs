//! Quantities as people write them on a command line: `1GiB`, `5ms`, `2:50`.

use std::time::Duration;

use embarcadero::config::units::parse_bytes;
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};

pub use tools_common::{bytes, coherence, duration, slow_reader};

use crate::schedule::Rate;

/// A number of messages a second, or a size a second: `200000`, `50MB`, `1MiB/s`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let quantity = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = match quantity.parse() {
        Ok(messages) => Rate::Messages(messages),
        Err(_) => Rate::Bytes(parse_bytes(quantity).map_err(|_| {
            format!("{text:?} is neither a number of messages a second, like 200000, nor a size a second, like 50MB")
        })?),
    };
    match rate {
        Rate::Messages(0) | Rate::Bytes(0) => Err("a rate is above 0".to_owned()),
        rate => Ok(rate),
    }
}

/// Whole seconds, more than none.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a whole number of seconds above 0")),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// A deliberately slow path to one broker: its index in the list, and milliseconds.
pub fn skew(text: &str) -> Result<(usize, Duration), String> {
    let wrong = || format!("{text:?} is not BROKER:MILLISECONDS, like 2:50");
    let (broker, delay) = text.split_once(':').ok_or_else(wrong)?;
    let delay = delay.parse().map_err(|_| wrong())?;
    Ok((broker.parse().map_err(|_| wrong())?, Duration::from_millis(delay)))
}

/// An order level by its number.
pub fn order(text: &str) -> Result<OrderLevel, String> {
    OrderLevel::from_byte(byte(text)?).map_err(|error| error.to_string())
}

/// An ack level by its number.
pub fn ack(text: &str) -> Result<AckLevel, String> {
    AckLevel::from_byte(byte(text)?).map_err(|error| error.to_string())
}

/// Where receipts are stamped.
pub fn receipts(text: &str) -> Result<Receipts, String> {
    match text {
        "batch" => Ok(Receipts::Batch),
        "message" => Ok(Receipts::Message),
        _ => Err(format!("{text:?} is neither batch nor message")),
    }
}

fn byte(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("{text:?} is not a level's number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use embarcadero::client::SlowReaderPolicy;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("1024B"), Ok(1024));
        assert_eq!(bytes("10GiB"), Ok(10 << 30));
        assert_eq!(bytes("2 MB"), Ok(2_000_000));
        for bad in ["", "GiB", "1.5GiB", "1gib", "-1", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_and_skew() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert!(duration("5").is_err());
        assert_eq!(seconds("300"), Ok(Duration::from_secs(300)));
        assert!(seconds("0").is_err());
        assert_eq!(skew("2:50"), Ok((2, Duration::from_millis(50))));
        assert!(skew("2").is_err());
    }

    #[test]
    fn rates() {
        assert_eq!(rate("200000"), Ok(Rate::Messages(200_000)));
        assert_eq!(rate("5/s"), Ok(Rate::Messages(5)));
        assert_eq!(rate("50MB"), Ok(Rate::Bytes(50_000_000)));
        assert_eq!(rate("1MiB/s"), Ok(Rate::Bytes(1 << 20)));
        for bad in ["", "0", "0MB", "fast", "-5", "1.5"] {
            assert!(rate(bad).is_err(), "{bad:?}");
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
