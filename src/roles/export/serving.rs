//! One pass over all that are served: what is read for them, and what they are sent.
//!
//! A pass reads first, for all: the end of the log for those that rest, then what each of the others is to get next. One look at the
//! epoch lines confirms all of it; only then anything is handed on. What a pass reads is bounded, and who comes too late in one is the
//! first of the next.

use crate::log::commit::Commit;
use crate::log::order_index::IndexFault;
use crate::log::reader::{Delivery, ENTRIES_PER_PASS, ReadFault, Sought, TailSkip};
use crate::net::Network;
use crate::net::network::SEND_LIST_MAX;
use crate::observe::slowest::SlowBatch;
use crate::pool::Memory;
use crate::roles::export::{Export, Item, Phase};
use crate::runtime::Now;
use crate::wire::Refusal;
use crate::wire::frame::{self, CaughtUp, Deliver, Skipped, Welcome};

/// A send is closed when it has this many bytes: fair to the other readers, and bounded.
const SEND_BYTES: u64 = 1 << 20;
/// An entry that cannot be read, in pass after pass, for this long is damaged, ns.
const FAULT_NS: u64 = 1_000_000_000;
/// And in this many passes.
const FAULT_PASSES: u32 = 16;
/// Entries read for all together in one pass, about: 16 of them are read all that one can be.
const ENTRIES_FOR_ALL: usize = 16 * ENTRIES_PER_PASS;

/// What was read for a subscription, and does not count before it is confirmed.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// A step of the search for its starts, and how many entries that passed.
    Sought(Result<Sought, ReadFault>, usize),
    /// Entries it is to get.
    Fetched(Result<usize, IndexFault>),
    /// Nothing: something is on its way to it.
    Nothing,
}

impl Read {
    fn entries(&self) -> usize {
        match self {
            Read::Sought(_, passed) => *passed,
            Read::Fetched(fetched) => fetched.unwrap_or(0),
            Read::Nothing => 0,
        }
    }
}

impl<M: Memory, N: Network> Export<M, N> {
    /// One pass.
    pub(super) fn serve_all(&mut self, io: &mut N, commit: &Commit, now: Now) -> usize {
        let mut moved = self.follow_tail(commit);
        if self.awake.is_empty() {
            return moved;
        }
        for index in 0..self.awake.len() {
            moved += usize::from(self.tell_brokers(io, self.awake[index]));
        }
        let mut reads = std::mem::take(&mut self.reads);
        self.read_all(commit, &mut reads);
        // That there is nothing yet, and what was read before, stand whatever the epoch.
        let stands = |read: &Read| matches!(read, Read::Nothing | Read::Fetched(Ok(0)));
        let is_confirmed = reads.iter().all(|(_, read)| stands(read)) || self.confirm(commit);
        for (seat, read) in reads.drain(..) {
            if is_confirmed && self.is_waited_for || stands(&read) {
                moved += self.serve(io, seat, read, commit, now);
                continue;
            }
            // What is handed on cannot be taken back: nothing of it counts, no fault either.
            let subscriber = self.subscriber(seat);
            match subscriber.phase {
                Phase::Seeking => subscriber.reader.restart(),
                _ => subscriber.reader.unfetch(),
            }
        }
        self.reads = reads;
        let tail = &self.tail;
        self.awake.retain(|seat| !tail.rests(*seat));
        moved
    }

    fn confirm(&mut self, commit: &Commit) -> bool {
        self.counters.confirms += 1;
        self.commit.confirm(commit.epoch)
    }

    /// Looks at what is new for all that rest, and wakes whom it concerns.
    fn follow_tail(&mut self, commit: &Commit) -> usize {
        let read = self.tail.read(commit);
        if read == Ok(0) || !self.confirm(commit) {
            return 0;
        }
        let (subscribers, awake) = (&mut self.subscribers, &mut self.awake);
        let wake = |seat: u32, position| {
            subscribers[seat as usize].as_mut().expect("it rested").reader.pass_to(position);
            awake.push(seat);
        };
        match read {
            Ok(count) => {
                self.tail.pass(count, wake);
                self.counters.entries_read += count as u64;
                count
            }
            // Each meets it for itself.
            Err(_) => {
                self.tail.wake_all(wake);
                1
            }
        }
    }

