//! From landed bytes to a published slot: the part of receiving that touches the pool. No I/O.
//!
//! Taking a batch in: its header is checked and a place for all of it found; then, piece by piece, while a piece is in the nearest cache,
//! framing and sum are checked, receipts stamped, and it goes to its place past the caches. Publishing it: the sum is right, the header is
//! written with the receipt, fenced, the slot published. A reader that sees the slot sees every byte, receipt included, by construction;
//! what was not whole and sound has no header in the pool.

use crate::crc::Crc;
use crate::limits::{LINE_BYTES, MESSAGE_HEADER_BYTES};
use crate::log::View;
use crate::log::appender::Appender;
use crate::log::topics::Topic;
use crate::observe::counters::ReceiveCounters;
use crate::observe::histogram::Histogram;
use crate::observe::timeline::between;
use crate::order::Origin;
use crate::pool::record::BatchSlot;
use crate::pool::{Keep, Memory};
use crate::roles::receive::stream::{Stream, Terms};
use crate::wire::decoder::{Begun, PIECE_BYTES};
use crate::wire::frame::{self, BatchHeader};
use crate::wire::message::{message_bytes, read_header};
use crate::wire::{Receipts, Refusal, WireError};

const LINE: usize = LINE_BYTES as usize;

/// Batches up to this size that came whole stay in this host's cache: somebody waits for them, and is not made to fetch them from memory.
const CACHED_BYTES: u64 = 4 << 10;

/// A lane with its blog: everything a receive core writes in the pool.
pub struct Ingest<M> {
    view: View<M>,
    /// Ring and extents.
    pub lane: Appender<M>,
    keep: Keep,
    /// What it has counted.
    pub counters: ReceiveCounters,
    /// From landed to published, and where it lies in the pool.
    publishing: Histogram,
    publishing_at: u64,
}

/// What a stream needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes.
    Receive,
    /// Slots in the ring, or memory for a batch; TCP pushes back until then.
    Room,
    /// The peer said goodbye.
    Goodbye,
}

/// Why a stream is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Its bytes break the protocol.
    Wire(WireError),
    /// A batch names another session, topic or number than it must.
    Refused(Refusal, u64, String),
}

impl<M: Memory> Ingest<M> {
    /// Takes a lane over. The caller holds the host lock of its broker.
    pub fn take(view: &View<M>, lane: u32, keep: Keep) -> Self {
        Ingest {
            view: view.clone(),
            lane: Appender::take(view, lane),
            keep,
            counters: ReceiveCounters::default(),
            publishing: Histogram::default(),
            publishing_at: view.layout.publish_histogram(lane),
        }
    }

    /// Copies out how long publishing took.
    pub fn write_times(&mut self) {
        self.publishing.write(&self.view.memory, self.publishing_at);
        self.view.memory.store_fence();
    }

    /// Learns what the sequencer has consumed and given back. True if anything moved.
    pub fn refresh(&mut self) -> bool {
        self.lane.refresh(u64::MAX)
    }

    /// Gives all memory back of which no stream has a run.
    pub fn leave(&mut self) {
        self.lane.leave();
    }

    /// Reports this lane's room to the sequencer.
    pub fn report(&mut self, paused: bool) {
        self.counters.free_extents = self.lane.free_extents();
        self.lane.report(paused);
    }

