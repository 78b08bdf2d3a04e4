//! Requests: what a control connection may ask for, and what is answered. No I/O.
//!
//! An operation is one function, called when its request has come and again until it has an answer: it passes on to the sequencer
//! what is to be done, once, and answers when the committed tables show that it was. So a reply means that it happened, and a request
//! that is sent again, here or elsewhere, is answered alike.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use crate::limits::{CONTROL_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::log::cursors::CursorReader;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::roles::addresses::{Address, Addresses, Made};
use crate::roles::receive::cursors;
use crate::roles::receive::hello::{Refuse, check_same, topic_of};
use crate::roles::receive::ingest::Ingest;
use crate::wire::frame::{self, REPLY_MORE, Reply, Request, TopicRecord, VERSION_LOWEST};
use crate::wire::{Operation, Refusal};

/// Bytes of a topic record.
const RECORD_BYTES: usize = size_of::<TopicRecord>();

/// A request under way.
#[derive(Debug)]
pub struct Asked {
    /// Its header.
    pub request: Request,
    /// Protocol version of the reply.
    pub version: u8,
    /// What it asks for.
    pub operation: Operation,
    /// The topic it names, if the operation takes one.
    pub topic: String,
    /// The body behind the topic's name.
    pub rest: Box<[u8]>,
    /// What was passed on to the sequencer; the operation's own.
    pub passed_on: Option<u64>,
    /// What it makes was counted for its address, at the first of its looks.
    pub is_counted: bool,
}

/// What a request is answered with; all zero where the operation has nothing to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Where a list goes on, if it does.
    pub more: Option<u64>,
    /// The operation's number.
    pub number: u64,
    /// The operation's body.
    pub body: Vec<u8>,
}

/// What a look at a request comes to. `None`: not done yet, look again.
pub type Looked = Result<Option<Answer>, Refuse>;

/// What operations work with.
pub struct Desk<'a, M> {
    /// The lane, to pass things on to the sequencer.
    pub ingest: &'a mut Ingest<M>,
    /// The committed topic table.
    pub topics: &'a mut TopicReader<M>,
    /// The committed cursors.
    pub cursors: &'a CursorReader<M>,
    /// Now, UTC ns.
    pub now_utc_ns: u64,
    /// Who asks.
    pub maker: Maker<'a>,
}

/// For whom what is made counts.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    /// What each address has.
    pub addresses: &'a Addresses,
    /// The asker's.
    pub address: Address,
    /// Now, ns.
    pub now_ns: u64,
}

impl Maker<'_> {
    /// Counts what does not exist yet, once for each request. `Err`: how many the address has, which is all it may.
    pub(super) fn count(&self, made: Made, what: u64, existing: impl FnOnce() -> Vec<u64>) -> Result<(), u32> {
        self.addresses.make(self.address, made, what, existing, self.now_ns)
    }
}

impl Asked {
    /// Takes a request whose header and body are sound as frames.
    ///
    /// # Errors
    /// The operation is not known, or does not take such a body.
    pub fn read(header: &[u8; FRAME_HEADER_BYTES], body: &[u8]) -> Result<Asked, Refuse> {
        let request: Request = frame::read(header);
        let version = request.version_in_use()?;
        let operation = Operation::from_byte(request.operation).map_err(|error| {
            Refuse::new(Refusal::UnknownOperation, 0, format!("{error}: this broker knows no other"))
        })?;
        let topic_bytes = usize::from(request.topic_bytes);
        let Some((topic, rest)) = body.split_at_checked(topic_bytes) else {
            let text = format!("a topic name of {topic_bytes} bytes in a body of {}", body.len());
            return Err(Refuse::new(Refusal::Protocol, 0, text));
        };
        let topic = match operation {
            Operation::TopicList => String::new(),
            _ => frame::check_topic_name(topic)?.to_string(),
        };
        Ok(Asked { request, version, operation, topic, rest: rest.into(), passed_on: None, is_counted: false })
    }

    /// The frame that answers it.
    pub fn reply(&self, answer: &Answer) -> Box<[u8]> {
        let header = Reply {
            flags: if answer.more.is_some() { REPLY_MORE } else { 0 },
            operation: self.request.operation,
            next: answer.more.unwrap_or(0),
            number: answer.number,
            version: self.version,
            ..Reply::default()
        };
        frame::with_body(&header, &answer.body).into()
    }
}

