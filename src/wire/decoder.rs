//! The incremental decoder of one batch: fed the bytes that have landed so far, it says how many the
//! batch needs, checks the message framing and the CRC as they arrive, and is total on hostile bytes:
//! every input gives progress or a typed error, never a panic or a read past what landed.

use crate::crc::Crc;
use crate::limits::{FRAME_HEADER_BYTES, LINE_BYTES, MESSAGE_HEADER_BYTES};
use crate::wire::error::WireError;
use crate::wire::frame::{self, BatchHeader, FrameKind};
use crate::wire::message::{MessageHeader, message_bytes, read_header};

/// Bytes that are summed before the headers among them are read: they fit the nearest cache twice over.
pub const PIECE_BYTES: usize = 8192;

const HEADER: usize = MESSAGE_HEADER_BYTES as usize;

/// What the landed bytes amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Fewer than a header.
    NeedHeader,
    /// A batch of this many bytes in all has begun.
    NeedBytes(u64),
    /// The whole batch has landed and is sound.
    Complete(BatchHeader),
    /// The peer says goodbye; 64 bytes.
    Goodbye,
    /// The peer is there; 64 bytes.
    Heartbeat,
}

/// What a frame's first line says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A batch; its body follows.
    Batch(BatchHeader),
    /// The peer says goodbye; nothing follows.
    Goodbye,
    /// The peer is there; nothing follows.
    Heartbeat,
}

/// Decodes one frame of a publisher's stream, then is reset for the next.
#[derive(Debug)]
pub struct BatchDecoder {
    batch_bytes_max: u64,
    checks_body: bool,
    header: Option<BatchHeader>,
    crc: Crc,
    /// Bytes of the frame that were taken in.
    taken: u64,
    /// Body offset of the next message header.
    next_message: u64,
    messages: u32,
}

impl BatchDecoder {
    /// A decoder that refuses batches of more than `batch_bytes_max` bytes, header and padding included.
    pub fn new(batch_bytes_max: u64) -> Self {
        BatchDecoder {
            batch_bytes_max,
            checks_body: true,
            header: None,
            crc: Crc::default(),
            taken: 0,
            next_message: 0,
            messages: 0,
        }
    }

    /// One that checks everything but the body's CRC.
    pub fn without_body_crc(batch_bytes_max: u64) -> Self {
        BatchDecoder { checks_body: false, ..BatchDecoder::new(batch_bytes_max) }
    }

    /// Forgets the frame, to begin the next one.
    pub fn reset(&mut self) {
        self.header = None;
        self.crc = Crc::default();
        (self.taken, self.next_message, self.messages) = (0, 0, 0);
    }

    /// Takes note of everything that has landed. `landed` starts at the first byte of the frame and may
    /// run past its end; earlier bytes must be the same as in the last call.
    pub fn advance(&mut self, landed: &[u8]) -> Result<Progress, WireError> {
        let Some(line) = landed.first_chunk() else { return Ok(Progress::NeedHeader) };
        let header = match self.header {
            Some(header) => header,
            None => match self.begin(line)? {
                Begun::Batch(header) => header,
                Begun::Goodbye => return Ok(Progress::Goodbye),
                Begun::Heartbeat => return Ok(Progress::Heartbeat),
            },
        };
        let there = (landed.len() as u64).min(header.frame_bytes());
        self.take(&landed[self.taken as usize..(there - there % LINE_BYTES) as usize])?;
        Ok(if self.missing() == 0 { Progress::Complete(header) } else { Progress::NeedBytes(header.frame_bytes()) })
    }

    /// Begins a frame with its first line.
    pub fn begin(&mut self, line: &[u8; FRAME_HEADER_BYTES]) -> Result<Begun, WireError> {
        match frame::check(line, self.batch_bytes_max)? {
            FrameKind::Batch => {
                let header: BatchHeader = frame::read(line);
                header.check_fields()?;
                self.header = Some(header);
                self.taken = LINE_BYTES;
                if self.missing() == 0 {
                    // Nothing comes that would show that its messages are not there.
                    self.walk(&header, 0, &[])?;
                }
                Ok(Begun::Batch(header))
            }
            FrameKind::Goodbye => Ok(Begun::Goodbye),
            FrameKind::Heartbeat => Ok(Begun::Heartbeat),
            found => Err(WireError::UnexpectedKind { found, expected: "Batch, Heartbeat or Goodbye" }),
        }
    }

