//! The wire protocol by hand, for what the client library would never do. Every connection comes from an address of its own
//! kind, so that a broker can tell it from the clients it is measured beside, and ends without a goodbye.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use embarcadero::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use embarcadero::wire::frame::{self, BatchHeader, Hello, Role, Welcome};
use embarcadero::wire::message::push;
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{FrameKind, StartAt, crc32c, padded};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// Where all of them come from; all of 127/8 is this host.
const FROM: ([u8; 4], u16) = ([127, 66, 6, 6], 0);
/// A broker that takes nothing, or says nothing, for so long is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// A hello that takes the topic as it is.
const ANY_LEVEL: u8 = 255;

/// A connection that says whatever it is told to.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// With a receive buffer of about so many bytes; 0: the system's.
    pub fn connect(to: SocketAddr, receive_bytes: usize) -> io::Result<Raw> {
        let fd: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        if receive_bytes > 0 {
            sockopt::set_socket_recv_buffer_size(fd.as_fd(), receive_bytes)?;
        }
        // Ends at once, and leaves no port behind that waits for its time to be over.
        sockopt::set_socket_linger(fd.as_fd(), Some(Duration::ZERO))?;
        bind(&fd, &SocketAddr::from(FROM))?;
        connect(&fd, &to)?;
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Raw { stream })
    }

    /// Says it, all of it.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Whatever has come; 0 if the broker has closed.
    pub fn read(&mut self, into: &mut [u8], timeout: Duration) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.read(into)
    }

    /// Waits for a frame and gives it if it is of this kind.
    pub fn expect<F: frame::Frame>(&mut self) -> io::Result<F> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.read_exact(&mut header)?;
        let kind = frame::check(&header, BATCH_BYTES_MAX).map_err(io::Error::other)?;
        let mut body = vec![0; frame::frame_bytes(&header) as usize - header.len()];
        self.stream.read_exact(&mut body)?;
        if kind == F::KIND { Ok(frame::read(&header)) } else { Err(refused(kind, &body)) }
    }

    /// Opens a session.
    pub fn publisher(to: SocketAddr, topic: &str, receive_bytes: usize) -> io::Result<(Raw, Welcome)> {
        Raw::welcomed(to, &publisher_hello(topic), receive_bytes)
    }

    /// Opens a session, and wants to be told all the time that the broker is there.
    pub fn publisher_with_heartbeats(to: SocketAddr, topic: &str) -> io::Result<Raw> {
        let hello = frame::with_body(&hello(Role::Publisher).speaking(), topic.as_bytes());
        Ok(Raw::welcomed(to, &hello, 0)?.0)
    }

    fn welcomed(to: SocketAddr, hello: &[u8], receive_bytes: usize) -> io::Result<(Raw, Welcome)> {
        let mut raw = Raw::connect(to, receive_bytes)?;
        raw.say(hello)?;
        let welcome = raw.expect()?;
        Ok((raw, welcome))
    }

    /// Subscribes from the earliest message on.
    pub fn subscriber(to: SocketAddr, topic: &str, receive_bytes: usize) -> io::Result<Raw> {
        let hello = frame::with_body(&hello(Role::Subscriber), &from_the_earliest(topic));
        Ok(Raw::welcomed(to, &hello, receive_bytes)?.0)
    }

    /// Subscribes likewise, and wants to be told all the time that the broker is there.
    pub fn subscriber_with_heartbeats(to: SocketAddr, topic: &str) -> io::Result<Raw> {
        let hello = frame::with_body(&hello(Role::Subscriber).speaking(), &from_the_earliest(topic));
        Ok(Raw::welcomed(to, &hello, 0)?.0)
    }
}

fn from_the_earliest(topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    push_start(&mut body, topic, StartAt::Earliest, 0);
    body
}

fn hello(role: Role) -> Hello {
    let ack_level = u8::from(role == Role::Publisher);
    Hello { role: role as u8, ack_level, order_level: ANY_LEVEL, ..Hello::default() }
}

fn refused(kind: FrameKind, body: &[u8]) -> io::Error {
    io::Error::other(format!("{kind:?}: {}", String::from_utf8_lossy(body)))
}

/// Opens a session, once it is said.
pub fn publisher_hello(topic: &str) -> Vec<u8> {
    frame::with_body(&hello(Role::Publisher), topic.as_bytes())
}

/// A batch of one message, sound in every part.
pub fn batch(welcome: &Welcome, batch_seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push(&mut body, payload);
    let Welcome { session, session_epoch, topic, .. } = *welcome;
    let (body_bytes, body_crc) = (body.len() as u32, crc32c(&body));
    let said = BatchHeader { session, session_epoch, topic, batch_seq, message_count: 1, ..BatchHeader::default() };
    body.resize(padded(body.len() as u64) as usize, 0);
    [&frame::seal(&BatchHeader { body_bytes, body_crc, ..said })[..], &body].concat()
}
