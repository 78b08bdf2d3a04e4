//! What topics are kept for: per topic how much of it is there, and up to where it may go.
//!
//! There is one floor for the pool, so what one topic may lose is lost only when every topic may: [`Targets::allowed`] is the lowest
//! position that any topic still wants. A topic without a target wants all of its data, a deleted one none. Memory that is short
//! asks nobody (`retention`).
//!
//! A topic's course is kept in marks, a bounded number of them: where one is missing, data is kept longer. It is the sequencer's own
//! memory; after a takeover the age of everything begins anew.

use std::collections::VecDeque;

use crate::pool::Geometry;
use crate::pool::record::TopicProgress;

/// Most marks of one topic; when they are all in use every second goes.
const MARKS_MAX: usize = 64;
/// Marks made while a target's worth of bytes or of time passes.
const MARKS_PER_TARGET: u64 = 8;
/// Marks made of a topic without a target while it fills the pool: what is said to be kept of it is right to so small a part.
const MARKS_PER_POOL: u64 = 32;
/// Time between two looks at what may go, ns.
const LOOK_NS: u64 = 10_000_000;

/// How much of a topic is kept; 0: no target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Bytes of batches.
    pub bytes: u64,
    /// Age, ns.
    pub ns: u64,
}

/// How far a topic had come when the index stood at a position.
#[derive(Clone, Copy, Debug)]
struct Mark {
    position: u64,
    ns: u64,
    bytes: u64,
    next_order: u64,
}

#[derive(Debug)]
struct Course {
    target: Target,
    bytes: u64,
    next_order: u64,
    /// Of its last batch.
    last_position: u64,
    last_ns: u64,
    /// Nothing below this is kept.
    earliest_order: u64,
    earliest_bytes: u64,
    /// Bytes that went although they were wanted, ever, and as of the last time that was told.
    taken_bytes: u64,
    told_bytes: u64,
    /// Oldest first.
    marks: VecDeque<Mark>,
    is_active: bool,
}

/// The sequencer's account of what each topic wants to be kept.
///
/// Call order: [`Self::begin`] for each topic before anything is counted of it, [`Self::count`] for each batch in the order of the index, [`Self::look`] after each
/// commit; then [`Self::allowed`] is as far as everything may go, and [`Self::give_up`] is told how far it went. [`Self::forget`] ends a topic; its number may
/// begin again. [`Self::progress`] only tells. Nothing here fails, and nothing touches the pool.
#[derive(Debug)]
pub struct Targets {
    /// By id.
    topics: Vec<Option<Box<Course>>>,
    /// Topics with batches since the last look.
    active: Vec<u32>,
    floor: u64,
    /// Spacing of marks of topics without a target, bytes.
    every_bytes: u64,
    now_ns: u64,
    watermark: u64,
    /// 0: look at once.
    looked_ns: u64,
    allowed: u64,
    /// A topic with a target was marked, or one was deleted: a step that ends here is of use.
    wants_step: bool,
}

impl Course {
    fn holds_data(&self, floor: u64) -> bool {
        self.bytes > self.earliest_bytes && self.last_position >= floor
    }

    fn is_past(&self, mark: &Mark, now_ns: u64) -> bool {
        let Target { bytes, ns } = self.target;
        bytes > 0 && self.bytes - mark.bytes >= bytes || ns > 0 && now_ns.saturating_sub(mark.ns) >= ns
    }

    /// Lowest position it still wants.
    fn wants(&self, floor: u64, now_ns: u64) -> u64 {
        match self.holds_data(floor) {
            true => self.wanted(now_ns).map_or(u64::MAX, |first| first.map_or(floor, |mark| mark.position)),
            false => u64::MAX,
        }
    }

    /// From where on it wants what it holds; `Some(None)`: all. `None`: it wants nothing of it.
    fn wanted(&self, now_ns: u64) -> Option<Option<&Mark>> {
        let is_over = self.target.ns > 0 && now_ns.saturating_sub(self.last_ns) >= self.target.ns;
        // A mark before one that is past is past too.
        let past = || {
            self.marks.partition_point(|mark| self.is_past(mark, now_ns)).checked_sub(1).map(|last| &self.marks[last])
        };
        // Without one: from its first batch on, which is not below the last mark that the floor has passed.
        (!is_over).then(|| past().or(self.marks.front()))
    }

    fn is_mark_due(&self, now_ns: u64, every_bytes: u64) -> bool {
        let Target { bytes, ns } = self.target;
        let Some(last) = self.marks.back() else { return true };
        let spacing = if bytes > 0 { bytes / MARKS_PER_TARGET } else { every_bytes };
        self.bytes - last.bytes >= spacing.max(1)
            || ns > 0 && now_ns.saturating_sub(last.ns) >= (ns / MARKS_PER_TARGET).max(LOOK_NS)
    }

