//! `loadgen`: drives a pool of brokers, and verifies what its subscribers see.
//!
//! A few threads drive all publisher sessions, and a few all subscribers; the main thread shows progress and judges.
//!
//! * `args`, `units`: the command line. `load`, `fleet`: every client's plan made from it.
//! * `payload`: what messages contain. `verify`, `faults`: what a subscriber must see.
//! * `schedule`, `pace`: open loop, pure: when messages are planned, and which is due.
//! * `publish`, `open_loop`, `subscribe`, `latency`: the threads' work. `board`, `pause`: what they share.
//! * `recorder`: latencies.
//! * `run`: sets up, starts, watches, joins. `progress`: what is shown meanwhile.
//! * `sweep`, `versus`: several runs: rates, and many topics against one. `resume`: long topics.
//! * `verdict`, `report`: whether it was right, in words and as JSON.

mod args;
mod board;
mod client;
mod clock;
mod error;
mod faults;
mod fleet;
mod latency;
mod load;
mod open_loop;
mod pace;
mod pause;
mod payload;
mod progress;
mod publish;
mod recorder;
mod report;
mod resume;
mod run;
mod schedule;
mod subscribe;
mod sweep;
mod units;
mod verdict;
mod verify;
mod versus;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Cli, Command, E2eArgs, OutputArgs};
use crate::error::LoadError;
use crate::report::Ended;
use crate::verdict::Outcome;

const EXIT_FAIL: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let interrupted = Arc::new(AtomicBool::new(false));
    match run(&command, &interrupted) {
        Ok(Outcome::Pass) => ExitCode::SUCCESS,
        Ok(Outcome::Fail) => EXIT_FAIL.into(),
        Ok(Outcome::Interrupted) => EXIT_INTERRUPTED.into(),
        Err(error) => {
            eprintln!("loadgen: {error}");
            let code = if interrupted.load(Ordering::Relaxed) { EXIT_INTERRUPTED } else { EXIT_USAGE };
            code.into()
        }
    }
}

fn run(command: &Command, interrupted: &Arc<AtomicBool>) -> Result<Outcome, LoadError> {
    handle_signals(interrupted).map_err(LoadError::Signals)?;
    allow_descriptors();
    let (ended, output): (Ended, &OutputArgs) = match command {
        Command::Publish(args) => (run::publish(args, interrupted)?.into(), &args.output),
        Command::Subscribe(args) => (run::subscribe(args, interrupted)?.into(), &args.output),
        Command::E2e(args) => (e2e(args, interrupted)?, &args.output),
        Command::Latency(args) => (run::latency(args, interrupted)?.into(), &args.output),
        Command::Resume(args) => (resume::run(args, interrupted)?, &args.output),
        Command::ResumeReader(args) => return resume::read(args, interrupted),
    };
    println!("{}", ended.words);
    if let Some(path) = &output.json {
        report::write_json(&ended.json, path)?;
    }
    Ok(ended.outcome)
}

fn e2e(args: &E2eArgs, interrupted: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    if !args.rate_percent.is_empty() {
        sweep::run(args, interrupted)
    } else if args.compare.compare_one_topic {
        versus::run(args, interrupted)
    } else {
        run::e2e(args, interrupted).map(Ended::from)
    }
}

/// Hundreds of clients have more sockets than a shell's soft limit; the hard one is the administrator's word.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // If that is refused, connecting says what is missing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The first SIGINT or SIGTERM asks the threads to end, so that the run can say what it reached; a second
/// one ends the process at once.
fn handle_signals(interrupted: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED.into(), Arc::clone(interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(interrupted))?;
    }
    Ok(())
}
