//! A broker that falls silent without a word from TCP: what its publisher had given it goes to the others, at every level.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::fake::{Fake, Peer, payloads, welcome};
use super::*;
use crate::wire::OrderLevel;
use crate::wire::frame::{Ack, LogRecord, NOTHING_LET_GO, Welcome};

const SECOND: Duration = Duration::from_secs(1);
const MESSAGES: u32 = 40;

/// Welcomes under version 3, promising to be heard every 100 ms.
fn greet(peer: &mut Peer, order: OrderLevel, session: u64) -> std::io::Result<()> {
    peer.hello_bytes()?;
    let log = LogRecord { uuid: [1, 7], heartbeat_ms: 100, ..bytemuck::Zeroable::zeroed() };
    peer.welcome_to(&log, Welcome { session, ..welcome(order) })
}

/// One broker stops in the middle of a batch, for longer than anybody waits here; the other acks. Both are in the same session at
/// level 5, and each has one of its own below.
#[test]
fn what_a_silent_broker_had_goes_to_the_others() {
    for order in [OrderLevel::Session, OrderLevel::Connection] {
        let silent = Fake::start(move |_, peer: &mut Peer| {
            greet(peer, order, 7)?;
            // A piece of its first batch, and then it is stopped.
            std::io::Read::read_exact(&mut peer.stream, &mut [0; 100])?;
            thread::sleep(3 * SECOND);
            Ok(())
        });
        let taken = Arc::new(Mutex::new(Vec::new()));
        let written = taken.clone();
        let other = Fake::start(move |_, peer: &mut Peer| {
            greet(peer, order, if order == OrderLevel::Session { 7 } else { 8 })?;
            peer.stream.set_read_timeout(Some(SECOND / 20))?;
            let (mut seen, mut frontier) = (std::collections::BTreeSet::new(), 0);
            loop {
                // At most as silent as it promised.
                peer.send(&crate::wire::frame::Heartbeat { version: 3, ..Default::default() })?;
                if peer.stream.peek(&mut [0; 1]).is_err() {
                    continue;
                }
                peer.stream.set_read_timeout(Some(SECOND))?;
                let Some((header, bytes)) = peer.batch()? else { return Ok(()) };
                peer.stream.set_read_timeout(Some(SECOND / 20))?;
                if seen.insert(header.batch_seq) {
                    written.lock().unwrap().extend(payloads(&bytes));
                }
                while seen.contains(&frontier) {
                    frontier += 1;
                }
                let (session, session_epoch, version) = (header.session, header.session_epoch, 3);
                let let_go_from = NOTHING_LET_GO;
                peer.send(&Ack {
                    session,
                    session_epoch,
                    committed_next: frontier,
                    let_go_from,
                    version,
                    ..Ack::default()
                })?;
            }
        });
        let options = PublisherOptions {
            brokers: vec![silent.address.clone(), other.address.clone()],
            topic: "orders".to_owned(),
            discover: false,
            batch_messages: 1,
            window_batches: 64,
            resend_after: 100 * SECOND,
            connect_timeout: 10 * SECOND,
            ..PublisherOptions::default()
        };
        let mut publisher = Publisher::connect(options).unwrap();
        let begun = Instant::now();
        for number in 0..MESSAGES {
            publisher.send(&number.to_le_bytes()).unwrap();
        }
        let flushed = publisher.flush(2 * SECOND);
        assert!(flushed.is_ok(), "{order:?}: {flushed:?} after {:?}", begun.elapsed());
        let mut numbers: Vec<u32> =
            taken.lock().unwrap().iter().map(|payload| u32::from_le_bytes(payload[..].try_into().unwrap())).collect();
        numbers.sort();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "{order:?}");
        drop(publisher);
    }
}
