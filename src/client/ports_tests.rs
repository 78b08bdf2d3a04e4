//! The ports, event by event, and against a model of a cluster under random failures.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use super::*;
use crate::client::batch::{Buffer, Filler};
use crate::client::fake::{payloads, welcome};
use crate::client::handshake::refused;
use crate::client::heard::Heard;
use crate::testing::random::Random;
use crate::wire::frame::{ACK_FENCED, Ack, BatchHeader, LogRecord, NOTHING_LET_GO, Refused};
use crate::wire::{BatchDecoder, FrameKind, Progress};

const MS: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(10);

fn options(brokers: usize) -> PublisherOptions {
    PublisherOptions {
        brokers: (0..brokers).map(|broker| format!("b:{broker}")).collect(),
        topic: "orders".to_owned(),
        window_batches: 8,
        connect_timeout: LONGEST,
        ..PublisherOptions::default()
    }
}

fn greeting(port: usize, level: OrderLevel, epoch: u32, next: u64) -> Greeting {
    let welcome = crate::wire::frame::Welcome { session_epoch: epoch, next, ..welcome(level) };
    let (log, more, brokers) = (None, Vec::new(), Vec::new());
    Greeting { address: format!("b:{port}"), welcome, log, more, brokers, heartbeat: Duration::ZERO }
}

fn refusal(code: Refusal, detail: u64) -> ClientError {
    refused("b:0", &Refused { code: code as u16, detail, ..Refused::default() }, b"")
}

fn broken() -> ClientError {
    ClientError::io("b:0", "reading from", &io::ErrorKind::ConnectionReset.into())
}

/// A greeting of the broker `port` that lists these ones.
fn listing(port: usize, listed: &[(u16, &str)]) -> Greeting {
    let brokers = listed.iter().map(|(id, address)| (*id, (*address).to_owned())).collect();
    let welcome =
        crate::wire::frame::Welcome { broker: port as u16, ..greeting(port, OrderLevel::Session, 1, 0).welcome };
    Greeting { brokers, welcome, ..greeting(port, OrderLevel::Session, 1, 0) }
}

/// Told that one has come, it dials it; one that is gone it uses as long as it can, and then not again, unless there is nobody else.
#[test]
fn brokers_come_and_go() {
    let mut bench = Bench::greeted(1, listing(0, &[(0, "b:0")]));
    let told = |listed: &[(u16, &str)]| {
        Heard::Brokers(listed.iter().map(|(id, address)| (*id, (*address).to_owned())).collect())
    };
    bench.heard(0, &told(&[(0, "b:0"), (1, "b:1")]));
    bench.pass();
    assert_eq!(bench.dials[&1].1.address, "b:1");
    assert!(bench.dialed(1, Ok(listing(1, &[(0, "b:0"), (1, "b:1")]))));
    bench.heard(1, &told(&[(1, "b:1")]));
    assert!(bench.ports.is_up(0), "it is ended by the broker");
    bench.ports.on_lost(0, &broken(), bench.now);
    bench.obey();
    bench.after(Duration::from_secs(60));
    assert!(bench.dials.is_empty() && bench.ports.next_due(bench.now).is_none(), "nobody is there");
    // Its place is another's.
    bench.heard(1, &told(&[(0, "c:0"), (1, "b:1")]));
    bench.pass();
    assert_eq!(bench.dials.keys().collect::<Vec<_>>(), [&2]);
    assert!(bench.dialed(2, Ok(listing(0, &[(0, "c:0"), (1, "b:1")]))));
    for port in [1, 2] {
        bench.ports.on_lost(port, &broken(), bench.now);
        bench.obey();
    }
    bench.after(Duration::from_secs(60));
    assert_eq!(bench.dials.len(), 3, "all that were ever there, when nobody is up");
}

