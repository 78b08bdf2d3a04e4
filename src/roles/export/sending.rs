//! What is on its way to a subscriber: lists of batches out of the pool, words of our own, and what the kernel says of them.
//!
//! What the kernel lacks is not the peer's fault. Pages that it may not lock (`RLIMIT_MEMLOCK`, which counts all processes of a user)
//! make the connection one that is sent copies; anything else it lacks is asked for again after a while, a bounded number of times.

use crate::config::SendMode;
use crate::log::retention::NO_PIN;
use crate::net::{Network, Socket};
use crate::pool::Memory;
use crate::roles::export::ending::Departure;
use crate::roles::export::{Export, Phase, SEND, ZERO_COPY_FROM_BYTES};
use crate::runtime::Now;
use crate::runtime::machine::locked_bytes_limit;
use crate::wire::Refusal;
use crate::wire::frame::{self, Heartbeat, Refused};

/// First wait for what the kernel lacked, ns; it doubles.
const AGAIN_FIRST_NS: u64 = 1_000_000;
/// Longest wait, ns.
const AGAIN_MOST_NS: u64 = 256_000_000;
/// Times a send is tried again without any progress: 8 s in all.
const TRIES_MAX: u32 = 40;

/// A send that the kernel could not do for want of something.
#[derive(Default)]
pub(super) struct Again {
    tries: u32,
    /// When it is tried again; `None`: nothing waits for that.
    due_ns: Option<u64>,
    /// Words of our own that are to be sent; empty: it is the list.
    words: Vec<u8>,
    /// This connection is sent copies.
    copies: bool,
}

impl Again {
    /// Whether something waits to be tried again.
    pub(super) fn is_due(&self) -> bool {
        self.due_ns.is_some()
    }

    /// Gives up a list that waited.
    pub(super) fn forget(&mut self) {
        self.due_ns = None;
    }
}

