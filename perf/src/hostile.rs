//! `compare hostile`: what one client that does what it should not does to those beside it.
//!
//! For each kind of [`crate::enemies`] a new broker process, with zero copy on. A publisher at order 5 sends at a steady rate and a
//! subscriber holds what it is given against what was sent; in turn, without the enemy and beside it, once what the broker
//! is configured to put up with is over, another publisher is welcomed and sends one message at a time. Compared are the 99th
//! percentile of its latencies and the rate of the steady one's acks, each with the mean of the times before and after it without the
//! enemy, when what it left behind is over. How far those two lie apart is printed too: less than that cannot be told from one round.
//! The broker runs as the administrator and as an ordinary user with the limits that systems usually have.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::config::units::format_bytes;
use embarcadero::wire::OrderLevel;
use embarcadero::{Publisher, PublisherOptions, TopicProperties, create_topic};
use launch::place::Folder;
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;
use verification::ledger::Ledger;

use crate::args::{HostileArgs, LoadArgs, User};
use crate::cluster::WAIT_MAX;
use crate::enemies::{Enemy, KINDS, Kind};
use crate::error::CompareError;
use crate::latency::one_at_a_time;
use crate::machine::Processors;
use crate::session::Session;
use crate::subject::{self, Subject, free_addresses};
use crate::verified::joined;
use crate::witness::watch;

const TOPIC: &str = "ordered";
const OTHER: &str = "other";
const IDLE: &str = "idle";
/// What is aimed at, of both ratios' medians.
const AIM: f64 = 0.95;
/// Longest that a publisher may have to wait for its welcome beside an enemy.
const WELCOME_MAX: Duration = Duration::from_secs(10);
const MESSAGE_BYTES: u64 = 1024;
/// Put into the other topic before the one that reads it slowly comes.
const BACKLOG_BYTES: u64 = 8 << 20;
/// What the broker puts up with.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
const READER_STALL: Duration = Duration::from_secs(2);
const READER_WAIT: Duration = Duration::from_secs(4);
const LEASE: Duration = Duration::from_secs(1);
/// Age at which a session that nothing was ever published to makes room: not to be configured.
const UNUSED_SESSION: Duration = Duration::from_secs(4);
/// Added to what is configured.
const MARGIN: Duration = Duration::from_secs(1);

/// One time of measuring.
#[derive(Clone, Copy)]
struct Sample {
    p99_us: f64,
    /// Of the steady publisher's acks, bytes.
    bytes_a_second: f64,
    welcome_ms: f64,
    /// Processor time of the broker, of one core's.
    broker_cores: f64,
}

/// Beside it, and before and after without it.
struct Round {
    before: Sample,
    beside: Sample,
    after: Sample,
    /// Longest standstill of acks since the enemy came, ms.
    standstill_ms: f64,
}

/// What one kind did.
struct Outcome {
    kind: (&'static str, Kind),
    user: User,
    rounds: Vec<Round>,
    /// How often it did what it does, and what it was told.
    enemy: (u64, Option<String>),
    /// Why there are no more rounds.
    broken: Option<String>,
}

impl Round {
    fn without(&self, of: fn(&Sample) -> f64) -> f64 {
        (of(&self.before) + of(&self.after)) / 2.0
    }
}

impl Outcome {
    /// Ratios of 99th percentiles and of rates.
    fn ratios(&self) -> Option<(Spread, Spread)> {
        if self.rounds.is_empty() {
            return None;
        }
        let of = |of: fn(&Round) -> f64| Spread::of(self.rounds.iter().map(of));
        let p99 = of(|round| round.without(|sample| sample.p99_us) / round.beside.p99_us);
        Some((p99, of(|round| round.beside.bytes_a_second / round.without(|sample| sample.bytes_a_second))))
    }

    /// The lower of each two 99th percentiles without it against the higher: how far apart they lie.
    fn noise(&self) -> Spread {
        let apart =
            |round: &Round| round.before.p99_us.min(round.after.p99_us) / round.before.p99_us.max(round.after.p99_us);
        Spread::of(self.rounds.iter().map(apart))
    }

