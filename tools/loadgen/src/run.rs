//! Sets a run up, lets its threads go together, watches them, and judges what they bring back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use embarcadero::client::{PublisherOptions, create_topic};
use embarcadero::wire::AckLevel;
use serde_json::{Value, json};

use crate::args::{E2eArgs, LatencyArgs, OutputArgs, PublishArgs, SubscribeArgs, TopicArgs};
use crate::board::Board;
use crate::error::LoadError;
use crate::latency::{self, Latencies, SendTimes};
use crate::payload::{Payloads, mix};
use crate::progress::{Progress, Show, TICK};
use crate::publish::{self, SessionPlan, SessionResult};
use crate::report::Report;
use crate::subscribe::{self, ReaderPlan, ReaderResult, Until};
use crate::verdict::{Promise, judge};
use crate::verify::{Source, Verifier};

/// Added to the connect timeout for the threads' own start.
const START_SLACK: Duration = Duration::from_secs(5);

/// What `publish` and `e2e` have in common.
struct Load<'a> {
    topic: &'a TopicArgs,
    name: String,
    run: u32,
    options: PublisherOptions,
    messages: Vec<u64>,
    payloads: Payloads,
    ack_timeout: Duration,
}

impl Load<'_> {
    fn session(&self, index: usize) -> SessionPlan {
        SessionPlan {
            index: index as u32,
            run: self.run,
            options: self.options.clone(),
            order: self.topic.order,
            messages: self.messages[index],
            payloads: self.payloads.clone(),
            ack_timeout: self.ack_timeout,
        }
    }

    fn reader(&self, index: usize, payloads: &Arc<Payloads>, checking: bool) -> ReaderPlan {
        let source = Source::Run { run: self.run, messages: self.messages.clone() };
        ReaderPlan {
            index,
            options: self.topic.subscriber_options(&self.name),
            verifier: Verifier::new(self.topic.order, Arc::clone(payloads), source, checking),
            until: Until::Count(self.messages.iter().sum()),
            idle_timeout: self.ack_timeout,
        }
    }
}

/// `loadgen publish`.
pub fn publish(args: &PublishArgs, interrupted: Arc<AtomicBool>) -> Result<Report, LoadError> {
    let load = prepare_load(&args.topic, &args.load, args.topic.name(""))?;
    run_load("publish", &load, 0, false, &args.output, interrupted)
}

/// `loadgen e2e`.
pub fn e2e(args: &E2eArgs, interrupted: Arc<AtomicBool>) -> Result<Report, LoadError> {
    let load = prepare_load(&args.topic, &args.load, args.topic.name(&unique_suffix()))?;
    run_load("e2e", &load, args.subscribers as usize, args.verify.on(), &args.output, interrupted)
}

fn prepare_load<'a>(topic: &'a TopicArgs, load: &crate::args::LoadArgs, name: String) -> Result<Load<'a>, LoadError> {
    topic.check()?;
    let mut options = topic.publisher_options(&name);
    load.apply(&mut options);
    let messages = load.split(topic.message_size)?;
    let payloads = Payloads::new(topic.message_size as usize);
    Ok(Load { topic, name, run: run_number(), options, messages, payloads, ack_timeout: load.ack_timeout })
}

fn run_load(
    command: &'static str,
    load: &Load<'_>,
    subscribers: usize,
    checking: bool,
    output: &OutputArgs,
    interrupted: Arc<AtomicBool>,
) -> Result<Report, LoadError> {
    make_topic(load.topic, &load.name)?;
    let board = Board::new(load.messages.len(), subscribers, interrupted);
    let shared = Arc::new(load.payloads.clone());
    let progress = Progress::new(show(output), load.messages.iter().sum(), load.topic.message_size);
    let (sessions, readers) = thread::scope(|scope| {
        let board = &board;
        let readers = (0..subscribers).map(|index| {
            let plan = load.reader(index, &shared, checking);
            scope.spawn(move || subscribe::run(plan, board, &mut |_, _| ()))
        });
        let readers: Vec<_> = readers.collect();
        let sessions = (0..load.messages.len()).map(|index| {
            let plan = load.session(index);
            scope.spawn(move || publish::run(plan, board))
        });
        let sessions: Vec<_> = sessions.collect();
        watch(board, progress, load.topic.connect_timeout, &sessions, &readers)?;
        Ok((join(sessions)?, join(readers)?))
    })?;
    let wanted = load.messages.iter().sum();
    let promise = promise(load.topic, true, Some(wanted), &board);
    let configuration = load_configuration(load, subscribers, checking);
    Ok(report(command, configuration, promise, load.topic, sessions, readers, None))
}

