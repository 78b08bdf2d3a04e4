//! What a seed chooses: how many of everything, where it lives, how unkind the world is.

use crate::config::SendMode;
use crate::limits::ATTACHED_READERS_PER_BROKER;
use crate::log::Homes;
use crate::pool::Geometry;
use crate::runtime::Now;
use crate::sim::part::Part;
use crate::sim::process::Sabotage;
use crate::testing::memory::Whim;
use crate::testing::random::Random;
use crate::wire::{OrderLevel, Receipts, SlowReader};

/// Extents of an attached lane.
const ATTACHED_EXTENTS: u16 = 4;
/// The shortest time for which a session is kept that nobody has, ns: longer than a lease.
const SESSION_EXPIRY_SHORT_NS: u64 = 200_000_000;
/// A broker comes for the first time by then, ns.
const JOIN_NS_MAX: u64 = 150_000_000;
/// Hosts of a world at most.
const HOSTS_MAX: u64 = 3;
/// What the time of day was when the world began, UTC ns.
pub const UTC_NS: u64 = 1_700_000_000_000_000_000;

/// Kinds of misfortune. Each can be switched off, which is how a failing run is made small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A process is held up between two operations on memory while others run.
    HoldUp,
    /// A process is killed between two operations on memory.
    KillInStep,
    /// A broker process is killed between two duty cycles.
    KillBroker,
    /// A broker is asked to end: it drains, and comes back.
    StopBroker,
    /// A sequencer candidate is killed between two duty cycles.
    KillSequencer,
    /// A host loses power: its processes die, and its cache is lost.
    PowerLoss,
    /// A process of the pool is stopped, and later goes on.
    Pause,
    /// A publisher dies, and another takes its place with a session of its own; or an attached client does.
    KillPublisher,
    /// A publisher says nothing for a while.
    SilentPublisher,
    /// A subscriber stops reading for a while.
    SlowSubscriber,
    /// A connection breaks.
    Cut,
    /// A connection carries nothing for a while.
    Stall,
    /// A connection carries nothing any more, and neither end is told: whoever was there may be gone without a word.
    HalfOpen,
    /// A host's time of day jumps.
    ClockJump,
    /// Memory of an extent fails under a broker process: that notes where, and is gone. Once in a run, so that enough is left.
    MemoryFailure,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 15] = [
        Fault::HoldUp,
        Fault::KillInStep,
        Fault::KillBroker,
        Fault::StopBroker,
        Fault::KillSequencer,
        Fault::PowerLoss,
        Fault::Pause,
        Fault::KillPublisher,
        Fault::SilentPublisher,
        Fault::SlowSubscriber,
        Fault::Cut,
        Fault::Stall,
        Fault::HalfOpen,
        Fault::ClockJump,
        Fault::MemoryFailure,
    ];

    /// Its place in [`Fault::ALL`].
    pub fn index(self) -> usize {
        Fault::ALL.iter().position(|fault| *fault == self).expect("every kind is listed")
    }
}

/// The clocks of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostClock {
    /// How long before the world it began, ns.
    pub up_ns: u64,
    /// How much faster it goes than the world's, thousandths.
    pub faster: i64,
    /// How far its time of day is ahead, ns.
    pub ahead_ns: i64,
}

impl HostClock {
    /// What it shows.
    pub fn read(&self, now_ns: u64) -> Now {
        // Of the whole time: rounded down before it is multiplied, a slow clock would go back a little now and then.
        let since_ns = now_ns.saturating_add_signed((i128::from(now_ns) * i128::from(self.faster) / 1000) as i64);
        Now { monotonic_ns: self.up_ns + since_ns, utc_ns: (UTC_NS + since_ns).saturating_add_signed(self.ahead_ns) }
    }
}

