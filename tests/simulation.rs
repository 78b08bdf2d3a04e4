//! The whole cluster on simulated incoherent memory, from seeds. More of them: `make simulate SEEDS=10000`.

use embarcadero::sim::process::Sabotage;
use embarcadero::sim::scenario::{Fault, Scenario};
use embarcadero::sim::shrink::shrink;
use embarcadero::sim::world::{Outcome, run};
use embarcadero::testing::memory::Whim;
use embarcadero::wire::Receipts;

const SENTENCES: usize = 40;

/// Runs a scenario that must keep every promise.
fn clean(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario, SENTENCES);
    if let Some(violation) = &outcome.failure {
        panic!("{violation}\n{}\nreplay: make simulate SEED={}", outcome.tail.join("\n"), scenario.seed);
    }
    outcome
}

/// What seeds are run here covers everything that is meant to happen.
#[test]
fn seeds_keep_every_promise() {
    let (mut faults, mut epochs, mut fences, mut trims) = (0, 0, 0, 0);
    for seed in 1..=400 {
        let outcome = clean(&Scenario::new(seed));
        faults += outcome.faults;
        epochs += outcome.epochs - 1;
        fences += outcome.fences;
        trims += u64::from(outcome.floor > 0);
    }
    assert!(faults > 4000 && epochs > 500 && fences > 10 && trims > 250, "{faults} {epochs} {fences} {trims}");
}

/// Readers that come back too late are told so; the checker holds that against what was kept.
#[test]
fn readers_are_told_that_something_is_gone_when_it_is() {
    let told: usize = (1..=60).map(|seed| clean(&Scenario::new(seed)).told_gone).sum();
    assert!(told > 5, "{told}");
}

/// Seeds that once found something. What they found has a test of its own where it could be told apart; the worlds they stand
/// for change whenever a world is made differently.
#[test]
fn seeds_that_once_failed() {
    let found = [
        (7, "a lane taken over before the sequencer was heard had room for everything"),
        (11, "a killed process left its epoch line unreadable, and the epoch was forgotten"),
        (18, "a slot's void watermark stopped its next epoch"),
        (131, "parked batches were never let go for a lane that waited"),
        (161, "an ack core behind the floor read void entries"),
        (402, "a topic that was written while a follower began was taken for damage"),
        (443, "lane progress in mid-rewrite was taken for none: the lane stood still for ever"),
        (894, "extents closed after the last word never came back"),
        (929, "a broker did not know a session that another had welcomed"),
        (1185, "an ack rested on a watermark that was in its host's cache only"),
        (1590, "a session was opened twice after a takeover"),
        (4081, "a checkpoint read while it was written hid a session"),
        (4403, "of several lanes that stood still only one was relieved"),
        (5100, "streams that had filled their runs each kept an extent, and none was left for any"),
        (6368, "a killed subscriber's pin stood below the floor, and no lane got memory again"),
        (6014, "an attached publisher waited for an answer that was given up"),
        (820, "a topic made anew was denied from what a broker had known before"),
        (13500, "what was skipped untold came behind another topic's later messages"),
        (51061, "what came to a topic that was found, while another was looked for, was taken for damage"),
        (9515, "a topic was told of that was in a shared cache only, and denied on another host"),
        (9310, "an address was charged for unused sessions longer than they were kept"),
    ];
    for (seed, _) in found {
        clean(&Scenario::new(seed));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 57, 161] {
        let (first, second) = (run(&Scenario::new(seed), 0), run(&Scenario::new(seed), 0));
        assert_eq!(first, second);
        assert_ne!(first.hash, run(&Scenario::new(seed + 1), 0).hash);
    }
}

