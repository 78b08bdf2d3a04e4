//! Checkpoints: sessions, topics and lanes as a sequencer last left them, each with the index position it stands for. Derived
//! after the commit point; what a takeover, or an ack core that starts late, begins its replay from.

use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::cursors::{self, CursorTable};
use crate::log::damage::{Expected, FieldFault, count, exactly, place, within};
use crate::log::directory;
use crate::log::entry::{absent_topic, check_order, to_sound_event};
use crate::log::extents::{self, Extents};
use crate::log::order_index::{IndexFault, IndexReader, Inherited};
use crate::log::recover::{FLOOR_LINE, RecoverError, in_record};
use crate::log::topics::{Topic, read_spec, read_topic_words};
use crate::order::table::{SESSION_LEVEL, Session, State, TopicOrder};
use crate::order::{Event, Origin, SessionTable};
use crate::pool::line::{self, Owned};
use crate::pool::record::{CursorLine, FloorLine, HoldingLine, IndexEntry, LaneProgress, SessionLine, TopicProgress};
use crate::pool::{Geometry, Keep, Memory};

/// Writes one candidate's checkpoints of sessions and extents, and lane progress.
#[derive(Debug)]
pub struct CheckpointWriter<M> {
    view: View<M>,
    candidate: u32,
    lanes: Vec<(Owned<LaneProgress, M>, LaneProgress)>,
}

impl<M: Memory> CheckpointWriter<M> {
    /// Takes a candidate's copies over.
    pub fn new(view: &View<M>, candidate: u32) -> Self {
        let line = |lane| Owned::take(view.memory.clone(), view.layout.lane_progress(candidate, lane));
        let lanes = (0..view.layout.geometry.lanes()).map(|lane| (line(lane), LaneProgress::default())).collect();
        CheckpointWriter { view: view.clone(), candidate, lanes }
    }

    /// Writes a session as it stands at `position`. Visible by the next fence.
    pub fn write_session(&self, slot: u32, session: &Session, position: u64) {
        let at = self.view.layout.session_line(self.candidate, slot);
        let line = SessionLine {
            session: session.id,
            session_epoch: session.epoch,
            state: match session.state {
                State::Free => 0,
                State::Open => 1,
                State::Fenced => 2,
            },
            next_batch: session.next_batch,
            order_end: session.order_end,
            position,
            topic: session.topic,
            order_level: session.order_level.into(),
            lane: session.opened_by.lane,
            lane_slot: session.opened_by.slot,
        };
        line::rewrite(&self.view.memory, at, &line);
    }

    /// Begins to fetch the line of a session that will be written soon.
    pub fn prefetch_session(&self, slot: u32) {
        self.view.memory.prefetch(self.view.layout.session_line(self.candidate, slot));
    }

    /// Writes what is known of an extent, if its line says something else. Visible by the next fence.
    pub fn write_holding(&self, extent: u32, known: &HoldingLine) {
        let at = self.view.layout.holding_line(self.candidate, extent);
        match line::read::<M, HoldingLine>(&self.view.memory, at) {
            // Whoever wrote it may have been killed before it wrote it back.
            Some((_, found)) if found == *known => self.view.memory.flush_line(at, Keep::Cached),
            _ => line::rewrite(&self.view.memory, at, known),
        }
    }

    /// Writes a lane's progress if it changed; visible by the next fence. True if it did.
    #[inline]
    pub fn write_lane(&mut self, lane: u32, progress: LaneProgress) -> bool {
        let (line, last) = &mut self.lanes[lane as usize];
        if *last == progress {
            return false;
        }
        *last = progress;
        line.write(&progress);
        true
    }
}

/// What a sequencer left behind, replayed up to its watermark.
#[derive(Debug)]
pub struct Recovered {
    /// Its commit point: sealed if the caller has claimed a higher epoch.
    pub commit: Commit,
    /// Sessions and topics at the watermark.
    pub table: SessionTable,
    /// By id: the topic, if there is one, and how far it has come.
    pub topics: Vec<Option<(Topic, TopicProgress)>>,
    /// Named cursors at the watermark.
    pub cursors: CursorTable,
    /// Its floors.
    pub floors: FloorLine,
    /// Per lane: consumed counts what the replay showed to be appended too.
    pub lanes: Vec<LaneProgress>,
    /// Who has which extent, at the watermark.
    pub extents: Extents,
    /// Its segments of the index.
    pub index: Inherited,
}

/// Holds what every candidate claims against what it can claim.
pub fn check_claims<M: Memory>(reader: &CommitReader<M>) -> Result<(), RecoverError> {
    reader.check().map_err(|(candidate, fault)| in_record("epoch line of sequencer candidate", candidate)(fault))
}

