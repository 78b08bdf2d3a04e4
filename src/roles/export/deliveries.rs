//! What was delivered of each topic, and to whom: how many subscribers it has here, and how far the slowest of them has come.

use crate::log::View;
use crate::observe::counters::{CounterBlock, DeliveryCounters};
use crate::pool::Memory;

/// See the head of the file.
pub(super) struct Deliveries<M> {
    view: View<M>,
    broker: u32,
    /// By topic.
    topics: Vec<DeliveryCounters>,
    /// As they were written last.
    written: Vec<DeliveryCounters>,
}

impl<M: Memory> Deliveries<M> {
    /// Of a broker's exporter.
    pub(super) fn new(view: &View<M>, broker: u32) -> Self {
        let topics = view.layout.geometry.topics_max as usize;
        // Whatever a predecessor counted is overwritten.
        let unknown = DeliveryCounters { created: u64::MAX, ..DeliveryCounters::default() };
        Deliveries {
            view: view.clone(),
            broker,
            topics: vec![DeliveryCounters::default(); topics],
            written: vec![unknown; topics],
        }
    }

    /// A batch of a topic is on its way to a subscriber.
    #[inline]
    pub(super) fn count(&mut self, topic: u32, created_position: u64, messages: u32, bytes: u64) {
        let counters = self.of(topic, created_position);
        counters.delivered_batches += 1;
        counters.delivered_messages += u64::from(messages);
        counters.delivered_bytes += bytes;
    }

    /// A topic that has the number of one that is gone begins anew.
    #[inline]
    fn of(&mut self, topic: u32, created_position: u64) -> &mut DeliveryCounters {
        let counters = &mut self.topics[topic as usize];
        if counters.created != created_position + 1 {
            *counters = DeliveryCounters { created: created_position + 1, ..DeliveryCounters::default() };
        }
        counters
    }

    /// Copies out what changed. `served` is what each subscriber follows: a topic, its creation, and how many messages are still to be sent.
    pub(super) fn write(&mut self, served: impl Iterator<Item = (u32, u64, u64)>) {
        for counters in &mut self.topics {
            (counters.subscribers, counters.behind_messages) = (0, 0);
        }
        for (topic, created_position, behind) in served {
            let counters = self.of(topic, created_position);
            counters.behind_messages = counters.behind_messages.max(behind);
            counters.subscribers += 1;
        }
        for (topic, (now, written)) in (0..).zip(self.topics.iter().zip(&mut self.written)) {
            if now != written {
                *written = *now;
                let at = self.view.layout.topic_deliveries(self.broker, topic);
                CounterBlock::new(self.view.memory.clone(), at).write(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::plain_view;
    use crate::observe::counters::Counters;

    #[test]
    fn what_is_delivered_of_a_topic_and_how_far_behind_its_slowest_reader_is() {
        let view = plain_view(1);
        let mut deliveries = Deliveries::new(&view, 1);
        let read = |topic| {
            let at = view.layout.topic_deliveries(1, topic);
            DeliveryCounters::from_words(&CounterBlock::new(view.memory.clone(), at).read(DeliveryCounters::CATALOGUE))
        };
        deliveries.count(1, 7, 3, 100);
        deliveries.count(1, 7, 2, 50);
        deliveries.write([(1, 7, 5), (1, 7, 9), (1, 7, 0)].into_iter());
        let (delivered_batches, delivered_messages, delivered_bytes) = (2, 5, 150);
        let before = DeliveryCounters {
            created: 8,
            delivered_batches,
            delivered_messages,
            delivered_bytes,
            subscribers: 3,
            behind_messages: 9,
        };
        assert_eq!((read(0), read(1)), (DeliveryCounters::default(), before));
        deliveries.write(std::iter::empty());
        assert_eq!(read(1), DeliveryCounters { subscribers: 0, behind_messages: 0, ..before });
        // Another topic has its number.
        deliveries.write([(1, 20, 4)].into_iter());
        assert_eq!(
            read(1),
            DeliveryCounters { created: 21, subscribers: 1, behind_messages: 4, ..DeliveryCounters::default() }
        );
    }
}
