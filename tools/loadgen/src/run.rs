//! Sets a run up, lets its threads go together, watches them, and judges what they bring back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use embarcadero::wire::AckLevel;
use embarcadero::{PublisherOptions, create_topic};
use tools_common::clients;
use verification::promise::{Level, Promise};
use verification::verdict::{Outcome, judge};

use crate::args::{E2eArgs, LatencyArgs, OutputArgs, PublishArgs, SubscribeArgs};
use crate::board::Board;
use crate::error::LoadError;
use crate::events::{Kind, StallWatch};
use crate::fleet::{Fleet, deal};
use crate::inside::Inside;
use crate::latency::{self, LatencyReport, SendTimes};
use crate::load::{LatencyPlan, Load, Reads, Wishes, too_slow, unique_suffix};
use crate::open_loop::OpenReport;
use crate::pause::{Fate, PausePlan, PauseReport};
use crate::progress::{Progress, Show, TICK};
use crate::publish::{self, Goal, Published, SessionResult};
use crate::recorder::Recorder;
use crate::report::Report;
use crate::series::{Series, Taking};
use crate::stages::stage;
use crate::subscribe::{self, Delivery, ReaderResult};

/// Added to the connect timeout for the threads' own start.
const START_SLACK: Duration = Duration::from_secs(5);
/// Added to it for each client that one thread connects.
const CONNECT_SLACK: Duration = Duration::from_millis(50);

/// `loadgen publish`.
pub fn publish(args: &PublishArgs, interrupted: &Arc<AtomicBool>) -> Result<Report, LoadError> {
    let rate = args.rate.rate.map(|rate| (&args.rate, rate));
    let wishes = Wishes { rate, attach: Some(&args.attach), ..Wishes::default() };
    let load = Load::prepare(&args.topic, &args.load, args.topic.name(""), &wishes)?;
    make_topics(&load)?;
    run_load("publish", &load, &args.output, interrupted)
}

/// `loadgen e2e`.
pub fn e2e(args: &E2eArgs, interrupted: &Arc<AtomicBool>) -> Result<Report, LoadError> {
    let wishes = Wishes {
        subscribers: args.subscribers,
        verify: args.verify.on(),
        rate: args.rate.rate.map(|rate| (&args.rate, rate)),
        pause: args.stop.plan(),
        attach: Some(&args.attach),
        slow_reader: args.slow.policy(),
    };
    let load = Load::prepare(&args.topic, &args.load, args.topic.name(&unique_suffix()), &wishes)?;
    make_topics(&load)?;
    run_load("e2e", &load, &args.output, interrupted)
}

/// One run of publishers, and subscribers if there are any.
pub fn run_load(
    command: &'static str,
    load: &Load<'_>,
    output: &OutputArgs,
    interrupted: &Arc<AtomicBool>,
) -> Result<Report, LoadError> {
    let inside = output.inside.as_deref().map(Inside::begin).transpose()?;
    let board = Board::new(load.fleet, Arc::clone(interrupted));
    let shared = Arc::new(load.payloads.clone());
    let progress = Progress::new(show(output), load.total(), load.topic.message_size);
    let times = load.latency.map(|latency| Arc::new(SendTimes::new(load.total(), latency.warm_up)));
    let clients = load.fleet.sessions.max(load.fleet.readers).div_ceil(load.threads);
    let patience = load.topic.connect_timeout + CONNECT_SLACK * clients as u32;
    let (history, published, delivered): (History, Vec<Published>, Vec<Delivery>) = thread::scope(|scope| {
        let (board, shared, times) = (&board, &shared, &times);
        let readers = deal(load.fleet.readers, load.threads).map(|indices| {
            let plans: Vec<_> = indices.into_iter().map(|index| load.reader(index, shared, times)).collect();
            scope.spawn(move || subscribe::run(plans, board))
        });
        let readers: Vec<_> = readers.collect();
        let sessions = deal(load.fleet.sessions, load.threads).map(|indices| {
            let plans: Vec<_> = indices.into_iter().map(|index| load.session(index)).collect();
            scope.spawn(move || match times {
                None => publish::run(plans, board),
                Some(times) => latency::publish(plans, board, times),
            })
        });
        let sessions: Vec<_> = sessions.collect();
        let history = watch(board, progress, patience, &sessions, &readers)?;
        Ok::<_, LoadError>((history, join(sessions)?, join(readers)?))
    })?;
    let open = open_report(load, &published, &delivered);
    let latencies = load.latency.map(|latency| LatencyReport::new(latency, load, &published, &delivered));
    let (sessions, readers) = in_order(published, delivered);
    let (stopped, too_slow) = (load.pause.map(|_| 0), too_slow(load.slow_reader));
    let promise = Promise {
        order: Level::of(load.topic.order as u8),
        is_acked: load.topic.ack != AckLevel::None,
        own_topic: load.reads.is_none(),
        wanted: load.reads.and_then(|reads| reads.count),
        stopped,
        too_slow,
        interrupted: board.interrupted(),
    };
    let verdict = judge(&promise, &sessions, &readers);
    let mut report = Report {
        command,
        configuration: load.configuration(),
        promise,
        message_bytes: load.topic.message_size,
        sessions,
        readers,
        latencies,
        open,
        pause: None,
        series: history.series,
        events: board.events.since(history.begin),
        stages: Vec::new(),
        verdict,
    };
    report.stages = report.ways().iter().filter_map(stage).collect();
    if let Some((stages, words)) = inside.map(Inside::end) {
        report.stages.extend(stages);
        report.verdict.notes.extend(words);
    }
    report.pause = load.pause.map(|plan| pause_report(plan, &report, &board));
    finish(&mut report);
    Ok(report)
}

