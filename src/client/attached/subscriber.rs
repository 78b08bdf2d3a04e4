//! The attached subscriber: drives a [`Reader`] with clocks and waits.

use std::time::{Duration, Instant};

use crate::client::attached::options::AttachedSubscriberOptions;
use crate::client::attached::place::{self, Life, Place, Taken};
use crate::client::attached::reader::{Phase, ReadFault, Reader};
use crate::client::attached::{Patience, find_topic};
use crate::client::delivered::Delivered;
use crate::client::error::ClientError;
use crate::config::CoherenceMode;
use crate::log::damage::{Expected, FieldFault};
use crate::log::order_index::IndexFault;
use crate::log::recover::RecoverError;
use crate::log::topics::Topic;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Mapped, PlaceKind, Software};
use crate::wire::{OrderLevel, Refusal};

/// Most batches handed on in one poll.
const POLL_BATCHES_MAX: usize = 64;
/// How long a pin that was renewed is waited for without a second thought. Far below the shortest `export.reader_stall`, 10 ms.
const TRUST: Duration = Duration::from_millis(1);

/// A subscriber in a process that maps the pool: copies batches out of it, once, without a socket or a broker process in between.
/// Made by [`Subscriber::attach`](crate::client::Subscriber::attach).
///
/// It works as [`Subscriber`](crate::client::Subscriber) does, with the same calls. What it may still read is pinned, so
/// publishers wait for it as for any reader; but a subscriber that is not polled for `export.reader_stall` while they wait for
/// memory is not waited for any longer, and is told so by [`ClientError::TooSlow`]. A handler is given
/// a copy that was checked after it was made: however long it runs, nobody else writes there. What it costs is that the subscriber
/// may not be waited for meanwhile.
///
/// Memory: entries read ahead, and one batch.
pub struct AttachedSubscriber {
    core: Core,
}

enum Core {
    Software(Box<Driven<Software>>),
    Hardware(Box<Driven<Hardware>>),
}

macro_rules! on_core {
    ($core:expr, $driven:ident => $what:expr) => {
        match $core {
            Core::Software($driven) => $what,
            Core::Hardware($driven) => $what,
        }
    };
}

impl AttachedSubscriber {
    /// Takes a place of the pool and finds the start.
    ///
    /// # Errors
    /// [`ClientError::Option`]; [`ClientError::Pool`] if there is no pool of this version; [`ClientError::NoPlace`];
    /// [`ClientError::PoolRefused`] (`UnknownTopic`; `Trimmed`, whose detail is the earliest order);
    /// [`ClientError::PoolTimeout`] if no sequencer was ever there.
    pub fn attach(options: AttachedSubscriberOptions) -> Result<AttachedSubscriber, ClientError> {
        options.check()?;
        let core = match options.coherence {
            CoherenceMode::Software => Core::Software(Box::new(Driven::attach(options)?)),
            CoherenceMode::Hardware => Core::Hardware(Box::new(Driven::attach(options)?)),
        };
        Ok(AttachedSubscriber { core })
    }

    /// Hands every batch that is committed, in order, to `handler`; waits up to `timeout` for the first. Returns how many
    /// batches were handed on: at most 64, 0 if none came.
    ///
    /// # Errors
    /// [`ClientError::TooSlow`]; after it the next call goes on at [`next_order`](Self::next_order) if that is still there, and
    /// is [`ClientError::PoolRefused`] with `Trimmed` if not. [`ClientError::Damaged`].
    pub fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        on_core!(&mut self.core, driven => driven.poll(timeout, handler))
    }

    /// Total order of the next message to be handed on.
    pub fn next_order(&self) -> u64 {
        on_core!(&self.core, driven => driven.reader.next_order())
    }

    /// Whether everything committed was handed on when the last call ended.
    pub fn caught_up(&self) -> bool {
        on_core!(&self.core, driven => driven.caught_up)
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        on_core!(&self.core, driven => &driven.topic.name)
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        on_core!(&self.core, driven => driven.topic.order)
    }
}

struct Driven<C: Coherence> {
    reader: Reader<Mapped<C>>,
    topic: Topic,
    options: AttachedSubscriberOptions,
    caught_up: bool,
    /// When the pin was last known to be waited for.
    renewed: Instant,
    life: Life<C>,
    /// Dropped after the reader, whose pin is its.
    _place: Place,
}

