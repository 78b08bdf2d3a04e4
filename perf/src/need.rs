//! `compare need`: many lanes in need of memory at once, and hardly any stock to grant from.
//!
//! Attached publishers, each on a lane and a thread of its own, send as fast as they can into a pool that has one extent for each of them
//! and two more. Nothing is at hand for anybody before something that was written goes, so every lane asks all the time. Measured at each
//! publisher: the longest time in which its acks did not move, and what share it got. Beside it, in the same run, the same publishers on a
//! pool with memory for all: what is left of a wait there is the machine's, which has fewer cores than publishers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use embarcadero::config::Config;
use embarcadero::config::units::format_bytes;
use embarcadero::embarlet::geometry;
use embarcadero::pool::{Geometry, Layout};
use embarcadero::{PoolOptions, Publisher, PublisherOptions, TopicProperties};
use launch::place::Folder;
use serde_json::json;
use tools_common::figures::{Spread, in_turn};
use tools_common::report::machine;

use crate::args::NeedArgs;
use crate::cluster::WAIT_MAX;
use crate::error::CompareError;
use crate::session::Movement;
use crate::subject::{self, Subject};

const NAME: &str = "need";
const EXTENT_BYTES: u64 = 256 << 10;
/// A quarter of an extent, as the configuration demands.
const RECEIVE_BYTES: u64 = 64 << 10;
const BATCH_BYTES: u64 = 16 << 10;
const PAYLOAD_BYTES: usize = 1024;
/// Extents of the pool that has memory for all, for each lane.
const ROOMY: u32 = 16;
/// A member that says nothing for so long is taken to be gone: a lane that waits longer is starved.
const STARVED_MS: f64 = 2000.0;
/// Messages between looks at acks.
const MESSAGES_PER_STEP: u32 = 16;

fn client() -> impl FnOnce(embarcadero::ClientError) -> CompareError {
    CompareError::client(NAME)
}

/// What the lanes of one run got.
struct Run {
    /// The longest time that any lane's acks stood still, ms.
    longest_ms: f64,
    /// The middle one of the lanes' longest times, ms.
    middle_ms: f64,
    /// What the slowest lane got, of what each would have had in equal shares.
    least: f64,
    /// All lanes together, MB/s.
    rate: f64,
}

impl Run {
    fn of(lanes: &[Movement], begin: Instant, end: Instant) -> Run {
        let waits = Spread::of(lanes.iter().map(|lane| lane.longest_standstill(begin, end)));
        let got = lanes.iter().map(|lane| lane.between(begin, end) as f64);
        let (all, least) = (got.clone().sum::<f64>(), got.fold(f64::INFINITY, f64::min));
        Run {
            longest_ms: waits.max,
            middle_ms: waits.median,
            least: least * lanes.len() as f64 / all.max(1.0),
            rate: all * PAYLOAD_BYTES as f64 / (end - begin).as_secs_f64() / 1e6,
        }
    }
}

/// One broker with places for the lanes, on pools of one length each.
struct Scene<'a> {
    args: &'a NeedArgs,
    folder: &'a Folder,
    started: u32,
}

impl Scene<'_> {
    fn configuration(&self, pool: &Path, pool_bytes: u64, addresses: &[SocketAddr]) -> String {
        subject::configuration_of(pool, &format!("bytes: {}, coherence: software", format_bytes(pool_bytes)))
            .section(
                "geometry",
                &format!("extent_bytes: {}, attached_per_broker: {}", format_bytes(EXTENT_BYTES), self.args.lanes),
            )
            .section("receive", &format!("receive_bytes_max: {}", format_bytes(RECEIVE_BYTES)))
            .brokers(addresses)
            .text()
    }

    /// A broker on a new pool of this length. It listens.
    fn broker(&mut self, pool_bytes: u64) -> Result<(Subject, PathBuf), CompareError> {
        self.started += 1;
        let name = format!("embarlet-need-{}", self.started);
        let [config, pool] = ["yaml", "pool"].map(|end| self.folder.path().join(format!("{name}.{end}")));
        let addresses = subject::free_addresses(1)?;
        let text = self.configuration(&pool, pool_bytes, &addresses);
        fs::write(&config, text).map_err(CompareError::io(format!("writing {}", config.display())))?;
        let mut broker = Subject::configured(&name, &config, addresses, self.folder)?;
        broker.wait_until_it_listens()?;
        Ok((broker, pool))
    }

    /// The length of a pool that has so many extents.
    fn pool_bytes(&self, extents: u32) -> Result<u64, CompareError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        let text = self.configuration(Path::new("/dev/shm/any"), 64 << 20, &[any]);
        let config = Config::parse(&text, NAME).map_err(|error| CompareError::Usage(error.to_string()))?;
        length(geometry(&config, 0), extents)
    }

    /// All lanes at once, as fast as they can.
    fn run(&mut self, pool_bytes: u64) -> Result<Run, CompareError> {
        let (broker, pool) = self.broker(pool_bytes)?;
        let publishers: Vec<Publisher> = (0..self.args.lanes).map(|_| publisher(&pool)).collect::<Result<_, _>>()?;
        let lanes: Vec<Movement> = publishers.iter().map(|_| Movement::default()).collect();
        let stop = AtomicBool::new(false);
        let run = scope(|scope| {
            let threads: Vec<_> = publishers
                .into_iter()
                .zip(&lanes)
                .map(|(publisher, acked)| {
                    let stop = &stop;
                    scope.spawn(move || publish(publisher, acked, stop))
                })
                .collect();
            // What founds the lanes is used up first.
            std::thread::sleep(Duration::from_millis(self.args.measure_ms / 4));
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(self.args.measure_ms));
            let run = Run::of(&lanes, begin, Instant::now());
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))?;
            Ok(run)
        });
        drop(broker);
        remove(&pool)?;
        run
    }
}

