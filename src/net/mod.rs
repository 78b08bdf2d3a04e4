//! What the kernel offers for network I/O, behind safe interfaces.
//!
//! * [`readiness`]: waiting for sockets of a thread that has no ring of its own (the client library).

pub mod readiness;