/// All that it was told of have gone, and nobody was left to tell it of others: it goes back to the address it was given.
#[test]
fn who_knows_nobody_goes_back_to_where_it_began() {
    let mut bench = Bench::greeted(2, listing(0, &[(0, "b:0"), (2, "c:2")]));
    let gone = Heard::Brokers(vec![(2, "c:2".to_owned())]);
    bench.pass();
    assert!(bench.dialed(1, Ok(listing(2, &[(0, "b:0"), (2, "c:2")]))));
    bench.heard(1, &gone);
    for port in [0, 1] {
        bench.ports.on_lost(port, &broken(), bench.now);
        bench.obey();
    }
    bench.after(Duration::from_secs(60));
    assert_eq!(bench.dials.keys().collect::<Vec<_>>(), [&0, &1, &2], "two that were there, and one that was given");
    assert_eq!(bench.dials[&2].1.address, "b:1");
    assert!(bench.dialed(2, Ok(listing(1, &[(1, "d:1")]))));
    assert_eq!(bench.ports.brokers()[2].broker, 1);
    assert_eq!(bench.ports.brokers()[3].address, "d:1", "and it hears of those that are there");
    assert_eq!(bench.ports.len(), 4);
}

/// Ports, one of each broker, and what they have ordered.
struct Bench {
    ports: Ports,
    filler: Filler,
    now: Instant,
    dials: BTreeMap<usize, (u64, Call)>,
    closed: Vec<usize>,
}

impl Bench {
    /// The first is up.
    fn new(level: OrderLevel, brokers: usize) -> Bench {
        Bench::greeted(brokers, greeting(0, level, 1, 0))
    }

    fn greeted(brokers: usize, first: Greeting) -> Bench {
        let now = Instant::now();
        let ports = Ports::new(&options(brokers), Patience::default(), &first, now).unwrap();
        let filler = Filler::new(ports.shape(), Buffer::new());
        let mut bench = Bench { ports, filler, now, dials: BTreeMap::new(), closed: Vec::new() };
        assert!(bench.ports.on_dialed(0, 0, &Ok(first), now));
        bench
    }

    fn all_up(level: OrderLevel, brokers: usize) -> Bench {
        let mut bench = Bench::new(level, brokers);
        bench.pass();
        (1..brokers).for_each(|port| assert!(bench.dialed(port, Ok(greeting(port, level, 1, 0)))));
        bench
    }

    fn pass(&mut self) {
        self.ports.begin_pass(self.now);
        self.obey();
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.pass();
    }

    /// Orders are possible ones, and the last word on a port.
    fn obey(&mut self) {
        while let Some(order) = self.ports.pop_order() {
            match order {
                Order::Dial { port, generation, call } => {
                    assert!(!self.ports.is_up(port));
                    assert!(self.dials.insert(port, (generation, *call)).is_none(), "two attempts at once");
                }
                Order::Close { port } => {
                    self.dials.remove(&port);
                    self.closed.push(port);
                }
            }
        }
        assert!(!self.ports.is_changing() || self.dials.len() <= 1, "several change the session at once");
    }

    fn dialed(&mut self, port: usize, result: Result<Greeting, ClientError>) -> bool {
        let (generation, _) = self.dials.remove(&port).expect("it was ordered");
        let is_taken = self.ports.on_dialed(port, generation, &result, self.now);
        self.obey();
        is_taken
    }

    fn heard(&mut self, port: usize, heard: &Heard) {
        self.ports.on_heard(port, heard, self.now);
        self.obey();
    }

    fn acked(&mut self, port: usize, change: impl FnOnce(&mut Ack)) {
        let mut ack = Ack { session: 7, session_epoch: 1, let_go_from: NOTHING_LET_GO, ..Ack::default() };
        change(&mut ack);
        self.heard(port, &Heard::Ack(ack));
    }

    /// Seals a batch of one message, which is this number.
    fn push(&mut self, number: u64) {
        self.filler.push(&number.to_le_bytes());
        let Ok(batch) = self.filler.seal(self.ports.pop_buffer().unwrap_or_default()) else { unreachable!() };
        self.ports.push(batch);
        self.ports.assign(self.now);
    }

    /// Writes up to so many bytes, and gives them.
    fn write(&mut self, port: usize, most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.ports.to_write(port, self.now, &mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(most);
        if !bytes.is_empty() {
            self.ports.wrote(port, bytes.len(), self.now);
        }
        bytes
    }

    fn pop_acked(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.ports.pop_acked()).map(|batch| batch.batch_seq.0).collect()
    }
}

