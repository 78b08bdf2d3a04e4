//! What the bytes of a committed batch must be.

use crate::pool::record::IndexEntry;
use crate::sim::scenario::{Fault, Scenario};
use crate::sim::workload;
use crate::wire::message::Messages;
use crate::wire::{BatchDecoder, Progress, Receipts};

/// What the messages of a batch say of when they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// Nothing.
    None,
    /// When each came: they are stamped before the batch is whole.
    Each,
    /// So too, by a clock that somebody sets meanwhile.
    EachAtAnyTime,
}

impl Stamps {
    /// Those of a world.
    pub fn of(scenario: &Scenario) -> Stamps {
        match scenario.receipts {
            Receipts::Batch => Stamps::None,
            Receipts::Message if scenario.has(Fault::ClockJump) => Stamps::EachAtAnyTime,
            Receipts::Message => Stamps::Each,
        }
    }

    /// Whether a message may say so in a batch received at that time.
    pub fn are_sound(self, message_ts: u64, received_at: u64) -> bool {
        match self {
            Stamps::None => true,
            Stamps::Each => (1..=received_at).contains(&message_ts),
            Stamps::EachAtAnyTime => message_ts > 0,
        }
    }
}

/// What is known of a batch before its bytes are looked at.
pub(super) struct Due<'a> {
    pub session: u64,
    pub entry: &'a IndexEntry,
    pub stamps: Stamps,
    pub payload_bytes_max: u64,
    /// Whose messages it must hold, if that is known, and the first one's number, if that is promised.
    pub client: Option<u64>,
    pub first: Option<u64>,
}

/// A committed batch's bytes: whole, what is due, stamped. Gives whose messages it holds, and the number of the first.
pub(super) fn check_bytes(bytes: &[u8], due: &Due<'_>) -> Result<(u64, u64), (u8, String)> {
    let header = match BatchDecoder::new(u64::MAX).advance(bytes) {
        Ok(Progress::Complete(header)) => header,
        found => return Err((7, format!("its bytes are not a batch: {found:?}"))),
    };
    let entry = due.entry;
    let found = (header.session, header.batch_seq, header.session_epoch, header.topic);
    if found != (due.session, entry.batch_seq, entry.session_epoch, entry.topic()) {
        return Err((7, format!("its header is another batch's: {header:?}")));
    }
    let (mut count, mut begin) = (0, None);
    for message in Messages::new(&bytes[64..64 + header.body_bytes as usize]) {
        let Some((client, number)) = workload::read(message.payload, due.payload_bytes_max) else {
            return Err((7, format!("message {count} is not what any publisher sends")));
        };
        let (whose, first) = *begin.get_or_insert((due.client.unwrap_or(client), due.first.unwrap_or(number)));
        if (client, number) != (whose, first + u64::from(count)) {
            let due = (whose, first + u64::from(count));
            return Err((3, format!("message {number} of client {client}, expected {due:?}")));
        }
        count += 1;
        if header.received_at == 0 || !due.stamps.are_sound(message.header.ts, header.received_at) {
            return Err((7, format!("a stale receipt: {:?} under {header:?}", message.header)));
        }
    }
    match begin {
        Some(begin) if count == entry.message_count => Ok(begin),
        _ => Err((7, format!("it holds {count} messages"))),
    }
}
