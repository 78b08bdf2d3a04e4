//! The receive core: accepts connections, reads hellos, and lands publishers' streams in the blog.
//!
//! A stream that has something is received into a buffer that stays in this core's cache, checked there, and written to its place in the
//! blog past the caches: memory is touched once. Ring full or no extent: nothing is received, and TCP pushes back.
//!
//! * `greeting`, `streaming`, `ending`: the three parts of a connection's life. `control`: the life of one that asks.
//! * [`connection`]: one connection's state. [`stream`]: that of a publisher's. [`landing`]: where its bytes land.
//! * [`hello`]: what a new connection may ask for.
//! * [`requests`], `cursors`: what a control connection may ask for, one function for each operation; no I/O. [`desk`]: what these have in
//!   common.
//! * `restraint`: what is said in the log of what others do.
//! * [`ingest`]: landed bytes to published slots; no I/O.
//! * `invariants`: what holds between two passes.

pub mod connection;
mod control;
#[cfg(test)]
mod cursor_tests;
mod cursors;
pub mod desk;
mod ending;
mod greeting;
pub mod hello;
pub mod ingest;
mod invariants;
pub mod landing;
pub mod requests;
mod restraint;
pub mod stream;
mod streaming;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::RUN_BYTES_MIN;
use crate::log::View;
use crate::log::cursors::CursorReader;
use crate::log::member::Member;
use crate::log::topics::{Topic, TopicReader};
use crate::net::network::Handle;
use crate::net::{Asker, Completion, Network, Operation, Socket};
use crate::observe::counters::{CounterBlock, ReceiveCounters};
use crate::pool::record::{BatchSlot, slot_kind};
use crate::pool::{Keep, Memory};
use crate::roles::addresses::{AddressBounds, Addresses};
use crate::roles::distance::Distances;
use crate::roles::handoff::{AckLink, ConnectionId, Subscriptions};
use crate::roles::rounds::Rounds;
use crate::roles::tokens::Tokens;
use crate::runtime::{Blocked, Now, Role, RoleError, RoleKind};
use crate::wire::Refusal;
use crate::wire::frame::NEW_SESSION;
use connection::{Connection, Phase};
use hello::Refuse;
use ingest::Ingest;
use landing::Landing;
use restraint::Restraint;
use stream::Terms;

/// What the configuration says about receiving.
#[derive(Clone, Debug)]
pub struct ReceiveSettings {
    /// Most connections served; a few more are accepted only to be told so.
    pub connections_max: u32,
    /// Most bytes taken from a connection before others have their turn.
    pub receive_bytes_max: u64,
    /// Most bytes of one receive: length of a landing buffer.
    pub landing_bytes: u64,
    /// Receives whose bytes may wait for room at a time, and one; at least one.
    pub landing_buffers: u32,
    /// Time a new connection has for its hello, ns.
    pub hello_timeout_ns: u64,
    /// Idle time after which a connection gives its run back, ns.
    pub idle_release_ns: u64,
    /// Silence after which a publisher that promised to be heard is gone, ns; 0: never.
    pub client_silence_ns: u64,
    /// Silence after which the sequencer may end a session, ns.
    pub session_expiry_ns: u64,
    /// This broker's number.
    pub broker: u16,
    /// How often clients are told that this broker is there, ms; 0: never.
    pub heartbeat_ms: u32,
    /// What hellos name this broker's log by.
    pub log_tag: u32,
    /// Whether lines are worth keeping in this host's cache after the write-back.
    pub keep: Keep,
    /// Topics this core creates if they do not exist.
    pub topics: Vec<Topic>,
}

/// Places beyond `connections_max` for connections that are only told that the broker is full.
pub const SPARE_CONNECTIONS: u32 = 16;
/// How often slow things are looked after, ns.
const HOUSEKEEPING_NS: u64 = 10_000_000;
/// How often it is said of a session that nothing was published to here that it is connected, ns: its place is the first to go.
const UNUSED_SAID_NS: u64 = 1_000_000_000;
/// How long a peer may take to read the last word, ns.
const LINGER_NS: u64 = 500_000_000;
/// Tag of the accept; connections have tags below.
const ACCEPT: u64 = u64::MAX;
/// Bit in the tag of what is written to a connection.
const WRITE: u64 = 1 << 56;

