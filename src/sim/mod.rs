//! Simulation: the protocol code on memory that is not coherent between hosts, from one seed.
//!
//! * [`random`]: the generator every simulated choice comes from.
//! * [`memory`]: simulated hosts, each with a private write-back cache in front of one pool.
//! * [`watched`]: a memory that lets a test act between any two operations.
//!
//! Nothing but tests and tools imports this room.

pub mod memory;
pub mod random;
pub mod watched;
