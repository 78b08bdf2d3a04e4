//! The broker process: attaches to the pool, takes its brokers' locks, places roles on threads, runs until told to stop.
//!
//! * `account`: what it says of itself in the pool.
//! * [`error`]: why it cannot start, why it ended.
//! * [`preflight`]: what can be told before anything is touched.
//! * `notify`: what a service manager is told.
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

use bytemuck::Zeroable;

use crate::config::{CoherenceMode, Config, Create as ConfigCreate, SlowReaderMode, auto_pool_bytes};
use crate::log::brokers::announce_address;
use crate::log::faults::FaultNotes;
use crate::log::inherit::check_broker;
use crate::log::member::Member;
use crate::log::namesake::look_for_namesake;
use crate::log::topics::Topic;
use crate::log::{Homes, View};
use crate::monitor::server::Monitor;
use crate::net::Ring;
use crate::net::ring::RingError;
use crate::net::socket_options::listen;
use crate::pool::coherence::Coherence;
use crate::pool::layout::Geometry;
use crate::pool::region::{Create, HostLock, Wanted, device_bytes, device_node};
use crate::pool::superblock::{HomeHosts, SuperblockError};
use crate::pool::{Hardware, Keep, Mapped, Memory, Pool, PoolError, Process, Software};
use crate::roles::ack::{AckRole, AckSettings};
use crate::roles::addresses::{AddressBounds, Addresses};
use crate::roles::caretaker::Caretaker;
use crate::roles::export::{Export, ExportSettings};
use crate::roles::handoff::{AckLink, Subscriptions};
use crate::roles::receive::{Receive, ReceiveSettings, SPARE_CONNECTIONS};
use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::when_free::WhenFree;
use crate::roles::sequence::{Sequence, TakeoverSettings};
use crate::roles::tokens::Tokens;
use crate::runtime::cpu::{numa_node, usable_cores};
use crate::runtime::{Role, RoleError, RoleKind, RoleSpec, RunnerError, Shutdown, ThreadPlan, Ticks, plan, spawn};
use crate::runtime::{fault, machine};
use crate::wire::SlowReader;
use crate::wire::frame::LogRecord;

mod account;
pub mod error;
mod notify;
mod places;
pub mod preflight;
mod progress;
mod reload;
pub mod rings;
mod showing;
mod watch;

use account::{Account, Accounted};
pub use error::{RunError, StartError};
use notify::{Manager, Told};
use reload::Reload;
use rings::RingShare;
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

/// The geometry a configuration asks for, on a pool of `pool_bytes`.
pub fn geometry(config: &Config, pool_bytes: u64) -> Geometry {
    let g = &config.geometry;
    Geometry {
        pool_bytes,
        extent_bytes: g.extent_bytes,
        hosts: g.hosts,
        brokers: g.hosts * config.brokers_per_host(),
        lanes_per_broker: g.lanes_per_broker,
        candidates: config.candidates(),
        ring_slots: g.ring_slots,
        segment_entries: g.segment_entries,
        segments: g.segments,
        sessions_max: g.sessions_max,
        topics_max: g.topics_max,
        cursors_max: g.cursors_max,
        extents: 0,
        attached_per_broker: g.attached_per_broker,
        spare_per_host: (config.brokers_per_host() - config.listed_per_host()) as u16,
    }
}

/// The host of each place for a broker, and of each for a sequencer candidate: the former host by host, the latter on the hosts in turn.
pub fn home_hosts(config: &Config) -> HomeHosts {
    let (hosts, of_host) = (config.geometry.hosts, config.brokers_per_host());
    HomeHosts {
        brokers: (0..hosts * of_host).map(|place| place / of_host).collect(),
        candidates: (0..config.candidates()).map(|place| place % hosts).collect(),
    }
}

/// Length a new pool of this configuration would have, bytes.
pub fn pool_bytes(config: &Config) -> Result<u64, StartError> {
    if let Some(bytes) = config.pool.bytes {
        return Ok(bytes);
    }
    let path = &config.pool.path;
    if let Some(bytes) = device_bytes(path)? {
        return Ok(bytes);
    }
    let free = |source| StartError::Free { path: path.clone(), source };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let free_bytes = crate::pool::region::free_bytes(folder).map_err(free)?;
    let available = available_memory().map_err(free)?;
    // A container's limit says less than the machine has, and what is above it is killed without a word.
    let limit = machine::memory_room().filter(|room| room.free_bytes < available);
    let limited = limit.as_ref().map_or(String::new(), |room| {
        format!(
            " (the memory available is what the limit of control group {}, {} bytes, leaves)",
            room.group.display(),
            room.limit_bytes
        )
    });
    let available = limit.map_or(available, |room| room.free_bytes);
    auto_pool_bytes(free_bytes, available).map_err(|source| StartError::AutoPool {
        path: path.clone(),
        source,
        limited,
    })
}

