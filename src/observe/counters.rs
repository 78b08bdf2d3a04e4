//! The catalogue of counters: name, unit, meaning; and their blocks in the pool.
//!
//! Names (a test holds them to it): words in full, with `_`; what is counted last but for its unit, and that last of all: `_bytes`, `_ns`, `_us`, `_ms`; what
//! has no unit is a number of things, in the plural, or of events. The meaning names the unit of what has one, and says `now` of what is so now and
//! `ever` of nothing: that is what a counter is.
//!
//! Each role owns one block of plain words and is its only writer. A role counts in its own memory and copies the block out
//! at a low rate, so counting costs an add. Tools read the blocks of a living or dead process alike.

use crate::limits::COUNTERS_PER_BLOCK;
use crate::pool::{Keep, Memory};

/// One counter of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Name.
    pub name: &'static str,
    /// Meaning and unit.
    pub meaning: &'static str,
    /// How it moves.
    pub kind: Kind,
}

/// How a counter moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows as long as the process lives.
    Counter,
    /// It is what is so now.
    Gauge,
    /// It says which one is meant: no amount.
    Name,
}

/// A block of counters.
pub trait Counters {
    /// What each word means.
    const CATALOGUE: &'static [Counter];
    /// The words in the same order. Does not allocate: a role reports while batches flow.
    fn words(&self) -> impl ExactSizeIterator<Item = u64>;
    /// From words in the same order; what is missing is 0.
    fn from_words(words: &[u64]) -> Self;
}

macro_rules! kind {
    () => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (name) => {
        Kind::Name
    };
}

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $( $(#[doc = $doc:literal])+ $field:ident $(: $kind:ident)? ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "broker", derive(serde::Serialize))]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: u64 ),* }
        impl Counters for $name {
            const CATALOGUE: &'static [Counter] = &[
                $( Counter { name: stringify!($field), meaning: concat!($($doc),+), kind: kind!($($kind)?) } ),*
            ];
            fn words(&self) -> impl ExactSizeIterator<Item = u64> {
                const { assert!(Self::CATALOGUE.len() <= COUNTERS_PER_BLOCK as usize) };
                [ $( self.$field ),* ].into_iter()
            }
            fn from_words(words: &[u64]) -> Self {
                let mut words = words.iter().copied();
                $name { $( $field: words.next().unwrap_or(0) ),* }
            }
        }
    };
}

counters! {
    /// A receive core's counters.
    ReceiveCounters {
        /// bytes received from publishers
        received_bytes,
        /// receive completions
        receives,
        /// batches published to the lane ring
        published_batches,
        /// messages in them
        published_messages,
        /// bytes of them
        published_bytes,
        /// bytes moved to a fresh run because the batch did not fit the old one
        moved_bytes,
        /// times a batch waited because the lane ring was full
        ring_full,
        /// times a receive waited because no extent was free
        extent_wait,
        /// connections accepted
        accepted,
        /// connections closed
        closed,
        /// requests of control connections
        requests,
        /// connections refused or ended because the peer broke the protocol
        protocol_errors,
        /// connections refused or ended, and requests refused, for another reason that was told
        refused,
        /// connections that ended in mid-batch; what had landed of it was given up, unacked
        partial_batches,
        /// connections closed because a half batch held memory that others waited for
        stalled_batches,
        /// connections and requests that waited because others of their address came before them
        held_back,
        /// connections, sessions, topics and cursors refused because their address has all that one may have
        address_bounds,
        /// connections reset without a word, because too many of their address waited or were being told that it has all it may have
        reset_unheard,
        /// longest of the shortest answers of clients, as far as they were asked in the last report, us
        farthest_us: gauge,
        /// its IPv4 address times 65,536, and its port; the port alone if the address is of IPv6
        farthest_address: name,
        /// connections now
        connections: gauge,
        /// extents in hand now
        free_extents: gauge,
    }
}

counters! {
    /// A sequencer's counters.
    SequencerCounters {
        /// slots consumed from lane rings
        consumed_slots,
        /// batches appended to the order index
        appended_batches,
        /// messages in them
        appended_messages,
        /// bytes of them
        appended_bytes,
        /// batches parked behind a gap
        parked_batches,
        /// duplicates dropped
        duplicates,
        /// batches let go, to be sent again
        let_go,
        /// batches of fenced or outdated session epochs dropped
        fenced_batches,
        /// batches of sessions or topics that are not open dropped
        unknown_batches,
        /// slots whose content made no sense
        invalid_slots,
        /// session epochs fenced
        fences,
        /// sessions opened or reopened
        opened_sessions,
        /// topics created
        created_topics,
        /// topics deleted
        deleted_topics,
        /// passes that stopped because the order index was full
        index_full,
        /// times the trim floor moved
        trims,
        /// commits: times the watermark moved
        commits,
        /// batches parked now
        held_batches: gauge,
        /// sessions that wait behind a gap now
        gapped_sessions: gauge,
        /// for how long the oldest gap has been open, ms
        oldest_gap_ms: gauge,
        /// its session
        oldest_gap_session: name,
        /// the batch that is missing there
        oldest_gap_batch: name,
        /// commit watermark
        watermark: gauge,
        /// trim floor
        floor: gauge,
        /// attached subscribers no longer waited for because they were not polled while memory was wanted
        dropped_pins,
        /// extents granted
        granted_extents,
        /// extents in stock now
        stock_extents: gauge,
        /// takeovers by this process
        takeovers,
        /// takeovers given up because the pool is damaged; the process ends
        damaged,
    }
}

