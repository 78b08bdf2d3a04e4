//! Sizes, durations and levels as people write them, and back.
//!
//! Every value printed here parses back to itself. Decimal units are powers of 1000, binary ones (`KiB`) powers of
//! 1024. A duration always has a unit: nobody guesses right whether `5` means seconds or milliseconds.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

/// A size or duration that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a size.
    #[error(
        "found {found:?}, expected a size: a whole number with B, KB, KiB, MB, MiB, GB, GiB, TB or TiB, such as 8MiB"
    )]
    Size {
        /// As written.
        found: String,
    },
    /// A duration without its unit.
    #[error("found {found}, a duration without its unit; write {found}s, {found}ms or {found}us")]
    DurationWithoutUnit {
        /// As written.
        found: u64,
    },
    /// Not a duration.
    #[error("found {found:?}, expected a duration: a whole number with ns, us, ms, s, m or h, such as 100ms")]
    Duration {
        /// As written.
        found: String,
    },
    /// Larger than a 64-bit count can hold.
    #[error("found {found:?}, which is more than a 64-bit count of bytes or nanoseconds holds; write a smaller value")]
    TooLarge {
        /// As written.
        found: String,
    },
}

// Largest first: printing takes the first that divides.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
];
const DURATION_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Splits `8MiB` into 8 and `MiB`. Blanks between them are fine; nothing else is.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// Bytes of a size such as `64KiB`, `1GB` or `4096`.
///
/// # Errors
/// [`UnitError::Size`] or [`UnitError::TooLarge`].
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Size { found: text.into() };
    let (count, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" | "B" => 1,
        _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
    };
    count.checked_mul(factor).ok_or_else(|| UnitError::TooLarge { found: text.into() })
}

