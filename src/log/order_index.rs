//! The order index: one 64-byte entry for everything that happened, in the one order.
//!
//! Entry `i` has guard `i + 1` and carries its sequencer epoch. The index is cut into segments; each candidate owns a
//! fixed set of segments and lists those in use in its directory: segment number (the guard), epoch, first
//! position. A position belongs to the segment with the highest epoch among those that begin at or before it. Below the
//! watermark the index is dense; above it, nobody looks.

use std::collections::VecDeque;

use crate::log::View;
use crate::log::commit::{Commit, Epoch};
use crate::log::damage::{COUNT_MAX, FieldFault, count, within_steps};
use crate::pool::line;
use crate::pool::record::{IndexEntry, SegmentLine};
use crate::pool::{Access, Memory};

/// The appending side: one epoch of one candidate.
pub struct IndexWriter<M> {
    view: View<M>,
    candidate: u32,
    epoch: Epoch,
    next: u64,
    /// Segments this candidate has used, ever.
    segments: u64,
    /// First positions of its segments that may still be read, oldest first; the last is being filled.
    live: VecDeque<u64>,
    /// Whether the last segment is this epoch's: those of older epochs are not appended to.
    begun: bool,
}

impl<M: Memory> IndexWriter<M> {
    /// An index writer of `epoch` that appends at `next`. Segments of this candidate that hold positions at or above
    /// `floor` stay untouched until [`Self::give_up`].
    pub fn new(view: &View<M>, candidate: u32, epoch: Epoch, next: u64, floor: u64) -> Self {
        let count = u64::from(view.layout.geometry.segments);
        let mut found: Vec<(u64, u64)> = (0..count)
            .filter_map(|segment| {
                let at = view.layout.directory_line(candidate, segment);
                line::read::<M, SegmentLine>(&view.memory, at).map(|(guard, record)| (guard - 1, record.first))
            })
            .collect();
        found.sort_unstable();
        let segments = found.last().map_or(0, |(number, _)| number + 1);
        let mut live = VecDeque::with_capacity(count as usize);
        live.extend(found.into_iter().map(|(_, first)| first));
        let mut writer = IndexWriter { view: view.clone(), candidate, epoch, next, segments, live, begun: false };
        writer.give_up(floor);
        writer
    }

    /// Position of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Segments used, ever.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Entries that fit before the oldest readable one would be overwritten.
    #[inline]
    pub fn room(&self) -> u64 {
        let entries = u64::from(self.view.layout.geometry.segment_entries);
        let unused = u64::from(self.view.layout.geometry.segments) - self.live.len() as u64;
        self.left_in_segment() + unused * entries
    }

    fn left_in_segment(&self) -> u64 {
        match self.live.back() {
            Some(first) if self.begun => first + u64::from(self.view.layout.geometry.segment_entries) - self.next,
            _ => 0,
        }
    }

    /// Appends an entry; visible to others by the next fence, and to anyone only below the watermark.
    ///
    /// # Panics
    /// If there is no room: the caller looks first.
    #[inline]
    pub fn append(&mut self, entry: IndexEntry) -> u64 {
        assert!(self.room() > 0, "appended to a full index");
        if self.left_in_segment() == 0 {
            self.begin_segment();
        }
        let position = self.next;
        let first = *self.live.back().expect("a segment was begun");
        let at = self.view.layout.index_entry(self.candidate, self.segments - 1, position - first);
        line::write(&self.view.memory, at, position + 1, &IndexEntry { epoch: self.epoch as u32, ..entry });
        self.next += 1;
        position
    }

    fn begin_segment(&mut self) {
        let number = self.segments;
        let record = SegmentLine { epoch: self.epoch, first: self.next, reserved: [0; 5] };
        line::write(&self.view.memory, self.view.layout.directory_line(self.candidate, number), number + 1, &record);
        self.segments += 1;
        self.begun = true;
        self.live.push_back(self.next);
    }

    /// Takes back segments that end at or below `floor`: nobody reads them any more.
    pub fn give_up(&mut self, floor: u64) {
        while self.live.len() > 1 && self.live[1] <= floor {
            self.live.pop_front();
        }
    }
}

/// Where a reader stands in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    candidate: u32,
    number: u64,
    epoch: Epoch,
    first: u64,
}

/// What keeps an index reader from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// No directory knows the position: it was trimmed.
    #[error("no segment holds index position {position}: it was trimmed, or its segment's line is damaged")]
    Trimmed {
        /// The position.
        position: u64,
    },
    /// The entry's guard or epoch is not what a committed entry's must be. If the pool is read again later and it still is
    /// so, the pool is damaged.
    #[error("the entry at index position {position} has another guard or epoch than a committed entry has")]
    Inconsistent {
        /// The position.
        position: u64,
    },
    /// The entry names what cannot be: the pool is damaged.
    #[error("the entry at index position {position}: {fault}")]
    Damaged {
        /// The position.
        position: u64,
        /// Which of its fields.
        fault: FieldFault,
    },
}

