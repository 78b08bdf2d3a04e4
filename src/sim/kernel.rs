//! What a part of the world may do, and what the world is: hosts, processes, clients, network, clock, and the misfortunes of each.
//!
//! Who steps when, and where a step is held up, is chosen one floor above, in [`world`](crate::sim::world).

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::limits::ATTACHED_READERS_PER_BROKER;
use crate::log::View;
use crate::pool::Layout;
use crate::runtime::Now;
use crate::sim::checker::{Checker, Violation};
use crate::sim::network::{End, Heard, Network};
use crate::sim::part::{LinkId, Part};
use crate::sim::process::{Interrupts, ProcessMemory};
use crate::sim::ring::Ring;
use crate::sim::scenario::{HostClock, Scenario};
use crate::sim::trace::{Event, Trace};
use crate::testing::memory::SharedMemory;
use crate::testing::random::Random;

/// Longest that bytes are on their way as a rule, ns.
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
pub(crate) struct Place {
    pub(super) part: Part,
    pub(super) process: usize,
    pub(super) actor: Option<Box<dyn Actor>>,
    /// Of this life of its process.
    pub(super) interrupts: Option<Arc<Interrupts>>,
    pub(super) is_running: bool,
    /// It has ended what it had, as its process was asked to.
    pub(super) is_drained: bool,
}

/// Parts that live and die together.
pub(crate) struct Process {
    /// Of the pool's processes: where it runs.
    pub(super) host: Option<usize>,
    pub(super) part: Part,
    pub(super) life: u64,
    pub(super) is_alive: bool,
    /// Another process holds its lock meanwhile, and it does not start.
    pub(super) locked_by: Option<usize>,
    /// It does nothing, or is not started again, before then.
    pub(super) until_ns: u64,
    /// It was asked to end, and drains.
    pub(super) is_stopping: bool,
}

/// The world. What [`Kernel`] does not show of it is for the scheduler only.
pub(crate) struct State {
    pub scenario: Scenario,
    pub layout: Arc<Layout>,
    pub(super) memory: SharedMemory,
    pub(super) places: Vec<Place>,
    pub(super) processes: Vec<Process>,
    pub network: Network,
    /// What the parts of each broker have in common, while its process lives.
    pub(super) common: Vec<Option<Arc<dyn Any + Send + Sync>>>,
    /// How often each broker has moved to another address.
    pub moves: Vec<u32>,
    /// What is under way for each part that has a network.
    pub(super) rings: Vec<Option<Ring>>,
    /// What is left of those that died, to be dropped while nobody holds the world.
    pub(super) remains: Vec<Box<dyn Any + Send>>,
    pub checker: Checker,
    pub(super) trace: Trace,
    pub(super) schedule: Random,
    pub(super) chance: Random,
    pub(super) luck: Random,
    start: Instant,
    pub(super) clocks: Vec<HostClock>,
    /// By host: from which host it is being forgotten. It stays off until that is done.
    pub(super) forgotten_from: Vec<Option<usize>>,
    pub(super) now_ns: u64,
    pub(super) step: u64,
    pub(super) faults: u64,
    pub(super) is_calm: bool,
    /// Times that an attached reader was told that it was not waited for.
    pub told_slow: u64,
    /// Batches whose receipts watchers have checked.
    pub receipts_seen: u64,
    pub(super) failure: Option<Violation>,
}

