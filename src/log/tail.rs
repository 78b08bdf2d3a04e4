//! Subscriptions that have everything there is: one cursor at the end of the log stands for all of them.
//!
//! A subscription that has caught up **rests**: its own cursor stands still, and the shared one looks at each entry once, whoever rests.
//! The first entry that says something of a topic wakes those that follow it, with the position of that entry, where their own cursor
//! goes on. So an entry costs what it means to those who follow its topic, and nothing for all the others. What all that rest may
//! still read begins at [`Tail::needs`].
//!
//! The cursor moves by entries whose commit was confirmed after they were read; so nobody who rests has to go back.

use crate::log::View;
use crate::log::commit::Commit;
use crate::log::entry::to_sound_event;
use crate::log::order_index::{IndexFault, IndexReader};
use crate::log::reader::ENTRIES_PER_PASS;
use crate::log::retention::NO_PIN;
use crate::order::Event;
use crate::pool::Memory;
use crate::pool::record::IndexEntry;

/// A subscription's place, as its owner numbers them.
#[derive(Debug, Default)]
struct Place {
    /// Its topics, once it follows them.
    topics: Box<[u32]>,
    rests: bool,
}

/// Those who follow a topic.
#[derive(Debug, Default)]
struct Followers {
    places: Vec<u32>,
    /// How many of them rest.
    resting: usize,
}

/// The shared cursor, and who rests behind it.
///
/// Call order, of a place: [`Self::follow`] its topics, [`Self::rest`] when its own cursor has everything, [`Self::wake`] when its owner wants it back, [`Self::forget`] when it
/// ends. Of a pass: [`Self::read`], then the commit is confirmed, then [`Self::pass`] what was read, or [`Self::wake_all`] if it read a fault. Between `read` and `pass` nothing may be
/// called that moves the cursor. Those who are woken are told where their own cursor goes on; [`Self::needs`] is what has to stay pinned meanwhile.
#[derive(Debug)]
pub struct Tail<M> {
    view: View<M>,
    index: IndexReader<M>,
    entries: Box<[IndexEntry; ENTRIES_PER_PASS]>,
    places: Box<[Place]>,
    /// By topic id.
    followers: Box<[Followers]>,
    resting: usize,
}

impl<M: Memory> Tail<M> {
    /// For places below `places`, none of which follows anything.
    pub fn new(view: &View<M>, places: u32) -> Self {
        Tail {
            view: view.clone(),
            index: IndexReader::new(view, 0),
            entries: Box::new([IndexEntry::default(); ENTRIES_PER_PASS]),
            places: (0..places).map(|_| Place::default()).collect(),
            followers: (0..view.layout.geometry.topics_max).map(|_| Followers::default()).collect(),
            resting: 0,
        }
    }

    /// A place follows these topics from now on, each once, and does not rest.
    pub fn follow(&mut self, place: u32, topics: Box<[u32]>) {
        self.forget(place);
        topics.iter().for_each(|topic| self.followers[*topic as usize].places.push(place));
        self.places[place as usize].topics = topics;
    }

    /// A place follows nothing any more.
    pub fn forget(&mut self, place: u32) {
        self.wake(place);
        for topic in std::mem::take(&mut self.places[place as usize].topics) {
            self.followers[topic as usize].places.retain(|other| *other != place);
        }
    }

    /// Whether a place rests.
    pub fn rests(&self, place: u32) -> bool {
        self.places[place as usize].rests
    }

    /// Lets a place rest whose cursor has passed everything committed below `position`, and stands there. False: the shared cursor is
    /// elsewhere; it gets there.
    ///
    /// # Panics
    /// If the place follows nothing, or rests.
    pub fn rest(&mut self, place: u32, position: u64) -> bool {
        if self.resting == 0 {
            self.index.advance_to(position);
        }
        if self.index.next() != position {
            return false;
        }
        let Place { topics, rests } = &mut self.places[place as usize];
        assert!(!*rests && !topics.is_empty(), "one that follows something comes to rest");
        *rests = true;
        topics.iter().for_each(|topic| self.followers[*topic as usize].resting += 1);
        self.resting += 1;
        true
    }

    /// Wakes a place, and gives where its cursor goes on. `None`: it does not rest.
    pub fn wake(&mut self, place: u32) -> Option<u64> {
        self.stop_resting(place).then_some(self.index.next())
    }

    fn stop_resting(&mut self, place: u32) -> bool {
        let Place { topics, rests } = &mut self.places[place as usize];
        if !std::mem::take(rests) {
            return false;
        }
        topics.iter().for_each(|topic| self.followers[*topic as usize].resting -= 1);
        self.resting -= 1;
        true
    }

    /// The lowest position that those who rest may still read; nothing, if nobody does.
    pub fn needs(&self) -> u64 {
        if self.resting == 0 { NO_PIN } else { self.index.next() }
    }

