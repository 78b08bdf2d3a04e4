//! What publishers send: every payload says which message of which publisher it is, and the rest follows from that.

use crate::testing::random::Random;

/// Bytes that say whose message it is, and which.
pub const STAMP_BYTES: usize = 16;

/// Message `number` of client `client`, at most `bytes_max` bytes, at least its stamp.
pub fn payload(client: u64, number: u64, bytes_max: u64) -> Vec<u8> {
    let mut random = Random::new(client << 40 ^ number);
    // Mostly short ones, now and then the longest.
    let most = if random.chance(1, 4) { bytes_max } else { bytes_max / 4 };
    let filler = random.below(most + 1) as usize;
    let mut bytes = Vec::with_capacity(STAMP_BYTES + filler + 8);
    bytes.extend(client.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    while bytes.len() < STAMP_BYTES + filler {
        bytes.extend(random.word().to_le_bytes());
    }
    bytes.truncate(STAMP_BYTES + filler);
    bytes
}

/// Client and number of a payload, if it is one, whole.
pub fn read(bytes: &[u8], bytes_max: u64) -> Option<(u64, u64)> {
    let client = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let number = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (payload(client, number, bytes_max) == bytes).then_some((client, number))
}
