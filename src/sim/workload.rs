//! What publishers send: every payload says which message of which publisher it is, and the rest follows from that.

use crate::testing::random::Random;

/// Bytes that say whose message it is, and which.
pub const STAMP_BYTES: usize = 16;

/// Bytes that follow the stamp of a message, and where they come from.
fn filler(client: u64, number: u64, bytes_max: u64) -> (usize, Random) {
    let mut random = Random::new(client << 40 ^ number);
    // Mostly short ones, now and then the longest.
    let most = if random.chance(1, 4) { bytes_max } else { bytes_max / 4 };
    (random.below(most + 1) as usize, random)
}

/// Message `number` of client `client`, at most `bytes_max` bytes, at least its stamp.
pub fn payload(client: u64, number: u64, bytes_max: u64) -> Vec<u8> {
    let (filler, mut random) = filler(client, number, bytes_max);
    let mut bytes = vec![0; STAMP_BYTES + filler];
    bytes[..8].copy_from_slice(&client.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let (words, rest) = bytes[STAMP_BYTES..].as_chunks_mut();
    words.iter_mut().for_each(|word| *word = random.word().to_le_bytes());
    rest.copy_from_slice(&random.word().to_le_bytes()[..rest.len()]);
    bytes
}

/// Client and number of a payload, if it is one, whole.
pub fn read(bytes: &[u8], bytes_max: u64) -> Option<(u64, u64)> {
    let client = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let number = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let (filler, mut random) = filler(client, number, bytes_max);
    if bytes.len() != STAMP_BYTES + filler {
        return None;
    }
    let (words, rest) = bytes[STAMP_BYTES..].as_chunks();
    let is_it = words.iter().all(|word| *word == random.word().to_le_bytes());
    (is_it && *rest == random.word().to_le_bytes()[..rest.len()]).then_some((client, number))
}
