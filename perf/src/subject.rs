//! The processes that are measured, limits and brokers alike: started once, stopped while another one is under test, gone
//! with their files when the comparison ends.
//!
//! Every subject is a process of its own, so that all pay alike for address spaces and scheduling, and the processor time of
//! each can be told.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use embarcadero::config::CoherenceMode;
use embarcadero::config::units::format_bytes;
use embarcadero::processor;
use embarcadero::wire::{AckLevel, OrderLevel};
use embarcadero::{TopicProperties, create_topic};
use launch::configuration::Configuration;
use launch::place::{self, Folder};
use launch::process::{End, LISTENS, Process, Signal};
use launch::wait_for;

use crate::args::{DeliverArgs, RunArgs};
use crate::error::CompareError;

/// Time a subject has to be ready: it touches its whole pool first.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time a subject has to end when told so; a broker drains for up to 5 s.
const END_MAX: Duration = Duration::from_secs(8);
/// The user and group of nobody in particular.
const NOBODY: u32 = 65534;
/// Lines of a log worth showing.
const LOG_LINES: usize = 12;

/// How a broker process rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Sleeps.
    Park,
    /// Never sleeps.
    Spin,
}

/// A folder in memory for pools and logs, where pools are.
pub fn folder() -> Result<Folder, CompareError> {
    let path = PathBuf::from(format!("/dev/shm/embarcadero-compare-{}", std::process::id()));
    let folder = Folder::create(&path).map_err(CompareError::io(format!("creating {}", path.display())))?;
    eprintln!("compare: files in {}", path.display());
    Ok(folder)
}

/// A running subject.
pub struct Subject {
    process: Process,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

impl Subject {
    /// A receiver that only receives, on as many addresses as there are brokers to compare it with.
    pub fn sink(
        name: &str,
        listeners: u32,
        pool_bytes: u64,
        args: &RunArgs,
        folder: &Folder,
    ) -> Result<Self, CompareError> {
        let addresses = free_addresses(listeners)?;
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut command = Command::new(this_program()?);
        command.arg("sink").arg("--pool").arg(folder.path().join(format!("{name}.pool")));
        command.args(["--pool-bytes", &pool_bytes.to_string(), "--receive-bytes", &args.receive_bytes.to_string()]);
        command.args(["--listen", &list.join(",")]);
        Subject::start(name, command, addresses, folder)?.ready_by_word()
    }

    /// A sender that only sends, or relays.
    pub fn source(name: &str, bytes: u64, args: &DeliverArgs, folder: &Folder) -> Result<Self, CompareError> {
        let addresses = free_addresses(1)?;
        let mut command = Command::new(this_program()?);
        command.arg("source").arg("--pool").arg(folder.path().join(format!("{name}.pool")));
        command.args(["--pool-bytes", &bytes.to_string(), "--batch-bytes", &args.batch_bytes.to_string()]);
        command.args(["--listen", &addresses[0].to_string()]);
        Subject::start(name, command, addresses, folder)?.ready_by_word()
    }

    /// The far end of a ping-pong.
    pub fn echo(name: &str, ping_bytes: usize, idle: Idle, folder: &Folder) -> Result<Self, CompareError> {
        let addresses = free_addresses(1)?;
        let mut command = Command::new(this_program()?);
        command.args(["echo", "--listen", &addresses[0].to_string(), "--ping-bytes", &ping_bytes.to_string()]);
        if idle == Idle::Spin {
            command.arg("--spin");
        }
        Subject::start(name, command, addresses, folder)?.ready_by_word()
    }

    /// A broker process with a topic for each order level that is measured; see [`topic`].
    pub fn brokers(
        name: &str,
        brokers: u32,
        idle: Idle,
        pool_bytes: u64,
        args: &RunArgs,
        folder: &Folder,
    ) -> Result<Self, CompareError> {
        let path = broker_program()?;
        let addresses = free_addresses(brokers)?;
        let pool = folder.path().join(format!("{name}.pool"));
        let config = folder.path().join(format!("{name}.yaml"));
        fs::write(&config, configuration(&pool, pool_bytes, &addresses, idle, args))
            .map_err(CompareError::io(format!("writing {}", config.display())))?;
        let mut command = Command::new(path);
        command.arg("--config").arg(&config);
        let mut subject = Subject::start(name, command, addresses, folder)?;
        subject.create_topics()?;
        Ok(subject)
    }

