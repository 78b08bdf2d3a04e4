//! Who waits for whom: what two looks at a pool say about why it is as slow as it is, the worst first.
//!
//! Each finding names the metric that shows it, so that whoever reads a graph and whoever reads these words see the same. Where nothing waits
//! inside the brokers, that is said too: what is slow is then a client, or the way to it.

use std::fmt::Write;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::monitor::snapshot::{BrokerFacts, LaneFacts, MemberFacts, SequencerFacts, Snapshot};
use crate::observe::counters::ThreadCounters;

/// What is wrong, or slow, in a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is: 1 is that somebody stands still.
    pub weight: f64,
    /// Which kind it is, in a word or two.
    pub cause: &'static str,
    /// Who waits for whom, and for how long.
    pub words: String,
    /// What to do.
    pub remedy: &'static str,
    /// The metric that shows it.
    pub metric: &'static str,
}

/// A member that has not beaten for so long stands still, or is gone: brokers that rest beat once a second at least.
const SILENCE_S: f64 = 1.5;
/// A thread that could run and had no core for so large a part of the time is starved.
const STARVED: f64 = 0.1;
/// A pass that took longer is worth telling, ns.
const LONG_PASS_NS: u64 = 50_000_000;
/// A gap that has been open for longer is worth telling, ms.
const GAP_MS: u64 = 100;
/// A client whose answers take longer is far away, us.
const FAR_US: u64 = 2_000;

/// What came to pass between two looks, the worst first. Two looks less than a second apart say less: counters move once a second.
pub fn diagnose(before: &Snapshot, now: &Snapshot) -> Vec<Finding> {
    let seconds = now.taken_at.saturating_sub(before.taken_at) as f64 / 1e9;
    let mut look = Look { before, now, seconds: seconds.max(1e-3), findings: Vec::new() };
    look.at_members();
    look.at_sequencer();
    look.at_readers();
    look.at_lanes();
    look.at_threads();
    look.at_memory();
    look.at_clients();
    let mut findings = look.findings;
    findings.sort_by(|one, other| other.weight.total_cmp(&one.weight));
    findings
}

struct Look<'a> {
    before: &'a Snapshot,
    now: &'a Snapshot,
    seconds: f64,
    findings: Vec<Finding>,
}

