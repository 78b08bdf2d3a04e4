//! One subscription's cursor: finding where each of its topics starts, and collecting what it gets next. No I/O.
//!
//! There is one cursor for all topics, so that what it hands out is in the pool's one total order. The search looks at every
//! entry from the floor on, a bounded number in a pass; then the cursor stands at the lowest start and filters.

use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::commit::Commit;
use crate::log::damage::exactly;
use crate::log::entry::to_sound_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::start::{self, StartCheck};
use crate::log::topics::TopicReader;
use crate::order::{Arrival, Event};
use crate::pool::Memory;
use crate::pool::record::{IndexEntry, TopicProgress, entry_kind};
use crate::wire::StartAt;
use crate::wire::frame::BatchHeader;

/// Entries looked at for one reader in one pass at most.
pub const ENTRIES_PER_PASS: usize = 256;

/// What a search for the starts came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// The pass is over; go on later.
    NotYet,
    /// The cursor stands where the stream begins; [`Reader::next_order`] says what comes first.
    Found,
    /// The order asked for was trimmed.
    Trimmed {
        /// Place of the topic in the subscription.
        place: usize,
        /// The earliest there is.
        earliest: u64,
    },
    /// A topic was deleted.
    Deleted {
        /// Place of the topic in the subscription.
        place: usize,
    },
}

/// A topic of a subscription, and where it is to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicStart {
    /// Topic id.
    pub topic: u32,
    /// Index position of the topic's creation: entries of its number below that are another's.
    pub created_position: u64,
    /// Where it starts.
    pub start: StartAt,
}

/// What an entry says of the topics of a subscription.
enum Seen {
    /// A batch of the topic at a place, and the order of its first message.
    Batch(usize, Arrival, u64),
    /// The topic at a place was deleted.
    Deleted(usize),
    /// Nothing.
    Nothing,
}

/// A batch to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Place of its topic in the subscription.
    pub place: usize,
    /// Its header, as it lies there.
    pub header: BatchHeader,
    /// Lane it came in by.
    pub lane: u16,
    /// Where it lies.
    pub at: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its index position.
    pub position: u64,
    /// Order of its first message.
    pub first_order: u64,
    /// Order just past its last message.
    pub end_order: u64,
    /// Messages from this order up to `first_order` were skipped.
    pub skipped_from: Option<u64>,
}

/// What is known at the tail of a topic that skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailSkip {
    /// How far the topic has come is told by the next checkpoint.
    NotKnownYet,
    /// No message was given up.
    Nothing,
    /// Messages were given up.
    Skipped {
        /// The order that was due.
        from: u64,
        /// The order that comes next.
        next: u64,
    },
}

/// What keeps a reader from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    /// From the index.
    #[error("{0}")]
    Index(IndexFault),
    /// The batch in the blog is not the one the index names.
    #[error("the batch that index position {position} names is not where it says")]
    OtherBatch {
        /// Index position.
        position: u64,
    },
}

impl From<IndexFault> for ReadFault {
    fn from(fault: IndexFault) -> ReadFault {
        ReadFault::Index(fault)
    }
}

/// One topic of a subscription.
#[derive(Clone, Copy, Debug)]
struct Follow {
    topic: u32,
    /// Index position of its creation: entries of its number below that are another's.
    created_position: u64,
    /// It was there when the search had begun.
    is_known: bool,
    start: StartAt,
    /// Position from which it is delivered, once it is found.
    from: Option<u64>,
    /// Order of the first message wanted, once it is found.
    first: u64,
    /// Order just past the last entry of the topic that was seen.
    known_next: Option<u64>,
    /// Messages from this order on were given up, and it is not known yet how many.
    skipped_from: Option<u64>,
}

impl Follow {
    fn new(TopicStart { topic, created_position, start }: TopicStart) -> Follow {
        let (from, known_next, skipped_from) = (None, None, None);
        Follow { topic, created_position, is_known: false, start, from, first: 0, known_next, skipped_from }
    }

    fn start_at(&self, start: StartAt) -> TopicStart {
        TopicStart { topic: self.topic, created_position: self.created_position, start }
    }

    /// What the checkpoint says of it, if it speaks of this topic: a number's last topic leaves its progress behind.
    fn progress<M: Memory>(&self, topics: &TopicReader<M>) -> Option<TopicProgress> {
        topics.progress(self.topic).filter(|progress| progress.position >= self.created_position)
    }

