//! The memory against the models: plain loads, stores, flushes and fences, and exactly what may come of them.

use crate::pool::{Keep, Memory};
use crate::testing::explore::{End, Probe, Program, Thread};
use crate::testing::litmus::lines::publish_payload;
use crate::testing::litmus::{Case, Rule, X, Y, both, case, observe, on, publish, results};

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
pub(super) fn one_host() -> Vec<Rule> {
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
pub(super) fn power_loss() -> Vec<Rule> {
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
pub(super) fn many_hosts() -> Vec<Rule> {
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
