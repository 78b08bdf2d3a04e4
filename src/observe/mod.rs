//! What can be seen from outside: counters, times and errors that outlive the process, in the pool.
//!
//! * [`counters`]: the catalogue: what each role counts, and its block.
//! * [`threads`]: what the threads of a process do. [`errors`]: its distinct errors.
//! * [`histogram`]: how long things took. [`slowest`]: the batches that took longest.
//! * [`timeline`]: when each batch was where. [`stages`]: what whoever ends a batch's way makes of that.

pub mod counters;
pub mod errors;
pub mod histogram;
pub mod slowest;
pub mod stages;
pub mod threads;
pub mod timeline;
