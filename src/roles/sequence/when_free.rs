//! A candidate without a place: it waits until one of its host is free, and is what every other candidate is from then on.
//!
//! Whoever comes while all places are taken stands by for the day on which one of those that have them leaves.

use crate::log::View;
use crate::pool::region::{HostLock, LockName};
use crate::pool::{Memory, Pool};
use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::{Sequence, TakeoverSettings};
use crate::runtime::{Blocked, Io, Now, Role, RoleError, RoleKind};

/// How often it is looked for a place, ns.
const LOOK_NS: u64 = 200_000_000;

/// See the head of the file.
pub struct WhenFree<M> {
    view: View<M>,
    pool: Pool,
    settings: SequencerSettings,
    takeover: TakeoverSettings,
    sequence: Option<Sequence<M>>,
    looked_ns: u64,
}

impl<M: Memory> WhenFree<M> {
    /// Of this host.
    pub fn new(view: &View<M>, pool: Pool, settings: SequencerSettings, takeover: TakeoverSettings) -> Self {
        WhenFree { view: view.clone(), pool, settings, takeover, sequence: None, looked_ns: 0 }
    }

    fn free_place(&self) -> Option<(u32, HostLock)> {
        // What cannot be locked just now is looked at again.
        let lock = |slot| Some((slot, self.pool.try_to_lock(LockName::Candidate(slot)).ok()??));
        self.view.candidates_here().rev().find_map(lock)
    }
}

impl<M: Memory, I: Io> Role<I> for WhenFree<M> {
    fn name(&self) -> &str {
        self.sequence.as_ref().map_or("sequence", |sequence| Role::<I>::name(sequence))
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Sequence
    }

    fn start(&mut self, _io: &mut I, _index: u8, now: Now) -> Result<(), RoleError> {
        self.looked_ns = now.monotonic_ns;
        Ok(())
    }

    fn complete(&mut self, _io: &mut I, _completion: I::Completion, _now: Now) {}

    fn poll(&mut self, io: &mut I, now: Now) -> usize {
        if let Some(sequence) = &mut self.sequence {
            return sequence.poll(io, now);
        }
        if now.monotonic_ns.saturating_sub(self.looked_ns) < LOOK_NS {
            return 0;
        }
        self.looked_ns = now.monotonic_ns;
        let Some((slot, lock)) = self.free_place() else { return 0 };
        log::info!("sequence {slot}: its place is free by now: this process stands by there");
        let pool = self.pool.clone();
        self.sequence = Some(Sequence::new(&self.view, pool, slot, lock, self.settings, self.takeover));
        1
    }

    fn fault(&mut self) -> Option<RoleError> {
        self.sequence.as_mut().and_then(|sequence| Role::<I>::fault(sequence))
    }

    fn blocked(&self) -> Option<Blocked> {
        self.sequence.as_ref().and_then(|sequence| Role::<I>::blocked(sequence))
    }

    fn report(&mut self, now: Now) {
        self.sequence.iter_mut().for_each(|sequence| Role::<I>::report(sequence, now));
    }

    fn waits_for(&self) -> Option<String> {
        self.sequence.as_ref().and_then(|sequence| Role::<I>::waits_for(sequence))
    }

    fn drain(&mut self, io: &mut I, now: Now) -> bool {
        self.sequence.as_mut().is_none_or(|sequence| sequence.drain(io, now))
    }

    fn end(&mut self) {
        self.sequence.iter_mut().for_each(|sequence| Role::<I>::end(sequence));
    }
}
