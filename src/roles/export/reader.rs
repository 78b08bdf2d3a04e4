//! One subscriber as the exporter sees it: finding its start, and collecting what it gets next. No I/O.

use crate::log::View;
use crate::log::commit::Commit;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::topics::TopicReader;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::pool::{Access, Memory};
use crate::wire::frame::{self, BatchHeader, Deliver, START_EARLIEST, START_LATEST};

/// Entries looked at for one reader in one pass at most.
pub const ENTRIES_PER_PASS: usize = 256;

/// What a search for the start came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// The pass is over; go on later.
    NotYet,
    /// The cursor stands where the stream begins; this is the order of its first message.
    Found(u64),
    /// The order asked for was trimmed; this is the earliest there is.
    Trimmed(u64),
}

/// A batch to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The frame in front of it.
    pub header: [u8; 64],
    /// Where it lies.
    pub at: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its messages.
    pub messages: u32,
    /// Order just past its last message.
    pub end_order: u64,
}

/// Why a reader cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// From the index.
    Index(IndexFault),
    /// The batch in the blog is not the one the index names.
    OtherBatch {
        /// Index position.
        position: u64,
    },
}

/// A subscriber's cursor.
pub struct Reader<M> {
    view: View<M>,
    index: IndexReader<M>,
    /// Where the search began.
    floor: u64,
    topic: u32,
    start_order: u64,
    /// Order just past the last entry of the topic that was seen.
    known_next: Option<u64>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    /// Entries read and not yet handed out.
    buffered: std::ops::Range<usize>,
}

impl<M: Memory> Reader<M> {
    /// A reader of `topic` that wants to start at `start_order` and looks for it from position `floor` on, which is pinned.
    pub fn new(view: &View<M>, topic: u32, start_order: u64, floor: u64) -> Self {
        Reader {
            view: view.clone(),
            index: IndexReader::new(view, floor),
            floor,
            topic,
            start_order,
            known_next: None,
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_PASS]),
            buffered: 0..0,
        }
    }

    /// The lowest position it may still read.
    pub fn position(&self) -> u64 {
        self.index.next()
    }

    fn is_mine(&self, entry: &IndexEntry) -> bool {
        entry.kind == entry_kind::BATCH && entry.topic() == self.topic
    }

    /// Looks for the start among committed entries; a bounded step.
    pub fn seek(&mut self, commit: &Commit, topics: &TopicReader<M>) -> Result<Sought, IndexFault> {
        let count = self.index.read(commit, &mut self.entries[..])?;
        for offset in 0..count {
            let entry = self.entries[offset];
            if !self.is_mine(&entry) {
                continue;
            }
            let end = entry.first_order + u64::from(entry.message_count);
            let is_first = self.known_next.is_none();
            let found = match self.start_order {
                START_EARLIEST => Some(Sought::Found(entry.first_order)),
                START_LATEST => None,
                wanted if wanted < entry.first_order && is_first => Some(Sought::Trimmed(entry.first_order)),
                wanted if wanted < end => Some(Sought::Found(wanted)),
                _ => None,
            };
            if let Some(sought) = found {
                self.index.advance(offset);
                return Ok(sought);
            }
            self.known_next = Some(end);
        }
        self.index.advance(count);
        if self.index.next() < commit.watermark {
            return Ok(Sought::NotYet);
        }
        Ok(self.at_the_tail(topics))
    }

    /// Begins the search again: what it looked at was not confirmed.
    pub fn restart(&mut self) {
        self.index.seek(self.floor);
        self.known_next = None;
    }

    /// Everything committed was looked at: the start is what comes next.
    fn at_the_tail(&self, topics: &TopicReader<M>) -> Sought {
        let next = match (self.known_next, topics.progress(self.topic)) {
            (Some(next), _) => next,
            // The checkpoint stands for a position that was looked at: between it and the tail the topic did not move.
            (None, Some(progress)) if progress.position <= self.index.next() => progress.next_order,
            _ => return Sought::NotYet,
        };
        match self.start_order {
            START_EARLIEST | START_LATEST => Sought::Found(next),
            wanted if wanted < next => Sought::Trimmed(next),
            wanted => Sought::Found(wanted),
        }
    }

    /// Fixes the order of the first message to deliver.
    pub fn begin(&mut self, first_order: u64) {
        self.start_order = first_order;
    }

    /// Reads what is committed past the cursor, to be handed out by [`Self::next_delivery`] once the commit is confirmed.
    /// Gives how many entries.
    pub fn fetch(&mut self, commit: &Commit) -> Result<usize, IndexFault> {
        if self.buffered.is_empty() {
            self.buffered = 0..self.index.read(commit, &mut self.entries[..])?;
        }
        Ok(self.buffered.len())
    }

    /// Forgets what was fetched: the commit was not confirmed.
    pub fn unfetch(&mut self) {
        self.buffered = 0..0;
    }

    /// The next batch of this topic among what was fetched; moves the cursor past it. `None`: no more.
    pub fn next_delivery(&mut self) -> Result<Option<Delivery>, ReadFault> {
        while let Some(offset) = self.buffered.next() {
            let entry = self.entries[offset];
            let position = self.index.next();
            let end = entry.first_order + u64::from(entry.message_count);
            if !self.is_mine(&entry) || end <= self.start_order {
                self.index.advance(1);
                continue;
            }
            let delivery = self.delivery(position, &entry)?;
            self.index.advance(1);
            return Ok(Some(delivery));
        }
        Ok(None)
    }

    fn delivery(&self, position: u64, entry: &IndexEntry) -> Result<Delivery, ReadFault> {
        let (at, bytes) = (entry.blog_at(), u64::from(entry.batch_bytes));
        // Dropped after the entry was seen, before the first byte is read: another host wrote them.
        if self.view.access_to_lane(entry.lane.into()) == Access::Remote {
            self.view.memory.discard(at, bytes);
        }
        let header: BatchHeader = self.view.memory.with_bytes(at, 64, bytemuck::pod_read_unaligned);
        let same = header.batch_seq == entry.batch_seq
            && header.session_epoch == entry.session_epoch
            && header.message_count == entry.message_count
            && header.topic == self.topic
            && header.frame_bytes() == bytes;
        if !same {
            return Err(ReadFault::OtherBatch { position });
        }
        let deliver = Deliver {
            body_bytes: entry.batch_bytes,
            message_count: entry.message_count,
            first_order: entry.first_order,
            position,
            session: header.session,
            batch_seq: entry.batch_seq,
            session_epoch: entry.session_epoch,
            topic: self.topic,
            ..Deliver::default()
        };
        let end_order = entry.first_order + u64::from(entry.message_count);
        Ok(Delivery { header: frame::seal(&deliver), at, bytes, messages: entry.message_count, end_order })
    }
}
