//! What was sent is accounted for, seen from outside while it goes on and after the process is gone: received, ordered, duplicate, refused, parked,
//! delivered; times of every batch; the errors of a process that was killed.

use std::time::Duration;

use embarcadero::monitor::snapshot::{SessionBatches, Snapshot};
use embarcadero::observe::counters::DeliveryCounters;
use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{Start, Subscriber};

use crate::harness::{Setup, Site, wait_for};
use crate::load::{ROOMY, TOPIC};
use crate::raw::{Raw, batch};
use crate::traffic::publish;

const SENT: u64 = 3000;

/// Batches of the topic, as the sequencer counts them.
fn looked(site: &Site, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let pool = site.pool_now();
    wait_for(what, || Some(Snapshot::take(&pool, true)).filter(&is_so))
}

#[test]
fn every_batch_is_accounted_for() {
    let site = Site::new("accounts", &Setup { brokers: 2, sequencer: "session_lease: 1m", ..ROOMY });
    let process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut subscriber = Subscriber::connect(site.subscriber(TOPIC, 1, Start::Earliest)).unwrap();
    publish(site.publisher(TOPIC), 1, SENT);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), TOPIC);
    // 0 twice, 1, and behind a gap 3.
    for seq in [0, 0, 1, 3] {
        raw.send(&batch(&welcome, seq, &[vec![1; 8]]));
    }
    let mut read = 0;
    wait_for("everything to be delivered", || {
        let mut taken = 0;
        subscriber.poll(Duration::from_millis(20), |batch| taken += batch.messages().count() as u64).unwrap();
        read += taken;
        (read == SENT + 2).then_some(())
    });
    let now = looked(&site, "the counters of what was sent", |now| {
        let counters = now.topics[0].counters;
        counters.ordered_messages == SENT + 2
            && counters.parked_batches == 1
            && counters.duplicate_batches == 1
            && now.brokers.iter().map(|broker| broker.export.delivered_messages).sum::<u64>() == SENT + 2
    });
    let (topic, sequencer) = (now.topics[0].counters, now.sequencer.as_ref().unwrap());
    let ended = topic.ordered_batches + topic.duplicate_batches + topic.refused_batches + topic.parked_batches;
    assert_eq!(topic.received_batches, ended, "{topic:?}");
    let published: u64 = now.lanes.iter().map(|lane| lane.receive.published_batches).sum();
    assert_eq!(published, topic.received_batches, "all that came in is of this topic");
    let acked: u64 = now.brokers.iter().map(|broker| broker.ack.acked_batches).sum();
    let delivered: u64 = now.brokers.iter().map(|broker| broker.export.delivered_batches).sum();
    assert_eq!((acked, delivered), (topic.ordered_batches, topic.ordered_batches));
    let of_topic = |of: fn(&DeliveryCounters) -> u64| now.topics[0].delivered(of);
    assert_eq!(of_topic(|delivered| delivered.delivered_batches), delivered);
    assert_eq!(of_topic(|delivered| delivered.delivered_messages), SENT + 2);
    assert_eq!((of_topic(|delivered| delivered.subscribers), now.topics[0].behind()), (1, Some(0)));
    // Every batch is timed, where nobody is quicker than the notes: all roles are on one thread.
    assert_eq!((sequencer.ordering.count(), sequencer.committing.count()), (acked, acked));
    let timed = |of: fn(&embarcadero::monitor::snapshot::BrokerFacts) -> u64| now.brokers.iter().map(of).sum::<u64>();
    assert_eq!((timed(|broker| broker.to_ack.count()), timed(|broker| broker.to_delivery.count())), (acked, acked));
    assert_eq!(now.lanes.iter().map(|lane| lane.publishing.count()).sum::<u64>(), published);
    let slowest =
        now.brokers.iter().flat_map(|broker| &broker.slowest_delivered).next().expect("some batch was the slowest");
    assert!(slowest.whole_ns() > 0 && slowest.session > 0 && slowest.messages > 0, "{slowest:?}");
    let ours = now.sessions.iter().find(|session| session.session == welcome.session).expect("it is open");
    let counted = SessionBatches { received: 4, ordered: 2, duplicate: 1, refused: 0, parked: 1 };
    assert_eq!((ours.next_batch, ours.batches), (2, Some(counted)));
    drop(raw);
    process.kill();
}

#[test]
fn the_errors_of_a_killed_process_are_read_from_its_pool() {
    let site = Site::new("errors", &Setup { brokers: 1, sequencer: "session_lease: 100ms", ..ROOMY });
    let process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), TOPIC);
    raw.send(&batch(&welcome, 1, &[vec![1; 8]]));
    let fenced =
        |now: &Snapshot| now.brokers[0].errors.iter().any(|error| error.text.starts_with("sessions fenced: 1;"));
    looked(&site, "the fence among the process's errors", fenced);
    process.kill();
    std::thread::sleep(Duration::from_millis(100));
    let now = looked(&site, "the same of the dead", fenced);
    let error = &now.brokers[0].errors[0];
    assert!(error.count == 1 && error.first_at == error.last_at && error.first_at > 0, "{error:?}");
    assert!(
        error.text.contains(&format!("{:#x} in epoch 1, waited 100 ms for its batch 0", welcome.session)),
        "{error:?}"
    );
    let thread = &now.brokers[0].threads[0];
    assert!(thread.name == "shared" && thread.counters.passes > 0 && thread.counters.ran_ns > 0, "{thread:?}");
}
