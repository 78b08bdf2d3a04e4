//! How a walk looks at lines: each again, if somebody writes it just now.

use std::thread::sleep;
use std::time::Duration;

use embarcadero::log::View;
use embarcadero::log::commit::CommitReader;
use embarcadero::pool::line::{self, INVALID};
use embarcadero::pool::record::{BrokerLine, EpochLine, Record};
use embarcadero::pool::region::LockName;
use embarcadero::pool::{Access, Mapped, Memory, Pool, Software};

use super::findings::{Broken, Findings, Place, Promise};

/// Memory of a pool that is only looked at.
pub type Looked = View<Mapped<Software>>;

/// How often a line is looked at that is being written,
const LOOKS: u32 = 10;
/// and how long is waited in between. Who writes one takes less than a microsecond for it.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A member beats this often while it looks after itself; a little more.
const BEAT_WAIT: Duration = Duration::from_millis(60);

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// A sequencer candidate.
    Candidate(u32),
    /// A broker, or the process in an attached place.
    Member(u32),
}

/// One walk over a pool.
pub struct Pass<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// Its memory.
    pub view: &'a Looked,
    /// Its epoch lines.
    pub reader: CommitReader<Mapped<Software>>,
    /// What was found so far.
    pub findings: Findings,
}

impl<'a> Pass<'a> {
    /// One that begins.
    pub fn new(pool: &'a Pool, view: &'a Looked) -> Pass<'a> {
        Pass { pool, view, reader: CommitReader::new(view), findings: Findings::new() }
    }

    fn access(&self, owner: Owner) -> Access {
        match owner {
            Owner::Candidate(candidate) => self.view.access_to_candidate(candidate),
            Owner::Member(member) => self.view.access_to_member(member),
        }
    }

    /// The record in a line, with its guard. `None`: none was ever written; or it is half written, which is noted.
    pub fn look<R: Record>(&mut self, place: Place, owner: Owner) -> Option<(u64, R)> {
        self.findings.looked(Promise::Lines, 1);
        let access = self.access(owner);
        for looks in 0.. {
            if let Some(found) = line::observe::<_, R>(&self.view.memory, place.at, access) {
                return Some(found);
            }
            if (0..8).all(|word| self.view.memory.load(place.at + 8 * word) == 0) {
                return None;
            }
            if looks == LOOKS {
                break;
            }
            sleep(LOOK_EVERY);
        }
        if self.view.memory.load(place.at) == INVALID {
            self.note_torn(place, owner);
        }
        None
    }

    fn note_torn(&mut self, place: Place, owner: Owner) {
        let what = match self.lives(owner) {
            true => "is being written by a process that stands still",
            false => "was cut short by a kill; it is mended by the next start",
        };
        let Place { region, number, at } = place;
        self.findings.note(Promise::Lines, format!("{region} {number} at {at} {what}"));
    }

    /// Whether a process has these lines: it has a lock of this host, or shows on another that it lives.
    pub fn lives(&self, owner: Owner) -> bool {
        let name = match owner {
            Owner::Candidate(candidate) => LockName::Candidate(candidate),
            Owner::Member(member) => self.pool.member_lock(member),
        };
        if self.pool.is_locked(name).unwrap_or(false) {
            return true;
        }
        let before = self.beat(owner);
        sleep(BEAT_WAIT);
        self.beat(owner) != before
    }

    fn beat(&self, owner: Owner) -> u64 {
        let (memory, layout) = (&self.view.memory, &self.view.layout);
        match owner {
            Owner::Candidate(candidate) => {
                line::observe_words::<_, EpochLine>(memory, layout.epoch_line(candidate), Access::Remote).heartbeat
            }
            Owner::Member(member) => {
                line::observe_words::<_, BrokerLine>(memory, layout.broker_line(member), Access::Remote).heartbeat
            }
        }
    }

    /// A place where a promise is broken.
    pub fn broken(&mut self, promise: Promise, broken: Broken) {
        self.findings.broken(promise, broken);
    }

    /// Holds what must be so.
    pub fn demand(&mut self, promise: Promise, holds: bool, broken: impl FnOnce() -> Broken) {
        if !holds {
            self.findings.broken(promise, broken());
        }
    }
}
