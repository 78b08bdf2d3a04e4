//! The world: hosts, processes, clients, network and clock, stepped one action at a time from one seed.
//!
//! A step runs one duty cycle of one part: real protocol state machines over simulated memory and network. In the middle
//! of a step, before any operation on memory, the part may be held up while others run (steps nest like a stack, to a
//! bounded depth), or be killed there. After every step, and whenever a part is held up, the checker looks at the memory.
//!
//! First comes load with faults, for a number of steps; then faults and load end, everything is restarted, and whatever
//! is under way must come to rest within a bounded number of steps.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::log::{Homes, View};
use crate::pool::Layout;
use crate::sim::checker::{Checker, Violation};
use crate::sim::memory::SharedMemory;
use crate::sim::network::{End, Heard, LinkId, Network};
use crate::sim::parts::{Mail, boot};
use crate::sim::process::{Interrupts, Killed, ProcessMemory};
use crate::sim::random::Random;
use crate::sim::scenario::{Fault, Scenario};
use crate::sim::trace::{Event, Part, Trace};

/// Steps that nest in each other at most.
const DEPTH_MAX: u32 = 3;
/// Steps in which everything must come to rest once faults have ended.
const REST_STEPS_MAX: u64 = 150_000;
/// How often rest is looked for, steps.
const REST_CHECK_STEPS: u64 = 64;
const LATENCY_NS: u64 = 400_000;

/// One part of the world: a duty cycle.
pub(crate) trait Actor: Send {
    /// Does a bounded amount of work.
    fn step(&mut self, kernel: &Kernel);
    /// Whether it has nothing left to do, once load has ended.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        true
    }
    /// How it stands, in words, for the report of a run that does not come to rest.
    fn tell(&self) -> String {
        String::new()
    }
}

/// A place for a part: the part itself is taken out while it runs.
struct Place {
    part: Part,
    process: usize,
    actor: Option<Box<dyn Actor>>,
    /// Of this life of its process.
    interrupts: Option<Arc<Interrupts>>,
    is_running: bool,
}

/// Parts that live and die together.
struct Process {
    /// Of the pool's processes: where it runs.
    host: Option<usize>,
    part: Part,
    life: u64,
    is_alive: bool,
    /// Another process holds its lock meanwhile, and it does not start.
    locked_by: Option<usize>,
    /// It does nothing, or is not started again, before then.
    until_ns: u64,
}

pub(crate) struct State {
    pub scenario: Scenario,
    pub layout: Arc<Layout>,
    memory: SharedMemory,
    places: Vec<Place>,
    processes: Vec<Process>,
    pub network: Network,
    pub mail: Vec<Mail>,
    pub checker: Checker,
    trace: Trace,
    schedule: Random,
    chance: Random,
    luck: Random,
    start: Instant,
    now_ns: u64,
    step: u64,
    faults: u64,
    is_calm: bool,
    /// Batches whose receipts watchers have checked.
    pub receipts_seen: u64,
    failure: Option<Violation>,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic of protocol code is an outcome of the run; the world goes on being readable.
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

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
    let mut state = lock(&world);
    if state.failure.is_none() {
        state.failure = state.checker.at_the_end().err();
    }
    let outcome = state.outcome(sentences);
    // The parts hold the world: without this it would never end.
    let places = std::mem::take(&mut state.places);
    drop(state);
    drop(places);
    outcome
}

