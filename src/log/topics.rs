//! The topic table: written by the sequencer after the commit point, read by everybody else.

use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::pool::line::{self, Owned};
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
    /// Index position of its creation. Entries of its id below that are another topic's.
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
    pub fn write(&self, topic: &Topic, progress: &TopicProgress) {
        let at = |line| self.view.layout.topic_line(self.candidate, topic.id, line);
        let (properties, names) = topic.lines();
        let guard = self.view.memory.load(at(0)) + 1;
        self.write_progress(topic.id, progress);
        line::write(&self.view.memory, at(2), guard, &names[1]);
        line::write(&self.view.memory, at(1), guard, &names[0]);
        line::write(&self.view.memory, at(0), guard, &properties);
    }

    /// Frees a place. Visible by the next fence.
    pub fn clear(&self, topic: u32) {
        let at = self.view.layout.topic_line(self.candidate, topic, 0);
        let guard = self.view.memory.load(at);
        if guard > 0 {
            line::write(&self.view.memory, at, guard + 1, &TopicLine::default());
        }
    }

    /// Writes how far a topic's order has come. Visible by the next fence.
    pub fn write_progress(&self, topic: u32, progress: &TopicProgress) {
        let at = self.view.layout.topic_line(self.candidate, topic, 3);
        let mut line = Owned::take(self.view.memory.clone(), at);
        line.write(progress);
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
    Topic::from_lines(&properties, &[first, second]).ok()
}

/// The reading side: looks topics up by name, and remembers what it found.
pub struct TopicReader<M> {
    view: View<M>,
    commit: CommitReader<M>,
    known: Vec<Topic>,
}

impl<M: Memory> TopicReader<M> {
    /// Over the sequencer's table.
    pub fn new(view: &View<M>) -> Self {
        TopicReader { view: view.clone(), commit: CommitReader::new(view), known: Vec::new() }
    }

    /// Finds a topic by name. `None`: there is none now.
    pub fn find(&mut self, name: &str) -> Option<&Topic> {
        let known = self.known.iter().position(|topic| topic.name == name);
        if !known.is_some_and(|index| self.still_stands(index)) {
            self.refresh();
        }
        self.known.iter().find(|topic| topic.name == name)
    }

    /// Whether a topic that was found before is still what the table says. When the table cannot be read, it is.
    fn still_stands(&self, index: usize) -> bool {
        let topic = &self.known[index];
        let Some(commit) = self.commit.current() else { return true };
        let found = read_topic(&self.view, commit.candidate, self.commit.access(commit.candidate), topic.id);
        !self.commit.confirm(commit.epoch) || found.as_ref() == Some(topic)
    }

    /// Topics of the last look, in the order of their numbers.
    pub fn known(&self) -> &[Topic] {
        &self.known
    }

    /// Looks at the whole table again.
    pub fn refresh(&mut self) {
        let Some(commit) = self.commit.current() else { return };
        let access = self.commit.access(commit.candidate);
        let ids = 0..self.view.layout.geometry.topics_max;
        let found = ids.filter_map(|id| read_topic(&self.view, commit.candidate, access, id)).collect();
        if self.commit.confirm(commit.epoch) {
            self.known = found;
        }
    }

    /// Order of a topic's next message, and the index position that stands for.
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
mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::sim::memory::plain_view;

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
        let heir = Topic { created_position: 77, ..topic(1, "heir") };
        writer.write(&heir, &TopicProgress::default());
        assert_eq!((reader.find("t1").cloned(), reader.find("heir")), (None, Some(&heir)));
        let same_name = Topic { created_position: 99, ..heir.clone() };
        writer.clear(1);
        writer.write(&same_name, &TopicProgress::default());
        assert_eq!(reader.find("heir"), Some(&same_name), "a name that was given again is another topic");
    }
}
