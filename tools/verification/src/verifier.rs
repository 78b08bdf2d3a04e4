//! What a subscriber must see, checked as it arrives.
//!
//! | order level | checked here |
//! |---|---|
//! | all | lengths and bytes of every payload, message counts, every message belongs to the run |
//! | 1, 2, 4, 5 | the topic's total order is dense |
//! | 0, 1, 2, 4 | every message at least once; repeats are counted, and judged by who knows what was resent |
//! | 4 | the messages of a connection's stream arrive in the order they were sent |
//! | 5 | a session's batches are 0, 1, 2, … and its messages too: no gap, no repeat; epochs never go back |
//!
//! The verifier knows no clock and no client: it takes batches and keeps what it found. After a fault it
//! goes on from what it saw, so that one gap is one fault. It is total: a broker may number as it likes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::BatchPlace;
use crate::faults::{Fault, FaultLog};
use crate::payload::{Payloads, Stamp, mix};
use crate::promise::Level;

/// Most messages of one publisher that are told apart (one bit each: 512 MiB for this many).
pub const NUMBERS_MAX: u64 = 1 << 32;

/// Most sessions a topic may have: what a broker's pool has places for.
pub const SESSIONS_MAX: usize = 1 << 17;

/// Whose messages the topic may contain.
#[derive(Clone, Debug)]
pub enum Source {
    /// A fresh topic filled by one run: publisher `i` sends messages `0 .. messages[i]`.
    Run {
        /// The run's number in the stamps.
        run: u32,
        /// Messages of each publisher; at most so many where the number is not known before.
        messages: Arc<[u64]>,
    },
    /// A topic others filled, possibly trimmed: sequences begin where they are first seen.
    Any,
}

/// One session as a subscriber saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    /// Session id.
    pub session: u64,
    /// Index of its publisher; none if messages carry no stamp.
    pub publisher: Option<u32>,
    /// Messages delivered.
    pub messages: u64,
    /// Batches delivered.
    pub batches: u64,
}

struct SessionStream {
    epoch: u32,
    next_batch: Option<u64>,
    /// What comes next may lie behind messages that were skipped.
    may_jump: bool,
    next_number: Option<u64>,
    /// Index into `Verifier::publishers`, once a stamp has told it.
    publisher: Option<usize>,
    messages: u64,
    batches: u64,
}

struct PublisherSeen {
    run: u32,
    publisher: u32,
    seen: Bitmap,
}

/// Checks one subscriber's stream.
pub struct Verifier {
    order: Level,
    payloads: Arc<Payloads>,
    source: Source,
    checking: bool,
    streams: HashMap<u64, SessionStream>,
    publishers: Vec<PublisherSeen>,
    first_order: Option<u64>,
    /// Order of the first message of the run, where that is known.
    begin_order: u64,
    next_order: u64,
    messages: u64,
    unique: u64,
    skipped: u64,
    batches: u64,
    duplicates: u64,
    reordered: u64,
    hash: u64,
    faults: FaultLog,
}

impl Verifier {
    /// A verifier that has seen nothing. With `checking` off it only counts.
    pub fn new(order: Level, payloads: Arc<Payloads>, source: Source, checking: bool) -> Verifier {
        Verifier {
            order,
            payloads,
            source,
            checking,
            streams: HashMap::new(),
            publishers: Vec::new(),
            first_order: None,
            begin_order: 0,
            next_order: 0,
            messages: 0,
            unique: 0,
            skipped: 0,
            batches: 0,
            duplicates: 0,
            reordered: 0,
            hash: 0,
            faults: FaultLog::default(),
        }
    }

    /// The run's first message has this order: nobody else publishes to the topic any more.
    pub fn begin_at(&mut self, order: u64) {
        self.begin_order = order;
    }

    /// The reader was told that these messages were given up: orders, and sessions' numbers, jump exactly here.
    pub fn skip(&mut self, from: u64, next_order: u64) {
        let fresh = matches!(self.source, Source::Run { .. });
        let expected = match self.first_order {
            Some(_) => self.next_order,
            None if fresh => self.begin_order,
            None => from,
        };
        if self.checking && self.order != Level::None && (from != expected || next_order < from) {
            self.faults.add(Fault::Order { expected, found: from });
        }
        self.skipped += next_order.saturating_sub(from);
        self.next_order = next_order;
        self.begin_order = next_order;
        self.streams.values_mut().for_each(|stream| stream.may_jump = true);
    }

