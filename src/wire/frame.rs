//! Frame headers: layouts, encoding, validation. The prose and the tables are in `PROTOCOL.md`.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use crate::described;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, CONTROL_BODY_BYTES_MAX, CURSOR_NAME_BYTES_MAX, FRAME_HEADER_BYTES, LINE_BYTES,
    REQUEST_BODY_BYTES_MAX, TOPIC_NAME_BYTES_MAX,
};
use crate::wire::error::WireError;
use crate::wire::{crc32c, padded};

/// First four bytes of every frame: "EMBR".
pub const MAGIC: u32 = u32::from_le_bytes(*b"EMBR");
/// Version of everything in this room. Compared exactly.
pub const VERSION: u8 = 2;
/// `session` of a publisher hello that opens a new session.
pub const NEW_SESSION: u64 = 0;
/// `let_go_from` of an ack that lets nothing go.
pub const NOTHING_LET_GO: u64 = u64::MAX;
/// Ack flag: the session was fenced; `committed_next` is final for this session epoch.
pub const ACK_FENCED: u16 = 1;
/// Hello flag: create the topic named if there is none, with the properties in the hello.
pub const HELLO_CREATE_TOPIC: u16 = 1;
/// Reply flag: there is more; ask again from `next`.
pub const REPLY_MORE: u16 = 1;

/// Kinds of frames. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Client to broker, first frame of every connection.
    Hello = 1,
    /// Broker to client: the hello was accepted.
    Welcome = 2,
    /// Broker to client: the conversation is over, with a reason.
    Refused = 3,
    /// Publisher to broker, and inside a Deliver frame broker to subscriber: a batch of messages.
    Batch = 4,
    /// Broker to publisher: cumulative acknowledgement.
    Ack = 5,
    /// Broker to subscriber: position of the batch that follows.
    Deliver = 6,
    /// Broker to subscriber: everything committed so far has been sent.
    CaughtUp = 7,
    /// Client to broker: no more will be sent; publisher sessions with no other connection close.
    Goodbye = 8,
    /// Client to broker, in place of a Hello: do something, or tell something.
    Request = 9,
    /// Broker to client: what became of a request.
    Reply = 10,
    /// Broker to subscriber: messages were given up, for it took too long.
    Skipped = 11,
}

impl FrameKind {
    /// All kinds, for documentation and tests.
    pub const ALL: [FrameKind; 11] = [
        FrameKind::Hello,
        FrameKind::Welcome,
        FrameKind::Refused,
        FrameKind::Batch,
        FrameKind::Ack,
        FrameKind::Deliver,
        FrameKind::CaughtUp,
        FrameKind::Goodbye,
        FrameKind::Request,
        FrameKind::Reply,
        FrameKind::Skipped,
    ];

