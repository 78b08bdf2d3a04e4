//! Simulation: the whole cluster in one thread, from one seed, on memory that is not coherent between hosts.
//!
//! * [`random`]: the generator every simulated choice comes from.
//! * [`memory`]: simulated hosts, each with a private write-back cache in front of one pool.
//! * [`watched`]: that memory with an act of a test between any two operations.
//! * [`process`]: that memory as one process sees it: held up or killed before any operation.
//! * [`network`]: ordered byte streams, delayed, cut anywhere, broken.
//! * [`scenario`]: what a seed chooses. [`trace`]: what happened. [`workload`]: what is sent.
//! * [`checker`]: the promises, held against the memory and against what clients heard.
//! * [`part`]: names of who acts. `mail`: what the parts of a broker hand each other. `kernel`: what a part may do, and what befalls it.
//! * `parts`: brokers, sequencer candidates, publishers and subscribers as steps. [`world`]: runs them.
//! * [`shrink`]: makes a failing run small.
//!
//! Nothing but tests and tools imports this room.

pub mod checker;
mod kernel;
mod mail;
pub mod memory;
pub mod network;
pub mod part;
mod parts;
pub mod process;
pub mod random;
pub mod scenario;
pub mod shrink;
pub mod trace;
pub mod watched;
pub mod workload;
pub mod world;
