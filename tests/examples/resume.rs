//! Handles at most four messages, from where the named cursor stands, and commits how far it came: run it again, and it goes on there.
//!
//!     cargo run --example resume -- [HOST:PORT [TOPIC [CURSOR]]]

use std::time::Duration;

use embarcadero::{ClientError, Cursor, Order, OwnedEvent, Start, Subscriber, SubscriberOptions};

const TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGES_MAX: usize = 4;

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let brokers = vec![arguments.next().unwrap_or_else(|| "127.0.0.1:7300".to_owned())];
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let name = arguments.next().unwrap_or_else(|| "billing".to_owned());

    // The cursor is kept in the pool: another process, at another broker, may go on.
    let mut cursor = Cursor::open(&brokers, &topic, &name, TIMEOUT)?;
    let start = cursor.start(Start::Earliest);
    let mut subscriber = Subscriber::connect(SubscriberOptions { brokers, topic, start, ..Default::default() })?;
    println!("from order {}", subscriber.next_order());

    let mut handled = 0;
    // Ends when nothing has come for this long.
    for event in subscriber.batches(Duration::from_secs(1)) {
        let OwnedEvent::Batch(batch) = event? else { continue };
        for (order, message) in batch.messages().take(MESSAGES_MAX - handled) {
            println!("{order} {}", String::from_utf8_lossy(message.payload));
            // After the work, for "at least once"; before it, for "at most once".
            cursor.commit(order + 1, TIMEOUT)?;
            handled += 1;
        }
        if handled == MESSAGES_MAX {
            break;
        }
    }
    println!("up to order {}", cursor.committed().unwrap_or(Order(0)));
    Ok(())
}
