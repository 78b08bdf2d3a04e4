//! `compare sequencer`: the sequencer alone, on a pool without brokers: no network, and nobody else wants its core.
//!
//! * *Alone*: lanes are filled with slots, then its passes are timed until all are ordered; then they are filled again. Nanoseconds
//!   a batch, by order level, arrival, lanes and sessions. In order: each session's batches come one after the other. Half shuffled: in
//!   pairs, the later one first, so that every other one is parked. Which session comes next is drawn by chance.
//!   Beside each the least that can be: a loop that reads as many slots and writes a line back for each.
//! * *Driven*: another thread fills the lanes while it runs, at parts and multiples of what it can take alone. A sequencer that is offered
//!   twice its most is to get as much done as at its best.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embarcadero::config::CoherenceMode;
use embarcadero::limits::LINE_BYTES;
use embarcadero::log::appender::Appender;
use embarcadero::log::topics::Topic;
use embarcadero::order::Origin;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::{Geometry, Hardware, Keep, Mapped, Memory, Pool, Software};
use embarcadero::roles::sequence::candidate::Candidate;
use embarcadero::wire::frame::BatchHeader;
use embarcadero::wire::{AckLevel, OrderLevel};
use launch::place::Folder;
use serde_json::json;
use tools_common::clock::monotonic_ns;
use tools_common::figures::Spread;
use tools_common::report::{cores, machine};

use crate::args::SequencerArgs;
use crate::error::CompareError;
use crate::scene::{BenchPool, candidate, view};
use crate::subject;

/// What is aimed at: ns a batch in order and half shuffled, and the part of its best that is left at twice the load.
const AIMS_NS: [f64; 2] = [50.0, 100.0];
const AIM_OVERLOADED: f64 = 0.95;
/// Slots of a lane that are filled at once, alone.
const FILL: u64 = 512;
const LANES: [u32; 3] = [1, 8, 64];
const SESSIONS: [u32; 3] = [1, 1000, 100_000];
const TINY_SESSIONS: u32 = 2000;
/// Parts of what it takes alone that it is offered when it is driven.
const LOADS: [f64; 5] = [0.5, 0.8, 1.0, 1.5, 2.0];
/// Lines that the bare loop writes between two fences.
const FENCED: u64 = 64;
const WAIT: Duration = Duration::from_secs(60);
/// A batch as small as there is: its bytes are not looked at.
const BATCH_BYTES: u64 = 128;

/// How a session's batches come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrivals {
    InOrder,
    HalfShuffled,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
struct Case {
    order: OrderLevel,
    arrivals: Arrivals,
    lanes: u32,
    sessions: u32,
}

impl Case {
    /// In a smoke test the most sessions are fewer: to open them is most of what it takes.
    fn all(is_tiny: bool) -> Vec<Case> {
        let most = |sessions: u32| if is_tiny { sessions.min(TINY_SESSIONS) } else { sessions };
        let kinds = [
            (OrderLevel::Total, Arrivals::InOrder),
            (OrderLevel::Session, Arrivals::InOrder),
            (OrderLevel::Session, Arrivals::HalfShuffled),
        ];
        let each = |(order, arrivals)| {
            LANES.into_iter().flat_map(move |lanes| {
                SESSIONS.into_iter().map(move |sessions| Case { order, arrivals, lanes, sessions: most(sessions) })
            })
        };
        kinds.into_iter().flat_map(each).collect()
    }

    fn name(&self) -> String {
        let arrivals = if self.arrivals == Arrivals::InOrder { "in order" } else { "half shuffled" };
        format!("order {} {arrivals}, {} lanes, {} sessions", self.order, self.lanes, self.sessions)
    }

    fn aim(&self) -> f64 {
        AIMS_NS[usize::from(self.arrivals == Arrivals::HalfShuffled)]
    }

    fn geometry(&self) -> Geometry {
        let brokers = self.lanes.min(8);
        Geometry {
            pool_bytes: if self.sessions > TINY_SESSIONS { 512 << 20 } else { 256 << 20 },
            extent_bytes: 256 << 10,
            hosts: 1,
            brokers,
            lanes_per_broker: self.lanes / brokers,
            candidates: 1,
            ring_slots: 2048,
            segment_entries: 65536,
            segments: 8,
            sessions_max: 1 << 17,
            topics_max: 16,
            extents: 0,
            attached_per_broker: 0,
            spare_per_host: 0,
            cursors_max: 1,
        }
    }
}

