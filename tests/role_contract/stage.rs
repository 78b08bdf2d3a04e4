//! One broker's roles, each with a ring of its own as if it had a thread of its own, driven step by step on the test's thread.
//! A role that is not driven is one whose core is slow: whatever is downstream of the others fills up.
//!
//! What every pass of every role is held to, whatever a test is about:
//! * `poll` gives 0 only if nothing that others see has changed: rings, index, watermark, tables, floors, queues, operations in
//!   the kernel's hands. Left out is what tells of a state and is not waited for: counters, heartbeats, lane status, pins.
//! * `poll` gives at most the role's stated bound.
//! * It never reports a fault.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use embarcadero::config::{CoherenceMode, SendMode};
use embarcadero::limits::{GRANTS_AHEAD_MAX, SCAN_WINDOW_MAX};
use embarcadero::log::View;
use embarcadero::log::brokers::announce_address;
use embarcadero::log::commit::CommitReader;
use embarcadero::log::member::Member;
use embarcadero::log::reader;
use embarcadero::log::topics::Topic;
use embarcadero::net::Ring;
use embarcadero::net::socket_options::listen;
use embarcadero::pool::Process;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::layout::Geometry;
use embarcadero::pool::record::slot_kind;
use embarcadero::pool::region::{Create, HostLock, LockName};
use embarcadero::pool::superblock::HomeHosts;
use embarcadero::pool::{Hardware, Keep, Mapped, Memory, Pool, Software};
use embarcadero::roles::ack::{self, AckRole, AckSettings};
use embarcadero::roles::export::{Export, ExportSettings};
use embarcadero::roles::handoff::{AckLink, Subscriptions};
use embarcadero::roles::receive::{Receive, ReceiveSettings, SPARE_CONNECTIONS};
use embarcadero::roles::sequence::active::SequencerSettings;
use embarcadero::roles::sequence::tables;
use embarcadero::roles::sequence::{Sequence, TakeoverSettings};
use embarcadero::roles::tokens::Tokens;
use embarcadero::runtime::runner::COMPLETIONS_PER_PASS_MAX;
use embarcadero::runtime::{Io, Now, Role};
use embarcadero::wire::{AckLevel, OrderLevel, Receipts, SlowReader};

use crate::allocations;

/// How long a test waits for anything before it fails: a guard against hanging, not a measure.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Time that passes between two rounds, by the stage's own clock, ns.
const TICK_NS: u64 = 200_000;
/// A topic of order level 5, one of level 2 and one of level 0.
pub const TOPICS: [(&str, OrderLevel); 3] =
    [("session", OrderLevel::Session), ("total", OrderLevel::Total), ("none", OrderLevel::None)];

/// A kind of role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Receive,
    Sequence,
    Ack,
    Export,
}

/// All of them.
pub const ALL: [Kind; 4] = [Kind::Receive, Kind::Sequence, Kind::Ack, Kind::Export];

/// All of them but one.
pub fn all_but(left_out: Kind) -> Vec<Kind> {
    ALL.into_iter().filter(|kind| *kind != left_out).collect()
}

/// Sizes of a stage.
#[derive(Clone, Copy)]
pub struct Setup {
    pub mode: CoherenceMode,
    pub pool_bytes: u64,
    pub lanes: u32,
    pub ring_slots: u32,
    pub segments: u32,
    pub connections_max: u32,
    pub subscribers_max: u32,
    /// What a socket of the broker holds of what is sent, if not what the kernel sees fit; it takes its least at least.
    pub send_buffer_bytes: Option<usize>,
}

impl Setup {
    /// Small, with room for what a few clients do.
    pub fn new(mode: CoherenceMode) -> Setup {
        Setup {
            mode,
            pool_bytes: 16 << 20,
            lanes: 1,
            ring_slots: 64,
            segments: 8,
            connections_max: 16,
            subscribers_max: 8,
            send_buffer_bytes: None,
        }
    }
}

/// What a role comes with.
pub struct Part {
    pub kind: Kind,
    pub role: Box<dyn Role<Ring>>,
    pub operations: u32,
    pub frames: u32,
    /// Most that one poll moves.
    pub bound: usize,
}

