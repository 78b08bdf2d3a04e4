//! Where everything lies in the pool: pure arithmetic over a geometry, checked once, printable.

use std::fmt;
use std::ops::Range;

use crate::described;
use crate::limits::*;

described! {
    /// The numbers a pool is laid out by. Immutable once the pool is formatted.
    pub struct Geometry: 64 {
        /// length of the pool, bytes
        pool_bytes: u64,
        /// length of a blog extent, bytes, a power of two
        extent_bytes: u64,
        /// hosts that may share the pool
        hosts: u32,
        /// brokers
        brokers: u32,
        /// lanes (receive cores) of each broker
        lanes_per_broker: u32,
        /// sequencer candidates
        candidates: u32,
        /// slots of each lane ring, a power of two
        ring_slots: u32,
        /// entries of each order-index segment, a power of two
        segment_entries: u32,
        /// order-index segments of each candidate
        segments: u32,
        /// places in the session table
        sessions_max: u32,
        /// places in the topic table
        topics_max: u32,
        /// blog extents
        extents: u32,
        /// places for attached publishers that go with each broker; 0: no attached clients
        attached_per_broker: u16,
        /// places for brokers of each host, its last ones, that have no memory before somebody takes them
        spare_per_host: u16,
        /// places for named cursors
        cursors_max: u32,
    }
}

/// What a place for an attached client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// Publishing: it has a lane.
    Publisher,
    /// Subscribing: it has a pin.
    Subscriber,
}

impl fmt::Display for PlaceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceKind::Publisher => write!(out, "publishers"),
            PlaceKind::Subscriber => write!(out, "subscribers"),
        }
    }
}

/// A geometry that cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A number lies outside its limits.
    #[error("{name} is {found}, it must be {expected}")]
    OutOfRange {
        /// Which number.
        name: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        expected: String,
    },
    /// Everything but the blog takes too much.
    #[error(
        "a pool of {pool_bytes} bytes is too small: tables, rings and index take {fixed_bytes}, and {lanes} lanes need \
         {EXTENTS_FOUNDING} extents of {extent_bytes} each, {needed} in all; give a larger pool.bytes, or smaller \
         ring_slots, segment_entries, segments or extent_bytes"
    )]
    TooSmall {
        /// As configured.
        pool_bytes: u64,
        /// Bytes before the blog.
        fixed_bytes: u64,
        /// Lanes of all brokers.
        lanes: u64,
        /// Bytes of one extent.
        extent_bytes: u64,
        /// Smallest pool that works.
        needed: u64,
    },
}

/// Lines of one topic in the topic table: properties, two halves of the name, progress.
pub const TOPIC_LINES: u64 = 4;
/// Bytes of the superblock.
pub const SUPERBLOCK_BYTES: u64 = 4096;
/// Where the lines of the pool's members begin, bytes, and how many there are, whatever the geometry. No layout moves them: whoever
/// formats a pool, with a program of any version, can see whether a member of it lives.
pub const MEMBERS_AT: u64 = SUPERBLOCK_BYTES;
/// Member lines of every pool.
pub const MEMBER_LINES: u32 = 4096;
/// Lines in which a broker's address lies.
pub const ADDRESS_LINES: u64 = 6;
/// Counter blocks of each broker besides one per lane: ack, export; and one for each candidate.
const BROKER_BLOCKS: u64 = 2;
/// Histograms of each broker besides one per lane: of its ack core and its exporter, the last stage and the whole.
const BROKER_HISTOGRAMS: u64 = 4;
/// Histograms of each candidate: ordering, committing.
const SEQUENCER_HISTOGRAMS: u64 = 2;
/// What a process says of its threads, and its distinct errors.
const PROCESS_BYTES: u64 = THREADS_PER_BROKER as u64 * THREAD_BYTES + ERRORS_PER_PROCESS as u64 * ERROR_BYTES;

/// Places of a candidate's timeline: a power of two, as a segment's entries are.
fn timeline_places(geometry: &Geometry) -> u64 {
    geometry.segment_entries.min(TIMELINE_PLACES_MAX).into()
}

/// Offsets of all regions of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The numbers it follows from.
    pub geometry: Geometry,
    epochs: u64,
    floors: u64,
    pins: u64,
    faults: u64,
    addresses: u64,
    lane_status: u64,
    lane_progress: u64,
    topics: u64,
    sessions: u64,
    cursors: u64,
    directories: u64,
    counters: u64,
    histograms: u64,
    slowest: u64,
    timelines: u64,
    processes: u64,
    topic_counts: u64,
    session_counts: u64,
    holdings: u64,
    grants: u64,
    extents: u64,
    rings: u64,
    index: u64,
    blog: u64,
}

