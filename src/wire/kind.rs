//! Kinds of frames, versions, and the numbers that stand for something in any frame.

/// First four bytes of every frame: "EMBR".
pub const MAGIC: u32 = u32::from_le_bytes(*b"EMBR");
/// Highest protocol version of this room.
pub const VERSION: u8 = VERSION_3;
/// Lowest protocol version of this room.
pub const VERSION_LOWEST: u8 = 2;
/// The version that brought heartbeats and the record of the log.
pub const VERSION_3: u8 = 3;
/// Version of the batch format, under every protocol version: stored batches serve every reader.
pub const BATCH_VERSION: u8 = 2;
/// `session` of a publisher hello that opens a new session.
pub const NEW_SESSION: u64 = 0;
/// `let_go_from` of an ack that lets nothing go.
pub const NOTHING_LET_GO: u64 = u64::MAX;
/// Ack flag: the session was fenced; `committed_next` is final for this session epoch.
pub const ACK_FENCED: u16 = 1;
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
    /// Both ways: the sender is there, and had nothing else to say. From version 3 on.
    Heartbeat = 12,
    /// Broker to client: which brokers there are from now on. From version 3 on.
    Brokers = 13,
}

impl FrameKind {
    /// All kinds, for documentation and tests.
    pub const ALL: [FrameKind; 13] = [
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
        FrameKind::Heartbeat,
        FrameKind::Brokers,
    ];

    /// Lowest protocol version that has the kind.
    pub const fn version_lowest(self) -> u8 {
        if matches!(self, FrameKind::Heartbeat | FrameKind::Brokers) { VERSION_3 } else { VERSION_LOWEST }
    }

    /// Highest version in the header of a frame of this kind.
    pub const fn version_highest(self) -> u8 {
        if matches!(self, FrameKind::Batch) { BATCH_VERSION } else { VERSION }
    }

    /// Flag bits that are defined.
    pub const fn flags(self) -> u16 {
        match self {
            FrameKind::Ack => ACK_FENCED,
            FrameKind::Reply => REPLY_MORE,
            _ => 0,
        }
    }

    /// The kind of this number.
    pub(super) fn from_byte(byte: u8) -> Option<FrameKind> {
        FrameKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
