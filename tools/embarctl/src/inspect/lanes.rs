//! Lanes: what the sequencer has done with each, and what lies in its ring.

use std::ops::Range;

use embarcadero::log::checkpoint::check_lane_progress;
use embarcadero::log::commit::Commit;
use embarcadero::log::damage::{COUNT_MAX, FieldFault, within, within_steps};
use embarcadero::pool::record::{BatchSlot, LaneProgress, LaneStatus, slot_kind};
use embarcadero::pool::{Access, Memory, line};

use super::findings::{Place, Promise};
use super::looking::{Owner, Pass};

/// Reads each lane's progress of a commit's candidate; none: it was cut short, or is not sound.
pub fn read_progress(pass: &mut Pass<'_>, commit: &Commit) -> Vec<Option<LaneProgress>> {
    let g = pass.view.layout.geometry;
    let claimed = pass.reader.line(commit.candidate).claimed;
    let mut read = |lane| {
        let place = progress_place(pass, commit, lane);
        let (_, progress) = pass.look::<LaneProgress>(place, Owner::Candidate(commit.candidate))?;
        let checked = check_lane_progress(&progress)
            .and_then(|()| within("epoch", progress.epoch, commit.epoch, claimed.max(commit.epoch)))
            .and_then(|()| within("settled", progress.settled, 0, progress.consumed))
            .and_then(|()| within("reusable", progress.reusable, 0, progress.settled));
        pass.findings.hold::<LaneProgress>(Promise::Lanes, place, checked).then_some(progress)
    };
    (0..g.lanes()).map(&mut read).collect()
}

fn progress_place(pass: &Pass<'_>, commit: &Commit, lane: u32) -> Place {
    let at = pass.view.layout.lane_progress(commit.candidate, lane);
    Place { region: "progress of lane", number: lane.into(), at }
}

/// What the index says of a lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named {
    /// One past the highest of its slots that an entry below the checkpoint names; and that any does.
    pub below_checkpoint: u64,
    /// And that any does.
    pub ever: u64,
    /// Extents granted to it: at the checkpoint, and by now, if that is known.
    pub granted: (u64, Option<u64>),
}

/// Holds rings and statuses against progress and index. `named` is by lane; empty: no sequencer was ever active.
pub fn hold_lanes(pass: &mut Pass<'_>, commit: Option<&Commit>, progress: &[Option<LaneProgress>], named: &[Named]) {
    for lane in 0..pass.view.layout.geometry.lanes() {
        let produced = look_at_ring(pass, lane);
        hold_status(pass, lane, produced);
        let (Some(commit), Some(Some(progress))) = (commit, progress.get(lane as usize)) else { continue };
        let place = progress_place(pass, commit, lane);
        let named = named[lane as usize];
        // What lies below the checkpoint is not replayed: so progress was written before.
        let checked = within("consumed", progress.consumed, named.below_checkpoint, produced)
            .and_then(|()| within("granted", progress.granted, named.granted.0, named.granted.1.unwrap_or(COUNT_MAX)));
        if pass.findings.hold::<LaneProgress>(Promise::Lanes, place, checked) {
            hold_slots(pass, lane, progress.consumed..produced);
        }
        let ring = Place { region: "ring of lane", number: lane.into(), at: pass.view.layout.ring_slot(lane, 0) };
        pass.demand(Promise::Lanes, named.ever <= produced, || {
            let expected = format!("{} or more: the index names that many", named.ever);
            ring.broken(0, "slots published", produced, expected)
        });
    }
}

/// Every guard lies in the place of its number. Gives how many slots were published, ever.
fn look_at_ring(pass: &mut Pass<'_>, lane: u32) -> u64 {
    let slots = u64::from(pass.view.layout.geometry.ring_slots);
    if pass.view.access_to_lane(lane) == Access::Remote {
        pass.view.memory.discard(pass.view.layout.ring_slot(lane, 0), slots * 64);
    }
    let mut produced = 0;
    for slot in 0..slots {
        let place = slot_place(pass, lane, slot);
        let guard = pass.view.memory.load(place.at);
        pass.findings.looked(Promise::Lanes, 1);
        if guard == line::INVALID {
            let owner = Owner::Member(pass.view.layout.geometry.member_of_lane(lane));
            // Blank, or cut short: nobody saw it.
            if let Some((again, _)) = pass.look::<BatchSlot>(place, owner) {
                produced = again.max(produced);
            }
            continue;
        }
        let checked = within_steps("guard", guard, slot + 1, COUNT_MAX / slots * slots + slot + 1, slots);
        if pass.findings.hold::<BatchSlot>(Promise::Lanes, place, checked) {
            produced = guard.max(produced);
        }
    }
    produced
}

fn slot_place(pass: &Pass<'_>, lane: u32, slot: u64) -> Place {
    Place { region: "ring of lane", number: lane.into(), at: pass.view.layout.ring_slot(lane, slot) }
}

/// What waits for the sequencer is there.
fn hold_slots(pass: &mut Pass<'_>, lane: u32, waiting: Range<u64>) {
    let slots = u64::from(pass.view.layout.geometry.ring_slots);
    let oldest = waiting.end.saturating_sub(slots).max(waiting.start);
    for slot in oldest..waiting.end {
        let (place, access) = (slot_place(pass, lane, slot), pass.view.access_to_lane(lane));
        let Some((guard, found)) = line::observe::<_, BatchSlot>(&pass.view.memory, place.at, access) else { continue };
        // One that was published since is in its place.
        let checked: Result<(), FieldFault> = within_steps("guard", guard, slot + 1, COUNT_MAX, slots)
            .and_then(|()| within("kind", found.kind.into(), slot_kind::BATCH.into(), slot_kind::EXTENT_CLOSE.into()));
        pass.findings.hold::<BatchSlot>(Promise::Lanes, place, checked);
    }
}

fn hold_status(pass: &mut Pass<'_>, lane: u32, produced: u64) {
    let owner = Owner::Member(pass.view.layout.geometry.member_of_lane(lane));
    let place = Place { region: "status of lane", number: lane.into(), at: pass.view.layout.lane_status(lane) };
    let Some((_, status)) = pass.look::<LaneStatus>(place, owner) else { return };
    let checked = within("incarnation", status.incarnation, 1, COUNT_MAX)
        .and_then(|()| within("paused", status.paused, 0, 1))
        .and_then(|()| within("left", status.left, 0, 1))
        .and_then(|()| within("first_slot", status.first_slot, 0, produced));
    pass.findings.hold::<LaneStatus>(Promise::Lanes, place, checked);
}
