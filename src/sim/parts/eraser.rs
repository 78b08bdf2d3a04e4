//! Somebody who deletes the topics that others use, and creates them again: another topic of the same name each time.

use bytemuck::bytes_of;

use crate::client::TopicProperties;
use crate::client::requests::record_of;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::parts::control::{Control, Told};
use crate::sim::parts::terms::topic_name;
use crate::sim::trace::Event;
use crate::wire::frame::Request;
use crate::wire::{Operation, Refusal};

/// One in so many steps it deletes one of them.
const DELETION_ONE_IN: u64 = 40;

/// See the head of the file.
pub(super) struct Eraser {
    /// Asked about a topic, by its number.
    control: Control<usize>,
    topics: usize,
    /// The topic it is about to delete, and its generation.
    doomed: Option<(usize, u64)>,
}

impl Eraser {
    pub fn new(kernel: &Kernel) -> Eraser {
        let topics = kernel.with(|state| state.scenario.topics.len());
        Eraser { control: Control::new(), topics, doomed: None }
    }

    fn ask(&mut self, kernel: &Kernel, operation: Operation, topic: usize, number: u64) {
        let mut rest = Vec::new();
        if operation == Operation::TopicCreate {
            let (order, receipts) = kernel.with(|state| (state.scenario.topics[topic], state.scenario.receipts));
            rest.extend(bytes_of(&record_of(&TopicProperties { order, receipts, ..TopicProperties::default() })));
        }
        let request = Request { operation: operation as u8, number, ..Request::default() };
        self.control.ask(kernel, request, &topic_name(topic), &rest, topic);
    }

    fn listen(&mut self, kernel: &Kernel) {
        let Told::Reply(request, topic, reply, _) = self.control.listen(kernel) else { return };
        kernel.note(Event::Answered(kernel.part, request.operation, reply.code, reply.number));
        let operation = Operation::from_byte(request.operation).expect("it was asked for");
        match (operation, Refusal::from_code(reply.code)) {
            (Operation::TopicDescribe, None) => self.doomed = Some((topic, reply.number)),
            (Operation::TopicDelete, None) => {
                kernel.check(|checker| checker.erased(&topic_name(topic), reply.number));
            }
            (_, Some(Refusal::Protocol | Refusal::Damaged)) => {
                kernel.fail(5, format!("{operation:?} was answered with {reply:?}"));
            }
            _ => {}
        }
    }
}

impl Actor for Eraser {
    fn step(&mut self, kernel: &Kernel) {
        if self.control.is_asking() {
            return self.listen(kernel);
        }
        let is_missing = |topic: &usize| kernel.with(|state| state.checker.next_order(&topic_name(*topic)).is_none());
        let missing = (0..self.topics).find(is_missing).filter(|_| kernel.is_calm() || kernel.chance(1, 20));
        let deletes = missing.is_none() && !kernel.is_calm() && kernel.chance(1, DELETION_ONE_IN);
        if !self.control.is_up() {
            return if missing.is_some() || deletes {
                self.control.dial(kernel)
            };
        }
        match (missing, self.doomed.take()) {
            (Some(topic), _) => self.ask(kernel, Operation::TopicCreate, topic, 0),
            (None, Some((topic, generation))) if !kernel.is_calm() => {
                self.ask(kernel, Operation::TopicDelete, topic, generation);
            }
            _ if deletes => {
                let topic = kernel.below(self.topics as u64) as usize;
                self.ask(kernel, Operation::TopicDescribe, topic, 0);
            }
            _ => self.listen(kernel),
        }
    }

    /// Every topic is there, and stays.
    fn is_at_rest(&self, checker: &Checker) -> bool {
        !self.control.is_asking() && (0..self.topics).all(|topic| checker.next_order(&topic_name(topic)).is_some())
    }
}
