//! Accepting connections, reading their hellos and requests, and serving what hellos ask for.

use std::time::Duration;

use crate::limits::FRAME_HEADER_BYTES;
use crate::log::topics::Topic;
use crate::net::{Asker, Network, Socket};
use crate::pool::Memory;
use crate::roles::addresses::{Admission, Admitted, Cost, Turn};
use crate::roles::handoff::{Attachment, ConnectionId, Subscription, ToAck, is_loopback};
use crate::roles::receive::connection::{Connection, DROPPED_OF_STREAM_MAX, Phase};
use crate::roles::receive::hello::{self, Refuse};
use crate::roles::receive::stream::{Stream, Terms};
use crate::roles::receive::{ACCEPT, Receive};
use crate::runtime::Now;
use crate::wire::frame::{self, Hello, NEW_SESSION};
use crate::wire::{FrameKind, OrderLevel, Refusal, SlowReader, WireError};

/// Pause after an accept that failed, and between two lines about it, ns.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;
const ACCEPT_SAID_NS: u64 = 10_000_000_000;
/// Connections that are reset unheard in so long, ns, before there is a pause: who comes as fast as it goes costs others' batches no more
/// of a core, and those behind it in the listener's queue have their turn within a second though it is full.
const RESETS_MAX: u32 = 16;
const RESETS_NS: u64 = 1_000_000;
/// Wait of a connection that is one too many of its address, ns: another may end, and who asks again at once does not ask often.
const TOO_MANY_WAIT_NS: u64 = 250_000_000;
/// How often it is looked at whose turn has come, ns.
const HELD_BACK_LOOK_NS: u64 = 1_000_000;

/// What follows the header of a connection's first frame.
enum Opening {
    /// This many bytes of padded body; none only of a request.
    Body(usize),
    /// Nothing.
    Goodbye,
    /// Nothing, and another frame is due.
    Heartbeat,
}

impl<M: Memory, N: Network> Receive<M, N> {
    /// Asks for the next connection: one a pass, so that whoever comes as fast as it goes is no more of a pass than one publisher is.
    /// True if it was not asked for before.
    pub(super) fn accept(&mut self, io: &mut N, now: Now) -> bool {
        let may = !self.is_draining && !self.free.is_empty() && now.monotonic_ns >= self.accept_again_ns;
        if may && self.accepting.is_none() {
            let asker = Asker { role: self.role, tag: ACCEPT };
            self.accepting = io.accept(asker, &self.listener);
            return self.accepting.is_some();
        }
        false
    }

    pub(super) fn accepted(&mut self, io: &mut N, result: i32, now: Now) {
        self.accepting = None;
        let Some(socket) = io.take_accepted() else {
            if result != -libc::ECANCELED && !self.is_draining {
                self.accept_failed(-result, now);
            }
            return;
        };
        self.ingest.counters.accepted += 1;
        let Some((admission, turn)) = self.admitted(&socket, now) else {
            return self.reset_unheard(&socket, now);
        };
        // A connection that the kernel does not do it for is slower, or is found dead later, not wrong.
        socket.prepare(Duration::from_nanos(self.settings.client_silence_ns));
        let Some(seat) = self.free.pop() else { return };
        self.generations[seat as usize] = self.generations[seat as usize].wrapping_add(1) & 0x00ff_ffff;
        let id = ConnectionId { seat, generation: self.generations[seat as usize] };
        self.connections[seat as usize] = Some(Box::new(Connection::new(id, socket, Some(admission), now)));
        if self.is_draining {
            // The kernel had it before the accept was cancelled.
            self.refuse(io, seat, Refuse::draining(), now);
        } else if self.in_use() > self.settings.connections_max {
            let text =
                format!("this broker serves {} connections, all taken; try another", self.settings.connections_max);
            self.refuse(io, seat, Refuse::new(Refusal::Busy, 0, text), now);
        } else if let Turn::At(turn_ns) = turn {
            self.ingest.counters.held_back += 1;
            let connection = self.connection(seat);
            (connection.turn_ns, connection.active_ns) = (turn_ns, turn_ns);
            self.held_back.push_back(id);
        } else {
            self.read_hello(io, seat, FRAME_HEADER_BYTES);
        }
    }

