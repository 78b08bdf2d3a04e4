//! What is under way for one part of the world in its network: operations, and what they were lent.

use std::collections::VecDeque;

use crate::net::{Asker, Completion};
use crate::sim::part::LinkId;

/// What comes back with a completion.
pub(super) enum Back {
    Nothing,
    Connection(LinkId),
    Buffer(Box<[u8]>),
    Frame(u32),
    List(u32),
}

/// A piece of what is sent.
pub(super) enum Lent {
    Words(Vec<u8>),
    /// A range of the pool.
    Pool(u64, u64),
}

impl Lent {
    pub fn bytes(&self) -> u64 {
        match self {
            Lent::Words(words) => words.len() as u64,
            Lent::Pool(_, bytes) => *bytes,
        }
    }
}

/// What a send has read of the pool.
pub(super) struct Read {
    /// Pins that were not waited for any more when it began.
    pub dropped_pins: u64,
    /// Where, and what.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// A send under way.
pub(super) struct Send {
    pub link: LinkId,
    pub pieces: VecDeque<Lent>,
    pub is_zero_copy: bool,
    pub back: Back,
    pub sent: u64,
    pub read: Read,
}

/// An operation under way.
pub(super) enum Work {
    Accept {
        broker: u32,
    },
    Receive {
        link: LinkId,
        buffer: Box<[u8]>,
        from: usize,
    },
    Poll {
        link: LinkId,
    },
    Send(Send),
    /// A zero-copy send whose bytes the network still has: it ends when the peer has what was written up to here.
    Lent {
        link: LinkId,
        until: u64,
        read: Read,
        back: Back,
    },
}

pub(super) struct InFlight {
    pub asker: Asker,
    pub number: u64,
    pub work: Work,
    pub is_cancelled: bool,
}

/// What is under way for one part.
pub(crate) struct Ring {
    pub(super) process: usize,
    pub(super) host: usize,
    operations_max: usize,
    begun: u64,
    pub(super) under_way: Vec<InFlight>,
    pub(super) done: VecDeque<(Completion, Back)>,
}

impl Ring {
    pub fn new(process: usize, host: usize, operations_max: u32) -> Ring {
        let (under_way, done) = Default::default();
        Ring { process, host, operations_max: operations_max as usize, begun: 0, under_way, done }
    }

    /// Begins something. `None`: too much is under way.
    pub(super) fn begin(&mut self, asker: Asker, work: Work) -> Option<u64> {
        if self.under_way.len() == self.operations_max {
            return None;
        }
        self.begun += 1;
        self.under_way.push(InFlight { asker, number: self.begun, work, is_cancelled: false });
        Some(self.begun)
    }

    /// Whether something is under way on a connection.
    pub(super) fn uses(&self, connection: LinkId) -> bool {
        self.under_way.iter().any(|operation| match &operation.work {
            Work::Accept { .. } => false,
            Work::Receive { link, .. }
            | Work::Poll { link }
            | Work::Send(Send { link, .. })
            | Work::Lent { link, .. } => *link == connection,
        })
    }

    pub(super) fn cancel(&mut self, number: u64) {
        // One that is over is nobody's.
        let known = self.under_way.iter_mut().find(|operation| operation.number == number);
        known.into_iter().for_each(|operation| operation.is_cancelled = true);
    }
}
