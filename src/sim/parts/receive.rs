//! A broker's receive core: hellos, streams into the lane, room.

use crate::limits::{FRAME_HEADER_BYTES, RUN_BYTES_MIN};
use crate::log::member::BEAT_NS;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::{Keep, Memory};
use crate::roles::handoff::SubscribedTopic;
use crate::roles::receive::hello::{self, Refuse};
use crate::roles::receive::ingest::{Ingest, NEEDED_AT_LEAST, Next};
use crate::roles::receive::stream::Stream;
use crate::roles::tokens::Tokens;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::mail::{Attachment, FromAck, Subscription, ToAck};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{HELLO_TIMEOUT_NS, PLACES, TOKEN_KEY, TOPIC, UTC_NS};
use crate::sim::process::ProcessMemory;
use crate::sim::trace::Event;
use crate::wire::frame::{self, Hello, NEW_SESSION, Role};
use crate::wire::{AckLevel, BatchDecoder, OrderLevel, Refusal};

/// Idle time after which a connection gives its run back, ns.
const IDLE_RELEASE_NS: u64 = 20_000_000;
/// Receives of one connection in one step at most.
const RECEIVES_PER_STEP: usize = 4;
const RECEIVE_BYTES_MAX: u64 = 24 << 10;

enum Phase {
    /// Bytes of the hello so far.
    Hello(Vec<u8>),
    /// Waits for the topic, which the first to come asks for.
    Topic(Box<Hello>),
    Streaming(Box<Stream>),
}

struct Connection {
    link: LinkId,
    generation: u32,
    phase: Phase,
    active_ns: u64,
    is_blocked: bool,
}

/// See the head of the file.
pub(super) struct Receive {
    broker: u32,
    memory: ProcessMemory,
    ingest: Ingest<ProcessMemory>,
    topics: TopicReader<ProcessMemory>,
    tokens: Tokens,
    connections: Vec<Option<Connection>>,
    generation: u32,
    beat_ns: u64,
}

impl Receive {
    pub fn new(kernel: &Kernel, broker: u32) -> Receive {
        let view = kernel.view();
        Receive {
            broker,
            memory: view.memory.clone(),
            ingest: Ingest::take(&view, broker, Keep::Cached),
            topics: TopicReader::new(&view),
            tokens: Tokens::new(TOKEN_KEY),
            connections: (0..PLACES).map(|_| None).collect(),
            generation: 0,
            beat_ns: 0,
        }
    }

    fn accept(&mut self, kernel: &Kernel) {
        let free = self.connections.iter().position(Option::is_none);
        let Some(place) = free else { return };
        if let Some(link) = kernel.with(|state| state.network.accept(self.broker)) {
            self.generation += 1;
            let (phase, active_ns) = (Phase::Hello(Vec::new()), kernel.now_ns());
            let connection = Connection { link, generation: self.generation, phase, active_ns, is_blocked: false };
            self.connections[place] = Some(connection);
        }
    }

    fn hear_ack(&mut self, kernel: &Kernel) {
        while let Some(message) = kernel.with(|state| state.mail[self.broker as usize].from_ack.pop_front()) {
            let (FromAck::Opened(place, generation, _) | FromAck::Failed(place, generation)) = message;
            let known = self.connections[place as usize].as_mut();
            let Some(connection) = known.filter(|connection| connection.generation == generation) else { continue };
            match message {
                FromAck::Opened(_, _, session) => {
                    if let Phase::Streaming(stream) = &mut connection.phase {
                        stream.session = session;
                    }
                }
                FromAck::Failed(..) => self.end(kernel, place as usize, true),
            }
        }
    }

    /// Drops a connection; `closes`: and its descriptor.
    fn end(&mut self, kernel: &Kernel, place: usize, closes: bool) {
        let Some(mut connection) = self.connections[place].take() else { return };
        if let Phase::Streaming(stream) = &mut connection.phase {
            self.ingest.release_run(stream);
            let message = ToAck::Close(place as u32, connection.generation);
            kernel.with(|state| state.mail[self.broker as usize].to_ack.push_back(message));
        }
        if closes {
            kernel.close(connection.link, End::Broker);
        }
    }

    fn refuse(&mut self, kernel: &Kernel, place: usize, refuse: &Refuse) {
        let Some(connection) = &self.connections[place] else { return };
        // A new connection has room for these words.
        kernel.write(connection.link, End::Broker, &refuse.frame(frame::VERSION_LOWEST));
        self.end(kernel, place, true);
    }

    fn serve(&mut self, kernel: &Kernel, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        match &mut connection.phase {
            Phase::Hello(_) => self.read_hello(kernel, place),
            Phase::Topic(_) => self.look_for_topic(kernel, place),
            Phase::Streaming(_) => self.stream(kernel, place),
        }
    }

