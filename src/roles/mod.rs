//! The roles: each a duty cycle that does a bounded amount of work and says how much it did.
//!
//! * [`ack`]: tells publishers what is committed.
//! * [`receive`]: accepts connections and lands streams in the blog.
//! * [`export`]: serves subscribers straight out of the blog.
//! * [`sequence`]: orders what the lanes hold.
//!
//! Roles do not import each other.

pub mod ack;
pub mod export;
pub mod handoff;
pub mod receive;
pub mod sequence;

#[cfg(test)]
mod damage_tests;
