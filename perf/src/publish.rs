//! One throughput run: sessions that publish as fast as their windows allow, timed from before the first message until the
//! last byte has landed (sinks, which say so) or the last ack is here (brokers).

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::limits::FRAME_HEADER_BYTES;
use embarcadero::wire::AckLevel;
use embarcadero::wire::message::message_bytes;
use embarcadero::{Publisher, PublisherOptions, PublisherStats};
use serde_json::{Value, json};
use tools_common::clock::monotonic_ns;

use crate::args::RunArgs;
use crate::error::CompareError;
use crate::machine::{Processors, Usage};
use crate::subject::Subject;

/// Longest time without progress.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest single wait in the client.
const POLL: Duration = Duration::from_millis(20);
/// Time for the goodbyes.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// What one run gave.
#[derive(Clone, Debug)]
pub struct PublishRun {
    /// Payload published.
    pub bytes: u64,
    /// From the first message to the end as the head of the file says.
    pub seconds: f64,
    /// Who used the processors.
    pub usage: Usage,
    /// What the clients had to do again.
    pub resent_batches: u64,
}

impl PublishRun {
    /// Payload, 10^9 bytes a second.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds
    }

    /// Every figure.
    pub fn json(&self) -> Value {
        json!({
            "bytes": self.bytes,
            "seconds": self.seconds,
            "gb_per_s": self.gb_per_s(),
            "client_cpu_s": self.usage.client_s,
            "receiver_cpu_s": self.usage.receiver_s,
            "others_cpu_part": self.usage.others,
            "resent_batches": self.resent_batches,
        })
    }
}

/// What to publish, and to whom.
pub struct Load<'a> {
    /// Name of the case, for errors.
    pub name: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// None: the receiver is a sink that says when everything has landed, and the run ends then.
    pub ack: AckLevel,
    /// The receiver is a sink, which says what has landed.
    pub sink: bool,
    /// Sizes and counts.
    pub args: &'a RunArgs,
    /// SIGINT or SIGTERM came.
    pub interrupted: &'a AtomicBool,
}

/// What one session brings back.
struct Session {
    begin_ns: u64,
    end_ns: u64,
    stats: PublisherStats,
}

/// Publishes `args.total` bytes to `subject`.
pub fn run(load: &Load<'_>, subject: &mut Subject) -> Result<PublishRun, CompareError> {
    let sessions = load.args.sessions as usize;
    let publishers = (0..sessions).map(|_| connect(load, subject)).collect::<Result<Vec<_>, _>>()?;
    let start = Barrier::new(sessions);
    let before = Processors::now(subject.process());
    let ended: Vec<Result<Session, CompareError>> = thread::scope(|scope| {
        let one = |publisher| scope.spawn(|| publish(load, publisher, &start));
        let threads: Vec<_> = publishers.into_iter().map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let usage = Processors::now(subject.process()).since(&before);
    let ended = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
    let messages = load.args.messages_per_session() * u64::from(load.args.sessions);
    let begin_ns = ended.iter().map(|session| session.begin_ns).min().expect("there is a session");
    let landed_ns = if load.sink { Some(landed(load, subject, messages)?) } else { None };
    let end_ns = match landed_ns.filter(|_| load.ack == AckLevel::None) {
        Some(landed_ns) => landed_ns,
        None => ended.iter().map(|session| session.end_ns).max().expect("there is a session"),
    };
    let seconds = (end_ns.saturating_sub(begin_ns).max(1)) as f64 / 1e9;
    let resent_batches = ended.iter().map(|session| session.stats.resent_batches).sum();
    Ok(PublishRun { bytes: messages * load.args.message_bytes, seconds, usage, resent_batches })
}

fn connect(load: &Load<'_>, subject: &Subject) -> Result<Publisher, CompareError> {
    let options = PublisherOptions {
        brokers: subject.seeds(),
        topic: load.topic.to_owned(),
        ack: load.ack,
        batch_bytes: load.args.batch_bytes,
        window_batches: load.args.window,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::connect(options).map_err(CompareError::client(load.name))?;
    let missing = publisher.broker_progress().iter().filter(|broker| !broker.connected).count();
    if missing > 0 {
        return Err(subject.failed(format!("{missing} brokers did not answer in time")));
    }
    Ok(publisher)
}

fn publish(load: &Load<'_>, mut publisher: Publisher, start: &Barrier) -> Result<Session, CompareError> {
    let payload: Vec<u8> = (0..load.args.message_bytes).map(|at| (at * 131 + 7) as u8).collect();
    let messages = load.args.messages_per_session();
    start.wait();
    let begin_ns = monotonic_ns();
    let mut patience = Patience { load, acked: 0, since: Instant::now() };
    for _ in 0..messages {
        while !publisher.try_send(&payload).map_err(CompareError::client(load.name))? {
            patience.wait(&mut publisher)?;
        }
    }
    while publisher.messages_acked() < messages {
        publisher.seal(); // It has no effect while the window is full.
        patience.wait(&mut publisher)?;
    }
    let end_ns = monotonic_ns();
    let stats = publisher.stats();
    publisher.close(CLOSE_MAX).map_err(CompareError::client(load.name))?;
    Ok(Session { begin_ns, end_ns, stats })
}

/// Waits for acks, but not for ever.
struct Patience<'a> {
    load: &'a Load<'a>,
    acked: u64,
    since: Instant,
}

impl Patience<'_> {
    fn wait(&mut self, publisher: &mut Publisher) -> Result<(), CompareError> {
        publisher.poll(POLL).map_err(CompareError::client(self.load.name))?;
        if self.load.interrupted.load(Ordering::Relaxed) {
            return Err(CompareError::Interrupted);
        }
        let (acked, now) = (publisher.messages_acked(), Instant::now());
        if acked > self.acked {
            (self.acked, self.since) = (acked, now);
        } else if now - self.since > STALL_MAX {
            // The client's own account of which broker owes what.
            publisher
                .flush(Duration::ZERO)
                .map_err(CompareError::client(format!("{}: no ack for {STALL_MAX:?}", self.load.name)))?;
        }
        Ok(())
    }
}

/// When the last byte had landed, as the sink says; and whether it received what was sent.
fn landed(load: &Load<'_>, subject: &mut Subject, messages: u64) -> Result<u64, CompareError> {
    let line = subject.line(STALL_MAX)?;
    let words: Vec<&str> = line.split(' ').collect();
    let (["run", connections, bytes, last_ns], args) = (&words[..], load.args) else {
        return Err(subject.failed(format!("said {line:?} where a run's end was expected")));
    };
    let number = |word: &str| word.parse::<u64>().map_err(|_| subject.failed(format!("said {line:?}")));
    let (connections, bytes) = (number(connections)?, number(bytes)?);
    let least = messages * message_bytes(args.message_bytes);
    // Batch headers and padding: two lines for each batch, and one unfilled batch and a Goodbye for each connection.
    let batches = least / args.batch_bytes.saturating_sub(message_bytes(args.message_bytes)).max(1) + 1;
    let most = least + (2 * batches + 4 * connections + 4) * 2 * FRAME_HEADER_BYTES as u64;
    if !(least..=most).contains(&bytes) {
        let what = format!("{bytes} bytes landed, {least} to {most} were sent");
        return Err(CompareError::Unsound { name: load.name.to_owned(), what });
    }
    number(last_ns)
}
