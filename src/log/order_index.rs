//! The order index: one 64-byte entry for everything that happened, in the one order.
//!
//! Entry `i` has guard `i + 1` and carries its sequencer epoch. The index is cut into segments; each candidate owns a fixed set of
//! places for them. An epoch's own [`directory`] lists every segment that can be read under it, those of its predecessors too;
//! readers use the directory of the commit's epoch and no other. Below the watermark the index is dense; above it, nobody looks.

use std::collections::VecDeque;

use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::commit::{Commit, Epoch};
use crate::log::damage::FieldFault;
use crate::log::directory::{self, Segment};
use crate::pool::line;
use crate::pool::record::IndexEntry;
use crate::pool::{Access, Memory};

/// Entries between the one that is written and the one that is fetched to be written.
const AHEAD: u64 = 8;

/// The appending side: one epoch of one candidate.
#[derive(Debug)]
pub struct IndexWriter<M> {
    view: View<M>,
    candidate: u32,
    epoch: Epoch,
    /// Of the candidate's directory: the one that its last active epoch does not use.
    bank: u32,
    next: u64,
    /// One past the highest number that a segment of this candidate ever had.
    segments: u64,
    /// Segments that may still be read, oldest first.
    live: VecDeque<Segment>,
    /// How many of them lie in places of this candidate.
    own: u64,
    /// Entries that the last of them still takes; 0: none is appended to.
    left: u64,
    /// Where the first of these goes.
    next_at: u64,
}

impl<M: Memory> IndexWriter<M> {
    /// An index writer of `epoch` that appends at `next` and takes nothing over.
    pub fn new(view: &View<M>, candidate: u32, epoch: Epoch, next: u64) -> Self {
        let (bank, segments) = directory::unused_bank(view, candidate);
        let live = VecDeque::with_capacity((view.layout.geometry.segments * view.layout.geometry.candidates) as usize);
        IndexWriter { view: view.clone(), candidate, epoch, bank, next, segments, live, own: 0, left: 0, next_at: 0 }
    }

    /// Goes on at `next` behind what a predecessor left, and lists it; visible by the next fence, which comes before the epoch becomes
    /// active. The last segment, if it is not full, is gone on with: in a place of this candidate. So one takeover after another
    /// uses no more of the index than one.
    pub fn take_over(view: &View<M>, candidate: u32, epoch: Epoch, next: u64, inherited: Inherited) -> Self {
        let mut writer = IndexWriter::new(view, candidate, epoch, next);
        let entries = u64::from(view.layout.geometry.segment_entries);
        writer.live.extend(inherited.segments);
        writer.own = writer.live.iter().filter(|segment| segment.owner == candidate).count() as u64;
        // Nothing in a place that is still listed is overwritten, even if the floor has passed it: that floor may be void.
        if let Some(last) = writer.live.back().copied()
            && next < last.first + entries
        {
            let is_own = last.owner == candidate;
            if is_own || writer.own < u64::from(view.layout.geometry.segments) {
                writer.live.pop_back();
                let number = if is_own { last.number } else { writer.take_number() };
                let end = last.first + entries;
                writer.live.push_back(Segment { owner: candidate, number, end, filled_by: epoch, ..last });
                writer.append_to(number, next - last.first);
            }
            if !is_own && writer.left > 0 {
                writer.own += 1;
                for (place, entry) in (0..).zip(&inherited.tail) {
                    let at = view.layout.index_entry(candidate, writer.segments - 1, place);
                    line::write(&view.memory, at, last.first + place + 1, entry);
                }
            }
        }
        writer.live.iter().for_each(|segment| writer.list(segment, epoch));
        writer
    }

    /// Position of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// One past the highest number that a segment of this candidate ever had.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Entries that fit before the oldest readable one would be overwritten.
    #[inline]
    pub fn room(&self) -> u64 {
        let entries = u64::from(self.view.layout.geometry.segment_entries);
        let unused = u64::from(self.view.layout.geometry.segments) - self.own;
        self.left + unused * entries
    }

    /// The next entry is the one that stands at `entry` in this segment of this candidate.
    fn append_to(&mut self, segment: u64, entry: u64) {
        self.left = u64::from(self.view.layout.geometry.segment_entries) - entry;
        self.next_at = self.view.layout.index_entry(self.candidate, segment, entry);
    }

    /// Appends an entry; visible to others by the next fence, and to anyone only below the watermark.
    ///
    /// # Panics
    /// If there is no room: the caller looks first.
    #[inline(always)]
    pub fn append(&mut self, entry: IndexEntry) -> u64 {
        if self.left == 0 {
            self.begin_segment();
        }
        let (position, at) = (self.next, self.next_at);
        line::write(&self.view.memory, at, position + 1, &IndexEntry { epoch: self.epoch as u32, ..entry });
        self.next += 1;
        self.next_at += LINE_BYTES;
        self.left -= 1;
        if self.left >= AHEAD {
            self.view.memory.prefetch(at + AHEAD * LINE_BYTES);
        }
        position
    }

