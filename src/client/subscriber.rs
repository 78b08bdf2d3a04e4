//! A subscriber: the whole ordered stream of a topic over one connection, resumed by position when it breaks.
//!
//! What comes in is checked before it is handed on: header and body CRC and the message framing of every batch, the
//! Deliver frame against the batch it announces, and that every batch begins where the last one ended. A failed check
//! is an error of that poll and ends the connection; the next poll asks another broker for the first message that was
//! not handed on.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::dial::{ANY_ORDER_LEVEL, BACKOFF_MAX, BACKOFF_MIN, Call, Dialer, Greeting, dial_any, refused};
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::options::{Start, SubscriberOptions};
use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::net::readiness::Readiness;
use crate::wire::frame::{self, BatchHeader, CaughtUp, Deliver, Hello, Role};
use crate::wire::message::{Message, Messages};
use crate::wire::{BatchDecoder, FrameKind, OrderLevel, Progress, WireError};

/// Most batches handed on in one poll.
const POLL_BATCHES_MAX: usize = 64;
/// Receive only into at least this much room; below it, what is not decoded moves to the buffer's start.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// One batch, in order, as handed to the handler of [`Subscriber::poll`].
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// Total order of the batch's first message, whether or not it is below the start.
    pub first_order: u64,
    /// Position of the batch in the pool's order index.
    pub position: u64,
    /// Session that published it.
    pub session: u64,
    /// Epoch of that session.
    pub session_epoch: u32,
    /// Its number in that session.
    pub batch_seq: u64,
    /// Messages in it.
    pub message_count: u32,
    /// Broker's clock when the batch was complete in the blog, UTC ns.
    pub received_at: u64,
    /// Publisher's clock when it was sealed, UTC ns.
    pub created_at: u64,
    /// Messages of a lower order were not asked for.
    pub(super) start_order: u64,
    pub(super) body: &'a [u8],
}

impl<'a> Delivered<'a> {
    /// Its messages with their total order, those below the subscriber's start left out.
    pub fn messages(&self) -> impl Iterator<Item = (u64, Message<'a>)> + use<'a> {
        let start_order = self.start_order;
        (self.first_order..).zip(Messages::new(self.body)).skip_while(move |(order, _)| *order < start_order)
    }
}

/// Bytes received and not handed on: `bytes[start..end]`.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn landed(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room to receive into, so that a frame of `wanted` bytes from `start` fits.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.start == self.end {
            self.clear();
        }
        let wanted = wanted.max(self.end - self.start + 1);
        if self.start + wanted > self.bytes.len() || (self.start > 0 && self.bytes.len() - self.end < ROOM_BYTES_MIN) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted, 0);
        }
        &mut self.bytes[self.end..]
    }
}

enum Line {
    Up { stream: TcpStream, address: String },
    Dialing,
    Down { retry_at: Instant },
}

/// Receives the messages of one topic in total order.
///
/// Nothing happens between two calls of [`poll`](Subscriber::poll). Memory: one receive buffer.
pub struct Subscriber {
    topic: String,
    /// Seeds first, then the brokers they named.
    brokers: Vec<String>,
    /// The broker to dial next.
    turn: usize,
    connect_timeout: Duration,
    line: Line,
    dialer: Dialer,
    generation: u64,
    backoff: Duration,
    down_since: Instant,
    failures: Vec<Attempt>,
    readiness: Readiness,
    inbox: Inbox,
    decoder: BatchDecoder,
    batch_bytes_max: u64,
    /// The Deliver frame whose batch is landing.
    announced: Option<Deliver>,
    /// First order of the next batch; none before the first of a connection, which may begin below `next_order`.
    expected: Option<u64>,
    /// Which of the topics that may have had the name it reads.
    topic_generation: u64,
    next_order: u64,
    caught_up: bool,
    order_level: OrderLevel,
}

impl Subscriber {
    /// Connects to the first broker that answers and asks for the topic from `start` on.
    ///
    /// Errors: [`ClientError::Option`], [`ClientError::Unreachable`] after `connect_timeout`, or what the broker
    /// refused with (`UnknownTopic`; `Trimmed`, whose detail is the earliest order).
    pub fn connect(options: SubscriberOptions) -> Result<Subscriber, ClientError> {
        options.check()?;
        let greeting = dial_any(&options.brokers, &hello(options.start, 0), &options.topic, options.connect_timeout)?;
        let welcome = greeting.welcome;
        let order_level =
            OrderLevel::from_byte(welcome.order_level).map_err(|error| ClientError::wire(&greeting.address, error))?;
        let next_order = match options.start {
            Start::Order(order) => order,
            Start::Earliest | Start::Latest => welcome.next,
        };
        let mut subscriber = Subscriber {
            topic: options.topic,
            brokers: options.brokers,
            turn: 0,
            connect_timeout: options.connect_timeout,
            line: Line::Dialing,
            dialer: Dialer::new(),
            generation: 0,
            backoff: BACKOFF_MIN,
            down_since: Instant::now(),
            failures: Vec::new(),
            readiness: Readiness::default(),
            inbox: Inbox { bytes: vec![0; options.buffer_bytes as usize], start: 0, end: 0 },
            decoder: BatchDecoder::new(BATCH_BYTES_MAX),
            batch_bytes_max: BATCH_BYTES_MAX,
            announced: None,
            expected: None,
            topic_generation: welcome.session,
            next_order,
            caught_up: false,
            order_level,
        };
        subscriber.line_up(greeting)?;
        Ok(subscriber)
    }