counters! {
    /// What a sequencer has counted of a topic, since it is the active one. Received are ordered, duplicate, refused or parked: none is lost.
    TopicCounters {
        /// index position of the topic's creation plus 1; 0: no topic
        created: name,
        /// batches taken from lanes
        received_batches,
        /// batches that got their place in the order
        ordered_batches,
        /// messages in them
        ordered_messages,
        /// bytes of them
        ordered_bytes,
        /// batches that had been ordered before
        duplicate_batches,
        /// batches of sessions that were fenced or not open, or that were let go to be sent again
        refused_batches,
        /// batches parked behind a gap now
        parked_batches: gauge,
    }
}

counters! {
    /// What a sequencer has counted of a session, since it is the active one, beside the session's checkpoint: ordered are those below the next batch
    /// but for those not counted; and received are ordered, duplicate, refused or parked.
    SessionCounters {
        /// its id; 0: nothing is counted of a session yet
        session: name,
        /// what its next batch is to be lessened by for the batches that were ordered; wraps
        not_counted: name,
        /// batches that had been ordered or parked before
        duplicate_batches,
        /// batches of an epoch that was over, that were let go to be sent again, or that were parked when their epoch ended
        refused_batches,
        /// batches parked behind a gap now
        parked_batches: gauge,
    }
}

counters! {
    /// An ack core's counters.
    AckCounters {
        /// index entries followed
        followed_entries,
        /// ack frames sent
        acks_sent,
        /// batches acked that came in through this broker
        acked_batches,
        /// messages of them
        acked_messages,
        /// passes in which a frame waited because the connection's last one was still being sent
        coalesced,
        /// connections welcomed
        welcomed,
        /// connections refused
        refused,
        /// zero-copy sends the kernel copied all the same
        zero_copy_copied,
        /// connections now
        connections: gauge,
        /// entries or records of the pool found damaged; the process ends
        damaged,
    }
}

counters! {
    /// An exporter's counters.
    ExportCounters {
        /// batches delivered
        delivered_batches,
        /// messages in them
        delivered_messages,
        /// bytes of them, headers and padding included
        delivered_bytes,
        /// bytes sent to subscribers
        sent_bytes,
        /// send submissions
        sends,
        /// zero-copy sends the kernel copied all the same
        zero_copy_copied,
        /// subscribers accepted
        accepted,
        /// subscribers refused
        refused,
        /// subscribers let go because they were too slow
        too_slow,
        /// entries found inconsistent
        inconsistent,
        /// longest of the shortest answers of clients, as far as they were asked in the last report, us
        farthest_us: gauge,
        /// its IPv4 address times 65,536, and its port; the port alone if the address is of IPv6
        farthest_address: name,
        /// subscribers now
        connections: gauge,
        /// times a subscriber that was too slow skipped to what is kept
        skips,
        /// messages it was told it missed
        skipped_messages,
        /// subscribers that publishers were held up by for more than a second
        waited_readers,
        /// time for which they have been held up by the slowest of now, ms
        waited_ms: gauge,
        /// its IPv4 address times 65,536, and its port; the port alone if the address is of IPv6
        waited_address: name,
        /// its first topic's id
        waited_topic: name,
        /// places kept for subscribers whose connection broke, or which were sent to other brokers
        kept_places,
        /// connections that are sent copies because the kernel locks no more pages
        copied_connections,
        /// sends tried again because the kernel lacked something
        sends_again,
        /// attempts to get back what the kernel had of a connection that was over
        endings_forced,
        /// endings that took more than two seconds
        endings_late,
        /// index entries read, for those that rest at the log's end together, for the others each
        entries_read,
        /// looks whether what was read in a pass stands
        confirms,
    }
}

counters! {
    /// What an exporter has counted of a topic.
    DeliveryCounters {
        /// index position of the topic's creation plus 1; 0: no topic
        created: name,
        /// batches delivered
        delivered_batches,
        /// messages in them
        delivered_messages,
        /// bytes of them, headers and padding included
        delivered_bytes,
        /// subscribers of the topic now
        subscribers: gauge,
        /// messages of it that the slowest of them has still to be sent now
        behind_messages: gauge,
    }
}

