//! What is derived from the committed index in one pass: the topic table, and the rounds of checkpoints.

use std::collections::VecDeque;

use crate::log::View;
use crate::log::checkpoint::CheckpointWriter;
use crate::log::extents::Extents;
use crate::log::targets::Targets;
use crate::log::topics::{Topic, TopicWriter};
use crate::order::OrderCore;
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, TopicProgress};
use crate::roles::sequence::stock::Stock;

/// Sessions, and extents, checkpointed in one pass at most.
pub const CHECKPOINTS_PER_PASS: usize = 64;
/// A round is over before this part of the index was appended since it began: what a successor replays is as long as two rounds, and what lies below
/// is free to be given up.
const ROUNDS_IN_INDEX: u64 = 16;
/// While batches come, a round begins when at least this part of the index was appended since the last one began.
const BEGINNINGS_IN_INDEX: u64 = 128;

/// The sequencer's topics, and a candidate's copy of the table.
pub(super) struct Topics<M> {
    writer: TopicWriter<M>,
    /// By id.
    pub(super) known: Vec<Option<Topic>>,
    /// Created or deleted since the last commit: written to the table after the watermark.
    changed: VecDeque<u32>,
    /// Each topic's progress as it was last written.
    pub(super) written: Vec<TopicProgress>,
}

/// Rounds of checkpoints: all sessions and extents dirty at its start are written, then the round's start is what every
/// checkpoint stands for at least.
pub(super) struct Checkpoints<M> {
    pub(super) writer: CheckpointWriter<M>,
    round: Vec<u32>,
    round_extents: Vec<u32>,
    round_started_at: u64,
    /// Checkpoints that this round began with.
    round_length: u64,
    /// Watermark at the last step.
    stepped_at: u64,
    index_entries: u64,
}

impl<M: Memory> Topics<M> {
    pub(super) fn take_over(
        view: &View<M>,
        candidate: u32,
        known: Vec<Option<(Topic, TopicProgress)>>,
        core: &OrderCore,
        position: u64,
    ) -> Self {
        let topics_max = view.layout.geometry.topics_max as usize;
        let mut topics = Topics {
            writer: TopicWriter::new(view, candidate),
            known: Vec::with_capacity(topics_max),
            changed: VecDeque::with_capacity(topics_max),
            written: vec![TopicProgress::default(); topics_max],
        };
        for (id, known) in known.into_iter().enumerate() {
            match &known {
                Some((topic, progress)) => {
                    let next_order = core.table().topic(topic.id).map_or(0, |order| order.next_order);
                    topics.written[id] = TopicProgress { next_order, position, ..*progress };
                    topics.writer.write(topic, &topics.written[id]);
                }
                None => topics.writer.clear(id as u32),
            }
            topics.known.push(known.map(|(topic, _)| topic));
        }
        topics
    }

    /// Whether the topic a request means, by number and creation, is there.
    pub(super) fn is_meant(&self, slot: &BatchSlot) -> bool {
        let found = self.known.get(slot.topic as usize).and_then(Option::as_ref);
        found.is_some_and(|topic| topic.created_position == slot.batch_seq)
    }

    pub(super) fn change(&mut self, id: u32, topic: Option<Topic>) {
        self.known[id as usize] = topic;
        if !self.changed.contains(&id) {
            self.changed.push_back(id);
        }
    }

    pub(super) fn write_changed(&mut self, position: u64) -> bool {
        let any = !self.changed.is_empty();
        while let Some(id) = self.changed.pop_front() {
            self.written[id as usize] = TopicProgress { position, ..TopicProgress::default() };
            match &self.known[id as usize] {
                Some(topic) => self.writer.write(topic, &self.written[id as usize]),
                None => self.writer.clear(id),
            }
        }
        any
    }

