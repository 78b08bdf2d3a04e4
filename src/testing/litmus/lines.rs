//! Several lines: what one says of another.

use crate::pool::{Keep, Memory};
use crate::testing::explore::{End, LeftOut, Probe};
use crate::testing::litmus::{CUT_SHORT, Rule, X, Y, both, case, observe, on, publish, results};

/// X is the payload, Y the slot that says it is there.
pub(super) fn publish_payload(memory: &Probe) -> u64 {
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

pub(super) fn payload() -> [Rule; 1] {
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

pub(super) fn epochs() -> [Rule; 2] {
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

pub(super) fn pins() -> [Rule; 2] {
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

pub(super) fn owners() -> [Rule; 2] {
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
