//! The ways to compute a CRC32C: for each width of registers one, and a crate's for processors that have none of it.
//!
//! Two methods. *Three streams* of the CRC32 instruction, which takes three cycles and can begin one in each: a block is cut in three,
//! and what the first two came to is moved to the end of the block by a carry-less multiplication (Gopal et al., "Fast CRC Computation
//! for iSCSI Polynomial Using CRC32 Instruction", Intel 2011). *Folding*: registers full of message are moved over the message that
//! follows, again by multiplication, until one is left ("Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction",
//! Intel 2009). With registers of 32 and 64 bytes the second is two and four times as fast.
//!
//! Invariants:
//! 1. A function with `target_feature` is reached only by way of a [`Kernel`] that [`available`] gave, which has asked the processor for
//!    each of its features.
//! 2. Every load is of bytes of the slice: each loop's bound says so.

#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use crate::processor::Instructions;

/// The state behind some bytes, from that before them; neither with the final xor.
pub type Sum = fn(u32, &[u8]) -> u32;

/// One way to compute it.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub name: &'static str,
    pub sum: Sum,
}

/// Every one that this processor has within the limit, narrower ones first; at least one.
pub fn available(limit: Instructions) -> Vec<Kernel> {
    let mut found = Vec::new();
    let has_narrow = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq");
    if !has_narrow {
        return vec![Kernel { name: "crc-fast", sum: by_crate }];
    }
    // SAFETY: invariant 1, what it needs was asked for above; so below.
    let sum: Sum = |crc, bytes| unsafe { three_streams(crc, bytes) };
    found.push(Kernel { name: "three streams", sum });
    let has_wide = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vpclmulqdq");
    if limit >= Instructions::Avx2 && has_wide {
        // SAFETY: as above.
        let sum: Sum = |crc, bytes| unsafe { fold_by_32(crc, bytes) };
        found.push(Kernel { name: "folding by 32", sum });
    }
    let has_widest = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    if limit == Instructions::All && has_wide && has_widest {
        // SAFETY: as above.
        let sum: Sum = |crc, bytes| unsafe { fold_by_64(crc, bytes) };
        found.push(Kernel { name: "folding by 64", sum });
    }
    found
}

/// For processors without the instructions that all others here need.
fn by_crate(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, crc.into());
    digest.update(bytes);
    !(digest.finalize() as u32)
}

/// Castagnoli's polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x to the power `n` modulo the polynomial, reflected: x^0 is the highest bit.
const fn power(n: u32) -> u32 {
    let (mut power, mut i) = (1 << 31, 0);
    while i < n {
        power = (power >> 1) ^ if power & 1 == 1 { POLYNOMIAL } else { 0 };
        i += 1;
    }
    power
}

/// What moves 16 bytes of message over the next `bits` bits, for its first eight bytes and its last. The product of two reflected
/// numbers comes out multiplied by x, so the powers are one less.
const fn fold_keys(bits: u32) -> [i64; 2] {
    [((power(bits + 63) as u64) << 32) as i64, ((power(bits - 1) as u64) << 32) as i64]
}

/// The CRC32 instruction, word by word.
#[inline]
#[target_feature(enable = "sse4.2")]
fn by_words(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(crc.into(), |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word)));
    rest.iter().fold(crc as u32, |crc, byte| _mm_crc32_u8(crc, *byte))
}

#[target_feature(enable = "sse4.2,pclmulqdq")]
fn three_streams(mut crc: u32, bytes: &[u8]) -> u32 {
    let (long, rest) = bytes.as_chunks::<{ 3 * 8 * 42 }>();
    let (short, rest) = rest.as_chunks::<{ 3 * 8 * 5 }>();
    for block in long {
        crc = three_streams_of::<42>(crc, block);
    }
    for block in short {
        crc = three_streams_of::<5>(crc, block);
    }
    by_words(crc, rest)
}

/// A block of three times `WORDS` words.
#[inline]
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn three_streams_of<const WORDS: usize>(crc: u32, block: &[u8]) -> u32 {
    let word = |at: usize| u64::from_le_bytes(*block[at * 8..].first_chunk().expect("it is within the block"));
    let (mut first, mut second, mut third) = (u64::from(crc), 0, 0);
    for at in 0..WORDS - 1 {
        first = _mm_crc32_u64(first, word(at));
        second = _mm_crc32_u64(second, word(WORDS + at));
        third = _mm_crc32_u64(third, word(2 * WORDS + at));
    }
    first = _mm_crc32_u64(first, word(WORDS - 1));
    second = _mm_crc32_u64(second, word(2 * WORDS - 1));
    // The last word of the third stream takes the other two with it, which moves them by 64 bits; a 32-bit product lies 33 bits off.
    let moved = |state: u64, key: u32| {
        let product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(state as i64), _mm_cvtsi64_si128(key.into()), 0);
        _mm_cvtsi128_si64(product) as u64
    };
    let first = moved(first, const { power(2 * WORDS as u32 * 64 - 33) });
    let second = moved(second, const { power(WORDS as u32 * 64 - 33) });
    _mm_crc32_u64(third, word(3 * WORDS - 1) ^ first ^ second) as u32
}

#[inline]
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn fold_16(folded: __m128i, over: __m128i, keys: [i64; 2]) -> __m128i {
    let keys = _mm_set_epi64x(keys[1], keys[0]);
    let (low, high) = (_mm_clmulepi64_si128(folded, keys, 0x00), _mm_clmulepi64_si128(folded, keys, 0x11));
    _mm_xor_si128(_mm_xor_si128(low, high), over)
}

