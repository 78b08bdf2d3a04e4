//! `loadgen resume`: a long topic and three readers of it.
//!
//! The topic is filled; then one reader begins at its end, one in its middle, and one at its beginning; then a tail is published.
//! The reader at the end must get the tail and nothing else. The one from the beginning is a process of its own, which is killed
//! (SIGKILL) and started again several times: it must read every message once. It goes on from a durable named cursor. What it has in common with the one from the middle
//! must be the same.
//!
//! * [`position`]: how what a reader has read is kept. [`reader`]: reading.

mod position;
mod reader;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use embarcadero::{Order, Start, Subscriber, SubscriberOptions};
use launch::place::Folder;
use launch::process::{End, Process, Silence};
use serde_json::{Value, json};
use verification::ledger::Ledger;
use verification::payload::Payloads;
use verification::stretch::{Expected, judge, judge_sessions};
use verification::verdict::Outcome;

use super::{Experiment, ended};
use crate::args::{LoadArgs, ResumeArgs};
use crate::error::LoadError;
use crate::events::{EventLog, Kind};
use crate::load::Wishes;
use crate::report::{Ended, Report};
use crate::run::make_topics;
use position::{load_ledger, open_cursor};
use reader::{HOLDING, Reading};

pub use reader::read;

/// Time between looks at the process that reads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one reader did.
struct Reader {
    name: &'static str,
    first: u64,
    ledger: Ledger,
    seconds: f64,
    error: Option<String>,
}

/// How one life of the reader that is killed ended.
struct Kill {
    /// It had read up to here, at least.
    held_at: u64,
    /// It had written down that it had read up to here.
    written: u64,
    /// Its cursor is here: the next life goes on there.
    cursor: u64,
    /// When it was killed.
    at: Instant,
}

/// Everything that was read.
struct Readers {
    end: Reader,
    middle: Reader,
    killed: Reader,
    kills: Vec<Kill>,
    /// When reading began.
    begin: Instant,
}

/// The plan of the reading.
struct Plan<'a> {
    args: &'a ResumeArgs,
    topic: String,
    payloads: Payloads,
    /// Messages before the tail.
    filled: u64,
    /// All messages.
    end: u64,
    interrupted: &'a Arc<AtomicBool>,
}

/// Runs it.
pub fn run(args: &ResumeArgs, interrupted: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    args.check()?;
    let experiment = Experiment::new("resume", &args.topic, &args.output, interrupted);
    let fill = experiment.load("", &args.load, &Wishes::default())?;
    let filled = fill.total();
    if filled < 2 * (u64::from(args.kills) + 1) {
        return Err(LoadError::Usage(format!("{filled} messages are too few to be killed {} times in", args.kills)));
    }
    let tail_args = LoadArgs { messages: Some(args.tail(filled)), ..args.load.clone() };
    let tail = experiment.load("", &tail_args, &Wishes::default())?;
    make_topics(&fill)?;
    let fill_report = experiment.run(&fill)?;
    if fill_report.verdict.outcome != Outcome::Pass {
        return Ok(fill_report.into());
    }
    let payloads = Payloads::new(args.topic.message_size as usize);
    let plan = Plan { args, topic: experiment.name.clone(), payloads, filled, end: filled + tail.total(), interrupted };
    let (readers, tail_report) = plan.read(|| experiment.run(&tail))?;
    Ok(plan.judged(&readers, &fill_report, &tail_report))
}

