//! Somebody who administers: creates and deletes a topic of its own, sets and removes cursors, over one control connection after another.
//! It knows what it was told, and holds every later answer against that.

use bytemuck::{Zeroable, bytes_of};

use crate::limits::FRAME_HEADER_BYTES;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{REDIAL_NS, TOPIC};
use crate::sim::trace::Event;
use crate::wire::frame::{self, CursorRecord, Goodbye, Reply, Request, TopicRecord};
use crate::wire::{FrameKind, Operation, OrderLevel, Refusal};

const READ_BYTES: usize = 16 << 10;
/// An answer is waited for so long, ns: longer than a broker takes to give a request up.
const PATIENCE_NS: u64 = 300_000_000;
/// Cursors of each.
const CURSORS: usize = 2;

/// What is known of the topic. What was asked for and not answered may be done at any later time.
#[derive(Default)]
struct KnownTopic {
    /// Generation it was told last; nothing: that it does not exist.
    told: Option<Option<u64>>,
    /// A creation was not answered, or may have made it again.
    may_come: bool,
    /// Deletions of these generations were not answered.
    may_go: Vec<u64>,
}

/// What is known of a cursor.
#[derive(Default)]
struct Cursor {
    /// What it stands at, as it was told last; nothing: that it does not exist.
    told: Option<u64>,
    /// Orders that were asked for and not answered.
    may_be: Vec<u64>,
    /// A deletion was not answered.
    may_go: bool,
}

struct Line {
    link: LinkId,
    inbox: Vec<u8>,
    /// What was asked, about which cursor, and until when the answer is waited for, ns.
    asked: Option<(Request, usize, u64)>,
}

/// See the head of the file.
pub(super) struct Admin {
    number: u32,
    line: Option<Line>,
    redial_ns: u64,
    topic: KnownTopic,
    cursors: [Cursor; CURSORS],
}

impl Admin {
    pub fn new(number: u32) -> Admin {
        Admin { number, line: None, redial_ns: 0, topic: KnownTopic::default(), cursors: Default::default() }
    }

    fn name(&self) -> String {
        format!("of-admin-{}", self.number)
    }

    fn cursor_name(&self, cursor: usize) -> String {
        format!("cursor-{}-{cursor}", self.number)
    }

    fn dial(&mut self, kernel: &Kernel) {
        if kernel.now_ns() < self.redial_ns || kernel.is_calm() {
            return;
        }
        self.redial_ns = kernel.now_ns() + REDIAL_NS;
        let brokers = kernel.with(|state| state.scenario.brokers.len()) as u64;
        let Some(link) = kernel.dial(kernel.below(brokers) as u32) else { return };
        self.line = Some(Line { link, inbox: Vec::new(), asked: None });
    }

    fn hang_up(&mut self, kernel: &Kernel) {
        let Some(line) = self.line.take() else { return };
        kernel.close(line.link, End::Client);
        if let Some((request, cursor, _)) = line.asked {
            self.unanswered(&request, cursor);
        }
    }

    /// It may be done yet, or have been done.
    fn unanswered(&mut self, request: &Request, cursor: usize) {
        let cursor = &mut self.cursors[cursor];
        match Operation::from_byte(request.operation) {
            Ok(Operation::TopicCreate) => self.topic.may_come = true,
            Ok(Operation::TopicDelete) => self.topic.may_go.push(request.number),
            Ok(Operation::CursorCommit) => cursor.may_be.push(request.number),
            Ok(Operation::CursorDelete) => cursor.may_go = true,
            _ => {}
        }
    }

