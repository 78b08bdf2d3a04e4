//! Brokers that come and go while the log is in use, each process with a configuration of its own: places in the pool, and what clients hear of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embarcadero::log::estate::{LostHost, held_extents};
use embarcadero::log::{Homes, View};
use embarcadero::pool::{Mapped, Software};
use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{Start, SubscriberOptions};

use crate::harness::{LIMIT, Process, Setup, Signal, Site, Task, run_embarlet, wait_for};
use crate::load::{Load, ROOMY, TOPIC};
use crate::traffic::{Fifo, Watcher};

/// Two hosts with places for two brokers each, and a configuration that lists one.
const GEOMETRY: &str = "brokers_per_host: 2, extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 16, sessions_max: 64, \
                        topics_max: 16";

fn site(name: &str) -> Site {
    Site::new(
        name,
        &Setup { brokers: 1, hosts: 2, geometry: GEOMETRY, sequencer: "candidates: 4, session_lease: 20s", ..ROOMY },
    )
}

/// Another process's configuration: the same, but for its one broker.
fn file(site: &Site, port: u16, host: u32) -> PathBuf {
    let text = std::fs::read_to_string(&site.config_file).unwrap();
    let text = text.replace(":7300", &format!(":{port}")).replace("host: 0,", &format!("host: {host},"));
    let file = site.file(&format!("of-{port}.yaml"));
    std::fs::write(&file, text).unwrap();
    file
}

fn address(site: &Site, port: u16) -> String {
    site.address(0).replace(":7300", &format!(":{port}"))
}

fn join(site: &Site, port: u16, host: u32) -> Process {
    site.process(&["--config", file(site, port, host).to_str().unwrap()])
}

/// Ends it in good order.
fn leave(mut process: Process) {
    process.signal(Signal::TERM);
    let status = process.wait();
    assert!(status.success(), "{status:?}");
}

/// Publishers have come to a broker.
fn wait_for_publishers(site: &Site, broker: usize) {
    let come = || site.counters().ack[broker].get("welcomed").is_some_and(|count| *count > 0).then_some(());
    wait_for(&format!("a publisher to come to broker {broker}"), come);
}

/// One after the other, until nobody is left of those that were there: a publisher and a subscriber that were told of the first alone go on with the
/// others, and everything is there once, in order.
#[test]
fn brokers_are_replaced_under_load() {
    let site = site("members");
    let first = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let goal = Arc::new(AtomicU64::new(u64::MAX));
    let (until, options) = (goal.clone(), site.subscriber(TOPIC, 0, Start::Earliest));
    let watcher = Task::spawn("a subscriber all the time", move || {
        let mut watcher = Watcher::connect(options, Fifo::Publisher);
        watcher.read_until("all there is", |seen| seen.messages >= until.load(Ordering::Relaxed));
        watcher
    });
    let load = Load::start_at(site.publisher(TOPIC), 0, Duration::from_millis(1));
    load.wait_for_more(500, "with one broker");
    let second = join(&site, 7301, 0);
    wait_for_publishers(&site, 1);
    leave(first);
    load.wait_for_more(500, "when the first has left");
    // The first of the other host.
    let third = join(&site, 7302, 1);
    wait_for_publishers(&site, 2);
    leave(second);
    load.wait_for_more(500, "with a broker of another host alone");
    let (total, publisher) = load.finish();
    assert_eq!(publisher.stats().fences, 0);
    let seen: Vec<(u16, String)> =
        publisher.broker_progress().iter().map(|row| (row.broker, row.address.clone())).collect();
    assert_eq!(seen, [(0, 7300), (1, 7301), (2, 7302)].map(|(id, port)| (id, address(&site, port))));
    publisher.close(LIMIT).unwrap();
    goal.store(total, Ordering::Relaxed);
    let mut watcher = watcher.join();
    watcher.read_exactly(total);
    assert_eq!((watcher.seen.sessions(), watcher.seen.complete(0)), (1, total));
    let later = SubscriberOptions { brokers: vec![address(&site, 7302)], ..site.subscriber(TOPIC, 0, Start::Earliest) };
    let mut later = Watcher::connect(later, Fifo::Publisher);
    later.read_exactly(total);
    assert_eq!(later.seen.hash, watcher.seen.hash);
    drop(third);
}