/// The pool and the queues of one broker.
pub struct Site {
    pub setup: Setup,
    pub pool: Pool,
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
    links: Vec<Arc<AckLink<RawFd>>>,
    subscriptions: Arc<Subscriptions<TcpStream>>,
    path: PathBuf,
    _lock: HostLock,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Site {
    pub fn new(setup: Setup) -> Site {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let unique = format!("embarcadero-contract-{}-{}", std::process::id(), SITES.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(unique);
        let geometry = Geometry {
            pool_bytes: setup.pool_bytes,
            extent_bytes: 256 << 10,
            hosts: 1,
            brokers: 1,
            lanes_per_broker: setup.lanes,
            candidates: 1,
            ring_slots: setup.ring_slots,
            segment_entries: 64,
            segments: setup.segments,
            sessions_max: 128,
            topics_max: 8,
            cursors_max: 4,
            extents: 0,
            attached_per_broker: 0,
            spare_per_host: 0,
        };
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing)
            .expect("a pool in /dev/shm");
        let lock = pool.lock(LockName::Broker(0)).expect("a new pool is nobody's");
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        if let Some(bytes) = setup.send_buffer_bytes {
            // Connections inherit it.
            rustix::net::sockopt::set_socket_send_buffer_size(&*listener, bytes).expect("sockets can");
        }
        Site {
            address: listener.local_addr().expect("it is bound"),
            listener,
            links: (0..setup.lanes).map(|_| AckLink::new(setup.connections_max + SPARE_CONNECTIONS)).collect(),
            subscriptions: Arc::new(Subscriptions::new(setup.subscribers_max as usize)),
            path,
            _lock: lock,
            pool,
            setup,
        }
    }

    /// The roles, in the order in which a pass goes through them.
    pub fn cast(&self) -> Vec<Part> {
        match self.setup.mode {
            CoherenceMode::Software => self.cast_on::<Software>(),
            CoherenceMode::Hardware => self.cast_on::<Hardware>(),
        }
    }

    /// A new role is one more line here.
    fn cast_on<C: Coherence>(&self) -> Vec<Part> {
        let view = &View::single_host(Mapped::<C>::new(self.pool.mapping().clone()), self.pool.layout().clone());
        let places = self.setup.connections_max + SPARE_CONNECTIONS;
        let subscribers = self.setup.subscribers_max;
        let (all, readers) = (places as usize, subscribers as usize);
        let sessions = self.pool.layout().geometry.sessions_max as usize;
        let part = |kind, role, operations, frames, bound| Part { kind, role, operations, frames, bound };
        let lanes = self.setup.lanes;
        // Each bound is what can lie in the role's queues, or what it takes of them in one pass.
        let receive_bound = 4 * all + all + all + 2;
        let sequence_bound = (SCAN_WINDOW_MAX * lanes) as usize + tables::CHECKPOINTS_PER_PASS + 1;
        let ack_bound = ack::MESSAGES_PER_PASS + ack::tracker::ENTRIES_PER_PASS + sessions + 3 * all * lanes as usize;
        let export_bound = readers + (1 + readers) * reader::ENTRIES_PER_PASS;
        let receive = |lane| part(Kind::Receive, self.receive(view, lane), places + 1, 0, receive_bound);
        let mut parts: Vec<Part> = (0..lanes).map(receive).collect();
        parts.extend([
            part(Kind::Sequence, self.sequence(view), 1, 0, sequence_bound),
            part(Kind::Ack, self.ack(view, places), lanes * places, lanes * places, ack_bound),
            part(Kind::Export, self.export(view), 2 * subscribers, 0, export_bound),
        ]);
        parts
    }

    fn receive<C: Coherence>(&self, view: &View<Mapped<C>>, lane: u32) -> Box<dyn Role<Ring>> {
        let topic = |(name, order): &(&str, OrderLevel)| Topic {
            receipts: Receipts::Message,
            ..Topic::new(name, *order, AckLevel::Committed)
        };
        let settings = ReceiveSettings {
            heartbeat_ms: 0,
            session_expiry_ns: 1 << 60,
            connections_max: self.setup.connections_max,
            receive_bytes_max: 1 << 20,
            landing_bytes: 64 << 10,
            landing_buffers: 4,
            hello_timeout_ns: 60_000_000_000,
            idle_release_ns: 200_000_000,
            client_silence_ns: 0,
            broker: 0,
            log_tag: 1,
            keep: Keep::Cached,
            topics: if lane == 0 { TOPICS.iter().map(topic).collect() } else { Vec::new() },
        };
        let tokens = Tokens::new(self.pool.superblock().token_key);
        let (link, subscriptions) = (self.links[lane as usize].clone(), self.subscriptions.clone());
        Box::new(Receive::new(view, lane, settings, self.listener.clone(), tokens, link, subscriptions))
    }

    fn sequence<C: Coherence>(&self, view: &View<Mapped<C>>) -> Box<dyn Role<Ring>> {
        let settings = SequencerSettings {
            session_lease_ns: 1 << 60,
            session_expiry_ns: 1 << 60,
            retention_bytes: 0,
            retention_ns: 0,
            reader_stall_ns: 1 << 60,
            member_silence_ns: 1 << 60,
        };
        let takeover = TakeoverSettings { after_ns: 1_000_000, settle_ns: 0 };
        let lock = self.pool.lock(LockName::Candidate(0)).expect("nobody else orders");
        Box::new(Sequence::new(view, self.pool.clone(), 0, lock, settings, takeover))
    }

    fn ack<C: Coherence>(&self, view: &View<Mapped<C>>, places: u32) -> Box<dyn Role<Ring>> {
        let tokens = Tokens::new(self.pool.superblock().token_key);
        let settings = AckSettings {
            send: SendMode::Auto,
            zero_copy_from_bytes: 16 << 10,
            open_timeout_ns: 60_000_000_000,
            broker: 0,
            log: bytemuck::Zeroable::zeroed(),
        };
        Box::new(AckRole::new(view, 0, settings, tokens, self.links.clone(), places))
    }

    fn export<C: Coherence>(&self, view: &View<Mapped<C>>) -> Box<dyn Role<Ring>> {
        let settings = ExportSettings {
            connections_max: self.setup.subscribers_max,
            batches_per_send: 64,
            send: SendMode::Auto,
            slow_reader: SlowReader::Wait,
            client_silence_ns: 0,
            reader_stall_ns: 1 << 60,
            reader_lag_max: u64::MAX,
            reader_grace_ns: 1 << 60,
            reader_wait_max_ns: 0,
            return_grace_ns: 2_000_000_000,
            broker: 0,
            log: bytemuck::Zeroable::zeroed(),
        };
        let incarnation = Member::announce(view, 0, Process::default()).incarnation();
        announce_address(view, 0, incarnation, &self.address.to_string());
        Box::new(Export::new(view, 0, incarnation, settings, self.subscriptions.clone()))
    }
}

/// A role with its ring.
pub struct Actor {
    pub kind: Kind,
    ring: Ring,
    role: Box<dyn Role<Ring>>,
    bound: usize,
    /// What it moved in all, by `poll`.
    pub moved: usize,
    /// Most that it moved in one poll.
    pub moved_most: usize,
    /// Passes in which it polled.
    pub polls: usize,
    /// Allocations in its passes.
    pub allocations: u64,
    reported_ns: u64,
}

/// How often a role reports, ns.
const REPORT_NS: u64 = 1_000_000_000;

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    pub completions: usize,
    pub moved: usize,
}

