//! `compare all`: every comparison that gives ratios, one after the other, and all ratios in one report: what is kept of a machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use tools_common::report::machine;

use crate::args::AllArgs;
use crate::error::CompareError;
use crate::subject::{self, this_program};

/// The comparison that has no subcommand.
const PUBLISH: &str = "publish";
/// What is run, by its subcommand.
const PARTS: [&str; 9] = [PUBLISH, "deliver", "relay", "fanout", "attach", "sequencer", "pieces", "gap", "peers"];

/// Runs it.
pub fn run(args: &AllArgs) -> Result<(), CompareError> {
    if let Some(unknown) = args.parts.iter().find(|name| !PARTS.contains(&name.as_str())) {
        return Err(CompareError::Usage(format!("--parts {unknown}: not one of {}", PARTS.join(", "))));
    }
    let is_wanted = |part: &&str| args.parts.is_empty() || args.parts.iter().any(|name| name == part);
    let parts: Vec<&str> = PARTS.into_iter().filter(is_wanted).collect();
    let folder = subject::folder()?;
    let mut ratios = Map::new();
    let mut failed = Vec::new();
    for name in &parts {
        println!("== {name}");
        let file = folder.path().join(format!("{name}.json"));
        let mut command = Command::new(this_program()?);
        command.args((*name != PUBLISH).then_some(name)).args(["--runs", &args.runs.to_string()]);
        command.arg("--json").arg(&file).args(args.output.tiny.then_some("--tiny"));
        let status = command.status().map_err(CompareError::io(format!("starting compare {name}")))?;
        if status.code().is_none() || status.code() == Some(CompareError::Interrupted.exit_code().into()) {
            return Err(CompareError::Interrupted);
        }
        // What missed an aim has figures all the same.
        match read(&file) {
            Some(found) => ratios.extend(found.into_iter().map(|(key, ratio)| (format!("{name}: {key}"), ratio))),
            None => failed.push(format!("{name} ended with {status} and without figures")),
        }
    }
    let count = ratios.len();
    args.output.write(&json!({ "machine": machine(), "runs": args.runs, "ratios": ratios, "failed": failed }))?;
    println!("== {count} ratios of {} comparisons", parts.len() - failed.len());
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CompareError::Unsound { name: "all".into(), what: failed.join("; ") }),
    }
}

fn read(file: &Path) -> Option<Map<String, Value>> {
    let report: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    report["ratios"].as_object().cloned()
}
