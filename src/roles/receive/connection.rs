//! One connection of a receive core: what it is doing, and what it holds.

use crate::net::Operation;
use crate::roles::addresses::{Address, Admission};
use crate::roles::handoff::ConnectionId;
use crate::roles::receive::desk::Asked;
use crate::roles::receive::stream::Stream;
use crate::runtime::Now;
use crate::wire::frame::VERSION_LOWEST;

/// Bytes that are read and dropped of a refused connection in all: of one that was never served or broke the protocol, some of the largest first frames.
pub const DROPPED_MAX: u64 = 64 << 10;
/// Of a publisher that kept to the protocol, whatever it may have under way when it is told.
pub const DROPPED_OF_STREAM_MAX: u64 = 64 << 20;

/// What a connection is doing.
pub enum Phase {
    /// Reading the hello, or a request: header, then the padded body.
    Hello {
        /// The header, once it is complete and checked.
        header: Option<[u8; 64]>,
        /// Whether requests were answered before: then only another, or a goodbye, may come.
        is_control: bool,
    },
    /// Its request waits for the sequencer. Nothing is there only while it is looked at.
    Asking(Option<Box<Asked>>),
    /// The reply to its request is being sent.
    Replying,
    /// Sending batches.
    Streaming(Box<Stream>),
    /// The last word is being said, or the ack core is letting go; nothing more is read.
    Ending {
        /// Whether the peer may still be reading what was said last.
        linger: bool,
    },
    /// Everything was said: what the peer still sends is read and dropped, so that the word is not lost to a reset.
    Lingering,
}

/// One connection.
pub struct Connection<S> {
    /// Its socket.
    pub socket: S,
    /// Its place among the connections of its address; nothing once it was handed on.
    pub admission: Option<Admission>,
    /// The address that its session counts for, if it opened one.
    pub opened_for: Option<Address>,
    /// It is not heard before then, ns: others of its address come first.
    pub turn_ns: u64,
    /// Its place and generation.
    pub id: ConnectionId,
    /// What it is doing.
    pub phase: Phase,
    /// Protocol version of what it is told.
    pub version: u8,
    /// It is heard at least this often, ms; 0: it does not promise that.
    pub heartbeat_ms: u32,
    /// When something came, ns.
    pub heard_ns: u64,
    /// The operation that reads from it, or waits until it can be read.
    pub reading: Option<Operation>,
    /// Whether that operation was asked to end.
    pub cancelling: bool,
    /// Whether the ack core knows it, and writes to it.
    pub with_ack: bool,
    /// Whether words of ours are on their way to it.
    pub is_writing: bool,
    /// Whether it was shut down because its peer did not take what was said last.
    pub is_cut: bool,
    /// Bytes that are still read and dropped after it was told the last word.
    pub drops_left: u64,
    /// When it last got on, ns.
    pub active_ns: u64,
    /// When the sequencer was last told that its session is connected, ns.
    pub said_ns: u64,
    /// Whether it waits for ring slots or extents.
    pub is_blocked: bool,
}

impl<S> Connection<S> {
    /// One that was just accepted.
    pub fn new(id: ConnectionId, socket: S, admission: Option<Admission>, now: Now) -> Connection<S> {
        Connection {
            socket,
            admission,
            opened_for: None,
            turn_ns: 0,
            id,
            phase: Phase::Hello { header: None, is_control: false },
            version: VERSION_LOWEST,
            heartbeat_ms: 0,
            heard_ns: now.monotonic_ns,
            reading: None,
            cancelling: false,
            with_ack: false,
            is_writing: false,
            is_cut: false,
            drops_left: DROPPED_MAX,
            active_ns: now.monotonic_ns,
            said_ns: now.monotonic_ns,
            is_blocked: false,
        }
    }

    /// Whether neither the kernel nor the ack core uses its socket.
    pub fn is_unused(&self) -> bool {
        self.reading.is_none() && !self.is_writing && !self.with_ack
    }

    /// The address that things of it are counted for.
    pub fn address(&self) -> Address {
        self.admission.as_ref().map_or(Address::OTHERS, |admission| admission.address)
    }

    /// Its stream, if it is a publisher's that still sends.
    pub fn streaming(&mut self) -> Option<&mut Stream> {
        match &mut self.phase {
            Phase::Streaming(stream) => Some(stream),
            _ => None,
        }
    }
}