/// A broker on the test's thread.
pub struct Stage {
    pub actors: Vec<Actor>,
    pub now: Now,
    view: View<Mapped<Hardware>>,
    commit: CommitReader<Mapped<Hardware>>,
    /// Places in the pool that others see.
    seen: Vec<(u64, u64)>,
    before: Vec<u8>,
    after: Vec<u8>,
    pub site: Site,
}

impl Stage {
    /// Started, with its topics created, and quiet.
    pub fn new(setup: Setup) -> Stage {
        let site = Site::new(setup);
        let now = Now { monotonic_ns: 1_000_000_000, utc_ns: 1 };
        let actors = site.cast().into_iter().map(|part| Self::start(part, &site, now)).collect();
        let view = View::single_host(Mapped::<Hardware>::new(site.pool.mapping().clone()), site.pool.layout().clone());
        let commit = CommitReader::new(&view);
        let seen = seen_by_others(&view);
        let mut stage = Stage { actors, now, commit, seen, view, before: Vec::new(), after: Vec::new(), site };
        stage.run_until("the topics", &ALL, |stage| stage.topics() == TOPICS.len());
        stage.settle();
        stage
    }

    fn start(part: Part, site: &Site, now: Now) -> Actor {
        let Part { kind, mut role, operations, frames, bound } = part;
        let mut ring = Ring::new(operations + 16, frames, site.pool.mapping().clone()).expect("an io_uring");
        role.start(&mut ring, 0, now).expect("it starts");
        Actor { kind, ring, role, bound, moved: 0, moved_most: 0, polls: 0, allocations: 0, reported_ns: 0 }
    }

