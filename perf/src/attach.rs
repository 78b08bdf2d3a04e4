//! `compare attach`: clients that map the pool, beside what this machine's memory gives.
//!
//! * Appending: an attached publisher's messages, ordered and acked, against the same bytes brought to the same memory: by `memcpy` and
//!   `clflushopt`, message by message and in blocks of a batch, and in such blocks by stores past the caches. And the same by a process of
//!   brokers on the embedded default, whose sequencer sleeps and shares its thread.
//! * Latency: from an attached publish to its attached delivery, publisher and subscriber on one spinning thread and the sequencer on
//!   another, against two bare exchanges of two spinning threads, which is the least a message's way can be: a cache line to and fro, and a
//!   relay that writes lines back and drops them before it looks, as the pool's coherence asks for.
//!
//! The sequencer is the broker's own, on a thread by itself as on a machine with a core for each role; no broker process runs. In
//! every round each side runs once, beginning with another one each time.
//!
//! Throughputs are given twice: by the clock, and by the processor time of the thread that copies. The publisher waits for the
//! sequencer's thread and a copy waits for nobody, so where others want the processors too, only the second is about the code.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use embarcadero::config::CoherenceMode;
use embarcadero::limits::LINE_BYTES;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::region::HostLock;
use embarcadero::pool::{Geometry, Hardware, Keep, Mapped, Memory, Pool, Software};
use embarcadero::{PoolOptions, Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions, TopicProperties};
use launch::place::Folder;
use serde_json::json;
use tools_common::clock::{monotonic_ns, thread_ns};
use tools_common::figures::{self, Spread};
use tools_common::report::{cores, machine};

use crate::args::AttachArgs;
use crate::error::CompareError;
use crate::scene::{BenchPool, candidate, view};
use crate::subject::{self, Subject};

/// What is aimed at.
const AIM: f64 = 0.7;
/// The same of the embedded default against the best case.
const AIM_DEFAULT: f64 = 0.9;
const TOPIC: &str = "attach";
const EXTENT_BYTES: u64 = 8 << 20;
/// What four brokers and a publisher need of a pool.
const DEFAULT_POOL_BYTES_MIN: u64 = 256 << 20;
const WAIT: Duration = Duration::from_secs(30);
/// Sizes of the messages that are appended.
const SIZES: [u64; 2] = [1024, 64];
/// Message of the latency measurement, bytes.
const PING_BYTES: usize = 64;

fn client() -> impl FnOnce(embarcadero::ClientError) -> CompareError {
    CompareError::client("attach")
}

/// A pool of its own with a sequencer on a spinning thread.
struct Scene {
    path: PathBuf,
    pool: Pool,
    stop: Arc<AtomicBool>,
    sequencer: Option<JoinHandle<()>>,
}

impl Scene {
    fn new(args: &AttachArgs, folder: &Folder) -> Result<Scene, CompareError> {
        let geometry = Geometry {
            pool_bytes: args.pool_bytes,
            extent_bytes: EXTENT_BYTES,
            hosts: 1,
            brokers: 1,
            lanes_per_broker: 1,
            candidates: 1,
            ring_slots: 4096,
            segment_entries: 65536,
            segments: 8,
            sessions_max: 256,
            topics_max: 16,
            extents: 0,
            attached_per_broker: 1,
            spare_per_host: 0,
            cursors_max: 1,
        };
        let scene = BenchPool::create("attach", &folder.path().join("attach"), geometry, args.coherence)?;
        let lock = scene.lock()?;
        // The limits go over this mapping; the publisher touches its own.
        scene.touch()?;
        let BenchPool { path, pool, .. } = scene;
        let stop = Arc::new(AtomicBool::new(false));
        let (ours, until) = (pool.clone(), stop.clone());
        let sequencer = match args.coherence {
            CoherenceMode::Software => std::thread::spawn(move || sequence::<Software>(&ours, lock, &until)),
            CoherenceMode::Hardware => std::thread::spawn(move || sequence::<Hardware>(&ours, lock, &until)),
        };
        Ok(Scene { path, pool, stop, sequencer: Some(sequencer) })
    }

