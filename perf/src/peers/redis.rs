//! Redis streams: XADD, and XREAD that blocks. Nothing is written to disk; a stream is kept short.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use launch::place::Folder;

use crate::error::CompareError;
use crate::peers::conversation::{Conversation, line, number};
use crate::peers::peer::{Consumer, Peer, Producer};
use crate::subject::{Subject, free_addresses};

/// Its server.
pub const PROGRAM: &str = "redis-server";
const NAME: &str = "redis";
/// Messages a producer pipelines.
const WINDOW: u64 = 8192;
/// Most messages an XREAD asks for.
const COUNT: &str = "256";

/// A running server, and the stream that is written to: a new one for each consumer.
pub struct Redis {
    subject: Subject,
    stream: AtomicU64,
}

impl Redis {
    /// Starts it.
    pub fn start(program: &Path, folder: &Folder) -> Result<Redis, CompareError> {
        let addresses = free_addresses(1)?;
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &addresses[0].port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder.path());
        let subject = Subject::listening(NAME, command, addresses, folder)?;
        Ok(Redis { subject, stream: AtomicU64::new(0) })
    }

    fn connect(&self) -> Result<Conversation, CompareError> {
        Conversation::connect(self.subject.addresses[0]).map_err(CompareError::io(NAME))
    }

    fn stream(&self, number: u64) -> String {
        format!("s{number}")
    }
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn producer(&self, _is_single: bool) -> Result<Box<dyn Producer>, CompareError> {
        let stream = self.stream(self.stream.load(Ordering::Relaxed));
        let words = ["XADD", &stream, "MAXLEN", "~", "65536", "*", "d"];
        let prefix = format!("*{}\r\n{}", words.len() + 1, words.map(bulk).concat());
        Ok(Box::new(RedisProducer { connection: self.connect()?, prefix, acked: 0 }))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, CompareError> {
        let stream = self.stream(self.stream.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Box::new(RedisConsumer { connection: self.connect()?, stream, last: "0-0".to_owned(), is_asked: false }))
    }
}

/// A word of a command as the protocol has it.
fn bulk(word: &str) -> String {
    format!("${}\r\n{word}\r\n", word.len())
}

struct RedisProducer {
    connection: Conversation,
    /// The command up to its last word, which is the message.
    prefix: String,
    acked: u64,
}

impl Producer for RedisProducer {
    fn send(&mut self, payload: &[u8]) -> Result<(), CompareError> {
        let length = format!("${}\r\n", payload.len());
        let said = self.connection.say(&[self.prefix.as_bytes(), length.as_bytes(), payload, b"\r\n"]);
        said.map_err(CompareError::io(NAME))
    }

    fn hand_over(&mut self) -> Result<(), CompareError> {
        self.connection.send().map_err(CompareError::io(NAME))
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn acked(&self) -> u64 {
        self.acked
    }

    fn hear(&mut self, longest: Duration) -> Result<(), CompareError> {
        let io = || CompareError::io(NAME);
        self.connection.receive(longest).map_err(io())?;
        while let Some((reply, bytes)) = parse(self.connection.input()).map_err(io())? {
            let Reply::Bulk(_) = reply else { return Err(unexpected(&reply)) };
            self.acked += 1;
            self.connection.understand(bytes);
        }
        Ok(())
    }
}

struct RedisConsumer {
    connection: Conversation,
    stream: String,
    /// The last message that came.
    last: String,
    is_asked: bool,
}

impl Consumer for RedisConsumer {
    fn take(&mut self, longest: Duration, each: &mut dyn FnMut(&[u8])) -> Result<(), CompareError> {
        let io = || CompareError::io(NAME);
        if !self.is_asked {
            let words = ["XREAD", "COUNT", COUNT, "BLOCK", "100", "STREAMS", &self.stream, &self.last];
            let command = format!("*{}\r\n{}", words.len(), words.map(bulk).concat());
            self.connection.say(&[command.as_bytes()]).map_err(io())?;
            self.is_asked = true;
        }
        self.connection.receive(longest).map_err(io())?;
        let Some((reply, bytes)) = parse(self.connection.input()).map_err(io())? else { return Ok(()) };
        match messages(&reply) {
            Some(found) => {
                found.iter().for_each(|(_, payload)| each(payload));
                self.last = found.last().map_or(self.last.clone(), |(id, _)| String::from_utf8_lossy(id).into_owned());
            }
            None if reply == Reply::Nothing => (),
            None => return Err(unexpected(&reply)),
        }
        self.is_asked = false;
        self.connection.understand(bytes);
        Ok(())
    }
}

/// Of an answer to XREAD of one stream: each message's number and payload.
fn messages<'a>(reply: &Reply<'a>) -> Option<Vec<(&'a [u8], &'a [u8])>> {
    let list = |reply: &Reply<'a>| if let Reply::List(list) = reply { Some(list.clone()) } else { None };
    let bulk = |reply: &Reply<'a>| if let Reply::Bulk(bulk) = reply { Some(*bulk) } else { None };
    let stream = list(list(reply)?.first()?)?;
    list(stream.get(1)?)?
        .iter()
        .map(|entry| {
            let entry = list(entry)?;
            Some((bulk(entry.first()?)?, bulk(list(entry.get(1)?)?.get(1)?)?))
        })
        .collect()
}

