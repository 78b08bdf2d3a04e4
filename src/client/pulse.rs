//! Who is heard on a connection, and who is to hear of us.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::limits::FRAME_HEADER_BYTES;
use crate::wire::frame::{self, Goodbye, Heartbeat};

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

    /// Says that somebody is here if that is due; to be called between two frames. False: a heartbeat is not wholly written, and
    /// nothing else may be before a later call has done it.
    pub fn beat(&mut self, mut stream: impl Write, now: Instant) -> io::Result<bool> {
        if self.unsaid_bytes == 0 {
            if self.beat_at.is_none_or(|at| now < at) {
                return Ok(true);
            }
            self.unsaid_bytes = FRAME_HEADER_BYTES;
        }
        self.wrote(now);
        let heartbeat = frame::seal(&Heartbeat::default());
        match stream.write(&heartbeat[FRAME_HEADER_BYTES - self.unsaid_bytes..]) {
            Ok(bytes) => self.unsaid_bytes -= bytes,
            // Where there is no room, the broker has enough to read.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.unsaid_bytes %= FRAME_HEADER_BYTES;
            }
            Err(error) => return Err(error),
        }
        Ok(self.unsaid_bytes == 0)
    }

    /// The last word, if it can be said at once: closing says nearly as much.
    pub fn goodbye(&self, mut stream: impl Write) {
        if self.unsaid_bytes == 0 {
            let _ = stream.write(&frame::seal(&Goodbye::default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then none.
    struct Narrow(Vec<u8>, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            self.1 -= taken;
            self.0.extend(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_heartbeat_is_written_whole_or_not_at_all() {
        let begun = Instant::now();
        let mut pulse = Pulse::of(Duration::ZERO, true, begun);
        let mut socket = Narrow(Vec::new(), 0);
        assert!(pulse.beat(&mut socket, begun).unwrap() && socket.0.is_empty(), "not due");
        let due = pulse.next_look(begun).unwrap();
        assert!(due - begun <= HEARTBEAT && pulse.beat(&mut socket, due).unwrap(), "no room, nothing begun");
        let due = pulse.next_look(due).unwrap();
        socket.1 = 10;
        assert!(!pulse.beat(&mut socket, due).unwrap());
        assert!(!pulse.beat(&mut socket, due).unwrap());
        socket.1 = 100;
        assert!(pulse.beat(&mut socket, due).unwrap());
        assert_eq!(socket.0, frame::seal(&Heartbeat::default()));
        pulse.wrote(due);
        assert!(pulse.beat(&mut socket, due).unwrap() && socket.0.len() == FRAME_HEADER_BYTES);
        assert!(Pulse::of(Duration::ZERO, false, begun).next_look(begun).is_none());
    }
}
