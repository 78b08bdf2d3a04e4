//! Readers that come back after publishers have waited for them.

use std::net::TcpStream;

use super::ExportSettings;
use super::tests::{BATCHES, Bench, settings};
use crate::config::SendMode;
use crate::runtime::Now;
use crate::wire::{SlowReader, StartAt};

const WAIT_MAX_NS: u64 = 10_000_000_000;
const GRACE_NS: u64 = 100_000_000;
/// A pass, by the clock of the bench.
const STEP_NS: u64 = 20_000_000;

fn bench(send: SendMode) -> Bench {
    let most = settings(send, SlowReader::Wait);
    Bench::new(ExportSettings {
        reader_wait_max_ns: WAIT_MAX_NS,
        reader_stall_ns: 1 << 50,
        reader_grace_ns: GRACE_NS,
        ..most
    })
}

/// Passes until publishers have waited this long for whoever is there, or it was let go. Gives for how long they did, ns.
fn wait_for_it(bench: &mut Bench, most_ns: u64) -> u64 {
    let (let_go, mut waited_ns) = (bench.export.counters.too_slow, 0);
    while waited_ns < most_ns && bench.export.counters.too_slow == let_go {
        let now = bench.now();
        bench.stands_at = Some(Now { monotonic_ns: now.monotonic_ns + STEP_NS, ..now });
        bench.pass(false);
        waited_ns += STEP_NS;
    }
    waited_ns
}

/// One comes that takes nothing, and publishers begin to wait for it.
fn come(bench: &mut Bench) -> TcpStream {
    bench.want(0);
    let peer = bench.subscribe(&[StartAt::Earliest]);
    bench.stands_at = Some(bench.now());
    bench.run_until("its socket is full", Bench::is_sending);
    bench.want(BATCHES);
    peer
}

fn go(bench: &mut Bench, peer: TcpStream) {
    drop(peer);
    bench.run_until("it is forgotten", |bench| bench.subscribers() == 0);
}

#[test]
fn one_that_was_let_go_and_comes_back_is_not_waited_for_again() {
    for send in [SendMode::Copy, SendMode::ZeroCopy] {
        let mut bench = bench(send);
        for again in 0..4 {
            let peer = come(&mut bench);
            let waited_ns = wait_for_it(&mut bench, 2 * WAIT_MAX_NS);
            let is_short = waited_ns < 2 * GRACE_NS + 3 * STEP_NS;
            assert_eq!(is_short, again > 0, "{send:?}: waited for {waited_ns} ns the time {again}");
            go(&mut bench, peer);
        }
        // In a time it is forgotten.
        let now = bench.now();
        bench.stands_at = Some(Now { monotonic_ns: now.monotonic_ns + (1 << 55), ..now });
        let peer = come(&mut bench);
        assert!(wait_for_it(&mut bench, 2 * WAIT_MAX_NS) >= WAIT_MAX_NS);
        go(&mut bench, peer);
    }
}

#[test]
fn one_that_goes_before_it_is_let_go_and_comes_back_gets_what_is_left() {
    let mut bench = bench(SendMode::Copy);
    let (mut all_ns, each_ns) = (0, WAIT_MAX_NS / 4);
    for _ in 0..3 {
        let peer = come(&mut bench);
        let waited_ns = wait_for_it(&mut bench, each_ns);
        assert_eq!(waited_ns, each_ns);
        all_ns += waited_ns;
        go(&mut bench, peer);
    }
    let peer = come(&mut bench);
    all_ns += wait_for_it(&mut bench, 2 * WAIT_MAX_NS);
    assert!(all_ns.abs_diff(WAIT_MAX_NS) < 20 * STEP_NS, "waited for {all_ns} ns in all");
    go(&mut bench, peer);
}
