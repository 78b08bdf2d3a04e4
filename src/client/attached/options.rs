//! What an attached client is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::options::{BATCH_BYTES_MIN, Start, TopicProperties, check_topic, within};
use crate::config::CoherenceMode;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, WINDOW_BATCHES_MAX};
use crate::wire::AckLevel;

/// What an attached publisher is asked to do.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The pool: a file or device of this host.
    pub pool: PathBuf,
    /// This host's number in the pool.
    pub host: u32,
    /// As the brokers' `pool.coherence`; software is right on every pool.
    pub coherence: CoherenceMode,
    /// Topic name.
    pub topic: String,
    /// Create the topic with these properties if there is none.
    pub create: Option<TopicProperties>,
    /// Ack level wanted.
    pub ack: AckLevel,
    /// Size at which a batch is sealed, header and padding included, bytes. The pool's limit clips it.
    pub batch_bytes: u64,
    /// Most messages in a batch.
    pub batch_messages: u32,
    /// Longest time a message waits in the open batch, looked at by `poll`, never per message.
    pub linger: Duration,
    /// Most batches published and not acked.
    pub window_batches: u32,
    /// How long a call waits for room, or for the sequencer's answer, while nothing moves.
    pub wait: Duration,
    /// How long a waiting call looks again at once before it sleeps between looks.
    pub spin: Duration,
    /// Touch the memory of the place when it is taken, so that no message waits for a page.
    pub populate: bool,
}

impl Default for AttachOptions {
    /// Host 0, software coherence, 256 KiB batches, a window of 64, 1 ms linger. Pool and topic must be set.
    fn default() -> Self {
        AttachOptions {
            pool: PathBuf::new(),
            host: 0,
            coherence: CoherenceMode::Software,
            topic: String::new(),
            create: None,
            ack: AckLevel::Committed,
            batch_bytes: 256 << 10,
            batch_messages: BATCH_MESSAGES_MAX,
            linger: Duration::from_millis(1),
            window_batches: 64,
            wait: Duration::from_secs(10),
            spin: Duration::from_micros(50),
            populate: true,
        }
    }
}

impl AttachOptions {
    pub(super) fn check(&self) -> Result<(), ClientError> {
        check_topic(&self.topic)?;
        within("batch_bytes", self.batch_bytes, BATCH_BYTES_MIN, BATCH_BYTES_MAX)?;
        within("batch_messages", self.batch_messages.into(), 1, BATCH_MESSAGES_MAX.into())?;
        within("window_batches", self.window_batches.into(), 1, WINDOW_BATCHES_MAX.into())
    }
}

/// What an attached subscriber is asked to do.
#[derive(Clone, Debug)]
pub struct AttachedSubscriberOptions {
    /// The pool: a file or device of this host.
    pub pool: PathBuf,
    /// This host's number in the pool.
    pub host: u32,
    /// As the brokers' `pool.coherence`; software is right on every pool.
    pub coherence: CoherenceMode,
    /// Topic name.
    pub topic: String,
    /// Where to start.
    pub start: Start,
    /// Check the CRC of every batch. Its identity and framing are checked in any case.
    pub verify: bool,
    /// How long to wait for the topic, and for the sequencer's answer.
    pub wait: Duration,
    /// How long `poll` looks again at once before it sleeps between looks.
    pub spin: Duration,
}

impl Default for AttachedSubscriberOptions {
    /// Host 0, software coherence, from the earliest message, checked. Pool and topic must be set.
    fn default() -> Self {
        AttachedSubscriberOptions {
            pool: PathBuf::new(),
            host: 0,
            coherence: CoherenceMode::Software,
            topic: String::new(),
            start: Start::Earliest,
            verify: true,
            wait: Duration::from_secs(10),
            spin: Duration::from_micros(50),
        }
    }
}

impl AttachedSubscriberOptions {
    pub(super) fn check(&self) -> Result<(), ClientError> {
        check_topic(&self.topic)
    }
}
