//! What a reader of a topic at order level 5 has read: checked message by message, and small enough to be written down after every
//! poll.
//!
//! Messages carry their session's run, publisher and number, so that each is checked for its place in the topic (order), for its
//! place in its session (number), and byte by byte (payload). The hash is a sum over messages, so that readers who began at
//! different places can compare what they have in common.

use serde::{Deserialize, Serialize};

use crate::BatchPlace;
use crate::payload::{Payloads, mix};

/// Faults kept as examples.
const EXAMPLES_MAX: usize = 8;

/// One session as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRead {
    /// Session id.
    pub session: u64,
    /// Messages read.
    pub messages: u64,
    /// Number of the first one.
    pub first: u64,
    run: u32,
    publisher: u32,
    next: u64,
    next_batch: u64,
}

/// Everything a reader has read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Order of the first message; none before it.
    pub first: Option<u64>,
    /// Order of the next message to be read.
    pub next: u64,
    /// Messages read.
    pub messages: u64,
    /// Messages that were missing in the order or in a session.
    pub gaps: u64,
    /// Messages that came again.
    pub repeats: u64,
    /// Messages with other bytes than were sent, or of another session than they say.
    pub wrong: u64,
    /// The first few of all that.
    pub examples: Vec<String>,
    /// Messages from this order on are in `hash`.
    pub hash_from: u64,
    /// Sum over messages of a hash of order, session and number.
    pub hash: u64,
    /// The sessions read.
    pub sessions: Vec<SessionRead>,
    /// Messages that were delivered again after a resumption below `next`, and not read again.
    pub skipped: u64,
}

impl Ledger {
    /// Of a reader that has read nothing and expects `order` first.
    pub fn new(order: u64, hash_from: u64) -> Ledger {
        Ledger { next: order, hash_from, ..Ledger::default() }
    }

    /// Whether anything was wrong.
    pub fn faults(&self) -> u64 {
        self.gaps + self.repeats + self.wrong
    }

    /// Messages read that did not come again.
    pub fn delivered(&self) -> u64 {
        self.messages.saturating_sub(self.repeats)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }

    /// Reads a batch. After a resumption, messages below `resumed` may come again: they are left out.
    pub fn batch<'a>(
        &mut self,
        place: &BatchPlace,
        resumed: u64,
        payloads: &Payloads,
        messages: impl Iterator<Item = (u64, &'a [u8])>,
    ) {
        let session = place.session;
        let known = self.sessions.iter().position(|read| read.session == session);
        let mut read = known.map(|index| self.sessions[index].clone());
        for (order, payload) in messages {
            if order < resumed {
                self.skipped += 1;
                continue;
            }
            self.message(session, &mut read, payloads, order, payload);
        }
        let Some(mut read) = read else { return };
        // A batch that comes again after a resumption was counted before.
        let (expected, found) = (read.next_batch, place.batch_seq);
        if known.is_some() && found != expected && place.first_order >= resumed {
            self.wrong += 1;
            self.note(|| format!("session {session:#x}: batch {found} came where {expected} was expected"));
        }
        read.next_batch = found.wrapping_add(1);
        match known {
            Some(index) => self.sessions[index] = read,
            None => self.sessions.push(read),
        }
    }

