//! Subscribers: a thread drives one or many, each reading and verifying until it has everything, or until nothing more can
//! come.

use std::borrow::Borrow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embarcadero::client::{ClientError, Event, SlowReaderPolicy, Start, SubscriberOptions};
use embarcadero::net::readiness::Readiness;
use embarcadero::wire::Refusal;
use tools_common::clients::{AnySubscriber, AttachedPool, place};
use tools_common::clock::monotonic_ns;
use verification::payload::Times;
use verification::promise::Level;
use verification::verdict::Seen;
use verification::verifier::Verifier;

use crate::board::Board;
use crate::open_loop::OpenPlan;
use crate::pace::Span;
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

/// Told of each batch after it was verified: messages delivered before it, and in it.
pub type Hook<'a> = Box<dyn FnMut(u64, u32) + Send + 'a>;

/// What one subscriber is to do.
pub struct ReaderPlan<'a> {
    /// Index of the subscriber in the run.
    pub index: usize,
    /// Index of its topic in the run.
    pub topic: usize,
    /// How to connect.
    pub options: SubscriberOptions,
    /// The pool to attach to, instead of brokers.
    pub pool: Option<AttachedPool>,
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
    /// Who wants to be told of batches.
    pub hook: Option<Hook<'a>>,
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
pub fn run(plans: Vec<ReaderPlan<'_>>, board: &Board) -> Option<Delivery> {
    let connected: Result<Vec<_>, String> =
        plans.into_iter().map(|plan| connect(&plan).map(|subscriber| (plan, subscriber))).collect();
    let clients = match connected {
        Ok(clients) => clients,
        Err(reason) => {
            board.gate.arrive(Err(reason));
            return None;
        }
    };
    if !board.gate.arrive(Ok(())) {
        return None;
    }
    let (first, _) = clients.first().expect("a thread has a subscriber");
    let open = first.open.map(|plan| (plan.span(board.begin_ns()), Recorder::default()));
    let live = clients.into_iter().map(|(plan, subscriber)| Reader::new(plan, subscriber, board)).collect();
    Some(Worker { live, open, readiness: Readiness::default() }.run())
}

fn connect(plan: &ReaderPlan<'_>) -> Result<AnySubscriber, String> {
    let index = plan.index;
    let subscriber = AnySubscriber::open(plan.options.clone(), plan.pool.as_ref())
        .map_err(|error| format!("subscriber {index}: {error}"))?;
    let (topic, found, asked) = (subscriber.topic(), Level::of(subscriber.order_level() as u8), plan.verifier.order());
    if found != asked {
        return Err(format!(
            "topic {topic:?} has order level {found}, not {asked}: use --order {found} or another --topic"
        ));
    }
    Ok(subscriber)
}

type Latencies = Option<(Span, Recorder)>;

/// One thread, and the subscribers it drives.
struct Worker<'a> {
    live: Vec<Reader<'a>>,
    open: Latencies,
    readiness: Readiness,
}

impl Worker<'_> {
    fn run(mut self) -> Delivery {
        let mut readers = Vec::with_capacity(self.live.len());
        while !self.live.is_empty() {
            let (alone, mut moved, mut index) = (self.live.len() == 1, false, 0);
            while index < self.live.len() {
                let time = if alone { POLL } else { Duration::ZERO };
                match self.live[index].step(time, &mut self.open) {
                    Ok(Step::Batches(batches)) => moved |= batches > 0,
                    Ok(Step::Ended) => {
                        readers.push(self.live.swap_remove(index).result(None));
                        continue;
                    }
                    Err(error) => {
                        readers.push(self.live.swap_remove(index).result(Some(error)));
                        continue;
                    }
                }
                index += 1;
            }
            if !moved && !alone {
                self.wait();
            }
        }
        Delivery { readers, latencies: self.open.map(|(_, recorder)| recorder) }
    }

    /// Sleeps until a subscriber may have something.
    fn wait(&mut self) {
        self.readiness.clear();
        let awake = self.live.iter().filter(|reader| !reader.stopped());
        let watched = awake.filter_map(|reader| reader.subscriber.watch(&mut self.readiness)).min();
        let time = watched.map_or(QUIET, |at| at.saturating_duration_since(Instant::now()).min(QUIET));
        if self.readiness.wait(time).is_err() {
            std::thread::sleep(Duration::from_millis(1)); // Without readiness: looking, slowly.
        }
    }
}

