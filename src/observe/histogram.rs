//! Histograms of times: 16 buckets an octave, so that every value is known to a sixteenth of itself, from 1 ns to a minute.
//!
//! A role counts in its own memory, two adds a value, and copies what changed to its block in the pool at a low rate; the first time all of it, over
//! what the last process left there. Whoever reads a block may see some buckets newer than others: each is a count that only grows.

use crate::limits::HISTOGRAM_BYTES;
use crate::pool::{Keep, Memory};

/// Buckets of an octave, as a power of two.
const SUB_BITS: u32 = 4;
const SUBS: u64 = 1 << SUB_BITS;
/// Values from here on are counted in the last bucket, ns: 69 s.
const TOP_BITS: u32 = 36;
/// Buckets of a histogram.
pub const BUCKETS: usize = ((TOP_BITS - SUB_BITS + 1) as usize) << SUB_BITS;
/// Words in front of the buckets: the sum of all values, and the largest.
const HEAD_WORDS: usize = 8;
const _: () = assert!(HISTOGRAM_BYTES == 8 * (HEAD_WORDS + BUCKETS) as u64);

/// The bucket of a value.
#[inline]
fn bucket_of(value: u64) -> usize {
    if value < SUBS {
        return value as usize;
    }
    let shift = 63 - SUB_BITS - value.leading_zeros();
    let bucket = (u64::from(shift + 1) << SUB_BITS) + (value >> shift) - SUBS;
    (bucket as usize).min(BUCKETS - 1)
}

/// The lowest value that is above all of a bucket.
pub fn upper_bound(bucket: usize) -> u64 {
    let (octave, sub) = (bucket as u64 >> SUB_BITS, bucket as u64 & (SUBS - 1));
    match octave.checked_sub(1) {
        None => sub + 1,
        Some(shift) => (SUBS + sub + 1) << shift,
    }
}

/// Times as one role counts them.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
    /// Buckets that may have changed since they were written: the first, and one past the last. At first all: another's may stand there.
    changed: (usize, usize),
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: Box::new([0; BUCKETS]), sum: 0, max: 0, changed: (0, BUCKETS) }
    }
}

impl Histogram {
    /// Counts a value so many times.
    #[inline]
    pub fn record(&mut self, value: u64, times: u64) {
        let bucket = bucket_of(value);
        self.buckets[bucket] += times;
        self.sum += value * times;
        self.max = self.max.max(value);
        self.changed = (self.changed.0.min(bucket), self.changed.1.max(bucket + 1));
    }

    /// Copies what changed to the block at `at`. The caller fences.
    pub fn write<M: Memory>(&mut self, memory: &M, at: u64) {
        let (first, end) = std::mem::replace(&mut self.changed, (BUCKETS, 0));
        if first >= end {
            return;
        }
        memory.store(at, self.sum);
        memory.store(at + 8, self.max);
        memory.write_back(at, 16, Keep::Cached);
        let begin = at + 8 * (HEAD_WORDS + first) as u64;
        for (offset, count) in (0..).step_by(8).zip(&self.buckets[first..end]) {
            memory.store(begin + offset, *count);
        }
        memory.write_back(begin, 8 * (end - first) as u64, Keep::Cached);
    }
}

/// What was counted, by one role or several, ever or since an earlier look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: Vec<u64>,
    sum: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Distribution { buckets: vec![0; BUCKETS], sum: 0, max: 0 }
    }
}

impl Distribution {
    /// Reads the block at `at`, of a process that lives or is gone.
    pub fn read<M: Memory>(memory: &M, at: u64) -> Distribution {
        memory.discard(at, HISTOGRAM_BYTES);
        let bucket = |bucket| memory.load(at + 8 * (HEAD_WORDS + bucket) as u64);
        Distribution { buckets: (0..BUCKETS).map(bucket).collect(), sum: memory.load(at), max: memory.load(at + 8) }
    }

    /// Adds what another role counted.
    pub fn add(&mut self, other: &Distribution) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine = mine.wrapping_add(*theirs));
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// What came since an earlier look: all of it if a bucket has fallen, since then another process counts. Its largest value is known as well as the
    /// buckets know it.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        if self.buckets.iter().zip(&earlier.buckets).any(|(now, then)| now < then) {
            return self.clone();
        }
        let buckets = self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now - then);
        let buckets: Vec<u64> = buckets.collect();
        let highest = buckets.iter().rposition(|count| *count > 0).map_or(0, |bucket| upper_bound(bucket) - 1);
        Distribution { sum: self.sum.saturating_sub(earlier.sum), max: self.max.min(highest), buckets }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum, ns.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest, ns.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// A value that so large a part of all are not above, ns; none if nothing was counted. Not more than the largest.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * part).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        // The largest may be known from another moment than the buckets.
        Some((upper_bound(bucket) - 1).min(self.max.max(1)))
    }

    /// How many values are below `bound`, ns: exact where a bucket ends there, as at each power of two.
    pub fn count_below(&self, bound: u64) -> u64 {
        self.buckets
            .iter()
            .enumerate()
            .take_while(|(bucket, _)| upper_bound(*bucket) <= bound)
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(feature = "broker")]
impl serde::Serialize for Distribution {
    /// How many, and the values that parts of them are not above.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = to.serialize_struct("Distribution", 7)?;
        let at = |part| self.quantile(part).unwrap_or(0);
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum_ns", &self.sum)?;
        fields.serialize_field("p50_ns", &at(0.5))?;
        fields.serialize_field("p90_ns", &at(0.9))?;
        fields.serialize_field("p99_ns", &at(0.99))?;
        fields.serialize_field("p999_ns", &at(0.999))?;
        fields.serialize_field("max_ns", &self.max)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::{SharedMemory, Whim};

