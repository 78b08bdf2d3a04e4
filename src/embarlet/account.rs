//! What a process says of itself in the pool: where the time of its threads goes, and its distinct errors. Housekeeping writes it, once a second, so
//! that no role does.

use std::sync::Arc;

use crate::log::View;
use crate::observe::counters::ThreadCounters;
use crate::observe::errors::DistinctErrors;
use crate::observe::threads;
use crate::pool::Memory;
use crate::runtime::cpu::times_of_task;
use crate::runtime::idle::IdlePolicy;
use crate::runtime::{ThreadPlan, Ticks};
use crate::utc::utc_ns;

/// A thread to be told of.
pub(super) struct Accounted {
    plan: ThreadPlan,
    ticks: Arc<Ticks>,
}

impl Accounted {
    pub(super) fn new(plan: &ThreadPlan, ticks: &Arc<Ticks>) -> Accounted {
        Accounted { plan: plan.clone(), ticks: ticks.clone() }
    }

    fn counters(&self) -> ThreadCounters {
        let ticks = self.ticks.read();
        let (ran_ns, core_wait_ns) = self.ticks.task().and_then(times_of_task).unwrap_or_default();
        let [blocked_ring_ns, blocked_memory_ns, blocked_index_ns, blocked_peers_ns] = ticks.blocked_ns;
        let [receive_ns, sequence_ns, ack_ns, export_ns] = ticks.role_ns;
        ThreadCounters {
            reported_at: utc_ns(),
            pinned_core: self.plan.core.map_or(0, |core| core as u64 + 1),
            spins: u64::from(self.plan.idle == IdlePolicy::Spin),
            working_ns: ticks.working_ns,
            blocked_ring_ns,
            blocked_memory_ns,
            blocked_index_ns,
            blocked_peers_ns,
            idle_ns: ticks.idle_ns,
            asleep_ns: ticks.asleep_ns,
            housekeeping_ns: ticks.housekeeping_ns,
            passes: ticks.passes,
            sleeps: ticks.sleeps,
            moved: ticks.moved,
            longest_pass_ns: ticks.longest_pass_ns,
            receive_ns,
            sequence_ns,
            ack_ns,
            export_ns,
            ran_ns,
            core_wait_ns,
        }
    }
}

/// See the head of the file.
pub(super) struct Account<M> {
    view: View<M>,
    /// The places of this process's brokers: it writes there alone.
    places: Vec<u32>,
    threads: Vec<Accounted>,
    errors: DistinctErrors,
}

impl<M: Memory> Account<M> {
    /// Begins where the last processes in these places have ended. The caller holds the places' locks.
    pub(super) fn begin(view: &View<M>, places: &[u32], threads: Vec<Accounted>) -> Self {
        for place in places {
            threads::begin(&view.memory, &view.layout, *place);
            DistinctErrors::begin(&view.memory, &view.layout, *place);
        }
        Account { view: view.clone(), places: places.to_vec(), threads, errors: DistinctErrors::default() }
    }

    /// Says how things are now.
    pub(super) fn write(&mut self) {
        let View { memory, layout, .. } = &self.view;
        // Of more threads than there is room for the last are not told of: a process with so many has lanes by the dozen.
        for (thread, at) in self.threads.iter().zip(threads::blocks(layout, &self.places)) {
            threads::write(memory, at, &thread.plan.name, &thread.counters());
        }
        self.errors.take_up();
        if let Some(first) = self.places.first() {
            self.errors.write(memory, layout, *first);
        }
    }
}
