//! A sequencer that is killed before any single one of its memory operations, and one that is looked at from another host
//! between any two of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::active::ActiveSequencer;
use super::tests::{FIRST, Feeder, Follower, batch, open, start, topic_spec};
use crate::log::View;
use crate::log::checkpoint::recover;
use crate::log::commit::{Commit, CommitReader, CommitWriter};
use crate::log::entry::to_event;
use crate::log::lane::LaneWriter;
use crate::log::order_index::IndexReader;
use crate::log::recover::RecoverError;
use crate::log::retention::{FloorReader, NO_PIN, Pin};
use crate::log::views::{host_views, plain_view};
use crate::order::SessionTable;
use crate::order::table::Session;
use crate::pool::line::observe_words;
use crate::pool::record::{IndexEntry, Record, SessionLine, entry_kind};
use crate::pool::{Access, Geometry, Layout, Memory};
use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};
use crate::testing::random::Random;
use crate::testing::watched::Watched;
use crate::wire::OrderLevel;

type Watch = Watched<HostMemory>;

const SECOND: u64 = FIRST + 1;

/// Two hosts: lanes and candidate 0 live on host 0, candidate 1 on host 1.
fn pool(whim: Whim, seed: u64) -> (View<Watch>, View<HostMemory>, View<HostMemory>) {
    let (_, watched, here, there) = powered_pool(whim, seed);
    (watched, here, there)
}

fn powered_pool(whim: Whim, seed: u64) -> (SharedMemory, View<Watch>, View<HostMemory>, View<HostMemory>) {
    let (pool, mut views) = host_views([0, 0], &[0, 1], whim, seed);
    let (there, here) = (views.remove(1), views.remove(0));
    (pool, here.with_memory(Watched::new(here.memory.clone())), here, there)
}

/// A pool in which much has happened: ring laps, checkpoints, a session that has been silent for long.
fn with_history<M: Memory>(view: &View<M>, candidate: u32, feeder: &mut Feeder<HostMemory>) -> ActiveSequencer<M> {
    let mut sequencer = start(view, candidate);
    feeder.lane.publish(&topic_spec(feeder.view(), OrderLevel::Session));
    sequencer.pass(1);
    for _ in [FIRST, SECOND] {
        feeder.lane.publish(&open());
    }
    feeder.put(batch(SECOND, 0), 64);
    for seq in 0..70 {
        assert!(feeder.put(batch(FIRST, seq), 4096));
        sequencer.pass(2 + seq);
    }
    sequencer
}

/// After the kill: a successor, more batches, and everything is there once and in order.
fn goes_on<M: Memory>(view: &View<M>, candidate: u32, feeder: &mut Feeder<HostMemory>, next: [u64; 2], why: &str) {
    let mut sequencer = start(view, candidate);
    assert!(sequencer.core().table().slot_of(FIRST).is_some(), "{why}: a session is lost");
    let mut follower = Follower::new(view);
    if sequencer.counters().floor > 0 {
        follower.begin_at(CommitReader::new(view).current().expect("it is active").watermark, sequencer.core().table());
    }
    for seq in 0..80 {
        for (slot, bytes) in [(batch(FIRST, next[0] + seq), 4096), (batch(SECOND, next[1] + seq), 64)] {
            if feeder.put(slot, bytes) {
                continue;
            }
            // The dead one may have left a claim in its host's cache. Whoever meets it there writes it back.
            assert!(!CommitReader::new(view).confirm(sequencer.epoch()), "{why}: the lane is stuck");
            sequencer = start(view, candidate);
            assert!(feeder.put(slot, bytes), "{why}: the lane is stuck");
        }
        sequencer.pass(1000 + seq);
        follower.follow();
    }
    (2000..2005).for_each(|now| {
        sequencer.pass(now);
    });
    follower.follow();
    let slots = [FIRST, SECOND].map(|session| sequencer.core().table().slot_of(session).expect(why));
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
            let mut sequencer = with_history(&watched, 0, &mut feeder);
            (0..3).for_each(|seq| assert!(feeder.put(batch(FIRST, 70 + seq), 64)));
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

/// The one that takes over is killed in turn, whoever was before it and whoever comes after.
#[test]
fn killed_at_any_operation_of_a_takeover_nothing_is_lost_or_repeated() {
    for (predecessor, successor) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let run = || {
            let (watched, here, there) = pool(Whim::NONE, 1);
            let mut feeder = Feeder::new(&here, 0);
            let next = with_predecessor(predecessor, &watched, &there, &mut feeder);
            (watched, here, there, feeder, next)
        };
        let (watched, ..) = run();
        let total = operations(&watched.memory, || drop(start(&watched, 0)));
        assert!(total > 500, "a takeover has more operations than {total}");
        // Of the thousands in which lines are read and checkpoints written some will do; the order at its end is what matters.
        let early = (0..total - 100).step_by(if predecessor == 0 { 7 } else { 41 });
        for operation in early.chain(total - 100..=total) {
            let why =
                format!("{predecessor} before, {successor} after, killed before operation {operation} of {total}");
            let (watched, here, there, mut feeder, next) = run();
            watched.memory.killed_at(operation, || drop(start(&watched, 0)));
            match successor {
                0 => goes_on(&here, 0, &mut feeder, [next, 1], &why),
                _ => goes_on(&there, 1, &mut feeder, [next, 1], &why),
            }
        }
    }
}

