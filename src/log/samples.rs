//! What was settled, and how much of each topic was there, when the index stood at a position: the steps in which memory is
//! given back.
//!
//! The sequencer's own memory, lost at a takeover: what is older than that is one step. Samples are bounded; when they are all in
//! use the newest is made to stand for more.

use std::collections::VecDeque;

use crate::pool::Geometry;

/// How far a topic had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicMark {
    /// Bytes of its batches, ever.
    pub bytes: u64,
    /// Order of its next message.
    pub next_order: u64,
}

/// How much of a topic is kept; 0: no target, it is kept until memory is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicRetention {
    /// Target, bytes.
    pub bytes: u64,
    /// Target, ns.
    pub ns: u64,
}

struct Sample {
    position: u64,
    taken_ns: u64,
    /// Payload bytes appended before it, ever.
    bytes: u64,
    /// Settled count of each lane.
    settled: Box<[u64]>,
    topics: Box<[TopicMark]>,
}

/// See the head of the file.
pub struct Samples {
    /// Oldest first.
    kept: VecDeque<Sample>,
    /// Samples given up, kept for their storage.
    spare: Vec<Sample>,
    /// Position, bytes and time of the newest sample, whether or not it was given up since.
    newest: (u64, u64, u64),
    bytes: u64,
    marks: Box<[TopicMark]>,
    /// Marks of the last sample given up: nothing below them is kept.
    given_up: Box<[TopicMark]>,
    /// By id; `None`: there is no such topic, and nothing is kept for its sake.
    retention: Box<[Option<TopicRetention>]>,
    every_bytes: u64,
    every_entries: u64,
    every_ns: u64,
}

/// Samples taken while the shortest retention time passes.
const SAMPLES_PER_RETENTION: u64 = 8;
/// Shortest time between two samples that are taken for time's sake, ns.
const SAMPLE_NS_MIN: u64 = 10_000_000;

impl Samples {
    /// None yet; the index stands at `position`.
    pub fn new(geometry: &Geometry, position: u64) -> Samples {
        let g = geometry;
        let extents = u64::from(g.lanes()) * u64::from(g.extents_per_lane);
        // One sample for each half extent of payload and each quarter segment of entries that can be live at once.
        let samples_max = (2 * extents + 4 * u64::from(g.segments * g.candidates) + 16) as usize;
        let marks = || vec![TopicMark::default(); g.topics_max as usize].into_boxed_slice();
        let settled = || vec![0; g.lanes() as usize].into_boxed_slice();
        let blank = |_| Sample { position: 0, taken_ns: 0, bytes: 0, settled: settled(), topics: marks() };
        Samples {
            kept: VecDeque::with_capacity(samples_max),
            spare: (0..samples_max).map(blank).collect(),
            newest: (position, 0, 0),
            bytes: 0,
            marks: marks(),
            given_up: marks(),
            retention: vec![None; g.topics_max as usize].into(),
            every_bytes: g.extent_bytes / 2,
            every_entries: u64::from(g.segment_entries / 4),
            every_ns: u64::MAX,
        }
    }

    /// Sets what is kept of a topic, how far it has come, and up to where it was given up.
    pub fn set_topic(&mut self, topic: u32, retention: TopicRetention, mark: TopicMark, given_up: TopicMark) {
        let topic = topic as usize;
        (self.retention[topic], self.marks[topic], self.given_up[topic]) = (Some(retention), mark, given_up);
        // What older samples know under this id is another topic's.
        self.kept.iter_mut().for_each(|sample| sample.topics[topic] = given_up);
        self.pace();
    }

    /// Forgets a topic: nothing is kept for its sake.
    pub fn forget_topic(&mut self, topic: u32) {
        self.retention[topic as usize] = None;
        self.pace();
    }

    fn pace(&mut self) {
        let shortest = self.retention.iter().flatten().map(|kept| kept.ns).filter(|ns| *ns > 0).min();
        self.every_ns = shortest.map_or(u64::MAX, |ns| (ns / SAMPLES_PER_RETENTION).max(SAMPLE_NS_MIN));
    }

    /// Counts a batch.
    #[inline]
    pub fn count(&mut self, topic: u32, bytes: u64, end_order: u64) {
        self.bytes += bytes;
        let mark = &mut self.marks[topic as usize];
        (mark.bytes, mark.next_order) = (mark.bytes + bytes, end_order);
    }

    /// How far a topic has come.
    pub fn mark(&self, topic: u32) -> TopicMark {
        self.marks[topic as usize]
    }

    /// Up to where a topic was given up.
    pub fn given_up(&self, topic: u32) -> TopicMark {
        self.given_up[topic as usize]
    }

    /// Payload bytes kept.
    pub fn retained_bytes(&self) -> u64 {
        self.bytes - self.kept.front().map_or(self.bytes, |sample| sample.bytes)
    }

    /// Takes a sample if enough has happened since the last. `watermark` is committed; `settled` is each lane's count now.
    #[inline]
    pub fn take_if_due(&mut self, watermark: u64, now_ns: u64, settled: impl Fn(u32) -> u64) {
        let (position, bytes, taken_ns) = self.newest;
        if watermark == position && self.bytes == bytes {
            return;
        }
        let due = self.bytes - bytes >= self.every_bytes
            || watermark - position >= self.every_entries
            || now_ns.saturating_sub(taken_ns) >= self.every_ns;
        if due {
            self.take(watermark, now_ns, settled);
        }
    }

