//! Quantities that only a load has: rates, and a slow path to a broker.

use std::time::Duration;

use tools_common::arguments::bytes;
use tools_common::schedule::Rate;

/// A number of messages a second, or a size a second: `200000`, `50MB`, `1MiB/s`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let quantity = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = match quantity.parse() {
        Ok(messages) => Rate::Messages(messages),
        Err(_) => Rate::Bytes(bytes(quantity).map_err(|_| {
            format!("{text:?} is neither a number of messages a second, like 200000, nor a size a second, like 50MB")
        })?),
    };
    match rate {
        Rate::Messages(0) | Rate::Bytes(0) => Err("a rate is above 0".to_owned()),
        rate => Ok(rate),
    }
}

/// A deliberately slow path to one broker: its index in the list, and milliseconds.
pub fn skew(text: &str) -> Result<(usize, Duration), String> {
    let wrong = || format!("{text:?} is not BROKER:MILLISECONDS, like 2:50");
    let (broker, delay) = text.split_once(':').ok_or_else(wrong)?;
    let delay = delay.parse().map_err(|_| wrong())?;
    Ok((broker.parse().map_err(|_| wrong())?, Duration::from_millis(delay)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_paths() {
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
}
