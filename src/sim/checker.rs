//! The promises, held against the memory behind all caches and against what clients heard.
//!
//! The checker is no host: it reads the pool behind the caches, after every step and whenever a part is held up, and keeps
//! the committed log as it grew. Promises, by number:
//! 1. the index is dense: below the watermark entry *i* has guard *i* + 1, for ever the same entry;
//! 2. the total order of each topic is dense, and a topic that was deleted is not there;
//! 3. the committed batches of a session are 0, 1, 2, … and at level 5 hold its messages in the order they were sent;
//! 4. after a fence nothing of that epoch at or above the frontier is committed;
//! 5. what was acked is committed, and stays so under every later epoch; at level 0 it is committed in the end;
//! 7. every byte of a committed batch is there, receipts included;
//! 8. memory is not used again while somebody may read it: a reader's bytes are those committed, and what is kept is not told
//!    to be gone;
//! 9. what came in is accounted for;
//! 10. every reader sees what the log holds, at the same order.
//!
//! 0 stands for rest: everything under way ends.

mod batches;
mod history;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::log::damage::sound;
use crate::pool::Layout;
use crate::pool::record::{
    BODY_WORDS, EpochLine, FloorLine, IndexEntry, LaneProgress, Record, SegmentLine, TopicLine, entry_kind,
};
pub use crate::sim::checker::batches::Stamps;
pub use crate::sim::checker::history::Violation;
use crate::sim::checker::history::{History, broken};
use crate::sim::part::Part;
use crate::sim::scenario::Scenario;
use crate::sim::trace::Event;
use crate::testing::memory::SharedMemory;
use crate::wire::frame::Deliver;

/// What somebody was told, to be found in the log.
#[derive(Clone, Debug)]
enum Claim {
    /// Batches of a session below a number are committed.
    Acked { session: u64, next: u64 },
    /// Messages of a client are committed, by whichever of its sessions.
    Sent { client: u64, first: u64, end: u64 },
    /// A session was opened for a client.
    Opened { session: u64, client: u64 },
    /// A batch of a topic was delivered.
    Delivered(String, Deliver),
    /// A topic's message of this order was told to be gone.
    Gone(String, u64),
    /// A topic's message of this order was skipped by one that was too slow.
    Skipped(String, u64),
    /// Of one of these names more topics were deleted than so many.
    Deleted(Part, Vec<(String, usize)>),
    /// The topic of this name and generation was deleted.
    Erased(String, u64),
    /// A client's session is over: it was closed or expired, or more topics of this name were deleted than so many.
    Over(Part, u64, (String, usize)),
}

/// See the head of the file.
pub struct Checker {
    layout: Arc<Layout>,
    epoch: u64,
    epochs: u64,
    floor: u64,
    /// The highest position up to which anybody ever said that it might give up.
    closing: u64,
    /// The highest position up to which memory was ever wanted.
    wanted: u64,
    told_gone: usize,
    history: History,
    /// For whom each session was opened, as its client was told.
    owners: HashMap<u64, u64>,
    claims: Vec<Claim>,
    /// Batches below a number of a session are in the pool, and so committed in the end: acks of level 0.
    landed: HashMap<u64, u64>,
    /// An extent whose memory failed, and the highest epoch that was claimed before: no later one grants it.
    failed: Option<(u32, u64)>,
}

/// A record behind the caches. `None`: blank, or in mid-rewrite.
fn record<R: Record>(memory: &SharedMemory, at: u64) -> Option<(u64, R)> {
    memory.behind_caches(at, 64, |bytes| {
        let word = |index: usize| u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().expect("a word"));
        let mut words = [0; BODY_WORDS];
        words.iter_mut().enumerate().for_each(|(index, body)| *body = word(index + 1));
        (word(0) != 0).then(|| (word(0), R::from_words(words)))
    })
}

impl Checker {
    /// Of a pool nobody has used yet.
    pub fn new(layout: Arc<Layout>, scenario: &Scenario) -> Checker {
        Checker {
            history: History::new(layout.clone(), scenario),
            layout,
            epoch: 0,
            epochs: 0,
            floor: 0,
            closing: 0,
            wanted: 0,
            told_gone: 0,
            owners: HashMap::new(),
            claims: Vec::new(),
            landed: HashMap::new(),
            failed: None,
        }
    }