    /// Wakes one that rests, for something is to be said on its connection, or it ends.
    pub(super) fn rouse(&mut self, seat: u32) {
        if let Some(position) = self.tail.wake(seat) {
            self.subscriber(seat).reader.pass_to(position);
            self.awake.push(seat);
        }
    }

    /// Wakes all that rest.
    pub(super) fn rouse_all(&mut self) {
        for index in 0..self.active.len() {
            self.rouse(self.active[index]);
        }
    }

    /// Reads for those that are awake, in turn.
    fn read_all(&mut self, commit: &Commit, reads: &mut Vec<(u32, Read)>) {
        let (count, first) = (self.awake.len(), self.turn);
        let mut left = ENTRIES_FOR_ALL;
        for step in 0..count {
            let seat = self.awake[(first + step) % count];
            let read = self.read_for(seat, commit, left > 0);
            if left > 0 {
                self.turn = (first + step + 1) % count;
            }
            if let Some(read) = read {
                left = left.saturating_sub(read.entries());
                self.counters.entries_read += read.entries() as u64;
                reads.push((seat, read));
            }
        }
    }

    /// Reads for one; if it wants anything read, and may. `None`: it has to wait for the next pass, or needs nothing.
    fn read_for(&mut self, seat: u32, commit: &Commit, may_read: bool) -> Option<Read> {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("it is awake");
        let is_busy = subscriber.is_busy();
        let reader = &mut subscriber.reader;
        match subscriber.phase {
            Phase::Seeking | Phase::Streaming if is_busy => Some(Read::Nothing),
            Phase::Seeking if may_read => {
                let before = reader.position();
                let sought = reader.seek(commit, &self.topics);
                Some(Read::Sought(sought, reader.position().saturating_sub(before) as usize))
            }
            Phase::Streaming if may_read => Some(match reader.look_for_topics(&self.topics) {
                None => Read::Fetched(reader.fetch(commit)),
                Some(sought) => Read::Sought(Ok(sought), 0),
            }),
            Phase::Refusing => Some(Read::Nothing),
            Phase::Seeking | Phase::Streaming | Phase::Ending => None,
        }
    }

    /// Goes on with one, by what was read for it.
    fn serve(&mut self, io: &mut N, seat: u32, read: Read, commit: &Commit, now: Now) -> usize {
        match (read, self.subscriber(seat).phase) {
            (Read::Sought(sought, passed), _) => self.found(io, seat, sought, passed, now),
            (Read::Fetched(fetched), _) => self.stream(io, seat, fetched, now),
            (Read::Nothing, Phase::Refusing) => self.judge_last_words(io, seat, now),
            (Read::Nothing, _) => self.judge_pace(io, seat, commit, now),
        }
    }

    fn found(&mut self, io: &mut N, seat: u32, sought: Result<Sought, ReadFault>, passed: usize, now: Now) -> usize {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        if sought.is_ok() {
            subscriber.faults = None;
        }
        match sought {
            Ok(Sought::NotYet) => passed,
            Ok(Sought::Found) if subscriber.pace.is_let_go() => self.say_too_slow(io, seat, now),
            Ok(Sought::Found) => {
                for (index, topic) in subscriber.topics.iter_mut().enumerate() {
                    topic.next_order = subscriber.reader.next_order(index);
                }
                subscriber.phase = Phase::Streaming;
                self.tail.follow(seat, subscriber.topics.iter().map(|topic| topic.id).collect());
                self.welcome(io, seat);
                1
            }
            Ok(Sought::Trimmed { place: topic, earliest }) => {
                let text = format!("the order asked for is gone; the earliest message kept is {earliest}");
                self.refuse(io, seat, Refusal::Trimmed, (topic, earliest), &text);
                1
            }
            Ok(Sought::Deleted { place: topic }) => {
                self.refuse_deleted(io, seat, topic);
                1
            }
            Err(fault) => self.fault(io, seat, fault, now),
        }
    }

