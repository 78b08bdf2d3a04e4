//! Who is heard on a connection, and who is to hear of us. No I/O and no clock.

use std::time::{Duration, Instant};

use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::{self, Heartbeat};

/// What a hello promises: while it is driven, a client is heard at least this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);
/// Something is said this long after the last word, so that the promise is kept in spite of the way there.
const BEAT_AFTER: Duration = Duration::from_millis(300);
/// A broker that was not heard for this many of its own heartbeats is silent: its connection counts as broken.
const HEARTBEATS_MISSED_MAX: u32 = 4;

/// How long a connection has been silent, as far as this end looked, and when this end is to say something. An observer that slept
/// finds everybody silent: so one look adds at most one of the broker's heartbeats, however long ago the last look was.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pulse {
    /// How often the broker is heard at least; zero: it does not promise.
    heartbeat: Duration,
    pub silent: Duration,
    /// When to say that somebody is here; none: this broker speaks a version without that.
    beat_at: Option<Instant>,
    /// Bytes of a heartbeat that the socket did not take yet. Nothing else may be written before them.
    unsaid_bytes: usize,
}

impl Pulse {
    /// Of a new connection, to a broker that takes heartbeats or does not.
    pub fn of(heartbeat: Duration, takes_beats: bool, now: Instant) -> Pulse {
        let beat_at = takes_beats.then(|| now + BEAT_AFTER);
        Pulse { heartbeat, silent: Duration::ZERO, beat_at, unsaid_bytes: 0 }
    }

    /// Notes a look that came `since_last` after the one before. True if the broker has been silent for too long.
    pub fn look(&mut self, is_heard: bool, since_last: Duration) -> bool {
        self.silent = if is_heard { Duration::ZERO } else { self.silent + since_last.min(self.heartbeat) };
        self.silent >= self.limit() && !self.heartbeat.is_zero()
    }

    /// When to look, or to say something, even if no byte arrives.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        let look = (!self.heartbeat.is_zero()).then(|| now + self.heartbeat);
        look.into_iter().chain(self.beat_at).min()
    }

    fn limit(&self) -> Duration {
        self.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX)
    }

    /// Something was written: whoever reads it knows that we are here.
    pub fn wrote(&mut self, now: Instant) {
        self.beat_at = self.beat_at.map(|_| now + BEAT_AFTER);
    }

    /// How many bytes of a heartbeat are to be written now, before anything else: what is left of one that was begun, or a whole one, if
    /// it is time for that and the stream is between two frames.
    pub fn unsaid(&self, is_between_frames: bool, now: Instant) -> usize {
        let is_due = is_between_frames && self.beat_at.is_some_and(|at| at <= now);
        if self.unsaid_bytes == 0 && is_due { FRAME_HEADER_BYTES } else { self.unsaid_bytes }
    }

    /// The socket took so many of the bytes that were [`unsaid`](Pulse::unsaid). If it took none of a whole heartbeat, none is begun:
    /// where there is no room, the broker has enough to read.
    pub fn said(&mut self, unsaid: usize, bytes: usize, now: Instant) {
        self.wrote(now);
        self.unsaid_bytes = (unsaid - bytes) % FRAME_HEADER_BYTES;
    }

    /// How many bytes are left of a heartbeat that is on its way by half, so that no other frame may begin.
    pub fn half_said(&self) -> usize {
        self.unsaid_bytes
    }
}

/// The heartbeat as it is written.
pub(crate) fn heartbeat() -> [u8; FRAME_HEADER_BYTES] {
    frame::seal(&Heartbeat::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_written_whole_or_not_at_all() {
        let begun = Instant::now();
        let mut pulse = Pulse::of(Duration::ZERO, true, begun);
        assert_eq!(pulse.unsaid(true, begun), 0, "not due");
        let due = pulse.next_look(begun).unwrap();
        assert!(due - begun <= HEARTBEAT);
        assert_eq!(pulse.unsaid(false, due), 0, "a batch is half written");
        assert_eq!(pulse.unsaid(true, due), FRAME_HEADER_BYTES);
        pulse.said(FRAME_HEADER_BYTES, 0, due);
        assert!(pulse.half_said() == 0 && pulse.unsaid(true, due) == 0, "no room, nothing begun");
        let due = pulse.next_look(due).unwrap();
        pulse.said(pulse.unsaid(true, due), 10, due);
        assert!(pulse.half_said() > 0 && pulse.unsaid(true, due) == FRAME_HEADER_BYTES - 10);
        pulse.said(FRAME_HEADER_BYTES - 10, 0, due);
        assert_eq!(pulse.unsaid(true, due), FRAME_HEADER_BYTES - 10, "the rest of it is due until it is said");
        pulse.said(FRAME_HEADER_BYTES - 10, FRAME_HEADER_BYTES - 10, due);
        assert!(pulse.half_said() == 0 && pulse.unsaid(true, due) == 0);
        assert!(Pulse::of(Duration::ZERO, false, begun).next_look(begun).is_none());
    }

    #[test]
    fn one_look_adds_at_most_one_heartbeat_of_silence() {
        let heartbeat = Duration::from_millis(100);
        let mut pulse = Pulse::of(heartbeat, true, Instant::now());
        for _ in 1..HEARTBEATS_MISSED_MAX {
            assert!(!pulse.look(false, Duration::from_secs(60)));
        }
        assert!(!pulse.look(true, Duration::from_secs(60)), "it was heard");
        for _ in 1..HEARTBEATS_MISSED_MAX {
            assert!(!pulse.look(false, Duration::from_secs(60)));
        }
        assert!(pulse.look(false, Duration::from_secs(60)));
        assert!(!Pulse::of(Duration::ZERO, true, Instant::now()).look(false, Duration::MAX), "it promised nothing");
    }
}
