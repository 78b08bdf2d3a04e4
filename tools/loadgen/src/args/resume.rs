//! A long topic and its readers.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use embarcadero::wire::{AckLevel, OrderLevel};
use tools_common::arguments;
use verification::payload::STAMP_BYTES;

use super::{LoadArgs, OutputArgs, TopicArgs};
use crate::error::LoadError;

/// `loadgen resume`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part has its own")]
pub struct ResumeArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Messages published once the readers are there, by sessions of their own [default: 1 % of the others].
    #[arg(long, value_name = "COUNT")]
    pub tail_messages: Option<u64>,
    /// Times that the resuming reader is killed (SIGKILL), evenly spread over the topic.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    pub kills: u32,
    /// Longest time without a message while some are awaited, seconds.
    #[arg(long, default_value = "30", value_parser = arguments::seconds, value_name = "SECONDS")]
    pub idle_timeout: Duration,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ResumeArgs {
    /// Messages of the tail, for a topic of so many.
    pub fn tail(&self, messages: u64) -> u64 {
        self.tail_messages.unwrap_or(messages / 100).max(u64::from(self.load.sessions))
    }

    /// Refuses what cannot be verified.
    pub fn check(&self) -> Result<(), LoadError> {
        self.topic.check()?;
        let usage = |text: String| Err(LoadError::Usage(text));
        let TopicArgs { order, ack, message_size, .. } = self.topic;
        if order != OrderLevel::Session || ack == AckLevel::None {
            return usage(format!("--order {order}: gaps and repeats of a session can be told at --order 5 only"));
        }
        if message_size < STAMP_BYTES as u64 {
            return usage(format!("--message-size {message_size}: a numbered message needs at least {STAMP_BYTES}"));
        }
        if self.load.topics != 1 || self.load.duration.is_some() {
            return usage("resume fills one topic with a number of messages: no --topics, no --duration".to_owned());
        }
        Ok(())
    }
}

/// The reader that is killed: a process of its own.
#[derive(Clone, Debug, Args)]
pub struct ResumeReaderArgs {
    /// Brokers to connect to.
    #[arg(long, value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// Topic.
    #[arg(long)]
    pub topic: String,
    /// Size of each message.
    #[arg(long)]
    pub message_size: u64,
    /// Ends when the message of this order has come.
    #[arg(long)]
    pub end: u64,
    /// Messages from this order on are hashed.
    #[arg(long)]
    pub hash_from: u64,
    /// Longest time without a message, seconds.
    #[arg(long, value_parser = arguments::seconds)]
    pub idle_timeout: Duration,
    /// Waits to be killed once it has read the message before this order.
    #[arg(long)]
    pub hold_at: Option<u64>,
    /// Waits when what it has read is written down, and its cursor is not committed.
    #[arg(long)]
    pub hold_before_commit: bool,
    /// Where it keeps what it has read.
    #[arg(long)]
    pub folder: PathBuf,
}
