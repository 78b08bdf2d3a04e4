//! What one address may have of a broker: it is refused what is more, in words, and whoever comes from another notices nothing.

use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use embarcadero::wire::frame::{self, Goodbye, Hello, Reply, Request, Role, TopicRecord, Welcome, seal, with_body};
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{AckLevel, FrameKind, Operation, OrderLevel, Receipts, Refusal, StartAt};

use crate::harness::{Cluster, Setup, Site, wait_for};
use crate::raw::{Raw, publisher_hello};

const TOPIC: &str = "t";
const GREEDY: [u8; 4] = [127, 70, 0, 1];
const MODEST: [u8; 4] = [127, 70, 0, 2];

fn start(name: &str, per_address: &'static str) -> (Site, Cluster) {
    let site = Site::new(name, &Setup { brokers: 1, per_address, ..Setup::default() });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    (site, cluster)
}

fn hello() -> Vec<u8> {
    with_body(&publisher_hello(), TOPIC.as_bytes())
}

/// Asks for something that takes a name; gives the code of the answer and what it says.
fn ask(raw: &mut Raw, operation: Operation, topic: &str, rest: &[u8]) -> (u16, String) {
    let request = Request { operation: operation as u8, topic_bytes: topic.len() as u16, ..Request::default() };
    raw.send(&with_body(&request, &[topic.as_bytes(), rest].concat()));
    let came = raw.receive().expect("an answer");
    let reply: Reply = frame::read(&came.header);
    (reply.code, String::from_utf8_lossy(&came.body).into_owned())
}

fn create(raw: &mut Raw, topic: &str) -> (u16, String) {
    let record = TopicRecord {
        order_level: OrderLevel::Session as u8,
        ack_level: AckLevel::Committed as u8,
        replicas: 1,
        ..TopicRecord::zeroed()
    };
    ask(raw, Operation::TopicCreate, topic, bytes_of(&record))
}

#[test]
fn one_address_has_its_share_of_connections_and_sessions() {
    let (site, cluster) = start("share-connections", "connections: 3, sessions: 4, openings: 0");
    let address = site.address(0);
    let open = |from| {
        let mut raw = Raw::connect_from(from, &address);
        raw.send(&hello());
        raw
    };
    let mut held: Vec<Raw> = (0..3).map(|_| open(GREEDY)).collect();
    held.iter_mut().for_each(|raw| assert!(raw.is_welcome()));
    let refused = |mut raw: Raw, words: &[&str]| {
        let text = raw.expect_refused_in_words(Refusal::Busy);
        words.iter().for_each(|word| assert!(text.contains(word), "{text}: {word}"));
    };
    refused(open(GREEDY), &["all the 3 connections", "per_address.connections"]);
    open(MODEST).expect::<Welcome>();
    // A session that was left counts on, a connection does not.
    drop(held);
    let mut fourth = wait_for("a place for the next connection", || {
        let mut raw = open(GREEDY);
        raw.is_welcome().then_some(raw)
    });
    refused(open(GREEDY), &["4 sessions", "per_address.sessions"]);
    fourth.send(&seal(&Goodbye::default()));
    wait_for("room for a session in place of the one that was closed", || open(GREEDY).is_welcome().then_some(()));
    open(MODEST).expect::<Welcome>();
    cluster.stop();
    assert!(site.counters().receive[0]["address_bounds"] >= 2);
}