/// Operations on memory that some work takes.
fn operations(memory: &Watched<HostMemory>, work: impl FnOnce()) -> u64 {
    let counter = Arc::new(AtomicU64::new(0));
    let count = counter.clone();
    memory.on_each(move || {
        count.fetch_add(1, Relaxed);
    });
    work();
    memory.stop();
    counter.load(Relaxed)
}

/// Candidate 0 was active, and so was 1 if it is the predecessor now. Gives session 3's next batch.
fn with_predecessor(
    predecessor: u32,
    watched: &View<Watch>,
    there: &View<HostMemory>,
    feeder: &mut Feeder<HostMemory>,
) -> u64 {
    drop(with_history(watched, 0, feeder));
    if predecessor == 0 {
        return 70;
    }
    // Longer than the index, so that what candidate 0 once wrote names what is gone; then a lap of the ring that leaves no trace
    // in the index.
    let mut sequencer = start(there, 1);
    let last = 1300;
    for seq in (70..last).chain((0..100).map(|_| 0)) {
        while !feeder.put(batch(FIRST, seq), 64) {
            sequencer.pass(100 + seq);
        }
        if seq % 16 == 0 {
            sequencer.pass(100 + seq);
        }
    }
    (2000..2010).for_each(|now| {
        sequencer.pass(now);
    });
    assert!(sequencer.counters().trims > 0 && sequencer.counters().duplicates == 100);
    last
}

