//! The active sequencer: one pass over the lanes, one commit point. A plain state machine over the memory trait.
//!
//! A pass: look at a window of slots of every lane, decide, append to the order index, one fence, **advance the watermark**;
//! then, derived from what is now committed: lane progress, topic lines, checkpoints, floors, and what lanes are granted. No epoch timer: a batch is
//! ordered when it is seen.

use crate::limits::HELD_BATCHES_MAX;
use crate::log::View;
use crate::log::checkpoint::Recovered;
use crate::log::commit::{CommitReader, CommitWriter, Epoch};
use crate::log::cursors::{CursorTable, CursorWriter, read_request};
use crate::log::entry::{check_cursor, check_spec};
use crate::log::extents::Extents;
use crate::log::grants::{Grant, GrantWriter};
use crate::log::lane::LaneReader;
use crate::log::order_index::{IndexWriter, Inherited};
use crate::log::retention::Trimmer;
use crate::log::targets::Target;
use crate::log::topics::{Topic, read_spec};
use crate::observe::counters::SequencerCounters;
use crate::order::core::OrderLimits;
use crate::order::{Emit, Event, OrderCore};
use crate::pool::record::{BatchSlot, CursorLine, LaneProgress, TopicProgress};
use crate::pool::{Geometry, Memory};
use crate::roles::sequence::active::append::append_to;
use crate::roles::sequence::active::rates::Rates;
use crate::roles::sequence::active::tally::Tally;
use crate::roles::sequence::active::timing::Timing;
use crate::roles::sequence::attendance::{Attendance, LOOK_NS};
use crate::roles::sequence::stock::Stock;
use crate::roles::sequence::tables::{CHECKPOINTS_PER_PASS, Checkpoints, Topics};

mod append;
mod rates;
mod scan;
mod sessions;
mod supply;
mod tally;
mod timing;

/// What the configuration says about sequencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencerSettings {
    /// A gap older than this fences its session, ns.
    pub session_lease_ns: u64,
    /// A session silent for longer may be closed to make room for another, ns.
    pub session_expiry_ns: u64,
    /// Most payload kept of all topics together, bytes; 0: as much as fits.
    pub retention_bytes: u64,
    /// Age up to which topics that name none are kept, ns; 0: as long as they fit.
    pub retention_ns: u64,
    /// Time after which an attached process that shows no life is not waited for while others want memory, ns.
    pub reader_stall_ns: u64,
    /// Time after which a member of the pool that shows no life is not waited for, ns.
    pub member_silence_ns: u64,
}

impl SequencerSettings {
    /// What a topic is kept for.
    fn target(&self, topic: &Topic) -> Target {
        let ns = if topic.retention_ns > 0 { topic.retention_ns } else { self.retention_ns };
        Target { bytes: topic.retention_bytes, ns }
    }
}

/// Events of one arrival besides what it drains: a let-go, or two closes and an open.
const EVENTS_EXTRA: u64 = 3;
/// Extents granted in one pass at most.
const GRANTS_PER_PASS: usize = 16;
/// The clock of silence of sessions gets on by this much in one pass at most, ns: a sequencer that slept finds all of them silent.
const SESSION_CLOCK_STEP_NS: u64 = 100_000_000;

/// The sequencer of one epoch.
pub struct ActiveSequencer<M> {
    view: View<M>,
    settings: SequencerSettings,
    commit: CommitWriter<M>,
    current: CommitReader<M>,
    index: IndexWriter<M>,
    lanes: Vec<LaneReader<M>>,
    core: OrderCore,
    trimmer: Trimmer<M>,
    stock: Stock,
    grants: GrantWriter<M>,
    /// Granted since the last commit.
    granted: Vec<(u32, u64, Grant)>,
    /// By lane: slots below may have lost what they name, as it is told.
    given_up: Vec<u64>,
    /// Once the floor stands there, that is so of slots below these.
    giving_up: Option<u64>,
    settled: Vec<u64>,
    /// Positions of the first batch that is kept, or may be, and of the last.
    kept: Option<(u64, u64)>,
    topics: Topics<M>,
    cursors: CursorWriter<M>,
    checkpoints: Checkpoints<M>,
    counters: SequencerCounters,
    timing: Timing<M>,
    tally: Tally<M>,
    rates: Rates,
    /// Advances only while no lane is held back for want of room: load never fences anyone.
    gap_clock_ns: u64,
    /// Goes on all the time, but not while this process slept.
    session_clock_ns: u64,
    session_clock_at_ns: u64,
    /// A slot was left in its lane for want of room in the index.
    is_held_back: bool,
    last_pass_ns: u64,
    any_remote: bool,
    attendance: Attendance<M>,
    /// By lane: slots below are of processes that are no more, and were taken.
    ended_below: Vec<u64>,
    /// No session is left that such a slot opened and that ends with its process.
    is_swept: bool,
    /// Lane the next pass begins with, so that none is favoured when the index is short.
    first_lane: usize,
}

