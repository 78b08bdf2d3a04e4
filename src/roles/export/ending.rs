//! How subscriptions end: what a subscriber says while it is served, last words, pages that the kernel has to give back, and places
//! that are kept for a reader whose connection broke.
//!
//! An ending never waits for its peer. What the kernel still has of the pool is taken back by resetting the connection, again and
//! again until the last completion has come; a peer that is told why is given a bounded time to hear it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Shutdown;

use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::log::retention::NO_PIN;
use crate::net::{Network, Socket};
use crate::pool::Memory;
use crate::roles::export::slow::LET_GO;
use crate::roles::export::{Export, Phase, WATCH};
use crate::runtime::Now;
use crate::wire::frame::{self, FrameKind, MAGIC, Refused};
use crate::wire::{Refusal, SlowReader};

/// Time in which a peer that was told why may take that and close, ns.
const LINGER_NS: u64 = 500_000_000;
/// Time in which one that broke the protocol gets the end of its batch, ns.
const PARTING_NS: u64 = 500_000_000;
/// Time between two attempts to get back what the kernel has, ns.
const FORCE_EVERY_NS: u64 = 50_000_000;
/// An ending that takes longer is told, ns.
const LATE_NS: u64 = 2_000_000_000;
/// Frames of one subscriber that are looked at in one pass.
const FRAMES_PER_PASS: usize = 16;
/// Sends whose bytes the peer may not have, kept apart at most.
const TRAIL_MAX: usize = 32;
/// Readers that may come back, kept a place for at most.
const KEPT_MAX: usize = 64;

/// How a subscriber went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It said goodbye.
    Left,
    /// Its connection broke: it may come back.
    Broken,
}

/// What a subscriber said.
enum Said {
    Nothing,
    Goodbye,
    /// It can say no more.
    Over,
    Breach(String),
}

/// A frame of a subscriber, as far as it came.
pub(super) struct Hearing {
    frame: [u8; FRAME_HEADER_BYTES],
    bytes: usize,
}

impl Hearing {
    pub(super) fn new() -> Hearing {
        Hearing { frame: [0; FRAME_HEADER_BYTES], bytes: 0 }
    }

    fn take_in(&mut self, socket: &impl Socket) -> Said {
        for _ in 0..FRAMES_PER_PASS {
            match socket.receive_now(&mut self.frame[self.bytes..]) {
                Ok(0) => return Said::Over,
                Ok(bytes) => self.bytes += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Said::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Said::Over,
            }
            let known = self.bytes.min(MAGIC.to_le_bytes().len());
            if self.frame[..known] != MAGIC.to_le_bytes()[..known] {
                return Said::Breach("these bytes begin no frame; a subscriber says nothing but goodbye".to_owned());
            }
            if self.bytes < FRAME_HEADER_BYTES {
                continue;
            }
            self.bytes = 0;
            return match frame::check(&self.frame, BATCH_BYTES_MAX) {
                Ok(FrameKind::Goodbye) => Said::Goodbye,
                Ok(FrameKind::Heartbeat) => continue,
                Ok(found) => {
                    Said::Breach(format!("a subscriber says nothing but heartbeats and goodbye, not {found:?}"))
                }
                Err(error) => Said::Breach(error.to_string()),
            };
        }
        Said::Nothing
    }
}

/// Sends that were done, as far as the peer's side may not have all of them.
#[derive(Default)]
pub(super) struct Trail {
    /// Bytes sent on this connection.
    pub(super) sent: u64,
    /// Bytes sent when a send was done, and the index position from which its batches are.
    sends: VecDeque<(u64, u64)>,
}

impl Trail {
    /// A send that began at `position` is done.
    pub(super) fn push(&mut self, position: u64, socket: &impl Socket) {
        if self.sends.len() == TRAIL_MAX {
            self.prune(socket);
        }
        let position = match self.sends.len() {
            // The newest is made to stand for more.
            TRAIL_MAX => self.sends.pop_back().map_or(position, |(_, before)| before.min(position)),
            _ => position,
        };
        self.sends.push_back((self.sent, position));
    }

