//! The topic table: written by the sequencer after the commit point, read by everybody else.

use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::log::View;
use crate::log::commit::{Commit, CommitReader};
use crate::log::damage::{Expected, FieldFault, exactly};
use crate::pool::line;
use crate::pool::record::{NameLine, TopicLine, TopicProgress};
use crate::pool::{Access, Keep, Memory};
use crate::wire::{AckLevel, OrderLevel, Receipts, WireError};

/// Bytes of a topic specification as it travels in the blog: the topic line and the two name lines, without guards.
pub const SPEC_BYTES: u64 = 3 * 56;

/// A topic as everybody knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it promises about order.
    pub order: OrderLevel,
    /// Strongest ack level it grants.
    pub ack: AckLevel,
    /// Where receipts are stamped.
    pub receipts: Receipts,
    /// Copies, the pool's included.
    pub replicas: u32,
    /// Retention target, bytes; 0: as much as fits.
    pub retention_bytes: u64,
    /// Retention target, ns; 0: as long as it fits.
    pub retention_ns: u64,
    /// Creation, UTC ns.
    pub created_at: u64,
    /// Index position of its creation: its generation. Entries of its id below that are another topic's.
    pub created_position: u64,
}

impl Topic {
    /// A topic that is not created yet, with receipts per batch, the pool's copy only, and no retention target.
    pub fn new(name: &str, order: OrderLevel, ack: AckLevel) -> Topic {
        Topic {
            id: 0,
            name: name.into(),
            order,
            ack,
            receipts: Receipts::Batch,
            replicas: 1,
            retention_bytes: 0,
            retention_ns: 0,
            created_at: 0,
            created_position: 0,
        }
    }

    /// Its generation as the wire has it: never 0, and no other topic's, of this name or another.
    pub fn generation(&self) -> u64 {
        self.created_position + 1
    }

    /// As the three lines of the table.
    ///
    /// # Panics
    /// If the name is longer than the limit: names are checked where they come in.
    pub fn lines(&self) -> (TopicLine, [NameLine; 2]) {
        assert!(self.name.len() <= TOPIC_NAME_BYTES_MAX);
        let line = TopicLine {
            id: self.id,
            name_bytes: self.name.len() as u16,
            order_level: self.order as u8,
            ack_level: self.ack as u8,
            receipts: self.receipts as u8,
            replicas: self.replicas,
            retention_bytes: self.retention_bytes,
            retention_ns: self.retention_ns,
            created_at: self.created_at,
            created_position: self.created_position,
            ..TopicLine::default()
        };
        let mut text = [0; 112];
        text[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let half = |from: usize| NameLine { text: text[from..from + 56].try_into().expect("half of the name") };
        (line, [half(0), half(56)])
    }

    /// From the three lines; an error if they hold what no writer puts there.
    pub fn from_lines(line: &TopicLine, names: &[NameLine; 2]) -> Result<Topic, WireError> {
        let mut text = [0; 112];
        text[..56].copy_from_slice(&names[0].text);
        text[56..].copy_from_slice(&names[1].text);
        let length = usize::from(line.name_bytes).min(TOPIC_NAME_BYTES_MAX);
        Ok(Topic {
            id: line.id,
            name: crate::wire::frame::check_topic_name(&text[..length])?.to_string(),
            order: OrderLevel::from_byte(line.order_level)?,
            ack: AckLevel::from_byte(line.ack_level)?,
            receipts: Receipts::from_byte(line.receipts)?,
            replicas: line.replicas,
            retention_bytes: line.retention_bytes,
            retention_ns: line.retention_ns,
            created_at: line.created_at,
            created_position: line.created_position,
        })
    }

    /// As it travels in the blog with a topic-create slot.
    pub fn to_spec(&self) -> [u8; SPEC_BYTES as usize] {
        let (line, names) = self.lines();
        let mut bytes = [0; SPEC_BYTES as usize];
        bytes[..56].copy_from_slice(bytemuck::bytes_of(&line));
        bytes[56..112].copy_from_slice(bytemuck::bytes_of(&names[0]));
        bytes[112..].copy_from_slice(bytemuck::bytes_of(&names[1]));
        bytes
    }

    /// From the blog.
    pub fn from_spec(bytes: &[u8]) -> Result<Topic, WireError> {
        let line: TopicLine = bytemuck::pod_read_unaligned(&bytes[..56]);
        let names = [bytemuck::pod_read_unaligned(&bytes[56..112]), bytemuck::pod_read_unaligned(&bytes[112..168])];
        Topic::from_lines(&line, &names)
    }
}

/// The writing side: a candidate's copy of the table.
#[derive(Debug)]
pub struct TopicWriter<M> {
    view: View<M>,
    candidate: u32,
}

impl<M: Memory> TopicWriter<M> {
    /// Takes a candidate's copy over.
    pub fn new(view: &View<M>, candidate: u32) -> Self {
        TopicWriter { view: view.clone(), candidate }
    }