/// What a subscriber did.
enum Step {
    /// It took so many batches.
    Batches(usize),
    /// It is done, or the user interrupts.
    Ended,
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
    subscriber: AnySubscriber,
    verifier: Verifier,
    hook: Option<Hook<'a>>,
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
    fn new(mut plan: ReaderPlan<'a>, subscriber: AnySubscriber, board: &'a Board) -> Reader<'a> {
        let started = Instant::now();
        let policy = plan.options.slow_reader;
        if plan.options.start == Start::Latest {
            plan.verifier.begin_at(subscriber.next_order());
        }
        Reader {
            index: plan.index,
            topic: plan.topic,
            board,
            subscriber,
            verifier: plan.verifier,
            hook: plan.hook,
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

    fn result(self, ended: Option<Failure>) -> ReaderResult {
        // One that was stopped may be let go: that is what such a run is about.
        if ended.is_some() && self.stop == Stop::Never {
            self.board.fail_reader();
        }
        let (refused, error) = match ended {
            None => (self.let_go, None),
            Some(Failure::Refused(text)) => (Some(text.clone()), Some(text)),
            Some(Failure::Other(text)) => (None, Some(text)),
        };
        let (started, last_delivery, paused) = (self.started, self.last_delivery, self.stop == Stop::Over);
        let seen = Seen { index: self.index, topic: self.topic, summary: self.verifier.summary(), refused, error };
        ReaderResult { seen, started, last_delivery, paused }
    }

    /// Reads what is there, waiting up to `time` for it.
    fn step(&mut self, time: Duration, open: &mut Latencies) -> Result<Step, Failure> {
        if self.board.interrupted() {
            return Ok(Step::Ended);
        }
        if self.is_stopped(time) {
            return Ok(Step::Batches(0));
        }
        if self.done() {
            return self.look_for_repeats(time, open);
        }
        self.aftermath = None;
        let batches = self.poll(time, open)?;
        if batches > 0 || !self.board.sessions_ended() {
            self.moved = Instant::now();
            return Ok(Step::Batches(batches));
        }
        let quiet = self.moved.elapsed();
        if self.board.session_failed() && quiet > ABANDONED && !self.done() {
            return Ok(Step::Ended); // What is missing is the publisher's failure; the verdict says both.
        }
        if quiet > self.idle_timeout {
            let (seconds, next) = (quiet.as_secs_f64(), self.subscriber.next_order());
            return Err(Failure::Other(format!("nothing delivered for {seconds:.0} s; waiting for order {next}")));
        }
        Ok(Step::Batches(0))
    }

    /// A repeat of the last batches would come after the last message.
    fn look_for_repeats(&mut self, time: Duration, open: &mut Latencies) -> Result<Step, Failure> {
        let own_topic = !matches!(self.until, Until::CaughtUp) && !self.board.sessions.is_empty();
        if !own_topic {
            return Ok(Step::Ended); // Without publishers of its own, more than asked for is not a fault.
        }
        let now = Instant::now();
        let deadline = *self.aftermath.get_or_insert_with(|| {
            self.moved = now;
            now + AFTERMATH
        });
        let batches = self.poll(time, open)?;
        if batches > 0 || !self.board.sessions_ended() {
            self.moved = Instant::now();
        }
        let over = self.moved.elapsed() >= QUIET || Instant::now() >= deadline;
        Ok(if over { Step::Ended } else { Step::Batches(batches) })
    }

    fn stopped(&self) -> bool {
        matches!(self.stop, Stop::Until(_))
    }

    /// Whether it is stopped now; sleeps a part of that time, up to `time`.
    fn is_stopped(&mut self, time: Duration) -> bool {
        let now = Instant::now();
        if let Stop::At(at, how_long) = self.stop
            && now >= at
        {
            self.board.pause.begin(now, self.board.acked());
            self.stop = Stop::Until(now + how_long);
        }
        let Stop::Until(until) = self.stop else { return false };
        if now < until {
            std::thread::sleep(time.min(until - now));
            return true;
        }
        self.board.pause.end(now, self.board.acked());
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

    fn poll(&mut self, time: Duration, open: &mut Latencies) -> Result<usize, Failure> {
        let (verifier, hook) = (&mut self.verifier, &mut self.hook);
        let last = &mut self.last_delivery;
        let mut take = |event: Event<'_>| {
            let delivered = match &event {
                Event::Batch(delivered) => delivered,
                Event::Skipped { from, next_order, .. } => return verifier.skip(*from, *next_order),
            };
            let before = verifier.messages();
            if let Some((span, recorder)) = open {
                let now = monotonic_ns();
                for times in delivered.messages().filter_map(|(_, message)| Times::of(message.payload)) {
                    recorder.arrived(&times, now, span);
                }
            }
            verifier.batch(&place(delivered), delivered.messages().map(|(order, message)| (order, message.payload)));
            if let Some(hook) = hook {
                hook(before, delivered.message_count);
            }
            *last = Some(Instant::now());
        };
        let polled = self.subscriber.poll(time, &mut take);
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
            Some(Refusal::Trimmed) if *detail > self.subscriber.next_order() => {
                self.verifier.skip(self.subscriber.next_order(), *detail);
                self.subscriber.go_on_at(*detail);
            }
            _ => return false,
        }
        self.let_go = Some(error.to_string());
        true
    }
}
