//! What users of the crate hold: it can be printed and sent to another thread, and an error is an error like any other. And how much of it there
//! is: the crate's first page is read by people.

use std::error::Error;
use std::fmt::Debug;

use embarcadero::{
    AckLevel, AckedBatch, Admin, Attempt, Attempts, BackgroundPublisher, BatchSeq, Batches, BrokerProgress,
    ClientError, CoherenceMode, Cursor, Delivered, Event, Message, Order, OrderLevel, OwnedBatch, OwnedEvent,
    PlaceKind, PoolError, PoolOptions, Position, Publisher, PublisherOptions, PublisherStats, Readiness, Receipts,
    Refusal, SessionId, SlowReaderPolicy, Start, Subscriber, SubscriberOptions, TopicInfo, TopicProperties, WireError,
};

/// Most names of the first page.
const NAMES_MAX: usize = 50;

fn is_held<T: Debug + Send>() {}

fn is_told<T: Error + Send + Sync + 'static>() {}

#[test]
fn what_users_hold_can_be_printed_and_sent() {
    is_held::<(Publisher, BackgroundPublisher, Subscriber, Batches<'_>, Admin, Cursor, Readiness)>();
    is_held::<(PublisherOptions, SubscriberOptions, PoolOptions, TopicProperties, Start, SlowReaderPolicy)>();
    is_held::<(OrderLevel, AckLevel, Receipts, CoherenceMode, PlaceKind, Order, Position, SessionId, BatchSeq)>();
    is_held::<(Delivered<'_>, Event<'_>, OwnedBatch, OwnedEvent, Message<'_>)>();
    is_held::<(AckedBatch, BrokerProgress, PublisherStats, TopicInfo, Attempt, Attempts, Refusal)>();
    is_told::<ClientError>();
    is_told::<PoolError>();
    is_told::<WireError>();
}

/// Every name at the root that is not hidden.
#[test]
fn the_first_page_is_short() {
    let root = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("the library");
    let uses = root.split("\npub use ").skip(1).filter_map(|behind| behind.split(';').next());
    let names = |list: &str| -> usize {
        let inner = list.split_once('{').map_or(list, |(_, inner)| inner.trim_end_matches('}'));
        inner.split(',').filter(|name| !name.trim().is_empty()).count()
    };
    let names: usize = uses.map(names).sum();
    assert!((30..=NAMES_MAX).contains(&names), "{names} names");
    let hidden = root.matches("#[doc(hidden)]\npub mod ").count();
    assert_eq!(root.matches("\npub mod ").count(), hidden, "a module that is neither the interface nor hidden");
}
