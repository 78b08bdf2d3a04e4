//! The exporter: serves the ordered stream of topics to subscribers, straight out of the blog.
//!
//! Every subscription follows the index with its own cursor ([`crate::log::reader`]) and has one vectored send under way: a
//! Deliver header from the list's memory, the batch from the pool, again. What the kernel still has is pinned until it completes.
//! Those that have everything rest, and one cursor stands for all of them ([`crate::log::tail`]).
//!
//! * `serving`: one pass over those that are served: what is read for them, and what they are sent.
//! * `sending`: sends, and what the kernel says of them.
//! * `ending`: what a subscriber says, how it ends, and places kept for those whose connection broke.
//! * `slow`: readers that were waited for and went.
//! * `pace`: subscriptions that keep memory from being used again: waited for, made to skip, or let go.

#[cfg(test)]
mod damage_tests;
mod deliveries;
mod ending;
mod invariants;
mod pace;
#[cfg(test)]
mod resting_tests;
mod sending;
mod serving;
mod slow;
#[cfg(test)]
mod slow_tests;
#[cfg(test)]
mod superseded_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::SendMode;
use crate::log::View;
use crate::log::brokers::BrokerList;
use crate::log::commit::CommitReader;
use crate::log::reader::Reader;
use crate::log::retention::{Hold, NO_PIN};
use crate::log::tail::Tail;
use crate::log::topics::TopicReader;
use crate::net::network::SEND_LIST_MAX;
use crate::net::{Asker, Completion, ListId, Network, Operation, Socket, Stage};
use crate::observe::counters::{CounterBlock, ExportCounters};
use crate::observe::stages::{LastStage, Places};
use crate::pool::Memory;
use crate::roles::addresses::Admission;
use crate::roles::distance::Distances;
use crate::roles::export::deliveries::Deliveries;
use crate::roles::handoff::{Subscription, Subscriptions, is_loopback};
use crate::roles::heartbeats::{Looks, Quiet};
use crate::runtime::{Blocked, Now, Role, RoleError, RoleKind};
use crate::wire::frame::LogRecord;
use crate::wire::{OrderLevel, Refusal, SlowReader};

/// What the configuration says about exporting.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// Most subscribers.
    pub connections_max: u32,
    /// Most batches of one send.
    pub batches_per_send: u32,
    /// How batches are sent.
    pub send: SendMode,
    /// What becomes of a subscription that does not say what is to become of it when it is too slow.
    pub slow_reader: SlowReader,
    /// Time a subscription that others wait for may take nothing, ns.
    pub reader_stall_ns: u64,
    /// Others wait for a subscription up to this lag, bytes; 0: as much as fits.
    pub reader_lag_max: u64,
    /// Time a subscription that is not waited for may keep memory, ns.
    pub reader_grace_ns: u64,
    /// Time in which a subscription that others wait for has to get to where the log's end was when they began to, ns; 0: any.
    pub reader_wait_max_ns: u64,
    /// Time for which the place of a reader whose connection broke is kept, ns.
    pub return_grace_ns: u64,
    /// This broker's number.
    pub broker: u16,
    /// Which log this is, and how often its subscribers are told something.
    pub log: LogRecord,
    /// Silence after which a subscriber that promised to be heard is gone, ns; 0: never.
    pub client_silence_ns: u64,
}

/// How long readers that were waited for are taken to be so without another look, ns: far below the shortest
/// `liveness.member_silence`, 100 ms.
const TRUST_NS: u64 = 1_000_000;
/// Time a subscriber may take nothing while the broker wants to end, ns.
const DRAIN_STALL_NS: u64 = 500_000_000;
/// Time after which it ends whoever is left, ns.
const DRAIN_NS: u64 = 2_000_000_000;
/// Time for which it keeps the places of those that were sent to other brokers, ns.
const DRAIN_KEEP_NS: u64 = 300_000_000;
/// Break-even of zero copy, bytes (3 KB measured on kernels from 6.10, more before).
const ZERO_COPY_FROM_BYTES: u64 = 16 << 10;

/// Kinds of operations, in the top byte of the tag.
const SEND: u64 = 0;
const WATCH: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Seeking,
    Streaming,
    /// Words are being said; then it ends.
    Refusing,
    /// Waits for the kernel to give everything back.
    Ending,
}