impl LatencyReport {
    fn new(plan: LatencyPlan, load: &Load<'_>, published: &[Published], delivered: &[Delivery]) -> LatencyReport {
        let publish_to_ack = Recorder::sum(published.iter().filter_map(|thread| thread.latencies.as_ref())).raw;
        let deliver = Recorder::sum(delivered.iter().filter_map(|thread| thread.latencies.as_ref())).raw;
        let publish_to_deliver = (load.fleet.readers > 0).then_some(deliver);
        LatencyReport { publish_to_ack, publish_to_deliver, warm_up: plan.warm_up }
    }
}

fn open_report(load: &Load<'_>, published: &[Published], delivered: &[Delivery]) -> Option<OpenReport> {
    let plan = load.open?;
    let sessions = published.iter().flat_map(|thread| &thread.sessions);
    let total = OpenReport::sum(sessions.filter_map(|session| session.open));
    let ack = Recorder::sum(published.iter().filter_map(|thread| thread.latencies.as_ref()));
    let deliveries = Recorder::sum(delivered.iter().filter_map(|thread| thread.latencies.as_ref()));
    let deliver = (load.fleet.readers > 0).then_some(deliveries);
    Some(OpenReport { plan, total, ack, deliver, readers: load.fleet.copies() as u64 })
}

fn in_order(published: Vec<Published>, delivered: Vec<Delivery>) -> (Vec<SessionResult>, Vec<ReaderResult>) {
    let mut sessions: Vec<_> = published.into_iter().flat_map(|thread| thread.sessions).collect();
    let mut readers: Vec<_> = delivered.into_iter().flat_map(|thread| thread.readers).collect();
    sessions.sort_by_key(|session| session.account.index);
    readers.sort_by_key(|reader| reader.seen.index);
    // How much there was to read is known only now, where sessions published for a time. Of others' it is never known.
    for reader in readers.iter_mut().filter(|_| !sessions.is_empty()) {
        let own = sessions.iter().filter(|session| session.account.topic == reader.seen.topic);
        reader.seen.summary.missing =
            own.map(|session| session.account.planned).sum::<u64>().saturating_sub(reader.seen.summary.unique);
    }
    (sessions, readers)
}

fn pause_report(plan: PausePlan, report: &Report, board: &Board) -> PauseReport {
    let reader = &report.readers[0];
    let gaps = report.sessions.iter().map(|session| session.gaps).reduce(|sum, one| sum.merge(one));
    let acked = report.sessions.iter().map(|session| session.account.acked).sum();
    let last_ack = report.sessions.iter().filter_map(|session| session.last_ack).max();
    let mark = board.pause.mark();
    let rates = match (mark, report.first_send(), last_ack) {
        (Some(mark), Some(first), Some(last)) => PauseReport::rates(&mark, first, last, acked),
        _ => [0.0; 3],
    };
    let fate = match (&reader.seen.refused, reader.seen.summary.missing) {
        (Some(text), _) => Fate::Told(text.clone()),
        _ if reader.seen.summary.skipped > 0 => Fate::Skipped { messages: reader.seen.summary.skipped },
        _ if mark.is_none() || !reader.paused => Fate::NotStopped,
        (None, messages @ 1..) => Fate::Skipped { messages },
        (None, 0) => Fate::WentOn,
    };
    PauseReport { plan, rates, gaps: gaps.unwrap_or_default(), fate, message_bytes: report.message_bytes }
}

