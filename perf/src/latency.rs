//! One latency run: one message of one batch in flight, timed from before it is handed to the client until its ack was read, or until
//! it was delivered; or the ping-pong of the same sizes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use embarcadero::limits::FRAME_HEADER_BYTES;
use embarcadero::wire::message::message_bytes;
use embarcadero::wire::{OrderLevel, padded};
use embarcadero::{Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions};
use serde_json::{Value, json};
use tools_common::figures::Latencies;

use crate::args::RunArgs;
use crate::echo::{End, PONG_BYTES};
use crate::error::CompareError;
use crate::machine::{Processors, Usage};
use crate::subject::{Idle, Subject, topic};

/// One in so many exchanges is made before, and not counted.
const WARM_UP_PART: u64 = 10;
/// Longest wait for one ack.
const ACK_MAX: Duration = Duration::from_secs(30);
/// Longest single wait in the client.
const POLL: Duration = Duration::from_millis(20);

/// What one run gave.
#[derive(Clone, Debug)]
pub struct LatencyRun {
    latencies: Latencies,
    /// Who used the processors.
    pub usage: Usage,
}

impl LatencyRun {
    /// Half of the exchanges took no longer, µs.
    pub fn p50_us(&self) -> f64 {
        self.latencies.percentile_us(50.0)
    }

    /// 99 of 100 took no longer, µs.
    pub fn p99_us(&self) -> f64 {
        self.latencies.percentile_us(99.0)
    }

    /// Every figure.
    pub fn json(&self) -> Value {
        json!({
            "exchanges": self.latencies.count(),
            "p50_us": self.p50_us(),
            "p90_us": self.latencies.percentile_us(90.0),
            "p99_us": self.p99_us(),
            "p99.9_us": self.latencies.percentile_us(99.9),
            "max_us": self.latencies.max_us(),
            "client_cpu_s": self.usage.client_s,
            "receiver_cpu_s": self.usage.receiver_s,
            "others_cpu_part": self.usage.others,
        })
    }
}

/// Bytes a batch of one message takes on the wire: what a ping is.
pub fn ping_bytes(args: &RunArgs) -> usize {
    FRAME_HEADER_BYTES + padded(message_bytes(args.message_bytes)) as usize
}

/// Publish to ack, at order level 5. With [`Idle::Spin`] this side never sleeps either.
pub fn publish_to_ack(
    args: &RunArgs,
    subject: &Subject,
    idle: Idle,
    interrupted: &AtomicBool,
) -> Result<LatencyRun, CompareError> {
    let mut publisher = publisher(subject)?;
    let payload = vec![7; args.message_bytes as usize];
    let step = if idle == Idle::Spin { Duration::ZERO } else { POLL };
    let run = measure(args, subject, interrupted, || {
        let begin = Instant::now();
        let sent = send_one(&mut publisher, &payload, subject.name())?;
        acked(&mut publisher, sent, step, subject.name(), |what| subject.failed(what))?;
        Ok(begin.elapsed())
    })?;
    publisher.close(ACK_MAX).map_err(CompareError::client(subject.name()))?;
    Ok(run)
}

/// One that has one message in flight, at order level 5.
fn publisher(subject: &Subject) -> Result<Publisher, CompareError> {
    let options = PublisherOptions {
        brokers: subject.seeds(),
        topic: topic(OrderLevel::Session).to_owned(),
        batch_messages: 1,
        window_batches: 1,
        linger: Duration::ZERO,
        ..PublisherOptions::default()
    };
    Publisher::connect(options).map_err(CompareError::client(subject.name()))
}

/// Hands one message over as a batch of its own; gives how many were sent before it.
fn send_one(publisher: &mut Publisher, payload: &[u8], name: &str) -> Result<u64, CompareError> {
    let sent = publisher.messages_sent();
    publisher.send(payload).map_err(CompareError::client(name))?;
    publisher.seal();
    Ok(sent)
}