/// The state that 16 folded bytes stand for, then the bytes behind them.
#[inline]
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn finish(folded: __m128i, rest: &[u8]) -> u32 {
    let state = _mm_crc32_u64(0, _mm_extract_epi64::<0>(folded) as u64);
    by_words(_mm_crc32_u64(state, _mm_extract_epi64::<1>(folded) as u64) as u32, rest)
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn fold_32(folded: __m256i, over: __m256i, keys: [i64; 2]) -> __m256i {
    let keys = _mm256_setr_epi64x(keys[0], keys[1], keys[0], keys[1]);
    let (low, high) = (_mm256_clmulepi64_epi128(folded, keys, 0x00), _mm256_clmulepi64_epi128(folded, keys, 0x11));
    _mm256_xor_si256(_mm256_xor_si256(low, high), over)
}

#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: invariant 2; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,vpclmulqdq,sse4.2,pclmulqdq")]
fn fold_by_32(crc: u32, bytes: &[u8]) -> u32 {
    /// Registers that are folded at once: as many as the multiplication takes cycles, over what it takes to begin one.
    const AT_ONCE: usize = 4;
    let (pieces, rest) = bytes.as_chunks::<32>();
    let (groups, singles) = pieces.as_chunks::<AT_ONCE>();
    let Some((first, groups)) = groups.split_first() else { return three_streams(crc, bytes) };
    let mut folded = first.map(|piece| load_32(&piece));
    folded[0] = _mm256_xor_si256(folded[0], _mm256_setr_epi32(crc as i32, 0, 0, 0, 0, 0, 0, 0));
    for group in groups {
        for (folded, piece) in folded.iter_mut().zip(group) {
            *folded = fold_32(*folded, load_32(piece), const { fold_keys(AT_ONCE as u32 * 256) });
        }
    }
    let mut one = folded[0];
    for next in &folded[1..] {
        one = fold_32(one, *next, const { fold_keys(256) });
    }
    for piece in singles {
        one = fold_32(one, load_32(piece), const { fold_keys(256) });
    }
    let (low, high) = (_mm256_castsi256_si128(one), _mm256_extracti128_si256::<1>(one));
    finish(fold_16(low, high, const { fold_keys(128) }), rest)
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn fold_64(folded: __m512i, over: __m512i, keys: [i64; 2]) -> __m512i {
    let keys = _mm512_set_epi64(keys[1], keys[0], keys[1], keys[0], keys[1], keys[0], keys[1], keys[0]);
    let (low, high) = (_mm512_clmulepi64_epi128(folded, keys, 0x00), _mm512_clmulepi64_epi128(folded, keys, 0x11));
    // 0x96: the exclusive or of all three.
    _mm512_ternarylogic_epi64(low, high, over, 0x96)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: invariant 2; the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512vl,avx2,vpclmulqdq,sse4.2,pclmulqdq")]
fn fold_by_64(crc: u32, bytes: &[u8]) -> u32 {
    const AT_ONCE: usize = 4;
    let (pieces, rest) = bytes.as_chunks::<64>();
    let (groups, singles) = pieces.as_chunks::<AT_ONCE>();
    let Some((first, groups)) = groups.split_first() else { return fold_by_32(crc, bytes) };
    let mut folded = first.map(|piece| load_64(&piece));
    folded[0] = _mm512_xor_si512(folded[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128(crc as i32)));
    for group in groups {
        for (folded, piece) in folded.iter_mut().zip(group) {
            *folded = fold_64(*folded, load_64(piece), const { fold_keys(AT_ONCE as u32 * 512) });
        }
    }
    let mut one = folded[0];
    for next in &folded[1..] {
        one = fold_64(one, *next, const { fold_keys(512) });
    }
    for piece in singles {
        one = fold_64(one, load_64(piece), const { fold_keys(512) });
    }
    let (low, high) = (_mm512_castsi512_si256(one), _mm512_extracti64x4_epi64::<1>(one));
    let half = fold_32(low, high, const { fold_keys(256) });
    let (low, high) = (_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    finish(fold_16(low, high, const { fold_keys(128) }), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the polynomial defines it.
    fn defined(mut crc: u32, bytes: &[u8]) -> u32 {
        for byte in bytes {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 });
        }
        crc
    }

    /// Of every length up to more than two rounds of the longest loop, at every place in a word, after every kind of beginning.
    #[test]
    fn every_kernel_computes_what_is_defined() {
        let bytes: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut kernels = available(Instructions::All);
        kernels.push(Kernel { name: "crc-fast", sum: by_crate });
        for length in (0..1300).chain([2015, 2016, 2017, 4096]) {
            let (start, state) = (length % 8, [!0, 0, 0x1234_5678][length % 3]);
            let piece = &bytes[start..start + length];
            let expected = defined(state, piece);
            for kernel in &kernels {
                assert_eq!((kernel.sum)(state, piece), expected, "{}, {length} bytes", kernel.name);
            }
        }
    }

    #[test]
    fn a_limit_leaves_the_narrower_ones() {
        let names = |limit| available(limit).iter().map(|kernel| kernel.name).collect::<Vec<_>>();
        let [narrow, wide, all] = [Instructions::Sse42, Instructions::Avx2, Instructions::All].map(names);
        assert_eq!(narrow.len(), 1);
        assert!(all.starts_with(&wide) && wide.starts_with(&narrow));
    }
}
