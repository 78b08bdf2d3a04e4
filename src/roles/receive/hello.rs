//! The hello: what a new connection asks for, and whether it can have it.

use crate::limits::SUBSCRIPTION_TOPICS_MAX;
use crate::log::topics::{Topic, TopicReader};
use crate::pool::Memory;
use crate::roles::handoff::SubscribedTopic;
use crate::roles::tokens::Tokens;
use crate::wire::frame::{self, Hello, NEW_SESSION, Refused, TopicRecord};
use crate::wire::subscribe::read_starts;
use crate::wire::{AckLevel, OrderLevel, Receipts, Refusal, WireError};

/// `order_level` of a hello that takes whatever level the topic has.
pub const ANY_LEVEL: u8 = 255;

/// A refusal with its detail and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The reason.
    pub refusal: Refusal,
    /// Its number.
    pub detail: u64,
    /// Its words.
    pub text: String,
}

impl Refuse {
    /// A refusal.
    pub fn new(refusal: Refusal, detail: u64, text: impl Into<String>) -> Refuse {
        Refuse { refusal, detail, text: text.into() }
    }

    /// Of everybody, while the process ends.
    pub fn draining() -> Refuse {
        Refuse::new(Refusal::Draining, 0, "this broker is shutting down; use another")
    }

    /// As the frame that says it, under this protocol version.
    pub fn frame(&self, version: u8) -> Box<[u8]> {
        let header = Refused { version, code: self.refusal as u16, detail: self.detail, ..Refused::default() };
        frame::with_body(&header, self.text.as_bytes()).into()
    }
}

impl From<WireError> for Refuse {
    fn from(error: WireError) -> Refuse {
        Refuse::new(Refusal::Protocol, 0, error.to_string())
    }
}

/// The topic a record describes, if this release can keep it.
pub fn topic_of(record: &TopicRecord, name: &str, now_utc_ns: u64) -> Result<Topic, Refuse> {
    let (order, ack) = (OrderLevel::from_byte(record.order_level)?, AckLevel::from_byte(record.ack_level)?);
    let topic = Topic {
        receipts: Receipts::from_byte(record.receipts)?,
        replicas: record.replicas.max(1),
        retention_bytes: record.retention_bytes,
        retention_ns: record.retention_ns,
        created_at: now_utc_ns,
        ..Topic::new(name, order, ack)
    };
    check_ack(topic.order, topic.ack)?;
    if topic.replicas != 1 {
        let text = format!("{} replicas asked for; this release keeps the pool's copy only (1)", topic.replicas);
        return Err(Refuse::new(Refusal::AckLevel, 0, text));
    }
    Ok(topic)
}

fn check_ack(order: OrderLevel, ack: AckLevel) -> Result<(), Refuse> {
    match (order, ack) {
        (_, AckLevel::Durable) => {
            let text = "ack level 2 needs replicas, which this release does not have; use ack level 1";
            Err(Refuse::new(Refusal::AckLevel, 1, text))
        }
        (OrderLevel::Session, AckLevel::None) => {
            let text = "order level 5 needs ack level 1 or more: without acks nothing could be resent";
            Err(Refuse::new(Refusal::AckLevel, 1, text))
        }
        _ => Ok(()),
    }
}

/// Checks that what a hello joins or resumes was in this log.
pub fn check_log(hello: &Hello, tag: u32) -> Result<(), Refuse> {
    if hello.log == 0 || hello.log == tag {
        return Ok(());
    }
    let text = format!(
        "what is resumed was in another log, of tag {:#010x}; this one's is {tag:#010x}: begin anew, or name a broker of that log",
        hello.log
    );
    Err(Refuse::new(Refusal::OtherLog, tag.into(), text))
}

/// Checks that an existing topic is what the hello relies on.
pub fn check_topic(hello: &Hello, topic: &Topic) -> Result<(), Refuse> {
    if hello.order_level != ANY_LEVEL {
        is_same(topic, "order level", topic.order as u64, hello.order_level.into())?;
    }
    Ok(())
}

