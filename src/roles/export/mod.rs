//! The exporter: serves the ordered stream of topics to subscribers, straight out of the blog.
//!
//! Every subscription follows the index with its own cursor ([`crate::log::reader`]) and has one vectored send under way: a
//! Deliver header from the list's memory, the batch from the pool, again. What the kernel still has is pinned until it completes.
//!
//! * [`pace`]: subscriptions that keep memory from being used again: waited for, made to skip, or let go.

mod pace;
#[cfg(test)]
mod superseded_tests;

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::config::SendMode;
use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::order_index::IndexFault;
use crate::log::reader::{ReadFault, Reader, Sought, TailSkip};
use crate::log::retention::{Hold, NO_PIN};
use crate::log::topics::TopicReader;
use crate::net::ring::{SEND_LIST_MAX, abort};
use crate::net::{Asker, Completion, ListId, Operation, Ring, Stage};
use crate::observe::counters::{CounterBlock, ExportCounters};
use crate::pool::Mapped;
use crate::pool::coherence::Coherence;
use crate::roles::handoff::{Subscription, Subscriptions, is_loopback};
use crate::runtime::{Now, Role, RoleError};
use crate::wire::frame::{self, CaughtUp, Refused, Skipped, Welcome};
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
    /// This broker's number.
    pub broker: u16,
    /// `id address` lines for the Welcome.
    pub broker_list: String,
}

const REPORT_NS: u64 = 1_000_000_000;
/// How long readers that were waited for are taken to be so without another look, ns: far below the shortest
/// `liveness.member_silence`, 100 ms.
const TRUST_NS: u64 = 1_000_000;
/// Time a subscriber may take nothing while the broker wants to end, ns.
const DRAIN_STALL_NS: u64 = 500_000_000;
/// A send is closed when it has this many bytes: fair to the other readers, and bounded.
const SEND_BYTES: u64 = 1 << 20;
/// Break-even of zero copy, bytes (3 KB measured on kernels from 6.10, more before).
const ZERO_COPY_FROM_BYTES: u64 = 16 << 10;
/// Passes a reader may find an entry unreadable before it is a fault.
const FAULTS_MAX: u32 = 1000;

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
struct Topic {
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
    place: usize,
    /// Where the cursor stands once it is sent.
    position: u64,
    /// Next order of the topic if it is not sent.
    before: u64,
}

struct Subscriber<C: Coherence> {
    stream: TcpStream,
    generation: u32,
    topics: Box<[Topic]>,
    phase: Phase,
    reader: Reader<Mapped<C>>,
    list: ListId,
    /// What is in the list.
    items: Vec<Item>,
    sending: Option<Operation>,
    /// Result of a zero-copy send whose bytes the kernel still has.
    accepted: Option<i32>,
    is_loopback: bool,
    watching: Option<Operation>,
    /// Lowest position whose bytes the kernel may still have.
    lent_from: u64,
    progress_ns: u64,
    pace: pace::Pace,
    faults: u32,
}

impl<C: Coherence> Subscriber<C> {
    /// The lowest position it keeps from being given up. Once it is over, only what the kernel still has counts.
    fn needs(&self) -> u64 {
        match self.phase {
            Phase::Seeking | Phase::Streaming => self.lent_from.min(self.reader.needs()),
            Phase::Refusing | Phase::Ending => self.lent_from,
        }
    }
}

/// One broker's exporter.
pub struct Export<C: Coherence> {
    name: String,
    role: u8,
    settings: ExportSettings,
    batch_bytes_max: u32,
    view: View<Mapped<C>>,
    commit: CommitReader<Mapped<C>>,
    topics: TopicReader<Mapped<C>>,
    /// What the readers pin together.
    hold: Hold<Mapped<C>>,
    /// When it was last known that they were waited for; until it is known again, nothing is handed on.
    looked_ns: u64,
    is_waited_for: bool,
    incoming: Arc<Subscriptions>,
    subscribers: Vec<Option<Subscriber<C>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Places taken.
    active: Vec<u32>,
    counters: ExportCounters,
    block: CounterBlock<Mapped<C>>,
    report_ns: u64,
    draining_since_ns: Option<u64>,
}