/// One run of the world, completely described.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Where every choice comes from.
    pub seed: u64,
    /// Hosts.
    pub hosts: usize,
    /// Home host of each broker.
    pub brokers: Vec<u32>,
    /// When each broker comes for the first time, ns; others are there at once.
    pub joins_ns: Vec<u64>,
    /// A broker that starts again may have another address. Who knows of no other than the first finds room there: whoever is refused is not told of
    /// others.
    pub brokers_move: bool,
    /// The last broker's place is spare, on a single host: no memory is its own before it comes.
    pub has_spare: bool,
    /// Home host of each sequencer candidate.
    pub candidates: Vec<u32>,
    /// Clocks of each host, as they begin.
    pub clocks: Vec<HostClock>,
    /// Order level of each topic.
    pub topics: Vec<OrderLevel>,
    /// Somebody deletes topics, and creates them again.
    pub topics_go: bool,
    /// Receive cores of each broker.
    pub lanes_per_broker: u32,
    /// Publishers at once.
    pub publishers: usize,
    /// Connections of a publisher to each broker.
    pub connections_per_broker: usize,
    /// Batches a publisher may have unacked.
    pub window: usize,
    /// Subscribers.
    pub subscribers: usize,
    /// Administrators.
    pub admins: usize,
    /// Clients that do not keep to the protocol.
    pub strangers: usize,
    /// Connections that a broker serves.
    pub connections_max: u32,
    /// How brokers send.
    pub send: SendMode,
    /// What becomes of subscribers that are too slow.
    pub slow_reader: SlowReader,
    /// Subscribers are waited for up to this lag, bytes; 0: as much as fits.
    pub reader_lag_max: u64,
    /// Time in which one that others wait for has to get to where the log's end was, ns; 0: any.
    pub reader_wait_max_ns: u64,
    /// Time for which the place of a reader whose connection broke is kept, ns.
    pub return_grace_ns: u64,
    /// Brokers and clients promise to be heard this often, ms; 0: they do not.
    pub heartbeat_ms: u32,
    /// Subscribers of one broker at once.
    pub subscribers_per_broker: u32,
    /// Time for which a session is kept that nobody has, ns.
    pub session_expiry_ns: u64,
    /// All clients come from one address.
    pub is_one_address: bool,
    /// Connections of one address at one broker.
    pub connections_per_address: u32,
    /// Sessions of one address at one broker.
    pub sessions_per_address: u32,
    /// Openings of one address at one broker, a second; 0: any.
    pub openings: u32,
    /// Sockets often take one byte, or a few, of what is sent.
    pub has_short_sends: bool,
    /// Retention of the topic, bytes; 0: as much as fits.
    pub retention_bytes: u64,
    /// Retention of the topic, ns; 0: as long as it fits.
    pub retention_ns: u64,
    /// Processes that publish without a broker; at most as many as there are brokers.
    pub attached_publishers: u32,
    /// Processes that subscribe without a broker; at most as many as there are brokers.
    pub attached_subscribers: u32,
    /// A pin that is in the way and is not renewed for so long is not waited for, ns.
    pub reader_stall_ns: u64,
    /// Where receipts are stamped.
    pub receipts: Receipts,
    /// How unkind the caches are.
    pub whim: Whim,
    /// Steps with faults and load; then everything must come to rest.
    pub steps: u64,
    /// Kinds of faults that happen, by their index.
    pub faults: [bool; Fault::ALL.len()],
    /// Faults in ten thousand steps.
    pub fault_rate: u64,
    /// Faults at most.
    pub faults_max: u64,
    /// Steps in a hundred that are held up.
    pub hold_up_rate: u64,
    /// Simulated time a step takes on average, ns.
    pub step_ns: u64,
    /// Largest payload, bytes.
    pub payload_bytes_max: u64,
    /// Steps in a hundred in which an attached subscriber stands still, for long; 0: as everybody.
    pub readers_stand_still: u64,
    /// Time for which the world is left alone once it is at rest, ns.
    pub left_alone_ns: u64,
    /// Part of the line protocol left out: for canaries only.
    pub sabotage: Sabotage,
}

/// Clocks of as many hosts as there may be.
fn clocks(random: &mut Random) -> Vec<HostClock> {
    if random.chance(1, 2) {
        return vec![HostClock::default(); HOSTS_MAX as usize];
    }
    let clock = |_| HostClock {
        up_ns: random.below(1 << 40),
        faster: random.below(201) as i64 - 100,
        ahead_ns: random.below(2_000_000_000) as i64 - 1_000_000_000,
    };
    (0..HOSTS_MAX).map(clock).collect()
}

/// Order levels of some topics: mostly the highest.
fn topics(random: &mut Random) -> Vec<OrderLevel> {
    let below = [OrderLevel::None, OrderLevel::Broker, OrderLevel::Total, OrderLevel::Connection];
    let count = 1 + random.below(3);
    let level = |_| match random.chance(1, 2) {
        true => OrderLevel::Session,
        false => below[random.below(4) as usize],
    };
    (0..count).map(level).collect()
}

