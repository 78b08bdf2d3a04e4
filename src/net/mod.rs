//! What the kernel offers for network I/O, behind safe interfaces.
//!
//! * [`ring`]: the io_uring of a broker's thread; every buffer the kernel holds is owned there.
//! * [`peer`]: one connection as the kernel sees it; how it is ended without waiting.
//! * [`socket_options`]: what both ends ask of the kernel for every connection.
//! * [`readiness`]: waiting for sockets of a thread that has no ring of its own (the client library).

pub mod peer;
pub mod readiness;
pub mod ring;
pub mod socket_options;

pub use ring::{Asker, Completion, FrameSlot, ListId, Operation, Ring, Stage};
