//! What can be looked at: brokers, threads, lanes, topics, sessions, slow batches, errors. Each is a table of what moved between two looks.

use std::collections::HashMap;

use clap::ValueEnum;
use embarcadero::monitor::diagnosis::{Life, address};
use embarcadero::monitor::snapshot::{
    self, BrokerFacts, LaneFacts, SessionBatches, SessionFacts, Snapshot, ThreadFacts, TopicFacts,
};
use embarcadero::observe::counters::ThreadCounters;
use embarcadero::observe::slowest::SlowBatch;
use embarcadero::utc::hour_of;

use super::Shown;
use super::grid::{Cell, Grid, amount, lasting, part, plain, text, time};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Brokers: state, rates, readers.
    Brokers,
    /// Threads: where their time went.
    Threads,
    /// Lanes: rings and memory.
    Lanes,
    /// Topics: what became of the batches.
    Topics,
    /// Sessions: how far each has come.
    Sessions,
    /// The slowest batches of the last minute.
    Slowest,
    /// Distinct warnings and errors.
    Errors,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [View; 7] =
        [View::Brokers, View::Threads, View::Lanes, View::Topics, View::Sessions, View::Slowest, View::Errors];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            View::Brokers => "brokers",
            View::Threads => "threads",
            View::Lanes => "lanes",
            View::Topics => "topics",
            View::Sessions => "sessions",
            View::Slowest => "slowest",
            View::Errors => "errors",
        }
    }

    /// The one behind it.
    pub fn next(self) -> View {
        View::ALL[(self as usize + 1) % View::ALL.len()]
    }

    /// Its table.
    pub(super) fn grid(self, shown: &Shown) -> Grid {
        match self {
            View::Brokers => brokers(shown),
            View::Threads => threads(shown),
            View::Lanes => lanes(shown),
            View::Topics => topics(shown),
            View::Sessions => sessions(shown),
            View::Slowest => slowest(shown),
            View::Errors => errors(shown),
        }
    }
}

/// How far a counter moved, a second.
fn rate<T>(shown: &Shown, then: Option<&T>, now: &T, of: impl Fn(&T) -> u64) -> Cell {
    amount(moved(then, now, of) as f64 / shown.counted_seconds())
}

fn moved<T>(then: Option<&T>, now: &T, of: impl Fn(&T) -> u64) -> u64 {
    snapshot::moved(then.map(&of), of(now))
}

fn broker_before(shown: &Shown, broker: u32) -> Option<&BrokerFacts> {
    shown.before.broker(broker)
}

fn brokers(shown: &Shown) -> Grid {
    let head = vec![
        "broker",
        "state",
        "address",
        "process",
        "publishers",
        "subscribers",
        "batches/s",
        "acked/s",
        "delivered/s",
        "MB/s out",
        "acked p99",
        "delivered p99",
        "lag",
        "waited for",
    ];
    let row = |broker: &BrokerFacts| {
        let then = broker_before(shown, broker.broker());
        let state = match shown.life_of(broker) {
            Life::Lives | Life::Unknown => broker.member.state,
            Life::StandsStill => "stands still",
            Life::Gone if broker.member.state == "stopped" => "stopped",
            Life::Gone => "gone",
        };
        let p99 = |now: fn(&BrokerFacts) -> &embarcadero::observe::histogram::Distribution| {
            let times = then.map_or_else(|| now(broker).clone(), |then| now(broker).since(now(then)));
            time(times.quantile(0.99).unwrap_or(0))
        };
        let waited = &broker.export;
        let waits = match waited.waited_ms {
            // For one that is gone nobody waits any more.
            ms if ms == 0 || shown.life_of(broker) == Life::Gone => String::new(),
            ms => format!("{}, {:.1} s", address(waited.waited_address), ms as f64 / 1e3),
        };
        vec![
            plain(broker.broker().into()),
            text(state).bad_if(!matches!(state, "serving" | "stopped")),
            text(broker.address.clone().unwrap_or_default()),
            plain(broker.member.process),
            plain(broker.ack.connections),
            plain(broker.export.connections),
            rate(shown, then, broker, |broker| broker.ack.acked_batches),
            rate(shown, then, broker, |broker| broker.ack.acked_messages),
            rate(shown, then, broker, |broker| broker.export.delivered_messages),
            amount(moved(then, broker, |broker| broker.export.delivered_bytes) as f64 / 1e6 / shown.counted_seconds()),
            p99(|broker| &broker.to_ack),
            p99(|broker| &broker.to_delivery),
            plain(shown.lag_of(broker)),
            text(waits.clone()).bad_if(!waits.is_empty()),
        ]
    };
    Grid { head, rows: shown.now.brokers.iter().map(row).collect() }
}