/// Whoever recovers shows that it lives after this many sessions' checkpoints,
const ALIVE_SESSIONS: u32 = 1024;
/// and after this many entries of the index: some ms of either on a slow pool.
const ALIVE_ENTRIES: u64 = 4096;

/// Reads the sequencer's checkpoints and replays the index from them to the watermark, which is read last. `None`: no
/// sequencer has ever been active.
///
/// # Errors
/// [`RecoverError`]: try again, or what is damaged. Nothing that is damaged is used as a place or folded in.
pub fn recover<M: Memory>(view: &View<M>, reader: &CommitReader<M>) -> Result<Option<Recovered>, RecoverError> {
    recover_alive(view, reader, &mut || ())
}

/// As [`recover`], and calls `alive` now and then: a recovery may take longer than others wait for one who is silent.
///
/// # Errors
/// As [`recover`].
pub fn recover_alive<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    alive: &mut dyn FnMut(),
) -> Result<Option<Recovered>, RecoverError> {
    check_claims(reader)?;
    let Some(first) = reader.current() else { return Ok(None) };
    let layout = &view.layout;
    // Of all these records every word stands alone, so a predecessor that was stopped or killed in the middle of a line keeps
    // nobody from going on (see `mend`).
    let floor_line = in_record(FLOOR_LINE, first.candidate);
    let floors: FloorLine = reader.peek_sound(first, |c| layout.floor_line(c)).map_err(&floor_line)?;
    let lanes = restore_lanes(view, reader, first)?;
    let granted = lanes.iter().map(|lane| lane.granted).collect();
    let extents = extents::restore(view, reader, first, granted)?;
    let mut table = SessionTable::new(layout.geometry.sessions_max, layout.geometry.topics_max);
    restore_sessions(view, reader, first, &mut table, alive)?;
    let topics = restore_topics(view, reader, first, &mut table)?;
    let named = |(number, fault)| in_record(cursors::NAMED_CURSOR, number)(fault);
    let cursors = cursors::restore(view, reader, first).map_err(named)?;
    view.memory.full_fence();
    // Last: whatever the predecessor appends after this read is void once a higher epoch is claimed.
    let commit = reader.current().ok_or(RecoverError::Unsettled)?;
    if commit.epoch != first.epoch {
        return Err(RecoverError::Unsettled);
    }
    let index = Inherited { segments: Vec::new(), tail: Vec::new() };
    let mut recovered = Recovered { commit, table, topics, cursors, floors, lanes, extents, index };
    check_floors(&recovered)?;
    let directory = "segment directory of sequencer candidate";
    directory::check(view, &commit).map_err(in_record(directory, commit.candidate))?;
    let replayed = replay(view, &mut recovered, alive);
    let inherited = Inherited::read(view, &commit);
    // A predecessor that goes on may have given up, and used again, what was being replayed.
    let now: FloorLine = reader.peek_sound(first, |c| layout.floor_line(c)).map_err(&floor_line)?;
    if now.floor > recovered.floors.checkpoint {
        return Err(RecoverError::Unsettled);
    }
    replayed?;
    recovered.index = inherited.map_err(RecoverError::Damaged)?;
    check_sessions(&recovered.table, recovered.commit.watermark)?;
    Ok(Some(recovered))
}

/// Floors were read before the watermark, and each of them before what it stays below.
fn check_floors(recovered: &Recovered) -> Result<(), RecoverError> {
    let (floors, commit) = (&recovered.floors, &recovered.commit);
    within("checkpoint", floors.checkpoint, 0, commit.watermark)
        .and_then(|()| within("floor", floors.floor, 0, floors.checkpoint))
        .and_then(|()| count("closing", floors.closing))
        .map_err(in_record(FLOOR_LINE, commit.candidate))
}

/// After the replay a session's topic exists: whoever sends to it is given an order in it. And its opening lies in the index, below
/// whatever comes next.
fn check_sessions(table: &SessionTable, watermark: u64) -> Result<(), RecoverError> {
    for (slot, session) in table.sessions().iter().enumerate().filter(|(_, session)| session.state != State::Free) {
        within("session", session.id, 1, watermark).map_err(in_record("checkpoint of session", slot as u32))?;
        if table.topic(session.topic).is_none() {
            return Err(in_record("checkpoint of session", slot as u32)(absent_topic(session.topic)));
        }
    }
    Ok(())
}

/// Holds a lane's progress against what a sequencer can count.
///
/// # Errors
/// The first field that none writes.
pub fn check_lane_progress(progress: &LaneProgress) -> Result<(), FieldFault> {
    count("consumed", progress.consumed)
        .and_then(|()| count("settled", progress.settled))
        .and_then(|()| count("reusable", progress.reusable))
        .and_then(|()| count("granted", progress.granted))
}

