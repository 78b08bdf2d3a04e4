//! Places in the session table: whoever is connected keeps its own, and what nobody has makes room.

use std::time::{Duration, Instant};

use embarcadero::Publisher;
use embarcadero::wire::{OrderLevel, Receipts};

use crate::harness::{LIMIT, Setup, Site};
use crate::traffic::{connect, flush, send};

const TOPIC: &str = "t";
const GEOMETRY: &str =
    "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 16, topics_max: 4";

fn site(name: &str, sequencer: &'static str) -> Site {
    Site::new(name, &Setup { brokers: 1, geometry: GEOMETRY, sequencer, ..Setup::default() })
}

/// Connects once there is a place.
fn connect_in_time(site: &Site, allowed: Duration) -> Publisher {
    let since = Instant::now();
    loop {
        match Publisher::connect(site.publisher(TOPIC)) {
            Ok(publisher) => return publisher,
            Err(error) => assert!(since.elapsed() < allowed, "no place within {allowed:?}: {error}"),
        }
    }
}

/// Below level 5 nobody goes on with a session of a process that is no more.
#[test]
fn as_many_publishers_are_welcomed_after_a_restart_as_before() {
    for order in [OrderLevel::Total, OrderLevel::Connection] {
        let site = site("restart", "session_lease: 5s, session_expiry: 10m");
        let process = site.process(&[]);
        site.create_topic(TOPIC, order, Receipts::Batch);
        let before: Vec<_> = (0..16).map(|_| connect(site.publisher(TOPIC))).collect();
        process.kill();
        drop(before);
        let _process = site.process(&[]);
        let mut after: Vec<_> = (0..16).map(|_| connect_in_time(&site, LIMIT)).collect();
        for (id, publisher) in (0..).zip(&mut after) {
            send(publisher, id, 0..10);
            flush(publisher, id);
        }
    }
}

/// It says nothing for longer than sessions are kept that nobody has, while others want its place.
#[test]
fn a_quiet_publisher_that_is_connected_keeps_its_session() {
    let site = site("quiet", "session_lease: 500ms, session_expiry: 1s");
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut quiet = connect(site.publisher(TOPIC));
    send(&mut quiet, 0, 0..10);
    flush(&mut quiet, 0);
    let session = quiet.session();
    let since = Instant::now();
    let mut others = Vec::new();
    while since.elapsed() < Duration::from_secs(3) {
        if others.len() == 15 {
            // Without a goodbye.
            others.clear();
        }
        if let Ok(other) = Publisher::connect(embarcadero::PublisherOptions {
            connect_timeout: Duration::from_millis(200),
            ..site.publisher(TOPIC)
        }) {
            others.push(other);
        }
    }
    send(&mut quiet, 0, 10..20);
    flush(&mut quiet, 0);
    assert_eq!((quiet.session(), quiet.stats().reconnects), (session, 0));
    quiet.close(LIMIT).unwrap();
    drop(others);
    cluster.stop();
}

/// Many times as many sessions as there are places, opened and abandoned: whoever comes then is served within seconds.
#[test]
fn sessions_opened_and_abandoned_shut_nobody_out_for_long() {
    let site = site("abandoned", "session_lease: 5s, session_expiry: 10m");
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    (0..16).for_each(|_| drop(connect(site.publisher(TOPIC))));
    let mut publisher = connect_in_time(&site, LIMIT);
    send(&mut publisher, 0, 0..10);
    flush(&mut publisher, 0);
    publisher.close(LIMIT).unwrap();
    cluster.stop();
}

/// Its broker is restarted while it says nothing, and others take its place: with nothing unacked it goes on in a session of its own.
#[test]
fn a_publisher_whose_session_is_gone_goes_on_in_another() {
    let site = site("gone", "session_lease: 500ms, session_expiry: 1s");
    let process = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut quiet = connect(site.publisher(TOPIC));
    send(&mut quiet, 0, 0..10);
    flush(&mut quiet, 0);
    let session = quiet.session();
    process.kill();
    let _process = site.process(&[]);
    let others: Vec<_> = (0..16).map(|_| connect_in_time(&site, LIMIT)).collect();
    drop(others);
    send(&mut quiet, 0, 10..20);
    flush(&mut quiet, 0);
    assert_ne!(quiet.session(), session);
    assert_eq!((quiet.stats().new_sessions, quiet.messages_acked()), (1, 20));
    quiet.close(LIMIT).unwrap();
}

/// Both have nothing to say. The one that is driven is heard; the one that is not is taken for gone, and comes back when it is.
#[test]
fn an_idle_publisher_that_is_polled_keeps_its_connection() {
    let site = site("idle", "session_lease: 5s }\nliveness: { client_silence: 1s");
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let [mut polled, mut left_alone] = [0, 1].map(|_| connect(site.publisher(TOPIC)));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        polled.poll(Duration::from_secs(1)).unwrap();
    }
    for (id, publisher) in (0..).zip([&mut polled, &mut left_alone]) {
        send(publisher, id, 0..10);
        flush(publisher, id);
        assert_eq!(publisher.stats().reconnects, u64::from(id), "publisher {id}");
    }
    cluster.stop();
}
