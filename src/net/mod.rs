//! The network: the thread's io_uring, and readiness for clients.
//!
//! * [`ring`]: one io_uring per thread; every buffer the kernel holds is owned there.

pub mod ring;

pub use ring::{Asker, Completion, FrameSlot, ListId, Operation, Ring, Stage};
