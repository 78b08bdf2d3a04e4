//! Publishes ten messages and tells of every ack.
//!
//!     cargo run --example publish -- [HOST:PORT [TOPIC]]

use std::time::Duration;

use embarcadero::{ClientError, Publisher, PublisherOptions, TopicProperties};

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:7300".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    let mut publisher = Publisher::connect(PublisherOptions {
        // One address is enough: the broker names the others.
        brokers: vec![broker],
        topic,
        // By default exactly once and in this publisher's order, whatever connections break.
        create: Some(TopicProperties::default()),
        ..PublisherOptions::default()
    })?;
    publisher.on_acked(|batch| println!("batch {}: {} messages", batch.batch_seq, batch.messages));
    for number in 0..10 {
        // Copied into the open batch. Waits only while a whole window of batches is unacked.
        publisher.send(format!("message {number}").as_bytes())?;
    }
    // What is acked stands at its place in the order, for every reader and for as long as the pool keeps it.
    publisher.flush(Duration::from_secs(10))?;
    println!("{} of {} messages acked", publisher.messages_acked(), publisher.messages_sent());
    publisher.close(Duration::from_secs(10))
}
