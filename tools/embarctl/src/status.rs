//! `embarctl status`: what the pool says of itself, from its mapping. Brokers may be running or gone.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use embarcadero::log::View;
use embarcadero::log::commit::CommitReader;
use embarcadero::log::retention::FloorReader;
use embarcadero::log::topics::TopicReader;
use embarcadero::observe::counters::{
    AckCounters, CounterBlock, Counters, ExportCounters, ReceiveCounters, SequencerCounters,
};
use embarcadero::pool::line::Peer;
use embarcadero::pool::record::BrokerLine;
use embarcadero::pool::region::LockName;
use embarcadero::pool::{Access, Mapped, Memory, Pool, Software};

use crate::Ended;
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
    let pool = Pool::inspect(&args.pool)?;
    let text = describe(&pool, args.all)?;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(Ended::Done),
    }
}

fn describe(pool: &Pool, all: bool) -> Result<String, CommandError> {
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
    for broker in 0..g.brokers {
        let line: Peer<BrokerLine, _> = Peer::new(view.memory.clone(), view.layout.broker_line(broker), Access::Remote);
        let lives = pool.is_locked(LockName::Broker(broker))?;
        let state = match line.observe() {
            None => "never started".to_string(),
            Some(line) => format!(
                "{}, process {}, start {} of it",
                if lives { "running" } else { "gone" },
                line.process,
                line.incarnation
            ),
        };
        let _ = writeln!(text, "broker {broker}: {state}");
    }
    for member in g.brokers..g.members() {
        let line: Peer<BrokerLine, _> = Peer::new(view.memory.clone(), view.layout.broker_line(member), Access::Remote);
        let Some(line) = line.observe().filter(|line| line.incarnation > 0) else { continue };
        let kind = if member < g.reader_member(0) { "publisher" } else { "subscriber" };
        let lives = if pool.is_locked(LockName::Attached(member))? { "running" } else { "gone" };
        let (process, start) = (line.process, line.incarnation);
        let _ = writeln!(text, "attached {kind}, place {member}: {lives}, process {process}, start {start} of it");
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
    Ok(text)
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
