//! The promises, held against the memory behind all caches and against what clients heard.
//!
//! The checker is no host: it reads the pool behind the caches, after every step and whenever a part is held up, and keeps
//! the committed log as it grew. Promises, by number:
//! 1. the index is dense: below the watermark entry *i* has guard *i* + 1, for ever the same entry;
//! 2. the total order of the topic is dense;
//! 3. the committed batches of a session are 0, 1, 2, … and hold its messages in the order they were sent;
//! 4. after a fence nothing of that epoch at or above the frontier is committed;
//! 5. what was acked is committed, and stays so under every later epoch;
//! 7. every byte of a committed batch is there, receipts included;
//! 8. memory is not used again while somebody may read it: a reader's bytes are those committed, and what is kept is not told
//!    to be gone;
//! 9. what came in is accounted for;
//! 10. every reader sees what the log holds, at the same order.
//!
//! 0 stands for rest: everything under way ends.

use std::collections::HashMap;
use std::sync::Arc;

use crate::log::damage::sound;
use crate::pool::record::{
    BODY_WORDS, EpochLine, FloorLine, IndexEntry, LaneProgress, Record, SegmentLine, entry_kind,
};
use crate::pool::{Geometry, Layout};
use crate::sim::scenario::Scenario;
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::testing::memory::SharedMemory;
use crate::wire::frame::{BatchHeader, Deliver};
use crate::wire::message::Messages;
use crate::wire::{BatchDecoder, Progress, Receipts};

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number at the head of this file; 0: the run did not come to rest, or protocol code stopped itself.
    pub promise: u8,
    /// What was found.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "promise {}: {}", self.promise, self.text)
    }
}

fn broken<T>(promise: u8, text: String) -> Result<T, Violation> {
    Err(Violation { promise, text })
}

/// A session as the committed log tells it.
#[derive(Clone, Debug, Default)]
struct Session {
    id: u64,
    epoch: u32,
    next_batch: u64,
    next_message: u64,
    /// Whose messages it holds, once there are any.
    client: Option<u64>,
    is_fenced: bool,
}

/// What somebody was told, to be found in the log.
#[derive(Clone, Debug)]
enum Claim {
    /// Batches of a session below a number are committed.
    Acked { session: u64, next: u64 },
    /// A session was opened for a client.
    Opened { session: u64, client: u64 },
    /// A batch was delivered.
    Delivered(Deliver),
    /// The message of this order was told to be gone.
    Gone(u64),
    /// The message of this order was skipped by one that was too slow.
    Skipped(u64),
}