    /// Takes in the whole lines of what has landed, a batch's place after the other, and publishes every batch that is complete. Gives how many
    /// bytes it took: what it leaves comes again. Runs are no longer than `run_bytes_max` unless a batch is. That something has come is known since
    /// `landed_at`; `clock` tells the time of day: both UTC, ns.
    pub fn take_in(
        &mut self,
        stream: &mut Stream,
        landed: &mut [u8],
        run_bytes_max: u64,
        landed_at: u64,
        clock: &mut impl FnMut() -> u64,
    ) -> Result<(usize, Next), StreamError> {
        let (mut taken, whole) = (0, landed.len() - landed.len() % LINE);
        while taken < whole {
            let lines = &mut landed[taken..whole];
            let Some(header) = stream.decoder.header().copied() else {
                let line = lines.first_chunk().expect("there is a line");
                taken += LINE;
                match stream.decoder.begin(line).map_err(StreamError::Wire)? {
                    // It was heard when it landed.
                    Begun::Heartbeat => {}
                    Begun::Goodbye => return Ok((taken, Next::Goodbye)),
                    Begun::Batch(header) => check_identity(&stream.terms, &header)?,
                }
                stream.landed_at = landed_at;
                continue;
            };
            if !self.has_place(stream, &header, run_bytes_max) {
                return Ok((taken, Next::Room));
            }
            let missing = stream.decoder.missing() as usize;
            if lines.len() >= missing && !self.has_room() {
                return Ok((taken, Next::Room));
            }
            let lines = &mut lines[..missing.min(PIECE_BYTES).min(whole - taken)];
            // A batch is waited for, not a part of one.
            let is_small = header.frame_bytes() <= CACHED_BYTES && lines.len() == missing;
            let cached = (is_small && self.keep == Keep::Cached).then_some(Keep::Cached);
            self.take_piece(stream, lines, cached, landed_at)?;
            taken += lines.len();
            if stream.decoder.missing() == 0 {
                self.publish(stream, &header, cached, clock());
            }
        }
        Ok((taken, Next::Receive))
    }

    /// Checks a piece of the batch under way while it is in the nearest cache, and writes it to its place.
    fn take_piece(
        &mut self,
        stream: &mut Stream,
        piece: &mut [u8],
        cached: Option<Keep>,
        now_utc_ns: u64,
    ) -> Result<(), StreamError> {
        let (message, start) = stream.decoder.next_message();
        stream.decoder.take(piece).map_err(StreamError::Wire)?;
        if stream.terms.receipts == Receipts::Message {
            let body_bytes = stream.decoder.header().map_or(0, |header| u64::from(header.body_bytes));
            let body = piece.len().min((body_bytes - start) as usize);
            stamp_messages(&mut piece[..body], (message - start) as usize, now_utc_ns);
            stream.stamped.update(&piece[..body]);
        }
        let run = stream.run.as_ref().expect("it has a place");
        self.view.memory.write_lines(run.start + stream.written, piece, cached);
        stream.written += piece.len() as u64;
        Ok(())
    }

    /// Writes the header, fences, publishes.
    fn publish(&mut self, stream: &mut Stream, header: &BatchHeader, cached: Option<Keep>, now_utc_ns: u64) {
        let header = BatchHeader { received_at: now_utc_ns, ..*header };
        let line = match stream.terms.receipts {
            Receipts::Batch => bytemuck::cast(header),
            Receipts::Message => frame::seal(&BatchHeader { body_crc: stream.stamped.value(), ..header }),
        };
        let at = stream.run.as_ref().expect("it has a place").start + stream.filled;
        self.view.memory.write_lines(at, &line, cached);
        self.view.memory.store_fence();
        let landing_ns = between(stream.landed_at, now_utc_ns);
        self.publishing.record(landing_ns.into(), 1);
        self.lane.publish_batch(&header, at, landing_ns);
        self.counters.published_batches += 1;
        self.counters.published_messages += u64::from(header.message_count);
        self.counters.published_bytes += header.frame_bytes();
        if let Some(next) = &mut stream.terms.next_seq {
            *next += 1;
        }
        stream.filled = stream.written;
        stream.published += 1;
        stream.stamped = Crc::default();
        stream.decoder.reset();
    }

    /// Whether the ring takes another slot; counts if it does not.
    pub fn has_room(&mut self) -> bool {
        let has_room = self.lane.has_room(1);
        self.counters.ring_full += u64::from(!has_room);
        has_room
    }

    /// Whether something can be received of a stream: the ring has room, and a batch whose header has come its place.
    pub fn has_room_for(&mut self, stream: &mut Stream, run_bytes_max: u64) -> bool {
        let header = stream.decoder.header().copied();
        self.has_room() && header.is_none_or(|header| self.has_place(stream, &header, run_bytes_max))
    }

    /// Whether the batch under way has its place: behind the last one in the stream's run, or in a fresh run. False: no extent is free.
    fn has_place(&mut self, stream: &mut Stream, header: &BatchHeader, run_bytes_max: u64) -> bool {
        if stream.has_half_a_batch() {
            return true;
        }
        let bytes = header.frame_bytes();
        if stream.run.as_ref().is_none_or(|run| run.bytes - stream.filled < bytes) {
            // First of all it gives back what it has: streams that wait keep no memory that others wait for.
            if self.release_run(stream) {
                stream.run_bytes = (stream.run_bytes * 2).min(self.view.layout.geometry.extent_bytes);
            }
            stream.run = self.lane.acquire(bytes, stream.run_bytes.min(run_bytes_max).max(bytes));
        }
        match &stream.run {
            Some(_) => stream.written += LINE_BYTES,
            None => self.counters.extent_wait += 1,
        }
        stream.run.is_some()
    }

