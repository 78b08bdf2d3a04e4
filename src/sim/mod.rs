//! Simulation: the whole cluster in one thread, from one seed, on memory that is not coherent between hosts.
//!
//! * [`process`]: [simulated memory](crate::testing::memory) as one process sees it: held up or killed before any operation.
//! * [`network`]: ordered byte streams, delayed, cut anywhere, broken.
//! * [`scenario`]: what a seed chooses. [`trace`]: what happened. [`workload`]: what is sent.
//! * [`checker`]: the promises, held against the memory and against what clients heard.
//! * [`part`]: names of who acts. `kernel`: what a part may do; `misfortune`: what befalls it.
//! * `socket`: the roles' network. `ring`: what is under way in it; `progress`: how it goes on.
//! * `parts`: brokers, sequencer candidates, publishers and subscribers as steps. [`world`]: runs them.
//! * [`shrink`]: makes a failing run small.
//!
//! Nothing but tests and tools imports this room.

pub mod checker;
mod kernel;
mod misfortune;
pub mod network;
pub mod part;
mod parts;
pub mod process;
mod progress;
mod ring;
pub mod scenario;
pub mod shrink;
mod socket;
#[cfg(test)]
mod socket_tests;
pub mod trace;
pub mod workload;
pub mod world;
