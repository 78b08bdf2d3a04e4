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
