//! The walk along the order index, entry by entry, from the floor to the watermark; and beside it over all that entries name.

use embarcadero::log::commit::Commit;
use embarcadero::log::damage::{exactly, within};
use embarcadero::log::directory::Segment;
use embarcadero::log::entry::to_sound_event;
use embarcadero::log::order_index::IndexFault;
use embarcadero::order::Event;
use embarcadero::pool::record::{CursorLine, IndexEntry, Record, SessionLine};
use embarcadero::pool::{Access, Memory};

use super::blog::{self, Batches, in_header};
use super::epochs::{Directory, floor_now};
use super::extents;
use super::findings::{Broken, Place, Promise};
use super::fold::{Blame, Fold};
use super::lanes::Named;
use super::looking::Pass;
use super::tables::{CursorPlace, TopicPlace, progress_place};

/// Entries that are looked at before it is asked whether they were kept meanwhile.
const STEP: u64 = 256;
/// How often entries may be given up in front of the walk before it ends.
const PASSED_MAX: u32 = 8;

/// Checkpoints that were read before the walk, and what the walk makes of them.
pub struct Tables {
    /// By place: each session's line, if it is whole and sound.
    pub sessions: Vec<Option<SessionLine>>,
    /// By id.
    pub topics: Vec<TopicPlace>,
    /// By place.
    pub cursors: Vec<CursorPlace>,
    /// By lane.
    pub named: Vec<Named>,
    /// Who has which memory.
    pub extents: extents::Fold,
}

/// The walk.
pub struct Walk<'a, 'b> {
    pass: &'b mut Pass<'a>,
    commit: Commit,
    checkpoint: u64,
    tables: &'b mut Tables,
    fold: Fold,
    batches: Batches<'a>,
    /// By place: ids of sessions, as headers in the blog say: with the session epoch.
    ids: Vec<Option<u64>>,
    /// Places of checkpoints by the positions they stand for, from the highest down.
    due: Vec<(u64, Due)>,
    /// What was found in this step, to be confirmed.
    found: Vec<(Promise, Broken)>,
    looked: [u64; 3],
    is_past_checkpoint: bool,
    /// Whether nothing was passed over.
    is_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Session(u32),
    Topic(u32),
}

impl<'a, 'b> Walk<'a, 'b> {
    /// One that begins at the floor. Checkpoints stand for `checkpoint` at least.
    pub fn new(pass: &'b mut Pass<'a>, commit: Commit, checkpoint: u64, tables: &'b mut Tables) -> Walk<'a, 'b> {
        let g = pass.view.layout.geometry;
        let sessions = (0..)
            .zip(&tables.sessions)
            .filter_map(|(slot, line)| line.as_ref().map(|line| (line.position, Due::Session(slot))));
        let topics = (0..).zip(&tables.topics).filter_map(|(topic, place)| {
            place.progress.filter(|_| place.topic.is_some()).map(|line| (line.position, Due::Topic(topic)))
        });
        let mut due: Vec<(u64, Due)> = sessions.chain(topics).collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        let batches = Batches::new(pass.view);
        Walk {
            pass,
            commit,
            checkpoint,
            tables,
            fold: Fold::new(&g),
            batches,
            ids: vec![None; g.sessions_max as usize],
            due,
            found: Vec::new(),
            looked: [0; 3],
            is_past_checkpoint: false,
            is_whole: true,
        }
    }

