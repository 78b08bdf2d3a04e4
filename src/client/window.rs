//! The window: every batch that is sealed and not yet acked, and which connection has it. No I/O and no clock.
//!
//! A batch is *waiting*, *queued* on a link (a link is one live connection), or *sent* (wholly written to the link's
//! socket). It leaves on an ack, or at ack level 0 when it is sent. A broken link, a let-go, a fence and the last-resort
//! timer all do one thing: they put batches back to waiting.
//!
//! At order level 5 the session is one **stream** of batch numbers over all links, and numbers are given at sealing.
//! Below it every link is a stream of its own, and a batch gets its number when it is given to a link.
//!
//! Invariants:
//! 1. `unacked` of a stream holds exactly the batches `acked_next .. next` in order of number.
//! 2. A batch is in at most one queue; it is in `waiting` iff its place says so. `waiting` is in order of sealing.
//! 3. A buffer of which a link has written a part stays until that link has written the rest or broken, acked or not:
//!    what follows on the stream must start where this frame ends.
//!
//! Striping: the next batch goes to the live link with the fewest queued bytes, then the fewest unacked batches, then
//! in turn. Queues are kept short, so the choice is made late and a slow link takes less.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use crate::client::batch::{Buffer, Identity, SealedBatch};
use crate::client::deadline;
use crate::client::numbers::{BatchSeq, Order};
use crate::client::progress::AckedBatch;
use crate::wire::frame::{ACK_FENCED, Ack, NOTHING_LET_GO};

/// Most batches and bytes that wait in the queue of a link; one batch of any size always fits.
const LINK_QUEUE_BATCHES: usize = 16;
const LINK_QUEUE_BYTES: u64 = 1 << 20;
/// A broker may repeat that it let batches go; we answer at most this often, and twice as slowly each time that no ack
/// came in between.
const LET_GO_PAUSE: Duration = Duration::from_millis(20);
/// Both resend timers double up to this many times their first value.
const BACKOFF_FACTOR_MAX: u32 = 16;

type BatchId = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Queued(usize),
    Sent(usize),
}

struct InFlight {
    batch: SealedBatch,
    /// Order of sealing; at level 5 the number and the window's `before_session`.
    ordinal: u64,
    place: Place,
    /// Link that failed to get it acked in time: another one is preferred.
    avoid: Option<usize>,
    /// When it was last wholly written.
    sent_at: Option<Instant>,
    /// Acked, but a link is still writing it (invariant 3).
    done: bool,
}

struct Queued {
    id: BatchId,
    not_before: Instant,
}

/// One connection, as the window sees it.
struct Link {
    stream: usize,
    live: bool,
    delay: Duration,
    queue: VecDeque<Queued>,
    /// Bytes of the queue's first batch that are written.
    written: usize,
    queued_bytes: u64,
    /// Batches whose place is this link.
    holding: u32,
    sent_messages: u64,
    /// Acked on this link's current stream, as the broker says, and on the streams and by the broker's processes it had before.
    acked_messages: u64,
    acked_messages_before: u64,
}

/// One sequence of batch numbers.
#[derive(Default)]
struct BatchSequence {
    identity: Identity,
    next: u64,
    acked_next: u64,
    unacked: VecDeque<BatchId>,
    moved_at: Option<Instant>,
}

/// Who numbers the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// One sequence over all connections: order level 5.
    Session,
    /// A sequence for each connection: below.
    Connection,
}

/// Bounds and policy of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowConfig {
    pub numbering: Numbering,
    /// Batches are done once written: ack level 0.
    pub unacknowledged: bool,
    pub batches_max: usize,
    pub resend_after: Duration,
}

/// What an ack asks of the I/O side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckEffect {
    /// Nothing.
    None,
    /// The session epoch is fenced: close every connection of the session and reopen it.
    Fenced,
}

/// Something that a broker said and that cannot be: field, found, expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction {
    pub field: &'static str,
    pub found: u64,
    pub expected: u64,
}

