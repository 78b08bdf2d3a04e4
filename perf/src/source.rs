//! The limit of delivery: a sender that only sends; and of delivery while publishing: a relay that only receives and sends.
//!
//! One thread, one io_uring, out of a mapped file of the pool's kind that was touched in advance: what an exporter would do if it
//! followed no index, kept no pins and looked at no header. A connection's first 8 bytes say what it wants:
//! * a number of bytes, little-endian: they are sent in the vectors that an exporter sends (64 bytes, a batch, and again), then the
//!   connection is closed;
//! * [`RELAY_IN`]: what it sends from now on lands in the file, and goes out of the file to the connection that says [`RELAY_OUT`].
//!
//! It ends when its standard input does.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use embarcadero::net::network::SEND_LIST_MAX;
use embarcadero::net::{Asker, ListId, Network, Ring};
use embarcadero::runtime::Io;

use crate::args::SourceArgs;
use crate::error::CompareError;
use crate::sink::{end_with_standard_input, map};

/// First word of the connection whose bytes are relayed.
pub const RELAY_IN: u64 = u64::MAX;
/// First word of the connection they go to.
pub const RELAY_OUT: u64 = u64::MAX - 1;

const OPERATIONS_MAX: u32 = 256;
const SLEEP: Duration = Duration::from_millis(500);
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// A send is closed when it has this many bytes, as an exporter's.
const SEND_BYTES: u64 = 1 << 20;
const HEADER_BYTES: u64 = 64;
/// Tag of the accept; of the relay's receive; of its send; of a connection's send: its place.
const ACCEPT: u64 = 1 << 32;
const LANDED: u64 = 1 << 33;
const RELAYED: u64 = 1 << 34;

struct Connection {
    stream: TcpStream,
    list: ListId,
    /// Bytes still to be put into a list.
    left: u64,
    /// Where the next batch is taken from.
    at: u64,
}

/// Counts of bytes are absolute; a byte lies at its count modulo the file's length.
#[derive(Default)]
struct Relay {
    from: Option<TcpStream>,
    to: Option<TcpStream>,
    list: Option<ListId>,
    received: u64,
    sent: u64,
    /// Pieces of the file that were received and not sent.
    landed: VecDeque<(u64, u64)>,
    is_receiving: bool,
    is_sending: bool,
    is_over: bool,
}

struct Source {
    ring: Ring,
    listener: TcpListener,
    bytes: u64,
    batch_bytes: u64,
    receive_bytes: u64,
    connections: Vec<Option<Connection>>,
    relay: Relay,
}

/// Serves until standard input ends.
pub fn run(args: &SourceArgs) -> Result<(), CompareError> {
    let doing = || format!("source: mapping {}", args.pool.display());
    let mapping = map(&args.pool, args.pool_bytes).map_err(|error| CompareError::io(doing())(error))?;
    let ring =
        Ring::new(OPERATIONS_MAX, 0, mapping).map_err(|error| CompareError::Usage(format!("source: {error}")))?;
    let listener = TcpListener::bind(args.listen).map_err(CompareError::io("source: listening"))?;
    let mut source = Source {
        ring,
        listener,
        bytes: args.pool_bytes,
        batch_bytes: args.batch_bytes,
        receive_bytes: args.receive_bytes,
        connections: Vec::new(),
        relay: Relay::default(),
    };
    end_with_standard_input();
    source.accept();
    println!("ready");
    loop {
        while let Some(completion) = source.ring.next_completion() {
            source.complete(completion.tag, completion.result);
        }
        match source.ring.submit(Some(SLEEP)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(CompareError::io("source: waiting in io_uring")(error));
            }
            _ => (),
        }
    }
}

impl Source {
    fn accept(&mut self) {
        let begun = self.ring.accept(Asker { role: 0, tag: ACCEPT }, &self.listener);
        assert!(begun.is_some(), "the ring has room");
    }

    fn complete(&mut self, tag: u64, result: i32) {
        match tag {
            ACCEPT => {
                if let Some(stream) = self.ring.take_accepted() {
                    match first_word(&stream) {
                        Ok(word) => self.begin(stream, word),
                        Err(error) => eprintln!("source: a connection said nothing: {error}"),
                    }
                }
                self.accept();
            }
            LANDED => self.landed(result),
            RELAYED => self.relayed(result),
            place => self.sent(place as usize, result),
        }
    }

