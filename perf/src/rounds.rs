//! The order in which cases take their turns, and the processes that are measured.
//!
//! Every round runs every case once, beginning with another one each time, so that what changes on the machine over time,
//! and what one run leaves behind for the next, falls on all. The first round is cold and is dropped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use embarcadero::wire::AckLevel;
use launch::place::Folder;
use tools_common::interrupt::{self, Second};
use tools_common::report::cores;

use crate::args::{PoolBytes, RunArgs};
use crate::cases::{CASES, Case, Kind, Run};
use crate::error::CompareError;
use crate::latency;
use crate::machine::automatic_pool_bytes;
use crate::publish::{self, Load};
use crate::report::Report;
use crate::sink::ACK_TOPIC;
use crate::subject::{self, Idle, Subject, topic};

/// Runs the comparison and prints what it found.
pub fn run(args: &RunArgs) -> Result<(), CompareError> {
    let interrupted = interrupt::flag(Second::IsIgnored).map_err(CompareError::io("catching signals"))?;
    let pool_bytes = match args.pool_bytes {
        PoolBytes(Some(bytes)) => bytes,
        PoolBytes(None) => automatic_pool_bytes(Path::new("/dev/shm")),
    };
    let cases = chosen(args)?;
    let mut report = Report::new(args, pool_bytes, &cases);
    report.print_head();
    let folder = subject::folder()?;
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
    args.output.write(&report.json())
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
            Kind::Ack(idle) | Kind::Deliver(idle) => SubjectKey::Brokers { single, idle },
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
            Kind::Deliver(idle) => latency::publish_to_deliver(args, subject, idle, interrupted).map(Run::Latency),
            Kind::PingPong(idle) => latency::ping_pong(args, subject, idle, interrupted).map(Run::Latency),
        }?;
        subject.stop()?;
        Ok(run)
    }
}
