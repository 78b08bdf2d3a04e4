//! The last stage of a batch's way: a role that acks or delivers takes up when the batch was where, and counts how long the stage and the whole
//! way took.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::observe::histogram::Histogram;
use crate::observe::slowest::{SlowBatch, Slowest};
use crate::observe::timeline::{TimelineReader, between};
use crate::pool::{Access, Layout, Memory};

/// Where a role's findings lie in the pool.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Histograms: from committed on, and from landed on.
    pub histograms: [u64; 2],
    /// The slowest batches.
    pub slowest: u64,
}

impl Places {
    /// Those of a broker's ack core.
    pub fn of_acks(layout: &Layout, broker: u32) -> Places {
        Places { histograms: layout.ack_histograms(broker), slowest: layout.slowest_acked(broker) }
    }
    /// Those of a broker's exporter.
    pub fn of_deliveries(layout: &Layout, broker: u32) -> Places {
        Places { histograms: layout.deliver_histograms(broker), slowest: layout.slowest_delivered(broker) }
    }
}

/// Looks at which the times of a batch may not be there yet before they are given up: the sequencer notes them in its next pass.
const LOOKS_MAX: u32 = 64;

/// What a role that follows the index counts of batches it has done with.
///
/// While a batch is acked or delivered it is only put down. What is made of that comes in the role's next pass, when nobody waits for it; and
/// when that begins, what the role asked its io for in the pass before has been asked for: that is when the batch's way ended.
#[derive(Debug)]
pub struct LastStage<M> {
    timeline: TimelineReader<M>,
    memory: M,
    places: Places,
    /// Put down, with when their way ended, UTC ns; 0: it has not yet.
    batches: VecDeque<(SlowBatch, u64)>,
    batches_max: usize,
    /// How often in a row the times of the first of them were not there.
    looks: u32,
    stage: Histogram,
    whole: Histogram,
    slowest: Slowest,
    /// Who commits, and below which positions nothing has times any more.
    candidate: u32,
    access: Access,
    from: u64,
    places_kept: u64,
}

impl<M: Memory> LastStage<M> {
    /// With room for so many batches; what is more is not counted.
    pub fn new(memory: &M, layout: &Arc<Layout>, places: Places, batches_max: usize) -> Self {
        LastStage {
            timeline: TimelineReader::new(memory, layout),
            memory: memory.clone(),
            places,
            batches: VecDeque::with_capacity(batches_max),
            batches_max,
            looks: 0,
            stage: Histogram::default(),
            whole: Histogram::default(),
            slowest: Slowest::default(),
            candidate: 0,
            access: Access::Local,
            from: 0,
            places_kept: layout.timeline_places(),
        }
    }

    /// So far `candidate` has committed: what lies too far behind has no times any more, and whoever reads it catches up with what is old.
    pub fn committed(&mut self, candidate: u32, access: Access, watermark: u64) {
        (self.candidate, self.access) = (candidate, access);
        self.from = watermark.saturating_sub(self.places_kept);
    }

    /// A batch whose way ends now.
    #[inline]
    pub fn take(&mut self, batch: SlowBatch) {
        if batch.position >= self.from && self.batches.len() < self.batches_max {
            self.batches.push_back((batch, 0));
        }
    }

    /// A pass begins: those that were taken in the one before are acked or delivered by now, UTC ns, and are counted. Cheap if there are none.
    #[inline]
    pub fn settle(&mut self, now_utc_ns: u64) {
        if !self.batches.is_empty() {
            self.settle_all(now_utc_ns);
        }
    }

    #[inline(never)]
    fn settle_all(&mut self, now_utc_ns: u64) {
        let open = self.batches.iter_mut().rev().take_while(|(_, ended_at)| *ended_at == 0);
        open.for_each(|(_, ended_at)| *ended_at = now_utc_ns);
        while let Some((batch, ended_at)) = self.batches.front() {
            match self.timeline.read(self.candidate, self.access, batch.position) {
                Some(times) => {
                    let ending_ns = between(times.committed_at(), *ended_at);
                    let batch = SlowBatch { ending_ns, ..batch.with_times(&times) };
                    self.stage.record(ending_ns.into(), 1);
                    // Not the sum of its stages: the sequencer's clock, which some of them are taken by, may be another host's.
                    self.whole.record(ended_at.saturating_sub(times.landed_at()), 1);
                    self.slowest.offer(&batch);
                }
                None if self.looks < LOOKS_MAX && !self.is_passed(batch.position) => {
                    self.looks += 1;
                    return;
                }
                // The place is another's by now, or its sequencer is no more.
                None => {}
            }
            self.looks = 0;
            self.batches.pop_front();
        }
    }

