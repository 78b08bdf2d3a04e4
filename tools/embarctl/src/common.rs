//! Arguments that several commands take.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};
use embarcadero::{Admin, ClientError, PoolOptions, TopicProperties};
use tools_common::arguments::{HostArgs, ack, bytes, duration, order, receipts, seconds};
use tools_common::clients;

use crate::error::CommandError;

/// How to reach the brokers.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Brokers to connect to.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7300", value_name = "ADDRESS,…")]
    pub brokers: Vec<String>,
    /// Longest wait for a connection or an answer, seconds.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
}

impl ConnectArgs {
    /// Longest wait for a connection or an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same, for messages.
    pub fn timeout_seconds(&self) -> u64 {
        self.timeout.as_secs()
    }
}

/// Whom to ask about topics and cursors.
pub fn admin(connect: &ConnectArgs) -> Result<Admin, ClientError> {
    Admin::new(&connect.brokers)
}

/// Prints to standard output. A reader that went away has what it wanted.
pub fn print(text: &str) -> Result<(), CommandError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}

/// How to do without brokers' addresses.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Map this pool instead of connecting: a process on one of its hosts needs no network.
    #[arg(long, value_name = "POOL", conflicts_with = "brokers")]
    pub attach: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
}

impl AttachArgs {
    /// The pool to attach to, if so.
    pub fn pool(&self) -> Option<PoolOptions> {
        clients::pool(self.attach.as_ref(), &self.host)
    }
}

/// What a topic to create promises.
#[derive(Clone, Debug, Args)]
pub struct PropertyArgs {
    /// Order level: 0, 1, 2, 4 or 5 [default of a topic to create: 5].
    #[arg(long, value_parser = order)]
    order: Option<OrderLevel>,
    /// Ack level: 0 none, 1 committed, 2 durable.
    #[arg(long, default_value = "1", value_parser = ack)]
    pub ack: AckLevel,
    /// Where brokers stamp the time of receipt: batch or message.
    #[arg(long, default_value = "batch", value_parser = receipts)]
    receipts: Receipts,
    /// How much of the topic is kept, like 10GiB, as long as memory is not short [default: as much as fits].
    #[arg(long, default_value = "0", hide_default_value = true, value_parser = bytes, value_name = "SIZE")]
    retention_bytes: u64,
    /// How long its messages are kept, like 2h, as long as memory is not short [default: as long as they fit].
    #[arg(long, default_value = "0s", hide_default_value = true, value_parser = duration, value_name = "TIME")]
    retention_age: Duration,
}

impl PropertyArgs {
    /// The order level that was asked for in so many words.
    pub fn asked_order(&self) -> Option<OrderLevel> {
        self.order
    }

    /// As the client wants them.
    pub fn properties(&self) -> TopicProperties {
        TopicProperties {
            order: self.order.unwrap_or(OrderLevel::Session),
            ack: self.ack,
            receipts: self.receipts,
            retention_bytes: self.retention_bytes,
            retention_age: self.retention_age,
            ..TopicProperties::default()
        }
    }
}
