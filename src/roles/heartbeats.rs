//! When those that are told nothing are told that we are there: twice in each heartbeat a connection is looked at, and one that was told
//! nothing for as long as its Welcome promised is due; not all of them at one time, which would hold up what others wait for.

use std::ops::Range;

use crate::roles::rounds::Rounds;
use crate::wire::frame::LogRecord;

/// Connections looked at in one pass, at most.
const LOOKS_PER_PASS: usize = 256;
/// Longest that is promised instead of a shorter `liveness.heartbeat`, ms. A client takes a broker that is silent for four of these for gone:
/// before the sequencer gives a session up (`sequencer.session_lease`) that could go on over another broker.
const HEARTBEAT_MAX_MS: u64 = 1_000;

/// The looks of one role.
#[derive(Debug)]
pub struct Looks {
    rounds: Rounds,
    every_ns: u64,
}

impl Looks {
    /// For heartbeats so far apart, ms; 0: there are none.
    pub fn new(heartbeat_ms: u32) -> Looks {
        Looks { rounds: Rounds::default(), every_ns: u64::from(heartbeat_ms) * 1_000_000 / 2 }
    }

    /// The places whose turn it is.
    pub fn due(&mut self, places: usize, now_ns: u64) -> Range<usize> {
        match self.every_ns {
            0 => 0..0,
            every_ns => self.rounds.due(places, every_ns, LOOKS_PER_PASS, now_ns),
        }
    }
}

/// How long one connection was told nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    looks: u32,
    /// It is due after so many.
    due: u32,
}

impl Quiet {
    /// One that is told something now, and is promised a heartbeat in this many of the broker's.
    pub fn new(in_heartbeats: u16) -> Quiet {
        Quiet { looks: 0, due: 2 * u32::from(in_heartbeats.max(1)) }
    }

    /// It is told something.
    pub fn end(&mut self) {
        self.looks = 0;
    }

    /// What its Welcome promises.
    pub fn promised(&self, log: &LogRecord) -> LogRecord {
        LogRecord { heartbeat_ms: log.heartbeat_ms * (self.due / 2), ..*log }
    }

    /// A look. True: it was told nothing for so long that it is due before the next.
    pub fn look(&mut self) -> bool {
        self.looks = self.looks.saturating_add(1);
        self.looks >= self.due
    }
}

/// In how many of the broker's heartbeats the latest of so many connections of an address is told that we are there. If all of them were
/// told as seldom as the latest, they would get `most` heartbeats a second (0: any): each is a send of its own, and with hundreds of idle
/// connections one address would take from others what it may not take by opening them.
pub fn in_heartbeats(connections: u32, heartbeat_ms: u32, most: u32) -> u16 {
    let heartbeat_ms = u64::from(heartbeat_ms.max(1));
    let longest = (HEARTBEAT_MAX_MS / heartbeat_ms).clamp(1, u16::MAX.into());
    match most {
        0 => 1,
        most => (u64::from(connections) * 1000).div_ceil(u64::from(most) * heartbeat_ms).clamp(1, longest) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_connections_an_address_has_the_less_often_each_is_told() {
        let of = |connections| in_heartbeats(connections, 150, 200);
        assert_eq!([0, 1, 30, 31, 60, 61, 150, 512].map(of), [1, 1, 1, 2, 2, 3, 5, 6]);
        let a_second: f64 = (1..=512).map(|number| 1000.0 / (150.0 * f64::from(of(number)))).sum();
        assert!(a_second < 900.0, "{a_second}: 3,413 if each had what the first has");
        assert_eq!(of(u32::MAX), 6, "a second at most");
        assert_eq!(
            [in_heartbeats(500, 60_000, 200), in_heartbeats(500, 150, 0), in_heartbeats(500, 0, 200)],
            [1, 1, 1000]
        );
    }

    #[test]
    fn whoever_is_told_nothing_is_due_before_what_was_promised_is_over() {
        const HEARTBEAT_NS: u64 = 150_000_000;
        for promised in [1, 2, 18] {
            let (mut looks, mut quiet) = (Looks::new(150), [Quiet::new(promised); 4]);
            let (start, mut told) = (7_000_000_000, [7_000_000_000; 4]);
            let mut beats = 0;
            for step in 0..u64::from(promised) * 10 * HEARTBEAT_NS / 100_000 {
                let now = start + step * 100_000;
                for place in looks.due(4, now) {
                    if quiet[place].look() {
                        let since = now - std::mem::replace(&mut told[place], now);
                        assert!(since <= u64::from(promised) * HEARTBEAT_NS + 1_000_000, "{promised}: {since} ns");
                        quiet[place].end();
                        beats += 1;
                    }
                }
            }
            assert!((36..=44).contains(&beats), "{promised}: {beats}");
        }
        assert_eq!(Looks::new(0).due(4, 1), 0..0);
    }
}
