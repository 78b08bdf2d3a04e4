//! `embarctl`: reads, writes and looks after topics from a shell.
//!
//! Data goes to standard output, everything said about it to standard error. A new command is a module with
//! its arguments and a `run`, and a line in [`Command`] and [`run`].

mod common;
mod consume;
mod cursor;
mod doctor;
mod error;
mod format;
mod host;
mod inspect;
mod lines;
mod produce;
mod push;
mod status;
mod top;
mod topic;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::CommandError;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;
/// A command that was asked to end has this long to do it by itself.
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// Reads, writes and looks after topics of Embarcadero.
/// Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "embarctl", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish each line of standard input, or of a file, as a message.
    Produce(produce::ProduceArgs),
    /// Print messages in their order.
    Consume(consume::ConsumeArgs),
    /// Print what a pool of this host says of itself: brokers, sequencer, counters.
    Status(status::StatusArgs),
    /// Show a pool as it moves: who waits for whom, what flows, what each broker, thread, lane, topic and session does.
    Top(top::TopArgs),
    /// Create, list, describe and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Set, read, list and delete the named cursors of a topic: where consumers resume.
    #[command(subcommand)]
    Cursor(cursor::CursorCommand),
    /// Say whether this machine is set up for a broker, and what to do where it is not.
    Doctor(doctor::DoctorArgs),
    /// Push a pool's metrics to an OpenTelemetry collector.
    Push(push::PushArgs),
    /// Verify every promise of a pool that its bytes can tell of; exit code 1 if one is broken.
    Inspect(inspect::InspectArgs),
    /// Say of a host what no process can find out: that it is off.
    #[command(subcommand)]
    Host(host::HostCommand),
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did what it was asked.
    Done,
    /// The user ended it.
    Interrupted,
}

/// Whether the user wants the command to end.
#[derive(Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    ends_by_itself: Arc<AtomicBool>,
}

impl Interrupt {
    /// The first SIGINT or SIGTERM asks to end. A command that has not ended soon after, because it waits for a broker's answer or
    /// for somebody who does not read its output, is ended; so is any by a second signal.
    fn install() -> std::io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        let (raised, ends_by_itself) = (interrupt.raised.clone(), interrupt.ends_by_itself.clone());
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut signals = signals.forever();
            if signals.next().is_none() {
                return;
            }
            raised.store(true, Ordering::Relaxed);
            if ends_by_itself.load(Ordering::Relaxed) {
                signals.next();
            } else {
                std::thread::sleep(ENDS_WITHIN);
            }
            std::process::exit(EXIT_INTERRUPTED.into());
        })?;
        Ok(interrupt)
    }

    /// Whether it was raised.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// From here on the command looks at [`Self::raised`], and what it has still to do is bounded: it is given the time.
    pub fn is_looked_at(&self) {
        self.ends_by_itself.store(true, Ordering::Relaxed);
    }
}

fn run(command: &Command) -> Result<Ended, CommandError> {
    let interrupt = Interrupt::install().map_err(CommandError::Signals)?;
    match command {
        Command::Produce(args) => produce::run(args, &interrupt),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args, &interrupt),
        Command::Consume(args) => consume::run(args, &interrupt),
        Command::Topic(command) => topic::run(command),
        Command::Cursor(command) => cursor::run(command),
        Command::Doctor(args) => doctor::run(args),
        Command::Push(args) => push::run(args, &interrupt),
        Command::Inspect(args) => inspect::run(args),
        Command::Host(command) => host::run(command),
    }
}

fn main() -> ExitCode {
    if let Some(code) = pages::answer(&Cli::command()) {
        return code;
    }
    match run(&Cli::parse().command) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => EXIT_INTERRUPTED.into(),
        Err(error) => {
            eprintln!("embarctl: {error}");
            if error.is_usage() { EXIT_USAGE.into() } else { EXIT_FAILED.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
