//! A pool as it is at one moment, for whoever shows it: a terminal, a page, a scraper. Read only; brokers may be running or gone, and of any host.
//!
//! Roles copy their counters out once a second: a snapshot shows those of the second before. What moves between two snapshots is what happens;
//! of a single one it is only known what has happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::log::View;
use crate::log::brokers::last_address;
use crate::log::commit::CommitReader;
use crate::log::estate::held_extents;
use crate::log::faults;
use crate::log::lane::LaneReader;
use crate::log::retention::{FloorReader, NO_PIN};
use crate::log::topics::{Topic, TopicReader};
use crate::observe::counters::{
    AckCounters, CounterBlock, Counters, DeliveryCounters, ExportCounters, ReceiveCounters, SequencerCounters,
    SessionCounters, ThreadCounters, TopicCounters,
};
use crate::observe::errors::{self, DistinctError};
use crate::observe::histogram::Distribution;
use crate::observe::slowest::{self, SlowBatch};
use crate::observe::threads;
use crate::pool::coherence::Coherence;
use crate::pool::line::{self, Peer, observe_words};
use crate::pool::process::boot_id;
use crate::pool::record::{BrokerLine, LaneProgress, LaneStatus, PinLine, SessionLine, member_state};
use crate::pool::region::LockName;
use crate::pool::{Access, Hardware, Mapped, Memory, PlaceKind, Pool, Software};
use crate::utc::utc_ns;

/// How often roles copy their counters out.
pub const REPORTED_EVERY: Duration = Duration::from_secs(1);

/// How far a counter moved between two looks; of one that was not there, or of a process that began anew, from 0 on.
pub fn moved(then: Option<u64>, now: u64) -> u64 {
    now.checked_sub(then.unwrap_or(0)).unwrap_or(now)
}

/// Memory of a pool that is only looked at.
type Looked<C> = View<Mapped<C>>;

/// The whole of it.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// When it was taken, UTC ns: for people. The clock it is read from may be set.
    pub taken_at: u64,
    /// The same moment, to tell how long after another it was.
    #[serde(skip)]
    pub moment: Instant,
    /// The pool itself.
    pub pool: PoolFacts,
    /// The sequencer that was active last; none: none ever was.
    pub sequencer: Option<SequencerFacts>,
    /// Brokers, but for places that nobody ever had.
    pub brokers: Vec<BrokerFacts>,
    /// Attached processes, but for places that nobody ever had.
    pub attached: Vec<AttachedFacts>,
    /// Lanes that were ever written.
    pub lanes: Vec<LaneFacts>,
    /// Topics.
    pub topics: Vec<TopicFacts>,
    /// Sessions that are open or fenced, if they were asked for.
    pub sessions: Vec<SessionFacts>,
}

/// The pool itself.
#[derive(Clone, Debug, Serialize)]
pub struct PoolFacts {
    /// Where it lies.
    pub path: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Where memory for batches begins.
    pub blog_at: u64,
    /// Bytes for batches.
    pub blog_bytes: u64,
    /// Extents of these.
    pub extents: u32,
    /// Bytes of one.
    pub extent_bytes: u64,
    /// Hosts that may share it.
    pub hosts: u32,
    /// Slots of a lane's ring.
    pub ring_slots: u32,
    /// Entries that the index keeps at most.
    pub index_entries: u64,
    /// Offsets at which memory failed.
    pub failed_at: Vec<u64>,
}

/// The sequencer that was active last.
#[derive(Clone, Debug, Serialize)]
pub struct SequencerFacts {
    /// Its candidate's place.
    pub candidate: u32,
    /// Its epoch.
    pub epoch: u64,
    /// The host that its place belongs to.
    pub host: u64,
    /// That is this machine, in this run of it, as those say who live there.
    pub is_here: bool,
    /// Its process, by its number on that host.
    pub process: u64,
    /// The process that looks has its place, and was made the sequencer there. A number is not enough for that: on another host, or in another
    /// container, another process may have the same.
    pub is_ours: bool,
    /// Grows while it lives.
    pub heartbeat: u64,
    /// Whether a process of this machine has its lock.
    pub is_locked: bool,
    /// Every position below is committed.
    pub watermark: u64,
    /// Positions below are gone.
    pub floor: u64,
    /// What it counts.
    pub counters: SequencerCounters,
    /// From published to ordered.
    pub ordering: Distribution,
    /// From ordered to committed.
    pub committing: Distribution,
}

