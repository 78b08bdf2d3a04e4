//! Opening a connection: connect, hello, and the broker's answer, all within one deadline.
//!
//! [`dial`] blocks. What must not block (a publisher with other live connections) lets a [`Dialer`] do it: a short-lived
//! thread for each attempt, so that a silent host costs nobody else a wait. Attempts in the air are bounded by the
//! number of connections, and each ends by its own timeout.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::deadline;
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::limits::{BATCH_BYTES_MAX, BROKERS_MAX, FRAME_HEADER_BYTES};
use crate::net::socket_options::{SILENCE, prepare};
use crate::wire::frame::{self, Hello, LogRecord, Refused, Welcome};
use crate::wire::{FrameKind, WireError};

/// First and longest pause between two attempts to reach the same broker.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// `order_level` of a hello that takes the topic as it is.
pub(crate) const ANY_ORDER_LEVEL: u8 = 255;

/// One attempt.
#[derive(Clone)]
pub(crate) struct Call {
    /// `host:port`.
    pub address: String,
    pub hello: Hello,
    /// The hello's body.
    pub body: Vec<u8>,
    /// How many welcomes are due.
    pub welcomes: usize,
    pub timeout: Duration,
}

/// A connection that was welcomed. The stream is nonblocking.
pub(crate) struct Greeting {
    pub stream: TcpStream,
    pub address: String,
    pub welcome: Welcome,
    /// Which log it is; nothing is said of it under version 2.
    pub log: Option<LogRecord>,
    /// A subscriber's welcomes to its further topics.
    pub more: Vec<Welcome>,
    /// Every broker of the pool: id and `host:port`.
    pub brokers: Vec<(u16, String)>,
    /// How often this broker is heard at least, even if it has nothing to say; zero: it does not promise.
    pub heartbeat: Duration,
}

/// Connects, says hello and waits for the answer.
pub(crate) fn dial(call: &Call) -> Result<Greeting, ClientError> {
    let deadline = deadline::within(call.timeout);
    let io = |doing, error: io::Error| ClientError::io(&call.address, doing, &error);
    let mut stream = connect(&call.address, deadline).map_err(|error| io("connecting to", error))?;
    prepare(&stream, SILENCE).map_err(|error| io("setting socket options towards", error))?;
    stream.set_write_timeout(Some(remaining(deadline))).map_err(|error| io("setting a timeout towards", error))?;
    let hello = frame::with_body(&call.hello.speaking(), &call.body);
    stream.write_all(&hello).map_err(|error| io("sending the hello to", error))?;
    let wire = |error| ClientError::wire(&call.address, error);
    let (welcome, body) = answer(&mut stream, call, deadline)?;
    let (log, list) = frame::split_welcome_body(welcome.version, &body).map_err(wire)?;
    let brokers = parse_brokers(list).map_err(wire)?;
    let more = (1..call.welcomes).map(|_| answer(&mut stream, call, deadline).map(|(welcome, _)| welcome));
    let more = more.collect::<Result<Vec<_>, _>>()?;
    stream.set_nonblocking(true).map_err(|error| io("setting nonblocking mode towards", error))?;
    let heartbeat = Duration::from_millis(log.map_or(0, |log| log.heartbeat_ms).into());
    Ok(Greeting { stream, address: call.address.clone(), welcome, log, more, brokers, heartbeat })
}

