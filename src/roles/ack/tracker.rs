//! What an ack core knows: the fold of the index, and which connections care about which session. No I/O.
//!
//! Follows the committed index, confirmed through the one accessor: an ack cannot be undone.

use crate::log::View;
use crate::log::checkpoint::{check_claims, recover};
use crate::log::commit::{CommitReader, Epoch};
use crate::log::damage::sound;
use crate::log::entry::{check_fold, to_sound_event};
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::recover::{FLOOR_LINE, RecoverError, in_record};
use crate::observe::slowest::SlowBatch;
use crate::observe::stages::{LastStage, Places};
use crate::order::table::State;
use crate::order::{Event, Origin, SessionTable};
use crate::pool::Memory;
use crate::pool::record::{FloorLine, IndexEntry};
use crate::wire::frame::{ACK_FENCED, Ack, NOTHING_LET_GO};

/// Entries followed in one pass at most.
pub const ENTRIES_PER_PASS: usize = 256;
const NONE: u32 = u32::MAX;
/// Times in a row that entries may be neither gone nor there before that is damage.
const NOT_NOW_MAX: u32 = 1000;

/// Local state of a session besides the fold.
#[derive(Clone, Copy)]
struct Local {
    /// Messages acked that came in through this broker.
    broker_messages: u64,
    /// First of its connections here; they are linked by `Tracker::next_of`.
    first: u32,
    /// In `Tracker::dirty`.
    dirty: bool,
    /// Moved by batches of other brokers only, which tell of it themselves.
    hearsay: bool,
    /// In `Tracker::hearsay`.
    is_heard: bool,
}

const BLANK: Local = Local { broker_messages: 0, first: NONE, dirty: false, hearsay: false, is_heard: false };

/// Something a follower must tell connections besides acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A session could not be opened.
    Refused {
        /// The request.
        origin: Origin,
        /// Refusal code.
        code: u8,
    },
    /// A session closed; its connections were taken off it, from `first` on.
    Closed {
        /// The first of its connections.
        first: u32,
    },
    /// A session's topic was deleted, and the session with it; its connections were taken off it, from `first` on.
    TopicDeleted {
        /// The first of its connections.
        first: u32,
    },
}

/// Follows the index for one broker's ack core.
pub struct Tracker<M> {
    view: View<M>,
    commit: CommitReader<M>,
    index: IndexReader<M>,
    epoch: Epoch,
    table: SessionTable,
    locals: Vec<Local>,
    /// Per connection: the next connection of its session.
    next_of: Vec<u32>,
    slot_of: Vec<u32>,
    /// Per connection: resend from here, once.
    let_go_from: Vec<u64>,
    dirty: Vec<u32>,
    hearsay: Vec<u32>,
    lanes: std::ops::Range<u16>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    acked_messages: u64,
    acked_batches: u64,
    /// When they were where.
    pub times: LastStage<M>,
    is_started: bool,
    /// How often in a row the next entry's segment could not be made out.
    not_now: u32,
}

