//! The loop with a fake io, a fake clock and fake roles: steps are counted, no time is measured.

use super::*;
use crate::runtime::RoleKind;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::role::Blocked;
use crate::runtime::ticks::TickCounts;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What happened, in order.
#[derive(Clone, Default)]
struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().push(event.into());
    }

    fn count(&self, event: &str) -> usize {
        self.0.borrow().iter().filter(|found| *found == event).count()
    }

    fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

/// Completions are (role, value). After `passes` submits it asks for the end.
struct FakeIo {
    arrived: VecDeque<(u8, u32)>,
    /// Arrives during a wait.
    arrives_later: VecDeque<(u8, u32)>,
    waits: Rc<RefCell<Vec<Duration>>>,
    passes: usize,
    shutdown: Arc<Shutdown>,
    fail_with: Option<ErrorKind>,
    /// A microsecond passes each time it is read.
    now_ns: u64,
    /// How often it was read, and when last.
    read: Rc<RefCell<(u64, u64)>>,
}

impl Io for FakeIo {
    type Completion = (u8, u32);

    fn now(&mut self) -> Now {
        self.now_ns += 1000;
        self.read.replace_with(|(times, _)| (*times + 1, self.now_ns));
        Now { monotonic_ns: self.now_ns, utc_ns: self.now_ns }
    }

    fn role_of(completion: &(u8, u32)) -> u8 {
        completion.0
    }

    fn submit(&mut self, wait: Option<Duration>) -> std::io::Result<()> {
        self.waits.borrow_mut().extend(wait);
        if wait.is_some() {
            self.arrived.extend(self.arrives_later.pop_front());
        }
        self.passes = self.passes.saturating_sub(1);
        if self.passes == 0 {
            self.shutdown.request();
        }
        self.fail_with.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn next_completion(&mut self) -> Option<(u8, u32)> {
        self.arrived.pop_front()
    }
}

#[derive(Default)]
struct FakeRole {
    name: String,
    trace: Trace,
    /// What each poll returns; 0 when used up.
    moves: VecDeque<usize>,
    awake: bool,
    /// Drains that still say false.
    drains: usize,
    /// What it says then.
    waits: Option<String>,
    panic_in: &'static str,
    fails_to_start: bool,
    /// Cannot go on, from the first poll that moves nothing.
    is_faulty: bool,
    /// What it is; nothing: it receives.
    kind: Option<RoleKind>,
    /// How long a poll of it takes, ns.
    takes_ns: u64,
    /// For whom it says it waits, each time it is asked; nobody when used up.
    blocked: RefCell<VecDeque<Option<Blocked>>>,
}

impl FakeRole {
    fn enter(&self, what: &'static str) {
        self.trace.add(format!("{} {what}", self.name));
        assert!(self.panic_in != what, "broken in {what}");
    }
}

impl Role<FakeIo> for FakeRole {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RoleKind {
        self.kind.unwrap_or(RoleKind::Receive)
    }

    fn blocked(&self) -> Option<Blocked> {
        self.blocked.borrow_mut().pop_front().flatten()
    }

    fn report(&mut self, _: Now) {
        self.enter("report");
    }

    fn start(&mut self, _: &mut FakeIo, index: u8, _: Now) -> Result<(), RoleError> {
        self.trace.add(format!("{} start {index}", self.name));
        assert!(self.panic_in != "start", "broken in start");
        if self.fails_to_start { Err(RoleError::new("no port")) } else { Ok(()) }
    }

    fn complete(&mut self, _: &mut FakeIo, (_, value): (u8, u32), _: Now) {
        self.enter("complete");
        self.trace.add(format!("{} got {value}", self.name));
    }

    fn poll(&mut self, io: &mut FakeIo, _: Now) -> usize {
        self.enter("poll");
        io.now_ns += self.takes_ns;
        self.moves.pop_front().unwrap_or(0)
    }

    fn fault(&mut self) -> Option<RoleError> {
        self.is_faulty.then(|| RoleError::new("the pool is damaged"))
    }

    fn may_sleep(&self) -> bool {
        !self.awake
    }

    fn waits_for(&self) -> Option<String> {
        self.waits.clone()
    }

