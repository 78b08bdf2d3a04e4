//! The publisher's end of one live connection.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::client::dial::remaining;
use crate::client::heard::{Heard, HeardInbox};
use crate::wire::WireError;
use crate::wire::frame::{self, Goodbye};

/// A socket that took less than it was offered is offered more when it says that it has room, which it does not say before
/// there is a good deal; or, for callers that never wait, after this time. Else every few bytes that the broker reads
/// are made good by a write of a few bytes.
const FULL_PAUSE: Duration = Duration::from_micros(500);

/// What one read gave.
pub(crate) enum Received {
    Nothing,
    /// `more`: the room was filled, so there may be more to read.
    Bytes {
        more: bool,
    },
}

/// A nonblocking connection, and what came over it.
pub(crate) struct Socket {
    stream: TcpStream,
    inbox: HeardInbox,
    /// It is full: no write before then.
    full_until: Option<Instant>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, inbox: HeardInbox::default(), full_until: None }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Until when nothing is to be written; none: something may be.
    pub fn full_until(&self) -> Option<Instant> {
        self.full_until
    }

    /// It says that it has room.
    pub fn has_room(&mut self) {
        self.full_until = None;
    }

    /// Writes once, if it is not full. Gives how many bytes it took; none: it was not asked, or was interrupted.
    pub fn write(&mut self, slices: &[IoSlice<'_>], now: Instant) -> io::Result<Option<usize>> {
        if self.full_until.is_some_and(|until| now < until) {
            return Ok(None);
        }
        self.full_until = None;
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = match self.stream.write_vectored(slices) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        };
        if taken < offered {
            self.full_until = Some(now + FULL_PAUSE);
        }
        Ok(Some(taken))
    }

    /// Reads once. The frames of the last read must have been taken. A closed connection is an error.
    pub fn receive(&mut self) -> io::Result<Received> {
        let room = self.inbox.room();
        let room_bytes = room.len();
        match self.stream.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.inbox.landed(bytes);
                Ok(Received::Bytes { more: bytes == room_bytes })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Bytes { more: true }),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Heard>, WireError> {
        self.inbox.next_frame()
    }

    /// Writes the rest of a frame that is half written, and says goodbye. A failure loses nothing: everything is acked, and the broker
    /// sees the connection close.
    pub fn goodbye(mut self, rest_of_frame: &[u8], deadline: Instant) -> Option<Leaving> {
        self.stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(remaining(deadline))))
            .and_then(|()| self.stream.write_all(rest_of_frame))
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
        let (stream, mut unread) = (&mut self.0.stream, [0; 4096]);
        let mut read = || {
            stream.set_read_timeout(Some(remaining(deadline))).is_ok()
                && stream.read(&mut unread).is_ok_and(|bytes| bytes > 0)
        };
        while read() && Instant::now() < deadline {}
    }
}