fn threads(shown: &Shown) -> Grid {
    let head = vec![
        "thread",
        "broker",
        "core",
        "rests",
        "working",
        "blocked",
        "on",
        "idle",
        "asleep",
        "keeping house",
        "no core",
        "longest pass",
        "passes/s",
        "receive",
        "sequence",
        "ack",
        "export",
    ];
    let mut rows = Vec::new();
    for broker in &shown.now.brokers {
        let then = broker_before(shown, broker.broker());
        for thread in &broker.threads {
            let then = then.and_then(|then| then.threads.iter().find(|then| then.name == thread.name));
            rows.push(thread_row(broker.broker(), thread, then));
        }
    }
    Grid { head, rows }
}

fn thread_row(broker: u32, thread: &ThreadFacts, then: Option<&ThreadFacts>) -> Vec<Cell> {
    let of = |of: fn(&ThreadCounters) -> u64| moved(then, thread, |thread| of(&thread.counters)) as f64;
    let blocked = [
        ("ring", of(|c| c.blocked_ring_ns)),
        ("memory", of(|c| c.blocked_memory_ns)),
        ("index", of(|c| c.blocked_index_ns)),
        ("peers", of(|c| c.blocked_peers_ns)),
    ];
    let waits: f64 = blocked.iter().map(|(_, ns)| ns).sum();
    let most = blocked.iter().max_by(|one, other| one.1.total_cmp(&other.1)).filter(|(_, ns)| *ns > 0.0);
    let (working, idle, asleep) = (of(|c| c.working_ns), of(|c| c.idle_ns), of(|c| c.asleep_ns));
    let house = of(|c| c.housekeeping_ns);
    let all = (working + waits + idle + asleep + house).max(1.0);
    let waited = of(|c| c.core_wait_ns) / all;
    let counters = &thread.counters;
    vec![
        text(thread.name.clone()),
        plain(broker.into()),
        text(counters.pinned_core.checked_sub(1).map_or("any".to_owned(), |core| core.to_string())),
        text(if counters.spins == 1 { "spins" } else { "parks" }),
        part(working / all),
        part(waits / all),
        text(most.map_or("", |(on, _)| on)),
        part(idle / all),
        part(asleep / all),
        part(house / all),
        part(waited).bad_if(waited > if counters.spins == 1 { 0.1 } else { 0.4 }),
        time(counters.longest_pass_ns).bad_if(counters.longest_pass_ns > 50_000_000),
        amount(of(|c| c.passes) / all * 1e9),
        part(of(|c| c.receive_ns) / all),
        part(of(|c| c.sequence_ns) / all),
        part(of(|c| c.ack_ns) / all),
        part(of(|c| c.export_ns) / all),
    ]
}

fn lanes(shown: &Shown) -> Grid {
    let head = vec![
        "lane",
        "member",
        "connections",
        "batches/s",
        "messages/s",
        "MB/s",
        "waiting",
        "parked",
        "ring full/s",
        "no memory/s",
        "extents",
        "farthest",
        "published p99",
    ];
    let row = |lane: &LaneFacts| {
        let then = shown.before.lane(lane.lane);
        let times = then.map_or_else(|| lane.publishing.clone(), |then| lane.publishing.since(&then.publishing));
        let full = rate(shown, then, lane, |lane| lane.receive.ring_full);
        let short = rate(shown, then, lane, |lane| lane.receive.extent_wait);
        let (is_full, is_short) = (full.value > Some(0.0), short.value > Some(0.0));
        vec![
            plain(lane.lane.into()),
            plain(lane.member.into()),
            plain(lane.receive.connections),
            rate(shown, then, lane, |lane| lane.receive.published_batches),
            rate(shown, then, lane, |lane| lane.receive.published_messages),
            amount(moved(then, lane, |lane| lane.receive.published_bytes) as f64 / 1e6 / shown.counted_seconds()),
            plain(lane.waiting),
            plain(lane.consumed.saturating_sub(lane.settled)),
            full.bad_if(is_full),
            short.bad_if(is_short),
            plain(lane.extents.into()),
            text(match lane.receive.farthest_us {
                0 => String::new(),
                us => format!("{} {}", lasting(us * 1000), address(lane.receive.farthest_address)),
            }),
            time(times.quantile(0.99).unwrap_or(0)),
        ]
    };
    Grid { head, rows: shown.now.lanes.iter().map(row).collect() }
}

