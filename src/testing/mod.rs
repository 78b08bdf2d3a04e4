//! What tests put in the place of memory and chance. Every choice comes from a seed, so that a failure can be had again.
//!
//! * [`random`]: the generator, and lists that go through all choices.
//! * [`memory`]: simulated hosts, each with a private write-back cache in front of one pool; what these may do is in `caches`.
//! * `litmus`: the rules of shared memory that the protocol rests on, as small programs over all outcomes. `LITMUS.md` is its table.
//! * [`watched`]: a memory with an act of a test between any two operations.
//!
//! Only tests, tools and the simulation import this room; it imports `limits` and `pool`.

mod caches;
#[cfg(test)]
mod explore;
#[cfg(test)]
mod litmus;
pub mod memory;
pub mod random;
pub mod watched;
