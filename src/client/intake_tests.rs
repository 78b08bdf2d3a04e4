//! The intake, byte by byte.

use super::*;
use crate::client::fake::{delivery, welcome};
use crate::client::options::Start;
use crate::testing::random::Random;
use crate::wire::Refusal;
use crate::wire::frame::{Heartbeat, Refused, seal, with_body};

fn options(start: Start) -> SubscriberOptions {
    SubscriberOptions {
        brokers: vec!["b:0".to_owned()],
        topic: "orders".to_owned(),
        start,
        buffer_bytes: 64 << 10,
        ..SubscriberOptions::default()
    }
}

fn greeting(next: u64) -> Greeting {
    let welcome = Welcome { next, ..welcome(OrderLevel::Session) };
    let (log, more, brokers) = (None, Vec::new(), Vec::new());
    Greeting { address: "b:0".to_owned(), welcome, log, more, brokers, heartbeat: std::time::Duration::ZERO }
}

fn intake(start: Start, next: u64) -> Intake {
    let greeting = greeting(next);
    let mut intake = Intake::new(&options(start), &greeting).unwrap();
    intake.welcomed(&greeting).unwrap();
    intake
}

/// What was handed on: order and payload of each message; for a skip its end, and no payload.
type Handed = Vec<(u64, Option<Vec<u8>>)>;

/// Feeds bytes in pieces, and takes whatever is whole after each.
fn feed(intake: &mut Intake, bytes: &[u8], mut piece: impl FnMut() -> usize, handed: &mut Handed) -> Result<(), Fault> {
    let mut left = bytes;
    while !left.is_empty() {
        let room = intake.room();
        let now = piece().min(left.len()).min(room.len());
        room[..now].copy_from_slice(&left[..now]);
        left = &left[now..];
        intake.landed(now);
        let handler = &mut |event: Event<'_>| match event {
            Event::Batch(batch) => {
                handed.extend(batch.messages().map(|(order, message)| (order.0, Some(message.payload.to_vec()))));
            }
            Event::Skipped { next_order, .. } => handed.push((next_order.0, None)),
        };
        while intake.step(handler)? != Step::NotWhole {}
    }
    Ok(())
}

fn whole(intake: &mut Intake, bytes: &[u8]) -> (Handed, Option<Fault>) {
    let mut handed = Vec::new();
    let fault = feed(intake, bytes, || usize::MAX, &mut handed).err();
    (handed, fault)
}

fn batch(first_order: u64, payloads: &[&[u8]]) -> Vec<u8> {
    delivery(first_order, payloads, |_, _| ())
}

fn caught_up(next_order: u64) -> Vec<u8> {
    seal(&CaughtUp { topic: 4, next_order, ..CaughtUp::default() }).to_vec()
}

fn skipped(from: u64, next_order: u64) -> Vec<u8> {
    seal(&Skipped { topic: 4, from, next_order, ..Skipped::default() }).to_vec()
}

/// Ten messages, a skip, two messages, and the end of it.
fn stream() -> Vec<u8> {
    let long = vec![b'x'; 5000];
    [
        batch(0, &[b"a", b"b", b"c"]),
        seal(&Heartbeat { version: 3, ..Heartbeat::default() }).to_vec(),
        batch(3, &[&long, b"e"]),
        batch(5, &[b"f", b"g", b"h", b"i", b"j"]),
        skipped(10, 50),
        batch(50, &[b"k", b"l"]),
        caught_up(52),
    ]
    .concat()
}

#[test]
fn whatever_the_pieces_the_events_are_the_same() {
    let mut one = intake(Start::Earliest, 0);
    let (expected, fault) = whole(&mut one, &stream());
    assert!(fault.is_none() && one.topics()[0].caught_up);
    assert_eq!((expected.len(), one.topics()[0].next_order, one.topics()[0].skipped), (13, 52, 40));
    for seed in 1..=60 {
        let (mut random, mut intake, mut handed) = (Random::new(seed), intake(Start::Earliest, 0), Vec::new());
        let bound = [1, 2, 65, 3000][seed as usize % 4];
        assert!(feed(&mut intake, &stream(), || 1 + random.below(bound) as usize, &mut handed).is_ok());
        assert!(handed == expected && intake.topics()[0].caught_up, "seed {seed}");
    }
}

/// Of spoiled bytes nothing is handed on that was not sent.
#[test]
fn one_bit_that_is_not_as_it_was_sent_is_a_fault_and_no_event() {
    let (stream, mut random) = (stream(), Random::new(1));
    let (expected, _) = whole(&mut intake(Start::Earliest, 0), &stream);
    let mut faults = 0;
    for _ in 0..600 {
        let mut spoiled = stream.clone();
        spoiled[random.below(stream.len() as u64) as usize] ^= 1 << random.below(8);
        let (handed, fault) = whole(&mut intake(Start::Earliest, 0), &spoiled);
        assert!(expected.starts_with(&handed));
        // Padding behind a frame says nothing, and a length may stand for more than has come.
        faults += u32::from(fault.is_some());
    }
    assert!(faults > 550, "{faults}");
}

