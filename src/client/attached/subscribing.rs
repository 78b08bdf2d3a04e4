//! An attached subscriber, a step at a time: finds its topic and its start, hands batches on. It never waits and locks nothing, so that
//! the simulator drives it as a process does.

use std::time::{Duration, Instant};

use crate::client::attached::reader::{Phase, PinnedReader, ReadError};
use crate::client::attached::{Clock, Life, TopicSearch, damaged};
use crate::client::delivered::Delivered;
use crate::client::error::ClientError;
use crate::client::numbers::Order;
use crate::client::options::SubscriberOptions;
use crate::log::View;
use crate::log::damage::{Expected, FieldFault};
use crate::log::order_index::IndexFault;
use crate::log::reader::ReadFault;
use crate::log::recover::RecoverError;
use crate::log::retention::Hold;
use crate::log::topics::Topic;
use crate::pool::Memory;
use crate::wire::Refusal;

/// How long a pin that was renewed is waited for without a second thought. Far below the shortest `export.reader_stall`, 10 ms.
const TRUST: Duration = Duration::from_millis(1);

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// So many batches were handed on.
    Handed(usize),
    /// Nothing was, but it got on.
    Moved,
    /// It has to wait.
    Nothing,
}

/// See the head of the file.
pub(crate) struct Subscribing<M: Memory, K> {
    view: View<M>,
    member: u32,
    clock: K,
    life: Life<M>,
    search: TopicSearch<M>,
    topic: Option<Topic>,
    reader: Option<PinnedReader<M>>,
    options: SubscriberOptions,
    /// When the pin was last known to be waited for.
    renewed: Instant,
}

impl<M: Memory, K: Clock> Subscribing<M, K> {
    /// Takes over the pin of a place whose lock the caller holds.
    pub fn begin(view: &View<M>, member: u32, life: Life<M>, options: SubscriberOptions, clock: K) -> Self {
        // What the process before had pinned holds nobody's memory while this one looks for its topic.
        drop(Hold::take(view, member, life.incarnation()));
        Subscribing {
            view: view.clone(),
            member,
            life,
            search: TopicSearch::new(view),
            topic: None,
            reader: None,
            options,
            renewed: clock.now(),
            clock,
        }
    }

    /// Hands on what is committed, in order, up to `most` batches; before that it looks for its topic and its start. A bounded step.
    ///
    /// # Errors
    /// [`ClientError::TooSlow`], after which it goes on at [`Self::next_order`]; [`ClientError::PoolRefused`];
    /// [`ClientError::Damaged`].
    pub fn poll(&mut self, most: usize, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<Polled, ClientError> {
        if self.reader.is_none() && !self.look_for_topic()? {
            return Ok(Polled::Nothing);
        }
        self.go_on(most, handler).map_err(|error| self.error(error))
    }

    fn go_on(&mut self, most: usize, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<Polled, ReadError> {
        // What it takes it makes sure of itself.
        if self.is_streaming() {
            return self.hand_on(most, handler);
        }
        let is_known = self.renew()?;
        let Some(reader) = self.reader.as_mut().filter(|_| is_known) else { return Ok(Polled::Nothing) };
        let moved = match reader.phase() {
            Phase::Unpinned => usize::from(reader.pin()?),
            Phase::Seeking => reader.seek()?,
            // Not from here: what is pinned is sought first.
            Phase::Streaming => 0,
        };
        Ok(if moved > 0 { Polled::Moved } else { Polled::Nothing })
    }

    fn look_for_topic(&mut self) -> Result<bool, ClientError> {
        self.life.show(self.clock.now());
        let SubscriberOptions { pool, topic: name, start, check_crc, .. } = &self.options;
        let Some(topic) = self.search.find(&pool.path, name, false)? else { return Ok(false) };
        let incarnation = self.life.incarnation();
        self.reader =
            Some(PinnedReader::new(&self.view, self.member, incarnation, &topic, start.on_wire(), *check_crc));
        self.topic = Some(topic);
        Ok(true)
    }

    /// Renews the pin if that is due. False: nothing is known now, so nothing may be handed on.
    fn renew(&mut self) -> Result<bool, ReadError> {
        // Before the pin is renewed: whoever is held up in between must not trust it for longer.
        let now = self.clock.now();
        if now.saturating_duration_since(self.renewed) < TRUST {
            return Ok(true);
        }
        self.life.show(now);
        let Some(reader) = &mut self.reader else { return Ok(true) };
        let is_known = reader.renew()?;
        if is_known {
            self.renewed = now;
        }
        Ok(is_known)
    }

    fn hand_on(&mut self, most: usize, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<Polled, ReadError> {
        for handed in 0..most {
            let is_taken = self.reader.as_mut().map_or(Ok(false), PinnedReader::take)?;
            // The pin is renewed whether anything came or not. A batch that was copied long ago was not overwritten meanwhile: made sure
            // of now, or at the next poll.
            if !self.renew()? || !is_taken {
                return Ok(if handed > 0 { Polled::Handed(handed) } else { Polled::Nothing });
            }
            self.reader.iter_mut().for_each(|reader| reader.hand_on(handler));
        }
        Ok(Polled::Handed(most))
    }

    /// Whether its start was found.
    pub fn is_streaming(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.phase() == Phase::Streaming)
    }

    /// Order of the next message to be handed on, once the start was found.
    pub fn next_order(&self) -> u64 {
        self.reader.as_ref().map_or(0, PinnedReader::next_order)
    }

    /// Gives up what lies before `order`, and goes on there.
    pub fn go_on_at(&mut self, order: u64) {
        self.reader.iter_mut().for_each(|reader| reader.go_on_at(order));
    }

    /// Whether everything committed was handed on when the last call ended.
    pub fn caught_up(&self) -> bool {
        self.reader.as_ref().is_some_and(PinnedReader::has_all)
    }

    /// Its topic, once it was found.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// What it was asked to do.
    pub fn options(&self) -> &SubscriberOptions {
        &self.options
    }

    /// Gives the place back.
    pub fn retire(&mut self) {
        // On another host nobody sees that its process has ended: they would wait for it.
        if let Some(reader) = &mut self.reader {
            reader.unpin();
        }
        self.life.stop();
    }

    fn error(&self, error: ReadError) -> ClientError {
        let pool = self.options.pool.path.clone();
        let other = |position, expected| {
            let fault = FieldFault { field: "place", found: position, expected: Expected::Told(expected) };
            damaged(&pool)(RecoverError::Damaged(IndexFault::Damaged { position, fault }))
        };
        match error {
            ReadError::Trimmed(earliest) => {
                let text = format!("the order asked for is gone; the earliest message kept is {earliest}");
                ClientError::PoolRefused { pool, refusal: Refusal::Trimmed, detail: earliest, text }
            }
            ReadError::Deleted => {
                let text = "the topic was deleted; this is the end of it".to_owned();
                ClientError::PoolRefused { pool, refusal: Refusal::TopicDeleted, detail: 0, text }
            }
            ReadError::Dropped => ClientError::TooSlow { pool, next_order: Order(self.next_order()) },
            ReadError::Log(ReadFault::Index(fault)) => damaged(&pool)(RecoverError::Damaged(fault)),
            ReadError::Log(ReadFault::OtherBatch { position }) => other(position, "where the batch that it names lies"),
            ReadError::Pool(fault) => damaged(&pool)(fault),
            ReadError::Unsound(position, error) => {
                log::error!("pool {}: the batch of index position {position}: {error}", pool.display());
                other(position, "where a sound batch lies: its writer may be faulty")
            }
        }
    }
}
