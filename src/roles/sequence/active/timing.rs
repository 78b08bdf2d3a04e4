//! When batches were published, ordered and committed: counted, and noted beside the index for whoever ends their way.

use crate::log::View;
use crate::observe::histogram::Histogram;
use crate::observe::timeline::{TimelineWriter, Times, between};
use crate::order::Arrival;
use crate::pool::Memory;

/// Batches of one pass whose times are kept: what a pass takes from the lanes, and what it frees that was parked. What is more is not counted.
const BATCHES_MAX: usize = 4096;

/// A batch that was appended in this pass.
struct Appended {
    position: u64,
    published_at: u64,
    landing_ns: u32,
}

/// See the head of the file.
pub(super) struct Timing<M> {
    memory: M,
    timeline: TimelineWriter<M>,
    histograms: [u64; 2],
    appended: Vec<Appended>,
    /// When they were ordered and committed, UTC ns; 0: they are not yet, or nobody measures.
    ordered_at: u64,
    committed_at: u64,
    ordering: Histogram,
    committing: Histogram,
}

impl<M: Memory> Timing<M> {
    pub(super) fn new(view: &View<M>, candidate: u32) -> Self {
        let mut timing = Timing {
            memory: view.memory.clone(),
            timeline: TimelineWriter::new(&view.memory, &view.layout, candidate),
            histograms: view.layout.sequencer_histograms(candidate),
            appended: Vec::with_capacity(BATCHES_MAX),
            ordered_at: 0,
            committed_at: 0,
            ordering: Histogram::default(),
            committing: Histogram::default(),
        };
        // Whoever looks takes all that stands there for what this epoch counted: what a former life of this candidate counted goes first.
        timing.write();
        timing
    }

    /// A batch got its place.
    #[inline]
    pub(super) fn take(&mut self, position: u64, arrival: &Arrival) {
        if self.appended.len() < BATCHES_MAX {
            let Arrival { received_at: published_at, landing_ns, .. } = *arrival;
            self.appended.push(Appended { position, published_at, landing_ns });
        }
    }

    /// What was appended is committed. Both times UTC, ns; 0: nobody measures.
    #[inline]
    pub(super) fn committed(&mut self, ordered_at: u64, committed_at: u64) {
        (self.ordered_at, self.committed_at) = (ordered_at, committed_at);
    }

    /// Notes what was committed in the pass before: nobody waits for it any more.
    #[inline]
    pub(super) fn settle(&mut self) {
        if !self.appended.is_empty() {
            self.settle_all();
        }
    }

    #[inline(never)]
    fn settle_all(&mut self) {
        let (ordered_at, committing_ns) = (self.ordered_at, between(self.ordered_at, self.committed_at));
        for batch in self.appended.drain(..).filter(|_| ordered_at > 0) {
            let Appended { position, published_at, landing_ns } = batch;
            let ordering_ns = between(published_at, ordered_at);
            self.timeline.note(position, &Times { published_at, landing_ns, ordering_ns, committing_ns });
            self.ordering.record(ordering_ns.into(), 1);
            self.committing.record(committing_ns.into(), 1);
        }
    }

    /// Copies out what was counted.
    pub(super) fn write(&mut self) {
        self.settle();
        let [ordering, committing] = self.histograms;
        self.ordering.write(&self.memory, ordering);
        self.committing.write(&self.memory, committing);
        self.memory.store_fence();
    }
}
