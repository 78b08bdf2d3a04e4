//! Publishes and reads without the network: both map the pool's memory, beside the brokers, on a host of the pool.
//!
//!     cargo run --example attach -- [POOL [TOPIC]]
//!
//! The pool needs a place for each: `geometry.attached_per_broker` in the brokers' configuration, as `config/two-core.yaml` has it.

use std::time::Duration;

use embarcadero::{
    ClientError, PoolOptions, Publisher, PublisherOptions, Start, Subscriber, SubscriberOptions, TopicProperties,
};

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "/dev/shm/embarcadero".to_owned()).into();
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    // All that differs from clients over TCP: where the log is, and `attach` for `connect`.
    let pool = PoolOptions { path, ..Default::default() };
    let mut publisher = Publisher::attach(PublisherOptions {
        pool: pool.clone(),
        topic: topic.clone(),
        create: Some(TopicProperties::default()),
        ..Default::default()
    })?;
    let start = Start::Latest;
    let mut subscriber = Subscriber::attach(SubscriberOptions { pool, topic, start, ..Default::default() })?;
    for number in 0..3 {
        publisher.send(format!("attached message {number}").as_bytes())?;
    }
    publisher.flush(Duration::from_secs(10))?;

    let first = subscriber.next_order();
    while subscriber.next_order() < first + 3 {
        // Copied out of the pool once, checked, and good inside this closure.
        subscriber.poll(Duration::from_secs(1), |batch| {
            for (order, message) in batch.messages() {
                println!("{order} {}", String::from_utf8_lossy(message.payload));
            }
        })?;
    }
    publisher.close(Duration::from_secs(10))
}
