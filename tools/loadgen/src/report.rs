//! What is left of a run: a few sentences on standard output, and everything as JSON.

use std::time::Instant;

use embarcadero::PublisherStats;
use jiff::Timestamp;
use serde_json::{Value, json};
use tools_common::report;
use verification::promise::Promise;
use verification::verdict::{Outcome, Verdict};
use verification::verifier::SessionSeen;

use crate::events::Events;
use crate::latency::LatencyReport;
use crate::open_loop::OpenReport;
use crate::pause::PauseReport;
use crate::progress::sum_brokers;
use crate::publish::SessionResult;
use crate::series::Series;
use crate::stages::{Stage, Way, curve};
use crate::subscribe::ReaderResult;

/// Who writes it.
pub const TOOL: &str = "loadgen";
/// Version of what is written as JSON. It changes with the meaning or the place of anything that a report is made of.
pub const FORMAT: u64 = 1;
/// More subscribers than this are shown as one.
const READERS_SHOWN: usize = 8;

/// Everything about a run that has ended.
pub struct Report {
    /// The subcommand.
    pub command: &'static str,
    /// Every setting in effect.
    pub configuration: Value,
    /// What was promised.
    pub promise: Promise,
    /// Size of each message.
    pub message_bytes: u64,
    /// What the publishers reached.
    pub sessions: Vec<SessionResult>,
    /// What the subscribers saw.
    pub readers: Vec<ReaderResult>,
    /// Latencies of one message in flight, where they were measured.
    pub latencies: Option<LatencyReport>,
    /// What an open loop reached.
    pub open: Option<OpenReport>,
    /// What stopping a subscriber did.
    pub pause: Option<PauseReport>,
    /// How far it was at every moment.
    pub series: Series,
    /// What happened and is rare.
    pub events: Events,
    /// How long the parts of a message's way took. Whoever knows of more parts adds them.
    pub stages: Vec<Stage>,
    /// The judgement.
    pub verdict: Verdict,
}

/// A run that has ended, or several, as it is shown and written.
pub struct Ended {
    /// In sentences.
    pub words: String,
    /// Everything.
    pub json: Value,
    /// In a word.
    pub outcome: Outcome,
}

impl From<Report> for Ended {
    fn from(report: Report) -> Ended {
        Ended { words: report.words(), json: report.json(), outcome: report.verdict.outcome }
    }
}

/// An amount of payload over a time.
struct Rate {
    messages: u64,
    bytes: u64,
    seconds: f64,
}

impl Rate {
    fn new(messages: u64, message_bytes: u64, from: Instant, to: Instant) -> Rate {
        Rate { messages, bytes: messages * message_bytes, seconds: to.duration_since(from).as_secs_f64() }
    }

    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds.max(1e-9)
    }

    fn words(&self) -> String {
        let (megabytes, per_second) = (self.bytes as f64 / 1e6, self.messages as f64 / self.seconds.max(1e-9));
        let rate = self.megabytes_per_second();
        format!("{megabytes:.1} MB in {:.3} s = {rate:.1} MB/s, {per_second:.0} messages/s", self.seconds)
    }

    fn json(&self) -> Value {
        json!({
            "messages": self.messages,
            "payload_bytes": self.bytes,
            "seconds": self.seconds,
            "megabytes_per_second": self.megabytes_per_second(),
        })
    }
}

impl Report {
    /// When the first message was handed to a client.
    pub fn first_send(&self) -> Option<Instant> {
        self.sessions.iter().filter_map(|session| session.first_send).min()
    }

    fn publish_rate(&self) -> Option<Rate> {
        let acked = self.sessions.iter().map(|session| session.account.acked).sum();
        let last = self.sessions.iter().filter_map(|session| session.last_ack).max()?;
        Some(Rate::new(acked, self.message_bytes, self.first_send()?, last))
    }

    fn deliver_rate(&self, reader: &ReaderResult) -> Option<Rate> {
        let from = self.first_send().unwrap_or(reader.started);
        Some(Rate::new(reader.seen.summary.messages, self.message_bytes, from, reader.last_delivery?))
    }

    /// Everything delivered to all subscribers, from the first message sent to the last delivery of all.
    fn all_delivered(&self) -> Option<Rate> {
        let from = self.first_send().or_else(|| self.readers.iter().map(|reader| reader.started).min())?;
        let last = self.readers.iter().filter_map(|reader| reader.last_delivery).max()?;
        let messages = self.readers.iter().map(|reader| reader.seen.summary.messages).sum();
        Some(Rate::new(messages, self.message_bytes, from, last))
    }

