//! The session of a publisher, where it is not what it was: fenced, and opened again under its next epoch; or gone, and another one is
//! opened in its place.
//!
//! A session is gone when its place was given to somebody else while nobody was connected for it, or when it was closed. What was acked
//! stays. What was never wholly sent goes into the new session. What was sent and not acked may be ordered or not, and nobody can tell
//! any more: sending it in another session could put it there twice. So that ends the publisher, and its user is told which it is.

use std::time::{Duration, Instant};

use super::{Engine, PortState, contradiction, identity};
use crate::client::error::ClientError;
use crate::client::pulse::HEARTBEAT;
use crate::client::window::AckContradiction;
use crate::wire::frame::{Hello, LogRecord, NEW_SESSION, Role, Welcome};
use crate::wire::{OrderLevel, Refusal};

/// A broker that has not read far enough may deny a session that is there. So it is gone only if for this long nobody knew it.
const DENIED_MIN: Duration = Duration::from_millis(500);

/// Whether the session is still there, as far as brokers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is known, or nobody said otherwise.
    Known,
    /// No connection is live, and a broker did not know the session; since when.
    Denied { since: Instant },
    /// It is gone, and another one is asked for.
    Anew,
}

impl Engine {
    /// The session epoch is over: close every connection, then reopen under the next epoch.
    pub(super) fn fence(&mut self, now: Instant) {
        log::warn!("topic {}: session fenced in epoch {}, reopening", self.topic, self.target_epoch);
        self.fences += 1;
        self.target_epoch = self.window.identity(0).epoch + 1;
        self.leave_all(now);
    }

    /// Closes every connection; each may be dialed again at once.
    fn leave_all(&mut self, now: Instant) {
        for index in 0..self.ports.len() {
            self.ports[index].generation += 1;
            if matches!(self.ports[index].state, PortState::Up(_)) {
                self.window.link_down(index);
            }
            self.ports[index].state = PortState::Down { retry_at: now };
        }
        self.cut_off_since = self.cut_off_since.or(Some(now));
    }

    /// Whether the next connection changes the session for all of them, so that they are dialed one at a time.
    pub(super) fn is_reopening(&self) -> bool {
        self.order_level == OrderLevel::Session
            && (self.standing == Standing::Anew || self.target_epoch != self.window.identity(0).epoch)
    }

    /// A broker said that it does not know the session: to a connection that it had welcomed into it (`is_told`), which says that the
    /// session was closed or expired, or to one that was dialed.
    pub(super) fn on_session_denied(&mut self, index: usize, is_told: bool, now: Instant) {
        let is_live = self.ports.iter().any(|port| matches!(port.state, PortState::Up(_)));
        if self.order_level != OrderLevel::Session || self.standing == Standing::Anew || is_live && !is_told {
            return;
        }
        let since = match self.standing {
            Standing::Denied { since } => since,
            _ => now,
        };
        self.standing = Standing::Denied { since };
        if is_told || now.duration_since(since) >= DENIED_MIN {
            self.replace_session(index, now);
        }
    }

    /// The session is gone: another one is opened, unless that could put something there twice.
    fn replace_session(&mut self, index: usize, now: Instant) {
        let session = self.window.identity(0).session;
        self.leave_all(now);
        if let Some((first_message, end_message)) = self.window.doubtful_messages() {
            let broker = self.ports[index].address.clone();
            self.failed = Some(ClientError::SessionGone { broker, session, first_message, end_message });
            return;
        }
        log::warn!("topic {}: session {session:#x} is gone, nothing of it is in doubt: opening another", self.topic);
        self.standing = Standing::Anew;
    }

    pub(super) fn hello(&self, index: usize) -> Hello {
        let mut hello = Hello {
            role: Role::Publisher as u8,
            ack_level: self.ack as u8,
            order_level: self.order_level as u8,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            ..Hello::default()
        };
        if self.standing == Standing::Anew {
            hello.session = NEW_SESSION;
        } else if self.order_level == OrderLevel::Session {
            let identity = self.window.identity(index);
            (hello.session, hello.token, hello.session_epoch) = (identity.session, identity.token, self.target_epoch);
            hello.log = self.log.as_ref().map_or(0, LogRecord::tag);
        }
        hello
    }

    /// A refusal that concerns the session rather than the connection.
    pub(super) fn on_refused(&mut self, index: usize, error: &ClientError, is_told: bool, now: Instant) {
        let ClientError::Refused { detail, .. } = error else { return };
        match error.refusal() {
            Some(Refusal::UnknownSession) => self.on_session_denied(index, is_told, now),
            Some(Refusal::SessionEpoch) if !is_told && self.order_level == OrderLevel::Session => {
                self.on_epoch_refused(*detail, now);
            }
            _ => {}
        }
    }

    /// A broker refused our session epoch and said which one is current.
    pub(super) fn on_epoch_refused(&mut self, current: u64, now: Instant) {
        let ours = u64::from(self.window.identity(0).epoch);
        if current > ours && self.is_reopening() {
            // The session was reopened, but the answer was lost on the way. Nothing was sent in that epoch.
            self.target_epoch = u32::try_from(current).unwrap_or(self.target_epoch);
        } else if current >= ours && !self.is_reopening() {
            self.fence(now);
        }
        // Otherwise that broker has not read as far in the order index as the others: try again later.
    }

    /// Takes a connection into the session, or the session that it opened into use.
    pub(super) fn adopt(&mut self, index: usize, welcome: &Welcome, now: Instant) -> Result<(), ClientError> {
        let address = self.ports[index].address.clone();
        let wrong = |field, found, expected| Err(contradiction(&address, field, found, expected));
        if welcome.order_level != self.order_level as u8 {
            return wrong("order_level", welcome.order_level.into(), self.order_level as u64);
        }
        if welcome.ack_level != self.ack as u8 {
            return wrong("ack_level", welcome.ack_level.into(), self.ack as u64);
        }
        if u64::from(welcome.batch_bytes_max) < self.shape.frame_bytes_max {
            return wrong("batch_bytes_max", welcome.batch_bytes_max.into(), self.shape.frame_bytes_max);
        }
        let refused = |issue: AckContradiction| contradiction(&address, issue.field, issue.found, issue.expected);
        if self.order_level != OrderLevel::Session {
            return self.window.link_up(index, identity(welcome), welcome.next, now).map_err(refused);
        }
        let ours = self.window.identity(index);
        let is_anew = self.standing == Standing::Anew;
        if !is_anew && welcome.session != ours.session {
            return wrong("session", welcome.session, ours.session);
        }
        if !is_anew && welcome.session_epoch != self.target_epoch {
            return wrong("session_epoch", welcome.session_epoch.into(), self.target_epoch.into());
        }
        if welcome.topic != ours.topic {
            return wrong("topic", welcome.topic.into(), ours.topic.into());
        }
        if is_anew {
            self.window.replace(identity(welcome), welcome.next).map_err(refused)?;
            self.target_epoch = welcome.session_epoch;
            self.new_sessions += 1;
        } else if self.is_reopening() {
            self.window.reopen(self.target_epoch, welcome.next, now).map_err(refused)?;
        }
        let identity = self.window.identity(index);
        self.window.link_up(index, identity, welcome.next, now).map_err(refused)?;
        self.standing = Standing::Known;
        Ok(())
    }
}
