//! `compare stop`: broker processes stopped (SIGSTOP) under load, each for a while.
//!
//! At order level 5, in turn the process that has the sequencer and another one. Measured: from the stop until the end of the
//! longest standstill of acks after it, of several sessions the slowest; the same of deliveries to a subscriber that the
//! stopped broker serves; and the rate of acks while it is stopped, held against the rate while that broker is killed and away,
//! which is what the others do without it. Two subscribers hold every delivery against what was sent. Then the same two
//! once at every lower level, where messages may come twice: acks must move, and all that is acked must be delivered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::wire::OrderLevel;
use embarcadero::{ClientError, Start, Subscriber, SubscriberOptions};
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::StopArgs;
use crate::cluster::{Cluster, Shape, WAIT_MAX, wait_until};
use crate::error::CompareError;
use crate::session::{Movement, Session, all_go_on, slowest};
use crate::subject;
use crate::verified::{Verdict, joined, under_load};
use crate::witness::different_messages;

const TOPIC: &str = "ordered";
const LOWER_LEVELS: [OrderLevel; 4] = [OrderLevel::None, OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection];
/// Load before a stop, and after what was stopped goes on.
const BEFORE: Duration = Duration::from_millis(1500);
/// Part of the time that the rate is taken over: its end, when the standstill is over.
const MEASURED: f64 = 0.7;
/// A standstill that is told of, ms, if it ends after what is aimed at.
const LONG_MS: f64 = 100.0;
/// Lines of each broker's log that are shown with it.
const LOG_LINES: usize = 30;
/// What is aimed at: acks and deliveries, the worst, ms; rate, the median.
const AIMS: (f64, f64, f64) = (1000.0, 2000.0, 0.8);

/// One stop.
struct Stop {
    had_sequencer: bool,
    acks_ms: f64,
    deliveries_ms: f64,
    rate: f64,
    rate_without: f64,
}

/// One stop at a lower level.
struct Lower {
    order: OrderLevel,
    had_sequencer: bool,
    acks_ms: f64,
    acked: u64,
    lost: u64,
}

/// Runs it and prints what it found.
pub fn run(args: &StopArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut cluster = Cluster::start("stop", &Shape::of(&args.load, 1), &folder)?;
    cluster.create_topic(TOPIC, OrderLevel::Session)?;
    println!("{} broker processes, each stopped for {} ms, {}", args.load.brokers, args.stop_ms, machine());
    let (stops, verdict) = under_load(&mut cluster, &args.load, TOPIC, |cluster, sessions| {
        (0..args.repeats).map(|turn| one_stop(args, cluster, sessions, turn)).collect::<Result<Vec<_>, _>>()
    })?;
    println!("  order 5: {}", verdict.words());
    let mut lower = Vec::new();
    let levels = if args.output.tiny { &LOWER_LEVELS[..1] } else { &LOWER_LEVELS[..] };
    for order in levels.iter().copied() {
        cluster.create_topic(&level_topic(order), order)?;
        for turn in 0..2 {
            lower.push(lower_level(args, &cluster, order, turn)?);
        }
    }
    report(args, &stops, &verdict, &lower)
}