    fn drain(&mut self, _: &mut FakeIo, _: Now) -> bool {
        self.enter("drain");
        let drained = self.drains == 0;
        self.drains = self.drains.saturating_sub(1);
        drained
    }
}

/// A runner to be, with what its tests look at.
struct Bench {
    io: FakeIo,
    trace: Trace,
    ticks: Arc<Ticks>,
    shutdown: Arc<Shutdown>,
    idle: IdlePolicy,
}

const PARK: IdlePolicy = IdlePolicy::Park {
    spin_for: Duration::ZERO,
    park_min: Duration::from_micros(50),
    park_max: Duration::from_micros(150),
    rest_max: Duration::from_micros(150),
};

impl Bench {
    fn new(passes: usize) -> Bench {
        let shutdown = Shutdown::new(Duration::from_millis(1));
        let io = FakeIo {
            arrived: VecDeque::new(),
            arrives_later: VecDeque::new(),
            waits: Rc::default(),
            passes,
            shutdown: Arc::clone(&shutdown),
            fail_with: None,
            now_ns: 0,
            read: Rc::default(),
        };
        Bench { io, trace: Trace::default(), ticks: Arc::default(), shutdown, idle: PARK }
    }

    fn role(&self, name: &str) -> FakeRole {
        FakeRole { name: name.into(), trace: self.trace.clone(), ..FakeRole::default() }
    }

    fn run(self, roles: Vec<FakeRole>) -> Result<(), RunnerError> {
        self.run_and_tell(roles, || ())
    }

