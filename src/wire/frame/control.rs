//! Requests, their replies, and the records in their bodies.

use crate::described;
use crate::wire::error::WireError;

described! {
    /// Asks a broker to do or tell something. Body: the topic's name, then what the operation defines.
    pub struct Request: 64 {
        /// "EMBR"
        magic: u32,
        /// lowest protocol version that its sender speaks, 2
        version: u8,
        /// 9
        kind: u8,
        /// 0
        flags: u16,
        /// length of the body in bytes
        body_bytes: u32,
        /// operation, see the table of operations
        operation: u8,
        /// 0
        reserved: u8,
        /// length of the topic's name, which begins the body, bytes; 0 where the operation names no topic
        topic_bytes: u16,
        /// topic list: lowest topic id wanted; cursor list: where to go on. Else 0
        from: u64,
        /// topic delete: `generation` of the topic meant, 0 for any; cursor commit: order of the next message wanted. Else 0
        number: u64,
        /// lowest protocol version that its sender speaks; 0 means that of `version`
        version_lowest: u8,
        /// highest protocol version that its sender speaks; 0 means 2
        version_highest: u8,
        /// 0
        reserved_between: u16,
        /// version 3: the sender promises to be heard at least this often while it waits for nothing, ms; 0 promises nothing
        heartbeat_ms: u32,
        /// 0
        reserved_too: [u64; 2],
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// What became of a request. Body: what the operation defines, or with a code other than 0 the reason in words, UTF-8.
    pub struct Reply: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 10
        kind: u8,
        /// bit 0: there is more, ask again with `from` = `next`
        flags: u16,
        /// length of the body in bytes
        body_bytes: u32,
        /// operation of the request
        operation: u8,
        /// 0
        reserved: u8,
        /// 0: done. Else the reason why not, see the table of codes
        code: u16,
        /// lists: where to ask from next. Else 0
        next: u64,
        /// topic create, describe and delete: `generation` of the topic; cursor commit and read: its order. Else 0
        number: u64,
        /// with a code: the number its meaning names, else 0
        detail: u64,
        /// 0
        reserved_too: [u64; 2],
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// A topic in the body of a request or a reply. Its name follows where the operation says so.
    pub struct TopicRecord: 80 {
        /// topic id, for the batch headers; 0 in a request
        id: u32,
        /// length of the name that follows, bytes; 0 in a request
        name_bytes: u16,
        /// order level
        order_level: u8,
        /// strongest ack level granted
        ack_level: u8,
        /// receipts: 0 batch, 1 message
        receipts: u8,
        /// 0
        reserved: [u8; 3],
        /// replication factor, the pool copy included: 1
        replicas: u32,
        /// retention target, bytes of batches; 0: as much as fits
        retention_bytes: u64,
        /// retention target, ns; 0: as long as it fits
        retention_ns: u64,
        /// creation, UTC ns; 0 in a request
        created_at: u64,
        /// number that no other topic of the pool ever has, of this name or another; 0 in a request
        generation: u64,
        /// order of the next message; 0 in a request
        next_order: u64,
        /// no message below this order is kept; 0 in a request
        earliest_order: u64,
        /// bytes of batches kept from about that order on; 0 in a request
        kept_bytes: u64,
        /// bytes that were given up although the retention target wanted them, ever, for memory was short; 0 in a request
        taken_bytes: u64,
    }
}

described! {
    /// A named cursor in the body of a cursor list.
    pub struct CursorRecord: 56 {
        /// order of the next message its consumer wants
        order: u64,
        /// length of the name, bytes, 1 to 40
        name_bytes: u32,
        /// 0
        reserved: u32,
        /// its name, UTF-8, zero-filled
        name: [u8; 40],
    }
}

impl Request {
    /// Names the versions its sender speaks: all that this room knows.
    pub fn speaking(self) -> Request {
        Request { version_lowest: super::VERSION_LOWEST, version_highest: super::VERSION, ..self }
    }

    /// The version of its reply.
    ///
    /// # Errors
    /// Its sender speaks none that this room knows.
    pub fn version_in_use(&self) -> Result<u8, WireError> {
        super::version_in_use(self.version, self.version_lowest, self.version_highest)
    }
}
