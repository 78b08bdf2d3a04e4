//! A subscriber: the client's own follower and intake over simulated connections; every message it is handed is looked at.

use std::io::ErrorKind;

use crate::client::follower::{Follower, first_call};
use crate::client::handshake::Greeting;
use crate::client::pulse::heartbeat;
use crate::client::{ClientError, Delivered, Event as Handed, Start, SubscriberOptions};
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::attempt::{Attempt, BACKOFF, CONNECT_TIMEOUT, Opening, addresses};
use crate::sim::parts::terms::{UTC_NS, topic_name};
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::wire::frame::{self, Deliver, Goodbye};
use crate::wire::{Refusal, StartAt};

const READ_BYTES: usize = 16 << 10;
/// One in so many steps with a connection, the subscriber says goodbye, and another one goes on where it stood.
const GOODBYE_ONE_IN: u64 = 2000;

/// What the follower has.
enum Line {
    Nothing,
    Attempt(u64, Box<Attempt>),
    Up(LinkId),
}

/// See the head of the file.
pub(super) struct Subscriber {
    options: SubscriberOptions,
    opening: Opening,
    follower: Option<Follower>,
    line: Line,
    /// Position in the index of the batch that came last, of whichever topic.
    position: Option<u64>,
    /// How many topics of each of its names had been deleted when it began.
    deletions: Vec<(String, usize)>,
    payload_bytes_max: u64,
    /// Pins that were not waited for any more when it dialed last.
    dropped_pins: u64,
    spoiled_batches: u64,
}

/// How many topics of each name were deleted.
fn deletions(kernel: &Kernel, options: &SubscriberOptions) -> Vec<(String, usize)> {
    options.topics().map(|(name, _)| (name.to_owned(), kernel.deletions(name))).collect()
}

impl Subscriber {
    pub fn new(kernel: &Kernel) -> Subscriber {
        let count = kernel.with(|state| state.scenario.topics.len());
        // One of the topics, and any of the others.
        let first = kernel.below(count as u64) as usize;
        let start = |_| match kernel.below(8) {
            0 => Start::Latest,
            1 => Start::Timestamp(UTC_NS + kernel.below(kernel.now_ns())),
            _ => Start::Earliest,
        };
        let more = (0..count).filter(|topic| *topic != first && kernel.chance(1, 2));
        let options = SubscriberOptions {
            brokers: addresses(kernel),
            topic: topic_name(first),
            start: start(first),
            more_topics: more.map(|topic| (topic_name(topic), start(topic))).collect(),
            connect_timeout: CONNECT_TIMEOUT,
            ..SubscriberOptions::default()
        };
        let (opening, line) = (Opening::new(first_call(&options)), Line::Nothing);
        Subscriber {
            deletions: deletions(kernel, &options),
            options,
            opening,
            follower: None,
            line,
            position: None,
            payload_bytes_max: kernel.with(|state| state.scenario.payload_bytes_max),
            dropped_pins: 0,
            spoiled_batches: 0,
        }
    }

    fn open(&mut self, kernel: &Kernel) {
        let welcomed = match self.opening.step(kernel) {
            Some(Err(error)) => return self.refused_at_first(kernel, &error),
            Some(Ok(welcomed)) => welcomed,
            None => return,
        };
        let (link, greeting) = welcomed;
        match Follower::new(&self.options, BACKOFF, &greeting, kernel.instant()) {
            Ok(follower) => (self.follower, self.line) = (Some(follower), Line::Up(link)),
            Err(error) => kernel.fail(10, error.to_string()),
        }
    }

    /// Where a topic of its begins.
    fn start(&mut self, place: usize) -> &mut Start {
        match place {
            0 => &mut self.options.start,
            _ => &mut self.options.more_topics[place - 1].1,
        }
    }

    fn refused_at_first(&mut self, kernel: &Kernel, error: &ClientError) {
        told(kernel, error);
        if error.refusal() == Some(Refusal::Trimmed)
            && let ClientError::Refused { detail: earliest, place, .. } = error
            && let Start::Order(order) = *self.start(*place)
        {
            let topic = self.options.topics().nth(*place).expect("it is one of its own").0.to_owned();
            kernel.check(|checker| checker.gone(&topic, order.0));
            *self.start(*place) = Start::Order((*earliest).into());
            self.opening = Opening::new(first_call(&self.options));
        }
        let goes_on = self.options.topics().any(|(_, start)| matches!(start, StartAt::Order(_)));
        match error.refusal() {
            Some(Refusal::TopicDeleted | Refusal::UnknownTopic) if goes_on => {
                // It was there when it read of it.
                kernel.check(|checker| checker.deleted(kernel.part, &self.deletions));
                self.begin_anew(kernel);
            }
            _ if goes_on => {}
            _ => self.deletions = deletions(kernel, &self.options),
        }
    }

