//! What comes in by each broker, for the log: how much a second, and by whom something waits that does not get on.

use std::fmt::Write;

use crate::order::Arrival;
use crate::pool::Geometry;

/// What came in by the lanes of one broker, and was ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ordered {
    batches: u64,
    messages: u64,
    bytes: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Rates {
    geometry: Geometry,
    brokers: Vec<Ordered>,
    reported: Vec<Ordered>,
    /// By broker: at the last report slots waited to be looked at, batches were parked.
    waited: Vec<(bool, bool)>,
    reported_ns: u64,
}

impl Rates {
    pub(super) fn new(geometry: Geometry) -> Rates {
        let none = vec![Ordered::default(); geometry.brokers as usize];
        Rates {
            geometry,
            reported: none.clone(),
            waited: vec![(false, false); none.len()],
            brokers: none,
            reported_ns: 0,
        }
    }

    /// A batch got its place. Attached publishers count with the broker of their place.
    #[inline]
    pub(super) fn ordered(&mut self, arrival: &Arrival) {
        let broker = self.geometry.broker_of_member(self.geometry.member_of_lane(arrival.lane.into()));
        let ordered = &mut self.brokers[broker as usize];
        ordered.batches += 1;
        ordered.messages += u64::from(arrival.message_count);
        ordered.bytes += u64::from(arrival.batch_bytes);
    }

    /// Logs what came in since the last report, and by which brokers something waits without getting on. `waiting` says of a broker
    /// whether it has slots that nobody looked at yet, and whether it has batches parked behind a gap.
    pub(super) fn tell(&mut self, candidate: u32, now_ns: u64, waiting: impl Fn(u32) -> (bool, bool)) {
        for broker in 0..self.geometry.brokers {
            if let Some([batches, messages, gigabytes]) = self.rates(broker, now_ns) {
                log::debug!(
                    "sequence {candidate} [B{broker}]: {batches:.0} batches/s, {messages:.0} messages/s, {gigabytes:.3} GB/s"
                );
            }
        }
        if self.is_stuck(waiting) {
            log::info!("sequence {candidate}: acks wait: [{}]", self.in_words());
        }
        self.reported_ns = now_ns;
        self.reported.clone_from(&self.brokers);
    }

    /// Batches, messages and gigabytes that came in by a broker since the last report, a second; none if nothing did.
    fn rates(&self, broker: u32, now_ns: u64) -> Option<[f64; 3]> {
        let seconds = now_ns.saturating_sub(self.reported_ns).max(1) as f64 / 1e9;
        let (now, then) = (self.brokers[broker as usize], self.reported[broker as usize]);
        let bytes = (now.bytes - then.bytes) as f64;
        let came = [(now.batches - then.batches) as f64, (now.messages - then.messages) as f64, bytes / 1e9];
        (now != then).then(|| came.map(|of_all| of_all / seconds))
    }

    /// Whether by some broker something waits as it did at the last report, and nothing came in since.
    fn is_stuck(&mut self, waiting: impl Fn(u32) -> (bool, bool)) -> bool {
        let mut is_stuck = false;
        for broker in 0..self.geometry.brokers {
            let place = broker as usize;
            let waits = waiting(broker);
            let waited = std::mem::replace(&mut self.waited[place], waits);
            let stands = self.brokers[place] == self.reported[place];
            is_stuck |= (waits.0 | waits.1) && (waited.0 | waited.1) && stands;
        }
        is_stuck
    }

    /// Messages ordered by broker, and what waits there.
    fn in_words(&self) -> String {
        let mut line = String::new();
        for (broker, (ordered, (slots, parked))) in self.brokers.iter().zip(&self.waited).enumerate() {
            let comma = if broker > 0 { ", " } else { "" };
            let (slots, parked) =
                (if *slots { ", slots wait" } else { "" }, if *parked { ", batches parked" } else { "" });
            let _ = write!(line, "{comma}B{broker}={}{slots}{parked}", ordered.messages);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::small_geometry;

    /// Two brokers of a lane each.
    fn with(lane: u16) -> Rates {
        let mut rates = Rates::new(small_geometry(1));
        rates.tell(0, 5_000_000_000, |_| (false, false));
        come(&mut rates, lane);
        rates
    }

    fn come(rates: &mut Rates, lane: u16) {
        rates.ordered(&Arrival { lane, message_count: 30, batch_bytes: 4_000_000, ..Arrival::default() });
    }

    #[test]
    fn rates_are_of_what_came_since_the_last_report() {
        let mut rates = with(1);
        assert_eq!((rates.rates(0, 7_000_000_000), rates.rates(1, 7_000_000_000)), (None, Some([0.5, 15.0, 0.002])));
        rates.tell(0, 7_000_000_000, |_| (false, false));
        assert_eq!(rates.rates(1, 8_000_000_000), None);
        come(&mut rates, 1);
        assert_eq!(rates.rates(1, 8_000_000_000), Some([1.0, 30.0, 0.004]));
        assert_eq!(rates.in_words(), "B0=0, B1=60");
    }

    #[test]
    fn who_waits_and_gets_on_is_not_stuck() {
        let waits = |broker| move |one| (one == broker, false);
        let mut rates = with(1);
        assert!(!rates.is_stuck(waits(1)), "it did not wait before");
        assert!(!rates.is_stuck(waits(1)), "something came");
        rates.tell(0, 6_000_000_000, waits(1));
        assert_eq!(rates.in_words(), "B0=0, B1=30, slots wait");
        assert!(!rates.is_stuck(waits(0)), "it is another that waits now");
        assert!(rates.is_stuck(|broker| (false, broker == 0)), "for whatever it is");
        assert_eq!(rates.in_words(), "B0=0, batches parked, B1=30");
    }
}
