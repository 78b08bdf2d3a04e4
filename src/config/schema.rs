//! Every key of the configuration, its type and its default. What the keys are for is told at length in
//! `config/embarcadero.yaml`; a test keeps that file and this one in step.
//!
//! `None` is written `auto` in the file, wherever it stands for "choose for me".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use crate::config::coherence::CoherenceMode;
use crate::config::{number, units};
use crate::processor::Instructions;
use crate::wire::{AckLevel, OrderLevel, Receipts};

/// The whole configuration of a process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct Config {
    /// The shared memory.
    pub pool: PoolConfig,
    /// How the pool is divided; fixed when it is formatted.
    pub geometry: GeometryConfig,
    /// The brokers that this file is for.
    pub brokers: Vec<BrokerConfig>,
    /// Ordering, sessions and takeover.
    pub sequencer: SequencerConfig,
    /// Publisher connections.
    pub receive: ReceiveConfig,
    /// What one address that clients come from may have of a broker.
    pub per_address: PerAddressConfig,
    /// Acknowledgements to publishers.
    pub ack: AckConfig,
    /// Subscriber connections.
    pub export: ExportConfig,
    /// How often one is heard, and after what silence others go on.
    pub liveness: LivenessConfig,
    /// How much of the log is kept.
    pub retention: RetentionConfig,
    /// Roles on threads, threads on cores.
    pub threads: ThreadsConfig,
    /// Topics created at start if they do not exist.
    pub topics: Vec<TopicConfig>,
    /// Most of the processor's instruction set that data paths use.
    pub instructions: Instructions,
    /// Least severe level that is logged.
    pub log: LogLevel,
    /// How a line of the log is written.
    pub log_format: LogFormat,
    /// Where the process can be looked at.
    pub monitor: MonitorConfig,
}

impl Default for Config {
    /// Every section's default, and one broker.
    fn default() -> Self {
        Config {
            pool: PoolConfig::default(),
            geometry: GeometryConfig::default(),
            brokers: vec![BrokerConfig::default()],
            sequencer: SequencerConfig::default(),
            receive: ReceiveConfig::default(),
            per_address: PerAddressConfig::default(),
            ack: AckConfig::default(),
            export: ExportConfig::default(),
            liveness: LivenessConfig::default(),
            retention: RetentionConfig::default(),
            threads: ThreadsConfig::default(),
            topics: Vec::new(),
            instructions: Instructions::All,
            log: LogLevel::Info,
            log_format: LogFormat::Text,
            monitor: MonitorConfig::default(),
        }
    }
}

impl Config {
    /// Roles on threads, with rests no longer than whoever listens for this process has patience for.
    pub fn rested_threads(&self) -> ThreadsConfig {
        let patience = (self.sequencer.takeover_after / 8).min(self.liveness.heartbeat / 4);
        let ThreadsConfig { park_max, rest_max, .. } = self.threads;
        ThreadsConfig { rest_max: rest_max.min(patience).max(park_max), ..self.threads.clone() }
    }
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for programs.
    Json,
}

/// Where the process can be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct MonitorConfig {
    /// Where it shows itself.
    pub address: MonitorAddress,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        MonitorConfig { address: MonitorAddress::Auto }
    }
}

/// Where a process shows itself to browsers and scrapers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorAddress {
    /// On this machine's loopback, at a port that is free.
    Auto,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl std::fmt::Display for MonitorAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MonitorAddress::Auto => out.write_str("auto"),
            MonitorAddress::Off => out.write_str("off"),
            MonitorAddress::At(address) => write!(out, "{address}"),
        }
    }
}

impl Serialize for MonitorAddress {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MonitorAddress {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "auto" => Ok(MonitorAddress::Auto),
            "off" => Ok(MonitorAddress::Off),
            other => other.parse().map(MonitorAddress::At).map_err(|_| {
                serde::de::Error::custom(format!(
                    "expected auto, off, or an address and port like 127.0.0.1:7380, found {other:?}"
                ))
            }),
        }
    }
}

/// Whether a process may format a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Create {
    /// Format the pool if there is none; attach to one that is there.
    IfMissing,
    /// Attach only.
    Never,
}

