//! What this processor can do that data paths choose from, by how fast it is here; and a limit on it: so that one machine shows what others will
//! see.
//!
//! Invariant, cited by the SAFETY comment: a prefetch reads nothing that a program can see and never faults, whatever its address.
#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How much of the processor's instruction set data paths may use. Each has what those before it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "broker", derive(serde::Deserialize, serde::Serialize))]
pub enum Instructions {
    /// CRC32 on words, carry-less multiplication of 64 bits; 16 bytes at a time.
    #[cfg_attr(feature = "broker", serde(rename = "sse4.2"))]
    Sse42,
    /// 32 bytes at a time, carry-less multiplication with it.
    #[cfg_attr(feature = "broker", serde(rename = "avx2"))]
    Avx2,
    /// Whatever there is.
    #[default]
    #[cfg_attr(feature = "broker", serde(rename = "all"))]
    All,
}

impl Instructions {
    /// All of them, narrowest first.
    pub const EVERY: [Instructions; 3] = [Instructions::Sse42, Instructions::Avx2, Instructions::All];
}

/// As its name says it.
impl FromStr for Instructions {
    type Err = String;

    fn from_str(text: &str) -> Result<Instructions, String> {
        let found = Instructions::EVERY.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| format!("expected {}", Instructions::EVERY.map(|one| one.to_string()).join(", ")))
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Instructions::Sse42 => "sse4.2",
            Instructions::Avx2 => "avx2",
            Instructions::All => "all",
        })
    }
}

static LIMIT: OnceLock<Instructions> = OnceLock::new();

/// Uses no more than this from now on. False: another limit is in use already; what is chosen once is not chosen again.
pub fn limit(instructions: Instructions) -> bool {
    *LIMIT.get_or_init(|| instructions) == instructions
}

/// The limit in use; asking makes it final.
pub fn limited_to() -> Instructions {
    *LIMIT.get_or_init(Instructions::default)
}

/// One of several ways to do something, and how fast it is here.
#[derive(Clone, Copy, Debug)]
pub struct Measured<W> {
    /// Which.
    pub way: W,
    /// Bytes a nanosecond.
    pub gb_s: f64,
}

/// Measures all ways, given narrowest first, and chooses: a wider one if it is more than `worth` times as fast as the best before it.
pub fn choose<W>(ways: impl IntoIterator<Item = W>, worth: f64, mut measure: impl FnMut(&W) -> f64) -> Measured<W> {
    let measured = ways.into_iter().map(|way| Measured { gb_s: measure(&way), way });
    measured.reduce(|best, wider| if wider.gb_s > best.gb_s * worth { wider } else { best }).expect("there is one")
}

/// Bytes a nanosecond of what does so many. It is done so many times, and the best counts, since all that others do makes it slower.
pub fn speed(bytes: usize, times: u32, mut once: impl FnMut()) -> f64 {
    let timed = |_| {
        let begin = Instant::now();
        once();
        begin.elapsed().max(Duration::from_nanos(1))
    };
    let best = (0..times).map(timed).min().expect("it is done at least once");
    bytes as f64 / best.as_nanos() as f64
}

/// Begins to fetch what will be looked at soon, and does not wait for it.
#[inline(always)]
pub fn prefetch<T>(soon: &T) {
    // SAFETY: the invariant.
    unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *soon).cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_way_is_chosen_where_it_pays() {
        let chosen = |speeds: [f64; 3], worth| choose([0, 1, 2], worth, |way: &usize| speeds[*way]).way;
        assert_eq!(chosen([10.0, 10.5, 10.9], 1.1), 0, "none is a tenth faster than the narrowest");
        assert_eq!(chosen([10.0, 12.0, 12.5], 1.1), 1, "the widest is none than the one before it");
        assert_eq!(chosen([10.0, 9.8, 9.6], 0.95), 2, "none is slower by more than it may be");
        assert_eq!(chosen([10.0, 9.0, 9.6], 0.95), 2);
        assert_eq!(chosen([10.0, 9.0, 9.0], 0.95), 0);
    }

    #[test]
    fn what_takes_time_has_a_speed() {
        let mut done = 0;
        let speed = speed(1 << 20, 3, || done += 1);
        assert!(done == 3 && speed > 0.0 && speed <= f64::from(1 << 20), "{speed}");
    }
}
