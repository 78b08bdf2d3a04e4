//! What the roles of one broker hand each other: connections, words to say on them, and how far level-0 streams have landed.
//!
//! Bounded queues; each end takes what it can and keeps the rest. A publisher's socket is read by its receive core and
//! written, from its Welcome on, by the ack core only. The receive core owns it, and closes it after the ack core has said it is done.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::log::reader::TopicStart;
use crate::order::Origin;
use crate::roles::addresses::Admission;
use crate::wire::{AckLevel, OrderLevel, SlowReader, StartAt};

/// A connection of one receive core: place and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Place in the receive core's table.
    pub seat: u32,
    /// Which connection of that place.
    pub generation: u32,
}

/// A publisher connection whose hello was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment<H> {
    /// Its socket, open until the ack core releases it.
    pub socket: H,
    /// Its session; 0: the one that was asked for.
    pub session: u64,
    /// Where that session, or the next epoch of it, was asked for; nothing if it is joined.
    pub asked: Option<Origin>,
    /// The session epoch it goes by.
    pub session_epoch: u32,
    /// Topic id.
    pub topic: u32,
    /// Order level of the topic.
    pub order: OrderLevel,
    /// Ack level granted.
    pub ack: AckLevel,
    /// Whether the peer is on this machine's loopback.
    pub is_loopback: bool,
    /// Protocol version in use.
    pub version: u8,
    /// It is promised a heartbeat in so many of the broker's.
    pub in_heartbeats: u16,
}

/// From a receive core to the ack core.
#[derive(Debug)]
pub enum ToAck<H> {
    /// Welcome it when its session is open, then ack.
    Attach(ConnectionId, Attachment<H>),
    /// Say these bytes to one that was attached and nothing more, then release the socket.
    Say(ConnectionId, Box<[u8]>),
    /// The peer is gone: release the socket.
    Close(ConnectionId),
}

/// From the ack core to a receive core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromAck {
    /// The session that was asked for is open, and this is its id: its batches may be read.
    Opened(ConnectionId, u64),
    /// Nothing is being or will be sent on it.
    Released(ConnectionId),
    /// Sending failed, or the conversation was refused: close it.
    Failed(ConnectionId),
}

/// The two queues and the landed counts between one receive core and its broker's ack core.
pub struct AckLink<H> {
    /// To the ack core.
    pub to_ack: ArrayQueue<ToAck<H>>,
    /// To the receive core.
    pub from_ack: ArrayQueue<FromAck>,
    /// Per connection of order level 0: batches that are in the blog.
    landed: Vec<AtomicU64>,
}

impl<H> AckLink<H> {
    /// For at most `connections` connections. The queues hold everything these can have under way: an attach, a word and a
    /// close each, and an opening, a failure and a release each, so a push never fails.
    pub fn new(connections: u32) -> Arc<AckLink<H>> {
        Arc::new(AckLink {
            to_ack: ArrayQueue::new(4 * connections as usize),
            from_ack: ArrayQueue::new(4 * connections as usize),
            landed: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Sends to the ack core.
    pub fn tell_ack(&self, message: ToAck<H>) {
        assert!(self.to_ack.push(message).is_ok(), "the queue holds all that its connections can have under way");
    }

    /// Sends to the receive core.
    pub fn tell_receive(&self, message: FromAck) {
        assert!(self.from_ack.push(message).is_ok(), "the queue holds all that its connections can have under way");
    }

    /// Notes how many batches of a level-0 connection are in the blog.
    #[inline]
    pub fn set_landed(&self, seat: u32, batches: u64) {
        // Release: pairs with the Acquire of `landed`; an ack says the bytes are in the blog.
        self.landed[seat as usize].store(batches, Ordering::Release);
    }

    /// Batches of a level-0 connection that are in the blog.
    #[inline]
    pub fn landed(&self, seat: u32) -> u64 {
        self.landed[seat as usize].load(Ordering::Acquire)
    }
}

/// A subscriber whose hello was read by a receive core.
#[derive(Debug)]
pub struct Subscription<S> {
    /// The connection.
    pub socket: S,
    /// What it subscribes to, in the hello's order, each topic once.
    pub topics: Box<[SubscribedTopic]>,
    /// What becomes of it if it is too slow.
    pub slow_reader: SlowReader,
    /// It is waited for up to this lag, bytes; 0 as the broker is configured.
    pub lag_bytes: u64,
    /// Protocol version in use.
    pub version: u8,
    /// It is heard at least this often, ms; 0: it does not promise that.
    pub heartbeat_ms: u32,
    /// It is promised a heartbeat in so many of the broker's.
    pub in_heartbeats: u16,
    /// Its place among the connections of its address.
    pub admission: Option<Admission>,
}

/// A topic of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribedTopic {
    /// Topic id.
    pub topic: u32,
    /// Index position of its creation: which of the topics that had the id.
    pub created_position: u64,
    /// Order level of the topic.
    pub order: OrderLevel,
    /// Where it wants to start.
    pub start: StartAt,
}

impl SubscribedTopic {
    /// As its reader wants it.
    pub fn start_at(&self) -> TopicStart {
        TopicStart { topic: self.topic, created_position: self.created_position, start: self.start }
    }
}

/// Subscribers on their way to the exporter. When it is full, the receive core refuses.
pub type Subscriptions<S> = ArrayQueue<Subscription<S>>;

/// Whether an address is this machine's loopback.
pub fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_loopback(),
        IpAddr::V6(six) => six.is_loopback() || six.to_ipv4_mapped().is_some_and(|four| four.is_loopback()),
    }
}