/// The shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct PoolConfig {
    /// File in `/dev/shm` or a devdax device.
    pub path: PathBuf,
    /// Size, bytes. `None`: the device's, or [`auto_pool_bytes`](crate::config::auto_pool_bytes) for a file.
    #[serde(with = "units::auto_bytes")]
    pub bytes: Option<u64>,
    /// Whether to format it.
    pub create: Create,
    /// Who keeps caches in agreement.
    pub coherence: CoherenceMode,
    /// Hardware coherence although several hosts share the pool: it has back-invalidation.
    pub hosts_are_coherent: bool,
    /// Touch every page at start, so that no page fault happens on the data path.
    pub populate: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            path: "/dev/shm/embarcadero".into(),
            bytes: None,
            create: Create::IfMissing,
            coherence: CoherenceMode::Software,
            hosts_are_coherent: false,
            populate: true,
        }
    }
}

/// How the pool is divided.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct GeometryConfig {
    /// Hosts that share the pool.
    #[serde(with = "number")]
    pub hosts: u32,
    /// Places for brokers on each host. `None`: as many as `brokers` lists of the host that has most.
    #[serde(with = "number::auto")]
    pub brokers_per_host: Option<u32>,
    /// Receive cores, and so lanes, of each broker.
    #[serde(with = "number")]
    pub lanes_per_broker: u32,
    /// Batch headers of a lane's ring; a power of two.
    #[serde(with = "number")]
    pub ring_slots: u32,
    /// Size of a blog extent, bytes; a power of two.
    #[serde(with = "units::bytes")]
    pub extent_bytes: u64,
    /// Entries of an order-index segment; a power of two.
    #[serde(with = "number")]
    pub segment_entries: u32,
    /// Order-index segments of each sequencer candidate.
    #[serde(with = "number")]
    pub segments: u32,
    /// Most sessions open at once.
    #[serde(with = "number")]
    pub sessions_max: u32,
    /// Most topics.
    #[serde(with = "number")]
    pub topics_max: u32,
    /// Most named cursors.
    #[serde(with = "number")]
    pub cursors_max: u32,
    /// Places for attached publishers that go with each broker.
    #[serde(with = "number")]
    pub attached_per_broker: u16,
}

impl Default for GeometryConfig {
    fn default() -> Self {
        GeometryConfig {
            hosts: 1,
            brokers_per_host: None,
            lanes_per_broker: 1,
            ring_slots: 4096,
            extent_bytes: 8 << 20,
            segment_entries: 8192,
            segments: 16,
            sessions_max: 4096,
            topics_max: 256,
            cursors_max: 256,
            attached_per_broker: 0,
        }
    }
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct BrokerConfig {
    /// Host it runs on, below `geometry.hosts`.
    #[serde(with = "number", default)]
    pub host: u32,
    /// Address it listens on.
    pub address: SocketAddr,
    /// `host:port` that clients are told to connect to. `None`: `address`.
    #[serde(default)]
    pub advertise: Option<String>,
}

impl Default for BrokerConfig {
    /// The first, for clients of this machine.
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 7300));
        BrokerConfig { host: 0, address, advertise: None }
    }
}

/// Ordering, sessions and takeover.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct SequencerConfig {
    /// Places for processes that may run the sequencer, on the hosts in turn; a process takes one of its host, if one is free. `None`: 1.
    #[serde(with = "number::auto")]
    pub candidates: Option<u32>,
    /// Age at which a gap in a session fences it.
    #[serde(with = "units::duration")]
    pub session_lease: Duration,
    /// Idle time after which an unconnected session is closed.
    #[serde(with = "units::duration")]
    pub session_expiry: Duration,
    /// Silence of the active sequencer after which another host's candidate claims.
    #[serde(with = "units::duration")]
    pub takeover_after: Duration,
    /// Wait between claiming and reading the predecessor's state, on a pool that is not coherent.
    #[serde(with = "units::duration")]
    pub takeover_settle: Duration,
}

impl Default for SequencerConfig {
    fn default() -> Self {
        SequencerConfig {
            candidates: None,
            session_lease: Duration::from_secs(5),
            session_expiry: Duration::from_secs(300),
            takeover_after: Duration::from_millis(500),
            takeover_settle: Duration::ZERO,
        }
    }
}

/// Publisher connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct ReceiveConfig {
    /// Most connections of one receive core.
    #[serde(with = "number")]
    pub connections_max: u32,
    /// Most bytes taken from a connection before others have their turn.
    #[serde(with = "units::bytes")]
    pub receive_bytes_max: u64,
    /// Time a new connection has for its hello.
    #[serde(with = "units::duration")]
    pub hello_timeout: Duration,
    /// Idle time after which a connection gives its piece of the blog back.
    #[serde(with = "units::duration")]
    pub idle_release: Duration,
}

