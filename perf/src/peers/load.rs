//! What is measured of every peer.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tools_common::clock::monotonic_ns;
use tools_common::figures::Latencies;
use tools_common::schedule::{Arrival, Schedule};

use crate::error::CompareError;
use crate::peers::conversation::COARSE;
use crate::peers::peer::{Consumer, Peer, Producer};

/// Payload of a message, bytes, where nothing else is said.
const MESSAGE_BYTES: usize = 1024;
/// Messages a second of the trickle: 1 MB/s.
const TRICKLE_PER_S: f64 = 1e6 / MESSAGE_BYTES as f64;
/// Messages that end a look at the acks.
const MESSAGES_PER_LOOK: u64 = 256;
/// Without an ack or a delivery for so long a run is broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A server may take a while to rest.
const SETTLE: Duration = Duration::from_millis(1500);

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More of it.
    More,
    /// Less of it.
    Less,
}

/// A figure that a load gives.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in the report, with its unit.
    pub name: &'static str,
    /// Which way it is better.
    pub better: Better,
    /// What our default, and what our ratio to Redis is to reach.
    pub aim: Aim,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Nothing in particular.
    None,
    /// So much, by our brokers on the default configuration.
    Value(f64),
    /// So much as a ratio of that to Redis.
    OfRedis(f64),
}

const fn figure(name: &'static str, better: Better, aim: Aim) -> Figure {
    Figure { name, better, aim }
}

/// One thing that is done to a peer.
pub struct Load {
    what: What,
    /// What it gives, in this order.
    pub figures: &'static [Figure],
}

#[derive(Clone, Copy)]
enum What {
    Single { producers: usize },
    Flood { message_bytes: usize },
    Trickle,
    Idle,
}

const fn load(what: What, figures: &'static [Figure]) -> Load {
    Load { what, figures }
}

/// Everything.
pub const LOADS: [Load; 7] = [
    load(
        What::Single { producers: 1 },
        &[
            figure("one in flight, ack p50, us", Better::Less, Aim::OfRedis(0.7)),
            figure("one in flight, ack p99, us", Better::Less, Aim::None),
        ],
    ),
    load(
        What::Single { producers: 8 },
        &[figure("8 producers of one in flight, messages/s", Better::More, Aim::OfRedis(1.5))],
    ),
    load(
        What::Single { producers: 32 },
        &[figure("32 producers of one in flight, messages/s", Better::More, Aim::OfRedis(1.5))],
    ),
    load(
        What::Trickle,
        &[
            figure("1 MB/s, poisson, deliver p50, us", Better::Less, Aim::Value(100.0)),
            figure("1 MB/s, poisson, deliver p99, us", Better::Less, Aim::Value(500.0)),
        ],
    ),
    load(
        What::Flood { message_bytes: MESSAGE_BYTES },
        &[figure("2 producers, 1 KiB, messages/s", Better::More, Aim::None)],
    ),
    load(What::Flood { message_bytes: 64 }, &[figure("2 producers, 64 B, messages/s", Better::More, Aim::None)]),
    load(What::Idle, &[figure("idle, ms of processor a second", Better::Less, Aim::Value(5.0))]),
];

impl Load {
    /// Does it for this long, and gives what [`Load::figures`] names.
    pub fn run(&self, peer: &dyn Peer, time: Duration) -> Result<Vec<f64>, CompareError> {
        match self.what {
            What::Single { producers } => single(peer, producers, time),
            What::Flood { message_bytes } => flood(peer, message_bytes, time),
            What::Trickle => trickle(peer, time),
            What::Idle => idle(peer, time),
        }
    }
}

/// Runs one of these on each of so many threads, at once; gives what they give.
fn side_by_side<T: Send>(
    producers: Vec<Box<dyn Producer>>,
    each: impl Fn(Box<dyn Producer>) -> Result<T, CompareError> + Sync,
) -> Result<Vec<T>, CompareError> {
    let start = Barrier::new(producers.len());
    thread::scope(|scope| {
        let one = |producer| {
            scope.spawn(|| {
                start.wait();
                each(producer)
            })
        };
        let threads: Vec<_> = producers.into_iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("its panic is printed")).collect()
    })
}

fn producers(peer: &dyn Peer, count: usize, is_single: bool) -> Result<Vec<Box<dyn Producer>>, CompareError> {
    (0..count).map(|_| peer.producer(is_single)).collect()
}

