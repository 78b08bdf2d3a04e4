//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
#![deny(unsafe_code)]

pub mod client;
pub mod fields;
pub mod limits;
pub mod net;
pub mod wire;
