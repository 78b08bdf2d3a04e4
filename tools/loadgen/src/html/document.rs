//! What a report is made of: JSON that loadgen wrote, read back. Everything else is refused, with what was found.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::events::Events;
use crate::report::{FORMAT, TOOL};
use crate::series::Series;
use crate::stages::{Curve, Stage};

/// Why something is not a document of ours.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not JSON.
    #[error("{name} is not JSON: {source}; give a file that loadgen wrote with --json")]
    NotJson {
        /// The file's name.
        name: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It is somebody else's.
    #[error(
        "{name} is not of loadgen: \"tool\" is {found}, not \"loadgen\"; give a file that loadgen wrote with --json"
    )]
    NotOurs {
        /// The file's name.
        name: String,
        /// Whose it says it is.
        found: String,
    },
    /// It is of a loadgen that wrote something else.
    #[error(
        "{name} has \"format\" {found}, not {FORMAT}: another loadgen wrote it; make the report with that one, or run again"
    )]
    Format {
        /// The file's name.
        name: String,
        /// What it says.
        found: String,
    },
    /// It says that it is ours, and is not.
    #[error("{name} is not what loadgen writes: {source}; it was changed or cut short, so run again with --json")]
    Shape {
        /// The file's name.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Everything that one call of loadgen found.
#[derive(Clone, Debug)]
pub struct Document {
    /// What a reader calls it: the file's name.
    pub name: String,
    /// What is said of it as a whole.
    pub head: Head,
    /// Its runs, with names if there are several.
    pub runs: Vec<(String, Run)>,
}

/// What is said of a document as a whole.
#[derive(Clone, Debug, Deserialize)]
pub struct Head {
    /// Version of loadgen.
    pub version: String,
    /// The commit it was built from, if that is known.
    pub git: Option<String>,
    /// When it was written, UTC.
    pub written: String,
    /// The subcommand.
    pub command: String,
    /// Where it ran.
    pub machine: Map<String, Value>,
    /// The result in a sentence.
    pub headline: String,
    /// Everything that was printed.
    pub words: String,
    /// The judgement.
    pub verdict: Judgement,
    /// What happened beside the runs.
    #[serde(default)]
    pub events: Events,
}

/// How it was judged.
#[derive(Clone, Debug, Deserialize)]
pub struct Judgement {
    /// In a word.
    pub outcome: String,
    /// Why it failed.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What a reader should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One run.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// The result in a sentence.
    pub headline: String,
    /// Every setting in effect.
    pub configuration: Map<String, Value>,
    /// What was measured.
    pub results: Results,
    /// The judgement.
    pub verdict: Judgement,
}

/// What was measured in a run.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those that `report` writes")]
pub struct Results {
    pub publish: Option<Amount>,
    pub deliver: Option<Amount>,
    pub sessions: Vec<Session>,
    pub subscribers: Vec<Subscriber>,
    pub batches_resent: u64,
    pub batches_let_go: u64,
    pub fences: u64,
    pub reconnects: u64,
    pub open_loop: Option<OpenLoop>,
    pub series: Series,
    pub events: Events,
    pub stages: Vec<Stage>,
    pub curves: Vec<Curve>,
}

/// An amount of payload over a time.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those that `report` writes")]
pub struct Amount {
    pub messages: u64,
    pub seconds: f64,
    pub megabytes_per_second: f64,
}

impl Amount {
    /// Messages a second.
    pub fn messages_per_s(&self) -> f64 {
        self.messages as f64 / self.seconds.max(1e-9)
    }
}

/// What one session of a publisher reached.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// Where its messages went; nothing if it was attached.
    pub brokers: Vec<Broker>,
}

/// What one session sent to one broker.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those that `report` writes")]
pub struct Broker {
    pub broker: u16,
    pub acked: u64,
}

/// What one subscriber saw.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those that `report` writes")]
pub struct Subscriber {
    pub missing: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub faults: u64,
}

/// What an open loop was asked for and reached.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those that `report` writes")]
pub struct OpenLoop {
    pub asked_messages_per_s: f64,
    pub sent_messages_per_s: f64,
    pub acked_messages_per_s: f64,
    pub delivered_messages_per_s: Option<f64>,
    pub lag_max_us: f64,
}

impl Run {
    /// Size of each message, bytes; 0 if it is not known.
    pub fn message_bytes(&self) -> u64 {
        self.configuration.get("message_bytes").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Messages acked through each broker, over all sessions, by broker.
    pub fn acked_by_broker(&self) -> Vec<(u16, u64)> {
        let mut sums = std::collections::BTreeMap::new();
        for one in self.results.sessions.iter().flat_map(|session| &session.brokers) {
            *sums.entry(one.broker).or_insert(0) += one.acked;
        }
        // What went to an address that never answered went to no broker.
        sums.remove(&embarcadero::UNKNOWN_BROKER);
        sums.into_iter().collect()
    }
}

/// More is not what a run writes, bytes.
const RESULT_BYTES_MAX: u64 = 256 << 20;

/// A file's text. One that never ends, such as a device, ends there.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(RESULT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Document {
    /// From a file.
    pub fn read(path: &Path) -> Result<Document, DocumentError> {
        let text = read_bounded(path).map_err(|source| DocumentError::Read { path: path.to_owned(), source })?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        let json =
            serde_json::from_str(&text).map_err(|source| DocumentError::NotJson { name: name.clone(), source })?;
        Document::new(name, &json)
    }

    /// From what a file of this name contains.
    pub fn new(name: String, json: &Value) -> Result<Document, DocumentError> {
        let found = |key: &str| json.get(key).map_or("not there".to_owned(), Value::to_string);
        if json["tool"] != TOOL {
            return Err(DocumentError::NotOurs { name, found: found("tool") });
        }
        if json["format"] != FORMAT {
            return Err(DocumentError::Format { name, found: found("format") });
        }
        let shape = |source| DocumentError::Shape { name: name.clone(), source };
        let head = Head::deserialize(json).map_err(shape)?;
        let mut runs = Vec::new();
        for (label, value) in runs_of(json) {
            runs.push((label, Run::deserialize(value).map_err(shape)?));
        }
        Ok(Document { name, head, runs })
    }
}

/// Where the runs of each kind of document are.
fn runs_of(json: &Value) -> Vec<(String, &Value)> {
    if json.get("results").is_some() {
        return vec![(String::new(), json)];
    }
    let mut runs = Vec::new();
    let named = [
        ("the maximum, closed loop", json.get("maximum")),
        ("many topics, the last round", json.pointer("/last_round/many")),
        ("one topic, the last round", json.pointer("/last_round/one")),
        ("filling the topic", json.get("fill")),
        ("the tail", json.get("tail")),
    ];
    runs.extend(named.into_iter().filter_map(|(label, run)| Some((label.to_owned(), run?))));
    for step in json["steps"].as_array().into_iter().flatten() {
        runs.push((format!("{} % of the maximum, open loop", step["percent"]), step));
    }
    runs
}
