//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
#![deny(unsafe_code)]

pub mod crc;
pub mod fields;
pub mod limits;
pub mod log;
pub mod pool;
pub mod sim;
pub mod wire;
