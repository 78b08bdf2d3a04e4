//! What a broker may send, through the real client: the frames of an input are said by a broker of this process, over TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embarcadero::wire::frame::{self, Ack, BatchHeader, CaughtUp, Deliver, Refused, Skipped, Welcome};
use embarcadero::wire::message::push;
use embarcadero::wire::{OrderLevel, crc32c};
use embarcadero::{Event, Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions};

use crate::Cursor;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says a welcome and the given bytes to everybody who says hello.
struct Broker {
    port: u16,
    words: Arc<Mutex<Vec<u8>>>,
    said: Receiver<()>,
}

impl Broker {
    fn start() -> Broker {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let words = Arc::new(Mutex::new(Vec::new()));
        let (tell, said) = channel();
        let theirs = words.clone();
        // It ends with the process: nothing wakes it from its accept.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut hello = [0; 128];
                let welcome = Welcome {
                    session_epoch: 1,
                    session: 7,
                    token: 8,
                    batch_bytes_max: 1 << 16,
                    order_level: OrderLevel::Session as u8,
                    ack_level: 1,
                    window_batches_max: 8,
                    ..Welcome::default()
                };
                if stream.set_read_timeout(Some(PATIENCE)).is_ok() && stream.read_exact(&mut hello).is_ok() {
                    let mut all = frame::with_body(&welcome, b"");
                    all.extend_from_slice(&theirs.lock().expect("nobody panics with it"));
                    let _ = stream.write_all(&all);
                    let _ = stream.shutdown(Shutdown::Write);
                }
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Broker { port, words, said }
    }

    /// What it says next. The address changes, so that closed connections do not use up the ports.
    fn say(&self, words: Vec<u8>) -> String {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        while self.said.try_recv().is_ok() {}
        *self.words.lock().expect("nobody panics with it") = words;
        format!("127.0.0.{}:{}", TURN.fetch_add(1, Ordering::Relaxed) % 250 + 1, self.port)
    }
}

/// Frames by number, their fields from the input; sealed, so that they are looked at. Anything else is bytes as they are.
fn frames(input: &[u8]) -> Vec<u8> {
    let mut cursor = Cursor(input);
    let (mut words, mut next_order, mut batch_seq) = (Vec::new(), 0, 0);
    while !cursor.is_empty() {
        match cursor.byte() {
            // A sound delivery.
            0 => {
                words.extend(deliver(next_order, 2, batch_seq, &Cursor(&[]), 0));
                (next_order, batch_seq) = (next_order.saturating_add(2), batch_seq + 1);
            }
            // One with a field of its own, and messages of any bytes.
            1 => {
                let (field, value) = (cursor.byte(), cursor.number());
                let body = Cursor(cursor.bytes(usize::from(field >> 3)));
                let order = if field & 1 == 1 { value } else { next_order };
                let count = if field & 2 == 2 { value as u32 } else { 2 };
                words.extend(deliver(order, count, batch_seq, &body, if field & 4 == 4 { value as u32 } else { 0 }));
            }
            2 => words.extend(frame::seal(&CaughtUp {
                next_order: next_order.saturating_add(cursor.byte().into()),
                ..CaughtUp::default()
            })),
            3 => {
                let refused = Refused { code: cursor.number() as u16, detail: cursor.number(), ..Refused::default() };
                let text = usize::from(cursor.byte());
                words.extend(frame::with_body(&refused, cursor.bytes(text)));
            }
            4 => {
                let ack = Ack {
                    flags: cursor.byte().into(),
                    session: 7,
                    session_epoch: u32::from(cursor.byte()),
                    committed_next: cursor.number(),
                    order_end: cursor.number(),
                    broker_messages: cursor.number(),
                    let_go_from: cursor.number(),
                    ..Ack::default()
                };
                words.extend(frame::seal(&ack));
            }
            5 => {
                let from = next_order.saturating_add(cursor.byte().into());
                next_order = from.saturating_add(cursor.number());
                words.extend(frame::seal(&Skipped { from, next_order, ..Skipped::default() }));
            }
            count => words.extend(cursor.bytes(count.into())),
        }
    }
    words
}

fn deliver(first_order: u64, message_count: u32, batch_seq: u64, body: &Cursor<'_>, more_bytes: u32) -> Vec<u8> {
    let mut messages = body.0.to_vec();
    if messages.is_empty() {
        push(&mut messages, b"one");
        push(&mut messages, b"another");
    }
    let (body_bytes, body_crc) = (messages.len() as u32, crc32c(&messages));
    let batch = BatchHeader {
        message_count,
        body_bytes,
        body_crc,
        session: 7,
        session_epoch: 1,
        batch_seq,
        ..BatchHeader::default()
    };
    let deliver = Deliver {
        body_bytes: (batch.frame_bytes() as u32).wrapping_add(more_bytes),
        message_count,
        first_order,
        session: 7,
        session_epoch: 1,
        batch_seq,
        ..Deliver::default()
    };
    let mut words = frame::seal(&deliver).to_vec();
    words.extend(frame::seal(&batch));
    messages.resize(batch.frame_bytes() as usize - 64, 0);
    words.extend(messages);
    words
}

#[test]
fn a_subscriber_is_sent_anything() {
    let broker = Broker::start();
    bolero::check!(name = "subscriber").for_each(|input: &[u8]| {
        let options = SubscriberOptions {
            brokers: vec![broker.say(frames(input))],
            topic: "t".into(),
            start: Start::Earliest,
            connect_timeout: PATIENCE,
            ..SubscriberOptions::default()
        };
        let mut subscriber = Subscriber::connect(options).expect("it is welcomed");
        broker.said.recv_timeout(PATIENCE).expect("it says its words");
        let mut next = 0;
        // More polls than an input has frames; the first error ends the connection.
        for _ in 0..100 {
            let polled = subscriber.poll_events(Duration::ZERO, |event| match event {
                Event::Batch(batch) => {
                    assert_eq!(batch.first_order, next, "order is dense");
                    assert_eq!(batch.messages().count() as u32, batch.message_count);
                    next += u64::from(batch.message_count);
                }
                Event::Skipped { from, next_order, .. } => {
                    assert!(from == next && next_order > from, "it skips from {from} to {next_order}, due is {next}");
                    next = next_order.0;
                }
            });
            if !matches!(polled, Ok(1..)) {
                break;
            }
        }
        assert_eq!(subscriber.next_order(), next);
    });
}

#[test]
fn a_publisher_is_sent_anything() {
    let broker = Broker::start();
    bolero::check!(name = "publisher").for_each(|input: &[u8]| {
        let options = PublisherOptions {
            brokers: vec![broker.say(frames(input))],
            discover: false,
            topic: "t".into(),
            connect_timeout: PATIENCE,
            ..PublisherOptions::default()
        };
        // A refusal may come right behind the welcome.
        let Ok(mut publisher) = Publisher::connect(options) else { return };
        broker.said.recv_timeout(PATIENCE).expect("it says its words");
        for _ in 0..3 {
            let _ = publisher.try_send(b"a message");
            publisher.seal();
            let _ = publisher.poll(Duration::ZERO);
        }
        assert!(publisher.messages_acked() <= publisher.messages_sent(), "more is acked than was sent");
    });
}
