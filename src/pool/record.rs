//! The records that lie in one line of the pool: 56 bytes behind an 8-byte guard.

use bytemuck::{Pod, bytes_of, cast};

use crate::crc::crc32c;
use crate::described;
use crate::fields::Described;

/// Words of a line behind its guard.
pub const BODY_WORDS: usize = 7;

/// A plain record of exactly seven words.
pub trait Record: Described {
    /// As words.
    #[inline]
    fn words(&self) -> [u64; BODY_WORDS] {
        const { assert!(size_of::<Self>() == 8 * BODY_WORDS) };
        cast(*self)
    }
    /// From words.
    #[inline]
    fn from_words(words: [u64; BODY_WORDS]) -> Self {
        const { assert!(size_of::<Self>() == 8 * BODY_WORDS) };
        cast(words)
    }
}

/// A record that carries a check over all its words: one bit of it that turned is noticed, where every value of a word is one that a
/// writer could have put there. The check is made as the record becomes words; in memory of our own it is 0.
///
/// It says something of a line with a valid guard only: a publication that was cut short has words of two versions.
pub trait Checked: Record {
    /// Where the check lies.
    fn check_mut(&mut self) -> &mut u32;
    /// Without its check, as it is compared and changed.
    fn unsealed(mut self) -> Self {
        *self.check_mut() = 0;
        self
    }
    /// With its check, as it lies in the pool.
    fn sealed(self) -> Self {
        let mut sealed = self.unsealed();
        *sealed.check_mut() = crc32c(bytes_of(&sealed));
        sealed
    }
}

macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        described! { $(#[$meta])* pub struct $name: 56 { $($body)* } }
        impl Record for $name {}
        impl Default for $name {
            fn default() -> Self { bytemuck::Zeroable::zeroed() }
        }
    };
}