impl<M: Memory> ActiveSequencer<M> {
    /// Goes on where `recovered` ends, under the epoch that `commit` has claimed. All of this candidate's copies are written
    /// before the epoch becomes active.
    pub fn take_over(
        view: &View<M>,
        candidate: u32,
        commit: CommitWriter<M>,
        epoch: Epoch,
        recovered: Option<Recovered>,
        settings: SequencerSettings,
    ) -> Self {
        let g = view.layout.geometry;
        let mut core = OrderCore::new(order_limits(&g));
        let mut progress = vec![LaneProgress::default(); g.lanes() as usize];
        let (mut watermark, mut floor, mut dropped_pins) = (0, 0, 0);
        let (mut known, mut cursors) = (vec![None; g.topics_max as usize], CursorTable::new(g.cursors_max));
        let mut inherited = Inherited { segments: Vec::new(), tail: Vec::new() };
        let mut extents = Extents::founded(&g);
        if let Some(before) = recovered {
            (watermark, floor) = (before.commit.watermark, before.floors.floor);
            (dropped_pins, known, cursors) = (before.floors.dropped_pins, before.topics, before.cursors);
            (progress, inherited, extents) = (before.lanes, before.index, before.extents);
            core.take_over(before.table);
        }
        let given_up = progress.iter().map(|lane| lane.reusable).collect();
        let mut trimmer = Trimmer::new(view, candidate, epoch, floor, watermark);
        trimmer.set_dropped_pins(dropped_pins);
        let lanes: Vec<_> =
            progress.iter().enumerate().map(|(lane, p)| LaneReader::new(view, lane as u32, p.consumed)).collect();
        let topics = Topics::take_over(view, candidate, known, &core, watermark);
        topics.known.iter().flatten().for_each(|topic| {
            let progress = &topics.written[topic.id as usize];
            trimmer.targets.begin(topic.id, settings.target(topic), progress, watermark);
        });
        let tally = Tally::new(view, candidate, topics.known.iter().flatten());
        let kept = (watermark > floor).then(|| (floor, watermark - 1));
        let cursors = CursorWriter::take_over(view, candidate, cursors);
        let checkpoints = Checkpoints::take_over(view, candidate, &core, &extents, watermark);
        let grants = GrantWriter::take_over(view, candidate, epoch, &extents);
        let index = IndexWriter::take_over(view, candidate, epoch, watermark, inherited);
        let mut sequencer = ActiveSequencer {
            view: view.clone(),
            settings,
            any_remote: lanes.iter().any(LaneReader::is_remote),
            attendance: Attendance::new(view),
            ended_below: vec![0; lanes.len()],
            is_swept: true,
            settled: vec![0; lanes.len()],
            commit,
            current: CommitReader::new(view),
            index,
            lanes,
            core,
            trimmer,
            stock: Stock::new(&view.layout, extents),
            grants,
            granted: Vec::with_capacity(GRANTS_PER_PASS),
            given_up,
            giving_up: None,
            kept,
            topics,
            cursors,
            checkpoints,
            timing: Timing::new(view, candidate),
            tally,
            rates: Rates::new(g),
            counters: SequencerCounters { watermark, floor, takeovers: 1, ..SequencerCounters::default() },
            gap_clock_ns: 0,
            session_clock_ns: 0,
            session_clock_at_ns: 0,
            is_held_back: false,
            last_pass_ns: 0,
            first_lane: 0,
        };
        sequencer.write_progress(epoch);
        view.memory.store_fence();
        sequencer.trimmer.announce();
        sequencer.commit.activate(watermark);
        sequencer
    }

