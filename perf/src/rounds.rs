//! Who is compared with whom, and the order in which they take their turns.
//!
//! Every round runs every case once, beginning with another one each time, so that what changes on the machine over time,
//! and what one run leaves behind for the next, falls on all. The first round is cold and is dropped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use embarcadero::wire::{AckLevel, OrderLevel};

use crate::args::{PoolBytes, RunArgs};
use crate::error::CompareError;
use crate::latency::{self, LatencyRun};
use crate::machine::{automatic_pool_bytes, cores};
use crate::publish::{self, Load, PublishRun};
use crate::report::Report;
use crate::sink::{ACK_TOPIC, FLUSH_TOPIC, RECEIVE_TOPIC};
use crate::subject::{Folder, Idle, Subject, topic};

/// What a case measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Publish to this topic of a sink.
    Sink(&'static str),
    /// Publish to brokers at this order level and ack level 1.
    Publish(OrderLevel),
    /// Publish to ack, one message in flight.
    Ack(Idle),
    /// The ping-pong.
    PingPong(Idle),
}

/// One thing that is measured in every round.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the JSON report and in ratios.
    pub key: &'static str,
    /// What each side does, printed with its figures.
    pub what: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// With one broker, or as many as `--brokers` says.
    pub single: bool,
}

/// Everything that is measured.
pub const CASES: [Case; 14] = [
    Case { key: "sink", what: "receiver only receives", kind: Kind::Sink(RECEIVE_TOPIC), single: false },
    Case { key: "sink_flush", what: "receives, clwb over all", kind: Kind::Sink(FLUSH_TOPIC), single: false },
    Case { key: "sink_ack", what: "receives, acks by headers", kind: Kind::Sink(ACK_TOPIC), single: false },
    Case { key: "order5", what: "brokers, order 5, ack 1", kind: Kind::Publish(OrderLevel::Session), single: false },
    Case { key: "order0", what: "brokers, order 0, ack 1", kind: Kind::Publish(OrderLevel::None), single: false },
    Case { key: "sink_1", what: "receiver only receives", kind: Kind::Sink(RECEIVE_TOPIC), single: true },
    Case { key: "sink_flush_1", what: "receives, clwb over all", kind: Kind::Sink(FLUSH_TOPIC), single: true },
    Case { key: "sink_ack_1", what: "receives, acks by headers", kind: Kind::Sink(ACK_TOPIC), single: true },
    Case {
        key: "order5_1",
        what: "one broker, order 5, ack 1",
        kind: Kind::Publish(OrderLevel::Session),
        single: true,
    },
    Case { key: "order0_1", what: "one broker, order 0, ack 1", kind: Kind::Publish(OrderLevel::None), single: true },
    Case { key: "pingpong_block", what: "TCP, both ends block", kind: Kind::PingPong(Idle::Park), single: true },
    Case { key: "ack_park", what: "brokers park, client blocks", kind: Kind::Ack(Idle::Park), single: false },
    Case { key: "pingpong_spin", what: "TCP, both ends spin", kind: Kind::PingPong(Idle::Spin), single: true },
    Case { key: "ack_spin", what: "brokers and client spin", kind: Kind::Ack(Idle::Spin), single: false },
];

/// A ratio that is reported.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The case above the line.
    pub above: &'static str,
    /// Its limit.
    pub below: &'static str,
    /// What issue 2 asks for.
    pub aim: Option<&'static str>,
}

const fn against(above: &'static str, below: &'static str, aim: Option<&'static str>) -> Comparison {
    Comparison { above, below, aim }
}

/// Every ratio that is reported: of throughputs more is better, of latencies less.
pub const COMPARISONS: [Comparison; 12] = [
    against("order5", "sink", Some("at least 0.7")),
    against("order0", "sink", None),
    against("order5", "sink_flush", None),
    against("order5", "sink_ack", None),
    against("order0", "sink_ack", None),
    against("order5_1", "sink_1", Some("at least 0.7")),
    against("order0_1", "sink_1", None),
    against("order5_1", "sink_flush_1", None),
    against("order5_1", "sink_ack_1", None),
    against("order0_1", "sink_ack_1", None),
    against("ack_park", "pingpong_block", Some("at most 2")),
    against("ack_spin", "pingpong_spin", Some("at most 2")),
];

/// One run of one case.
#[derive(Clone, Debug)]
pub enum Run {
    /// Of a throughput case.
    Publish(PublishRun),
    /// Of a latency case.
    Latency(LatencyRun),
}

impl Case {
    /// Whether it is about latency.
    pub fn is_latency(&self) -> bool {
        matches!(self.kind, Kind::Ack(_) | Kind::PingPong(_))
    }

    fn spins(&self) -> bool {
        matches!(self.kind, Kind::Ack(Idle::Spin) | Kind::PingPong(Idle::Spin))
    }
}

