//! Publisher and subscriber against scripted brokers over TCP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fake::{Fake, Peer, delivery, payloads, welcome};
use super::*;
use crate::limits::FRAME_HEADER_BYTES;
use crate::net::readiness::Readiness;
use crate::wire::frame::{self, ACK_FENCED, Ack, BatchHeader, CaughtUp, NOTHING_LET_GO, Reply, Role, Skipped, Welcome};
use crate::wire::subscribe::read_starts;
use crate::wire::{AckLevel, Operation, OrderLevel, Refusal, StartAt, WireError};

const SECOND: Duration = Duration::from_secs(1);

const SOON: Duration = Duration::from_secs(2);

fn publisher(brokers: &[&Fake]) -> PublisherOptions {
    PublisherOptions {
        brokers: brokers.iter().map(|fake| fake.address.clone()).collect(),
        topic: "orders".to_owned(),
        discover: false,
        batch_messages: 2,
        connect_timeout: SECOND,
        ..PublisherOptions::default()
    }
}

fn subscriber(fake: &Fake, start: Start) -> SubscriberOptions {
    SubscriberOptions {
        brokers: vec![fake.address.clone()],
        topic: "orders".to_owned(),
        start,
        connect_timeout: SECOND,
        ..SubscriberOptions::default()
    }
}

/// A sequencer of one level-5 session, shared by the brokers of a test.
#[derive(Default)]
struct Sequencer {
    epoch: u32,
    expected: u64,
    parked: BTreeMap<u64, Vec<Vec<u8>>>,
    log: Vec<Vec<u8>>,
    duplicates: u64,
}

type Shared = Arc<Mutex<Sequencer>>;

fn sequencer() -> Shared {
    Arc::new(Mutex::new(Sequencer { epoch: 1, ..Sequencer::default() }))
}

/// Welcomes into the session as it stands.
fn greet(shared: &Shared, peer: &mut Peer) -> io::Result<()> {
    let (hello, topic) = peer.hello()?;
    assert_eq!((hello.role, topic.as_str()), (Role::Publisher as u8, "orders"));
    let answer = {
        let sequencer = shared.lock().unwrap();
        assert!(hello.session == 0 || (hello.session, hello.token) == (7, 99));
        Welcome { next: sequencer.expected, session_epoch: sequencer.epoch, ..welcome(OrderLevel::Session) }
    };
    peer.welcome(answer, &[])
}

/// Takes one batch and acks; false at a goodbye.
fn take(shared: &Shared, peer: &mut Peer) -> io::Result<bool> {
    let Some((header, bytes)) = peer.batch()? else { return Ok(false) };
    let ack = {
        let mut sequencer = shared.lock().unwrap();
        if header.session_epoch == sequencer.epoch {
            if header.batch_seq < sequencer.expected || sequencer.parked.contains_key(&header.batch_seq) {
                sequencer.duplicates += 1;
            } else {
                sequencer.parked.insert(header.batch_seq, payloads(&bytes));
            }
        }
        let mut next = sequencer.expected;
        while let Some(messages) = sequencer.parked.remove(&next) {
            sequencer.log.extend(messages);
            next += 1;
        }
        sequencer.expected = next;
        Ack {
            session: 7,
            session_epoch: sequencer.epoch,
            committed_next: next,
            order_end: sequencer.log.len() as u64,
            let_go_from: NOTHING_LET_GO,
            ..Ack::default()
        }
    };
    peer.send(&ack)?;
    Ok(true)
}

fn serve(shared: &Shared, peer: &mut Peer) -> io::Result<()> {
    greet(shared, peer)?;
    while take(shared, peer)? {}
    Ok(())
}

fn message(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize % 30)
}

fn assert_log(shared: &Shared, messages: u64) {
    let log = &shared.lock().unwrap().log;
    assert!(log.iter().eq((0..messages).map(message).collect::<Vec<_>>().iter()), "not the {messages} messages sent");
}