    /// Everything anew: the topics that it read are gone, or some of them.
    fn begin_anew(&mut self, kernel: &Kernel) {
        if let Line::Up(link) = self.line {
            kernel.close(link, End::Client);
        }
        if let Line::Attempt(_, attempt) = &self.line {
            kernel.close(attempt.link, End::Client);
        }
        *self = Subscriber::new(kernel);
    }

    /// What a pass came to.
    fn settle(&mut self, kernel: &Kernel, result: Result<(), ClientError>) {
        let Some(follower) = &mut self.follower else { return };
        if let Err(error) = result {
            if error.refusal() == Some(Refusal::Trimmed)
                && let ClientError::Refused { detail: earliest, place, .. } = error
            {
                // It fell behind while it had no connection, and goes on at the earliest there is.
                let topic = &follower.topics()[place];
                kernel.check(|checker| checker.gone(&topic.name, topic.next_order));
                follower.go_on_at(place, earliest, kernel.instant());
            }
            told(kernel, &error);
            if matches!(error.refusal(), Some(Refusal::TopicDeleted | Refusal::UnknownTopic)) {
                kernel.check(|checker| checker.deleted(kernel.part, &self.deletions));
                return self.begin_anew(kernel);
            }
        }
        // If its broker stood still and was not waited for, a batch's bytes were used again under its send; it is asked for again elsewhere.
        let is_spoiled =
            std::mem::replace(&mut self.spoiled_batches, follower.spoiled_batches()) < self.spoiled_batches;
        if is_spoiled && kernel.with(|state| state.dropped_pins()) == self.dropped_pins {
            kernel.fail(8, "a batch came spoiled".into());
        }
        if let Line::Up(link) = self.line
            && !follower.is_up()
        {
            kernel.close(link, End::Client);
            self.line = Line::Nothing;
        }
    }

    /// Says goodbye if that can be said, and closes. Whoever comes next begins where it stood.
    fn part(&mut self, kernel: &Kernel, link: LinkId) {
        let Some(follower) = self.follower.take() else { return };
        if follower.may_part() {
            kernel.write(link, End::Client, &frame::seal(&Goodbye::default()));
        }
        kernel.close(link, End::Client);
        self.line = Line::Nothing;
        self.spoiled_batches = 0;
        for (place, topic) in follower.topics().iter().enumerate() {
            *self.start(place) = Start::Order(topic.next_order.into());
        }
        self.position = None;
        self.opening = Opening::new(first_call(&self.options));
    }

    fn reconnect(&mut self, kernel: &Kernel) -> Result<(), ClientError> {
        let (Some(follower), now) = (&mut self.follower, kernel.instant()) else { return Ok(()) };
        if let Line::Attempt(generation, attempt) = &mut self.line {
            let (generation, link) = (*generation, attempt.link);
            let Some(result) = attempt.listen(kernel) else { return Ok(()) };
            let taken = follower.on_dialed(generation, &result, now);
            self.line = if let Ok(true) = taken { Line::Up(link) } else { Line::Nothing };
            if !matches!(self.line, Line::Up(_)) {
                kernel.close(link, End::Client);
            }
            return taken.map(drop);
        }
        if let Some(call) = follower.redial(now)? {
            let generation = follower.generation();
            self.dropped_pins = kernel.with(|state| state.dropped_pins());
            match Attempt::begin(kernel, call) {
                Ok(attempt) => self.line = Line::Attempt(generation, Box::new(attempt)),
                Err(error) => drop(follower.on_dialed(generation, &Err::<Greeting, _>(error), now)?),
            }
        }
        Ok(())
    }