/// What only the whole report shows.
fn finish(report: &mut Report) {
    let verdict = &mut report.verdict;
    if let Some(pause) = report.pause.as_ref().filter(|pause| pause.fate == Fate::NotStopped) {
        verdict
            .reasons
            .push(format!("the run was over before subscriber 0 had been stopped for {:?}", pause.plan.time));
    }
    if let Some(open) = &report.open {
        if let Some(lag) = open.total.gave_up {
            let text = format!("a session was {:.1} s behind its plan and gave up (--lag-max)", lag as f64 / 1e9);
            verdict.reasons.push(text);
        }
        verdict.notes.extend(open.overload());
    }
    if verdict.outcome == Outcome::Pass && !verdict.reasons.is_empty() {
        verdict.outcome = Outcome::Fail;
    }
}

/// `loadgen subscribe`.
pub fn subscribe(args: &SubscribeArgs, interrupted: &Arc<AtomicBool>) -> Result<Report, LoadError> {
    args.topic.check()?;
    let (name, fleet) = (args.topic.name(""), Fleet::new(1, 0, args.subscribers));
    let options = args.topic.publisher_options(&name);
    let mut load = Load::closed(&args.topic, name, fleet, options, Vec::new(), args.idle_timeout);
    load.reads = Some(Reads { count: args.count });
    (load.pool, load.slow_reader, load.checking) = (args.attach.pool(), args.slow.policy(), args.verify.on());
    run_load("subscribe", &load, &args.output, interrupted)
}

/// `loadgen latency`.
pub fn latency(args: &LatencyArgs, interrupted: &Arc<AtomicBool>) -> Result<Report, LoadError> {
    let load = prepare_latency(args)?;
    make_topics(&load)?;
    run_load("latency", &load, &args.output, interrupted)
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
    let fleet = Fleet::new(1, 1, args.subscribers);
    let goals = vec![Goal::Messages(args.messages)];
    let mut load = Load::closed(&args.topic, name, fleet, options, goals, args.ack_timeout);
    load.latency = Some(LatencyPlan { warm_up: args.warm_up() });
    Ok(load)
}

/// Creates every topic of a run that is not there.
pub fn make_topics(load: &Load<'_>) -> Result<(), LoadError> {
    let topic = load.topic;
    for index in 0..load.fleet.topics {
        let name = load.fleet.topic_name(&load.name, index);
        let made = match &load.pool {
            None => create_topic(&topic.brokers, &name, &topic.properties(), topic.connect_timeout).map(drop),
            Some(pool) => {
                let options = topic.publisher_options(&name);
                let options = PublisherOptions { create: Some(topic.properties()), ..options };
                clients::publisher(options, Some(pool)).and_then(|sender| sender.close(topic.connect_timeout))
            }
        };
        made.map_err(|source| LoadError::Topic { topic: name, source })?;
    }
    Ok(())
}

/// How a run went from its start to its end.
struct History {
    begin: Instant,
    series: Series,
}

/// Opens the gate and shows progress until every thread has ended.
fn watch<S, R>(
    board: &Board,
    mut progress: Progress,
    connect_timeout: Duration,
    sessions: &[ScopedJoinHandle<'_, S>],
    readers: &[ScopedJoinHandle<'_, R>],
) -> Result<History, LoadError> {
    let workers = sessions.len() + readers.len();
    board.gate.start(workers, connect_timeout + START_SLACK, board).map_err(LoadError::Connect)?;
    let running = || sessions.iter().any(|one| !one.is_finished()) || readers.iter().any(|one| !one.is_finished());
    let begin = Instant::now();
    let (mut shown, mut taking, mut stall) = (begin, Taking::new(begin), StallWatch::new(begin));
    while running() {
        // The last thread's end is seen at once, the board is looked at now and then.
        thread::sleep(TICK / 10);
        let now = Instant::now();
        if taking.is_due(now) {
            taking.take(now, board.acked(), board.delivered_to_all());
        }
        if now.duration_since(shown) >= TICK {
            shown = now;
            progress.tick(board);
            stall.look(board.sent(), board.acked(), now, &board.events);
            if board.interrupted() {
                board.events.note_once(now, Kind::Interrupted, "the user ended the run");
            }
        }
    }
    progress.finish();
    let now = Instant::now();
    stall.look(board.sent(), board.acked(), now, &board.events);
    stall.end(now, &board.events);
    Ok(History { begin, series: taking.end(now, board.acked(), board.delivered_to_all()) })
}

fn join<T>(threads: Vec<ScopedJoinHandle<'_, Option<T>>>) -> Result<Vec<T>, LoadError> {
    // A worker brings nothing only if the gate did not open, and then nobody joins.
    threads.into_iter().map(|thread| thread.join().ok().flatten().ok_or(LoadError::Panicked)).collect()
}

fn show(output: &OutputArgs) -> Show {
    use std::io::IsTerminal;
    match (output.no_progress, std::io::stderr().is_terminal()) {
        (true, _) => Show::Nothing,
        (false, true) => Show::Bar,
        (false, false) => Show::Lines,
    }
}
