//! `embarctl status`: what the pool says of itself, from its mapping. Brokers may be running or gone.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use embarcadero::monitor::diagnosis::{Life, WATCHED_FOR, address, diagnose, life};
use embarcadero::monitor::snapshot::{AttachedFacts, BrokerFacts, LaneFacts, MemberFacts, SequencerFacts, Snapshot};
use embarcadero::monitor::stages::stages;
use embarcadero::observe::counters::Counters;
use embarcadero::pool::Pool;

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
    /// Print one JSON object: everything, sessions too.
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub fn run(args: &StatusArgs) -> Result<Ended, CommandError> {
    // Whoever may read the pool may look at it.
    let pool = Pool::look(&args.pool)?;
    let watched_least = if args.json { WATCHED_TO_DIAGNOSE } else { Duration::ZERO };
    let watched = Watched::watch(&pool, args.json, watched_least);
    let text = if args.json { watched.json() } else { watched.describe(args.all) };
    print(&text)?;
    let any_lives = watched.now.brokers.iter().any(|broker| watched.lives(&broker.member) != Life::Gone);
    if any_lives { Ok(Ended::Done) } else { Err(CommandError::AllGone) }
}

/// How long members are watched if it is to be found who waits for whom: what moves is copied out once a second.
const WATCHED_TO_DIAGNOSE: Duration = Duration::from_secs(2);
/// How often they are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A pool at two moments: members are looked at until each has beaten, or for as long as one that lives may take.
struct Watched {
    before: Snapshot,
    now: Snapshot,
}

