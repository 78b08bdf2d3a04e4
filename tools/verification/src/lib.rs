//! Whether readers were given what was published: all of it, once, in order, byte for byte.
//!
//! Pure: no clock, no client, no broker, and none of their crate. Whoever reads hands over batches and gets back what was wrong.
//!
//! * [`payload`]: what messages contain, so that each can be told from any other.
//! * [`promise`]: what a topic's order level promises.
//! * [`verifier`], [`faults`]: a stream checked as it arrives, at every order level.
//! * [`ledger`], [`stretch`]: a stream at order level 5 in a few numbers, small enough to be written down at any moment.
//! * [`verdict`]: a whole run of publishers and readers, judged.
#![forbid(unsafe_code)]

pub mod faults;
pub mod ledger;
pub mod payload;
pub mod promise;
pub mod stretch;
pub mod verdict;
pub mod verifier;

/// A batch's place, as it was delivered.
#[derive(Clone, Copy, Debug)]
pub struct BatchPlace {
    /// Total order of the first message.
    pub first_order: u64,
    /// Session id.
    pub session: u64,
    /// Session epoch.
    pub session_epoch: u32,
    /// Number of the batch in its session.
    pub batch_seq: u64,
    /// Messages the header announces.
    pub message_count: u32,
}
