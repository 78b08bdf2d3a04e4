//! Sessions and topics as a fold of the events below the watermark.
//!
//! State changes only through [`SessionTable::apply`]. Storage is allocated once.

use std::collections::HashMap;

use crate::order::event::{Event, Origin};
use crate::order::places::Places;

/// Order level at which a session is numbered, held and fenced; below it a batch is ordered as it comes.
pub const SESSION_LEVEL: u8 = 5;

/// What a session is up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The place is free.
    #[default]
    Free,
    /// Batches are taken.
    Open,
    /// This epoch is over.
    Fenced,
}

/// One session, on a line of its own: of very many each is fetched by one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
pub struct Session {
    /// Its id.
    pub id: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Its topic.
    pub topic: u32,
    /// Order level of the topic.
    pub order_level: u8,
    /// Open, fenced or free.
    pub state: State,
    /// Next batch expected: every lower one is committed.
    pub next_batch: u64,
    /// Order just past its last message.
    pub order_end: u64,
    /// The request that opened it last.
    pub opened_by: Origin,
}

impl Session {
    /// Whether anything of it was ever committed.
    pub fn is_used(&self) -> bool {
        self.next_batch > 0 || self.order_end > 0
    }
}

/// One topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicOrder {
    /// Whether it exists.
    pub exists: bool,
    /// Its order level.
    pub order_level: u8,
    /// Order of the next message.
    pub next_order: u64,
}

/// All sessions and topics.
#[derive(Clone, Debug)]
pub struct SessionTable {
    sessions: Vec<Session>,
    topics: Vec<TopicOrder>,
    by_id: Places,
    /// By the request that opened a session last.
    by_origin: HashMap<Origin, u32>,
    free: Free,
}

/// Places that are free. Each knows where it stands in the list, so that taking a certain one is one step, however many there are:
/// a replay takes those that its events name.
#[derive(Clone, Debug)]
struct Free {
    places: Vec<u32>,
    /// By place: where it stands in `places`.
    stands: Vec<u32>,
}

impl Free {
    /// All are free; the lowest is taken first.
    fn new(places: u32) -> Free {
        Free { places: (0..places).rev().collect(), stands: (0..places).rev().collect() }
    }

    /// Takes a place, which is free.
    fn take(&mut self, place: u32) {
        let stand = self.stands[place as usize];
        let removed = self.places.swap_remove(stand as usize);
        assert_eq!(removed, place, "only what is free is taken");
        if let Some(moved) = self.places.get(stand as usize) {
            self.stands[*moved as usize] = stand;
        }
    }

    /// Gives a place back, which is not free.
    fn give(&mut self, place: u32) {
        self.stands[place as usize] = self.places.len() as u32;
        self.places.push(place);
    }
}

impl SessionTable {
    /// An empty table of fixed size.
    pub fn new(sessions_max: u32, topics_max: u32) -> Self {
        SessionTable {
            sessions: vec![Session::default(); sessions_max as usize],
            topics: vec![TopicOrder::default(); topics_max as usize],
            // Twice what it will hold, and one that an insertion reserves though its key is there: what removals left behind is
            // then cleared in place, and it never grows.
            by_id: Places::new(sessions_max),
            by_origin: HashMap::with_capacity(2 * (sessions_max as usize + 1)),
            free: Free::new(sessions_max),
        }
    }

    /// Place of a session.
    #[inline]
    pub fn slot_of(&self, session: u64) -> Option<u32> {
        self.by_id.find(session, |place| self.sessions[place as usize].id == session)
    }

    /// Whether a session still has the place that it had.
    #[inline]
    pub fn is_at(&self, slot: u32, session: u64) -> bool {
        let there = &self.sessions[slot as usize];
        there.id == session && there.state != State::Free
    }

    /// Place of the session that this request opened last.
    pub fn opened_by(&self, origin: Origin) -> Option<u32> {
        self.by_origin.get(&origin).copied()
    }

    /// The session at a place.
    #[inline]
    pub fn session(&self, slot: u32) -> &Session {
        &self.sessions[slot as usize]
    }

