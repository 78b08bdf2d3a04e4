//! Sessions come and go: opened, kept while somebody is connected, ended with the process that nobody can go on without.

use super::{ActiveSequencer, appender};
use crate::limits::UNUSED_SESSION_NS;
use crate::order::Origin;
use crate::order::core::{Expiry, OpenRequest};
use crate::order::table::{SESSION_LEVEL, Session};
use crate::pool::Memory;
use crate::pool::record::BatchSlot;
use crate::wire::Refusal;

/// Sessions ended in one roll call at most.
const ENDED_PER_CALL: u64 = 256;
/// No topic's id: a session that is asked for on a topic that is gone.
const NO_TOPIC: u32 = u32::MAX;

impl<M: Memory> ActiveSequencer<M> {
    pub(super) fn open_session(&mut self, origin: Origin, slot: &BatchSlot) {
        let is_meant = self.topics.is_meant(slot);
        let request = OpenRequest {
            session: slot.session,
            session_epoch: slot.session_epoch,
            // Its number may be another's by now.
            topic: if is_meant { slot.topic } else { NO_TOPIC },
            origin,
            full_code: Refusal::Busy as u8,
            unknown_code: Refusal::UnknownSession as u8,
        };
        if self.core.table().free_slot().is_none() {
            self.touch_attached();
            self.end_sessions(1, false);
        }
        let expiry = Expiry { silent_ns: self.settings.session_expiry_ns, unused_ns: UNUSED_SESSION_NS };
        let mut append = appender(&mut self.index, &mut self.trimmer, &mut self.counters);
        self.core.open(request, expiry, &mut append);
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
        let mut append = appender(&mut self.index, &mut self.trimmer, &mut self.counters);
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
