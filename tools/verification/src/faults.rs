//! What the verifier can find wrong, in words, and a bounded log of it.

use crate::payload::{PayloadFault, Stamp};

/// Faults kept as examples; the others are only counted.
const EXAMPLES_MAX: usize = 8;

/// Something a subscriber must never see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each says what its fields are")]
pub enum Fault {
    #[error("total order is not dense: expected order {expected} next, found {found}")]
    Order { expected: u64, found: u64 },
    #[error("session {session:#x}: batches {expected} to {} are missing before batch {found}", found - 1)]
    BatchGap { session: u64, expected: u64, found: u64 },
    #[error("session {session:#x}: batch {found} came again or late, expected batch {expected}")]
    BatchRepeat { session: u64, expected: u64, found: u64 },
    #[error("session {session:#x}: epoch {found} after epoch {expected}")]
    EpochBack { session: u64, expected: u32, found: u32 },
    #[error("session {session:#x}: messages {expected} to {} are missing before message {found}", found - 1)]
    MessageGap { session: u64, expected: u64, found: u64 },
    #[error("session {session:#x}: message {found} came again or late, expected message {expected}")]
    MessageRepeat { session: u64, expected: u64, found: u64 },
    #[error("order {order}: session {session:#x} is publisher {publisher}'s, but this message is {stamp}")]
    WrongSession { session: u64, publisher: u32, order: u64, stamp: Stamp },
    #[error(
        "order {order}: {stamp} was not sent by this run: in its topic are messages of another; name one of its own (--topic)"
    )]
    Foreign { order: u64, stamp: Stamp },
    #[error("order {order}: payload is {fault}")]
    Payload { order: u64, fault: PayloadFault },
    #[error("order {order}: the batch announces {announced} messages and holds {found}")]
    MessageCount { order: u64, announced: u32, found: u64 },
    #[error("session {session:#x}: more sessions in one topic than a pool may have")]
    TooManySessions { session: u64 },
}

/// Counts faults and keeps the first few.
#[derive(Clone, Debug, Default)]
pub struct FaultLog {
    count: u64,
    examples: Vec<Fault>,
}

impl FaultLog {
    /// Notes one.
    pub fn add(&mut self, fault: Fault) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(fault);
        }
    }

    /// Faults in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first few.
    pub fn examples(&self) -> &[Fault] {
        &self.examples
    }
}
