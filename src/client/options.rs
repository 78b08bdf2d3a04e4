//! What a client is asked to do, checked before anything is tried.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::numbers::Order;
use crate::config::CoherenceMode;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, CONTROL_BODY_BYTES_MAX, LINE_BYTES, MESSAGE_ALIGNMENT_BYTES,
    MESSAGE_HEADER_BYTES, SUBSCRIPTION_TOPICS_MAX, WINDOW_BATCHES_MAX,
};
use crate::wire::frame::{check_cursor_name, check_topic_name};
use crate::wire::subscribe::record_bytes;
use crate::wire::{AckLevel, OrderLevel, Receipts, SlowReader, StartAt};

/// Smallest batch frame worth a header, bytes: the header and one message of one line.
pub(crate) const BATCH_BYTES_MIN: u64 =
    LINE_BYTES + (MESSAGE_HEADER_BYTES + MESSAGE_ALIGNMENT_BYTES).next_multiple_of(LINE_BYTES);
/// Smallest receive buffer, bytes: a control frame of any kind fits.
const BUFFER_BYTES_MIN: u64 = 2 * CONTROL_BODY_BYTES_MAX as u64;
/// Most connections of one publisher to one broker.
pub const CONNECTIONS_PER_BROKER_MAX: u32 = 16;

/// What a topic promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicProperties {
    /// Order level.
    pub order: OrderLevel,
    /// Ack level that publishers are meant to use.
    pub ack: AckLevel,
    /// Where brokers stamp the time of receipt.
    pub receipts: Receipts,
    /// Replication factor, the pool copy included.
    pub replicas: u32,
    /// How much of it is kept, bytes of batches, as long as memory is not short; 0: as much as fits.
    pub retention_bytes: u64,
    /// How long its messages are kept, as long as memory is not short; zero: as long as they fit.
    pub retention_age: Duration,
}

impl Default for TopicProperties {
    /// Order level 5, ack level 1, receipts per batch, no replica beside the pool, no retention target.
    fn default() -> Self {
        TopicProperties {
            order: OrderLevel::Session,
            ack: AckLevel::Committed,
            receipts: Receipts::Batch,
            replicas: 1,
            retention_bytes: 0,
            retention_age: Duration::ZERO,
        }
    }
}

#[doc(hidden)]
/// A test hook: holds batches for one broker back, so that the others overtake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// Index of the broker in [`Publisher::broker_progress`](crate::client::Publisher::broker_progress).
    pub broker: usize,
    /// How long each batch for it waits before it is sent.
    pub delay: Duration,
}

/// The pool that an attached client maps, and how it waits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// A file or device of this host.
    pub path: PathBuf,
    /// This host's number in the pool.
    pub host: u32,
    /// As the brokers' `pool.coherence`; software is right on every pool.
    pub coherence: CoherenceMode,
    /// How long a call waits for the topic, for room, or for the sequencer's answer, while nothing moves.
    pub wait: Duration,
    /// How long a waiting call looks again at once before it sleeps between looks.
    pub spin: Duration,
    /// Publishers: touch the memory of the place when it is taken, so that no message waits for a page.
    pub populate: bool,
}

impl Default for PoolOptions {
    /// Host 0, software coherence, waits of 10 s, 50 µs of them awake, memory touched in advance. The path must be set.
    fn default() -> Self {
        PoolOptions {
            path: PathBuf::new(),
            host: 0,
            coherence: CoherenceMode::Software,
            wait: Duration::from_secs(10),
            spin: Duration::from_micros(50),
            populate: true,
        }
    }
}

impl PoolOptions {
    fn check(&self) -> Result<(), ClientError> {
        if !self.path.as_os_str().is_empty() {
            return Ok(());
        }
        let (found, expected) = ("empty".to_owned(), "the pool's file or device".to_owned());
        Err(ClientError::Option { option: "pool.path", found, expected })
    }
}

/// What a publisher is asked to do: the same over TCP and attached, but where it says for which of the two a field is.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// Over TCP: seeds, `host:port`; tried in turn until one answers.
    pub brokers: Vec<String>,
    /// Attached: the pool.
    pub pool: PoolOptions,
    /// Over TCP: stripe over every broker of the pool, as the first one's Welcome lists them; else over the seeds only.
    pub discover: bool,
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
    /// Longest time a message waits in the open batch for company while earlier ones are on their way; with nothing unacked it does not
    /// wait (but at ack level 0, where nobody says when something has come). Looked at by `poll`, never per message.
    pub linger: Duration,
    /// Most batches sealed and not acked. A broker's limit clips it.
    pub window_batches: u32,
    /// Over TCP: connections to each broker.
    pub connections_per_broker: u32,
    /// Over TCP: how long to try while no broker answers.
    pub connect_timeout: Duration,
    /// Over TCP, level 5: resend everything unacked when no ack has come for this long. The last resort, see PROTOCOL.md.
    pub resend_after: Duration,
    /// Test hook.
    #[doc(hidden)]
    pub skew: Option<Skew>,
}

