//! The world: hosts, processes, clients, network and clock, stepped one action at a time from one seed.
//!
//! A step runs one duty cycle of one part: real protocol state machines over simulated memory and network. In the middle
//! of a step, before any operation on memory, the part may be held up while others run (steps nest like a stack, to a
//! bounded depth), or be killed there. After every step, and whenever a part is held up, the checker looks at the memory.
//!
//! First comes load with faults, for a number of steps; then faults and load end, everything is restarted, and whatever
//! is under way must come to rest within a bounded number of steps. Some worlds are left alone then, for long: what only the clock ends
//! must have ended.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, Weak};

use crate::sim::checker::Violation;
use crate::sim::kernel::{Actor, Kernel, Place, Shared, State, lock};
use crate::sim::part::{LinkId, Part};
use crate::sim::parts::boot;
use crate::sim::process::{Interrupts, Killed};
use crate::sim::scenario::{Fault, Scenario};
use crate::sim::trace::Event;

/// Steps that nest in each other at most.
const DEPTH_MAX: u32 = 3;
/// Longest that a part is held up by those that are not held up themselves, ns. Times [`DEPTH_MAX`] it is less than what lives may take to let go.
const HELD_UP_NS_MAX: u64 = 1_000_000_000;
/// Steps in which everything must come to rest once faults have ended.
const REST_STEPS_MAX: u64 = 150_000;
/// How often rest is looked for, steps.
const REST_CHECK_STEPS: u64 = 64;

/// Time that passes at once in a world that is left alone, ns. Nobody is taken for dead for it.
const LEAP_NS: u64 = 4_000_000;
/// Time in which a world that is left alone comes to rest again: clients that say nothing are ended, and come back, ns.
const RESTLESS_NS: u64 = 2_000_000_000;
/// Time in which a connection is closed whose client has left it, ns.
const CLOSED_WITHIN_NS: u64 = 1_000_000_000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of all that happened.
    pub hash: u64,
    /// Steps taken.
    pub steps: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Index positions committed.
    pub committed: u64,
    /// Sequencer epochs that were current.
    pub epochs: u64,
    /// Session epochs fenced.
    pub fences: u64,
    /// Positions given up at the end.
    pub floor: u64,
    /// Times that a reader was told that what it asked for is gone.
    pub told_gone: usize,
    /// Times that an attached reader was told that it was not waited for.
    pub told_slow: u64,
    /// Batches whose receipts watchers have checked.
    pub receipts_seen: u64,
    /// What went wrong, if anything.
    pub failure: Option<Violation>,
    /// The last events as sentences.
    pub tail: Vec<String>,
}

/// Runs a scenario to its end or to its first violation. `sentences`: how many of the last events to keep.
pub fn run(scenario: &Scenario, sentences: usize) -> Outcome {
    let world = Arc::new(Mutex::new(State::new(scenario.clone())));
    while {
        let state = lock(&world);
        state.step < scenario.steps && state.failure.is_none()
    } {
        act(&world, 0);
    }
    lock(&world).calm_down();
    let last = lock(&world).step + REST_STEPS_MAX;
    loop {
        act(&world, 0);
        let mut state = lock(&world);
        if state.failure.is_some() || (state.step.is_multiple_of(REST_CHECK_STEPS) && state.is_at_rest()) {
            break;
        }
        if state.step >= last {
            let restless = state.restless().collect::<Vec<_>>().join(", ");
            let all = state.places.iter().filter_map(|place| Some((place.part, place.actor.as_ref()?.tell())));
            let told: String =
                all.filter(|told| !told.1.is_empty()).map(|told| format!("\n  {}: {}", told.0, told.1)).collect();
            let text = format!("not at rest {REST_STEPS_MAX} steps after the last fault: {restless}{told}");
            state.failure = Some(Violation { promise: 0, text });
        }
    }
    leave_alone(&world);
    let mut state = lock(&world);
    if state.failure.is_none() {
        state.failure = state.checker.at_the_end().err();
    }
    let outcome = state.outcome(sentences);
    // The parts hold the world: without this it would never end.
    let places = std::mem::take(&mut state.places);
    let (common, remains) = (std::mem::take(&mut state.common), std::mem::take(&mut state.remains));
    drop(state);
    drop((places, common, remains));
    outcome
}

