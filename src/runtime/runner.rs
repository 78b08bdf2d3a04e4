//! The only loop: completions, roles, submit, rest. Owns the io and the roles of one thread.
//!
//! Invariants: one clock reading per pass, but for one each millisecond that is timed role by role; a bounded number of completions per pass; the thread waits in `Io::submit`
//! and nowhere else; each pass is charged to one account; however the loop ends, all other runners are asked to drain.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::runtime::clock::Now;
use crate::runtime::cpu;
use crate::runtime::idle::{Idle, IdlePolicy, IdleStep};
use crate::runtime::plan::ThreadPlan;
use crate::runtime::role::{Io, ROLES_PER_THREAD_MAX, Role, RoleError};
use crate::runtime::shutdown::{Member, Phase, Shutdown};
use crate::runtime::ticks::{Charge, Ticks};

/// Most completions taken in one pass, so that no flood of them keeps the roles from their duty cycles.
pub const COMPLETIONS_PER_PASS_MAX: usize = 256;

/// Why a runner ended before everything was drained.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The thread cannot be created.
    #[error(
        "thread {thread}: cannot be created: {source}; check the limits on threads (`ulimit -u`, the cgroup's pids.max)"
    )]
    Spawn {
        /// Name of the thread.
        thread: String,
        /// Why.
        source: std::io::Error,
    },
    /// The thread's io or roles cannot be built.
    #[error("thread {thread}: {source}")]
    Build {
        /// Name of the thread.
        thread: String,
        /// Why.
        source: RoleError,
    },
    /// It was told to end before all roles had started.
    #[error("the process was told to end before it had started")]
    NotStarted,
    /// A role cannot start.
    #[error("{role} cannot start: {source}")]
    Start {
        /// Name of the role.
        role: String,
        /// Why.
        source: RoleError,
    },
    /// A role cannot go on, for a reason outside of this program.
    #[error("{role} cannot go on: {source}")]
    Failed {
        /// Name of the role.
        role: String,
        /// Why.
        source: RoleError,
    },
    /// A role, or the runner's own io, found a broken invariant.
    #[error("{role} stopped on a broken invariant: {message}; this is a defect, please report it with the log")]
    Panicked {
        /// Name of the role, or of the thread.
        role: String,
        /// What it panicked with.
        message: String,
    },
    /// The io cannot go on.
    #[error("thread {thread}: io failed: {source}")]
    Io {
        /// Name of the thread.
        thread: String,
        /// Why.
        source: std::io::Error,
    },
    /// The process was told to end, and roles still had something left when its time was over.
    #[error("thread {thread}: {roles} not drained within {limit:?}; what is not acked is sent again by its publisher")]
    NotDrained {
        /// Name of the thread.
        thread: String,
        /// Names of the roles of this thread that were not drained, or a remark that others were not.
        roles: String,
        /// The time it had.
        limit: Duration,
    },
}

/// What was running when a panic came.
#[derive(Clone, Copy)]
enum Running {
    Runner,
    Role(usize),
}

/// One thread's io and roles, and the loop that drives them.
///
/// Fields are dropped in the order they stand: the io before the roles, whose memory it may have lent to the kernel.
pub struct Runner<I: Io> {
    thread: String,
    io: I,
    roles: Vec<Box<dyn Role<I>>>,
    names: Vec<String>,
    drained: Vec<bool>,
    idle: Idle,
    ticks: Arc<Ticks>,
    /// Passes since the last one that was timed role by role, and when that began.
    passes: u64,
    sampled_ns: u64,
    /// This pass is timed role by role, and stands for so many; 0: it is not.
    stands_for: u64,
    /// For whom a role waited when that was last asked.
    blocked: Option<Charge>,
    reported_ns: u64,
    member: Member,
    running: Running,
    /// The first role that cannot go on; the others drain.
    failure: Option<RunnerError>,
    /// When it was said last what a drain waits for, or when the drain began.
    drain_said_ns: Option<u64>,
}

/// How often a drain says what it waits for.
const DRAIN_SAY_NS: u64 = 1_000_000_000;
/// How often a pass is timed role by role, ns.
const SAMPLE_NS: u64 = 1_000_000;
/// How often the roles report what they have counted, ns.
const REPORT_NS: u64 = 1_000_000_000;
/// Taking the io down is said if it takes longer than this.
const TAKE_DOWN_SAY: Duration = Duration::from_millis(200);

