//! Named cursors over control connections: set, read, listed, deleted, at any broker, over the death of every process.

use embarcadero::wire::{OrderLevel, Receipts, Refusal};
use embarcadero::{Admin, Order};

use crate::harness::{LIMIT, Setup, Site};

fn admin(site: &Site, broker: u32) -> Admin {
    Admin::new(&[site.address(broker)]).unwrap()
}

/// Twelve places.
fn site(name: &str, brokers: u32) -> Site {
    let geometry = "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4, \
                    cursors_max: 12";
    Site::new(name, &Setup { brokers, geometry, ..Setup::default() })
}

#[test]
fn a_cursor_set_at_one_broker_is_read_at_another_and_survives_every_process() {
    let site = site("cursors", 2);
    let process = site.process(&[]);
    for topic in ["orders", "other"] {
        site.create_topic(topic, OrderLevel::Session, Receipts::Batch);
    }
    let (mut first, mut second) = (admin(&site, 0), admin(&site, 1));
    assert_eq!(second.cursor("orders", "billing", LIMIT).unwrap(), None);
    for order in [7, 1 << 40, 3] {
        first.commit_cursor("orders", "billing", Order(order), LIMIT).unwrap();
        assert_eq!(second.cursor("orders", "billing", LIMIT).unwrap(), Some(Order(order)));
    }
    second.commit_cursor("orders", "search", Order(9), LIMIT).unwrap();
    second.commit_cursor("other", "billing", Order(1), LIMIT).unwrap();
    process.kill();
    let process = site.process(&[]);
    assert_eq!(
        first.cursors("orders", LIMIT).unwrap(),
        [("billing".to_owned(), Order(3)), ("search".to_owned(), Order(9))]
    );
    first.delete_cursor("orders", "billing", LIMIT).unwrap();
    assert_eq!(second.cursor("orders", "billing", LIMIT).unwrap(), None);
    assert_eq!(second.cursor("other", "billing", LIMIT).unwrap(), Some(Order(1)));
    let error = second.delete_cursor("orders", "billing", LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::UnknownCursor), "{error}");
    process.kill();
}

#[test]
fn a_full_table_an_unknown_topic_and_bad_names_are_told() {
    let site = site("cursor-table", 1);
    let cluster = site.start();
    site.create_topic("orders", OrderLevel::Session, Receipts::Batch);
    let mut admin = admin(&site, 0);
    for number in 0..12 {
        admin.commit_cursor("orders", &format!("c{number}"), Order(number), LIMIT).unwrap();
    }
    let error = admin.commit_cursor("orders", "one-more", Order(1), LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::CursorTableFull), "{error}");
    admin.commit_cursor("orders", "c3", Order(99), LIMIT).unwrap();
    admin.delete_cursor("orders", "c5", LIMIT).unwrap();
    admin.commit_cursor("orders", "one-more", Order(1), LIMIT).unwrap();
    let listed = admin.cursors("orders", LIMIT).unwrap();
    assert_eq!((listed.len(), listed[3].1), (12, Order(99)));
    let error = admin.commit_cursor("nothing", "c", Order(1), LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::UnknownTopic), "{error}");
    let error = admin.commit_cursor("orders", "c3", Order(u64::MAX), LIMIT).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Protocol), "{error}");
    for name in ["", "a\nb", &"n".repeat(41)] {
        assert!(admin.commit_cursor("orders", name, Order(1), LIMIT).is_err(), "{name:?}");
    }
    cluster.stop();
}
