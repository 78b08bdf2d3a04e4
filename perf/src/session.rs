//! A publisher's session on a thread of its own, and when its acks moved.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embarcadero::{Publisher, PublisherOptions, PublisherStats};
use tools_common::schedule::{Arrival, Schedule};
use verification::payload::PayloadWriter;

use crate::args::LoadArgs;
use crate::cluster::{WAIT_MAX, wait_until};
use crate::error::CompareError;
use crate::witness::RUN;

/// Time after a fault in which a standstill counts as its own.
pub const AFTER: Duration = Duration::from_millis(1500);
/// Bytes a second that nothing reaches: as fast as it goes.
const UNLIMITED: f64 = 1e15;
/// Most messages between looks at acks.
const MESSAGES_PER_STEP: u32 = 64;
/// What could not be sent in a standstill longer than this is never sent.
const ARREARS_MAX: Duration = Duration::from_millis(50);
/// Any busy machine pauses for less.
const STANDSTILL_MIN: Duration = Duration::from_millis(20);
/// Movements closer together than this are one: a standstill is longer.
const GRAIN: Duration = Duration::from_millis(1);

/// A count that grows, and when it did.
#[derive(Default)]
pub struct Movement {
    steps: Mutex<Vec<(Instant, u64)>>,
    count: AtomicU64,
}

impl Movement {
    /// Notes the count now.
    pub fn note(&self, count: u64) {
        if count <= self.count.swap(count, Ordering::Relaxed) {
            return;
        }
        let (mut steps, now) = (self.steps.lock().expect("no panic"), Instant::now());
        match steps.as_mut_slice() {
            // Of a run of movements the first and the last are kept.
            [.., before, last] if last.0 - before.0 < GRAIN && now - before.0 < GRAIN => *last = (now, count),
            _ => steps.push((now, count)),
        }
    }

    /// The count as last noted.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// From a fault until the end of the longest standstill that began before [`AFTER`] had passed, ms. `None`: it goes on.
    /// If none is worth the name, how long the longest pause was.
    pub fn standstill(&self, fault: Instant) -> Option<f64> {
        let steps = self.steps.lock().expect("no panic");
        let first = steps.partition_point(|step| step.0 <= fault).checked_sub(1)?;
        if steps.last()?.0 < fault + AFTER {
            return None;
        }
        let pauses = steps[first..].windows(2).take_while(|pair| pair[0].0 < fault + AFTER);
        let [begin, end] = pauses.max_by_key(|pair| pair[1].0 - pair[0].0)?.first_chunk().copied()?;
        let pause = end.0 - begin.0;
        let until = if pause < STANDSTILL_MIN { pause } else { end.0.saturating_duration_since(fault) };
        Some(until.as_secs_f64() * 1e3)
    }

