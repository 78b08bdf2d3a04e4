//! The command line, and the plan of a run made from it.
//!
//! * here: what all subcommands have in common, and the closed loop.
//! * [`open`]: open loop, sweep, many topics, a stopped subscriber. [`reach`]: attached clients, slow readers.
//!   [`resume`]: long topics. [`quantities`]: rates.

mod open;
mod quantities;
mod reach;
mod resume;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use embarcadero::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, MESSAGE_HEADER_BYTES};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};
use embarcadero::{PublisherOptions, Skew, Start, SubscriberOptions, TopicProperties};
use tools_common::arguments;
use verification::verifier::NUMBERS_MAX;

use crate::error::LoadError;
use crate::publish::Goal;

pub use open::{CompareArgs, RateArgs, StopArgs};
pub use reach::{AttachArgs, SlowArgs};
pub use resume::{ResumeArgs, ResumeReaderArgs};

/// Most publishers or subscribers of one run.
const CLIENTS_MAX: u32 = 4096;
/// Most topics of one run.
const TOPICS_MAX: u32 = 4096;
/// Most threads for publishers, and as many for subscribers.
const THREADS_MAX: u32 = 1024;
/// Batches of all sessions in flight, bytes, as far as `--window` does not say otherwise.
const IN_FLIGHT_BYTES: u64 = 256 << 20;
/// Smallest receive buffer of a subscriber, bytes.
const BUFFER_BYTES_MIN: u64 = 128 << 10;
/// Buffers of all subscribers, bytes.
const BUFFERS_BYTES: u64 = 256 << 20;
/// Longest default warm-up of a latency run, messages.
const WARM_UP_DEFAULT_MAX: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  loadgen e2e --total-bytes 4GiB --sessions 4 --subscribers 2 --json result.json
      as fast as windows of batches allow, every byte verified
  loadgen e2e --rate 50MB --arrival poisson --duration 30s
      open loop: 50 MB/s at planned times; latencies from the plan and from sending
  loadgen e2e --rate-percent 10,50,80 --duration 20s
      the maximum first, then latencies at parts of it
  loadgen e2e --topics 500 --sessions 64 --subscribers 64 --compare-one-topic
      many topics against one, in turn
  loadgen e2e --duration 30s --subscribers 2 --stop-reader-for 10s
      what a reader that stops does to publishers, and what becomes of it
  loadgen e2e --duration 30s --stop-reader-for 10s --slow-reader skip
      the same of one that is not waited for: what it skips it is told, the rest is verified
  loadgen e2e --attach /dev/shm/embarcadero --sessions 2 --total-bytes 4GiB
      without sockets: publishers and subscribers map the pool
  loadgen resume --messages 200000000 --message-size 16 --sessions 2
      a long topic; readers from its end, from its middle, and killed and resumed
  loadgen e2e --duration 10s --json now.json --report now.html --compare-with before.json
      a page to show to others, with an earlier result beside it
  loadgen report before.json now.json --out both.html
      the same of two results that are there

Rates: a number is messages a second, a size is payload bytes a second. 1 MB is 10^6 bytes, 1 MiB is 2^20.";

/// Load generator of Embarcadero. Closed loop: each publisher session keeps a window of batches in flight. Open loop
/// (--rate): messages are sent at planned times.
/// Exit codes: 0 pass, 1 something was short or wrong, 2 usage or set-up, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish, and wait for every ack.
    Publish(PublishArgs),
    /// Read a topic from its earliest message, verifying.
    Subscribe(SubscribeArgs),
    /// Publish, and verify at subscribers that were connected before the first message.
    E2e(E2eArgs),
    /// One batch of one message in flight: publish to ack, and with a subscriber publish to deliver.
    Latency(LatencyArgs),
    /// Fill a long topic; verify readers from its end, from its middle, and one that is killed and resumes.
    Resume(ResumeArgs),
    /// Make a report for people of what --json wrote: one HTML file.
    Report(ReportArgs),
    /// (started by resume) The reader that is killed.
    #[command(hide = true)]
    ResumeReader(ResumeReaderArgs),
}