    /// The header of the batch under way.
    pub fn header(&self) -> Option<&BatchHeader> {
        self.header.as_ref()
    }

    /// Bytes of the batch under way that were not taken in: whole lines.
    pub fn missing(&self) -> u64 {
        self.header.map_or(0, |header| header.frame_bytes() - self.taken)
    }

    /// Where in the body the next message begins, and where what is taken next does, bytes.
    pub fn next_message(&self) -> (u64, u64) {
        (self.next_message, self.taken - LINE_BYTES)
    }

    /// Takes in the next lines of the batch under way: no more than are [`missing`](BatchDecoder::missing). With the last of them it is sound.
    pub fn take(&mut self, lines: &[u8]) -> Result<(), WireError> {
        debug_assert!(lines.len() as u64 <= self.missing() && (lines.len() as u64).is_multiple_of(LINE_BYTES));
        let Some(header) = self.header else { return Ok(()) };
        lines.chunks(PIECE_BYTES).try_for_each(|piece| self.take_piece(&header, piece))
    }

    /// Sums and steps over a piece: a message's header is read while the sum has it in the nearest cache.
    fn take_piece(&mut self, header: &BatchHeader, piece: &[u8]) -> Result<(), WireError> {
        let (start, body_bytes) = (self.taken - LINE_BYTES, u64::from(header.body_bytes));
        let body = &piece[..piece.len().min((body_bytes - start) as usize)];
        if self.checks_body {
            self.crc.update(body);
        }
        self.taken += piece.len() as u64;
        self.walk(header, start, body)?;
        let computed = self.crc.value();
        if self.missing() == 0 && self.checks_body && computed != header.body_crc {
            return Err(WireError::BodyCrc { found: header.body_crc, computed });
        }
        Ok(())
    }

