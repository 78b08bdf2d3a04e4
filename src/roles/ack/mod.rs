//! The ack core: tells publishers what is committed, in one cumulative frame per connection and pass.
//!
//! It is the one writer of the sockets of publishers that were attached: welcome, acks, refusals. Frames are built in registered slots
//! and submitted together; while a connection's last frame is on its way, news for it is merged into the next.
//!
//! A session is acked at once by the broker its batches came in through, and by the others a little later, if there was nothing
//! of their own to say by then: one frame a batch instead of one from each broker, and still news for a publisher that has lost
//! the first broker.
//!
//! * [`tracker`]: the fold and who cares about what; no I/O.

#[cfg(test)]
mod dead_tests;
pub mod fate;
mod invariants;
#[cfg(test)]
mod superseded_tests;
pub mod tracker;

use std::sync::Arc;

use crate::config::SendMode;
use crate::log::View;
use crate::log::brokers::BrokerList;
use crate::log::recover::RecoverError;
use crate::net::network::{FRAME_BYTES, Handle};
use crate::net::{Asker, Completion, FrameSlot, Network, Stage};
use crate::observe::counters::{AckCounters, CounterBlock};
use crate::pool::Memory;
use crate::roles::handoff::{AckLink, Attachment, ConnectionId, FromAck, ToAck};
use crate::roles::heartbeats::{Looks, Quiet};
use crate::roles::tokens::Tokens;
use crate::runtime::{Now, Role, RoleError, RoleKind};
use crate::wire::frame::{self, Ack, Heartbeat, LogRecord, NEW_SESSION, NOTHING_LET_GO, Refused, Welcome};
use crate::wire::{AckLevel, OrderLevel, Refusal};
use fate::{Fate, Wait};
use tracker::{News, Tracker};

/// What the configuration says about acks.
#[derive(Clone, Debug)]
pub struct AckSettings {
    /// How frames are sent.
    pub send: SendMode,
    /// In `auto`, frames of at least this many bytes go by zero copy.
    pub zero_copy_from_bytes: u64,
    /// Time a session has to open, ns.
    pub open_timeout_ns: u64,
    /// This broker's number.
    pub broker: u16,
    /// Which log this is, and how often its publishers are told something.
    pub log: LogRecord,
}

/// Time the other connections of a session have for their goodbye once one has said it, ns.
const GOODBYE_NS: u64 = 1_000_000_000;
/// Time other brokers have to tell a session of their own batches before this one does, ns.
const HEARSAY_NS: u64 = 20_000_000;
/// Messages taken from receive cores in one pass at most.
pub const MESSAGES_PER_PASS: usize = 256;

/// What a connection's socket is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Nothing,
    /// The welcome, of so many bytes; acks follow.
    Welcome(usize),
    /// Which brokers there are, in so many bytes.
    Brokers(usize),
    /// A frame; its slot may still be lent after it was accepted.
    Frame,
    /// The last words.
    Last,
}

impl Sending {
    /// Whether a send of it came to all of it: behind a part of a frame nothing can be said.
    fn is_whole(self, result: i32) -> bool {
        match self {
            Sending::Welcome(bytes) | Sending::Brokers(bytes) => result == bytes as i32,
            Sending::Frame => result == FRAME_BYTES as i32,
            Sending::Nothing | Sending::Last => result >= 0,
        }
    }
}

struct Attached<H> {
    id: ConnectionId,
    link: usize,
    attachment: Attachment<H>,
    sending: Sending,
    /// Something to say when the socket is free.
    has_news: bool,
    /// Waits for its session since, ns; and for everything committed by then.
    waiting: Option<(u64, Option<u64>)>,
    /// Its session closed then, ns: its own goodbye is expected.
    closed_ns: Option<u64>,
    /// Batches acked last at order level 0.
    landed_acked: u64,
    /// The receive core waits for it to be released.
    is_closing: bool,
    /// A zero-copy send failed.
    is_broken: bool,
    /// The receive core was told that sending does not work any more: nothing is sent, and it is not told again.
    has_failed: bool,
    /// Words to say last, as soon as the socket is free.
    last_words: Option<Box<[u8]>>,
    /// How long it was told nothing.
    quiet: Quiet,
    /// The version of the list of brokers that it was told.
    told_brokers: u64,
}