/// Which topic, and what it promises.
#[derive(Clone, Debug, Args)]
pub struct TopicArgs {
    /// Brokers to connect to; sessions are striped over all of the pool's brokers.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7300", value_name = "ADDRESS,…")]
    pub brokers: Vec<String>,
    /// Connect to the brokers named only, not to the others they know.
    #[arg(long)]
    pub no_discover: bool,
    /// Topic [default: loadgen-o<ORDER>-a<ACK>, for e2e and latency with a suffix of its own].
    #[arg(long)]
    pub topic: Option<String>,
    /// Order level: 0, 1, 2, 4 or 5.
    #[arg(long, default_value = "5", value_parser = arguments::order)]
    pub order: OrderLevel,
    /// Ack level: 0, 1 or 2.
    #[arg(long, default_value = "1", value_parser = arguments::ack)]
    pub ack: AckLevel,
    /// Where brokers stamp the time of receipt: batch or message.
    #[arg(long, default_value = "batch", value_parser = arguments::receipts)]
    pub receipts: Receipts,
    /// Longest wait for a connection, seconds.
    #[arg(long, default_value = "10", value_parser = arguments::seconds, value_name = "SECONDS")]
    pub connect_timeout: Duration,
    /// Size of each message, e.g. 0, 1024, 64KiB.
    #[arg(long, default_value = "1KiB", value_parser = arguments::bytes, value_name = "SIZE")]
    pub message_size: u64,
}

/// How much to publish and how.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Payload to publish in all, e.g. 1GiB.
    #[arg(long, default_value = "1GiB", value_parser = arguments::bytes, value_name = "SIZE")]
    pub total_bytes: u64,
    /// Messages to publish in all, instead of a size.
    #[arg(long, conflicts_with = "total_bytes", value_name = "COUNT")]
    pub messages: Option<u64>,
    /// Instead: publish as fast as the window allows for this long, e.g. 10s. With a rate: the time that is measured
    /// [default then: 10s].
    #[arg(long, conflicts_with_all = ["total_bytes", "messages"], value_parser = arguments::duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Publishers. With more topics than that, each has a session for each of its topics.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX as i64))]
    pub sessions: u32,
    /// Topics, named TOPIC-0, TOPIC-1, …: publishers and subscribers are spread over them.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=TOPICS_MAX as i64))]
    pub topics: u32,
    /// Threads that drive publishers, and as many for subscribers [default: twice the cores, at least 4].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX as i64))]
    pub threads: Option<u32>,
    /// Seal a batch at this size.
    #[arg(long, value_parser = arguments::bytes, value_name = "SIZE")]
    pub batch_bytes: Option<u64>,
    /// Seal a batch at this many messages.
    #[arg(long, value_name = "COUNT")]
    pub batch_messages: Option<u32>,
    /// Seal a batch at this age, e.g. 1ms.
    #[arg(long, value_parser = arguments::duration, value_name = "TIME")]
    pub linger: Option<Duration>,
    /// Batches in flight per session [default: 64, fewer where all sessions would have more than 256 MiB].
    #[arg(long, value_name = "BATCHES")]
    pub window: Option<u32>,
    /// Connections of each session to each broker.
    #[arg(long, value_name = "COUNT")]
    pub connections_per_broker: Option<u32>,
    /// Longest time without any ack while some are awaited, and longest wait for the last one after the last
    /// message was sent, seconds.
    #[arg(long, default_value = "60", value_parser = arguments::seconds, value_name = "SECONDS")]
    pub ack_timeout: Duration,
    /// Test hook: delay everything sent to one broker (its index in the list).
    #[arg(long, value_parser = quantities::skew, value_name = "BROKER:MS")]
    pub skew: Option<(usize, Duration)>,
}

/// What subscribers do.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Verify order, completeness and every byte (the default).
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Count only.
    #[arg(long, overrides_with = "verify")]
    no_verify: bool,
}

impl Command {
    /// What is shown and written, by those that make a run.
    pub fn output(&self) -> Option<&OutputArgs> {
        match self {
            Command::Publish(args) => Some(&args.output),
            Command::Subscribe(args) => Some(&args.output),
            Command::E2e(args) => Some(&args.output),
            Command::Latency(args) => Some(&args.output),
            Command::Resume(args) => Some(&args.output),
            Command::Report(_) | Command::ResumeReader(_) => None,
        }
    }
}