    /// Takes a sample now.
    pub fn take(&mut self, watermark: u64, now_ns: u64, settled: impl Fn(u32) -> u64) {
        self.newest = (watermark, self.bytes, now_ns);
        if let Some(sample) = self.spare.pop() {
            self.kept.push_back(sample);
        }
        let sample = self.kept.back_mut().expect("there is storage for more than one");
        (sample.position, sample.taken_ns, sample.bytes) = (watermark, now_ns, self.bytes);
        sample.settled.iter_mut().enumerate().for_each(|(lane, count)| *count = settled(lane as u32));
        sample.topics.copy_from_slice(&self.marks);
    }

    /// Position of the oldest sample.
    pub fn oldest(&self) -> Option<u64> {
        self.kept.front().map(|sample| sample.position)
    }

    /// Gives the oldest sample up; `reusable` becomes what was settled then.
    pub fn give_up_oldest(&mut self, reusable: &mut [u64]) {
        let Some(sample) = self.kept.pop_front() else { return };
        reusable.copy_from_slice(&sample.settled);
        self.given_up.copy_from_slice(&sample.topics);
        self.spare.push(sample);
    }

    /// Whether every topic that has data in the oldest sample's step is kept long or large enough without it.
    pub fn is_past_retention(&self, now_ns: u64) -> bool {
        let Some(oldest) = self.kept.front() else { return false };
        let mut any = false;
        for (topic, mark) in oldest.topics.iter().enumerate() {
            if mark.bytes <= self.given_up[topic].bytes {
                continue;
            }
            let is_past = match self.retention[topic] {
                None => true,
                Some(kept) => {
                    kept.bytes > 0 && self.marks[topic].bytes - mark.bytes >= kept.bytes
                        || kept.ns > 0 && now_ns.saturating_sub(oldest.taken_ns) >= kept.ns
                }
            };
            if !is_past {
                return false;
            }
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Layout;
    use crate::sim::memory::small_geometry;

    fn samples() -> Samples {
        let geometry = Layout::new(small_geometry(1)).unwrap().geometry;
        let mut samples = Samples::new(&geometry, 0);
        (0..2).for_each(|topic| {
            samples.set_topic(topic, TopicRetention::default(), TopicMark::default(), TopicMark::default())
        });
        samples
    }

    /// One step of `bytes` of each topic at `position`, at time `position`.
    fn step(samples: &mut Samples, position: u64, topics: [u64; 2]) {
        (0..2).for_each(|topic| {
            let order = samples.mark(topic).next_order + topics[topic as usize];
            samples.count(topic, topics[topic as usize], order);
        });
        samples.take(position, position, |_| position);
    }

    fn keep(samples: &mut Samples, topic: u32, bytes: u64, ns: u64) {
        samples.retention[topic as usize] = Some(TopicRetention { bytes, ns });
    }

    #[test]
    fn a_step_goes_when_every_topic_in_it_has_enough_without_it() {
        let mut samples = samples();
        step(&mut samples, 1, [100, 10]);
        step(&mut samples, 2, [100, 0]);
        assert!(!samples.is_past_retention(u64::MAX), "no target: kept until memory is needed");
        keep(&mut samples, 0, 100, 0);
        assert!(!samples.is_past_retention(u64::MAX), "topic 1 has data in the step");
        keep(&mut samples, 1, 0, 50);
        assert!(!samples.is_past_retention(50) && samples.is_past_retention(51));
        samples.give_up_oldest(&mut [0, 0]);
        assert_eq!((samples.given_up(0).next_order, samples.given_up(1).bytes), (100, 10));
        assert!(!samples.is_past_retention(u64::MAX), "topic 0 is down to its target");
        step(&mut samples, 3, [100, 0]);
        assert!(samples.is_past_retention(3), "and has too much again; topic 1 has nothing in that step");
    }

    #[test]
    fn nothing_is_kept_for_a_deleted_topic_and_its_heir_starts_from_nothing() {
        let mut samples = samples();
        step(&mut samples, 1, [100, 0]);
        samples.forget_topic(0);
        assert!(samples.is_past_retention(1));
        samples.set_topic(0, TopicRetention { bytes: 1, ns: 0 }, TopicMark::default(), TopicMark::default());
        assert!(!samples.is_past_retention(1), "no data of any topic: nothing to give up for");
        step(&mut samples, 2, [5, 0]);
        samples.give_up_oldest(&mut [0, 0]);
        assert_eq!(samples.given_up(0), TopicMark::default());
        assert_eq!(samples.mark(0), TopicMark { bytes: 5, next_order: 5 });
    }

    #[test]
    fn time_makes_a_sample_due_only_where_a_topic_is_kept_by_time() {
        let mut samples = samples();
        samples.count(0, 1, 1);
        samples.take_if_due(1, u64::MAX / 2, |_| 0);
        assert_eq!(samples.oldest(), None);
        samples.set_topic(1, TopicRetention { bytes: 0, ns: 800_000_000 }, TopicMark::default(), TopicMark::default());
        samples.take_if_due(1, 99_000_000, |_| 0);
        assert_eq!(samples.oldest(), None);
        samples.take_if_due(1, 100_000_000, |_| 0);
        assert_eq!(samples.oldest(), Some(1));
        samples.take_if_due(1, 900_000_000, |_| 0);
        assert_eq!(samples.kept.len(), 1, "nothing new is no sample");
    }

    #[test]
    fn samples_are_bounded() {
        let mut samples = samples();
        let most = samples.spare.len();
        for position in 1..10_000 {
            step(&mut samples, position, [1 << 20, 0]);
        }
        assert_eq!(samples.kept.len(), most);
        assert_eq!(samples.kept.back().unwrap().position, 9_999);
    }
}
