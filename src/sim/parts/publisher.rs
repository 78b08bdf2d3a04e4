//! A publisher: the client's own ports, session and window over simulated connections; and what it may hold against the brokers.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use crate::client::batch::Filler;
use crate::client::handshake::{Call, Greeting, refused};
use crate::client::heard::{Heard as Frame, HeardInbox};
use crate::client::ports::{Order, Patience, Ports};
use crate::client::session::first_hello;
use crate::client::{ClientError, PublisherOptions};
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::attempt::{Attempt, BACKOFF, CONNECT_TIMEOUT, Opening, addresses};
use crate::sim::parts::terms::topic_name;
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::wire::frame::{self, ACK_FENCED, Goodbye};
use crate::wire::{AckLevel, OrderLevel, Refusal};

const RESEND_AFTER: Duration = Duration::from_millis(150);
const REOPEN_MAX: Duration = Duration::from_millis(150);
/// One in so many steps in which everything is acked, the publisher says goodbye, and another one begins.
const GOODBYE_ONE_IN: u64 = 30;

/// What a port has.
enum Line {
    Nothing,
    Attempt(u64, Box<Attempt>),
    Up(LinkId, HeardInbox),
}

/// All that exists once a first broker has welcomed it.
struct Session {
    client: u64,
    order: OrderLevel,
    /// Whether brokers say what is committed.
    is_acked: bool,
    ports: Ports,
    lines: Vec<Line>,
    /// Batches acked.
    acked: u64,
    /// Its topic, and how many of its name had been deleted.
    topic: (String, usize),
}

/// See the head of the file.
pub(super) struct Publisher {
    /// Its place, and how many it has been: no two clients of a run are the same.
    number: u32,
    goodbyes: u64,
    options: PublisherOptions,
    opening: Opening,
    /// Its topic, and how many of its name had been deleted.
    topic: (String, usize),
    session: Option<(Session, Filler)>,
    next_message: u64,
    payload_bytes_max: u64,
}

/// What it is asked to do: one of the topics is its own.
fn options(kernel: &Kernel) -> PublisherOptions {
    let scenario = kernel.with(|state| state.scenario.clone());
    let topic = kernel.below(scenario.topics.len() as u64) as usize;
    let is_acked = scenario.topics[topic] == OrderLevel::Session || kernel.chance(3, 4);
    PublisherOptions {
        brokers: addresses(kernel),
        discover: kernel.chance(1, 2),
        topic: topic_name(topic),
        ack: if is_acked { AckLevel::Committed } else { AckLevel::None },
        batch_bytes: (2 * scenario.payload_bytes_max).max(1024),
        batch_messages: 12,
        window_batches: scenario.window as u32,
        connections_per_broker: scenario.connections_per_broker as u32,
        connect_timeout: CONNECT_TIMEOUT,
        resend_after: RESEND_AFTER,
        ..PublisherOptions::default()
    }
}

fn opening(options: &PublisherOptions) -> Opening {
    let (address, body, welcomes) = (String::new(), options.topic.clone().into_bytes(), 1);
    Opening::new(Call { address, hello: first_hello(options), body, welcomes, timeout: CONNECT_TIMEOUT })
}

fn topic_now(kernel: &Kernel, options: &PublisherOptions) -> (String, usize) {
    (options.topic.clone(), kernel.deletions(&options.topic))
}

impl Publisher {
    pub fn new(kernel: &Kernel, number: u32) -> Publisher {
        let payload_bytes_max = kernel.with(|state| state.scenario.payload_bytes_max);
        let options = options(kernel);
        let (opening, topic) = (opening(&options), topic_now(kernel, &options));
        Publisher { number, goodbyes: 0, options, opening, topic, session: None, next_message: 0, payload_bytes_max }
    }

    /// Another one takes its place, with a session of its own.
    fn begin_anew(&mut self, kernel: &Kernel) {
        let (number, goodbyes) = (self.number, self.goodbyes + 1);
        *self = Publisher { goodbyes, ..Publisher::new(kernel, number) };
    }