/// Time passes, and nothing happens that the clock does not bring about: what it bounds ends, and nothing else does. Connections that
/// their clients have left by then are closed soon.
fn leave_alone(world: &Shared) {
    let left_alone_ns = lock(world).scenario.left_alone_ns;
    if left_alone_ns == 0 {
        return;
    }
    pass_time(world, left_alone_ns);
    let left: Vec<LinkId> = lock(world).network.left_open().collect();
    pass_time(world, CLOSED_WITHIN_NS);
    let mut state = lock(world);
    let is_left = |link: &&LinkId| state.network.left_open().any(|left| left == **link);
    if let Some(link) = left.iter().find(is_left) {
        let text = format!("connection {link} was left by {}, and is not closed", state.network.ends(*link).0);
        state.fail(Violation { promise: 0, text });
    }
}

fn pass_time(world: &Shared, time_ns: u64) {
    let (steps, until_ns) = {
        let state = lock(world);
        (2 * state.places.len(), state.now_ns + time_ns)
    };
    while {
        let state = lock(world);
        let is_over = state.now_ns >= until_ns && (state.is_at_rest() || state.now_ns >= until_ns + RESTLESS_NS);
        state.failure.is_none() && !is_over
    } {
        lock(world).now_ns += LEAP_NS;
        (0..steps).for_each(|_| act(world, 0));
    }
    let mut state = lock(world);
    if !state.is_at_rest() {
        let restless = state.restless().collect::<Vec<_>>().join(", ");
        state.fail(Violation { promise: 0, text: format!("left alone, and not at rest: {restless}") });
    }
}

/// Runs one step of one part.
fn act(world: &Shared, depth: u32) {
    let Some((index, kernel, actor, hold_up_in)) = lock(world).choose(world, depth) else { return };
    let (life, process) = (kernel.life, kernel.process);
    kernel.interrupts.arm(hold_up_in, depth);
    let finished = catch_unwind(AssertUnwindSafe(|| {
        let mut actor = actor.or_else(|| boot(kernel.part, &kernel))?;
        actor.step(&kernel);
        Some(actor)
    }));
    kernel.interrupts.arm(u64::MAX, depth);
    let mut state = lock(world);
    let lives_on = state.processes[process].life == life;
    if lives_on {
        state.places[index].is_running = false;
    }
    match finished {
        Ok(actor) if lives_on => state.places[index].actor = actor,
        // It was killed while it was held up, and took no further step.
        Ok(actor) => state.remains.push(Box::new(actor)),
        Err(payload) if payload.is::<Killed>() => {}
        Err(payload) => {
            let what = panic_text(&*payload);
            let text = format!("{} panicked: {what}", state.places[index].part);
            state.fail(Violation { promise: 0, text });
        }
    }
    // A step takes longer than a store waits.
    state.memory.settle();
    state.look();
    let remains = std::mem::take(&mut state.remains);
    drop(state);
    drop(remains);
}

thread_local! {
    /// Where this thread last panicked.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From here on a panic of this program says nothing by itself: where protocol code stopped is part of a run's outcome.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        PANICKED_AT.set(at);
    }));
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default();
    text + &PANICKED_AT.take()
}

/// A part is held up in the middle of its step: others run, or it is killed here.
fn hold_up(world: &Weak<Mutex<State>>, index: usize, process: usize, life: u64, depth: u32) {
    let Some(world) = world.upgrade() else { return };
    let (others, until_ns) = {
        let mut state = lock(&world);
        state.look();
        let until_ns = state.now_ns + HELD_UP_NS_MAX;
        let part = state.places[index].part;
        if state.strikes(Fault::KillInStep, 1, 6) {
            let fault = if state.strikes(Fault::PowerLoss, 1, 4) { Fault::PowerLoss } else { Fault::KillInStep };
            state.note(Event::Killed(part, Fault::KillInStep));
            match (fault, state.processes[process].host) {
                (Fault::PowerLoss, Some(host)) => {
                    let hosts = state.scenario.hosts;
                    let others = state.luck.below(1 << hosts);
                    state.lose_power(others | 1 << host);
                }
                _ => state.kill(process, false),
            }
            (0, until_ns)
        } else if state.scenario.has(Fault::HoldUp) {
            let stands_still = state.stands_still(part);
            let others = match state.luck.below(100) {
                _ if stands_still => 100 + state.luck.below(700),
                0..80 => 1 + state.luck.below(8),
                80..97 => 10 + state.luck.below(100),
                _ => 300 + state.luck.below(1500),
            };
            state.note(Event::HeldUp(part, others));
            (others, until_ns)
        } else {
            return;
        }
    };
    for _ in 0..others {
        act(&world, depth + 1);
        let state = lock(&world);
        let is_over = state.failure.is_some() || state.is_calm || state.processes[process].life != life;
        if is_over || state.now_ns >= until_ns {
            break;
        }
    }
    let mut state = lock(&world);
    let is_over = state.failure.is_some() || state.processes[process].life != life;
    if is_over {
        drop(state);
        resume_unwind(Box::new(Killed));
    }
    let part = state.places[index].part;
    state.note(Event::GoesOn(part));
}

