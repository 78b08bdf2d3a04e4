//! What this processor can do that data paths choose from, and a limit on it: so that one machine shows what others will see.
//!
//! Invariant, cited by the SAFETY comment: a prefetch reads nothing that a program can see and never faults, whatever its address.
#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

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

/// Begins to fetch what will be looked at soon, and does not wait for it.
#[inline(always)]
pub fn prefetch<T>(soon: &T) {
    // SAFETY: the invariant.
    unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *soon).cast()) }
}
