//! The attached subscriber: the pool mapped, a place of it locked, and waits around [`Subscribing`].

use std::time::{Duration, Instant};

use crate::client::attached::options::AttachedSubscriberOptions;
use crate::client::attached::place::{self, Place, Taken};
use crate::client::attached::subscribing::{Polled, Subscribing};
use crate::client::attached::{MachineClock, Patience};
use crate::client::delivered::Delivered;
use crate::client::error::ClientError;
use crate::config::CoherenceMode;
use crate::log::topics::Topic;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Mapped, PlaceKind, Software};
use crate::wire::OrderLevel;

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
    pub fn poll(&mut self, timeout: Duration, mut handler: impl FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        on_core!(&mut self.core, driven => driven.poll(timeout, &mut handler))
    }

    /// Total order of the next message to be handed on.
    pub fn next_order(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.next_order())
    }

    /// Whether everything committed was handed on when the last call ended.
    pub fn caught_up(&self) -> bool {
        on_core!(&self.core, driven => driven.core.caught_up())
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        on_core!(&self.core, driven => &driven.topic().name)
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        on_core!(&self.core, driven => driven.topic().order)
    }
}

struct Driven<C: Coherence> {
    core: Subscribing<Mapped<C>, MachineClock>,
    /// Dropped after the core, whose pin is its.
    _place: Place,
}

impl<C: Coherence> Driven<C> {
    fn attach(options: AttachedSubscriberOptions) -> Result<Self, ClientError> {
        let pool = place::open(&options.pool, options.host)?;
        let Taken { place, view, life } = Place::take::<C>(&pool, options.host, PlaceKind::Subscriber)?;
        let core = Subscribing::begin(&view, place.member, life, options, MachineClock);
        let mut driven = Driven { core, _place: place };
        let options = driven.core.options();
        let mut patience = Patience::new(&options.pool, options.wait, options.spin);
        while !driven.core.is_streaming() {
            // Nothing is handed on before the start is found.
            if driven.core.poll(&mut |_| {})? == Polled::Nothing {
                patience.wait(if driven.core.topic().is_none() { "its topic" } else { "the start of its topic" })?;
            }
        }
        Ok(driven)
    }

    fn topic(&self) -> &Topic {
        self.core.topic().expect("found when it attached")
    }

    fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        let begun = Instant::now();
        let options = self.core.options();
        let mut patience = Patience::new(&options.pool, Duration::MAX, options.spin);
        loop {
            match self.core.poll(handler)? {
                Polled::Handed(handed) => return Ok(handed),
                Polled::Moved => continue,
                Polled::Nothing if timeout.is_zero() || begun.elapsed() >= timeout => return Ok(0),
                Polled::Nothing => patience.rest(timeout.saturating_sub(begun.elapsed())),
            }
        }
    }
}

impl<C: Coherence> Drop for Driven<C> {
    fn drop(&mut self) {
        self.core.retire();
    }
}