impl<C: Coherence> Export<C> {
    /// A broker's exporter. The caller holds the broker's host lock; `incarnation` is from 1.
    pub fn new(
        view: &View<Mapped<C>>,
        broker: u32,
        incarnation: u64,
        settings: ExportSettings,
        incoming: Arc<Subscriptions>,
    ) -> Self {
        let places = settings.connections_max;
        Export {
            name: format!("export {broker}"),
            role: 0,
            batch_bytes_max: view.layout.geometry.batch_bytes_max() as u32,
            view: view.clone(),
            commit: CommitReader::new(view),
            topics: TopicReader::new(view),
            hold: Hold::take(view, broker, incarnation),
            looked_ns: 0,
            is_waited_for: true,
            incoming,
            subscribers: (0..places).map(|_| None).collect(),
            generations: vec![0; places as usize],
            free: (0..places).rev().collect(),
            active: Vec::with_capacity(places as usize),
            counters: ExportCounters::default(),
            block: CounterBlock::new(view.memory.clone(), view.layout.export_counters(broker)),
            report_ns: 0,
            draining_since_ns: None,
            settings,
        }
    }

    fn asker(&self, place: u32, kind: u64) -> Asker {
        let generation = u64::from(self.generations[place as usize] & 0x00ff_ffff);
        Asker { role: self.role, tag: kind << 56 | generation << 32 | u64::from(place) }
    }

    fn subscriber(&mut self, place: u32) -> &mut Subscriber<C> {
        self.subscribers[place as usize].as_mut().expect("the place is taken")
    }

    /// Takes new subscribers in: pins the floor for each, so that it can look for its start.
    fn take_in(&mut self, io: &mut Ring, now: Now) -> usize {
        let mut moved = 0;
        while !self.free.is_empty() && !self.incoming.is_empty() {
            // Before a sequencer has been active, and during a takeover, there are no floors: they wait in the queue.
            let Some(floor) = self.hold.lower_to_floor() else { break };
            let Some(subscription) = self.incoming.pop() else { break };
            moved += 1;
            self.admit(io, subscription, floor, now);
        }
        moved
    }

    fn admit(&mut self, io: &mut Ring, subscription: Subscription, floor: u64, now: Now) {
        let place = self.free.pop().expect("looked at by the caller");
        self.generations[place as usize] = self.generations[place as usize].wrapping_add(1);
        let Subscription { stream, topics, slow_reader, lag_bytes } = subscription;
        let pace = pace::Pace::new(&self.settings, slow_reader, lag_bytes);
        let starts = topics.iter().map(crate::roles::handoff::SubscribedTopic::start_at);
        let reader = Reader::new(&self.view, starts, floor, pace.policy == SlowReader::Skip);
        let is_loopback = stream.peer_addr().is_ok_and(|peer| is_loopback(peer.ip()));
        let watching = io.poll_readable(self.asker(place, WATCH), stream.as_raw_fd());
        let topic = |topic: &crate::roles::handoff::SubscribedTopic| Topic {
            id: topic.topic,
            created_position: topic.created_position,
            order: topic.order,
            next_order: 0,
            told_caught_up: false,
        };
        self.subscribers[place as usize] = Some(Subscriber {
            stream,
            generation: self.generations[place as usize] & 0x00ff_ffff,
            topics: topics.iter().map(topic).collect(),
            phase: Phase::Seeking,
            reader,
            list: io.take_list(),
            items: Vec::with_capacity(SEND_LIST_MAX),
            sending: None,
            accepted: None,
            is_loopback,
            watching,
            lent_from: NO_PIN,
            progress_ns: now.monotonic_ns,
            pace,
            faults: 0,
        });
        self.active.push(place);
        self.counters.accepted += 1;
    }

