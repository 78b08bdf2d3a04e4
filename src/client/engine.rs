//! The publisher's I/O: sockets, reconnecting and fencing around the [window](crate::client::window).
//!
//! A **port** is the place of one connection: it is up, being dialed, or down until a moment. One call of
//! [`drive`](Engine::drive) does what can be done without waiting; [`wait`](Engine::wait) sleeps until a socket or a
//! moment makes the next call worth while.
//!
//! A failed or broken connection is no error of the publisher: it is logged, remembered for the message of whoever runs
//! out of time, and tried again. A broker that refuses a live connection for good ends the publisher.

mod session;

use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::client::admin::create_topic;
use crate::client::batch::{Buffer, Identity, SealedBatch, Shape};
use crate::client::deadline;
use crate::client::dial::{
    ANY_ORDER_LEVEL, BACKOFF_MAX, BACKOFF_MIN, Call, Dialed, Dialer, Greeting, dial_any, refused, same_log,
};
use crate::client::engine::session::Standing;
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::options::{BATCH_BYTES_MIN, PublisherOptions};
use crate::client::progress::{self, BrokerProgress, OnAcked, PublisherStats};
use crate::client::pulse::{HEARTBEAT, Pulse};
use crate::client::socket::{Heard, Received, Socket};
use crate::client::window::{AckContradiction, AckEffect, Numbering, Window, WindowConfig};
use crate::limits::{BATCH_BYTES_MAX, LINE_BYTES, WINDOW_BATCHES_MAX};
use crate::net::readiness::Readiness;
use crate::wire::frame::{Ack, Hello, LogRecord, NEW_SESSION, Role, Welcome};
use crate::wire::{AckLevel, OrderLevel, Refusal};

/// Most batches in one write.
const SLICES_MAX: usize = 16;
/// Most writes and reads of one port in one call of `drive`, so that no port starves the others.
const CALLS_PER_PORT: usize = 4;
/// A socket that took less than it was offered is offered more when it says that it has room, which it does not say before
/// there is a good deal; or, for callers that never wait, after this time. Else every few bytes that the broker reads
/// are made good by a write of a few bytes.
const FULL_PAUSE: Duration = Duration::from_micros(500);
/// While an attempt is in the air, look for its result this often: nothing else announces it.
const DIAL_CHECK: Duration = Duration::from_millis(2);
/// Longest attempt to reopen a session at one broker; then another one is asked.
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// At the start, wait this long at most for brokers beside the first; later ones join when they answer.
const JOIN_WAIT: Duration = Duration::from_secs(1);

enum PortState {
    Up(Socket),
    Dialing,
    Down { retry_at: Instant },
}

struct Port {
    /// Index into `Engine::brokers`.
    broker: usize,
    address: String,
    state: PortState,
    /// Attempts of an earlier generation are void.
    generation: u64,
    backoff: Duration,
    failure: Option<String>,
    was_up: bool,
    /// Its socket is full: no write before then.
    full_until: Option<Instant>,
    pulse: Pulse,
}

/// See the head of the file.
pub(crate) struct Engine {
    topic: String,
    order_level: OrderLevel,
    ack: AckLevel,
    connect_timeout: Duration,
    shape: Shape,
    window_batches: usize,
    window: Window,
    ports: Vec<Port>,
    brokers: Vec<BrokerProgress>,
    dialer: Dialer,
    readiness: Readiness,
    /// Session epoch to ask for: the current one, or past it while a fenced session is being reopened.
    target_epoch: u32,
    standing: Standing,
    /// Which log is published to, once a broker has said so.
    log: Option<LogRecord>,
    /// When the sockets were last read.
    looked_at: Instant,
    /// Since when no connection is live.
    cut_off_since: Option<Instant>,
    failed: Option<ClientError>,
    on_acked: Option<OnAcked>,
    messages_acked: u64,
    bytes_acked: u64,
    fences: u64,
    reconnects: u64,
    new_sessions: u64,
}

