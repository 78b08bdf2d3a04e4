//! `embarctl status`: what the pool says of itself, from its mapping. Brokers may be running or gone.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use embarcadero::log::View;
use embarcadero::log::commit::CommitReader;
use embarcadero::log::retention::FloorReader;
use embarcadero::log::topics::TopicReader;
use embarcadero::observe::counters::{
    AckCounters, CounterBlock, Counters, ExportCounters, ReceiveCounters, SequencerCounters,
};
use embarcadero::pool::line::Peer;
use embarcadero::pool::process::boot_id;
use embarcadero::pool::record::BrokerLine;
use embarcadero::pool::region::LockName;
use embarcadero::pool::{Access, Mapped, Memory, Pool, Software};

use crate::Ended;
use crate::common::print;
use crate::error::CommandError;

/// Which pool.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The pool: a file or a devdax device.
    #[arg(long, default_value = "/dev/shm/embarcadero", value_name = "PATH")]
    pool: PathBuf,
    /// Print counters that are 0 too.
    #[arg(long)]
    all: bool,
}

/// Prints it.
pub fn run(args: &StatusArgs) -> Result<Ended, CommandError> {
    // Whoever may read the pool may look at it.
    let pool = Pool::look(&args.pool)?;
    let (text, any_broker_lives) = describe(&pool, args.all)?;
    print(&text)?;
    if any_broker_lives { Ok(Ended::Done) } else { Err(CommandError::AllGone) }
}

/// How long members are watched: several of their beats.
const WATCHED: Duration = Duration::from_millis(250);

/// Which members show life, on whatever host they are: their lines are looked at twice.
struct Lives<'a> {
    pool: &'a Pool,
    view: &'a View<Mapped<Software>>,
    before: Vec<u64>,
}

impl<'a> Lives<'a> {
    fn watch(pool: &'a Pool, view: &'a View<Mapped<Software>>) -> Self {
        let mut lives = Lives { pool, view, before: Vec::new() };
        lives.before = (0..view.layout.geometry.members()).map(|member| lives.line(member).heartbeat).collect();
        std::thread::sleep(WATCHED);
        lives
    }

    fn line(&self, member: u32) -> BrokerLine {
        let at = self.view.layout.broker_line(member);
        Peer::<BrokerLine, _>::new(self.view.memory.clone(), at, Access::Remote).observe_words()
    }

    /// Whether a member lives, and in words.
    fn of(&self, member: u32, lock: LockName) -> Result<(bool, String), CommandError> {
        let line = self.line(member);
        let beats = line.heartbeat != self.before[member as usize];
        let is_here = line.boot_id == boot_id();
        let state = match (beats, is_here && self.pool.is_locked(lock)?) {
            (true, _) => "running",
            // An attached process shows life only while it is used.
            (false, true) if member >= self.view.layout.geometry.brokers => "running",
            (false, true) => "stands still: its process has its lock and shows no life",
            (false, false) => "gone",
        };
        let host = if is_here { String::new() } else { format!(" on host {}", line.host) };
        Ok((state != "gone", format!("{state}{host}, process {}, start {} of it", line.process, line.incarnation)))
    }
}

fn describe(pool: &Pool, all: bool) -> Result<(String, bool), CommandError> {
    let view = View::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
    let g = view.layout.geometry;
    let mut text = format!("pool {}: {} bytes\n", pool.path().display(), g.pool_bytes);
    match CommitReader::new(&view).current() {
        None => text += "sequencer: none has been active\n",
        Some(commit) => {
            let lives = pool.is_locked(LockName::Candidate(commit.candidate))?;
            let floor = FloorReader::new(&view).read().map_or(0, |floors| floors.floor);
            let _ = writeln!(
                text,
                "sequencer: candidate {}, epoch {}, {}; positions {floor} to {} are kept",
                commit.candidate,
                commit.epoch,
                if lives { "running" } else { "gone" },
                commit.watermark
            );
        }
    }
    let (lives, mut any_broker_lives) = (Lives::watch(pool, &view), false);
    for broker in 0..g.brokers {
        if lives.line(broker).incarnation == 0 {
            let _ = writeln!(text, "broker {broker}: never started");
            continue;
        }
        let (is_alive, state) = lives.of(broker, LockName::Broker(broker))?;
        any_broker_lives |= is_alive;
        let _ = writeln!(text, "broker {broker}: {state}");
    }
    for member in (g.brokers..g.members()).filter(|member| lives.line(*member).incarnation > 0) {
        let kind = if member < g.reader_member(0) { "publisher" } else { "subscriber" };
        let (_, state) = lives.of(member, LockName::Attached(member))?;
        let _ = writeln!(text, "attached {kind}, place {member}: {state}");
    }
    let mut topics = TopicReader::new(&view);
    topics.refresh();
    for topic in topics.known() {
        let next = topics.progress(topic.id).map_or(0, |progress| progress.next_order);
        let _ = writeln!(text, "topic {:?}: order {}, ack {}, next order {next}", topic.name, topic.order, topic.ack);
    }
    for lane in 0..g.lanes() {
        block::<ReceiveCounters>(&mut text, &view, view.layout.receive_counters(lane), &format!("lane {lane}"), all);
    }
    for candidate in 0..g.candidates {
        let at = view.layout.sequencer_counters(candidate);
        block::<SequencerCounters>(&mut text, &view, at, &format!("sequencer {candidate}"), all);
    }
    for broker in 0..g.brokers {
        block::<AckCounters>(&mut text, &view, view.layout.ack_counters(broker), &format!("ack {broker}"), all);
        block::<ExportCounters>(
            &mut text,
            &view,
            view.layout.export_counters(broker),
            &format!("export {broker}"),
            all,
        );
    }
    Ok((text, any_broker_lives))
}

fn block<C: Counters>(text: &mut String, view: &View<Mapped<Software>>, at: u64, name: &str, all: bool) {
    debug_assert!(at < view.memory.bytes());
    let values = CounterBlock::new(view.memory.clone(), at).read(C::CATALOGUE);
    for (counter, value) in C::CATALOGUE.iter().zip(values) {
        if all || value != 0 {
            let _ = writeln!(text, "{name:<12} {:<20} {value:>16}  {}", counter.name, counter.meaning.trim());
        }
    }
}