/// Runs one step of one part.
fn act(world: &Shared, depth: u32) {
    let Some((index, kernel, actor, hold_up_in)) = lock(world).choose(world, depth) else { return };
    let (life, process) = (kernel.life, kernel.process);
    kernel.interrupts.arm(hold_up_in, depth);
    let finished = catch_unwind(AssertUnwindSafe(|| {
        let mut actor = actor.unwrap_or_else(|| boot(kernel.part, &kernel));
        actor.step(&kernel);
        actor
    }));
    kernel.interrupts.arm(u64::MAX, depth);
    let mut state = lock(world);
    let lives_on = state.processes[process].life == life;
    if lives_on {
        state.places[index].is_running = false;
    }
    match finished {
        Ok(actor) if lives_on => state.places[index].actor = Some(actor),
        // It was killed while it was held up, and took no further step.
        Ok(_) => {}
        Err(payload) if payload.is::<Killed>() => {}
        Err(payload) => {
            let what = panic_text(&*payload);
            let text = format!("{} panicked: {what}", state.places[index].part);
            state.fail(Violation { promise: 0, text });
        }
    }
    state.look();
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
    let others = {
        let mut state = lock(&world);
        state.look();
        let part = state.places[index].part;
        if state.strikes(Fault::KillInStep, 1, 6) {
            let fault = if state.strikes(Fault::PowerLoss, 1, 4) { Fault::PowerLoss } else { Fault::KillInStep };
            state.note(Event::Killed(part, Fault::KillInStep));
            match (fault, state.processes[process].host) {
                (Fault::PowerLoss, Some(host)) => state.lose_power(host),
                _ => state.kill(process),
            }
            0
        } else if state.scenario.has(Fault::HoldUp) {
            let others = match state.luck.below(100) {
                0..80 => 1 + state.luck.below(8),
                80..97 => 10 + state.luck.below(100),
                _ => 300 + state.luck.below(1500),
            };
            state.note(Event::HeldUp(part, others));
            others
        } else {
            return;
        }
    };
    for _ in 0..others {
        act(&world, depth + 1);
        let state = lock(&world);
        if state.failure.is_some() || state.is_calm || state.processes[process].life != life {
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

impl State {
    fn new(scenario: Scenario) -> State {
        let layout = Arc::new(Layout::new(scenario.geometry()).expect("scenarios have sound geometries"));
        let seed = scenario.seed;
        let memory =
            SharedMemory::new(layout.geometry.pool_bytes, scenario.hosts, scenario.whim, Random::new(seed ^ 1).word());
        let mut state = State {
            layout: layout.clone(),
            memory,
            places: Vec::new(),
            processes: Vec::new(),
            network: Network::new(LATENCY_NS),
            mail: scenario.brokers.iter().map(|_| Mail::default()).collect(),
            checker: Checker::new(layout, &scenario),
            trace: Trace::default(),
            // Streams of their own, so that switching one kind of fault off leaves the rest as it was for a while.
            schedule: Random::new(seed ^ 0x5c4e_d01e),
            chance: Random::new(seed ^ 0xc4a2_ce00),
            luck: Random::new(seed ^ 0xfa17_0000),
            start: Instant::now(),
            now_ns: 1_000_000,
            step: 0,
            faults: 0,
            is_calm: false,
            receipts_seen: 0,
            failure: None,
            scenario,
        };
        state.populate();
        state
    }

    fn populate(&mut self) {
        let scenario = self.scenario.clone();
        for (broker, host) in scenario.brokers.iter().enumerate() {
            let broker = broker as u32;
            let parts = [Part::Receive(broker), Part::Ack(broker), Part::Export(broker)];
            self.settle(Some(*host as usize), &parts);
        }
        for (candidate, host) in scenario.candidates.iter().enumerate() {
            self.settle(Some(*host as usize), &[Part::Sequencer(candidate as u32)]);
        }
        (0..scenario.hosts).for_each(|host| self.settle(Some(host), &[Part::Watcher(host as u32)]));
        (0..scenario.publishers).for_each(|number| self.settle(None, &[Part::Publisher(number as u32)]));
        (0..scenario.subscribers).for_each(|number| self.settle(None, &[Part::Subscriber(number as u32)]));
    }

    fn settle(&mut self, host: Option<usize>, parts: &[Part]) {
        let process = self.processes.len();
        self.processes.push(Process { host, part: parts[0], life: 1, is_alive: true, locked_by: None, until_ns: 0 });
        let place = |part: &Part| Place { part: *part, process, actor: None, interrupts: None, is_running: false };
        self.places.extend(parts.iter().map(place));
    }

    fn note(&mut self, event: Event) {
        self.trace.note(self.step, self.now_ns, event);
    }

    fn fail(&mut self, violation: Violation) {
        // The first one counts.
        self.failure.get_or_insert(violation);
    }

    /// Lets the checker look at the memory as it is now.
    fn look(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let (step, now_ns, trace) = (self.step, self.now_ns, &mut self.trace);
        if let Err(violation) = self.checker.look(&self.memory, &mut |event| trace.note(step, now_ns, event)) {
            self.fail(violation);
        }
    }

    /// Lets time pass and misfortune strike, then picks who runs next, and when it will be held up.
    #[allow(clippy::type_complexity)]
    fn choose(&mut self, world: &Shared, depth: u32) -> Option<(usize, Kernel, Option<Box<dyn Actor>>, u64)> {
        self.step += 1;
        self.now_ns += self.schedule.below(2 * self.scenario.step_ns) + 1;
        self.strike();
        self.restart_due();
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
            && self.schedule.chance(self.scenario.hold_up_rate, 100);
        let scale = self.schedule.below(13);
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

    /// Whether a misfortune of this kind strikes now, `times` in `of`.
    fn strikes(&mut self, fault: Fault, times: u64, of: u64) -> bool {
        let may = !self.is_calm && self.scenario.has(fault) && self.faults < self.scenario.faults_max;
        let strikes = self.luck.chance(times, of) && may;
        self.faults += u64::from(strikes);
        strikes
    }

    fn strike(&mut self) {
        if !self.luck.chance(self.scenario.fault_rate, 10_000) {
            return;
        }
        let fault = Fault::ALL[self.luck.below(Fault::ALL.len() as u64) as usize];
        if !self.strikes(fault, 1, 1) {
            return;
        }
        match fault {
            // These strike in the middle of steps.
            Fault::HoldUp | Fault::KillInStep => {}
            Fault::KillBroker => self.kill_one(fault, |part| matches!(part, Part::Receive(_))),
            Fault::KillSequencer => self.kill_one(fault, |part| matches!(part, Part::Sequencer(_))),
            Fault::KillPublisher => self.kill_one(fault, |part| matches!(part, Part::Publisher(_))),
            Fault::PowerLoss => {
                let host = self.luck.below(self.scenario.hosts as u64) as usize;
                self.lose_power(host);
            }
            Fault::Pause => self.pause_one(200_000_000, |part| matches!(part, Part::Receive(_) | Part::Sequencer(_))),
            Fault::SilentPublisher => self.pause_one(400_000_000, |part| matches!(part, Part::Publisher(_))),
            Fault::SlowSubscriber => self.pause_one(300_000_000, |part| matches!(part, Part::Subscriber(_))),
            Fault::Cut | Fault::Stall => self.harm_link(fault),
        }
    }

    fn one_of(&mut self, is_meant: impl Fn(&Part) -> bool) -> Option<usize> {
        let alive = |process: &usize| {
            let process = &self.processes[*process];
            process.is_alive && is_meant(&process.part)
        };
        let all: Vec<usize> = (0..self.processes.len()).filter(alive).collect();
        let pick = self.luck.below(all.len().max(1) as u64) as usize;
        all.get(pick).copied()
    }

    fn kill_one(&mut self, fault: Fault, is_meant: impl Fn(&Part) -> bool) {
        if let Some(process) = self.one_of(is_meant) {
            self.note(Event::Killed(self.processes[process].part, fault));
            self.kill(process);
        }
    }

    fn pause_one(&mut self, most_ns: u64, is_meant: impl Fn(&Part) -> bool) {
        if let Some(process) = self.one_of(is_meant) {
            let until_ns = self.now_ns + self.luck.below(most_ns);
            self.processes[process].until_ns = until_ns;
            self.note(Event::Paused(self.processes[process].part, until_ns));
        }
    }

    fn harm_link(&mut self, fault: Fault) {
        let open = self.network.open();
        if open.is_empty() {
            return;
        }
        let link = open[self.luck.below(open.len() as u64) as usize];
        if fault == Fault::Cut {
            self.network.cut(link, &mut self.luck);
            self.note(Event::Cut(link));
        } else {
            let until_ns = self.now_ns + self.luck.below(300_000_000);
            self.network.stall(link, until_ns);
            self.note(Event::Stalled(link, until_ns));
        }
    }

    /// A process dies: what it had in memory of its own is gone; what its host's cache holds stays there.
    fn kill(&mut self, process: usize) {
        // Now and then it stays away for much longer than anybody waits for a silent member.
        let is_long = self.processes[process].host.is_some() && self.luck.chance(1, 6);
        let restart_ns = self.now_ns + self.luck.below(if is_long { 1_000_000_000 } else { 60_000_000 });
        let dead = &mut self.processes[process];
        (dead.life, dead.is_alive, dead.until_ns) = (dead.life + 1, false, restart_ns);
        for locked in self.processes.iter_mut().filter(|locked| locked.locked_by == Some(process)) {
            locked.locked_by = None;
        }
        for place in self.places.iter_mut().filter(|place| place.process == process) {
            (place.actor, place.interrupts, place.is_running) = (None, None, false);
        }
        // The kernel closes what it had open.
        let is_its_own: Box<dyn Fn(Part, u32) -> bool> = match self.processes[process].part {
            Part::Receive(broker) => {
                self.mail[broker as usize] = Mail::default();
                Box::new(move |_, to| to == broker)
            }
            part => Box::new(move |from, _| from == part),
        };
        for link in self.network.open().to_vec() {
            let (from, to) = self.network.ends(link);
            if is_its_own(from, to) {
                self.network.cut(link, &mut self.luck);
            }
        }
    }

    fn lose_power(&mut self, host: usize) {
        self.note(Event::PowerLost(host));
        for process in 0..self.processes.len() {
            if self.processes[process].host == Some(host) && self.processes[process].is_alive {
                self.kill(process);
            }
        }
        self.memory.lose_power(host);
    }

    fn restart_due(&mut self) {
        for process in 0..self.processes.len() {
            let dead = &mut self.processes[process];
            if !dead.is_alive && dead.locked_by.is_none() && dead.until_ns <= self.now_ns {
                dead.is_alive = true;
                self.note(Event::Restarted(self.processes[process].part));
            }
        }
    }

    fn calm_down(&mut self) {
        self.is_calm = true;
        self.processes.iter_mut().for_each(|process| process.until_ns = 0);
        self.network.resume();
        self.note(Event::Calm);
    }

    /// Whether a process holds the lock that stands for this part's process.
    pub fn is_held(&self, part: Part) -> bool {
        self.processes.iter().any(|process| process.part == part && (process.is_alive || process.locked_by.is_some()))
    }

    /// Takes the lock of a dead process.
    pub fn take_lock(&mut self, part: Part, by: usize) -> bool {
        let is_free = |process: &&mut Process| process.part == part && !process.is_alive && process.locked_by.is_none();
        let free = self.processes.iter_mut().find(is_free);
        free.map(|process| process.locked_by = Some(by)).is_some()
    }

    /// Gives it back.
    pub fn drop_lock(&mut self, part: Part) {
        self.processes.iter_mut().filter(|process| process.part == part).for_each(|process| process.locked_by = None);
    }

    /// Whether an end has something to read on a connection.
    pub fn is_readable(&mut self, link: LinkId, at: End) -> bool {
        self.network.is_readable(link, at, self.now_ns)
    }

    /// Slots of a lane below this may have lost their batches, as far as anybody at all may know by now.
    pub fn reusable(&self, lane: u32) -> u64 {
        // Word 4 of a lane's progress.
        let at = |candidate| self.layout.lane_progress(candidate, lane) + 32;
        (0..self.layout.geometry.candidates).map(|candidate| self.memory.highest_copy(at(candidate))).max().unwrap_or(0)
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
            receipts_seen: self.receipts_seen,
            failure: self.failure.clone(),
            tail: self.trace.sentences(sentences),
        }
    }
}

/// What a part may do in the world besides touching memory. No call holds the world while protocol code runs.
#[derive(Clone)]
pub(crate) struct Kernel {
    world: Shared,
    pub part: Part,
    pub process: usize,
    life: u64,
    interrupts: Arc<Interrupts>,
}

impl Kernel {
    pub fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut lock(&self.world))
    }

    /// The pool as this part's host sees it.
    pub fn view(&self) -> View<ProcessMemory> {
        self.with(|state| {
            let host = state.processes[self.process].host.expect("a process of the pool");
            let (scenario, layout) = (&state.scenario, state.layout.clone());
            let blog = layout.fixed_bytes();
            let memory = state.memory.host(host);
            let memory = ProcessMemory::new(memory, self.interrupts.clone(), scenario.sabotage, blog);
            let (brokers, candidates) = (scenario.brokers.clone(), scenario.candidates.clone());
            View::new(memory, layout, Homes { here: host as u32, brokers, candidates })
        })
    }

    /// Which life of its process this is, from 1.
    pub fn life(&self) -> u64 {
        self.life
    }

    pub fn now_ns(&self) -> u64 {
        self.with(|state| state.now_ns)
    }

    pub fn instant(&self) -> Instant {
        self.with(|state| state.start + Duration::from_nanos(state.now_ns))
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.with(|state| state.chance.below(bound))
    }

    pub fn chance(&self, times: u64, of: u64) -> bool {
        self.with(|state| state.chance.chance(times, of))
    }

    pub fn note(&self, event: Event) {
        self.with(|state| state.note(event));
    }

    /// Whether load has ended.
    pub fn is_calm(&self) -> bool {
        self.with(|state| state.is_calm)
    }

    pub fn fail(&self, promise: u8, text: String) {
        let text = format!("{}: {text}", self.part);
        self.with(|state| state.fail(Violation { promise, text }));
    }

    /// Tells the checker what this part has seen.
    pub fn check(&self, check: impl FnOnce(&mut Checker) -> Result<(), Violation>) {
        self.with(|state| {
            if let Err(violation) = check(&mut state.checker) {
                state.fail(violation);
            }
        });
    }

    /// Asks a broker for a connection. `None`: nobody listens.
    pub fn dial(&self, broker: u32) -> Option<LinkId> {
        self.with(|state| {
            let listens = |process: &Process| process.part == Part::Receive(broker) && process.is_alive;
            if !state.processes.iter().any(listens) {
                return None;
            }
            let link = state.network.connect(self.part, broker);
            state.note(Event::Dialed(self.part, broker, link));
            Some(link)
        })
    }

    pub fn read(&self, link: LinkId, at: End, most: usize) -> Heard {
        self.with(|state| state.network.read(link, at, most, state.now_ns, &mut state.chance))
    }

    pub fn write(&self, link: LinkId, from: End, bytes: &[u8]) -> Option<usize> {
        self.with(|state| state.network.write(link, from, bytes, state.now_ns, &mut state.chance))
    }

    pub fn close(&self, link: LinkId, end: End) {
        self.with(|state| state.network.close(link, end));
    }
}