    fn message(
        &mut self,
        session: u64,
        read: &mut Option<SessionRead>,
        payloads: &Payloads,
        order: u64,
        payload: &[u8],
    ) {
        self.first.get_or_insert(order);
        if order != self.next {
            let expected = self.next;
            if order > expected {
                self.gaps += order - expected
            } else {
                self.repeats += 1
            }
            self.note(|| format!("order {order} came where {expected} was expected"));
        }
        self.next = order.wrapping_add(1);
        self.messages += 1;
        let stamp = match payloads.check(payload) {
            Ok(Some(stamp)) => stamp,
            Ok(None) => unreachable!("messages without a stamp are refused before anything is published"),
            Err(fault) => {
                self.wrong += 1;
                self.note(|| format!("order {order}: payload is {fault}"));
                return;
            }
        };
        let (run, publisher, number) = (stamp.run, stamp.publisher, stamp.number);
        let begin = || SessionRead { session, messages: 0, first: number, run, publisher, next: number, next_batch: 0 };
        let read = read.get_or_insert_with(begin);
        if (read.run, read.publisher) != (run, publisher) {
            self.wrong += 1;
            self.note(|| format!("order {order}: session {session:#x} carries {stamp}"));
            return;
        }
        let expected = read.next;
        if number != expected {
            if number > expected {
                self.gaps += number - expected
            } else {
                self.repeats += 1
            }
            self.note(|| format!("session {session:#x}: message {number} came where {expected} was expected"));
        }
        read.next = number + 1;
        read.messages += 1;
        if order >= self.hash_from {
            self.hash = self.hash.wrapping_add(mix(order ^ mix(session ^ number)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::PayloadWriter;

    const BYTES: usize = 16;

    fn message(publisher: u32, number: u64) -> Vec<u8> {
        PayloadWriter::new(Payloads::new(BYTES), 9, publisher).with(number, <[u8]>::to_vec)
    }

    type Batch = (BatchPlace, Vec<Vec<u8>>);

    /// Batches of two messages of two sessions in turn, from order 0.
    fn batches() -> Vec<Batch> {
        let batch = |index: u64| {
            let (publisher, batch_seq) = (index % 2, index / 2);
            let payloads = (0..2).map(|number| message(publisher as u32, batch_seq * 2 + number)).collect();
            let (first_order, session) = (index * 2, 100 + publisher);
            (BatchPlace { first_order, session, session_epoch: 1, batch_seq, message_count: 2 }, payloads)
        };
        (0..8).map(batch).collect()
    }

    fn read(ledger: &mut Ledger, resumed: u64, batches: &[Batch]) {
        let payloads = Payloads::new(BYTES);
        for (place, messages) in batches {
            let messages = (place.first_order..).zip(messages.iter().map(|payload| &payload[..]));
            ledger.batch(place, resumed, &payloads, messages);
        }
    }

    fn whole(batches: &[Batch]) -> Ledger {
        let mut ledger = Ledger::new(0, 6);
        read(&mut ledger, 0, batches);
        ledger
    }

    #[test]
    fn a_good_topic_has_no_faults() {
        let ledger = whole(&batches());
        assert_eq!((ledger.first, ledger.next, ledger.messages, ledger.faults()), (Some(0), 16, 16, 0));
        assert_eq!(
            ledger.sessions.iter().map(|read| (read.first, read.messages)).collect::<Vec<_>>(),
            [(0, 8), (0, 8)]
        );
    }

    #[test]
    fn whoever_began_later_has_the_same_hash_of_what_is_common() {
        let mut later = Ledger::new(6, 6);
        read(&mut later, 6, &batches()[3..]);
        assert_eq!((later.faults(), later.hash), (0, whole(&batches()).hash));
        assert_ne!(later.hash, 0);
        let mut swapped = batches();
        // Two sessions' batches in another order: dense and gapless for each, but not the same topic.
        swapped.swap(4, 5);
        (swapped[4].0.first_order, swapped[5].0.first_order) = (8, 10);
        assert_eq!(whole(&swapped).faults(), 0);
        assert_ne!(whole(&swapped).hash, later.hash);
    }

    #[test]
    fn a_resumption_at_what_was_written_down_loses_and_repeats_nothing() {
        let uninterrupted = whole(&batches());
        for killed_after in 0..8 {
            let mut ledger = whole(&batches()[..killed_after]);
            let text = serde_json::to_string(&ledger).unwrap();
            ledger = serde_json::from_str(&text).unwrap();
            let next = ledger.next;
            read(&mut ledger, next, &batches()[killed_after..]);
            assert_eq!(ledger, uninterrupted);
        }
    }

    #[test]
    fn a_position_behind_the_ledger_delivers_again_and_that_is_left_out() {
        let mut ledger = whole(&batches()[..4]);
        let next = ledger.next;
        read(&mut ledger, next, &batches()[2..]);
        assert_eq!((ledger.skipped, ledger.messages, ledger.faults()), (4, 16, 0));
    }

    #[test]
    fn a_resumption_too_late_is_a_gap_and_one_without_the_ledger_a_repeat() {
        let mut ledger = whole(&batches()[..4]);
        let next = ledger.next;
        read(&mut ledger, next, &batches()[5..]);
        assert!(ledger.gaps > 0 && ledger.repeats == 0, "{ledger:?}");
        let mut ledger = whole(&batches()[..4]);
        read(&mut ledger, 0, &batches()[3..]);
        assert!(ledger.repeats > 0, "{ledger:?}");
    }

    #[test]
    fn gaps_repeats_reorders_and_wrong_bytes_are_found() {
        let mut missing = batches();
        missing.remove(3);
        assert_eq!(whole(&missing).gaps, 2 + 2, "in the order and in the session");
        let mut renumbered = batches();
        renumbered.remove(3);
        renumbered.iter_mut().zip(0..).for_each(|(batch, index)| batch.0.first_order = 2 * index);
        assert_eq!(whole(&renumbered).gaps, 2, "in the session alone");
        let mut twice = batches();
        twice.insert(3, twice[2].clone());
        assert!(whole(&twice).repeats > 0);
        let mut within = batches();
        within[2].1.swap(0, 1);
        assert!(whole(&within).faults() > 0);
        let mut stranger = batches();
        stranger[4].1[1] = message(1, 5);
        assert_eq!(whole(&stranger).wrong, 1);
        let mut out_of_place = batches();
        out_of_place[4].0.batch_seq += 1;
        assert_eq!(whole(&out_of_place).wrong, 2, "that batch, and the next of its session");
        let mut short = batches();
        short[4].1[1].pop();
        assert_eq!(whole(&short).wrong, 1);
        assert!(!whole(&short).examples.is_empty());
    }
}
