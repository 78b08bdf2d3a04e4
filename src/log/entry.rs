//! Events of the order core as entries of the order index, and back.
//!
//! The way back is [`to_sound_event`] for everybody who follows the index: an entry has no checksum, so each of its fields is held
//! against the geometry. [`check_batch`] and [`check_spec`] are the part of it that the sequencer asks of what a lane presents:
//! it appends nothing that a follower would not take.

use crate::limits::{BATCH_MESSAGES_MAX, LINE_BYTES};
use crate::log::cursors::CURSOR_SPEC_BYTES;
use crate::log::damage::{Expected, FieldFault, count, exactly, place, within, within_steps};
use crate::log::order_index::IndexFault;
use crate::log::topics::SPEC_BYTES;
use crate::order::table::{SESSION_LEVEL, State};
use crate::order::{Arrival, Event, Origin, SessionTable};
use crate::pool::Layout;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::wire::OrderLevel;

/// The entry an event becomes. Its epoch is filled in by the index writer.
#[inline(always)]
pub fn to_entry(event: &Event) -> IndexEntry {
    let blank = IndexEntry::default();
    match *event {
        Event::Batch { slot, arrival, first_order } => IndexEntry {
            kind: entry_kind::BATCH,
            lane: arrival.lane,
            session_slot: slot,
            session_epoch: arrival.session_epoch,
            batch_seq: arrival.batch_seq,
            first_order,
            place: IndexEntry::pack_place(arrival.blog_at, arrival.topic),
            batch_bytes: arrival.batch_bytes,
            message_count: arrival.message_count,
            lane_slot: arrival.lane_slot,
            ..blank
        },
        Event::Open { slot, session, session_epoch, topic, order_level, next_batch, origin } => IndexEntry {
            kind: entry_kind::SESSION_OPEN,
            flags: order_level,
            lane: origin.lane,
            lane_slot: origin.slot,
            session_slot: slot,
            session_epoch,
            batch_seq: next_batch,
            first_order: session,
            place: IndexEntry::pack_place(0, topic),
            ..blank
        },
        Event::Refused { code, origin } => IndexEntry {
            kind: entry_kind::SESSION_REFUSED,
            flags: code,
            lane: origin.lane,
            lane_slot: origin.slot,
            ..blank
        },
        Event::Close { slot } => IndexEntry { kind: entry_kind::SESSION_CLOSE, session_slot: slot, ..blank },
        Event::Fence { slot, session_epoch, next_batch } => IndexEntry {
            kind: entry_kind::SESSION_FENCE,
            session_slot: slot,
            session_epoch,
            batch_seq: next_batch,
            ..blank
        },
        Event::LetGo { slot, session_epoch, from } => {
            IndexEntry { kind: entry_kind::LET_GO, session_slot: slot, session_epoch, batch_seq: from, ..blank }
        }
        Event::Topic { topic, order_level, lane, lane_slot, blog_at } => IndexEntry {
            kind: entry_kind::TOPIC_CREATE,
            flags: order_level,
            lane,
            place: IndexEntry::pack_place(blog_at, topic),
            lane_slot,
            ..blank
        },
        Event::TopicDeleted { topic, lane, lane_slot } => IndexEntry {
            kind: entry_kind::TOPIC_DELETE,
            lane,
            place: IndexEntry::pack_place(0, topic),
            lane_slot,
            ..blank
        },
        Event::CursorSet { place, topic, order, lane, lane_slot, blog_at } => IndexEntry {
            kind: entry_kind::CURSOR_SET,
            lane,
            session_slot: place,
            first_order: order,
            place: IndexEntry::pack_place(blog_at, topic),
            lane_slot,
            ..blank
        },
        Event::CursorDelete { place, lane, lane_slot } => {
            IndexEntry { kind: entry_kind::CURSOR_DELETE, lane, session_slot: place, lane_slot, ..blank }
        }
        Event::Granted { extent, lane, number } => {
            IndexEntry { kind: entry_kind::GRANT, lane, first_order: extent.into(), lane_slot: number, ..blank }
        }
        Event::ExtentClosed { extent, lane, lane_slot } => {
            IndexEntry { kind: entry_kind::EXTENT_CLOSE, lane, first_order: extent.into(), lane_slot, ..blank }
        }
    }
}

