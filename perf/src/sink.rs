//! The limit of publishing: a receiver that answers hellos and then only receives.
//!
//! One thread, one io_uring, one RECV armed for each connection, into a mapped file of the pool's kind that was touched in
//! advance: what a broker would do if it neither checked, ordered, acked nor kept anything. Bytes land in pieces of an extent
//! taken in turn from the whole file, so that its cache footprint is a broker's. On topic [`FLUSH_TOPIC`] every byte is also
//! written back as a broker does on a pool that is not coherent between hosts. On topic [`STREAM_TOPIC`] bytes land in a small part of
//! the file that stays in the caches, and go from there to their place by stores past these: what is copied twice, and memory touched once.
//!
//! On these topics it sends no acks, so its client runs at ack level 0, and the end of a run is what it says: the moment the last
//! byte had landed here. Such a client fills socket buffers: what a receiver that owes acks cannot let it do. So on topic
//! [`ACK_TOPIC`] every whole batch is acked, by its header alone, and the end of a run is the last ack. It ends when its
//! standard input does.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embarcadero::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, LINE_BYTES, WINDOW_BATCHES_MAX};
use embarcadero::net::{Asker, Completion, Network, Ring};
use embarcadero::pool::{Keep, Mapped, Mapping, Memory, Software};
use embarcadero::runtime::Io;
use embarcadero::wire::frame::{self, Ack, Goodbye, Hello, NOTHING_LET_GO, Welcome};
use embarcadero::wire::{AckLevel, OrderLevel};
use tools_common::clock::monotonic_ns;

use crate::args::SinkArgs;
use crate::error::CompareError;
use crate::walk::Walk;

/// Topic whose bytes are only received.
pub const RECEIVE_TOPIC: &str = "receive";
/// Topic whose bytes are also written back.
pub const FLUSH_TOPIC: &str = "flush";
/// Topic whose bytes are received into a cache and streamed on.
pub const STREAM_TOPIC: &str = "stream";
/// Topic whose batches are also acked.
pub const ACK_TOPIC: &str = "ack";
/// What a connection fills before it takes the next piece: a broker's default extent.
const PIECE_BYTES: u64 = 8 << 20;
/// A piece with less room than this is left: as a broker's run is.
const ROOM_MIN_BYTES: u64 = 4096;
/// Connections and listeners at a time.
const OPERATIONS_MAX: u32 = 4096;
/// Time a client has for its hello, which is read before anything is timed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest sleep of the loop.
const SLEEP: Duration = Duration::from_millis(500);
/// Connections at most whose bytes are streamed on: each lands in its own part of a piece.
const STREAMS_MAX: u64 = 16;
/// Tags from here on are listeners'.
const LISTENERS: u64 = 1 << 32;

/// What is done with received bytes.
enum Work {
    Nothing,
    Flush,
    Stream,
    Ack(Walk, u64),
}

struct Connection {
    stream: TcpStream,
    work: Work,
    /// Where its piece ends.
    end: u64,
    /// Where the next byte lands.
    at: u64,
}

impl Connection {
    /// Where the next receive of the connection of this number lands.
    fn lands_at(&self, index: usize) -> u64 {
        match self.work {
            // Each has its own part of the first piece.
            Work::Stream => PIECE_BYTES / STREAMS_MAX * (index as u64 % STREAMS_MAX),
            _ => self.at,
        }
    }
}

/// What was received since the first connection of a run.
#[derive(Default)]
struct Received {
    connections: u32,
    bytes: u64,
    /// When the last batch bytes had landed; a Goodbye alone does not count.
    last_ns: u64,
}

struct Sink {
    ring: Ring,
    memory: Mapped<Software>,
    listeners: Vec<TcpListener>,
    /// The Welcome's body.
    broker_list: String,
    connections: Vec<Option<Connection>>,
    open: u32,
    /// Pieces handed out; the file has `pieces`.
    taken: u64,
    pieces: u64,
    receive_bytes: u64,
    received: Received,
}

