//! As much of HTTP/1.1 as a scraper and a browser need to look: GET and HEAD, one answer after the other on a connection that stays open.
//!
//! A connection is bounded in what it may say and in how long it may take; what it asks for has no say in what a broker does.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// Status code and its word.
    pub status: &'static str,
    /// Kind of the body.
    pub content: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A text in a few words.
    pub fn text(status: &'static str, words: &str) -> Reply {
        Reply { status, content: "text/plain; charset=utf-8", body: format!("{words}\n").into_bytes() }
    }
}

/// A connection, and what is on its way over it.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    heard: Vec<u8>,
    unsaid: Vec<u8>,
    said: usize,
    is_last: bool,
}

impl Conversation {
    /// One that begins.
    ///
    /// # Errors
    /// The socket's.
    pub fn begin(stream: TcpStream) -> io::Result<Conversation> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Conversation { stream, heard: Vec::new(), unsaid: Vec::new(), said: 0, is_last: false })
    }

    /// Its socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether something is to be said.
    pub fn has_something_to_say(&self) -> bool {
        self.said < self.unsaid.len()
    }

    /// Hears and says what it can. False: it is over.
    pub fn go_on(&mut self, answer: &mut dyn FnMut(&str) -> Reply) -> bool {
        self.hear(answer) && self.say()
    }

    fn hear(&mut self, answer: &mut dyn FnMut(&str) -> Reply) -> bool {
        let mut buffer = [0; 2048];
        while !self.has_something_to_say() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(bytes) => self.heard.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            self.answer_heard(answer);
        }
        true
    }

    fn answer_heard(&mut self, answer: &mut dyn FnMut(&str) -> Reply) {
        let end = self.heard.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            if self.heard.len() > HEAD_BYTES_MAX {
                self.is_last = true;
                self.reply(
                    &Reply::text("431 Request Header Fields Too Large", "the head of the request is too long"),
                    false,
                );
            }
            return;
        };
        let head = String::from_utf8_lossy(&self.heard[..end]).into_owned();
        self.heard.drain(..end + 4);
        let mut words = head.lines().next().unwrap_or("").split(' ');
        let (method, target, version) =
            (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
        let says = |name: &str, value: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.any(|(field, found)| field.eq_ignore_ascii_case(name) && found.trim().eq_ignore_ascii_case(value))
        };
        self.is_last = version != "HTTP/1.1" || says("connection", "close");
        let path = target.split(['?', '#']).next().unwrap_or("");
        let reply = match method {
            _ if !version.starts_with("HTTP/1.") => {
                self.is_last = true;
                Reply::text("400 Bad Request", "this is no request of HTTP/1.1")
            }
            "GET" | "HEAD" => answer(path),
            _ => {
                // A body may follow.
                self.is_last = true;
                Reply::text("405 Method Not Allowed", "there is nothing to be changed here: GET or HEAD")
            }
        };
        self.reply(&reply, method == "HEAD");
    }

    fn reply(&mut self, reply: &Reply, head_only: bool) {
        let Reply { status, content, body } = reply;
        let connection = if self.is_last { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        self.unsaid = head.into_bytes();
        if !head_only {
            self.unsaid.extend_from_slice(body);
        }
        self.said = 0;
    }

    fn say(&mut self) -> bool {
        while self.has_something_to_say() {
            match self.stream.write(&self.unsaid[self.said..]) {
                Ok(0) => return false,
                Ok(bytes) => self.said += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let is_said = !self.unsaid.is_empty();
        if is_said {
            (self.unsaid, self.said) = (Vec::new(), 0);
        }
        !(is_said && self.is_last)
    }
}