    fn kept_the_aim(&self) -> bool {
        // One that comes back as often as it likes has no bound of its own.
        let is_bounded = !matches!(self.kind.1, Kind::Slow { comes_back: true, .. });
        let is_right = |(p99, rate): (Spread, Spread)| p99.median >= AIM && rate.median >= AIM;
        self.broken.is_none() && (!is_bounded || self.ratios().is_some_and(is_right))
    }
}

/// Runs it and prints what it found.
pub fn run(args: &HostileArgs) -> Result<(), CompareError> {
    let users = users(args)?;
    let kinds = kinds(args)?;
    println!("one broker process, {} bytes/s at order 5; seed {}, {}", args.rate, args.seed, machine());
    let mut outcomes = Vec::new();
    for user in users {
        for kind in &kinds {
            let outcome = one_kind(args, *kind, user)?;
            println!("{}", words(&outcome));
            outcomes.push(outcome);
        }
    }
    report(args, &outcomes)
}

fn users(args: &HostileArgs) -> Result<Vec<User>, CompareError> {
    let is_root = rustix::process::geteuid().is_root();
    match args.users.as_slice() {
        [] if is_root => Ok(vec![User::Own, User::Ordinary]),
        [] => Ok(vec![User::Own]),
        users if is_root || !users.contains(&User::Ordinary) => Ok(users.to_vec()),
        _ => Err(CompareError::Usage("--users ordinary: only the administrator may start processes of others".into())),
    }
}

fn kinds(args: &HostileArgs) -> Result<Vec<(&'static str, Kind)>, CompareError> {
    let names = || KINDS.map(|(name, _)| name).join(", ");
    let find = |name: &String| {
        let found = KINDS.into_iter().find(|(known, _)| known == name);
        found.ok_or_else(|| CompareError::Usage(format!("--kinds {name}: there is {}", names())))
    };
    if args.kinds.is_empty() { Ok(KINDS.to_vec()) } else { args.kinds.iter().map(find).collect() }
}

/// How long a broker of this configuration puts up with it, from when it comes.
fn grace(args: &HostileArgs, kind: Kind) -> Duration {
    if args.output.tiny {
        return Duration::from_millis(200);
    }
    // Publishers have to wait for a reader once the pool is full.
    let full = match args.rate {
        0 => MARGIN,
        rate => Duration::from_secs_f64(args.pool_bytes as f64 / rate as f64),
    };
    MARGIN
        + match kind {
            Kind::Silent | Kind::HalfHello => HELLO_TIMEOUT,
            Kind::ReadsNothing | Kind::OneByte => full + READER_STALL,
            Kind::Slow { .. } => full + READER_WAIT,
            Kind::Sessions => UNUSED_SESSION,
            Kind::Gap => LEASE,
            // Until it has all that it gets.
            Kind::NoAcks | Kind::Connections | Kind::Topics => 2 * MARGIN,
            Kind::Garbage => Duration::ZERO,
        }
}

/// How long a broker has to do with what such a client left behind.
fn left_behind(kind: Kind) -> Duration {
    match kind {
        Kind::Sessions | Kind::Connections | Kind::Gap => UNUSED_SESSION,
        _ => Duration::ZERO,
    }
}

fn one_kind(args: &HostileArgs, kind: (&'static str, Kind), user: User) -> Result<Outcome, CompareError> {
    let folder = subject::folder()?;
    let subject = start(args, kind.0, user, &folder)?;
    let stop = AtomicBool::new(false);
    let (watched, due) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let load = LoadArgs::steady(args.rate, MESSAGE_BYTES);
    let session = Session::new(&load, TOPIC, 0, &stop);
    let (seeds, payloads) = (subject.seeds(), load.payloads());
    let mut outcome = Outcome { kind, user, rounds: Vec::new(), enemy: (0, None), broken: None };
    let (sent, findings) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(seeds.clone(), TOPIC, &payloads, &watched, &due));
        let publisher = scope.spawn(|| session.publish(&seeds));
        if let Err(error) = all_rounds(args, &subject, &session, &mut outcome) {
            outcome.broken = Some(error.to_string());
        }
        stop.store(true, Ordering::Relaxed);
        let sent = joined(publisher);
        due.store(sent.as_ref().map_or(0, |sent| sent.0), Ordering::Release);
        watched.store(true, Ordering::Release);
        (sent, joined(watcher))
    });
    let verdict = match (sent, findings) {
        (Ok((sent, _)), Ok(findings)) => verdict(sent, &findings),
        (Err(error), _) => Some(error.to_string()),
        (_, Err(error)) => Some(format!("the subscriber: {error}")),
    };
    outcome.broken = outcome.broken.or(verdict);
    Ok(outcome)
}

/// What was wrong with the deliveries of the steady publisher's messages, if anything was.
fn verdict(sent: u64, read: &Ledger) -> Option<String> {
    let lost = sent.saturating_sub(read.delivered());
    let (duplicates, reorders) = (read.repeats, read.gaps + read.wrong);
    let words = format!("lost {lost}, duplicates {duplicates}, reorders {reorders}");
    (lost + read.faults() > 0)
        .then(|| read.examples.first().map_or(words.clone(), |example| format!("{words}; {example}")))
}

