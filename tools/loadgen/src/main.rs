//! `loadgen`: drives a pool of brokers, and verifies what its subscribers see.
//!
//! A few threads drive all publisher sessions, and a few all subscribers; the main thread shows progress and judges.
//!
//! * `args`: the command line. `load`, `fleet`: every client's plan made from it.
//! * `drive`, `publish`, `open_loop`, `subscribe`, `latency`: the threads' work. `board`, `pause`: what they share.
//! * `recorder`, `stages`: latencies. `series`, `events`: how a run went.
//! * `run`: sets up, starts, watches, joins. `progress`: what is shown meanwhile.
//! * `experiment`: several runs: rates, many topics against one, a long topic.
//! * `html`: a page of what was written as JSON.
//! * `report`: whether it was right, in words and as JSON. What messages contain, and what subscribers must see, is in `verification`.

mod args;
mod board;
mod drive;
mod error;
mod events;
mod experiment;
mod fleet;
mod html;
mod inside;
mod latency;
mod load;
mod open_loop;
mod pause;
mod progress;
mod publish;
mod recorder;
mod report;
mod run;
mod series;
mod stages;
mod subscribe;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tools_common::interrupt::{self, EXIT_INTERRUPTED, Second};
use tools_common::report::{may_write, write_json, write_text};
use verification::verdict::Outcome;

use crate::args::{Cli, Command, E2eArgs, OutputArgs, ReportArgs};
use crate::error::LoadError;
use crate::experiment::{resume, sweep, versus};
use crate::html::document::Document;
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
    // What it is to be compared with is refused before a run, not after it.
    let earlier = command.output().and_then(|output| output.compare_with.as_deref()).map(Document::read).transpose()?;
    // So is where its results cannot go.
    for path in command.output().into_iter().flat_map(|output| [&output.json, &output.report]).flatten() {
        may_write(path).map_err(|source| LoadError::Output { path: path.clone(), source })?;
    }
    let ended: Ended = match command {
        Command::Publish(args) => run::publish(args, interrupted)?.into(),
        Command::Subscribe(args) => run::subscribe(args, interrupted)?.into(),
        Command::E2e(args) => e2e(args, interrupted)?,
        Command::Latency(args) => run::latency(args, interrupted)?.into(),
        Command::Resume(args) => resume::run(args, interrupted)?,
        Command::Report(args) => return report(args),
        Command::ResumeReader(args) => return resume::read(args, interrupted),
    };
    if let Err(source) = writeln!(io::stdout(), "{}", ended.words)
        && source.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(LoadError::Output { path: "standard output".into(), source });
    }
    if let Some(output) = command.output() {
        write(&ended, output, earlier.as_ref())?;
    }
    Ok(ended.outcome)
}

/// The files of a run that has ended.
fn write(ended: &Ended, output: &OutputArgs, earlier: Option<&Document>) -> Result<(), LoadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| LoadError::Output { path, source }
    };
    if let Some(path) = &output.json {
        write_json(&ended.json, path).map_err(failed(path))?;
    }
    if let Some(path) = &output.report {
        let named = output.json.as_ref().and_then(|json| json.file_name());
        let name = named.map_or("this run".to_owned(), |name| name.to_string_lossy().into_owned());
        let own = Document::new(name, &ended.json)?;
        let page = earlier.map_or_else(|| html::page(&own, None), |earlier| html::page(earlier, Some(&own)));
        write_text(&page, path).map_err(failed(path))?;
    }
    Ok(())
}

/// `loadgen report`. Its exit code says whether the report was made, not what is in it.
fn report(args: &ReportArgs) -> Result<Outcome, LoadError> {
    let (result, other) = (Document::read(&args.result)?, args.other.as_deref().map(Document::read).transpose()?);
    let page = html::page(&result, other.as_ref());
    write_text(&page, &args.out).map_err(|source| LoadError::Output { path: args.out.clone(), source })?;
    Ok(Outcome::Pass)
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
