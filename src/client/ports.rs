//! A publisher's connections, without sockets, threads and clocks: who is dialed when, what is written where, and what follows from
//! what brokers say. Around the [window](crate::client::window) and the [session](crate::client::session).
//!
//! A **port** is the place of one connection: it is up, being dialed, or down until a moment.
//!
//! A failed or broken connection is no error of the publisher: it is logged, remembered for the message of whoever runs
//! out of time, and tried again. A broker that refuses a live connection for good ends the publisher.
//!
//! Invariants:
//! 1. A port is up if and only if its link of the window is live.
//! 2. Every attempt and every connection that a port leaves is closed by an order, unless it ended by itself (`on_dialed` gave false).
//! 3. While the session is being changed at most one port is being dialed.

mod hearing;
mod writing;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::batch::Shape;
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::handshake::{Call, Greeting, same_log};
use crate::client::options::{BATCH_BYTES_MIN, PublisherOptions};
use crate::client::progress::{BrokerProgress, PublisherStats, UNKNOWN_BROKER};
use crate::client::pulse::{Pulse, heartbeat};
use crate::client::session::{DENIED_MIN, Session, identity};
use crate::client::window::{Contradiction, Numbering, Window, WindowConfig};
use crate::limits::{BATCH_BYTES_MAX, BROKERS_MAX, FRAME_HEADER_BYTES, LINE_BYTES, WINDOW_BATCHES_MAX};
use crate::wire::{AckLevel, OrderLevel, Refusal};

/// Longest attempt to reopen a session at one broker; then another one is asked.
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// Most brokers that are remembered, those that are gone included: as many as a pool may have, four times over.
const BROKERS_KNOWN_MAX: usize = 4 * BROKERS_MAX as usize;

/// How patient a publisher is with brokers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub backoff: Backoff,
    pub reopen_max: Duration,
    pub denied_min: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { backoff: Backoff::default(), reopen_max: REOPEN_MAX, denied_min: DENIED_MIN }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortState {
    Up,
    Dialing,
    Down { retry_at: Instant },
}

/// What is known of a broker beside its progress.
struct Known {
    /// Where it was said to be; it may have been reached at another address.
    told_at: String,
    /// It is there as far as was told. One that is gone is dialed only if nobody else can be reached.
    is_listed: bool,
}

struct Port {
    /// Index into `Ports::brokers`.
    broker: usize,
    state: PortState,
    /// Attempts of an earlier generation are void.
    generation: u64,
    backoff: Backoff,
    failure: Option<String>,
    was_up: bool,
    pulse: Pulse,
}

impl Port {
    fn new(broker: usize, backoff: Backoff, now: Instant) -> Port {
        Port {
            broker,
            state: PortState::Down { retry_at: now },
            generation: 0,
            backoff,
            failure: None,
            was_up: false,
            pulse: Pulse::default(),
        }
    }
}

/// What whoever has the sockets is to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open a connection, and tell [`Ports::on_dialed`] what it came to.
    Dial { port: usize, generation: u64, call: Box<Call> },
    /// The port's connection is over, or the attempt at one: close it, and tell nothing more of it.
    Close { port: usize },
}

/// See the head of the file.
///
/// One pass of whoever drives it, in this order:
/// 1. **Begin**: [`on_dialed`](Ports::on_dialed) for every attempt that ended, then [`begin_pass`](Ports::begin_pass).
/// 2. **Hear**: for each port that is up [`on_heard`](Ports::on_heard) for every frame or [`on_lost`](Ports::on_lost), and last
///    [`on_look`](Ports::on_look).
/// 3. **Assign**: [`assign`](Ports::assign); batches may be [`pushed`](Ports::push) at any time before.
/// 4. **Write**: for each port that is up [`to_write`](Ports::to_write) and [`wrote`](Ports::wrote), or `on_lost`.
/// 5. **Report**: [`pop_acked`](Ports::pop_acked), [`pop_buffer`](Ports::pop_buffer), [`count`](Ports::count),
///    [`failed`](Ports::failed).
///
/// After each call of 1 and 2, and after `on_lost`, the orders are taken ([`pop_order`](Ports::pop_order)) before anything else is
/// called. When nothing moved, [`next_due`](Ports::next_due) says when time alone makes the next pass worth while.
pub(crate) struct Ports {
    topic: String,
    connect_timeout: Duration,
    reopen_max: Duration,
    shape: Shape,
    window_batches: usize,
    window: Window,
    session: Session,
    ports: Vec<Port>,
    brokers: Vec<BrokerProgress>,
    /// By broker.
    known: Vec<Known>,
    /// Whether it goes to brokers that it was not given.
    discovers: bool,
    /// The addresses that it was given, for when nobody that it was told of answers: all of them may have gone while it heard of nobody.
    seeds: Vec<String>,
    per_broker: usize,
    backoff: Backoff,
    orders: VecDeque<Order>,
    heartbeat: [u8; FRAME_HEADER_BYTES],
    /// When the connections were last listened to, and how long before that.
    looked_at: Instant,
    since_last: Duration,
    /// Since when no connection is live.
    cut_off_since: Option<Instant>,
    failed: Option<ClientError>,
    fences: u64,
    reconnects: u64,
    new_sessions: u64,
}

