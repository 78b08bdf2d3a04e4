//! A sequencer candidate.

use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::candidate::{Candidate, TakeoverSettings};
use crate::sim::checker::Checker;
use crate::sim::process::ProcessMemory;
use crate::sim::world::{Actor, Kernel};

const SETTINGS: SequencerSettings =
    SequencerSettings { session_lease_ns: 120_000_000, session_expiry_ns: 5_000_000_000, retention_bytes: 0 };
const TAKEOVER: TakeoverSettings = TakeoverSettings { after_ns: 60_000_000, settle_ns: 3_000_000 };

/// See the head of the file.
pub(super) struct Sequencer {
    candidate: Candidate<ProcessMemory>,
}

impl Sequencer {
    pub fn new(kernel: &Kernel, candidate: u32) -> Sequencer {
        Sequencer { candidate: Candidate::new(&kernel.view(), candidate, SETTINGS, TAKEOVER) }
    }
}

impl Actor for Sequencer {
    fn step(&mut self, kernel: &Kernel) {
        self.candidate.step(kernel.now_ns(), |candidate| kernel.is_held(candidate));
    }

    /// What it parked was appended, or its session fenced.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.candidate.active().is_none_or(|sequencer| sequencer.core().held() == 0)
    }
}
