//! Publishers that are killed in mid-batch, and that fall silent behind a gap: what was whole is ordered, half a batch was never
//! there, nobody else notices, and their sessions go on or make room.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use embarcadero::Start;
use embarcadero::wire::frame::{ACK_FENCED, Ack, Goodbye, Hello, Welcome, seal, with_body};
use embarcadero::wire::{OrderLevel, Receipts, Refusal};

use crate::harness::{LIMIT, Setup, Site, wait_for};
use crate::load::{Load, ROOMY, TOPIC};
use crate::raw::{Raw, batch, join_hello};
use crate::traffic::{Fifo, Watcher, connect, message, publish, send};

/// The publisher that is killed, as its messages name it.
const VICTIM: u32 = 7;
/// Whole batches it sends before half a one.
const WHOLE: u64 = 10;
const MESSAGES: u64 = 3;
/// Between two bursts of the load, so that the pool keeps everything.
const PAUSE: Duration = Duration::from_millis(1);
/// Marks the lines of a publisher process among those of the test harness.
const MARK: &str = "victim: ";

/// Batch `seq` of the victim.
fn victims_batch(welcome: &Welcome, seq: u64) -> Vec<u8> {
    let numbers = seq * MESSAGES..(seq + 1) * MESSAGES;
    batch(welcome, seq, &numbers.map(|number| message(VICTIM, number, 700)).collect::<Vec<_>>())
}

fn join(address: &str, hello: &Hello) -> Raw {
    let mut raw = Raw::connect(address);
    raw.send(&with_body(hello, TOPIC.as_bytes()));
    raw
}

/// This program again, as a publisher in a process of its own.
struct PublisherProcess {
    child: Child,
    lines: Receiver<String>,
}

impl PublisherProcess {
    fn start(what: &str, site: &Site) -> PublisherProcess {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--ignored", "--exact", "publishers::a_publisher_process", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        writeln!(child.stdin.as_mut().expect("piped"), "{what} {}", site.addresses().join(" ")).expect("it reads");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let marked = |line: std::io::Result<String>| line.ok()?.split_once(MARK).map(|(_, rest)| rest.to_owned());
            output.lines().filter_map(marked).try_for_each(|line| sender.send(line))
        });
        PublisherProcess { child, lines }
    }

    /// The next line it says.
    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("waiting for a publisher process: {error}"))
    }

    /// The hello that joins its session, once half a batch is on its way.
    fn half_way(&self) -> Hello {
        let line = self.line();
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let [session, token, session_epoch] = words[..] else { panic!("it said {line:?}") };
        let welcome = Welcome { session, token, session_epoch: session_epoch as u32, ..Welcome::default() };
        join_hello(&welcome)
    }

    /// SIGKILL, and waits until the kernel has closed its sockets.
    fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

impl Drop for PublisherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what [`PublisherProcess`] runs, told what to do by its standard input.
#[test]
#[ignore = "started by the tests of this file, and killed by them"]
fn a_publisher_process() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    match words.split_first() {
        Some((what, brokers)) if what == "half" => publish_half_a_batch(brokers),
        Some((_, brokers)) => publish_for_ever(brokers),
        None => eprintln!("nobody said what to do"),
    }
}

fn say(what: &str) {
    println!("\n{MARK}{what}");
}

/// Whole batches over two brokers, then the most of another one.
fn publish_half_a_batch(brokers: &[String]) {
    let (mut first, welcome) = Raw::publisher(&brokers[0], TOPIC);
    let mut second = join(&brokers[1], &join_hello(&welcome));
    second.expect::<Welcome>();
    for seq in 0..WHOLE {
        let raw = if seq % 2 == 0 { &mut first } else { &mut second };
        raw.send(&victims_batch(&welcome, seq));
    }
    first.wait_acked(WHOLE);
    let next = victims_batch(&welcome, WHOLE);
    first.send(&next[..next.len() - 100]);
    first.wait_taken();
    say(&format!("{} {} {}", welcome.session, welcome.token, welcome.session_epoch));
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// As fast as it can, over all brokers, saying how much is acked.
fn publish_for_ever(brokers: &[String]) {
    let options = embarcadero::PublisherOptions {
        brokers: brokers.to_vec(),
        topic: TOPIC.to_owned(),
        batch_bytes: 4096,
        ..Default::default()
    };
    let mut publisher = connect(options);
    for number in 0.. {
        send(&mut publisher, VICTIM, number..number + 1);
        if number % 100 == 0 {
            say(&publisher.messages_acked().to_string());
        }
    }
}

/// Half a batch is none; the session waits where it was for whoever comes back with its token.
#[test]
fn killed_in_mid_batch_and_resumed_by_another_process() {
    let site = Site::new("publisher-half", &ROOMY);
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let other = Load::start_at(site.publisher(TOPIC), 0, PAUSE);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 3, Start::Earliest), Fifo::Publisher);
    let victim = PublisherProcess::start("half", &site);
    let hello = victim.half_way();
    other.wait_for_more(200, "before a publisher is killed");
    victim.kill();
    other.wait_for_more(200, "after a publisher was killed");
    watcher.read_until("what was whole", |seen| seen.complete(VICTIM) == WHOLE * MESSAGES);
    let (mut raw, welcome) = wait_for("a broker that has followed to the frontier", || {
        let mut raw = join(&site.address(2), &hello);
        let welcome: Welcome = raw.expect();
        assert!(welcome.next <= WHOLE, "half a batch was taken: {welcome:?}");
        (welcome.next == WHOLE).then_some((raw, welcome))
    });
    assert_eq!((welcome.session, welcome.session_epoch), (hello.session, 1), "the same session goes on");
    (WHOLE..WHOLE + 2).for_each(|seq| raw.send(&victims_batch(&welcome, seq)));
    raw.wait_acked(WHOLE + 2);
    raw.send(&seal(&Goodbye::default()));
    raw.expect_closed();
    let (sent, publisher) = other.finish();
    watcher.read_exactly(sent + (WHOLE + 2) * MESSAGES);
    assert_eq!(watcher.seen.complete(VICTIM), (WHOLE + 2) * MESSAGES);
    assert_eq!(watcher.seen.sessions(), 2);
    assert_eq!((publisher.stats().fences, publisher.stats().reconnects), (0, 0), "the other noticed");
    publisher.close(LIMIT).unwrap();
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert_eq!(counters.received("partial_batches"), 1);
    assert_eq!(counters.received("protocol_errors"), 0);
}

