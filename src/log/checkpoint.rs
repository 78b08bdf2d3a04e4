//! Checkpoints: sessions, topics and lanes as a sequencer last left them, each with the index position it stands for. Derived
//! after the commit point; what a takeover, or an ack core that starts late, begins its replay from.

use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::entry::to_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::topics::{Topic, read_spec, read_topic};
use crate::order::{Event, SessionTable};
use crate::order::table::{Session, State, TopicOrder};
use crate::pool::Memory;
use crate::pool::line::Owned;
use crate::pool::record::{FloorLine, IndexEntry, LaneProgress, SessionLine, TopicProgress};
use crate::wire::WireError;

/// Writes one candidate's session checkpoints and lane progress.
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
        let mut line = Owned::take(self.view.memory.clone(), at);
        line.write(&SessionLine {
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
            reserved: 0,
        });
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
pub struct Recovered {
    /// Its commit point: sealed if the caller has claimed a higher epoch.
    pub commit: Commit,
    /// Sessions and topics at the watermark.
    pub table: SessionTable,
    /// Topics by id, where there is one, and how far each has come.
    pub topics: Vec<Option<(Topic, TopicProgress)>>,
    /// Its floors.
    pub floors: FloorLine,
    /// Per lane: consumed counts what the replay showed to be appended too.
    pub lanes: Vec<LaneProgress>,
}

/// Why a recovery has to be tried again, or cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A line was being rewritten, or the sequencer changed under the reader. Try again.
    #[error("the sequencer's lines changed while they were read")]
    Unsettled,
    /// The index below the watermark is damaged.
    #[error("the order index is damaged below its watermark: {0:?}; the pool must be restored or re-formatted")]
    Damaged(IndexFault),
}

/// Reads the sequencer's checkpoints and replays the index from them to the watermark, which is read last. `None`: no
/// sequencer has ever been active.
pub fn recover<M: Memory>(view: &View<M>, reader: &CommitReader<M>) -> Result<Option<Recovered>, RecoverError> {
    let Some(first) = reader.current() else { return Ok(None) };
    let layout = &view.layout;
    // Of all these records every word stands alone, so a predecessor that was stopped or killed in the middle of a line keeps
    // nobody from going on (see `mend`).
    let floors: FloorLine = reader.peek_words(first, |c| layout.floor_line(c));
    let lanes = (0..layout.geometry.lanes())
        .map(|lane| reader.peek_words::<LaneProgress>(first, |c| layout.lane_progress(c, lane)))
        .collect();
    let mut table = SessionTable::new(layout.geometry.sessions_max, layout.geometry.topics_max);
    restore_sessions(view, reader, first, &mut table);
    let topics = restore_topics(view, reader, first, &mut table);
    view.memory.full_fence();
    // Last: whatever the predecessor appends after this read is void once a higher epoch is claimed.
    let commit = reader.current().ok_or(RecoverError::Unsettled)?;
    if commit.epoch != first.epoch {
        return Err(RecoverError::Unsettled);
    }
    let mut recovered = Recovered { commit, table, topics, floors, lanes };
    let replayed = replay(view, &mut recovered);
    // A predecessor that goes on may have given up, and used again, what was being replayed.
    let now: FloorLine = reader.peek_words(first, |c| layout.floor_line(c));
    if now.floor > recovered.floors.checkpoint {
        return Err(RecoverError::Unsettled);
    }
    replayed.map(|()| Some(recovered))
}

fn restore_sessions<M: Memory>(view: &View<M>, reader: &CommitReader<M>, commit: Commit, table: &mut SessionTable) {
    for slot in 0..view.layout.geometry.sessions_max {
        let line: SessionLine = reader.peek_words(commit, |c| view.layout.session_line(c, slot));
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
        };
        table.restore_session(slot, session);
    }
}

fn restore_topics<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
    table: &mut SessionTable,
) -> Vec<Option<(Topic, TopicProgress)>> {
    let access = reader.access(commit.candidate);
    let restore = |id| {
        let topic = read_topic(view, commit.candidate, access, id)?;
        let progress: TopicProgress = reader.peek_words(commit, |c| view.layout.topic_line(c, id, 3));
        let (order_level, next_order) = (topic.order as u8, progress.next_order);
        table.restore_topic(id, TopicOrder { exists: true, order_level, next_order });
        Some((topic, progress))
    };
    (0..view.layout.geometry.topics_max).map(restore).collect()
}

fn replay<M: Memory>(view: &View<M>, recovered: &mut Recovered) -> Result<(), RecoverError> {
    let mut index = IndexReader::new(view, recovered.floors.checkpoint);
    let mut entries = [IndexEntry::default(); 64];
    while index.next() < recovered.commit.watermark {
        let count = index.read(&recovered.commit, &mut entries).map_err(RecoverError::Damaged)?;
        for (offset, entry) in entries[..count].iter().enumerate() {
            let position = index.next() + offset as u64;
            let damaged = RecoverError::Damaged(IndexFault::Inconsistent { position });
            let event = to_event(entry).ok_or(damaged)?;
            recovered.table.apply(&event);
            replay_topic(view, recovered, position, &event).map_err(|_| damaged)?;
            let is_from_lane =
                matches!(event, Event::Batch { .. } | Event::Topic { .. } | Event::TopicDeleted { .. });
            if is_from_lane && let Some(lane) = recovered.lanes.get_mut(usize::from(entry.lane)) {
                lane.consumed = lane.consumed.max(entry.lane_slot + 1);
            }
        }
        index.advance(count);
    }
    Ok(())
}

fn replay_topic<M: Memory>(
    view: &View<M>,
    recovered: &mut Recovered,
    position: u64,
    event: &Event,
) -> Result<(), WireError> {
    match *event {
        Event::Topic { topic, blog_at, lane, .. } => {
            // Its lines in the table may have been cut short: what it was created from is good, and still there.
            let spec = read_spec(view, view.access_to_lane(lane.into()), blog_at)?;
            let created = Topic { id: topic, created_position: position, ..spec };
            recovered.topics[topic as usize] = Some((created, TopicProgress { position, ..TopicProgress::default() }));
        }
        Event::TopicDeleted { topic, .. } => recovered.topics[topic as usize] = None,
        Event::Batch { arrival, first_order, .. } => {
            // What the progress stands for is counted in it.
            if let Some((_, progress)) = &mut recovered.topics[arrival.topic as usize]
                && position >= progress.position
            {
                progress.bytes += u64::from(arrival.batch_bytes);
                progress.next_order = first_order + u64::from(arrival.message_count);
            }
        }
        _ => {}
    }
    Ok(())
}