    fn reset_unheard(&mut self, socket: &N::Socket, now: Now) {
        self.ingest.counters.reset_unheard += 1;
        self.ingest.counters.closed += 1;
        let (since_ns, resets) = self.resets;
        self.resets = match now.monotonic_ns - since_ns < RESETS_NS {
            true => (since_ns, resets + 1),
            false => (now.monotonic_ns, 1),
        };
        if self.resets.1 >= RESETS_MAX {
            self.accept_again_ns = self.resets.0 + RESETS_NS;
        }
        socket.abort();
    }

    /// A new connection's place among those of its address, and when it is heard. Nothing: it is not.
    fn admitted(&self, socket: &N::Socket, now: Now) -> Option<(Admission, Turn)> {
        let peer = socket.peer().map(|peer| peer.ip());
        let (admission, earliest_ns) = match self.addresses.admit(peer, now.monotonic_ns) {
            Admitted::Yes(admission) => (admission, None),
            Admitted::Full(admission) => (admission, Some(now.monotonic_ns + TOO_MANY_WAIT_NS)),
            Admitted::Crowd => return None,
        };
        let turn_ns = match self.addresses.charge(admission.address, Cost::Opening, now.monotonic_ns) {
            Turn::Never => return None,
            Turn::Now => None,
            Turn::At(turn_ns) => Some(turn_ns),
        };
        Some((admission, turn_ns.max(earliest_ns).map_or(Turn::Now, Turn::At)))
    }

    /// Hears the connections whose turn has come. Gives how many.
    pub(super) fn hear_those_held_back(&mut self, io: &mut N, now: Now) -> usize {
        if self.held_back.is_empty() || now.monotonic_ns - self.heard_back_ns < HELD_BACK_LOOK_NS {
            return 0;
        }
        self.heard_back_ns = now.monotonic_ns;
        let mut moved = 0;
        // Addresses wait each for its own: the turns of the queue are in no order.
        for _ in 0..self.held_back.len() {
            let id = self.held_back.pop_front().expect("counted");
            let known = self.connections[id.seat as usize].as_ref().filter(|connection| connection.id == id);
            let Some(connection) = known else { continue };
            if !matches!(connection.phase, Phase::Hello { .. }) {
                continue;
            }
            if connection.turn_ns > now.monotonic_ns {
                self.held_back.push_back(id);
                continue;
            }
            self.hear_or_refuse(io, id.seat, now);
            moved += 1;
        }
        moved
    }

    fn hear_or_refuse(&mut self, io: &mut N, seat: u32, now: Now) {
        let connection = self.connection(seat);
        if !connection.admission.as_mut().is_some_and(Admission::is_one_too_many) {
            return self.read_hello(io, seat, FRAME_HEADER_BYTES);
        }
        let most = self.addresses.bounds().connections;
        self.ingest.counters.address_bounds += 1;
        let text = format!(
            "this address has all the {most} connections to this broker that one address may have (per_address.connections): close \
             some, or use another broker"
        );
        self.refuse(io, seat, Refuse::new(Refusal::Busy, most.into(), text), now);
    }

    /// The process or the machine is out of something, as a rule of descriptors: at once there will be no more of it. Connections wait
    /// in the listener's queue until it is tried again.
    fn accept_failed(&mut self, errno: i32, now: Now) {
        self.accepts_failed += 1;
        self.accept_again_ns = now.monotonic_ns + ACCEPT_PAUSE_NS;
        if self.accepts_failed_said_ns == 0 || now.monotonic_ns - self.accepts_failed_said_ns >= ACCEPT_SAID_NS {
            self.accepts_failed_said_ns = now.monotonic_ns;
            let (error, times) = (std::io::Error::from_raw_os_error(errno), std::mem::take(&mut self.accepts_failed));
            log::warn!(
                "{}: cannot accept a connection ({times} times since this was last said): {error}; raise the limit of open files \
                 (`ulimit -n`), or lower receive.connections_max and export.connections_max",
                self.name
            );
        }
    }

    pub(super) fn read_hello(&mut self, io: &mut N, seat: u32, bytes: usize) {
        self.read_owned(io, seat, vec![0; bytes].into(), 0);
    }

    pub(super) fn read_owned(&mut self, io: &mut N, seat: u32, buffer: Box<[u8]>, from: usize) {
        let asker = self.asker(seat);
        let socket = self.connection(seat).socket.handle();
        // The tag of a short read says how far it had come, in the bits that seat and generation leave.
        let tag = asker.tag | (from as u64) << 16;
        let operation = io.receive_owned(Asker { tag, ..asker }, socket, buffer, from);
        self.connection(seat).reading = operation;
        if operation.is_none() {
            self.close_now(seat);
        }
    }