    /// Opens a session at the first broker that answers.
    fn open(&mut self, kernel: &Kernel) {
        let (link, greeting) = match self.opening.step(kernel) {
            Some(Ok(welcomed)) => welcomed,
            Some(Err(error)) => {
                told(kernel, &error, 0, &self.topic);
                self.topic = topic_now(kernel, &self.options);
                return;
            }
            None => return,
        };
        let patience = Patience { backoff: BACKOFF, reopen_max: REOPEN_MAX, ..Patience::default() };
        let ports = match Ports::new(&self.options, patience, &greeting, kernel.instant()) {
            Ok(ports) => ports,
            Err(error) => return kernel.fail(5, error.to_string()),
        };
        let client = u64::from(self.number) << 32 | self.goodbyes << 16 | kernel.life();
        let (port, session) = (ports.port_of(&greeting.address), greeting.welcome.session);
        kernel.check(|checker| checker.opened(session, client));
        let is_acked = self.options.ack != AckLevel::None;
        let order = OrderLevel::from_byte(greeting.welcome.order_level).expect("the ports have read it");
        let filler = Filler::new(ports.shape(), Vec::new());
        let lines = (0..ports.len()).map(|_| Line::Nothing).collect();
        let mut session = Session { client, order, is_acked, ports, lines, acked: 0, topic: self.topic.clone() };
        session.dialed(kernel, port, 0, (link, Ok(greeting)));
        self.session = Some((session, filler));
    }

    /// Seals a batch of a few messages.
    fn produce(&mut self, kernel: &Kernel) {
        let Some((Session { ports, client, .. }, filler)) = &mut self.session else { return };
        for _ in 0..1 + kernel.below(6) {
            let payload = workload::payload(*client, self.next_message, self.payload_bytes_max);
            if !filler.fits(payload.len()) {
                break;
            }
            filler.push(&payload);
            self.next_message += 1;
        }
        if let Ok(batch) = filler.seal(ports.pop_buffer().unwrap_or_default()) {
            kernel.note(Event::Sealed(kernel.part, self.next_message, batch.messages()));
            ports.push(batch);
        }
    }
}

impl Session {
    /// One pass, as the engine makes it; now and then a connection is left out.
    fn pass(&mut self, kernel: &Kernel) {
        let now = kernel.instant();
        for port in 0..self.lines.len() {
            let Line::Attempt(generation, attempt) = &mut self.lines[port] else { continue };
            if let Some(result) = attempt.listen(kernel) {
                let (generation, link) = (*generation, attempt.link);
                self.lines[port] = Line::Nothing;
                self.dialed(kernel, port, generation, (link, result));
            }
        }
        self.ports.begin_pass(now);
        self.obey(kernel);
        for port in 0..self.lines.len() {
            let is_heard = kernel.chance(2, 3) && self.read(kernel, port);
            self.ports.on_look(port, is_heard, now);
            self.obey(kernel);
        }
        self.ports.assign(now);
        for port in 0..self.lines.len() {
            if kernel.chance(2, 3) {
                self.write(kernel, port);
            }
        }
        while let Some(batch) = self.ports.pop_acked() {
            if batch.batch_seq.0 != self.acked && self.order == OrderLevel::Session {
                kernel.fail(5, format!("batch {} is acked, {} is next", batch.batch_seq, self.acked));
            }
            self.acked += 1;
            if self.is_acked && self.order != OrderLevel::None {
                let (first, end) = (batch.first_message, batch.first_message + u64::from(batch.messages));
                kernel.check(|checker| checker.sent(self.client, first, end));
            }
        }
    }

    fn dialed(
        &mut self,
        kernel: &Kernel,
        port: usize,
        generation: u64,
        (link, result): (LinkId, Result<Greeting, ClientError>),
    ) {
        let sessions = self.ports.stats().new_sessions;
        let session = self.ports.window().identity(port).session;
        let is_up = self.ports.on_dialed(port, generation, &result, kernel.instant());
        match result {
            Ok(Greeting { welcome, .. }) => {
                let (session, epoch, next) = (welcome.session, welcome.session_epoch, welcome.next);
                kernel.note(Event::Welcomed(kernel.part, session, epoch, next));
                if self.ports.stats().new_sessions > sessions || self.order != OrderLevel::Session {
                    kernel.check(|checker| checker.opened(session, self.client));
                }
                self.acked_below(kernel, session, next);
                if !is_up && self.ports.failed().is_none() {
                    kernel.fail(3, format!("{welcome:?} is not what was asked for: {}", self.ports.unreachable()));
                }
            }
            Err(error) => told(kernel, &error, session, &self.topic),
        }
        if is_up {
            self.lines[port] = Line::Up(link, HeardInbox::default());
        } else {
            kernel.close(link, End::Client);
        }
        self.obey(kernel);
    }