    /// Listens once, and takes what has come whole.
    fn listen(&mut self, kernel: &Kernel, link: LinkId) -> Result<(), ClientError> {
        let (Some(follower), now) = (&mut self.follower, kernel.instant()) else { return Ok(()) };
        let unsaid = follower.unsaid(now);
        if unsaid > 0 {
            let beat = heartbeat();
            let taken = kernel.write(link, End::Client, &beat[beat.len() - unsaid..]);
            taken.into_iter().for_each(|bytes| follower.said(unsaid, bytes, now));
        }
        let room = follower.room();
        match kernel.read(link, End::Client, room.len().min(READ_BYTES)) {
            Heard::Bytes(bytes) => {
                room[..bytes.len()].copy_from_slice(&bytes);
                follower.landed(bytes.len(), now);
            }
            Heard::Nothing => drop(follower.on_silence(now)),
            Heard::End => {
                let error = ClientError::io(follower.address(), "reading from", &ErrorKind::UnexpectedEof.into());
                follower.on_lost(&error, now);
            }
        }
        let (bytes_max, position, mut handed) = (self.payload_bytes_max, &mut self.position, 0);
        let handler = &mut |event: Handed<'_>| match event {
            Handed::Batch(batch) => {
                if let Some(before) = position.replace(batch.position.0).filter(|before| *before >= batch.position.0) {
                    kernel.fail(10, format!("position {} comes after {before}", batch.position));
                }
                self::handed(kernel, &batch, bytes_max);
            }
            // It is told, and what was given up is gone, from the first message to the last.
            Handed::Skipped { topic, from, next_order, .. } => {
                kernel.check(|checker| checker.skipped(topic, from.0));
                kernel.check(|checker| checker.skipped(topic, next_order.0 - 1));
            }
        };
        while follower.step(handler, &mut handed, now)? {}
        Ok(())
    }
}

/// Looks at a batch that a subscriber was handed, and tells the checker.
pub(super) fn handed(kernel: &Kernel, batch: &Delivered<'_>, payload_bytes_max: u64) {
    let Delivered { message_count, session_epoch, .. } = *batch;
    let (position, first_order) = (batch.position.0, batch.first_order.0);
    let (session, batch_seq) = (batch.session.0, batch.batch_seq.0);
    let mut next = None;
    for (_, message) in batch.messages() {
        let read = workload::read(message.payload, payload_bytes_max);
        let Some((client, number)) = read.filter(|read| next.is_none_or(|next| next == *read)) else {
            return kernel.fail(8, format!("position {position} holds a message nobody sent there: {read:?}"));
        };
        next = Some((client, number + 1));
    }
    kernel.note(Event::Delivered(kernel.part, position, first_order, message_count));
    let deliver =
        Deliver { position, first_order, message_count, batch_seq, session, session_epoch, ..Deliver::default() };
    kernel.check(|checker| checker.delivered(batch.topic, deliver));
}

/// What a subscriber is told that polls; some of it no broker may say.
fn told(kernel: &Kernel, error: &ClientError) {
    match error {
        ClientError::Refused { code, detail, .. } => {
            kernel.note(Event::Refused(kernel.part, *code, *detail));
            if error.refusal() == Some(Refusal::Damaged) {
                kernel.fail(8, "what a reader had pinned cannot be read".into());
            }
        }
        ClientError::Gap { .. } => kernel.fail(2, error.to_string()),
        ClientError::Wire { .. } => kernel.fail(8, error.to_string()),
        ClientError::Contradiction { .. } => kernel.fail(10, error.to_string()),
        _ => {}
    }
}

impl Actor for Subscriber {
    fn step(&mut self, kernel: &Kernel) {
        let result = match (&self.follower, &self.line) {
            (None, _) => return self.open(kernel),
            (Some(_), Line::Up(link)) if !kernel.is_calm() && kernel.chance(1, GOODBYE_ONE_IN) => {
                return self.part(kernel, *link);
            }
            (Some(_), Line::Up(link)) => self.listen(kernel, *link),
            (Some(_), _) => self.reconnect(kernel),
        };
        self.settle(kernel, result);
        // It asked for what lay ahead in a topic that was deleted meanwhile: in another of its name it may wait for ever.
        let is_ahead = |follower: &Follower| {
            let next = |name: &str| kernel.with(|state| state.checker.next_order(name));
            follower.topics().iter().any(|topic| next(&topic.name).is_some_and(|next| next < topic.next_order))
        };
        if kernel.is_calm() && self.follower.as_ref().is_some_and(is_ahead) {
            kernel.check(|checker| checker.deleted(kernel.part, &self.deletions));
            self.begin_anew(kernel);
        }
    }

    /// It has everything.
    fn is_at_rest(&self, checker: &Checker) -> bool {
        let has_all = |follower: &Follower| {
            follower.topics().iter().all(|topic| checker.next_order(&topic.name) == Some(topic.next_order))
        };
        self.follower.as_ref().is_some_and(has_all)
    }
}
