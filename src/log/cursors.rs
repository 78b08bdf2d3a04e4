//! Named cursors: how far a consumer has come in a topic, kept with the log so that any broker can be asked.
//!
//! A cursor is set and removed through a lane, like a session or a topic: the request lies in the blog, the event in the order index.
//! The sequencer keeps the table, one line a cursor, and writes what changed after each commit. So of two that set one cursor the
//! later in the order wins, at every host alike.

use std::collections::VecDeque;

use crate::limits::{CURSOR_NAME_BYTES_MAX, LINE_BYTES};
use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::damage::{Expected, FieldFault, count, place, sound, within};
use crate::log::recover::{RecoverError, in_record};
use crate::order::Event;
use crate::pool::line::{self, INVALID, Owned};
use crate::pool::record::{Checked, CursorLine, Record, slot_kind};
use crate::pool::{Access, Keep, Memory};

/// Bytes a request takes in the blog.
pub const CURSOR_SPEC_BYTES: u64 = LINE_BYTES;
/// Lines read after one fence.
const LINES_AT_ONCE: u32 = 64;
/// The name of a cursor's line in a [`RecoverError`].
pub(crate) const NAMED_CURSOR: &str = "named cursor";

impl CursorLine {
    /// # Panics
    /// If the name is empty or too long: names are checked where they come in.
    pub fn new(topic: u32, name: &str, order: u64) -> CursorLine {
        assert!((1..=CURSOR_NAME_BYTES_MAX).contains(&name.len()));
        let mut text = [0; CURSOR_NAME_BYTES_MAX];
        text[..name.len()].copy_from_slice(name.as_bytes());
        let name_bytes = name.len() as u8;
        CursorLine { topic: topic as u16, name_bytes, order, text, ..CursorLine::default() }
    }

    /// Its name; empty: the place is free.
    pub fn name(&self) -> &str {
        let bytes = (self.name_bytes as usize).min(CURSOR_NAME_BYTES_MAX);
        std::str::from_utf8(&self.text[..bytes]).unwrap_or("")
    }

    fn is(&self, topic: u32, name: &str) -> bool {
        self.name_bytes > 0 && u32::from(self.topic) == topic && self.name() == name
    }

    /// Holds it against the geometry.
    ///
    /// # Errors
    /// The first field that nobody writes.
    pub fn examine(&self, topics_max: u32) -> Result<(), FieldFault> {
        within("name_bytes", self.name_bytes.into(), 0, CURSOR_NAME_BYTES_MAX as u64)?;
        if self.name_bytes == 0 {
            return Ok(());
        }
        place("topic", self.topic.into(), topics_max.into())?;
        count("order", self.order)?;
        let expected = Expected::Told("a name of 1 to 40 bytes of UTF-8");
        let fault = FieldFault { field: "cursor name", found: self.name_bytes.into(), expected };
        if self.name().is_empty() { Err(fault) } else { Ok(()) }
    }
}

/// The cursors as a fold of the index.
#[derive(Clone, Debug)]
pub struct CursorTable {
    places: Vec<CursorLine>,
}

impl CursorTable {
    /// Empty, with `cursors_max` places.
    pub fn new(cursors_max: u32) -> CursorTable {
        CursorTable { places: vec![CursorLine::default(); cursors_max as usize] }
    }

    /// Place of a cursor.
    pub fn find(&self, topic: u32, name: &str) -> Option<u32> {
        self.places.iter().position(|cursor| cursor.is(topic, name)).map(|place| place as u32)
    }

    /// What lies at a place.
    pub fn at(&self, place: u32) -> &CursorLine {
        &self.places[place as usize]
    }

    fn free(&self) -> Option<u32> {
        self.places.iter().position(|cursor| cursor.name_bytes == 0).map(|place| place as u32)
    }

    /// Puts a cursor where its event says it is.
    pub fn put(&mut self, place: u32, cursor: CursorLine) {
        self.places[place as usize] = cursor;
    }

