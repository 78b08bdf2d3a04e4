//! Embarcadero: a totally ordered publish/subscribe log over CXL memory. This is its client library.
//!
//! ```no_run
//! use embarcadero::{ClientError, Publisher, PublisherOptions, Subscriber, SubscriberOptions, TopicProperties};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), ClientError> {
//! let (brokers, topic, create) = (vec!["127.0.0.1:7300".to_owned()], "orders".to_owned(), Some(TopicProperties::default()));
//! let options = PublisherOptions { brokers: brokers.clone(), topic: topic.clone(), create, ..Default::default() };
//! let mut publisher = Publisher::connect(options)?;
//! publisher.send(b"a message")?;
//! publisher.close(Duration::from_secs(10))?;
//!
//! let mut subscriber = Subscriber::connect(SubscriberOptions { brokers, topic, ..Default::default() })?;
//! while !subscriber.caught_up() {
//!     subscriber.poll(Duration::from_secs(1), |batch| {
//!         batch.messages().for_each(|(order, message)| println!("{order}: {} bytes", message.payload.len()));
//!     })?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Order of calls
//!
//! * [`Publisher`]: `connect` or `attach`; then `send` (or `try_send`), with `poll` while there is nothing to send; `flush` to wait for
//!   acks; `close` at the end. [`BackgroundPublisher`] is one with a thread of its own, which needs no `poll`.
//! * [`Subscriber`]: `connect` or `attach`; then `poll` again and again. [`Cursor`] keeps where it was: `open` it first, subscribe from
//!   its `start`, `commit` what is done.
//! * [`Admin`]: `new`; then topics and cursors in any order.
//!
//! Nothing happens between two calls but in a [`BackgroundPublisher`]. Every error is a [`ClientError`]; what a broker refuses has a
//! [`Refusal`], and [`is_transient`](ClientError::is_transient) says whether it may go better the next time.
//!
//! A topic's [`TopicProperties`] say what it promises: by default every message is in the order exactly once, and those of one publisher
//! as it sent them. `README.md` has more of what the log is and is not, `tests/examples` a program for each of these types.

// The map, for contributors; `ARCHITECTURE.md` tells the life of a batch. A room imports only rooms of lower floors (`tests/tidy.rs` holds that):
//
// ```text
// 9 │ sim                           │ the whole cluster from one seed
// 8 │ testing                       │ simulated memory and chance
// 7 │ embarlet                      │ assembles a broker process
// 6 │ roles · client · monitor      │ duty cycles: receive, sequence, ack, export │ publishers and subscribers, over TCP or attached │ a pool as people see it
// 5 │ log · net · observe           │ structures of the pool │ io_uring, readiness │ counters, times and errors in the pool
// 4 │ pool · runtime                │ shared memory │ the one loop
// 3 │ order · config                │ decisions │ the configuration file
// 2 │ wire                          │ frames
// 1 │ crc                           │ the checksum
// 0 │ limits · fields · processor · utc │ bounds, byte layouts, what the processor has, the time of day
// ```
//
// Only tests and tools import the two at the top.
//
// # Glossary
//
// * **pool**: the shared memory, a devdax device or a file in `/dev/shm`. **line**: 64 bytes of it, with one writer.
// * **broker**, **embarlet**: a member of the pool that clients connect to; the process that runs one or several.
// * **blog**: the payload area. **extent**: a piece of it that one lane owns. **run**: a piece of an extent that one
//   connection receives into.
// * **lane**: one receive core's ring of batch headers and its extents. **slot**: one place of the ring.
// * **seat**: what a connection has in the role that serves it, and is numbered by there.
// * **attached**: of a client that maps the pool instead of connecting. **place**: what it takes there: a lane, or a pin.
//   **member**: whoever may own lines besides the sequencer: a broker, or the process in a place.
// * **batch**: a 64-byte header and messages, on the wire and in the blog alike.
// * **order index**: the total order, one 64-byte entry for each batch or control event. **position**: a place in it.
// * **total order**: the number of a message in its topic. **watermark**: positions below it are committed.
// * **session**: a publisher's exactly-once stream over any number of connections. **session epoch**: grows when a
//   session is fenced and reopened. **sequencer epoch**: grows with every takeover.
// * **fence**: the end of a session epoch. **let go**: parked batches given up, to be sent again.
// * **floor**, **closing**: positions below are given up, or may be at any moment. **pin**: a reader's claim.
//
// # Unsafe code
//
// Denied here, allowed by name in `crc/kernels.rs` (vector instructions), `processor.rs` (prefetches),
// `pool/coherence.rs` (mapping and flushes), `pool/os.rs` (locks, reservation, addresses), `pool/stream.rs` (copies past the caches),
// `net/ring.rs` (memory lent to the kernel), `net/readiness.rs` (poll), `net/peer.rs` (one connection),
// `net/socket_options.rs` (what a socket is told) and `runtime/os.rs` (limits, bus errors). Each numbers its invariants.

#![deny(unsafe_code)]

mod client;

pub use client::{
    AckedBatch, Admin, Attempt, Attempts, BackgroundPublisher, BatchSeq, Batches, BrokerProgress,
    CONNECTIONS_PER_BROKER_MAX, ClientError, Cursor, Delivered, Event, Order, OwnedBatch, OwnedEvent, PoolOptions,
    Position, Publisher, PublisherOptions, PublisherStats, SessionId, Skew, SlowReaderPolicy, Start, Subscriber,
    SubscriberOptions, TopicInfo, TopicProperties, UNKNOWN_BROKER, create_topic,
};
pub use config::CoherenceMode;
pub use net::readiness::Readiness;
pub use pool::{PlaceKind, PoolError};
pub use wire::message::Message;
pub use wire::{AckLevel, OrderLevel, Receipts, Refusal, WireError};

// What follows is there for the binaries, tools, benches and tests of this repository. It is not part of the interface: nothing is
// promised of it, from one commit to the next.
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod crc;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod embarlet;
#[doc(hidden)]
pub mod fields;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod log;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod monitor;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod observe;
#[doc(hidden)]
pub mod order;
#[doc(hidden)]
pub mod pool;
#[doc(hidden)]
pub mod processor;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod roles;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod runtime;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod sim;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod testing;
#[doc(hidden)]
pub mod utc;
#[doc(hidden)]
pub mod wire;
