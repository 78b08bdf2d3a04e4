//! Six causes of slowness, made one by one: whoever looks at the pool is told the right one, by the words that `embarctl top`, the status page and
//! `/status.json` show alike, and by a metric that `/metrics` has.
//!
//! The machine that runs this is busy: that a thread had no core for a while is then said too, and is true. It does not count against the cause
//! that was made here.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use embarcadero::monitor::diagnosis::{Finding, diagnose};
use embarcadero::monitor::prometheus::{Scope, render};
use embarcadero::monitor::snapshot::Snapshot;
use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{Publisher, PublisherOptions, Start, Subscriber};

use crate::harness::{Setup, Signal, Site, wait_for};
use crate::load::{Load, ROOMY, TOPIC};
use crate::raw::{Raw, batch};

/// Time between two looks: a broker that rests beats once a second, and roles report as often.
const BETWEEN: Duration = Duration::from_secs(2);

/// What a busy machine does to everybody.
const MACHINE: [&str; 2] = ["core taken away", "long pass"];

/// Looks until `cause` is the first finding but for what the machine does; gives it.
fn found(site: &Site, cause: &str) -> Finding {
    let pool = site.pool_now();
    let mut before = Snapshot::take(&pool, false);
    let mut last = Vec::new();
    let what = format!("{cause} to be found");
    let (finding, now) = wait_for(&what, || {
        std::thread::sleep(BETWEEN);
        let now = Snapshot::take(&pool, false);
        last = diagnose(&before, &now);
        before = now.clone();
        let first = last.iter().find(|finding| !MACHINE.contains(&finding.cause) || finding.cause == cause)?;
        println!("{}: {}", first.cause, first.words);
        (first.cause == cause).then(|| (first.clone(), now))
    });
    let metrics = render(&now, None, &Scope::default());
    assert!(metrics.contains(&format!("\n# TYPE {} ", finding.metric)), "{} is no metric", finding.metric);
    finding
}

#[test]
fn a_reader_that_is_too_slow() {
    let site = Site::new("puzzle-reader", &Setup { brokers: 1, ..Setup::default() });
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut sleeps = Subscriber::connect(site.subscriber(TOPIC, 0, Start::Earliest)).unwrap();
    // It has begun, and takes nothing more.
    sleeps.poll(Duration::from_millis(100), |_| ()).unwrap();
    let load = Load::start_at(site.publisher(TOPIC), 0, Duration::ZERO);
    let finding = found(&site, "reader too slow");
    assert!(finding.words.contains(&format!("topic {TOPIC:?}")) && finding.words.contains("127."), "{finding:?}");
    let pool = site.pool_now();
    let behind = || Snapshot::take(&pool, false).topics[0].behind().filter(|messages| *messages > 0);
    wait_for("the topic's reader to be behind", behind);
    drop((sleeps, load));
}

#[test]
fn a_ring_that_is_too_small() {
    let site = Site::new("puzzle-ring", &Setup { brokers: 1, geometry: SMALL_RING, ..ROOMY });
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), TOPIC);
    let feeder = std::thread::spawn(move || {
        // Batches of one small message, many at a time: more than the ring takes between two passes of the sequencer.
        let mut sent = 0;
        for _ in 0..20_000 {
            let many: Vec<u8> = (sent..sent + 128).flat_map(|seq| batch(&welcome, seq, &[vec![7; 8]])).collect();
            sent += 128;
            if !raw.try_send(&many) {
                return;
            }
        }
    });
    let finding = found(&site, "ring full");
    assert!(finding.words.contains("64 slots"), "{finding:?}");
    drop(_cluster);
    feeder.join().unwrap();
}

const SMALL_RING: &str =
    "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 8, sessions_max: 64, topics_max: 16";

/// Somebody who uses a core as long as it is there.
struct Busy(Vec<Child>);

impl Busy {
    fn on(core: usize, many: usize) -> Busy {
        let one = |_| {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().expect("taskset is part of util-linux")
        };
        Busy((0..many).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_sequencers_core_is_taken_away() {
    let mut site = Site::new("puzzle-core", &Setup { brokers: 1, ..ROOMY });
    let text = std::fs::read_to_string(&site.config_file).unwrap();
    let core = core_affinity::get_core_ids().unwrap().last().unwrap().id;
    let text = text.replace("mode: shared, idle: park", &format!("mode: shared, idle: spin, cores: [{core}]"));
    std::fs::write(&site.config_file, text).unwrap();
    site.brokers = 1;
    let _process = site.process(&[]);
    let _busy = Busy::on(core, 3);
    let finding = found(&site, "core taken away");
    assert!(finding.words.contains(&format!("others use core {core}")), "{finding:?}");
}

#[test]
fn one_broker_stands_still() {
    let site = Site::new("puzzle-stopped", &Setup { brokers: 2, ..ROOMY });
    let _first = site.process(&["--brokers", "0"]);
    let second = site.process(&["--brokers", "1"]);
    second.signal(Signal::STOP);
    let finding = found(&site, "broker stands still");
    assert!(finding.words.starts_with("broker 1 stands still: process "), "{finding:?}");
    second.signal(Signal::CONT);
}

#[test]
fn a_gap_in_a_session() {
    let site = Site::new("puzzle-gap", &Setup { brokers: 1, sequencer: "session_lease: 1m", ..ROOMY });
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let (mut raw, welcome) = Raw::publisher(&site.address(0), TOPIC);
    raw.send(&batch(&welcome, 0, &[vec![1; 8]]));
    raw.send(&batch(&welcome, 2, &[vec![1; 8]]));
    let finding = found(&site, "gap in a session");
    let expected = format!("session {:#x} waits for its batch 1 since ", welcome.session);
    assert!(finding.words.starts_with(&expected), "{finding:?}");
}

/// A load generator behind its plan, or a client far away, is not to be seen inside: that nothing waits inside is what is said, and how quick it was.
#[test]
fn what_is_slow_is_outside() {
    let site = Site::new("puzzle-outside", &Setup { brokers: 1, ..ROOMY });
    let _cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let options = PublisherOptions { linger: Duration::ZERO, ..site.publisher(TOPIC) };
    let load = Load::start_at(options, 0, Duration::from_millis(5));
    let finding = found(&site, "outside");
    assert!(finding.words.contains("from landed to acked 99 % take less than"), "{finding:?}");
    let (_, publisher): (u64, Publisher) = load.finish();
    drop(publisher);
}