pub(super) type Shared = Arc<Mutex<State>>;

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic of protocol code is an outcome of the run; the world goes on being readable.
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl State {
    pub(super) fn new(scenario: Scenario) -> State {
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
            common: scenario.brokers.iter().map(|_| None).collect(),
            moves: vec![0; scenario.brokers.len()],
            rings: Vec::new(),
            remains: Vec::new(),
            checker: Checker::new(layout, &scenario),
            trace: Trace::default(),
            // Streams of their own, so that switching one kind of fault off leaves the rest as it was for a while.
            schedule: Random::new(seed ^ 0x5c4e_d01e),
            chance: Random::new(seed ^ 0xc4a2_ce00),
            luck: Random::new(seed ^ 0xfa17_0000),
            start: Instant::now(),
            clocks: scenario.clocks.clone(),
            forgotten_from: vec![None; scenario.hosts],
            now_ns: 1_000_000,
            step: 0,
            faults: 0,
            is_calm: false,
            told_slow: 0,
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
            let cores = (0..scenario.lanes_per_broker).map(|core| Part::Receive(broker, core));
            let parts: Vec<Part> =
                cores.chain([Part::Ack(broker), Part::Export(broker), Part::Caretaker(broker)]).collect();
            self.settle(Some(*host as usize), &parts);
            let joins_ns = scenario.joins_ns.get(broker as usize).copied().unwrap_or(0);
            if let Some(process) = self.processes.last_mut().filter(|_| joins_ns > 0) {
                (process.is_alive, process.until_ns) = (false, joins_ns);
            }
        }
        for (candidate, host) in scenario.candidates.iter().enumerate() {
            self.settle(Some(*host as usize), &[Part::Sequencer(candidate as u32)]);
        }
        (0..scenario.attached_publishers).for_each(|number| {
            let host = scenario.host_of_broker(scenario.writer_place(number));
            self.settle(Some(host), &[Part::AttachedPublisher(number)]);
        });
        (0..scenario.attached_subscribers).for_each(|number| {
            let host = scenario.host_of_broker(scenario.reader_place(number) / ATTACHED_READERS_PER_BROKER);
            self.settle(Some(host), &[Part::AttachedSubscriber(number)]);
        });
        (0..scenario.hosts).for_each(|host| self.settle(Some(host), &[Part::Watcher(host as u32)]));
        (0..scenario.hosts).for_each(|host| self.settle(Some(host), &[Part::Operator(host as u32)]));
        (0..scenario.publishers).for_each(|number| self.settle(None, &[Part::Publisher(number as u32)]));
        (0..scenario.subscribers).for_each(|number| self.settle(None, &[Part::Subscriber(number as u32)]));
        (0..scenario.admins).for_each(|number| self.settle(None, &[Part::Admin(number as u32)]));
        (0..scenario.strangers).for_each(|number| self.settle(None, &[Part::Stranger(number as u32)]));
        if scenario.topics_go {
            self.settle(None, &[Part::Eraser]);
        }
    }

    fn settle(&mut self, host: Option<usize>, parts: &[Part]) {
        let process = self.processes.len();
        self.processes.push(Process {
            host,
            part: parts[0],
            life: 1,
            is_alive: true,
            locked_by: None,
            until_ns: 0,
            is_stopping: false,
        });
        let place = |part: &Part| Place {
            part: *part,
            process,
            actor: None,
            interrupts: None,
            is_running: false,
            is_drained: false,
        };
        self.places.extend(parts.iter().map(place));
    }

    pub(super) fn note(&mut self, event: Event) {
        self.trace.note(self.step, self.now_ns, event);
    }

    pub(super) fn fail(&mut self, violation: Violation) {
        // The first one counts.
        self.failure.get_or_insert(violation);
    }

    /// Lets the checker look at the memory as it is now.
    pub(super) fn look(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let (step, now_ns, trace) = (self.step, self.now_ns, &mut self.trace);
        if let Err(violation) = self.checker.look(&self.memory, &mut |event| trace.note(step, now_ns, event)) {
            self.fail(violation);
        }
    }

    /// A part of a process that was asked to end says whether nothing is left. When all of them say so, the process ends.
    pub fn drained(&mut self, part: Part, is_drained: bool) {
        let Some(place) = self.places.iter_mut().find(|place| place.part == part) else { return };
        place.is_drained = is_drained;
        let process = place.process;
        if self.places.iter().all(|place| place.process != process || place.is_drained) {
            self.kill(process, false);
        }
    }

    pub(super) fn calm_down(&mut self) {
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

    /// What is to be under way for a part of a process.
    pub(super) fn add_ring(&mut self, process: usize, operations_max: u32) -> usize {
        let host = self.processes[process].host.expect("a process of the pool");
        self.rings.push(Some(Ring::new(process, host, operations_max)));
        self.rings.len() - 1
    }

    /// Pins that are not waited for any more, as far as anybody at all may know by now: what they stood for may be used again while it is
    /// read, or sent.
    pub fn dropped_pins(&self) -> u64 {
        // Word 5 of a candidate's floors.
        let at = |candidate| self.layout.floor_line(candidate) + 40;
        (0..self.layout.geometry.candidates).map(|candidate| self.memory.highest_copy(at(candidate))).max().unwrap_or(0)
    }

    /// Whether a slot of a lane may have lost its batch, as far as anybody at all may know by now: it was looked at, and what it became, if anything, may be
    /// given up.
    pub fn may_be_gone(&self, lane: u32, slot: u64) -> bool {
        let candidates = || 0..self.layout.geometry.candidates;
        let highest = |at: u64| self.memory.highest_copy(at);
        // Word 2 of a lane's progress, and word 3 of a candidate's floors.
        let consumed = candidates().map(|candidate| highest(self.layout.lane_progress(candidate, lane) + 16)).max();
        let floor = candidates().map(|candidate| highest(self.layout.floor_line(candidate) + 24)).max();
        let position = self.checker.position_of(lane as u16, slot);
        consumed > Some(slot) && position.is_none_or(|position| floor > Some(position))
    }
}