impl Default for PublisherOptions {
    /// 256 KiB batches, a window of 64, 1 ms linger, one connection to each broker. Brokers (or the pool's path) and topic must be set.
    fn default() -> Self {
        PublisherOptions {
            brokers: Vec::new(),
            pool: PoolOptions::default(),
            discover: true,
            topic: String::new(),
            create: None,
            ack: AckLevel::Committed,
            batch_bytes: 256 << 10,
            batch_messages: BATCH_MESSAGES_MAX,
            linger: Duration::from_millis(1),
            window_batches: 64,
            connections_per_broker: 1,
            connect_timeout: Duration::from_secs(5),
            resend_after: Duration::from_secs(3),
            skew: None,
        }
    }
}

impl PublisherOptions {
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        check_brokers(&self.brokers)?;
        self.check_batches()?;
        within("connections_per_broker", self.connections_per_broker.into(), 1, CONNECTIONS_PER_BROKER_MAX.into())
    }

    /// Whether it can be attached with.
    pub(crate) fn check_attached(&self) -> Result<(), ClientError> {
        self.pool.check()?;
        self.check_batches()
    }

    fn check_batches(&self) -> Result<(), ClientError> {
        check_topic(&self.topic)?;
        within("batch_bytes", self.batch_bytes, BATCH_BYTES_MIN, BATCH_BYTES_MAX)?;
        within("batch_messages", self.batch_messages.into(), 1, BATCH_MESSAGES_MAX.into())?;
        within("window_batches", self.window_batches.into(), 1, WINDOW_BATCHES_MAX.into())
    }
}

/// What becomes of a subscriber that keeps memory which publishers need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowReaderPolicy {
    /// What the broker is configured to do.
    #[default]
    AsConfigured,
    /// Publishers wait for it, up to a lag.
    Wait {
        /// Payload in the pool, of any topic, that it has still to pass, bytes. 0: as the broker is configured, which is
        /// also the most that is granted.
        lag_bytes: u64,
    },
    /// It goes on with the earliest message that is kept, and is told what it missed: see
    /// [`Event::Skipped`](crate::client::Event::Skipped). Also when it asks for an order that is gone.
    Skip,
    /// It is disconnected, and told the earliest order that is kept.
    Disconnect,
}

impl SlowReaderPolicy {
    /// As a hello says it: policy and lag.
    pub(crate) fn on_wire(self) -> (SlowReader, u64) {
        match self {
            SlowReaderPolicy::AsConfigured => (SlowReader::AsConfigured, 0),
            SlowReaderPolicy::Wait { lag_bytes } => (SlowReader::Wait, lag_bytes),
            SlowReaderPolicy::Skip => (SlowReader::Skip, 0),
            SlowReaderPolicy::Disconnect => (SlowReader::Disconnect, 0),
        }
    }
}

/// Where a subscriber starts in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The message of this order.
    Order(Order),
    /// The oldest message that is still kept.
    Earliest,
    /// The next message to be ordered.
    Latest,
    /// The first batch, in the topic's order, that a broker had received at this time or later, UTC ns; if there is none,
    /// the next to be ordered. Brokers' clocks differ, so batches of an earlier receipt may follow.
    Timestamp(u64),
}

impl Start {
    pub(crate) fn on_wire(self) -> StartAt {
        match self {
            Start::Order(order) => StartAt::Order(order.0),
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
            Start::Timestamp(utc_ns) => StartAt::Timestamp(utc_ns),
        }
    }
}

/// What a subscriber is asked to do: the same over TCP and attached, but where it says for which of the two a field is.
#[derive(Clone, Debug)]
pub struct SubscriberOptions {
    /// Over TCP: seeds, `host:port`. Every broker serves the whole topic; the first that answers is used.
    pub brokers: Vec<String>,
    /// Attached: the pool.
    pub pool: PoolOptions,
    /// Topic name.
    pub topic: String,
    /// Where to start.
    pub start: Start,
    /// Over TCP: further topics, and where each starts. All come over one connection, in the pool's one total order.
    pub more_topics: Vec<(String, Start)>,
    /// Over TCP: what becomes of it if it is too slow.
    pub slow_reader: SlowReaderPolicy,
    /// Check the CRC of every batch's body. Off, only headers and the message framing are checked.
    pub check_crc: bool,
    /// Over TCP: how long to try while no broker answers.
    pub connect_timeout: Duration,
    /// Over TCP: receive buffer, bytes. It grows once, to the largest batch the broker names, if a batch needs it.
    pub buffer_bytes: u64,
}

