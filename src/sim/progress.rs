//! The kernel's half of every part's network: how what is under way goes on.
//!
//! It goes on at any moment, also while the part is held up or stopped: what comes in lands in memory that was lent, whoever runs. Operations
//! complete late, in any order, with a part of what was asked for; a cancel is a race; what is sent by zero copy is read again when it is
//! given back, and must be what was sent.

use crate::net::{Asker, Completion, Stage};
use crate::pool::Memory;
use crate::sim::checker::Violation;
use crate::sim::kernel::State;
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::ring::{Back, InFlight, Lent, Read, Send, Work};

/// Bytes that a send puts into the network at one time at most.
const STEP_BYTES: u64 = 6000;

/// What became of an operation that was looked at.
enum Step {
    Waits(Work),
    Done(i32, Back),
    Stage(i32, Stage, Back, Option<Work>),
}

impl State {
    /// The kernel goes on with what is under way for a part: with some of it, in any order.
    pub(super) fn go_on(&mut self, ring: usize) {
        let Some(count) = self.rings[ring].as_ref().map(|ring| ring.under_way.len()) else { return };
        for _ in 0..count {
            let Some(ring_now) = &mut self.rings[ring] else { return };
            if ring_now.under_way.is_empty() || !self.chance.chance(2, 3) {
                continue;
            }
            let pick = self.chance.below(ring_now.under_way.len() as u64) as usize;
            let InFlight { asker, number, work, is_cancelled } = ring_now.under_way.swap_remove(pick);
            let host = ring_now.host;
            let (completion, left) = match self.step(host, work, is_cancelled) {
                Step::Waits(work) => (None, Some(work)),
                Step::Done(result, back) => (Some((result, Stage::Done, back)), None),
                Step::Stage(result, stage, back, left) => (Some((result, stage, back)), left),
            };
            let Some(ring_now) = &mut self.rings[ring] else { return };
            if let Some(work) = left {
                ring_now.under_way.push(InFlight { asker, number, work, is_cancelled });
            }
            if let Some((result, stage, back)) = completion {
                let Asker { role, tag } = asker;
                ring_now.done.push_back((Completion { role, tag, result, stage }, back));
            }
        }
    }

    /// Whether something rare goes wrong in the kernel now.
    fn fails(&mut self, of: u64) -> bool {
        !self.is_calm && self.chance.chance(1, of)
    }

    fn step(&mut self, host: usize, work: Work, is_cancelled: bool) -> Step {
        match work {
            Work::Accept { broker } => self.step_accept(broker, is_cancelled),
            Work::Receive { link, mut buffer, from } => {
                match self.step_receive(link, (buffer.len() - from) as u64, is_cancelled) {
                    None => Step::Waits(Work::Receive { link, buffer, from }),
                    Some(received) => {
                        let landed = received.as_deref().unwrap_or(&[]);
                        buffer[from..from + landed.len()].copy_from_slice(landed);
                        Step::Done(result_of(&received), Back::Buffer(buffer))
                    }
                }
            }
            Work::Poll { link } => match self.network.is_readable(link, End::Broker, self.now_ns) {
                true => Step::Done(libc::POLLIN.into(), Back::Nothing),
                false if is_cancelled => Step::Done(-libc::ECANCELED, Back::Nothing),
                false => Step::Waits(Work::Poll { link }),
            },
            Work::Send(send) => self.step_send(host, send, is_cancelled),
            Work::Lent { link, until, read, back } => {
                let is_back = self.network.is_over(link) || self.network.acked(link, End::Broker, self.now_ns) >= until;
                if !is_back {
                    return Step::Waits(Work::Lent { link, until, read, back });
                }
                self.check_lent(host, &read);
                let copied = self.chance.chance(1, 4);
                Step::Stage(0, Stage::Released { copied }, back, None)
            }
        }
    }

    fn step_accept(&mut self, broker: u32, is_cancelled: bool) -> Step {
        if self.fails(400) {
            return Step::Done(-libc::EMFILE, Back::Nothing);
        }
        match self.network.accept(broker) {
            Some(link) => Step::Done(0, Back::Connection(link)),
            None if is_cancelled => Step::Done(-libc::ECANCELED, Back::Nothing),
            None => Step::Waits(Work::Accept { broker }),
        }
    }