    fn prune(&mut self, socket: &impl Socket) {
        // What the kernel does not say is taken to be on its way.
        let acked = self.sent.saturating_sub(socket.unacked_bytes().unwrap_or(u64::MAX));
        while self.sends.front().is_some_and(|(end, _)| *end <= acked) {
            self.sends.pop_front();
        }
    }

    /// The lowest position that the peer may not have got. To be asked before the connection is reset.
    fn lowest(&mut self, socket: &impl Socket) -> u64 {
        self.prune(socket);
        self.sends.front().map_or(NO_PIN, |(_, position)| *position)
    }
}

/// Places that are kept for readers whose connection broke.
#[derive(Default)]
pub(super) struct Kept {
    /// Position, and until when.
    places: Vec<(u64, u64)>,
    /// What this broker had pinned when its last process ended, and until when: whoever needed that comes back, here or elsewhere.
    former: Option<(u64, u64)>,
    /// Publishers have waited for one in vain: none is kept until then.
    none_until_ns: u64,
}

impl Kept {
    pub(super) fn lowest(&self) -> u64 {
        self.places.iter().chain(&self.former).map(|(position, _)| *position).min().unwrap_or(NO_PIN)
    }

    /// What the last process had pinned is kept until then.
    pub(super) fn begin(&mut self, former: u64, until_ns: u64) {
        self.former = (former != NO_PIN).then_some((former, until_ns));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.former.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// What lies below was not waited for.
    pub(super) fn lose(&mut self, closing: u64) {
        self.places.retain(|(position, _)| *position >= closing);
        self.former = self.former.filter(|(position, _)| *position >= closing);
    }
}

/// Says why on a connection that was never served, and closes it: nothing was sent on it before, so the socket takes that at once.
pub(super) fn refuse_at_once(socket: &impl Socket, refusal: Refusal, text: &str) {
    let header = Refused { code: refusal as u16, ..Refused::default() };
    // A peer that does not hear it sees the end.
    let _ = socket.send_now(&frame::with_body(&header, text.as_bytes()));
    socket.shut(Shutdown::Write);
    socket.discard_received();
}

impl<M: Memory, N: Network> Export<M, N> {
    /// There is something to read, or the peer is gone.
    pub(super) fn hear(&mut self, io: &mut N, seat: u32, now: Now) {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("it was watched");
        if matches!(subscriber.phase, Phase::Ending | Phase::Refusing) || subscriber.parting.is_some() {
            // What it says does not matter any more; unread it would reset the connection, last words and all.
            let is_over = subscriber.socket.discard_received();
            subscriber.lingers &= !is_over;
            return match subscriber.phase {
                Phase::Ending if subscriber.lingers => self.watch(io, seat),
                Phase::Ending => self.forget_if_idle(io, seat),
                _ if is_over => self.end_at_once(io, seat),
                _ => self.watch(io, seat),
            };
        }
        subscriber.heard_ns = now.monotonic_ns;
        match subscriber.hearing.take_in(&subscriber.socket) {
            Said::Nothing => self.watch(io, seat),
            Said::Goodbye => self.depart(io, seat, Departure::Left, now),
            Said::Over => self.depart(io, seat, Departure::Broken, now),
            Said::Breach(text) => {
                self.rouse(seat);
                let subscriber = self.subscribers[seat as usize].as_mut().expect("it was watched");
                log::info!("{}: the subscriber at {} broke the protocol: {text}", self.name, subscriber.peer);
                subscriber.parting = Some((now.monotonic_ns + PARTING_NS, text));
                // First, for it is there to be ended: without a place in the ring it is.
                self.watch(io, seat);
                if self.subscribers[seat as usize].as_ref().is_some_and(|subscriber| subscriber.phase != Phase::Ending)
                {
                    self.part_if_due(io, seat);
                }
            }
        }
    }

