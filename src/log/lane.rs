//! A lane: one receive core's ring of batch headers. A conveyor, never a store.
//!
//! Cursors are absolute counts for ever: slot = count mod capacity, in flight = produced - consumed. The guard of slot
//! `n` is `n + 1`, so a line left from the last lap never looks ready.

use crate::limits::{GRANTS_AHEAD_MAX, LINE_BYTES, SCAN_SLOTS, SCAN_WINDOW_MAX, SCAN_WINDOW_MIN};
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::order::Origin;
use crate::pool::line::{self, Owned, Peer};
use crate::pool::record::{BatchSlot, LaneProgress, LaneStatus};
use crate::pool::{Access, Keep, Memory};

/// The producing side, owned by one receive core or attached publisher.
#[derive(Debug)]
pub struct LaneWriter<M> {
    view: View<M>,
    lane: u32,
    produced: u64,
    progress: LaneProgress,
    status: Owned<LaneStatus, M>,
    status_record: LaneStatus,
}

impl<M: Memory> LaneWriter<M> {
    /// Takes a lane over: finds what its last owner produced, writes the ring back, begins a new incarnation.
    /// The caller holds the host lock of the lane's broker; or knows that its host is off, and has checked the lane, by which its ring was fetched.
    pub fn take(view: &View<M>, lane: u32) -> Self {
        let slots = u64::from(view.layout.geometry.ring_slots);
        // Slot guards are their absolute number + 1: the highest is where production stood. A slot whose
        // publication was cut short is invalid and was never seen by anyone.
        let guards = (0..slots).map(|slot| view.memory.load(view.layout.ring_slot(lane, slot)));
        let produced = guards.max().unwrap_or(0);
        view.memory.write_back(view.layout.ring_slot(lane, 0), slots * LINE_BYTES, Keep::Dropped);
        view.memory.store_fence();
        let at = view.layout.lane_status(lane);
        let mut status: Owned<LaneStatus, M> = match view.access_to_lane(lane) {
            Access::Local => Owned::take(view.memory.clone(), at),
            Access::Remote => Owned::take_from_another(view.memory.clone(), at),
        };
        // Its last owner may have been killed while it wrote: the incarnation must go up all the same.
        // Nobody is short before its extents are counted: the sequencer would give up history for an owner that just starts.
        let before = status.last();
        let founding = view.layout.geometry.founding_extents(lane).len() as u64;
        let status_record = LaneStatus {
            incarnation: before.incarnation + 1,
            free_extents: GRANTS_AHEAD_MAX.into(),
            taken: before.taken.max(founding),
            first_slot: produced,
            ..LaneStatus::default()
        };
        status.publish(&status_record);
        LaneWriter { view: view.clone(), lane, produced, progress: LaneProgress::default(), status, status_record }
    }

    /// Its number.
    pub fn lane(&self) -> u32 {
        self.lane
    }
    /// Slots produced, ever.
    pub fn produced(&self) -> u64 {
        self.produced
    }
    /// Where the next slot is: what a session is found by that it asks for.
    pub fn next_origin(&self) -> Origin {
        Origin { lane: self.lane as u16, slot: self.produced }
    }
    /// Which owner of the lane this is, from 1.
    pub fn incarnation(&self) -> u64 {
        self.status_record.incarnation
    }
    /// Extents it took of those it was granted, ever, as was last told.
    pub fn taken(&self) -> u64 {
        self.status_record.taken
    }
    /// What the sequencer last said.
    pub fn progress(&self) -> &LaneProgress {
        &self.progress
    }

    /// Slots free now, as of the last [`Self::refresh`].
    pub fn room(&self) -> u64 {
        // Until a sequencer was heard, nothing is consumed: after a restart more may be in flight than there are slots.
        let in_flight = self.produced - self.progress.consumed.min(self.produced);
        u64::from(self.view.layout.geometry.ring_slots).saturating_sub(in_flight)
    }

    /// Reads the sequencer's progress through the one accessor: reusing a slot cannot be undone. True if it moved.
    pub fn refresh(&mut self, commit: &CommitReader<M>) -> bool {
        let read = commit.read::<LaneProgress>(|candidate| self.view.layout.lane_progress(candidate, self.lane));
        let Some((_, progress)) = read else { return false };
        // A new epoch starts from what it could prove: never behind what this lane was told before, or slots
        // and extents given away could be given again.
        let moved = progress.consumed > self.progress.consumed || progress.reusable > self.progress.reusable;
        if moved || progress.recall != self.progress.recall {
            let keep = self.progress;
            self.progress = progress;
            self.progress.consumed = progress.consumed.max(keep.consumed);
            self.progress.reusable = progress.reusable.max(keep.reusable);
        }
        moved
    }

