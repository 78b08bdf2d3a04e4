//! A thread that drives many clients: connects them, waits for the gate, gives each its turn, and sleeps when none has anything to
//! do.

use std::time::{Duration, Instant};

use embarcadero::net::readiness::Readiness;

use crate::board::Board;

/// What a client did.
pub enum Step {
    /// Something.
    Moved,
    /// Nothing, and it has nothing to do before this time unless a socket becomes ready.
    Idle(Option<Instant>),
    /// All it was to do; or the user interrupts.
    Ended,
}

/// A client at work.
pub trait Driven {
    /// What the clients of a thread share.
    type Shared;
    /// Why it ended early.
    type Failure;
    /// What is left of it.
    type Ended;
    /// Longest time in the client before looking at the flags again.
    const POLL: Duration;

    /// Does what can be done now; waits for more up to `time` if there is nothing.
    fn step(&mut self, shared: &mut Self::Shared, time: Duration) -> Result<Step, Self::Failure>;
    /// Names the sockets to wait for, as clients do.
    fn watch(&self, readiness: &mut Readiness) -> Option<Instant>;
    /// It has ended, or failed.
    fn end(self, failure: Option<Self::Failure>) -> Self::Ended;
}

/// Connects all of them, and waits for the gate. None if the run does not start.
pub fn enter<P, C>(plans: Vec<P>, board: &Board, connect: impl Fn(&P) -> Result<C, String>) -> Option<Vec<(P, C)>> {
    let connected = plans.into_iter().map(|plan| connect(&plan).map(|client| (plan, client)));
    match connected.collect::<Result<Vec<_>, String>>() {
        Ok(clients) => board.gate.arrive(Ok(())).then_some(clients),
        Err(reason) => {
            board.gate.arrive(Err(reason));
            None
        }
    }
}

/// Drives all of them to their ends.
pub fn drive<D: Driven>(mut live: Vec<D>, shared: &mut D::Shared) -> Vec<D::Ended> {
    let (mut readiness, mut ended) = (Readiness::default(), Vec::with_capacity(live.len()));
    while !live.is_empty() {
        // One that is alone waits in its client.
        let time = if live.len() == 1 { D::POLL } else { Duration::ZERO };
        let (mut moved, mut wake, mut index) = (false, Instant::now() + D::POLL, 0);
        while index < live.len() {
            let failure = match live[index].step(shared, time) {
                Ok(Step::Ended) => None,
                Err(failure) => Some(failure),
                Ok(step) => {
                    match step {
                        Step::Idle(until) => wake = until.map_or(wake, |until| wake.min(until)),
                        _ => moved = true,
                    }
                    index += 1;
                    continue;
                }
            };
            ended.push(live.swap_remove(index).end(failure));
        }
        if !moved && time.is_zero() {
            sleep(&live, wake, &mut readiness);
        }
    }
    ended
}

/// Sleeps until a client may have something to do.
fn sleep<D: Driven>(live: &[D], wake: Instant, readiness: &mut Readiness) {
    readiness.clear();
    let watched = live.iter().filter_map(|one| one.watch(readiness)).min();
    let until = watched.map_or(wake, |at| at.min(wake));
    if readiness.wait(until.saturating_duration_since(Instant::now())).is_err() {
        std::thread::sleep(Duration::from_millis(1)); // Without readiness: looking, slowly.
    }
}
