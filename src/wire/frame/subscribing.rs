//! Frames a subscriber is sent: where a batch stands, and that it has all, or has lost some.

use crate::described;

described! {
    /// Position of a batch in the order. Body: that batch, a whole Batch frame with its padding.
    pub struct Deliver: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 6
        kind: u8,
        /// 0
        flags: u16,
        /// length of the batch frame in bytes, a multiple of 64
        body_bytes: u32,
        /// messages in the batch; equals the batch header's
        message_count: u32,
        /// total order, in the topic, of the batch's first message
        first_order: u64,
        /// position of the batch in the pool's order index
        position: u64,
        /// session id; equals the batch header's
        session: u64,
        /// number of the batch in its session; equals the batch header's
        batch_seq: u64,
        /// session epoch; equals the batch header's
        session_epoch: u32,
        /// topic id; equals the batch header's
        topic: u32,
        /// 0: the batch has its own
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The subscriber has been sent everything committed; sent once each time it catches up. No body.
    pub struct CaughtUp: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 7
        kind: u8,
        /// 0
        flags: u16,
        /// 0
        body_bytes: u32,
        /// topic id
        topic: u32,
        /// order of the next message
        next_order: u64,
        /// 0
        reserved: [u64; 4],
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// Messages were given up because the subscriber was too slow. No body.
    pub struct Skipped: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 11
        kind: u8,
        /// 0
        flags: u16,
        /// 0
        body_bytes: u32,
        /// topic id
        topic: u32,
        /// order of the first message given up: the next that was due
        from: u64,
        /// order of the next message to come
        next_order: u64,
        /// 0
        reserved: [u64; 3],
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}
