//! Open loop: which message is due, and how far behind the plan the session is. Pure; the clock is its caller's.
//!
//! A message that cannot be sent at its time is still that message: its latency counts from when it was planned, and those
//! planned meanwhile queue behind it. Nothing is kept of that queue but the plan itself, so lag costs no memory. Lag beyond a
//! bound ends the session: figures of a queue that only grows are figures of the bound.

use crate::schedule::Schedule;

/// Messages of a backlog that are counted one by one.
const COUNTED_MAX: usize = 1 << 20;

/// The parts of an open-loop run, ns.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Begin, on the monotonic clock.
    pub start: u64,
    /// Messages planned before this time after `start` are not measured.
    pub warm_up: u64,
    /// Nothing is planned from this time after `start` on.
    pub end: u64,
    /// More lag than this ends the session.
    pub lag_max: u64,
}

impl Span {
    /// Everything is measured.
    pub const ALL: Span = Span { start: 0, warm_up: 0, end: u64::MAX, lag_max: u64::MAX };

    /// Whether a message planned at this time of the monotonic clock is measured.
    pub fn measures(&self, planned: u64) -> bool {
        (self.start + self.warm_up..self.start + self.end).contains(&planned)
    }

    /// Whether messages may still be planned at this time.
    pub fn measuring(&self, now: u64) -> bool {
        now < self.start + self.end
    }
}

/// What a session is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send the message planned at this time.
    Now(u64),
    /// Nothing before this time.
    At(u64),
    /// Everything planned is sent.
    Done,
    /// It is too far behind: give up.
    Behind {
        /// How far, ns.
        lag: u64,
    },
}

/// One session's way through its plan.
#[derive(Clone, Debug)]
pub struct Pacer {
    plan: Schedule,
    span: Span,
    /// The next message to send, on the monotonic clock.
    next: u64,
    lag_seen: u64,
    counts: Counts,
    ended: bool,
}

/// What one session planned and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages planned in the measured part.
    pub planned: u64,
    /// Messages sent in it, planned in it or before.
    pub sent: u64,
    /// At its end: messages planned and not yet sent.
    pub unsent: u64,
}

impl Pacer {
    /// At the beginning of a plan.
    pub fn new(mut plan: Schedule, span: Span) -> Pacer {
        let first = plan.next().expect("a schedule has no end");
        Pacer { plan, span, next: span.start + first, lag_seen: 0, counts: Counts::default(), ended: false }
    }

    /// What to do at this time.
    pub fn due(&mut self, now: u64) -> Due {
        self.look_at_end(now);
        if self.next >= self.span.start + self.span.end {
            return Due::Done;
        }
        let Some(lag) = now.checked_sub(self.next) else { return Due::At(self.next) };
        self.lag_seen = self.lag_seen.max(lag);
        if lag > self.span.lag_max {
            return Due::Behind { lag };
        }
        Due::Now(self.next)
    }

    /// The message that was due has been handed on at this time.
    pub fn sent(&mut self, now: u64) {
        self.look_at_end(now);
        self.counts.planned += u64::from(self.span.measures(self.next));
        self.counts.sent += u64::from(self.span.measures(now));
        self.next = self.span.start + self.plan.next().expect("a schedule has no end");
    }

    /// Once, when the measured part is over: what was planned by then and is not sent.
    fn look_at_end(&mut self, now: u64) {
        if !self.ended && now >= self.span.start + self.span.end {
            self.ended = true;
            self.counts.unsent = self.left();
        }
    }

    /// Messages planned and not sent, measured or not.
    fn left(&self) -> u64 {
        self.planned_between(self.span.start)
    }

    /// Messages not sent that are planned from `from` on, and before the end. Exact up to a bound, beyond it what the rate says: a
    /// backlog of many millions is not counted one by one.
    fn planned_between(&self, from: u64) -> u64 {
        let end = self.span.start + self.span.end;
        let mut rest = std::iter::once(self.next).chain(self.plan.clone().map(|at| self.span.start + at));
        let mut count = 0;
        for at in rest.by_ref().take(COUNTED_MAX) {
            if at >= end {
                return count;
            }
            count += u64::from(at >= from);
        }
        let further = rest.next().expect("a schedule has no end").max(from);
        count + (end.saturating_sub(further) as f64 / self.plan.interval_ns()).ceil() as u64
    }

