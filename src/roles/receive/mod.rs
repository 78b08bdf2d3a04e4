//! The receive core: accepts connections, reads hellos, and lands publishers' streams in the blog.
//!
//! The stream lands in place: one RECV is armed at the tail of the connection's run with all the room that is left; every complete
//! batch is published where it landed. Ring full or no extent: the next RECV is not armed, and TCP pushes back.
//!
//! * [`connection`]: one connection's state.
//! * [`hello`]: what a new connection may ask for.
//! * [`ingest`]: landed bytes to published slots; no I/O.

pub mod connection;
pub mod hello;
pub mod ingest;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::limits::{FRAME_HEADER_BYTES, RUN_BYTES_MIN};
use crate::log::View;
use crate::log::topics::{Topic, TopicReader};
use crate::net::{Asker, Completion, Operation, Ring};
use crate::observe::counters::{CounterBlock, ReceiveCounters};
use crate::pool::coherence::Coherence;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::pool::{Keep, Mapped};
use crate::roles::handoff::{AckLink, Attachment, ConnectionId, FromAck, Subscription, Subscriptions, ToAck, is_loopback};
use crate::runtime::{Now, Role, RoleError};
use crate::wire::frame::{self, HELLO_CREATE_TOPIC, Hello, NEW_SESSION, Welcome};
use crate::wire::{AckLevel, BatchDecoder, FrameKind, OrderLevel, Refusal, WireError};
use connection::{Connection, Phase, Stream};
use hello::{Refuse, Tokens};
use ingest::{Ingest, NEEDED_AT_LEAST, Next, StreamError};

/// What the configuration says about receiving.
#[derive(Clone, Debug)]
pub struct ReceiveSettings {
    /// Most connections served; a few more are accepted only to be told so.
    pub connections_max: u32,
    /// Most bytes asked for by one receive.
    pub receive_bytes_max: u64,
    /// Time a new connection has for its hello, ns.
    pub hello_timeout_ns: u64,
    /// Idle time after which a connection gives its run back, ns.
    pub idle_release_ns: u64,
    /// This broker's number.
    pub broker: u16,
    /// `id address` lines for the Welcome that answers a topic hello.
    pub broker_list: String,
    /// Whether lines are worth keeping in this host's cache after the write-back.
    pub keep: Keep,
    /// Topics this core creates if they do not exist.
    pub topics: Vec<Topic>,
}

/// Places beyond `connections_max` for connections that are only told that the broker is full.
pub const SPARE_CONNECTIONS: u32 = 16;
/// How often slow things are looked after, ns.
const HOUSEKEEPING_NS: u64 = 10_000_000;
/// How often counters are copied out and a full ring is logged, ns.
const REPORT_NS: u64 = 1_000_000_000;
/// How long a peer may take to read the last word, ns.
const LINGER_NS: u64 = 500_000_000;
/// Tag of the accept; connections have tags below.
const ACCEPT: u64 = u64::MAX;

/// One receive core.
pub struct Receive<C: Coherence> {
    name: String,
    role: u8,
    settings: ReceiveSettings,
    listener: Arc<TcpListener>,
    ingest: Ingest<Mapped<C>>,
    topics: TopicReader<Mapped<C>>,
    tokens: Tokens,
    link: Arc<AckLink>,
    subscriptions: Arc<Subscriptions>,
    connections: Vec<Option<Connection>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Connections that wait for ring slots or extents.
    blocked: Vec<u32>,
    accepting: Option<Operation>,
    is_draining: bool,
    sessions_issued: u64,
    /// Whether the next configured topic was asked for.
    topic_asked: bool,
    block: CounterBlock<Mapped<C>>,
    housekeeping_ns: u64,
    report_ns: u64,
    ring_full_reported: u64,
    extent_wait_reported: u64,
}

