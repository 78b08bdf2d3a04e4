//! What comes into the order core and what comes out.

/// A batch as a lane presents it: its header's numbers and where it lies. Payload is none of the order core's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Lane it came in by.
    pub lane: u16,
    /// Its slot in that lane, an absolute count.
    pub lane_slot: u64,
    /// Topic id.
    pub topic: u32,
    /// Session id.
    pub session: u64,
    /// Session epoch it was sent under.
    pub session_epoch: u32,
    /// Its number in the session.
    pub batch_seq: u64,
    /// Messages in it.
    pub message_count: u32,
    /// Its length, bytes.
    pub batch_bytes: u32,
    /// Where it lies, bytes from the start of the pool.
    pub blog_at: u64,
    /// Its slot was published then, UTC ns; 0: not known. For what is measured only: an entry of the index does not say it.
    pub received_at: u64,
    /// So long before that its header had landed, ns.
    pub landing_ns: u32,
}

/// The slot that something came in by: absolute counts, so no two of a pool are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Its lane.
    pub lane: u16,
    /// Its number in that lane.
    pub slot: u64,
}

/// Something that happened, in the one order. Each becomes an entry of the order index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A batch got its place.
    Batch {
        /// Place in the session table.
        slot: u32,
        /// The batch.
        arrival: Arrival,
        /// Order of its first message in the topic.
        first_order: u64,
    },
    /// A session opened, or reopened at a higher epoch.
    Open {
        /// Place in the session table.
        slot: u32,
        /// Session id: one more than the index position of this event when its epoch is 1.
        session: u64,
        /// Session epoch, from 1.
        session_epoch: u32,
        /// Topic id.
        topic: u32,
        /// Order level of the topic.
        order_level: u8,
        /// Next batch expected.
        next_batch: u64,
        /// The request.
        origin: Origin,
    },
    /// A session could not be opened.
    Refused {
        /// Why: a refusal code of the wire.
        code: u8,
        /// The request.
        origin: Origin,
    },
    /// A session closed; its place is free.
    Close {
        /// Place in the session table.
        slot: u32,
    },
    /// A session epoch ended: nothing of it at or above `next_batch` is ever appended.
    Fence {
        /// Place in the session table.
        slot: u32,
        /// The epoch that ended.
        session_epoch: u32,
        /// The frontier.
        next_batch: u64,
    },
    /// Parked batches of a session from `from` on were let go; they must be sent again.
    LetGo {
        /// Place in the session table.
        slot: u32,
        /// Session epoch.
        session_epoch: u32,
        /// First batch to send again.
        from: u64,
    },
    /// A topic was created.
    Topic {
        /// Its id.
        topic: u32,
        /// Its order level.
        order_level: u8,
        /// Lane the request came in by.
        lane: u16,
        /// Slot of the request.
        lane_slot: u64,
        /// Where its specification lies.
        blog_at: u64,
    },
    /// A topic was deleted: its sessions are closed, its named cursors are gone, its id may be given to another.
    TopicDeleted {
        /// Its id.
        topic: u32,
        /// Lane the request came in by.
        lane: u16,
        /// Slot of the request.
        lane_slot: u64,
    },
    /// A named cursor was set.
    CursorSet {
        /// Its place in the cursor table.
        place: u32,
        /// Its topic.
        topic: u32,
        /// Order of the next message its consumer wants.
        order: u64,
        /// Lane the request came in by.
        lane: u16,
        /// Slot of the request.
        lane_slot: u64,
        /// Where the request lies, with the name.
        blog_at: u64,
    },
    /// A named cursor was removed.
    CursorDelete {
        /// Its place in the cursor table.
        place: u32,
        /// Lane the request came in by.
        lane: u16,
        /// Slot of the request.
        lane_slot: u64,
    },
    /// A lane was granted an extent. The number of the grant is one more than the index position of this event.
    Granted {
        /// The extent.
        extent: u32,
        /// Who has it from now on.
        lane: u16,
        /// Extents granted to that lane before.
        number: u64,
    },
    /// A lane closed an extent: it names nothing in it by any later slot.
    ExtentClosed {
        /// The extent.
        extent: u32,
        /// Its lane.
        lane: u16,
        /// Slot that says so.
        lane_slot: u64,
    },
}

/// Who takes the events that the order core decides on, in their order: each has happened by then.
pub trait Emit {
    /// Takes the next one.
    fn take(&mut self, event: Event);
}

impl<F: FnMut(Event)> Emit for F {
    fn take(&mut self, event: Event) {
        self(event);
    }
}
