//! The last minutes of a pool, second by second: what pictures are drawn of.

use std::collections::VecDeque;

use serde::Serialize;

use crate::monitor::diagnosis::{Finding, diagnose, silent_brokers};
use crate::monitor::snapshot::Snapshot;
use crate::monitor::stages::of_brokers;
use crate::observe::histogram::Distribution;

/// Seconds that are kept.
const KEPT: usize = 300;

/// What happened in a second.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// When it ended, UTC ms.
    pub at_ms: u64,
    /// Batches published to lanes, a second.
    pub published_batches: f64,
    /// Messages of them.
    pub published_messages: f64,
    /// Bytes of them.
    pub published_bytes: f64,
    /// Batches that got their place in the order, a second.
    pub ordered_batches: f64,
    /// Messages acked, a second, of each broker.
    pub acked_messages: Vec<f64>,
    /// Messages delivered, a second.
    pub delivered_messages: f64,
    /// Bytes delivered, a second.
    pub delivered_bytes: f64,
    /// Slots that waited for the sequencer at its end.
    pub waiting_slots: u64,
    /// Batches parked behind gaps at its end.
    pub parked_batches: u64,
    /// From landed to acked: the middle, and 99 in 100, us.
    pub to_ack_us: [f64; 2],
    /// From landed to delivered.
    pub to_delivery_us: [f64; 2],
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct History {
    seconds: VecDeque<Second>,
    /// The last snapshots, the newest first: a silence is told from two that are some seconds apart.
    snapshots: VecDeque<Snapshot>,
}

/// Snapshots that are kept to compare the newest with.
const COMPARED: usize = 3;

impl History {
    /// Takes another snapshot up, about a second after the last.
    pub fn push(&mut self, now: Snapshot) {
        if let Some(before) = self.snapshots.front() {
            if self.seconds.len() == KEPT {
                self.seconds.pop_front();
            }
            self.seconds.push_back(second(before, &now));
        }
        self.snapshots.truncate(COMPARED - 1);
        self.snapshots.push_front(now);
    }

    /// The newest snapshot.
    pub fn now(&self) -> Option<&Snapshot> {
        self.snapshots.front()
    }

    /// The one before, or the oldest that is kept.
    pub fn before(&self) -> Option<&Snapshot> {
        self.snapshots.back().filter(|_| self.snapshots.len() > 1)
    }

    /// What the last seconds say about who waits for whom.
    pub fn findings(&self) -> Vec<Finding> {
        self.now().zip(self.before()).map(|(now, before)| diagnose(before, now)).unwrap_or_default()
    }

    /// The brokers that showed no life in the last seconds.
    pub fn silent_brokers(&self) -> Vec<u32> {
        self.now().zip(self.before()).map(|(now, before)| silent_brokers(before, now)).unwrap_or_default()
    }

    /// Second by second.
    pub fn seconds(&self) -> &VecDeque<Second> {
        &self.seconds
    }
}

/// What came between two snapshots.
pub fn second(before: &Snapshot, now: &Snapshot) -> Second {
    let elapsed = (now.taken_at.saturating_sub(before.taken_at) as f64 / 1e9).max(1e-3);
    let rate = |of: &dyn Fn(&Snapshot) -> u64| of(now).saturating_sub(of(before)) as f64 / elapsed;
    let lanes = |of: fn(&crate::monitor::snapshot::LaneFacts) -> u64| {
        rate(&move |snapshot| snapshot.lanes.iter().map(of).sum::<u64>())
    };
    let exports = |of: fn(&crate::observe::counters::ExportCounters) -> u64| {
        rate(&move |snapshot| snapshot.brokers.iter().map(|broker| of(&broker.export)).sum::<u64>())
    };
    let acked = |broker: &crate::monitor::snapshot::BrokerFacts| {
        let then = before.broker(broker.broker());
        let then = then.map_or(0, |then| then.ack.acked_messages);
        broker.ack.acked_messages.saturating_sub(then) as f64 / elapsed
    };
    let sequencer = now.sequencer.as_ref();
    Second {
        at_ms: now.taken_at / 1_000_000,
        published_batches: lanes(|lane| lane.receive.published_batches),
        published_messages: lanes(|lane| lane.receive.published_messages),
        published_bytes: lanes(|lane| lane.receive.published_bytes),
        ordered_batches: rate(&|snapshot| snapshot.sequencer.as_ref().map_or(0, |one| one.counters.appended_batches)),
        acked_messages: now.brokers.iter().map(acked).collect(),
        delivered_messages: exports(|export| export.delivered_messages),
        delivered_bytes: exports(|export| export.delivered_bytes),
        waiting_slots: now.lanes.iter().map(|lane| lane.waiting).sum(),
        parked_batches: sequencer.map_or(0, |sequencer| sequencer.counters.held_batches),
        to_ack_us: middle_and_tail(&of_brokers(Some(before), now, |broker| &broker.to_ack)),
        to_delivery_us: middle_and_tail(&of_brokers(Some(before), now, |broker| &broker.to_delivery)),
    }
}

fn middle_and_tail(times: &Distribution) -> [f64; 2] {
    [0.5, 0.99].map(|part| times.quantile(part).map_or(0.0, |ns| ns as f64 / 1e3))
}
