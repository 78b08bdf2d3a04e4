//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
#![deny(unsafe_code)]

pub mod config;
pub mod fields;
pub mod limits;
pub mod runtime;
pub mod wire;
