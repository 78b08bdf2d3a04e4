//! An attached publisher's lane: messages go into the blog in whole lines as they come, batches are published where they lie. No I/O
//! and no clock of its own, so that tests drive it on simulated memory.
//!
//! Invariants:
//! 1. An open batch has a place in the ring and in the window: sealing it never waits.
//! 2. A batch that is not acked keeps its bytes: no extent is taken back beyond the oldest such batch's slot. So what was fenced or
//!    let go can be published again from where it lies.
//! 3. A batch is sent again as a copy in a fresh run: the extent it lay in may be closed at a slot below the new one.

use std::collections::VecDeque;
use std::time::Instant;

use crate::client::attached::stage::Stage;
use crate::client::numbers::{BatchSeq, Order};
use crate::client::progress::AckedBatch;
use crate::crc::Crc;
use crate::limits::{LINE_BYTES, MESSAGE_ALIGNMENT_BYTES, RUN_BYTES_MIN};
use crate::log::View;
use crate::log::appender::Appender;
use crate::log::blog::Run;
use crate::log::recover::RecoverError;
use crate::log::session::{SessionFollower, Standing};
use crate::log::topics::Topic;
use crate::observe::counters::ReceiveCounters;
use crate::order::Origin;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::pool::{Keep, Memory};
use crate::wire::frame::{self, BatchHeader};
use crate::wire::message::message_bytes;
use crate::wire::{AckLevel, Receipts, padded};

/// Batches up to this size that were sealed before they were half full stay in this host's cache: somebody waits for them, and is not made
/// to fetch them from memory.
const CACHED_BYTES: u64 = 4 << 10;
/// Slots kept for a request to open or close beside the open batch.
const CONTROL_SLOTS: u64 = 1;

/// Bounds of a writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Size at which a batch is sealed, bytes, whole lines.
    pub batch_bytes: u64,
    /// Largest batch, bytes: a single large message may use it.
    pub batch_bytes_max: u64,
    pub batch_messages: u32,
    /// Most batches published and not acked.
    pub window_batches: usize,
    /// Whether lines are worth keeping in this host's cache.
    pub keep: Keep,
}

/// The two clocks, as the caller read them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub now: Instant,
    pub utc_ns: u64,
}

/// The batch that takes messages.
struct Open {
    at: u64,
    /// Most bytes it may have, header and padding included.
    bytes_max: u64,
    body_bytes: u64,
    messages: u32,
    payload_bytes: u64,
    crc: Crc,
    /// Body bytes summed and in the pool; the rest is on the stage.
    moved_bytes: u64,
    opened_at: Instant,
    created_at: u64,
}

/// A batch published and not acked.
#[derive(Clone, Copy)]
struct InFlight {
    number: u64,
    slot: u64,
    at: u64,
    bytes: u64,
    first_message: u64,
    messages: u32,
    payload_bytes: u64,
    sealed_at: Instant,
}

/// The session that is published to.
struct Session<M> {
    /// The slot that asked for it.
    asked: Origin,
    /// Epoch that batches are stamped with.
    epoch: u32,
    topic: u32,
    /// Index position of the topic's creation.
    created_position: u64,
    /// Batches are acked once they are in the blog: order level 0.
    acks_landed: bool,
    next_number: u64,
    follower: SessionFollower<M>,
    /// The next epoch was asked for.
    is_reopening: bool,
}

impl<M: Memory> Session<M> {
    /// Its id; 0 before it is open.
    fn id(&self) -> u64 {
        self.follower.session()
    }
}

/// See the head of the file.
pub(crate) struct Writer<M> {
    view: View<M>,
    lane: Appender<M>,
    bounds: Bounds,
    session: Option<Session<M>>,
    /// Whether each message is stamped with the time of receipt.
    stamps: bool,
    run: Option<Run>,
    /// Bytes of the run that hold published batches.
    used: u64,
    open: Option<Open>,
    stage: Stage,
    in_flight: VecDeque<InFlight>,
    /// Numbers from here on, of those in flight, are published again.
    resend_from: Option<u64>,
    acked: VecDeque<AckedBatch>,
    messages_sent: u64,
    messages_acked: u64,
    bytes_acked: u64,
    resent_batches: u64,
    let_go: u64,
    fences: u64,
    counters: ReceiveCounters,
}

