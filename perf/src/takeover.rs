//! `compare takeover`: how long a pool is without a sequencer.
//!
//! All candidates are started at once on a new pool, each a process of its own; when one is active it is killed (SIGKILL).
//! Measured in the pool's epoch lines: from the start of the first process, and from the kill, until a new epoch is active; and
//! how many claims were made on the way, since candidates that claim against each other make more than one. What became
//! active must be so still when another settling time has passed. Once with all candidates on one host, where the kernel tells
//! of a death; and once on two in turn, of which the active one's is killed as a whole: silence tells the other.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::log::View;
use embarcadero::log::commit::{Commit, CommitReader};
use embarcadero::pool::{Mapped, Pool, Software};
use launch::place::Folder;
use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::args::TakeoverArgs;
use crate::cluster::{Cluster, Shape, WAIT_MAX};
use crate::error::CompareError;
use crate::subject;

/// Between two looks at the epoch lines.
const LOOK: Duration = Duration::from_micros(500);
/// A pool that candidates claim and nobody fills.
const POOL_BYTES: u64 = 64 << 20;
const GEOMETRY: &str = ", extent_bytes: 1MiB, segments: 4, segment_entries: 1024, ring_slots: 256";
/// What a takeover may take beside the time to settle, and what it may take more between hosts: `sequencer.takeover_after`.
const AIM_MS: f64 = 200.0;
const AFTER_MS: f64 = 500.0;
/// Words of a candidate's log.
const CLAIMED: &str = ": claimed epoch ";

/// One kill.
struct Kill {
    /// From the start of the first process until one is active, ms.
    started_ms: f64,
    /// From the kill until another is active, ms.
    taken_over_ms: f64,
    claims_at_start: usize,
    claims: usize,
    /// Epochs that were active and then were not, while nobody was killed.
    lost_again: usize,
}

/// One kind of pool.
struct Case {
    shape: Shape,
    kills: Vec<Kill>,
}

impl Case {
    fn name(&self) -> String {
        let place = if self.shape.hosts == 1 { "one host" } else { "two hosts" };
        format!("{place}, {} candidates, settle {} ms", self.shape.brokers, self.shape.settle.as_millis())
    }

    fn aim_ms(&self) -> f64 {
        let after = if self.shape.hosts == 1 { 0.0 } else { AFTER_MS };
        self.shape.settle.as_secs_f64() * 1e3 + AIM_MS + after
    }

    fn spread(&self, of: fn(&Kill) -> f64) -> Spread {
        Spread::of(self.kills.iter().map(of))
    }

    fn kept_the_aim(&self) -> bool {
        self.spread(|kill| kill.taken_over_ms).max <= self.aim_ms()
            && self.kills.iter().all(|kill| kill.lost_again == 0)
    }
}

/// Runs it and prints what it found.
pub fn run(args: &TakeoverArgs) -> Result<(), CompareError> {
    let folder = subject::folder()?;
    println!(
        "candidates, each a process, started at once; the active one is killed, {} times each; {}",
        args.repeats,
        machine()
    );
    let mut cases = Vec::new();
    for hosts in [1, 2] {
        for settle in &args.settle_ms {
            for candidates in &args.candidates {
                let settle = Duration::from_millis(*settle);
                let shape = Shape { brokers: *candidates, hosts, pool_bytes: POOL_BYTES, settle, geometry: GEOMETRY };
                let kills = (0..args.repeats).map(|turn| one_kill(&shape, turn, &folder)).collect::<Result<_, _>>()?;
                let case = Case { shape, kills };
                println!("{}", words(&case));
                cases.push(case);
            }
        }
    }
    report(args, &cases)
}

fn one_kill(shape: &Shape, turn: u32, folder: &Folder) -> Result<Kill, CompareError> {
    let name = format!("takeover-{}-{}-{}-{turn}", shape.hosts, shape.brokers, shape.settle.as_millis());
    let mut cluster = Cluster::planned(&name, shape, folder)?;
    let begin = cluster.start_all()?;
    let watch = Watch::open(&cluster)?;
    let first = watch.active_above(0, shape).map_err(|what| unsound(&name, what))?;
    let started_ms = (first.0 - begin).as_secs_f64() * 1e3;
    let at_start = watch.stays(first.1, shape);
    let claims_at_start = cluster.lines_with(CLAIMED);
    let now = watch.commit.current().unwrap_or(first.1);
    let killed_at = kill_home(&mut cluster, shape, now.candidate)?;
    let next = watch.active_above(now.epoch, shape).map_err(|what| unsound(&name, what))?;
    let after = watch.stays(next.1, shape);
    let claims = cluster.lines_with(CLAIMED) - claims_at_start;
    // Nothing is to be drained.
    (0..cluster.len()).try_for_each(|broker| cluster.kill(broker).map(|_| ()))?;
    let taken_over_ms = (next.0 - killed_at).as_secs_f64() * 1e3;
    Ok(Kill { started_ms, taken_over_ms, claims_at_start, claims, lost_again: at_start + after })
}

