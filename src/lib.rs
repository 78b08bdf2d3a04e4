//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
#![deny(unsafe_code)]

pub mod client;
pub mod config;
pub mod crc;
pub mod embarlet;
pub mod fields;
pub mod limits;
pub mod log;
pub mod net;
pub mod observe;
pub mod order;
pub mod pool;
pub mod roles;
pub mod runtime;
pub mod sim;
pub mod wire;
