//! Topics over control connections: created, listed, described, deleted.

use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use embarcadero::wire::frame::{self, Goodbye, Reply, Request, TopicRecord, seal, with_body};
use embarcadero::wire::{AckLevel, Operation, OrderLevel, Receipts, Refusal};
use embarcadero::{Admin, ClientError, Order, PublisherOptions, Start, Subscriber, TopicProperties};

use crate::harness::{LIMIT, Setup, Site, Task, wait_for};
use crate::raw::{Came, Raw, publisher_hello};
use crate::traffic::{connect, message, read_message};

fn admin(site: &Site, broker: u32) -> Admin {
    Admin::new(&[site.address(broker)]).unwrap()
}

fn kept(bytes: u64, seconds: u64) -> TopicProperties {
    TopicProperties {
        retention_bytes: bytes,
        retention_age: Duration::from_secs(seconds),
        ..TopicProperties::default()
    }
}

#[test]
fn a_topic_made_through_one_broker_is_known_to_all() {
    let site = Site::new("topics", &Setup { brokers: 2, ..Setup::default() });
    let cluster = site.start();
    let (mut first, mut second) = (admin(&site, 0), admin(&site, 1));
    assert_eq!(first.topics(LIMIT).unwrap(), []);
    let one = TopicProperties {
        order: OrderLevel::Total,
        ack: AckLevel::None,
        receipts: Receipts::Message,
        ..kept(1 << 30, 3600)
    };
    first.create_topic("one", &one, LIMIT).unwrap();
    second.create_topic(&"n".repeat(112), &TopicProperties::default(), LIMIT).unwrap();
    let found = second.topic("one", LIMIT).unwrap();
    assert_eq!((found.properties, found.name.as_str(), found.next_order), (one, "one", Order(0)));
    assert!(found.created_at > 0 && found.generation > 0);
    let listed = first.topics(LIMIT).unwrap();
    assert_eq!(listed[0], found);
    assert_eq!(listed.iter().map(|topic| topic.name.len()).collect::<Vec<_>>(), [3, 112]);
    let error = first.topic("two", LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::UnknownTopic), "{error}");
    // Again: as it is; with other properties: refused; without a target of its own: as it is.
    second.create_topic("one", &one, LIMIT).unwrap();
    second.create_topic("one", &TopicProperties { retention_bytes: 0, ..one }, LIMIT).unwrap();
    for other in [kept(0, 0), TopicProperties { retention_bytes: 5, ..one }] {
        let error = second.create_topic("one", &other, LIMIT).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::TopicExists), "{error}");
    }
    assert_eq!(first.topic("one", LIMIT).unwrap(), found);
    cluster.stop();
}

/// Sixteen places are few: what has none is told so.
#[test]
fn a_full_table_is_told() {
    let site = Site::new("full-table", &Setup { brokers: 1, receive: "hello_timeout: 1s", ..Setup::default() });
    let cluster = site.start();
    let mut admin = admin(&site, 0);
    for topic in 0..16 {
        admin.create_topic(&format!("t{topic}"), &TopicProperties::default(), LIMIT).unwrap();
    }
    let error = admin.create_topic("t16", &TopicProperties::default(), LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::TopicTableFull), "{error}");
    assert_eq!(admin.topics(LIMIT).unwrap().len(), 16);
    cluster.stop();
}

fn ask(raw: &mut Raw, operation: u8, topic: &str, rest: &[u8]) -> (Reply, Vec<u8>) {
    let request = Request { operation, topic_bytes: topic.len() as u16, ..Request::default() };
    raw.send(&with_body(&request, &[topic.as_bytes(), rest].concat()));
    let Came { header, body, kind } = raw.receive().expect("a reply");
    assert_eq!(kind, frame::FrameKind::Reply, "{}", String::from_utf8_lossy(&body));
    (frame::read(&header), body)
}

