//! What brokers say on a publisher's connections, and what becomes of connections and of the session by it.

use std::io;
use std::time::Instant;

use super::{Order, PortState, Ports};
use crate::client::error::ClientError;
use crate::client::handshake::refused;
use crate::client::heard::Heard;
use crate::client::numbers::SessionId;
use crate::client::window::{AckEffect, Contradiction};
use crate::wire::Refusal;
use crate::wire::frame::Ack;

impl Ports {
    /// A frame came on a live connection.
    pub fn on_heard(&mut self, index: usize, heard: &Heard, now: Instant) {
        assert!(self.is_up(index), "nobody listens there");
        match heard {
            Heard::Ack(ack) => self.on_ack(index, ack, now),
            Heard::Heartbeat => {}
            Heard::Brokers(listed) => self.know(listed, now),
            Heard::Refused(header, text) => {
                let error = refused(self.address(index), header, text);
                self.on_lost(index, &error, now);
                self.on_refused(index, &error, true, now);
                if !error.is_transient() {
                    self.failed = Some(error);
                }
            }
        }
    }

    fn on_ack(&mut self, index: usize, ack: &Ack, now: Instant) {
        let issue = match self.window.on_ack(index, ack, now) {
            Ok(AckEffect::None) => return,
            Ok(AckEffect::Fenced) if self.session.is_shared() => return self.fence(now),
            // Below level 5 a session is one connection: a new one begins a new session.
            Ok(AckEffect::Fenced) => Contradiction { field: "flags", found: 1, expected: 0 },
            Err(issue) => issue,
        };
        let error = self.contradiction(index, issue);
        self.on_lost(index, &error, now);
    }

    /// The connection of a port is over, whoever ended it.
    pub fn on_lost(&mut self, index: usize, error: &ClientError, now: Instant) {
        log::warn!("topic {}: connection {index} lost: {error}", self.topic);
        assert!(self.is_up(index), "there is none to lose");
        let retry_at = now + self.ports[index].backoff.fail();
        self.leave(index, retry_at);
        self.ports[index].failure = Some(error.to_string());
        if !self.is_any_up() {
            self.cut_off_since = Some(now);
        }
    }

    /// The port was listened to. A broker that is silent for longer than it promised is stopped, or its host is gone, and TCP may never
    /// say so. Its connection counts as broken: whatever it had that is not acked, queued and half written batches included, goes to the
    /// others, and it gets nothing new before it has welcomed us again. True: that is so.
    pub fn on_look(&mut self, index: usize, is_heard: bool, now: Instant) -> bool {
        let since_last = self.since_last;
        let port = &mut self.ports[index];
        if port.state != PortState::Up || !port.pulse.look(is_heard, since_last) {
            return false;
        }
        let text = format!("nothing was heard for {:?}", port.pulse.silent);
        let silence = io::Error::new(io::ErrorKind::TimedOut, text);
        let error = ClientError::io(self.address(index), "hearing from", &silence);
        self.on_lost(index, &error, now);
        true
    }

    /// A refusal that concerns the session rather than the connection.
    pub(super) fn on_refused(&mut self, index: usize, error: &ClientError, is_told: bool, now: Instant) {
        let ClientError::Refused { detail, .. } = error else { return };
        let ours = self.window.identity(index);
        let refusal = error.refusal();
        if refusal == Some(Refusal::UnknownSession) && self.session.on_denied(is_told, self.is_any_up(), now) {
            self.replace_session(index, now);
        }
        if refusal == Some(Refusal::SessionEpoch) && !is_told && self.session.on_epoch_refused(*detail, &ours) {
            self.fence(now);
        }
    }

    /// The session epoch is over: every connection is left, then one reopens it under the next epoch.
    fn fence(&mut self, now: Instant) {
        log::warn!("topic {}: session fenced in epoch {}, reopening", self.topic, self.session.target_epoch());
        self.fences += 1;
        self.session.fence(&self.window.identity(0));
        self.leave_all(now);
    }

    /// The session is gone: another one is opened, unless that could put something there twice.
    fn replace_session(&mut self, index: usize, now: Instant) {
        let session = self.window.identity(0).session;
        self.leave_all(now);
        if let Some((first_message, end_message)) = self.window.doubtful_messages() {
            let broker = self.address(index).to_owned();
            self.failed =
                Some(ClientError::SessionGone { broker, session: SessionId(session), first_message, end_message });
            return;
        }
        log::warn!("topic {}: session {session:#x} is gone, nothing of it is in doubt: opening another", self.topic);
        self.session.begin_anew();
    }

    /// Every connection and every attempt is over; each port may be dialed again at once.
    fn leave_all(&mut self, now: Instant) {
        (0..self.ports.len()).for_each(|index| self.leave(index, now));
        self.cut_off_since = self.cut_off_since.or(Some(now));
    }

    fn leave(&mut self, index: usize, retry_at: Instant) {
        let port = &mut self.ports[index];
        port.generation += 1;
        match std::mem::replace(&mut port.state, PortState::Down { retry_at }) {
            PortState::Up => self.window.link_down(index),
            PortState::Dialing => {}
            PortState::Down { .. } => return,
        }
        self.orders.push_back(Order::Close { port: index });
    }

    pub fn pop_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }
}
