//! Epoch lines and the commit watermark: the one point at which anything becomes visible.
//!
//! Each sequencer candidate owns one epoch line. Epochs are unique: epoch ≡ slot + 1 modulo the number of candidates. The
//! sequencer is the candidate with the highest *active* epoch; everything a sequencer writes exists once
//! per candidate, and [`CommitReader::read`] is the one way to read it: the value first, the epoch lines after; if
//! any higher epoch is claimed by then, the read is void. So a paused and revived predecessor writes only
//! where nobody looks, without an atomic across hosts.

use crate::log::View;
use crate::log::damage::{COUNT_MAX, FieldFault, count, sound, within_steps};
use crate::pool::line::{self, Owned, Peer};
use crate::pool::record::{Checked, EpochLine, Record};
use crate::pool::{Access, Keep, Memory};

/// A sequencer epoch. 0: none yet.
pub type Epoch = u64;

/// The commit point as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Highest active epoch.
    pub epoch: Epoch,
    /// Its candidate.
    pub candidate: u32,
    /// Every index position below it is committed.
    pub watermark: u64,
}

/// Reads the epoch lines of all candidates.
#[derive(Clone, Debug)]
pub struct CommitReader<M> {
    memory: M,
    lines: Vec<Peer<EpochLine, M>>,
    accesses: Vec<Access>,
}

impl<M: Memory> CommitReader<M> {
    /// Over the epoch lines of a pool.
    pub fn new(view: &View<M>) -> Self {
        let candidates = 0..view.layout.geometry.candidates;
        let line = |c| Peer::new(view.memory.clone(), view.layout.epoch_line(c), view.access_to_candidate(c));
        CommitReader {
            memory: view.memory.clone(),
            lines: candidates.clone().map(line).collect(),
            accesses: candidates.map(|c| view.access_to_candidate(c)).collect(),
        }
    }

    /// The epoch line of one candidate; all zero if it was never written.
    pub fn line(&self, candidate: u32) -> EpochLine {
        self.lines[candidate as usize].observe_words()
    }

    /// The highest epoch claimed, or active where a damaged line says that it was never claimed.
    pub fn highest_claimed(&self) -> Epoch {
        let claimed = |line: EpochLine| line.claimed.max(line.active);
        self.lines.iter().map(|line| claimed(line.observe_words())).max().unwrap_or(0)
    }

    /// The candidate with the highest claim, active or not, and that epoch. `None`: nobody ever claimed.
    pub fn highest_claimant(&self) -> Option<(u32, Epoch)> {
        let claims = (0..).zip(&self.lines).map(|(candidate, peer)| {
            let line = peer.observe_words();
            (candidate, line.claimed.max(line.active))
        });
        claims.filter(|(_, epoch)| *epoch > 0).max_by_key(|(_, epoch)| *epoch)
    }

    /// The highest active epoch and its watermark. `None`: no sequencer has been active. Not enough for an act that cannot be
    /// undone: see [`Self::confirm`].
    ///
    /// Words are read whatever the guard says. An epoch line that is being rewritten, perhaps by a process that was stopped or
    /// killed there, still counts: left out of the choice, it would let an older epoch pass for the current one.
    #[inline]
    pub fn current(&self) -> Option<Commit> {
        let mut best: Option<Commit> = None;
        for (candidate, peer) in self.lines.iter().enumerate() {
            let line = peer.observe_words();
            if line.active > best.map_or(0, |commit| commit.epoch) {
                let watermark = line.watermark;
                best = Some(Commit { epoch: line.active, candidate: candidate as u32, watermark });
            }
        }
        best
    }

    /// Whether, after everything read so far, no epoch above `epoch` has been claimed. Everything read from that
    /// epoch's candidate before this call is then good for ever.
    #[inline]
    pub fn confirm(&self, epoch: Epoch) -> bool {
        if M::SOFTWARE {
            // A sequencer of this host may not have written back yet what we saw in the cache we share: if it stops there, a
            // successor on another host does not see it. So it is written back before the claims are looked at: a
            // claimant that is not seen there reads it later.
            for (peer, access) in self.lines.iter().zip(&self.accesses) {
                if *access == Access::Local {
                    self.memory.flush_line(peer.at(), Keep::Cached);
                }
            }
            // The fence orders that, and the loads of the value, before the loads of the epoch lines.
            self.memory.full_fence();
        }
        self.lines.iter().all(|peer| peer.observe_words().claimed <= epoch)
    }

