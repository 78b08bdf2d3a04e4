//! Where a test runs: a site (folder, pool, addresses, configuration), brokers in this process or in others, their counters.
//!
//! Whatever a site made is gone when it is dropped, also when its test fails.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use embarcadero::config::Config;
use embarcadero::embarlet::{Embarlet, StartOptions, geometry, home_hosts};
use embarcadero::observe::counters::{AckCounters, Counters, ExportCounters, ReceiveCounters, SequencerCounters};
use embarcadero::pool::region::Create;
use embarcadero::pool::{Hardware, Mapped, Memory, Pool};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};
use embarcadero::{ClientError, PublisherOptions, Start, SubscriberOptions, TopicProperties, create_topic};
use launch::configuration::Configuration;
use launch::place::own_address;
use launch::process::End;

pub use launch::process::Signal;

/// How long a test waits for anything before it fails: far above what it takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `look` gives something.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    launch::wait_for(LIMIT, look).unwrap_or_else(|| panic!("waited {LIMIT:?} for {what}"))
}

/// Work on a thread of its own, waited for with a deadline.
pub struct Task<T> {
    name: String,
    result: Receiver<thread::Result<T>>,
}

impl<T: Send + 'static> Task<T> {
    pub fn spawn(name: impl Into<String>, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        let (sender, result) = channel();
        // The receiver may have given up and be gone.
        thread::spawn(move || drop(sender.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)))));
        Task { name: name.into(), result }
    }

    /// Its result; its panic goes on here.
    pub fn join(self) -> T {
        match self.result.recv_timeout(2 * LIMIT) {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => panic!("waited {:?} for {} to end", 2 * LIMIT, self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended without a word", self.name),
        }
    }
}

/// What a site is to be; sections are the inside of YAML flow mappings.
pub struct Setup {
    pub brokers: u32,
    /// Hosts that the brokers take themselves to be on, in equal parts: they then judge each other by heartbeats.
    pub hosts: u32,
    pub pool: &'static str,
    pub geometry: &'static str,
    pub sequencer: &'static str,
    pub receive: &'static str,
    pub per_address: &'static str,
    pub export: &'static str,
}

/// All clients of a test come from one address: it may have everything.
pub const ANY: &str = "connections: 10000, sessions: 100000, topics: 10000, cursors: 10000, openings: 0";

impl Default for Setup {
    /// Small: every ring, segment and extent is used many times over.
    fn default() -> Setup {
        Setup {
            brokers: 4,
            hosts: 1,
            pool: "bytes: 64MiB",
            geometry: "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 64, topics_max: 16",
            sequencer: "session_lease: 5s",
            receive: "connections_max: 64, hello_timeout: 5s",
            per_address: ANY,
            export: "connections_max: 16",
        }
    }
}

/// Folder, pool, addresses and configuration of one test.
pub struct Site {
    pub brokers: u32,
    folder: PathBuf,
    pub pool: PathBuf,
    pub config_file: PathBuf,
    pub config: Config,
}

impl Site {
    /// `name` is for people who look into a folder while a test runs.
    pub fn new(name: &str, setup: &Setup) -> Site {
        let address = own_address();
        let unique =
            format!("embarcadero-system-{}-{name}-{}", std::process::id(), address.rsplit('.').next().unwrap());
        let folder = std::env::temp_dir().join(&unique);
        std::fs::create_dir_all(&folder).unwrap();
        let pool = Path::new("/dev/shm").join(&unique);
        let addresses: Vec<String> = (0..setup.brokers).map(|id| format!("{address}:{}", 7300 + id)).collect();
        let text = Configuration::new(&pool, &format!("populate: false, {}", setup.pool))
            .section("geometry", &format!("hosts: {}, {}", setup.hosts, setup.geometry))
            .brokers_on(&addresses, |id| id * setup.hosts / setup.brokers)
            .section("sequencer", setup.sequencer)
            .section("receive", setup.receive)
            .section("per_address", setup.per_address)
            .section("export", setup.export)
            .text();
        let config_file = folder.join("embarlet.yaml");
        std::fs::write(&config_file, &text).unwrap();
        let config = Config::parse(&text, "embarlet.yaml").unwrap_or_else(|error| panic!("{error}\n{text}"));
        Site { brokers: setup.brokers, folder, pool, config_file, config }
    }