fn topics(shown: &Shown) -> Grid {
    let head = vec![
        "topic",
        "order",
        "received/s",
        "ordered/s",
        "messages/s",
        "MB/s",
        "delivered/s",
        "subscribers",
        "behind",
        "received",
        "ordered",
        "duplicate",
        "refused",
        "parked",
        "kept from",
        "next order",
    ];
    // Each sequencer counts from when it became the active one.
    let epoch = |snapshot: &Snapshot| snapshot.sequencer.as_ref().map(|sequencer| sequencer.epoch);
    let is_same = epoch(&shown.before) == epoch(&shown.now);
    let before = shown.before.topics.iter().filter(|_| is_same);
    let then: HashMap<u64, &TopicFacts> = before.map(|topic| (topic.counters.created, topic)).collect();
    let row = |topic: &TopicFacts| {
        let then = then.get(&topic.counters.created).copied();
        vec![
            text(topic.name.clone()),
            plain(topic.order.into()),
            rate(shown, then, topic, |topic| topic.counters.received_batches),
            rate(shown, then, topic, |topic| topic.counters.ordered_batches),
            rate(shown, then, topic, |topic| topic.counters.ordered_messages),
            amount(moved(then, topic, |topic| topic.counters.ordered_bytes) as f64 / 1e6 / shown.counted_seconds()),
            rate(shown, then, topic, |topic| topic.delivered(|delivered| delivered.delivered_messages)),
            plain(topic.delivered(|delivered| delivered.subscribers)),
            topic.behind().map_or_else(|| text(""), plain),
            amount(topic.counters.received_batches as f64),
            amount(topic.counters.ordered_batches as f64),
            amount(topic.counters.duplicate_batches as f64),
            amount(topic.counters.refused_batches as f64),
            amount(topic.counters.parked_batches as f64).bad_if(topic.counters.parked_batches > 0),
            plain(topic.earliest_order),
            plain(topic.next_order),
        ]
    };
    Grid { head, rows: shown.now.topics.iter().map(row).collect() }
}

fn sessions(shown: &Shown) -> Grid {
    let head = vec![
        "session",
        "topic",
        "state",
        "epoch",
        "order",
        "batches/s",
        "received",
        "ordered",
        "duplicate",
        "refused",
        "parked",
        "next batch",
        "order end",
        "lane",
    ];
    let before: HashMap<u64, u64> =
        shown.before.sessions.iter().map(|session| (session.session, session.next_batch)).collect();
    let rows = shown.now.sessions.iter().map(|session| {
        let then = before.get(&session.session).copied().unwrap_or(session.next_batch);
        vec![
            Cell { text: format!("{:#x}", session.session), value: Some(session.session as f64), is_bad: false },
            text(shown.now.topic_name(session.topic.into()).unwrap_or("?")),
            text(if session.is_fenced { "fenced" } else { "open" }).bad_if(session.is_fenced),
            plain(session.session_epoch.into()),
            plain(session.order.into()),
            amount(session.next_batch.saturating_sub(then) as f64 / shown.seconds()),
            counted(session, |batches| batches.received),
            counted(session, |batches| batches.ordered),
            counted(session, |batches| batches.duplicate),
            counted(session, |batches| batches.refused),
            counted(session, |batches| batches.parked)
                .bad_if(session.batches.is_some_and(|batches| batches.parked > 0)),
            plain(session.next_batch),
            plain(session.order_end),
            plain(session.lane.into()),
        ]
    });
    Grid { head, rows: rows.collect() }
}

/// Of a session's batches, if they are counted yet.
fn counted(session: &SessionFacts, of: fn(&SessionBatches) -> u64) -> Cell {
    session.batches.as_ref().map_or_else(|| text("?"), |batches| amount(of(batches) as f64))
}

fn slowest(shown: &Shown) -> Grid {
    let head = vec![
        "until",
        "broker",
        "published",
        "session",
        "batch",
        "bytes",
        "position",
        "whole",
        "landing",
        "ordering",
        "committing",
        "ending",
        "topic",
    ];
    let row = |until: &str, broker: &BrokerFacts, batch: &SlowBatch| {
        vec![
            text(until),
            plain(broker.broker().into()),
            text(hour_of(batch.published_at)),
            Cell { text: format!("{:#x}", batch.session), value: Some(batch.session as f64), is_bad: false },
            plain(batch.batch_seq),
            amount(batch.bytes.into()),
            plain(batch.position),
            time(batch.whole_ns()),
            time(batch.landing_ns.into()),
            time(batch.ordering_ns.into()),
            time(batch.committing_ns.into()),
            time(batch.ending_ns.into()),
            text(shown.now.topic_name(batch.topic.into()).unwrap_or("?")),
        ]
    };
    let mut rows = Vec::new();
    for broker in &shown.now.brokers {
        rows.extend(broker.slowest_acked.iter().map(|batch| row("acked", broker, batch)));
        rows.extend(broker.slowest_delivered.iter().map(|batch| row("delivered", broker, batch)));
    }
    rows.sort_by(|one, other| other[7].value.unwrap_or(0.0).total_cmp(&one[7].value.unwrap_or(0.0)));
    Grid { head, rows }
}

fn errors(shown: &Shown) -> Grid {
    let head = vec!["level", "times", "first", "last", "broker", "text"];
    let mut rows = Vec::new();
    for broker in &shown.now.brokers {
        rows.extend(broker.errors.iter().map(|error| {
            vec![
                text(error.level.to_string()).bad_if(error.level == log::Level::Error),
                plain(error.count),
                text(hour_of(error.first_at)),
                text(hour_of(error.last_at)),
                plain(broker.broker().into()),
                text(error.text.clone()),
            ]
        }));
    }
    Grid { head, rows }
}