/// When brokers come for the first time, whether the last has a spare place, and whether those that come again may have moved.
fn comings(seed: u64, brokers: usize) -> (Vec<u64>, bool, bool) {
    let mut random = Random::new(seed ^ 0x1a7e_0000);
    let comes_late = random.chance(1, 3);
    let join_ns = |place: usize| if comes_late && place > 0 { random.below(JOIN_NS_MAX) } else { 0 };
    ((0..brokers).map(join_ns).collect(), comes_late, random.chance(1, 2))
}

impl Scenario {
    /// What this seed stands for.
    pub fn new(seed: u64) -> Scenario {
        let mut random = Random::new(seed ^ 0x5eed);
        // A stream of its own: the rest of a world is as it would be without them.
        let mut attached = Random::new(seed ^ 0xa77a_c4ed);
        let mut wider = Random::new(seed ^ 0x71de_0000);
        let mut strange = Random::new(seed ^ 0x57a6_6e00);
        let hosts = 1 + random.below(HOSTS_MAX) as usize;
        let mut homes = |count: u64| (0..count).map(|_| random.below(hosts as u64) as u32).collect::<Vec<_>>();
        let (two, three) = (homes(2), homes(3));
        let pair = homes(2);
        let brokers = if random.chance(1, 2) { two } else { three };
        let candidates = if random.chance(1, 4) { pair[..1].to_vec() } else { pair };
        let mut faults = [true; Fault::ALL.len()];
        // Most runs have most kinds; some have few, so that one kind is seen alone.
        let rare = random.below(4);
        faults.iter_mut().for_each(|fault| *fault = random.chance(4 - rare, 4));
        let (joins_ns, has_spare, brokers_move) = comings(seed, brokers.len());
        let mut scenario = Scenario {
            seed,
            hosts,
            joins_ns,
            has_spare,
            brokers_move,
            brokers,
            candidates,
            clocks: clocks(&mut wider),
            topics: topics(&mut wider),
            topics_go: wider.chance(1, 3),
            lanes_per_broker: 1 + wider.below(2) as u32,
            publishers: 1 + random.below(3) as usize,
            connections_per_broker: 1 + random.below(2) as usize,
            window: 4 + random.below(28) as usize,
            subscribers: 1 + random.below(3) as usize,
            admins: random.below(3) as usize,
            strangers: strange.below(3) as usize,
            connections_max: [12, 48][strange.below(2) as usize],
            send: [SendMode::Copy, SendMode::ZeroCopy, SendMode::Auto][random.below(3) as usize],
            slow_reader: [SlowReader::Wait, SlowReader::Skip, SlowReader::Disconnect][random.below(3) as usize],
            reader_lag_max: [0, 0, 40_000][random.below(3) as usize],
            reader_wait_max_ns: [0, 100_000_000][random.below(2) as usize],
            return_grace_ns: [0, 10_000_000, 60_000_000][random.below(3) as usize],
            heartbeat_ms: [0, 20][random.below(2) as usize],
            is_one_address: wider.chance(1, 3),
            connections_per_address: [20, u32::MAX >> 1][random.below(2) as usize],
            subscribers_per_broker: [2, 8][wider.below(2) as usize],
            session_expiry_ns: [SESSION_EXPIRY_SHORT_NS, 1_500_000_000, 5_000_000_000][wider.below(3) as usize],
            sessions_per_address: [16, u32::MAX][wider.below(2) as usize],
            openings: [0, 100, 400][wider.below(3) as usize],
            has_short_sends: wider.chance(1, 3),
            retention_bytes: [0, 0, 100_000][random.below(3) as usize],
            retention_ns: [0, 0, 50_000_000][random.below(3) as usize],
            attached_publishers: attached.below(3) as u32,
            attached_subscribers: attached.below(3) as u32,
            reader_stall_ns: [10_000_000, 40_000_000][attached.below(2) as usize],
            receipts: if random.chance(1, 2) { Receipts::Message } else { Receipts::Batch },
            whim: if random.chance(1, 4) { Whim::NONE } else { Whim::STORMY },
            steps: 3000 + random.below(5000),
            faults,
            fault_rate: 5 + random.below(40),
            faults_max: u64::MAX,
            hold_up_rate: 1 + random.below(15),
            step_ns: 20_000 + random.below(100_000),
            payload_bytes_max: [200, 3000, 12_000][random.below(3) as usize],
            readers_stand_still: 0,
            left_alone_ns: if random.chance(1, 8) { 1_500_000_000 } else { 0 },
            sabotage: Sabotage::None,
        };
        scenario.tighten(&mut wider, &mut attached);
        scenario
    }

