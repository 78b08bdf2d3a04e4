//! The decisions: what an arrival becomes.
//!
//! At level 5, for batch `s` of a session that expects `n`: `s == n` is appended and drains what is parked behind it; `s < n` is
//! a duplicate; `s > n` is parked, and let go when there is no room. Below level 5 a batch is appended as it
//! comes. A gap older than the session lease fences the session epoch. Time is a number the caller passes in.

use crate::order::event::{Arrival, Emit, Event, Origin};
use crate::order::hold::{HoldBuffer, NoRoom};
use crate::order::outcomes::OutcomeTable;
use crate::order::table::{SESSION_LEVEL, Session, SessionTable, State};
use crate::processor::prefetch;

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It and `drained` parked ones were appended.
    Appended {
        /// Parked batches that followed.
        drained: u32,
    },
    /// It waits for the batches before it.
    Parked,
    /// It is in the order, or parked, already.
    Duplicate,
    /// There was no room to park it.
    LetGo,
    /// It belongs to a session epoch that is over.
    Fenced,
    /// Its session or topic is not open, or its topic is not the session's.
    Unknown,
}

/// Limits of the order core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLimits {
    /// Sessions at once.
    pub sessions_max: u32,
    /// Topics.
    pub topics_max: u32,
    /// Lanes.
    pub lanes: u32,
    /// Batches parked in all.
    pub held_batches_max: u32,
}

/// Local state of a session besides the fold: each in one line of the cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Tracking {
    /// When the gap it waits for was first seen; meaningful while something is parked.
    gap_since_ns: u64,
    /// Where it stands among the gapped, from 1; 0: it is not among them.
    gapped_at: u32,
    /// First batch it was told to send again and has not; 0: none, since only what comes early is let go.
    let_go_from: u64,
    /// By the clock of silence, which never stands still.
    last_seen_ns: u64,
    dirty: bool,
}

const _: () = assert!(size_of::<Tracking>() == 32);

/// Orders arrivals. Storage is allocated once.
#[derive(Clone, Debug)]
pub struct OrderCore {
    table: SessionTable,
    hold: HoldBuffer,
    tracking: Vec<Tracking>,
    /// Sessions with parked batches.
    gapped: Vec<u32>,
    /// Sessions changed since they were last taken from here.
    dirty: Vec<u32>,
    let_go: u64,
    fenced: u64,
    /// By topic: batches that were parked and never appended.
    unparked: Vec<u64>,
    outcomes: OutcomeTable,
    /// The clock of silence.
    now_ns: u64,
}

impl OrderCore {
    /// With nothing open.
    pub fn new(limits: OrderLimits) -> Self {
        OrderCore {
            table: SessionTable::new(limits.sessions_max, limits.topics_max),
            hold: HoldBuffer::new(limits.sessions_max, limits.lanes, limits.held_batches_max),
            tracking: vec![Tracking::default(); limits.sessions_max as usize],
            gapped: Vec::with_capacity(limits.sessions_max as usize),
            dirty: Vec::with_capacity(limits.sessions_max as usize),
            let_go: 0,
            fenced: 0,
            unparked: vec![0; limits.topics_max as usize],
            outcomes: OutcomeTable::new(limits.sessions_max),
            now_ns: 0,
        }
    }

    /// What time it is for [`OrderCore::make_place`]'s `expiry`. This clock is not the one gaps age by: it goes on while lanes are
    /// held back. Sessions taken over from a predecessor count as seen when it is first set.
    pub fn set_time(&mut self, now_ns: u64) {
        if self.now_ns == 0 {
            self.tracking.iter_mut().for_each(|tracking| tracking.last_seen_ns = now_ns);
        }
        self.now_ns = now_ns;
    }

    /// The fold so far.
    pub fn table(&self) -> &SessionTable {
        &self.table
    }

    /// Goes on from the fold of what a predecessor committed. Nothing has arrived yet.
    pub fn take_over(&mut self, table: SessionTable) {
        assert_eq!(self.hold.held(), 0, "a takeover comes before the first arrival");
        for (slot, session) in (0..).zip(table.sessions()).filter(|(_, session)| session.state != State::Free) {
            self.outcomes.begin(slot, session.next_batch);
        }
        self.table = table;
    }

    /// Batches parked.
    pub fn held(&self) -> u32 {
        self.hold.held()
    }

