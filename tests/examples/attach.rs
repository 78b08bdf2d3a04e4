//! Publishes and reads without the network: both map the pool's memory, beside the brokers, on a host of the pool.
//!
//!     cargo run --example attach -- [POOL [TOPIC]]
//!
//! The pool needs a place for each: `geometry.attached_per_broker` in the brokers' configuration, as `config/two-core.yaml` has it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use embarcadero::{
    AttachOptions, AttachedSubscriberOptions, ClientError, Publisher, Start, Subscriber, TopicProperties,
};

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let pool = PathBuf::from(arguments.next().unwrap_or_else(|| "/dev/shm/embarcadero".to_owned()));
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    let mut publisher = Publisher::attach(AttachOptions {
        pool: pool.clone(),
        topic: topic.clone(),
        create: Some(TopicProperties::default()),
        ..AttachOptions::default()
    })?;
    let start = Start::Latest;
    let mut subscriber = Subscriber::attach(AttachedSubscriberOptions { pool, topic, start, ..Default::default() })?;
    for number in 0..3 {
        publisher.send(format!("attached message {number}").as_bytes())?;
    }
    publisher.flush(Instant::now() + Duration::from_secs(10))?;

    let first = subscriber.next_order();
    while subscriber.next_order() < first + 3 {
        // Copied out of the pool once, checked, and good inside this closure.
        subscriber.poll(Duration::from_secs(1), |batch| {
            for (order, message) in batch.messages() {
                println!("{order} {}", String::from_utf8_lossy(message.payload));
            }
        })?;
    }
    publisher.close(Instant::now() + Duration::from_secs(10))
}