    fn serve(&mut self, io: &mut Ring, place: u32, commit: &Commit, now: Now) -> usize {
        let Some(subscriber) = &self.subscribers[place as usize] else { return 0 };
        match subscriber.phase {
            Phase::Seeking => self.seek(io, place, commit, now),
            Phase::Streaming if subscriber.sending.is_none() => self.stream(io, place, commit, now),
            Phase::Streaming => self.judge_pace(io, place, commit, now),
            Phase::Refusing => self.judge_last_words(io, place, now),
            Phase::Ending => 0,
        }
    }

    fn seek(&mut self, io: &mut Ring, place: u32, commit: &Commit, now: Now) -> usize {
        let subscriber = self.subscribers[place as usize].as_mut().expect("served");
        let before = subscriber.reader.position();
        let sought = subscriber.reader.seek(commit, &self.topics);
        if !self.commit.confirm(commit.epoch) {
            subscriber.reader.restart();
            return 0;
        }
        match sought {
            Ok(Sought::NotYet) => subscriber.reader.position().saturating_sub(before) as usize,
            Ok(Sought::Found) if subscriber.pace.is_let_go() => self.say_too_slow(io, place, now),
            Ok(Sought::Found) => {
                for (index, topic) in subscriber.topics.iter_mut().enumerate() {
                    topic.next_order = subscriber.reader.next_order(index);
                }
                subscriber.phase = Phase::Streaming;
                self.welcome(io, place);
                1
            }
            Ok(Sought::Trimmed { place: topic, earliest }) => {
                let text = format!("the order asked for is gone; the earliest message kept is {earliest}");
                self.refuse(io, place, Refusal::Trimmed, (topic, earliest), &text);
                1
            }
            Ok(Sought::Deleted { place: topic }) => {
                self.refuse_deleted(io, place, topic);
                1
            }
            Err(fault) => self.fault(io, place, fault, now),
        }
    }

    fn refuse_deleted(&mut self, io: &mut Ring, place: u32, topic: usize) {
        self.refuse(io, place, Refusal::TopicDeleted, (topic, 0), "the topic was deleted; this is the end of it");
    }

    fn welcome(&mut self, io: &mut Ring, place: u32) {
        let asker = self.asker(place, SEND);
        let subscriber = self.subscribers[place as usize].as_mut().expect("served");
        let mut words = Vec::new();
        for (index, topic) in subscriber.topics.iter().enumerate() {
            let welcome = Welcome {
                session: topic.created_position + 1,
                next: topic.next_order,
                topic: topic.id,
                batch_bytes_max: self.batch_bytes_max,
                order_level: topic.order as u8,
                broker: self.settings.broker,
                ..Welcome::default()
            };
            let list = if index == 0 { self.settings.broker_list.as_bytes() } else { b"" };
            words.extend(frame::with_body(&welcome, list));
        }
        subscriber.sending = io.send_owned(asker, subscriber.stream.as_raw_fd(), words.into());
        if subscriber.sending.is_none() {
            self.end(io, place);
        }
    }

