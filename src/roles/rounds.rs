//! Looks at many places, each once in a round and spread over it: what is due for all of them never comes at one time, when it would
//! hold up whatever else the thread serves.

use std::ops::Range;

/// Looks are this far apart, ns: a pass that finds nothing due costs nothing.
const STEP_NS: u64 = 100_000;

/// The rounds of one kind of look.
#[derive(Debug, Default)]
pub struct Rounds {
    begun_ns: u64,
    looked_ns: u64,
    /// Where this round goes on.
    at: usize,
    /// There was more due than might be looked at: it comes first.
    is_behind: bool,
}

impl Rounds {
    /// The places that are due: all of `0..count` once in each `every_ns`, each at about the same time of the round, and at most `most` of
    /// them now. Whoever did not ask for two rounds is due all of them.
    pub fn due(&mut self, count: usize, every_ns: u64, most: usize, now_ns: u64) -> Range<usize> {
        if now_ns.saturating_sub(self.looked_ns) < STEP_NS.min(every_ns) {
            return 0..0;
        }
        self.looked_ns = now_ns;
        if now_ns - self.begun_ns >= 2 * every_ns {
            self.begun_ns = now_ns - every_ns;
            self.at = if self.is_behind { self.at } else { 0 };
        }
        let gone_ns = (now_ns - self.begun_ns).min(every_ns);
        let end = (count as u128 * u128::from(gone_ns) / u128::from(every_ns.max(1))) as usize;
        let due = self.at..end.clamp(self.at, self.at + most);
        (self.at, self.is_behind) = (due.end, due.end < end);
        if self.at == count && gone_ns == every_ns {
            (self.begun_ns, self.at) = (self.begun_ns + every_ns, 0);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = 75_000_000;
    const START: u64 = 7_000_000_000;

    #[test]
    fn each_place_is_due_once_a_round_and_few_at_a_time() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.due(512, EVERY, 1024, START), 0..512, "nobody has asked yet");
        let mut last = vec![START; 512];
        let mut looks = 0;
        for step in 1..=20 * EVERY / STEP_NS {
            let now = START + step * STEP_NS;
            let due = rounds.due(512, EVERY, 1024, now);
            assert!(due.len() <= 1, "{due:?}: spread over the round");
            assert_eq!(rounds.due(512, EVERY, 1024, now + STEP_NS / 2), 0..0);
            looks += due.len();
            for place in due {
                let since = now - std::mem::replace(&mut last[place], now);
                let is_first = looks <= 512;
                assert!(is_first || since.abs_diff(EVERY) <= 2 * STEP_NS, "{place}: {since} ns after the last look");
            }
        }
        assert!((20 * 512 - 8..=20 * 512).contains(&looks), "{looks}");
    }

    #[test]
    fn who_slept_looks_at_all_but_no_more_at_a_time_than_it_may() {
        let mut rounds = Rounds::default();
        rounds.due(100, EVERY, 100, START);
        let late = START + 5 * EVERY;
        assert_eq!(rounds.due(100, EVERY, 64, late), 0..64);
        assert_eq!(rounds.due(100, EVERY, 64, late + STEP_NS), 64..100);
        assert_eq!(rounds.due(100, EVERY, 64, late + STEP_NS + 1), 0..0);
        assert!(rounds.due(0, EVERY, 64, late + 2 * STEP_NS).is_empty());
        let mut rounds = Rounds::default();
        let looks = (0..8).map(|call| rounds.due(100, EVERY, 25, START + call * 3 * EVERY).start);
        assert_eq!(
            looks.collect::<Vec<_>>(),
            [0, 25, 50, 75, 0, 25, 50, 75],
            "nobody is left out by one that is always late"
        );
    }
}
