//! Subscribers: a thread drives one or many, each reading and verifying until it has everything, or until nothing more can
//! come.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embarcadero::net::readiness::Readiness;
use embarcadero::wire::Refusal;
use embarcadero::{
    ClientError, Delivered, Event, Order, PoolOptions, SlowReaderPolicy, Start, Subscriber, SubscriberOptions,
};
use tools_common::clients::{self, place};
use tools_common::clock::monotonic_ns;
use tools_common::pace::Span;
use verification::payload::Times;
use verification::promise::Level;
use verification::verdict::Seen;
use verification::verifier::Verifier;

use crate::board::Board;
use crate::drive::{Driven, Step, drive, enter};
use crate::events::Kind;
use crate::latency::SendTimes;
use crate::open_loop::OpenPlan;
use crate::pause::PausePlan;
use crate::recorder::Recorder;

/// Longest time in the client before looking at the flags again.
const POLL: Duration = Duration::from_millis(50);
/// Once complete: a topic quiet for this long brings no repeats any more.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time to look for repeats after the last message.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A publisher gave up: once nothing came for this long, nothing more will.
const ABANDONED: Duration = Duration::from_secs(1);

/// When a subscriber is done.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// When so many different messages have come.
    Count(u64),
    /// When the broker says that everything committed has been sent.
    CaughtUp,
    /// When everything that the run's own sessions published to the topic has come.
    Published,
}

/// What one subscriber is to do.
pub struct ReaderPlan {
    /// Index of the subscriber in the run.
    pub index: usize,
    /// Index of its topic in the run.
    pub topic: usize,
    /// How to connect.
    pub options: SubscriberOptions,
    /// The pool to attach to, instead of brokers.
    pub pool: Option<PoolOptions>,
    /// What it must see.
    pub verifier: Verifier,
    /// When it is done.
    pub until: Until,
    /// Longest time without a message, once publishers are done.
    pub idle_timeout: Duration,
    /// Messages carry times, of which latencies are made.
    pub open: Option<OpenPlan>,
    /// It is to be stopped.
    pub pause: Option<PausePlan>,
    /// When messages were sent, where they carry no times, and latencies are made of that.
    pub times: Option<Arc<SendTimes>>,
}

/// What one subscriber saw.
#[derive(Clone, Debug)]
pub struct ReaderResult {
    /// What is judged.
    pub seen: Seen,
    /// When the gate opened.
    pub started: Instant,
    /// When the last batch was handed over.
    pub last_delivery: Option<Instant>,
    /// Whether it was stopped for a while, and went on.
    pub paused: bool,
}

impl Borrow<Seen> for ReaderResult {
    fn borrow(&self) -> &Seen {
        &self.seen
    }
}

/// What one thread's subscribers saw.
pub struct Delivery {
    /// Each subscriber's own.
    pub readers: Vec<ReaderResult>,
    /// Publish to deliver; of an open loop.
    pub latencies: Option<Recorder>,
}

/// Connects all of them, waits for the gate, and reads. None if the run did not start.
pub fn run(plans: Vec<ReaderPlan>, board: &Board) -> Option<Delivery> {
    let clients = enter(plans, board, connect)?;
    let (first, _) = clients.first().expect("a thread has a subscriber");
    let mut clocked = match (first.open, &first.times) {
        (Some(plan), _) => {
            Some(Clocked { span: plan.span(board.begin_ns()), times: None, recorder: Recorder::default() })
        }
        (None, Some(times)) => {
            Some(Clocked { span: Span::ALL, times: Some(times.clone()), recorder: Recorder::default() })
        }
        (None, None) => None,
    };
    let live = clients.into_iter().map(|(plan, subscriber)| Reader::new(plan, subscriber, board));
    let readers = drive(live.collect(), &mut clocked);
    Some(Delivery { readers, latencies: clocked.map(|clocked| clocked.recorder) })
}

fn connect(plan: &ReaderPlan) -> Result<Subscriber, String> {
    let index = plan.index;
    let subscriber = clients::subscriber(plan.options.clone(), plan.pool.as_ref())
        .map_err(|error| format!("subscriber {index}: {error}"))?;
    let (topic, found, asked) = (subscriber.topic(), Level::of(subscriber.order_level() as u8), plan.verifier.order());
    if found != asked {
        return Err(format!(
            "topic {topic:?} has order level {found}, not {asked}: use --order {found} or another --topic"
        ));
    }
    Ok(subscriber)
}

