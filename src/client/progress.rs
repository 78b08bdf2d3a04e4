//! What a publisher tells about itself.

use std::fmt::Write as _;
use std::ops::AddAssign;
use std::time::Instant;

use crate::client::numbers::{BatchSeq, Order};

/// A batch that is done: acked, or at ack level 0 wholly written to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckedBatch {
    /// Number of the batch in this publisher, from 0, in the order of sealing; at level 5 its number in the publisher's first session.
    pub batch_seq: BatchSeq,
    /// Number of its first message in this publisher, from 0.
    pub first_message: u64,
    /// Messages in it.
    pub messages: u32,
    /// Bytes of its payloads, without headers and padding.
    pub bytes: u64,
    /// When it was sealed.
    pub sealed_at: Instant,
    /// Total order just past the last message that the same ack covers: exact for the last batch of an ack, a bound for
    /// the others. 0 at order level 0 and at ack level 0.
    pub order_end: Order,
}

/// Called for every batch that is done.
pub(crate) type OnAcked = Box<dyn FnMut(AckedBatch) + Send>;

/// What went to one broker and came back from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerProgress {
    /// Id of the broker in its pool; [`UNKNOWN_BROKER`]: an address that was given, at which nobody has answered yet.
    pub broker: u16,
    /// `host:port`.
    pub address: String,
    /// Messages in batches wholly written to its sockets, resent ones each time.
    pub sent: u64,
    /// Messages acked that came in through it; at ack level 0 the same as `sent`.
    pub acked: u64,
    /// Whether any connection to it is live.
    pub connected: bool,
}

/// No broker's id.
pub const UNKNOWN_BROKER: u16 = u16::MAX;

impl BrokerProgress {
    /// Nothing went to it yet.
    pub(crate) fn none(broker: u16, address: String) -> BrokerProgress {
        BrokerProgress { broker, address, sent: 0, acked: 0, connected: false }
    }
}

/// What should be rare, counted since the publisher was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Batches that were given to a socket's queue again, for whatever reason.
    pub resent_batches: u64,
    /// Times a broker said that batches were let go.
    pub let_go: u64,
    /// Times the session was fenced and reopened.
    pub fences: u64,
    /// Connections reopened after they broke.
    pub reconnects: u64,
    /// Times the session was gone, with nothing in doubt, and another one was opened.
    pub new_sessions: u64,
    /// Attached: times a batch found the ring of its lane full.
    pub ring_full: u64,
    /// Attached: times a batch found no memory free.
    pub memory_full: u64,
}

impl AddAssign for PublisherStats {
    fn add_assign(&mut self, other: PublisherStats) {
        let PublisherStats { resent_batches, let_go, fences, reconnects, new_sessions, ring_full, memory_full } = other;
        self.resent_batches += resent_batches;
        self.let_go += let_go;
        self.fences += fences;
        self.reconnects += reconnects;
        self.new_sessions += new_sessions;
        self.ring_full += ring_full;
        self.memory_full += memory_full;
    }
}

/// `Waiting for ACKs: [B0=986828, B1=986828] total=1973656/10485760`
pub(crate) fn line(brokers: &[BrokerProgress], acked: u64, total: u64) -> String {
    let mut line = String::from("Waiting for ACKs: [");
    for (index, broker) in brokers.iter().filter(|broker| broker.broker != UNKNOWN_BROKER).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(line, "{comma}B{}={}", broker.broker, broker.acked);
    }
    let _ = write!(line, "] total={acked}/{total}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_users_know() {
        let broker = |broker, acked| BrokerProgress { broker, address: String::new(), sent: 0, acked, connected: true };
        let brokers = [broker(0, 986828), broker(1, 986828), broker(2, 986828), broker(3, 0)];
        let wanted = "Waiting for ACKs: [B0=986828, B1=986828, B2=986828, B3=0] total=2960484/10485760";
        assert_eq!(line(&brokers, 2960484, 10485760), wanted);
        assert_eq!(line(&[], 0, 1), "Waiting for ACKs: [] total=0/1");
        assert_eq!(line(&[broker(UNKNOWN_BROKER, 0), broker(1, 7)], 7, 9), "Waiting for ACKs: [B1=7] total=7/9");
    }
}
