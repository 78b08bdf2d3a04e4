//! What all parts take for granted: the topics, the log and the times.

use crate::sim::scenario::Scenario;
pub use crate::sim::scenario::UTC_NS;
use crate::wire::frame::LogRecord;

/// Places for connections of one broker.
pub const PLACES: u32 = 64;
/// Time a new connection has for its hello and its session, ns.
pub const HELLO_TIMEOUT_NS: u64 = 80_000_000;
/// Time a client waits before it dials again, ns.
pub const REDIAL_NS: u64 = 5_000_000;
/// Key of the pool's session tokens.
pub const TOKEN_KEY: [u64; 2] = [3, 4];

/// What a topic is called.
pub fn topic_name(number: usize) -> String {
    format!("simulated-{number}")
}

/// How a broker says which log it serves.
pub fn log_record(scenario: &Scenario) -> LogRecord {
    LogRecord { uuid: [5, 6], heartbeat_ms: scenario.heartbeat_ms, ..bytemuck::Zeroable::zeroed() }
}
