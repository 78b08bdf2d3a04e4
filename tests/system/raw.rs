//! The wire protocol by hand, as PROTOCOL.md tells it: for what the client library would never send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use embarcadero::limits::BATCH_BYTES_MAX;
use embarcadero::wire::frame::{self, Ack, BatchHeader, Frame, Hello, Refused, Role, Welcome};
use embarcadero::wire::message::push;
use embarcadero::wire::{FrameKind, Refusal, crc32c, padded};

use rustix::net::{AddressFamily, SocketType};

use crate::harness::{LIMIT, wait_for};

/// A hello that takes the topic as it is.
const ANY_LEVEL: u8 = 255;

/// A frame as it came.
#[derive(Debug)]
pub struct Came {
    pub kind: FrameKind,
    pub header: [u8; 64],
    pub body: Vec<u8>,
}

/// A connection that says whatever it is told to.
pub struct Raw {
    stream: TcpStream,
}

/// A publisher's hello for a new session.
pub fn publisher_hello() -> Hello {
    Hello { role: Role::Publisher as u8, ack_level: 1, order_level: ANY_LEVEL, ..Hello::default() }
}

/// A hello that joins a session.
pub fn join_hello(welcome: &Welcome) -> Hello {
    let Welcome { session, token, session_epoch, .. } = *welcome;
    Hello { session, token, session_epoch, ..publisher_hello() }
}

/// A whole batch frame of these payloads, sound in every part.
pub fn batch(welcome: &Welcome, batch_seq: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    payloads.iter().for_each(|payload| push(&mut body, payload));
    let Welcome { session, session_epoch, topic, .. } = *welcome;
    let message_count = payloads.len() as u32;
    frame_of(&BatchHeader { session, session_epoch, topic, batch_seq, message_count, ..BatchHeader::default() }, body)
}

/// A batch frame with this header, its length and CRCs made to fit this body.
pub fn frame_of(header: &BatchHeader, mut body: Vec<u8>) -> Vec<u8> {
    let header = BatchHeader { body_bytes: body.len() as u32, body_crc: crc32c(&body), ..*header };
    body.resize(padded(body.len() as u64) as usize, 0);
    [&frame::seal(&header)[..], &body].concat()
}

