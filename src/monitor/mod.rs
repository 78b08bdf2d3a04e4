//! Showing a pool to people and to their tools: what it is like now, and who waits for whom. Nothing here writes a pool.
//!
//! * [`snapshot`]: all of a pool at one moment.
//! * [`stages`]: how long batches took.
//! * [`diagnosis`]: what two of them say about who waits for whom.
//! * [`history`]: the last minutes of it.
//! * [`prometheus`]: counters as text for scrapers.
//! * [`server`]: the thread that answers browsers and scrapers. [`http`]: how it is spoken to. `page.html`: what a browser shows.

pub mod diagnosis;
pub mod history;
pub mod http;
pub mod prometheus;
pub mod server;
pub mod snapshot;
pub mod stages;
