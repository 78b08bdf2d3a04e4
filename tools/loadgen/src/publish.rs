//! One publisher session: sends its messages as fast as its window allows and waits for the acks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embarcadero::client::{BrokerProgress, ClientError, Publisher, PublisherOptions, PublisherStats};
use embarcadero::wire::OrderLevel;

use crate::board::{Board, SessionBoard};
use crate::payload::{PayloadWriter, Payloads};

/// Longest time in the client before looking at the flags again.
const POLL: Duration = Duration::from_millis(20);
/// Messages between looks at the flags while the client takes everything.
const MESSAGES_PER_LOOK: u64 = 256;
/// Time between updates of the per-broker numbers, which are copied.
const BROKERS_EVERY: Duration = Duration::from_millis(200);
/// Longest time to say goodbye.
const CLOSE: Duration = Duration::from_secs(5);

/// What one session is to do.
pub struct SessionPlan {
    /// Index of the session in the run; the publisher in its stamps.
    pub index: u32,
    /// The run's number in its stamps.
    pub run: u32,
    /// How to connect.
    pub options: PublisherOptions,
    /// Level the topic must have.
    pub order: OrderLevel,
    /// Messages to send.
    pub messages: u64,
    /// What they contain.
    pub payloads: Payloads,
    /// Longest time without an ack.
    pub ack_timeout: Duration,
}

/// What one session reached.
#[derive(Clone, Debug)]
pub struct SessionResult {
    /// Index of the session in the run.
    pub index: u32,
    /// Its session id.
    pub session: u64,
    /// Messages it was to send.
    pub planned: u64,
    /// Messages handed to the client.
    pub sent: u64,
    /// Messages acked; at ack level 0, messages written to sockets.
    pub acked: u64,
    /// Before the first message was handed to the client.
    pub first_send: Option<Instant>,
    /// After the last progress of the acks.
    pub last_ack: Option<Instant>,
    /// What the client had to do again.
    pub stats: PublisherStats,
    /// Where the messages went.
    pub brokers: Vec<BrokerProgress>,
    /// Why the session ended early, unless interrupted.
    pub error: Option<String>,
}

impl SessionResult {
    /// Of a session that has not sent anything.
    pub fn begin(plan: &SessionPlan, publisher: &Publisher) -> SessionResult {
        SessionResult {
            index: plan.index,
            session: publisher.session(),
            planned: plan.messages,
            sent: 0,
            acked: 0,
            first_send: None,
            last_ack: None,
            stats: publisher.stats(),
            brokers: Vec::new(),
            error: None,
        }
    }

    /// Takes what the client knows at the end; closes the session if it came to its end.
    pub fn end(&mut self, publisher: Publisher, board: &Board) {
        self.session = publisher.session();
        self.stats = publisher.stats();
        self.brokers = publisher.broker_progress().to_vec();
        board.sessions[self.index as usize].set_brokers(&self.brokers);
        let complete = self.error.is_none() && !board.interrupted();
        if complete && let Err(error) = publisher.close(Instant::now() + CLOSE) {
            self.error = Some(format!("closing the session: {error}"));
        }
    }
}

/// Connects, waits for the gate, and publishes. None if the run did not start.
pub fn run(plan: SessionPlan, board: &Board) -> Option<SessionResult> {
    let publisher = match connect(&plan) {
        Ok(publisher) => publisher,
        Err(reason) => {
            board.gate.arrive(Err(reason));
            return None;
        }
    };
    if !board.gate.arrive(Ok(())) {
        return None;
    }
    let mut ended = Ended::new(board);
    let result = Session::new(plan, publisher, board).run();
    ended.failed = result.error.is_some();
    Some(result)
}

/// Tells the subscribers that no more will come, even if this thread panics.
pub struct Ended<'a> {
    board: &'a Board,
    /// Whether it gave up; so it is until set otherwise.
    pub failed: bool,
}