    fn ask(&mut self, kernel: &Kernel) {
        let Some(line) = &self.line else { return };
        let link = line.link;
        if kernel.chance(1, 20) {
            kernel.write(link, End::Client, &frame::seal(&Goodbye::default()));
            return self.hang_up(kernel);
        }
        let (operation, cursor) =
            (Operation::from_byte(1 + kernel.below(8) as u8), kernel.below(CURSORS as u64) as usize);
        let operation = operation.expect("there are eight operations");
        let mut request = Request { operation: operation as u8, ..Request::default() };
        let mut body = Vec::new();
        match operation {
            Operation::TopicList => {}
            Operation::TopicCreate | Operation::TopicDescribe | Operation::TopicDelete => {
                body.extend(self.name().as_bytes());
            }
            _ => body.extend(TOPIC.as_bytes()),
        }
        request.topic_bytes = body.len() as u16;
        match operation {
            Operation::TopicCreate => {
                let record = TopicRecord { order_level: OrderLevel::Total as u8, replicas: 1, ..TopicRecord::zeroed() };
                body.extend(bytes_of(&record));
            }
            Operation::TopicDelete => match self.topic.told {
                Some(Some(generation)) => request.number = generation,
                _ => return,
            },
            Operation::CursorCommit | Operation::CursorRead | Operation::CursorDelete => {
                body.extend(self.cursor_name(cursor).as_bytes());
                if operation == Operation::CursorCommit {
                    request.number = kernel.below(1 << 20);
                }
            }
            _ => {}
        }
        // A new connection has room for these words, and so has one whose last request was answered.
        kernel.write(link, End::Client, &frame::with_body(&request, &body));
        let until_ns = kernel.now_ns() + PATIENCE_NS;
        self.line.as_mut().into_iter().for_each(|line| line.asked = Some((request, cursor, until_ns)));
    }

    fn listen(&mut self, kernel: &Kernel) {
        let Some(line) = &mut self.line else { return };
        let is_late = line.asked.is_some_and(|(_, _, until_ns)| kernel.now_ns() > until_ns);
        match kernel.read(line.link, End::Client, READ_BYTES) {
            Heard::Bytes(bytes) => line.inbox.extend(bytes),
            Heard::Nothing if is_late => return self.hang_up(kernel),
            Heard::Nothing => return,
            Heard::End => return self.hang_up(kernel),
        }
        let Some(header) = line.inbox.first_chunk::<FRAME_HEADER_BYTES>().copied() else { return };
        let kind = match frame::check(&header, u64::MAX) {
            Ok(kind) => kind,
            Err(error) => return kernel.fail(5, format!("a frame came damaged: {error}")),
        };
        let bytes = frame::frame_bytes(&header) as usize;
        if line.inbox.len() < bytes {
            return;
        }
        let padded: Vec<u8> = line.inbox.drain(..bytes).skip(FRAME_HEADER_BYTES).collect();
        match (kind, line.asked.take()) {
            (FrameKind::Reply, Some((request, cursor, _))) => match frame::check_body(&header, &padded) {
                Ok(body) => self.answered(kernel, &request, cursor, &frame::read(&header), body),
                Err(error) => kernel.fail(5, format!("an answer came damaged: {error}")),
            },
            // The broker ends, or is full.
            (FrameKind::Refused, asked) => {
                line.asked = asked;
                self.hang_up(kernel);
            }
            (kind, asked) => kernel.fail(5, format!("{kind:?} answers {asked:?}")),
        }
    }

    fn answered(&mut self, kernel: &Kernel, request: &Request, cursor: usize, reply: &Reply, body: &[u8]) {
        kernel.note(Event::Answered(kernel.part, request.operation, reply.code, reply.number));
        let refusal = (reply.code != 0).then(|| Refusal::from_code(reply.code));
        let operation = Operation::from_byte(request.operation).expect("it was asked for");
        let wrong = match (operation, refusal) {
            (_, Some(Some(Refusal::Protocol | Refusal::Damaged) | None)) => Some("that was no fault of it".to_owned()),
            (_, Some(Some(Refusal::UnknownTopic))) if request.topic_bytes as usize == TOPIC.len() => None,
            (Operation::TopicCreate, None) => {
                // If it was gone, this made it.
                self.topic.may_come = true;
                self.topic.is_there(reply.number)
            }
            (Operation::TopicDescribe, None) => self.topic.is_there(reply.number),
            (Operation::TopicDelete, None) => {
                self.topic.told = Some(None);
                None
            }
            (Operation::TopicDescribe | Operation::TopicDelete, Some(Some(Refusal::UnknownTopic))) => {
                self.topic.is_gone()
            }
            (Operation::TopicList, None) => self.listed(body),
            (Operation::CursorCommit, None) => {
                self.cursors[cursor].told = Some(request.number);
                None
            }
            (Operation::CursorRead, None) => self.cursors[cursor].stands_at(reply.number),
            (Operation::CursorDelete, None) => {
                self.cursors[cursor].told = None;
                None
            }
            (Operation::CursorRead | Operation::CursorDelete, Some(Some(Refusal::UnknownCursor))) => {
                self.cursors[cursor].is_gone()
            }
            (Operation::CursorList, None) => self.cursors_listed(body),
            // It was not done, or not in time.
            _ => {
                self.unanswered(request, cursor);
                None
            }
        };
        if let Some(wrong) = wrong {
            kernel.fail(5, format!("{operation:?} was answered with {reply:?}: {wrong}"));
        }
    }

