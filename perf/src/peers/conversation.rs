//! A TCP connection that keeps what is to be sent and what was received and not understood yet.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

/// What is kept before it is sent even so, bytes.
const OUT_MAX: usize = 64 << 10;
/// Bytes asked for at once.
const RECEIVE_BYTES: usize = 256 << 10;
/// A wait of this length is the socket's own, without another call; others are not left to the socket, whose timeout the kernel counts in ticks of its own, of up to 10 ms.
pub const COARSE: Duration = Duration::from_millis(20);
/// Longest wait for a server that takes or says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One connection.
pub struct Conversation {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    understood: usize,
}

impl Conversation {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Conversation> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        stream.set_read_timeout(Some(COARSE))?;
        Ok(Conversation { stream, out: Vec::new(), input: Vec::new(), understood: 0 })
    }

    /// Keeps these bytes for sending.
    pub fn say(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        if self.out.len() >= OUT_MAX { self.send() } else { Ok(()) }
    }

    /// Sends what was kept.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Sends, and receives what there is; waits no longer than this if there is nothing. Whether anything came.
    pub fn receive(&mut self, longest: Duration) -> io::Result<bool> {
        self.send()?;
        self.input.drain(..std::mem::take(&mut self.understood));
        let kept = self.input.len();
        self.input.resize(kept + RECEIVE_BYTES, 0);
        let received = self.receive_behind(kept, longest);
        self.input.truncate(kept + *received.as_ref().unwrap_or(&0));
        Ok(received? > 0)
    }

    fn receive_behind(&mut self, kept: usize, longest: Duration) -> io::Result<usize> {
        let received = if longest == COARSE {
            self.stream.read(&mut self.input[kept..])
        } else {
            self.wait(longest)?;
            recv(&self.stream, &mut self.input[kept..], RecvFlags::DONTWAIT)
                .map(|(bytes, _)| bytes)
                .map_err(io::Error::from)
        };
        match received {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Until there is something to receive.
    fn wait(&self, longest: Duration) -> io::Result<()> {
        if !longest.is_zero() {
            let timeout = Timespec::try_from(longest).map_err(|_| io::ErrorKind::InvalidInput)?;
            poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&timeout))?;
        }
        Ok(())
    }

    /// What was received and is not understood yet.
    pub fn input(&self) -> &[u8] {
        &self.input[self.understood..]
    }

    /// So many bytes of it are.
    pub fn understand(&mut self, bytes: usize) {
        self.understood += bytes;
    }
}

/// The line at the beginning, without its end, and what is behind it. None: it is not whole.
pub fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}

/// A decimal number that is a whole word.
pub fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
