//! `embarctl status`: what the pool says of itself, from its mapping. Brokers may be running or gone.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use embarcadero::log::View;
use embarcadero::log::brokers::last_address;
use embarcadero::log::commit::{Commit, CommitReader};
use embarcadero::log::estate::held_extents;
use embarcadero::log::faults;
use embarcadero::log::retention::{FloorReader, NO_PIN};
use embarcadero::log::topics::TopicReader;
use embarcadero::observe::counters::{
    AckCounters, CounterBlock, Counters, ExportCounters, ReceiveCounters, SequencerCounters,
};
use embarcadero::pool::line::{Peer, observe_words};
use embarcadero::pool::process::boot_id;
use embarcadero::pool::record::{BrokerLine, PinLine};
use embarcadero::pool::region::LockName;
use embarcadero::pool::{Access, Mapped, Memory, PlaceKind, Pool, Software};

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

/// How long members are watched at most. A broker whose threads rest beats each `threads.rest_max` at least, which is up to a second.
const WATCHED_MAX: Duration = Duration::from_millis(1500);
/// How often they are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Which members show life, on whatever host they are: their lines are looked at until each has beaten, or for as long as one that lives
/// may take.
struct Lives<'a> {
    pool: &'a Pool,
    view: &'a View<Mapped<Software>>,
    before: Vec<u64>,
    /// The active sequencer's commit and beat, if one was ever active.
    sequencer: Option<(Commit, u64)>,
}

impl<'a> Lives<'a> {
    fn watch(pool: &'a Pool, view: &'a View<Mapped<Software>>) -> Self {
        let mut lives = Lives { pool, view, before: Vec::new(), sequencer: None };
        lives.before = (0..view.layout.geometry.members()).map(|member| lives.line(member).heartbeat).collect();
        lives.sequencer = CommitReader::new(view).current().map(|commit| (commit, lives.sequencer_beat(&commit)));
        let begun = Instant::now();
        while begun.elapsed() < WATCHED_MAX && lives.are_awaited() {
            std::thread::sleep(LOOK_EVERY);
        }
        lives
    }

    /// Whether a broker that may live has not beaten yet. What the kernel says of those of this host is enough where it says that they
    /// are gone.
    fn are_awaited(&self) -> bool {
        // Its host is not in its line: so one that shows nothing is watched for as long as one that lives may take.
        let is_silent = |(commit, before): (Commit, u64)| self.sequencer_beat(&commit) == before;
        self.sequencer.is_some_and(is_silent)
            || (0..self.view.layout.geometry.brokers).any(|broker| {
                let line = self.line(broker);
                let may_live =
                    line.boot_id != boot_id() || self.pool.is_locked(LockName::Broker(broker)).unwrap_or(true);
                line.incarnation > 0 && line.heartbeat == self.before[broker as usize] && may_live
            })
    }

    fn sequencer_beat(&self, commit: &Commit) -> u64 {
        CommitReader::new(self.view).line(commit.candidate).heartbeat
    }

    /// The sequencer in words.
    fn of_sequencer(&self) -> Result<String, CommandError> {
        let Some(commit) = CommitReader::new(self.view).current() else { return Ok("none has been active".to_owned()) };
        let moved =
            self.sequencer.is_none_or(|(then, beat)| then.epoch != commit.epoch || self.sequencer_beat(&then) != beat);
        // No process of another host holds a lock here, and none that is gone.
        let state = match (moved, self.pool.is_locked(LockName::Candidate(commit.candidate))?) {
            (true, _) => "running",
            (false, true) => "stands still: its process has its lock and shows no life",
            (false, false) => "gone",
        };
        let floor = FloorReader::new(self.view).read().map_or(0, |floors| floors.floor);
        let Commit { candidate, epoch, watermark } = commit;
        Ok(format!("candidate {candidate}, epoch {epoch}, {state}; positions {floor} to {watermark} are kept"))
    }

    fn line(&self, member: u32) -> BrokerLine {
        let at = self.view.layout.broker_line(member);
        Peer::<BrokerLine, _>::new(self.view.memory.clone(), at, Access::Remote).observe_words()
    }