    /// Topics that exist.
    pub fn topics(&self) -> usize {
        let mut topics = embarcadero::log::topics::TopicReader::new(&self.view);
        topics.refresh();
        topics.known().len()
    }

    /// Index positions committed.
    pub fn committed(&self) -> u64 {
        self.commit.current().map_or(0, |commit| commit.watermark)
    }

    /// Slots produced in all lanes, but for those that close extents and lie in a ring yet.
    pub fn produced(&self) -> u64 {
        let layout = &self.view.layout;
        let closes = |lane| {
            let kind = move |slot| self.view.memory.load(layout.ring_slot(lane, slot) + 8) as u8;
            let closes =
                (0..u64::from(layout.geometry.ring_slots)).filter(|slot| kind(*slot) == slot_kind::EXTENT_CLOSE);
            closes.count() as u64
        };
        (0..self.site.setup.lanes).map(|lane| self.produced_in(lane) - closes(lane)).sum()
    }

    /// Slots produced in a lane.
    pub fn produced_in(&self, lane: u32) -> u64 {
        let layout = &self.view.layout;
        let guard = |slot| self.view.memory.load(layout.ring_slot(lane, slot));
        (0..u64::from(layout.geometry.ring_slots)).map(guard).max().unwrap_or(0)
    }

    /// Whether the lane holds receives back for want of room.
    pub fn is_paused(&self) -> bool {
        self.view.memory.load(self.view.layout.lane_status(0) + 24) == 1
    }

    pub fn actor(&self, kind: Kind) -> &Actor {
        self.actors.iter().find(|actor| actor.kind == kind).expect("all are on stage")
    }

    /// Everything others see of the pool and the queues, and how many operations this role has under way.
    fn look(&self, index: usize, into: &mut Vec<u8>) {
        into.clear();
        for (at, bytes) in &self.seen {
            self.view.memory.with_bytes(*at, *bytes, |bytes| into.extend_from_slice(bytes));
        }
        let commit = self.commit.current().map_or((0, 0), |commit| (commit.epoch, commit.watermark));
        let links = || self.site.links.iter();
        let to_ack: usize = links().map(|link| link.to_ack.len()).sum();
        let from_ack: usize = links().map(|link| link.from_ack.len()).sum();
        let queues = [to_ack, from_ack, self.site.subscriptions.len()];
        let words = [commit.0, commit.1, self.actors[index].ring.room() as u64];
        words.iter().chain(&queues.map(|len| len as u64)).for_each(|word| into.extend_from_slice(&word.to_le_bytes()));
    }

    /// One pass of one role, held to the contract.
    pub fn pass(&mut self, index: usize) -> Pass {
        let now = self.now;
        let actor = &mut self.actors[index];
        let allocated = allocations();
        let completions = actor.complete(now);
        let allocated_completing = allocations() - allocated;
        let mut before = std::mem::take(&mut self.before);
        self.look(index, &mut before);
        let actor = &mut self.actors[index];
        let allocated = allocations();
        let moved = actor.role.poll(&mut actor.ring, now);
        actor.ring.submit(None).expect("a ring submits");
        if now.monotonic_ns.saturating_sub(actor.reported_ns) >= REPORT_NS {
            actor.reported_ns = now.monotonic_ns;
            actor.role.report(now);
        }
        actor.allocations += allocated_completing + allocations() - allocated;
        actor.moved += moved;
        actor.moved_most = actor.moved_most.max(moved);
        actor.polls += 1;
        let (name, bound) = (actor.role.name().to_owned(), actor.bound);
        if moved == 0 {
            assert!(actor.role.fault().is_none(), "{name} reports a fault");
            let mut after = std::mem::take(&mut self.after);
            self.look(index, &mut after);
            let differs = before.iter().zip(&after).position(|(before, after)| before != after);
            assert_eq!(differs, None, "{name} says that nothing moved, and changed {}", self.place_of(differs));
            self.after = after;
        }
        self.before = before;
        assert!(moved <= bound, "{name} moved {moved} in one poll, its bound is {bound}");
        Pass { completions, moved }
    }

