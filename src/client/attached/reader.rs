//! An attached subscriber's cursor and pin: finds its start, copies batches and hands the copies on. No I/O and no clock of its own.
//!
//! What lies in the pool may change at any moment: others write there, and a pin that is not waited for protects nothing. So what is
//! handed on is a copy, checked after it was made, and the caller makes sure that the pin was still waited for then ([`Reader::take`]).

use crate::client::delivered::Delivered;
use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::damage::exactly;
use crate::log::entry::to_sound_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::recover::RecoverError;
use crate::log::retention::{Dropped, FloorReader, NO_PIN, Pin};
use crate::log::start::{self, Start};
use crate::log::topics::{Topic, TopicReader};
use crate::order::{Arrival, Event};
use crate::pool::Memory;
use crate::pool::record::IndexEntry;
use crate::wire::frame::BatchHeader;
use crate::wire::message::is_framed;
use crate::wire::{BatchDecoder, Progress, StartAt, WireError};

/// Entries read ahead at most.
const ENTRIES_AHEAD: usize = 256;
/// Entries after which the pin follows the cursor.
const PIN_EVERY: u64 = 64;
/// Times an entry may be found unreadable before it is a fault: a takeover may be under way.
const FAULTS_MAX: u32 = 1000;

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is pinned.
    Unpinned,
    /// Looking for its start.
    Seeking,
    /// Its next batch is the one at the cursor.
    Streaming,
}

/// Why a reader cannot go on as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// The order asked for is gone; this is the earliest there is.
    Trimmed(u64),
    /// It was not waited for.
    Dropped,
    /// The topic was deleted. It stays so.
    Deleted,
    /// The index is damaged.
    Index(IndexFault),
    /// Something else that every reader goes by is.
    Pool(RecoverError),
    /// The batch that this index position names is not where it says.
    OtherBatch(u64),
    /// The batch that this index position names is not sound.
    Unsound(u64, WireError),
}

/// See the head of the file.
pub(crate) struct Reader<M> {
    view: View<M>,
    commit: CommitReader<M>,
    index: IndexReader<M>,
    floors: FloorReader<M>,
    topics: TopicReader<M>,
    pin: Pin<M>,
    dropped_pins: u64,
    phase: Phase,
    topic: u32,
    /// The topic's name.
    name: Box<str>,
    /// Index position of the topic's creation: entries of its number below that are another's.
    created_position: u64,
    is_deleted: bool,
    /// Where it is to start.
    start: StartAt,
    /// Order of the first message asked for, once the start is found.
    start_order: u64,
    /// Order just past the last batch seen.
    known_next: Option<u64>,
    entries: Box<[IndexEntry; ENTRIES_AHEAD]>,
    /// Entries read and not yet handed on.
    buffered: std::ops::Range<usize>,
    decoder: BatchDecoder,
    verify: bool,
    faults: u32,
    /// The batch in `frame`, taken and not handed on yet.
    taken: Option<Taken>,
    /// A batch's bytes, of this process alone: what lies in the pool may be overwritten at any moment by others. Reused.
    frame: Vec<u8>,
}

/// A batch that was copied and found sound.
#[derive(Clone, Copy)]
struct Taken {
    position: u64,
    first_order: u64,
    header: BatchHeader,
}

