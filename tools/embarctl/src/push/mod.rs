//! `embarctl push`: a pool's metrics to an OpenTelemetry collector, once or again and again. Brokers know nothing of it.
//!
//! The metrics are those that a broker shows to scrapers, by the same names: of a pool all of them, of a status page those of its process.
//!
//! * [`exposition`]: them read. [`otlp`]: them as a collector wants them. [`http`]: the way there.

pub mod error;
mod exposition;
mod http;
mod otlp;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use embarcadero::monitor::prometheus::{Scope, render};
use embarcadero::monitor::snapshot::Snapshot;
use embarcadero::pool::Pool;
use tools_common::arguments::{duration, seconds};

use crate::error::CommandError;
use crate::push::error::PushError;
use crate::push::http::{Url, exchange};
use crate::{Ended, Interrupt};

/// What from where to where.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The pool: a file or a devdax device.
    #[arg(long, default_value = "/dev/shm/embarcadero", value_name = "PATH")]
    pool: PathBuf,
    /// Instead of a pool: the status page of a broker, like http://127.0.0.1:7380.
    #[arg(long, value_name = "URL", conflicts_with = "pool")]
    from: Option<String>,
    /// The collector, by OTLP over HTTP. Without a path: /v1/metrics.
    #[arg(long, value_name = "URL")]
    to: String,
    /// How often.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    every: Duration,
    /// Once, and end.
    #[arg(long, conflicts_with = "every")]
    once: bool,
    /// Longest wait for one answer, seconds.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
}

/// More is not what a broker shows, bytes.
const METRICS_BYTES_MAX: usize = 16 << 20;
/// More is not what a collector says, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// More often than counters move is of no use.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the user wants to end it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where metrics come from.
enum Source {
    /// And how it was when it was looked at last.
    Pool(Box<Pool>, Option<Box<Snapshot>>),
    Page(Url),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::Pool(pool, _) => pool.path().display().to_string(),
            Source::Page(url) => url.at.clone(),
        }
    }

    /// As they are now, and when that is, UTC ns.
    fn text(&mut self, timeout: Duration) -> Result<(u64, String), PushError> {
        match self {
            Source::Pool(pool, before) => {
                if let Err(lost) = pool.check() {
                    // Another may lie in its place by now.
                    let path = pool.path().to_owned();
                    **pool = Pool::look(&path).map_err(|_| PushError::Lost { path, source: lost })?;
                    *before = None;
                }
                let now = Snapshot::take(pool, false);
                let text = render(&now, before.as_deref(), &Scope::default());
                let at_ns = now.taken_at;
                *before = Some(Box::new(now));
                Ok((at_ns, text))
            }
            Source::Page(url) => {
                let text = exchange(url, None, timeout, METRICS_BYTES_MAX)?;
                let text = String::from_utf8(text)
                    .map_err(|_| PushError::Answer { at: url.at.clone(), reason: "it is no text" })?;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Ok((now.as_nanos() as u64, text))
            }
        }
    }
}

/// Pushes. What cannot be pushed once is an error; else it is said, and tried again at the next time.
pub fn run(args: &PushArgs, interrupt: &Interrupt) -> Result<Ended, CommandError> {
    let to = Url::parse(&args.to, "/v1/metrics")?;
    let mut source = match &args.from {
        Some(from) => Source::Page(Url::parse(from, "/metrics")?),
        None => Source::Pool(Box::new(Pool::look(&args.pool)?), None),
    };
    if args.once {
        push(&mut source, &to, args.timeout)?;
        return Ok(Ended::Done);
    }
    if args.every < EVERY_MIN {
        return Err(CommandError::Usage("--every is 1s at least: counters move once a second"));
    }
    let mut last_fault = String::new();
    loop {
        let next = Instant::now() + args.every;
        let fault = push(&mut source, &to, args.timeout).err().map(|error| error.to_string()).unwrap_or_default();
        if fault != last_fault {
            eprintln!("embarctl: {}", if fault.is_empty() { "metrics are pushed again" } else { &fault });
            last_fault = fault;
        }
        while Instant::now() < next {
            if interrupt.raised() {
                return Ok(Ended::Interrupted);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn push(source: &mut Source, to: &Url, timeout: Duration) -> Result<(), PushError> {
    let (at_ns, text) = source.text(timeout)?;
    let families = exposition::read(&source.name(), &text)?;
    let request = otlp::request(&families, &source.name(), at_ns).to_string();
    let answer = exchange(to, Some(("application/json", request.as_bytes())), timeout, ANSWER_BYTES_MAX)?;
    match otlp::rejected(&answer) {
        Some((rejected, words)) => Err(PushError::Partly { at: to.at.clone(), rejected, words }),
        None => Ok(()),
    }
}