    /// Hands every batch that has come, in order, to `handler`; waits up to `timeout` for the first. Returns how many
    /// batches were handed on: at most 64, 0 if none came.
    ///
    /// A broken connection is made good inside. Errors: [`ClientError::Wire`], [`ClientError::Gap`] and
    /// [`ClientError::Contradiction`] for what a broker sent wrongly; [`ClientError::Refused`], for example `Trimmed`;
    /// [`ClientError::Unreachable`] when no broker was reached for `connect_timeout`. An error may follow batches that
    /// were handed on in the same call. After any of them polling again tries again at [`next_order`](Subscriber::next_order).
    pub fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError> {
        let deadline = Instant::now() + timeout;
        let mut handed = 0;
        loop {
            while handed < POLL_BATCHES_MAX && self.step(handler, &mut handed)? {}
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

    /// Total order of the next message to be handed on.
    pub fn next_order(&self) -> u64 {
        self.next_order
    }

    /// Whether the broker has said that everything committed was sent, and nothing came since.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        self.order_level
    }

    /// Takes one frame from the inbox. False: the next one is not whole.
    fn step(&mut self, handler: &mut dyn FnMut(&Delivered<'_>), handed: &mut usize) -> Result<bool, ClientError> {
        let result = match (&self.line, self.announced) {
            (Line::Up { .. }, Some(deliver)) => self.take_batch(&deliver, handler, handed),
            (Line::Up { .. }, None) => self.take_header(),
            _ => return Ok(false),
        };
        match (result, &self.line) {
            (Err(fault), Line::Up { address, .. }) => {
                let error = fault.into_error(address);
                self.line_down(&error);
                // A broker that is draining or too busy is left for another one, without a word to the caller.
                let refused = matches!(error, ClientError::Refused { .. });
                if refused && error.is_transient() { Ok(false) } else { Err(error) }
            }
            (result, _) => Ok(result.unwrap_or(false)),
        }
    }

    fn take_header(&mut self) -> Result<bool, Fault> {
        let Some((header, rest)) = self.inbox.landed().split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(false);
        };
        match frame::check(header, self.batch_bytes_max)? {
            FrameKind::Deliver => {
                let deliver: Deliver = frame::read(header);
                self.check_place(deliver.first_order, deliver.message_count)?;
                self.announced = Some(deliver);
                self.caught_up = false;
                self.inbox.start += FRAME_HEADER_BYTES;
            }
            FrameKind::CaughtUp => {
                let caught_up: CaughtUp = frame::read(header);
                if let Some(expected) = self.expected.filter(|expected| *expected != caught_up.next_order) {
                    return Err(Fault::Gap { found: caught_up.next_order, expected });
                }
                self.caught_up = true;
                self.inbox.start += FRAME_HEADER_BYTES;
            }
            FrameKind::Refused => {
                let whole = frame::frame_bytes(header) as usize;
                let Some(body) = rest.get(..whole - FRAME_HEADER_BYTES) else { return Ok(false) };
                return Err(Fault::Refused(frame::read(header), frame::check_body(header, body)?.to_vec()));
            }
            found => {
                let expected = "Deliver, CaughtUp or Refused";
                return Err(WireError::UnexpectedKind { found, expected }.into());
            }
        }
        Ok(true)
    }

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

    fn take_batch(
        &mut self,
        deliver: &Deliver,
        handler: &mut dyn FnMut(&Delivered<'_>),
        handed: &mut usize,
    ) -> Result<bool, Fault> {
        let landed = &self.inbox.bytes[self.inbox.start..self.inbox.end];
        let header = match self.decoder.advance(landed)? {
            Progress::NeedHeader | Progress::NeedBytes(_) => return Ok(false),
            Progress::Complete(header) => header,
            Progress::Goodbye => {
                return Err(WireError::UnexpectedKind { found: FrameKind::Goodbye, expected: "Batch" }.into());
            }
        };
        check_identity(deliver, &header)?;
        let end = deliver.first_order + u64::from(header.message_count);
        if end > self.next_order {
            let delivered = Delivered {
                first_order: deliver.first_order,
                position: deliver.position,
                session: header.session,
                session_epoch: header.session_epoch,
                batch_seq: header.batch_seq,
                message_count: header.message_count,
                received_at: header.received_at,
                created_at: header.created_at,
                start_order: self.next_order,
                body: &landed[FRAME_HEADER_BYTES..][..header.body_bytes as usize],
            };
            handler(&delivered);
            *handed += 1;
            self.next_order = end;
        }
        self.expected = Some(end);
        self.announced = None;
        self.decoder.reset();
        self.inbox.start += header.frame_bytes() as usize;
        Ok(true)
    }

    /// Reads once. False: nothing was there.
    fn receive(&mut self) -> Result<bool, ClientError> {
        let Line::Up { stream, address } = &mut self.line else { return Ok(false) };
        let wanted = self.announced.map_or(FRAME_HEADER_BYTES, |deliver| deliver.body_bytes as usize);
        let error = match stream.read(self.inbox.room(wanted)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(bytes) => {
                self.inbox.end += bytes;
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => error,
        };
        let error = ClientError::io(address, "reading from", &error);
        self.line_down(&error);
        Ok(false)
    }

    /// For a caller that drives many subscribers on one thread: adds the socket to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if it does not become ready; none: not before that.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        match &self.line {
            Line::Up { stream, .. } => {
                readiness.watch(stream, false);
                None
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
                timeout
            }
            // Nothing but looking announces the result of an attempt.
            Line::Dialing => timeout.min(Duration::from_millis(2)),
            Line::Down { retry_at } => timeout.min(retry_at.saturating_duration_since(Instant::now())),
        };
        match self.readiness.wait(until) {
            Ok(_) => Ok(()),
            Err(error) => Err(ClientError::io(&self.topic, "waiting for the socket of topic", &error)),
        }
    }

    /// Begins an attempt when its time has come, or takes the result of the one in the air.
    fn reconnect(&mut self) -> Result<bool, ClientError> {
        if self.down_since.elapsed() >= self.connect_timeout {
            let waited = self.down_since.elapsed();
            self.down_since = Instant::now();
            return Err(ClientError::Unreachable { waited, tried: Attempts(self.failures.clone()) });
        }
        match self.line {
            Line::Up { .. } => Ok(false),
            Line::Down { retry_at } if retry_at > Instant::now() => Ok(false),
            Line::Down { .. } => {
                let call = Call {
                    address: self.brokers[self.turn % self.brokers.len()].clone(),
                    hello: hello(Start::Order(self.next_order), self.topic_generation),
                    topic: self.topic.clone(),
                    timeout: self.connect_timeout,
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
        let Greeting { stream, address, welcome, brokers } = greeting;
        if welcome.order_level != self.order_level as u8 || welcome.next > self.next_order {
            let (field, found, expected) = match welcome.next > self.next_order {
                true => ("next", welcome.next, self.next_order),
                false => ("order_level", welcome.order_level.into(), self.order_level as u64),
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
        self.batch_bytes_max = BATCH_BYTES_MAX.min(welcome.batch_bytes_max.into());
        self.decoder = BatchDecoder::new(self.batch_bytes_max);
        self.inbox.clear();
        (self.announced, self.expected, self.caught_up) = (None, None, false);
        self.line = Line::Up { stream, address };
        self.backoff = BACKOFF_MIN;
        self.failures.clear();
        Ok(())
    }

    /// The connection, or the attempt at one, is over: the next broker's turn after a pause.
    fn line_down(&mut self, error: &ClientError) {
        log::warn!("topic {}: subscriber's connection lost: {error}", self.topic);
        let now = Instant::now();
        let broker = match &self.line {
            Line::Up { address, .. } => {
                self.down_since = now;
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
        self.caught_up = false;
    }
}

fn hello(start: Start, topic_generation: u64) -> Hello {
    Hello {
        session: topic_generation,
        role: Role::Subscriber as u8,
        order_level: ANY_ORDER_LEVEL,
        start_order: start.on_wire(),
        ..Hello::default()
    }
}

/// The batch is the one announced: bytes that were reused under the broker's send do not pass.
fn check_identity(deliver: &Deliver, header: &BatchHeader) -> Result<(), Fault> {
    let pairs = [
        ("session", header.session, deliver.session),
        ("session_epoch", header.session_epoch.into(), deliver.session_epoch.into()),
        ("batch_seq", header.batch_seq, deliver.batch_seq),
        ("topic", header.topic.into(), deliver.topic.into()),
        ("message_count", header.message_count.into(), deliver.message_count.into()),
        ("frame length", header.frame_bytes(), deliver.body_bytes.into()),
    ];
    match pairs.into_iter().find(|(_, found, expected)| found != expected) {
        Some((field, found, expected)) => Err(Fault::Differs { field, found, expected }),
        None => Ok(()),
    }
}

/// What is wrong with a broker's frame, before the broker's name is put to it.
enum Fault {
    Wire(WireError),
    Refused(frame::Refused, Vec<u8>),
    Gap { found: u64, expected: u64 },
    Differs { field: &'static str, found: u64, expected: u64 },
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Fault {
        Fault::Wire(error)
    }
}

impl Fault {
    fn into_error(self, broker: &str) -> ClientError {
        let broker_name = || broker.to_owned();
        match self {
            Fault::Wire(error) => ClientError::wire(broker, error),
            Fault::Refused(header, text) => refused(broker, &header, &text),
            Fault::Gap { found, expected } => ClientError::Gap { broker: broker_name(), found, expected },
            Fault::Differs { field, found, expected } => {
                ClientError::Contradiction { broker: broker_name(), field, found, expected }
            }
        }
    }
}
