//! One connection of a receive core: what it is doing, and what it holds.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use crate::log::blog::Run;
use crate::net::Operation;
use crate::roles::addresses::{Address, Seat};
use crate::roles::handoff::ConnectionId;
use crate::roles::receive::requests::Asked;
use crate::wire::{BatchDecoder, Receipts};

/// Room that makes a receive worth its system call, bytes.
const RECEIVE_WORTH_BYTES: u64 = 4096;

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
    /// The ack core sends the reply to its request.
    Replying,
    /// Sending batches.
    Streaming(Box<Stream>),
    /// The ack core has the last word, or is letting go; nothing more is read.
    Ending {
        /// Whether the peer may still be reading what was said last.
        linger: bool,
    },
    /// Everything was said: what the peer still sends is read and dropped, so that the word is not lost to a reset.
    Lingering,
}

/// A publisher's stream.
pub struct Stream {
    /// Session its batches must name; 0: it was asked for, and nothing is read before it is told.
    pub session: u64,
    /// The slot that asked for it, if this connection did.
    pub asked_slot: u64,
    /// Session epoch they must name.
    pub session_epoch: u32,
    /// Topic they must name.
    pub topic: u32,
    /// Where receipts are stamped.
    pub receipts: Receipts,
    /// Below order level 5: number the next batch must have.
    pub next_seq: Option<u64>,
    /// Whether landed batches are counted for the ack core (order level 0).
    pub counts_landed: bool,
    /// Batches published.
    pub published: u64,
    /// Where its bytes land.
    pub run: Option<Run>,
    /// Bytes of the run received.
    pub landed: u64,
    /// Bytes of the run published: where the frame under way begins.
    pub parsed: u64,
    /// Slot just past the last batch published from the run; 0 if there is none.
    pub end_slot: u64,
    /// The frame under way.
    pub decoder: BatchDecoder,
    /// Bytes the frame under way needs in all, as far as known.
    pub needed: u64,
    /// Length of its next run: grows while it proves busy.
    pub run_bytes: u64,
}

impl Stream {
    /// Less room than this at a run's end is not worth a receive.
    pub fn worth_a_receive(&self) -> u64 {
        // What is missing of a frame whose length is known is always worth it.
        let missing = self.needed.saturating_sub(self.landed - self.parsed);
        missing.clamp(1, RECEIVE_WORTH_BYTES)
    }

    /// Whether part of a frame has landed.
    pub fn is_in_mid_frame(&self) -> bool {
        self.landed > self.parsed
    }
}

/// One connection.
pub struct Connection {
    /// Its socket.
    pub stream: TcpStream,
    /// Its place among the connections of its address; nothing once it was handed on.
    pub seat: Option<Seat>,
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
    /// Its stream after it ended, while a receive is still armed in its run.
    pub leaving: Option<Box<Stream>>,
    /// Whether the ack core knows it.
    pub with_ack: bool,
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

impl Connection {
    /// Its descriptor.
    pub fn socket(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// The address that things of it are counted for.
    pub fn address(&self) -> Address {
        self.seat.as_ref().map_or(Address::OTHERS, |seat| seat.address)
    }

    /// Its stream, if it is a publisher's that still sends.
    pub fn streaming(&mut self) -> Option<&mut Stream> {
        match &mut self.phase {
            Phase::Streaming(stream) => Some(stream),
            _ => None,
        }
    }
}