/// A topic of a subscription.
struct ServedTopic {
    id: u32,
    created_position: u64,
    order: OrderLevel,
    /// Order of the next message to be put into a list.
    next_order: u64,
    told_caught_up: bool,
}

/// What an item of a list does to its topic.
#[derive(Clone, Copy)]
struct Item {
    /// Its rank in the subscription.
    place: usize,
    /// Where the cursor stands once it is sent.
    position: u64,
    /// Next order of the topic if it is not sent.
    before: u64,
}

/// Where a subscriber is, for people.
#[derive(Clone, Copy)]
struct Peer(Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => write!(out, "{address}"),
            None => out.write_str("an address that is gone"),
        }
    }
}

struct Subscriber<M: Memory, S: Socket> {
    socket: S,
    /// Counts for its address as long as it is here.
    _admission: Option<Admission>,
    peer: Peer,
    /// Protocol version in use.
    version: u8,
    /// How long it was told nothing.
    quiet: Quiet,
    /// The version of the list of brokers that it was told.
    told_brokers: u64,
    came_ns: u64,
    /// When it was last heard, ns.
    heard_ns: u64,
    /// It is heard at least this often, ms; 0: it does not promise that.
    heartbeat_ms: u32,
    generation: u32,
    topics: Box<[ServedTopic]>,
    phase: Phase,
    reader: Reader<M>,
    list: ListId,
    /// What is in the list.
    items: Vec<Item>,
    sending: Option<Operation>,
    /// Result of a zero-copy send whose bytes the kernel still has.
    accepted: Option<i32>,
    /// The send under way lends pages of the pool to the socket.
    is_zero_copy: bool,
    again: sending::Again,
    trail: ending::Trail,
    is_loopback: bool,
    watching: Option<Operation>,
    hearing: ending::Hearing,
    /// It broke the protocol: until when it is to be told so, and why.
    parting: Option<(u64, String)>,
    /// It was told why it ends, and may close first.
    lingers: bool,
    ending_since_ns: Option<u64>,
    /// When the kernel is asked again for what it has.
    force_at_ns: u64,
    told_late: bool,
    /// Lowest position whose bytes the kernel may still have.
    lent_from: u64,
    progress_ns: u64,
    pace: pace::Pace,
    /// Since when, ns, and in how many passes it could not be read on for it.
    faults: Option<(u64, u32)>,
}

impl<M: Memory, S: Socket> Subscriber<M, S> {
    /// Whether something is on its way to it.
    fn is_busy(&self) -> bool {
        self.sending.is_some() || self.again.is_due()
    }

    /// The lowest position it keeps from being given up, unless it rests. Once it is over, only what the kernel still has counts.
    fn needs(&self) -> u64 {
        match self.phase {
            Phase::Seeking | Phase::Streaming => self.lent_from.min(self.reader.needs()),
            Phase::Refusing | Phase::Ending => self.lent_from,
        }
    }
}

/// One broker's exporter.
pub struct Export<M: Memory, N: Network> {
    name: String,
    role: u8,
    settings: ExportSettings,
    batch_bytes_max: u32,
    view: View<M>,
    commit: CommitReader<M>,
    topics: TopicReader<M>,
    brokers: BrokerList<M>,
    /// What the readers pin together.
    hold: Hold<M>,
    /// When it was last known that they were waited for; until it is known again, nothing is handed on.
    looked_ns: u64,
    is_waited_for: bool,
    incoming: Arc<Subscriptions<N::Socket>>,
    subscribers: Vec<Option<Subscriber<M, N::Socket>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Places taken.
    active: Vec<u32>,
    /// Those of them that do not rest.
    awake: Vec<u32>,
    /// The shared cursor of those that rest.
    tail: Tail<M>,
    /// What is read for whom in a pass.
    reads: Vec<(u32, serving::Read)>,
    /// Where the next pass begins among those that are awake.
    turn: usize,
    kept: ending::Kept,
    slow: slow::Slow,
    /// For how long publishers have waited for the slowest of this second, ns; its address, and its first topic.
    waited_for: Option<(u64, u64, u32)>,
    counters: ExportCounters,
    deliveries: Deliveries<M>,
    times: LastStage<M>,
    distances: Distances,
    block: CounterBlock<M>,
    draining_since_ns: Option<u64>,
    /// Looks for quiet and silent subscribers.
    looks: Looks,
}

