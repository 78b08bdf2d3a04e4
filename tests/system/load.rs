//! Load that goes on while brokers are killed and stopped, and the pool it needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embarcadero::{Order, Publisher, PublisherOptions, Start};

use crate::harness::{ANY, Setup, Site, Task, wait_for};
use crate::traffic::{Fifo, Watcher, connect, flush, send};

/// The topic of these tests.
pub const TOPIC: &str = "t";

/// A pool that keeps everything these tests publish.
pub const ROOMY: Setup = Setup {
    brokers: 4,
    hosts: 1,
    pool: "bytes: 160MiB",
    geometry: "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 16, sessions_max: 64, topics_max: 16",
    sequencer: "session_lease: 5s",
    receive: "connections_max: 64, hello_timeout: 5s",
    per_address: ANY,
    export: "connections_max: 16",
};

/// A publisher that sends until it is told how many messages it has to reach, on a thread of its own.
pub struct Load {
    acked: Arc<AtomicU64>,
    goal: Arc<AtomicU64>,
    task: Task<Publisher>,
}

/// Messages between two rests.
const BURST: u64 = 32;

const ENDLESS: u64 = u64::MAX;

impl Load {
    pub fn start(options: PublisherOptions, id: u32) -> Load {
        Load::start_at(options, id, Duration::ZERO)
    }

    /// Rests after every [`BURST`] messages: what is sent while somebody is stopped must fit into the pool.
    pub fn start_at(options: PublisherOptions, id: u32, rest: Duration) -> Load {
        let (acked, goal) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(ENDLESS)));
        let (report, until) = (acked.clone(), goal.clone());
        let task = Task::spawn(format!("load {id}"), move || {
            let mut publisher = connect(options);
            let mut number = 0;
            while number < until.load(Ordering::Relaxed) {
                send(&mut publisher, id, number..number + 1);
                number += 1;
                if !rest.is_zero() && number % BURST == 0 {
                    publisher.poll(Duration::ZERO).unwrap_or_else(|error| panic!("publisher {id}: {error}"));
                    std::thread::sleep(rest);
                }
                report.store(publisher.messages_acked(), Ordering::Relaxed);
            }
            flush(&mut publisher, id);
            assert_eq!(publisher.messages_acked(), number);
            report.store(number, Ordering::Relaxed);
            publisher
        });
        Load { acked, goal, task }
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until this many more messages are acked.
    pub fn wait_for_more(&self, messages: u64, when: &str) {
        let before = self.acked();
        wait_for(&format!("{messages} more acks {when}"), || (self.acked() >= before + messages).then_some(()));
    }

    /// Lets it end, everything acked. Gives the number of messages.
    pub fn finish(self) -> (u64, Publisher) {
        // The loop has sent at least what was acked; where it is now is where it stops.
        self.goal.store(0, Ordering::Relaxed);
        let publisher = self.task.join();
        (publisher.messages_acked(), publisher)
    }
}

/// Reads everything from the start, at a broker.
pub fn read_all(site: &Site, broker: u32, messages: u64) -> Watcher {
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, broker, Start::Order(Order(0))), Fifo::Publisher);
    watcher.read_exactly(messages);
    watcher
}