    /// What a receive gets now. `None`: it waits.
    pub(super) fn step_receive(
        &mut self,
        link: LinkId,
        bytes: u64,
        is_cancelled: bool,
    ) -> Option<Result<Vec<u8>, i32>> {
        if is_cancelled && self.chance.chance(1, 2) {
            return Some(Err(libc::ECANCELED));
        }
        if self.fails(500) {
            return Some(Err(libc::EINTR));
        }
        match self.network.read(link, End::Broker, bytes as usize, self.now_ns, &mut self.chance) {
            Heard::Bytes(bytes) => Some(Ok(bytes)),
            Heard::End if self.chance.chance(1, 3) => Some(Err(libc::ECONNRESET)),
            Heard::End => Some(Ok(Vec::new())),
            Heard::Nothing if is_cancelled => Some(Err(libc::ECANCELED)),
            Heard::Nothing => None,
        }
    }

    fn step_send(&mut self, host: usize, mut send: Send, is_cancelled: bool) -> Step {
        if self.fails(500) {
            return match send.sent {
                0 => self.sent(send, -libc::ENOBUFS),
                _ => self.sent(send, 0),
            };
        }
        if is_cancelled && self.chance.chance(1, 2) {
            return self.sent(send, -libc::ECANCELED);
        }
        loop {
            match self.put(host, &mut send) {
                None => return self.sent(send, -libc::EPIPE),
                Some(0) if is_cancelled => return self.sent(send, -libc::ECANCELED),
                Some(0) => return Step::Waits(Work::Send(send)),
                Some(_) if send.pieces.is_empty() => return self.sent(send, 0),
                Some(_) if self.scenario.has_short_sends && self.fails(6) => return self.sent(send, 0),
                // It goes on later.
                Some(_) if self.chance.chance(1, 6) => return Step::Waits(Work::Send(send)),
                Some(_) => {}
            }
        }
    }

    /// Puts some of a send into the network; gives how much. `None`: the connection is over.
    fn put(&mut self, host: usize, send: &mut Send) -> Option<u64> {
        let first = send.pieces.front_mut().expect("a send ends with its last piece");
        let step_bytes = if self.scenario.has_short_sends { 1 << self.chance.below(13) } else { STEP_BYTES };
        let most = first.bytes().min(1 + self.chance.below(step_bytes));
        let bytes = match first {
            Lent::Words(words) => words[..most as usize].to_vec(),
            Lent::Pool(at, _) => self.memory.host(host).with_bytes(*at, most, <[u8]>::to_vec),
        };
        let written = self.network.write(send.link, End::Broker, &bytes, self.now_ns, &mut self.chance)?;
        send.sent += written as u64;
        match first {
            Lent::Words(words) => drop(words.drain(..written)),
            Lent::Pool(at, left) => {
                send.read.pieces.push((*at, bytes[..written].to_vec()));
                (*at, *left) = (*at + written as u64, *left - written as u64);
            }
        }
        if first.bytes() == 0 {
            send.pieces.pop_front();
        }
        Some(written as u64)
    }

    /// A send is over: all of it, or as much as there was before `error`.
    fn sent(&mut self, send: Send, error: i32) -> Step {
        let Send { link, is_zero_copy, back, sent, read, .. } = send;
        let result = if sent > 0 { sent as i32 } else { error };
        if !is_zero_copy || sent == 0 && self.chance.chance(1, 2) {
            return Step::Done(result, back);
        }
        let until = self.network.written(link, End::Broker);
        Step::Stage(result, Stage::Accepted, Back::Nothing, Some(Work::Lent { link, until, read, back }))
    }

    /// The network reads what was lent to it until it gives it back.
    fn check_lent(&mut self, host: usize, read: &Read) {
        let memory = self.memory.host(host);
        let changed =
            read.pieces.iter().find(|(at, bytes)| memory.with_bytes(*at, bytes.len() as u64, |now| now != bytes));
        // A broker that stood still was not waited for, and its kernel goes on sending: whoever gets that finds it out.
        if let Some((at, bytes)) = changed.filter(|_| self.dropped_pins() == read.dropped_pins) {
            let text = format!("{} bytes of the pool at {at} changed while they were lent to a socket", bytes.len());
            self.fail(Violation { promise: 8, text });
        }
    }
}

fn result_of(received: &Result<Vec<u8>, i32>) -> i32 {
    match received {
        Ok(bytes) => bytes.len() as i32,
        Err(errno) => -errno,
    }
}