#[test]
fn two_brokers_one_session_in_order() {
    let shared = sequencer();
    let (one, two) = (shared.clone(), shared.clone());
    let fakes = [Fake::start(move |_, peer| serve(&one, peer)), Fake::start(move |_, peer| serve(&two, peer))];
    let options = PublisherOptions {
        connections_per_broker: 2,
        skew: Some(Skew { broker: 1, delay: Duration::from_millis(5) }),
        window_batches: 8,
        ..publisher(&[&fakes[0], &fakes[1]])
    };
    let mut publisher = Publisher::connect(options).unwrap();
    let acked = Arc::new(Mutex::new(Vec::new()));
    let sink = acked.clone();
    publisher.on_acked(move |batch| sink.lock().unwrap().push((batch.batch_seq.0, batch.first_message)));
    (0..101).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.flush(SOON).unwrap();
    assert_eq!((publisher.messages_acked(), publisher.in_flight()), (101, 0));
    assert!(publisher.broker_progress().iter().all(|broker| broker.connected && broker.sent > 0));
    assert_eq!(publisher.session(), 7);
    // Reusable after a flush.
    publisher.send(&message(101)).unwrap();
    publisher.close(SOON).unwrap();
    assert_log(&shared, 102);
    let expected: Vec<_> = (0..52).map(|batch| (batch, if batch < 51 { batch * 2 } else { 101 })).collect();
    assert_eq!(*acked.lock().unwrap(), expected);
}

#[test]
fn brokers_are_discovered_from_the_first() {
    let shared = sequencer();
    let (one, two) = (shared.clone(), shared.clone());
    let second = Fake::start(move |_, peer| serve(&two, peer));
    let address = second.address.clone();
    let first = Fake::start(move |_, peer| {
        peer.hello()?;
        peer.welcome(welcome(OrderLevel::Session), &["localhost:1".to_owned(), address.clone()])?;
        while take(&one, peer)? {}
        Ok(())
    });
    let mut publisher = Publisher::connect(PublisherOptions { discover: true, ..publisher(&[&first]) }).unwrap();
    // The first broker keeps the address it was reached at.
    let addresses: Vec<_> = publisher.broker_progress().iter().map(|broker| broker.address.clone()).collect();
    assert_eq!(addresses, [first.address.clone(), second.address.clone()]);
    (0..20).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.close(SOON).unwrap();
    assert_log(&shared, 20);
}

#[test]
fn connections_broken_in_mid_batch_lose_and_repeat_nothing() {
    let shared = sequencer();
    let brain = shared.clone();
    let fake = Fake::start(move |number, peer| {
        if number > 4 {
            return serve(&brain, peer);
        }
        greet(&brain, peer)?;
        (0..number).try_for_each(|_| take(&brain, peer).map(drop))?;
        peer.stream.read_exact(&mut [0; FRAME_HEADER_BYTES + 5])
    });
    let mut publisher = Publisher::connect(publisher(&[&fake])).unwrap();
    (0..200).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.flush(SOON).unwrap();
    assert_log(&shared, 200);
    let stats = publisher.stats();
    assert!(stats.reconnects >= 5 && stats.resent_batches > 0, "{stats:?}");
    publisher.close(SOON).unwrap();
}

#[test]
fn a_fence_reopens_the_session_at_the_frontier() {
    let shared = sequencer();
    let brain = shared.clone();
    let fake = Fake::start(move |number, peer| {
        if number > 0 {
            let (hello, _) = peer.hello()?;
            assert_eq!((hello.session, hello.session_epoch), (7, 2));
            let next = brain.lock().unwrap().expected;
            peer.welcome(Welcome { next, session_epoch: 2, ..welcome(OrderLevel::Session) }, &[])?;
            while take(&brain, peer)? {}
            return Ok(());
        }
        greet(&brain, peer)?;
        take(&brain, peer)?;
        let fenced = {
            let mut sequencer = brain.lock().unwrap();
            sequencer.epoch = 2;
            let committed_next = sequencer.expected;
            let let_go_from = NOTHING_LET_GO;
            Ack { flags: ACK_FENCED, session: 7, session_epoch: 1, committed_next, let_go_from, ..Ack::default() }
        };
        peer.send(&fenced)?;
        while peer.batch()?.is_some() {}
        Ok(())
    });
    let mut publisher = Publisher::connect(publisher(&[&fake])).unwrap();
    (0..40).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.flush(SOON).unwrap();
    assert_log(&shared, 40);
    assert_eq!(publisher.stats().fences, 1);
    publisher.close(SOON).unwrap();
}

