//! `compare gap`: what one session's gap does to another session's ack latency.
//!
//! One session sends a number of batches over all brokers, of which those for one broker are held back: what was behind is
//! parked by the sequencer until they come. Meanwhile another session's latency from publish to ack is measured, and for as
//! long again without a gap; which of the two comes first changes with every round.

use std::time::{Duration, Instant};

use embarcadero::wire::OrderLevel;
use embarcadero::{Publisher, PublisherOptions, Skew};
use launch::place::Folder;
use serde_json::json;
use tools_common::figures::{Spread, in_turn};
use tools_common::report::machine;

use crate::args::{GapArgs, RunArgs};
use crate::error::CompareError;
use crate::latency::one_at_a_time;
use crate::subject::{self, Idle, Subject, topic};

/// What is aimed at.
const AIM: f64 = 1.2;
const POOL_BYTES: u64 = 256 << 20;
/// Part of the gap in which is measured; the rest is for the gap to open in.
const MEASURED: f64 = 0.9;
const ACK_MAX: Duration = Duration::from_secs(30);
const PAYLOAD_BYTES: usize = 1024;

/// Median and 99 of 100 of one measurement, µs.
#[derive(Clone, Copy, Debug)]
struct Latency {
    p50: f64,
    p99: f64,
}

struct Scene {
    _brokers: Subject,
    measured: Publisher,
    gapped: Publisher,
}

impl Scene {
    fn client() -> impl FnOnce(embarcadero::ClientError) -> CompareError {
        CompareError::client("gap")
    }

    fn new(args: &GapArgs, folder: &Folder) -> Result<Scene, CompareError> {
        let subject =
            Subject::brokers("embarlet-gap", args.brokers, Idle::Park, POOL_BYTES, &RunArgs::standard(), folder)?;
        let options = PublisherOptions {
            brokers: subject.seeds(),
            topic: topic(OrderLevel::Session).to_owned(),
            batch_messages: 1,
            linger: Duration::ZERO,
            ..PublisherOptions::default()
        };
        let delay = Duration::from_millis(args.gap_ms);
        let held = PublisherOptions { skew: Some(Skew { broker: 0, delay }), ..options.clone() };
        let measured = Publisher::connect(PublisherOptions { window_batches: 1, ..options }).map_err(Self::client())?;
        let gapped = Publisher::connect(held).map_err(Self::client())?;
        Ok(Scene { _brokers: subject, measured, gapped })
    }

    /// Publishes one at a time for this long.
    fn measure(&mut self, time: Duration) -> Result<Latency, CompareError> {
        let found = one_at_a_time(&mut self.measured, PAYLOAD_BYTES as u64, time)?;
        Ok(Latency { p50: found.percentile_us(50.0), p99: found.percentile_us(99.0) })
    }

    /// Measures while the other session has a gap, and makes sure that it had one all the time.
    fn measure_beside_a_gap(&mut self, args: &GapArgs, time: Duration) -> Result<Latency, CompareError> {
        let begin = Instant::now();
        for _ in 0..args.parked {
            self.gapped.send(&[8; PAYLOAD_BYTES]).map_err(Self::client())?;
            self.gapped.seal();
        }
        let opened = Duration::from_millis(args.gap_ms).mul_f64((1.0 - MEASURED) / 2.0);
        while begin.elapsed() < opened {
            self.gapped.poll(Duration::from_millis(1)).map_err(Self::client())?;
        }
        let (acked, sent) = (self.gapped.messages_acked(), self.gapped.messages_sent());
        let latency = self.measure(time)?;
        self.gapped.poll(Duration::ZERO).map_err(Self::client())?;
        let still = self.gapped.messages_acked();
        if still != acked || sent - acked < u64::from(args.parked) / 2 {
            let what = format!("there was no gap all the time: {acked}, then {still} of {sent} were acked");
            return Err(CompareError::Unsound { name: "gap".into(), what });
        }
        self.gapped.flush(ACK_MAX).map_err(Self::client())?;
        Ok(latency)
    }
}

/// Runs it and prints what it found.
pub fn run(args: &GapArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut scene = Scene::new(args, &folder)?;
    let time = Duration::from_millis(args.gap_ms).mul_f64(MEASURED);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=args.runs {
        let (gap, none) =
            in_turn(
                round,
                |has_gap| {
                    if has_gap { scene.measure_beside_a_gap(args, time) } else { scene.measure(time) }
                },
            )?;
        eprintln!("round {round}: p50 {:.1} µs beside a gap, {:.1} µs without", gap.p50, none.p50);
        if round > 0 {
            with.push(gap);
            without.push(none);
        }
    }
    let fences = scene.gapped.stats().fences + scene.measured.stats().fences;
    drop(scene);
    report(args, &with, &without, fences)
}

fn report(args: &GapArgs, with: &[Latency], without: &[Latency], fences: u64) -> Result<(), CompareError> {
    let p50 = |runs: &[Latency]| runs.iter().map(|run| run.p50).collect::<Vec<_>>();
    let p99 = |runs: &[Latency]| runs.iter().map(|run| run.p99).collect::<Vec<_>>();
    let ratio = Spread::of_ratios(&p50(with), &p50(without));
    let tail = Spread::of_ratios(&p99(with), &p99(without));
    println!("{} brokers in one process; {} batches behind a gap of {} ms", args.brokers, args.parked, args.gap_ms);
    for (name, runs) in [("beside a gap", with), ("without", without)] {
        println!("  {name:<14} p50 {} µs, p99 {} µs", Spread::of(p50(runs)).words(1), Spread::of(p99(runs)).words(1));
    }
    println!("  gap / none p50                     {}   (aim: at most {AIM})", ratio.words(2));
    println!("  gap / none p99                     {}", tail.words(2));
    println!("  {fences} fences");
    let all = json!({
        "machine": machine(), "gap_ms": args.gap_ms, "parked": args.parked, "brokers": args.brokers, "fences": fences,
        "with_p50_us": p50(with), "without_p50_us": p50(without),
        "with_p99_us": p99(with), "without_p99_us": p99(without),
        "ratios": { "p50": ratio.json(), "p99": tail.json() },
    });
    args.output.write(&all)?;
    Ok(())
}
