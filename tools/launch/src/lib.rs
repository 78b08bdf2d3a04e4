//! Starts brokers, and what they are measured beside, as processes of their own: addresses, configuration, folder, logs, signals.
//!
//! It knows the broker by its program, its configuration's text, its log and its signals, and none of its code.
//!
//! * [`place`]: addresses that nobody else has, a folder that is gone at the end, the broker's program.
//! * [`configuration`]: the text of a configuration.
//! * [`process`]: a process, from its start to its end.
#![forbid(unsafe_code)]

pub mod configuration;
pub mod place;
pub mod process;

use std::thread;
use std::time::{Duration, Instant};

/// How often something without an event of its own is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something, or for so long at most.
pub fn wait_for<T>(longest: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + longest;
    loop {
        match look() {
            None if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            found => return found,
        }
    }
}
