//! Every order level with every ack level: what each promises, seen by subscribers at different brokers.

use std::time::Duration;

use embarcadero::wire::{AckLevel, OrderLevel, Receipts, Refusal};
use embarcadero::{Publisher, Skew, Start, Subscriber, TopicProperties};

use crate::harness::{Setup, Site, Task};
use crate::traffic::{Fifo, Watcher, connect, flush, publish, send};

/// Several publishers at once, two subscribers at different brokers: everything is there once, in the order promised, and
/// both saw the same.
#[test]
fn every_level_keeps_its_promise() {
    const PUBLISHERS: u32 = 3;
    const MESSAGES: u64 = 1500;
    let site = Site::new("levels", &Setup::default());
    let cluster = site.start();
    for (order, ack) in all_levels().filter(|(order, ack)| is_possible(*order, *ack)) {
        let topic = format!("order-{order}-ack-{ack}");
        let properties = TopicProperties { order, ack, receipts: Receipts::Batch, ..TopicProperties::default() };
        site.try_create_topic(&topic, properties).unwrap_or_else(|error| panic!("{topic}: {error}"));
        let mut watchers =
            [0, 3].map(|broker| Watcher::connect(site.subscriber(&topic, broker, Start::Earliest), order.into()));
        let tasks: Vec<_> = (0..PUBLISHERS)
            .map(|id| {
                let mut options = site.publisher(&topic);
                (options.ack, options.connections_per_broker) = (ack, 2);
                Task::spawn(format!("publisher {id} of {topic}"), move || publish(options, id, MESSAGES))
            })
            .collect();
        tasks.into_iter().for_each(Task::join);
        for watcher in &mut watchers {
            watcher.read_exactly(u64::from(PUBLISHERS) * MESSAGES);
            (0..PUBLISHERS).for_each(|id| assert_eq!(watcher.seen.complete(id), MESSAGES, "{topic}"));
        }
        assert_eq!(watchers[0].seen.hash, watchers[1].seen.hash, "{topic}: two subscribers, one stream");
        if order == OrderLevel::Session {
            assert_eq!(watchers[0].seen.sessions(), PUBLISHERS as usize);
        }
    }
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    let delivered: u64 = counters.export.iter().map(|block| block["delivered_messages"]).sum();
    assert_eq!(delivered, 2 * counters.sequencer["appended_messages"], "both subscribers got everything once");
}

fn all_levels() -> impl Iterator<Item = (OrderLevel, AckLevel)> {
    OrderLevel::ALL.iter().flat_map(|order| AckLevel::ALL.iter().map(|ack| (*order, *ack)))
}

fn is_possible(order: OrderLevel, ack: AckLevel) -> bool {
    ack != AckLevel::Durable && (order, ack) != (OrderLevel::Session, AckLevel::None)
}

