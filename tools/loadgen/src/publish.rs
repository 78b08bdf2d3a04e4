//! Publisher sessions: a thread drives one or many, each sending as fast as its window allows or at its planned times, and
//! waiting for the acks.

use std::borrow::Borrow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embarcadero::limits::MESSAGE_HEADER_BYTES;
use embarcadero::net::readiness::Readiness;
use embarcadero::wire::OrderLevel;
use embarcadero::{BrokerProgress, ClientError, PoolOptions, Publisher, PublisherOptions, PublisherStats};
use tools_common::clients;
use verification::payload::{PayloadWriter, Payloads};
use verification::verdict::Sent;

use crate::board::{Board, SessionBoard};
use crate::drive::{Driven, Step, drive, enter};
use crate::events::{Kind, PublisherWatch};
use crate::open_loop::{OpenLoop, OpenPlan, OpenResult};
use crate::pause::AckGaps;
use crate::recorder::Recorder;

/// Longest time in the client before looking at the flags again.
const POLL: Duration = Duration::from_millis(20);
/// Most messages between looks at the flags and at other sessions, unless a batch holds more.
const MESSAGES_PER_STEP: u64 = 256;
/// Time between updates of the per-broker numbers, which are copied.
const BROKERS_EVERY: Duration = Duration::from_millis(200);
/// When all is acked, the numbers of brokers whose last ack is under way may still be older: wait for them so long at most.
const COUNTS: Duration = Duration::from_millis(500);
/// Longest time to say goodbye.
const CLOSE: Duration = Duration::from_secs(5);

/// What a session sends.
#[derive(Clone, Debug)]
pub enum Goal {
    /// So many messages, as fast as the window allows.
    Messages(u64),
    /// For so long, as fast as the window allows.
    For(Duration),
    /// At planned times.
    Planned(OpenPlan),
}

/// What one session is to do.
pub struct SessionPlan {
    /// Index of the session in the run; the publisher in its stamps.
    pub index: u32,
    /// Index of its topic in the run.
    pub topic: usize,
    /// The run's number in its stamps.
    pub run: u32,
    /// How to connect.
    pub options: PublisherOptions,
    /// The pool to attach to, instead of brokers.
    pub pool: Option<PoolOptions>,
    /// Level the topic must have.
    pub order: OrderLevel,
    /// What to send.
    pub goal: Goal,
    /// What messages contain.
    pub payloads: Payloads,
    /// Longest time without an ack.
    pub ack_timeout: Duration,
}

/// What one session reached.
#[derive(Clone, Debug)]
pub struct SessionResult {
    /// What is judged.
    pub account: Sent,
    /// Before the first message was handed to the client.
    pub first_send: Option<Instant>,
    /// After the last progress of the acks.
    pub last_ack: Option<Instant>,
    /// Longest waits for an ack.
    pub gaps: AckGaps,
    /// What an open loop reached.
    pub open: Option<OpenResult>,
    /// What the client had to do again.
    pub stats: PublisherStats,
    /// Where the messages went.
    pub brokers: Vec<BrokerProgress>,
}

impl Borrow<Sent> for SessionResult {
    fn borrow(&self) -> &Sent {
        &self.account
    }
}

impl SessionResult {
    /// Of a session that has not sent anything.
    pub fn begin(plan: &SessionPlan, publisher: &Publisher) -> SessionResult {
        let planned = if let Goal::Messages(messages) = plan.goal { messages } else { 0 };
        let (index, topic, session) = (plan.index, plan.topic, publisher.session());
        SessionResult {
            account: Sent { index, topic, session: session.0, planned, ..Sent::default() },
            first_send: None,
            last_ack: None,
            gaps: AckGaps::default(),
            open: None,
            stats: publisher.stats(),
            brokers: Vec::new(),
        }
    }

