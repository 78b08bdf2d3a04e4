//! A publisher whose session is gone: with nothing in doubt it goes on in another one, else it says what is in doubt.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fake::{Fake, Peer, payloads, welcome};
use super::*;
use crate::wire::frame::{Ack, NOTHING_LET_GO, Welcome};
use crate::wire::{OrderLevel, Refusal};

const SECOND: Duration = Duration::from_secs(1);

fn publisher(fake: &Fake) -> Publisher {
    let options = PublisherOptions {
        brokers: vec![fake.address.clone()],
        topic: "orders".to_owned(),
        discover: false,
        batch_messages: 2,
        connect_timeout: 3 * SECOND,
        ..PublisherOptions::default()
    };
    Publisher::connect(options).unwrap()
}

const SOON: Duration = Duration::from_secs(5);

type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes and acks so many batches, which must be numbered from 0 on.
fn serve(peer: &mut Peer, log: &Log, session: u64, batches: u64) -> std::io::Result<()> {
    peer.welcome(Welcome { session, ..welcome(OrderLevel::Session) }, &[])?;
    for number in 0..batches {
        let Some((header, bytes)) = peer.batch()? else { return Ok(()) };
        assert_eq!((header.session, header.batch_seq), (session, number));
        log.lock().unwrap().extend(payloads(&bytes));
        let committed_next = number + 1;
        peer.send(&Ack { session, session_epoch: 1, committed_next, let_go_from: NOTHING_LET_GO, ..Ack::default() })?;
    }
    Ok(())
}

fn send(publisher: &mut Publisher, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| publisher.send(&number.to_le_bytes()).unwrap());
}

/// `is_told`: on the live connection; else when it comes back.
fn goes_on(is_told: bool) {
    let log = Log::default();
    let written = log.clone();
    let fake = Fake::start(move |number, peer| {
        let (hello, _) = peer.hello()?;
        match (number, hello.session) {
            (0, _) => serve(peer, &written, 7, 2)?,
            (_, 0) => return serve(peer, &written, 8, u64::MAX),
            (_, session) => assert_eq!(session, 7),
        }
        if number > 0 || is_told { peer.refuse(Refusal::UnknownSession, 0, "closed, or expired") } else { Ok(()) }
    });
    let mut publisher = publisher(&fake);
    send(&mut publisher, 0..4);
    publisher.flush(SOON).unwrap();
    assert_eq!((publisher.session().0, publisher.stats().new_sessions), (7, 0));
    // These wait for a connection, or find the old one ended: nothing of them is in doubt.
    let since = Instant::now();
    while publisher.broker_progress()[0].connected {
        publisher.poll(SECOND / 50).unwrap();
        assert!(since.elapsed() < 5 * SECOND);
    }
    send(&mut publisher, 4..20);
    publisher.flush(SOON).unwrap();
    assert_eq!((publisher.session().0, publisher.stats().new_sessions), (8, 1));
    assert_eq!((publisher.messages_acked(), publisher.in_flight()), (20, 0));
    assert_eq!(*log.lock().unwrap(), (0..20u32).map(|number| number.to_le_bytes().to_vec()).collect::<Vec<_>>());
    publisher.close(SOON).unwrap();
}

#[test]
fn told_on_its_connection_with_nothing_unacked_it_opens_another() {
    goes_on(true);
}

#[test]
fn denied_when_it_comes_back_with_nothing_unacked_it_opens_another() {
    goes_on(false);
}

#[test]
fn with_something_unacked_it_ends_and_names_it() {
    for is_told in [true, false] {
        let fake = Fake::start(move |number, peer| {
            let (hello, _) = peer.hello()?;
            assert_eq!(
                hello.session,
                if number == 0 { 0 } else { 7 },
                "what may be ordered goes into no other session"
            );
            if number == 0 {
                serve(peer, &Log::default(), 7, 2)?;
                peer.batch()?;
            }
            if number > 0 || is_told { peer.refuse(Refusal::UnknownSession, 0, "closed, or expired") } else { Ok(()) }
        });
        let mut publisher = publisher(&fake);
        let sent = (0..6u32).try_for_each(|number| publisher.send(&number.to_le_bytes()));
        let error = sent.and_then(|()| publisher.flush(SOON)).unwrap_err();
        let ClientError::SessionGone { session: SessionId(7), first_message: 4, end_message: 6, .. } = error else {
            panic!("{error}")
        };
        assert!(error.refusal() == Some(Refusal::UnknownSession) && !error.is_transient());
        assert!(error.to_string().contains("of messages 4..6 of this publisher it is not known"), "{error}");
        assert!(publisher.poll(Duration::ZERO).is_err(), "it has ended");
        assert_eq!((publisher.messages_acked(), publisher.stats().new_sessions), (4, 0));
    }
}

/// A broker that has not read far enough denies a session for a moment.
#[test]
fn a_session_that_is_denied_for_a_moment_is_kept() {
    let log = Log::default();
    let written = log.clone();
    let fake = Fake::start(move |number, peer| {
        let (hello, _) = peer.hello()?;
        match number {
            0 => serve(peer, &written, 7, 1),
            1 | 2 => peer.refuse(Refusal::UnknownSession, 0, "not read yet"),
            _ => {
                assert_eq!(hello.session, 7);
                peer.welcome(Welcome { next: 1, ..welcome(OrderLevel::Session) }, &[])?;
                let Some((header, _)) = peer.batch()? else { return Ok(()) };
                assert_eq!((header.session, header.batch_seq), (7, 1));
                let let_go_from = NOTHING_LET_GO;
                peer.send(&Ack { session: 7, session_epoch: 1, committed_next: 2, let_go_from, ..Ack::default() })?;
                peer.batch().map(drop)
            }
        }
    });
    let mut publisher = publisher(&fake);
    send(&mut publisher, 0..4);
    publisher.flush(SOON).unwrap();
    assert_eq!((publisher.session().0, publisher.stats().new_sessions), (7, 0));
    publisher.close(SOON).unwrap();
}
