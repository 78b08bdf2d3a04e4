//! A subscriber: checks every byte it gets, and resumes by position.

use crate::limits::FRAME_HEADER_BYTES;
use crate::roles::receive::hello::ANY_LEVEL;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{REDIAL_NS, TOPIC};
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::wire::frame::{self, CaughtUp, Deliver, Hello, Refused, Role, Welcome};
use crate::wire::message::Messages;
use crate::wire::subscribe::push_start;
use crate::wire::{BatchDecoder, FrameKind, Progress, Refusal, StartAt};

const READ_BYTES: usize = 16 << 10;

struct Line {
    link: LinkId,
    inbox: Vec<u8>,
    /// Order the next batch must begin at, once the first has come.
    expected: Option<u64>,
    /// Pins that were not waited for any more when it was dialed.
    dropped_pins: u64,
}

/// See the head of the file.
pub(super) struct Subscriber {
    line: Option<Line>,
    redial_ns: u64,
    /// Order of the next message to be handed on; none before the first welcome.
    next: Option<u64>,
    payload_bytes_max: u64,
}

impl Subscriber {
    pub fn new(kernel: &Kernel) -> Subscriber {
        let payload_bytes_max = kernel.with(|state| state.scenario.payload_bytes_max);
        Subscriber { line: None, redial_ns: 0, next: None, payload_bytes_max }
    }

    fn dial(&mut self, kernel: &Kernel) {
        if kernel.now_ns() < self.redial_ns {
            return;
        }
        self.redial_ns = kernel.now_ns() + REDIAL_NS;
        let brokers = kernel.with(|state| state.scenario.brokers.len()) as u64;
        let Some(link) = kernel.dial(kernel.below(brokers) as u32) else { return };
        let hello = Hello { role: Role::Subscriber as u8, order_level: ANY_LEVEL, ..Hello::default() };
        let mut body = Vec::new();
        push_start(&mut body, TOPIC, self.next.map_or(StartAt::Earliest, StartAt::Order), 0);
        kernel.write(link, End::Client, &frame::with_body(&hello, &body));
        let dropped_pins = kernel.with(|state| state.dropped_pins());
        self.line = Some(Line { link, inbox: Vec::new(), expected: None, dropped_pins });
    }

    fn hang_up(&mut self, kernel: &Kernel) {
        if let Some(line) = self.line.take() {
            kernel.close(line.link, End::Client);
        }
    }

    /// Takes one frame. False: the next one is not whole, or the connection is over.
    fn take(&mut self, kernel: &Kernel) -> bool {
        let Some(line) = &mut self.line else { return false };
        let Some((header, rest)) = line.inbox.split_first_chunk::<FRAME_HEADER_BYTES>() else { return false };
        let kind = match frame::check(header, u64::MAX) {
            Ok(kind) => kind,
            Err(error) => {
                kernel.fail(8, format!("a frame came damaged: {error}"));
                return false;
            }
        };
        // A Deliver frame's body is a batch; every body is padded.
        let body_bytes = frame::frame_bytes(header) as usize - FRAME_HEADER_BYTES;
        let Some(body) = rest.get(..body_bytes) else { return false };
        match kind {
            FrameKind::Welcome => {
                let welcome: Welcome = frame::read(header);
                self.next.get_or_insert(welcome.next);
            }
            FrameKind::Deliver => {
                let (deliver, body) = (frame::read::<Deliver>(header), body.to_vec());
                self.handed(kernel, &deliver, &body);
            }
            FrameKind::CaughtUp => {
                let (found, expected) = (frame::read::<CaughtUp>(header).next_order, line.expected);
                if expected.is_some_and(|expected| expected != found) {
                    kernel.fail(2, format!("told it has caught up at order {found}, it is at {expected:?}"));
                }
            }
            FrameKind::Refused => {
                let refused: Refused = frame::read(header);
                kernel.note(Event::Refused(kernel.part, refused.code, refused.detail));
                if refused.code == Refusal::Damaged as u16 {
                    kernel.fail(8, "what a reader had pinned cannot be read".into());
                }
                if refused.code == Refusal::Trimmed as u16 {
                    match self.next {
                        Some(order) => kernel.check(|checker| checker.gone(order)),
                        None => kernel.fail(10, "what begins at the earliest message was told to be gone".into()),
                    }
                    // It fell behind while it had no connection, and starts again at the earliest there is.
                    self.next = None;
                }
                self.hang_up(kernel);
                return false;
            }
            kind => kernel.fail(10, format!("a subscriber was sent {kind:?}")),
        }
        self.line.as_mut().into_iter().for_each(|line| drop(line.inbox.drain(..FRAME_HEADER_BYTES + body_bytes)));
        true
    }

    /// Bytes of a batch are other ones than its writer's. If its broker stood still and was not waited for, they were used again under its
    /// send, and it is asked for again elsewhere.
    fn spoiled(&mut self, kernel: &Kernel, text: String) {
        let since = self.line.as_ref().map_or(0, |line| line.dropped_pins);
        match kernel.with(|state| state.dropped_pins()) > since {
            true => self.hang_up(kernel),
            false => kernel.fail(8, text),
        }
    }

    fn handed(&mut self, kernel: &Kernel, deliver: &Deliver, batch: &[u8]) {
        let (Some(line), Some(next)) = (&mut self.line, &mut self.next) else {
            return kernel.fail(10, "a batch before the welcome".into());
        };
        let expected = line.expected.unwrap_or(*next);
        let gap =
            if line.expected.is_some() { deliver.first_order != expected } else { deliver.first_order > expected };
        if gap {
            return kernel.fail(2, format!("a batch at order {} where {expected} comes next", deliver.first_order));
        }
        let header = match BatchDecoder::new(u64::MAX).advance(batch) {
            Ok(Progress::Complete(header)) => header,
            found => return self.spoiled(kernel, format!("position {} came as {found:?}", deliver.position)),
        };
        if (header.session, header.batch_seq, header.session_epoch)
            != (deliver.session, deliver.batch_seq, deliver.session_epoch)
        {
            return self.spoiled(kernel, format!("{deliver:?} came with {header:?}"));
        }
        let mut messages = Messages::new(&batch[64..64 + header.body_bytes as usize]);
        let bytes_max = self.payload_bytes_max;
        if messages.any(|message| workload::read(message.payload, bytes_max).is_none()) {
            return kernel.fail(8, format!("position {} holds a message nobody sent", deliver.position));
        }
        let end = deliver.first_order + u64::from(deliver.message_count);
        line.expected = Some(end);
        *next = end.max(*next);
        kernel.note(Event::Delivered(kernel.part, deliver.position, deliver.first_order, deliver.message_count));
        kernel.check(|checker| checker.delivered(*deliver));
    }
}

impl Actor for Subscriber {
    fn step(&mut self, kernel: &Kernel) {
        let Some(line) = &mut self.line else { return self.dial(kernel) };
        match kernel.read(line.link, End::Client, READ_BYTES) {
            Heard::Bytes(bytes) => line.inbox.extend(bytes),
            Heard::Nothing => return,
            Heard::End => return self.hang_up(kernel),
        }
        while self.take(kernel) {}
    }

    /// It has everything.
    fn is_at_rest(&self, checker: &Checker) -> bool {
        self.next == Some(checker.next_order())
    }
}
