//! The receive buffer of a subscriber.

/// Receive only into at least this much room; below it, what is not decoded moves to the buffer's start.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// Bytes received and not handed on: `bytes[start..end]`.
pub(super) struct Inbox {
    pub bytes: Vec<u8>,
    pub start: usize,
    pub end: usize,
}

impl Inbox {
    pub fn new(bytes: u64) -> Inbox {
        Inbox { bytes: vec![0; bytes as usize], start: 0, end: 0 }
    }

    pub fn landed(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room to receive into, so that a frame of `wanted` bytes from `start` fits.
    pub fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.start == self.end {
            self.clear();
        }
        let wanted = wanted.max(self.end - self.start + 1);
        if self.start + wanted > self.bytes.len() || (self.start > 0 && self.bytes.len() - self.end < ROOM_BYTES_MIN) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted, 0);
        }
        &mut self.bytes[self.end..]
    }
}
