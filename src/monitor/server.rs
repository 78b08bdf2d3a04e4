//! The thread that shows a pool to browsers and scrapers. Roles never wait for it: it reads what they left in the pool, and nothing else.
//!
//! It takes a snapshot once a second and answers from that, however often it is asked. Connections are bounded in number and time.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::monitor::history::History;
use crate::monitor::http::{Conversation, Reply};
use crate::monitor::prometheus::{self, Scope};
use crate::monitor::snapshot::Snapshot;
use crate::net::readiness::Readiness;
use crate::pool::Pool;
use crate::runtime::cpu::stand_back;

/// How often the pool is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one that came and says nothing keeps its place while others wait.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// How many may ask, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Conversations at once. More wait to be accepted: until one ends, or rests.
    pub conversations: usize,
    /// How long a conversation may rest, or take to ask or to hear an answer.
    pub turn: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { conversations: 64, turn: Duration::from_secs(10) }
    }
}

const PAGE: &str = include_str!("page.html");

/// The thread, until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    /// Its end ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Shows `pool` on a listener. `brokers` are this process's own: `/metrics` is about them, and about the sequencer if this process
    /// has that; `/healthz` and `/readyz` are about them alone.
    ///
    /// # Errors
    /// The thread or its sockets cannot be had.
    pub fn start(listener: TcpListener, pool: Pool, brokers: Vec<u32>, bounds: Bounds) -> io::Result<Monitor> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let desk = Desk::new(pool, brokers);
        let show = move || {
            // Whoever looks on does not push aside those who work.
            stand_back();
            Server { listener, stopped, desk, bounds, conversations: Vec::new(), shut_until: None }.run();
        };
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(show)?;
        Ok(Monitor { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is to be found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with is in the log.
            let _ = thread.join();
        }
    }
}

struct Server {
    listener: TcpListener,
    stopped: UnixStream,
    desk: Desk,
    bounds: Bounds,
    conversations: Vec<Conversation>,
    /// When to accept again, after the system had no descriptor or memory for one.
    shut_until: Option<Instant>,
}

impl Server {
    fn run(mut self) {
        let (mut readiness, mut look_at) = (Readiness::default(), Instant::now());
        loop {
            let now = Instant::now();
            if now >= look_at {
                look_at = now + LOOK_EVERY;
                self.desk.look();
            }
            self.conversations.retain(|one| one.lasts(now) < self.bounds.turn);
            self.shut_until = self.shut_until.filter(|until| now < *until);
            self.watch(&mut readiness, now);
            let first_end = self.conversations.iter().map(|one| self.bounds.turn.saturating_sub(one.lasts(now))).min();
            let rest = look_at.saturating_duration_since(now);
            if let Err(error) = readiness.wait(first_end.map_or(rest, |end| end.min(rest))) {
                return log::error!("the status page is shown no more: {error}");
            }
            if readiness.is_readable(&self.stopped) {
                return;
            }
            let now = Instant::now();
            self.converse(&readiness, now);
            if readiness.is_readable(&self.listener) {
                self.accept(now);
            }
        }
    }

    fn watch(&self, readiness: &mut Readiness, now: Instant) {
        readiness.clear();
        readiness.watch(&self.stopped, false);
        if self.shut_until.is_none() && (self.has_room() || self.somebody_may_give_way(now)) {
            readiness.watch(&self.listener, false);
        }
        for one in &self.conversations {
            match one.has_something_to_say() {
                true => readiness.watch_for_room(one.stream()),
                false => readiness.watch(one.stream(), false),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.conversations.len() < self.bounds.conversations
    }

    fn accept(&mut self, now: Instant) {
        while self.has_room() || self.somebody_may_give_way(now) {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One that is over before it began.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!("whoever asks for the status page waits: {error}");
                    return self.shut_until = Some(now + LOOK_EVERY);
                }
            };
            if !self.has_room() {
                self.let_go_of_one(now);
            }
            let Ok(mut one) = Conversation::begin(stream, now) else { continue };
            // What it asks for has mostly come along.
            if one.go_on(now, &mut |path| self.desk.answer(path)) {
                self.conversations.push(one);
            }
        }
    }