impl<M: Memory, N: Network> Export<M, N> {
    /// A broker's exporter. The caller holds the broker's host lock; `incarnation` is from 1.
    pub fn new(
        view: &View<M>,
        broker: u32,
        incarnation: u64,
        settings: ExportSettings,
        incoming: Arc<Subscriptions<N::Socket>>,
    ) -> Self {
        let seats = settings.connections_max;
        Export {
            name: format!("export {broker}"),
            role: 0,
            batch_bytes_max: view.layout.geometry.batch_bytes_max() as u32,
            view: view.clone(),
            commit: CommitReader::new(view),
            topics: TopicReader::new(view),
            brokers: BrokerList::new(view, broker),
            hold: Hold::take_on(view, broker, incarnation),
            looked_ns: 0,
            is_waited_for: true,
            incoming,
            subscribers: (0..seats).map(|_| None).collect(),
            generations: vec![0; seats as usize],
            free: (0..seats).rev().collect(),
            active: Vec::with_capacity(seats as usize),
            awake: Vec::with_capacity(seats as usize),
            tail: Tail::new(view, seats),
            reads: Vec::with_capacity(seats as usize),
            turn: 0,
            kept: ending::Kept::default(),
            slow: slow::Slow::new(settings.reader_stall_ns.max(settings.reader_wait_max_ns)),
            waited_for: None,
            counters: ExportCounters::default(),
            deliveries: Deliveries::new(view, broker),
            distances: Distances::default(),
            times: LastStage::new(
                &view.memory,
                &view.layout,
                Places::of_deliveries(&view.layout, broker),
                8 * SEND_LIST_MAX,
            ),
            block: CounterBlock::new(view.memory.clone(), view.layout.export_counters(broker)),
            draining_since_ns: None,
            looks: Looks::new(settings.log.heartbeat_ms),
            settings,
        }
    }

    fn asker(&self, seat: u32, kind: u64) -> Asker {
        let generation = u64::from(self.generations[seat as usize] & 0x00ff_ffff);
        Asker { role: self.role, tag: kind << 56 | generation << 32 | u64::from(seat) }
    }

    fn subscriber(&mut self, seat: u32) -> &mut Subscriber<M, N::Socket> {
        self.subscribers[seat as usize].as_mut().expect("the seat is taken")
    }

    /// Takes new subscribers in: pins the floor for each, so that it can look for its start.
    fn take_in(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        while self.free.is_empty()
            && let Some(subscription) = self.incoming.pop()
        {
            moved += 1;
            self.counters.refused += 1;
            let text = "this broker serves all the subscribers it can; try another";
            ending::refuse_at_once(&subscription.socket, Refusal::Busy, text);
        }
        while !self.free.is_empty() && !self.incoming.is_empty() {
            // Before a sequencer has been active, and during a takeover, there are no floors: they wait in the queue.
            let floor = self.hold.lower_to_floor();
            if floor.is_none()
                && let Some(fault) = self.hold.floors().fault()
            {
                log::error!("{}: cannot pin what subscribers read: {fault}", self.name);
                while let Some(subscription) = self.incoming.pop() {
                    moved += 1;
                    self.counters.refused += 1;
                    ending::refuse_at_once(&subscription.socket, Refusal::Damaged, &fault.to_string());
                }
            }
            let Some(floor) = floor else { break };
            let Some(subscription) = self.incoming.pop() else { break };
            moved += 1;
            self.admit(io, subscription, floor, now);
        }
        moved
    }