/// A member of the pool: a broker, or an attached process.
#[derive(Clone, Debug, Serialize)]
pub struct MemberFacts {
    /// Its number.
    pub member: u32,
    /// How many processes have had its place.
    pub incarnation: u64,
    /// Grows while it lives.
    pub heartbeat: u64,
    /// What it says it does.
    pub state: &'static str,
    /// Its process.
    pub process: u64,
    /// When that started, UTC ns.
    pub started_at: u64,
    /// Its host.
    pub host: u64,
    /// It is, or was, of this run of this machine.
    pub is_here: bool,
    /// Whether a process of this machine has its lock.
    pub is_locked: bool,
    /// The lowest position that its readers need; none: nothing.
    pub pin: Option<u64>,
}

/// A broker.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerFacts {
    /// Who it is.
    pub member: MemberFacts,
    /// Where clients find it.
    pub address: Option<String>,
    /// What its ack core counts.
    pub ack: AckCounters,
    /// From committed to acked.
    pub acking: Distribution,
    /// From landed to acked.
    pub to_ack: Distribution,
    /// The slowest batches it acked.
    pub slowest_acked: Vec<SlowBatch>,
    /// What its exporter counts.
    pub export: ExportCounters,
    /// From committed to delivered.
    pub delivering: Distribution,
    /// From landed to delivered.
    pub to_delivery: Distribution,
    /// The slowest batches it delivered.
    pub slowest_delivered: Vec<SlowBatch>,
    /// Threads of its process, those that stand in its place.
    pub threads: Vec<ThreadFacts>,
    /// Distinct errors of its process, those that stand in its place.
    pub errors: Vec<DistinctError>,
}

/// A thread.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadFacts {
    /// Its name.
    pub name: String,
    /// Where its time went.
    pub counters: ThreadCounters,
}

/// An attached process.
#[derive(Clone, Debug, Serialize)]
pub struct AttachedFacts {
    /// Who it is.
    pub member: MemberFacts,
    /// Whether it publishes; else it subscribes.
    pub publishes: bool,
}

/// A lane.
#[derive(Clone, Debug, Serialize)]
pub struct LaneFacts {
    /// Its number.
    pub lane: u32,
    /// The member that writes it.
    pub member: u32,
    /// The broker whose lane it is, or that the attached publisher's place belongs to.
    pub broker: u32,
    /// What its writer counts.
    pub receive: ReceiveCounters,
    /// From landed to published; nothing of an attached publisher's.
    pub publishing: Distribution,
    /// Slots the sequencer has looked at, ever.
    pub consumed: u64,
    /// Slots below are appended or refused for good.
    pub settled: u64,
    /// Slots that wait for the sequencer.
    pub waiting: u64,
    /// Its writer is held back for want of room.
    pub is_paused: bool,
    /// Extents it has.
    pub extents: u32,
}

/// A topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicFacts {
    /// Its number.
    pub topic: u32,
    /// Its name.
    pub name: String,
    /// Its order level.
    pub order: u8,
    /// Its strongest ack level.
    pub ack: u8,
    /// Order of the next message.
    pub next_order: u64,
    /// No message below is kept.
    pub earliest_order: u64,
    /// Bytes of its batches, ever.
    pub bytes: u64,
    /// What became of its batches, since this sequencer is the active one.
    pub counters: TopicCounters,
    /// What brokers deliver of it: those that ever did.
    pub deliveries: Vec<TopicDelivery>,
}

/// What a broker delivers of a topic.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TopicDelivery {
    /// Which broker.
    pub broker: u32,
    /// What its exporter has counted.
    pub counters: DeliveryCounters,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionFacts {
    /// Its id.
    pub session: u64,
    /// Its topic's number.
    pub topic: u32,
    /// Its epoch.
    pub session_epoch: u32,
    /// It was fenced.
    pub is_fenced: bool,
    /// Its order level.
    pub order: u16,
    /// Its next batch: so many have been ordered at level 5.
    pub next_batch: u64,
    /// Order just past its last message.
    pub order_end: u64,
    /// Lane of the request that opened it.
    pub lane: u16,
    /// What became of its batches, since this sequencer is the active one; none: nothing is counted of it yet.
    pub batches: Option<SessionBatches>,
}

/// What became of a session's batches. Its checkpoint and what is counted beside it are copied out at different moments: the sum is right once
/// nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SessionBatches {
    /// Taken from lanes: the sum of the others.
    pub received: u64,
    /// That got their place in the order.
    pub ordered: u64,
    /// That had been ordered or parked before.
    pub duplicate: u64,
    /// Of an epoch that was over, let go, or parked when their epoch ended.
    pub refused: u64,
    /// Parked behind a gap now.
    pub parked: u64,
}

