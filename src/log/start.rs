//! What every subscription asks of the log, a broker's and an attached one's: whether it starts at a batch or at the tail, and the
//! header of the batch that an index entry names.

use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::order::Arrival;
use crate::pool::record::TopicProgress;
use crate::pool::{Access, Memory};
use crate::wire::StartAt;
use crate::wire::frame::BatchHeader;

/// What a batch, or the tail, says of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCheck {
    /// The first message wanted has this order: it is here.
    Here(u64),
    /// It comes later.
    Later,
    /// The order wanted is below the earliest there is.
    Gone {
        /// The order wanted.
        wanted: u64,
        /// The earliest there is.
        earliest: u64,
    },
}

/// Holds a batch against a start. `is_first`: no batch of the topic was seen before it. `received_at` is asked only if it matters.
///
/// # Errors
/// Those of `received_at`.
pub fn in_batch<E>(
    start: StartAt,
    batch: &Arrival,
    first_order: u64,
    is_first: bool,
    received_at: impl FnOnce() -> Result<u64, E>,
) -> Result<StartCheck, E> {
    let end = first_order + u64::from(batch.message_count);
    let (order, is_here) = match start {
        StartAt::Earliest => (first_order, true),
        StartAt::Latest => (first_order, false),
        StartAt::Timestamp(utc_ns) => (first_order, received_at()? >= utc_ns),
        StartAt::Order(wanted) if wanted < first_order && is_first => {
            return Ok(StartCheck::Gone { wanted, earliest: first_order });
        }
        StartAt::Order(wanted) => (wanted, wanted < end),
    };
    Ok(if is_here { StartCheck::Here(order) } else { StartCheck::Later })
}

/// Holds the tail against a start that was not found: `next` is the order of the next message.
pub fn at_the_tail(start: StartAt, next: u64) -> StartCheck {
    match start {
        StartAt::Order(wanted) if wanted < next => StartCheck::Gone { wanted, earliest: next },
        StartAt::Order(wanted) => StartCheck::Here(wanted),
        StartAt::Earliest | StartAt::Latest | StartAt::Timestamp(_) => StartCheck::Here(next),
    }
}

/// Order of a topic's next message, everything committed up to `looked_to` having been looked at; `known_next` is from the last
/// entry of the topic that was seen. `None`: it cannot be said yet.
pub fn next_at_the_tail(known_next: Option<u64>, progress: Option<TopicProgress>, looked_to: u64) -> Option<u64> {
    // The checkpoint stands for a position that was looked at: between it and the tail the topic did not move.
    let stands = progress.filter(|progress| progress.position <= looked_to);
    known_next.or(stands.map(|progress| progress.next_order))
}

/// The header of the batch an entry names, `wanted` bytes of which may be read from now on. `None`: another batch lies there.
pub fn header<M: Memory>(view: &View<M>, batch: &Arrival, wanted: u64) -> Option<BatchHeader> {
    // Dropped after the entry was seen, before the first byte is read: another host wrote them.
    if view.access_to_lane(batch.lane.into()) == Access::Remote {
        view.memory.discard(batch.blog_at, wanted);
    }
    let header: BatchHeader = view.memory.with_bytes(batch.blog_at, LINE_BYTES, bytemuck::pod_read_unaligned);
    let same = header.batch_seq == batch.batch_seq
        && header.session_epoch == batch.session_epoch
        && header.message_count == batch.message_count
        && header.topic == batch.topic
        && header.frame_bytes() == u64::from(batch.batch_bytes);
    same.then_some(header)
}
