//! The parts of the world: the protocol's state machines, each with the thin shell that a role or client has around them.
//!
//! The shells stand where the real ones touch sockets, rings and locks: what they decide is kept to what those decide,
//! and everything else is the real code.
//!
//! * [`receive`], [`ack`], [`export`]: a broker. [`sequencer`]: a candidate. [`watcher`]: somebody who only looks.
//! * [`publisher`], [`subscriber`]: clients.

mod ack;
mod export;
mod publisher;
mod receive;
mod sequencer;
mod subscriber;
mod watcher;

use std::collections::VecDeque;

use crate::sim::network::LinkId;
use crate::sim::trace::Part;
use crate::sim::world::{Actor, Kernel};
use crate::wire::StartAt;
use crate::wire::frame::Hello;

pub(crate) use ack::{FromAck, ToAck};

/// The topic everybody uses.
const TOPIC: &str = "simulated";
/// Places for connections of one broker.
const PLACES: u32 = 64;
/// What the wall clock showed when the world began, UTC ns.
const UTC_NS: u64 = 1_700_000_000_000_000_000;
/// Time a new connection has for its hello and its session, ns.
const HELLO_TIMEOUT_NS: u64 = 80_000_000;
/// Time a client waits before it dials again, ns.
const REDIAL_NS: u64 = 5_000_000;
/// Key of the pool's session tokens.
const TOKEN_KEY: [u64; 2] = [3, 4];

/// What the parts of one broker hand each other. It dies with their process.
#[derive(Default)]
pub(crate) struct Mail {
    pub to_ack: VecDeque<ToAck>,
    pub from_ack: VecDeque<FromAck>,
    pub subscriptions: VecDeque<Subscription>,
}

/// A subscriber whose hello was read.
pub(crate) struct Subscription {
    pub link: LinkId,
    pub topic: u32,
    pub start: StartAt,
}

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

/// A hello as the bytes that begin a connection.
fn hello_bytes(hello: &Hello) -> Vec<u8> {
    crate::wire::frame::with_body(hello, TOPIC.as_bytes())
}
