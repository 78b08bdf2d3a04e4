//! A good stream passes at every level; each planted fault is found.

use super::*;
use crate::payload::{PayloadFault, PayloadWriter};

const BYTES: usize = 64;
const RUN: u32 = 9;
const SESSIONS: [u64; 2] = [0x100, 0x200];

struct Batch {
    place: BatchPlace,
    messages: Vec<(u64, Vec<u8>)>,
}

fn payload(publisher: u32, number: u64) -> Vec<u8> {
    PayloadWriter::new(Payloads::new(BYTES), RUN, publisher).with(number, <[u8]>::to_vec)
}

/// Two sessions of four batches of three messages each, taking turns.
fn good() -> Vec<Batch> {
    (0..8u64)
        .map(|index| {
            let (publisher, batch_seq, first_order) = ((index % 2) as u32, index / 2, index * 3);
            let session = SESSIONS[publisher as usize];
            let messages = (0..3).map(|i| (first_order + i, payload(publisher, batch_seq * 3 + i))).collect();
            let place = BatchPlace { first_order, session, session_epoch: 1, batch_seq, message_count: 3 };
            Batch { place, messages }
        })
        .collect()
}

/// Makes the order of batches dense again, as a broker would have numbered them.
fn renumber(batches: &mut [Batch]) {
    let mut next = 0;
    for batch in batches {
        batch.place.first_order = next;
        for message in &mut batch.messages {
            message.0 = next;
            next += 1;
        }
    }
}

fn see(order: Level, source: Source, batches: &[Batch]) -> Summary {
    let mut verifier = Verifier::new(order, Arc::new(Payloads::new(BYTES)), source, true);
    for batch in batches {
        verifier.batch(&batch.place, batch.messages.iter().map(|(order, payload)| (*order, &payload[..])));
    }
    verifier.summary()
}

fn run() -> Source {
    Source::Run { run: RUN, messages: [12, 12].into() }
}

fn faults(batches: &[Batch]) -> Vec<Fault> {
    see(Level::Session, run(), batches).faults.examples().to_vec()
}

#[test]
fn a_good_stream_passes_at_every_level() {
    for order in Level::ALL {
        let summary = see(order, run(), &good());
        assert_eq!(summary.faults.examples(), [], "order level {order}");
        assert_eq!((summary.messages, summary.missing, summary.duplicates, summary.reordered), (24, 0, 0, 0));
        let seen: Vec<_> = summary.sessions.iter().map(|seen| (seen.session, seen.publisher, seen.messages)).collect();
        assert_eq!(seen, [(SESSIONS[0], Some(0), 12), (SESSIONS[1], Some(1), 12)]);
    }
}

#[test]
fn a_stranger_may_begin_anywhere_but_not_skip() {
    assert_eq!(see(Level::Session, Source::Any, &good()[3..]).faults.count(), 0);
    let mut batches = good();
    batches.remove(4);
    assert!(see(Level::Session, Source::Any, &batches).faults.count() > 0);
}

#[test]
fn a_topic_that_others_filled_goes_on_where_it_was() {
    let shifted = |by: u64| {
        let mut batches = good();
        for batch in &mut batches {
            batch.place.first_order += by;
            batch.messages.iter_mut().for_each(|message| message.0 += by);
        }
        let mut verifier = Verifier::new(Level::Session, Arc::new(Payloads::new(BYTES)), run(), true);
        verifier.begin_at(1000);
        for batch in &batches {
            verifier.batch(&batch.place, batch.messages.iter().map(|(order, payload)| (*order, &payload[..])));
        }
        verifier.summary().faults.examples().to_vec()
    };
    assert_eq!(shifted(1000), []);
    assert_eq!(shifted(1001), [Fault::Order { expected: 1000, found: 1001 }]);
}

#[test]
fn a_missing_batch_is_found() {
    let mut batches = good();
    batches.remove(2);
    renumber(&mut batches);
    let session = SESSIONS[0];
    let expected =
        [Fault::BatchGap { session, expected: 1, found: 2 }, Fault::MessageGap { session, expected: 3, found: 6 }];
    assert_eq!(faults(&batches), expected);
    assert_eq!(see(Level::Total, run(), &batches).missing, 3);
}

#[test]
fn the_first_batch_missing_is_found() {
    let mut batches = good();
    batches.remove(0);
    renumber(&mut batches);
    assert!(faults(&batches).contains(&Fault::BatchGap { session: SESSIONS[0], expected: 0, found: 1 }));
}

#[test]
fn a_repeated_batch_is_found() {
    let mut batches = good();
    let copy = Batch { place: batches[2].place, messages: batches[2].messages.clone() };
    batches.insert(3, copy);
    renumber(&mut batches);
    assert!(faults(&batches).contains(&Fault::BatchRepeat { session: SESSIONS[0], expected: 2, found: 1 }));
    for order in [Level::None, Level::Broker, Level::Total, Level::Connection] {
        let summary = see(order, run(), &batches);
        assert_eq!((summary.faults.count(), summary.duplicates, summary.missing), (0, 3, 0), "order level {order}");
    }
}