#[test]
fn below_level_5_and_without_acks() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let sink = got.clone();
    let fake = Fake::start(move |number, peer| {
        let (hello, _) = peer.hello()?;
        assert_eq!((hello.session, hello.ack_level), (0, 0));
        let session = number as u64 + 1;
        peer.welcome(Welcome { session, ack_level: 0, ..welcome(OrderLevel::Total) }, &[])?;
        let mut next = 0;
        while let Some((header, bytes)) = peer.batch()? {
            assert_eq!((header.session, header.batch_seq), (session, next));
            next += 1;
            sink.lock().unwrap().extend(payloads(&bytes));
        }
        Ok(())
    });
    let options = PublisherOptions { ack: AckLevel::None, connections_per_broker: 3, ..publisher(&[&fake]) };
    let mut publisher = Publisher::connect(options).unwrap();
    (0..90).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.flush(SOON).unwrap();
    assert_eq!(publisher.broker_progress()[0].acked, 90);
    publisher.close(SOON).unwrap();
    drop(fake);
    let mut got = std::mem::take(&mut *got.lock().unwrap());
    let mut sent: Vec<_> = (0..90).map(message).collect();
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
}

#[test]
fn a_refused_hello_says_why() {
    let fake = Fake::start(|_, peer| {
        let (request, body) = peer.request()?;
        assert_eq!(request.operation, Operation::TopicCreate as u8);
        assert_eq!(body.split_at(request.topic_bytes.into()).0, b"orders");
        let (operation, code) = (request.operation, Refusal::TopicExists as u16);
        peer.reply(Reply { operation, code, ..Reply::default() }, b"orders has order level 2")
    });
    let options = PublisherOptions { create: Some(TopicProperties::default()), ..publisher(&[&fake]) };
    let error = Publisher::connect(options).err().unwrap();
    assert_eq!(error.refusal(), Some(Refusal::TopicExists));
    assert!(error.to_string().contains("code 7 (TopicExists): orders has order level 2"), "{error}");
    let error = Publisher::connect(PublisherOptions { batch_bytes: 1, ..publisher(&[&fake]) }).err().unwrap();
    assert!(matches!(error, ClientError::Option { option: "batch_bytes", .. }));
}

#[test]
fn a_silent_broker_gives_a_timeout_with_numbers() {
    let fake = Fake::start(|_, peer| {
        peer.hello()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        while peer.batch()?.is_some() {}
        Ok(())
    });
    let mut publisher = Publisher::connect(PublisherOptions { window_batches: 2, ..publisher(&[&fake]) }).unwrap();
    (0..6).for_each(|number| assert!(publisher.try_send(&message(number)).unwrap()));
    assert!(!publisher.try_send(b"one too many").unwrap());
    assert_eq!((publisher.in_flight(), publisher.messages_sent()), (2, 6));
    let error = publisher.flush(Duration::from_millis(30)).unwrap_err();
    assert!(error.to_string().contains("2 batches unacked. Waiting for ACKs: [B0=0] total=0/6"), "{error}");
    let max = publisher.batch_message_bytes_max();
    assert!(matches!(publisher.try_send(&vec![0; max as usize + 1]), Err(ClientError::PayloadTooLarge { .. })));
}