    fn read_hello(&mut self, kernel: &Kernel, place: usize) {
        let Some(Connection { link, phase: Phase::Hello(bytes), active_ns, .. }) = &mut self.connections[place] else {
            return;
        };
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>().copied();
        let needed = header.map_or(FRAME_HEADER_BYTES, |header| frame::frame_bytes(&header) as usize);
        match kernel.read(*link, End::Broker, needed - bytes.len()) {
            Heard::Nothing if kernel.now_ns() - *active_ns > HELLO_TIMEOUT_NS => self.end(kernel, place, true),
            Heard::Nothing => {}
            Heard::End => self.end(kernel, place, true),
            Heard::Bytes(more) => {
                bytes.extend(more);
                match header {
                    Some(header) if bytes.len() == needed => {
                        let hello: Hello = frame::read(&header);
                        let body = frame::check_body(&header, &bytes[FRAME_HEADER_BYTES..]).map(<[u8]>::to_vec);
                        let Ok(body) = body else {
                            return kernel.fail(7, format!("a hello came damaged: {body:?}"));
                        };
                        if hello.role == Role::Subscriber as u8 {
                            return self.hand_over(kernel, place, &hello, &body);
                        }
                        if body != TOPIC.as_bytes() {
                            return kernel.fail(7, format!("a hello came damaged: {body:?}"));
                        }
                        self.greet(kernel, place, hello);
                    }
                    _ => {}
                }
            }
        }
    }

    fn greet(&mut self, kernel: &Kernel, place: usize, hello: Hello) {
        if let Some(topic) = self.topics.find(TOPIC).cloned() {
            return self.accept_hello(kernel, place, &hello, &topic);
        }
        let wanted = Topic {
            receipts: kernel.with(|state| state.scenario.receipts),
            created_at: UTC_NS,
            ..Topic::new(TOPIC, OrderLevel::Session, AckLevel::Committed)
        };
        if self.ingest.lane.ask_for_topic(&wanted).is_none() {
            return self.refuse(kernel, place, &Refuse::new(Refusal::Busy, 0, "the lane is full"));
        }
        if let Some(connection) = &mut self.connections[place] {
            connection.phase = Phase::Topic(Box::new(hello));
        }
    }

    fn look_for_topic(&mut self, kernel: &Kernel, place: usize) {
        let Some(Connection { phase: Phase::Topic(hello), active_ns, .. }) = &self.connections[place] else { return };
        let (hello, is_late) = (**hello, kernel.now_ns() - *active_ns > HELLO_TIMEOUT_NS);
        if let Some(topic) = self.topics.find(TOPIC).cloned() {
            self.accept_hello(kernel, place, &hello, &topic);
        } else if is_late {
            self.refuse(kernel, place, &Refuse::new(Refusal::TopicTableFull, 0, "no sequencer runs"));
        }
    }

    fn accept_hello(&mut self, kernel: &Kernel, place: usize, hello: &Hello, topic: &Topic) {
        if let Err(refuse) = self.accept_publisher(kernel, place, hello, topic) {
            self.refuse(kernel, place, &refuse);
        }
    }

    fn hand_over(&mut self, kernel: &Kernel, place: usize, hello: &Hello, body: &[u8]) {
        let topics = match hello::subscribed_topics(hello, body, &mut self.topics) {
            Ok(topics) => topics,
            Err(refuse) => return self.refuse(kernel, place, &refuse),
        };
        let Some(connection) = self.connections[place].take() else { return };
        let SubscribedTopic { topic, created_position, start, .. } = topics[0];
        let subscription = Subscription { link: connection.link, topic, created_position, start };
        kernel.with(|state| state.mail[self.broker as usize].subscriptions.push_back(subscription));
    }

    fn accept_publisher(&mut self, kernel: &Kernel, place: usize, hello: &Hello, topic: &Topic) -> Result<(), Refuse> {
        hello::check_topic(hello, topic)?;
        hello::check_publisher(hello, topic, &self.tokens)?;
        let is_new = hello.session == NEW_SESSION;
        let (session, session_epoch) = (hello.session, if is_new { 1 } else { hello.session_epoch });
        let mut asked = None;
        if is_new || session_epoch > 1 {
            asked = self.ingest.place_to_ask();
            if asked.is_none() || !self.ingest.ask_to_open(session, session_epoch, topic) {
                return Err(Refuse::new(Refusal::Busy, 0, "the lane is full"));
            }
        }
        let stream = Stream {
            session,
            asked_slot: asked.map_or(0, |asked| asked.slot),
            session_epoch,
            topic: topic.id,
            receipts: topic.receipts,
            next_seq: (topic.order != OrderLevel::Session).then_some(0),
            counts_landed: false,
            published: 0,
            run: None,
            landed: 0,
            parsed: 0,
            end_slot: 0,
            decoder: BatchDecoder::new(self.ingest.batch_bytes_max()),
            needed: NEEDED_AT_LEAST,
            run_bytes: RUN_BYTES_MIN,
        };
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        connection.phase = Phase::Streaming(Box::new(stream));
        connection.active_ns = kernel.now_ns();
        let (place, generation, link) = (place as u32, connection.generation, connection.link);
        let topic = topic.id;
        let attachment = Attachment { place, generation, link, session, asked, session_epoch, topic };
        kernel.with(|state| state.mail[self.broker as usize].to_ack.push_back(ToAck::Attach(attachment)));
        Ok(())
    }

