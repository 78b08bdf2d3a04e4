//! What the parts of one broker hand each other: publishers' connections to the ack core and back, subscribers' to the exporter.

use std::collections::VecDeque;

use crate::order::Origin;
use crate::sim::part::LinkId;
use crate::wire::StartAt;

/// It dies with the process of the parts.
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
    pub created_position: u64,
    pub start: StartAt,
}

/// A publisher connection whose hello was accepted.
#[derive(Clone, Copy)]
pub(crate) struct Attachment {
    pub place: u32,
    pub generation: u32,
    pub link: LinkId,
    /// 0: the one that was asked for.
    pub session: u64,
    pub asked: Option<Origin>,
    pub session_epoch: u32,
    pub topic: u32,
}

/// From the receive core.
pub(crate) enum ToAck {
    Attach(Attachment),
    /// Place and generation.
    Close(u32, u32),
}

/// To the receive core.
pub(crate) enum FromAck {
    /// Its session is open. Place, generation and id.
    Opened(u32, u32, u64),
    /// Sending failed, or the conversation was refused: end it. Place and generation.
    Failed(u32, u32),
}