/// Latencies of deliveries.
struct Clocked {
    span: Span,
    /// When messages were sent, where they do not say so themselves.
    times: Option<Arc<SendTimes>>,
    recorder: Recorder,
}

impl Clocked {
    /// Takes a batch; so many messages came before it.
    fn batch(&mut self, delivered: &Delivered<'_>, before: u64) {
        let now = monotonic_ns();
        for (number, (_, message)) in (before..).zip(delivered.messages()) {
            let times = match &self.times {
                Some(table) => table.of(number),
                None => Times::of(message.payload),
            };
            if let Some(times) = times {
                self.recorder.arrived(&times, now, &self.span);
            }
        }
    }
}

/// Why a subscriber ended early.
enum Failure {
    Refused(String),
    Other(String),
}

/// Where a subscriber that is to be stopped is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Never,
    At(Instant, Duration),
    Until(Instant),
    Over,
}

struct Reader<'a> {
    index: usize,
    topic: usize,
    board: &'a Board,
    subscriber: Subscriber,
    verifier: Verifier,
    until: Until,
    idle_timeout: Duration,
    started: Instant,
    last_delivery: Option<Instant>,
    /// Last time something came, or something may still have been on its way.
    moved: Instant,
    /// Once it has everything: until when it looks for repeats.
    aftermath: Option<Instant>,
    stop: Stop,
    /// What becomes of it if it is too slow.
    policy: SlowReaderPolicy,
    /// The brokers' own words when they let it go, after which it went on.
    let_go: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(mut plan: ReaderPlan, subscriber: Subscriber, board: &'a Board) -> Reader<'a> {
        let started = Instant::now();
        let policy = plan.options.slow_reader;
        if plan.options.start == Start::Latest {
            plan.verifier.begin_at(subscriber.next_order().0);
        }
        Reader {
            index: plan.index,
            topic: plan.topic,
            board,
            subscriber,
            verifier: plan.verifier,
            until: plan.until,
            idle_timeout: plan.idle_timeout,
            started,
            last_delivery: None,
            moved: started,
            aftermath: None,
            stop: plan.pause.map_or(Stop::Never, |pause| Stop::At(started + pause.after, pause.time)),
            policy,
            let_go: None,
        }
    }

    /// A repeat of the last batches would come after the last message.
    fn look_for_repeats(&mut self, time: Duration, clocked: &mut Option<Clocked>) -> Result<Step, Failure> {
        let own_topic = !matches!(self.until, Until::CaughtUp) && !self.board.sessions.is_empty();
        if !own_topic {
            return Ok(Step::Ended); // Without publishers of its own, more than asked for is not a fault.
        }
        let now = Instant::now();
        let deadline = *self.aftermath.get_or_insert_with(|| {
            self.moved = now;
            now + AFTERMATH
        });
        let batches = self.poll(time, clocked)?;
        if batches > 0 || !self.board.sessions_ended() {
            self.moved = Instant::now();
        }
        let over = self.moved.elapsed() >= QUIET || Instant::now() >= deadline;
        Ok(match batches {
            _ if over => Step::Ended,
            0 => Step::Idle(None),
            _ => Step::Moved,
        })
    }

    /// Whether it is stopped now; sleeps a part of that time, up to `time`.
    fn is_stopped(&mut self, time: Duration) -> bool {
        let now = Instant::now();
        if let Stop::At(at, how_long) = self.stop
            && now >= at
        {
            self.board.pause.begin(now, self.board.acked());
            let words = format!("subscriber {} stopped for {how_long:?}", self.index);
            self.board.events.note(now, Kind::Pause, words);
            self.stop = Stop::Until(now + how_long);
        }
        let Stop::Until(until) = self.stop else { return false };
        if now < until {
            std::thread::sleep(time.min(until - now));
            return true;
        }
        self.board.pause.end(now, self.board.acked());
        self.board.events.note(now, Kind::Resume, format!("subscriber {} goes on", self.index));
        self.stop = Stop::Over;
        self.moved = now;
        false
    }

    fn done(&self) -> bool {
        match self.until {
            Until::Count(messages) => self.verifier.accounted() >= messages,
            Until::CaughtUp => self.subscriber.caught_up(),
            Until::Published => {
                self.board.published(self.topic).is_some_and(|published| self.verifier.accounted() >= published)
            }
        }
    }

    fn poll(&mut self, time: Duration, clocked: &mut Option<Clocked>) -> Result<usize, Failure> {
        let (verifier, last, events, index) =
            (&mut self.verifier, &mut self.last_delivery, &self.board.events, self.index);
        let mut take = |event: Event<'_>| {
            let delivered = match &event {
                Event::Batch(delivered) => delivered,
                Event::Skipped { from, next_order, .. } => {
                    let words = format!("messages that subscriber {index} does not get");
                    events.note_times(Instant::now(), Kind::Skip, words, next_order.0.saturating_sub(from.0));
                    return verifier.skip(from.0, next_order.0);
                }
            };
            if let Some(clocked) = clocked {
                clocked.batch(delivered, verifier.messages());
            }
            verifier.batch(&place(delivered), delivered.messages().map(|(order, message)| (order.0, message.payload)));
            *last = Some(Instant::now());
        };
        let polled = self.subscriber.poll_events(time, &mut take);
        self.board.delivered[self.index].store(self.verifier.messages(), Ordering::Relaxed);
        match polled {
            Err(error) if self.goes_on_after(&error) => Ok(0),
            Err(error @ ClientError::Refused { .. }) => Err(Failure::Refused(error.to_string())),
            Err(error) => Err(Failure::Other(error.to_string())),
            Ok(events) => Ok(events),
        }
    }

    /// A reader that was stopped and let go asks again where it was; if that is gone, it goes on with the earliest message.
    fn goes_on_after(&mut self, error: &ClientError) -> bool {
        if self.policy != SlowReaderPolicy::Disconnect || self.stop != Stop::Over {
            return false;
        }
        let ClientError::Refused { detail, .. } = error else { return false };
        match error.refusal() {
            Some(Refusal::TooSlow) => {}
            Some(Refusal::Trimmed) if *detail > self.subscriber.next_order().0 => {
                self.verifier.skip(self.subscriber.next_order().0, *detail);
                self.subscriber.go_on_at(0, Order(*detail));
            }
            _ => return false,
        }
        self.let_go = Some(error.to_string());
        self.board.events.note(Instant::now(), Kind::TooSlow, format!("subscriber {}: {error}", self.index));
        true
    }
}