    fn stream(&mut self, kernel: &Kernel, place: usize) {
        let in_use = self.connections.iter().flatten().count() as u64;
        let run_bytes_max = (self.ingest.lane.bytes() / 2 / in_use).max(RUN_BYTES_MIN);
        let Some(connection) = &mut self.connections[place] else { return };
        let (link, Phase::Streaming(stream)) = (connection.link, &mut connection.phase) else { return };
        if stream.session == NEW_SESSION {
            return;
        }
        for _ in 0..RECEIVES_PER_STEP {
            connection.is_blocked = false;
            match self.ingest.publish_landed(stream, UTC_NS + kernel.now_ns()) {
                Ok(Next::Receive) => {}
                Ok(Next::RingRoom) => {
                    connection.is_blocked = true;
                    return;
                }
                Ok(Next::Goodbye) => return kernel.fail(7, "a goodbye nobody said".into()),
                Err(error) => return kernel.fail(7, format!("a stream came damaged: {error:?}")),
            }
            // An idle connection polls, and owns no run.
            if stream.run.is_none() && !kernel.with(|state| state.is_readable(link, End::Broker)) {
                return;
            }
            if !self.ingest.make_room(stream, run_bytes_max) {
                connection.is_blocked = true;
                let is_late = kernel.now_ns() - connection.active_ns > HELLO_TIMEOUT_NS;
                if is_late && self.ingest.is_stuck(stream) {
                    self.end(kernel, place, true);
                }
                return;
            }
            let run = stream.run.as_ref().expect("room was made");
            let room = (run.bytes - stream.landed).min(RECEIVE_BYTES_MAX);
            match kernel.read(link, End::Broker, room as usize) {
                Heard::Nothing => return self.rest(kernel, place),
                Heard::End => return self.end(kernel, place, true),
                Heard::Bytes(bytes) => {
                    self.memory.copy_in(run.start + stream.landed, &bytes);
                    stream.landed += bytes.len() as u64;
                    connection.active_ns = kernel.now_ns();
                }
            }
        }
    }

    /// An idle connection gives its run back, or gets out of the way of an extent that waits for it.
    fn rest(&mut self, kernel: &Kernel, place: usize) {
        let is_short = self.ingest.lane.free_extents() == 0;
        let Some(connection) = &mut self.connections[place] else { return };
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        let idle_ns = kernel.now_ns() - connection.active_ns;
        let Some(run) = &stream.run else { return };
        if stream.is_in_mid_frame() && is_short && idle_ns > HELLO_TIMEOUT_NS {
            return self.end(kernel, place, true);
        }
        if idle_ns <= IDLE_RELEASE_NS {
            return;
        }
        if !stream.is_in_mid_frame() {
            self.ingest.release_run(stream);
            stream.run_bytes = RUN_BYTES_MIN;
        } else if self.ingest.lane.is_sealed(run) {
            self.ingest.move_out(stream);
        }
    }
}

impl Actor for Receive {
    fn step(&mut self, kernel: &Kernel) {
        let before = self.ingest.lane.produced();
        self.hear_ack(kernel);
        self.accept(kernel);
        let is_blocked = |connection: &Connection| connection.is_blocked;
        if self.connections.iter().flatten().any(is_blocked) || self.ingest.lane.free_extents() < 2 {
            self.ingest.refresh();
        }
        for place in 0..self.connections.len() {
            if self.connections[place].is_some() && kernel.chance(2, 3) {
                self.serve(kernel, place);
            }
        }
        let paused = self.connections.iter().flatten().any(is_blocked);
        self.ingest.report(paused);
        if paused && kernel.now_ns() - self.beat_ns >= BEAT_NS {
            self.beat_ns = kernel.now_ns();
            self.ingest.lane.beat();
        }
        if self.ingest.lane.produced() > before {
            kernel.note(Event::Landed(kernel.part, self.ingest.lane.produced()));
        }
    }

    fn tell(&self) -> String {
        let lane = &self.ingest.lane;
        let streams = self.connections.iter().flatten().filter_map(|connection| match &connection.phase {
            Phase::Streaming(stream) => Some(format!(
                "connection {} of session {:#x} epoch {}{}, run {:?} landed {} parsed {} needed {}",
                connection.link,
                stream.session,
                stream.session_epoch,
                if connection.is_blocked { ", blocked" } else { "" },
                stream.run.as_ref().map(|run| run.bytes),
                stream.landed,
                stream.parsed,
                stream.needed,
            )),
            _ => None,
        });
        format!(
            "produced {}, room {}, {:?}, {} extents free; {}",
            lane.produced(),
            lane.room(),
            lane.progress(),
            lane.free_extents(),
            streams.collect::<Vec<_>>().join("; ")
        )
    }
}
