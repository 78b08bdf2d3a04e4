//! Lane, sequencer and index together, step by step, on simulated memory.

use super::active::{ActiveSequencer, SequencerSettings};
use crate::log::View;
use crate::log::appender::Appender;
use crate::log::checkpoint::recover;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::mend::mend_candidate;
use crate::log::order_index::IndexReader;
use crate::log::recover::RecoverError;
use crate::log::topics::{Topic, write_spec};
use crate::log::views::plain_view;
use crate::order::Origin;
use crate::pool::record::{BatchSlot, IndexEntry, entry_kind, slot_kind};
use crate::pool::{Geometry, Layout, Memory, WordByWord};
use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};
use crate::wire::{AckLevel, OrderLevel};
use std::sync::Arc;

pub(crate) const SETTINGS: SequencerSettings = SequencerSettings {
    session_lease_ns: 1_000_000,
    session_expiry_ns: u64::MAX,
    retention_bytes: 0,
    retention_ns: 0,
    reader_stall_ns: 1 << 40,
    member_silence_ns: 1 << 40,
};

pub(crate) fn start<M: Memory>(view: &View<M>, candidate: u32) -> ActiveSequencer<M> {
    try_start(view, candidate).unwrap()
}

fn try_start<M: Memory>(view: &View<M>, candidate: u32) -> Result<ActiveSequencer<M>, RecoverError> {
    mend_candidate(view, candidate);
    let reader = CommitReader::new(view);
    let mut commit = CommitWriter::take(view, candidate);
    let epoch = commit.claim(reader.highest_claimed(), 1);
    let recovered = recover(view, &reader)?;
    Ok(ActiveSequencer::take_over(view, candidate, commit, epoch, recovered, SETTINGS))
}

/// A publisher straight into a lane: no network.
pub(crate) struct Feeder<M> {
    pub(super) view: View<M>,
    pub(crate) lane: Appender<M>,
}

impl<M: Memory> Feeder<M> {
    pub(crate) fn new(view: &View<M>, lane: u32) -> Self {
        Feeder { view: view.clone(), lane: Appender::take(view, lane) }
    }

    /// The pool as it sees it.
    pub(crate) fn view(&self) -> &View<M> {
        &self.view
    }

    /// Puts a slot of `bytes` of payload into the lane if there is room.
    pub(crate) fn put(&mut self, slot: BatchSlot, bytes: u64) -> bool {
        self.lane.refresh(u64::MAX);
        self.lane.report(false);
        if self.lane.room() == 0 {
            return false;
        }
        let Some(run) = self.lane.acquire(bytes, bytes) else {
            self.lane.report(true);
            return false;
        };
        let blog_at = run.start;
        self.lane.publish(&BatchSlot { blog_at, batch_bytes: bytes as u32, ..slot });
        self.lane.release(run, bytes, bytes);
        true
    }
}

/// Where slots of a test's own may point: the last of a lane's founding extents, which it comes to late.
pub(crate) fn aside(view: &View<impl Memory>, lane: u32) -> u64 {
    view.layout.extent(view.layout.geometry.founding_extents(lane).end - 1)
}

pub(crate) fn topic_spec(view: &View<impl Memory>, order: OrderLevel) -> BatchSlot {
    let at = aside(view, 0);
    write_spec(view, at, &Topic::new("t", order, AckLevel::Committed));
    BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: at, batch_bytes: 192, ..BatchSlot::default() }
}

pub(crate) fn open() -> BatchSlot {
    BatchSlot { kind: slot_kind::SESSION_OPEN, session_epoch: 1, ..BatchSlot::default() }
}

/// A sequencer, and a lane that has asked it for a topic and for the first session on it.
pub(crate) fn with_session<M: Memory>(view: &View<M>) -> (ActiveSequencer<M>, Feeder<M>) {
    let (mut sequencer, mut feeder) = (start(view, 0), Feeder::new(view, 0));
    feeder.lane.publish(&topic_spec(view, OrderLevel::Session));
    sequencer.pass(1);
    feeder.lane.publish(&open());
    (sequencer, feeder)
}

/// What [`topic_spec`] asks for is the first of all, and the first session the next: this is its id.
pub(crate) const FIRST: u64 = 2;