    /// `host:port` of a broker.
    pub fn address(&self, broker: u32) -> String {
        self.config.brokers[broker as usize].address.to_string()
    }

    /// All of them.
    pub fn addresses(&self) -> Vec<String> {
        (0..self.brokers).map(|broker| self.address(broker)).collect()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// All brokers in this process.
    pub fn start(&self) -> Cluster {
        self.start_some((0..self.brokers).collect())
    }

    /// Some of the brokers in this process, on a mapping and with locks of their own.
    pub fn start_some(&self, brokers: Vec<u32>) -> Cluster {
        let _ = env_logger::Builder::new().filter_level(log::LevelFilter::Info).is_test(true).try_init();
        let options = StartOptions { brokers, ..StartOptions::default() };
        let embarlet = Embarlet::start(&self.config, &options).unwrap_or_else(|error| panic!("cannot start: {error}"));
        Cluster { embarlet: Some(embarlet) }
    }

    /// Brokers in another process; returns once they listen.
    pub fn process(&self, arguments: &[&str]) -> Process {
        let process = Process::spawn(self, arguments);
        process.wait_for_line("ready: brokers");
        process
    }

    pub fn create_topic(&self, name: &str, order: OrderLevel, receipts: Receipts) {
        let ack = if order == OrderLevel::None { AckLevel::None } else { AckLevel::Committed };
        self.try_create_topic(name, TopicProperties { order, ack, receipts, ..TopicProperties::default() })
            .unwrap_or_else(|error| panic!("topic {name} of order level {order}: {error}"));
    }

    pub fn try_create_topic(&self, name: &str, properties: TopicProperties) -> Result<(), ClientError> {
        create_topic(&self.addresses(), name, &properties, LIMIT)
    }

    /// A publisher over all brokers.
    pub fn publisher(&self, topic: &str) -> PublisherOptions {
        PublisherOptions {
            brokers: self.addresses(),
            topic: topic.to_owned(),
            batch_bytes: 4096,
            connect_timeout: LIMIT,
            ..PublisherOptions::default()
        }
    }

    /// A subscriber that begins at one broker.
    pub fn subscriber(&self, topic: &str, broker: u32, start: Start) -> SubscriberOptions {
        SubscriberOptions {
            brokers: vec![self.address(broker)],
            topic: topic.to_owned(),
            start,
            connect_timeout: LIMIT,
            ..SubscriberOptions::default()
        }
    }

    /// Its pool, attached once more.
    pub fn pool_now(&self) -> Pool {
        let bytes = std::fs::metadata(&self.pool).unwrap().len();
        Pool::open(&self.pool, geometry(&self.config, bytes), &home_hosts(&self.config), true, Create::Never).unwrap()
    }

    /// The counters as the last process left them. Roles copy them out once a second, and when they have drained.
    pub fn counters(&self) -> PoolCounters {
        let pool = self.pool_now();
        let memory: Mapped<Hardware> = Mapped::new(pool.mapping().clone());
        let (layout, g) = (pool.layout(), pool.layout().geometry);
        PoolCounters {
            receive: (0..g.lanes())
                .map(|lane| block::<ReceiveCounters>(&memory, layout.receive_counters(lane)))
                .collect(),
            ack: (0..g.brokers).map(|broker| block::<AckCounters>(&memory, layout.ack_counters(broker))).collect(),
            export: (0..g.brokers)
                .map(|broker| block::<ExportCounters>(&memory, layout.export_counters(broker)))
                .collect(),
            sequencer: block::<SequencerCounters>(&memory, layout.sequencer_counters(0)),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pool);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A block of counters by name.
pub type Block = BTreeMap<&'static str, u64>;

fn block<T: Counters>(memory: &Mapped<Hardware>, at: u64) -> Block {
    let word = |(index, counter): (usize, &embarcadero::observe::counters::Counter)| {
        (counter.name, memory.load(at + 8 * index as u64))
    };
    T::CATALOGUE.iter().enumerate().map(word).collect()
}

/// Every counter of a pool.
#[derive(Debug)]
pub struct PoolCounters {
    /// By lane.
    pub receive: Vec<Block>,
    /// By broker.
    pub ack: Vec<Block>,
    /// By broker.
    pub export: Vec<Block>,
    pub sequencer: Block,
}

impl PoolCounters {
    /// A receive counter over all lanes.
    pub fn received(&self, name: &str) -> u64 {
        self.receive.iter().map(|block| block[name]).sum()
    }

    /// Every batch that was published to a ring became something that is counted, and no connection is left over. For
    /// the counters of one process that has drained.
    pub fn check_conserved(&self) {
        let verdicts =
            ["appended_batches", "duplicates", "let_go", "fenced_batches", "unknown_batches", "held_batches"];
        let decided: u64 = verdicts.iter().map(|name| self.sequencer[name]).sum();
        assert_eq!(self.received("published_batches"), decided, "batches published and decided on: {self:#?}");
        assert_eq!(self.sequencer["invalid_slots"], 0);
        assert_eq!(self.received("accepted"), self.received("closed"), "connections accepted and closed: {self:#?}");
        assert!(self.export.iter().all(|block| block["inconsistent"] == 0), "{self:#?}");
    }
}

/// Brokers in this process.
pub struct Cluster {
    embarlet: Option<Embarlet>,
}

impl Cluster {
    /// Where it shows itself, if it does.
    pub fn shown_at(&self) -> Option<SocketAddr> {
        self.embarlet.as_ref().and_then(Embarlet::shown_at)
    }

    /// Drains and stops; fails if anything was left.
    pub fn stop(mut self) {
        let embarlet = self.embarlet.take().expect("stopped once");
        embarlet.stop();
        Task::spawn("the brokers", move || embarlet.join()).join().expect("the brokers drain and stop");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(embarlet) = self.embarlet.take() {
            embarlet.stop();
            // A test that fails already has said why.
            let _ = embarlet.join();
        }
    }
}

/// A broker process. Its log is shown if the test fails.
pub struct Process(launch::process::Process);

impl Process {
    /// Starts it without waiting for anything.
    pub fn spawn(site: &Site, arguments: &[&str]) -> Process {
        static STARTED: AtomicU8 = AtomicU8::new(0);
        let name = format!("embarlet-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(env!("CARGO_BIN_EXE_embarlet"));
        command.arg("--config").arg(&site.config_file).args(arguments);
        let log = site.file(&format!("{name}.log"));
        let process = launch::process::Process::start(&name, command, &log, End::Killed);
        Process(process.expect("the broker was built with the tests"))
    }

    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Waits for a line of its log.
    pub fn wait_for_line(&self, part: &str) {
        wait_for(&format!("{part:?} in the log of {}", self.0.name()), || self.log().contains(part).then_some(()));
    }

    /// Sends a signal; returns once a process that is to stand still does.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal).expect("our own child");
        if signal == Signal::STOP {
            wait_for("a broker process to stand still", || self.0.is_stopped().then_some(()));
        }
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.ended(LIMIT).unwrap_or_else(|| panic!("waited {LIMIT:?} for a broker process to end"))
    }

    /// SIGKILL, and waits until the kernel has taken everything back.
    pub fn kill(mut self) {
        self.0.kill().expect("our own child");
        self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- log of {}\n{}", self.0.name(), self.log());
        }
    }
}

/// What a program that ended by itself left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the broker program to its end.
pub fn run_embarlet(arguments: &[&str]) -> Ended {
    let mut embarlet = Command::new(env!("CARGO_BIN_EXE_embarlet"));
    embarlet.args(arguments);
    finish(embarlet, &format!("embarlet {arguments:?}"))
}

/// Runs a program to its end.
pub fn finish(program: Command, name: &str) -> Ended {
    finish_with(program, name, Stdio::null())
}

/// As [`finish`], with something to read.
pub fn finish_with(mut program: Command, name: &str, stdin: Stdio) -> Ended {
    program.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        Task::spawn("the output of a program", move || {
            let mut text = String::new();
            from.read_to_string(&mut text).map(|_| text)
        })
    };
    let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let status = launch::wait_for(LIMIT, || child.try_wait().expect("our own child")).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("waited {LIMIT:?} for {name} to end")
    });
    let text = |task: Task<std::io::Result<String>>| task.join().expect("UTF-8");
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
