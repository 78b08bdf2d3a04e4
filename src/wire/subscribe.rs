//! The body of a subscriber's hello: which topics, and where each starts.

use bytemuck::{bytes_of, pod_read_unaligned};

use crate::described;
use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::wire::error::WireError;
use crate::wire::frame::check_topic_name;

/// Records begin on multiples of this many bytes.
const RECORD_ALIGNMENT: usize = 8;

described! {
    /// One topic of a subscriber's hello; its name follows, padded to a multiple of 8 bytes.
    pub struct StartRecord: 16 {
        /// where to start: 0 at an order, 1 earliest, 2 latest, 3 at a time of receipt
        kind: u8,
        /// length of the name in bytes, 1 to 112
        name_bytes: u8,
        /// 0
        reserved: [u8; 6],
        /// kind 0: order of the first message wanted; kind 3: UTC ns; else 0
        value: u64,
    }
}

/// Where a subscriber starts in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The message of this order.
    Order(u64),
    /// The oldest message that is still kept.
    Earliest,
    /// The next message to be ordered.
    Latest,
    /// The first batch, in the topic's order, that a broker had received at this time or later, UTC ns; if there is none,
    /// the next to be ordered. Brokers' clocks differ, so batches of an earlier receipt may follow.
    Timestamp(u64),
}

/// Bytes that a topic of this name takes in a hello.
pub fn record_bytes(name: &str) -> usize {
    size_of::<StartRecord>() + name.len().next_multiple_of(RECORD_ALIGNMENT)
}

/// Adds a topic to a hello's body.
///
/// # Panics
/// If the name is longer than the limit: names are checked where they come in.
pub fn push_start(body: &mut Vec<u8>, name: &str, start: StartAt) {
    let name_bytes = u8::try_from(name.len()).expect("topic names are short");
    let (kind, value) = match start {
        StartAt::Order(order) => (0, order),
        StartAt::Earliest => (1, 0),
        StartAt::Latest => (2, 0),
        StartAt::Timestamp(utc_ns) => (3, utc_ns),
    };
    body.extend(bytes_of(&StartRecord { kind, name_bytes, reserved: [0; 6], value }));
    body.extend(name.as_bytes());
    body.resize(body.len().next_multiple_of(RECORD_ALIGNMENT), 0);
}

/// The topics of a hello's body, in its order; at least one.
pub fn read_starts(body: &[u8]) -> Result<Vec<(&str, StartAt)>, WireError> {
    assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "checked with the header");
    let overrun = |found: usize| WireError::Field {
        field: "body_bytes",
        found: found as u64,
        expected: "whole records: 16 bytes and a name padded to 8 bytes",
    };
    let mut topics = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let Some((head, tail)) = rest.split_first_chunk::<{ size_of::<StartRecord>() }>() else {
            return Err(overrun(body.len()));
        };
        let record: StartRecord = pod_read_unaligned(head);
        let bytes = usize::from(record.name_bytes);
        let name = tail.get(..bytes).ok_or(overrun(body.len()))?;
        let start = match record.kind {
            0 => StartAt::Order(record.value),
            1 => StartAt::Earliest,
            2 => StartAt::Latest,
            3 => StartAt::Timestamp(record.value),
            found => return Err(WireError::Field { field: "kind", found: found.into(), expected: "0, 1, 2 or 3" }),
        };
        topics.push((check_topic_name(name)?, start));
        rest = tail.get(bytes.next_multiple_of(RECORD_ALIGNMENT)..).ok_or(overrun(body.len()))?;
    }
    if topics.is_empty() { Err(WireError::TopicName { found: 0 }) } else { Ok(topics) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let long = "n".repeat(112);
        let topics = [
            ("a", StartAt::Earliest),
            (long.as_str(), StartAt::Order(7)),
            ("eightchr", StartAt::Latest),
            ("é", StartAt::Timestamp(9)),
        ];
        let mut body = Vec::new();
        topics.iter().for_each(|(name, start)| push_start(&mut body, name, *start));
        assert_eq!(body.len(), topics.iter().map(|(name, _)| record_bytes(name)).sum::<usize>());
        assert_eq!(read_starts(&body).unwrap(), topics);
        assert_eq!(read_starts(&[]), Err(WireError::TopicName { found: 0 }));
        for cut in 1..body.len() {
            // A body cut between two records is a shorter list.
            if let Ok(found) = read_starts(&body[..cut]) {
                assert_eq!(found, topics[..found.len()], "cut at {cut}");
            }
        }
        body[0] = 4;
        assert!(matches!(read_starts(&body), Err(WireError::Field { field: "kind", found: 4, .. })));
        body[0] = 1;
        body[1] = 113;
        assert!(read_starts(&body).is_err());
    }
}