    /// Takes what the client knows at the end; closes the session if it came to its end.
    pub fn end(&mut self, mut publisher: Publisher, board: &Board) {
        let complete = self.account.error.is_none() && !board.interrupted();
        if complete {
            settle_counts(&mut publisher, self.account.acked);
        }
        self.stats = publisher.stats();
        self.brokers = publisher.broker_progress().to_vec();
        let (resent_batches, fences) = (self.stats.resent_batches, self.stats.fences);
        self.account = Sent { session: publisher.session().0, resent_batches, fences, ..self.account.clone() };
        board.sessions[self.account.index as usize].set_brokers(&self.brokers);
        let complete = complete && !board.interrupted();
        if complete && let Err(error) = publisher.close(CLOSE) {
            self.account.error = Some(format!("closing the session: {error}"));
        }
    }
}

/// Waits until the brokers' own numbers add up to what is acked. One that was killed meanwhile never says its last.
fn settle_counts(publisher: &mut Publisher, acked: u64) {
    let deadline = Instant::now() + COUNTS;
    let all = |publisher: &Publisher| publisher.broker_progress().iter().map(|broker| broker.acked).sum::<u64>();
    while !publisher.broker_progress().is_empty() && all(publisher) < acked {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || publisher.poll(left.min(POLL)).is_err() {
            return;
        }
    }
}

/// What one thread's sessions reached.
pub struct Published {
    /// Each session's own.
    pub sessions: Vec<SessionResult>,
    /// Publish to ack; of an open loop.
    pub latencies: Option<Recorder>,
}

/// Connects all of them, waits for the gate, and publishes. None if the run did not start.
pub fn run(plans: Vec<SessionPlan>, board: &Board) -> Option<Published> {
    let clients = enter(plans, board, connect)?;
    let (first, _) = clients.first().expect("a thread has a session");
    let mut writer = PayloadWriter::new(first.payloads.clone(), first.run, first.index);
    let open = if let Goal::Planned(plan) = &first.goal { Some(OpenLoop::new(plan, board.begin_ns())) } else { None };
    let sessions = clients.into_iter().map(|(plan, publisher)| Session::new(plan, publisher, board, open.as_ref()));
    let ended = drive(sessions.collect(), &mut writer).into_iter();
    // A goodbye may take a while: others' acks are not to wait for it.
    let closed = ended.map(|(mut result, publisher)| {
        result.end(publisher, board);
        result
    });
    Some(Published { sessions: closed.collect(), latencies: open.map(|open| open.latencies()) })
}

/// Tells the subscribers that no more will come of a session, even if its thread panics.
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
    let publisher = clients::publisher(plan.options.clone(), plan.pool.as_ref())
        .map_err(|error| format!("publisher {index}: {error}"))?;
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
    ended: Ended<'a>,
    publisher: Publisher,
    goal: Goal,
    /// No message is sent after this.
    until: Option<Instant>,
    step_messages: u64,
    ack_timeout: Duration,
    brokers_shown: Instant,
    /// Last time acks moved, or there was nothing to wait for.
    moved: Instant,
    all_sent: bool,
    watch: PublisherWatch,
    open: Option<crate::open_loop::OpenSession>,
    result: SessionResult,
}

