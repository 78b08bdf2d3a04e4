//! The session of a publisher, and where it is not what it was: fenced, and opened again under its next epoch; or gone, and another one
//! is opened in its place. No I/O and no clock.
//!
//! A session is gone when its place was given to somebody else while nobody was connected for it, or when it was closed. What was acked
//! stays. What was never wholly sent goes into the new session. What was sent and not acked may be ordered or not, and nobody can tell
//! any more: sending it in another session could put it there twice. So that ends the publisher, and its user is told which it is.

use std::time::{Duration, Instant};

use crate::client::batch::Identity;
use crate::client::handshake::ANY_ORDER_LEVEL;
use crate::client::options::PublisherOptions;
use crate::client::pulse::HEARTBEAT;
use crate::client::window::{Contradiction, Window};
use crate::wire::frame::{Hello, LogRecord, NEW_SESSION, Role, Welcome};
use crate::wire::{AckLevel, OrderLevel};

/// A broker that has not read far enough may deny a session that is there. So it is gone only if for this long nobody knew it.
pub(crate) const DENIED_MIN: Duration = Duration::from_millis(500);

/// Whether the session is still there, as far as brokers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is known, or nobody said otherwise.
    Known,
    /// No connection is live, and a broker did not know the session; since when.
    Denied { since: Instant },
    /// It is gone, and another one is asked for.
    Anew,
}

/// How a publisher's connections enter its session: one at order level 5; below it each connection is a session of its own.
///
/// It keeps what is asked for; what is had (identity, numbers) is the [`Window`]'s. Outputs: [`hello`](Session::hello),
/// [`is_changing`](Session::is_changing). Events: [`adopt`](Session::adopt), [`on_denied`](Session::on_denied) and
/// [`on_epoch_refused`](Session::on_epoch_refused); the last two say whether all connections must be left, and then
/// [`fence`](Session::fence) or [`begin_anew`](Session::begin_anew) follows.
pub(crate) struct Session {
    order_level: OrderLevel,
    ack: AckLevel,
    /// Session epoch to ask for: the current one, or past it while a fenced session is being reopened.
    target_epoch: u32,
    standing: Standing,
    denied_min: Duration,
    /// The first session of all: whoever knows when it was opened knows whether its topic is still there.
    first: u64,
    /// Which log is published to, once a broker has said so.
    pub log: Option<LogRecord>,
}

impl Session {
    /// As the first welcome says.
    pub fn of(
        welcome: &Welcome,
        log: Option<LogRecord>,
        terms: (OrderLevel, AckLevel),
        denied_min: Duration,
    ) -> Session {
        let (order_level, ack) = terms;
        let (target_epoch, first) = (welcome.session_epoch, welcome.session);
        Session { order_level, ack, target_epoch, standing: Standing::Known, denied_min, first, log }
    }

    pub fn order_level(&self) -> OrderLevel {
        self.order_level
    }

    /// Whether all connections are in one session.
    pub fn is_shared(&self) -> bool {
        self.order_level == OrderLevel::Session
    }

    pub fn target_epoch(&self) -> u32 {
        self.target_epoch
    }

    /// Whether the next connection changes the session for all of them, so that they are dialed one at a time.
    pub fn is_changing(&self, ours: &Identity) -> bool {
        self.is_shared() && (self.standing == Standing::Anew || self.target_epoch != ours.epoch)
    }

    /// The session epoch is over: from now on the next one is asked for. Every connection is to be left.
    pub fn fence(&mut self, ours: &Identity) {
        assert!(self.is_shared());
        self.target_epoch = ours.epoch + 1;
    }

    /// The session is gone, and nothing of it is in doubt: another one is asked for.
    pub fn begin_anew(&mut self) {
        assert!(self.is_shared());
        self.standing = Standing::Anew;
    }

    /// A broker said that it does not know the session: to a connection that it had welcomed into it (`is_told`), which says that the
    /// session was closed or expired, or to one that was dialed. True: it is gone.
    pub fn on_denied(&mut self, is_told: bool, is_any_live: bool, now: Instant) -> bool {
        if !self.is_shared() || self.standing == Standing::Anew || is_any_live && !is_told {
            return false;
        }
        let since = match self.standing {
            Standing::Denied { since } => since,
            _ => now,
        };
        self.standing = Standing::Denied { since };
        is_told || now.duration_since(since) >= self.denied_min
    }

    /// A broker refused our session epoch and said which one is current. True: ours is over.
    pub fn on_epoch_refused(&mut self, current: u64, ours: &Identity) -> bool {
        if !self.is_shared() {
            return false;
        }
        let epoch = u64::from(ours.epoch);
        if current > epoch && self.is_changing(ours) {
            // The session was reopened, but the answer was lost on the way. Nothing was sent in that epoch.
            self.target_epoch = u32::try_from(current).unwrap_or(self.target_epoch);
            return false;
        }
        // Otherwise that broker has not read as far in the order index as the others: try again later.
        current >= epoch && !self.is_changing(ours)
    }

    /// What a connection is opened with.
    pub fn hello(&self, ours: &Identity) -> Hello {
        let mut hello = Hello {
            role: Role::Publisher as u8,
            ack_level: self.ack as u8,
            order_level: self.order_level as u8,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            ..Hello::default()
        };
        if self.standing == Standing::Anew || !self.is_shared() {
            // In the same topic, not in another of its name.
            (hello.session, hello.token) = (NEW_SESSION, self.first);
        } else {
            (hello.session, hello.token, hello.session_epoch) = (ours.session, ours.token, self.target_epoch);
            hello.log = self.log.as_ref().map_or(0, LogRecord::tag);
        }
        hello
    }

    /// Takes a connection into the session, or the session that it opened into use. True: that is another one.
    pub fn adopt(
        &mut self,
        window: &mut Window,
        link: usize,
        welcome: &Welcome,
        now: Instant,
    ) -> Result<bool, Contradiction> {
        let wrong = |field, found, expected| Err(Contradiction { field, found, expected });
        if welcome.order_level != self.order_level as u8 {
            return wrong("order_level", welcome.order_level.into(), self.order_level as u64);
        }
        if welcome.ack_level != self.ack as u8 {
            return wrong("ack_level", welcome.ack_level.into(), self.ack as u64);
        }
        if !self.is_shared() {
            return window.link_up(link, identity(welcome), welcome.next, now).map(|()| false);
        }
        let ours = window.identity(link);
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
            window.replace(identity(welcome), welcome.next)?;
            self.target_epoch = welcome.session_epoch;
        } else if self.is_changing(&ours) {
            window.reopen(self.target_epoch, welcome.next, now)?;
        }
        window.link_up(link, window.identity(link), welcome.next, now)?;
        self.standing = Standing::Known;
        Ok(is_anew)
    }
}

/// What the first connection of all is opened with: nobody has a session yet.
pub(crate) fn first_hello(options: &PublisherOptions) -> Hello {
    Hello {
        role: Role::Publisher as u8,
        ack_level: options.ack as u8,
        order_level: options.create.map_or(ANY_ORDER_LEVEL, |properties| properties.order as u8),
        session: NEW_SESSION,
        heartbeat_ms: HEARTBEAT.as_millis() as u32,
        ..Hello::default()
    }
}

/// Whom a welcome makes of us.
pub(crate) fn identity(welcome: &Welcome) -> Identity {
    Identity { session: welcome.session, token: welcome.token, epoch: welcome.session_epoch, topic: welcome.topic }
}
