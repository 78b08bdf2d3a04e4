//! Protocol versions by hand: what a broker says to clients of version 2 and of version 3, and who is heard when nothing else is said.

use std::time::{Duration, Instant};

use embarcadero::wire::frame::{self, Heartbeat, Hello, LogRecord, Role, Welcome};
use embarcadero::wire::message::push;
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{FrameKind, OrderLevel, Receipts, Refusal, StartAt};

use crate::harness::{Setup, Site};
use crate::raw::{Came, Raw, batch, frame_of, publisher_hello};

const TOPIC: &str = "t";

/// Says this hello and gives the first frame, which is a welcome, and what its body says of the log.
fn welcomed(raw: &mut Raw, hello: &Hello, body: &[u8]) -> (Welcome, Option<LogRecord>) {
    raw.send(&frame::with_body(hello, body));
    let came = raw.receive().expect("a welcome");
    assert_eq!(came.kind, FrameKind::Welcome, "{}", String::from_utf8_lossy(&came.body));
    let welcome: Welcome = frame::read(&came.header);
    let (log, brokers) = frame::split_welcome_body(welcome.version, &came.body).expect("a sound body");
    assert!(brokers.starts_with(b"0 "), "the brokers come last");
    (welcome, log)
}

/// What comes within a second.
fn within_a_second(raw: &mut Raw) -> Vec<Came> {
    let until = Instant::now() + Duration::from_secs(1);
    let mut all = Vec::new();
    while Instant::now() < until {
        if raw.can_read(Duration::from_millis(50)) {
            all.extend(raw.receive());
        }
    }
    all
}

#[test]
fn who_speaks_version_3_hears_heartbeats_and_who_speaks_2_does_not() {
    let site = Site::new("versions", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let address = site.address(0);
    let mut starts = Vec::new();
    push_start(&mut starts, TOPIC, StartAt::Latest, 0);
    let subscriber = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
    for (hello, body) in [(publisher_hello(), TOPIC.as_bytes()), (subscriber, &starts[..])] {
        let mut raw = Raw::connect(&address);
        let (welcome, log) = welcomed(&mut raw, &hello, body);
        assert_eq!((welcome.version, log), (2, None));
        let came = within_a_second(&mut raw);
        assert!(came.iter().all(|came| came.kind != FrameKind::Heartbeat && came.header[4] == 2), "{came:?}");

        let mut raw = Raw::connect(&address);
        let (welcome, log) = welcomed(&mut raw, &hello.speaking(), body);
        let log = log.expect("version 3 tells of the log");
        assert!(welcome.version == 3 && log.uuid != [0, 0] && log.heartbeat_ms == 150, "{welcome:?} {log:?}");
        let came = within_a_second(&mut raw);
        assert!(came.iter().all(|came| came.header[4] == 3), "all frames are of the version in use: {came:?}");
        let heartbeats = came.iter().filter(|came| came.kind == FrameKind::Heartbeat).count();
        assert!(heartbeats >= 2, "of those due every 150 ms in a second, on a machine that may be slow");
    }
    cluster.stop();
}

/// A batch, and that there is no more, are told in the version of whoever reads; the batch itself keeps that of its format.
#[test]
fn every_frame_to_a_subscriber_is_of_the_version_in_use() {
    let site = Site::new("versions-deliver", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let (mut publisher, welcome) = Raw::publisher(&site.address(0), TOPIC);
    publisher.send(&batch(&welcome, 0, &[b"payload".to_vec()]));
    publisher.wait_acked(1);
    let mut starts = Vec::new();
    push_start(&mut starts, TOPIC, StartAt::Earliest, 0);
    let hello = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
    for (version, hello) in [(2, hello), (3, hello.speaking())] {
        let mut raw = Raw::connect(&site.address(0));
        assert_eq!(welcomed(&mut raw, &hello, &starts).0.version, version);
        let mut kinds = Vec::new();
        while kinds.last() != Some(&FrameKind::CaughtUp) {
            let came = raw.receive().expect("a batch, and that there is no more");
            assert_eq!(came.header[4], version, "{came:?}");
            kinds.push(came.kind);
        }
        assert!(kinds.contains(&FrameKind::Deliver), "{kinds:?}");
    }
    cluster.stop();
}

#[test]
fn heartbeats_of_publishers_come_between_batches_and_use_up_nothing() {
    let site = Site::new("versions-beats", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut raw = Raw::connect(&site.address(0));
    let hello = Hello { heartbeat_ms: 10, ..publisher_hello() }.speaking();
    let (welcome, _) = welcomed(&mut raw, &hello, TOPIC.as_bytes());
    let beat = frame::seal(&Heartbeat::default());
    let batch = |batch_seq| {
        let mut body = Vec::new();
        push(&mut body, b"payload");
        let Welcome { session, session_epoch, topic, .. } = welcome;
        let ids = frame::BatchHeader { session, session_epoch, topic, batch_seq, ..Default::default() };
        frame_of(&frame::BatchHeader { message_count: 1, ..ids }, body)
    };
    // Alone, in front of a batch, between two, behind one, and in pieces.
    raw.send(&beat);
    raw.send(&[&beat[..], &batch(0), &beat, &beat, &batch(1), &beat].concat());
    raw.send(&beat[..10]);
    std::thread::sleep(Duration::from_millis(30));
    raw.send(&[&beat[10..], &batch(2)].concat());
    let mut acked = 0;
    while acked < 3 {
        let came = raw.receive().expect("acks");
        match came.kind {
            FrameKind::Ack => acked = frame::read::<frame::Ack>(&came.header).committed_next,
            kind => assert_eq!(kind, FrameKind::Heartbeat, "{}", String::from_utf8_lossy(&came.body)),
        }
    }
    cluster.stop();
}

#[test]
fn what_was_in_another_log_is_not_resumed() {
    let site = Site::new("versions-log", &Setup { brokers: 1, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut raw = Raw::connect(&site.address(0));
    let (_, log) = welcomed(&mut raw, &publisher_hello().speaking(), TOPIC.as_bytes());
    let log = log.expect("version 3 tells of the log").tag();
    let mut starts = Vec::new();
    push_start(&mut starts, TOPIC, StartAt::Earliest, 0);
    let subscriber = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
    for (hello, body) in [(publisher_hello(), TOPIC.as_bytes()), (subscriber, &starts[..])] {
        welcomed(&mut Raw::connect(&site.address(0)), &Hello { log, ..hello }.speaking(), body);
        let mut raw = Raw::connect(&site.address(0));
        raw.send(&frame::with_body(&Hello { log: log ^ 1, ..hello }.speaking(), body));
        assert_eq!(raw.expect_refused(Refusal::OtherLog), u64::from(log));
    }
    cluster.stop();
}
