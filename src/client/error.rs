//! What can go wrong for a client, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::numbers::{Order, SessionId};
use crate::log::namesake::Namesake;
use crate::log::recover::RecoverError;
use crate::pool::{PlaceKind, PoolError};
use crate::wire::{Refusal, WireError};

/// One broker that was tried, and why it did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub broker: String,
    /// The last failure, in words.
    pub failure: String,
}

/// The brokers that were tried, printed as one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

impl fmt::Display for Attempts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(out, "no broker");
        }
        for (index, attempt) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(out, "{comma}{} ({})", attempt.broker, attempt.failure)?;
        }
        Ok(())
    }
}

/// An error of the client library.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The broker answered, and said no.
    #[error("broker {broker} refused with code {code} ({}): {text}", name_of(*code))]
    Refused {
        /// `host:port`.
        broker: String,
        /// Code of the Refused frame; [`ClientError::refusal`] gives its meaning.
        code: u16,
        /// The number that the code's meaning names, else 0.
        detail: u64,
        /// Trimmed, TooSlow: place of the topic in the subscription; else 0.
        place: usize,
        /// The broker's own words.
        text: String,
    },
    /// No broker could be talked to in time.
    #[error("no broker answered within {}; tried {tried}: check the addresses and that the brokers run", in_words(*waited))]
    Unreachable {
        /// How long it was tried, or was to be tried.
        waited: Duration,
        /// Every broker, with its last failure.
        tried: Attempts,
    },
    /// The bytes of a broker break the protocol. The connection was closed.
    #[error("bytes from broker {broker} break the protocol: {error}")]
    Wire {
        /// `host:port`.
        broker: String,
        /// What is wrong with them.
        #[source]
        error: WireError,
    },
    /// Well-formed frames that contradict what was said before. The connection was closed.
    #[error("broker {broker} contradicts itself: {field} is {found}, expected {expected}")]
    Contradiction {
        /// `host:port`.
        broker: String,
        /// The number in question.
        field: &'static str,
        /// As received.
        found: u64,
        /// As it follows from what was received before.
        expected: u64,
    },
    /// The broker serves another log than the one that was read from or published to: its pool was formatted anew, or it is a broker of
    /// another pool. What comes next there is not what comes next here, so nothing is gone on with.
    #[error(
        "broker {broker} serves log {found}, not {expected}, which this client began with: the pool was formatted anew, or the broker \
         is another pool's; begin again from the start of that log"
    )]
    OtherLog {
        /// `host:port`.
        broker: String,
        /// Identity of the log it serves.
        found: String,
        /// Identity of the log that was to be gone on with.
        expected: String,
    },
    /// Messages are missing: the next batch does not begin where the last one ended. The connection was closed; the
    /// next poll asks again for `expected`.
    #[error("broker {broker} delivered order {found} where {expected} is next: messages are missing or repeated")]
    Gap {
        /// `host:port`.
        broker: String,
        /// First order of the batch that came.
        found: Order,
        /// Order that was next.
        expected: Order,
    },
    /// The publisher's session is gone: it was closed, or nobody was connected for it for longer than the brokers keep one. What was sent
    /// in it and not acked may be ordered or not; all that was taken later is not. The publisher has ended.
    #[error(
        "broker {broker}: session {session:#x} is gone, and of messages {first_message}..{end_message} of this publisher it is not known \
         whether they were ordered; those after them were not: read the topic's end, then publish what is missing with a new publisher"
    )]
    SessionGone {
        /// Who said so, `host:port`.
        broker: String,
        /// Its id.
        session: SessionId,
        /// Number, in this publisher, of the first message that was sent and not acked.
        first_message: u64,
        /// Number behind the last message that was sent and not acked.
        end_message: u64,
    },
    /// The operating system failed a request.
    #[error("{doing} {broker}: {text}")]
    Io {
        /// `host:port`.
        broker: String,
        /// What was being done.
        doing: &'static str,
        /// Kind of the failure.
        kind: io::ErrorKind,
        /// The operating system's words.
        text: String,
    },
    /// A payload that no batch can hold.
    #[error("payload of {payload_bytes} bytes, the largest that fits a batch of this topic has {max}: split it")]
    PayloadTooLarge {
        /// Its length, bytes.
        payload_bytes: u64,
        /// Largest allowed, bytes.
        max: u64,
    },
    /// The deadline passed before everything was acked. Nothing was given up: call again to go on waiting.
    #[error("deadline passed with {in_flight} batches unacked. {progress}. Unreachable: {unreachable}")]
    AckTimeout {
        /// Batches sealed and not acked.
        in_flight: usize,
        /// Acked per broker and in all, as [`Publisher::progress_line`](crate::client::Publisher::progress_line).
        progress: String,
        /// Brokers without a live connection, and why.
        unreachable: Attempts,
    },
    /// An option that cannot work.
    #[error("option {option} is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The pool cannot be attached to.
    #[error(transparent)]
    Pool(Arc<PoolError>),
    /// What was found in the pool cannot be. Others that use it will find the same.
    #[error("pool {pool}: {error}")]
    Damaged {
        /// Its path.
        pool: PathBuf,
        /// What is damaged.
        error: Box<RecoverError>,
    },
    /// Every place for attached clients is taken, or the pool has none.
    #[error(
        "pool {pool} has {places} places for attached {kind} on host {host}, and none is free; end one, connect over TCP, or format the pool with a larger geometry.attached_per_broker"
    )]
    NoPlace {
        /// Its path.
        pool: PathBuf,
        /// The host asked for.
        host: u32,
        /// Publishers or subscribers.
        kind: PlaceKind,
        /// Places that there are.
        places: u32,
    },
    /// A broker of another machine lives under the host's number that was given. Locks hold on one machine only: both would write the same
    /// lines. Not noticed where that machine runs no broker.
    #[error("pool {pool}: {source}; an attached client says its own host's number (`host`, --host)")]
    OtherHost {
        /// Its path.
        pool: PathBuf,
        /// Who lives there.
        source: Namesake,
    },
    /// An attached client cannot have what it asks for.
    #[error("pool {pool}: refused with code {} ({refusal:?}): {text}", *refusal as u16)]
    PoolRefused {
        /// Its path.
        pool: PathBuf,
        /// Why, as a broker would say it.
        refusal: Refusal,
        /// The number that the reason's meaning names, else 0.
        detail: u64,
        /// In words.
        text: String,
    },
    /// An attached client waited for the sequencer in vain.
    #[error("pool {pool}: waited {waited:?} for {waiting_for}; is a broker running that may be the sequencer?")]
    PoolTimeout {
        /// Its path.
        pool: PathBuf,
        /// How long.
        waited: Duration,
        /// What for.
        waiting_for: String,
    },
    /// An attached subscriber was not polled for `export.reader_stall` while publishers waited for memory, and was not waited
    /// for. Nothing that was overwritten has been handed on.
    #[error(
        "pool {pool}: this subscriber was not polled for too long while publishers waited for memory; what comes next, from order {next_order}, may be gone: begin again from the earliest, and poll more often or keep more memory"
    )]
    TooSlow {
        /// Its path.
        pool: PathBuf,
        /// Order of the first message that was not handed on.
        next_order: Order,
    },
    /// The I/O thread of a background publisher could not be started, or has ended.
    #[error("the publisher's I/O thread is not running: {text}")]
    Stopped {
        /// Why.
        text: String,
    },
}