    /// The search may go on for other topics, past batches of this one, which are read again: what was seen of it counts no more.
    fn found(&mut self, position: u64, first: u64) {
        (self.from, self.first, self.known_next) = (Some(position), first, None);
    }

    /// The order wanted is below what there is: it was trimmed, or is skipped by a subscription that says so.
    fn lost(&mut self, place: usize, position: u64, wanted: u64, earliest: u64, skips: bool) -> Option<Sought> {
        if !skips {
            return Some(Sought::Trimmed { place, earliest });
        }
        self.found(position, earliest);
        self.skipped_from = Some(wanted);
        None
    }
}

/// Counts the payload between a cursor and the watermark, a bounded number of entries in a pass.
struct Meter<M> {
    index: IndexReader<M>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    /// As [`Reader::passed_bytes`], at `index`.
    bytes: u64,
}

/// A subscription's cursor.
pub struct Reader<M> {
    view: View<M>,
    index: IndexReader<M>,
    follows: Box<[Follow]>,
    /// Where the search stood before the last pass, which may be found void; the topics as they were then.
    before_pass: (u64, Box<[Follow]>),
    is_seeking: bool,
    /// Topic id and place of each, by id.
    by_topic: Box<[(u32, usize)]>,
    /// Whether orders that are gone are skipped, not refused.
    skips: bool,
    /// Place of the topic at whose deletion the cursor stands.
    deleted: Option<usize>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    /// Entries read and not yet handed out.
    buffered: std::ops::Range<usize>,
    /// Payload of all entries that the cursor passed, whatever their topic.
    passed_bytes: u64,
    meter: Option<Meter<M>>,
}