    /// Collects the next batches into one send.
    fn stream(&mut self, io: &mut Ring, place: u32, commit: &Commit, now: Now) -> usize {
        let subscriber = self.subscribers[place as usize].as_mut().expect("served");
        let before = subscriber.reader.position();
        match subscriber.reader.fetch(commit) {
            Ok(0) => return self.tell_caught_up(io, place, now),
            Ok(_) => {}
            Err(fault) => return self.fault(io, place, ReadFault::Index(fault), now),
        }
        // A delivery cannot be undone.
        if !self.commit.confirm(commit.epoch) {
            subscriber.reader.unfetch();
            return 0;
        }
        let (list, pool) = io.list_and_pool(subscriber.list);
        let most = (self.settings.batches_per_send as usize).min(SEND_LIST_MAX - 1);
        while list.len() < most && list.bytes() < SEND_BYTES {
            let delivery = match subscriber.reader.next_delivery() {
                Ok(Some(delivery)) => delivery,
                Ok(None) => break,
                Err(fault) => return self.fault(io, place, fault, now),
            };
            let (index, position, first) = (delivery.place, delivery.position, delivery.first_order);
            let topic = &mut subscriber.topics[index];
            if let Some(from) = delivery.skipped_from {
                list.push(&skipped(topic.id, from, first), pool, 0, 0);
                subscriber.items.push(Item { place: index, position, before: from });
                self.counters.skipped_messages += first - from;
            }
            list.push(&delivery.header, pool, delivery.at, delivery.bytes);
            subscriber.items.push(Item { place: index, position: position + 1, before: first });
            (topic.next_order, topic.told_caught_up) = (delivery.end_order, false);
            self.counters.delivered_batches += 1;
            self.counters.delivered_messages += u64::from(delivery.messages);
        }
        if list.is_empty()
            && let Some(topic) = subscriber.reader.deleted()
        {
            self.refuse_deleted(io, place, topic);
            return 1;
        }
        if !list.is_empty() {
            subscriber.lent_from = before;
            self.submit(io, place, now);
        }
        // Entries of other topics count: the cursor moved.
        (self.subscriber(place).reader.position() - before) as usize
    }

    /// Tells of every topic, once, that all of it was sent.
    fn tell_caught_up(&mut self, io: &mut Ring, place: u32, now: Now) -> usize {
        let subscriber = self.subscribers[place as usize].as_mut().expect("served");
        if subscriber.topics.iter().all(|topic| topic.told_caught_up) {
            return 0;
        }
        let position = subscriber.reader.position();
        let (list, pool) = io.list_and_pool(subscriber.list);
        for (index, topic) in subscriber.topics.iter_mut().enumerate() {
            if topic.told_caught_up || list.len() + 2 > SEND_LIST_MAX {
                continue;
            }
            match subscriber.reader.skipped_at_the_tail(index, &self.topics) {
                // The next checkpoint will tell.
                TailSkip::NotKnownYet => continue,
                TailSkip::Nothing => {}
                TailSkip::Skipped { from, next } => {
                    list.push(&skipped(topic.id, from, next), pool, 0, 0);
                    subscriber.items.push(Item { place: index, position, before: from });
                    self.counters.skipped_messages += next - from;
                    topic.next_order = next;
                }
            }
            let next_order = topic.next_order;
            let caught_up = CaughtUp { topic: topic.id, next_order, ..CaughtUp::default() };
            list.push(&frame::seal(&caught_up), pool, 0, 0);
            subscriber.items.push(Item { place: index, position, before: next_order });
            topic.told_caught_up = true;
        }
        if list.is_empty() {
            return 0;
        }
        subscriber.lent_from = position;
        self.submit(io, place, now);
        1
    }

    fn submit(&mut self, io: &mut Ring, place: u32, now: Now) {
        let asker = self.asker(place, SEND);
        let subscriber = self.subscribers[place as usize].as_mut().expect("served");
        let zero_copy = match self.settings.send {
            SendMode::Copy => false,
            SendMode::ZeroCopy => true,
            // On loopback the kernel copies all the same, and pays for the notification.
            SendMode::Auto => !subscriber.is_loopback && io.list(subscriber.list).bytes() >= ZERO_COPY_FROM_BYTES,
        };
        let operation = io.send_list(asker, subscriber.stream.as_raw_fd(), subscriber.list, zero_copy);
        subscriber.sending = operation;
        subscriber.progress_ns = now.monotonic_ns;
        self.counters.sends += 1;
        if operation.is_none() {
            self.end(io, place);
        }
    }

