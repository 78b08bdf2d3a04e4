//! The roles: each a duty cycle that does a bounded amount of work and says how much it did.
//!
//! * [`sequence`]: orders what the lanes hold.
//!
//! Roles do not import each other.

pub mod sequence;