#[test]
fn what_is_missing_or_repeated_is_a_gap() {
    let gaps = [
        (batch(4, &[b"x"]), 4),
        (batch(2, &[b"x"]), 2),
        (caught_up(4), 4),
        (caught_up(2), 2),
        (skipped(4, 9), 4),
        (skipped(2, 9), 2),
    ];
    for (bytes, at) in gaps {
        let mut intake = intake(Start::Earliest, 0);
        let (handed, fault) = whole(&mut intake, &[batch(0, &[b"a", b"b", b"c"]), bytes].concat());
        assert!(matches!(fault, Some(Fault::Gap { found, expected: 3 }) if found == at), "at {at}");
        assert_eq!((handed.len(), intake.topics()[0].next_order), (3, 3));
    }
    // The first of a connection may begin below what was asked for, and not above it.
    for bytes in [batch(8, &[b"x"]), caught_up(8), skipped(8, 9), skipped(6, 9)] {
        let fault = whole(&mut intake(Start::Order(Order(7)), 7), &bytes).1;
        assert!(matches!(fault, Some(Fault::Gap { expected: 7, .. })));
    }
    let nothing = whole(&mut intake(Start::Order(Order(7)), 7), &skipped(7, 7)).1;
    assert!(matches!(nothing, Some(Fault::Differs { field: "next_order", .. })));
}

#[test]
fn a_later_connection_goes_on_in_mid_batch_and_hands_nothing_on_twice() {
    let mut intake = intake(Start::Order(Order(1)), 1);
    let (handed, _) = whole(&mut intake, &batch(0, &[b"a", b"b", b"c"]));
    assert_eq!(handed, [(1, Some(b"b".to_vec())), (2, Some(b"c".to_vec()))]);
    // Half a batch is left behind, and what was announced with it.
    let half = batch(3, &[b"d", b"e"]);
    assert!(whole(&mut intake, &half[..100]).0.is_empty() && intake.is_in_batch());
    intake.lost();
    assert!(intake.starts().windows(8).any(|bytes| bytes == 3u64.to_le_bytes()), "it asks for what is next");
    intake.welcomed(&greeting(3)).unwrap();
    let again = [batch(0, &[b"a", b"b", b"c"]), batch(3, &[b"d", b"e"]), caught_up(5)].concat();
    let (handed, fault) = whole(&mut intake, &again);
    assert!(fault.is_none() && intake.topics()[0].caught_up);
    assert_eq!(handed, [(3, Some(b"d".to_vec())), (4, Some(b"e".to_vec()))]);
}

#[test]
fn a_batch_that_is_not_the_announced_one_is_not_handed_on() {
    let changes: [fn(&mut Deliver); 4] = [
        |deliver| deliver.session = 8,
        |deliver| deliver.session_epoch = 2,
        |deliver| deliver.batch_seq = 1,
        |deliver| deliver.message_count = 2,
    ];
    for change in changes {
        let bytes = delivery(0, &[b"a"], |deliver, _| change(deliver));
        let (handed, fault) = whole(&mut intake(Start::Earliest, 0), &bytes);
        assert!(handed.is_empty() && matches!(fault, Some(Fault::Differs { .. })));
    }
    let foreign = delivery(0, &[b"a"], |deliver, _| deliver.topic = 5);
    assert!(matches!(whole(&mut intake(Start::Earliest, 0), &foreign).1, Some(Fault::Differs { field: "topic", .. })));
}

#[test]
fn a_welcome_above_what_was_asked_for_is_not_taken_and_one_below_is() {
    let mut intake = intake(Start::Order(Order(7)), 7);
    assert!(intake.welcomed(&greeting(5)).is_ok());
    assert!(matches!(intake.welcomed(&greeting(8)), Err(ClientError::Contradiction { field: "next", .. })));
}

#[test]
fn a_refusal_is_told_whole_with_its_words() {
    let refused = Refused { code: Refusal::Trimmed as u16, detail: 9, ..Refused::default() };
    let bytes = with_body(&refused, &[b'w'; 900]);
    for end in 64..bytes.len() {
        assert!(whole(&mut intake(Start::Earliest, 0), &bytes[..end]).1.is_none());
    }
    let fault = whole(&mut intake(Start::Earliest, 0), &bytes).1;
    assert!(matches!(fault, Some(Fault::Refused(header, words)) if header.detail == 9 && words.len() == 900));
}

/// Its broker had skipped a batch of one topic, sent what lay behind it of another, and went before it told so; the next broker has it still.
/// There is one order over both.
#[test]
fn what_lies_before_what_was_handed_on_is_skipped() {
    let of = |position: u64, topic: u32, first_order: u64| {
        delivery(first_order, &[b"x", b"y"], |deliver, batch| {
            let mut header: frame::BatchHeader = frame::read(batch.first_chunk().unwrap());
            (deliver.position, deliver.topic, header.topic) = (position, topic, topic);
            batch[..FRAME_HEADER_BYTES].copy_from_slice(&seal(&header));
        })
    };
    let more = vec![("bills".to_owned(), Start::Earliest)];
    let mut greeting = greeting(0);
    greeting.more = vec![Welcome { topic: 9, ..greeting.welcome }];
    let asked = SubscriberOptions { more_topics: more, ..options(Start::Earliest) };
    let mut intake = Intake::new(&asked, &greeting).unwrap();
    intake.welcomed(&greeting).unwrap();
    let (handed, fault) = whole(&mut intake, &[of(3, 4, 0), of(7, 9, 0)].concat());
    assert!(handed.len() == 4 && fault.is_none());
    intake.lost();
    greeting.welcome.next = 2;
    greeting.more[0].next = 2;
    intake.welcomed(&greeting).unwrap();
    let (handed, fault) = whole(&mut intake, &[of(5, 4, 2), of(8, 4, 4)].concat());
    assert!(fault.is_none());
    let two = |order| [(order, Some(b"x".to_vec())), (order + 1, Some(b"y".to_vec()))];
    assert_eq!(handed, [&[(4, None)][..], &two(4)].concat());
    assert_eq!((intake.topics()[0].next_order, intake.topics()[0].skipped), (6, 2));
    let (_, fault) = whole(&mut intake, &of(6, 9, 2));
    assert!(
        matches!(fault, Some(Fault::Differs { field: "position", found: 6, expected: 9 })),
        "of one broker they ascend"
    );
}
