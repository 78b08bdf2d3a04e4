//! `compare stop`: broker processes stopped (SIGSTOP) under order-5 load, each for a while.
//!
//! In turn the process that has the sequencer and another one. Measured: from the stop until the end of the longest standstill
//! of acks after it (of several sessions the slowest); the same of deliveries to a subscriber that was served by the stopped
//! broker; and the rate of acks while it is stopped, held against the rate while that broker is killed and away, which is what
//! the others do without it. Two subscribers hold every delivery against what was sent. Then once at every lower level: all must
//! be acked though a broker is stopped meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::wire::OrderLevel;
use serde_json::json;

use crate::args::StopArgs;
use crate::cluster::{Cluster, Shape, WAIT_MAX};
use crate::error::CompareError;
use crate::figures::Spread;
use crate::machine::{LOOK_AGAIN, facts};
use crate::session::{Movement, Session};
use crate::subject::Folder;
use crate::witness::Witness;

const TOPIC: &str = "ordered";
/// Load before a stop, and after what was stopped goes on.
const BEFORE: Duration = Duration::from_millis(1500);
/// Part of the time that the rate is taken over: its end, when the standstill is over.
const MEASURED: f64 = 0.7;
/// What is asked for, ms and of the rate.
const AIMS: (f64, f64, f64) = (1000.0, 2000.0, 0.8);

/// One stop.
struct Stop {
    had_sequencer: bool,
    acks_ms: f64,
    deliveries_ms: Option<f64>,
    rate: f64,
    rate_without: f64,
}

