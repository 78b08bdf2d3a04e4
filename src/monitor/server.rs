//! The thread that shows a pool to browsers and scrapers. Roles never wait for it: it reads what they left in the pool, and nothing else.
//!
//! It takes a snapshot once a second and answers from that, however often it is asked. Connections are bounded in number and time.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::monitor::diagnosis::{Life, life};
use crate::monitor::history::History;
use crate::monitor::http::{Conversation, Reply};
use crate::monitor::prometheus::{self, Scope};
use crate::monitor::snapshot::Snapshot;
use crate::net::readiness::Readiness;
use crate::pool::Pool;

/// Conversations at once; more wait to be accepted.
const CONVERSATIONS_MAX: usize = 64;
/// How long one may rest, or take to say or hear something.
const REST_MAX: Duration = Duration::from_secs(10);
/// How often the pool is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    pub fn start(listener: TcpListener, pool: Pool, brokers: Vec<u32>) -> io::Result<Monitor> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let desk = Desk { pool, brokers, history: History::default(), metrics: None, status: None };
        let show = move || Server { listener, stopped, desk, conversations: Vec::new() }.run();
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
    conversations: Vec<(Conversation, Instant)>,
}

impl Server {
    fn run(mut self) {
        let (mut readiness, mut look_at) = (Readiness::default(), Instant::now());
        loop {
            let now = Instant::now();
            if now >= look_at {
                look_at = now + LOOK_EVERY;
                self.desk.look();
                self.conversations.retain(|(_, active)| now - *active < REST_MAX);
            }
            readiness.clear();
            readiness.watch(&self.stopped, false);
            if self.conversations.len() < CONVERSATIONS_MAX {
                readiness.watch(&self.listener, false);
            }
            self.conversations.iter().for_each(|(one, _)| readiness.watch(one.stream(), one.has_something_to_say()));
            if let Err(error) = readiness.wait(look_at.saturating_duration_since(now)) {
                return log::error!("the status page is shown no more: {error}");
            }
            if readiness.is_readable(&self.stopped) {
                return;
            }
            if readiness.is_readable(&self.listener) {
                self.accept();
            }
            self.converse(&readiness, now);
        }
    }

    fn accept(&mut self) {
        while self.conversations.len() < CONVERSATIONS_MAX
            && let Ok((stream, _)) = self.listener.accept()
        {
            // One that is over before it began.
            let Ok(mut one) = Conversation::begin(stream) else { continue };
            // What it asks for has mostly come along.
            if one.go_on(&mut |path| self.desk.answer(path)) {
                self.conversations.push((one, Instant::now()));
            }
        }
    }

    fn converse(&mut self, readiness: &Readiness, now: Instant) {
        let desk = &mut self.desk;
        self.conversations.retain_mut(|(one, active)| {
            if !readiness.is_readable(one.stream()) && !readiness.is_writable(one.stream()) {
                return true;
            }
            *active = now;
            one.go_on(&mut |path| desk.answer(path))
        });
    }
}

/// What is known, and answers made of it; those that are asked for again are kept until the next look.
struct Desk {
    pool: Pool,
    brokers: Vec<u32>,
    history: History,
    metrics: Option<String>,
    status: Option<String>,
}

impl Desk {
    fn look(&mut self) {
        self.history.push(Snapshot::take(&self.pool, false));
        (self.metrics, self.status) = (None, None);
    }

    fn answer(&mut self, path: &str) -> Reply {
        match path {
            "/" | "/index.html" => {
                Reply { status: "200 OK", content: "text/html; charset=utf-8", body: PAGE.as_bytes().to_vec() }
            }
            "/metrics" => {
                let content = "text/plain; version=0.0.4; charset=utf-8";
                Reply { status: "200 OK", content, body: self.metrics().as_bytes().to_vec() }
            }
            "/status.json" => {
                Reply { status: "200 OK", content: "application/json", body: self.status().as_bytes().to_vec() }
            }
            "/healthz" => verdict(self.is_healthy()),
            "/readyz" => verdict(self.is_healthy().and_then(|()| self.is_ready())),
            _ => Reply::text("404 Not Found", "there are /, /metrics, /status.json, /healthz and /readyz"),
        }
    }

    fn metrics(&mut self) -> &str {
        let (history, brokers) = (&self.history, &self.brokers);
        self.metrics.get_or_insert_with(|| {
            let scope = Scope { brokers: Some(brokers.clone()) };
            history.now().map(|now| prometheus::render(now, &scope)).unwrap_or_default()
        })
    }

    fn status(&mut self) -> &str {
        let (history, brokers) = (&self.history, &self.brokers);
        self.status.get_or_insert_with(|| {
            let status = json!({
                "own_brokers": brokers,
                "now": history.now(),
                "findings": history.findings(),
                "seconds": history.seconds(),
            });
            status.to_string()
        })
    }

    /// Whether this process's brokers show life.
    fn is_healthy(&self) -> Result<(), String> {
        let (Some(now), Some(before)) = (self.history.now(), self.history.before()) else { return Ok(()) };
        let seconds = (now.taken_at - before.taken_at) as f64 / 1e9;
        for broker in now.brokers.iter().filter(|broker| self.brokers.contains(&broker.broker())) {
            let Some(then) = before.brokers.iter().find(|then| then.broker() == broker.broker()) else { continue };
            if matches!(life(&then.member, &broker.member, seconds), Life::StandsStill | Life::Gone) {
                return Err(format!("broker {} shows no life", broker.broker()));
            }
        }
        Ok(())
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
        match before.is_some_and(|then| (then.epoch, then.heartbeat) == (sequencer.epoch, sequencer.heartbeat)) {
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
