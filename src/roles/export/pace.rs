//! Subscriptions that keep memory from being used again.
//!
//! The trimmer announces what it is about to give up; a subscription that needs some of that holds publishers up. What becomes
//! of it is its own choice: it is waited for, up to a lag and as long as it takes anything; it skips to what is kept; or it is
//! disconnected. To free the memory, a send that is under way is cancelled and the rest of the batch that was sent in part is
//! copied: at most one batch for each subscription, and the peer's stream stays whole. Pages that a zero-copy send has put into
//! the socket cannot be taken back: then the connection is reset, and the peer comes back and skips, or is refused, then.

use crate::log::commit::Commit;
use crate::log::retention::{Dropped, NO_PIN};
use crate::net::network::{Network, Piece, Socket};
use crate::pool::Memory;
use crate::roles::distance::packed;
use crate::roles::export::slow::{LET_GO, Slow};
use crate::roles::export::{Export, ExportSettings, Phase, Subscriber, TRUST_NS};
use crate::runtime::Now;
use crate::wire::{Refusal, SlowReader};

/// Time between two looks at the floors for one subscription whose send is under way, ns.
const JUDGE_EVERY_NS: u64 = 5_000_000;

/// Publishers that did not wait for this long do not wait any more, ns.
const FREE_NS: u64 = 1_000_000_000;
/// It is told for whom publishers wait after this time, ns.
const TELL_NS: u64 = 1_000_000_000;

/// What is to become of one subscription if it is too slow, and what is becoming of it.
pub(super) struct Pace {
    /// Never `AsConfigured`.
    pub(super) policy: SlowReader,
    /// Waited for up to this lag, bytes; 0: as much as fits.
    lag_max: u64,
    judged_ns: u64,
    /// Since when publishers have been waiting for it.
    held_since_ns: Option<u64>,
    /// When they were last seen to wait for it.
    held_ns: u64,
    /// Where the log ended when they began to wait for it, or when it last got there, and when that was.
    mark: Option<(u64, u64)>,
    /// People were told that it is waited for.
    is_told: bool,
    /// What its peer had acknowledged at the last look.
    acked_bytes: u64,
    /// The send under way was asked to end.
    is_cutting: bool,
    is_let_go: bool,
    /// What the peer must still get to have a whole batch.
    rest: Vec<u8>,
}

impl Pace {
    /// Of a subscription that asks for this policy and lag.
    pub(super) fn new(settings: &ExportSettings, policy: SlowReader, lag_bytes: u64) -> Pace {
        let policy = if policy == SlowReader::AsConfigured { settings.slow_reader } else { policy };
        let lag_max = match (lag_bytes, settings.reader_lag_max) {
            (0, most) => most,
            (asked, 0) => asked,
            (asked, most) => asked.min(most),
        };
        Pace {
            policy,
            lag_max,
            judged_ns: 0,
            held_since_ns: None,
            held_ns: 0,
            mark: None,
            is_told: false,
            acked_bytes: 0,
            is_cutting: false,
            is_let_go: false,
            rest: Vec::new(),
        }
    }

    /// Whether it is being told that it was too slow.
    pub(super) fn is_let_go(&self) -> bool {
        self.is_let_go
    }

    /// It has everything, and holds nothing up.
    pub(super) fn is_free(&mut self) {
        (self.held_since_ns, self.mark) = (None, None);
    }

    /// What the peer must get before anything else.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// Whether the send that has just ended was asked to.
    pub(super) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cutting)
    }
}

impl<M: Memory, S: Socket> Subscriber<M, S> {
    /// A send of a megabyte says nothing until it is done: what the peer acknowledges is what it takes.
    fn see_what_it_takes(&mut self, now_ns: u64) {
        let acked = self.socket.acked_bytes().unwrap_or(0);
        if acked > self.pace.acked_bytes {
            (self.pace.acked_bytes, self.progress_ns) = (acked, now_ns);
        }
    }