impl Look<'_> {
    fn find(&mut self, weight: f64, cause: &'static str, metric: &'static str, remedy: &'static str, words: String) {
        self.findings.push(Finding { weight, cause, words, remedy, metric });
    }

    fn at_members(&mut self) {
        let (before, now) = (self.before, self.now);
        for broker in &now.brokers {
            let then = before.brokers.iter().find(|then| then.broker() == broker.broker());
            match then.map(|then| life(&then.member, &broker.member, self.seconds)) {
                Some(Life::StandsStill) => {
                    let words = format!(
                        "broker {} stands still: process {} has its lock and shows no life",
                        broker.broker(),
                        broker.member.process
                    );
                    let remedy =
                        "see whether it is stopped (SIGSTOP, a debugger) or its machine hangs; continue or kill it";
                    self.find(1.0, "broker stands still", "embarcadero_broker_up", remedy, words);
                }
                Some(Life::Gone) if broker.member.state != "stopped" => {
                    let words = format!("broker {} is gone: it ended without a word", broker.broker());
                    self.find(
                        0.9,
                        "broker gone",
                        "embarcadero_broker_up",
                        "start it again; see its log, or its errors here",
                        words,
                    );
                }
                _ => {}
            }
        }
    }

    fn at_sequencer(&mut self) {
        let Some(now) = &self.now.sequencer else { return };
        let then = self.before.sequencer.as_ref();
        let is_same = then.is_some_and(|then| (then.epoch, then.heartbeat) == (now.epoch, now.heartbeat));
        if is_same && self.seconds >= SILENCE_S {
            let state =
                if now.is_locked { "stands still: its process has its lock and shows no life" } else { "is gone" };
            let words = format!("the sequencer (candidate {}) {state}: nothing is ordered", now.candidate);
            let remedy = "another candidate takes over if there is one; else continue or start its process";
            self.find(1.0, "sequencer silent", "embarcadero_sequencer_up", remedy, words);
        }
        self.at_gaps(now);
        let full = moved(then.map(|then| then.counters.index_full), now.counters.index_full);
        if full > 0 {
            let words = format!(
                "the order index has no room: {:.0} passes a second stopped for that",
                full as f64 / self.seconds
            );
            let remedy = "readers that are behind, or more geometry.segments and segment_entries";
            self.find(0.6, "index full", "embarcadero_sequencer_index_full_total", remedy, words);
        }
        let epochs = then.is_some_and(|then| then.epoch != now.epoch);
        if epochs {
            let words = format!("candidate {} took over as the sequencer of epoch {}", now.candidate, now.epoch);
            self.find(0.5, "takeover", "embarcadero_sequencer_epoch", "see why the one before it was silent", words);
        }
    }

    fn at_gaps(&mut self, now: &SequencerFacts) {
        let counters = &now.counters;
        if counters.gapped_sessions == 0 || counters.oldest_gap_ms < GAP_MS {
            return;
        }
        let words = format!(
            "session {:#x} waits for its batch {} since {} ms; {} sessions wait so, with {} batches parked",
            counters.oldest_gap_session,
            counters.oldest_gap_batch,
            counters.oldest_gap_ms,
            counters.gapped_sessions,
            counters.held_batches
        );
        let remedy = "its publisher lost a connection or stands still in the middle of a batch: it is fenced after sequencer.session_lease";
        self.find(0.7, "gap in a session", "embarcadero_sequencer_oldest_gap_seconds", remedy, words);
    }

    fn at_readers(&mut self) {
        let now = self.now;
        for broker in &now.brokers {
            let export = &broker.export;
            if export.waited_ms > 0 {
                let words = format!(
                    "publishers wait for the subscriber at {} of {}, for {:.1} s by now (broker {})",
                    address(export.waited_address),
                    topic(now, export.waited_topic),
                    export.waited_ms as f64 / 1e3,
                    broker.broker()
                );
                let remedy =
                    "a faster subscriber, more retention (a larger pool), or export.slow_reader: skip or disconnect";
                self.find(0.8, "reader too slow", "embarcadero_export_waited_seconds", remedy, words);
            }
            self.at_lag(broker);
        }
    }

    /// Readers that get further behind, before anybody has to wait for them.
    fn at_lag(&mut self, broker: &BrokerFacts) {
        let (Some(now), Some(then)) = (&self.now.sequencer, &self.before.sequencer) else { return };
        let before = self.before.brokers.iter().find(|then| then.broker() == broker.broker());
        let Some((pin, pin_before)) = broker.member.pin.zip(before.and_then(|before| before.member.pin)) else {
            return;
        };
        let (lag, lag_before) = (now.watermark.saturating_sub(pin), then.watermark.saturating_sub(pin_before));
        if lag > lag_before && lag > self.now.pool.index_entries / 8 && broker.export.waited_ms == 0 {
            let words = format!(
                "subscribers of broker {} get further behind: {lag} batches, {:.0} more each second",
                broker.broker(),
                (lag - lag_before) as f64 / self.seconds
            );
            let remedy = "subscribers take less than comes: faster ones, or more of them on topics of their own";
            self.find(0.3, "reader behind", "embarcadero_broker_reader_lag_batches", remedy, words);
        }
    }

    fn at_lanes(&mut self) {
        let (now, before) = (self.now, self.before);
        let how_often = |of: fn(&LaneFacts) -> u64| {
            let moved = now.lanes.iter().map(|lane| {
                let then = before.lanes.iter().find(|then| then.lane == lane.lane);
                (moved(then.map(of), of(lane)), lane)
            });
            let moved: Vec<_> = moved.filter(|(times, _)| *times > 0).collect();
            let worst = moved.iter().max_by_key(|(times, _)| *times).copied();
            worst.map(|(times, lane)| (times as f64, lane, moved.len()))
        };
        if let Some((times, lane, lanes)) = how_often(|lane| lane.receive.ring_full) {
            self.ring_full(lane, times, lanes);
        }
        if let Some((times, lane, lanes)) = how_often(|lane| lane.receive.extent_wait) {
            self.no_memory(lane, times, lanes);
        }
    }

    fn no_memory(&mut self, lane: &LaneFacts, times: f64, lanes: usize) {
        let words = format!(
            "lane {} waited for memory {:.0} times a second{}: no extent was free",
            lane.lane,
            times / self.seconds,
            and_others(lanes)
        );
        let remedy = "a larger pool, or readers that are not so far behind (see the floor)";
        self.find(0.4, "no memory", "embarcadero_receive_extent_wait_total", remedy, words);
    }

    fn ring_full(&mut self, lane: &LaneFacts, times: f64, lanes: usize) {
        let words = format!(
            "the ring of lane {} ({} slots) was full {:.0} times a second{}: its publishers wait for the sequencer",
            lane.lane,
            self.now.pool.ring_slots,
            times / self.seconds,
            and_others(lanes)
        );
        let remedy = "more geometry.ring_slots (format anew), larger batches, or a core of its own for the sequencer";
        self.find(0.45, "ring full", "embarcadero_receive_ring_full_total", remedy, words);
    }

    fn at_threads(&mut self) {
        let before = self.before;
        for broker in &self.now.brokers {
            let then = before.brokers.iter().find(|then| then.broker() == broker.broker());
            for thread in &broker.threads {
                let then = then.and_then(|then| then.threads.iter().find(|then| then.name == thread.name));
                let Some(then) = then.filter(|then| then.counters.reported_at < thread.counters.reported_at) else {
                    continue;
                };
                self.at_thread(&thread.name, &then.counters, &thread.counters);
            }
        }
    }

    fn at_thread(&mut self, name: &str, then: &ThreadCounters, now: &ThreadCounters) {
        let elapsed = (now.reported_at - then.reported_at) as f64;
        let waited = now.core_wait_ns.saturating_sub(then.core_wait_ns) as f64 / elapsed;
        // A thread that parks shares its core by design: it is told of only if it hardly gets one.
        let starved = if now.spins == 1 { STARVED } else { 4.0 * STARVED };
        if waited > starved {
            let core = if now.pinned_core > 0 { format!("core {}", now.pinned_core - 1) } else { "a core".to_owned() };
            let words = format!("thread {name} had no core for {:.0} % of the time: others use {core}", 100.0 * waited);
            let remedy =
                "keep others off its core (isolcpus, cpuset, IRQ affinity), or list other cores in threads.cores";
            let weight = if name.starts_with("sequence") { 0.75 } else { 0.5 };
            self.find(weight, "core taken away", "embarcadero_thread_core_wait_seconds_total", remedy, words);
        } else if now.longest_pass_ns > LONG_PASS_NS {
            let words =
                format!("thread {name} did not come round for {} ms at a time", now.longest_pass_ns / 1_000_000);
            let remedy = "see what else ran on its core; `perf/record.sh` shows what it did itself";
            self.find(0.2, "long pass", "embarcadero_thread_longest_pass_seconds", remedy, words);
        }
    }

    fn at_memory(&mut self) {
        if !self.now.pool.failed_at.is_empty() {
            let words = format!("memory failed at {} places of the pool", self.now.pool.failed_at.len());
            self.find(
                0.65,
                "memory failed",
                "embarcadero_pool_failed_places",
                "see OPERATING.md: replace the device",
                words,
            );
        }
    }

    /// What is not to be found inside is outside.
    fn at_clients(&mut self) {
        let farthest = self.now.lanes.iter().map(|lane| (lane.receive.farthest_us, lane.receive.farthest_address));
        let farthest = farthest
            .chain(self.now.brokers.iter().map(|broker| (broker.export.farthest_us, broker.export.farthest_address)));
        if let Some((us, at)) = farthest.max().filter(|(us, _)| *us > FAR_US) {
            let words = format!(
                "the client at {} is {:.1} ms away: each of its waits takes that long at least",
                address(at),
                us as f64 / 1e3
            );
            let remedy = "a nearer client, or a larger window (--inflight, PublisherOptions::window_batches)";
            self.find(0.25, "client far away", "embarcadero_receive_farthest_seconds", remedy, words);
        }
        if self.findings.iter().any(|finding| finding.weight > 0.2) {
            return;
        }
        let published =
            |snapshot: &Snapshot| snapshot.lanes.iter().map(|lane| lane.receive.published_batches).sum::<u64>();
        let rate = published(self.now).saturating_sub(published(self.before)) as f64 / self.seconds;
        let mut words = match rate > 0.0 {
            true => format!("nobody waits inside: {rate:.0} batches a second are taken as they come"),
            false => "nobody waits inside, and nothing comes".to_owned(),
        };
        if let Some(p99) = self.acked_within() {
            let _ = write!(words, "; from landed to acked 99 % take less than {:.0} us", p99 as f64 / 1e3);
        }
        let remedy = "what is slow is outside: a load generator behind its plan, a client, or the way to it";
        self.find(0.0, "outside", "embarcadero_batch_to_ack_seconds", remedy, words);
    }

    fn acked_within(&self) -> Option<u64> {
        let mut all = crate::observe::histogram::Distribution::default();
        for broker in &self.now.brokers {
            match self.before.brokers.iter().find(|then| then.broker() == broker.broker()) {
                Some(then) => all.add(&broker.to_ack.since(&then.to_ack)),
                None => all.add(&broker.to_ack),
            }
        }
        all.quantile(0.99)
    }
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It beats.
    Lives,
    /// Its process is there, and does nothing.
    StandsStill,
    /// There is no such process any more.
    Gone,
    /// It was not watched for long enough.
    Unknown,
}