    fn run_and_tell(self, roles: Vec<FakeRole>, started: impl FnOnce()) -> Result<(), RunnerError> {
        let roles = roles.into_iter().map(|role| Box::new(role) as Box<dyn Role<FakeIo>>).collect();
        let member = self.shutdown.member();
        Runner::new("test", self.io, roles, self.idle, self.ticks, member).run_and_tell(started)
    }
}

#[test]
fn an_idle_runner_parks_ever_longer_until_something_moves() {
    let bench = Bench::new(8);
    let waits = Rc::clone(&bench.io.waits);
    let role = FakeRole { moves: [0, 0, 0, 0, 3, 0, 0].into(), ..bench.role("a") };
    let ticks = Arc::clone(&bench.ticks);
    bench.run(vec![role]).expect("ends drained");
    let waits: Vec<u128> = waits.borrow().iter().map(Duration::as_micros).collect();
    assert_eq!(waits[..7], [50, 100, 150, 150, 50, 100, 150], "one pass of eight worked");
    let counts = ticks.read();
    assert_eq!(counts.moved, 3);
    assert_eq!(counts.sleeps, waits.len() as u64);
    assert_eq!(counts.working_ns, 1000, "the pass that moved something");
    assert_eq!(counts.asleep_ns, counts.sleeps * 1000);
    assert_eq!(counts.working_ns + counts.idle_ns + counts.asleep_ns, counts.passes * 1000, "each pass charged once");
}

#[test]
fn a_completion_is_work_and_ends_the_back_off() {
    let mut bench = Bench::new(5);
    bench.io.arrives_later = [(0, 1), (0, 2)].into();
    let waits = Rc::clone(&bench.io.waits);
    let (role, trace) = (bench.role("a"), bench.trace.clone());
    bench.run(vec![role]).expect("ends drained");
    let waits: Vec<u128> = waits.borrow().iter().map(Duration::as_micros).collect();
    assert_eq!(waits[..3], [50, 50, 50], "each wait ended with bytes, so none grew");
    assert_eq!((trace.count("a got 1"), trace.count("a got 2")), (1, 1));
}

#[test]
fn a_role_that_may_not_sleep_keeps_the_thread_awake() {
    let bench = Bench::new(20);
    let (waits, ticks) = (Rc::clone(&bench.io.waits), Arc::clone(&bench.ticks));
    let roles = vec![bench.role("a"), FakeRole { awake: true, ..bench.role("b") }];
    bench.run(roles).expect("ends drained");
    assert!(waits.borrow().is_empty());
    assert!(ticks.read().idle_ns >= 20_000 && ticks.read().sleeps == 0);
}

#[test]
fn spinning_never_waits() {
    for idle in [IdlePolicy::Spin, IdlePolicy::Yield] {
        let bench = Bench { idle, ..Bench::new(50) };
        let (waits, role) = (Rc::clone(&bench.io.waits), bench.role("a"));
        bench.run(vec![role]).expect("ends drained");
        assert!(waits.borrow().is_empty());
    }
}

#[test]
fn completions_go_to_their_role_before_anybody_polls() {
    let mut bench = Bench::new(1);
    bench.io.arrived = [(1, 10), (0, 20), (1, 30)].into();
    let (roles, trace) = (vec![bench.role("a"), bench.role("b")], bench.trace.clone());
    bench.run(roles).expect("ends drained");
    let expected = [
        "a start 0",
        "b start 1",
        "b complete",
        "b got 10",
        "a complete",
        "a got 20",
        "b complete",
        "b got 30",
        "a poll",
        "b poll",
    ];
    assert_eq!(trace.all()[..10], expected);
}

#[test]
fn completions_of_one_pass_are_bounded() {
    let mut bench = Bench::new(3);
    bench.io.arrived = (0..COMPLETIONS_PER_PASS_MAX as u32 + 1).map(|value| (0, value)).collect();
    let (role, trace) = (bench.role("a"), bench.trace.clone());
    bench.run(vec![role]).expect("ends drained");
    let events = trace.all();
    let first_poll = events.iter().position(|event| event == "a poll").expect("polled");
    assert_eq!(events[..first_poll].iter().filter(|event| *event == "a complete").count(), COMPLETIONS_PER_PASS_MAX);
    assert_eq!(trace.count("a complete"), COMPLETIONS_PER_PASS_MAX + 1, "and none is lost");
}

#[test]
fn draining_replaces_polling_and_ends() {
    let bench = Bench::new(1);
    let (roles, trace) = (vec![bench.role("a"), FakeRole { drains: 3, ..bench.role("b") }], bench.trace.clone());
    bench.run(roles).expect("ends drained");
    assert_eq!(trace.count("a poll"), 1, "no poll once draining");
    assert_eq!(trace.count("a drain"), trace.count("b drain"), "drained roles go on draining until all are");
    assert_eq!(trace.count("b drain"), 3 + 2, "three to go, then drained in two passes");
}

#[test]
fn a_drain_that_does_not_end_is_an_error_that_names_the_role() {
    let bench = Bench::new(1);
    let roles = vec![bench.role("a"), FakeRole { drains: usize::MAX, ..bench.role("b") }];
    let error = bench.run(roles).expect_err("never drained");
    assert!(matches!(&error, RunnerError::NotDrained { roles, .. } if roles == "b"), "{error}");
}

#[test]
fn a_panic_names_the_role_and_asks_the_others_to_drain() {
    for panic_in in ["start", "complete", "poll", "drain"] {
        let mut bench = Bench::new(3);
        bench.io.arrived = [(1, 1)].into();
        let roles = vec![bench.role("a"), FakeRole { panic_in, ..bench.role("b") }, bench.role("c")];
        let (shutdown, mut other) = (Arc::clone(&bench.shutdown), bench.shutdown.member());
        let error = bench.run(roles).expect_err("a role panicked");
        let RunnerError::Panicked { role, message } = &error else { panic!("{error}") };
        assert_eq!((&**role, message.contains(&format!("broken in {panic_in}"))), ("b", true), "{error}");
        assert!(shutdown.is_requested());
        other.set_drained(true);
        let now = Now { monotonic_ns: 1, utc_ns: 1 };
        assert_eq!(
            (other.phase(now), other.phase(now)),
            (Phase::Drain, Phase::Stop),
            "nobody waits for the one that failed"
        );
    }
}

#[test]
fn a_role_that_cannot_start_stops_the_process() {
    let bench = Bench::new(usize::MAX);
    let roles = vec![bench.role("a"), FakeRole { fails_to_start: true, ..bench.role("b") }];
    let (shutdown, trace) = (Arc::clone(&bench.shutdown), bench.trace.clone());
    let error = bench.run(roles).expect_err("b cannot start");
    assert_eq!(error.to_string(), "b cannot start: no port");
    assert!(shutdown.is_requested());
    assert_eq!(trace.count("a poll"), 0);
}

#[test]
fn io_errors_stop_the_process_but_interruptions_do_not() {
    let mut bench = Bench::new(4);
    bench.io.fail_with = Some(ErrorKind::Interrupted);
    let role = bench.role("a");
    bench.run(vec![role]).expect("a signal is no failure");
    let mut bench = Bench::new(usize::MAX);
    bench.io.fail_with = Some(ErrorKind::OutOfMemory);
    let (role, shutdown) = (bench.role("a"), Arc::clone(&bench.shutdown));
    assert!(matches!(bench.run(vec![role]), Err(RunnerError::Io { .. })));
    assert!(shutdown.is_requested());
}

#[test]
fn a_completion_for_nobody_is_a_broken_invariant_of_the_thread() {
    let mut bench = Bench::new(4);
    bench.io.arrived = [(7, 0)].into();
    let role = bench.role("a");
    let error = bench.run(vec![role]).expect_err("there is no role 7");
    assert_eq!(
        error.to_string().split(';').next(),
        Some("thread test stopped on a broken invariant: a completion names role 7 of 1")
    );
}

/// An io that has nothing and a role that has nothing to do, on real threads.
struct NoIo;

impl Io for NoIo {
    type Completion = u8;