impl<C: Coherence> Driven<C> {
    fn attach(options: AttachedSubscriberOptions) -> Result<Self, ClientError> {
        let pool = place::open(&options.pool, options.host)?;
        let Taken { place, view, life } = Place::take::<C>(&pool, options.host, PlaceKind::Subscriber)?;
        let patience = Patience::new(&options.pool, options.wait, options.spin);
        let topic = find_topic(&view, &options.topic, false, patience, &mut || {})?;
        let reader = Reader::new(&view, place.member, life.incarnation(), &topic, options.start, options.verify);
        let renewed = Instant::now();
        let mut driven = Driven { reader, topic, options, caught_up: false, renewed, life, _place: place };
        let mut patience = Patience::new(&driven.options.pool, driven.options.wait, driven.options.spin);
        while driven.reader.phase() != Phase::Streaming {
            if !driven.renew()? || driven.look_for_start()? == 0 {
                patience.wait("the start of its topic")?;
            }
        }
        Ok(driven)
    }

    /// A step towards the start. 0: it has to wait.
    fn look_for_start(&mut self) -> Result<usize, ClientError> {
        match self.reader.phase() {
            Phase::Unpinned => self.reader.pin().map(usize::from).map_err(|fault| self.error(fault)),
            Phase::Seeking => self.reader.seek().map_err(|fault| self.error(fault)),
            Phase::Streaming => Ok(1),
        }
    }

    /// Renews the pin if that is due. False: nothing is known now, so nothing may be handed on.
    fn renew(&mut self) -> Result<bool, ClientError> {
        let now = Instant::now();
        if now.duration_since(self.renewed) < TRUST {
            return Ok(true);
        }
        self.life.show();
        let is_known = self.reader.renew().map_err(|fault| self.error(fault))?;
        if is_known {
            self.renewed = now;
        }
        Ok(is_known)
    }

    fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        let begun = Instant::now();
        let mut patience = Patience::new(&self.options.pool, Duration::MAX, self.options.spin);
        loop {
            let is_known = self.renew()?;
            if is_known && self.reader.phase() == Phase::Streaming {
                let handed = self.hand_on(handler)?;
                self.caught_up = handed < POLL_BATCHES_MAX;
                if handed > 0 {
                    return Ok(handed);
                }
            } else if is_known && self.look_for_start()? > 0 {
                continue;
            }
            if timeout.is_zero() || begun.elapsed() >= timeout {
                return Ok(0);
            }
            patience.rest(timeout.saturating_sub(begun.elapsed()));
        }
    }

    fn hand_on(&mut self, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        for handed in 0..POLL_BATCHES_MAX {
            if !self.reader.take().map_err(|fault| self.error(fault))? {
                return Ok(handed);
            }
            self.vouch()?;
            self.reader.hand_on(handler);
        }
        Ok(POLL_BATCHES_MAX)
    }

    /// Makes sure that the batch just copied was not overwritten meanwhile: at once if no time has passed.
    fn vouch(&mut self) -> Result<(), ClientError> {
        if self.renewed.elapsed() < TRUST {
            return Ok(());
        }
        let mut patience = Patience::new(&self.options.pool, self.options.wait, self.options.spin);
        while !self.renew()? {
            patience.wait("the sequencer, to learn whether a batch lay there unchanged")?;
        }
        Ok(())
    }

    fn error(&self, fault: ReadFault) -> ClientError {
        let pool = self.options.pool.clone();
        let damaged = |position, expected| {
            let fault = FieldFault { field: "place", found: position, expected: Expected::Told(expected) };
            place::damaged(&pool)(RecoverError::Damaged(IndexFault::Damaged { position, fault }))
        };
        match fault {
            ReadFault::Trimmed(earliest) => {
                let text = format!("the order asked for is gone; the earliest message kept is {earliest}");
                ClientError::PoolRefused { pool, refusal: Refusal::Trimmed, detail: earliest, text }
            }
            ReadFault::Deleted => {
                let text = "the topic was deleted; this is the end of it".to_owned();
                ClientError::PoolRefused { pool, refusal: Refusal::TopicDeleted, detail: 0, text }
            }
            ReadFault::Dropped => ClientError::TooSlow { pool, next_order: self.reader.next_order() },
            ReadFault::Index(fault) => place::damaged(&pool)(RecoverError::Damaged(fault)),
            ReadFault::Pool(fault) => place::damaged(&pool)(fault),
            ReadFault::OtherBatch(position) => damaged(position, "where the batch that it names lies"),
            ReadFault::Unsound(position, error) => {
                log::error!("pool {}: the batch of index position {position}: {error}", pool.display());
                damaged(position, "where a sound batch lies: its writer may be faulty")
            }
        }
    }
}