    fn place(&self, args: &AttachArgs) -> PoolOptions {
        PoolOptions { path: self.path.clone(), coherence: args.coherence, wait: WAIT, ..PoolOptions::default() }
    }

    fn publisher(&self, args: &AttachArgs, batch_bytes: u64) -> Result<Publisher, CompareError> {
        Publisher::attach(PublisherOptions {
            pool: self.place(args),
            topic: TOPIC.to_owned(),
            create: Some(TopicProperties::default()),
            batch_bytes,
            ..PublisherOptions::default()
        })
        .map_err(client())
    }

    fn subscriber(&self, args: &AttachArgs) -> Result<Subscriber, CompareError> {
        Subscriber::attach(SubscriberOptions {
            pool: self.place(args),
            topic: TOPIC.to_owned(),
            start: Start::Latest,
            ..SubscriberOptions::default()
        })
        .map_err(client())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sequencer) = self.sequencer.take() {
            // Its panic was printed; the measurement fails for want of acks.
            let _ = sequencer.join();
        }
    }
}

fn sequence<C: Coherence>(pool: &Pool, lock: HostLock, until: &AtomicBool) {
    let mut candidate = candidate(&view::<C>(pool));
    while !until.load(Ordering::Relaxed) && candidate.fault().is_none() {
        candidate.step(monotonic_ns(), pool);
    }
    drop(lock);
}

/// Payload in GB/s, by the clock and by the thread's processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    clock: f64,
    processor: f64,
}

/// Since when a rate is measured.
struct Begin {
    clock: Instant,
    processor_ns: u64,
}

impl Begin {
    fn now() -> Begin {
        Begin { clock: Instant::now(), processor_ns: thread_ns() }
    }

    fn rate(&self, bytes: u64) -> Rate {
        let processor_ns = (thread_ns() - self.processor_ns).max(1);
        Rate {
            clock: bytes as f64 / self.clock.elapsed().as_nanos().max(1) as f64,
            processor: bytes as f64 / processor_ns as f64,
        }
    }
}

/// An attached publisher, up to the last ack.
fn append(publisher: &mut Publisher, args: &AttachArgs, message_bytes: u64) -> Result<Rate, CompareError> {
    let message = vec![7; message_bytes as usize];
    let count = (args.total / message_bytes).max(1);
    let begin = Begin::now();
    for _ in 0..count {
        publisher.send(&message).map_err(client())?;
    }
    publisher.flush(WAIT).map_err(client())?;
    Ok(begin.rate(count * message_bytes))
}

/// Bringing as many bytes to the same memory.
fn bare(scene: &Scene, args: &AttachArgs, how: How) -> Rate {
    let g = scene.pool.layout().geometry;
    let start = scene.pool.layout().extent(g.founding_extents(0).end);
    let bytes = u64::from(g.extents - g.founding_extents(0).end) * g.extent_bytes;
    match args.coherence {
        CoherenceMode::Software => {
            copy(&Mapped::<Software>::new(scene.pool.mapping().clone()), start, bytes, how, args)
        }
        CoherenceMode::Hardware => {
            copy(&Mapped::<Hardware>::new(scene.pool.mapping().clone()), start, bytes, how, args)
        }
    }
}

/// How bytes are brought to memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Copied in pieces of so many bytes, then written back.
    Copied(u64),
    /// Streamed past the caches, in blocks of a batch.
    Streamed,
}

