//! Calls that must end, or must not: whatever a caller's callback does and however long it is ready to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::fake::{Fake, Peer, welcome};
use super::*;
use crate::wire::FrameKind;
use crate::wire::frame::{Ack, LogRecord, NOTHING_LET_GO, Welcome};
use crate::wire::{OrderLevel, Refusal};

const SECOND: Duration = Duration::from_secs(1);

/// Acks every batch of one level-5 session.
fn acking() -> Fake {
    Fake::start(|_, peer: &mut Peer| {
        peer.hello()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        while let Some((header, _)) = peer.batch()? {
            let committed_next = header.batch_seq + 1;
            let ack =
                Ack { session: 7, session_epoch: 1, committed_next, let_go_from: NOTHING_LET_GO, ..Ack::default() };
            peer.send(&ack)?;
        }
        Ok(())
    })
}

fn publisher(fake: &Fake) -> PublisherOptions {
    PublisherOptions {
        brokers: vec![fake.address.clone()],
        topic: "orders".to_owned(),
        discover: false,
        batch_messages: 2,
        window_batches: 2,
        connect_timeout: SECOND,
        ..PublisherOptions::default()
    }
}

/// The callback panics on the I/O thread, which is gone then: who waits for it is told, not left waiting.
#[test]
fn a_panic_in_the_callback_ends_every_call() {
    let fake = acking();
    let mut publisher = Publisher::connect(publisher(&fake)).unwrap();
    publisher.on_acked(|_| panic!("a defect of the caller's, as this test wants it"));
    let publisher = BackgroundPublisher::start(publisher).unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let sent = (0..1000u32).find_map(|number| publisher.send(&number.to_le_bytes()).err());
        let flushed = publisher.flush(5 * SECOND).err();
        let _ = tell.send((sent, flushed));
    });
    let (sent, flushed) = told.recv_timeout(10 * SECOND).expect("send ends");
    assert!(matches!(sent, Some(ClientError::Stopped { .. })), "{sent:?}");
    assert!(matches!(flushed, Some(ClientError::Stopped { .. })), "{flushed:?}");
}

/// "Wait until it comes" is a duration like any other.
#[test]
fn the_longest_timeouts_are_timeouts() {
    let fake = acking();
    let (connect_timeout, resend_after) = (Duration::MAX, Duration::MAX);
    let options = PublisherOptions { connect_timeout, resend_after, linger: Duration::MAX, ..publisher(&fake) };
    let mut publisher = Publisher::connect(options).unwrap();
    (0..4u32).for_each(|number| publisher.send(&number.to_le_bytes()).unwrap());
    while publisher.messages_acked() < 4 {
        publisher.poll(Duration::MAX).unwrap();
    }
    let brokers = Fake::start(|_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        peer.deliver(0, &[b"one"])
    });
    let options = SubscriberOptions {
        brokers: vec![brokers.address.clone()],
        topic: "orders".to_owned(),
        connect_timeout,
        ..SubscriberOptions::default()
    };
    let mut subscriber = Subscriber::connect(options).unwrap();
    assert_eq!(subscriber.poll(Duration::MAX, |_| ()).unwrap(), 1);
}

fn subscriber(brokers: &[&Fake]) -> SubscriberOptions {
    SubscriberOptions {
        brokers: brokers.iter().map(|fake| fake.address.clone()).collect(),
        topic: "orders".to_owned(),
        connect_timeout: SECOND,
        ..SubscriberOptions::default()
    }
}

/// A broker that welcomes and lets go at once, every time: the reader is not left to go round and round.
#[test]
fn connections_that_bring_nothing_end_with_what_was_seen() {
    let welcomed = Arc::new(AtomicUsize::new(0));
    let counted = welcomed.clone();
    let fake = Fake::start(move |_, peer: &mut Peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        peer.hello_bytes()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        peer.refuse(Refusal::TooSlow, 0, "in this test always")
    });
    let begun = Instant::now();
    let mut subscriber = Subscriber::connect(subscriber(&[&fake])).unwrap();
    let error = loop {
        if let Err(error) = subscriber.poll(SECOND / 20, |_| ()) {
            break error;
        }
        assert!(begun.elapsed() < 5 * SECOND, "it goes round for ever");
    };
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("in this test always"), "{error}");
    // Later and later: not one after another as fast as it goes.
    assert!(welcomed.load(Ordering::SeqCst) < 10);
}

