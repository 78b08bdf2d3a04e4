//! A broker's exporter: the real reader, shared cursor and pin; bytes leave the pool when the network takes them, as by zero copy.

use std::collections::VecDeque;

use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::member::Member;
use crate::log::order_index::IndexFault;
use crate::log::reader::{ReadFault, Reader, Sought, TopicStart};
use crate::log::retention::{Dropped, Hold, NO_PIN};
use crate::log::tail::Tail;
use crate::log::topics::TopicReader;
use crate::pool::Memory;
use crate::pool::Process;
use crate::roles::export::deliver_frame;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::mail::Subscription;
use crate::sim::network::End;
use crate::sim::part::LinkId;
use crate::sim::parts::terms::UTC_NS;
use crate::sim::process::ProcessMemory;
use crate::wire::frame::{self, CaughtUp, Refused, Welcome};
use crate::wire::{OrderLevel, Refusal, StartAt};

/// Subscribers at once.
const PLACES: u32 = 8;
/// Batches of one send at most.
const BATCHES_PER_SEND: usize = 8;
/// Time a reader that others wait for may take nothing, ns.
const READER_STALL_NS: u64 = 80_000_000;
/// Times a reader may find an entry unreadable before it is a fault.
const FAULTS_MAX: u32 = 1000;

/// Bytes lent to the network until it has taken them.
enum Lent {
    Words(Vec<u8>),
    /// A range of the pool.
    Pool(u64, u64),
}

struct Served {
    /// In the shared cursor.
    place: u32,
    link: LinkId,
    topic: u32,
    start: StartAt,
    reader: Reader<ProcessMemory>,
    is_seeking: bool,
    is_ending: bool,
    sending: VecDeque<Lent>,
    /// Lowest position whose bytes the network may still want.
    lent_from: u64,
    next_order: u64,
    told_caught_up: bool,
    progress_ns: u64,
    faults: u32,
}

/// See the head of the file.
pub(super) struct Export {
    broker: u32,
    view: View<ProcessMemory>,
    commit: CommitReader<ProcessMemory>,
    topics: TopicReader<ProcessMemory>,
    hold: Hold<ProcessMemory>,
    /// The broker's line: this part looks after it.
    member: Member<ProcessMemory>,
    served: Vec<Served>,
    /// Places nobody has.
    free: Vec<u32>,
    /// The shared cursor of those that have everything.
    tail: Tail<ProcessMemory>,
}

impl Export {
    pub fn new(kernel: &Kernel, broker: u32) -> Export {
        let view = kernel.view();
        let member = Member::announce(&view, broker, Process { started_at_utc_ns: UTC_NS, ..Process::default() });
        Export {
            broker,
            commit: CommitReader::new(&view),
            topics: TopicReader::new(&view),
            hold: Hold::take(&view, broker, member.incarnation()),
            member,
            served: Vec::new(),
            free: (0..PLACES).rev().collect(),
            tail: Tail::new(&view, PLACES),
            view,
        }
    }

    /// Pins the floor for a new subscriber, so that it can look for its start.
    fn take_in(&mut self, kernel: &Kernel) {
        let waits = kernel.with(|state| !state.mail[self.broker as usize].subscriptions.is_empty());
        if !waits || self.free.is_empty() {
            return;
        }
        let Some(floor) = self.hold.lower_to_floor() else { return };
        let Some(subscription) = kernel.with(|state| state.mail[self.broker as usize].subscriptions.pop_front()) else {
            return;
        };
        let place = self.free.pop().expect("looked at above");
        let Subscription { link, topic, created_position, start } = subscription;
        self.served.push(Served {
            place,
            link,
            topic,
            start,
            reader: Reader::new(&self.view, [TopicStart { topic, created_position, start }], floor, false),
            is_seeking: true,
            is_ending: false,
            sending: VecDeque::new(),
            lent_from: NO_PIN,
            next_order: 0,
            told_caught_up: false,
            progress_ns: kernel.now_ns(),
            faults: 0,
        });
    }

    fn serve(&mut self, kernel: &Kernel, index: usize, commit: &Commit) {
        if self.served[index].is_ending || self.tail.rests(self.served[index].place) {
        } else if self.served[index].is_seeking {
            self.seek(kernel, index, commit);
        } else if self.served[index].sending.is_empty() {
            self.stream(kernel, index, commit);
        } else {
            self.judge_pace(kernel, index);
        }
    }