    fn refuse_deleted(&mut self, io: &mut N, seat: u32, topic: usize) {
        self.refuse(io, seat, Refusal::TopicDeleted, (topic, 0), "the topic was deleted; this is the end of it");
    }

    fn welcome(&mut self, io: &mut N, seat: u32) {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        subscriber.told_brokers = self.brokers.version();
        let mut words = Vec::new();
        for (index, topic) in subscriber.topics.iter().enumerate() {
            let welcome = Welcome {
                session: topic.created_position + 1,
                next: topic.next_order,
                topic: topic.id,
                batch_bytes_max: self.batch_bytes_max,
                order_level: topic.order as u8,
                broker: self.settings.broker,
                version: subscriber.version,
                ..Welcome::default()
            };
            let (log, list) = (subscriber.quiet.promised(&self.settings.log), self.brokers.text());
            let body = if index == 0 { frame::welcome_body(subscriber.version, &log, list) } else { Vec::new() };
            words.extend(frame::with_body(&welcome, &body));
        }
        self.say(io, seat, words);
    }

    /// Collects the next batches into one send.
    fn stream(&mut self, io: &mut N, seat: u32, fetched: Result<usize, IndexFault>, now: Now) -> usize {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let before = subscriber.reader.position();
        if fetched.is_ok() {
            subscriber.faults = None;
        }
        match fetched {
            Ok(0) => return self.caught_up(io, seat, now),
            Ok(_) => {}
            Err(fault) => return self.fault(io, seat, ReadFault::Index(fault), now),
        }
        let list = io.list(subscriber.list);
        let most = (self.settings.batches_per_send as usize).min(SEND_LIST_MAX - 1);
        while list.len() < most && list.bytes() < SEND_BYTES {
            let delivery = match subscriber.reader.next_delivery() {
                Ok(Some(delivery)) => delivery,
                Ok(None) => break,
                Err(fault) if list.is_empty() => return self.fault(io, seat, fault, now),
                // What comes before it is sent first; then it is met again.
                Err(_) => {
                    subscriber.reader.unfetch();
                    break;
                }
            };
            let (index, position, first) = (delivery.place, delivery.position, delivery.first_order);
            let topic = &mut subscriber.topics[index];
            if let Some(from) = delivery.skipped_from {
                list.push(&skipped(subscriber.version, topic.id, from, first), 0, 0);
                subscriber.items.push(Item { place: index, position, before: from });
                self.counters.skipped_messages += first - from;
            }
            let deliver = Deliver { version: subscriber.version, ..deliver_frame(&delivery) };
            list.push(&frame::seal(&deliver), delivery.at, delivery.bytes);
            subscriber.items.push(Item { place: index, position: position + 1, before: first });
            (topic.next_order, topic.told_caught_up) = (delivery.end_order, false);
            self.times.take(as_batch(&delivery));
            let messages = delivery.header.message_count;
            self.deliveries.count(topic.id, topic.created_position, messages, delivery.bytes);
            self.counters.delivered_batches += 1;
            self.counters.delivered_bytes += delivery.bytes;
            self.counters.delivered_messages += u64::from(messages);
        }
        if list.is_empty()
            && let Some(topic) = subscriber.reader.deleted()
        {
            self.refuse_deleted(io, seat, topic);
            return 1;
        }
        if !list.is_empty() {
            subscriber.lent_from = before;
            self.submit(io, seat, now);
        }
        // Entries of other topics count: the cursor moved.
        (self.subscriber(seat).reader.position() - before) as usize
    }

    /// It has everything: it is told so, once, and then it rests.
    fn caught_up(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let moved = self.tell_caught_up(io, seat, now);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let is_told = subscriber.topics.iter().all(|topic| topic.told_caught_up);
        let is_free = !subscriber.is_busy() && subscriber.parting.is_none();
        if is_told && is_free && subscriber.phase == Phase::Streaming {
            // It holds nothing up.
            subscriber.pace.is_free();
            self.tail.rest(seat, subscriber.reader.position());
        }
        moved
    }