/// One receive core.
pub struct Receive<M: Memory, N: Network> {
    name: String,
    role: u8,
    settings: ReceiveSettings,
    listener: Arc<N::Listener>,
    ingest: Ingest<M>,
    landing: Landing,
    topics: TopicReader<M>,
    cursors: CursorReader<M>,
    tokens: Tokens,
    link: Arc<AckLink<Handle<N>>>,
    subscriptions: Arc<Subscriptions<N::Socket>>,
    /// Apart, for most seats are empty and all are looked at often.
    connections: Vec<Option<Box<Connection<N::Socket>>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Connections that wait for ring slots or extents.
    blocked: Vec<u32>,
    /// Connections whose request waits for the sequencer.
    asking: Vec<u32>,
    asked_ns: u64,
    /// Connections whose turn has not come.
    held_back: VecDeque<ConnectionId>,
    heard_back_ns: u64,
    restraint: Restraint<Refusal>,
    addresses: Arc<Addresses>,
    accepting: Option<Operation>,
    /// No connection is accepted before then: descriptors were out, or one was reset; and how often they were since it was last said.
    accept_again_ns: u64,
    /// Since when connections were reset unheard, ns, and how many.
    resets: (u64, u32),
    accepts_failed: u64,
    accepts_failed_said_ns: u64,
    is_draining: bool,
    /// It has said that it stopped.
    has_left: bool,
    /// Whether the next configured topic was asked for.
    topic_asked: bool,
    block: CounterBlock<M>,
    /// The broker's line, if this core looks after it.
    member: Option<Member<M>>,
    housekeeping_ns: u64,
    rounds: Rounds,
    distances: Distances,
    ring_full_reported: u64,
    extent_wait_reported: u64,
}

impl<M: Memory, N: Network> Receive<M, N> {
    /// A receive core for `lane`. The caller holds the host lock of the lane's broker.
    pub fn new(
        view: &View<M>,
        lane: u32,
        settings: ReceiveSettings,
        listener: Arc<N::Listener>,
        tokens: Tokens,
        link: Arc<AckLink<Handle<N>>>,
        subscriptions: Arc<Subscriptions<N::Socket>>,
    ) -> Self {
        let seats = settings.connections_max + SPARE_CONNECTIONS;
        Receive {
            name: format!("receive {}/{lane}", settings.broker),
            role: 0,
            ingest: Ingest::take(view, lane, settings.keep),
            landing: Landing::new(settings.landing_buffers, settings.landing_bytes),
            topics: TopicReader::new(view),
            cursors: CursorReader::new(view),
            tokens,
            link,
            subscriptions,
            connections: (0..seats).map(|_| None).collect(),
            generations: vec![0; seats as usize],
            free: (0..seats).rev().collect(),
            blocked: Vec::with_capacity(seats as usize),
            asking: Vec::with_capacity(seats as usize),
            asked_ns: 0,
            held_back: VecDeque::with_capacity(seats as usize),
            heard_back_ns: 0,
            restraint: Restraint::default(),
            addresses: Addresses::new(AddressBounds::NONE),
            accepting: None,
            accept_again_ns: 0,
            resets: (0, 0),
            accepts_failed: 0,
            accepts_failed_said_ns: 0,
            is_draining: false,
            has_left: false,
            topic_asked: false,
            block: CounterBlock::new(view.memory.clone(), view.layout.receive_counters(lane)),
            member: None,
            housekeeping_ns: 0,
            rounds: Rounds::default(),
            distances: Distances::default(),
            ring_full_reported: 0,
            extent_wait_reported: 0,
            settings,
            listener,
        }
    }

    /// The core that shows, in its broker's line, that the broker lives: one of them does.
    pub fn that_beats(self, member: Member<M>) -> Self {
        Receive { member: Some(member), ..self }
    }