    fn admit(&mut self, io: &mut N, subscription: Subscription<N::Socket>, floor: u64, now: Now) {
        let seat = self.free.pop().expect("looked at by the caller");
        self.generations[seat as usize] = self.generations[seat as usize].wrapping_add(1);
        let Subscription { socket, topics, slow_reader, lag_bytes, version, heartbeat_ms, in_heartbeats, admission } =
            subscription;
        let pace = pace::Pace::new(&self.settings, slow_reader, lag_bytes);
        let starts = topics.iter().map(crate::roles::handoff::SubscribedTopic::start_at);
        let reader = Reader::new(&self.view, starts, floor, pace.policy == SlowReader::Skip);
        let peer = Peer(socket.peer());
        let is_loopback = peer.0.is_some_and(|peer| is_loopback(peer.ip()));
        let watching = io.poll_readable(self.asker(seat, WATCH), socket.handle());
        let topic = |topic: &crate::roles::handoff::SubscribedTopic| ServedTopic {
            id: topic.topic,
            created_position: topic.created_position,
            order: topic.order,
            next_order: 0,
            told_caught_up: false,
        };
        self.subscribers[seat as usize] = Some(Subscriber {
            socket,
            _admission: admission,
            peer,
            version,
            quiet: Quiet::new(in_heartbeats),
            told_brokers: 0,
            came_ns: now.monotonic_ns,
            heard_ns: now.monotonic_ns,
            heartbeat_ms,
            generation: self.generations[seat as usize] & 0x00ff_ffff,
            topics: topics.iter().map(topic).collect(),
            phase: Phase::Seeking,
            reader,
            list: io.take_list(),
            items: Vec::with_capacity(SEND_LIST_MAX),
            sending: None,
            accepted: None,
            is_zero_copy: false,
            again: sending::Again::default(),
            trail: ending::Trail::default(),
            is_loopback,
            watching,
            hearing: ending::Hearing::new(),
            parting: None,
            lingers: false,
            ending_since_ns: None,
            force_at_ns: 0,
            told_late: false,
            lent_from: NO_PIN,
            progress_ns: now.monotonic_ns,
            pace,
            faults: None,
        });
        self.active.push(seat);
        self.awake.push(seat);
        self.counters.accepted += 1;
    }

    /// Moves the pin to the lowest position any reader needs.
    fn move_pin(&mut self) {
        let lowest = self.lowest_needed();
        self.hold.raise(lowest);
    }

    fn lowest_needed(&self) -> u64 {
        let awake = self.awake.iter().filter_map(|seat| self.subscribers[*seat as usize].as_ref());
        let lowest = awake.map(Subscriber::needs).min().unwrap_or(NO_PIN);
        let lowest = lowest.min(self.tail.needs());
        lowest.min(self.kept.lowest())
    }

    fn write_counters(&mut self, now: Now) {
        let (waited_ns, address, topic) = self.waited_for.take().unwrap_or_default();
        (self.counters.waited_ms, self.counters.waited_address) = (waited_ns / 1_000_000, address);
        self.counters.waited_topic = topic.into();
        self.counters.connections = self.active.len() as u64;
        let (active, subscribers) = (&self.active, &self.subscribers);
        let socket = |place: usize| subscribers[active[place] as usize].as_ref().map(|subscriber| &subscriber.socket);
        let farthest = self.distances.look(active.len(), socket);
        (self.counters.farthest_us, self.counters.farthest_address) = (farthest.round_trip_us, farthest.address);
        self.block.write(&self.counters);
        // One that still seeks its start has not come anywhere.
        let streaming = |subscriber: &&Subscriber<M, N::Socket>| subscriber.phase == Phase::Streaming;
        let followed = active.iter().filter_map(|seat| subscribers[*seat as usize].as_ref()).filter(streaming);
        let served = followed.flat_map(|subscriber| &subscriber.topics);
        // Of now, as what they were sent is: what is shown by others is up to a second old.
        let end = |topic: &ServedTopic| self.topics.progress(topic.id).map_or(0, |progress| progress.next_order);
        let behind = |topic: &ServedTopic| end(topic).saturating_sub(topic.next_order);
        self.deliveries.write(served.map(|topic| (topic.id, topic.created_position, behind(topic))));
        self.times.settle(now.utc_ns);
        self.times.write(now.monotonic_ns);
    }
}

