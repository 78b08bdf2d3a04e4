//! Events of the order core as entries of the order index, and back.

use crate::order::{Arrival, Event};
use crate::pool::record::{IndexEntry, entry_kind};

/// The entry an event becomes. Its epoch is filled in by the index writer.
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
        Event::Open { slot, session, session_epoch, topic, order_level, next_batch } => IndexEntry {
            kind: entry_kind::SESSION_OPEN,
            flags: order_level,
            session_slot: slot,
            session_epoch,
            batch_seq: next_batch,
            first_order: session,
            place: IndexEntry::pack_place(0, topic),
            ..blank
        },
        Event::Refused { session, code } => {
            IndexEntry { kind: entry_kind::SESSION_REFUSED, flags: code, first_order: session, ..blank }
        }
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
    }
}

/// The event an entry stands for. The session id of a batch is not in its entry: it is that of its slot, and 0 here. `None`: a
/// kind this version does not define.
pub fn to_event(entry: &IndexEntry) -> Option<Event> {
    let slot = entry.session_slot;
    Some(match entry.kind {
        entry_kind::BATCH => Event::Batch {
            slot,
            first_order: entry.first_order,
            arrival: Arrival {
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
        },
        entry_kind::SESSION_REFUSED => Event::Refused { session: entry.first_order, code: entry.flags },
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
        _ => return None,
    })
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
        };
        for event in [
            Event::Batch { slot: 5, arrival, first_order: u64::MAX / 2 },
            Event::Open { slot: 5, session: u64::MAX, session_epoch: 2, topic: 7, order_level: 5, next_batch: 1 << 33 },
            Event::Refused { session: 8, code: 5 },
            Event::Close { slot: 5 },
            Event::Fence { slot: 5, session_epoch: 2, next_batch: 3 },
            Event::LetGo { slot: 5, session_epoch: 2, from: 9 },
            Event::Topic { topic: 7, order_level: 4, lane: 3, lane_slot: 8, blog_at: 4096 },
            Event::TopicDeleted { topic: 7, lane: 3, lane_slot: 8 },
        ] {
            assert_eq!(to_event(&to_entry(&event)), Some(event));
        }
        assert_eq!(to_event(&IndexEntry { kind: 99, ..IndexEntry::default() }), None);
    }
}