/// See the head of the file.
pub(crate) struct Window {
    config: WindowConfig,
    slots: Vec<Option<InFlight>>,
    free: Vec<BatchId>,
    waiting: VecDeque<BatchId>,
    streams: Vec<BatchSequence>,
    links: Vec<Link>,
    next_ordinal: u64,
    /// Batches of the sessions before this one (level 5): the ordinal of its number 0.
    before_session: u64,
    /// Batches not yet acked.
    unacked: usize,
    turn: usize,
    let_go: Option<LetGo>,
    let_go_pause: Duration,
    let_go_last: Option<Instant>,
    resend_factor: u32,
    acked: VecDeque<AckedBatch>,
    recycled: Vec<Buffer>,
    resent_batches: u64,
    let_go_count: u64,
}

/// Batches to send again, from a number on, at a time.
#[derive(Clone, Copy)]
struct LetGo {
    from: u64,
    due: Instant,
}

impl Window {
    /// An empty window over these links, each with the delay of the test hook. All links are down.
    pub fn new(config: WindowConfig, delays: &[Duration]) -> Window {
        assert!(config.batches_max > 0 && !delays.is_empty());
        let mut window = Window {
            config,
            slots: (0..config.batches_max).map(|_| None).collect(),
            free: (0..config.batches_max).rev().collect(),
            waiting: VecDeque::with_capacity(config.batches_max),
            streams: Vec::new(),
            links: Vec::with_capacity(delays.len()),
            next_ordinal: 0,
            before_session: 0,
            unacked: 0,
            turn: 0,
            let_go: None,
            let_go_pause: LET_GO_PAUSE,
            let_go_last: None,
            resend_factor: 1,
            acked: VecDeque::with_capacity(config.batches_max),
            recycled: Vec::with_capacity(config.batches_max),
            resent_batches: 0,
            let_go_count: 0,
        };
        delays.iter().for_each(|delay| window.add_link(*delay));
        window
    }

    /// One more link, which is down.
    pub fn add_link(&mut self, delay: Duration) {
        if self.streams.is_empty() || self.config.numbering != Numbering::Session {
            self.streams.push(BatchSequence::default());
        }
        self.links.push(Link {
            stream: self.streams.len() - 1,
            live: false,
            delay,
            queue: VecDeque::with_capacity(LINK_QUEUE_BATCHES),
            written: 0,
            queued_bytes: 0,
            holding: 0,
            sent_messages: 0,
            acked_messages: 0,
            acked_messages_before: 0,
        });
    }

    /// Whether another batch must wait for an ack.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Batches not yet acked.
    pub fn unacked(&self) -> usize {
        self.unacked
    }

    /// Nothing is on its way of which an ack is to come: a message that waits for company would wait for nobody. Never at ack level 0,
    /// where nobody says when something has come.
    pub fn is_idle(&self) -> bool {
        self.unacked == 0 && !self.config.unacknowledged
    }

    /// Takes a sealed batch. The window must not be full.
    pub fn push(&mut self, batch: SealedBatch) {
        let id = self.free.pop().expect("the caller asks is_full first");
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.slots[id] =
            Some(InFlight { batch, ordinal, place: Place::Waiting, avoid: None, sent_at: None, done: false });
        if self.config.numbering == Numbering::Session {
            let stream = &mut self.streams[0];
            assert_eq!(self.before_session + stream.next, ordinal, "the session's numbers are the order of sealing");
            stream.next += 1;
            stream.unacked.push_back(id);
        }
        self.waiting.push_back(id);
        self.unacked += 1;
    }

    /// Identity of the session (level 5), or of the link's own.
    pub fn identity(&self, link: usize) -> Identity {
        self.streams[self.links[link].stream].identity
    }

    /// Opens the session (level 5): its first connection was welcomed.
    pub fn open(&mut self, identity: Identity) {
        assert!(self.config.numbering == Numbering::Session && self.next_ordinal == 0);
        self.streams[0].identity = identity;
    }

