//! How many batches have come on a connection, from the headers alone: what a receiver that acks and checks nothing must know.

use embarcadero::limits::FRAME_HEADER_BYTES;
use embarcadero::wire::FrameKind;
use embarcadero::wire::frame;

/// Where in a batch header its kind is.
const KIND_AT: usize = 5;

/// A stream of frames as it lands, in pieces of any length.
#[derive(Debug)]
pub struct Walk {
    header: [u8; FRAME_HEADER_BYTES],
    /// Bytes of `header` that have come.
    filled: usize,
    /// Bytes of the frame's body that have not.
    left: u64,
    batches: u64,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk { header: [0; FRAME_HEADER_BYTES], filled: 0, left: 0, batches: 0 }
    }
}

impl Walk {
    /// Batches that have come whole, after these bytes too.
    pub fn landed(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() {
            let in_header = self.filled < FRAME_HEADER_BYTES;
            let wanted = if in_header { FRAME_HEADER_BYTES - self.filled } else { self.left as usize };
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if in_header {
                self.header[self.filled..self.filled + taken.len()].copy_from_slice(taken);
                self.filled += taken.len();
                if self.filled == FRAME_HEADER_BYTES {
                    self.left = frame::frame_bytes(&self.header) - FRAME_HEADER_BYTES as u64;
                }
            } else {
                self.left -= taken.len() as u64;
            }
            if self.filled == FRAME_HEADER_BYTES && self.left == 0 {
                self.batches += u64::from(self.header[KIND_AT] == FrameKind::Batch as u8);
                self.filled = 0;
            }
        }
        self.batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embarcadero::wire::frame::{BatchHeader, Goodbye, seal};

    #[test]
    fn batches_are_counted_however_they_land() {
        let mut stream = Vec::new();
        for body_bytes in [64u32, 4096, 128] {
            stream.extend(seal(&BatchHeader { body_bytes, ..BatchHeader::default() }));
            stream.resize(stream.len() + body_bytes as usize, 7);
        }
        stream.extend(seal(&Goodbye::default()));
        for piece in [1, 63, 64, 65, 1000, stream.len()] {
            let mut walk = Walk::default();
            let counts: Vec<u64> = stream.chunks(piece).map(|bytes| walk.landed(bytes)).collect();
            assert!(counts.is_sorted());
            assert_eq!(counts.last(), Some(&3), "pieces of {piece}");
        }
        let mut walk = Walk::default();
        assert_eq!((walk.landed(&stream[..127]), walk.landed(&stream[127..128])), (0, 1), "whole batches only");
    }
}