    pub(super) fn hello_landed(&mut self, io: &mut N, seat: u32, from: usize, result: i32, now: Now) {
        let Some(buffer) = io.take_returned().filter(|_| result > 0) else {
            return self.peer_gone(io, seat, now);
        };
        let got = from + result as usize;
        if got < buffer.len() {
            return self.read_owned(io, seat, buffer, got);
        }
        let Phase::Hello { header, is_control } = self.connection(seat).phase else {
            unreachable!("hellos are read in Hello")
        };
        match header {
            None => {
                let header: [u8; FRAME_HEADER_BYTES] = buffer[..].try_into().expect("a header was read");
                self.opening_landed(io, seat, header, is_control, now)
            }
            Some(header) if header[5] == FrameKind::Request as u8 => self.ask(io, seat, &header, &buffer, now),
            Some(header) => {
                if let Err(refuse) = self.hello_whole(io, seat, &header, &buffer, now) {
                    self.refuse(io, seat, refuse, now);
                }
            }
        }
    }

    /// The header of a connection's first frame, or of a control connection's next.
    fn opening_landed(&mut self, io: &mut N, seat: u32, header: [u8; FRAME_HEADER_BYTES], is_control: bool, now: Now) {
        match self.check_opening(&header, is_control) {
            Ok(Opening::Goodbye) => self.end(io, seat, true, now),
            Ok(Opening::Heartbeat) => {
                self.connection(seat).active_ns = now.monotonic_ns;
                self.read_hello(io, seat, FRAME_HEADER_BYTES)
            }
            Ok(Opening::Body(0)) => self.ask(io, seat, &header, &[], now),
            Ok(Opening::Body(bytes)) => {
                self.connection(seat).phase = Phase::Hello { header: Some(header), is_control };
                self.read_hello(io, seat, bytes)
            }
            Err(error) => self.refuse(io, seat, Refuse::from(error), now),
        }
    }

    /// What follows a sound header.
    fn check_opening(&self, header: &[u8; FRAME_HEADER_BYTES], is_control: bool) -> Result<Opening, WireError> {
        let kind = frame::check(header, self.ingest.batch_bytes_max())?;
        let body_bytes = frame::frame_bytes(header) as usize - FRAME_HEADER_BYTES;
        match kind {
            FrameKind::Request => Ok(Opening::Body(body_bytes)),
            FrameKind::Goodbye if is_control => Ok(Opening::Goodbye),
            FrameKind::Heartbeat if is_control => Ok(Opening::Heartbeat),
            FrameKind::Hello if !is_control && body_bytes == 0 => Err(WireError::TopicName { found: 0 }),
            FrameKind::Hello if !is_control => Ok(Opening::Body(body_bytes)),
            found if is_control => Err(WireError::UnexpectedKind { found, expected: "Request, Heartbeat or Goodbye" }),
            found => Err(WireError::UnexpectedKind { found, expected: "Hello or Request" }),
        }
    }

    /// A whole hello has landed.
    fn hello_whole(
        &mut self,
        io: &mut N,
        seat: u32,
        header: &[u8; FRAME_HEADER_BYTES],
        padded_body: &[u8],
        now: Now,
    ) -> Result<(), Refuse> {
        let hello: Hello = frame::read(header);
        let body = frame::check_body(header, padded_body)?;
        self.connection(seat).version = hello.version_in_use()?;
        hello::check_log(&hello, self.settings.log_tag)?;
        if hello.role == frame::Role::Subscriber as u8 {
            return self.serve_subscriber(seat, &hello, body, now);
        }
        let name = frame::check_topic_name(body)?;
        let topic = hello::known_topic(&mut self.topics, name)?;
        self.serve(seat, &hello, &topic, now)?;
        self.read_on(io, seat);
        Ok(())
    }

    /// Serves what was asked for.
    pub(super) fn serve(&mut self, seat: u32, hello: &Hello, topic: &Topic, now: Now) -> Result<(), Refuse> {
        hello::check_topic(hello, topic)?;
        match frame::Role::from_byte(hello.role)? {
            frame::Role::Publisher => self.serve_publisher(seat, hello, topic, now),
            frame::Role::Subscriber => unreachable!("subscribers name their topics otherwise"),
        }
    }

