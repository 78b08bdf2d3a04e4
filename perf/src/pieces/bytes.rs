//! Pieces by the byte.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use embarcadero::limits::LINE_BYTES;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::{Keep, Mapped, Memory};
use embarcadero::roles::receive::ingest::{Ingest, Next};
use embarcadero::roles::receive::stream::{Stream, Terms};
use embarcadero::roles::sequence::candidate::Candidate;
use embarcadero::wire::decoder::PIECE_BYTES;
use embarcadero::wire::frame::{self, BatchHeader};
use embarcadero::wire::message::push;
use embarcadero::wire::{BatchDecoder, Progress, Receipts, crc32c};
use tools_common::clock::monotonic_ns;

use crate::pieces::{Piece, Timed};
use crate::scene::{BenchPool, candidate, view};

/// Lengths of sums: a header, a message, a batch.
const SUMMED: [usize; 3] = [64, 1024, 64 << 10];
/// Lengths of what is written to the pool: a line, a small batch, a large one.
const WRITTEN: [usize; 3] = [64, 4096, 256 << 10];
const BODY_BYTES: usize = 256 << 10;
/// One that nobody opened.
const SESSION: u64 = 1 << 40;
const WAIT: Duration = Duration::from_secs(20);

/// All of them.
pub fn pieces<C: Coherence>(own: &BenchPool) -> Vec<Piece<'_>> {
    let mut all: Vec<Piece> = SUMMED.into_iter().map(sum).collect();
    all.extend([64, 1024].map(decode));
    for bytes in WRITTEN {
        all.push(write::<C>(own, bytes, None));
        all.push(write::<C>(own, bytes, Some(Keep::Cached)));
    }
    let lane = Rc::new(RefCell::new(Lane::<C>::new(own)));
    all.extend([64, 1024].map(|payload_bytes| take_in(own, &lane, payload_bytes)));
    all
}

fn timed<'a>(mut once: impl FnMut() + 'a) -> Timed<'a> {
    Box::new(move |times| {
        let begin = Instant::now();
        (0..times).for_each(|_| once());
        begin.elapsed()
    })
}

fn sum(bytes: usize) -> Piece<'static> {
    let sample = vec![0x5a; bytes];
    let read = sample.clone();
    Piece {
        name: format!("sum of {bytes} B"),
        bytes: bytes as u64,
        ours: timed(move || {
            black_box(crc32c(black_box(&sample)));
        }),
        limit_name: "read of it",
        limit: timed(move || {
            let (words, _) = black_box(&read[..]).as_chunks::<8>();
            black_box(words.iter().fold(0, |all, word| all ^ u64::from_ne_bytes(*word)));
        }),
    }
}

/// A batch frame of messages of this payload.
fn frame_of(payload_bytes: usize) -> Vec<u8> {
    let (mut body, mut count) = (Vec::new(), 0);
    while body.len() + payload_bytes + 16 <= BODY_BYTES {
        push(&mut body, &vec![0x5a; payload_bytes]);
        count += 1;
    }
    let header = BatchHeader {
        message_count: count,
        session: SESSION,
        session_epoch: 1,
        body_bytes: body.len() as u32,
        body_crc: crc32c(&body),
        ..BatchHeader::default()
    };
    let mut frame = frame::seal(&header).to_vec();
    frame.extend(body);
    frame.resize(header.frame_bytes() as usize, 0);
    frame
}

fn decode(payload_bytes: usize) -> Piece<'static> {
    let whole = frame_of(payload_bytes);
    let body = whole[64..].to_vec();
    Piece {
        name: format!("batch of {payload_bytes} B messages decoded"),
        bytes: whole.len() as u64,
        ours: timed(move || {
            let found = BatchDecoder::new(u64::MAX).advance(black_box(&whole));
            assert!(matches!(found, Ok(Progress::Complete(_))), "it is sound");
        }),
        limit_name: "its sum",
        limit: timed(move || {
            black_box(crc32c(black_box(&body)));
        }),
    }
}

/// Part of the pool that is written to in turn, bytes: more than caches hold.
const AREA_BYTES: u64 = 128 << 20;

/// Writes to one place of the pool after the other, from a cached source.
struct Writer<C: Coherence> {
    memory: Mapped<C>,
    from: u64,
    next: u64,
}