/// One connection answers one request after the other, whatever the answers are.
#[test]
fn requests_that_cannot_be_done_leave_the_connection_as_it_was() {
    let site = Site::new("requests", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    let mut raw = Raw::connect(&site.address(0));
    let record = TopicRecord { order_level: 5, ack_level: 1, ..TopicRecord::zeroed() };
    let create = Operation::TopicCreate as u8;
    let with = |change: fn(&mut TopicRecord)| {
        let mut other = record;
        change(&mut other);
        bytes_of(&other).to_vec()
    };
    let bad = [
        (0, "t", &[][..], Refusal::UnknownOperation),
        (99, "t", &[], Refusal::UnknownOperation),
        (create, "", bytes_of(&record), Refusal::Protocol),
        (create, "a\nb", bytes_of(&record), Refusal::Protocol),
        (create, "t", &bytes_of(&record)[1..], Refusal::Protocol),
        (create, "t", &with(|record| record.order_level = 3), Refusal::Protocol),
        (create, "t", &with(|record| record.ack_level = 2), Refusal::AckLevel),
        (create, "t", &with(|record| record.replicas = 2), Refusal::AckLevel),
        (Operation::TopicDescribe as u8, "t", &[], Refusal::UnknownTopic),
        (Operation::TopicDelete as u8, "t", &[], Refusal::UnknownTopic),
    ];
    for (operation, topic, rest, refusal) in bad {
        let (reply, words) = ask(&mut raw, operation, topic, rest);
        let words = String::from_utf8(words).unwrap();
        assert_eq!((reply.operation, reply.code), (operation, refusal as u16), "{operation} {topic:?}: {words}");
        assert!(!words.is_empty());
    }
    raw.send(&with_body(&Request { operation: create, topic_bytes: 9, ..Request::default() }, b"t"));
    assert_eq!(raw.expect::<Reply>().code, Refusal::Protocol as u16);
    let (reply, _) = ask(&mut raw, create, "t", bytes_of(&record));
    assert_eq!(reply.code, 0);
    let (again, _) = ask(&mut raw, create, "t", bytes_of(&record));
    assert_eq!((again.code, again.number), (0, reply.number));
    let (listed, body) = ask(&mut raw, Operation::TopicList as u8, "", &[]);
    assert_eq!((listed.code, listed.flags, body.len()), (0, 0, 81));
    // What comes after a request must be a request.
    raw.send(&with_body(&publisher_hello(), b"t"));
    raw.expect_refused(Refusal::Protocol);
    let mut raw = Raw::connect(&site.address(0));
    assert_eq!(ask(&mut raw, Operation::TopicDescribe as u8, "t", &[]).0.number, reply.number);
    raw.send(&seal(&Goodbye::default()));
    raw.expect_closed();
    cluster.stop();
}

#[test]
fn a_control_connection_without_requests_is_ended() {
    let site = Site::new("idle-control", &Setup { brokers: 1, receive: "hello_timeout: 300ms", ..Setup::default() });
    let cluster = site.start();
    let mut raw = Raw::connect(&site.address(0));
    for _ in 0..3 {
        assert_eq!(ask(&mut raw, Operation::TopicList as u8, "", &[]).0.code, 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let begun = Instant::now();
    raw.expect_refused(Refusal::HelloTimeout);
    assert!(begun.elapsed() < LIMIT);
    // A client that asks again on such a connection connects anew.
    let mut admin = admin(&site, 0);
    admin.topics(LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    admin.topics(LIMIT).unwrap();
    cluster.stop();
}

/// Publishes until it is told to stop working, and gives how it was told.
fn publish_until_told(options: PublisherOptions) -> ClientError {
    let mut publisher = connect(options);
    for number in 0.. {
        let sent = publisher.send(&message(0, number, 100)).and_then(|()| publisher.poll(Duration::ZERO).map(|_| ()));
        if let Err(error) = sent {
            return error;
        }
    }
    unreachable!("it is told before it has sent everything there is")
}

/// A topic is deleted under its publishers and subscribers: all are told, none hangs, and one of the same name is another topic.
#[test]
fn a_topic_deleted_under_load_ends_for_all_and_its_name_is_free() {
    for order in [OrderLevel::Session, OrderLevel::Connection] {
        let site = Site::new("delete-load", &Setup { brokers: 2, ..Setup::default() });
        let cluster = site.start();
        let mut admin = admin(&site, 0);
        site.create_topic("t", order, Receipts::Batch);
        site.create_topic("other", order, Receipts::Batch);
        let before = admin.topic("t", LIMIT).unwrap();
        let options = site.publisher("t");
        let publisher = Task::spawn("the publisher", move || publish_until_told(options));
        let mut subscriber = Subscriber::connect(site.subscriber("t", 1, Start::Earliest)).unwrap();
        let subscriber = Task::spawn("the subscriber", move || {
            let (mut next, deadline) = (0, Instant::now() + LIMIT);
            loop {
                let polled = subscriber.poll(LIMIT, |batch| {
                    assert_eq!(batch.first_order, next, "dense to the end");
                    next += batch.messages().count() as u64;
                });
                match polled {
                    Ok(_) => assert!(Instant::now() < deadline),
                    Err(error) => return (next, error, subscriber),
                }
            }
        });
        wait_for("traffic", || (admin.topic("t", LIMIT).unwrap().next_order > 2000).then_some(()));
        admin.delete_topic("t", LIMIT).unwrap();
        let error = publisher.join();
        assert_eq!(error.refusal(), Some(Refusal::TopicDeleted), "{error}");
        let (next, error, mut subscriber) = subscriber.join();
        assert_eq!(error.refusal(), Some(Refusal::TopicDeleted), "{error}");
        assert!(next > 2000);
        assert_eq!(admin.topic("t", LIMIT).unwrap_err().refusal(), Some(Refusal::UnknownTopic));
        let error = admin.delete_topic("t", LIMIT).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::UnknownTopic), "{error}");
        site.create_topic("t", order, Receipts::Batch);
        let after = admin.topic("t", LIMIT).unwrap();
        assert_eq!((after.id, after.next_order), (before.id, Order(0)), "the place is used again");
        assert!(after.generation > before.generation);
        // The old subscriber asks again and is given nothing of the new topic.
        let mut publisher = connect(site.publisher("t"));
        (0..next + 100).for_each(|number| publisher.send(&message(1, number, 40)).unwrap());
        publisher.close(LIMIT).unwrap();
        let error = subscriber.poll(LIMIT, |_| panic!("another topic's")).unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::TopicDeleted), "{error}");
        let mut fresh = Subscriber::connect(site.subscriber("t", 0, Start::Earliest)).unwrap();
        let mut got = 0;
        while got < next + 100 {
            fresh
                .poll(LIMIT, |batch| {
                    batch.messages().for_each(|(order, found)| {
                        assert_eq!((order.0, read_message(found.payload).0), (got, 1), "the new topic's");
                        got += 1;
                    })
                })
                .unwrap();
        }
        cluster.stop();
    }
}

