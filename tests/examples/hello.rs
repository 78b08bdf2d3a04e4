//! The ten lines of README: publish two messages, then read the topic.
//!
//!     cargo run --example hello -- [HOST:PORT]

use embarcadero::{ClientError, Publisher, PublisherOptions, Subscriber, SubscriberOptions, TopicProperties};
use std::time::Duration;

fn main() -> Result<(), ClientError> {
    let broker = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7300".to_owned());
    let (brokers, topic, create) = (vec![broker], "orders".to_owned(), Some(TopicProperties::default()));
    let options = PublisherOptions { brokers: brokers.clone(), topic: topic.clone(), create, ..Default::default() };
    let mut publisher = Publisher::connect(options)?;
    publisher.send(b"a first message")?;
    publisher.send(b"and a second")?;
    publisher.close(Duration::from_secs(10))?;

    let mut subscriber = Subscriber::connect(SubscriberOptions { brokers, topic, ..Default::default() })?;
    while !subscriber.caught_up() {
        subscriber.poll(Duration::from_secs(1), |batch| {
            for (order, message) in batch.messages() {
                println!("{order} {}", String::from_utf8_lossy(message.payload));
            }
        })?;
    }
    Ok(())
}