    /// Takes the next delivered batch: its place, and its messages with the order of each.
    pub fn batch<'a>(&mut self, place: &BatchPlace, messages: impl Iterator<Item = (u64, &'a [u8])>) {
        self.batches += 1;
        for word in [place.first_order, place.session, place.batch_seq] {
            self.hash = mix(self.hash ^ word);
        }
        if !self.checking {
            self.first_order.get_or_insert(place.first_order);
            self.messages += u64::from(place.message_count);
            self.unique += u64::from(place.message_count);
            return;
        }
        self.check_order(place);
        let Some(mut stream) = self.take_stream(place) else { return };
        self.check_batch_seq(&mut stream, place);
        let mut count = 0;
        for (order, payload) in messages {
            let expected = place.first_order.wrapping_add(count);
            if order != expected && self.order != Level::None {
                self.faults.add(Fault::Order { expected, found: order });
            }
            count += 1;
            self.message(&mut stream, place.session, order, payload);
        }
        if count != u64::from(place.message_count) {
            let (order, announced) = (place.first_order, place.message_count);
            self.faults.add(Fault::MessageCount { order, announced, found: count });
        }
        stream.may_jump = false;
        stream.batches += 1;
        stream.messages += count;
        self.messages += count;
        self.streams.insert(place.session, stream);
    }

    fn check_order(&mut self, place: &BatchPlace) {
        if self.first_order.is_none() {
            self.first_order = Some(place.first_order);
            let fresh = matches!(self.source, Source::Run { .. });
            self.next_order = if fresh { self.begin_order } else { place.first_order };
        }
        if self.order != Level::None && place.first_order != self.next_order {
            self.faults.add(Fault::Order { expected: self.next_order, found: place.first_order });
        }
        self.next_order = place.first_order.wrapping_add(place.message_count.into());
    }

    fn take_stream(&mut self, place: &BatchPlace) -> Option<SessionStream> {
        if let Some(stream) = self.streams.remove(&place.session) {
            return Some(stream);
        }
        if self.streams.len() >= SESSIONS_MAX {
            self.faults.add(Fault::TooManySessions { session: place.session });
            return None;
        }
        let fresh = matches!(self.source, Source::Run { .. }) && self.order == Level::Session;
        let begin = fresh.then_some(0);
        let epoch = place.session_epoch;
        let (next_batch, next_number, may_jump) = (begin, begin, self.skipped > 0);
        Some(SessionStream { epoch, next_batch, may_jump, next_number, publisher: None, messages: 0, batches: 0 })
    }

    fn check_batch_seq(&mut self, stream: &mut SessionStream, place: &BatchPlace) {
        if self.order == Level::Session {
            let (session, found) = (place.session, place.batch_seq);
            let expected = stream.next_batch.unwrap_or(found);
            if found > expected && !stream.may_jump {
                self.faults.add(Fault::BatchGap { session, expected, found });
            } else if found < expected {
                self.faults.add(Fault::BatchRepeat { session, expected, found });
            }
            if place.session_epoch < stream.epoch {
                self.faults.add(Fault::EpochBack { session, expected: stream.epoch, found: place.session_epoch });
            }
        }
        stream.epoch = stream.epoch.max(place.session_epoch);
        stream.next_batch = Some(place.batch_seq.wrapping_add(1));
    }

    fn message(&mut self, stream: &mut SessionStream, session: u64, order: u64, payload: &[u8]) {
        match self.payloads.check(payload) {
            Err(fault) => self.faults.add(Fault::Payload { order, fault }),
            Ok(None) => self.unique += 1,
            Ok(Some(stamp)) => {
                let Some(publisher) = self.check_origin(stream, session, order, stamp) else { return };
                if self.order == Level::Session {
                    self.check_session_number(stream, session, stamp.number);
                } else {
                    self.check_number(stream, publisher, stamp.number);
                }
            }
        }
    }

    /// Whether the message belongs to the run and to this session. The publisher's index here if so.
    fn check_origin(&mut self, stream: &mut SessionStream, session: u64, order: u64, stamp: Stamp) -> Option<usize> {
        let known = match &self.source {
            Source::Run { run, messages } => {
                stamp.run == *run && messages.get(stamp.publisher as usize).is_some_and(|sent| stamp.number < *sent)
            }
            Source::Any => self.order == Level::Session || stamp.number < NUMBERS_MAX,
        };
        if !known {
            self.faults.add(Fault::Foreign { order, stamp });
            return None;
        }
        let index = match stream.publisher {
            Some(index) => index,
            None => *stream.publisher.insert(self.publisher_index(stamp)),
        };
        let owner = &self.publishers[index];
        if (owner.run, owner.publisher) != (stamp.run, stamp.publisher) {
            self.faults.add(Fault::WrongSession { session, publisher: owner.publisher, order, stamp });
            return None;
        }
        Some(index)
    }

    fn publisher_index(&mut self, stamp: Stamp) -> usize {
        let same = |seen: &PublisherSeen| (seen.run, seen.publisher) == (stamp.run, stamp.publisher);
        self.publishers.iter().position(same).unwrap_or_else(|| {
            let seen = Bitmap::default();
            self.publishers.push(PublisherSeen { run: stamp.run, publisher: stamp.publisher, seen });
            self.publishers.len() - 1
        })
    }

    fn check_session_number(&mut self, stream: &mut SessionStream, session: u64, found: u64) {
        let expected = stream.next_number.unwrap_or(found);
        if found > expected && !stream.may_jump {
            self.faults.add(Fault::MessageGap { session, expected, found });
        } else if found < expected {
            self.duplicates += 1;
            self.faults.add(Fault::MessageRepeat { session, expected, found });
        }
        if found >= expected {
            self.unique += 1;
        }
        stream.may_jump = false;
        stream.next_number = Some(found.wrapping_add(1));
    }

    fn check_number(&mut self, stream: &mut SessionStream, publisher: usize, number: u64) {
        let expected = stream.next_number.unwrap_or(number);
        if !self.publishers[publisher].seen.insert(number) {
            self.duplicates += 1;
        } else {
            self.unique += 1;
            if self.order == Level::Connection && number < expected {
                self.reordered += 1;
            }
        }
        stream.next_number = Some(expected.max(number + 1));
    }

    /// Order level that is checked.
    pub fn order(&self) -> Level {
        self.order
    }

    /// Messages delivered, repeats included.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Different messages delivered, and those it was told were skipped.
    pub fn accounted(&self) -> u64 {
        self.unique + self.skipped
    }

    /// Messages the run sends that were not delivered. 0 where that is not known.
    pub fn missing(&self) -> u64 {
        match &self.source {
            Source::Run { messages, .. } => messages.iter().sum::<u64>().saturating_sub(self.unique),
            Source::Any => 0,
        }
    }

    /// Everything that was found.
    pub fn summary(&self) -> Summary {
        let publisher = |stream: &SessionStream| stream.publisher.map(|index| self.publishers[index].publisher);
        let seen = |(&session, stream): (&u64, &SessionStream)| SessionSeen {
            session,
            publisher: publisher(stream),
            messages: stream.messages,
            batches: stream.batches,
        };
        let mut sessions: Vec<SessionSeen> = self.streams.iter().map(seen).collect();
        sessions.sort_by_key(|seen| (seen.publisher, seen.session));
        Summary {
            checked: self.checking,
            stamped: self.payloads.stamped(),
            messages: self.messages,
            unique: self.unique,
            skipped: self.skipped,
            missing: self.missing(),
            batches: self.batches,
            duplicates: self.duplicates,
            reordered: self.reordered,
            first_order: self.first_order,
            hash: self.hash,
            faults: self.faults.clone(),
            sessions,
        }
    }
}

/// What a subscriber saw in all.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether messages were checked at all.
    pub checked: bool,
    /// Whether messages said which one they are.
    pub stamped: bool,
    /// Messages delivered, repeats included.
    pub messages: u64,
    /// Different messages delivered. Where messages carry no stamp: all of them.
    pub unique: u64,
    /// Messages that the reader was told were given up.
    pub skipped: u64,
    /// Messages sent that were not delivered.
    pub missing: u64,
    /// Batches delivered.
    pub batches: u64,
    /// Messages delivered again.
    pub duplicates: u64,
    /// Messages that came after a later one of the same connection (order level 4).
    pub reordered: u64,
    /// Order of the first message delivered.
    pub first_order: Option<u64>,
    /// Running hash over (order, session, batch number) of every batch.
    pub hash: u64,
    /// What must not have happened.
    pub faults: FaultLog,
    /// The sessions delivered.
    pub sessions: Vec<SessionSeen>,
}

/// Which numbers were seen. Grows to the largest one; bounded by [`NUMBERS_MAX`] bits.
#[derive(Default)]
struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Whether the number is new.
    fn insert(&mut self, number: u64) -> bool {
        assert!(number < NUMBERS_MAX, "numbers are checked before they are counted");
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