impl Snapshot {
    /// As the pool is now. Sessions are many: they are read if they are wanted.
    pub fn take(pool: &Pool, with_sessions: bool) -> Snapshot {
        // On one host nothing has to be fetched anew: what its caches have is what there is.
        match pool.layout().geometry.hosts {
            1 => Self::take_as::<Hardware>(pool, with_sessions),
            _ => Self::take_as::<Software>(pool, with_sessions),
        }
    }

    fn take_as<C: Coherence>(pool: &Pool, with_sessions: bool) -> Snapshot {
        let memory = Mapped::<C>::new(Arc::clone(pool.mapping()));
        let view = View::of_onlooker(memory, Arc::clone(pool.layout()), pool.superblock().homes());
        let g = view.layout.geometry;
        let was_there = |member: &u32| member_line(&view, *member).incarnation > 0;
        Snapshot {
            taken_at: utc_ns(),
            moment: Instant::now(),
            pool: pool_facts(pool, &view),
            sequencer: sequencer_facts(pool, &view),
            brokers: (0..g.brokers).filter(was_there).map(|broker| broker_facts(pool, &view, broker)).collect(),
            attached: (g.brokers..g.members())
                .filter(was_there)
                .map(|member| attached_facts(pool, &view, member))
                .collect(),
            lanes: lane_facts(&view),
            topics: topic_facts(&view),
            sessions: if with_sessions { session_facts(&view) } else { Vec::new() },
        }
    }

    /// How long after another it was taken, whatever was done to the clock meanwhile.
    pub fn time_since(&self, before: &Snapshot) -> Duration {
        self.moment.saturating_duration_since(before.moment)
    }

    /// Seconds in which counters moved from what they were in an earlier one to what they are: roles copy them out once a second, so what moved
    /// between two looks moved in a second at least, however close the looks are.
    pub fn counted_seconds_since(&self, before: &Snapshot) -> f64 {
        self.time_since(before).max(REPORTED_EVERY).as_secs_f64()
    }

    /// A broker by its number.
    pub fn broker(&self, broker: u32) -> Option<&BrokerFacts> {
        self.brokers.iter().find(|known| known.broker() == broker)
    }

    /// A lane by its number.
    pub fn lane(&self, lane: u32) -> Option<&LaneFacts> {
        self.lanes.iter().find(|known| known.lane == lane)
    }

    /// The name of a topic.
    pub fn topic_name(&self, topic: u64) -> Option<&str> {
        self.topics.iter().find(|known| u64::from(known.topic) == topic).map(|known| known.name.as_str())
    }
}

impl SequencerFacts {
    /// Whether it has shown life since an earlier look, or is another epoch's.
    pub fn has_beaten_since(&self, then: &SequencerFacts) -> bool {
        (then.epoch, then.heartbeat) != (self.epoch, self.heartbeat)
    }
}

impl TopicFacts {
    /// Of all brokers together.
    pub fn delivered(&self, of: impl Fn(&DeliveryCounters) -> u64) -> u64 {
        self.deliveries.iter().map(|delivery| of(&delivery.counters)).sum()
    }

    /// Messages of it that its slowest subscriber has still to be sent; none: it has no subscribers.
    pub fn behind(&self) -> Option<u64> {
        let counters = self.deliveries.iter().map(|delivery| &delivery.counters);
        counters.filter(|counters| counters.subscribers > 0).map(|counters| counters.behind_messages).max()
    }
}

impl BrokerFacts {
    /// Its number.
    pub fn broker(&self) -> u32 {
        self.member.member
    }
}

fn pool_facts<C: Coherence>(pool: &Pool, view: &Looked<C>) -> PoolFacts {
    let g = view.layout.geometry;
    PoolFacts {
        path: pool.path().display().to_string(),
        bytes: g.pool_bytes,
        blog_at: view.layout.fixed_bytes(),
        blog_bytes: view.layout.blog_bytes(),
        extents: g.extents,
        extent_bytes: g.extent_bytes,
        hosts: g.hosts,
        ring_slots: g.ring_slots,
        index_entries: u64::from(g.segments) * u64::from(g.segment_entries),
        failed_at: (0..g.brokers).flat_map(|broker| faults::noted(view, broker)).collect(),
    }
}

fn counters<T: Counters, C: Coherence>(view: &Looked<C>, at: u64) -> T {
    T::from_words(&CounterBlock::new(view.memory.clone(), at).read(T::CATALOGUE))
}

fn distribution<C: Coherence>(view: &Looked<C>, at: u64) -> Distribution {
    Distribution::read(&view.memory, at)
}