impl VerifyArgs {
    /// Whether subscribers verify.
    pub fn on(&self) -> bool {
        !self.no_verify
    }
}

/// What is shown and written.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Write configuration, machine, results and verdict to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a report for people to this file: HTML that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The report shows this earlier result (written with --json) beside the new one.
    #[arg(long, requires = "report", value_name = "FILE")]
    pub compare_with: Option<PathBuf>,
    /// Look into the brokers' pool, which is on this machine: the result says how long batches took from stage to stage inside, and who
    /// waited for whom.
    #[arg(long, value_name = "POOL")]
    pub inside: Option<PathBuf>,
    /// Neither a progress bar nor interval lines.
    #[arg(long)]
    pub no_progress: bool,
}

/// `loadgen report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What a run wrote with --json.
    #[arg(value_name = "RESULT")]
    pub result: PathBuf,
    /// Another result, to be shown beside the first and as a ratio of it.
    #[arg(value_name = "OTHER")]
    pub other: Option<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `loadgen publish`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part has its own")]
pub struct PublishArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub attach: AttachArgs,
    #[command(flatten)]
    pub rate: RateArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `loadgen e2e`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part has its own")]
pub struct E2eArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub attach: AttachArgs,
    #[command(flatten)]
    pub rate: RateArgs,
    /// Open loop at these percentages of the maximum, which is measured first, e.g. 10,50,80.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["rate", "attach", "slow_reader"], value_parser = clap::value_parser!(u32).range(1..=100), value_name = "PERCENT,…")]
    pub rate_percent: Vec<u32>,
    #[command(flatten)]
    pub compare: CompareArgs,
    #[command(flatten)]
    pub stop: StopArgs,
    #[command(flatten)]
    pub slow: SlowArgs,
    /// Subscribers. With more topics than that, each reads several.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX as i64))]
    pub subscribers: u32,
    #[command(flatten)]
    pub verify: VerifyArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `loadgen subscribe`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part has its own")]
pub struct SubscribeArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    #[command(flatten)]
    pub attach: AttachArgs,
    #[command(flatten)]
    pub slow: SlowArgs,
    /// Subscribers.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX as i64))]
    pub subscribers: u32,
    /// Stop after this many messages; fewer is a failure.
    #[arg(long, required_unless_present = "until_caught_up")]
    pub count: Option<u64>,
    /// Stop when the broker has sent everything committed so far.
    #[arg(long, conflicts_with = "count")]
    pub until_caught_up: bool,
    /// Longest time without a message while some are awaited, seconds.
    #[arg(long, default_value = "30", value_parser = arguments::seconds, value_name = "SECONDS")]
    pub idle_timeout: Duration,
    #[command(flatten)]
    pub verify: VerifyArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `loadgen latency`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part has its own")]
pub struct LatencyArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    /// Messages to publish, one after the other.
    #[arg(long, default_value = "10000", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages: u64,
    /// Messages at the start that are not counted [default: 5 %, at most 100].
    #[arg(long, value_name = "COUNT")]
    pub warm_up: Option<u64>,
    /// Subscribers: 0, or 1 to measure publish to deliver too.
    #[arg(long, default_value = "0", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1))]
    pub subscribers: u32,
    /// Longest wait for one ack, seconds.
    #[arg(long, default_value = "10", value_parser = arguments::seconds, value_name = "SECONDS")]
    pub ack_timeout: Duration,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl LatencyArgs {
    /// Messages that are not counted.
    pub fn warm_up(&self) -> u64 {
        self.warm_up.unwrap_or(WARM_UP_DEFAULT_MAX.min(self.messages / 20))
    }
}

impl TopicArgs {
    /// The topic's name: as given, or the default with the suffix this kind of run needs.
    pub fn name(&self, suffix: &str) -> String {
        let default = || format!("loadgen-o{}-a{}{suffix}", self.order, self.ack);
        self.topic.clone().unwrap_or_else(default)
    }

    /// Properties the topic is created with.
    pub fn properties(&self) -> TopicProperties {
        TopicProperties { order: self.order, ack: self.ack, receipts: self.receipts, ..TopicProperties::default() }
    }

