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

use crate::client::backoff::Backoff;
use crate::client::deadline;
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::handshake::{Call, Greeting, Handshake};
use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::net::socket_options::{SILENCE, keep_little, prepare};
use crate::wire::frame::{self, Hello};
use crate::wire::{FrameKind, WireError};

/// A connection that was welcomed, nonblocking, and what with.
pub(crate) type Welcomed = (TcpStream, Greeting);

/// Connects, says hello and waits for the answer.
pub(crate) fn dial(call: &Call) -> Result<Welcomed, ClientError> {
    let deadline = deadline::within(call.timeout);
    let io = |doing, error: io::Error| ClientError::io(&call.address, doing, &error);
    let mut stream = connect(&call.address, deadline).map_err(|error| io("connecting to", error))?;
    prepare(&stream, SILENCE)
        .and_then(|()| keep_little(&stream))
        .map_err(|error| io("setting socket options towards", error))?;
    stream.set_write_timeout(Some(remaining(deadline))).map_err(|error| io("setting a timeout towards", error))?;
    stream.write_all(&call.hello_bytes()).map_err(|error| io("sending the hello to", error))?;
    let mut handshake = Handshake::of(call);
    let greeting = loop {
        let mut bytes = vec![0; handshake.wanted()];
        read_exact(&mut stream, &mut bytes, deadline).map_err(|error| io("waiting for the welcome of", error))?;
        if let Some(greeting) = handshake.heard(&bytes)? {
            break greeting;
        }
    };
    stream.set_nonblocking(true).map_err(|error| io("setting nonblocking mode towards", error))?;
    Ok((stream, greeting))
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

/// Tries the brokers in turn until one welcomes, one refuses for good, or `timeout` has passed.
pub(crate) fn dial_any(
    brokers: &[String],
    hello: &Hello,
    body: &[u8],
    welcomes: usize,
    timeout: Duration,
) -> Result<Welcomed, ClientError> {
    let deadline = deadline::within(timeout);
    let mut backoff = Backoff::default();
    let mut tried = Vec::new();
    let mut refusal = None;
    loop {
        tried.clear();
        for (index, broker) in brokers.iter().enumerate() {
            // A silent broker leaves the ones after it their share of the time.
            let share = remaining(deadline) / (brokers.len() - index) as u32;
            let call = Call { address: broker.clone(), hello: *hello, body: body.to_vec(), welcomes, timeout: share };
            match dial(&call) {
                Ok(welcomed) => return Ok(welcomed),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    tried.push(Attempt { broker: broker.clone(), failure: error.to_string() });
                    refusal = matches!(error, ClientError::Refused { .. }).then_some(error).or(refusal);
                }
            }
        }
        if Instant::now() + backoff.pause() >= deadline {
            let unreachable = ClientError::Unreachable { waited: timeout, tried: Attempts(tried) };
            return Err(refusal.unwrap_or(unreachable));
        }
        thread::sleep(backoff.fail());
    }
}

/// Result of an attempt made by a [`Dialer`].
pub(crate) struct Dialed {
    /// Whose connection it is, and which of its attempts.
    pub port: usize,
    pub generation: u64,
    pub result: Result<Welcomed, ClientError>,
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