    /// Moves half a batch out of an extent that waits for it, if there is another.
    pub fn move_out(&mut self, stream: &mut Stream) {
        let bytes = stream.decoder.header().map_or(0, BatchHeader::frame_bytes);
        let Some(fresh) = self.lane.acquire(bytes, bytes) else { return };
        let half = stream.written - stream.filled;
        if let Some(old) = stream.run.take() {
            self.view.memory.copy_within(old.start + stream.filled, fresh.start, half);
            self.view.memory.write_back(fresh.start, half, Keep::Dropped);
            self.counters.moved_bytes += half;
            self.lane.release(old, stream.filled, stream.written);
        }
        (stream.filled, stream.written, stream.run) = (0, half, Some(fresh));
    }

    /// Takes a stream's run back. False: it had none.
    pub fn release_run(&mut self, stream: &mut Stream) -> bool {
        let run = stream.run.take();
        let had_one = run.is_some();
        run.into_iter().for_each(|run| self.lane.release(run, stream.filled, stream.written));
        (stream.filled, stream.written) = (0, 0);
        had_one
    }

    /// Largest batch taken, bytes.
    pub fn batch_bytes_max(&self) -> u64 {
        self.view.layout.geometry.batch_bytes_max()
    }

    /// Publishes a control slot. False: no room now.
    pub fn control(&mut self, slot: BatchSlot) -> bool {
        let has_place = self.place_to_ask().is_some();
        if has_place {
            self.lane.publish(&slot);
        }
        has_place
    }

    /// Where the next slot will be; `None`: no room now. The answer to what is asked there can come as soon as it is asked: whoever is to
    /// hear it is told of the place first.
    pub fn place_to_ask(&mut self) -> Option<Origin> {
        self.has_room().then(|| self.lane.next_origin())
    }

    /// Asks for a new session (0, epoch 1) on a topic, or for the next epoch of one. False: no room now.
    pub fn ask_to_open(&mut self, session: u64, session_epoch: u32, topic: &Topic) -> bool {
        let has_place = self.place_to_ask().is_some();
        if has_place {
            self.lane.ask_to_open(session, session_epoch, topic.id, topic.created_position);
        }
        has_place
    }
}

/// Stamps every message header in a piece of a body, the first of which begins at `at`: before anybody sees it.
fn stamp_messages(piece: &mut [u8], mut at: usize, now_utc_ns: u64) {
    while let Some(header) = piece.get_mut(at..at + MESSAGE_HEADER_BYTES as usize) {
        let payload_bytes = read_header(header).payload_bytes;
        header[..8].copy_from_slice(&(u64::from(payload_bytes) | 1 << 32).to_le_bytes());
        header[8..].copy_from_slice(&now_utc_ns.to_le_bytes());
        at += message_bytes(payload_bytes.into()) as usize;
    }
}

fn check_identity(terms: &Terms, header: &BatchHeader) -> Result<(), StreamError> {
    let refused = |refusal, detail, text| Err(StreamError::Refused(refusal, detail, text));
    if header.session != terms.session {
        let text = format!("batch of session {:#x} on a connection of session {:#x}", header.session, terms.session);
        return refused(Refusal::UnknownSession, 0, text);
    }
    if header.topic != terms.topic {
        let text = format!("batch for topic {}, the session's is {}", header.topic, terms.topic);
        return refused(Refusal::UnknownTopic, 0, text);
    }
    if header.session_epoch != terms.session_epoch {
        let text =
            format!("batch of session epoch {}, the connection's is {}", header.session_epoch, terms.session_epoch);
        return refused(Refusal::SessionEpoch, terms.session_epoch.into(), text);
    }
    match terms.next_seq {
        Some(next) if next != header.batch_seq => {
            let text = format!("batch {} where {next} comes next on this connection", header.batch_seq);
            refused(Refusal::Protocol, next, text)
        }
        _ => Ok(()),
    }
}