impl Driven for Reader<'_> {
    type Shared = Option<Clocked>;
    type Failure = Failure;
    type Ended = ReaderResult;
    const POLL: Duration = POLL;

    /// Reads what is there, waiting up to `time` for it.
    fn step(&mut self, clocked: &mut Option<Clocked>, time: Duration) -> Result<Step, Failure> {
        if self.board.interrupted() {
            return Ok(Step::Ended);
        }
        if self.is_stopped(time) {
            return Ok(Step::Idle(None));
        }
        if self.done() {
            return self.look_for_repeats(time, clocked);
        }
        self.aftermath = None;
        let batches = self.poll(time, clocked)?;
        if batches > 0 || !self.board.sessions_ended() {
            self.moved = Instant::now();
            return Ok(if batches > 0 { Step::Moved } else { Step::Idle(None) });
        }
        let quiet = self.moved.elapsed();
        if self.board.session_failed() && quiet > ABANDONED && !self.done() {
            return Ok(Step::Ended); // What is missing is the publisher's failure; the verdict says both.
        }
        if quiet > self.idle_timeout {
            let (seconds, next) = (quiet.as_secs_f64(), self.subscriber.next_order());
            return Err(Failure::Other(format!("nothing delivered for {seconds:.0} s; waiting for order {next}")));
        }
        Ok(Step::Idle(None))
    }

    fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        // One that is stopped does not look, whatever comes.
        if matches!(self.stop, Stop::Until(_)) { None } else { self.subscriber.watch(readiness) }
    }

    fn end(self, ended: Option<Failure>) -> ReaderResult {
        // One that was stopped may be let go: that is what such a run is about.
        if ended.is_some() && self.stop == Stop::Never {
            self.board.fail_reader();
        }
        let (refused, error) = match ended {
            None => (self.let_go, None),
            Some(Failure::Refused(text)) => (Some(text.clone()), Some(text)),
            Some(Failure::Other(text)) => (None, Some(text)),
        };
        if let Some(reason) = &error {
            let words = format!("subscriber {}: {reason}", self.index);
            self.board.events.note(Instant::now(), Kind::GaveUp, words);
        }
        let (started, last_delivery, paused) = (self.started, self.last_delivery, self.stop == Stop::Over);
        let seen = Seen { index: self.index, topic: self.topic, summary: self.verifier.summary(), refused, error };
        ReaderResult { seen, started, last_delivery, paused }
    }
}
