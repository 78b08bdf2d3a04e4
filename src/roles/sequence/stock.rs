//! The pool's memory as one stock: which extents can be granted, who gets the next, and what is given up for them.
//!
//! Every live lane has some in hand before it asks, more the faster it begins them; what nobody has is stock, and some of that is kept ready for those
//! who are writing. When there is less, the oldest extents of the log are given up, and what lanes have beyond what they want is asked back; when there
//! are none, all that they do not use.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::limits::GRANTS_AHEAD_MAX;
use crate::log::extents::Extents;
use crate::order::Event;
use crate::pool::Layout;
use crate::pool::record::{HoldingLine, LaneStatus, holding};

/// How often it is looked how fast lanes write, ns.
const LOOK_NS: u64 = 100_000_000;
/// Most extents kept ready.
const READY_MAX: usize = 12;
/// And at most this part of the pool: what is ready is not history.
const READY_PART: usize = 64;
/// Extents that a lane may have in hand however slowly it writes.
const WANTED_MIN: u64 = 1;

/// What a lane needs, as it was last told.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// Its writer is there, has said what it has, and is waited for.
    is_live: bool,
    /// It is not, and may be again: it is given what nobody else needs, so that it is not held up by having shown no life while it was held up.
    is_silent: bool,
    /// Somebody waits for memory there.
    is_waiting: bool,
    /// Extents it may have in hand.
    wants: u64,
    /// Extents it has in hand, and those that it has not taken yet.
    in_hand: u64,
    /// Of those that were granted, it has not taken so many.
    untaken: u64,
    /// Extents it has begun, ever.
    begun: u64,
    /// As of the last look, and the one before.
    begun_at: [u64; 2],
}

impl Need {
    /// Whether somebody waits for memory there, and there is none.
    fn is_in_need(&self) -> bool {
        self.is_waiting && self.in_hand == 0
    }
}

/// What the roll call says of a lane's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is waited for.
    There,
    /// It shows no life.
    Silent,
    /// It has ended.
    Away,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Stock {
    layout: Arc<Layout>,
    extents: Extents,
    free: VecDeque<u32>,
    /// Closed; what slots before that named may still be parked.
    unsettled: Vec<u32>,
    /// Closed, and nothing that lies there can be appended any more: by where in the index all of it ends.
    history: BinaryHeap<Reverse<(u64, u32)>>,
    /// Taken out of the history for a moment.
    passed: Vec<Reverse<(u64, u32)>>,
    /// Their memory failed: nobody is granted them any more.
    retired: Vec<u32>,
    /// Changed since they were last taken from here.
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    /// Bytes of batches in all that are not in stock.
    kept_bytes: u64,
    /// By lane.
    needs: Vec<Need>,
    /// Extents to be ready for those who write, as of the last look.
    ready: usize,
    looked_ns: u64,
    /// Nothing can be granted, nothing given up, and somebody waits: since then.
    dry_since_ns: Option<u64>,
}

impl Stock {
    /// Goes on with what was found, when all that lanes had published was appended, refused or forgotten.
    pub(super) fn new(layout: &Arc<Layout>, extents: Extents) -> Stock {
        let g = layout.geometry;
        let count = g.extents as usize;
        let mut stock = Stock {
            layout: layout.clone(),
            free: VecDeque::with_capacity(count),
            unsettled: Vec::with_capacity(count),
            history: BinaryHeap::with_capacity(count),
            passed: Vec::with_capacity(READY_MAX),
            retired: Vec::new(),
            dirty: Vec::with_capacity(count),
            is_dirty: vec![false; count],
            kept_bytes: 0,
            needs: vec![Need { wants: WANTED_MIN, ..Need::default() }; g.lanes() as usize],
            ready: 1,
            looked_ns: 0,
            dry_since_ns: None,
            extents,
        };
        for (extent, known) in (0..).zip(stock.extents.all()) {
            match known.state {
                holding::STOCK => stock.free.push_back(extent),
                holding::CLOSED => stock.history.push(Reverse((known.end, extent))),
                _ => {}
            }
            stock.kept_bytes += if known.state == holding::STOCK { 0 } else { known.bytes };
        }
        stock
    }

    /// Who has which.
    pub(crate) fn extents(&self) -> &Extents {
        &self.extents
    }