    /// Publishes the next slot. Everything it points at has been written back and fenced.
    ///
    /// # Panics
    /// If there is no room: the caller looks first and lets TCP push back.
    #[inline]
    pub fn publish(&mut self, slot: &BatchSlot) -> u64 {
        assert!(self.room() > 0, "published into a full ring");
        let number = self.produced;
        line::publish(&self.view.memory, self.view.layout.ring_slot(self.lane, number), number + 1, slot);
        self.produced += 1;
        number
    }

    /// Tells the sequencer how much room this lane has. Publishes only what changed.
    pub fn report(&mut self, free_extents: u64, taken: u64, paused: bool) {
        let record = LaneStatus { free_extents, taken, paused: paused.into(), ..self.status_record };
        if record != self.status_record {
            self.status_record = record;
            self.status.publish(&record);
        }
    }

    /// Tells the sequencer how many of the extents granted to this lane it has taken.
    pub fn report_taken(&mut self, free_extents: u64, taken: u64) {
        self.report(free_extents, taken, self.status_record.paused == 1);
    }

    /// Tells the sequencer that this lane needs no memory any more.
    pub fn leave(&mut self) {
        self.status_record.left = 1;
        self.status.publish(&self.status_record);
    }

    /// Shows that whoever waits for room here lives: the sequencer does not wait for a writer that shows nothing.
    pub fn beat(&mut self) {
        self.status_record.beat += 1;
        self.status.publish(&self.status_record);
    }
}

/// The consuming side, owned by the sequencer.
#[derive(Debug)]
pub struct LaneReader<M> {
    memory: M,
    /// Where its ring lies, and its length less one.
    ring: (u64, u64),
    access: Access,
    consumed: u64,
    /// Slots looked at in the next pass: doubles on hits, falls to one on a miss.
    window: u64,
    window_max: u64,
    status: Peer<LaneStatus, M>,
}

impl<M: Memory> LaneReader<M> {
    /// From slot `consumed` on.
    pub fn new(view: &View<M>, lane: u32, consumed: u64) -> Self {
        let access = view.access_to_lane(lane);
        let status = Peer::new(view.memory.clone(), view.layout.lane_status(lane), access);
        let of_all = u64::from(SCAN_SLOTS / view.layout.geometry.lanes());
        let window_max = of_all.clamp(SCAN_WINDOW_MIN.into(), SCAN_WINDOW_MAX.into());
        let ring = (view.layout.ring_slot(lane, 0), u64::from(view.layout.geometry.ring_slots) - 1);
        LaneReader { memory: view.memory.clone(), ring, access, consumed, window: 1, window_max, status }
    }

    /// Begins to fetch the next window of slots; a `full_fence` must follow before [`Self::peek`].
    #[inline]
    pub fn prefetch(&self) {
        for slot in self.consumed..self.consumed + self.window {
            line::prefetch(&self.memory, self.at(slot), self.access);
        }
    }

    /// As `Layout::ring_slot`, of this lane: it is asked for every slot.
    #[inline]
    fn at(&self, slot: u64) -> u64 {
        self.ring.0 + (slot & self.ring.1) * LINE_BYTES
    }

    /// Whether reading this lane needs a fence after [`Self::prefetch`].
    pub fn is_remote(&self) -> bool {
        self.access == Access::Remote
    }

    /// Slots to look at this pass.
    #[inline]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The next slot, if its producer has published it.
    #[inline]
    pub fn peek(&self) -> Option<BatchSlot> {
        self.peek_at(0)
    }

    /// The slot so many behind the next, if its producer has published it. It must lie in the window.
    #[inline]
    pub fn peek_at(&self, ahead: u64) -> Option<BatchSlot> {
        let number = self.consumed + ahead;
        match line::read::<M, BatchSlot>(&self.memory, self.at(number)) {
            Some((guard, slot)) if guard == number + 1 => Some(slot),
            _ => None,
        }
    }

    /// Steps past the slot just peeked; gives its number.
    #[inline]
    pub fn consume(&mut self) -> u64 {
        let slot = self.consumed;
        if M::SOFTWARE && self.access == Access::Local {
            // Its producer may not have written it back yet. What is committed of it must not be lost with this host's cache, or
            // the lane's next owner uses its number again; the commit point fences.
            self.memory.flush_line(self.at(slot), Keep::Cached);
        }
        self.consumed += 1;
        slot
    }