    /// In words, what lies at a byte of a look.
    fn place_of(&self, byte: Option<usize>) -> String {
        let mut left = byte.unwrap_or(0) as u64;
        for (at, bytes) in &self.seen {
            if left < *bytes {
                return format!("the pool at {:#x}", at + left);
            }
            left -= bytes;
        }
        let words = ["the epoch", "the watermark", "its operations", "to_ack", "from_ack", "subscriptions"];
        words[(left / 8) as usize].to_owned()
    }

    /// One pass of each of these roles.
    pub fn round(&mut self, kinds: &[Kind]) -> Pass {
        let mut sum = Pass::default();
        for index in 0..self.actors.len() {
            if kinds.contains(&self.actors[index].kind) {
                let pass = self.pass(index);
                sum.completions += pass.completions;
                sum.moved += pass.moved;
            }
        }
        self.now.monotonic_ns += TICK_NS;
        sum
    }

    /// Rounds of these roles until something is so.
    pub fn run_until(&mut self, what: &str, kinds: &[Kind], mut is_so: impl FnMut(&mut Stage) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self) {
            self.round(kinds);
            assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        }
    }

    /// Rounds until nothing has moved for a while. Gives how many it took.
    pub fn settle(&mut self) -> usize {
        const QUIET: usize = 100;
        const ROUNDS_MAX: usize = 20_000;
        let mut quiet = 0;
        for round in 0..ROUNDS_MAX {
            quiet = if self.round(&ALL) == Pass::default() { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return round;
            }
        }
        panic!("something still moves after {ROUNDS_MAX} rounds without work");
    }

    /// What the kernel has for the roles is ready, and they have not seen it: as when more was ready than a pass takes.
    pub fn let_the_kernel_work(&mut self) {
        self.actors.iter_mut().for_each(|actor| actor.ring.submit(None).expect("a ring submits"));
    }

    /// One drain of each of these roles, then its completions. True if every one says that nothing is left.
    pub fn drain_round(&mut self, kinds: &[Kind], elapsed_ns: u64) -> bool {
        let now = self.now;
        let mut is_drained = true;
        for actor in self.actors.iter_mut().filter(|actor| kinds.contains(&actor.kind)) {
            is_drained &= actor.role.drain(&mut actor.ring, now);
            actor.complete(now);
        }
        self.now.monotonic_ns += elapsed_ns;
        is_drained
    }
}

impl Actor {
    fn complete(&mut self, now: Now) -> usize {
        self.ring.submit(None).expect("a ring submits");
        for taken in 0..COMPLETIONS_PER_PASS_MAX {
            let Some(completion) = self.ring.next_completion() else { return taken };
            self.role.complete(&mut self.ring, completion, now);
        }
        COMPLETIONS_PER_PASS_MAX
    }

    /// Whether it lets its thread sleep.
    pub fn may_sleep(&self) -> bool {
        self.role.may_sleep()
    }

    /// Operations it can begin besides those under way.
    pub fn room(&self) -> usize {
        self.ring.room()
    }

    /// Counts allocations from here on.
    pub fn forget_allocations(&mut self) {
        self.allocations = 0;
    }
}

/// What roles hand on through the pool: everything but counters, heartbeats, lane status, pins and payload.
fn seen_by_others(view: &View<Mapped<Hardware>>) -> Vec<(u64, u64)> {
    let layout = &view.layout;
    let g = &layout.geometry;
    let lines = |first: u64, count: u32| (first, u64::from(count) * 64);
    vec![
        lines(layout.floor_line(0), 1),
        lines(layout.lane_progress(0, 0), g.lanes()),
        (layout.topic_line(0, 0, 0), layout.topic_line(0, g.topics_max - 1, 3) + 64 - layout.topic_line(0, 0, 0)),
        lines(layout.session_line(0, 0), g.sessions_max),
        lines(layout.directory_line(0, 0, 0, 0), 2 * g.candidates * g.candidates * g.segments),
        lines(layout.holding_line(0, 0), g.extents),
        lines(layout.grant_line(0, 0, 0), g.lanes() * GRANTS_AHEAD_MAX),
        lines(layout.extent_line(0), g.extents),
        lines(layout.ring_slot(0, 0), g.lanes() * g.ring_slots),
        lines(layout.index_entry(0, 0, 0), g.segments * g.segment_entries),
    ]
}
