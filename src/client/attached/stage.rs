//! What an open batch has that is not in the pool yet: put together in the nearest cache, it goes there in whole lines.

use crate::limits::{LINE_BYTES, MESSAGE_ALIGNMENT_BYTES, MESSAGE_HEADER_BYTES};
use crate::wire::message::message_bytes;

/// Bytes that are worth a copy and a sum of their own.
const FULL_BYTES: usize = 8 << 10;
/// With room for a message beside what is not enough yet.
const STAGE_BYTES: usize = 2 * FULL_BYTES;

/// What messages consist of.
const PIECE: usize = MESSAGE_ALIGNMENT_BYTES as usize;
/// Payloads up to this are copied in place: a call would cost more than they do.
const SMALL_BYTES: usize = 256;
const _: () = assert!(MESSAGE_HEADER_BYTES == MESSAGE_ALIGNMENT_BYTES);

/// See the head of the file.
pub(super) struct Stage {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Stage {
    /// Empty.
    pub fn new() -> Stage {
        Stage { bytes: vec![0; STAGE_BYTES].into(), filled: 0 }
    }

    /// Bytes in it.
    #[cfg(test)]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Whether it has so much that it should go.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.filled >= FULL_BYTES
    }

    /// Forgets what is in it.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Puts a message in: header, payload, zeros up to its alignment. False: it has no room for a whole one.
    #[inline]
    pub fn put_message(&mut self, header: [u64; 2], payload: &[u8]) -> bool {
        let bytes = message_bytes(payload.len() as u64) as usize;
        let Some(place) = self.bytes[self.filled..].get_mut(..bytes) else { return false };
        // A message is its header and pieces of that length, the last of them filled up.
        let ([first, places @ ..], _) = place.as_chunks_mut::<PIECE>() else { unreachable!("it has a header") };
        // Word by word: together they would be put together on the stack first, and waited for.
        let (words, _) = first.as_chunks_mut::<8>();
        (words[0], words[1]) = (header[0].to_le_bytes(), header[1].to_le_bytes());
        let (whole, rest) = payload.as_chunks::<PIECE>();
        if payload.len() <= SMALL_BYTES {
            places.iter_mut().zip(whole).for_each(|(place, piece)| *place = *piece);
        } else {
            places[..whole.len()].copy_from_slice(whole);
        }
        if let [.., last] = places
            && !rest.is_empty()
        {
            *last = [0; PIECE];
            last[..rest.len()].copy_from_slice(rest);
        }
        self.filled += bytes;
        true
    }

    /// Puts in as much as there is room for, and gives the rest.
    pub fn put<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(STAGE_BYTES - self.filled));
        self.bytes[self.filled..][..now.len()].copy_from_slice(now);
        self.filled += now.len();
        rest
    }

    /// Takes the whole lines out of it.
    pub fn take_lines(&mut self, to: impl FnOnce(&[u8])) {
        let lines = self.filled - self.filled % LINE_BYTES as usize;
        to(&self.bytes[..lines]);
        self.bytes.copy_within(lines..self.filled, 0);
        self.filled -= lines;
    }

    /// Takes everything out of it: what was put in, and that with zeros up to a whole line.
    pub fn take_all(&mut self, to: impl FnOnce(&[u8], &[u8])) {
        let lines = self.filled.next_multiple_of(LINE_BYTES as usize);
        self.bytes[self.filled..lines].fill(0);
        to(&self.bytes[..self.filled], &self.bytes[..lines]);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_it_will_lie_in_the_pool() {
        let mut stage = Stage::new();
        for length in (0..100).chain(SMALL_BYTES - 20..SMALL_BYTES + 20).chain([600]) {
            let payload: Vec<u8> = (0..length).map(|at| at as u8 | 1).collect();
            stage.put(&[0xee; 1024]);
            stage.clear();
            assert!(stage.put_message([length as u64, 9], &payload));
            let expected = 16 + length.next_multiple_of(16);
            assert_eq!(stage.filled(), expected);
            stage.take_all(|bytes, lines| {
                assert_eq!((bytes.len(), lines.len()), (expected, expected.next_multiple_of(64)));
                assert_eq!((bytes[0], bytes[1], bytes[8]), (length as u8, (length >> 8) as u8, 9));
                assert_eq!(bytes[16..][..length], payload);
                assert!(bytes[16 + length..].iter().chain(&lines[expected..]).all(|byte| *byte == 0), "{length}");
            });
            assert_eq!(stage.filled(), 0);
        }
    }

    #[test]
    fn what_is_no_whole_line_stays() {
        let mut stage = Stage::new();
        assert_eq!(stage.put(&[1; 100]), [0; 0]);
        stage.take_lines(|lines| assert_eq!(lines, [1; 64]));
        assert_eq!(stage.filled(), 36);
        stage.put(&[2; 28]);
        stage.take_lines(|lines| assert_eq!((lines[0], lines[35], lines[36], lines.len()), (1, 1, 2, 64)));
    }

    #[test]
    fn what_has_no_room_is_not_put_in() {
        let mut stage = Stage::new();
        assert!(!stage.put_message([0; 2], &[7; STAGE_BYTES]));
        assert_eq!(stage.filled(), 0);
        assert_eq!(stage.put(&[7; STAGE_BYTES + 3]).len(), 3);
        assert!(stage.is_full() && !stage.put_message([0; 2], &[]));
        assert_eq!(stage.put(&[7]), [7]);
    }
}
