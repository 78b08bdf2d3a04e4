//! The order core: arrivals in, ordered events out. No clock, no I/O, no atomics, no memory of the pool.
//!
//! * [`event`]: what can happen in the one order.
//! * [`table`]: sessions and topics as a fold of those events; the same fold serves the sequencer, a takeover's replay
//!   and the ack core.
//! * `places`: where each session stands in the table.
//! * [`hold`]: batches parked behind a gap; bounded, without allocation.
//! * [`core`]: the decisions: append, park, drop a duplicate, let go, fence.
//! * [`outcomes`]: what became of each session's batches, counted.

pub mod core;
pub mod event;
pub mod hold;
pub mod outcomes;
mod places;
pub mod table;

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod model;

pub use core::{OrderCore, Verdict};
pub use event::{Arrival, Emit, Event, Origin};
pub use table::SessionTable;
