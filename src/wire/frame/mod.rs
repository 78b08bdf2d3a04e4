//! Frame headers: layouts, encoding, validation. The prose and the tables are in `PROTOCOL.md`.
//!
//! * `kinds`: levels, roles, operations. Kinds of frames and versions are in [`kind`](crate::wire::kind), below what can be wrong.
//! * `conversation`: how a conversation begins and ends.
//! * `publishing`, `subscribing`: batches, and what is said of them.
//! * `control`: requests, replies and their records.
//! * `check`: sealing, and checking what came in.
//!
//! Here is what they have in common. All of it is used by the path of this module.

use bytemuck::Zeroable;

use crate::described;
use crate::wire::error::WireError;

mod check;
mod control;
mod conversation;
mod kinds;
mod publishing;
mod subscribing;
#[cfg(test)]
mod tests;

pub use crate::wire::kind::{
    ACK_FENCED, BATCH_VERSION, FrameKind, MAGIC, NEW_SESSION, NOTHING_LET_GO, REPLY_MORE, VERSION, VERSION_3,
    VERSION_LOWEST,
};
pub use check::{
    RECEIVED_AT, check, check_body, check_cursor_name, check_topic_name, frame_bytes, header_crc, is_address, read,
    seal, with_body,
};
pub use control::{CursorRecord, Reply, Request, TopicRecord};
pub use conversation::{
    BROKER_LIST_BYTES_MAX, Brokers, Goodbye, Heartbeat, Hello, LogRecord, Refused, Welcome, split_welcome_body,
    welcome_body,
};
pub use kinds::{AckLevel, Operation, OrderLevel, Receipts, Role, SlowReader};
pub use publishing::{Ack, BatchHeader};
pub use subscribing::{CaughtUp, Deliver, Skipped};

described! {
    /// What every frame header has in common; `kind` says how bytes 12 to 56 are laid out.
    pub struct Prefix: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3; of a Batch the version of its format, 2
        version: u8,
        /// frame kind
        kind: u8,
        /// flags of the kind; 0 where none are defined
        flags: u16,
        /// length of the body in bytes, without its padding
        body_bytes: u32,
        /// as the kind defines
        own: [u32; 11],
        /// CRC32C of the body without its padding; 0 if the body is empty
        body_crc: u32,
        /// CRC32C of bytes 0 to 59 of this header (in a Batch with `received_at` taken as 0)
        header_crc: u32,
    }
}

/// A frame header of a known kind.
pub trait Frame: crate::fields::Described {
    /// Its kind.
    const KIND: FrameKind;
}

macro_rules! frames {
    ($($name:ident),*) => { $(
        impl Frame for $name { const KIND: FrameKind = FrameKind::$name; }
        impl Default for $name {
            /// All fields zero but the prefix that the kind fixes, in the lowest version that has the kind;
            /// `header_crc` is filled by [`seal`].
            fn default() -> Self {
                let mut frame = $name::zeroed();
                let kind = FrameKind::$name;
                (frame.magic, frame.version, frame.kind) = (MAGIC, kind.version_lowest(), kind as u8);
                frame
            }
        }
    )* };
}
// A batch header's type is `BatchHeader`, its kind `Batch`.
type Batch = BatchHeader;
frames!(Hello, Welcome, Refused, Batch, Ack, Deliver, CaughtUp, Goodbye, Request, Reply, Skipped, Heartbeat, Brokers);

/// The version of a conversation whose client speaks `lowest` to `highest`, where 0 stands for what clients that do not name
/// their versions speak.
fn version_in_use(prefix: u8, lowest: u8, highest: u8) -> Result<u8, WireError> {
    let lowest = if lowest == 0 { prefix } else { lowest };
    let highest = if highest == 0 { lowest.max(VERSION_LOWEST) } else { highest };
    let in_use = highest.min(VERSION);
    if lowest > highest || in_use < lowest.max(VERSION_LOWEST) {
        return Err(WireError::Version { found: if lowest > VERSION { lowest } else { highest } });
    }
    Ok(in_use)
}