impl<M: Memory> Tracker<M> {
    /// A follower for a broker with at most `connections` connections.
    pub fn new(view: &View<M>, broker: u32, connections: u32) -> Self {
        let g = view.layout.geometry;
        let first = (broker * g.lanes_per_broker) as u16;
        Tracker {
            view: view.clone(),
            commit: CommitReader::new(view),
            index: IndexReader::new(view, 0),
            epoch: 0,
            table: SessionTable::new(g.sessions_max, g.topics_max),
            locals: vec![BLANK; g.sessions_max as usize],
            next_of: vec![NONE; connections as usize],
            slot_of: vec![NONE; connections as usize],
            let_go_from: vec![NOTHING_LET_GO; connections as usize],
            dirty: Vec::with_capacity(g.sessions_max as usize),
            hearsay: Vec::with_capacity(g.sessions_max as usize),
            lanes: first..first + g.lanes_per_broker as u16,
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_PASS]),
            acked_messages: 0,
            acked_batches: 0,
            times: LastStage::new(
                &view.memory,
                &view.layout,
                Places::of_acks(&view.layout, broker),
                4 * ENTRIES_PER_PASS,
            ),
            is_started: false,
            not_now: 0,
        }
    }

    /// Whether a sequencer has been seen.
    pub fn is_started(&self) -> bool {
        self.is_started
    }

    /// The fold so far.
    pub fn table(&self) -> &SessionTable {
        &self.table
    }

    /// Messages acked that came in through this broker.
    pub fn acked_messages(&self) -> u64 {
        self.acked_messages
    }

    /// Batches acked that came in through this broker.
    pub fn acked_batches(&self) -> u64 {
        self.acked_batches
    }

    /// Position up to which it has followed.
    pub fn position(&self) -> u64 {
        self.index.next()
    }

    /// Position it must reach to know all that is committed now.
    pub fn watermark(&self) -> Option<u64> {
        self.commit.current().map(|commit| commit.watermark)
    }

    /// Begins where the sequencer's checkpoints and index end. False: no sequencer yet, or try again.
    fn start(&mut self) -> Result<bool, RecoverError> {
        // A claim that is damaged would be above every epoch: it is looked for first.
        check_claims(&self.commit)?;
        let Some(before) = self.commit.current() else { return Ok(false) };
        let recovered = recover(&self.view, &self.commit);
        // Damage counts, too, only while the epoch it was found under is the highest: what a sequencer that was succeeded wrote
        // may be used again.
        if !self.commit.confirm(before.epoch) {
            return Ok(false);
        }
        let Some(recovered) = recovered? else { return Ok(false) };
        self.table = recovered.table;
        self.index.seek(recovered.commit.watermark);
        self.epoch = recovered.commit.epoch;
        self.is_started = true;
        Ok(true)
    }

    /// Follows a bounded number of entries. Gives how many; `tell` hears of what is no ack.
    ///
    /// # Errors
    /// If the index is damaged. A follower that stood still until its position was given up begins again from the checkpoints.
    pub fn follow(&mut self, tell: &mut impl FnMut(News)) -> Result<usize, RecoverError> {
        if !self.is_started {
            return match self.start() {
                Ok(started) => Ok(usize::from(started)),
                Err(RecoverError::Unsettled) => Ok(0),
                Err(error) => Err(error),
            };
        }
        let Some(commit) = self.commit.current() else { return Ok(0) };
        if commit.epoch != self.epoch {
            return Ok(self.change_epoch(commit.epoch));
        }
        let read = self.index.read(&commit, &mut self.entries[..]);
        if read == Ok(0) {
            return Ok(0);
        }
        self.times.committed(commit.candidate, self.view.access_to_candidate(commit.candidate), commit.watermark);
        // Nobody pins for an ack core. What was read is what was committed only if it was not given up by then.
        let floors = self.commit.peek::<FloorLine>(commit, |candidate| self.view.layout.floor_line(candidate));
        let Some((_, floors)) = floors.filter(|_| self.commit.confirm(commit.epoch)) else { return Ok(0) };
        let floors = sound(floors).map_err(in_record(FLOOR_LINE, commit.candidate))?;
        if floors.floor > self.index.next() {
            return self.start_again(tell);
        }
        // What is not below the floor is not gone: its segment could not be made out just now.
        if matches!(read, Err(IndexFault::Trimmed { .. })) && self.not_now < NOT_NOW_MAX {
            self.not_now += 1;
            return Ok(0);
        }
        let count = read.map_err(RecoverError::Damaged)?;
        self.not_now = 0;
        for index in 0..count {
            let position = self.index.next();
            let event = to_sound_event(position, &self.entries[index], &self.view.layout);
            let event = event.map_err(RecoverError::Damaged)?;
            check_fold(&event, &self.table)
                .map_err(|fault| RecoverError::Damaged(IndexFault::Damaged { position, fault }))?;
            self.take(event, tell);
            self.index.advance(1);
        }
        Ok(count)
    }

    /// Its position was given up while it stood still: whatever happened meanwhile is in the checkpoints.
    fn start_again(&mut self, tell: &mut impl FnMut(News)) -> Result<usize, RecoverError> {
        let ids: Vec<u64> = self.table.sessions().iter().map(|session| session.id).collect();
        match self.start() {
            Ok(true) => {}
            Ok(false) | Err(RecoverError::Unsettled) => return Ok(0),
            Err(error) => return Err(error),
        }
        for (slot, id) in ids.into_iter().enumerate() {
            if self.locals[slot].first == NONE {
                continue;
            }
            if self.table.session(slot as u32).id == id {
                // A let-go may have been among what it missed.
                self.let_go(slot as u32, self.table.session(slot as u32).next_batch);
            } else {
                self.forget(slot as u32, &mut |first| tell(News::Closed { first }));
            }
        }
        Ok(1)
    }

    /// A session closed: its connections are nobody's.
    fn forget(&mut self, slot: u32, tell: &mut impl FnMut(u32)) {
        let local = &mut self.locals[slot as usize];
        // What lists it is not asked to forget it.
        let blank = Local { dirty: local.dirty, is_heard: local.is_heard, ..BLANK };
        let first = std::mem::replace(local, blank).first;
        if first != NONE {
            tell(first);
        }
    }

    /// A new sequencer has forgotten what was parked: publishers send everything unacked again.
    fn change_epoch(&mut self, epoch: Epoch) -> usize {
        self.epoch = epoch;
        for slot in 0..self.locals.len() as u32 {
            if self.locals[slot as usize].first != NONE {
                self.let_go(slot, self.table.session(slot).next_batch);
            }
        }
        1
    }

    /// Folds in an event that was checked.
    fn take(&mut self, event: Event, tell: &mut impl FnMut(News)) {
        match event {
            Event::Close { slot } => self.forget(slot, &mut |first| tell(News::Closed { first })),
            Event::TopicDeleted { topic, .. } => {
                for slot in 0..self.locals.len() as u32 {
                    let session = self.table.session(slot);
                    if session.state != State::Free && session.topic == topic {
                        self.forget(slot, &mut |first| tell(News::TopicDeleted { first }));
                    }
                }
            }
            _ => {}
        }
        self.table.apply(&event);
        match event {
            Event::Batch { slot, arrival, .. } => {
                if self.lanes.contains(&arrival.lane) {
                    self.locals[slot as usize].broker_messages += u64::from(arrival.message_count);
                    self.acked_messages += u64::from(arrival.message_count);
                    self.acked_batches += 1;
                    let session = self.table.session(slot).id;
                    self.times.take(SlowBatch::of(self.index.next(), session, &arrival));
                    self.touch(slot);
                } else {
                    self.hear(slot);
                }
            }
            Event::Open { slot, .. } | Event::Fence { slot, .. } => self.touch(slot),
            Event::LetGo { slot, from, .. } => self.let_go(slot, from),
            Event::Refused { code, origin } => tell(News::Refused { origin, code }),
            Event::Close { .. }
            | Event::Topic { .. }
            | Event::TopicDeleted { .. }
            | Event::CursorSet { .. }
            | Event::CursorDelete { .. }
            | Event::Granted { .. }
            | Event::ExtentClosed { .. } => {}
        }
    }

    /// A session's frontier moved by another broker's batch.
    fn hear(&mut self, slot: u32) {
        let local = &mut self.locals[slot as usize];
        local.hearsay = local.first != NONE;
        if local.hearsay && !std::mem::replace(&mut local.is_heard, true) {
            self.hearsay.push(slot);
        }
    }

    fn touch(&mut self, slot: u32) {
        let local = &mut self.locals[slot as usize];
        local.hearsay = false;
        if local.first != NONE && !std::mem::replace(&mut local.dirty, true) {
            self.dirty.push(slot);
        }
    }

    fn let_go(&mut self, slot: u32, from: u64) {
        let mut connection = self.locals[slot as usize].first;
        while connection != NONE {
            let told = &mut self.let_go_from[connection as usize];
            *told = from.min(*told);
            connection = self.next_of[connection as usize];
        }
        self.touch(slot);
    }

    /// A session whose connections have something to hear.
    pub fn take_dirty(&mut self) -> Option<u32> {
        let slot = self.dirty.pop()?;
        self.locals[slot as usize].dirty = false;
        Some(slot)
    }

    /// A session whose connections were told nothing since another broker's batch moved it.
    pub fn take_hearsay(&mut self) -> Option<u32> {
        while let Some(slot) = self.hearsay.pop() {
            let local = &mut self.locals[slot as usize];
            local.is_heard = false;
            if std::mem::take(&mut local.hearsay) {
                return Some(slot);
            }
        }
        None
    }

    /// The first connection of a session, by its place in the table; the others follow with [`Self::next_of`].
    pub fn first_of(&self, slot: u32) -> Option<u32> {
        Some(self.locals[slot as usize].first).filter(|first| *first != NONE)
    }

    /// The next connection of the same session.
    pub fn next_of(&self, connection: u32) -> Option<u32> {
        Some(self.next_of[connection as usize]).filter(|next| *next != NONE)
    }

    /// Puts a connection on a session that is open.
    pub fn attach(&mut self, connection: u32, slot: u32) {
        self.slot_of[connection as usize] = slot;
        self.next_of[connection as usize] = std::mem::replace(&mut self.locals[slot as usize].first, connection);
        self.let_go_from[connection as usize] = NOTHING_LET_GO;
    }

    /// Takes a connection off its session.
    pub fn detach(&mut self, connection: u32) {
        let slot = std::mem::replace(&mut self.slot_of[connection as usize], NONE);
        let after = std::mem::replace(&mut self.next_of[connection as usize], NONE);
        if slot == NONE {
            return;
        }
        let mut link = self.locals[slot as usize].first;
        if link == connection {
            self.locals[slot as usize].first = after;
            return;
        }
        while link != NONE {
            let next = self.next_of[link as usize];
            if next == connection {
                self.next_of[link as usize] = after;
                return;
            }
            link = next;
        }
    }

    /// The ack that stands for everything known of a connection's session now.
    pub fn ack(&mut self, connection: u32) -> Option<Ack> {
        let slot = self.slot_of[connection as usize];
        if slot == NONE {
            return None;
        }
        let session = self.table.session(slot);
        let let_go_from = std::mem::replace(&mut self.let_go_from[connection as usize], NOTHING_LET_GO);
        Some(Ack {
            flags: if session.state == State::Fenced { ACK_FENCED } else { 0 },
            session_epoch: session.epoch,
            session: session.id,
            committed_next: session.next_batch,
            order_end: session.order_end,
            broker_messages: self.locals[slot as usize].broker_messages,
            let_go_from,
            ..Ack::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::plain_view;
    use crate::order::event::Arrival;
    use crate::testing::memory::HostMemory;

    /// Broker 0's follower, with connection 0 on an open session.
    fn tracker() -> Tracker<HostMemory> {
        let mut tracker = Tracker::new(&plain_view(1), 0, 2);
        let open = Event::Open {
            slot: 0,
            session: 9,
            session_epoch: 1,
            topic: 0,
            order_level: 5,
            next_batch: 0,
            origin: Origin::default(),
        };
        take(&mut tracker, &Event::Topic { topic: 0, order_level: 5, lane: 0, lane_slot: 0, blog_at: 0 });
        take(&mut tracker, &open);
        tracker.attach(0, 0);
        tracker
    }

    fn take(tracker: &mut Tracker<HostMemory>, event: &Event) {
        tracker.take(*event, &mut |_| panic!("no news"));
    }

    fn batch(lane: u16, batch_seq: u64) -> Event {
        let arrival = Arrival { lane, session: 9, session_epoch: 1, batch_seq, message_count: 2, ..Arrival::default() };
        Event::Batch { slot: 0, arrival, first_order: 2 * batch_seq }
    }

    #[test]
    fn another_brokers_batch_is_hearsay_until_there_is_news_of_our_own() {
        let mut tracker = tracker();
        take(&mut tracker, &batch(1, 0));
        take(&mut tracker, &batch(1, 1));
        assert_eq!(tracker.take_dirty(), None);
        assert_eq!((tracker.take_hearsay(), tracker.take_hearsay()), (Some(0), None));
        let ack = tracker.ack(0).unwrap();
        assert_eq!((ack.committed_next, ack.broker_messages), (2, 0));
        // Our own batch tells of the others' as well: nothing is left to pass on.
        take(&mut tracker, &batch(1, 2));
        take(&mut tracker, &batch(0, 3));
        assert_eq!((tracker.take_dirty(), tracker.take_dirty()), (Some(0), None));
        assert_eq!(tracker.ack(0).unwrap().committed_next, 4);
        assert_eq!(tracker.take_hearsay(), None);
        take(&mut tracker, &batch(1, 4));
        assert_eq!((tracker.take_hearsay(), tracker.take_dirty()), (Some(0), None));
    }

    #[test]
    fn a_session_without_connections_here_is_nobodys_news() {
        let mut tracker = tracker();
        assert_eq!(tracker.take_hearsay(), None);
        tracker.detach(0);
        take(&mut tracker, &batch(1, 0));
        take(&mut tracker, &batch(0, 1));
        assert_eq!((tracker.take_hearsay(), tracker.take_dirty()), (None, None));
    }
}