    /// Writes a topic's three lines, all with the same guard, and its progress. Visible by the next fence.
    ///
    /// Lines that say so already are left as they are: cut short in a rewrite they could be read by nobody, and a successor on
    /// another host, whose replay begins behind the topic's creation, would take it for never created.
    pub fn write(&self, topic: &Topic, progress: &TopicProgress) {
        let at = |line| self.view.layout.topic_line(self.candidate, topic.id, line);
        self.write_progress(topic.id, progress);
        if read_topic(&self.view, self.candidate, Access::Local, topic.id).as_ref() == Some(topic) {
            // Their writer may have been killed before it wrote them back.
            return (0..3).for_each(|line| self.view.memory.flush_line(at(line), Keep::Cached));
        }
        let (properties, names) = topic.lines();
        let guard = self.fresh_guard(topic.id);
        line::write(&self.view.memory, at(2), guard, &names[1]);
        line::write(&self.view.memory, at(1), guard, &names[0]);
        line::write(&self.view.memory, at(0), guard, &properties);
    }

    /// Frees a place. Visible by the next fence.
    pub fn clear(&self, topic: u32) {
        let at = self.view.layout.topic_line(self.candidate, topic, 0);
        let blank = TopicLine { id: topic, ..TopicLine::default() };
        match line::read::<M, TopicLine>(&self.view.memory, at) {
            Some((_, found)) if found == blank => self.view.memory.flush_line(at, Keep::Cached),
            None if self.view.memory.load(at) == line::INVALID && !self.was_written(topic) => {}
            _ => line::write(&self.view.memory, at, self.fresh_guard(topic), &blank),
        }
    }

    fn guards(&self, topic: u32) -> [u64; 3] {
        [0, 1, 2].map(|line| self.view.memory.load(self.view.layout.topic_line(self.candidate, topic, line)))
    }

    fn was_written(&self, topic: u32) -> bool {
        self.guards(topic).iter().any(|guard| *guard != line::INVALID)
    }

    /// A guard that none of a place's lines has: lines of two topics of one place, or of two writes, never look like one.
    fn fresh_guard(&self, topic: u32) -> u64 {
        let known = self.guards(topic).into_iter().filter(|guard| *guard != line::INVALID);
        known.max().map_or(1, |highest| highest.checked_add(1).unwrap_or(1))
    }

    /// Writes how far a topic's order has come. Visible by the next fence.
    pub fn write_progress(&self, topic: u32, progress: &TopicProgress) {
        let at = self.view.layout.topic_line(self.candidate, topic, 3);
        line::rewrite(&self.view.memory, at, progress);
    }
}

/// Reads one topic of a candidate's table. `None`: there is none, or it is being written.
pub fn read_topic<M: Memory>(view: &View<M>, candidate: u32, access: Access, id: u32) -> Option<Topic> {
    let at = |line| view.layout.topic_line(candidate, id, line);
    let (guard, properties) = line::observe::<M, TopicLine>(&view.memory, at(0), access)?;
    if properties.name_bytes == 0 {
        return None;
    }
    let (first_guard, first) = line::observe::<M, NameLine>(&view.memory, at(1), access)?;
    let (second_guard, second) = line::observe::<M, NameLine>(&view.memory, at(2), access)?;
    if guard != first_guard || guard != second_guard {
        return None;
    }
    // Readers use its number as a place.
    Topic::from_lines(&properties, &[first, second]).ok().filter(|topic| topic.id == id)
}

/// Reads one topic of a candidate's table for a successor. `None`: the place is free, or was never written whole.
///
/// A place is only written when it changes hands: one that was cut short, or is being written by a predecessor that goes on, changed
/// hands at or behind the checkpoint, and the replay says what is there. What is found twice was not written in between.
///
/// # Errors
/// Its lines are whole, and hold what no writer puts there.
pub fn read_topic_words<M: Memory>(
    view: &View<M>,
    candidate: u32,
    access: Access,
    id: u32,
) -> Result<Option<Topic>, FieldFault> {
    let at = |line| view.layout.topic_line(candidate, id, line);
    let memory = &view.memory;
    let look = || {
        let properties: TopicLine = line::observe_words(memory, at(0), access);
        let names: [NameLine; 2] = [at(1), at(2)].map(|at| line::observe_words(memory, at, access));
        (properties, names, [0, 1, 2].map(|line| memory.load(at(line))))
    };
    let (properties, names, guards) = look();
    let is_whole = guards[0] != line::INVALID && guards.iter().all(|guard| *guard == guards[0]);
    if !is_whole || look() != (properties, names, guards) {
        return Ok(None);
    }
    exactly("topic id", properties.id.into(), id.into())?;
    let expected = Expected::Told("a topic with a name of 1 to 112 bytes, known levels and receipts");
    let fault = FieldFault { field: "topic line", found: id.into(), expected };
    Topic::from_lines(&properties, &names).map(Some).map_err(|_| fault)
}

/// The reading side: looks topics up by name, and remembers what it found.
#[derive(Debug)]
pub struct TopicReader<M> {
    view: View<M>,
    commit: CommitReader<M>,
    known: Vec<Topic>,
    is_confirmed: bool,
}

impl<M: Memory> TopicReader<M> {
    /// Over the sequencer's table.
    pub fn new(view: &View<M>) -> Self {
        TopicReader { view: view.clone(), commit: CommitReader::new(view), known: Vec::new(), is_confirmed: false }
    }

