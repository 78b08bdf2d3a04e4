//! `e2e --compare-one-topic`: many topics against one, in turn, several times.
//!
//! Both sides have the same publishers and the same bytes to publish, and every message is delivered equally often. Which side
//! comes first changes with every round; the first round is cold and is dropped. The topics are created once: each run begins
//! behind what the last one left in them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use tools_common::figures::{Spread, in_turn};
use verification::verdict::Outcome;

use super::{Experiment, ended, outcome};
use crate::args::{E2eArgs, LoadArgs};
use crate::error::LoadError;
use crate::load::Wishes;
use crate::report::{Ended, Report};
use crate::run::make_topics;

/// Both sides of one round.
struct Round {
    many: Report,
    one: Report,
}

/// Runs it.
pub fn run(args: &E2eArgs, interrupted: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    if args.load.topics < 2 {
        return Err(LoadError::Usage("--compare-one-topic: say how many topics with --topics".to_owned()));
    }
    let experiment = Experiment::new("e2e", &args.topic, &args.output, interrupted);
    let many = Wishes { subscribers: args.subscribers, verify: args.verify.on(), ..Wishes::default() };
    let prepare = |side: &str, load: &LoadArgs, wishes: &Wishes<'_>| {
        let mut load = experiment.load(side, load, wishes)?;
        load.reused = true;
        Ok::<_, LoadError>(load)
    };
    let copies = prepare("-many", &args.load, &many)?.fleet.copies() as u32;
    let (single, one) = (LoadArgs { topics: 1, ..args.load.clone() }, Wishes { subscribers: copies, ..many });
    make_topics(&prepare("-many", &args.load, &many)?)?;
    make_topics(&prepare("-one", &single, &one)?)?;
    let mut rounds = Vec::new();
    for round in 0..=args.compare.rounds {
        let (many, one) = in_turn(round, |is_many| {
            let load = if is_many { prepare("-many", &args.load, &many)? } else { prepare("-one", &single, &one)? };
            experiment.run(&load)
        })?;
        eprintln!(
            "round {round}{}: {:.1} MB/s with many topics, {:.1} with one",
            if round == 0 { " (cold)" } else { "" },
            many.published_mb_per_s(),
            one.published_mb_per_s()
        );
        let outcome = outcome([&many, &one]);
        rounds.push(Round { many, one });
        if outcome != Outcome::Pass {
            break;
        }
    }
    Ok(judged(args, &rounds))
}

/// A figure of both sides, and its ratio.
struct Figure {
    name: &'static str,
    many: Spread,
    one: Spread,
    ratio: Spread,
}

impl Figure {
    fn of(name: &'static str, rounds: &[Round], figure: impl Fn(&Report) -> f64) -> Figure {
        let ratio = |round: &Round| figure(&round.many) / figure(&round.one);
        Figure {
            name,
            many: Spread::of(rounds.iter().map(|round| figure(&round.many))),
            one: Spread::of(rounds.iter().map(|round| figure(&round.one))),
            ratio: Spread::of(rounds.iter().map(ratio)),
        }
    }
}

fn judged(args: &E2eArgs, rounds: &[Round]) -> Ended {
    let outcome = outcome(rounds.iter().flat_map(|round| [&round.many, &round.one]));
    let last = rounds.last().expect("there is the cold round");
    let mut lines = vec![format!("many topics, the last round:\n{}", last.many.words())];
    lines.push(format!("one topic, the last round:\n{}", last.one.words()));
    let counted = &rounds[1..];
    let figures = if counted.is_empty() || outcome != Outcome::Pass {
        Vec::new()
    } else {
        vec![
            Figure::of("published", counted, Report::published_mb_per_s),
            Figure::of("delivered", counted, Report::delivered_mb_per_s),
        ]
    };
    let (topics, count) = (args.load.topics, counted.len());
    for Figure { name, many, one, ratio } in &figures {
        lines.push(format!(
            "{name}: {topics} topics {} MB/s, one topic {} MB/s, ratio {} (median of {count} rounds)",
            many.words(1),
            one.words(1),
            ratio.words(3)
        ));
    }
    let figure = |figure: &Figure| {
        let Figure { name, many, one, ratio } = figure;
        json!({ "figure": name, "many_mb_per_s": many.json(), "one_mb_per_s": one.json(), "ratio": ratio.json() })
    };
    let round = |round: &Round| json!({ "many": short(&round.many), "one": short(&round.one) });
    let own = [
        ("topics", json!(topics)),
        ("figures", figures.iter().map(figure).collect()),
        ("rounds", rounds.iter().map(round).collect()),
        ("last_round", json!({ "many": last.many.json(), "one": last.one.json() })),
    ];
    let ratios: Vec<_> =
        figures.iter().map(|Figure { name, ratio, .. }| format!("{name} {} times as fast", ratio.words(3))).collect();
    let headline = format!("{}: {topics} topics against one: {}", outcome.word(), ratios.join(", "));
    ended("e2e --compare-one-topic", &headline, &lines, (outcome, None), own)
}

fn short(report: &Report) -> Value {
    json!({
        "published_mb_per_s": report.published_mb_per_s(),
        "delivered_mb_per_s": report.delivered_mb_per_s(),
        "outcome": report.verdict.outcome.word().to_lowercase(),
    })
}
