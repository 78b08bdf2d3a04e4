//! What the kernel offers for network I/O, behind safe interfaces.
//!
//! * [`network`]: what a broker's thread asks of it: the wall that everything above stands on.
//! * [`ring`]: one that does it, the io_uring of a broker's thread; every buffer the kernel holds is owned there.
//! * [`peer`]: one connection as the kernel sees it; how it is ended without waiting.
//! * [`socket_options`]: what both ends ask of the kernel for every connection.
//! * [`readiness`]: waiting for sockets of a thread that has no ring of its own (the client library).

#[cfg(test)]
pub(crate) mod conformance;
pub mod network;
pub mod peer;
pub mod readiness;
pub mod ring;
pub mod socket_options;

pub use network::{Asker, Completion, FrameSlot, ListId, Network, Operation, Socket, Stage};
pub use ring::Ring;