    fn seek(&mut self, kernel: &Kernel, index: usize, commit: &Commit) {
        let served = &mut self.served[index];
        let sought = served.reader.seek(commit, &self.topics);
        if !self.commit.confirm(commit.epoch) {
            return served.reader.restart();
        }
        match sought {
            Ok(Sought::NotYet) => {}
            Ok(Sought::Found) => {
                let order = served.reader.next_order(0);
                (served.next_order, served.is_seeking) = (order, false);
                self.tail.follow(served.place, [served.topic].into());
                let order_level = OrderLevel::Session as u8;
                let batch_bytes_max = self.view.layout.geometry.batch_bytes_max() as u32;
                let welcome =
                    Welcome { next: order, topic: served.topic, order_level, batch_bytes_max, ..Welcome::default() };
                served.sending.push_back(Lent::Words(frame::with_body(&welcome, b"")));
            }
            Ok(Sought::Trimmed { earliest, .. }) => {
                match served.start {
                    StartAt::Order(order) => kernel.check(|checker| checker.gone(order)),
                    other => kernel.fail(10, format!("what begins at {other:?} was told to be gone")),
                }
                self.refuse(index, Refusal::Trimmed, earliest);
            }
            Ok(Sought::Deleted { .. }) => self.refuse(index, Refusal::TopicDeleted, 0),
            Err(fault) => self.fault(index, fault),
        }
    }

    fn stream(&mut self, kernel: &Kernel, index: usize, commit: &Commit) {
        let served = &mut self.served[index];
        let before = served.reader.position();
        match served.reader.fetch(commit) {
            Ok(0) => return self.caught_up(index),
            Ok(_) => {}
            Err(fault) => return self.fault(index, ReadFault::Index(fault)),
        }
        if !self.commit.confirm(commit.epoch) {
            return served.reader.unfetch();
        }
        let mut batches = 0;
        while batches < BATCHES_PER_SEND {
            match served.reader.next_delivery() {
                Ok(Some(delivery)) => {
                    served.sending.push_back(Lent::Words(frame::seal(&deliver_frame(&delivery)).to_vec()));
                    served.sending.push_back(Lent::Pool(delivery.at, delivery.bytes));
                    served.next_order = delivery.end_order;
                    batches += 1;
                }
                Ok(None) => break,
                Err(fault) => return self.fault(index, fault),
            }
        }
        if batches == 0 && served.reader.deleted().is_some() {
            return self.refuse(index, Refusal::TopicDeleted, 0);
        }
        if batches > 0 {
            (served.lent_from, served.told_caught_up) = (before, false);
            served.progress_ns = kernel.now_ns();
        }
    }

    /// It has everything: it is told so, once, and then it rests.
    fn caught_up(&mut self, index: usize) {
        let served = &mut self.served[index];
        if std::mem::replace(&mut served.told_caught_up, true) {
            self.tail.rest(served.place, served.reader.position());
            return;
        }
        let caught_up = CaughtUp { topic: served.topic, next_order: served.next_order, ..CaughtUp::default() };
        served.sending.push_back(Lent::Words(frame::seal(&caught_up).to_vec()));
    }

    /// Looks at what is new for all that rest, and wakes whom it concerns.
    fn follow_tail(&mut self, commit: &Commit) {
        let read = self.tail.read(commit);
        if read == Ok(0) || !self.commit.confirm(commit.epoch) {
            return;
        }
        let served = &mut self.served;
        let wake = |place: u32, position| {
            let woken = served.iter_mut().find(|served| served.place == place);
            woken.expect("it rested").reader.pass_to(position);
        };
        match read {
            Ok(count) => self.tail.pass(count, wake),
            // Each meets it for itself.
            Err(_) => self.tail.wake_all(wake),
        }
    }

    /// A reader that takes nothing while memory waits for it is let go.
    fn judge_pace(&mut self, kernel: &Kernel, index: usize) {
        let served = &mut self.served[index];
        if kernel.now_ns() - served.progress_ns <= READER_STALL_NS {
            return;
        }
        let lent_from = served.lent_from;
        if self.hold.floors().read().is_some_and(|floors| floors.wanted > lent_from) {
            served.sending.clear();
            served.is_ending = true;
        }
    }

