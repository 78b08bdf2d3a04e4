//! Clients that map the pool: the production cores of attached publishers and subscribers, each in a place of its own, as processes of
//! a host. What opens files, locks and waits is left out: the world's process holds the lock of its place for as long as it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::client::attached::publishing::{Opening, Publishing};
use crate::client::attached::subscribing::{Polled, Subscribing};
use crate::client::attached::writer::Times;
use crate::client::attached::{Clock, Life};
use crate::client::{ClientError, Delivered, PoolOptions, PublisherOptions, Start, SubscriberOptions, TopicProperties};
use crate::pool::Process;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::parts::subscriber;
use crate::sim::parts::terms::{UTC_NS, topic_name};
use crate::sim::process::ProcessMemory;
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::wire::{AckLevel, OrderLevel, Refusal};

/// Numbers of clients, so that none is taken for one that connects.
const CLIENTS: u64 = 1 << 16;
/// Batches that a subscriber is handed in one poll at most, and polls in one step.
const POLL_BATCHES_MAX: usize = 64;
const POLLS_PER_STEP: usize = 4;
/// Steps of a publisher until it closes its session, or leaves it as it is, on average.
const STEPS_OF_A_SESSION: u64 = 300;

impl Clock for Kernel {
    fn times(&self) -> Times {
        Times { now: self.instant(), utc_ns: self.clock().utc_ns }
    }

    fn now(&self) -> Instant {
        self.instant()
    }
}

/// This process in the place of a member. Checks what its last process left there.
fn begin(kernel: &Kernel, member: u32, lane: Option<u32>) -> Option<Life<ProcessMemory>> {
    let process = Process { started_at_utc_ns: UTC_NS, ..Process::default() };
    match Life::begin(&kernel.view(), member, lane, process, kernel.instant()) {
        Ok(life) => Some(life),
        Err(fault) => {
            kernel.fail(0, format!("a place cannot be taken over: {fault}"));
            None
        }
    }
}

/// A session, from its request to its end.
struct Published {
    core: Publishing<ProcessMemory, Kernel>,
    /// What an ack means.
    acks: (OrderLevel, AckLevel),
    client: u64,
    next_message: u64,
    /// Every batch below is acked, as it was told.
    acked: Arc<AtomicU64>,
    /// As the checker was told.
    claimed: u64,
    is_open: bool,
    is_closing: bool,
}

/// See the head of the file.
pub(super) struct AttachedPublisher {
    number: u32,
    /// Sessions that it asked for.
    sessions: u64,
    published: Option<Published>,
    /// Its topic, and how many of its name had been deleted when it began.
    topic: String,
    deletions: usize,
    payload_bytes_max: u64,
}

impl AttachedPublisher {
    pub fn new(kernel: &Kernel, number: u32) -> AttachedPublisher {
        let payload_bytes_max = kernel.with(|state| state.scenario.payload_bytes_max);
        let (topic, deletions) = (String::new(), 0);
        AttachedPublisher { number, sessions: 0, published: None, topic, deletions, payload_bytes_max }
    }

    fn begin(&mut self, kernel: &Kernel) {
        let (scenario, g) = kernel.with(|state| (state.scenario.clone(), state.layout.geometry));
        let place = scenario.writer_place(self.number);
        let topic = kernel.below(scenario.topics.len() as u64) as usize;
        let order = scenario.topics[topic];
        let is_acked = order == OrderLevel::Session || kernel.chance(3, 4);
        let acks = (order, if is_acked { AckLevel::Committed } else { AckLevel::None });
        self.deletions = kernel.deletions(&topic_name(topic));
        self.topic = topic_name(topic);
        let options = PublisherOptions {
            pool: PoolOptions { path: "simulated".into(), ..PoolOptions::default() },
            topic: topic_name(topic),
            create: Some(TopicProperties { order, receipts: scenario.receipts, ..TopicProperties::default() }),
            ack: acks.1,
            batch_bytes: (2 * scenario.payload_bytes_max).max(1024),
            batch_messages: 12,
            window_batches: scenario.window as u32,
            ..PublisherOptions::default()
        };
        let lane = g.attached_lane(place);
        let Some(life) = begin(kernel, g.writer_member(place), Some(lane)) else { return };
        let mut core = Publishing::begin(&kernel.view(), lane, life, options, kernel.clone());
        self.sessions += 1;
        let acked = Arc::new(AtomicU64::new(0));
        let heard = acked.clone();
        core.on_acked(Box::new(move |batch| heard.store(batch.batch_seq.0 + 1, Ordering::Relaxed)));
        let client = (CLIENTS + u64::from(self.number)) << 32 | kernel.life() << 16 | self.sessions;
        self.published = Some(Published {
            core,
            acks,
            client,
            next_message: 0,
            acked,
            claimed: 0,
            is_open: false,
            is_closing: false,
        });
    }

