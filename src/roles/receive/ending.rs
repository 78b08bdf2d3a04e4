//! Ending a connection: the last word, the run, the session, the descriptor, each when nobody uses it any more.

use std::net::Shutdown;

use crate::limits::UNUSED_SESSION_NS;
use crate::net::{Asker, Network, Socket};
use crate::order::core::Expiry;
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::roles::addresses::Cost;
use crate::roles::handoff::{FromAck, ToAck};
use crate::roles::receive::connection::{DROPPED_MAX, Phase};
use crate::roles::receive::hello::Refuse;
use crate::roles::receive::landing::Rest;
use crate::roles::receive::stream::Stream;
use crate::roles::receive::{LINGER_NS, Receive, WRITE};
use crate::runtime::Now;
use crate::wire::Refusal;

/// Bytes of a refused connection that are read and dropped at one time.
const DROPPED_AT_ONCE: usize = 16 << 10;
impl<M: Memory, N: Network> Receive<M, N> {
    /// The peer closed or broke the connection.
    pub(super) fn peer_gone(&mut self, io: &mut N, seat: u32, now: Now) {
        if let Some(stream) = self.connection(seat).streaming()
            && stream.is_in_mid_frame()
        {
            self.ingest.counters.partial_batches += 1;
        }
        self.end(io, seat, false, now);
    }

    /// Lets go of everything a connection holds, except what the kernel and the ack core still have.
    pub(super) fn end(&mut self, io: &mut N, seat: u32, said_goodbye: bool, now: Now) {
        self.leave_stream(io, seat, Phase::Ending { linger: false }, said_goodbye, now);
        let connection = self.connection(seat);
        if connection.with_ack {
            let id = connection.id;
            self.link.tell_ack(ToAck::Close(id));
        } else if connection.is_unused() {
            self.forget(seat);
        }
    }

    /// Says why, and ends the conversation.
    pub(super) fn refuse(&mut self, io: &mut N, seat: u32, refuse: Refuse, now: Now) {
        match refuse.refusal {
            Refusal::Protocol => {
                self.ingest.counters.protocol_errors += 1;
                self.connection(seat).drops_left = DROPPED_MAX;
                let address = self.connection(seat).address();
                self.addresses.owe(address, Cost::Breach, now.monotonic_ns);
            }
            _ => self.ingest.counters.refused += 1,
        }
        self.say_refused(seat, "", &refuse, now);
        let words = refuse.frame(self.connection(seat).version);
        self.say_last(io, seat, words, now);
    }

    /// In the log, unless enough was said of that kind.
    pub(super) fn say_refused(&mut self, seat: u32, what: &str, refuse: &Refuse, now: Now) {
        let connection = self.connections[seat as usize].as_ref().expect("the seat is taken");
        if let Some(more) = self.restraint.may_say(refuse.refusal, connection.address(), now.monotonic_ns) {
            let peer = connection.socket.peer().map_or("a peer that is gone".into(), |peer| peer.to_string());
            log::info!("{}: refused {what}{peer}: {}{more}", self.name, refuse.text);
        }
    }

    pub(super) fn say_last(&mut self, io: &mut N, seat: u32, words: Box<[u8]>, now: Now) {
        self.leave_stream(io, seat, Phase::Ending { linger: true }, false, now);
        let connection = self.connection(seat);
        let id = connection.id;
        if connection.with_ack {
            // Whatever it is saying comes first.
            return self.link.tell_ack(ToAck::Say(id, words));
        }
        if !self.write(io, seat, words) && self.connection(seat).is_unused() {
            self.part(io, seat);
        }
    }

    /// Sends words of ours, where the ack core does not. False: there is no room for that.
    pub(super) fn write(&mut self, io: &mut N, seat: u32, words: Box<[u8]>) -> bool {
        let Asker { role, tag } = self.asker(seat);
        let connection = self.connection(seat);
        assert!(
            !connection.with_ack && !connection.is_writing,
            "a socket has one writer, who says one thing at a time"
        );
        connection.is_writing =
            io.send_owned(Asker { role, tag: tag | WRITE }, connection.socket.handle(), words).is_some();
        connection.is_writing
    }

    /// Our words were sent, or cannot be.
    pub(super) fn written(&mut self, io: &mut N, seat: u32, result: i32, now: Now) {
        let is_whole = io.take_returned().is_some_and(|words| words.len() as i32 == result);
        let connection = self.connection(seat);
        (connection.is_writing, connection.active_ns) = (false, now.monotonic_ns);
        match connection.phase {
            Phase::Replying if is_whole => self.next_request(io, seat, now),
            // Behind a part of a frame nothing can be said.
            Phase::Replying => self.close_now(seat),
            _ if connection.is_unused() => self.part(io, seat),
            _ => {}
        }
    }