impl<H> Attached<H> {
    fn new(id: ConnectionId, link: usize, attachment: Attachment<H>) -> Attached<H> {
        Attached {
            id,
            link,
            quiet: Quiet::new(attachment.in_heartbeats),
            attachment,
            sending: Sending::Nothing,
            has_news: false,
            waiting: None,
            closed_ns: None,
            landed_acked: 0,
            is_closing: false,
            is_broken: false,
            has_failed: false,
            last_words: None,
            told_brokers: 0,
        }
    }
}

/// One broker's ack core.
pub struct AckRole<M: Memory, N: Network> {
    name: String,
    role: u8,
    settings: AckSettings,
    tokens: Tokens,
    batch_bytes_max: u32,
    tracker: Tracker<M>,
    brokers: BrokerList<M>,
    links: Vec<Arc<AckLink<Handle<N>>>>,
    seats_per_link: u32,
    connections: Vec<Option<Attached<Handle<N>>>>,
    /// How many of them there are.
    attached: u32,
    frames: Vec<FrameSlot>,
    /// Connections that wait for their session.
    waiting: Vec<u32>,
    /// Connections whose session closed.
    closed: Vec<u32>,
    /// Connections acked by what has landed (order level 0).
    landing: Vec<u32>,
    news: Vec<News>,
    counters: AckCounters,
    block: CounterBlock<M>,
    hearsay_ns: u64,
    /// Looks for quiet connections.
    looks: Looks,
    /// The pool is damaged: it follows no more.
    fault: Option<RecoverError>,
}

impl<M: Memory, N: Network> AckRole<M, N> {
    /// The ack core of a broker with these receive cores, each with `seats_per_link` connections at most.
    pub fn new(
        view: &View<M>,
        broker: u32,
        settings: AckSettings,
        tokens: Tokens,
        links: Vec<Arc<AckLink<Handle<N>>>>,
        seats_per_link: u32,
    ) -> Self {
        let seats = links.len() as u32 * seats_per_link;
        AckRole {
            name: format!("ack {broker}"),
            role: 0,
            batch_bytes_max: view.layout.geometry.batch_bytes_max() as u32,
            tracker: Tracker::new(view, broker, seats),
            brokers: BrokerList::new(view, broker),
            links,
            seats_per_link,
            connections: (0..seats).map(|_| None).collect(),
            attached: 0,
            frames: Vec::new(),
            waiting: Vec::with_capacity(seats as usize),
            closed: Vec::with_capacity(seats as usize),
            landing: Vec::with_capacity(seats as usize),
            news: Vec::with_capacity(tracker::ENTRIES_PER_PASS),
            counters: AckCounters::default(),
            block: CounterBlock::new(view.memory.clone(), view.layout.ack_counters(broker)),
            hearsay_ns: 0,
            looks: Looks::new(settings.log.heartbeat_ms),
            fault: None,
            settings,
            tokens,
        }
    }

    /// Frame slots it leases from its thread's ring.
    pub fn frames_needed(links: u32, seats_per_link: u32) -> u32 {
        links * seats_per_link
    }

    fn seat(&self, link: usize, id: ConnectionId) -> u32 {
        link as u32 * self.seats_per_link + id.seat
    }

    fn asker(&self, seat: u32) -> Asker {
        let generation = self.connections[seat as usize].as_ref().map_or(0, |c| c.id.generation);
        Asker { role: self.role, tag: u64::from(generation) << 32 | u64::from(seat) }
    }

    fn hear(&mut self, io: &mut N, now: Now, most: usize) -> usize {
        let mut moved = 0;
        for link in 0..self.links.len() {
            while moved < most {
                let Some(message) = self.links[link].to_ack.pop() else { break };
                moved += 1;
                match message {
                    ToAck::Attach(id, attachment) => self.attach(link, id, attachment, now),
                    ToAck::Say(id, words) => self.say_last(io, link, id, words),
                    ToAck::Close(id) => self.close(link, id),
                }
            }
        }
        moved
    }

    fn attach(&mut self, link: usize, id: ConnectionId, attachment: Attachment<Handle<N>>, now: Now) {
        let seat = self.seat(link, id);
        let mut connection = Attached::new(id, link, attachment);
        connection.waiting = Some((now.monotonic_ns, self.tracker.watermark()));
        assert!(self.connections[seat as usize].replace(connection).is_none(), "the seat was released");
        self.attached += 1;
        self.waiting.push(seat);
    }