    fn publish(&mut self, kernel: &Kernel) -> Result<(), ClientError> {
        let Some(published) = &mut self.published else { return Ok(()) };
        if !published.is_open {
            return published.open(kernel);
        }
        let is_calm = kernel.is_calm();
        let mut waits = false;
        while !is_calm && !published.is_closing && !waits && kernel.chance(5, 6) {
            waits = !published.send(self.payload_bytes_max)?;
        }
        if is_calm || published.is_closing || kernel.chance(1, 2) {
            published.core.seal();
        }
        let moved = published.core.poll()?;
        if waits || moved == 0 {
            published.core.await_room()?;
        } else {
            published.core.writer.report(false);
        }
        published.tell(kernel);
        if is_calm {
            return Ok(());
        }
        published.is_closing |= kernel.chance(1, STEPS_OF_A_SESSION);
        let is_done = published.is_closing && published.core.writer.in_flight() == 0;
        if is_done && published.core.writer.ask_to_close() || kernel.chance(1, 2 * STEPS_OF_A_SESSION) {
            published.core.write_counters();
            published.core.retire();
            self.published = None;
        }
        Ok(())
    }

    /// What keeps a publisher from going on, and whether that may be.
    fn refused(&mut self, kernel: &Kernel, error: &ClientError) {
        match error {
            ClientError::PoolRefused { refusal: Refusal::UnknownTopic | Refusal::TopicDeleted, .. } => {
                kernel.check(|checker| checker.deleted(kernel.part, &[(self.topic.clone(), self.deletions)]));
            }
            // Another session may be had later.
            ClientError::PoolRefused { refusal, detail, .. } if *refusal != Refusal::UnknownSession => {
                kernel.note(Event::Refused(kernel.part, *refusal as u16, *detail));
            }
            // An open session is known.
            ClientError::PoolRefused { .. } => {
                let session = self.published.as_ref().map_or(0, |published| published.core.writer.session());
                let topic = (self.topic.clone(), self.deletions);
                kernel.check(|checker| checker.over(kernel.part, session, &topic));
            }
            _ => kernel.fail(0, error.to_string()),
        }
        if let Some(mut published) = self.published.take() {
            published.core.retire();
        }
    }
}

impl Published {
    fn open(&mut self, kernel: &Kernel) -> Result<(), ClientError> {
        if self.core.open()? == Opening::Open {
            self.is_open = true;
            let (session, client) = (self.core.writer.session(), self.client);
            kernel.note(Event::Welcomed(kernel.part, session, 1, 0));
            kernel.check(|checker| checker.opened(session, client));
        }
        Ok(())
    }

    /// Sends the next message. False: there is no room now.
    fn send(&mut self, payload_bytes_max: u64) -> Result<bool, ClientError> {
        let payload = workload::payload(self.client, self.next_message, payload_bytes_max);
        let is_taken = self.core.try_send(&payload)?;
        self.next_message += u64::from(is_taken);
        Ok(is_taken)
    }

    /// Tells the checker what was acked.
    fn tell(&mut self, kernel: &Kernel) {
        let (session, next) = (self.core.writer.session(), self.acked.load(Ordering::Relaxed));
        if next > self.claimed {
            self.claimed = next;
            kernel.note(Event::Acked(kernel.part, session, 0, next, false, u64::MAX));
            kernel.check(|checker| match self.acks {
                // It is in the pool, or it was taken.
                (OrderLevel::None, AckLevel::Committed) => checker.landed(session, next),
                (_, AckLevel::None) => Ok(()),
                _ => checker.acked(session, next),
            });
        }
    }
}

impl Actor for AttachedPublisher {
    fn step(&mut self, kernel: &Kernel) {
        if self.published.is_none() {
            self.begin(kernel);
        }
        if let Err(error) = self.publish(kernel) {
            self.refused(kernel, &error);
        }
    }

    /// Everything was acked.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        let is_done = |published: &Published| {
            published.is_open && published.core.writer.in_flight() == 0 && published.core.writer.open_since().is_none()
        };
        self.published.as_ref().is_some_and(is_done)
    }

    fn tell(&self) -> String {
        let Some(Published { core, next_message, is_open, .. }) = &self.published else { return String::new() };
        let writer = &core.writer;
        let (session, standing, in_flight) = (writer.session(), writer.standing(), writer.in_flight());
        format!(
            "session {session:#x}, open {is_open}, {:?}, {standing:?}, {next_message} messages, {in_flight} in flight, \
             resent, let go, fenced {:?}, {:?}",
            core.opening(),
            writer.rarities(),
            writer.counters()
        )
    }
}

/// See the head of the file.
pub(super) struct AttachedSubscriber {
    number: u32,
    core: Option<Subscribing<ProcessMemory, Kernel>>,
    start: Start,
    verify: bool,
    /// Its topic, and how many of its name had been deleted when it began.
    topic: String,
    deletions: usize,
    /// Order the next batch must begin at, once the first has come.
    expected: Option<u64>,
    payload_bytes_max: u64,
}

