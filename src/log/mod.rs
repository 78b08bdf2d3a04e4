//! The shared log: rings, blog, order index, commit point and checkpoints as data structures in the pool.
//!
//! Every structure has two sides with different types: a writer that owns its lines, and readers that observe them.
//! All are generic over [`Memory`] and do no I/O, so the simulator and the tests
//! drive them step by step.
//!
//! * [`lane`]: the ring of batch headers a receive core fills and the sequencer drains.
//! * [`blog`]: the extents a lane has, and the runs its connections receive into. [`grants`]: how it hears of them. [`extents`]: who has which.
//! * [`appender`]: both, and what the sequencer says of them: what a receive core and an attached publisher write through.
//! * [`namesake`]: two machines that take themselves for the same host.
//! * [`order_index`]: the total order: entries, segments. [`directory`]: which segments can be read under an epoch.
//! * [`commit`]: epoch lines, the commit watermark, and the one accessor for everything a sequencer wrote.
//! * [`checkpoint`]: sessions, topics and lanes as the sequencer last left them; what a takeover starts from. [`recover`]: why it cannot.
//! * [`entry`]: events of the order core as index entries, and back, checked.
//! * [`cursors`]: how far named consumers have come.
//! * [`damage`]: fields that hold what no writer puts there.
//! * [`estate`]: what members that are gone have of the memory, given back for them.
//! * [`faults`]: memory that failed.
//! * [`inherit`]: what a broker takes over from its last process, checked.
//! * [`member`]: what each member of the pool says of itself.
//! * [`mend`]: lines whose owner was killed while it wrote them.
//! * [`targets`]: what topics are kept for.
//! * [`session`]: one session as an attached publisher follows it.
//! * [`topics`]: the topic table as its readers see it.
//! * [`reader`]: one subscriber's cursor: its start, and what it gets next. [`tail`]: one cursor for all that have everything.
//! * [`start`]: what a broker's subscriptions and attached ones ask alike: where they start, and a batch's header.
//! * [`retention`]: floors and pins: when memory may be used again.

pub mod appender;
pub mod blog;
pub mod brokers;
pub mod checkpoint;
pub mod commit;
pub mod cursors;
pub mod damage;
pub mod directory;
pub mod entry;
pub mod estate;
pub mod extents;
pub mod faults;
pub mod grants;
pub mod inherit;
pub mod lane;
pub mod member;
pub mod mend;
pub mod namesake;
pub mod order_index;
pub mod reader;
pub mod recover;
pub mod retention;
pub mod session;
pub mod start;
pub mod tail;
pub mod targets;
pub mod topics;
#[cfg(test)]
pub(crate) mod views;

use std::sync::Arc;

use crate::pool::superblock::HomeHosts;
use crate::pool::{Access, Layout, Memory};

/// The pool as one host sees it: memory, layout, and which lines are written on other hosts.
#[derive(Clone, Debug)]
pub struct View<M> {
    /// Memory of the pool.
    pub memory: M,
    /// Where everything lies.
    pub layout: Arc<Layout>,
    homes: Arc<Homes>,
}

/// Home hosts, from the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homes {
    /// The host this process runs on.
    pub here: u32,
    /// Home host of each broker, and so of its lanes.
    pub brokers: Vec<u32>,
    /// Home host of each sequencer candidate.
    pub candidates: Vec<u32>,
}

impl Homes {
    /// As seen by somebody who lives on none of the pool's hosts, or does not say on which.
    pub const NOWHERE: u32 = u32::MAX;

    /// Those of a pool, as seen from a host.
    pub fn new(here: u32, hosts: HomeHosts) -> Homes {
        Homes { here, brokers: hosts.brokers, candidates: hosts.candidates }
    }
}

impl<M: Memory> View<M> {
    /// # Panics
    /// If the homes do not cover the layout's brokers and candidates.
    pub fn new(memory: M, layout: Arc<Layout>, homes: Homes) -> View<M> {
        assert_eq!(homes.brokers.len(), layout.geometry.brokers as usize);
        assert_eq!(homes.candidates.len(), layout.geometry.candidates as usize);
        View { memory, layout, homes: Arc::new(homes) }
    }

    /// A view in which everything lives on this host.
    pub fn single_host(memory: M, layout: Arc<Layout>) -> View<M> {
        let homes = Homes {
            here: 0,
            brokers: vec![0; layout.geometry.brokers as usize],
            candidates: vec![0; layout.geometry.candidates as usize],
        };
        View::new(memory, layout, homes)
    }

    /// As somebody sees it who only looks, and may be on any of the pool's hosts: of a pool of several, each line may have been written on another,
    /// and is fetched anew.
    pub fn of_onlooker(memory: M, layout: Arc<Layout>, homes: HomeHosts) -> View<M> {
        let here = if layout.geometry.hosts == 1 { 0 } else { Homes::NOWHERE };
        View::new(memory, layout, Homes::new(here, homes))
    }

    /// The same pool from the same host, through another memory.
    #[cfg(test)]
    pub(crate) fn with_memory<N: Memory>(&self, memory: N) -> View<N> {
        View { memory, layout: self.layout.clone(), homes: self.homes.clone() }
    }

    /// The host this process runs on.
    pub fn host(&self) -> u32 {
        self.homes.here
    }
    fn access(&self, host: u32) -> Access {
        if host == self.homes.here { Access::Local } else { Access::Remote }
    }
    /// The host that a place for a broker belongs to.
    pub fn home_of_broker(&self, broker: u32) -> u32 {
        self.homes.brokers[broker as usize]
    }
    /// The host that a place for a sequencer candidate belongs to.
    pub fn home_of_candidate(&self, candidate: u32) -> u32 {
        self.homes.candidates[candidate as usize]
    }
    /// The host that a member belongs to.
    pub fn home_of_member(&self, member: u32) -> u32 {
        self.home_of_broker(self.layout.geometry.broker_of_member(member))
    }
    /// The members that belong to a host.
    pub fn members_of(&self, host: u32) -> impl Iterator<Item = u32> {
        (0..self.layout.geometry.members()).filter(move |member| self.home_of_member(*member) == host)
    }
    /// The places for sequencer candidates that belong to a host.
    pub fn candidates_of(&self, host: u32) -> impl DoubleEndedIterator<Item = u32> {
        (0..self.layout.geometry.candidates).filter(move |slot| self.home_of_candidate(*slot) == host)
    }
    /// The places for sequencer candidates that belong to this host.
    pub fn candidates_here(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.candidates_of(self.host())
    }
    /// How to read lines of a broker.
    pub fn access_to_broker(&self, broker: u32) -> Access {
        self.access(self.home_of_broker(broker))
    }
    /// How to read lines of a member.
    pub fn access_to_member(&self, member: u32) -> Access {
        self.access(self.home_of_member(member))
    }
    /// How to read lines of a lane.
    pub fn access_to_lane(&self, lane: u32) -> Access {
        self.access_to_member(self.layout.geometry.member_of_lane(lane))
    }
    /// How to read lines of a candidate.
    pub fn access_to_candidate(&self, candidate: u32) -> Access {
        self.access(self.home_of_candidate(candidate))
    }
}