    #[cold]
    fn begin_segment(&mut self) {
        assert!(self.room() > 0, "appended to a full index");
        let (owner, number, first) = (self.candidate, self.take_number(), self.next);
        let end = first + u64::from(self.view.layout.geometry.segment_entries);
        let segment = Segment { owner, number, first, end, filled_by: self.epoch };
        self.list(&segment, self.epoch);
        self.live.push_back(segment);
        self.own += 1;
        self.append_to(number, 0);
    }

    /// The next number whose place holds nothing that can be read.
    fn take_number(&mut self) -> u64 {
        let places = u64::from(self.view.layout.geometry.segments);
        let is_taken = |number: u64| {
            self.live.iter().any(|live| live.owner == self.candidate && live.number % places == number % places)
        };
        let number = (self.segments..self.segments + places).find(|number| !is_taken(*number));
        let number = number.expect("there is room for a segment");
        self.segments = number + 1;
        number
    }

    /// Writes a segment's line in this epoch's directory.
    fn list(&self, segment: &Segment, epoch: Epoch) {
        let at = self.view.layout.directory_line(self.candidate, self.bank, segment.owner, segment.number);
        line::write(&self.view.memory, at, segment.number + 1, &segment.to_line(epoch));
    }

    /// Whether segments are listed that end at or below `floor`.
    pub fn has_spent(&self, floor: u64) -> bool {
        self.live.len() > 1 && self.live[0].end <= floor
    }

    /// Takes segments off the list that end at or below `floor`, which was published and confirmed: nobody reads them any
    /// more, and whoever claims sees that floor.
    pub fn give_up(&mut self, floor: u64) {
        while self.has_spent(floor) {
            let segment = self.live.pop_front().expect("it was looked at");
            if segment.owner == self.candidate {
                // Its line is rewritten when its place is used again.
                self.own -= 1;
            } else {
                self.list(&segment, 0);
            }
        }
    }
}

/// What keeps an index reader from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// The directory does not list the position. Below the confirmed floor it was trimmed; else it cannot be read now.
    #[error(
        "no segment holds index position {position}: it was trimmed, cannot be read now, or its segment's line is damaged"
    )]
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

/// A following side: reads committed entries in order. Any number of them, each with its own cursor.
#[derive(Debug)]
pub struct IndexReader<M> {
    view: View<M>,
    next: u64,
    /// The segment last read from, and the epoch whose directory lists it.
    segment: Option<(Segment, Epoch)>,
}

