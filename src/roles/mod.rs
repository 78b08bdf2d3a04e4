//! The roles: each a duty cycle that does a bounded amount of work and says how much it did.
//!
//! * [`ack`]: tells publishers what is committed.
//! * [`receive`]: accepts connections and lands streams in the blog.
//! * [`export`]: serves subscribers straight out of the blog.
//! * [`sequence`]: orders what the lanes hold.
//!
//! [`caretaker`] gives back what dead members of a host have of the memory; [`locks`]: who of them lives.
//! [`addresses`] counts what each address has of a broker; [`handoff`] is what roles hand each other; [`tokens`] show that a
//! client was given a session; `heartbeats` says when quiet connections are told that we are there; `rounds` spreads looks at many connections over time;
//! `distance`: how far away they are.
//!
//! Roles do not import each other.

pub mod ack;
pub mod addresses;
pub mod caretaker;
mod distance;
pub mod export;
pub mod handoff;
mod heartbeats;
pub mod locks;
pub mod receive;
mod rounds;
pub mod sequence;
pub mod tokens;

#[cfg(test)]
mod damage_tests;
