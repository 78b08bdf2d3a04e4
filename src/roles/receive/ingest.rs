//! From landed bytes to a published slot: the part of receiving that touches the pool. No I/O.
//!
//! Publishing a batch: header and framing checked, CRC checked, receipt stamped, written back, fenced, slot published. A reader
//! that sees the slot sees every byte, receipt included, by construction.

use crate::limits::FRAME_HEADER_BYTES;
use crate::log::View;
use crate::log::appender::Appender;
use crate::log::blog::Run;
use crate::log::topics::Topic;
use crate::observe::counters::ReceiveCounters;
use crate::order::Origin;
use crate::pool::record::BatchSlot;
use crate::pool::{Keep, Memory};
use crate::roles::receive::stream::Stream;
use crate::wire::frame::{self, BatchHeader};
use crate::wire::message::{message_bytes, read_header};
use crate::wire::{Progress, Receipts, Refusal, WireError};

/// Room asked for a frame of which not even the header has landed, bytes.
pub const NEEDED_AT_LEAST: u64 = 4096;

/// A lane with its blog: everything a receive core writes in the pool.
pub struct Ingest<M> {
    view: View<M>,
    /// Ring and extents.
    pub lane: Appender<M>,
    keep: Keep,
    /// What it has counted.
    pub counters: ReceiveCounters,
}

