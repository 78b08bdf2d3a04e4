//! Who has which memory: the index folded over what the sequencer checkpointed, held against holdings, extent table and grants.

use std::collections::BTreeMap;

use embarcadero::limits::GRANTS_AHEAD_MAX;
use embarcadero::log::commit::Commit;
use embarcadero::log::damage::{COUNT_MAX, Expected, FieldFault, count, exactly, within, within_steps};
use embarcadero::log::entry::grant_number;
use embarcadero::log::extents::{Extents, check_holding};
use embarcadero::order::Event;
use embarcadero::pool::Layout;
use embarcadero::pool::record::{ExtentLine, GrantLine, HoldingLine, holding};

use super::findings::{Place, Promise};
use super::looking::{Owner, Pass};

/// An extent in what the walk knows of it.
#[derive(Clone, Debug, Default)]
struct Known {
    /// As its line says, if that is whole and sound.
    line: Option<HoldingLine>,
    /// What the extent table says, if that is whole.
    told: Option<ExtentLine>,
    /// Its line's grant, and the use that its line has as the last one, were met in the index.
    is_grant_met: bool,
    is_end_met: bool,
    /// What it was since the checkpoint.
    states: Vec<HoldingLine>,
    /// A lane named bytes in it that the line does not give it to, and the extent table does.
    other_lane: Option<u16>,
    /// It was granted in the index that was read.
    is_regranted: bool,
}

/// A grant that a lane was told of: the lane, its place in the lane's ring of grants, where it lies, its guard and what it says.
type ToldGrant = (u32, u64, Place, u64, GrantLine);

fn read_grants(pass: &mut Pass<'_>, commit: &Commit) -> Vec<ToldGrant> {
    let mut told = Vec::new();
    let lanes = 0..pass.view.layout.geometry.lanes();
    for (lane, number) in lanes.flat_map(|lane| (0..GRANTS_AHEAD_MAX.into()).map(move |number| (lane, number))) {
        let at = pass.view.layout.grant_line(commit.candidate, lane, number);
        let place = Place { region: "grant of lane", number: lane.into(), at };
        match pass.look::<GrantLine>(place, Owner::Candidate(commit.candidate)) {
            // One that was used up says nothing.
            Some((guard, line)) if line.epoch == commit.epoch && line.extent != u64::MAX => {
                told.push((lane, number, place, guard, line));
            }
            _ => {}
        }
    }
    told
}

/// What is known of all extents.
pub struct Fold {
    extents: Extents,
    known: Vec<Known>,
    grants: Vec<ToldGrant>,
    /// By its number: extent, lane, and extents granted to that lane before, of each grant that was met in the index.
    met: BTreeMap<u64, (u32, u32, u64)>,
    start: u64,
    is_since_checkpoint: bool,
    /// Whether all of the index was read, from the floor on.
    is_whole: bool,
}

fn holding_place(pass: &Pass<'_>, commit: &Commit, extent: u32) -> Place {
    let at = pass.view.layout.holding_line(commit.candidate, extent);
    Place { region: "holding of extent", number: extent.into(), at }
}

fn table_place(pass: &Pass<'_>, extent: u32) -> Place {
    Place { region: "extent table", number: extent.into(), at: pass.view.layout.extent_line(extent) }
}

