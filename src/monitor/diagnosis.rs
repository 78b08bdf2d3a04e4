//! Who waits for whom: what two looks at a pool say about why it is as slow as it is, the worst first.
//!
//! Each finding names the metric that shows it, so that whoever reads a graph and whoever reads these words see the same. Where nothing waits
//! inside the brokers, that is said too: what is slow is then a client, or the way to it.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use crate::monitor::snapshot::{BrokerFacts, LaneFacts, MemberFacts, SequencerFacts, Snapshot, moved};
use crate::monitor::stages::of_brokers;
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

/// What can be wrong, or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A broker's process is there, and does nothing.
    StandsStill,
    /// A broker's process ended without a word.
    Gone,
    /// Nothing is ordered.
    SequencerSilent,
    /// The order index has no room.
    IndexFull,
    /// Another sequencer than before orders.
    Takeover,
    /// A session waits for a batch that is missing.
    Gap,
    /// Publishers wait for a subscriber.
    ReaderTooSlow,
    /// Subscribers get further behind.
    ReaderBehind,
    /// A lane waits for an extent.
    NoMemory,
    /// A lane's publishers wait for the sequencer.
    RingFull,
    /// A thread could run and has no core.
    CoreTaken,
    /// A thread did not come round.
    LongPass,
    /// Places of the pool are lost.
    MemoryFailed,
    /// A publisher's answers take long.
    FarClientPublishes,
    /// A subscriber's answers take long.
    FarClientSubscribes,
    /// Nobody waits inside.
    Outside,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 16] = [
        Cause::StandsStill,
        Cause::Gone,
        Cause::SequencerSilent,
        Cause::IndexFull,
        Cause::Takeover,
        Cause::Gap,
        Cause::ReaderTooSlow,
        Cause::ReaderBehind,
        Cause::NoMemory,
        Cause::RingFull,
        Cause::CoreTaken,
        Cause::LongPass,
        Cause::MemoryFailed,
        Cause::FarClientPublishes,
        Cause::FarClientSubscribes,
        Cause::Outside,
    ];

    /// It in a word or two, and the metric that shows it.
    fn name_and_metric(self) -> (&'static str, &'static str) {
        match self {
            Cause::StandsStill => ("broker stands still", "embarcadero_broker_heartbeats_total"),
            Cause::Gone => ("broker gone", "embarcadero_broker_up"),
            Cause::SequencerSilent => ("sequencer silent", "embarcadero_sequencer_heartbeats_total"),
            Cause::IndexFull => ("index full", "embarcadero_sequencer_index_full_total"),
            Cause::Takeover => ("takeover", "embarcadero_sequencer_epoch"),
            Cause::Gap => ("gap in a session", "embarcadero_sequencer_oldest_gap_seconds"),
            Cause::ReaderTooSlow => ("reader too slow", "embarcadero_export_waited_seconds"),
            Cause::ReaderBehind => ("reader behind", "embarcadero_broker_reader_lag_batches"),
            Cause::NoMemory => ("no memory", "embarcadero_receive_extent_wait_total"),
            Cause::RingFull => ("ring full", "embarcadero_receive_ring_full_total"),
            Cause::CoreTaken => ("core taken away", "embarcadero_thread_core_wait_seconds_total"),
            Cause::LongPass => ("long pass", "embarcadero_thread_longest_pass_seconds"),
            Cause::MemoryFailed => ("memory failed", "embarcadero_pool_failed_places"),
            Cause::FarClientPublishes => ("client far away", "embarcadero_receive_farthest_seconds"),
            Cause::FarClientSubscribes => ("client far away", "embarcadero_export_farthest_seconds"),
            Cause::Outside => ("outside", "embarcadero_batch_to_ack_seconds"),
        }
    }

    /// In a word or two.
    pub fn name(self) -> &'static str {
        self.name_and_metric().0
    }

    /// The metric that shows it.
    pub fn metric(self) -> &'static str {
        self.name_and_metric().1
    }
}