    /// Goes from `floor` to where the segments end. Gives whether nothing was passed over.
    pub fn go(mut self, directory: &Directory, floor: u64) -> bool {
        if floor == 0 {
            self.fold.begin_at_the_beginning();
        }
        let (mut position, mut passed) = (floor, 0);
        while position < directory.limit {
            let Some(segment) = directory.segments.iter().find(|segment| segment.holds(position)) else {
                self.pass_over();
                let next = directory.segments.iter().map(|segment| segment.first).filter(|first| *first > position);
                position = next.min().unwrap_or(directory.limit);
                self.due.retain(|(stands_for, _)| *stands_for >= position);
                continue;
            };
            let end = segment.end.min(directory.limit).min(position + STEP);
            if !self.step(segment, position, end, directory.is_end_unknown) {
                let note =
                    "the last of them is the last that was written: the watermark does not say which are committed";
                self.pass.findings.note(Promise::Entries, note.into());
                break;
            }
            position = match self.floor_passed(position) {
                None => end,
                Some(floor) => {
                    passed += 1;
                    let next = floor + directory.limit.saturating_sub(floor) / 8;
                    let next = if passed < PASSED_MAX { next } else { directory.limit };
                    let note =
                        format!("positions {position} to {next} were passed over: given up while they were read");
                    self.pass.findings.note(Promise::Entries, note);
                    self.found.clear();
                    self.pass_over();
                    self.due.retain(|(stands_for, _)| *stands_for >= next);
                    next
                }
            };
            self.found.drain(..).for_each(|(promise, broken)| self.pass.findings.broken(promise, broken));
        }
        self.end(directory.limit)
    }

    /// What was found counts only of what was kept all the while. Gives the floor if that was passed by it.
    fn floor_passed(&self, position: u64) -> Option<u64> {
        if self.found.is_empty() {
            return None;
        }
        floor_now(self.pass, &self.commit).filter(|floor| *floor > position)
    }

    /// Nothing is known any more.
    fn pass_over(&mut self) {
        self.fold.forget();
        self.tables.extents.forget();
        self.ids.fill(None);
        self.is_whole = false;
    }

    fn end(mut self, limit: u64) -> bool {
        self.meet_until(limit);
        if !self.is_past_checkpoint && self.checkpoint <= limit {
            self.pass_checkpoint();
        }
        self.found.drain(..).for_each(|(promise, broken)| self.pass.findings.broken(promise, broken));
        let [entries, batches, bytes] = self.looked;
        self.pass.findings.looked(Promise::Entries, entries);
        self.pass.findings.looked(Promise::Order, entries);
        self.pass.findings.looked(Promise::Headers, batches);
        self.pass.findings.looked(Promise::Bodies, bytes);
        for (lane, named) in (0..).zip(&mut self.tables.named) {
            named.granted.1 = Some(self.tables.extents.granted(lane)).filter(|granted| *granted > 0 && self.is_whole);
        }
        self.is_whole
    }

    /// Looks at some entries of a segment. False if it `stops_at_a_gap`, and came to one.
    fn step(&mut self, segment: &Segment, from: u64, to: u64, stops_at_a_gap: bool) -> bool {
        let (layout, memory) = (&self.pass.view.layout, &self.pass.view.memory);
        let start = layout.index_entry(segment.owner, segment.number, from - segment.first);
        if self.pass.view.access_to_candidate(segment.owner) == Access::Remote {
            memory.discard(start, (to - from) * 64);
        }
        for position in from..to {
            let place = Place { region: "order index", number: position, at: start + (position - from) * 64 };
            let word = |word: u64| self.pass.view.memory.load(place.at + 8 * word);
            let (guard, entry) = (word(0), IndexEntry::from_words(std::array::from_fn(|index| word(index as u64 + 1))));
            if stops_at_a_gap && guard != position + 1 {
                return false;
            }
            self.meet_until(position);
            if position >= self.checkpoint && !self.is_past_checkpoint {
                self.pass_checkpoint();
            }
            self.entry(position, place, guard, &entry, segment.filled_by);
        }
        true
    }

    fn tell(&mut self, promise: Promise, broken: Broken) {
        self.found.push((promise, broken));
    }

    fn entry(&mut self, position: u64, place: Place, guard: u64, entry: &IndexEntry, filled_by: u64) {
        self.looked[0] += 1;
        let checked = exactly("guard", guard, position + 1)
            .and_then(|()| within("epoch", entry.epoch.into(), 1, filled_by.min(u32::MAX.into())));
        let is_whole = checked.is_ok();
        if let Err(fault) = checked {
            self.tell(Promise::Entries, place.fault::<IndexEntry>(&fault));
        }
        let event = match to_sound_event(position, entry, &self.pass.view.layout) {
            Ok(event) => event,
            Err(IndexFault::Damaged { fault, .. }) if is_whole => {
                self.tell(Promise::Entries, place.fault::<IndexEntry>(&fault));
                return self.pass_over();
            }
            // What lies here is no entry: that was told.
            Err(_) => return self.pass_over(),
        };
        let (event, misfits) = self.fold.take(position, &event);
        for (blame, fault) in &misfits {
            let (promise, broken) = self.to_blame(place, *blame, fault);
            self.tell(promise, broken);
        }
        if let Err(fault) = self.tables.extents.take(position, &event, &self.pass.view.layout) {
            self.tell(Promise::Extents, place.fault::<IndexEntry>(&fault));
        }
        self.note_lane(position, &event);
        self.look_behind(position, &event);
    }