impl Ports {
    /// Everything down, with the geometry that the first greeting gives. Its connection is to be put in its
    /// [`port`](Ports::port_of) by [`on_dialed`](Ports::on_dialed).
    pub fn new(
        options: &PublisherOptions,
        patience: Patience,
        first: &Greeting,
        now: Instant,
    ) -> Result<Ports, ClientError> {
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
        let port = |index: usize| Port::new(index / per_broker, patience.backoff, now);
        let ports: Vec<Port> = (0..brokers.len() * per_broker).map(port).collect();
        let told_at = |row: &BrokerProgress| {
            let listed = first.brokers.iter().find(|(id, _)| *id == row.broker);
            listed.map_or(&row.address, |(_, address)| address).clone()
        };
        let known = brokers.iter().map(|row| Known { told_at: told_at(row), is_listed: true }).collect();
        let skew = |port: &Port| {
            options.skew.filter(|skew| skew.broker == port.broker).map_or(Duration::ZERO, |skew| skew.delay)
        };
        let mut window = Window::new(config, &ports.iter().map(skew).collect::<Vec<_>>());
        if config.numbering == Numbering::Session {
            window.open(identity(welcome));
        }
        Ok(Ports {
            topic: options.topic.clone(),
            connect_timeout: options.connect_timeout,
            reopen_max: patience.reopen_max,
            shape,
            window_batches,
            window,
            session: Session::of(welcome, first.log, (order_level, options.ack), patience.denied_min),
            ports,
            brokers,
            known,
            discovers: discovers(options, first),
            seeds: options.brokers.clone(),
            per_broker,
            backoff: patience.backoff,
            orders: VecDeque::new(),
            heartbeat: heartbeat(),
            looked_at: now,
            since_last: Duration::ZERO,
            cut_off_since: Some(now),
            failed: None,
            fences: 0,
            reconnects: 0,
            new_sessions: 0,
        })
    }

    /// The first port of a broker that was reached at this address.
    pub fn port_of(&self, address: &str) -> usize {
        let broker = self.brokers.iter().position(|broker| broker.address == address).unwrap_or(0);
        self.ports.iter().position(|port| port.broker == broker).expect("every broker has a port")
    }

    /// Notes the time, and orders an attempt at every port whose time has come; while the session is being changed one at a time, in
    /// turn.
    pub fn begin_pass(&mut self, now: Instant) {
        self.since_last = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        self.go_back_to_seeds(now);
        let is_changing = self.is_changing();
        for index in 0..self.ports.len() {
            if is_changing && self.is_dialing() {
                return;
            }
            let is_due = matches!(self.ports[index].state, PortState::Down { retry_at } if retry_at <= now);
            if is_due && self.may_dial(&self.ports[index]) {
                self.ports[index].state = PortState::Dialing;
                let call = Box::new(self.call(index));
                self.orders.push_back(Order::Dial { port: index, generation: self.ports[index].generation, call });
            }
        }
    }

    /// Whether a port's broker is there as far as was told, or nobody can be reached.
    fn may_dial(&self, port: &Port) -> bool {
        self.known[port.broker].is_listed || !self.is_any_up()
    }

    /// Takes note of which brokers there are: there are ports for those that are new; those that are gone are not dialed again.
    fn know(&mut self, listed: &[(u16, String)], now: Instant) {
        if !self.discovers || listed.is_empty() {
            return;
        }
        for (row, known) in self.brokers.iter().zip(&mut self.known) {
            known.is_listed = listed.iter().any(|(id, at)| (*id, at) == (row.broker, &known.told_at));
        }
        for (id, address) in listed {
            let is_known = |(row, known): (&BrokerProgress, &Known)| (row.broker, &known.told_at) == (*id, address);
            let is_known = self.brokers.iter().zip(&self.known).any(is_known);
            if !is_known && self.add_broker(*id, address, now) {
                log::info!("topic {}: there is a broker {id} at {address} now", self.topic);
            }
        }
    }

