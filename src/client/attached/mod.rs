//! Clients of a process that maps the pool: no socket, no broker process in between.
//!
//! An attached publisher has a lane of its own: it copies messages into the payload area once and publishes batch headers in its
//! ring, as a receive core does; the sequencer orders them like any other. An attached subscriber follows the order index and
//! hands on bytes where they lie, under a pin of its own. Both take a **place** of the pool, which is held by a lock of this
//! host and free again however the process ends. What they have in common with the clients that connect over TCP is in
//! [`Publish`] and [`Subscribe`].
//!
//! * `place`: opening a pool of any geometry, taking a place.
//! * `writer`: the publisher's lane; no I/O and no clock.
//! * `reader`: the subscriber's cursor and pin; no I/O and no clock.
//! * `publisher`, `subscriber`: clocks, waits and errors around them.

mod options;
mod place;
mod publisher;
mod reader;
mod subscriber;
#[cfg(test)]
mod tests;
mod traits;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::error::ClientError;
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::Memory;
use crate::wire::Refusal;

pub use options::{AttachOptions, AttachedSubscriberOptions};
pub use publisher::AttachedPublisher;
pub use subscriber::AttachedSubscriber;
pub use traits::{Publish, Subscribe};

impl crate::client::Publisher {
    /// A publisher that maps the pool instead of connecting to brokers; see [`AttachedPublisher::attach`].
    ///
    /// # Errors
    /// As there.
    pub fn attach(options: AttachOptions) -> Result<AttachedPublisher, ClientError> {
        AttachedPublisher::attach(options)
    }
}

impl crate::client::Subscriber {
    /// A subscriber that maps the pool instead of connecting to a broker; see [`AttachedSubscriber::attach`].
    ///
    /// # Errors
    /// As there.
    pub fn attach(options: AttachedSubscriberOptions) -> Result<AttachedSubscriber, ClientError> {
        AttachedSubscriber::attach(options)
    }
}

/// Longest sleep between two looks.
const REST: Duration = Duration::from_micros(50);

/// A wait that ends: looks again at once for a while, then sleeps between looks.
struct Patience {
    pool: PathBuf,
    begun: Instant,
    limit: Duration,
    spin: Duration,
}

impl Patience {
    fn new(pool: &Path, limit: Duration, spin: Duration) -> Patience {
        Patience { pool: pool.into(), begun: Instant::now(), limit, spin }
    }

    /// Rests a little, at most `most`.
    fn rest(&mut self, most: Duration) {
        if self.begun.elapsed() < self.spin {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(REST.min(most));
        }
    }

    /// Rests a little.
    ///
    /// # Errors
    /// [`ClientError::PoolTimeout`] once the limit is over.
    fn wait(&mut self, waiting_for: &str) -> Result<(), ClientError> {
        let waited = self.begun.elapsed();
        if waited > self.limit {
            let waiting_for = waiting_for.to_owned();
            return Err(ClientError::PoolTimeout { pool: self.pool.clone(), waited, waiting_for });
        }
        self.rest(REST);
        Ok(())
    }
}

/// Finds a topic by name; with `may_come` waits for it, calling `ask` until then.
fn find_topic<M: Memory>(
    view: &View<M>,
    name: &str,
    may_come: bool,
    mut patience: Patience,
    ask: &mut dyn FnMut(),
) -> Result<Topic, ClientError> {
    let (mut topics, commit) = (TopicReader::new(view), CommitReader::new(view));
    loop {
        let before = commit.current();
        if let Some(topic) = topics.find(name) {
            return Ok(topic.clone());
        }
        // Before any sequencer was heard, or while one takes over, the table says nothing.
        if !may_come && before.is_some_and(|before| commit.confirm(before.epoch)) {
            let (pool, text) = (patience.pool.clone(), format!("there is no topic {name:?}; create it first"));
            return Err(ClientError::PoolRefused { pool, refusal: Refusal::UnknownTopic, detail: 0, text });
        }
        ask();
        patience.wait(&format!("topic {name:?}"))?;
    }
}
