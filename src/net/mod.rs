//! What the kernel offers for network I/O, behind safe interfaces.
//!
//! * `network`: what a broker's thread asks of it: the wall that everything above stands on.
//! * `ring`: one that does it, the io_uring of a broker's thread; every buffer the kernel holds is owned there.
//! * `peer`: one connection as the kernel sees it; how it is ended without waiting.
//! * [`socket_options`]: what both ends ask of the kernel for every connection.
//! * [`readiness`]: waiting for sockets of a thread that has no ring of its own (the client library).

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(feature = "broker")]
pub mod network;
#[cfg(feature = "broker")]
pub mod peer;
pub mod readiness;
#[cfg(feature = "broker")]
pub mod ring;
pub mod socket_options;

#[cfg(feature = "broker")]
pub use network::{Asker, Completion, FrameSlot, ListId, Network, Operation, Socket, Stage};
#[cfg(feature = "broker")]
pub use ring::Ring;
