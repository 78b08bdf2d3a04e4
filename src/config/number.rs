//! Whole numbers as people write them: what does not fit is told in their words, not in those of a type.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A whole number from 0 to what `T` holds.
struct Whole<T>(T);

/// The largest number that an unsigned type of this size holds.
fn most<T>() -> u64 {
    u64::MAX >> (64 - 8 * size_of::<T>().min(8))
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Number<T>(PhantomData<T>);
        impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
            type Value = T;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a whole number from 0 to {}", most::<T>())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
                T::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
        }
        input.deserialize_any(Number(PhantomData)).map(Whole)
    }
}

/// `#[serde(with)]` for an unsigned number.
pub(in crate::config) fn serialize<T: Serialize, S: Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error> {
    value.serialize(out)
}

pub(in crate::config) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    Whole::deserialize(input).map(|number| number.0)
}

/// `#[serde(with)]` for an `Option<u32>`, where none is written `auto`.
pub mod auto {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(value: &Option<u32>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            None => out.serialize_str("auto"),
            Some(value) => value.serialize(out),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
        struct AutoOrNumber;
        impl Visitor<'_> for AutoOrNumber {
            type Value = Option<u32>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "auto or a whole number from 0 to {}", u32::MAX)
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                if value == "auto" { Ok(None) } else { Err(E::invalid_value(de::Unexpected::Str(value), &self)) }
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                u32::try_from(value).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
        }
        input.deserialize_any(AutoOrNumber)
    }
}

/// The numbers of a list.
pub(super) fn items_of<'de, T: TryFrom<u64>, A: SeqAccess<'de>>(mut items: A) -> Result<Vec<T>, A::Error> {
    let mut list = Vec::new();
    while let Some(item) = items.next_element::<Whole<T>>()? {
        list.push(item.0);
    }
    Ok(list)
}