impl<M: Memory> Writer<M> {
    /// Takes a lane over, whose place the caller holds.
    pub fn take(view: &View<M>, lane: u32, bounds: Bounds) -> Self {
        Writer {
            view: view.clone(),
            lane: Appender::take(view, lane),
            bounds,
            session: None,
            stamps: false,
            run: None,
            used: 0,
            open: None,
            stage: Stage::new(),
            in_flight: VecDeque::with_capacity(bounds.window_batches),
            resend_from: None,
            acked: VecDeque::with_capacity(bounds.window_batches),
            messages_sent: 0,
            messages_acked: 0,
            bytes_acked: 0,
            resent_batches: 0,
            let_go: 0,
            fences: 0,
            counters: ReceiveCounters::default(),
        }
    }

    /// Asks the sequencer to create a topic. False: no room now.
    pub fn ask_for_topic(&mut self, topic: &Topic) -> bool {
        self.lane.ask_for_topic(topic).is_some()
    }

    /// Asks for a session on a topic. False: no room now.
    pub fn ask_for_session(&mut self, topic: &Topic, ack: AckLevel) -> bool {
        if !self.lane.has_room(1) {
            return false;
        }
        let asked = self.lane.next_origin();
        let session = Session {
            asked,
            epoch: 1,
            topic: topic.id,
            created_position: topic.created_position,
            acks_landed: topic.order as u8 == 0 || ack == AckLevel::None,
            next_number: 0,
            // Before the request: whatever comes of it lies behind the follower's beginning.
            follower: SessionFollower::new(&self.view, asked),
            is_reopening: false,
        };
        self.lane.ask_to_open(session.id(), session.epoch, session.topic, session.created_position);
        self.stamps = topic.receipts == Receipts::Message;
        self.session = Some(session);
        true
    }

    /// What has become of the session.
    pub fn standing(&self) -> Standing {
        self.session.as_ref().map_or(Standing::Asked, |session| session.follower.standing())
    }

    /// Session id; 0 before it is open.
    pub fn session(&self) -> u64 {
        self.session.as_ref().map_or(0, Session::id)
    }

    /// Largest payload that a batch can hold, bytes.
    #[inline]
    pub fn payload_bytes_max(&self) -> u64 {
        self.bounds.batch_bytes_max - LINE_BYTES - message_bytes(0)
    }

    /// Takes a message, of at most [`Self::payload_bytes_max`]. False: no room now; nothing was taken.
    #[inline]
    pub fn push(&mut self, payload: &[u8], times: impl Fn() -> Times) -> bool {
        let bytes = message_bytes(payload.len() as u64);
        let messages_max = self.bounds.batch_messages;
        let fits = |open: &Open| LINE_BYTES + open.body_bytes + bytes <= open.bytes_max && open.messages < messages_max;
        if !self.open.as_ref().is_some_and(fits) && !self.next_batch(bytes, &times) {
            return false;
        }
        let open = self.open.as_mut().expect("begun above");
        let stamp = if self.stamps { times().utc_ns } else { 0 };
        let header = [payload.len() as u64 | u64::from(self.stamps) << 32, stamp];
        if !self.stage.put_message(header, payload) {
            open.put_large(&mut self.stage, &self.view.memory, header, payload);
        }
        open.body_bytes += bytes;
        open.messages += 1;
        open.payload_bytes += payload.len() as u64;
        self.messages_sent += 1;
        if self.stage.is_full() {
            open.move_lines(&mut self.stage, &self.view.memory);
        }
        // Batches of equal messages go out when they are full, not when the next message finds no room.
        if LINE_BYTES + open.body_bytes + bytes > open.bytes_max {
            self.seal(&times);
        }
        true
    }

    /// Publishes the open batch and begins the next with room for a message of `bytes`. Once a batch: out of the way of the rest.
    #[cold]
    #[inline(never)]
    fn next_batch(&mut self, bytes: u64, times: &impl Fn() -> Times) -> bool {
        self.seal(times);
        self.begin(LINE_BYTES + padded(bytes), times)
    }