/// What a part may do in the world besides touching memory. No call holds the world while protocol code runs.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(super) world: Shared,
    pub part: Part,
    pub process: usize,
    pub(super) life: u64,
    pub(super) interrupts: Arc<Interrupts>,
}

impl Kernel {
    pub fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = lock(&self.world);
        // It is a system call, or a locked instruction, which no store waits through.
        state.memory.settle();
        act(&mut state)
    }

    /// A moment at which this part may be held up.
    pub fn may_be_held_up(&self) {
        self.interrupts.tick();
    }

    /// The pool as this part's host sees it.
    pub fn view(&self) -> View<ProcessMemory> {
        self.with(|state| {
            let host = state.processes[self.process].host.expect("a process of the pool");
            let (scenario, layout) = (&state.scenario, state.layout.clone());
            let blog = layout.fixed_bytes();
            let memory = self.interrupts.memory(|| state.memory.host(host));
            let memory = ProcessMemory::new(memory, self.interrupts.clone(), scenario.sabotage, blog);
            View::new(memory, layout, scenario.homes(host))
        })
    }

    /// Which life of its process this is, from 1.
    pub fn life(&self) -> u64 {
        self.life
    }

    pub fn now_ns(&self) -> u64 {
        self.with(|state| state.now_ns)
    }

    /// The clocks of this part's host; of a client far away the world's own.
    pub fn clock(&self) -> Now {
        self.with(|state| {
            let host = state.processes[self.process].host;
            host.map_or(HostClock::default(), |host| state.clocks[host]).read(state.now_ns)
        })
    }

    pub fn instant(&self) -> Instant {
        let now = self.clock();
        self.with(|state| state.start + Duration::from_nanos(now.monotonic_ns))
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

    /// Whether this part's process was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.with(|state| state.processes[self.process].is_stopping)
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

    /// Topics of this name that are deleted for everybody who begins now.
    pub fn deletions(&self, topic: &str) -> usize {
        self.with(|state| state.checker.deletions(&state.memory, topic))
    }

    /// Connects to a broker, wherever it is. `None`: nobody listens there.
    pub fn dial(&self, broker: u32) -> Option<LinkId> {
        self.with(|state| {
            let listens = |process: &Process| process.part == Part::Receive(broker, 0) && process.is_alive;
            if !state.processes.iter().any(listens) {
                return None;
            }
            let link = state.network.connect(self.part, broker);
            state.note(Event::Dialed(self.part, broker, link));
            Some(link)
        })
    }

    /// As [`Self::dial`], to where a broker was after so many moves.
    pub fn dial_at(&self, broker: u32, moves: u32) -> Option<LinkId> {
        let is_there = self.with(|state| state.moves.get(broker as usize) == Some(&moves));
        if is_there { self.dial(broker) } else { None }
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