    /// Notes come in their order: one that is not there while that of a later batch is comes no more.
    fn is_passed(&self, missing: u64) -> bool {
        let last = self.batches.back().map(|(batch, _)| batch.position).filter(|last| *last > missing);
        last.is_some_and(|position| self.timeline.read(self.candidate, self.access, position).is_some())
    }

    /// Copies out what was counted.
    pub fn write(&mut self, monotonic_ns: u64) {
        let [stage, whole] = self.places.histograms;
        self.stage.write(&self.memory, stage);
        self.whole.write(&self.memory, whole);
        self.slowest.write(&self.memory, self.places.slowest, monotonic_ns);
        self.memory.store_fence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::View;
    use crate::log::views::plain_view;
    use crate::observe::histogram::Distribution;
    use crate::observe::slowest;
    use crate::observe::timeline::{TimelineWriter, Times};
    use crate::testing::memory::HostMemory;

    const BROKER: u32 = 1;
    const BATCHES_MAX: usize = 4;

    /// Published at 10,000: it landed 100 before that, and was ordered 20 and committed 23 after it.
    const TIMES: Times = Times { published_at: 10_000, landing_ns: 100, ordering_ns: 20, committing_ns: 3 };

    struct Scene {
        view: View<HostMemory>,
        timeline: TimelineWriter<HostMemory>,
        stage: LastStage<HostMemory>,
    }

    impl Scene {
        /// Candidate 1 commits, and has committed all below `watermark`.
        fn new(watermark: u64) -> Scene {
            let view = plain_view(2);
            let places = Places::of_deliveries(&view.layout, BROKER);
            let mut stage = LastStage::new(&view.memory, &view.layout, places, BATCHES_MAX);
            stage.committed(1, Access::Local, watermark);
            Scene { timeline: TimelineWriter::new(&view.memory, &view.layout, 1), stage, view }
        }

        fn take(&mut self, position: u64) {
            self.stage.take(SlowBatch { position, session: 5, ..SlowBatch::default() });
        }

        /// Times of the stage, and of the whole way.
        fn counted(&mut self) -> [Distribution; 2] {
            self.stage.write(1);
            let [stage, whole] = self.view.layout.deliver_histograms(BROKER);
            [stage, whole].map(|at| Distribution::read(&self.view.memory, at))
        }

        fn counts(&mut self) -> u64 {
            self.counted()[0].count()
        }
    }

    #[test]
    fn a_stage_begins_at_the_commit_and_ends_when_the_next_pass_begins() {
        let mut scene = Scene::new(10);
        scene.timeline.note(9, &TIMES);
        scene.take(9);
        assert_eq!(scene.counts(), 0, "it is only put down");
        scene.stage.settle(10_123);
        let [stage, whole] = scene.counted();
        assert_eq!((stage.count(), stage.sum(), stage.max()), (1, 100, 100));
        assert_eq!((whole.count(), whole.sum(), whole.max()), (1, 223, 223));
        let found = slowest::read(&scene.view.memory, scene.view.layout.slowest_delivered(BROKER));
        let expected = SlowBatch { position: 9, session: 5, ending_ns: 100, ..SlowBatch::default() }.with_times(&TIMES);
        assert_eq!(found, [expected]);
        assert_eq!(slowest::read(&scene.view.memory, scene.view.layout.slowest_acked(BROKER)), []);
        let acks = Places::of_acks(&scene.view.layout, BROKER);
        assert_eq!(acks.histograms, scene.view.layout.ack_histograms(BROKER));
        assert_eq!(acks.slowest, scene.view.layout.slowest_acked(BROKER));
    }

    /// A follower that is quicker than the notes: how long it waits for them is no part of a batch's way.
    #[test]
    fn a_batch_whose_times_come_later_ended_when_it_ended() {
        let mut scene = Scene::new(10);
        scene.take(8);
        scene.stage.settle(10_123);
        scene.take(9);
        scene.stage.settle(10_523);
        assert_eq!(scene.counts(), 0);
        (8..10).for_each(|position| scene.timeline.note(position, &TIMES));
        scene.stage.settle(90_000);
        let [stage, _] = scene.counted();
        assert_eq!((stage.count(), stage.sum(), stage.max()), (2, 600, 500));
    }

    #[test]
    fn who_never_has_times_is_given_up_and_holds_up_nobody_for_ever() {
        let mut scene = Scene::new(10);
        for position in [7, 8] {
            scene.take(position);
        }
        (0..LOOKS_MAX).for_each(|pass| scene.stage.settle(10_023 + u64::from(pass)));
        assert_eq!((scene.counts(), scene.stage.batches.len()), (0, 2), "each has its looks");
        scene.stage.settle(20_000);
        (1..LOOKS_MAX).for_each(|_| scene.stage.settle(20_000));
        assert_eq!((scene.counts(), scene.stage.batches.len()), (0, 1), "each has its own looks");
        scene.stage.settle(20_000);
        assert_eq!((scene.counts(), scene.stage.batches.len()), (0, 0));
    }

    /// What a predecessor committed has no times of this candidate: it does not keep those waiting that have.
    #[test]
    fn who_is_passed_by_others_is_given_up_at_once() {
        let mut scene = Scene::new(10);
        scene.timeline.note(9, &TIMES);
        [7, 8, 9].into_iter().for_each(|position| scene.take(position));
        scene.stage.settle(10_023);
        assert_eq!((scene.counts(), scene.stage.batches.len()), (1, 0));
        // Another subscriber is farther behind: that says nothing of what is newer.
        [10, 9].into_iter().for_each(|position| scene.take(position));
        scene.stage.settle(10_023);
        assert_eq!((scene.counts(), scene.stage.batches.len()), (1, 2));
        scene.timeline.note(10, &TIMES);
        scene.stage.settle(10_123);
        assert_eq!((scene.counts(), scene.stage.batches.len()), (3, 0));
    }

    #[test]
    fn what_is_old_or_too_many_is_not_waited_for() {
        let places = plain_view(2).layout.timeline_places();
        let mut scene = Scene::new(places + 10);
        // Its times are still there: whoever catches up with what is old does not look for them.
        scene.timeline.note(9, &TIMES);
        scene.take(9);
        scene.timeline.note(10, &TIMES);
        scene.take(10);
        scene.stage.settle(10_100);
        assert_eq!(scene.counts(), 1, "the one that has times");
        for position in 11..100 {
            scene.take(position);
            scene.timeline.note(position, &TIMES);
        }
        scene.stage.settle(10_100);
        assert_eq!(scene.counts(), 1 + BATCHES_MAX as u64);
    }

    /// The sequencer's clock is another host's, and a second ahead or behind: how long a batch took from landed to acked is told by its broker's own.
    #[test]
    fn the_whole_way_is_measured_by_one_clock() {
        const MS: u64 = 1_000_000;
        for (ordering_ns, committing_ns) in [(1000 * MS as u32, 7), (0, 7)] {
            let view = plain_view(1);
            let places = Places::of_acks(&view.layout, 0);
            let mut last = LastStage::new(&view.memory, &view.layout, places, 4);
            let landed_at = 1 << 60;
            let times = Times { published_at: landed_at + MS, landing_ns: MS as u32, ordering_ns, committing_ns };
            TimelineWriter::new(&view.memory, &view.layout, 0).note(0, &times);
            last.committed(0, Access::Local, 1);
            last.take(SlowBatch::default());
            last.settle(landed_at + 5 * MS);
            last.write(0);
            let whole = Distribution::read(&view.memory, places.histograms[1]);
            assert_eq!((whole.count(), whole.sum()), (1, 5 * MS));
        }
    }
}