/// Holds a session's checkpoint against the geometry.
///
/// # Errors
/// The first field that no sequencer writes.
pub fn check_session_line(line: &SessionLine, geometry: &Geometry) -> Result<(), FieldFault> {
    within("state", line.state.into(), 0, 2)
        .and_then(|()| count("next_batch", line.next_batch))
        .and_then(|()| count("order_end", line.order_end))
        .and_then(|()| place("lane", line.lane.into(), geometry.lanes().into()))
        .and_then(|()| count("lane_slot", line.lane_slot))
        .and_then(|()| within("order_level", line.order_level.into(), 0, SESSION_LEVEL.into()))
}

fn restore_lanes<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
) -> Result<Vec<LaneProgress>, RecoverError> {
    let restore = |lane| {
        let progress: LaneProgress = reader.peek_words(commit, |c| view.layout.lane_progress(c, lane));
        check_lane_progress(&progress).map(|()| progress).map_err(in_record("progress of lane", lane))
    };
    (0..view.layout.geometry.lanes()).map(restore).collect()
}

fn restore_sessions<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
    table: &mut SessionTable,
    alive: &mut dyn FnMut(),
) -> Result<(), RecoverError> {
    for slot in 0..view.layout.geometry.sessions_max {
        if slot % ALIVE_SESSIONS == ALIVE_SESSIONS - 1 {
            alive();
        }
        let line: SessionLine = reader.peek_words(commit, |c| view.layout.session_line(c, slot));
        check_session_line(&line, &view.layout.geometry).map_err(in_record("checkpoint of session", slot))?;
        let state = match line.state {
            1 => State::Open,
            2 => State::Fenced,
            _ => continue,
        };
        let session = Session {
            id: line.session,
            epoch: line.session_epoch,
            topic: line.topic,
            order_level: line.order_level as u8,
            state,
            next_batch: line.next_batch,
            order_end: line.order_end,
            opened_by: Origin { lane: line.lane, slot: line.lane_slot },
        };
        table.restore_session(slot, session);
    }
    Ok(())
}

fn restore_topics<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
    table: &mut SessionTable,
) -> Result<Vec<Option<(Topic, TopicProgress)>>, RecoverError> {
    let access = reader.access(commit.candidate);
    let mut restore = |id| {
        let read = read_topic_words(view, commit.candidate, access, id);
        let Some(topic) = read.map_err(in_record("topic", id))? else { return Ok(None) };
        let progress: TopicProgress = reader.peek_words(commit, |c| view.layout.topic_line(c, id, 3));
        count("next_order", progress.next_order)
            .and_then(|()| count("bytes", progress.bytes))
            .and_then(|()| count("earliest_order", progress.earliest_order))
            .and_then(|()| count("earliest_bytes", progress.earliest_bytes))
            .map_err(in_record("progress of topic", id))?;
        let (order_level, next_order) = (topic.order as u8, progress.next_order);
        table.restore_topic(id, TopicOrder { exists: true, order_level, next_order });
        Ok(Some((topic, progress)))
    };
    (0..view.layout.geometry.topics_max).map(&mut restore).collect()
}

/// What a replay knows of a topic's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    /// Nothing: the checkpoint may stand for later than what is replayed.
    Not,
    /// What the replay has made of it.
    Known,
    /// It was named, though the checkpoint has no such topic: its end must follow.
    Doomed,
}

fn replay<M: Memory>(view: &View<M>, recovered: &mut Recovered, alive: &mut dyn FnMut()) -> Result<(), RecoverError> {
    let mut due = recovered.floors.checkpoint + ALIVE_ENTRIES;
    let mut index = IndexReader::new(view, recovered.floors.checkpoint);
    let mut entries = [IndexEntry::default(); 64];
    let mut met = vec![Met::Not; view.layout.geometry.topics_max as usize];
    while index.next() < recovered.commit.watermark {
        let count = index.read(&recovered.commit, &mut entries).map_err(RecoverError::Damaged)?;
        for (position, entry) in (index.next()..).zip(&entries[..count]) {
            let event = to_sound_event(position, entry, &view.layout).map_err(RecoverError::Damaged)?;
            replay_event(view, recovered, &mut met, position, &event)
                .map_err(|fault| RecoverError::Damaged(IndexFault::Damaged { position, fault }))?;
        }
        index.advance(count);
        if index.next() >= due {
            due = index.next() + ALIVE_ENTRIES;
            alive();
        }
    }
    match met.iter().position(|met| *met == Met::Doomed) {
        Some(topic) => Err(in_record("topic", topic as u32)(absent_topic(topic as u32))),
        None => Ok(()),
    }
}