    /// [`Self::pass_timed`] where nobody measures.
    pub fn pass(&mut self, now_ns: u64) -> usize {
        self.pass_timed(now_ns, &mut || 0)
    }

    /// One pass. Gives what it did: slots consumed, sessions fenced, tables or floors written; 0 iff nothing moved. `clock` tells the time
    /// of day, UTC ns.
    #[inline(never)] // By this name profiles and `perf/instructions.sh` find it.
    pub fn pass_timed(&mut self, now_ns: u64, clock: &mut dyn FnMut() -> u64) -> usize {
        let before = self.index.next();
        self.timing.settle();
        // Nor while the index has no room: what says that somebody is connected waits in the lanes then.
        if !std::mem::take(&mut self.is_held_back) {
            self.session_clock_ns += now_ns.saturating_sub(self.session_clock_at_ns).min(SESSION_CLOCK_STEP_NS);
        }
        self.session_clock_at_ns = now_ns;
        self.core.set_time(self.session_clock_ns);
        let mut consumed = self.scan();
        consumed += self.fence_gaps(now_ns);
        if self.index.next() > before {
            // Read while the entries are written back, and once nobody waits any more.
            let ordered_at = clock();
            self.commit_appended();
            self.timing.committed(ordered_at, clock());
        }
        let moved = self.derive(now_ns);
        consumed + usize::from(moved)
    }

    fn take_topic(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        let is_placed = check_spec(lane as u16, number, slot.blog_at, &self.view.layout).is_ok()
            && self.stock.is_of(lane, slot.blog_at);
        let read = || read_spec(&self.view, self.view.access_to_lane(lane), slot.blog_at).ok();
        let Some(topic) = is_placed.then(read).flatten() else {
            self.counters.invalid_slots += 1;
            return;
        };
        // Names are unique: whoever asked second finds the first's topic in the table.
        if self.topics.known.iter().flatten().any(|known| known.name == topic.name) {
            return;
        }
        let created_position = self.index.next();
        let id = {
            let mut append = append_to!(self);
            self.core.create_topic(topic.order as u8, lane as u16, number, slot.blog_at, &mut append)
        };
        if let Some(id) = id {
            let target = self.settings.target(&topic);
            self.trimmer.targets.begin(id, target, &TopicProgress::default(), created_position);
            self.tally.begin(id, created_position, self.core.unparked(id));
            self.topics.change(id, Some(Topic { id, created_position, ..topic }));
        }
    }

    /// A topic that is gone, or whose number is another's by now, was deleted by whoever asked first.
    fn delete_topic(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        if !self.topics.is_meant(slot) {
            return;
        }
        {
            let mut append = append_to!(self);
            self.core.delete_topic(slot.topic, lane as u16, number, &mut append);
        }
        self.cursors.forget_topic(slot.topic);
        self.trimmer.targets.forget(slot.topic);
        self.tally.forget(slot.topic);
        self.topics.change(slot.topic, None);
    }

    fn take_cursor(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        let is_placed = check_cursor(lane as u16, number, slot.blog_at, &self.view.layout).is_ok()
            && self.stock.is_of(lane, slot.blog_at);
        let read = || read_request(&self.view, self.view.access_to_lane(lane), slot.blog_at).ok();
        // The topic that was meant, not one that has its number since.
        let is_topic = |wanted: &CursorLine| u32::from(wanted.topic) == slot.topic && self.topics.is_meant(slot);
        let Some(wanted) = is_placed.then(read).flatten().filter(is_topic) else {
            self.counters.invalid_slots += 1;
            return;
        };
        let Some(event) = self.cursors.decide(slot.kind, &wanted, lane as u16, number, slot.blog_at) else { return };
        match event {
            Event::CursorSet { place, .. } => self.cursors.put(place, wanted),
            Event::CursorDelete { place, .. } => self.cursors.put(place, CursorLine::default()),
            _ => unreachable!("cursors are set or deleted"),
        }
        append_to!(self).take(event);
    }

