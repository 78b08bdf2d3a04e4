//! A sequencer candidate: the role as it is, with the world's processes for locks.

use crate::roles::locks::Locks;
use crate::roles::sequence::Sequence;
use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::candidate::TakeoverSettings;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::part::Part;
use crate::sim::parts::broker::Thread;
use crate::sim::process::ProcessMemory;
use crate::sim::scenario::Scenario;

fn settings(scenario: &Scenario) -> SequencerSettings {
    SequencerSettings {
        session_lease_ns: 120_000_000,
        session_expiry_ns: scenario.session_expiry_ns,
        retention_bytes: scenario.retention_bytes,
        retention_ns: scenario.retention_ns,
        reader_stall_ns: scenario.reader_stall_ns,
        member_silence_ns: 30_000_000,
    }
}

const TAKEOVER: TakeoverSettings = TakeoverSettings { after_ns: 60_000_000, settle_ns: 3_000_000 };

/// See the head of the file.
pub(super) struct Sequencer {
    thread: Thread<Sequence<ProcessMemory, Kernel, ()>>,
}

impl Sequencer {
    pub fn new(kernel: &Kernel, candidate: u32) -> Sequencer {
        let settings = kernel.with(|state| settings(&state.scenario));
        // Its process is what holds its lock.
        let role = Sequence::new(&kernel.view(), kernel.clone(), candidate, (), settings, TAKEOVER);
        Sequencer { thread: Thread::new(kernel, role) }
    }
}

impl Locks for Kernel {
    fn is_candidate_held(&self, candidate: u32) -> bool {
        self.with(|state| state.is_held(Part::Sequencer(candidate)))
    }

    fn while_free(&self, candidate: u32, act: &mut dyn FnMut()) {
        let slot = Part::Sequencer(candidate);
        if self.with(|state| state.take_lock(slot, self.process)) {
            act();
            self.with(|state| state.drop_lock(slot));
        }
    }

    fn is_member_gone(&self, member: u32) -> bool {
        self.with(|state| {
            let part = state.scenario.part_of_member(&state.layout.geometry, member);
            part.is_none_or(|part| !state.is_held(part))
        })
    }

    fn while_member_free(&self, member: u32, act: &mut dyn FnMut()) {
        let part = self.with(|state| state.scenario.part_of_member(&state.layout.geometry, member));
        // Nobody ever has the place.
        let Some(part) = part else { return };
        if self.with(|state| state.take_lock(part, self.process)) {
            act();
            self.with(|state| state.drop_lock(part));
        }
    }
}

impl Actor for Sequencer {
    fn step(&mut self, kernel: &Kernel) {
        self.thread.step(kernel);
    }

    /// What it parked was appended, or its session fenced.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.thread.role.active().is_none_or(|sequencer| sequencer.core().held() == 0)
    }

    fn tell(&self) -> String {
        let Some(sequencer) = self.thread.role.active() else { return "not active".into() };
        let open = sequencer.core().table().sessions().iter().filter(|session| session.id != 0);
        format!("active, sessions {:?}, {:?}", open.collect::<Vec<_>>(), sequencer.counters())
    }
}
