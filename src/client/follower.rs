//! A subscriber without sockets, threads and clocks: which broker is dialed when, and what follows from what came.
//!
//! A fault of what came ends the connection, and another broker is asked, of each topic, for the first message that was not handed on:
//! the next pass does it after the error is told, and bytes that were spoiled on their way are asked for again without a word.
//!
//! A broker that is not heard for several of its heartbeats is left like one whose connection broke. Connections that bring nothing,
//! one after another for `connect_timeout`, end with an error that says what became of each.

use std::io;
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::delivered::Event;
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::handshake::{ANY_ORDER_LEVEL, Call, Greeting, same_log};
use crate::client::intake::{FollowedTopic, Intake, Step, starts};
use crate::client::options::{SlowReaderPolicy, SubscriberOptions};
use crate::client::pulse::{HEARTBEAT, Pulse};
use crate::wire::frame::{Hello, LogRecord, Role};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Up { address: String },
    Dialing,
    Down { retry_at: Instant },
}

/// See the head of the file.
///
/// While it [is up](Follower::is_up): [`room`](Follower::room) and [`landed`](Follower::landed), or [`on_silence`](Follower::on_silence)
/// if nothing came, or [`on_lost`](Follower::on_lost); then [`step`](Follower::step) until it gives false; and
/// [`unsaid`](Follower::unsaid) with [`said`](Follower::said). Any of them may end the connection: whoever has it looks at `is_up`, and
/// closes it.
///
/// While it is not: [`redial`](Follower::redial), and [`on_dialed`](Follower::on_dialed) with what the attempt came to.
/// [`next_due`](Follower::next_due) says when time alone makes the next call worth while.
pub(crate) struct Follower {
    intake: Intake,
    slow_reader: SlowReaderPolicy,
    /// Seeds first, then the brokers that are there as it was last told.
    brokers: Vec<String>,
    /// How many of them are seeds.
    seeds: usize,
    /// The broker to dial next.
    turn: usize,
    connect_timeout: Duration,
    line: Line,
    /// Attempts of an earlier generation are void.
    generation: u64,
    backoff: Backoff,
    /// Since when no connection brought anything.
    down_since: Instant,
    /// When the connection was welcomed, and whether it brought anything.
    up_since: Instant,
    is_of_use: bool,
    pulse: Pulse,
    /// Which log it reads, once a broker has said so.
    log: Option<LogRecord>,
    /// When the connection was last listened to.
    looked_at: Instant,
    failures: Vec<Attempt>,
    spoiled_batches: u64,
}

/// The first call of a subscriber, to each of its brokers in turn; [`Follower::new`] takes what one of them answered.
pub(crate) fn first_call(options: &SubscriberOptions) -> Call {
    Call {
        address: options.brokers[0].clone(),
        hello: hello(options.slow_reader, None),
        body: starts(options.topics().map(|(name, start)| (name, start, 0))),
        welcomes: options.topics().count(),
        timeout: options.connect_timeout,
    }
}

/// Connections.
impl Follower {
    /// Of the first connection, which is up then.
    pub fn new(
        options: &SubscriberOptions,
        backoff: Backoff,
        first: &Greeting,
        now: Instant,
    ) -> Result<Follower, ClientError> {
        let mut follower = Follower {
            intake: Intake::new(options, first)?,
            slow_reader: options.slow_reader,
            brokers: options.brokers.clone(),
            seeds: options.brokers.len(),
            turn: 0,
            connect_timeout: options.connect_timeout,
            line: Line::Dialing,
            generation: 0,
            backoff,
            down_since: now,
            up_since: now,
            is_of_use: false,
            pulse: Pulse::default(),
            log: None,
            looked_at: now,
            failures: Vec::new(),
            spoiled_batches: 0,
        };
        follower.line_up(first, now)?;
        Ok(follower)
    }