    /// Writes the progress of topics that got on or lost something. True if any did.
    pub(super) fn write_progress(&mut self, targets: &Targets, position: u64) -> bool {
        let mut any = false;
        for (id, written) in (0u32..).zip(&mut self.written) {
            if self.known[id as usize].is_none() {
                continue;
            }
            let progress = targets.progress(id, written.position);
            if progress != *written {
                *written = TopicProgress { position, ..progress };
                self.writer.write_progress(id, written);
                any = true;
            }
        }
        any
    }
}

impl<M: Memory> Checkpoints<M> {
    pub(super) fn take_over(
        view: &View<M>,
        candidate: u32,
        core: &OrderCore,
        extents: &Extents,
        position: u64,
    ) -> Self {
        let writer = CheckpointWriter::new(view, candidate);
        for (extent, known) in (0..).zip(extents.all()) {
            writer.write_holding(extent, known);
        }
        for (slot, session) in core.table().sessions().iter().enumerate() {
            writer.write_session(slot as u32, session, position);
        }
        let g = view.layout.geometry;
        let (round, round_extents) =
            (Vec::with_capacity(g.sessions_max as usize), Vec::with_capacity(g.extents as usize));
        let index_entries = u64::from(g.segments) * u64::from(g.segment_entries);
        let (round_length, round_started_at, stepped_at) = (0, position, position);
        Checkpoints { writer, round, round_extents, round_started_at, round_length, stepped_at, index_entries }
    }

    /// Writes some of this round's checkpoints; begins the next round when it is done. True if anything was written.
    pub(super) fn step(
        &mut self,
        core: &mut OrderCore,
        stock: &mut Stock,
        topics: &mut Topics<M>,
        targets: &Targets,
        watermark: u64,
    ) -> bool {
        let appended = watermark - std::mem::replace(&mut self.stepped_at, watermark);
        if self.is_round_over() && !self.begin_round(core, stock, topics, targets, watermark, appended) {
            return false;
        }
        let most = self.most(appended);
        for _ in 0..most {
            let Some(slot) = self.round.pop() else { break };
            self.writer.write_session(slot, core.table().session(slot), watermark);
        }
        for _ in 0..most {
            let Some(extent) = self.round_extents.pop() else { break };
            self.writer.write_holding(extent, stock.extents().get(extent));
        }
        // What the next step will write.
        self.round.iter().rev().take(most as usize).for_each(|slot| self.writer.prefetch_session(*slot));
        true
    }

    /// Begins a round if there is anything new to say, and it is time to.
    fn begin_round(
        &mut self,
        core: &mut OrderCore,
        stock: &mut Stock,
        topics: &mut Topics<M>,
        targets: &Targets,
        watermark: u64,
        appended: u64,
    ) -> bool {
        let since = watermark - self.round_started_at;
        if since == 0 || appended > 0 && since < self.index_entries / BEGINNINGS_IN_INDEX {
            return false;
        }
        self.round_started_at = watermark;
        self.round.extend(std::iter::from_fn(|| core.take_dirty()));
        self.round_extents.extend(std::iter::from_fn(|| stock.take_dirty()));
        self.round_length = (self.round.len() + self.round_extents.len()) as u64;
        topics.write_progress(targets, watermark);
        true
    }

    /// Checkpoints of each kind to write now: while batches come, as few as end the round in time, since each costs as much as a batch does;
    /// while none comes, many.
    fn most(&self, appended: u64) -> u64 {
        if appended == 0 {
            return CHECKPOINTS_PER_PASS as u64;
        }
        let in_time = (appended * self.round_length * ROUNDS_IN_INDEX).div_ceil(self.index_entries);
        in_time.clamp(1, appended.max(CHECKPOINTS_PER_PASS as u64))
    }

    /// Position that every checkpoint stands for at least, after a step was fenced.
    pub(super) fn stands_for(&self) -> u64 {
        if self.is_round_over() { self.round_started_at } else { 0 }
    }

    fn is_round_over(&self) -> bool {
        self.round.is_empty() && self.round_extents.is_empty()
    }
}
