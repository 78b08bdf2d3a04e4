//! The lanes' slots: looked at, a window of each lane a pass, and taken in.

use super::append::append_to;
use super::{ActiveSequencer, EVENTS_EXTRA};
use crate::limits::HELD_PER_SESSION_MAX;
use crate::log::entry::check_batch;
use crate::log::lane::LaneReader;
use crate::order::{Arrival, Origin, Verdict};
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, slot_kind};

/// Slots of a lane that are looked up together.
const AHEAD: usize = 8;
/// Events of one arrival at most.
const EVENTS_MAX: u64 = HELD_PER_SESSION_MAX as u64 + 1 + EVENTS_EXTRA;

impl<M: Memory> ActiveSequencer<M> {
    /// Looks at every lane's window and decides.
    pub(super) fn scan(&mut self) -> usize {
        if self.any_remote {
            self.lanes.iter().for_each(LaneReader::prefetch);
            self.view.memory.full_fence();
        }
        let count = self.lanes.len();
        let mut consumed = 0;
        for offset in 0..count {
            consumed += self.scan_lane((self.first_lane + offset) % count);
        }
        self.first_lane = (self.first_lane + 1) % count;
        self.counters.consumed_slots += consumed as u64;
        consumed
    }

    fn scan_lane(&mut self, lane: usize) -> usize {
        let window = self.lanes[lane].window();
        let mut seen = [(BatchSlot::default(), None); AHEAD];
        let mut found = 0;
        'window: while found < window {
            let most = (window - found).min(AHEAD as u64) as usize;
            let count = self.look_ahead(lane, &mut seen[..most]);
            // Looked at for all of them together, unless it is short.
            let is_ample = self.index.room() >= AHEAD as u64 * EVENTS_MAX;
            for (slot, place) in &seen[..count] {
                if !is_ample && !self.has_room_for(slot, *place) {
                    break 'window;
                }
                let number = self.lanes[lane].consume();
                found += 1;
                self.take(lane as u32, number, slot, *place);
            }
            if count < most {
                break;
            }
        }
        self.lanes[lane].adapt(found);
        found as usize
    }

    /// The next slots of a lane, and where their sessions stand: looked up for several at once, so that the memory is waited for once and
    /// not for each. A place holds until a session is opened or closed. Gives how many were published.
    #[inline]
    fn look_ahead(&self, lane: usize, seen: &mut [(BatchSlot, Option<u32>)]) -> usize {
        for (ahead, (slot, place)) in seen.iter_mut().enumerate() {
            match self.lanes[lane].peek_at(ahead as u64) {
                Some(found) => *slot = found,
                None => return ahead,
            }
            *place = self.core.table().slot_of(slot.session);
            if let Some(place) = *place {
                self.core.prefetch(place, slot.batch_seq);
            }
        }
        seen.len()
    }

    /// Whether the index has room for whatever this slot may lead to.
    fn has_room_for(&mut self, slot: &BatchSlot, place: Option<u32>) -> bool {
        let place = || self.place_now(slot.session, place);
        if self.index.room() >= EVENTS_MAX || self.index.room() >= self.core.events_max(place()) + EVENTS_EXTRA {
            return true;
        }
        self.counters.index_full += 1;
        self.is_held_back = true;
        false
    }

    /// Where a session stands, that stood there a moment ago.
    #[inline]
    fn place_now(&self, session: u64, before: Option<u32>) -> Option<u32> {
        let table = self.core.table();
        before.filter(|place| table.is_at(*place, session)).or_else(|| table.slot_of(session))
    }

    fn take(&mut self, lane: u32, number: u64, slot: &BatchSlot, place: Option<u32>) {
        let place = self.place_now(slot.session, place);
        if !self.may_name(lane, place) {
            self.counters.invalid_slots += 1;
            return;
        }
        match slot.kind {
            slot_kind::BATCH => self.take_batch(lane, number, slot, place),
            slot_kind::SESSION_OPEN => self.open_session(Origin { lane: lane as u16, slot: number }, slot),
            slot_kind::SESSION_ALIVE => {
                if let Some(place) = place {
                    self.core.touch(place);
                }
            }
            slot_kind::SESSION_CLOSE => self.close_session(lane, slot),
            slot_kind::TOPIC_CREATE => self.take_topic(lane, number, slot),
            slot_kind::TOPIC_DELETE => self.delete_topic(lane, number, slot),
            slot_kind::CURSOR_SET | slot_kind::CURSOR_DELETE => self.take_cursor(lane, number, slot),
            slot_kind::EXTENT_CLOSE => self.close_extent(lane, number, slot),
            _ => self.counters.invalid_slots += 1,
        }
    }

    /// A receive core has seen the token of every session it names. An attached publisher is any program that may map the pool:
    /// it names sessions that its own lane opened, and no others. What is nobody's, or closed by now, harms nobody.
    #[inline]
    fn may_name(&self, lane: u32, place: Option<u32>) -> bool {
        if !self.view.layout.geometry.is_attached_lane(lane) {
            return true;
        }
        let opened_by = |place| u32::from(self.core.table().session(place).opened_by.lane);
        place.is_none_or(|place| opened_by(place) == lane)
    }

    fn take_batch(&mut self, lane: u32, number: u64, slot: &BatchSlot, place: Option<u32>) {
        let arrival = Arrival {
            lane: lane as u16,
            lane_slot: number,
            topic: slot.topic,
            session: slot.session,
            session_epoch: slot.session_epoch,
            batch_seq: slot.batch_seq,
            message_count: slot.message_count,
            batch_bytes: slot.batch_bytes,
            blog_at: slot.blog_at,
            received_at: slot.received_at,
            landing_ns: slot.landing_ns,
        };
        // A lane's writer may be another program: nothing it names is trusted as an address or a count, and nothing is
        // appended that a follower would refuse.
        if check_batch(&arrival, &self.view.layout).is_err() || !self.stock.is_of(lane, arrival.blog_at) {
            self.counters.invalid_slots += 1;
            return;
        }
        let verdict = {
            let mut append = append_to!(self);
            self.core.arrive_at(place, arrival, self.gap_clock_ns, &mut append)
        };
        self.tally.received(slot.topic, verdict);
        match verdict {
            // Counted as they are appended, and by the order core.
            Verdict::Appended { .. } | Verdict::LetGo | Verdict::Fenced => {}
            Verdict::Parked => self.counters.parked_batches += 1,
            Verdict::Duplicate => self.counters.duplicates += 1,
            Verdict::Unknown => self.counters.unknown_batches += 1,
        }
    }
}