    fn now(&mut self) -> Now {
        SystemClock::default().now()
    }

    fn role_of(completion: &u8) -> u8 {
        *completion
    }

    fn submit(&mut self, wait: Option<Duration>) -> std::io::Result<()> {
        if let Some(wait) = wait {
            std::thread::sleep(wait);
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<u8> {
        None
    }
}

struct Nothing(bool);

impl Role<NoIo> for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Receive
    }

    fn start(&mut self, _: &mut NoIo, _: u8, _: Now) -> Result<(), RoleError> {
        Ok(())
    }

    fn complete(&mut self, _: &mut NoIo, _: u8, _: Now) {}

    fn poll(&mut self, _: &mut NoIo, _: Now) -> usize {
        assert!(!self.0, "told to break");
        0
    }

    fn drain(&mut self, _: &mut NoIo, _: Now) -> bool {
        true
    }
}

#[test]
fn threads_end_together_when_one_breaks() {
    let shutdown = Shutdown::new(Duration::from_secs(60));
    let ticks: Vec<Arc<Ticks>> = (0..3).map(|_| Arc::default()).collect();
    let threads: Vec<_> = (0..3)
        .map(|index| {
            let plan = ThreadPlan { name: format!("t{index}"), core: None, idle: PARK, roles: vec![index] };
            let build = move || Ok((NoIo, vec![Box::new(Nothing(index == 1)) as Box<dyn Role<NoIo>>]));
            spawn(&plan, &shutdown, Arc::clone(&ticks[index]), build, || ()).expect("a thread")
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("panics are caught")).collect();
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(RunnerError::Panicked { role, .. }) if role == "nothing"));
}

#[test]
fn a_thread_that_cannot_be_built_stops_the_process() {
    let shutdown = Shutdown::new(Duration::from_secs(60));
    let plan = ThreadPlan { name: "t".into(), core: None, idle: PARK, roles: vec![0] };
    let never = || panic!("it did not start");
    let no_ring = || Err(RoleError::new("no ring"));
    let failed = spawn::<NoIo, _, _>(&plan, &shutdown, Arc::default(), no_ring, never).expect("a thread");
    let error = failed.join().expect("no panic").expect_err("cannot be built");
    assert_eq!(error.to_string(), "thread t: no ring");
    assert!(shutdown.is_requested());
    let broken =
        spawn::<NoIo, _, _>(&plan, &shutdown, Arc::default(), || panic!("bad build"), never).expect("a thread");
    assert!(
        matches!(broken.join().expect("caught"), Err(RunnerError::Panicked { message, .. }) if message == "bad build")
    );
}

/// What a drain waits for is asked of the roles that are not drained.
#[test]
fn a_drain_that_does_not_end_says_what_it_waits_for() {
    let bench = Bench::new(1);
    let slow = FakeRole { drains: usize::MAX, waits: Some("two readers".into()), ..bench.role("b") };
    let error = {
        let quick = bench.role("a");
        bench.run(vec![quick, slow]).unwrap_err()
    };
    assert!(error.to_string().contains("b (two readers) not drained"), "{error}");
}

/// Whoever waits for the start hears of it when every role has started, and never if one could not.
#[test]
fn the_start_is_told_when_all_roles_have_started() {
    let started = |roles: fn(&Bench) -> Vec<FakeRole>| {
        let bench = Bench::new(1);
        let (trace, roles) = (bench.trace.clone(), roles(&bench));
        let told = trace.clone();
        let _ = bench.run_and_tell(roles, move || told.add("told"));
        trace.all().into_iter().take_while(|event| !event.ends_with("poll")).collect::<Vec<_>>()
    };
    assert_eq!(started(|bench| vec![bench.role("a"), bench.role("b")]), ["a start 0", "b start 1", "told"]);
    let fails = |bench: &Bench| vec![bench.role("a"), FakeRole { fails_to_start: true, ..bench.role("b") }];
    assert!(!started(fails).contains(&"told".to_owned()));
}

