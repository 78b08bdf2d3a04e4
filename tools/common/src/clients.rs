//! Clients of a tool, over TCP or attached to the pool, as its command line says.

use std::path::PathBuf;

use embarcadero::{ClientError, Delivered, PoolOptions, Publisher, PublisherOptions, Subscriber, SubscriberOptions};
use verification::BatchPlace;

use crate::arguments::HostArgs;

/// The pool that clients map instead of connecting, as a command line says it; none if it does not.
pub fn pool(path: Option<&PathBuf>, args: &HostArgs) -> Option<PoolOptions> {
    let (host, coherence) = (args.host, args.coherence);
    path.map(|path| PoolOptions { path: path.clone(), host, coherence, ..PoolOptions::default() })
}

/// Connects, or takes a place of the pool.
///
/// # Errors
/// As `Publisher::connect` and `Publisher::attach`.
pub fn publisher(options: PublisherOptions, pool: Option<&PoolOptions>) -> Result<Publisher, ClientError> {
    let Some(pool) = pool.cloned() else { return Publisher::connect(options) };
    let pool = PoolOptions { wait: options.connect_timeout, ..pool };
    Publisher::attach(PublisherOptions { pool, ..options })
}

/// Connects, or takes a place of the pool.
///
/// # Errors
/// As `Subscriber::connect` and `Subscriber::attach`.
pub fn subscriber(options: SubscriberOptions, pool: Option<&PoolOptions>) -> Result<Subscriber, ClientError> {
    let Some(pool) = pool.cloned() else { return Subscriber::connect(options) };
    let pool = PoolOptions { wait: options.connect_timeout, ..pool };
    Subscriber::attach(SubscriberOptions { pool, ..options })
}

/// Where a batch stands, as it was delivered.
pub fn place(delivered: &Delivered<'_>) -> BatchPlace {
    BatchPlace {
        first_order: delivered.first_order.0,
        session: delivered.session.0,
        session_epoch: delivered.session_epoch,
        batch_seq: delivered.batch_seq.0,
        message_count: delivered.message_count,
    }
}