    /// If nobody that it knows answers, those that it was given at the beginning are asked again.
    fn go_back_to_seeds(&mut self, now: Instant) {
        let is_lost = self.discovers && self.cut_off_since.is_some();
        if !is_lost || self.ports.iter().any(|port| port.failure.is_none()) {
            return;
        }
        for seed in std::mem::take(&mut self.seeds) {
            let is_known = self.brokers.iter().any(|broker| broker.address == seed);
            if !is_known && self.add_broker(UNKNOWN_BROKER, &seed, now) {
                log::warn!("topic {}: no broker answers that it was told of, back to {seed}", self.topic);
            }
            self.seeds.push(seed);
        }
    }

    /// False: so many are remembered that there is no place for it.
    fn add_broker(&mut self, id: u16, address: &str, now: Instant) -> bool {
        let row = BrokerProgress::none(id, address.to_owned());
        let known = Known { told_at: address.to_owned(), is_listed: id != UNKNOWN_BROKER };
        if self.brokers.len() < BROKERS_KNOWN_MAX {
            let broker = self.brokers.len();
            self.brokers.push(row);
            self.known.push(known);
            for _ in 0..self.per_broker {
                self.ports.push(Port::new(broker, self.backoff, now));
                self.window.add_link(Duration::ZERO);
            }
            return true;
        }
        // In the place of one that is gone.
        let is_idle = |broker: usize| {
            let is_down = |port: &Port| port.broker != broker || matches!(port.state, PortState::Down { .. });
            !self.known[broker].is_listed && self.ports.iter().all(is_down)
        };
        let Some(broker) = (0..self.brokers.len()).find(|broker| is_idle(*broker)) else { return false };
        (self.brokers[broker], self.known[broker]) = (row, known);
        for port in self.ports.iter_mut().filter(|port| port.broker == broker) {
            (port.state, port.backoff, port.failure) = (PortState::Down { retry_at: now }, self.backoff, None);
        }
        true
    }

    fn call(&self, index: usize) -> Call {
        // All ports wait for the one that reopens: a stopped broker must not keep them for long.
        let is_waited_for = self.is_changing();
        let timeout = self.connect_timeout;
        Call {
            address: self.address(index).to_owned(),
            hello: self.session.hello(&self.window.identity(index)),
            body: self.topic.clone().into_bytes(),
            welcomes: 1,
            timeout: if is_waited_for { timeout.min(self.reopen_max) } else { timeout },
        }
    }

    /// An attempt has ended, or (generation 0, a port that is down) a connection was opened without one. True: the connection is in use
    /// from now on. False: it is nobody's, and to be dropped.
    pub fn on_dialed(
        &mut self,
        index: usize,
        generation: u64,
        result: &Result<Greeting, ClientError>,
        now: Instant,
    ) -> bool {
        if self.ports[index].generation != generation {
            return false;
        }
        assert!(self.ports[index].state != PortState::Up, "it has a connection");
        match result {
            Ok(greeting) => self.port_up(index, greeting, now),
            Err(error) => {
                self.dial_failed(index, error, now);
                false
            }
        }
    }

    /// A connection was welcomed: checks that it is what was asked for, and takes it into use.
    fn port_up(&mut self, index: usize, greeting: &Greeting, now: Instant) -> bool {
        if let Err(error) = same_log(&mut self.session.log, greeting) {
            self.dial_failed(index, &error, now);
            // A broker of another pool among others is left alone; but where nobody serves our log any more, what was acked is gone.
            if !self.is_any_up() {
                self.failed = Some(error);
            }
            return false;
        }
        match self.adopt(index, greeting, now) {
            Ok(is_anew) => self.new_sessions += u64::from(is_anew),
            Err(issue) => {
                let error = self.contradiction(index, issue);
                self.dial_failed(index, &error, now);
                return false;
            }
        }
        let port = &mut self.ports[index];
        (port.state, port.failure) = (PortState::Up, None);
        port.backoff.reset();
        port.pulse = Pulse::of(greeting.heartbeat, greeting.log.is_some(), now);
        self.reconnects += u64::from(std::mem::replace(&mut port.was_up, true));
        self.brokers[port.broker].broker = greeting.welcome.broker;
        self.cut_off_since = None;
        self.know(&greeting.brokers, now);
        true
    }

    fn adopt(&mut self, index: usize, greeting: &Greeting, now: Instant) -> Result<bool, Contradiction> {
        let (found, expected) = (u64::from(greeting.welcome.batch_bytes_max), self.shape.frame_bytes_max);
        if found < expected {
            return Err(Contradiction { field: "batch_bytes_max", found, expected });
        }
        self.session.adopt(&mut self.window, index, &greeting.welcome, now)
    }

    fn dial_failed(&mut self, index: usize, error: &ClientError, now: Instant) {
        log::info!("topic {}: no connection {index}: {error}", self.topic);
        let port = &mut self.ports[index];
        port.state = PortState::Down { retry_at: now + port.backoff.fail() };
        port.failure = Some(error.to_string());
        if matches!(error.refusal(), Some(Refusal::UnknownTopic | Refusal::TopicDeleted)) {
            // It was there when this publisher began.
            self.failed = Some(error.clone());
        }
        self.on_refused(index, error, false, now);
    }
}