/// Its host loses power in the last steps of a takeover: what it wrote in front of the others' eyes was written back before.
#[test]
fn a_power_loss_at_the_end_of_a_takeover_loses_nothing() {
    let run = |seed, operation| {
        let (pool, watched, here, there) = powered_pool(Whim { prompt_flush: 300, ..Whim::LAZY }, seed);
        let mut feeder = Feeder::new(&here, 0);
        let mut sequencer = with_history(&watched, 0, &mut feeder);
        (70..73).for_each(|seq| assert!(feeder.put(batch(FIRST, seq), 64)));
        watched.memory.killed_at(operation, || sequencer.pass(100));
        (pool, watched, here, there, feeder)
    };
    // Its former life was killed between the commit and what is derived from it.
    let watermark = |view: &View<HostMemory>| CommitReader::new(view).current().expect("it is active").watermark;
    let (_, _, here, _, _) = run(1, 0);
    let before = watermark(&here);
    let committed = (0..).find(|operation| watermark(&run(1, *operation).2) > before).expect("a pass commits") + 8;
    let (_, watched, ..) = run(1, committed);
    let total = operations(&watched.memory, || drop(start(&watched, 0)));
    for operation in total - 60..=total {
        for seed in 0..12 {
            let (pool, watched, _, there, mut feeder) = run(seed, committed);
            watched.memory.killed_at(operation, || drop(start(&watched, 0)));
            pool.lose_power(0);
            goes_on(&there, 1, &mut feeder, [73, 1], &format!("seed {seed}, before operation {operation} of {total}"));
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
    for seed in 0..24 {
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
            assert_eq!(found.topics.iter().flatten().count(), expected.topic_count() as usize, "{why}");
            *count.lock().unwrap() += 1;
        });
        let mut sequencer = start(&watched, 0);
        feeder.lane.publish(&topic_spec(&here, OrderLevel::Session));
        sequencer.pass(1);
        (0..3).for_each(|_| {
            feeder.lane.publish(&open());
        });
        let mut random = Random::new(seed);
        let mut next = [0; 3];
        for now in 2..30 {
            for _ in 0..random.below(4) {
                let session = random.below(3);
                assert!(feeder.put(batch(FIRST + session, next[session as usize]), 64));
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
        let (_, here, there) = pool(Whim { prompt_flush: 300, ..Whim::LAZY }, seed);
        let mut feeder = Feeder::new(&here, 0);
        let mut sequencer = start(&there, 1);
        for now in 1..100 {
            sequencer.pass(2 * now);
            feeder.lane.refresh(u64::MAX);
            feeder.lane.publish(&open());
            let before = sequencer.counters().consumed_slots;
            sequencer.pass(2 * now + 1);
            assert_eq!(sequencer.counters().consumed_slots, before + 1, "seed {seed}, slot {now}");
        }
    }
}

/// A sequencer that goes on, or is superseded, while a takeover or a late ack core reads its lines: what they find is the state at
/// one watermark, or they are told to try again.
#[test]
fn what_is_recovered_is_of_one_moment_though_its_writer_goes_on() {
    for (is_superseded, end, at_least) in [(false, 75, 50), (false, 1500, 5), (true, 75, 5), (true, 1500, 5)] {
        let mut recovered = 0;
        for moment in (0..700).step_by(3) {
            let why = format!("superseded: {is_superseded}, up to {end}, moment {moment}");
            let (watched, here, there) = pool(Whim::NONE, 1);
            let mut feeder = Feeder::new(&here, 0);
            let mut sequencer = with_history(&there, 1, &mut feeder);
            let history = Arc::new(Mutex::new(vec![moment_of(&there, &sequencer)]));
            let keeps = history.clone();
            watched.memory.at(moment, move || {
                if is_superseded {
                    sequencer = start(&here, 0);
                }
                for seq in 70..end {
                    feeder.put(batch(FIRST, seq), 4096);
                    sequencer.pass(100 + seq);
                    keeps.lock().unwrap().push(moment_of(&there, &sequencer));
                }
            });
            let found = recover(&watched, &CommitReader::new(&watched));
            watched.memory.stop();
            assert!(!matches!(found, Err(RecoverError::Damaged(_))), "{why}: {:?}", found.err());
            let Ok(Some(found)) = found else { continue };
            let history = history.lock().unwrap();
            let then = history
                .iter()
                .find(|then| then.0 == found.commit)
                .unwrap_or_else(|| panic!("{why}: {:?}", found.commit));
            assert_eq!(found.table.sessions(), then.1, "{why}");
            assert_eq!(found.table.topic(0).map(|topic| topic.next_order), then.2, "{why}");
            recovered += 1;
        }
        assert!(recovered >= at_least, "only {recovered} recoveries came to an end");
    }
}

type Moment = (Commit, Vec<Session>, Option<u64>);

fn moment_of<M: Memory>(view: &View<M>, sequencer: &ActiveSequencer<M>) -> Moment {
    let table = sequencer.core().table();
    let commit = CommitReader::new(view).current().expect("it is active");
    (commit, table.sessions().to_vec(), table.topic(0).map(|topic| topic.next_order))
}

/// More sessions are dirty than one pass checkpoints.
#[test]
fn a_checkpoint_counts_only_when_its_round_is_complete() {
    let layout = Arc::new(Layout::new(Geometry { sessions_max: 200, ..small_geometry(1) }).unwrap());
    let memory = SharedMemory::new(layout.geometry.pool_bytes, 1, Whim::NONE, 1).host(0);
    let view = View::single_host(memory, layout);
    let mut feeders = [0, 1].map(|lane| Feeder::new(&view, lane));
    let mut sequencer = start(&view, 0);
    feeders[0].lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    let reader = CommitReader::new(&view);
    (0..150).for_each(|number| {
        assert!(feeders[0].put(open(), 64));
        sequencer.pass(2 + number);
    });
    // Each session has its lane: together they make more dirty in a pass than it writes.
    let slots = |lane| {
        let mine = move || (FIRST..FIRST + 150).filter(move |session| session % 2 == lane);
        (0..20).flat_map(move |seq| mine().map(move |session| batch(session, seq)))
    };
    let mut waiting = [0, 1].map(|lane| slots(lane).peekable());
    let mut longest = 0;
    for now in 200..2200 {
        for (feeder, slots) in feeders.iter_mut().zip(&mut waiting) {
            while slots.peek().is_some_and(|slot| feeder.put(*slot, 64)) {
                slots.next();
            }
        }
        let before = sequencer.counters().appended_batches;
        sequencer.pass(now);
        longest = longest.max(sequencer.counters().appended_batches - before);
        let found = recover(&view, &reader).unwrap().expect("it is active");
        assert_eq!(found.table.sessions(), sequencer.core().table().sessions(), "pass {now}");
    }
    assert!(waiting.iter_mut().all(|slots| slots.peek().is_none()), "the lanes stand still");
    assert!(longest > 100, "at most {longest} batches came in a pass");
}

/// Whatever a pass or a takeover derived is fenced before it ends: it may be the last for a long while.
#[test]
fn what_a_pass_derived_is_seen_on_another_host_when_it_ends() {
    let (_, here, there) = pool(Whim::LAZY, 1);
    let mut feeder = Feeder::new(&here, 0);
    let mut sequencer = with_history(&there, 1, &mut feeder);
    let l = &there.layout;
    let mut lines = vec![l.epoch_line(1), l.floor_line(1), l.lane_progress(1, 0), l.topic_line(1, 0, 0)];
    lines.extend([l.topic_line(1, 0, 3), l.session_line(1, 0), l.session_line(1, 1)]);
    // Then duplicates, of which nothing is committed.
    for (now, seq) in (70..600).chain((0..100).map(|_| 0)).enumerate() {
        feeder.put(batch(FIRST, seq), 64 << 10);
        sequencer.pass(100 + now as u64);
        for at in &lines {
            let [ours, theirs]: [SessionLine; 2] = [(&there, Access::Local), (&here, Access::Remote)]
                .map(|(view, access)| observe_words(&view.memory, *at, access));
            assert_eq!(ours, theirs, "pass {now}, line {at}");
        }
    }
    assert!(sequencer.counters().floor > 0 && sequencer.counters().duplicates > 50);
}

/// Batches parked behind a gap are let go for the lane whose extents they hold: their publisher waits to hear of it.
#[test]
fn what_is_let_go_for_a_lane_is_committed_when_the_pass_ends() {
    let view = plain_view(1);
    let mut feeder = Feeder::new(&view, 0);
    let mut sequencer = with_history(&view, 0, &mut feeder);
    let mut seq = 71;
    for now in 100..1000 {
        while feeder.put(batch(FIRST, seq), 64 << 10) {
            seq += 1;
        }
        sequencer.pass(now);
        if sequencer.counters().let_go > 0 {
            break;
        }
    }
    assert!(sequencer.counters().let_go > 0, "the lane stands still");
    let commit = CommitReader::new(&view).current().expect("it is active");
    let (mut index, mut entries) = (IndexReader::new(&view, 0), [IndexEntry::default(); 256]);
    let count = index.read(&commit, &mut entries).unwrap();
    assert!(entries[..count].iter().any(|entry| entry.kind == entry_kind::LET_GO));
}

/// Its successor may be reading the segments below the floor: it saw the old one.
#[test]
fn a_superseded_sequencer_uses_no_segment_again() {
    for is_superseded in [false, true] {
        let view = plain_view(2);
        let mut feeder = Feeder::new(&view, 0);
        let mut sequencer = with_history(&view, 0, &mut feeder);
        let mut pin = Pin::take(&view, 0, 1);
        pin.try_lower(0, &FloorReader::new(&view)).unwrap();
        for seq in 70..2000 {
            feeder.put(batch(FIRST, seq), 64);
            sequencer.pass(100 + seq);
        }
        assert_eq!(sequencer.counters().trims, 0, "all is pinned");
        if is_superseded {
            CommitWriter::take(&view, 1).claim(sequencer.epoch(), 1);
        }
        pin.raise(NO_PIN);
        (5000..5010).for_each(|now| {
            sequencer.pass(now);
        });
        assert_eq!(sequencer.counters().trims == 0, is_superseded);
    }
}

/// A slot is seen in the cache that lane and sequencer share; its producer is stopped before it writes the slot back, and the host
/// loses power. What was taken from the slot is committed: the lane's successor must not use its number again.
#[test]
fn a_slot_that_was_taken_outlives_its_hosts_power() {
    let (pool, views) = host_views([0, 0], &[0, 1], Whim::LAZY, 1);
    let (here, there) = (&views[0], &views[1]);
    let mut sequencer = start(here, 0);
    Feeder::new(here, 0).lane.publish(&topic_spec(here, OrderLevel::Session));
    sequencer.pass(1);
    let at = here.layout.ring_slot(0, 1);
    (0..).zip(open().words()).for_each(|(index, word)| here.memory.store(at + 8 * (index + 1), word));
    here.memory.store(at, 2);
    sequencer.pass(2);
    pool.lose_power(0);
    let mut successor = start(there, 1);
    assert!(successor.core().table().slot_of(FIRST).is_some(), "it was committed");
    let mut lane = LaneWriter::take(here, 0);
    lane.publish(&open());
    successor.pass(3);
    assert!(successor.core().table().slot_of(SECOND).is_some(), "the slot is never looked at");
}