/// Serves until standard input ends.
pub fn run(args: &SinkArgs) -> Result<(), CompareError> {
    let mut sink = Sink::new(args)?;
    end_with_standard_input();
    for index in 0..sink.listeners.len() {
        sink.accept(index);
    }
    println!("ready");
    loop {
        while let Some(completion) = sink.ring.next_completion() {
            sink.complete(completion)?;
        }
        match sink.ring.submit(Some(SLEEP)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(CompareError::io("sink: waiting in io_uring")(error));
            }
            _ => (),
        }
    }
}

/// Whoever started this process holds the other end: no sink is left behind.
pub fn end_with_standard_input() {
    std::thread::spawn(|| {
        let mut line = String::new();
        while io::stdin().lock().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(0);
    });
}

/// A file of the pool's kind, every page of it touched.
pub fn map(path: &Path, bytes: u64) -> io::Result<Arc<Mapping>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(bytes)?;
    let mapping = Mapping::new(memmap2::MmapRaw::map_raw(&file)?);
    mapping.populate(0, bytes)?;
    Ok(mapping)
}

impl Sink {
    fn new(args: &SinkArgs) -> Result<Sink, CompareError> {
        let pieces = args.pool_bytes / PIECE_BYTES;
        if pieces < 2 {
            return Err(CompareError::Usage(format!("a sink needs a pool of at least {} bytes", 2 * PIECE_BYTES)));
        }
        let mapping = map(&args.pool, args.pool_bytes)
            .map_err(CompareError::io(format!("sink: mapping {}", args.pool.display())))?;
        let ring = Ring::new(OPERATIONS_MAX, 0, mapping.clone())
            .map_err(|error| CompareError::Usage(format!("sink: {error}")))?;
        let listen = |address: &SocketAddr| {
            TcpListener::bind(address).map_err(CompareError::io(format!("sink: listening on {address}")))
        };
        let listeners = args.listen.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let line = |(id, address): (usize, &SocketAddr)| format!("{id} {address}\n");
        Ok(Sink {
            ring,
            memory: Mapped::new(mapping),
            listeners,
            broker_list: args.listen.iter().enumerate().map(line).collect(),
            connections: Vec::new(),
            open: 0,
            taken: 0,
            pieces,
            receive_bytes: args.receive_bytes,
            received: Received::default(),
        })
    }

    fn accept(&mut self, listener: usize) {
        let asker = Asker { role: 0, tag: LISTENERS + listener as u64 };
        let begun = self.ring.accept(asker, &self.listeners[listener]);
        assert!(begun.is_some(), "the ring has room for every listener");
    }

    fn complete(&mut self, completion: Completion) -> Result<(), CompareError> {
        let Some(listener) = completion.tag.checked_sub(LISTENERS) else {
            return self.landed(completion.tag as usize, completion.result);
        };
        if let Some(stream) = self.ring.take_accepted() {
            match welcome(stream, listener as u16, &self.broker_list) {
                Ok((stream, work)) => self.begin(stream, work),
                Err(error) => eprintln!("sink: a client was not welcomed: {error}"),
            }
        }
        self.accept(listener as usize);
        Ok(())
    }

    fn begin(&mut self, stream: TcpStream, work: Work) {
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[index] = Some(Connection { stream, work, end: 0, at: 0 });
        self.open += 1;
        self.received.connections += 1;
        self.arm(index);
    }

    /// Arms a receive with all the room that is left, as far as one receive may ask.
    fn arm(&mut self, index: usize) {
        let connection = self.connections[index].as_mut().expect("only an open connection is armed");
        if connection.end - connection.at < ROOM_MIN_BYTES {
            // The first piece is where streamed bytes land.
            connection.at = (1 + self.taken % (self.pieces - 1)) * PIECE_BYTES;
            connection.end = connection.at + PIECE_BYTES;
            self.taken += 1;
        }
        let bytes = (connection.end - connection.at).min(self.receive_bytes);
        let asker = Asker { role: 0, tag: index as u64 };
        let at = connection.lands_at(index);
        let begun = self.ring.receive_pool(asker, connection.stream.as_raw_fd(), at, bytes);
        assert!(begun.is_some(), "the ring has room for every connection");
    }

