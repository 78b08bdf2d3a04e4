//! The broker process: attaches to the pool, takes its brokers' locks, places roles on threads, runs until told to stop.
//!
//! * `account`: what it says of itself in the pool.
//! * `crew`: its roles.
//! * [`error`]: why it cannot start, why it ended.
//! * [`preflight`]: what can be told before anything is touched.
//! * `notify`: what a service manager is told.
//! * `pool`: the pool that its configuration asks for.
//! * `places`: which places in the pool it takes.
//! * `progress`: how far its memory is made ready.
//! * `reload`: what a SIGHUP changes.
//! * `showing`: where it shows itself.
//! * [`rings`]: what each role needs of the ring of its thread.
//! * `watch`: whether the pool is still what it was.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{CoherenceMode, Config};
use crate::log::faults::FaultNotes;
use crate::log::{Homes, View};
use crate::monitor::server::Monitor;
use crate::net::socket_options::listen;
use crate::pool::coherence::Coherence;
use crate::pool::region::{HostLock, device_node};
use crate::pool::{Hardware, Mapped, Memory, Pool, Software};
use crate::roles::caretaker::Caretaker;
use crate::runtime::cpu::{numa_node, usable_cores};
use crate::runtime::fault;
use crate::runtime::{RunnerError, Shutdown, ThreadPlan, Ticks, plan, spawn};

mod account;
mod crew;
pub mod error;
mod notify;
mod places;
mod pool;
pub mod preflight;
mod progress;
mod reload;
pub mod rings;
mod showing;
mod watch;

use account::{Account, Accounted};
use crew::{Parts, Seats, build_crew};
pub use error::{RunError, StartError};
use notify::{Manager, Told};
use places::check_brokers;
pub use pool::{creation, geometry, home_hosts, open_pool, pool_bytes, wanted};
use reload::Reload;
use watch::{Chores, LOOK_EVERY, Watch};

/// Time the roles have to finish after being told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// How long a port may still be in the hands of a predecessor that was killed: on a busy machine that took more than 2 s.
const PORT_WAIT: Duration = Duration::from_secs(5);
const PORT_LOOK_EVERY: Duration = Duration::from_millis(10);

/// One of its threads.
struct Running {
    name: String,
    ticks: Arc<Ticks>,
    handle: JoinHandle<Result<(), RunnerError>>,
}

/// A running broker process. One that is dropped is stopped first: its locks live as long as the threads that write under them.
pub struct Embarlet {
    threads: Vec<Running>,
    shutdown: Arc<Shutdown>,
    addresses: Vec<SocketAddr>,
    places: Vec<u32>,
    pool: Pool,
    watch: Option<Watch>,
    monitor: Option<Monitor>,
    _locks: Vec<HostLock>,
}

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// The brokers to run, by where the configuration lists them, from 0; all of one host.
    pub brokers: Vec<u32>,
    /// Format the pool first.
    pub format: bool,
    /// Format it even if what is there is not a pool.
    pub overwrite_foreign: bool,
    /// The process is the brokers' own: it is told to stop by signals, and a fault of the pool's memory ends it with a record. Else by
    /// [`Embarlet::stop`] alone.
    pub on_signals: bool,
    /// The configuration's file, which a SIGHUP reads again.
    pub file: Option<PathBuf>,
}

impl Embarlet {
    /// Starts the brokers named in `options`.
    pub fn start(config: &Config, options: &StartOptions) -> Result<Embarlet, StartError> {
        check_brokers(config, &options.brokers)?;
        plan(&preflight::role_specs(config, &options.brokers, Some(0)), &usable_cores()?, &config.rested_threads())?;
        if let Some(warning) = preflight::descriptors(config, &options.brokers)? {
            log::warn!("{warning}");
        }
        let pool = open_pool(config, creation(config, options.format, options.overwrite_foreign))?;
        log::info!(
            "pool {}: {}, {} bytes, uuid {:016x}{:016x}, write-back by {}",
            pool.path().display(),
            if pool.was_formatted() { "formatted" } else { "attached" },
            pool.layout().geometry.pool_bytes,
            pool.superblock().uuid[1],
            pool.superblock().uuid[0],
            pool.mapping().flush_name()
        );
        log::info!("checksums: {}; writes: {}", crate::crc::described(), crate::pool::writes_described());
        let started = match config.pool.coherence {
            CoherenceMode::Software => {
                log::info!("coherence: software (lines are written back and dropped explicitly)");
                Self::start_on::<Software>(config, options, pool.clone())
            }
            CoherenceMode::Hardware => {
                log::info!("coherence: hardware (lines are never written back: one host, or CXL 3 back-invalidation)");
                Self::start_on::<Hardware>(config, options, pool.clone())
            }
        };
        if started.is_err() {
            pool.take_away();
        }
        started
    }

