//! Requests: what a control connection may ask for, and what is answered. No I/O.
//!
//! An operation is one function, called when its request has come and again until it has an answer: it passes on to the sequencer
//! what is to be done, once, and answers when the committed tables show that it was. So a reply means that it happened, and a request
//! that is sent again, here or elsewhere, is answered alike.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::roles::addresses::Made;
use crate::roles::receive::cursors;
use crate::roles::receive::desk::{Answer, Asked, Desk, Looked, is_consumed, one_too_many};
use crate::roles::receive::hello::{Refuse, check_same, topic_of};
use crate::wire::frame::TopicRecord;
use crate::wire::{Operation, Refusal};

/// Bytes of a topic record.
const RECORD_BYTES: usize = size_of::<TopicRecord>();

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
    // If the table could not be read now, a topic that is not known may exist, and one that is known be another's by now.
    let rests_on_the_table = match &looked {
        Ok(answer) => answer.is_some(),
        Err(refuse) => {
            matches!(refuse.refusal, Refusal::UnknownTopic | Refusal::TopicExists | Refusal::UnknownCursor)
        }
    };
    match rests_on_the_table && !desk.topics.is_confirmed() {
        true => Ok(None),
        false => looked,
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
    if asked.passed_on.is_none() {
        asked.passed_on = desk.ingest.lane.ask_for_topic(&wanted);
    }
    Ok(None)
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
    if !desk.topics.is_confirmed() {
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
        taken_bytes: progress.taken_bytes,
        ..TopicRecord::zeroed()
    })
}
