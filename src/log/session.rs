//! One session as its owner finds it in the order index: how far it is committed, whether it was fenced, what to send again. No I/O.
//!
//! For an attached publisher, which has no ack core to tell it. It begins at the watermark before it asks for its session, so
//! everything that happens to the session comes by; if it stood still until its position was given up, it begins again from
//! the checkpoints. Nobody pins for it.

use crate::log::View;
use crate::log::checkpoint::recover;
use crate::log::commit::CommitReader;
use crate::log::damage::sound;
use crate::log::entry::to_sound_event;
use crate::log::order_index::IndexReader;
use crate::log::recover::{FLOOR_LINE, RecoverError, in_record};
use crate::order::table::State;
use crate::order::{Event, Origin};
use crate::pool::Memory;
use crate::pool::record::{FloorLine, IndexEntry};

/// Entries looked at in one step at most.
const ENTRIES_PER_STEP: usize = 64;

/// What has become of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was asked for; nothing was heard.
    Asked,
    /// Its batches are taken.
    Open,
    /// This epoch of it is over.
    Fenced,
    /// It could not be opened: a refusal code.
    Refused(u8),
    /// It was refused, or opened and closed, and which of them is given up by now: nobody followed for so long.
    Unheard,
    /// It is closed for good.
    Closed,
}

/// Follows one session through the index, from before it was asked for.
///
/// Call order: [`Self::new`] **before** the request's slot is published, else its opening may pass by unseen; then [`Self::follow`] in every pass, until it gives 0; after that
/// everything else tells what was found. A fenced session is asked for again by [`Self::ask_again`], with the new request's slot, before that is published.
/// [`Self::take_let_go`] gives each answer once.
#[derive(Debug)]
pub struct SessionFollower<M> {
    view: View<M>,
    commit: CommitReader<M>,
    index: IndexReader<M>,
    entries: Box<[IndexEntry; ENTRIES_PER_STEP]>,
    /// The last request to open it.
    asked: Origin,
    /// Its id; 0 before it opened.
    session: u64,
    standing: Standing,
    slot: u32,
    topic: u32,
    epoch: u32,
    committed_next: u64,
    order_end: u64,
    let_go_from: Option<u64>,
}