    fn listed(&mut self, body: &[u8]) -> Option<String> {
        let (mut rest, mut found) = (body, None);
        while let Some((record, names)) = rest.split_at_checked(size_of::<TopicRecord>()) {
            let record: TopicRecord = bytemuck::pod_read_unaligned(record);
            let (name, behind) = names.split_at(record.name_bytes.into());
            if name == self.name().as_bytes() {
                found = Some(record.generation);
            }
            rest = behind;
        }
        match found {
            Some(generation) => self.topic.is_there(generation),
            None => self.topic.is_gone(),
        }
    }

    fn cursors_listed(&mut self, body: &[u8]) -> Option<String> {
        let mut found = [None; CURSORS];
        for record in body.chunks_exact(size_of::<CursorRecord>()) {
            let record: CursorRecord = bytemuck::pod_read_unaligned(record);
            let name = &record.name[..record.name_bytes as usize];
            let is_it = |cursor: &usize| name == self.cursor_name(*cursor).as_bytes();
            if let Some(cursor) = (0..CURSORS).find(is_it) {
                found[cursor] = Some(record.order);
            }
        }
        let held = |(cursor, order): (&mut Cursor, Option<u64>)| match order {
            Some(order) => cursor.stands_at(order),
            None => cursor.is_gone(),
        };
        self.cursors.iter_mut().zip(found).find_map(held)
    }
}

impl KnownTopic {
    /// It was told to exist. Gives what is wrong with that.
    fn is_there(&mut self, generation: u64) -> Option<String> {
        let before = self.told.replace(Some(generation));
        let is_wrong = match before {
            // Its creation was not asked for again, or was answered.
            Some(None) => false,
            Some(Some(known)) if known != generation => !(self.may_come && self.may_go.contains(&known)),
            _ => false,
        };
        is_wrong.then(|| format!("it was {before:?}"))
    }

    fn is_gone(&mut self) -> Option<String> {
        let before = self.told.replace(None);
        let is_wrong = matches!(before, Some(Some(known)) if !self.may_go.contains(&known));
        is_wrong.then(|| format!("it was {before:?}"))
    }
}

impl Cursor {
    fn stands_at(&mut self, order: u64) -> Option<String> {
        let before = self.told;
        let is_known = before == Some(order) || self.may_be.contains(&order);
        self.told = Some(order);
        (!is_known).then(|| format!("it stood at {before:?}, asked for were {:?}", self.may_be))
    }

    fn is_gone(&mut self) -> Option<String> {
        let before = self.told.take();
        (before.is_some() && !self.may_go).then(|| format!("it stood at {before:?}"))
    }
}

impl Actor for Admin {
    fn step(&mut self, kernel: &Kernel) {
        match &self.line {
            None => self.dial(kernel),
            Some(line) if line.asked.is_some() => self.listen(kernel),
            Some(_) if kernel.is_calm() => {}
            Some(_) if kernel.chance(1, 8) => self.ask(kernel),
            // Whether it is still there.
            Some(_) => self.listen(kernel),
        }
    }

    /// It waits for no answer.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.line.as_ref().is_none_or(|line| line.asked.is_none())
    }
}
