//! What a message contains, so that a reader can tell every byte of it.
//!
//! A message of 16 bytes or more begins with a [`Stamp`] (run, publisher, number). The rest is a slice of
//! one fixed pseudo-random block, at an offset derived from the stamp: writing a message costs 16 bytes on
//! top of the client's own copy, checking one is a comparison of two slices. A shorter message has no room
//! for a stamp and is the beginning of the block: its bytes are checked, but it cannot be told from
//! another message of the same size.
//!
//! In an open-loop run the stamp is followed by [`Times`], of which a subscriber of the same host makes latencies.
//!
//! The block's content is part of the format: publisher and subscriber may be different processes.

/// Bytes of a stamp, and the smallest message that has one.
pub const STAMP_BYTES: usize = 16;
/// Bytes of the times behind a stamp.
const TIMES_BYTES: usize = 16;
/// The smallest message that has a stamp and times.
pub const TIMED_BYTES_MIN: usize = STAMP_BYTES + TIMES_BYTES;
/// Number of places in the block where a message may begin. Small enough to stay in a core's own cache.
const OFFSETS: usize = 64 << 10;
/// Seed of the block. Any odd constant would do; this one is the golden ratio in 64 bits.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// One run of whoever publishes; drawn at its start.
    pub run: u32,
    /// Index of the publisher session in its run.
    pub publisher: u32,
    /// Number of the message in its publisher session, from 0.
    pub number: u64,
}

impl Stamp {
    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Stamp {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let number = u64::from(word(8)) | u64::from(word(12)) << 32;
        Stamp { run: word(0), publisher: word(4), number }
    }

    /// Where in the block the message with this stamp lies.
    fn offset(self) -> usize {
        let origin = u64::from(self.publisher) << 32 | u64::from(self.run);
        mix(self.number ^ mix(origin)) as usize % OFFSETS
    }
}

/// When a message was planned, and when it was handed to the client; on the host's monotonic clock, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it should have been sent.
    pub planned: u64,
    /// When it was.
    pub sent: u64,
}

impl Times {
    fn to_bytes(self) -> [u8; TIMES_BYTES] {
        let mut bytes = [0; TIMES_BYTES];
        bytes[..8].copy_from_slice(&self.planned.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sent.to_le_bytes());
        bytes
    }

    /// Of a message that has a stamp and times; none if it is too short for them.
    pub fn of(payload: &[u8]) -> Option<Times> {
        let (planned, rest) = payload.get(STAMP_BYTES..)?.split_first_chunk::<8>()?;
        let sent = rest.first_chunk::<8>()?;
        Some(Times { planned: u64::from_le_bytes(*planned), sent: u64::from_le_bytes(*sent) })
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "run {:08x}, publisher {}, message {}", self.run, self.publisher, self.number)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(SEED);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How a payload differs from what its publisher sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// Another length than all messages of the run have.
    #[error("{found} bytes long, expected {expected}")]
    Length {
        /// Bytes delivered.
        found: usize,
        /// Bytes sent.
        expected: usize,
    },
    /// A byte that was not sent.
    #[error("byte {at} is {found:#04x}, expected {expected:#04x}")]
    Byte {
        /// Index of the first wrong byte.
        at: usize,
        /// The byte delivered.
        found: u8,
        /// The byte sent.
        expected: u8,
    },
}

/// Messages of one size, or of any up to one: their content, and the check of it.
#[derive(Clone)]
pub struct Payloads {
    block: Vec<u8>,
    message_bytes: usize,
    /// No message is shorter.
    shortest_bytes: usize,
    /// Bytes in front of the slice of the block: the stamp, and times where there are some.
    head_bytes: usize,
}

impl Payloads {
    /// Messages of `message_bytes` bytes each, 0 included.
    pub fn new(message_bytes: usize) -> Payloads {
        Payloads::with_head(message_bytes, STAMP_BYTES)
    }

    /// Messages that carry [`Times`].
    ///
    /// # Panics
    /// If they are shorter than [`TIMED_BYTES_MIN`].
    pub fn timed(message_bytes: usize) -> Payloads {
        assert!(message_bytes >= TIMED_BYTES_MIN, "{message_bytes} bytes have no room for times");
        Payloads::with_head(message_bytes, TIMED_BYTES_MIN)
    }

