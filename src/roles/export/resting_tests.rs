//! Subscriptions that have everything there is, beside a topic that others publish to.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use super::ExportSettings;
use super::tests::{BATCHES, Bench, append, last_words, settings};
use crate::config::SendMode;
use crate::log::commit::CommitWriter;
use crate::log::entry::to_entry;
use crate::log::order_index::IndexWriter;
use crate::log::retention::NO_PIN;
use crate::order::Event;
use crate::pool::record::FloorLine;
use crate::runtime::Now;
use crate::wire::{Refusal, SlowReader, StartAt};

/// A bench with this many subscribers of topic 1, of which there is nothing yet, at rest.
fn resting(subscribers: u32) -> (Bench, Vec<TcpStream>) {
    let most = settings(SendMode::Copy, SlowReader::Wait);
    let mut bench = Bench::new(ExportSettings { connections_max: subscribers, ..most });
    let mut peers = Vec::new();
    for _ in 0..subscribers {
        peers.push(bench.subscribe_to(&[(1, StartAt::Latest)]));
        bench.pass(false);
    }
    bench.run_until("they rest", |bench| bench.export.awake.is_empty());
    assert_eq!(bench.subscribers(), subscribers as usize);
    (bench, peers)
}

/// What has come on a connection.
fn heard(peer: &mut TcpStream) -> usize {
    peer.set_nonblocking(true).unwrap();
    let (mut buffer, mut all) = (vec![0; 1 << 20], 0);
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => panic!("the connection was closed"),
            Ok(count) => all += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_a_pass_reads_does_not_grow_with_those_that_rest() {
    const PASSES: u64 = 100;
    for subscribers in [1, 60] {
        let (mut bench, mut peers) = resting(subscribers);
        peers.iter_mut().for_each(|peer| assert!(heard(peer) > 0, "a welcome"));
        let before = bench.export.counters;
        for pass in 0..PASSES {
            bench.append(0, BATCHES + pass);
            bench.pass(false);
            assert_eq!(bench.export.hold.position(), bench.index.next(), "the pin follows");
        }
        let after = bench.export.counters;
        let read = (after.entries_read - before.entries_read, after.confirms - before.confirms);
        assert_eq!(read, (PASSES, PASSES), "{subscribers} subscribers");
        assert_eq!(bench.export.awake.len(), 0);
        // And what is theirs reaches all of them.
        bench.append(1, 0);
        bench.append(0, BATCHES + PASSES);
        bench.run_until("they rest again", |bench| {
            bench.export.awake.is_empty() && bench.export.counters.delivered_batches == u64::from(subscribers)
        });
        peers.iter_mut().for_each(|peer| assert!(heard(peer) > 1000, "the batch"));
        assert_eq!(bench.export.hold.position(), bench.index.next());
    }
}

#[test]
fn one_that_rests_and_goes_holds_nothing() {
    let (mut bench, mut peers) = resting(3);
    let staying = peers.pop();
    drop(peers);
    bench.run_until("they are forgotten", |bench| bench.subscribers() == 1);
    assert_eq!(bench.export.hold.position(), bench.index.next());
    drop(staying);
    bench.run_until("all are forgotten", |bench| bench.subscribers() == 0);
    bench.pass(false);
    assert_eq!((bench.export.hold.position(), bench.export.tail.needs()), (NO_PIN, NO_PIN));
    let _again = bench.subscribe_to(&[(1, StartAt::Latest)]);
    bench.run_until("one rests", |bench| bench.export.tail.needs() != NO_PIN);
}

/// What it appends after the claim lies where its successor appends something else.
#[test]
fn what_a_superseded_sequencer_appends_is_passed_by_nobody() {
    let (mut bench, mut peers) = resting(2);
    peers.iter_mut().for_each(|peer| assert!(heard(peer) > 0, "a welcome"));
    let watermark = bench.commits.watermark();
    bench.pass(false);
    // That they were waited for is known for a moment.
    bench.stands_at = Some(Now { monotonic_ns: bench.export.looked_ns, ..bench.now() });
    let mut successor = CommitWriter::take(&bench.view, 1);
    let epoch = successor.claim(bench.commits.epoch(), 2);
    bench.append(0, BATCHES);
    let confirms = bench.export.counters.confirms;
    bench.run(Duration::from_millis(20));
    assert!(bench.export.counters.confirms > confirms, "it was looked at");
    bench.stands_at = None;
    let mut index = IndexWriter::new(&bench.view, 1, epoch, watermark);
    append(&bench.view, &mut index, 1, 0);
    successor.activate(watermark);
    bench.publish_floors(1, FloorLine::default());
    successor.advance(index.next(), index.segments());
    bench.run_until("both get it", |bench| bench.export.counters.delivered_batches == 2);
    bench.run_until("they rest", |bench| bench.export.awake.is_empty());
    peers.iter_mut().for_each(|peer| assert!(heard(peer) > 1000, "the batch"));
}

#[test]
fn one_that_rests_is_told_that_its_topic_was_deleted() {
    let (mut bench, mut peers) = resting(1);
    bench.append(0, BATCHES);
    bench.index.append(to_entry(&Event::TopicDeleted { topic: 1, lane: 0, lane_slot: 0 }));
    bench.append(0, BATCHES + 1);
    bench.run_until("it ends", |bench| bench.subscribers() == 0);
    peers[0].set_nonblocking(false).unwrap();
    assert_eq!(last_words(&mut peers[0]), Some(Refusal::TopicDeleted));
}

/// Their pin was not waited for: what they stand before may be gone.
#[test]
fn those_that_rest_and_were_not_waited_for_are_told() {
    let (mut bench, peers) = resting(2);
    bench.drop_pin(BATCHES + 1);
    bench.run_until("they are let go", |bench| bench.export.counters.too_slow == 2);
    drop(peers);
}