/// A lane, and the sessions that publish over it.
struct Lane<C: Coherence> {
    appender: Appender<Mapped<C>>,
    /// Where all its batches lie.
    at: u64,
    /// Sessions with the number of their next batch.
    sessions: Vec<(u64, u64)>,
    arrivals: Arrivals,
    topic: u32,
    random: u64,
}

impl<C: Coherence> Lane<C> {
    /// Publishes so many slots, an even number, if there is room for them all. Gives how many.
    fn fill(&mut self, slots: u64) -> u64 {
        if self.sessions.is_empty() || !self.appender.has_room(slots) {
            return 0;
        }
        for _ in 0..slots / 2 {
            // Any sequence will do (xorshift64).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let count = self.sessions.len() as u64;
            let (session, next) = &mut self.sessions[(self.random % count) as usize];
            let (session, first) = (*session, *next);
            *next += 2;
            let numbers = match self.arrivals {
                Arrivals::InOrder => [first, first + 1],
                Arrivals::HalfShuffled => [first + 1, first],
            };
            for batch_seq in numbers {
                let header = BatchHeader {
                    body_bytes: 16,
                    message_count: 1,
                    session,
                    session_epoch: 1,
                    topic: self.topic,
                    batch_seq,
                    ..BatchHeader::default()
                };
                self.appender.publish_batch(&header, self.at, 0);
            }
        }
        slots
    }
}

/// A sequencer and everything that comes to it.
struct Scene<C: Coherence> {
    pool: Pool,
    candidate: Candidate<Mapped<C>>,
    lanes: Vec<Lane<C>>,
}

impl<C: Coherence> Scene<C> {
    /// With every session open.
    fn new(case: &Case, own: &BenchPool) -> Result<Scene<C>, CompareError> {
        let view = view::<C>(&own.pool);
        let mut lanes: Vec<Appender<_>> = (0..case.lanes).map(|lane| Appender::take(&view, lane)).collect();
        let mut scene = Scene { pool: own.pool.clone(), candidate: candidate(&view), lanes: Vec::new() };
        scene.until("the sequencer to be active", |_, candidate| candidate.active().is_some())?;
        let topic = Topic::new("bench", case.order, AckLevel::Committed);
        lanes[0].ask_for_topic(&topic);
        scene.until("the topic", |_, candidate| {
            candidate.active().is_some_and(|active| active.core().table().topic_count() == 1)
        })?;
        let created_position = 0;
        let mut asked: Vec<Vec<Origin>> = vec![Vec::new(); lanes.len()];
        for session in 0..case.sessions {
            let lane = (session % case.lanes) as usize;
            while !lanes[lane].has_room(1) {
                scene.step();
            }
            asked[lane].push(lanes[lane].next_origin());
            lanes[lane].ask_to_open(0, 1, 0, created_position);
        }
        let produced: u64 = lanes.iter().map(Appender::produced).sum();
        scene.until("the sessions to open", |_, candidate| consumed(candidate) >= produced)?;
        let table = scene.candidate.active().expect("it was").core().table();
        let session = |origin| table.opened_by(origin).map(|place| (table.session(place).id, 0));
        let mut open = Vec::new();
        for (mut appender, asked) in lanes.into_iter().zip(asked) {
            appender.refresh(u64::MAX);
            let run = appender.acquire(BATCH_BYTES, BATCH_BYTES);
            let sessions: Option<Vec<_>> = asked.into_iter().map(session).collect();
            let (Some(run), Some(sessions)) = (run, sessions) else {
                return Err(unsound("a lane has no memory, or a session was not opened"));
            };
            let random = 0x9e37_79b9_7f4a_7c15 ^ (open.len() as u64 + 1);
            open.push(Lane { appender, at: run.start, sessions, arrivals: case.arrivals, topic: 0, random });
        }
        scene.lanes = open;
        Ok(scene)
    }

    fn step(&mut self) {
        self.candidate.step(monotonic_ns(), &self.pool);
    }

    fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut [Lane<C>], &Candidate<Mapped<C>>) -> bool,
    ) -> Result<(), CompareError> {
        let begin = Instant::now();
        while !is_so(&mut self.lanes, &self.candidate) {
            self.step();
            if begin.elapsed() > WAIT {
                return Err(unsound(&format!("waited {WAIT:?} for {what}")));
            }
        }
        Ok(())
    }

    /// Nanoseconds a batch of its passes alone.
    fn alone(&mut self, batches: u64) -> Result<f64, CompareError> {
        let (mut done, mut spent) = (0, Duration::ZERO);
        let before = self.appended();
        while done < batches {
            let filled: u64 = self.lanes.iter_mut().map(|lane| lane.fill(FILL)).sum();
            let until = consumed(&self.candidate) + filled;
            let begin = Instant::now();
            self.until("what was filled in", |_, candidate| consumed(candidate) >= until)?;
            spent += begin.elapsed();
            done += filled;
        }
        match self.appended() - before {
            appended if appended == done => Ok(spent.as_nanos() as f64 / done as f64),
            appended => Err(unsound(&format!("{appended} of {done} batches were ordered"))),
        }
    }

    /// Nanoseconds of reading a slot and writing a line back for it, fenced as often as a pass is.
    fn bare(&self, batches: u64) -> f64 {
        let memory = Mapped::<C>::new(self.pool.mapping().clone());
        let layout = self.pool.layout();
        // Of the last extent nobody makes use here.
        let target = layout.extent(layout.geometry.extents - 1);
        let begin = Instant::now();
        for number in 0..batches {
            let slot = layout.ring_slot((number / FILL % u64::from(layout.geometry.lanes())) as u32, number % FILL);
            let at = target + number % FILL * LINE_BYTES;
            for word in (0..LINE_BYTES).step_by(8) {
                memory.store(at + word, memory.load(slot + word));
            }
            memory.flush_line(at, Keep::Cached);
            if number % FENCED == FENCED - 1 {
                memory.store_fence();
            }
        }
        begin.elapsed().as_nanos() as f64 / batches as f64
    }

    fn appended(&self) -> u64 {
        self.candidate.active().map_or(0, |active| active.counters().appended_batches)
    }

    /// Millions of batches a second that it orders while it is offered so many, for so long.
    fn driven(&mut self, offered: f64, time: Duration) -> Result<f64, CompareError> {
        let (stop, published) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut lanes = std::mem::take(&mut self.lanes);
        let (before, begin) = (self.appended(), Instant::now());
        let elapsed = std::thread::scope(|scope| {
            let driver = scope.spawn(|| drive(&mut lanes, offered, &stop, &published));
            while begin.elapsed() < time {
                (0..16).for_each(|_| self.step());
            }
            let elapsed = begin.elapsed();
            stop.store(true, Ordering::Relaxed);
            driver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            elapsed
        });
        let rate = (self.appended() - before) as f64 / elapsed.as_secs_f64() / 1e6;
        self.lanes = lanes;
        let (published, appended) = (published.load(Ordering::Relaxed) + before, self.appended());
        self.until("what is left in the lanes", |_, candidate| {
            candidate.active().is_some_and(|active| active.counters().appended_batches >= published)
        })?;
        if self.appended() < appended { Err(unsound("it went back")) } else { Ok(rate) }
    }
}

/// Fills lanes in turn, as much as is offered by now.
fn drive<C: Coherence>(lanes: &mut [Lane<C>], offered: f64, stop: &AtomicBool, published: &AtomicU64) {
    const AT_ONCE: u64 = 64;
    let (begin, mut planned, mut done) = (Instant::now(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * offered * 1e6) as u64;
        for lane in lanes.iter_mut() {
            if planned + AT_ONCE > due {
                break;
            }
            // What finds no room is offered and not taken.
            planned += AT_ONCE;
            done += lane.fill(AT_ONCE);
        }
    }
    published.store(done, Ordering::Relaxed);
}

fn consumed<C: Coherence>(candidate: &Candidate<Mapped<C>>) -> u64 {
    candidate.active().map_or(0, |active| active.counters().consumed_slots)
}