/// Choosing, and telling how it ended.
impl State {
    /// Lets time pass and misfortune strike, then picks who runs next, and when it will be held up.
    #[allow(clippy::type_complexity)]
    fn choose(&mut self, world: &Shared, depth: u32) -> Option<(usize, Kernel, Option<Box<dyn Actor>>, u64)> {
        self.step += 1;
        self.now_ns += self.schedule.below(2 * self.scenario.step_ns) + 1;
        self.strike();
        self.network.give_up(self.now_ns, &mut self.luck);
        self.restart_due();
        self.kernels_go_on();
        let may_run = |place: &Place| {
            let process = &self.processes[place.process];
            !place.is_running && process.is_alive && process.until_ns <= self.now_ns
        };
        let ready: Vec<usize> = (0..self.places.len()).filter(|index| may_run(&self.places[*index])).collect();
        if ready.is_empty() {
            return None;
        }
        let index = ready[self.schedule.below(ready.len() as u64) as usize];
        let (part, process) = (self.places[index].part, self.places[index].process);
        self.note(Event::Step(part));
        let is_held_up = depth < DEPTH_MAX
            && !self.is_calm
            && self.processes[process].host.is_some()
            && self.schedule.chance(self.hold_up_rate(part), 100);
        // In the midst of the first batch that it copies, as a rule.
        let scale = if self.stands_still(part) { 10 } else { self.schedule.below(13) };
        let hold_up_in = if is_held_up { 1 + self.schedule.below(1 << scale) } else { u64::MAX };
        let life = self.processes[process].life;
        let weak = Arc::downgrade(world);
        let place = &mut self.places[index];
        let interrupts = place
            .interrupts
            .get_or_insert_with(|| Interrupts::new(Box::new(move |depth| hold_up(&weak, index, process, life, depth))));
        let interrupts = interrupts.clone();
        place.is_running = true;
        let actor = place.actor.take();
        let kernel = Kernel { world: world.clone(), part, process, life, interrupts };
        Some((index, kernel, actor, hold_up_in))
    }

    /// Whether this part is one that stands still for long.
    fn stands_still(&self, part: Part) -> bool {
        self.scenario.readers_stand_still > 0 && matches!(part, Part::AttachedSubscriber(_))
    }

    /// Steps of a part in a hundred that are held up.
    fn hold_up_rate(&self, part: Part) -> u64 {
        let rate = self.scenario.hold_up_rate;
        if self.stands_still(part) { rate.max(self.scenario.readers_stand_still) } else { rate }
    }

    /// What is under way goes on whoever runs, and also for those that do not.
    fn kernels_go_on(&mut self) {
        if !self.rings.is_empty() && self.chance.chance(1, 8) {
            let ring = self.chance.below(self.rings.len() as u64) as usize;
            self.go_on(ring);
        }
    }

    fn restless(&self) -> impl Iterator<Item = String> {
        let at_rest = |place: &&Place| place.actor.as_ref().is_some_and(|actor| actor.is_at_rest(&self.checker));
        let parts = self.places.iter().filter(move |place| !at_rest(place)).map(|place| place.part.to_string());
        parts.chain(self.checker.unconsumed(&self.memory))
    }

    fn is_at_rest(&self) -> bool {
        self.restless().next().is_none()
    }

    fn outcome(&self, sentences: usize) -> Outcome {
        Outcome {
            hash: self.trace.hash(),
            steps: self.step,
            faults: self.faults,
            committed: self.checker.committed(),
            epochs: self.checker.epochs(),
            fences: self.checker.fences(),
            floor: self.checker.floor(),
            told_gone: self.checker.told_gone(),
            told_slow: self.told_slow,
            receipts_seen: self.receipts_seen,
            failure: self.failure.clone(),
            tail: self.trace.sentences(sentences),
        }
    }
}
