//! What holds of an ack core and each of its connections between two passes.

use crate::net::Network;
use crate::pool::Memory;
use crate::roles::ack::{AckRole, Attached, Sending};

impl<M: Memory, N: Network> AckRole<M, N> {
    /// # Panics
    /// If something does not hold.
    pub(super) fn check_all(&self) {
        let is_taken = |seat: &u32| self.connections[*seat as usize].is_some();
        for list in [&self.waiting, &self.closed, &self.landing] {
            assert!(list.iter().all(is_taken), "{}: nobody is looked for who was released", self.name);
        }
        for seat in &self.waiting {
            let connection = self.connections[*seat as usize].as_ref().expect("looked at above");
            assert!(connection.waiting.is_some(), "{}: who waits for its session has none", self.name);
        }
        for (seat, connection) in self.connections.iter().enumerate() {
            let Some(connection) = connection else { continue };
            let at = connection.link as u32 * self.seats_per_link + connection.id.seat;
            assert_eq!(at as usize, seat, "{}: a connection knows its seat", self.name);
            self.check(connection);
        }
    }

    /// What it has to say it says, or it is over.
    fn check(&self, connection: &Attached<<N::Socket as crate::net::Socket>::Handle>) {
        let Attached { sending, has_news, is_closing, has_failed, last_words, waiting, .. } = connection;
        let (name, is_free) = (&self.name, *sending == Sending::Nothing);
        assert!(!is_closing || !is_free, "{name}: who is to be let go is, unless something is under way");
        assert!(last_words.is_none() || !is_free, "{name}: last words are said as soon as they can be");
        assert!(!has_failed || is_free, "{name}: nothing is sent behind what failed");
        let has_to_wait = waiting.is_some() || *has_failed || *is_closing;
        assert!(!has_news || !is_free || has_to_wait, "{name}: news is told as soon as it can be");
    }
}