    /// Whoever takes a lane over may close again what was closed, or what another has by now: that says nothing.
    fn close_extent(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        if let Some(extent) = self.stock.closes(lane, slot.blog_at, slot.batch_seq) {
            append_to!(self).take(Event::ExtentClosed { extent, lane: lane as u16, lane_slot: number });
        }
    }

    fn fence_gaps(&mut self, now_ns: u64) -> usize {
        let elapsed = now_ns.saturating_sub(self.last_pass_ns);
        let first = self.last_pass_ns == 0;
        self.last_pass_ns = now_ns;
        if first || self.core.gapped() == 0 {
            return 0;
        }
        let is_live = |lane: usize| self.is_waited_for(lane as u32);
        let is_paused = |lane: &LaneReader<M>| lane.status().is_some_and(|status| status.paused == 1);
        if self.lanes.iter().enumerate().any(|(number, lane)| is_live(number) && is_paused(lane)) {
            return 0;
        }
        // A pause of this process itself is no client's fault either: one step of the clock is bounded.
        self.gap_clock_ns += elapsed.min(self.settings.session_lease_ns / 4);
        let most = self.index.room().min(CHECKPOINTS_PER_PASS as u64) as usize;
        let lease = self.settings.session_lease_ns;
        let (fenced, first) = self.core.expire(self.gap_clock_ns, lease, most, &mut append_to!(self));
        if let Some(session) = first.map(|slot| self.core.table().session(slot)) {
            log::warn!(
                "sessions fenced: {fenced}; the first, {:#x} in epoch {}, waited {} ms for its batch {}: its publisher is told what is committed, and sends the rest again",
                session.id,
                session.epoch,
                lease / 1_000_000,
                session.next_batch
            );
        }
        fenced
    }

    /// Whether a lane's writer lives, and looks after it.
    pub(crate) fn is_waited_for(&self, lane: u32) -> bool {
        self.attendance.is_waited_for(self.view.layout.geometry.member_of_lane(lane), lane)
    }

    /// Looks whether those that others may have to wait for still show life, every [`LOOK_NS`].
    pub fn look_at_the_waiting(&mut self, now_ns: u64) {
        let g = self.view.layout.geometry;
        let (stall_ns, silence_ns) = (self.settings.reader_stall_ns, self.settings.member_silence_ns);
        for lane in 0..g.lanes() {
            let allowed_ns = if g.is_attached_lane(lane) { stall_ns } else { silence_ns };
            self.attendance.look_at_lane(lane, &self.lanes[lane as usize], now_ns, allowed_ns);
        }
        if self.trimmer.is_pinned() {
            // An attached process is polled by whoever uses it, a broker turns by itself.
            let allowed_ns = |member| if member < g.brokers { silence_ns } else { stall_ns };
            self.trimmer.judge_pins(now_ns, LOOK_NS, allowed_ns);
            self.counters.dropped_pins = self.trimmer.dropped_pins();
        }
    }

    /// The commit point: entries first, written back and fenced, then the watermark.
    fn commit_appended(&mut self) {
        self.view.memory.store_fence();
        self.commit.advance(self.index.next(), self.index.segments());
        self.counters.commits += 1;
        self.counters.watermark = self.index.next();
    }

    /// Everything derived from what is committed. True if anything was written that a successor or a lane goes by.
    fn derive(&mut self, now_ns: u64) -> bool {
        let watermark = self.commit.watermark();
        self.trimmer.targets.look(watermark, now_ns);
        let epoch = self.commit.epoch();
        if self.cursors.write_changed() {
            // Whoever sees that its request was consumed finds the cursor in the table.
            self.view.memory.store_fence();
        }
        let wrote = self.topics.write_changed(watermark)
            | self.checkpoints.step(
                &mut self.core,
                &mut self.stock,
                &mut self.topics,
                &self.trimmer.targets,
                watermark,
            );
        // Lane progress goes before the checkpoint: what lies below the checkpoint is not replayed, so nothing else would
        // tell a successor that its slots were taken.
        if wrote | self.write_progress(epoch) {
            self.view.memory.store_fence();
        }
        if wrote {
            self.trimmer.set_checkpoint(self.checkpoints.stands_for());
        }
        let floor = self.trimmer.floor();
        let relieved = self.supply(now_ns, watermark);
        let freed = self.write_progress(epoch);
        let is_less_kept = self.trimmer.floor() > floor && self.topics.write_progress(&self.trimmer.targets, watermark);
        if freed | is_less_kept {
            self.view.memory.store_fence();
        }
        self.counters.held_batches = self.core.held().into();
        self.counters.let_go = self.core.let_go();
        self.counters.fenced_batches = self.core.fenced();
        self.counters.stock_extents = self.stock.in_stock();
        wrote | relieved | freed
    }

