//! `compare deliver`, `compare fanout`, `compare relay`: delivery beside senders and relays that do nothing else.
//!
//! * deliver: one subscriber reads a topic that lies in the pool, from the earliest on: verified by the client library (every CRC,
//!   header, order), and only read. Beside it [`crate::source`] sends as many bytes in the same vectors to a reader that only
//!   reads, and to one that also checksums all of them.
//! * fanout: the same with several verified subscribers at once, each on its own thread.
//! * relay: a publisher and a verified subscriber at once, beside a relay between clients that only write and read, and between
//!   clients that checksum what they write and read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::limits::FRAME_HEADER_BYTES;
use embarcadero::wire::frame::{self, Deliver, Hello, Role};
use embarcadero::wire::message::message_bytes;
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{FrameKind, OrderLevel, StartAt, crc32c};
use embarcadero::{Order, Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions};
use launch::place::Folder;
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::{DeliverArgs, RunArgs};
use crate::error::CompareError;
use crate::source::{RELAY_IN, RELAY_OUT};
use crate::subject::{self, Idle, Subject, topic};

/// Longest time a run may take.
const RUN_MAX: Duration = Duration::from_secs(120);
/// What a reader reads into, bytes: as the client library's default.
const BUFFER_BYTES: usize = 1 << 20;

/// Which comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One subscriber.
    Deliver,
    /// 1, 4 and 16.
    Fanout,
    /// Publish and subscribe at once.
    Relay,
}

