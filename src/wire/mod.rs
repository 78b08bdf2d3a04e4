//! The wire protocol: what crosses a TCP connection between a client and a broker.
//!
//! Little-endian throughout. Everything is a **frame**: a 64-byte header, then a body padded with any
//! bytes to a multiple of 64. A frame therefore always starts on a multiple of 64 bytes of its stream, and
//! a batch can land in the blog at its final address. The kind of a frame is explicit; nothing is told
//! apart by value. `wire/PROTOCOL.md` beside this file has a byte table for every frame and the
//! conversation of each role: a client in another language can be written from it alone, and a test
//! compares its tables with the code.
//!
//! * [`kind`]: kinds of frames, versions.
//! * [`frame`]: the layouts, their encoding and validation.
//! * [`message`]: the framing of messages inside a batch.
//! * [`decoder`]: the incremental decoder of a batch; total on hostile bytes.
//! * [`subscribe`]: the topics of a subscriber's hello.
//!
//! This room imports only `limits` (and `fields` and `crc`, which are below everything). It does no I/O.

pub use crate::crc::crc32c;

pub mod decoder;
pub mod error;
pub mod frame;
pub mod kind;
pub mod message;
pub mod subscribe;
#[cfg(test)]
mod vectors_tests;

pub use decoder::{BatchDecoder, Begun, Progress};
pub use error::{Refusal, WireError};
pub use frame::{AckLevel, FrameKind, Operation, OrderLevel, Receipts, SlowReader};
pub use subscribe::StartAt;

/// `bytes` rounded up to whole lines.
pub const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(crate::limits::LINE_BYTES)
}