/// The id of the session that was asked for by this slot.
pub(crate) fn session_of<M: Memory>(sequencer: &ActiveSequencer<M>, lane: u16, slot: u64) -> Option<u64> {
    let table = sequencer.core().table();
    table.opened_by(Origin { lane, slot }).map(|place| table.session(place).id)
}

pub(crate) fn batch(session: u64, batch_seq: u64) -> BatchSlot {
    let kind = slot_kind::BATCH;
    BatchSlot { kind, session, session_epoch: 1, batch_seq, message_count: 2, ..BatchSlot::default() }
}

/// Reads everything committed since the last call and checks promises 1 to 3 on it.
pub(crate) struct Follower<M> {
    index: IndexReader<M>,
    commit: CommitReader<M>,
    next_order: u64,
    pub(crate) next_batch: std::collections::HashMap<u32, u64>,
}

impl<M: Memory> Follower<M> {
    pub(crate) fn new(view: &View<M>) -> Self {
        let next_batch = Default::default();
        Follower { index: IndexReader::new(view, 0), commit: CommitReader::new(view), next_order: 0, next_batch }
    }

    /// Follows from `position` on, where the log is what `table` says.
    pub(crate) fn begin_at(&mut self, position: u64, table: &crate::order::SessionTable) {
        self.index.seek(position);
        self.next_order = table.topic(0).map_or(0, |topic| topic.next_order);
        self.next_batch = (0..).zip(table.sessions()).map(|(slot, session)| (slot, session.next_batch)).collect();
    }

    pub(crate) fn follow(&mut self) -> usize {
        let Some(commit) = self.commit.current() else { return 0 };
        let mut entries = [IndexEntry::default(); 64];
        let mut total = 0;
        loop {
            let count = self.index.read(&commit, &mut entries).unwrap();
            if count == 0 || !self.commit.confirm(commit.epoch) {
                return total;
            }
            for entry in &entries[..count] {
                if entry.kind != entry_kind::BATCH {
                    continue;
                }
                assert_eq!(entry.first_order, self.next_order, "topic order is dense");
                self.next_order += u64::from(entry.message_count);
                let next = self.next_batch.entry(entry.session_slot).or_default();
                assert_eq!(entry.batch_seq, *next, "session {} in order", entry.session_slot);
                *next += 1;
            }
            self.index.advance(count);
            total += count;
        }
    }
}

#[test]
fn an_idle_pass_moves_nothing() {
    let view = plain_view(1);
    let mut sequencer = start(&view, 0);
    for now in 1..100 {
        assert_eq!(sequencer.pass(now * 1000), 0);
    }
}

/// Result 4 of the first issue: 64 slots, 1,024 entries, 1,000 laps of both; extents are reused all the while.
#[test]
fn a_thousand_laps() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut follower = Follower::new(&view);
    assert_eq!(
        (view.layout.geometry.ring_slots, view.layout.geometry.segment_entries * view.layout.geometry.segments),
        (64, 1024)
    );
    let mut now = 1;
    let mut seq = 0;
    while seq < 1_024_000 {
        while seq % 48 != 47 && feeder.put(batch(FIRST, seq), 64 << 10) {
            seq += 1;
        }
        while !feeder.put(batch(FIRST, seq), 64 << 10) {
            now += 1;
            sequencer.pass(now);
            follower.follow();
        }
        seq += 1;
    }
    (0..200).for_each(|step| {
        sequencer.pass(now + step);
        follower.follow();
    });
    assert_eq!(sequencer.counters().appended_batches, seq);
    assert_eq!(follower.next_batch[&0], seq);
    assert_eq!(follower.next_order, 2 * seq);
    assert!(feeder.lane.produced() > 1000 * 1024);
}

/// A broker that starts again has not counted its extents yet: it is not short of any, and no history is given up for it.
#[test]
fn an_owner_that_starts_again_costs_no_history() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let bytes = view.layout.geometry.extent_bytes / 4;
    for seq in 0..6 {
        assert!(feeder.put(batch(FIRST, seq), bytes));
        sequencer.pass(2 + seq);
    }
    for now in 10..20 {
        crate::log::lane::LaneWriter::take(&view, 0);
        sequencer.pass(now);
    }
    assert_eq!((sequencer.counters().appended_batches, sequencer.counters().trims), (6, 0));
}

