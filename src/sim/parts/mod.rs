//! The parts of the world: production code, stepped. A broker's roles run as they are, over a simulated network; candidates and clients are
//! their state machines, with what dials, reads and waits for them told anew.
//!
//! * [`broker`]: the roles of a broker. [`caretaker`]: its housekeeping, and who says that a host is off. [`sequencer`]: a candidate. [`watcher`]: somebody who only looks.
//! * [`attached`]: clients that map the pool: the production cores, in places of their own.
//! * [`publisher`], [`subscriber`]: clients, around the client's own state machines; [`attempt`]: how they dial. [`admin`], [`eraser`]: who makes and
//!   deletes topics and cursors, over a [`control`] connection. [`stranger`]: who keeps to no protocol, and says [`wrongs`]. `terms`: what all of them take for granted.

mod admin;
mod attached;
mod attempt;
mod broker;
mod caretaker;
mod control;
mod eraser;
mod publisher;
mod sequencer;
mod stranger;
mod subscriber;
mod terms;
mod watcher;
mod wrongs;

use crate::sim::kernel::{Actor, Kernel};
use crate::sim::part::Part;

/// A part at the beginning of its process. Nothing: it waits for another of its process.
pub(crate) fn boot(part: Part, kernel: &Kernel) -> Option<Box<dyn Actor>> {
    let actor: Box<dyn Actor> = match part {
        Part::Receive(broker, core) => return broker::receive(kernel, broker, core),
        Part::Ack(broker) => return broker::ack(kernel, broker),
        Part::Export(broker) => return broker::export(kernel, broker),
        Part::Sequencer(candidate) => Box::new(sequencer::Sequencer::new(kernel, candidate)),
        Part::Admin(number) => Box::new(admin::Admin::new(kernel, number)),
        Part::Eraser => Box::new(eraser::Eraser::new(kernel)),
        Part::Caretaker(_) => Box::new(caretaker::Housekeeping::new(kernel)),
        Part::Operator(host) => Box::new(caretaker::Operator::new(host)),
        Part::Watcher(_) => Box::new(watcher::Watcher::new(kernel)),
        Part::Publisher(number) => Box::new(publisher::Publisher::new(kernel, number)),
        Part::AttachedPublisher(number) => Box::new(attached::AttachedPublisher::new(kernel, number)),
        Part::AttachedSubscriber(number) => Box::new(attached::AttachedSubscriber::new(kernel, number)),
        Part::Stranger(_) => Box::new(stranger::Stranger::new()),
        Part::Subscriber(_) => Box::new(subscriber::Subscriber::new(kernel)),
    };
    Some(actor)
}
