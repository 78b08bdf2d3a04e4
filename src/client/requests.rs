//! Requests without sockets: how they are asked, and what an answer says.

use std::time::Duration;

use bytemuck::{Zeroable, pod_read_unaligned};

use crate::client::error::ClientError;
use crate::client::handshake::refused;
use crate::client::numbers::Order;
use crate::client::options::TopicProperties;
use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::{self, CursorRecord, Frame, Refused, Reply, Request, TopicRecord};
use crate::wire::{AckLevel, OrderLevel, Receipts, WireError};

/// A topic as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub properties: TopicProperties,
    /// Its number; a deleted topic's is given to another.
    pub id: u32,
    /// A number that no other topic of the pool ever has, of this name or another.
    pub generation: u64,
    /// Creation, UTC ns.
    pub created_at: u64,
    /// Order of its next message, as of the sequencer's last checkpoint.
    pub next_order: Order,
    /// No message below this order is kept.
    pub earliest_order: Order,
    /// Bytes of its batches kept from about that order on.
    pub kept_bytes: u64,
    /// Bytes of its batches that were given up although its retention target wanted them, ever: the pool's memory was short.
    pub taken_bytes: u64,
}

/// What a topic is to be, as a request says it.
pub(crate) fn record_of(properties: &TopicProperties) -> TopicRecord {
    TopicRecord {
        order_level: properties.order as u8,
        ack_level: properties.ack as u8,
        receipts: properties.receipts as u8,
        replicas: properties.replicas,
        retention_bytes: properties.retention_bytes,
        retention_ns: properties.retention_age.as_nanos().min(u64::MAX.into()) as u64,
        ..TopicRecord::zeroed()
    }
}

/// A request about a topic, or none (""), with what comes behind the topic's name.
pub(crate) fn request_bytes(request: Request, topic: &str, rest: &[u8]) -> Vec<u8> {
    let body = [topic.as_bytes(), rest].concat();
    frame::with_body(&Request { topic_bytes: topic.len() as u16, ..request }.speaking(), &body)
}

/// What came in answer to a request: the reply, and whether it was granted.
///
/// # Errors
/// It was no answer to that: the connection is over.
pub(crate) fn answered(
    broker: &str,
    operation: u8,
    header: &[u8; FRAME_HEADER_BYTES],
    body: &[u8],
) -> Result<(Reply, Result<(), ClientError>), ClientError> {
    match header[5] {
        kind if kind == Reply::KIND as u8 => {}
        kind if kind == Refused::KIND as u8 => return Err(refused(broker, &frame::read(header), body)),
        _ => {
            let wire = |error| ClientError::wire(broker, error);
            let found = frame::check(header, u64::MAX).map_err(wire)?;
            return Err(wire(WireError::UnexpectedKind { found, expected: "Reply or Refused" }));
        }
    }
    let reply: Reply = frame::read(header);
    if reply.operation != operation {
        let (found, expected) = (reply.operation.into(), operation.into());
        let broker = broker.to_owned();
        return Err(ClientError::Contradiction { broker, field: "operation of a reply", found, expected });
    }
    let refusal = Refused { code: reply.code, detail: reply.detail, ..Refused::default() };
    let answer = if reply.code == 0 { Ok(()) } else { Err(refused(broker, &refusal, body)) };
    Ok((reply, answer))
}

/// A list that did not end goes on behind what was listed.
pub(crate) fn check_progress(broker: &str, found: u64, expected: u64) -> Result<(), ClientError> {
    if found >= expected {
        return Ok(());
    }
    Err(ClientError::Contradiction { broker: broker.to_owned(), field: "next of a list", found, expected })
}

/// Topics, as a list tells them.
pub(crate) fn parse_list(mut body: &[u8]) -> Result<Vec<TopicInfo>, WireError> {
    let mut topics = Vec::new();
    while !body.is_empty() {
        let wrong = WireError::Field {
            field: "length of a topic list",
            found: body.len() as u64,
            expected: "whole records with their names",
        };
        let name_bytes = match body.get(..size_of::<TopicRecord>()) {
            Some(record) => pod_read_unaligned::<TopicRecord>(record).name_bytes,
            None => return Err(wrong),
        };
        let whole = size_of::<TopicRecord>() + usize::from(name_bytes);
        let (one, rest) = body.split_at_checked(whole).ok_or(wrong)?;
        let (record, name) = one.split_at(size_of::<TopicRecord>());
        topics.push(parse_record(record, frame::check_topic_name(name)?)?);
        body = rest;
    }
    Ok(topics)
}

/// Named cursors, as a list tells them.
pub(crate) fn parse_cursors(body: &[u8]) -> Result<Vec<(String, Order)>, WireError> {
    let records = body.chunks_exact(size_of::<CursorRecord>());
    if !records.remainder().is_empty() {
        let (field, found) = ("length of a cursor list", body.len() as u64);
        return Err(WireError::Field { field, found, expected: "whole records" });
    }
    let parse = |record| {
        let CursorRecord { order, name_bytes, name, .. } = pod_read_unaligned(record);
        let text = name.get(..name_bytes as usize).unwrap_or(&[]);
        Ok((frame::check_cursor_name(text)?.to_owned(), Order(order)))
    };
    records.map(parse).collect()
}

/// A topic, as its record tells it.
pub(crate) fn parse_record(bytes: &[u8], name: &str) -> Result<TopicInfo, WireError> {
    if bytes.len() != size_of::<TopicRecord>() {
        let found = bytes.len() as u64;
        return Err(WireError::Field { field: "length of a topic record", found, expected: "80" });
    }
    let record: TopicRecord = pod_read_unaligned(bytes);
    Ok(TopicInfo {
        name: name.to_owned(),
        properties: TopicProperties {
            order: OrderLevel::from_byte(record.order_level)?,
            ack: AckLevel::from_byte(record.ack_level)?,
            receipts: Receipts::from_byte(record.receipts)?,
            replicas: record.replicas,
            retention_bytes: record.retention_bytes,
            retention_age: Duration::from_nanos(record.retention_ns),
        },
        id: record.id,
        generation: record.generation,
        created_at: record.created_at,
        next_order: Order(record.next_order),
        earliest_order: Order(record.earliest_order),
        kept_bytes: record.kept_bytes,
        taken_bytes: record.taken_bytes,
    })
}

#[cfg(test)]
mod tests {
    use bytemuck::bytes_of;

    use super::*;

    #[test]
    fn lists_that_do_not_add_up_are_refused() {
        let record = |name_bytes| TopicRecord { name_bytes, order_level: 5, ack_level: 1, ..TopicRecord::zeroed() };
        let two = [bytes_of(&record(1)), b"a", bytes_of(&record(3)), b"bcd"].concat();
        let names: Vec<_> = parse_list(&two).unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["a", "bcd"]);
        assert!(parse_list(&[]).unwrap().is_empty());
        for cut in [1, 79, 80, two.len() - 1] {
            assert!(parse_list(&two[..cut]).is_err(), "cut at {cut}");
        }
        let levels = [bytes_of(&TopicRecord { order_level: 3, ..record(1) }), b"a"].concat();
        assert!(parse_list(&levels).is_err());
    }
}