/// Holds the log that a broker serves against the one that is gone on with; keeps it if none is known yet. Numbers of one log mean nothing
/// in another, so nobody goes on with them there.
pub(crate) fn same_log(ours: &mut Option<LogRecord>, greeting: &Greeting) -> Result<(), ClientError> {
    let name = |log: &LogRecord| format!("{:016x}{:016x}", log.uuid[0], log.uuid[1]);
    match (&*ours, &greeting.log) {
        (Some(ours), Some(theirs)) if (ours.uuid, ours.fork) != (theirs.uuid, theirs.fork) => {
            let (broker, found, expected) = (greeting.address.clone(), name(theirs), name(ours));
            Err(ClientError::OtherLog { broker, found, expected })
        }
        (None, theirs) => {
            *ours = *theirs;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is left until `deadline`; never zero, which the socket options would take for "for ever".
pub(crate) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The addresses of a name. The system's look-up knows no deadline of ours, so names are looked up on a thread of their own, which is
/// left behind when the time is over and ends by itself.
fn resolve(address: &str, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(numeric) = address.parse() {
        return Ok(vec![numeric]);
    }
    let (tell, told) = channel();
    let name = address.to_owned();
    let look_up = move || drop(tell.send(name.to_socket_addrs().map(Vec::from_iter)));
    thread::Builder::new().name("embarcadero-name".to_owned()).spawn(look_up)?;
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, "the name was not found in time: does the name server answer?");
    told.recv_timeout(remaining(deadline)).unwrap_or_else(|_| Err(late()))
}

/// The first address of the name that accepts.
pub(crate) fn connect(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_address in resolve(address, deadline)? {
        match TcpStream::connect_timeout(&socket_address, remaining(deadline)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Err(last)
}

/// The Welcome and its body, or the refusal as an error.
fn answer(stream: &mut TcpStream, call: &Call, deadline: Instant) -> Result<(Welcome, Vec<u8>), ClientError> {
    let wire = |error| ClientError::wire(&call.address, error);
    let (header, body) = read_frame(stream, &call.address, "waiting for the welcome of", deadline)?;
    match frame::check(&header, BATCH_BYTES_MAX).map_err(wire)? {
        FrameKind::Welcome => Ok((frame::read(&header), body)),
        FrameKind::Refused => Err(refused(&call.address, &frame::read(&header), &body)),
        found => Err(wire(WireError::UnexpectedKind { found, expected: "Welcome or Refused" })),
    }
}

/// The next control frame of a broker: its header and its body, both checked.
pub(crate) fn read_frame(
    stream: &mut TcpStream,
    broker: &str,
    doing: &'static str,
    deadline: Instant,
) -> Result<([u8; FRAME_HEADER_BYTES], Vec<u8>), ClientError> {
    let io = |error: io::Error| ClientError::io(broker, doing, &error);
    let wire = |error| ClientError::wire(broker, error);
    let mut header = [0; FRAME_HEADER_BYTES];
    read_exact(stream, &mut header, deadline).map_err(io)?;
    let kind = frame::check(&header, BATCH_BYTES_MAX).map_err(wire)?;
    if matches!(kind, FrameKind::Batch | FrameKind::Deliver) {
        return Err(wire(WireError::UnexpectedKind { found: kind, expected: "a control frame" }));
    }
    let mut padded_body = vec![0; frame::frame_bytes(&header) as usize - FRAME_HEADER_BYTES];
    read_exact(stream, &mut padded_body, deadline).map_err(io)?;
    let body = frame::check_body(&header, &padded_body).map_err(wire)?.to_vec();
    Ok((header, body))
}

/// A Refused frame as an error.
pub(crate) fn refused(broker: &str, refused: &Refused, text: &[u8]) -> ClientError {
    ClientError::Refused {
        broker: broker.to_owned(),
        code: refused.code,
        detail: refused.detail,
        place: refused.place.into(),
        text: String::from_utf8_lossy(text).into_owned(),
    }
}

/// `read_exact` whose timeout covers the whole, not each piece.
fn read_exact(stream: &mut TcpStream, mut wanted: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !wanted.is_empty() {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(remaining(deadline)))?;
        match stream.read(wanted) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => wanted = &mut wanted[bytes..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The Welcome's body: one line `id address:port` for every broker.
fn parse_brokers(body: &[u8]) -> Result<Vec<(u16, String)>, WireError> {
    let wrong = |line: usize| WireError::Field {
        field: "line of the broker list",
        found: line as u64,
        expected: "`id address:port` in UTF-8, one line for each broker",
    };
    let text = std::str::from_utf8(body).map_err(|_| wrong(0))?;
    let mut brokers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (id, address) = line.split_once(' ').ok_or(wrong(index))?;
        let id = id.parse().map_err(|_| wrong(index))?;
        if index >= BROKERS_MAX as usize || !address.contains(':') {
            return Err(wrong(index));
        }
        brokers.push((id, address.to_owned()));
    }
    brokers.sort();
    brokers.dedup_by_key(|(id, _)| *id);
    Ok(brokers)
}

/// Tries the brokers in turn until one welcomes, one refuses for good, or `timeout` has passed.
pub(crate) fn dial_any(
    brokers: &[String],
    hello: &Hello,
    body: &[u8],
    welcomes: usize,
    timeout: Duration,
) -> Result<Greeting, ClientError> {
    let deadline = deadline::within(timeout);
    let mut pause = BACKOFF_MIN;
    let mut tried = Vec::new();
    let mut refusal = None;
    loop {
        tried.clear();
        for (index, broker) in brokers.iter().enumerate() {
            // A silent broker leaves the ones after it their share of the time.
            let share = remaining(deadline) / (brokers.len() - index) as u32;
            let call = Call { address: broker.clone(), hello: *hello, body: body.to_vec(), welcomes, timeout: share };
            match dial(&call) {
                Ok(greeting) => return Ok(greeting),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    tried.push(Attempt { broker: broker.clone(), failure: error.to_string() });
                    refusal = matches!(error, ClientError::Refused { .. }).then_some(error).or(refusal);
                }
            }
        }
        if Instant::now() + pause >= deadline {
            let unreachable = ClientError::Unreachable { waited: timeout, tried: Attempts(tried) };
            return Err(refusal.unwrap_or(unreachable));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// Result of an attempt made by a [`Dialer`].
pub(crate) struct Dialed {
    /// Whose connection it is, and which of its attempts.
    pub port: usize,
    pub generation: u64,
    pub result: Result<Greeting, ClientError>,
}

/// Makes attempts elsewhere and hands their results over.
pub(crate) struct Dialer {
    sender: Sender<Dialed>,
    results: Receiver<Dialed>,
}

impl Dialer {
    pub fn new() -> Dialer {
        let (sender, results) = channel();
        Dialer { sender, results }
    }

    /// Begins an attempt; its result comes through [`next`](Dialer::next), even if no thread could be started.
    pub fn begin(&self, port: usize, generation: u64, call: Call) {
        let sender = self.sender.clone();
        let address = call.address.clone();
        // A failed send means that the dialer is gone and nobody wants the connection.
        let attempt = move || drop(sender.send(Dialed { port, generation, result: dial(&call) }));
        if let Err(error) = thread::Builder::new().name("embarcadero-dial".to_owned()).spawn(attempt) {
            let result = Err(ClientError::io(&address, "starting a thread to reach", &error));
            drop(self.sender.send(Dialed { port, generation, result }));
        }
    }

    /// A result that has arrived.
    pub fn next(&self) -> Option<Dialed> {
        self.results.try_recv().ok()
    }

    /// A result, waited for.
    pub fn wait(&self, timeout: Duration) -> Option<Dialed> {
        self.results.recv_timeout(timeout).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_lists() {
        let parsed = parse_brokers(b"1 b:2\n0 a:1\n").unwrap();
        assert_eq!(parsed, [(0, "a:1".to_owned()), (1, "b:2".to_owned())]);
        assert!(parse_brokers(b"").unwrap().is_empty());
        for bad in [&b"x a:1"[..], b"1", b"1 a", b"70000 a:1", b"\xff"] {
            assert!(matches!(parse_brokers(bad), Err(WireError::Field { .. })), "{bad:?}");
        }
    }
}
