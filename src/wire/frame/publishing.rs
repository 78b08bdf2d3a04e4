//! Frames of publishing: the batch, which is the same on the wire, in the blog and inside a Deliver frame, and the ack.

use crate::described;
use crate::limits::{BATCH_MESSAGES_MAX, LINE_BYTES};
use crate::wire::error::WireError;
use crate::wire::padded;

described! {
    /// Header of a batch, on the wire, in the blog and inside a Deliver frame.
    pub struct BatchHeader: 64 {
        /// "EMBR"
        magic: u32,
        /// version of the batch format, 2, under every protocol version
        version: u8,
        /// 4
        kind: u8,
        /// 0; reserved for conditions, compression and priority
        flags: u16,
        /// length of the messages in bytes, without the padding to 64
        body_bytes: u32,
        /// number of messages, 1 to 1,048,576
        message_count: u32,
        /// session id, from the Welcome
        session: u64,
        /// number of this batch in its session, from 0, without gaps
        batch_seq: u64,
        /// publisher's clock when the batch was sealed, UTC ns; informative
        created_at: u64,
        /// session epoch, from the Welcome
        session_epoch: u32,
        /// topic id, from the Welcome
        topic: u32,
        /// broker's clock when the batch was complete in the blog, UTC ns; a publisher sends 0
        received_at: u64,
        /// CRC32C of the body without its padding
        body_crc: u32,
        /// CRC32C of bytes 0 to 59 with `received_at` taken as 0
        header_crc: u32,
    }
}

described! {
    /// Cumulative acknowledgement; no body. Every number replaces the one before.
    pub struct Ack: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 5
        kind: u8,
        /// bit 0: fenced, `committed_next` is final for this epoch
        flags: u16,
        /// 0
        body_bytes: u32,
        /// session epoch this ack speaks of
        session_epoch: u32,
        /// session id
        session: u64,
        /// every batch of the session below this number is committed
        committed_next: u64,
        /// total order just past the session's last committed message; 0 before the first, and at order level 0
        order_end: u64,
        /// messages of this session, acked, that came in through the broker that sends this
        broker_messages: u64,
        /// resend every unacked batch from this number on: the sequencer let them go. 2^64-1: none
        let_go_from: u64,
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

impl BatchHeader {
    /// Length of the whole batch in the blog and on the wire, bytes.
    pub fn frame_bytes(&self) -> u64 {
        LINE_BYTES + padded(self.body_bytes.into())
    }

    /// Checks the fields only a batch has. [`check`](super::check) comes first.
    pub fn check_fields(&self) -> Result<(), WireError> {
        if self.message_count == 0 || self.message_count > BATCH_MESSAGES_MAX {
            return Err(WireError::MessageCount { found: self.message_count });
        }
        Ok(())
    }
}
