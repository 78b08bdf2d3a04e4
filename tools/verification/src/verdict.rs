//! Whether a run was right, and why not. Pure: results in, words out.

use std::borrow::Borrow;
use std::collections::HashMap;

use crate::promise::{Level, Promise, TooSlow};
use crate::verifier::Summary;

/// How a run ended; the greatest counts of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything asked for was reached and right.
    Pass,
    /// Something was short or wrong.
    Fail,
    /// The user ended it. What was wrong until then is in the reasons.
    Interrupted,
}

impl Outcome {
    /// Of a run with these reasons to fail.
    pub fn of(interrupted: bool, reasons: &[String]) -> Outcome {
        match (interrupted, reasons.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, true) => Outcome::Pass,
            (false, false) => Outcome::Fail,
        }
    }

    /// Of several runs.
    pub fn of_all(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
        outcomes.into_iter().max().unwrap_or(Outcome::Pass)
    }

    /// As the first word of a report.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Interrupted => "INTERRUPTED",
        }
    }
}

/// The judgement.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// In a word.
    pub outcome: Outcome,
    /// Why it failed.
    pub reasons: Vec<String>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
}

/// What one session of a publisher reached.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Index of the publisher in the run.
    pub index: u32,
    /// Index of its topic in the run.
    pub topic: usize,
    /// Its session id.
    pub session: u64,
    /// Messages it was to send.
    pub planned: u64,
    /// Messages handed to the client.
    pub sent: u64,
    /// Messages acked; where nothing is acked, messages written to sockets.
    pub acked: u64,
    /// Batches that were sent again.
    pub resent_batches: u64,
    /// How often it was fenced.
    pub fences: u64,
    /// Why it ended early, unless interrupted.
    pub error: Option<String>,
}

/// What one subscriber was given.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index of the subscriber in the run.
    pub index: usize,
    /// Index of its topic in the run.
    pub topic: usize,
    /// What it saw.
    pub summary: Summary,
    /// The brokers' own words, if they refused to go on.
    pub refused: Option<String>,
    /// Why it ended early, unless interrupted.
    pub error: Option<String>,
}

impl Promise {
    /// Whether brokers told this reader that it was too slow, and were right, and it ended there.
    fn was_told(&self, reader: &Seen) -> bool {
        let may_be = self.stopped == Some(reader.index) && self.too_slow != TooSlow::Skips;
        may_be && reader.refused.is_some() && reader.error.is_some()
    }

    /// Whether this reader may have been told of messages that it missed.
    fn may_skip(&self, reader: &Seen) -> bool {
        match self.too_slow {
            TooSlow::Skips => true,
            TooSlow::IsWaitedFor => false,
            TooSlow::IsLetGo => self.stopped == Some(reader.index),
        }
    }
}

/// Judges a run.
pub fn judge(promise: &Promise, sessions: &[impl Borrow<Sent>], readers: &[impl Borrow<Seen>]) -> Verdict {
    let sessions: Vec<&Sent> = sessions.iter().map(Borrow::borrow).collect();
    let readers: Vec<&Seen> = readers.iter().map(Borrow::borrow).collect();
    let mut verdict = Verdict { outcome: Outcome::Pass, reasons: Vec::new(), notes: Vec::new() };
    for session in &sessions {
        judge_session(promise, session, &mut verdict);
    }
    for reader in &readers {
        let sessions: Vec<&Sent> = sessions.iter().filter(|session| session.topic == reader.topic).copied().collect();
        judge_reader(promise, &sessions, reader, &mut verdict);
        if promise.order == Level::Session && promise.own_topic && !promise.was_told(reader) {
            judge_identities(promise, &sessions, reader, &mut verdict);
        }
    }
    judge_agreement(promise, &readers, &mut verdict);
    verdict.outcome = Outcome::of(promise.interrupted, &verdict.reasons);
    verdict
}

fn judge_session(promise: &Promise, session: &Sent, verdict: &mut Verdict) {
    let Sent { index, planned, sent, acked, .. } = session;
    if let Some(error) = &session.error {
        verdict.reasons.push(format!("publisher {index}: {error}"));
    } else if !promise.interrupted && acked < planned {
        let what = if promise.is_acked { "acked" } else { "written" };
        verdict.reasons.push(format!("publisher {index}: {acked} of {planned} messages {what} ({sent} sent)"));
    }
    if acked > sent {
        verdict.reasons.push(format!("publisher {index}: {acked} messages acked, but only {sent} sent"));
    }
    if session.fences > 0 {
        verdict.notes.push(format!("publisher {index} was fenced {} times and went on", session.fences));
    }
}