    /// Removes the cursors of a topic that is gone.
    pub fn forget_topic(&mut self, topic: u32) {
        let of_topic = |cursor: &&mut CursorLine| cursor.name_bytes > 0 && u32::from(cursor.topic) == topic;
        self.places.iter_mut().filter(of_topic).for_each(|cursor| *cursor = CursorLine::default());
    }
}

/// The sequencer's side: the table, and a candidate's copy of it.
#[derive(Debug)]
pub struct CursorWriter<M> {
    view: View<M>,
    candidate: u32,
    table: CursorTable,
    /// Places that changed since they were last written.
    dirty: VecDeque<u32>,
}

impl<M: Memory> CursorWriter<M> {
    /// Takes a candidate's copy over, and writes it to say what `table` does. Visible by the next fence.
    pub fn take_over(view: &View<M>, candidate: u32, table: CursorTable) -> Self {
        let places = view.layout.geometry.cursors_max;
        let writer =
            CursorWriter { view: view.clone(), candidate, table, dirty: VecDeque::with_capacity(places as usize) };
        for place in 0..places {
            if !writer.is_free_line(place) || writer.table.at(place).name_bytes > 0 {
                writer.write(place);
            }
        }
        writer
    }

    /// Whether everybody reads that nothing lies at a place: no cursor was ever written there, or the last was taken away.
    fn is_free_line(&self, place: u32) -> bool {
        let (memory, at) = (&self.view.memory, self.line_at(place));
        match line::read::<M, CursorLine>(memory, at) {
            Some((_, found)) => sound(found) == Ok(CursorLine::default()),
            None => is_never_written(memory, at),
        }
    }

    fn line_at(&self, place: u32) -> u64 {
        self.view.layout.cursor_line(self.candidate, place)
    }

    /// The fold so far.
    pub fn table(&self) -> &CursorTable {
        &self.table
    }

    /// What a request becomes. `None`: it changes nothing, or there is no place for it.
    pub fn decide(&self, kind: u8, wanted: &CursorLine, lane: u16, lane_slot: u64, blog_at: u64) -> Option<Event> {
        let known = self.table.find(wanted.topic.into(), wanted.name());
        match kind {
            slot_kind::CURSOR_SET => known.or_else(|| self.table.free()).map(|place| Event::CursorSet {
                place,
                topic: wanted.topic.into(),
                order: wanted.order,
                lane,
                lane_slot,
                blog_at,
            }),
            _ => known.map(|place| Event::CursorDelete { place, lane, lane_slot }),
        }
    }

    /// Folds in what was decided.
    pub fn put(&mut self, place: u32, cursor: CursorLine) {
        self.table.put(place, cursor);
        if !self.dirty.contains(&place) {
            self.dirty.push_back(place);
        }
    }

    /// Removes the cursors of a topic that is gone: the topic's own event stands for them.
    pub fn forget_topic(&mut self, topic: u32) {
        for place in 0..self.view.layout.geometry.cursors_max {
            let cursor = self.table.at(place);
            if cursor.name_bytes > 0 && u32::from(cursor.topic) == topic {
                self.put(place, CursorLine::default());
            }
        }
    }

    /// Writes what changed. Visible by the next fence. True if anything did.
    pub fn write_changed(&mut self) -> bool {
        let any = !self.dirty.is_empty();
        while let Some(place) = self.dirty.pop_front() {
            self.write(place);
        }
        any
    }

    /// A place that gets another name passes through free: whoever is killed in between leaves no cursor with the words of two.
    fn write(&self, place: u32) {
        let (memory, at, cursor) = (&self.view.memory, self.line_at(place), self.table.at(place));
        let mut owned: Owned<CursorLine, M> = Owned::take(memory.clone(), at);
        let held = owned.last().unsealed();
        if (held.topic, held.name_bytes, held.text) != (cursor.topic, cursor.name_bytes, cursor.text) {
            owned.publish(&CursorLine { name_bytes: 0, topic: 0, ..held });
            owned.publish(&CursorLine { name_bytes: 0, topic: 0, ..*cursor });
        }
        owned.write(cursor);
    }
}

