//! As much of HTTP/1.1 as a scraper and a browser need to look: GET and HEAD, one answer after the other on a connection that stays open.
//!
//! A connection is bounded in what it may say and in how long it may take for it: a turn (a rest and a request, an answer, an end) begins once, and
//! bytes that trickle in do not prolong it. What it asks for has no say in what a broker does.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Answers on one connection: the last of them says that it is the last. Requests that came all at once are answered without a look at others.
const ANSWERS_MAX: u32 = 200;
/// What is taken of a peer that still talks when it has had its last answer, at a time, bytes.
const LEFT_BYTES_MAX: usize = 64 << 10;

/// The answer to whoever wants to change something.
const NOT_ALLOWED: &str = "405 Method Not Allowed";

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// Status code and its word.
    pub status: &'static str,
    /// Kind of the body.
    pub content: &'static str,
    /// The body. Shared: many may ask for the same long text.
    pub body: Arc<str>,
}

impl Reply {
    /// A text in a few words.
    pub fn text(status: &'static str, words: &str) -> Reply {
        Reply { status, content: "text/plain; charset=utf-8", body: format!("{words}\n").into() }
    }
}

/// A connection, and what is on its way over it.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    heard: Vec<u8>,
    /// Head and body of the answer that is being said, and bytes of both that were.
    head: Vec<u8>,
    body: Arc<str>,
    said: usize,
    turn: Turn,
    turned_at: Instant,
    answers: u32,
    is_last: bool,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The peer's: to ask.
    Theirs,
    /// Ours: to answer.
    Ours,
    /// The peer's: to end. A connection that is closed while something unread lies in it is reset, and the answer may be lost with it.
    End,
}

/// How far a turn got.
enum Step {
    /// It is over; the next has begun.
    Turned,
    /// It waits for the peer.
    Waits,
    /// The connection is over.
    Over,
}

