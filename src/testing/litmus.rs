//! The rules of shared memory that the protocol rests on, each as a program of two or three threads, with everything that can come of it; and
//! the same with one thing left out or done in another order, which must show what the rule forbids. The second list holds the simulated
//! memory itself against the published models of x86 and CXL: what they allow it must be able to show, and nothing else.
//!
//! `LITMUS.md` is the table of both, with what the models are; a test holds it to what is here.
//!
//! Where the protocol has a function for it (`line::publish`, `line::observe`, `Memory::write_back`, `Memory::discard`) that function is run, not
//! a copy of it.

use std::collections::BTreeSet;

use crate::pool::line::{self, Access};
use crate::pool::record::SegmentLine;
use crate::pool::{Keep, Memory};
use crate::testing::explore::{End, LeftOut, Probe, Program, Thread, explore};

/// Lines of the pool.
const X: u64 = 0;
const Y: u64 = 64;

/// What a run of one thread gave if the loss of power cut it short.
const CUT_SHORT: u64 = u64::MAX;

/// One program: what is done, and how its end is put into words.
struct Case {
    /// What it does, or what it does differently from the rule's own.
    text: &'static str,
    program: Program,
    tell: fn(&End) -> String,
}

/// A program, everything that may come of it, and programs that break it with what they must show.
struct Rule {
    name: &'static str,
    case: Case,
    allowed: &'static [&'static str],
    /// Where the allowed outcomes are from: numbers of the list of models.
    models: &'static str,
    broken: Vec<(Case, &'static str)>,
}

fn on(host: usize, run: fn(&Probe) -> u64) -> Thread {
    Thread { host, run, left_out: LeftOut::Nothing, after: None }
}

impl Thread {
    fn without(self, left_out: LeftOut) -> Thread {
        Thread { left_out, ..self }
    }

    fn after(self, other: usize) -> Thread {
        Thread { after: Some(other), ..self }
    }
}

fn case<const N: usize>(text: &'static str, threads: [Thread; N], tell: fn(&End) -> String) -> Case {
    Case { text, program: Program { threads: threads.to_vec(), power: None }, tell }
}

impl Case {
    /// This host may lose power at any moment.
    fn with_power_loss(mut self, host: usize) -> Case {
        self.program.power = Some(host);
        self
    }
}

fn results(end: &End) -> Vec<u64> {
    end.results.iter().map(|result| result.unwrap_or(CUT_SHORT)).collect()
}

/// Stores a word and makes it visible to other hosts.
fn publish(memory: &Probe, at: u64) -> u64 {
    memory.store(at, 1);
    memory.write_back(at, 8, Keep::Cached);
    memory.store_fence();
    0
}

/// Loads a word that another host writes.
fn observe(memory: &Probe, at: u64) -> u64 {
    memory.discard(at, 8);
    memory.load(at)
}