    /// The attempt to begin now, if its time has come.
    ///
    /// # Errors
    /// For `connect_timeout` no connection brought anything. The time begins anew.
    pub fn redial(&mut self, now: Instant) -> Result<Option<Call>, ClientError> {
        if self.is_up() {
            return Ok(None);
        }
        if now.saturating_duration_since(self.down_since) >= self.connect_timeout {
            self.down_since = now;
            let (waited, tried) = (self.connect_timeout, Attempts(self.failures.clone()));
            return Err(ClientError::Unreachable { waited, tried });
        }
        match self.line {
            Line::Down { retry_at } if retry_at <= now => {}
            _ => return Ok(None),
        }
        self.line = Line::Dialing;
        Ok(Some(Call {
            address: self.address().to_owned(),
            hello: hello(self.slow_reader, self.log.as_ref()),
            body: self.intake.starts(),
            welcomes: self.intake.topics().len(),
            timeout: self.dial_timeout(),
        }))
    }

    /// The attempt that was begun in a generation has ended. True: its connection is in use from now on. False: it is to be dropped.
    ///
    /// # Errors
    /// What trying again cannot change, or what a broker said wrongly.
    pub fn on_dialed(
        &mut self,
        generation: u64,
        result: &Result<Greeting, ClientError>,
        now: Instant,
    ) -> Result<bool, ClientError> {
        if generation != self.generation {
            return Ok(false);
        }
        assert_eq!(self.line, Line::Dialing, "the attempt of this generation");
        match result {
            Ok(greeting) => self.line_up(greeting, now).map(|()| true),
            Err(error) => {
                self.on_lost(error, now);
                if error.is_transient() { Ok(false) } else { Err(error.clone()) }
            }
        }
    }

    fn line_up(&mut self, greeting: &Greeting, now: Instant) -> Result<(), ClientError> {
        let taken = same_log(&mut self.log, greeting).and_then(|()| self.intake.welcomed(greeting));
        if let Err(error) = taken {
            self.on_lost(&error, now);
            return Err(error);
        }
        self.line = Line::Up { address: greeting.address.clone() };
        self.know(&greeting.brokers);
        (self.up_since, self.looked_at, self.is_of_use) = (now, now, false);
        self.pulse = Pulse::of(greeting.heartbeat, greeting.log.is_some(), now);
        Ok(())
    }

    /// Takes note of which brokers there are. Those it was given to begin with it always tries.
    fn know(&mut self, brokers: &[(u16, String)]) {
        let Line::Up { address } = &self.line else { return };
        self.brokers.truncate(self.seeds);
        for (_, broker) in brokers {
            if !self.brokers.contains(broker) {
                self.brokers.push(broker.clone());
            }
        }
        // The broker whose turn it was when this one is lost: the next one's is after it.
        self.turn = self.brokers.iter().position(|broker| broker == address).unwrap_or(self.turn);
    }

    /// How long the next attempt may take: with several brokers, at first no longer than one that is well needs, so that a stopped one
    /// costs little; then longer and longer.
    fn dial_timeout(&self) -> Duration {
        if self.brokers.len() == 1 { self.connect_timeout } else { self.connect_timeout.min(self.backoff.pause() * 12) }
    }

    /// The connection, or the attempt at one, is over: the next broker's turn after a pause.
    pub fn on_lost(&mut self, error: &ClientError, now: Instant) {
        log::warn!("topic {}: subscriber's connection lost: {error}", self.intake.topics()[0].name);
        // One that is welcomed again and again, and hears nothing but why not, is not connected.
        if self.is_up() && (self.is_of_use || now.duration_since(self.up_since) >= self.backoff.max()) {
            self.down_since = now;
            self.backoff.reset();
            self.failures.clear();
        }
        let broker = self.address().to_owned();
        self.failures.retain(|attempt| attempt.broker != broker);
        self.failures.push(Attempt { broker, failure: error.to_string() });
        self.line = Line::Down { retry_at: now + self.backoff.fail() };
        self.turn += 1;
        self.generation += 1;
        self.intake.lost();
    }

    /// Gives up what lies between the next message of a topic and `order`, and goes on there, over a new connection.
    pub fn go_on_at(&mut self, place: usize, order: u64, now: Instant) {
        if matches!(self.line, Line::Up { .. } | Line::Dialing) {
            self.turn += 1;
            self.generation += 1;
        }
        self.line = Line::Down { retry_at: now };
        self.down_since = now;
        self.intake.go_on_at(place, order);
    }
}

/// Bytes.
impl Follower {
    /// Where to receive into.
    pub fn room(&mut self) -> &mut [u8] {
        self.intake.room()
    }