#[test]
fn one_address_has_its_share_of_topics_and_cursors() {
    let (site, cluster) = start("share-topics", "topics: 2, cursors: 2, openings: 0");
    let (mut greedy, mut modest) =
        (Raw::connect_from(GREEDY, &site.address(0)), Raw::connect_from(MODEST, &site.address(0)));
    assert_eq!((create(&mut greedy, "a").0, create(&mut greedy, "b").0), (0, 0));
    assert_eq!(create(&mut greedy, "a").0, 0, "it exists");
    let (code, text) = create(&mut greedy, "c");
    assert_eq!(code, Refusal::TopicTableFull as u16);
    assert!(text.contains("made 2 topics") && text.contains("per_address.topics"), "{text}");
    assert_eq!(create(&mut modest, "c").0, 0);
    let commit = |raw: &mut Raw, name: &str| ask(raw, Operation::CursorCommit, TOPIC, name.as_bytes());
    assert_eq!((commit(&mut greedy, "x").0, commit(&mut greedy, "y").0, commit(&mut greedy, "x").0), (0, 0, 0));
    let (code, text) = commit(&mut greedy, "z");
    assert_eq!(code, Refusal::CursorTableFull as u16);
    assert!(text.contains("made 2 cursors") && text.contains("per_address.cursors"), "{text}");
    assert_eq!(commit(&mut modest, "z").0, 0);
    drop((greedy, modest));
    cluster.stop();
    assert_eq!(site.counters().receive[0]["address_bounds"], 2);
}

#[test]
fn one_address_comes_no_faster_than_it_may() {
    let (site, cluster) = start("share-openings", "openings: 20, openings_at_once: 20");
    let mut greedy = Raw::connect_from(GREEDY, &site.address(0));
    let begin = Instant::now();
    // Five topics at once, and five more each second.
    for number in 0..8 {
        assert_eq!(create(&mut greedy, &format!("n{number}")).0, 0);
    }
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    // One that breaks the protocol is heard no more for a while; who comes from elsewhere is.
    for _ in 0..3 {
        let mut raw = Raw::connect_from(GREEDY, &site.address(0));
        raw.try_send(&[0x5a; 64]);
        raw.until_closed();
    }
    let mut modest = Raw::connect_from(MODEST, &site.address(0));
    modest.send(&hello());
    modest.expect::<Welcome>();
    drop((greedy, modest));
    cluster.stop();
    let counters = site.counters();
    let receive = &counters.receive[0];
    assert!(receive["held_back"] > 0, "{receive:#?}");
    counters.check_conserved();
}

#[test]
fn the_more_connections_an_address_has_the_less_often_each_is_told_of_the_broker() {
    // One connection gets a heartbeat every 150 ms, the sixth every 600, and one that subscribes counts as well.
    let (site, cluster) = start("share-heartbeats", "heartbeats: 10");
    let mut starts = Vec::new();
    push_start(&mut starts, TOPIC, StartAt::Latest, 0);
    let subscriber_hello = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
    let open = |from, hello: Hello, body: &[u8]| {
        let mut raw = Raw::connect_from(from, &site.address(0));
        raw.send(&with_body(&hello.speaking(), body));
        let came = raw.receive().expect("a welcome");
        assert_eq!(came.kind, FrameKind::Welcome);
        let (log, _) = frame::split_welcome_body(frame::VERSION_3, &came.body).unwrap();
        (raw, log.expect("what the log is").heartbeat_ms)
    };
    let publisher = |from| open(from, publisher_hello(), TOPIC.as_bytes());
    let mut held: Vec<(Raw, u32)> = (0..6).map(|_| publisher(GREEDY)).collect();
    held.push(open(GREEDY, subscriber_hello, &starts));
    let promised: Vec<u32> = held.iter().map(|(_, promised)| *promised).collect();
    assert_eq!(promised, [150, 300, 300, 450, 600, 600, 750]);
    assert_eq!(publisher(MODEST).1, 150, "another address");
    // Each is told as often as it was promised: counted over the same time, however late that is looked at.
    std::thread::sleep(Duration::from_millis(2500));
    let [first, publisher, subscriber] = [0, 5, 6].map(|place| held[place].0.heartbeats_so_far());
    let told = format!("{first} at 150 ms, {publisher} at 600 ms, {subscriber} at 750 ms");
    assert!(publisher >= 2 && subscriber >= 2 && first >= 2 * publisher && first >= 2 * subscriber, "{told}");
    drop(held);
    cluster.stop();
}