    /// The parts of the run.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Gives up: what is left of the plan counts as planned and unsent.
    pub fn give_up(&mut self) {
        self.counts.planned += self.planned_between(self.span.start + self.span.warm_up);
        self.counts.unsent = self.left();
        self.ended = true;
    }

    /// Largest lag that was seen, ns.
    pub fn lag_seen(&self) -> u64 {
        self.lag_seen
    }

    /// What was planned and sent.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Arrival;

    const MS: u64 = 1_000_000;
    const START: u64 = 500 * MS;

    /// A message each ms: 10 ms of warm-up, 100 ms in all.
    fn pacer(lag_max: u64) -> Pacer {
        let span = Span { start: START, warm_up: 10 * MS, end: 100 * MS, lag_max };
        Pacer::new(Schedule::new(Arrival::Constant, 1000.0, 0, 0, 1), span)
    }

    /// Sends everything due, each message `cost` after the last, and gives latencies from plan and from sending, as if
    /// each were answered at once.
    fn drain(pacer: &mut Pacer, now: &mut u64, cost: u64) -> Vec<u64> {
        let mut late = Vec::new();
        while let Due::Now(planned) = pacer.due(*now) {
            late.push(*now - planned);
            pacer.sent(*now);
            *now += cost;
        }
        late
    }

    #[test]
    fn on_time_every_message_is_sent_at_its_plan() {
        let mut pacer = pacer(50 * MS);
        let mut sent = 0;
        loop {
            match pacer.due(START + sent * MS) {
                Due::Now(planned) => assert_eq!(planned, START + sent * MS),
                Due::At(at) => assert_eq!(at, START + sent * MS),
                Due::Done => break,
                Due::Behind { .. } => unreachable!("never late"),
            }
            pacer.sent(START + sent * MS);
            sent += 1;
        }
        assert_eq!((sent, pacer.lag_seen()), (100, 0));
        assert_eq!(pacer.counts(), Counts { planned: 90, sent: 90, unsent: 0 });
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut pacer = pacer(50 * MS);
        assert_eq!(pacer.due(START - 1), Due::At(START));
        pacer.sent(START);
        assert_eq!(pacer.due(START), Due::At(START + MS));
    }

    #[test]
    fn what_was_planned_during_a_stall_counts_from_its_plan() {
        let mut pacer = pacer(50 * MS);
        let mut now = START;
        drain(&mut pacer, &mut now, 0);
        now = START + 20 * MS; // Nothing could be sent for 20 ms.
        let late = drain(&mut pacer, &mut now, 0);
        let expected: Vec<u64> = (0..20).rev().map(|ms| ms * MS).collect();
        assert_eq!(late, expected, "twenty messages, each as late as it is, not one");
        assert_eq!(pacer.lag_seen(), 19 * MS);
    }

    #[test]
    fn the_backlog_is_what_was_planned_and_not_sent_at_the_end() {
        let mut pacer = pacer(500 * MS);
        let mut now = START;
        // Each message takes 2 ms: at the end half are not sent, and all of those are sent afterwards.
        let late = drain(&mut pacer, &mut now, 2 * MS);
        assert_eq!(late.len(), 100, "the queue is worked off");
        assert_eq!(pacer.counts(), Counts { planned: 90, sent: 45, unsent: 50 });
        assert_eq!(pacer.due(now), Due::Done);
    }

    #[test]
    fn a_backlog_of_many_millions_is_what_the_rate_says() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            let span = Span { start: START, warm_up: 1000 * MS, end: 4000 * MS, lag_max: MS };
            let mut pacer = Pacer::new(Schedule::new(arrival, 2e6, 0, 0, 1), span);
            pacer.give_up();
            let Counts { planned, unsent, .. } = pacer.counts();
            assert!(planned.abs_diff(6_000_000) < 60_000 && unsent.abs_diff(8_000_000) < 80_000, "{planned} {unsent}");
        }
    }

    #[test]
    fn too_much_lag_ends_it() {
        let mut pacer = pacer(30 * MS);
        let mut now = START;
        let late = drain(&mut pacer, &mut now, 2 * MS);
        assert_eq!(late.len(), 31);
        assert_eq!(pacer.due(now), Due::Behind { lag: 31 * MS });
        pacer.give_up();
        assert_eq!(pacer.counts(), Counts { planned: 90, sent: 26, unsent: 69 });
    }
}
