//! Somebody who does not keep to the protocol: says what no client says, says the half of it, or nothing at all, and takes little of what it is
//! told. It is promised nothing; everybody else is, whatever it does.

use crate::limits::FRAME_HEADER_BYTES;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{REDIAL_NS, topic_name};
use crate::sim::parts::wrongs;
use crate::wire::FrameKind;
use crate::wire::frame::{self, Hello, Reply, Role, Welcome};

/// Connections that it has at once.
const LINES_MAX: usize = 4;
/// Sessions that it opens: places in the table are everybody's.
const SESSIONS_MAX: u32 = 4;
/// Time for which it has a connection at most, ns.
const PATIENCE_NS: u64 = 400_000_000;
/// Bytes that it takes at a time.
const READ_BYTES: u64 = 300;

/// What it is up to on a connection.
enum Purpose {
    /// It says nothing.
    Silent,
    /// It said what no broker may do.
    Refused(&'static str),
    /// It was polite so far; it takes what comes, until it says something else.
    Publishes,
    Subscribes,
    Asks,
    /// It takes nothing more, or nothing for long, or little.
    Listens,
}

struct Line {
    link: LinkId,
    topic: String,
    purpose: Purpose,
    unsaid: Vec<u8>,
    inbox: Vec<u8>,
    until_ns: u64,
}

/// See the head of the file.
pub(super) struct Stranger {
    lines: Vec<Line>,
    sessions: u32,
    redial_ns: u64,
    /// A session that it was given, to be joined on another connection.
    known: Option<(Welcome, String)>,
}

impl Stranger {
    pub fn new() -> Stranger {
        Stranger { lines: Vec::new(), sessions: 0, redial_ns: 0, known: None }
    }

    fn dial(&mut self, kernel: &Kernel) {
        if self.lines.len() == LINES_MAX || kernel.now_ns() < self.redial_ns || !kernel.chance(1, 8) {
            return;
        }
        self.redial_ns = kernel.now_ns() + REDIAL_NS;
        let (brokers, topics) = kernel.with(|state| (state.scenario.brokers.len(), state.scenario.topics.len()));
        let topic = topic_name(kernel.below(topics as u64) as usize);
        let Some(link) = kernel.dial(kernel.below(brokers as u64) as u32) else { return };
        let (purpose, unsaid) = self.intent(kernel, &topic);
        let until_ns = kernel.now_ns() + kernel.below(PATIENCE_NS);
        self.lines.push(Line { link, topic, purpose, unsaid, inbox: Vec::new(), until_ns });
    }

    /// What it says first on a connection, and why.
    fn intent(&mut self, kernel: &Kernel, topic: &str) -> (Purpose, Vec<u8>) {
        match kernel.below(9) {
            0 => (Purpose::Silent, Vec::new()),
            1 | 2 if self.sessions < SESSIONS_MAX => {
                self.sessions += 1;
                let (hello, body) = wrongs::hello(Role::Publisher, topic);
                // It may promise to be heard.
                (
                    Purpose::Publishes,
                    wrongs::bytes_of_hello((Hello { heartbeat_ms: 20 * kernel.below(2) as u32, ..hello }, body)),
                )
            }
            3 if self.known.is_some() => {
                let (welcome, topic) = self.known.take().expect("just seen");
                let (hello, body) = wrongs::hello(Role::Publisher, &topic);
                let Welcome { session, token, session_epoch, .. } = welcome;
                (Purpose::Listens, wrongs::bytes_of_hello((Hello { session, token, session_epoch, ..hello }, body)))
            }
            4 => (Purpose::Subscribes, wrongs::bytes_of_hello(wrongs::hello(Role::Subscriber, topic))),
            5 => (Purpose::Asks, wrongs::one_more(kernel, topic)),
            _ => {
                let (what, bytes) = wrongs::opening(kernel, topic);
                (Purpose::Refused(what), bytes)
            }
        }
    }

    /// Goes on with a connection. False: it is over.
    fn talk(&mut self, kernel: &Kernel, line: &mut Line) -> bool {
        if !line.unsaid.is_empty() && kernel.chance(1, 2) {
            let piece = 1 + kernel.below(line.unsaid.len() as u64) as usize;
            let Some(taken) = kernel.write(line.link, End::Client, &line.unsaid[..piece]) else { return false };
            line.unsaid.drain(..taken);
        }
        if kernel.chance(1, 2) {
            match kernel.read(line.link, End::Client, 1 + kernel.below(READ_BYTES) as usize) {
                Heard::End => return false,
                Heard::Bytes(bytes) if !matches!(line.purpose, Purpose::Listens) => line.inbox.extend(bytes),
                Heard::Bytes(_) | Heard::Nothing => {}
            }
        }
        if let Some(header) = line.inbox.first_chunk::<FRAME_HEADER_BYTES>().copied() {
            self.answered(kernel, line, &header);
            (line.purpose, line.inbox) = (Purpose::Listens, Vec::new());
        }
        kernel.now_ns() < line.until_ns && !kernel.is_calm()
    }

    /// The first frame of an answer has come.
    fn answered(&mut self, kernel: &Kernel, line: &mut Line, header: &[u8; FRAME_HEADER_BYTES]) {
        let kind = match frame::check(header, u64::MAX) {
            Ok(kind) => kind,
            Err(error) => return kernel.fail(5, format!("an answer came damaged: {error}")),
        };
        let is_done = match kind {
            FrameKind::Welcome => true,
            FrameKind::Reply => frame::read::<Reply>(header).code == 0,
            _ => false,
        };
        match &line.purpose {
            Purpose::Refused(what) if is_done => kernel.fail(5, format!("it was granted {what}")),
            Purpose::Publishes if is_done => {
                let welcome: Welcome = frame::read(header);
                line.unsaid = wrongs::of_a_publisher(kernel, &welcome);
                self.known = Some((welcome, line.topic.clone())).filter(|_| kernel.chance(1, 2));
            }
            Purpose::Asks => line.unsaid = wrongs::behind_an_answer(kernel),
            Purpose::Subscribes if is_done && kernel.chance(1, 2) => line.unsaid = wrongs::of_a_subscriber(kernel),
            _ => {}
        }
    }
}

impl Actor for Stranger {
    fn step(&mut self, kernel: &Kernel) {
        if !kernel.is_calm() {
            self.dial(kernel);
        }
        for mut line in std::mem::take(&mut self.lines) {
            if self.talk(kernel, &mut line) {
                self.lines.push(line);
            } else {
                kernel.close(line.link, End::Client);
            }
        }
    }

    /// It has gone.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.lines.is_empty()
    }
}
