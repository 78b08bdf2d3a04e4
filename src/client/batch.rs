//! The open batch and the sealed one: the only place where payload bytes are copied.
//!
//! A batch is built in its final form: header, messages, padding, in one buffer that goes to the socket as it is. The
//! body's CRC is computed once, as pieces of it are full and still in the nearest cache; the header is written when the
//! batch is given to a connection, because
//! session, epoch and number may change between two sendings. A sealed body never changes.

use std::time::{Duration, Instant};

use crate::client::deadline;
use crate::crc::Crc;
use crate::limits::{FRAME_HEADER_BYTES, LINE_BYTES, MESSAGE_ALIGNMENT_BYTES};
use crate::utc::utc_ns;
use crate::wire::frame::{BatchHeader, seal};
use crate::wire::message::{message_bytes, push};
use crate::wire::padded;

/// Bytes of messages after which they are summed.
const PIECE_BYTES: usize = 8192;

/// A buffer of a batch: allocated at its first use, then recycled for the publisher's whole life.
pub(crate) type Buffer = Vec<u8>;

/// Who a batch belongs to on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub session: u64,
    pub token: u64,
    pub epoch: u32,
    pub topic: u32,
}

/// Bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Frame size at which a batch is sealed, bytes, whole lines.
    pub target_bytes: u64,
    /// Largest frame the brokers take, bytes, whole lines; a single large message may use it.
    pub frame_bytes_max: u64,
    pub messages_max: u32,
}

impl Shape {
    /// Largest payload that fits a batch, bytes.
    pub fn payload_bytes_max(&self) -> u64 {
        // Whole lines less a message header is a multiple of the message alignment, so nothing is lost to padding.
        self.frame_bytes_max - LINE_BYTES - message_bytes(0)
    }
}

/// A batch that takes no more messages.
pub(crate) struct SealedBatch {
    frame: Buffer,
    header: BatchHeader,
    pub first_message: u64,
    pub payload_bytes: u64,
    pub sealed_at: Instant,
}

impl SealedBatch {
    /// Writes the header for this owner and number. The body stays as it was sealed.
    pub fn stamp(&mut self, owner: &Identity, number: u64) {
        self.header.session = owner.session;
        self.header.session_epoch = owner.epoch;
        self.header.topic = owner.topic;
        self.header.batch_seq = number;
        self.frame[..FRAME_HEADER_BYTES].copy_from_slice(&seal(&self.header));
    }

    /// The whole frame as it goes to a socket.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    pub fn messages(&self) -> u32 {
        self.header.message_count
    }

    pub fn into_buffer(self) -> Buffer {
        self.frame
    }
}

/// The open batch: takes messages until it is sealed.
pub(crate) struct Filler {
    shape: Shape,
    frame: Buffer,
    messages: u32,
    payload_bytes: u64,
    crc: Crc,
    /// Bytes of the frame, header included, that are summed.
    summed: usize,
    /// Messages taken since the publisher was opened.
    messages_sent: u64,
    opened_at: Option<Instant>,
}

impl Filler {
    pub fn new(shape: Shape, buffer: Buffer) -> Filler {
        assert!(shape.target_bytes.is_multiple_of(LINE_BYTES) && shape.frame_bytes_max.is_multiple_of(LINE_BYTES));
        assert!(shape.target_bytes <= shape.frame_bytes_max && shape.messages_max > 0);
        let mut filler = Filler {
            shape,
            frame: Buffer::new(),
            messages: 0,
            payload_bytes: 0,
            crc: Crc::default(),
            summed: 0,
            messages_sent: 0,
            opened_at: None,
        };
        filler.adopt(buffer);
        filler
    }