#[test]
fn a_lost_connection_is_closed_and_dialed_again_after_longer_and_longer_pauses() {
    let mut bench = Bench::new(OrderLevel::Session, 1);
    bench.ports.on_lost(0, &broken(), bench.now);
    bench.obey();
    assert_eq!((bench.closed.clone(), bench.ports.is_up(0)), (vec![0], false));
    for pause in [50, 100, 200] {
        assert_eq!(bench.ports.next_due(bench.now), Some(bench.now + pause * MS));
        bench.after(pause * MS - MS);
        assert!(bench.dials.is_empty(), "before its time");
        bench.after(MS);
        assert_eq!((bench.dials[&0].1.address.as_str(), bench.dials[&0].1.hello.session), ("b:0", 7));
        assert!(!bench.dialed(0, Err(broken())));
    }
    bench.after(400 * MS);
    assert!(bench.dialed(0, Ok(greeting(0, OrderLevel::Session, 1, 0))));
    bench.ports.on_lost(0, &broken(), bench.now);
    assert_eq!(bench.ports.next_due(bench.now), Some(bench.now + 50 * MS), "it was up: the pauses begin anew");
    assert_eq!(bench.ports.stats().reconnects, 1);
}

#[test]
fn an_attempt_that_was_left_is_void_whatever_it_came_to() {
    let mut bench = Bench::new(OrderLevel::Session, 2);
    bench.pass();
    let (generation, _) = bench.dials[&1];
    bench.acked(0, |ack| ack.flags = ACK_FENCED);
    assert_eq!(bench.closed, [0, 1], "a connection and an attempt");
    bench.pass();
    assert!(bench.dialed(0, Ok(greeting(0, OrderLevel::Session, 2, 0))));
    bench.pass();
    // Even one that would do: another one is in the air in its place.
    let late = Ok(greeting(1, OrderLevel::Session, 2, 0));
    assert!(!bench.ports.on_dialed(1, generation, &late, bench.now) && !bench.ports.is_up(1));
    assert!(bench.dialed(1, Ok(greeting(1, OrderLevel::Session, 2, 0))) && bench.ports.stats().fences == 1);
}

#[test]
fn a_fence_leaves_every_connection_and_one_reopens_the_session_for_all() {
    let mut bench = Bench::all_up(OrderLevel::Session, 3);
    (0..3).for_each(|number| bench.push(number));
    let sent: Vec<Vec<u8>> = (0..3).map(|port| bench.write(port, usize::MAX)).collect();
    assert!(sent.iter().all(|bytes| !bytes.is_empty()));
    bench.acked(1, |ack| (ack.committed_next, ack.flags) = (1, ACK_FENCED));
    assert_eq!((bench.closed.len(), bench.pop_acked()), (3, vec![0]));
    bench.pass();
    let (port, (_, call)) = bench.dials.first_key_value().unwrap();
    assert_eq!((bench.dials.len(), *port, call.hello.session_epoch), (1, 0, 2));
    assert_eq!(call.timeout, REOPEN_MAX, "all wait for it");
    assert!(!bench.dialed(0, Err(broken())));
    bench.pass();
    assert!(bench.dialed(1, Ok(greeting(1, OrderLevel::Session, 2, 2))), "another one is asked");
    assert_eq!(bench.pop_acked(), [1], "the frontier of the welcome counts");
    bench.ports.assign(bench.now);
    let header: BatchHeader = bytemuck::pod_read_unaligned(&bench.write(1, usize::MAX)[..64]);
    assert_eq!((header.session_epoch, header.batch_seq), (2, 2));
    bench.pass();
    assert_eq!(bench.dials.keys().collect::<Vec<_>>(), [&2], "the first one's pause is not over");
}

#[test]
fn a_reopening_whose_answer_was_lost_is_taken_up_in_the_epoch_that_is_current() {
    let mut bench = Bench::new(OrderLevel::Session, 1);
    bench.acked(0, |ack| ack.flags = ACK_FENCED);
    bench.pass();
    assert!(!bench.dialed(0, Err(refusal(Refusal::SessionEpoch, 2))), "epoch 2 was opened, and nobody told us");
    bench.after(LONGEST);
    assert_eq!(bench.dials[&0].1.hello.session_epoch, 2);
    assert!(!bench.dialed(0, Err(refusal(Refusal::SessionEpoch, 5))), "and fenced, and so on");
    bench.after(LONGEST);
    assert_eq!(bench.dials[&0].1.hello.session_epoch, 5);
    assert!(bench.dialed(0, Ok(greeting(0, OrderLevel::Session, 5, 0))));
    assert_eq!((bench.ports.window().identity(0).epoch, bench.ports.is_changing()), (5, false));
}

