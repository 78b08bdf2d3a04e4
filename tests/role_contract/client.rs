//! A client that never blocks, so that it and the roles take turns on one thread. It says what it is told to, reads when it is
//! told to, and checks whatever comes: acks go up, batches are whole and in order.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use embarcadero::limits::BATCH_BYTES_MAX;
use embarcadero::wire::frame::{self, Ack, BatchHeader, CaughtUp, Goodbye, Hello, Refused, Role, Welcome};
use embarcadero::wire::message::push;
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{FrameKind, Refusal, StartAt, crc32c, padded};

/// A hello that takes the topic as it is.
const ANY_LEVEL: u8 = 255;

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Bytes to write, and how many of them are written.
    out: (Vec<u8>, usize),
    input: Vec<u8>,
    next_seq: u64,
    delivered_next: HashMap<u64, u64>,
    /// Whether it takes what the broker says.
    pub is_reading: bool,
    /// What the broker answered its hello with.
    pub welcome: Option<Welcome>,
    /// Batches acked.
    pub acked: u64,
    /// Batches delivered.
    pub delivered: u64,
    /// Requests answered.
    pub replies: u64,
    /// Whether it was told that there is no more.
    pub is_caught_up: bool,
    /// Why the broker refused it.
    pub refused: Option<Refusal>,
    /// Whether the broker has closed.
    pub is_over: bool,
}

impl Client {
    /// Connected, and silent.
    pub fn silent(address: SocketAddr) -> Client {
        // What the kernel gives it anyway, and not the 32 MB that it would let it grow to while it does not read.
        Client::with_receive_buffer(address, 64 << 10)
    }