fn unexpected(reply: &Reply<'_>) -> CompareError {
    CompareError::Unsound { name: NAME.into(), what: format!("it said {reply:?}") }
}

/// What the server says, as far as these commands need it.
#[derive(Clone, Debug, PartialEq)]
enum Reply<'a> {
    Bulk(&'a [u8]),
    List(Vec<Reply<'a>>),
    /// A list or text that is not there.
    Nothing,
    Other(&'a [u8]),
}

/// The reply at the beginning and its length. None: it is not whole.
fn parse(input: &[u8]) -> io::Result<Option<(Reply<'_>, usize)>> {
    let Some((head, behind)) = line(input) else { return Ok(None) };
    let used = |rest: &[u8]| input.len() - rest.len();
    let Some((kind, text)) = head.split_first() else { return Err(io::ErrorKind::InvalidData.into()) };
    if !matches!(kind, b'$' | b'*') {
        return Ok(Some((Reply::Other(head), used(behind))));
    }
    let Some(count) = number(text) else { return Err(io::ErrorKind::InvalidData.into()) };
    let Ok(count) = usize::try_from(count) else { return Ok(Some((Reply::Nothing, used(behind)))) };
    if *kind == b'$' {
        let whole = behind.len() >= count + 2;
        return Ok(whole.then(|| (Reply::Bulk(&behind[..count]), used(behind) + count + 2)));
    }
    let (mut list, mut rest) = (Vec::new(), behind);
    for _ in 0..count {
        let Some((reply, bytes)) = parse(rest)? else { return Ok(None) };
        list.push(reply);
        rest = &rest[bytes..];
    }
    Ok(Some((Reply::List(list), used(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_xread_is_understood_when_it_is_whole() {
        let text = b"*1\r\n*2\r\n$2\r\ns1\r\n*2\r\n\
            *2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$4\r\na\r\nb\r\n\
            *2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nd\r\n$0\r\n\r\n";
        for short in 0..text.len() {
            assert_eq!(parse(&text[..short]).unwrap(), None, "{short} bytes");
        }
        let (reply, bytes) = parse(text).unwrap().unwrap();
        assert_eq!(bytes, text.len());
        assert_eq!(messages(&reply), Some(vec![(&b"1-0"[..], &b"a\r\nb"[..]), (b"2-0", b"")]));
    }

    #[test]
    fn nothing_and_errors_are_told_apart() {
        assert_eq!(parse(b"*-1\r\n").unwrap(), Some((Reply::Nothing, 5)));
        assert_eq!(parse(b"-ERR no\r\n").unwrap(), Some((Reply::Other(b"-ERR no"), 9)));
        assert!(parse(b"$x\r\n").is_err() && parse(b"\r\n").is_err());
    }

    #[test]
    fn a_word_has_its_length_before_it() {
        assert_eq!(bulk("XADD"), "$4\r\nXADD\r\n");
    }
}