impl<M: Memory> Reader<M> {
    /// A reader of these topics, each once, that looks for their starts from position `floor` on, which is pinned. With `skips`
    /// an order that is gone is skipped; else the search ends with [`Sought::Trimmed`].
    ///
    /// # Panics
    /// If there is no topic.
    pub fn new(view: &View<M>, topics: impl IntoIterator<Item = TopicStart>, floor: u64, skips: bool) -> Self {
        let follows: Box<[Follow]> = topics.into_iter().map(Follow::new).collect();
        assert!(!follows.is_empty(), "a subscription has a topic");
        let mut by_topic: Box<[(u32, usize)]> =
            follows.iter().enumerate().map(|(place, follow)| (follow.topic, place)).collect();
        by_topic.sort_unstable();
        debug_assert!(by_topic.windows(2).all(|pair| pair[0].0 < pair[1].0), "a topic is listed once");
        let created = follows.iter().map(|follow| follow.created_position).min();
        let floor = floor.max(created.unwrap_or(0));
        Reader {
            view: view.clone(),
            index: IndexReader::new(view, floor),
            before_pass: (floor, follows.clone()),
            is_seeking: true,
            follows,
            by_topic,
            skips,
            deleted: None,
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_PASS]),
            buffered: 0..0,
            passed_bytes: 0,
            meter: None,
        }
    }

    /// A reader of the same topics from the earliest on.
    pub fn to_earliest(&self, floor: u64) -> Self {
        Reader::new(&self.view, self.follows.iter().map(|follow| follow.start_at(StartAt::Earliest)), floor, false)
    }

    /// Where the cursor stands.
    pub fn position(&self) -> u64 {
        self.index.next()
    }

    /// The lowest position it may still read. While it looks for its starts that is the lowest one found, to which it goes back,
    /// or where the last pass began, for that may be found void.
    pub fn needs(&self) -> u64 {
        if !self.is_seeking {
            return self.index.next();
        }
        let found = self.follows.iter().filter_map(|follow| follow.from).min();
        found.unwrap_or(u64::MAX).min(self.before_pass.0).min(self.index.next())
    }

    /// Order of the first message to come of the topic at `place`, once [`Sought::Found`]; of what is gone, if it skips that.
    pub fn next_order(&self, place: usize) -> u64 {
        let follow = &self.follows[place];
        follow.skipped_from.unwrap_or(follow.first)
    }

    fn place_of(&self, topic: u32) -> Option<usize> {
        if let [(only, place)] = *self.by_topic {
            return (only == topic).then_some(place);
        }
        let at = self.by_topic.binary_search_by_key(&topic, |(id, _)| *id).ok()?;
        Some(self.by_topic[at].1)
    }

    /// Place of a topic that was deleted, everything before that having been handed out.
    pub fn deleted(&self) -> Option<usize> {
        self.deleted
    }

    /// What the entry at `position` says of its topics, checked. Every entry is checked, whatever its topic: it may be one of its
    /// own, with its topic damaged.
    fn look(&self, position: u64, entry: &IndexEntry) -> Result<Seen, IndexFault> {
        let (arrival, first_order) = match to_sound_event(position, entry, &self.view.layout)? {
            Event::Batch { arrival, first_order, .. } => (arrival, first_order),
            Event::TopicDeleted { topic, .. } => {
                let place = self.place_of(topic).filter(|place| self.follows[*place].created_position <= position);
                return Ok(place.map_or(Seen::Nothing, Seen::Deleted));
            }
            _ => return Ok(Seen::Nothing),
        };
        let Some(place) = self.place_of(arrival.topic) else { return Ok(Seen::Nothing) };
        let follow = &self.follows[place];
        if position < follow.from.unwrap_or(follow.created_position) {
            return Ok(Seen::Nothing);
        }
        let next = follow.known_next.unwrap_or(first_order);
        exactly("first_order", first_order, next).map_err(|fault| IndexFault::Damaged { position, fault })?;
        Ok(Seen::Batch(place, arrival, first_order))
    }

    /// Looks for the starts among committed entries; a bounded step. After [`Sought::Found`] the cursor stands at the lowest.
    /// What it found counts if the commit is confirmed afterwards; if not, [`Self::restart`] takes the step back.
    pub fn seek(&mut self, commit: &Commit, topics: &TopicReader<M>) -> Result<Sought, ReadFault> {
        self.before_pass.0 = self.index.next();
        self.before_pass.1.copy_from_slice(&self.follows);
        if let Some(sought) = self.look_for_topics(topics) {
            return Ok(sought);
        }
        let count = self.index.read(commit, &mut self.entries[..])?;
        for offset in 0..count {
            let position = self.index.next() + offset as u64;
            let entry = self.entries[offset];
            let (place, arrival, first_order) = match self.look(position, &entry)? {
                Seen::Batch(place, arrival, first_order) => (place, arrival, first_order),
                // Where its start was found already, what was committed before is delivered first.
                Seen::Deleted(place) if self.follows[place].from.is_none() => return Ok(Sought::Deleted { place }),
                Seen::Deleted(_) | Seen::Nothing => continue,
            };
            if self.follows[place].from.is_some() {
                continue;
            }
            if let Some(trimmed) = self.look_at(place, position, &arrival, first_order)? {
                return Ok(trimmed);
            }
            if self.is_found() {
                return Ok(self.begin());
            }
        }
        self.index.advance(count);
        if self.index.next() < commit.watermark {
            return Ok(Sought::NotYet);
        }
        Ok(self.at_the_tail(topics))
    }

    /// Sees to it that each topic was there when the search had begun, or after something was skipped: if it is deleted later, the cursor
    /// comes by. Nothing is fetched before that is so.
    pub fn look_for_topics(&mut self, topics: &TopicReader<M>) -> Option<Sought> {
        for (place, follow) in self.follows.iter_mut().enumerate().filter(|(_, follow)| !follow.is_known) {
            match topics.stands(follow.topic, follow.created_position) {
                Some(true) => follow.is_known = true,
                Some(false) => return Some(Sought::Deleted { place }),
                None => return Some(Sought::NotYet),
            }
        }
        None
    }

    fn is_found(&self) -> bool {
        self.follows.iter().all(|follow| follow.from.is_some())
    }

    /// Holds a batch against where its topic is to start.
    fn look_at(
        &mut self,
        place: usize,
        position: u64,
        batch: &Arrival,
        first_order: u64,
    ) -> Result<Option<Sought>, ReadFault> {
        let skips = self.skips;
        let follow = self.follows[place];
        let (is_first, end) = (follow.known_next.is_none(), first_order + u64::from(batch.message_count));
        let received_at = || self.header(position, batch, LINE_BYTES).map(|header| header.received_at);
        match start::in_batch(follow.start, batch, first_order, is_first, received_at)? {
            // This batch is read again, and counted from.
            StartCheck::Gone { wanted, earliest } => {
                return Ok(self.follows[place].lost(place, position, wanted, earliest, skips));
            }
            StartCheck::Here(first) => self.follows[place].found(position, first),
            StartCheck::Later => self.follows[place].known_next = Some(end),
        }
        Ok(None)
    }

    /// Everything committed was looked at: what was not found is what comes next.
    fn at_the_tail(&mut self, topics: &TopicReader<M>) -> Sought {
        let (tail, skips) = (self.index.next(), self.skips);
        for place in 0..self.follows.len() {
            if self.follows[place].from.is_some() {
                continue;
            }
            let Some(next) = self.next_at_the_tail(place, topics) else { return Sought::NotYet };
            let follow = &mut self.follows[place];
            match start::at_the_tail(follow.start, next) {
                StartCheck::Gone { wanted, earliest } => {
                    if let Some(trimmed) = follow.lost(place, tail, wanted, earliest, skips) {
                        return trimmed;
                    }
                }
                StartCheck::Here(first) => follow.found(tail, first),
                StartCheck::Later => return Sought::NotYet,
            }
        }
        self.begin()
    }

    /// Order of the next message of a topic, everything committed having been looked at.
    fn next_at_the_tail(&self, place: usize, topics: &TopicReader<M>) -> Option<u64> {
        let follow = &self.follows[place];
        start::next_at_the_tail(follow.known_next, follow.progress(topics), self.index.next())
    }

    fn begin(&mut self) -> Sought {
        let lowest = self.follows.iter().filter_map(|follow| follow.from).min();
        self.index.seek(lowest.expect("all are found"));
        Sought::Found
    }

    /// Takes the last step of the search back: what it looked at was not confirmed. The steps before were.
    pub fn restart(&mut self) {
        self.index.seek(self.before_pass.0);
        self.follows.copy_from_slice(&self.before_pass.1);
        (self.buffered, self.is_seeking) = (0..0, true);
    }

    /// Begins the search again from another floor, which is pinned: what it looked for was trimmed on the way.
    pub fn restart_at(&mut self, floor: u64) {
        self.index.seek(floor);
        (self.buffered, self.is_seeking) = (0..0, true);
        self.follows.iter_mut().for_each(|follow| *follow = Follow::new(follow.start_at(follow.start)));
        self.before_pass.0 = floor;
        self.before_pass.1.copy_from_slice(&self.follows);
    }

    /// Gives up what lies below `position`, and goes on there, once [its topics are found](Self::look_for_topics) again; `next` tells the order that would have come next, by place.
    pub fn skip_to(&mut self, position: u64, next: impl Fn(usize) -> u64) {
        (self.buffered, self.is_seeking) = (0..0, false);
        self.index.seek(position);
        self.meter = None;
        for (place, follow) in self.follows.iter_mut().enumerate() {
            let from = follow.from.expect("a reader that delivers has found its starts");
            follow.known_next = None;
            let is_behind = from <= position;
            if is_behind {
                // Its deletion may be among what is skipped, and its number another topic's by now.
                (follow.from, follow.is_known) = (Some(position), false);
            }
            // One ahead goes on where it was to begin: that what came before is gone is still to be told, or was taken back unsent.
            if is_behind || next(place) < follow.first {
                follow.skipped_from = Some(next(place));
            }
        }
    }

    /// What was skipped of a topic of which nothing came since, everything committed having been looked at.
    pub fn skipped_at_the_tail(&mut self, place: usize, topics: &TopicReader<M>) -> TailSkip {
        let Some(due) = self.follows[place].skipped_from else { return TailSkip::Nothing };
        let Some(next) = self.next_at_the_tail(place, topics) else { return TailSkip::NotKnownYet };
        self.follows[place].skipped_from = None;
        if next > due { TailSkip::Skipped { from: due, next } } else { TailSkip::Nothing }
    }

    /// Payload that is committed and lies in front of the cursor, of whatever topic: what a pin there keeps from being used
    /// again. At least that much; a call looks at a bounded number of entries.
    pub fn lag_bytes(&mut self, commit: &Commit) -> Result<u64, ReadFault> {
        let (position, passed) = (self.index.next(), self.passed_bytes);
        let meter = self.meter.get_or_insert_with(|| Meter {
            index: IndexReader::new(&self.view, position),
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_PASS]),
            bytes: passed,
        });
        if meter.index.next() < position {
            meter.index.seek(position);
            meter.bytes = passed;
        }
        let count = meter.index.read(commit, &mut meter.entries[..])?;
        let batches = meter.entries[..count].iter().filter(|entry| entry.kind == entry_kind::BATCH);
        meter.bytes += batches.map(|entry| u64::from(entry.batch_bytes)).sum::<u64>();
        meter.index.advance(count);
        Ok(meter.bytes - passed)
    }

    /// Reads what is committed past the cursor, to be handed out by [`Self::next_delivery`] once the commit is confirmed.
    /// Gives how many entries.
    pub fn fetch(&mut self, commit: &Commit) -> Result<usize, IndexFault> {
        // The search is over, and confirmed.
        self.is_seeking = false;
        if self.buffered.is_empty() {
            self.buffered = 0..self.index.read(commit, &mut self.entries[..])?;
        }
        Ok(self.buffered.len())
    }

    /// Goes on at `position`: another cursor has looked at what is in front of it, and found nothing of these topics.
    ///
    /// # Panics
    /// If that lies behind the cursor, or something is left of what was fetched.
    pub fn pass_to(&mut self, position: u64) {
        assert!(self.buffered.is_empty() && position >= self.index.next(), "it had everything");
        self.index.advance_to(position);
        if let Some(meter) = &mut self.meter {
            // How much that was is not known; what the meter has seen counts from here.
            meter.index.advance_to(position);
            meter.bytes = self.passed_bytes;
        }
    }

    /// Forgets what was fetched: the commit was not confirmed.
    pub fn unfetch(&mut self) {
        (self.buffered, self.deleted) = (0..0, None);
    }

    /// The next batch of its topics among what was fetched; moves the cursor past it. `None`: no more, or a topic was deleted.
    pub fn next_delivery(&mut self) -> Result<Option<Delivery>, ReadFault> {
        while let Some(offset) = self.buffered.next() {
            let (position, entry) = (self.index.next(), self.entries[offset]);
            let delivery = match self.look(position, &entry)? {
                Seen::Batch(place, arrival, first_order) => self.deliver(place, position, &arrival, first_order)?,
                Seen::Deleted(place) => {
                    (self.deleted, self.buffered.start) = (Some(place), offset);
                    return Ok(None);
                }
                Seen::Nothing => None,
            };
            if entry.kind == entry_kind::BATCH {
                self.passed_bytes += u64::from(entry.batch_bytes);
            }
            self.index.advance(1);
            if delivery.is_some() {
                return Ok(delivery);
            }
        }
        Ok(None)
    }

    /// Goes back to the batch that was handed out last: what was read of it may have been other bytes.
    pub fn take_back(&mut self, delivery: &Delivery) {
        self.unfetch();
        self.index.seek(delivery.position);
        self.passed_bytes -= delivery.bytes;
        self.meter = None;
        let follow = &mut self.follows[delivery.place];
        (follow.known_next, follow.skipped_from) = (Some(delivery.first_order), delivery.skipped_from);
    }

    /// A batch of a topic it follows, unless it ends before the start.
    fn deliver(
        &mut self,
        place: usize,
        position: u64,
        batch: &Arrival,
        first_order: u64,
    ) -> Result<Option<Delivery>, ReadFault> {
        let end_order = first_order + u64::from(batch.message_count);
        let follow = self.follows[place];
        let delivery = if end_order > follow.first {
            let due = follow.skipped_from.filter(|due| *due < first_order);
            Some(Delivery { skipped_from: due, ..self.delivery(place, position, batch, first_order)? })
        } else {
            None
        };
        let follow = &mut self.follows[place];
        follow.known_next = Some(end_order);
        if delivery.is_some() {
            follow.skipped_from = None;
        }
        Ok(delivery)
    }

    /// The header of the batch an entry names, `wanted` bytes of which may be read from now on.
    fn header(&self, position: u64, batch: &Arrival, wanted: u64) -> Result<BatchHeader, ReadFault> {
        start::header(&self.view, batch, wanted).ok_or(ReadFault::OtherBatch { position })
    }

    fn delivery(&self, place: usize, position: u64, batch: &Arrival, first_order: u64) -> Result<Delivery, ReadFault> {
        let bytes = u64::from(batch.batch_bytes);
        let header = self.header(position, batch, bytes)?;
        Ok(Delivery {
            place,
            header,
            lane: batch.lane,
            at: batch.blog_at,
            bytes,
            position,
            first_order,
            end_order: first_order + u64::from(batch.message_count),
            skipped_from: None,
        })
    }
}

#[cfg(test)]
mod tests;