/// Sessions striped over two lanes whose consumption is skewed: every session's batches come out 0, 1, 2, ...
#[test]
fn striped_sessions_on_incoherent_memory() {
    for seed in 0..20 {
        let layout = std::sync::Arc::new(crate::pool::Layout::new(small_geometry(1)).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 3, Whim::HARSH, seed);
        let view = |host: u32| {
            let homes = crate::log::Homes { here: host, brokers: vec![0, 1], candidates: vec![2] };
            View::new(pool.host(host as usize), layout.clone(), homes)
        };
        let mut sequencer = start(&view(2), 0);
        let mut feeders: Vec<Feeder<HostMemory>> = (0..2).map(|lane| Feeder::new(&view(lane), lane)).collect();
        let mut followers = [Follower::new(&view(0)), Follower::new(&view(1))];
        let spec = topic_spec(&view(0), OrderLevel::Session);
        feeders[0].lane.publish(&spec);
        (1..5).for_each(|now| {
            sequencer.pass(now);
        });
        for _ in 0..3 {
            feeders[0].lane.publish(&open());
        }
        let mut random = crate::testing::random::Random::new(seed);
        let mut waiting: Vec<Vec<BatchSlot>> = vec![Vec::new(); 2];
        for session in FIRST..FIRST + 3 {
            for seq in 0..60 {
                waiting[random.below(2) as usize].push(batch(session, seq));
            }
        }
        (1..20).for_each(|now| {
            sequencer.pass(now);
        });
        let mut now = 20;
        while followers.iter().any(|follower| follower.next_order < 2 * 180) {
            now += 1;
            assert!(now < 20_000, "seed {seed}: {:?} held {}", sequencer.counters(), sequencer.core().held());
            let lane = random.below(2) as usize;
            if let Some(slot) = waiting[lane].first().copied()
                && feeders[lane].put(slot, 4096)
            {
                waiting[lane].remove(0);
            }
            if random.chance(1, 3) {
                sequencer.pass(now);
            }
            for follower in &mut followers {
                follower.follow();
            }
        }
    }
}

/// The sequencer is replaced again and again, in both slots, at any step; nothing committed is lost or repeated.
#[test]
fn takeovers_lose_and_repeat_nothing() {
    for seed in 0..20 {
        let view = plain_view(2);
        let mut random = crate::testing::random::Random::new(seed);
        let mut sequencer = start(&view, 0);
        let mut feeder = Feeder::new(&view, 0);
        let mut follower = Follower::new(&view);
        feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
        sequencer.pass(1);
        feeder.lane.publish(&open());
        let mut seq = 0;
        for step in 0..3000 {
            if feeder.put(batch(FIRST, seq), 64 << 10) {
                seq += 1;
            }
            if random.chance(1, 2) {
                sequencer.pass(10 + step);
            }
            if random.chance(1, 50) {
                sequencer = start(&view, random.below(2) as u32);
            }
            follower.follow();
        }
        (0..50).for_each(|step| {
            sequencer.pass(5000 + step);
        });
        follower.follow();
        assert_eq!(follower.next_batch[&0], seq, "seed {seed}");
        assert_eq!(sequencer.core().table().session(0).next_batch, seq);
    }
}

/// Memory of a process that is killed after so many stores: no later one happens.
#[derive(Clone)]
struct Mortal {
    memory: HostMemory,
    stores_left: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Mortal {
    fn view(view: &View<HostMemory>, stores: u64) -> View<Mortal> {
        let stores_left = std::sync::Arc::new(stores.into());
        View::single_host(Mortal { memory: view.memory.clone(), stores_left }, view.layout.clone())
    }

    fn lives(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        self.stores_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn is_dead(&self) -> bool {
        self.stores_left.load(std::sync::atomic::Ordering::Relaxed) == 0
    }
}

impl Memory for Mortal {
    const SOFTWARE: bool = HostMemory::SOFTWARE;
    type Line<'a> = WordByWord<'a, Self>;
    fn bytes(&self) -> u64 {
        self.memory.bytes()
    }
    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }
    fn store(&self, at: u64, word: u64) {
        if self.lives() {
            self.memory.store(at, word);
        }
    }
    fn load(&self, at: u64) -> u64 {
        self.memory.load(at)
    }
    fn flush_line(&self, at: u64, keep: crate::pool::Keep) {
        self.memory.flush_line(at, keep);
    }
    fn store_fence(&self) {
        self.memory.store_fence();
    }
    fn full_fence(&self) {
        self.memory.full_fence();
    }
    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        self.memory.with_bytes(at, bytes, read)
    }
    fn copy_in(&self, at: u64, bytes: &[u8]) {
        if self.lives() {
            self.memory.copy_in(at, bytes);
        }
    }
    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        if self.lives() {
            self.memory.copy_within(from, to, bytes);
        }
    }
}