/// One run: name, and 10^9 bytes a second.
type Figures = Vec<(&'static str, f64)>;

struct Scene {
    broker: Subject,
    source: Subject,
    /// Bytes that the whole topic is on the wire to a subscriber, and its messages.
    wire_bytes: u64,
    messages: u64,
}

fn client_error() -> impl FnOnce(embarcadero::ClientError) -> CompareError {
    CompareError::client("deliver")
}

fn gb_per_s(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 / 1e9 / begin.elapsed().as_secs_f64()
}

impl Scene {
    fn new(args: &DeliverArgs, folder: &Folder) -> Result<Scene, CompareError> {
        let pool_bytes = (2 * args.total).max(160 << 20).next_multiple_of(2 << 20);
        let run = RunArgs::standard();
        let broker = Subject::brokers("embarlet-deliver", 1, Idle::Park, pool_bytes, &run, folder)?;
        let source = Subject::source("source", args.total.next_multiple_of(2 << 20), args, folder)?;
        Ok(Scene { broker, source, wire_bytes: 0, messages: 0 })
    }

    fn publisher(&self, args: &DeliverArgs) -> Result<Publisher, CompareError> {
        let options = PublisherOptions {
            brokers: self.broker.seeds(),
            topic: topic(OrderLevel::Session).to_owned(),
            batch_bytes: args.batch_bytes,
            ..PublisherOptions::default()
        };
        Publisher::connect(options).map_err(client_error())
    }

    fn publish(&self, args: &DeliverArgs) -> Result<u64, CompareError> {
        let mut publisher = self.publisher(args)?;
        let payload: Vec<u8> = (0..args.message_bytes).map(|at| (at * 131 + 7) as u8).collect();
        let messages = args.total / message_bytes(args.message_bytes);
        for _ in 0..messages {
            publisher.send(&payload).map_err(client_error())?;
        }
        publisher.close(RUN_MAX).map_err(client_error())?;
        Ok(messages)
    }

    fn subscriber(&self, start: Start) -> Result<Subscriber, CompareError> {
        let topic = topic(OrderLevel::Session).to_owned();
        let options = SubscriberOptions { brokers: self.broker.seeds(), topic, start, ..SubscriberOptions::default() };
        Subscriber::connect(options).map_err(client_error())
    }

    /// A subscriber of the client library takes `messages` messages.
    fn verified(&self, start: Start, messages: u64) -> Result<(), CompareError> {
        let (mut subscriber, begin) = (self.subscriber(start)?, Instant::now());
        let mut seen = 0;
        while seen < messages {
            let each = &mut |batch: &embarcadero::Delivered<'_>| seen += u64::from(batch.message_count);
            subscriber.poll(Duration::from_millis(20), each).map_err(client_error())?;
            if begin.elapsed() > RUN_MAX {
                return Err(self.broker.failed(format!("delivered {seen} of {messages} messages in {RUN_MAX:?}")));
            }
        }
        Ok(())
    }

    /// The broker's bytes are read, and looked at as far as is needed to find the end. Gives how many.
    fn only_read(&self) -> Result<u64, CompareError> {
        let io = || CompareError::io("reading from the broker");
        let hello = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
        let mut body = Vec::new();
        push_start(&mut body, topic(OrderLevel::Session), StartAt::Earliest, 0);
        let mut stream = connect(&self.broker.seeds()[0], &frame::with_body(&hello, &body))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        // Bytes of the buffer's beginning that were kept, and of the frame under way that are still to come.
        let (mut kept, mut skip, mut total) = (0, 0, 0);
        loop {
            let end = kept + stream.read(&mut buffer[kept..]).map_err(io())?;
            if end == kept {
                return Err(self.broker.failed("ended a subscription".to_owned()));
            }
            total += (end - kept) as u64;
            let mut at = 0;
            loop {
                let step = skip.min(end - at);
                (at, skip) = (at + step, skip - step);
                let Some(header) = buffer[at..end].first_chunk::<FRAME_HEADER_BYTES>().filter(|_| skip == 0) else {
                    break;
                };
                match frame::check(header, u64::MAX) {
                    Ok(FrameKind::CaughtUp) => return Ok(total),
                    Ok(FrameKind::Deliver) => {
                        skip = FRAME_HEADER_BYTES + frame::read::<Deliver>(header).body_bytes as usize;
                    }
                    Ok(_) => skip = frame::frame_bytes(header) as usize,
                    Err(error) => return Err(self.broker.failed(format!("sent what is no frame: {error}"))),
                }
            }
            buffer.copy_within(at..end, 0);
            kept = end - at;
        }
    }

    /// The source's bytes are read; with `checks`, checksummed.
    fn bare(&self, bytes: u64, checks: bool) -> Result<(), CompareError> {
        let mut stream = connect(&self.source.seeds()[0], &bytes.to_le_bytes())?;
        let read = read_all(&mut stream, checks)?;
        if read < bytes {
            return Err(self.source.failed(format!("sent {read} of {bytes} bytes")));
        }
        Ok(())
    }

    /// The relay's, between clients that are threads of this process.
    fn bare_relay(&self, bytes: u64, checks: bool) -> Result<(), CompareError> {
        let address = &self.source.seeds()[0];
        let mut to = connect(address, &RELAY_OUT.to_le_bytes())?;
        // The relay takes the two in the order of their first words.
        thread::sleep(Duration::from_millis(5));
        let mut from = connect(address, &RELAY_IN.to_le_bytes())?;
        let writer = thread::spawn(move || {
            let chunk: Vec<u8> = (0..256 << 10).map(|at| (at * 131 + 7) as u8).collect();
            let mut left = bytes as usize;
            while left > 0 {
                let step = left.min(chunk.len());
                if checks {
                    std::hint::black_box(crc32c(&chunk[..step]));
                }
                from.write_all(&chunk[..step])?;
                left -= step;
            }
            Ok::<_, std::io::Error>(())
        });
        let read = read_all(&mut to, checks)?;
        let written = writer.join().expect("the writer does not panic");
        written.map_err(CompareError::io("writing to the relay"))?;
        if read < bytes {
            return Err(self.source.failed(format!("relayed {read} of {bytes} bytes")));
        }
        Ok(())
    }

    /// One measurement by name, the other process kept from running.
    fn measure(&self, name: &'static str, args: &DeliverArgs) -> Result<f64, CompareError> {
        let is_bare = name.starts_with("bare");
        let (running, stopped) = if is_bare { (&self.source, &self.broker) } else { (&self.broker, &self.source) };
        stopped.stop()?;
        running.go_on()?;
        let begin = Instant::now();
        let mut bytes = self.wire_bytes;
        match name {
            "bare_read" => self.bare(bytes, false)?,
            "bare_checked" => self.bare(bytes, true)?,
            "bare_relay" => self.bare_relay(bytes, false)?,
            "bare_relay_checked" => self.bare_relay(bytes, true)?,
            "read" => drop(self.only_read()?),
            "verified" => self.verified(Start::Earliest, self.messages)?,
            "relay" => {
                let next = self.subscriber(Start::Latest)?.next_order();
                return self.relay(args, next.0);
            }
            other => {
                let readers: u64 = other.rsplit('_').next().and_then(|last| last.parse().ok()).expect("named so");
                bytes *= readers;
                self.several(readers, is_bare)?;
            }
        }
        Ok(gb_per_s(bytes, begin))
    }

    fn several(&self, readers: u64, is_bare: bool) -> Result<(), CompareError> {
        thread::scope(|scope| {
            let one = |_| {
                scope.spawn(|| match is_bare {
                    true => self.bare(self.wire_bytes, true),
                    false => self.verified(Start::Earliest, self.messages),
                })
            };
            let all: Vec<_> = (0..readers).map(one).collect();
            all.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
        })
    }

    /// Publishes the same again while a subscriber follows; the first begins the time, the last message at the subscriber ends it.
    fn relay(&self, args: &DeliverArgs, next: u64) -> Result<f64, CompareError> {
        let begin = Instant::now();
        thread::scope(|scope| {
            let subscriber = scope.spawn(|| self.verified(Start::Order(Order(next)), self.messages));
            let published = self.publish(args);
            subscriber.join().expect("the subscriber does not panic")?;
            published.map(drop)
        })?;
        Ok(gb_per_s(self.wire_bytes, begin))
    }
}

fn connect(address: &str, words: &[u8]) -> Result<TcpStream, CompareError> {
    let io = || CompareError::io(format!("talking to {address}"));
    let mut stream = TcpStream::connect(address).map_err(io())?;
    stream.set_nodelay(true).map_err(io())?;
    stream.set_read_timeout(Some(RUN_MAX)).map_err(io())?;
    stream.set_write_timeout(Some(RUN_MAX)).map_err(io())?;
    stream.write_all(words).map_err(io())?;
    Ok(stream)
}

/// Reads to the end; gives how many bytes.
fn read_all(stream: &mut TcpStream, checks: bool) -> Result<u64, CompareError> {
    let (mut buffer, mut total) = (vec![0; BUFFER_BYTES], 0);
    loop {
        match stream.read(&mut buffer).map_err(CompareError::io("reading"))? {
            0 => return Ok(total),
            bytes => {
                total += bytes as u64;
                if checks {
                    std::hint::black_box(crc32c(&buffer[..bytes]));
                }
            }
        }
    }
}

/// What is measured, and the ratios, with what is aimed at.
fn plan(kind: Kind) -> (&'static [&'static str], &'static [(&'static str, &'static str, f64)]) {
    match kind {
        Kind::Deliver => (
            &["bare_read", "bare_checked", "read", "verified"],
            &[("verified", "bare_checked", 0.9), ("read", "bare_read", 0.9), ("verified", "bare_read", 0.0)],
        ),
        Kind::Fanout => (
            &["bare_1", "verified_1", "bare_4", "verified_4", "bare_16", "verified_16"],
            &[("verified_1", "bare_1", 0.0), ("verified_4", "bare_4", 0.0), ("verified_16", "bare_16", 0.0)],
        ),
        Kind::Relay => (
            &["bare_relay", "bare_relay_checked", "relay"],
            &[("relay", "bare_relay_checked", 0.8), ("relay", "bare_relay", 0.8)],
        ),
    }
}