    /// A core that keeps to what each address may have; shared by all cores of a process's broker.
    pub fn that_shares(self, addresses: Arc<Addresses>) -> Self {
        Receive { addresses, ..self }
    }

    fn asker(&self, seat: u32) -> Asker {
        Asker { role: self.role, tag: u64::from(self.generations[seat as usize]) << 32 | u64::from(seat) }
    }

    fn connection(&mut self, seat: u32) -> &mut Connection<N::Socket> {
        self.connections[seat as usize].as_mut().expect("the seat is taken")
    }

    fn in_use(&self) -> u32 {
        (self.connections.len() - self.free.len()) as u32
    }

    fn read_finished(&mut self, io: &mut N, seat: u32, from: usize, result: i32, now: Now) {
        let connection = self.connection(seat);
        connection.reading = None;
        connection.cancelling = false;
        match &connection.phase {
            Phase::Hello { .. } => self.hello_landed(io, seat, from, result, now),
            Phase::Streaming(_) => self.receive(io, seat, now),
            // Nothing is read meanwhile.
            Phase::Asking(_) | Phase::Replying => {}
            Phase::Ending { .. } => {
                io.take_returned();
                if self.connection(seat).is_unused() {
                    self.part(io, seat);
                }
            }
            Phase::Lingering => self.dropped(io, seat, result, now),
        }
    }

    /// Looks after every connection, each once in [`HOUSEKEEPING_NS`].
    fn look_after_all(&mut self, io: &mut N, now: Now) -> usize {
        let count = self.connections.len();
        let mut moved = 0;
        if self.in_use() == 0 {
            return 0;
        }
        for seat in self.rounds.due(count, HOUSEKEEPING_NS, count, now.monotonic_ns) {
            let seat = seat as u32;
            moved += usize::from(self.look_after(io, seat, now));
            moved += usize::from(self.say_it_is_connected(seat, now));
        }
        moved
    }

    fn housekeeping(&mut self, io: &mut N, now: Now) -> usize {
        let looked = self.look_after_all(io, now);
        if now.monotonic_ns - self.housekeeping_ns < HOUSEKEEPING_NS {
            return looked;
        }
        self.housekeeping_ns = now.monotonic_ns;
        if let Some(member) = &mut self.member {
            member.beat(now.monotonic_ns);
        }
        if self.waits_for_room() {
            self.ingest.lane.beat();
        }
        // It may be asked for memory back while nothing happens here.
        looked + usize::from(self.ingest.refresh()) + self.create_topics()
    }

    /// Whether a stream, or a request, waits for memory or a slot of the lane.
    fn waits_for_room(&self) -> bool {
        !self.blocked.is_empty() || self.ingest.lane.is_denied()
    }

    /// Asks for the next configured topic that does not exist, one at a time, until it does.
    fn create_topics(&mut self) -> usize {
        let Some(wanted) = self.settings.topics.last() else { return 0 };
        if self.topics.find(&wanted.name).is_some() {
            self.settings.topics.pop();
            self.topic_asked = false;
            return 1;
        }
        if self.topic_asked {
            return 0;
        }
        self.topic_asked = self.ingest.lane.ask_for_topic(wanted).is_some();
        usize::from(self.topic_asked)
    }