    /// The buffer's size is set before it connects: a window that was offered is not taken back.
    fn with_receive_buffer(address: SocketAddr, bytes: usize) -> Client {
        use rustix::net::{AddressFamily, SocketType, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("there are sockets");
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes).expect("sockets can");
        connect(&socket, &address).expect("the listener listens");
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).expect("sockets can");
        stream.set_nodelay(true).expect("sockets can");
        Client {
            stream,
            out: (Vec::new(), 0),
            input: Vec::new(),
            next_seq: 0,
            delivered_next: HashMap::new(),
            is_reading: true,
            welcome: None,
            acked: 0,
            delivered: 0,
            replies: 0,
            is_caught_up: false,
            refused: None,
            is_over: false,
        }
    }

    /// Connects and asks for a session.
    pub fn publisher(address: SocketAddr, topic: &str) -> Client {
        let mut client = Client::silent(address);
        let hello = Hello { role: Role::Publisher as u8, ack_level: 1, order_level: ANY_LEVEL, ..Hello::default() };
        client.say(&frame::with_body(&hello, topic.as_bytes()));
        client
    }

    /// Connects as another connection of a publisher's session.
    pub fn joining(address: SocketAddr, topic: &str, first: &Client) -> Client {
        let Welcome { session, token, session_epoch, .. } = first.welcome.expect("its session is open");
        // The least there is: once it does not read, it is full after a few acks, and stays so. A larger one takes a little more each
        // time the kernel asks again, for minutes.
        let mut client = Client::with_receive_buffer(address, 1);
        let (role, ack_level) = (Role::Publisher as u8, 1);
        let hello =
            Hello { role, ack_level, order_level: ANY_LEVEL, session, token, session_epoch, ..Hello::default() };
        client.say(&frame::with_body(&hello, topic.as_bytes()));
        client
    }

    /// Connects and asks for everything from the earliest message on.
    pub fn subscriber(address: SocketAddr, topic: &str) -> Client {
        let mut client = Client::silent(address);
        let hello = Hello { role: Role::Subscriber as u8, order_level: ANY_LEVEL, ..Hello::default() };
        let mut body = Vec::new();
        push_start(&mut body, topic, StartAt::Earliest, 0);
        client.say(&frame::with_body(&hello, &body));
        client
    }

    /// Says these bytes as the socket takes them.
    pub fn say(&mut self, bytes: &[u8]) {
        self.out.0.extend_from_slice(bytes);
        self.pump();
    }

    /// The next batch of its session: one message of this length.
    pub fn next_batch(&mut self, payload_bytes: usize) -> Vec<u8> {
        let welcome = self.welcome.expect("welcomed before it publishes");
        let mut body = Vec::new();
        push(&mut body, &vec![self.next_seq as u8; payload_bytes]);
        let header = BatchHeader {
            session: welcome.session,
            session_epoch: welcome.session_epoch,
            topic: welcome.topic,
            batch_seq: self.next_seq,
            message_count: 1,
            body_bytes: body.len() as u32,
            body_crc: crc32c(&body),
            ..BatchHeader::default()
        };
        self.next_seq += 1;
        body.resize(padded(body.len() as u64) as usize, 0);
        [&frame::seal(&header)[..], &body].concat()
    }

    /// Publishes batches of one message each.
    pub fn publish(&mut self, batches: u64, payload_bytes: usize) {
        for _ in 0..batches {
            let batch = self.next_batch(payload_bytes);
            self.out.0.extend_from_slice(&batch);
        }
        self.pump();
    }

    /// Says goodbye.
    pub fn goodbye(&mut self) {
        self.say(&frame::seal(&Goodbye::default()));
    }

    /// Batches published, sent or still to be.
    pub fn published(&self) -> u64 {
        self.next_seq
    }

    /// Whether the socket took all there was to say.
    pub fn is_sent(&self) -> bool {
        self.out.1 == self.out.0.len()
    }

    /// Writes and reads what can be without waiting.
    pub fn pump(&mut self) {
        while self.out.1 < self.out.0.len() {
            match self.stream.write(&self.out.0[self.out.1..]) {
                Ok(bytes) => self.out.1 += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The broker has closed; what it said last can still be read.
                Err(_) => self.out.1 = self.out.0.len(),
            }
        }
        if self.is_sent() {
            self.out.0.clear();
            self.out.1 = 0;
        }
        if self.is_reading {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        while !self.is_over {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(bytes) => self.input.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_over = true,
            }
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(header) = input.get(at..at + 64) {
            let header: [u8; 64] = header.try_into().expect("64 bytes");
            let kind = frame::check(&header, BATCH_BYTES_MAX).expect("a broker's frame is sound");
            let bytes = frame::frame_bytes(&header) as usize;
            let Some(body) = input.get(at + 64..at + bytes) else { break };
            self.take(kind, &header, body);
            at += bytes;
        }
        self.input = input[at..].to_vec();
    }

    fn take(&mut self, kind: FrameKind, header: &[u8; 64], body: &[u8]) {
        match kind {
            FrameKind::Welcome => self.welcome = Some(frame::read(header)),
            FrameKind::Ack => {
                let ack: Ack = frame::read(header);
                assert!(ack.committed_next >= self.acked, "acks go up");
                self.acked = ack.committed_next;
            }
            FrameKind::Deliver => {
                let batch: [u8; 64] = body[..64].try_into().expect("a batch begins with its header");
                let batch: BatchHeader = frame::read(&batch);
                let next = self.delivered_next.entry(batch.session).or_default();
                assert_eq!(batch.batch_seq, *next, "no batch is left out, doubled or out of order");
                *next += 1;
                assert_eq!(crc32c(&body[64..64 + batch.body_bytes as usize]), batch.body_crc, "a batch is whole");
                self.delivered += 1;
                self.is_caught_up = false;
            }
            FrameKind::CaughtUp => {
                let _: CaughtUp = frame::read(header);
                self.is_caught_up = true;
            }
            FrameKind::Reply => self.replies += 1,
            FrameKind::Refused => {
                let refused: Refused = frame::read(header);
                self.refused = Refusal::from_code(refused.code);
            }
            other => panic!("a broker does not say {other:?}"),
        }
    }
}
