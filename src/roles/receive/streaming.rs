//! A publisher's stream: waiting until there is something to read, taking it in, waiting for room.

use std::io::ErrorKind;

use crate::limits::RUN_BYTES_MIN;
use crate::net::{Network, Socket};
use crate::pool::Memory;
use crate::roles::receive::Receive;
use crate::roles::receive::connection::Phase;
use crate::roles::receive::hello::Refuse;
use crate::roles::receive::ingest::{Next, StreamError};
use crate::roles::receive::landing::Rest;
use crate::runtime::Now;
use crate::wire::frame::NEW_SESSION;

/// What a receive gave.
struct Landed {
    bytes: usize,
    /// As much as was asked for: more may be there.
    is_full: bool,
}

impl<M: Memory, N: Network> Receive<M, N> {
    /// Begins to read a publisher's stream, once it is known which session its batches must name.
    pub(super) fn read_on(&mut self, io: &mut N, seat: u32) {
        let Some(connection) = &mut self.connections[seat as usize] else { return };
        if connection.streaming().is_some_and(|stream| stream.terms.session != NEW_SESSION) {
            self.wait_readable(io, seat);
        }
    }

    /// There is something to read, or the peer is gone: takes as much as one turn may, a landing buffer after the other, so that each is still in
    /// the nearest caches when it is checked.
    pub(super) fn receive(&mut self, io: &mut N, seat: u32, now: Now) {
        let mut turn = self.settings.receive_bytes_max as usize;
        while let Some(landed) = self.land(io, seat, turn, now) {
            turn = turn.saturating_sub(landed.bytes);
            if !landed.is_full || turn == 0 {
                return self.wait_readable(io, seat);
            }
        }
    }

    /// Receives once, `most` bytes at most, and publishes what has come. Where it could not be published it is left to TCP, which pushes back. `None`:
    /// nothing more is to be received now.
    fn land(&mut self, io: &mut N, seat: u32, most: usize, now: Now) -> Option<Landed> {
        let run_bytes_max = self.run_bytes_max();
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let Phase::Streaming(stream) = &mut connection.phase else { return None };
        if !self.ingest.has_room_for(stream, run_bytes_max) {
            self.block(seat);
            return None;
        }
        let most = if self.landing.is_scarce() { most.min(stream.has_place_for()) } else { most };
        let (mut buffer, left) = self.landing.take(&mut stream.rest);
        let to = buffer.len().min(left + most);
        let received = connection.socket.receive_now(&mut buffer[left..to]);
        let Ok(bytes @ 1..) = received else {
            stream.rest = self.landing.leave(buffer, 0, left);
            match received {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.wait_readable(io, seat)
                }
                _ => self.peer_gone(io, seat, now),
            }
            return None;
        };
        let is_full = left + bytes == to;
        stream.rest = Rest::Buffer(buffer, 0, left + bytes);
        self.ingest.counters.received_bytes += bytes as u64;
        self.ingest.counters.receives += 1;
        connection.heard_ns = now.monotonic_ns;
        let published = stream.published;
        let goes_on = self.publish(io, seat, now);
        // Heartbeats are no work: a run that nothing else is written to is given back all the same.
        if let Some(connection) = &mut self.connections[seat as usize]
            && let Phase::Streaming(stream) = &connection.phase
            && (stream.published > published || stream.has_half_a_batch())
        {
            connection.active_ns = now.monotonic_ns;
        }
        goes_on.then_some(Landed { bytes, is_full })
    }

    /// Whether a publisher that promised to be heard was not for too long. Time in which nothing is read from it does not count.
    pub(super) fn is_silent(&mut self, seat: u32, now: Now) -> bool {
        let (name, most_ns) = (&self.name, self.settings.client_silence_ns);
        let Some(connection) = &mut self.connections[seat as usize] else { return false };
        if connection.is_blocked || connection.reading.is_none() {
            connection.heard_ns = now.monotonic_ns;
        }
        let promised = connection.heartbeat_ms > 0 && matches!(connection.phase, Phase::Streaming(_));
        let is_silent = promised && most_ns > 0 && now.monotonic_ns.saturating_sub(connection.heard_ns) > most_ns;
        if is_silent {
            log::info!("{name}: a publisher is silent though it promised to be heard: its connection is ended");
        }
        is_silent
    }

    pub(super) fn wait_readable(&mut self, io: &mut N, seat: u32) {
        let asker = self.asker(seat);
        let socket = self.connection(seat).socket.handle();
        let operation = io.poll_readable(asker, socket);
        self.connection(seat).reading = operation;
        if operation.is_none() {
            self.block(seat);
        }
    }

    /// Longest run of a connection: all of them together take at most half of the lane's extents.
    pub(super) fn run_bytes_max(&self) -> u64 {
        (self.ingest.lane.even_share_bytes() / 2 / u64::from(self.in_use().max(1))).max(RUN_BYTES_MIN)
    }

    pub(super) fn block(&mut self, seat: u32) {
        let connection = self.connection(seat);
        if !connection.is_blocked {
            connection.is_blocked = true;
            self.blocked.push(seat);
        }
    }

    /// Publishes what has come. Whether that is all, and more can be taken; else what comes next is seen to.
    fn publish(&mut self, io: &mut N, seat: u32, now: Now) -> bool {
        let run_bytes_max = self.run_bytes_max();
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let Phase::Streaming(stream) = &mut connection.phase else { return false };
        let Rest::Buffer(mut buffer, from, to) = std::mem::take(&mut stream.rest) else {
            unreachable!("something has come")
        };
        let found =
            self.ingest.take_in(stream, &mut buffer[from..to], run_bytes_max, now.utc_ns, &mut || io.now().utc_ns);
        let taken = found.as_ref().map_or(0, |(taken, _)| *taken);
        stream.rest = self.landing.leave(buffer, from + taken, to);
        if stream.terms.counts_landed {
            self.link.set_landed(seat, stream.published);
        }
        match found.map(|(_, next)| next) {
            Ok(Next::Receive) => return true,
            Ok(Next::Room) => self.block(seat),
            Ok(Next::Goodbye) => self.end(io, seat, true, now),
            Err(StreamError::Wire(error)) => self.refuse(io, seat, Refuse::from(error), now),
            Err(StreamError::Refused(refusal, detail, text)) => {
                self.refuse(io, seat, Refuse::new(refusal, detail, text), now)
            }
        }
        false
    }

    /// Looks again at everything that waited for room. Gives how many got on.
    pub(super) fn retry_blocked(&mut self, io: &mut N, now: Now) -> usize {
        let (mut moved, run_bytes_max) = (0, self.run_bytes_max());
        for _ in 0..self.blocked.len() {
            // In turn: who waited longest is first at what room there is.
            let seat = self.blocked.remove(0);
            let Some(connection) = &mut self.connections[seat as usize] else { continue };
            connection.is_blocked = false;
            let Phase::Streaming(stream) = &mut connection.phase else { continue };
            if connection.reading.is_some() {
                continue;
            }
            let produced = self.ingest.lane.produced();
            if matches!(stream.rest, Rest::Buffer(..)) {
                if self.publish(io, seat, now) {
                    self.wait_readable(io, seat);
                }
            } else if self.ingest.has_room_for(stream, run_bytes_max) {
                self.wait_readable(io, seat);
            } else {
                self.block(seat);
            }
            // Some of its batches may have found room, and the next one not.
            let got_on = self.ingest.lane.produced() > produced;
            let is_blocked = self.connections[seat as usize].as_ref().is_some_and(|connection| connection.is_blocked);
            moved += usize::from(got_on || !is_blocked);
        }
        moved
    }
}