/// How it stands.
impl Ports {
    /// When time alone makes the next pass worth while; none: not before something is heard, dialed or pushed.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        // While the session is being changed, ports that are due wait for the one attempt in the air.
        let is_held_back = self.is_changing() && self.is_dialing();
        let due = |port: &Port| match port.state {
            PortState::Up => port.pulse.next_look(now),
            PortState::Down { retry_at } if !is_held_back && self.may_dial(port) => Some(retry_at),
            PortState::Down { .. } | PortState::Dialing => None,
        };
        self.ports.iter().filter_map(due).chain(self.window.next_due(now)).min()
    }

    /// Whether a port has bytes of batches to write.
    pub fn has_to_write(&self, index: usize, now: Instant) -> bool {
        self.window.to_write(index, now, &mut [IoSlice::new(&[])]) > 0
    }

    pub fn len(&self) -> usize {
        self.ports.len()
    }

    pub fn is_up(&self, index: usize) -> bool {
        self.ports[index].state == PortState::Up
    }

    fn is_any_up(&self) -> bool {
        self.ports.iter().any(|port| port.state == PortState::Up)
    }

    pub fn is_dialing(&self) -> bool {
        self.ports.iter().any(|port| port.state == PortState::Dialing)
    }

    /// Whether the session is being reopened, or another one opened.
    pub fn is_changing(&self) -> bool {
        self.session.is_changing(&self.window.identity(0))
    }

    pub fn address(&self, index: usize) -> &str {
        &self.brokers[self.ports[index].broker].address
    }

    pub fn topic(&self) -> &str {
        &self.topic
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
        self.session.order_level()
    }

    pub fn brokers(&self) -> &[BrokerProgress] {
        &self.brokers
    }

    /// The error to give up with if no connection has been live for the connect timeout.
    pub fn cut_off(&self, now: Instant) -> Option<ClientError> {
        let waited = now.saturating_duration_since(self.cut_off_since?);
        (waited >= self.connect_timeout).then(|| ClientError::Unreachable { waited, tried: self.unreachable() })
    }

    /// Every connection that is not up, and why.
    pub fn unreachable(&self) -> Attempts {
        let attempt = |index: usize| Attempt {
            broker: self.address(index).to_owned(),
            failure: self.ports[index].failure.clone().unwrap_or_else(|| "no answer yet".to_owned()),
        };
        Attempts((0..self.ports.len()).filter(|index| !self.is_up(*index)).map(attempt).collect())
    }

    pub fn stats(&self) -> PublisherStats {
        let (resent_batches, let_go) = self.window.resend_counts();
        let Ports { fences, reconnects, new_sessions, .. } = *self;
        PublisherStats { resent_batches, let_go, fences, reconnects, new_sessions, ..PublisherStats::default() }
    }

    fn contradiction(&self, index: usize, issue: Contradiction) -> ClientError {
        contradiction(self.address(index), issue)
    }
}

fn contradiction(broker: &str, issue: Contradiction) -> ClientError {
    let Contradiction { field, found, expected } = issue;
    ClientError::Contradiction { broker: broker.to_owned(), field, found, expected }
}

/// What a batch may look like: what was asked for, clipped to what the broker takes.
fn shape(options: &PublisherOptions, first: &Greeting) -> Result<Shape, ClientError> {
    let wrong = |field, found, expected| contradiction(&first.address, Contradiction { field, found, expected });
    let offered = u64::from(first.welcome.batch_bytes_max).min(BATCH_BYTES_MAX);
    if offered < BATCH_BYTES_MIN {
        return Err(wrong("batch_bytes_max", offered, BATCH_BYTES_MIN));
    }
    if first.welcome.window_batches_max == 0 {
        return Err(wrong("window_batches_max", 0, 1));
    }
    let frame_bytes_max = offered / LINE_BYTES * LINE_BYTES;
    let target_bytes = options.batch_bytes.min(frame_bytes_max) / LINE_BYTES * LINE_BYTES;
    Ok(Shape { target_bytes, frame_bytes_max, messages_max: options.batch_messages })
}

/// Whether it goes to the brokers that are listed, and not only to those it was given.
fn discovers(options: &PublisherOptions, first: &Greeting) -> bool {
    options.discover && first.brokers.iter().any(|(id, _)| *id == first.welcome.broker)
}

/// The brokers to stripe over. The one that answered keeps the address it was reached at.
fn broker_table(options: &PublisherOptions, first: &Greeting) -> Vec<BrokerProgress> {
    let row = |(broker, address)| BrokerProgress::none(broker, address);
    if discovers(options, first) {
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

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