    #[test]
    fn buckets_follow_each_other_and_know_a_value_to_a_sixteenth() {
        let mut last = 0;
        for value in
            (0..4096).chain((12..TOP_BITS).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))]))
        {
            let bucket = bucket_of(value);
            assert!(upper_bound(bucket) > value, "{value} in {bucket}");
            assert!(bucket == 0 || upper_bound(bucket - 1) <= value, "{value} in {bucket}");
            assert!((upper_bound(bucket) - value) as f64 <= (value as f64 / 16.0).max(1.0), "{value}");
            assert!(bucket >= last || value < 4096);
            last = bucket.max(last);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_was_counted_is_read_on_another_host_and_looks_can_be_compared() {
        let pool = SharedMemory::new(64 << 10, 2, Whim::LAZY, 1);
        let (ours, theirs) = (pool.host(0), pool.host(1));
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 1000, 1));
        histogram.write(&ours, 1024);
        ours.store_fence();
        let first = Distribution::read(&theirs, 1024);
        assert_eq!((first.count(), first.sum(), first.max()), (1000, 500_500_000, 1_000_000));
        for (part, expected) in [(0.5, 500_000), (0.99, 990_000), (0.999, 999_000)] {
            let found = first.quantile(part).unwrap();
            assert!(found >= expected && found <= expected + expected / 16 + 1, "{part}: {found}");
        }
        assert_eq!(first.quantile(1.0), Some(1_000_000));
        histogram.record(5, 3);
        histogram.write(&ours, 1024);
        ours.store_fence();
        let second = Distribution::read(&theirs, 1024);
        let since = second.since(&first);
        assert_eq!((since.count(), since.quantile(1.0), since.sum(), since.max()), (3, Some(5), 15, 5));
        assert_eq!(second.max(), 1_000_000, "of all there ever was");
        assert_eq!(Distribution::default().quantile(0.5), None);
        let mut both = first.clone();
        both.add(&since);
        assert_eq!((both.count(), both.count_below(16), both.count_below(1 << 20)), (1003, 3, 1003));
        assert_eq!((both.count_below(5), both.count_below(6)), (0, 3), "what is below a bound is not at it");
    }

    #[test]
    fn of_few_values_the_middle_one_is_in_the_middle() {
        let (pool, mut histogram) = (SharedMemory::new(64 << 10, 1, Whim::NONE, 1).host(0), Histogram::default());
        [3, 7, 9].into_iter().for_each(|value| histogram.record(value, 1));
        histogram.write(&pool, 1024);
        let found = Distribution::read(&pool, 1024);
        let at = |part| found.quantile(part).unwrap();
        assert_eq!([at(0.0), at(0.3), at(0.5), at(0.7), at(1.0)], [3, 3, 7, 9, 9]);
    }

    /// A process that comes after another counts from nothing, and whoever compares looks before and after takes nothing for less than nothing.
    #[test]
    fn what_the_last_process_counted_is_not_taken_for_ones_own() {
        let pool = SharedMemory::new(64 << 10, 1, Whim::NONE, 1).host(0);
        let mut last = Histogram::default();
        (1..=100).for_each(|value| last.record(value * 1000, 1));
        last.write(&pool, 1024);
        let before = Distribution::read(&pool, 1024);
        let mut next = Histogram::default();
        next.record(7, 2);
        next.write(&pool, 1024);
        let now = Distribution::read(&pool, 1024);
        assert_eq!((now.count(), now.sum(), now.max()), (2, 14, 7));
        assert_eq!(now.since(&before), now);
        Histogram::default().write(&pool, 1024);
        assert_eq!(Distribution::read(&pool, 1024), Distribution::default());
    }

    #[test]
    fn a_process_that_begins_anew_leaves_nothing_of_the_one_before() {
        let pool = SharedMemory::new(64 << 10, 2, Whim::LAZY, 1);
        let (ours, theirs) = (pool.host(0), pool.host(1));
        let mut last = Histogram::default();
        (1..=1000).for_each(|value| last.record(value * 1000, 1));
        last.write(&ours, 1024);
        ours.store_fence();
        let before = Distribution::read(&theirs, 1024);
        // It reports before it has counted anything.
        let mut anew = Histogram::default();
        anew.write(&ours, 1024);
        ours.store_fence();
        assert_eq!(Distribution::read(&theirs, 1024), Distribution::default());
        anew.record(5_000_000, 2);
        anew.write(&ours, 1024);
        ours.store_fence();
        let now = Distribution::read(&theirs, 1024);
        assert_eq!((now.count(), now.sum(), now.max()), (2, 10_000_000, 5_000_000));
        assert_eq!(now.since(&before), now, "none of what it counted had come before");
    }
}
