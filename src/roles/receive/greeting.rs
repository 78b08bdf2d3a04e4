//! Accepting connections, reading their hellos, and serving what they ask for.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::limits::{FRAME_HEADER_BYTES, RUN_BYTES_MIN};
use crate::log::topics::Topic;
use crate::net::{Asker, Ring};
use crate::pool::coherence::Coherence;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::roles::handoff::{Attachment, ConnectionId, Subscription, ToAck, is_loopback};
use crate::roles::receive::connection::{Connection, Phase, Stream};
use crate::roles::receive::hello::{self, Refuse};
use crate::roles::receive::ingest::NEEDED_AT_LEAST;
use crate::roles::receive::{ACCEPT, Receive};
use crate::runtime::Now;
use crate::wire::frame::{self, HELLO_CREATE_TOPIC, Hello, NEW_SESSION, Welcome};
use crate::wire::{AckLevel, BatchDecoder, FrameKind, OrderLevel, Refusal, SlowReader, WireError};

impl<C: Coherence> Receive<C> {
    pub(super) fn accept(&mut self, io: &mut Ring) {
        if self.accepting.is_none() && !self.is_draining && !self.free.is_empty() {
            let asker = Asker { role: self.role, tag: ACCEPT };
            self.accepting = io.accept(asker, self.listener.as_raw_fd());
        }
    }

    pub(super) fn accepted(&mut self, io: &mut Ring, result: i32, now: Now) {
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
            let text =
                format!("this broker serves {} connections, all taken; try another", self.settings.connections_max);
            self.refuse(io, slot, Refuse::new(Refusal::Busy, 0, text), now);
        } else {
            self.read_hello(io, slot, FRAME_HEADER_BYTES);
        }
        self.accept(io);
    }

    pub(super) fn read_hello(&mut self, io: &mut Ring, slot: u32, bytes: usize) {
        self.read_owned(io, slot, vec![0; bytes].into(), 0);
    }

    pub(super) fn read_owned(&mut self, io: &mut Ring, slot: u32, buffer: Box<[u8]>, from: usize) {
        let asker = self.asker(slot);
        let socket = self.connection(slot).socket();
        // The tag of a short read says how far it had come, in the bits that slot and generation leave.
        let tag = asker.tag | (from as u64) << 16;
        let operation = io.receive_owned(Asker { tag, ..asker }, socket, buffer, from);
        self.connection(slot).reading = operation;
        if operation.is_none() {
            self.close_now(slot);
        }
    }

    pub(super) fn hello_landed(&mut self, io: &mut Ring, slot: u32, from: usize, result: i32, now: Now) {
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
            Some(header) => {
                let hello: Hello = frame::read(&header);
                if hello.role == frame::Role::Subscriber as u8 {
                    let subscribed = frame::check_body(&header, &buffer)
                        .map_err(Refuse::from)
                        .and_then(|body| self.serve_subscriber(slot, &hello, body));
                    return subscribed.unwrap_or_else(|refuse| self.refuse(io, slot, refuse, now));
                }
                frame::check_body(&header, &buffer)
                    .and_then(frame::check_topic_name)
                    .map(|name| (Box::new(hello), name.to_string()))
                    .map_err(Refuse::from)
            }
        };
        match outcome {
            Ok((hello, name)) => self.greet(io, slot, hello, name, now),
            Err(refuse) => self.refuse(io, slot, refuse, now),
        }
    }

    /// Bytes of the padded body that follows a sound hello header.
    pub(super) fn check_hello_header(&self, header: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, WireError> {
        match frame::check(header, self.ingest.batch_bytes_max())? {
            FrameKind::Hello => {}
            found => return Err(WireError::UnexpectedKind { found, expected: "Hello" }),
        }
        let body_bytes = frame::frame_bytes(header) as usize - FRAME_HEADER_BYTES;
        if body_bytes == 0 { Err(WireError::TopicName { found: 0 }) } else { Ok(body_bytes) }
    }

    /// Finds or creates the topic, then serves the role asked for.
    pub(super) fn greet(&mut self, io: &mut Ring, slot: u32, hello: Box<Hello>, name: String, now: Now) {
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

    pub(super) fn settle(&mut self, io: &mut Ring, slot: u32, outcome: Result<Option<Box<[u8]>>, Refuse>, now: Now) {
        match outcome {
            Ok(None) => self.read_on(io, slot),
            Ok(Some(words)) => self.say_last(io, slot, words, now),
            Err(refuse) => self.refuse(io, slot, refuse, now),
        }
    }

    /// Serves what was asked for; gives the last words, if there is nothing more to do.
    pub(super) fn serve(
        &mut self,
        slot: u32,
        hello: &Hello,
        topic: &Topic,
        now: Now,
    ) -> Result<Option<Box<[u8]>>, Refuse> {
        hello::check_topic(hello, topic)?;
        match frame::Role::from_byte(hello.role)? {
            frame::Role::Publisher => self.serve_publisher(slot, hello, topic, now).map(|()| None),
            frame::Role::Subscriber => unreachable!("subscribers name their topics otherwise"),
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

    pub(super) fn serve_publisher(&mut self, slot: u32, hello: &Hello, topic: &Topic, now: Now) -> Result<(), Refuse> {
        let ack = hello::check_publisher(hello, topic, &self.tokens)?;
        let is_new = hello.session == NEW_SESSION;
        let (session, session_epoch) =
            if is_new { (self.new_session(), 1) } else { (hello.session, hello.session_epoch) };
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
            end_slot: 0,
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
    pub(super) fn new_session(&mut self) -> u64 {
        self.sessions_issued += 1;
        let (lane, incarnation) = (u64::from(self.ingest.lane.lane()) + 1, self.ingest.lane.incarnation());
        lane << 52 | (incarnation & 0xf_ffff) << 32 | (self.sessions_issued & 0xffff_ffff)
    }

    pub(super) fn ask_to_open(
        &mut self,
        session: u64,
        session_epoch: u32,
        topic: &Topic,
        ack: AckLevel,
    ) -> Result<(), Refuse> {
        let kind = slot_kind::SESSION_OPEN;
        let slot =
            BatchSlot { kind, ack_level: ack as u8, topic: topic.id, session, session_epoch, ..BatchSlot::default() };
        if self.ingest.control(slot) {
            Ok(())
        } else {
            Err(Refuse::new(Refusal::Busy, 0, "this broker's lane is full; try again"))
        }
    }

    /// Hands a subscriber over to the exporter.
    pub(super) fn serve_subscriber(&mut self, slot: u32, hello: &Hello, body: &[u8]) -> Result<(), Refuse> {
        let slow_reader = SlowReader::from_byte(hello.slow_reader)?;
        let topics = hello::subscribed_topics(hello, body, &mut self.topics)?;
        let connection = self.connection(slot);
        let stream = connection.stream.try_clone();
        let stream = stream
            .map_err(|error| Refuse::new(Refusal::Busy, 0, format!("the broker is out of descriptors: {error}")))?;
        let subscription = Subscription { stream, topics, slow_reader, lag_bytes: hello.lag_bytes };
        if self.subscriptions.push(subscription).is_err() {
            return Err(Refuse::new(Refusal::Busy, 0, "this broker serves all the subscribers it can; try another"));
        }
        // The exporter has its own descriptor of the connection: ours closes without ending it.
        self.forget(slot);
        Ok(())
    }
}
