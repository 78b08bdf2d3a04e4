//! Somebody who administers: creates and deletes a topic of its own, sets and removes cursors, over one control connection after another.
//! It knows what it was told, and holds every later answer against that.

use bytemuck::bytes_of;

use crate::client::TopicProperties;
use crate::client::requests::{parse_cursors, parse_list, record_of};
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::parts::control::{Control, Told};
use crate::sim::parts::terms::topic_name;
use crate::sim::trace::Event;
use crate::wire::frame::{Reply, Request};
use crate::wire::{AckLevel, Operation, OrderLevel, Refusal};

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

/// See the head of the file.
pub(super) struct Admin {
    number: u32,
    /// Asked about a cursor, or none of its own.
    control: Control<usize>,
    topic: KnownTopic,
    cursors: [Cursor; CURSORS],
}

impl Admin {
    pub fn new(kernel: &Kernel, number: u32) -> Admin {
        // Cursors go with their topic.
        let may_go = kernel.with(|state| state.scenario.topics_go);
        let cursor = || Cursor { may_go, ..Cursor::default() };
        let cursors = [cursor(), cursor()];
        Admin { number, control: Control::new(), topic: KnownTopic::default(), cursors }
    }

    fn name(&self) -> String {
        format!("of-admin-{}", self.number)
    }

    fn cursor_name(&self, cursor: usize) -> String {
        format!("cursor-{}-{cursor}", self.number)
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
        if kernel.chance(1, 20) {
            return self.control.part(kernel);
        }
        let (operation, cursor) =
            (Operation::from_byte(1 + kernel.below(8) as u8), kernel.below(CURSORS as u64) as usize);
        let operation = operation.expect("there are eight operations");
        let mut request = Request { operation: operation as u8, ..Request::default() };
        let topic = match operation {
            Operation::TopicList => String::new(),
            Operation::TopicCreate | Operation::TopicDescribe | Operation::TopicDelete => self.name(),
            _ => topic_name(0),
        };
        request.topic_bytes = topic.len() as u16;
        let mut rest = Vec::new();
        match operation {
            Operation::TopicCreate => {
                let (order, ack) = (OrderLevel::Total, AckLevel::None);
                rest.extend(bytes_of(&record_of(&TopicProperties { order, ack, ..TopicProperties::default() })));
            }
            Operation::TopicDelete => match self.topic.told {
                Some(Some(generation)) => request.number = generation,
                _ => return,
            },
            Operation::CursorCommit | Operation::CursorRead | Operation::CursorDelete => {
                rest.extend(self.cursor_name(cursor).as_bytes());
                if operation == Operation::CursorCommit {
                    request.number = kernel.below(1 << 20);
                }
            }
            _ => {}
        }
        self.control.ask(kernel, request, &topic, &rest, cursor);
    }

    fn listen(&mut self, kernel: &Kernel) {
        match self.control.listen(kernel) {
            Told::Nothing | Told::Over(None) => {}
            Told::Over(Some((request, cursor))) => self.unanswered(&request, cursor),
            Told::Reply(request, cursor, reply, body) => self.answered(kernel, &request, cursor, &reply, &body),
        }
    }

    fn answered(&mut self, kernel: &Kernel, request: &Request, cursor: usize, reply: &Reply, body: &[u8]) {
        kernel.note(Event::Answered(kernel.part, request.operation, reply.code, reply.number));
        let refusal = (reply.code != 0).then(|| Refusal::from_code(reply.code));
        let operation = Operation::from_byte(request.operation).expect("it was asked for");
        let wrong = match (operation, refusal) {
            (_, Some(Some(Refusal::Protocol | Refusal::Damaged) | None)) => Some("that was no fault of it".to_owned()),
            (_, Some(Some(Refusal::UnknownTopic))) if request.topic_bytes as usize == topic_name(0).len() => None,
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
        let listed = match parse_list(body) {
            Ok(listed) => listed,
            Err(error) => return Some(error.to_string()),
        };
        match listed.iter().find(|topic| topic.name == self.name()) {
            Some(found) => self.topic.is_there(found.generation),
            None => self.topic.is_gone(),
        }
    }

    fn cursors_listed(&mut self, body: &[u8]) -> Option<String> {
        let listed = match parse_cursors(body) {
            Ok(listed) => listed,
            Err(error) => return Some(error.to_string()),
        };
        let order =
            |cursor| listed.iter().find(|(name, _)| *name == self.cursor_name(cursor)).map(|(_, order)| order.0);
        let found = [order(0), order(1)];
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
        let (is_up, is_calm) = (self.control.is_up(), kernel.is_calm());
        if !is_up && !is_calm {
            self.control.dial(kernel);
        } else if is_up && !is_calm && !self.control.is_asking() && kernel.chance(1, 8) {
            self.ask(kernel);
        } else {
            // Whether it is answered, or still there.
            self.listen(kernel);
        }
    }

    /// It waits for no answer.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        !self.control.is_asking()
    }
}