    /// Publishers wait for it. Gives for how long it has not got to where the log's end was when that began, ns. One that follows
    /// at its own pace gets there, again and again; a crawler does not.
    fn waited_for(&mut self, needs: u64, watermark: u64, now_ns: u64) -> u64 {
        let pace = &mut self.pace;
        if now_ns.saturating_sub(pace.held_ns) > FREE_NS || pace.mark.is_some_and(|(mark, _)| needs >= mark) {
            pace.mark = None;
        }
        pace.held_ns = now_ns;
        let (_, since_ns) = *pace.mark.get_or_insert((watermark, now_ns));
        now_ns - since_ns
    }
}

impl Slow {
    /// For how long readers like this one were waited for before it came, ns; [`LET_GO`]: one was let go.
    pub(super) fn waited_for_before<M: Memory, S: Socket>(&self, subscriber: &Subscriber<M, S>, now_ns: u64) -> u64 {
        let Some(peer) = subscriber.peer.0 else { return 0 };
        let topics = subscriber.topics.iter().map(|topic| topic.id);
        self.waited_ns(peer.ip(), topics, subscriber.came_ns, now_ns)
    }

    /// One that others waited for is let go.
    fn note_let_go<M: Memory, S: Socket>(&mut self, subscriber: &Subscriber<M, S>, now_ns: u64) {
        self.note_of(subscriber, LET_GO, now_ns);
    }

    /// One that others wait for ends.
    pub(super) fn note_end<M: Memory, S: Socket>(&mut self, subscriber: &Subscriber<M, S>) {
        let Some((_, since_ns)) = subscriber.pace.mark else { return };
        let now_ns = subscriber.pace.held_ns;
        let before_ns = self.waited_for_before(subscriber, now_ns);
        self.note_of(subscriber, before_ns.saturating_add(now_ns - since_ns), now_ns);
    }

    fn note_of<M: Memory, S: Socket>(&mut self, subscriber: &Subscriber<M, S>, waited_ns: u64, now_ns: u64) {
        if subscriber.pace.policy == SlowReader::Wait
            && let Some(peer) = subscriber.peer.0
            && let Some((_, since_ns)) = subscriber.pace.mark
        {
            let topics = subscriber.topics.iter().map(|topic| topic.id).collect();
            self.note(peer.ip(), topics, since_ns, waited_ns, now_ns);
        }
    }
}

impl<M: Memory, N: Network> Export<M, N> {
    /// Tells once for whom publishers wait, and counts it.
    fn tell_waited_for(&mut self, seat: u32, commit: &Commit, waited_ns: u64) {
        if waited_ns < TELL_NS {
            return;
        }
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let slowest = (waited_ns, packed(subscriber.peer.0), subscriber.topics[0].id);
        self.waited_for = self.waited_for.max(Some(slowest));
        if std::mem::replace(&mut subscriber.pace.is_told, true) {
            return;
        }
        self.counters.waited_readers += 1;
        self.topics.refresh();
        let name_of =
            |id: u32| self.topics.known().iter().find(|topic| topic.id == id).map(|topic| topic.name.to_string());
        let names: Vec<_> = subscriber.topics.iter().filter_map(|topic| name_of(topic.id)).collect();
        let behind = commit.watermark.saturating_sub(subscriber.reader.needs().min(subscriber.lent_from));
        log::warn!(
            "{}: publishers wait for the subscriber at {} of topic {}, which is {behind} batches behind and holds the memory they need; it is let go after export.reader_stall without taking anything, or export.reader_wait_max",
            self.name,
            subscriber.peer,
            names.join(", "),
        );
    }

