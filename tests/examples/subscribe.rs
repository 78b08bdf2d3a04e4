//! Reads topics in their one order, from the earliest message kept up to what is there now.
//!
//!     cargo run --example subscribe -- [HOST:PORT [TOPIC...]]

use std::time::Duration;

use embarcadero::{ClientError, Event, SlowReaderPolicy, Start, Subscriber, SubscriberOptions};

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:7300".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    let mut subscriber = Subscriber::connect(SubscriberOptions {
        brokers: vec![broker],
        topic,
        start: Start::Earliest,
        more_topics: arguments.map(|topic| (topic, Start::Earliest)).collect(),
        // Rather than hold publishers up for ever, it misses something, and is told what.
        slow_reader: SlowReaderPolicy::Skip,
        ..SubscriberOptions::default()
    })?;
    // A consumer that follows the topics goes on polling; a broken connection is made good inside, without a gap.
    while !subscriber.caught_up() {
        subscriber.poll_events(Duration::from_secs(1), |event| match event {
            Event::Batch(batch) => {
                for (order, message) in batch.messages() {
                    println!("{} {order} {}", batch.topic, String::from_utf8_lossy(message.payload));
                }
            }
            Event::Skipped { topic, from, next_order, .. } => println!("{topic} {from} to {next_order} were missed"),
        })?;
    }
    Ok(())
}