    fn tighten(&mut self, wider: &mut Random, attached: &mut Random) {
        if !self.is_one_address && wider.chance(1, 2) {
            // No more than it needs: whoever comes back before it is missed is one too many.
            self.connections_per_address = self.connections_per_broker as u32;
        }
        let is_roomy =
            self.connections_max > 12 && self.subscribers_per_broker > 2 && self.connections_per_address > 20;
        self.brokers_move &= is_roomy && !self.is_one_address;
        if self.attached_subscribers > 0 && attached.chance(1, 3) {
            self.overtakes_readers();
        }
    }

    /// Attached subscribers stand still in the midst of a copy, and what they copy is soon written over.
    pub fn overtakes_readers(&mut self) {
        self.faults[Fault::HoldUp.index()] = true;
        self.readers_stand_still = 30;
        self.payload_bytes_max = 40_000;
        self.reader_stall_ns = 10_000_000;
        self.attached_publishers = self.attached_publishers.max(1);
    }

    /// Whether a kind of fault happens.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults[fault.index()]
    }

    /// Where everything lives, as a host knows it.
    pub fn homes(&self, here: usize) -> Homes {
        Homes { here: here as u32, brokers: self.brokers.clone(), candidates: self.candidates.clone() }
    }

    /// Tiny rings, index and blog, so that laps and trims come all the time.
    pub fn geometry(&self) -> Geometry {
        let brokers = self.brokers.len() as u64;
        let has_places = self.attached_publishers + self.attached_subscribers > 0;
        let own = if self.readers_stand_still > 0 { 4 } else { 5 };
        let own = own * u64::from(self.lanes_per_broker);
        // Hardly any where they expire soon: nobody waits longer than a world lasts.
        let sessions_spare = if self.session_expiry_ns == SESSION_EXPIRY_SHORT_NS { 1 } else { 30 };
        let extents = brokers * (own + if has_places { u64::from(ATTACHED_EXTENTS) } else { 0 });
        Geometry {
            pool_bytes: (2 << 20) + extents * (256 << 10),
            extent_bytes: 256 << 10,
            hosts: self.hosts as u32,
            brokers: self.brokers.len() as u32,
            lanes_per_broker: self.lanes_per_broker,
            candidates: self.candidates.len() as u32,
            ring_slots: 64,
            segment_entries: 128,
            segments: 4,
            sessions_max: self.sessions_at_once() + sessions_spare,
            topics_max: 16,
            cursors_max: 4,
            extents: 0,
            attached_per_broker: has_places.into(),
            spare_per_host: (self.has_spare && self.hosts == 1 && brokers > 1).into(),
        }
    }

    /// Sessions that all clients have at once at most: below the highest level each connection has one.
    fn sessions_at_once(&self) -> u32 {
        let is_shared = self.topics.iter().all(|order| *order == OrderLevel::Session);
        let of_one = if is_shared { 1 } else { self.brokers.len() * self.connections_per_broker };
        (self.publishers * of_one) as u32 + self.attached_publishers
    }

    /// Home host of a broker.
    pub fn host_of_broker(&self, broker: u32) -> usize {
        self.brokers[broker as usize] as usize
    }

    /// The place of an attached publisher: each goes with a broker of its own.
    pub fn writer_place(&self, number: u32) -> u32 {
        number
    }

    /// The place of an attached subscriber: each goes with a broker of its own, publishers' last.
    pub fn reader_place(&self, number: u32) -> u32 {
        (self.brokers.len() as u32 - 1 - number) * ATTACHED_READERS_PER_BROKER
    }

    /// Who has the place of a member, if anybody ever does.
    pub fn part_of_member(&self, g: &Geometry, member: u32) -> Option<Part> {
        if member < g.brokers {
            return Some(Part::Receive(member, 0));
        }
        let writer = (0..self.attached_publishers).find(|number| g.writer_member(self.writer_place(*number)) == member);
        let reader =
            (0..self.attached_subscribers).find(|number| g.reader_member(self.reader_place(*number)) == member);
        writer.map(Part::AttachedPublisher).or(reader.map(Part::AttachedSubscriber))
    }
}