    fn watch(&mut self, io: &mut N, seat: u32) {
        let asker = self.asker(seat, WATCH);
        let subscriber = self.subscriber(seat);
        subscriber.watching = io.poll_readable(asker, subscriber.socket.handle());
        if subscriber.watching.is_none() {
            self.end_at_once(io, seat);
        }
    }

    /// Refuses one that broke the protocol, once it has the end of its batch.
    pub(super) fn part_if_due(&mut self, io: &mut N, seat: u32) {
        let subscriber = self.subscriber(seat);
        if !subscriber.is_busy()
            && let Some((_, text)) = subscriber.parting.take()
        {
            self.refuse(io, seat, Refusal::Protocol, (0, 0), &text);
        }
    }

    /// Ends one that broke the protocol and does not take the end of its batch.
    pub(super) fn judge_parting(&mut self, io: &mut N, seat: u32, now: Now) -> bool {
        let is_over = self.subscriber(seat).parting.as_ref().is_some_and(|(until_ns, _)| now.monotonic_ns > *until_ns);
        if is_over {
            self.end_at_once(io, seat);
        }
        is_over
    }

    /// Nothing more can be sent on the connection. Its peer may have said goodbye before it closed, and that is not read yet: then nothing
    /// is kept for it.
    pub(super) fn broke(&mut self, io: &mut N, seat: u32, now: Now) {
        let subscriber = self.subscriber(seat);
        let how = match subscriber.hearing.take_in(&subscriber.socket) {
            Said::Goodbye => Departure::Left,
            Said::Nothing | Said::Over | Said::Breach(_) => Departure::Broken,
        };
        self.depart(io, seat, how, now);
    }

    /// The peer went. If its connection broke, what it may not have got is kept for a while, as far as it still is there.
    pub(super) fn depart(&mut self, io: &mut N, seat: u32, how: Departure, now: Now) {
        self.rouse(seat);
        if how == Departure::Broken && self.subscriber(seat).phase == Phase::Streaming {
            let subscriber = self.subscriber(seat);
            let unacked = subscriber.trail.lowest(&subscriber.socket);
            let (needs, policy) = (subscriber.needs().min(unacked), subscriber.pace.policy);
            let (grace_ns, short_ns) = (self.settings.return_grace_ns, self.settings.reader_grace_ns);
            let was_let_go = self
                .slow
                .waited_for_before(self.subscribers[seat as usize].as_ref().expect("it departs"), now.monotonic_ns)
                == LET_GO;
            // One that is not waited for while it is there is not waited for long when it is away.
            let is_waited_for = policy == SlowReader::Wait && !was_let_go;
            self.keep(needs, if is_waited_for { grace_ns } else { grace_ns.min(short_ns) }, now);
        }
        self.end(io, seat);
    }

    pub(super) fn keep(&mut self, position: u64, grace_ns: u64, now: Now) {
        let now_ns = now.monotonic_ns;
        if grace_ns == 0 || now_ns < self.kept.none_until_ns || self.kept.len() == KEPT_MAX {
            return;
        }
        // What was sent and not acked lies below the pin, and may be there all the same.
        if let Some(floor) = self.hold.lower_to_floor() {
            self.kept.places.push((position.max(floor), now_ns.saturating_add(grace_ns)));
            self.counters.kept_places += 1;
        }
    }