    /// So many bytes came into the room.
    pub fn landed(&mut self, bytes: usize, now: Instant) {
        self.look(true, now);
        self.intake.landed(bytes);
    }

    /// Nothing came. True: for so long that the connection is over.
    pub fn on_silence(&mut self, now: Instant) -> bool {
        if !self.is_up() || !self.look(false, now) {
            return false;
        }
        let silence = io::Error::new(io::ErrorKind::TimedOut, format!("nothing was heard for {:?}", self.pulse.silent));
        self.on_lost(&ClientError::io(self.address(), "reading from", &silence), now);
        true
    }

    /// True: the broker has been silent for too long.
    fn look(&mut self, is_heard: bool, now: Instant) -> bool {
        let since_last = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        self.pulse.look(is_heard, since_last)
    }

    /// Takes one frame, and hands on what it brought: `handed` counts that. False: the next one is not whole, or the connection is over.
    ///
    /// # Errors
    /// What a broker said wrongly, or refused with.
    pub fn step(
        &mut self,
        handler: &mut dyn FnMut(Event<'_>),
        handed: &mut usize,
        now: Instant,
    ) -> Result<bool, ClientError> {
        let Line::Up { address } = &self.line else { return Ok(false) };
        match self.intake.step(handler) {
            Ok(step) => {
                self.is_of_use |= matches!(step, Step::CaughtUp | Step::Handed);
                *handed += usize::from(step == Step::Handed);
                if let Some(brokers) = self.intake.take_brokers() {
                    self.know(&brokers);
                }
                Ok(step != Step::NotWhole)
            }
            Err(fault) => {
                let is_spoiled = self.intake.is_in_batch() && fault.is_spoiled();
                self.spoiled_batches += u64::from(is_spoiled);
                let error = fault.into_error(address);
                self.on_lost(&error, now);
                // A broker that is draining or too busy is left for another one, without a word to the caller.
                let is_refused = matches!(error, ClientError::Refused { .. });
                if is_spoiled || is_refused && error.is_transient() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// How many bytes of a heartbeat, its last ones, are to be written now: a broker may end connections of clients that are silent for
    /// long.
    pub fn unsaid(&self, now: Instant) -> usize {
        if self.is_up() { self.pulse.unsaid(true, now) } else { 0 }
    }

    /// So many of the [`unsaid`](Follower::unsaid) bytes were taken.
    pub fn said(&mut self, unsaid: usize, bytes: usize, now: Instant) {
        self.pulse.said(unsaid, bytes, now);
    }

    /// Whether a goodbye can be said now.
    pub fn may_part(&self) -> bool {
        self.is_up() && self.pulse.half_said() == 0
    }
}

/// How it stands.
impl Follower {
    pub fn is_up(&self) -> bool {
        matches!(self.line, Line::Up { .. })
    }

    pub fn is_dialing(&self) -> bool {
        self.line == Line::Dialing
    }

    /// Of the attempt in the air, or the next one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The broker that is connected, or is dialed next.
    pub fn address(&self) -> &str {
        match &self.line {
            Line::Up { address } => address,
            _ => &self.brokers[self.turn % self.brokers.len()],
        }
    }

    /// When time alone makes the next call worth while.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.line {
            Line::Up { .. } => self.pulse.next_look(now),
            Line::Dialing => None,
            Line::Down { retry_at } => Some(retry_at),
        }
    }

    pub fn topics(&self) -> &[FollowedTopic] {
        self.intake.topics()
    }

    /// Batches whose bytes were other ones than their writer's when they came, and that were asked for again. The simulator counts them.
    #[cfg(feature = "broker")]
    pub fn spoiled_batches(&self) -> u64 {
        self.spoiled_batches
    }
}

/// Of one that goes on: in which log.
fn hello(slow_reader: SlowReaderPolicy, log: Option<&LogRecord>) -> Hello {
    let (slow_reader, lag_bytes) = slow_reader.on_wire();
    Hello {
        role: Role::Subscriber as u8,
        order_level: ANY_ORDER_LEVEL,
        slow_reader: slow_reader as u8,
        lag_bytes,
        log: log.map_or(0, LogRecord::tag),
        heartbeat_ms: HEARTBEAT.as_millis() as u32,
        ..Hello::default()
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