#[test]
fn an_epoch_that_is_refused_while_it_is_ours_is_over() {
    let mut bench = Bench::all_up(OrderLevel::Session, 2);
    bench.ports.on_lost(1, &broken(), bench.now);
    bench.after(LONGEST);
    assert!(!bench.dialed(1, Err(refusal(Refusal::SessionEpoch, 0))), "that broker has not read so far");
    assert!(bench.ports.is_up(0));
    bench.after(LONGEST);
    assert!(!bench.dialed(1, Err(refusal(Refusal::SessionEpoch, 1))));
    assert!(!bench.ports.is_up(0) && bench.ports.is_changing());
}

#[test]
fn a_welcome_that_is_not_what_was_asked_for_is_not_taken() {
    let wrong: [fn(&mut crate::wire::frame::Welcome); 6] = [
        |welcome| welcome.session = 8,
        |welcome| welcome.session_epoch = 2,
        |welcome| welcome.topic = 5,
        |welcome| welcome.order_level = 4,
        |welcome| welcome.ack_level = 0,
        |welcome| welcome.next = 1,
    ];
    for change in wrong {
        let mut bench = Bench::new(OrderLevel::Session, 2);
        bench.pass();
        let mut greeting = greeting(1, OrderLevel::Session, 1, 0);
        change(&mut greeting.welcome);
        assert!(!bench.dialed(1, Ok(greeting.clone())), "{greeting:?}");
        assert!(bench.ports.is_up(0) && !bench.ports.is_up(1) && bench.ports.failed().is_none());
        assert!(bench.ports.unreachable().to_string().contains("contradicts itself"));
    }
}

#[test]
fn refusals_for_good_end_the_publisher_and_others_do_not() {
    for (code, is_end) in [(Refusal::TopicDeleted, true), (Refusal::Protocol, true), (Refusal::Draining, false)] {
        let mut bench = Bench::all_up(OrderLevel::Session, 2);
        bench.heard(1, &Heard::Refused(Refused { code: code as u16, ..Refused::default() }, Vec::new()));
        assert_eq!((bench.ports.failed().is_some(), bench.ports.is_up(1)), (is_end, false), "{code:?}");
        let mut bench = Bench::all_up(OrderLevel::Session, 1);
        bench.acked(0, |ack| ack.committed_next = 1);
        assert!(!bench.ports.is_up(0) && bench.ports.failed().is_none(), "what was never sent is acked");
    }
    let mut bench = Bench::all_up(OrderLevel::Connection, 2);
    bench.acked(1, |ack| ack.flags = ACK_FENCED);
    assert!(bench.ports.is_up(0) && !bench.ports.is_up(1), "below level 5 there is no fence");
}

#[test]
fn a_session_that_is_gone_is_replaced_only_if_nothing_is_in_doubt() {
    for (is_sent, is_gone) in [(false, false), (true, true)] {
        let mut bench = Bench::all_up(OrderLevel::Session, 2);
        bench.push(0);
        if is_sent {
            (0..2).for_each(|port| drop(bench.write(port, usize::MAX)));
        }
        let unknown = Refused { code: Refusal::UnknownSession as u16, ..Refused::default() };
        bench.heard(0, &Heard::Refused(unknown, Vec::new()));
        assert_eq!(matches!(bench.ports.failed(), Some(ClientError::SessionGone { first_message: 0, .. })), is_gone);
        if is_gone {
            continue;
        }
        assert!(!bench.ports.is_up(1) && bench.ports.is_changing());
        bench.pass();
        assert_eq!((bench.dials.len(), bench.dials[&0].1.hello.session), (1, 0));
        let mut other = greeting(0, OrderLevel::Session, 1, 0);
        other.welcome.session = 8;
        assert!(bench.dialed(0, Ok(other)) && bench.ports.stats().new_sessions == 1);
        bench.ports.assign(bench.now);
        let header: BatchHeader = bytemuck::pod_read_unaligned(&bench.write(0, usize::MAX)[..64]);
        assert_eq!((header.session, header.batch_seq), (8, 0));
    }
}