    fn mark(&mut self, mark: Mark) {
        if self.marks.len() == MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.marks.push_back(mark);
    }

    /// The floor moves to `floor`.
    fn give_up(&mut self, floor: u64, now_ns: u64) {
        let wanted = match self.target == Target::default() {
            true => None,
            false => self.wanted(now_ns).map(|first| first.map_or(0, |mark| mark.bytes).max(self.earliest_bytes)),
        };
        self.let_go(floor);
        self.taken_bytes += wanted.map_or(0, |from| self.earliest_bytes.saturating_sub(from));
    }

    fn let_go(&mut self, floor: u64) {
        while self.marks.get(1).is_some_and(|mark| mark.position <= floor) {
            self.marks.pop_front();
        }
        if self.last_position < floor {
            (self.earliest_order, self.earliest_bytes) = (self.next_order, self.bytes);
        } else if let Some(mark) = self.marks.front().filter(|mark| mark.position <= floor) {
            // A takeover knows of what was given up before it.
            self.earliest_order = self.earliest_order.max(mark.next_order);
            self.earliest_bytes = self.earliest_bytes.max(mark.bytes);
        }
    }
}

impl Targets {
    /// Of no topic yet.
    pub fn new(geometry: &Geometry, floor: u64) -> Targets {
        let g = geometry;
        let payload = g.extent_bytes * u64::from(g.extents);
        Targets {
            topics: (0..g.topics_max).map(|_| None).collect(),
            active: Vec::with_capacity(g.topics_max as usize),
            floor,
            every_bytes: payload / MARKS_PER_POOL,
            now_ns: 0,
            watermark: floor,
            looked_ns: 0,
            allowed: 0,
            wants_step: false,
        }
    }

    /// Begins with a topic: one just created at `position`, or taken over when the index stood there.
    pub fn begin(&mut self, topic: u32, target: Target, progress: &TopicProgress, position: u64) {
        let mut course = Box::new(Course {
            target,
            bytes: progress.bytes,
            next_order: progress.next_order,
            last_position: position,
            last_ns: self.now_ns,
            earliest_order: progress.earliest_order,
            earliest_bytes: progress.earliest_bytes.min(progress.bytes),
            taken_bytes: progress.taken_bytes,
            told_bytes: progress.taken_bytes,
            marks: VecDeque::with_capacity(MARKS_MAX),
            is_active: false,
        });
        let (ns, next_order) = (self.now_ns, progress.earliest_order);
        // Where its data begins.
        let (start, bytes) = if progress.bytes == 0 { (position, 0) } else { (self.floor, course.earliest_bytes) };
        course.mark(Mark { position: start, ns, bytes, next_order });
        if progress.bytes > 0 {
            course.mark(Mark { position, ns, bytes: progress.bytes, next_order: progress.next_order });
        }
        self.topics[topic as usize] = Some(course);
        self.looked_ns = 0;
    }

    /// Forgets a topic that was deleted: nothing is kept for its sake.
    pub fn forget(&mut self, topic: u32) {
        self.topics[topic as usize] = None;
        (self.looked_ns, self.wants_step) = (0, true);
    }

    /// Counts a batch appended at `position`.
    #[inline]
    pub fn count(&mut self, topic: u32, bytes: u64, position: u64, end_order: u64) {
        let Some(course) = &mut self.topics[topic as usize] else { return };
        (course.bytes, course.next_order) = (course.bytes + bytes, end_order);
        course.last_position = position;
        if !std::mem::replace(&mut course.is_active, true) {
            self.active.push(topic);
        }
    }

    /// Notes what time it is, and how far topics have come where the index is committed up to `watermark`. True if memory can be
    /// given back in a step that ends there.
    pub fn look(&mut self, watermark: u64, now_ns: u64) -> bool {
        let before_ns = self.now_ns;
        (self.now_ns, self.watermark) = (now_ns.max(before_ns), watermark);
        if before_ns == 0 {
            // Taken over before the first pass: the age of everything begins now.
            for course in self.topics.iter_mut().flatten() {
                course.last_ns = now_ns;
                course.marks.iter_mut().for_each(|mark| mark.ns = now_ns);
            }
        }
        while let Some(topic) = self.active.pop() {
            let Some(course) = &mut self.topics[topic as usize] else { continue };
            (course.is_active, course.last_ns) = (false, now_ns);
            if course.is_mark_due(now_ns, self.every_bytes) {
                let (bytes, next_order) = (course.bytes, course.next_order);
                course.mark(Mark { position: watermark, ns: now_ns, bytes, next_order });
                self.wants_step |= course.target != Target::default();
            }
        }
        std::mem::take(&mut self.wants_step)
    }