    /// Adapts the window to whether this pass found all it looked for, something, or nothing.
    #[inline]
    pub fn adapt(&mut self, found: u64) {
        self.window = if found >= self.window { (self.window * 2).min(self.window_max) } else { 1 };
    }

    /// Slots consumed, ever.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// What the lane says of its room.
    pub fn status(&self) -> Option<LaneStatus> {
        self.status.observe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::views::plain_view;
    use crate::pool::record::slot_kind;
    use crate::testing::memory::{SharedMemory, Whim, small_geometry};

    /// Found by simulation: a lane taken over while no sequencer was active took its whole history for in flight, and the room
    /// wrapped around.
    #[test]
    fn a_lane_taken_over_before_the_sequencer_is_heard_has_no_room() {
        let view = plain_view(1);
        let mut lane = LaneWriter::take(&view, 0);
        for _ in 0..200 {
            lane.progress.consumed = lane.produced();
            lane.publish(&BatchSlot { kind: slot_kind::SESSION_CLOSE, ..BatchSlot::default() });
        }
        let next = LaneWriter::take(&view, 0);
        assert_eq!((next.produced(), next.room()), (200, 0));
    }

    /// Killed after the last store of a slot, before its write-back: the successor counts it, so every host must see it.
    #[test]
    fn a_successor_writes_back_what_its_predecessor_left_in_the_cache() {
        let layout = std::sync::Arc::new(crate::pool::Layout::new(small_geometry(1)).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, Whim::NONE, 1);
        let homes = |here| crate::log::Homes { here, brokers: vec![0, 0], candidates: vec![1] };
        let view = |host: u32| View::new(pool.host(host as usize), layout.clone(), homes(host));
        let (here, there) = (view(0), view(1));
        let at = layout.ring_slot(0, 0);
        here.memory.store(at + 8, u64::from(slot_kind::BATCH));
        here.memory.store(at, 1);
        let lane = LaneWriter::take(&here, 0);
        assert_eq!(lane.produced(), 1);
        let reader = LaneReader::new(&there, 0, 0);
        reader.prefetch();
        there.memory.full_fence();
        assert!(reader.peek().is_some(), "the slot is produced, and nobody sees it");
    }

    /// A successor starts from what it could prove, which may be less than its predecessor said.
    #[test]
    fn what_a_lane_was_told_never_falls() {
        let view = plain_view(1);
        let mut commit = CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        let mut line = Owned::take(view.memory.clone(), view.layout.lane_progress(0, 0));
        let mut lane = LaneWriter::take(&view, 0);
        let reader = CommitReader::new(&view);
        (0..20).for_each(|_| {
            lane.publish(&BatchSlot::default());
        });
        let mut hear = |consumed, reusable| {
            line.publish(&LaneProgress { consumed, reusable, ..LaneProgress::default() });
            (lane.refresh(&reader), lane.progress().consumed, lane.progress().reusable)
        };
        assert_eq!(hear(10, 5), (true, 10, 5));
        assert_eq!(hear(8, 7), (true, 10, 7));
        assert_eq!(hear(12, 6), (true, 12, 7));
        assert_eq!(hear(11, 7), (false, 12, 7));
        assert_eq!(lane.room(), 64 - 8);
    }

    /// Killed before anybody saw it ask for a session, or after: no two requests are found by one origin, whoever had the lane.
    #[test]
    fn requests_of_a_lane_have_origins_of_their_own_over_its_owners() {
        let view = plain_view(1);
        let mut origins = std::collections::HashSet::new();
        for lane in [0, 1] {
            for _ in 0..3 {
                let mut writer = LaneWriter::take(&view, lane);
                for _ in 0..4 {
                    assert!(origins.insert(writer.next_origin()));
                    writer.publish(&BatchSlot { kind: slot_kind::SESSION_OPEN, ..BatchSlot::default() });
                }
            }
        }
    }

    /// Its last owner was killed while it wrote its status: a successor's beats are told from its own by the number going up all the same.
    #[test]
    fn an_incarnation_is_above_one_cut_short() {
        let view = plain_view(1);
        let before = (0..3).map(|_| LaneWriter::take(&view, 0).incarnation()).max();
        view.memory.store(view.layout.lane_status(0), line::INVALID);
        assert!(Some(LaneWriter::take(&view, 0).incarnation()) > before);
    }
}