/// A damaged pool does not mend by asking again.
#[test]
fn one_that_is_told_of_damage_ends_and_does_not_ask_again() {
    let welcomed = Arc::new(AtomicUsize::new(0));
    let counted = welcomed.clone();
    let fake = Fake::start(move |_, peer: &mut Peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        peer.hello_bytes()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        peer.refuse(Refusal::Damaged, 0, "in this test")
    });
    let begun = Instant::now();
    let mut subscriber = Subscriber::connect(subscriber(&[&fake])).unwrap();
    let error = loop {
        if let Err(error) = subscriber.poll(SECOND / 20, |_| ()) {
            break error;
        }
        assert!(begun.elapsed() < 20 * SECOND, "it goes on");
    };
    assert_eq!((error.refusal(), error.is_transient()), (Some(Refusal::Damaged), false), "{error}");
    assert_eq!(welcomed.load(Ordering::SeqCst), 1);
}

/// The broker that is lost is not the first of the list: the next one is asked, not the same again.
#[test]
fn another_broker_is_asked_first() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let asked_again = Arc::new(AtomicUsize::new(0));
    let counted = asked_again.clone();
    let lost = Fake::start(move |_, peer: &mut Peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        peer.hello_bytes()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        peer.deliver(0, &[b"one"])
    });
    let other = Fake::start(|_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome(Welcome { next: 1, ..welcome(OrderLevel::Session) }, &[])?;
        peer.deliver(1, &[b"two"])?;
        std::io::Read::read(&mut peer.stream, &mut [0; 1]).map(drop)
    });
    let brokers = vec![closed, lost.address.clone(), other.address.clone()];
    let options = SubscriberOptions { brokers, ..subscriber(&[]) };
    let mut subscriber = Subscriber::connect(options).unwrap();
    let begun = Instant::now();
    while subscriber.next_order() < 2 {
        subscriber.poll(SECOND / 20, |_| ()).unwrap();
        assert!(begun.elapsed() < 5 * SECOND, "it stays with what it lost");
    }
    assert_eq!(asked_again.load(Ordering::SeqCst), 1);
}

/// Who begins at the earliest is told how much there once was.
#[test]
fn what_was_trimmed_before_the_start_is_told() {
    let fake = Fake::start(|_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome(Welcome { next: 40, ..welcome(OrderLevel::Session) }, &[])?;
        std::io::Read::read(&mut peer.stream, &mut [0; 1]).map(drop)
    });
    let began = |start| Subscriber::connect(SubscriberOptions { start, ..subscriber(&[&fake]) }).unwrap();
    let all = began(Start::Earliest);
    assert_eq!((all.trimmed_before_start(0), all.next_order().0), (40, 40));
    assert_eq!(began(Start::Order(Order(50))).trimmed_before_start(0), 0);
}

fn log(number: u64, heartbeat_ms: u32) -> LogRecord {
    LogRecord { uuid: [number, 7], heartbeat_ms, ..bytemuck::Zeroable::zeroed() }
}

/// A broker that is stopped says nothing, and neither does TCP: it is left for one that is heard, where it was left.
#[test]
fn a_silent_broker_is_left_within_two_seconds() {
    let silent = Fake::start(|_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome_to(&log(1, 100), welcome(OrderLevel::Session))?;
        peer.deliver(0, &[b"one"])?;
        thread::sleep(2 * SECOND);
        Ok(())
    });
    let other = Fake::start(|_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome_to(&log(1, 100), Welcome { next: 1, ..welcome(OrderLevel::Session) })?;
        peer.deliver(1, &[b"two"])
    });
    let mut subscriber = Subscriber::connect(subscriber(&[&silent, &other])).unwrap();
    let begun = Instant::now();
    while subscriber.next_order() < 2 {
        subscriber.poll(SECOND / 20, |_| ()).unwrap();
        assert!(begun.elapsed() < 2 * SECOND, "it waits on for the silent one");
    }
}