impl<M: Memory, N: Network> Role<N> for Export<M, N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> RoleKind {
        RoleKind::Export
    }

    fn start(&mut self, _io: &mut N, index: u8, now: Now) -> Result<(), RoleError> {
        self.role = index;
        self.kept.begin(self.hold.position(), now.monotonic_ns.saturating_add(self.settings.return_grace_ns));
        Ok(())
    }

    fn complete(&mut self, io: &mut N, completion: Completion, now: Now) {
        let (seat, generation) = (completion.tag as u32, (completion.tag >> 32) as u32 & 0x00ff_ffff);
        // What is left of a list is handed on at once, and this may be the first thing after the process stood still.
        self.look(io, now);
        let known = self.subscribers[seat as usize].as_ref();
        if known.is_none_or(|subscriber| subscriber.generation != generation) {
            return;
        }
        if completion.tag >> 56 == SEND {
            return match completion.stage {
                // The bytes are lent until the second completion, which has no result of its own.
                Stage::Accepted => self.subscriber(seat).accepted = Some(completion.result),
                Stage::Released { copied } => {
                    self.counters.zero_copy_copied += u64::from(copied);
                    let result = self.subscriber(seat).accepted.take().unwrap_or(0);
                    self.sent(io, seat, result, now)
                }
                Stage::Done => self.sent(io, seat, completion.result, now),
            };
        }
        self.subscriber(seat).watching = None;
        self.hear(io, seat, now);
    }

    fn poll(&mut self, io: &mut N, now: Now) -> usize {
        self.brokers.look(!self.incoming.is_empty(), now.monotonic_ns);
        self.times.settle(now.utc_ns);
        let mut moved = self.look(io, now) + self.take_in(io, now);
        if !self.active.is_empty()
            && self.is_waited_for
            && let Some(commit) = self.commit.current()
        {
            let access = self.view.access_to_candidate(commit.candidate);
            self.times.committed(commit.candidate, access, commit.watermark);
            moved += self.serve_all(io, &commit, now);
        }
        moved += self.beat(io, now);
        self.force_endings(io, now);
        self.expire_kept(now);
        self.move_pin();
        moved
    }

    fn report(&mut self, now: Now) {
        self.write_counters(now);
    }

    fn blocked(&self) -> Option<Blocked> {
        let is_busy = |seat: &u32| self.subscribers[*seat as usize].as_ref().is_some_and(Subscriber::is_busy);
        (!self.awake.is_empty() && self.awake.iter().all(is_busy)).then_some(Blocked::Peers)
    }

    fn check(&self, _now: Now) {
        self.check_all();
    }

    fn waits_for(&self) -> Option<String> {
        let (active, kept) = (self.active.len(), self.kept.len());
        Some(format!("{active} subscribers to take what is on its way to them, {kept} that went to other brokers"))
    }

    fn drain(&mut self, io: &mut N, now: Now) -> bool {
        let since_ns = *self.draining_since_ns.get_or_insert(now.monotonic_ns);
        let why = "this broker is shutting down; use another";
        while let Some(subscription) = self.incoming.pop() {
            ending::refuse_at_once(&subscription.socket, Refusal::Draining, why);
        }
        self.look(io, now);
        self.rouse_all();
        let is_late = now.monotonic_ns - since_ns > DRAIN_NS;
        for index in (0..self.active.len()).rev() {
            let seat = self.active[index];
            let subscriber = self.subscriber(seat);
            let still_ns = now.monotonic_ns.saturating_sub(subscriber.progress_ns.max(since_ns));
            let is_busy = subscriber.is_busy();
            match subscriber.phase {
                Phase::Seeking | Phase::Streaming if !is_busy => {
                    if subscriber.phase == Phase::Streaming {
                        // It goes on with another broker, which has not pinned that yet.
                        let needs = subscriber.needs();
                        self.keep(needs, self.settings.return_grace_ns.min(DRAIN_KEEP_NS), now);
                    }
                    self.refuse(io, seat, Refusal::Draining, (0, 0), why);
                }
                // It takes nothing, not even the last words, or next to nothing.
                Phase::Seeking | Phase::Streaming | Phase::Refusing if still_ns > DRAIN_STALL_NS || is_late => {
                    self.end_at_once(io, seat);
                }
                Phase::Ending => {}
                _ => {
                    self.try_again(io, seat, now);
                }
            }
        }
        self.force_endings(io, now);
        self.expire_kept(now);
        self.move_pin();
        self.active.is_empty() && self.kept.is_empty()
    }
}