    /// Messages of any length up to `bytes_max`, each with a stamp. A message that was cut must be known by its stamp.
    ///
    /// # Panics
    /// If there is no room for a stamp.
    pub fn up_to(bytes_max: usize) -> Payloads {
        assert!(bytes_max >= STAMP_BYTES, "{bytes_max} bytes have no room for a stamp");
        Payloads { shortest_bytes: STAMP_BYTES, ..Payloads::new(bytes_max) }
    }

    fn with_head(message_bytes: usize, head_bytes: usize) -> Payloads {
        let words = (OFFSETS + message_bytes).div_ceil(8) as u64;
        let block = (0..words).flat_map(|word| mix(word.wrapping_mul(SEED)).to_le_bytes()).collect();
        Payloads { block, message_bytes, shortest_bytes: message_bytes, head_bytes }
    }

    /// Bytes of each message.
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Whether these messages are large enough to say which one they are.
    pub fn stamped(&self) -> bool {
        self.message_bytes >= STAMP_BYTES
    }

    /// The message with this stamp, of so many bytes.
    ///
    /// # Panics
    /// If messages of this length have no stamp, or are longer than all of these.
    pub fn message(&self, stamp: Stamp, bytes: usize) -> Vec<u8> {
        assert!((STAMP_BYTES..=self.message_bytes).contains(&bytes), "a stamp and {bytes} bytes");
        let begin = stamp.offset();
        let mut message = self.block[begin..begin + bytes].to_vec();
        message[..STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
        message
    }

    /// Checks every byte of a delivered message. Its stamp, if messages of this size have one.
    pub fn check(&self, payload: &[u8]) -> Result<Option<Stamp>, PayloadFault> {
        if !(self.shortest_bytes..=self.message_bytes).contains(&payload.len()) {
            return Err(PayloadFault::Length { found: payload.len(), expected: self.message_bytes });
        }
        let Some(stamp) = payload.first_chunk::<STAMP_BYTES>() else {
            return same(payload, &self.block[..payload.len()], 0).map(|()| None);
        };
        let stamp = Stamp::from_bytes(stamp);
        let rest = &payload[self.head_bytes..];
        if rest.is_empty() {
            return Ok(Some(stamp));
        }
        let begin = stamp.offset() + self.head_bytes;
        same(rest, &self.block[begin..begin + rest.len()], self.head_bytes).map(|()| Some(stamp))
    }
}

fn same(found: &[u8], expected: &[u8], begin: usize) -> Result<(), PayloadFault> {
    if found == expected {
        return Ok(());
    }
    let differing = found.iter().zip(expected).position(|(a, b)| a != b).expect("equal lengths that differ in a byte");
    Err(PayloadFault::Byte { at: begin + differing, found: found[differing], expected: expected[differing] })
}

/// Makes the messages of publisher sessions, without a copy: the stamp is written into the block in
/// front of the slice that is sent, and what it covered is put back afterwards.
pub struct PayloadWriter {
    payloads: Payloads,
    run: u32,
    publisher: u32,
}

impl PayloadWriter {
    /// The messages of this publisher of this run.
    pub fn new(payloads: Payloads, run: u32, publisher: u32) -> PayloadWriter {
        PayloadWriter { payloads, run, publisher }
    }

    /// The same, of another publisher of the run from here on.
    pub fn of(&mut self, publisher: u32) -> &mut PayloadWriter {
        self.publisher = publisher;
        self
    }

    /// Hands message `number` to `send`.
    pub fn with<T>(&mut self, number: u64, send: impl FnOnce(&[u8]) -> T) -> T {
        self.timed(number, Times::default(), send)
    }

