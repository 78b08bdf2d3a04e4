//! Epoch lines, floor lines, and the segment directory of the active epoch.

use embarcadero::log::commit::{self, Commit};
use embarcadero::log::damage::{FieldFault, sound, within};
use embarcadero::log::directory::{BANKS, Segment, check_line};
use embarcadero::pool::line;
use embarcadero::pool::record::{Checked, EpochLine, FloorLine, SegmentLine};

use super::findings::{Place, Promise};
use super::looking::{Owner, Pass};

/// What candidates claim, and have active.
pub type Claims = Vec<(u64, u64)>;

/// The claims of all candidates now.
pub fn claims(pass: &Pass<'_>) -> Claims {
    let of = |candidate| pass.reader.line(candidate);
    (0..pass.view.layout.geometry.candidates).map(of).map(|line| (line.claimed, line.active)).collect()
}

/// The commit point as far as it can be known: where an epoch line is damaged, its candidate's floor line says which epoch it had last.
pub fn current(pass: &Pass<'_>) -> Option<Commit> {
    let candidates = pass.view.layout.geometry.candidates;
    let of = |candidate: u32| {
        let line = pass.reader.line(candidate);
        let commit = Commit { epoch: line.active, candidate, watermark: line.watermark };
        if check_epochs(&line, candidate, candidates).is_ok() {
            return Some(commit).filter(|commit| commit.epoch > 0);
        }
        let floors = pass.reader.peek_sound::<FloorLine>(commit, |c| pass.view.layout.floor_line(c)).ok()?;
        Some(Commit { epoch: floors.epoch, ..commit })
    };
    (0..candidates).filter_map(of).max_by_key(|commit| commit.epoch)
}

fn check_epochs(line: &EpochLine, candidate: u32, candidates: u32) -> Result<(), FieldFault> {
    commit::check_line(line, candidate, candidates.into())
        .and_then(|()| within("active", line.active, 0, line.claimed))
        .and_then(|()| within("resigned", line.resigned, 0, line.active))
}

/// Looks at all epoch lines.
pub fn look_at_epochs(pass: &mut Pass<'_>) {
    let candidates = pass.view.layout.geometry.candidates;
    for candidate in 0..candidates {
        let place = epoch_place(pass, candidate);
        pass.look::<EpochLine>(place, Owner::Candidate(candidate));
        // Words: they count whatever the guard says.
        let line = pass.reader.line(candidate);
        pass.findings.looked(Promise::Epochs, 1);
        let checked = check_epochs(&line, candidate, candidates);
        pass.findings.hold::<EpochLine>(Promise::Epochs, place, checked);
        if line.claimed > line.active && pass.reader.highest_claimed() == line.claimed {
            let (claimed, active) = (line.claimed, line.active);
            let note = format!("candidate {candidate} has claimed epoch {claimed}; active it had {active} last");
            pass.findings.note(Promise::Epochs, note);
        }
    }
}

fn epoch_place(pass: &Pass<'_>, candidate: u32) -> Place {
    Place { region: "epoch line", number: candidate.into(), at: pass.view.layout.epoch_line(candidate) }
}

fn floor_place(pass: &Pass<'_>, candidate: u32) -> Place {
    Place { region: "floor line", number: candidate.into(), at: pass.view.layout.floor_line(candidate) }
}

/// Looks at all floor lines. Gives that of the commit's candidate, if it can be gone by.
pub fn look_at_floors(pass: &mut Pass<'_>, commit: &Commit) -> Option<FloorLine> {
    let mut current = None;
    for candidate in 0..pass.view.layout.geometry.candidates {
        let place = floor_place(pass, candidate);
        let found = pass.look::<FloorLine>(place, Owner::Candidate(candidate));
        pass.findings.looked(Promise::Floors, 1);
        let floors = match found {
            Some((_, floors)) => {
                if !pass.findings.hold::<FloorLine>(Promise::Floors, place, sound(floors).map(drop)) {
                    continue;
                }
                floors.unsealed()
            }
            // Cut short: each of its words stands alone.
            None => line::observe_words::<_, FloorLine>(&pass.view.memory, place.at, pass.reader.access(candidate))
                .unsealed(),
        };
        let is_whole = found.is_some();
        let checked = if is_whole { check_chain(&floors) } else { Ok(()) };
        let is_sound = pass.findings.hold::<FloorLine>(Promise::Floors, place, checked);
        if candidate == commit.candidate && is_sound {
            current = Some(floors);
        }
    }
    current
}

fn check_chain(floors: &FloorLine) -> Result<(), FieldFault> {
    within("floor", floors.floor, 0, floors.closing)
        .and_then(|()| within("closing", floors.closing, 0, floors.wanted))
        .and_then(|()| within("wanted", floors.wanted, 0, floors.checkpoint))
}

/// The floor now, of a commit's candidate. `None`: it cannot be read.
pub fn floor_now(pass: &Pass<'_>, commit: &Commit) -> Option<u64> {
    pass.reader.peek_sound::<FloorLine>(*commit, |c| pass.view.layout.floor_line(c)).ok().map(|floors| floors.floor)
}