    /// Positions committed.
    pub fn committed(&self) -> u64 {
        self.history.committed()
    }
    /// Where the batch of a slot of a lane stands in the log, if it is known to.
    pub fn position_of(&self, lane: u16, slot: u64) -> Option<u64> {
        let is_meant =
            |entry: &IndexEntry| (entry.kind, entry.lane, entry.lane_slot) == (entry_kind::BATCH, lane, slot);
        self.history.log.iter().position(is_meant).map(|position| position as u64)
    }
    /// Epochs that were current.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }
    /// Fences committed.
    pub fn fences(&self) -> u64 {
        self.history.fences
    }
    /// Positions given up.
    pub fn floor(&self) -> u64 {
        self.floor
    }
    /// Times that a reader was told that what it asked for is gone.
    pub fn told_gone(&self) -> usize {
        self.told_gone
    }
    /// Order of a topic's next message, if it is there.
    pub fn next_order(&self, topic: &str) -> Option<u64> {
        self.history.topic(topic).map(|topic| topic.next_order)
    }
    /// Topics of this name that are deleted for everybody. One whose deletion is committed may stand in the table a moment longer, and who
    /// begins then is served from it, and told.
    pub fn deletions(&self, memory: &SharedMemory, name: &str) -> usize {
        let candidate = (self.epoch.max(1) - 1) % u64::from(self.layout.geometry.candidates);
        let stands = self.history.last_deleted(name).is_some_and(|topic| {
            let at = self.layout.topic_line(candidate as u32, topic.id, 0);
            let line = record::<TopicLine>(memory, at);
            line.is_none_or(|(_, line)| line.name_bytes > 0 && line.created_position == topic.created)
        });
        self.history.deletions(name) - usize::from(stands)
    }

    /// Looks at the memory behind the caches.
    pub fn look(&mut self, memory: &SharedMemory, note: &mut impl FnMut(Event)) -> Result<(), Violation> {
        // Whatever the guards say: a line is rewritten in place, and what it said before was seen.
        for candidate in 0..self.layout.geometry.candidates {
            let words = |bytes: &[u8]| FloorLine::from_words(bytemuck::pod_read_unaligned(bytes));
            let line = memory.behind_caches(self.layout.floor_line(candidate) + 8, 56, words);
            self.closing = self.closing.max(line.closing);
            self.wanted = self.wanted.max(line.wanted).max(line.closing);
        }
        let Some((candidate, line)) = self.current(memory) else { return Ok(()) };
        if line.active < self.epoch {
            return broken(5, format!("epoch {} is current after epoch {}", line.active, self.epoch));
        }
        if line.watermark < self.committed() {
            let (found, before) = (line.watermark, self.committed());
            return broken(5, format!("epoch {}: watermark {found} after {before} was committed", line.active));
        }
        self.see_floor(memory, candidate, note)?;
        if line.active > self.epoch {
            note(Event::Epoch(line.active, line.watermark));
            (self.epoch, self.epochs) = (line.active, self.epochs + 1);
            self.nothing_changed(memory)?;
        }
        while self.committed() < line.watermark {
            let position = self.committed();
            let entry = self.entry(memory, position)?;
            self.history.take(memory, entry, self.floor, note)?;
        }
        self.settle_claims()
    }

    /// The current epoch line, if which one it is cannot be in doubt.
    fn current(&self, memory: &SharedMemory) -> Option<(u32, EpochLine)> {
        let lines = || (0..self.layout.geometry.candidates).map(|candidate| self.epoch_line(memory, candidate));
        let (candidate, best) = (0..).zip(lines()).max_by_key(|(_, line)| line.active)?;
        let is_claimed = best.active > 0 && lines().any(|line| line.claimed > best.active);
        (best.active > 0 && !is_claimed).then_some((candidate, best))
    }

