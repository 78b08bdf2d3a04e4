//! Several runs that belong together: rates ([`sweep`]), many topics against one ([`versus`]), a long topic ([`resume`]).
//!
//! Each has topics of its own, makes one run after the other, and ends with one verdict on all.

pub mod resume;
pub mod sweep;
pub mod versus;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use verification::verdict::Outcome;

use crate::args::{LoadArgs, OutputArgs, TopicArgs};
use crate::error::LoadError;
use crate::load::{Load, Wishes, unique_suffix};
use crate::report::{Ended, Report, envelope, outcome_json};
use crate::run::run_load;

/// What an experiment's runs have in common.
struct Experiment<'a> {
    /// The subcommand of each run.
    command: &'static str,
    topic: &'a TopicArgs,
    output: &'a OutputArgs,
    interrupted: &'a Arc<AtomicBool>,
    /// What its topics' names begin with.
    name: String,
}

impl<'a> Experiment<'a> {
    fn new(
        command: &'static str,
        topic: &'a TopicArgs,
        output: &'a OutputArgs,
        interrupted: &'a Arc<AtomicBool>,
    ) -> Experiment<'a> {
        Experiment { command, topic, output, interrupted, name: topic.name(&unique_suffix()) }
    }

    /// A load to topics whose names end so.
    fn load(&self, suffix: &str, load: &LoadArgs, wishes: &Wishes<'_>) -> Result<Load<'a>, LoadError> {
        Load::prepare(self.topic, load, format!("{}{suffix}", self.name), wishes)
    }

    fn run(&self, load: &Load<'_>) -> Result<Report, LoadError> {
        run_load(self.command, load, self.output, self.interrupted)
    }
}

fn outcome<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Outcome {
    Outcome::of_all(reports.into_iter().map(|report| report.verdict.outcome))
}

/// As it is shown and written: lines, and what only this experiment has.
fn ended<const N: usize>(
    what: &str,
    headline: &str,
    lines: &[String],
    (outcome, reasons): (Outcome, Option<&[String]>),
    own: [(&str, Value); N],
) -> Ended {
    let mut json = envelope(what);
    let words = lines.join("\n");
    (json["headline"], json["words"]) = (json!(headline), json!(words));
    own.into_iter().for_each(|(key, value)| json[key] = value);
    json["verdict"] = outcome_json(outcome);
    if let Some(reasons) = reasons {
        json["verdict"]["reasons"] = json!(reasons);
    }
    Ended { words, json, outcome }
}
