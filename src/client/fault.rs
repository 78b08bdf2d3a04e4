//! What a subscriber finds wrong with what a broker sends.

use crate::client::error::ClientError;
use crate::client::handshake::refused;
use crate::client::numbers::Order;
use crate::wire::WireError;
use crate::wire::frame::{self, BatchHeader, Deliver};

/// The batch is the one announced: bytes that were reused under the broker's send do not pass.
pub(super) fn check_identity(deliver: &Deliver, header: &BatchHeader) -> Result<(), Fault> {
    let pairs = [
        ("session", header.session, deliver.session),
        ("session_epoch", header.session_epoch.into(), deliver.session_epoch.into()),
        ("batch_seq", header.batch_seq, deliver.batch_seq),
        ("topic", header.topic.into(), deliver.topic.into()),
        ("message_count", header.message_count.into(), deliver.message_count.into()),
        ("frame length", header.frame_bytes(), deliver.body_bytes.into()),
    ];
    match pairs.into_iter().find(|(_, found, expected)| found != expected) {
        Some((field, found, expected)) => Err(Fault::Differs { field, found, expected }),
        None => Ok(()),
    }
}

/// What is wrong with a broker's frame, before the broker's name is put to it.
pub(super) enum Fault {
    Wire(WireError),
    Refused(frame::Refused, Vec<u8>),
    Gap { found: u64, expected: u64 },
    Differs { field: &'static str, found: u64, expected: u64 },
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Fault {
        Fault::Wire(error)
    }
}

impl Fault {
    /// Met in a batch that was announced: whether its bytes may be other ones than its writer's. They were overwritten under the broker's
    /// send, perhaps by a whole other batch, or a wire or a memory changed them: what lies in the log may be sound, so the batch is asked
    /// for again before anybody is told.
    pub fn is_spoiled(&self) -> bool {
        matches!(self, Fault::Wire(_) | Fault::Differs { .. })
    }

    pub fn into_error(self, broker: &str) -> ClientError {
        let broker_name = || broker.to_owned();
        match self {
            Fault::Wire(error) => ClientError::wire(broker, error),
            Fault::Refused(header, text) => refused(broker, &header, &text),
            Fault::Gap { found, expected } => {
                ClientError::Gap { broker: broker_name(), found: Order(found), expected: Order(expected) }
            }
            Fault::Differs { field, found, expected } => {
                ClientError::Contradiction { broker: broker_name(), field, found, expected }
            }
        }
    }
}