/// A role that cannot go on says so once; the others of its thread drain, and the error comes out at the end.
#[test]
fn a_role_that_cannot_go_on_ends_the_process_in_order() {
    let bench = Bench::new(1000);
    let mut faulty = bench.role("faulty");
    (faulty.is_faulty, faulty.moves) = (true, [1].into());
    let mut other = bench.role("other");
    other.drains = 2;
    let trace = bench.trace.clone();
    let error = bench.run(vec![faulty, other]).unwrap_err();
    assert!(matches!(&error, RunnerError::Failed { role, .. } if role == "faulty"));
    assert_eq!(error.to_string(), "faulty cannot go on: the pool is damaged");
    assert_eq!((trace.count("faulty poll"), trace.count("other poll")), (2, 2));
    assert!(trace.count("other drain") >= 3, "it was not drained to its end");
}

/// All there is of a thread's time, as its accounts have it.
fn accounted_ns(counts: &TickCounts) -> u64 {
    let blocked: u64 = counts.blocked_ns.iter().sum();
    counts.working_ns + blocked + counts.idle_ns + counts.asleep_ns + counts.housekeeping_ns
}

/// Passes of 300 us: one in four is timed role by role, and stands for the others; a report comes each second and at the end.
#[test]
fn a_threads_time_is_accounted_for_and_so_is_that_of_its_roles() {
    let bench = Bench { idle: IdlePolicy::Spin, ..Bench::new(10_000) };
    let (ticks, trace, read) = (Arc::clone(&bench.ticks), bench.trace.clone(), Rc::clone(&bench.io.read));
    let of = |kind, takes_ns| FakeRole { kind: Some(kind), takes_ns, ..bench.role(kind.name()) };
    let roles = vec![of(RoleKind::Ack, 100_000), of(RoleKind::Export, 200_000)];
    bench.run(roles).expect("ends drained");
    let (counts, (times, ended_ns)) = (ticks.read(), *read.borrow());
    // The first reading is for the start of the roles, with the second the first pass begins.
    assert_eq!(accounted_ns(&counts), ended_ns - 2000, "{counts:?}");
    let seconds = ended_ns / 1_000_000_000;
    assert_eq!((trace.count("ack report"), trace.count("export report")), (1 + seconds as usize, 1 + seconds as usize));
    assert_eq!(counts.housekeeping_ns, (1 + seconds) * 1000);
    let all = trace.all();
    assert!(all.iter().rposition(|event| event == "ack report") > all.iter().rposition(|event| event == "ack drain"));
    for (kind, takes_ns) in [(RoleKind::Ack, 101_000), (RoleKind::Export, 201_000)] {
        let (found, took) = (counts.role_ns[kind as usize], counts.passes * takes_ns);
        assert!(found.abs_diff(took) < took / 100, "{kind:?}: {found} of {took} ns");
    }
    assert_eq!((counts.role_ns[RoleKind::Receive as usize], counts.role_ns[RoleKind::Sequence as usize]), (0, 0));
    let timed = (times - counts.passes) / 4;
    assert!(timed > counts.passes / 5 && timed < counts.passes / 3, "{timed} of {} passes were timed", counts.passes);
}

/// What a role waits for is asked of it in a timed pass, and holds until the next.
#[test]
fn time_in_which_a_role_waits_for_somebody_is_charged_to_that() {
    for idle in [PARK, IdlePolicy::Spin] {
        let bench = Bench { idle, ..Bench::new(6) };
        let ticks = Arc::clone(&bench.ticks);
        let blocked = [Some(Blocked::Memory), None, Some(Blocked::Ring), Some(Blocked::Ring)];
        let waits = FakeRole { takes_ns: 1_000_000, blocked: RefCell::new(blocked.into()), ..bench.role("a") };
        let peers = FakeRole { blocked: RefCell::new([Some(Blocked::Peers)].into()), ..bench.role("b") };
        bench.run(vec![waits, peers]).expect("ends drained");
        let counts = ticks.read();
        let ms = counts.blocked_ns.map(|ns| (ns + 100_000) / 1_000_000);
        assert_eq!(ms, [2, 1, 0, 1], "ring, memory, index, peers: {counts:?}");
    }
}

/// A pass that moves something ends what was waited for, also for the passes behind it that are not timed.
#[test]
fn who_works_waits_for_nobody() {
    let bench = Bench::new(10);
    let ticks = Arc::clone(&bench.ticks);
    // The fourth pass is timed, and so is the seventh.
    let mut waits = FakeRole { takes_ns: 400_000, moves: [0, 0, 0, 0, 0, 0, 1].into(), ..bench.role("a") };
    waits.blocked = RefCell::new([Some(Blocked::Index)].into());
    bench.run(vec![waits]).expect("ends drained");
    let counts = ticks.read();
    assert_eq!(counts.blocked_ns.map(|ns| (ns + 100_000) / 400_000), [0, 0, 3, 0], "{counts:?}");
}
