//! A control connection of somebody who administers: a request, its answer, the next one.

use crate::client::ClientError;
use crate::client::requests::{answered, request_bytes};
use crate::limits::FRAME_HEADER_BYTES;
use crate::sim::kernel::Kernel;
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::REDIAL_NS;
use crate::wire::frame::{self, Goodbye, Reply, Request};

const READ_BYTES: usize = 16 << 10;
/// An answer is waited for so long, ns: longer than a broker takes to give a request up.
const PATIENCE_NS: u64 = 300_000_000;

struct Line<T> {
    link: LinkId,
    inbox: Vec<u8>,
    /// What was asked, what it is about, and until when the answer is waited for, ns.
    asked: Option<(Request, T, u64)>,
}

/// What came of a look at a connection.
pub(super) enum Told<T> {
    Nothing,
    /// A request was answered.
    Reply(Request, T, Reply, Vec<u8>),
    /// The connection is over, and the request that was asked on it is not answered.
    Over(Option<(Request, T)>),
}

/// See the head of the file. `T`: what a request is about.
pub(super) struct Control<T> {
    line: Option<Line<T>>,
    redial_ns: u64,
}

impl<T: Copy + std::fmt::Debug> Control<T> {
    pub fn new() -> Control<T> {
        Control { line: None, redial_ns: 0 }
    }

    pub fn is_up(&self) -> bool {
        self.line.is_some()
    }

    /// Whether an answer is waited for.
    pub fn is_asking(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.asked.is_some())
    }

    pub fn dial(&mut self, kernel: &Kernel) {
        if kernel.now_ns() < self.redial_ns {
            return;
        }
        self.redial_ns = kernel.now_ns() + REDIAL_NS;
        let brokers = kernel.with(|state| state.scenario.brokers.len()) as u64;
        let link = kernel.dial(kernel.below(brokers) as u32);
        self.line = link.map(|link| Line { link, inbox: Vec::new(), asked: None });
    }

    /// Says goodbye, and closes.
    pub fn part(&mut self, kernel: &Kernel) {
        if let Some(line) = self.line.take() {
            kernel.write(line.link, End::Client, &frame::seal(&Goodbye::default()));
            kernel.close(line.link, End::Client);
        }
    }

    /// Asks about a topic, or none; with what comes behind the topic's name.
    pub fn ask(&mut self, kernel: &Kernel, request: Request, topic: &str, rest: &[u8], about: T) {
        let Some(line) = &mut self.line else { return };
        // A new connection has room for these words, and so has one whose last request was answered.
        kernel.write(line.link, End::Client, &request_bytes(request, topic, rest));
        line.asked = Some((request, about, kernel.now_ns() + PATIENCE_NS));
    }

    fn over(&mut self, kernel: &Kernel) -> Told<T> {
        let Some(line) = self.line.take() else { return Told::Nothing };
        kernel.close(line.link, End::Client);
        Told::Over(line.asked.map(|(request, about, _)| (request, about)))
    }

    /// Listens once.
    pub fn listen(&mut self, kernel: &Kernel) -> Told<T> {
        let Some(line) = &mut self.line else { return Told::Nothing };
        let is_late = line.asked.is_some_and(|(_, _, until_ns)| kernel.now_ns() > until_ns);
        match kernel.read(line.link, End::Client, READ_BYTES) {
            Heard::Bytes(bytes) => line.inbox.extend(bytes),
            Heard::Nothing if is_late => return self.over(kernel),
            Heard::Nothing => return Told::Nothing,
            Heard::End => return self.over(kernel),
        }
        let Some(header) = line.inbox.first_chunk::<FRAME_HEADER_BYTES>().copied() else { return Told::Nothing };
        if let Err(error) = frame::check(&header, u64::MAX) {
            kernel.fail(5, format!("a frame came damaged: {error}"));
            return self.over(kernel);
        }
        let bytes = frame::frame_bytes(&header) as usize;
        if line.inbox.len() < bytes {
            return Told::Nothing;
        }
        let padded: Vec<u8> = line.inbox.drain(..bytes).skip(FRAME_HEADER_BYTES).collect();
        let body = match frame::check_body(&header, &padded) {
            Ok(body) => body,
            Err(error) => {
                kernel.fail(5, format!("an answer came damaged: {error}"));
                return self.over(kernel);
            }
        };
        let operation = line.asked.map_or(0, |(request, ..)| request.operation);
        match (answered("a broker", operation, &header, body), line.asked) {
            (Ok((reply, _)), Some((request, about, _))) => {
                line.asked = None;
                Told::Reply(request, about, reply, body.to_vec())
            }
            // The broker ends, or is full.
            (Err(ClientError::Refused { .. }), _) => self.over(kernel),
            (answer, asked) => {
                kernel.fail(5, format!("{answer:?} answers {asked:?}"));
                self.over(kernel)
            }
        }
    }
}
