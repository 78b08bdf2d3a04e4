//! What happened during a run and is rare: a bounded list, in the order of time.
//!
//! Many clients see the same thing at once. What is the same in kind and words within half a second is one event, with a number.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embarcadero::{BrokerProgress, PublisherStats, UNKNOWN_BROKER};
use serde::{Deserialize, Serialize};

/// What is the same within this time is one event.
const SAME: Duration = Duration::from_millis(500);
/// Events of each kind that are kept.
const KEPT_OF_KIND: usize = 50;
/// Without any ack for this long while some are awaited: a stall.
const STALL: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A broker has no live connection to a publisher any more.
    Lost,
    /// It has again.
    Back,
    /// A connection was opened anew.
    Reconnect,
    /// A session was fenced, and opened again.
    Fence,
    /// A session was gone, and another one was opened.
    NewSession,
    /// Batches were let go by a broker.
    LetGo,
    /// Batches were sent again.
    Resend,
    /// No ack came for a while.
    Stall,
    /// A subscriber was stopped.
    Pause,
    /// It goes on.
    Resume,
    /// Brokers told a subscriber that it was too slow.
    TooSlow,
    /// A subscriber was told of messages that it does not get.
    Skip,
    /// A reader's process was killed.
    Kill,
    /// A client gave up.
    GaveUp,
    /// The user ended the run.
    Interrupted,
}

impl Kind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Lost => "connection lost",
            Kind::Back => "connection back",
            Kind::Reconnect => "reconnect",
            Kind::Fence => "fence",
            Kind::NewSession => "new session",
            Kind::LetGo => "let go",
            Kind::Resend => "resend",
            Kind::Stall => "stall",
            Kind::Pause => "pause",
            Kind::Resume => "end of a pause",
            Kind::TooSlow => "too slow",
            Kind::Skip => "skip",
            Kind::Kill => "kill",
            Kind::GaveUp => "gave up",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// One thing that happened, or the same thing several times at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the start of the run.
    pub seconds: f64,
    /// What kind of thing.
    pub kind: Kind,
    /// What happened.
    pub words: String,
    /// How often, or to how many.
    pub times: u64,
}

/// What is left of a log of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// In the order of time.
    pub list: Vec<Event>,
    /// Events that there was no room for.
    pub left_out: u64,
}

struct Noted {
    at: Instant,
    kind: Kind,
    words: String,
    times: u64,
}

#[derive(Default)]
struct Notes {
    list: Vec<Noted>,
    left_out: u64,
}

/// Where every thread of a run notes what happens.
#[derive(Default)]
pub struct EventLog {
    notes: Mutex<Notes>,
}

impl EventLog {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened at `at`.
    pub fn note(&self, at: Instant, kind: Kind, words: impl Into<String>) {
        self.note_times(at, kind, words, 1);
    }

    /// The same of what happens once in a run, and may be seen several times.
    pub fn note_once(&self, at: Instant, kind: Kind, words: &str) {
        if !self.lock().list.iter().any(|noted| noted.kind == kind) {
            self.note(at, kind, words);
        }
    }

    /// It happened so often, or to so many.
    pub fn note_times(&self, at: Instant, kind: Kind, words: impl Into<String>, times: u64) {
        let (mut notes, words) = (self.lock(), words.into());
        let is_same = |noted: &&mut Noted| {
            let apart = at.saturating_duration_since(noted.at).max(noted.at.saturating_duration_since(at));
            noted.kind == kind && noted.words == words && apart < SAME
        };
        if let Some(noted) = notes.list.iter_mut().rev().find(is_same) {
            noted.times += times;
        } else if notes.list.iter().filter(|noted| noted.kind == kind).count() < KEPT_OF_KIND {
            notes.list.push(Noted { at, kind, words, times });
        } else {
            notes.left_out += 1;
        }
    }

    /// All of a run that began at `begin`.
    pub fn since(&self, begin: Instant) -> Events {
        let notes = self.lock();
        let mut list: Vec<Event> = notes
            .list
            .iter()
            .map(|Noted { at, kind, words, times }| {
                let seconds = at.saturating_duration_since(begin).as_secs_f64();
                Event { seconds, kind: *kind, words: words.clone(), times: *times }
            })
            .collect();
        list.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        Events { list, left_out: notes.left_out }
    }
}

/// What a publisher's own numbers said when they were last looked at: what is new in them happened since.
pub struct PublisherWatch {
    stats: PublisherStats,
    /// Brokers that were connected.
    connected: Vec<u16>,
}

impl PublisherWatch {
    /// Of a publisher that has just connected.
    pub fn new(stats: PublisherStats, brokers: &[BrokerProgress]) -> PublisherWatch {
        PublisherWatch { stats, connected: connected(brokers) }
    }

    /// Notes what the publisher had to do again since the last look.
    pub fn look(&mut self, stats: PublisherStats, at: Instant, events: &EventLog) {
        if stats == self.stats {
            return;
        }
        let before = std::mem::replace(&mut self.stats, stats);
        let counters = [
            (Kind::Reconnect, "a connection to a broker opened anew", before.reconnects, stats.reconnects),
            (Kind::Fence, "a session fenced and opened again", before.fences, stats.fences),
            (Kind::NewSession, "a session gone, another one opened", before.new_sessions, stats.new_sessions),
            (Kind::LetGo, "batches let go by a broker", before.let_go, stats.let_go),
            (Kind::Resend, "batches sent again", before.resent_batches, stats.resent_batches),
        ];
        for (kind, words, before, now) in counters {
            if now > before {
                events.note_times(at, kind, words, now - before);
            }
        }
    }

