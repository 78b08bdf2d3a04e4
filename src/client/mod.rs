//! The client library.
#![allow(dead_code)]

mod background;
mod batch;
mod dial;
mod engine;
mod error;
#[cfg(test)]
mod fake;
mod options;
mod progress;
mod publisher;
mod subscriber;
mod window;

pub use background::BackgroundPublisher;
pub use dial::create_topic;
pub use error::{Attempt, Attempts, ClientError};
pub use options::*;
pub use progress::{AckedBatch, BrokerProgress, PublisherStats};
pub use publisher::Publisher;
pub use subscriber::{Delivered, Subscriber};