impl Default for ReceiveConfig {
    fn default() -> Self {
        ReceiveConfig {
            connections_max: 1024,
            receive_bytes_max: 512 << 10,
            hello_timeout: Duration::from_secs(5),
            idle_release: Duration::from_millis(200),
        }
    }
}

/// What one address that clients come from may have of a broker. `None`: half of all there are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct PerAddressConfig {
    /// Connections of every kind.
    #[serde(with = "number::auto")]
    pub connections: Option<u32>,
    /// Sessions it opened.
    #[serde(with = "number::auto")]
    pub sessions: Option<u32>,
    /// Topics it created.
    #[serde(with = "number::auto")]
    pub topics: Option<u32>,
    /// Cursors it made.
    #[serde(with = "number::auto")]
    pub cursors: Option<u32>,
    /// Connections a second. 0: any.
    #[serde(with = "number")]
    pub openings: u32,
    /// Connections that may come at once. `None`: two for each connection of an address.
    #[serde(with = "number::auto")]
    pub openings_at_once: Option<u32>,
    /// Heartbeats a second that its connections share. 0: any.
    #[serde(with = "number")]
    pub heartbeats: u32,
}

impl Default for PerAddressConfig {
    fn default() -> Self {
        PerAddressConfig {
            connections: None,
            sessions: None,
            topics: None,
            cursors: None,
            openings: 20,
            openings_at_once: None,
            heartbeats: 200,
        }
    }
}

/// How bytes are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendMode {
    /// Copy on loopback and below the break-even, else zero copy.
    Auto,
    /// The kernel copies.
    Copy,
    /// The network card reads our memory.
    ZeroCopy,
}

/// Acknowledgements to publishers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct AckConfig {
    /// How frames are sent.
    pub send: SendMode,
    /// In `auto`, sends of at least this many bytes are zero copy.
    #[serde(with = "units::bytes")]
    pub zero_copy_from_bytes: u64,
}

impl Default for AckConfig {
    fn default() -> Self {
        AckConfig { send: SendMode::Auto, zero_copy_from_bytes: 4 << 10 }
    }
}

/// What becomes of a reader that keeps memory from being used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowReaderMode {
    /// Publishers wait for it.
    Wait,
    /// It goes on with the earliest that is kept, and is told what it missed.
    Skip,
    /// It is disconnected.
    Disconnect,
}

/// Subscriber connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct ExportConfig {
    /// Most connections of one exporter.
    #[serde(with = "number")]
    pub connections_max: u32,
    /// Most batches of one submission.
    #[serde(with = "number")]
    pub batches_per_send: u32,
    /// What becomes of a reader that publishers have to wait for, unless it asks for something else.
    pub slow_reader: SlowReaderMode,
    /// Wait: time a reader may take nothing before it is disconnected.
    #[serde(with = "units::duration")]
    pub reader_stall: Duration,
    /// Wait: lag up to which readers are waited for, bytes. 0: as much as fits.
    #[serde(with = "units::bytes")]
    pub reader_lag_max: u64,
    /// Wait: time in which a reader that publishers wait for has to get to where the log's end was when they began to. 0: any.
    #[serde(with = "units::duration")]
    pub reader_wait_max: Duration,
    /// Time for which the place of a reader whose connection broke is kept.
    #[serde(with = "units::duration")]
    pub return_grace: Duration,
    /// Skip, disconnect: time for which a reader may hold publishers up.
    #[serde(with = "units::duration")]
    pub reader_grace: Duration,
    /// How batches are sent.
    pub send: SendMode,
}

impl Default for ExportConfig {
    fn default() -> Self {
        ExportConfig {
            connections_max: 1024,
            batches_per_send: 64,
            slow_reader: SlowReaderMode::Wait,
            reader_stall: Duration::from_secs(10),
            reader_lag_max: 0,
            reader_wait_max: Duration::from_secs(30),
            return_grace: Duration::from_secs(2),
            reader_grace: Duration::from_millis(100),
            send: SendMode::Auto,
        }
    }
}

/// How often one is heard, and after what silence others go on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct LivenessConfig {
    /// Silence of a member of the pool after which it is not waited for.
    #[serde(with = "units::duration")]
    pub member_silence: Duration,
    /// How often a broker is heard on every connection.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// Silence of a client that promised to be heard, after which it is gone. 0: never.
    #[serde(with = "units::duration")]
    pub client_silence: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        LivenessConfig {
            member_silence: Duration::from_secs(2),
            heartbeat: Duration::from_millis(150),
            client_silence: Duration::from_secs(30),
        }
    }
}

