//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
#![deny(unsafe_code)]

pub mod crc;
pub mod fields;
pub mod limits;
pub mod log;
pub mod observe;
pub mod order;
pub mod pool;
pub mod roles;
pub mod sim;
pub mod wire;