    /// Changes to a phase in which nothing is taken in any more.
    pub(super) fn leave_stream(&mut self, io: &mut N, seat: u32, phase: Phase, said_goodbye: bool, now: Now) {
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        connection.active_ns = now.monotonic_ns;
        let before = std::mem::replace(&mut connection.phase, phase);
        if let Some(operation) = connection.reading
            && !connection.cancelling
        {
            connection.cancelling = true;
            io.cancel(operation);
        }
        let Phase::Streaming(mut stream) = before else { return };
        self.ingest.release_run(&mut stream);
        if let Rest::Buffer(buffer, ..) = std::mem::take(&mut stream.rest) {
            self.landing.give_back(buffer);
        }
        self.close_session(&stream, said_goodbye);
        let connection = self.connections[seat as usize].as_mut().expect("the seat is taken");
        if let Some(address) = connection.opened_for.take() {
            let was_used = stream.published > 0;
            // As long as its place is kept.
            let expiry = Expiry::new(self.settings.session_expiry_ns, UNUSED_SESSION_NS);
            let after_ns = if was_used { expiry.silent_ns } else { expiry.unused_ns };
            match stream.terms.next_seq.is_some() || said_goodbye {
                true => self.addresses.close_session(address),
                false => self.addresses.leave_session(address, was_used, after_ns, now.monotonic_ns),
            }
        }
    }

    /// Tells the sequencer that a session is over: below level 5 with its connection, at level 5 when its publisher says so.
    pub(super) fn close_session(&mut self, stream: &Stream, said_goodbye: bool) {
        if stream.terms.next_seq.is_some() || said_goodbye {
            // One whose id was not told yet is named by the slot that asked for it.
            let (kind, session, batch_seq) = (slot_kind::SESSION_CLOSE, stream.terms.session, stream.terms.asked_slot);
            // No room: the sequencer closes it when its place is needed.
            self.ingest.control(BatchSlot { kind, session, session_epoch: 1, batch_seq, ..BatchSlot::default() });
        }
    }

    pub(super) fn hear_ack(&mut self, io: &mut N, now: Now) -> usize {
        let mut moved = 0;
        while let Some(message) = self.link.from_ack.pop() {
            moved += 1;
            let (FromAck::Opened(id, _) | FromAck::Released(id) | FromAck::Failed(id)) = message;
            let known = self.connections[id.seat as usize].as_ref().filter(|connection| connection.id == id);
            let Some(is_ending) = known.map(|connection| matches!(connection.phase, Phase::Ending { .. })) else {
                continue;
            };
            match message {
                FromAck::Opened(_, session) => self.opened(io, id.seat, session),
                FromAck::Failed(_) if !is_ending => self.end(io, id.seat, false, now),
                FromAck::Failed(_) => {}
                FromAck::Released(_) => self.released(io, id.seat, is_ending, now),
            }
        }
        moved
    }

    /// Its session is open: what comes of it is read from now on.
    fn opened(&mut self, io: &mut N, seat: u32, session: u64) {
        if let Some(stream) = self.connection(seat).streaming() {
            stream.terms.session = session;
            self.read_on(io, seat);
        }
    }

    pub(super) fn released(&mut self, io: &mut N, seat: u32, is_ending: bool, now: Now) {
        if !is_ending {
            // The ack core itself refused the session, and has said so.
            self.leave_stream(io, seat, Phase::Ending { linger: true }, false, now);
        }
        let connection = self.connection(seat);
        connection.with_ack = false;
        connection.active_ns = now.monotonic_ns;
        if connection.is_unused() {
            self.part(io, seat);
        }
    }

    /// Neither the kernel nor the ack core uses the socket any more.
    pub(super) fn part(&mut self, io: &mut N, seat: u32) {
        if matches!(self.connection(seat).phase, Phase::Ending { linger: true }) {
            self.linger(io, seat)
        } else {
            self.forget(seat)
        }
    }

    /// Reads and drops what the peer still sends, so that closing does not reset the word it has not read yet.
    pub(super) fn linger(&mut self, io: &mut N, seat: u32) {
        let connection = self.connection(seat);
        connection.socket.shut(Shutdown::Write);
        connection.phase = Phase::Lingering;
        self.read_owned(io, seat, vec![0; DROPPED_AT_ONCE].into(), 0);
    }

    /// Some of what the peer still sends has come, or its end. Only so much is read: who goes on sending after that does not listen
    /// either, so nothing is read any more until its time is over, and then it is reset.
    pub(super) fn dropped(&mut self, io: &mut N, seat: u32, result: i32, now: Now) {
        let buffer = io.take_returned();
        let connection = self.connection(seat);
        let is_late = now.monotonic_ns.saturating_sub(connection.active_ns) > LINGER_NS;
        connection.drops_left = connection.drops_left.saturating_sub(result.max(0) as u64);
        match buffer {
            Some(buffer) if result > 0 && !is_late => {
                if connection.drops_left > 0 {
                    self.read_owned(io, seat, buffer, 0)
                }
            }
            _ => self.forget(seat),
        }
    }

    pub(super) fn close_now(&mut self, seat: u32) {
        self.connection(seat).socket.shut(Shutdown::Both);
        self.forget(seat);
    }

    /// Drops the connection: nobody else uses its socket.
    pub(super) fn forget(&mut self, seat: u32) {
        self.connections[seat as usize] = None;
        self.free.push(seat);
        self.ingest.counters.closed += 1;
    }
}