    /// Batches parked of one session, by its place.
    pub fn held_of(&self, slot: u32) -> u32 {
        self.hold.held_of(slot)
    }

    /// Parked batches let go, ever.
    pub fn let_go(&self) -> u64 {
        self.let_go
    }

    /// Batches of session epochs that are over, ever: those that came too late, and those that were parked when it ended.
    pub fn fenced(&self) -> u64 {
        self.fenced
    }

    /// Batches of a topic that were parked and never appended, ever: let go, or of a session epoch that ended.
    pub fn unparked(&self, topic: u32) -> u64 {
        self.unparked[topic as usize]
    }

    /// What became of sessions' batches.
    pub fn outcomes(&self) -> &OutcomeTable {
        &self.outcomes
    }

    /// A session with an outcome that was not taken from here yet.
    pub fn take_outcome(&mut self) -> Option<u32> {
        self.outcomes.take_changed()
    }

    /// The sessions that wait behind a gap have outcomes to be taken, as those at these places.
    pub fn renew_outcomes(&mut self, places: impl Iterator<Item = u32>) {
        places.for_each(|slot| self.outcomes.renew(slot));
        self.gapped.iter().for_each(|slot| self.outcomes.renew(*slot));
    }

    /// The gap that has been open longest: its session's place, and since when, by the clock that gaps age by, ns.
    pub fn oldest_gap(&self) -> Option<(u32, u64)> {
        let since_ns = |slot: &u32| (*slot, self.tracking[*slot as usize].gap_since_ns);
        self.gapped.iter().map(since_ns).min_by_key(|(_, since_ns)| *since_ns)
    }

    /// Sessions that wait behind a gap.
    pub fn gapped(&self) -> u32 {
        self.gapped.len() as u32
    }

    /// Most events the next arrival of the session at this place can cause; none: of one that is not known.
    #[inline]
    pub fn events_max(&self, slot: Option<u32>) -> u64 {
        slot.map_or(1, |slot| u64::from(self.hold.held_of(slot)) + 1)
    }

    /// Slots of a lane below this are appended or refused for good; `consumed` of it were looked at.
    #[inline]
    pub fn settled(&self, lane: u16, consumed: u64) -> u64 {
        self.hold.oldest_of_lane(lane).unwrap_or(consumed)
    }

    /// A session whose checkpoint is out of date.
    pub fn take_dirty(&mut self) -> Option<u32> {
        let slot = self.dirty.pop()?;
        self.tracking[slot as usize].dirty = false;
        Some(slot)
    }

    /// Inlined, as what it calls, so that nobody asks which event it is where that is known: of a batch, always.
    #[inline(always)]
    fn happen(&mut self, event: Event, emit: &mut impl Emit) {
        self.table.apply(&event);
        let slot = match event {
            Event::Batch { slot, .. }
            | Event::Open { slot, .. }
            | Event::Close { slot }
            | Event::Fence { slot, .. } => slot,
            Event::LetGo { .. }
            | Event::Refused { .. }
            | Event::Topic { .. }
            | Event::TopicDeleted { .. }
            | Event::CursorSet { .. }
            | Event::CursorDelete { .. }
            | Event::Granted { .. }
            | Event::ExtentClosed { .. } => return emit.take(event),
        };
        self.mark_dirty(slot);
        emit.take(event);
    }

