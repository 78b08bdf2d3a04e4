//! The parts of the world: the protocol's state machines, each with the thin shell that a role or client has around them.
//!
//! The shells stand where the real ones touch sockets, rings and locks: what they decide is kept to what those decide,
//! and everything else is the real code.
//!
//! * [`receive`], [`ack`], [`export`]: a broker. [`sequencer`]: a candidate. [`watcher`]: somebody who only looks.
//! * [`publisher`], [`subscriber`]: clients, around the client's own state machines; [`attempt`]: how they dial. `terms`: what all of them take for granted.

mod ack;
mod attempt;
mod export;
mod publisher;
mod receive;
mod sequencer;
mod subscriber;
mod terms;
mod watcher;

use crate::sim::kernel::{Actor, Kernel};
use crate::sim::part::Part;

/// A part at the beginning of its process.
pub(crate) fn boot(part: Part, kernel: &Kernel) -> Box<dyn Actor> {
    match part {
        Part::Receive(broker) => Box::new(receive::Receive::new(kernel, broker)),
        Part::Ack(broker) => Box::new(ack::Acks::new(kernel, broker)),
        Part::Export(broker) => Box::new(export::Export::new(kernel, broker)),
        Part::Sequencer(candidate) => Box::new(sequencer::Sequencer::new(kernel, candidate)),
        Part::Watcher(_) => Box::new(watcher::Watcher::new(kernel)),
        Part::Publisher(number) => Box::new(publisher::Publisher::new(kernel, number)),
        Part::Subscriber(_) => Box::new(subscriber::Subscriber::new(kernel)),
    }
}