impl<'a> Ended<'a> {
    /// Of a session that begins now.
    pub fn new(board: &'a Board) -> Ended<'a> {
        Ended { board, failed: true }
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.board.session_ended(self.failed);
    }
}

/// Connects as planned; refuses a topic or brokers that the plan does not fit.
pub fn connect(plan: &SessionPlan) -> Result<Publisher, String> {
    let index = plan.index;
    let publisher = Publisher::connect(plan.options.clone()).map_err(|error| format!("publisher {index}: {error}"))?;
    if publisher.order_level() != plan.order {
        let (topic, found, asked) = (&plan.options.topic, publisher.order_level(), plan.order);
        return Err(format!(
            "topic {topic:?} has order level {found}, not {asked}: use --order {found} or another --topic"
        ));
    }
    let (found, most) = (plan.payloads.message_bytes() as u64, publisher.batch_message_bytes_max());
    if found > most {
        return Err(format!("--message-size {found}: the brokers take at most {most} bytes of messages in a batch"));
    }
    Ok(publisher)
}

struct Session<'a> {
    board: &'a Board,
    own: &'a SessionBoard,
    publisher: Publisher,
    ack_timeout: Duration,
    writer: PayloadWriter,
    brokers_shown: Instant,
    /// Last time acks moved, or there was nothing to wait for.
    moved: Instant,
    result: SessionResult,
}

impl<'a> Session<'a> {
    fn new(plan: SessionPlan, publisher: Publisher, board: &'a Board) -> Session<'a> {
        let result = SessionResult::begin(&plan, &publisher);
        let now = Instant::now();
        Session {
            board,
            own: &board.sessions[plan.index as usize],
            publisher,
            ack_timeout: plan.ack_timeout,
            writer: PayloadWriter::new(plan.payloads, plan.run, plan.index),
            brokers_shown: now,
            moved: now,
            result,
        }
    }

    fn run(mut self) -> SessionResult {
        self.result.first_send = Some(Instant::now());
        let ended = self.send_all().and_then(|()| self.await_acks());
        self.note_progress();
        self.result.error = ended.err();
        self.result.end(self.publisher, self.board);
        self.result
    }

    /// Hands every message to the client. Returns early, without an error, when the user interrupts.
    fn send_all(&mut self) -> Result<(), String> {
        let mut look_at = 0;
        while self.result.sent < self.result.planned {
            if self.result.sent >= look_at {
                look_at = self.result.sent + MESSAGES_PER_LOOK;
                if self.board.interrupted() {
                    return Ok(());
                }
                self.note_progress();
            }
            let publisher = &mut self.publisher;
            let taken = self.writer.with(self.result.sent, |payload| publisher.try_send(payload));
            if taken.map_err(|error| describe(&error))? {
                self.result.sent += 1;
            } else {
                self.wait(POLL)?;
                look_at = self.result.sent;
            }
        }
        Ok(())
    }

    /// Seals the last batch and waits until everything sent is acked.
    fn await_acks(&mut self) -> Result<(), String> {
        self.moved = Instant::now();
        while self.publisher.messages_acked() < self.result.sent && !self.board.interrupted() {
            self.publisher.seal(); // It has no effect while the window is full.
            self.wait(POLL)?;
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.publisher.poll(time).map_err(|error| describe(&error))?;
        self.note_progress();
        if self.moved.elapsed() > self.ack_timeout {
            return Err(no_ack(&mut self.publisher, self.ack_timeout));
        }
        Ok(())
    }

    fn note_progress(&mut self) {
        let sent = self.result.sent;
        let acked = self.publisher.messages_acked();
        let now = Instant::now();
        if acked > self.result.acked {
            self.result.last_ack = Some(now);
        }
        // With an empty window there is no ack to wait for, so no time counts against the deadline.
        if acked > self.result.acked || self.publisher.in_flight() == 0 {
            self.moved = now;
        }
        self.result.acked = acked;
        self.own.sent.store(sent, Ordering::Relaxed);
        self.own.acked.store(acked, Ordering::Relaxed);
        if now.duration_since(self.brokers_shown) >= BROKERS_EVERY {
            self.brokers_shown = now;
            self.own.set_brokers(self.publisher.broker_progress());
        }
    }
}

/// The reason of a session that gives up: the client's own account of which broker owes what.
pub fn no_ack(publisher: &mut Publisher, ack_timeout: Duration) -> String {
    let seconds = ack_timeout.as_secs();
    match publisher.flush(Instant::now()) {
        Ok(()) => format!("no ack within {seconds} s (--ack-timeout), and all of them just after"),
        Err(error) => format!("no ack within {seconds} s (--ack-timeout): {error}"),
    }
}

fn describe(error: &ClientError) -> String {
    error.to_string()
}
