//! Landing a publisher's stream: arming receives, publishing what has landed, waiting for room.

use std::io::ErrorKind;

use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, RUN_BYTES_MIN};
use crate::net::{Network, Socket};
use crate::pool::Memory;
use crate::roles::receive::Receive;
use crate::roles::receive::connection::Phase;
use crate::roles::receive::hello::Refuse;
use crate::roles::receive::ingest::{Next, StreamError};
use crate::runtime::Now;
use crate::wire::frame::{self, FrameKind, NEW_SESSION};

/// Heartbeats of one connection that are taken without a run at one time.
const HEARTBEATS_PER_WAKE: usize = 16;

/// Takes the heartbeats that lie at the front of what a socket has. False: something else is there, or the end.
fn takes_heartbeats_only(socket: &impl Socket) -> bool {
    let mut header = [0; FRAME_HEADER_BYTES];
    for _ in 0..HEARTBEATS_PER_WAKE {
        match socket.peek_now(&mut header) {
            Ok(FRAME_HEADER_BYTES) if frame::check(&header, BATCH_BYTES_MAX) == Ok(FrameKind::Heartbeat) => {
                let taken = socket.receive_now(&mut header);
                debug_assert!(taken.is_ok_and(|bytes| bytes == FRAME_HEADER_BYTES), "it was there");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            _ => return false,
        }
    }
    true
}

impl<M: Memory, N: Network> Receive<M, N> {
    /// Begins to read a publisher's stream, once it is known which session its batches must name. An idle connection polls and owns no
    /// run.
    pub(super) fn read_on(&mut self, io: &mut N, seat: u32) {
        let Some(connection) = &mut self.connections[seat as usize] else { return };
        if connection.streaming().is_some_and(|stream| stream.session != NEW_SESSION) {
            self.wait_readable(io, seat);
        }
    }

    /// There is something to read on a connection that has no run. Heartbeats are taken without one, so that publishers that have
    /// nothing to say use up no memory.
    pub(super) fn wake(&mut self, io: &mut N, seat: u32, now: Now) {
        let connection = self.connection(seat);
        connection.heard_ns = now.monotonic_ns;
        match takes_heartbeats_only(&connection.socket) {
            true => self.wait_readable(io, seat),
            false => self.arm(io, seat, now),
        }
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

    /// Arms a receive at the tail of the run, with a fresh run where the old one does not do.
    pub(super) fn arm(&mut self, io: &mut N, seat: u32, now: Now) {
        let run_bytes_max = self.run_bytes_max();
        let (asker, most) = (self.asker(seat), self.settings.receive_bytes_max);
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let socket = connection.socket.handle();
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        if !self.ingest.make_room(stream, run_bytes_max) {
            return self.block(seat);
        }
        let run = stream.run.as_ref().expect("room was made");
        let (at, bytes) = (run.start + stream.landed, (run.bytes - stream.landed).min(most));
        connection.reading = io.receive_pool(asker, socket, at, bytes);
        connection.active_ns = now.monotonic_ns;
        if connection.reading.is_none() {
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

    pub(super) fn landed(&mut self, io: &mut N, seat: u32, bytes: u64, now: Now) {
        self.ingest.counters.received_bytes += bytes;
        self.ingest.counters.receives += 1;
        let connection = self.connection(seat);
        connection.heard_ns = now.monotonic_ns;
        let active_ns = std::mem::replace(&mut connection.active_ns, now.monotonic_ns);
        let Some(stream) = connection.streaming() else { return };
        stream.landed += bytes;
        let published = stream.published;
        self.publish(io, seat, now);
        // Heartbeats are no work: a run that lands nothing else is given back all the same.
        if let Some(connection) = &mut self.connections[seat as usize]
            && let Phase::Streaming(stream) = &connection.phase
            && stream.published == published
            && !stream.is_in_mid_frame()
            && stream.run.is_some()
        {
            connection.active_ns = active_ns;
        }
    }

    /// Publishes what has landed, then arms the next receive.
    pub(super) fn publish(&mut self, io: &mut N, seat: u32, now: Now) {
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        let Phase::Streaming(stream) = &mut connection.phase else { return };
        let next = self.ingest.publish_landed(stream, now.utc_ns);
        if stream.counts_landed {
            self.link.set_landed(seat, stream.published);
        }
        match next {
            Ok(Next::Receive) => self.arm(io, seat, now),
            Ok(Next::RingRoom) => self.block(seat),
            Ok(Next::Goodbye) => self.end(io, seat, true, now),
            Err(StreamError::Wire(error)) => self.refuse(io, seat, Refuse::from(error), now),
            Err(StreamError::Refused(refusal, detail, text)) => {
                self.refuse(io, seat, Refuse::new(refusal, detail, text), now)
            }
        }
    }

    /// Looks again at everything that waited for room. Gives how many got on.
    pub(super) fn retry_blocked(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        for _ in 0..self.blocked.len() {
            // In turn: who waited longest is first at what room there is.
            let seat = self.blocked.remove(0);
            let Some(connection) = &mut self.connections[seat as usize] else { continue };
            connection.is_blocked = false;
            if connection.reading.is_some() || !matches!(connection.phase, Phase::Streaming(_)) {
                continue;
            }
            let produced = self.ingest.lane.produced();
            self.publish(io, seat, now);
            // Some of its batches may have found room, and the next one not.
            let got_on = self.ingest.lane.produced() > produced;
            let is_blocked = self.connections[seat as usize].as_ref().is_some_and(|connection| connection.is_blocked);
            moved += usize::from(got_on || !is_blocked);
        }
        moved
    }
}