/// Producers with one message in flight each: of one the latency, of several messages a second.
fn single(peer: &dyn Peer, count: usize, time: Duration) -> Result<Vec<f64>, CompareError> {
    let until = Instant::now() + time;
    let began = Instant::now();
    let ended = side_by_side(producers(peer, count, true)?, |mut producer| {
        let (payload, mut latencies) = ([7; MESSAGE_BYTES], Latencies::default());
        while Instant::now() < until {
            let (begin, acked) = (Instant::now(), producer.acked());
            producer.send(&payload)?;
            producer.hand_over()?;
            while producer.acked() == acked {
                producer.hear(COARSE)?;
                patient(begin)?;
            }
            latencies.record(begin.elapsed().as_nanos() as u64);
        }
        Ok(latencies)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let mut all = Latencies::default();
    ended.iter().for_each(|of| all.add(of));
    Ok(match count {
        1 => vec![all.percentile_us(50.0), all.percentile_us(99.0)],
        _ => vec![all.count() as f64 / seconds],
    })
}

/// An error if nothing has come since then for too long.
fn patient(since: Instant) -> Result<(), CompareError> {
    if since.elapsed() <= SILENCE_MAX {
        return Ok(());
    }
    Err(CompareError::Unsound { name: "peers".into(), what: format!("nothing came for {SILENCE_MAX:?}") })
}

/// Two producers as fast as a window allows, up to the last ack.
fn flood(peer: &dyn Peer, message_bytes: usize, time: Duration) -> Result<Vec<f64>, CompareError> {
    let began = Instant::now();
    let acked = side_by_side(producers(peer, 2, false)?, |mut producer| {
        let (payload, begin, mut sent) = (vec![7; message_bytes], Instant::now(), 0);
        while begin.elapsed() < time {
            for _ in 0..MESSAGES_PER_LOOK {
                producer.send(&payload)?;
            }
            sent += MESSAGES_PER_LOOK;
            producer.hear(Duration::ZERO)?;
            let room = sent.saturating_sub(producer.window());
            catch_up(producer.as_mut(), room)?;
        }
        catch_up(producer.as_mut(), sent)?;
        Ok(producer.acked())
    })?;
    Ok(vec![acked.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64()])
}

/// Waits until so many are acked.
fn catch_up(producer: &mut dyn Producer, count: u64) -> Result<(), CompareError> {
    let mut since = (producer.acked(), Instant::now());
    while producer.acked() < count {
        producer.hand_over()?;
        producer.hear(COARSE)?;
        if producer.acked() > since.0 {
            since = (producer.acked(), Instant::now());
        }
        patient(since.1)?;
    }
    Ok(())
}

/// A message now and then, with the default linger: from when each was planned until a consumer has it.
fn trickle(peer: &dyn Peer, time: Duration) -> Result<Vec<f64>, CompareError> {
    let (consumer, producer) = (peer.consumer()?, peer.producer(false)?);
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let latencies = thread::scope(|scope| {
        let taking = scope.spawn(|| take(consumer, &sent, &is_over));
        let drip = drip(producer, time, &sent);
        is_over.store(true, Ordering::Release);
        let taken = taking.join().expect("its panic is printed");
        drip.and(taken)
    })?;
    Ok(vec![latencies.percentile_us(50.0), latencies.percentile_us(99.0)])
}

fn drip(mut producer: Box<dyn Producer>, time: Duration, sent: &AtomicU64) -> Result<(), CompareError> {
    let start = monotonic_ns();
    let mut payload = [7; MESSAGE_BYTES];
    for due in Schedule::new(Arrival::Poisson, TRICKLE_PER_S, 1, 0, 1).take_while(|due| *due < time.as_nanos() as u64) {
        let planned = start + due;
        while let Some(early) = planned.checked_sub(monotonic_ns()).filter(|early| *early > 0) {
            producer.hear(Duration::from_nanos(early))?;
        }
        payload[..8].copy_from_slice(&planned.to_le_bytes());
        producer.send(&payload)?;
        producer.hand_over()?;
        sent.fetch_add(1, Ordering::Release);
    }
    catch_up(producer.as_mut(), sent.load(Ordering::Relaxed))
}

fn take(mut consumer: Box<dyn Consumer>, sent: &AtomicU64, is_over: &AtomicBool) -> Result<Latencies, CompareError> {
    let (mut latencies, mut last) = (Latencies::default(), Instant::now());
    while !is_over.load(Ordering::Acquire) || latencies.count() < sent.load(Ordering::Acquire) {
        let before = latencies.count();
        consumer.take(COARSE, &mut |payload| {
            let planned = u64::from_le_bytes(*payload.first_chunk().expect("it is as long as it was sent"));
            latencies.record(monotonic_ns().saturating_sub(planned));
        })?;
        if latencies.count() > before {
            last = Instant::now();
        }
        patient(last)?;
    }
    Ok(latencies)
}

/// Processor time of a server that nobody talks to.
fn idle(peer: &dyn Peer, time: Duration) -> Result<Vec<f64>, CompareError> {
    thread::sleep(SETTLE.min(time * 10));
    let (before, begin) = (processor_ns(peer.subject().process()), Instant::now());
    thread::sleep(time);
    let used = processor_ns(peer.subject().process()).saturating_sub(before);
    Ok(vec![used as f64 / 1e6 / begin.elapsed().as_secs_f64()])
}

/// Of all of a process's threads, ns: the first field of proc_pid_schedstat, which is finer than ticks.
fn processor_ns(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of).sum()
}