    /// Folds in what is appended at `position`.
    #[inline(always)]
    pub(super) fn happen(&mut self, position: u64, event: &Event) {
        let Some(extent) = self.extents.apply(position, event, &self.layout) else { return };
        match event {
            Event::Batch { arrival, .. } => self.kept_bytes += u64::from(arrival.batch_bytes),
            Event::ExtentClosed { .. } => self.unsettled.push(extent),
            _ => {}
        }
        self.mark_dirty(extent);
    }

    #[inline]
    fn mark_dirty(&mut self, extent: u32) {
        if !std::mem::replace(&mut self.is_dirty[extent as usize], true) {
            self.dirty.push(extent);
        }
    }

    /// An extent whose checkpoint is out of date.
    pub(super) fn take_dirty(&mut self) -> Option<u32> {
        let extent = self.dirty.pop()?;
        self.is_dirty[extent as usize] = false;
        Some(extent)
    }

    /// Whether a place lies in an extent that a lane has.
    #[inline]
    pub(super) fn is_of(&self, lane: u32, at: u64) -> bool {
        self.layout.extent_of(at).is_some_and(|extent| self.extents.is_of(extent, lane))
    }

    /// The extent that a lane closes by naming where it begins and its grant. `None`: it has it not, or closed it before.
    pub(super) fn closes(&self, lane: u32, at: u64, grant: u64) -> Option<u32> {
        let extent = self.layout.extent_of(at)?;
        let is_meant = self.layout.extent(extent) == at && self.extents.get(extent).grant == grant;
        (is_meant && self.extents.is_of(extent, lane)).then_some(extent)
    }

    /// Extents that nobody has.
    pub(super) fn in_stock(&self) -> u64 {
        self.free.len() as u64
    }

    /// Bytes of batches that are kept, and of what lies beside them.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Takes back what is closed and wholly below the floor; `settled` is each lane's count now. True if anything was.
    pub(super) fn take_back(&mut self, floor: u64, settled: impl Fn(u32) -> u64) -> bool {
        let (extents, history) = (&self.extents, &mut self.history);
        self.unsettled.retain(|extent| {
            let HoldingLine { lane, end_slot, end, .. } = *extents.get(*extent);
            let is_open = settled(lane) < end_slot;
            if !is_open {
                history.push(Reverse((end, *extent)));
            }
            is_open
        });
        let before = self.free.len();
        while let Some(Reverse((_, extent))) = self.history.peek().copied().filter(|Reverse((end, _))| *end <= floor) {
            self.history.pop();
            self.kept_bytes -= self.extents.get(extent).bytes;
            self.extents.take_back(extent);
            self.mark_dirty(extent);
            if !self.retired.contains(&extent) {
                self.free.push_back(extent);
            }
        }
        self.free.len() > before
    }

    /// Takes an extent out of use, as its memory failed. False if it was before.
    pub(super) fn retire(&mut self, extent: u32) -> bool {
        if self.retired.contains(&extent) {
            return false;
        }
        self.free.retain(|free| *free != extent);
        self.retired.push(extent);
        true
    }

    /// Up to where all goes that lies in extents whose memory failed, as far as they are closed: who reads there does not come back.
    pub(super) fn failed_end(&self) -> Option<u64> {
        let closed =
            self.retired.iter().map(|extent| self.extents.get(*extent)).filter(|known| known.state == holding::CLOSED);
        closed.map(|known| known.end).max()
    }

    /// Hears what a lane says of itself. Nothing, if its line is being rewritten.
    pub(super) fn hear(&mut self, lane: u32, status: Option<LaneStatus>, presence: Presence) {
        let ahead_max = u64::from((self.layout.geometry.extents / 16).clamp(2, GRANTS_AHEAD_MAX));
        let granted = self.extents.granted(lane);
        let need = &mut self.needs[lane as usize];
        let Some(status) = status else { return };
        let is_used = status.incarnation > 0 && status.left == 0;
        need.is_live = presence == Presence::There && is_used;
        need.is_silent = presence == Presence::Silent && is_used;
        need.is_waiting = need.is_live && status.paused == 1;
        need.untaken = granted.saturating_sub(status.taken);
        need.in_hand = need.untaken + status.free_extents;
        let begun = granted.saturating_sub(need.in_hand);
        if begun > need.begun && 4 * need.in_hand <= need.wants {
            need.wants = (2 * need.wants).min(ahead_max);
        }
        need.begun = begun.max(need.begun);
    }