    fn landed(&mut self, index: usize, result: i32) -> Result<(), CompareError> {
        if result <= 0 {
            return self.closed(index);
        }
        let bytes = result as u64;
        let connection = self.connections[index].as_mut().expect("a receive ends before its connection does");
        let landed_at = connection.lands_at(index);
        match &mut connection.work {
            Work::Nothing => {}
            Work::Flush => {
                self.memory.write_back(connection.at, bytes, Keep::Cached);
                self.memory.store_fence();
            }
            Work::Stream => {
                // What is no whole line goes with the next bytes of a broker; here it goes as a line.
                let (target, lines) = (connection.at - connection.at % LINE_BYTES, bytes.next_multiple_of(LINE_BYTES));
                self.memory.with_bytes(landed_at, lines, |bytes| self.memory.stream_in(target, bytes));
                self.memory.store_fence();
            }
            Work::Ack(walk, acked) => {
                let batches = self.memory.with_bytes(connection.at, bytes, |bytes| walk.landed(bytes));
                if batches > *acked {
                    *acked = batches;
                    // A client that is gone needs no ack, and shows as such at the next receive.
                    let _ = connection.stream.write_all(&ack(batches));
                }
            }
        }
        connection.at += bytes;
        self.received.bytes += bytes;
        // No batch is as short as a Goodbye, and a piece that short of the last batch is lost in the noise.
        if bytes > std::mem::size_of::<Goodbye>() as u64 {
            self.received.last_ns = monotonic_ns();
        }
        self.arm(index);
        Ok(())
    }

    /// With its last connection a run ends, and whoever started this process is told.
    fn closed(&mut self, index: usize) -> Result<(), CompareError> {
        self.connections[index] = None;
        self.open -= 1;
        if self.open == 0 {
            let Received { connections, bytes, last_ns } = std::mem::take(&mut self.received);
            let mut out = io::stdout().lock();
            writeln!(out, "run {connections} {bytes} {last_ns}")
                .and_then(|()| out.flush())
                .map_err(CompareError::io("sink: reporting a run"))?;
        }
        Ok(())
    }
}

/// Every batch of the connection below this number has landed.
fn ack(committed_next: u64) -> [u8; FRAME_HEADER_BYTES] {
    let session_epoch = 1;
    frame::seal(&Ack { session: 1, session_epoch, committed_next, let_go_from: NOTHING_LET_GO, ..Ack::default() })
}

/// Reads the hello and answers it, and says what the client wants done.
fn welcome(mut stream: TcpStream, broker: u16, broker_list: &str) -> io::Result<(TcpStream, Work)> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    frame::check(&header, BATCH_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    let mut body = vec![0; frame::frame_bytes(&header) as usize - FRAME_HEADER_BYTES];
    stream.read_exact(&mut body)?;
    let topic = frame::check_body(&header, &body).and_then(frame::check_topic_name);
    let topic = topic.map_err(|error| wrong(error.to_string()))?;
    let hello: Hello = frame::read(&header);
    let (work, acks) = match topic {
        RECEIVE_TOPIC => (Work::Nothing, AckLevel::None),
        FLUSH_TOPIC => (Work::Flush, AckLevel::None),
        STREAM_TOPIC => (Work::Stream, AckLevel::None),
        ACK_TOPIC => (Work::Ack(Walk::default(), 0), AckLevel::Committed),
        _ => {
            return Err(wrong(format!(
                "topic {topic:?}; a sink has {RECEIVE_TOPIC}, {FLUSH_TOPIC}, {STREAM_TOPIC} and {ACK_TOPIC}"
            )));
        }
    };
    if hello.ack_level != acks as u8 {
        return Err(wrong(format!("topic {topic:?} at ack level {}, not {}", hello.ack_level, acks as u8)));
    }
    let welcome = Welcome {
        session: 1,
        session_epoch: 1,
        topic: 1,
        batch_bytes_max: (PIECE_BYTES / 4) as u32,
        order_level: OrderLevel::None as u8,
        ack_level: acks as u8,
        broker,
        window_batches_max: WINDOW_BATCHES_MAX,
        ..Welcome::default()
    };
    stream.write_all(&frame::with_body(&welcome, broker_list.as_bytes()))?;
    stream.set_read_timeout(None)?;
    Ok((stream, work))
}
