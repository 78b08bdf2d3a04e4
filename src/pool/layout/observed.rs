//! Where what is observed lies: counters, histograms, the slowest batches, times, threads and errors. Whoever writes these waits for nobody, and nothing of
//! the log depends on them.

use super::{Geometry, Layout};
use crate::limits::*;

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

/// Lines of all counter blocks.
pub(super) fn counter_lines(g: &Geometry) -> u64 {
    let blocks = u64::from(g.lanes()) + u64::from(g.brokers) * BROKER_BLOCKS + u64::from(g.candidates);
    blocks * u64::from(COUNTERS_PER_BLOCK) / 8
}

/// Lines of all histograms.
pub(super) fn histogram_lines(g: &Geometry) -> u64 {
    let of_brokers = u64::from(g.broker_lanes()) + u64::from(g.brokers) * BROKER_HISTOGRAMS;
    (of_brokers + u64::from(g.candidates) * SEQUENCER_HISTOGRAMS) * HISTOGRAM_BYTES / LINE_BYTES
}

/// Lines of the slowest batches.
pub(super) fn slowest_lines(g: &Geometry) -> u64 {
    u64::from(g.brokers) * 2 * SLOWEST_BYTES / LINE_BYTES
}

/// Lines of all timelines.
pub(super) fn timeline_lines(g: &Geometry) -> u64 {
    u64::from(g.candidates) * timeline_places(g) * TIMELINE_PLACE_BYTES / LINE_BYTES
}

/// Lines in which processes tell of themselves.
pub(super) fn process_lines(g: &Geometry) -> u64 {
    u64::from(g.brokers) * PROCESS_BYTES / LINE_BYTES
}

impl Layout {
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
    /// What a broker's exporter has counted of a topic.
    pub fn topic_deliveries(&self, broker: u32, topic: u32) -> u64 {
        assert!(broker < self.geometry.brokers && topic < self.geometry.topics_max);
        self.topic_deliveries
            + (u64::from(broker) * u64::from(self.geometry.topics_max) + u64::from(topic)) * LINE_BYTES
    }
}