    /// Begins a batch with room for a message of `needed` bytes, header included.
    fn begin(&mut self, needed: u64, times: &impl Fn() -> Times) -> bool {
        if self.standing() != Standing::Open || self.resend_from.is_some() {
            return false;
        }
        if self.in_flight.len() >= self.bounds.window_batches {
            return false;
        }
        if !self.lane.has_room(1 + CONTROL_SLOTS) {
            self.counters.ring_full += 1;
            return false;
        }
        // The rest of a run is used down to half a batch.
        let wanted = needed.max(self.bounds.batch_bytes / 2);
        if self.run.as_ref().is_none_or(|run| run.bytes - self.used < wanted) && !self.fresh_run(wanted) {
            self.counters.extent_wait += 1;
            return false;
        }
        let run = self.run.as_ref().expect("looked at above");
        self.stage.clear();
        let Times { now, utc_ns } = times();
        self.open = Some(Open {
            at: run.start + self.used,
            bytes_max: self.bounds.batch_bytes.max(needed).min(run.bytes - self.used),
            body_bytes: 0,
            messages: 0,
            payload_bytes: 0,
            crc: Crc::default(),
            moved_bytes: 0,
            opened_at: now,
            created_at: utc_ns,
        });
        true
    }

    /// Whether the ring has this many slots free beside the one that the open batch was promised: several fences in a row must not
    /// use that up, since a batch once begun is published without another look.
    fn has_slots_beside(&mut self, slots: u64) -> bool {
        let promised = u64::from(self.open.is_some());
        self.lane.has_room(slots + promised)
    }

    fn fresh_run(&mut self, needed: u64) -> bool {
        if let Some(run) = self.run.take() {
            self.lane.release(run, self.used, self.used);
            self.used = 0;
        }
        let whole = self.view.layout.geometry.extent_bytes;
        self.run = self.acquire(needed, whole);
        self.lane.report(false);
        self.run.is_some()
    }

    fn acquire(&mut self, needed: u64, wanted: u64) -> Option<Run> {
        if self.lane.free_extents() < 2 {
            self.reclaim();
        }
        self.lane.acquire(needed, wanted)
    }

    /// Takes extents back that nobody needs any more, ourselves included (invariant 2).
    fn reclaim(&mut self) {
        self.lane.refresh(self.in_flight.iter().map(|batch| batch.slot).min().unwrap_or(u64::MAX));
    }

    /// Publishes the open batch, if there is one.
    #[inline(never)]
    pub fn seal(&mut self, times: &impl Fn() -> Times) {
        let Some(mut open) = self.open.take() else { return };
        let session = self.session.as_mut().expect("a batch is of a session");
        let memory = &self.view.memory;
        let is_cached = open.body_bytes <= CACHED_BYTES.min(self.bounds.batch_bytes / 2);
        open.move_rest(&mut self.stage, memory, is_cached.then_some(self.bounds.keep));
        let Times { now, utc_ns } = times();
        let header = BatchHeader {
            body_bytes: open.body_bytes as u32,
            message_count: open.messages,
            session: session.id(),
            batch_seq: session.next_number,
            created_at: open.created_at,
            session_epoch: session.epoch,
            topic: session.topic,
            received_at: utc_ns,
            body_crc: open.crc.value(),
            ..BatchHeader::default()
        };
        let bytes = header.frame_bytes();
        memory.copy_in(open.at, &frame::seal(&header));
        memory.write_back(open.at, LINE_BYTES, self.bounds.keep);
        memory.store_fence();
        let slot = self.lane.publish_batch(&header, open.at, 0);
        session.next_number += 1;
        self.used += bytes;
        self.counters.published_batches += 1;
        self.counters.published_messages += u64::from(open.messages);
        self.counters.published_bytes += bytes;
        self.in_flight.push_back(InFlight {
            number: header.batch_seq,
            slot,
            at: open.at,
            bytes,
            first_message: self.messages_sent - u64::from(open.messages),
            messages: open.messages,
            payload_bytes: open.payload_bytes,
            sealed_at: now,
        });
        if self.session.as_ref().is_some_and(|session| session.acks_landed) {
            self.settle(u64::MAX, 0);
        }
    }