    /// Hands message `number` with these times to `send`; without them if the messages carry none.
    pub fn timed<T>(&mut self, number: u64, times: Times, send: impl FnOnce(&[u8]) -> T) -> T {
        let (bytes, head_bytes) = (self.payloads.message_bytes, self.payloads.head_bytes);
        let block = &mut self.payloads.block;
        if bytes < STAMP_BYTES {
            return send(&block[..bytes]);
        }
        let stamp = Stamp { run: self.run, publisher: self.publisher, number };
        let begin = if bytes > head_bytes { stamp.offset() } else { 0 };
        let mut head = [0; TIMED_BYTES_MIN];
        head[..STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
        head[STAMP_BYTES..].copy_from_slice(&times.to_bytes());
        let place = begin..begin + head_bytes;
        let mut covered = [0; TIMED_BYTES_MIN];
        covered[..head_bytes].copy_from_slice(&block[place.clone()]);
        block[place.clone()].copy_from_slice(&head[..head_bytes]);
        let sent = send(&block[begin..begin + bytes]);
        block[place].copy_from_slice(&covered[..head_bytes]);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize, number: u64) -> Vec<u8> {
        PayloadWriter::new(Payloads::new(bytes), 7, 3).with(number, <[u8]>::to_vec)
    }

    #[test]
    fn every_size_comes_back_with_its_stamp() {
        for bytes in [16, 17, 100, 1024, 1 << 20] {
            let payloads = Payloads::new(bytes);
            for number in [0, 1, 65_536, u64::MAX] {
                let stamp = payloads.check(&message(bytes, number));
                assert_eq!(stamp, Ok(Some(Stamp { run: 7, publisher: 3, number })), "{bytes} bytes");
            }
        }
    }

    #[test]
    fn messages_of_any_length_come_back() {
        let payloads = Payloads::up_to(1 << 16);
        for bytes in [16, 17, 1000, 1 << 16] {
            let stamp = Stamp { run: bytes as u32, publisher: 3, number: 9 };
            let mut message = payloads.message(stamp, bytes);
            assert_eq!(payloads.check(&message), Ok(Some(stamp)));
            message[bytes - 1] ^= 1;
            assert_ne!(payloads.check(&message), Ok(Some(stamp)), "{bytes} bytes");
        }
        assert!(payloads.check(&[0; 15]).is_err() && payloads.check(&vec![0; (1 << 16) + 1]).is_err());
    }

    #[test]
    fn times_come_back_and_do_not_hide_a_flipped_byte() {
        let times = Times { planned: 1 << 40, sent: u64::MAX - 1 };
        for bytes in [32, 33, 1024] {
            let payloads = Payloads::timed(bytes);
            let sent = PayloadWriter::new(payloads.clone(), 7, 3).timed(5, times, <[u8]>::to_vec);
            assert_eq!(payloads.check(&sent), Ok(Some(Stamp { run: 7, publisher: 3, number: 5 })), "{bytes} bytes");
            assert_eq!(Times::of(&sent), Some(times));
            let mut wrong = sent.clone();
            wrong[bytes - 1] ^= 1;
            assert_eq!(payloads.check(&wrong).is_err(), bytes > 32);
        }
        assert_eq!(Times::of(&[0; 31]), None);
    }

    #[test]
    fn messages_too_small_for_a_stamp_are_one_pattern() {
        for bytes in [0, 1, 15] {
            assert_eq!(message(bytes, 0), message(bytes, 9));
            assert_eq!(Payloads::new(bytes).check(&message(bytes, 5)), Ok(None));
        }
        let mut wrong = message(15, 0);
        wrong[14] ^= 0x80;
        assert!(matches!(Payloads::new(15).check(&wrong), Err(PayloadFault::Byte { at: 14, .. })));
    }

    #[test]
    fn the_writer_leaves_its_block_as_it_was() {
        let mut writer = PayloadWriter::new(Payloads::new(64), 1, 1);
        let pristine = writer.payloads.block.clone();
        for number in 0..1000 {
            writer.with(number, |_| ());
        }
        assert!(writer.payloads.block == pristine);
    }

    #[test]
    fn a_flip_of_any_byte_is_found() {
        let good = message(256, 12);
        let payloads = Payloads::new(256);
        for at in 0..256 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let found = payloads.check(&bad);
            if at >= STAMP_BYTES {
                assert!(
                    matches!(found, Err(PayloadFault::Byte { at: said, .. }) if said == at),
                    "byte {at}: {found:?}"
                );
            } else {
                // A flipped stamp names another place in the block, or another message.
                assert_ne!(found, payloads.check(&good), "byte {at}");
            }
        }
    }

    #[test]
    fn a_message_of_another_length_is_found() {
        let found = Payloads::new(256).check(&message(256, 1)[..255]);
        assert_eq!(found, Err(PayloadFault::Length { found: 255, expected: 256 }));
    }
}