    /// All places.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// A topic's order.
    #[inline]
    pub fn topic(&self, topic: u32) -> Option<&TopicOrder> {
        self.topics.get(topic as usize).filter(|topic| topic.exists)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> u32 {
        self.topics.iter().filter(|topic| topic.exists).count() as u32
    }

    /// Lowest id that no topic has.
    pub fn free_topic(&self) -> Option<u32> {
        self.topics.iter().position(|topic| !topic.exists).map(|topic| topic as u32)
    }

    /// Sessions of a topic, by their places.
    pub fn sessions_of(&self, topic: u32) -> impl Iterator<Item = u32> {
        let of_topic = move |session: &Session| session.state != State::Free && session.topic == topic;
        (0..).zip(&self.sessions).filter(move |(_, session)| of_topic(session)).map(|(slot, _)| slot)
    }

    /// A free place.
    pub fn free_slot(&self) -> Option<u32> {
        self.free.places.last().copied()
    }

    /// Puts a session back as a checkpoint has it, into a place that is free.
    pub fn restore_session(&mut self, slot: u32, session: Session) {
        self.free.take(slot);
        self.by_id.insert(session.id, slot);
        self.by_origin.insert(session.opened_by, slot);
        self.sessions[slot as usize] = session;
    }

    /// Puts a topic back as a checkpoint has it.
    pub fn restore_topic(&mut self, topic: u32, order: TopicOrder) {
        self.topics[topic as usize] = order;
    }

    /// Folds one event in. Events come in index order.
    ///
    /// Every event sets what it touches to an absolute value. So a replay may start before the position that a checkpoint
    /// stands for: the last event for each session and topic decides, and the result is the same.
    #[inline(always)]
    pub fn apply(&mut self, event: &Event) {
        match *event {
            Event::Batch { slot, ref arrival, first_order } => {
                let end = first_order + u64::from(arrival.message_count);
                let session = &mut self.sessions[slot as usize];
                session.next_batch = arrival.batch_seq + 1;
                session.order_end = end;
                self.topics[arrival.topic as usize].next_order = end;
            }
            _ => self.apply_rare(event),
        }
    }

    /// As [`Self::apply`], of anything but a batch.
    #[inline(never)]
    fn apply_rare(&mut self, event: &Event) {
        match *event {
            Event::Open { slot, session, session_epoch, topic, order_level, next_batch, origin } => {
                let before = self.sessions[slot as usize];
                if before.state == State::Free {
                    self.free.take(slot);
                } else if before.id != session {
                    // A checkpoint read while it was written may name a session that is not this event's, or none.
                    self.by_id.remove(before.id, slot, |place| self.sessions[place as usize].id);
                }
                self.forget_origin(slot, before.opened_by);
                self.by_id.insert(session, slot);
                self.by_origin.insert(origin, slot);
                // A replay may find what is left of another session here.
                let order_end = if session_epoch > 1 { self.sessions[slot as usize].order_end } else { 0 };
                self.sessions[slot as usize] = Session {
                    id: session,
                    epoch: session_epoch,
                    topic,
                    order_level,
                    state: State::Open,
                    next_batch,
                    order_end,
                    opened_by: origin,
                };
            }
            Event::Close { slot } => self.close(slot),
            // A replay may meet the fence of a session whose checkpoint says closed already; the place stays free.
            Event::Fence { slot, .. } if self.sessions[slot as usize].state == State::Free => {}
            Event::Fence { slot, .. } => self.sessions[slot as usize].state = State::Fenced,
            Event::Topic { topic, order_level, .. } => {
                self.topics[topic as usize] = TopicOrder { exists: true, order_level, next_order: 0 };
            }
            Event::TopicDeleted { topic, .. } => {
                for slot in 0..self.sessions.len() as u32 {
                    let session = &self.sessions[slot as usize];
                    if session.state == State::Free || session.topic == topic {
                        self.close(slot);
                    }
                }
                self.topics[topic as usize] = TopicOrder::default();
            }
            Event::Batch { .. }
            | Event::LetGo { .. }
            | Event::Refused { .. }
            | Event::CursorSet { .. }
            | Event::CursorDelete { .. }
            | Event::Granted { .. }
            | Event::ExtentClosed { .. } => {}
        }
    }

    /// Frees a place. A replay may meet the end of a session whose checkpoint says closed already.
    fn close(&mut self, slot: u32) {
        let session = std::mem::take(&mut self.sessions[slot as usize]);
        if session.state != State::Free {
            self.by_id.remove(session.id, slot, |place| self.sessions[place as usize].id);
            self.forget_origin(slot, session.opened_by);
            self.free.give(slot);
        }
    }

    /// A place has nothing to do with a request any more.
    fn forget_origin(&mut self, slot: u32, origin: Origin) {
        if self.by_origin.get(&origin) == Some(&slot) {
            self.by_origin.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever was put back, opened and closed in whatever order: exactly what nobody has is free. Taking a place moves one other
    /// at most, so as many sessions as there can be take as many steps.
    #[test]
    fn a_place_is_taken_by_one_step_however_many_are_free() {
        let most = 1024;
        let mut table = SessionTable::new(most, 1);
        let open = |slot: u32| Event::Open {
            slot,
            session: u64::from(slot) + 1,
            session_epoch: 1,
            topic: 0,
            order_level: 5,
            next_batch: 0,
            origin: Origin::default(),
        };
        let step = |table: &mut SessionTable, act: &dyn Fn(&mut SessionTable)| {
            let before = table.free.places.clone();
            act(table);
            let moved = before.iter().zip(&table.free.places).filter(|(before, after)| before != after).count();
            assert!(moved <= 1, "{moved} places moved for one that was taken or given back");
            for (stand, place) in table.free.places.iter().enumerate() {
                assert_eq!(table.free.stands[*place as usize] as usize, stand);
            }
            let nobodys = table.sessions.iter().filter(|session| session.state == State::Free).count();
            assert_eq!(table.free.places.len(), nobodys);
        };
        for slot in (0..most).step_by(3) {
            let session = Session { id: u64::from(slot) + 1, state: State::Open, ..Session::default() };
            step(&mut table, &|table| table.restore_session(slot, session));
        }
        for slot in (0..most).map(|slot| slot * 7 % most) {
            step(&mut table, &|table| table.apply(&open(slot)));
        }
        assert_eq!(table.free_slot(), None);
        for slot in (0..most).map(|slot| slot * 5 % most) {
            step(&mut table, &|table| table.apply(&Event::Close { slot }));
            // As a replay meets them that begins before what the checkpoints stand for.
            step(&mut table, &|table| table.apply(&Event::Fence { slot, session_epoch: 1, next_batch: 0 }));
            step(&mut table, &|table| table.apply(&Event::Close { slot }));
        }
        assert!(table.free.places.len() == most as usize && table.by_id.count() == 0);
    }
}
