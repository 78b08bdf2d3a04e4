//! The attached subscriber: the pool mapped, a place of it locked, and waits around [`Subscribing`].

use std::time::{Duration, Instant};

use crate::client::attached::place::{self, Place, Taken};
use crate::client::attached::subscribing::{Polled, Subscribing};
use crate::client::attached::{Core, LOOK_EVERY, MachineClock, Patience, on_core};
use crate::client::delivered::{Delivered, Event};
use crate::client::error::ClientError;
use crate::client::options::{Start, SubscriberOptions};
use crate::config::CoherenceMode;
use crate::log::topics::Topic;
use crate::net::readiness::Readiness;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Mapped, PlaceKind, Software};
use crate::wire::OrderLevel;

/// One that runs in this process, for either coherence; see [`Subscriber`](crate::client::Subscriber).
pub(in crate::client) struct AttachedSubscriber {
    core: Core<Driven<Software>, Driven<Hardware>>,
}

impl AttachedSubscriber {
    /// See [`Subscriber::attach`](crate::client::Subscriber::attach); the other methods likewise.
    pub fn attach(options: SubscriberOptions) -> Result<AttachedSubscriber, ClientError> {
        options.check_attached()?;
        let core = match options.pool.coherence {
            CoherenceMode::Software => Core::Software(Box::new(Driven::attach(options)?)),
            CoherenceMode::Hardware => Core::Hardware(Box::new(Driven::attach(options)?)),
        };
        Ok(AttachedSubscriber { core })
    }

    pub fn poll(
        &mut self,
        most: usize,
        timeout: Duration,
        handler: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, ClientError> {
        on_core!(&mut self.core, driven => driven.poll(most, timeout, &mut |batch| handler(Event::Batch(*batch))))
    }

    pub fn watch(&self, _: &mut Readiness) -> Option<Instant> {
        Some(Instant::now() + LOOK_EVERY)
    }

    pub fn next_order_of(&self, place: usize) -> u64 {
        only(place);
        on_core!(&self.core, driven => driven.core.next_order())
    }

    pub fn caught_up(&self) -> bool {
        on_core!(&self.core, driven => driven.core.caught_up())
    }

    pub fn caught_up_with(&self, place: usize) -> bool {
        only(place);
        self.caught_up()
    }

    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        only(place);
        on_core!(&self.core, driven => driven.trimmed)
    }

    pub fn topic(&self) -> &str {
        on_core!(&self.core, driven => &driven.topic().name)
    }

    pub fn order_level(&self) -> OrderLevel {
        on_core!(&self.core, driven => driven.topic().order)
    }

    pub fn go_on_at(&mut self, place: usize, order: u64) {
        only(place);
        on_core!(&mut self.core, driven => driven.core.go_on_at(order));
    }
}

/// It has one topic.
fn only(place: usize) {
    assert!(place == 0, "an attached subscriber has one topic, and none at place {place}");
}

struct Driven<C: Coherence> {
    core: Subscribing<Mapped<C>, MachineClock>,
    /// Dropped after the core, whose pin is its.
    _place: Place,
    /// Messages that were gone when it began at the earliest.
    trimmed: u64,
}

impl<C: Coherence> Driven<C> {
    fn attach(options: SubscriberOptions) -> Result<Self, ClientError> {
        let pool = place::open(&options.pool.path, options.pool.host)?;
        let Taken { place, view, life } = Place::take::<C>(&pool, options.pool.host, PlaceKind::Subscriber)?;
        let core = Subscribing::begin(&view, place.member, life, options, MachineClock::new());
        let mut driven = Driven { core, _place: place, trimmed: 0 };
        let pool = &driven.core.options().pool;
        let mut patience = Patience::new(&pool.path, pool.wait, pool.spin);
        while !driven.core.is_streaming() {
            // Nothing is handed on before the start is found.
            if driven.core.poll(1, &mut |_| {})? == Polled::Nothing {
                patience.wait(if driven.core.topic().is_none() { "its topic" } else { "the start of its topic" })?;
            }
        }
        if driven.core.options().start == Start::Earliest {
            driven.trimmed = driven.core.next_order();
        }
        Ok(driven)
    }

    fn topic(&self) -> &Topic {
        self.core.topic().expect("found when it attached")
    }

    fn poll(
        &mut self,
        most: usize,
        timeout: Duration,
        handler: &mut dyn FnMut(&Delivered<'_>),
    ) -> Result<usize, ClientError> {
        let handed = self.poll_now(most, handler)?;
        if handed > 0 || timeout.is_zero() { Ok(handed) } else { self.poll_in_time(most, timeout, handler) }
    }

    /// Hands on what is there.
    fn poll_now(&mut self, most: usize, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        loop {
            match self.core.poll(most, handler)? {
                Polled::Handed(handed) => return Ok(handed),
                Polled::Moved => continue,
                Polled::Nothing => return Ok(0),
            }
        }
    }

    /// Waits for what was not there. Out of the way of what is: a clock is most of what a look costs.
    #[cold]
    #[inline(never)]
    fn poll_in_time(
        &mut self,
        most: usize,
        timeout: Duration,
        handler: &mut dyn FnMut(&Delivered<'_>),
    ) -> Result<usize, ClientError> {
        let begun = Instant::now();
        let pool = &self.core.options().pool;
        let mut patience = Patience::new(&pool.path, Duration::MAX, pool.spin);
        loop {
            patience.rest(timeout.saturating_sub(begun.elapsed()));
            let handed = self.poll_now(most, handler)?;
            if handed > 0 || begun.elapsed() >= timeout {
                return Ok(handed);
            }
        }
    }
}

impl<C: Coherence> Drop for Driven<C> {
    fn drop(&mut self) {
        self.core.retire();
    }
}
