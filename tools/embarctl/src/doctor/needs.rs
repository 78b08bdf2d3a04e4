//! What the brokers of a configuration need of a machine: where their threads go, which of them spin, how large their rings are.

use std::path::Path;

use embarcadero::config::{Config, IdleMode, SendMode, ThreadMode};
use embarcadero::embarlet::preflight::role_specs;
use embarcadero::embarlet::rings::RingShare;
use embarcadero::runtime::cpu::{CpuError, UsableCores, usable_cores};
use embarcadero::runtime::{IdlePolicy, Plan, RoleSpec, plan};

/// Threads of a broker process beside those of its plan: the first one, signals, log, housekeeping; and some to spare.
const THREADS_BESIDE: u64 = 8;

/// What would run here.
pub struct Needs {
    /// The configuration.
    pub config: Config,
    /// Where it comes from, for people.
    pub source: String,
    /// The brokers of this host, by where the configuration lists them: those of the host of the first one.
    pub brokers: Vec<u32>,
    /// Their roles.
    pub roles: Vec<RoleSpec>,
    /// Cores that may be used.
    pub usable: Result<UsableCores, CpuError>,
    /// Roles on threads; or why that cannot be.
    pub plan: Result<Plan, String>,
}

impl Needs {
    /// Of this process's cores.
    pub fn new(config: Config, source: String) -> Needs {
        Self::on(config, source, usable_cores())
    }

    /// Of such cores.
    pub fn on(config: Config, source: String, usable: Result<UsableCores, CpuError>) -> Needs {
        let host = config.brokers.first().map(|broker| broker.host);
        let of_host = |number: &u32| Some(config.brokers[*number as usize].host) == host;
        let brokers: Vec<u32> = (0..config.brokers.len() as u32).filter(of_host).collect();
        // A configuration that was read lists a broker.
        let roles = if brokers.is_empty() { Vec::new() } else { role_specs(&config, &brokers, Some(0)) };
        let plan = match &usable {
            Ok(usable) => plan(&roles, usable, &config.rested_threads()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Needs { config, source, brokers, roles, usable, plan }
    }

    /// The pool's path.
    pub fn pool(&self) -> &Path {
        &self.config.pool.path
    }

    /// Cores that threads are pinned to; without a plan, those that the configuration lists.
    pub fn pinned(&self) -> Vec<usize> {
        match &self.plan {
            Ok(plan) => plan.threads.iter().filter_map(|thread| thread.core).collect(),
            Err(_) => self.config.threads.cores.clone().unwrap_or_default(),
        }
    }

    /// Cores that a thread spins on; without a plan, those that would be.
    pub fn spinning(&self) -> Vec<usize> {
        let threads = &self.config.threads;
        match &self.plan {
            Ok(plan) => {
                let spins = plan.threads.iter().filter(|thread| thread.idle == IdlePolicy::Spin);
                spins.filter_map(|thread| thread.core).collect()
            }
            Err(_) if matches!(threads.idle, IdleMode::Spin | IdleMode::Auto) => self.pinned(),
            Err(_) => Vec::new(),
        }
    }

    /// Whether any thread spins, or is meant to.
    pub fn spins(&self) -> bool {
        match &self.plan {
            Ok(plan) => plan.threads.iter().any(|thread| thread.idle == IdlePolicy::Spin),
            Err(_) => {
                let threads = &self.config.threads;
                threads.idle == IdleMode::Spin
                    || threads.idle == IdleMode::Auto && threads.mode == ThreadMode::Dedicated
            }
        }
    }

    /// The ring of each thread; without a plan, one that all roles share.
    pub fn rings(&self) -> Vec<RingShare> {
        let share = |role: usize| RingShare::of_role(&self.config, self.roles[role].kind);
        match &self.plan {
            Ok(plan) => plan
                .threads
                .iter()
                .map(|thread| RingShare::of_thread(thread.roles.iter().copied().map(share)))
                .collect(),
            Err(_) => vec![RingShare::of_thread((0..self.roles.len()).map(share))],
        }
    }

    /// Threads of the process, with those that touch the pool at its start.
    pub fn threads(&self) -> u64 {
        let planned = self.plan.as_ref().map_or(self.roles.len(), |plan| plan.threads.len()) as u64;
        let touching = self.usable.as_ref().map_or(1, UsableCores::count) as u64;
        planned + touching + THREADS_BESIDE
    }

    /// Whether network cards are to read memory where it lies: asked for, or chosen for clients of other machines.
    pub fn zero_copy(&self) -> bool {
        let is_far =
            self.brokers.iter().any(|broker| !self.config.brokers[*broker as usize].address.ip().is_loopback());
        match (self.config.ack.send, self.config.export.send) {
            (SendMode::ZeroCopy, _) | (_, SendMode::ZeroCopy) => true,
            (_, SendMode::Auto) => is_far,
            _ => false,
        }
    }

    /// What would run, for people.
    pub fn in_words(&self) -> String {
        let threads = match &self.plan {
            Ok(plan) => {
                let spinning = plan.threads.iter().filter(|thread| thread.idle == IdlePolicy::Spin).count();
                let threads = counted(plan.threads.len(), "thread");
                format!("{} on {threads}, {spinning} spinning", counted(self.roles.len(), "role"))
            }
            Err(_) => format!("{} that do not fit it", counted(self.roles.len(), "role")),
        };
        let host = match self.config.geometry.hosts {
            1 => String::new(),
            hosts => {
                let number = self.config.brokers.first().map_or(0, |broker| broker.host);
                format!(" of host {number} (of {hosts})")
            }
        };
        format!("{}{host}, {threads}", counted(self.brokers.len(), "broker"))
    }
}

/// `1 thread`, `2 threads`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