    /// Does what the ports have ordered.
    fn obey(&mut self, kernel: &Kernel) {
        // Brokers may have come.
        self.lines.resize_with(self.ports.len(), || Line::Nothing);
        while let Some(order) = self.ports.pop_order() {
            match order {
                Order::Dial { port, generation, call } => match Attempt::begin(kernel, *call) {
                    Ok(attempt) => self.lines[port] = Line::Attempt(generation, Box::new(attempt)),
                    Err(error) => drop(self.ports.on_dialed(port, generation, &Err(error), kernel.instant())),
                },
                Order::Close { port } => match std::mem::replace(&mut self.lines[port], Line::Nothing) {
                    Line::Nothing => {}
                    Line::Attempt(_, attempt) => kernel.close(attempt.link, End::Client),
                    Line::Up(link, _) => kernel.close(link, End::Client),
                },
            }
        }
    }

    /// A broker said that batches of a session are acked: at level 0 they are in the pool.
    fn acked_below(&self, kernel: &Kernel, session: u64, next: u64) {
        kernel.check(|checker| match self.order {
            OrderLevel::None => checker.landed(session, next),
            _ => checker.acked(session, next),
        });
    }

    /// Whether it cannot go on: its topic was deleted or its session expired, and nothing else may be the reason.
    fn has_failed(&self, kernel: &Kernel) -> bool {
        let Some(error) = self.ports.failed() else { return false };
        let session = self.ports.window().identity(0).session;
        match error.refusal() {
            Some(Refusal::TopicDeleted | Refusal::UnknownTopic) => {
                kernel.check(|checker| checker.deleted(kernel.part, std::slice::from_ref(&self.topic)));
            }
            // Something of it is in doubt.
            Some(Refusal::UnknownSession) => {
                kernel.check(|checker| checker.over(kernel.part, session, &self.topic));
            }
            _ => kernel.fail(3, format!("it cannot go on: {error}")),
        }
        true
    }

    fn close(self, kernel: &Kernel) {
        for line in self.lines {
            match line {
                Line::Nothing => {}
                Line::Attempt(_, attempt) => kernel.close(attempt.link, End::Client),
                Line::Up(link, _) => kernel.close(link, End::Client),
            }
        }
    }