    fn write_progress(&mut self, epoch: Epoch) -> bool {
        let mut wrote = false;
        for lane in 0..self.lanes.len() as u32 {
            let consumed = self.lanes[lane as usize].consumed();
            let progress = LaneProgress {
                epoch,
                consumed,
                settled: settled(&self.core, &self.lanes[lane as usize], lane),
                reusable: self.given_up[lane as usize],
                granted: self.stock.extents().granted(lane),
                recall: self.stock.recall(lane),
                ..LaneProgress::default()
            };
            wrote |= self.checkpoints.writer.write_lane(lane, progress);
        }
        wrote
    }

    /// Looks which members live, every [`ROLL_CALL_NS`](crate::roles::sequence::attendance::ROLL_CALL_NS). `is_gone` may ask the
    /// operating system whether a member's process is no more.
    pub fn call_the_roll(&mut self, now_ns: u64, is_gone: impl Fn(u32) -> bool) {
        let trimmer = &mut self.trimmer;
        let bury = |member, incarnation| trimmer.note_dead(member, incarnation);
        self.attendance.call(now_ns, self.settings.member_silence_ns, is_gone, bury);
        self.end_sessions_of_the_dead();
        self.look_at_failed_memory();
    }

    /// Copies out what became of batches, and how long ordering and committing took; and sums up what is counted.
    pub fn report(&mut self, candidate: u32, now_ns: u64) {
        self.timing.write();
        self.tally.write(&mut self.core);
        let (g, core, lanes) = (self.view.layout.geometry, &self.core, &self.lanes);
        self.rates.tell(candidate, now_ns, |broker| {
            let of_broker = |(lane, _): &(u32, _)| g.broker_of_member(g.member_of_lane(*lane)) == broker;
            (0..).zip(lanes).filter(of_broker).fold((false, false), |(slots, parked), (lane, reader)| {
                (slots | reader.peek().is_some(), parked | (settled(core, reader, lane) < reader.consumed()))
            })
        });
        let gap = self.core.oldest_gap();
        let session = gap.map(|(slot, _)| self.core.table().session(slot));
        self.counters.gapped_sessions = self.core.gapped().into();
        self.counters.oldest_gap_ms = gap.map_or(0, |(_, since_ns)| (self.gap_clock_ns - since_ns) / 1_000_000);
        self.counters.oldest_gap_session = session.map_or(0, |session| session.id);
        self.counters.oldest_gap_batch = session.map_or(0, |session| session.next_batch);
    }

    /// Whether the index has no room for what lanes have.
    pub fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// Shows that this sequencer lives.
    pub fn beat(&mut self) {
        self.commit.beat();
    }

    /// Lets another candidate go on at once.
    pub fn resign(&mut self) {
        self.commit.resign();
    }

    /// What it has counted.
    pub fn counters(&self) -> &SequencerCounters {
        &self.counters
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.commit.epoch()
    }

    /// Who has which extent.
    #[cfg(test)]
    pub(crate) fn stock(&self) -> &Stock {
        &self.stock
    }

    /// The fold of everything appended.
    pub fn core(&self) -> &OrderCore {
        &self.core
    }
}

fn order_limits(g: &Geometry) -> OrderLimits {
    OrderLimits {
        sessions_max: g.sessions_max,
        topics_max: g.topics_max,
        lanes: g.lanes(),
        held_batches_max: HELD_BATCHES_MAX.min(g.lanes() * g.ring_slots * 4),
    }
}

/// Slots of a lane below this are appended or refused for good.
fn settled<M: Memory>(core: &OrderCore, reader: &LaneReader<M>, lane: u32) -> u64 {
    core.settled(lane as u16, reader.consumed())
}