/// A record whose field `check` is a [`Checked`] one.
macro_rules! checked_record {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        described! { $(#[$meta])* pub struct $name: 56 { $($body)* } }
        impl Record for $name {
            fn words(&self) -> [u64; BODY_WORDS] { cast(self.sealed()) }
        }
        impl Checked for $name {
            fn check_mut(&mut self) -> &mut u32 { &mut self.check }
        }
        impl Default for $name {
            fn default() -> Self { bytemuck::Zeroable::zeroed() }
        }
    };
}

const _: fn() = || {
    fn records_are_plain<T: Record + Pod>() {}
    records_are_plain::<BatchSlot>();
};

/// Kinds of lane slots.
pub mod slot_kind {
    /// A batch in the blog.
    pub const BATCH: u8 = 1;
    /// Open a session (`session` 0, epoch 1) on the topic `topic` that was created at index position `batch_seq`, or reopen it at the next
    /// epoch. A session that opens has the id of its entry, which is found by this slot.
    pub const SESSION_OPEN: u8 = 2;
    /// Close a session; if `session` is 0, the one that slot `batch_seq` of this lane asked for.
    pub const SESSION_CLOSE: u8 = 3;
    /// Create a topic; the blog holds its `TopicSpec`.
    pub const TOPIC_CREATE: u8 = 4;
    /// Delete the topic `topic` that was created at index position `batch_seq`.
    pub const TOPIC_DELETE: u8 = 5;
    /// Set a named cursor; the blog holds its `CursorLine`.
    pub const CURSOR_SET: u8 = 6;
    /// Remove a named cursor; the blog holds its `CursorLine`.
    pub const CURSOR_DELETE: u8 = 7;
    /// Somebody who has this session is connected, though nothing comes. Nothing is appended for it.
    pub const SESSION_ALIVE: u8 = 8;
    /// Nothing of an extent is in use any more, nor ever will be under grant `batch_seq`: it begins at `blog_at`, and all that lies in it was
    /// named by slots before this one.
    pub const EXTENT_CLOSE: u8 = 9;
}

/// States of a member.
pub mod member_state {
    /// It takes over what its last process left.
    pub const STARTING: u64 = 1;
    /// It serves.
    pub const SERVING: u64 = 2;
    /// It stopped in good order.
    pub const STOPPED: u64 = 3;
    /// It ends its conversations, and stops then.
    pub const LEAVING: u64 = 4;
}

/// What the sequencer knows of an extent.
pub mod holding {
    /// Nobody has it, and nothing that is kept lies in it.
    pub const STOCK: u32 = 0;
    /// A lane has it.
    pub const GRANTED: u32 = 1;
    /// The lane has closed it: it is stock again when nothing of it is kept.
    pub const CLOSED: u32 = 2;
}

/// Kinds of order-index entries.
pub mod entry_kind {
    /// A batch has its place in the order.
    pub const BATCH: u8 = 1;
    /// A session opened or reopened; `first_order` holds its id, the position of its first opening + 1, `batch_seq` its next batch.
    pub const SESSION_OPEN: u8 = 2;
    /// A session closed.
    pub const SESSION_CLOSE: u8 = 3;
    /// A session epoch was fenced; `batch_seq` is the frontier.
    pub const SESSION_FENCE: u8 = 4;
    /// Batches of a session from `batch_seq` on were let go.
    pub const LET_GO: u8 = 5;
    /// A session could not be opened; `flags` is the refusal code.
    pub const SESSION_REFUSED: u8 = 6;
    /// A topic was created; the blog holds its `TopicSpec`.
    pub const TOPIC_CREATE: u8 = 7;
    /// A topic was deleted, and its sessions with it.
    pub const TOPIC_DELETE: u8 = 8;
    /// A named cursor was set; `session_slot` is its place, `first_order` its order, and the blog holds its `CursorLine`.
    pub const CURSOR_SET: u8 = 9;
    /// A named cursor was removed; `session_slot` is its place.
    pub const CURSOR_DELETE: u8 = 10;
    /// A lane was granted the extent that begins at the place, as its `lane_slot`-th grant ever.
    pub const GRANT: u8 = 11;
    /// A lane closed the extent that begins at the place.
    pub const EXTENT_CLOSE: u8 = 12;
}

record! {
    /// Slot of a lane ring; its guard is the slot's absolute number + 1.
    pub struct BatchSlot {
        /// slot kind: 1 batch, 2 session open, 3 session close, 4 topic create, 5 topic delete, 6 cursor set, 7 cursor delete, 8 session alive,
        /// 9 extent close
        kind: u8,
        /// 0
        reserved: [u8; 3],
        /// topic id
        topic: u32,
        /// session id; 0: one that is to open, or whose id is not known yet
        session: u64,
        /// session epoch
        session_epoch: u32,
        /// messages in the batch
        message_count: u32,
        /// number of the batch in its session
        batch_seq: u64,
        /// where the batch header lies, bytes from the start of the pool
        blog_at: u64,
        /// length of the batch, header and padding included, bytes
        batch_bytes: u32,
        /// time from when its header had landed to `received_at`, ns
        landing_ns: u32,
        /// broker's clock when the batch was complete, UTC ns
        received_at: u64,
    }
}

record! {
    /// Entry of the order index; its guard is its absolute position + 1.
    pub struct IndexEntry {
        /// entry kind: 1 batch, 2 session open, 3 close, 4 fence, 5 let go, 6 session refused, 7 topic create, 8 topic delete, 9 cursor set,
        /// 10 cursor delete, 11 grant, 12 extent close
        kind: u8,
        /// order level of a session that opens; refusal code of one that is refused
        flags: u8,
        /// lane it came in by, or the request for it
        lane: u16,
        /// sequencer epoch; equals its segment's
        epoch: u32,
        /// place of the session in the session table
        session_slot: u32,
        /// session epoch
        session_epoch: u32,
        /// number of the batch in its session
        batch_seq: u64,
        /// total order, in the topic, of the first message; of a session that opens its id
        first_order: u64,
        /// batch header's place in the pool, in lines, times 2^16, plus the topic id
        place: u64,
        /// length of the batch, header and padding included, bytes
        batch_bytes: u32,
        /// messages in the batch
        message_count: u32,
        /// slot of the lane ring it came from
        lane_slot: u64,
    }
}

impl IndexEntry {
    /// Packs where the batch lies and which topic it belongs to.
    pub fn pack_place(blog_at: u64, topic: u32) -> u64 {
        debug_assert!(blog_at.is_multiple_of(64) && topic <= u32::from(u16::MAX));
        (blog_at / 64) << 16 | u64::from(topic)
    }
    /// Bytes from the start of the pool to the batch header.
    pub fn blog_at(&self) -> u64 {
        (self.place >> 16) * 64
    }
    /// Topic id.
    pub fn topic(&self) -> u32 {
        self.place as u16 as u32
    }
}

record! {
    /// A sequencer candidate's epoch line: what it claims, and the commit watermark.
    pub struct EpochLine {
        /// highest epoch this candidate claimed; epoch = slot + 1 modulo the number of candidates
        claimed: u64,
        /// highest epoch it made active
        active: u64,
        /// grows while it lives
        heartbeat: u64,
        /// every index position below it is committed
        watermark: u64,
        /// index segments this candidate has published in its directory, ever
        segments: u64,
        /// process id, informative
        process: u64,
        /// highest epoch that it gave up of its own: nobody need wait for it
        resigned: u64,
    }
}

checked_record! {
    /// A candidate's floors: how far memory was or is being given back.
    pub struct FloorLine {
        /// epoch that wrote this
        epoch: u64,
        /// positions below it may be given up at any moment: do not pin them. Not above what anybody was seen to pin
        closing: u64,
        /// positions below it are gone
        floor: u64,
        /// every checkpoint stands for at least this position
        checkpoint: u64,
        /// pins no longer waited for, ever
        dropped_pins: u64,
        /// memory below it is wanted: who pins some of it is in the way
        wanted: u64,
        /// CRC32C of these 56 bytes with 0 here
        check: u32,
        /// 0
        reserved: u32,
    }
}

record! {
    /// What the sequencer has done with a lane.
    pub struct LaneProgress {
        /// epoch that wrote this
        epoch: u64,
        /// slots below it were looked at and may be reused
        consumed: u64,
        /// slots below it are appended or refused for good
        settled: u64,
        /// what slots below it name is given up: its bytes may be overwritten by their lane
        reusable: u64,
        /// extents granted to it, ever
        granted: u64,
        /// 0: it may keep what it has in hand; else one more than the extents it may, what is more it closes
        recall: u64,
        /// 0
        reserved: u64,
    }
}

record! {
    /// What a lane's receive core says of itself.
    pub struct LaneStatus {
        /// grows with every process that takes the lane over
        incarnation: u64,
        /// extents in its hand that are not begun
        free_extents: u64,
        /// 1 while receives are held back for want of room, else 0
        paused: u64,
        /// extents it took of those that were granted, ever
        taken: u64,
        /// grows while its writer waits for room
        beat: u64,
        /// slots below it are of processes that had the lane before
        first_slot: u64,
        /// 1 once its writer has given its memory back: it is granted none
        left: u64,
    }
}

record! {
    /// The line of a broker process, or of a process in an attached place.
    pub struct BrokerLine {
        /// grows with every process that takes the broker or place over
        incarnation: u64,
        /// grows while it lives
        heartbeat: u64,
        /// 1 starting, 2 serving, 3 stopped cleanly, 4 leaving: it ends its conversations
        state: u64,
        /// process id
        process: u64,
        /// start, UTC ns
        started_at: u64,
        /// tells this run of its machine from all others; 0: not known
        boot_id: u64,
        /// number of its host
        host: u64,
    }
}

/// Bytes of an address in one of its lines.
pub const ADDRESS_PIECE_BYTES: usize = 48;

record! {
    /// A piece of the address at which clients find a broker.
    pub struct AddressLine {
        /// incarnation of the broker that wrote this
        incarnation: u64,
        /// `host:port`, UTF-8, zero-filled; it goes on in the broker's next line
        text: [u8; 48],
    }
}

record! {
    /// A reader's pin: the lowest index position it still needs.
    pub struct PinLine {
        /// incarnation of the broker or attached place that wrote this
        incarnation: u64,
        /// lowest position needed; 2^64-1: none
        position: u64,
        /// grows while whoever pins looks after it
        beat: u64,
        /// 0
        reserved: [u64; 4],
    }
}

record! {
    /// Where memory failed under the processes of a broker; kept until the pool is formatted. Each word says something by itself, and there is no guard:
    /// they are written one by one, by whoever met it, as the last thing a process does.
    pub struct FaultLine {
        /// one more than an offset in the pool; 0: none
        offsets: [u64; 7],
    }
}

record! {
    /// One index segment in the directory of an epoch; its guard is the segment's absolute number + 1.
    pub struct SegmentLine {
        /// epoch whose directory lists it; 0: taken off the list
        epoch: u64,
        /// position of its first entry
        first: u64,
        /// one past the last position it holds
        end: u64,
        /// last epoch that wrote into it: its entries' epochs are at most that
        filled_by: u64,
        /// 0
        reserved: [u64; 3],
    }
}

record! {
    /// An extent of the blog, as the lane says that was granted it last. Which grant it speaks of is told again by each of its last words: of a line
    /// that was cut short the words in front are new, and what the others say of another grant says nothing.
    pub struct ExtentLine {
        /// one more than the number of its lane; 0: never used
        lane: u64,
        /// number of the grant; 0: as the pool was formatted
        grant: u64,
        /// slot by which it is closed
        end_slot: u64,
        /// one more than the number of the grant under which something was written there
        begun: u64,
        /// one more than the number of the grant under which it was closed
        closed: u64,
        /// 0
        reserved: [u64; 2],
    }
}

record! {
    /// An extent granted to a lane; its guard is the number of extents granted to that lane before it + 1.
    pub struct GrantLine {
        /// epoch that wrote this
        epoch: u64,
        /// number of the extent; 2^64-1: one that the lane has closed
        extent: u64,
        /// number of the grant
        grant: u64,
        /// 0
        reserved: [u64; 4],
    }
}

record! {
    /// What the sequencer knows of an extent; a checkpoint, derived after the commit point.
    pub struct HoldingLine {
        /// number of the last grant: one more than the index position of its entry; 0: as the pool was formatted
        grant: u64,
        /// extents granted to that lane before it
        number: u64,
        /// one past the last index position that names bytes in it; 0: none
        end: u64,
        /// bytes of batches in it that were appended
        bytes: u64,
        /// its lane
        lane: u32,
        /// 0 in stock, 1 granted, 2 closed
        state: u32,
        /// slot by which the lane closed it
        end_slot: u64,
        /// 0
        reserved: u64,
    }
}

record! {
    /// First line of a topic: its properties. Two name lines and a progress line follow.
    pub struct TopicLine {
        /// topic id
        id: u32,
        /// length of the name, bytes; 0: the place is free
        name_bytes: u16,
        /// order level
        order_level: u8,
        /// strongest ack level
        ack_level: u8,
        /// where receipts are stamped: 0 batch, 1 message
        receipts: u8,
        /// 0
        reserved: [u8; 3],
        /// copies, the pool's included
        replicas: u32,
        /// retention target, bytes; 0: as much as fits
        retention_bytes: u64,
        /// retention target, ns; 0: as long as it fits
        retention_ns: u64,
        /// creation, UTC ns
        created_at: u64,
        /// index position of its creation: entries of its id below that are another topic's
        created_position: u64,
        /// 0
        reserved_too: u64,
    }
}

record! {
    /// Half of a topic's name.
    pub struct NameLine {
        /// UTF-8, zero-filled
        text: [u8; 56],
    }
}

record! {
    /// How far a topic's order has come; a checkpoint, derived after the commit point.
    pub struct TopicProgress {
        /// order of the next message
        next_order: u64,
        /// index position this stands for
        position: u64,
        /// bytes of its batches, ever
        bytes: u64,
        /// no message below this order is kept; the earliest that is may be somewhat above
        earliest_order: u64,
        /// `bytes` at that order
        earliest_bytes: u64,
        /// bytes that were given up although its retention target wanted them, ever: memory was short
        taken_bytes: u64,
        /// 0
        reserved: u64,
    }
}

checked_record! {
    /// A named cursor of a topic: how far a consumer has come.
    pub struct CursorLine {
        /// CRC32C of these 56 bytes with 0 here
        check: u32,
        /// topic id
        topic: u16,
        /// length of the name, bytes; 0: the place is free
        name_bytes: u8,
        /// 0
        reserved: u8,
        /// order of the next message its consumer wants
        order: u64,
        /// UTF-8, zero-filled
        text: [u8; 40],
    }
}

record! {
    /// A session's checkpoint, derived after the commit point.
    pub struct SessionLine {
        /// session id; 0: the slot is free
        session: u64,
        /// session epoch
        session_epoch: u32,
        /// 1 open, 2 fenced
        state: u32,
        /// next batch expected
        next_batch: u64,
        /// order just past its last message
        order_end: u64,
        /// index position this stands for
        position: u64,
        /// topic id
        topic: u32,
        /// order level
        order_level: u16,
        /// lane of the request that opened it last
        lane: u16,
        /// slot of that request in its lane
        lane_slot: u64,
    }
}
