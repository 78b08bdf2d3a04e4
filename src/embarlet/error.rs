//! Why a broker process cannot start, and why one ended.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{AutoPoolError, Place};
use crate::log::namesake::Namesake;
use crate::log::recover::RecoverError;
use crate::pool::PoolError;
use crate::pool::layout::LayoutError;
use crate::pool::region::Lost;
use crate::runtime::{RunnerError, fault};

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// `pool.bytes: auto` on a machine with too little.
    #[error("pool {path}: {source}{limited}")]
    AutoPool {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: AutoPoolError,
        /// The control group whose limit it is, in words; else nothing.
        limited: String,
    },
    /// More memory than the limit of a control group leaves: the kernel would kill this process without a word.
    #[error(
        "pool {path}: its {bytes} bytes lie in memory, and the control group {group} of this process leaves {free} of its limit of {limit} bytes: give a smaller pool.bytes, or a higher limit (memory.max, `docker run --memory`)"
    )]
    MemoryLimit {
        /// Its path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// Left.
        free: u64,
        /// The limit.
        limit: u64,
        /// The group's folder.
        group: PathBuf,
    },
    /// More connections than descriptors.
    #[error(
        "the configuration asks for {connections} connections, which need {needed} descriptors; this process may have {found}: raise the limit (`ulimit -Hn`, LimitNOFILE=), or lower receive.connections_max and export.connections_max"
    )]
    Descriptors {
        /// Connections of all brokers of this process.
        connections: u64,
        /// Descriptors for them and everything else.
        needed: u64,
        /// The highest limit.
        found: u64,
    },
    /// Sizes that do not fit together.
    #[error("{place}: {source}")]
    Layout {
        /// Where the size is written.
        place: Place,
        /// Why.
        source: LayoutError,
    },
    /// How much is free cannot be found out.
    #[error("pool {path}: cannot find out how much memory is free: {source}; give pool.bytes as a size")]
    Free {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A broker that is not configured.
    #[error("broker {found} is not configured; brokers 0 to {last} are")]
    UnknownBroker {
        /// As asked for.
        found: u32,
        /// The highest there is.
        last: u32,
    },
    /// The brokers of one process live on one host.
    #[error(
        "brokers {first} and {second} are configured on different hosts; one process serves one host: use --brokers"
    )]
    TwoHosts {
        /// A broker.
        first: u32,
        /// Another.
        second: u32,
    },
    /// All places of a host are taken.
    #[error(
        "pool {path}: no place for the broker at {address}: processes of host {host} have all {places}; if it runs already, stop that one, else format the pool with a larger `geometry.brokers_per_host`"
    )]
    NoPlace {
        /// The pool.
        path: PathBuf,
        /// Where the broker was to be.
        address: String,
        /// Its host.
        host: u32,
        /// How many places the host has.
        places: usize,
    },
    /// A listener.
    #[error(
        "broker {broker} cannot listen on {address}: {source}; another process may have that port (`ss -ltnp`): stop it or configure another"
    )]
    Listen {
        /// The broker.
        broker: u32,
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The status page.
    #[error(
        "the status page cannot be shown at {address}: {source}; another process may have that port (`ss -ltnp`): name another as `monitor.address`, or set it to auto or off"
    )]
    Show {
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another machine takes itself for this host.
    #[error("pool {path}: {source}")]
    Namesake {
        /// The pool.
        path: PathBuf,
        /// Who.
        source: Namesake,
    },
    /// What the last process of a broker left in the pool.
    #[error("pool {path}: {source}")]
    Damaged {
        /// The pool.
        path: std::path::PathBuf,
        /// What is damaged.
        source: RecoverError,
    },
    /// The thread plan.
    #[error(transparent)]
    Plan(#[from] crate::runtime::PlanError),
    /// The machine's cores cannot be read.
    #[error(transparent)]
    Cores(#[from] crate::runtime::cpu::CpuError),
    /// A thread, its io or one of its roles.
    #[error(transparent)]
    Thread(#[from] RunnerError),
}

/// Why a process ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of its threads.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// Its pool is not there any more.
    #[error("FAULT: pool {path} is lost to this process: {lost}; it ends")]
    PoolLost {
        /// Where it lay.
        path: PathBuf,
        /// What became of it.
        lost: Lost,
    },
}

impl RunError {
    /// Exit code of a process that ends so.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Runner(_) => 1,
            RunError::PoolLost { .. } => fault::EXIT_CODE,
        }
    }
}
