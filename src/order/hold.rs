//! The hold buffer: batches that came before their turn. Local memory, bounded per session and in all, no allocation.
//!
//! Each session has a window of handles, indexed by batch number modulo its size; each lane has a list of its parked
//! batches in slot order, whose head is the lane's oldest unsettled slot. Invariant: a parked batch is in exactly one
//! window place and one lane list.

use crate::limits::HELD_PER_SESSION_MAX;
use crate::order::event::Arrival;
use crate::processor::prefetch;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    arrival: Arrival,
    slot: u32,
    /// Neighbours in the lane's list; `next` also links the free list.
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// Why a batch cannot be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// It is parked already.
    Duplicate,
    /// Too far ahead of the session's frontier, or the buffer is full.
    Full,
}

/// Parked batches of all sessions and lanes.
#[derive(Clone, Debug)]
pub struct HoldBuffer {
    nodes: Vec<Node>,
    free: u32,
    held: u32,
    /// Handle + 1 of each window place; 0 is none, so that untouched windows cost no memory.
    windows: Vec<u32>,
    per_session: Vec<u32>,
    lanes: Vec<List>,
}

impl HoldBuffer {
    /// A buffer for at most `held_max` batches.
    pub fn new(sessions_max: u32, lanes: u32, held_max: u32) -> Self {
        let blank = |index| Node {
            arrival: Arrival::default(),
            slot: 0,
            previous: NONE,
            next: if index + 1 < held_max { index + 1 } else { NONE },
        };
        HoldBuffer {
            nodes: (0..held_max).map(blank).collect(),
            free: if held_max > 0 { 0 } else { NONE },
            held: 0,
            windows: vec![0; sessions_max as usize * HELD_PER_SESSION_MAX as usize],
            per_session: vec![0; sessions_max as usize],
            lanes: vec![List { head: NONE, tail: NONE }; lanes as usize],
        }
    }

    /// Batches parked in all.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Batches parked of one session.
    #[inline]
    pub fn held_of(&self, slot: u32) -> u32 {
        self.per_session[slot as usize]
    }

    /// Begins to fetch what is to be looked at of a session.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        prefetch(&self.per_session[slot as usize]);
    }

    /// Begins to fetch where a batch that came early will be parked.
    #[inline]
    pub fn prefetch_place(&self, slot: u32, batch_seq: u64) {
        prefetch(&self.windows[Self::place(slot, batch_seq)]);
    }

    /// A lane's oldest parked slot.
    #[inline]
    pub fn oldest_of_lane(&self, lane: u16) -> Option<u64> {
        let head = self.lanes[usize::from(lane)].head;
        (head != NONE).then(|| self.nodes[head as usize].arrival.lane_slot)
    }

    fn place(slot: u32, batch_seq: u64) -> usize {
        slot as usize * HELD_PER_SESSION_MAX as usize + (batch_seq % u64::from(HELD_PER_SESSION_MAX)) as usize
    }

    /// Parks a batch of a session whose frontier is `next_batch`.
    pub fn park(&mut self, slot: u32, next_batch: u64, arrival: Arrival) -> Result<(), NoRoom> {
        assert!(arrival.batch_seq > next_batch, "only what comes early is parked");
        if arrival.batch_seq - next_batch >= u64::from(HELD_PER_SESSION_MAX) {
            return Err(NoRoom::Full);
        }
        let place = Self::place(slot, arrival.batch_seq);
        if self.windows[place] != 0 {
            return Err(NoRoom::Duplicate);
        }
        if self.free == NONE {
            return Err(NoRoom::Full);
        }
        let handle = self.free;
        self.free = self.nodes[handle as usize].next;
        let list = &mut self.lanes[usize::from(arrival.lane)];
        let previous = list.tail;
        if previous == NONE {
            list.head = handle;
        } else {
            debug_assert!(self.nodes[previous as usize].arrival.lane_slot < arrival.lane_slot, "lanes arrive in order");
            self.nodes[previous as usize].next = handle;
        }
        list.tail = handle;
        self.nodes[handle as usize] = Node { arrival, slot, previous, next: NONE };
        self.windows[place] = handle + 1;
        self.per_session[slot as usize] += 1;
        self.held += 1;
        Ok(())
    }

    /// Takes a session's batch of this number out, if it is parked.
    #[inline]
    pub fn take(&mut self, slot: u32, batch_seq: u64) -> Option<Arrival> {
        let place = Self::place(slot, batch_seq);
        let handle = self.windows[place].checked_sub(1)?;
        let node = self.nodes[handle as usize];
        assert_eq!((node.slot, node.arrival.batch_seq), (slot, batch_seq), "a window holds one lap");
        self.windows[place] = 0;
        let list = &mut self.lanes[usize::from(node.arrival.lane)];
        if node.previous == NONE {
            list.head = node.next;
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next == NONE {
            list.tail = node.previous;
        } else {
            self.nodes[node.next as usize].previous = node.previous;
        }
        self.nodes[handle as usize].next = self.free;
        self.free = handle;
        self.per_session[slot as usize] -= 1;
        self.held -= 1;
        Some(node.arrival)
    }

    /// Takes everything of a session out; gives the lowest batch number there was.
    pub fn clear_session(&mut self, slot: u32, next_batch: u64) -> Option<u64> {
        let mut lowest = None;
        for batch_seq in next_batch..next_batch + u64::from(HELD_PER_SESSION_MAX) {
            if self.per_session[slot as usize] == 0 {
                break;
            }
            if self.take(slot, batch_seq).is_some() {
                lowest = lowest.or(Some(batch_seq));
            }
        }
        assert_eq!(self.per_session[slot as usize], 0, "everything parked lies in the window");
        lowest
    }

    /// The session of a lane's oldest parked batch.
    pub fn oldest_session_of_lane(&self, lane: u16) -> Option<u32> {
        let head = self.lanes[usize::from(lane)].head;
        (head != NONE).then(|| self.nodes[head as usize].slot)
    }
}