    fn fault(&mut self, io: &mut Ring, place: u32, fault: ReadFault, now: Now) -> usize {
        let subscriber = self.subscriber(place);
        subscriber.faults += 1;
        subscriber.reader.unfetch();
        if matches!(fault, ReadFault::Index(IndexFault::Inconsistent { .. })) && subscriber.faults < FAULTS_MAX {
            // A takeover may be under way.
            return 0;
        }
        if matches!(fault, ReadFault::Index(IndexFault::Trimmed { .. })) && subscriber.faults < FAULTS_MAX {
            return self.left_behind(io, place, now);
        }
        self.counters.inconsistent += 1;
        log::error!(
            "{}: cannot read on for a subscriber: {fault}; if other subscribers are refused too, the pool is damaged: \
             restore it, or re-format it with `embarlet --config FILE --format` (its data is lost)",
            self.name
        );
        let text = "the log is inconsistent at this reader's position; see the broker's log";
        let next = self.subscriber(place).topics[0].next_order;
        self.refuse(io, place, Refusal::TooSlow, (0, next), text);
        1
    }

    /// Says why it is over. `about` is the place of the topic meant, and the refusal's number.
    fn refuse(&mut self, io: &mut Ring, place: u32, refusal: Refusal, about: (usize, u64), text: &str) {
        self.counters.refused += 1;
        let (topic, detail) = about;
        let header = Refused { code: refusal as u16, place: topic as u16, detail, ..Refused::default() };
        let asker = self.asker(place, SEND);
        let subscriber = self.subscriber(place);
        if subscriber.sending.is_some() {
            return self.end(io, place);
        }
        let mut words = subscriber.pace.take_rest();
        words.extend(frame::with_body(&header, text.as_bytes()));
        subscriber.phase = Phase::Refusing;
        subscriber.sending = io.send_owned(asker, subscriber.stream.as_raw_fd(), words.into());
        if subscriber.sending.is_none() {
            self.end(io, place);
        }
    }

    fn end(&mut self, io: &mut Ring, place: u32) {
        let subscriber = self.subscriber(place);
        let graceful = subscriber.phase == Phase::Refusing;
        subscriber.phase = Phase::Ending;
        let how = if graceful { Shutdown::Write } else { Shutdown::Both };
        if subscriber.accepted.is_some() && !graceful {
            // A peer that takes nothing would keep the pages that are lent to the socket for ever.
            abort(subscriber.stream.as_raw_fd());
        }
        // The peer may be gone already.
        let _ = subscriber.stream.shutdown(how);
        if let Some(operation) = subscriber.watching {
            io.cancel(operation);
        }
        self.forget_if_idle(io, place);
    }

    fn forget_if_idle(&mut self, io: &mut Ring, place: u32) {
        let subscriber = self.subscriber(place);
        if subscriber.sending.is_some() || subscriber.watching.is_some() {
            return;
        }
        let list = subscriber.list;
        io.give_back_list(list);
        self.subscribers[place as usize] = None;
        self.active.retain(|active| *active != place);
        self.free.push(place);
    }

    fn sent(&mut self, io: &mut Ring, place: u32, result: i32, now: Now) {
        io.take_returned();
        let subscriber = self.subscriber(place);
        subscriber.sending = None;
        match subscriber.phase {
            Phase::Ending => return self.forget_if_idle(io, place),
            Phase::Refusing => return self.end(io, place),
            Phase::Seeking | Phase::Streaming => {}
        }
        let is_cut = subscriber.pace.take_cut();
        let bytes = match result {
            0.. => result as u64,
            _ if is_cut && result == -libc::ECANCELED => 0,
            _ => return self.end(io, place),
        };
        if bytes > 0 {
            subscriber.progress_ns = now.monotonic_ns;
        }
        self.counters.sent_bytes += bytes;
        let list_id = self.subscriber(place).list;
        let list = io.list(list_id);
        if list.is_empty() {
            // That was the welcome, or the rest of a batch.
            return;
        }
        list.consume(bytes);
        if list.bytes() > 0 {
            return if is_cut { self.cut(io, place, now) } else { self.submit(io, place, now) };
        }
        list.clear();
        let subscriber = self.subscriber(place);
        subscriber.items.clear();
        subscriber.lent_from = NO_PIN;
    }

    /// Moves the pin to the lowest position any reader needs.
    fn move_pin(&mut self) {
        let lowest = self.lowest_needed();
        self.hold.raise(lowest);
    }

