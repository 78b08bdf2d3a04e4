//! Clients of a process that maps the pool: no socket, no broker process in between.
//!
//! An attached publisher has a lane of its own: it copies messages into the payload area once and publishes batch headers in its
//! ring, as a receive core does; the sequencer orders them like any other. An attached subscriber follows the order index and
//! hands on bytes where they lie, under a pin of its own. Both take a **place** of the pool, which is held by a lock of this
//! host and free again however the process ends.
//!
//! * `place`: opening a pool of any geometry, taking a place.
//! * `writer`: the publisher's lane. `reader`: the subscriber's cursor and pin. No I/O and no clock of their own.
//! * `publishing`, `subscribing`: what drives them, a step at a time: it never waits, and asks a [`Clock`] for the time. The simulator
//!   runs these over its own memory and clock.
//! * `publisher`, `subscriber`: the pool mapped, its places locked, and waits.

mod place;
mod publisher;
pub(crate) mod publishing;
mod reader;
mod stage;
mod subscriber;
pub(crate) mod subscribing;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::attached::writer::Times;
use crate::client::error::ClientError;
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::log::inherit::check_attached;
use crate::log::member::{BEAT_NS, Member};
use crate::log::recover::RecoverError;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::{Memory, Process};
use crate::utc::utc_ns;
use crate::wire::Refusal;

pub(super) use publisher::AttachedPublisher;
pub(super) use subscriber::AttachedSubscriber;

/// A caller that waits for sockets of others too, of which an attached client has none, looks again after this time.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// How long the time of day is told from the steady clock: if it is set anew, this is known so much later.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest sleep between two looks.
const REST: Duration = Duration::from_micros(50);

/// What runs a client in this process, for either coherence.
enum Core<S, H> {
    Software(Box<S>),
    Hardware(Box<H>),
}

/// Does the same for either.
macro_rules! on_core {
    ($core:expr, $driven:ident => $what:expr) => {
        match $core {
            Core::Software($driven) => $what,
            Core::Hardware($driven) => $what,
        }
    };
}
use on_core;

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

/// Both clocks, as an attached client goes by them.
pub(crate) trait Clock {
    /// What they show now.
    fn times(&self) -> Times;

    /// What the steady one shows.
    fn now(&self) -> Instant {
        self.times().now
    }
}

/// This machine's clocks. The time of day is told from the steady clock: two are twice as much, several times for each batch.
struct MachineClock {
    /// When the time of day was last asked for, and what it was.
    asked: Cell<(Instant, u64)>,
}

impl MachineClock {
    fn new() -> MachineClock {
        MachineClock { asked: Cell::new((Instant::now(), utc_ns())) }
    }
}

impl Clock for MachineClock {
    fn times(&self) -> Times {
        let now = Instant::now();
        let (asked_at, utc) = self.asked.get();
        let since = now.saturating_duration_since(asked_at);
        if since < ASK_EVERY {
            return Times { now, utc_ns: utc + since.as_nanos() as u64 };
        }
        let utc_ns = utc_ns();
        self.asked.set((now, utc_ns));
        Times { now, utc_ns }
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Shows that the process in a place lives, as often as it is asked to.
pub(crate) struct Life<M> {
    begun: Instant,
    member: Member<M>,
}

impl<M: Memory> Life<M> {
    /// Announces this process in the place of `member`, whose lock the caller holds.
    ///
    /// # Errors
    /// What is damaged of what the last process left there.
    pub fn begin(
        view: &View<M>,
        member: u32,
        lane: Option<u32>,
        process: Process,
        now: Instant,
    ) -> Result<Life<M>, RecoverError> {
        check_attached(view, member, lane)?;
        Ok(Life { begun: now, member: Member::announce(view, member, process) })
    }

    /// Which process of the place this is.
    pub fn incarnation(&self) -> u64 {
        self.member.incarnation()
    }

    /// Shows it, if that was not shown just now.
    pub fn show(&mut self, now: Instant) {
        self.member.beat(BEAT_NS + now.saturating_duration_since(self.begun).as_nanos() as u64);
    }

    /// Says that it stopped in good order.
    pub fn stop(&mut self) {
        self.member.stop();
    }
}

/// Looks for a topic by its name.
struct TopicSearch<M> {
    topics: TopicReader<M>,
    commit: CommitReader<M>,
}

impl<M: Memory> TopicSearch<M> {
    fn new(view: &View<M>) -> Self {
        TopicSearch { topics: TopicReader::new(view), commit: CommitReader::new(view) }
    }

    /// The topic of this name; `None`: it may come. With `may_come` it may at any time; else that is said only as long as nobody can
    /// say that there is none.
    ///
    /// # Errors
    /// [`ClientError::PoolRefused`]: there is none.
    fn find(&mut self, pool: &Path, name: &str, may_come: bool) -> Result<Option<Topic>, ClientError> {
        let before = self.commit.current();
        if let Some(topic) = self.topics.find(name) {
            return Ok(Some(topic.clone()));
        }
        // Before any sequencer was heard, or while one takes over, the table says nothing.
        if !may_come && before.is_some_and(|before| self.commit.confirm(before.epoch)) {
            let (pool, text) = (pool.into(), format!("there is no topic {name:?}; create it first"));
            return Err(ClientError::PoolRefused { pool, refusal: Refusal::UnknownTopic, detail: 0, text });
        }
        Ok(None)
    }
}

/// What is damaged in a pool, as a client's error.
fn damaged(pool: &Path) -> impl Fn(RecoverError) -> ClientError {
    let pool: PathBuf = pool.into();
    move |error| ClientError::Damaged { pool: pool.clone(), error: Box::new(error) }
}