/// Seed 2.1: while a publisher waits, its line says which broker lags.
#[test]
fn seed_2_1_the_waiting_line_names_the_broker_that_lags() {
    let broker = |id: u16, is_stuck: bool| {
        Fake::start(move |_, peer| {
            peer.hello()?;
            let session = u64::from(id) + 1;
            peer.welcome(Welcome { session, broker: id, ..welcome(OrderLevel::Total) }, &[])?;
            let mut messages = 0;
            while let Some((header, _)) = peer.batch()? {
                messages += u64::from(header.message_count);
                let (committed_next, broker_messages) = (header.batch_seq + 1, messages);
                if !is_stuck {
                    let ack = Ack { session, session_epoch: 1, committed_next, broker_messages, ..Ack::default() };
                    peer.send(&Ack { let_go_from: NOTHING_LET_GO, ..ack })?;
                }
            }
            Ok(())
        })
    };
    let (lively, stuck) = (broker(0, false), broker(1, true));
    let mut publisher = Publisher::connect(publisher(&[&lively, &stuck])).unwrap();
    (0..40).for_each(|number| assert!(publisher.try_send(&message(number)).unwrap()));
    let error = publisher.flush(Duration::from_millis(200)).unwrap_err();
    let acked = publisher.messages_acked();
    assert!(0 < acked && acked < 40, "{acked}");
    assert!(error.to_string().contains(&format!("Waiting for ACKs: [B0={acked}, B1=0] total={acked}/40")), "{error}");
}

#[test]
fn with_every_broker_gone_send_gives_up_after_the_connect_timeout() {
    let fake = Fake::start(|_, peer| {
        peer.hello()?;
        peer.welcome(welcome(OrderLevel::Session), &[])
    });
    let address = fake.address.clone();
    let connect_timeout = Duration::from_millis(150);
    let options = PublisherOptions { window_batches: 2, connect_timeout, ..publisher(&[&fake]) };
    let mut publisher = Publisher::connect(options).unwrap();
    drop(fake);
    let error = (0..100).find_map(|number| publisher.send(&message(number)).err()).unwrap();
    let ClientError::Unreachable { waited, tried } = error else { panic!("{error}") };
    assert!(waited >= connect_timeout && tried.0[0].broker == address, "{waited:?} {tried}");
    assert_eq!((publisher.messages_sent(), publisher.in_flight()), (6, 2));
}

#[test]
fn a_background_publisher_may_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<BackgroundPublisher>();
    fn sent<T: Send>() {}
    sent::<Publisher>();
    sent::<Subscriber>();
}

#[test]
fn a_spoiled_ack_costs_the_connection_only() {
    let shared = sequencer();
    let brain = shared.clone();
    let fake = Fake::start(move |number, peer| {
        if number > 0 {
            return serve(&brain, peer);
        }
        greet(&brain, peer)?;
        peer.batch()?;
        peer.stream.write_all(&[0x45; FRAME_HEADER_BYTES])?;
        while peer.batch()?.is_some() {}
        Ok(())
    });
    let mut publisher = Publisher::connect(publisher(&[&fake])).unwrap();
    (0..10).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.close(SOON).unwrap();
    assert_log(&shared, 10);
}

