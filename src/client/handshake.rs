//! How a conversation with a broker begins: what is said, and what the answer comes to. Bytes in, bytes out.
//!
//! Whoever opens a connection (over TCP that is [`dial`](crate::client::dial)) writes [`Call::hello_bytes`], then reads exactly as many
//! bytes as the [`Handshake`] wants, again and again, until it gives the [`Greeting`]. It never wants a byte that lies behind the last
//! welcome, so what the broker says next stays where it is, for whoever goes on with the connection.

use std::time::Duration;

use crate::client::error::ClientError;
use crate::limits::{BATCH_BYTES_MAX, BROKERS_MAX, FRAME_HEADER_BYTES};
use crate::wire::frame::{self, Hello, LogRecord, Refused, Welcome};
use crate::wire::{FrameKind, WireError};

/// `order_level` of a hello that takes the topic as it is.
pub(crate) const ANY_ORDER_LEVEL: u8 = 255;

/// One attempt.
#[derive(Clone, Debug)]
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

impl Call {
    /// What is said first.
    pub fn hello_bytes(&self) -> Vec<u8> {
        frame::with_body(&self.hello.speaking(), &self.body)
    }
}

/// What a broker welcomed with.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
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

/// The answer to a [`Call`], as far as it was heard.
///
/// Call order: [`wanted`](Handshake::wanted), then [`heard`](Handshake::heard) with at most so many bytes; both again until `heard` gives
/// something.
pub(crate) struct Handshake {
    address: String,
    welcomes: usize,
    /// The frame that is coming.
    frame: Vec<u8>,
    greeting: Option<Greeting>,
}

impl Handshake {
    pub fn of(call: &Call) -> Handshake {
        assert!(call.welcomes > 0);
        Handshake { address: call.address.clone(), welcomes: call.welcomes, frame: Vec::new(), greeting: None }
    }

    /// Bytes that the frame which is coming still lacks, as far as its header says.
    pub fn wanted(&self) -> usize {
        let whole = match self.frame.first_chunk::<FRAME_HEADER_BYTES>() {
            Some(header) => frame::frame_bytes(header) as usize,
            None => FRAME_HEADER_BYTES,
        };
        whole - self.frame.len()
    }

    /// Takes what came. Gives the greeting once the last welcome is whole.
    ///
    /// # Errors
    /// The broker refused, or its bytes break the protocol: nothing more is to be heard.
    pub fn heard(&mut self, bytes: &[u8]) -> Result<Option<Greeting>, ClientError> {
        assert!(bytes.len() <= self.wanted(), "what follows is somebody else's");
        self.frame.extend(bytes);
        let Some(header) = self.frame.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let wire = |error| ClientError::wire(&self.address, error);
        let kind = frame::check(header, BATCH_BYTES_MAX).map_err(wire)?;
        if !matches!(kind, FrameKind::Welcome | FrameKind::Refused) {
            return Err(wire(WireError::UnexpectedKind { found: kind, expected: "Welcome or Refused" }));
        }
        if self.wanted() > 0 {
            return Ok(None);
        }
        let body = frame::check_body(header, &self.frame[FRAME_HEADER_BYTES..]).map_err(wire)?;
        if kind == FrameKind::Refused {
            return Err(refused(&self.address, &frame::read(header), body));
        }
        let welcome: Welcome = frame::read(header);
        match &mut self.greeting {
            Some(greeting) => greeting.more.push(welcome),
            None => self.greeting = Some(greeting(&self.address, welcome, body).map_err(wire)?),
        }
        self.frame.clear();
        let is_whole = self.greeting.as_ref().is_some_and(|greeting| greeting.more.len() + 1 == self.welcomes);
        Ok(if is_whole { self.greeting.take() } else { None })
    }
}

/// Of a first welcome.
fn greeting(address: &str, welcome: Welcome, body: &[u8]) -> Result<Greeting, WireError> {
    let (log, list) = frame::split_welcome_body(welcome.version, body)?;
    let heartbeat = Duration::from_millis(log.map_or(0, |log| log.heartbeat_ms).into());
    let brokers = parse_brokers(list)?;
    Ok(Greeting { address: address.to_owned(), welcome, log, more: Vec::new(), brokers, heartbeat })
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

/// The Welcome's body: one line `id address:port` for every broker.
pub(crate) fn parse_brokers(body: &[u8]) -> Result<Vec<(u16, String)>, WireError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn call(welcomes: usize) -> Call {
        let timeout = Duration::from_secs(1);
        Call { address: "b:1".to_owned(), hello: Hello::default(), body: Vec::new(), welcomes, timeout }
    }

    /// Feeds an answer in pieces of `piece` bytes at most. Gives the outcome, and how many bytes were wanted for it.
    fn play(call: &Call, answer: &[u8], piece: usize) -> (Result<Option<Greeting>, ClientError>, usize) {
        let (mut handshake, mut at) = (Handshake::of(call), 0);
        while at < answer.len() {
            let end = at + handshake.wanted().min(piece).min(answer.len() - at);
            assert!(end > at, "nothing is wanted, and nothing was given");
            match handshake.heard(&answer[at..end]) {
                Ok(None) => at = end,
                outcome => return (outcome, end),
            }
        }
        (Ok(None), at)
    }

    #[test]
    fn whatever_the_pieces_two_welcomes_greet_and_what_follows_is_not_touched() {
        let welcome = |topic, body: &[u8]| frame::with_body(&Welcome { topic, ..Welcome::default() }, body);
        let mut answer = [welcome(3, b"1 b:2\n0 a:1\n"), welcome(4, b"")].concat();
        let whole = answer.len();
        answer.extend([7; 200]);
        for piece in [1, 7, 64, 1000] {
            let (outcome, end) = play(&call(2), &answer, piece);
            let greeting = outcome.unwrap().unwrap();
            assert_eq!((greeting.welcome.topic, greeting.more[0].topic, end), (3, 4, whole));
            assert_eq!(greeting.brokers, [(0, "a:1".to_owned()), (1, "b:2".to_owned())]);
            assert!(matches!(play(&call(2), &answer[..whole - 1], piece), (Ok(None), _)));
        }
    }

    #[test]
    fn a_refusal_at_any_of_them_is_the_answer_and_another_frame_is_none() {
        let refused = Refused { code: 10, detail: 5, ..Refused::default() };
        let answer = [frame::with_body(&Welcome::default(), b""), frame::with_body(&refused, b"words")].concat();
        let error = play(&call(2), &answer, 50).0.unwrap_err();
        assert!(matches!(&error, ClientError::Refused { code: 10, detail: 5, text, .. } if text == "words"), "{error}");
        let answer = frame::seal(&frame::Ack::default());
        assert!(matches!(play(&call(1), &answer, 64).0, Err(ClientError::Wire { .. })));
    }

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
