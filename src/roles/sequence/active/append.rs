//! What has happened, appended: folded into what is known of the pool's memory and of topics, counted, and written to the index.

use crate::log::entry::to_entry;
use crate::log::order_index::IndexWriter;
use crate::log::retention::Trimmer;
use crate::observe::counters::SequencerCounters;
use crate::order::{Arrival, Emit, Event};
use crate::pool::Memory;
use crate::roles::sequence::active::rates::Rates;
use crate::roles::sequence::active::tally::Tally;
use crate::roles::sequence::active::timing::Timing;
use crate::roles::sequence::stock::Stock;

/// An [`Appender`] over a sequencer's own fields, while others of them are in use.
macro_rules! append_to {
    ($sequencer:ident) => {
        $crate::roles::sequence::active::append::Appender {
            index: &mut $sequencer.index,
            trimmer: &mut $sequencer.trimmer,
            stock: &mut $sequencer.stock,
            kept: &mut $sequencer.kept,
            counters: &mut $sequencer.counters,
            timing: &mut $sequencer.timing,
            tally: &mut $sequencer.tally,
            rates: &mut $sequencer.rates,
        }
    };
}
pub(super) use append_to;

/// Where events go that happen.
pub(super) struct Appender<'a, M> {
    pub(super) index: &'a mut IndexWriter<M>,
    pub(super) trimmer: &'a mut Trimmer<M>,
    pub(super) stock: &'a mut Stock,
    pub(super) kept: &'a mut Option<(u64, u64)>,
    pub(super) counters: &'a mut SequencerCounters,
    pub(super) timing: &'a mut Timing<M>,
    pub(super) tally: &'a mut Tally<M>,
    pub(super) rates: &'a mut Rates,
}

impl<M: Memory> Emit for Appender<'_, M> {
    /// Inlined, as what it calls, so that nobody asks which event it is where that is known: of a batch, always.
    #[inline(always)]
    fn take(&mut self, event: Event) {
        self.stock.happen(self.index.next(), &event);
        match event {
            Event::Batch { ref arrival, first_order, .. } => self.count_batch(arrival, first_order),
            _ => self.count_rare(&event),
        }
        self.index.append(to_entry(&event));
    }
}

impl<M: Memory> Appender<'_, M> {
    #[inline]
    fn count_batch(&mut self, arrival: &Arrival, first_order: u64) {
        let (position, counters) = (self.index.next(), &mut *self.counters);
        counters.appended_batches += 1;
        counters.appended_messages += u64::from(arrival.message_count);
        counters.appended_bytes += u64::from(arrival.batch_bytes);
        self.kept.get_or_insert((position, 0)).1 = position;
        self.timing.take(position, arrival);
        self.tally.ordered(arrival);
        self.rates.ordered(arrival);
        let end_order = first_order + u64::from(arrival.message_count);
        self.trimmer.targets.count(arrival.topic, arrival.batch_bytes.into(), position, end_order);
    }

    fn count_rare(&mut self, event: &Event) {
        match event {
            Event::Fence { .. } => self.counters.fences += 1,
            Event::Open { .. } => self.counters.opened_sessions += 1,
            Event::Topic { .. } => self.counters.created_topics += 1,
            Event::TopicDeleted { .. } => self.counters.deleted_topics += 1,
            Event::Granted { .. } => self.counters.granted_extents += 1,
            _ => {}
        }
    }
}