/// Checks that an existing topic is what a request to create it asks for.
pub fn check_same(wanted: &Topic, topic: &Topic) -> Result<(), Refuse> {
    is_same(topic, "order level", topic.order as u64, wanted.order as u64)?;
    is_same(topic, "ack level", topic.ack as u64, wanted.ack as u64)?;
    is_same(topic, "receipts", topic.receipts as u64, wanted.receipts as u64)?;
    is_same(topic, "replicas", topic.replicas.into(), wanted.replicas.into())?;
    // Who names no target takes what the topic has.
    let or_any = |wanted: u64, found: u64| if wanted == 0 { found } else { wanted };
    is_same(topic, "retention bytes", topic.retention_bytes, or_any(wanted.retention_bytes, topic.retention_bytes))?;
    is_same(topic, "retention ns", topic.retention_ns, or_any(wanted.retention_ns, topic.retention_ns))
}

fn is_same(topic: &Topic, what: &str, found: u64, wanted: u64) -> Result<(), Refuse> {
    if found == wanted {
        return Ok(());
    }
    let text = format!("topic {:?} has {what} {found}, the client asks for {wanted}", topic.name);
    Err(Refuse::new(Refusal::TopicExists, found, text))
}

/// The topic of this name.
///
/// # Errors
/// `UnknownTopic` if there is none; `NoSequencer` if that cannot be said now, or if the one that was known may be another by now.
pub fn known_topic<M: Memory>(known: &mut TopicReader<M>, name: &str) -> Result<Topic, Refuse> {
    let found = known.find(name).cloned();
    if !known.is_confirmed() {
        let text = "which topics there are is not known now: no sequencer is active; try again";
        return Err(Refuse::new(Refusal::NoSequencer, 0, text));
    }
    found.ok_or_else(|| Refuse::new(Refusal::UnknownTopic, 0, format!("there is no topic {name:?}; create it first")))
}

/// What a subscriber's hello lists, each topic known and listed once.
pub fn subscribed_topics<M: Memory>(
    hello: &Hello,
    body: &[u8],
    known: &mut TopicReader<M>,
) -> Result<Box<[SubscribedTopic]>, Refuse> {
    let listed = read_starts(body)?;
    if listed.len() > SUBSCRIPTION_TOPICS_MAX {
        let text = format!(
            "{} topics for one subscription; at most {SUBSCRIPTION_TOPICS_MAX}: use several connections",
            listed.len()
        );
        return Err(Refuse::new(Refusal::TooManyTopics, SUBSCRIPTION_TOPICS_MAX as u64, text));
    }
    let mut topics: Vec<SubscribedTopic> = Vec::with_capacity(listed.len());
    for (name, start, generation) in listed {
        let topic = &known_topic(known, name)?;
        check_topic(hello, topic)?;
        if topics.iter().any(|before| before.topic == topic.id) {
            return Err(Refuse::new(Refusal::Protocol, 0, format!("topic {name:?} is listed twice; list it once")));
        }
        if generation != 0 && generation != topic.generation() {
            let text = format!("the topic {name:?} that was read was deleted; this is another of its name");
            return Err(Refuse::new(Refusal::TopicDeleted, 0, text));
        }
        let (created_position, order) = (topic.created_position, topic.order);
        topics.push(SubscribedTopic { topic: topic.id, created_position, order, start });
    }
    Ok(topics.into())
}

/// Checks a publisher's hello against its topic: ack level and, if it joins a session, the token.
pub fn check_publisher(hello: &Hello, topic: &Topic, tokens: &Tokens) -> Result<AckLevel, Refuse> {
    let ack = AckLevel::from_byte(hello.ack_level)?;
    check_ack(topic.order, ack)?;
    if ack > topic.ack {
        let text = format!("ack level {ack} asked for, topic {:?} grants up to {}", topic.name, topic.ack);
        return Err(Refuse::new(Refusal::AckLevel, topic.ack as u64, text));
    }
    // A session of this publisher from before. Sessions get their ids in the order of the index, topics their generations.
    let earlier = if hello.session == NEW_SESSION { hello.token } else { hello.session };
    if earlier != 0 && earlier < topic.generation() {
        let text = format!("the topic {:?} that was published to was deleted; this is another of its name", topic.name);
        return Err(Refuse::new(Refusal::TopicDeleted, 0, text));
    }
    if hello.session == NEW_SESSION {
        return Ok(ack);
    }
    if hello.token != tokens.token(hello.session, topic.id) {
        let text = format!("the token is not that of session {:#x} on this topic", hello.session);
        return Err(Refuse::new(Refusal::BadToken, 0, text));
    }
    if topic.order != OrderLevel::Session {
        let text = format!("order level {} numbers connections, not sessions: open a new one", topic.order);
        return Err(Refuse::new(Refusal::UnknownSession, 0, text));
    }
    Ok(ack)
}