    /// Begins a batch in this buffer.
    fn adopt(&mut self, mut buffer: Buffer) -> Buffer {
        let target = self.shape.target_bytes as usize;
        buffer.clear();
        // One large message may have grown it: do not hold a window of the largest batches for ever.
        if buffer.capacity() > 2 * target {
            buffer = Buffer::new();
        }
        buffer.reserve_exact(target);
        buffer.resize(FRAME_HEADER_BYTES, 0);
        (self.crc, self.summed) = (Crc::default(), FRAME_HEADER_BYTES);
        std::mem::replace(&mut self.frame, buffer)
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub fn messages_sent(&self) -> u64 {
        self.messages_sent
    }

    /// Whether one more payload of this length fits. A message larger than the target gets a batch of its own.
    pub fn fits(&self, payload_bytes: usize) -> bool {
        let bytes = self.frame.len() as u64 + message_bytes(payload_bytes as u64);
        if self.messages == 0 {
            return bytes <= self.shape.frame_bytes_max;
        }
        bytes <= self.shape.target_bytes && self.messages < self.shape.messages_max
    }

    /// Appends a message that [`fits`](Filler::fits). The clock is read for the first message of a batch only.
    pub fn push(&mut self, payload: &[u8]) {
        debug_assert!(self.fits(payload.len()));
        if self.messages == 0 {
            self.opened_at = Some(Instant::now());
        }
        push(&mut self.frame, payload);
        if self.frame.len() - self.summed >= PIECE_BYTES {
            self.sum_up();
        }
        self.messages += 1;
        self.payload_bytes += payload.len() as u64;
        self.messages_sent += 1;
    }

    fn sum_up(&mut self) {
        self.crc.update(&self.frame[self.summed..]);
        self.summed = self.frame.len();
    }

    /// When the open batch must be sealed for its oldest message's sake. None if it is empty.
    ///
    /// `is_idle`: nothing is on its way before it, so that it would wait for nobody, and does not.
    pub fn due(&self, linger: Duration, is_idle: bool) -> Option<Instant> {
        let linger = if is_idle { Duration::ZERO } else { linger };
        self.opened_at.map(|opened_at| deadline::after(opened_at, linger))
    }

    /// Ends the open batch and begins the next in `fresh`. None, with the buffer, if there is no message in it.
    pub fn seal(&mut self, fresh: Buffer) -> Result<SealedBatch, Buffer> {
        if self.is_empty() {
            return Err(fresh);
        }
        self.sum_up();
        let body_crc = self.crc.value();
        let mut frame = self.adopt(fresh);
        let body_bytes = frame.len() - FRAME_HEADER_BYTES;
        assert!(body_bytes.is_multiple_of(MESSAGE_ALIGNMENT_BYTES as usize), "messages are padded");
        frame.resize(FRAME_HEADER_BYTES + padded(body_bytes as u64) as usize, 0);
        assert!(frame.len() as u64 <= self.shape.frame_bytes_max);
        let header = BatchHeader {
            body_bytes: body_bytes as u32,
            message_count: self.messages,
            created_at: utc_ns(),
            body_crc,
            ..BatchHeader::default()
        };
        let sealed = SealedBatch {
            frame,
            header,
            first_message: self.messages_sent - u64::from(self.messages),
            payload_bytes: self.payload_bytes,
            sealed_at: Instant::now(),
        };
        (self.messages, self.payload_bytes, self.opened_at) = (0, 0, None);
        Ok(sealed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::{BatchDecoder, Progress};

    pub const SHAPE: Shape = Shape { target_bytes: 256, frame_bytes_max: 1024, messages_max: 4 };

    /// A sealed batch of one message.
    pub fn sealed(filler: &mut Filler, payload: &[u8]) -> SealedBatch {
        filler.push(payload);
        filler.seal(Buffer::new()).ok().unwrap()
    }

    #[test]
    fn what_is_sealed_decodes() {
        let mut filler = Filler::new(SHAPE, Buffer::new());
        filler.push(b"one");
        filler.push(&[7; 40]);
        let mut sealed = filler.seal(Buffer::new()).ok().unwrap();
        let owner = Identity { session: 9, token: 1, epoch: 3, topic: 2 };
        sealed.stamp(&owner, 41);
        let Ok(Progress::Complete(header)) = BatchDecoder::new(1024).advance(sealed.frame()) else {
            panic!("not a batch")
        };
        assert_eq!((header.session, header.session_epoch, header.topic, header.batch_seq), (9, 3, 2, 41));
        assert_eq!((header.message_count, sealed.payload_bytes, sealed.first_message), (2, 43, 0));
        assert!(filler.is_empty() && filler.seal(Buffer::new()).is_err());
        filler.push(b"three");
        assert_eq!(filler.seal(Buffer::new()).ok().unwrap().first_message, 2);
    }

    #[test]
    fn a_large_message_gets_its_own_batch_up_to_the_limit() {
        let mut filler = Filler::new(SHAPE, Buffer::new());
        let max = SHAPE.payload_bytes_max() as usize;
        assert!(filler.fits(max) && !filler.fits(max + 1));
        filler.push(&vec![1; max]);
        assert!(!filler.fits(0));
        let mut large = filler.seal(Buffer::new()).ok().unwrap();
        large.stamp(&Identity::default(), 0);
        assert_eq!(large.frame().len(), 1024);
        assert!(matches!(BatchDecoder::new(1024).advance(large.frame()), Ok(Progress::Complete(_))));
        filler.push(b"x");
        let buffer = large.into_buffer();
        assert!(filler.seal(buffer).is_ok());
        assert!(filler.frame.capacity() <= 512, "a grown buffer is not kept");
    }

    #[test]
    fn count_and_size_bound_a_batch() {
        let mut filler = Filler::new(SHAPE, Buffer::new());
        (0..4).for_each(|_| filler.push(b""));
        assert!(!filler.fits(0));
        let mut filler = Filler::new(SHAPE, Buffer::new());
        filler.push(&[0; 96]);
        assert!(filler.fits(64) && !filler.fits(65));
        assert!(filler.due(Duration::ZERO, false).is_some());
    }
}
