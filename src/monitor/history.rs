//! The last minutes of a pool, second by second: what pictures are drawn of.

use std::collections::VecDeque;

use serde::Serialize;

use crate::monitor::diagnosis::{Finding, diagnose};
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
    // Of another sequencer it is not known when it counted what it counted.
    let then = before.sequencer.as_ref().filter(|then| sequencer.is_some_and(|now| now.epoch == then.epoch));
    let ordered = then
        .zip(sequencer)
        .map_or(0, |(then, now)| now.counters.appended_batches.saturating_sub(then.counters.appended_batches));
    Second {
        at_ms: now.taken_at / 1_000_000,
        published_batches: lanes(|lane| lane.receive.published_batches),
        published_messages: lanes(|lane| lane.receive.published_messages),
        published_bytes: lanes(|lane| lane.receive.published_bytes),
        ordered_batches: ordered as f64 / elapsed,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::diagnosis::Cause;
    use crate::monitor::diagnosis::tests::{formatted, times};

    const NS: u64 = 1_000_000_000;

    fn is_near(found: f64, expected: f64) -> bool {
        found >= expected && found <= expected * 17.0 / 16.0
    }

    #[test]
    fn what_happened_is_told_by_the_second() {
        let before = formatted();
        let mut now = before.clone();
        now.taken_at += 2 * NS;
        let lane = &mut now.lanes[0];
        lane.waiting = 3;
        (lane.receive.published_batches, lane.receive.published_messages) = (10, 200);
        lane.receive.published_bytes = 3000;
        let sequencer = now.sequencer.as_mut().unwrap();
        (sequencer.counters.appended_batches, sequencer.counters.held_batches) = (8, 5);
        let broker = &mut now.brokers[0];
        broker.ack.acked_messages = 160;
        (broker.export.delivered_messages, broker.export.delivered_bytes) = (140, 2400);
        broker.to_ack = times(50_000, 99);
        broker.to_ack.add(&times(8_000_000, 2));
        broker.to_delivery = times(700_000, 1);
        let found = second(&before, &now);
        assert_eq!(found.at_ms, now.taken_at / 1_000_000);
        assert_eq!((found.published_batches, found.published_messages, found.published_bytes), (5.0, 100.0, 1500.0));
        assert_eq!((found.ordered_batches, found.acked_messages.clone()), (4.0, vec![80.0]));
        assert_eq!((found.delivered_messages, found.delivered_bytes), (70.0, 1200.0));
        assert_eq!((found.waiting_slots, found.parked_batches), (3, 5));
        assert!(is_near(found.to_ack_us[0], 50.0) && is_near(found.to_ack_us[1], 8000.0), "{found:?}");
        assert!(is_near(found.to_delivery_us[0], 700.0), "{found:?}");
        assert_eq!(second(&now, &now).to_ack_us, [0.0, 0.0], "of these seconds alone");
        let sequencer = now.sequencer.as_mut().unwrap();
        (sequencer.epoch, sequencer.candidate) = (sequencer.epoch + 1, 1);
        assert_eq!(second(&before, &now).ordered_batches, 0.0, "another's count says nothing about this second");
    }

    /// A silence is told from looks that are two seconds apart, since a broker that rests beats once in one.
    #[test]
    fn looks_are_compared_over_two_seconds_and_kept_for_five_minutes() {
        let mut history = History::default();
        let mut now = formatted();
        assert!(history.before().is_none() && history.findings().is_empty());
        for pushed in 0..KEPT as u64 + 10 {
            now.taken_at += NS;
            history.push(now.clone());
            let (newest, oldest) = (history.now().unwrap(), history.before());
            assert_eq!(newest.taken_at, now.taken_at);
            let apart = oldest.map_or(0, |oldest| (newest.taken_at - oldest.taken_at) / NS);
            assert_eq!(apart, pushed.min(2));
            assert_eq!(history.seconds().len(), (pushed as usize).min(KEPT));
        }
        assert_eq!(history.seconds().back().unwrap().at_ms, now.taken_at / 1_000_000);
        let causes: Vec<&str> = history.findings().iter().map(|finding| finding.cause).collect();
        assert!(causes.contains(&Cause::StandsStill.name()), "{causes:?}");
    }
}