    /// Notes which brokers are connected now and were not, and the other way round.
    pub fn look_at_brokers(&mut self, brokers: &[BrokerProgress], at: Instant, events: &EventLog) {
        let now = connected(brokers);
        for broker in self.connected.iter().filter(|broker| !now.contains(broker)) {
            events.note(at, Kind::Lost, format!("broker {broker} has no connection to a publisher"));
        }
        for broker in now.iter().filter(|broker| !self.connected.contains(broker)) {
            events.note(at, Kind::Back, format!("broker {broker} is connected to a publisher"));
        }
        self.connected = now;
    }
}

fn connected(brokers: &[BrokerProgress]) -> Vec<u16> {
    brokers.iter().filter(|one| one.connected && one.broker != UNKNOWN_BROKER).map(|one| one.broker).collect()
}

/// Sees when no ack comes though some are awaited.
pub struct StallWatch {
    acked: u64,
    /// Last time an ack came, or none was awaited.
    moved: Instant,
    /// Some were awaited at the last look.
    is_waiting: bool,
}

impl StallWatch {
    /// Of a run that begins now.
    pub fn new(begin: Instant) -> StallWatch {
        StallWatch { acked: 0, moved: begin, is_waiting: false }
    }

    /// So many messages were sent and acked until now. Notes a stall that is over, at its beginning.
    pub fn look(&mut self, sent: u64, acked: u64, now: Instant, events: &EventLog) {
        if acked > self.acked || acked >= sent {
            self.end(now, events);
            (self.acked, self.moved) = (acked, now);
        }
        self.is_waiting = acked < sent;
    }

    /// The run is over, and a stall with it.
    pub fn end(&self, now: Instant, events: &EventLog) {
        let stalled = now.saturating_duration_since(self.moved);
        if self.is_waiting && stalled >= STALL {
            events.note(self.moved, Kind::Stall, format!("no ack for {:.1} s", stalled.as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, ms: u64) -> Instant {
        begin + Duration::from_millis(ms)
    }

    fn told(events: &EventLog, begin: Instant) -> Vec<(f64, Kind, u64)> {
        events.since(begin).list.iter().map(|event| (event.seconds, event.kind, event.times)).collect()
    }

    #[test]
    fn the_same_at_once_is_one_event() {
        let (log, begin) = (EventLog::default(), Instant::now());
        log.note(at(begin, 2000), Kind::Fence, "fenced");
        log.note(at(begin, 1000), Kind::Lost, "broker 1");
        log.note(at(begin, 2400), Kind::Fence, "fenced");
        log.note(at(begin, 2600), Kind::Fence, "fenced");
        assert_eq!(told(&log, begin), [(1.0, Kind::Lost, 1), (2.0, Kind::Fence, 2), (2.6, Kind::Fence, 1)]);
    }

    #[test]
    fn many_of_a_kind_leave_room_for_others() {
        let (log, begin) = (EventLog::default(), Instant::now());
        (0..1000).for_each(|second| log.note(at(begin, 1000 * second), Kind::Resend, "batches sent again"));
        log.note(at(begin, 2_000_000), Kind::Fence, "fenced");
        let events = log.since(begin);
        assert_eq!((events.list.len(), events.left_out), (KEPT_OF_KIND + 1, 1000 - KEPT_OF_KIND as u64));
        assert_eq!(events.list.last().unwrap().kind, Kind::Fence);
    }

    #[test]
    fn what_is_new_in_a_publishers_numbers_happened() {
        let (log, begin) = (EventLog::default(), Instant::now());
        let broker =
            |broker, connected| BrokerProgress { broker, address: String::new(), sent: 0, acked: 0, connected };
        let mut stats = PublisherStats::default();
        let mut watch = PublisherWatch::new(stats, &[broker(0, true), broker(1, true)]);
        watch.look(stats, begin, &log);
        assert_eq!(told(&log, begin), []);
        (stats.fences, stats.resent_batches) = (1, 7);
        watch.look(stats, begin, &log);
        watch.look(stats, at(begin, 1000), &log);
        watch.look_at_brokers(&[broker(0, true), broker(1, false)], at(begin, 1000), &log);
        watch.look_at_brokers(&[broker(0, true), broker(1, true), broker(2, true)], at(begin, 2000), &log);
        let expected = [
            (0.0, Kind::Fence, 1),
            (0.0, Kind::Resend, 7),
            (1.0, Kind::Lost, 1),
            (2.0, Kind::Back, 1),
            (2.0, Kind::Back, 1),
        ];
        assert_eq!(told(&log, begin), expected);
    }

    #[test]
    fn a_stall_is_a_second_without_an_ack_that_is_awaited() {
        let (log, begin) = (EventLog::default(), Instant::now());
        let mut watch = StallWatch::new(begin);
        for (ms, sent, acked) in [(100, 5, 5), (3000, 5, 5), (3100, 9, 5), (4500, 9, 8), (5000, 9, 8)] {
            watch.look(sent, acked, at(begin, ms), &log);
        }
        watch.end(at(begin, 7500), &log);
        let words: Vec<_> = log.since(begin).list.into_iter().map(|event| (event.seconds, event.words)).collect();
        assert_eq!(words, [(3.0, "no ack for 1.5 s".to_owned()), (4.5, "no ack for 3.0 s".to_owned())]);
    }
}
