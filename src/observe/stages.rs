//! The last stage of a batch's way: a role that acks or delivers takes up when the batch was where, and counts how long the stage and the whole
//! way took.

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

/// What a role that follows the index counts of batches it has done with.
#[derive(Debug)]
pub struct LastStage<M> {
    timeline: TimelineReader<M>,
    memory: M,
    places: Places,
    /// Done with in this pass.
    batches: Vec<SlowBatch>,
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
    /// With room for so many batches of a pass; what is more is not counted.
    pub fn new(memory: &M, layout: &Arc<Layout>, places: Places, batches_max: usize) -> Self {
        LastStage {
            timeline: TimelineReader::new(memory, layout),
            memory: memory.clone(),
            places,
            batches: Vec::with_capacity(batches_max),
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

    /// A batch whose way ends in this pass.
    #[inline]
    pub fn take(&mut self, batch: SlowBatch) {
        if batch.position >= self.from && self.batches.len() < self.batches.capacity() {
            self.batches.push(batch);
        }
    }

    /// Whether any did.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Now they are acked or delivered.
    pub fn done(&mut self, now_utc_ns: u64) {
        for batch in self.batches.drain(..) {
            let Some(times) = self.timeline.read(self.candidate, self.access, batch.position) else { continue };
            let batch = SlowBatch { ending_ns: between(times.committed_at(), now_utc_ns), ..batch.with_times(&times) };
            self.stage.record(batch.ending_ns.into(), 1);
            self.whole.record(batch.whole_ns(), 1);
            self.slowest.offer(&batch);
        }
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