impl<M: Memory> SessionFollower<M> {
    /// A follower of a session that is not asked for yet, by the slot that will ask for it.
    pub fn new(view: &View<M>, asked: Origin) -> Self {
        let commit = CommitReader::new(view);
        let position = commit.current().map_or(0, |commit| commit.watermark);
        SessionFollower {
            view: view.clone(),
            commit,
            index: IndexReader::new(view, position),
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_STEP]),
            asked,
            session: 0,
            standing: Standing::Asked,
            slot: 0,
            topic: 0,
            epoch: 0,
            committed_next: 0,
            order_end: 0,
            let_go_from: None,
        }
    }

    /// What has become of it.
    pub fn standing(&self) -> Standing {
        self.standing
    }
    /// Its id: where its opening is in the index. 0 before that is committed.
    pub fn session(&self) -> u64 {
        self.session
    }
    /// Its next epoch is asked for by this slot.
    pub fn ask_again(&mut self, asked: Origin) {
        self.asked = asked;
    }
    /// Its epoch; 0 before it is open.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
    /// Every lower batch of it is committed (below level 5: every lower one of its lane).
    pub fn committed_next(&self) -> u64 {
        self.committed_next
    }
    /// Total order just past its last committed message.
    pub fn order_end(&self) -> u64 {
        self.order_end
    }
    /// The first batch to send again, once.
    pub fn take_let_go(&mut self) -> Option<u64> {
        self.let_go_from.take()
    }

    /// Follows a bounded number of entries. Gives how many; 0 iff there was none.
    ///
    /// # Errors
    /// What is damaged in the pool.
    pub fn follow(&mut self) -> Result<usize, RecoverError> {
        let Some(commit) = self.commit.current() else { return Ok(0) };
        let read = self.index.read(&commit, &mut self.entries[..]);
        if read == Ok(0) {
            return Ok(0);
        }
        // An ack cannot be undone; and what was read is what was committed only if it was not given up by then.
        let floors = self.commit.peek::<FloorLine>(commit, |candidate| self.view.layout.floor_line(candidate));
        let Some((_, floors)) = floors.filter(|_| self.commit.confirm(commit.epoch)) else { return Ok(0) };
        let floors = sound(floors).map_err(in_record(FLOOR_LINE, commit.candidate))?;
        if floors.floor > self.index.next() {
            return self.start_again();
        }
        let count = read.map_err(RecoverError::Damaged)?;
        for offset in 0..count {
            let event = to_sound_event(self.index.next(), &self.entries[offset], &self.view.layout);
            self.take(event.map_err(RecoverError::Damaged)?);
            self.index.advance(1);
        }
        Ok(count)
    }

    fn start_again(&mut self) -> Result<usize, RecoverError> {
        let recovered = match recover(&self.view, &self.commit) {
            Ok(Some(recovered)) if self.commit.confirm(recovered.commit.epoch) => recovered,
            Ok(_) | Err(RecoverError::Unsettled) => return Ok(0),
            Err(error) => return Err(error),
        };
        self.index.seek(recovered.commit.watermark);
        let known = recovered.table.slot_of(self.session).or_else(|| recovered.table.opened_by(self.asked));
        let Some(slot) = known else {
            let is_taken = recovered.lanes[usize::from(self.asked.lane)].consumed > self.asked.slot;
            self.standing = match self.standing {
                Standing::Asked if is_taken => Standing::Unheard,
                Standing::Asked => Standing::Asked,
                _ => Standing::Closed,
            };
            return Ok(1);
        };
        let session = recovered.table.session(slot);
        self.session = session.id;
        (self.slot, self.topic, self.epoch, self.order_end) = (slot, session.topic, session.epoch, session.order_end);
        self.committed_next = session.next_batch;
        // A let-go may have been among what it missed. Batches of one lane are let go behind a gap only, which a fence ends: what
        // is missing then is sent again.
        self.standing = if session.state == State::Fenced { Standing::Fenced } else { Standing::Open };
        Ok(1)
    }

    fn take(&mut self, event: Event) {
        let is_ours = |slot: u32| slot == self.slot && matches!(self.standing, Standing::Open | Standing::Fenced);
        match event {
            Event::Batch { slot, arrival, first_order } if is_ours(slot) && arrival.session_epoch == self.epoch => {
                self.committed_next = arrival.batch_seq + 1;
                self.order_end = first_order + u64::from(arrival.message_count);
            }
            Event::Open { slot, session, session_epoch, topic, next_batch, origin, .. }
                if session == self.session || origin == self.asked =>
            {
                (self.session, self.slot, self.topic) = (session, slot, topic);
                (self.epoch, self.committed_next) = (session_epoch, next_batch);
                (self.standing, self.let_go_from) = (Standing::Open, None);
            }
            Event::Refused { code, origin } if origin == self.asked => self.standing = Standing::Refused(code),
            Event::Fence { slot, session_epoch, next_batch } if is_ours(slot) && session_epoch == self.epoch => {
                (self.standing, self.committed_next) = (Standing::Fenced, next_batch);
            }
            Event::LetGo { slot, session_epoch, from } if is_ours(slot) && session_epoch == self.epoch => {
                self.let_go_from = Some(self.let_go_from.map_or(from, |before| before.min(from)));
            }
            Event::Close { slot } if is_ours(slot) => self.standing = Standing::Closed,
            Event::TopicDeleted { topic, .. } if topic == self.topic && is_ours(self.slot) => {
                self.standing = Standing::Closed;
            }
            _ => {}
        }
    }
}