    /// Gives whether anything was heard.
    fn read(&mut self, kernel: &Kernel, port: usize) -> bool {
        let Line::Up(link, inbox) = &mut self.lines[port] else { return false };
        let room = inbox.room();
        match kernel.read(*link, End::Client, room.len()) {
            Heard::Nothing => return false,
            Heard::End => self.lost(kernel, port),
            Heard::Bytes(bytes) => {
                room[..bytes.len()].copy_from_slice(&bytes);
                inbox.landed(bytes.len());
            }
        }
        while let Line::Up(_, inbox) = &mut self.lines[port] {
            match inbox.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => self.heard(kernel, port, &frame),
                Err(error) => {
                    kernel.fail(5, format!("a frame came damaged: {error}"));
                    break;
                }
            }
            self.obey(kernel);
        }
        true
    }

    fn heard(&mut self, kernel: &Kernel, port: usize, frame: &Frame) {
        let mut is_over = false;
        match frame {
            Frame::Ack(ack) => {
                is_over = ack.flags & ACK_FENCED != 0;
                let (session, epoch, next) = (ack.session, ack.session_epoch, ack.committed_next);
                kernel.note(Event::Acked(kernel.part, session, epoch, next, is_over, ack.let_go_from));
                self.acked_below(kernel, session, next);
            }
            Frame::Heartbeat | Frame::Brokers(_) => {}
            Frame::Refused(header, text) => {
                is_over = true;
                let session = self.ports.window().identity(port).session;
                told(kernel, &refused(self.ports.address(port), header, text), session, &self.topic);
            }
        }
        self.ports.on_heard(port, frame, kernel.instant());
        if !is_over && !self.ports.is_up(port) {
            kernel.fail(5, format!("{frame:?} contradicts what was said before: {}", self.ports.unreachable()));
        }
    }

    fn write(&mut self, kernel: &Kernel, port: usize) {
        let (Line::Up(link, _), now) = (&self.lines[port], kernel.instant()) else { return };
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.ports.to_write(port, now, &mut slices);
        if filled == 0 {
            return;
        }
        let mut bytes = Vec::new();
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
        if kernel.with(|state| state.scenario.has_short_sends) && kernel.chance(1, 2) {
            bytes.truncate(1 + kernel.below(bytes.len() as u64) as usize);
        }
        match kernel.write(*link, End::Client, &bytes) {
            None => self.lost(kernel, port),
            Some(written) => drop(self.ports.wrote(port, written, now)),
        }
    }

    /// Says goodbye where nothing is half written that a socket has no room for, and closes everything.
    fn part(self, kernel: &Kernel) {
        for (port, line) in self.lines.iter().enumerate() {
            match line {
                Line::Nothing => continue,
                Line::Attempt(_, attempt) => kernel.close(attempt.link, End::Client),
                Line::Up(link, _) => {
                    let rest = self.ports.rest_of_frame(port);
                    if kernel.write(*link, End::Client, rest) == Some(rest.len()) {
                        kernel.write(*link, End::Client, &frame::seal(&Goodbye::default()));
                    }
                    kernel.close(*link, End::Client);
                }
            }
        }
    }

    fn lost(&mut self, kernel: &Kernel, port: usize) {
        let error = ClientError::io(self.ports.address(port), "talking to", &ErrorKind::UnexpectedEof.into());
        self.ports.on_lost(port, &error, kernel.instant());
        self.obey(kernel);
    }
}

/// A broker may refuse for many reasons, but not for these: the session is open, and the bytes were sent whole.
fn told(kernel: &Kernel, error: &ClientError, session: u64, topic: &(String, usize)) {
    let ClientError::Refused { code, detail, .. } = error else { return };
    kernel.note(Event::Refused(kernel.part, *code, *detail));
    match error.refusal() {
        Some(Refusal::UnknownSession) => kernel.check(|checker| checker.over(kernel.part, session, topic)),
        Some(Refusal::TopicDeleted) => {
            kernel.check(|checker| checker.deleted(kernel.part, std::slice::from_ref(topic)));
        }
        Some(Refusal::Protocol) => kernel.fail(7, format!("a stream came damaged: {error}")),
        _ => {}
    }
}

impl Actor for Publisher {
    fn step(&mut self, kernel: &Kernel) {
        let calm = kernel.is_calm();
        let has_room = |publisher: &Publisher| {
            publisher.session.as_ref().is_some_and(|(session, _)| !session.ports.window().is_full())
        };
        while !calm && has_room(self) && kernel.chance(3, 4) {
            self.produce(kernel);
        }
        match &mut self.session {
            Some((session, _)) => session.pass(kernel),
            None => self.open(kernel),
        }
        if let Some((session, _)) = self.session.take_if(|(session, _)| session.has_failed(kernel)) {
            session.close(kernel);
            return self.begin_anew(kernel);
        }
        let is_done = self.session.as_ref().is_some_and(|(session, _)| session.ports.window().unacked() == 0);
        if is_done
            && self.next_message > 0
            && !calm
            && kernel.chance(1, GOODBYE_ONE_IN)
            && let Some((session, _)) = self.session.take()
        {
            session.part(kernel);
            self.begin_anew(kernel);
        }
    }

    /// Everything was acked.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.session.as_ref().is_some_and(|(session, _)| session.ports.window().unacked() == 0)
    }

    fn tell(&self) -> String {
        let Some((Session { ports, .. }, _)) = &self.session else { return "no session".to_owned() };
        let (id, unacked, stats) = (ports.window().identity(0).session, ports.window().unacked(), ports.stats());
        format!("session {id:#x}, {unacked} unacked, {stats:?}, not connected: {}", ports.unreachable())
    }
}
