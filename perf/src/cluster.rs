//! Broker processes on one pool, each its own, all of them candidates for the sequencer: to be killed, stopped and started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embarcadero::client::{TopicProperties, create_topic};
use embarcadero::config::units::format_bytes;
use embarcadero::wire::OrderLevel;

use crate::args::LoadArgs;
use crate::error::CompareError;
use crate::subject::{Folder, Subject, free_addresses};

/// Longest wait for acks, or for anything else.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The broker processes.
pub struct Cluster<'a> {
    brokers: Vec<Option<Subject>>,
    config: PathBuf,
    folder: &'a Folder,
    /// Where they listen, in order of their ids.
    pub seeds: Vec<String>,
    started: u32,
}

impl<'a> Cluster<'a> {
    /// Starts all of them on a new pool. `hosts`: they take each other to be on other hosts.
    pub fn start(name: &str, load: &LoadArgs, hosts: bool, folder: &'a Folder) -> Result<Self, CompareError> {
        let addresses = free_addresses(load.brokers)?;
        let config = folder.path().join(format!("{name}.yaml"));
        let pool = folder.path().join(format!("{name}.pool"));
        fs::write(&config, configuration(&pool, &addresses, load, hosts))
            .map_err(CompareError::io(format!("writing {}", config.display())))?;
        let seeds = addresses.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { brokers: Vec::new(), config, folder, seeds, started: 0 };
        for broker in 0..load.brokers as usize {
            cluster.brokers.push(None);
            cluster.start_broker(broker)?;
        }
        Ok(cluster)
    }

    /// Creates a topic of this order level, ack level 1.
    pub fn create_topic(&self, name: &str, order: OrderLevel) -> Result<(), CompareError> {
        create_topic(&self.seeds, name, &TopicProperties { order, ..TopicProperties::default() }, WAIT_MAX)
            .map_err(CompareError::client("creating the topic"))
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.brokers.len()
    }

    /// The addresses, beginning with one broker's.
    pub fn seeds_from(&self, broker: usize) -> Vec<String> {
        let mut seeds = self.seeds.clone();
        seeds.rotate_left(broker);
        seeds
    }

    /// Starts a broker's process; one that was killed goes on where it was.
    pub fn start_broker(&mut self, broker: usize) -> Result<(), CompareError> {
        // What is left of the one before is taken away first.
        self.brokers[broker] = None;
        self.started += 1;
        let name = format!("embarlet-{broker}-{}", self.started);
        self.brokers[broker] = Some(Subject::one_broker(&name, &self.config, broker as u32, self.folder)?);
        Ok(())
    }

    /// SIGKILL. Gives the moment before.
    pub fn kill(&mut self, broker: usize) -> Result<Instant, CompareError> {
        self.brokers[broker].as_mut().expect("it runs").kill()
    }

    /// SIGSTOP. Gives the moment before.
    pub fn stop(&self, broker: usize) -> Result<Instant, CompareError> {
        let before = Instant::now();
        self.brokers[broker].as_ref().expect("it runs").stop().map(|()| before)
    }

    /// SIGCONT.
    pub fn go_on(&self, broker: usize) -> Result<(), CompareError> {
        self.brokers[broker].as_ref().expect("it runs").go_on()
    }

    /// The broker whose process was the last to become the sequencer.
    pub fn sequencer(&self) -> usize {
        let epoch = |subject: &Option<Subject>| {
            let log = subject.as_ref().map(Subject::log).unwrap_or_default();
            log.lines()
                .rev()
                .find_map(|line| line.split_once("active, epoch ")?.1.split(',').next()?.parse::<u64>().ok())
        };
        (0..self.brokers.len()).max_by_key(|broker| epoch(&self.brokers[*broker])).expect("there is a broker")
    }
}

/// Everything on one thread, and everybody a candidate; all that is not written here is the default.
fn configuration(pool: &Path, addresses: &[SocketAddr], load: &LoadArgs, hosts: bool) -> String {
    let host = |id: usize| if hosts { id } else { 0 };
    let broker = |(id, address)| format!("  - {{ id: {id}, host: {}, address: \"{address}\" }}\n", host(id));
    let brokers: String = addresses.iter().enumerate().map(broker).collect();
    // A pool has at most four candidates.
    let candidates: Vec<String> = (0..addresses.len().min(4)).map(|id| id.to_string()).collect();
    format!(
        "pool: {{ path: {}, bytes: {} }}\ngeometry: {{ hosts: {} }}\nsequencer: {{ candidates: [{}] }}\n\
         threads: {{ mode: shared, idle: park }}\nbrokers:\n{brokers}",
        pool.display(),
        format_bytes(load.pool_bytes),
        if hosts { addresses.len() } else { 1 },
        candidates.join(", ")
    )
}