impl Fold {
    /// Reads what the sequencer of a commit checkpointed, and what lanes say of their extents.
    pub fn read(pass: &mut Pass<'_>, commit: &Commit, floor: u64) -> Fold {
        let g = pass.view.layout.geometry;
        // Of what was granted before the floor nothing is known.
        let founding = |lane| if floor == 0 { g.founding_extents(lane).len() as u64 } else { 0 };
        let granted = (0..g.lanes()).map(founding).collect();
        let mut known = vec![Known::default(); g.extents as usize];
        for (extent, known) in (0..).zip(&mut known) {
            let place = holding_place(pass, commit, extent);
            let line = pass.look::<HoldingLine>(place, Owner::Candidate(commit.candidate)).map(|(_, line)| line);
            let is_sound = |line: &HoldingLine| {
                pass.findings.hold::<HoldingLine>(Promise::Extents, place, check_holding(line, &g))
            };
            known.line = line.filter(is_sound);
            pass.findings.looked(Promise::Extents, 1);
            // Whoever had it last: any of the members.
            let place = table_place(pass, extent);
            let writer = known.line.map_or(0, |line| g.member_of_lane(line.lane));
            known.told = pass.look::<ExtentLine>(place, Owner::Member(writer)).map(|(_, line)| line);
        }
        let seeds = known.iter().map(|known| known.line.unwrap_or_default()).collect();
        let grants = read_grants(pass, commit);
        Fold {
            extents: Extents::of(seeds, granted),
            known,
            grants,
            met: BTreeMap::new(),
            start: floor,
            is_since_checkpoint: false,
            is_whole: true,
        }
    }

    /// Extents granted to a lane by now, as far as the index says; 0: it does not.
    pub fn granted(&self, lane: u32) -> u64 {
        self.extents.granted(lane)
    }

    /// Something was passed over.
    pub fn forget(&mut self) {
        self.is_whole = false;
    }

    /// From here on checkpoints may stand for any position.
    pub fn pass_checkpoint(&mut self) {
        self.is_since_checkpoint = true;
        for (known, state) in self.known.iter_mut().zip(self.extents.all()) {
            known.states = vec![*state];
        }
    }

    /// Folds in what happened; gives what cannot be.
    pub fn take(&mut self, position: u64, event: &Event, layout: &Layout) -> Result<(), FieldFault> {
        let checked = match *event {
            Event::Batch { ref arrival, .. } => {
                self.check_use(position, arrival.lane, arrival.lane_slot, arrival.blog_at, layout)
            }
            Event::Topic { lane, lane_slot, blog_at, .. } | Event::CursorSet { lane, lane_slot, blog_at, .. } => {
                self.check_use(position, lane, lane_slot, blog_at, layout)
            }
            Event::Granted { extent, lane, number } => self.check_grant(position, extent, lane, number),
            Event::ExtentClosed { extent, lane, lane_slot } => {
                self.check_close(position, extent, lane.into(), lane_slot)
            }
            _ => return Ok(()),
        };
        if let Some(extent) = self.extents.apply(position, event, layout) {
            let state = *self.extents.get(extent);
            let known = &mut self.known[extent as usize];
            if let Event::Granted { lane, number, .. } = *event {
                self.met.insert(grant_number(position), (extent, lane.into(), number));
                known.is_regranted = true;
                known.is_grant_met |= known.line.is_some_and(|line| line.grant == grant_number(position));
            }
            let is_use = matches!(event, Event::Batch { .. } | Event::Topic { .. } | Event::CursorSet { .. });
            known.is_end_met |= is_use && known.line.is_some_and(|line| line.end == position + 1);
            if self.is_since_checkpoint {
                known.states.push(state);
            }
        }
        checked
    }

    /// What an entry names lies in an extent that its lane had.
    fn check_use(&mut self, position: u64, lane: u16, slot: u64, at: u64, layout: &Layout) -> Result<(), FieldFault> {
        let Some(extent) = layout.extent_of(at) else { return Ok(()) };
        let (known, state) = (&mut self.known[extent as usize], self.extents.get(extent));
        if known.line.is_none() && !known.is_regranted {
            return Ok(());
        }
        if state.lane != u32::from(lane) {
            let is_told = known.told.is_some_and(|told| told.lane == u64::from(lane) + 1);
            if is_told && !known.is_regranted {
                known.other_lane = Some(lane);
                return Ok(());
            }
            return exactly("lane", lane.into(), state.lane.into());
        }
        // Parked batches are appended after the extent was closed that they lie in.
        let is_there = state.state == holding::GRANTED || state.state == holding::CLOSED && slot < state.end_slot;
        match is_there && state.grant <= position {
            true => Ok(()),
            false => Err(FieldFault {
                field: "blog_at",
                found: at,
                expected: Expected::Told("a place in an extent that its lane has"),
            }),
        }
    }