impl<C: Coherence> Receive<C> {
    /// A receive core for `lane`. The caller holds the host lock of the lane's broker.
    pub fn new(
        view: &View<Mapped<C>>,
        lane: u32,
        settings: ReceiveSettings,
        listener: Arc<TcpListener>,
        tokens: Tokens,
        link: Arc<AckLink>,
        subscriptions: Arc<Subscriptions>,
    ) -> Self {
        let places = settings.connections_max + SPARE_CONNECTIONS;
        Receive {
            name: format!("receive {}/{lane}", settings.broker),
            role: 0,
            ingest: Ingest::take(view, lane, settings.keep),
            topics: TopicReader::new(view),
            tokens,
            link,
            subscriptions,
            connections: (0..places).map(|_| None).collect(),
            generations: vec![0; places as usize],
            free: (0..places).rev().collect(),
            blocked: Vec::with_capacity(places as usize),
            accepting: None,
            is_draining: false,
            sessions_issued: 0,
            topic_asked: false,
            block: CounterBlock::new(view.memory.clone(), view.layout.receive_counters(lane)),
            housekeeping_ns: 0,
            report_ns: 0,
            ring_full_reported: 0,
            extent_wait_reported: 0,
            settings,
            listener,
        }
    }

    fn asker(&self, slot: u32) -> Asker {
        Asker { role: self.role, tag: u64::from(self.generations[slot as usize]) << 32 | u64::from(slot) }
    }

    fn connection(&mut self, slot: u32) -> &mut Connection {
        self.connections[slot as usize].as_mut().expect("the slot is taken")
    }

    fn in_use(&self) -> u32 {
        (self.connections.len() - self.free.len()) as u32
    }

    // ---- accepting and hellos ----

    fn accept(&mut self, io: &mut Ring) {
        if self.accepting.is_none() && !self.is_draining && !self.free.is_empty() {
            let asker = Asker { role: self.role, tag: ACCEPT };
            self.accepting = io.accept(asker, self.listener.as_raw_fd());
        }
    }