fn copy<M: Memory>(memory: &M, start: u64, room_bytes: u64, how: How, args: &AttachArgs) -> Rate {
    let piece_bytes = if let How::Copied(bytes) = how { bytes } else { args.batch_bytes };
    let piece = vec![9; piece_bytes as usize];
    let total = args.total;
    let batch_bytes = args.batch_bytes / piece_bytes * piece_bytes;
    let (mut done, mut at) = (0, 0);
    let begin = Begin::now();
    while done < total {
        if at + batch_bytes > room_bytes {
            at = 0;
        }
        for offset in (0..batch_bytes).step_by(piece.len()) {
            match how {
                How::Copied(_) => memory.copy_in(start + at + offset, &piece),
                How::Streamed => memory.stream_in(start + at + offset, &piece),
            }
        }
        if how != How::Streamed {
            memory.write_back(start + at, batch_bytes, Keep::Dropped);
        }
        memory.store_fence();
        at += batch_bytes.next_multiple_of(LINE_BYTES);
        done += batch_bytes;
    }
    begin.rate(done)
}

/// Median and 99 of 100 of one measurement, ns.
#[derive(Clone, Copy, Debug)]
struct Latency {
    p50: f64,
    p99: f64,
}

impl Latency {
    fn of(found: &figures::Latencies) -> Latency {
        let at = |percentile| found.percentile_us(percentile) * 1e3;
        Latency { p50: at(50.0), p99: at(99.0) }
    }
}

/// From before `send` until the handler has the message, one at a time.
fn publish_to_deliver(
    args: &AttachArgs,
    publisher: &mut Publisher,
    subscriber: &mut Subscriber,
) -> Result<Latency, CompareError> {
    let mut found = figures::Latencies::default();
    let mut message = [0; PING_BYTES];
    for number in 0..args.latency_messages {
        message[..8].copy_from_slice(&number.to_le_bytes());
        let begin = Instant::now();
        publisher.send(&message).map_err(client())?;
        publisher.seal();
        let mut got = None;
        while got.is_none() {
            let mut take = |batch: &embarcadero::Delivered<'_>| {
                got = batch.messages().next().map(|(_, found)| found.payload == message);
            };
            subscriber.poll(Duration::ZERO, &mut take).map_err(client())?;
            if begin.elapsed() > WAIT {
                let what = format!("message {number} was not delivered within {WAIT:?}");
                return Err(CompareError::Unsound { name: "attach".into(), what });
            }
        }
        found.record(begin.elapsed().as_nanos() as u64);
        if got != Some(true) {
            return Err(CompareError::Unsound {
                name: "attach".into(),
                what: format!("another message than {number}"),
            });
        }
        // Acks are heard between two messages, as a publisher with something else to do would.
        publisher.poll(Duration::ZERO).map_err(client())?;
    }
    Ok(Latency::of(&found))
}

/// Two threads pass lines of the pool to and fro: as the hardware does it, or as `C` does.
fn ping_pong<C: Coherence>(scene: &Scene, args: &AttachArgs) -> Latency {
    let memory = Mapped::<C>::new(scene.pool.mapping().clone());
    let (tell, hear) = (tell::<Mapped<C>>, hear::<Mapped<C>>);
    // Two lines of the broker's own lane, which nobody uses here.
    let at = scene.pool.layout().extent(0);
    let (there, back) = (at, at + 4 * LINE_BYTES);
    memory.store(there, 0);
    memory.store(back, 0);
    let (far, count) = (memory.clone(), args.latency_messages);
    let echo = std::thread::spawn(move || {
        for number in 1..=count {
            while hear(&far, there) != number {
                std::hint::spin_loop();
            }
            tell(&far, back, number);
        }
    });
    let mut found = figures::Latencies::default();
    for number in 1..=count {
        let begin = Instant::now();
        tell(&memory, there, number);
        while hear(&memory, back) != number {
            std::hint::spin_loop();
        }
        found.record(begin.elapsed().as_nanos() as u64);
    }
    // It has answered the last one.
    let _ = echo.join();
    Latency::of(&found)
}

fn tell<M: Memory>(memory: &M, at: u64, word: u64) {
    memory.store(at, word);
    memory.write_back(at, LINE_BYTES, Keep::Dropped);
    memory.store_fence();
}

fn hear<M: Memory>(memory: &M, at: u64) -> u64 {
    memory.discard(at, LINE_BYTES);
    memory.load(at)
}