    /// Lowest position that any topic still wants. Looked for now and then only.
    pub fn allowed(&mut self) -> u64 {
        if self.looked_ns == 0 || self.now_ns - self.looked_ns >= LOOK_NS {
            self.looked_ns = self.now_ns;
            let wants = self.topics.iter().flatten().map(|course| course.wants(self.floor, self.now_ns));
            // Whether somebody wants what comes later is not known yet.
            self.allowed = wants.min().unwrap_or(u64::MAX).min(self.watermark);
        }
        self.allowed
    }

    /// The floor moved.
    pub fn give_up(&mut self, floor: u64) {
        self.floor = floor;
        self.topics.iter_mut().flatten().for_each(|course| course.give_up(floor, self.now_ns));
    }

    /// A topic of which something went although it was wanted, and how many bytes of it ever did; each is told of once, and again when that has doubled.
    pub fn take_shortened(&mut self) -> Option<(u32, u64)> {
        let is_news = |course: &Course| course.taken_bytes > 2 * course.told_bytes;
        let mut topics = (0..).zip(&mut self.topics).filter_map(|(id, course)| Some((id, course.as_mut()?)));
        let (id, course) = topics.find(|(_, course)| is_news(course))?;
        course.told_bytes = course.taken_bytes;
        Some((id, course.taken_bytes))
    }