    /// Finds a topic by name. `None`: there is none now, if [`Self::is_confirmed`]; if not, what was known is found.
    pub fn find(&mut self, name: &str) -> Option<&Topic> {
        let known = self.known.iter().position(|topic| topic.name == name);
        match known.map(|index| self.still_stands(index)) {
            Some(Some(true)) => self.is_confirmed = true,
            Some(None) => self.is_confirmed = false,
            Some(Some(false)) | None => self.refresh(),
        }
        self.known.iter().find(|topic| topic.name == name)
    }

    /// Whether a topic that was found before is still what the table says. `None`: the table cannot be read now.
    fn still_stands(&self, index: usize) -> Option<bool> {
        let topic = &self.known[index];
        let commit = self.commit.current()?;
        let found = self.read(&commit, topic.id);
        self.commit.confirm(commit.epoch).then_some(found.as_ref() == Some(topic))
    }

    /// One place of the table, to be confirmed.
    fn read(&self, commit: &Commit, id: u32) -> Option<Topic> {
        let access = self.commit.access(commit.candidate);
        let found = read_topic(&self.view, commit.candidate, access, id);
        let at = |line| self.view.layout.topic_line(commit.candidate, id, line);
        (0..3).for_each(|line| self.commit.help_write_back(at(line), access));
        found
    }

    /// Whether there is a table to read: a sequencer was active once.
    pub fn is_readable(&self) -> bool {
        self.commit.current().is_some()
    }

    /// Whether the topic of this number is the one that was created at this index position. `None`: it cannot be said now.
    pub fn stands(&self, id: u32, created_position: u64) -> Option<bool> {
        let commit = self.commit.current()?;
        let (at, access) = (self.view.layout.topic_line(commit.candidate, id, 0), self.commit.access(commit.candidate));
        let line = line::observe::<M, TopicLine>(&self.view.memory, at, access);
        self.commit.help_write_back(at, access);
        let stands = match line {
            Some((_, line)) => line.name_bytes > 0 && line.created_position == created_position,
            // Being written, or never.
            None if (1..8).all(|word| self.view.memory.load(at + 8 * word) == 0) => false,
            None => return None,
        };
        self.commit.confirm(commit.epoch).then_some(stands)
    }

    /// Whether the last look was good. If not, what is not known may exist, and what is known may be another's by now: no sequencer was
    /// active yet, or one takes over.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Topics of the last look that was good, in the order of their numbers.
    pub fn known(&self) -> &[Topic] {
        &self.known
    }

    /// Whether every place of the table was taken at the last look.
    pub fn is_full(&self) -> bool {
        self.known.len() >= self.view.layout.geometry.topics_max as usize
    }

    /// Looks at the whole table again.
    pub fn refresh(&mut self) {
        self.is_confirmed = false;
        let Some(commit) = self.commit.current() else { return };
        let found = (0..self.view.layout.geometry.topics_max).filter_map(|id| self.read(&commit, id)).collect();
        if self.commit.confirm(commit.epoch) {
            (self.known, self.is_confirmed) = (found, true);
        }
    }