    /// Words, whatever the guard says, as every reader takes them: a line whose writer was killed in the middle of it still counts,
    /// and may stay so for long.
    fn epoch_line(&self, memory: &SharedMemory, candidate: u32) -> EpochLine {
        let at = self.layout.epoch_line(candidate);
        memory.behind_caches(at + 8, 56, |bytes| EpochLine::from_words(bytemuck::pod_read_unaligned(bytes)))
    }

    fn see_floor(
        &mut self,
        memory: &SharedMemory,
        candidate: u32,
        note: &mut impl FnMut(Event),
    ) -> Result<(), Violation> {
        let Some((_, floors)) = record::<FloorLine>(memory, self.layout.floor_line(candidate)) else { return Ok(()) };
        // No run damages memory: whoever wrote or mended it left the check of other words.
        let floors: FloorLine = match sound(floors) {
            Ok(floors) => floors,
            Err(fault) => return broken(1, format!("floor line of candidate {candidate}: {fault}")),
        };
        if floors.floor > self.floor {
            self.floor = floors.floor;
            note(Event::Floor(self.floor));
        }
        Ok(())
    }

    /// The entry at a committed position, found as any reader finds it; of one that is given up already, as the readers of an epoch before could:
    /// nobody looks while which epoch is current is in doubt, and one that is superseded may commit and give up in that time.
    fn entry(&self, memory: &SharedMemory, position: u64) -> Result<IndexEntry, Violation> {
        let of_old = || (position < self.floor).then(|| self.segment_of(memory, position, 1..self.epoch)).flatten();
        let segment = self.segment_of(memory, position, self.epoch..self.epoch + 1).or_else(of_old);
        let Some((_, first, owner, number, epoch)) = segment else {
            return broken(1, format!("no segment holds committed position {position}"));
        };
        let at = self.layout.index_entry(owner, number, position - first);
        match record::<IndexEntry>(memory, at) {
            Some((guard, entry)) if guard == position + 1 && u64::from(entry.epoch) <= epoch => Ok(entry),
            found => broken(1, format!("committed position {position} of epoch {epoch} holds {found:?}")),
        }
    }

    /// The last of `epochs` and of its segments that holds a position: epoch, first position, owner, number, and by which epoch it was filled.
    fn segment_of(
        &self,
        memory: &SharedMemory,
        position: u64,
        epochs: Range<u64>,
    ) -> Option<(u64, u64, u32, u64, u64)> {
        let g = &self.layout.geometry;
        let mut best = None;
        for (bank, owner) in (0..2).flat_map(|bank| (0..g.candidates).map(move |owner| (bank, owner))) {
            for (candidate, place) in
                (0..g.candidates).flat_map(|own| (0..u64::from(g.segments)).map(move |place| (own, place)))
            {
                let at = self.layout.directory_line(candidate, bank, owner, place);
                let Some((guard, line)) = record::<SegmentLine>(memory, at) else { continue };
                if epochs.contains(&line.epoch) && (line.first..line.end).contains(&position) {
                    best = best.max(Some((line.epoch, line.first, owner, guard - 1, line.filled_by)));
                }
            }
        }
        best
    }

    /// Under a new epoch everything kept is what it was.
    fn nothing_changed(&self, memory: &SharedMemory) -> Result<(), Violation> {
        for position in self.floor..self.committed() {
            let entry = self.entry(memory, position)?;
            let before = self.history.log[position as usize];
            if entry != before {
                return broken(1, format!("position {position} was {before:?}, now it is {entry:?}"));
            }
        }
        Ok(())
    }

