//! Showing a pool to people and to their tools: what it is like now, and who waits for whom. Nothing here writes a pool.
//!
//! * [`snapshot`]: all of a pool at one moment.

pub mod snapshot;