    /// Lets go of places whose time is over. If publishers waited for one, none is kept for ten times as long: those who come and go
    /// do not hold them up for ever.
    pub(super) fn expire_kept(&mut self, now: Now) {
        if self.kept.is_empty() {
            return;
        }
        let now_ns = now.monotonic_ns;
        let floors = self.hold.floors().read().unwrap_or_default();
        let wanted = floors.wanted;
        let was_waited_for = self.kept.places.iter().any(|(position, until)| *until <= now_ns && *position < wanted);
        if was_waited_for {
            self.kept.none_until_ns = now_ns.saturating_add(self.settings.return_grace_ns.saturating_mul(10));
        }
        self.kept.places.retain(|(_, until)| *until > now_ns);
        let is_there = |(position, until): &(u64, u64)| *until > now_ns && *position >= floors.closing;
        self.kept.former = self.kept.former.filter(is_there);
    }

    /// Ends it without a word.
    pub(super) fn end_at_once(&mut self, io: &mut N, seat: u32) {
        self.subscriber(seat).phase = Phase::Streaming;
        self.end(io, seat);
    }

    /// Ends it; gracefully if it was told why.
    pub(super) fn end(&mut self, io: &mut N, seat: u32) {
        self.rouse(seat);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("it is there");
        self.slow.note_end(subscriber);
        let graceful = subscriber.phase == Phase::Refusing && subscriber.sending.is_none();
        subscriber.phase = Phase::Ending;
        subscriber.again.forget();
        subscriber.lingers = graceful && subscriber.watching.is_some();
        if subscriber.sending.is_some() && subscriber.lent_from != NO_PIN {
            // Accepted or not: a peer that takes nothing would keep the pages that are lent to the socket for ever.
            subscriber.socket.abort();
        }
        // The peer may be gone already.
        subscriber.socket.shut(if graceful { Shutdown::Write } else { Shutdown::Both });
        if !subscriber.lingers
            && let Some(operation) = subscriber.watching
        {
            io.cancel(operation);
        }
        self.forget_if_idle(io, seat);
    }

    /// Sees to it that endings end: gets back what the kernel has, again and again.
    pub(super) fn force_endings(&mut self, io: &mut N, now: Now) {
        // One that rests does not end.
        for index in (0..self.awake.len()).rev() {
            let seat = self.awake[index];
            if self.subscriber(seat).phase == Phase::Ending {
                self.force_ending(io, seat, now.monotonic_ns);
            }
        }
    }

    fn force_ending(&mut self, io: &mut N, seat: u32, now_ns: u64) {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("it is active");
        let since_ns = *subscriber.ending_since_ns.get_or_insert(now_ns);
        let ending_ns = now_ns.saturating_sub(since_ns);
        if now_ns < subscriber.force_at_ns || subscriber.lingers && ending_ns <= LINGER_NS {
            return;
        }
        if subscriber.force_at_ns == 0 && !subscriber.lingers {
            // It has only just been asked.
            subscriber.force_at_ns = now_ns + FORCE_EVERY_NS;
            return;
        }
        (subscriber.lingers, subscriber.force_at_ns) = (false, now_ns + FORCE_EVERY_NS);
        if let Some(operation) = subscriber.sending {
            subscriber.socket.abort();
            io.cancel(operation);
            self.counters.endings_forced += 1;
        }
        if let Some(operation) = subscriber.watching {
            io.cancel(operation);
        }
        if ending_ns > LATE_NS && !std::mem::replace(&mut subscriber.told_late, true) {
            self.counters.endings_late += 1;
            log::warn!(
                "{}: the kernel does not give back what it has of the connection to {}, which was reset {ending_ns} ns ago; \
                 what it has of the pool is not used again before",
                self.name,
                subscriber.peer
            );
        }
        self.forget_if_idle(io, seat);
    }

    pub(super) fn forget_if_idle(&mut self, io: &mut N, seat: u32) {
        let subscriber = self.subscriber(seat);
        if subscriber.sending.is_some() || subscriber.watching.is_some() {
            return;
        }
        let list = subscriber.list;
        io.give_back_list(list);
        self.subscribers[seat as usize] = None;
        self.tail.forget(seat);
        self.active.retain(|active| *active != seat);
        self.awake.retain(|awake| *awake != seat);
        self.free.push(seat);
    }
}