#[test]
fn a_session_that_is_denied_is_gone_only_after_a_while_and_never_while_another_has_it() {
    let mut bench = Bench::all_up(OrderLevel::Session, 2);
    bench.ports.on_lost(1, &broken(), bench.now);
    bench.after(LONGEST);
    assert!(!bench.dialed(1, Err(refusal(Refusal::UnknownSession, 0))));
    bench.after(LONGEST);
    assert!(!bench.dialed(1, Err(refusal(Refusal::UnknownSession, 0))) && !bench.ports.is_changing());
    bench.ports.on_lost(0, &broken(), bench.now);
    bench.after(DENIED_MIN);
    assert!(!bench.dialed(0, Err(refusal(Refusal::UnknownSession, 0))) && !bench.ports.is_changing());
    bench.after(DENIED_MIN);
    assert!(!bench.dialed(0, Err(refusal(Refusal::UnknownSession, 0))) && bench.ports.is_changing());
}

/// A greeting of a broker that is heard every 100 ms, and hears heartbeats.
fn lively() -> Greeting {
    let log = LogRecord { uuid: [1, 7], heartbeat_ms: 100, ..bytemuck::Zeroable::zeroed() };
    Greeting { log: Some(log), heartbeat: 100 * MS, ..greeting(0, OrderLevel::Session, 1, 0) }
}

#[test]
fn where_nothing_is_written_a_heartbeat_is_and_never_inside_a_batch() {
    let mut bench = Bench::greeted(1, lively());
    bench.push(0);
    let whole = bench.write(0, 100).len();
    assert_eq!((whole, bench.ports.rest_of_frame(0).is_empty()), (100, false), "a goodbye would be in the batch");
    bench.now += LONGEST;
    bench.ports.on_look(0, true, bench.now);
    let rest = bench.ports.rest_of_frame(0).to_vec();
    assert_eq!(bench.write(0, usize::MAX), rest, "nothing but the rest of the batch");
    assert!(bench.write(0, usize::MAX).is_empty() && bench.ports.rest_of_frame(0).is_empty());
    bench.now += LONGEST;
    bench.push(1);
    let begun = bench.write(0, 10);
    let rest = bench.ports.rest_of_frame(0).to_vec();
    assert_eq!([begun, rest.clone()].concat(), heartbeat());
    assert_eq!(bench.write(0, usize::MAX), rest, "the batch waits for the rest of the heartbeat");
    let header = *bench.write(0, usize::MAX).first_chunk().unwrap();
    assert_eq!(crate::wire::frame::check(&header, BATCH_BYTES_MAX), Ok(FrameKind::Batch));
}

#[test]
fn a_silent_broker_loses_what_it_had_and_one_that_is_heard_does_not() {
    let mut bench = Bench::greeted(1, lively());
    for _ in 0..20 {
        bench.after(100 * MS);
        assert!(!bench.ports.on_look(0, true, bench.now));
    }
    for look in 1..=4 {
        bench.after(LONGEST);
        assert_eq!(bench.ports.on_look(0, false, bench.now), look == 4, "each look adds one heartbeat at most");
    }
    bench.obey();
    assert_eq!((bench.ports.is_up(0), bench.closed.len()), (false, 1));
}

/// The brokers of one session, as far as a publisher sees them.
struct Cluster {
    epoch: u32,
    is_fenced: bool,
    /// By number: message of each batch that is held back.
    held: BTreeMap<u64, u64>,
    /// Messages in the order of the log.
    log: Vec<u64>,
    /// By port: epoch, and bytes that are not decoded yet.
    connections: BTreeMap<usize, (u32, Vec<u8>)>,
}

impl Cluster {
    fn answer(&mut self, port: usize, call: &Call) -> Result<Greeting, ClientError> {
        let asked = call.hello.session_epoch;
        if asked > self.epoch {
            (self.epoch, self.is_fenced) = (asked, false);
            self.held.clear();
        } else if asked < self.epoch || self.is_fenced {
            return Err(refusal(Refusal::SessionEpoch, self.epoch.into()));
        }
        Ok(greeting(port, OrderLevel::Session, self.epoch, self.log.len() as u64))
    }