impl Raw {
    pub fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Raw { stream }
    }

    /// As [`Raw::connect`], from this address of this host.
    pub fn connect_from(from: [u8; 4], address: &str) -> Raw {
        let connect = || -> std::io::Result<TcpStream> {
            let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            rustix::net::bind(&fd, &SocketAddr::from((from, 0)))?;
            rustix::net::connect(&fd, &address.parse::<SocketAddr>().expect("numbers"))?;
            Ok(TcpStream::from(fd))
        };
        let stream = connect().unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Raw { stream }
    }

    /// Connects and opens a session.
    pub fn publisher(address: &str, topic: &str) -> (Raw, Welcome) {
        let mut raw = Raw::connect(address);
        raw.send(&frame::with_body(&publisher_hello(), topic.as_bytes()));
        let welcome = raw.expect::<Welcome>();
        (raw, welcome)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("writing {} bytes: {error}", bytes.len()));
    }

    /// Sends to a broker that may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Nothing more will be sent; what the broker says can still be read.
    pub fn finish(&mut self) {
        // The broker may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next frame, or nothing if the broker has closed.
    pub fn receive(&mut self) -> Option<Came> {
        let mut header = [0; 64];
        if self.fill(&mut header, true) == 0 {
            return None;
        }
        let kind = frame::check(&header, BATCH_BYTES_MAX).unwrap_or_else(|error| panic!("from the broker: {error}"));
        let mut body = vec![0; frame::frame_bytes(&header) as usize - header.len()];
        self.fill(&mut body, false);
        let body = match kind {
            FrameKind::Deliver => body,
            _ => frame::check_body(&header, &body).unwrap_or_else(|error| panic!("from the broker: {error}")).to_vec(),
        };
        Some(Came { kind, header, body })
    }

    fn fill(&mut self, buffer: &mut [u8], may_end: bool) -> usize {
        let deadline = Instant::now() + LIMIT;
        let mut filled = 0;
        while filled < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {LIMIT:?} for a frame of the broker, {filled} bytes came");
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) if may_end && filled == 0 => return 0,
                Ok(0) => panic!("the broker closed in the middle of a frame"),
                Ok(bytes) => filled += bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
                Err(error) => panic!("reading a frame of the broker: {error}"),
            }
        }
        filled
    }

    /// Whether anything can be read, waiting `timeout` at most. True if the broker has closed.
    pub fn can_read(&mut self, timeout: Duration) -> bool {
        self.stream.set_read_timeout(Some(timeout)).unwrap();
        !matches!(self.stream.peek(&mut [0]), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// How many heartbeats have come by now; other frames are passed over.
    pub fn heartbeats_so_far(&mut self) -> usize {
        let mut count = 0;
        while self.can_read(Duration::from_millis(1)) {
            let came = self.receive().expect("the broker is there");
            count += usize::from(came.kind == FrameKind::Heartbeat);
        }
        count
    }

    /// The next frame, which is of this kind.
    pub fn expect<F: Frame>(&mut self) -> F {
        let came = self.receive().unwrap_or_else(|| panic!("the broker closed where {:?} was due", F::KIND));
        let text = String::from_utf8_lossy(&came.body);
        assert_eq!(came.kind, F::KIND, "the broker said {text:?}");
        frame::read(&came.header)
    }

    /// Acks may come, then a refusal with this code, then the end. Gives its detail.
    pub fn expect_refused(&mut self, refusal: Refusal) -> u64 {
        self.refused(refusal).0
    }

    /// As [`Raw::expect_refused`]; gives the words.
    pub fn expect_refused_in_words(&mut self, refusal: Refusal) -> String {
        self.refused(refusal).1
    }

    /// Whether a Welcome comes next, and not a refusal.
    pub fn is_welcome(&mut self) -> bool {
        self.receive().is_some_and(|came| came.kind == FrameKind::Welcome)
    }

    /// Reads until the broker has closed or reset the connection, whatever it says.
    pub fn until_closed(&mut self) {
        self.stream.set_read_timeout(Some(LIMIT)).unwrap();
        while self.stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
    }

    /// Whether the broker has ended the connection, after whatever it said.
    pub fn has_ended(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }

    /// The broker ends the connection.
    pub fn expect_end(&mut self) {
        wait_for("the broker to end a connection", || self.has_ended().then_some(()));
    }

    fn refused(&mut self, refusal: Refusal) -> (u64, String) {
        let came = loop {
            match self.receive().unwrap_or_else(|| panic!("the broker closed without a word, {refusal:?} was due")) {
                came if came.kind == FrameKind::Ack => continue,
                came => break came,
            }
        };
        assert_eq!(came.kind, FrameKind::Refused, "where {refusal:?} was due");
        let refused: Refused = frame::read(&came.header);
        let text = String::from_utf8(came.body).expect("reasons are UTF-8");
        assert_eq!(Refusal::from_code(refused.code), Some(refusal), "the broker's words: {text}");
        assert!(!text.is_empty(), "{refusal:?} comes with its reason in words");
        self.expect_closed();
        (refused.detail, text)
    }

    /// The broker closes, and says nothing before but acks.
    pub fn expect_closed(&mut self) {
        while let Some(came) = self.receive() {
            assert_eq!(came.kind, FrameKind::Ack, "where the broker was to close");
        }
    }

    /// Reads acks until this many batches are committed.
    pub fn wait_acked(&mut self, batches: u64) {
        let mut last = 0;
        while last < batches {
            let ack: Ack = self.expect();
            assert!(ack.committed_next >= last, "acks go up");
            last = ack.committed_next;
        }
        assert_eq!(last, batches, "batches acked that were never sent");
    }

    /// Waits until the broker has taken all that was sent out of its socket, so that what is sent next comes to it apart.
    pub fn wait_taken(&self) {
        let (ours, theirs) = (self.stream.local_addr().unwrap(), self.stream.peer_addr().unwrap());
        let (ours, theirs) = (proc_address(ours), proc_address(theirs));
        wait_for("the broker to take what was sent", || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
            // Local address, remote address, state, tx_queue:rx_queue.
            let queues = |local: &str, remote: &str| {
                let line = table.lines().find(|line| line.contains(&format!("{local} {remote}")))?;
                let (sent, received) = line.split_whitespace().nth(4)?.split_once(':')?;
                Some((u32::from_str_radix(sent, 16).unwrap(), u32::from_str_radix(received, 16).unwrap()))
            };
            let (unsent, _) = queues(&ours, &theirs)?;
            let (_, untaken) = queues(&theirs, &ours)?;
            (unsent == 0 && untaken == 0).then_some(())
        });
    }
}

/// As `/proc/net/tcp` writes it: the address as a number in host order, in hexadecimal.
fn proc_address(address: std::net::SocketAddr) -> String {
    match address {
        std::net::SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        std::net::SocketAddr::V6(_) => unreachable!("sites have IPv4 addresses"),
    }
}
