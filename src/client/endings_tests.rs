//! Calls that must end, or must not: whatever a caller's callback does and however long it is ready to wait.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::fake::{Fake, Peer, welcome};
use super::*;
use crate::wire::OrderLevel;
use crate::wire::frame::{Ack, NOTHING_LET_GO};

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
    publisher.on_acked(Box::new(|_| panic!("a defect of the caller's, as this test wants it")));
    let publisher = BackgroundPublisher::start(publisher).unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let sent = (0..1000u32).find_map(|number| publisher.send(&number.to_le_bytes()).err());
        let flushed = publisher.flush(std::time::Instant::now() + 5 * SECOND).err();
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
    assert_eq!(subscriber.poll(Duration::MAX, &mut |_| ()).unwrap(), 1);
}