/// How much of the log is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct RetentionConfig {
    /// Payload kept of all topics together, bytes. 0: as much as fits.
    #[serde(with = "units::bytes")]
    pub bytes: u64,
    /// Age up to which topics that name none are kept. 0s: as long as they fit.
    #[serde(with = "units::duration")]
    pub age: Duration,
}

/// How much of one topic is kept for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct TopicRetentionConfig {
    /// Payload kept, bytes. 0: as much as fits.
    #[serde(with = "units::bytes")]
    pub bytes: u64,
    /// Age up to which messages are kept. 0s: as `retention.age` says.
    #[serde(with = "units::duration")]
    pub age: Duration,
}

/// How roles are spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadMode {
    /// What the usable cores allow.
    Auto,
    /// One thread.
    Shared,
    /// One thread and core each, or refuse.
    Dedicated,
}

/// What a thread does when nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleMode {
    /// Spin on a core of one's own, park elsewhere.
    Auto,
    /// Look again at once.
    Spin,
    /// Give the core away, then look again.
    Yield,
    /// Spin a little, then sleep until a completion or a short time.
    Park,
}

/// Roles on threads, threads on cores.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct ThreadsConfig {
    /// How roles are spread.
    pub mode: ThreadMode,
    /// Cores to pin to. `None`: chosen from the usable ones.
    #[serde(with = "units::auto_list")]
    pub cores: Option<Vec<usize>>,
    /// What a thread does when nothing moves.
    pub idle: IdleMode,
    /// Park: time to spin before sleeping.
    #[serde(with = "units::duration")]
    pub spin_for: Duration,
    /// Park: first sleep.
    #[serde(with = "units::duration")]
    pub park_min: Duration,
    /// Park: longest sleep; each sleep is twice the one before.
    #[serde(with = "units::duration")]
    pub park_max: Duration,
    /// Park: longest sleep once nothing has moved for a second.
    #[serde(with = "units::duration")]
    pub rest_max: Duration,
}

impl Default for ThreadsConfig {
    fn default() -> Self {
        ThreadsConfig {
            mode: ThreadMode::Auto,
            cores: None,
            idle: IdleMode::Auto,
            spin_for: Duration::from_micros(20),
            park_min: Duration::from_micros(50),
            park_max: Duration::from_millis(1),
            rest_max: Duration::from_millis(10),
        }
    }
}

/// A topic created at start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a section of `key: value` lines")]
pub struct TopicConfig {
    /// Its name, 1 to 112 bytes.
    pub name: String,
    /// What it promises about order.
    #[serde(with = "units::order_level", default = "default_order")]
    pub order: OrderLevel,
    /// What an ack means unless the publisher says otherwise.
    #[serde(with = "units::ack_level", default = "default_ack")]
    pub ack: AckLevel,
    /// Where the time of receipt is stamped.
    #[serde(with = "units::receipts", default = "default_receipts")]
    pub receipts: Receipts,
    /// Copies, the pool's included.
    #[serde(with = "number", default = "default_replicas")]
    pub replicas: u32,
    /// How much of it is kept.
    #[serde(default)]
    pub retention: TopicRetentionConfig,
}

fn default_order() -> OrderLevel {
    OrderLevel::Session
}

fn default_ack() -> AckLevel {
    AckLevel::Committed
}

fn default_receipts() -> Receipts {
    Receipts::Batch
}

fn default_replicas() -> u32 {
    1
}

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What stops the process or a connection for good.
    Error,
    /// What works worse than it should.
    Warn,
    /// What happens seldom.
    Info,
    /// What happens per connection.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> LevelFilter {
        match level {
            LogLevel::Off => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        }
    }
}

impl Config {
    /// Places for brokers on each host of a pool that is formatted by this.
    pub fn brokers_per_host(&self) -> u32 {
        self.geometry.brokers_per_host.unwrap_or_else(|| self.listed_per_host())
    }

    /// Brokers that are listed of the host that has most.
    pub fn listed_per_host(&self) -> u32 {
        let of_host = |host: u32| self.brokers.iter().filter(|broker| broker.host == host).count() as u32;
        self.brokers.iter().map(|broker| of_host(broker.host)).max().unwrap_or(0)
    }

    /// Places for sequencer candidates of a pool that is formatted by this.
    pub fn candidates(&self) -> u32 {
        self.sequencer.candidates.unwrap_or(1)
    }
}

impl BrokerConfig {
    /// What clients are told to connect to.
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.address.to_string())
    }
}