fn member_line<C: Coherence>(view: &Looked<C>, member: u32) -> BrokerLine {
    Peer::<BrokerLine, _>::new(view.memory.clone(), view.layout.broker_line(member), Access::Remote).observe_words()
}

fn sequencer_facts<C: Coherence>(pool: &Pool, view: &Looked<C>) -> Option<SequencerFacts> {
    let reader = CommitReader::new(view);
    let commit = reader.current()?;
    let line = reader.line(commit.candidate);
    let [ordering, committing] = view.layout.sequencer_histograms(commit.candidate);
    let (host, lock) = (view.home_of_candidate(commit.candidate), LockName::Candidate(commit.candidate));
    let is_here = is_this_machine(view, host);
    Some(SequencerFacts {
        candidate: commit.candidate,
        epoch: commit.epoch,
        host: host.into(),
        is_here,
        process: line.process,
        is_ours: pool.holds(lock) && line.process == u64::from(std::process::id()),
        heartbeat: line.heartbeat,
        is_locked: is_here && pool.is_locked(lock).unwrap_or(false),
        watermark: commit.watermark,
        floor: FloorReader::new(view).read().map_or(0, |floors| floors.floor),
        counters: counters(view, view.layout.sequencer_counters(commit.candidate)),
        ordering: distribution(view, ordering),
        committing: distribution(view, committing),
    })
}

/// Whether anybody of that host lives, or lived, in this run of this machine.
fn is_this_machine<C: Coherence>(view: &Looked<C>, host: u32) -> bool {
    let here = boot_id();
    view.members_of(host).any(|member| {
        let line = member_line(view, member);
        line.incarnation > 0 && line.boot_id == here
    })
}

fn member_facts<C: Coherence>(pool: &Pool, view: &Looked<C>, member: u32) -> MemberFacts {
    let line = member_line(view, member);
    let pin: PinLine = observe_words(&view.memory, view.layout.pin_line(member), Access::Remote);
    let is_here = line.boot_id == boot_id();
    MemberFacts {
        member,
        incarnation: line.incarnation,
        heartbeat: line.heartbeat,
        state: match line.state {
            member_state::STARTING => "starting",
            member_state::SERVING => "serving",
            member_state::STOPPED => "stopped",
            member_state::LEAVING => "leaving",
            _ => "unknown",
        },
        process: line.process,
        started_at: line.started_at,
        host: line.host,
        is_here,
        is_locked: is_here && pool.is_locked(pool.member_lock(member)).unwrap_or(false),
        pin: (pin.incarnation > 0 && pin.position != NO_PIN).then_some(pin.position),
    }
}

fn broker_facts<C: Coherence>(pool: &Pool, view: &Looked<C>, broker: u32) -> BrokerFacts {
    let (layout, memory) = (&*view.layout, &view.memory);
    let [acking, to_ack] = layout.ack_histograms(broker);
    let [delivering, to_delivery] = layout.deliver_histograms(broker);
    let threads = threads::read(memory, layout, broker);
    BrokerFacts {
        member: member_facts(pool, view, broker),
        address: last_address(view, broker),
        ack: counters(view, layout.ack_counters(broker)),
        acking: distribution(view, acking),
        to_ack: distribution(view, to_ack),
        slowest_acked: slowest::read(memory, layout.slowest_acked(broker)),
        export: counters(view, layout.export_counters(broker)),
        delivering: distribution(view, delivering),
        to_delivery: distribution(view, to_delivery),
        slowest_delivered: slowest::read(memory, layout.slowest_delivered(broker)),
        threads: threads
            .into_iter()
            .map(|thread| ThreadFacts { name: thread.name, counters: thread.counters })
            .collect(),
        errors: errors::read(memory, layout, broker),
    }
}

fn attached_facts<C: Coherence>(pool: &Pool, view: &Looked<C>, member: u32) -> AttachedFacts {
    let publishes = view.layout.geometry.members_of(PlaceKind::Publisher).contains(&member);
    AttachedFacts { member: member_facts(pool, view, member), publishes }
}