/// The frame that says why a request cannot be done.
pub fn refused(request: &Request, refuse: &Refuse) -> Box<[u8]> {
    let (operation, version) = (request.operation, request.version_in_use().unwrap_or(VERSION_LOWEST));
    let header = Reply { version, operation, code: refuse.refusal as u16, detail: refuse.detail, ..Reply::default() };
    frame::with_body(&header, refuse.text.as_bytes()).into()
}

/// One look at a request. `None`: not done yet, look again.
///
/// # Errors
/// It cannot be done.
pub fn look<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked) -> Looked {
    if !desk.topics.is_readable() {
        return Ok(None);
    }
    let looked = match asked.operation {
        Operation::TopicCreate => create_topic(desk, asked),
        Operation::TopicList => list_topics(desk, asked),
        Operation::TopicDescribe => describe_topic(desk, asked),
        Operation::TopicDelete => delete_topic(desk, asked),
        Operation::CursorCommit => with_topic(desk, asked, cursors::commit),
        Operation::CursorRead => with_topic(desk, asked, cursors::read),
        Operation::CursorList => with_topic(desk, asked, cursors::list),
        Operation::CursorDelete => with_topic(desk, asked, cursors::delete),
    };
    match looked {
        // It may exist: the table could not be read now.
        Err(refuse) if refuse.refusal == Refusal::UnknownTopic && !desk.topics.is_confirmed() => Ok(None),
        looked => looked,
    }
}

/// One look at a request about an existing topic.
fn with_topic<M: Memory>(
    desk: &mut Desk<M>,
    asked: &mut Asked,
    operation: fn(&mut Desk<M>, &mut Asked, &Topic) -> Looked,
) -> Looked {
    let topic = desk.topics.find(&asked.topic).cloned().ok_or_else(|| unknown(&asked.topic))?;
    operation(desk, asked, &topic)
}

/// Why a request that took too long is given up: what it asked for may happen yet.
pub fn too_late<M: Memory>(desk: &mut Desk<M>, asked: &Asked) -> Refuse {
    let goes_by_slot = asked.operation != Operation::TopicDelete;
    let is_untaken = goes_by_slot && asked.passed_on.is_some() && !is_consumed(desk, asked);
    let is_unreadable = asked.passed_on.is_none() && !(desk.topics.is_readable() && desk.topics.is_confirmed());
    if is_untaken || is_unreadable {
        let text = "no sequencer is active, so it could not be done in time; it may be done yet: try again";
        return Refuse::new(Refusal::NoSequencer, 0, text);
    }
    match asked.operation {
        Operation::TopicCreate if desk.topics.is_full() => {
            let text = "no place for another topic (geometry.topics_max); delete one";
            Refuse::new(Refusal::TopicTableFull, 0, text)
        }
        _ => Refuse::new(
            Refusal::Busy,
            0,
            "it was not done in time: the sequencer is slow, or this broker's lane is full",
        ),
    }
}

/// Whether the sequencer has done what was passed on to it in a slot: then the table shows it.
pub(super) fn is_consumed<M: Memory>(desk: &mut Desk<M>, asked: &Asked) -> bool {
    desk.ingest.refresh();
    asked.passed_on.is_some_and(|slot| desk.ingest.lane.progress().consumed > slot)
}

fn unknown(topic: &str) -> Refuse {
    Refuse::new(Refusal::UnknownTopic, 0, format!("there is no topic {topic:?}"))
}

fn create_topic<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked) -> Looked {
    if asked.rest.len() != RECORD_BYTES {
        let text =
            format!("{} bytes behind the topic's name, expected a topic record of {RECORD_BYTES}", asked.rest.len());
        return Err(Refuse::new(Refusal::Protocol, 0, text));
    }
    let wanted = topic_of(&pod_read_unaligned(&asked.rest), &asked.topic, desk.now_utc_ns)?;
    if let Some(found) = desk.topics.find(&asked.topic) {
        check_same(&wanted, found)?;
        return Ok(Some(Answer { number: found.generation(), ..Answer::default() }));
    }
    if !asked.is_counted {
        let addresses = desk.maker.addresses;
        let number_of = |name: &str| addresses.number_of(name);
        let known = || desk.topics.known().iter().map(|topic| number_of(&topic.name)).collect();
        let counted = desk.maker.count(Made::Topic, number_of(&asked.topic), known);
        counted.map_err(|found| one_too_many(desk, Made::Topic, found))?;
        asked.is_counted = true;
    }
    let slot = desk.ingest.lane.produced();
    if asked.passed_on.is_none() && desk.ingest.create_topic(&wanted) {
        asked.passed_on = Some(slot);
    }
    Ok(None)
}