impl<I: Io> Runner<I> {
    /// Roles are driven, and numbered, in the order given.
    ///
    /// # Panics
    /// If there are no roles or more than [`ROLES_PER_THREAD_MAX`]: the plan has neither.
    pub fn new(
        thread: impl Into<String>,
        io: I,
        roles: Vec<Box<dyn Role<I>>>,
        idle: IdlePolicy,
        ticks: Arc<Ticks>,
        member: Member,
    ) -> Self {
        assert!(!roles.is_empty() && roles.len() <= ROLES_PER_THREAD_MAX, "a thread has 1 to 256 roles");
        let names = roles.iter().map(|role| role.name().to_owned()).collect();
        let drained = vec![false; roles.len()];
        let idle = Idle::new(idle);
        Runner {
            thread: thread.into(),
            io,
            roles,
            names,
            drained,
            idle,
            ticks,
            passes: 0,
            sampled_ns: 0,
            stands_for: 0,
            blocked: None,
            reported_ns: 0,
            member,
            running: Running::Runner,
            failure: None,
            drain_said_ns: None,
        }
    }

    /// Starts the roles and drives them until the process ends. On the thread that is to run them.
    ///
    /// # Errors
    /// [`RunnerError`]; the other runners have then been asked to drain.
    pub fn run(self) -> Result<(), RunnerError> {
        self.run_and_tell(|| ())
    }

    /// As [`run`](Runner::run); calls `started` when all its roles have started.
    ///
    /// # Errors
    /// As [`run`](Runner::run).
    pub fn run_and_tell(mut self, started: impl FnOnce()) -> Result<(), RunnerError> {
        // Nothing of the runner is used after a panic but names and the request to end, so none of it can be seen
        // broken.
        let result = catch_unwind(AssertUnwindSafe(|| self.start_and_loop(started)));
        let result = result.unwrap_or_else(|panic| Err(self.panicked(&*panic)));
        if result.is_err() {
            self.member.request();
        }
        self.take_down();
        result
    }

    /// Gives everything back. What the kernel still has is waited for by the io: if that takes long, it is said.
    fn take_down(self) {
        let Runner { thread, io, roles, .. } = self;
        let began = Instant::now();
        drop(io);
        drop(roles);
        if began.elapsed() > TAKE_DOWN_SAY {
            log::info!("thread {thread}: the kernel gave its memory back after {} ms", began.elapsed().as_millis());
        }
    }

    fn start_and_loop(&mut self, started: impl FnOnce()) -> Result<(), RunnerError> {
        self.start()?;
        started();
        let mut pass_began = self.io.now();
        self.reported_ns = pass_began.monotonic_ns;
        loop {
            match self.member.phase(pass_began) {
                Phase::Stop => {
                    self.report(pass_began);
                    self.roles.iter_mut().for_each(|role| role.end());
                    return self.failure.take().map_or(Ok(()), Err);
                }
                Phase::TimedOut => return Err(self.failure.take().unwrap_or_else(|| self.not_drained())),
                phase => {
                    let (charge, moved) = self.pass(phase, pass_began)?;
                    let now = self.io.now();
                    let elapsed_ns = now.monotonic_ns - pass_began.monotonic_ns;
                    self.ticks.charge(charge, elapsed_ns, moved as u64, now.monotonic_ns);
                    pass_began = if now.monotonic_ns - self.reported_ns >= REPORT_NS { self.report(now) } else { now };
                }
            }
        }
    }

    /// The roles report. Gives the time after that.
    fn report(&mut self, now: Now) -> Now {
        self.reported_ns = now.monotonic_ns;
        for (index, role) in self.roles.iter_mut().enumerate() {
            self.running = Running::Role(index);
            role.report(now);
        }
        self.running = Running::Runner;
        let after = self.io.now();
        self.ticks.charge(Charge::Housekeeping, after.monotonic_ns - now.monotonic_ns, 0, after.monotonic_ns);
        after
    }

    fn start(&mut self) -> Result<(), RunnerError> {
        let now = self.io.now();
        for index in 0..self.roles.len() {
            self.running = Running::Role(index);
            self.roles[index]
                .start(&mut self.io, index as u8, now)
                .map_err(|source| RunnerError::Start { role: self.names[index].clone(), source })?;
        }
        self.running = Running::Runner;
        Ok(())
    }

