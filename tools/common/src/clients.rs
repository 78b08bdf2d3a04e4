//! Clients of a tool, over TCP or attached to the pool: what the tools need of either.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use embarcadero::config::CoherenceMode;
use embarcadero::net::readiness::Readiness;
use embarcadero::wire::OrderLevel;
use embarcadero::{
    AckedBatch, AttachOptions, AttachedPublisher, AttachedSubscriber, AttachedSubscriberOptions, BrokerProgress,
    ClientError, Delivered, Event, Publisher, PublisherOptions, PublisherStats, Subscriber, SubscriberOptions,
};
use verification::BatchPlace;

use crate::arguments::HostArgs;

/// An attached client has no socket to wait for: a thread that drives several looks again after this time.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The pool that clients map instead of connecting.
#[derive(Clone, Debug)]
pub struct AttachedPool {
    /// Its file or device.
    pub path: PathBuf,
    /// This host's number in it.
    pub host: u32,
    /// As the brokers' `pool.coherence`.
    pub coherence: CoherenceMode,
}

impl AttachedPool {
    /// As a command line says it; none if it does not.
    pub fn of(path: Option<&PathBuf>, args: &HostArgs) -> Option<AttachedPool> {
        path.map(|path| AttachedPool { path: path.clone(), host: args.host, coherence: args.coherence })
    }
}

/// Methods that both kinds of a client have; each is told of at the method of the same name of `Publisher` or `Subscriber`.
macro_rules! both {
    ($(fn $name:ident($this:ident: $kind:ty $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {$(
        #[allow(missing_docs)]
        pub fn $name($this: $kind $(, $argument: $type)*) $(-> $result)? {
            match $this {
                Self::Tcp(inner) => inner.$name($($argument),*),
                Self::Attached(inner) => inner.$name($($argument),*),
            }
        }
    )*};
}

/// A publisher.
pub enum AnyPublisher {
    /// Over TCP.
    Tcp(Box<Publisher>),
    /// Attached.
    Attached(Box<AttachedPublisher>),
}

impl AnyPublisher {
    /// Connects, or takes a place of the pool.
    ///
    /// # Errors
    /// As `Publisher::connect` and `Publisher::attach`.
    pub fn open(options: PublisherOptions, pool: Option<&AttachedPool>) -> Result<AnyPublisher, ClientError> {
        let Some(pool) = pool else { return Ok(AnyPublisher::Tcp(Box::new(Publisher::connect(options)?))) };
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
        Ok(AnyPublisher::Attached(Box::new(Publisher::attach(attached)?)))
    }

    both! {
        fn send(self: &mut Self, payload: &[u8]) -> Result<(), ClientError>;
        fn try_send(self: &mut Self, payload: &[u8]) -> Result<bool, ClientError>;
        fn seal(self: &mut Self);
        fn poll(self: &mut Self, timeout: Duration) -> Result<usize, ClientError>;
        fn flush(self: &mut Self, deadline: Instant) -> Result<(), ClientError>;
        fn close(self: Self, deadline: Instant) -> Result<(), ClientError>;
        fn on_acked(self: &mut Self, callback: Box<dyn FnMut(AckedBatch) + Send>);
        fn session(self: &Self) -> u64;
        fn order_level(self: &Self) -> OrderLevel;
        fn messages_sent(self: &Self) -> u64;
        fn messages_acked(self: &Self) -> u64;
        fn in_flight(self: &Self) -> usize;
        fn batch_message_bytes_max(self: &Self) -> u64;
        fn stats(self: &Self) -> PublisherStats;
    }

    /// Names the sockets to wait for. Gives when to look again at the latest.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match self {
            AnyPublisher::Tcp(inner) => inner.watch(readiness),
            AnyPublisher::Attached(_) => Some(Instant::now() + LOOK_EVERY),
        }
    }

    /// Where its messages went. Nothing of an attached publisher: its messages pass no broker.
    pub fn broker_progress(&self) -> &[BrokerProgress] {
        match self {
            AnyPublisher::Tcp(inner) => inner.broker_progress(),
            AnyPublisher::Attached(_) => &[],
        }
    }
}

/// A subscriber.
pub enum AnySubscriber {
    /// Over TCP.
    Tcp(Box<Subscriber>),
    /// Attached.
    Attached(Box<AttachedSubscriber>),
}

impl AnySubscriber {
    /// Connects, or takes a place of the pool.
    ///
    /// # Errors
    /// As `Subscriber::connect` and `Subscriber::attach`.
    pub fn open(options: SubscriberOptions, pool: Option<&AttachedPool>) -> Result<AnySubscriber, ClientError> {
        let Some(pool) = pool else { return Ok(AnySubscriber::Tcp(Box::new(Subscriber::connect(options)?))) };
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
        Ok(AnySubscriber::Attached(Box::new(Subscriber::attach(attached)?)))
    }

    both! {
        fn next_order(self: &Self) -> u64;
        fn caught_up(self: &Self) -> bool;
        fn topic(self: &Self) -> &str;
        fn order_level(self: &Self) -> OrderLevel;
    }

    /// Takes what has come, waiting for it up to `time`. An attached subscriber has batches only.
    ///
    /// # Errors
    /// As `Subscriber::poll_events`.
    pub fn poll(&mut self, time: Duration, handler: &mut dyn FnMut(Event<'_>)) -> Result<usize, ClientError> {
        match self {
            AnySubscriber::Tcp(inner) => inner.poll_events(time, handler),
            AnySubscriber::Attached(inner) => inner.poll(time, |delivered| handler(Event::Batch(*delivered))),
        }
    }

    /// Goes on at this order, giving up what lies before it. An attached subscriber is never let go, and stays where it is.
    pub fn go_on_at(&mut self, order: u64) {
        if let AnySubscriber::Tcp(inner) = self {
            inner.go_on_at(0, order);
        }
    }

    /// Names the sockets to wait for. Gives when to look again at the latest.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match self {
            AnySubscriber::Tcp(inner) => inner.watch(readiness),
            AnySubscriber::Attached(_) => Some(Instant::now() + LOOK_EVERY),
        }
    }

    /// Messages that were gone when it began at the earliest; over TCP, where brokers say so.
    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        match self {
            AnySubscriber::Tcp(inner) => inner.trimmed_before_start(place),
            AnySubscriber::Attached(_) => 0,
        }
    }
}

/// Where a batch stands, as it was delivered.
pub fn place(delivered: &Delivered<'_>) -> BatchPlace {
    BatchPlace {
        first_order: delivered.first_order,
        session: delivered.session,
        session_epoch: delivered.session_epoch,
        batch_seq: delivered.batch_seq,
        message_count: delivered.message_count,
    }
}