impl Engine {
    /// Connects to a first broker, then to the others it names.
    pub fn connect(options: &PublisherOptions) -> Result<Engine, ClientError> {
        options.check()?;
        if let Some(properties) = &options.create {
            create_topic(&options.brokers, &options.topic, properties, options.connect_timeout)?;
        }
        let hello = Hello {
            role: Role::Publisher as u8,
            ack_level: options.ack as u8,
            order_level: options.create.map_or(ANY_ORDER_LEVEL, |properties| properties.order as u8),
            session: NEW_SESSION,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            ..Hello::default()
        };
        let first = dial_any(&options.brokers, &hello, options.topic.as_bytes(), 1, options.connect_timeout)?;
        let mut engine = Engine::new(options, &first)?;
        engine.join_all(options, first);
        match engine.failed.take() {
            Some(error) => Err(error),
            None => Ok(engine),
        }
    }

    /// Everything down, with the geometry that the first Welcome gives.
    fn new(options: &PublisherOptions, first: &Greeting) -> Result<Engine, ClientError> {
        let welcome = &first.welcome;
        let order_level =
            OrderLevel::from_byte(welcome.order_level).map_err(|error| ClientError::wire(&first.address, error))?;
        let shape = shape(options, first)?;
        let window_batches = options.window_batches.min(welcome.window_batches_max).min(WINDOW_BATCHES_MAX) as usize;
        let config = WindowConfig {
            numbering: if order_level == OrderLevel::Session { Numbering::Session } else { Numbering::Connection },
            unacknowledged: options.ack == AckLevel::None,
            batches_max: window_batches,
            resend_after: options.resend_after,
        };
        let brokers = broker_table(options, first);
        let per_broker = options.connections_per_broker as usize;
        let now = Instant::now();
        let port = |index: usize| Port {
            broker: index / per_broker,
            address: brokers[index / per_broker].address.clone(),
            state: PortState::Down { retry_at: now },
            generation: 0,
            backoff: BACKOFF_MIN,
            failure: None,
            was_up: false,
            full_until: None,
            pulse: Pulse::default(),
        };
        let ports: Vec<Port> = (0..brokers.len() * per_broker).map(port).collect();
        let skew = |port: &Port| {
            options.skew.filter(|skew| skew.broker == port.broker).map_or(Duration::ZERO, |skew| skew.delay)
        };
        let mut window = Window::new(config, &ports.iter().map(skew).collect::<Vec<_>>());
        if config.numbering == Numbering::Session {
            window.open(identity(welcome));
        }
        Ok(Engine {
            topic: options.topic.clone(),
            order_level,
            ack: options.ack,
            connect_timeout: options.connect_timeout,
            shape,
            window_batches,
            window,
            ports,
            brokers,
            dialer: Dialer::new(),
            readiness: Readiness::default(),
            target_epoch: welcome.session_epoch,
            standing: Standing::Known,
            log: first.log,
            looked_at: now,
            cut_off_since: Some(now),
            failed: None,
            on_acked: None,
            messages_acked: 0,
            bytes_acked: 0,
            fences: 0,
            reconnects: 0,
            new_sessions: 0,
        })
    }

    /// Puts the first connection in its port and gives the others a moment to come up.
    fn join_all(&mut self, options: &PublisherOptions, first: Greeting) {
        let now = Instant::now();
        let broker = self.brokers.iter().position(|broker| broker.address == first.address).unwrap_or(0);
        self.port_up(broker * options.connections_per_broker as usize, first, now);
        self.redial(now);
        let deadline = deadline::after(now, JOIN_WAIT.min(options.connect_timeout));
        while self.ports.iter().any(|port| matches!(port.state, PortState::Dialing)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.dialer.wait(left) {
                Some(dialed) => self.on_dialed(dialed, Instant::now()),
                None => break,
            }
        }
        self.count();
    }