/// A process that takes over, orders and is killed after any of its stores: its successor, in the same slot or another, goes on
/// without losing, repeating or holding up anything.
#[test]
fn killed_after_any_store() {
    killed_after_any_store_at(OrderLevel::Session);
}

/// Below level 5 nothing drops a batch that is taken twice. Found by killing: the checkpoint went before the lane progress.
#[test]
fn killed_after_any_store_below_level_5() {
    killed_after_any_store_at(OrderLevel::Connection);
}

fn killed_after_any_store_at(order: OrderLevel) {
    // A first process lives, a second is cut short, a third goes on. Every store of the takeover, then a sample.
    let mut died = 0;
    for stores in (0..1500).chain((1500..6000).step_by(7)) {
        let view = plain_view(2);
        let mut feeder = Feeder::new(&view, 0);
        let mut follower = Follower::new(&view);
        let mut first = start(&view, (stores % 2) as u32);
        feeder.lane.publish(&topic_spec(&view, order));
        first.pass(1);
        for _ in 0..3 {
            feeder.lane.publish(&open());
        }
        let mut seq = 0;
        let mut feed = |feeder: &mut Feeder<HostMemory>| {
            if feeder.put(batch(FIRST, seq), 64 << 10) {
                seq += 1;
            }
            seq
        };
        (0..20).for_each(|now| {
            feed(&mut feeder);
            first.pass(2 + now);
            follower.follow();
        });
        drop(first);
        let mortal = Mortal::view(&view, stores);
        // Killed in its claim, it cannot even read its own line any more.
        let second = try_start(&mortal, 0).map_err(|error| assert!(mortal.memory.is_dead(), "{error}"));
        if let Ok(mut second) = second {
            for now in 0..40 {
                if mortal.memory.is_dead() {
                    break;
                }
                feed(&mut feeder);
                second.pass(100 + now);
                follower.follow();
            }
        }
        died += u32::from(mortal.memory.is_dead());
        // Whoever comes next on this host mends what the dead one left, under its lock.
        for candidate in 0..2 {
            mend_candidate(&view, candidate);
        }
        let mut third = start(&view, (stores / 2 % 2) as u32);
        let mut fed = 0;
        for now in 0..60 {
            fed = feed(&mut feeder);
            third.pass(200 + now);
            follower.follow();
        }
        third.pass(300);
        follower.follow();
        assert_eq!(follower.next_batch[&0], fed, "killed after {stores} stores");
        assert_eq!(third.core().table().session(0).next_batch, fed, "killed after {stores} stores");
        assert_eq!(third.core().table().sessions().iter().filter(|session| session.id != 0).count(), 3);
        assert!(fed > 70, "killed after {stores} stores, the lane stands still");
    }
    assert!(died > 1500, "only {died} were killed");
}

#[test]
fn a_full_index_pushes_back_and_goes_on() {
    let view = plain_view(1);
    let mut sequencer = start(&view, 0);
    let mut feeder = Feeder::new(&view, 0);
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Total));
    sequencer.pass(1);
    feeder.lane.publish(&open());
    // A reader pins the start: nothing can be trimmed.
    let mut pin = crate::log::retention::Pin::take(&view, 0, 1);
    pin.try_lower(0, &crate::log::retention::FloorReader::new(&view)).unwrap();
    let mut seq = 0;
    for now in 2..4000 {
        while seq < 3000 && feeder.put(batch(FIRST, seq), 64) {
            seq += 1;
        }
        sequencer.pass(now);
    }
    let stuck = sequencer.counters().appended_batches;
    assert!(stuck < 1024 && seq < 3000 && sequencer.counters().index_full > 0);
    pin.raise(crate::log::retention::NO_PIN);
    for now in 4000..12_000 {
        while seq < 3000 && feeder.put(batch(FIRST, seq), 64) {
            seq += 1;
        }
        sequencer.pass(now);
    }
    assert_eq!((seq, sequencer.counters().appended_batches), (3000, 3000));
}

