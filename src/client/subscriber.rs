//! The subscriber that users see: one type, whichever way it reaches the log. The way is chosen where it is made, and costs a branch a call.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::attached::AttachedSubscriber;
use crate::client::delivered::{Delivered, Event, OwnedEvent};
use crate::client::error::ClientError;
use crate::client::numbers::Order;
use crate::client::options::SubscriberOptions;
use crate::client::path::{Path, on_path};
use crate::client::tcp_subscriber::TcpSubscriber;
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;

/// Most events handed on in one poll.
const POLL_EVENTS_MAX: usize = 64;

/// Receives the messages of its topics in total order: over TCP if [`connect`](Self::connect) made it, out of the pool's memory if
/// [`attach`](Self::attach) did.
///
/// **Nothing happens between two calls** of [`poll`](Self::poll) and its kin.
///
/// * Over TCP one connection carries any number of topics; when it breaks it is made good inside, and resumed without a gap. The bytes of a
///   batch are borrowed from the receive buffer. Memory: that buffer.
/// * Attached, it reads one topic. What it may still read is pinned, so publishers wait for it as for any reader; but one that is not
///   polled for `export.reader_stall` while they wait for memory is not waited for any longer, and is told so by
///   [`ClientError::TooSlow`]. A batch is a copy that was checked after it was made: however long a handler runs, nobody else writes
///   there. Memory: entries read ahead, and one batch.
///
/// # Order of calls
///
/// `connect` or `attach`; then `poll`, [`poll_events`](Self::poll_events) or [`batches`](Self::batches), again and again, in any mixture.
/// After an error: the same, which tries again; after `Trimmed`, [`go_on_at`](Self::go_on_at) first. Dropping it tells the broker, or
/// frees the place.
///
/// # What waits
///
/// | methods | |
/// |---|---|
/// | `watch`, `go_on_at`, and all that only tell | never |
/// | `poll`, `poll_events`, `next` of `batches` | up to their timeout, if nothing is there |
/// | `connect` | up to `connect_timeout` |
/// | `attach` | up to `pool.wait` |
pub struct Subscriber {
    path: Path<TcpSubscriber, AttachedSubscriber>,
}

impl Subscriber {
    /// Connects to the first broker that answers and asks for the topics from their starts on.
    ///
    /// # Errors
    /// [`ClientError::Option`], [`ClientError::Unreachable`] after `connect_timeout`, or what the broker refused with
    /// (`UnknownTopic`; `Trimmed`, whose detail is the earliest order).
    pub fn connect(options: SubscriberOptions) -> Result<Subscriber, ClientError> {
        Ok(Subscriber { path: Path::Tcp(Box::new(TcpSubscriber::connect(options)?)) })
    }

    /// Maps the pool that `options.pool` names, takes a place of it and finds the start.
    ///
    /// # Errors
    /// [`ClientError::Option`]; [`ClientError::Pool`] if there is no pool of this version; [`ClientError::NoPlace`];
    /// [`ClientError::PoolRefused`] (`UnknownTopic`; `Trimmed`, whose detail is the earliest order);
    /// [`ClientError::PoolTimeout`] if no sequencer was ever there.
    pub fn attach(options: SubscriberOptions) -> Result<Subscriber, ClientError> {
        Ok(Subscriber { path: Path::Attached(AttachedSubscriber::attach(options)?) })
    }