/// The broker comes back with another log: its numbers are not ours, however well they fit.
#[test]
fn a_follower_never_goes_on_in_another_log() {
    let fake = Fake::start(|number, peer: &mut Peer| {
        let (hello, _) = peer.hello_bytes()?;
        assert_eq!(hello.log, if number == 0 { 0 } else { log(1, 0).tag() });
        let next = number.min(1) as u64;
        peer.welcome_to(&log(next + 1, 0), Welcome { next, ..welcome(OrderLevel::Session) })?;
        peer.deliver(next, &[b"x"])
    });
    let mut subscriber = Subscriber::connect(subscriber(&[&fake])).unwrap();
    let (mut seen, mut ended, begun) = (0, 0, Instant::now());
    while ended < 2 {
        assert!(begun.elapsed() < 5 * SECOND);
        match subscriber.poll(SECOND / 20, |_| seen += 1) {
            Ok(_) => assert!(seen <= 1, "it goes on in the other log"),
            Err(error) => {
                assert!(matches!(error, ClientError::OtherLog { .. }) && !error.is_transient(), "{error}");
                ended += 1;
            }
        }
    }
    assert_eq!(seen, 1);
}

/// Who is polled is heard, so that a broker can tell it from one that is gone.
#[test]
fn a_polled_subscriber_is_heard() {
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let fake = Fake::start(move |_, peer: &mut Peer| {
        let (hello, _) = peer.hello_bytes()?;
        assert!(hello.heartbeat_ms > 0);
        peer.welcome_to(&log(1, 60_000), welcome(OrderLevel::Session))?;
        let mut frame = [0; 64];
        std::io::Read::read_exact(&mut peer.stream, &mut frame)?;
        let _ = tell.lock().unwrap().send(frame[5]);
        Ok(())
    });
    let mut subscriber = Subscriber::connect(subscriber(&[&fake])).unwrap();
    let begun = Instant::now();
    let heard = loop {
        subscriber.poll(SECOND / 20, |_| ()).unwrap();
        if let Ok(kind) = told.try_recv() {
            break kind;
        }
        assert!(begun.elapsed() < 3 * SECOND, "it says nothing");
    };
    assert_eq!(heard, FrameKind::Heartbeat as u8);
}

/// Who is driven is heard though it has nothing to publish, and only by brokers that know heartbeats.
#[test]
fn a_polled_publisher_is_heard() {
    for speaks_3 in [true, false] {
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let fake = Fake::start(move |_, peer: &mut Peer| {
            let (hello, _) = peer.hello_bytes()?;
            assert!(hello.heartbeat_ms > 0);
            match speaks_3 {
                true => peer.welcome_to(&log(1, 60_000), welcome(OrderLevel::Session))?,
                false => peer.welcome(welcome(OrderLevel::Session), &[])?,
            }
            loop {
                let mut frame = [0; 64];
                std::io::Read::read_exact(&mut peer.stream, &mut frame)?;
                let _ = tell.lock().unwrap().send(frame[5]);
            }
        });
        let mut publisher = Publisher::connect(publisher(&fake)).unwrap();
        let until = Instant::now() + SECOND;
        while Instant::now() < until {
            publisher.poll(until.saturating_duration_since(Instant::now())).unwrap();
        }
        assert_eq!(publisher.stats().reconnects, 0);
        let heard: Vec<u8> = told.try_iter().collect();
        assert!(heard.iter().all(|kind| *kind == FrameKind::Heartbeat as u8));
        assert_eq!(heard.len() >= 2, speaks_3, "{heard:?}");
    }
}

/// Else its place would be kept, and publishers held up, for a reader that does not come back; not even one that has bytes to read.
#[test]
fn a_subscriber_that_is_dropped_says_goodbye() {
    const DELIVERED: u8 = 0;
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let fake = Fake::start(move |_, peer: &mut Peer| {
        peer.hello_bytes()?;
        peer.welcome(welcome(OrderLevel::Session), &[])?;
        peer.deliver(0, &[b"one"])?;
        peer.deliver(1, &[b"two"])?;
        let _ = tell.lock().unwrap().send(DELIVERED);
        let mut frame = [0; 64];
        std::io::Read::read_exact(&mut peer.stream, &mut frame)?;
        let _ = tell.lock().unwrap().send(frame[5]);
        Ok(())
    });
    let subscriber = Subscriber::connect(subscriber(&[&fake])).unwrap();
    assert_eq!(told.recv_timeout(5 * SECOND), Ok(DELIVERED));
    drop(subscriber);
    assert_eq!(told.recv_timeout(5 * SECOND), Ok(FrameKind::Goodbye as u8));
}