    fn check_grant(&mut self, position: u64, extent: u32, lane: u16, number: u64) -> Result<(), FieldFault> {
        let (known, state) = (&mut self.known[extent as usize], self.extents.get(extent));
        let is_itself = !known.is_regranted && state.grant == grant_number(position);
        if is_itself {
            if state.lane != u32::from(lane) && known.told.is_some_and(|told| told.lane == u64::from(lane) + 1) {
                known.other_lane = Some(lane);
                return Ok(());
            }
            exactly("lane", lane.into(), state.lane.into())?;
            return exactly("number", number, state.number);
        }
        if state.state == holding::GRANTED && (known.line.is_some() || known.is_regranted) && state.grant <= position {
            let expected = Expected::Told("an extent that nobody has");
            return Err(FieldFault { field: "extent", found: extent.into(), expected });
        }
        Ok(())
    }

    fn check_close(&self, position: u64, extent: u32, lane: u32, slot: u64) -> Result<(), FieldFault> {
        let (known, state) = (&self.known[extent as usize], self.extents.get(extent));
        // Its line may speak of a later grant: what lay in it under this one was below the floor when it was closed.
        if !known.is_regranted && (known.line.is_none() || state.grant > position) {
            return Ok(());
        }
        exactly("lane", lane.into(), state.lane.into())?;
        match state.state {
            holding::GRANTED => Ok(()),
            // As its line says already.
            _ => exactly("lane_slot", slot, state.end_slot),
        }
    }

    /// Holds the lines against what the index says, once it was read to the watermark.
    pub fn hold_lines(&self, pass: &mut Pass<'_>, commit: &Commit, start: u64, floor: u64) {
        for extent in 0..self.known.len() as u32 {
            let place = holding_place(pass, commit, extent);
            if let Some(line) = self.known[extent as usize].line {
                let checked = self.check_line(extent, &line, start, floor, &pass.view.layout);
                pass.findings.hold::<HoldingLine>(Promise::Extents, place, checked);
            }
            let place = table_place(pass, extent);
            let checked = self.check_told(extent);
            pass.findings.hold::<ExtentLine>(Promise::Extents, place, checked);
        }
        self.hold_grants(pass);
    }

    fn check_line(
        &self,
        extent: u32,
        line: &HoldingLine,
        start: u64,
        floor: u64,
        layout: &Layout,
    ) -> Result<(), FieldFault> {
        let known = &self.known[extent as usize];
        if let Some(lane) = known.other_lane {
            exactly("lane", line.lane.into(), lane.into())?;
        }
        let founder = |lane: u32| layout.geometry.founding_extents(lane).contains(&extent);
        if line.grant == 0 && line.state != holding::STOCK && !founder(line.lane) {
            let owner = (0..layout.geometry.lanes()).find(|lane| founder(*lane));
            return match owner {
                Some(owner) => exactly("lane", line.lane.into(), owner.into()),
                None => exactly("state", line.state.into(), holding::STOCK.into()),
            };
        }
        if line.state == holding::STOCK {
            within("end", line.end, 0, floor)?;
        }
        if !self.is_whole {
            return Ok(());
        }
        if line.grant > start && !known.is_grant_met {
            return Err(FieldFault {
                field: "grant",
                found: line.grant,
                expected: told("a grant that is in the index"),
            });
        }
        if line.end > start && !known.is_end_met {
            return Err(FieldFault { field: "end", found: line.end, expected: told("where an entry names it") });
        }
        self.check_states(known, line)
    }

