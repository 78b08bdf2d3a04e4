//! How long batches took from stage to stage, all lanes and brokers together: ever, or between two looks.

use crate::monitor::snapshot::{BrokerFacts, SequencerFacts, Snapshot};
use crate::observe::histogram::Distribution;

/// The stages of a batch's way in their order, and the whole of it to an ack and to a delivery: each by its name.
pub fn stages(before: Option<&Snapshot>, now: &Snapshot) -> [(&'static str, Distribution); 7] {
    let ordered = |of: fn(&SequencerFacts) -> &Distribution| of_sequencer(before, now, of);
    let ended = |of: fn(&BrokerFacts) -> &Distribution| of_brokers(before, now, of);
    [
        ("landed to published", of_lanes(before, now)),
        ("published to ordered", ordered(|sequencer| &sequencer.ordering)),
        ("ordered to committed", ordered(|sequencer| &sequencer.committing)),
        ("committed to acked", ended(|broker| &broker.acking)),
        ("committed to delivered", ended(|broker| &broker.delivering)),
        ("landed to acked", ended(|broker| &broker.to_ack)),
        ("landed to delivered", ended(|broker| &broker.to_delivery)),
    ]
}

/// Times of all brokers.
pub fn of_brokers(
    before: Option<&Snapshot>,
    now: &Snapshot,
    of: impl Fn(&BrokerFacts) -> &Distribution,
) -> Distribution {
    let then = |broker: &BrokerFacts| before.and_then(|before| before.broker(broker.broker()));
    sum(now.brokers.iter().map(|broker| (then(broker).map(&of), of(broker))))
}

fn of_lanes(before: Option<&Snapshot>, now: &Snapshot) -> Distribution {
    sum(now.lanes.iter().map(|lane| {
        let then = before.and_then(|before| before.lane(lane.lane));
        (then.map(|then| &then.publishing), &lane.publishing)
    }))
}

fn of_sequencer(before: Option<&Snapshot>, now: &Snapshot, of: fn(&SequencerFacts) -> &Distribution) -> Distribution {
    let Some(sequencer) = &now.sequencer else { return Distribution::default() };
    match before.and_then(|before| before.sequencer.as_ref()) {
        // Each counts in a place of its own, from when it took over.
        Some(then) if then.candidate == sequencer.candidate => of(sequencer).since(of(then)),
        _ => of(sequencer).clone(),
    }
}

/// Of each what came since its earlier look, if there was one.
fn sum<'a>(times: impl Iterator<Item = (Option<&'a Distribution>, &'a Distribution)>) -> Distribution {
    let mut all = Distribution::default();
    for (then, now) in times {
        match then {
            Some(then) => all.add(&now.since(then)),
            None => all.add(now),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::diagnosis::tests::{formatted, times};

    /// What was counted so many times is so long each.
    const NS: u64 = 1000;

    fn with_times() -> Snapshot {
        let mut snapshot = formatted();
        snapshot.lanes[0].publishing = times(NS, 1);
        let sequencer = snapshot.sequencer.as_mut().unwrap();
        (sequencer.ordering, sequencer.committing) = (times(NS, 2), times(NS, 3));
        let broker = &mut snapshot.brokers[0];
        (broker.acking, broker.delivering) = (times(NS, 4), times(NS, 5));
        (broker.to_ack, broker.to_delivery) = (times(NS, 6), times(NS, 7));
        snapshot
    }

    #[test]
    fn each_stage_has_its_name_and_its_times() {
        let now = with_times();
        let found = stages(None, &now).map(|(name, times)| (name, times.count()));
        let expected = [
            ("landed to published", 1),
            ("published to ordered", 2),
            ("ordered to committed", 3),
            ("committed to acked", 4),
            ("committed to delivered", 5),
            ("landed to acked", 6),
            ("landed to delivered", 7),
        ];
        assert_eq!(found, expected);
        let found = stages(Some(&now), &now).map(|(_, times)| times.count());
        assert_eq!(found, [0; 7], "nothing came since");
        let mut later = now.clone();
        later.brokers.push(later.brokers[0].clone());
        later.brokers[1].member.member = 1;
        let all: Vec<u64> = stages(Some(&now), &later).into_iter().map(|(_, times)| times.count()).collect();
        assert_eq!(all, [0, 0, 0, 4, 5, 6, 7], "of a broker that was not there before, all of it");
    }

    #[test]
    fn another_sequencers_times_are_all_of_since_it_took_over() {
        let before = with_times();
        let mut now = before.clone();
        let sequencer = now.sequencer.as_mut().unwrap();
        (sequencer.epoch, sequencer.candidate) = (sequencer.epoch + 1, 1);
        sequencer.ordering = times(NS, 90);
        assert_eq!(stages(Some(&before), &now)[1].1.count(), 90);
    }
}