fn start(args: &HostileArgs, name: &str, user: User, folder: &Folder) -> Result<Subject, CompareError> {
    let addresses = free_addresses(2)?;
    let export = format!(
        "send: zero_copy, reader_stall: {}s, reader_wait_max: {}s",
        READER_STALL.as_secs(),
        READER_WAIT.as_secs()
    );
    let pool = folder.path().join("hostile.pool");
    let text = subject::configuration_of(&pool, &format!("bytes: {}", format_bytes(args.pool_bytes)))
        .section("geometry", "extent_bytes: 2MiB")
        .section("receive", &format!("hello_timeout: {}s", HELLO_TIMEOUT.as_secs()))
        .section("sequencer", &format!("session_lease: {}s", LEASE.as_secs()))
        .section("export", &export)
        .brokers(&addresses)
        .text();
    let config = folder.path().join("hostile.yaml");
    fs::write(&config, text).map_err(CompareError::io(format!("writing {}", config.display())))?;
    let mut subject = match user {
        User::Own => Subject::configured(name, &config, addresses, folder)?,
        User::Ordinary => Subject::of_nobody(name, &config, addresses, folder)?,
    };
    subject.wait_until_it_listens()?;
    for topic in [TOPIC, OTHER, IDLE] {
        let properties = TopicProperties { order: OrderLevel::Session, ..TopicProperties::default() };
        create_topic(&subject.seeds(), topic, &properties, WAIT_MAX)
            .map_err(|error| subject.failed(format!("is not ready: {error}")))?;
    }
    Ok(subject)
}

fn all_rounds(
    args: &HostileArgs,
    subject: &Subject,
    session: &Session<'_>,
    outcome: &mut Outcome,
) -> Result<(), CompareError> {
    let mut before = measure(args, subject, session)?;
    for round in 0..args.runs {
        let (beside, standstill_ms) = beside(args, outcome.kind.1, subject, session, round, &mut outcome.enemy)?;
        thread::sleep(if args.output.tiny { Duration::ZERO } else { left_behind(outcome.kind.1) + MARGIN });
        let after = measure(args, subject, session)?;
        outcome.rounds.push(Round { before, beside, after, standstill_ms });
        before = after;
    }
    Ok(())
}

/// What is measured beside the enemy, and the longest standstill of acks since it came, ms.
fn beside(
    args: &HostileArgs,
    kind: Kind,
    subject: &Subject,
    session: &Session<'_>,
    round: u32,
    enemy: &mut (u64, Option<String>),
) -> Result<(Sample, f64), CompareError> {
    if matches!(kind, Kind::Slow { .. }) {
        fill_other(subject)?;
    }
    let stop = AtomicBool::new(false);
    let seed = args.seed + u64::from(round);
    let to = subject.addresses[0];
    let (beside, did, standstill_ms) = thread::scope(|scope| {
        let client = Enemy { kind, to, topic: TOPIC, other: OTHER, idle: IDLE, seed, stop: &stop };
        let since = Instant::now();
        let running = scope.spawn(move || client.run());
        thread::sleep(grace(args, kind));
        let beside = measure(args, subject, session);
        let standstill_ms = session.acked.longest_standstill(since, Instant::now());
        stop.store(true, Ordering::Relaxed);
        (beside, joined(running), standstill_ms)
    });
    *enemy = (enemy.0 + did.0, did.1.or(enemy.1.take()));
    Ok((beside?, standstill_ms))
}

/// Another publisher's welcome and latencies, and what the steady one's acks did meanwhile.
fn measure(args: &HostileArgs, subject: &Subject, session: &Session<'_>) -> Result<Sample, CompareError> {
    let client = || CompareError::client("the publisher beside it");
    let options = PublisherOptions {
        brokers: subject.seeds(),
        topic: OTHER.to_owned(),
        batch_messages: 1,
        window_batches: 1,
        linger: Duration::ZERO,
        connect_timeout: WELCOME_MAX,
        ..PublisherOptions::default()
    };
    let begin = Instant::now();
    let mut publisher = Publisher::connect(options).map_err(client())?;
    let welcome_ms = begin.elapsed().as_secs_f64() * 1e3;
    let (begin, used) = (Instant::now(), Processors::now(subject.process()));
    let latencies = one_at_a_time(&mut publisher, MESSAGE_BYTES, Duration::from_millis(args.measure_ms))?;
    let (end, used) = (Instant::now(), Processors::now(subject.process()).since(&used));
    publisher.close(WAIT_MAX).map_err(client())?;
    let bytes = session.acked.between(begin, end) * MESSAGE_BYTES;
    Ok(Sample {
        p99_us: latencies.percentile_us(99.0),
        bytes_a_second: bytes as f64 / (end - begin).as_secs_f64(),
        welcome_ms,
        broker_cores: used.receiver_s / (end - begin).as_secs_f64(),
    })
}

