//! The client library: publishing to a topic and subscribing to one. The root of the crate names what users see of it.
//!
//! How it is built, from the inside out:
//! * `batch`: the open batch and the sealed one. Payload bytes are copied here and nowhere else.
//! * `window`: every batch that is not acked, and which connection has it: numbering, striping, acks, resends, fences. No
//!   I/O and no clock, so that tests drive it step by step.
//! * `handshake`: how a conversation begins, as bytes. `heard`: what a publisher hears after that.
//! * `ports`, with `session`: a publisher's connections, reconnecting and reopening around the window; no sockets, threads and clocks either.
//! * `engine`, with `dial` and `socket`: dials, reads, writes and sleeps for the ports.
//! * `tcp_publisher` drives an engine on its caller's thread, [`BackgroundPublisher`] on one of its own.
//! * [`Admin`] creates, lists, describes and deletes topics; [`Cursor`] keeps where a consumer resumes.
//! * `intake`: a subscriber's bytes, checked and made into events. `follower`: its connections around that; no I/O and no clock.
//!   `delivered`: what it hands on.
//! * `tcp_subscriber`: dials, reads and sleeps for a follower: one connection for any number of topics, resumed by position.
//!
//! What has no I/O and no clock is driven by the simulated clients too (`sim/parts`).
//!
//! * `attached`: the same without the network, for a process that maps the pool.
//! * [`Publisher`] and [`Subscriber`] are one of either kind each; `path`: which.
//!
//! This room imports `wire`, `limits` and `net::readiness`, `attached` and `error` also `log` and `pool`; and nothing of the
//! broker.

mod admin;
pub(crate) mod attached;
mod background;
pub(crate) mod backoff;
pub(crate) mod batch;
mod cursor;
mod deadline;
mod delivered;
mod dial;
#[cfg(test)]
mod endings_tests;
mod engine;
mod error;
#[cfg(test)]
mod fake;
mod fault;
pub(crate) mod follower;
#[cfg(test)]
mod gone_tests;
pub(crate) mod handshake;
pub(crate) mod heard;
mod inbox;
mod intake;
mod numbers;
mod options;
mod path;
pub(crate) mod ports;
mod progress;
mod publisher;
pub(crate) mod pulse;
pub(crate) mod requests;
pub(crate) mod session;
#[cfg(test)]
mod silence_tests;
mod socket;
mod subscriber;
mod tcp_publisher;
mod tcp_subscriber;
#[cfg(test)]
mod tests;
pub(crate) mod window;

pub use admin::{Admin, create_topic};
pub use background::BackgroundPublisher;
pub use cursor::Cursor;
pub use delivered::{Delivered, Event, OwnedBatch, OwnedEvent};
pub use error::{Attempt, Attempts, ClientError};
pub use numbers::{BatchSeq, Order, Position, SessionId};
pub use options::{
    CONNECTIONS_PER_BROKER_MAX, PoolOptions, PublisherOptions, Skew, SlowReaderPolicy, Start, SubscriberOptions,
    TopicProperties,
};
pub use progress::{AckedBatch, BrokerProgress, PublisherStats, UNKNOWN_BROKER};
pub use publisher::Publisher;
pub use requests::TopicInfo;
pub use subscriber::{Batches, Subscriber};