    /// A publisher was told that batches of its session below `next` are committed.
    pub fn acked(&mut self, session: u64, next: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Acked { session, next });
        Ok(())
    }

    /// A publisher that asked for a session was told that this one is its own.
    pub fn opened(&mut self, session: u64, client: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Opened { session, client });
        Ok(())
    }

    /// A publisher was told that batches of its session below `next` are in the pool.
    pub fn landed(&mut self, session: u64, next: u64) -> Result<(), Violation> {
        let told = self.landed.entry(session).or_default();
        *told = next.max(*told);
        Ok(())
    }

    /// A publisher took these of its messages for committed.
    pub fn sent(&mut self, client: u64, first: u64, end: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Sent { client, first, end });
        Ok(())
    }

    /// A subscriber was handed a batch of a topic.
    pub fn delivered(&mut self, topic: &str, deliver: Deliver) -> Result<(), Violation> {
        self.claims.push(Claim::Delivered(topic.to_owned(), deliver));
        Ok(())
    }

    /// A subscriber that asked for the message of this order was told that it is gone.
    pub fn gone(&mut self, topic: &str, order: u64) -> Result<(), Violation> {
        self.told_gone += 1;
        self.claims.push(Claim::Gone(topic.to_owned(), order));
        Ok(())
    }

    /// A subscriber that skips when it is too slow was told that the message of this order was given up.
    pub fn skipped(&mut self, topic: &str, order: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Skipped(topic.to_owned(), order));
        Ok(())
    }

    /// A client was told that one of its topics was deleted, or is not there; when it began, so many of each name had been deleted.
    pub fn deleted(&mut self, client: Part, topics: &[(String, usize)]) -> Result<(), Violation> {
        self.claims.push(Claim::Deleted(client, topics.to_vec()));
        Ok(())
    }

    /// Whoever asked for the deletion of the topic of this generation was told that it is done.
    pub fn erased(&mut self, name: &str, generation: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Erased(name.to_owned(), generation));
        Ok(())
    }

    /// A client was told that its session is not known; when it began, so many topics of the name had been deleted.
    pub fn over(&mut self, client: Part, session: u64, topic: &(String, usize)) -> Result<(), Violation> {
        self.claims.push(Claim::Over(client, session, topic.clone()));
        Ok(())
    }

    /// Holds what somebody was told against the log, now that the log is known.
    fn settle_claims(&mut self) -> Result<(), Violation> {
        for claim in std::mem::take(&mut self.claims) {
            match claim {
                Claim::Acked { session, next } => {
                    let frontier = self.history.frontier(session);
                    if frontier < next {
                        return broken(
                            5,
                            format!("session {session:#x} was acked below {next}, committed is {frontier}"),
                        );
                    }
                }
                Claim::Sent { client, first, end } if self.history.has_messages(client, first..end) => {}
                Claim::Sent { client, first, end } => {
                    return broken(
                        5,
                        format!("messages {first} to {end} of client {client:#x} were acked, some are not there"),
                    );
                }
                Claim::Opened { session, client } => self.check_opened(session, client)?,
                Claim::Delivered(topic, deliver) => self.check_delivered(&topic, &deliver)?,
                Claim::Gone(topic, order) => self.check_gone(&topic, order, self.closing)?,
                Claim::Skipped(topic, order) => self.check_gone(&topic, order, self.wanted)?,
                Claim::Deleted(client, topics) => {
                    if !topics.iter().any(|topic| self.history.is_deleted_since(topic)) {
                        return broken(5, format!("{client} was told that one of {topics:?} was deleted since"));
                    }
                }
                Claim::Over(_, session, _) if self.history.is_closed(session) => {}
                Claim::Over(_, _, topic) if self.history.is_deleted_since(&topic) => {}
                Claim::Over(client, session, topic) => {
                    let text = format!("{client} was told that session {session:#x} of {topic:?} is over");
                    return broken(5, text);
                }
                Claim::Erased(name, generation) if self.history.is_deleted(&name, generation) => {}
                Claim::Erased(name, generation) => {
                    return broken(5, format!("topic {name:?} of generation {generation} was told to be deleted"));
                }
            }
        }
        Ok(())
    }

    /// An id is told once its opening is committed, and to nobody else: what was never committed may get its position again.
    fn check_opened(&mut self, session: u64, client: u64) -> Result<(), Violation> {
        if !self.history.is_known(session) {
            return broken(5, format!("client {client:#x} was told of session {session:#x}, which nobody opened"));
        }
        match self.owners.insert(session, client) {
            Some(owner) if owner != client => {
                broken(3, format!("session {session:#x} was opened for {owner:#x}, and for client {client:#x}"))
            }
            _ => Ok(()),
        }
    }

    fn check_delivered(&self, name: &str, deliver: &Deliver) -> Result<(), Violation> {
        let Some(entry) = self.history.log.get(deliver.position as usize) else {
            return broken(5, format!("{deliver:?} was delivered; {} positions are committed", self.committed()));
        };
        let same = entry.kind == entry_kind::BATCH
            && entry.first_order == deliver.first_order
            && entry.message_count == deliver.message_count
            && entry.batch_seq == deliver.batch_seq
            && entry.session_epoch == deliver.session_epoch;
        let topic = self.history.topic_at(deliver.position, entry.topic());
        let is_its_own = topic.is_some_and(|topic| topic.name == name);
        if same && is_its_own {
            return Ok(());
        }
        broken(10, format!("{deliver:?} of topic {name} was delivered, the log holds {entry:?} of {topic:?}"))
    }

    fn check_gone(&self, name: &str, order: u64, closing: u64) -> Result<(), Violation> {
        let holds = |(position, entry): (u64, &IndexEntry)| {
            let end = entry.first_order + u64::from(entry.message_count);
            let is_it = entry.kind == entry_kind::BATCH && (entry.first_order..end).contains(&order);
            let topic = is_it.then(|| self.history.topic_at(position, entry.topic())).flatten();
            topic.is_some_and(|topic| topic.name == name).then_some(position)
        };
        match (0..).zip(&self.history.log).find_map(holds) {
            Some(position) if position < closing => Ok(()),
            found => broken(
                8,
                format!("order {order} of {name} was told to be gone: it is at {found:?}, kept from {closing} on"),
            ),
        }
    }

    /// Lanes with slots that no sequencer has looked at.
    pub fn unconsumed(&self, memory: &SharedMemory) -> Vec<String> {
        let Some((candidate, _)) = self.current(memory) else { return vec!["no epoch is current".into()] };
        let slots = u64::from(self.layout.geometry.ring_slots);
        let word = |slot: &[u8]| u64::from_le_bytes(slot[..8].try_into().expect("a word"));
        let lane = |lane| {
            let guard = |slot| memory.behind_caches(self.layout.ring_slot(lane, slot), 8, word);
            let produced = (0..slots).map(guard).max().unwrap_or(0);
            let progress = record::<LaneProgress>(memory, self.layout.lane_progress(candidate, lane));
            let consumed = progress.map(|(_, progress)| progress.consumed);
            let all = consumed.unwrap_or(0) == produced;
            (!all).then(|| format!("lane {lane}: {produced} slots produced, {consumed:?} consumed"))
        };
        (0..self.layout.geometry.lanes()).filter_map(lane).collect()
    }

    /// Whether memory of an extent has failed.
    pub fn has_failed_memory(&self) -> bool {
        self.failed.is_some()
    }

    /// Memory of an extent failed, and that is noted.
    pub fn memory_failed(&mut self, memory: &SharedMemory, extent: u32) {
        let claimed = (0..self.layout.geometry.candidates).map(|candidate| self.epoch_line(memory, candidate).claimed);
        self.failed = Some((extent, claimed.max().unwrap_or(0)));
    }

    /// After everything came to rest.
    pub fn at_the_end(&self) -> Result<(), Violation> {
        if !self.claims.is_empty() {
            return broken(5, "no epoch is current at the end".into());
        }
        let granted = |(extent, before): &(u32, u64)| {
            let is_again = |entry: &&IndexEntry| {
                (entry.kind, entry.first_order) == (entry_kind::GRANT, u64::from(*extent))
                    && u64::from(entry.epoch) > *before
            };
            self.history.log.iter().find(is_again).map(|entry| (*extent, entry.epoch))
        };
        if let Some((extent, epoch)) = self.failed.as_ref().and_then(granted) {
            return broken(8, format!("epoch {epoch} granted extent {extent}, whose memory had failed"));
        }
        for (session, next) in &self.landed {
            let frontier = self.history.frontier(*session);
            if frontier < *next && !self.history.is_over(*session) {
                return broken(
                    5,
                    format!("session {session:#x} was acked below {next} at level 0, {frontier} is all in the end"),
                );
            }
        }
        Ok(())
    }
}