fn one_stop(
    args: &StopArgs,
    cluster: &mut Cluster<'_>,
    sessions: &[Session<'_>],
    turn: u32,
) -> Result<Stop, CompareError> {
    let time = Duration::from_millis(args.stop_ms);
    let (broker, had_sequencer) = cluster.victim(turn);
    let (delivered, over) = (Movement::default(), AtomicBool::new(false));
    let seeds = cluster.seeds_from(broker);
    let stopped = thread::scope(|scope| {
        let follower = scope.spawn(|| follow(seeds, &delivered, &over));
        let stopped = (|| {
            all_go_on(sessions, "stop", &format!("before stop {turn}"), BEFORE)?;
            let nothing = format!("nothing was delivered before stop {turn}");
            wait_until("stop", &nothing, || (delivered.count() > 0).then_some(()))?;
            let at = cluster.stop(broker)?;
            thread::sleep(time);
            let rate = rate(sessions, at, time);
            cluster.go_on(broker)?;
            let what = format!("acks did not move after stop {turn} of broker {broker}");
            let acks_ms = wait_until("stop", &what, || slowest(sessions, at))?;
            let what = format!("deliveries did not move after stop {turn} of broker {broker}");
            let deliveries_ms = wait_until("stop", &what, || delivered.standstill(at))?;
            all_go_on(sessions, "stop", &format!("after stop {turn}"), BEFORE)?;
            tell_why(cluster, sessions, at);
            Ok((rate, acks_ms, deliveries_ms))
        })();
        over.store(true, Ordering::Relaxed);
        joined(follower).map_err(CompareError::client("the stopped broker's subscriber")).and(stopped)
    });
    let (rate, acks_ms, deliveries_ms) = stopped?;
    // The same without it.
    let killed_at = cluster.kill(broker)?;
    thread::sleep(time);
    let rate_without = self::rate(sessions, killed_at, time);
    cluster.start_broker(broker)?;
    let stop = Stop { had_sequencer, acks_ms, deliveries_ms, rate, rate_without };
    eprintln!(
        "stop {turn}: broker {broker}{}: acks move again after {acks_ms:.1} ms, deliveries after {deliveries_ms:.1} ms, \
         {:.2} of the rate without it",
        if had_sequencer { ", the sequencer's" } else { "" },
        rate / rate_without
    );
    Ok(stop)
}

/// If acks stood still for too long after a stop, or once more later: when, and what the brokers said.
fn tell_why(cluster: &Cluster<'_>, sessions: &[Session<'_>], at: Instant) {
    let each: Vec<_> = sessions.iter().map(|session| session.acked.standstills(at)).collect();
    let is_long = |&(begin, end): &(f64, f64)| end > AIMS.0 && end - begin > LONG_MS;
    if !each.iter().flatten().any(is_long) {
        return;
    }
    for (number, standstills) in each.iter().enumerate() {
        let each = standstills.iter().map(|(begin, end)| format!(" {begin:.0}..{end:.0}"));
        eprintln!("  session {number}: stood still, ms after the stop:{}", each.collect::<String>());
    }
    eprint!("{}", cluster.last_words(LOG_LINES));
}

/// A subscriber that begins at the first of these brokers, and notes when anything came.
fn follow(seeds: Vec<String>, delivered: &Movement, over: &AtomicBool) -> Result<(), ClientError> {
    let (topic, start, connect_timeout) = (TOPIC.to_owned(), Start::Latest, WAIT_MAX);
    let options = SubscriberOptions { brokers: seeds, topic, start, connect_timeout, ..SubscriberOptions::default() };
    let mut subscriber = Subscriber::connect(options)?;
    while !over.load(Ordering::Relaxed) {
        subscriber.poll(Duration::from_millis(20), |_| ())?;
        delivered.note(subscriber.next_order().0);
    }
    Ok(())
}