    /// A connection is ready. Level 5: it joined the session, whose frontier is `next`. Below: it is a new stream that
    /// begins at `next`.
    pub fn link_up(&mut self, link: usize, identity: Identity, next: u64, now: Instant) -> Result<(), Contradiction> {
        assert!(!self.links[link].live && self.links[link].queue.is_empty());
        match self.config.numbering {
            Numbering::Session => {
                assert_eq!(self.streams[0].identity, identity, "joined another session");
                self.settle(0, next, 0, now)?;
            }
            Numbering::Connection => {
                let stream = &mut self.streams[link];
                assert!(stream.unacked.is_empty(), "link_down took them back");
                *stream = BatchSequence { identity, next, acked_next: next, ..BatchSequence::default() };
                let link = &mut self.links[link];
                link.acked_messages_before += std::mem::take(&mut link.acked_messages);
            }
        }
        self.links[link].live = true;
        Ok(())
    }

    /// A connection is gone: whatever it had and was not acked is waiting again.
    pub fn link_down(&mut self, link: usize) {
        self.links[link].live = false;
        self.links[link].written = 0;
        for id in 0..self.slots.len() {
            let Some(in_flight) = &self.slots[id] else { continue };
            match in_flight.place {
                Place::Queued(at) | Place::Sent(at) if at == link && in_flight.done => self.release(id),
                Place::Queued(at) | Place::Sent(at) if at == link => self.take_back(id, None),
                _ => (),
            }
        }
        let link = &mut self.links[link];
        link.queue.clear();
        link.queued_bytes = 0;
        assert_eq!(link.holding, 0, "every batch of a broken link was taken back");
        if self.config.numbering == Numbering::Connection {
            let stream = &mut self.streams[link.stream];
            stream.unacked.clear();
            stream.acked_next = stream.next;
        }
        self.sort_waiting();
    }

    /// The session was fenced and is open again under `epoch`, its committed frontier being `next`. All links are down.
    pub fn reopen(&mut self, epoch: u32, next: u64, now: Instant) -> Result<(), Contradiction> {
        assert!(self.config.numbering == Numbering::Session && self.links.iter().all(|link| !link.live));
        let stream = &mut self.streams[0];
        assert!(epoch > stream.identity.epoch, "a session is reopened under a later epoch");
        if next < stream.acked_next {
            return Err(Contradiction { field: "frontier", found: next, expected: stream.acked_next });
        }
        self.settle(0, next, 0, now)?;
        self.streams[0].identity.epoch = epoch;
        self.let_go = None;
        Ok(())
    }

