//! What holds of a receive core and each of its connections between two passes.

use crate::net::Network;
use crate::pool::Memory;
use crate::roles::receive::connection::{Connection, Phase};
use crate::roles::receive::landing::Rest;
use crate::roles::receive::{LINGER_NS, Receive};
use crate::runtime::Now;
use crate::wire::frame::NEW_SESSION;

/// An ending in which nothing happens any more for so long will not end: whoever is to let go was not asked to, ns.
const STUCK_NS: u64 = 8 * LINGER_NS;

impl<M: Memory, N: Network> Receive<M, N> {
    /// # Panics
    /// If something does not hold.
    pub(super) fn check_all(&self, now: Now) {
        let taken = self.connections.iter().flatten().count();
        assert_eq!(taken, self.in_use() as usize, "{}: a place is free or taken", self.name);
        for seat in &self.free {
            assert!(self.connections[*seat as usize].is_none(), "{}: place {seat} is free and taken", self.name);
        }
        for (seat, connection) in self.connections.iter().enumerate() {
            let Some(connection) = connection else { continue };
            assert_eq!(connection.id.seat as usize, seat, "{}: a connection knows its place", self.name);
            self.check_operations(connection, now);
            self.check_waiting(connection, seat as u32);
        }
    }

    /// Who uses its socket, and whether that ends.
    fn check_operations(&self, connection: &Connection<N::Socket>, now: Now) {
        let Connection { reading, cancelling, with_ack, is_writing, active_ns, .. } = connection;
        let name = &self.name;
        assert!(!(*with_ack && *is_writing), "{name}: a socket has one writer");
        assert!(!*cancelling || reading.is_some(), "{name}: nothing is cancelled that is over");
        let is_ending = matches!(connection.phase, Phase::Ending { .. });
        if is_ending {
            assert!(!connection.is_unused(), "{name}: an ending waits for somebody");
            assert!(reading.is_none() || *cancelling, "{name}: what is armed in an ending was asked to end");
        }
        if is_ending || matches!(connection.phase, Phase::Lingering) {
            let still_ns = now.monotonic_ns.saturating_sub(*active_ns);
            assert!(still_ns < STUCK_NS, "{name}: an ending does not end");
        }
        if let Phase::Streaming(stream) = &connection.phase {
            assert!(stream.filled <= stream.written, "{name}: no more is published than was written");
            let bytes = stream.run.as_ref().map_or(0, |run| run.bytes);
            assert!(stream.written <= bytes, "{name}: what was written lies in the run");
            let has_begun = stream.decoder.header().is_some();
            assert!(has_begun || !stream.has_half_a_batch(), "{name}: half a batch has begun");
            let is_held = matches!(stream.rest, Rest::Buffer(..));
            assert!(!is_held || connection.is_blocked, "{name}: who keeps a landing buffer waits for room");
        }
    }

    /// Somebody will look at it again.
    fn check_waiting(&self, connection: &Connection<N::Socket>, seat: u32) {
        let (name, is_reading) = (&self.name, connection.reading.is_some());
        assert!(
            !connection.is_blocked || self.blocked.contains(&seat),
            "{name}: who waits for room is looked at again"
        );
        match &connection.phase {
            Phase::Streaming(stream) if stream.terms.session != NEW_SESSION => {
                assert!(is_reading || connection.is_blocked, "{name}: a stream is read, or waits for room");
            }
            Phase::Streaming(_) => assert!(connection.with_ack, "{name}: a session is waited for with the ack core"),
            Phase::Asking(asked) => {
                assert!(asked.is_some() && self.asking.contains(&seat), "{name}: a request is looked at again");
            }
            Phase::Replying => assert!(connection.is_writing, "{name}: a reply is under way"),
            Phase::Hello { .. } => {
                let is_held_back = self.held_back.contains(&connection.id);
                assert!(is_reading || is_held_back, "{name}: a hello is read, or its turn comes");
            }
            // Looked after by the clock.
            Phase::Ending { .. } | Phase::Lingering => {}
        }
    }
}
