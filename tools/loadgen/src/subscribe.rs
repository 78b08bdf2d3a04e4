//! One subscriber: reads and verifies until it has everything, or until nothing more can come.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use embarcadero::client::{Delivered, Subscriber, SubscriberOptions};

use crate::board::Board;
use crate::verify::{BatchPlace, Summary, Verifier};

/// Longest time in the client before looking at the flags again.
const POLL: Duration = Duration::from_millis(50);
/// Once complete: a topic quiet for this long brings no repeats any more.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time to look for repeats after the last message.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A publisher gave up: once nothing came for this long, nothing more will.
const ABANDONED: Duration = Duration::from_secs(1);

/// When a subscriber is done.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// When so many different messages have come.
    Count(u64),
    /// When the broker says that everything committed has been sent.
    CaughtUp,
}

/// What one subscriber is to do.
pub struct ReaderPlan {
    /// Index of the subscriber in the run.
    pub index: usize,
    /// How to connect.
    pub options: SubscriberOptions,
    /// What it must see.
    pub verifier: Verifier,
    /// When it is done.
    pub until: Until,
    /// Longest time without a message, once publishers are done.
    pub idle_timeout: Duration,
}

/// What one subscriber saw.
#[derive(Clone, Debug)]
pub struct ReaderResult {
    /// Index of the subscriber in the run.
    pub index: usize,
    /// What it saw.
    pub summary: Summary,
    /// When the gate opened.
    pub started: Instant,
    /// When the last batch was handed over.
    pub last_delivery: Option<Instant>,
    /// Why it ended early, unless interrupted.
    pub error: Option<String>,
}

/// Told of each batch after it was verified: messages delivered before it, and in it.
pub type Hook<'a> = &'a mut (dyn FnMut(u64, u32) + Send);

/// Connects, waits for the gate, and reads. None if the run did not start.
pub fn run(plan: ReaderPlan, board: &Board, hook: Hook<'_>) -> Option<ReaderResult> {
    let subscriber = match connect(&plan) {
        Ok(subscriber) => subscriber,
        Err(reason) => {
            board.gate.arrive(Err(reason));
            return None;
        }
    };
    if !board.gate.arrive(Ok(())) {
        return None;
    }
    Some(Reader::new(plan, subscriber, board, hook).run())
}

fn connect(plan: &ReaderPlan) -> Result<Subscriber, String> {
    let index = plan.index;
    let subscriber =
        Subscriber::connect(plan.options.clone()).map_err(|error| format!("subscriber {index}: {error}"))?;
    let (topic, found, asked) = (subscriber.topic(), subscriber.order_level(), plan.verifier.order());
    if found != asked {
        return Err(format!(
            "topic {topic:?} has order level {found}, not {asked}: use --order {found} or another --topic"
        ));
    }
    Ok(subscriber)
}

struct Reader<'a> {
    index: usize,
    board: &'a Board,
    subscriber: Subscriber,
    verifier: Verifier,
    hook: Hook<'a>,
    until: Until,
    idle_timeout: Duration,
    started: Instant,
    last_delivery: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(plan: ReaderPlan, subscriber: Subscriber, board: &'a Board, hook: Hook<'a>) -> Reader<'a> {
        Reader {
            index: plan.index,
            board,
            subscriber,
            verifier: plan.verifier,
            hook,
            until: plan.until,
            idle_timeout: plan.idle_timeout,
            started: Instant::now(),
            last_delivery: None,
        }
    }

    fn run(mut self) -> ReaderResult {
        let ended = self.read().and_then(|()| self.look_for_repeats());
        ReaderResult {
            index: self.index,
            summary: self.verifier.summary(),
            started: self.started,
            last_delivery: self.last_delivery,
            error: ended.err(),
        }
    }

    /// Reads until done, interrupted, or quiet for too long.
    fn read(&mut self) -> Result<(), String> {
        let mut moved = Instant::now();
        while !self.done() && !self.board.interrupted() {
            if self.poll(POLL)? > 0 || !self.board.sessions_ended() {
                moved = Instant::now();
                continue;
            }
            let quiet = moved.elapsed();
            if self.board.session_failed() && quiet > ABANDONED {
                return Ok(()); // What is missing is the publisher's failure; the verdict says both.
            }
            if quiet > self.idle_timeout {
                let (seconds, next) = (quiet.as_secs_f64(), self.subscriber.next_order());
                return Err(format!("nothing delivered for {seconds:.0} s; waiting for order {next}"));
            }
        }
        Ok(())
    }

    /// A repeat of the last batches would come after the last message.
    fn look_for_repeats(&mut self) -> Result<(), String> {
        let Until::Count(_) = self.until else { return Ok(()) };
        if self.board.sessions.is_empty() {
            return Ok(()); // Without publishers of its own, more than asked for is not a fault.
        }
        let deadline = Instant::now() + AFTERMATH;
        while self.done() && !self.board.interrupted() && Instant::now() < deadline {
            if self.poll(QUIET)? == 0 && self.board.sessions_ended() {
                break;
            }
        }
        Ok(())
    }

    fn done(&self) -> bool {
        match self.until {
            Until::Count(messages) => self.verifier.unique() >= messages,
            Until::CaughtUp => self.subscriber.caught_up(),
        }
    }

    fn poll(&mut self, time: Duration) -> Result<usize, String> {
        let (verifier, hook) = (&mut self.verifier, &mut self.hook);
        let last = &mut self.last_delivery;
        let mut take = |delivered: &Delivered<'_>| {
            let before = verifier.messages();
            verifier.batch(&place(delivered), delivered.messages().map(|(order, message)| (order, message.payload)));
            hook(before, delivered.message_count);
            *last = Some(Instant::now());
        };
        let batches = self.subscriber.poll(time, &mut take).map_err(|error| error.to_string())?;
        self.board.delivered[self.index].store(self.verifier.messages(), Ordering::Relaxed);
        Ok(batches)
    }
}

fn place(delivered: &Delivered<'_>) -> BatchPlace {
    BatchPlace {
        first_order: delivered.first_order,
        session: delivered.session,
        session_epoch: delivered.session_epoch,
        batch_seq: delivered.batch_seq,
        message_count: delivered.message_count,
    }
}