    /// Tells of every topic, once, that all of it was sent.
    fn tell_caught_up(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        if subscriber.topics.iter().all(|topic| topic.told_caught_up) {
            return 0;
        }
        let position = subscriber.reader.position();
        let list = io.list(subscriber.list);
        for (index, topic) in subscriber.topics.iter_mut().enumerate() {
            if topic.told_caught_up || list.len() + 2 > SEND_LIST_MAX {
                continue;
            }
            match subscriber.reader.skipped_at_the_tail(index, &self.topics) {
                // The next checkpoint will tell.
                TailSkip::NotKnownYet => continue,
                TailSkip::Nothing => {}
                TailSkip::Skipped { from, next } => {
                    list.push(&skipped(subscriber.version, topic.id, from, next), 0, 0);
                    subscriber.items.push(Item { place: index, position, before: from });
                    self.counters.skipped_messages += next - from;
                    topic.next_order = next;
                }
            }
            let next_order = topic.next_order;
            let version = subscriber.version;
            let caught_up = CaughtUp { version, topic: topic.id, next_order, ..CaughtUp::default() };
            list.push(&frame::seal(&caught_up), 0, 0);
            subscriber.items.push(Item { place: index, position, before: next_order });
            topic.told_caught_up = true;
        }
        if list.is_empty() {
            return 0;
        }
        subscriber.lent_from = position;
        self.submit(io, seat, now);
        1
    }

    /// It cannot be read on for one. What may be so for a moment only is met again; what lasts is damage.
    fn fault(&mut self, io: &mut N, seat: u32, fault: ReadFault, now: Now) -> usize {
        let subscriber = self.subscriber(seat);
        subscriber.reader.unfetch();
        let (since_ns, passes) = subscriber.faults.unwrap_or((now.monotonic_ns, 0));
        subscriber.faults = Some((since_ns, passes + 1));
        let lasts = passes >= FAULT_PASSES && now.monotonic_ns - since_ns >= FAULT_NS;
        match fault {
            // A takeover may be under way.
            ReadFault::Index(IndexFault::Inconsistent { .. }) if !lasts => return 0,
            ReadFault::Index(IndexFault::Trimmed { position }) if !lasts => {
                // What is not below the floor is not gone: its segment could not be made out just now.
                if self.hold.floors().read().is_none_or(|floors| floors.floor <= position) {
                    return 0;
                }
                return self.left_behind(io, seat, now);
            }
            _ => {}
        }
        // What is found wrong is the pool's fault only if it was still there: this process may have stood still in the midst of this
        // very pass. Nobody is handed anything any more in it, and the next look says who lost what.
        self.is_waited_for = self.hold.look(self.lowest_needed()) == Ok(true);
        if !self.is_waited_for {
            return 1;
        }
        self.counters.inconsistent += 1;
        log::error!(
            "{}: cannot read on for a subscriber: {fault}; if other subscribers are refused too, the pool is damaged: \
             restore it, or re-format it with `embarlet --config FILE --format` (its data is lost)",
            self.name
        );
        let text = "the pool is damaged at this reader's position; see the broker's log";
        self.refuse(io, seat, Refusal::Damaged, (0, 0), text);
        1
    }
}

fn skipped(version: u8, topic: u32, from: u64, next_order: u64) -> [u8; 64] {
    frame::seal(&Skipped { version, topic, from, next_order, ..Skipped::default() })
}

/// A batch whose way ends here.
fn as_batch(delivery: &Delivery) -> SlowBatch {
    SlowBatch {
        position: delivery.position,
        session: delivery.header.session,
        batch_seq: delivery.header.batch_seq,
        bytes: delivery.bytes as u32,
        messages: delivery.header.message_count,
        lane: delivery.lane.into(),
        topic: delivery.header.topic,
        ..SlowBatch::default()
    }
}

/// The frame in front of a batch, but for the version that its reader speaks.
pub(crate) fn deliver_frame(delivery: &Delivery) -> Deliver {
    let batch = &delivery.header;
    Deliver {
        body_bytes: delivery.bytes as u32,
        message_count: batch.message_count,
        first_order: delivery.first_order,
        position: delivery.position,
        session: batch.session,
        batch_seq: batch.batch_seq,
        session_epoch: batch.session_epoch,
        topic: batch.topic,
        ..Deliver::default()
    }
}
