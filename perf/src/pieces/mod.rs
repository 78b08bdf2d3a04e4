//! `compare pieces`: the pieces of the data path one by one, in one thread, each beside the least that it could cost.
//!
//! Both of a pair run in turn, for about as long, in every round. A ratio is a speed: that of the piece by that of its limit.
//!
//! * [`bytes`]: what is done with every byte: sums, decoding, writing to the pool, taking in what has landed.
//! * [`lines`]: what is done for every batch: a line published, observed, appended; a decision.

mod bytes;
mod lines;

use std::path::PathBuf;
use std::time::Duration;

use embarcadero::config::CoherenceMode;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::{Geometry, Hardware, Software};
use serde_json::json;
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::PiecesArgs;
use crate::error::CompareError;
use crate::scene::BenchPool;
use crate::subject;

/// Does something so many times, and gives how long that took.
type Timed<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// One piece.
struct Piece<'a> {
    name: String,
    /// Bytes each time; 0: it is not about bytes.
    bytes: u64,
    ours: Timed<'a>,
    /// What the limit does.
    limit_name: &'static str,
    limit: Timed<'a>,
}

/// Runs it and prints what it found.
pub fn run(args: &PiecesArgs) -> Result<(), CompareError> {
    match args.coherence {
        CoherenceMode::Software => run_on::<Software>(args),
        CoherenceMode::Hardware => run_on::<Hardware>(args),
    }
}

fn run_on<C: Coherence>(args: &PiecesArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let create = |name: &'static str| {
        let path: PathBuf = folder.path().join(name);
        let own = BenchPool::create(name, &path, geometry(), args.coherence)?;
        own.touch().map(|()| own)
    };
    // An index that nobody gives up, and lanes whose memory comes back.
    let (index, lanes) = (create("index")?, create("lanes")?);
    let _lock = lanes.lock()?;
    let mut pieces = bytes::pieces::<C>(&lanes);
    pieces.extend(lines::pieces::<C>(&index));
    println!("pieces of the data path, coherence {:?}; a ratio is speed by that of the limit", args.coherence);
    let (mut report, mut ratios) = (serde_json::Map::new(), serde_json::Map::new());
    for mut piece in pieces {
        let times = times_for(&mut piece, Duration::from_millis(args.ms));
        let (mut ours, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            ours.push(speed(times, (piece.ours)(times)));
            limit.push(speed(times, (piece.limit)(times)));
        }
        let (spread, ratio) = (Spread::of(ours.clone()), Spread::of_ratios(&ours, &limit));
        let name = format!("{} / {}", piece.name, piece.limit_name);
        println!("  {:<52} {:<14} ratio {}", name, in_words(piece.bytes, spread.median), ratio.words(2));
        report.insert(
            name.clone(),
            json!({ "bytes": piece.bytes, "a_second": spread.json(), "runs": ours, "limit": limit }),
        );
        ratios.insert(name, ratio.json());
    }
    args.output.write(&json!({ "machine": machine(), "pieces": report, "ratios": ratios }))
}

/// How often it is done in about that time; what runs first is cold, and does not count.
fn times_for(piece: &mut Piece, time: Duration) -> u64 {
    let mut times = 1;
    loop {
        let taken = (piece.ours)(times).max(Duration::from_nanos(1));
        if taken >= time / 4 {
            return ((times as f64 * time.as_secs_f64() / taken.as_secs_f64()) as u64).max(1);
        }
        times *= 2;
    }
}

fn speed(times: u64, taken: Duration) -> f64 {
    times as f64 / taken.max(Duration::from_nanos(1)).as_secs_f64()
}

fn in_words(bytes: u64, a_second: f64) -> String {
    match bytes {
        0 => format!("{:.1} ns", 1e9 / a_second),
        bytes => format!("{:.2} GB/s", bytes as f64 * a_second / 1e9),
    }
}

/// One broker with room for batches of some size.
fn geometry() -> Geometry {
    Geometry {
        pool_bytes: 256 << 20,
        extent_bytes: 4 << 20,
        hosts: 1,
        brokers: 1,
        lanes_per_broker: 1,
        candidates: 1,
        ring_slots: 2048,
        segment_entries: 65536,
        segments: 8,
        sessions_max: 1 << 12,
        topics_max: 16,
        extents: 0,
        attached_per_broker: 0,
        spare_per_host: 0,
        cursors_max: 1,
    }
}