fn lane_facts<C: Coherence>(view: &Looked<C>) -> Vec<LaneFacts> {
    let g = view.layout.geometry;
    let commit = CommitReader::new(view);
    let held = held_extents(view);
    let one = |lane: u32| {
        let progress = commit.read::<LaneProgress>(|candidate| view.layout.lane_progress(candidate, lane));
        let (consumed, settled) = progress.map_or((0, 0), |(_, progress)| (progress.consumed, progress.settled));
        let status: LaneStatus = observe_words(&view.memory, view.layout.lane_status(lane), Access::Remote);
        let receive = counters(view, view.layout.receive_counters(lane));
        (status.incarnation > 0).then(|| LaneFacts {
            lane,
            member: g.member_of_lane(lane),
            broker: g.broker_of_member(g.member_of_lane(lane)),
            receive,
            publishing: match g.is_attached_lane(lane) {
                true => Distribution::default(),
                false => distribution(view, view.layout.publish_histogram(lane)),
            },
            consumed,
            settled,
            waiting: waiting(view, lane, consumed),
            is_paused: status.paused == 1,
            extents: held[lane as usize],
        })
    };
    (0..g.lanes()).filter_map(one).collect()
}

/// Slots of a lane that were published and not looked at yet: they follow each other, so it is enough to find the last.
fn waiting<M: Memory>(view: &View<M>, lane: u32, consumed: u64) -> u64 {
    let reader = LaneReader::new(view, lane, consumed);
    let is_there = |ahead: u64| {
        let slot = view.layout.ring_slot(lane, consumed + ahead);
        line::fetch_all(&view.memory, [slot].into_iter(), view.access_to_lane(lane));
        reader.peek_at(ahead).is_some()
    };
    let (mut there, mut beyond) = (0, u64::from(view.layout.geometry.ring_slots) + 1);
    while there + 1 < beyond {
        let middle = there + (beyond - there) / 2;
        match is_there(middle - 1) {
            true => there = middle,
            false => beyond = middle,
        }
    }
    there
}

fn topic_facts<C: Coherence>(view: &Looked<C>) -> Vec<TopicFacts> {
    let candidate = CommitReader::new(view).current().map(|commit| commit.candidate);
    let mut topics = TopicReader::new(view);
    topics.refresh();
    let facts = |topic: &Topic| {
        let progress = topics.progress(topic.id).unwrap_or_default();
        let counted: TopicCounters = candidate
            .map(|candidate| counters(view, view.layout.topic_counts(candidate, topic.id)))
            .unwrap_or_default();
        TopicFacts {
            topic: topic.id,
            name: topic.name.clone(),
            order: topic.order as u8,
            ack: topic.ack as u8,
            next_order: progress.next_order,
            earliest_order: progress.earliest_order,
            bytes: progress.bytes,
            // What stands there may still be of a topic that had its number before.
            counters: if counted.created == topic.created_position + 1 { counted } else { TopicCounters::default() },
            deliveries: topic_deliveries(view, topic),
        }
    };
    topics.known().iter().map(facts).collect()
}

fn topic_deliveries<C: Coherence>(view: &Looked<C>, topic: &Topic) -> Vec<TopicDelivery> {
    let of = |broker| {
        let counted: DeliveryCounters = counters(view, view.layout.topic_deliveries(broker, topic.id));
        (counted.created == topic.created_position + 1).then_some(TopicDelivery { broker, counters: counted })
    };
    (0..view.layout.geometry.brokers).filter_map(of).collect()
}

fn session_batches<C: Coherence>(
    view: &Looked<C>,
    candidate: u32,
    slot: u32,
    line: &SessionLine,
) -> Option<SessionBatches> {
    let counted: SessionCounters = counters(view, view.layout.session_counts(candidate, slot));
    let SessionCounters { duplicate_batches: duplicate, refused_batches: refused, parked_batches: parked, .. } =
        counted;
    let ordered = line.next_batch.wrapping_sub(counted.not_counted);
    let received = [ordered, duplicate, refused, parked].into_iter().fold(0, u64::wrapping_add);
    // What stands there may still be of a session that had its place before.
    (counted.session == line.session).then_some(SessionBatches { received, ordered, duplicate, refused, parked })
}

fn session_facts<C: Coherence>(view: &Looked<C>) -> Vec<SessionFacts> {
    let Some(commit) = CommitReader::new(view).current() else { return Vec::new() };
    let facts = |slot: u32| {
        let at = view.layout.session_line(commit.candidate, slot);
        let line: SessionLine = observe_words(&view.memory, at, Access::Remote);
        (line.session > 0).then_some(SessionFacts {
            session: line.session,
            topic: line.topic,
            session_epoch: line.session_epoch,
            is_fenced: line.state == 2,
            order: line.order_level,
            next_batch: line.next_batch,
            order_end: line.order_end,
            lane: line.lane,
            batches: session_batches(view, commit.candidate, slot, &line),
        })
    };
    (0..view.layout.geometry.sessions_max).filter_map(facts).collect()
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
