//! One subscriber's cursor: finding its start, and collecting what it gets next. No I/O.

use crate::log::View;
use crate::log::commit::Commit;
use crate::log::damage::exactly;
use crate::log::entry::to_sound_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::topics::TopicReader;
use crate::order::{Arrival, Event};
use crate::pool::record::IndexEntry;
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
    /// The topic was deleted.
    Deleted,
}

/// What an entry says of a topic.
enum Seen {
    /// A batch, and the order of its first message.
    Batch(Arrival, u64),
    /// It was deleted.
    Deleted,
    /// Nothing.
    Nothing,
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

/// A subscriber's cursor.
pub struct Reader<M> {
    view: View<M>,
    index: IndexReader<M>,
    /// Where the search began.
    floor: u64,
    topic: u32,
    /// Index position of the topic's creation: entries of its number below that are another's.
    created_position: u64,
    /// The topic was there when the search had begun: if it is deleted, the cursor comes by.
    is_known: bool,
    /// The cursor stands where the topic was deleted.
    is_deleted: bool,
    start_order: u64,
    /// Order just past the last entry of the topic that was seen.
    known_next: Option<u64>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    /// Entries read and not yet handed out.
    buffered: std::ops::Range<usize>,
}

impl<M: Memory> Reader<M> {
    /// A reader of `topic`, created at index position `created_position`, that wants to start at `start_order` and looks for it
    /// from position `floor` on, which is pinned.
    pub fn new(view: &View<M>, topic: u32, created_position: u64, start_order: u64, floor: u64) -> Self {
        let floor = floor.max(created_position);
        Reader {
            view: view.clone(),
            index: IndexReader::new(view, floor),
            floor,
            topic,
            created_position,
            is_known: false,
            is_deleted: false,
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

    /// Whether the topic was deleted, and everything before that was handed out.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// What the entry at `position` says of this topic, checked. Every entry is checked, whatever its topic: it may be this
    /// topic's, with its topic damaged.
    fn look(&self, position: u64, entry: &IndexEntry) -> Result<Seen, IndexFault> {
        match to_sound_event(position, entry, &self.view.layout)? {
            Event::Batch { arrival, first_order, .. } if arrival.topic == self.topic => {
                let next = self.known_next.unwrap_or(first_order);
                exactly("first_order", first_order, next).map_err(|fault| IndexFault::Damaged { position, fault })?;
                Ok(Seen::Batch(arrival, first_order))
            }
            Event::TopicDeleted { topic, .. } if topic == self.topic => Ok(Seen::Deleted),
            _ => Ok(Seen::Nothing),
        }
    }

    /// Looks for the start among committed entries; a bounded step.
    pub fn seek(&mut self, commit: &Commit, topics: &TopicReader<M>) -> Result<Sought, IndexFault> {
        if !self.is_known {
            match topics.stands(self.topic, self.created_position) {
                Some(true) => self.is_known = true,
                Some(false) => return Ok(Sought::Deleted),
                None => return Ok(Sought::NotYet),
            }
        }
        let count = self.index.read(commit, &mut self.entries[..])?;
        for offset in 0..count {
            let (arrival, first_order) = match self.look(self.index.next() + offset as u64, &self.entries[offset])? {
                Seen::Batch(arrival, first_order) => (arrival, first_order),
                Seen::Deleted => return Ok(Sought::Deleted),
                Seen::Nothing => continue,
            };
            let end = first_order + u64::from(arrival.message_count);
            let is_first = self.known_next.is_none();
            let found = match self.start_order {
                START_EARLIEST => Some(Sought::Found(first_order)),
                START_LATEST => None,
                wanted if wanted < first_order && is_first => Some(Sought::Trimmed(first_order)),
                wanted if wanted < end => Some(Sought::Found(wanted)),
                _ => None,
            };
            if let Some(sought) = found {
                // This batch is read again.
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
        // A number's last topic leaves its progress behind.
        let progress = topics.progress(self.topic).filter(|progress| progress.position >= self.created_position);
        let next = match (self.known_next, progress) {
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
        (self.buffered, self.is_deleted) = (0..0, false);
    }

    /// The next batch of this topic among what was fetched; moves the cursor past it. `None`: no more, or the topic was deleted.
    pub fn next_delivery(&mut self) -> Result<Option<Delivery>, ReadFault> {
        while let Some(offset) = self.buffered.next() {
            let position = self.index.next();
            let batch = match self.look(position, &self.entries[offset]).map_err(ReadFault::Index)? {
                Seen::Batch(arrival, first_order) => Some((arrival, first_order)),
                Seen::Deleted => {
                    (self.is_deleted, self.buffered.start) = (true, offset);
                    return Ok(None);
                }
                Seen::Nothing => None,
            };
            let wanted = match batch {
                Some((arrival, first_order)) => {
                    let end = first_order + u64::from(arrival.message_count);
                    (end > self.start_order).then(|| self.delivery(position, &arrival, first_order)).transpose()?
                }
                None => None,
            };
            if let Some((arrival, first_order)) = batch {
                self.known_next = Some(first_order + u64::from(arrival.message_count));
            }
            self.index.advance(1);
            if wanted.is_some() {
                return Ok(wanted);
            }
        }
        Ok(None)
    }

    fn delivery(&self, position: u64, batch: &Arrival, first_order: u64) -> Result<Delivery, ReadFault> {
        let (at, bytes) = (batch.blog_at, u64::from(batch.batch_bytes));
        // Dropped after the entry was seen, before the first byte is read: another host wrote them.
        if self.view.access_to_lane(batch.lane.into()) == Access::Remote {
            self.view.memory.discard(at, bytes);
        }
        let header: BatchHeader = self.view.memory.with_bytes(at, 64, bytemuck::pod_read_unaligned);
        let same = header.batch_seq == batch.batch_seq
            && header.session_epoch == batch.session_epoch
            && header.message_count == batch.message_count
            && header.topic == self.topic
            && header.frame_bytes() == bytes;
        if !same {
            return Err(ReadFault::OtherBatch { position });
        }
        let deliver = Deliver {
            body_bytes: batch.batch_bytes,
            message_count: batch.message_count,
            first_order,
            position,
            session: header.session,
            batch_seq: batch.batch_seq,
            session_epoch: batch.session_epoch,
            topic: self.topic,
            ..Deliver::default()
        };
        let end_order = first_order + u64::from(batch.message_count);
        Ok(Delivery { header: frame::seal(&deliver), at, bytes, messages: batch.message_count, end_order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Homes;
    use crate::log::order_index::IndexWriter;
    use crate::pool::Keep;
    use crate::pool::record::entry_kind;
    use crate::sim::memory::{SharedMemory, Whim, small_geometry};

    /// The reader's host has the batch's lines in its cache from before they were written; and what lies there must be what the
    /// index names.
    #[test]
    fn another_batch_or_a_stale_one_is_not_delivered() {
        let layout = std::sync::Arc::new(crate::pool::Layout::new(small_geometry(1)).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, Whim::NONE, 1);
        let homes = |here| Homes { here, brokers: vec![0, 0], candidates: vec![0] };
        let view = |host: u32| View::new(pool.host(host as usize), layout.clone(), homes(host));
        let (here, there) = (view(0), view(1));
        let at = layout.extent(0, 0);
        there.memory.with_bytes(at, 128, |bytes| assert_eq!(bytes, [0; 128]));
        let header = BatchHeader { message_count: 1, body_bytes: 64, batch_seq: 3, ..BatchHeader::default() };
        here.memory.copy_in(at, &frame::seal(&header));
        here.memory.copy_in(at + 64, &[7; 64]);
        here.memory.write_back(at, 128, Keep::Cached);
        let mut index = IndexWriter::new(&here, 0, 1, 0, 0);
        let entry = IndexEntry {
            kind: entry_kind::BATCH,
            batch_seq: 3,
            message_count: 1,
            batch_bytes: 128,
            place: IndexEntry::pack_place(at, 0),
            ..IndexEntry::default()
        };
        index.append(entry);
        index.append(IndexEntry { batch_seq: 4, first_order: 1, ..entry });
        here.memory.store_fence();
        let mut reader = Reader::new(&there, 0, 0, 0, 0);
        assert_eq!(reader.fetch(&Commit { epoch: 1, candidate: 0, watermark: 2 }), Ok(2));
        let first = reader.next_delivery().expect("dropped before it was read").expect("it is there");
        assert_eq!((first.at, first.bytes, first.end_order), (at, 128, 1));
        there.memory.with_bytes(at + 64, 64, |body| assert_eq!(body, [7; 64], "the kernel sends it from here"));
        assert_eq!(reader.next_delivery(), Err(ReadFault::OtherBatch { position: 1 }));
    }
}