fn unsound(what: &str) -> CompareError {
    CompareError::Unsound { name: "sequencer".into(), what: what.to_owned() }
}

/// Runs it and prints what it found.
pub fn run(args: &SequencerArgs) -> Result<(), CompareError> {
    match args.coherence {
        CoherenceMode::Software => run_on::<Software>(args),
        CoherenceMode::Hardware => run_on::<Hardware>(args),
    }
}

fn run_on<C: Coherence>(args: &SequencerArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let cases: Vec<Case> = Case::all(args.output.tiny)
        .into_iter()
        .filter(|case| args.only.as_ref().is_none_or(|only| case.name().contains(only)))
        .collect();
    println!("the sequencer alone, coherence {:?}, {} batches a run; ns a batch", args.coherence, args.batches);
    let (mut report, mut ratios) = (serde_json::Map::new(), serde_json::Map::new());
    for case in &cases {
        let (found, bare) = with_scene::<C, _>(case, args, &folder, |scene| {
            // The first is cold.
            scene.alone(args.batches)?;
            let (mut found, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..args.runs {
                found.push(scene.alone(args.batches)?);
                bare.push(scene.bare(args.batches));
            }
            Ok((found, bare))
        })?;
        let (spread, ratio) = (Spread::of(found.clone()), Spread::of_ratios(&found, &bare));
        let (ns, aim) = (spread.words(1), case.aim());
        println!("  {:<52} {ns}   (aim: at most {aim}); / bare {}", case.name(), ratio.words(1));
        ratios.insert(format!("{} / bare", case.name()), ratio.json());
        report.insert(case.name(), json!({ "ns": spread.json(), "runs": found, "bare": bare }));
    }
    let driven = if args.only.is_none() && cores() >= 2 { driven::<C>(args, &folder)? } else { Vec::new() };
    args.output.write(&json!({
        "machine": machine(), "batches": args.batches, "cases": report, "ratios": ratios,
        "driven": driven.iter().map(|(load, rate)| json!({ "offered": load, "rate_m_s": rate })).collect::<Vec<_>>(),
    }))
}

/// At each load, what it got done: by part of what it takes alone.
fn driven<C: Coherence>(args: &SequencerArgs, folder: &Folder) -> Result<Vec<(f64, f64)>, CompareError> {
    let (order, arrivals) = (OrderLevel::Session, Arrivals::HalfShuffled);
    let case = Case { order, arrivals, lanes: 8, sessions: 1000 };
    let time = Duration::from_millis(args.drive_ms);
    let rates = with_scene::<C, _>(&case, args, folder, |scene| {
        let most = 1e3 / scene.alone(args.batches)?;
        let mut rates = vec![Vec::new(); LOADS.len()];
        for _ in 0..args.runs {
            for (load, rates) in LOADS.iter().zip(&mut rates) {
                rates.push(scene.driven(most * load, time)?);
            }
        }
        Ok(rates)
    })?;
    println!("driven by another thread, {}: millions of batches a second", case.name());
    let found: Vec<(f64, f64)> =
        LOADS.iter().zip(&rates).map(|(load, rates)| (*load, Spread::of(rates.clone()).median)).collect();
    for (load, rates) in LOADS.iter().zip(&rates) {
        println!("  offered {load:.1} of what it takes alone: {}", Spread::of(rates.clone()).words(2));
    }
    let best = found.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let ratio = found.last().map_or(0.0, |(_, rate)| rate / best);
    println!("  at twice the load / at its best {ratio:.2}   (aim: at least {AIM_OVERLOADED})");
    Ok(found)
}

fn with_scene<C: Coherence, R>(
    case: &Case,
    args: &SequencerArgs,
    folder: &Folder,
    act: impl FnOnce(&mut Scene<C>) -> Result<R, CompareError>,
) -> Result<R, CompareError> {
    let path = folder.path().join("sequencer");
    let own = BenchPool::create("sequencer", Path::new(&path), case.geometry(), args.coherence)?;
    own.touch()?;
    let lock = own.lock()?;
    let result = Scene::new(case, &own).and_then(|mut scene| act(&mut scene));
    drop((lock, own));
    let _ = std::fs::remove_file(&path);
    result
}
