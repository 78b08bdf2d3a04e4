//! How far a run was at every moment, bounded in length however long it takes.
//!
//! What is kept are totals, not rates: when every second point goes, nothing of what happened is lost but its place in time.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time between points at the beginning.
const FINEST: Duration = Duration::from_millis(50);
/// Points that are kept; where there would be more, every second one goes. The newest of one more than an even number stays.
const POINTS_MAX: usize = 480;
const _: () = assert!(POINTS_MAX.is_multiple_of(2));

/// How far a run was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Since the start.
    pub seconds: f64,
    /// Messages acked to all sessions until then.
    pub acked: u64,
    /// Messages delivered until then, over all subscribers.
    pub delivered: u64,
}

/// A run from its start to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Time between points but for the last, ms.
    pub interval_ms: u64,
    /// In the order of time; the first is the start.
    pub points: Vec<Point>,
}

/// A series that is being taken.
pub struct Taking {
    begin: Instant,
    /// When the newest point was taken.
    last: Instant,
    interval: Duration,
    points: Vec<Point>,
}

impl Taking {
    /// Of a run that begins now.
    pub fn new(begin: Instant) -> Taking {
        Taking { begin, last: begin, interval: FINEST, points: vec![Point { seconds: 0.0, acked: 0, delivered: 0 }] }
    }

    /// Whether it is time for a point.
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= self.interval
    }

    /// Takes a point.
    pub fn take(&mut self, now: Instant, acked: u64, delivered: u64) {
        let seconds = now.saturating_duration_since(self.begin).as_secs_f64();
        self.points.push(Point { seconds, acked, delivered });
        self.last = now;
        if self.points.len() > POINTS_MAX {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2;
        }
    }

    /// The run is over: takes the last point.
    pub fn end(mut self, now: Instant, acked: u64, delivered: u64) -> Series {
        self.take(now, acked, delivered);
        Series { interval_ms: self.interval.as_millis() as u64, points: self.points }
    }
}

impl Series {
    /// Without the stretch at the end in which nothing came any more.
    pub fn without_rest(&self) -> &[Point] {
        let last = self.points.last().map(|last| (last.acked, last.delivered));
        let rest = self.points.iter().rev().take_while(|point| Some((point.acked, point.delivered)) == last).count();
        &self.points[..self.points.len() - rest.saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a run of so many steps of 50 ms, with 10 messages acked and 20 delivered in each.
    fn series(steps: u32) -> Series {
        let begin = Instant::now();
        let mut taking = Taking::new(begin);
        for step in 1..=steps {
            let now = begin + FINEST * step;
            if taking.is_due(now) {
                taking.take(now, 10 * u64::from(step), 20 * u64::from(step));
            }
        }
        taking.end(begin + FINEST * (steps + 1), 10 * u64::from(steps), 20 * u64::from(steps))
    }

    #[test]
    fn a_short_run_is_kept_as_it_is() {
        let series = series(3);
        assert_eq!((series.interval_ms, series.points.len()), (50, 5));
        assert_eq!(series.points[0], Point { seconds: 0.0, acked: 0, delivered: 0 });
        assert_eq!(series.points[2].acked, 20);
        assert_eq!(series.without_rest().len(), 4, "the last step brought nothing");
    }

    #[test]
    fn a_long_run_is_coarser_and_no_longer() {
        let series = series(20 * 600);
        assert_eq!(series.interval_ms, 50 * 32);
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&series.points.len()), "{}", series.points.len());
        assert!(series.points.is_sorted_by_key(|point| point.acked));
        assert_eq!((series.points[0].acked, series.points.last().unwrap().delivered), (0, 20 * 20 * 600));
        let steady = series.points.windows(2).rev().skip(1).all(|pair| pair[1].acked - pair[0].acked == 320);
        assert!(steady, "each interval has what came in it");
    }

    #[test]
    fn a_run_in_which_nothing_came_has_a_point() {
        let begin = Instant::now();
        let series = Taking::new(begin).end(begin, 0, 0);
        assert_eq!(series.without_rest().len(), 1);
        assert_eq!(Series { interval_ms: 50, points: Vec::new() }.without_rest(), []);
    }
}
