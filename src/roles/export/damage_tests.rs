//! What becomes of subscribers when the log cannot be read on for them.

use super::tests::{BATCHES, Bench, batch_at, last_words, settings};
use crate::config::SendMode;
use crate::pool::Memory;
use crate::runtime::Now;
use crate::wire::{Refusal, SlowReader, StartAt};

fn bench() -> Bench {
    Bench::new(settings(SendMode::Copy, SlowReader::Wait))
}

#[test]
fn a_batch_that_is_not_where_the_index_says_is_told_as_damage() {
    let mut bench = bench();
    let mut peer = bench.subscribe(&[StartAt::Earliest]);
    bench.view.memory.copy_in(batch_at(&bench.view, 0), &[0; 64]);
    bench.run_until("it ends", |bench| bench.export.counters.inconsistent == 1 && bench.subscribers() == 0);
    assert_eq!(last_words(&mut peer), Some(Refusal::Damaged));
}

/// This process stood still after it had looked at its pin, which was dropped: what it reads then is not what it was to read.
#[test]
fn a_batch_that_was_written_over_since_the_last_look_is_no_damage() {
    for (slow_reader, told) in [(SlowReader::Wait, Some(Refusal::TooSlow)), (SlowReader::Skip, None)] {
        let mut bench = Bench::new(settings(SendMode::Copy, slow_reader));
        bench.stands_at = Some(bench.now());
        let mut peer = bench.subscribe_to(&[(1, StartAt::Latest)]);
        bench.run_until("it rests", |bench| bench.subscribers() == 1 && bench.export.awake.is_empty());
        bench.append(1, 0);
        bench.view.memory.copy_in(batch_at(&bench.view, 1), &[0; 64]);
        bench.drop_pin(BATCHES + 1);
        (0..3).for_each(|_| {
            bench.pass(false);
        });
        bench.append(1, 1);
        bench.stands_at = None;
        if told.is_some() {
            bench.run_until("it ends", |bench| bench.subscribers() == 0);
            assert_eq!(last_words(&mut peer), told);
        } else {
            bench.run_until("it skips", |bench| bench.export.counters.skips == 1);
        }
        assert_eq!(bench.export.counters.inconsistent, 0, "{slow_reader:?}");
    }
}

/// Passes that take this long together by the clock of the bench.
fn run_for(bench: &mut Bench, time_ns: u64) {
    for _ in 0..100 {
        let now = bench.now();
        bench.stands_at = Some(Now { monotonic_ns: now.monotonic_ns + time_ns / 100, ..now });
        bench.pass(false);
    }
}

/// Now and then an entry cannot be read for a moment: that is no damage, however often it happens.
#[test]
fn what_cannot_be_read_for_a_moment_is_no_damage_and_what_cannot_for_long_is() {
    let mut bench = bench();
    let mut peer = bench.subscribe_to(&[(1, StartAt::Latest)]);
    bench.run_until("it rests", |bench| bench.subscribers() == 1 && bench.export.awake.is_empty());
    bench.stands_at = Some(bench.now());
    for order in 0..30 {
        let position = BATCHES + order;
        let line = |bench: &Bench| {
            let (number, entries) = (bench.index.segments() - 1, u64::from(bench.view.layout.geometry.segment_entries));
            bench.view.layout.index_entry(0, number, position % entries)
        };
        bench.append(1, order);
        let at = line(&bench);
        let guard = bench.view.memory.load(at);
        assert_eq!(guard, position + 1);
        bench.view.memory.store(at, 0);
        run_for(&mut bench, 600_000_000);
        assert_eq!((bench.subscribers(), bench.export.counters.delivered_batches), (1, order), "it is met again");
        if order == 29 {
            break;
        }
        bench.view.memory.store(at, guard);
        // Taken in by the peer, so that there is room for the next.
        let reading = peer.try_clone().unwrap();
        drain(reading, &mut bench, order + 1);
    }
    run_for(&mut bench, 600_000_000);
    assert_eq!(bench.export.counters.inconsistent, 1);
    assert_eq!(last_words(&mut peer), Some(Refusal::Damaged));
}

/// Reads what came until this many batches were delivered.
fn drain(mut peer: std::net::TcpStream, bench: &mut Bench, batches: u64) {
    use std::io::Read;
    peer.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while bench.export.counters.delivered_batches < batches || !bench.export.awake.is_empty() {
        bench.pass(false);
        let _ = peer.read(&mut buffer);
    }
    peer.set_nonblocking(false).unwrap();
}