    /// Looks whether publishers wait for a subscription whose send is under way, and does what its policy says.
    pub(super) fn judge_pace(&mut self, io: &mut N, seat: u32, commit: &Commit, now: Now) -> usize {
        if self.judge_parting(io, seat, now) {
            return 1;
        }
        let moved = self.try_again(io, seat, now);
        let now_ns = now.monotonic_ns;
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        if subscriber.phase != Phase::Streaming || now_ns.saturating_sub(subscriber.pace.judged_ns) < JUDGE_EVERY_NS {
            return moved;
        }
        subscriber.pace.judged_ns = now_ns;
        let needs = subscriber.needs();
        let Some(floors) = self.hold.floors().read().filter(|floors| floors.wanted > needs) else {
            subscriber.pace.held_since_ns = None;
            return moved;
        };
        let held_ns = now_ns - *subscriber.pace.held_since_ns.get_or_insert(now_ns);
        subscriber.see_what_it_takes(now_ns);
        let waited_ns = subscriber.waited_for(needs, commit.watermark, now_ns);
        self.tell_waited_for(seat, commit, waited_ns);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let before_ns = self.slow.waited_for_before(subscriber, now_ns);
        let is_over = match subscriber.pace.policy {
            // It has skipped already, and has not taken anything since.
            SlowReader::Skip if subscriber.lent_from == NO_PIN => true,
            SlowReader::Skip | SlowReader::Disconnect => held_ns >= self.settings.reader_grace_ns,
            // It was let go, and came back.
            SlowReader::Wait | SlowReader::AsConfigured if before_ns == LET_GO => {
                held_ns >= self.settings.reader_grace_ns
            }
            SlowReader::Wait | SlowReader::AsConfigured => {
                let still_ns = now_ns.saturating_sub(subscriber.progress_ns);
                let lag_max = subscriber.pace.lag_max;
                let lag = if lag_max == 0 { 0 } else { subscriber.reader.lag_bytes(commit).unwrap_or(0) };
                let (wait_max_ns, waited_ns) = (self.settings.reader_wait_max_ns, waited_ns.saturating_add(before_ns));
                still_ns > self.settings.reader_stall_ns || lag > lag_max || wait_max_ns > 0 && waited_ns > wait_max_ns
            }
        };
        if !is_over {
            return moved;
        }
        self.slow.note_let_go(subscriber, now_ns);
        if subscriber.lent_from == NO_PIN {
            // What is being sent is a copy.
            return self.give_up(io, seat, floors.wanted, now);
        }
        if subscriber.accepted.is_some() {
            // Zero copy: the network has the pages and nobody can take them back but by ending the connection.
            self.counters.too_slow += 1;
            log::warn!(
                "{}: the subscriber at {} is too slow: publishers waited for memory lent to its socket; it is reset",
                self.name,
                subscriber.peer
            );
            self.end(io, seat);
            return 1;
        }
        if subscriber.again.is_due() {
            // The kernel has nothing of it.
            subscriber.again.forget();
            self.cut(io, seat, now);
            return 1;
        }
        // A cancel may come just as the kernel tries again, and then fails: it is repeated at the next look.
        subscriber.pace.is_cutting = true;
        if let Some(operation) = subscriber.sending {
            io.cancel(operation);
        }
        1
    }

    /// The send was cut, or ended just then: keeps the rest of what was sent in part, gives up what was not sent.
    pub(super) fn cut(&mut self, io: &mut N, seat: u32, now: Now) {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("it was sending");
        let list = io.list(subscriber.list);
        let begun = list.items_begun();
        subscriber.pace.rest.clear();
        for piece in list.rest_of_item() {
            match piece {
                Piece::Words(words) => subscriber.pace.rest.extend(words),
                Piece::Pool(at, bytes) => {
                    self.view.memory.with_bytes(at, bytes, |bytes| subscriber.pace.rest.extend(bytes));
                }
            }
        }
        list.clear();
        for item in subscriber.items[begun..].iter().rev() {
            subscriber.topics[item.place].next_order = item.before;
        }
        let sent_to = subscriber.items[..begun].last().map_or(subscriber.lent_from, |item| item.position);
        subscriber.items.clear();
        subscriber.lent_from = NO_PIN;
        // The floors have not moved past what it needed: the pin is as it was.
        let wanted = self.hold.floors().read().map_or(sent_to, |floors| floors.wanted);
        self.give_up(io, seat, wanted.max(sent_to), now);
    }

    /// Nothing of the pool is in the kernel's hands: skips to `position`, or ends.
    fn give_up(&mut self, io: &mut N, seat: u32, position: u64, now: Now) -> usize {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        subscriber.pace.is_free();
        if subscriber.pace.policy != SlowReader::Skip {
            self.counters.too_slow += 1;
            log::warn!(
                "{}: the subscriber at {} is too slow: publishers waited for memory it needs; it is let go",
                self.name,
                subscriber.peer
            );
            return self.tell_too_slow(io, seat, position, now);
        }
        self.counters.skips += 1;
        let (reader, topics) = (&mut subscriber.reader, &subscriber.topics);
        reader.skip_to(position, |index| topics[index].next_order);
        subscriber.topics.iter_mut().for_each(|topic| topic.told_caught_up = false);
        let rest = subscriber.pace.take_rest();
        if !rest.is_empty() {
            self.say(io, seat, rest);
        }
        1
    }