/// Two results of one thread, as decimal digits.
fn both(first: u64, second: u64) -> u64 {
    10 * first + second
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Records: the line protocol.

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

fn records() -> [Rule; 3] {
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

// ---------------------------------------------------------------------------------------------------------------------------------
// Several lines.

/// X is the payload, Y the slot that says it is there.
fn publish_payload(memory: &Probe) -> u64 {
    publish(memory, X);
    publish(memory, Y)
}

/// One fence for both: what a batch of entries does, and a commit must not.
fn publish_payload_unfenced(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.write_back(X, 8, Keep::Cached);
    publish(memory, Y)
}

fn publish_payload_unwritten(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.store_fence();
    publish(memory, Y)
}

fn slot_then_payload(memory: &Probe) -> u64 {
    let slot = observe(memory, Y);
    both(slot, if slot == 1 { observe(memory, X) } else { 0 })
}

fn payload_dropped_early(memory: &Probe) -> u64 {
    memory.discard(X, 8);
    let slot = observe(memory, Y);
    both(slot, if slot == 1 { memory.load(X) } else { 0 })
}

fn payload_not_dropped(memory: &Probe) -> u64 {
    let slot = observe(memory, Y);
    both(slot, if slot == 1 { memory.load(X) } else { 0 })
}

fn slot_and_payload(end: &End) -> String {
    let seen = results(end).pop().expect("the reader is last");
    match seen {
        0 => "nothing yet",
        11 => "both",
        _ => "slot, stale payload",
    }
    .to_string()
}

fn payload() -> [Rule; 1] {
    let (writer, reader) = (on(0, publish_payload), on(1, slot_then_payload));
    let allowed: &[&str] = &["both", "nothing yet"];
    [Rule {
        name: "write back, then publish; discard after the header",
        case: case(
            "H0: store the payload, write it back, sfence; publish the slot. H1: observe the slot; if it is there, discard and load the payload. (Entries, then the watermark, are the same.)",
            [writer, reader],
            slot_and_payload,
        ),
        allowed,
        models: "1, 2, 4, 6",
        broken: vec![
            (
                case("no sfence between", [on(0, publish_payload_unfenced), reader], slot_and_payload),
                "slot, stale payload",
            ),
            (
                case("the payload is not written back", [on(0, publish_payload_unwritten), reader], slot_and_payload),
                "slot, stale payload",
            ),
            (
                case(
                    "the payload is discarded before the slot is looked at",
                    [writer, on(1, payload_dropped_early)],
                    slot_and_payload,
                ),
                "slot, stale payload",
            ),
            (
                case("the payload is not discarded", [writer, on(1, payload_not_dropped)], slot_and_payload),
                "slot, stale payload",
            ),
        ],
    }]
}

/// X is a value that the sequencer of epoch 1 publishes; Y is 1 once epoch 2 is claimed.
fn write_value(memory: &Probe) -> u64 {
    publish(memory, X)
}

/// A claimant: claims, then reads what it inherits.
fn claim_then_inherit(memory: &Probe) -> u64 {
    publish(memory, Y);
    observe(memory, X)
}

fn inherit_then_claim(memory: &Probe) -> u64 {
    let inherited = observe(memory, X);
    publish(memory, Y);
    inherited
}

/// Inherits through its own store buffer: the claim is written back, and nothing orders that before the load.
fn claim_and_inherit_unfenced(memory: &Probe) -> u64 {
    memory.flush_line(X, Keep::Dropped);
    memory.full_fence();
    publish(memory, Y);
    memory.load(X)
}

/// A reader: the value, then whether a higher epoch is claimed.
fn value_then_claims(memory: &Probe) -> u64 {
    let value = observe(memory, X);
    both(value, observe(memory, Y))
}

fn claims_then_value(memory: &Probe) -> u64 {
    let claimed = observe(memory, Y);
    both(observe(memory, X), claimed)
}

/// The reader shares its cache with the writer: it writes back what it saw before it looks at the claims.
fn help_then_claims(memory: &Probe) -> u64 {
    let value = memory.load(X);
    memory.flush_line(X, Keep::Cached);
    memory.full_fence();
    both(value, observe(memory, Y))
}

fn claims_without_help(memory: &Probe) -> u64 {
    let value = memory.load(X);
    memory.full_fence();
    both(value, observe(memory, Y))
}

/// Whether what the reader took for confirmed is what the claimant inherits. Threads: writer, reader, claimant.
fn confirmed(end: &End) -> String {
    let [_, read, inherited] = results(end)[..] else { unreachable!("three threads") };
    match (read, inherited) {
        (CUT_SHORT, _) => "power lost before",
        (read, _) if read % 10 == 1 => "void: a claim was seen",
        (10, 0) => "confirmed, and not inherited",
        (10, _) => "confirmed and inherited",
        _ => "nothing read yet",
    }
    .to_string()
}

fn epochs() -> [Rule; 2] {
    let (writer, reader, claimant) = (on(0, write_value), on(1, value_then_claims), on(2, claim_then_inherit));
    let allowed: &[&str] = &["confirmed and inherited", "nothing read yet", "void: a claim was seen"];
    let lost = "confirmed, and not inherited";
    [
        Rule {
            name: "value before epoch lines; claim before what is inherited",
            case: case(
                "H0, the sequencer: publish a value. H1, a reader: observe the value, then the claims. H2: claim, then observe the value it inherits.",
                [writer, reader, claimant],
                confirmed,
            ),
            allowed,
            models: "1, 2, 4, 6",
            broken: vec![
                (case("the claims are read before the value", [writer, on(1, claims_then_value), claimant], confirmed), lost),
                (case("the value is read before the claim", [writer, reader, on(2, inherit_then_claim)], confirmed), lost),
                (
                    case("no discard between claim and value", [writer, reader, on(2, claim_and_inherit_unfenced)], confirmed),
                    lost,
                ),
                (
                    case("the claim is not written back", [writer, reader, claimant.without(LeftOut::WriteBack)], confirmed),
                    lost,
                ),
            ],
        },
        Rule {
            name: "confirm writes back what it saw",
            case: case(
                "H0, the sequencer: publish a value. H0, a reader: load it from the cache they share, write it back, mfence, observe the claims. H1: claim, then observe the value it inherits. H0 may lose power at any moment.",
                [writer, on(0, help_then_claims), on(1, claim_then_inherit)],
                confirmed,
            )
            .with_power_loss(0),
            allowed: &["confirmed and inherited", "nothing read yet", "power lost before", "void: a claim was seen"],
            models: "1, 3, 4, 5, 6",
            broken: vec![
                (
                    case(
                        "the reader does not write back",
                        [writer, on(0, claims_without_help), on(1, claim_then_inherit)],
                        confirmed,
                    )
                    .with_power_loss(0),
                    lost,
                ),
                (
                    case(
                        "no mfence after its write-back",
                        [writer, on(0, help_then_claims).without(LeftOut::FullFence), on(1, claim_then_inherit)],
                        confirmed,
                    )
                    .with_power_loss(0),
                    lost,
                ),
            ],
        },
    ]
}

/// X is the reader's pin, Y is `closing`.
fn pin_then_look(memory: &Probe) -> u64 {
    publish(memory, X);
    memory.full_fence();
    observe(memory, Y)
}

fn look_then_pin(memory: &Probe) -> u64 {
    let closing = observe(memory, Y);
    publish(memory, X);
    closing
}

fn close_then_look(memory: &Probe) -> u64 {
    publish(memory, Y);
    memory.full_fence();
    observe(memory, X)
}

/// The same where both are processes of one host: nothing is dropped before it is read.
fn pin_then_look_here(memory: &Probe) -> u64 {
    publish(memory, X);
    memory.full_fence();
    memory.load(Y)
}

fn close_then_look_here(memory: &Probe) -> u64 {
    publish(memory, Y);
    memory.full_fence();
    memory.load(X)
}

fn pinned_or_closed(end: &End) -> String {
    match results(end)[..] {
        [0, 0] => "read and given up",
        [0, _] => "the reader is waited for",
        [_, 0] => "the reader withdraws",
        _ => "both notice",
    }
    .to_string()
}

fn pins() -> [Rule; 2] {
    let allowed: &[&str] = &["both notice", "the reader is waited for", "the reader withdraws"];
    let lost = "read and given up";
    let (reader, trimmer) = (on(0, pin_then_look), on(1, close_then_look));
    let (reader_here, trimmer_here) = (on(0, pin_then_look_here), on(0, close_then_look_here));
    [
        Rule {
            name: "pin against closing",
            case: case(
                "H0, a reader: publish its pin, mfence, observe `closing`. H1, the sequencer: publish `closing`, mfence, observe the pin. (A pin that is dropped, and renewed, is the same.)",
                [reader, trimmer],
                pinned_or_closed,
            ),
            allowed,
            models: "1, 3, 4, 6",
            broken: vec![
                (case("the reader looks first", [on(0, look_then_pin), trimmer], pinned_or_closed), lost),
                (
                    case(
                        "the pin is not written back",
                        [reader.without(LeftOut::WriteBack), trimmer],
                        pinned_or_closed,
                    ),
                    lost,
                ),
                (
                    case("the sequencer does not discard", [reader, trimmer.without(LeftOut::Drop)], pinned_or_closed),
                    lost,
                ),
            ],
        },
        Rule {
            name: "pin against closing, on one host",
            case: case(
                "The same between two cores of H0: nothing is discarded, they share a cache.",
                [reader_here, trimmer_here],
                pinned_or_closed,
            ),
            allowed,
            models: "3, 4",
            broken: vec![
                (
                    case(
                        "the reader has no mfence",
                        [reader_here.without(LeftOut::FullFence), trimmer_here],
                        pinned_or_closed,
                    ),
                    lost,
                ),
                (
                    case(
                        "the sequencer has no mfence",
                        [reader_here, trimmer_here.without(LeftOut::FullFence)],
                        pinned_or_closed,
                    ),
                    lost,
                ),
            ],
        },
    ]
}

/// A lane of the sequencer's own host: X is the slot, in the cache they share; Y is what it became.
fn store_slot(memory: &Probe) -> u64 {
    publish(memory, X)
}

fn commit_slot(memory: &Probe) -> u64 {
    let slot = memory.load(X);
    if slot == 1 {
        memory.write_back(X, 8, Keep::Cached);
        memory.store_fence();
        publish(memory, Y);
    }
    slot
}

fn commit_slot_as_seen(memory: &Probe) -> u64 {
    let slot = memory.load(X);
    if slot == 1 {
        publish(memory, Y);
    }
    slot
}

fn left_behind(end: &End) -> String {
    match (end.in_memory(X), end.in_memory(Y)) {
        (1, 1) => "slot and entry",
        (0, 1) => "entry without its slot",
        (1, _) => "slot",
        _ => "nothing",
    }
    .to_string()
}

/// Two owners, and what is left of their words.
fn write_word_0(memory: &Probe) -> u64 {
    publish(memory, X)
}

fn write_word_1(memory: &Probe) -> u64 {
    publish(memory, X + 8)
}

fn write_line_y(memory: &Probe) -> u64 {
    publish(memory, Y)
}

fn words_left(end: &End) -> String {
    let second = end.in_memory(X + 8).max(end.in_memory(Y));
    if end.in_memory(X) == 1 && second == 1 { "both updates" } else { "an update is lost" }.to_string()
}

fn owners() -> [Rule; 2] {
    [
        Rule {
            name: "a shared cache is not the only copy",
            case: case(
                "H0, a lane: publish a slot. H0, the sequencer: load it, write it back, sfence, publish its entry. H0 loses power at any moment; what is in the pool then:",
                [on(0, store_slot), on(0, commit_slot)],
                left_behind,
            )
            .with_power_loss(0),
            allowed: &["nothing", "slot", "slot and entry"],
            models: "1, 2, 3, 5",
            broken: vec![(
                case("the sequencer does not write the slot back", [on(0, store_slot), on(0, commit_slot_as_seen)], left_behind)
                    .with_power_loss(0),
                "entry without its slot",
            )],
        },
        Rule {
            name: "one writer of a line",
            case: case(
                "H0: publish a word. H1: publish a word of another line. What is in the pool at the end:",
                [on(0, write_word_0), on(1, write_line_y)],
                words_left,
            ),
            allowed: &["both updates"],
            models: "6",
            broken: vec![(
                case("the words are of one line", [on(0, write_word_0), on(1, write_word_1)], words_left),
                "an update is lost",
            )],
        },
    ]
}

// ---------------------------------------------------------------------------------------------------------------------------------
// The memory against the models: plain loads, stores, flushes and fences, and exactly what may come of them.

fn store_x_load_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.load(Y)
}

fn store_y_load_x(memory: &Probe) -> u64 {
    memory.store(Y, 1);
    memory.load(X)
}

fn store_x_mfence_load_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.full_fence();
    memory.load(Y)
}