    /// A pass begins: now and then one is timed role by role. Each role's time costs two readings of the clock.
    fn begin_sample(&mut self, now: Now) {
        self.passes += 1;
        self.stands_for = 0;
        if now.monotonic_ns - self.sampled_ns >= SAMPLE_NS {
            self.sampled_ns = now.monotonic_ns;
            (self.stands_for, self.blocked) = (std::mem::take(&mut self.passes), None);
        }
    }

    /// When a role's turn begins, if it is timed.
    fn begin_turn(&mut self) -> Option<u64> {
        (self.stands_for > 0).then(|| self.io.now().monotonic_ns)
    }

    fn end_turn(&mut self, index: usize, began_ns: Option<u64>) {
        if let Some(began_ns) = began_ns {
            let elapsed_ns = self.io.now().monotonic_ns - began_ns;
            self.ticks.sampled(self.roles[index].kind(), elapsed_ns, self.stands_for);
        }
    }

    /// One pass: what it was, and how much moved.
    fn pass(&mut self, phase: Phase, now: Now) -> Result<(Charge, usize), RunnerError> {
        self.begin_sample(now);
        let mut moved = self.take_completions(now);
        match phase {
            Phase::Run => moved += self.poll(now),
            _ => self.drain(now),
        }
        if moved > 0 {
            self.idle.worked();
            self.submit(None)?;
            return Ok((Charge::Working, moved));
        }
        Ok((self.rest(now)?, 0))
    }

    fn take_completions(&mut self, now: Now) -> usize {
        self.running = Running::Runner;
        for taken in 0..COMPLETIONS_PER_PASS_MAX {
            let Some(completion) = self.io.next_completion() else {
                return taken;
            };
            let index = usize::from(I::role_of(&completion));
            assert!(index < self.roles.len(), "a completion names role {index} of {}", self.roles.len());
            self.running = Running::Role(index);
            let began_ns = self.begin_turn();
            self.roles[index].complete(&mut self.io, completion, now);
            self.end_turn(index, began_ns);
            self.running = Running::Runner;
        }
        COMPLETIONS_PER_PASS_MAX
    }

    fn poll(&mut self, now: Now) -> usize {
        let mut moved = 0;
        // In two loops, since nearly every pass is of the first kind.
        if self.stands_for == 0 {
            for index in 0..self.roles.len() {
                moved += self.poll_one(index, now);
            }
        } else {
            for index in 0..self.roles.len() {
                let began_ns = self.begin_turn();
                moved += self.poll_one(index, now);
                self.end_turn(index, began_ns);
            }
        }
        self.running = Running::Runner;
        moved
    }

    #[inline(always)]
    fn poll_one(&mut self, index: usize, now: Now) -> usize {
        self.running = Running::Role(index);
        let role = &mut self.roles[index];
        let done = role.poll(&mut self.io, now);
        if done == 0
            && self.failure.is_none()
            && let Some(source) = role.fault()
        {
            self.fail(index, source);
        }
        done
    }

    /// A role cannot go on: the others drain.
    #[cold]
    fn fail(&mut self, index: usize, source: RoleError) {
        let failure = RunnerError::Failed { role: self.names[index].clone(), source };
        log::error!("{failure}; the process ends");
        self.failure = Some(failure);
        self.member.request();
    }

    fn drain(&mut self, now: Now) {
        for (index, role) in self.roles.iter_mut().enumerate() {
            self.running = Running::Role(index);
            self.drained[index] = role.drain(&mut self.io, now);
        }
        self.running = Running::Runner;
        let drained = self.drained.iter().all(|drained| *drained);
        self.member.set_drained(drained);
        let said_ns = *self.drain_said_ns.get_or_insert_with(|| {
            log::info!("thread {}: told to end: draining", self.thread);
            now.monotonic_ns
        });
        if !drained && now.monotonic_ns - said_ns >= DRAIN_SAY_NS {
            self.drain_said_ns = Some(now.monotonic_ns);
            log::info!("thread {}: the drain waits for {}", self.thread, self.left());
        }
    }