/// Reads a candidate's table for a successor, words whatever their guards say.
///
/// # Errors
/// The first place that holds what no writer puts there.
pub fn restore<M: Memory>(
    view: &View<M>,
    reader: &CommitReader<M>,
    commit: Commit,
) -> Result<CursorTable, (u32, FieldFault)> {
    let g = &view.layout.geometry;
    let mut table = CursorTable::new(g.cursors_max);
    for place in 0..g.cursors_max {
        let read = reader.peek_sound(commit, |candidate| view.layout.cursor_line(candidate, place));
        let cursor: CursorLine = read.map_err(|fault| (place, fault))?;
        cursor.examine(g.topics_max).map_err(|fault| (place, fault))?;
        let is_free = cursor.name_bytes == 0;
        table.put(place, if is_free { CursorLine::default() } else { cursor });
    }
    Ok(table)
}

/// Never written, or cut short before the first of its words.
fn is_never_written<M: Memory>(memory: &M, at: u64) -> bool {
    memory.load(at) == INVALID && (1..8).all(|word| memory.load(at + 8 * word) == 0)
}

/// Everybody else's side.
#[derive(Debug)]
pub struct CursorReader<M> {
    view: View<M>,
    commit: CommitReader<M>,
}

impl<M: Memory> CursorReader<M> {
    /// Over the sequencer's table.
    pub fn new(view: &View<M>) -> Self {
        CursorReader { view: view.clone(), commit: CommitReader::new(view) }
    }

    /// Shows every cursor with its place, and gives whether a place is free. `None`: the table cannot be read now; what was
    /// shown counts for nothing, try again.
    ///
    /// # Errors
    /// The first that is damaged.
    pub fn visit(&self, mut show: impl FnMut(u32, &CursorLine)) -> Result<Option<bool>, RecoverError> {
        let Some(commit) = self.commit.current() else { return Ok(None) };
        match self.visit_under(&commit, &mut show) {
            // Damage under an epoch that was succeeded is nobody's.
            _ if !self.commit.confirm(commit.epoch) => Ok(None),
            Ok(has_room) => Ok(has_room),
            Err((place, fault)) => Err(in_record(NAMED_CURSOR, place)(fault)),
        }
    }