/// The event an entry stands for. The session id of a batch is not in its entry: it is that of its slot, and 0 here. `None`: a
/// kind this version does not define.
pub(crate) fn to_event(entry: &IndexEntry) -> Option<Event> {
    let slot = entry.session_slot;
    let origin = Origin { lane: entry.lane, slot: entry.lane_slot };
    Some(match entry.kind {
        entry_kind::BATCH => Event::Batch {
            slot,
            first_order: entry.first_order,
            arrival: Arrival {
                received_at: 0,
                landing_ns: 0,
                lane: entry.lane,
                lane_slot: entry.lane_slot,
                topic: entry.topic(),
                session: 0,
                session_epoch: entry.session_epoch,
                batch_seq: entry.batch_seq,
                message_count: entry.message_count,
                batch_bytes: entry.batch_bytes,
                blog_at: entry.blog_at(),
            },
        },
        entry_kind::SESSION_OPEN => Event::Open {
            slot,
            session: entry.first_order,
            session_epoch: entry.session_epoch,
            topic: entry.topic(),
            order_level: entry.flags,
            next_batch: entry.batch_seq,
            origin,
        },
        entry_kind::SESSION_REFUSED => Event::Refused { code: entry.flags, origin },
        entry_kind::SESSION_CLOSE => Event::Close { slot },
        entry_kind::SESSION_FENCE => {
            Event::Fence { slot, session_epoch: entry.session_epoch, next_batch: entry.batch_seq }
        }
        entry_kind::LET_GO => Event::LetGo { slot, session_epoch: entry.session_epoch, from: entry.batch_seq },
        entry_kind::TOPIC_CREATE => Event::Topic {
            topic: entry.topic(),
            order_level: entry.flags,
            lane: entry.lane,
            lane_slot: entry.lane_slot,
            blog_at: entry.blog_at(),
        },
        entry_kind::TOPIC_DELETE => {
            Event::TopicDeleted { topic: entry.topic(), lane: entry.lane, lane_slot: entry.lane_slot }
        }
        entry_kind::CURSOR_SET => Event::CursorSet {
            place: slot,
            topic: entry.topic(),
            order: entry.first_order,
            lane: entry.lane,
            lane_slot: entry.lane_slot,
            blog_at: entry.blog_at(),
        },
        entry_kind::CURSOR_DELETE => Event::CursorDelete { place: slot, lane: entry.lane, lane_slot: entry.lane_slot },
        // An extent that no layout has room for is no extent of this one.
        entry_kind::GRANT => Event::Granted {
            extent: u32::try_from(entry.first_order).unwrap_or(u32::MAX),
            lane: entry.lane,
            number: entry.lane_slot,
        },
        entry_kind::EXTENT_CLOSE => Event::ExtentClosed {
            extent: u32::try_from(entry.first_order).unwrap_or(u32::MAX),
            lane: entry.lane,
            lane_slot: entry.lane_slot,
        },
        _ => return None,
    })
}

/// The event that the entry at `position` stands for, if everything it names is there and no count overflows.
///
/// # Errors
/// [`IndexFault::Damaged`] with the first field that cannot be.
pub fn to_sound_event(position: u64, entry: &IndexEntry, layout: &Layout) -> Result<Event, IndexFault> {
    let damaged = |fault| IndexFault::Damaged { position, fault };
    let expected = Expected::Told("a kind of entry that this version defines");
    let unknown = FieldFault { field: "kind", found: entry.kind.into(), expected };
    let event = to_event(entry).ok_or(damaged(unknown))?;
    check(&event, layout).map_err(damaged)?;
    if let Event::Open { session, session_epoch, .. } = event {
        check_id(position, session, session_epoch).map_err(damaged)?;
    }
    Ok(event)
}

/// The id of the session whose opening entry gets this position. Positions are given once, so no two sessions of a log have one id; it
/// is never 0, which stands for none.
pub fn session_id(position: u64) -> u64 {
    position + 1
}

/// The number of the grant whose entry gets this position; it is never 0, which stands for what a pool is formatted with.
pub fn grant_number(position: u64) -> u64 {
    position + 1
}

/// What opens a session has the id of its position, what reopens one an id from before.
fn check_id(position: u64, session: u64, session_epoch: u32) -> Result<(), FieldFault> {
    match session_epoch {
        0 | 1 => exactly("first_order", session, session_id(position)),
        _ => within("first_order", session, 1, position),
    }
}