fn store_y_mfence_load_x(memory: &Probe) -> u64 {
    memory.store(Y, 1);
    memory.full_fence();
    memory.load(X)
}

fn store_x_sfence_load_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.store_fence();
    memory.load(Y)
}

fn store_y_sfence_load_x(memory: &Probe) -> u64 {
    memory.store(Y, 1);
    memory.store_fence();
    memory.load(X)
}

fn store_x_store_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.store(Y, 1);
    0
}

fn store_two_of_a_line(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.store(X + 8, 1);
    0
}

fn load_y_load_x(memory: &Probe) -> u64 {
    let y = memory.load(Y);
    both(y, memory.load(X))
}

fn load_x_store_y(memory: &Probe) -> u64 {
    let x = memory.load(X);
    memory.store(Y, 1);
    x
}

fn load_y_store_x(memory: &Probe) -> u64 {
    let y = memory.load(Y);
    memory.store(X, 1);
    y
}

fn load_own(memory: &Probe) -> u64 {
    memory.store(X, 1);
    both(memory.load(X), memory.load(Y))
}

fn load_own_y(memory: &Probe) -> u64 {
    memory.store(Y, 1);
    both(memory.load(Y), memory.load(X))
}

fn load_x_twice(memory: &Probe) -> u64 {
    let first = memory.load(X);
    both(first, memory.load(X))
}