impl<C: Coherence> Writer<C> {
    fn new(own: &BenchPool) -> Writer<C> {
        Writer { memory: view::<C>(&own.pool).memory, from: own.pool.layout().fixed_bytes(), next: 0 }
    }

    /// Where the next so many bytes go.
    fn place(&mut self, bytes: u64) -> u64 {
        if self.next + bytes > AREA_BYTES {
            self.next = 0;
        }
        self.next += bytes;
        (self.from + self.next - bytes).next_multiple_of(LINE_BYTES)
    }
}

fn write<C: Coherence>(own: &BenchPool, bytes: usize, cached: Option<Keep>) -> Piece<'_> {
    let (mut writer, mut copier) = (Writer::<C>::new(own), Writer::<C>::new(own));
    let lines = vec![0x5a; bytes];
    let source = lines.clone();
    Piece {
        name: format!("{bytes} B written {}", if cached.is_some() { "back" } else { "past the caches" }),
        bytes: bytes as u64,
        ours: timed(move || {
            let at = writer.place(bytes as u64);
            writer.memory.write_lines(at, black_box(&lines), cached);
            writer.memory.store_fence();
        }),
        limit_name: "memcpy",
        limit: timed(move || {
            let at = copier.place(bytes as u64);
            copier.memory.copy_in(at, black_box(&source));
        }),
    }
}

/// A lane whose memory comes back.
struct Lane<'a, C: Coherence> {
    own: &'a BenchPool,
    sequencer: Candidate<Mapped<C>>,
    ingest: Ingest<Mapped<C>>,
    stream: Stream,
}

impl<'a, C: Coherence> Lane<'a, C> {
    fn new(own: &'a BenchPool) -> Lane<'a, C> {
        let view = view::<C>(&own.pool);
        let ingest = Ingest::take(&view, 0, Keep::Dropped);
        let terms = Terms {
            session: SESSION,
            asked_slot: 0,
            session_epoch: 1,
            topic: 0,
            receipts: Receipts::Batch,
            next_seq: None,
            counts_landed: false,
        };
        let stream = Stream::new(terms, ingest.batch_bytes_max());
        Lane { own, sequencer: candidate(&view), ingest, stream }
    }

    /// Takes a frame in; how long that took, without what the sequencer did for it.
    fn take_in(&mut self, frame: &mut [u8]) -> Duration {
        let run_bytes_max = self.own.pool.layout().geometry.extent_bytes;
        let (mut at, mut spent, asked) = (0, Duration::ZERO, Instant::now());
        while at < frame.len() {
            let begin = Instant::now();
            let found = self.ingest.take_in(&mut self.stream, &mut frame[at..], run_bytes_max, 1, &mut || 1);
            spent += begin.elapsed();
            let (taken, next) = found.expect("it is sound");
            at += taken;
            if next == Next::Room {
                // Nobody knows the session: what was taken in is given up.
                assert!(asked.elapsed() < WAIT, "waited {WAIT:?} for memory of the sequencer");
                self.ingest.report(true);
                self.sequencer.step(monotonic_ns(), &self.own.pool);
                self.ingest.refresh();
            }
        }
        spent
    }
}

/// From a landing buffer to a published slot.
fn take_in<'a, C: Coherence>(own: &'a BenchPool, lane: &Rc<RefCell<Lane<'a, C>>>, payload_bytes: usize) -> Piece<'a> {
    let mut frame = frame_of(payload_bytes);
    let (source, bytes, lane) = (frame.clone(), frame.len() as u64, lane.clone());
    let mut streamed = Writer::<C>::new(own);
    Piece {
        name: format!("batch of {payload_bytes} B messages taken in"),
        bytes,
        ours: Box::new(move |times| (0..times).map(|_| lane.borrow_mut().take_in(&mut frame)).sum()),
        limit_name: "summed and streamed",
        limit: timed(move || {
            let at = streamed.place(bytes);
            for (index, piece) in black_box(&source[..]).chunks(PIECE_BYTES).enumerate() {
                black_box(crc32c(piece));
                streamed.memory.write_lines(at + (index * PIECE_BYTES) as u64, piece, None);
            }
            streamed.memory.store_fence();
        }),
    }
}