impl Geometry {
    /// Lanes of all brokers, and behind them one for each place of an attached publisher.
    pub fn lanes(&self) -> u32 {
        self.broker_lanes() + self.attached()
    }
    /// Lanes of receive cores.
    pub fn broker_lanes(&self) -> u32 {
        self.brokers * self.lanes_per_broker
    }
    /// Places for attached publishers.
    pub fn attached(&self) -> u32 {
        self.brokers * u32::from(self.attached_per_broker)
    }
    /// Places for attached subscribers. They take no memory to speak of.
    pub fn attached_readers(&self) -> u32 {
        if self.attached_per_broker == 0 { 0 } else { self.brokers * ATTACHED_READERS_PER_BROKER }
    }
    /// Processes that may write lines of the pool besides the sequencer: the brokers first, then the places for attached
    /// publishers, then those for attached subscribers.
    pub fn members(&self) -> u32 {
        self.brokers + self.attached() + self.attached_readers()
    }
    /// The member that has an attached publisher's place.
    pub fn writer_member(&self, place: u32) -> u32 {
        self.brokers + place
    }
    /// The member that has an attached subscriber's place.
    pub fn reader_member(&self, place: u32) -> u32 {
        self.brokers + self.attached() + place
    }
    /// The members that have the places of a kind, in the places' order.
    pub fn members_of(&self, kind: PlaceKind) -> Range<u32> {
        match kind {
            PlaceKind::Publisher => self.writer_member(0)..self.reader_member(0),
            PlaceKind::Subscriber => self.reader_member(0)..self.members(),
        }
    }
    /// The lane of an attached publisher's place.
    pub fn attached_lane(&self, place: u32) -> u32 {
        self.broker_lanes() + place
    }
    /// Whether a lane is an attached publisher's.
    pub fn is_attached_lane(&self, lane: u32) -> bool {
        lane >= self.broker_lanes()
    }
    /// The member that writes a lane.
    pub fn member_of_lane(&self, lane: u32) -> u32 {
        match lane.checked_sub(self.broker_lanes()) {
            Some(place) => self.writer_member(place),
            None => lane / self.lanes_per_broker,
        }
    }
    /// The broker on whose host a member lives.
    pub fn broker_of_member(&self, member: u32) -> u32 {
        assert!(member < self.members(), "member {member} of {}", self.members());
        match member.checked_sub(self.brokers) {
            None => member,
            Some(place) if place < self.attached() => place / u32::from(self.attached_per_broker),
            Some(place) => (place - self.attached()) / ATTACHED_READERS_PER_BROKER,
        }
    }
    /// Extents that a lane has when the pool is formatted: that of a broker which was there then.
    pub fn founding_extents(&self, lane: u32) -> Range<u32> {
        let founder = (!self.is_attached_lane(lane)).then(|| self.founder(lane / self.lanes_per_broker)).flatten();
        founder.map_or(0..0, |broker| {
            let rank = broker * self.lanes_per_broker + lane % self.lanes_per_broker;
            rank * EXTENTS_FOUNDING..(rank + 1) * EXTENTS_FOUNDING
        })
    }
    /// The rank of a broker among those whose places are not spare.
    fn founder(&self, broker: u32) -> Option<u32> {
        let of_host = self.brokers / self.hosts;
        match u32::from(self.spare_per_host) {
            0 => Some(broker),
            spare => {
                (broker % of_host + spare < of_host).then(|| broker / of_host * (of_host - spare) + broker % of_host)
            }
        }
    }
    /// Lanes that a pool has extents for when all of them write at once. A place that is spare, or for an attached publisher, takes none before
    /// somebody sits there.
    fn lanes_at_once(&self) -> u32 {
        let spare = self.hosts * u32::from(self.spare_per_host) * self.lanes_per_broker;
        self.broker_lanes() - spare + u32::from(self.attached_per_broker > 0 || spare > 0)
    }
    /// Largest batch, header and padding included, bytes.
    pub fn batch_bytes_max(&self) -> u64 {
        (self.extent_bytes / BATCHES_PER_EXTENT_MIN).min(BATCH_BYTES_MAX)
    }

