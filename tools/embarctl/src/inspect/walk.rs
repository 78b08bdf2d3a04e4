//! A whole look at a pool: every region once, what changes meanwhile again.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use embarcadero::log::View;
use embarcadero::log::checkpoint::check_session_line;
use embarcadero::log::commit::Commit;
use embarcadero::log::damage::within;
use embarcadero::pool::record::{FloorLine, SessionLine};
use embarcadero::pool::superblock::Superblock;
use embarcadero::pool::{Mapped, Pool};

use super::epochs::{self, claims, floor_now};
use super::extents::Fold;
use super::findings::{Findings, Place, Promise};
use super::index::{Tables, Walk};
use super::lanes::{self, Named};
use super::looking::{Looked, Owner, Pass};
use super::{members, tables};

/// Looks at a pool in which something is broken: what is not in all of them was seen while it changed.
const LOOKS: u32 = 3;
/// Looks that count for nothing, since the sequencer changed meanwhile, before one counts all the same.
const VOID_MAX: u32 = 4;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which part of the log was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Under which commit.
    pub commit: Commit,
    /// From where on; none: it cannot be said.
    pub floor: Option<u64>,
}

/// What a look found.
pub struct Seen {
    /// By promise.
    pub findings: Findings,
    /// None: no sequencer was ever active.
    pub part: Option<Part>,
}

/// Looks at a pool until what is found is certain.
pub fn look(pool: &Pool) -> Seen {
    let view = view(pool);
    let (mut kept, mut looks, mut void): (Option<Seen>, u32, u32) = (None, 0, 0);
    loop {
        let (mut seen, is_settled) = look_once(pool, &view);
        if !is_settled && void < VOID_MAX {
            void += 1;
            sleep(LOOK_EVERY);
            continue;
        }
        if !is_settled {
            let note = "the sequencer changed each time they were read: what is told of its lines may be of two epochs";
            seen.findings.note(Promise::Epochs, note.into());
        }
        looks += 1;
        let now = match kept.take() {
            None => seen,
            Some(mut before) => {
                before.findings.keep_what_is_in(&seen.findings);
                before
            }
        };
        if now.findings.count() == 0 || looks == LOOKS {
            return now;
        }
        kept = Some(now);
        sleep(LOOK_EVERY);
    }
}

fn view(pool: &Pool) -> Looked {
    View::of_onlooker(Mapped::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()), pool.superblock().homes())
}

/// One look. Gives whether the sequencer was the same all the while.
fn look_once(pool: &Pool, view: &Looked) -> (Seen, bool) {
    let mut pass = Pass::new(pool, view);
    // It was read and checked when the pool was opened.
    pass.findings.looked(Promise::Superblock, size_of::<Superblock>() as u64);
    let before = claims(&pass);
    members::look_at_members(&mut pass);
    epochs::look_at_epochs(&mut pass);
    let part = match epochs::current(&pass) {
        Some(commit) => look_at_log(&mut pass, commit),
        None => {
            lanes::hold_lanes(&mut pass, None, &[], &[]);
            None
        }
    };
    let is_settled = before == claims(&pass);
    (Seen { findings: pass.findings, part }, is_settled)
}

/// Lines are read first, the watermark after them, the index after that: so everything that lines stand for lies below the watermark.
fn look_at_log(pass: &mut Pass<'_>, first: Commit) -> Option<Part> {
    let g = pass.view.layout.geometry;
    let floors = epochs::look_at_floors(pass, &first);
    let floor = floors.map_or(0, |floors| floors.floor);
    let progress = lanes::read_progress(pass, &first);
    let mut read = Tables {
        topics: tables::read_topics(pass, &first),
        cursors: tables::read_cursors(pass, &first),
        sessions: read_sessions(pass, &first),
        named: vec![Named::default(); g.lanes() as usize],
        extents: Fold::read(pass, &first, floor),
    };
    let commit = epochs::current(pass).filter(|commit| commit.epoch == first.epoch)?;
    check_sessions(pass, &commit, &mut read.sessions);
    match floors {
        Some(floors) => follow(pass, &commit, &floors, &mut read),
        None => pass.findings.note(
            Promise::Entries,
            "not looked at: the floor line does not say from which position on entries are kept".into(),
        ),
    }
    lanes::hold_lanes(pass, Some(&commit), &progress, &read.named);
    Some(Part { commit, floor: floors.map(|floors| floors.floor) })
}

/// The index, and everything that it says of the rest.
fn follow(pass: &mut Pass<'_>, commit: &Commit, floors: &FloorLine, read: &mut Tables) {
    epochs::hold_against_watermark(pass, floors, commit);
    let directory = epochs::look_at_directory(pass, commit, floors.floor);
    let is_whole = Walk::new(pass, *commit, floors.checkpoint, read).go(&directory, floors.floor);
    let floor = floor_now(pass, commit).unwrap_or(floors.floor);
    read.extents.hold_lines(pass, commit, floors.floor, floor);
    if is_whole {
        tables::hold_topics(pass, commit, floors.floor, &read.topics);
    }
    tables::hold_cursors(pass, commit, &read.topics, &read.cursors, is_whole);
    members::hold_pins(pass, floors);
}

fn session_place(pass: &Pass<'_>, commit: &Commit, slot: u32) -> Place {
    let at = pass.view.layout.session_line(commit.candidate, slot);
    Place { region: "checkpoint of session", number: slot.into(), at }
}

/// Reads the checkpoints of sessions of a commit's candidate: those that are whole and sound.
fn read_sessions(pass: &mut Pass<'_>, commit: &Commit) -> Vec<Option<SessionLine>> {
    let g = pass.view.layout.geometry;
    let mut read = |slot| {
        let place = session_place(pass, commit, slot);
        let (_, line) = pass.look::<SessionLine>(place, Owner::Candidate(commit.candidate))?;
        pass.findings.looked(Promise::Sessions, line.state.min(1).into());
        let checked = check_session_line(&line, &g).and_then(|()| {
            if line.state == 0 { Ok(()) } else { within("topic", line.topic.into(), 0, u64::from(g.topics_max) - 1) }
        });
        pass.findings.hold::<SessionLine>(Promise::Sessions, place, checked).then_some(line)
    };
    (0..g.sessions_max).map(&mut read).collect()
}

/// What they stand for, and when they were opened, lies below the watermark. Those of which it does not are left out.
fn check_sessions(pass: &mut Pass<'_>, commit: &Commit, sessions: &mut [Option<SessionLine>]) {
    for (slot, session) in (0..).zip(sessions) {
        let Some(line) = session else { continue };
        let checked = within("position", line.position, 0, commit.watermark)
            .and_then(|()| if line.state == 0 { Ok(()) } else { within("session", line.session, 1, commit.watermark) });
        let place = session_place(pass, commit, slot);
        if !pass.findings.hold::<SessionLine>(Promise::Sessions, place, checked) {
            *session = None;
        }
    }
}