/// More topics than one reply holds, some of them gone again.
#[test]
fn hundreds_of_topics_are_made_listed_used_and_deleted() {
    const TOPICS: usize = 500;
    let geometry =
        "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 64, topics_max: 512";
    let site = Site::new("hundreds", &Setup { brokers: 2, geometry, ..Setup::default() });
    let cluster = site.start();
    let (mut first, mut second) = (admin(&site, 0), admin(&site, 1));
    let name = |topic: usize| format!("topic-{topic:03}");
    let begun = Instant::now();
    for topic in 0..TOPICS {
        let admin = if topic % 2 == 0 { &mut first } else { &mut second };
        admin.create_topic(&name(topic), &TopicProperties::default(), LIMIT).unwrap();
    }
    println!("{TOPICS} topics created in {:?}", begun.elapsed());
    let listed = |admin: &mut Admin| -> Vec<String> {
        let mut names: Vec<_> = admin.topics(LIMIT).unwrap().into_iter().map(|topic| topic.name).collect();
        names.sort();
        names
    };
    assert_eq!(listed(&mut second), (0..TOPICS).map(name).collect::<Vec<_>>());
    for topic in (0..TOPICS).step_by(25) {
        let mut publisher = connect(site.publisher(&name(topic)));
        (0..10).for_each(|number| publisher.send(&message(topic as u32, number, 40)).unwrap());
        publisher.close(LIMIT).unwrap();
    }
    for topic in (0..TOPICS).filter(|topic| topic % 5 != 0) {
        second.delete_topic(&name(topic), LIMIT).unwrap();
    }
    assert_eq!(listed(&mut first), (0..TOPICS).step_by(5).map(name).collect::<Vec<_>>());
    for topic in (0..TOPICS).step_by(25) {
        let mut subscriber = Subscriber::connect(site.subscriber(&name(topic), 1, Start::Earliest)).unwrap();
        let mut got = 0;
        while got < 10 {
            subscriber
                .poll(LIMIT, |batch| {
                    batch.messages().for_each(|(order, found)| {
                        assert_eq!((order.0, found.payload), (got, &message(topic as u32, got, 40)[..]));
                        got += 1;
                    })
                })
                .unwrap();
        }
    }
    println!("all in {:?}", begun.elapsed());
    cluster.stop();
}

