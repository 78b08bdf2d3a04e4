//! `e2e --rate-percent`: the maximum first, closed loop; then open loop at parts of it.
//!
//! The maximum is what the whole reaches with windows full: the smaller of the rates of publishing and of delivery to the slowest
//! subscriber. Every run has a topic of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::json;
use tools_common::figures::Latencies;
use tools_common::schedule::Rate;
use verification::verdict::Outcome;

use super::{Experiment, ended, outcome};
use crate::args::{E2eArgs, LoadArgs};
use crate::error::LoadError;
use crate::load::{Load, Wishes};
use crate::report::{Ended, Report};
use crate::run::make_topics;

/// Longest run for the maximum, and the one if no duration was said.
const MAXIMUM_FOR: Duration = Duration::from_secs(10);
/// What the table shows of each path.
const SHOWN: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

struct Step {
    percent: u32,
    report: Report,
}

/// Runs it.
pub fn run(args: &E2eArgs, interrupted: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    let experiment = Experiment::new("e2e", &args.topic, &args.output, interrupted);
    let wishes = Wishes { subscribers: args.subscribers, verify: args.verify.on(), ..Wishes::default() };
    // What cannot be done at a rate is refused before anything is measured.
    args.rate.plan(Rate::Messages(u64::MAX), &args.topic, &args.load, 1)?;
    let time = args.load.duration.unwrap_or(MAXIMUM_FOR).min(MAXIMUM_FOR);
    let closed = LoadArgs { duration: Some(time), ..args.load.clone() };
    let one = |load: Load<'_>| {
        make_topics(&load)?;
        experiment.run(&load)
    };
    let maximum = one(experiment.load("-max", &closed, &wishes)?)?;
    let most = maximum.messages_per_s();
    let mut steps = Vec::new();
    if maximum.verdict.outcome == Outcome::Pass {
        for percent in &args.rate_percent {
            let rate = Rate::Messages((most * f64::from(*percent) / 100.0).max(1.0) as u64);
            let wishes = Wishes { rate: Some((&args.rate, rate)), ..wishes };
            let report = one(experiment.load(&format!("-p{percent}"), &args.load, &wishes)?)?;
            let outcome = report.verdict.outcome;
            steps.push(Step { percent: *percent, report });
            if outcome == Outcome::Interrupted {
                break;
            }
        }
    }
    Ok(judged(&maximum, &steps))
}

fn judged(maximum: &Report, steps: &[Step]) -> Ended {
    let mut lines = vec![format!("maximum, closed loop:\n{}", maximum.words())];
    lines.extend(steps.iter().map(|step| format!("{} % of it, open loop:\n{}", step.percent, step.report.words())));
    lines.push(table(maximum, steps));
    let step = |step: &Step| {
        let mut json = step.report.json();
        json["percent"] = json!(step.percent);
        json
    };
    let own = [
        ("maximum_messages_per_s", json!(maximum.messages_per_s())),
        ("maximum", maximum.json()),
        ("steps", steps.iter().map(step).collect()),
    ];
    let outcome = outcome(steps.iter().map(|step| &step.report).chain([maximum]));
    let percents: Vec<_> = steps.iter().map(|step| step.percent.to_string()).collect();
    let headline = format!(
        "{}: {:.0} messages/s at most; open loop at {} % of it",
        outcome.word(),
        maximum.messages_per_s(),
        if percents.is_empty() { "no".to_owned() } else { percents.join(", ") }
    );
    ended("e2e --rate-percent", &headline, &lines, (outcome, None), own)
}

/// A line for each rate; latencies in µs from the planned time.
fn table(maximum: &Report, steps: &[Step]) -> String {
    let names: String = SHOWN.iter().map(|(name, _)| format!("{name:>10}")).collect();
    let mut lines = vec![
        format!("latencies from the planned time, µs; the maximum is {:.0} messages/s", maximum.messages_per_s()),
        format!("{:>6} {:>12} {:>12} | publish to ack {:>15} | publish to deliver", "rate", "asked/s", "acked/s", ""),
        format!("{:>32} |{names} |{names}", ""),
    ];
    for Step { percent, report } in steps {
        let Some(open) = &report.open else { continue };
        let row = |of: &Latencies| -> String {
            SHOWN.iter().map(|(_, at)| format!("{:>10.1}", of.percentile_us(*at))).collect()
        };
        let deliver = open.deliver.as_ref().map_or(String::new(), |deliver| row(&deliver.corrected));
        let late = if open.overload().is_some() { "  not reached" } else { "" };
        let (asked, acked, ack) = (open.asked_per_s(), open.acked_per_s(), row(&open.ack.corrected));
        lines.push(format!("{percent:>4} % {asked:>12.0} {acked:>12.0} |{ack} |{deliver}{late}"));
    }
    lines.join("\n")
}