/// Whether an operation failed for want of something, not because of its peer.
fn is_shortage(errno: i32) -> bool {
    matches!(errno, libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
}

impl<M: Memory, N: Network> Export<M, N> {
    /// Sends the list.
    pub(super) fn submit(&mut self, io: &mut N, seat: u32, now: Now) {
        let asker = self.asker(seat, SEND);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let zero_copy = !subscriber.again.copies
            && match self.settings.send {
                SendMode::Copy => false,
                SendMode::ZeroCopy => true,
                // On loopback the kernel copies all the same, and pays for the notification.
                SendMode::Auto => !subscriber.is_loopback && io.list(subscriber.list).bytes() >= ZERO_COPY_FROM_BYTES,
            };
        subscriber.is_zero_copy = zero_copy;
        subscriber.quiet.end();
        subscriber.sending = io.send_list(asker, subscriber.socket.handle(), subscriber.list, zero_copy);
        subscriber.progress_ns = now.monotonic_ns;
        self.counters.sends += 1;
        if subscriber.sending.is_none() {
            self.end(io, seat);
        }
    }

    /// Sends what is left of the list, once it is known that it was waited for.
    fn submit_rest(&mut self, io: &mut N, seat: u32, now: Now) {
        match self.is_waited_for {
            true => self.submit(io, seat, now),
            false => self.subscriber(seat).again.due_ns = Some(now.monotonic_ns),
        }
    }

    /// Sends words of our own.
    pub(super) fn say(&mut self, io: &mut N, seat: u32, words: Vec<u8>) {
        let asker = self.asker(seat, SEND);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        subscriber.quiet.end();
        subscriber.sending = io.send_owned(asker, subscriber.socket.handle(), words.into());
        if subscriber.sending.is_none() {
            self.end(io, seat);
        }
    }

    /// Says that we are there to those that were told nothing for about as long as was promised, and ends those that are silent though
    /// they promised not to be.
    pub(super) fn beat(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        if self.active.is_empty() {
            return 0;
        }
        for seat in self.looks.due(self.subscribers.len(), now.monotonic_ns) {
            if self.subscribers[seat].is_some() {
                moved += self.look_for_quiet(io, seat as u32, now);
            }
        }
        moved
    }

    /// Looks at one of them. Gives 1 if something was to be done.
    fn look_for_quiet(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let most_ns = self.settings.client_silence_ns;
        let subscriber = self.subscriber(seat);
        let is_due = subscriber.quiet.look();
        if subscriber.phase != Phase::Streaming {
            return 0;
        }
        let silent_ns = now.monotonic_ns.saturating_sub(subscriber.heard_ns);
        if subscriber.heartbeat_ms > 0 && most_ns > 0 && silent_ns > most_ns {
            let peer = subscriber.peer;
            log::info!("{}: the subscriber at {peer} is silent: its connection is ended", self.name);
            self.depart(io, seat, Departure::Broken, now);
            return 1;
        }
        if self.tell_brokers(io, seat) {
            return 1;
        }
        let subscriber = self.subscriber(seat);
        let is_free = !subscriber.is_busy() && subscriber.parting.is_none();
        if !is_due || !is_free || !subscriber.items.is_empty() || subscriber.version < frame::VERSION_3 {
            return 0;
        }
        let heartbeat = Heartbeat { version: subscriber.version, ..Heartbeat::default() };
        self.say(io, seat, frame::seal(&heartbeat).to_vec());
        1
    }

    /// Says which brokers there are from now on, if it was not told and hears us. True: that is on its way.
    pub(super) fn tell_brokers(&mut self, io: &mut N, seat: u32) -> bool {
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        let is_free = !subscriber.is_busy() && subscriber.parting.is_none() && subscriber.items.is_empty();
        if !is_free || subscriber.phase != Phase::Streaming {
            return false;
        }
        let Some(words) = self.brokers.news(&mut subscriber.told_brokers, subscriber.version) else { return false };
        self.say(io, seat, words);
        true
    }

    /// Says why it is over. `about` is the place of the topic meant, and the refusal's number.
    pub(super) fn refuse(&mut self, io: &mut N, seat: u32, refusal: Refusal, about: (usize, u64), text: &str) {
        self.rouse(seat);
        self.counters.refused += 1;
        let (topic, detail) = about;
        let subscriber = self.subscriber(seat);
        let (version, code, topic) = (subscriber.version, refusal as u16, topic as u16);
        let header = Refused { version, code, place: topic, detail, ..Refused::default() };
        if subscriber.is_busy() {
            return self.end(io, seat);
        }
        let mut words = subscriber.pace.take_rest();
        words.extend(frame::with_body(&header, text.as_bytes()));
        subscriber.phase = Phase::Refusing;
        self.say(io, seat, words);
    }

    /// What was on its way is out of the kernel's hands.
    pub(super) fn sent(&mut self, io: &mut N, seat: u32, result: i32, now: Now) {
        let words = io.take_returned();
        let subscriber = self.subscriber(seat);
        subscriber.sending = None;
        if subscriber.phase == Phase::Ending {
            return self.forget_if_idle(io, seat);
        }
        let is_cut = subscriber.pace.take_cut();
        let bytes = match result {
            0.. => result as u64,
            _ if is_cut && (result == -libc::ECANCELED || is_shortage(-result)) => 0,
            _ if is_shortage(-result) => return self.fell_short(io, seat, -result, words, now),
            _ => return self.broke(io, seat, now),
        };
        if bytes > 0 {
            (subscriber.progress_ns, subscriber.again.tries) = (now.monotonic_ns, 0);
        }
        subscriber.trail.sent += bytes;
        self.counters.sent_bytes += bytes;
        match words {
            Some(words) if bytes == 0 && !words.is_empty() => self.broke(io, seat, now),
            Some(words) if bytes < words.len() as u64 => self.say(io, seat, words[bytes as usize..].to_vec()),
            Some(_) if self.subscriber(seat).phase == Phase::Refusing => self.end(io, seat),
            Some(_) => self.part_if_due(io, seat),
            None => self.list_sent(io, seat, bytes, is_cut, now),
        }
    }

    fn list_sent(&mut self, io: &mut N, seat: u32, bytes: u64, is_cut: bool, now: Now) {
        let list = io.list(self.subscriber(seat).list);
        list.consume(bytes);
        if list.bytes() > 0 {
            return if is_cut { self.cut(io, seat, now) } else { self.submit_rest(io, seat, now) };
        }
        list.clear();
        let subscriber = self.subscriber(seat);
        subscriber.trail.push(subscriber.lent_from, &subscriber.socket);
        subscriber.items.clear();
        subscriber.lent_from = NO_PIN;
        self.part_if_due(io, seat);
    }

    /// The kernel lacked something.
    fn fell_short(&mut self, io: &mut N, seat: u32, errno: i32, words: Option<Box<[u8]>>, now: Now) {
        self.rouse(seat);
        let subscriber = self.subscribers[seat as usize].as_mut().expect("served");
        if words.is_none() && subscriber.is_zero_copy && matches!(errno, libc::ENOBUFS | libc::ENOMEM) {
            subscriber.again.copies = true;
            self.counters.copied_connections += 1;
            if self.counters.copied_connections == 1 {
                log::warn!(
                    "{}: the kernel locks no more pages for zero-copy sends ({}; all processes of this user together may \
                     lock {} bytes): connections that meet this are sent copies; raise memlock (`ulimit -l`, \
                     LimitMEMLOCK=infinity), or set `export.send: copy`",
                    self.name,
                    std::io::Error::from_raw_os_error(errno),
                    locked_bytes_limit(),
                );
            }
            return self.submit_rest(io, seat, now);
        }
        let again = &mut subscriber.again;
        again.tries += 1;
        if again.tries > TRIES_MAX {
            let error = std::io::Error::from_raw_os_error(errno);
            log::warn!(
                "{}: a send to {} failed {TRIES_MAX} times: {error}; it is given up",
                self.name,
                subscriber.peer
            );
            return self.depart(io, seat, Departure::Broken, now);
        }
        self.counters.sends_again += 1;
        again.words = words.map(Vec::from).unwrap_or_default();
        again.due_ns = Some(now.monotonic_ns + (AGAIN_FIRST_NS << (again.tries - 1).min(16)).min(AGAIN_MOST_NS));
    }

    /// Tries again what the kernel could not do.
    pub(super) fn try_again(&mut self, io: &mut N, seat: u32, now: Now) -> usize {
        let again = &mut self.subscriber(seat).again;
        if again.due_ns.is_none_or(|due_ns| now.monotonic_ns < due_ns) {
            return 0;
        }
        again.due_ns = None;
        let words = std::mem::take(&mut again.words);
        if words.is_empty() {
            self.submit_rest(io, seat, now)
        } else {
            self.say(io, seat, words)
        }
        1
    }
}