/// What a stream needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes.
    Receive,
    /// Slots in the ring; TCP pushes back until then.
    RingRoom,
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
        Ingest { view: view.clone(), lane: Appender::take(view, lane), keep, counters: ReceiveCounters::default() }
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

    /// Walks what has landed and publishes every complete batch. Bounded by what one receive can land.
    pub fn publish_landed(&mut self, stream: &mut Stream, now_utc_ns: u64) -> Result<Next, StreamError> {
        loop {
            let Some(run) = &stream.run else { return Ok(Next::Receive) };
            let (start, bytes) = (run.start + stream.parsed, stream.landed - stream.parsed);
            if bytes == 0 {
                return Ok(Next::Receive);
            }
            // The frame under way lies in our run, behind it a receive may be armed only past `landed`.
            let decoder = &mut stream.decoder;
            let progress = self.view.memory.with_bytes(start, bytes, |landed| decoder.advance(landed));
            match progress.map_err(StreamError::Wire)? {
                Progress::NeedHeader => {
                    stream.needed = NEEDED_AT_LEAST;
                    return Ok(Next::Receive);
                }
                Progress::NeedBytes(needed) => {
                    stream.needed = needed;
                    return Ok(Next::Receive);
                }
                Progress::Goodbye => return Ok(Next::Goodbye),
                Progress::Heartbeat => {
                    // It was heard when its bytes landed; its place in the run belongs to no batch. If nothing lies behind it
                    // that place is landed in again: those who have nothing to say use up no memory.
                    // No dirty line of it is left to fall on the extent's next content.
                    self.view.memory.write_back(start, FRAME_HEADER_BYTES as u64, Keep::Dropped);
                    match bytes == FRAME_HEADER_BYTES as u64 {
                        true => stream.landed = stream.parsed,
                        false => stream.parsed += FRAME_HEADER_BYTES as u64,
                    }
                    stream.needed = NEEDED_AT_LEAST;
                    stream.decoder.reset();
                }
                Progress::Complete(header) => {
                    check_identity(stream, &header)?;
                    if !self.lane.has_room(1) {
                        self.counters.ring_full += 1;
                        return Ok(Next::RingRoom);
                    }
                    self.publish(stream, start, &header, now_utc_ns);
                    stream.parsed += header.frame_bytes();
                    stream.end_slot = self.lane.produced();
                    stream.needed = NEEDED_AT_LEAST;
                    stream.published += 1;
                    stream.decoder.reset();
                }
            }
        }
    }

    /// Stamps, writes back, fences, publishes.
    fn publish(&mut self, stream: &mut Stream, at: u64, header: &BatchHeader, now_utc_ns: u64) {
        if stream.receipts == Receipts::Message {
            self.stamp_messages(at, header, now_utc_ns);
        }
        self.view.memory.store(at + frame::RECEIVED_AT.start as u64, now_utc_ns);
        let bytes = header.frame_bytes();
        self.view.memory.write_back(at, bytes, self.keep);
        self.view.memory.store_fence();
        self.lane.publish_batch(&BatchHeader { received_at: now_utc_ns, ..*header }, at);
        self.counters.published_batches += 1;
        self.counters.published_messages += u64::from(header.message_count);
        self.counters.published_bytes += bytes;
        if let Some(next) = &mut stream.next_seq {
            *next += 1;
        }
    }

    /// Stamps every message header and seals the batch again: before the write-back, so that no reader sees a stale stamp.
    fn stamp_messages(&mut self, at: u64, header: &BatchHeader, now_utc_ns: u64) {
        let memory = &self.view.memory;
        let body = at + 64;
        let mut offset = 0;
        for _ in 0..header.message_count {
            let message = memory.with_bytes(body + offset, 16, read_header);
            // One line, one word each: a message header never straddles a line.
            memory.store(body + offset, u64::from(message.payload_bytes) | 1 << 32);
            memory.store(body + offset + 8, now_utc_ns);
            offset += message_bytes(message.payload_bytes.into());
        }
        let body_crc = memory.with_bytes(body, header.body_bytes.into(), crate::wire::crc32c);
        let sealed = frame::seal(&BatchHeader { body_crc, ..*header });
        memory.copy_in(at, &sealed);
    }

    /// Makes sure that the frame under way can be received: the room left in the run, a fresh run to which what has
    /// landed of the frame is moved, or its own run once more. False: no extent is free.
    pub fn make_room(&mut self, stream: &mut Stream, run_bytes_max: u64) -> bool {
        let enough = |run: &Run| {
            run.bytes - stream.parsed >= stream.needed && run.bytes - stream.landed >= stream.worth_a_receive()
        };
        if stream.run.as_ref().is_some_and(enough) {
            return true;
        }
        let is_busy = stream.run.is_some();
        if !self.move_to_fresh_run(stream, stream.run_bytes.min(run_bytes_max)) {
            if self.rewind(stream) {
                return true;
            }
            self.counters.extent_wait += 1;
            return false;
        }
        if is_busy {
            stream.run_bytes = (stream.run_bytes * 2).min(self.view.layout.geometry.extent_bytes);
        }
        true
    }

    /// Moves a half frame out of an extent that waits for it, if there is another. No receive is armed.
    pub fn move_out(&mut self, stream: &mut Stream) {
        self.move_to_fresh_run(stream, stream.needed);
    }

    fn move_to_fresh_run(&mut self, stream: &mut Stream, wanted: u64) -> bool {
        let Some(fresh) = self.lane.acquire(stream.needed, wanted.max(stream.needed)) else { return false };
        let partial = stream.landed - stream.parsed;
        if let Some(old) = stream.run.take() {
            if partial > 0 {
                self.view.memory.copy_within(old.start + stream.parsed, fresh.start, partial);
                self.counters.moved_bytes += partial;
            }
            self.lane.release(old, stream.parsed, stream.landed);
        }
        (stream.parsed, stream.landed, stream.end_slot, stream.run) = (0, partial, 0, Some(fresh));
        true
    }

    /// Begins a stream's run again, if all that was published from it may be overwritten. Without this, streams that have filled
    /// their runs could each keep an extent that another waits for.
    fn rewind(&mut self, stream: &mut Stream) -> bool {
        let (parsed, partial) = (stream.parsed, stream.landed - stream.parsed);
        let Some(run) = stream.run.as_ref() else { return false };
        if parsed == 0 || stream.needed > run.bytes || self.lane.progress().reusable < stream.end_slot {
            return false;
        }
        if partial > 0 {
            self.view.memory.copy_within(run.start + parsed, run.start, partial);
            // No dirty line is left where they lay: the next content may end before it.
            self.view.memory.write_back(run.start + parsed, partial, Keep::Dropped);
            self.view.memory.store_fence();
            self.counters.moved_bytes += partial;
        }
        (stream.parsed, stream.landed, stream.end_slot) = (0, partial, 0);
        true
    }

    /// Whether a stream's half batch cannot get on though nothing but half batches is left in this lane.
    pub fn is_stuck(&self, stream: &Stream) -> bool {
        stream.is_in_mid_frame()
            && self.lane.free_extents() == 0
            && self.lane.progress().reusable == self.lane.produced()
    }

    /// Takes a stream's run back. No receive is armed in it.
    pub fn release_run(&mut self, stream: &mut Stream) {
        if let Some(run) = stream.run.take() {
            self.lane.release(run, stream.parsed, stream.landed);
        }
        (stream.parsed, stream.landed, stream.end_slot) = (0, 0, 0);
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
        if !self.lane.has_room(1) {
            self.counters.ring_full += 1;
            return None;
        }
        Some(self.lane.next_origin())
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

fn check_identity(stream: &Stream, header: &BatchHeader) -> Result<(), StreamError> {
    let refused = |refusal, detail, text| Err(StreamError::Refused(refusal, detail, text));
    if header.session != stream.session {
        let text = format!("batch of session {:#x} on a connection of session {:#x}", header.session, stream.session);
        return refused(Refusal::UnknownSession, 0, text);
    }
    if header.topic != stream.topic {
        let text = format!("batch for topic {}, the session's is {}", header.topic, stream.topic);
        return refused(Refusal::UnknownTopic, 0, text);
    }
    if header.session_epoch != stream.session_epoch {
        let text =
            format!("batch of session epoch {}, the connection's is {}", header.session_epoch, stream.session_epoch);
        return refused(Refusal::SessionEpoch, stream.session_epoch.into(), text);
    }
    match stream.next_seq {
        Some(next) if next != header.batch_seq => {
            let text = format!("batch {} where {next} comes next on this connection", header.batch_seq);
            refused(Refusal::Protocol, next, text)
        }
        _ => Ok(()),
    }
}