/// Folds one event in. A checkpoint may stand for a later position than the replay begins at: what a topic's order must be, and
/// whether there is one of that number, is known from the first event on that names the number, as told in `met`.
fn replay_event<M: Memory>(
    view: &View<M>,
    recovered: &mut Recovered,
    met: &mut [Met],
    position: u64,
    event: &Event,
) -> Result<(), FieldFault> {
    let from_lane = match *event {
        Event::Batch { ref arrival, first_order, .. } => {
            if name_topic(recovered, met, arrival.topic)? == Met::Known {
                check_order(arrival.topic, first_order, &recovered.table)?;
            }
            if let Some((_, progress)) = &mut recovered.topics[arrival.topic as usize]
                && position >= progress.position
            {
                // What the progress stands for is counted in it.
                progress.bytes += u64::from(arrival.batch_bytes);
            }
            if met[arrival.topic as usize] == Met::Not {
                met[arrival.topic as usize] = Met::Known;
            }
            Some((arrival.lane, arrival.lane_slot))
        }
        Event::Open { topic, origin, .. } => {
            name_topic(recovered, met, topic)?;
            Some((origin.lane, origin.slot))
        }
        Event::Refused { origin, .. } => Some((origin.lane, origin.slot)),
        Event::Topic { topic, order_level, lane, lane_slot, blog_at } => {
            if met[topic as usize] == Met::Doomed {
                return Err(absent_topic(topic));
            }
            if met[topic as usize] == Met::Known && recovered.table.topic(topic).is_some() {
                let expected = Expected::Told("a number that no topic has");
                return Err(FieldFault { field: "topic", found: topic.into(), expected });
            }
            // Its lines in the table may have been cut short: what it was created from is good, and still there.
            let spec = read_spec(view, view.access_to_lane(lane.into()), blog_at).map_err(|_| FieldFault {
                field: "blog_at",
                found: blog_at,
                expected: Expected::Told("where a topic's specification lies"),
            })?;
            exactly("flags", order_level.into(), spec.order as u64)?;
            check_name(recovered, topic, position, &spec.name)?;
            let progress = TopicProgress { position, ..TopicProgress::default() };
            recovered.topics[topic as usize] =
                Some((Topic { id: topic, created_position: position, ..spec }, progress));
            met[topic as usize] = Met::Known;
            Some((lane, lane_slot))
        }
        Event::TopicDeleted { topic, lane, lane_slot } => {
            if met[topic as usize] == Met::Known && recovered.table.topic(topic).is_none() {
                return Err(absent_topic(topic));
            }
            recovered.topics[topic as usize] = None;
            recovered.cursors.forget_topic(topic);
            met[topic as usize] = Met::Known;
            Some((lane, lane_slot))
        }
        Event::CursorSet { place, topic, order, lane, lane_slot, blog_at } => {
            name_topic(recovered, met, topic)?;
            let request = cursors::read_request(view, view.access_to_lane(lane.into()), blog_at)?;
            recovered.cursors.put(place, CursorLine { topic: topic as u16, order, ..request });
            Some((lane, lane_slot))
        }
        Event::CursorDelete { place, lane, lane_slot } => {
            recovered.cursors.put(place, CursorLine::default());
            Some((lane, lane_slot))
        }
        Event::ExtentClosed { lane, lane_slot, .. } => Some((lane, lane_slot)),
        _ => None,
    };
    recovered.table.apply(event);
    recovered.extents.apply(position, event, &view.layout);
    if let Some((lane, lane_slot)) = from_lane {
        let consumed = &mut recovered.lanes[usize::from(lane)].consumed;
        *consumed = (lane_slot + 1).max(*consumed);
    }
    Ok(())
}

/// An event names a topic. A number that the checkpoint has no topic of was one's that is deleted by then.
fn name_topic(recovered: &Recovered, met: &mut [Met], topic: u32) -> Result<Met, FieldFault> {
    let before = met[topic as usize];
    match (recovered.table.topic(topic), before) {
        (None, Met::Known) => Err(absent_topic(topic)),
        (None, _) => {
            met[topic as usize] = Met::Doomed;
            Ok(Met::Doomed)
        }
        (Some(_), _) => Ok(before),
    }
}

/// No other topic that was there before this position has the name, and none began here.
fn check_name(recovered: &Recovered, topic: u32, position: u64, name: &str) -> Result<(), FieldFault> {
    let is_taken = |(known, _): &(Topic, TopicProgress)| {
        // What the checkpoint knows of later may have the name again.
        let is_same = known.name == name && known.created_position < position || known.created_position == position;
        known.id != topic && is_same
    };
    if recovered.topics.iter().flatten().any(is_taken) {
        let expected = Expected::Told("the number of a topic of this name");
        return Err(FieldFault { field: "topic", found: topic.into(), expected });
    }
    Ok(())
}