    fn somebody_may_give_way(&self, now: Instant) -> bool {
        self.conversations.iter().any(|one| one.may_give_way(now, SILENT_FOR))
    }

    /// Of the one that has rested for longest, or said nothing.
    fn let_go_of_one(&mut self, now: Instant) {
        let resting = self.conversations.iter().enumerate().filter(|(_, one)| one.may_give_way(now, SILENT_FOR));
        if let Some((place, _)) = resting.max_by_key(|(_, one)| one.lasts(now)) {
            self.conversations.swap_remove(place);
        }
    }

    fn converse(&mut self, readiness: &Readiness, now: Instant) {
        let desk = &mut self.desk;
        self.conversations.retain_mut(|one| {
            if !readiness.is_readable(one.stream()) && !readiness.is_writable(one.stream()) {
                return true;
            }
            one.go_on(now, &mut |path| desk.answer(path))
        });
    }
}

/// What is known, and answers made of it; those that are asked for again are kept until the next look.
struct Desk {
    pool: Pool,
    brokers: Vec<u32>,
    history: History,
    page: Arc<str>,
    metrics: Option<Arc<str>>,
    status: Option<Arc<str>>,
}

impl Desk {
    fn new(pool: Pool, brokers: Vec<u32>) -> Desk {
        Desk { pool, brokers, history: History::default(), page: PAGE.into(), metrics: None, status: None }
    }

    fn look(&mut self) {
        self.history.push(Snapshot::take(&self.pool, false));
        (self.metrics, self.status) = (None, None);
    }

    fn answer(&mut self, path: &str) -> Reply {
        match path {
            "/" | "/index.html" => {
                Reply { status: "200 OK", content: "text/html; charset=utf-8", body: Arc::clone(&self.page) }
            }
            "/metrics" => {
                let content = "text/plain; version=0.0.4; charset=utf-8";
                Reply { status: "200 OK", content, body: self.metrics() }
            }
            "/status.json" => Reply { status: "200 OK", content: "application/json", body: self.status() },
            "/healthz" => verdict(self.is_healthy()),
            "/readyz" => verdict(self.is_healthy().and_then(|()| self.is_ready())),
            _ => Reply::text("404 Not Found", "there are /, /metrics, /status.json, /healthz and /readyz"),
        }
    }

    fn metrics(&mut self) -> Arc<str> {
        let (history, brokers) = (&self.history, &self.brokers);
        let render = || {
            let scope = Scope { brokers: Some(brokers.clone()) };
            history.now().map(|now| prometheus::render(now, history.before(), &scope)).unwrap_or_default().into()
        };
        Arc::clone(self.metrics.get_or_insert_with(render))
    }

    fn status(&mut self) -> Arc<str> {
        let (history, brokers) = (&self.history, &self.brokers);
        let render = || {
            let status = json!({
                "own_brokers": brokers,
                "silent_brokers": history.silent_brokers(),
                "now": history.now(),
                "findings": history.findings(),
                "seconds": history.seconds(),
            });
            status.to_string().into()
        };
        Arc::clone(self.status.get_or_insert_with(render))
    }

    /// Whether this process's brokers show life.
    fn is_healthy(&self) -> Result<(), String> {
        match self.history.silent_brokers().iter().find(|broker| self.brokers.contains(broker)) {
            Some(broker) => Err(format!("broker {broker} shows no life")),
            None => Ok(()),
        }
    }

    /// Whether they serve, and somebody orders.
    fn is_ready(&self) -> Result<(), String> {
        let Some(now) = self.history.now() else { return Err("not looked yet".to_owned()) };
        for broker in &self.brokers {
            let state = now.brokers.iter().find(|known| known.broker() == *broker).map(|known| known.member.state);
            if state != Some("serving") {
                return Err(format!("broker {broker} is {}", state.unwrap_or("not there yet")));
            }
        }
        let Some(sequencer) = &now.sequencer else { return Err("no sequencer has been active".to_owned()) };
        let before = self.history.before().and_then(|before| before.sequencer.as_ref());
        match before.is_some_and(|then| !sequencer.has_beaten_since(then)) {
            true => Err(format!("the sequencer (candidate {}) shows no life", sequencer.candidate)),
            false => Ok(()),
        }
    }
}