    fn start_on<C: Coherence>(config: &Config, options: &StartOptions, pool: Pool) -> Result<Embarlet, StartError> {
        if options.on_signals {
            watch_for_bus_errors(&pool);
        }
        let homes = Homes::new(config.brokers[options.brokers[0] as usize].host, pool.superblock().homes());
        let view = View::new(Mapped::<C>::new(pool.mapping().clone()), pool.layout().clone(), homes);
        let (places, locks) = places::take(config, &options.brokers, &pool, &view)?;
        if options.on_signals {
            let notes = FaultNotes::open(&view, places[0]);
            fault::note_with(Box::new(move |offset| notes.note(offset)));
        }
        let candidate = places::take_candidate(&places, &pool, &view)?;
        let slot = candidate.as_ref().map(|(slot, _)| *slot);
        let listeners = bind(config, &options.brokers)?;
        let shown_at = showing::listen(config.monitor.address, options.brokers[0])?;
        if config.pool.populate {
            pool.populate(progress::show);
        }
        let seats = Seats { entries: &options.brokers, places: &places, listeners: &listeners, candidate };
        let parts = Parts::<C>::new(config, seats, pool.clone(), &view)?;
        assert_eq!(parts.specs, preflight::role_specs(config, &places, slot), "what was looked at is what runs");
        let plan = plan(&parts.specs, &usable_cores()?, &config.rested_threads())?;
        plan.describe(&parts.specs).lines().for_each(|line| log::info!("{line}"));
        if let Some(node) = device_node(pool.path()) {
            plan.describe_distance(node, numa_node).lines().for_each(|line| log::info!("{line}"));
        }
        let shutdown = Shutdown::new(DRAIN_LIMIT);
        if options.on_signals
            && let Err(error) = shutdown.on_signals()
        {
            log::warn!("signals cannot be caught ({error}): stop this process with SIGKILL; nothing acked is lost");
        }
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let mut builders: Vec<_> = parts.builders.into_iter().map(Some).collect();
        let mut embarlet = Embarlet {
            threads: Vec::new(),
            shutdown,
            addresses,
            places,
            pool,
            watch: None,
            monitor: None,
            _locks: locks,
        };
        let (started, starts) = channel();
        for thread in &plan.threads {
            let ticks = Arc::new(Ticks::default());
            let crew: Vec<_> =
                thread.roles.iter().map(|role| builders[*role].take().expect("each role once")).collect();
            let mapping = embarlet.pool.mapping().clone();
            let build = move || build_crew(crew, mapping);
            let started = started.clone();
            // Nobody may wait any more: another thread could not start.
            let tell = move || {
                let _ = started.send(());
            };
            let handle = spawn(thread, &embarlet.shutdown, ticks.clone(), build, tell)?;
            embarlet.threads.push(Running { name: thread.name.clone(), ticks, handle });
        }
        // One that fails drops its end without a word.
        drop(started);
        if starts.iter().count() < embarlet.threads.len() {
            embarlet.stop();
            return Err(embarlet.end(|_| ()).err().unwrap_or_else(|| RunnerError::NotStarted).into());
        }
        embarlet.begin_chores(&view, &plan.threads, config, options)?;
        embarlet.monitor = shown_at.and_then(|listener| showing::begin(listener, &embarlet.pool, &embarlet.places));
        Ok(embarlet)
    }

