//! The follower, event by event.

use super::*;
use crate::client::fake::{delivery, welcome};
use crate::client::numbers::Order;
use crate::client::options::Start;
use crate::wire::frame::{Brokers, LogRecord, Refused, Welcome, with_body};
use crate::wire::{OrderLevel, Refusal};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(5);

fn greeting(address: &str, next: u64) -> Greeting {
    let welcome = Welcome { next, ..welcome(OrderLevel::Session) };
    let (log, more, brokers) = (None, Vec::new(), Vec::new());
    Greeting { address: address.to_owned(), welcome, log, more, brokers, heartbeat: Duration::ZERO }
}

struct Bench {
    follower: Follower,
    now: Instant,
    handed: usize,
}

impl Bench {
    /// Of two brokers; the first is up.
    fn new(first: &Greeting) -> Bench {
        let options = SubscriberOptions {
            brokers: vec!["b:0".to_owned(), "b:1".to_owned()],
            topic: "orders".to_owned(),
            start: Start::Order(Order(0)),
            buffer_bytes: 64 << 10,
            connect_timeout: PATIENCE,
            ..SubscriberOptions::default()
        };
        let now = Instant::now();
        Bench { follower: Follower::new(&options, Backoff::default(), first, now).unwrap(), now, handed: 0 }
    }

    fn lost(&mut self) {
        let error = ClientError::io(self.follower.address(), "reading from", &io::ErrorKind::ConnectionReset.into());
        self.follower.on_lost(&error, self.now);
    }

    /// The attempt that is due after a pause.
    fn redial(&mut self, pause: Duration) -> Result<Option<Call>, ClientError> {
        self.now += pause;
        self.follower.redial(self.now)
    }

    fn dialed(&mut self, result: Result<Greeting, ClientError>) -> Result<bool, ClientError> {
        self.follower.on_dialed(self.follower.generation(), &result, self.now)
    }

    fn comes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.follower.room()[..bytes.len()].copy_from_slice(bytes);
        self.follower.landed(bytes.len(), self.now);
        while self.follower.step(&mut |_| (), &mut self.handed, self.now)? {}
        Ok(())
    }
}

fn unreachable_io() -> ClientError {
    ClientError::io("b:1", "connecting to", &io::ErrorKind::ConnectionRefused.into())
}

fn refused(code: Refusal) -> Vec<u8> {
    with_body(&Refused { code: code as u16, ..Refused::default() }, b"words")
}

#[test]
fn brokers_take_turns_and_pauses_grow_until_one_brings_something() {
    let mut bench = Bench::new(&greeting("b:0", 0));
    bench.lost();
    assert!(bench.redial(49 * MS).unwrap().is_none());
    let call = bench.redial(MS).unwrap().unwrap();
    assert_eq!((call.address.as_str(), call.timeout), ("b:1", 1200 * MS), "twelve times the pause that comes next");
    assert!(bench.redial(MS).unwrap().is_none(), "one is in the air");
    assert!(!bench.dialed(Err(unreachable_io())).unwrap());
    assert!(bench.redial(99 * MS).unwrap().is_none());
    assert_eq!(bench.redial(MS).unwrap().unwrap().address, "b:0");
    assert!(bench.dialed(Ok(greeting("b:0", 0))).unwrap());
    bench.lost();
    assert!(bench.redial(199 * MS).unwrap().is_none(), "it brought nothing: the pauses go on");
    assert!(bench.redial(MS).unwrap().is_some() && bench.dialed(Ok(greeting("b:1", 0))).unwrap());
    bench.comes(&delivery(0, &[b"a"], |_, _| ())).unwrap();
    bench.lost();
    assert!(bench.redial(50 * MS).unwrap().is_some() && bench.handed == 1);
}

#[test]
fn connections_that_bring_nothing_end_with_what_became_of_each() {
    let mut bench = Bench::new(&greeting("b:0", 0));
    bench.lost();
    let error = loop {
        match bench.redial(100 * MS) {
            Ok(None) => {}
            Ok(Some(call)) => drop(bench.dialed(Ok(greeting(&call.address, 0))).map(|_| bench.lost())),
            Err(error) => break error,
        }
    };
    let ClientError::Unreachable { tried, .. } = error else { panic!("{error}") };
    let mut addresses: Vec<&str> = tried.0.iter().map(|attempt| attempt.broker.as_str()).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["b:0", "b:1"]);
    assert!(bench.redial(MS).is_ok(), "the time begins anew");
}