fn check(event: &Event, layout: &Layout) -> Result<(), FieldFault> {
    let is_slot = |slot: u32| place("session_slot", slot.into(), layout.geometry.sessions_max.into());
    let is_topic = |topic: u32| place("topic", topic.into(), layout.geometry.topics_max.into());
    let is_cursor = |cursor: u32| place("cursor", cursor.into(), layout.geometry.cursors_max.into());
    match *event {
        Event::Batch { slot, ref arrival, first_order } => {
            is_slot(slot)?;
            is_topic(arrival.topic)?;
            check_batch(arrival, layout)?;
            count("first_order", first_order)
        }
        Event::Open { slot, topic, order_level, next_batch, origin, .. } => {
            check_lane(origin.lane, origin.slot, layout)?;
            is_slot(slot)?;
            is_topic(topic)?;
            is_level(order_level)?;
            count("batch_seq", next_batch)
        }
        Event::Fence { slot, next_batch: batch_seq, .. } | Event::LetGo { slot, from: batch_seq, .. } => {
            is_slot(slot)?;
            count("batch_seq", batch_seq)
        }
        Event::Close { slot } => is_slot(slot),
        Event::Topic { topic, order_level, lane, lane_slot, blog_at } => {
            is_topic(topic)?;
            is_level(order_level)?;
            check_spec(lane, lane_slot, blog_at, layout)
        }
        Event::TopicDeleted { topic, lane, lane_slot } => {
            is_topic(topic)?;
            check_lane(lane, lane_slot, layout)
        }
        Event::CursorSet { place, topic, order, lane, lane_slot, blog_at } => {
            is_cursor(place)?;
            is_topic(topic)?;
            count("first_order", order)?;
            check_cursor(lane, lane_slot, blog_at, layout)
        }
        Event::CursorDelete { place, lane, lane_slot } => {
            is_cursor(place)?;
            check_lane(lane, lane_slot, layout)
        }
        Event::Refused { origin, .. } => check_lane(origin.lane, origin.slot, layout),
        Event::Granted { extent, lane, number: count } | Event::ExtentClosed { extent, lane, lane_slot: count } => {
            check_lane(lane, count, layout)?;
            place("extent", extent.into(), layout.geometry.extents.into())
        }
    }
}

fn is_level(level: u8) -> Result<(), FieldFault> {
    let told = |_| FieldFault { field: "flags", found: level.into(), expected: Expected::Told("an order level") };
    OrderLevel::from_byte(level).map(|_| ()).map_err(told)
}

/// What a batch says of itself can be: it lies in one extent, and its numbers are in their bounds.
#[inline]
pub fn check_batch(arrival: &Arrival, layout: &Layout) -> Result<(), FieldFault> {
    let most = layout.geometry.batch_bytes_max();
    within_steps("batch_bytes", arrival.batch_bytes.into(), LINE_BYTES, most, LINE_BYTES)?;
    within("message_count", arrival.message_count.into(), 1, BATCH_MESSAGES_MAX.into())?;
    count("batch_seq", arrival.batch_seq)?;
    check_place(arrival.lane, arrival.lane_slot, arrival.blog_at, arrival.batch_bytes.into(), layout)
}

/// A topic specification lies in one extent.
pub fn check_spec(lane: u16, lane_slot: u64, blog_at: u64, layout: &Layout) -> Result<(), FieldFault> {
    check_place(lane, lane_slot, blog_at, SPEC_BYTES, layout)
}

/// A request about a cursor lies in one extent.
pub fn check_cursor(lane: u16, lane_slot: u64, blog_at: u64, layout: &Layout) -> Result<(), FieldFault> {
    check_place(lane, lane_slot, blog_at, CURSOR_SPEC_BYTES, layout)
}

#[inline]
fn check_lane(lane: u16, lane_slot: u64, layout: &Layout) -> Result<(), FieldFault> {
    place("lane", lane.into(), layout.geometry.lanes().into())?;
    count("lane_slot", lane_slot)
}

