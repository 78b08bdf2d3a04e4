//! The locks of a host: who of its processes lives, and acting in the place of one that does not.

use crate::pool::Pool;
use crate::pool::region::LockName;

/// See the head of the file.
pub trait Locks {
    /// Whether a process holds a candidate's slot. When in doubt it does: claiming is never urgent.
    fn is_candidate_held(&self, candidate: u32) -> bool;
    /// Runs `act` while holding a candidate's slot, if nobody else does.
    fn while_free(&self, candidate: u32, act: &mut dyn FnMut());
    /// Whether no process serves as a broker or has an attached place. When in doubt one does.
    fn is_member_gone(&self, member: u32) -> bool;
    /// Runs `act` while holding a member's lock, if nobody else does.
    fn while_member_free(&self, member: u32, act: &mut dyn FnMut());
}

impl Locks for Pool {
    fn is_candidate_held(&self, candidate: u32) -> bool {
        self.is_locked(LockName::Candidate(candidate)).unwrap_or(true)
    }

    fn while_free(&self, candidate: u32, act: &mut dyn FnMut()) {
        if let Ok(Some(_lock)) = self.try_to_lock(LockName::Candidate(candidate)) {
            act();
        }
    }

    fn is_member_gone(&self, member: u32) -> bool {
        self.is_locked(self.member_lock(member)).is_ok_and(|locked| !locked)
    }

    fn while_member_free(&self, member: u32, act: &mut dyn FnMut()) {
        if let Ok(Some(_lock)) = self.try_to_lock(self.member_lock(member)) {
            act();
        }
    }
}