    fn look_after(&mut self, io: &mut N, seat: u32, now: Now) -> bool {
        let hello_timeout = self.settings.hello_timeout_ns;
        if self.is_silent(seat, now) {
            self.peer_gone(io, seat, now);
            return true;
        }
        let Some(connection) = &mut self.connections[seat as usize] else { return false };
        let idle_ns = now.monotonic_ns.saturating_sub(connection.active_ns);
        match &connection.phase {
            Phase::Hello { .. } if idle_ns > hello_timeout => {
                let text = "no complete hello or request came in time";
                self.refuse(io, seat, Refuse::new(Refusal::HelloTimeout, 0, text), now);
                true
            }
            Phase::Replying if idle_ns > if self.is_draining { LINGER_NS } else { 2 * hello_timeout } => {
                // It does not read: the send ends with an error.
                connection.active_ns = now.monotonic_ns;
                connection.socket.abort();
                true
            }
            Phase::Streaming(_) if !connection.is_blocked => self.look_after_run(io, seat, now),
            // It takes nothing, not even the last words: what is being sent fails now, and whoever sends it lets go.
            Phase::Ending { .. }
                if idle_ns > LINGER_NS && !connection.is_cut && (connection.with_ack || connection.is_writing) =>
            {
                // Not shut down, which would wait for what is queued: a frame lent to the kernel must come back.
                (connection.is_cut, connection.active_ns) = (true, now.monotonic_ns);
                connection.socket.abort();
                true
            }
            Phase::Lingering if idle_ns > LINGER_NS && !connection.cancelling => {
                match connection.reading {
                    Some(operation) => {
                        connection.cancelling = true;
                        io.cancel(operation);
                    }
                    None => self.forget(seat),
                }
                true
            }
            _ => false,
        }
    }

    /// An idle stream gives its run back, or moves half a batch out of an extent that waits for it, or lets go of that where memory is short.
    fn look_after_run(&mut self, io: &mut N, seat: u32, now: Now) -> bool {
        let (hello_timeout, idle_release) = (self.settings.hello_timeout_ns, self.settings.idle_release_ns);
        let short = self.ingest.lane.free_extents() == 0;
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let idle_ns = now.monotonic_ns.saturating_sub(connection.active_ns);
        let Phase::Streaming(stream) = &mut connection.phase else { return false };
        let Some(run) = &stream.run else { return false };
        match stream.has_half_a_batch() {
            true if short && idle_ns > hello_timeout => self.refuse_half_batch(io, seat, now),
            true if idle_ns > idle_release && self.ingest.lane.is_sealed(run) => self.ingest.move_out(stream),
            false if idle_ns > idle_release => {
                self.ingest.release_run(stream);
                stream.run_bytes = RUN_BYTES_MIN;
            }
            _ => return false,
        }
        true
    }

    /// Tells the sequencer now and then that a session is connected, whether anything comes or not: one that nobody has is ended when
    /// others want its place.
    fn say_it_is_connected(&mut self, seat: u32, now: Now) -> bool {
        let Some(connection) = &mut self.connections[seat as usize] else { return false };
        let Phase::Streaming(stream) = &connection.phase else { return false };
        let quarter_ns = self.settings.session_expiry_ns / 4;
        let every_ns = if stream.published == 0 { quarter_ns.min(UNUSED_SAID_NS) } else { quarter_ns };
        if now.monotonic_ns.saturating_sub(connection.said_ns) < every_ns {
            return false;
        }
        let Terms { session, session_epoch, topic, .. } = stream.terms;
        if session == NEW_SESSION {
            // Its publisher was not told of it either.
            return false;
        }
        let kind = slot_kind::SESSION_ALIVE;
        // Without room it is said at the next look.
        let is_said = self.ingest.control(BatchSlot { kind, topic, session, session_epoch, ..BatchSlot::default() });
        if is_said {
            connection.said_ns = now.monotonic_ns;
        }
        is_said
    }

    /// Lets go of a half batch whose memory others need; its publisher sends it again.
    fn refuse_half_batch(&mut self, io: &mut N, seat: u32, now: Now) {
        self.ingest.counters.stalled_batches += 1;
        let text = "a batch stood half sent while others waited for its memory; send it again";
        self.refuse(io, seat, Refuse::new(Refusal::Busy, 0, text), now);
    }