/// `MemAvailable`, bytes.
fn available_memory() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemAvailable"))
}

/// Whether a pool may be made: as the command line says, else as the configuration does.
pub fn creation(config: &Config, format: bool, overwrite_foreign: bool) -> Create {
    match (format, config.pool.create) {
        (true, _) if overwrite_foreign => Create::Overwrite,
        (true, _) => Create::Format,
        (false, ConfigCreate::IfMissing) => Create::IfMissing,
        (false, ConfigCreate::Never) => Create::Never,
    }
}

/// What a process with this configuration expects its pool to be, or would make it with so many bytes.
pub fn wanted(config: &Config, pool_bytes: u64) -> Wanted {
    Wanted {
        geometry: geometry(config, pool_bytes),
        any_size: config.pool.bytes.is_none(),
        any_places: config.geometry.brokers_per_host.is_none(),
        any_candidates: config.sequencer.candidates.is_none(),
        homes: home_hosts(config),
        coherence: Some(config.pool.coherence),
        told: progress::show,
    }
}

/// Opens the configured pool.
pub fn open_pool(config: &Config, create: Create) -> Result<Pool, StartError> {
    let path = &config.pool.path;
    let open = |bytes, create| Pool::open_as(path, &wanted(config, bytes), create);
    let is_made = matches!(create, Create::Format | Create::Overwrite);
    let exists = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0 || !meta.is_file());
    if !is_made && (exists || create == Create::Never) {
        // It keeps its size: how much is free now says nothing about it.
        match open(config.pool.bytes.unwrap_or(u64::MAX >> 1), Create::Never) {
            Err(PoolError::Superblock {
                source: SuperblockError::Unformatted | SuperblockError::Short { found: 0 },
                ..
            }) if create == Create::IfMissing => {}
            result => return Ok(result?),
        }
    }
    let bytes = pool_bytes(config)?;
    preflight::memory_limit(config, bytes)?;
    Ok(open(bytes, create)?)
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
        if let Some(node) = device_node(parts.pool.path()) {
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
            let mapping = parts.pool.mapping().clone();
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

fn check_brokers(config: &Config, brokers: &[u32]) -> Result<(), StartError> {
    let last = config.brokers.len() as u32 - 1;
    if let Some(found) = brokers.iter().find(|broker| **broker > last) {
        return Err(StartError::UnknownBroker { found: *found, last });
    }
    let host = |broker: u32| config.brokers[broker as usize].host;
    match brokers.iter().find(|broker| host(**broker) != host(brokers[0])) {
        Some(second) => Err(StartError::TwoHosts { first: brokers[0], second: *second }),
        None => Ok(()),
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

/// Builds one role on the thread that will run it.
type Builder = Box<dyn FnOnce() -> Box<dyn Role<Ring>> + Send>;

/// A role to be built, and what it needs of its thread's ring.
struct RoleBuilder {
    share: RingShare,
    build: Builder,
}

fn build_crew(
    crew: Vec<RoleBuilder>,
    mapping: Arc<crate::pool::Mapping>,
) -> Result<crate::runtime::runner::Crew<Ring>, RoleError> {
    let RingShare { operations, frames } = RingShare::of_thread(crew.iter().map(|role| role.share));
    let ring = Ring::new(operations, frames, mapping).map_err(|error: RingError| RoleError::new(error))?;
    log::info!("{}", ring.mode());
    Ok((ring, crew.into_iter().map(|role| (role.build)()).collect()))
}

/// What a process has taken of a pool, and where it listens.
struct Seats<'a> {
    /// Its brokers, by where the configuration lists them.
    entries: &'a [u32],
    /// The place of each.
    places: &'a [u32],
    /// The listener of each.
    listeners: &'a [Arc<TcpListener>],
    candidate: Option<(u32, HostLock)>,
}

/// The roles of a process before they are placed.
struct Parts<C: Coherence> {
    pool: Pool,
    specs: Vec<RoleSpec>,
    builders: Vec<RoleBuilder>,
    coherence: std::marker::PhantomData<C>,
}

impl<C: Coherence> Parts<C> {
    fn new(config: &Config, seats: Seats<'_>, pool: Pool, view: &View<Mapped<C>>) -> Result<Self, StartError> {
        let Seats { entries, places, listeners, candidate } = seats;
        look_for_namesake(view, 0..view.layout.geometry.members(), Process::this().boot_id)
            .map_err(|source| StartError::Namesake { path: pool.path().into(), source })?;
        let mut parts = Parts { pool, specs: Vec::new(), builders: Vec::new(), coherence: std::marker::PhantomData };
        for (index, (entry, place)) in entries.iter().zip(places).enumerate() {
            check_broker(view, *place)
                .map_err(|source| StartError::Damaged { path: parts.pool.path().into(), source })?;
            let address = config.brokers[*entry as usize].advertised();
            parts.add_broker(config, view, (*place, &address), &listeners[index], index == 0);
        }
        parts.add_sequencer(config, view, candidate, places[0]);
        Ok(parts)
    }

    fn add(&mut self, config: &Config, name: String, kind: RoleKind, broker: u32, build: Builder) {
        self.specs.push(RoleSpec { name, kind, broker });
        self.builders.push(RoleBuilder { share: RingShare::of_role(config, kind), build });
    }

    fn add_broker(
        &mut self,
        config: &Config,
        view: &View<Mapped<C>>,
        (broker, address): (u32, &str),
        listener: &Arc<TcpListener>,
        creates_topics: bool,
    ) {
        let member = Member::announce(view, broker, Process::this());
        let incarnation = member.incarnation();
        announce_address(view, broker, incarnation, address);
        let mut member = Some(member);
        let lanes = config.geometry.lanes_per_broker;
        let seats = config.receive.connections_max + SPARE_CONNECTIONS;
        let links: Vec<_> = (0..lanes).map(|_| AckLink::new(seats)).collect();
        let subscriptions = Arc::new(Subscriptions::new(config.export.connections_max as usize));
        let addresses = Addresses::new(address_bounds(config));
        for lane in 0..lanes {
            let log_tag = self.log_record(config).tag();
            let settings = ReceiveSettings { log_tag, ..receive_settings(config, broker, creates_topics && lane == 0) };
            let tokens = Tokens::new(self.pool.superblock().token_key);
            let (view, listener) = (view.clone(), listener.clone());
            let (link, subscriptions) = (links[lane as usize].clone(), subscriptions.clone());
            let addresses = addresses.clone();
            let (number, member) = (broker * lanes + lane, member.take());
            let build: Builder = Box::new(move || {
                let receive =
                    Receive::new(&view, number, settings, listener, tokens, link, subscriptions).that_shares(addresses);
                Box::new(match member {
                    Some(member) => receive.that_beats(member),
                    None => receive,
                })
            });
            self.add(config, format!("receive {broker}/{number}"), RoleKind::Receive, broker, build);
        }
        let log = self.log_record(config);
        let tokens = Tokens::new(self.pool.superblock().token_key);
        let settings = AckSettings { log, ..ack_settings(config, broker) };
        let ack_view = view.clone();
        let build: Builder =
            Box::new(move || Box::new(AckRole::new(&ack_view, broker, settings, tokens, links, seats)));
        self.add(config, format!("ack {broker}"), RoleKind::Ack, broker, build);
        let settings = ExportSettings { log, ..export_settings(config, broker) };
        let export_view = view.clone();
        let build: Builder =
            Box::new(move || Box::new(Export::new(&export_view, broker, incarnation, settings, subscriptions)));
        self.add(config, format!("export {broker}"), RoleKind::Export, broker, build);
    }

    /// What clients are told of the log.
    fn log_record(&self, config: &Config) -> LogRecord {
        let superblock = self.pool.superblock();
        LogRecord {
            uuid: superblock.uuid,
            fork: superblock.fork,
            forked_at: superblock.forked_at,
            heartbeat_ms: config.liveness.heartbeat.as_millis() as u32,
            ..LogRecord::zeroed()
        }
    }

    fn add_sequencer(
        &mut self,
        config: &Config,
        view: &View<Mapped<C>>,
        candidate: Option<(u32, HostLock)>,
        broker: u32,
    ) {
        let settings = SequencerSettings {
            session_lease_ns: config.sequencer.session_lease.as_nanos() as u64,
            session_expiry_ns: config.sequencer.session_expiry.as_nanos() as u64,
            retention_bytes: config.retention.bytes,
            retention_ns: config.retention.age.as_nanos() as u64,
            reader_stall_ns: config.export.reader_stall.as_nanos() as u64,
            member_silence_ns: config.liveness.member_silence.as_nanos() as u64,
        };
        let takeover = TakeoverSettings {
            after_ns: config.sequencer.takeover_after.as_nanos() as u64,
            settle_ns: config.sequencer.takeover_settle.as_nanos() as u64,
        };
        let (view, pool) = (view.clone(), self.pool.clone());
        let name = candidate.as_ref().map_or("sequence".into(), |(slot, _)| format!("sequence {slot}"));
        let build: Builder = Box::new(move || match candidate {
            Some((slot, lock)) => Box::new(Sequence::new(&view, pool, slot, lock, settings, takeover)),
            None => Box::new(WhenFree::new(&view, pool, settings, takeover)),
        });
        self.add(config, name, RoleKind::Sequence, broker, build);
    }
}

/// What an address may have of one broker.
fn address_bounds(config: &Config) -> AddressBounds {
    let (bounds, geometry) = (&config.per_address, &config.geometry);
    let served = (config.receive.connections_max * geometry.lanes_per_broker).min(config.export.connections_max);
    let half = |of: u32| (of / 2).max(1);
    let connections = bounds.connections.unwrap_or(half(served));
    AddressBounds {
        connections,
        sessions: bounds.sessions.unwrap_or(half(geometry.sessions_max)),
        topics: bounds.topics.unwrap_or(half(geometry.topics_max)),
        cursors: bounds.cursors.unwrap_or(half(geometry.cursors_max)),
        openings: bounds.openings,
        heartbeats: bounds.heartbeats,
        // Everything an address may hold comes back at once when a broker was away: a connection, and a session on it.
        openings_at_once: bounds.openings_at_once.unwrap_or(connections.saturating_mul(2)),
    }
}

fn receive_settings(config: &Config, broker: u32, creates_topics: bool) -> ReceiveSettings {
    let topic = |topic: &crate::config::TopicConfig| Topic {
        receipts: topic.receipts,
        replicas: topic.replicas,
        retention_bytes: topic.retention.bytes,
        retention_ns: topic.retention.age.as_nanos() as u64,
        ..Topic::new(&topic.name, topic.order, topic.ack)
    };
    ReceiveSettings {
        session_expiry_ns: config.sequencer.session_expiry.as_nanos() as u64,
        connections_max: config.receive.connections_max,
        receive_bytes_max: config.receive.receive_bytes_max,
        landing_bytes: crate::limits::LANDING_BYTES,
        landing_buffers: crate::limits::LANDING_BUFFERS,
        hello_timeout_ns: config.receive.hello_timeout.as_nanos() as u64,
        idle_release_ns: config.receive.idle_release.as_nanos() as u64,
        client_silence_ns: config.liveness.client_silence.as_nanos() as u64,
        heartbeat_ms: config.liveness.heartbeat.as_millis() as u32,
        broker: broker as u16,
        log_tag: 0,
        // Every broker exports: its readers want the lines.
        keep: Keep::Cached,
        topics: if creates_topics { config.topics.iter().map(topic).collect() } else { Vec::new() },
    }
}

fn ack_settings(config: &Config, broker: u32) -> AckSettings {
    AckSettings {
        send: config.ack.send,
        zero_copy_from_bytes: config.ack.zero_copy_from_bytes,
        open_timeout_ns: config.receive.hello_timeout.as_nanos() as u64,
        broker: broker as u16,
        log: LogRecord::zeroed(),
    }
}

fn export_settings(config: &Config, broker: u32) -> ExportSettings {
    ExportSettings {
        connections_max: config.export.connections_max,
        batches_per_send: config.export.batches_per_send,
        send: config.export.send,
        slow_reader: match config.export.slow_reader {
            SlowReaderMode::Wait => SlowReader::Wait,
            SlowReaderMode::Skip => SlowReader::Skip,
            SlowReaderMode::Disconnect => SlowReader::Disconnect,
        },
        reader_stall_ns: config.export.reader_stall.as_nanos() as u64,
        reader_lag_max: config.export.reader_lag_max,
        reader_wait_max_ns: config.export.reader_wait_max.as_nanos() as u64,
        return_grace_ns: config.export.return_grace.as_nanos() as u64,
        reader_grace_ns: config.export.reader_grace.as_nanos() as u64,
        broker: broker as u16,
        log: LogRecord::zeroed(),
        client_silence_ns: config.liveness.client_silence.as_nanos() as u64,
    }
}