impl Conversation {
    /// One that begins.
    ///
    /// # Errors
    /// The socket's.
    pub fn begin(stream: TcpStream, now: Instant) -> io::Result<Conversation> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Conversation {
            stream,
            heard: Vec::new(),
            head: Vec::new(),
            body: "".into(),
            said: 0,
            turn: Turn::Theirs,
            turned_at: now,
            answers: 0,
            is_last: false,
        })
    }

    /// Its socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether it waits for room to say something in; else for something to hear.
    pub fn has_something_to_say(&self) -> bool {
        self.turn == Turn::Ours
    }

    /// How long this turn has lasted.
    pub fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.turned_at)
    }

    /// Whether it has had an answer and has asked nothing since: it can be closed and loses nothing.
    pub fn rests(&self) -> bool {
        self.turn == Turn::Theirs && self.answers > 0 && self.heard.is_empty()
    }

    /// Whether it can be closed for another's sake: it rests, or has said nothing for so long since it began.
    pub fn may_give_way(&self, now: Instant, silent_for: Duration) -> bool {
        let is_silent = self.answers == 0 && self.heard.is_empty() && self.lasts(now) >= silent_for;
        self.rests() || (self.turn == Turn::Theirs && is_silent)
    }

    /// Hears and says what it can. False: it is over.
    pub fn go_on(&mut self, now: Instant, answer: &mut dyn FnMut(&str) -> Reply) -> bool {
        loop {
            let step = match self.turn {
                Turn::Theirs => self.hear(answer),
                Turn::Ours => self.say(),
                Turn::End => self.hear_the_end(),
            };
            match step {
                Step::Turned => self.turned_at = now,
                Step::Waits => return true,
                Step::Over => return false,
            }
        }
    }

    /// To the end of a request.
    fn hear(&mut self, answer: &mut dyn FnMut(&str) -> Reply) -> Step {
        let mut buffer = [0; 2048];
        let mut looked_at = 0;
        loop {
            let end = self.heard[looked_at..].windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end.map(|end| looked_at + end).filter(|end| *end <= HEAD_BYTES_MAX) {
                self.answer_head(end, answer);
                return Step::Turned;
            }
            if self.heard.len() > HEAD_BYTES_MAX + 4 {
                self.is_last = true;
                let reply = Reply::text("431 Request Header Fields Too Large", "the head of the request is too long");
                self.reply(reply, false);
                return Step::Turned;
            }
            looked_at = self.heard.len().saturating_sub(3);
            match self.stream.read(&mut buffer) {
                Ok(0) => return Step::Over,
                Ok(bytes) => self.heard.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Over,
            }
        }
    }

    fn answer_head(&mut self, end: usize, answer: &mut dyn FnMut(&str) -> Reply) {
        let head = String::from_utf8_lossy(&self.heard[..end]).into_owned();
        self.heard.drain(..end + 4);
        let mut words = head.lines().next().unwrap_or("").split(' ');
        let (method, target, version) =
            (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
        let says = |name: &str, value: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            let lists = |found: &str| found.split(',').any(|one| one.trim().eq_ignore_ascii_case(value));
            fields.any(|(field, found)| field.eq_ignore_ascii_case(name) && lists(found))
        };
        self.is_last = version != "HTTP/1.1" || says("connection", "close") || self.answers + 1 >= ANSWERS_MAX;
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
                Reply::text(NOT_ALLOWED, "there is nothing to be changed here: GET or HEAD")
            }
        };
        self.reply(reply, method == "HEAD");
    }

    fn reply(&mut self, reply: Reply, head_only: bool) {
        let Reply { status, content, body } = reply;
        let connection = if self.is_last { "close" } else { "keep-alive" };
        let allow = if status == NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        self.head = head.into_bytes();
        self.body = if head_only { "".into() } else { body };
        (self.said, self.turn) = (0, Turn::Ours);
        self.answers += 1;
    }

    fn say(&mut self) -> Step {
        while self.said < self.head.len() + self.body.len() {
            let head = &self.head[self.said.min(self.head.len())..];
            let body = &self.body.as_bytes()[self.said.saturating_sub(self.head.len())..];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Step::Over,
                Ok(bytes) => self.said += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Over,
            }
        }
        (self.head, self.body) = (Vec::new(), "".into());
        self.turn = match self.is_last {
            true if self.stream.shutdown(Shutdown::Write).is_err() => return Step::Over,
            true => Turn::End,
            false => Turn::Theirs,
        };
        Step::Turned
    }

    /// Lets go of what still comes.
    fn hear_the_end(&mut self) -> Step {
        let mut buffer = [0; 4096];
        let mut taken = 0;
        while taken < LEFT_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Step::Over,
                Ok(bytes) => taken += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Over,
            }
        }
        Step::Waits
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Two ends of a connection: the one that asks, and the conversation.
    fn pair() -> (TcpStream, Conversation) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asks = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        asks.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (answers, _) = listener.accept().unwrap();
        (asks, Conversation::begin(answers, Instant::now()).unwrap())
    }

    fn path_as_answer(path: &str) -> Reply {
        match path {
            "/nothing" => Reply::text("404 Not Found", "nothing is here"),
            _ => Reply::text("200 OK", path),
        }
    }

    /// Goes on until the conversation is over or `until` holds.
    fn talk(conversation: &mut Conversation, until: impl Fn(&Conversation) -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if !conversation.go_on(Instant::now(), &mut path_as_answer) {
                return false;
            }
            if until(conversation) {
                return true;
            }
            std::thread::yield_now();
        }
        panic!("the conversation neither ended nor came to what was awaited: {conversation:?}");
    }

    /// What `request` is answered with so many answers, on a connection that the peer then ends.
    fn answers_to(request: &[u8], answers: u32) -> String {
        let (mut asks, mut conversation) = pair();
        asks.write_all(request).unwrap();
        talk(&mut conversation, |one| one.answers == answers && !one.has_something_to_say());
        asks.shutdown(Shutdown::Write).unwrap();
        assert!(!talk(&mut conversation, |_| false), "a peer that ends, ends it");
        drop(conversation);
        let mut text = String::new();
        asks.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_get_has_its_body_and_a_head_has_the_same_head_alone() {
        let whole = answers_to(b"GET /some?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 1);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "/some\n", "{whole}");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 6\r\n"), "{whole}");
        assert!(head.ends_with("\r\nConnection: keep-alive"), "{whole}");
        assert_eq!(answers_to(b"HEAD /some HTTP/1.1\r\n\r\n", 1), format!("{head}\r\n\r\n"));
    }

    #[test]
    fn who_wants_it_closed_may_want_more() {
        for wants in ["close", "Close", "close, TE", "TE , close"] {
            let request = format!("GET /some HTTP/1.1\r\nConnection: {wants}\r\n\r\n");
            assert!(answers_to(request.as_bytes(), 1).contains("\r\nConnection: close\r\n"), "{wants}");
        }
    }

    #[test]
    fn what_is_not_there_and_what_cannot_be_done_is_said() {
        let gone = answers_to(b"GET /nothing HTTP/1.1\r\n\r\n", 1);
        assert!(gone.starts_with("HTTP/1.1 404 Not Found\r\n") && gone.ends_with("nothing is here\n"), "{gone}");
        // Its body is heard, so that the answer is not lost with it.
        let body = [b'x'; 20_000];
        let mut post = b"POST / HTTP/1.1\r\nContent-Length: 20000\r\n\r\n".to_vec();
        post.extend_from_slice(&body);
        let refused = answers_to(&post, 1);
        assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
        assert!(refused.contains("\r\nAllow: GET, HEAD\r\n") && refused.contains("Connection: close"), "{refused}");
        let other = answers_to(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 1);
        assert!(other.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{other}");
    }

    #[test]
    fn a_head_is_as_long_as_it_may_be_and_no_longer() {
        let of = |bytes: usize| {
            let begin = "GET /long HTTP/1.1\r\nX: ";
            format!("{begin}{}\r\n\r\n", "x".repeat(bytes - begin.len()))
        };
        let longest = answers_to(of(HEAD_BYTES_MAX).as_bytes(), 1);
        assert!(longest.starts_with("HTTP/1.1 200 OK"), "{longest}");
        for bytes in [HEAD_BYTES_MAX + 1, HEAD_BYTES_MAX + 2048, 10 * HEAD_BYTES_MAX] {
            let refused = answers_to(of(bytes).as_bytes(), 1);
            assert!(refused.starts_with("HTTP/1.1 431 "), "{bytes}: {refused}");
            assert_eq!(refused.matches("HTTP/1.1").count(), 1, "{refused}");
        }
    }

    /// All of it is there: nothing more comes that would have it looked at again.
    #[test]
    fn an_end_in_two_readings_is_an_end() {
        for bytes in 2040..2056 {
            let (mut asks, mut conversation) = pair();
            let begin = "GET /long HTTP/1.1\r\nX: ";
            let request = format!("{begin}{}\r\n\r\n", "x".repeat(bytes - begin.len()));
            asks.write_all(request.as_bytes()).unwrap();
            while conversation.stream.peek(&mut [0; 4096]).unwrap_or(0) < request.len() {
                std::thread::yield_now();
            }
            assert!(conversation.go_on(Instant::now(), &mut path_as_answer));
            assert_eq!(conversation.answers, 1, "a head of {bytes} bytes");
        }
    }

    #[test]
    fn a_request_may_come_byte_by_byte() {
        let (mut asks, mut conversation) = pair();
        asks.set_nodelay(true).unwrap();
        for byte in b"GET /bit-by-bit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" {
            assert_eq!(conversation.answers, 0);
            let before = conversation.heard.len();
            asks.write_all(&[*byte]).unwrap();
            talk(&mut conversation, |one| one.heard.len() > before || one.answers > 0);
        }
        talk(&mut conversation, |one| one.turn == Turn::End);
        let mut text = String::new();
        asks.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\n/bit-by-bit\n"), "{text}");
        drop(asks);
        assert!(!talk(&mut conversation, |_| false));
    }

    /// All of them came in one read: the second is not forgotten over the first.
    #[test]
    fn requests_that_come_at_once_are_answered_in_their_order() {
        let text = answers_to(b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n", 3);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
        assert!(text.find("\r\n\r\n/1\n").unwrap() < text.find("\r\n\r\n/3\n").unwrap() && !text.contains("/2"));
        // Nor without end.
        let text = answers_to("GET / HTTP/1.1\r\n\r\n".repeat(2 * ANSWERS_MAX as usize).as_bytes(), ANSWERS_MAX);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), ANSWERS_MAX as usize);
        assert_eq!(text.matches("Connection: close").count(), 1);
        assert!(text.rfind("Connection: close") > text.rfind("Connection: keep-alive"));
    }

    #[test]
    fn bytes_that_trickle_in_do_not_prolong_a_turn() {
        let (mut asks, mut conversation) = pair();
        let begun = conversation.turned_at;
        assert!(!conversation.rests(), "it may be about to ask");
        asks.write_all(b"GET / HT").unwrap();
        talk(&mut conversation, |one| !one.heard.is_empty());
        let later = begun + Duration::from_secs(5);
        assert!(conversation.go_on(later, &mut path_as_answer));
        assert_eq!(conversation.lasts(later), Duration::from_secs(5));
        asks.write_all(b"TP/1.1\r\n\r\n").unwrap();
        talk(&mut conversation, |one| one.answers == 1);
        assert!(conversation.rests() && conversation.turned_at > begun, "an answer begins another");
    }
}