/// The predecessor, superseded by a claim, claims back before the claimant is active.
/// Its new epoch goes on from its old one; the claimant's epoch in between is void, yet its segment hides what was committed.
#[test]
fn a_void_epoch_in_between_hides_nothing() {
    let view = plain_view(2);
    let mut old = start(&view, 1);
    let mut feeders: Vec<Feeder<HostMemory>> = (0..2).map(|lane| Feeder::new(&view, lane)).collect();
    feeders[0].lane.publish(&topic_spec(&view, OrderLevel::Session));
    old.pass(1);
    (0..2).for_each(|_| {
        feeders[0].lane.publish(&open());
    });
    (2..5).for_each(|now| {
        old.pass(now);
    });
    (0..10).for_each(|seq| assert!(feeders[0].put(batch(FIRST, seq), 4096)));
    (5..50).for_each(|now| {
        old.pass(now);
    });
    // The other candidate takes `old` for dead: it claims and reads what it takes over.
    let reader = CommitReader::new(&view);
    let mut claim = CommitWriter::take(&view, 0);
    let void_epoch = claim.claim(reader.highest_claimed(), 1);
    let recovered = recover(&view, &reader).unwrap();
    // `old` lives, and does not know yet: void, unless it is inherited.
    (0..3).for_each(|seq| assert!(feeders[1].put(batch(FIRST + 1, seq), 4096)));
    (50..60).for_each(|now| {
        old.pass(now);
    });
    // Now it sees the claim, stands by, finds itself the highest active epoch, claims at once, and is active first.
    let mut new = start(&view, 1);
    let slot =
        |id| (0..).zip(new.core().table().sessions()).find(|(_, session)| session.id == id).expect("it is open").0;
    let (one, two) = (slot(FIRST), slot(FIRST + 1));
    let mut early = Follower::new(&view);
    early.follow();
    assert_eq!((early.next_batch.get(&one), early.next_batch.get(&two)), (Some(&10), Some(&3)));
    // The slow claimant becomes active in its void epoch, and orders, before it looks at the claims again.
    (10..12).for_each(|seq| assert!(feeders[0].put(batch(FIRST, seq), 4096)));
    let mut void = ActiveSequencer::take_over(&view, 0, claim, void_epoch, recovered, SETTINGS);
    (60..70).for_each(|now| {
        void.pass(now);
    });
    (70..80).for_each(|now| {
        new.pass(now);
    });
    early.follow();
    assert_eq!(
        (early.next_batch.get(&one), early.next_batch.get(&two)),
        (Some(&12), Some(&3)),
        "a reader that was there before"
    );
    let mut late = Follower::new(&view);
    late.follow();
    assert_eq!(
        (late.next_batch.get(&one), late.next_batch.get(&two)),
        (Some(&12), Some(&3)),
        "a reader that comes later"
    );
}

/// All of a window but its first batch comes in first, and then all of it must be appended.
#[test]
fn a_full_window_fits_the_smallest_index() {
    let geometry = Geometry { segment_entries: 256, segments: 4, ring_slots: 512, ..small_geometry(1) };
    let layout = Arc::new(Layout::new(geometry).unwrap());
    let memory = SharedMemory::new(layout.geometry.pool_bytes, 1, Whim::NONE, 1).host(0);
    let view = View::single_host(memory, layout);
    let settings = SequencerSettings { session_lease_ns: 5_000_000_000, ..SETTINGS };
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    let mut sequencer = ActiveSequencer::take_over(&view, 0, commit, epoch, None, settings);
    let mut lane = crate::log::lane::LaneWriter::take(&view, 0);
    lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    lane.publish(&open());
    sequencer.pass(2);
    let at = view.layout.extent(0);
    for seq in (1..256).chain([0]) {
        lane.publish(&BatchSlot { blog_at: at + seq * 64, batch_bytes: 64, ..batch(FIRST, seq) });
        sequencer.pass(3 + seq);
    }
    (1..1000).for_each(|ms| {
        sequencer.pass(1000 + ms * 1_000_000);
    });
    let counters = sequencer.counters();
    assert_eq!((counters.appended_batches, counters.fences), (256, 0));
}