    /// The first message, and the one behind the last, of batches that were wholly sent in this session and are not acked. A batch that
    /// was never wholly sent is known not to be ordered.
    pub fn doubtful_messages(&self) -> Option<(u64, u64)> {
        let sent = self.slots.iter().flatten().filter(|in_flight| !in_flight.done && in_flight.sent_at.is_some());
        let messages = |batch: &SealedBatch| (batch.first_message, batch.first_message + u64::from(batch.messages()));
        sent.map(|in_flight| messages(&in_flight.batch)).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// The session is gone, and this one was opened in its place: what waits is numbered in it from 0 on. All links are down, and
    /// nothing is doubtful.
    pub fn replace(&mut self, identity: Identity, next: u64) -> Result<(), Contradiction> {
        assert!(self.config.numbering == Numbering::Session && self.links.iter().all(|link| !link.live));
        assert!(self.doubtful_messages().is_none(), "what may be ordered is not sent in another session");
        if next != 0 {
            return Err(Contradiction { field: "next", found: next, expected: 0 });
        }
        for link in &mut self.links {
            link.acked_messages_before += std::mem::take(&mut link.acked_messages);
        }
        let stream = &mut self.streams[0];
        self.before_session += stream.acked_next;
        (stream.next, stream.acked_next) = (stream.next - stream.acked_next, 0);
        (stream.identity, stream.moved_at) = (identity, None);
        (self.let_go, self.let_go_last) = (None, None);
        (self.resend_factor, self.let_go_pause) = (1, LET_GO_PAUSE);
        assert_eq!(self.before_session + stream.next, self.next_ordinal);
        Ok(())
    }

    /// Gives waiting batches to links with room. Returns how many.
    pub fn assign(&mut self, now: Instant) -> usize {
        let mut assigned = 0;
        while let Some(&id) = self.waiting.front() {
            let avoid = self.in_flight(id).avoid;
            let Some(link) = self.least_loaded(avoid) else { break };
            self.waiting.pop_front();
            self.enqueue(id, link, now);
            assigned += 1;
        }
        assigned
    }

    fn least_loaded(&self, avoid: Option<usize>) -> Option<usize> {
        let links = self.links.len();
        let room = |link: &Link| {
            link.live
                && link.queue.len() < LINK_QUEUE_BATCHES
                && (link.queued_bytes < LINK_QUEUE_BYTES || link.queue.is_empty())
        };
        (0..links).filter(|&index| room(&self.links[index])).min_by_key(|&index| {
            let link = &self.links[index];
            (avoid == Some(index), link.queued_bytes, link.holding, (index + links - self.turn) % links)
        })
    }

    fn enqueue(&mut self, id: BatchId, link: usize, now: Instant) {
        self.turn = (link + 1) % self.links.len();
        let target = &mut self.links[link];
        let stream = &mut self.streams[target.stream];
        let in_flight = self.slots[id].as_mut().expect("a waiting batch is in its slot");
        let number = match self.config.numbering {
            Numbering::Session => in_flight.ordinal - self.before_session,
            Numbering::Connection => {
                stream.unacked.push_back(id);
                stream.next += 1;
                stream.next - 1
            }
        };
        in_flight.batch.stamp(&stream.identity, number);
        in_flight.place = Place::Queued(link);
        target.queued_bytes += in_flight.batch.frame().len() as u64;
        target.queue.push_back(Queued { id, not_before: deadline::after(now, target.delay) });
        target.holding += 1;
    }

    /// Fills `slices` with what the link may write now, in order. Returns how many are filled.
    pub fn to_write<'a>(&'a self, link: usize, now: Instant, slices: &mut [IoSlice<'a>]) -> usize {
        let link = &self.links[link];
        let mut filled = 0;
        for (index, queued) in link.queue.iter().take(slices.len()).enumerate() {
            if queued.not_before > now {
                break;
            }
            let frame = self.in_flight(queued.id).batch.frame();
            slices[filled] = IoSlice::new(if index == 0 { &frame[link.written..] } else { frame });
            filled += 1;
        }
        filled
    }

    /// Whether something else than the rest of a batch may be written to the link.
    pub fn is_between_frames(&self, link: usize) -> bool {
        self.links[link].written == 0
    }

    /// What the link must still write before another frame can begin: the rest of a batch that is half written, acked or not.
    pub fn rest_of_frame(&self, link: usize) -> &[u8] {
        let link = &self.links[link];
        match link.queue.front().filter(|_| link.written > 0) {
            Some(queued) => &self.in_flight(queued.id).batch.frame()[link.written..],
            None => &[],
        }
    }

    /// The link's socket took this many bytes.
    pub fn wrote(&mut self, link: usize, bytes: usize, now: Instant) {
        self.links[link].written += bytes;
        while let Some(first) = self.links[link].queue.front() {
            let id = first.id;
            let frame_bytes = self.in_flight(id).batch.frame().len();
            if self.links[link].written < frame_bytes {
                return;
            }
            self.links[link].written -= frame_bytes;
            self.links[link].queue.pop_front();
            self.links[link].queued_bytes -= frame_bytes as u64;
            self.sent(id, link, now);
        }
        assert_eq!(self.links[link].written, 0, "more was written than was queued");
    }

    fn sent(&mut self, id: BatchId, link: usize, now: Instant) {
        let in_flight = self.slots[id].as_mut().expect("a queued batch is in its slot");
        in_flight.place = Place::Sent(link);
        in_flight.sent_at = Some(now);
        let messages = u64::from(in_flight.batch.messages());
        let done = in_flight.done;
        self.links[link].sent_messages += messages;
        if done {
            self.release(id);
        } else if self.config.unacknowledged {
            self.links[link].acked_messages += messages;
            let stream = self.links[link].stream;
            let next = self.streams[stream].acked_next + 1;
            self.settle(stream, next, 0, now).expect("a batch that was sent has a number");
        }
    }

    /// Takes an ack that came in on a link.
    pub fn on_ack(&mut self, link: usize, ack: &Ack, now: Instant) -> Result<AckEffect, Contradiction> {
        let index = self.links[link].stream;
        let identity = self.streams[index].identity;
        if ack.session != identity.session {
            return Err(Contradiction { field: "session", found: ack.session, expected: identity.session });
        }
        if ack.session_epoch > identity.epoch {
            let (found, expected) = (ack.session_epoch.into(), identity.epoch.into());
            return Err(Contradiction { field: "session_epoch", found, expected });
        }
        // An ack of an earlier epoch speaks of a fence that is dealt with; its frontier is committed all the same.
        self.settle(index, ack.committed_next, ack.order_end, now)?;
        let link = &mut self.links[link];
        if ack.broker_messages < link.acked_messages {
            // A number that falls is of a broker that began anew: it counts from 0 on.
            link.acked_messages_before += link.acked_messages;
        }
        link.acked_messages = ack.broker_messages;
        if ack.session_epoch < identity.epoch {
            return Ok(AckEffect::None);
        }
        if ack.flags & ACK_FENCED != 0 {
            return Ok(AckEffect::Fenced);
        }
        if ack.let_go_from != NOTHING_LET_GO && self.config.numbering == Numbering::Session {
            self.note_let_go(ack.let_go_from, now);
        }
        Ok(AckEffect::None)
    }

    fn note_let_go(&mut self, from: u64, now: Instant) {
        self.let_go_count += 1;
        let due = self.let_go_last.map_or(now, |last| now.max(last + self.let_go_pause));
        let from = self.let_go.map_or(from, |pending| pending.from.min(from));
        self.let_go = Some(LetGo { from, due: self.let_go.map_or(due, |pending| pending.due.min(due)) });
    }

    /// Resends what was let go, and everything if no ack has come for too long. Returns how many batches went back.
    pub fn on_time(&mut self, now: Instant) -> usize {
        if self.unacked == 0 || self.config.numbering == Numbering::Connection {
            return 0;
        }
        let mut taken = 0;
        if let Some(let_go) = self.let_go.filter(|let_go| let_go.due <= now) {
            self.let_go = None;
            self.let_go_last = Some(now);
            self.let_go_pause = (self.let_go_pause * 2).min(LET_GO_PAUSE * BACKOFF_FACTOR_MAX);
            taken += self.take_back_sent(let_go.from, false);
        }
        if self.resend_due().is_some_and(|due| due <= now) {
            self.resend_factor = (self.resend_factor * 2).min(BACKOFF_FACTOR_MAX);
            self.streams[0].moved_at = Some(now);
            taken += self.take_back_sent(0, true);
        }
        taken
    }

    /// When the last resort is due: only if the oldest unacked batch is wholly sent; while it waits for room in a
    /// socket the delay is backpressure, and sending more would not help.
    fn resend_due(&self) -> Option<Instant> {
        let stream = &self.streams[0];
        let oldest = self.in_flight(*stream.unacked.front()?);
        match (oldest.place, oldest.sent_at) {
            (Place::Sent(link), Some(sent_at)) if self.links[link].live => {
                let since = stream.moved_at.map_or(sent_at, |moved_at| moved_at.max(sent_at));
                Some(deadline::after(since, self.config.resend_after.saturating_mul(self.resend_factor)))
            }
            _ => None,
        }
    }

    /// The next moment at which time alone changes something. What may be written already waits for room in its socket, not for time: a
    /// moment of the past here would have whoever sleeps until then not sleep at all.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let held = self.links.iter().filter_map(|link| link.queue.front()).map(|queued| queued.not_before);
        let held = held.filter(|not_before| *not_before > now).chain(self.let_go.map(|let_go| let_go.due)).min();
        match self.config.numbering {
            Numbering::Session => held.into_iter().chain(self.resend_due()).min(),
            Numbering::Connection => held,
        }
    }

