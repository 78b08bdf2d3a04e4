//! What a subscriber hands on: batches as they lie in the receive buffer, and copies of them for iterators.

use crate::client::numbers::{BatchSeq, Order, Position, SessionId};
use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::BatchHeader;
use crate::wire::message::{Message, Messages};

/// One batch, in order, as handed to the handler of [`Subscriber::poll`](crate::client::Subscriber::poll).
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Place of its topic in the subscription.
    pub place: usize,
    /// Total order, in its topic, of the batch's first message, whether or not it is below the start.
    pub first_order: Order,
    /// Position of the batch in the pool's order index: ascends over all topics.
    pub position: Position,
    /// Session that published it.
    pub session: SessionId,
    /// Epoch of that session.
    pub session_epoch: u32,
    /// Its number in that session.
    pub batch_seq: BatchSeq,
    /// Messages in it.
    pub message_count: u32,
    /// Broker's clock when the batch was complete in the blog, UTC ns.
    pub received_at: u64,
    /// Publisher's clock when it was sealed, UTC ns.
    pub created_at: u64,
    /// Messages of a lower order were not asked for.
    pub(super) start_order: u64,
    pub(super) body: &'a [u8],
}

/// Where a batch was found.
pub(super) struct Found {
    /// Place of its topic in the subscription.
    pub place: usize,
    /// Position in the order index.
    pub position: u64,
    /// Order of its first message.
    pub first_order: u64,
    /// Messages of a lower order were not asked for.
    pub start_order: u64,
}

impl<'a> Delivered<'a> {
    /// A whole batch, header and all, as it is handed on.
    pub(super) fn new(topic: &'a str, found: Found, header: &BatchHeader, frame: &'a [u8]) -> Delivered<'a> {
        let Found { place, position, first_order, start_order } = found;
        Delivered {
            topic,
            place,
            first_order: Order(first_order),
            position: Position(position),
            session: SessionId(header.session),
            session_epoch: header.session_epoch,
            batch_seq: BatchSeq(header.batch_seq),
            message_count: header.message_count,
            received_at: header.received_at,
            created_at: header.created_at,
            start_order,
            body: &frame[FRAME_HEADER_BYTES..][..header.body_bytes as usize],
        }
    }

    /// Its messages with their total order, those below the subscriber's start left out.
    pub fn messages(&self) -> impl Iterator<Item = (Order, Message<'a>)> + use<'a> {
        messages(self.body, self.first_order, self.start_order)
    }

    /// A copy that outlives the receive buffer.
    pub fn to_owned(&self) -> OwnedBatch {
        OwnedBatch {
            topic: self.topic.to_owned(),
            place: self.place,
            first_order: self.first_order,
            position: self.position,
            session: self.session,
            batch_seq: self.batch_seq,
            received_at: self.received_at,
            start_order: self.start_order,
            body: self.body.into(),
        }
    }
}

fn messages(body: &[u8], first_order: Order, start_order: u64) -> impl Iterator<Item = (Order, Message<'_>)> {
    let orders = (first_order.0..).map(Order);
    orders.zip(Messages::new(body)).skip_while(move |(order, _)| order.0 < start_order)
}

/// What comes to a subscriber.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A batch.
    Batch(Delivered<'a>),
    /// Messages were given up: the subscriber was too slow and asked for
    /// [`Skip`](crate::client::SlowReaderPolicy::Skip). Orders are not dense exactly here.
    Skipped {
        /// The topic.
        topic: &'a str,
        /// Its place in the subscription.
        place: usize,
        /// Order of the first message given up.
        from: Order,
        /// Order of the next message to come.
        next_order: Order,
    },
}

/// A batch of its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedBatch {
    /// Its topic.
    pub topic: String,
    /// Place of its topic in the subscription.
    pub place: usize,
    /// Total order, in its topic, of the batch's first message, whether or not it is below the start.
    pub first_order: Order,
    /// Position of the batch in the pool's order index.
    pub position: Position,
    /// Session that published it.
    pub session: SessionId,
    /// Its number in that session.
    pub batch_seq: BatchSeq,
    /// Broker's clock when the batch was complete in the blog, UTC ns.
    pub received_at: u64,
    start_order: u64,
    body: Box<[u8]>,
}

impl OwnedBatch {
    /// Its messages with their total order, those below the subscriber's start left out.
    pub fn messages(&self) -> impl Iterator<Item = (Order, Message<'_>)> {
        messages(&self.body, self.first_order, self.start_order)
    }
}

/// An item of [`Subscriber::batches`](crate::client::Subscriber::batches).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedEvent {
    /// A batch.
    Batch(OwnedBatch),
    /// As [`Event::Skipped`].
    Skipped {
        /// Place of the topic in the subscription.
        place: usize,
        /// Order of the first message given up.
        from: Order,
        /// Order of the next message to come.
        next_order: Order,
    },
}