/// The length of a pool of this geometry that has so many extents.
fn length(geometry: Geometry, extents: u32) -> Result<u64, CompareError> {
    let with = |pool_bytes| Layout::new(Geometry { pool_bytes, extents: 0, ..geometry }).ok();
    let lengths = (u64::from(extents)..).map(|extents| extents * EXTENT_BYTES).take(1 << 14);
    let mut found = lengths.filter(|bytes| with(*bytes).is_some_and(|layout| layout.geometry.extents >= extents));
    found
        .next()
        .ok_or_else(|| CompareError::Usage(format!("{NAME}: no pool has {extents} extents of {EXTENT_BYTES} bytes")))
}

/// Pools are memory: many of them one after the other would not fit.
fn remove(pool: &Path) -> Result<(), CompareError> {
    fs::remove_file(pool).map_err(CompareError::io(format!("removing {}", pool.display())))
}

fn publisher(pool: &Path) -> Result<Publisher, CompareError> {
    Publisher::attach(PublisherOptions {
        pool: PoolOptions { path: pool.to_owned(), wait: WAIT_MAX, ..PoolOptions::default() },
        topic: NAME.to_owned(),
        create: Some(TopicProperties::default()),
        batch_bytes: BATCH_BYTES,
        ..PublisherOptions::default()
    })
    .map_err(client())
}

/// Sends until told to stop; then waits for every ack.
fn publish(mut publisher: Publisher, acked: &Movement, stop: &AtomicBool) -> Result<(), CompareError> {
    let message = [7; PAYLOAD_BYTES];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..MESSAGES_PER_STEP {
            if !publisher.try_send(&message).map_err(client())? {
                break;
            }
        }
        publisher.poll(Duration::from_millis(1)).map_err(client())?;
        acked.note(publisher.messages_acked());
    }
    publisher.close(WAIT_MAX).map_err(client())
}

/// Runs it and prints what it found.
pub fn run(args: &NeedArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    let mut scene = Scene { args, folder: &folder, started: 0 };
    let [tight, roomy] = [args.lanes + args.stock, args.lanes * ROOMY].map(|extents| scene.pool_bytes(extents));
    let (tight, roomy) = (tight?, roomy?);
    let (mut in_need, mut at_ease) = (Vec::new(), Vec::new());
    for round in 0..=args.runs {
        let (one, other) = in_turn(round, |is_tight| scene.run(if is_tight { tight } else { roomy }))?;
        eprintln!(
            "round {round}: longest wait {:.1} ms in need, {:.1} ms with memory for all; {:.0} and {:.0} MB/s",
            one.longest_ms, other.longest_ms, one.rate, other.rate
        );
        if round > 0 {
            in_need.push(one);
            at_ease.push(other);
        }
    }
    report(args, &in_need, &at_ease)
}

/// A figure of a run: its name, what it is, and the decimals that are printed.
type Figure = (&'static str, fn(&Run) -> f64, usize);

const FIGURES: [Figure; 4] = [
    ("longest wait of any lane, ms", |run| run.longest_ms, 1),
    ("longest wait, the middle lane, ms", |run| run.middle_ms, 1),
    ("the slowest lane, of an equal share", |run| run.least, 2),
    ("all lanes, MB/s", |run| run.rate, 0),
];

fn report(args: &NeedArgs, in_need: &[Run], at_ease: &[Run]) -> Result<(), CompareError> {
    let each = |runs: &[Run], figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<f64>>();
    println!(
        "{} attached publishers, as fast as they can; {} extents for all, and with memory for all {}",
        args.lanes,
        args.lanes + args.stock,
        args.lanes * ROOMY
    );
    let mut all = serde_json::Map::new();
    for (name, figure, decimals) in FIGURES {
        let [need, ease] = [in_need, at_ease].map(|runs| each(runs, figure));
        let ratio = Spread::of_ratios(&need, &ease);
        let [need, ease] = [need, ease].map(Spread::of);
        let (need_words, ease_words) = (need.words(decimals), ease.words(decimals));
        println!("  {name:<36} {need_words}, with memory for all {ease_words}; need / ease {}", ratio.words(2));
        all.insert(name.into(), json!({ "need": need.json(), "ease": ease.json(), "ratio": ratio.json() }));
    }
    let all = json!({ "machine": machine(), "lanes": args.lanes, "stock": args.stock, "figures": all });
    args.output.write(&all)?;
    let longest = in_need.iter().map(|run| run.longest_ms).fold(0.0, f64::max);
    if longest >= STARVED_MS && !args.output.tiny {
        let what = format!("a lane waited for {longest:.0} ms, at most {STARVED_MS} ms are aimed at");
        return Err(CompareError::Missed { name: NAME.to_owned(), what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_lane_and_the_longest_wait_are_told() {
        let begin = Instant::now();
        let lanes = [Movement::default(), Movement::default()];
        std::thread::sleep(Duration::from_millis(3));
        lanes[0].note(30);
        lanes[1].note(10);
        std::thread::sleep(Duration::from_millis(20));
        let run = Run::of(&lanes, begin, Instant::now());
        assert!(run.longest_ms >= 20.0 && run.middle_ms >= 20.0, "{} {}", run.longest_ms, run.middle_ms);
        assert_eq!(run.least, 0.5, "10 of 40, where 20 were its share");
    }
}