#[test]
fn batches_in_another_order_are_found() {
    let mut batches = good();
    batches.swap(2, 4);
    renumber(&mut batches);
    assert!(faults(&batches).contains(&Fault::BatchGap { session: SESSIONS[0], expected: 1, found: 2 }));
    assert_eq!(see(Level::Connection, run(), &batches).reordered, 3);
    assert_eq!(see(Level::Total, run(), &batches).reordered, 0);
}

#[test]
fn messages_in_another_order_within_a_batch_are_found() {
    let mut batches = good();
    let batch = &mut batches[0].messages;
    (batch[0].1, batch[1].1) = (batch[1].1.clone(), batch[0].1.clone());
    assert!(faults(&batches).contains(&Fault::MessageGap { session: SESSIONS[0], expected: 0, found: 1 }));
}

#[test]
fn a_flipped_byte_is_found() {
    let mut batches = good();
    batches[5].messages[1].1[40] ^= 4;
    let found = faults(&batches);
    assert!(matches!(found[0], Fault::Payload { order: 16, fault: PayloadFault::Byte { at: 40, .. } }), "{found:?}");
    assert_eq!(see(Level::None, run(), &batches).missing, 1);
}

#[test]
fn a_short_message_is_found() {
    let mut batches = good();
    batches[5].messages[1].1.pop();
    let fault = PayloadFault::Length { found: BYTES - 1, expected: BYTES };
    assert_eq!(faults(&batches)[0], Fault::Payload { order: 16, fault });
}

#[test]
fn a_batch_that_holds_fewer_messages_than_it_says_is_found() {
    let mut batches = good();
    batches[7].messages.pop();
    assert_eq!(faults(&batches), [Fault::MessageCount { order: 21, announced: 3, found: 2 }]);
}

#[test]
fn a_batch_under_another_session_is_found() {
    let mut batches = good();
    batches[6].messages = (0..3).map(|i| (18 + i, payload(1, 9 + i))).collect();
    let stamp = Stamp { run: RUN, publisher: 1, number: 9 };
    assert_eq!(faults(&batches)[0], Fault::WrongSession { session: SESSIONS[0], publisher: 0, order: 18, stamp });
}

#[test]
fn messages_of_another_run_or_past_the_last_are_found() {
    for (run, number) in [(RUN + 1, 3), (RUN, 12)] {
        let mut batches = good();
        batches[2].messages[0].1 = PayloadWriter::new(Payloads::new(BYTES), run, 0).with(number, <[u8]>::to_vec);
        let stamp = Stamp { run, publisher: 0, number };
        assert_eq!(faults(&batches)[0], Fault::Foreign { order: 6, stamp });
    }
}

#[test]
fn an_order_that_is_not_dense_is_found() {
    for shift in [1, u64::MAX] {
        let mut batches = good();
        let place = &mut batches[3].place;
        place.first_order = place.first_order.wrapping_add(shift);
        let found = place.first_order;
        batches[3].messages.iter_mut().for_each(|message| message.0 = message.0.wrapping_add(shift));
        assert_eq!(faults(&batches)[0], Fault::Order { expected: 9, found });
        assert_eq!(see(Level::None, run(), &batches).faults.count(), 0, "level 0 promises no order");
    }
    let mut inside = good();
    inside[3].messages[1].0 += 1;
    assert_eq!(faults(&inside), [Fault::Order { expected: 10, found: 11 }]);
}

#[test]
fn an_epoch_that_goes_back_is_found() {
    let mut batches = good();
    batches[2].place.session_epoch = 2;
    assert_eq!(faults(&batches)[0], Fault::EpochBack { session: SESSIONS[0], expected: 2, found: 1 });
}

#[test]
fn the_hash_tells_other_orders_and_sessions_apart() {
    let hash = |batches: &[Batch]| see(Level::Session, run(), batches).hash;
    let mut swapped = good();
    swapped.swap(0, 1);
    renumber(&mut swapped);
    assert_ne!(hash(&good()), hash(&swapped));
    assert_eq!(hash(&good()), hash(&good()));
}

#[test]
fn counting_only_counts() {
    let mut verifier = Verifier::new(Level::Session, Arc::new(Payloads::new(1)), run(), false);
    for batch in good() {
        verifier.batch(&batch.place, std::iter::empty());
    }
    let summary = verifier.summary();
    assert_eq!((summary.messages, summary.missing, summary.faults.count(), summary.checked), (24, 0, 0, false));
}

#[test]
fn the_bitmap_knows_what_it_saw() {
    let mut seen = Bitmap::default();
    for number in [0, 63, 64, 100_000] {
        assert!(seen.insert(number));
        assert!(!seen.insert(number));
    }
}