/// Runs the comparison and prints what it found.
pub fn run(args: &RunArgs) -> Result<(), CompareError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(CompareError::io("catching signals"))?;
    }
    let pool_bytes = match args.pool_bytes {
        PoolBytes(Some(bytes)) => bytes,
        PoolBytes(None) => automatic_pool_bytes(Path::new("/dev/shm")),
    };
    let cases = chosen(args)?;
    let mut report = Report::new(args, pool_bytes, &cases);
    report.print_head();
    let folder = Folder::create()?;
    let mut subjects = Subjects::start(args, &cases, pool_bytes, &folder)?;
    for round in 0..=args.runs as usize {
        for turn in 0..cases.len() {
            let case = &cases[(turn + round) % cases.len()];
            if interrupted.load(Ordering::Relaxed) {
                return Err(CompareError::Interrupted);
            }
            report.note(round, case, subjects.measure(case, args, &interrupted)?);
        }
    }
    drop(subjects);
    report.print();
    report.write_json()
}

/// The cases asked for, as far as this machine can run them.
fn chosen(args: &RunArgs) -> Result<Vec<Case>, CompareError> {
    let is_named = |case: &Case, name: &str| match name {
        "throughput" => !case.is_latency(),
        "latency" => case.is_latency(),
        key => case.key == key,
    };
    if let Some(unknown) = args.cases.iter().find(|name| !CASES.iter().any(|case| is_named(case, name))) {
        let known: Vec<&str> = CASES.iter().map(|case| case.key).collect();
        return Err(CompareError::Usage(format!(
            "--cases {unknown}: not one of throughput, latency, {}",
            known.join(", ")
        )));
    }
    let wanted = |case: &&Case| args.cases.is_empty() || args.cases.iter().any(|name| is_named(case, name));
    Ok(CASES.iter().filter(wanted).filter(|case| !case.spins() || cores() >= 2).copied().collect())
}

/// The processes, all stopped but the one whose turn it is.
struct Subjects {
    all: Vec<(SubjectKey, Subject)>,
}

/// Cases with the same key share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubjectKey {
    Sink { single: bool },
    Brokers { single: bool, idle: Idle },
    Echo(Idle),
}

impl SubjectKey {
    fn of(case: &Case) -> SubjectKey {
        let single = case.single;
        match case.kind {
            Kind::Sink(_) => SubjectKey::Sink { single },
            Kind::Publish(_) => SubjectKey::Brokers { single, idle: Idle::Park },
            Kind::Ack(idle) => SubjectKey::Brokers { single, idle },
            Kind::PingPong(idle) => SubjectKey::Echo(idle),
        }
    }

    fn start(self, args: &RunArgs, pool_bytes: u64, folder: &Folder) -> Result<Subject, CompareError> {
        let count = |single| if single { 1 } else { args.brokers };
        let word = |idle| if idle == Idle::Spin { "spin" } else { "park" };
        match self {
            SubjectKey::Sink { single } => {
                let count = count(single);
                Subject::sink(&format!("sink-{}-{count}", word(Idle::Park)), count, pool_bytes, args, folder)
            }
            SubjectKey::Brokers { single, idle } => {
                let (count, own) = (count(single), if single { "single" } else { "all" });
                Subject::brokers(&format!("embarlet-{}-{own}", word(idle)), count, idle, pool_bytes, args, folder)
            }
            SubjectKey::Echo(idle) => {
                Subject::echo(&format!("echo-{}", word(idle)), latency::ping_bytes(args), idle, folder)
            }
        }
    }
}

impl Subjects {
    fn start(args: &RunArgs, cases: &[Case], pool_bytes: u64, folder: &Folder) -> Result<Subjects, CompareError> {
        let mut all: Vec<(SubjectKey, Subject)> = Vec::new();
        for case in cases {
            let key = SubjectKey::of(case);
            if all.iter().any(|(known, _)| *known == key) {
                continue;
            }
            let subject = key.start(args, pool_bytes, folder)?;
            subject.stop()?;
            all.push((key, subject));
        }
        Ok(Subjects { all })
    }

    /// One run of one case.
    fn measure(&mut self, case: &Case, args: &RunArgs, interrupted: &AtomicBool) -> Result<Run, CompareError> {
        let key = SubjectKey::of(case);
        let (_, subject) = self.all.iter_mut().find(|(known, _)| *known == key).expect("every case has its subject");
        subject.go_on()?;
        let load = |topic, ack| Load { name: case.key, topic, ack, sink: false, args, interrupted };
        let run = match case.kind {
            Kind::Sink(topic) => {
                let ack = if topic == ACK_TOPIC { AckLevel::Committed } else { AckLevel::None };
                let load = Load { sink: true, ..load(topic, ack) };
                publish::run(&load, subject).map(Run::Publish)
            }
            Kind::Publish(order) => publish::run(&load(topic(order), AckLevel::Committed), subject).map(Run::Publish),
            Kind::Ack(idle) => latency::publish_to_ack(args, subject, idle, interrupted).map(Run::Latency),
            Kind::PingPong(idle) => latency::ping_pong(args, subject, idle, interrupted).map(Run::Latency),
        }?;
        subject.stop()?;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_is_of_two_cases_of_one_kind() {
        let case = |key| CASES.iter().find(|case| case.key == key).unwrap();
        for comparison in COMPARISONS {
            let (above, below) = (case(comparison.above), case(comparison.below));
            assert_eq!((above.is_latency(), above.spins()), (below.is_latency(), below.spins()));
        }
    }
}