    fn from_byte(byte: u8) -> Option<FrameKind> {
        FrameKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

macro_rules! level {
    ($(#[$meta:meta])* $name:ident, $field:literal, $expected:literal { $( $(#[$vmeta:meta])* $variant:ident = $value:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $( $(#[$vmeta])* $variant = $value ),* }
        impl $name {
            /// All levels.
            pub const ALL: &'static [$name] = &[ $( $name::$variant ),* ];
            /// The level of this number.
            pub fn from_byte(byte: u8) -> Result<$name, WireError> {
                match byte {
                    $( $value => Ok($name::$variant), )*
                    found => Err(WireError::Field { field: $field, found: found.into(), expected: $expected }),
                }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(out, "{}", *self as u8)
            }
        }
    };
}

level! {
    /// What a topic promises about order (DESIGN section 4).
    OrderLevel, "order_level", "0, 1, 2, 4 or 5" {
        /// No order; acked when the batch is in the blog.
        None = 0,
        /// Order within a broker.
        Broker = 1,
        /// One total order, no promise per client.
        Total = 2,
        /// One total order, first in first out per connection.
        Connection = 4,
        /// One total order, first in first out per session over all brokers, exactly once.
        Session = 5,
    }
}

level! {
    /// What an acknowledgement means.
    AckLevel, "ack_level", "0, 1 or 2" {
        /// Nothing is acked.
        None = 0,
        /// The batch's order is visible in the pool.
        Committed = 1,
        /// RF - 1 replicas have synced it.
        Durable = 2,
    }
}

level! {
    /// Where the broker stamps the time of receipt.
    Receipts, "receipts", "0 (batch) or 1 (message)" {
        /// In the batch header only.
        Batch = 0,
        /// In the batch header and in every message header.
        Message = 1,
    }
}

level! {
    /// What becomes of a subscriber that keeps memory from being used again.
    SlowReader, "slow_reader", "0 (as configured), 1 (wait), 2 (skip) or 3 (disconnect)" {
        /// What the broker's configuration says.
        AsConfigured = 0,
        /// Publishers wait for it, up to a lag.
        Wait = 1,
        /// It is told what it missed, and goes on with the earliest that is kept.
        Skip = 2,
        /// It is disconnected.
        Disconnect = 3,
    }
}

level! {
    /// What a connection is for.
    Role, "role", "1 (publisher) or 2 (subscriber)" {
        /// Sends batches, receives acks.
        Publisher = 1,
        /// Receives batches in order.
        Subscriber = 2,
    }
}

level! {
    /// What a request asks for.
    Operation, "operation", "1 to 8" {
        /// Create a topic.
        TopicCreate = 1,
        /// List topics.
        TopicList = 2,
        /// Describe a topic.
        TopicDescribe = 3,
        /// Delete a topic.
        TopicDelete = 4,
        /// Set a named cursor of a topic.
        CursorCommit = 5,
        /// Read a named cursor.
        CursorRead = 6,
        /// List a topic's named cursors.
        CursorList = 7,
        /// Delete a named cursor.
        CursorDelete = 8,
    }
}

described! {
    /// What every frame header has in common; `kind` says how bytes 12 to 56 are laid out.
    pub struct Prefix: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// frame kind
        kind: u8,
        /// flags of the kind; 0 where none are defined
        flags: u16,
        /// length of the body in bytes, without its padding
        body_bytes: u32,
        /// as the kind defines
        own: [u32; 11],
        /// CRC32C of the body without its padding; 0 if the body is empty
        body_crc: u32,
        /// CRC32C of bytes 0 to 59 of this header (in a Batch with `received_at` taken as 0)
        header_crc: u32,
    }
}

described! {
    /// Header of a batch, on the wire, in the blog and inside a Deliver frame.
    pub struct BatchHeader: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
        version: u8,
        /// 4
        kind: u8,
        /// 0
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
        /// session id (publisher), else 0
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
    /// Cumulative acknowledgement; no body. Every number replaces the one before.
    pub struct Ack: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
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

described! {
    /// Position of a batch in the order. Body: that batch, a whole Batch frame with its padding.
    pub struct Deliver: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
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
        /// protocol version, 2
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
        /// protocol version, 2
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

described! {
    /// Asks a broker to do or tell something. Body: the topic's name, then what the operation defines.
    pub struct Request: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version, 2
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
        /// 0
        reserved_too: [u64; 3],
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
        /// protocol version, 2
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
        /// 0
        reserved_too: u64,
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

/// A frame header of a known kind.
pub trait Frame: crate::fields::Described {
    /// Its kind.
    const KIND: FrameKind;
}

macro_rules! frames {
    ($($name:ident),*) => { $(
        impl Frame for $name { const KIND: FrameKind = FrameKind::$name; }
        impl Default for $name {
            /// All fields zero but the prefix that the kind fixes; `header_crc` is filled by [`seal`].
            fn default() -> Self {
                let mut frame = $name::zeroed();
                (frame.magic, frame.version, frame.kind) = (MAGIC, VERSION, FrameKind::$name as u8);
                frame
            }
        }
    )* };
}
// A batch header's type is `BatchHeader`, its kind `Batch`.
type Batch = BatchHeader;
frames!(Hello, Welcome, Refused, Batch, Ack, Deliver, CaughtUp, Goodbye, Request, Reply, Skipped);

/// Bytes that `received_at` of a batch header occupies.
pub const RECEIVED_AT: std::ops::Range<usize> = 48..56;
const HEADER_CRC_AT: usize = 60;

/// CRC32C of a header: its first 60 bytes, in a batch with `received_at` taken as 0.
pub fn header_crc(header: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    let mut copy = *header;
    if copy[5] == FrameKind::Batch as u8 {
        copy[RECEIVED_AT].fill(0);
    }
    crc32c(&copy[..HEADER_CRC_AT])
}

/// The bytes of a header with its header CRC filled in.
pub fn seal<F: Frame>(frame: &F) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes: [u8; FRAME_HEADER_BYTES] = bytes_of(frame).try_into().expect("every frame header is 64 bytes");
    let crc = header_crc(&bytes);
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A whole control frame: header with both CRCs, body, padding.
///
/// # Panics
/// If the body is longer than `CONTROL_BODY_BYTES_MAX`: the caller builds it.
pub fn with_body<F: Frame>(frame: &F, body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "control bodies are bounded");
    let mut prefix: Prefix = pod_read_unaligned(bytes_of(frame));
    prefix.body_bytes = body.len() as u32;
    prefix.body_crc = if body.is_empty() { 0 } else { crc32c(body) };
    let mut bytes: [u8; FRAME_HEADER_BYTES] = bytes_of(&prefix).try_into().expect("every frame header is 64 bytes");
    let crc = header_crc(&bytes);
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    let mut whole = bytes.to_vec();
    whole.extend_from_slice(body);
    whole.resize(FRAME_HEADER_BYTES + padded(body.len() as u64) as usize, 0);
    whole
}

/// Checks what all headers share: magic, version, kind, header CRC and the body's length for the kind.
///
/// `batch_bytes_max` is the receiver's limit for a whole batch frame, bytes.
pub fn check(header: &[u8; FRAME_HEADER_BYTES], batch_bytes_max: u64) -> Result<FrameKind, WireError> {
    let prefix: Prefix = pod_read_unaligned(header);
    if prefix.magic != MAGIC {
        return Err(WireError::Magic { found: prefix.magic });
    }
    if prefix.version != VERSION {
        return Err(WireError::Version { found: prefix.version });
    }
    let kind = FrameKind::from_byte(prefix.kind).ok_or(WireError::UnknownKind { found: prefix.kind })?;
    let computed = header_crc(header);
    if prefix.header_crc != computed {
        return Err(WireError::HeaderCrc { found: prefix.header_crc, computed });
    }
    let max = match kind {
        FrameKind::Request => REQUEST_BODY_BYTES_MAX as u64,
        // The topic name of those who name one only is checked as such.
        FrameKind::Hello | FrameKind::Welcome | FrameKind::Refused | FrameKind::Reply => CONTROL_BODY_BYTES_MAX as u64,
        FrameKind::Batch => batch_bytes_max.min(BATCH_BYTES_MAX) - LINE_BYTES,
        FrameKind::Deliver => batch_bytes_max.min(BATCH_BYTES_MAX),
        FrameKind::Ack | FrameKind::CaughtUp | FrameKind::Goodbye | FrameKind::Skipped => 0,
    };
    // Padding counts: a batch occupies whole lines.
    if padded(prefix.body_bytes.into()) > max.next_multiple_of(LINE_BYTES) || u64::from(prefix.body_bytes) > max {
        return Err(WireError::BodyTooLong { found: prefix.body_bytes.into(), max });
    }
    Ok(kind)
}

/// Reads a checked header as the frame it says it is.
///
/// # Panics
/// If the header's kind is another: call [`check`] first and match on its answer.
pub fn read<F: Frame>(header: &[u8; FRAME_HEADER_BYTES]) -> F {
    assert_eq!(header[5], F::KIND as u8, "read as another kind than the header says");
    pod_read_unaligned(header)
}

/// Length of the whole frame this checked header begins, padding included, bytes.
pub fn frame_bytes(header: &[u8; FRAME_HEADER_BYTES]) -> u64 {
    let prefix: Prefix = pod_read_unaligned(header);
    LINE_BYTES + padded(prefix.body_bytes.into())
}

/// Checks a control frame's body against its header, and gives the body without padding.
pub fn check_body<'a>(header: &[u8; FRAME_HEADER_BYTES], padded_body: &'a [u8]) -> Result<&'a [u8], WireError> {
    let prefix: Prefix = pod_read_unaligned(header);
    let body = &padded_body[..prefix.body_bytes as usize];
    let computed = if body.is_empty() { 0 } else { crc32c(body) };
    if prefix.body_crc != computed {
        return Err(WireError::BodyCrc { found: prefix.body_crc, computed });
    }
    Ok(body)
}

/// Checks a topic name: 1 to 112 bytes of UTF-8 without control characters.
pub fn check_topic_name(name: &[u8]) -> Result<&str, WireError> {
    check_name(name, TOPIC_NAME_BYTES_MAX).ok_or(WireError::TopicName { found: name.len() })
}

/// A cursor's name: 1 to 40 bytes of UTF-8 without control characters.
pub fn check_cursor_name(name: &[u8]) -> Result<&str, WireError> {
    check_name(name, CURSOR_NAME_BYTES_MAX).ok_or(WireError::CursorName { found: name.len() })
}

fn check_name(name: &[u8], bytes_max: usize) -> Option<&str> {
    let text = std::str::from_utf8(name).ok()?;
    let is_name = (1..=bytes_max).contains(&name.len()) && !text.chars().any(char::is_control);
    is_name.then_some(text)
}

impl BatchHeader {
    /// Length of the whole batch in the blog and on the wire, bytes.
    pub fn frame_bytes(&self) -> u64 {
        LINE_BYTES + padded(self.body_bytes.into())
    }

    /// Checks the fields only a batch has. [`check`] comes first.
    pub fn check_fields(&self) -> Result<(), WireError> {
        if self.message_count == 0 || self.message_count > BATCH_MESSAGES_MAX {
            return Err(WireError::MessageCount { found: self.message_count });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Described, table};

    const MAX: u64 = 1 << 20;

    #[test]
    fn sealed_headers_check() {
        let ack = Ack { session: 7, committed_next: 9, ..Ack::default() };
        let bytes = seal(&ack);
        assert_eq!(check(&bytes, MAX), Ok(FrameKind::Ack));
        assert_eq!(read::<Ack>(&bytes).committed_next, 9);
    }

    #[test]
    fn receipt_is_outside_the_header_crc() {
        let mut bytes = seal(&BatchHeader { message_count: 1, ..BatchHeader::default() });
        bytes[RECEIVED_AT].copy_from_slice(&77u64.to_le_bytes());
        assert_eq!(check(&bytes, MAX), Ok(FrameKind::Batch));
        assert_eq!(RECEIVED_AT.start, std::mem::offset_of!(BatchHeader, received_at));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = seal(&Hello { role: 1, body_bytes: 5, ..Hello::default() });
        for bit in 0..512 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, MAX).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn lengths_past_the_limit_are_refused() {
        let hello = seal(&Hello { body_bytes: CONTROL_BODY_BYTES_MAX as u32 + 1, ..Hello::default() });
        assert!(matches!(check(&hello, MAX), Err(WireError::BodyTooLong { .. })));
        for (body, fits) in [(MAX - 64, true), (MAX - 63, false), (u32::MAX as u64, false)] {
            let batch = seal(&BatchHeader { body_bytes: body as u32, message_count: 1, ..BatchHeader::default() });
            assert_eq!(check(&batch, MAX).is_ok(), fits, "body of {body}");
        }
    }

    #[test]
    fn the_written_tables_are_the_code() {
        let text = include_str!("PROTOCOL.md");
        fn has<T: Described>(text: &str) {
            let wanted = table::<T>(0);
            assert!(text.contains(&wanted), "PROTOCOL.md lacks or differs from the table of {}:\n{wanted}", T::NAME);
        }
        has::<Prefix>(text);
        has::<Hello>(text);
        has::<Welcome>(text);
        has::<Refused>(text);
        has::<BatchHeader>(text);
        has::<Ack>(text);
        has::<Deliver>(text);
        has::<CaughtUp>(text);
        has::<Goodbye>(text);
        has::<Request>(text);
        has::<Reply>(text);
        has::<TopicRecord>(text);
        has::<CursorRecord>(text);
        has::<Skipped>(text);
        has::<crate::wire::subscribe::StartRecord>(text);
        has::<crate::wire::message::MessageHeader>(text);
        for refusal in crate::wire::Refusal::ALL {
            assert!(text.contains(&format!("| {} | {refusal:?} |", refusal as u16)), "PROTOCOL.md lacks {refusal:?}");
        }
        for operation in Operation::ALL {
            let row = format!("| {operation} | {operation:?} |");
            assert!(text.contains(&row), "PROTOCOL.md lacks {operation:?}");
        }
    }

    #[test]
    fn topic_names() {
        assert!(check_topic_name(b"orders.eu").is_ok());
        for bad in [&b""[..], &[b'x'; 113], &[0xff], b"a\nb"] {
            assert!(check_topic_name(bad).is_err());
        }
    }
}
