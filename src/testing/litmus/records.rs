//! Records: the line protocol.

use crate::pool::line::{self, Access};
use crate::pool::record::SegmentLine;
use crate::pool::{Keep, Memory};
use crate::testing::explore::{End, LeftOut, Probe};
use crate::testing::litmus::{Rule, X, case, on, results};

fn record(version: u64) -> SegmentLine {
    SegmentLine { epoch: version, first: version, end: version, filled_by: version, reserved: [version; 3] }
}

fn publish_two(memory: &Probe) -> u64 {
    line::publish(memory, X, 1, &record(1));
    line::publish(memory, X, 2, &record(2));
    0
}

/// The second time the body is stored under the first guard.
fn publish_without_invalid(memory: &Probe) -> u64 {
    line::publish(memory, X, 1, &record(1));
    (1..8).for_each(|word| memory.store(X + 8 * word, 2));
    memory.store(X, 2);
    memory.flush_line(X, Keep::Cached);
    memory.store_fence();
    0
}

fn publish_guard_first(memory: &Probe) -> u64 {
    (0..8).for_each(|word| memory.store(X + 8 * word, 1));
    memory.flush_line(X, Keep::Cached);
    memory.store_fence();
    0
}

const INVALID: u64 = 0;
const TORN: u64 = 9;

fn told(seen: Option<(u64, SegmentLine)>) -> u64 {
    match seen {
        None => INVALID,
        Some((guard, seen)) if seen == record(guard) => guard,
        Some(_) => TORN,
    }
}

fn observe_there(memory: &Probe) -> u64 {
    told(line::observe(memory, X, Access::Remote))
}

fn observe_here(memory: &Probe) -> u64 {
    told(line::observe(memory, X, Access::Local))
}

/// Does not look at the guard once more.
fn observe_guard_once(memory: &Probe) -> u64 {
    let guard = memory.load(X);
    let words = [1, 2, 3, 4, 5, 6, 7].map(|word| memory.load(X + 8 * word));
    if guard == INVALID || words == [guard; 7] { guard } else { TORN }
}

fn which_record(end: &End) -> String {
    let seen = results(end).pop().expect("the reader is last");
    ["nothing, or being written", "record 1", "record 2"].get(seen as usize).unwrap_or(&"torn").to_string()
}

pub(super) fn records() -> [Rule; 3] {
    let reader = on(1, observe_there);
    [
        Rule {
            name: "prefix of stores in a line",
            case: case(
                "H0: publish record 1, then record 2 in the same line. H1: observe it.",
                [on(0, publish_two), reader],
                which_record,
            ),
            allowed: &["nothing, or being written", "record 1", "record 2"],
            models: "1, 2, 6",
            broken: vec![
                (
                    case("the guard is not made invalid first", [on(0, publish_without_invalid), reader], which_record),
                    "torn",
                ),
                (
                    case("the guard is stored before the body", [on(0, publish_guard_first), reader], which_record),
                    "torn",
                ),
            ],
        },
        Rule {
            name: "guard, body, guard",
            case: case(
                "H0: publish record 1, then record 2 in the same line. H0, another core: observe it in the cache they share.",
                [on(0, publish_two), on(0, observe_here)],
                which_record,
            ),
            allowed: &["nothing, or being written", "record 1", "record 2"],
            models: "3",
            broken: vec![(
                case("the guard is read once", [on(0, publish_two), on(0, observe_guard_once)], which_record),
                "torn",
            )],
        },
        Rule {
            name: "publish; observe",
            case: case(
                "H0: publish record 1, then record 2 in the same line; then tell H1 by a message. H1: observe it.",
                [on(0, publish_two), reader.after(0)],
                which_record,
            ),
            allowed: &["record 2"],
            models: "1, 2, 4, 6",
            broken: vec![
                (
                    case(
                        "no write-back",
                        [on(0, publish_two).without(LeftOut::WriteBack), reader.after(0)],
                        which_record,
                    ),
                    "nothing, or being written",
                ),
                (
                    case("no sfence", [on(0, publish_two).without(LeftOut::StoreFence), reader.after(0)], which_record),
                    "record 1",
                ),
                (
                    case("no discard", [on(0, publish_two), reader.after(0).without(LeftOut::Drop)], which_record),
                    "nothing, or being written",
                ),
                (
                    case(
                        "discard with sfence for mfence",
                        [on(0, publish_two), reader.after(0).without(LeftOut::FullFenceForStoreFence)],
                        which_record,
                    ),
                    "record 1",
                ),
            ],
        },
    ]
}