    fn check(&self) -> Result<(), LayoutError> {
        let range = |name, found: u64, low: u64, high: u64| {
            let expected = format!("{low} to {high}");
            if (low..=high).contains(&found) { Ok(()) } else { Err(LayoutError::OutOfRange { name, found, expected }) }
        };
        let power = |name, found: u64| {
            let expected = "a power of two".to_string();
            if found.is_power_of_two() { Ok(()) } else { Err(LayoutError::OutOfRange { name, found, expected }) }
        };
        range("hosts", self.hosts.into(), 1, HOSTS_MAX.into())?;
        range("brokers", self.brokers.into(), 1, BROKERS_MAX.into())?;
        range("lanes_per_broker", self.lanes_per_broker.into(), 1, (LANES_MAX / self.brokers).into())?;
        let left = LANES_MAX / self.brokers - self.lanes_per_broker;
        if self.spare_per_host > 0 {
            let of_host = u64::from(self.brokers / self.hosts);
            range("brokers", self.brokers.into(), u64::from(self.hosts) * of_host, u64::from(self.hosts) * of_host)?;
            range("spare_per_host", self.spare_per_host.into(), 0, of_host - 1)?;
        }
        range("attached_per_broker", self.attached_per_broker.into(), 0, left.into())?;
        range("candidates", self.candidates.into(), 1, CANDIDATES_MAX.into())?;
        range("ring_slots", self.ring_slots.into(), RING_SLOTS_MIN.into(), RING_SLOTS_MAX.into())?;
        power("ring_slots", self.ring_slots.into())?;
        range("segment_entries", self.segment_entries.into(), SEGMENT_ENTRIES_MIN.into(), SEGMENT_ENTRIES_MAX.into())?;
        power("segment_entries", self.segment_entries.into())?;
        range("segments", self.segments.into(), SEGMENTS_PER_CANDIDATE_MIN.into(), SEGMENTS_PER_CANDIDATE_MAX.into())?;
        range("sessions_max", self.sessions_max.into(), 1, SESSIONS_MAX.into())?;
        range("topics_max", self.topics_max.into(), 1, TOPICS_MAX.into())?;
        range("cursors_max", self.cursors_max.into(), 1, CURSORS_MAX.into())?;
        range("extent_bytes", self.extent_bytes, EXTENT_BYTES_MIN, EXTENT_BYTES_MAX)?;
        power("extent_bytes", self.extent_bytes)
    }
}

impl Layout {
    /// Lays a pool out. `extents` of the geometry is computed from what the other numbers leave.
    pub fn new(mut geometry: Geometry) -> Result<Layout, LayoutError> {
        geometry.check()?;
        let g = &geometry;
        let (lanes, candidates) = (u64::from(g.lanes()), u64::from(g.candidates));
        let mut next = MEMBERS_AT + u64::from(MEMBER_LINES) * LINE_BYTES;
        // Regions with different writers start on their own page: easy to see in a dump, and no adjacent-line prefetch
        // pulls another writer's line.
        let mut region = |lines: u64| {
            let at = next;
            next = (at + lines * LINE_BYTES).next_multiple_of(4096);
            at
        };
        // As many extents as could ever fit decide the size of the extent table; the rest follows.
        let extents_bound = g.pool_bytes / g.extent_bytes;
        if extents_bound > EXTENTS_MAX.into() {
            let expected = format!("at most {EXTENTS_MAX}: give a larger extent_bytes");
            return Err(LayoutError::OutOfRange { name: "pool.bytes / extent_bytes", found: extents_bound, expected });
        }
        let mut layout = Layout {
            epochs: region(candidates),
            floors: region(candidates),
            pins: region(u64::from(g.members())),
            faults: region(g.brokers.into()),
            addresses: region(u64::from(g.brokers) * ADDRESS_LINES),
            lane_status: region(lanes),
            lane_progress: region(candidates * lanes),
            topics: region(candidates * u64::from(g.topics_max) * TOPIC_LINES),
            sessions: region(candidates * u64::from(g.sessions_max)),
            cursors: region(candidates * u64::from(g.cursors_max)),
            directories: region(candidates * 2 * candidates * u64::from(g.segments)),
            counters: region(
                (lanes + u64::from(g.brokers) * BROKER_BLOCKS + candidates) * COUNTERS_PER_BLOCK as u64 / 8,
            ),
            histograms: region(
                (u64::from(g.broker_lanes())
                    + u64::from(g.brokers) * BROKER_HISTOGRAMS
                    + candidates * SEQUENCER_HISTOGRAMS)
                    * HISTOGRAM_BYTES
                    / LINE_BYTES,
            ),
            slowest: region(u64::from(g.brokers) * 2 * SLOWEST_BYTES / LINE_BYTES),
            timelines: region(candidates * timeline_places(g) * TIMELINE_PLACE_BYTES / LINE_BYTES),
            processes: region(u64::from(g.brokers) * PROCESS_BYTES / LINE_BYTES),
            topic_counts: region(candidates * u64::from(g.topics_max)),
            session_counts: region(candidates * u64::from(g.sessions_max)),
            holdings: region(candidates * extents_bound),
            grants: region(candidates * lanes * u64::from(GRANTS_AHEAD_MAX)),
            extents: region(extents_bound),
            rings: region(lanes * u64::from(g.ring_slots)),
            index: region(candidates * u64::from(g.segments) * u64::from(g.segment_entries)),
            blog: 0,
            geometry,
        };
        layout.blog =
            next.next_multiple_of(REGION_ALIGNMENT_BYTES.max(geometry.extent_bytes.min(REGION_ALIGNMENT_BYTES)));
        let extents = (geometry.pool_bytes.saturating_sub(layout.blog) / geometry.extent_bytes).min(extents_bound);
        let at_once = u64::from(geometry.lanes_at_once());
        if extents / at_once < u64::from(EXTENTS_FOUNDING) {
            return Err(LayoutError::TooSmall {
                pool_bytes: geometry.pool_bytes,
                fixed_bytes: layout.blog,
                lanes: at_once,
                extent_bytes: geometry.extent_bytes,
                needed: layout.blog + at_once * u64::from(EXTENTS_FOUNDING) * geometry.extent_bytes,
            });
        }
        geometry.extents = extents as u32;
        layout.geometry = geometry;
        Ok(layout)
    }

