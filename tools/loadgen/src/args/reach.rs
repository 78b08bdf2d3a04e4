//! How clients reach the log, and how slow readers are dealt with.

use std::path::PathBuf;

use clap::Args;
use embarcadero::{PoolOptions, SlowReaderPolicy};
use tools_common::arguments::{self, HostArgs};
use tools_common::clients;

use super::LoadArgs;
use crate::error::LoadError;

/// How to do without brokers' addresses.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Clients map this pool instead of connecting: this process runs on one of its hosts. There are as many publishers at
    /// most as the pool has places (geometry.attached_per_broker for each broker).
    #[arg(long, value_name = "POOL", conflicts_with_all = ["brokers", "no_discover"])]
    pub attach: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
}

impl AttachArgs {
    /// The pool to attach to, if so.
    pub fn pool(&self) -> Option<PoolOptions> {
        clients::pool(self.attach.as_ref(), &self.host)
    }

    /// Refuses what attached publishers have nothing for.
    pub fn check(&self, load: &LoadArgs) -> Result<(), LoadError> {
        let refused = [
            (load.topics != 1, "--topics", "an attached publisher takes a place of the pool for each topic"),
            (load.connections_per_broker.is_some(), "--connections-per-broker", "there are no connections"),
            (load.skew.is_some(), "--skew", "there is no path to a broker"),
        ];
        match refused.iter().find(|(is_asked, ..)| self.attach.is_some() && *is_asked) {
            Some((_, option, why)) => Err(LoadError::Usage(format!("{option} cannot be used with --attach: {why}"))),
            None => Ok(()),
        }
    }
}

/// What becomes of subscribers that are too slow.
#[derive(Clone, Debug, Args)]
pub struct SlowArgs {
    /// What becomes of a subscriber that keeps memory which publishers need: wait (for it, up to SIZE behind), skip (it goes
    /// on further on, and is told) or disconnect (it is told) [default: as the brokers are configured].
    #[arg(long, value_parser = arguments::slow_reader, conflicts_with = "attach", value_name = "wait|wait:SIZE|skip|disconnect")]
    pub slow_reader: Option<SlowReaderPolicy>,
}

impl SlowArgs {
    /// As the client wants it.
    pub fn policy(&self) -> SlowReaderPolicy {
        self.slow_reader.unwrap_or_default()
    }
}
