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
        let seconds = now_ns.saturating_sub(self.reported_ns).max(1) as f64 / 1e9;
        self.reported_ns = now_ns;
        let mut is_stuck = false;
        for broker in 0..self.geometry.brokers {
            let (now, then) = (self.brokers[broker as usize], self.reported[broker as usize]);
            let waits = waiting(broker);
            let waited = std::mem::replace(&mut self.waited[broker as usize], waits);
            is_stuck |= (waits.0 | waits.1) && (waited.0 | waited.1) && now == then;
            if now != then {
                log::debug!(
                    "sequence {candidate} [B{broker}]: {:.0} batches/s, {:.0} messages/s, {:.3} GB/s",
                    (now.batches - then.batches) as f64 / seconds,
                    (now.messages - then.messages) as f64 / seconds,
                    (now.bytes - then.bytes) as f64 / seconds / 1e9
                );
            }
        }
        if is_stuck {
            log::info!("sequence {candidate}: acks wait: [{}]", self.in_words());
        }
        self.reported.clone_from(&self.brokers);
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