    fn per_candidate(&self, base: u64, candidate: u32, count: u64, index: u64) -> u64 {
        assert!(candidate < self.geometry.candidates && index < count);
        base + (u64::from(candidate) * count + index) * LINE_BYTES
    }

    fn line(base: u64, index: u32, count: u32) -> u64 {
        assert!(index < count, "line {index} of a region of {count}");
        base + u64::from(index) * LINE_BYTES
    }

    /// A candidate's epoch line.
    pub fn epoch_line(&self, candidate: u32) -> u64 {
        Self::line(self.epochs, candidate, self.geometry.candidates)
    }
    /// A candidate's floor line.
    pub fn floor_line(&self, candidate: u32) -> u64 {
        Self::line(self.floors, candidate, self.geometry.candidates)
    }
    /// A member's line.
    pub fn broker_line(&self, member: u32) -> u64 {
        Self::line(MEMBERS_AT, member, self.geometry.members())
    }
    /// A member's pin.
    pub fn pin_line(&self, member: u32) -> u64 {
        Self::line(self.pins, member, self.geometry.members())
    }
    /// Where memory failed under a broker's processes.
    pub fn fault_line(&self, broker: u32) -> u64 {
        Self::line(self.faults, broker, self.geometry.brokers)
    }
    /// Line `part` of a broker's address.
    pub fn address_line(&self, broker: u32, part: u64) -> u64 {
        assert!(broker < self.geometry.brokers && part < ADDRESS_LINES);
        self.addresses + (u64::from(broker) * ADDRESS_LINES + part) * LINE_BYTES
    }
    /// A lane's status, written by its receive core.
    pub fn lane_status(&self, lane: u32) -> u64 {
        Self::line(self.lane_status, lane, self.geometry.lanes())
    }
    /// A lane's progress, a candidate's copy.
    pub fn lane_progress(&self, candidate: u32, lane: u32) -> u64 {
        self.per_candidate(self.lane_progress, candidate, self.geometry.lanes().into(), lane.into())
    }
    /// Line `line` (0 properties, 1 and 2 name, 3 progress) of a topic, a candidate's copy.
    pub fn topic_line(&self, candidate: u32, topic: u32, line: u64) -> u64 {
        assert!(line < TOPIC_LINES);
        let count = u64::from(self.geometry.topics_max) * TOPIC_LINES;
        self.per_candidate(self.topics, candidate, count, u64::from(topic) * TOPIC_LINES + line)
    }
    /// A session's checkpoint, a candidate's copy.
    pub fn session_line(&self, candidate: u32, slot: u32) -> u64 {
        self.per_candidate(self.sessions, candidate, self.geometry.sessions_max.into(), slot.into())
    }
    /// A named cursor, a candidate's copy.
    pub fn cursor_line(&self, candidate: u32, place: u32) -> u64 {
        self.per_candidate(self.cursors, candidate, self.geometry.cursors_max.into(), place.into())
    }
    /// Line in a bank of a candidate's directory, of the `segment`-th segment that `owner` ever had.
    pub fn directory_line(&self, candidate: u32, bank: u32, owner: u32, segment: u64) -> u64 {
        let (places, owners) = (u64::from(self.geometry.segments), u64::from(self.geometry.candidates));
        assert!(bank < 2 && u64::from(owner) < owners);
        let line = (u64::from(bank) * owners + u64::from(owner)) * places + segment % places;
        self.per_candidate(self.directories, candidate, 2 * owners * places, line)
    }
    /// Entry `entry` of a candidate's `segment`-th segment ever.
    pub fn index_entry(&self, candidate: u32, segment: u64, entry: u64) -> u64 {
        let (segments, entries) = (u64::from(self.geometry.segments), u64::from(self.geometry.segment_entries));
        assert!(entry < entries);
        self.per_candidate(self.index, candidate, segments * entries, segment % segments * entries + entry)
    }
    /// A lane's `slot`-th slot ever.
    #[inline]
    pub fn ring_slot(&self, lane: u32, slot: u64) -> u64 {
        assert!(lane < self.geometry.lanes());
        // A power of two: no division for each slot that is looked at.
        let slots = u64::from(self.geometry.ring_slots);
        self.rings + (u64::from(lane) * slots + (slot & (slots - 1))) * LINE_BYTES
    }
    /// An extent's line, which the lane writes that has it.
    pub fn extent_line(&self, extent: u32) -> u64 {
        Self::line(self.extents, extent, self.geometry.extents)
    }
    /// What the sequencer knows of an extent, a candidate's copy.
    pub fn holding_line(&self, candidate: u32, extent: u32) -> u64 {
        self.per_candidate(self.holdings, candidate, self.geometry.extents.into(), extent.into())
    }
    /// The line of the `number`-th extent ever granted to a lane, a candidate's copy.
    pub fn grant_line(&self, candidate: u32, lane: u32, number: u64) -> u64 {
        let (lanes, ahead) = (u64::from(self.geometry.lanes()), u64::from(GRANTS_AHEAD_MAX));
        assert!(u64::from(lane) < lanes);
        self.per_candidate(self.grants, candidate, lanes * ahead, u64::from(lane) * ahead + number % ahead)
    }
    /// Where an extent begins.
    pub fn extent(&self, extent: u32) -> u64 {
        assert!(extent < self.geometry.extents, "extent {extent} of {}", self.geometry.extents);
        self.blog + u64::from(extent) * self.geometry.extent_bytes
    }
    /// The extent that a place in the blog lies in.
    #[inline]
    pub fn extent_of(&self, at: u64) -> Option<u32> {
        let extent = at.checked_sub(self.blog)? >> self.geometry.extent_bytes.trailing_zeros();
        (extent < self.geometry.extents.into()).then_some(extent as u32)
    }
    /// Bytes of all extents.
    pub fn blog_bytes(&self) -> u64 {
        u64::from(self.geometry.extents) * self.geometry.extent_bytes
    }
    /// Counter block of a lane's receive core.
    pub fn receive_counters(&self, lane: u32) -> u64 {
        self.counter_block(u64::from(lane))
    }
    /// Counter block of a broker's ack core.
    pub fn ack_counters(&self, broker: u32) -> u64 {
        self.counter_block(u64::from(self.geometry.lanes()) + u64::from(broker) * BROKER_BLOCKS)
    }
    /// Counter block of a broker's exporter.
    pub fn export_counters(&self, broker: u32) -> u64 {
        self.counter_block(u64::from(self.geometry.lanes()) + u64::from(broker) * BROKER_BLOCKS + 1)
    }
    /// Counter block of a candidate's sequencer.
    pub fn sequencer_counters(&self, candidate: u32) -> u64 {
        let before = u64::from(self.geometry.lanes()) + u64::from(self.geometry.brokers) * BROKER_BLOCKS;
        self.counter_block(before + u64::from(candidate))
    }
    fn counter_block(&self, block: u64) -> u64 {
        self.counters + block * u64::from(COUNTERS_PER_BLOCK) * 8
    }
    /// Histogram of a broker's lane: from landed to published.
    pub fn publish_histogram(&self, lane: u32) -> u64 {
        assert!(lane < self.geometry.broker_lanes());
        self.histogram(lane.into())
    }
    /// Histograms of a broker's ack core: from committed to acked, and from landed to acked.
    pub fn ack_histograms(&self, broker: u32) -> [u64; 2] {
        self.broker_histograms(broker, 0)
    }
    /// Histograms of a broker's exporter: from committed to delivered, and from landed to delivered.
    pub fn deliver_histograms(&self, broker: u32) -> [u64; 2] {
        self.broker_histograms(broker, 2)
    }
    fn broker_histograms(&self, broker: u32, first: u64) -> [u64; 2] {
        assert!(broker < self.geometry.brokers);
        let first = u64::from(self.geometry.broker_lanes()) + u64::from(broker) * BROKER_HISTOGRAMS + first;
        [self.histogram(first), self.histogram(first + 1)]
    }
    /// Histograms of a candidate's sequencer: from published to ordered, and from ordered to committed.
    pub fn sequencer_histograms(&self, candidate: u32) -> [u64; 2] {
        assert!(candidate < self.geometry.candidates);
        let brokers = u64::from(self.geometry.broker_lanes()) + u64::from(self.geometry.brokers) * BROKER_HISTOGRAMS;
        let first = brokers + u64::from(candidate) * SEQUENCER_HISTOGRAMS;
        [self.histogram(first), self.histogram(first + 1)]
    }
    fn histogram(&self, number: u64) -> u64 {
        self.histograms + number * HISTOGRAM_BYTES
    }
    /// The slowest batches that a broker's ack core acked.
    pub fn slowest_acked(&self, broker: u32) -> u64 {
        assert!(broker < self.geometry.brokers);
        self.slowest + u64::from(broker) * 2 * SLOWEST_BYTES
    }
    /// The slowest batches that a broker's exporter delivered.
    pub fn slowest_delivered(&self, broker: u32) -> u64 {
        self.slowest_acked(broker) + SLOWEST_BYTES
    }
    /// Batches whose times a candidate keeps.
    pub fn timeline_places(&self) -> u64 {
        timeline_places(&self.geometry)
    }
    /// Where a candidate notes the times of the batch at a position.
    #[inline]
    pub fn timeline_place(&self, candidate: u32, position: u64) -> u64 {
        assert!(candidate < self.geometry.candidates);
        let places = self.timeline_places();
        self.timelines + (u64::from(candidate) * places + (position & (places - 1))) * TIMELINE_PLACE_BYTES
    }
    /// Where the process that has a broker's place says what one of its threads does.
    pub fn thread_block(&self, broker: u32, thread: u32) -> u64 {
        assert!(broker < self.geometry.brokers && thread < THREADS_PER_BROKER);
        self.processes + u64::from(broker) * PROCESS_BYTES + u64::from(thread) * THREAD_BYTES
    }
    /// Where the process that has a broker's place keeps one of its distinct errors.
    pub fn error_block(&self, broker: u32, error: u32) -> u64 {
        assert!(broker < self.geometry.brokers && error < ERRORS_PER_PROCESS);
        self.thread_block(broker, 0) + u64::from(THREADS_PER_BROKER) * THREAD_BYTES + u64::from(error) * ERROR_BYTES
    }
    /// What a candidate has counted of a topic.
    pub fn topic_counts(&self, candidate: u32, topic: u32) -> u64 {
        self.per_candidate(self.topic_counts, candidate, self.geometry.topics_max.into(), topic.into())
    }
    /// What a candidate has counted of the session at a place.
    pub fn session_counts(&self, candidate: u32, slot: u32) -> u64 {
        self.per_candidate(self.session_counts, candidate, self.geometry.sessions_max.into(), slot.into())
    }
    /// Bytes before the blog: what formatting must clear.
    pub fn fixed_bytes(&self) -> u64 {
        self.blog
    }

