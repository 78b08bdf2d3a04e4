//! What a run reached: as a sentence, and as a table.

use maud::Markup;

use super::document::{Amount, Results, Run, Subscriber};
use super::number::{grouped, rounded, time};
use super::side::Side;
use super::table::{Cell, Row, table};

/// What was reached, in one sentence. The verdict is not in it.
pub fn sentence(run: &Run) -> String {
    let results = &run.results;
    let did = run.headline.split_once(": ").map_or(run.headline.as_str(), |(_, did)| did);
    let mut reached = Vec::new();
    let rate = |amount: &Amount| {
        format!("{} messages/s ({} MB/s)", rounded(amount.messages_per_s()), rounded(amount.megabytes_per_second))
    };
    reached.extend(results.publish.as_ref().map(|amount| format!("{} acked", rate(amount))));
    reached.extend(results.deliver.as_ref().map(|amount| format!("{} delivered", rate(amount))));
    if let Some(stage) = results.stages.first() {
        let [p50, p99] = [stage.p50_ns, stage.p99_ns].map(|ns| time(ns as f64));
        reached.push(format!("{}: p50 {p50}, p99 {p99}", stage.name));
    }
    if reached.is_empty() { format!("{did}.") } else { format!("{did}. Reached: {}.", reached.join("; ")) }
}

fn count(number: u64) -> Cell {
    Cell::number(number as f64, grouped(number))
}

fn figure(number: f64) -> Cell {
    Cell::number(number, rounded(number))
}

/// A figure of each run's results.
type Figure = fn(&Results) -> Cell;

fn of(amount: &Option<Amount>, figure: impl Fn(&Amount) -> Cell) -> Cell {
    amount.as_ref().map_or(Cell::None, figure)
}

fn sum(results: &Results, part: fn(&Subscriber) -> u64) -> Cell {
    if results.subscribers.is_empty() { Cell::None } else { count(results.subscribers.iter().map(part).sum()) }
}

const PUBLISHED: [(&str, Figure); 4] = [
    ("messages", |results| of(&results.publish, |amount| count(amount.messages))),
    ("seconds", |results| of(&results.publish, |amount| figure(amount.seconds))),
    ("messages/s", |results| of(&results.publish, |amount| figure(amount.messages_per_s()))),
    ("MB/s", |results| of(&results.publish, |amount| figure(amount.megabytes_per_second))),
];

const DELIVERED: [(&str, Figure); 4] = [
    ("messages", |results| of(&results.deliver, |amount| count(amount.messages))),
    ("seconds", |results| of(&results.deliver, |amount| figure(amount.seconds))),
    ("messages/s", |results| of(&results.deliver, |amount| figure(amount.messages_per_s()))),
    ("MB/s", |results| of(&results.deliver, |amount| figure(amount.megabytes_per_second))),
];

const OPEN: [(&str, Figure); 5] = [
    ("asked, messages/s", |results| {
        results.open_loop.as_ref().map_or(Cell::None, |open| figure(open.asked_messages_per_s))
    }),
    ("sent, messages/s", |results| {
        results.open_loop.as_ref().map_or(Cell::None, |open| figure(open.sent_messages_per_s))
    }),
    ("acked, messages/s", |results| {
        results.open_loop.as_ref().map_or(Cell::None, |open| figure(open.acked_messages_per_s))
    }),
    ("delivered to each subscriber, messages/s", |results| {
        results.open_loop.as_ref().and_then(|open| open.delivered_messages_per_s).map_or(Cell::None, figure)
    }),
    ("furthest behind the plan", |results| {
        let lag = |us: f64| Cell::number(us, time(us * 1e3));
        results.open_loop.as_ref().map_or(Cell::None, |open| lag(open.lag_max_us))
    }),
];

const RARE: [(&str, Figure); 4] = [
    ("batches sent again", |results| count(results.batches_resent)),
    ("batches let go by brokers", |results| count(results.batches_let_go)),
    ("sessions fenced", |results| count(results.fences)),
    ("reconnects", |results| count(results.reconnects)),
];

const SEEN: [(&str, Figure); 4] = [
    ("missing messages", |results| sum(results, |reader| reader.missing)),
    ("repeated messages", |results| sum(results, |reader| reader.duplicates)),
    ("messages out of order", |results| sum(results, |reader| reader.reordered)),
    ("wrong contents", |results| sum(results, |reader| reader.faults)),
];

/// Every figure that any of the runs has.
pub fn section(sides: &[Side<'_>]) -> Markup {
    let groups: [(&str, &[(&str, Figure)]); 5] = [
        ("published, from the first send to the last ack", &PUBLISHED),
        ("delivered to all subscribers together", &DELIVERED),
        ("open loop, the measured part", &OPEN),
        ("publishers", &RARE),
        ("subscribers", &SEEN),
    ];
    let mut rows = Vec::new();
    for (name, figures) in groups {
        let cells = |(label, figure): &(&str, Figure)| {
            let cells: Vec<Cell> = sides.iter().map(|side| figure(&side.run.results)).collect();
            cells.iter().any(|cell| *cell != Cell::None).then(|| Row::of(*label, cells))
        };
        let of_group: Vec<Row> = figures.iter().filter_map(cells).collect();
        if !of_group.is_empty() {
            rows.push(Row::group(name));
            rows.extend(of_group);
        }
    }
    table(sides, &rows)
}