    /// Reads a record that every candidate has a copy of, from the sequencer's copy, confirmed.
    pub fn read<R: Record>(&self, place: impl Fn(u32) -> u64) -> Option<(Commit, R)> {
        let commit = self.current()?;
        let (_, record) = self.peek(commit, place)?;
        self.confirm(commit.epoch).then_some((commit, record))
    }

    /// Reads the copy of one commit's candidate, unconfirmed; with its guard.
    pub fn peek<R: Record>(&self, commit: Commit, place: impl Fn(u32) -> u64) -> Option<(u64, R)> {
        let (at, access) = (place(commit.candidate), self.accesses[commit.candidate as usize]);
        let found = line::observe(&self.memory, at, access);
        self.help_write_back(at, access);
        found
    }

    /// Reads the words of one commit's copy of a record whose words stand alone, unconfirmed.
    pub fn peek_words<R: Record>(&self, commit: Commit, place: impl Fn(u32) -> u64) -> R {
        let (at, access) = (place(commit.candidate), self.accesses[commit.candidate as usize]);
        let found = line::observe_words(&self.memory, at, access);
        self.help_write_back(at, access);
        found
    }

    /// Reads one commit's copy of a record that carries a check, unconfirmed: whole and sound; or, while it is being rewritten or
    /// where its writer was killed in that, its words, each of which stands alone.
    ///
    /// # Errors
    /// It is whole and not sound. Damage counts only if the commit is confirmed after that.
    pub fn peek_sound<R: Checked>(&self, commit: Commit, place: impl Fn(u32) -> u64) -> Result<R, FieldFault> {
        match self.peek::<R>(commit, &place) {
            Some((_, found)) => sound(found),
            None => Ok(self.peek_words::<R>(commit, place).unsealed()),
        }
    }

    /// What was seen in the cache shared with its writer is acted on only after it was written back: a reader of another host must not find
    /// less. To be called behind the look; [`Self::confirm`] fences.
    pub fn help_write_back(&self, at: u64, access: Access) {
        if M::SOFTWARE && access == Access::Local {
            self.memory.flush_line(at, Keep::Cached);
        }
    }

    /// Holds every candidate's epoch line against what a candidate can claim.
    ///
    /// # Errors
    /// The candidate whose line is damaged, and the field.
    pub fn check(&self) -> Result<(), (u32, FieldFault)> {
        let candidates = self.lines.len() as u64;
        (0..self.lines.len() as u32).try_for_each(|candidate| {
            check_line(&self.line(candidate), candidate, candidates).map_err(|fault| (candidate, fault))
        })
    }

    /// How to read lines of a candidate.
    pub fn access(&self, candidate: u32) -> Access {
        self.accesses[candidate as usize]
    }
}

/// Holds a candidate's epoch line against what it can claim, where there are so many candidates.
///
/// # Errors
/// The first field that no candidate writes.
pub fn check_line(line: &EpochLine, candidate: u32, candidates: u64) -> Result<(), FieldFault> {
    let lowest = u64::from(candidate) + 1;
    let is_epoch = |field, epoch: u64| match epoch {
        0 => Ok(()),
        _ => within_steps(field, epoch, lowest, COUNT_MAX + lowest, candidates),
    };
    is_epoch("claimed", line.claimed)
        .and_then(|()| is_epoch("active", line.active))
        .and_then(|()| count("watermark", line.watermark))
        .and_then(|()| count("heartbeat", line.heartbeat))
        .and_then(|()| count("segments", line.segments))
}

/// The one writer of a candidate's epoch line.
#[derive(Debug)]
pub struct CommitWriter<M> {
    line: Owned<EpochLine, M>,
    record: EpochLine,
    candidate: u32,
    candidates: u32,
}

