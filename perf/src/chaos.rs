//! `compare chaos`: broker processes killed, stopped and all killed at once, at random moments, under order-5 load, for long.
//!
//! Each seed has a pool of its own. Two subscribers hold every delivery against what was sent, and must have been given the same
//! stream. Measured: from a kill until the end of the longest standstill of acks after it; of several sessions the slowest.

use std::thread;
use std::time::{Duration, Instant};

use embarcadero::testing::random::Random;
use embarcadero::wire::OrderLevel;
use launch::place::Folder;
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::ChaosArgs;
use crate::cluster::{Cluster, Shape, wait_until};
use crate::error::CompareError;
use crate::session::{Session, slowest};
use crate::subject;
use crate::verified::{Verdict, under_load};

const TOPIC: &str = "ordered";
/// Load between two faults, at least and at most, ms.
const BETWEEN_MS: (u64, u64) = (300, 3000);
/// A process stays stopped, at least and at most, ms.
const STOPPED_MS: (u64, u64) = (1000, 6000);
/// A process that was killed stays away for at most, ms.
const AWAY_MS: u64 = 2000;

/// What one fault did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    KillAll,
}

/// What one seed showed.
#[derive(Default)]
struct Outcome {
    seed: u64,
    kills: Vec<f64>,
    stops: Vec<f64>,
    kills_of_all: Vec<f64>,
    verdict: Verdict,
}

/// Runs it and prints what it found.
pub fn run(args: &ChaosArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut outcomes = Vec::new();
    for seed in args.seed..args.seed + args.seeds {
        let outcome = run_seed(args, seed, &folder)?;
        println!("{}", words(&outcome));
        outcomes.push(outcome);
    }
    report(args, &outcomes)
}

fn run_seed(args: &ChaosArgs, seed: u64, folder: &Folder) -> Result<Outcome, CompareError> {
    let name = format!("chaos-{seed}");
    let mut cluster = Cluster::start(&name, &Shape::of(&args.load, args.hosts), folder)?;
    cluster.create_topic(TOPIC, OrderLevel::Session)?;
    let (outcome, verdict) =
        under_load(&mut cluster, &args.load, TOPIC, |cluster, sessions| faults(args, seed, cluster, sessions))?;
    Ok(Outcome { verdict, ..outcome })
}

/// One fault after the other, until the time is over.
fn faults(
    args: &ChaosArgs,
    seed: u64,
    cluster: &mut Cluster<'_>,
    sessions: &[Session<'_>],
) -> Result<Outcome, CompareError> {
    let mut random = Random::new(seed);
    let mut outcome = Outcome { seed, ..Outcome::default() };
    let until = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < until {
        let pause = BETWEEN_MS.0 + random.below(BETWEEN_MS.1 - BETWEEN_MS.0);
        thread::sleep(Duration::from_millis(pause));
        let fault = match random.below(20) {
            0..10 => Fault::Kill,
            10..18 => Fault::Stop,
            _ => Fault::KillAll,
        };
        let broker = random.below(cluster.len() as u64) as usize;
        let at = inflict(cluster, &mut random, fault, broker)?;
        let name = format!("seed {seed}, {fault:?} of {broker}");
        let standstill = wait_until(&name, "acks did not move again", || slowest(sessions, at))?;
        eprintln!("seed {seed}: {fault:?} of broker {broker}: acks move again after {standstill:.1} ms");
        match fault {
            Fault::Kill => outcome.kills.push(standstill),
            Fault::Stop => outcome.stops.push(standstill),
            Fault::KillAll => outcome.kills_of_all.push(standstill),
        }
    }
    Ok(outcome)
}

/// Does it, and undoes it. Gives the moment it began.
fn inflict(
    cluster: &mut Cluster<'_>,
    random: &mut Random,
    fault: Fault,
    broker: usize,
) -> Result<Instant, CompareError> {
    let away = Duration::from_millis(random.below(AWAY_MS));
    match fault {
        Fault::Kill => {
            let at = cluster.kill(broker)?;
            thread::sleep(away);
            cluster.start_broker(broker)?;
            Ok(at)
        }
        Fault::Stop => {
            let at = cluster.stop(broker)?;
            thread::sleep(Duration::from_millis(STOPPED_MS.0 + random.below(STOPPED_MS.1 - STOPPED_MS.0)));
            cluster.go_on(broker)?;
            Ok(at)
        }
        Fault::KillAll => {
            let at = Instant::now();
            for broker in 0..cluster.len() {
                cluster.kill(broker)?;
            }
            thread::sleep(away);
            for broker in 0..cluster.len() {
                cluster.start_broker(broker)?;
            }
            Ok(at)
        }
    }
}

fn words(outcome: &Outcome) -> String {
    let Outcome { seed, kills, stops, kills_of_all, verdict } = outcome;
    let faults = format!("{} kills, {} stops, {} kills of all", kills.len(), stops.len(), kills_of_all.len());
    format!("seed {seed}: {faults}; {}", verdict.words())
}

fn report(args: &ChaosArgs, outcomes: &[Outcome]) -> Result<(), CompareError> {
    println!(
        "{} broker processes on {} hosts, {} s a seed, {}",
        args.load.brokers,
        args.hosts,
        args.seconds,
        machine()
    );
    let mut figures = serde_json::Map::new();
    let of = |each: fn(&Outcome) -> &Vec<f64>| outcomes.iter().flat_map(each).copied().collect::<Vec<_>>();
    let kinds = [
        ("kill", of(|outcome| &outcome.kills)),
        ("stop", of(|outcome| &outcome.stops)),
        ("kill of all", of(|outcome| &outcome.kills_of_all)),
    ];
    for (name, times) in kinds.into_iter().filter(|(_, times)| !times.is_empty()) {
        let (count, spread) = (times.len(), Spread::of(times));
        println!("  {name:<12} {count} times: acks move again after {} ms", spread.words(1));
        figures.insert(name.into(), json!({ "count": count, "moves_ms": spread.json() }));
    }
    let sum = |of: fn(&Verdict) -> u64| outcomes.iter().map(|one| of(&one.verdict)).sum::<u64>();
    let (acked, lost) = (sum(|one| one.acked), sum(|one| one.lost));
    let (duplicates, reorders) = (sum(|one| one.duplicates), sum(|one| one.reorders));
    let equal = outcomes.iter().all(|one| one.verdict.equal);
    println!("  acked {acked}: lost {lost}, duplicates {duplicates}, reorders {reorders}, readers equal: {equal}");
    let seed = |one: &Outcome| json!({ "seed": one.seed, "acked": one.verdict.acked, "lost": one.verdict.lost });
    let all = json!({ "machine": machine(), "figures": figures, "acked": acked, "lost": lost,
        "seeds": outcomes.iter().map(seed).collect::<Vec<Value>>(),
        "duplicates": duplicates, "reorders": reorders, "equal": equal });
    args.output.write(&all)?;
    outcomes.iter().try_for_each(|one| one.verdict.check(&format!("chaos, seed {}", one.seed)))
}
