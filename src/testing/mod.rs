//! What tests put in the place of memory and chance. Every choice comes from a seed, so that a failure can be had again.
//!
//! * [`random`]: the generator.
//! * [`memory`]: simulated hosts, each with a private write-back cache in front of one pool.
//! * [`watched`]: a memory with an act of a test between any two operations.
//!
//! Only tests, tools and the simulation import this room; it imports `limits` and `pool`.

pub mod memory;
pub mod random;
pub mod watched;
