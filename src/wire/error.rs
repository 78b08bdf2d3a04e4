//! What can be wrong with bytes from a peer, and the typed reasons a broker refuses with.

use crate::wire::kind::FrameKind;

/// A frame or batch that breaks the protocol. Each says what was found and what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first four bytes are not a frame's.
    #[error(
        "found magic {found:#010x}, expected {:#010x} (is this an Embarcadero port and client?)",
        crate::wire::kind::MAGIC
    )]
    Magic {
        /// The four bytes as a little-endian number.
        found: u32,
    },
    /// Another protocol version.
    #[error(
        "found protocol version {found}, expected {} to {}: use a client and a broker that have one in common",
        crate::wire::kind::VERSION_LOWEST,
        crate::wire::kind::VERSION
    )]
    Version {
        /// The version byte.
        found: u8,
    },
    /// A version that the kind does not have.
    #[error("found version {found} in a {kind:?} frame, expected {lowest} to {highest}")]
    KindVersion {
        /// The version byte.
        found: u8,
        /// The kind.
        kind: FrameKind,
        /// Lowest it has.
        lowest: u8,
        /// Highest it has.
        highest: u8,
    },
    /// Flag bits nobody defined.
    #[error(
        "found flags {found:#06x} in a {kind:?} frame, defined are {defined:#06x}: the sender wants what this end does not know"
    )]
    Flags {
        /// As sent.
        found: u16,
        /// The kind.
        kind: FrameKind,
        /// What may be set.
        defined: u16,
    },
    /// A message header that says what no version defines.
    #[error(
        "message {index} has `received` {received}, attributes {attributes:#04x}, key of {key_bytes} bytes; expected 0 or 1, 0 and 0"
    )]
    MessageHeader {
        /// Index in the batch.
        index: u32,
        /// As sent.
        received: u8,
        /// As sent.
        attributes: u8,
        /// As sent.
        key_bytes: u16,
    },
    /// A kind number nobody defined.
    #[error("found frame kind {found}, which no version of this protocol defines")]
    UnknownKind {
        /// The kind byte.
        found: u8,
    },
    /// A defined frame that this role, or this state of the conversation, does not take.
    #[error("found a {found:?} frame where {expected} is expected")]
    UnexpectedKind {
        /// What came.
        found: FrameKind,
        /// What may come.
        expected: &'static str,
    },
    /// Header checksum mismatch.
    #[error("header CRC32C is {found:#010x}, computed {computed:#010x}")]
    HeaderCrc {
        /// As sent.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// Body checksum mismatch.
    #[error("body CRC32C is {found:#010x}, computed {computed:#010x}")]
    BodyCrc {
        /// As sent.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// The body is longer than the limit for its kind.
    #[error("body of {found} bytes, the limit is {max}")]
    BodyTooLong {
        /// As sent, bytes.
        found: u64,
        /// Largest allowed, bytes.
        max: u64,
    },
    /// A batch that says it holds none or too many messages.
    #[error("batch of {found} messages, allowed are 1 to {}", crate::limits::BATCH_MESSAGES_MAX)]
    MessageCount {
        /// As sent.
        found: u32,
    },
    /// A message runs past the end of its batch.
    #[error("message {index} needs {needed} bytes at offset {offset} of a body of {body_bytes}")]
    MessageOverrun {
        /// Index in the batch.
        index: u32,
        /// Bytes from the start of the body.
        offset: u64,
        /// Header, payload and padding, bytes.
        needed: u64,
        /// Length of the body, bytes.
        body_bytes: u64,
    },
    /// The messages end before the body does.
    #[error("{messages} messages end at byte {end} of a body of {body_bytes}")]
    TrailingBytes {
        /// The header's count.
        messages: u32,
        /// Where the last message ends.
        end: u64,
        /// Length of the body, bytes.
        body_bytes: u64,
    },
    /// A field holds a value that its type does not define.
    #[error("field {field} is {found}, expected {expected}")]
    Field {
        /// Name in the byte table.
        field: &'static str,
        /// As sent.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A topic name that is empty, too long, or not UTF-8.
    #[error(
        "topic name of {found} bytes: it must be 1 to {} bytes of UTF-8 without control characters",
        crate::limits::TOPIC_NAME_BYTES_MAX
    )]
    TopicName {
        /// Its length, bytes.
        found: usize,
    },
    /// A cursor name that is empty, too long, or not UTF-8.
    #[error(
        "cursor name of {found} bytes: it must be 1 to {} bytes of UTF-8 without control characters",
        crate::limits::CURSOR_NAME_BYTES_MAX
    )]
    CursorName {
        /// Its length, bytes.
        found: usize,
    },
}

/// Why a broker refuses or ends a conversation: the `code` of a Refused frame. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Refusal {
    /// The peer's bytes break the protocol (see the text).
    Protocol = 1,
    /// No topic of that name.
    UnknownTopic = 2,
    /// The session is not open (never was, was closed, or expired).
    UnknownSession = 3,
    /// The token does not belong to that session.
    BadToken = 4,
    /// Every connection or session slot is taken.
    Busy = 5,
    /// The ack level cannot be given (level 2, or level 0 at order 5).
    AckLevel = 6,
    /// A topic of that name exists with other properties.
    TopicExists = 7,
    /// The order asked for lies below the trim floor; the text names the earliest.
    Trimmed = 8,
    /// The reader fell behind and was let go.
    TooSlow = 9,
    /// The broker is shutting down.
    Draining = 10,
    /// No free place in the topic table.
    TopicTableFull = 11,
    /// The peer took too long over its hello.
    HelloTimeout = 12,
    /// The session epoch is not the current one.
    SessionEpoch = 13,
    /// The topic has no cursor of that name.
    UnknownCursor = 14,
    /// The broker does not know the operation a request asks for.
    UnknownOperation = 15,
    /// The topic was deleted while it was written to or read.
    TopicDeleted = 16,
    /// More topics than one subscription may have.
    TooManyTopics = 18,
    /// No free place in the cursor table.
    CursorTableFull = 21,
    /// The pool is damaged: trying again does not help.
    Damaged = 22,
    /// What is to be joined or resumed was in another log.
    OtherLog = 23,
    /// No sequencer is active: nothing can be created or opened now.
    NoSequencer = 24,
}

impl Refusal {
    /// All codes, for documentation and tests.
    pub const ALL: [Refusal; 21] = [
        Refusal::Protocol,
        Refusal::UnknownTopic,
        Refusal::UnknownSession,
        Refusal::BadToken,
        Refusal::Busy,
        Refusal::AckLevel,
        Refusal::TopicExists,
        Refusal::Trimmed,
        Refusal::TooSlow,
        Refusal::Draining,
        Refusal::TopicTableFull,
        Refusal::HelloTimeout,
        Refusal::SessionEpoch,
        Refusal::UnknownCursor,
        Refusal::UnknownOperation,
        Refusal::TopicDeleted,
        Refusal::TooManyTopics,
        Refusal::CursorTableFull,
        Refusal::Damaged,
        Refusal::OtherLog,
        Refusal::NoSequencer,
    ];

    /// The code as a refusal, if it is one.
    pub fn from_code(code: u16) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| *refusal as u16 == code)
    }
}