fn discard_x_twice(memory: &Probe) -> u64 {
    let first = observe(memory, X);
    both(first, observe(memory, X))
}

fn flush_x_store_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.flush_line(X, Keep::Dropped);
    memory.store(Y, 1);
    0
}

fn flush_x_sfence_store_y(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.flush_line(X, Keep::Dropped);
    memory.store_fence();
    memory.store(Y, 1);
    0
}

fn write_x_back_sfence_store_y(memory: &Probe) -> u64 {
    publish(memory, X);
    memory.store(Y, 1);
    0
}

fn flush_then_store_x(memory: &Probe) -> u64 {
    memory.flush_line(X, Keep::Dropped);
    memory.store(X, 1);
    memory.store_fence();
    memory.store(Y, 1);
    0
}

/// The other core's fence is to do it.
fn flush_x(memory: &Probe) -> u64 {
    memory.store(X, 1);
    memory.flush_line(X, Keep::Dropped);
    0
}

fn mfence_store_y(memory: &Probe) -> u64 {
    memory.full_fence();
    memory.store(Y, 1);
    0
}

fn flush_x_mfence_store_y(memory: &Probe) -> u64 {
    memory.flush_line(X, Keep::Dropped);
    memory.full_fence();
    memory.store(Y, 1);
    0
}

