//! An attached publisher, a step at a time: opens its session on a topic, takes messages, hears what became of them. It never waits and
//! locks nothing, so that the simulator drives it as a process does.

use std::time::{Duration, Instant};

use crate::client::attached::writer::{Bounds, Writer};
use crate::client::attached::{Clock, Life, TopicSearch, damaged};
use crate::client::error::ClientError;
use crate::client::options::{PublisherOptions, TopicProperties};
use crate::client::progress::OnAcked;
use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::session::Standing;
use crate::log::topics::Topic;
use crate::observe::counters::CounterBlock;
use crate::pool::{Keep, Memory};
use crate::wire::{AckLevel, OrderLevel, Refusal};

/// How often a publisher that waits for room shows that it lives.
const BEAT: Duration = Duration::from_millis(10);
const REPORT: Duration = Duration::from_secs(1);

/// What an open publisher waits for before its session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Its topic.
    Topic,
    /// Room in its ring to ask for a session.
    Room,
    /// The sequencer's answer.
    Session,
    /// Nothing: it is open.
    Open,
}

/// See the head of the file.
pub(crate) struct Publishing<M: Memory, K> {
    pub writer: Writer<M>,
    clock: K,
    life: Life<M>,
    block: CounterBlock<M>,
    payload_bytes_max: u64,
    search: TopicSearch<M>,
    opening: Opening,
    /// The topic was asked for.
    is_asked: bool,
    topic: Option<Topic>,
    options: PublisherOptions,
    on_acked: Option<OnAcked>,
    beat: Instant,
    reported: Instant,
}

impl<M: Memory, K: Clock> Publishing<M, K> {
    /// Takes over the lane of a place whose lock the caller holds.
    pub fn begin(view: &View<M>, lane: u32, life: Life<M>, options: PublisherOptions, clock: K) -> Self {
        let batch_bytes_max = view.layout.geometry.batch_bytes_max();
        let bounds = Bounds {
            batch_bytes: options.batch_bytes.next_multiple_of(LINE_BYTES).min(batch_bytes_max),
            batch_bytes_max,
            batch_messages: options.batch_messages,
            window_batches: options.window_batches as usize,
            keep: Keep::Cached,
        };
        let writer = Writer::take(view, lane, bounds);
        let now = clock.now();
        Publishing {
            payload_bytes_max: writer.payload_bytes_max(),
            writer,
            clock,
            life,
            block: CounterBlock::new(view.memory.clone(), view.layout.receive_counters(lane)),
            search: TopicSearch::new(view),
            opening: Opening::Topic,
            is_asked: false,
            topic: None,
            options,
            on_acked: None,
            beat: now,
            reported: now,
        }
    }

    /// A step towards an open session; gives what it waits for.
    ///
    /// # Errors
    /// [`ClientError::PoolRefused`]; [`ClientError::Damaged`].
    pub fn open(&mut self) -> Result<Opening, ClientError> {
        if self.opening == Opening::Topic
            && let Some(topic) = self.look_for_topic()?
        {
            check_levels(&self.options, &topic)?;
            (self.topic, self.opening) = (Some(topic), Opening::Room);
        }
        if let (Opening::Room, Some(topic)) = (self.opening, &self.topic)
            && self.writer.ask_for_session(topic, self.options.ack)
        {
            self.opening = Opening::Session;
        }
        self.drive()?;
        if self.opening == Opening::Session && self.writer.standing() != Standing::Asked {
            self.opening = Opening::Open;
        }
        Ok(self.opening)
    }

    fn look_for_topic(&mut self) -> Result<Option<Topic>, ClientError> {
        let PublisherOptions { pool, topic: name, create, .. } = &self.options;
        let found = self.search.find(&pool.path, name, create.is_some())?;
        if let (None, Some(wanted), false) = (&found, create, self.is_asked) {
            let topic = Topic {
                receipts: wanted.receipts,
                replicas: wanted.replicas.max(1),
                retention_bytes: wanted.retention_bytes,
                retention_ns: wanted.retention_age.as_nanos().min(u64::MAX.into()) as u64,
                created_at: self.clock.times().utc_ns,
                ..Topic::new(name, wanted.order, wanted.ack)
            };
            self.is_asked = self.writer.ask_for_topic(&topic);
            if !self.is_asked {
                self.await_room()?;
            }
        }
        Ok(found)
    }

