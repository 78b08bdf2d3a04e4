//! One writer's lane: its ring, its extents, and what the sequencer says of both. A receive core and an attached publisher stand on
//! it alike; what they differ in is where the bytes come from, and how long they need them.
//!
//! Invariants:
//! 1. A slot is published into room that was looked for. [`Appender::has_room`] asks the sequencer only if the ring looks full.
//! 2. An extent is closed once nothing is received into it, and its writer needs nothing that lies there ([`Appender::refresh`]): by a slot, so
//!    that the sequencer has seen all that names bytes in it.
//! 3. What a slot points at was written back and fenced before.

use crate::log::View;
use crate::log::blog::{Blog, Run};
use crate::log::commit::CommitReader;
use crate::log::cursors::{CURSOR_SPEC_BYTES, write_request};
use crate::log::grants::GrantReader;
use crate::log::lane::LaneWriter;
use crate::log::topics::{SPEC_BYTES, Topic, write_spec};
use crate::order::Origin;
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, CursorLine, LaneProgress, slot_kind};
use crate::wire::frame::BatchHeader;
use crate::wire::padded;

/// Slots that stay free when extents are closed: a writer that looked for room finds it.
const CLOSING_ROOM_MIN: u64 = 16;

/// See the head of the file.
pub struct Appender<M> {
    view: View<M>,
    commit: CommitReader<M>,
    ring: LaneWriter<M>,
    blog: Blog<M>,
    grants: GrantReader<M>,
    /// A request found no memory to lie in, and none was given back since: whoever asks waits for some.
    is_denied: bool,
}

impl<M: Memory> Appender<M> {
    /// Takes a lane over. The caller holds the host lock of its broker, or of its place.
    pub fn take(view: &View<M>, lane: u32) -> Self {
        let commit = CommitReader::new(view);
        let mut ring = LaneWriter::take(view, lane);
        ring.refresh(&commit);
        let blog = Blog::take(view, lane, ring.produced());
        let grants = GrantReader::new(view, lane, ring.taken());
        Appender { view: view.clone(), commit, ring, blog, grants, is_denied: false }
    }

    /// Slots produced, ever.
    #[inline]
    pub fn produced(&self) -> u64 {
        self.ring.produced()
    }
    /// Where the next slot is: what a session is found by that it asks for.
    pub fn next_origin(&self) -> Origin {
        self.ring.next_origin()
    }
    /// What the sequencer last said: consumed, settled, given up.
    pub fn progress(&self) -> &LaneProgress {
        self.ring.progress()
    }
    /// Slots free, as far as was heard.
    pub fn room(&self) -> u64 {
        self.ring.room()
    }
    /// Extents in hand, the one that runs are cut from not counted.
    pub fn free_extents(&self) -> u64 {
        self.blog.free_extents()
    }

    /// Bytes that it would have if all lanes of brokers shared the pool evenly.
    pub fn even_share_bytes(&self) -> u64 {
        self.view.layout.blog_bytes() / u64::from(self.view.layout.geometry.broker_lanes())
    }

    /// Learns what the sequencer has consumed and granted, and closes what is done with. Nothing is closed of which slots from `kept_from` on are part
    /// ([`u64::MAX`]: the writer needs none). True if anything moved.
    pub fn refresh(&mut self, kept_from: u64) -> bool {
        let mut moved = self.ring.refresh(&self.commit);
        let taken = self.grants.taken();
        while let Some(grant) = self.grants.take(&self.commit) {
            self.blog.give(grant);
        }
        if self.grants.taken() > taken {
            // Before any of them is begun: whoever has the lane next takes anew only what was not.
            self.ring.report_taken(self.blog.free_extents(), self.grants.taken());
            (moved, self.is_denied) = (true, false);
        }
        if let Some(hand) = self.ring.progress().recall.checked_sub(1) {
            self.blog.keep_at_most(hand, self.ring.produced());
        }
        moved | self.close_done(kept_from)
    }

    /// Closes all that it has of which nobody holds a run, as far as the ring takes it.
    pub fn leave(&mut self) {
        self.ring.leave();
        self.refresh(u64::MAX);
        self.blog.keep_at_most(0, self.ring.produced());
        self.close_done(u64::MAX);
        self.report(false);
    }