fn flush_x_mfence_publish_y(memory: &Probe) -> u64 {
    memory.flush_line(X, Keep::Dropped);
    memory.full_fence();
    publish(memory, Y)
}

fn store_x(memory: &Probe) -> u64 {
    memory.store(X, 1);
    0
}

fn observe_y_observe_x(memory: &Probe) -> u64 {
    let y = observe(memory, Y);
    both(y, observe(memory, X))
}

fn clwb_x_load_x(memory: &Probe) -> u64 {
    memory.load(X);
    memory.flush_line(X, Keep::Cached);
    memory.full_fence();
    memory.load(X)
}

/// Results of all threads that load, as digits.
fn loaded(end: &End) -> String {
    results(end).iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// Of two threads whose second loads twice.
fn loaded_twice(end: &End) -> String {
    format!("{:02}", results(end)[1])
}

fn both_loaded_twice(end: &End) -> String {
    let seen = results(end);
    format!("{:02} {:02}", seen[0], seen[1])
}

fn x_and_y_left(end: &End) -> String {
    format!("{}{}", end.in_memory(X), end.in_memory(Y))
}

fn words_of_x_left(end: &End) -> String {
    format!("{}{}", end.in_memory(X), end.in_memory(X + 8))
}

fn model(name: &'static str, models: &'static str, case: Case, allowed: &'static [&'static str]) -> Rule {
    Rule { name, case, allowed, models, broken: Vec::new() }
}

/// One host: x86-TSO.
fn one_host() -> Vec<Rule> {
    vec![
        model(
            "store buffering",
            "3",
            case("H0: x=1; r=y. H0: y=1; r=x. Loaded:", [on(0, store_x_load_y), on(0, store_y_load_x)], loaded),
            &["0 0", "0 1", "1 0", "1 1"],
        ),
        model(
            "store buffering, sfence",
            "3, 4",
            case(
                "H0: x=1; sfence; r=y. H0: y=1; sfence; r=x.",
                [on(0, store_x_sfence_load_y), on(0, store_y_sfence_load_x)],
                loaded,
            ),
            &["0 0", "0 1", "1 0", "1 1"],
        ),
        model(
            "store buffering, mfence",
            "3",
            case(
                "H0: x=1; mfence; r=y. H0: y=1; mfence; r=x.",
                [on(0, store_x_mfence_load_y), on(0, store_y_mfence_load_x)],
                loaded,
            ),
            &["0 1", "1 0", "1 1"],
        ),
        model(
            "forwarding",
            "3",
            case(
                "H0: x=1; r=x; s=y. H0: y=1; r=y; s=x. Both see their own store first.",
                [on(0, load_own), on(0, load_own_y)],
                both_loaded_twice,
            ),
            &["10 10", "10 11", "11 10", "11 11"],
        ),
        model(
            "message passing",
            "3",
            case("H0: x=1; y=1. H0: r=y; s=x.", [on(0, store_x_store_y), on(0, load_y_load_x)], loaded_twice),
            &["00", "01", "11"],
        ),
        model(
            "load buffering",
            "3",
            case("H0: r=x; y=1. H0: r=y; x=1.", [on(0, load_x_store_y), on(0, load_y_store_x)], loaded),
            &["0 0", "0 1", "1 0"],
        ),
    ]
}