    pub(super) fn serve_publisher(&mut self, seat: u32, hello: &Hello, topic: &Topic, now: Now) -> Result<(), Refuse> {
        let ack = hello::check_publisher(hello, topic, &self.tokens)?;
        let is_new = hello.session == NEW_SESSION;
        let (session, session_epoch) = (hello.session, if is_new { 1 } else { hello.session_epoch });
        // Epochs above the first are opened by whoever comes first; the sequencer ignores the others.
        if is_new {
            self.count_session(seat, now)?;
        }
        let mut asked = None;
        if is_new || session_epoch > 1 {
            asked = self.ingest.place_to_ask();
            if asked.is_none() {
                let opened_for = self.connection(seat).opened_for.take();
                opened_for.into_iter().for_each(|address| self.addresses.close_session(address));
                return Err(Refuse::new(Refusal::Busy, 0, "this broker's lane is full; try again"));
            }
        }
        let by_connection = topic.order != OrderLevel::Session;
        let terms = Terms {
            session,
            asked_slot: asked.map_or(0, |asked| asked.slot),
            session_epoch,
            topic: topic.id,
            receipts: topic.receipts,
            next_seq: by_connection.then_some(0),
            counts_landed: topic.order == OrderLevel::None,
        };
        let stream = Stream::new(terms, self.ingest.batch_bytes_max());
        self.link.set_landed(seat, 0);
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let in_heartbeats = self.addresses.in_heartbeats(connection.address(), self.settings.heartbeat_ms);
        connection.phase = Phase::Streaming(Box::new(stream));
        connection.with_ack = true;
        connection.drops_left = DROPPED_OF_STREAM_MAX;
        (connection.active_ns, connection.said_ns) = (now.monotonic_ns, now.monotonic_ns);
        (connection.heartbeat_ms, connection.heard_ns) = (hello.heartbeat_ms, now.monotonic_ns);
        let is_loopback = connection.socket.peer().is_some_and(|peer| is_loopback(peer.ip()));
        let attachment = Attachment {
            socket: connection.socket.handle(),
            session,
            asked,
            session_epoch,
            topic: topic.id,
            order: topic.order,
            ack,
            is_loopback,
            version: connection.version,
            in_heartbeats,
        };
        let id = connection.id;
        self.link.tell_ack(ToAck::Attach(id, attachment));
        if asked.is_some() {
            let is_asked = self.ingest.ask_to_open(session, session_epoch, topic);
            assert!(is_asked, "there was room, and nobody else takes it");
        }
        Ok(())
    }

    /// Counts a session that a connection is to open among those of its address.
    fn count_session(&mut self, seat: u32, now: Now) -> Result<(), Refuse> {
        let address = self.connection(seat).address();
        self.addresses.owe(address, Cost::Opening, now.monotonic_ns);
        if let Err(found) = self.addresses.open_session(address, now.monotonic_ns) {
            self.ingest.counters.address_bounds += 1;
            let text = format!(
                "this address has opened {found} sessions at this broker that are not over, all that one address may have \
                 (per_address.sessions): close some, or use another broker"
            );
            return Err(Refuse::new(Refusal::Busy, found.into(), text));
        }
        self.connection(seat).opened_for = Some(address);
        Ok(())
    }

    /// Hands a subscriber over to the exporter, socket and all.
    pub(super) fn serve_subscriber(&mut self, seat: u32, hello: &Hello, body: &[u8], now: Now) -> Result<(), Refuse> {
        let slow_reader = SlowReader::from_byte(hello.slow_reader)?;
        let topics = hello::subscribed_topics(hello, body, &mut self.topics)?;
        let address = self.connection(seat).address();
        let in_heartbeats = self.addresses.in_heartbeats(address, self.settings.heartbeat_ms);
        let connection = self.connections[seat as usize].take().expect("the seat is taken");
        let Connection { socket, admission, id, version, .. } = *connection;
        // One that takes nothing for long may be waited for; the exporter judges that.
        socket.let_rest();
        let (lag_bytes, heartbeat_ms) = (hello.lag_bytes, hello.heartbeat_ms);
        let subscription =
            Subscription { socket, topics, slow_reader, lag_bytes, version, heartbeat_ms, in_heartbeats, admission };
        match self.subscriptions.push(subscription) {
            Ok(()) => {
                self.forget(seat);
                Ok(())
            }
            Err(Subscription { socket, admission, .. }) => {
                let connection = Connection { version, ..Connection::new(id, socket, admission, now) };
                self.connections[seat as usize] = Some(Box::new(connection));
                let text = "this broker serves all the subscribers it can; try another";
                Err(Refuse::new(Refusal::Busy, 0, text))
            }
        }
    }
}