/// `loadgen subscribe`.
pub fn subscribe(args: &SubscribeArgs, interrupted: Arc<AtomicBool>) -> Result<Report, LoadError> {
    args.topic.check()?;
    let name = args.topic.name("");
    let board = Board::new(0, args.subscribers as usize, interrupted);
    let payloads = Arc::new(Payloads::new(args.topic.message_size as usize));
    let progress = Progress::new(show(&args.output), args.count.unwrap_or(0), args.topic.message_size);
    let plan = |index| ReaderPlan {
        index,
        options: args.topic.subscriber_options(&name),
        verifier: Verifier::new(args.topic.order, Arc::clone(&payloads), Source::Any, args.verify.on()),
        until: args.count.map_or(Until::CaughtUp, Until::Count),
        idle_timeout: args.idle_timeout,
    };
    let readers = thread::scope(|scope| {
        let board = &board;
        let readers = (0..args.subscribers as usize).map(|index| {
            let plan = plan(index);
            scope.spawn(move || subscribe::run(plan, board, &mut |_, _| ()))
        });
        let readers: Vec<_> = readers.collect();
        watch::<(), _>(board, progress, args.topic.connect_timeout, &[], &readers)?;
        join(readers)
    })?;
    let promise = promise(&args.topic, false, args.count, &board);
    let mut configuration = topic_configuration(&args.topic, &name);
    configuration["subscribers"] = json!(args.subscribers);
    configuration["verify"] = json!(args.verify.on());
    configuration["count"] = json!(args.count);
    configuration["idle_timeout_s"] = json!(args.idle_timeout.as_secs());
    Ok(report("subscribe", configuration, promise, &args.topic, Vec::new(), readers, None))
}

/// `loadgen latency`.
pub fn latency(args: &LatencyArgs, interrupted: Arc<AtomicBool>) -> Result<Report, LoadError> {
    let load = prepare_latency(args)?;
    make_topic(load.topic, &load.name)?;
    let board = Board::new(1, args.subscribers as usize, interrupted);
    let progress = Progress::new(show(&args.output), args.messages, load.topic.message_size);
    let (warm_up, times) = (args.warm_up(), SendTimes::new(args.messages));
    let mut deliveries = (args.subscribers > 0).then(latency::histogram);
    let mut note = |before: u64, messages: u32| {
        for number in before..before + u64::from(messages) {
            if let (true, Some(into), Some(time)) = (number >= warm_up, deliveries.as_mut(), times.since(number)) {
                latency::record(into, time);
            }
        }
    };
    let shared = Arc::new(load.payloads.clone());
    let (mut sessions, readers) = thread::scope(|scope| {
        let (board, times, note) = (&board, &times, &mut note);
        let plan = (args.subscribers > 0).then(|| load.reader(0, &shared, true));
        let readers: Vec<_> =
            plan.map(|plan| scope.spawn(move || subscribe::run(plan, board, note))).into_iter().collect();
        let plan = load.session(0);
        let sessions = vec![scope.spawn(move || latency::publish(plan, board, times, warm_up))];
        watch(board, progress, load.topic.connect_timeout, &sessions, &readers)?;
        Ok((join(sessions)?, join(readers)?))
    })?;
    let (session, publish_to_ack) = sessions.pop().ok_or(LoadError::Panicked)?;
    let latencies = Latencies { publish_to_ack, publish_to_deliver: deliveries, warm_up };
    let promise = promise(load.topic, true, Some(args.messages), &board);
    let configuration = load_configuration(&load, args.subscribers as usize, true);
    Ok(report("latency", configuration, promise, load.topic, vec![session], readers, Some(latencies)))
}

fn prepare_latency(args: &LatencyArgs) -> Result<Load<'_>, LoadError> {
    args.topic.check()?;
    if args.topic.ack == AckLevel::None {
        return Err(LoadError::Usage("--ack 0: latency is measured to the ack; use --ack 1".to_owned()));
    }
    if args.warm_up() >= args.messages {
        let text = format!("--warm-up {} leaves nothing of {} messages to measure", args.warm_up(), args.messages);
        return Err(LoadError::Usage(text));
    }
    let name = args.topic.name(&unique_suffix());
    let mut options = args.topic.publisher_options(&name);
    options.window_batches = 1;
    options.batch_messages = 1;
    options.linger = Duration::ZERO;
    let payloads = Payloads::new(args.topic.message_size as usize);
    let (messages, ack_timeout) = (vec![args.messages], args.ack_timeout);
    Ok(Load { topic: &args.topic, name, run: run_number(), options, messages, payloads, ack_timeout })
}

