//! A publisher's stream: what its batches must be, and where its bytes land.

use crate::log::blog::Run;
use crate::wire::{BatchDecoder, Receipts};

/// Room that makes a receive worth its system call, bytes.
const RECEIVE_WORTH_BYTES: u64 = 4096;

/// A publisher's stream.
pub struct Stream {
    /// Session its batches must name; 0: it was asked for, and nothing is read before it is told.
    pub session: u64,
    /// The slot that asked for it, if this connection did.
    pub asked_slot: u64,
    /// Session epoch they must name.
    pub session_epoch: u32,
    /// Topic they must name.
    pub topic: u32,
    /// Where receipts are stamped.
    pub receipts: Receipts,
    /// Below order level 5: number the next batch must have.
    pub next_seq: Option<u64>,
    /// Whether landed batches are counted for the ack core (order level 0).
    pub counts_landed: bool,
    /// Batches published.
    pub published: u64,
    /// Where its bytes land.
    pub run: Option<Run>,
    /// Bytes of the run received.
    pub landed: u64,
    /// Bytes of the run published: where the frame under way begins.
    pub parsed: u64,
    /// Slot just past the last batch published from the run; 0 if there is none.
    pub end_slot: u64,
    /// The frame under way.
    pub decoder: BatchDecoder,
    /// Bytes the frame under way needs in all, as far as known.
    pub needed: u64,
    /// Length of its next run: grows while it proves busy.
    pub run_bytes: u64,
}

impl Stream {
    /// Less room than this at a run's end is not worth a receive.
    pub fn worth_a_receive(&self) -> u64 {
        // What is missing of a frame whose length is known is always worth it.
        let missing = self.needed.saturating_sub(self.landed - self.parsed);
        missing.clamp(1, RECEIVE_WORTH_BYTES)
    }

    /// Whether part of a frame has landed.
    pub fn is_in_mid_frame(&self) -> bool {
        self.landed > self.parsed
    }
}