    /// A broker process with a configuration of its own. It may not listen yet.
    pub fn configured(
        name: &str,
        config: &Path,
        addresses: Vec<SocketAddr>,
        folder: &Folder,
    ) -> Result<Self, CompareError> {
        let mut command = Command::new(broker_program()?);
        command.arg("--config").arg(config);
        Subject::start(name, command, addresses, folder)
    }

    /// The same as an ordinary user, who owns the folder then, with the limits that systems usually have.
    pub fn of_nobody(
        name: &str,
        config: &Path,
        addresses: Vec<SocketAddr>,
        folder: &Folder,
    ) -> Result<Self, CompareError> {
        let nobody = NOBODY.to_string();
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))
            .map_err(CompareError::io(format!("giving {} away", folder.path().display())))?;
        // Each becomes the next: the process stays the one that is started here.
        let mut command = Command::new("prlimit");
        command.args(["--memlock=8388608:8388608", "--nofile=1024:", "setpriv", "--reuid", &nobody]);
        command.args(["--regid", &nobody, "--clear-groups"]);
        command.arg(broker_program()?).arg("--config").arg(config);
        Subject::start(name, command, addresses, folder)
    }

    /// One broker of a pool that others share. It may not listen yet.
    pub fn one_broker(name: &str, config: &Path, broker: u32, folder: &Folder) -> Result<Self, CompareError> {
        let mut command = Command::new(broker_program()?);
        command.arg("--config").arg(config).args(["--brokers", &broker.to_string()]);
        Subject::start(name, command, Vec::new(), folder)
    }

    /// Another system's server, as soon as somebody answers there.
    pub fn listening(
        name: &str,
        command: Command,
        addresses: Vec<SocketAddr>,
        folder: &Folder,
    ) -> Result<Self, CompareError> {
        let mut subject = Subject::start(name, command, addresses, folder)?;
        let answers = wait_for(READY_MAX, || match TcpStream::connect(subject.addresses[0]) {
            Ok(_) => Some(Ok(())),
            Err(_) => subject.process.check_alive().err().map(Err),
        });
        match answers {
            Some(Ok(())) => Ok(subject),
            Some(Err(silence)) => Err(subject.failed(silence.to_string())),
            None => Err(subject.failed(format!("does not listen after {READY_MAX:?}"))),
        }
    }

    /// Waits until it says that it listens.
    pub fn wait_until_it_listens(&mut self) -> Result<(), CompareError> {
        let listens = self.process.wait_for_log(LISTENS, READY_MAX);
        listens.map_err(|silence| self.failed(format!("is not ready: {silence}")))
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The end of what it has logged.
    pub fn last_lines(&self, most: usize) -> Vec<String> {
        self.process.last_lines(most)
    }

    /// SIGKILL. Gives the moment before.
    pub fn kill(&mut self) -> Result<Instant, CompareError> {
        self.process.kill().map_err(CompareError::io(format!("killing {}", self.name())))
    }

    fn start(name: &str, command: Command, addresses: Vec<SocketAddr>, folder: &Folder) -> Result<Self, CompareError> {
        let log = folder.path().join(format!("{name}.log"));
        let process = Process::start(name, command, &log, End::Asked(END_MAX));
        Ok(Subject { process: process.map_err(CompareError::io(format!("starting {name}")))?, addresses })
    }

    fn ready_by_word(mut self) -> Result<Self, CompareError> {
        match self.line(READY_MAX)? {
            line if line == "ready" => Ok(self),
            line => Err(self.failed(format!("said {line:?} where \"ready\" was expected"))),
        }
    }

    fn create_topics(&mut self) -> Result<(), CompareError> {
        let deadline = Instant::now() + READY_MAX;
        for order in [OrderLevel::Session, OrderLevel::None] {
            let properties = TopicProperties { order, ack: AckLevel::Committed, ..TopicProperties::default() };
            loop {
                let step = Duration::from_millis(500);
                match create_topic(&self.seeds(), topic(order), &properties, step) {
                    Ok(()) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(self.failed(format!("is not ready: {error}")));
                    }
                    Err(_) => self.process.check_alive().map_err(|silence| self.failed(silence.to_string()))?,
                }
            }
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Its addresses as a client takes them.
    pub fn seeds(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// The next line it prints.
    pub fn line(&mut self, timeout: Duration) -> Result<String, CompareError> {
        self.process.line(timeout).map_err(|silence| self.failed(silence.to_string()))
    }

    /// Keeps it from running while another one is measured.
    pub fn stop(&self) -> Result<(), CompareError> {
        self.signal(Signal::STOP)
    }

    /// Lets it run.
    pub fn go_on(&self) -> Result<(), CompareError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), CompareError> {
        let doing = || format!("signalling {} (process {})", self.name(), self.process());
        self.process.signal(signal).map_err(|error| CompareError::io(doing())(error))
    }

    /// An error that shows the end of its log.
    pub fn failed(&self, what: String) -> CompareError {
        let log = self.last_lines(LOG_LINES).iter().map(|line| format!("\n  | {line}")).collect();
        CompareError::Subject { name: self.name().to_owned(), what, log }
    }
}

/// Name of the topic of this order level.
pub fn topic(order: OrderLevel) -> &'static str {
    if order == OrderLevel::Session { "ordered" } else { "unordered" }
}

