//! The client library: publishing to a topic and subscribing to one.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use embarcadero::client::{Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions, TopicProperties};
//!
//! # fn main() -> Result<(), embarcadero::client::ClientError> {
//! let brokers = vec!["localhost:7000".to_owned()];
//! let mut publisher = Publisher::connect(PublisherOptions {
//!     brokers: brokers.clone(),
//!     topic: "orders".to_owned(),
//!     create: Some(TopicProperties::default()),
//!     ..PublisherOptions::default()
//! })?;
//! publisher.send(b"a message")?;
//! publisher.close(Instant::now() + Duration::from_secs(10))?;
//!
//! let mut subscriber = Subscriber::connect(SubscriberOptions {
//!     brokers,
//!     topic: "orders".to_owned(),
//!     start: Start::Earliest,
//!     ..SubscriberOptions::default()
//! })?;
//! subscriber.poll(Duration::from_secs(1), &mut |batch| {
//!     for (order, message) in batch.messages() {
//!         println!("{order}: {} bytes", message.payload.len());
//!     }
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! How it is built, from the inside out:
//! * `batch`: the open batch and the sealed one. Payload bytes are copied here and nowhere else.
//! * `window`: every batch that is not acked, and which connection has it: numbering, striping, acks, resends, fences. No
//!   I/O and no clock, so that tests drive it step by step.
//! * `socket`, `dial`: a live connection of a publisher; opening one.
//! * `engine`: ports, reconnecting and reopening around the window.
//! * [`Publisher`] drives an engine on its caller's thread, [`BackgroundPublisher`] on one of its own.
//! * [`Subscriber`]: one connection for any number of topics, checked, resumed by position. `delivered`: what it hands on.
//!
//! This room imports `wire`, `limits` and `net::readiness`, and nothing of the broker.

mod background;
pub(crate) mod batch;
mod delivered;
mod dial;
mod engine;
mod error;
#[cfg(test)]
mod fake;
mod options;
mod progress;
mod publisher;
mod socket;
mod subscriber;
#[cfg(test)]
mod tests;
pub(crate) mod window;

pub use background::BackgroundPublisher;
pub use delivered::{Batches, Delivered, Event, OwnedBatch, OwnedEvent};
pub use dial::create_topic;
pub use error::{Attempt, Attempts, ClientError};
pub use options::{
    CONNECTIONS_PER_BROKER_MAX, PublisherOptions, Skew, SlowReaderPolicy, Start, SubscriberOptions, TopicProperties,
};
pub use progress::{AckedBatch, BrokerProgress, PublisherStats};
pub use publisher::Publisher;
pub use subscriber::Subscriber;