impl<M: Memory> IndexReader<M> {
    /// Reads from `next` on.
    pub fn new(view: &View<M>, next: u64) -> Self {
        IndexReader { view: view.clone(), next, segment: None }
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

    /// Moves the cursor to where another one stands.
    pub fn advance_to(&mut self, next: u64) {
        self.next = next;
    }

    /// Reads up to `out.len()` entries below the watermark, without moving the cursor. Gives how many.
    ///
    /// What was read is good for acts that cannot be undone only if the commit is confirmed afterwards; then
    /// [`Self::advance`] moves the cursor. A fault, too, counts only then.
    pub fn read(&mut self, commit: &Commit, out: &mut [IndexEntry]) -> Result<usize, IndexFault> {
        let wanted = commit.watermark.saturating_sub(self.next).min(out.len() as u64);
        let mut done = 0;
        while done < wanted {
            let position = self.next + done;
            let segment = self.segment_of(position, commit)?;
            let count = (segment.end - position).min(wanted - done);
            if let Err(fault) = self.read_segment(&segment, position, &mut out[done as usize..(done + count) as usize])
            {
                // Its place may have been used again.
                self.segment = None;
                return Err(fault);
            }
            done += count;
        }
        Ok(done as usize)
    }

    /// Steps past `count` entries.
    pub fn advance(&mut self, count: usize) {
        self.next += count as u64;
    }

    fn read_segment(&self, segment: &Segment, position: u64, out: &mut [IndexEntry]) -> Result<(), IndexFault> {
        let access = self.view.access_to_candidate(segment.owner);
        let start = self.view.layout.index_entry(segment.owner, segment.number, position - segment.first);
        if access == Access::Remote {
            self.view.memory.discard(start, out.len() as u64 * 64);
        }
        for (index, entry) in out.iter_mut().enumerate() {
            let position = position + index as u64;
            match line::read::<M, IndexEntry>(&self.view.memory, start + index as u64 * 64) {
                Some((guard, found)) if guard == position + 1 && u64::from(found.epoch) <= segment.filled_by => {
                    *entry = found
                }
                _ => return Err(IndexFault::Inconsistent { position }),
            }
        }
        Ok(())
    }

    fn segment_of(&mut self, position: u64, commit: &Commit) -> Result<Segment, IndexFault> {
        if let Some((segment, epoch)) = self.segment
            && epoch == commit.epoch
            && segment.holds(position)
        {
            return Ok(segment);
        }
        let found = directory::find(&self.view, commit, position);
        self.segment = found.map(|segment| (segment, commit.epoch));
        found.ok_or(IndexFault::Trimmed { position })
    }
}

/// What a takeover inherits of the index.
#[derive(Debug)]
pub struct Inherited {
    /// Segments that its predecessor listed and that begin below its watermark, by position; the last ends at the watermark.
    pub segments: Vec<Segment>,
    /// The last one's entries.
    pub tail: Vec<IndexEntry>,
}

impl Inherited {
    /// Reads it. Whether a higher epoch was active meanwhile the caller looks afterwards.
    ///
    /// # Errors
    /// An entry of the last segment is not what it must be.
    pub(crate) fn read<M: Memory>(view: &View<M>, commit: &Commit) -> Result<Inherited, IndexFault> {
        let mut segments = Vec::new();
        directory::listed(view, commit, |segment| segments.push(segment));
        segments.retain(|segment| segment.first < commit.watermark);
        segments.sort_unstable_by_key(|segment| segment.first);
        let mut tail = Vec::new();
        if let Some(last) = segments.last_mut() {
            last.end = last.end.min(commit.watermark);
            tail.resize((last.end - last.first) as usize, IndexEntry::default());
            let read = IndexReader::new(view, last.first).read(commit, &mut tail)?;
            assert_eq!(read, tail.len(), "all of it lies below the watermark");
        }
        Ok(Inherited { segments, tail })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::views::plain_view;
    use crate::testing::watched::Watched;

    fn entry(lane_slot: u64) -> IndexEntry {
        IndexEntry { kind: 1, lane_slot, ..IndexEntry::default() }
    }

    #[test]
    fn a_thousand_laps_and_counts_past_32_bits() {
        let view = plain_view(1);
        let start = (1 << 32) - 1500;
        let mut writer = IndexWriter::new(&view, 0, 1, start);
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
        let mut writer = IndexWriter::new(&view, 0, 1, 0);
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
        let mut first = IndexWriter::new(&view, 0, 1, 0);
        (0..200).for_each(|n| {
            first.append(entry(n));
        });
        let sealed = Commit { epoch: 1, candidate: 0, watermark: 100 };
        let mut second = IndexWriter::take_over(&view, 1, 2, 100, Inherited::read(&view, &sealed).unwrap());
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

    /// What a reader found under one epoch is looked up again under the next: behind the watermark that was sealed it is void.
    #[test]
    fn a_reader_does_not_go_on_in_a_predecessors_segment() {
        let view = plain_view(2);
        let mut first = IndexWriter::new(&view, 0, 1, 0);
        (0..120).for_each(|n| {
            first.append(entry(n));
        });
        let sealed = Commit { epoch: 1, candidate: 0, watermark: 100 };
        let mut reader = IndexReader::new(&view, 0);
        let mut buffer = [IndexEntry::default(); 95];
        assert_eq!(reader.read(&sealed, &mut buffer), Ok(95));
        reader.advance(95);
        let mut second = IndexWriter::take_over(&view, 1, 2, 100, Inherited::read(&view, &sealed).unwrap());
        (100..120).for_each(|n| {
            second.append(entry(1000 + n));
        });
        let commit = Commit { epoch: 2, candidate: 1, watermark: 120 };
        assert_eq!(reader.read(&commit, &mut buffer), Ok(25));
        let found: Vec<u64> = buffer[..25].iter().map(|entry| entry.lane_slot).collect();
        assert_eq!(found, (95..100).chain(1100..1120).collect::<Vec<_>>());
    }

    /// A candidate that claims again while its former epoch is still the active one: until the new epoch is active, and if it never
    /// is, readers and the next claimant find everything under the former.
    #[test]
    fn a_claim_that_is_not_active_yet_hides_nothing_of_the_same_candidates_last_epoch() {
        let view = plain_view(2);
        let mut commits = CommitWriter::take(&view, 0);
        let (mut sealed, mut next): (Option<Commit>, u64) = (None, 0);
        for life in 0..5 {
            let epoch = commits.claim(0, life);
            let mut writer = match &sealed {
                Some(commit) => IndexWriter::take_over(&view, 0, epoch, next, Inherited::read(&view, commit).unwrap()),
                None => IndexWriter::new(&view, 0, epoch, next),
            };
            if let Some(commit) = &sealed {
                let mut all = vec![IndexEntry::default(); next as usize];
                assert_eq!(IndexReader::new(&view, 0).read(commit, &mut all), Ok(next as usize), "life {life}");
                let inherited = Inherited::read(&view, commit).unwrap();
                assert_eq!((inherited.segments[0].first, inherited.segments.last().unwrap().end), (0, next));
            }
            (0..150).for_each(|_| {
                let number = writer.next();
                writer.append(entry(number));
            });
            next = writer.next();
            commits.activate(next);
            sealed = Some(Commit { epoch, candidate: 0, watermark: next });
        }
    }

    /// Candidates take over from each other, and from themselves, far more often than there are segments.
    #[test]
    fn takeovers_do_not_use_the_index_up() {
        let view = plain_view(2);
        let mut commits = [0, 1].map(|candidate| CommitWriter::take(&view, candidate));
        let (mut epoch, mut next) = (0, 0);
        let mut before: Option<Commit> = None;
        for round in 0..100_u64 {
            let candidate = [0, 1, 1, 0][round as usize % 4];
            epoch = commits[candidate as usize].claim(epoch, 1);
            let mut writer = match &before {
                Some(commit) => {
                    let inherited = Inherited::read(&view, commit).unwrap();
                    IndexWriter::take_over(&view, candidate, epoch, next, inherited)
                }
                None => IndexWriter::new(&view, candidate, epoch, next),
            };
            (0..3).for_each(|_| {
                let number = writer.next();
                writer.append(entry(number));
            });
            next = writer.next();
            commits[candidate as usize].activate(next);
            let commit = Commit { epoch, candidate, watermark: next };
            let mut all = vec![IndexEntry::default(); next as usize];
            assert_eq!(IndexReader::new(&view, 0).read(&commit, &mut all), Ok(next as usize), "round {round}");
            assert!((0..).zip(&all).all(|(position, entry)| entry.lane_slot == position));
            // Void: behind the watermark.
            (0..7).for_each(|_| {
                writer.append(entry(u64::MAX));
            });
            before = Some(commit);
        }
    }

    /// The directory is looked through once a segment, not once an entry, however many takeovers there were.
    #[test]
    fn a_reader_looks_for_a_segment_once() {
        let plain = plain_view(2);
        let memory = Watched::new(plain.memory.clone());
        let view = View::single_host(memory.clone(), plain.layout.clone());
        let mut commits = [0, 1].map(|candidate| CommitWriter::take(&view, candidate));
        let mut before: Option<Commit> = None;
        for (candidate, epoch) in [0_u32, 1, 0, 1].into_iter().zip(1..) {
            assert_eq!(commits[candidate as usize].claim(epoch - 1, 1), epoch);
            let mut writer = match &before {
                Some(commit) => {
                    let inherited = Inherited::read(&view, commit).unwrap();
                    IndexWriter::take_over(&view, candidate, epoch, commit.watermark, inherited)
                }
                None => IndexWriter::new(&view, candidate, epoch, 0),
            };
            for _ in 0..100 {
                writer.append(entry(writer.next()));
            }
            commits[candidate as usize].activate(writer.next());
            before = Some(Commit { epoch, candidate, watermark: writer.next() });
        }
        let commit = before.expect("four of them");
        let looks = Arc::new(AtomicU64::new(0));
        let count = looks.clone();
        memory.on_each(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut reader = IndexReader::new(&view, 0);
        for position in 0..commit.watermark {
            let mut one = [IndexEntry::default()];
            assert_eq!((reader.read(&commit, &mut one), one[0].lane_slot), (Ok(1), position));
            reader.advance(1);
        }
        memory.stop();
        let (segments, lines) = (commit.watermark.div_ceil(100), 2 * 2 * 8);
        let most = segments * lines * 8 + commit.watermark * 8;
        let looks = looks.load(Ordering::Relaxed);
        assert!(looks <= most, "{looks} operations for {} entries: at most {most}", commit.watermark);
    }

    /// A reader that nobody waited for: its segment was written over while it slept.
    #[test]
    fn entries_of_another_lap_epoch_or_claimant_are_not_read() {
        let view = plain_view(2);
        let mut writer = IndexWriter::new(&view, 0, 1, 0);
        (0..200).for_each(|n| {
            writer.append(entry(n));
        });
        let commit = |watermark| Commit { epoch: 1, candidate: 0, watermark };
        let mut reader = IndexReader::new(&view, 0);
        let mut out = [IndexEntry::default(); 10];
        assert_eq!(reader.read(&commit(200), &mut out), Ok(10));
        // A claimant writes: under epoch 1 nothing of it counts.
        let mut claimant = IndexWriter::new(&view, 1, 2, 5);
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