    /// Closes what is done with, as far as the ring has room that nobody counts on.
    fn close_done(&mut self, kept_from: u64) -> bool {
        let mut moved = false;
        while self.ring.room() > CLOSING_ROOM_MIN
            && let Some(closed) = self.blog.close(kept_from, self.ring.produced())
        {
            let blog_at = self.view.layout.extent(closed.extent);
            let (kind, batch_seq) = (slot_kind::EXTENT_CLOSE, closed.grant);
            self.ring.publish(&BatchSlot { kind, batch_seq, blog_at, ..BatchSlot::default() });
            moved = true;
        }
        moved
    }

    /// Whether the ring takes this many slots; asks the sequencer only if it looks full.
    #[inline]
    pub fn has_room(&mut self, slots: u64) -> bool {
        self.ring.room() >= slots || self.ring.refresh(&self.commit) && self.ring.room() >= slots
    }

    /// Whether a request was denied memory, and none was given back since.
    pub fn is_denied(&self) -> bool {
        self.is_denied
    }

    /// Tells the sequencer how many extents are free, and whether somebody waits for room.
    pub fn report(&mut self, is_waiting: bool) {
        self.ring.report(self.blog.free_extents(), self.grants.taken(), is_waiting);
    }

    /// Shows that whoever waits for room here lives.
    pub fn beat(&mut self) {
        self.ring.beat();
    }

    /// Cuts a run; see [`Blog::acquire`]. `None`: no extent is free.
    pub fn acquire(&mut self, needed: u64, wanted: u64) -> Option<Run> {
        self.blog.acquire(needed, wanted, self.ring.produced())
    }

    /// Takes a run back; see [`Blog::release`].
    pub fn release(&mut self, run: Run, published: u64, landed: u64) {
        self.blog.release(run, published, landed, self.ring.produced());
    }

    /// Whether the run's extent is waiting only for its runs.
    pub fn is_sealed(&self, run: &Run) -> bool {
        self.blog.is_sealed(run)
    }

    /// Publishes a slot; gives its number.
    #[inline]
    pub fn publish(&mut self, slot: &BatchSlot) -> u64 {
        self.ring.publish(slot)
    }

    /// Publishes the slot of a batch that lies at `at`, whose header had landed so long before it was received; gives the slot's number.
    #[inline]
    pub fn publish_batch(&mut self, header: &BatchHeader, at: u64, landing_ns: u32) -> u64 {
        self.ring.publish(&BatchSlot {
            kind: slot_kind::BATCH,
            topic: header.topic,
            session: header.session,
            session_epoch: header.session_epoch,
            message_count: header.message_count,
            batch_seq: header.batch_seq,
            blog_at: at,
            batch_bytes: header.frame_bytes() as u32,
            received_at: header.received_at,
            landing_ns,
            ..BatchSlot::default()
        })
    }

    /// Asks for a new session (0, epoch 1) on a topic that was created at an index position, or for the next epoch of one.
    pub fn ask_to_open(&mut self, session: u64, session_epoch: u32, topic: u32, created_position: u64) -> u64 {
        let (kind, batch_seq) = (slot_kind::SESSION_OPEN, created_position);
        self.ring.publish(&BatchSlot { kind, topic, session, session_epoch, batch_seq, ..BatchSlot::default() })
    }

    /// Asks the sequencer to create a topic. `None`: no room now.
    pub fn ask_for_topic(&mut self, topic: &Topic) -> Option<u64> {
        let slot = BatchSlot { kind: slot_kind::TOPIC_CREATE, ..BatchSlot::default() };
        self.ask_with(SPEC_BYTES, slot, |view, at| write_spec(view, at, topic))
    }

    /// Passes a request about a cursor of a topic on to the sequencer. Gives the slot; `None`: no room now.
    pub fn ask_for_cursor(&mut self, kind: u8, topic: &Topic, cursor: &CursorLine) -> Option<u64> {
        let slot = BatchSlot { kind, topic: topic.id, batch_seq: topic.created_position, ..BatchSlot::default() };
        self.ask_with(CURSOR_SPEC_BYTES, slot, |view, at| write_request(view, at, cursor))
    }

    /// Publishes a request of which `bytes` lie in a run of their own, where `write` puts them.
    fn ask_with(&mut self, bytes: u64, slot: BatchSlot, write: impl FnOnce(&View<M>, u64)) -> Option<u64> {
        if !self.has_room(1) {
            return None;
        }
        let run = self.acquire(bytes, bytes);
        self.is_denied = run.is_none();
        let run = run?;
        write(&self.view, run.start);
        let slot = BatchSlot { blog_at: run.start, batch_bytes: padded(bytes) as u32, ..slot };
        let number = self.ring.publish(&slot);
        self.release(run, bytes, bytes);
        Some(number)
    }
}