impl<M: Memory> CommitWriter<M> {
    /// Takes a candidate's line over; the caller holds the host lock of the slot.
    pub fn take(view: &View<M>, candidate: u32) -> Self {
        let line: Owned<EpochLine, M> = Owned::take(view.memory.clone(), view.layout.epoch_line(candidate));
        let record = line.current().unwrap_or_default();
        CommitWriter { line, record, candidate, candidates: view.layout.geometry.candidates }
    }

    /// Claims the lowest epoch of this slot above `above` and above everything it ever claimed.
    pub fn claim(&mut self, above: Epoch, process: u32) -> Epoch {
        let (slot, candidates) = (u64::from(self.candidate), u64::from(self.candidates));
        let mut epoch = above.max(self.record.claimed) + 1;
        while epoch % candidates != (slot + 1) % candidates {
            epoch += 1;
        }
        self.record.claimed = epoch;
        self.record.process = process.into();
        self.line.publish(&self.record);
        epoch
    }

    /// Makes the claimed epoch active at `watermark`.
    pub fn activate(&mut self, watermark: u64) {
        assert!(self.record.claimed > self.record.active, "an epoch is claimed first");
        // The line's watermark may be higher: what a former life of this slot appended after it was sealed is void.
        // In two steps: a process killed between them, or in the middle of one, must not leave the new epoch with the
        // watermark of an old life. The epoch that was active is either this one's predecessor and ends there, or not the highest.
        self.record.watermark = watermark;
        self.line.publish(&self.record);
        self.record.active = self.record.claimed;
        self.line.publish(&self.record);
    }

    /// Moves the watermark: the commit point. Entries below it were written back and fenced before this call.
    #[inline]
    pub fn advance(&mut self, watermark: u64, segments: u64) {
        assert!(watermark >= self.record.watermark, "a watermark never falls");
        (self.record.watermark, self.record.segments) = (watermark, segments);
        self.record.heartbeat += 1;
        self.line.publish(&self.record);
    }

    /// Shows that this candidate lives.
    pub fn beat(&mut self) {
        self.record.heartbeat += 1;
        self.line.publish(&self.record);
    }

    /// Gives the active epoch up: another candidate may claim at once. What is committed stays so, and whatever this one goes on with until another
    /// claims as well.
    pub fn resign(&mut self) {
        self.record.resigned = self.record.active;
        self.line.publish(&self.record);
    }

    /// The watermark as last published.
    pub fn watermark(&self) -> u64 {
        self.record.watermark
    }