    /// Takes a message if there is room now; false if there is none, with no effect.
    ///
    /// # Errors
    /// [`ClientError::PayloadTooLarge`]; those of [`Self::drive`].
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        if payload.len() as u64 > self.payload_bytes_max {
            let (payload_bytes, max) = (payload.len() as u64, self.payload_bytes_max);
            return Err(ClientError::PayloadTooLarge { payload_bytes, max });
        }
        let published = self.writer.counters().published_batches;
        if self.writer.push(payload, || self.clock.times()) {
            if self.writer.counters().published_batches != published {
                self.drive()?;
            }
            return Ok(true);
        }
        self.drive()?;
        Ok(self.writer.push(payload, || self.clock.times()))
    }

    /// Publishes the open batch now.
    pub fn seal(&mut self) {
        self.writer.seal(&|| self.clock.times());
    }

    /// Seals a batch that has lingered, hears what there is, copies the counters out now and then. Gives how many things moved.
    ///
    /// # Errors
    /// Those of [`Self::drive`].
    pub fn poll(&mut self) -> Result<usize, ClientError> {
        let now = self.clock.now();
        if now.duration_since(self.reported) >= REPORT {
            self.reported = now;
            self.write_counters();
        }
        let is_due = self.linger_left(now).is_some_and(|left| left.is_zero());
        if is_due {
            self.seal();
        }
        Ok(usize::from(is_due) + self.drive()?)
    }

    /// How much longer the open batch may linger: not at all while nothing is on its way of which an ack is to come.
    pub fn linger_left(&self, now: Instant) -> Option<Duration> {
        let since = self.writer.open_since()?;
        let is_idle = self.writer.in_flight() == 0 && self.options.ack != AckLevel::None;
        let linger = if is_idle { Duration::ZERO } else { self.options.linger };
        Some(linger.saturating_sub(now.saturating_duration_since(since)))
    }

    /// Says that a message waits, and that somebody is there who waits with it. Gives how many things moved.
    ///
    /// # Errors
    /// Those of [`Self::drive`].
    pub fn await_room(&mut self) -> Result<usize, ClientError> {
        let moved = self.drive()?;
        self.writer.report(true);
        let now = self.clock.now();
        if now.duration_since(self.beat) >= BEAT {
            self.beat = now;
            self.writer.beat();
        }
        Ok(moved)
    }

    /// Hears what became of its session and its batches. Gives how many things moved.
    ///
    /// # Errors
    /// [`ClientError::PoolRefused`]: the session was not opened, or was closed; [`ClientError::Damaged`].
    #[inline(never)]
    pub fn drive(&mut self) -> Result<usize, ClientError> {
        self.life.show(self.clock.now());
        let moved = self.writer.follow().map_err(damaged(&self.options.pool.path))?;
        while let Some(batch) = self.writer.pop_acked() {
            if let Some(callback) = &mut self.on_acked {
                callback(batch);
            }
        }
        match self.writer.standing() {
            Standing::Asked | Standing::Open | Standing::Fenced => Ok(moved),
            Standing::Unheard => {
                // It asks for another, on the topic of that name as it is by now.
                self.opening = Opening::Topic;
                Ok(moved)
            }
            Standing::Refused(code) => {
                let refusal = Refusal::from_code(code.into()).unwrap_or(Refusal::Busy);
                Err(self.refused(refusal, "the sequencer did not open the session"))
            }
            Standing::Closed => {
                let text = "the session was closed: it was silent for sequencer.session_expiry when others wanted its place, \
                            or its topic is gone";
                Err(self.refused(Refusal::UnknownSession, text))
            }
        }
    }

    fn refused(&self, refusal: Refusal, text: &str) -> ClientError {
        ClientError::PoolRefused { pool: self.options.pool.path.clone(), refusal, detail: 0, text: text.into() }
    }

    /// Copies the counters out.
    pub fn write_counters(&mut self) {
        self.block.write(self.writer.counters());
    }

    /// Gives the place back, with nothing open in it and no memory waited for.
    pub fn retire(&mut self) {
        self.writer.retire();
        self.life.stop();
    }

    /// Has `callback` called for every batch that is done.
    pub fn on_acked(&mut self, callback: OnAcked) {
        self.on_acked = Some(callback);
    }

    /// What it was asked to do.
    pub fn options(&self) -> &PublisherOptions {
        &self.options
    }

    /// What it waits for, as the last step towards an open session found it.
    #[cfg(feature = "broker")]
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// Its topic, once it was found.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }
}

/// What is promised of a topic to create can be had.
pub(crate) fn check_properties(options: &PublisherOptions, wanted: &TopicProperties) -> Result<(), ClientError> {
    let refused = |text: &str| {
        let (pool, text) = (options.pool.path.clone(), text.to_owned());
        Err(ClientError::PoolRefused { pool, refusal: Refusal::AckLevel, detail: 1, text })
    };
    if wanted.ack == AckLevel::Durable || wanted.replicas > 1 {
        return refused("replicas, and ack level 2 which needs them, are not in this release");
    }
    if wanted.order == OrderLevel::Session && wanted.ack == AckLevel::None {
        return refused("order level 5 needs ack level 1 or more: without acks nothing could be sent again");
    }
    Ok(())
}

/// The topic is what the publisher relies on.
fn check_levels(options: &PublisherOptions, topic: &Topic) -> Result<(), ClientError> {
    let refused = |refusal, detail, text| {
        Err(ClientError::PoolRefused { pool: options.pool.path.clone(), refusal, detail, text })
    };
    if let Some(wanted) = options.create.filter(|wanted| wanted.order != topic.order) {
        let text = format!("topic {:?} has order level {}, not {}", topic.name, topic.order, wanted.order);
        return refused(Refusal::TopicExists, topic.order as u64, text);
    }
    if options.ack > topic.ack {
        let text = format!("ack level {} asked for, topic {:?} grants up to {}", options.ack, topic.name, topic.ack);
        return refused(Refusal::AckLevel, topic.ack as u64, text);
    }
    if topic.order == OrderLevel::Session && options.ack == AckLevel::None {
        let text = "order level 5 needs ack level 1 or more: without acks nothing could be sent again".to_owned();
        return refused(Refusal::AckLevel, 1, text);
    }
    Ok(())
}
