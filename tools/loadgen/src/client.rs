//! Clients of a run, over TCP or attached to the pool: what publishers and subscribers need of either.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use embarcadero::client::{
    AckedBatch, AttachOptions, AttachedPublisher, AttachedSubscriber, AttachedSubscriberOptions, BrokerProgress,
    ClientError, Event, Publisher, PublisherOptions, PublisherStats, Subscriber, SubscriberOptions,
};
use embarcadero::config::CoherenceMode;
use embarcadero::net::readiness::Readiness;
use embarcadero::wire::OrderLevel;

/// An attached client has no socket to wait for: a thread that drives several looks again after this time.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The pool that clients map instead of connecting.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its file or device.
    pub path: PathBuf,
    /// This host's number in it.
    pub host: u32,
    /// As the brokers' `pool.coherence`.
    pub coherence: CoherenceMode,
}

/// A publisher.
pub enum Sender {
    /// Over TCP.
    Tcp(Box<Publisher>),
    /// Attached.
    Attached(Box<AttachedPublisher>),
}

macro_rules! either {
    ($kind:ident, $client:expr, $inner:ident => $what:expr) => {
        match $client {
            $kind::Tcp($inner) => $what,
            $kind::Attached($inner) => $what,
        }
    };
}

/// Each method is told of at the method of the same name of [`Publisher`].
#[allow(missing_docs)]
impl Sender {
    /// Connects, or takes a place of the pool.
    pub fn open(options: PublisherOptions, pool: Option<&Pool>) -> Result<Sender, ClientError> {
        let Some(pool) = pool else { return Ok(Sender::Tcp(Box::new(Publisher::connect(options)?))) };
        let attached = AttachOptions {
            pool: pool.path.clone(),
            host: pool.host,
            coherence: pool.coherence,
            topic: options.topic,
            create: options.create,
            ack: options.ack,
            batch_bytes: options.batch_bytes,
            batch_messages: options.batch_messages,
            linger: options.linger,
            window_batches: options.window_batches,
            wait: options.connect_timeout,
            ..AttachOptions::default()
        };
        Ok(Sender::Attached(Box::new(Publisher::attach(attached)?)))
    }

    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        either!(Sender, self, inner => inner.send(payload))
    }

    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        either!(Sender, self, inner => inner.try_send(payload))
    }

    pub fn seal(&mut self) {
        either!(Sender, self, inner => inner.seal())
    }

    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        either!(Sender, self, inner => inner.poll(timeout))
    }

    pub fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        either!(Sender, self, inner => inner.flush(deadline))
    }

    pub fn close(self, deadline: Instant) -> Result<(), ClientError> {
        either!(Sender, self, inner => inner.close(deadline))
    }

    pub fn on_acked(&mut self, callback: Box<dyn FnMut(AckedBatch) + Send>) {
        either!(Sender, self, inner => inner.on_acked(callback))
    }

    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match self {
            Sender::Tcp(inner) => inner.watch(readiness),
            Sender::Attached(_) => Some(Instant::now() + LOOK_EVERY),
        }
    }

    pub fn session(&self) -> u64 {
        either!(Sender, self, inner => inner.session())
    }

    pub fn order_level(&self) -> OrderLevel {
        either!(Sender, self, inner => inner.order_level())
    }

    pub fn messages_acked(&self) -> u64 {
        either!(Sender, self, inner => inner.messages_acked())
    }

    pub fn in_flight(&self) -> usize {
        either!(Sender, self, inner => inner.in_flight())
    }

    pub fn batch_message_bytes_max(&self) -> u64 {
        either!(Sender, self, inner => inner.batch_message_bytes_max())
    }

    pub fn stats(&self) -> PublisherStats {
        either!(Sender, self, inner => inner.stats())
    }

    /// None of an attached publisher: its messages pass no broker.
    pub fn broker_progress(&self) -> &[BrokerProgress] {
        match self {
            Sender::Tcp(inner) => inner.broker_progress(),
            Sender::Attached(_) => &[],
        }
    }
}

/// A subscriber.
pub enum Receiver {
    /// Over TCP.
    Tcp(Box<Subscriber>),
    /// Attached.
    Attached(Box<AttachedSubscriber>),
}

/// Each method is told of at the method of the same name of [`Subscriber`].
#[allow(missing_docs)]
impl Receiver {
    /// Connects, or takes a place of the pool.
    pub fn open(options: SubscriberOptions, pool: Option<&Pool>) -> Result<Receiver, ClientError> {
        let Some(pool) = pool else { return Ok(Receiver::Tcp(Box::new(Subscriber::connect(options)?))) };
        let attached = AttachedSubscriberOptions {
            pool: pool.path.clone(),
            host: pool.host,
            coherence: pool.coherence,
            topic: options.topic,
            start: options.start,
            verify: options.check_crc,
            wait: options.connect_timeout,
            ..AttachedSubscriberOptions::default()
        };
        Ok(Receiver::Attached(Box::new(Subscriber::attach(attached)?)))
    }

    pub fn poll(&mut self, time: Duration, handler: &mut dyn FnMut(Event<'_>)) -> Result<usize, ClientError> {
        match self {
            Receiver::Tcp(inner) => inner.poll_events(time, handler),
            Receiver::Attached(inner) => inner.poll(time, &mut |delivered| handler(Event::Batch(*delivered))),
        }
    }

    /// Goes on at this order, giving up what lies before it.
    pub fn go_on_at(&mut self, order: u64) {
        match self {
            Receiver::Tcp(inner) => inner.go_on_at(0, order),
            Receiver::Attached(_) => {} // None is asked to: --attach and --stop-reader-for exclude each other.
        }
    }

    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match self {
            Receiver::Tcp(inner) => inner.watch(readiness),
            Receiver::Attached(_) => Some(Instant::now() + LOOK_EVERY),
        }
    }

    pub fn next_order(&self) -> u64 {
        either!(Receiver, self, inner => inner.next_order())
    }

    pub fn caught_up(&self) -> bool {
        either!(Receiver, self, inner => inner.caught_up())
    }

    pub fn topic(&self) -> &str {
        either!(Receiver, self, inner => inner.topic())
    }

    pub fn order_level(&self) -> OrderLevel {
        either!(Receiver, self, inner => inner.order_level())
    }
}