/// A lane exists, and `bytes` from `blog_at` on lie in one extent.
#[inline]
fn check_place(lane: u16, lane_slot: u64, blog_at: u64, bytes: u64, layout: &Layout) -> Result<(), FieldFault> {
    let g = &layout.geometry;
    check_lane(lane, lane_slot, layout)?;
    let first = layout.extent(0);
    within_steps("blog_at", blog_at, first, first + layout.blog_bytes() - bytes, LINE_BYTES)?;
    let within_extent = (blog_at - first) & (g.extent_bytes - 1);
    let begin = blog_at - within_extent;
    within("blog_at", blog_at, begin, begin + g.extent_bytes - bytes)
}

/// A sound event can follow the fold of all before it.
pub fn check_fold(event: &Event, table: &SessionTable) -> Result<(), FieldFault> {
    match *event {
        Event::Batch { slot, ref arrival, first_order } => {
            check_order(arrival.topic, first_order, table)?;
            let session = table.session(slot);
            exactly("state of its session", session.state as u64, State::Open as u64)?;
            exactly("session_epoch", arrival.session_epoch.into(), session.epoch.into())?;
            exactly("topic", arrival.topic.into(), session.topic.into())?;
            if session.order_level < SESSION_LEVEL {
                return Ok(());
            }
            exactly("batch_seq", arrival.batch_seq, session.next_batch)
        }
        Event::Open { topic, .. } | Event::TopicDeleted { topic, .. } | Event::CursorSet { topic, .. }
            if table.topic(topic).is_none() =>
        {
            Err(absent_topic(topic))
        }
        Event::Fence { slot, session_epoch, .. } => {
            exactly("session_epoch", session_epoch.into(), table.session(slot).epoch.into())
        }
        Event::Topic { topic, .. } if table.topic(topic).is_some() => {
            let expected = Expected::Told("a number that no topic has");
            Err(FieldFault { field: "topic", found: topic.into(), expected })
        }
        Event::Topic { .. }
        | Event::TopicDeleted { .. }
        | Event::Open { .. }
        | Event::Close { .. }
        | Event::LetGo { .. }
        | Event::Refused { .. }
        | Event::CursorSet { .. }
        | Event::CursorDelete { .. }
        | Event::Granted { .. }
        | Event::ExtentClosed { .. } => Ok(()),
    }
}

/// A topic's order is dense: a batch begins where the one before it ended.
pub fn check_order(topic: u32, first_order: u64, table: &SessionTable) -> Result<(), FieldFault> {
    match table.topic(topic) {
        Some(known) => exactly("first_order", first_order, known.next_order),
        None => Err(absent_topic(topic)),
    }
}

/// A topic is named that nobody created.
pub fn absent_topic(topic: u32) -> FieldFault {
    FieldFault { field: "topic", found: topic.into(), expected: Expected::Told("a topic that was created before") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_index() {
        let arrival = Arrival {
            lane: 3,
            lane_slot: 1 << 40,
            topic: 7,
            session: 0,
            session_epoch: 2,
            batch_seq: 1 << 33,
            message_count: 9,
            batch_bytes: 1 << 20,
            blog_at: 64 << 30,
            received_at: 0,
            landing_ns: 0,
        };
        for event in [
            Event::Batch { slot: 5, arrival, first_order: u64::MAX / 2 },
            Event::Open {
                slot: 5,
                session: u64::MAX,
                session_epoch: 2,
                topic: 7,
                order_level: 5,
                next_batch: 1 << 33,
                origin: Origin { lane: 3, slot: 1 << 41 },
            },
            Event::Refused { code: 5, origin: Origin { lane: 3, slot: 9 } },
            Event::Close { slot: 5 },
            Event::Fence { slot: 5, session_epoch: 2, next_batch: 3 },
            Event::LetGo { slot: 5, session_epoch: 2, from: 9 },
            Event::Topic { topic: 7, order_level: 4, lane: 3, lane_slot: 8, blog_at: 4096 },
            Event::TopicDeleted { topic: 7, lane: 3, lane_slot: 8 },
            Event::CursorSet { place: 9, topic: 7, order: 1 << 50, lane: 3, lane_slot: 8, blog_at: 4096 },
            Event::CursorDelete { place: 9, lane: 3, lane_slot: 9 },
        ] {
            assert_eq!(to_event(&to_entry(&event)), Some(event));
        }
        assert_eq!(to_event(&IndexEntry { kind: 99, ..IndexEntry::default() }), None);
    }
}