/// Runs it and prints what it found.
pub fn run(args: &StopArgs) -> Result<(), CompareError> {
    let folder = Folder::create()?;
    let mut cluster = Cluster::start("stop", &Shape::of(&args.load, 1), &folder)?;
    cluster.create_topic(TOPIC, OrderLevel::Session)?;
    let (stop, watched) = (AtomicBool::new(false), AtomicBool::new(false));
    let due = AtomicU64::new(u64::MAX);
    let numbers = 0..u64::from(args.load.sessions);
    let sessions: Vec<_> = numbers.map(|number| Session::new(&args.load, TOPIC, number, &stop)).collect();
    let delivered = [Movement::default(), Movement::default()];
    let seeds = cluster.seeds.clone();
    let (stops, sent, findings) = thread::scope(|scope| {
        let watch = |broker: usize| {
            let (seeds, watched, due, moved) = (cluster.seeds_from(broker), &watched, &due, &delivered[broker]);
            scope.spawn(move || Witness::noting(moved).watch(seeds, TOPIC, watched, due))
        };
        let watchers = [watch(0), watch(1)];
        let publishers: Vec<_> = sessions.iter().map(|session| scope.spawn(|| session.publish(&seeds))).collect();
        let stops: Result<Vec<_>, _> =
            (0..args.repeats).map(|turn| one_stop(args, &mut cluster, &sessions, &delivered, turn)).collect();
        stop.store(true, Ordering::Relaxed);
        let join = |one: thread::ScopedJoinHandle<'_, _>| one.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        let sent: Result<Vec<_>, CompareError> = publishers.into_iter().map(join).collect();
        due.store(sent.as_ref().map_or(0, |sent| sent.iter().map(|(sent, _)| sent).sum()), Ordering::Release);
        watched.store(true, Ordering::Release);
        let findings = watchers.map(|one| one.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        let findings = findings.into_iter().collect::<Result<Vec<_>, _>>();
        Ok::<_, CompareError>((stops?, sent?, findings.map_err(CompareError::client("a subscriber"))?))
    })?;
    let acked: u64 = sent.iter().map(|(sent, _)| sent).sum();
    let wrong: u64 = findings
        .iter()
        .map(|one| acked.saturating_sub(one.delivered.values().sum()) + one.duplicates + one.reorders)
        .sum();
    report(args, &stops, acked, wrong, findings[0].hash == findings[1].hash)?;
    for order in [OrderLevel::None, OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection] {
        lower_level(args, &cluster, order)?;
    }
    Ok(())
}

/// Which broker this turn stops.
fn victim(cluster: &Cluster<'_>, turn: u32) -> (usize, bool) {
    let (sequencer, others) = (cluster.sequencer(), cluster.len() - 1);
    match turn.is_multiple_of(2) {
        true => (sequencer, true),
        false => ((sequencer + 1 + turn as usize / 2 % others) % (others + 1), false),
    }
}

fn one_stop(
    args: &StopArgs,
    cluster: &mut Cluster<'_>,
    sessions: &[Session<'_>],
    delivered: &[Movement; 2],
    turn: u32,
) -> Result<Stop, CompareError> {
    let time = Duration::from_millis(args.stop_ms);
    go_on_all(sessions, &format!("before stop {turn}"))?;
    let (broker, had_sequencer) = victim(cluster, turn);
    let at = cluster.stop(broker)?;
    thread::sleep(time);
    let rate = rate(sessions, at, time);
    cluster.go_on(broker)?;
    let acks_ms = wait_for(&format!("stop {turn} of broker {broker}: acks move"), || {
        let each: Option<Vec<f64>> = sessions.iter().map(|session| session.acked.standstill(at)).collect();
        each.map(|each| each.into_iter().fold(0.0, f64::max))
    })?;
    let deliveries_ms = match delivered.get(broker) {
        Some(moved) => {
            Some(wait_for(&format!("stop {turn} of broker {broker}: deliveries move"), || moved.standstill(at))?)
        }
        None => None,
    };
    go_on_all(sessions, &format!("after stop {turn}"))?;
    // The same without it.
    let killed_at = cluster.kill(broker)?;
    thread::sleep(time);
    let rate_without = self::rate(sessions, killed_at, time);
    cluster.start_broker(broker)?;
    let stop = Stop { had_sequencer, acks_ms, deliveries_ms, rate, rate_without };
    eprintln!(
        "stop {turn}: broker {broker}{}: acks move again after {acks_ms:.1} ms, deliveries after {:?} ms, {:.2} of the rate without it",
        if had_sequencer { ", the sequencer's" } else { "" },
        stop.deliveries_ms,
        rate / rate_without
    );
    Ok(stop)
}

/// Messages acked a second over the end of a time.
fn rate(sessions: &[Session<'_>], begin: Instant, time: Duration) -> f64 {
    let (from, until) = (begin + time.mul_f64(1.0 - MEASURED), begin + time);
    let acked: u64 = sessions.iter().map(|session| session.acked.between(from, until)).sum();
    acked as f64 / time.mul_f64(MEASURED).as_secs_f64()
}

/// Waits until acks of every session have moved, and for a while.
fn go_on_all(sessions: &[Session<'_>], when: &str) -> Result<(), CompareError> {
    let (since, before) = (Instant::now(), sessions.iter().map(|one| one.acked.count()).collect::<Vec<_>>());
    wait_for(&format!("{when}: acks move"), || {
        let all = sessions.iter().zip(&before).all(|(one, before)| one.acked.count() > *before);
        (all && since.elapsed() > BEFORE).then_some(())
    })
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, CompareError> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let what = format!("did not come within {WAIT_MAX:?}: {what}");
            return Err(CompareError::Unsound { name: "stop".into(), what });
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// One session at a lower order level: everything is acked, though a broker is stopped for a while.
fn lower_level(args: &StopArgs, cluster: &Cluster<'_>, order: OrderLevel) -> Result<(), CompareError> {
    let topic = format!("level-{order}");
    cluster.create_topic(&topic, order)?;
    let stop = AtomicBool::new(false);
    let session = Session::new(&args.load, &topic, 0, &stop);
    let time = Duration::from_millis(args.stop_ms);
    let seeds = cluster.seeds.clone();
    let (acks_ms, sent) = thread::scope(|scope| {
        let publisher = scope.spawn(|| session.publish(&seeds));
        let acks_ms = (|| {
            go_on_all(std::slice::from_ref(&session), &format!("level {order}"))?;
            let at = cluster.stop(cluster.len() - 1)?;
            thread::sleep(time);
            let standstill = wait_for(&format!("level {order}: acks move"), || session.acked.standstill(at));
            cluster.go_on(cluster.len() - 1)?;
            standstill
        })();
        stop.store(true, Ordering::Relaxed);
        (acks_ms, publisher.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    });
    let (sent, stats) = sent?;
    println!(
        "  level {order}: {sent} messages sent, all acked; acks move again after {:.1} ms; {} batches sent again",
        acks_ms?, stats.resent_batches
    );
    Ok(())
}

fn report(args: &StopArgs, stops: &[Stop], acked: u64, wrong: u64, equal: bool) -> Result<(), CompareError> {
    println!("{} broker processes, each stopped for {} ms, {}", args.load.brokers, args.stop_ms, facts());
    let mut figures = serde_json::Map::new();
    for (key, had_sequencer) in [("sequencer", true), ("other", false)] {
        let of: Vec<&Stop> = stops.iter().filter(|stop| stop.had_sequencer == had_sequencer).collect();
        if of.is_empty() {
            continue;
        }
        let acks = Spread::of(of.iter().map(|stop| stop.acks_ms));
        let rates = Spread::of(of.iter().map(|stop| stop.rate / stop.rate_without));
        println!(
            "  stopped: {key:<10} acks move again after {} ms (aim: worst {}); rate / rate without it {} (aim: {})",
            acks.words(1),
            AIMS.0,
            rates.words(2),
            AIMS.2
        );
        figures.insert(key.into(), json!({ "acks_ms": acks.json(), "rate_ratio": rates.json() }));
    }
    let deliveries: Vec<f64> = stops.iter().filter_map(|stop| stop.deliveries_ms).collect();
    if !deliveries.is_empty() {
        let spread = Spread::of(deliveries);
        println!("  deliveries of the stopped broker's subscriber: {} ms (aim: worst {})", spread.words(1), AIMS.1);
        figures.insert("deliveries_ms".into(), spread.json());
    }
    println!("  acked {acked}; lost, twice or out of order: {wrong}; readers equal: {equal}");
    if let Some(path) = &args.json {
        let all = json!({ "machine": facts(), "figures": figures, "acked": acked, "wrong": wrong, "equal": equal });
        let text = serde_json::to_string_pretty(&all).expect("no odd keys");
        fs::write(path, text + "\n").map_err(CompareError::io(format!("writing {}", path.display())))?;
    }
    if wrong > 0 || !equal {
        let what = format!("lost, twice or out of order: {wrong}; readers equal: {equal}");
        return Err(CompareError::Unsound { name: "stop".into(), what });
    }
    Ok(())
}