    fn say_last(&mut self, io: &mut N, link: usize, id: ConnectionId, words: Box<[u8]>) {
        let seat = self.seat(link, id);
        let known = self.connections[seat as usize].as_mut().filter(|connection| connection.id == id);
        // It was released already: the receive core has heard, or will.
        let Some(connection) = known else { return };
        // Whatever becomes of its session by now: no welcome comes behind the last word.
        self.waiting.retain(|waiting| *waiting != seat);
        connection.last_words = Some(words);
        if connection.has_failed {
            return self.release(seat);
        }
        self.send_pending(io, seat);
    }

    fn close(&mut self, link: usize, id: ConnectionId) {
        let seat = self.seat(link, id);
        match &mut self.connections[seat as usize] {
            Some(connection) if connection.id == id => {
                connection.is_closing = true;
                connection.last_words = None;
                if connection.sending == Sending::Nothing {
                    self.release(seat);
                }
            }
            // It was released already: the receive core has heard, or will.
            _ => {}
        }
    }

    fn release(&mut self, seat: u32) {
        let Some(connection) = self.connections[seat as usize].take() else { return };
        self.attached -= 1;
        self.tracker.detach(seat);
        self.waiting.retain(|waiting| *waiting != seat);
        self.landing.retain(|landing| *landing != seat);
        self.closed.retain(|closed| *closed != seat);
        self.links[connection.link].tell_receive(FromAck::Released(connection.id));
    }

    /// Welcomes, or refuses, connections whose session's fate is known.
    fn settle_waiting(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        let mut index = 0;
        while index < self.waiting.len() {
            let seat = self.waiting[index];
            match self.fate(seat, now) {
                None => index += 1,
                Some(fate) => {
                    self.waiting.swap_remove(index);
                    moved += 1;
                    match fate {
                        Ok(slot) => self.welcome(io, seat, slot),
                        Err((refusal, detail, text)) => self.refuse(io, seat, refusal, detail, &text),
                    }
                }
            }
        }
        moved
    }

    fn fate(&self, seat: u32, now: Now) -> Option<Fate> {
        let connection = self.connections[seat as usize].as_ref()?;
        let (since_ns, committed) = connection.waiting?;
        let Attachment { session, asked, session_epoch, .. } = connection.attachment;
        let is_late = now.monotonic_ns.saturating_sub(since_ns) > self.settings.open_timeout_ns;
        Wait { session, asked, session_epoch, committed, is_late }.fate(&self.tracker)
    }

    fn welcome(&mut self, io: &mut N, seat: u32, slot: u32) {
        self.tracker.attach(seat, slot);
        let session = *self.tracker.table().session(slot);
        let connection = self.connections[seat as usize].as_mut().expect("it waited");
        connection.waiting = None;
        if connection.attachment.session == NEW_SESSION {
            // What follows the welcome is read after this was heard.
            connection.attachment.session = session.id;
            self.links[connection.link].tell_receive(FromAck::Opened(connection.id, session.id));
        }
        let attachment = connection.attachment;
        let welcome = Welcome {
            session_epoch: session.epoch,
            session: session.id,
            token: self.tokens.token(session.id, attachment.topic),
            next: session.next_batch,
            topic: attachment.topic,
            batch_bytes_max: self.batch_bytes_max,
            order_level: attachment.order as u8,
            ack_level: attachment.ack as u8,
            broker: self.settings.broker,
            window_batches_max: crate::limits::WINDOW_BATCHES_MAX,
            version: attachment.version,
            ..Welcome::default()
        };
        let log = connection.quiet.promised(&self.settings.log);
        let body = frame::welcome_body(attachment.version, &log, self.brokers.text());
        connection.told_brokers = self.brokers.version();
        let words: Box<[u8]> = frame::with_body(&welcome, &body).into();
        connection.sending = Sending::Welcome(words.len());
        if attachment.order == OrderLevel::None && attachment.ack != AckLevel::None {
            self.landing.push(seat);
        }
        self.counters.welcomed += 1;
        let asker = self.asker(seat);
        if io.send_owned(asker, attachment.socket, words).is_none() {
            self.failed(seat);
        }
    }