impl Default for SubscriberOptions {
    /// One topic from the earliest message, every CRC checked, with a buffer of 1 MiB. Brokers (or the pool's path) and topic must be set.
    fn default() -> Self {
        SubscriberOptions {
            brokers: Vec::new(),
            pool: PoolOptions::default(),
            topic: String::new(),
            start: Start::Earliest,
            more_topics: Vec::new(),
            slow_reader: SlowReaderPolicy::AsConfigured,
            check_crc: true,
            connect_timeout: Duration::from_secs(5),
            buffer_bytes: 1 << 20,
        }
    }
}

impl SubscriberOptions {
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        check_brokers(&self.brokers)?;
        let mut names = Vec::new();
        for (name, _) in self.topics() {
            check_topic(name)?;
            if names.contains(&name) {
                let (found, expected) = (format!("{name:?} twice"), "each topic once".to_owned());
                return Err(ClientError::Option { option: "more_topics", found, expected });
            }
            names.push(name);
        }
        let hello_bytes = names.iter().map(|name| record_bytes(name)).sum::<usize>();
        if names.len() > SUBSCRIPTION_TOPICS_MAX || hello_bytes > CONTROL_BODY_BYTES_MAX {
            let found = format!("{} topics whose records have {hello_bytes} bytes", names.len());
            let expected = format!("at most {SUBSCRIPTION_TOPICS_MAX} topics and {CONTROL_BODY_BYTES_MAX} bytes");
            return Err(ClientError::Option { option: "more_topics", found, expected });
        }
        within("buffer_bytes", self.buffer_bytes, BUFFER_BYTES_MIN, 2 * BATCH_BYTES_MAX)
    }

    /// Whether it can be attached with.
    pub(crate) fn check_attached(&self) -> Result<(), ClientError> {
        self.pool.check()?;
        check_topic(&self.topic)?;
        let other = |option, found| {
            let expected = "what it is by default: an attached subscriber does not have it".to_owned();
            Err(ClientError::Option { option, found, expected })
        };
        if !self.more_topics.is_empty() {
            return other("more_topics", format!("{} topics", self.more_topics.len()));
        }
        if self.slow_reader != SlowReaderPolicy::AsConfigured {
            return other("slow_reader", format!("{:?}", self.slow_reader));
        }
        Ok(())
    }

    /// All topics: the first, then the others.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, StartAt)> {
        let more = self.more_topics.iter().map(|(name, start)| (name.as_str(), start.on_wire()));
        std::iter::once((self.topic.as_str(), self.start.on_wire())).chain(more)
    }
}

pub(crate) fn check_brokers(brokers: &[String]) -> Result<(), ClientError> {
    if brokers.is_empty() {
        let expected = "at least one host:port".to_owned();
        return Err(ClientError::Option { option: "brokers", found: "empty".to_owned(), expected });
    }
    brokers.iter().try_for_each(|address| check_address(address))
}

/// What cannot be an address is not tried: no waiting makes it one.
fn check_address(address: &str) -> Result<(), ClientError> {
    let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_address {
        return Ok(());
    }
    let expected = "host:port, such as 127.0.0.1:7300 or [::1]:7300".to_owned();
    Err(ClientError::Option { option: "brokers", found: format!("{address:?}"), expected })
}

pub(crate) fn check_topic(topic: &str) -> Result<(), ClientError> {
    check_topic_name(topic.as_bytes()).map(|_| ()).map_err(|error| ClientError::Option {
        option: "topic",
        found: format!("{topic:?}"),
        expected: error.to_string(),
    })
}

pub(crate) fn check_cursor(cursor: &str) -> Result<(), ClientError> {
    check_cursor_name(cursor.as_bytes()).map(|_| ()).map_err(|error| ClientError::Option {
        option: "cursor",
        found: format!("{cursor:?}"),
        expected: error.to_string(),
    })
}

pub(crate) fn within(option: &'static str, found: u64, min: u64, max: u64) -> Result<(), ClientError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(ClientError::Option { option, found: found.to_string(), expected: format!("{min} to {max}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No time makes an address of what is none.
    #[test]
    fn addresses_have_a_host_and_a_port() {
        let check = |address: &str| check_brokers(&[address.to_owned()]);
        for good in ["127.0.0.1:7300", "localhost:1", "[::1]:7300", "broker.example.test:65535"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1", "localhost", ":7300", "a:0", "a:70000", "a:", "::1:7300", "a:b", ""] {
            assert!(matches!(check(bad), Err(ClientError::Option { option: "brokers", .. })), "{bad:?}");
        }
    }
}
