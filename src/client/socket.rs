//! The publisher's end of one live connection: acks and refusals out of a byte stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::client::dial::remaining;
use crate::limits::{BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::frame::{self, Ack, Goodbye, Refused};
use crate::wire::{FrameKind, WireError};

/// Room for a run of acks, and for the longest refusal.
const INBOX_BYTES: usize = FRAME_HEADER_BYTES + CONTROL_BODY_BYTES_MAX;

/// A frame that a broker may send to a publisher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Ack(Ack),
    Heartbeat,
    Refused(Refused, Vec<u8>),
}

/// What one read gave.
pub(crate) enum Received {
    Nothing,
    /// `more`: the room was filled, so there may be more to read.
    Bytes {
        more: bool,
    },
}

/// A nonblocking connection and the bytes of it that are not decoded yet: `inbox[start..end]`.
pub(crate) struct Socket {
    stream: TcpStream,
    inbox: Box<[u8; INBOX_BYTES]>,
    start: usize,
    end: usize,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, inbox: Box::new([0; INBOX_BYTES]), start: 0, end: 0 }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once. The frames of the last read must have been taken. A closed connection is an error.
    pub fn receive(&mut self) -> io::Result<Received> {
        self.inbox.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = &mut self.inbox[self.end..];
        assert!(!room.is_empty(), "the longest frame fits, and whole ones were taken");
        let room_bytes = room.len();
        match self.stream.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.end += bytes;
                Ok(Received::Bytes { more: bytes == room_bytes })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Bytes { more: true }),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Heard>, WireError> {
        match parse(&self.inbox[self.start..self.end])? {
            Some((bytes, heard)) => {
                self.start += bytes;
                Ok(Some(heard))
            }
            None => Ok(None),
        }
    }

    /// Says goodbye. A failure loses nothing: everything is acked, and the broker sees the connection close.
    pub fn goodbye(mut self, deadline: Instant) -> Option<Leaving> {
        self.stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(remaining(deadline))))
            .and_then(|()| self.stream.write_all(&frame::seal(&Goodbye::default())))
            .and_then(|()| self.stream.shutdown(Shutdown::Write))
            .ok()?;
        Some(Leaving(self))
    }
}

/// A connection on which everything is said.
pub(crate) struct Leaving(Socket);

impl Leaving {
    /// Lets the kernel send what it still has, until the broker closes or `deadline`: closing with acks unread would reset the
    /// connection, and with it what the broker has not read.
    pub fn wait(mut self, deadline: Instant) {
        let Socket { stream, inbox, .. } = &mut self.0;
        let mut read = || {
            stream.set_read_timeout(Some(remaining(deadline))).is_ok()
                && stream.read(&mut inbox[..]).is_ok_and(|bytes| bytes > 0)
        };
        while read() && Instant::now() < deadline {}
    }
}

/// The frame at the start of `bytes` and its length, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Heard)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    match frame::check(header, BATCH_BYTES_MAX)? {
        FrameKind::Ack => Ok(Some((FRAME_HEADER_BYTES, Heard::Ack(frame::read(header))))),
        FrameKind::Heartbeat => Ok(Some((FRAME_HEADER_BYTES, Heard::Heartbeat))),
        FrameKind::Refused => {
            let whole = frame::frame_bytes(header) as usize;
            let Some(body) = rest.get(..whole - FRAME_HEADER_BYTES) else { return Ok(None) };
            let text = frame::check_body(header, body)?.to_vec();
            Ok(Some((whole, Heard::Refused(frame::read(header), text))))
        }
        found => Err(WireError::UnexpectedKind { found, expected: "Ack, Heartbeat or Refused" }),
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