counters! {
    /// A thread's counters, written by the housekeeping of its process.
    ThreadCounters {
        /// when this was written, UTC ns
        reported_at: gauge,
        /// the core it is pinned to plus 1; 0: it runs where the system puts it
        pinned_core: gauge,
        /// 1: it never sleeps
        spins: gauge,
        /// time in passes that moved something, ns
        working_ns,
        /// time in passes that moved nothing while a lane's ring was full, ns
        blocked_ring_ns,
        /// time in passes that moved nothing while no extent was free, ns
        blocked_memory_ns,
        /// time in passes that moved nothing while the order index had no room, ns
        blocked_index_ns,
        /// time in passes that moved nothing while peers took nothing of what is on its way to them, ns
        blocked_peers_ns,
        /// time awake in passes that moved nothing, ns
        idle_ns,
        /// time in passes that ended in sleep, ns
        asleep_ns,
        /// time in which its roles reported what they had counted, ns
        housekeeping_ns,
        /// passes
        passes,
        /// passes that ended in sleep
        sleeps,
        /// what its roles moved
        moved,
        /// longest pass of the last 2 to 4 s that did not end in sleep, ns
        longest_pass_ns: gauge,
        /// time in receive cores, from a pass each ms, ns
        receive_ns,
        /// time in the sequencer, from a pass each ms, ns
        sequence_ns,
        /// time in ack cores, from a pass each ms, ns
        ack_ns,
        /// time in exporters, from a pass each ms, ns
        export_ns,
        /// time on a core as the system counts it, ns
        ran_ns,
        /// time it could have run and had no core, ns
        core_wait_ns,
    }
}

/// A role's block in the pool.
#[derive(Debug)]
pub struct CounterBlock<M> {
    memory: M,
    at: u64,
}

impl<M: Memory> CounterBlock<M> {
    /// The block at `at`.
    pub fn new(memory: M, at: u64) -> Self {
        CounterBlock { memory, at }
    }

    /// Reads a block that may be another process's, counter by counter.
    pub fn read(&self, catalogue: &[Counter]) -> Vec<u64> {
        self.memory.discard(self.at, 8 * catalogue.len() as u64);
        (0..catalogue.len() as u64).map(|index| self.memory.load(self.at + 8 * index)).collect()
    }

    /// Copies the counters out.
    pub fn write(&self, counters: &impl Counters) {
        let words = counters.words();
        let bytes = 8 * words.len() as u64;
        for (index, word) in words.enumerate() {
            self.memory.store(self.at + 8 * index as u64, word);
        }
        self.memory.write_back(self.at, bytes, Keep::Cached);
        self.memory.store_fence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::{SharedMemory, Whim};

    #[test]
    fn names_follow_their_rules() {
        let blocks: [&[Counter]; 8] = [
            ReceiveCounters::CATALOGUE,
            SequencerCounters::CATALOGUE,
            TopicCounters::CATALOGUE,
            SessionCounters::CATALOGUE,
            DeliveryCounters::CATALOGUE,
            AckCounters::CATALOGUE,
            ExportCounters::CATALOGUE,
            ThreadCounters::CATALOGUE,
        ];
        for block in blocks {
            let mut names = std::collections::HashSet::new();
            for Counter { name, meaning, kind } in block {
                assert!(names.insert(name), "{name} is there twice");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
                let units = [("_ns", ", ns"), ("_us", ", us"), ("_ms", ", ms"), ("_bytes", "bytes")];
                for (suffix, unit) in units {
                    let is_named = name.ends_with(suffix);
                    assert!(!is_named || meaning.contains(unit), "{name}: {meaning:?} does not name its unit");
                    let speaks_of_it = meaning.ends_with(unit) && unit != "bytes" && *kind != Kind::Name;
                    assert!(
                        !speaks_of_it || is_named || name.ends_with("_at"),
                        "{name}: {meaning:?} has a unit that its name has not"
                    );
                }
                let is_amount =
                    ["_batches", "_extents", "_sessions", "connections"].iter().any(|end| name.ends_with(end));
                let says_now = meaning.split_whitespace().any(|word| word == "now");
                let is_so_now = *kind == Kind::Gauge;
                assert!(!is_amount || is_so_now == says_now, "{name}: {meaning:?}, and it is a {kind:?}");
                assert!(meaning.split_whitespace().all(|word| word != "ever"), "{name}: that is what a counter is");
                assert!(meaning.len() > 4 && !meaning.trim().ends_with('.'), "{name}: {meaning:?}");
            }
        }
    }

    #[test]
    fn what_a_role_counted_is_read_on_another_host() {
        let pool = SharedMemory::new(4096, 2, Whim::LAZY, 1);
        let (ours, theirs) = (CounterBlock::new(pool.host(0), 1024), CounterBlock::new(pool.host(1), 1024));
        for commits in 1..5 {
            let counters = SequencerCounters { commits, ..SequencerCounters::default() };
            ours.write(&counters);
            assert!(theirs.read(SequencerCounters::CATALOGUE).into_iter().eq(counters.words()));
        }
    }
}