    /// Puts every batch that is wholly sent, of a number not below `from`, back to waiting.
    fn take_back_sent(&mut self, from: u64, avoid: bool) -> usize {
        let mut taken = 0;
        for id in 0..self.slots.len() {
            let Some(in_flight) = &self.slots[id] else { continue };
            if let Place::Sent(link) = in_flight.place
                && in_flight.ordinal - self.before_session >= from
            {
                self.take_back(id, avoid.then_some(link));
                taken += 1;
            }
        }
        self.sort_waiting();
        taken
    }

    fn take_back(&mut self, id: BatchId, avoid: Option<usize>) {
        let in_flight = self.slots[id].as_mut().expect("the caller looked");
        if let Place::Queued(link) | Place::Sent(link) = in_flight.place {
            self.links[link].holding -= 1;
        }
        in_flight.place = Place::Waiting;
        in_flight.avoid = avoid;
        self.waiting.push_back(id);
        self.resent_batches += 1;
    }

    fn sort_waiting(&mut self) {
        let slots = &self.slots;
        let ordinal = |id: &BatchId| slots[*id].as_ref().map(|in_flight| in_flight.ordinal);
        self.waiting.make_contiguous().sort_unstable_by_key(ordinal);
    }

    /// Everything of the stream below `committed_next` is acked.
    fn settle(
        &mut self,
        stream: usize,
        committed_next: u64,
        order_end: u64,
        now: Instant,
    ) -> Result<(), Contradiction> {
        let end = self.streams[stream].next;
        if committed_next > end {
            return Err(Contradiction { field: "committed_next", found: committed_next, expected: end });
        }
        if committed_next <= self.streams[stream].acked_next {
            return Ok(());
        }
        while self.streams[stream].acked_next < committed_next {
            let id = self.streams[stream].unacked.pop_front().expect("invariant 1");
            self.streams[stream].acked_next += 1;
            self.finish(id, order_end);
        }
        self.streams[stream].moved_at = Some(now);
        (self.resend_factor, self.let_go_pause) = (1, LET_GO_PAUSE);
        Ok(())
    }

