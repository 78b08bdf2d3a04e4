//! Broker processes on one pool, each its own, as many of them candidates for the sequencer as there may be: to be killed,
//! stopped and started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embarcadero::config::units::format_bytes;
use embarcadero::wire::OrderLevel;
use embarcadero::{TopicProperties, create_topic};
use launch::place::Folder;

use crate::args::LoadArgs;
use crate::error::CompareError;
use crate::subject::{self, Subject, free_addresses};

/// Longest wait for acks, or for anything else.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Most candidates a pool has.
pub const CANDIDATES_MAX: u32 = 4;

/// What the processes are to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Brokers, each in a process of its own.
    pub brokers: u32,
    /// Hosts that they take themselves to be on, in turn: across hosts silence tells of a death, not the kernel.
    pub hosts: u32,
    /// Length of the pool.
    pub pool_bytes: u64,
    /// `sequencer.takeover_settle`.
    pub settle: Duration,
    /// More of the section `geometry`, each with a comma before it.
    pub geometry: &'static str,
}

impl Shape {
    /// As a load asks for it.
    pub fn of(load: &LoadArgs, hosts: u32) -> Shape {
        let (brokers, pool_bytes) = (load.brokers, load.pool_bytes);
        Shape { brokers, hosts, pool_bytes, settle: Duration::ZERO, geometry: "" }
    }

    /// The number of candidates: of the processes that are started first.
    pub fn candidates(&self) -> u32 {
        self.brokers.min(CANDIDATES_MAX)
    }

    /// The host of a broker.
    pub fn host(&self, broker: u32) -> u32 {
        broker % self.hosts
    }
}

/// The broker processes.
pub struct Cluster<'a> {
    brokers: Vec<Option<Subject>>,
    config: PathBuf,
    folder: &'a Folder,
    /// Where they listen, in order of their ids.
    pub seeds: Vec<String>,
    /// The pool that they share; it goes with this.
    pub pool: PathBuf,
    started: u32,
}

impl<'a> Cluster<'a> {
    /// Starts all of them on a new pool, one after the other.
    pub fn start(name: &str, shape: &Shape, folder: &'a Folder) -> Result<Self, CompareError> {
        let mut cluster = Cluster::planned(name, shape, folder)?;
        (0..cluster.len()).try_for_each(|broker| cluster.start_broker(broker))?;
        Ok(cluster)
    }

    /// None of them runs yet.
    pub fn planned(name: &str, shape: &Shape, folder: &'a Folder) -> Result<Self, CompareError> {
        let addresses = free_addresses(shape.brokers)?;
        let config = folder.path().join(format!("{name}.yaml"));
        let pool = folder.path().join(format!("{name}.pool"));
        fs::write(&config, configuration(&pool, &addresses, shape))
            .map_err(CompareError::io(format!("writing {}", config.display())))?;
        let seeds = addresses.iter().map(ToString::to_string).collect();
        let brokers = addresses.iter().map(|_| None).collect();
        Ok(Cluster { brokers, config, folder, seeds, pool, started: 0 })
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

    /// Starts a broker's process; one that was killed goes on where it was. Returns once it listens.
    pub fn start_broker(&mut self, broker: usize) -> Result<(), CompareError> {
        self.spawn_broker(broker)?;
        self.brokers[broker].as_mut().expect("it was just started").wait_until_it_listens()
    }

    /// Starts all that do not run, at once. Returns once all listen; gives the moment before the first was started.
    pub fn start_all(&mut self) -> Result<Instant, CompareError> {
        let before = Instant::now();
        (0..self.len()).try_for_each(|broker| self.spawn_broker(broker))?;
        self.brokers.iter_mut().flatten().try_for_each(Subject::wait_until_it_listens)?;
        Ok(before)
    }

    fn spawn_broker(&mut self, broker: usize) -> Result<(), CompareError> {
        // What is left of the one before is taken away first.
        self.brokers[broker] = None;
        self.started += 1;
        let name = format!("embarlet-{broker}-{}", self.started);
        self.brokers[broker] = Some(Subject::one_broker(&name, &self.config, broker as u32, self.folder)?);
        Ok(())
    }

    fn running(&mut self, broker: usize) -> &mut Subject {
        self.brokers[broker].as_mut().expect("it runs")
    }

    /// SIGKILL. Gives the moment before.
    pub fn kill(&mut self, broker: usize) -> Result<Instant, CompareError> {
        self.running(broker).kill()
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

    /// The ends of all logs, each line with its broker.
    pub fn last_words(&self, lines_max: usize) -> String {
        let running = self.brokers.iter().enumerate().filter_map(|(id, broker)| Some((id, broker.as_ref()?)));
        let ends =
            running.flat_map(|(id, broker)| broker.last_lines(lines_max).into_iter().map(move |line| (id, line)));
        ends.map(|(id, line)| format!("  | broker {id}: {line}\n")).collect()
    }

    /// Lines of all logs that have these words.
    pub fn lines_with(&self, words: &str) -> usize {
        let lines = |log: String| log.lines().filter(|line| line.contains(words)).count();
        self.brokers.iter().flatten().map(|broker| lines(broker.log())).sum()
    }

    /// Which broker is to suffer in this turn, and whether it has the sequencer: in even turns that one, in odd ones another.
    pub fn victim(&self, turn: u32) -> (usize, bool) {
        let (sequencer, others) = (self.sequencer(), self.len() - 1);
        match turn.is_multiple_of(2) {
            true => (sequencer, true),
            false => ((sequencer + 1 + turn as usize / 2 % others) % (others + 1), false),
        }
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

/// Waits until there is what is looked for; `what` says that there is not.
pub fn wait_until<T>(name: &str, what: &str, look: impl FnMut() -> Option<T>) -> Result<T, CompareError> {
    launch::wait_for(WAIT_MAX, look).ok_or_else(|| {
        let what = format!("{what} within {WAIT_MAX:?}");
        CompareError::Unsound { name: name.to_owned(), what }
    })
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.brokers.clear();
        // Pools are memory: many of them one after the other would not fit.
        let _ = fs::remove_file(&self.pool);
    }
}

/// Everything on one thread; all that is not written here is the default.
fn configuration(pool: &Path, addresses: &[SocketAddr], shape: &Shape) -> String {
    let (candidates, settle_ms) = (shape.candidates(), shape.settle.as_millis());
    subject::configuration_of(pool, &format!("bytes: {}, coherence: software", format_bytes(shape.pool_bytes)))
        .section("geometry", &format!("hosts: {}{}", shape.hosts, shape.geometry))
        .section("sequencer", &format!("candidates: {candidates}, takeover_settle: {settle_ms}ms"))
        .brokers_on(addresses, |id| shape.host(id))
        .text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use embarcadero::config::Config;

    #[test]
    fn the_brokers_understand_their_configuration() {
        let (settle, geometry) = (Duration::from_millis(20), ", segments: 4");
        let shape = Shape { brokers: 5, hosts: 2, pool_bytes: 256 << 20, settle, geometry };
        let addresses: Vec<SocketAddr> = (1..6).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let config = Config::parse(&configuration(Path::new("/dev/shm/a.pool"), &addresses, &shape), "made").unwrap();
        assert_eq!(config.brokers.iter().map(|broker| broker.host).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
        assert_eq!((config.candidates(), config.geometry.hosts, config.geometry.segments), (4, 2, 4));
        assert_eq!(config.sequencer.takeover_settle, shape.settle);
    }
}
