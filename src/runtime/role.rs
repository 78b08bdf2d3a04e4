//! The contract between a role and the loop that drives it.
//!
//! A role is a state machine with a bounded duty cycle. It never blocks, never waits for another role, and does not
//! know with whom it shares its thread. What it cannot do now (no room, no data) it keeps, and looks again next time.

use std::error::Error;
use std::time::Duration;

use crate::runtime::clock::Now;

/// Most roles of one thread: a completion names its role in a byte.
pub const ROLES_PER_THREAD_MAX: usize = 256;

/// The io of one thread, shared by its roles; in production an io_uring.
///
/// Created and used on one thread only.
pub trait Io {
    /// What has finished: an operation, its result and which role asked for it.
    type Completion: Copy;

    /// Number, on this thread, of the role that asked for it: the `index` of [`Role::start`].
    fn role_of(completion: &Self::Completion) -> u8;

    /// Hands queued operations to the kernel and lets it deliver completions. Called once a pass, so it must cost
    /// next to nothing when there is nothing to do.
    ///
    /// With `wait`, sleeps until there is a completion or that time has passed; returns at once if there already is
    /// one. The time passing is no error.
    ///
    /// # Errors
    /// Those after which this io cannot go on; [`Interrupted`](std::io::ErrorKind::Interrupted) is taken as an early
    /// return.
    fn submit(&mut self, wait: Option<Duration>) -> std::io::Result<()>;

    /// The next completion that has arrived, without asking the kernel.
    fn next_completion(&mut self) -> Option<Self::Completion>;

    /// The time now: what a pass begins with, and what is measured within one.
    fn now(&mut self) -> Now;
}

/// What a role does, in the order in which roles of one thread are driven: one duty cycle takes a batch from its
/// socket to its ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleKind {
    /// Takes publishers' bytes.
    Receive,
    /// Orders.
    Sequence,
    /// Acknowledges.
    Ack,
    /// Serves subscribers.
    Export,
}

impl RoleKind {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All of them, each at its number.
    pub const ALL: [RoleKind; RoleKind::COUNT] =
        [RoleKind::Receive, RoleKind::Sequence, RoleKind::Ack, RoleKind::Export];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            RoleKind::Receive => "receive",
            RoleKind::Sequence => "sequence",
            RoleKind::Ack => "ack",
            RoleKind::Export => "export",
        }
    }
}

/// For whom a role waits that has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The sequencer has not looked at enough of a lane's ring.
    Ring,
    /// No extent of the blog is free.
    Memory,
    /// The order index has no room.
    Index,
    /// The peers of connections take nothing.
    Peers,
}

impl Blocked {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All of them, each at its number.
    pub const ALL: [Blocked; Blocked::COUNT] = [Blocked::Ring, Blocked::Memory, Blocked::Index, Blocked::Peers];

    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Blocked::Ring => "ring full",
            Blocked::Memory => "no memory",
            Blocked::Index => "index full",
            Blocked::Peers => "peers",
        }
    }
}

/// A part of the broker that runs on one thread.
///
/// A broken invariant is a panic: the runner turns it into an error that names the role, and the process drains.
pub trait Role<I: Io> {
    /// Name, for people: kind and number.
    fn name(&self) -> &str;

    /// What it does.
    fn kind(&self) -> RoleKind;

    /// Called once, first, on the thread that will run it. `index` goes into every operation it submits.
    ///
    /// # Errors
    /// [`RoleError`] if it cannot run; the process then stops.
    fn start(&mut self, io: &mut I, index: u8, now: Now) -> Result<(), RoleError>;

    /// Something it asked for has finished. Counts as work.
    fn complete(&mut self, io: &mut I, completion: I::Completion, now: Now);

    /// One duty cycle: a bounded amount of work. Returns how much moved, and 0 if and only if nothing did: a role
    /// that reports work while idle keeps a core busy for nothing.
    ///
    /// What moves is what somebody may wait for: items in a queue, a ring or a table, operations asked of the io. What is due
    /// for as long as a process lives (beats, roll calls, reports of a state, counters) moves nothing.
    fn poll(&mut self, io: &mut I, now: Now) -> usize;

    /// Asked after a poll that moved nothing: why the role cannot go on, ever. The process then drains and ends.
    fn fault(&mut self) -> Option<RoleError> {
        None
    }

    /// Asked after a poll that moved nothing, before the thread sleeps until a completion or a short timeout. False if
    /// that would be too late.
    fn may_sleep(&self) -> bool {
        true
    }

    /// Asked after a poll that moved nothing: for whom it waits, if it has something to do that it cannot.
    fn blocked(&self) -> Option<Blocked> {
        None
    }

    /// Called once a second, and last of all: copies out what it has counted, and logs what an operator should see of it. What it takes is
    /// charged as housekeeping.
    fn report(&mut self, _now: Now) {}

    /// Asked while it is not drained: what it waits for, for people.
    fn waits_for(&self) -> Option<String> {
        None
    }

    /// What must hold between two passes, of the role and of everything it has: a panic if it does not. Tests and the simulator ask
    /// after every pass; a broker does not.
    fn check(&self, _now: Now) {}

    /// The duty cycle while the process shuts down, instead of [`poll`](Role::poll): take nothing new, finish what
    /// was begun. True when nothing is left. Called until every role says so, also after this one did, since another
    /// may still hand it something.
    fn drain(&mut self, io: &mut I, now: Now) -> bool;

    /// Called last, once every role of the process is drained: there is no other pass.
    fn end(&mut self) {}
}

/// Why a role cannot run.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RoleError(Box<dyn Error + Send + Sync>);

impl RoleError {
    /// From the role's own error, or from text.
    pub fn new(why: impl Into<Box<dyn Error + Send + Sync>>) -> RoleError {
        RoleError(why.into())
    }

    /// The role's own error.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}
