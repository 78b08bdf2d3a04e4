//! What all parts take for granted: the topic, the log and the times.

use crate::sim::scenario::Scenario;
use crate::wire::frame::LogRecord;

/// The topic everybody uses.
pub const TOPIC: &str = "simulated";
/// Places for connections of one broker.
pub const PLACES: u32 = 64;
/// What the wall clock showed when the world began, UTC ns.
pub const UTC_NS: u64 = 1_700_000_000_000_000_000;
/// Time a new connection has for its hello and its session, ns.
pub const HELLO_TIMEOUT_NS: u64 = 80_000_000;
/// Time a client waits before it dials again, ns.
pub const REDIAL_NS: u64 = 5_000_000;
/// Key of the pool's session tokens.
pub const TOKEN_KEY: [u64; 2] = [3, 4];

/// How a broker says which log it serves.
pub fn log_record(scenario: &Scenario) -> LogRecord {
    LogRecord { uuid: [5, 6], heartbeat_ms: scenario.heartbeat_ms, ..bytemuck::Zeroable::zeroed() }
}
