//! One request and its answer over HTTP, with a deadline for the whole of it, the look-up of the name included, and a bound of what is taken in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::push::error::PushError;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port.
    pub at: String,
    /// Path, and what follows it.
    pub path: String,
}

impl Url {
    /// From `http://HOST[:PORT][/PATH]`; without a path it is `path`.
    pub fn parse(url: &str, path: &str) -> Result<Url, PushError> {
        let fault = |reason| PushError::Url { url: url.to_owned(), reason };
        if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err(PushError::Https { url: url.to_owned() });
        }
        let rest = url.strip_prefix("http://").ok_or_else(|| fault("it does not begin with http://"))?;
        let (host, given) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, path),
        };
        if host.is_empty() || url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || host.contains('@') {
            return Err(fault("a host is missing, or there are spaces or users in it"));
        }
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(fault("its port is no number up to 65535"));
        }
        let at = if port.is_some() { host.to_owned() } else { format!("{host}:80") };
        let path = if given == "/" { path } else { given };
        Ok(Url { at, path: path.to_owned() })
    }
}

/// When an exchange is to be over.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    whole: Duration,
}

impl Deadline {
    fn left(&self, url: &Url) -> Result<Duration, PushError> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.passed(url)) } else { Ok(left) }
    }

    fn passed(&self, url: &Url) -> PushError {
        PushError::Deadline { at: url.at.clone(), seconds: self.whole.as_secs() }
    }
}

/// Asks, with a body or without, and gives the body of an answer that says 200. Takes `answer_max` bytes of it at most.
pub fn exchange(
    url: &Url,
    body: Option<(&str, &[u8])>,
    timeout: Duration,
    answer_max: usize,
) -> Result<Vec<u8>, PushError> {
    let deadline = Deadline { at: Instant::now() + timeout, whole: timeout };
    let mut stream = connect(url, deadline)?;
    let broke = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => deadline.passed(url),
        _ => PushError::Broke { at: url.at.clone(), source },
    };
    let method = if body.is_some() { "POST" } else { "GET" };
    // Of HTTP/1.0: an answer ends where its connection does, and is not cut in chunks.
    let mut request =
        format!("{method} {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n", url.path, url.at).into_bytes();
    if let Some((content, body)) = body {
        let length = format!("Content-Type: {content}\r\nContent-Length: {}\r\n", body.len());
        request.extend_from_slice(length.as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body.map_or(&[], |(_, body)| body));
    let mut said = 0;
    while said < request.len() {
        stream.set_write_timeout(Some(deadline.left(url)?)).map_err(broke)?;
        said += stream.write(&request[said..]).map_err(broke)?;
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        stream.set_read_timeout(Some(deadline.left(url)?)).map_err(broke)?;
        match stream.read(&mut buffer) {
            Ok(0) => return read(url, &answer),
            Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broke(error)),
        }
        if answer.len() > answer_max {
            return Err(PushError::Answer { at: url.at.clone(), reason: "it is longer than any answer should be" });
        }
    }
}

fn connect(url: &Url, deadline: Deadline) -> Result<TcpStream, PushError> {
    let (sender, found) = channel();
    let at = url.at.clone();
    // A resolver takes its own time; if it takes too long it is left to itself.
    std::thread::spawn(move || drop(sender.send(at.to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>))));
    let found = found.recv_timeout(deadline.left(url)?).map_err(|_| deadline.passed(url))?;
    let lookup = |source| PushError::Lookup { at: url.at.clone(), source };
    let mut last = lookup(io::Error::from(io::ErrorKind::NotFound));
    for address in found.map_err(lookup)? {
        match TcpStream::connect_timeout(&address, deadline.left(url)?) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = deadline.passed(url),
            Err(source) => last = PushError::Connect { address, source },
        }
    }
    Err(last)
}

fn read(url: &Url, answer: &[u8]) -> Result<Vec<u8>, PushError> {
    let fault = |reason| PushError::Answer { at: url.at.clone(), reason };
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| fault("its head has no end"))?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' ')).map(|(_, status)| status.trim());
    let status = status.ok_or_else(|| fault("it has no status"))?;
    let field = |name: &str| {
        let mut fields = fields.split("\r\n").filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if field("transfer-encoding").is_some() {
        return Err(fault("it is cut in chunks, which was not asked for"));
    }
    if field("content-length").is_some_and(|length| length.parse() != Ok(body.len())) {
        return Err(fault("it is not as long as it says"));
    }
    if status.split(' ').next() != Some("200") {
        let words = String::from_utf8_lossy(body).chars().take(200).collect::<String>();
        let words = words.trim().replace(char::is_control, " ");
        return Err(PushError::Refused { at: url.at.clone(), status: status.to_owned(), words });
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url = |text: &str| Url::parse(text, "/v1/metrics").map(|url| format!("{} {}", url.at, url.path));
        assert_eq!(url("http://a:4318/x?y").unwrap(), "a:4318 /x?y");
        assert_eq!(url("http://a").unwrap(), "a:80 /v1/metrics");
        assert_eq!(url("http://[::1]:1/").unwrap(), "[::1]:1 /v1/metrics");
        assert_eq!(url("http://[::1]").unwrap(), "[::1]:80 /v1/metrics");
        for wrong in [
            "a:1",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a:b",
            "http://a:70000",
            "http://a b",
            "http://a/\r\nx",
            "http://u@a",
        ] {
            assert!(matches!(url(wrong), Err(PushError::Url { .. })), "{wrong}");
        }
        let refused = url("https://a").unwrap_err();
        assert!(
            refused.is_usage() && refused.to_string().starts_with("https is not spoken here, and https://a"),
            "{refused}"
        );
    }

    #[test]
    fn answers_are_whole_and_say_200() {
        let url = Url { at: "a:1".to_owned(), path: "/".to_owned() };
        let answer = |text: &str| read(&url, text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap(), b"ok");
        assert_eq!(answer("HTTP/1.0 200\r\n\r\nto the end").unwrap(), b"to the end");
        for (wrong, words) in [
            ("", "no end"),
            ("SSH-2.0\r\n\r\n", "no status"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", "as long as it says"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunks"),
            ("HTTP/1.1 503 Busy\r\n\r\nlater\n", "a:1 answered 503 Busy, 200 was expected: later"),
        ] {
            let fault = answer(wrong).unwrap_err();
            assert!(fault.contains(words), "{wrong:?}: {fault}");
        }
    }
}
