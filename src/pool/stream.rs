//! Copies past the caches (non-temporal stores): whole lines go to memory as they are written.
//!
//! An ordinary store to a line that is not cached fetches it first, and on memory that is not coherent between hosts it is written back
//! afterwards by an instruction of its own. Here memory is touched once instead of twice, and nothing is left to write back: on the
//! machines measured two to three times as fast. Such stores become visible in any order; the next `sfence` orders them.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. The caller of [`copy`] gives a target that it may write for the whole length, on a line's boundary, of whole lines.
//! 2. A function with `target_feature` is chosen only where the processor has it.
#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use crate::limits::LINE_BYTES;
use crate::processor::{Instructions, limited_to};

type Copy = unsafe fn(*mut u8, &[u8]);

static CHOSEN: OnceLock<Copy> = OnceLock::new();

/// Copies whole lines.
///
/// # Safety
/// Invariant 1.
#[inline]
pub(super) unsafe fn copy(target: *mut u8, bytes: &[u8]) {
    assert!(bytes.len().is_multiple_of(LINE_BYTES as usize) && target.addr().is_multiple_of(LINE_BYTES as usize));
    let copy = CHOSEN.get_or_init(|| choose(limited_to()));
    // SAFETY: invariant 1 is passed on; invariant 2.
    unsafe { copy(target, bytes) }
}

/// The widest that this processor has within the limit.
fn choose(limit: Instructions) -> Copy {
    if limit == Instructions::All && is_x86_feature_detected!("avx512f") {
        by_64
    } else if limit >= Instructions::Avx2 && is_x86_feature_detected!("avx") {
        by_32
    } else {
        by_16
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn by_64(target: *mut u8, bytes: &[u8]) {
    for (at, piece) in bytes.as_chunks::<64>().0.iter().enumerate() {
        // SAFETY: invariant 1: the piece's place lies in the target, aligned.
        unsafe { _mm512_stream_si512(target.add(64 * at).cast(), _mm512_loadu_si512(piece.as_ptr().cast())) }
    }
}

#[target_feature(enable = "avx")]
unsafe fn by_32(target: *mut u8, bytes: &[u8]) {
    for (at, piece) in bytes.as_chunks::<32>().0.iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm256_stream_si256(target.add(32 * at).cast(), _mm256_loadu_si256(piece.as_ptr().cast())) }
    }
}

unsafe fn by_16(target: *mut u8, bytes: &[u8]) {
    for (at, piece) in bytes.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: as above. Every x86-64 has these.
        unsafe { _mm_stream_si128(target.add(16 * at).cast(), _mm_loadu_si128(piece.as_ptr().cast())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Lines([u8; 640]);

    #[test]
    fn every_width_copies_whole_lines_and_nothing_beside_them() {
        let source: Vec<u8> = (0..512_u32).map(|at| (at * 7) as u8).collect();
        for limit in Instructions::EVERY {
            let copy = choose(limit);
            for lines in [0, 1, 3, 8] {
                let mut target = Lines([0xee; 640]);
                let bytes = &source[..lines * 64];
                // SAFETY: eight lines and more lie behind the first, aligned.
                unsafe { copy(target.0.as_mut_ptr().add(64), bytes) };
                assert_eq!(&target.0[64..][..bytes.len()], bytes, "{limit}, {lines} lines");
                assert!(target.0[..64].iter().chain(&target.0[64 + bytes.len()..]).all(|byte| *byte == 0xee));
            }
        }
    }
}
