//! What was found, as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::findings::{Broken, Promise};
use super::walk::Seen;

/// Version of the JSON object: it grows when a field goes or gets another meaning.
const SCHEMA: u32 = 1;

/// What is told, and how much of it.
pub struct Report<'a> {
    /// The pool.
    pub pool: &'a Path,
    /// What was found there.
    pub seen: &'a Seen,
    /// Most places told of one promise.
    pub limit: usize,
}

impl Report<'_> {
    /// Places where a promise is broken.
    pub fn broken(&self) -> u64 {
        self.seen.findings.count()
    }

    fn part_in_words(&self) -> String {
        let Some(part) = self.seen.part else { return "no sequencer's log was looked at".into() };
        let (commit, floor) = (part.commit, part.floor.map_or("?".into(), |floor| floor.to_string()));
        let (candidate, epoch, watermark) = (commit.candidate, commit.epoch, commit.watermark);
        format!("epoch {epoch} of candidate {candidate}, positions {floor} to {watermark}")
    }

    /// For people: a line for each promise, and below it where it is broken.
    pub fn text(&self) -> String {
        let mut text = format!("pool {}: {}\n", self.pool.display(), self.part_in_words());
        // Where that is broken nothing else was looked at.
        let is_lost = self.seen.findings.of(Promise::Superblock).count() > 0;
        for promise in Promise::EVERY {
            let (name, words, unit) = promise.told();
            let finding = self.seen.findings.of(promise);
            let state = match finding.count() {
                0 if is_lost && finding.looked == 0 => "-",
                0 => "ok",
                _ => "BROKEN",
            };
            let _ = writeln!(text, "{state:<7}{name:<14}{:>12} {unit:<9} {words}", finding.looked);
            for broken in finding.broken.iter().take(self.limit) {
                let Broken { region, number, at, field, found, expected } = broken;
                let _ = writeln!(text, "       {region} {number} at {at}: {field} is {found}, expected {expected}");
            }
            let told = finding.broken.len().min(self.limit) as u64;
            if finding.count() > told {
                let _ = writeln!(text, "       and {} more", finding.count() - told);
            }
            finding.notes.iter().take(self.limit).for_each(|note| {
                let _ = writeln!(text, "       note: {note}");
            });
            if finding.notes.len() > self.limit {
                let _ = writeln!(text, "       note: and {} more", finding.notes.len() - self.limit);
            }
        }
        match self.broken() {
            0 => text += "nothing is broken\n",
            broken => {
                let promises = Promise::EVERY.iter().filter(|promise| self.seen.findings.of(**promise).count() > 0);
                let names: Vec<&str> = promises.map(|promise| promise.told().0).collect();
                let _ = writeln!(
                    text,
                    "broken in {broken} place{}: {}",
                    if broken == 1 { "" } else { "s" },
                    names.join(", ")
                );
            }
        }
        text
    }

    /// For programs: one object.
    pub fn json(&self) -> String {
        let promise = |promise: &Promise| {
            let (name, words, unit) = promise.told();
            let finding = self.seen.findings.of(*promise);
            let broken: Vec<Value> = finding.broken.iter().take(self.limit).map(place).collect();
            json!({
                "name": name,
                "promise": words,
                "looked_at": finding.looked,
                "unit": unit,
                "broken_count": finding.count(),
                "broken": broken,
                "notes": finding.notes,
            })
        };
        let part = self.seen.part.map(|part| {
            json!({
                "candidate": part.commit.candidate,
                "epoch": part.commit.epoch,
                "floor": part.floor,
                "watermark": part.commit.watermark,
            })
        });
        let object = json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "pool": self.pool.display().to_string(),
            "log": part,
            "broken_count": self.broken(),
            "promises": Promise::EVERY.iter().map(promise).collect::<Vec<_>>(),
        });
        format!("{object:#}\n")
    }
}

fn place(broken: &Broken) -> Value {
    json!({
        "region": broken.region,
        "number": broken.number,
        "offset": broken.at,
        "field": broken.field,
        "found": broken.found,
        "expected": broken.expected,
    })
}
