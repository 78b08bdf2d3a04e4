//! Frames that begin and end a conversation, whatever it is for.

use crate::described;

described! {
    /// First frame of a connection. Body: the topic's name, UTF-8; of a subscriber one Start record for each topic.
    pub struct Hello: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// 1
        kind: u8,
        /// bit 0: create the topic with the properties below if there is none
        flags: u16,
        /// length of the body in bytes: of a topic name, 1 to 112; of a subscriber's records
        body_bytes: u32,
        /// 1 publisher, 2 subscriber
        role: u8,
        /// ack level wanted by a publisher: 0, 1 (2 is refused in this version); default ack level of a topic to create
        ack_level: u8,
        /// order level of a topic to create, or the level the client relies on; 255: whatever the topic has
        order_level: u8,
        /// receipts of a topic to create: 0 batch, 1 message
        receipts: u8,
        /// publisher: 0 opens a session, else the session to join or reopen
        session: u64,
        /// publisher: token of that session, from its Welcome; else 0
        token: u64,
        /// subscriber that is waited for: up to this lag, bytes of payload in the pool; 0 as the broker is configured. Else 0
        lag_bytes: u64,
        /// publisher joining: the current epoch; reopening after a fence: that epoch + 1
        session_epoch: u32,
        /// replication factor of a topic to create, the pool copy included: 1
        replicas: u32,
        /// subscriber that is too slow: 0 as the broker is configured, 1 wait, 2 skip, 3 disconnect. Else 0
        slow_reader: u8,
        /// 0
        reserved: [u8; 7],
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// A hello was accepted. Body: one line `id address:port` for every broker of the pool. A subscriber gets one for each
    /// topic, in the hello's order; all but the first without a body.
    pub struct Welcome: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// 2
        kind: u8,
        /// 0
        flags: u16,
        /// length of the broker list in bytes
        body_bytes: u32,
        /// session epoch (publisher), else 0
        session_epoch: u32,
        /// session id (publisher); generation of the topic (subscriber), to name when it resumes
        session: u64,
        /// token that lets another connection join the session; keep it secret
        token: u64,
        /// publisher: number of the first batch not yet committed. Subscriber: order of the first message to come
        next: u64,
        /// topic id, for the batch headers
        topic: u32,
        /// largest batch taken, header and padding included, bytes
        batch_bytes_max: u32,
        /// order level of the topic
        order_level: u8,
        /// ack level granted
        ack_level: u8,
        /// id of the broker that answers
        broker: u16,
        /// most batches the session may have unacked
        window_batches_max: u32,
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The conversation is over. Body: the reason in words, UTF-8. The broker closes after it.
    pub struct Refused: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// 3
        kind: u8,
        /// 0
        flags: u16,
        /// length of the text in bytes
        body_bytes: u32,
        /// reason, see the table of codes
        code: u16,
        /// Trimmed, TooSlow: place of the topic in the subscriber's hello, from 0; else 0
        place: u16,
        /// the number the code's meaning names (Trimmed, TooSlow: earliest order; SessionEpoch: current epoch), else 0
        detail: u64,
        /// 0
        reserved_too: [u64; 4],
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The client sends nothing more. No body.
    pub struct Goodbye: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// 8
        kind: u8,
        /// 0
        flags: u16,
        /// 0
        body_bytes: u32,
        /// 0
        reserved: [u32; 11],
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}