impl Watched {
    fn watch(pool: &Pool, with_sessions: bool, watched_least: Duration) -> Watched {
        let (begun, before) = (Instant::now(), Snapshot::take(pool, false));
        std::thread::sleep(watched_least);
        loop {
            let now = Snapshot::take(pool, with_sessions);
            let watched = Watched { before: before.clone(), now };
            if begun.elapsed() >= WATCHED_FOR || !watched.is_anybody_awaited() {
                return watched;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn seconds(&self) -> f64 {
        self.now.time_since(&self.before).as_secs_f64()
    }

    fn life_of(&self, member: &MemberFacts) -> Life {
        let then = self.before.brokers.iter().map(|broker| &broker.member);
        let then =
            then.chain(self.before.attached.iter().map(|one| &one.member)).find(|then| then.member == member.member);
        // One that came meanwhile lives.
        then.map_or(Life::Lives, |then| life(then, member, self.seconds()))
    }

    /// The same, of one that may not have been watched for long enough: whoever has its lock may live.
    fn lives(&self, member: &MemberFacts) -> Life {
        match self.life_of(member) {
            Life::Unknown if member.is_locked => Life::StandsStill,
            Life::Unknown => Life::Gone,
            known => known,
        }
    }

    fn does_sequencer_beat(&self, now: &SequencerFacts) -> bool {
        self.before.sequencer.as_ref().is_none_or(|then| now.has_beaten_since(then))
    }

    /// Whether one that may live has not beaten yet. What the kernel says of those of this host is enough where it says that they are gone.
    fn is_anybody_awaited(&self) -> bool {
        let is_silent =
            |broker: &BrokerFacts| matches!(self.life_of(&broker.member), Life::Unknown | Life::StandsStill);
        // Of an attached process of another host there is no lock to be seen: one that has not said that it ended is waited for as well.
        let is_unknown = |one: &AttachedFacts| {
            let is_over = one.member.is_here || one.member.state == "stopped";
            !is_over && self.life_of(&one.member) != Life::Lives
        };
        // One that shows nothing is watched for as long as one that lives may take.
        self.now.sequencer.as_ref().is_some_and(|now| !self.does_sequencer_beat(now))
            || self.now.brokers.iter().any(is_silent)
            || self.now.attached.iter().any(is_unknown)
    }

    fn json(&self) -> String {
        let report =
            serde_json::json!({ "version": 1, "now": self.now, "findings": diagnose(&self.before, &self.now) });
        format!("{report:#}\n")
    }

    fn describe(&self, all: bool) -> String {
        let pool = &self.now.pool;
        let mut text = format!(
            "pool {}: {} bytes, {} of them for batches, in {} extents of {}\n",
            pool.path, pool.bytes, pool.blog_bytes, pool.extents, pool.extent_bytes
        );
        let _ = writeln!(text, "sequencer: {}", self.sequencer_in_words());
        for broker in &self.now.brokers {
            let at = broker.address.as_ref().map_or(String::new(), |address| format!(", at {address}"));
            let _ = writeln!(text, "broker {}: {}{at}", broker.broker(), self.member_in_words(&broker.member, false));
        }
        for one in &self.now.attached {
            let kind = if one.publishes { "publisher" } else { "subscriber" };
            let _ = writeln!(
                text,
                "attached {kind}, place {}: {}",
                one.member.member,
                self.member_in_words(&one.member, true)
            );
        }
        text += &self.pins_in_words();
        text += &self.extents_in_words();
        text.extend(pool.failed_at.iter().map(|offset| self.failure_in_words(*offset)));
        for topic in &self.now.topics {
            let (name, order, ack, next) = (&topic.name, topic.order, topic.ack, topic.next_order);
            let _ = writeln!(text, "topic {name:?}: order {}, ack {ack}, next order {next}", level(order));
        }
        let speaking = self.now.brokers.iter().filter(|broker| self.lives(&broker.member) != Life::Gone);
        text.extend(speaking.filter_map(|broker| waited_in_words(&self.now, broker)));
        text += &times_in_words(&self.now);
        text += &errors_in_words(&self.now);
        text += &counters_in_words(&self.now, all);
        text
    }

    fn sequencer_in_words(&self) -> String {
        let Some(now) = &self.now.sequencer else { return "none has been active".to_owned() };
        // No process of another host holds a lock here, and none that is gone.
        let state = match (self.does_sequencer_beat(now), now.is_locked) {
            (true, _) => "running",
            (false, true) => "stands still: its process has its lock and shows no life",
            (false, false) => "gone",
        };
        let host = on_host(now.is_here, now.host);
        let SequencerFacts { candidate, epoch, process, floor, watermark, .. } = now;
        format!(
            "candidate {candidate}, epoch {epoch}, {state}{host}, process {process}; positions {floor} to {watermark} are kept"
        )
    }

    fn member_in_words(&self, member: &MemberFacts, is_attached: bool) -> String {
        let state = match self.lives(member) {
            Life::Lives => "running",
            // An attached process shows life only while it is used.
            Life::StandsStill if is_attached => "running",
            Life::StandsStill | Life::Unknown => "stands still: its process has its lock and shows no life",
            Life::Gone => "gone",
        };
        let host = on_host(member.is_here, member.host);
        format!("{state}{host}, process {}, start {} of it", member.process, member.incarnation)
    }

    /// Who holds the floor: whose pin is the lowest, of those that hold anything.
    fn pins_in_words(&self) -> String {
        let floor = self.now.sequencer.as_ref().map_or(0, |sequencer| sequencer.floor);
        let brokers = self.now.brokers.iter().map(|broker| (&broker.member, true));
        let members = brokers.chain(self.now.attached.iter().map(|one| (&one.member, false)));
        let pins = members
            .filter_map(|(member, is_broker)| Some((member.pin.filter(|pin| *pin >= floor)?, member, is_broker)));
        match pins.min_by_key(|(pin, member, _)| (*pin, member.member)) {
            Some((position, member, true)) => {
                format!("floor: readers of broker {} need position {position} and what is behind it\n", member.member)
            }
            Some((position, member, false)) => format!(
                "floor: the attached subscriber in place {} needs position {position} and what is behind it{}\n",
                member.member,
                if self.lives(member) == Life::Gone { "; it is gone, and is let go" } else { "" }
            ),
            None => "floor: no reader needs anything of the log\n".to_owned(),
        }
    }

    /// Who has the pool's extents that are not given back. Those of members that are gone are kept for them until somebody knows that they have
    /// ended.
    fn extents_in_words(&self) -> String {
        let (mut with_writers, mut quarantined) = (0, Vec::new());
        let brokers = self.now.brokers.iter().map(|broker| &broker.member);
        let members: Vec<&MemberFacts> = brokers.chain(self.now.attached.iter().map(|one| &one.member)).collect();
        for lane in self.now.lanes.iter().filter(|lane| lane.extents > 0) {
            match members.iter().find(|member| member.member == lane.member) {
                Some(member) if self.lives(member) == Life::Gone => quarantined.push((member.host, lane)),
                _ => with_writers += lane.extents,
            }
        }
        let all: u32 = quarantined.iter().map(|(_, lane)| lane.extents).sum();
        let mut text = format!("extents: {with_writers} with those who write, {all} in quarantine\n");
        for (host, LaneFacts { extents, member, .. }) in quarantined {
            let _ = writeln!(
                text,
                "  {extents} of member {member}, which is gone: a broker of host {host} gives them back, or `embarctl host forget {host}` if that is off"
            );
        }
        text
    }

    /// Where memory failed, as the processes that met it have noted.
    fn failure_in_words(&self, offset: u64) -> String {
        let pool = &self.now.pool;
        match offset.checked_sub(pool.blog_at).map(|at| at / pool.extent_bytes) {
            Some(extent) if extent < u64::from(pool.extents) => {
                format!("memory failed at offset {offset}: extent {extent} is out of use\n")
            }
            _ => format!(
                "memory failed at offset {offset}, where the pool keeps its tables: format a pool elsewhere (pool.path, or a smaller pool.bytes)\n"
            ),
        }
    }
}

/// Where a process is, unless that is this machine.
fn on_host(is_here: bool, host: u64) -> String {
    if is_here { String::new() } else { format!(" on host {host}") }
}

fn level(order: u8) -> String {
    embarcadero::wire::OrderLevel::from_byte(order).map_or(order.to_string(), |level| level.to_string())
}

/// The subscriber that a broker's publishers are held up by most. None if nobody is waited for now.
fn waited_in_words(now: &Snapshot, broker: &BrokerFacts) -> Option<String> {
    let export = &broker.export;
    if export.waited_ms == 0 {
        return None;
    }
    let topic = now.topic_name(export.waited_topic);
    let topic = topic.map_or_else(|| format!("topic {}", export.waited_topic), |name| format!("topic {name:?}"));
    let (from, seconds) = (address(export.waited_address), export.waited_ms as f64 / 1e3);
    let broker = broker.broker();
    Some(format!("broker {broker}: publishers wait, {seconds:.1} s by now, for the subscriber at {from} of {topic}\n"))
}

/// How long batches took from stage to stage, since their processes began.
fn times_in_words(now: &Snapshot) -> String {
    let mut text = String::new();
    for (name, times) in stages(None, now) {
        let Some(middle) = times.quantile(0.5) else { continue };
        let at = |part| times.quantile(part).unwrap_or(0) as f64 / 1e3;
        let _ = writeln!(
            text,
            "times: {name:<23} {:>10} batches, us: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            times.count(),
            middle as f64 / 1e3,
            at(0.99),
            at(0.999),
            times.max() as f64 / 1e3
        );
    }
    text
}

/// Distinct warnings and errors of each process.
fn errors_in_words(now: &Snapshot) -> String {
    let mut text = String::new();
    for (broker, error) in now.brokers.iter().flat_map(|broker| broker.errors.iter().map(move |error| (broker, error)))
    {
        let ago = now.taken_at.saturating_sub(error.last_at) / 1_000_000_000;
        let _ = writeln!(
            text,
            "{} of the process of broker {}, {} times, {ago} s ago at last: {}",
            error.level,
            broker.broker(),
            error.count,
            error.text
        );
    }
    text
}

fn counters_in_words(now: &Snapshot, all: bool) -> String {
    let mut text = String::new();
    for lane in &now.lanes {
        block(&mut text, &lane.receive, &format!("lane {}", lane.lane), all);
    }
    if let Some(sequencer) = &now.sequencer {
        block(&mut text, &sequencer.counters, &format!("sequencer {}", sequencer.candidate), all);
    }
    for topic in &now.topics {
        block(&mut text, &topic.counters, &format!("topic {}", topic.topic), all);
    }
    for broker in &now.brokers {
        block(&mut text, &broker.ack, &format!("ack {}", broker.broker()), all);
        block(&mut text, &broker.export, &format!("export {}", broker.broker()), all);
        for thread in &broker.threads {
            block(&mut text, &thread.counters, &format!("thread {}, {}", broker.broker(), thread.name), all);
        }
    }
    text
}

fn block<C: Counters>(text: &mut String, counters: &C, name: &str, all: bool) {
    for (counter, value) in C::CATALOGUE.iter().zip(counters.words()) {
        if all || value != 0 {
            let _ = writeln!(text, "{name:<15} {:<20} {value:>20}  {}", counter.name, counter.meaning.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use embarcadero::log::View;
    use embarcadero::log::appender::Appender;
    use embarcadero::log::commit::CommitWriter;
    use embarcadero::log::estate::held_extents;
    use embarcadero::log::member::{BEAT_NS, Member};
    use embarcadero::pool::line::Owned;
    use embarcadero::pool::process::boot_id;
    use embarcadero::pool::record::PinLine;
    use embarcadero::pool::region::Create;
    use embarcadero::pool::superblock::HomeHosts;
    use embarcadero::pool::{Mapped, Process, Software};
    use embarcadero::testing::memory::small_geometry;

    use super::*;

    fn described(pool: &Pool) -> (String, bool) {
        let watched = Watched::watch(pool, false, Duration::ZERO);
        let any_lives = watched.now.brokers.iter().any(|broker| watched.lives(&broker.member) != Life::Gone);
        (watched.describe(false), any_lives)
    }

    /// Who holds no lock here is one of another host: what it shows decides.
    #[test]
    fn processes_of_another_host_live_while_they_beat() {
        let path = std::env::temp_dir().join(format!("embarctl-status-{}", std::process::id()));
        let geometry = small_geometry(1);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        let mut sequencer = CommitWriter::take(&view, 0);
        sequencer.claim(0, 1);
        sequencer.activate(0);
        let there = Process { id: 70, started_at_utc_ns: 1, boot_id: boot_id() + 1 };
        let mut member = Member::announce(&view, 1, there);
        drop(Appender::take(&view, 1));
        let had = held_extents(&view)[1];
        assert!(had > 0 && described(&pool).0.contains("no reader needs anything"));
        let pin = PinLine { incarnation: member.incarnation(), position: 0, ..PinLine::default() };
        Owned::take(view.memory.clone(), view.layout.pin_line(1)).publish(&pin);
        let over = AtomicBool::new(false);
        let (told, any_lives) = std::thread::scope(|scope| {
            scope.spawn(|| {
                for beats in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    sequencer.beat();
                    member.beat(beats * BEAT_NS);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let told = described(&pool);
            over.store(true, Ordering::Relaxed);
            told
        });
        assert!(told.contains("sequencer: candidate 0, epoch 1, running on host 0, process 1;"), "{told}");
        assert!(any_lives && told.contains("broker 1: running on host 0, process 70,"), "{told}");
        assert!(told.contains("floor: readers of broker 1 need position 0 and what is behind it"), "{told}");
        assert!(told.contains(&format!("extents: {had} with those who write, 0 in quarantine")), "{told}");
        let (silent, any_lives) = described(&pool);
        std::fs::remove_file(&path).unwrap();
        assert!(silent.contains("sequencer: candidate 0, epoch 1, gone on host 0, process 1;"), "{silent}");
        assert!(!any_lives && silent.contains("broker 1: gone on host 0, process 70,"), "{silent}");
        assert!(silent.contains(&format!("extents: 0 with those who write, {had} in quarantine")), "{silent}");
        assert!(silent.contains(&format!("{had} of member 1, which is gone: a broker of host 0")), "{silent}");
    }

    #[test]
    fn a_reader_that_is_waited_for_is_named() {
        let path = std::env::temp_dir().join(format!("embarctl-waited-{}", std::process::id()));
        let geometry = small_geometry(1);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        drop(Member::announce(&view, 1, Process::this()));
        let mut now = Snapshot::take(&pool, false);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(waited_in_words(&now, &now.brokers[0]), None);
        let export = &mut now.brokers[0].export;
        (export.waited_ms, export.waited_address, export.waited_topic) = (1234, (0x7f00_0001 << 16) | 5678, 3);
        let words = waited_in_words(&now, &now.brokers[0]).unwrap();
        assert_eq!(words, "broker 1: publishers wait, 1.2 s by now, for the subscriber at 127.0.0.1:5678 of topic 3\n");
        now.brokers[0].export.waited_address = 5678;
        let words = waited_in_words(&now, &now.brokers[0]).unwrap();
        assert!(words.ends_with("at port 5678 (IPv6) of topic 3\n"), "{words}");
    }
}