    /// Hears what the sequencer did, and does what that asks for. Gives how many things moved.
    ///
    /// # Errors
    /// What is damaged in the pool.
    pub fn follow(&mut self) -> Result<usize, RecoverError> {
        let Some(session) = &mut self.session else { return Ok(0) };
        let mut moved = session.follower.follow()?;
        if !session.acks_landed && moved > 0 {
            let (next, end) = (session.follower.committed_next(), session.follower.order_end());
            self.settle(next, end);
        }
        moved += self.mend_session();
        Ok(moved)
    }

    /// Everything below `next` is acked.
    fn settle(&mut self, next: u64, order_end: u64) {
        while let Some(batch) = self.in_flight.front().filter(|batch| batch.number < next) {
            self.messages_acked += u64::from(batch.messages);
            self.bytes_acked += batch.payload_bytes;
            if self.acked.len() == self.acked.capacity() {
                self.acked.pop_front();
            }
            self.acked.push_back(AckedBatch {
                batch_seq: BatchSeq(batch.number),
                first_message: batch.first_message,
                messages: batch.messages,
                bytes: batch.payload_bytes,
                sealed_at: batch.sealed_at,
                order_end: Order(order_end),
            });
            self.in_flight.pop_front();
        }
    }

    /// Opens the next epoch of a fenced session; publishes again what was fenced or let go.
    fn mend_session(&mut self) -> usize {
        let has_slot = self.has_slots_beside(CONTROL_SLOTS);
        let Some(session) = &mut self.session else { return 0 };
        let mut moved = 0;
        match session.follower.standing() {
            Standing::Fenced if !session.is_reopening && has_slot => {
                session.epoch = session.follower.epoch() + 1;
                session.is_reopening = true;
                self.fences += 1;
                session.follower.ask_again(self.lane.next_origin());
                self.lane.ask_to_open(session.id(), session.epoch, session.topic, session.created_position);
                moved += 1;
            }
            Standing::Open if session.is_reopening && session.follower.epoch() >= session.epoch => {
                session.epoch = session.follower.epoch();
                session.is_reopening = false;
                self.resend_from = Some(session.follower.committed_next());
                moved += 1;
            }
            _ => {}
        }
        if let Some(from) = session.follower.take_let_go() {
            self.let_go += 1;
            self.resend_from = Some(self.resend_from.map_or(from, |before| before.min(from)));
        }
        moved + self.resend()
    }

    /// Publishes copies of batches in flight, as far as there is room.
    fn resend(&mut self) -> usize {
        let mut moved = 0;
        while let Some(from) = self.resend_from.filter(|_| self.standing() == Standing::Open) {
            let Some(index) = self.in_flight.iter().position(|batch| batch.number >= from) else {
                self.resend_from = None;
                return moved + 1;
            };
            let batch = self.in_flight[index];
            if !self.has_slots_beside(1 + CONTROL_SLOTS) {
                return moved;
            }
            let Some(run) = self.acquire(batch.bytes, batch.bytes.max(RUN_BYTES_MIN)) else { return moved };
            let slot = self.copy_again(&batch, run.start);
            let in_flight = &mut self.in_flight[index];
            (in_flight.slot, in_flight.at) = (slot, run.start);
            self.lane.release(run, batch.bytes, batch.bytes);
            self.resend_from = Some(batch.number + 1);
            self.resent_batches += 1;
            moved += 1;
        }
        moved
    }

    /// Publishes a batch that lies at its old place once more, from a new one, under the session's epoch of now.
    fn copy_again(&mut self, batch: &InFlight, at: u64) -> u64 {
        let memory = &self.view.memory;
        let old: BatchHeader = memory.with_bytes(batch.at, LINE_BYTES, bytemuck::pod_read_unaligned);
        let epoch = self.session.as_ref().map_or(old.session_epoch, |session| session.epoch);
        let header = BatchHeader { session_epoch: epoch, ..old };
        memory.copy_within(batch.at, at, batch.bytes);
        memory.copy_in(at, &frame::seal(&header));
        memory.write_back(at, batch.bytes, self.bounds.keep);
        memory.store_fence();
        self.lane.publish_batch(&header, at, 0)
    }

