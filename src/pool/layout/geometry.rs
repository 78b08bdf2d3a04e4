//! The numbers a pool is laid out by, and what follows from them alone: who has which lane, how large a batch may be, what is refused.

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
    pub(super) fn lanes_at_once(&self) -> u32 {
        let spare = self.hosts * u32::from(self.spare_per_host) * self.lanes_per_broker;
        self.broker_lanes() - spare + u32::from(self.attached_per_broker > 0 || spare > 0)
    }
    /// Largest batch, header and padding included, bytes.
    pub fn batch_bytes_max(&self) -> u64 {
        (self.extent_bytes / BATCHES_PER_EXTENT_MIN).min(BATCH_BYTES_MAX)
    }

    pub(super) fn check(&self) -> Result<(), LayoutError> {
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
