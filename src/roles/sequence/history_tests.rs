//! What a takeover leaves of the history, and in which steps that goes.

use std::collections::BTreeSet;

use super::tests::{FIRST, Feeder, batch, open, start, topic_spec};
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::log::order_index::IndexReader;
use crate::log::retention::{FloorReader, Pin};
use crate::log::views::plain_view;
use crate::pool::record::{BatchSlot, IndexEntry, entry_kind, holding};
use crate::roles::sequence::active::ActiveSequencer;
use crate::testing::memory::HostMemory;
use crate::testing::random::Random;
use crate::wire::OrderLevel;

const SESSIONS: u64 = 3;
const BATCH_BYTES: u64 = 32 << 10;

/// Sessions striped over two lanes, each of which runs ahead of the other as it likes.
struct Load {
    view: View<HostMemory>,
    feeders: Vec<Feeder<HostMemory>>,
    waiting: [Vec<BatchSlot>; 2],
    next: [u64; SESSIONS as usize],
    random: Random,
    now: u64,
}

impl Load {
    fn begin(view: &View<HostMemory>, sequencer: &mut ActiveSequencer<HostMemory>, seed: u64) -> Load {
        let mut feeders: Vec<Feeder<HostMemory>> = (0..2).map(|lane| Feeder::new(view, lane)).collect();
        feeders[0].lane.publish(&topic_spec(view, OrderLevel::Session));
        sequencer.pass(1);
        for _ in 0..SESSIONS {
            feeders[0].lane.publish(&open());
        }
        sequencer.pass(2);
        let (waiting, next, random) = (Default::default(), [0; SESSIONS as usize], Random::new(seed));
        Load { view: view.clone(), feeders, waiting, next, random, now: 10 }
    }

    /// Brings more, if there is to be `more`, and lets the sequencer pass.
    fn step(&mut self, sequencer: &mut ActiveSequencer<HostMemory>, more: bool) {
        if more && self.waiting.iter().all(|waiting| waiting.len() < 20) {
            let session = self.random.below(SESSIONS);
            let lane = self.random.below(2) as usize;
            let next = &mut self.next[session as usize];
            self.waiting[lane].push(batch(FIRST + session, *next));
            *next += 1;
        }
        let lane = self.random.below(2) as usize;
        if let Some(slot) = self.waiting[lane].first().copied()
            && self.feeders[lane].put(slot, BATCH_BYTES)
        {
            self.waiting[lane].remove(0);
        }
        self.now += 1;
        assert!(self.now < 20_000, "still waiting: {:?}", sequencer.counters());
        sequencer.pass(self.now);
    }

    /// No memory may be used again that an entry names which is not given up.
    fn check(&self, sequencer: &ActiveSequencer<HostMemory>, floor: u64) {
        let reader = CommitReader::new(&self.view);
        let commit = reader.current().expect("there is a sequencer");
        let mut entries = vec![IndexEntry::default(); (commit.watermark - floor) as usize];
        let read = IndexReader::new(&self.view, floor).read(&commit, &mut entries);
        assert_eq!(read, Ok(entries.len()));
        for entry in entries.iter().filter(|entry| entry.kind == entry_kind::BATCH) {
            let extent = self.view.layout.extent_of(entry.blog_at()).expect("it lies in an extent");
            let holding = sequencer.stock().extents().get(extent);
            let is_kept = holding.state != holding::STOCK && holding.lane == u32::from(entry.lane);
            assert!(is_kept && holding.end > floor, "floor {floor}: {entry:?} lies in {holding:?}");
        }
    }
}

/// A reader that was caught up stopped with the sequencer: what is older than the takeover makes room for a pool's worth, step by step.
#[test]
fn history_goes_step_by_step_after_a_takeover() {
    for seed in 0..5 {
        let view = plain_view(2);
        let mut sequencer = start(&view, 0);
        let mut load = Load::begin(&view, &mut sequencer, seed);
        while sequencer.counters().trims < 5 {
            load.step(&mut sequencer, true);
        }
        // A lane is short of memory when the next one begins: it looks what there is before it gives anything up.
        let mut pin = Pin::take(&view, 0, 1);
        pin.try_lower(sequencer.counters().floor, &FloorReader::new(&view)).unwrap();
        while sequencer.counters().stock_extents > 0 {
            load.step(&mut sequencer, true);
        }
        while sequencer.core().held() > 0 || load.waiting.iter().any(|waiting| !waiting.is_empty()) {
            load.step(&mut sequencer, false);
        }
        let before = sequencer.counters();
        pin.raise(before.watermark - 1);

        let mut sequencer = start(&view, 1);
        let mut floors = BTreeSet::new();
        for _ in 0..2000 {
            load.step(&mut sequencer, true);
            let floor = sequencer.counters().floor;
            if floors.insert(floor) {
                load.check(&sequencer, floor);
            }
        }
        let counters = sequencer.counters();
        let kept = before.watermark - before.floor;
        assert!(
            floors.len() > 10 && floors.range(..before.watermark - kept / 4).count() > 5,
            "seed {seed}: {floors:?}"
        );
        assert!(counters.appended_batches > kept * 3 / 4, "seed {seed}: room for {}", counters.appended_batches);
        assert!(floors.last().is_some_and(|floor| *floor < before.watermark), "seed {seed}: {floors:?}");
    }
}