    fn finish(&mut self, id: BatchId, order_end: u64) {
        let in_flight = self.slots[id].as_mut().expect("an unacked batch is in its slot");
        in_flight.done = true;
        self.unacked -= 1;
        self.acked.push_back(AckedBatch {
            batch_seq: BatchSeq(in_flight.ordinal),
            first_message: in_flight.batch.first_message,
            messages: in_flight.batch.messages(),
            bytes: in_flight.batch.payload_bytes,
            sealed_at: in_flight.batch.sealed_at,
            order_end: Order(order_end),
        });
        let frame_bytes = in_flight.batch.frame().len() as u64;
        match in_flight.place {
            Place::Sent(_) => self.release(id),
            Place::Waiting => {
                self.waiting.retain(|waiting| *waiting != id);
                self.release(id);
            }
            Place::Queued(link) => {
                let link = &mut self.links[link];
                let begun = link.written > 0 && link.queue.front().is_some_and(|queued| queued.id == id);
                if !begun {
                    link.queue.retain(|queued| queued.id != id);
                    link.queued_bytes -= frame_bytes;
                    self.release(id);
                }
            }
        }
    }

    /// Frees the slot of a batch that is done and in no queue.
    fn release(&mut self, id: BatchId) {
        let in_flight = self.slots[id].take().expect("a batch is released once");
        debug_assert!(in_flight.done);
        if let Place::Queued(link) | Place::Sent(link) = in_flight.place {
            self.links[link].holding -= 1;
        }
        self.recycled.push(in_flight.batch.into_buffer());
        self.free.push(id);
    }

    fn in_flight(&self, id: BatchId) -> &InFlight {
        self.slots[id].as_ref().expect("ids in queues are of occupied slots")
    }

    /// The next batch that was acked since the last call.
    pub fn pop_acked(&mut self) -> Option<AckedBatch> {
        self.acked.pop_front()
    }

    /// A buffer that nobody needs any more.
    pub fn pop_buffer(&mut self) -> Option<Buffer> {
        self.recycled.pop()
    }

    /// Messages wholly written by a link, resent ones each time.
    pub fn sent_messages(&self, link: usize) -> u64 {
        self.links[link].sent_messages
    }

    /// Messages acked that came in on a link: on its current stream, and on earlier ones. At level 5 the number is the
    /// broker's, so all links to one broker say the same.
    pub fn acked_messages(&self, link: usize) -> u64 {
        self.links[link].acked_messages_before + self.links[link].acked_messages
    }

    /// Batches put back to waiting, and let-gos heard, since the beginning.
    pub fn resend_counts(&self) -> (u64, u64) {
        (self.resent_batches, self.let_go_count)
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
