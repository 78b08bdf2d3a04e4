//! The last minutes of a pool, second by second: what pictures are drawn of.

use std::collections::VecDeque;

use serde::Serialize;

use crate::monitor::diagnosis::{Finding, diagnose, silent_brokers};
use crate::monitor::snapshot::{BrokerFacts, LaneFacts, SequencerFacts, Snapshot, moved};
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

/// What came between two snapshots. Of a role that began anew meanwhile: what came since.
pub fn second(before: &Snapshot, now: &Snapshot) -> Second {
    let elapsed = now.counted_seconds_since(before);
    let lanes = |of: fn(&LaneFacts) -> u64| {
        let one = |lane: &LaneFacts| moved(before.lane(lane.lane).map(of), of(lane));
        now.lanes.iter().map(one).sum::<u64>() as f64 / elapsed
    };
    let broker = |of: fn(&BrokerFacts) -> u64| {
        let one =
            move |broker: &BrokerFacts| moved(before.broker(broker.broker()).map(of), of(broker)) as f64 / elapsed;
        now.brokers.iter().map(one)
    };
    let sequencer = now.sequencer.as_ref();
    Second {
        at_ms: now.taken_at / 1_000_000,
        published_batches: lanes(|lane| lane.receive.published_batches),
        published_messages: lanes(|lane| lane.receive.published_messages),
        published_bytes: lanes(|lane| lane.receive.published_bytes),
        ordered_batches: sequencer.map_or(0, |sequencer| ordered(before.sequencer.as_ref(), sequencer)) as f64
            / elapsed,
        acked_messages: broker(|broker| broker.ack.acked_messages).collect(),
        delivered_messages: broker(|broker| broker.export.delivered_messages).sum(),
        delivered_bytes: broker(|broker| broker.export.delivered_bytes).sum(),
        waiting_slots: now.lanes.iter().map(|lane| lane.waiting).sum(),
        parked_batches: sequencer.map_or(0, |sequencer| sequencer.counters.held_batches),
        to_ack_us: middle_and_tail(&of_brokers(Some(before), now, |broker| &broker.to_ack)),
        to_delivery_us: middle_and_tail(&of_brokers(Some(before), now, |broker| &broker.to_delivery)),
    }
}

/// Batches that were ordered. Counters of two sequencers cannot be compared: the index can, where a few entries are no batches.
fn ordered(then: Option<&SequencerFacts>, now: &SequencerFacts) -> u64 {
    match then {
        Some(then) if (then.candidate, then.process) != (now.candidate, now.process) => {
            now.watermark.saturating_sub(then.watermark)
        }
        then => moved(then.map(|then| then.counters.appended_batches), now.counters.appended_batches),
    }
}

fn middle_and_tail(times: &Distribution) -> [f64; 2] {
    [0.5, 0.99].map(|part| times.quantile(part).map_or(0.0, |ns| ns as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log::View;
    use crate::log::appender::Appender;
    use crate::log::commit::CommitWriter;
    use crate::log::member::Member;
    use crate::monitor::diagnosis::Cause;
    use crate::monitor::diagnosis::tests::{formatted, times};
    use crate::pool::region::Create;
    use crate::pool::superblock::HomeHosts;
    use crate::pool::{Mapped, Pool, Process, Software};
    use crate::testing::memory::small_geometry;

    /// A pool with a sequencer, and two brokers with a lane each.
    fn looked_at(name: &str) -> Snapshot {
        let path = std::env::temp_dir().join(format!("embarcadero-history-{name}-{}", std::process::id()));
        let geometry = small_geometry(1);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::<Software>::new(pool.mapping().clone()), pool.layout().clone());
        let mut sequencer = CommitWriter::take(&view, 0);
        sequencer.claim(0, 1);
        sequencer.activate(0);
        for broker in 0..2 {
            drop(Member::announce(&view, broker, Process::this()));
            drop(Appender::take(&view, broker));
        }
        let now = Snapshot::take(&pool, false);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((now.brokers.len(), now.lanes.len()), (2, 2));
        now
    }

    #[test]
    fn one_that_began_anew_does_not_hide_what_others_did() {
        let mut before = looked_at("anew");
        let mut now = before.clone();
        now.moment += Duration::from_secs(2);
        // The first began anew; the second went on.
        for (of, counts) in [(&mut before, [1_000_000, 500]), (&mut now, [40, 700])] {
            for (place, count) in counts.into_iter().enumerate() {
                of.lanes[place].receive.published_batches = count;
                of.brokers[place].ack.acked_messages = count;
                of.brokers[place].export.delivered_messages = count;
            }
        }
        let found = second(&before, &now);
        assert_eq!((found.published_batches, found.delivered_messages), (120.0, 120.0));
        assert_eq!(found.acked_messages, [20.0, 100.0]);
    }

    #[test]
    fn over_a_takeover_the_index_tells_what_was_ordered() {
        let mut before = looked_at("takeover");
        let mut now = before.clone();
        now.moment += Duration::from_secs(1);
        let of = |snapshot: &mut Snapshot, process, watermark, appended| {
            let sequencer = snapshot.sequencer.as_mut().unwrap();
            (sequencer.process, sequencer.watermark) = (process, watermark);
            sequencer.counters.appended_batches = appended;
        };
        of(&mut before, 7, 5_000, 900);
        of(&mut now, 7, 5_100, 990);
        assert_eq!(second(&before, &now).ordered_batches, 90.0);
        of(&mut now, 8, 5_100, 30_000);
        assert_eq!(second(&before, &now).ordered_batches, 100.0);
    }

    const NS: u64 = 1_000_000_000;

    fn is_near(found: f64, expected: f64) -> bool {
        found >= expected && found <= expected * 17.0 / 16.0
    }

    #[test]
    fn what_happened_is_told_by_the_second() {
        let before = formatted();
        let mut now = before.clone();
        now.taken_at += 2 * NS;
        now.moment += Duration::from_secs(2);
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
            now.moment += Duration::from_secs(1);
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