/// See the head of the file.
pub struct Checker {
    layout: Arc<Layout>,
    receipts: Receipts,
    payload_bytes_max: u64,
    epoch: u64,
    epochs: u64,
    fences: u64,
    floor: u64,
    /// The highest position up to which anybody ever said that it might give up.
    closing: u64,
    /// The highest position up to which memory was ever wanted.
    wanted: u64,
    told_gone: usize,
    log: Vec<IndexEntry>,
    next_order: u64,
    /// By place in the session table.
    sessions: HashMap<u32, Session>,
    /// Frontiers of sessions, open or closed, by id.
    frontiers: HashMap<u64, u64>,
    /// For whom each session was opened, as its client was told.
    owners: HashMap<u64, u64>,
    claims: Vec<Claim>,
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
            layout,
            receipts: scenario.receipts,
            payload_bytes_max: scenario.payload_bytes_max,
            epoch: 0,
            epochs: 0,
            fences: 0,
            floor: 0,
            closing: 0,
            wanted: 0,
            told_gone: 0,
            log: Vec::new(),
            next_order: 0,
            sessions: HashMap::new(),
            frontiers: HashMap::new(),
            owners: HashMap::new(),
            claims: Vec::new(),
        }
    }

    /// Positions committed.
    pub fn committed(&self) -> u64 {
        self.log.len() as u64
    }
    /// Epochs that were current.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }
    /// Fences committed.
    pub fn fences(&self) -> u64 {
        self.fences
    }
    /// Positions given up.
    pub fn floor(&self) -> u64 {
        self.floor
    }
    /// Times that a reader was told that what it asked for is gone.
    pub fn told_gone(&self) -> usize {
        self.told_gone
    }
    /// Order of the topic's next message.
    pub fn next_order(&self) -> u64 {
        self.next_order
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
            self.take(memory, position, &entry, note)?;
            self.log.push(entry);
        }
        self.settle_claims()
    }

    /// The current epoch line, if which one it is cannot be in doubt.
    fn current(&self, memory: &SharedMemory) -> Option<(u32, EpochLine)> {
        let lines: Vec<EpochLine> =
            (0..self.layout.geometry.candidates).map(|candidate| self.epoch_line(memory, candidate)).collect();
        let (candidate, best) = lines.iter().enumerate().max_by_key(|(_, line)| line.active)?;
        let is_claimed = lines.iter().any(|line| line.claimed > best.active);
        (best.active > 0 && !is_claimed).then_some((candidate as u32, *best))
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

    /// The entry at a committed position, found as any reader finds it.
    fn entry(&self, memory: &SharedMemory, position: u64) -> Result<IndexEntry, Violation> {
        let g = &self.layout.geometry;
        let candidate = ((self.epoch - 1) % u64::from(g.candidates)) as u32;
        let mut best: Option<(u64, u32, u64, u64)> = None;
        for (bank, owner) in (0..2).flat_map(|bank| (0..g.candidates).map(move |owner| (bank, owner))) {
            for place in 0..u64::from(g.segments) {
                let at = self.layout.directory_line(candidate, bank, owner, place);
                let Some((guard, line)) = record::<SegmentLine>(memory, at) else { continue };
                if line.epoch == self.epoch && (line.first..line.end).contains(&position) {
                    best = best.max(Some((line.first, owner, guard - 1, line.filled_by)));
                }
            }
        }
        let Some((first, owner, number, epoch)) = best else {
            return broken(1, format!("no segment holds committed position {position}"));
        };
        let at = self.layout.index_entry(owner, number, position - first);
        match record::<IndexEntry>(memory, at) {
            Some((guard, entry)) if guard == position + 1 && u64::from(entry.epoch) <= epoch => Ok(entry),
            found => broken(1, format!("committed position {position} of epoch {epoch} holds {found:?}")),
        }
    }

    /// Under a new epoch everything kept is what it was.
    fn nothing_changed(&self, memory: &SharedMemory) -> Result<(), Violation> {
        for position in self.floor..self.committed() {
            let entry = self.entry(memory, position)?;
            if entry != self.log[position as usize] {
                let before = self.log[position as usize];
                return broken(1, format!("position {position} was {before:?}, now it is {entry:?}"));
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        memory: &SharedMemory,
        position: u64,
        entry: &IndexEntry,
        note: &mut impl FnMut(Event),
    ) -> Result<(), Violation> {
        if entry.kind == entry_kind::BATCH {
            return self.take_batch(memory, position, entry, note);
        }
        note(Event::Control(position, entry.kind, entry.session_epoch, entry.batch_seq));
        let session = self.sessions.entry(entry.session_slot).or_default();
        match entry.kind {
            entry_kind::SESSION_OPEN if session.id == entry.first_order => {
                if entry.batch_seq != session.next_batch || entry.session_epoch != session.epoch + 1 {
                    return broken(3, format!("position {position}: {entry:?} reopens {session:?}"));
                }
                (session.epoch, session.is_fenced) = (entry.session_epoch, false);
            }
            entry_kind::SESSION_OPEN => {
                if session.id != 0 || self.frontiers.contains_key(&entry.first_order) {
                    return broken(3, format!("position {position}: {entry:?} opens over {session:?}, or again"));
                }
                if entry.first_order != position + 1 || entry.session_epoch != 1 {
                    return broken(
                        3,
                        format!("position {position}: {entry:?} opens a session of another id, or epoch"),
                    );
                }
                *session = Session { id: entry.first_order, epoch: entry.session_epoch, ..Session::default() };
                self.frontiers.insert(session.id, 0);
            }
            entry_kind::SESSION_CLOSE => *session = Session::default(),
            entry_kind::SESSION_FENCE => {
                if entry.batch_seq != session.next_batch || entry.session_epoch != session.epoch {
                    return broken(4, format!("position {position}: {entry:?} fences {session:?}"));
                }
                session.is_fenced = true;
                self.fences += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn take_batch(
        &mut self,
        memory: &SharedMemory,
        position: u64,
        entry: &IndexEntry,
        note: &mut impl FnMut(Event),
    ) -> Result<(), Violation> {
        if entry.first_order != self.next_order {
            return broken(
                2,
                format!("position {position} begins at order {}, not {}", entry.first_order, self.next_order),
            );
        }
        self.next_order += u64::from(entry.message_count);
        let session = self.sessions.entry(entry.session_slot).or_default();
        let (id, epoch, seq) = (session.id, entry.session_epoch, entry.batch_seq);
        note(Event::Committed(position, id, epoch, seq, entry.first_order, entry.message_count));
        if epoch != session.epoch || session.is_fenced || id == 0 {
            return broken(4, format!("position {position}: batch {seq} of epoch {epoch} in {session:?}"));
        }
        if seq != session.next_batch {
            return broken(
                3,
                format!("position {position}: batch {seq} where {} is next in {session:?}", session.next_batch),
            );
        }
        session.next_batch += 1;
        self.frontiers.insert(id, session.next_batch);
        let stamps = Stamps::of(&self.layout.geometry, entry.lane.into(), self.receipts);
        let payload_bytes_max = self.payload_bytes_max;
        let checked = memory.behind_caches(entry.blog_at(), entry.batch_bytes.into(), |bytes| {
            check_bytes(bytes, id, entry, stamps, payload_bytes_max, session)
        });
        checked.or_else(|(promise, text)| broken(promise, format!("position {position}, batch {seq}: {text}")))
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

    /// A subscriber was handed a batch.
    pub fn delivered(&mut self, deliver: Deliver) -> Result<(), Violation> {
        self.claims.push(Claim::Delivered(deliver));
        Ok(())
    }

    /// A subscriber that asked for the message of this order was told that it is gone.
    pub fn gone(&mut self, order: u64) -> Result<(), Violation> {
        self.told_gone += 1;
        self.claims.push(Claim::Gone(order));
        Ok(())
    }

    /// A subscriber that skips when it is too slow was told that the message of this order was given up.
    pub fn skipped(&mut self, order: u64) -> Result<(), Violation> {
        self.claims.push(Claim::Skipped(order));
        Ok(())
    }

    /// Holds what somebody was told against the log, now that the log is known.
    fn settle_claims(&mut self) -> Result<(), Violation> {
        for claim in std::mem::take(&mut self.claims) {
            match claim {
                Claim::Acked { session, next } => {
                    let frontier = self.frontiers.get(&session).copied().unwrap_or(0);
                    if frontier < next {
                        return broken(
                            5,
                            format!("session {session:#x} was acked below {next}, committed is {frontier}"),
                        );
                    }
                }
                Claim::Opened { session, client } => self.check_opened(session, client)?,
                Claim::Delivered(deliver) => self.check_delivered(&deliver)?,
                Claim::Gone(order) => self.check_gone(order, self.closing)?,
                Claim::Skipped(order) => self.check_gone(order, self.wanted)?,
            }
        }
        Ok(())
    }

    /// An id is told once its opening is committed, and to nobody else: what was never committed may get its position again.
    fn check_opened(&mut self, session: u64, client: u64) -> Result<(), Violation> {
        if !self.frontiers.contains_key(&session) {
            return broken(5, format!("client {client:#x} was told of session {session:#x}, which nobody opened"));
        }
        match self.owners.insert(session, client) {
            Some(owner) if owner != client => {
                broken(3, format!("session {session:#x} was opened for {owner:#x}, and for client {client:#x}"))
            }
            _ => Ok(()),
        }
    }

    fn check_delivered(&self, deliver: &Deliver) -> Result<(), Violation> {
        let Some(entry) = self.log.get(deliver.position as usize) else {
            return broken(5, format!("{deliver:?} was delivered; {} positions are committed", self.committed()));
        };
        let same = entry.kind == entry_kind::BATCH
            && entry.first_order == deliver.first_order
            && entry.message_count == deliver.message_count
            && entry.batch_seq == deliver.batch_seq
            && entry.session_epoch == deliver.session_epoch;
        if same { Ok(()) } else { broken(10, format!("{deliver:?} was delivered, the log holds {entry:?}")) }
    }

    fn check_gone(&self, order: u64, closing: u64) -> Result<(), Violation> {
        let holds = |entry: &IndexEntry| {
            let end = entry.first_order + u64::from(entry.message_count);
            entry.kind == entry_kind::BATCH && (entry.first_order..end).contains(&order)
        };
        match self.log.iter().position(holds) {
            Some(position) if (position as u64) < closing => Ok(()),
            found => {
                broken(8, format!("order {order} was told to be gone: it is at {found:?}, kept from {closing} on"))
            }
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

    /// After everything came to rest.
    pub fn at_the_end(&self) -> Result<(), Violation> {
        if self.claims.is_empty() { Ok(()) } else { broken(5, "no epoch is current at the end".into()) }
    }
}

/// What the messages of a batch say of when they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// Nothing.
    None,
    /// When the batch was: a receive core stamps all at once.
    All,
    /// When each was taken: an attached publisher stamps them as they come, before the batch is sealed.
    Each,
}

impl Stamps {
    /// Those of a lane's batches.
    pub fn of(g: &Geometry, lane: u32, receipts: Receipts) -> Stamps {
        match receipts {
            Receipts::Batch => Stamps::None,
            Receipts::Message if g.is_attached_lane(lane) => Stamps::Each,
            Receipts::Message => Stamps::All,
        }
    }

    /// Whether a message may say so in a batch received at that time.
    pub fn are_sound(self, message_ts: u64, received_at: u64) -> bool {
        match self {
            Stamps::None => true,
            Stamps::All => message_ts == received_at,
            Stamps::Each => (1..=received_at).contains(&message_ts),
        }
    }
}

/// A committed batch's bytes: whole, the session's next, stamped.
fn check_bytes(
    bytes: &[u8],
    id: u64,
    entry: &IndexEntry,
    stamps: Stamps,
    payload_bytes_max: u64,
    session: &mut Session,
) -> Result<(), (u8, String)> {
    let header = match BatchDecoder::new(u64::MAX).advance(bytes) {
        Ok(Progress::Complete(header)) => header,
        found => return Err((7, format!("its bytes are not a batch: {found:?}"))),
    };
    if (header.session, header.batch_seq, header.session_epoch) != (id, entry.batch_seq, entry.session_epoch) {
        return Err((7, format!("its header is another batch's: {header:?}")));
    }
    let (count, problem) = check_messages(&header, bytes, stamps, payload_bytes_max, session);
    match problem {
        Some(problem) => Err(problem),
        None if count != entry.message_count => Err((7, format!("it holds {count} messages"))),
        None => Ok(()),
    }
}

fn check_messages(
    header: &BatchHeader,
    bytes: &[u8],
    stamps: Stamps,
    payload_bytes_max: u64,
    session: &mut Session,
) -> (u32, Option<(u8, String)>) {
    let mut count = 0;
    for message in Messages::new(&bytes[64..64 + header.body_bytes as usize]) {
        count += 1;
        let Some((client, number)) = workload::read(message.payload, payload_bytes_max) else {
            return (count, Some((7, format!("message {count} is not what any publisher sends"))));
        };
        let expected = (*session.client.get_or_insert(client), session.next_message);
        if (client, number) != expected {
            return (count, Some((3, format!("message {number} of client {client}, expected {expected:?}"))));
        }
        session.next_message += 1;
        if header.received_at == 0 || !stamps.are_sound(message.header.ts, header.received_at) {
            return (count, Some((7, format!("a stale receipt: {:?} under {header:?}", message.header))));
        }
    }
    (count, None)
}