    fn lowest_needed(&self) -> u64 {
        let all = self.active.iter().filter_map(|place| self.subscribers[*place as usize].as_ref());
        all.map(Subscriber::needs).min().unwrap_or(NO_PIN)
    }

    fn report(&mut self, now: Now) {
        if now.monotonic_ns - self.report_ns >= REPORT_NS {
            self.report_ns = now.monotonic_ns;
            self.write_counters();
        }
    }

    fn write_counters(&mut self) {
        self.counters.connections = self.active.len() as u64;
        self.block.write(&self.counters);
    }
}

fn skipped(topic: u32, from: u64, next_order: u64) -> [u8; 64] {
    frame::seal(&Skipped { topic, from, next_order, ..Skipped::default() })
}

impl<C: Coherence> Role<Ring> for Export<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self, _io: &mut Ring, index: u8, now: Now) -> Result<(), RoleError> {
        self.role = index;
        self.report_ns = now.monotonic_ns;
        Ok(())
    }

    fn complete(&mut self, io: &mut Ring, completion: Completion, now: Now) {
        let (place, generation) = (completion.tag as u32, (completion.tag >> 32) as u32 & 0x00ff_ffff);
        let known = self.subscribers[place as usize].as_ref();
        if known.is_none_or(|subscriber| subscriber.generation != generation) {
            return;
        }
        if completion.tag >> 56 == SEND {
            return match completion.stage {
                // The bytes are lent until the second completion, which has no result of its own.
                Stage::Accepted => self.subscriber(place).accepted = Some(completion.result),
                Stage::Released { copied } => {
                    self.counters.zero_copy_copied += u64::from(copied);
                    let result = self.subscriber(place).accepted.take().unwrap_or(0);
                    self.sent(io, place, result, now)
                }
                Stage::Done => self.sent(io, place, completion.result, now),
            };
        }
        // A subscriber says nothing after its hello but goodbye: whatever can be read now, it is leaving.
        self.subscriber(place).watching = None;
        if self.subscriber(place).phase == Phase::Ending {
            self.forget_if_idle(io, place);
        } else {
            self.end(io, place);
        }
    }

    fn poll(&mut self, io: &mut Ring, now: Now) -> usize {
        let mut moved = self.look(io, now) + self.take_in(io, now);
        if !self.active.is_empty()
            && self.is_waited_for
            && let Some(commit) = self.commit.current()
        {
            // Serving may end one: from the back, so that none is skipped.
            for index in (0..self.active.len()).rev() {
                moved += self.serve(io, self.active[index], &commit, now);
            }
        }
        self.move_pin();
        self.report(now);
        moved
    }

    fn waits_for(&self) -> Option<String> {
        Some(format!("{} subscribers to take what is on its way to them", self.active.len()))
    }

    fn drain(&mut self, io: &mut Ring, now: Now) -> bool {
        let since_ns = *self.draining_since_ns.get_or_insert(now.monotonic_ns);
        while self.incoming.pop().is_some() {}
        self.look(io, now);
        for index in (0..self.active.len()).rev() {
            let place = self.active[index];
            let subscriber = self.subscriber(place);
            let still_ns = now.monotonic_ns.saturating_sub(subscriber.progress_ns.max(since_ns));
            match (subscriber.phase, subscriber.sending.is_some()) {
                (Phase::Seeking | Phase::Streaming, false) => {
                    self.refuse(io, place, Refusal::Draining, (0, 0), "this broker is shutting down; use another");
                }
                // It takes nothing, not even the last words.
                (Phase::Seeking | Phase::Streaming | Phase::Refusing, true) if still_ns > DRAIN_STALL_NS => {
                    self.subscriber(place).phase = Phase::Streaming;
                    self.end(io, place);
                }
                _ => {}
            }
        }
        self.move_pin();
        let drained = self.active.is_empty();
        if drained {
            self.write_counters();
        }
        drained
    }
}
