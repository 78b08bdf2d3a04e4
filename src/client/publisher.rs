//! The publisher that users see: one type, whichever way it reaches the log. The way is chosen where it is made, and costs a branch a call.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::attached::AttachedPublisher;
use crate::client::deadline;
use crate::client::error::ClientError;
use crate::client::numbers::SessionId;
use crate::client::options::PublisherOptions;
use crate::client::path::{Path, on_path};
use crate::client::progress::{AckedBatch, BrokerProgress, PublisherStats};
use crate::client::tcp_publisher::TcpPublisher;
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;

/// Publishes messages to one topic: over TCP if [`connect`](Self::connect) made it, in the pool's memory if [`attach`](Self::attach) did.
///
/// Messages are copied once, into the open batch. A batch is sealed when it is full, when [`poll`](Self::poll) finds that its oldest
/// message has lingered, or by [`seal`](Self::seal) and [`flush`](Self::flush); at most a window of sealed batches is unacked.
/// **Nothing happens between two calls**: a caller with nothing to send calls `poll`. (Only reconnecting to a lost broker uses a
/// short-lived thread, so that a silent host stalls nobody.) [`BackgroundPublisher`](crate::BackgroundPublisher) has a thread for that.
///
/// * Over TCP batches are striped over the brokers. At order level 5 everything is committed exactly once and in order, whatever
///   connections break. Below, what was unacked on a broken connection is sent again on another and may be there twice.
///   Memory: a window of batches and one.
/// * Attached, the publisher has a lane of the pool: messages are copied into the payload area and ordered from there, without a socket or a
///   broker process in between. If its process dies, what was sealed is ordered, what was not never existed, and its place is free.
///   Memory: none but the pool's.
///
/// # Order of calls
///
/// `connect` or `attach`; [`on_acked`](Self::on_acked) if every ack matters; then [`send`](Self::send) or [`try_send`](Self::try_send),
/// and `poll`; `flush` as often as everything is to be acked; [`close`](Self::close) at the end. A publisher that is dropped without
/// it abandons what is not acked.
///
/// # What waits
///
/// | methods | |
/// |---|---|
/// | `try_send`, `seal`, `watch`, and all that only tell | never |
/// | `poll`, `flush`, `close` | up to their timeout |
/// | `send` | while the window is full; not for ever, see there |
/// | `connect` | up to `connect_timeout` |
/// | `attach` | as long as nothing moves, up to `pool.wait` |
pub struct Publisher {
    path: Path<TcpPublisher, AttachedPublisher>,
}

impl Publisher {
    /// Opens a session over TCP with the first broker that answers, and connects to the others.
    ///
    /// Brokers that do not answer at once join later.
    ///
    /// # Errors
    /// [`ClientError::Option`], [`ClientError::Unreachable`] after `connect_timeout`, or what the broker refused with.
    pub fn connect(options: PublisherOptions) -> Result<Publisher, ClientError> {
        Ok(Publisher { path: Path::Tcp(Box::new(TcpPublisher::connect(options)?)) })
    }

    /// Maps the pool that `options.pool` names, takes a place of it and opens a session on the topic.
    ///
    /// # Errors
    /// [`ClientError::Option`]; [`ClientError::Pool`] if there is no pool of this version; [`ClientError::NoPlace`];
    /// [`ClientError::PoolRefused`] for what a broker would refuse; [`ClientError::PoolTimeout`] if no sequencer answers.
    pub fn attach(options: PublisherOptions) -> Result<Publisher, ClientError> {
        Ok(Publisher { path: Path::Attached(AttachedPublisher::attach(options)?) })
    }