    /// Steps over every message header in a piece of the body that begins at `start`.
    fn walk(&mut self, header: &BatchHeader, start: u64, piece: &[u8]) -> Result<(), WireError> {
        let body_bytes = u64::from(header.body_bytes);
        let (mut offset, mut messages) = (self.next_message, self.messages);
        while messages < header.message_count {
            let overrun = |needed| WireError::MessageOverrun { index: messages, offset, needed, body_bytes };
            // None lies across two lines.
            let Some(message) = piece.get((offset - start) as usize..).and_then(<[u8]>::first_chunk::<HEADER>) else {
                if offset + MESSAGE_HEADER_BYTES > body_bytes {
                    return Err(overrun(MESSAGE_HEADER_BYTES));
                }
                (self.next_message, self.messages) = (offset, messages);
                return Ok(());
            };
            let (word, message) = (message.first_chunk::<8>().expect("it has sixteen"), read_header(message));
            let needed = message_bytes(message.payload_bytes.into());
            if offset + needed > body_bytes {
                return Err(overrun(needed));
            }
            if !message.is_defined() {
                let MessageHeader { received, attributes, key_bytes, .. } = message;
                return Err(WireError::MessageHeader { index: messages, received, attributes, key_bytes });
            }
            offset += needed;
            messages += 1;
            // Those behind it that say the same are sound as well. That they do is foreseen by the processor, and the next header is read
            // before this one's length has come.
            let again = |offset: u64| piece.get((offset - start) as usize..).and_then(<[u8]>::first_chunk::<8>);
            while messages < header.message_count && offset + needed <= body_bytes && again(offset) == Some(word) {
                offset += needed;
                messages += 1;
            }
        }
        (self.next_message, self.messages) = (offset, messages);
        if offset != body_bytes {
            return Err(WireError::TrailingBytes { messages, end: offset, body_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::with_body;
    use crate::wire::message::{Messages, push};

    /// A whole batch frame of these payloads.
    pub(crate) fn batch(payloads: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        payloads.iter().for_each(|payload| push(&mut body, payload));
        assert!(body.len() <= crate::limits::CONTROL_BODY_BYTES_MAX);
        let header = BatchHeader { message_count: payloads.len() as u32, session: 3, ..BatchHeader::default() };
        with_body(&header, &body)
    }

    #[test]
    fn every_split_gives_the_same_batch() {
        let whole = batch(&[b"", b"1", &[7; 16], &[9; 100]]);
        for first in 0..=whole.len() {
            for second in [first, (first + 17).min(whole.len()), whole.len()] {
                let mut decoder = BatchDecoder::new(1 << 20);
                let early = decoder.advance(&whole[..first]).unwrap();
                assert_eq!(matches!(early, Progress::Complete(_)), first == whole.len());
                decoder.advance(&whole[..second]).unwrap();
                assert!(
                    matches!(decoder.advance(&whole).unwrap(), Progress::Complete(header) if header.message_count == 4)
                );
            }
        }
        let body: Vec<_> =
            Messages::new(&whole[64..64 + 16 + 32 + 32 + 128]).map(|message| message.payload.len()).collect();
        assert_eq!(body, [0, 1, 16, 100]);
    }

    #[test]
    fn bytes_of_the_next_frame_are_left_alone() {
        let mut two = batch(&[b"first"]);
        let length = two.len();
        two.extend(batch(&[b"second", b"third"]));
        let mut decoder = BatchDecoder::new(1 << 20);
        assert!(matches!(decoder.advance(&two).unwrap(), Progress::Complete(header) if header.message_count == 1));
        decoder.reset();
        assert!(
            matches!(decoder.advance(&two[length..]).unwrap(), Progress::Complete(header) if header.message_count == 2)
        );
    }

    /// Rebuilds both CRCs, so that a lie in the header is found by its own check.
    fn forged(change: impl FnOnce(&mut BatchHeader, &mut Vec<u8>)) -> Result<Progress, WireError> {
        let whole = batch(&[b"one", b"two"]);
        let mut header: BatchHeader = bytemuck::pod_read_unaligned(&whole[..64]);
        let mut body = whole[64..128].to_vec();
        change(&mut header, &mut body);
        let bytes = with_body(&header, &body);
        BatchDecoder::new(1 << 20).advance(&bytes)
    }

    #[test]
    fn a_count_that_disagrees_is_refused() {
        assert!(matches!(forged(|_, _| ()), Ok(Progress::Complete(_))));
        assert!(matches!(forged(|h, _| h.message_count = 1), Err(WireError::TrailingBytes { .. })));
        assert!(matches!(forged(|h, _| h.message_count = 3), Err(WireError::MessageOverrun { .. })));
        assert!(matches!(forged(|h, _| h.message_count = 0), Err(WireError::MessageCount { .. })));
        assert!(matches!(forged(|h, _| h.message_count = u32::MAX), Err(WireError::MessageCount { .. })));
        assert!(matches!(forged(|_, b| b[0] = 0xff), Err(WireError::MessageOverrun { .. })));
        assert!(matches!(forged(|_, b| b[3] = 0xff), Err(WireError::MessageOverrun { .. })));
    }

    #[test]
    fn a_flipped_payload_bit_is_found() {
        let mut whole = batch(&[b"payload"]);
        whole[64 + 20] ^= 1;
        assert!(matches!(BatchDecoder::new(1 << 20).advance(&whole), Err(WireError::BodyCrc { .. })));
    }

    #[test]
    fn what_a_message_header_has_for_later_is_refused() {
        // `received` may be 1, as a broker stamps it; attributes and the length of a key are not used.
        assert!(matches!(forged(|_, b| b[4] = 1), Ok(Progress::Complete(_))));
        for (at, value) in [(4, 2), (5, 1), (5, 0x80), (6, 1), (7, 1), (16 + 16 + 5, 1)] {
            let found = forged(|_, b| b[at] = value);
            assert!(matches!(found, Err(WireError::MessageHeader { .. })), "{value} at {at}: {found:?}");
        }
    }

    #[test]
    fn other_frames_are_refused() {
        let ack = frame::seal(&frame::Ack::default());
        let found = BatchDecoder::new(1 << 20).advance(&ack);
        assert!(matches!(found, Err(WireError::UnexpectedKind { found: FrameKind::Ack, .. })));
        let goodbye = frame::seal(&frame::Goodbye::default());
        assert_eq!(BatchDecoder::new(1 << 20).advance(&goodbye), Ok(Progress::Goodbye));
        let heartbeat = frame::seal(&frame::Heartbeat::default());
        assert_eq!(BatchDecoder::new(1 << 20).advance(&heartbeat), Ok(Progress::Heartbeat));
    }
}