    /// The line is one of what the extent was since the checkpoint.
    fn check_states(&self, known: &Known, line: &HoldingLine) -> Result<(), FieldFault> {
        let is_it = |state: &HoldingLine| {
            let is_taken_back = line.state == holding::STOCK && state.state == holding::CLOSED;
            *line == HoldingLine { state: if is_taken_back { line.state } else { state.state }, ..*state }
        };
        if known.states.is_empty() || known.states.iter().any(is_it) {
            return Ok(());
        }
        // The nearest: of the same grant, and of the same end.
        let near = known.states.iter().filter(|state| state.grant == line.grant);
        let state = near.min_by_key(|state| state.end.abs_diff(line.end)).unwrap_or(&known.states[0]);
        exactly("grant", line.grant, state.grant)?;
        exactly("number", line.number, state.number)?;
        exactly("lane", line.lane.into(), state.lane.into())?;
        exactly("end", line.end, state.end)?;
        exactly("bytes", line.bytes, state.bytes)?;
        exactly("end_slot", line.end_slot, state.end_slot)?;
        exactly("state", line.state.into(), state.state.into())
    }

    /// What the lane says that has an extent, or had it last.
    fn check_told(&self, extent: u32) -> Result<(), FieldFault> {
        let (known, state) = (&self.known[extent as usize], self.extents.get(extent));
        let (Some(told), Some(_)) = (known.told, known.line) else { return Ok(()) };
        // What was passed over may have granted it to another.
        if known.other_lane.is_some() || !self.is_whole {
            return Ok(());
        }
        count("end_slot", told.end_slot)?;
        // One that was not taken yet is spoken of by whoever had it before.
        let is_taken = state.end > 0 || state.state != holding::GRANTED || told.grant == state.grant;
        match is_taken && (state.grant > 0 || told.lane > 0) {
            true => exactly("grant", told.grant, state.grant)?,
            false => within("grant", told.grant, 0, state.grant)?,
        }
        if told.grant == state.grant && told.lane > 0 {
            exactly("lane", told.lane, u64::from(state.lane) + 1)?;
        }
        let (number, is_closed) = (told.grant + 1, told.closed != 0);
        let begun = if is_closed || told.grant == state.grant && state.bytes > 0 { number } else { 0 };
        within("begun", told.begun, begun, number)?;
        if told.begun != 0 {
            exactly("begun", told.begun, number)?;
        }
        if is_closed || told.grant == state.grant && state.state != holding::GRANTED && told.lane > 0 {
            exactly("closed", told.closed, number)?;
        }
        match (is_closed, told.grant == state.grant && state.state != holding::GRANTED) {
            (true, true) => exactly("end_slot", told.end_slot, state.end_slot),
            (true, false) => Ok(()),
            (false, _) => exactly("end_slot", told.end_slot, 0),
        }
    }

    /// What lanes were told of their last grants, before the watermark was read.
    fn hold_grants(&self, pass: &mut Pass<'_>) {
        for (lane, number, place, guard, line) in &self.grants {
            let checked = self.check_told_grant(*lane, *number, *guard, line);
            pass.findings.hold::<GrantLine>(Promise::Extents, *place, checked);
        }
    }

    fn check_told_grant(&self, lane: u32, place: u64, guard: u64, line: &GrantLine) -> Result<(), FieldFault> {
        let ahead = u64::from(GRANTS_AHEAD_MAX);
        within_steps("guard", guard, place + 1, COUNT_MAX / ahead * ahead + place + 1, ahead)?;
        within("extent", line.extent, 0, self.known.len() as u64 - 1)?;
        let extent = line.extent as u32;
        let (known, state) = (&self.known[extent as usize], self.extents.get(extent));
        if known.line.is_none() || known.other_lane.is_some() || !self.is_whole {
            return Ok(());
        }
        if line.grant > self.start {
            let expected = told("a grant that is in the index");
            let fault = FieldFault { field: "grant", found: line.grant, expected };
            let (met, of, number) = self.met.get(&line.grant).copied().ok_or(fault)?;
            exactly("extent", line.extent, met.into())?;
            let other = FieldFault { expected: told("a grant of this lane"), ..fault };
            return if of == lane { exactly("guard", guard, number + 1) } else { Err(other) };
        }
        // One that was closed may have been granted to somebody else since.
        within("grant", line.grant, 0, state.grant)
    }
}

fn told(expected: &'static str) -> Expected {
    Expected::Told(expected)
}