/// One host that loses power: Px86, where the pool stands for the persistent memory.
fn power_loss() -> Vec<Rule> {
    let left =
        |text, threads: Vec<Thread>| Case { text, program: Program { threads, power: Some(0) }, tell: x_and_y_left };
    vec![
        model(
            "two lines",
            "1, 2",
            left("H0: x=1; y=1. Left after the loss of power:", vec![on(0, store_x_store_y)]),
            &["00", "01", "10", "11"],
        ),
        model(
            "two words of a line",
            "1, 2",
            Case { tell: words_of_x_left, ..left("H0: x=1; y=1, in one line.", vec![on(0, store_two_of_a_line)]) },
            &["00", "10", "11"],
        ),
        model(
            "clflushopt is not a fence",
            "1, 2",
            left("H0: x=1; clflushopt x; y=1.", vec![on(0, flush_x_store_y)]),
            &["00", "01", "10", "11"],
        ),
        model(
            "clflushopt and sfence",
            "1, 2",
            left("H0: x=1; clflushopt x; sfence; y=1.", vec![on(0, flush_x_sfence_store_y)]),
            &["00", "10", "11"],
        ),
        model(
            "clwb and sfence",
            "1, 2",
            left("H0: x=1; clwb x; sfence; y=1.", vec![on(0, write_x_back_sfence_store_y)]),
            &["00", "10", "11"],
        ),
        model(
            "flushed before it is stored",
            "1, 2",
            left("H0: clflushopt x; x=1; sfence; y=1.", vec![on(0, flush_then_store_x)]),
            &["00", "01", "10", "11"],
        ),
        model(
            "another core's fence",
            "1, 2",
            left(
                "H0: x=1; clflushopt x. H0, told after that: mfence; y=1.",
                vec![on(0, flush_x), on(0, mfence_store_y).after(0)],
            ),
            &["00", "01", "10", "11"],
        ),
        model(
            "another core's flush",
            "1, 2",
            left(
                "H0: x=1. H0, told after that: clflushopt x; mfence; y=1.",
                vec![on(0, store_x), on(0, flush_x_mfence_store_y).after(0)],
            ),
            &["00", "10", "11"],
        ),
    ]
}

/// Several hosts: nothing keeps their caches coherent.
fn many_hosts() -> Vec<Rule> {
    fn publish_x(memory: &Probe) -> u64 {
        publish(memory, X)
    }
    vec![
        model(
            "a stale copy stays",
            "4, 6",
            case(
                "H0: publish x. H1, told after that: r=x.",
                [on(0, publish_x), on(1, load_x_twice).after(0)],
                loaded_twice,
            ),
            &["00", "01", "11"],
        ),
        model(
            "one word never goes back",
            "4, 6",
            case(
                "H0: publish x. H1: discard x; r=x; discard x; s=x.",
                [on(0, publish_x), on(1, discard_x_twice)],
                loaded_twice,
            ),
            &["00", "01", "11"],
        ),
        model(
            "message passing without discard",
            "4, 6",
            case(
                "H0: publish x; publish y. H1: r=y; s=x.",
                [on(0, publish_payload), on(1, load_y_load_x)],
                loaded_twice,
            ),
            &["00", "01", "10", "11"],
        ),
        model(
            "message passing with discard",
            "1, 4, 6",
            case(
                "H0: publish x; publish y. H1: discard y; r=y; discard x; s=x.",
                [on(0, publish_payload), on(1, observe_y_observe_x)],
                loaded_twice,
            ),
            &["00", "01", "11"],
        ),
        model(
            "a dirty line comes late, or early",
            "4, 6",
            case(
                "H0: x=1. H1, told after that: discard x; r=x; discard x; s=x.",
                [on(0, store_x), on(1, discard_x_twice).after(0)],
                loaded_twice,
            ),
            &["00", "01", "11"],
        ),
        model(
            "clwb drops nothing for sure",
            "4, 6",
            case(
                "H0: publish x. H1, told after that: r=x; clwb x; mfence; s=x. The second:",
                [on(0, publish_x), on(1, clwb_x_load_x).after(0)],
                |end| results(end)[1].to_string(),
            ),
            &["0", "1"],
        ),
        model(
            "another host's flush",
            "5",
            Case {
                text: "H0: x=1. H1, told after that: clflushopt x; mfence; publish y. H0 may lose power; left in the pool:",
                program: Program {
                    threads: vec![on(0, store_x), on(1, flush_x_mfence_publish_y).after(0)],
                    power: Some(0),
                },
                tell: x_and_y_left,
            },
            &["01", "11"],
        ),
    ]
}

