//! What a publisher hears on a live connection: acks, heartbeats and refusals, out of bytes as they come.

use crate::client::handshake::parse_brokers;
use crate::limits::{BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::frame::{self, Ack, Refused};
use crate::wire::{FrameKind, WireError};

/// Room for a run of acks, and for the longest refusal.
const INBOX_BYTES: usize = FRAME_HEADER_BYTES + CONTROL_BODY_BYTES_MAX;

/// A frame that a broker may send to a publisher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Ack(Ack),
    Heartbeat,
    /// The brokers there are from now on.
    Brokers(Vec<(u16, String)>),
    Refused(Refused, Vec<u8>),
}

/// Bytes that are not decoded yet: `bytes[start..end]`.
///
/// Call order: [`room`](HeardInbox::room), [`landed`](HeardInbox::landed) with how many bytes came into it, then
/// [`next_frame`](HeardInbox::next_frame) until it has none.
pub(crate) struct HeardInbox {
    bytes: Box<[u8; INBOX_BYTES]>,
    start: usize,
    end: usize,
}

impl Default for HeardInbox {
    fn default() -> HeardInbox {
        HeardInbox { bytes: Box::new([0; INBOX_BYTES]), start: 0, end: 0 }
    }
}

impl HeardInbox {
    /// Where to read into; never empty, once the whole frames were taken.
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        assert!(self.end < INBOX_BYTES, "the longest frame fits, and whole ones were taken");
        &mut self.bytes[self.end..]
    }

    pub fn landed(&mut self, bytes: usize) {
        assert!(bytes <= INBOX_BYTES - self.end);
        self.end += bytes;
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Heard>, WireError> {
        match parse(&self.bytes[self.start..self.end])? {
            Some((bytes, heard)) => {
                self.start += bytes;
                Ok(Some(heard))
            }
            None => Ok(None),
        }
    }
}

/// The length of a control frame and its body, of which `rest` is what came behind the header; if it is whole.
pub(super) fn whole_body<'a>(
    header: &[u8; FRAME_HEADER_BYTES],
    rest: &'a [u8],
) -> Result<Option<(usize, &'a [u8])>, WireError> {
    let whole = frame::frame_bytes(header) as usize;
    let Some(body) = rest.get(..whole - FRAME_HEADER_BYTES) else { return Ok(None) };
    Ok(Some((whole, frame::check_body(header, body)?)))
}

/// The frame at the start of `bytes` and its length, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Heard)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    match frame::check(header, BATCH_BYTES_MAX)? {
        FrameKind::Ack => Ok(Some((FRAME_HEADER_BYTES, Heard::Ack(frame::read(header))))),
        FrameKind::Heartbeat => Ok(Some((FRAME_HEADER_BYTES, Heard::Heartbeat))),
        FrameKind::Refused => {
            let Some((whole, text)) = whole_body(header, rest)? else { return Ok(None) };
            Ok(Some((whole, Heard::Refused(frame::read(header), text.to_vec()))))
        }
        FrameKind::Brokers => {
            let Some((whole, list)) = whole_body(header, rest)? else { return Ok(None) };
            Ok(Some((whole, Heard::Brokers(parse_brokers(list)?))))
        }
        found => Err(WireError::UnexpectedKind { found, expected: "Ack, Heartbeat, Brokers or Refused" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Welcome, seal, with_body};

    #[test]
    fn every_split_of_acks_and_a_refusal() {
        let ack = seal(&Ack { committed_next: 5, ..Ack::default() });
        let refused = with_body(&Refused { code: 10, ..Refused::default() }, &[b'x'; CONTROL_BODY_BYTES_MAX]);
        assert_eq!(refused.len(), INBOX_BYTES);
        for end in 0..refused.len() {
            assert_eq!(parse(&refused[..end]), Ok(None));
        }
        assert!(matches!(parse(&refused), Ok(Some((INBOX_BYTES, Heard::Refused(header, _)))) if header.code == 10));
        let two = [ack, ack].concat();
        assert!(matches!(parse(&two), Ok(Some((64, Heard::Ack(ack)))) if ack.committed_next == 5));
        assert!(parse(&seal(&Welcome::default())).is_err());
    }
}
