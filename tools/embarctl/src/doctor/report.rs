//! What the checks found: as text for people, the worst first, and as JSON for programs.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Version of the JSON object: it grows when a field goes or gets another meaning.
const SCHEMA: u32 = 1;
/// Longest line of the text, characters, but for what cannot be broken.
const COLUMNS: usize = 100;
/// Where texts begin in the text: behind the state and the name, and behind a label.
const NAME_COLUMN: usize = 6;
const FOUND_COLUMN: usize = 28;
const LABELLED_COLUMN: usize = 15;

/// How a check came out, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// A broker does not start, or is killed.
    Fail,
    /// It runs, slower or less safely than it could.
    Warn,
    /// Something to know, or something that is not known here.
    Note,
    /// As it should be.
    Ok,
}

impl State {
    const EVERY: [State; 4] = [State::Fail, State::Warn, State::Note, State::Ok];

    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            State::Fail => "fail",
            State::Warn => "warn",
            State::Note => "note",
            State::Ok => "ok",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at; no two have the same.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What there should be, and why; may be empty.
    pub needed: String,
    /// Commands or settings to copy, each a line.
    pub remedy: Vec<String>,
}

impl Check {
    /// A check, without a need or a remedy.
    pub fn new(name: &'static str, state: State, found: impl Into<String>) -> Check {
        Check { name, state, found: found.into(), needed: String::new(), remedy: Vec::new() }
    }

    /// One whose source is not there.
    pub fn unknown(name: &'static str, source: &str) -> Check {
        Check::new(name, State::Note, format!("not known here: no {source}"))
    }

    /// With what there should be.
    pub fn needed(self, needed: impl Into<String>) -> Check {
        Check { needed: needed.into(), ..self }
    }

    /// With a further line of the remedy.
    pub fn remedy(mut self, line: impl Into<String>) -> Check {
        self.remedy.push(line.into());
        self
    }

    /// Ok, and so without a remedy, if that holds.
    pub fn ok_if(self, holds: bool) -> Check {
        if holds { Check { state: State::Ok, remedy: Vec::new(), ..self } } else { self }
    }

    /// The same, and then with other words.
    pub fn ok_if_so(self, holds: bool, found: impl Into<String>) -> Check {
        if holds { Check { found: found.into(), ..self }.ok_if(true) } else { self }
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the needs come from.
    pub configuration: String,
    /// The pool.
    pub pool: PathBuf,
    /// What would run here.
    pub what_runs: String,
    /// The checks, by groups.
    pub groups: Vec<(&'static str, Vec<Check>)>,
}

impl Report {
    fn count(&self, state: State) -> usize {
        self.checks().filter(|(_, check)| check.state == state).count()
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(State::Fail)
    }

    /// Every check, with its group.
    pub fn checks(&self) -> impl Iterator<Item = (&'static str, &Check)> {
        self.groups.iter().flat_map(|(group, checks)| checks.iter().map(|check| (*group, check)))
    }

    /// For people: the worst first, in each state group by group.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let head = format!(
            "This machine, and this user, for brokers of {}: {}; pool {}.",
            self.configuration,
            self.what_runs,
            self.pool.display()
        );
        paragraph(&mut text, 0, &head, 0);
        text.push('\n');
        for state in State::EVERY {
            self.checks()
                .filter(|(_, check)| check.state == state)
                .for_each(|(_, check)| write_check(&mut text, check));
        }
        let counts = State::EVERY.map(|state| format!("{} {}", self.count(state), state.word()));
        let _ = writeln!(text, "\n{} checks: {}", self.checks().count(), counts.join(", "));
        text
    }

    /// For programs: one object.
    pub fn json(&self) -> String {
        let one = |(group, check): (&str, &Check)| {
            json!({
                "group": group,
                "name": check.name,
                "state": check.state.word(),
                "found": check.found,
                "needed": check.needed,
                "remedy": check.remedy,
            })
        };
        let counts = State::EVERY.map(|state| (state.word().to_owned(), Value::from(self.count(state))));
        let object = json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "configuration": self.configuration,
            "pool": self.pool.display().to_string(),
            "runs": self.what_runs,
            "counts": Value::Object(counts.into_iter().collect()),
            "checks": self.checks().map(one).collect::<Vec<_>>(),
        });
        format!("{object:#}\n")
    }
}

/// A good one is a line; others say in a line each what is needed and what to do.
fn write_check(text: &mut String, check: &Check) {
    let state = check.state.word().to_owned();
    let state = if check.state == State::Fail { state.to_uppercase() } else { state };
    let name = format!("{state:<NAME_COLUMN$}{}", check.name);
    // A name that is too long takes a line of its own rather than the found one's place.
    let _ = write!(text, "{name:<width$}", width = FOUND_COLUMN);
    paragraph(text, FOUND_COLUMN, &check.found, FOUND_COLUMN);
    if check.state == State::Ok {
        return;
    }
    if !check.needed.is_empty() {
        let _ = write!(text, "{:NAME_COLUMN$}{:<width$}", "", "needed", width = LABELLED_COLUMN - NAME_COLUMN);
        paragraph(text, LABELLED_COLUMN, &check.needed, LABELLED_COLUMN);
    }
    for (number, line) in check.remedy.iter().enumerate() {
        let label = if number == 0 { "remedy" } else { "" };
        // It is there to be copied: it is not broken.
        let _ = writeln!(text, "{:NAME_COLUMN$}{label:<width$}{line}", "", width = LABELLED_COLUMN - NAME_COLUMN);
    }
}

/// Words, broken into lines of [`COLUMNS`] that begin at `indent`; the first one goes on at `column`.
fn paragraph(text: &mut String, column: usize, words: &str, indent: usize) {
    let mut at = column;
    for (number, word) in words.split_whitespace().enumerate() {
        let width = word.chars().count();
        if number > 0 && at + 1 + width > COLUMNS {
            let _ = write!(text, "\n{:indent$}", "");
            at = indent;
        } else if number > 0 {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += width;
    }
    text.push('\n');
}
