//! Which kernel sums what length: measured once, at the first use.
//!
//! A kernel with wider registers must be a tenth faster than a narrower one to be chosen: what it gains where bytes come from memory is
//! little, and on some processors all cores' clocks sink where the widest are busy.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::OnceLock;

use crate::crc::kernels::{self, Kernel, Sum};
use crate::processor::{self, Measured};

/// Sums up to this long, a few messages or a header, are short; up to the second, a piece of a batch, middling.
const SHORT_BYTES: usize = 512;
const MIDDLING_BYTES: usize = 8192;
/// What is summed to see which kernel is fastest, of each kind.
const SAMPLES: [usize; 3] = [128, 4096, 65536];
/// Bytes of one measurement, and how often it is taken.
const MEASURED_BYTES: usize = 1 << 17;
const MEASUREMENTS: u32 = 5;
/// How much faster a wider kernel must be.
const WORTH_WHILE: f64 = 1.1;

/// The kernels in use, by kind of length.
static CHOSEN: OnceLock<[Measured<Kernel>; 3]> = OnceLock::new();

/// What sums this many bytes.
#[inline]
pub fn for_length(bytes: usize) -> Sum {
    let chosen = CHOSEN.get_or_init(choose);
    chosen[usize::from(bytes > SHORT_BYTES) + usize::from(bytes > MIDDLING_BYTES)].way.sum
}

/// What was chosen, in words: for the log, and for reports.
pub fn described() -> String {
    let mut text = String::new();
    for (measured, bytes) in CHOSEN.get_or_init(choose).iter().zip(SAMPLES) {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{bytes} B: {} ({:.0} GB/s)", measured.way.name, measured.gb_s)
            .expect("a string takes it");
    }
    text
}

fn choose() -> [Measured<Kernel>; 3] {
    let kernels = kernels::available(processor::limited_to());
    SAMPLES.map(|bytes| {
        let sample = vec![0x5a; bytes];
        processor::choose(kernels.iter().copied(), WORTH_WHILE, |kernel| speed(*kernel, &sample))
    })
}

fn speed(kernel: Kernel, sample: &[u8]) -> f64 {
    let repeats = MEASURED_BYTES / sample.len();
    processor::speed(repeats * sample.len(), MEASUREMENTS, || {
        for _ in 0..repeats {
            black_box((kernel.sum)(black_box(!0), black_box(sample)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_chosen_for_every_length_and_said() {
        for bytes in [0, SHORT_BYTES, SHORT_BYTES + 1, MIDDLING_BYTES, MIDDLING_BYTES + 1, usize::MAX] {
            let _ = for_length(bytes);
        }
        let text = described();
        assert!(SAMPLES.iter().all(|bytes| text.contains(&format!("{bytes} B: "))), "{text}");
    }
}