/// Holds a candidate's directory against the geometry: every line lies in its segment's place, and no number overflows.
pub fn check_directory<M: Memory>(view: &View<M>, candidate: u32) -> Result<(), FieldFault> {
    let segments = u64::from(view.layout.geometry.segments);
    let access = view.access_to_candidate(candidate);
    for place in 0..segments {
        let at = view.layout.directory_line(candidate, place);
        let Some((guard, record)) = line::observe::<M, SegmentLine>(&view.memory, at, access) else { continue };
        within_steps("guard", guard, place + 1, COUNT_MAX / segments * segments + place + 1, segments)?;
        count("epoch", record.epoch)?;
        count("first position", record.first)?;
    }
    Ok(())
}

/// A following side: reads committed entries in order. Any number of them, each with its own cursor.
pub struct IndexReader<M> {
    view: View<M>,
    next: u64,
    segment: Option<Segment>,
    /// Epoch the cached segment was looked up under: a takeover may have cut it short.
    looked_up: Epoch,
}

impl<M: Memory> IndexReader<M> {
    /// Reads from `next` on.
    pub fn new(view: &View<M>, next: u64) -> Self {
        IndexReader { view: view.clone(), next, segment: None, looked_up: 0 }
    }

    /// Position of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Moves the cursor.
    pub fn seek(&mut self, next: u64) {
        self.next = next;
        self.segment = None;
    }

    /// Reads up to `out.len()` entries below the watermark, without moving the cursor. Gives how many.
    ///
    /// What was read is good for acts that cannot be undone only if the commit is confirmed afterwards; then
    /// [`Self::advance`] moves the cursor.
    pub fn read(&mut self, commit: &Commit, out: &mut [IndexEntry]) -> Result<usize, IndexFault> {
        let wanted = commit.watermark.saturating_sub(self.next).min(out.len() as u64);
        let mut done = 0;
        while done < wanted {
            let position = self.next + done;
            let segment = self.segment_of(position, commit)?;
            let entries = u64::from(self.view.layout.geometry.segment_entries);
            // An older epoch's segment may end early, where the next epoch began: every entry is looked up.
            let count = if segment.epoch == commit.epoch { segment.first + entries - position } else { 1 };
            let count = count.min(wanted - done);
            self.read_segment(&segment, position, &mut out[done as usize..(done + count) as usize])?;
            done += count;
        }
        Ok(done as usize)
    }

    /// Steps past `count` entries.
    pub fn advance(&mut self, count: usize) {
        self.next += count as u64;
    }

    fn read_segment(&self, segment: &Segment, position: u64, out: &mut [IndexEntry]) -> Result<(), IndexFault> {
        let access = self.view.access_to_candidate(segment.candidate);
        let start = self.view.layout.index_entry(segment.candidate, segment.number, position - segment.first);
        if access == Access::Remote {
            self.view.memory.discard(start, out.len() as u64 * 64);
        }
        for (index, entry) in out.iter_mut().enumerate() {
            let position = position + index as u64;
            match line::read::<M, IndexEntry>(&self.view.memory, start + index as u64 * 64) {
                Some((guard, found)) if guard == position + 1 && u64::from(found.epoch) == segment.epoch => {
                    *entry = found
                }
                _ => return Err(IndexFault::Inconsistent { position }),
            }
        }
        Ok(())
    }

