//! The active sequencer: one pass over the lanes, one commit point. A plain state machine over the memory trait.
//!
//! A pass: look at a window of slots of every lane, decide, append to the order index, one fence, **advance the watermark**;
//! then, derived from what is now committed: lane progress, topic lines, checkpoints, floors, and what lanes are granted. No epoch timer: a batch is
//! ordered when it is seen.

use crate::limits::{HELD_BATCHES_MAX, HELD_PER_SESSION_MAX};
use crate::log::View;
use crate::log::checkpoint::Recovered;
use crate::log::commit::{CommitReader, CommitWriter, Epoch};
use crate::log::cursors::{CursorTable, CursorWriter, read_request};
use crate::log::entry::{check_batch, check_cursor, check_spec, grant_number, to_entry};
use crate::log::extents::Extents;
use crate::log::faults;
use crate::log::grants::{Grant, GrantWriter};
use crate::log::lane::LaneReader;
use crate::log::order_index::{IndexWriter, Inherited};
use crate::log::retention::Trimmer;
use crate::log::targets::Target;
use crate::log::topics::{Topic, read_spec};
use crate::observe::counters::SequencerCounters;
use crate::order::core::OrderLimits;
use crate::order::{Arrival, Event, OrderCore, Origin, Verdict};
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, CursorLine, LaneProgress, TopicProgress, slot_kind};
use crate::roles::sequence::attendance::{Attendance, LOOK_NS};
use crate::roles::sequence::stock::{Presence, Stock};
use crate::roles::sequence::tables::{CHECKPOINTS_PER_PASS, Checkpoints, Topics};

/// [`appender`] over a sequencer's own fields, while others of them are in use.
macro_rules! appender {
    ($sequencer:ident) => {
        appender(
            &mut $sequencer.index,
            &mut $sequencer.trimmer,
            &mut $sequencer.stock,
            &mut $sequencer.kept,
            &mut $sequencer.counters,
        )
    };
}