    /// Whether a member lives, and in words.
    fn of(&self, member: u32) -> Result<(bool, String), CommandError> {
        let line = self.line(member);
        let beats = line.heartbeat != self.before[member as usize];
        let is_here = line.boot_id == boot_id();
        let state = match (beats, is_here && self.pool.is_locked(self.pool.member_lock(member))?) {
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
    let (path, blog_bytes) = (pool.path().display(), pool.layout().blog_bytes());
    let mut text = format!(
        "pool {path}: {} bytes, {blog_bytes} of them for batches, in {} extents of {}\n",
        g.pool_bytes, g.extents, g.extent_bytes
    );
    let (lives, mut any_broker_lives) = (Lives::watch(pool, &view), false);
    let _ = writeln!(text, "sequencer: {}", lives.of_sequencer()?);
    for broker in 0..g.brokers {
        if lives.line(broker).incarnation == 0 {
            let _ = writeln!(text, "broker {broker}: nobody ever had this place");
            continue;
        }
        let (is_alive, state) = lives.of(broker)?;
        any_broker_lives |= is_alive;
        let at = last_address(&view, broker).map_or(String::new(), |address| format!(", at {address}"));
        let _ = writeln!(text, "broker {broker}: {state}{at}");
    }
    for member in (g.brokers..g.members()).filter(|member| lives.line(*member).incarnation > 0) {
        let kind = if g.members_of(PlaceKind::Publisher).contains(&member) { "publisher" } else { "subscriber" };
        let (_, state) = lives.of(member)?;
        let _ = writeln!(text, "attached {kind}, place {member}: {state}");
    }
    text.push_str(&of_pins(&lives, &view));
    text.push_str(&of_extents(&lives, &view));
    text.push_str(&of_failed_memory(&view));
    let mut topics = TopicReader::new(&view);
    topics.refresh();
    for topic in topics.known() {
        let next = topics.progress(topic.id).map_or(0, |progress| progress.next_order);
        let _ = writeln!(text, "topic {:?}: order {}, ack {}, next order {next}", topic.name, topic.order, topic.ack);
    }
    for broker in 0..g.brokers {
        let at = view.layout.export_counters(broker);
        let waited = Waited::of(|name| counter::<ExportCounters>(&view, at, name));
        let name =
            |id: u64| topics.known().iter().find(|topic| u64::from(topic.id) == id).map(|topic| topic.name.clone());
        text.extend(waited.words(broker, name));
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

/// Who holds the floor: whose pin is the lowest, of those that hold anything.
fn of_pins(lives: &Lives<'_>, view: &View<Mapped<Software>>) -> String {
    let (g, floor) = (view.layout.geometry, FloorReader::new(view).read().map_or(0, |floors| floors.floor));
    let pin = |member| {
        let line: PinLine = observe_words(&view.memory, view.layout.pin_line(member), Access::Remote);
        (line.incarnation > 0 && line.position != NO_PIN && line.position >= floor).then_some((line.position, member))
    };
    match (0..g.members()).filter_map(pin).min() {
        Some((position, member)) if member < g.brokers => {
            format!("floor: readers of broker {member} need position {position} and what is behind it\n")
        }
        Some((position, member)) => {
            format!(
                "floor: the attached subscriber in place {member} needs position {position} and what is behind it{}\n",
                if matches!(lives.of(member), Ok((false, _))) { "; it is gone, and is let go" } else { "" }
            )
        }
        None => "floor: no reader needs anything of the log\n".to_owned(),
    }
}

/// Who has the pool's extents that are not given back. Those of members that are gone are kept for them until somebody knows that they have ended.
fn of_extents(lives: &Lives<'_>, view: &View<Mapped<Software>>) -> String {
    let g = view.layout.geometry;
    let (mut with_writers, mut quarantined) = (0, Vec::new());
    for (lane, held) in (0..).zip(held_extents(view)).filter(|(_, held)| *held > 0) {
        let member = g.member_of_lane(lane);
        match lives.of(member) {
            Ok((false, _)) => quarantined.push((lives.line(member).host, member, held)),
            _ => with_writers += held,
        }
    }
    let all: u32 = quarantined.iter().map(|(.., held)| held).sum();
    let mut text = format!("extents: {with_writers} with those who write, {all} in quarantine\n");
    for (host, member, held) in quarantined {
        let _ = writeln!(
            text,
            "  {held} of member {member}, which is gone: a broker of host {host} gives them back, or `embarctl host forget {host}` if that is off"
        );
    }
    text
}

/// Where memory failed, as the processes that met it have noted.
fn of_failed_memory(view: &View<Mapped<Software>>) -> String {
    let noted = (0..view.layout.geometry.brokers).flat_map(|broker| faults::noted(view, broker));
    let line = |offset| match view.layout.extent_of(offset) {
        Some(extent) => format!("memory failed at offset {offset}: extent {extent} is out of use\n"),
        None => format!(
            "memory failed at offset {offset}, where the pool keeps its tables: format a pool elsewhere (pool.path, or a smaller pool.bytes)\n"
        ),
    };
    noted.map(line).collect()
}

/// The subscriber that a broker's publishers are held up by most.
struct Waited {
    ms: u64,
    address: u64,
    topic: u64,
}

impl Waited {
    fn of(counter: impl Fn(&str) -> u64) -> Waited {
        Waited { ms: counter("waited_ms"), address: counter("waited_address"), topic: counter("waited_topic") }
    }

    /// None if nobody is waited for now. `name` gives the name of a topic's id.
    fn words(&self, broker: u32, name: impl Fn(u64) -> Option<String>) -> Option<String> {
        let Waited { ms, address, topic } = *self;
        if ms == 0 {
            return None;
        }
        let (ip, port) = ((address >> 16) as u32, address as u16);
        // An address of IPv6 does not fit beside its port.
        let from = if ip == 0 { format!("port {port} (IPv6)") } else { format!("{}:{port}", Ipv4Addr::from_bits(ip)) };
        let topic = name(topic).map_or_else(|| format!("topic {topic}"), |name| format!("topic {name:?}"));
        let seconds = ms as f64 / 1e3;
        Some(format!(
            "broker {broker}: publishers wait, {seconds:.1} s by now, for the subscriber at {from} of {topic}\n"
        ))
    }
}

fn counter<C: Counters>(view: &View<Mapped<Software>>, at: u64, name: &str) -> u64 {
    let values = CounterBlock::new(view.memory.clone(), at).read(C::CATALOGUE);
    C::CATALOGUE.iter().zip(values).find(|(counter, _)| counter.name == name).map_or(0, |(_, value)| value)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use embarcadero::log::appender::Appender;
    use embarcadero::log::commit::CommitWriter;
    use embarcadero::log::member::{BEAT_NS, Member};
    use embarcadero::pool::Process;
    use embarcadero::pool::line::Owned;
    use embarcadero::pool::region::Create;
    use embarcadero::pool::superblock::HomeHosts;
    use embarcadero::testing::memory::small_geometry;

    use super::*;

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
        assert!(had > 0 && of_pins(&Lives::watch(&pool, &view), &view).contains("no reader needs anything"));
        let pin = PinLine { incarnation: member.incarnation(), position: 0, ..PinLine::default() };
        Owned::take(view.memory.clone(), view.layout.pin_line(1)).publish(&pin);
        let over = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
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
            let told = describe(&pool, false);
            over.store(true, Ordering::Relaxed);
            told
        });
        let (told, any_lives) = told.unwrap();
        assert!(told.contains("sequencer: candidate 0, epoch 1, running;"), "{told}");
        assert!(any_lives && told.contains("broker 1: running on host 0, process 70,"), "{told}");
        assert!(told.contains("floor: readers of broker 1 need position 0 and what is behind it"), "{told}");
        assert!(told.contains(&format!("extents: {had} with those who write, 0 in quarantine")), "{told}");
        let (silent, any_lives) = describe(&pool, false).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(silent.contains("sequencer: candidate 0, epoch 1, gone;"), "{silent}");
        assert!(!any_lives && silent.contains("broker 1: gone on host 0, process 70,"), "{silent}");
        assert!(silent.contains(&format!("extents: 0 with those who write, {had} in quarantine")), "{silent}");
        assert!(silent.contains(&format!("{had} of member 1, which is gone: a broker of host 0")), "{silent}");
    }

    #[test]
    fn a_reader_that_is_waited_for_is_named() {
        let counters = |ms, address| {
            move |name: &str| match name {
                "waited_ms" => ms,
                "waited_address" => address,
                "waited_topic" => 3,
                other => panic!("{other}"),
            }
        };
        let name = |id| (id == 3).then(|| "orders".to_owned());
        let waited = Waited::of(counters(1234, (0x7f00_0001 << 16) | 5678));
        let words = waited.words(2, name).unwrap();
        assert_eq!(
            words,
            "broker 2: publishers wait, 1.2 s by now, for the subscriber at 127.0.0.1:5678 of topic \"orders\"\n"
        );
        let unnamed = Waited::of(counters(50, 5678)).words(0, |_| None).unwrap();
        assert!(unnamed.ends_with("at port 5678 (IPv6) of topic 3\n"), "{unnamed}");
        assert_eq!(Waited::of(counters(0, 5678)).words(2, name), None);
        for counter in ["waited_ms", "waited_address", "waited_topic"] {
            assert!(ExportCounters::CATALOGUE.iter().any(|one| one.name == counter), "{counter}");
        }
    }
}