    fn segment_of(&mut self, position: u64, commit: &Commit) -> Result<Segment, IndexFault> {
        let entries = u64::from(self.view.layout.geometry.segment_entries);
        if let Some(segment) = self.segment
            && self.looked_up == commit.epoch
            && (segment.first..segment.first.saturating_add(entries)).contains(&position)
            && segment.epoch == commit.epoch
        {
            return Ok(segment);
        }
        let mut best: Option<Segment> = None;
        for candidate in 0..self.view.layout.geometry.candidates {
            let access = self.view.access_to_candidate(candidate);
            for place in 0..u64::from(self.view.layout.geometry.segments) {
                let at = self.view.layout.directory_line(candidate, place);
                let Some((guard, record)) = line::observe::<M, SegmentLine>(&self.view.memory, at, access) else {
                    continue;
                };
                // A claimant above the commit is not current yet: its segments may be void.
                if record.first > position || record.epoch > commit.epoch {
                    continue;
                }
                let found = Segment { candidate, number: guard - 1, epoch: record.epoch, first: record.first };
                if best.is_none_or(|best| (found.epoch, found.first) > (best.epoch, best.first)) {
                    best = Some(found);
                }
            }
        }
        match best {
            Some(segment) if position < segment.first.saturating_add(entries) => {
                (self.segment, self.looked_up) = (Some(segment), commit.epoch);
                Ok(segment)
            }
            _ => Err(IndexFault::Trimmed { position }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::memory::plain_view;

    fn entry(lane_slot: u64) -> IndexEntry {
        IndexEntry { kind: 1, lane_slot, ..IndexEntry::default() }
    }

    #[test]
    fn a_thousand_laps_and_counts_past_32_bits() {
        let view = plain_view(1);
        let start = (1 << 32) - 1500;
        let mut writer = IndexWriter::new(&view, 0, 1, start, start);
        let mut reader = IndexReader::new(&view, start);
        let capacity = writer.room();
        assert_eq!(capacity, 1024);
        let mut buffer = [IndexEntry::default(); 100];
        while writer.next() < start + 1000 * capacity {
            while writer.room() > 0 && writer.next() - reader.next() < 700 {
                let next = writer.next();
                assert_eq!(writer.append(entry(next)), next);
            }
            view.memory.store_fence();
            let commit = Commit { epoch: 1, candidate: 0, watermark: writer.next() };
            let count = reader.read(&commit, &mut buffer).unwrap();
            assert!(count > 0);
            for (index, entry) in buffer[..count].iter().enumerate() {
                assert_eq!(entry.lane_slot, reader.next() + index as u64);
            }
            reader.advance(count);
            writer.give_up(reader.next());
        }
    }

    #[test]
    fn a_full_index_has_no_room_and_an_old_reader_is_told() {
        let view = plain_view(1);
        let mut writer = IndexWriter::new(&view, 0, 1, 0, 0);
        while writer.room() > 0 {
            writer.append(entry(0));
        }
        assert_eq!(writer.next(), 1024);
        writer.give_up(500);
        assert_eq!(writer.room(), 3 * 128);
        (0..300).for_each(|_| {
            writer.append(entry(1));
        });
        let commit = Commit { epoch: 1, candidate: 0, watermark: writer.next() };
        let fault = IndexReader::new(&view, 0).read(&commit, &mut [IndexEntry::default()]);
        assert_eq!(fault, Err(IndexFault::Trimmed { position: 0 }));
        // Behind the end of the last segment anyone listed.
        let commit = Commit { watermark: 3000, ..commit };
        let fault = IndexReader::new(&view, 2000).read(&commit, &mut [IndexEntry::default()]);
        assert_eq!(fault, Err(IndexFault::Trimmed { position: 2000 }));
    }

    /// Epoch 1 wrote past its watermark before epoch 2 sealed it: those entries are void.
    #[test]
    fn a_successors_segment_wins_from_its_first_position_on() {
        let view = plain_view(2);
        let mut first = IndexWriter::new(&view, 0, 1, 0, 0);
        (0..200).for_each(|n| {
            first.append(entry(n));
        });
        let mut second = IndexWriter::new(&view, 1, 2, 100, 0);
        (0..150).for_each(|n| {
            second.append(entry(1000 + n));
        });
        let commit = Commit { epoch: 2, candidate: 1, watermark: 250 };
        let mut reader = IndexReader::new(&view, 0);
        let mut all = Vec::new();
        let mut buffer = [IndexEntry::default(); 64];
        while reader.next() < 250 {
            let count = reader.read(&commit, &mut buffer).unwrap();
            all.extend(buffer[..count].iter().map(|entry| entry.lane_slot));
            reader.advance(count);
        }
        let expected: Vec<u64> = (0..100).chain(1000..1150).collect();
        assert_eq!(all, expected);
    }

    /// A reader that nobody waited for: its segment was written over while it slept.
    #[test]
    fn entries_of_another_lap_epoch_or_claimant_are_not_read() {
        let view = plain_view(2);
        let mut writer = IndexWriter::new(&view, 0, 1, 0, 0);
        (0..200).for_each(|n| {
            writer.append(entry(n));
        });
        let commit = |watermark| Commit { epoch: 1, candidate: 0, watermark };
        let mut reader = IndexReader::new(&view, 0);
        let mut out = [IndexEntry::default(); 10];
        assert_eq!(reader.read(&commit(200), &mut out), Ok(10));
        // A claimant writes: under epoch 1 nothing of it counts.
        let mut claimant = IndexWriter::new(&view, 1, 2, 5, 0);
        (0..50).for_each(|_| {
            claimant.append(entry(9999));
        });
        let mut fresh = IndexReader::new(&view, 0);
        fresh.seek(6);
        assert_eq!(fresh.read(&commit(200), &mut out), Ok(10));
        assert_eq!(out[9].lane_slot, 15);
        writer.give_up(190);
        while writer.room() > 0 {
            let next = writer.next();
            writer.append(entry(next));
        }
        assert_eq!(reader.read(&commit(1000), &mut out), Err(IndexFault::Inconsistent { position: 0 }));
        let at = view.layout.index_entry(0, 1, 0);
        line::publish(&view.memory, at, 129, &IndexEntry { epoch: 7, ..entry(128) });
        fresh.seek(128);
        assert_eq!(fresh.read(&commit(1000), &mut out), Err(IndexFault::Inconsistent { position: 128 }));
    }
}
