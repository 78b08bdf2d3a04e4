//! A publisher's stream: what its batches must be, and how far it has come.

use crate::crc::Crc;
use crate::limits::{LINE_BYTES, RUN_BYTES_MIN};
use crate::log::blog::Run;
use crate::roles::receive::landing::Rest;
use crate::wire::{BatchDecoder, Receipts};

/// What a stream's batches must be.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Session they must name; 0: it was asked for, and nothing is read before it is told.
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
}

/// A publisher's stream.
pub struct Stream {
    /// What its batches must be.
    pub terms: Terms,
    /// Batches published.
    pub published: u64,
    /// Where its batches go.
    pub run: Option<Run>,
    /// Bytes of the run that are published: where the batch under way begins, once it has its place there.
    pub filled: u64,
    /// Bytes of the run that are written, or belong to the header of the batch under way, which is written last. No more than `filled`: that
    /// batch has no place yet.
    pub written: u64,
    /// When the header of the batch under way had landed, UTC ns.
    pub landed_at: u64,
    /// The frame under way.
    pub decoder: BatchDecoder,
    /// Sum of its body as stamped, where messages are.
    pub stamped: Crc,
    /// Length of its next run: grows while it proves busy.
    pub run_bytes: u64,
    /// What was received of it and is not taken in.
    pub rest: Rest,
}

impl Stream {
    /// One of which nothing has come, and whose batches may have so many bytes.
    pub fn new(terms: Terms, batch_bytes_max: u64) -> Stream {
        Stream {
            terms,
            published: 0,
            run: None,
            filled: 0,
            written: 0,
            landed_at: 0,
            decoder: BatchDecoder::new(batch_bytes_max),
            stamped: Crc::default(),
            run_bytes: RUN_BYTES_MIN,
            rest: Rest::default(),
        }
    }

    /// Whether part of a frame has come.
    pub fn is_in_mid_frame(&self) -> bool {
        self.decoder.header().is_some() || !self.rest.is_empty()
    }

    /// Bytes that can come before anything has to be waited for: a header, or what is missing of a batch that has its place.
    pub fn has_place_for(&self) -> usize {
        if self.has_half_a_batch() { self.decoder.missing() as usize } else { LINE_BYTES as usize }
    }

    /// Whether part of a batch lies in the run.
    pub fn has_half_a_batch(&self) -> bool {
        self.written > self.filled
    }
}