impl<'a> Session<'a> {
    fn new(plan: SessionPlan, mut publisher: Publisher, board: &'a Board, open: Option<&OpenLoop>) -> Session<'a> {
        let mut result = SessionResult::begin(&plan, &publisher);
        let now = Instant::now();
        result.first_send = Some(now);
        let until = if let Goal::For(time) = plan.goal { Some(now + time) } else { None };
        let message_bytes = plan.payloads.message_bytes() as u64 + MESSAGE_HEADER_BYTES;
        let open = match (&plan.goal, open) {
            (Goal::Planned(open_plan), Some(open)) => Some(open.session(open_plan, plan.index, &mut publisher)),
            _ => None,
        };
        let watch = PublisherWatch::new(publisher.stats(), publisher.broker_progress());
        Session {
            board,
            own: &board.sessions[plan.index as usize],
            ended: Ended::new(board),
            publisher,
            goal: plan.goal,
            until,
            step_messages: MESSAGES_PER_STEP.max(plan.options.batch_bytes / message_bytes),
            ack_timeout: plan.ack_timeout,
            brokers_shown: now,
            moved: now,
            all_sent: false,
            watch,
            open,
            result,
        }
    }

    /// Hands messages to the client until the window is full, all are sent, or it is others' turn.
    fn send_all(&mut self, writer: &mut PayloadWriter) -> Result<Option<Instant>, String> {
        let left = match self.goal {
            Goal::Messages(planned) => planned - self.result.account.sent,
            _ if self.until.is_some_and(|until| Instant::now() >= until) => 0,
            _ => u64::MAX,
        };
        let (publisher, writer) = (&mut self.publisher, writer.of(self.result.account.index));
        for _ in 0..left.min(self.step_messages) {
            let taken = writer.with(self.result.account.sent, |payload| publisher.try_send(payload));
            if !taken.map_err(|error| describe(&error))? {
                return Ok(None);
            }
            self.result.account.sent += 1;
        }
        if left <= self.step_messages {
            self.sent_all();
        }
        Ok(None)
    }

    /// Hands every message that is due to the client. Gives when the next one is.
    fn send_planned(&mut self, writer: &mut PayloadWriter) -> Result<Option<Instant>, String> {
        let open = self.open.as_mut().expect("called for an open loop only");
        let (publisher, result) = (&mut self.publisher, &mut self.result);
        let writer = writer.of(result.account.index);
        let send = |number, times| {
            writer.timed(number, times, |payload| publisher.try_send(payload)).map_err(|error| describe(&error))
        };
        let next = open.send(&mut result.account.sent, self.step_messages, send)?;
        if open.done() {
            if let Some(lag) = open.gave_up() {
                let words =
                    format!("publisher {}: {:.1} s behind its plan", self.result.account.index, lag.as_secs_f64());
                self.board.events.note(Instant::now(), Kind::GaveUp, words);
            }
            self.sent_all();
        }
        Ok(next)
    }

    fn sent_all(&mut self) {
        self.all_sent = true;
        self.publisher.seal();
        self.moved = Instant::now();
    }

    fn note_progress(&mut self) {
        let sent = self.result.account.sent;
        let acked = self.publisher.messages_acked();
        let now = Instant::now();
        if acked > self.result.account.acked {
            self.result.last_ack = Some(now);
            self.result.gaps.note(self.moved, now, &self.board.pause);
        }
        // With an empty window there is no ack to wait for, so no time counts against the deadline.
        if acked > self.result.account.acked || self.publisher.in_flight() == 0 {
            self.moved = now;
        }
        self.result.account.acked = acked;
        self.own.sent.store(sent, Ordering::Relaxed);
        self.own.acked.store(acked, Ordering::Relaxed);
        self.watch.look(self.publisher.stats(), now, &self.board.events);
        if now.duration_since(self.brokers_shown) >= BROKERS_EVERY {
            self.brokers_shown = now;
            self.own.set_brokers(self.publisher.broker_progress());
            self.watch.look_at_brokers(self.publisher.broker_progress(), now, &self.board.events);
        }
    }
}

impl Driven for Session<'_> {
    type Shared = PayloadWriter;
    type Failure = String;
    type Ended = (SessionResult, Publisher);
    const POLL: Duration = POLL;

    /// Sends what can be sent now and takes what has come back.
    fn step(&mut self, writer: &mut PayloadWriter, time: Duration) -> Result<Step, String> {
        if self.board.interrupted() {
            return Ok(Step::Ended);
        }
        let sent_before = self.result.account.sent;
        let mut wake = None;
        if !self.all_sent && self.board.reader_failed() {
            self.sent_all(); // Nobody reads what else it would send; what is sent is still acked.
        }
        if !self.all_sent {
            wake = if self.open.is_some() { self.send_planned(writer)? } else { self.send_all(writer)? };
        } else {
            self.publisher.seal(); // It has no effect while the window is full.
        }
        // Until the next planned time there is nothing else to do: one wait, no look before it.
        let left = |wake: Instant| time.min(wake.saturating_duration_since(Instant::now()));
        let wait = wake.map_or(Duration::ZERO, left);
        let moved = self.publisher.poll(wait).map_err(|error| describe(&error))?;
        self.note_progress();
        if let Some(open) = &mut self.open {
            open.look(self.result.account.sent, self.result.account.acked);
        }
        if self.all_sent && self.result.account.acked >= self.result.account.sent {
            return Ok(Step::Ended);
        }
        if self.moved.elapsed() > self.ack_timeout {
            return Err(no_ack(&mut self.publisher, self.ack_timeout));
        }
        if moved > 0 || self.result.account.sent > sent_before {
            return Ok(Step::Moved);
        }
        if wake.is_none() && !time.is_zero() {
            self.publisher.poll(time).map_err(|error| describe(&error))?;
            self.note_progress();
        }
        Ok(Step::Idle(wake))
    }

    fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        self.publisher.watch(readiness)
    }

    fn end(mut self, error: Option<String>) -> (SessionResult, Publisher) {
        self.note_progress();
        self.result.gaps.note(self.moved, Instant::now(), &self.board.pause);
        if !matches!(self.goal, Goal::Messages(_)) {
            self.result.account.planned = self.result.account.sent;
        }
        self.result.open = self.open.map(|open| open.result());
        if let Some(reason) = &error {
            let words = format!("publisher {}: {reason}", self.result.account.index);
            self.board.events.note(Instant::now(), Kind::GaveUp, words);
        }
        self.ended.failed = error.is_some();
        self.result.account.error = error;
        (self.result, self.publisher)
    }
}

/// The reason of a session that gives up: the client's own account of which broker owes what.
pub fn no_ack(publisher: &mut Publisher, ack_timeout: Duration) -> String {
    let seconds = ack_timeout.as_secs();
    match publisher.flush(Duration::ZERO) {
        Ok(()) => format!("no ack within {seconds} s (--ack-timeout), and all of them just after"),
        Err(error) => format!("no ack within {seconds} s (--ack-timeout): {error}"),
    }
}

fn describe(error: &ClientError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use embarcadero::{TopicProperties, create_topic};
    use launch::configuration::Configuration;
    use launch::place::{Folder, build_broker, own_address};
    use launch::process::{End, LISTENS, Process};

    use super::*;
    use crate::fleet::Fleet;

    /// It would go on for much longer than anybody waits.
    #[test]
    fn a_run_whose_reader_failed_ends_soon_with_all_acked() {
        let (patience, program) = (Duration::from_secs(30), std::env::current_exe().unwrap());
        // Tests of a program lie one folder below it.
        let program = build_broker(program.parent().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR"))).join("embarlet");
        let folder = Folder::create(format!("/dev/shm/loadgen-publish-{}", std::process::id())).unwrap();
        let (config, brokers) = (folder.path().join("embarlet.yaml"), vec![format!("{}:7300", own_address())]);
        let configuration = Configuration::new(&folder.path().join("pool"), "populate: false, bytes: 64MiB")
            .section("geometry", "extent_bytes: 1MiB")
            .brokers(&brokers);
        std::fs::write(&config, configuration.text()).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        let mut broker = Process::start("embarlet", command, &folder.path().join("log"), End::Asked(patience)).unwrap();
        broker.wait_for_log(LISTENS, patience).unwrap();
        create_topic(&brokers, "t", &TopicProperties::default(), patience).unwrap();
        let board = Board::new(Fleet::new(1, 1, 1), Arc::default());
        let plan = SessionPlan {
            index: 0,
            topic: 0,
            run: 1,
            options: PublisherOptions { brokers, topic: "t".to_owned(), ..PublisherOptions::default() },
            pool: None,
            order: TopicProperties::default().order,
            goal: Goal::For(Duration::from_secs(3600)),
            payloads: Payloads::new(64),
            ack_timeout: patience,
        };
        let published = std::thread::scope(|scope| {
            let running = scope.spawn(|| run(vec![plan], &board).unwrap());
            board.gate.start(1, patience, &board).unwrap();
            while board.acked() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            board.fail_reader();
            running.join().unwrap()
        });
        let [result] = &published.sessions[..] else { panic!("one session") };
        assert_eq!((result.account.error.as_deref(), result.account.acked), (None, result.account.sent));
        assert_eq!(result.brokers[0].acked, result.account.acked, "the final numbers");
        drop(broker);
    }
}