fn judge_reader(promise: &Promise, sessions: &[&Sent], reader: &Seen, verdict: &mut Verdict) {
    let (index, summary) = (reader.index, &reader.summary);
    let told = promise.was_told(reader);
    if let Some(text) = reader.refused.iter().find(|_| told || reader.error.is_none()) {
        verdict.notes.push(format!("subscriber {index}, which was stopped, was told: {text}"));
    }
    if summary.skipped > 0 && promise.may_skip(reader) {
        verdict.notes.push(format!("subscriber {index} was told that it skipped {} messages", summary.skipped));
    }
    let mut fail = |text: String| verdict.reasons.push(format!("subscriber {index}: {text}"));
    if let Some(error) = reader.error.iter().find(|_| !told) {
        fail(error.clone());
    }
    if summary.faults.count() > 0 {
        fail(format!("{} faults, the first of them:", summary.faults.count()));
        summary.faults.examples().iter().for_each(|fault| fail(fault.to_string()));
    }
    let complete = !promise.interrupted && !told;
    if summary.skipped > 0 && !promise.may_skip(reader) {
        fail(format!("{} messages skipped, which was not asked for (--slow-reader skip)", summary.skipped));
    }
    let untold = summary.missing.saturating_sub(summary.skipped);
    if untold > 0 && summary.checked && complete {
        fail(format!("{untold} messages missing"));
    }
    if promise.own_topic && promise.order == Level::Session && summary.skipped > summary.missing && complete {
        fail(format!("told of {} messages skipped, but {} did not come", summary.skipped, summary.missing));
    }
    let published = sessions.iter().map(|session| session.planned).sum();
    let wanted = if promise.own_topic { published } else { promise.wanted.unwrap_or(0) };
    let short = wanted.saturating_sub(summary.messages + summary.skipped);
    if short > 0 && (!summary.checked || !promise.own_topic) && complete {
        fail(format!("{} messages delivered, {short} fewer than asked for", summary.messages));
    }
    if promise.own_topic && summary.checked && summary.unique > published && !promise.interrupted {
        fail(format!("{} different messages delivered, but only {published} sent", summary.unique));
    }
    judge_repeats(promise, sessions, reader.index, summary, verdict);
}

/// Below order level 5 a batch that was resent may be delivered twice, or late. Only its publisher knows.
fn judge_repeats(promise: &Promise, sessions: &[&Sent], index: usize, summary: &Summary, verdict: &mut Verdict) {
    let repeats = repeats(promise, sessions, summary);
    if promise.order == Level::Session && summary.stamped || repeats + summary.reordered == 0 {
        return; // At level 5 each repeat of a numbered message is a fault already.
    }
    let resent: u64 = sessions.iter().map(|session| session.resent_batches).sum();
    let late = summary.reordered;
    let text =
        format!("subscriber {index}: {repeats} messages delivered again and {late} out of their connection's order");
    if promise.order != Level::Session && resent > 0 {
        verdict.notes.push(format!("{text}; {resent} batches were resent, which order level {} allows", promise.order));
    } else if sessions.is_empty() && late == 0 {
        verdict.notes.push(format!("{text}; only their publishers know whether batches were resent"));
    } else {
        verdict.reasons.push(format!("{text}: order level {} forbids that when nothing was resent", promise.order));
    }
}

/// Messages delivered again: known one by one where messages are numbered, else from the sum.
fn repeats(promise: &Promise, sessions: &[&Sent], summary: &Summary) -> u64 {
    if summary.stamped && summary.checked || !promise.own_topic {
        return summary.duplicates;
    }
    let planned: u64 = sessions.iter().map(|session| session.planned).sum();
    summary.messages.saturating_sub(planned)
}

/// At level 5 the sessions delivered are the publishers' own, each with all its messages.
fn judge_identities(promise: &Promise, sessions: &[&Sent], reader: &Seen, verdict: &mut Verdict) {
    if !reader.summary.checked {
        return;
    }
    let index = reader.index;
    for seen in &reader.summary.sessions {
        let owner = sessions.iter().find(|session| session.session == seen.session);
        match owner {
            None => verdict.reasons.push(format!("subscriber {index}: session {:#x} is no publisher's", seen.session)),
            Some(owner) if seen.publisher.is_some_and(|publisher| publisher != owner.index) => {
                let (session, found) = (seen.session, seen.publisher.unwrap_or_default());
                let text =
                    format!("session {session:#x} of publisher {} carried publisher {found}'s messages", owner.index);
                verdict.reasons.push(format!("subscriber {index}: {text}"));
            }
            Some(owner) if seen.messages < owner.planned && reader.summary.skipped > 0 => {}
            Some(owner) if seen.messages != owner.planned && !promise.interrupted && owner.error.is_none() => {
                let (found, planned) = (seen.messages, owner.planned);
                let text = format!("{found} messages of publisher {}, which sent {planned}", owner.index);
                verdict.reasons.push(format!("subscriber {index}: {text}"));
            }
            Some(_) => {}
        }
    }
}

/// Subscribers that read the same stretch of one topic read the same thing.
fn judge_agreement(promise: &Promise, readers: &[&Seen], verdict: &mut Verdict) {
    let mut firsts: HashMap<usize, &Seen> = HashMap::new();
    for &reader in readers.iter().filter(|reader| !promise.was_told(reader) && reader.summary.skipped == 0) {
        match firsts.get(&reader.topic) {
            Some(first) => judge_pair(promise, first, reader, verdict),
            None => drop(firsts.insert(reader.topic, reader)),
        }
    }
}

fn judge_pair(promise: &Promise, first: &Seen, other: &Seen, verdict: &mut Verdict) {
    let stretch = |reader: &Seen| (reader.summary.first_order, reader.summary.batches);
    if stretch(other) != stretch(first) {
        if promise.own_topic && !promise.interrupted {
            let text =
                format!("read {} batches, subscriber {} {}", other.summary.batches, first.index, first.summary.batches);
            verdict.reasons.push(format!("subscriber {}: {text}", other.index));
        } else {
            verdict.notes.push(format!("subscribers {} and {} read different stretches", first.index, other.index));
        }
    } else if other.summary.hash != first.summary.hash {
        let text = "the same messages came at other orders or from other sessions than at";
        verdict.reasons.push(format!("subscriber {}: {text} subscriber {}", other.index, first.index));
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