fn make_topic(topic: &TopicArgs, name: &str) -> Result<(), LoadError> {
    create_topic(&topic.brokers, name, &topic.properties(), topic.connect_timeout)
        .map_err(|source| LoadError::Topic { topic: name.to_owned(), source })
}

/// Opens the gate and shows progress until every thread has ended.
fn watch<S, R>(
    board: &Board,
    mut progress: Progress,
    connect_timeout: Duration,
    sessions: &[ScopedJoinHandle<'_, S>],
    readers: &[ScopedJoinHandle<'_, R>],
) -> Result<(), LoadError> {
    let workers = sessions.len() + readers.len();
    board.gate.start(workers, connect_timeout + START_SLACK, board).map_err(LoadError::Connect)?;
    let running = || sessions.iter().any(|one| !one.is_finished()) || readers.iter().any(|one| !one.is_finished());
    while running() {
        thread::sleep(TICK);
        progress.tick(board);
    }
    progress.finish();
    Ok(())
}

fn join<T>(threads: Vec<ScopedJoinHandle<'_, Option<T>>>) -> Result<Vec<T>, LoadError> {
    // A worker brings nothing only if the gate did not open, and then nobody joins.
    threads.into_iter().map(|thread| thread.join().ok().flatten().ok_or(LoadError::Panicked)).collect()
}

fn promise(topic: &TopicArgs, own_topic: bool, wanted: Option<u64>, board: &Board) -> Promise {
    Promise { order: topic.order, ack: topic.ack, own_topic, wanted, interrupted: board.interrupted() }
}

fn report(
    command: &'static str,
    configuration: Value,
    promise: Promise,
    topic: &TopicArgs,
    sessions: Vec<SessionResult>,
    readers: Vec<ReaderResult>,
    latencies: Option<Latencies>,
) -> Report {
    let verdict = judge(&promise, &sessions, &readers);
    let message_bytes = topic.message_size;
    Report { command, configuration, promise, message_bytes, sessions, readers, latencies, verdict }
}

fn topic_configuration(topic: &TopicArgs, name: &str) -> Value {
    json!({
        "brokers": topic.brokers,
        "discover": !topic.no_discover,
        "topic": name,
        "order": topic.order as u8,
        "ack": topic.ack as u8,
        "receipts": format!("{:?}", topic.receipts).to_lowercase(),
        "message_bytes": topic.message_size,
        "connect_timeout_s": topic.connect_timeout.as_secs(),
    })
}

fn load_configuration(load: &Load<'_>, subscribers: usize, checking: bool) -> Value {
    let options = &load.options;
    let mut all = topic_configuration(load.topic, &load.name);
    all["messages"] = json!(load.messages.iter().sum::<u64>());
    all["sessions"] = json!(load.messages.len());
    all["subscribers"] = json!(subscribers);
    all["verify"] = json!(checking && subscribers > 0);
    all["batch_bytes"] = json!(options.batch_bytes);
    all["batch_messages"] = json!(options.batch_messages);
    all["linger_us"] = json!(options.linger.as_micros() as u64);
    all["window_batches"] = json!(options.window_batches);
    all["connections_per_broker"] = json!(options.connections_per_broker);
    all["resend_after_ms"] = json!(options.resend_after.as_millis() as u64);
    all["ack_timeout_s"] = json!(load.ack_timeout.as_secs());
    all["skew"] =
        json!(options.skew.as_ref().map(|skew| json!({ "broker": skew.broker, "ms": skew.delay.as_millis() as u64 })));
    all["run"] = json!(format!("{:08x}", load.run));
    all
}

fn show(output: &OutputArgs) -> Show {
    use std::io::IsTerminal;
    match (output.no_progress, std::io::stderr().is_terminal()) {
        (true, _) => Show::Nothing,
        (false, true) => Show::Bar,
        (false, false) => Show::Lines,
    }
}

/// Differs from run to run on one machine: time and process.
fn run_number() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    mix(now ^ u64::from(std::process::id()) << 32) as u32
}

fn unique_suffix() -> String {
    format!("-{:08x}", run_number())
}