/// Runs it and prints what it found.
pub fn run(kind: Kind, args: &DeliverArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut scene = Scene::new(args, &folder)?;
    scene.messages = scene.publish(args)?;
    scene.wire_bytes = scene.only_read()?;
    let (names, _) = plan(kind);
    let mut rounds: Vec<Figures> = Vec::new();
    for round in 0..=args.runs as usize {
        let mut figures = Figures::new();
        for turn in 0..names.len() {
            let name = names[(turn + round) % names.len()];
            figures.push((name, scene.measure(name, args)?));
        }
        let words: Vec<String> = figures.iter().map(|(name, figure)| format!("{name} {figure:.3}")).collect();
        eprintln!("round {round}: {}", words.join(", "));
        if round > 0 {
            rounds.push(figures);
        }
    }
    scene.broker.go_on()?;
    scene.source.go_on()?;
    let wire_bytes = scene.wire_bytes;
    drop(scene);
    report(kind, args, wire_bytes, &rounds)
}

fn report(kind: Kind, args: &DeliverArgs, wire_bytes: u64, rounds: &[Figures]) -> Result<(), CompareError> {
    let (names, ratios) = plan(kind);
    let of = |wanted: &str| -> Vec<f64> {
        let one = |figures: &Figures| figures.iter().find(|(name, _)| *name == wanted).expect("in every round").1;
        rounds.iter().map(one).collect()
    };
    println!(
        "{kind:?}: {wire_bytes} bytes a run, messages of {} bytes, batches of {}; GB/s over all readers, median [min..max]",
        args.message_bytes, args.batch_bytes
    );
    for name in names {
        println!("  {name:<22} {}", Spread::of(of(name)).words(3));
    }
    let mut all: Vec<(String, Value)> = Vec::new();
    for (above, below, aim) in ratios {
        let (name, ratio) = (format!("{above} / {below}"), Spread::of_ratios(&of(above), &of(below)));
        let aim = if *aim > 0.0 { format!("   (aim: at least {aim})") } else { String::new() };
        println!("  {name:<32} {}{aim}", ratio.words(2));
        all.push((name, ratio.json()));
    }
    let runs: serde_json::Map<_, _> = names.iter().map(|name| (name.to_string(), json!(of(name)))).collect();
    let ratios: serde_json::Map<_, _> = all.into_iter().collect();
    let text = json!({ "machine": machine(), "wire_bytes": wire_bytes, "gb_per_s": runs, "ratios": ratios });
    args.output.write(&text)?;
    Ok(())
}