    /// What was published, and how fast.
    pub fn publish_line(&self) -> Option<String> {
        self.publish_rate().map(|rate| rate.words())
    }

    /// Payload acked, MB/s.
    pub fn published_mb_per_s(&self) -> f64 {
        self.publish_rate().map_or(0.0, |rate| rate.megabytes_per_second())
    }

    /// Payload delivered to all subscribers, MB/s.
    pub fn delivered_mb_per_s(&self) -> f64 {
        self.all_delivered().map_or(0.0, |rate| rate.megabytes_per_second())
    }

    /// What the whole reached, messages a second: publishing, and delivery to the slowest subscriber.
    pub fn messages_per_s(&self) -> f64 {
        let per_s = |rate: Rate| rate.messages as f64 / rate.seconds.max(1e-9);
        let delivered = self.readers.iter().filter_map(|reader| self.deliver_rate(reader));
        self.publish_rate().into_iter().chain(delivered).map(per_s).fold(f64::INFINITY, f64::min)
    }

    /// Every way of a message that was measured.
    pub fn ways(&self) -> Vec<Way<'_>> {
        let one = self.latencies.iter().flat_map(LatencyReport::ways);
        one.chain(self.open.iter().flat_map(OpenReport::ways)).collect()
    }

    fn stats(&self) -> PublisherStats {
        let mut sum = PublisherStats::default();
        self.sessions.iter().for_each(|session| sum += session.stats);
        sum
    }

    /// The run in sentences.
    pub fn words(&self) -> String {
        let mut lines = vec![self.headline()];
        lines.extend(self.verdict.reasons.iter().map(|reason| format!("  wrong: {reason}")));
        self.publish_words(&mut lines);
        self.deliver_words(&mut lines);
        lines.extend(self.latencies.iter().flat_map(LatencyReport::words));
        lines.extend(self.open.iter().flat_map(OpenReport::words));
        lines.extend(self.pause.iter().flat_map(PauseReport::words));
        lines.extend(self.verdict.notes.iter().map(|note| format!("  note: {note}")));
        lines.join("\n")
    }

    fn headline(&self) -> String {
        let word = self.verdict.outcome.word();
        let mut did = Vec::new();
        if !self.sessions.is_empty() {
            let planned: u64 = self.sessions.iter().map(|session| session.account.planned).sum();
            let (sessions, size) = (count(self.sessions.len(), "session"), self.message_bytes);
            let topics = self.configuration["topics"].as_u64().filter(|topics| *topics > 1);
            let topics = topics.map_or(String::new(), |topics| format!(" to {topics} topics"));
            did.push(format!("publish {planned} messages of {size} bytes in {sessions}{topics}"));
        }
        if !self.readers.is_empty() {
            let checked = self.readers.iter().all(|reader| reader.seen.summary.checked);
            let verb = if checked { "verify" } else { "count" };
            let what = if self.sessions.is_empty() { "messages" } else { "them" };
            did.push(format!("{verb} {what} at {}", count(self.readers.len(), "subscriber")));
        }
        let (order, ack) = (self.promise.order, &self.configuration["ack"]);
        format!("{word}: {} at order {order}, ack {ack}", did.join(", "))
    }

    fn publish_words(&self, lines: &mut Vec<String>) {
        if self.sessions.is_empty() {
            return;
        }
        let until = if self.promise.is_acked { "last ack" } else { "last write; nothing is acked" };
        if let Some(rate) = self.publish_rate() {
            lines.push(format!("  published {} (first send to {until}; payload, 1 MB = 10^6 bytes)", rate.words()));
        }
        let brokers = sum_brokers(self.sessions.iter().flat_map(|session| session.brokers.iter().cloned()));
        let broker = |one: &embarcadero::BrokerProgress| {
            let lost = if one.connected { "" } else { " (not connected)" };
            format!("B{} {}/{}{lost}", one.broker, one.acked, one.sent)
        };
        let brokers: Vec<String> = brokers.iter().map(broker).collect();
        lines.push(format!("  acked/sent per broker: {}", brokers.join(", ")));
        let PublisherStats { resent_batches, let_go, fences, reconnects, new_sessions, .. } = self.stats();
        let anew =
            if new_sessions > 0 { format!(", {new_sessions} sessions gone and opened anew") } else { String::new() };
        lines.push(format!(
            "  {resent_batches} batches resent, {let_go} let go, {fences} fences, {reconnects} reconnects{anew}"
        ));
    }

    fn deliver_words(&self, lines: &mut Vec<String>) {
        if self.readers.len() > READERS_SHOWN {
            if let Some(rate) = self.all_delivered() {
                let readers = self.readers.len();
                lines.push(format!(
                    "  {readers} subscriptions received {} (first send to last delivery of all)",
                    rate.words()
                ));
            }
            return;
        }
        for reader in &self.readers {
            let Some(rate) = self.deliver_rate(reader) else {
                lines.push(format!("  subscriber {} received nothing", reader.seen.index));
                continue;
            };
            let from = if self.sessions.is_empty() { "start" } else { "first send" };
            let (index, hash) = (reader.seen.index, reader.seen.summary.hash);
            lines.push(format!(
                "  subscriber {index} received {} ({from} to last delivery); hash {hash:016x}",
                rate.words()
            ));
        }
    }

    /// The run as JSON.
    pub fn json(&self) -> Value {
        let stats = self.stats();
        let mut json = envelope(self.command);
        json["headline"] = json!(self.headline());
        json["words"] = json!(self.words());
        json["configuration"] = self.configuration.clone();
        json["results"] = json!({
            "publish": self.publish_rate().map(|rate| rate.json()),
            "sessions": self.sessions.iter().map(session_json).collect::<Vec<_>>(),
            "batches_resent": stats.resent_batches,
            "batches_let_go": stats.let_go,
            "fences": stats.fences,
            "reconnects": stats.reconnects,
            "subscribers": self.readers.iter().map(|reader| self.reader_json(reader)).collect::<Vec<_>>(),
            "latency": self.latencies.as_ref().map(LatencyReport::json),
            "deliver": self.all_delivered().map(|rate| rate.json()),
            "open_loop": self.open.as_ref().map(OpenReport::json),
            "stopped_reader": self.pause.as_ref().map(PauseReport::json),
            "series": self.series,
            "events": self.events,
            "stages": self.stages,
            "curves": self.ways().iter().filter_map(curve).collect::<Vec<_>>(),
        });
        json["verdict"] = outcome_json(self.verdict.outcome);
        json["verdict"]["reasons"] = json!(self.verdict.reasons);
        json["verdict"]["notes"] = json!(self.verdict.notes);
        json
    }

    fn reader_json(&self, reader: &ReaderResult) -> Value {
        let summary = &reader.seen.summary;
        let seen = |session: &SessionSeen| {
            json!({
                "session": format!("{:#x}", session.session),
                "publisher": session.publisher,
                "messages": session.messages,
                "batches": session.batches,
            })
        };
        json!({
            "topic": reader.seen.topic,
            "deliver": self.deliver_rate(reader).map(|rate| rate.json()),
            "verified": summary.checked,
            "messages": summary.messages,
            "missing": summary.missing,
            "skipped": summary.skipped,
            "batches": summary.batches,
            "duplicates": summary.duplicates,
            "reordered": summary.reordered,
            "faults": summary.faults.count(),
            "first_order": summary.first_order,
            "hash": format!("{:016x}", summary.hash),
            "sessions": summary.sessions.iter().map(seen).collect::<Vec<_>>(),
        })
    }
}

/// How it ended.
pub fn outcome_json(outcome: Outcome) -> Value {
    json!({ "outcome": outcome.word().to_lowercase(), "pass": outcome == Outcome::Pass })
}

/// What every report begins with.
pub fn envelope(command: &str) -> Value {
    let mut machine = report::machine();
    (machine["cpu"], machine["cores"]) = (machine["processor"].clone(), machine["usable_cores"].clone());
    json!({
        "tool": TOOL,
        "format": FORMAT,
        "written": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "git": report::GIT_ID,
        "command": command,
        "machine": machine,
    })
}

fn session_json(session: &SessionResult) -> Value {
    let broker = |one: &embarcadero::BrokerProgress| {
        let address = &one.address;
        json!({ "broker": one.broker, "address": address, "sent": one.sent, "acked": one.acked, "connected": one.connected })
    };
    json!({
        "publisher": session.account.index,
        "topic": session.account.topic,
        "session": format!("{:#x}", session.account.session),
        "planned": session.account.planned,
        "sent": session.account.sent,
        "acked": session.account.acked,
        "brokers": session.brokers.iter().map(broker).collect::<Vec<_>>(),
    })
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
