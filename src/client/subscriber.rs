//! A subscriber: the ordered stream of its topics over one connection, resumed by position when it breaks.
//!
//! What comes in is checked before it is handed on: header and body CRC and the message framing of every batch, the
//! Deliver frame against the batch it announces, and that every batch begins where its topic's last one ended. A failed check
//! ends the connection, and another broker is asked, of each topic, for the first message that was not handed on: the next poll does
//! it after the error is told, and bytes that were spoiled on their way are asked for again without a word.
//!
//! A broker that is not heard for several of its heartbeats is left like one whose connection broke. Connections that bring nothing,
//! one after another for `connect_timeout`, end with an error that says what became of each.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::deadline;
use crate::client::delivered::{Delivered, Event, OwnedEvent};
use crate::client::dial::{ANY_ORDER_LEVEL, BACKOFF_MAX, BACKOFF_MIN, Call, Dialer, Greeting, dial_any, same_log};
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::fault::{Fault, check_identity};
use crate::client::inbox::Inbox;
use crate::client::options::{SlowReaderPolicy, Start, SubscriberOptions};
use crate::client::pulse::{HEARTBEAT, Pulse};
use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::net::readiness::Readiness;
use crate::wire::frame::{self, CaughtUp, Deliver, Hello, LogRecord, Role, Skipped, Welcome};
use crate::wire::subscribe::push_start;
use crate::wire::{BatchDecoder, FrameKind, OrderLevel, Progress, SlowReader, WireError};

/// Most events handed on in one poll.
const POLL_EVENTS_MAX: usize = 64;
enum Line {
    Up { stream: TcpStream, address: String },
    Dialing,
    Down { retry_at: Instant },
}

/// One topic of a subscription.
struct Topic {
    name: String,
    /// Topic id, from the Welcome.
    id: u32,
    /// Which of the topics that may have had the name, from the Welcome.
    generation: u64,
    order_level: OrderLevel,
    /// First order of the next batch; none before the first of a connection, which may begin below `next_order`.
    expected: Option<u64>,
    next_order: u64,
    caught_up: bool,
    skipped: u64,
    /// Messages that were gone when it began at the earliest.
    trimmed: u64,
}

/// Receives the messages of its topics in total order.
///
/// Nothing happens between two calls of [`poll`](Subscriber::poll). Memory: one receive buffer.
pub struct Subscriber {
    topics: Box<[Topic]>,
    slow_reader: SlowReaderPolicy,
    /// Seeds first, then the brokers they named.
    brokers: Vec<String>,
    /// The broker to dial next.
    turn: usize,
    connect_timeout: Duration,
    line: Line,
    dialer: Dialer,
    generation: u64,
    backoff: Duration,
    /// Since when no connection brought anything.
    down_since: Instant,
    /// When the connection was welcomed, and whether it brought anything.
    up_since: Instant,
    is_of_use: bool,
    pulse: Pulse,
    /// Which log it reads, once a broker has said so.
    log: Option<LogRecord>,
    /// When the socket was last read.
    looked_at: Instant,
    failures: Vec<Attempt>,
    readiness: Readiness,
    inbox: Inbox,
    check_crc: bool,
    decoder: BatchDecoder,
    batch_bytes_max: u64,
    /// The Deliver frame whose batch is landing, and the place of its topic.
    announced: Option<(Deliver, usize)>,
}