    fn refuse(&mut self, io: &mut N, seat: u32, refusal: Refusal, detail: u64, text: &str) {
        self.counters.refused += 1;
        log::info!("{}: refused a publisher: {text}", self.name);
        self.tracker.detach(seat);
        // Behind a part of a frame nothing can be said: the receive core ends that one.
        if let Some(connection) = self.connections[seat as usize].as_mut().filter(|connection| !connection.has_failed) {
            let version = connection.attachment.version;
            let header = Refused { version, code: refusal as u16, detail, ..Refused::default() };
            let words = frame::with_body(&header, text.as_bytes()).into();
            connection.last_words = Some(words);
            self.send_pending(io, seat);
        }
    }

    /// Sending does not work any more: the receive core is to end the connection.
    fn failed(&mut self, seat: u32) {
        let Some(connection) = &mut self.connections[seat as usize] else { return };
        connection.sending = Sending::Nothing;
        connection.has_news = false;
        if connection.is_closing || connection.last_words.is_some() {
            return self.release(seat);
        }
        if !std::mem::replace(&mut connection.has_failed, true) {
            self.links[connection.link].tell_receive(FromAck::Failed(connection.id));
        }
    }

    /// Follows the index and marks the connections whose session moved.
    fn follow(&mut self, io: &mut N, now: Now) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        self.tracker.times.settle(now.utc_ns);
        let news = &mut self.news;
        let followed = match self.tracker.follow(&mut |item| news.push(item)) {
            Ok(count) => count,
            Err(RecoverError::Unsettled) => 0,
            Err(error) => {
                // What was followed before it is told all the same.
                (self.fault, self.counters.damaged) = (Some(error), 1);
                0
            }
        };
        self.counters.followed_entries += followed as u64;
        if self.news.iter().any(|item| matches!(item, News::Refused { .. })) {
            // A refusal is told once. Whoever asked told us before it asked, but perhaps after we heard in this pass: the queues hold no
            // more than their connections can have under way.
            self.hear(io, now, usize::MAX);
        }
        while let Some(item) = self.news.pop() {
            self.tell(io, item, now);
        }
        while let Some(slot) = self.tracker.take_dirty() {
            self.tell_session(io, slot);
        }
        followed
    }

    /// Tells what other brokers' batches did to a session, for the case that their word is lost.
    fn pass_on(&mut self, io: &mut N, now: Now) -> usize {
        if now.monotonic_ns - self.hearsay_ns < HEARSAY_NS {
            return 0;
        }
        self.hearsay_ns = now.monotonic_ns;
        let mut moved = 0;
        while let Some(slot) = self.tracker.take_hearsay() {
            self.tell_session(io, slot);
            moved += 1;
        }
        moved
    }

    fn tell_session(&mut self, io: &mut N, slot: u32) {
        let mut next = self.tracker.first_of(slot);
        while let Some(seat) = next {
            next = self.tracker.next_of(seat);
            self.mark(seat);
            self.send_pending(io, seat);
        }
    }

    fn mark(&mut self, seat: u32) {
        if let Some(connection) = &mut self.connections[seat as usize] {
            let Attachment { ack, order, .. } = connection.attachment;
            if ack != AckLevel::None && order != OrderLevel::None {
                self.counters.coalesced += u64::from(connection.has_news);
                connection.has_news = true;
            }
        }
    }

    fn tell(&mut self, io: &mut N, item: News, now: Now) {
        match item {
            News::Refused { origin, code } => {
                let wanted = |seat: &u32| {
                    let connection = self.connections[*seat as usize].as_ref();
                    connection.is_some_and(|connection| connection.attachment.asked == Some(origin))
                };
                if let Some(index) = self.waiting.iter().position(wanted) {
                    let seat = self.waiting.swap_remove(index);
                    let refusal = Refusal::from_code(code.into()).unwrap_or(Refusal::Busy);
                    self.refuse(io, seat, refusal, 0, "the session cannot be opened: its table is full, or it expired");
                }
            }
            News::TopicDeleted { first } => {
                let mut next = Some(first);
                while let Some(seat) = next {
                    next = self.tracker.next_of(seat);
                    self.refuse(io, seat, Refusal::TopicDeleted, 0, "the topic was deleted, and this session with it");
                }
            }
            News::Closed { first } => {
                let mut next = Some(first);
                while let Some(seat) = next {
                    next = self.tracker.next_of(seat);
                    self.tracker.detach(seat);
                    if let Some(connection) = &mut self.connections[seat as usize] {
                        connection.closed_ns = Some(now.monotonic_ns);
                        self.closed.push(seat);
                    }
                }
            }
        }
    }

    /// Connections of a closed session that do not say goodbye themselves are told.
    fn tell_closed(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        for index in (0..self.closed.len()).rev() {
            let seat = self.closed[index];
            let since_ns = self.connections[seat as usize].as_ref().and_then(|connection| connection.closed_ns);
            if since_ns.is_none_or(|since_ns| now.monotonic_ns - since_ns > GOODBYE_NS) {
                self.closed.swap_remove(index);
                self.refuse(io, seat, Refusal::UnknownSession, 0, "the session was closed, or expired: open a new one");
                moved += 1;
            }
        }
        moved
    }

    /// Level 0: acks what has landed in the blog.
    fn ack_landed(&mut self, io: &mut N) -> usize {
        let mut moved = 0;
        for index in 0..self.landing.len() {
            let seat = self.landing[index];
            let Some(connection) = &mut self.connections[seat as usize] else { continue };
            let landed = self.links[connection.link].landed(connection.id.seat);
            if landed > connection.landed_acked && connection.sending == Sending::Nothing {
                connection.landed_acked = landed;
                connection.has_news = true;
                moved += 1;
                self.send_pending(io, seat);
            }
        }
        moved
    }

    /// Sends what a connection has to hear, if its socket is free.
    fn send_pending(&mut self, io: &mut N, seat: u32) {
        let asker = self.asker(seat);
        let Some(connection) = &mut self.connections[seat as usize] else { return };
        if connection.sending != Sending::Nothing || connection.is_closing || connection.has_failed {
            return;
        }
        if let Some(words) = connection.last_words.take() {
            connection.sending = Sending::Last;
            if io.send_owned(asker, connection.attachment.socket, words).is_none() {
                self.release(seat);
            }
            return;
        }
        if connection.waiting.is_some() {
            return;
        }
        let Attachment { socket, version, .. } = connection.attachment;
        if let Some(words) = self.brokers.news(&mut connection.told_brokers, version) {
            connection.sending = Sending::Brokers(words.len());
            connection.quiet.end();
            if io.send_owned(asker, socket, words.into()).is_none() {
                self.failed(seat);
            }
            return;
        }
        if !std::mem::take(&mut connection.has_news) {
            return;
        }
        let Some(mut ack) = self.tracker.ack(seat) else { return };
        let Attachment { socket, order, version, is_loopback, .. } = connection.attachment;
        if order != OrderLevel::Session {
            // Nothing is parked there: what is lost with a connection is sent again on another, and only then.
            ack.let_go_from = NOTHING_LET_GO;
        }
        if order == OrderLevel::None {
            ack = Ack { committed_next: connection.landed_acked, order_end: 0, ..ack };
        }
        ack.version = version;
        let frame = self.frames[seat as usize];
        *io.frame_mut(frame) = frame::seal(&ack);
        let zero_copy = zero_copy(&self.settings, is_loopback);
        connection.sending = Sending::Frame;
        connection.quiet.end();
        self.counters.acks_sent += 1;
        if io.send_frame(asker, socket, frame, zero_copy).is_none() {
            self.failed(seat);
        }
    }

    /// Says that we are there on connections that were told nothing for about as long as was promised.
    fn beat(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        // Thousands of empty seats are most of what a thread that rests would look at.
        if self.attached == 0 {
            return 0;
        }
        for seat in self.looks.due(self.connections.len(), now.monotonic_ns) {
            let seat = seat as u32;
            // It may have to be told of brokers that come or go.
            self.send_pending(io, seat);
            let asker = self.asker(seat);
            let Some(connection) = &mut self.connections[seat as usize] else { continue };
            let is_due = connection.quiet.look();
            let is_free = connection.sending == Sending::Nothing && connection.waiting.is_none();
            // Behind a part of a frame nothing can be said.
            let is_over = connection.is_closing || connection.has_failed || connection.last_words.is_some();
            if !is_due || !is_free || is_over || connection.attachment.version < frame::VERSION_3 {
                continue;
            }
            let frame = self.frames[seat as usize];
            let Attachment { version, socket, .. } = connection.attachment;
            *io.frame_mut(frame) = frame::seal(&Heartbeat { version, ..Heartbeat::default() });
            connection.sending = Sending::Frame;
            connection.quiet.end();
            moved += 1;
            // A copy of 64 bytes is cheaper than word of its release.
            if io.send_frame(asker, socket, frame, false).is_none() {
                self.failed(seat);
            }
        }
        moved
    }

    fn sent(&mut self, io: &mut N, seat: u32, completion: Completion) {
        if completion.stage == Stage::Accepted {
            // The slot comes back with the second completion; whether it was sent is said by the first.
            if let Some(connection) = &mut self.connections[seat as usize] {
                connection.is_broken |= !connection.sending.is_whole(completion.result);
            }
            return;
        }
        if let Stage::Released { copied } = completion.stage {
            self.counters.zero_copy_copied += u64::from(copied);
        }
        io.take_returned();
        let Some(connection) = &mut self.connections[seat as usize] else { return };
        let was = std::mem::replace(&mut connection.sending, Sending::Nothing);
        if was == Sending::Last || connection.is_closing {
            return self.release(seat);
        }
        // What the stages of a zero-copy send came to was said by the first.
        let is_whole = completion.stage != Stage::Done || was.is_whole(completion.result);
        if !is_whole || connection.is_broken {
            return self.failed(seat);
        }
        if let Sending::Welcome(_) = was {
            // Whatever happened while the welcome was under way.
            self.mark(seat);
        }
        self.send_pending(io, seat);
    }

    fn write_counters(&mut self) {
        self.counters.acked_messages = self.tracker.acked_messages();
        self.counters.acked_batches = self.tracker.acked_batches();
        self.counters.connections = self.connections.iter().flatten().count() as u64;
        self.block.write(&self.counters);
    }
}

