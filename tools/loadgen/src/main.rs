//! `loadgen`: drives a pool of brokers, and verifies what its subscribers see.
//!
//! A few threads drive all publisher sessions, and a few all subscribers; the main thread shows progress and judges.
//!
//! * `args`: the command line. `load`, `fleet`: every client's plan made from it.
//! * `drive`, `publish`, `open_loop`, `subscribe`, `latency`: the threads' work. `board`, `pause`: what they share.
//! * `recorder`: latencies.
//! * `run`: sets up, starts, watches, joins. `progress`: what is shown meanwhile.
//! * `experiment`: several runs: rates, many topics against one, a long topic.
//! * `report`: whether it was right, in words and as JSON. What messages contain, and what subscribers must see, is in `verification`.

mod args;
mod board;
mod drive;
mod error;
mod experiment;
mod fleet;
mod latency;
mod load;
mod open_loop;
mod pause;
mod progress;
mod publish;
mod recorder;
mod report;
mod run;
mod subscribe;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tools_common::interrupt::{self, EXIT_INTERRUPTED, Second};
use tools_common::report::write_json;
use verification::verdict::Outcome;

use crate::args::{Cli, Command, E2eArgs, OutputArgs};
use crate::error::LoadError;
use crate::experiment::{resume, sweep, versus};
use crate::report::Ended;

const EXIT_FAIL: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(code) = pages::answer(&Cli::command()) {
        return code;
    }
    let command = Cli::parse().command;
    let interrupted = match interrupt::flag(Second::Ends) {
        Ok(flag) => flag,
        Err(error) => return failed(&LoadError::Signals(error), EXIT_USAGE),
    };
    match run(&command, &interrupted) {
        Ok(Outcome::Pass) => ExitCode::SUCCESS,
        Ok(Outcome::Fail) => EXIT_FAIL.into(),
        Ok(Outcome::Interrupted) => EXIT_INTERRUPTED.into(),
        Err(error) if interrupted.load(Ordering::Relaxed) => failed(&error, EXIT_INTERRUPTED),
        Err(error) => failed(&error, EXIT_USAGE),
    }
}

fn failed(error: &LoadError, code: u8) -> ExitCode {
    eprintln!("loadgen: {error}");
    code.into()
}

fn run(command: &Command, interrupted: &Arc<AtomicBool>) -> Result<Outcome, LoadError> {
    allow_descriptors();
    let (ended, output): (Ended, &OutputArgs) = match command {
        Command::Publish(args) => (run::publish(args, interrupted)?.into(), &args.output),
        Command::Subscribe(args) => (run::subscribe(args, interrupted)?.into(), &args.output),
        Command::E2e(args) => (e2e(args, interrupted)?, &args.output),
        Command::Latency(args) => (run::latency(args, interrupted)?.into(), &args.output),
        Command::Resume(args) => (resume::run(args, interrupted)?, &args.output),
        Command::ResumeReader(args) => return resume::read(args, interrupted),
    };
    if let Err(source) = writeln!(io::stdout(), "{}", ended.words)
        && source.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(LoadError::Output { path: "standard output".into(), source });
    }
    if let Some(path) = &output.json {
        write_json(&ended.json, path).map_err(|source| LoadError::Output { path: path.clone(), source })?;
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
