//! What happened, in order: a hash that two runs of one seed share, and sentences for whoever reads a failure.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher24;

use crate::sim::part::{LinkId, Part};
use crate::sim::scenario::Fault;

/// Events kept for the failure's report.
const TAIL_EVENTS: usize = 4000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A part ran one step.
    Step(Part),
    /// A part was stopped in the middle of a step, before one of its operations on memory.
    HeldUp(Part, u64),
    /// It goes on in the middle of its step.
    GoesOn(Part),
    /// A process was killed.
    Killed(Part, Fault),
    /// A process was asked to end.
    Stopped(Part),
    /// A process came back.
    Restarted(Part),
    /// A host lost power.
    PowerLost(usize),
    /// A process or client does nothing until then.
    Paused(Part, u64),
    /// A connection was cut.
    Cut(LinkId),
    /// A connection carries nothing until then.
    Stalled(LinkId, u64),
    /// A connection carries nothing any more, and nobody is told before then.
    Silenced(LinkId, u64),
    /// A host's time of day was set: so far ahead, ns.
    ClockSet(usize, i64),
    /// A client asked for a connection to a broker.
    Dialed(Part, u32, LinkId),
    /// A publisher's session was welcomed: session, epoch, frontier.
    Welcomed(Part, u64, u32, u64),
    /// A client was refused: code, detail.
    Refused(Part, u16, u64),
    /// A publisher sealed a batch of a session: number, messages.
    Sealed(Part, u64, u32),
    /// A publisher heard an ack: session, epoch, frontier, fenced, let go from.
    Acked(Part, u64, u32, u64, bool, u64),
    /// A receive core published slots of its lane up to here.
    Landed(Part, u64),
    /// A batch is committed: position, session, epoch, number, first order, messages.
    Committed(u64, u64, u32, u64, u64, u32),
    /// A control entry is committed: position, kind, session epoch, number.
    Control(u64, u8, u32, u64),
    /// An extent was granted to a lane, or closed by it: position, extent, lane, which of the two.
    Extent(u64, u64, u16, bool),
    /// Memory of an extent failed under a process, which is gone.
    MemoryFailed(Part, u32),
    /// Extents were given back for members that are gone.
    GivenBack(Part, u32),
    /// An epoch became the current one, at this position.
    Epoch(u64, u64),
    /// A subscriber was handed a batch: position, first order, messages.
    Delivered(Part, u64, u64, u32),
    /// A request was answered: operation, code, number.
    Answered(Part, u8, u16, u64),
    /// Memory below this position was given up.
    Floor(u64),
    /// Faults and load stop here.
    Calm,
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Step(part) => write!(out, "{part} runs"),
            Event::HeldUp(part, steps) => write!(out, "{part} is held up in mid-step for {steps} steps of others"),
            Event::GoesOn(part) => write!(out, "{part} goes on where it was held up"),
            Event::Killed(part, Fault::KillInStep) => write!(out, "{part} is killed in mid-step, with its process"),
            Event::Killed(part, _) => write!(out, "{part} is killed"),
            Event::Stopped(part) => write!(out, "{part} is asked to end, with its process"),
            Event::Restarted(part) => write!(out, "{part} starts again"),
            Event::MemoryFailed(part, extent) => {
                write!(out, "memory of extent {extent} fails under {part}, which is killed")
            }
            Event::GivenBack(part, extents) => write!(out, "{part} gives back {extents} extents of others"),
            Event::PowerLost(host) => write!(out, "host {host} loses power, and its cache"),
            Event::Paused(part, until) => write!(out, "{part} is stopped until {} us", until / 1000),
            Event::Cut(link) => write!(out, "connection {link} breaks"),
            Event::Stalled(link, until) => write!(out, "connection {link} carries nothing until {} us", until / 1000),
            Event::Silenced(link, until) => write!(out, "connection {link} is half-open until {} us", until / 1000),
            Event::ClockSet(host, ahead) => write!(out, "the time of day of host {host} is {ahead} ns ahead"),
            Event::Dialed(part, broker, link) => write!(out, "{part} dials broker {broker}: connection {link}"),
            Event::Welcomed(part, session, epoch, next) => {
                write!(out, "{part} is welcomed: session {session:#x} epoch {epoch}, batch {next} is next")
            }
            Event::Refused(part, code, detail) => write!(out, "{part} is refused: code {code}, detail {detail}"),
            Event::Sealed(part, number, messages) => write!(out, "{part} seals batch {number} of {messages} messages"),
            Event::Acked(part, session, epoch, next, fenced, let_go) => {
                write!(out, "{part} hears: session {session:#x} epoch {epoch} is committed below batch {next}")?;
                if *fenced {
                    write!(out, ", and fenced")?;
                }
                if *let_go != u64::MAX {
                    write!(out, ", let go from {let_go}")?;
                }
                Ok(())
            }
            Event::Landed(part, produced) => write!(out, "{part} has published slots below {produced}"),
            Event::Committed(position, session, epoch, number, order, messages) => write!(
                out,
                "position {position} is committed: session {session:#x} epoch {epoch} batch {number}, \
                 messages {order} to {}",
                order + u64::from(*messages) - 1
            ),
            Event::Control(position, kind, epoch, number) => {
                write!(out, "position {position} is committed: control entry {kind}, epoch {epoch}, batch {number}")
            }
            Event::Extent(position, extent, lane, true) => {
                write!(out, "position {position} is committed: extent {extent} is granted to lane {lane}")
            }
            Event::Extent(position, extent, lane, false) => {
                write!(out, "position {position} is committed: extent {extent} is closed by lane {lane}")
            }
            Event::Epoch(epoch, position) => write!(out, "sequencer epoch {epoch} is current from position {position}"),
            Event::Delivered(part, position, order, messages) => {
                write!(out, "{part} gets position {position}: {messages} messages from order {order}")
            }
            Event::Answered(part, operation, code, number) => {
                write!(out, "{part} is answered: operation {operation}, code {code}, number {number}")
            }
            Event::Floor(floor) => write!(out, "positions below {floor} are given up"),
            Event::Calm => write!(out, "faults and load end; everything must come to rest"),
        }
    }
}

/// The record of one run.
pub struct Trace {
    hasher: SipHasher24,
    events: u64,
    tail: VecDeque<(u64, u64, Event)>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { hasher: SipHasher24::new_with_keys(0, 0), events: 0, tail: VecDeque::with_capacity(TAIL_EVENTS) }
    }
}

impl Trace {
    /// Notes an event at a step and time.
    pub fn note(&mut self, step: u64, now_ns: u64, event: Event) {
        (step, now_ns, &event).hash(&mut self.hasher);
        self.events += 1;
        if matches!(event, Event::Step(_)) {
            return;
        }
        if self.tail.len() == TAIL_EVENTS {
            self.tail.pop_front();
        }
        self.tail.push_back((step, now_ns, event));
    }

    /// Hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last `most` events as sentences.
    pub fn sentences(&self, most: usize) -> Vec<String> {
        let skipped = self.tail.len().saturating_sub(most);
        let sentence =
            |(step, now_ns, event): &(u64, u64, Event)| format!("step {step:>6}, {:>8} us: {event}", now_ns / 1000);
        self.tail.iter().skip(skipped).map(sentence).collect()
    }
}