/// Something to read slowly.
fn fill_other(subject: &Subject) -> Result<(), CompareError> {
    let client = || CompareError::client("filling the other topic");
    let options = PublisherOptions { brokers: subject.seeds(), topic: OTHER.to_owned(), ..PublisherOptions::default() };
    let mut publisher = Publisher::connect(options).map_err(client())?;
    let payload = vec![7; MESSAGE_BYTES as usize];
    for _ in 0..BACKLOG_BYTES / MESSAGE_BYTES {
        publisher.send(&payload).map_err(client())?;
    }
    publisher.close(WAIT_MAX).map_err(client())
}

fn words(outcome: &Outcome) -> String {
    let name = format!("{}, {}", outcome.kind.0, if outcome.user == User::Own { "own user" } else { "ordinary user" });
    let mut text = format!("  {name:<28}");
    if let Some((p99, rate)) = outcome.ratios() {
        let of = |of: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(of));
        let most = |of: fn(&Round) -> f64| outcome.rounds.iter().map(of).fold(0.0, f64::max);
        text += &format!(
            " p99 {} µs, beside it {} µs, ratio {} (without against without {}); rate ratio {}; welcomed after at most {:.1} ms; acks stood still for \
             at most {:.0} ms; the broker used {} of a core, beside it {}",
            of(|round| round.without(|sample| sample.p99_us)).words(0),
            of(|round| round.beside.p99_us).words(0),
            p99.words(2),
            outcome.noise().words(2),
            rate.words(2),
            most(|round| round.beside.welcome_ms),
            most(|round| round.standstill_ms),
            of(|round| round.without(|sample| sample.broker_cores)).words(2),
            of(|round| round.beside.broker_cores).words(2),
        );
    }
    if let Some(broken) = &outcome.broken {
        text += &format!(" BROKEN: {broken}");
    }
    text + &format!("  ({}: {} times{})", outcome.kind.1.about(), outcome.enemy.0, told(outcome))
}

fn told(outcome: &Outcome) -> String {
    outcome.enemy.1.as_ref().map(|told| format!("; {told}")).unwrap_or_default()
}

fn report(args: &HostileArgs, outcomes: &[Outcome]) -> Result<(), CompareError> {
    let sample = |sample: &Sample| json!({ "p99_us": sample.p99_us, "bytes_a_second": sample.bytes_a_second, "welcome_ms": sample.welcome_ms, "broker_cores": sample.broker_cores });
    let round = |round: &Round| {
        json!({ "before": sample(&round.before), "beside": sample(&round.beside),
            "after": sample(&round.after), "standstill_ms": round.standstill_ms })
    };
    let outcome = |outcome: &Outcome| {
        let ratios = outcome.ratios().map(|(p99, rate)| json!({ "p99": p99.json(), "rate": rate.json() }));
        json!({ "kind": outcome.kind.0, "user": format!("{:?}", outcome.user), "ratios": ratios,
            "rounds": outcome.rounds.iter().map(round).collect::<Vec<Value>>(), "did": outcome.enemy.0,
            "told": outcome.enemy.1, "broken": outcome.broken })
    };
    let all = json!({ "machine": machine(), "seed": args.seed,
        "outcomes": outcomes.iter().map(outcome).collect::<Vec<Value>>() });
    args.output.write(&all)?;
    let name = |outcome: &&Outcome| format!("{} ({:?})", outcome.kind.0, outcome.user);
    let broken: Vec<String> = outcomes.iter().filter(|one| one.broken.is_some()).map(|one| name(&one)).collect();
    if !broken.is_empty() {
        return Err(CompareError::Unsound { name: "hostile".into(), what: format!("broken: {}", broken.join(", ")) });
    }
    let missed: Vec<String> = outcomes.iter().filter(|one| !one.kept_the_aim()).map(|one| name(&one)).collect();
    if missed.is_empty() || args.output.tiny {
        return Ok(());
    }
    Err(CompareError::Missed { name: "hostile".into(), what: format!("below {AIM}: {}", missed.join(", ")) })
}