impl AttachedSubscriber {
    pub fn new(kernel: &Kernel, number: u32) -> AttachedSubscriber {
        let start = match kernel.below(4) {
            0 => Start::Latest,
            1 => Start::Timestamp(UTC_NS + kernel.below(kernel.now_ns())),
            _ => Start::Earliest,
        };
        let payload_bytes_max = kernel.with(|state| state.scenario.payload_bytes_max);
        let (verify, deletions) = (kernel.chance(1, 2), 0);
        let topic = topic_name(kernel.below(kernel.with(|state| state.scenario.topics.len()) as u64) as usize);
        AttachedSubscriber { number, core: None, start, verify, topic, deletions, expected: None, payload_bytes_max }
    }

    fn begin(&mut self, kernel: &Kernel) {
        let (place, g) = kernel.with(|state| (state.scenario.reader_place(self.number), state.layout.geometry));
        let member = g.reader_member(place);
        self.deletions = kernel.deletions(&self.topic);
        let Some(life) = begin(kernel, member, None) else { return };
        let options = SubscriberOptions {
            pool: PoolOptions { path: "simulated".into(), ..PoolOptions::default() },
            topic: self.topic.clone(),
            start: self.start,
            check_crc: self.verify,
            ..SubscriberOptions::default()
        };
        self.core = Some(Subscribing::begin(&kernel.view(), member, life, options, kernel.clone()));
    }

    fn poll(&mut self, kernel: &Kernel) -> Result<Polled, ClientError> {
        let Some(core) = &mut self.core else { return Ok(Polled::Nothing) };
        let (expected, bytes_max) = (&mut self.expected, self.payload_bytes_max);
        core.poll(POLL_BATCHES_MAX, &mut |batch| handed(kernel, batch, expected, bytes_max))
    }

    /// It may have asked for what lay ahead in a topic that was deleted meanwhile: in another of its name it may wait for ever.
    fn look_back(&mut self, kernel: &Kernel) {
        let next = kernel.with(|state| state.checker.next_order(&self.topic));
        let is_ahead = |core: &mut Subscribing<_, _>| next.is_some_and(|next| next < core.next_order());
        if kernel.is_calm()
            && let Some(mut core) = self.core.take_if(is_ahead)
        {
            core.retire();
            (self.start, self.expected) = (Start::Earliest, None);
        }
    }

    /// What a subscriber is told, and whether that may be; then it goes on, or begins again.
    fn refused(&mut self, kernel: &Kernel, error: &ClientError) {
        let Some(core) = &mut self.core else { return };
        match error {
            ClientError::TooSlow { next_order, .. } => {
                kernel.note(Event::Refused(kernel.part, Refusal::TooSlow as u16, next_order.0));
                kernel.with(|state| state.told_slow += 1);
                return;
            }
            ClientError::PoolRefused { refusal: Refusal::Trimmed, detail, .. } => {
                kernel.note(Event::Refused(kernel.part, Refusal::Trimmed as u16, *detail));
                let asked = match self.start {
                    Start::Order(order) => order.0.max(core.next_order()),
                    _ => core.next_order(),
                };
                kernel.check(|checker| checker.gone(&self.topic, asked));
                (self.start, self.expected) = (Start::Order((*detail).into()), None);
            }
            ClientError::PoolRefused { refusal: Refusal::UnknownTopic, .. } => {}
            ClientError::PoolRefused { refusal: Refusal::TopicDeleted, .. } => {
                kernel.note(Event::Refused(kernel.part, Refusal::TopicDeleted as u16, core.next_order()));
                kernel.check(|checker| checker.deleted(kernel.part, &[(self.topic.clone(), self.deletions)]));
                (self.start, self.expected) = (Start::Earliest, None);
            }
            _ => kernel.fail(8, error.to_string()),
        }
        core.retire();
        self.core = None;
    }
}

fn handed(kernel: &Kernel, batch: &Delivered<'_>, expected: &mut Option<u64>, payload_bytes_max: u64) {
    let (first_order, message_count) = (batch.first_order.0, batch.message_count);
    if let Some(due) = expected.replace(first_order + u64::from(message_count)).filter(|due| *due != first_order) {
        return kernel.fail(2, format!("a batch at order {first_order} where {due} comes next"));
    }
    subscriber::handed(kernel, batch, payload_bytes_max);
}

impl Actor for AttachedSubscriber {
    fn step(&mut self, kernel: &Kernel) {
        if self.core.is_none() {
            self.begin(kernel);
        }
        for _ in 0..POLLS_PER_STEP {
            match self.poll(kernel) {
                Ok(Polled::Nothing) => return self.look_back(kernel),
                Ok(Polled::Handed(_) | Polled::Moved) => {}
                Err(error) => return self.refused(kernel, &error),
            }
        }
    }

    /// It has everything.
    fn is_at_rest(&self, checker: &Checker) -> bool {
        let has_all = |core: &Subscribing<_, _>| {
            core.is_streaming() && Some(core.next_order()) == checker.next_order(&self.topic)
        };
        self.core.as_ref().is_some_and(has_all)
    }

    fn tell(&self) -> String {
        let Some(core) = &self.core else { return String::new() };
        format!("streams {}, order {} is next, has all {}", core.is_streaming(), core.next_order(), core.caught_up())
    }
}