    /// How far a topic's order has come, and the index position that stands for.
    pub fn progress(&self, topic: u32) -> Option<TopicProgress> {
        self.commit.read(|candidate| self.view.layout.topic_line(candidate, topic, 3)).map(|(_, progress)| progress)
    }
}

/// Reads a topic specification that a lane put into the blog.
pub fn read_spec<M: Memory>(view: &View<M>, access: Access, at: u64) -> Result<Topic, WireError> {
    if access == Access::Remote {
        view.memory.discard(at, SPEC_BYTES);
    }
    view.memory.with_bytes(at, SPEC_BYTES, Topic::from_spec)
}

/// Puts a topic specification into the blog at `at`, visible to all.
pub fn write_spec<M: Memory>(view: &View<M>, at: u64, topic: &Topic) {
    view.memory.copy_in(at, &topic.to_spec());
    view.memory.write_back(at, SPEC_BYTES, Keep::Cached);
    view.memory.store_fence();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::views::plain_view;
    use crate::pool::record::Record;
    use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};
    use crate::testing::watched::Watched;

    pub(crate) fn topic(id: u32, name: &str) -> Topic {
        Topic { id, created_at: 9, ..Topic::new(name, OrderLevel::Session, AckLevel::Committed) }
    }

    #[test]
    fn what_is_written_is_found_by_name() {
        let view = plain_view(1);
        let mut commit = CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        let writer = TopicWriter::new(&view, 0);
        let mut reader = TopicReader::new(&view);
        assert!(reader.find("a").is_none());
        let long = "n".repeat(TOPIC_NAME_BYTES_MAX);
        writer.write(&topic(0, "a"), &TopicProgress { next_order: 5, position: 6, ..TopicProgress::default() });
        writer.write(&topic(1, &long), &TopicProgress::default());
        assert_eq!(reader.find(&long), Some(&topic(1, &long)));
        assert_eq!(reader.find("a"), Some(&topic(0, "a")));
        assert_eq!(reader.progress(0).unwrap().next_order, 5);
        assert_eq!(Topic::from_spec(&topic(1, &long).to_spec()), Ok(topic(1, &long)));
    }

    /// A place that is freed and given to another topic is not found under the old name, and a gap in the numbers hides nobody.
    #[test]
    fn a_deleted_topic_is_not_found_and_its_place_serves_another() {
        let view = plain_view(1);
        let mut commit = CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        let writer = TopicWriter::new(&view, 0);
        let mut reader = TopicReader::new(&view);
        (0..3).for_each(|id| writer.write(&topic(id, &format!("t{id}")), &TopicProgress::default()));
        assert!(reader.find("t1").is_some() && reader.find("t2").is_some());
        writer.clear(1);
        assert_eq!(reader.find("t1"), None);
        assert_eq!(reader.known().len(), 2);
        assert_eq!(read_topic_words(&view, 0, Access::Local, 1), Ok(None));
        let heir = Topic { created_position: 77, ..topic(1, "heir") };
        writer.write(&heir, &TopicProgress::default());
        assert_eq!((reader.find("t1").cloned(), reader.find("heir")), (None, Some(&heir)));
        let same_name = Topic { created_position: 99, ..heir.clone() };
        writer.clear(1);
        writer.write(&same_name, &TopicProgress::default());
        assert_eq!(reader.find("heir"), Some(&same_name), "a name that was given again is another topic");
        assert_eq!(read_topic_words(&view, 0, Access::Local, 1), Ok(Some(same_name)));
    }

    /// A successor reads a place that its predecessor, who goes on, gives to another topic just then.
    #[test]
    fn a_place_that_changes_hands_while_it_is_read_is_one_topics_or_nobodys() {
        let view = plain_view(1);
        let watched = Watched::new(view.memory.clone());
        let reader = View::single_host(watched.clone(), view.layout.clone());
        let old = Topic { created_position: 7, ..topic(1, &"old".repeat(30)) };
        let new = Topic { created_position: 9, ..topic(1, &"new".repeat(30)) };
        let mut is_found = [false; 3];
        for step in 0..200 {
            TopicWriter::new(&view, 0).write(&old, &TopicProgress::default());
            let (view, heir) = (view.clone(), new.clone());
            watched.at(step, move || {
                let writer = TopicWriter::new(&view, 0);
                writer.clear(1);
                writer.write(&heir, &TopicProgress::default());
            });
            let found = read_topic_words(&reader, 0, Access::Local, 1);
            watched.stop();
            let which = [Ok(Some(old.clone())), Ok(None), Ok(Some(new.clone()))].iter().position(|one| *one == found);
            is_found[which.unwrap_or_else(|| panic!("at step {step}: {found:?}"))] = true;
        }
        assert_eq!(is_found, [true; 3]);
    }