    /// The longest standstill between two moments, ms.
    pub fn longest_standstill(&self, begin: Instant, end: Instant) -> f64 {
        let steps = self.steps.lock().expect("no panic");
        let inside = steps.iter().map(|step| step.0).filter(|at| *at > begin && *at < end);
        let (mut longest, mut last) = (Duration::ZERO, begin);
        for at in inside.chain([end]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest.as_secs_f64() * 1e3
    }

    /// Every standstill after a fault as its begin and its end, ms since the fault.
    pub fn standstills(&self, fault: Instant) -> Vec<(f64, f64)> {
        let steps = self.steps.lock().expect("no panic");
        let since = |at: Instant| at.saturating_duration_since(fault).as_secs_f64() * 1e3;
        let pauses = steps.windows(2).filter(|pair| pair[1].0 > fault && pair[1].0 - pair[0].0 >= STANDSTILL_MIN);
        pauses.map(|pair| (since(pair[0].0), since(pair[1].0))).collect()
    }

    /// From a fault until the count was at least this, ms. `None`: it is not.
    pub fn reached(&self, fault: Instant, count: u64) -> Option<f64> {
        let steps = self.steps.lock().expect("no panic");
        let at = steps.iter().find(|step| step.0 > fault && step.1 >= count)?.0;
        Some(at.saturating_duration_since(fault).as_secs_f64() * 1e3)
    }

    /// How much it grew between two moments.
    pub fn between(&self, begin: Instant, end: Instant) -> u64 {
        let steps = self.steps.lock().expect("no panic");
        let at = |moment: Instant| match steps.partition_point(|step| step.0 <= moment) {
            0 => 0,
            index => steps[index - 1].1,
        };
        at(end) - at(begin)
    }
}

/// Longest standstill of acks of any session since a fault, ms; `None` while one goes on.
pub fn slowest(sessions: &[Session<'_>], fault: Instant) -> Option<f64> {
    let each: Option<Vec<f64>> = sessions.iter().map(|session| session.acked.standstill(fault)).collect();
    each.map(|each| each.into_iter().fold(0.0, f64::max))
}

/// Waits until acks of every session have moved, and for a while.
pub fn all_go_on(sessions: &[Session<'_>], name: &str, when: &str, time: Duration) -> Result<(), CompareError> {
    let (since, before) = (Instant::now(), sessions.iter().map(|one| one.acked.count()).collect::<Vec<_>>());
    wait_until(name, &format!("acks did not move {when}"), || {
        let all = sessions.iter().zip(&before).all(|(one, before)| one.acked.count() > *before);
        (all && since.elapsed() > time).then_some(())
    })
}

/// A publisher's thread and what it tells.
pub struct Session<'a> {
    load: &'a LoadArgs,
    topic: &'a str,
    number: u32,
    stop: &'a AtomicBool,
    /// Messages acked.
    pub acked: Movement,
    sent: AtomicU64,
}

impl<'a> Session<'a> {
    /// One that is not connected yet.
    pub fn new(load: &'a LoadArgs, topic: &'a str, number: u32, stop: &'a AtomicBool) -> Self {
        Session { load, topic, number, stop, acked: Movement::default(), sent: AtomicU64::new(0) }
    }

    /// Messages taken by the publisher.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends at its rate until told to stop; then waits for every ack. Gives messages sent, and its rare events.
    pub fn publish(&self, seeds: &[String]) -> Result<(u64, PublisherStats), CompareError> {
        let options = PublisherOptions {
            brokers: seeds.to_vec(),
            topic: self.topic.to_owned(),
            batch_bytes: self.load.batch_bytes,
            ..PublisherOptions::default()
        };
        let client = || CompareError::client(format!("session {}", self.number));
        let mut publisher = Publisher::connect(options).map_err(client())?;
        let payloads = self.load.payloads();
        let rate = if self.load.rate == 0 { UNLIMITED } else { self.load.rate as f64 };
        let mut plan = Schedule::new(Arrival::Constant, rate / payloads.message_bytes() as f64, 0, 0, 1);
        let mut writer = PayloadWriter::new(payloads, RUN, self.number);
        let (begin, mut sent, mut next) = (Instant::now(), 0, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let now = begin.elapsed();
            // A few at a time, then acks are looked at.
            for _ in 0..MESSAGES_PER_STEP {
                if next > now.as_nanos() as u64
                    || !writer.with(sent, |payload| publisher.try_send(payload)).map_err(client())?
                {
                    break;
                }
                sent += 1;
                // A standstill is not made good: the rate after it is the same as before.
                plan.forgo_before(now.saturating_sub(ARREARS_MAX).as_nanos() as u64);
                next = plan.next().expect("a schedule has no end");
            }
            self.sent.store(sent, Ordering::Relaxed);
            publisher.poll(Duration::from_micros(500)).map_err(client())?;
            self.acked.note(publisher.messages_acked());
        }
        publisher.flush(WAIT_MAX).map_err(client())?;
        self.acked.note(publisher.messages_acked());
        let stats = publisher.stats();
        publisher.close(WAIT_MAX).map_err(client())?;
        Ok((sent, stats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(begin: Instant, steps_ms: &[u64]) -> Movement {
        let step = |(count, ms): (usize, &u64)| (begin + Duration::from_millis(*ms), count as u64);
        Movement { steps: Mutex::new(steps_ms.iter().enumerate().map(step).collect()), ..Movement::default() }
    }

    #[test]
    fn a_standstill_is_told_from_a_pause() {
        let begin = Instant::now();
        let fault = begin + Duration::from_millis(105);
        let rounded = |steps_ms: &[u64]| moved(begin, steps_ms).standstill(fault).map(f64::round);
        assert_eq!(rounded(&[100, 110, 400, 410, 2000, 5000]), Some(1895.0), "the longest that began in time");
        assert_eq!(rounded(&[100, 110, 400, 410]), None, "it goes on");
        let steady: Vec<u64> = (0..400).map(|step| step * 10).collect();
        assert_eq!(rounded(&steady), Some(10.0), "none");
        assert_eq!(moved(begin, &[0, 10, 90, 100]).longest_standstill(begin, fault).round(), 80.0);
        assert_eq!(moved(begin, &[0, 10, 20, 30]).between(begin, begin + Duration::from_millis(25)), 2);
    }
}