/// The client library with a full window over four brokers.
#[test]
fn killed_under_load() {
    let site = Site::new("publisher-load", &ROOMY);
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    let victim = PublisherProcess::start("load", &site);
    let acked = loop {
        let acked: u64 = victim.line().parse().expect("a number");
        if acked > 2000 {
            break acked;
        }
    };
    victim.kill();
    watcher.read_until("what was acked", |seen| seen.complete(VICTIM) >= acked);
    // What was behind half a batch is parked, and belongs to a session that nobody else waits for.
    publish(site.publisher(TOPIC), 1, 500);
    watcher.read_until("what another published after that", |seen| seen.complete(1) == 500);
    assert_eq!(watcher.seen.sessions(), 2);
    cluster.stop();
    site.counters().check_conserved();
}

/// Places are few; a session without its publisher makes room for another after its expiry, one that sends never does.
#[test]
fn the_place_of_a_killed_publisher_is_given_to_another() {
    let geometry =
        "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 4096, segments: 16, sessions_max: 2, topics_max: 16";
    let sequencer = "session_lease: 500ms, session_expiry: 1s";
    let site = Site::new("publisher-place", &Setup { geometry, sequencer, ..ROOMY });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let active = Load::start_at(site.publisher(TOPIC), 0, PAUSE);
    active.wait_for_more(200, "before a publisher is killed");
    let victim = PublisherProcess::start("half", &site);
    let hello = victim.half_way();
    victim.kill();
    publish(site.publisher(TOPIC), 1, 100);
    join(&site.address(0), &hello).expect_refused(Refusal::UnknownSession);
    active.wait_for_more(200, "after a place was given to another");
    let (sent, publisher) = active.finish();
    assert_eq!((publisher.stats().fences, publisher.stats().reconnects), (0, 0), "the active one noticed");
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 1, Start::Earliest), Fifo::Publisher);
    watcher.read_exactly(sent + WHOLE * MESSAGES + 100);
    assert_eq!(watcher.seen.sessions(), 3);
    publisher.close(LIMIT).unwrap();
    cluster.stop();
}

/// Sends 0 and then 2, and nothing more: fenced after the session lease, alone. Its next epoch goes on at the frontier.
#[test]
fn silent_behind_a_gap() {
    let lease = Duration::from_millis(400);
    let site = Site::new("publisher-gap", &Setup { sequencer: "session_lease: 400ms", ..ROOMY });
    let cluster = site.start();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let other = Load::start_at(site.publisher(TOPIC), 0, PAUSE);
    let mut watcher = Watcher::connect(site.subscriber(TOPIC, 3, Start::Earliest), Fifo::Publisher);
    let (mut raw, welcome) = Raw::publisher(&site.address(1), TOPIC);
    raw.send(&victims_batch(&welcome, 0));
    raw.wait_acked(1);
    let before = std::time::Instant::now();
    raw.send(&victims_batch(&welcome, 2));
    other.wait_for_more(500, "while another session has a gap");
    let fenced = wait_for("the fence", || Some(raw.expect::<Ack>()).filter(|ack| ack.flags & ACK_FENCED != 0));
    assert!(before.elapsed() >= lease, "fenced before its lease had passed");
    assert_eq!((fenced.session_epoch, fenced.committed_next), (1, 1));
    // Too late: that epoch is over, whatever closes the gap now.
    raw.send(&victims_batch(&welcome, 1));
    raw.wait_taken();
    let reopen = Hello { session_epoch: 2, ..join_hello(&welcome) };
    let mut raw = join(&site.address(2), &reopen);
    let reopened: Welcome = raw.expect();
    assert_eq!((reopened.session, reopened.session_epoch, reopened.next), (welcome.session, 2, 1));
    (1..4).for_each(|seq| raw.send(&victims_batch(&reopened, seq)));
    raw.wait_acked(4);
    let (sent, publisher) = other.finish();
    assert_eq!((publisher.stats().fences, publisher.stats().resent_batches), (0, 0), "the other noticed");
    watcher.read_exactly(sent + 4 * MESSAGES);
    assert_eq!(watcher.seen.sessions(), 2);
    publisher.close(LIMIT).unwrap();
    cluster.stop();
    let counters = site.counters();
    counters.check_conserved();
    assert_eq!((counters.sequencer["fences"], counters.sequencer["fenced_batches"]), (1, 2), "{counters:#?}");
}