/// Counts and says that an address has all it may: `found` of these exist.
pub(super) fn one_too_many<M: Memory>(desk: &mut Desk<M>, made: Made, found: u32) -> Refuse {
    desk.ingest.counters.address_bounds += 1;
    let (what, refusal) = match made {
        Made::Topic => ("topics", Refusal::TopicTableFull),
        Made::Cursor => ("cursors", Refusal::CursorTableFull),
    };
    let text = format!(
        "this address has made {found} {what} at this broker that exist, all that one address may have (per_address.{what}): delete one"
    );
    Refuse::new(refusal, found.into(), text)
}

fn list_topics<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked) -> Looked {
    desk.topics.refresh();
    if !desk.topics.is_confirmed() {
        return Ok(None);
    }
    let mut answer = Answer::default();
    for topic in desk.topics.known().iter().filter(|topic| u64::from(topic.id) >= asked.request.from) {
        let Some(record) = record(desk.topics, topic) else { return Ok(None) };
        if answer.body.len() + RECORD_BYTES + topic.name.len() > CONTROL_BODY_BYTES_MAX {
            answer.more = Some(topic.id.into());
            break;
        }
        answer.body.extend(bytes_of(&record));
        answer.body.extend(topic.name.as_bytes());
    }
    Ok(Some(answer))
}

fn describe_topic<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked) -> Looked {
    let topic = desk.topics.find(&asked.topic).cloned().ok_or_else(|| unknown(&asked.topic))?;
    let record = record(desk.topics, &topic);
    let answer = |record| Answer { number: topic.generation(), body: bytes_of(&record).to_vec(), ..Answer::default() };
    Ok(record.map(answer))
}

fn delete_topic<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked) -> Looked {
    let found = desk.topics.find(&asked.topic).map(|topic| (topic.id, topic.generation()));
    if found.is_none() && !desk.topics.is_confirmed() {
        return Ok(None);
    }
    let meant = asked.passed_on.unwrap_or(asked.request.number);
    let gone = |number| Ok(Some(Answer { number, ..Answer::default() }));
    match (found, asked.passed_on) {
        (Some((_, generation)), Some(passed_on)) if generation != passed_on => gone(passed_on),
        (None, Some(passed_on)) => gone(passed_on),
        (Some(_), Some(_)) => Ok(None),
        (Some((topic, generation)), None) if meant == 0 || meant == generation => {
            let (kind, batch_seq) = (slot_kind::TOPIC_DELETE, generation - 1);
            if desk.ingest.control(BatchSlot { kind, topic, batch_seq, ..BatchSlot::default() }) {
                asked.passed_on = Some(generation);
            }
            Ok(None)
        }
        _ => Err(unknown(&asked.topic)),
    }
}

/// A topic as the wire has it. `None`: its progress is being written.
fn record<M: Memory>(topics: &TopicReader<M>, topic: &Topic) -> Option<TopicRecord> {
    let progress = topics.progress(topic.id).filter(|progress| progress.position >= topic.created_position)?;
    Some(TopicRecord {
        id: topic.id,
        name_bytes: topic.name.len() as u16,
        order_level: topic.order as u8,
        ack_level: topic.ack as u8,
        receipts: topic.receipts as u8,
        replicas: topic.replicas,
        retention_bytes: topic.retention_bytes,
        retention_ns: topic.retention_ns,
        created_at: topic.created_at,
        generation: topic.generation(),
        next_order: progress.next_order,
        earliest_order: progress.earliest_order,
        kept_bytes: progress.bytes.saturating_sub(progress.earliest_bytes),
        ..TopicRecord::zeroed()
    })
}