/// With nothing on its way a message has no company to wait for.
#[test]
fn a_lone_message_does_not_linger() {
    let shared = sequencer();
    let served = shared.clone();
    let fake = Fake::start(move |_, peer| serve(&served, peer));
    let options = PublisherOptions { linger: Duration::MAX, ..publisher(&[&fake]) };
    let mut publisher = Publisher::connect(options).unwrap();
    let deadline = Instant::now() + SOON;
    for number in 0..3 {
        publisher.send(&message(number)).unwrap();
        while publisher.messages_acked() <= number {
            assert!(Instant::now() < deadline, "message {number} waits for company");
            publisher.poll(SECOND).unwrap();
        }
    }
    let background = BackgroundPublisher::start(publisher).unwrap();
    for number in 3..6 {
        background.send(&message(number)).unwrap();
        while background.messages_acked() <= number {
            assert!(Instant::now() < deadline, "message {number} waits for company");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    background.close(SOON).unwrap();
    assert_log(&shared, 6);
}

#[test]
fn a_background_publisher_lingers_flushes_and_closes() {
    let shared = sequencer();
    let brain = shared.clone();
    let fake = Fake::start(move |_, peer| serve(&brain, peer));
    let publisher =
        BackgroundPublisher::connect(PublisherOptions { window_batches: 4, ..publisher(&[&fake]) }).unwrap();
    publisher.send(&message(0)).unwrap();
    let deadline = Instant::now() + SOON;
    while publisher.messages_acked() == 0 {
        assert!(Instant::now() < deadline, "nobody sealed the batch that lingered");
        std::thread::sleep(Duration::from_millis(1));
    }
    (1..300).for_each(|number| publisher.send(&message(number)).unwrap());
    publisher.flush(SOON).unwrap();
    assert_eq!((publisher.messages_acked(), publisher.in_flight()), (300, 0));
    assert!(publisher.broker_progress()[0].connected);
    publisher.close(SOON).unwrap();
    assert_log(&shared, 300);
}

/// Polls until `wanted` messages came or an error did.
fn collect(subscriber: &mut Subscriber, wanted: usize) -> Result<Vec<(u64, Vec<u8>)>, ClientError> {
    let deadline = Instant::now() + SOON;
    let mut got = Vec::new();
    while got.len() < wanted {
        assert!(Instant::now() < deadline, "{} of {wanted} messages", got.len());
        let each = &mut |delivered: &Delivered<'_>| {
            got.extend(delivered.messages().map(|(order, message)| (order.0, message.payload.to_vec())));
        };
        subscriber.poll(Duration::from_millis(50), each)?;
    }
    Ok(got)
}

fn subscribed(peer: &mut Peer, next: u64) -> io::Result<u64> {
    let (hello, body) = peer.hello_bytes()?;
    assert_eq!(hello.role, Role::Subscriber as u8);
    peer.welcome(Welcome { next, ..welcome(OrderLevel::Session) }, &[])?;
    match read_starts(&body).unwrap()[..] {
        [("orders", StartAt::Order(order), _)] => Ok(order),
        [("orders", ..)] => Ok(u64::MAX),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_subscriber_skips_below_its_start_and_resumes_in_mid_batch() {
    let fake = Fake::start(|number, peer| match number {
        0 => {
            assert_eq!(subscribed(peer, 5)?, 5);
            peer.deliver(3, &[b"3", b"4", b"5", b"6"])?;
            peer.send(&CaughtUp { topic: 4, next_order: 7, ..CaughtUp::default() })?;
            let next = delivery(7, &[b"7", &[8; 5000]], |_, _| ());
            peer.stream.write_all(&next[..next.len() / 2])
        }
        _ => {
            assert_eq!(subscribed(peer, 7)?, 7);
            peer.deliver(7, &[b"7", &[8; 5000]])?;
            peer.deliver(9, &[b"9"])?;
            peer.stream.read(&mut [0; 1]).map(drop)
        }
    });
    let mut subscriber = Subscriber::connect(subscriber(&fake, Start::Order(Order(5)))).unwrap();
    let got = collect(&mut subscriber, 5).unwrap();
    assert_eq!(got.iter().map(|(order, _)| *order).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    assert_eq!(got[0].1, b"5");
    assert_eq!((got[3].1.len(), subscriber.next_order().0, subscriber.caught_up()), (5000, 10, false));
}

/// Waits by `watch`, much longer than an answer takes: what comes must end the wait.
fn woken(watch: impl FnOnce(&mut Readiness) -> Option<Instant>) {
    let mut readiness = Readiness::default();
    let until = watch(&mut readiness);
    let time = until.map_or(2 * SECOND, |until| until.saturating_duration_since(Instant::now()));
    assert_eq!(readiness.wait(time).unwrap(), 1, "nothing came for {time:?}");
}

#[test]
fn one_thread_waits_for_publishers_and_subscribers() {
    let shared = sequencer();
    let served = shared.clone();
    let brokers = Fake::start(move |_, peer| serve(&served, peer));
    let options = PublisherOptions { resend_after: 4 * SECOND, linger: SECOND / 20, ..publisher(&[&brokers]) };
    let mut publisher = Publisher::connect(options).unwrap();
    assert_eq!(publisher.watch(&mut Readiness::default()), None, "nothing to do");
    publisher.send(b"one").unwrap();
    let lingers = publisher.watch(&mut Readiness::default()).expect("an open batch lingers");
    assert!(lingers <= Instant::now() + SECOND / 20);
    publisher.seal();
    publisher.poll(Duration::ZERO).unwrap();
    woken(|readiness| publisher.watch(readiness));
    publisher.poll(Duration::ZERO).unwrap();
    assert_eq!(publisher.messages_acked(), 1);

    let fake = Fake::start(|_, peer| {
        subscribed(peer, 0)?;
        peer.deliver(0, &[b"one"])?;
        peer.stream.read(&mut [0; 1]).map(drop)
    });
    let mut subscriber = Subscriber::connect(subscriber(&fake, Start::Earliest)).unwrap();
    woken(|readiness| subscriber.watch(readiness));
    assert_eq!(collect(&mut subscriber, 1).unwrap().len(), 1);
}

#[test]
fn a_batch_larger_than_the_buffer_and_the_tail() {
    let fake = Fake::start(|_, peer| {
        subscribed(peer, 0)?;
        (0..50).try_for_each(|batch| peer.deliver(batch * 2, &[&[1; 500], &[2; 3000]]))?;
        let large = vec![3; 200_000];
        peer.deliver(100, &[&large, b""])?;
        peer.send(&CaughtUp { topic: 4, next_order: 102, ..CaughtUp::default() })?;
        peer.stream.read(&mut [0; 1]).map(drop)
    });
    let options = SubscriberOptions { buffer_bytes: 8192, ..subscriber(&fake, Start::Earliest) };
    let mut subscriber = Subscriber::connect(options).unwrap();
    assert_eq!(collect(&mut subscriber, 102).unwrap().len(), 102);
    while !subscriber.caught_up() {
        assert_eq!(subscriber.poll(Duration::from_millis(200), |_| panic!("nothing is left")).unwrap(), 0);
    }
}

#[test]
fn what_a_broker_sends_wrongly_is_an_error_and_is_fetched_again() {
    let fake = Fake::start(|number, peer| {
        subscribed(peer, 0)?;
        let wrong = match number {
            0 => delivery(0, &[b"x"], |_, batch| batch[FRAME_HEADER_BYTES + 20] ^= 1),
            1 => delivery(0, &[b"x"], |deliver, _| deliver.batch_seq = 9),
            2 => delivery(1, &[b"x"], |_, _| ()),
            3 => vec![0; FRAME_HEADER_BYTES],
            _ => delivery(0, &[b"x"], |_, _| ()),
        };
        peer.stream.write_all(&wrong)?;
        peer.stream.read(&mut [0; 1]).map(drop)
    });
    let mut subscriber = Subscriber::connect(subscriber(&fake, Start::Order(Order(0)))).unwrap();
    let mut error = || collect(&mut subscriber, 1).unwrap_err();
    // The first was spoiled on its way, and the second is a whole other batch that was written where one was being sent: no more than lost
    // connections.
    assert!(matches!(error(), ClientError::Gap { found: Order(1), expected: Order(0), .. }));
    assert!(matches!(error(), ClientError::Wire { error: WireError::Magic { .. }, .. }));
    assert_eq!(collect(&mut subscriber, 1).unwrap(), [(0, b"x".to_vec())]);
}

#[test]
fn a_trimmed_start_is_refused_with_the_earliest_order() {
    let fake = Fake::start(|_, peer| {
        peer.hello_bytes()?;
        peer.refuse(Refusal::Trimmed, 40, "the earliest order is 40")
    });
    let error = Subscriber::connect(subscriber(&fake, Start::Order(Order(1)))).err().unwrap();
    assert!(matches!(error, ClientError::Refused { code: 8, detail: 40, .. }));
}

/// Two topics on one connection: each dense by itself, what was skipped told, and both resumed by position.
#[test]
fn several_topics_are_checked_each_and_resumed_each() {
    let deliver = |position: u64, topic: u32, first: u64, payload: &[u8]| {
        delivery(first, &[payload], |deliver, batch| {
            let mut header: BatchHeader = frame::read(batch.first_chunk().unwrap());
            (deliver.position, deliver.topic, header.topic) = (position, topic, topic);
            batch[..FRAME_HEADER_BYTES].copy_from_slice(&frame::seal(&header));
        })
    };
    let fake = Fake::start(move |number, peer| {
        let (hello, body) = peer.hello_bytes()?;
        assert_eq!(hello.slow_reader, 2);
        let starts = read_starts(&body).unwrap();
        let expected = [StartAt::Earliest, StartAt::Timestamp(77)];
        let expected = if number == 0 { expected } else { [StartAt::Order(12), StartAt::Order(5)] };
        // It goes on with the topics it was welcomed to, not with others of their names.
        let generations = if number == 0 { [0, 0] } else { [31, 32] };
        assert_eq!(starts, [("orders", expected[0], generations[0]), ("bills", expected[1], generations[1])]);
        let next = if number == 0 { [2, 4] } else { [12, 5] };
        peer.welcome(Welcome { next: next[0], session: 31, ..welcome(OrderLevel::Session) }, &[])?;
        peer.welcome(Welcome { next: next[1], session: 32, topic: 9, ..welcome(OrderLevel::Total) }, &[])?;
        if number == 0 {
            peer.stream.write_all(&[deliver(20, 4, 2, b"a"), deliver(21, 9, 4, b"b")].concat())?;
            peer.send(&CaughtUp { topic: 9, next_order: 5, ..CaughtUp::default() })?;
            peer.send(&Skipped { topic: 4, from: 3, next_order: 12, ..Skipped::default() })?;
            return peer.stream.write_all(&deliver(22, 4, 12, b"c")[..99]);
        }
        peer.stream
            .write_all(&[deliver(22, 4, 12, b"c"), deliver(23, 9, 5, b"d"), deliver(24, 8, 0, b"e")].concat())?;
        peer.stream.read(&mut [0; 1]).map(drop)
    });
    let options = SubscriberOptions {
        more_topics: vec![("bills".to_owned(), Start::Timestamp(77))],
        slow_reader: SlowReaderPolicy::Skip,
        ..subscriber(&fake, Start::Earliest)
    };
    let mut subscriber = Subscriber::connect(options).unwrap();
    let (mut got, mut error, deadline) = (Vec::new(), None, Instant::now() + SOON);
    while error.is_none() {
        assert!(Instant::now() < deadline, "only {got:?}");
        let each = &mut |event: Event<'_>| {
            got.push(match event {
                Event::Batch(batch) => (batch.topic.to_owned(), batch.first_order, batch.first_order + 1),
                Event::Skipped { topic, from, next_order, .. } => (format!("{topic} skipped"), from, next_order),
            });
        };
        error = subscriber.poll_events(Duration::from_millis(20), each).err();
    }
    let expected = [("orders", 2, 3), ("bills", 4, 5), ("orders skipped", 3, 12), ("orders", 12, 13), ("bills", 5, 6)];
    assert_eq!(got, expected.map(|(what, from, to)| (what.to_owned(), Order(from), Order(to))));
    assert!(matches!(error, Some(ClientError::Contradiction { field: "topic", found: 8, .. })), "{error:?}");
    assert_eq!((subscriber.next_order_of(0), subscriber.next_order_of(1)), (Order(13), Order(6)));
    assert_eq!((subscriber.skipped_messages(), subscriber.caught_up_with(1)), (9, false));
}

#[test]
fn without_crc_checks_only_the_body_goes_unchecked() {
    let fake = Fake::start(|_, peer| {
        subscribed(peer, 0)?;
        peer.stream.write_all(&delivery(0, &[b"x"], |_, batch| batch[FRAME_HEADER_BYTES + 16] ^= 1))?;
        peer.stream.write_all(&delivery(1, &[b"x"], |_, batch| batch[40] ^= 1))?;
        peer.stream.read(&mut [0; 1]).map(drop)
    });
    let options = SubscriberOptions { check_crc: false, ..subscriber(&fake, Start::Earliest) };
    let mut subscriber = Subscriber::connect(options).unwrap();
    let (mut got, deadline) = (Vec::new(), Instant::now() + SOON);
    let error = loop {
        assert!(Instant::now() < deadline, "only {got:?}");
        let each = &mut |batch: &Delivered<'_>| got.extend(batch.messages().map(|(_, found)| found.payload.to_vec()));
        if let Err(error) = subscriber.poll(Duration::from_millis(50), each) {
            break error;
        }
    };
    assert_eq!(got, [b"y"]);
    // Asked for again and again, and then told.
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.to_string().contains("header CRC"), "{error}");
}