/// Waits for the ack of a message that so many were sent before.
fn acked(
    publisher: &mut Publisher,
    sent: u64,
    step: Duration,
    name: &str,
    failed: impl FnOnce(String) -> CompareError,
) -> Result<(), CompareError> {
    let begin = Instant::now();
    while publisher.messages_acked() <= sent {
        publisher.poll(step).map_err(CompareError::client(name))?;
        if begin.elapsed() > ACK_MAX {
            return Err(failed(format!("gave no ack for {ACK_MAX:?}")));
        }
    }
    Ok(())
}

/// Publish to deliver, by one thread that does both, at order level 5. The ack is waited for as well, and not timed.
pub fn publish_to_deliver(
    args: &RunArgs,
    subject: &Subject,
    idle: Idle,
    interrupted: &AtomicBool,
) -> Result<LatencyRun, CompareError> {
    let client = || CompareError::client(subject.name());
    let options = SubscriberOptions {
        brokers: subject.seeds(),
        topic: topic(OrderLevel::Session).to_owned(),
        start: Start::Latest,
        ..SubscriberOptions::default()
    };
    let mut subscriber = Subscriber::connect(options).map_err(client())?;
    let mut publisher = publisher(subject)?;
    let payload = vec![7; args.message_bytes as usize];
    let step = if idle == Idle::Spin { Duration::ZERO } else { POLL };
    let run = measure(args, subject, interrupted, || {
        let begin = Instant::now();
        let sent = send_one(&mut publisher, &payload, subject.name())?;
        publisher.poll(Duration::ZERO).map_err(client())?;
        while subscriber.poll(step, |_| ()).map_err(client())? == 0 {
            if begin.elapsed() > ACK_MAX {
                return Err(subject.failed(format!("delivered nothing for {ACK_MAX:?}")));
            }
        }
        let taken = begin.elapsed();
        acked(&mut publisher, sent, step, subject.name(), |what| subject.failed(what))?;
        Ok(taken)
    })?;
    publisher.close(ACK_MAX).map_err(client())?;
    Ok(run)
}

/// Publishes one message of this many bytes at a time, each timed from before it is handed over until its ack was read, ns.
pub fn one_at_a_time(publisher: &mut Publisher, message_bytes: u64, time: Duration) -> Result<Latencies, CompareError> {
    const NAME: &str = "one message at a time";
    let payload = vec![7; message_bytes as usize];
    let mut latencies = Latencies::default();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let begin = Instant::now();
        let sent = send_one(publisher, &payload, NAME)?;
        acked(publisher, sent, POLL, NAME, |what| CompareError::Unsound { name: NAME.into(), what })?;
        latencies.record(begin.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

/// The ping-pong, both ends alike.
pub fn ping_pong(
    args: &RunArgs,
    subject: &Subject,
    idle: Idle,
    interrupted: &AtomicBool,
) -> Result<LatencyRun, CompareError> {
    let io = || CompareError::io(subject.name());
    let mut end = End::connect(subject.addresses[0], idle == Idle::Spin).map_err(io())?;
    let (ping, mut pong) = (vec![7; ping_bytes(args)], [0; PONG_BYTES]);
    measure(args, subject, interrupted, || {
        let begin = Instant::now();
        end.write(&ping).map_err(io())?;
        end.read(&mut pong).map_err(io())?;
        Ok(begin.elapsed())
    })
}

/// So many exchanges, each of which says how long it took, after some that are not counted.
fn measure(
    args: &RunArgs,
    subject: &Subject,
    interrupted: &AtomicBool,
    mut exchange: impl FnMut() -> Result<Duration, CompareError>,
) -> Result<LatencyRun, CompareError> {
    let mut latencies = Latencies::default();
    for _ in 0..args.latency_messages / WARM_UP_PART {
        exchange()?;
    }
    let before = Processors::now(subject.process());
    for _ in 0..args.latency_messages {
        latencies.record(exchange()?.as_nanos() as u64);
        if interrupted.load(Ordering::Relaxed) {
            return Err(CompareError::Interrupted);
        }
    }
    Ok(LatencyRun { latencies, usage: Processors::now(subject.process()).since(&before) })
}