impl Plan<'_> {
    fn middle(&self) -> u64 {
        self.filled / 2
    }

    fn connect(&self, start: Start) -> Result<Subscriber, LoadError> {
        let options = SubscriberOptions { start, ..self.args.topic.subscriber_options(&self.topic, 0, 1) };
        Subscriber::connect(options).map_err(|error| LoadError::Connect(format!("a reader from {start:?}: {error}")))
    }

    /// Three readers, and the tail once those in this process are connected.
    fn read(&self, publish_tail: impl FnOnce() -> Result<Report, LoadError>) -> Result<(Readers, Report), LoadError> {
        let (folder, begin) = (folder()?, Instant::now());
        let mut at_end = self.connect(Start::Latest)?;
        let mut in_middle = self.connect(Start::Order(Order(self.middle())))?;
        thread::scope(|scope| {
            let end = scope.spawn(|| self.reader("from the end", self.filled, &mut at_end));
            let middle = scope.spawn(|| self.reader("from the middle", self.middle(), &mut in_middle));
            let killed = scope.spawn(|| self.kill_and_resume(&folder));
            let tail = publish_tail();
            let [end, middle] = [end, middle].map(|thread| thread.join().map_err(|_| LoadError::Panicked));
            let (killed, kills) = killed.join().map_err(|_| LoadError::Panicked)??;
            Ok((Readers { end: end?, middle: middle?, killed, kills, begin }, tail?))
        })
    }

    fn reader(&self, name: &'static str, first: u64, subscriber: &mut Subscriber) -> Reader {
        let begin = Instant::now();
        let mut ledger = Ledger::new(first, self.middle());
        let reading = Reading {
            payloads: &self.payloads,
            end: self.end,
            idle_timeout: self.args.idle_timeout,
            interrupted: self.interrupted,
        };
        let error = reading.run(subscriber, &mut ledger, &mut |_| (), &mut |_| Ok(())).err();
        Reader { name, first, ledger, seconds: begin.elapsed().as_secs_f64(), error }
    }

    /// Where the cursor of the reader that is killed stands.
    fn cursor(&self) -> Result<u64, LoadError> {
        let cursor = open_cursor(&self.args.topic.brokers, &self.topic);
        let cursor = cursor.map_err(|error| LoadError::Connect(format!("reading the cursor: {error}")))?;
        Ok(cursor.committed().unwrap_or(Order(0)).0)
    }

    /// The reader that is killed and goes on, from the beginning to the end.
    fn kill_and_resume(&self, folder: &Folder) -> Result<(Reader, Vec<Kill>), LoadError> {
        let (begin, lives) = (Instant::now(), u64::from(self.args.kills) + 1);
        let (mut kills, mut error) = (Vec::new(), None);
        let failed = |source| LoadError::Output { path: folder.path().to_owned(), source };
        for life in 1..=lives {
            let hold_at = (life < lives).then(|| self.filled / lives * life);
            // In turn: before anything of a poll is written down, and between that and the cursor's commit.
            let mut process = self.start_life(hold_at, life % 2 == 0, folder.path())?;
            match (hold_at, wait(&mut process, self.interrupted)) {
                (Some(held_at), LifeEnd::Holding) => {
                    let at = Instant::now();
                    process.kill().map_err(failed)?;
                    process.wait();
                    let written = load_ledger(folder.path()).map_err(failed)?.map_or(0, |ledger| ledger.next);
                    kills.push(Kill { held_at, written, cursor: self.cursor()?, at });
                }
                (None, LifeEnd::Exited(status)) if status.success() => {}
                (_, LifeEnd::Interrupted) => break,
                (_, LifeEnd::Exited(status)) => {
                    let said = process.log();
                    error = Some(format!("life {life} of the reader's process ended ({status}): {}", said.trim()));
                    break;
                }
                (None, LifeEnd::Holding) => unreachable!("it was not told to hold"),
            }
        }
        let ledger = load_ledger(folder.path()).map_err(failed)?.unwrap_or_default();
        let reader =
            Reader { name: "killed and resumed", first: 0, ledger, seconds: begin.elapsed().as_secs_f64(), error };
        Ok((reader, kills))
    }

    fn start_life(&self, hold_at: Option<u64>, before_commit: bool, folder: &Path) -> Result<Process, LoadError> {
        let failed = |source| LoadError::Output { path: folder.to_owned(), source };
        let topic = &self.args.topic;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("resume-reader").args(["--brokers", &topic.brokers.join(",")]).args(["--topic", &self.topic]);
        command.args(["--message-size", &topic.message_size.to_string(), "--end", &self.end.to_string()]);
        command.args(["--hash-from", &self.middle().to_string()]);
        command.args(["--idle-timeout", &self.args.idle_timeout.as_secs().to_string()]);
        command.arg("--folder").arg(folder);
        command.args(hold_at.iter().flat_map(|order| ["--hold-at".to_owned(), order.to_string()]));
        command.args(before_commit.then_some("--hold-before-commit"));
        Process::start("the reader's process", command, &folder.join("log"), End::Killed).map_err(failed)
    }

    fn judge(&self, readers: &Readers, fill: &Report, tail: &Report) -> Vec<String> {
        let mut reasons: Vec<String> =
            tail.verdict.reasons.iter().map(|reason| format!("the tail: {reason}")).collect();
        for reader in [&readers.end, &readers.middle, &readers.killed] {
            reasons.extend(reader.error.iter().map(|error| format!("{}: {error}", reader.name)));
            reasons.extend(judge(&Expected { name: reader.name, first: reader.first, end: self.end }, &reader.ledger));
        }
        let sessions: Vec<_> = fill.sessions.iter().chain(&tail.sessions).map(|session| &session.account).collect();
        reasons.extend(judge_sessions(readers.killed.name, &sessions, &readers.killed.ledger));
        let (killed, middle) = (readers.killed.ledger.hash, readers.middle.ledger.hash);
        if killed != middle {
            reasons.push(format!(
                "from order {} on, the reader that was killed and the one from the middle read different things",
                self.middle()
            ));
        }
        if readers.kills.len() < self.args.kills as usize {
            reasons.push(format!("the reader was killed {} times, not {}", readers.kills.len(), self.args.kills));
        }
        reasons
    }

    fn judged(&self, readers: &Readers, fill: &Report, tail: &Report) -> Ended {
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        let reasons = if interrupted { Vec::new() } else { self.judge(readers, fill, tail) };
        let outcome = Outcome::of(interrupted, &reasons);
        let word = outcome.word();
        let (messages, tail_messages, kills) = (self.filled, self.end - self.filled, self.args.kills);
        let bytes = self.args.topic.message_size;
        let mut lines = vec![format!(
            "{word}: a topic of {messages} messages of {bytes} bytes and a tail of {tail_messages}; read from the end, from the middle, and from the beginning by a process that was killed {kills} times"
        )];
        lines.extend(reasons.iter().map(|reason| format!("  wrong: {reason}")));
        lines.extend(fill.publish_line().map(|line| format!("  filled: {line}")));
        lines.extend([&readers.end, &readers.middle, &readers.killed].map(|reader| reader.words(bytes)));
        let events = EventLog::default();
        for Kill { held_at, written, cursor, at } in &readers.kills {
            let read = held_at - 1;
            let words =
                format!("having read order {read}, written down to {written}, resumed from its cursor at {cursor}");
            lines.push(format!("  killed {words}"));
            events.note(*at, Kind::Kill, format!("the reader was killed {words}"));
        }
        let all = [&readers.end, &readers.middle, &readers.killed].map(Reader::json);
        let kill = |kill: &Kill| json!({ "held_at": kill.held_at, "written": kill.written, "cursor": kill.cursor });
        let own = [
            ("messages", json!(messages)),
            ("tail_messages", json!(tail_messages)),
            ("fill", fill.json()),
            ("tail", tail.json()),
            ("readers", json!(all)),
            ("events", json!(events.since(readers.begin))),
            ("kills", readers.kills.iter().map(kill).collect()),
        ];
        ended("resume", &lines[0], &lines, (outcome, Some(&reasons)), own)
    }
}