/// Two brokers are killed and stay away. What the one had is given back by the other process of its host; of the one whose host is gone with it that is
/// not to be known, until an operator says so. Then it comes back, to the same place.
#[test]
fn what_the_dead_have_of_the_memory_is_given_back() {
    let site = site("members-dead");
    let first = site.process(&[]);
    let (second, third) = (join(&site, 7301, 0), join(&site, 7302, 1));
    second.wait_for_line("ready: brokers [1]");
    third.wait_for_line("ready: brokers [2]");
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let load = Load::start_at(site.publisher(TOPIC), 0, Duration::from_millis(1));
    (1..3).for_each(|broker| wait_for_publishers(&site, broker));
    load.wait_for_more(500, "with three brokers");
    let pool = site.pool_now();
    let homes = Homes::new(Homes::NOWHERE, pool.superblock().homes());
    let view = View::new(Mapped::<Software>::new(pool.mapping().clone()), pool.layout().clone(), homes);
    let g = view.layout.geometry;
    let held = |broker| {
        let of_lanes = (0..).zip(held_extents(&view)).filter(|(lane, _)| g.member_of_lane(*lane) == broker);
        of_lanes.map(|(_, held)| held).sum::<u32>()
    };
    assert!((0..3).all(|broker| held(broker) > 0) && held(3) == 0);
    second.kill();
    third.kill();
    first.wait_for_line("extents of members of this host that are gone go back");
    wait_for("the second's memory to be given back", || (held(1) == 0).then_some(()));
    load.wait_for_more(500, "with one broker");
    assert!(held(2) > 0, "nobody knows what has become of it");
    let lost = LostHost::watch(&view, 1);
    load.wait_for_more(100, "while a host is watched");
    assert_eq!(lost.who_lives(), None);
    let forgotten = lost.forget().unwrap();
    assert!(forgotten.extents > 0 && (forgotten.members, forgotten.left) == (1, 0), "{forgotten:?}");
    assert_eq!(held(2), 0);
    let third = join(&site, 7302, 1);
    third.wait_for_line("ready: brokers [2]");
    wait_for_publishers(&site, 2);
    load.wait_for_more(500, "when it is back");
    let (messages, publisher) = load.finish();
    assert_eq!(publisher.stats().fences, 0);
    publisher.close(LIMIT).unwrap();
    crate::load::read_all(&site, 0, messages);
}

/// A broker takes the place it had, wherever its file lists it; a host that is full says so.
#[test]
fn a_broker_comes_back_to_its_place_and_a_full_host_says_so() {
    let site = site("members-places");
    let first = site.process(&[]);
    let second = join(&site, 7301, 0);
    second.wait_for_line("ready: brokers [1]");
    let third = file(&site, 7302, 0);
    let refused = run_embarlet(&["--config", third.to_str().unwrap()]);
    assert_ne!(refused.code, Some(0));
    for part in [&*address(&site, 7302), "host 0", "all 2", "brokers_per_host"] {
        assert!(refused.stderr.contains(part), "{part} is not in {}", refused.stderr);
    }
    leave(first);
    leave(second);
    // The other one first.
    join(&site, 7301, 0).wait_for_line("ready: brokers [1]");
    join(&site, 7302, 0).wait_for_line("ready: brokers [0]");
}

/// With the one place for a sequencer that is the default, the process that came second takes it when the first one leaves, and again the other way.
#[test]
fn the_place_of_the_sequencer_is_handed_on() {
    let geometry = "brokers_per_host: 2, extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 16, sessions_max: 64, topics_max: 16";
    let site = Site::new("members-sequencer", &Setup { brokers: 1, geometry, ..ROOMY });
    let first = site.process(&[]);
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let load = Load::start_at(site.publisher(TOPIC), 0, Duration::from_millis(1));
    load.wait_for_more(500, "with one broker");
    let second = join(&site, 7301, 0);
    second.wait_for_line("this process waits for one");
    wait_for_publishers(&site, 1);
    leave(first);
    second.wait_for_line("sequence 0: active, epoch 2");
    load.wait_for_more(500, "with the second as the sequencer");
    let third = join(&site, 7300, 0);
    wait_for("the publisher to come back", || {
        (site.counters().ack[0].get("welcomed").copied() > Some(0)).then_some(())
    });
    leave(second);
    third.wait_for_line("sequence 0: active, epoch 3");
    load.wait_for_more(500, "with the first again");
    let (messages, publisher) = load.finish();
    assert_eq!(publisher.stats().fences, 0);
    publisher.close(LIMIT).unwrap();
    crate::load::read_all(&site, 0, messages);
}