fn quoted(outcomes: &BTreeSet<String>) -> String {
    outcomes.iter().map(|outcome| format!("`{outcome}`")).collect::<Vec<_>>().join(", ")
}

fn strings(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// Explores a rule; gives its rows of the table.
fn rows(rule: &Rule) -> Vec<String> {
    let seen = explore(&rule.case.program, rule.case.tell);
    println!("{}: {} states", rule.name, seen.states);
    let allowed = strings(rule.allowed);
    assert_eq!(seen.outcomes, allowed, "{}: seen on the left, allowed on the right", rule.name);
    let mut rows = vec![format!(
        "| **{}** | {} | {} | {} | {} |",
        rule.name,
        rule.case.text,
        quoted(&allowed),
        if seen.outcomes == allowed { "the same" } else { "others" },
        rule.models
    )];
    for (broken, forbidden) in &rule.broken {
        let seen = explore(&broken.program, broken.tell);
        println!("{}: {}: {} states", rule.name, broken.text, seen.states);
        assert!(
            !allowed.contains(*forbidden) && seen.outcomes.contains(*forbidden),
            "{}: {}: {:?}",
            rule.name,
            broken.text,
            seen.outcomes
        );
        rows.push(format!("| | broken: {} | | also `{forbidden}` | |", broken.text));
    }
    rows
}

/// Every rule, every outcome; and `LITMUS.md` says what was seen.
fn hold_to_the_table(rules: &[Rule]) {
    let document = include_str!("LITMUS.md");
    let rows: Vec<String> = rules.iter().flat_map(rows).collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !document.lines().any(|line| line == row.as_str())).collect();
    let all = rows.join("\n");
    assert!(missing.is_empty(), "LITMUS.md does not say:\n{missing:#?}\nall rows of this part are\n{all}");
}

#[test]
fn a_record_is_seen_whole_and_in_time() {
    hold_to_the_table(&records());
}

#[test]
fn what_a_slot_names_is_there() {
    hold_to_the_table(&payload());
}

#[test]
fn what_is_confirmed_is_inherited() {
    hold_to_the_table(&epochs());
}

#[test]
fn what_is_pinned_is_not_given_up() {
    hold_to_the_table(&pins());
}

#[test]
fn a_line_has_one_writer_and_memory_has_a_copy() {
    hold_to_the_table(&owners());
}

#[test]
fn one_host_is_what_x86_tso_allows() {
    hold_to_the_table(&one_host());
}

#[test]
fn a_loss_of_power_leaves_what_px86_allows() {
    hold_to_the_table(&power_loss());
}

#[test]
fn hosts_see_each_other_as_their_caches_allow() {
    hold_to_the_table(&many_hosts());
}

/// Every row of the document is one of these.
#[test]
fn the_table_says_nothing_else() {
    let rules = [records().into(), payload().into(), epochs().into(), pins().into(), owners().into()];
    let models = [one_host(), power_loss(), many_hosts()];
    let names: Vec<&str> = rules.iter().chain(&models).flatten().map(|rule| rule.name).collect();
    let of_rows = include_str!("LITMUS.md").lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next());
    assert_eq!(of_rows.collect::<Vec<_>>(), names);
}