    /// A topic's progress for its line in the table.
    pub fn progress(&self, topic: u32, position: u64) -> TopicProgress {
        let Some(course) = &self.topics[topic as usize] else { return TopicProgress::default() };
        TopicProgress {
            next_order: course.next_order,
            position,
            bytes: course.bytes,
            earliest_order: course.earliest_order,
            earliest_bytes: course.earliest_bytes,
            taken_bytes: course.taken_bytes,
            ..TopicProgress::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Layout;
    use crate::testing::memory::small_geometry;

    const NONE: Target = Target { bytes: 0, ns: 0 };
    const MS: u64 = 1_000_000;

    fn targets(all: &[Target]) -> Targets {
        let geometry = Layout::new(small_geometry(1)).unwrap().geometry;
        let mut targets = Targets::new(&geometry, 0);
        (0..).zip(all).for_each(|(topic, target)| targets.begin(topic, *target, &TopicProgress::default(), 0));
        targets
    }

    /// A batch of each topic that has bytes, at `position`; then the look after the commit, at time `position`, ms.
    fn step(targets: &mut Targets, position: u64, bytes: &[u64]) {
        for (topic, bytes) in (0..).zip(bytes).filter(|(_, bytes)| **bytes > 0) {
            let end_order = targets.progress(topic, 0).next_order + 1;
            targets.count(topic, *bytes, position, end_order);
        }
        targets.look(position + 1, position * MS);
    }

    /// After some time, so that it looks again.
    fn allowed_at(targets: &mut Targets, ms: u64) -> u64 {
        targets.look(u64::MAX, ms * MS);
        targets.looked_ns = 0;
        targets.allowed()
    }

    #[test]
    fn a_topic_without_a_target_wants_all_of_its_data() {
        let mut targets = targets(&[NONE, Target { bytes: 100, ns: 0 }]);
        (1..50).for_each(|position| step(&mut targets, position, &[0, 100]));
        assert!(allowed_at(&mut targets, 50) >= 45, "the topic without a target is empty");
        step(&mut targets, 50, &[1, 0]);
        assert_eq!(allowed_at(&mut targets, 51), 0, "its one batch lies behind position 0");
        targets.give_up(20);
        assert!(allowed_at(&mut targets, 52) <= 20, "and is not below 20");
        targets.forget(0);
        assert!(allowed_at(&mut targets, 53) >= 45, "nobody wants what was a deleted topic's");
        targets.forget(1);
        assert_eq!(allowed_at(&mut targets, 54), u64::MAX);
    }

    /// What goes because memory is short, not because it is old, is counted and told; a topic without a target was promised nothing.
    #[test]
    fn what_memory_took_is_told() {
        let mut targets = targets(&[Target { bytes: 800, ns: 0 }, NONE]);
        (1..=40).for_each(|position| step(&mut targets, position, &[100, 100]));
        targets.give_up(20);
        assert_eq!(targets.take_shortened(), None, "its retention was over");
        targets.give_up(37);
        let (topic, bytes) = targets.take_shortened().expect("some of the last 800 bytes went");
        assert!(topic == 0 && (300..=600).contains(&bytes), "{bytes} of topic {topic}");
        assert_eq!(targets.take_shortened(), None, "it was told");
        targets.give_up(50);
        assert!((700..=900).contains(&targets.progress(0, 0).taken_bytes), "{:?}", targets.progress(0, 0));
        assert_eq!(targets.progress(1, 0).taken_bytes, 0);
    }

    /// Whatever the batches are, as much as the target is always wanted, and not much more.
    #[test]
    fn as_many_bytes_as_the_target_are_kept() {
        let mut targets = targets(&[Target { bytes: 8000, ns: 0 }]);
        let (mut ends, mut total, mut random) = (vec![0], 0, crate::testing::random::Random::new(1));
        for position in 1..2000 {
            let bytes = 1 + random.below(500);
            total += bytes;
            ends.push(total);
            step(&mut targets, position, &[bytes]);
            let allowed = allowed_at(&mut targets, position);
            // Positions below `allowed` may go: batches up to there.
            let kept = total - ends[allowed.saturating_sub(1) as usize];
            assert!(kept >= 8000.min(total), "position {position}: {kept} of {total} kept");
            assert!(kept <= 8000 + 8000 / MARKS_PER_TARGET + 1000, "position {position}: {kept} kept");
            if position % 7 == 0 && allowed > 0 {
                targets.give_up(allowed);
                let progress = targets.progress(0, position);
                assert!(
                    progress.bytes - progress.earliest_bytes >= kept,
                    "what is told is not less than what is there"
                );
                assert!(progress.earliest_order < allowed);
            }
        }
    }

    #[test]
    fn messages_are_kept_for_their_age_and_go_when_they_are_older_even_if_nothing_follows() {
        let mut targets = targets(&[Target { bytes: 0, ns: 800 * MS }]);
        for position in 1..=1000 {
            step(&mut targets, position, &[10]);
            let allowed = allowed_at(&mut targets, position);
            // A batch of time t has position t.
            assert!(allowed <= (position + 1).saturating_sub(800).max(1), "time {position}: {allowed}");
            assert!(allowed + 920 >= position, "time {position}: {allowed}");
        }
        assert!(allowed_at(&mut targets, 1799) < 1001);
        assert_eq!(allowed_at(&mut targets, 1800), u64::MAX);
        targets.give_up(1001);
        let progress = targets.progress(0, 9);
        assert_eq!((progress.earliest_order, progress.earliest_bytes), (1000, progress.bytes));
    }

    /// The age of what was taken over begins with the first pass.
    #[test]
    fn what_is_taken_over_is_kept_for_a_whole_age() {
        let progress = TopicProgress {
            bytes: 900,
            next_order: 9,
            earliest_order: 4,
            earliest_bytes: 400,
            ..TopicProgress::default()
        };
        let mut targets = targets(&[]);
        targets.begin(0, Target { bytes: 0, ns: 100 * MS }, &progress, 50);
        let kept = targets.progress(0, 0);
        assert_eq!(kept.bytes - kept.earliest_bytes, 500);
        assert_eq!(allowed_at(&mut targets, 5000), 0);
        assert!(allowed_at(&mut targets, 5099) < 50);
        assert_eq!(allowed_at(&mut targets, 5100), u64::MAX);
        targets.give_up(30);
        assert_eq!(targets.progress(0, 0).earliest_order, 4, "of the step before the takeover nothing is known");
        targets.give_up(51);
        assert_eq!(targets.progress(0, 0).earliest_order, 9);
    }

    /// It looks now and then only: what has come since is not given up by what was seen before.
    #[test]
    fn what_came_after_the_last_look_is_wanted() {
        let mut targets = targets(&[NONE]);
        targets.look(7, MS);
        assert_eq!(targets.allowed(), 7, "the topic is empty");
        step(&mut targets, 7, &[10]);
        assert_eq!(targets.allowed(), 7);
        assert_eq!(allowed_at(&mut targets, 100), 0);
    }

    #[test]
    fn marks_are_bounded() {
        let mut targets = targets(&[Target { bytes: 8, ns: 0 }, NONE]);
        (1..10_000).for_each(|position| step(&mut targets, position, &[1 << 20, 1 << 20]));
        assert!(targets.topics.iter().flatten().all(|course| course.marks.len() <= MARKS_MAX));
        assert_eq!(targets.progress(0, 0).bytes, 9_999 << 20);
    }
}