mod sessions;

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
/// Slots of a lane that are looked up together.
const AHEAD: usize = 8;
/// Extents granted in one pass at most.
const GRANTS_PER_PASS: usize = 16;
/// How long others have to give back what they do not use, before all that can be is given up, ns.
const PATIENCE_NS: u64 = 10_000_000;
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
        let mut core = OrderCore::new(OrderLimits {
            sessions_max: g.sessions_max,
            topics_max: g.topics_max,
            lanes: g.lanes(),
            held_batches_max: HELD_BATCHES_MAX.min(g.lanes() * g.ring_slots * 4),
        });
        let mut progress = vec![LaneProgress::default(); g.lanes() as usize];
        let (mut watermark, mut floor, mut dropped_pins) = (0, 0, 0);
        let (mut known, mut cursors) = (vec![None; g.topics_max as usize], CursorTable::new(g.cursors_max));
        let mut inherited = Inherited { segments: Vec::new(), tail: Vec::new() };
        let mut extents = Extents::founded(&g);
        if let Some(before) = recovered {
            (watermark, floor) = (before.commit.watermark, before.floors.floor);
            (dropped_pins, known, cursors) = (before.floors.dropped_pins, before.topics, before.cursors);
            (progress, inherited, extents) = (before.lanes, before.index, before.extents);
            *core.table_mut() = before.table;
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

    /// One pass. Gives what it did: slots consumed, sessions fenced, tables or floors written; 0 iff nothing moved.
    pub fn pass(&mut self, now_ns: u64) -> usize {
        let before = self.index.next();
        // Nor while the index has no room: what says that somebody is connected waits in the lanes then.
        if !std::mem::take(&mut self.is_held_back) {
            self.session_clock_ns += now_ns.saturating_sub(self.session_clock_at_ns).min(SESSION_CLOCK_STEP_NS);
        }
        self.session_clock_at_ns = now_ns;
        self.core.set_time(self.session_clock_ns);
        let mut consumed = self.scan();
        consumed += self.fence_gaps(now_ns);
        if self.index.next() > before {
            self.commit_appended();
        }
        let moved = self.derive(now_ns);
        consumed + usize::from(moved)
    }

    /// Looks at every lane's window and decides.
    fn scan(&mut self) -> usize {
        if self.any_remote {
            self.lanes.iter().for_each(LaneReader::prefetch);
            self.view.memory.full_fence();
        }
        let count = self.lanes.len();
        let mut consumed = 0;
        for offset in 0..count {
            consumed += self.scan_lane((self.first_lane + offset) % count);
        }
        self.first_lane = (self.first_lane + 1) % count;
        self.counters.consumed_slots += consumed as u64;
        consumed
    }

    fn scan_lane(&mut self, lane: usize) -> usize {
        let window = self.lanes[lane].window();
        let mut found = 0;
        'window: while found < window {
            let seen = self.look_ahead(lane, (window - found).min(AHEAD as u64));
            for seen in seen {
                let Some((slot, place)) = seen else { break 'window };
                if !self.has_room_for(&slot, place) {
                    break 'window;
                }
                let number = self.lanes[lane].consume();
                found += 1;
                self.take(lane as u32, number, &slot, place);
            }
        }
        self.lanes[lane].adapt(found);
        found as usize
    }

    /// The next slots of a lane, and where their sessions stand: looked up for several at once, so that the memory is waited for once and
    /// not for each. A place holds until a session is opened or closed.
    #[inline]
    fn look_ahead(&self, lane: usize, most: u64) -> [Option<(BatchSlot, Option<u32>)>; AHEAD] {
        let mut seen = [None; AHEAD];
        for (ahead, seen) in (0..most).zip(&mut seen) {
            let Some(slot) = self.lanes[lane].peek_at(ahead) else { break };
            let place = self.core.table().slot_of(slot.session);
            if let Some(place) = place {
                self.core.prefetch(place);
            }
            *seen = Some((slot, place));
        }
        seen
    }

    /// Whether the index has room for whatever this slot may lead to.
    #[inline]
    fn has_room_for(&mut self, slot: &BatchSlot, place: Option<u32>) -> bool {
        let place = || self.place_now(slot.session, place);
        let most = u64::from(HELD_PER_SESSION_MAX) + 1 + EVENTS_EXTRA;
        if self.index.room() >= most || self.index.room() >= self.core.events_max(place()) + EVENTS_EXTRA {
            return true;
        }
        self.counters.index_full += 1;
        self.is_held_back = true;
        false
    }

    /// Where a session stands, that stood there a moment ago.
    #[inline]
    fn place_now(&self, session: u64, before: Option<u32>) -> Option<u32> {
        let table = self.core.table();
        before.filter(|place| table.is_at(*place, session)).or_else(|| table.slot_of(session))
    }

    fn take(&mut self, lane: u32, number: u64, slot: &BatchSlot, place: Option<u32>) {
        let place = self.place_now(slot.session, place);
        if !self.may_name(lane, place) {
            self.counters.invalid_slots += 1;
            return;
        }
        match slot.kind {
            slot_kind::BATCH => self.take_batch(lane, number, slot, place),
            slot_kind::SESSION_OPEN => self.open_session(Origin { lane: lane as u16, slot: number }, slot),
            slot_kind::SESSION_ALIVE => {
                if let Some(place) = place {
                    self.core.touch(place);
                }
            }
            slot_kind::SESSION_CLOSE => self.close_session(lane, slot),
            slot_kind::TOPIC_CREATE => self.take_topic(lane, number, slot),
            slot_kind::TOPIC_DELETE => self.delete_topic(lane, number, slot),
            slot_kind::CURSOR_SET | slot_kind::CURSOR_DELETE => self.take_cursor(lane, number, slot),
            slot_kind::EXTENT_CLOSE => self.close_extent(lane, number, slot),
            _ => self.counters.invalid_slots += 1,
        }
    }

    /// A receive core has seen the token of every session it names. An attached publisher is any program that may map the pool:
    /// it names sessions that its own lane opened, and no others. What is nobody's, or closed by now, harms nobody.
    #[inline]
    fn may_name(&self, lane: u32, place: Option<u32>) -> bool {
        if !self.view.layout.geometry.is_attached_lane(lane) {
            return true;
        }
        let opened_by = |place| u32::from(self.core.table().session(place).opened_by.lane);
        place.is_none_or(|place| opened_by(place) == lane)
    }

    fn take_batch(&mut self, lane: u32, number: u64, slot: &BatchSlot, place: Option<u32>) {
        let arrival = Arrival {
            lane: lane as u16,
            lane_slot: number,
            topic: slot.topic,
            session: slot.session,
            session_epoch: slot.session_epoch,
            batch_seq: slot.batch_seq,
            message_count: slot.message_count,
            batch_bytes: slot.batch_bytes,
            blog_at: slot.blog_at,
        };
        // A lane's writer may be another program: nothing it names is trusted as an address or a count, and nothing is
        // appended that a follower would refuse.
        if check_batch(&arrival, &self.view.layout).is_err() || !self.stock.is_of(lane, arrival.blog_at) {
            self.counters.invalid_slots += 1;
            return;
        }
        let verdict = {
            let mut append = appender!(self);
            self.core.arrive_at(place, arrival, self.gap_clock_ns, &mut append)
        };
        match verdict {
            // Counted as they are appended, and by the order core.
            Verdict::Appended { .. } | Verdict::LetGo | Verdict::Fenced => {}
            Verdict::Parked => self.counters.parked_batches += 1,
            Verdict::Duplicate => self.counters.duplicates += 1,
            Verdict::Unknown => self.counters.unknown_batches += 1,
        }
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
            let mut append = appender!(self);
            self.core.create_topic(topic.order as u8, lane as u16, number, slot.blog_at, &mut append)
        };
        if let Some(id) = id {
            let target = self.settings.target(&topic);
            self.trimmer.targets.begin(id, target, &TopicProgress::default(), created_position);
            self.topics.change(id, Some(Topic { id, created_position, ..topic }));
        }
    }

    /// A topic that is gone, or whose number is another's by now, was deleted by whoever asked first.
    fn delete_topic(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        if !self.topics.is_meant(slot) {
            return;
        }
        {
            let mut append = appender!(self);
            self.core.delete_topic(slot.topic, lane as u16, number, &mut append);
        }
        self.cursors.forget_topic(slot.topic);
        self.trimmer.targets.forget(slot.topic);
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
        appender!(self)(event);
    }

    /// Whoever takes a lane over may close again what was closed, or what another has by now: that says nothing.
    fn close_extent(&mut self, lane: u32, number: u64, slot: &BatchSlot) {
        if let Some(extent) = self.stock.closes(lane, slot.blog_at, slot.batch_seq) {
            appender!(self)(Event::ExtentClosed { extent, lane: lane as u16, lane_slot: number });
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
        let mut append = appender!(self);
        self.core.expire(self.gap_clock_ns, lease, most, &mut append)
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

    /// Gives up what nobody wants, or what others need more, and grants what is in stock. True if a floor moved, or an extent changed hands.
    fn supply(&mut self, now_ns: u64, watermark: u64) -> bool {
        for lane in 0..self.lanes.len() as u32 {
            let presence = match self.attendance.is_away(self.view.layout.geometry.member_of_lane(lane)) {
                true => Presence::Away,
                false if self.is_waited_for(lane) => Presence::There,
                false => Presence::Silent,
            };
            self.stock.hear(lane, self.lanes[lane as usize].status(), presence);
        }
        self.stock.look(now_ns);
        let floor = self.trimmer.floor();
        let mut moved = self.take_back();
        if self.stock.has_been_dry(now_ns, PATIENCE_NS) {
            self.give_all_up(watermark);
        }
        if let Some(target) = self.wants_given_up(watermark) {
            moved |= self.give_up(target) | self.take_back();
        }
        // Also what a predecessor gave up, and had not used again.
        moved |= self.reuse_segments(floor);
        if self.giving_up.is_some_and(|position| position <= self.trimmer.floor()) {
            self.giving_up = None;
            self.given_up.iter_mut().zip(&self.settled).for_each(|(told, settled)| *told = (*told).max(*settled));
        }
        moved | self.grant()
    }

    fn take_back(&mut self) -> bool {
        let (core, lanes) = (&self.core, &self.lanes);
        self.stock.take_back(self.trimmer.floor(), |lane| settled(core, &lanes[lane as usize], lane))
    }

    /// Up to where something is to be given up: for those who write, for the index, for what retention says; the furthest of these.
    fn wants_given_up(&mut self, watermark: u64) -> Option<u64> {
        let (g, floor) = (self.view.layout.geometry, self.trimmer.floor());
        let for_memory = self.stock.wants_given_up();
        let is_short = self.index.room() < u64::from(g.segment_entries) * 2;
        let for_index = is_short.then(|| (floor + u64::from(g.segment_entries / 4)).min(watermark));
        let is_over = self.settings.retention_bytes > 0 && self.stock.kept_bytes() > self.settings.retention_bytes;
        let over = if is_over { self.stock.oldest_end() } else { None };
        let allowed = self.trimmer.targets.allowed();
        let unwanted = self.kept.filter(|(first, _)| *first < allowed).map(|_| allowed);
        [for_memory, for_index, over, unwanted, self.giving_up, self.stock.failed_end()]
            .into_iter()
            .flatten()
            .max()
            .filter(|target| *target > floor)
    }

    fn give_up(&mut self, target: u64) -> bool {
        let before = self.trimmer.floor();
        let moved = self.trimmer.advance(target);
        let floor = self.trimmer.floor();
        if floor > before {
            self.kept = self.kept.filter(|(_, last)| *last >= floor).map(|(first, last)| (first.max(floor), last));
            self.tell_shortened();
        }
        moved
    }

    /// Says of which topics less is kept than they are meant to keep.
    fn tell_shortened(&mut self) {
        while let Some((topic, bytes)) = self.trimmer.targets.take_shortened() {
            let name = self.topics.known[topic as usize].as_ref().map_or("", |topic| &topic.name);
            log::warn!(
                "memory was short: {bytes} bytes of topic {name:?} went before its retention was over; a larger pool keeps more"
            );
        }
    }

    /// Segments are used again only if a successor is sure to see the floor: it was published, and nobody has claimed since.
    fn reuse_segments(&mut self, before: u64) -> bool {
        let floor = self.trimmer.floor();
        let is_spent = floor > before || self.index.has_spent(floor);
        let is_seen = is_spent && self.current.confirm(self.commit.epoch());
        if is_seen {
            self.index.give_up(floor);
            self.counters.trims += u64::from(floor > before);
            self.counters.floor = floor;
        }
        is_seen
    }

    /// Somebody stands still, and no extent is left that could be given up: parked batches keep those that are closed from going, so they are let go,
    /// unacked; and what lies in those that are being filled is given up, so that their lanes may begin them again.
    fn give_all_up(&mut self, watermark: u64) {
        if self.giving_up.is_some() {
            return;
        }
        let is_parked = |lane: &u32| {
            let reader = &self.lanes[*lane as usize];
            settled(&self.core, reader, *lane) < reader.consumed()
        };
        let parked = || (0..self.lanes.len() as u32).filter(is_parked);
        let lane = parked().find(|lane| self.stock.is_in_need(*lane)).or_else(|| parked().next());
        let mut watermark = watermark;
        if let Some(lane) = lane.filter(|_| self.index.room() > 0)
            && self.core.let_go_lane(lane as u16, &mut appender!(self))
        {
            self.commit_appended();
            watermark = self.commit.watermark();
        }
        for ((lane, reader), count) in (0..).zip(&self.lanes).zip(&mut self.settled) {
            *count = settled(&self.core, reader, lane);
        }
        if self.settled.iter().zip(&self.given_up).any(|(settled, told)| settled > told) {
            self.giving_up = Some(watermark);
        }
    }

    /// Grants what lanes lack, as far as there is stock: committed first, then told.
    fn grant(&mut self) -> bool {
        while self.granted.len() < GRANTS_PER_PASS
            && self.index.room() > EVENTS_EXTRA
            && let Some((lane, extent)) = self.stock.next_grant(self.first_lane)
        {
            let (number, grant) = (self.stock.extents().granted(lane), grant_number(self.index.next()));
            appender!(self)(Event::Granted { extent, lane: lane as u16, number });
            self.granted.push((lane, number, Grant { extent, grant }));
        }
        if self.granted.is_empty() {
            return false;
        }
        self.commit_appended();
        for (lane, number, grant) in self.granted.drain(..) {
            self.grants.write(lane, number, grant);
        }
        self.view.memory.store_fence();
        true
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

    /// Takes extents out of use whose memory failed, as somebody has noted.
    pub(super) fn look_at_failed_memory(&mut self) {
        for broker in 0..self.view.layout.geometry.brokers {
            for offset in faults::noted(&self.view, broker) {
                match self.view.layout.extent_of(offset) {
                    Some(extent) if self.stock.retire(extent) => log::error!(
                        "the pool's memory failed at offset {offset}, under broker {broker}: extent {extent} is taken out of use, and what lies in it and before it is given up"
                    ),
                    _ => {}
                }
            }
        }
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

/// Slots of a lane below this are appended or refused for good.
fn settled<M: Memory>(core: &OrderCore, reader: &LaneReader<M>, lane: u32) -> u64 {
    core.settled(lane as u16, reader.consumed())
}

/// Appends events to the index, folds them in and counts them.
fn appender<'a, M: Memory>(
    index: &'a mut IndexWriter<M>,
    trimmer: &'a mut Trimmer<M>,
    stock: &'a mut Stock,
    kept: &'a mut Option<(u64, u64)>,
    counters: &'a mut SequencerCounters,
) -> impl FnMut(Event) + 'a {
    move |event| {
        stock.happen(index.next(), &event);
        match &event {
            Event::Batch { arrival, first_order, .. } => {
                counters.appended_batches += 1;
                counters.appended_messages += u64::from(arrival.message_count);
                counters.appended_bytes += u64::from(arrival.batch_bytes);
                kept.get_or_insert((index.next(), 0)).1 = index.next();
                let end_order = first_order + u64::from(arrival.message_count);
                trimmer.targets.count(arrival.topic, arrival.batch_bytes.into(), index.next(), end_order);
            }
            Event::Fence { .. } => counters.fences += 1,
            Event::Open { .. } => counters.opened_sessions += 1,
            Event::Topic { .. } => counters.created_topics += 1,
            Event::TopicDeleted { .. } => counters.deleted_topics += 1,
            Event::Granted { .. } => counters.granted_extents += 1,
            _ => {}
        }
        index.append(to_entry(&event));
    }
}
