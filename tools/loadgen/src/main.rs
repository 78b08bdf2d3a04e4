//! `loadgen`: drives a pool of brokers, and verifies what its subscribers see.
//!
//! One thread per publisher session and per subscriber; the main thread shows progress and judges.
//!
//! * `args`, `units`: the command line.
//! * `payload`: what messages contain. `verify`, `faults`: what a subscriber must see.
//! * `publish`, `subscribe`, `latency`: the threads' work. `board`: what they share.
//! * `run`: sets up, starts, watches, joins. `progress`: what is shown meanwhile.
//! * `verdict`, `report`: whether it was right, in words and as JSON.

mod args;
mod board;
mod error;
mod faults;
mod latency;
mod payload;
mod progress;
mod publish;
mod report;
mod run;
mod subscribe;
mod units;
mod verdict;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Cli, Command, OutputArgs};
use crate::error::LoadError;
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
    let interrupted = Arc::clone(interrupted);
    let (report, output): (_, &OutputArgs) = match command {
        Command::Publish(args) => (run::publish(args, interrupted)?, &args.output),
        Command::Subscribe(args) => (run::subscribe(args, interrupted)?, &args.output),
        Command::E2e(args) => (run::e2e(args, interrupted)?, &args.output),
        Command::Latency(args) => (run::latency(args, interrupted)?, &args.output),
    };
    println!("{}", report.words());
    if let Some(path) = &output.json {
        report.write_json(path)?;
    }
    Ok(report.verdict.outcome)
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
