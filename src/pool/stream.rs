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
use crate::processor::{self, Instructions, Measured, limited_to};

type Copy = unsafe fn(*mut u8, &[u8]);

/// A way to do it.
#[derive(Clone, Copy)]
struct Way {
    register_bytes: u32,
    copy: Copy,
}

static CHOSEN: OnceLock<Measured<Way>> = OnceLock::new();

/// What is copied at once to see which way is fastest: as much as data paths do.
const SAMPLE_BYTES: usize = 8192;
/// Where it goes, one after the other: more than a core's own caches hold. And how often all of that.
const AREA_BYTES: usize = 4 << 20;
const MEASUREMENTS: u32 = 3;
/// Wider registers are used unless they are slower than this: they write a line at once, so that nothing else comes between its parts.
const NOT_SLOWER: f64 = 0.95;

/// Copies whole lines.
///
/// # Safety
/// Invariant 1.
#[inline]
pub(super) unsafe fn copy(target: *mut u8, bytes: &[u8]) {
    assert!(bytes.len().is_multiple_of(LINE_BYTES as usize) && target.addr().is_multiple_of(LINE_BYTES as usize));
    let Measured { way, .. } = CHOSEN.get_or_init(choose);
    // SAFETY: invariant 1 is passed on; invariant 2.
    unsafe { (way.copy)(target, bytes) }
}

/// Chooses how, which takes some milliseconds: before somebody waits for a copy.
pub(super) fn prepare() {
    CHOSEN.get_or_init(choose);
}

/// What was chosen, in words: for the log, and for reports.
pub fn described() -> String {
    let Measured { way, gb_s } = CHOSEN.get_or_init(choose);
    format!("past the caches by {} bytes ({gb_s:.0} GB/s)", way.register_bytes)
}

/// Every way that this processor has within the limit, narrower ones first.
fn available(limit: Instructions) -> Vec<Way> {
    let mut ways = vec![Way { register_bytes: 16, copy: by_16 }];
    if limit >= Instructions::Avx2 && is_x86_feature_detected!("avx") {
        ways.push(Way { register_bytes: 32, copy: by_32 });
    }
    if limit == Instructions::All && is_x86_feature_detected!("avx512f") {
        ways.push(Way { register_bytes: 64, copy: by_64 });
    }
    ways
}

fn choose() -> Measured<Way> {
    let mut area = Area::new();
    processor::choose(available(limited_to()), NOT_SLOWER, |way| area.speed(way.copy))
}

/// Memory that nobody else has.
struct Area {
    lines: Box<[Line]>,
    sample: Vec<u8>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "it is written, and never read")] [u8; LINE_BYTES as usize]);

impl Area {
    /// Every page of it touched.
    fn new() -> Area {
        let lines = vec![Line([1; LINE_BYTES as usize]); AREA_BYTES / LINE_BYTES as usize];
        Area { lines: lines.into(), sample: vec![0x5a; SAMPLE_BYTES] }
    }

    /// Bytes a nanosecond.
    fn speed(&mut self, copy: Copy) -> f64 {
        processor::speed(AREA_BYTES, MEASUREMENTS, || {
            for target in self.lines.chunks_mut(SAMPLE_BYTES / LINE_BYTES as usize) {
                // SAFETY: invariant 1: so many whole lines, ours alone; invariant 2 for `copy`. A fence has no operands.
                unsafe {
                    copy(target.as_mut_ptr().cast(), &self.sample);
                    _mm_sfence();
                }
            }
        })
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
        for Way { register_bytes, copy, .. } in available(Instructions::All) {
            for lines in [0, 1, 3, 8] {
                let mut target = Lines([0xee; 640]);
                let bytes = &source[..lines * 64];
                // SAFETY: eight lines and more lie behind the first, aligned.
                unsafe { copy(target.0.as_mut_ptr().add(64), bytes) };
                assert_eq!(&target.0[64..][..bytes.len()], bytes, "by {register_bytes}, {lines} lines");
                assert!(target.0[..64].iter().chain(&target.0[64 + bytes.len()..]).all(|byte| *byte == 0xee));
            }
        }
    }

    #[test]
    fn something_is_chosen_and_said() {
        for limit in Instructions::EVERY {
            let ways = available(limit);
            assert!(ways.is_sorted_by_key(|way| way.register_bytes) && ways[0].register_bytes == 16, "{limit}");
        }
        assert!(choose().gb_s > 0.0);
        assert!(described().starts_with("past the caches by "), "{}", described());
    }
}