    /// How subscriber `index` of so many connects: they begin at different brokers.
    pub fn subscriber_options(&self, topic: &str, index: usize, readers: usize) -> SubscriberOptions {
        let mut brokers = self.brokers.clone();
        brokers.rotate_left(index % self.brokers.len().max(1));
        let mut options = SubscriberOptions {
            brokers,
            topic: topic.to_owned(),
            start: Start::Earliest,
            connect_timeout: self.connect_timeout,
            ..SubscriberOptions::default()
        };
        let share = BUFFERS_BYTES / readers.max(1) as u64;
        options.buffer_bytes = options.buffer_bytes.min(share.max(BUFFER_BYTES_MIN));
        options
    }

    /// How publishers connect, before the load's own wishes.
    pub fn publisher_options(&self, topic: &str) -> PublisherOptions {
        PublisherOptions {
            brokers: self.brokers.clone(),
            discover: !self.no_discover,
            topic: topic.to_owned(),
            create: None,
            ack: self.ack,
            connect_timeout: self.connect_timeout,
            ..PublisherOptions::default()
        }
    }

    /// Refuses combinations that no broker would take, before anything is started.
    pub fn check(&self) -> Result<(), LoadError> {
        let largest = BATCH_BYTES_MAX - FRAME_HEADER_BYTES as u64 - MESSAGE_HEADER_BYTES;
        if self.message_size > largest {
            let found = self.message_size;
            let text = format!("--message-size {found}: no broker takes more than {largest} bytes");
            return Err(LoadError::Usage(text));
        }
        if self.order == OrderLevel::Session && self.ack == AckLevel::None {
            let text = "--order 5 needs acks to resend from: use --ack 1, or --order 4 or below with --ack 0";
            return Err(LoadError::Usage(text.to_owned()));
        }
        Ok(())
    }
}

impl LoadArgs {
    /// What each of so many sessions sends in a closed loop.
    pub fn goals(&self, message_size: u64, sessions: usize) -> Result<Vec<Goal>, LoadError> {
        if let Some(duration) = self.duration {
            if duration.is_zero() {
                return Err(LoadError::Usage("--duration 0: nothing would be published".to_owned()));
            }
            return Ok(vec![Goal::For(duration); sessions]);
        }
        Ok(self.split(message_size, sessions)?.into_iter().map(Goal::Messages).collect())
    }

    /// Messages each of so many sessions sends.
    pub fn split(&self, message_size: u64, sessions: usize) -> Result<Vec<u64>, LoadError> {
        let total = match (self.messages, message_size) {
            (Some(messages), _) => messages,
            (None, 0) => {
                return Err(LoadError::Usage("--message-size 0: say how many with --messages COUNT".to_owned()));
            }
            (None, size) => self.total_bytes / size,
        };
        let sessions = sessions as u64;
        if total < sessions {
            let text =
                format!("{total} messages for {sessions} sessions: each needs at least one; send more or use fewer");
            return Err(LoadError::Usage(text));
        }
        if total > NUMBERS_MAX {
            let text =
                format!("{total} messages: one run tells at most {NUMBERS_MAX} apart; use larger or fewer messages");
            return Err(LoadError::Usage(text));
        }
        Ok((0..sessions).map(|index| total / sessions + u64::from(index < total % sessions)).collect())
    }

    /// Threads that drive publishers, and as many for subscribers.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or((2 * cores).max(4), |threads| threads as usize)
    }

    /// The client's options with this load's wishes, for one of so many sessions.
    pub fn apply(&self, options: &mut PublisherOptions, sessions: usize) {
        options.batch_bytes = self.batch_bytes.unwrap_or(options.batch_bytes);
        options.batch_messages = self.batch_messages.unwrap_or(options.batch_messages);
        options.linger = self.linger.unwrap_or(options.linger);
        let share = IN_FLIGHT_BYTES / sessions.max(1) as u64 / options.batch_bytes.max(1);
        let fewer = options.window_batches.min(share.max(2) as u32);
        options.window_batches = self.window.unwrap_or(fewer);
        options.connections_per_broker = self.connections_per_broker.unwrap_or(options.connections_per_broker);
        options.skew = self.skew.map(|(broker, delay)| Skew { broker, delay });
    }
}

#[cfg(test)]
mod tests;