impl ClientError {
    /// The broker's reason, if this is a refusal of a kind this version knows.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            ClientError::Refused { code, .. } => Refusal::from_code(*code),
            ClientError::PoolRefused { refusal, .. } => Some(*refusal),
            ClientError::TooSlow { .. } => Some(Refusal::TooSlow),
            ClientError::OtherLog { .. } => Some(Refusal::OtherLog),
            ClientError::SessionGone { .. } => Some(Refusal::UnknownSession),
            _ => None,
        }
    }

    /// If an order that is gone was asked for: the earliest that is kept, where
    /// [`Subscriber::go_on_at`](crate::Subscriber::go_on_at) may go on.
    pub fn earliest_order(&self) -> Option<Order> {
        match self {
            ClientError::Refused { detail, .. } | ClientError::PoolRefused { detail, .. }
                if self.refusal() == Some(Refusal::Trimmed) =>
            {
                Some(Order(*detail))
            }
            _ => None,
        }
    }

    /// Whether trying again, here or at another broker, may succeed without anyone changing anything.
    ///
    /// A session that a broker does not know counts: it may not have read that far in the order index.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Refused { .. } | ClientError::PoolRefused { .. } => matches!(
                self.refusal(),
                Some(
                    Refusal::Busy
                        | Refusal::NoSequencer
                        | Refusal::Draining
                        | Refusal::TooSlow
                        | Refusal::HelloTimeout
                        | Refusal::SessionEpoch
                        | Refusal::UnknownSession
                )
            ),
            ClientError::Unreachable { .. } | ClientError::Io { .. } | ClientError::AckTimeout { .. } => true,
            ClientError::Wire { .. } | ClientError::Contradiction { .. } | ClientError::Gap { .. } => true,
            ClientError::NoPlace { .. } | ClientError::PoolTimeout { .. } | ClientError::TooSlow { .. } => true,
            ClientError::Pool(_) | ClientError::Damaged { .. } | ClientError::OtherLog { .. } => false,
            ClientError::OtherHost { .. } => false,
            ClientError::SessionGone { .. } => false,
            ClientError::PayloadTooLarge { .. } | ClientError::Option { .. } | ClientError::Stopped { .. } => false,
        }
    }

    pub(crate) fn io(broker: &str, doing: &'static str, error: &io::Error) -> ClientError {
        ClientError::Io { broker: broker.to_owned(), doing, kind: error.kind(), text: error.to_string() }
    }

    pub(crate) fn wire(broker: &str, error: WireError) -> ClientError {
        ClientError::Wire { broker: broker.to_owned(), error }
    }
}

/// A time as somebody would have written it: to the millisecond.
fn in_words(time: Duration) -> String {
    format!("{:?}", Duration::from_millis((time.as_secs_f64() * 1e3).round() as u64))
}

fn name_of(code: u16) -> String {
    Refusal::from_code(code).map_or_else(|| "unknown to this client".to_owned(), |refusal| format!("{refusal:?}"))
}
