//! Quantities as people write them on a command line: `1GiB`, `5ms`, `2:50`.

use std::time::Duration;

use embarcadero::wire::{AckLevel, OrderLevel, Receipts};

/// A number of bytes: `4096`, `64KiB`, `1GB`, `1.5GiB` is refused (whole numbers only).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("unit {unit:?} is none of B, kB, MB, GB, KiB, MiB, GiB, TiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a whole number with a unit, like 64KiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} does not fit 64 bits"))
}

/// A duration: `500us`, `5ms`, `2s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let nanoseconds = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(format!("unit {unit:?} is none of ns, us, ms, s")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a whole number with a unit, like 5ms"))?;
    let total =
        number.checked_mul(nanoseconds).ok_or_else(|| format!("{text:?} does not fit 64 bits of nanoseconds"))?;
    Ok(Duration::from_nanos(total))
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

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn levels() {
        assert_eq!(order("5"), Ok(OrderLevel::Session));
        assert!(order("3").is_err());
        assert!(ack("9").is_err());
        assert!(receipts("none").is_err());
    }
}
