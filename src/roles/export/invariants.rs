//! What holds of an exporter and each of its subscribers between two passes.

use crate::log::retention::NO_PIN;
use crate::net::{Network, Socket};
use crate::pool::Memory;
use crate::roles::export::{Export, Phase, Subscriber};

impl<M: Memory, N: Network> Export<M, N> {
    /// # Panics
    /// If something does not hold.
    pub(super) fn check_all(&self) {
        let name = &self.name;
        let taken = self.subscribers.iter().flatten().count();
        assert_eq!(taken, self.active.len(), "{name}: who has a seat is looked after");
        assert_eq!(taken + self.free.len(), self.subscribers.len(), "{name}: a seat is free or taken");
        for seat in &self.active {
            let subscriber = self.subscribers[*seat as usize].as_ref().expect("looked at by its seat");
            let (rests, is_awake) = (self.tail.rests(*seat), self.awake.contains(seat));
            assert_ne!(rests, is_awake, "{name}: a subscriber rests or is awake");
            if rests {
                let is_quiet = !subscriber.is_busy() && subscriber.lent_from == NO_PIN;
                assert!(is_quiet || subscriber.items.is_empty(), "{name}: nothing of the pool is lent for who rests");
                assert_eq!(subscriber.phase, Phase::Streaming, "{name}: who rests has a start and no end");
            }
            check(name, subscriber);
        }
        let (pinned, needed) = (self.hold.position(), self.lowest_needed());
        assert!(!self.is_waited_for || pinned <= needed, "{name}: {pinned} is pinned where {needed} is needed");
    }
}

/// What is lent is under way, and what is over is waited for.
fn check<M: Memory, S: Socket>(name: &str, subscriber: &Subscriber<M, S>) {
    let Subscriber { sending, accepted, is_zero_copy, lent_from, watching, phase, .. } = subscriber;
    assert!(accepted.is_none() || sending.is_some() && *is_zero_copy, "{name}: a send that was accepted is under way");
    let is_over = *phase == Phase::Ending;
    assert!(*lent_from == NO_PIN || is_over || subscriber.is_busy(), "{name}: what is lent is being sent");
    assert!(!is_over || sending.is_some() || watching.is_some(), "{name}: an ending waits for the kernel");
    assert!(*phase != Phase::Refusing || subscriber.is_busy(), "{name}: last words are under way");
}