/// Messages acked a second over the end of a time.
fn rate(sessions: &[Session<'_>], begin: Instant, time: Duration) -> f64 {
    let (from, until) = (begin + time.mul_f64(1.0 - MEASURED), begin + time);
    let acked: u64 = sessions.iter().map(|session| session.acked.between(from, until)).sum();
    acked as f64 / time.mul_f64(MEASURED).as_secs_f64()
}

fn level_topic(order: OrderLevel) -> String {
    format!("level-{order}")
}

/// One session at a lower order level: everything is acked, though a broker is stopped for a while, and then delivered.
fn lower_level(args: &StopArgs, cluster: &Cluster<'_>, order: OrderLevel, turn: u32) -> Result<Lower, CompareError> {
    let (topic, stop) = (level_topic(order), AtomicBool::new(false));
    let session = Session::new(&args.load, &topic, turn, &stop);
    let time = Duration::from_millis(args.stop_ms);
    let (broker, had_sequencer) = cluster.victim(turn);
    let seeds = cluster.seeds.clone();
    let (reading, published) = (AtomicBool::new(false), AtomicBool::new(false));
    let (acks_ms, sent, seen) = thread::scope(|scope| {
        let from = (turn, args.load.payloads());
        let reader = scope.spawn(|| different_messages(seeds.clone(), (&topic, order), from, &reading, &published));
        let ready = wait_until("stop", "there was no subscriber", || reading.load(Ordering::Acquire).then_some(()));
        let publisher = scope.spawn(|| session.publish(&seeds));
        let acks_ms = ready.and_then(|()| {
            all_go_on(std::slice::from_ref(&session), "stop", &format!("at level {order}"), BEFORE)?;
            let at = cluster.stop(broker)?;
            thread::sleep(time);
            cluster.go_on(broker)?;
            let what = format!("acks did not move at level {order} after a stop of broker {broker}");
            wait_until("stop", &what, || slowest(std::slice::from_ref(&session), at))
        });
        stop.store(true, Ordering::Relaxed);
        let sent = joined(publisher);
        published.store(true, Ordering::Release);
        (acks_ms, sent, joined(reader))
    });
    let (acked, stats) = sent?;
    let seen = seen.map_err(CompareError::client("a subscriber"))?;
    let lower = Lower { order, had_sequencer, acks_ms: acks_ms?, acked, lost: acked - seen.min(acked) };
    println!(
        "  order {order}, {} stopped: acks move again after {:.1} ms; acked {acked}, lost {}; {} batches sent again",
        if had_sequencer { "the sequencer's broker" } else { "another broker" },
        lower.acks_ms,
        lower.lost,
        stats.resent_batches
    );
    Ok(lower)
}

fn report(args: &StopArgs, stops: &[Stop], verdict: &Verdict, lower: &[Lower]) -> Result<(), CompareError> {
    let mut figures = serde_json::Map::new();
    let mut missed = Vec::new();
    for (key, had_sequencer) in [("sequencer", true), ("other", false)] {
        let of: Vec<&Stop> = stops.iter().filter(|stop| stop.had_sequencer == had_sequencer).collect();
        if of.is_empty() {
            continue;
        }
        let spread = |figure: fn(&Stop) -> f64| Spread::of(of.iter().map(|stop| figure(stop)));
        let (acks, deliveries) = (spread(|stop| stop.acks_ms), spread(|stop| stop.deliveries_ms));
        let rates = spread(|stop| stop.rate / stop.rate_without);
        println!(
            "  stopped: {key:<10} acks move again after {} ms (aim: worst {}); its subscriber is served again after {} ms \
             (aim: worst {}); rate / rate without it {} (aim: {})",
            acks.words(1),
            AIMS.0,
            deliveries.words(1),
            AIMS.1,
            rates.words(2),
            AIMS.2
        );
        if acks.max > AIMS.0 || deliveries.max > AIMS.1 || rates.median < AIMS.2 {
            missed.push(key);
        }
        let of = json!({ "acks_ms": acks.json(), "deliveries_ms": deliveries.json(), "rate_ratio": rates.json() });
        figures.insert(key.into(), of);
    }
    let levels = lower.iter().map(|one| {
        json!({ "order": one.order.to_string(), "sequencer": one.had_sequencer, "acks_ms": one.acks_ms,
            "acked": one.acked, "lost": one.lost })
    });
    let all = json!({ "machine": machine(), "figures": figures, "acked": verdict.acked, "lost": verdict.lost,
        "duplicates": verdict.duplicates, "reorders": verdict.reorders, "equal": verdict.equal,
        "lower_levels": levels.collect::<Vec<Value>>() });
    args.output.write(&all)?;
    verdict.check("stop")?;
    if let Some(one) = lower.iter().find(|one| one.lost > 0) {
        let what = format!("{} acked messages are lost", one.lost);
        return Err(CompareError::Unsound { name: format!("stop, order {}", one.order), what });
    }
    if missed.is_empty() || args.output.tiny {
        return Ok(());
    }
    Err(CompareError::Missed { name: "stop".into(), what: missed.join(", ") })
}
