//! CRC32C (Castagnoli, reflected, initial and final xor all ones): the one checksum of pool, wire and files.
//!
//! Which instructions compute it is chosen once (`choice`), by what the processor has and how fast that is here.

mod choice;
mod kernels;

pub use choice::described;

/// CRC32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc::default();
    crc.update(bytes);
    crc.value()
}

/// The CRC32C of bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc(u32);

impl Crc {
    /// Of `bytes` behind what came before.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = !choice::for_length(bytes.len())(!self.0, bytes);
    }

    /// Of all that came.
    #[inline]
    pub fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        // The check value of CRC-32/ISCSI in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn pieces_give_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..20_000u32).map(|at| ((at * at) >> 5) as u8).collect();
        for (first, second) in [(0, 0), (1, 15), (64, 300), (1000, 5000), (1007, 19_999)] {
            let mut crc = Crc::default();
            [&bytes[..first], &bytes[first..second], &bytes[second..]].into_iter().for_each(|piece| crc.update(piece));
            assert_eq!(crc.value(), crc32c(&bytes), "{first} {second}");
        }
    }
}