/// A size in the largest unit that divides it; [`parse_bytes`] reads it back.
pub fn format_bytes(bytes: u64) -> String {
    // Binary units only: 1_000_000 prints as a plain number, which is exact and surprises nobody.
    match SIZE_UNITS.iter().find(|(name, factor)| name.len() == 3 && bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// A duration such as `5s`, `100ms` or `50us`.
///
/// # Errors
/// [`UnitError::DurationWithoutUnit`], [`UnitError::Duration`] or [`UnitError::TooLarge`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration { found: text.into() };
    let (count, unit) = split(text).ok_or_else(wrong)?;
    if unit.is_empty() {
        return Err(UnitError::DurationWithoutUnit { found: count });
    }
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let ns = count.checked_mul(*factor).ok_or_else(|| UnitError::TooLarge { found: text.into() })?;
    Ok(Duration::from_nanos(ns))
}

/// A duration in the largest unit that divides it; [`parse_duration`] reads it back.
///
/// # Panics
/// If it is longer than 584 years: no duration that was parsed is.
pub fn format_duration(duration: Duration) -> String {
    let ns = u64::try_from(duration.as_nanos()).expect("configured durations fit 64 bits of nanoseconds");
    match DURATION_UNITS.iter().find(|(_, factor)| ns > 0 && ns.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", ns / factor),
        None => "0s".into(),
    }
}

/// Reads what one of the `serde(with)` modules below accepts: `number` and `text` say how.
struct Reader<N, T> {
    expected: &'static str,
    number: N,
    text: T,
}

impl<'de, V, N, T> Visitor<'de> for Reader<N, T>
where
    N: FnOnce(u64) -> Result<V, UnitError>,
    T: FnOnce(&str) -> Result<V, UnitError>,
{
    type Value = V;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<V, E> {
        (self.number)(value).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<V, E> {
        (self.text)(value).map_err(E::custom)
    }
}

/// `#[serde(with)]` for a `u64` of bytes.
pub mod bytes {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(value: &u64, out: S) -> Result<S::Ok, S::Error> {
        match value.is_multiple_of(1024) && *value > 0 {
            true => out.serialize_str(&format_bytes(*value)),
            false => out.serialize_u64(*value),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        input.deserialize_any(Reader { expected: "a size such as 8MiB", number: Ok, text: parse_bytes })
    }
}

/// `#[serde(with)]` for an `Option<u64>` of bytes, where none is written `auto`.
pub mod auto_bytes {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(value: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            None => out.serialize_str("auto"),
            Some(value) => bytes::serialize(value, out),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
        input.deserialize_any(Reader {
            expected: "auto or a size such as 8MiB",
            number: |value| Ok(Some(value)),
            text: |text: &str| if text == "auto" { Ok(None) } else { parse_bytes(text).map(Some) },
        })
    }
}

/// `#[serde(with)]` for a `Duration`.
pub mod duration {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format_duration(*value))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        input.deserialize_any(Reader {
            expected: "a duration such as 100ms",
            number: |found| Err(UnitError::DurationWithoutUnit { found }),
            text: parse_duration,
        })
    }
}

/// `#[serde(with)]` for an `Option<Vec<usize>>`, where none is written `auto`.
pub mod auto_list {
    use super::*;
    use serde::Serialize;

    struct AutoOrList;

    impl<'de> Visitor<'de> for AutoOrList {
        type Value = Option<Vec<usize>>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("auto or a list of whole numbers such as [2, 3]")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            if value == "auto" { Ok(None) } else { Err(E::invalid_value(de::Unexpected::Str(value), &self)) }
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
            crate::config::number::items_of(items).map(Some)
        }
    }

    pub(in crate::config) fn serialize<S: Serializer>(value: &Option<Vec<usize>>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            None => out.serialize_str("auto"),
            Some(list) => list.serialize(out),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<usize>>, D::Error> {
        input.deserialize_any(AutoOrList)
    }
}

macro_rules! level_by_number {
    ($($(#[$meta:meta])* $module:ident: $level:ty),*) => { $(
        $(#[$meta])*
        pub mod $module {
            use super::*;

            // The check happens inside the visit: only there does the parser add key and line to an error.
            struct Number;

            impl Visitor<'_> for Number {
                type Value = $level;

                fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let levels: Vec<String> = <$level>::ALL.iter().map(<$level>::to_string).collect();
                    write!(out, "one of {}", levels.join(", "))
                }

                fn visit_u64<E: de::Error>(self, value: u64) -> Result<$level, E> {
                    let level = u8::try_from(value).ok().and_then(|byte| <$level>::from_byte(byte).ok());
                    level.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
                }
            }

            pub(in crate::config) fn serialize<S: Serializer>(value: &$level, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_u8(*value as u8)
            }

            pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<$level, D::Error> {
                input.deserialize_any(Number)
            }
        }
    )* };
}

level_by_number! {
    /// `#[serde(with)]` for an order level, written as its number.
    order_level: crate::wire::OrderLevel,
    /// `#[serde(with)]` for an ack level, written as its number.
    ack_level: crate::wire::AckLevel
}

/// `#[serde(with)]` for [`crate::wire::Receipts`], written as `batch` or `message`.
pub mod receipts {
    use super::*;
    use crate::wire::Receipts;
    use serde::{Deserialize, Serialize};

    // The wire's type is a number and stays free of serde; this mirror gives its values their names.
    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Written {
        Batch,
        Message,
    }

    pub(in crate::config) fn serialize<S: Serializer>(value: &Receipts, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Receipts::Batch => Written::Batch,
            Receipts::Message => Written::Message,
        }
        .serialize(out)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Receipts, D::Error> {
        Ok(match Written::deserialize(input)? {
            Written::Batch => Receipts::Batch,
            Written::Message => Receipts::Message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("2GiB", 2 << 30), ("8MiB", 8 << 20), ("64 KiB", 64 << 10), ("1GB", 1_000_000_000), ("7", 7), ("9B", 9)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "8mib", "8 M", "-1", "8MiB8", "0x10", "+3"] {
            assert!(matches!(parse_bytes(text), Err(UnitError::Size { .. })), "{text}");
        }
        assert!(matches!(parse_bytes("16777216TiB"), Err(UnitError::TooLarge { .. })));
    }

    #[test]
    fn durations() {
        for (text, ns) in
            [("5s", 5_000_000_000), ("100ms", 100_000_000), ("50us", 50_000), ("5m", 300_000_000_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        assert_eq!(
            parse_duration("5").unwrap_err().to_string(),
            "found 5, a duration without its unit; write 5s, 5ms or 5us"
        );
        for text in ["", "s", "5 seconds", "1.5s", "-5s"] {
            assert!(matches!(parse_duration(text), Err(UnitError::Duration { .. })), "{text}");
        }
        assert!(matches!(parse_duration("99999999999h"), Err(UnitError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn printed_values_read_back(value: u64, shift in 0u32..64) {
            prop_assert_eq!(parse_bytes(&format_bytes(value >> shift)), Ok(value >> shift));
            prop_assert_eq!(parse_bytes(&format_bytes(value << shift)), Ok(value << shift));
            let duration = Duration::from_nanos(value >> shift);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