#[test]
fn ack_levels_that_cannot_be_had_are_refused_by_name() {
    let site = Site::new("refused-acks", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    for (order, ack) in all_levels().filter(|(order, ack)| !is_possible(*order, *ack)) {
        let properties = TopicProperties { order, ack, receipts: Receipts::Batch, ..TopicProperties::default() };
        let error = site.try_create_topic("never", properties).expect_err("an ack level that cannot be had");
        assert_eq!(error.refusal(), Some(Refusal::AckLevel), "order {order}, ack {ack}: {error}");
        // And by a publisher on a topic that exists.
        let topic = format!("order-{order}");
        site.try_create_topic(&topic, TopicProperties { order, ..TopicProperties::default() }).unwrap();
        let mut options = site.publisher(&topic);
        options.ack = ack;
        let error = Publisher::connect(options).expect_err("an ack level that cannot be had");
        assert_eq!(error.refusal(), Some(Refusal::AckLevel), "order {order}, ack {ack}: {error}");
    }
    cluster.stop();
}

/// A topic is what it was created as; whoever relies on something else is told so.
#[test]
fn a_topic_of_another_kind_is_refused_by_name() {
    let site = Site::new("kinds", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    let had = TopicProperties::default();
    site.try_create_topic("t", had).unwrap();
    site.try_create_topic("t", had).expect("the same again");
    for other in
        [TopicProperties { order: OrderLevel::Total, ..had }, TopicProperties { receipts: Receipts::Message, ..had }]
    {
        let error = site.try_create_topic("t", other).expect_err("another kind of topic");
        assert_eq!(error.refusal(), Some(Refusal::TopicExists), "{error}");
    }
    let error = site.try_create_topic("copies", TopicProperties { replicas: 3, ..had }).expect_err("no replicas yet");
    assert_eq!(error.refusal(), Some(Refusal::AckLevel), "{error}");
    cluster.stop();
}

/// Whatever was acked before a message was sent is ordered before it: at level 1 through one broker, above through any.
#[test]
fn what_was_acked_comes_before_what_is_sent_after() {
    const ROUNDS: u64 = 20;
    let site = Site::new("acked", &Setup::default());
    let cluster = site.start();
    for order in [OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection, OrderLevel::Session] {
        let topic = format!("order-{order}");
        site.create_topic(&topic, order, Receipts::Batch);
        let at = |broker: u32| {
            let mut options = site.publisher(&topic);
            (options.discover, options.brokers) = (false, vec![site.address(broker)]);
            connect(options)
        };
        let mut publishers = [at(2), at(if order == OrderLevel::Broker { 2 } else { 1 })];
        for number in 0..ROUNDS {
            for (id, publisher) in (0..).zip(&mut publishers) {
                send(publisher, id, number..number + 1);
                flush(publisher, id);
                // An ack means that it is committed: whoever subscribes now begins behind it, at any broker.
                let latest = Subscriber::connect(site.subscriber(&topic, 0, Start::Latest)).unwrap();
                assert_eq!(
                    latest.next_order(),
                    2 * number + u64::from(id) + 1,
                    "order {order}: acked, but not committed"
                );
            }
        }
        let mut watcher = Watcher::connect(site.subscriber(&topic, 3, Start::Earliest), order.into());
        watcher.read_exactly(2 * ROUNDS);
    }
    cluster.stop();
    site.counters().check_conserved();
}

/// Eight sessions, each striped over four brokers with one of them held back: every session's batches come out 0, 1, 2, …
#[test]
fn sessions_over_skewed_brokers_come_out_in_sequence() {
    const SESSIONS: u32 = 8;
    const MESSAGES: u64 = 1500;
    let site = Site::new("skewed", &Setup::default());
    let cluster = site.start();
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    let tasks: Vec<_> = (0..SESSIONS)
        .map(|id| {
            let mut options = site.publisher("t");
            options.batch_messages = 10;
            options.skew = Some(Skew { broker: id as usize % 4, delay: Duration::from_millis(3 + u64::from(id)) });
            Task::spawn(format!("session {id}"), move || publish(options, id, MESSAGES))
        })
        .collect();
    let mut watchers =
        [1, 2].map(|broker| Watcher::connect(site.subscriber("t", broker, Start::Earliest), Fifo::Publisher));
    for watcher in &mut watchers {
        watcher.read_exactly(u64::from(SESSIONS) * MESSAGES);
        (0..SESSIONS).for_each(|id| assert_eq!(watcher.seen.complete(id), MESSAGES));
        assert_eq!(watcher.seen.sessions(), SESSIONS as usize, "no session was lost and begun anew");
    }
    assert_eq!(watchers[0].seen.hash, watchers[1].seen.hash, "two subscribers, one stream");
    tasks.into_iter().for_each(Task::join);
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert!(counters.sequencer["parked_batches"] > 0, "the skew made batches overtake each other");
    assert_eq!(counters.sequencer["fences"], 0, "load fences nobody");
}
