//! Makes a failing run small: fewer faults, fewer parts, fewer steps, as long as it still fails.

use crate::sim::scenario::{Fault, HostClock, Scenario};
use crate::sim::world::{Outcome, run};
use crate::testing::memory::Whim;

/// Sentences kept of a shrunk run.
const SENTENCES: usize = 60;

/// The smallest failing scenario found in at most `runs` runs, and what it came to.
pub fn shrink(scenario: &Scenario, runs: usize) -> (Scenario, Outcome) {
    let mut best = (scenario.clone(), run(scenario, SENTENCES));
    let mut left = runs;
    let mut smaller = true;
    while smaller && left > 0 {
        smaller = false;
        for candidate in candidates(&best.0, &best.1) {
            if left == 0 {
                break;
            }
            left -= 1;
            let outcome = run(&candidate, SENTENCES);
            if outcome.failure.is_some() {
                best = (candidate, outcome);
                smaller = true;
                break;
            }
        }
    }
    best
}

/// Scenarios with one thing less, boldest first.
fn candidates(scenario: &Scenario, outcome: &Outcome) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut changed = scenario.clone();
        change(&mut changed);
        if changed != *scenario {
            all.push(changed);
        }
    };
    for fault in Fault::ALL {
        add(&|scenario| scenario.faults[fault.index()] = false);
    }
    add(&|scenario| scenario.whim = Whim::NONE);
    add(&|scenario| scenario.faults_max = outcome.faults.min(scenario.faults_max) / 2);
    add(&|scenario| scenario.faults_max = outcome.faults.min(scenario.faults_max).saturating_sub(1));
    add(&|scenario| scenario.steps = outcome.steps.min(scenario.steps) / 2);
    add(&|scenario| scenario.steps = outcome.steps.min(scenario.steps) * 9 / 10);
    add(&|scenario| scenario.publishers = 1);
    add(&|scenario| scenario.subscribers = 0);
    add(&|scenario| scenario.attached_publishers = scenario.attached_publishers.saturating_sub(1));
    add(&|scenario| scenario.attached_subscribers = scenario.attached_subscribers.saturating_sub(1));
    add(&|scenario| scenario.connections_per_broker = 1);
    add(&|scenario| scenario.topics.truncate(1));
    add(&|scenario| scenario.topics_go = false);
    add(&|scenario| scenario.lanes_per_broker = 1);
    add(&|scenario| scenario.clocks.fill(HostClock::default()));
    add(&|scenario| (scenario.is_one_address, scenario.openings) = (false, 0));
    add(&|scenario| scenario.has_short_sends = false);
    add(&|scenario| scenario.admins = 0);
    add(&|scenario| scenario.strangers = 0);
    add(&|scenario| scenario.hold_up_rate /= 2);
    all
}