#[test]
fn an_attempt_that_was_left_is_void() {
    let mut bench = Bench::new(&greeting("b:0", 0));
    bench.lost();
    bench.redial(50 * MS).unwrap().unwrap();
    let generation = bench.follower.generation();
    bench.follower.go_on_at(0, 9, bench.now);
    let late = bench.follower.on_dialed(generation, &Ok(greeting("b:1", 0)), bench.now);
    assert!(!late.unwrap() && !bench.follower.is_up());
    bench.redial(MS).unwrap().unwrap();
    assert!(bench.dialed(Ok(greeting("b:0", 9))).unwrap() && bench.follower.topics()[0].next_order == 9);
}

#[test]
fn spoiled_bytes_and_brokers_that_drain_are_left_without_a_word_and_other_faults_are_told() {
    let spoiled = delivery(0, &[b"a"], |_, batch| batch[80] ^= 1);
    for (bytes, is_told) in [
        (spoiled, false),
        (refused(Refusal::Draining), false),
        (refused(Refusal::Trimmed), true),
        (delivery(1, &[b"a"], |_, _| ()), true),
    ] {
        let mut bench = Bench::new(&greeting("b:0", 0));
        assert_eq!(bench.comes(&bytes).is_err(), is_told);
        assert_eq!((bench.follower.is_up(), bench.handed, bench.follower.topics()[0].next_order), (false, 0, 0));
        assert_eq!(bench.redial(50 * MS).unwrap().unwrap().address, "b:1");
    }
}

#[test]
fn a_silent_broker_is_left_and_a_heartbeat_is_said_in_time() {
    let log = LogRecord { uuid: [1, 7], heartbeat_ms: 100, ..bytemuck::Zeroable::zeroed() };
    let mut bench = Bench::new(&Greeting { log: Some(log), heartbeat: 100 * MS, ..greeting("b:0", 0) });
    for look in 1..=4 {
        bench.now += PATIENCE;
        assert_eq!(bench.follower.on_silence(bench.now), look == 4);
    }
    assert!(!bench.follower.is_up() && bench.follower.unsaid(bench.now) == 0);
    let mut bench = Bench::new(&Greeting { log: Some(log), heartbeat: 100 * MS, ..greeting("b:0", 0) });
    assert_eq!(bench.follower.unsaid(bench.now), 0);
    bench.now += HEARTBEAT;
    assert_eq!(bench.follower.unsaid(bench.now), 64);
    bench.follower.said(64, 10, bench.now);
    assert_eq!((bench.follower.unsaid(bench.now), bench.follower.may_part()), (54, false));
    bench.follower.said(54, 54, bench.now);
    assert!(bench.follower.may_part());
}

#[test]
fn another_log_is_not_gone_on_with() {
    let log = LogRecord { uuid: [1, 7], ..bytemuck::Zeroable::zeroed() };
    let mut bench = Bench::new(&Greeting { log: Some(log), ..greeting("b:0", 0) });
    bench.lost();
    assert_eq!(bench.redial(50 * MS).unwrap().unwrap().hello.log, log.tag());
    let other = LogRecord { uuid: [1, 8], ..log };
    let error = bench.dialed(Ok(Greeting { log: Some(other), ..greeting("b:1", 0) })).unwrap_err();
    assert!(matches!(error, ClientError::OtherLog { .. }) && !bench.follower.is_up());
}

/// Those that it was given it always tries, and of those that it is told of the ones that are there now.
#[test]
fn it_goes_on_with_brokers_that_it_hears_of() {
    let mut bench = Bench::new(&greeting("b:0", 0));
    for list in ["5 c:5\n", "6 d:6\n"] {
        bench.comes(&with_body(&Brokers::default(), list.as_bytes())).unwrap();
    }
    bench.lost();
    let mut tried = Vec::new();
    for _ in 0..4 {
        tried.push(bench.redial(Duration::from_millis(900)).unwrap().expect("its time has come").address);
        bench.dialed(Err(ClientError::io("b:0", "connecting to", &io::ErrorKind::ConnectionRefused.into()))).unwrap();
    }
    assert_eq!(tried, ["b:1", "d:6", "b:0", "b:1"]);
    let damaged = with_body(&Brokers::default(), b"no list");
    let mut bench = Bench::new(&greeting("b:0", 0));
    assert!(bench.comes(&damaged).is_err());
}
