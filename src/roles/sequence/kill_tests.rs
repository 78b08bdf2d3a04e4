//! A sequencer that is killed before any single one of its memory operations, and one that is looked at from another host
//! between any two of them.

use std::sync::{Arc, Mutex};

use super::active::ActiveSequencer;
use super::tests::{Feeder, Follower, batch, open, start, topic_spec};
use crate::log::checkpoint::{RecoverError, recover};
use crate::log::commit::CommitReader;
use crate::log::entry::to_event;
use crate::log::order_index::IndexReader;
use crate::log::{Homes, View};
use crate::order::SessionTable;
use crate::pool::record::IndexEntry;
use crate::pool::{Layout, Memory};
use crate::sim::memory::{HostMemory, SharedMemory, Whim, small_geometry};
use crate::sim::random::Random;
use crate::sim::watched::Watched;
use crate::wire::OrderLevel;

type Watch = Watched<HostMemory>;

/// Two hosts: lanes and candidate 0 live on host 0, candidate 1 on host 1.
fn pool(whim: Whim, seed: u64) -> (View<Watch>, View<HostMemory>, View<HostMemory>) {
    let layout = Arc::new(Layout::new(small_geometry(2)).unwrap());
    let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, whim, seed);
    let homes = |here| Homes { here, brokers: vec![0, 0], candidates: vec![0, 1] };
    let watched = View::new(Watched::new(pool.host(0)), layout.clone(), homes(0));
    let here = View::new(pool.host(0), layout.clone(), homes(0));
    (watched, here, View::new(pool.host(1), layout, homes(1)))
}

/// A pool in which much has happened: ring laps, checkpoints, a session that has been silent for long.
fn with_history(view: &View<Watch>, feeder: &mut Feeder<HostMemory>) -> ActiveSequencer<Watch> {
    let mut sequencer = start(view, 0);
    feeder.lane.publish(&topic_spec(view, OrderLevel::Session));
    sequencer.pass(1);
    for session in [3, 8] {
        feeder.lane.publish(&open(session));
    }
    feeder.put(batch(8, 0), 64);
    for seq in 0..70 {
        assert!(feeder.put(batch(3, seq), 4096));
        sequencer.pass(2 + seq);
    }
    sequencer
}

/// After the kill: a successor, more batches, and everything is there once and in order.
fn goes_on<M: Memory>(view: &View<M>, candidate: u32, feeder: &mut Feeder<HostMemory>, next: [u64; 2], why: &str) {
    let mut sequencer = start(view, candidate);
    assert!(sequencer.core().table().slot_of(3).is_some(), "{why}: a session is lost");
    let mut follower = Follower::new(view);
    for seq in 0..80 {
        assert!(feeder.put(batch(3, next[0] + seq), 4096), "{why}: the lane is stuck");
        assert!(feeder.put(batch(8, next[1] + seq), 64), "{why}: the lane is stuck");
        sequencer.pass(1000 + seq);
        follower.follow();
    }
    (2000..2005).for_each(|now| {
        sequencer.pass(now);
    });
    follower.follow();
    let slots = [3, 8].map(|session| sequencer.core().table().slot_of(session).expect(why));
    let found = slots.map(|slot| follower.next_batch[&slot]);
    assert_eq!(found, next.map(|next| next + 80), "{why}: {:?}", sequencer.counters());
    assert_eq!(sequencer.counters().duplicates, 0, "{why}: a slot was taken twice");
    assert_eq!(sequencer.core().held(), 0, "{why}: a slot was missed");
}

#[test]
fn killed_at_any_operation_of_a_pass_nothing_is_lost_or_repeated() {
    for successor in 0..2 {
        for operation in 0.. {
            let why = format!("killed before operation {operation}, candidate {successor} goes on");
            let (watched, here, there) = pool(Whim::NONE, 1);
            let mut feeder = Feeder::new(&here, 0);
            let mut sequencer = with_history(&watched, &mut feeder);
            (0..3).for_each(|seq| assert!(feeder.put(batch(3, 70 + seq), 64)));
            let ended = watched.memory.killed_at(operation, || sequencer.pass(100)).is_some();
            match successor {
                0 => goes_on(&here, 0, &mut feeder, [73, 1], &why),
                _ => goes_on(&there, 1, &mut feeder, [73, 1], &why),
            }
            if ended {
                assert!(operation > 50, "a pass has more operations than {operation}");
                break;
            }
        }
    }
}

