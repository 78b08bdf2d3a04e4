//! `e2e --compare-one-topic`: many topics against one, in turn, several times.
//!
//! Both sides have the same publishers and the same bytes to publish, and every message is delivered equally often. Which side
//! comes first changes with every round; the first round is cold and is dropped. The topics are created once: each run begins
//! behind what the last one left in them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::args::{E2eArgs, LoadArgs};
use crate::error::LoadError;
use crate::load::{Load, Wishes, unique_suffix};
use crate::report::{Ended, GIT_ID, Report, machine};
use crate::run::{make_topics, run_load};
use crate::verdict::Outcome;

/// Both sides of one round.
struct Round {
    many: Report,
    one: Report,
}

/// The middle of several rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "there is a round that counts");
        values.sort_unstable_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Spread { median: (low + high) / 2.0, min: values[0], max: values[values.len() - 1] }
    }

    fn words(&self, decimals: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.decimals$} [{min:.decimals$}..{max:.decimals$}]")
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// Runs it.
pub fn run(args: &E2eArgs, interrupted: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    if args.load.topics < 2 {
        return Err(LoadError::Usage("--compare-one-topic: say how many topics with --topics".to_owned()));
    }
    let name = args.topic.name(&unique_suffix());
    let many = Wishes { subscribers: args.subscribers, verify: args.verify.on(), ..Wishes::default() };
    let prepare = |side: &str, load: &LoadArgs, wishes: &Wishes<'_>| {
        let mut load = Load::prepare(&args.topic, load, format!("{name}-{side}"), wishes)?;
        load.reused = true;
        Ok::<_, LoadError>(load)
    };
    let copies = prepare("many", &args.load, &many)?.fleet.copies() as u32;
    let (single, one) = (LoadArgs { topics: 1, ..args.load.clone() }, Wishes { subscribers: copies, ..many });
    make_topics(&prepare("many", &args.load, &many)?)?;
    make_topics(&prepare("one", &single, &one)?)?;
    let mut rounds = Vec::new();
    for round in 0..=args.compare.rounds {
        let side = |many_topics: bool| {
            let load = if many_topics { prepare("many", &args.load, &many)? } else { prepare("one", &single, &one)? };
            run_load("e2e", &load, &args.output, interrupted)
        };
        let many_first = round % 2 == 0;
        let (first, second) = (side(many_first)?, side(!many_first)?);
        let (many, one) = if many_first { (first, second) } else { (second, first) };
        eprintln!(
            "round {round}{}: {:.1} MB/s with many topics, {:.1} with one",
            if round == 0 { " (cold)" } else { "" },
            many.published_mb_per_s(),
            one.published_mb_per_s()
        );
        let outcome = outcome([&many, &one].into_iter());
        rounds.push(Round { many, one });
        if outcome != Outcome::Pass {
            break;
        }
    }
    Ok(ended(args, &rounds))
}

fn outcome<'a>(reports: impl Iterator<Item = &'a Report>) -> Outcome {
    reports.map(|report| report.verdict.outcome).fold(Outcome::Pass, |worst, one| match (worst, one) {
        (Outcome::Interrupted, _) | (_, Outcome::Interrupted) => Outcome::Interrupted,
        (Outcome::Fail, _) | (_, Outcome::Fail) => Outcome::Fail,
        _ => Outcome::Pass,
    })
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

fn ended(args: &E2eArgs, rounds: &[Round]) -> Ended {
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
    let json = json!({
        "tool": "loadgen",
        "version": env!("CARGO_PKG_VERSION"),
        "git": GIT_ID,
        "command": "e2e --compare-one-topic",
        "machine": machine(),
        "topics": topics,
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
        "rounds": rounds.iter().map(|round| json!({ "many": short(&round.many), "one": short(&round.one) })).collect::<Vec<_>>(),
        "last_round": { "many": last.many.json(), "one": last.one.json() },
        "verdict": { "outcome": outcome.key(), "pass": outcome == Outcome::Pass },
    });
    Ended { words: lines.join("\n"), json, outcome }
}

fn short(report: &Report) -> Value {
    json!({
        "published_mb_per_s": report.published_mb_per_s(),
        "delivered_mb_per_s": report.delivered_mb_per_s(),
        "outcome": report.verdict.outcome.key(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_rounds() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0].into_iter()).words(2), "2.50 [1.00..4.00]");
    }
}