    /// Hands every batch that is there, in order, to `handler`; waits up to `timeout` for the first. Returns how many batches were
    /// handed on: at most 64, 0 if none came.
    ///
    /// # Errors
    /// An error may follow batches that were handed on in the same call. After any of them polling again tries again at
    /// [`next_order`](Self::next_order); after `Trimmed`, [`go_on_at`](Self::go_on_at) says where to.
    ///
    /// * Over TCP a broken connection is no error, and none is one to a broker that falls silent or that brought spoiled bytes: another is
    ///   made. [`ClientError::Wire`], [`ClientError::Gap`] and [`ClientError::Contradiction`] for what a broker sent wrongly;
    ///   [`ClientError::Refused`], for example `Trimmed`; [`ClientError::Unreachable`] when for `connect_timeout` no broker was reached,
    ///   or none that brought anything.
    /// * Attached: [`ClientError::TooSlow`], after which what comes next may be gone; then it is [`ClientError::PoolRefused`] with
    ///   `Trimmed`. [`ClientError::Damaged`].
    ///
    /// A subscriber that asked for [`SlowReaderPolicy::Skip`](crate::SlowReaderPolicy::Skip) learns here of what was skipped only by
    /// [`skipped_messages`](Self::skipped_messages): use [`poll_events`](Self::poll_events).
    pub fn poll(&mut self, timeout: Duration, mut handler: impl FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        let mut batches = 0;
        let mut each = |event: Event<'_>| {
            if let Event::Batch(batch) = event {
                handler(&batch);
                batches += 1;
            }
        };
        self.poll_at_most(POLL_EVENTS_MAX, timeout, &mut each)?;
        Ok(batches)
    }

    /// As [`poll`](Self::poll), with everything that comes: batches, and what was skipped. Returns how many events.
    ///
    /// # Errors
    /// As there.
    pub fn poll_events(&mut self, timeout: Duration, mut handler: impl FnMut(Event<'_>)) -> Result<usize, ClientError> {
        self.poll_at_most(POLL_EVENTS_MAX, timeout, &mut handler)
    }

    /// Everything that comes, one copied batch at a time; ends when nothing came for `idle`, and can be begun again.
    ///
    /// What was not asked of the iterator has not been handed on: nothing is lost when it is dropped. After an error the iterator
    /// goes on as [`poll`](Self::poll) does.
    pub fn batches(&mut self, idle: Duration) -> Batches<'_> {
        Batches { subscriber: self, idle }
    }

    fn poll_at_most(
        &mut self,
        most: usize,
        timeout: Duration,
        handler: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, ClientError> {
        on_path!(&mut self.path, inner => inner.poll(most, timeout, handler))
    }

    /// For a caller that drives many subscribers on one thread: adds the socket to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if it does not become ready; none: not before that. An attached one has no socket, and a time soon.
    #[must_use]
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        on_path!(&self.path, inner => inner.watch(readiness))
    }

    /// Total order of the next message of the first topic to be handed on.
    #[must_use]
    pub fn next_order(&self) -> Order {
        self.next_order_of(0)
    }

    /// As [`next_order`](Self::next_order), of the topic at this place.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn next_order_of(&self, place: usize) -> Order {
        Order(on_path!(&self.path, inner => inner.next_order_of(place)))
    }

    /// Whether everything committed was handed on, of every topic: over TCP when the broker said so last and nothing came since, attached
    /// when the last call ended.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        on_path!(&self.path, inner => inner.caught_up())
    }

    /// As [`caught_up`](Self::caught_up), of the topic at this place.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn caught_up_with(&self, place: usize) -> bool {
        on_path!(&self.path, inner => inner.caught_up_with(place))
    }

    /// Messages that were skipped, over all topics, because this subscriber was too slow.
    #[must_use]
    pub fn skipped_messages(&self) -> u64 {
        match &self.path {
            Path::Tcp(inner) => inner.skipped_messages(),
            Path::Attached(_) => 0,
        }
    }

    /// Messages of the topic at this place that were gone already when this subscriber began at the earliest.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        on_path!(&self.path, inner => inner.trimmed_before_start(place))
    }

    /// Name of the first topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        on_path!(&self.path, inner => inner.topic())
    }

    /// Names of all topics, by place.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let others = match &self.path {
            Path::Tcp(inner) => inner.topics(),
            Path::Attached(_) => &[],
        };
        std::iter::once(self.topic()).chain(others.iter().skip(1).map(|topic| topic.name.as_str()))
    }

    /// Order level of the first topic.
    #[must_use]
    pub fn order_level(&self) -> OrderLevel {
        on_path!(&self.path, inner => inner.order_level())
    }

    /// Gives up what lies between the next message of a topic and `order`, and goes on there: the answer to `Trimmed`, of which
    /// [`earliest_order`](ClientError::earliest_order) tells the earliest. Over TCP that is over a new connection.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn go_on_at(&mut self, place: usize, order: Order) {
        on_path!(&mut self.path, inner => inner.go_on_at(place, order.0));
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_attached = matches!(self.path, Path::Attached(_));
        let next: Vec<_> = self.topics().enumerate().map(|(place, name)| (name, self.next_order_of(place))).collect();
        out.debug_struct("Subscriber")
            .field("next", &next)
            .field("caught_up", &self.caught_up())
            .field("is_attached", &is_attached)
            .finish_non_exhaustive()
    }
}

/// Iterator over what comes to a subscriber; see [`Subscriber::batches`].
#[derive(Debug)]
#[must_use = "nothing is asked of the subscriber before the iterator is"]
pub struct Batches<'a> {
    subscriber: &'a mut Subscriber,
    idle: Duration,
}

impl Iterator for Batches<'_> {
    type Item = Result<OwnedEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found = None;
        let take = &mut |event: Event<'_>| {
            found = Some(match event {
                Event::Batch(batch) => OwnedEvent::Batch(batch.to_owned()),
                Event::Skipped { place, from, next_order, .. } => OwnedEvent::Skipped { place, from, next_order },
            });
        };
        match self.subscriber.poll_at_most(1, self.idle, take) {
            Ok(_) => found.map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}
