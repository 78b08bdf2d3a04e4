//! Sessions come and go: opened, kept while somebody is connected, ended with the process that nobody can go on without.

use super::ActiveSequencer;
use super::append::append_to;
use crate::limits::UNUSED_SESSION_NS;
use crate::log::entry::session_id;
use crate::order::Origin;
use crate::order::core::{Expiry, OpenRequest};
use crate::order::table::{SESSION_LEVEL, Session};
use crate::pool::Memory;
use crate::pool::record::BatchSlot;
use crate::wire::Refusal;
use crate::wire::frame::NEW_SESSION;

/// Sessions ended in one roll call at most.
const ENDED_PER_CALL: u64 = 256;
/// No topic's id: a session that is asked for on a topic that is gone.
const NO_TOPIC: u32 = u32::MAX;

impl<M: Memory> ActiveSequencer<M> {
    /// A slot that names no session asks for a new one, whose id is where its opening entry stands in the index: whoever asked finds
    /// that entry by the slot. What closes to make room comes before.
    pub(super) fn open_session(&mut self, origin: Origin, slot: &BatchSlot) {
        let is_new = slot.session == NEW_SESSION;
        if is_new != (slot.session_epoch == 1) {
            self.counters.invalid_slots += 1;
            return;
        }
        let is_meant = self.topics.is_meant(slot);
        // Its number may be another's by now.
        let topic = if is_meant { slot.topic } else { NO_TOPIC };
        if is_new {
            self.make_place(topic);
        }
        let request = OpenRequest {
            session: if is_new { session_id(self.index.next()) } else { slot.session },
            session_epoch: slot.session_epoch,
            topic,
            origin,
            full_code: Refusal::Busy as u8,
            // What is not known of a new one is its topic: its broker may have known one that is gone.
            unknown_code: if is_new { Refusal::UnknownTopic } else { Refusal::UnknownSession } as u8,
        };
        self.core.open(request, &mut append_to!(self));
    }

    /// If every place is taken, ends a session that nobody can go on with, or one that was silent for long enough.
    fn make_place(&mut self, topic: u32) {
        if self.core.table().free_slot().is_none() {
            self.touch_attached();
            self.end_sessions(1, false);
        }
        let expiry = Expiry::new(self.settings.session_expiry_ns, UNUSED_SESSION_NS);
        let mut append = append_to!(self);
        self.core.make_place(topic, expiry, &mut append);
    }

    /// A session whose id its lane's writer was not told is named by the slot of that lane that asked for it.
    pub(super) fn close_session(&mut self, lane: u32, slot: &BatchSlot) {
        let asked = Origin { lane: lane as u16, slot: slot.batch_seq };
        let table = self.core.table();
        let session = match slot.session {
            NEW_SESSION => table.opened_by(asked).map(|place| table.session(place).id),
            session => Some(session),
        };
        if let Some(session) = session {
            self.core.close(session, &mut append_to!(self));
        }
    }

    /// The session of an attached publisher is connected as long as its process is there.
    fn touch_attached(&mut self) {
        let g = self.view.layout.geometry;
        for slot in 0..g.sessions_max {
            let lane = u32::from(self.core.table().session(slot).opened_by.lane);
            if g.is_attached_lane(lane) && self.attendance.is_present(g.member_of_lane(lane)) {
                self.core.touch(slot);
            }
        }
    }

    /// Ends sessions that nobody can go on with: below the level at which sessions outlive their connections, and of attached
    /// publishers, those that a process opened which had the lane before, once all it left in the lane was taken. The last look at the
    /// members counts only while nothing was taken since (`is_just_looked`). At most `most` of them; gives how many.
    fn end_sessions(&mut self, most: usize, is_just_looked: bool) -> usize {
        let g = self.view.layout.geometry;
        let ended_below = |lane: usize| {
            let reader = &self.lanes[lane];
            let is_gone = is_just_looked && self.attendance.is_gone(g.member_of_lane(lane as u32));
            if is_gone && reader.peek().is_none() {
                return reader.consumed();
            }
            // What is left of them may be batches of a session that would be over.
            reader.status().map(|status| status.first_slot).filter(|first| *first <= reader.consumed()).unwrap_or(0)
        };
        for (lane, below) in self.ended_below.iter_mut().enumerate() {
            let now = ended_below(lane).max(*below);
            self.is_swept &= now == *below;
            *below = now;
        }
        if self.is_swept {
            // A large table is not walked for nothing: whoever opens a session now does it by a slot above these.
            return 0;
        }
        let ended_below = &self.ended_below;
        let is_over = |session: &Session| {
            let Origin { lane, slot } = session.opened_by;
            let is_bound = session.order_level < SESSION_LEVEL || g.is_attached_lane(lane.into());
            is_bound && slot < ended_below[usize::from(lane)]
        };
        let mut append = append_to!(self);
        let ended = self.core.end_sessions(most, is_over, &mut append);
        self.is_swept = ended < most;
        ended
    }

    /// Ends what nobody can go on with. The members were looked at just now: nothing of a process that comes after that was taken
    /// yet.
    pub(super) fn end_sessions_of_the_dead(&mut self) {
        let most = ENDED_PER_CALL.min(self.index.room() / 2) as usize;
        if self.end_sessions(most, true) > 0 {
            self.commit_appended();
        }
    }
}