    fn read(&mut self, port: usize, bytes: &[u8]) {
        let Some((epoch, inbox)) = self.connections.get_mut(&port) else { return };
        inbox.extend(bytes);
        while let Ok(Progress::Complete(header)) = BatchDecoder::new(BATCH_BYTES_MAX).advance(inbox) {
            let message = u64::from_le_bytes(payloads(inbox)[0][..].try_into().unwrap());
            inbox.drain(..header.frame_bytes() as usize);
            assert_eq!(header.session_epoch, *epoch, "of the connection's epoch");
            if *epoch == self.epoch && !self.is_fenced && header.batch_seq >= self.log.len() as u64 {
                self.held.insert(header.batch_seq, message);
            }
        }
        while let Some(message) = self.held.remove(&(self.log.len() as u64)) {
            self.log.push(message);
        }
    }

    fn ack(&self, port: usize) -> Option<Ack> {
        let (epoch, _) = self.connections.get(&port)?;
        let is_over = *epoch < self.epoch || self.is_fenced;
        Some(Ack {
            session: 7,
            session_epoch: *epoch,
            committed_next: self.log.len() as u64,
            let_go_from: NOTHING_LET_GO,
            flags: if is_over { ACK_FENCED } else { 0 },
            ..Ack::default()
        })
    }
}

#[test]
fn random_failures_lose_and_repeat_nothing() {
    for seed in 1..=150 {
        let mut random = Random::new(seed);
        let mut bench = Bench::all_up(OrderLevel::Session, 3);
        let connections = (0..3).map(|port| (port, (1, Vec::new()))).collect();
        let mut cluster = Cluster { epoch: 1, is_fenced: false, held: BTreeMap::new(), log: Vec::new(), connections };
        let (mut pushed, mut acked) = (0, 0);
        for step in 0.. {
            let is_calm = step >= 400;
            bench.after(MS * random.below(if is_calm { 200 } else { 30 }) as u32);
            let port = random.below(3) as usize;
            let bad = if is_calm { 10 } else { random.below(10) };
            if let Some((_, call)) = bench.dials.get(&port).cloned() {
                // Now and then the answer is lost, and what was asked for is done all the same.
                let result = if bad == 0 { Err(broken()) } else { cluster.answer(port, &call) };
                let result = if bad == 1 { Err(broken()) } else { result };
                if let Ok(Greeting { welcome, .. }) = &result {
                    cluster.connections.insert(port, (welcome.session_epoch, Vec::new()));
                }
                bench.dialed(port, result);
            } else if bench.ports.is_up(port) {
                match bad {
                    0 => bench.ports.on_lost(port, &broken(), bench.now),
                    1 => cluster.is_fenced |= random.chance(1, 4),
                    2 | 3 | 10 => cluster.ack(port).iter().for_each(|ack| bench.heard(port, &Heard::Ack(*ack))),
                    _ => {}
                }
                bench.obey();
            }
            bench.closed.drain(..).for_each(|port| drop(cluster.connections.remove(&port)));
            while !is_calm && !bench.ports.window().is_full() && random.chance(1, 3) {
                bench.push(pushed);
                pushed += 1;
            }
            bench.ports.assign(bench.now);
            let written = bench.write(port, 1 + random.below(400) as usize);
            cluster.read(port, &written);
            for number in bench.pop_acked() {
                assert_eq!(number, acked, "seed {seed}: each is acked once, in order");
                assert!(number < cluster.log.len() as u64, "seed {seed}: acked and not committed");
                acked += 1;
            }
            assert_eq!(bench.ports.window().unacked() as u64, pushed - acked);
            assert!(bench.ports.failed().is_none(), "seed {seed}: {:?}", bench.ports.failed());
            if is_calm && acked == pushed {
                break;
            }
            assert!(step < 4000, "seed {seed}: {} of {pushed} acked, {}", acked, bench.ports.unreachable());
        }
        assert_eq!(cluster.log, (0..pushed).collect::<Vec<_>>(), "seed {seed}");
        assert!(pushed > 20 && bench.ports.stats().reconnects > 0, "seed {seed}: {:?}", bench.ports.stats());
    }
}
