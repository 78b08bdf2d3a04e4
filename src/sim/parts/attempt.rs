//! How clients open connections, over the simulated network: what dialing comes to there.

use std::io::ErrorKind;
use std::time::Duration;

use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::client::handshake::{Call, Greeting, Handshake};
use crate::sim::kernel::Kernel;
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::REDIAL_NS;

/// A run lasts a second or so: clients are as patient as that allows.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
pub(super) const BACKOFF: Backoff =
    Backoff::within(Duration::from_nanos(REDIAL_NS), Duration::from_nanos(8 * REDIAL_NS));

/// Addresses of brokers that have moved equally often.
const ADDRESSES: u32 = 16;

/// What clients call the brokers when they begin.
pub(super) fn addresses(kernel: &Kernel) -> Vec<String> {
    let brokers = kernel.with(|state| state.scenario.brokers.len());
    (0..brokers as u32).map(|broker| address(broker, 0)).collect()
}

/// What clients call a broker that has moved so often.
pub(super) fn address(broker: u32, moves: u32) -> String {
    // There is no port 0.
    format!("broker:{}", 1 + broker + moves * ADDRESSES)
}

/// The broker that was meant, and how often it had moved.
fn meant(address: &str) -> Option<(u32, u32)> {
    let port: u32 = address.strip_prefix("broker:")?.parse().ok()?;
    Some(((port - 1) % ADDRESSES, (port - 1) / ADDRESSES))
}

/// An attempt in the air. Its [`link`](Attempt::link) is to be closed unless it becomes a connection.
pub(super) struct Attempt {
    pub link: LinkId,
    call: Call,
    handshake: Handshake,
    until_ns: u64,
}

impl Attempt {
    /// Connects, and says hello.
    pub fn begin(kernel: &Kernel, call: Call) -> Result<Attempt, ClientError> {
        let Some(link) = meant(&call.address).and_then(|(broker, moves)| kernel.dial_at(broker, moves)) else {
            return Err(ClientError::io(&call.address, "connecting to", &ErrorKind::ConnectionRefused.into()));
        };
        // A new connection has room for these words.
        kernel.write(link, End::Client, &call.hello_bytes());
        let until_ns = kernel.now_ns() + call.timeout.as_nanos() as u64;
        Ok(Attempt { link, handshake: Handshake::of(&call), call, until_ns })
    }

    /// Listens once. None: the answer is not whole.
    pub fn listen(&mut self, kernel: &Kernel) -> Option<Result<Greeting, ClientError>> {
        let failed = |kind: ErrorKind| {
            Some(Err(ClientError::io(&self.call.address, "waiting for the welcome of", &kind.into())))
        };
        match kernel.read(self.link, End::Client, self.handshake.wanted()) {
            Heard::Nothing if kernel.now_ns() >= self.until_ns => failed(ErrorKind::TimedOut),
            Heard::Nothing => None,
            Heard::End => failed(ErrorKind::UnexpectedEof),
            Heard::Bytes(bytes) => self.handshake.heard(&bytes).transpose(),
        }
    }
}

/// The first connection of a client: brokers are tried until one welcomes.
pub(super) struct Opening {
    call: Call,
    attempt: Option<Attempt>,
    retry_ns: u64,
}

impl Opening {
    pub fn new(call: Call) -> Opening {
        Opening { call, attempt: None, retry_ns: 0 }
    }

    /// Goes on with it. Gives the connection, and what it was welcomed with, or why it was not: then it is tried again.
    pub fn step(&mut self, kernel: &Kernel) -> Option<Result<(LinkId, Greeting), ClientError>> {
        let Some(attempt) = &mut self.attempt else {
            if kernel.now_ns() >= self.retry_ns {
                self.retry_ns = kernel.now_ns() + REDIAL_NS;
                let addresses = addresses(kernel);
                self.call.address.clone_from(&addresses[kernel.below(addresses.len() as u64) as usize]);
                self.attempt = Attempt::begin(kernel, self.call.clone()).ok();
            }
            return None;
        };
        let (result, link) = (attempt.listen(kernel)?, attempt.link);
        self.attempt = None;
        if result.is_err() {
            kernel.close(link, End::Client);
        }
        Some(result.map(|greeting| (link, greeting)))
    }
}