/// Bytes of the pool's extents.
fn blog(site: &Site) -> u64 {
    let wanted = embarcadero::embarlet::geometry(&site.config, 64 << 20);
    let geometry = embarcadero::pool::Layout::new(wanted).unwrap().geometry;
    geometry.extent_bytes * u64::from(geometry.extents)
}

/// Publishes about this many bytes. Gives how many messages.
fn publish(site: &Site, topic: &str, bytes: u64) -> u64 {
    // Few batches: it is the blog that is to fill, not the index.
    let linger = Duration::from_millis(100);
    let mut publisher = connect(PublisherOptions { batch_bytes: 128 << 10, linger, ..site.publisher(topic) });
    let count = bytes / 1040;
    (0..count).for_each(|number| publisher.send(&message(1, number, 1000)).unwrap());
    publisher.close(LIMIT).unwrap();
    count
}

/// A lane that begins to write waits for grants that are on their way, a pass or two: on a busy machine that is seen. Who is short waits every pass.
fn nobody_was_short(site: &Site) {
    let counters = site.counters();
    let (waits, granted) = (counters.received("extent_wait"), counters.sequencer["granted_extents"]);
    assert!(waits * 8 <= granted, "nobody was short of memory: {waits} waits, {granted} grants");
}

#[test]
fn a_topic_is_kept_to_its_target_and_age_and_readers_are_told_what_is_gone() {
    let site = Site::new("targets", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    let (mut admin, lane_bytes) = (admin(&site, 0), blog(&site));
    admin.create_topic("some", &kept(lane_bytes / 4, 0), LIMIT).unwrap();
    let count = publish(&site, "some", lane_bytes / 4 * 3);
    let some = wait_for("what is past the target to go", || {
        let topic = admin.topic("some", LIMIT).unwrap();
        // The target, an eighth more, and what the last step is in the middle of.
        (topic.next_order == count && topic.kept_bytes < lane_bytes / 4 / 8 * 9 + (2 << 20)).then_some(topic)
    });
    assert!(some.kept_bytes >= lane_bytes / 4 && some.earliest_order > 0, "{some:?}");
    let error = Subscriber::connect(site.subscriber("some", 0, Start::Order(Order(0)))).expect_err("it is gone");
    assert_eq!(error.refusal(), Some(Refusal::Trimmed), "{error}");
    let mut first = None;
    let mut subscriber = Subscriber::connect(site.subscriber("some", 0, Start::Earliest)).unwrap();
    while first.is_none() {
        subscriber.poll(LIMIT, |batch| first = first.or(Some(batch.first_order))).unwrap();
    }
    assert!(first.unwrap() >= some.earliest_order && first.unwrap() < count, "{first:?}");
    drop(subscriber);
    admin.delete_topic("some", LIMIT).unwrap();
    admin
        .create_topic("young", &TopicProperties { retention_age: Duration::from_millis(500), ..kept(0, 0) }, LIMIT)
        .unwrap();
    let count = publish(&site, "young", 100 << 10);
    wait_for("all of it to be too old", || {
        let topic = admin.topic("young", LIMIT).unwrap();
        (topic.earliest_order == count && topic.kept_bytes == 0).then_some(())
    });
    cluster.stop();
    nobody_was_short(&site);
}

#[test]
fn the_memory_of_a_deleted_topic_is_given_back() {
    let site = Site::new("reclaimed", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    let (mut admin, lane_bytes) = (admin(&site, 0), blog(&site));
    for (topic, round) in [("a", 0), ("b", 1), ("c", 2)] {
        admin.create_topic(topic, &TopicProperties::default(), LIMIT).unwrap();
        let count = publish(&site, topic, lane_bytes / 4 * 3);
        let found = wait_for("its progress", || {
            let found = admin.topic(topic, LIMIT).unwrap();
            (found.next_order == count).then_some(found)
        });
        assert_eq!(found.earliest_order, 0, "round {round}: it has no target, and nobody is short");
        admin.delete_topic(topic, LIMIT).unwrap();
        // Its counters are copied out once a second.
        wait_for("its memory", || {
            let sequencer = site.counters().sequencer;
            (sequencer["deleted_topics"] == round + 1 && sequencer["floor"] + 4 >= sequencer["watermark"]).then_some(())
        });
    }
    cluster.stop();
    nobody_was_short(&site);
}
