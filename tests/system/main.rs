//! The system from outside: brokers on real sockets and pools, driven through the client library, through raw sockets, and
//! as processes that are interrupted and killed.
//!
//! One binary, so that it links once. Every test has a pool and an address of its own, so they run side by side. Every wait
//! has a deadline and says what it waited for; nothing sleeps to let something happen.
//!
//! * [`harness`]: sites, brokers in this process, broker processes, counters.
//! * [`traffic`]: what is published, and the reader that checks what comes out.
//! * [`load`]: load that goes on meanwhile.
//! * [`devtools`]: a browser without a window.
//! * [`exposition`]: the text that scrapers are given, read without mercy.
//! * [`raw`]: the protocol by hand, for what the client library would never send.

mod accounts;
mod attached;
mod configuration;
mod cursors;
mod delivery;
mod devtools;
mod examples;
mod exposition;
mod harness;
mod hostile;
mod kills;
mod levels;
mod load;
mod members;
mod page;
mod pools;
mod pressure;
mod publishers;
mod puzzles;
mod raw;
mod resources;
mod service;
mod sessions;
mod shares;
mod shown;
mod silence;
mod sizes;
mod splits;
mod stops;
mod topics;
mod traffic;
mod versions;
