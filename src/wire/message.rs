//! The framing of messages inside a batch: header, payload, padding, again.

use bytemuck::{bytes_of, pod_read_unaligned};

use crate::described;
use crate::limits::{MESSAGE_ALIGNMENT_BYTES, MESSAGE_HEADER_BYTES};

described! {
    /// In front of each message of a batch. The payload follows, padded to a multiple of 16 bytes.
    pub struct MessageHeader: 16 {
        /// length of the payload in bytes, without its padding
        payload_bytes: u32,
        /// 1 once the broker has stamped `ts` (topics with receipts per message); a publisher sends 0
        received: u8,
        /// 0; reserved, and refused until it is used
        attributes: u8,
        /// 0; reserved for the length of a key, and refused until it is used
        key_bytes: u16,
        /// broker's clock at receipt, UTC ns (topics with receipts per message); a publisher sends 0
        ts: u64,
    }
}

/// Bytes a message of this payload takes in a batch.
pub const fn message_bytes(payload_bytes: u64) -> u64 {
    MESSAGE_HEADER_BYTES + payload_bytes.next_multiple_of(MESSAGE_ALIGNMENT_BYTES)
}

/// Reads the message header at the start of `bytes`.
///
/// # Panics
/// If there are fewer than 16 bytes.
pub fn read_header(bytes: &[u8]) -> MessageHeader {
    pod_read_unaligned(&bytes[..MESSAGE_HEADER_BYTES as usize])
}

impl MessageHeader {
    /// Whether it says nothing that no version defines.
    pub fn is_defined(&self) -> bool {
        self.received <= 1 && self.attributes == 0 && self.key_bytes == 0
    }
}

/// Appends one message to the body of a batch under construction.
pub fn push(body: &mut Vec<u8>, payload: &[u8]) {
    let header = MessageHeader { payload_bytes: payload.len() as u32, received: 0, attributes: 0, key_bytes: 0, ts: 0 };
    body.extend_from_slice(bytes_of(&header));
    body.extend_from_slice(payload);
    body.resize(body.len().next_multiple_of(MESSAGE_ALIGNMENT_BYTES as usize), 0);
}

/// Whether a body is this many messages, one behind the other, with headers that are defined, and nothing else.
pub fn is_framed(body: &[u8], messages: u32) -> bool {
    let mut at = 0;
    for _ in 0..messages {
        let Some(header) = body.get(at..at + MESSAGE_HEADER_BYTES as usize) else { return false };
        let header = read_header(header);
        if !header.is_defined() {
            return false;
        }
        at += message_bytes(header.payload_bytes.into()) as usize;
    }
    at == body.len()
}

/// The messages of a body whose framing has been checked by the batch decoder.
#[derive(Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Over a checked body without padding.
    pub fn new(body: &'a [u8]) -> Self {
        Messages { rest: body }
    }
}

/// One message as it lies in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header as it lies there.
    #[doc(hidden)]
    pub header: MessageHeader,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// Broker's clock when it received this message, UTC ns; none unless the topic has receipts per message.
    #[must_use]
    pub fn received_at(&self) -> Option<u64> {
        (self.header.received != 0).then_some(self.header.ts)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let header = read_header(self.rest);
        let start = MESSAGE_HEADER_BYTES as usize;
        let payload = &self.rest[start..start + header.payload_bytes as usize];
        self.rest = &self.rest[message_bytes(header.payload_bytes.into()) as usize..];
        Some(Message { header, payload })
    }
}
