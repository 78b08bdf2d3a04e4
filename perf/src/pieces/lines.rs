//! Pieces by the batch.

use std::hint::black_box;
use std::time::{Duration, Instant};

use embarcadero::limits::LINE_BYTES;
use embarcadero::log::order_index::IndexWriter;
use embarcadero::order::core::{OpenRequest, OrderLimits};
use embarcadero::order::{Arrival, OrderCore, Origin, Verdict};
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::record::{IndexEntry, LaneStatus};
use embarcadero::pool::{Access, Keep, Mapped, Memory, Owned, Peer};
use embarcadero::wire::OrderLevel;

use crate::pieces::Piece;
use crate::scene::{BenchPool, view};

/// Lines written between two fences, as in a pass of the sequencer.
const FENCED: u64 = 64;
const SESSIONS: u64 = 1000;

/// All of them.
pub fn pieces<C: Coherence>(own: &BenchPool) -> Vec<Piece<'_>> {
    vec![publish::<C>(own), observe::<C>(own), append::<C>(own), decide()]
}

/// Eight words stored to one line after the other of this many, each written back.
fn bare<C: Coherence>(memory: &Mapped<C>, from: u64, lines: u64, times: u64) -> Duration {
    let begin = Instant::now();
    for number in 0..times {
        let at = from + number % lines * LINE_BYTES;
        (0..LINE_BYTES).step_by(8).for_each(|word| memory.store(at + word, number));
        memory.flush_line(at, Keep::Cached);
        if lines == 1 || number % FENCED == 0 {
            memory.store_fence();
        }
    }
    begin.elapsed()
}

fn publish<C: Coherence>(own: &BenchPool) -> Piece<'_> {
    let view = view::<C>(&own.pool);
    let at = view.layout.lane_status(0);
    let mut line = Owned::<LaneStatus, _>::take(view.memory.clone(), at);
    Piece {
        name: "line published".to_owned(),
        bytes: 0,
        ours: Box::new(move |times| {
            let begin = Instant::now();
            (0..times).for_each(|beat| line.publish(black_box(&LaneStatus { beat, ..LaneStatus::default() })));
            begin.elapsed()
        }),
        limit_name: "stored, flushed, fenced",
        limit: Box::new(move |times| bare(&view.memory, at, 1, times)),
    }
}

fn observe<C: Coherence>(own: &BenchPool) -> Piece<'_> {
    let view = view::<C>(&own.pool);
    let at = view.layout.lane_status(0);
    let peer = Peer::<LaneStatus, _>::new(view.memory.clone(), at, Access::Local);
    Owned::<LaneStatus, _>::take(view.memory.clone(), at).publish(&LaneStatus::default());
    Piece {
        name: "line observed on its host".to_owned(),
        bytes: 0,
        ours: Box::new(move |times| {
            let begin = Instant::now();
            (0..times).for_each(|_| assert!(black_box(peer.observe()).is_some(), "it was published"));
            begin.elapsed()
        }),
        limit_name: "eight loads",
        limit: Box::new(move |times| {
            let begin = Instant::now();
            for _ in 0..times {
                black_box((0..LINE_BYTES).step_by(8).fold(0, |all, word| all ^ view.memory.load(at + word)));
            }
            begin.elapsed()
        }),
    }
}

fn append<C: Coherence>(own: &BenchPool) -> Piece<'_> {
    let view = view::<C>(&own.pool);
    let (memory, at) = (view.memory.clone(), view.layout.index_entry(0, 0, 0));
    let lines = u64::from(view.layout.geometry.segment_entries);
    Piece {
        name: "index entry appended".to_owned(),
        bytes: 0,
        ours: Box::new(move |times| {
            let (mut left, mut spent) = (times, Duration::ZERO);
            while left > 0 {
                // A full one is begun anew, which is not what is timed.
                let mut index = IndexWriter::new(&view, 0, 1, 0);
                let now = index.room().min(left);
                let begin = Instant::now();
                for number in 0..now {
                    index.append(black_box(IndexEntry { kind: 1, batch_seq: number, ..IndexEntry::default() }));
                    if number % FENCED == 0 {
                        view.memory.store_fence();
                    }
                }
                spent += begin.elapsed();
                left -= now;
            }
            spent
        }),
        limit_name: "line stored and flushed",
        limit: Box::new(move |times| bare(&memory, at, lines, times)),
    }
}

/// The order core in order, sessions in turn.
fn decide() -> Piece<'static> {
    let limits = OrderLimits { sessions_max: 4096, topics_max: 4, lanes: 1, held_batches_max: 4096 };
    let mut core = OrderCore::new(limits);
    core.create_topic(OrderLevel::Session as u8, 0, 0, 0, &mut |_| ());
    for session in 1..=SESSIONS {
        let origin = Origin { lane: 0, slot: session };
        let (session_epoch, topic, full_code, unknown_code) = (1, 0, 1, 2);
        core.open(OpenRequest { session, session_epoch, topic, origin, full_code, unknown_code }, &mut |_| ());
    }
    let mut arrived = 0;
    let mut counters = vec![[0_u64; 8]; SESSIONS as usize];
    Piece {
        name: "arrival decided".to_owned(),
        bytes: 0,
        ours: Box::new(move |times| {
            let begin = Instant::now();
            for _ in 0..times {
                let arrival = Arrival {
                    lane: 0,
                    lane_slot: arrived,
                    topic: 0,
                    session: 1 + arrived % SESSIONS,
                    session_epoch: 1,
                    batch_seq: arrived / SESSIONS,
                    message_count: 1,
                    batch_bytes: 128,
                    blog_at: 1 << 30,
                    ..Arrival::default()
                };
                let verdict = core.arrive(arrival, 1, &mut |event| {
                    black_box(event);
                });
                assert!(matches!(verdict, Verdict::Appended { .. }), "it is in order");
                arrived += 1;
            }
            while core.take_dirty().is_some() {}
            begin.elapsed()
        }),
        limit_name: "a counter found and moved",
        limit: Box::new(move |times| {
            let begin = Instant::now();
            for number in 0..times {
                let counter = &mut counters[(black_box(number) % SESSIONS) as usize];
                counter.iter_mut().for_each(|word| *word += 1);
            }
            begin.elapsed()
        }),
    }
}