    fn accepted(&mut self, io: &mut Ring, result: i32, now: Now) {
        self.accepting = None;
        let Some(stream) = io.take_accepted() else {
            if result != -libc::ECANCELED && !self.is_draining {
                let error = std::io::Error::from_raw_os_error(-result);
                log::warn!("{}: cannot accept a connection: {error}", self.name);
            }
            return;
        };
        self.ingest.counters.accepted += 1;
        // Best effort: a connection without it is slower, not wrong.
        let _ = stream.set_nodelay(true);
        let Some(slot) = self.free.pop() else { return };
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1) & 0x00ff_ffff;
        let id = ConnectionId { slot, generation: self.generations[slot as usize] };
        self.connections[slot as usize] = Some(Connection {
            stream,
            id,
            phase: Phase::Hello { header: None },
            reading: None,
            cancelling: false,
            leaving: None,
            with_ack: false,
            active_ns: now.monotonic_ns,
            is_blocked: false,
        });
        if self.in_use() > self.settings.connections_max {
            let text = format!("this broker serves {} connections, all taken; try another", self.settings.connections_max);
            self.refuse(io, slot, Refuse::new(Refusal::Busy, 0, text), now);
        } else {
            self.read_hello(io, slot, FRAME_HEADER_BYTES);
        }
        self.accept(io);
    }

    fn read_hello(&mut self, io: &mut Ring, slot: u32, bytes: usize) {
        self.read_owned(io, slot, vec![0; bytes].into(), 0);
    }

    fn read_owned(&mut self, io: &mut Ring, slot: u32, buffer: Box<[u8]>, from: usize) {
        let asker = self.asker(slot);
        let socket = self.connection(slot).socket();
        // The tag of a short read says how far it had come, in the bits a slot and generation leave.
        assert!(from < 256, "hellos are short");
        let tag = asker.tag | (from as u64) << 56;
        let operation = io.receive_owned(Asker { tag, ..asker }, socket, buffer, from);
        self.connection(slot).reading = operation;
        if operation.is_none() {
            self.close_now(slot);
        }
    }

    fn hello_landed(&mut self, io: &mut Ring, slot: u32, from: usize, result: i32, now: Now) {
        let Some(buffer) = io.take_returned().filter(|_| result > 0) else {
            return self.peer_gone(io, slot, now);
        };
        let got = from + result as usize;
        if got < buffer.len() {
            return self.read_owned(io, slot, buffer, got);
        }
        let Phase::Hello { header } = &self.connection(slot).phase else { unreachable!("hellos are read in Hello") };
        let outcome = match *header {
            None => {
                let header: [u8; FRAME_HEADER_BYTES] = buffer[..].try_into().expect("a header was read");
                match self.check_hello_header(&header) {
                    Ok(body_bytes) => {
                        self.connection(slot).phase = Phase::Hello { header: Some(header) };
                        return self.read_hello(io, slot, body_bytes);
                    }
                    Err(error) => Err(Refuse::from(error)),
                }
            }
            Some(header) => frame::check_body(&header, &buffer)
                .and_then(frame::check_topic_name)
                .map(|name| (Box::new(frame::read::<Hello>(&header)), name.to_string()))
                .map_err(Refuse::from),
        };
        match outcome {
            Ok((hello, name)) => self.greet(io, slot, hello, name, now),
            Err(refuse) => self.refuse(io, slot, refuse, now),
        }
    }

    /// Bytes of the padded body that follows a sound hello header.
    fn check_hello_header(&self, header: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, WireError> {
        match frame::check(header, self.ingest.batch_bytes_max())? {
            FrameKind::Hello => {}
            found => return Err(WireError::UnexpectedKind { found, expected: "Hello" }),
        }
        let body_bytes = frame::frame_bytes(header) as usize - FRAME_HEADER_BYTES;
        if body_bytes == 0 { Err(WireError::TopicName { found: 0 }) } else { Ok(body_bytes) }
    }

    /// Finds or creates the topic, then serves the role asked for.
    fn greet(&mut self, io: &mut Ring, slot: u32, hello: Box<Hello>, name: String, now: Now) {
        if let Some(topic) = self.topics.find(&name).cloned() {
            let served = self.serve(slot, &hello, &topic, now);
            return self.settle(io, slot, served, now);
        }
        if hello.flags & HELLO_CREATE_TOPIC == 0 {
            let text = format!("there is no topic {name:?}; create it first");
            return self.refuse(io, slot, Refuse::new(Refusal::UnknownTopic, 0, text), now);
        }
        let wanted = match hello::wanted_topic(&hello, &name, now.utc_ns) {
            Ok(wanted) => wanted,
            Err(refuse) => return self.refuse(io, slot, refuse, now),
        };
        if !self.ingest.create_topic(&wanted) {
            let refuse = Refuse::new(Refusal::Busy, 0, "this broker's lane is full; try again");
            return self.refuse(io, slot, refuse, now);
        }
        self.connection(slot).phase = Phase::Topic { hello, name };
    }

    fn settle(&mut self, io: &mut Ring, slot: u32, outcome: Result<Option<Box<[u8]>>, Refuse>, now: Now) {
        match outcome {
            Ok(None) => self.read_on(io, slot),
            Ok(Some(words)) => self.say_last(io, slot, words, now),
            Err(refuse) => self.refuse(io, slot, refuse, now),
        }
    }

    /// Serves what was asked for; gives the last words, if there is nothing more to do.
    fn serve(&mut self, slot: u32, hello: &Hello, topic: &Topic, now: Now) -> Result<Option<Box<[u8]>>, Refuse> {
        hello::check_topic(hello, topic)?;
        match frame::Role::from_byte(hello.role)? {
            frame::Role::Publisher => self.serve_publisher(slot, hello, topic, now).map(|()| None),
            frame::Role::Subscriber => self.serve_subscriber(slot, hello, topic).map(|()| None),
            frame::Role::Topic => {
                let welcome = Welcome {
                    topic: topic.id,
                    batch_bytes_max: self.ingest.batch_bytes_max() as u32,
                    order_level: topic.order as u8,
                    ack_level: topic.ack as u8,
                    broker: self.settings.broker,
                    ..Welcome::default()
                };
                let words = frame::with_body(&welcome, self.settings.broker_list.as_bytes()).into();
                Ok(Some(words))
            }
        }
    }

    fn serve_publisher(&mut self, slot: u32, hello: &Hello, topic: &Topic, now: Now) -> Result<(), Refuse> {
        let ack = hello::check_publisher(hello, topic, &self.tokens)?;
        let is_new = hello.session == NEW_SESSION;
        let (session, session_epoch) = if is_new { (self.new_session(), 1) } else { (hello.session, hello.session_epoch) };
        // Epochs above the first are opened by whoever comes first; the sequencer ignores the others.
        if is_new || session_epoch > 1 {
            self.ask_to_open(session, session_epoch, topic, ack)?;
        }
        let by_connection = topic.order != OrderLevel::Session;
        let stream = Stream {
            session,
            session_epoch,
            topic: topic.id,
            receipts: topic.receipts,
            next_seq: by_connection.then_some(0),
            counts_landed: topic.order == OrderLevel::None,
            published: 0,
            run: None,
            landed: 0,
            parsed: 0,
            decoder: BatchDecoder::new(self.ingest.batch_bytes_max()),
            needed: NEEDED_AT_LEAST,
            run_bytes: RUN_BYTES_MIN,
        };
        self.link.set_landed(slot, 0);
        let token = self.tokens.token(session, topic.id);
        let connection = self.connection(slot);
        connection.phase = Phase::Streaming(Box::new(stream));
        connection.with_ack = true;
        connection.active_ns = now.monotonic_ns;
        let is_loopback = connection.stream.peer_addr().is_ok_and(|peer: SocketAddr| is_loopback(peer.ip()));
        let attachment = Attachment {
            socket: connection.socket(),
            session,
            is_new,
            session_epoch,
            token,
            topic: topic.id,
            order: topic.order,
            ack,
            is_loopback,
        };
        let id = connection.id;
        self.link.tell_ack(ToAck::Attach(id, attachment));
        Ok(())
    }

    /// Session ids are issued by a lane: lane, incarnation, count. Never 0.
    fn new_session(&mut self) -> u64 {
        self.sessions_issued += 1;
        let (lane, incarnation) = (u64::from(self.ingest.lane.lane()) + 1, self.ingest.lane.incarnation());
        lane << 52 | (incarnation & 0xf_ffff) << 32 | (self.sessions_issued & 0xffff_ffff)
    }

    fn ask_to_open(&mut self, session: u64, session_epoch: u32, topic: &Topic, ack: AckLevel) -> Result<(), Refuse> {
        let kind = slot_kind::SESSION_OPEN;
        let slot = BatchSlot { kind, ack_level: ack as u8, topic: topic.id, session, session_epoch, ..BatchSlot::default() };
        if self.ingest.control(slot) { Ok(()) } else { Err(Refuse::new(Refusal::Busy, 0, "this broker's lane is full; try again")) }
    }

    fn serve_subscriber(&mut self, slot: u32, hello: &Hello, topic: &Topic) -> Result<(), Refuse> {
        let connection = self.connection(slot);
        let stream = connection.stream.try_clone();
        let stream = stream.map_err(|error| Refuse::new(Refusal::Busy, 0, format!("the broker is out of descriptors: {error}")))?;
        let subscription = Subscription { stream, topic: topic.id, order: topic.order, start_order: hello.start_order };
        if self.subscriptions.push(subscription).is_err() {
            return Err(Refuse::new(Refusal::Busy, 0, "this broker serves all the subscribers it can; try another"));
        }
        // The exporter has its own descriptor of the connection: ours closes without ending it.
        self.forget(slot);
        Ok(())
    }

    // ---- streaming ----

    /// Begins to read a publisher's stream. An idle connection polls and owns no run.
    fn read_on(&mut self, io: &mut Ring, slot: u32) {
        let connection = self.connections[slot as usize].as_ref();
        if connection.is_some_and(|connection| matches!(connection.phase, Phase::Streaming(_))) {
            self.wait_readable(io, slot);
        }
    }

    fn wait_readable(&mut self, io: &mut Ring, slot: u32) {
        let asker = self.asker(slot);
        let socket = self.connection(slot).socket();
        let operation = io.poll_readable(asker, socket);
        self.connection(slot).reading = operation;
        if operation.is_none() {
            self.block(slot);
        }
    }

    /// Arms a receive at the tail of the run, with a fresh run where the old one does not do.
    fn arm(&mut self, io: &mut Ring, slot: u32, now: Now) {
        let run_bytes_max = self.run_bytes_max();
        let (asker, most) = (self.asker(slot), self.settings.receive_bytes_max);
        let connection = self.connections[slot as usize].as_mut().expect("the slot is taken");
        let socket = connection.socket();
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        if !self.ingest.make_room(stream, run_bytes_max) {
            return self.block(slot);
        }
        let run = stream.run.as_ref().expect("room was made");
        let (at, bytes) = (run.start + stream.landed, (run.bytes - stream.landed).min(most));
        connection.reading = io.receive_pool(asker, socket, at, bytes);
        connection.active_ns = now.monotonic_ns;
        if connection.reading.is_none() {
            self.block(slot);
        }
    }

    /// Longest run of a connection: all of them together take at most half of the lane's extents.
    fn run_bytes_max(&self) -> u64 {
        (self.ingest.lane_bytes() / 2 / u64::from(self.in_use().max(1))).max(RUN_BYTES_MIN)
    }

    fn block(&mut self, slot: u32) {
        let connection = self.connection(slot);
        if !connection.is_blocked {
            connection.is_blocked = true;
            self.blocked.push(slot);
        }
    }

    fn landed(&mut self, io: &mut Ring, slot: u32, bytes: u64, now: Now) {
        self.ingest.counters.received_bytes += bytes;
        self.ingest.counters.receives += 1;
        let connection = self.connection(slot);
        connection.active_ns = now.monotonic_ns;
        if let Some(stream) = connection.streaming() {
            stream.landed += bytes;
            self.publish(io, slot, now);
        }
    }

    /// Publishes what has landed, then arms the next receive.
    fn publish(&mut self, io: &mut Ring, slot: u32, now: Now) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is taken");
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        let next = self.ingest.publish_landed(stream, now.utc_ns);
        if stream.counts_landed {
            self.link.set_landed(slot, stream.published);
        }
        match next {
            Ok(Next::Receive) => self.arm(io, slot, now),
            Ok(Next::RingRoom) => self.block(slot),
            Ok(Next::Goodbye) => self.end(io, slot, true, now),
            Err(StreamError::Wire(error)) => {
                self.ingest.counters.protocol_errors += 1;
                self.refuse(io, slot, Refuse::from(error), now)
            }
            Err(StreamError::Refused(refusal, detail, text)) => {
                self.ingest.counters.protocol_errors += 1;
                self.refuse(io, slot, Refuse::new(refusal, detail, text), now)
            }
        }
    }

    /// Looks again at everything that waited for room. Gives how many got on.
    fn retry_blocked(&mut self, io: &mut Ring, now: Now) -> usize {
        let mut moved = 0;
        for _ in 0..self.blocked.len() {
            let slot = self.blocked.swap_remove(0);
            let Some(connection) = &mut self.connections[slot as usize] else { continue };
            connection.is_blocked = false;
            if connection.reading.is_some() || !matches!(connection.phase, Phase::Streaming(_)) {
                continue;
            }
            self.publish(io, slot, now);
            moved += usize::from(self.connections[slot as usize].as_ref().is_none_or(|connection| !connection.is_blocked));
        }
        moved
    }

    // ---- ending ----

    /// The peer closed or broke the connection.
    fn peer_gone(&mut self, io: &mut Ring, slot: u32, now: Now) {
        if let Some(stream) = self.connection(slot).streaming()
            && stream.is_in_mid_frame()
        {
            self.ingest.counters.partial_batches += 1;
        }
        self.end(io, slot, false, now);
    }

    /// Lets go of everything a connection holds, except what the kernel and the ack core still have.
    fn end(&mut self, io: &mut Ring, slot: u32, said_goodbye: bool, now: Now) {
        self.leave_stream(io, slot, Phase::Ending { linger: false }, said_goodbye, now);
        let connection = self.connection(slot);
        if connection.with_ack {
            let id = connection.id;
            self.link.tell_ack(ToAck::Close(id));
        } else if connection.reading.is_none() {
            self.forget(slot);
        }
    }

    /// Says why, and ends the conversation.
    fn refuse(&mut self, io: &mut Ring, slot: u32, refuse: Refuse, now: Now) {
        self.ingest.counters.refused += 1;
        let peer = self.connection(slot).stream.peer_addr().map_or("a peer that is gone".into(), |peer| peer.to_string());
        log::info!("{}: refused {peer}: {}", self.name, refuse.text);
        self.say_last(io, slot, refuse.frame(), now);
    }

    fn say_last(&mut self, io: &mut Ring, slot: u32, words: Box<[u8]>, now: Now) {
        self.leave_stream(io, slot, Phase::Ending { linger: true }, false, now);
        let connection = self.connection(slot);
        connection.with_ack = true;
        let (id, socket) = (connection.id, connection.socket());
        self.link.tell_ack(ToAck::Say(id, socket, words));
    }

    /// Changes to a phase in which nothing is landed any more. The run goes back now, or when the receive armed in it
    /// has completed.
    fn leave_stream(&mut self, io: &mut Ring, slot: u32, phase: Phase, said_goodbye: bool, now: Now) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is taken");
        connection.active_ns = now.monotonic_ns;
        let before = std::mem::replace(&mut connection.phase, phase);
        if let Some(operation) = connection.reading
            && !connection.cancelling
        {
            connection.cancelling = true;
            io.cancel(operation);
        }
        let Phase::Streaming(mut stream) = before else { return };
        if connection.reading.is_none() {
            self.ingest.release_run(&mut stream);
        }
        self.close_session(&stream, said_goodbye);
        self.connection(slot).leaving = Some(stream);
    }

    /// Tells the sequencer that a session is over: below level 5 with its connection, at level 5 when its publisher says so.
    fn close_session(&mut self, stream: &Stream, said_goodbye: bool) {
        if stream.next_seq.is_some() || said_goodbye {
            let (kind, session) = (slot_kind::SESSION_CLOSE, stream.session);
            // No room: the sequencer closes it when its place is needed.
            self.ingest.control(BatchSlot { kind, session, session_epoch: 1, ..BatchSlot::default() });
        }
    }

    fn left_stream(&mut self, slot: u32, received: i32) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is taken");
        if let Some(mut stream) = connection.leaving.take() {
            stream.landed += received.max(0) as u64;
            self.ingest.release_run(&mut stream);
        }
    }

    fn from_ack(&mut self, io: &mut Ring, now: Now) -> usize {
        let mut moved = 0;
        while let Some(message) = self.link.from_ack.pop() {
            moved += 1;
            let (FromAck::Released(id) | FromAck::Failed(id)) = message;
            let known = self.connections[id.slot as usize].as_ref().filter(|connection| connection.id == id);
            let Some(is_ending) = known.map(|connection| matches!(connection.phase, Phase::Ending { .. })) else { continue };
            match message {
                FromAck::Failed(_) if !is_ending => self.end(io, id.slot, false, now),
                FromAck::Failed(_) => {}
                FromAck::Released(_) => self.released(io, id.slot, is_ending, now),
            }
        }
        moved
    }

    fn released(&mut self, io: &mut Ring, slot: u32, is_ending: bool, now: Now) {
        if !is_ending {
            // The ack core itself refused the session, and has said so.
            self.leave_stream(io, slot, Phase::Ending { linger: true }, false, now);
        }
        let connection = self.connection(slot);
        connection.with_ack = false;
        connection.active_ns = now.monotonic_ns;
        if connection.reading.is_none() {
            self.part(io, slot);
        }
    }

    /// Neither the kernel nor the ack core uses the descriptor any more.
    fn part(&mut self, io: &mut Ring, slot: u32) {
        if matches!(self.connection(slot).phase, Phase::Ending { linger: true }) {
            self.linger(io, slot)
        } else {
            self.forget(slot)
        }
    }

    /// Reads and drops what the peer still sends, so that closing does not reset the word it has not read yet.
    fn linger(&mut self, io: &mut Ring, slot: u32) {
        let connection = self.connection(slot);
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        connection.phase = Phase::Lingering;
        self.read_owned(io, slot, vec![0; 16 << 10].into(), 0);
    }

    fn close_now(&mut self, slot: u32) {
        let _ = self.connection(slot).stream.shutdown(std::net::Shutdown::Both);
        self.forget(slot);
    }

    /// Drops the connection: nobody else uses its descriptor.
    fn forget(&mut self, slot: u32) {
        self.connections[slot as usize] = None;
        self.free.push(slot);
        self.ingest.counters.closed += 1;
    }

    // ---- completions and housekeeping ----

    fn read_finished(&mut self, io: &mut Ring, slot: u32, from: usize, result: i32, now: Now) {
        let connection = self.connection(slot);
        connection.reading = None;
        let cancelled = std::mem::take(&mut connection.cancelling);
        match &connection.phase {
            Phase::Hello { .. } => self.hello_landed(io, slot, from, result, now),
            Phase::Streaming(stream) if stream.run.is_none() => self.arm(io, slot, now),
            Phase::Streaming(_) if result > 0 => self.landed(io, slot, result as u64, now),
            Phase::Streaming(_) if cancelled && result == -libc::ECANCELED => self.rest(io, slot, now),
            Phase::Streaming(_) if result == -libc::EINTR || result == -libc::EAGAIN => self.arm(io, slot, now),
            Phase::Streaming(_) => self.peer_gone(io, slot, now),
            Phase::Topic { .. } => {}
            Phase::Ending { .. } => {
                io.take_returned();
                self.left_stream(slot, result);
                if !self.connection(slot).with_ack {
                    self.part(io, slot);
                }
            }
            Phase::Lingering => {
                io.take_returned();
                let late = now.monotonic_ns.saturating_sub(self.connection(slot).active_ns) > LINGER_NS;
                if result <= 0 || late { self.forget(slot) } else { self.read_owned(io, slot, vec![0; 16 << 10].into(), 0) }
            }
        }
    }

    /// An idle connection's receive was cancelled, and is over: it gives its run back and polls, or moves its half batch
    /// out of an extent that waits for it.
    fn rest(&mut self, io: &mut Ring, slot: u32, now: Now) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is taken");
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        if !stream.is_in_mid_frame() {
            self.ingest.release_run(stream);
            stream.run_bytes = RUN_BYTES_MIN;
            return self.wait_readable(io, slot);
        }
        self.ingest.move_out(stream);
        self.arm(io, slot, now);
    }

    fn housekeeping(&mut self, io: &mut Ring, now: Now) -> usize {
        if now.monotonic_ns - self.housekeeping_ns < HOUSEKEEPING_NS {
            return 0;
        }
        self.housekeeping_ns = now.monotonic_ns;
        let mut moved = self.create_topics();
        for slot in 0..self.connections.len() as u32 {
            moved += usize::from(self.look_after(io, slot, now));
        }
        if now.monotonic_ns - self.report_ns >= REPORT_NS {
            self.report_ns = now.monotonic_ns;
            self.report();
        }
        moved
    }

    /// Asks for the next configured topic that does not exist, one at a time, until it does.
    fn create_topics(&mut self) -> usize {
        let Some(wanted) = self.settings.topics.last() else { return 0 };
        if self.topics.find(&wanted.name).is_some() {
            self.settings.topics.pop();
            self.topic_asked = false;
            return 1;
        }
        if !self.topic_asked {
            self.topic_asked = self.ingest.create_topic(wanted);
        }
        0
    }

    fn look_after(&mut self, io: &mut Ring, slot: u32, now: Now) -> bool {
        let (hello_timeout, idle_release) = (self.settings.hello_timeout_ns, self.settings.idle_release_ns);
        let short = self.ingest.blog.free_extents() == 0;
        let Some(connection) = &mut self.connections[slot as usize] else { return false };
        let idle_ns = now.monotonic_ns.saturating_sub(connection.active_ns);
        match &connection.phase {
            Phase::Hello { .. } if idle_ns > hello_timeout => {
                self.refuse(io, slot, Refuse::new(Refusal::HelloTimeout, 0, "no complete hello came in time"), now);
                true
            }
            Phase::Topic { .. } => self.look_for_topic(io, slot, idle_ns > hello_timeout, now),
            Phase::Streaming(stream) if connection.reading.is_some() && !connection.cancelling => {
                let Some(run) = &stream.run else { return false };
                let in_the_way = self.ingest.blog.is_sealed(run);
                if stream.is_in_mid_frame() && short && idle_ns > hello_timeout {
                    self.ingest.counters.stalled_batches += 1;
                    let text = "a batch stood half sent while others waited for its memory; send it again";
                    self.refuse(io, slot, Refuse::new(Refusal::Busy, 0, text), now);
                    return true;
                }
                if idle_ns <= idle_release || stream.is_in_mid_frame() && !in_the_way {
                    return false;
                }
                connection.cancelling = true;
                connection.reading.into_iter().for_each(|operation| io.cancel(operation));
                true
            }
            Phase::Lingering if idle_ns > LINGER_NS && !connection.cancelling => {
                connection.cancelling = true;
                connection.reading.into_iter().for_each(|operation| io.cancel(operation));
                true
            }
            _ => false,
        }
    }

    fn look_for_topic(&mut self, io: &mut Ring, slot: u32, is_late: bool, now: Now) -> bool {
        let Phase::Topic { hello, name } = &self.connection(slot).phase else { return false };
        let (hello, name) = (hello.clone(), name.clone());
        if let Some(topic) = self.topics.find(&name).cloned() {
            let served = self.serve(slot, &hello, &topic, now);
            self.settle(io, slot, served, now);
            return true;
        }
        if is_late {
            let text = "the topic was not created in time: the topic table is full (geometry.topics_max), or no sequencer runs";
            self.refuse(io, slot, Refuse::new(Refusal::TopicTableFull, 0, text), now);
        }
        is_late
    }

    /// Copies the counters out, and logs what an operator should see, at most once a second.
    fn report(&mut self) {
        self.ingest.counters.connections = self.in_use().into();
        let counters: ReceiveCounters = self.ingest.counters;
        self.block.write(&counters);
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

impl<C: Coherence> Role<Ring> for Receive<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self, io: &mut Ring, index: u8, now: Now) -> Result<(), RoleError> {
        self.role = index;
        self.report_ns = now.monotonic_ns;
        self.accept(io);
        if self.accepting.is_none() {
            return Err(RoleError::new("the ring has no room for an accept"));
        }
        Ok(())
    }

    fn complete(&mut self, io: &mut Ring, completion: Completion, now: Now) {
        if completion.tag == ACCEPT {
            return self.accepted(io, completion.result, now);
        }
        let (slot, generation) = (completion.tag as u32, (completion.tag >> 32) as u32 & 0x00ff_ffff);
        let from = (completion.tag >> 56) as usize;
        if self.connections[slot as usize].as_ref().is_some_and(|connection| connection.id.generation == generation) {
            self.read_finished(io, slot, from, completion.result, now);
        }
    }

    fn poll(&mut self, io: &mut Ring, now: Now) -> usize {
        let mut moved = self.from_ack(io, now);
        self.accept(io);
        if !self.blocked.is_empty() || self.ingest.blog.free_extents() < 2 {
            moved += usize::from(self.ingest.refresh());
        }
        moved += self.retry_blocked(io, now);
        self.ingest.report(!self.blocked.is_empty());
        moved + self.housekeeping(io, now)
    }

    fn drain(&mut self, io: &mut Ring, now: Now) -> bool {
        if !self.is_draining {
            self.is_draining = true;
            self.accepting.into_iter().for_each(|operation| io.cancel(operation));
            for slot in 0..self.connections.len() as u32 {
                let Some(connection) = &self.connections[slot as usize] else { continue };
                if matches!(connection.phase, Phase::Ending { .. } | Phase::Lingering) {
                    continue;
                }
                self.refuse(io, slot, Refuse::new(Refusal::Draining, 0, "this broker is shutting down; use another"), now);
            }
        }
        self.from_ack(io, now);
        self.housekeeping(io, now);
        let drained = self.in_use() == 0 && self.accepting.is_none();
        if drained {
            self.report();
        }
        drained
    }
}

/// A listener on `address`, shared by the receive cores of a broker.
pub fn listen(address: SocketAddr) -> std::io::Result<Arc<TcpListener>> {
    TcpListener::bind(address).map(Arc::new)
}