impl<M: Memory> Reader<M> {
    /// A reader of `topic` from `start` on. The caller holds the place of `member`.
    pub fn new(view: &View<M>, member: u32, incarnation: u64, topic: &Topic, start: StartAt, verify: bool) -> Self {
        Reader {
            view: view.clone(),
            commit: CommitReader::new(view),
            index: IndexReader::new(view, 0),
            floors: FloorReader::new(view),
            topics: TopicReader::new(view),
            pin: Pin::take(view, member, incarnation),
            dropped_pins: 0,
            phase: Phase::Unpinned,
            topic: topic.id,
            name: topic.name.as_str().into(),
            created_position: topic.created_position,
            is_deleted: false,
            start,
            start_order: 0,
            known_next: None,
            entries: Box::new([IndexEntry::default(); ENTRIES_AHEAD]),
            buffered: 0..0,
            decoder: BatchDecoder::new(view.layout.geometry.batch_bytes_max()),
            verify,
            faults: 0,
            taken: None,
            frame: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Order of the next message to hand on; of a reader that streams.
    pub fn next_order(&self) -> u64 {
        self.known_next.map_or(self.start_order, |next| next.max(self.start_order))
    }

    /// Why the floors cannot be read, if waiting does not help.
    fn not_now(&self) -> Result<bool, ReadFault> {
        self.floors.fault().map_or(Ok(false), |fault| Err(ReadFault::Pool(fault)))
    }

    /// As [`Self::pin_now`].
    ///
    /// # Errors
    /// The floors are damaged.
    pub fn pin(&mut self) -> Result<bool, ReadFault> {
        if self.pin_now() { Ok(true) } else { self.not_now() }
    }

    /// Pins what is kept now, to look for its start there. False: the floors cannot be read now.
    fn pin_now(&mut self) -> bool {
        let Some(before) = self.floors.read() else { return false };
        let Some(position) = self.pin.lower_to_floor(&self.floors) else { return false };
        // Read before the pin was there: a pin dropped since is noticed, if not ours then in vain.
        self.dropped_pins = before.dropped_pins;
        // With the pin in place: if it is deleted from now on, the cursor comes by.
        let Some(stands) = self.topics.stands(self.topic, self.created_position) else {
            self.pin.raise(NO_PIN);
            return false;
        };
        self.is_deleted |= !stands;
        self.index.seek(position.max(self.created_position));
        (self.buffered, self.known_next, self.phase) = (0..0, None, Phase::Seeking);
        true
    }

    /// Begins anew at the next message, after [`ReadFault::Dropped`].
    fn unpin(&mut self) {
        if self.phase == Phase::Streaming {
            self.start = StartAt::Order(self.next_order());
        }
        (self.phase, self.taken) = (Phase::Unpinned, None);
        self.pin.raise(NO_PIN);
    }

    /// Shows that somebody reads here. False: nothing is known now, so nothing may be handed on.
    pub fn renew(&mut self) -> Result<bool, ReadFault> {
        if self.phase == Phase::Unpinned {
            return Ok(true);
        }
        let position = self.index.next();
        match self.pin.renew(position, &self.floors, &mut self.dropped_pins) {
            Ok(true) => Ok(true),
            Ok(false) => self.not_now(),
            Err(Dropped { .. }) => {
                self.unpin();
                Err(ReadFault::Dropped)
            }
        }
    }

    /// Looks for the start among committed entries; a bounded step. Gives how many entries it looked at.
    pub fn seek(&mut self) -> Result<usize, ReadFault> {
        if self.is_deleted {
            return Err(ReadFault::Deleted);
        }
        let Some(commit) = self.fetch()? else { return Ok(0) };
        let (before, start) = (self.index.next(), self.start);
        while let Some(offset) = self.buffered.next() {
            let position = self.index.next();
            if let Some((arrival, first_order)) = self.batch(position, offset)? {
                let is_first = self.known_next.is_none();
                let received_at = || self.header(position, &arrival, LINE_BYTES).map(|header| header.received_at);
                match start::in_batch(start, &arrival, first_order, is_first, received_at)? {
                    Start::Gone { earliest, .. } => return Err(self.trimmed(earliest)),
                    Start::Here(order) => {
                        // This batch is looked at again.
                        self.buffered.start -= 1;
                        return Ok(self.begin(order) + (position - before) as usize);
                    }
                    Start::Later => self.known_next = Some(first_order + u64::from(arrival.message_count)),
                }
            }
            self.index.advance(1);
        }
        let looked = (self.index.next() - before) as usize;
        if self.index.next() < commit.watermark {
            return Ok(looked);
        }
        Ok(looked + self.at_the_tail()?)
    }

    fn begin(&mut self, order: u64) -> usize {
        (self.start_order, self.phase) = (order, Phase::Streaming);
        1
    }

    fn trimmed(&mut self, earliest: u64) -> ReadFault {
        self.phase = Phase::Unpinned;
        self.pin.raise(NO_PIN);
        ReadFault::Trimmed(earliest)
    }

    /// Everything committed was looked at: the start is what comes next.
    fn at_the_tail(&mut self) -> Result<usize, ReadFault> {
        // A number's last topic leaves its progress behind.
        let progress = self.topics.progress(self.topic).filter(|progress| progress.position >= self.created_position);
        let Some(next) = start::next_at_the_tail(self.known_next, progress, self.index.next()) else { return Ok(0) };
        match start::at_the_tail(self.start, next) {
            Start::Gone { earliest, .. } => Err(self.trimmed(earliest)),
            Start::Here(order) => Ok(self.begin(order)),
            Start::Later => Ok(0),
        }
    }

    /// What the buffered entry says of this topic, checked: a batch and the order of its first message.
    fn batch(&mut self, position: u64, offset: usize) -> Result<Option<(Arrival, u64)>, ReadFault> {
        match to_sound_event(position, &self.entries[offset], &self.view.layout).map_err(ReadFault::Index)? {
            Event::Batch { arrival, first_order, .. } if arrival.topic == self.topic => {
                let next = self.known_next.unwrap_or(first_order);
                let checked = exactly("first_order", first_order, next);
                checked.map_err(|fault| ReadFault::Index(IndexFault::Damaged { position, fault }))?;
                Ok(Some((arrival, first_order)))
            }
            Event::TopicDeleted { topic, .. } if topic == self.topic => {
                self.is_deleted = true;
                Err(ReadFault::Deleted)
            }
            _ => Ok(None),
        }
    }

    /// Reads what is committed past the cursor, confirmed. `None`: nothing, or not now.
    fn fetch(&mut self) -> Result<Option<Commit>, ReadFault> {
        let Some(commit) = self.commit.current() else { return Ok(None) };
        if !self.buffered.is_empty() {
            return Ok(Some(commit));
        }
        match self.index.read(&commit, &mut self.entries[..]) {
            // Handing on cannot be undone.
            Ok(count) if count == 0 || self.commit.confirm(commit.epoch) => self.buffered = 0..count,
            Ok(_) => return Ok(None),
            // What an epoch lists that was succeeded says nothing.
            Err(_) if !self.commit.confirm(commit.epoch) => return Ok(None),
            Err(fault) => return self.unreadable(fault).map(|()| None),
        }
        self.faults = 0;
        Ok(Some(commit))
    }

    /// An entry cannot be read: because the pin was dropped, because a takeover is under way, or because it is damaged.
    fn unreadable(&mut self, fault: IndexFault) -> Result<(), ReadFault> {
        self.faults += 1;
        self.renew()?;
        if self.faults < FAULTS_MAX && !matches!(fault, IndexFault::Damaged { .. }) {
            return Ok(());
        }
        Err(ReadFault::Index(fault))
    }

    /// Copies the next batch of the topic and checks the copy. False: there is none yet.
    ///
    /// The copy is sound if the pin is still waited for afterwards: the caller makes sure of that by [`Self::renew`] unless hardly any
    /// time has passed, and only then hands it on.
    pub fn take(&mut self) -> Result<bool, ReadFault> {
        if self.is_deleted {
            return Err(ReadFault::Deleted);
        }
        if self.taken.is_some() {
            return Ok(true);
        }
        if self.buffered.is_empty() && self.fetch()?.is_none() {
            return Ok(false);
        }
        while let Some(offset) = self.buffered.next() {
            let position = self.index.next();
            let batch = self.batch(position, offset)?;
            if let Some((arrival, first_order)) = batch {
                let end = first_order + u64::from(arrival.message_count);
                if end > self.start_order {
                    let header = self.copy(position, &arrival)?;
                    self.taken = Some(Taken { position, first_order, header });
                    return Ok(true);
                }
                self.known_next = Some(end);
            }
            self.step();
        }
        Ok(false)
    }

    /// Hands on what [`Self::take`] took, and passes it.
    pub fn hand_on(&mut self, handler: &mut dyn FnMut(&Delivered<'_>)) {
        let Some(Taken { position, first_order, header }) = self.taken.take() else { return };
        let start_order = self.start_order;
        self.known_next = Some(first_order + u64::from(header.message_count));
        self.step();
        handler(&Delivered {
            topic: &self.name,
            place: 0,
            first_order,
            position,
            session: header.session,
            session_epoch: header.session_epoch,
            batch_seq: header.batch_seq,
            message_count: header.message_count,
            received_at: header.received_at,
            created_at: header.created_at,
            start_order,
            body: &self.frame[LINE_BYTES as usize..][..header.body_bytes as usize],
        });
    }

    fn step(&mut self) {
        self.index.advance(1);
        if self.index.next() - self.pin.position() >= PIN_EVERY {
            self.pin.raise(self.index.next());
        }
    }

    /// Copies a batch, then checks the copy: what is checked is what is handed on.
    fn copy(&mut self, position: u64, batch: &Arrival) -> Result<BatchHeader, ReadFault> {
        let bytes = u64::from(batch.batch_bytes);
        let before = self.header(position, batch, bytes)?;
        self.frame.resize(bytes as usize, 0);
        self.view.memory.copy_out(batch.blog_at, &mut self.frame);
        let header: BatchHeader = bytemuck::pod_read_unaligned(&self.frame[..LINE_BYTES as usize]);
        if bytemuck::bytes_of(&header) != bytemuck::bytes_of(&before) {
            return Err(self.doubtful(ReadFault::OtherBatch(position)));
        }
        let body = &self.frame[LINE_BYTES as usize..][..header.body_bytes as usize];
        let checked = check(&mut self.decoder, self.verify, &self.frame, body, &header);
        checked.map_err(|error| self.doubtful(ReadFault::Unsound(position, error)))?;
        Ok(header)
    }

    /// The header of a batch, which must be the one that the index names; `bytes` of the batch can be read then.
    fn header(&mut self, position: u64, batch: &Arrival, bytes: u64) -> Result<BatchHeader, ReadFault> {
        start::header(&self.view, batch, bytes).ok_or_else(|| self.doubtful(ReadFault::OtherBatch(position)))
    }

    /// What is found wrong with a batch is the pool's fault only if its bytes were still there.
    fn doubtful(&mut self, fault: ReadFault) -> ReadFault {
        self.buffered.start -= 1;
        match self.renew() {
            Err(dropped) => dropped,
            Ok(_) => fault,
        }
    }
}

fn check(
    decoder: &mut BatchDecoder,
    verify: bool,
    frame: &[u8],
    body: &[u8],
    header: &BatchHeader,
) -> Result<(), WireError> {
    if !verify {
        let end = header.body_bytes.into();
        let error = WireError::TrailingBytes { messages: header.message_count, end, body_bytes: end };
        return if is_framed(body, header.message_count) { Ok(()) } else { Err(error) };
    }
    decoder.reset();
    match decoder.advance(frame)? {
        Progress::Complete(_) => Ok(()),
        Progress::NeedHeader | Progress::NeedBytes(_) | Progress::Goodbye | Progress::Heartbeat => {
            Err(WireError::MessageCount { found: header.message_count })
        }
    }
}