    #[inline]
    fn mark_dirty(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.tracking[slot as usize].dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Begins to fetch what a decision about this batch of the session at this place will need.
    #[inline]
    pub fn prefetch(&self, slot: u32, batch_seq: u64) {
        prefetch(&self.tracking[slot as usize]);
        self.hold.prefetch(slot);
        if batch_seq > self.table.session(slot).next_batch {
            self.hold.prefetch_place(slot, batch_seq);
        }
    }

    /// Decides about one batch. `now_ns` is of the clock that gaps age by.
    pub fn arrive(&mut self, arrival: Arrival, now_ns: u64, emit: &mut impl Emit) -> Verdict {
        self.arrive_at(self.table.slot_of(arrival.session), arrival, now_ns, emit)
    }

    /// Decides about one batch whose session's place was looked up; none: its session is not known.
    #[inline]
    pub fn arrive_at(&mut self, slot: Option<u32>, arrival: Arrival, now_ns: u64, emit: &mut impl Emit) -> Verdict {
        let Some(slot) = slot else { return Verdict::Unknown };
        debug_assert!(self.table.is_at(slot, arrival.session), "the place was looked up");
        // Not copied: it was written just now, a word of it, and a copy would wait for that.
        let session = self.table.session(slot);
        if session.topic != arrival.topic || arrival.message_count == 0 {
            return Verdict::Unknown;
        }
        let next_batch = session.next_batch;
        self.tracking[slot as usize].last_seen_ns = self.now_ns;
        if session.epoch != arrival.session_epoch || session.state != State::Open {
            self.fenced += 1;
            self.outcomes.refused(slot, 1);
            return Verdict::Fenced;
        }
        if session.order_level < SESSION_LEVEL {
            if arrival.batch_seq != next_batch {
                self.outcomes.ordered_out_of_turn(slot, next_batch, arrival.batch_seq);
            }
            self.append(slot, &arrival, emit);
            return Verdict::Appended { drained: 0 };
        }
        if arrival.batch_seq <= self.tracking[slot as usize].let_go_from {
            self.tracking[slot as usize].let_go_from = 0;
        }
        match arrival.batch_seq.cmp(&next_batch) {
            std::cmp::Ordering::Less => {
                self.outcomes.duplicate(slot);
                Verdict::Duplicate
            }
            std::cmp::Ordering::Equal => {
                self.append(slot, &arrival, emit);
                let drained = if self.hold.held_of(slot) > 0 { self.drain(slot, now_ns, emit) } else { 0 };
                Verdict::Appended { drained }
            }
            std::cmp::Ordering::Greater => self.park(slot, next_batch, arrival, now_ns, emit),
        }
    }

    #[inline]
    fn append(&mut self, slot: u32, arrival: &Arrival, emit: &mut impl Emit) {
        let first_order = self.table.topic(arrival.topic).expect("a session's topic exists").next_order;
        self.happen(Event::Batch { slot, arrival: *arrival, first_order }, emit);
    }

    fn drain(&mut self, slot: u32, now_ns: u64, emit: &mut impl Emit) -> u32 {
        let mut drained = 0;
        while let Some(arrival) = self.hold.take(slot, self.table.session(slot).next_batch) {
            self.append(slot, &arrival, emit);
            drained += 1;
        }
        // The next gap is another one.
        self.tracking[slot as usize].gap_since_ns = now_ns;
        self.forget_gap_if_closed(slot);
        drained
    }

    fn forget_gap_if_closed(&mut self, slot: u32) {
        if self.hold.held_of(slot) == 0 {
            self.leave_gapped(slot);
        }
    }

    fn join_gapped(&mut self, slot: u32) {
        self.gapped.push(slot);
        self.tracking[slot as usize].gapped_at = self.gapped.len() as u32;
    }

    fn leave_gapped(&mut self, slot: u32) {
        let Some(at) = std::mem::take(&mut self.tracking[slot as usize].gapped_at).checked_sub(1) else { return };
        self.gapped.swap_remove(at as usize);
        if let Some(moved) = self.gapped.get(at as usize) {
            self.tracking[*moved as usize].gapped_at = at + 1;
        }
    }

    /// What is parked belongs to a session epoch that ends.
    fn drop_parked(&mut self, slot: u32, next_batch: u64) {
        let held = self.hold.held_of(slot);
        self.fenced += u64::from(held);
        self.count_unparked(slot, held);
        self.hold.clear_session(slot, next_batch);
    }

    /// So many parked batches of a session will not be appended.
    fn count_unparked(&mut self, slot: u32, batches: u32) {
        self.unparked[self.table.session(slot).topic as usize] += u64::from(batches);
        self.outcomes.refused(slot, batches);
    }

    fn park(&mut self, slot: u32, next_batch: u64, arrival: Arrival, now_ns: u64, emit: &mut impl Emit) -> Verdict {
        match self.hold.park(slot, next_batch, arrival) {
            Ok(()) => {
                if self.hold.held_of(slot) == 1 {
                    self.tracking[slot as usize].gap_since_ns = now_ns;
                    self.join_gapped(slot);
                }
                Verdict::Parked
            }
            Err(NoRoom::Duplicate) => {
                self.outcomes.duplicate(slot);
                Verdict::Duplicate
            }
            Err(NoRoom::Full) => {
                self.outcomes.refused(slot, 1);
                self.tell_let_go(slot, arrival.batch_seq, emit);
                Verdict::LetGo
            }
        }
    }

    /// Says once that batches from `from` on are to be sent again.
    fn tell_let_go(&mut self, slot: u32, from: u64, emit: &mut impl Emit) {
        self.let_go += 1;
        let told = &mut self.tracking[slot as usize].let_go_from;
        if *told == 0 || from < *told {
            *told = from;
            let session_epoch = self.table.session(slot).epoch;
            self.happen(Event::LetGo { slot, session_epoch, from }, emit);
        }
    }

    /// Lets a lane's oldest parked session go: the lane is short of extents. At most one event. False: nothing parked.
    pub fn let_go_lane(&mut self, lane: u16, emit: &mut impl Emit) -> bool {
        let Some(slot) = self.hold.oldest_session_of_lane(lane) else { return false };
        let next_batch = self.table.session(slot).next_batch;
        let count = self.hold.held_of(slot);
        let lowest = self.hold.clear_session(slot, next_batch).expect("it had a parked batch");
        self.forget_gap_if_closed(slot);
        self.let_go += u64::from(count) - 1;
        self.count_unparked(slot, count);
        self.tell_let_go(slot, lowest, emit);
        true
    }

    /// Fences sessions whose gap is older than `lease_ns`, at most `most` of them. The caller's clock stands still while
    /// lanes are held back for want of room: load never fences anyone. Gives how many, and the place of the first of them.
    pub fn expire(&mut self, now_ns: u64, lease_ns: u64, most: usize, emit: &mut impl Emit) -> (usize, Option<u32>) {
        let (mut fenced, mut first) = (0, None);
        let mut index = 0;
        while index < self.gapped.len() && fenced < most {
            let slot = self.gapped[index];
            if now_ns.saturating_sub(self.tracking[slot as usize].gap_since_ns) <= lease_ns {
                index += 1;
                continue;
            }
            let session = *self.table.session(slot);
            self.drop_parked(slot, session.next_batch);
            self.leave_gapped(slot);
            let event = Event::Fence { slot, session_epoch: session.epoch, next_batch: session.next_batch };
            self.happen(event, emit);
            first.get_or_insert(slot);
            fenced += 1;
        }
        (fenced, first)
    }

    /// Notes that somebody is there who has a session, though nothing comes.
    pub fn touch(&mut self, slot: u32) {
        self.tracking[slot as usize].last_seen_ns = self.now_ns;
    }

    /// Closes sessions that are over, at most `most` of them. Gives how many.
    pub fn end_sessions(&mut self, most: usize, is_over: impl Fn(&Session) -> bool, emit: &mut impl Emit) -> usize {
        let mut ended = 0;
        for slot in 0..self.tracking.len() as u32 {
            let session = self.table.session(slot);
            if ended == most {
                break;
            }
            if session.state != State::Free && is_over(session) {
                self.close_slot(slot, emit);
                ended += 1;
            }
        }
        ended
    }

    /// Opens a session (`session_epoch` 1) or reopens it at the next epoch. At most one event, so that the caller can give a session
    /// that opens an id by where that event comes to stand. Refused if every place is taken, see [`Self::make_place`].
    pub fn open(&mut self, request: OpenRequest, emit: &mut impl Emit) {
        let OpenRequest { session, session_epoch, topic, origin, .. } = request;
        let known = self.table.slot_of(session);
        match known {
            Some(slot) => {
                let current = *self.table.session(slot);
                let is_next = Some(session_epoch) == current.epoch.checked_add(1) && current.state == State::Fenced;
                if !is_next || current.topic != topic {
                    // Asked before, or asked wrongly (a session that is not fenced is in use: what its connections sent must not
                    // vanish): the table says how it stands.
                    return;
                }
                self.drop_parked(slot, current.next_batch);
                self.forget_gap_if_closed(slot);
                self.begin(slot, current.next_batch, session_epoch, &request, emit);
            }
            None if session_epoch > 1 || self.table.topic(topic).is_none() => {
                self.happen(Event::Refused { code: request.unknown_code, origin }, emit)
            }
            None => match self.table.free_slot() {
                Some(slot) => self.begin(slot, 0, 1, &request, emit),
                None => self.happen(Event::Refused { code: request.full_code, origin }, emit),
            },
        }
    }

    fn begin(&mut self, slot: u32, next_batch: u64, session_epoch: u32, request: &OpenRequest, emit: &mut impl Emit) {
        let order_level = self.table.topic(request.topic).expect("checked").order_level;
        if session_epoch == 1 {
            self.outcomes.begin(slot, next_batch);
        }
        let Tracking { dirty, gapped_at, .. } = self.tracking[slot as usize];
        self.tracking[slot as usize] = Tracking { last_seen_ns: self.now_ns, dirty, gapped_at, ..Tracking::default() };
        let OpenRequest { session, topic, origin, .. } = *request;
        self.happen(Event::Open { slot, session, session_epoch, topic, order_level, next_batch, origin }, emit);
    }

    /// Before a session opens on a topic: if every place is taken, closes a session that was silent for long enough; one that was never
    /// used before one that was, and of these the one that was silent longest. At most one event; none if there is no such topic.
    pub fn make_place(&mut self, topic: u32, expiry: impl Into<Expiry>, emit: &mut impl Emit) {
        if self.table.free_slot().is_some() || self.table.topic(topic).is_none() {
            return;
        }
        let expiry = expiry.into();
        let seen_ns = |slot: &u32| self.tracking[*slot as usize].last_seen_ns;
        let longest_silent = |is_used: bool, allowed_ns: u64| {
            let all = (0..self.tracking.len() as u32).filter(|slot| self.table.session(*slot).is_used() == is_used);
            all.min_by_key(seen_ns).filter(|slot| self.now_ns.saturating_sub(seen_ns(slot)) > allowed_ns)
        };
        let unused = longest_silent(false, expiry.unused_ns);
        if let Some(slot) = unused.or_else(|| longest_silent(true, expiry.silent_ns)) {
            self.close_slot(slot, emit);
        }
    }

    /// Closes a session. At most one event; none if it is not open.
    pub fn close(&mut self, session: u64, emit: &mut impl Emit) {
        if let Some(slot) = self.table.slot_of(session) {
            self.close_slot(slot, emit);
        }
    }

    fn close_slot(&mut self, slot: u32, emit: &mut impl Emit) {
        self.drop_parked(slot, self.table.session(slot).next_batch);
        self.forget_gap_if_closed(slot);
        self.happen(Event::Close { slot }, emit);
    }

    /// Creates a topic. The caller has seen that the name is new. `None`: the table is full.
    pub fn create_topic(
        &mut self,
        order_level: u8,
        lane: u16,
        lane_slot: u64,
        blog_at: u64,
        emit: &mut impl Emit,
    ) -> Option<u32> {
        let topic = self.table.free_topic()?;
        self.happen(Event::Topic { topic, order_level, lane, lane_slot, blog_at }, emit);
        Some(topic)
    }

    /// Deletes a topic and closes its sessions, in one event. The caller has seen that it exists.
    pub fn delete_topic(&mut self, topic: u32, lane: u16, lane_slot: u64, emit: &mut impl Emit) {
        assert!(self.table.topic(topic).is_some(), "what is deleted exists");
        for slot in 0..self.tracking.len() as u32 {
            let session = self.table.session(slot);
            if session.state != State::Free && session.topic == topic {
                self.drop_parked(slot, session.next_batch);
                self.forget_gap_if_closed(slot);
                self.mark_dirty(slot);
            }
        }
        self.happen(Event::TopicDeleted { topic, lane, lane_slot }, emit);
    }
}

/// After what silence a session may make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// One of which something was committed, ns.
    pub silent_ns: u64,
    /// One that was opened and never used, ns.
    pub unused_ns: u64,
}

impl Expiry {
    /// One that was never used is kept no longer than one that was.
    pub fn new(silent_ns: u64, unused_ns: u64) -> Expiry {
        Expiry { silent_ns, unused_ns: unused_ns.min(silent_ns) }
    }
}

impl From<u64> for Expiry {
    fn from(silent_ns: u64) -> Expiry {
        Expiry { silent_ns, unused_ns: silent_ns }
    }
}

/// A request to open or reopen a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Session id; of one that is to open, the id it is given if it does.
    pub session: u64,
    /// 1 to open; the epoch that was fenced + 1 to reopen.
    pub session_epoch: u32,
    /// Topic id.
    pub topic: u32,
    /// Where it came in.
    pub origin: Origin,
    /// Refusal code when there is no place.
    pub full_code: u8,
    /// Refusal code when the session or topic is not known.
    pub unknown_code: u8,
}
