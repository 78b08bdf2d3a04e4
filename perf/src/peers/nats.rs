//! NATS: producers publish into a JetStream stream in memory, which acknowledges; consumers subscribe to the subject.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use launch::place::Folder;

use crate::error::CompareError;
use crate::peers::conversation::{Conversation, line, number};
use crate::peers::peer::{Consumer, Peer, Producer};
use crate::subject::{Subject, free_addresses};

/// Its server.
pub const PROGRAM: &str = "nats-server";
const NAME: &str = "nats";
/// Messages a producer has unacknowledged: of ten thousand and more in all the server refuses some.
const WINDOW: u64 = 4096;
const SUBJECT: &str = "bench";
/// The stream of that subject: short, in memory, the oldest messages make room.
const STREAM: &str =
    r#"{"name":"B","subjects":["bench"],"storage":"memory","discard":"old","max_bytes":134217728,"num_replicas":1}"#;
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A running server.
pub struct Nats {
    subject: Subject,
    /// Inboxes given out.
    inboxes: AtomicU64,
}

impl Nats {
    /// Starts it, and makes the stream.
    pub fn start(program: &Path, folder: &Folder) -> Result<Nats, CompareError> {
        let addresses = free_addresses(1)?;
        let mut command = Command::new(program);
        command.args(["--addr", "127.0.0.1", "--port", &addresses[0].port().to_string(), "--jetstream", "--store_dir"]);
        command.arg(folder.path().join(NAME));
        let nats = Nats { subject: Subject::listening(NAME, command, addresses, folder)?, inboxes: AtomicU64::new(0) };
        nats.make_stream()?;
        Ok(nats)
    }