/// A member that has not beaten for so long stands still, or is gone: brokers that rest beat once a second at least.
const SILENCE_S: f64 = 1.5;
/// Two looks so far apart tell a silence from a rest.
pub const WATCHED_FOR: Duration = Duration::from_millis(1600);
const _: () = assert!(WATCHED_FOR.as_millis() as f64 > 1000.0 * SILENCE_S);
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
    let seconds = now.time_since(before).as_secs_f64();
    let mut look =
        Look { before, now, seconds, counted_seconds: now.counted_seconds_since(before), findings: Vec::new() };
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
    /// Between the two, and in which counters moved.
    seconds: f64,
    counted_seconds: f64,
    findings: Vec<Finding>,
}

impl Look<'_> {
    fn find(&mut self, weight: f64, cause: Cause, remedy: &'static str, words: String) {
        self.findings.push(Finding { weight, cause: cause.name(), words, remedy, metric: cause.metric() });
    }

    /// Whether what a member says of itself is of now: of one that is gone its last words stand there for ever.
    fn speaks(&self, member: u32) -> bool {
        let known = self.now.broker(member).and_then(|broker| life_between(self.before, self.now, broker));
        // Else it came meanwhile, or it is an attached process.
        known != Some(Life::Gone)
    }

    fn at_members(&mut self) {
        let (now, before) = (self.now, self.before);
        let in_state = |wanted: Life| -> Vec<&BrokerFacts> {
            let is_so = |broker: &&BrokerFacts| life_between(before, now, broker) == Some(wanted);
            now.brokers.iter().filter(is_so).collect()
        };
        let still = in_state(Life::StandsStill);
        let gone: Vec<_> = in_state(Life::Gone).into_iter().filter(|broker| broker.member.state != "stopped").collect();
        if let Some(first) = still.first() {
            let (one, more) = (first.broker(), and_others("broker", still.len()));
            let process = first.member.process;
            let words = format!("broker {one} stands still: process {process} has its lock and shows no life{more}");
            let remedy = "see whether it is stopped (SIGSTOP, a debugger) or its machine hangs; continue or kill it";
            self.find(1.0, Cause::StandsStill, remedy, words);
        }
        if let Some(first) = gone.first() {
            let (one, more) = (first.broker(), and_others("broker", gone.len()));
            let words = match first.member.is_here {
                true => format!("broker {one} is gone: it ended without a word{more}"),
                // Its lock can be asked for there only.
                false => format!(
                    "broker {one} of host {} shows no life: it is gone, or stands still, or its host is off{more}",
                    first.member.host
                ),
            };
            self.find(0.9, Cause::Gone, "start it again; see its log, or its errors here", words);
        }
    }

    fn at_sequencer(&mut self) {
        let Some(now) = &self.now.sequencer else { return };
        let then = self.before.sequencer.as_ref();
        let is_same = then.is_some_and(|then| !now.has_beaten_since(then));
        if is_same && self.seconds >= SILENCE_S {
            let state = match (now.is_here, now.is_locked) {
                (true, true) => "stands still: its process has its lock and shows no life".to_owned(),
                (true, false) => "is gone".to_owned(),
                (false, _) => format!("of host {} shows no life", now.host),
            };
            let words = format!(
                "the sequencer (candidate {}, process {}) {state}: nothing is ordered",
                now.candidate, now.process
            );
            let remedy = "another candidate takes over if there is one; else continue or start its process";
            self.find(1.0, Cause::SequencerSilent, remedy, words);
            // What else it said is over.
            return;
        }
        self.at_gaps(now);
        let full = moved(then.map(|then| then.counters.index_full), now.counters.index_full);
        if full > 0 {
            let words = format!(
                "the order index has no room: {:.0} passes a second stopped for that",
                full as f64 / self.counted_seconds
            );
            let remedy = "readers that are behind, or more geometry.segments and segment_entries";
            self.find(0.6, Cause::IndexFull, remedy, words);
        }
        let epochs = then.is_some_and(|then| then.epoch != now.epoch);
        if epochs {
            let SequencerFacts { candidate, process, epoch, .. } = now;
            let words =
                format!("candidate {candidate} (process {process}) took over as the sequencer of epoch {epoch}");
            self.find(0.5, Cause::Takeover, "see why the one before it was silent", words);
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
        self.find(0.7, Cause::Gap, remedy, words);
    }

    fn at_readers(&mut self) {
        let now = self.now;
        for broker in now.brokers.iter().filter(|broker| self.speaks(broker.broker())).collect::<Vec<_>>() {
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
                self.find(0.8, Cause::ReaderTooSlow, remedy, words);
            }
            self.at_lag(broker);
        }
    }

    /// Readers that get further behind, before anybody has to wait for them.
    fn at_lag(&mut self, broker: &BrokerFacts) {
        let (Some(now), Some(then)) = (&self.now.sequencer, &self.before.sequencer) else { return };
        let before = self.before.broker(broker.broker());
        let Some((pin, pin_before)) = broker.member.pin.zip(before.and_then(|before| before.member.pin)) else {
            return;
        };
        let (lag, lag_before) = (now.watermark.saturating_sub(pin), then.watermark.saturating_sub(pin_before));
        if lag > lag_before && lag > self.now.pool.index_entries / 8 && broker.export.waited_ms == 0 {
            let words = format!(
                "subscribers of broker {} get further behind: {lag} batches, {:.0} more each second",
                broker.broker(),
                (lag - lag_before) as f64 / self.seconds.max(1e-3)
            );
            let remedy = "subscribers take less than comes: faster ones, or more of them on topics of their own";
            self.find(0.3, Cause::ReaderBehind, remedy, words);
        }
    }

    fn at_lanes(&mut self) {
        let (now, before) = (self.now, self.before);
        let how_often = |of: fn(&LaneFacts) -> u64| {
            let moved = now.lanes.iter().map(|lane| {
                let then = before.lane(lane.lane);
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
        // What is in stock is anybody's who asks: it was not memory that was short, but the sequencer's time to grant it.
        let in_stock = self.now.sequencer.as_ref().map_or(0, |sequencer| sequencer.counters.stock_extents);
        let (why, remedy) = match in_stock {
            0 => (
                "no extent was free".to_owned(),
                "a larger pool, or readers that are not so far behind (see the floor)",
            ),
            _ => (
                format!("the sequencer, which has {in_stock} extents in stock, was late to grant one"),
                "a core of its own for the sequencer (threads.mode, threads.cores), or see what keeps its thread busy",
            ),
        };
        let words = format!(
            "lane {} waited for memory {:.0} times a second{}: {why}",
            lane.lane,
            times / self.counted_seconds,
            and_others("lane", lanes)
        );
        self.find(0.4, Cause::NoMemory, remedy, words);
    }

    fn ring_full(&mut self, lane: &LaneFacts, times: f64, lanes: usize) {
        let words = format!(
            "the ring of lane {} ({} slots) was full {:.0} times a second{}: publishers wait for the sequencer",
            lane.lane,
            self.now.pool.ring_slots,
            times / self.counted_seconds,
            and_others("lane", lanes)
        );
        let remedy = "more geometry.ring_slots (format anew), larger batches, or a core of its own for the sequencer";
        self.find(0.45, Cause::RingFull, remedy, words);
    }

    fn at_threads(&mut self) {
        let before = self.before;
        for broker in &self.now.brokers {
            let then = before.broker(broker.broker());
            for thread in &broker.threads {
                let then = then.and_then(|then| then.threads.iter().find(|then| then.name == thread.name));
                let Some(then) = then.filter(|then| then.counters.reported_at < thread.counters.reported_at) else {
                    continue;
                };
                let who = format!("thread {} of broker {}", thread.name, broker.broker());
                self.at_thread(&who, thread.name.starts_with("sequence"), &then.counters, &thread.counters);
            }
        }
    }

    fn at_thread(&mut self, who: &str, is_sequencer: bool, then: &ThreadCounters, now: &ThreadCounters) {
        let elapsed = (now.reported_at - then.reported_at) as f64;
        let waited = now.core_wait_ns.saturating_sub(then.core_wait_ns) as f64 / elapsed;
        // A thread that parks shares its core by design: it is told of only if it hardly gets one.
        let starved = if now.spins == 1 { STARVED } else { 4.0 * STARVED };
        if waited > starved {
            let core = if now.pinned_core > 0 { format!("core {}", now.pinned_core - 1) } else { "a core".to_owned() };
            let words = format!("{who} had no core for {:.0} % of the time: others use {core}", 100.0 * waited);
            let remedy =
                "keep others off its core (isolcpus, cpuset, IRQ affinity), or list other cores in threads.cores";
            let weight = if is_sequencer { 0.75 } else { 0.5 };
            self.find(weight, Cause::CoreTaken, remedy, words);
        } else if now.longest_pass_ns > LONG_PASS_NS {
            let words = format!("{who} did not come round for {} ms at a time", now.longest_pass_ns / 1_000_000);
            let remedy = "see what else ran on its core; `perf/record.sh` shows what it did itself";
            self.find(0.2, Cause::LongPass, remedy, words);
        }
    }

    fn at_memory(&mut self) {
        if !self.now.pool.failed_at.is_empty() {
            let words = format!("memory failed at {} places of the pool", self.now.pool.failed_at.len());
            self.find(0.65, Cause::MemoryFailed, "see OPERATING.md: replace the device", words);
        }
    }

    /// What is not to be found inside is outside.
    fn at_clients(&mut self) {
        let publishers = self.now.lanes.iter().filter(|lane| self.speaks(lane.member)).map(|lane| &lane.receive);
        let publishers = publishers.map(|of| (of.farthest_us, of.farthest_address, Cause::FarClientPublishes));
        let brokers = self.now.brokers.iter().filter(|broker| self.speaks(broker.broker()));
        let subscribers = brokers.map(|broker| &broker.export);
        let subscribers = subscribers.map(|of| (of.farthest_us, of.farthest_address, Cause::FarClientSubscribes));
        let farthest = publishers.chain(subscribers).max_by_key(|(us, ..)| *us);
        if let Some((us, at, cause)) = farthest.filter(|(us, ..)| *us > FAR_US) {
            let words = format!(
                "the client at {} is {:.1} ms away: each of its waits takes that long at least",
                address(at),
                us as f64 / 1e3
            );
            let remedy = "a nearer client, or a larger window (loadgen --window, PublisherOptions::window_batches)";
            self.find(0.25, cause, remedy, words);
        }
        if self.findings.iter().any(|finding| finding.weight > 0.2) {
            return;
        }
        let published = |lane: &LaneFacts| lane.receive.published_batches;
        let came = self.now.lanes.iter().map(|lane| moved(self.before.lane(lane.lane).map(published), published(lane)));
        let rate = came.sum::<u64>() as f64 / self.counted_seconds;
        let mut words = match rate > 0.0 {
            true => format!("nobody waits inside: {rate:.0} batches a second are taken as they come"),
            false => "nobody waits inside, and nothing comes".to_owned(),
        };
        let to_ack = of_brokers(Some(self.before), self.now, |broker| &broker.to_ack);
        if let Some(p99) = to_ack.quantile(0.99) {
            let _ = write!(words, "; from landed to acked 99 % take less than {:.0} us", p99 as f64 / 1e3);
        }
        let remedy = "what is slow is outside: a load generator behind its plan, a client, or the way to it";
        self.find(0.0, Cause::Outside, remedy, words);
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

/// How a broker of the later of two looks is; none: it was not there at the earlier one.
pub fn life_between(before: &Snapshot, now: &Snapshot, broker: &BrokerFacts) -> Option<Life> {
    let then = before.broker(broker.broker())?;
    Some(life(&then.member, &broker.member, now.time_since(before).as_secs_f64()))
}

/// The brokers that show no life between two looks: they stand still, or are gone.
pub fn silent_brokers(before: &Snapshot, now: &Snapshot) -> Vec<u32> {
    let is_silent =
        |broker: &&BrokerFacts| matches!(life_between(before, now, broker), Some(Life::StandsStill | Life::Gone));
    now.brokers.iter().filter(is_silent).map(BrokerFacts::broker).collect()
}

/// Of several it is the first or the worst that is told of.
fn and_others(what: &str, many: usize) -> String {
    match many {
        0 | 1 => String::new(),
        2 => format!(", and another {what}"),
        _ => format!(", and {} more {what}s", many - 1),
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::View;
    use crate::log::commit::CommitWriter;
    use crate::log::member::Member;
    use crate::monitor::snapshot::{LaneFacts, ThreadFacts};
    use crate::observe::counters::{ReceiveCounters, ThreadCounters};
    use crate::observe::histogram::{Distribution, Histogram};
    use crate::pool::process::boot_id;
    use crate::pool::region::Create;
    use crate::pool::superblock::HomeHosts;
    use crate::pool::{Mapped, Pool, Process, Software};
    use crate::testing::memory::{SharedMemory, Whim, small_geometry};

    /// Two looks at a pool with a sequencer, a broker that serves on a lane, and a thread; two seconds apart, in which all beat and nothing waits.
    struct Pair {
        before: Snapshot,
        now: Snapshot,
    }

    const NS: u64 = 1_000_000_000;
    const CLIENT: u64 = (0x7f00_0001 << 16) | 5678;

    impl Pair {
        fn quiet() -> Pair {
            let before = formatted();
            let mut now = before.clone();
            now.taken_at += 2 * NS;
            now.moment += Duration::from_secs(2);
            now.brokers[0].member.heartbeat += 20;
            now.brokers[0].threads[0].counters.reported_at += 2 * NS;
            now.sequencer.as_mut().unwrap().heartbeat += 20;
            Pair { before, now }
        }

        fn find(&self) -> Vec<Finding> {
            diagnose(&self.before, &self.now)
        }

        /// What is found first after such a change to the later look is this cause, and these are its words.
        fn shows(change: impl FnOnce(&mut Pair), cause: Cause, words: &str) {
            let mut pair = Pair::quiet();
            change(&mut pair);
            let found = pair.find();
            assert_eq!((found[0].cause, found[0].metric), (cause.name(), cause.metric()), "{found:#?}");
            assert!(found[0].words.contains(words), "{found:#?}");
            assert!(found.iter().filter(|finding| finding.weight > 0.0).count() == 1, "nothing else: {found:#?}");
        }
    }

    /// A value that was counted so many times.
    pub(crate) fn times(value: u64, times: u64) -> Distribution {
        let memory = SharedMemory::new(8 << 10, 1, Whim::NONE, 1).host(0);
        let mut histogram = Histogram::default();
        histogram.record(value, times);
        histogram.write(&memory, 0);
        Distribution::read(&memory, 0)
    }

    /// A look at a small pool that was just formatted, with those who are there filled in.
    pub(crate) fn formatted() -> Snapshot {
        static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let unique = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("embarcadero-diagnosis-{}-{unique}", std::process::id()));
        let geometry = small_geometry(1);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        let mut sequencer = CommitWriter::take(&view, 0);
        sequencer.claim(0, 1);
        sequencer.activate(0);
        drop(Member::announce(&view, 0, Process { id: 70, started_at_utc_ns: 1, boot_id: boot_id() }));
        let mut snapshot = Snapshot::take(&pool, false);
        std::fs::remove_file(&path).unwrap();
        let broker = &mut snapshot.brokers[0];
        (broker.member.state, broker.member.is_locked) = ("serving", true);
        let sequencer = snapshot.sequencer.as_mut().unwrap();
        (sequencer.is_here, sequencer.is_locked) = (true, true);
        let counters = ThreadCounters { reported_at: snapshot.taken_at, spins: 1, ..ThreadCounters::default() };
        broker.threads = vec![ThreadFacts { name: "sequence".to_owned(), counters }];
        snapshot.lanes = vec![LaneFacts {
            lane: 0,
            member: 0,
            broker: 0,
            receive: ReceiveCounters::default(),
            publishing: Distribution::default(),
            consumed: 0,
            settled: 0,
            waiting: 0,
            is_paused: false,
            extents: 1,
        }];
        snapshot
    }

    #[test]
    fn where_nothing_waits_it_is_said_to_be_outside_and_nothing_else() {
        let found = Pair::quiet().find();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!((found[0].cause, found[0].weight), (Cause::Outside.name(), 0.0));
        assert_eq!(found[0].words, "nobody waits inside, and nothing comes");
        let mut pair = Pair::quiet();
        pair.now.lanes[0].receive.published_batches = 500;
        let found = pair.find();
        assert!(found.len() == 1 && found[0].words.contains("250 batches a second"), "{found:#?}");
    }

    #[test]
    fn members_that_are_silent() {
        let silent = |pair: &mut Pair| pair.now.brokers[0].member.heartbeat = pair.before.brokers[0].member.heartbeat;
        Pair::shows(silent, Cause::StandsStill, "broker 0 stands still: process 70");
        let gone = |pair: &mut Pair| {
            silent(pair);
            pair.now.brokers[0].member.is_locked = false;
        };
        Pair::shows(gone, Cause::Gone, "broker 0 is gone");
        // One that said that it ends is not missed, nor is one that was not watched for long enough.
        let mut pair = Pair::quiet();
        gone(&mut pair);
        pair.now.brokers[0].member.state = "stopped";
        assert_eq!(pair.find()[0].cause, Cause::Outside.name());
        let mut pair = Pair::quiet();
        silent(&mut pair);
        pair.now.moment = pair.before.moment + Duration::from_secs(1);
        assert_eq!(pair.find()[0].cause, Cause::Outside.name());
        // Of a member of another host there is no lock to be seen: it is silent, so it is gone.
        let elsewhere = |pair: &mut Pair| {
            gone(pair);
            pair.now.brokers[0].member.is_here = false;
        };
        Pair::shows(elsewhere, Cause::Gone, "broker 0 of host 0 shows no life");
    }

    #[test]
    fn a_sequencer_that_is_silent_or_another() {
        let silent = |pair: &mut Pair| pair.now.sequencer.clone_from(&pair.before.sequencer);
        Pair::shows(silent, Cause::SequencerSilent, "(candidate 0, process 1) stands still");
        let gone = |pair: &mut Pair| {
            silent(pair);
            pair.now.sequencer.as_mut().unwrap().is_locked = false;
        };
        Pair::shows(gone, Cause::SequencerSilent, "(candidate 0, process 1) is gone");
        let elsewhere = |pair: &mut Pair| {
            gone(pair);
            let now = pair.now.sequencer.as_mut().unwrap();
            (now.is_here, now.host) = (false, 3);
        };
        Pair::shows(elsewhere, Cause::SequencerSilent, "(candidate 0, process 1) of host 3 shows no life");
        let another = |pair: &mut Pair| {
            let now = pair.now.sequencer.as_mut().unwrap();
            (now.candidate, now.epoch) = (1, now.epoch + 1);
        };
        Pair::shows(another, Cause::Takeover, "candidate 1 (process 1) took over as the sequencer of epoch 2");
    }

    #[test]
    fn what_the_sequencer_waits_for() {
        let full = |pair: &mut Pair| pair.now.sequencer.as_mut().unwrap().counters.index_full = 10;
        Pair::shows(full, Cause::IndexFull, "5 passes a second");
        let gap = |pair: &mut Pair| {
            let counters = &mut pair.now.sequencer.as_mut().unwrap().counters;
            (counters.gapped_sessions, counters.oldest_gap_ms, counters.held_batches) = (2, GAP_MS, 7);
            (counters.oldest_gap_session, counters.oldest_gap_batch) = (0xab, 41);
        };
        Pair::shows(gap, Cause::Gap, "session 0xab waits for its batch 41 since 100 ms; 2 sessions wait so");
    }

    #[test]
    fn readers_that_are_waited_for_and_readers_that_may_be() {
        let waited = |pair: &mut Pair| {
            let export = &mut pair.now.brokers[0].export;
            (export.waited_ms, export.waited_address, export.waited_topic) = (1200, CLIENT, 3);
        };
        Pair::shows(waited, Cause::ReaderTooSlow, "the subscriber at 127.0.0.1:5678 of topic 3, for 1.2 s");
        let behind = |pair: &mut Pair| {
            (pair.before.brokers[0].member.pin, pair.now.brokers[0].member.pin) = (Some(0), Some(100));
            let lag = pair.now.pool.index_entries / 8 + 2;
            pair.now.sequencer.as_mut().unwrap().watermark = 100 + lag;
        };
        Pair::shows(behind, Cause::ReaderBehind, "subscribers of broker 0 get further behind");
    }

    #[test]
    fn what_lanes_wait_for() {
        let full = |pair: &mut Pair| pair.now.lanes[0].receive.ring_full = 30;
        Pair::shows(full, Cause::RingFull, "full 15 times a second");
        let short = |pair: &mut Pair| pair.now.lanes[0].receive.extent_wait = 4;
        Pair::shows(short, Cause::NoMemory, "lane 0 waited for memory 2 times a second: no extent was free");
        let late = |pair: &mut Pair| {
            pair.now.lanes[0].receive.extent_wait = 4;
            pair.now.sequencer.as_mut().unwrap().counters.stock_extents = 152;
        };
        Pair::shows(late, Cause::NoMemory, "2 times a second: the sequencer, which has 152 extents in stock, was late");
        // What a process counted that is no more was not counted in these seconds.
        let anew = |pair: &mut Pair| {
            pair.before.lanes[0].receive.ring_full = 1000;
            pair.now.lanes[0].receive.ring_full = 2;
        };
        Pair::shows(anew, Cause::RingFull, "full 1 times a second");
    }

    #[test]
    fn threads_without_a_core_and_threads_that_do_not_come_round() {
        let taken = |pair: &mut Pair| {
            let counters = &mut pair.now.brokers[0].threads[0].counters;
            (counters.core_wait_ns, counters.pinned_core) = (NS / 2, 4);
        };
        Pair::shows(
            taken,
            Cause::CoreTaken,
            "thread sequence of broker 0 had no core for 25 % of the time: others use core 3",
        );
        // A thread that parks shares its core by design.
        let mut pair = Pair::quiet();
        taken(&mut pair);
        pair.now.brokers[0].threads[0].counters.spins = 0;
        assert_eq!(pair.find()[0].cause, Cause::Outside.name());
        let long = |pair: &mut Pair| pair.now.brokers[0].threads[0].counters.longest_pass_ns = LONG_PASS_NS + 1_000_000;
        let mut pair = Pair::quiet();
        long(&mut pair);
        let found = pair.find();
        assert_eq!(found[0].cause, Cause::LongPass.name(), "{found:#?}");
        assert!(found[0].words.contains("for 51 ms at a time"), "{found:#?}");
    }

    /// What stands in the pool of one that is gone was so when it ended, and is so no more.
    #[test]
    fn nothing_else_is_told_of_those_that_are_gone() {
        let mut pair = Pair::quiet();
        let broker = &mut pair.now.brokers[0];
        broker.member.heartbeat = pair.before.brokers[0].member.heartbeat;
        (broker.member.is_locked, broker.member.state) = (false, "stopped");
        (broker.export.waited_ms, broker.export.farthest_us) = (1200, 90_000);
        pair.now.lanes[0].receive.farthest_us = 40_000;
        let sequencer = &mut pair.now.sequencer;
        sequencer.clone_from(&pair.before.sequencer);
        let sequencer = sequencer.as_mut().unwrap();
        (sequencer.counters.gapped_sessions, sequencer.counters.oldest_gap_ms) = (1, 9_000);
        let causes: Vec<&str> = pair.find().iter().map(|finding| finding.cause).collect();
        assert_eq!(causes, [Cause::SequencerSilent.name()]);
    }

    #[test]
    fn a_clock_that_is_set_changes_no_rate() {
        let set_back = |pair: &mut Pair| {
            pair.now.taken_at = pair.before.taken_at - 3600 * NS;
            pair.now.lanes[0].receive.ring_full = 30;
        };
        Pair::shows(set_back, Cause::RingFull, "full 15 times a second");
    }

    /// Two looks may be closer than the reports between them.
    #[test]
    fn what_moved_between_two_looks_moved_in_a_second_at_least() {
        let close = |pair: &mut Pair| {
            pair.now.moment = pair.before.moment + Duration::from_millis(20);
            pair.now.lanes[0].receive.ring_full = 30;
        };
        Pair::shows(close, Cause::RingFull, "full 30 times a second");
    }

    #[test]
    fn memory_that_failed() {
        let failed = |pair: &mut Pair| pair.now.pool.failed_at = vec![1 << 20, 2 << 20];
        Pair::shows(failed, Cause::MemoryFailed, "memory failed at 2 places");
    }

    #[test]
    fn clients_that_are_far_away_are_shown_by_their_own_metric() {
        let publishes = |pair: &mut Pair| {
            let receive = &mut pair.now.lanes[0].receive;
            (receive.farthest_us, receive.farthest_address) = (40_000, CLIENT);
        };
        Pair::shows(publishes, Cause::FarClientPublishes, "the client at 127.0.0.1:5678 is 40.0 ms away");
        let subscribes = |pair: &mut Pair| {
            publishes(pair);
            let export = &mut pair.now.brokers[0].export;
            (export.farthest_us, export.farthest_address) = (50_000, 5678);
        };
        Pair::shows(subscribes, Cause::FarClientSubscribes, "the client at port 5678 (IPv6) is 50.0 ms away");
    }

    /// What is below its bound is not told of.
    #[test]
    fn what_is_little_is_not_worth_a_word() {
        let mut pair = Pair::quiet();
        pair.now.lanes[0].receive.farthest_us = FAR_US;
        let thread = &mut pair.now.brokers[0].threads[0].counters;
        (thread.longest_pass_ns, thread.core_wait_ns) = (LONG_PASS_NS, (2.0 * STARVED * NS as f64) as u64);
        let sequencer = pair.now.sequencer.as_mut().unwrap();
        (sequencer.counters.gapped_sessions, sequencer.counters.oldest_gap_ms) = (1, GAP_MS - 1);
        // A reader that is as far behind as it may be, and one that is further, but not further than before.
        let lag = pair.now.pool.index_entries / 8;
        for (pin_before, watermark) in [(0, lag), (lag, 2 * lag)] {
            pair.now.sequencer.as_mut().unwrap().watermark = watermark;
            (pair.before.brokers[0].member.pin, pair.now.brokers[0].member.pin) = (Some(pin_before), Some(0));
            pair.before.sequencer.as_mut().unwrap().watermark = pin_before + 2 * pin_before;
            let found = pair.find();
            assert!(found.len() == 1 && found[0].cause == Cause::Outside.name(), "{found:#?}");
        }
    }

    #[test]
    fn of_several_the_worst_is_told_of() {
        let mut pair = Pair::quiet();
        for snapshot in [&mut pair.before, &mut pair.now] {
            let mut other = snapshot.lanes[0].clone();
            other.lane = 1;
            snapshot.lanes.push(other);
        }
        let [one, other] = &mut pair.now.lanes[..] else { panic!("two lanes") };
        (one.receive.ring_full, other.receive.ring_full) = (10, 40);
        (one.receive.farthest_us, other.receive.farthest_us) = (FAR_US + 5000, FAR_US + 1);
        let found = pair.find();
        assert_eq!((found[0].cause, found[1].cause), (Cause::RingFull.name(), Cause::FarClientPublishes.name()));
        assert!(
            found[0].words.contains("lane 1 (64 slots) was full 20 times a second, and another lane"),
            "{found:#?}"
        );
        assert!(found[1].words.contains("7.0 ms away"), "{found:#?}");
    }

    #[test]
    fn how_long_acks_take_is_said_of_these_seconds() {
        let mut pair = Pair::quiet();
        pair.before.brokers[0].to_ack = times(9_000_000, 100);
        pair.now.brokers[0].to_ack = pair.before.brokers[0].to_ack.clone();
        pair.now.brokers[0].to_ack.add(&times(250_000, 100));
        let found = pair.find();
        assert!(found[0].words.ends_with("from landed to acked 99 % take less than 254 us"), "{found:#?}");
    }

    #[test]
    fn the_worst_is_first() {
        let mut pair = Pair::quiet();
        pair.now.brokers[0].member.heartbeat = pair.before.brokers[0].member.heartbeat;
        pair.now.lanes[0].receive.ring_full = 30;
        pair.now.pool.failed_at = vec![1 << 20];
        let causes: Vec<&str> = pair.find().iter().map(|finding| finding.cause).collect();
        assert_eq!(causes, [Cause::StandsStill, Cause::MemoryFailed, Cause::RingFull].map(Cause::name));
    }
}