    fn visit_under(
        &self,
        commit: &Commit,
        show: &mut impl FnMut(u32, &CursorLine),
    ) -> Result<Option<bool>, (u32, FieldFault)> {
        let access = self.commit.access(commit.candidate);
        let (layout, memory) = (&self.view.layout, &self.view.memory);
        let places = layout.geometry.cursors_max;
        let mut has_room = false;
        for first in (0..places).step_by(LINES_AT_ONCE as usize) {
            let lines = first..places.min(first + LINES_AT_ONCE);
            // All at once, so that their latencies overlap.
            lines.clone().for_each(|place| line::prefetch(memory, layout.cursor_line(commit.candidate, place), access));
            if M::SOFTWARE && access == Access::Remote {
                memory.full_fence();
            }
            for place in lines {
                let at = layout.cursor_line(commit.candidate, place);
                let line = line::read::<M, CursorLine>(memory, at);
                self.commit.help_write_back(at, access);
                match line {
                    Some((_, found)) => match sound(found).map_err(|fault| (place, fault))? {
                        cursor if cursor.name_bytes > 0 => show(place, &cursor),
                        _ => has_room = true,
                    },
                    None if is_never_written(memory, at) => has_room = true,
                    // Being rewritten: nothing can be said of it.
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(has_room))
    }

    /// One cursor, and whether there is room for another. `None`: the table cannot be read now, try again.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn find(&self, topic: u32, name: &str) -> Result<Option<(Option<CursorLine>, bool)>, RecoverError> {
        let mut found = None;
        let has_room = self.visit(|_, cursor| {
            if cursor.is(topic, name) {
                found = Some(*cursor);
            }
        })?;
        Ok(has_room.map(|has_room| (found, has_room)))
    }
}

/// Reads a request that a lane put into the blog.
///
/// # Errors
/// It is not one.
pub fn read_request<M: Memory>(view: &View<M>, access: Access, at: u64) -> Result<CursorLine, FieldFault> {
    if access == Access::Remote {
        view.memory.discard(at, CURSOR_SPEC_BYTES);
    }
    let words: [u64; 7] = view.memory.with_bytes(at, 56, bytemuck::pod_read_unaligned);
    let request = sound(CursorLine::from_words(words))?;
    within("name_bytes", request.name_bytes.into(), 1, CURSOR_NAME_BYTES_MAX as u64)?;
    request.examine(view.layout.geometry.topics_max)?;
    Ok(request)
}

/// Puts a request into the blog at `at`, visible to all.
pub fn write_request<M: Memory>(view: &View<M>, at: u64, request: &CursorLine) {
    view.memory.copy_in(at, bytemuck::bytes_of(&request.words()));
    view.memory.write_back(at, CURSOR_SPEC_BYTES, Keep::Cached);
    view.memory.store_fence();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::views::{host_views, plain_view};
    use crate::testing::memory::Whim;
    use crate::testing::watched::Watched;

    fn active(view: &View<impl Memory>) {
        let mut commit = CommitWriter::take(view, 0);
        commit.claim(0, 1);
        commit.activate(0);
    }

    /// Written on one host, found on another; a removed one is not, and its place is used again.
    #[test]
    fn what_is_set_is_found_on_every_host() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let (here, there) = (&views[0], &views[1]);
        active(here);
        let places = here.layout.geometry.cursors_max;
        let mut writer = CursorWriter::take_over(here, 0, CursorTable::new(places));
        let reader = CursorReader::new(there);
        assert_eq!(reader.find(3, "billing"), Ok(Some((None, true))));
        for place in 0..places {
            writer.put(place, CursorLine::new(3, &format!("c{place}"), u64::from(place)));
        }
        assert!(writer.write_changed() && !writer.write_changed());
        here.memory.store_fence();
        assert_eq!(reader.find(3, "c2"), Ok(Some((Some(CursorLine::new(3, "c2", 2)), false))));
        assert_eq!(reader.find(4, "c2"), Ok(Some((None, false))), "another topic's");
        writer.put(2, CursorLine::default());
        writer.write_changed();
        here.memory.store_fence();
        assert_eq!(reader.find(3, "c2"), Ok(Some((None, true))));
        let set = |name| writer.decide(slot_kind::CURSOR_SET, &CursorLine::new(5, name, 9), 1, 2, 64);
        assert!(matches!(set("new"), Some(Event::CursorSet { place: 2, order: 9, .. })));
        assert_eq!(writer.decide(slot_kind::CURSOR_DELETE, &CursorLine::new(5, "new", 0), 1, 2, 64), None);
        writer.forget_topic(3);
        writer.write_changed();
        here.memory.store_fence();
        let mut shown = Vec::new();
        assert_eq!(reader.visit(|_, cursor| shown.push(*cursor)), Ok(Some(true)));
        assert_eq!(shown, Vec::new());
    }

    /// Its writer is killed after any of the stores with which a place gets another cursor: a successor reads the one before, the
    /// new one, or none; never the name of one with the order of the other.
    #[test]
    fn a_place_cut_short_is_one_cursor_or_none() {
        let (before, after) =
            (CursorLine::new(1, "the-one-before", 7), CursorLine::new(2, "another-of-that-length", 90));
        for killed_after in 0..60 {
            let view = plain_view(1);
            active(&view);
            let watched = Watched::new(view.memory.clone());
            let dying = view.with_memory(watched.clone());
            let mut writer = CursorWriter::take_over(&dying, 0, CursorTable::new(view.layout.geometry.cursors_max));
            writer.put(0, before);
            writer.write_changed();
            writer.put(0, after);
            watched.killed_at(killed_after, || writer.write_changed());
            let reader = CommitReader::new(&view);
            let table = restore(&view, &reader, reader.current().expect("active")).expect("sound");
            let found = *table.at(0);
            assert!(
                [before, after, CursorLine::default()].contains(&found),
                "before operation {killed_after}: {found:?}"
            );
        }
    }
}