fn verdict(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::text("200 OK", "ok"),
        Err(why) => Reply::text("503 Service Unavailable", &why),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::PathBuf;

    use super::*;
    use crate::log::View;
    use crate::log::commit::CommitWriter;
    use crate::log::member::Member;
    use crate::pool::process::boot_id;
    use crate::pool::region::Create;
    use crate::pool::superblock::HomeHosts;
    use crate::pool::{Mapped, Process, Software};
    use crate::testing::memory::small_geometry;

    /// A monitor of an empty pool, whose file is gone with it.
    struct Shown {
        monitor: Monitor,
        path: PathBuf,
    }

    impl Shown {
        fn start(name: &str, bounds: Bounds) -> Shown {
            let path = std::env::temp_dir().join(format!("embarcadero-shown-{name}-{}", std::process::id()));
            let geometry = small_geometry(1);
            let hosts = HomeHosts::single_host(&geometry);
            let pool = Pool::open(&path, geometry, &hosts, false, Create::IfMissing).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Shown { monitor: Monitor::start(listener, pool, vec![0], bounds).unwrap(), path }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.monitor.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        }
    }

    impl Drop for Shown {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn ask(stream: &mut TcpStream, path: &str) {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }

    /// Status line and body of one answer.
    fn hear(stream: &mut TcpStream) -> (String, String) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
    }

    #[test]
    fn each_path_has_its_answer() {
        let shown = Shown::start("paths", Bounds::default());
        let mut stream = shown.connect();
        let mut answer = |path| {
            ask(&mut stream, path);
            hear(&mut stream)
        };
        let (ok, page) = answer("/");
        assert!(ok == "HTTP/1.1 200 OK" && page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(answer("/metrics").1.starts_with("# HELP embarcadero_"));
        assert!(answer("/status.json").1.starts_with('{'));
        assert_eq!(answer("/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        let not_yet = ("HTTP/1.1 503 Service Unavailable".to_owned(), "broker 0 is not there yet\n".to_owned());
        assert_eq!(answer("/readyz"), not_yet);
        assert_eq!(answer("/metric").0, "HTTP/1.1 404 Not Found");
    }

    #[test]
    fn more_than_may_talk_at_once_are_all_answered() {
        let shown = Shown::start("many", Bounds { conversations: 8, turn: Duration::from_secs(60) });
        let mut streams: Vec<TcpStream> = (0..100).map(|_| shown.connect()).collect();
        streams.iter_mut().for_each(|stream| ask(stream, "/healthz"));
        // Nobody closes: those who were answered and rest give way.
        for stream in &mut streams {
            assert_eq!(hear(stream).0, "HTTP/1.1 200 OK");
        }
    }

    #[test]
    fn who_says_nothing_or_not_enough_is_let_go() {
        let shown = Shown::start("silent", Bounds { conversations: 2, turn: Duration::from_millis(300) });
        let mut silent = shown.connect();
        let mut slow = shown.connect();
        slow.write_all(b"GET /hea").unwrap();
        // It is accepted when they are gone.
        let mut third = shown.connect();
        ask(&mut third, "/healthz");
        assert_eq!(hear(&mut third).0, "HTTP/1.1 200 OK");
        assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
        // What it had said was read: it is closed, not reset.
        assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0);
        assert_eq!(third.read(&mut [0; 16]).unwrap(), 0, "so is one that rests");
    }

    /// Who comes and says nothing does not keep others waiting for long.
    #[test]
    fn who_says_nothing_gives_way() {
        let shown = Shown::start("mute", Bounds { conversations: 4, turn: Duration::from_secs(60) });
        let silent: Vec<TcpStream> = (0..12).map(|_| shown.connect()).collect();
        let mut asks = shown.connect();
        ask(&mut asks, "/healthz");
        // Long before a turn is over, or the reader's patience: three times four of them give way.
        assert_eq!(hear(&mut asks).0, "HTTP/1.1 200 OK");
        drop(silent);
    }

    /// One that asks and asks, and hears nothing, holds no more than an answer's memory, and only for its turn.
    #[test]
    fn who_does_not_listen_is_let_go() {
        let shown = Shown::start("deaf", Bounds { conversations: 1, turn: Duration::from_millis(300) });
        let mut deaf = shown.connect();
        let asked = "GET / HTTP/1.1\r\n\r\n".repeat(10_000);
        deaf.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = deaf.write_all(asked.as_bytes());
        let mut other = shown.connect();
        ask(&mut other, "/healthz");
        assert_eq!(hear(&mut other).0, "HTTP/1.1 200 OK");
    }

    /// What it looks at, and one who writes there: a broker, and a sequencer that beats.
    struct Looked {
        desk: Desk,
        view: View<Mapped<Software>>,
        path: PathBuf,
    }

    impl Looked {
        fn new(name: &str, brokers: Vec<u32>) -> Looked {
            let path = std::env::temp_dir().join(format!("embarcadero-looked-{name}-{}", std::process::id()));
            let geometry = small_geometry(1);
            let hosts = HomeHosts::single_host(&geometry);
            let pool = Pool::open(&path, geometry, &hosts, false, Create::IfMissing).unwrap();
            let view = View::single_host(Mapped::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
            Looked { desk: Desk::new(pool, brokers), view, path }
        }

        fn announce(&self, broker: u32) -> Member<Mapped<Software>> {
            Member::announce(&self.view, broker, Process { id: 70, started_at_utc_ns: 1, boot_id: boot_id() })
        }

        fn said(&mut self, path: &str) -> String {
            let Reply { status, body, .. } = self.desk.answer(path);
            format!("{} {body}", &status[..3])
        }
    }

    impl Drop for Looked {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn who_is_ready_serves_and_is_ordered_for() {
        let mut looked = Looked::new("ready", vec![0]);
        assert_eq!(looked.said("/readyz"), "503 not looked yet\n");
        looked.desk.look();
        assert_eq!(looked.said("/readyz"), "503 broker 0 is not there yet\n");
        let mut member = looked.announce(0);
        let mut now_ns = 1;
        let mut look = |looked: &mut Looked| {
            now_ns += 100_000_000;
            member.beat(now_ns);
            looked.desk.look();
        };
        look(&mut looked);
        assert_eq!(looked.said("/readyz"), "503 no sequencer has been active\n");
        let mut commit = CommitWriter::take(&looked.view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        (0..3).for_each(|_| look(&mut looked));
        assert_eq!(looked.said("/readyz"), "503 the sequencer (candidate 0) shows no life\n");
        commit.beat();
        look(&mut looked);
        assert_eq!(looked.said("/readyz"), "200 ok\n");
        assert_eq!(looked.said("/healthz"), "200 ok\n");
    }

    /// Nobody has its lock, and it does not beat.
    #[test]
    fn who_is_healthy_is_asked_of_ones_own() {
        for (own, said) in [(0, "503 broker 0 shows no life\n"), (1, "200 ok\n")] {
            let mut looked = Looked::new(&format!("healthy-{own}"), vec![own]);
            let (_gone, mut other) = (looked.announce(0), looked.announce(1));
            for second in 1..4 {
                other.beat(second * 1_000_000_000);
                looked.desk.look();
            }
            assert_eq!(looked.said("/healthz"), said);
        }
    }

    #[test]
    fn what_is_asked_for_again_is_made_once_and_anew_after_a_look() {
        let mut looked = Looked::new("again", vec![0]);
        let (mut member, mut now_ns) = (looked.announce(0), 1);
        looked.desk.look();
        for path in ["/metrics", "/status.json"] {
            let body = |looked: &mut Looked| looked.desk.answer(path).body;
            let first = body(&mut looked);
            assert!(first.len() > 100 && Arc::ptr_eq(&first, &body(&mut looked)), "{path}");
            now_ns += 100_000_000;
            member.beat(now_ns);
            looked.desk.look();
            assert_ne!(first, body(&mut looked), "{path}");
        }
    }
}