/// The one that takes over is killed in turn.
#[test]
fn killed_at_any_operation_of_a_takeover_nothing_is_lost_or_repeated() {
    for step in 0.. {
        // A takeover writes every session's checkpoint: thousands of operations, of which a prime step meets enough.
        let operation = step * 7;
        let why = format!("killed before operation {operation} of its takeover");
        let (watched, here, _) = pool(Whim::NONE, 1);
        let mut feeder = Feeder::new(&here, 0);
        let mut sequencer = with_history(&watched, &mut feeder);
        assert!(feeder.put(batch(3, 70), 64));
        sequencer.pass(100);
        drop(sequencer);
        let ended = watched.memory.killed_at(operation, || drop(start(&watched, 0))).is_some();
        goes_on(&here, 0, &mut feeder, [71, 1], &why);
        if ended {
            break;
        }
    }
}

/// What the entries below a watermark come to, folded by one who has followed from the start.
struct Fold {
    index: IndexReader<HostMemory>,
    table: SessionTable,
}

impl Fold {
    fn up_to(&mut self, commit: &crate::log::commit::Commit, why: &str) -> &SessionTable {
        let mut entries = [IndexEntry::default(); 16];
        while self.index.next() < commit.watermark {
            let count = self.index.read(commit, &mut entries).unwrap_or_else(|fault| panic!("{why}: {fault:?}"));
            entries[..count].iter().for_each(|entry| self.table.apply(&to_event(entry).expect("a known kind")));
            self.index.advance(count);
        }
        &self.table
    }
}

/// Checkpoints and what is replayed on them are the fold of the index, in every state that another host ever sees.
#[test]
fn checkpoints_and_replay_are_the_fold_at_any_moment() {
    for seed in 0..6 {
        let (watched, here, there) = pool(Whim::HARSH, seed);
        let mut feeder = Feeder::new(&here, 0);
        let commit = CommitReader::new(&there);
        let g = there.layout.geometry;
        let mut fold =
            Fold { index: IndexReader::new(&there, 0), table: SessionTable::new(g.sessions_max, g.topics_max) };
        let mut random = Random::new(seed);
        let looked = Arc::new(Mutex::new(0));
        let count = looked.clone();
        watched.memory.on_each(move || {
            if !random.chance(1, 12) {
                return;
            }
            // Nobody yet, or not settled; what is damaged below a watermark was never there for this host.
            let found = recover(&there, &commit);
            assert!(!matches!(found, Err(RecoverError::Damaged(_))), "seed {seed}: {:?}", found.err());
            let Ok(Some(found)) = found else { return };
            let why = format!("seed {seed}, watermark {}", found.commit.watermark);
            let expected = fold.up_to(&found.commit, &why);
            assert_eq!(found.table.sessions(), expected.sessions(), "{why}");
            assert_eq!(found.table.topic(0), expected.topic(0), "{why}");
            assert_eq!(found.topics.len(), expected.topic_count() as usize, "{why}");
            *count.lock().unwrap() += 1;
        });
        let mut sequencer = start(&watched, 0);
        feeder.lane.publish(&topic_spec(&here, OrderLevel::Session));
        sequencer.pass(1);
        (1..=3).for_each(|session| {
            feeder.lane.publish(&open(session));
        });
        let mut random = Random::new(seed);
        let mut next = [0; 3];
        for now in 2..30 {
            for _ in 0..random.below(4) {
                let session = random.below(3);
                assert!(feeder.put(batch(session + 1, next[session as usize]), 64));
                next[session as usize] += 1;
            }
            sequencer.pass(now);
        }
        watched.memory.stop();
        assert!(*looked.lock().unwrap() > 100, "seed {seed}: it looked {} times", looked.lock().unwrap());
    }
}

/// The sequencer's host has the empty slot in its cache, for it looked there in the pass before.
#[test]
fn a_published_slot_is_taken_by_the_next_pass() {
    for seed in 0..20 {
        let (_, here, there) = pool(Whim { evict: 0, prefetch: 0, prompt_flush: 300 }, seed);
        let mut feeder = Feeder::new(&here, 0);
        let mut sequencer = start(&there, 1);
        for now in 1..100 {
            sequencer.pass(2 * now);
            feeder.lane.refresh(&CommitReader::new(&here));
            feeder.lane.publish(&open(now));
            let before = sequencer.counters().consumed_slots;
            sequencer.pass(2 * now + 1);
            assert_eq!(sequencer.counters().consumed_slots, before + 1, "seed {seed}, slot {now}");
        }
    }
}