    fn fault(&mut self, index: usize, fault: ReadFault) {
        let served = &mut self.served[index];
        served.faults += 1;
        served.reader.unfetch();
        if matches!(fault, ReadFault::Index(IndexFault::Inconsistent { .. })) && served.faults < FAULTS_MAX {
            return;
        }
        // It may not have been waited for: it goes on when the next look finds that it was.
        let lowest = self.lowest();
        if self.hold.look(lowest) != Ok(true) {
            return;
        }
        // A reader that was waited for never falls behind the floor, and the log is never inconsistent.
        panic!("a pinned reader cannot go on: {fault:?}, pinned {}", self.hold.position());
    }

    fn refuse(&mut self, index: usize, refusal: Refusal, detail: u64) {
        let served = &mut self.served[index];
        let refused = Refused { code: refusal as u16, detail, ..Refused::default() };
        served.sending.push_back(Lent::Words(frame::with_body(&refused, b"words")));
        served.is_ending = true;
    }

    /// The network takes what it has room for, out of the pool as it is now.
    fn send(&mut self, kernel: &Kernel, index: usize) {
        let lowest = self.lowest();
        let served = &mut self.served[index];
        while let Some(first) = served.sending.front_mut() {
            let written = match first {
                Lent::Words(words) => kernel.write(served.link, End::Broker, words),
                Lent::Pool(at, bytes) => {
                    let now = (*bytes).min(1 + kernel.below(6000));
                    let copy = self.view.memory.with_bytes(*at, now, <[u8]>::to_vec);
                    // What was copied is what was committed only if it was waited for until now.
                    if self.hold.look(lowest) != Ok(true) {
                        return;
                    }
                    kernel.write(served.link, End::Broker, &copy)
                }
            };
            let Some(written) = written else {
                served.sending.clear();
                served.is_ending = true;
                break;
            };
            if written == 0 {
                return;
            }
            served.progress_ns = kernel.now_ns();
            let is_done = match first {
                Lent::Words(words) => {
                    words.drain(..written);
                    words.is_empty()
                }
                Lent::Pool(at, bytes) => {
                    (*at, *bytes) = (*at + written as u64, *bytes - written as u64);
                    *bytes == 0
                }
            };
            if is_done {
                served.sending.pop_front();
            }
        }
        served.lent_from = NO_PIN;
    }

    fn end_those_over(&mut self, kernel: &Kernel) {
        self.end_those(kernel, |served, _| {
            served.is_ending && served.sending.is_empty() || kernel.with(|state| state.network.is_over(served.link))
        });
    }

    fn end_those(&mut self, kernel: &Kernel, is_over: impl Fn(&Served, u64) -> bool) {
        let (tail, free) = (&mut self.tail, &mut self.free);
        self.served.retain(|served| {
            let is_over = is_over(served, needs(served, tail));
            if is_over {
                kernel.close(served.link, End::Broker);
                tail.forget(served.place);
                free.push(served.place);
            }
            !is_over
        });
    }

    /// Shows that the readers are looked after, and ends those that were not waited for.
    fn look(&mut self, kernel: &Kernel) {
        let mut lowest = self.lowest();
        while let Err(Dropped { closing }) = self.hold.look(lowest) {
            self.end_those(kernel, |_, needs| needs < closing);
            lowest = self.lowest();
        }
    }

    fn lowest(&self) -> u64 {
        self.served.iter().map(|served| needs(served, &self.tail)).min().unwrap_or(NO_PIN)
    }
}

/// The lowest position a reader keeps from being given up.
fn needs(served: &Served, tail: &Tail<ProcessMemory>) -> u64 {
    if tail.rests(served.place) { tail.needs() } else { served.lent_from.min(served.reader.needs()) }
}

impl Actor for Export {
    fn step(&mut self, kernel: &Kernel) {
        self.member.beat(kernel.now_ns());
        self.look(kernel);
        self.take_in(kernel);
        if !self.served.is_empty()
            && let Some(commit) = self.commit.current()
        {
            self.follow_tail(&commit);
            for index in 0..self.served.len() {
                self.serve(kernel, index, &commit);
            }
        }
        for index in 0..self.served.len() {
            self.send(kernel, index);
        }
        self.end_those_over(kernel);
        self.look(kernel);
    }
}