    fn make_stream(&self) -> Result<(), CompareError> {
        let mut talk = self.connect()?;
        let length = STREAM.len();
        let create = format!("SUB made 1\r\nPUB $JS.API.STREAM.CREATE.B made {length}\r\n{STREAM}\r\n");
        talk.0.say(&[create.as_bytes()]).map_err(CompareError::io(NAME))?;
        let begin = Instant::now();
        let mut is_made = false;
        while !is_made {
            talk.take(WAIT_MAX, &mut |answer| is_made = fine(answer))?;
            if begin.elapsed() > WAIT_MAX {
                return Err(self.subject.failed("it made no stream".into()));
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<Talk, CompareError> {
        let mut connection = Conversation::connect(self.subject.addresses[0]).map_err(CompareError::io(NAME))?;
        connection.say(&[b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n"]).map_err(CompareError::io(NAME))?;
        Ok(Talk(connection))
    }
}

impl Peer for Nats {
    fn name(&self) -> &'static str {
        NAME
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn producer(&self, _is_single: bool) -> Result<Box<dyn Producer>, CompareError> {
        let (mut talk, inbox) = (self.connect()?, format!("acks.{}", self.inboxes.fetch_add(1, Ordering::Relaxed)));
        talk.0.say(&[format!("SUB {inbox} 1\r\n").as_bytes()]).map_err(CompareError::io(NAME))?;
        talk.0.send().map_err(CompareError::io(NAME))?;
        Ok(Box::new(NatsProducer { talk, prefix: format!("PUB {SUBJECT} {inbox} "), acked: 0 }))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, CompareError> {
        let mut talk = self.connect()?;
        talk.0.say(&[format!("SUB {SUBJECT} 1\r\nPING\r\n").as_bytes()]).map_err(CompareError::io(NAME))?;
        let begin = Instant::now();
        // Once it answers, it has understood what it is to deliver.
        while !talk.hear(WAIT_MAX, &mut |_| ())? {
            if begin.elapsed() > WAIT_MAX {
                return Err(self.subject.failed("it does not answer".into()));
            }
        }
        Ok(Box::new(talk))
    }
}

/// Whether an answer of JetStream is not an error.
fn fine(answer: &[u8]) -> bool {
    !answer.windows(7).any(|word| word == b"\"error\"")
}

struct Talk(Conversation);

impl Talk {
    /// Takes what has come. Whether there was a PONG among it.
    fn hear(&mut self, longest: Duration, each: &mut dyn FnMut(&[u8])) -> Result<bool, CompareError> {
        let io = || CompareError::io(NAME);
        self.0.receive(longest).map_err(io())?;
        let mut is_answered = false;
        while let Some((said, bytes)) = parse(self.0.input()).map_err(io())? {
            match said {
                Said::Message(payload) => each(payload),
                Said::Ping => self.0.say(&[b"PONG\r\n"]).map_err(io())?,
                Said::Pong => is_answered = true,
                Said::Other(line) if line.starts_with(b"-ERR") => {
                    let what = format!("it said {}", String::from_utf8_lossy(line));
                    return Err(CompareError::Unsound { name: NAME.into(), what });
                }
                Said::Other(_) => (),
            }
            self.0.understand(bytes);
        }
        Ok(is_answered)
    }
}

impl Consumer for Talk {
    fn take(&mut self, longest: Duration, each: &mut dyn FnMut(&[u8])) -> Result<(), CompareError> {
        self.hear(longest, each).map(drop)
    }
}

struct NatsProducer {
    talk: Talk,
    /// The command up to the length.
    prefix: String,
    acked: u64,
}

impl Producer for NatsProducer {
    fn send(&mut self, payload: &[u8]) -> Result<(), CompareError> {
        let length = format!("{}\r\n", payload.len());
        let said = self.talk.0.say(&[self.prefix.as_bytes(), length.as_bytes(), payload, b"\r\n"]);
        said.map_err(CompareError::io(NAME))
    }

    fn hand_over(&mut self) -> Result<(), CompareError> {
        self.talk.0.send().map_err(CompareError::io(NAME))
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn acked(&self) -> u64 {
        self.acked
    }

    fn hear(&mut self, longest: Duration) -> Result<(), CompareError> {
        let (mut acked, mut refused) = (0, None);
        self.talk.take(longest, &mut |answer| match fine(answer) {
            true => acked += 1,
            false => refused = Some(String::from_utf8_lossy(answer).into_owned()),
        })?;
        self.acked += acked;
        refused.map_or(Ok(()), |what| Err(CompareError::Unsound { name: NAME.into(), what }))
    }
}

/// What the server says.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    Message(&'a [u8]),
    Ping,
    Pong,
    Other(&'a [u8]),
}

/// What is said at the beginning, and its length. None: it is not whole.
fn parse(input: &[u8]) -> io::Result<Option<(Said<'_>, usize)>> {
    let Some((head, behind)) = line(input) else { return Ok(None) };
    let used = input.len() - behind.len();
    match head {
        b"PING" => return Ok(Some((Said::Ping, used))),
        b"PONG" => return Ok(Some((Said::Pong, used))),
        _ if !head.starts_with(b"MSG ") => return Ok(Some((Said::Other(head), used))),
        _ => (),
    }
    let length = head.rsplit(|byte| *byte == b' ').next().and_then(number).and_then(|n| usize::try_from(n).ok());
    let Some(length) = length else { return Err(io::ErrorKind::InvalidData.into()) };
    let whole = behind.len() >= length + 2;
    Ok(whole.then(|| (Said::Message(&behind[..length]), used + length + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood_when_they_are_whole() {
        let text = b"MSG bench 1 acks.0 4\r\na\r\nb\r\n";
        for short in 0..text.len() {
            assert_eq!(parse(&text[..short]).unwrap(), None, "{short} bytes");
        }
        assert_eq!(parse(text).unwrap(), Some((Said::Message(b"a\r\nb"), text.len())));
        assert!(parse(b"MSG bench 1 x\r\n").is_err());
    }

    #[test]
    fn other_lines_are_what_they_say() {
        assert_eq!(parse(b"PING\r\nPONG\r\n").unwrap(), Some((Said::Ping, 6)));
        assert_eq!(parse(b"-ERR 'no'\r\n").unwrap(), Some((Said::Other(b"-ERR 'no'"), 11)));
        assert!(fine(br#"{"stream":"B","seq":1}"#) && !fine(br#"{"error":{"code":500}}"#));
    }
}
