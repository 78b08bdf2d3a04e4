//! Control connections: requests, one at a time, each answered before the next is read.

use crate::limits::FRAME_HEADER_BYTES;
use crate::net::Network;
use crate::pool::Memory;
use crate::roles::addresses::{Address, Cost, HELD_BACK_MAX_NS, Turn};
use crate::roles::receive::Receive;
use crate::roles::receive::connection::Phase;
use crate::roles::receive::desk::{self, Asked, Desk, Maker};
use crate::roles::receive::hello::Refuse;
use crate::roles::receive::requests;
use crate::runtime::Now;
use crate::wire::{Operation, frame};

/// How often requests that wait for the sequencer are looked at, ns.
const LOOK_NS: u64 = 1_000_000;

impl<M: Memory, N: Network> Receive<M, N> {
    /// A whole request has landed.
    pub(super) fn ask(
        &mut self,
        io: &mut N,
        seat: u32,
        header: &[u8; FRAME_HEADER_BYTES],
        padded_body: &[u8],
        now: Now,
    ) {
        let body = match frame::check_body(header, padded_body) {
            Ok(body) => body,
            Err(error) => return self.refuse(io, seat, Refuse::from(error), now),
        };
        self.ingest.counters.requests += 1;
        match Asked::read(header, body) {
            Ok(asked) => self.look_in_turn(io, seat, Box::new(asked), now),
            Err(refuse) => self.refuse_request(io, seat, &frame::read(header), &refuse, now),
        }
    }

    /// Looks at a new request when it is its address's turn.
    fn look_in_turn(&mut self, io: &mut N, seat: u32, asked: Box<Asked>, now: Now) {
        let cost = match asked.operation {
            Operation::TopicCreate => Cost::Making,
            _ => Cost::Request,
        };
        let address = self.connection(seat).address();
        let turn_ns = match self.addresses.charge(address, cost, now.monotonic_ns) {
            Turn::Now => return self.look_at(io, seat, asked, false, now),
            Turn::At(turn_ns) => turn_ns,
            Turn::Never => now.monotonic_ns + HELD_BACK_MAX_NS,
        };
        self.ingest.counters.held_back += 1;
        let connection = self.connection(seat);
        (connection.turn_ns, connection.active_ns) = (turn_ns, turn_ns);
        connection.phase = Phase::Asking(Some(asked));
        self.asking.push(seat);
    }

    /// Looks at every request that waits. Gives how many were answered.
    pub(super) fn look_at_requests(&mut self, io: &mut N, now: Now) -> usize {
        if self.asking.is_empty() || now.monotonic_ns - self.asked_ns < LOOK_NS {
            return 0;
        }
        self.asked_ns = now.monotonic_ns;
        let mut answered = 0;
        for seat in std::mem::take(&mut self.asking) {
            let Some(connection) = &mut self.connections[seat as usize] else { continue };
            if connection.turn_ns > now.monotonic_ns && matches!(connection.phase, Phase::Asking(_)) {
                self.asking.push(seat);
                continue;
            }
            let is_late = now.monotonic_ns.saturating_sub(connection.active_ns) > self.settings.hello_timeout_ns;
            if let Phase::Asking(asked) = &mut connection.phase
                && let Some(asked) = asked.take()
            {
                self.look_at(io, seat, asked, is_late, now);
                answered += usize::from(!self.asking.contains(&seat));
            }
        }
        answered
    }

    fn look_at(&mut self, io: &mut N, seat: u32, mut asked: Box<Asked>, is_late: bool, now: Now) {
        let address =
            self.connections[seat as usize].as_ref().map_or(Address::OTHERS, |connection| connection.address());
        let (topics, cursors) = (&mut self.topics, &self.cursors);
        let maker = Maker { addresses: &self.addresses, address, now_ns: now.monotonic_ns };
        let mut desk = Desk { ingest: &mut self.ingest, topics, cursors, now_utc_ns: now.utc_ns, maker };
        let looked = match requests::look(&mut desk, &mut asked) {
            Ok(None) if is_late => Err(requests::too_late(&mut desk, &asked)),
            looked => looked,
        };
        match looked {
            Ok(Some(answer)) => self.reply(io, seat, asked.reply(&answer)),
            Ok(None) => {
                self.connection(seat).phase = Phase::Asking(Some(asked));
                self.asking.push(seat);
            }
            Err(refuse) => self.refuse_request(io, seat, &asked.request, &refuse, now),
        }
    }

    fn refuse_request(&mut self, io: &mut N, seat: u32, request: &frame::Request, refuse: &Refuse, now: Now) {
        self.say_refused(seat, "a request of ", refuse, now);
        self.ingest.counters.refused += 1;
        self.reply(io, seat, desk::refused(request, refuse));
    }

    fn reply(&mut self, io: &mut N, seat: u32, words: Box<[u8]>) {
        self.connection(seat).phase = Phase::Replying;
        if !self.write(io, seat, words) {
            self.close_now(seat);
        }
    }

    /// The reply was sent.
    pub(super) fn next_request(&mut self, io: &mut N, seat: u32, now: Now) {
        let connection = self.connection(seat);
        connection.active_ns = now.monotonic_ns;
        connection.phase = Phase::Hello { header: None, is_control: true };
        if self.is_draining {
            return self.refuse(io, seat, Refuse::draining(), now);
        }
        self.read_hello(io, seat, FRAME_HEADER_BYTES);
    }
}