    fn two_hosts(whim: Whim, seed: u64) -> [View<HostMemory>; 2] {
        let layout = std::sync::Arc::new(crate::pool::Layout::new(small_geometry(1)).unwrap());
        let pool = SharedMemory::new(layout.geometry.pool_bytes, 2, whim, seed);
        let homes = |here| crate::log::Homes { here, brokers: vec![0, 0], candidates: vec![0] };
        [0, 1].map(|host| View::new(pool.host(host as usize), layout.clone(), homes(host)))
    }

    /// Its lines reach memory in any order: what is read is one of the two, or nothing.
    #[test]
    fn a_topic_written_again_is_never_mixed() {
        let names = ["a".repeat(100), "b".repeat(100)];
        for seed in 0..400 {
            let [here, there] = two_hosts(Whim::HARSH, seed);
            let writer = TopicWriter::new(&here, 0);
            writer.write(&topic(0, &names[0]), &TopicProgress::default());
            here.memory.store_fence();
            // Not fenced.
            writer.write(&Topic { created_at: 10, ..topic(0, &names[1]) }, &TopicProgress::default());
            if let Some(found) = read_topic(&there, 0, Access::Remote, 0) {
                let is_one = found.name == names[0] && found.created_at == 9;
                assert!(is_one || found.name == names[1] && found.created_at == 10, "seed {seed}: {found:?}");
            }
        }
    }

    #[test]
    fn a_specification_is_visible_once_written() {
        for seed in 0..40 {
            let [here, there] = two_hosts(Whim { prompt_flush: 300, ..Whim::LAZY }, seed);
            let at = here.layout.extent(0);
            assert!(read_spec(&there, Access::Remote, at).is_err(), "and now it is in this host's cache");
            write_spec(&here, at, &topic(0, "t"));
            assert_eq!(read_spec(&there, Access::Remote, at), Ok(topic(0, "t")), "seed {seed}");
        }
    }

    /// A topic whose lines are in a cache only, written as a sequencer writes that is killed before it writes them back.
    fn in_the_cache_only(here: &View<HostMemory>) {
        let (properties, [first, second]) = topic(0, "t").lines();
        for (line, words) in [properties.words(), first.words(), second.words()].into_iter().enumerate() {
            let at = here.layout.topic_line(0, 0, line as u64);
            (1..).zip(words).for_each(|(index, word)| here.memory.store(at + 8 * index, word));
            here.memory.store(at, 1);
        }
    }

    /// Killed with its lines in the cache only; its successor finds them as they should be.
    #[test]
    fn a_topic_written_as_it_was_is_seen_on_another_host() {
        let [here, there] = two_hosts(Whim::LAZY, 1);
        in_the_cache_only(&here);
        TopicWriter::new(&here, 0).write(&topic(0, "t"), &TopicProgress::default());
        here.memory.store_fence();
        assert_eq!(read_topic(&there, 0, Access::Remote, 0), Some(topic(0, "t")));
    }

    /// Found by simulation (seed 9515): a broker told of a topic that it saw in the cache it shares with the sequencer, which was killed then;
    /// one on another host denied it.
    #[test]
    fn what_one_host_was_told_of_another_finds() {
        let find = |reader: &mut TopicReader<HostMemory>| reader.find("t").is_some() && reader.is_confirmed();
        let stands =
            |reader: &mut TopicReader<HostMemory>| reader.stands(0, topic(0, "t").created_position) == Some(true);
        for look in [find as fn(&mut TopicReader<HostMemory>) -> bool, stands] {
            let [here, there] = two_hosts(Whim::LAZY, 1);
            let mut commit = crate::log::commit::CommitWriter::take(&here, 0);
            commit.claim(0, 1);
            commit.activate(0);
            in_the_cache_only(&here);
            assert!(look(&mut TopicReader::new(&here)));
            assert!(look(&mut TopicReader::new(&there)));
        }
    }
}