/// What is measured of appending, in every round; the first of them against each of the others.
const APPENDS: [&str; 5] =
    ["append", "memcpy in messages", "memcpy in blocks", "streamed blocks", "append, embedded default"];
/// Its place there.
const BY_DEFAULT: usize = 4;

/// GB/s of one message size: by kind, by round.
type Appends = [Vec<Rate>; APPENDS.len()];

fn append_round(
    args: &AttachArgs,
    folder: &Folder,
    round: usize,
    bytes: u64,
) -> Result<[Rate; APPENDS.len()], CompareError> {
    let scene = Scene::new(args, folder)?;
    let mut rates = [Rate::default(); APPENDS.len()];
    for turn in 0..BY_DEFAULT {
        let kind = (turn + round) % BY_DEFAULT;
        rates[kind] = match kind {
            0 => append(&mut scene.publisher(args, args.batch_bytes)?, args, bytes)?,
            1 => bare(&scene, args, How::Copied(bytes)),
            2 => bare(&scene, args, How::Copied(args.batch_bytes)),
            _ => bare(&scene, args, How::Streamed),
        };
    }
    let (path, place) = (scene.path.clone(), scene.place(args));
    drop(scene);
    let _ = fs::remove_file(path);
    rates[BY_DEFAULT] = append_by_default(args, folder, place, bytes)?;
    Ok(rates)
}

/// A process of four brokers on a shared thread that sleeps: all that is not written here is the default.
fn append_by_default(args: &AttachArgs, folder: &Folder, place: PoolOptions, bytes: u64) -> Result<Rate, CompareError> {
    let (config, pool) = (folder.path().join("attach-default.yaml"), folder.path().join("attach-default"));
    let coherence = if args.coherence == CoherenceMode::Software { "software" } else { "hardware" };
    let addresses = subject::free_addresses(4)?;
    let pool_bytes = args.pool_bytes.max(DEFAULT_POOL_BYTES_MIN);
    let text = subject::configuration_of(&pool, &format!("bytes: {pool_bytes}, coherence: {coherence}"))
        .section("geometry", "attached_per_broker: 1")
        .brokers(&addresses)
        .text();
    fs::write(&config, text).map_err(CompareError::io(format!("writing {}", config.display())))?;
    let mut brokers = Subject::configured("attach-default", &config, addresses, folder)?;
    brokers.wait_until_it_listens()?;
    let options = PublisherOptions {
        pool: PoolOptions { path: pool.clone(), ..place },
        topic: TOPIC.to_owned(),
        create: Some(TopicProperties::default()),
        ..PublisherOptions::default()
    };
    let rate = append(&mut Publisher::attach(options).map_err(client())?, args, bytes);
    drop(brokers);
    let _ = fs::remove_file(pool);
    rate
}

/// Runs it and prints what it found.
pub fn run(args: &AttachArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut sizes = [Appends::default(), Appends::default()];
    for round in 0..=args.runs as usize {
        for (bytes, found) in SIZES.into_iter().zip(&mut sizes) {
            let rates = append_round(args, &folder, round, bytes)?;
            eprintln!("round {round}: {bytes} B: {:.2?} GB/s", rates.map(|rate| rate.clock));
            if round > 0 {
                found.iter_mut().zip(rates).for_each(|(found, rate)| found.push(rate));
            }
        }
    }
    let latencies = if cores() >= 2 { Some(latency_rounds(args, &folder)?) } else { None };
    report(args, &sizes, latencies.as_ref())
}

/// What is measured of latency, in every round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The log's.
    Deliver,
    /// A cache line, as the hardware passes it.
    Line,
    /// The same with what the pool's coherence asks for.
    Relay,
}

const WAYS: [Way; 3] = [Way::Deliver, Way::Line, Way::Relay];

/// By way, by round.
type Latencies = [Vec<Latency>; 3];

fn latency_rounds(args: &AttachArgs, folder: &Folder) -> Result<Latencies, CompareError> {
    let mut found = Latencies::default();
    for round in 0..=args.runs as usize {
        for turn in 0..WAYS.len() {
            let place = (turn + round) % WAYS.len();
            let latency = latency(args, folder, WAYS[place])?;
            let _ = fs::remove_file(folder.path().join("attach"));
            if round > 0 {
                found[place].push(latency);
            }
        }
    }
    Ok(found)
}