    /// Does what can be done now. Returns how many things moved: batches, writes, frames, connections.
    ///
    /// Errors: only a refusal that trying again cannot change; the same one at every later call.
    pub fn drive(&mut self) -> Result<usize, ClientError> {
        let now = Instant::now();
        let mut moved = 0;
        while let Some(dialed) = self.dialer.next() {
            self.on_dialed(dialed, now);
            moved += 1;
        }
        self.redial(now);
        // Read first: what is written to a connection that has ended is in doubt, if only for those who did not look.
        let since_last = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        for port in 0..self.ports.len() {
            let (read, is_heard) = self.read(port, now);
            moved += read + self.judge_silence(port, is_heard, since_last, now);
        }
        moved += self.window.on_time(now);
        moved += self.window.assign(now);
        for port in 0..self.ports.len() {
            moved += self.write(port, now);
        }
        self.report_acked();
        if moved > 0 {
            self.count();
        }
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(moved),
        }
    }

    /// Sleeps until a socket is ready, a moment has come, `doorbell` rings or `timeout` has passed.
    pub fn wait(&mut self, timeout: Duration, doorbell: Option<&UnixStream>) -> Result<(), ClientError> {
        let now = Instant::now();
        let mut until = deadline::after(now, timeout);
        until = self.window.next_due().map_or(until, |due| until.min(due));
        self.readiness.clear();
        if let Some(doorbell) = doorbell {
            self.readiness.watch(doorbell, false);
        }
        let dialing = self.ports.iter().any(|port| matches!(port.state, PortState::Dialing));
        // While a session is being reopened, ports that are due wait for the one attempt in the air.
        let held_back = dialing && self.is_reopening();
        for (index, port) in self.ports.iter().enumerate() {
            match &port.state {
                PortState::Up(socket) => {
                    let pending = self.window.to_write(index, now, &mut [IoSlice::new(&[])]) > 0;
                    self.readiness.watch(socket.stream(), pending);
                    until = port.pulse.next_look(now).map_or(until, |look| until.min(look));
                }
                PortState::Dialing => until = until.min(now + DIAL_CHECK),
                PortState::Down { .. } if held_back => (),
                PortState::Down { retry_at } => until = until.min(*retry_at),
            }
        }
        if let Err(error) = self.readiness.wait(until.saturating_duration_since(now)) {
            return Err(ClientError::io(&self.topic, "waiting for the sockets of topic", &error));
        }
        for port in &mut self.ports {
            if let PortState::Up(socket) = &port.state
                && port.full_until.is_some()
                && self.readiness.is_writable(socket.stream())
            {
                port.full_until = None;
            }
        }
        Ok(())
    }

    /// Adds every live socket to `readiness`, for a caller that waits for several publishers at once. Gives when this one
    /// wants to be driven even if none of them becomes ready; none: not before that.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        let now = Instant::now();
        let mut until = self.window.next_due();
        let mut no_later = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
        for (index, port) in self.ports.iter().enumerate() {
            match &port.state {
                PortState::Up(socket) => {
                    // A full socket is tried again after its pause: readiness of others must not end that pause early.
                    if self.window.to_write(index, now, &mut [IoSlice::new(&[])]) > 0 {
                        no_later(port.full_until.unwrap_or(now));
                    }
                    readiness.watch(socket.stream(), false);
                    port.pulse.next_look(now).into_iter().for_each(&mut no_later);
                }
                PortState::Dialing => no_later(now + DIAL_CHECK),
                PortState::Down { retry_at } => no_later((*retry_at).max(now + DIAL_CHECK)),
            }
        }
        until
    }

    fn write(&mut self, index: usize, now: Instant) -> usize {
        if self.ports[index].full_until.is_some_and(|until| now < until) {
            return 0;
        }
        self.ports[index].full_until = None;
        if !self.beat(index, now) {
            return 0;
        }
        let mut moved = 0;
        for _ in 0..CALLS_PER_PORT {
            let PortState::Up(socket) = &self.ports[index].state else { return moved };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.window.to_write(index, now, &mut slices);
            if filled == 0 {
                return moved;
            }
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let mut stream = socket.stream();
            match stream.write_vectored(&slices[..filled]) {
                Ok(bytes) => {
                    self.window.wrote(index, bytes, now);
                    self.ports[index].pulse.wrote(now);
                    moved += 1;
                    if bytes < offered {
                        self.ports[index].full_until = Some(now + FULL_PAUSE);
                        return moved;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ports[index].full_until = Some(now + FULL_PAUSE);
                    return moved;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    let error = ClientError::io(&self.ports[index].address, "writing to", &error);
                    self.port_down(index, &error, now);
                    return moved + 1;
                }
            }
        }
        moved
    }

    /// Says that we are here where nothing was written for a while. False: nothing else may be written now.
    fn beat(&mut self, index: usize, now: Instant) -> bool {
        let port = &mut self.ports[index];
        let PortState::Up(socket) = &port.state else { return false };
        if !self.window.is_between_frames(index) {
            return true;
        }
        match port.pulse.beat(socket.stream(), now) {
            Ok(true) => true,
            Ok(false) => {
                port.full_until = Some(now + FULL_PAUSE);
                false
            }
            Err(error) => {
                let error = ClientError::io(&port.address, "writing to", &error);
                self.port_down(index, &error, now);
                false
            }
        }
    }

    /// Gives how many things moved, and whether any byte was heard.
    fn read(&mut self, index: usize, now: Instant) -> (usize, bool) {
        let (mut moved, mut is_heard) = (0, false);
        for _ in 0..CALLS_PER_PORT {
            let PortState::Up(socket) = &mut self.ports[index].state else { break };
            match socket.receive() {
                Ok(Received::Nothing) => break,
                Ok(Received::Bytes { more }) => {
                    is_heard = true;
                    moved += self.decode(index, now);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    let error = ClientError::io(&self.ports[index].address, "reading from", &error);
                    self.port_down(index, &error, now);
                    moved += 1;
                    break;
                }
            }
        }
        (moved, is_heard)
    }

    /// A broker that is silent for longer than it promised is stopped, or its host is gone, and TCP may never say so. Its connection
    /// counts as broken: whatever it had that is not acked, queued and half written batches included, goes to the others, and it
    /// gets nothing new before it has welcomed us again.
    fn judge_silence(&mut self, index: usize, is_heard: bool, since_last: Duration, now: Instant) -> usize {
        let port = &mut self.ports[index];
        if !matches!(port.state, PortState::Up(_)) || !port.pulse.look(is_heard, since_last) {
            return 0;
        }
        let text = format!("nothing was heard for {:?}", port.pulse.silent);
        let error = ClientError::io(&port.address, "hearing from", &io::Error::new(io::ErrorKind::TimedOut, text));
        self.port_down(index, &error, now);
        1
    }

    /// Takes every whole frame that was received. Returns how many.
    fn decode(&mut self, index: usize, now: Instant) -> usize {
        let mut frames = 0;
        while let PortState::Up(socket) = &mut self.ports[index].state {
            match socket.next_frame() {
                Ok(None) => break,
                Ok(Some(Heard::Ack(ack))) => self.on_ack(index, &ack, now),
                Ok(Some(Heard::Heartbeat)) => {}
                Ok(Some(Heard::Refused(header, text))) => {
                    let error = refused(&self.ports[index].address, &header, &text);
                    self.port_down(index, &error, now);
                    self.on_refused(index, &error, true, now);
                    if !error.is_transient() {
                        self.failed = Some(error);
                    }
                }
                Err(error) => {
                    let error = ClientError::wire(&self.ports[index].address, error);
                    self.port_down(index, &error, now);
                }
            }
            frames += 1;
        }
        frames
    }

    fn on_ack(&mut self, index: usize, ack: &Ack, now: Instant) {
        match self.window.on_ack(index, ack, now) {
            Ok(AckEffect::None) => (),
            Ok(AckEffect::Fenced) if self.order_level == OrderLevel::Session => self.fence(now),
            // Below level 5 a session is one connection: a new one begins a new session.
            Ok(AckEffect::Fenced) => {
                let error = contradiction(&self.ports[index].address, "flags", 1, 0);
                self.port_down(index, &error, now);
            }
            Err(AckContradiction { field, found, expected }) => {
                let error = contradiction(&self.ports[index].address, field, found, expected);
                self.port_down(index, &error, now);
            }
        }
    }

    fn port_down(&mut self, index: usize, error: &ClientError, now: Instant) {
        log::warn!("topic {}: connection {index} lost: {error}", self.topic);
        let port = &mut self.ports[index];
        port.state = PortState::Down { retry_at: now + port.backoff };
        port.backoff = (port.backoff * 2).min(BACKOFF_MAX);
        port.generation += 1;
        port.failure = Some(error.to_string());
        self.window.link_down(index);
        if !self.ports.iter().any(|port| matches!(port.state, PortState::Up(_))) {
            self.cut_off_since = Some(now);
        }
    }

    /// Begins an attempt at every port whose time has come; while reopening, one at a time, in turn.
    fn redial(&mut self, now: Instant) {
        let reopening = self.is_reopening();
        for index in 0..self.ports.len() {
            if reopening && self.ports.iter().any(|port| matches!(port.state, PortState::Dialing)) {
                return;
            }
            if matches!(self.ports[index].state, PortState::Down { retry_at } if retry_at <= now) {
                let hello = self.hello(index);
                let port = &mut self.ports[index];
                port.state = PortState::Dialing;
                let call = Call {
                    address: port.address.clone(),
                    hello,
                    body: self.topic.clone().into_bytes(),
                    welcomes: 1,
                    // All ports wait for the one that reopens: a stopped broker must not keep them for long.
                    timeout: if reopening { self.connect_timeout.min(REOPEN_MAX) } else { self.connect_timeout },
                };
                self.dialer.begin(index, port.generation, call);
            }
        }
    }

    fn on_dialed(&mut self, dialed: Dialed, now: Instant) {
        let Dialed { port: index, generation, result } = dialed;
        if self.ports[index].generation != generation {
            return;
        }
        match result {
            Ok(greeting) => self.port_up(index, greeting, now),
            Err(error) => self.dial_failed(index, &error, now),
        }
    }

    fn dial_failed(&mut self, index: usize, error: &ClientError, now: Instant) {
        let port = &mut self.ports[index];
        log::info!("topic {}: no connection {index}: {error}", self.topic);
        port.state = PortState::Down { retry_at: now + port.backoff };
        port.backoff = (port.backoff * 2).min(BACKOFF_MAX);
        port.failure = Some(error.to_string());
        if matches!(error.refusal(), Some(Refusal::UnknownTopic | Refusal::TopicDeleted)) {
            // It was there when this publisher began.
            self.failed = Some(error.clone());
        }
        self.on_refused(index, error, false, now);
    }

    /// A connection was welcomed: checks that it is what was asked for, and takes it into use.
    fn port_up(&mut self, index: usize, greeting: Greeting, now: Instant) {
        if let Err(error) = same_log(&mut self.log, &greeting) {
            self.dial_failed(index, &error, now);
            // A broker of another pool among others is left alone; but where nobody serves our log any more, what was acked is gone.
            if !self.ports.iter().any(|port| matches!(port.state, PortState::Up(_))) {
                self.failed = Some(error);
            }
            return;
        }
        if let Err(error) = self.adopt(index, &greeting.welcome, now) {
            self.dial_failed(index, &error, now);
            return;
        }
        let port = &mut self.ports[index];
        port.state = PortState::Up(Socket::new(greeting.stream));
        (port.backoff, port.failure) = (BACKOFF_MIN, None);
        port.pulse = Pulse::of(greeting.heartbeat, greeting.log.is_some(), now);
        if std::mem::replace(&mut port.was_up, true) {
            self.reconnects += 1;
        }
        self.brokers[port.broker].broker = greeting.welcome.broker;
        self.cut_off_since = None;
    }

    fn report_acked(&mut self) {
        while let Some(acked) = self.window.pop_acked() {
            self.messages_acked += u64::from(acked.messages);
            self.bytes_acked += acked.bytes;
            if let Some(on_acked) = &mut self.on_acked {
                on_acked(acked);
            }
        }
    }

    /// Says goodbye on every live connection, to all before any answer is waited for, and lets the kernel send what it still has,
    /// until `deadline`.
    pub fn goodbye(&mut self, deadline: Instant) {
        let mut leaving = Vec::new();
        for port in &mut self.ports {
            if let PortState::Up(socket) = std::mem::replace(&mut port.state, PortState::Down { retry_at: deadline })
                && let Some(leaves) = socket.goodbye(deadline)
            {
                leaving.push(leaves);
            }
        }
        leaving.into_iter().for_each(|leaves| leaves.wait(deadline));
    }

    /// Takes a sealed batch; the window must not be full.
    pub fn push(&mut self, batch: SealedBatch) {
        self.window.push(batch);
    }

    /// A buffer that came free.
    pub fn pop_buffer(&mut self) -> Option<Buffer> {
        self.window.pop_buffer()
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn window_batches(&self) -> usize {
        self.window_batches
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn order_level(&self) -> OrderLevel {
        self.order_level
    }

    pub fn on_acked(&mut self, callback: OnAcked) {
        self.on_acked = Some(callback);
    }

    pub fn acked(&self) -> (u64, u64) {
        (self.messages_acked, self.bytes_acked)
    }

    /// The error to give up with if no connection has been live for the connect timeout.
    pub fn cut_off(&self) -> Option<ClientError> {
        let waited = self.cut_off_since?.elapsed();
        (waited >= self.connect_timeout).then(|| ClientError::Unreachable { waited, tried: self.unreachable() })
    }

    /// Every connection that is not up, and why.
    pub fn unreachable(&self) -> Attempts {
        let down = self.ports.iter().filter(|port| !matches!(port.state, PortState::Up(_)));
        let attempt = |port: &Port| Attempt {
            broker: port.address.clone(),
            failure: port.failure.clone().unwrap_or_else(|| "no answer yet".to_owned()),
        };
        Attempts(down.map(attempt).collect())
    }

    /// Brings the numbers of every broker up to date.
    fn count(&mut self) {
        for broker in &mut self.brokers {
            (broker.sent, broker.acked, broker.connected) = (0, 0, false);
        }
        // At level 5 every connection to a broker repeats the broker's one number for the session.
        let per_session = self.order_level == OrderLevel::Session;
        for (link, port) in self.ports.iter().enumerate() {
            let broker = &mut self.brokers[port.broker];
            let acked = self.window.acked_messages(link);
            broker.acked = if per_session { broker.acked.max(acked) } else { broker.acked + acked };
            broker.sent += self.window.sent_messages(link);
            broker.connected |= matches!(port.state, PortState::Up(_));
        }
    }

    pub fn brokers(&self) -> &[BrokerProgress] {
        &self.brokers
    }

    pub fn progress_line(&self, total: u64) -> String {
        progress::line(&self.brokers, self.messages_acked, total)
    }

    pub fn stats(&self) -> PublisherStats {
        let (resent_batches, let_go) = self.window.resend_counts();
        let Engine { fences, reconnects, new_sessions, .. } = *self;
        PublisherStats { resent_batches, let_go, fences, reconnects, new_sessions }
    }
}

fn identity(welcome: &Welcome) -> Identity {
    Identity { session: welcome.session, token: welcome.token, epoch: welcome.session_epoch, topic: welcome.topic }
}

fn contradiction(broker: &str, field: &'static str, found: u64, expected: u64) -> ClientError {
    ClientError::Contradiction { broker: broker.to_owned(), field, found, expected }
}

/// What a batch may look like: what was asked for, clipped to what the broker takes.
fn shape(options: &PublisherOptions, first: &Greeting) -> Result<Shape, ClientError> {
    let offered = u64::from(first.welcome.batch_bytes_max).min(BATCH_BYTES_MAX);
    if offered < BATCH_BYTES_MIN {
        return Err(contradiction(&first.address, "batch_bytes_max", offered, BATCH_BYTES_MIN));
    }
    if first.welcome.window_batches_max == 0 {
        return Err(contradiction(&first.address, "window_batches_max", 0, 1));
    }
    let frame_bytes_max = offered / LINE_BYTES * LINE_BYTES;
    let target_bytes = options.batch_bytes.min(frame_bytes_max) / LINE_BYTES * LINE_BYTES;
    Ok(Shape { target_bytes, frame_bytes_max, messages_max: options.batch_messages })
}

/// The brokers to stripe over. The one that answered keeps the address it was reached at.
fn broker_table(options: &PublisherOptions, first: &Greeting) -> Vec<BrokerProgress> {
    let row = |(broker, address)| BrokerProgress { broker, address, sent: 0, acked: 0, connected: false };
    if options.discover && first.brokers.iter().any(|(id, _)| *id == first.welcome.broker) {
        let reached = |(id, address): &(u16, String)| {
            let here = *id == first.welcome.broker;
            (*id, if here { first.address.clone() } else { address.clone() })
        };
        return first.brokers.iter().map(reached).map(row).collect();
    }
    let mut seeds: Vec<String> = Vec::new();
    for seed in &options.brokers {
        if !seeds.contains(seed) {
            seeds.push(seed.clone());
        }
    }
    seeds.into_iter().enumerate().map(|(index, address)| row((index as u16, address))).collect()
}
