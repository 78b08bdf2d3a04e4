//! Names in a simulated world: who acts, and which connection is meant.

use std::fmt;

/// Names one connection for the whole run.
pub type LinkId = usize;

/// Who acts. The names of a simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A broker's receive core, by its number there.
    Receive(u32, u32),
    /// A broker's ack core.
    Ack(u32),
    /// A broker's exporter.
    Export(u32),
    /// A broker's housekeeping.
    Caretaker(u32),
    /// A sequencer candidate.
    Sequencer(u32),
    /// A publisher's place; the client in it changes when one dies.
    Publisher(u32),
    /// A subscriber.
    Subscriber(u32),
    /// Somebody who administers topics and cursors.
    Admin(u32),
    /// Somebody who deletes the topics that others use.
    Eraser,
    /// Somebody who does not keep to the protocol.
    Stranger(u32),
    /// A process that publishes without a broker, by its number.
    AttachedPublisher(u32),
    /// A process that subscribes without a broker, by its number.
    AttachedSubscriber(u32),
    /// A reader of all lanes' rings on a host.
    Watcher(u32),
    /// Somebody on a host who knows of others whether they are off.
    Operator(u32),
}

impl Part {
    /// Whether it is a client that maps the pool.
    pub fn is_attached(&self) -> bool {
        matches!(self, Part::AttachedPublisher(_) | Part::AttachedSubscriber(_))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Receive(broker, 0) => write!(out, "the receive core of broker {broker}"),
            Part::Receive(broker, core) => write!(out, "receive core {core} of broker {broker}"),
            Part::Ack(broker) => write!(out, "the ack core of broker {broker}"),
            Part::Export(broker) => write!(out, "the exporter of broker {broker}"),
            Part::Caretaker(broker) => write!(out, "the housekeeping of broker {broker}"),
            Part::Sequencer(candidate) => write!(out, "sequencer candidate {candidate}"),
            Part::Publisher(number) => write!(out, "publisher {number}"),
            Part::Subscriber(number) => write!(out, "subscriber {number}"),
            Part::Admin(number) => write!(out, "administrator {number}"),
            Part::Eraser => write!(out, "the eraser"),
            Part::Stranger(number) => write!(out, "stranger {number}"),
            Part::AttachedPublisher(number) => write!(out, "attached publisher {number}"),
            Part::AttachedSubscriber(number) => write!(out, "attached subscriber {number}"),
            Part::Watcher(host) => write!(out, "the watcher on host {host}"),
            Part::Operator(host) => write!(out, "the operator on host {host}"),
        }
    }
}
