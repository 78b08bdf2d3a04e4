//! A subscriber: the ordered stream of its topics over one connection, resumed by position when it breaks. This is what dials, reads and
//! sleeps for the [follower](crate::client::follower), which decides.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::deadline;
use crate::client::delivered::{Delivered, Event, OwnedEvent};
use crate::client::dial::{Dialer, dial_any};
use crate::client::error::ClientError;
use crate::client::follower::{Follower, first_call};
use crate::client::options::SubscriberOptions;
use crate::client::pulse::heartbeat;
use crate::limits::FRAME_HEADER_BYTES;
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;
use crate::wire::frame::{self, Goodbye};

/// Most events handed on in one poll.
const POLL_EVENTS_MAX: usize = 64;
/// While an attempt is in the air, look for its result this often: nothing else announces it.
const DIAL_CHECK: Duration = Duration::from_millis(2);

/// Receives the messages of its topics in total order.
///
/// Nothing happens between two calls of [`poll`](Subscriber::poll). Memory: one receive buffer.
pub struct Subscriber {
    follower: Follower,
    /// The connection, if the follower is up.
    stream: Option<TcpStream>,
    dialer: Dialer,
    readiness: Readiness,
}

impl Subscriber {
    /// Connects to the first broker that answers and asks for the topics from their starts on.
    ///
    /// Errors: [`ClientError::Option`], [`ClientError::Unreachable`] after `connect_timeout`, or what the broker
    /// refused with (`UnknownTopic`; `Trimmed`, whose detail is the earliest order).
    pub fn connect(options: SubscriberOptions) -> Result<Subscriber, ClientError> {
        options.check()?;
        let call = first_call(&options);
        let (stream, greeting) = dial_any(&options.brokers, &call.hello, &call.body, call.welcomes, call.timeout)?;
        let follower = Follower::new(&options, Backoff::default(), &greeting, Instant::now())?;
        Ok(Subscriber { follower, stream: Some(stream), dialer: Dialer::new(), readiness: Readiness::default() })
    }

    /// Hands every batch that has come, in order, to `handler`; waits up to `timeout` for the first. Returns how many
    /// batches were handed on: at most 64, 0 if none came. The bytes are borrowed from the receive buffer: nothing is copied.
    ///
    /// A broken connection is made good inside, and so is one to a broker that falls silent, or that brought spoiled bytes. Errors:
    /// [`ClientError::Wire`], [`ClientError::Gap`] and [`ClientError::Contradiction`] for what a broker sent wrongly;
    /// [`ClientError::Refused`], for example `Trimmed`; [`ClientError::Unreachable`] when for `connect_timeout` no broker was reached,
    /// or none that brought anything. An error may follow batches that
    /// were handed on in the same call. After any of them polling again tries again at [`next_order`](Subscriber::next_order);
    /// after `Trimmed`, [`go_on_at`](Subscriber::go_on_at) says where to.
    ///
    /// A subscriber that asked for [`SlowReaderPolicy::Skip`](crate::SlowReaderPolicy::Skip) learns here of what was skipped only by
    /// [`skipped_messages`](Subscriber::skipped_messages): use [`poll_events`](Subscriber::poll_events).
    pub fn poll(&mut self, timeout: Duration, mut handler: impl FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        let mut batches = 0;
        let each = &mut |event: Event<'_>| {
            if let Event::Batch(batch) = event {
                handler(&batch);
                batches += 1;
            }
        };
        self.poll_at_most(POLL_EVENTS_MAX, timeout, each)?;
        Ok(batches)
    }

    /// As [`poll`](Subscriber::poll), with everything that comes: batches, and what was skipped. Returns how many events.
    pub fn poll_events(&mut self, timeout: Duration, mut handler: impl FnMut(Event<'_>)) -> Result<usize, ClientError> {
        self.poll_at_most(POLL_EVENTS_MAX, timeout, &mut handler)
    }

    /// Everything that comes, one copied batch at a time; ends when nothing came for `idle`, and can be begun again.
    ///
    /// Memory: the receive buffer and what the caller keeps. What was not asked of the iterator has not been handed on:
    /// nothing is lost when it is dropped. After an error the iterator goes on as [`poll`](Subscriber::poll) does.
    pub fn batches(&mut self, idle: Duration) -> Batches<'_> {
        Batches { subscriber: self, idle }
    }

    fn poll_at_most(
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

    /// Total order of the next message of the first topic to be handed on.
    pub fn next_order(&self) -> u64 {
        self.follower.topics()[0].next_order
    }

    /// As [`next_order`](Subscriber::next_order), of the topic at this place.
    pub fn next_order_of(&self, place: usize) -> u64 {
        self.follower.topics()[place].next_order
    }

    /// Whether the broker has said of every topic that everything committed was sent, and nothing of it came since.
    pub fn caught_up(&self) -> bool {
        self.follower.topics().iter().all(|topic| topic.caught_up)
    }

    /// As [`caught_up`](Subscriber::caught_up), of the topic at this place.
    pub fn caught_up_with(&self, place: usize) -> bool {
        self.follower.topics()[place].caught_up
    }

    /// Messages that were skipped, over all topics, because this subscriber was too slow.
    pub fn skipped_messages(&self) -> u64 {
        self.follower.topics().iter().map(|topic| topic.skipped).sum()
    }

    /// Messages of the topic at this place that were gone already when this subscriber began at the earliest.
    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        self.follower.topics()[place].trimmed
    }

    /// Name of the first topic.
    pub fn topic(&self) -> &str {
        &self.follower.topics()[0].name
    }

    /// Names of all topics, by place.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.follower.topics().iter().map(|topic| topic.name.as_str())
    }

    /// Order level of the first topic.
    pub fn order_level(&self) -> OrderLevel {
        self.follower.topics()[0].order_level
    }

    /// Gives up what lies between the next message of a topic and `order`, and goes on there, over a new connection: the answer
    /// to `Trimmed`, whose detail is the earliest order.
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

    /// For a caller that drives many subscribers on one thread: adds the socket to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if it does not become ready; none: not before that.
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
impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.as_mut().filter(|_| self.follower.may_part()) {
            // If it can be said at once: closing says nearly as much.
            let _ = stream.write(&frame::seal(&Goodbye::default()));
        }
    }
}

/// Iterator over what comes to a subscriber; see [`Subscriber::batches`].
pub struct Batches<'a> {
    subscriber: &'a mut Subscriber,
    idle: Duration,
}

impl Iterator for Batches<'_> {
    type Item = Result<OwnedEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found = None;
        let take = &mut |event: Event<'_>| {
            found = Some(match event {
                Event::Batch(batch) => OwnedEvent::Batch(batch.to_owned()),
                Event::Skipped { place, from, next_order, .. } => OwnedEvent::Skipped { place, from, next_order },
            });
        };
        match self.subscriber.poll_at_most(1, self.idle, take) {
            Ok(_) => found.map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}
