//! The stream as the network may cut it: at every byte, byte by byte, many batches at once, across runs and extents.

use embarcadero::Start;
use embarcadero::testing::random::Random;
use embarcadero::wire::frame::{self, Goodbye};
use embarcadero::wire::{OrderLevel, Receipts};

use crate::harness::{Cluster, Setup, Site, Task};
use crate::raw::{Raw, batch};
use crate::traffic::{Fifo, Watcher, message, varied_bytes};

/// One broker with the smallest extents; `idle_release` decides how soon a connection gives its run back.
fn site(name: &str, receive: &'static str) -> (Site, Cluster) {
    let geometry =
        "extent_bytes: 256KiB, ring_slots: 64, segment_entries: 256, segments: 4, sessions_max: 8, topics_max: 8";
    let site = Site::new(name, &Setup { brokers: 1, pool: "bytes: 16MiB", geometry, receive, ..Setup::default() });
    let cluster = site.start();
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    (site, cluster)
}

const PATIENT: &str = "connections_max: 8, receive_bytes_max: 256KiB";
const HASTY: &str = "connections_max: 8, receive_bytes_max: 256KiB, idle_release: 1ms";

fn goodbye(mut raw: Raw, acked: u64) {
    raw.wait_acked(acked);
    raw.send(&frame::seal(&Goodbye::default()));
    raw.expect_closed();
}

/// Two messages of a few sizes: about 300 bytes.
fn small_batch(welcome: &frame::Welcome, batch_seq: u64) -> Vec<u8> {
    let pair = [2 * batch_seq, 2 * batch_seq + 1].map(|number| message(1, number, varied_bytes(number) % 90 + 16));
    batch(welcome, batch_seq, &pair)
}

/// Each batch in two pieces, cut one byte further than the last; the second is sent when the broker has taken the first.
fn split_everywhere(name: &str, receive: &'static str) {
    let (site, cluster) = site(name, receive);
    let mut watcher = Watcher::connect(site.subscriber("t", 0, Start::Earliest), Fifo::Publisher);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), "t");
    let (mut batch_seq, mut offset) = (0, 1);
    let mut longest = 0;
    loop {
        let bytes = small_batch(&welcome, batch_seq);
        longest = longest.max(bytes.len());
        if offset >= longest {
            break;
        }
        let (first, second) = bytes.split_at(offset.min(bytes.len()));
        raw.send(first);
        raw.wait_taken();
        raw.send(second);
        (batch_seq, offset) = (batch_seq + 1, offset + 1);
    }
    assert!(longest > 250, "a batch of {longest} bytes is no test");
    watcher.read_exactly(2 * batch_seq);
    assert_eq!(watcher.seen.complete(1), 2 * batch_seq);
    goodbye(raw, batch_seq);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    // The second piece of a batch may come together with the first of the next; the cut itself is always one.
    assert!(counters.received("receives") >= batch_seq, "the pieces came apart: {counters:?}");
}

#[test]
fn a_batch_cut_at_every_byte() {
    split_everywhere("cuts", PATIENT);
}

/// The same, while the connection gives its run back in every pause.
#[test]
fn a_batch_cut_at_every_byte_on_a_connection_that_keeps_no_memory() {
    split_everywhere("hasty-cuts", HASTY);
}

#[test]
fn byte_by_byte_and_many_at_once() {
    const DRIBBLED: u64 = 4;
    const AT_ONCE: u64 = 1000;
    let (site, cluster) = site("dribble", PATIENT);
    let mut watcher = Watcher::connect(site.subscriber("t", 0, Start::Earliest), Fifo::Publisher);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), "t");
    for batch_seq in 0..DRIBBLED {
        small_batch(&welcome, batch_seq).iter().for_each(|byte| raw.send(&[*byte]));
    }
    // More than a ring holds, in one write.
    let many: Vec<u8> = (DRIBBLED..DRIBBLED + AT_ONCE).flat_map(|batch_seq| small_batch(&welcome, batch_seq)).collect();
    let sender = Task::spawn("the sender", move || {
        raw.send(&many);
        raw
    });
    watcher.read_exactly(2 * (DRIBBLED + AT_ONCE));
    assert_eq!(watcher.seen.complete(1), 2 * (DRIBBLED + AT_ONCE));
    goodbye(sender.join(), DRIBBLED + AT_ONCE);
    cluster.stop();
    site.counters().check_conserved();
}

/// Batches of all lengths up to the largest, several times the pool in all, in pieces of all lengths.
#[test]
fn batches_across_the_ends_of_runs_and_extents() {
    const BYTES: usize = 40 << 20;
    let (site, cluster) = site("extents", PATIENT);
    let mut watcher = Watcher::connect(site.subscriber("t", 0, Start::Earliest), Fifo::Publisher);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), "t");
    let largest = welcome.batch_bytes_max as usize;
    assert_eq!(largest, 64 << 10);
    let sender = Task::spawn("the sender", move || {
        let (mut random, mut sent, mut number, mut batch_seq) = (Random::new(5), 0, 0, 0);
        let mut pending = Vec::new();
        while sent < BYTES {
            // Every tenth batch is as large as it may be: 64 of batch header, 16 of message header.
            let bytes =
                if batch_seq % 10 == 0 { largest - 80 } else { 16 + random.below(largest as u64 - 96) as usize };
            let frame = batch(&welcome, batch_seq, &[message(1, number, bytes)]);
            (sent, number, batch_seq) = (sent + frame.len(), number + 1, batch_seq + 1);
            pending.extend(frame);
            let piece = 1 + random.below(3 * largest as u64) as usize;
            if pending.len() >= piece {
                raw.send(&pending[..piece]);
                pending.drain(..piece);
            }
        }
        raw.send(&pending);
        (raw, batch_seq)
    });
    watcher.read_until("several times the pool", |seen| seen.messages > 1000);
    let (raw, batches) = sender.join();
    watcher.read_exactly(batches);
    assert_eq!(watcher.seen.complete(1), batches);
    goodbye(raw, batches);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert!(counters.sequencer["trims"] > 0, "memory was used again");
}