    /// The epoch made active.
    pub fn epoch(&self) -> Epoch {
        self.record.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::lane::LaneWriter;
    use crate::log::topics::{TopicReader, TopicWriter};
    use crate::log::views::{host_views, plain_view};
    use crate::pool::record::LaneProgress;
    use crate::testing::memory::Whim;
    use crate::testing::watched::Watched;
    use std::sync::{Arc, Mutex};

    fn progress(consumed: u64) -> LaneProgress {
        LaneProgress { epoch: 1, consumed, ..LaneProgress::default() }
    }

    #[test]
    fn no_epoch_is_claimed_twice() {
        let view = plain_view(2);
        let mut claimed = Vec::new();
        for life in 0..3 {
            for candidate in [0, 1] {
                let mut writer = CommitWriter::take(&view, candidate);
                claimed.push(writer.claim(0, life));
                assert_eq!(CommitReader::new(&view).line(candidate).claimed, claimed[claimed.len() - 1]);
            }
        }
        claimed.sort_unstable();
        claimed.dedup();
        assert_eq!(claimed.len(), 6);
    }

    /// A claim voids what is read after it; what its predecessor goes on writing is seen by nobody.
    #[test]
    fn a_higher_claim_voids_every_read() {
        let view = plain_view(2);
        let reader = CommitReader::new(&view);
        let mut first = CommitWriter::take(&view, 0);
        let epoch = first.claim(0, 1);
        first.activate(0);
        let mut lines = Owned::take(view.memory.clone(), view.layout.lane_progress(0, 0));
        lines.publish(&progress(5));
        let read = || reader.read::<LaneProgress>(|candidate| view.layout.lane_progress(candidate, 0));
        assert_eq!(read().map(|(commit, found)| (commit.epoch, found.consumed)), Some((epoch, 5)), "one blank line");
        CommitWriter::take(&view, 1).claim(epoch, 2);
        assert_eq!(reader.current().map(|commit| commit.epoch), Some(epoch), "claimed is not active");
        assert!(!reader.confirm(epoch) && read().is_none());
        // The predecessor does not know yet.
        lines.publish(&progress(60));
        assert!(!LaneWriter::take(&view, 0).refresh(&reader));
        TopicWriter::new(&view, 0).write(&crate::log::topics::tests::topic(0, "late"), &Default::default());
        let mut topics = TopicReader::new(&view);
        assert!(topics.find("late").is_none() && !topics.is_confirmed(), "not known is not denied");
        assert_eq!(TopicReader::new(&view).progress(0), None);
    }

    /// The value first, the epoch lines after: at any moment of a read its writer may be superseded and write on.
    #[test]
    fn what_is_written_after_a_claim_is_never_read() {
        for moment in 0..60 {
            let plain = plain_view(2);
            let mut first = CommitWriter::take(&plain, 0);
            let epoch = first.claim(0, 1);
            first.activate(0);
            let mut lines = Owned::take(plain.memory.clone(), plain.layout.lane_progress(0, 0));
            lines.publish(&progress(5));
            let watched = Watched::new(plain.memory.clone());
            let view = View::single_host(watched.clone(), plain.layout.clone());
            let reader = CommitReader::new(&view);
            watched.at(moment, move || {
                CommitWriter::take(&plain, 1).claim(epoch, 2);
                lines.publish(&progress(60));
            });
            let read = reader.read::<LaneProgress>(|candidate| view.layout.lane_progress(candidate, 0));
            assert!(read.is_none_or(|(_, found)| found.consumed == 5), "moment {moment}");
        }
    }

    /// The sequencer is stopped between its stores and their write-back; a reader of its host sees them in the cache they share.
    /// What is confirmed there is seen by whoever claims on another host, at any moment.
    #[test]
    fn what_is_confirmed_is_seen_by_every_claimant() {
        let mut confirmed = 0;
        for (moment, by_words) in (0..80).flat_map(|moment| [(moment, false), (moment, true)]) {
            let (_, views) = host_views([0, 0], &[0, 1], Whim::LAZY, 1);
            let (here, there) = (&views[0], views[1].clone());
            let mut first = CommitWriter::take(here, 0);
            let epoch = first.claim(0, 1);
            first.activate(0);
            let place = here.layout.lane_progress(0, 0);
            store_record(&here.memory, place, &progress(5));
            store_record(&here.memory, here.layout.epoch_line(0), &EpochLine { watermark: 7, ..first.record });
            let claimant = move || {
                CommitWriter::take(&there, 1).claim(epoch, 2);
                let reader = CommitReader::new(&there);
                let commit = reader.current().expect("its predecessor is active");
                (commit.watermark, reader.peek_words::<LaneProgress>(commit, |_| place).consumed)
            };
            let seen = Arc::new(Mutex::new(None));
            let (sees, sees_later) = (seen.clone(), claimant.clone());
            let watched = Watched::new(here.memory.clone());
            watched.at(moment, move || *sees.lock().unwrap() = Some(claimant()));
            let reader = CommitReader::new(&here.with_memory(watched));
            let read = match by_words {
                false => reader.read::<LaneProgress>(|_| place),
                true => reader.current().and_then(|commit| {
                    let found = reader.peek_words(commit, |_| place);
                    reader.confirm(commit.epoch).then_some((commit, found))
                }),
            };
            let Some((commit, found)) = read else { continue };
            assert_eq!((commit.watermark, found.consumed), (7, 5));
            confirmed += 1;
            let seen = seen.lock().unwrap().take().unwrap_or_else(sees_later);
            assert_eq!(seen, (7, 5), "claimed at moment {moment}");
        }
        assert!(confirmed > 20, "only {confirmed} reads were confirmed");
    }

    /// The stores of a publication whose write-back has not begun.
    fn store_record(memory: &impl Memory, at: u64, record: &impl Record) {
        let words = record.words();
        (0..).zip(words).for_each(|(index, word)| memory.store(at + 8 * (index + 1), word));
        memory.store(at, memory.load(at) + 1);
    }
}
