//! Topics over control connections: created, listed, described.

use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use embarcadero::client::{Admin, TopicProperties};
use embarcadero::wire::frame::{self, Goodbye, Reply, Request, TopicRecord, seal, with_body};
use embarcadero::wire::{AckLevel, Operation, OrderLevel, Receipts, Refusal};

use crate::harness::{LIMIT, Setup, Site};
use crate::raw::{Came, Raw, publisher_hello};

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
    assert_eq!((found.properties, found.name.as_str(), found.next_order), (one, "one", 0));
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