    /// Takes a message, waiting for acks, and for memory of the pool, while there is no room.
    ///
    /// # Errors
    /// After any of them the message was not taken, and the call may be repeated.
    ///
    /// * Over TCP: [`ClientError::Unreachable`] when no broker could be reached for `connect_timeout`; while one is connected but takes
    ///   nothing it goes on waiting (use [`try_send`](Self::try_send) to choose otherwise).
    /// * Attached: [`ClientError::PoolTimeout`] when nothing moved for `pool.wait`.
    /// * [`ClientError::PayloadTooLarge`]; what ended the session.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        on_path!(&mut self.path, inner => inner.send(payload))
    }

    /// Takes a message if there is room now; false if there is none, with no effect.
    ///
    /// # Errors
    /// [`ClientError::PayloadTooLarge`]; what ended the session.
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        on_path!(&mut self.path, inner => inner.try_send(payload))
    }

    /// Seals the open batch now; if the window is full, as soon as it is not.
    pub fn seal(&mut self) {
        on_path!(&mut self.path, inner => inner.seal());
    }

    /// Progress: hears acks, seals a batch that has lingered, sends, sends again, reconnects. Waits up to `timeout` if there is nothing
    /// to do. Returns how many things moved, 0 if none.
    ///
    /// A lost connection is no error here: it is made good, or shows in [`broker_progress`](Self::broker_progress).
    ///
    /// # Errors
    /// What ended the session.
    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        on_path!(&mut self.path, inner => inner.poll(timeout))
    }

    /// For a caller that drives many publishers on one thread: adds the sockets to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if none of them becomes ready; none: not before that. An attached one has no sockets, and a time soon.
    #[must_use]
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        on_path!(&self.path, inner => inner.watch(readiness))
    }

    /// Seals the open batch and waits until everything is acked (over TCP at ack level 0: written to the sockets).
    ///
    /// # Errors
    /// [`ClientError::AckTimeout`] after `timeout`, with the numbers of every broker; nothing is lost, and the call may be repeated. What
    /// ended the session.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), ClientError> {
        on_path!(&mut self.path, inner => inner.flush(deadline::within(timeout)))
    }

    /// Flushes, closes the session and gives back what it had, all within `timeout`. After an error some messages may not be acked.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(mut self, timeout: Duration) -> Result<(), ClientError> {
        on_path!(&mut self.path, inner => inner.close(deadline::within(timeout)))
    }

    /// Has `callback` called, from inside other calls, for every batch that is done, in the order of acking.
    pub fn on_acked(&mut self, callback: impl FnMut(AckedBatch) + Send + 'static) {
        on_path!(&mut self.path, inner => inner.on_acked(Box::new(callback)));
    }

    /// Session id; over TCP below level 5 that of the first connection's own.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(on_path!(&self.path, inner => inner.session()))
    }

    /// Its lane in the pool, if it is attached.
    #[must_use]
    pub fn lane(&self) -> Option<u32> {
        match &self.path {
            Path::Tcp(_) => None,
            Path::Attached(inner) => Some(inner.lane()),
        }
    }

    /// Order level of the topic.
    #[must_use]
    pub fn order_level(&self) -> OrderLevel {
        on_path!(&self.path, inner => inner.order_level())
    }

    /// Messages taken.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        on_path!(&self.path, inner => inner.messages_sent())
    }

    /// Messages acked (over TCP at ack level 0: written).
    #[must_use]
    pub fn messages_acked(&self) -> u64 {
        on_path!(&self.path, inner => inner.messages_acked())
    }

    /// Payload bytes acked, without headers and padding.
    #[must_use]
    pub fn bytes_acked(&self) -> u64 {
        on_path!(&self.path, inner => inner.bytes_acked())
    }

    /// Batches sealed and not acked.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        on_path!(&self.path, inner => inner.in_flight())
    }

    /// Largest payload that a batch of this topic can hold, bytes.
    #[must_use]
    pub fn batch_message_bytes_max(&self) -> u64 {
        on_path!(&self.path, inner => inner.batch_message_bytes_max())
    }

    /// What went to each broker and came back, ordered by broker id. Nothing if attached: its messages pass no broker.
    #[must_use]
    pub fn broker_progress(&self) -> &[BrokerProgress] {
        match &self.path {
            Path::Tcp(inner) => inner.broker_progress(),
            Path::Attached(_) => &[],
        }
    }

    /// `Waiting for ACKs: [B0=986828, B1=986828, B2=986828, B3=0] total=2960484/10485760`; if attached, with its lane: `[L4=986828]`.
    #[must_use]
    pub fn progress_line(&self, total: u64) -> String {
        on_path!(&self.path, inner => inner.progress_line(total))
    }

    /// Rare events since the publisher was opened.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        on_path!(&self.path, inner => inner.stats())
    }

    /// What runs it over TCP.
    pub(super) fn into_tcp(self) -> Result<TcpPublisher, ClientError> {
        match self.path {
            Path::Tcp(inner) => Ok(*inner),
            Path::Attached(_) => {
                let (found, expected) = ("attached".to_owned(), "one that was made by Publisher::connect".to_owned());
                Err(ClientError::Option { option: "publisher", found, expected })
            }
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Publisher")
            .field("session", &self.session())
            .field("lane", &self.lane())
            .field("messages_sent", &self.messages_sent())
            .field("messages_acked", &self.messages_acked())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