    /// Shows that the readers here are looked after, before anything is handed on. What publishers did not wait for, as when this
    /// process stood still and was taken for dead, is given up. Gives how many readers that were.
    pub(super) fn look(&mut self, io: &mut N, now: Now) -> usize {
        if self.active.is_empty() && self.kept.is_empty()
            || self.is_waited_for && now.monotonic_ns - self.looked_ns < TRUST_NS
        {
            return 0;
        }
        let mut lost = 0;
        loop {
            match self.hold.look(self.lowest_needed()) {
                Ok(is_known) => {
                    (self.is_waited_for, self.looked_ns) = (is_known, now.monotonic_ns);
                    return lost;
                }
                Err(Dropped { closing }) => lost += self.lose(io, closing, now),
            }
        }
    }

    /// What lies below `closing` may be overwritten: whoever needs some of it goes on above, or ends.
    fn lose(&mut self, io: &mut N, closing: u64, now: Now) -> usize {
        let mut lost = 0;
        self.kept.lose(closing);
        if self.tail.needs() < closing {
            self.rouse_all();
        }
        for index in (0..self.awake.len()).rev() {
            let seat = self.awake[index];
            let subscriber = self.subscriber(seat);
            if subscriber.needs() >= closing {
                continue;
            }
            lost += 1;
            if subscriber.lent_from != NO_PIN {
                // The kernel has sent, or may still send, bytes that are others by now.
                subscriber.lent_from = NO_PIN;
                subscriber.socket.abort();
                if subscriber.phase != Phase::Ending {
                    self.counters.too_slow += 1;
                    log::warn!(
                        "{}: memory that was being sent to a subscriber was not waited for; it is reset",
                        self.name
                    );
                    self.end(io, seat);
                }
            } else if subscriber.phase == Phase::Seeking {
                subscriber.reader.restart_at(closing);
            } else {
                self.give_up(io, seat, closing, now);
            }
        }
        lost
    }

    /// What a subscription reads next was trimmed under it: its pin was void, as after this process was taken for dead.
    pub(super) fn left_behind(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let Some(floor) = self.hold.lower_to_floor() else { return 0 };
        let subscriber = self.subscriber(seat);
        if subscriber.phase == Phase::Seeking {
            subscriber.reader.restart_at(floor);
            return 1;
        }
        self.give_up(io, seat, floor, now)
    }

    /// Looks for what is kept from `floor` on, to say where the subscription can go on.
    fn tell_too_slow(&mut self, io: &mut N, seat: u32, floor: u64, now: Now) -> usize {
        let subscriber = self.subscriber(seat);
        subscriber.pace.is_let_go = true;
        subscriber.progress_ns = now.monotonic_ns;
        if subscriber.is_busy() {
            self.end(io, seat);
            return 1;
        }
        subscriber.reader = subscriber.reader.to_earliest(floor);
        subscriber.phase = Phase::Seeking;
        1
    }

    /// What is kept was found: says so, about the first topic that lost something.
    pub(super) fn say_too_slow(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let subscriber = self.subscriber(seat);
        subscriber.progress_ns = now.monotonic_ns;
        let lost = |index: &usize| subscriber.reader.next_order(*index) > subscriber.topics[*index].next_order;
        let index = (0..subscriber.topics.len()).find(lost).unwrap_or(0);
        let earliest = subscriber.reader.next_order(index);
        let text = format!("this reader was too slow and was let go; the earliest message kept is {earliest}");
        self.refuse(io, seat, Refusal::TooSlow, (index, earliest), &text);
        1
    }

    /// A peer that does not take its last words is not waited for for ever.
    pub(super) fn judge_last_words(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        self.try_again(io, seat, now);
        let limit = self.settings.reader_stall_ns;
        let subscriber = self.subscriber(seat);
        if now.monotonic_ns.saturating_sub(subscriber.progress_ns) <= limit {
            return 0;
        }
        // Not graceful: what is in the socket is given up with it.
        self.end_at_once(io, seat);
        1
    }
}
