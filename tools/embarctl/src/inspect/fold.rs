//! The index folded from the floor on, where nothing is known of what was before: what is not known yet is learned from the first
//! that is said of it. Each checkpoint is held against the fold where it stands.

use embarcadero::log::damage::{Expected, FieldFault, exactly, within};
use embarcadero::log::entry::check_fold;
use embarcadero::order::table::{SESSION_LEVEL, State, TopicOrder};
use embarcadero::order::{Event, Origin, SessionTable};
use embarcadero::pool::Geometry;
use embarcadero::pool::record::{SessionLine, TopicProgress};

/// No topic: of a session of which only its fence is known.
const NO_TOPIC: u32 = u32::MAX;

/// Who is to blame for something that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The entry that was looked at.
    Entry,
    /// The checkpoint of the session in this place: nothing else was known of it.
    Session(u32),
    /// The progress of this topic: so too.
    Topic(u32),
}

/// What does not fit.
pub type Misfit = (Blame, FieldFault);

/// What is known of a topic's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Nothing yet.
    #[default]
    Unknown,
    /// A topic that was created before the fold began.
    Somebody,
    /// No topic.
    Nobody,
    /// The topic that was created at this position.
    Since(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct KnownSession {
    is_known: bool,
    /// All of it is, its id and its opening too.
    is_whole: bool,
    order_end: Option<u64>,
    /// From its checkpoint, and confirmed by no entry yet.
    is_from_line: bool,
    /// What would come next if the last that did not fit is right.
    other_batch: Option<u64>,
    other_epoch: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct KnownTopic {
    who: Who,
    is_order_known: bool,
    is_from_line: bool,
    other_order: Option<u64>,
    /// Bytes of its batches, ever, if they are known from its beginning.
    bytes: Option<u64>,
}

/// See the head of the file.
pub struct Fold {
    table: SessionTable,
    sessions: Vec<KnownSession>,
    topics: Vec<KnownTopic>,
}

impl Fold {
    /// Nothing is known.
    pub fn new(g: &Geometry) -> Fold {
        Fold {
            table: SessionTable::new(g.sessions_max, g.topics_max),
            sessions: vec![KnownSession::default(); g.sessions_max as usize],
            topics: vec![KnownTopic::default(); g.topics_max as usize],
        }
    }

    /// From the beginning of the log on: nothing was before.
    pub fn begin_at_the_beginning(&mut self) {
        self.sessions.fill(KnownSession { is_known: true, is_whole: true, ..KnownSession::default() });
        self.topics.fill(KnownTopic { who: Who::Nobody, ..KnownTopic::default() });
    }

    /// Something was passed over: nothing is known any more.
    pub fn forget(&mut self) {
        self.sessions.fill(KnownSession::default());
        self.topics.fill(KnownTopic::default());
    }

    /// Who has a topic's number.
    pub fn who(&self, topic: u32) -> Who {
        self.topics[topic as usize].who
    }

    /// Folds in what happened at `position`. Gives it as it should have been, and what did not fit.
    pub fn take(&mut self, position: u64, event: &Event) -> (Event, Vec<Misfit>) {
        let (mut event, mut misfits) = (*event, Vec::new());
        self.learn(&event);
        // What is wrong is put right, one field after the other: so the next entry is held against what was meant.
        while let Err(fault) = self.check(&event) {
            let is_new = misfits.iter().all(|(_, known): &Misfit| known.field != fault.field);
            if is_new {
                misfits.push((self.blame(&event), fault));
            }
            if !self.put_right(&mut event, &fault) || !is_new {
                break;
            }
        }
        self.apply(position, &event);
        if let (Event::Batch { slot, arrival, .. }, true) = (&event, misfits.is_empty()) {
            let session = &mut self.sessions[*slot as usize];
            (session.other_batch, session.other_epoch) = (None, None);
            self.topics[arrival.topic as usize].other_order = None;
        }
        (event, misfits)
    }

    fn blame(&self, event: &Event) -> Blame {
        match *event {
            Event::Batch { slot, ref arrival, first_order } => {
                let topic = &self.topics[arrival.topic as usize];
                let fits = self.table.topic(arrival.topic).is_some_and(|known| known.next_order == first_order);
                if topic.is_from_line && !fits {
                    return Blame::Topic(arrival.topic);
                }
                if self.sessions[slot as usize].is_from_line { Blame::Session(slot) } else { Blame::Entry }
            }
            Event::Open { slot, .. }
            | Event::Close { slot }
            | Event::Fence { slot, .. }
            | Event::LetGo { slot, .. }
                if self.sessions[slot as usize].is_from_line =>
            {
                Blame::Session(slot)
            }
            _ => Blame::Entry,
        }
    }

    /// Takes for known what an event says of what is not known yet.
    fn learn(&mut self, event: &Event) {
        match *event {
            Event::Batch { slot, ref arrival, first_order } => {
                let is_known = self.sessions[slot as usize].is_known;
                let level = if is_known { self.table.session(slot).order_level } else { 0 };
                self.learn_topic(arrival.topic, level);
                let known = &mut self.topics[arrival.topic as usize];
                if !known.is_order_known || known.other_order == Some(first_order) {
                    known.is_order_known = true;
                    self.set_next_order(arrival.topic, first_order);
                }
                let known = self.sessions[slot as usize];
                let session = *self.table.session(slot);
                let fits = session.next_batch == arrival.batch_seq;
                if !is_known {
                    let level = self.table.topic(arrival.topic).map_or(0, |topic| topic.order_level);
                    self.adopt(slot, arrival.session_epoch, arrival.topic, level, arrival.batch_seq);
                } else if session.epoch != arrival.session_epoch && known.other_epoch == Some(arrival.session_epoch) {
                    self.adopt(slot, arrival.session_epoch, arrival.topic, session.order_level, arrival.batch_seq);
                } else if !fits && known.other_batch == Some(arrival.batch_seq) {
                    self.adopt(slot, session.epoch, session.topic, session.order_level, arrival.batch_seq);
                }
            }
            Event::Open { topic, order_level, .. } => self.learn_topic(topic, order_level),
            Event::CursorSet { topic, .. } | Event::TopicDeleted { topic, .. } => self.learn_topic(topic, 0),
            Event::Fence { slot, session_epoch, next_batch } if !self.sessions[slot as usize].is_known => {
                self.adopt(slot, session_epoch, NO_TOPIC, SESSION_LEVEL, next_batch);
            }
            _ => {}
        }
    }

    fn learn_topic(&mut self, topic: u32, order_level: u8) {
        let known = &mut self.topics[topic as usize];
        if known.who == Who::Unknown {
            *known = KnownTopic { who: Who::Somebody, ..KnownTopic::default() };
            self.table.restore_topic(topic, TopicOrder { exists: true, order_level, next_order: 0 });
        }
    }

    fn set_next_order(&mut self, topic: u32, next_order: u64) {
        if let Some(known) = self.table.topic(topic).copied() {
            self.table.restore_topic(topic, TopicOrder { next_order, ..known });
        }
    }

    /// Takes a session for open as it is used. Its id is not known, nor who opened it.
    fn adopt(&mut self, slot: u32, session_epoch: u32, topic: u32, order_level: u8, next_batch: u64) {
        let (session, origin) = (u64::MAX - u64::from(slot), Origin { lane: u16::MAX, slot: slot.into() });
        self.table.apply(&Event::Open { slot, session, session_epoch, topic, order_level, next_batch, origin });
        self.sessions[slot as usize] = KnownSession { is_known: true, ..KnownSession::default() };
    }

    fn check(&self, event: &Event) -> Result<(), FieldFault> {
        if let Event::Batch { slot, ref arrival, .. } = *event {
            let session = self.table.session(slot);
            let is_known = self.sessions[slot as usize].is_known && session.topic != NO_TOPIC;
            if is_known && session.state == State::Open {
                // First: else its order is held against another topic's.
                exactly("topic", arrival.topic.into(), session.topic.into())?;
            }
        }
        check_fold(event, &self.table)?;
        let state = |slot: u32, expected: State| {
            let known = self.sessions[slot as usize].is_known;
            let state = self.table.session(slot).state;
            if known { exactly("state of its session", state as u64, expected as u64) } else { Ok(()) }
        };
        match *event {
            Event::Open { slot, session_epoch: 0 | 1, .. } => state(slot, State::Free),
            Event::Open { slot, session, session_epoch, topic, next_batch, .. } => {
                state(slot, State::Fenced)?;
                self.check_reopened(slot, session, session_epoch, topic, next_batch)
            }
            Event::Close { slot } if self.table.session(slot).state != State::Fenced => state(slot, State::Open),
            Event::Fence { slot, next_batch, .. } => {
                state(slot, State::Open)?;
                exactly("batch_seq", next_batch, self.table.session(slot).next_batch)
            }
            Event::LetGo { slot, session_epoch, from } if self.sessions[slot as usize].is_known => {
                let session = self.table.session(slot);
                exactly("session_epoch", session_epoch.into(), session.epoch.into())?;
                within("batch_seq", from, session.next_batch, u64::MAX)
            }
            _ => Ok(()),
        }
    }

    fn check_reopened(&self, slot: u32, id: u64, epoch: u32, topic: u32, next_batch: u64) -> Result<(), FieldFault> {
        let (known, before) = (self.sessions[slot as usize], self.table.session(slot));
        if !known.is_known {
            return Ok(());
        }
        exactly("session_epoch", epoch.into(), u64::from(before.epoch) + 1)?;
        exactly("batch_seq", next_batch, before.next_batch)?;
        if before.topic != NO_TOPIC {
            exactly("topic", topic.into(), before.topic.into())?;
        }
        if known.is_whole { exactly("first_order", id, before.id) } else { Ok(()) }
    }

    /// Makes an event, or what is known, such that they fit. False: it is left as it is.
    fn put_right(&mut self, event: &mut Event, fault: &FieldFault) -> bool {
        match event {
            Event::Batch { arrival, first_order, .. } if fault.field == "first_order" => {
                let Expected::Range { low, .. } = fault.expected else { return false };
                let known = &mut self.topics[arrival.topic as usize];
                known.other_order = Some(*first_order + u64::from(arrival.message_count));
                if std::mem::take(&mut known.is_from_line) {
                    self.set_next_order(arrival.topic, *first_order);
                } else {
                    *first_order = low;
                }
                true
            }
            Event::Batch { slot, arrival, .. } if fault.field == "batch_seq" => {
                let Expected::Range { low, .. } = fault.expected else { return false };
                let known = &mut self.sessions[*slot as usize];
                if known.is_from_line {
                    let session = *self.table.session(*slot);
                    self.adopt(*slot, session.epoch, session.topic, session.order_level, arrival.batch_seq);
                } else {
                    known.other_batch = Some(arrival.batch_seq + 1);
                    arrival.batch_seq = low;
                }
                true
            }
            Event::Batch { slot, arrival, .. } if fault.field == "session_epoch" || fault.field == "topic" => {
                let (session, known) = (*self.table.session(*slot), &mut self.sessions[*slot as usize]);
                if known.is_from_line {
                    self.adopt(*slot, arrival.session_epoch, arrival.topic, session.order_level, arrival.batch_seq);
                } else {
                    known.other_epoch = Some(arrival.session_epoch);
                    (arrival.session_epoch, arrival.topic) = (session.epoch, session.topic);
                }
                true
            }
            Event::Batch { slot, arrival, first_order } => {
                self.learn_topic_anew(arrival.topic, *first_order);
                let level = self.table.topic(arrival.topic).map_or(0, |topic| topic.order_level);
                self.adopt(*slot, arrival.session_epoch, arrival.topic, level, arrival.batch_seq);
                true
            }
            _ => false,
        }
    }

    fn learn_topic_anew(&mut self, topic: u32, next_order: u64) {
        if self.table.topic(topic).is_none() {
            self.topics[topic as usize] =
                KnownTopic { who: Who::Somebody, is_order_known: true, ..KnownTopic::default() };
            self.table.restore_topic(topic, TopicOrder { exists: true, order_level: 0, next_order });
        }
    }

    fn apply(&mut self, position: u64, event: &Event) {
        self.table.apply(event);
        match *event {
            Event::Batch { slot, ref arrival, first_order } => {
                let (session, topic) = (&mut self.sessions[slot as usize], &mut self.topics[arrival.topic as usize]);
                session.order_end = Some(first_order + u64::from(arrival.message_count));
                (session.is_from_line, topic.is_from_line) = (false, false);
                topic.bytes = topic.bytes.map(|bytes| bytes + u64::from(arrival.batch_bytes));
            }
            Event::Open { slot, session_epoch, .. } => {
                let known = &mut self.sessions[slot as usize];
                let order_end = if session_epoch > 1 { known.order_end } else { Some(0) };
                *known = KnownSession { is_known: true, is_whole: true, order_end, ..KnownSession::default() };
            }
            Event::Close { slot } => self.closed(slot),
            Event::Fence { slot, .. } => self.sessions[slot as usize].is_from_line = false,
            Event::Topic { topic, .. } => {
                let (who, bytes) = (Who::Since(position), Some(0));
                self.topics[topic as usize] = KnownTopic { who, bytes, is_order_known: true, ..KnownTopic::default() };
            }
            Event::TopicDeleted { topic, .. } => {
                self.topics[topic as usize] = KnownTopic { who: Who::Nobody, ..KnownTopic::default() };
                for slot in 0..self.sessions.len() as u32 {
                    if self.sessions[slot as usize].is_known && self.table.session(slot).state == State::Free {
                        self.closed(slot);
                    }
                }
            }
            _ => {}
        }
    }

    fn closed(&mut self, slot: u32) {
        self.sessions[slot as usize] = KnownSession { is_known: true, is_whole: true, ..KnownSession::default() };
    }

    /// Holds a session's checkpoint against the fold, or learns from it what is not known.
    pub fn meet_session(&mut self, slot: u32, line: &SessionLine) -> Result<(), FieldFault> {
        let known = self.sessions[slot as usize];
        if !known.is_known {
            self.learn_session(slot, line);
            return Ok(());
        }
        let session = self.table.session(slot);
        exactly("state", line.state.into(), session.state as u64)?;
        if session.state == State::Free {
            return exactly("session", line.session, 0);
        }
        exactly("session_epoch", line.session_epoch.into(), session.epoch.into())?;
        exactly("next_batch", line.next_batch, session.next_batch)?;
        if let Some(order_end) = known.order_end {
            exactly("order_end", line.order_end, order_end)?;
        }
        if session.topic != NO_TOPIC {
            exactly("topic", line.topic.into(), session.topic.into())?;
        }
        if !known.is_whole {
            return Ok(());
        }
        exactly("session", line.session, session.id)?;
        exactly("order_level", line.order_level.into(), session.order_level.into())?;
        exactly("lane", line.lane.into(), session.opened_by.lane.into())?;
        exactly("lane_slot", line.lane_slot, session.opened_by.slot)
    }

    fn learn_session(&mut self, slot: u32, line: &SessionLine) {
        self.table.apply(&Event::Close { slot });
        if line.state > 0 {
            let origin = Origin { lane: line.lane, slot: line.lane_slot };
            let (session, session_epoch, next_batch) = (line.session, line.session_epoch, line.next_batch);
            let (topic, order_level) = (line.topic, line.order_level as u8);
            self.table.apply(&Event::Open { slot, session, session_epoch, topic, order_level, next_batch, origin });
            if line.state == 2 {
                self.table.apply(&Event::Fence { slot, session_epoch, next_batch });
            }
        }
        let order_end = Some(line.order_end);
        self.sessions[slot as usize] =
            KnownSession { is_known: true, is_whole: true, is_from_line: true, order_end, ..KnownSession::default() };
    }

    /// Holds a topic's progress against the fold, or learns from it what is not known. `created`: the position of the topic that the
    /// table has.
    pub fn meet_topic(&mut self, topic: u32, created: u64, level: u8, line: &TopicProgress) -> Result<(), FieldFault> {
        match self.topics[topic as usize].who {
            // Of another topic that had its number, or has it later.
            Who::Nobody => return Ok(()),
            Who::Since(position) if position != created => return Ok(()),
            _ if line.position < created => return Ok(()),
            _ => {}
        }
        self.learn_topic(topic, level);
        let known = &mut self.topics[topic as usize];
        if !known.is_order_known {
            (known.is_order_known, known.is_from_line) = (true, true);
            self.set_next_order(topic, line.next_order);
            return Ok(());
        }
        let next_order = self.table.topic(topic).map_or(0, |known| known.next_order);
        exactly("next_order", line.next_order, next_order)?;
        known.bytes.map_or(Ok(()), |bytes| exactly("bytes", line.bytes, bytes))
    }
}