    /// Begins with housekeeping, once every thread runs. A process of its own tells its service manager, if it has one, that it is ready.
    fn begin_chores<M: Memory>(
        &mut self,
        view: &View<M>,
        plans: &[ThreadPlan],
        config: &Config,
        options: &StartOptions,
    ) -> Result<(), RunnerError> {
        let is_own = options.on_signals;
        let manager = if is_own { Manager::of_this_process() } else { Manager::default() };
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        manager.ready(&format!("brokers {:?} listen on {}", self.places, addresses.join(", ")));
        let accounted = plans.iter().zip(&self.threads).map(|(plan, running)| Accounted::new(plan, &running.ticks));
        let threads = self.threads.iter().map(|thread| thread.ticks.clone()).collect();
        let watch = Watch::start(Chores {
            pool: self.pool.clone(),
            shutdown: self.shutdown.clone(),
            caretaker: Caretaker::new(view),
            account: Account::begin(view, &self.places, accounted.collect()),
            reload: if is_own { Reload::on_signal(config, options.file.clone()) } else { None },
            told: Told::new(manager, threads, LOOK_EVERY),
        });
        self.watch = Some(watch.map_err(|source| RunnerError::Spawn { thread: "housekeeping".into(), source })?);
        Ok(())
    }

    /// Where its brokers listen, in the order they were named.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its status page is, if it shows one.
    pub fn shown_at(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::address)
    }

    /// The numbers its brokers have in the pool, in the order they were named.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// Tells it to drain and stop.
    pub fn stop(&self) {
        self.shutdown.request();
    }

    /// Waits until every thread has ended; the first failure is the answer.
    ///
    /// # Errors
    /// [`RunError`], if it ended by itself or could not end in order.
    pub fn join(mut self) -> Result<(), RunError> {
        let ended = self.end(|error| log::error!("{error}"));
        match self.watch.take().and_then(|mut watch| watch.stop()) {
            Some(lost) => Err(RunError::PoolLost { path: self.pool.path().into(), lost }),
            None => Ok(ended?),
        }
    }

    /// Waits until every thread has ended; `tell` is told of each that failed.
    fn end(&mut self, tell: impl Fn(&RunnerError)) -> Result<(), RunnerError> {
        let mut first = Ok(());
        for Running { name, ticks, handle } in std::mem::take(&mut self.threads) {
            let ended = handle.join().unwrap_or_else(|_| {
                Err(RunnerError::Panicked { role: format!("thread {name}"), message: "the runner itself".into() })
            });
            let counts = ticks.read();
            let total = (counts.working_ns + counts.idle_ns + counts.asleep_ns).max(1) as f64 / 100.0;
            log::info!(
                "thread {name}: working {:.1} %, idle {:.1} %, asleep {:.1} %, {} passes",
                counts.working_ns as f64 / total,
                counts.idle_ns as f64 / total,
                counts.asleep_ns as f64 / total,
                counts.passes
            );
            if let Err(error) = ended {
                tell(&error);
                first = first.and(Err(error));
            }
        }
        first
    }
}

impl Drop for Embarlet {
    fn drop(&mut self) {
        self.stop();
        // Whoever drops it does not ask how it ended; failures are in the log.
        let _ = self.end(|error| log::error!("{error}"));
    }
}

fn watch_for_bus_errors(pool: &Pool) {
    let mapping = pool.mapping();
    if let Err(error) = fault::watch(pool.path(), mapping.address(0, 0), mapping.bytes()) {
        log::warn!(
            "bus errors cannot be caught ({error}): should the pool's memory fail, the process is killed without a word"
        );
    }
}

fn bind(config: &Config, brokers: &[u32]) -> Result<Vec<Arc<TcpListener>>, StartError> {
    let one = |broker: &u32| {
        let address = config.brokers[*broker as usize].address;
        listen_patiently(address).map_err(|source| StartError::Listen { broker: *broker, address, source })
    };
    brokers.iter().map(one).collect()
}

/// A killed predecessor's port is free only when the kernel has taken its io_uring down, which it does after the process
/// is gone: a restart at once must not fail for that.
fn listen_patiently(address: SocketAddr) -> std::io::Result<Arc<TcpListener>> {
    let (begin, mut is_told) = (Instant::now(), false);
    loop {
        match listen(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && begin.elapsed() < PORT_WAIT => {
                if !std::mem::replace(&mut is_told, true) {
                    log::info!("{address} is in use: waiting up to {PORT_WAIT:?} for a predecessor to be gone");
                }
                std::thread::sleep(PORT_LOOK_EVERY);
            }
            result => return result,
        }
    }
}
