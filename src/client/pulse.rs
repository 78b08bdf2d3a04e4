//! Who is heard on a connection, and who is to hear of us.

use std::time::{Duration, Instant};

/// A broker that was not heard for this many of its own heartbeats is silent: its connection counts as broken.
const HEARTBEATS_MISSED_MAX: u32 = 4;

/// How long a connection has been silent, as far as this end looked. An observer that slept finds everybody silent: so one look
/// adds at most one of the broker's heartbeats, however long ago the last look was.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pulse {
    /// How often the broker is heard at least; zero: it does not promise.
    heartbeat: Duration,
    pub silent: Duration,
    /// When something was last written here.
    #[expect(dead_code)]
    wrote_at: Option<Instant>,
}

impl Pulse {
    pub fn of(heartbeat: Duration, now: Instant) -> Pulse {
        Pulse { heartbeat, silent: Duration::ZERO, wrote_at: Some(now) }
    }

    /// Notes a look that came `since_last` after the one before. True if the broker has been silent for too long.
    pub fn look(&mut self, is_heard: bool, since_last: Duration) -> bool {
        self.silent = if is_heard { Duration::ZERO } else { self.silent + since_last.min(self.heartbeat) };
        self.silent >= self.limit() && !self.heartbeat.is_zero()
    }

    /// When to look again even if no byte arrives.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        (!self.heartbeat.is_zero()).then(|| now + self.heartbeat)
    }

    fn limit(&self) -> Duration {
        self.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX)
    }
}
