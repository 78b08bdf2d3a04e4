//! `compare kill`: broker processes killed under order-5 load.
//!
//! Every broker is a process of its own on one pool. In turn the process that has the sequencer and one that has not is killed
//! (SIGKILL) and started again. Measured at the publishers: from the kill until the end of the longest standstill of acks after
//! it, and until everything sent before the kill is acked; of several sessions the slowest counts. Two subscribers
//! hold every delivery against what was sent.

use std::time::Duration;

use embarcadero::wire::OrderLevel;
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::KillArgs;
use crate::cluster::{Cluster, Shape, wait_until};
use crate::error::CompareError;
use crate::session::{Session, all_go_on};
use crate::subject;
use crate::verified::{Verdict, under_load};

const TOPIC: &str = "ordered";
/// Load before a kill.
const BEFORE: Duration = Duration::from_millis(500);
/// What is aimed at.
const AIM_MS: f64 = 100.0;
/// The C++ implementation, order 5, session lease 5 s.
const REFERENCE_MS: f64 = 7200.0;

/// One kill.
struct Kill {
    had_sequencer: bool,
    /// Until acks moved again, ms: the slowest session's.
    moves_ms: f64,
    /// Until everything sent before was acked, ms: the slowest session's.
    settled_ms: f64,
}

/// Runs it and prints what it found.
pub fn run(args: &KillArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut cluster =
        Cluster::start("kill", &Shape::of(&args.load, if args.hosts { args.load.brokers } else { 1 }), &folder)?;
    cluster.create_topic(TOPIC, OrderLevel::Session)?;
    let (kills, verdict) = under_load(&mut cluster, &args.load, TOPIC, |cluster, sessions| {
        (0..2 * args.repeats).map(|turn| kill(cluster, sessions, turn)).collect::<Result<Vec<_>, _>>()
    })?;
    drop(cluster);
    report(args, &kills, &verdict)
}

/// One kill and restart. Even turns kill the sequencer's process.
fn kill(cluster: &mut Cluster<'_>, sessions: &[Session<'_>], turn: u32) -> Result<Kill, CompareError> {
    let name = format!("kill {turn}");
    // All go on, over all brokers, for a while.
    all_go_on(sessions, &name, "before it", BEFORE)?;
    let (broker, had_sequencer) = cluster.victim(turn);
    let sent_before: Vec<u64> = sessions.iter().map(|session| session.sent()).collect();
    let killed_at = cluster.kill(broker)?;
    let figures = wait_until(&name, "acks did not move after it", || {
        let of = |(session, sent): (&Session<'_>, &u64)| {
            session.acked.standstill(killed_at).zip(session.acked.reached(killed_at, *sent))
        };
        sessions.iter().zip(&sent_before).map(of).collect::<Option<Vec<_>>>()
    })?;
    cluster.start_broker(broker)?;
    let worst = |of: fn(&(f64, f64)) -> f64| figures.iter().map(of).fold(0.0, f64::max);
    let kill = Kill { had_sequencer, moves_ms: worst(|figure| figure.0), settled_ms: worst(|figure| figure.1) };
    let who = if had_sequencer { "the sequencer's process" } else { "another process" };
    eprintln!(
        "kill {turn}: broker {broker}, {who}: acks move again after {:.1} ms, all is acked after {:.1} ms",
        kill.moves_ms, kill.settled_ms
    );
    Ok(kill)
}

fn report(args: &KillArgs, kills: &[Kill], verdict: &Verdict) -> Result<(), CompareError> {
    println!(
        "{} brokers, each a process{}; {} sessions at order 5, ack 1, {} bytes/s each, batches of {}",
        args.load.brokers,
        if args.hosts { " on a host of its own" } else { "" },
        args.load.sessions,
        args.load.rate,
        args.load.batch_bytes
    );
    let mut figures = serde_json::Map::new();
    for (key, had_sequencer) in [("sequencer", true), ("other", false)] {
        let of = |figure: fn(&Kill) -> f64| {
            Spread::of(kills.iter().filter(|k| k.had_sequencer == had_sequencer).map(figure))
        };
        let (moves, settled) = (of(|kill| kill.moves_ms), of(|kill| kill.settled_ms));
        println!(
            "  killed: {key:<10} acks move again after {} ms, all sent before is acked after {} ms   (aim: median below {AIM_MS} ms; C++ {REFERENCE_MS} ms)",
            moves.words(1),
            settled.words(1)
        );
        figures.insert(key.into(), json!({ "moves_ms": moves.json(), "settled_ms": settled.json() }));
    }
    println!("  {}", verdict.words());
    let each = |kill: &Kill| json!({ "sequencer": kill.had_sequencer, "moves_ms": kill.moves_ms, "settled_ms": kill.settled_ms });
    let kills: Vec<Value> = kills.iter().map(each).collect();
    let all = json!({
        "machine": machine(), "kills": kills, "figures": figures, "acked": verdict.acked,
        "delivered": verdict.delivered, "lost": verdict.lost, "duplicates": verdict.duplicates,
        "reorders": verdict.reorders, "resent_batches": verdict.resent_batches, "fences": verdict.fences,
    });
    args.output.write(&all)?;
    verdict.check("kill")
}
