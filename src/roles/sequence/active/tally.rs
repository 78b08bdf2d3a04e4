//! What became of batches, by topic and by session: every one that was taken from a lane is ordered, a duplicate, refused or parked.

use crate::log::View;
use crate::log::topics::Topic;
use crate::observe::counters::{CounterBlock, SessionCounters, TopicCounters};
use crate::order::{Arrival, OrderCore, Verdict};
use crate::pool::Memory;

/// Sessions whose counts are copied out in one report at most: others follow in the next one.
const SESSIONS_PER_REPORT: usize = 4096;

/// See the head of the file.
pub(super) struct Tally<M> {
    view: View<M>,
    candidate: u32,
    topics: Vec<TopicCounters>,
    /// Batches of earlier topics of each number that were parked and never appended.
    unparked_before: Vec<u64>,
    /// As they were written last.
    written: Vec<TopicCounters>,
    /// Sessions of which parked batches were told, by their places: the next report says how many these are then.
    told_parked: Vec<u32>,
}

impl<M: Memory> Tally<M> {
    /// Of the topics there are. Nothing is known of what an epoch before took.
    pub(super) fn new<'a>(view: &View<M>, candidate: u32, known: impl Iterator<Item = &'a Topic>) -> Self {
        let blank = vec![TopicCounters::default(); view.layout.geometry.topics_max as usize];
        // Whatever a former life of this candidate counted is overwritten.
        let unknown = vec![TopicCounters { created: u64::MAX, ..TopicCounters::default() }; blank.len()];
        let mut tally = Tally {
            view: view.clone(),
            candidate,
            unparked_before: vec![0; blank.len()],
            topics: blank,
            written: unknown,
            told_parked: Vec::with_capacity(SESSIONS_PER_REPORT),
        };
        known.for_each(|topic| tally.begin(topic.id, topic.created_position, 0));
        tally
    }

    /// A topic begins, or was there when this epoch began.
    pub(super) fn begin(&mut self, topic: u32, created_position: u64, unparked: u64) {
        self.unparked_before[topic as usize] = unparked;
        self.topics[topic as usize] = TopicCounters { created: created_position + 1, ..TopicCounters::default() };
    }

    /// A topic is no more.
    pub(super) fn forget(&mut self, topic: u32) {
        self.topics[topic as usize] = TopicCounters::default();
    }

    /// A batch was taken from a lane.
    #[inline]
    pub(super) fn received(&mut self, topic: u32, verdict: Verdict) {
        // What it names is not known to be a topic.
        let Some(counters) = self.topics.get_mut(topic as usize) else { return };
        counters.received_batches += 1;
        match verdict {
            Verdict::Appended { .. } | Verdict::Parked => {}
            Verdict::Duplicate => counters.duplicate_batches += 1,
            Verdict::LetGo | Verdict::Fenced | Verdict::Unknown => counters.refused_batches += 1,
        }
    }

    /// A batch got its place.
    #[inline]
    pub(super) fn ordered(&mut self, arrival: &Arrival) {
        let counters = &mut self.topics[arrival.topic as usize];
        counters.ordered_batches += 1;
        counters.ordered_messages += u64::from(arrival.message_count);
        counters.ordered_bytes += u64::from(arrival.batch_bytes);
    }

    /// Copies out what changed.
    pub(super) fn write(&mut self, core: &mut OrderCore) {
        self.write_topics(core);
        self.write_sessions(core);
    }

    fn write_sessions(&mut self, core: &mut OrderCore) {
        core.renew_outcomes(self.told_parked.drain(..));
        for _ in 0..SESSIONS_PER_REPORT {
            let Some(slot) = core.take_outcome() else { break };
            let (outcomes, parked) = (core.outcomes().of(slot), core.held_of(slot));
            let counters = SessionCounters {
                session: core.table().session(slot).id,
                not_counted: outcomes.not_counted,
                duplicate_batches: outcomes.duplicate,
                refused_batches: outcomes.refused,
                parked_batches: parked.into(),
            };
            if parked > 0 {
                self.told_parked.push(slot);
            }
            let at = self.view.layout.session_counts(self.candidate, slot);
            CounterBlock::new(self.view.memory.clone(), at).write(&counters);
        }
    }

    fn write_topics(&mut self, core: &OrderCore) {
        let all = self.topics.iter().zip(&mut self.written).zip(&self.unparked_before);
        for (topic, ((counters, written), before)) in (0..).zip(all) {
            let lost = if counters.created > 0 { core.unparked(topic) - before } else { 0 };
            let refused_batches = counters.refused_batches + lost;
            let ended = counters.ordered_batches + counters.duplicate_batches + refused_batches;
            let parked_batches = counters.received_batches.saturating_sub(ended);
            let now = TopicCounters { refused_batches, parked_batches, ..*counters };
            if now != *written {
                *written = now;
                let at = self.view.layout.topic_counts(self.candidate, topic);
                CounterBlock::new(self.view.memory.clone(), at).write(&now);
            }
        }
    }
}