    /// The regions as a table: offset, bytes, name, writer.
    pub fn table(&self) -> String {
        let rows = [
            (0, "superblock", "whoever formats the pool"),
            (MEMBERS_AT, "member lines", "each broker, each attached process"),
            (self.epochs, "epoch lines", "each sequencer candidate"),
            (self.floors, "floor lines", "each sequencer candidate"),
            (self.pins, "reader pins", "each exporter, each attached subscriber"),
            (self.faults, "failed memory", "each broker"),
            (self.addresses, "addresses", "each broker"),
            (self.lane_status, "lane status", "each receive core, each attached publisher"),
            (self.lane_progress, "lane progress", "sequencer, a copy per candidate"),
            (self.topics, "topic table", "sequencer, a copy per candidate"),
            (self.sessions, "session checkpoints", "sequencer, a copy per candidate"),
            (self.cursors, "named cursors", "sequencer, a copy per candidate"),
            (self.directories, "segment directories", "each sequencer candidate"),
            (self.counters, "counters", "each role"),
            (self.histograms, "histograms", "each role"),
            (self.slowest, "slowest batches", "each ack core, each exporter"),
            (self.timelines, "timelines", "each sequencer candidate"),
            (self.processes, "threads and errors", "each process, in the place of a broker"),
            (self.topic_counts, "topic counts", "sequencer, a copy per candidate"),
            (self.session_counts, "session counts", "sequencer, a copy per candidate"),
            (self.holdings, "holdings", "sequencer, a copy per candidate"),
            (self.grants, "grants", "sequencer, a copy per candidate"),
            (self.extents, "extent table", "the lane that has the extent"),
            (self.rings, "lane rings", "the writer of the lane"),
            (self.index, "order index", "the sequencer of each segment's epoch"),
            (self.blog, "blog extents", "the lane that has the extent"),
            (self.blog + self.blog_bytes(), "unused", "nobody"),
        ];
        let mut text = format!("{:>14} {:>14}  {:<20} written by\n", "offset", "bytes", "region");
        for (index, (at, name, writer)) in rows.iter().enumerate() {
            let end = rows.get(index + 1).map_or(self.geometry.pool_bytes, |row| row.0);
            text += &format!("{at:>14} {:>14}  {name:<20} {writer}\n", end - at);
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small geometry for tests.
    pub(crate) fn small() -> Geometry {
        crate::testing::memory::small_geometry(1)
    }

    /// Places that are spare have lines and a lane each, and no memory until somebody is there.
    #[test]
    fn spare_places_take_no_memory() {
        let with = |spare_per_host| {
            let geometry = Geometry { hosts: 2, brokers: 6, spare_per_host, pool_bytes: 64 << 20, ..small() };
            Layout::new(geometry).unwrap().geometry
        };
        let lanes = with(0).lanes_per_broker;
        let founded = |g: Geometry| -> Vec<u32> {
            (0..g.lanes()).filter(|lane| !g.founding_extents(*lane).is_empty()).map(|lane| lane / lanes).collect()
        };
        assert_eq!(founded(with(0)).len() as u32, 6 * lanes);
        let mut brokers = founded(with(2));
        brokers.dedup();
        assert_eq!(brokers, [0, 3], "the first of each host");
        let all: Vec<u32> = (0..with(2).lanes()).flat_map(|lane| with(2).founding_extents(lane)).collect();
        assert_eq!(all, (0..2 * lanes * EXTENTS_FOUNDING).collect::<Vec<_>>(), "each extent once");
        let geometry = Geometry { hosts: 2, brokers: 6, spare_per_host: 3, ..small() };
        assert!(matches!(Layout::new(geometry), Err(LayoutError::OutOfRange { name: "spare_per_host", .. })));
    }

    #[test]
    fn regions_do_not_overlap() {
        for (brokers, candidates, attached) in [(1, 1, 0), (2, 1, 3), (4, 2, 0), (3, 4, 1)] {
            let attached = Geometry { attached_per_broker: attached, ..small() };
            let layout = Layout::new(Geometry { brokers, candidates, pool_bytes: 64 << 20, ..attached }).unwrap();
            let g = layout.geometry;
            let mut lines = std::collections::HashSet::new();
            let mut claim = |at: u64| assert!(at >= SUPERBLOCK_BYTES && lines.insert(at), "line {at} claimed twice");
            for c in 0..candidates {
                claim(layout.epoch_line(c));
                claim(layout.floor_line(c));
                (0..g.lanes()).for_each(|lane| claim(layout.lane_progress(c, lane)));
                (0..g.topics_max).for_each(|t| (0..TOPIC_LINES).for_each(|l| claim(layout.topic_line(c, t, l))));
                (0..g.sessions_max).for_each(|s| claim(layout.session_line(c, s)));
                (0..g.cursors_max).for_each(|place| claim(layout.cursor_line(c, place)));
                for (bank, owner) in (0..2).flat_map(|bank| (0..candidates).map(move |owner| (bank, owner))) {
                    (0..u64::from(g.segments)).for_each(|s| claim(layout.directory_line(c, bank, owner, s)));
                }
                for segment in 0..u64::from(g.segments) {
                    (0..u64::from(g.segment_entries)).for_each(|e| claim(layout.index_entry(c, segment, e)));
                }
                (0..8).for_each(|line| claim(layout.sequencer_counters(c) + line * 64));
                for at in layout.sequencer_histograms(c) {
                    (0..HISTOGRAM_BYTES / 64).for_each(|line| claim(at + line * 64));
                }
                (0..layout.timeline_places()).step_by(2).for_each(|position| claim(layout.timeline_place(c, position)));
                (0..g.topics_max).for_each(|topic| claim(layout.topic_counts(c, topic)));
                (0..g.sessions_max).for_each(|slot| claim(layout.session_counts(c, slot)));
            }
            for member in 0..g.members() {
                claim(layout.broker_line(member));
                assert_eq!(layout.broker_line(member), 4096 + 64 * u64::from(member), "where every layout has it");
                claim(layout.pin_line(member));
            }
            for broker in 0..brokers {
                claim(layout.fault_line(broker));
                (0..8).for_each(|line| claim(layout.ack_counters(broker) + line * 64));
                (0..8).for_each(|line| claim(layout.export_counters(broker) + line * 64));
                for at in layout.ack_histograms(broker).into_iter().chain(layout.deliver_histograms(broker)) {
                    (0..HISTOGRAM_BYTES / 64).for_each(|line| claim(at + line * 64));
                }
                for at in [layout.slowest_acked(broker), layout.slowest_delivered(broker)] {
                    (0..SLOWEST_BYTES / 64).for_each(|line| claim(at + line * 64));
                }
                for at in (0..THREADS_PER_BROKER).map(|thread| layout.thread_block(broker, thread)) {
                    (0..THREAD_BYTES / 64).for_each(|line| claim(at + line * 64));
                }
                for at in (0..ERRORS_PER_PROCESS).map(|error| layout.error_block(broker, error)) {
                    (0..ERROR_BYTES / 64).for_each(|line| claim(at + line * 64));
                }
            }
            for lane in 0..g.lanes() {
                claim(layout.lane_status(lane));
                (0..u64::from(g.ring_slots)).for_each(|slot| claim(layout.ring_slot(lane, slot)));
                (0..8).for_each(|line| claim(layout.receive_counters(lane) + line * 64));
                if lane < g.broker_lanes() {
                    (0..HISTOGRAM_BYTES / 64).for_each(|line| claim(layout.publish_histogram(lane) + line * 64));
                }
                for candidate in 0..candidates {
                    (0..GRANTS_AHEAD_MAX.into()).for_each(|n| claim(layout.grant_line(candidate, lane, n)));
                }
            }
            for extent in 0..g.extents {
                claim(layout.extent_line(extent));
                (0..candidates).for_each(|candidate| claim(layout.holding_line(candidate, extent)));
                (0..g.extent_bytes / 64).for_each(|line| claim(layout.extent(extent) + line * 64));
                assert!(layout.extent(extent) + g.extent_bytes <= g.pool_bytes);
                assert_eq!(layout.extent_of(layout.extent(extent)), Some(extent));
                assert_eq!(layout.extent_of(layout.extent(extent) + g.extent_bytes - 1), Some(extent));
            }
            assert_eq!((layout.extent_of(layout.extent(0) - 1), layout.extent_of(g.pool_bytes)), (None, None));
        }
    }

    #[test]
    fn attached_places_lie_behind_the_brokers_and_belong_to_one_each() {
        let wanted = Geometry { attached_per_broker: 2, pool_bytes: 64 << 20, ..small() };
        let g = Layout::new(wanted).unwrap().geometry;
        assert_eq!((g.brokers, g.broker_lanes(), g.attached(), g.lanes()), (2, 2, 4, 6));
        let of_lanes: Vec<_> = (0..6).map(|lane| g.broker_of_member(g.member_of_lane(lane))).collect();
        assert_eq!(of_lanes, [0, 1, 0, 0, 1, 1]);
        assert_eq!(g.member_of_lane(g.attached_lane(3)), g.writer_member(3));
        assert_eq!(g.members(), 2 + 4 + 2 * ATTACHED_READERS_PER_BROKER);
        assert_eq!(g.members_of(PlaceKind::Publisher), 2..6);
        assert_eq!(g.members_of(PlaceKind::Subscriber), 6..g.members());
        assert_eq!(g.broker_of_member(g.reader_member(ATTACHED_READERS_PER_BROKER)), 1);
        assert_eq!([0, 1, 2].map(|lane| g.founding_extents(lane)), [0..4, 4..8, 0..0], "a place costs lines only");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let small = small();
        assert!(matches!(
            Layout::new(Geometry { pool_bytes: 1 << 20, ..small }),
            Err(LayoutError::TooSmall { needed, .. }) if needed > 1 << 20
        ));
        assert!(Layout::new(Geometry { ring_slots: 65, ..small }).is_err());
        assert!(Layout::new(Geometry { extent_bytes: 3 << 20, ..small }).is_err());
        assert!(Layout::new(Geometry { brokers: 0, ..small }).is_err());
        assert!(Layout::new(Geometry { candidates: 5, ..small }).is_err());
        assert!(Layout::new(Geometry { attached_per_broker: 300, ..small }).is_err());
        let vast = Layout::new(Geometry { pool_bytes: 1 << 40, ..small }).unwrap_err().to_string();
        assert!(vast.contains("give a larger extent_bytes"), "{vast}");
    }

    #[test]
    fn slots_wrap_and_counts_do_not() {
        let layout = Layout::new(small()).unwrap();
        assert_eq!(layout.ring_slot(1, 3), layout.ring_slot(1, 64 * (1 << 40) + 3));
        assert!(layout.table().contains("order index"));
    }
}