impl Reader {
    fn words(&self, message_bytes: u64) -> String {
        let Ledger { first, next, messages, gaps, repeats, wrong, hash, .. } = &self.ledger;
        let begin = first.map_or("nothing".to_owned(), |first| format!("orders {first} to {}", next.saturating_sub(1)));
        let rate = *messages as f64 / self.seconds.max(1e-9);
        let megabytes = rate * message_bytes as f64 / 1e6;
        format!(
            "  {}: {begin}, {messages} messages in {:.1} s = {rate:.0}/s, {megabytes:.1} MB/s; {gaps} missing, {repeats} again, {wrong} wrong; hash {hash:016x}",
            self.name, self.seconds
        )
    }

    fn json(&self) -> Value {
        json!({
            "reader": self.name,
            "seconds": self.seconds,
            "first_order": self.ledger.first,
            "next_order": self.ledger.next,
            "messages": self.ledger.messages,
            "gaps": self.ledger.gaps,
            "repeats": self.ledger.repeats,
            "wrong": self.ledger.wrong,
            "delivered_again_and_left_out": self.ledger.skipped,
            "hash_from": self.ledger.hash_from,
            "hash": format!("{:016x}", self.ledger.hash),
            "error": self.error,
        })
    }
}

/// The folder of the reader that is killed.
fn folder() -> Result<Folder, LoadError> {
    // In memory, where pools are: replacing a file on a disk's file system may wait for the disk, after every poll.
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let path = parent.join(format!("loadgen-resume-{}", std::process::id()));
    Folder::create(&path).map_err(|source| LoadError::Output { path, source })
}

/// How a life of the reader that is killed ends, or comes to where it is to be ended.
enum LifeEnd {
    Holding,
    Exited(ExitStatus),
    Interrupted,
}

/// Until it holds or ends. It has deadlines of its own.
fn wait(life: &mut Process, interrupted: &AtomicBool) -> LifeEnd {
    loop {
        match life.line(LOOK_EVERY) {
            Ok(line) if line == HOLDING => return LifeEnd::Holding,
            Err(Silence::Ended(status)) => return LifeEnd::Exited(status),
            _ if interrupted.load(Ordering::Relaxed) => return LifeEnd::Interrupted,
            _ => {}
        }
    }
}