/// Seed 1.1: messages of one client come out in the order it sent them, over several brokers on several hosts whose
/// connections overtake each other and stand still. The checker holds every committed message against that.
#[test]
fn seed_1_1_per_client_order() {
    let mut committed = 0;
    for seed in 1..=20 {
        let mut scenario = Scenario {
            hosts: 3,
            brokers: vec![0, 1, 2],
            candidates: vec![2],
            publishers: 3,
            connections_per_broker: 2,
            whim: Whim::STORMY,
            fault_rate: 60,
            faults: [false; Fault::ALL.len()],
            ..Scenario::new(seed)
        };
        [Fault::Stall, Fault::Cut, Fault::HoldUp].iter().for_each(|fault| scenario.faults[fault.index()] = true);
        committed += clean(&scenario).committed;
    }
    assert!(committed > 2000, "only {committed} positions were committed");
}

/// Seed 1.2: whoever polls slots on another host, with a receipt per batch or per message, never sees a stale one.
#[test]
fn seed_1_2_a_receipt_is_never_stale() {
    for receipts in [Receipts::Batch, Receipts::Message] {
        let mut seen = 0;
        for seed in 1..=15 {
            let brokers = vec![0, 1];
            let whim = Whim::STORMY;
            seen += clean(&Scenario { hosts: 3, brokers, whim, receipts, ..Scenario::new(seed) }).receipts_seen;
        }
        assert!(seen > 3000, "only {seen} receipts were polled");
    }
}

/// Clients that map the pool, on hosts of which one has a sequencer: they are stopped and killed in any step, one process follows
/// another in their places, and what their pins hold is wanted.
#[test]
fn attached_clients_keep_every_promise() {
    let (mut committed, mut trims, mut dropped) = (0, 0, 0);
    for seed in 1..=100 {
        let mut scenario = Scenario {
            hosts: 2,
            brokers: vec![0, 1],
            candidates: vec![0],
            publishers: 1,
            subscribers: 1,
            attached_publishers: 2,
            attached_subscribers: 2,
            fault_rate: 40,
            ..Scenario::new(seed)
        };
        [Fault::HoldUp, Fault::KillInStep, Fault::Pause].iter().for_each(|fault| scenario.faults[fault.index()] = true);
        if seed % 2 == 0 {
            scenario.overtakes_readers();
        }
        let outcome = clean(&scenario);
        committed += outcome.committed;
        trims += u64::from(outcome.floor > 0);
        dropped += outcome.told_slow;
    }
    assert!(committed > 20_000 && trims > 60 && dropped > 3, "{committed} {trims} {dropped}");
}

fn sabotaged(seed: u64, sabotage: Sabotage) -> Scenario {
    Scenario {
        hosts: 3,
        brokers: vec![0, 1],
        candidates: vec![2, 0],
        whim: Whim::STORMY,
        sabotage,
        ..Scenario::new(seed)
    }
}

/// With a part of the line protocol left out, a promise must be seen broken within a few seeds.
fn is_noticed(sabotage: Sabotage) {
    let noticed = (1..=10).find_map(|seed| run(&sabotaged(seed, sabotage), 0).failure);
    assert!(noticed.is_some(), "{sabotage:?} went unnoticed");
}

#[test]
fn canary_payload_that_is_not_flushed_is_noticed() {
    is_noticed(Sabotage::PayloadFlush);
}

#[test]
fn canary_records_that_are_not_flushed_are_noticed() {
    is_noticed(Sabotage::RecordFlush);
}

#[test]
fn canary_a_missing_sfence_is_noticed() {
    is_noticed(Sabotage::StoreFence);
}

#[test]
fn canary_a_missing_mfence_is_noticed() {
    is_noticed(Sabotage::FullFence);
}

/// A failing run is made smaller, and still fails.
#[test]
fn a_failure_is_shrunk() {
    let scenario = sabotaged(1, Sabotage::PayloadFlush);
    assert!(run(&scenario, 0).failure.is_some());
    let (small, outcome) = shrink(&scenario, 40);
    assert!(outcome.failure.is_some() && !outcome.tail.is_empty());
    let kinds = |scenario: &Scenario| scenario.faults.iter().filter(|fault| **fault).count();
    assert!(small.steps < scenario.steps && kinds(&small) < kinds(&scenario).max(1));
}