fn latency(args: &AttachArgs, folder: &Folder, way: Way) -> Result<Latency, CompareError> {
    let scene = Scene::new(args, folder)?;
    if way == Way::Deliver {
        let mut publisher = scene.publisher(args, 4096)?;
        let mut subscriber = scene.subscriber(args)?;
        return publish_to_deliver(args, &mut publisher, &mut subscriber);
    }
    // The sequencer's core is needed.
    scene.stop.store(true, Ordering::Relaxed);
    Ok(match (way, args.coherence) {
        (Way::Relay, CoherenceMode::Software) => ping_pong::<Software>(&scene, args),
        _ => ping_pong::<Hardware>(&scene, args),
    })
}

fn report(args: &AttachArgs, sizes: &[Appends; 2], latencies: Option<&Latencies>) -> Result<(), CompareError> {
    println!("attached clients, coherence {:?}, batches of {} bytes, one publisher", args.coherence, args.batch_bytes);
    let mut ratios = serde_json::Map::new();
    let mut runs = serde_json::Map::new();
    for (bytes, found) in SIZES.iter().zip(sizes) {
        for (by, figure) in [("clock", (|rate| rate.clock) as fn(&Rate) -> f64), ("processor", |rate| rate.processor)] {
            let all: Vec<Vec<f64>> = found.iter().map(|rates| rates.iter().map(figure).collect()).collect();
            for (kind, of) in APPENDS.iter().zip(&all) {
                println!("  by {by}: {bytes} B, {kind}: {} GB/s of payload", Spread::of(of.clone()).words(2));
            }
            for (kind, below) in APPENDS[1..BY_DEFAULT].iter().zip(&all[1..]) {
                let ratio = Spread::of_ratios(&all[0], below);
                println!("  by {by}: append {bytes} / {kind} {}   (aim: at least {AIM})", ratio.words(2));
                ratios.insert(format!("append_{bytes} / {kind} by {by}"), ratio.json());
            }
            let ratio = Spread::of_ratios(&all[BY_DEFAULT], &all[0]);
            println!("  by {by}: append {bytes}, default / best {}   (aim: at least {AIM_DEFAULT})", ratio.words(2));
            ratios.insert(format!("append_{bytes} default / best by {by}"), ratio.json());
            let of = APPENDS.iter().zip(&all).map(|(kind, of)| ((*kind).to_owned(), json!(of)));
            runs.insert(format!("{bytes} by {by}, GB/s"), of.collect::<serde_json::Map<_, _>>().into());
        }
    }
    if let Some([delivered, line, relay]) = latencies {
        for (name, figure) in [("p50", (|l: &Latency| l.p50) as fn(&Latency) -> f64), ("p99", |l| l.p99)] {
            let all = |runs: &[Latency]| runs.iter().map(figure).collect::<Vec<_>>();
            let (log, line, relay) = (all(delivered), all(line), all(relay));
            println!("  publish to deliver {name}: {} ns", Spread::of(log.clone()).words(0));
            for (limit, below) in [("cache-line ping-pong", &line), ("bare relay", &relay)] {
                let ratio = Spread::of_ratios(&log, below);
                println!("  {name} of a {limit}: {} ns; ratio {}", Spread::of(below.clone()).words(0), ratio.words(2));
                ratios.insert(format!("deliver / {limit} {name}"), ratio.json());
            }
            let of = json!({ "deliver_ns": log, "pingpong_ns": line, "relay_ns": relay });
            runs.insert(format!("latency_{name}"), of);
        }
    }
    args.output.write(&json!({
        "machine": machine(), "total": args.total, "batch_bytes": args.batch_bytes, "pool_bytes": args.pool_bytes,
        "latency_messages": args.latency_messages, "runs": runs, "ratios": ratios,
    }))
}