/// Whether a 64-byte frame goes by zero copy. On loopback the kernel copies all the same, and pays for the notification.
fn zero_copy(settings: &AckSettings, is_loopback: bool) -> bool {
    match settings.send {
        SendMode::Copy => false,
        SendMode::ZeroCopy => true,
        SendMode::Auto => !is_loopback && settings.zero_copy_from_bytes <= FRAME_BYTES as u64,
    }
}

impl<M: Memory, N: Network> Role<N> for AckRole<M, N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Ack
    }

    fn start(&mut self, io: &mut N, index: u8, now: Now) -> Result<(), RoleError> {
        self.role = index;
        self.hearsay_ns = now.monotonic_ns;
        self.frames = io.lease_frames(self.connections.len() as u32);
        Ok(())
    }

    fn complete(&mut self, io: &mut N, completion: Completion, _now: Now) {
        let (seat, generation) = (completion.tag as u32, (completion.tag >> 32) as u32);
        let known = self.connections[seat as usize].as_ref();
        if known.is_some_and(|connection| connection.id.generation == generation) {
            self.sent(io, seat, completion);
        }
    }

    fn poll(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = self.hear(io, now, MESSAGES_PER_PASS);
        self.brokers.look(!self.waiting.is_empty(), now.monotonic_ns);
        moved += self.follow(io, now);
        moved += self.pass_on(io, now);
        moved += self.settle_waiting(io, now);
        moved += self.ack_landed(io);
        moved += self.tell_closed(io, now);
        moved + self.beat(io, now)
    }

    fn report(&mut self, now: Now) {
        self.write_counters();
        self.tracker.times.settle(now.utc_ns);
        self.tracker.times.write(now.monotonic_ns);
    }

    fn fault(&mut self) -> Option<RoleError> {
        self.fault.map(RoleError::new)
    }

    fn check(&self, _now: Now) {
        self.check_all();
    }

    fn waits_for(&self) -> Option<String> {
        Some(format!("{} connections to take their last acks", self.connections.iter().flatten().count()))
    }

    fn drain(&mut self, io: &mut N, now: Now) -> bool {
        self.poll(io, now);
        self.connections.iter().all(Option::is_none)
    }
}