/// The active candidate's process; between two hosts with all that are on its own, which would hear of its death at once.
fn kill_home(cluster: &mut Cluster<'_>, shape: &Shape, active: u32) -> Result<Instant, CompareError> {
    let killed_at = cluster.kill(active as usize)?;
    let is_beside = |other: &u32| *other != active && shape.hosts > 1 && shape.host(*other) == shape.host(active);
    for other in (0..shape.brokers).filter(is_beside) {
        cluster.kill(other as usize)?;
    }
    Ok(killed_at)
}

fn unsound(name: &str, what: String) -> CompareError {
    CompareError::Unsound { name: name.to_owned(), what }
}

/// Looks at a pool's epoch lines.
struct Watch {
    commit: CommitReader<Mapped<Software>>,
}

impl Watch {
    fn open(cluster: &Cluster<'_>) -> Result<Watch, CompareError> {
        let pool = Pool::look(&cluster.pool).map_err(|error| CompareError::Usage(error.to_string()))?;
        let memory = Mapped::<Software>::new(Arc::clone(pool.mapping()));
        Ok(Watch { commit: CommitReader::new(&View::single_host(memory, Arc::clone(pool.layout()))) })
    }

    /// Waits until an epoch above this one is active; gives when that was seen.
    fn active_above(&self, epoch: u64, shape: &Shape) -> Result<(Instant, Commit), String> {
        let patience = WAIT_MAX + 2 * shape.settle;
        let begin = Instant::now();
        loop {
            match self.commit.current() {
                Some(commit) if commit.epoch > epoch => return Ok((Instant::now(), commit)),
                _ if begin.elapsed() > patience => {
                    let claimed = self.commit.highest_claimed();
                    return Err(format!("no epoch above {epoch} was active within {patience:?}; {claimed} is claimed"));
                }
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Watches for as long as a claim takes that was made just before; gives how many other epochs became active meanwhile.
    fn stays(&self, commit: Commit, shape: &Shape) -> usize {
        let until = Instant::now() + shape.settle + Duration::from_millis(AIM_MS as u64);
        let (mut epoch, mut changes) = (commit.epoch, 0);
        while Instant::now() < until {
            thread::sleep(LOOK);
            let now = self.commit.current().map_or(0, |commit| commit.epoch);
            changes += usize::from(now != epoch);
            epoch = now;
        }
        changes
    }
}

fn words(case: &Case) -> String {
    let most = |of: fn(&Kill) -> usize| case.kills.iter().map(of).max().unwrap_or(0);
    let mean = |of: fn(&Kill) -> usize| case.kills.iter().map(of).sum::<usize>() as f64 / case.kills.len() as f64;
    format!(
        "  {:<38} active {} ms after the kill (aim: worst {}), {} ms after the start; claims {:.1}, worst {}, at the \
         start {:.1}, worst {}; taken over again {}",
        case.name(),
        case.spread(|kill| kill.taken_over_ms).words(1),
        case.aim_ms(),
        case.spread(|kill| kill.started_ms).words(1),
        mean(|kill| kill.claims),
        most(|kill| kill.claims),
        mean(|kill| kill.claims_at_start),
        most(|kill| kill.claims_at_start),
        case.kills.iter().map(|kill| kill.lost_again).sum::<usize>(),
    )
}

fn report(args: &TakeoverArgs, cases: &[Case]) -> Result<(), CompareError> {
    let kill = |kill: &Kill| {
        json!({ "taken_over_ms": kill.taken_over_ms, "started_ms": kill.started_ms, "claims": kill.claims,
            "claims_at_start": kill.claims_at_start, "lost_again": kill.lost_again })
    };
    let case = |case: &Case| {
        json!({ "hosts": case.shape.hosts, "candidates": case.shape.brokers,
            "settle_ms": case.shape.settle.as_millis() as u64, "aim_ms": case.aim_ms(),
            "taken_over_ms": case.spread(|kill| kill.taken_over_ms).json(),
            "kills": case.kills.iter().map(kill).collect::<Vec<Value>>() })
    };
    let all = json!({ "machine": machine(), "cases": cases.iter().map(case).collect::<Vec<Value>>() });
    args.output.write(&all)?;
    let missed: Vec<String> = cases.iter().filter(|case| !case.kept_the_aim()).map(Case::name).collect();
    if missed.is_empty() || args.output.tiny {
        return Ok(());
    }
    Err(CompareError::Missed { name: "takeover".into(), what: missed.join("; ") })
}