/// How a member is by two looks that are so far apart, seconds.
pub fn life(then: &MemberFacts, now: &MemberFacts, seconds: f64) -> Life {
    let beats = (then.incarnation, then.heartbeat) != (now.incarnation, now.heartbeat);
    match (beats, now.is_locked) {
        (true, _) => Life::Lives,
        (false, false) if now.is_here => Life::Gone,
        (false, _) if seconds < SILENCE_S => Life::Unknown,
        (false, true) => Life::StandsStill,
        (false, false) => Life::Gone,
    }
}

fn and_others(lanes: usize) -> String {
    if lanes > 1 { format!(", and {} more lanes", lanes - 1) } else { String::new() }
}

/// How far a counter moved; of a process that began anew, from 0 on.
fn moved(then: Option<u64>, now: u64) -> u64 {
    match then {
        Some(then) if then <= now => now - then,
        _ => now,
    }
}

/// A client's address out of a counter's word.
pub fn address(word: u64) -> String {
    let (ip, port) = ((word >> 16) as u32, word as u16);
    // An address of IPv6 does not fit beside its port.
    if ip == 0 { format!("port {port} (IPv6)") } else { format!("{}:{port}", Ipv4Addr::from_bits(ip)) }
}

/// A topic by its name, if it is known.
fn topic(snapshot: &Snapshot, id: u64) -> String {
    snapshot.topic_name(id).map_or_else(|| format!("topic {id}"), |name| format!("topic {name:?}"))
}
