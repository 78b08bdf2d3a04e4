//! Where everything lies in the pool: pure arithmetic over a geometry, checked once, printable.
//!
//! * [`geometry`]: the numbers that all follows from.
//! * `observed`: where counters, histograms and times lie.

pub mod geometry;
mod observed;

pub use geometry::{Geometry, LayoutError, PlaceKind};

use crate::limits::*;

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
    topic_deliveries: u64,
    holdings: u64,
    grants: u64,
    extents: u64,
    rings: u64,
    index: u64,
    blog: u64,
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
            counters: region(observed::counter_lines(g)),
            histograms: region(observed::histogram_lines(g)),
            slowest: region(observed::slowest_lines(g)),
            timelines: region(observed::timeline_lines(g)),
            processes: region(observed::process_lines(g)),
            topic_counts: region(candidates * u64::from(g.topics_max)),
            session_counts: region(candidates * u64::from(g.sessions_max)),
            topic_deliveries: region(u64::from(g.brokers) * u64::from(g.topics_max)),
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
            (self.topic_deliveries, "topic deliveries", "each exporter"),
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
                (0..g.topics_max).for_each(|topic| claim(layout.topic_deliveries(broker, topic)));
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