    /// Copies the counters out, and logs what an operator should see.
    fn write_counters(&mut self, now: Now) {
        self.ingest.counters.connections = self.in_use().into();
        let connections = &self.connections;
        let farthest =
            self.distances.look(connections.len(), |place| connections[place].as_ref().map(|one| &one.socket));
        self.ingest.counters.farthest_us = farthest.round_trip_us;
        self.ingest.counters.farthest_address = farthest.address;
        let counters: ReceiveCounters = self.ingest.counters;
        self.block.write(&counters);
        self.ingest.write_times();
        while let Some((refusal, more)) = self.restraint.overdue(now.monotonic_ns) {
            log::info!("{}: refused ({refusal:?}) {more}", self.name);
        }
        let full = counters.ring_full - self.ring_full_reported;
        if full > 0 {
            log::warn!("{}: Ring full: {full} times since the last report; publishers wait", self.name);
        }
        let short = counters.extent_wait - self.extent_wait_reported;
        if short > 0 {
            log::debug!("{}: no free extent: {short} times since the last report; publishers wait", self.name);
        }
        (self.ring_full_reported, self.extent_wait_reported) = (counters.ring_full, counters.extent_wait);
    }
}

impl<M: Memory, N: Network> Role<N> for Receive<M, N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Receive
    }

    fn start(&mut self, io: &mut N, index: u8, now: Now) -> Result<(), RoleError> {
        self.role = index;
        self.accept(io, now);
        if self.accepting.is_none() {
            return Err(RoleError::new("the ring has no room for an accept"));
        }
        Ok(())
    }

    fn complete(&mut self, io: &mut N, completion: Completion, now: Now) {
        if completion.tag == ACCEPT {
            return self.accepted(io, completion.result, now);
        }
        let (seat, generation) = (u32::from(completion.tag as u16), (completion.tag >> 32) as u32 & 0x00ff_ffff);
        let from = usize::from((completion.tag >> 16) as u16);
        if self.connections[seat as usize].as_ref().is_some_and(|connection| connection.id.generation == generation) {
            match completion.tag & WRITE != 0 {
                true => self.written(io, seat, completion.result, now),
                false => self.read_finished(io, seat, from, completion.result, now),
            }
        }
    }

    fn poll(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = self.hear_ack(io, now);
        moved += usize::from(self.accept(io, now));
        if self.waits_for_room() || self.ingest.lane.free_extents() < 2 {
            moved += usize::from(self.ingest.refresh());
        }
        moved += self.retry_blocked(io, now);
        moved += self.hear_those_held_back(io, now);
        moved += self.look_at_requests(io, now);
        self.ingest.report(self.waits_for_room());
        moved + self.housekeeping(io, now)
    }

    fn report(&mut self, now: Now) {
        self.write_counters(now);
    }

    fn blocked(&self) -> Option<Blocked> {
        let on = || if self.ingest.lane.room() == 0 { Blocked::Ring } else { Blocked::Memory };
        self.waits_for_room().then(on)
    }

    fn check(&self, now: Now) {
        self.check_all(now);
    }

    fn waits_for(&self) -> Option<String> {
        let accepting = if self.accepting.is_some() { ", and the kernel to stop accepting" } else { "" };
        Some(format!("{} connections to end{accepting}", self.in_use()))
    }

    fn drain(&mut self, io: &mut N, now: Now) -> bool {
        if !self.is_draining {
            self.is_draining = true;
            self.member.iter_mut().for_each(Member::leave);
            self.accepting.into_iter().for_each(|operation| io.cancel(operation));
            for seat in 0..self.connections.len() as u32 {
                let Some(connection) = &self.connections[seat as usize] else { continue };
                // One that is being answered is told when it has been: two words under way could outlive its descriptor.
                if matches!(connection.phase, Phase::Ending { .. } | Phase::Lingering | Phase::Replying) {
                    continue;
                }
                self.refuse(io, seat, Refuse::draining(), now);
            }
        }
        self.hear_ack(io, now);
        self.housekeeping(io, now);
        let drained = self.in_use() == 0 && self.accepting.is_none();
        if drained && !std::mem::replace(&mut self.has_left, true) {
            // Nothing is armed any more: it needs no memory until it is back, if it ever is.
            self.ingest.leave();
            self.member.iter_mut().for_each(Member::stop);
        }
        drained
    }
}