    /// Looks at what was heard of all lanes, and now and then at how fast they write: who begins less than it has in hand needs less.
    pub(super) fn look(&mut self, now_ns: u64) {
        self.ready = self.wanted_ready();
        if now_ns.saturating_sub(self.looked_ns) < LOOK_NS {
            return;
        }
        self.looked_ns = now_ns;
        for need in &mut self.needs {
            if need.begun - need.begun_at[0] < need.wants {
                need.wants = (need.wants - 1).max(WANTED_MIN);
            }
            need.begun_at = [need.begun, need.begun_at[0]];
        }
    }

    fn wanted_ready(&self) -> usize {
        let writes = |need: &&Need| need.is_live && need.begun > need.begun_at[1];
        let wanted: u64 = self.needs.iter().filter(writes).map(|need| need.wants).sum();
        (wanted as usize).clamp(1, (self.layout.geometry.extents as usize / READY_PART).clamp(1, READY_MAX))
    }

    /// Up to where the oldest extents go that would make up for what is lacking. `None`: nothing is lacking, or there is nothing to give up.
    pub(super) fn wants_given_up(&mut self) -> Option<u64> {
        let lacking = self.ready.saturating_sub(self.free.len());
        while self.passed.len() < lacking
            && let Some(oldest) = self.history.pop()
        {
            self.passed.push(oldest);
        }
        let end = self.passed.last().map(|Reverse((end, _))| *end);
        self.history.extend(self.passed.drain(..));
        end
    }

    /// Where the oldest extent of the log ends.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        self.history.peek().map(|Reverse((end, _))| *end)
    }

    /// Whether a lane waits that has nothing, while there is nothing to grant, nor to give up.
    fn is_dry(&self) -> bool {
        self.free.is_empty() && self.history.is_empty() && self.needs.iter().any(Need::is_in_need)
    }

    /// Whether it has been dry for so long that nobody gives anything back unasked.
    pub(super) fn has_been_dry(&mut self, now_ns: u64, patience_ns: u64) -> bool {
        if !self.is_dry() {
            self.dry_since_ns = None;
            return false;
        }
        let since_ns = *self.dry_since_ns.get_or_insert(now_ns);
        let can_give = |need: &Need| need.is_live && !need.is_waiting && need.in_hand > 0;
        now_ns - since_ns >= patience_ns || !self.needs.iter().any(can_give)
    }

    /// Whether a lane waits for memory and has none.
    pub(super) fn is_in_need(&self, lane: u32) -> bool {
        self.needs[lane as usize].is_in_need()
    }

    /// What a lane is told of how much it may keep: see `LaneProgress::recall`.
    pub(super) fn recall(&self, lane: u32) -> u64 {
        let need = &self.needs[lane as usize];
        match self.dry_since_ns {
            _ if need.is_waiting => 0,
            Some(_) => 1,
            // History goes already: what lies unused in another's hand is history that readers could have.
            None if self.free.len() <= self.ready => 1 + need.wants,
            None => 0,
        }
    }

    /// Who is granted the next extent, and which, if somebody lacks some: who has least is first, of those from `first` on. Where there is not enough
    /// for all, nobody gets a second one.
    pub(super) fn next_grant(&mut self, first: usize) -> Option<(u32, u32)> {
        let lanes = self.needs.len();
        let lacks = |need: &Need| {
            let is_told = need.untaken >= u64::from(GRANTS_AHEAD_MAX);
            let wants = if need.is_live { need.wants } else { u64::from(need.is_silent) };
            need.in_hand < wants && !is_told
        };
        let lacking = self.needs.iter().filter(|need| lacks(need)).count();
        if lacking == 0 {
            return None;
        }
        let is_scarce = self.free.len() < lacking.max(self.ready / 2);
        let most = if is_scarce { 1 } else { u64::MAX };
        let in_turn = (0..lanes).map(|offset| (first + offset) % lanes);
        let next = in_turn.filter(|lane| lacks(&self.needs[*lane]) && self.needs[*lane].in_hand < most).min_by_key(
            |lane| {
                let need = &self.needs[*lane];
                (need.is_silent, need.in_hand, !need.is_waiting)
            },
        )?;
        let extent = self.free.pop_front()?;
        let need = &mut self.needs[next];
        (need.in_hand, need.untaken) = (need.in_hand + 1, need.untaken + 1);
        Some((next as u32, extent))
    }
}