    /// The roles that are not drained, and what each says it waits for.
    fn left(&self) -> String {
        let left = self.roles.iter().zip(&self.names).zip(&self.drained).filter(|(_, drained)| !**drained);
        let names: Vec<String> = left
            .map(|((role, name), _)| match role.waits_for() {
                Some(what) => format!("{name} ({what})"),
                None => name.clone(),
            })
            .collect();
        if names.is_empty() { "roles of other threads".to_owned() } else { names.join(", ") }
    }

    /// Nothing moved: does what the idle strategy says.
    fn rest(&mut self, now: Now) -> Result<Charge, RunnerError> {
        if self.stands_for > 0 {
            self.blocked = self.roles.iter().find_map(|role| role.blocked()).map(Charge::Blocked);
        }
        let blocked = self.blocked;
        match self.idle.step(now.monotonic_ns) {
            IdleStep::Sleep(longest) if self.roles.iter().all(|role| role.may_sleep()) => {
                self.submit(Some(longest))?;
                self.idle.slept();
                self.ticks.slept();
                return Ok(blocked.unwrap_or(Charge::Asleep));
            }
            IdleStep::Spin => {
                self.submit(None)?;
                std::hint::spin_loop();
            }
            // A role that may not sleep still lets others run: a thread that parks has no core of its own.
            IdleStep::Yield | IdleStep::Sleep(_) => {
                self.submit(None)?;
                std::thread::yield_now();
            }
        }
        Ok(blocked.unwrap_or(Charge::Idle))
    }

    fn submit(&mut self, wait: Option<Duration>) -> Result<(), RunnerError> {
        match self.io.submit(wait) {
            // A signal: the next pass looks at what it asked for.
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            result => result.map_err(|source| RunnerError::Io { thread: self.thread.clone(), source }),
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> RunnerError {
        let role = match self.running {
            Running::Role(index) => self.names[index].clone(),
            Running::Runner => format!("thread {}", self.thread),
        };
        RunnerError::Panicked { role, message: panic_text(panic).to_owned() }
    }

    fn not_drained(&self) -> RunnerError {
        RunnerError::NotDrained { thread: self.thread.clone(), roles: self.left(), limit: self.member.drain_limit() }
    }
}

/// What one thread owns: its io and its roles, in the order they are driven.
pub type Crew<I> = (I, Vec<Box<dyn Role<I>>>);

/// Starts the thread of `plan`: pins it, builds its io and roles there with `build`, and runs them. Calls `started` on it when its io is
/// there and all its roles have started; drops it unused if that fails.
///
/// A core that cannot be pinned to is logged and the thread runs unpinned: slower, not wrong.
///
/// # Errors
/// [`RunnerError::Spawn`]. All others come out of the thread, when it is joined.
pub fn spawn<I, B, S>(
    plan: &ThreadPlan,
    shutdown: &Arc<Shutdown>,
    ticks: Arc<Ticks>,
    build: B,
    started: S,
) -> Result<JoinHandle<Result<(), RunnerError>>, RunnerError>
where
    I: Io + 'static,
    B: FnOnce() -> Result<Crew<I>, RoleError> + Send + 'static,
    S: FnOnce() + Send + 'static,
{
    let (name, core, idle) = (plan.name.clone(), plan.core, plan.idle);
    let member = shutdown.member();
    let thread = name.clone();
    let body = move || {
        if let Some(Err(refused)) = core.map(cpu::pin_current_thread) {
            log::warn!("thread {thread}: {refused}; it runs unpinned");
        }
        if let Some(task) = cpu::current_task() {
            ticks.runs_as(task);
        }
        // A member that is dropped in a panic of `build` counts as drained, but somebody must ask for the end.
        match catch_unwind(AssertUnwindSafe(build)) {
            Ok(Ok((io, roles))) => {
                let runner = Runner::new(thread, io, roles, idle, ticks, member);
                runner.run_and_tell(started)
            }
            Ok(Err(source)) => {
                member.request();
                Err(RunnerError::Build { thread, source })
            }
            Err(panic) => {
                member.request();
                let message = panic_text(&*panic).to_owned();
                Err(RunnerError::Panicked { role: format!("thread {thread}"), message })
            }
        }
    };
    Builder::new().name(name.clone()).spawn(body).map_err(|source| RunnerError::Spawn { thread: name, source })
}

/// What somebody panicked with.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a value that is no text")
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