    fn to_blame(&self, place: Place, blame: Blame, fault: &embarcadero::log::damage::FieldFault) -> (Promise, Broken) {
        // A checkpoint said what the entry does not go on from: so what it said is what was found, and the entry's is what was due.
        let turned = |place: Place, behind: u64, field: &'static str| {
            place.broken(behind, field, fault.expected, format!("{}, from where the index goes on", fault.found))
        };
        match (blame, fault.field) {
            (Blame::Session(slot), "batch_seq") => {
                (Promise::Sessions, turned(self.session_place(slot), 24, "next_batch"))
            }
            (Blame::Session(slot), _) => (Promise::Sessions, turned(self.session_place(slot), 8, "session")),
            (Blame::Topic(topic), _) => {
                (Promise::Topics, turned(progress_place(self.pass, &self.commit, topic), 8, "next_order"))
            }
            (Blame::Entry, _) => (Promise::Order, place.fault::<IndexEntry>(fault)),
        }
    }

    fn session_place(&self, slot: u32) -> Place {
        let at = self.pass.view.layout.session_line(self.commit.candidate, slot);
        Place { region: "checkpoint of session", number: slot.into(), at }
    }

    /// Which slots are named.
    fn note_lane(&mut self, position: u64, event: &Event) {
        let (lane, slot) = match *event {
            Event::Batch { ref arrival, .. } => (arrival.lane, arrival.lane_slot),
            Event::Open { origin, .. } | Event::Refused { origin, .. } => (origin.lane, origin.slot),
            Event::Topic { lane, lane_slot, .. }
            | Event::TopicDeleted { lane, lane_slot, .. }
            | Event::CursorSet { lane, lane_slot, .. }
            | Event::CursorDelete { lane, lane_slot, .. }
            | Event::ExtentClosed { lane, lane_slot, .. } => (lane, lane_slot),
            _ => return,
        };
        let Some(named) = self.tables.named.get_mut(usize::from(lane)) else { return };
        named.ever = named.ever.max(slot + 1);
        if position < self.checkpoint {
            named.below_checkpoint = named.ever;
        }
    }

    /// What an entry names in the blog, and in the tables.
    fn look_behind(&mut self, position: u64, event: &Event) {
        let view = self.pass.view;
        match *event {
            Event::Batch { slot, ref arrival, .. } => self.look_at_batch(position, slot, arrival),
            Event::Open { slot, session, .. } => self.ids[slot as usize] = Some(session),
            Event::Close { slot } => self.ids[slot as usize] = None,
            Event::Topic { topic, order_level, lane, blog_at, .. } => {
                match blog::topic_spec(view, lane, blog_at, order_level, position) {
                    Ok(spec) => {
                        let spec = embarcadero::log::topics::Topic { id: topic, created_position: position, ..spec };
                        self.tables.topics[topic as usize].spec = Some(spec);
                    }
                    Err(broken) => self.tell(Promise::Topics, broken),
                }
                self.note_topic(topic);
            }
            Event::TopicDeleted { topic, .. } => {
                self.note_topic(topic);
                for number in 0..self.tables.cursors.len() {
                    let now = self.tables.cursors[number].now;
                    if now.is_none_or(|now| u32::from(now.topic) == topic) {
                        // Of one that is not known it is not known either whether it goes.
                        self.note_cursor(number as u32, now.map(|_| CursorLine::default()));
                    }
                }
            }
            Event::CursorSet { place, topic, order, lane, blog_at, .. } => {
                match blog::cursor_request(view, lane, blog_at, (topic, order), position) {
                    Ok(cursor) => self.note_cursor(place, Some(cursor)),
                    Err(broken) => {
                        self.tell(Promise::Cursors, broken);
                        self.note_cursor(place, None);
                    }
                }
            }
            Event::CursorDelete { place, .. } => self.note_cursor(place, Some(CursorLine::default())),
            _ => {}
        }
    }

    fn look_at_batch(&mut self, position: u64, slot: u32, arrival: &embarcadero::order::Arrival) {
        self.looked[1] += 1;
        self.looked[2] += u64::from(arrival.batch_bytes);
        let (session, broken) = self.batches.check(position, arrival);
        if let Some((promise, broken)) = broken {
            return self.tell(promise, broken);
        }
        let Some(session) = session else { return };
        let known = *self.ids[slot as usize].get_or_insert(session);
        if let Err(fault) = exactly("session", session, known) {
            let place = Place { region: "batch of position", number: position, at: arrival.blog_at };
            self.tell(Promise::Headers, in_header(place, &fault));
        }
    }

    fn note_topic(&mut self, topic: u32) {
        let who = self.fold.who(topic);
        if self.is_past_checkpoint {
            self.tables.topics[topic as usize].since.push(who);
        }
    }

    fn note_cursor(&mut self, place: u32, now: Option<CursorLine>) {
        let cursor = &mut self.tables.cursors[place as usize];
        cursor.now = now;
        if self.is_past_checkpoint {
            cursor.since.push(now);
        }
    }

    /// Holds checkpoints that stand for `position` or less, and were not yet held, against the fold.
    fn meet_until(&mut self, position: u64) {
        while let Some((_, due)) = self.due.pop_if(|(stands_for, _)| *stands_for <= position) {
            self.meet(due);
        }
    }

    fn meet(&mut self, due: Due) {
        match due {
            Due::Session(slot) => {
                let Some(line) = self.tables.sessions[slot as usize] else { return };
                if let Err(fault) = self.fold.meet_session(slot, &line) {
                    self.tables.sessions[slot as usize] = None;
                    let broken = self.session_place(slot).fault::<SessionLine>(&fault);
                    self.tell(Promise::Sessions, broken);
                }
                if line.state > 0 {
                    self.ids[slot as usize].get_or_insert(line.session);
                }
            }
            Due::Topic(id) => {
                let place = &self.tables.topics[id as usize];
                let (Some(topic), Some(line)) = (&place.topic, place.progress) else { return };
                if let Err(fault) = self.fold.meet_topic(id, topic.created_position, topic.order as u8, &line) {
                    self.tables.topics[id as usize].progress = None;
                    let place = progress_place(self.pass, &self.commit, id);
                    let broken = place.fault::<embarcadero::pool::record::TopicProgress>(&fault);
                    self.tell(Promise::Topics, broken);
                }
            }
        }
    }

    /// Every checkpoint stands for this position at least: those that stand for less have not changed since.
    fn pass_checkpoint(&mut self) {
        self.is_past_checkpoint = true;
        // What was passed over may have changed them.
        let is_whole = self.is_whole;
        let sessions = (0..)
            .zip(&self.tables.sessions)
            .filter(|(_, line)| line.is_some_and(|line| is_whole && line.position < self.checkpoint));
        let topics = (0..).zip(&self.tables.topics).filter(|(_, place)| {
            is_whole && place.topic.is_some() && place.progress.is_some_and(|line| line.position < self.checkpoint)
        });
        let due = sessions.map(|(slot, _)| Due::Session(slot)).chain(topics.map(|(topic, _)| Due::Topic(topic)));
        due.collect::<Vec<_>>().into_iter().for_each(|due| self.meet(due));
        self.tables.extents.pass_checkpoint();
        for (topic, place) in (0..).zip(&mut self.tables.topics) {
            place.since = vec![self.fold.who(topic)];
        }
        for cursor in &mut self.tables.cursors {
            cursor.since = vec![cursor.now];
        }
        for (lane, named) in (0..).zip(&mut self.tables.named) {
            named.granted.0 = self.tables.extents.granted(lane);
        }
    }
}