/// This program, which starts itself for what it measures beside.
pub fn this_program() -> Result<PathBuf, CompareError> {
    std::env::current_exe().map_err(CompareError::io("finding this program's own path"))
}

/// The broker's binary, built with the same profile.
pub fn broker_program() -> Result<PathBuf, CompareError> {
    let path = this_program()?.with_file_name("embarlet");
    if path.exists() { Ok(path) } else { Err(CompareError::NoBroker { path }) }
}

/// Ports that were free a moment ago.
pub fn free_addresses(count: u32) -> Result<Vec<SocketAddr>, CompareError> {
    place::free_addresses(count).map_err(CompareError::io("finding free ports"))
}

/// On this pool, with more of its section, and as limited as this process is.
pub fn configuration_of(pool: &Path, more: &str) -> Configuration {
    Configuration::new(pool, more).value("instructions", processor::limited_to())
}

/// Everything on one thread, as on any small machine; all that is not written here is the default.
fn configuration(pool: &Path, pool_bytes: u64, addresses: &[SocketAddr], idle: Idle, args: &RunArgs) -> String {
    let coherence = if args.coherence == CoherenceMode::Software { "software" } else { "hardware" };
    let idle = if idle == Idle::Spin { "spin" } else { "park" };
    configuration_of(pool, &format!("bytes: {}, coherence: {coherence}", format_bytes(pool_bytes)))
        .section("receive", &format!("receive_bytes_max: {}", format_bytes(args.receive_bytes)))
        .section("threads", &format!("mode: shared, idle: {idle}"))
        .brokers(addresses)
        .text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Arguments;
    use clap::Parser;
    use embarcadero::config::Config;

    #[test]
    fn the_brokers_understand_their_configuration() {
        let args = Arguments::parse_from(["compare", "--receive-bytes", "1MiB"]).run;
        let addresses: Vec<SocketAddr> = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap()).into();
        let text = configuration(Path::new("/dev/shm/a.pool"), 256 << 20, &addresses, Idle::Spin, &args);
        let config = Config::parse(&text, "generated").unwrap();
        assert_eq!((config.brokers.len(), config.pool.bytes), (2, Some(256 << 20)));
        assert_eq!(config.receive.receive_bytes_max, 1 << 20);
    }
}