/// Holds floors that were read before against the watermark, which was read after them.
pub fn hold_against_watermark(pass: &mut Pass<'_>, floors: &FloorLine, commit: &Commit) {
    let place = floor_place(pass, commit.candidate);
    let checked = within("checkpoint", floors.checkpoint, 0, commit.watermark);
    pass.findings.hold::<FloorLine>(Promise::Floors, place, checked);
    let line = pass.reader.line(commit.candidate);
    let is_of_candidate = floors.epoch == commit.epoch || floors.epoch == line.claimed;
    pass.demand(Promise::Floors, is_of_candidate, || place.broken(8, "epoch", floors.epoch, commit.epoch));
}

/// The segments that can be read under a commit, from the floor on, in their order.
#[derive(Debug)]
pub struct Directory {
    /// By position.
    pub segments: Vec<Segment>,
    /// Up to where positions can be read: the watermark, if the segments reach it.
    pub limit: u64,
    /// The watermark lies behind the segments: where committed entries end is not known.
    pub is_end_unknown: bool,
}

/// Looks at the directory of a commit's epoch.
pub fn look_at_directory(pass: &mut Pass<'_>, commit: &Commit, floor: u64) -> Directory {
    let g = pass.view.layout.geometry;
    let (mut listed, mut others) = (Vec::new(), Vec::new());
    let owners = (0..BANKS).flat_map(|bank| (0..g.candidates).map(move |owner| (bank, owner)));
    for (bank, owner, number) in owners.flat_map(|(bank, owner)| (0..g.segments.into()).map(move |n| (bank, owner, n)))
    {
        let at = pass.view.layout.directory_line(commit.candidate, bank, owner, number);
        let in_directory = (at - pass.view.layout.directory_line(commit.candidate, 0, 0, 0)) / 64;
        let place = Place { region: "segment directory", number: in_directory, at };
        let Some((guard, record)) = pass.look::<SegmentLine>(place, Owner::Candidate(commit.candidate)) else {
            continue;
        };
        pass.findings.looked(Promise::Directory, 1);
        let checked = check_line(pass.view, number, guard, &record);
        if record.epoch != commit.epoch {
            others.push((place, record));
        } else if pass.findings.hold::<SegmentLine>(Promise::Directory, place, checked) {
            let SegmentLine { first, end, filled_by, .. } = record;
            listed.push((place, Segment { owner, number: guard - 1, first, end, filled_by }));
        }
    }
    listed.retain(|(_, segment)| segment.end > floor && segment.first < commit.watermark);
    listed.sort_by_key(|(_, segment)| segment.first);
    cover(pass, commit, floor, &listed, &others)
}

/// Holds the segments against what they are to cover.
fn cover(
    pass: &mut Pass<'_>,
    commit: &Commit,
    floor: u64,
    listed: &[(Place, Segment)],
    others: &[(Place, SegmentLine)],
) -> Directory {
    let (mut segments, mut covered): (Vec<Segment>, u64) = (Vec::new(), floor);
    let is_told = pass.findings.of(Promise::Directory).count() > 0;
    let gap = |pass: &mut Pass<'_>, from: u64, to: u64| {
        if is_told {
            // Its line is there, and damaged.
            let note = format!("positions {from} to {to} were not looked at: no sound line lists their segment");
            return pass.findings.note(Promise::Entries, note);
        }
        // A line that would close the gap, but for its epoch.
        let lost = others.iter().find(|(_, line)| line.first <= from && from < line.end && line.end >= to);
        let broken = match lost {
            Some((place, line)) => place.broken(8, "epoch", line.epoch, commit.epoch),
            None => {
                let at = pass.view.layout.directory_line(commit.candidate, 0, 0, 0);
                let place = Place { region: "segment directory", number: 0, at };
                place.broken(0, "segments", format!("none for positions {from} to {to}"), "one for each position")
            }
        };
        pass.broken(Promise::Directory, broken);
    };
    for (place, segment) in listed {
        if segment.first > covered {
            gap(pass, covered, segment.first);
        } else if segments.last().is_some_and(|before| before.end > segment.first) {
            pass.broken(Promise::Directory, place.broken(16, "first", segment.first, format!("{covered} or more")));
        }
        covered = covered.max(segment.end);
        segments.push(*segment);
    }
    let mut is_end_unknown = false;
    if covered < commit.watermark {
        let is_full = |last: &Segment| last.end - last.first == u64::from(pass.view.layout.geometry.segment_entries);
        let may_be_lost = others.iter().any(|(_, line)| (line.first..line.end).contains(&covered));
        if segments.last().is_some_and(is_full) && !may_be_lost && !is_told {
            is_end_unknown = true;
            let place = epoch_place(pass, commit.candidate);
            let most = format!("at most {covered}, where the last segment ends");
            // The fourth word of the record.
            pass.broken(Promise::Epochs, place.broken(32, "watermark", commit.watermark, most));
        } else {
            gap(pass, covered, commit.watermark);
        }
    }
    Directory { segments, limit: covered.min(commit.watermark), is_end_unknown }
}