impl Subscriber {
    /// Connects to the first broker that answers and asks for the topics from their starts on.
    ///
    /// Errors: [`ClientError::Option`], [`ClientError::Unreachable`] after `connect_timeout`, or what the broker
    /// refused with (`UnknownTopic`; `Trimmed`, whose detail is the earliest order).
    pub fn connect(options: SubscriberOptions) -> Result<Subscriber, ClientError> {
        options.check()?;
        let body = hello_body(options.topics().map(|(name, start)| (name, start, 0)));
        let (hello, count) = (hello(options.slow_reader.on_wire(), None), options.topics().count());
        let greeting = dial_any(&options.brokers, &hello, &body, count, options.connect_timeout)?;
        let welcomes = std::iter::once(&greeting.welcome).chain(&greeting.more);
        let topic = |((name, start), welcome): ((&str, Start), &Welcome)| {
            let order_level = OrderLevel::from_byte(welcome.order_level)
                .map_err(|error| ClientError::wire(&greeting.address, error))?;
            let next_order = match start {
                Start::Order(order) => order,
                Start::Earliest | Start::Latest | Start::Timestamp(_) => welcome.next,
            };
            let (name, id) = (name.to_owned(), welcome.topic);
            let generation = welcome.session;
            let trimmed = if start == Start::Earliest { welcome.next } else { 0 };
            let (caught_up, skipped) = (false, 0);
            Ok(Topic { name, id, generation, order_level, expected: None, next_order, caught_up, skipped, trimmed })
        };
        let topics = options.topics().zip(welcomes).map(topic).collect::<Result<Box<[_]>, ClientError>>()?;
        let mut subscriber = Subscriber {
            topics,
            slow_reader: options.slow_reader,
            brokers: options.brokers,
            turn: 0,
            connect_timeout: options.connect_timeout,
            line: Line::Dialing,
            dialer: Dialer::new(),
            generation: 0,
            backoff: BACKOFF_MIN,
            down_since: Instant::now(),
            up_since: Instant::now(),
            is_of_use: false,
            pulse: Pulse::default(),
            log: None,
            looked_at: Instant::now(),
            failures: Vec::new(),
            readiness: Readiness::default(),
            inbox: Inbox::new(options.buffer_bytes),
            check_crc: options.check_crc,
            decoder: BatchDecoder::new(BATCH_BYTES_MAX),
            batch_bytes_max: BATCH_BYTES_MAX,
            announced: None,
        };
        subscriber.line_up(greeting)?;
        Ok(subscriber)
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
    /// A subscriber that asked for [`SlowReaderPolicy::Skip`] learns here of what was skipped only by
    /// [`skipped_messages`](Subscriber::skipped_messages): use [`poll_events`](Subscriber::poll_events).
    pub fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
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
    pub fn poll_events(&mut self, timeout: Duration, handler: &mut dyn FnMut(Event<'_>)) -> Result<usize, ClientError> {
        self.poll_at_most(POLL_EVENTS_MAX, timeout, handler)
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
            while handed < most && self.step(handler, &mut handed)? {}
            if handed > 0 {
                return Ok(handed);
            }
            let moved = match &self.line {
                Line::Up { .. } => self.receive()?,
                _ => self.reconnect()?,
            };
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
        self.topics[0].next_order
    }

    /// As [`next_order`](Subscriber::next_order), of the topic at this place.
    pub fn next_order_of(&self, place: usize) -> u64 {
        self.topics[place].next_order
    }

    /// Whether the broker has said of every topic that everything committed was sent, and nothing of it came since.
    pub fn caught_up(&self) -> bool {
        self.topics.iter().all(|topic| topic.caught_up)
    }

    /// As [`caught_up`](Subscriber::caught_up), of the topic at this place.
    pub fn caught_up_with(&self, place: usize) -> bool {
        self.topics[place].caught_up
    }

    /// Messages that were skipped, over all topics, because this subscriber was too slow.
    pub fn skipped_messages(&self) -> u64 {
        self.topics.iter().map(|topic| topic.skipped).sum()
    }

    /// Messages of the topic at this place that were gone already when this subscriber began at the earliest.
    pub fn trimmed_before_start(&self, place: usize) -> u64 {
        self.topics[place].trimmed
    }

    /// Name of the first topic.
    pub fn topic(&self) -> &str {
        &self.topics[0].name
    }

    /// Names of all topics, by place.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|topic| topic.name.as_str())
    }

    /// Order level of the first topic.
    pub fn order_level(&self) -> OrderLevel {
        self.topics[0].order_level
    }

    /// Gives up what lies between the next message of a topic and `order`, and goes on there, over a new connection: the answer
    /// to `Trimmed`, whose detail is the earliest order.
    pub fn go_on_at(&mut self, place: usize, order: u64) {
        self.topics[place].next_order = order;
        if matches!(self.line, Line::Up { .. } | Line::Dialing) {
            self.turn += 1;
            self.generation += 1;
        }
        self.line = Line::Down { retry_at: Instant::now() };
        self.down_since = Instant::now();
        self.topics.iter_mut().for_each(|topic| topic.caught_up = false);
    }

    /// Takes one frame from the inbox. False: the next one is not whole.
    fn step(&mut self, handler: &mut dyn FnMut(Event<'_>), handed: &mut usize) -> Result<bool, ClientError> {
        let result = match (&self.line, self.announced) {
            (Line::Up { .. }, Some((deliver, place))) => self.take_batch(&deliver, place, handler, handed),
            (Line::Up { .. }, None) => self.take_header(handler, handed),
            _ => return Ok(false),
        };
        match (result, &self.line) {
            (Err(fault), Line::Up { address, .. }) => {
                let is_spoiled = self.announced.is_some() && fault.is_spoiled();
                let error = fault.into_error(address);
                self.line_down(&error);
                // A broker that is draining or too busy is left for another one, without a word to the caller.
                let refused = matches!(error, ClientError::Refused { .. });
                if is_spoiled || refused && error.is_transient() { Ok(false) } else { Err(error) }
            }
            (result, _) => Ok(result.unwrap_or(false)),
        }
    }

    /// Place of the topic that a frame speaks of.
    fn place_of(&self, id: u32) -> Result<usize, Fault> {
        let place = self.topics.iter().position(|topic| topic.id == id);
        place.ok_or(Fault::Differs { field: "topic", found: id.into(), expected: self.topics[0].id.into() })
    }

    fn take_header(&mut self, handler: &mut dyn FnMut(Event<'_>), handed: &mut usize) -> Result<bool, Fault> {
        let Some((header, rest)) = self.inbox.landed().split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(false);
        };
        match frame::check(header, self.batch_bytes_max)? {
            FrameKind::Deliver => {
                let deliver: Deliver = frame::read(header);
                let place = self.place_of(deliver.topic)?;
                let topic = &mut self.topics[place];
                topic.check_place(deliver.first_order, deliver.message_count)?;
                topic.caught_up = false;
                self.announced = Some((deliver, place));
            }
            FrameKind::CaughtUp => {
                let caught_up: CaughtUp = frame::read(header);
                let place = self.place_of(caught_up.topic)?;
                let topic = &mut self.topics[place];
                if let Some(expected) = topic.expected.filter(|expected| *expected != caught_up.next_order) {
                    return Err(Fault::Gap { found: caught_up.next_order, expected });
                }
                topic.caught_up = true;
                self.is_of_use = true;
            }
            FrameKind::Skipped => {
                let skipped: Skipped = frame::read(header);
                let place = self.place_of(skipped.topic)?;
                let topic = &mut self.topics[place];
                topic.skip(&skipped)?;
                let (from, next_order) = (skipped.from, skipped.next_order);
                handler(Event::Skipped { topic: &topic.name, place, from, next_order });
                *handed += 1;
                self.is_of_use = true;
            }
            FrameKind::Heartbeat => {}
            FrameKind::Refused => {
                let whole = frame::frame_bytes(header) as usize;
                let Some(body) = rest.get(..whole - FRAME_HEADER_BYTES) else { return Ok(false) };
                return Err(Fault::Refused(frame::read(header), frame::check_body(header, body)?.to_vec()));
            }
            found => {
                let expected = "Deliver, CaughtUp, Skipped, Heartbeat or Refused";
                return Err(WireError::UnexpectedKind { found, expected }.into());
            }
        }
        self.inbox.start += FRAME_HEADER_BYTES;
        Ok(true)
    }

    fn take_batch(
        &mut self,
        deliver: &Deliver,
        place: usize,
        handler: &mut dyn FnMut(Event<'_>),
        handed: &mut usize,
    ) -> Result<bool, Fault> {
        let landed = &self.inbox.bytes[self.inbox.start..self.inbox.end];
        let header = match self.decoder.advance(landed)? {
            Progress::NeedHeader | Progress::NeedBytes(_) => return Ok(false),
            Progress::Complete(header) => header,
            Progress::Goodbye | Progress::Heartbeat => {
                return Err(WireError::UnexpectedKind { found: FrameKind::Goodbye, expected: "Batch" }.into());
            }
        };
        check_identity(deliver, &header)?;
        let end = deliver.first_order + u64::from(header.message_count);
        let topic = &mut self.topics[place];
        if end > topic.next_order {
            let delivered = Delivered {
                topic: &topic.name,
                place,
                first_order: deliver.first_order,
                position: deliver.position,
                session: header.session,
                session_epoch: header.session_epoch,
                batch_seq: header.batch_seq,
                message_count: header.message_count,
                received_at: header.received_at,
                created_at: header.created_at,
                start_order: topic.next_order,
                body: &landed[FRAME_HEADER_BYTES..][..header.body_bytes as usize],
            };
            handler(Event::Batch(delivered));
            *handed += 1;
            topic.next_order = end;
            self.is_of_use = true;
        }
        topic.expected = Some(end);
        self.announced = None;
        self.decoder.reset();
        self.inbox.start += header.frame_bytes() as usize;
        Ok(true)
    }

    /// Reads once. False: nothing was there.
    fn receive(&mut self) -> Result<bool, ClientError> {
        let now = Instant::now();
        let since_last = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        self.beat(now);
        let Line::Up { stream, address } = &mut self.line else { return Ok(false) };
        let wanted = self.announced.map_or(FRAME_HEADER_BYTES, |(deliver, _)| deliver.body_bytes as usize);
        let error = match stream.read(self.inbox.room(wanted)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(bytes) => {
                self.inbox.end += bytes;
                self.pulse.look(true, since_last);
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.pulse.look(false, since_last) {
                    return Ok(false);
                }
                io::Error::new(io::ErrorKind::TimedOut, format!("nothing was heard for {:?}", self.pulse.silent))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => error,
        };
        let error = ClientError::io(address, "reading from", &error);
        self.line_down(&error);
        Ok(false)
    }

    /// Says that somebody is here, if that is due: a broker may end connections of clients that are silent for long.
    fn beat(&mut self, now: Instant) {
        let Line::Up { stream, .. } = &mut self.line else { return };
        // Nothing else is written here, and reading tells of a broken connection.
        let _ = self.pulse.beat(stream, now);
    }

    /// For a caller that drives many subscribers on one thread: adds the socket to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if it does not become ready; none: not before that.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match &self.line {
            Line::Up { stream, .. } => {
                readiness.watch(stream, false);
                self.pulse.next_look(Instant::now())
            }
            Line::Dialing => Some(Instant::now() + Duration::from_millis(2)),
            Line::Down { retry_at } => Some(*retry_at),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.readiness.clear();
        let until = match &self.line {
            Line::Up { stream, .. } => {
                self.readiness.watch(stream, false);
                let now = Instant::now();
                self.pulse.next_look(now).map_or(timeout, |look| timeout.min(look.saturating_duration_since(now)))
            }
            // Nothing but looking announces the result of an attempt.
            Line::Dialing => timeout.min(Duration::from_millis(2)),
            Line::Down { retry_at } => timeout.min(retry_at.saturating_duration_since(Instant::now())),
        };
        match self.readiness.wait(until) {
            Ok(_) => Ok(()),
            Err(error) => Err(ClientError::io(&self.topics[0].name, "waiting for the socket of topic", &error)),
        }
    }

    /// Begins an attempt when its time has come, or takes the result of the one in the air.
    fn reconnect(&mut self) -> Result<bool, ClientError> {
        if self.down_since.elapsed() >= self.connect_timeout {
            self.down_since = Instant::now();
            let (waited, tried) = (self.connect_timeout, Attempts(self.failures.clone()));
            return Err(ClientError::Unreachable { waited, tried });
        }
        match self.line {
            Line::Up { .. } => Ok(false),
            Line::Down { retry_at } if retry_at > Instant::now() => Ok(false),
            Line::Down { .. } => {
                let call = Call {
                    address: self.brokers[self.turn % self.brokers.len()].clone(),
                    hello: hello(self.slow_reader.on_wire(), self.log.as_ref()),
                    body: hello_body(
                        self.topics
                            .iter()
                            .map(|topic| (topic.name.as_str(), Start::Order(topic.next_order), topic.generation)),
                    ),
                    welcomes: self.topics.len(),
                    timeout: self.dial_timeout(),
                };
                self.dialer.begin(0, self.generation, call);
                self.line = Line::Dialing;
                Ok(false)
            }
            Line::Dialing => match self.dialer.next().filter(|dialed| dialed.generation == self.generation) {
                None => Ok(false),
                Some(dialed) => self.on_dialed(dialed.result),
            },
        }
    }

    fn on_dialed(&mut self, result: Result<Greeting, ClientError>) -> Result<bool, ClientError> {
        match result {
            Ok(greeting) => self.line_up(greeting).map(|()| true),
            Err(error) => {
                let for_good = !error.is_transient();
                self.line_down(&error);
                if for_good { Err(error) } else { Ok(false) }
            }
        }
    }

    fn line_up(&mut self, greeting: Greeting) -> Result<(), ClientError> {
        if let Err(error) = same_log(&mut self.log, &greeting) {
            self.line_down(&error);
            return Err(error);
        }
        let Greeting { stream, address, welcome, more, brokers, heartbeat, log } = greeting;
        for (topic, welcome) in self.topics.iter_mut().zip(std::iter::once(&welcome).chain(&more)) {
            let (field, found, expected) = if welcome.order_level != topic.order_level as u8 {
                ("order_level", welcome.order_level.into(), topic.order_level as u64)
            } else if welcome.next > topic.next_order {
                ("next", welcome.next, topic.next_order)
            } else {
                // A topic of this name may have been made anew.
                (topic.id, topic.expected, topic.caught_up) = (welcome.topic, None, false);
                continue;
            };
            let error = ClientError::Contradiction { broker: address, field, found, expected };
            self.line_down(&error);
            return Err(error);
        }
        for (_, broker) in brokers {
            if !self.brokers.contains(&broker) {
                self.brokers.push(broker);
            }
        }
        // The broker whose turn it was when this one is lost: the next one's is after it.
        self.turn = self.brokers.iter().position(|broker| *broker == address).unwrap_or(self.turn);
        self.batch_bytes_max = BATCH_BYTES_MAX.min(welcome.batch_bytes_max.into());
        self.decoder = BatchDecoder::new(self.batch_bytes_max);
        if !self.check_crc {
            self.decoder = BatchDecoder::without_body_crc(self.batch_bytes_max);
        }
        self.inbox.clear();
        self.announced = None;
        self.line = Line::Up { stream, address };
        let now = Instant::now();
        (self.up_since, self.looked_at, self.is_of_use) = (now, now, false);
        self.pulse = Pulse::of(heartbeat, log.is_some(), now);
        Ok(())
    }

    /// How long the next attempt may take: with several brokers, at first no longer than one that is well needs, so that a stopped one
    /// costs little; then longer and longer.
    fn dial_timeout(&self) -> Duration {
        if self.brokers.len() == 1 { self.connect_timeout } else { self.connect_timeout.min(self.backoff * 12) }
    }

    /// The connection, or the attempt at one, is over: the next broker's turn after a pause.
    fn line_down(&mut self, error: &ClientError) {
        log::warn!("topic {}: subscriber's connection lost: {error}", self.topics[0].name);
        let now = Instant::now();
        let broker = match &self.line {
            Line::Up { address, .. } => {
                // One that is welcomed again and again, and hears nothing but why not, is not connected.
                if self.is_of_use || now.duration_since(self.up_since) >= BACKOFF_MAX {
                    (self.down_since, self.backoff) = (now, BACKOFF_MIN);
                    self.failures.clear();
                }
                address.clone()
            }
            _ => self.brokers[self.turn % self.brokers.len()].clone(),
        };
        self.failures.retain(|attempt| attempt.broker != broker);
        self.failures.push(Attempt { broker, failure: error.to_string() });
        self.line = Line::Down { retry_at: now + self.backoff };
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.turn += 1;
        self.generation += 1;
        self.topics.iter_mut().for_each(|topic| topic.caught_up = false);
    }
}

/// A place is kept for a while for a reader whose connection broke, and publishers wait for it. Whoever is done says so.
impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Line::Up { stream, .. } = &self.line {
            self.pulse.goodbye(stream);
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

impl Topic {
    /// A batch begins where the last one ended; the first of a connection may begin below what was asked for.
    fn check_place(&self, first_order: u64, message_count: u32) -> Result<(), Fault> {
        let gap = match self.expected {
            Some(expected) => first_order != expected,
            None => first_order > self.next_order,
        };
        if gap {
            return Err(Fault::Gap { found: first_order, expected: self.expected.unwrap_or(self.next_order) });
        }
        match first_order.checked_add(message_count.into()) {
            Some(_) => Ok(()),
            None => Err(Fault::Differs { field: "first_order", found: first_order, expected: self.next_order }),
        }
    }

    /// What is skipped begins at what is due, and is not nothing.
    fn skip(&mut self, skipped: &Skipped) -> Result<(), Fault> {
        let due = self.expected.unwrap_or(self.next_order);
        if skipped.from != due {
            return Err(Fault::Gap { found: skipped.from, expected: due });
        }
        if skipped.next_order <= due {
            return Err(Fault::Differs { field: "next_order", found: skipped.next_order, expected: due + 1 });
        }
        // A start that lies ahead of what was skipped stays.
        self.skipped += skipped.next_order.saturating_sub(self.next_order);
        self.expected = Some(skipped.next_order);
        self.next_order = self.next_order.max(skipped.next_order);
        Ok(())
    }
}

/// Of one that goes on: in which log.
fn hello((slow_reader, lag_bytes): (SlowReader, u64), log: Option<&LogRecord>) -> Hello {
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

/// Names, starts, and which of the topics of that name is meant: 0 whichever has it now.
fn hello_body<'a>(topics: impl Iterator<Item = (&'a str, Start, u64)>) -> Vec<u8> {
    let mut body = Vec::new();
    topics.for_each(|(name, start, generation)| push_start(&mut body, name, start, generation));
    body
}
