//! The command line, and the plan of a run made from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use embarcadero::client::{PublisherOptions, Skew, Start, SubscriberOptions, TopicProperties};
use embarcadero::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, MESSAGE_HEADER_BYTES};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};

use crate::error::LoadError;
use crate::units;
use crate::verify::NUMBERS_MAX;

/// Most publisher sessions or subscribers of one run: each has a thread.
const THREADS_MAX: u32 = 1024;
/// Longest default warm-up of a latency run, messages.
const WARM_UP_DEFAULT_MAX: u64 = 100;

/// Load generator of Embarcadero. Closed loop: each publisher session keeps a window of batches in flight.
/// Exit codes: 0 pass, 1 something was short or wrong, 2 usage or set-up, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish as fast as the window allows, and wait for every ack.
    Publish(PublishArgs),
    /// Read a topic from its earliest message, verifying.
    Subscribe(SubscribeArgs),
    /// Publish, and verify at subscribers that were connected before the first message.
    E2e(E2eArgs),
    /// One batch of one message in flight: publish to ack, and with a subscriber publish to deliver.
    Latency(LatencyArgs),
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
    #[arg(long, default_value = "5", value_parser = units::order)]
    pub order: OrderLevel,
    /// Ack level: 0, 1 or 2.
    #[arg(long, default_value = "1", value_parser = units::ack)]
    pub ack: AckLevel,
    /// Where brokers stamp the time of receipt: batch or message.
    #[arg(long, default_value = "batch", value_parser = units::receipts)]
    pub receipts: Receipts,
    /// Longest wait for a connection, seconds.
    #[arg(long, default_value = "10", value_parser = units::seconds, value_name = "SECONDS")]
    pub connect_timeout: Duration,
    /// Size of each message, e.g. 0, 1024, 64KiB.
    #[arg(long, default_value = "1KiB", value_parser = units::bytes, value_name = "SIZE")]
    pub message_size: u64,
}

/// How much to publish and how.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Payload to publish in all, e.g. 1GiB.
    #[arg(long, default_value = "1GiB", value_parser = units::bytes, value_name = "SIZE")]
    pub total_bytes: u64,
    /// Messages to publish in all, instead of a size.
    #[arg(long, conflicts_with = "total_bytes", value_name = "COUNT")]
    pub messages: Option<u64>,
    /// Publisher sessions, a thread each.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX as i64))]
    pub sessions: u32,
    /// Seal a batch at this size.
    #[arg(long, value_parser = units::bytes, value_name = "SIZE")]
    pub batch_bytes: Option<u64>,
    /// Seal a batch at this many messages.
    #[arg(long, value_name = "COUNT")]
    pub batch_messages: Option<u32>,
    /// Seal a batch at this age, e.g. 1ms.
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub linger: Option<Duration>,
    /// Batches in flight per session.
    #[arg(long, value_name = "BATCHES")]
    pub window: Option<u32>,
    /// Connections of each session to each broker.
    #[arg(long, value_name = "COUNT")]
    pub connections_per_broker: Option<u32>,
    /// Longest time without any ack while some are awaited, and longest wait for the last one after the last
    /// message was sent, seconds.
    #[arg(long, default_value = "60", value_parser = units::seconds, value_name = "SECONDS")]
    pub ack_timeout: Duration,
    /// Test hook: delay everything sent to one broker (its index in the list).
    #[arg(long, value_parser = units::skew, value_name = "BROKER:MS")]
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
    /// Neither a progress bar nor interval lines.
    #[arg(long)]
    pub no_progress: bool,
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
    /// Subscribers, a thread each.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX as i64))]
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
    /// Subscribers, a thread each.
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX as i64))]
    pub subscribers: u32,
    /// Stop after this many messages; fewer is a failure.
    #[arg(long, required_unless_present = "until_caught_up")]
    pub count: Option<u64>,
    /// Stop when the broker has sent everything committed so far.
    #[arg(long, conflicts_with = "count")]
    pub until_caught_up: bool,
    /// Longest time without a message while some are awaited, seconds.
    #[arg(long, default_value = "30", value_parser = units::seconds, value_name = "SECONDS")]
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
    #[arg(long, default_value = "10", value_parser = units::seconds, value_name = "SECONDS")]
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

    /// How subscribers connect.
    pub fn subscriber_options(&self, topic: &str) -> SubscriberOptions {
        SubscriberOptions {
            brokers: self.brokers.clone(),
            topic: topic.to_owned(),
            start: Start::Earliest,
            connect_timeout: self.connect_timeout,
            ..SubscriberOptions::default()
        }
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
    /// Messages each session sends.
    pub fn split(&self, message_size: u64) -> Result<Vec<u64>, LoadError> {
        let total = match (self.messages, message_size) {
            (Some(messages), _) => messages,
            (None, 0) => {
                return Err(LoadError::Usage("--message-size 0: say how many with --messages COUNT".to_owned()));
            }
            (None, size) => self.total_bytes / size,
        };
        let sessions = u64::from(self.sessions);
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

    /// The client's options with this load's wishes.
    pub fn apply(&self, options: &mut PublisherOptions) {
        options.batch_bytes = self.batch_bytes.unwrap_or(options.batch_bytes);
        options.batch_messages = self.batch_messages.unwrap_or(options.batch_messages);
        options.linger = self.linger.unwrap_or(options.linger);
        options.window_batches = self.window.unwrap_or(options.window_batches);
        options.connections_per_broker = self.connections_per_broker.unwrap_or(options.connections_per_broker);
        options.skew = self.skew.map(|(broker, delay)| Skew { broker, delay });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn publish(line: &str) -> PublishArgs {
        match Cli::try_parse_from(line.split(' ')).expect("a good command line").command {
            Command::Publish(args) => args,
            _ => unreachable!("the line says publish"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn messages_are_split_without_loss() {
        let args = publish("loadgen publish --total-bytes 10000 --message-size 10 --sessions 3");
        assert_eq!(args.load.split(10).unwrap(), [334, 333, 333]);
        let few = publish("loadgen publish --messages 2 --sessions 3");
        assert!(few.load.split(10).is_err());
        let empty = publish("loadgen publish --message-size 0");
        assert!(empty.load.split(0).is_err());
    }

    #[test]
    fn impossible_combinations_are_refused() {
        for line in [
            "loadgen publish --message-size 1GiB",
            "loadgen publish --ack 0",
            "loadgen publish --message-size 16777215TiB",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(
                matches!(parsed.map(|cli| cli.command), Ok(Command::Publish(args)) if args.topic.check().is_err()),
                "{line}"
            );
        }
        assert!(Cli::try_parse_from(["loadgen", "subscribe"]).is_err(), "neither count nor until-caught-up");
        assert!(Cli::try_parse_from(["loadgen", "publish", "--order", "3"]).is_err());
    }

    #[test]
    fn topics_say_their_levels() {
        let args = publish("loadgen publish --order 4 --ack 0");
        assert_eq!(args.topic.name("-1"), "loadgen-o4-a0-1");
        assert_eq!(publish("loadgen publish --topic mine").topic.name("-1"), "mine");
    }
}