    fn begin(&mut self, stream: TcpStream, word: u64) {
        match word {
            RELAY_IN => self.relay.from = Some(stream),
            RELAY_OUT => {
                self.relay = Relay { to: Some(stream), list: self.relay.list.take(), ..Relay::default() };
                self.relay.list.get_or_insert_with(|| self.ring.take_list());
                return;
            }
            left => {
                let place = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
                    self.connections.push(None);
                    self.connections.len() - 1
                });
                let list = self.ring.take_list();
                self.connections[place] = Some(Connection { stream, list, left, at: 0 });
                return self.send(place);
            }
        }
        self.relay_on();
    }

    fn send(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        let list = self.ring.list(connection.list);
        while connection.left > 0 && list.len() < SEND_LIST_MAX && list.bytes() < SEND_BYTES {
            if connection.at + self.batch_bytes > self.bytes {
                connection.at = 0;
            }
            let bytes = self.batch_bytes.min(connection.left.saturating_sub(HEADER_BYTES));
            list.push(&[0; HEADER_BYTES as usize], connection.at, bytes);
            connection.at += self.batch_bytes;
            connection.left -= (bytes + HEADER_BYTES).min(connection.left);
        }
        if list.is_empty() {
            // It ends: the peer reads to the end.
            let _ = connection.stream.shutdown(Shutdown::Write);
            let list = connection.list;
            self.ring.give_back_list(list);
            self.connections[place] = None;
            return;
        }
        let (socket, list) = (connection.stream.as_raw_fd(), connection.list);
        let begun = self.ring.send_list(Asker { role: 0, tag: place as u64 }, socket, list, false);
        assert!(begun.is_some(), "the ring has room");
    }

    fn sent(&mut self, place: usize, result: i32) {
        let Some(connection) = &mut self.connections[place] else { return };
        let list = self.ring.list(connection.list);
        if result <= 0 {
            connection.left = 0;
            list.clear();
        } else {
            list.consume(result as u64);
        }
        if list.bytes() > 0 {
            let (socket, list) = (connection.stream.as_raw_fd(), connection.list);
            let begun = self.ring.send_list(Asker { role: 0, tag: place as u64 }, socket, list, false);
            assert!(begun.is_some(), "the ring has room");
            return;
        }
        list.clear();
        self.send(place);
    }

    /// Receives while there is room, sends while there is something.
    fn relay_on(&mut self) {
        let relay = &mut self.relay;
        let (Some(to), Some(list_id)) = (&relay.to, relay.list) else { return };
        let room = self.bytes - (relay.received - relay.sent);
        if let Some(from) = relay.from.as_ref().filter(|_| !relay.is_receiving && !relay.is_over && room > 0) {
            let at = relay.received % self.bytes;
            let bytes = room.min(self.bytes - at).min(self.receive_bytes);
            let begun = self.ring.receive_pool(Asker { role: 0, tag: LANDED }, from.as_raw_fd(), at, bytes);
            assert!(begun.is_some(), "the ring has room");
            relay.is_receiving = true;
        }
        if relay.is_sending {
            return;
        }
        let list = self.ring.list(list_id);
        while let Some((at, bytes)) = relay.landed.front().copied() {
            if list.is_full() || list.bytes() >= SEND_BYTES {
                break;
            }
            relay.landed.pop_front();
            // A list's item begins with a line of its own: a little more goes out than came in.
            list.push(&[0; HEADER_BYTES as usize], at, bytes);
        }
        if !list.is_empty() {
            let begun = self.ring.send_list(Asker { role: 0, tag: RELAYED }, to.as_raw_fd(), list_id, false);
            assert!(begun.is_some(), "the ring has room");
            relay.is_sending = true;
        } else if relay.is_over && relay.sent == relay.received {
            let _ = to.shutdown(Shutdown::Write);
            (relay.from, relay.to) = (None, None);
        }
    }

    fn landed(&mut self, result: i32) {
        let relay = &mut self.relay;
        relay.is_receiving = false;
        if result <= 0 {
            relay.is_over = true;
        } else {
            relay.landed.push_back((relay.received % self.bytes, result as u64));
            relay.received += result as u64;
        }
        self.relay_on();
    }

    fn relayed(&mut self, result: i32) {
        let relay = &mut self.relay;
        relay.is_sending = false;
        let Some(list_id) = relay.list else { return };
        let list = self.ring.list(list_id);
        if result <= 0 {
            (relay.is_over, relay.from, relay.to) = (true, None, None);
            list.clear();
            return;
        }
        list.consume(result as u64);
        if list.bytes() == 0 {
            list.clear();
            // Everything that had landed before the oldest piece left was sent.
            relay.sent = relay.received - relay.landed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        } else if let Some(to) = &relay.to {
            let begun = self.ring.send_list(Asker { role: 0, tag: RELAYED }, to.as_raw_fd(), list_id, false);
            assert!(begun.is_some(), "the ring has room");
            relay.is_sending = true;
            return;
        }
        self.relay_on();
    }
}

fn first_word(stream: &TcpStream) -> io::Result<u64> {
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut word = [0; 8];
    (&mut &*stream).read_exact(&mut word)?;
    Ok(u64::from_le_bytes(word))
}