    /// Tells the sequencer how much room this lane has, and whether a message waits for it.
    pub fn report(&mut self, is_waiting: bool) {
        self.reclaim();
        self.counters.free_extents = self.lane.free_extents();
        // The sequencer gives memory up for a lane that lacks it: what waits for the window alone asks for none.
        let is_short = self.lane.free_extents() == 0 || self.lane.room() <= CONTROL_SLOTS;
        self.lane.report(is_waiting && is_short);
    }

    /// Shows that somebody waits here.
    pub fn beat(&mut self) {
        self.lane.beat();
    }

    /// Asks for the session's end. False: no room now.
    pub fn ask_to_close(&mut self) -> bool {
        let Some(session) = &self.session else { return true };
        let (kind, topic) = (slot_kind::SESSION_CLOSE, session.topic);
        // One whose id is not known yet is named by the slot that asked for it.
        let (id, batch_seq) = (session.id(), session.asked.slot);
        let has_slot = self.has_slots_beside(CONTROL_SLOTS);
        if has_slot {
            self.lane.publish(&BatchSlot { kind, topic, session: id, batch_seq, ..BatchSlot::default() });
        }
        has_slot
    }

    /// Gives back what memory it has, as far as the ring takes that: nothing is sent any more. What is left is closed by whoever has the place next.
    pub fn retire(&mut self) {
        if let Some(run) = self.run.take() {
            let open_bytes = self.open.take().map_or(0, |open| LINE_BYTES + open.body_bytes);
            self.lane.release(run, self.used, self.used + open_bytes);
        }
        self.lane.leave();
    }

    /// When the open batch took its first message.
    pub fn open_since(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.opened_at)
    }
    /// Batches published and not acked.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
    /// Messages taken, and messages and payload bytes acked.
    pub fn totals(&self) -> (u64, u64, u64) {
        (self.messages_sent, self.messages_acked, self.bytes_acked)
    }
    /// Batches published again, let-gos heard, fences.
    pub fn rarities(&self) -> (u64, u64, u64) {
        (self.resent_batches, self.let_go, self.fences)
    }
    /// What it has counted.
    pub fn counters(&self) -> &ReceiveCounters {
        &self.counters
    }
    /// Publishes the oldest batch in flight under a number far ahead, as a writer with a fault would: a gap.
    #[cfg(test)]
    pub fn forge_a_gap(&mut self) {
        let at = self.in_flight.front().expect("one is in flight").at;
        let header: BatchHeader = self.view.memory.with_bytes(at, LINE_BYTES, bytemuck::pod_read_unaligned);
        self.lane.publish_batch(&BatchHeader { batch_seq: header.batch_seq + 50, ..header }, at, 0);
    }
    /// The next batch acked since the last call.
    pub fn pop_acked(&mut self) -> Option<AckedBatch> {
        self.acked.pop_front()
    }
}

impl Open {
    /// Sums up what is on the stage and moves it into the pool, in whole lines only, so that none is written twice.
    #[inline(never)]
    fn move_lines<M: Memory>(&mut self, stage: &mut Stage, memory: &M) {
        let at = self.at + LINE_BYTES + self.moved_bytes;
        stage.take_lines(|lines| {
            self.crc.update(lines);
            memory.stream_in(at, lines);
            self.moved_bytes += lines.len() as u64;
        });
    }

    /// The rest of it, with zeros up to a line; past the caches unless it is said how to write it back.
    fn move_rest<M: Memory>(&mut self, stage: &mut Stage, memory: &M, keep: Option<Keep>) {
        let at = self.at + LINE_BYTES + self.moved_bytes;
        stage.take_all(|bytes, lines| {
            self.crc.update(bytes);
            memory.write_lines(at, lines, keep);
        });
    }

    /// Puts a message on the stage for which that has no room, piece by piece.
    #[cold]
    #[inline(never)]
    fn put_large<M: Memory>(&mut self, stage: &mut Stage, memory: &M, header: [u64; 2], payload: &[u8]) {
        let padding = payload.len().next_multiple_of(MESSAGE_ALIGNMENT_BYTES as usize) - payload.len();
        for mut part in [bytemuck::bytes_of(&header), payload, &[0; MESSAGE_ALIGNMENT_BYTES as usize][..padding]] {
            while !part.is_empty() {
                part = stage.put(part);
                if stage.is_full() {
                    self.move_lines(stage, memory);
                }
            }
        }
    }
}