    /// Reads what is committed past the cursor, a bounded number of entries, if anybody rests. Gives how many. Neither they nor a
    /// fault count before the commit is confirmed; then [`Self::pass`] or [`Self::wake_all`] is to be called.
    pub fn read(&mut self, commit: &Commit) -> Result<usize, IndexFault> {
        if self.resting == 0 {
            return Ok(0);
        }
        self.index.read(commit, &mut self.entries[..])
    }

    /// Passes the entries that were just read, `count` of them, and wakes whom they concern, each with the position it goes on at.
    pub fn pass(&mut self, count: usize, mut woken: impl FnMut(u32, u64)) {
        let first = self.index.next();
        for offset in 0..count {
            let position = first + offset as u64;
            match to_sound_event(position, &self.entries[offset], &self.view.layout) {
                Ok(Event::Batch { arrival, .. }) => self.wake_followers(arrival.topic, position, &mut woken),
                Ok(Event::TopicDeleted { topic, .. }) => self.wake_followers(topic, position, &mut woken),
                Ok(_) => {}
                // It may be anybody's: each finds that out for itself.
                Err(_) => {
                    self.index.advance(offset);
                    return self.wake_all(woken);
                }
            }
        }
        self.index.advance(count);
    }

    fn wake_followers(&mut self, topic: u32, position: u64, woken: &mut impl FnMut(u32, u64)) {
        let topic = topic as usize;
        for index in 0..self.followers[topic].places.len() {
            if self.followers[topic].resting == 0 {
                return;
            }
            let place = self.followers[topic].places[index];
            if self.stop_resting(place) {
                woken(place, position);
            }
        }
    }

    /// Wakes all that rest where the cursor stands.
    pub fn wake_all(&mut self, mut woken: impl FnMut(u32, u64)) {
        for place in 0..self.places.len() as u32 {
            if self.stop_resting(place) {
                woken(place, self.index.next());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::order_index::IndexWriter;
    use crate::log::views::plain_view;
    use crate::pool::record::entry_kind;

    #[test]
    fn an_entry_wakes_those_that_follow_its_topic_where_it_stands() {
        let view = plain_view(1);
        let mut commits = CommitWriter::take(&view, 0);
        commits.claim(0, 1);
        commits.activate(0);
        let mut index = IndexWriter::new(&view, 0, 1, 0);
        let at = view.layout.extent(0);
        let mut append = |topic: u32| {
            let (batch_bytes, place) = (128, IndexEntry::pack_place(at, topic));
            let (kind, message_count) = (entry_kind::BATCH, 1);
            index.append(IndexEntry { kind, message_count, batch_bytes, place, ..IndexEntry::default() })
        };
        let commit = |watermark| crate::log::commit::Commit { epoch: 1, candidate: 0, watermark };
        let mut tail = Tail::new(&view, 4);
        tail.follow(0, [0].into());
        tail.follow(1, [0, 1].into());
        tail.follow(2, [1].into());
        append(0);
        assert_eq!((tail.read(&commit(1)), tail.needs()), (Ok(0), NO_PIN), "nobody rests");
        assert!(tail.rest(0, 1) && tail.rest(1, 1) && !tail.rest(2, 0) && tail.rest(2, 1));
        append(2);
        append(1);
        append(1);
        let passed = |tail: &mut Tail<_>, watermark| {
            let (count, mut woken) = (tail.read(&commit(watermark)).unwrap(), Vec::new());
            tail.pass(count, |place, position| woken.push((place, position)));
            woken
        };
        assert_eq!(tail.read(&commit(4)), Ok(3));
        assert_eq!(tail.needs(), 1, "what was read and not confirmed is read again");
        assert_eq!(passed(&mut tail, 4), [(1, 2), (2, 2)]);
        assert_eq!((tail.needs(), tail.rests(0), tail.rests(1), tail.wake(2)), (4, true, false, None));
        tail.forget(1);
        append(0);
        assert_eq!(passed(&mut tail, 5), [(0, 4)]);
        assert_eq!(tail.needs(), NO_PIN);
    }

    #[test]
    fn an_entry_that_cannot_be_wakes_all() {
        let view = plain_view(1);
        let mut index = IndexWriter::new(&view, 0, 1, 0);
        index.append(IndexEntry { kind: entry_kind::BATCH, batch_bytes: 3, ..IndexEntry::default() });
        let mut tail = Tail::new(&view, 2);
        tail.follow(1, [0].into());
        assert!(tail.rest(1, 0));
        view.memory.store_fence();
        let count = tail.read(&Commit { epoch: 0, candidate: 0, watermark: 1 }).unwrap_or(1);
        let mut woken = Vec::new();
        tail.pass(count, |place, position| woken.push((place, position)));
        assert_eq!(woken, [(1, 0)]);
    }
}
