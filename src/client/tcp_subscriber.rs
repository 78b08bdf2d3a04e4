//! A subscriber over TCP: the ordered stream of its topics over one connection, resumed by position when it breaks. This is what dials, reads and
//! sleeps for the [follower](crate::client::follower), which decides.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::deadline;
use crate::client::delivered::Event;
use crate::client::dial::{Dialer, dial_any};
use crate::client::error::ClientError;
use crate::client::follower::{Follower, first_call};
use crate::client::intake::FollowedTopic;
use crate::client::options::SubscriberOptions;
use crate::client::pulse::heartbeat;
use crate::limits::FRAME_HEADER_BYTES;
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;
use crate::wire::frame::{self, Goodbye};

/// While an attempt is in the air, look for its result this often: nothing else announces it.
const DIAL_CHECK: Duration = Duration::from_millis(2);

/// A follower and its connection; see [`Subscriber`](crate::client::Subscriber).
pub(super) struct TcpSubscriber {
    follower: Follower,
    /// The connection, if the follower is up.
    stream: Option<TcpStream>,
    dialer: Dialer,
    readiness: Readiness,
}

impl TcpSubscriber {
    /// See [`Subscriber::connect`](crate::client::Subscriber::connect); the other methods likewise.
    pub fn connect(options: SubscriberOptions) -> Result<TcpSubscriber, ClientError> {
        options.check()?;
        let call = first_call(&options);
        let (stream, greeting) = dial_any(&options.brokers, &call.hello, &call.body, call.welcomes, call.timeout)?;
        let follower = Follower::new(&options, Backoff::default(), &greeting, Instant::now())?;
        Ok(TcpSubscriber { follower, stream: Some(stream), dialer: Dialer::new(), readiness: Readiness::default() })
    }

    pub fn poll(
        &mut self,
        most: usize,
        timeout: Duration,
        handler: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, ClientError> {
        let deadline = deadline::within(timeout);
        let mut handed = 0;
        loop {
            let now = Instant::now();
            let stepped = self.step(most, handler, &mut handed, now);
            self.close_if_over();
            stepped?;
            if handed > 0 {
                return Ok(handed);
            }
            let moved = if self.follower.is_up() { self.receive() } else { self.reconnect()? };
            self.close_if_over();
            if moved {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(0);
            }
            self.wait(left)?;
        }
    }

    pub fn next_order_of(&self, place: usize) -> u64 {
        self.follower.topics()[place].next_order
    }

    pub fn caught_up(&self) -> bool {
        self.follower.topics().iter().all(|topic| topic.caught_up)
    }

    pub fn caught_up_with(&self, place: usize) -> bool {
        self.follower.topics()[place].caught_up
    }

    pub fn skipped_messages(&self) -> u64 {
        self.follower.topics().iter().map(|topic| topic.skipped).sum()
    }

    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        self.follower.topics()[place].trimmed
    }

    pub fn topic(&self) -> &str {
        &self.follower.topics()[0].name
    }

    pub fn topics(&self) -> &[FollowedTopic] {
        self.follower.topics()
    }

    pub fn order_level(&self) -> OrderLevel {
        self.follower.topics()[0].order_level
    }

    pub fn go_on_at(&mut self, place: usize, order: u64) {
        self.follower.go_on_at(place, order, Instant::now());
        self.close_if_over();
    }

    /// Takes what has come whole, up to so many events.
    fn step(
        &mut self,
        most: usize,
        handler: &mut dyn FnMut(Event<'_>),
        handed: &mut usize,
        now: Instant,
    ) -> Result<(), ClientError> {
        while *handed < most && self.follower.step(handler, handed, now)? {}
        Ok(())
    }

    fn close_if_over(&mut self) {
        if !self.follower.is_up() {
            self.stream = None;
        }
    }

    /// Reads once. False: nothing was there, or the connection is over.
    fn receive(&mut self) -> bool {
        let now = Instant::now();
        let Some(stream) = &mut self.stream else { return false };
        beat(&mut self.follower, stream, now);
        let error = match stream.read(self.follower.room()) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(bytes) => {
                self.follower.landed(bytes, now);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.follower.on_silence(now);
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => error,
        };
        let error = ClientError::io(self.follower.address(), "reading from", &error);
        self.follower.on_lost(&error, now);
        false
    }

    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        self.stream.iter().for_each(|stream| readiness.watch(stream, false));
        self.next_due(Instant::now())
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let check = self.follower.is_dialing().then(|| now + DIAL_CHECK);
        self.follower.next_due(now).into_iter().chain(check).min()
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let now = Instant::now();
        self.readiness.clear();
        self.stream.iter().for_each(|stream| self.readiness.watch(stream, false));
        let until = self.next_due(now).map_or(timeout, |due| timeout.min(due.saturating_duration_since(now)));
        match self.readiness.wait(until) {
            Ok(_) => Ok(()),
            Err(error) => Err(ClientError::io(self.topic(), "waiting for the socket of topic", &error)),
        }
    }

    /// Begins an attempt when its time has come, or takes the result of the one in the air. True: it is connected.
    fn reconnect(&mut self) -> Result<bool, ClientError> {
        let now = Instant::now();
        if let Some(call) = self.follower.redial(now)? {
            self.dialer.begin(0, self.follower.generation(), call);
        }
        let Some(dialed) = self.dialer.next() else { return Ok(false) };
        let (stream, result) = match dialed.result {
            Ok((stream, greeting)) => (Some(stream), Ok(greeting)),
            Err(error) => (None, Err(error)),
        };
        let is_up = self.follower.on_dialed(dialed.generation, &result, now)?;
        self.stream = stream.filter(|_| is_up);
        Ok(is_up)
    }
}

/// Says that somebody is here, if that is due.
fn beat(follower: &mut Follower, stream: &mut TcpStream, now: Instant) {
    let unsaid = follower.unsaid(now);
    if unsaid == 0 {
        return;
    }
    match stream.write(&heartbeat()[FRAME_HEADER_BYTES - unsaid..]) {
        Ok(bytes) => follower.said(unsaid, bytes, now),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            follower.said(unsaid, 0, now);
        }
        // Nothing else is written here, and reading tells of a broken connection.
        Err(_) => {}
    }
}

/// A place is kept for a while for a reader whose connection broke, and publishers wait for it. Whoever is done says so.
impl Drop for TcpSubscriber {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.as_mut().filter(|_| self.follower.may_part()) {
            // If it can be said at once: closing says nearly as much.
            let _ = stream.write(&frame::seal(&Goodbye::default()));
        }
    }
}
