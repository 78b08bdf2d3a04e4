//! Our own brokers, on the embedded default: what runs without a configuration file, but for addresses and the pool's place.

use std::time::Duration;

use embarcadero::wire::OrderLevel;
use embarcadero::{Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions};
use launch::place::Folder;

use crate::args::RunArgs;
use crate::error::CompareError;
use crate::peers::peer::{Consumer, Peer, Producer};
use crate::subject::{Idle, Subject, topic};

/// As many as the default configuration has.
pub const BROKERS: u32 = 4;
const POOL_BYTES: u64 = 512 << 20;

/// A process with brokers.
pub struct Ours {
    name: &'static str,
    subject: Subject,
}

impl Ours {
    /// Starts it.
    pub fn start(name: &'static str, brokers: u32, folder: &Folder) -> Result<Ours, CompareError> {
        let args = RunArgs::standard();
        Ok(Ours { name, subject: Subject::brokers(name, brokers, Idle::Park, POOL_BYTES, &args, folder)? })
    }

    fn topic() -> String {
        topic(OrderLevel::Session).to_owned()
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn producer(&self, is_single: bool) -> Result<Box<dyn Producer>, CompareError> {
        let mut options =
            PublisherOptions { brokers: self.subject.seeds(), topic: Ours::topic(), ..PublisherOptions::default() };
        if is_single {
            options = PublisherOptions { batch_messages: 1, window_batches: 1, linger: Duration::ZERO, ..options };
        }
        let publisher = Publisher::connect(options).map_err(CompareError::client(self.name))?;
        Ok(Box::new(OurProducer { name: self.name, publisher }))
    }

    fn consumer(&self) -> Result<Box<dyn Consumer>, CompareError> {
        let options = SubscriberOptions {
            brokers: self.subject.seeds(),
            topic: Ours::topic(),
            start: Start::Latest,
            ..SubscriberOptions::default()
        };
        let subscriber = Subscriber::connect(options).map_err(CompareError::client(self.name))?;
        Ok(Box::new(OurConsumer { name: self.name, subscriber }))
    }
}

struct OurProducer {
    name: &'static str,
    publisher: Publisher,
}

impl Producer for OurProducer {
    fn send(&mut self, payload: &[u8]) -> Result<(), CompareError> {
        self.publisher.send(payload).map_err(CompareError::client(self.name))
    }

    /// The next poll sends a message that is alone; others wait for company, as long as they do by default.
    fn hand_over(&mut self) -> Result<(), CompareError> {
        self.hear(Duration::ZERO)
    }

    /// The publisher has a window of its own.
    fn window(&self) -> u64 {
        u64::MAX
    }

    fn acked(&self) -> u64 {
        self.publisher.messages_acked()
    }

    fn hear(&mut self, longest: Duration) -> Result<(), CompareError> {
        self.publisher.poll(longest).map(drop).map_err(CompareError::client(self.name))
    }
}

struct OurConsumer {
    name: &'static str,
    subscriber: Subscriber,
}

impl Consumer for OurConsumer {
    fn take(&mut self, longest: Duration, each: &mut dyn FnMut(&[u8])) -> Result<(), CompareError> {
        let taken = self.subscriber.poll(longest, |batch| {
            batch.messages().for_each(|(_, message)| each(message.payload));
        });
        taken.map(drop).map_err(CompareError::client(self.name))
    }
}
