//! Clients that do what they should not, one of each kind, each on a thread of its own until it is told to stop. What one does
//! is bounded where its processor time would be what is measured: it is to hurt by what it asks of a broker.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use embarcadero::testing::random::Random;
use embarcadero::wire::frame::{self, Reply, Request, TopicRecord};
use embarcadero::wire::{AckLevel, Operation, OrderLevel};

use crate::raw::{Raw, batch, publisher_hello};

/// A pause after something that did not work, and between two of what cannot work any more.
const PAUSE: Duration = Duration::from_millis(50);
/// Sessions opened a second, until there are so many; more than a table of the usual size has. Then one now and then: the full
/// table is to hurt, not the processor time.
const SESSIONS_A_SECOND: u32 = 2000;
const SESSIONS_AT_ONCE: u64 = 4500;
/// Batches a second of the publisher that reads no acks.
const BATCHES_A_SECOND: u32 = 2000;
/// Batches behind a gap.
const BEHIND_A_GAP: u64 = 32;
/// Most connections it holds.
const CONNECTIONS_MAX: usize = 3000;
/// A receive buffer that is soon full.
const SMALL_BUFFER: usize = 4096;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Silent,
    HalfHello,
    Garbage,
    ReadsNothing,
    OneByte,
    Slow { bytes_a_second: u64, comes_back: bool },
    Sessions,
    Connections,
    NoAcks,
    Gap,
    Topics,
}

/// Every kind and its name.
pub const KINDS: [(&str, Kind); 13] = [
    ("silent", Kind::Silent),
    ("half_hello", Kind::HalfHello),
    ("garbage", Kind::Garbage),
    ("reads_nothing", Kind::ReadsNothing),
    ("one_byte", Kind::OneByte),
    ("slow_188k", Kind::Slow { bytes_a_second: 188 << 10, comes_back: false }),
    ("slow_80k", Kind::Slow { bytes_a_second: 80 << 10, comes_back: false }),
    ("slow_returns", Kind::Slow { bytes_a_second: 188 << 10, comes_back: true }),
    ("sessions", Kind::Sessions),
    ("connections", Kind::Connections),
    ("no_acks", Kind::NoAcks),
    ("gap", Kind::Gap),
    ("topics", Kind::Topics),
];

impl Kind {
    /// In words.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Silent => "connects and says nothing",
            Kind::HalfHello => "says half a hello",
            Kind::Garbage => "sends anything, as fast as it goes",
            Kind::ReadsNothing => "subscribes to the same topic and reads nothing",
            Kind::OneByte => "subscribes to the same topic, says one byte and reads nothing",
            Kind::Slow { comes_back: false, .. } => "subscribes to another topic and reads slowly",
            Kind::Slow { comes_back: true, .. } => "reads another topic slowly, and again when it is let go",
            Kind::Sessions => "opens sessions and leaves",
            Kind::Connections => "takes connections until refused",
            Kind::NoAcks => "publishes to another topic and reads no acks",
            Kind::Gap => "leaves a gap open in its session",
            Kind::Topics => "creates topics until refused",
        }
    }
}

/// One of them.
pub struct Enemy<'a> {
    pub kind: Kind,
    /// The broker.
    pub to: SocketAddr,
    /// The topic that others use.
    pub topic: &'a str,
    /// Another topic, which has messages too.
    pub other: &'a str,
    /// A topic without messages.
    pub idle: &'a str,
    pub seed: u64,
    pub stop: &'a AtomicBool,
}

impl Enemy<'_> {
    /// Goes on until told to stop. Gives how often it did what it does, and what it was told the last time it could not.
    pub fn run(&self) -> (u64, Option<String>) {
        let (mut done, mut told) = (0, None);
        while !self.is_over() {
            if let Err(error) = self.act(&mut done) {
                told = Some(error.to_string());
                thread::sleep(PAUSE);
            }
        }
        (done, told)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn act(&self, done: &mut u64) -> io::Result<()> {
        match self.kind {
            Kind::Silent => self.say_and_wait(&[], done),
            Kind::HalfHello => self.say_and_wait(&publisher_hello(self.topic)[..32], done),
            Kind::Garbage => self.garbage(done),
            Kind::ReadsNothing => self.read_nothing(None, done),
            Kind::OneByte => self.read_nothing(Some(7), done),
            Kind::Slow { bytes_a_second, comes_back } => self.read_slowly(bytes_a_second, comes_back, done),
            Kind::Sessions => self.open_and_leave(done),
            Kind::Connections => self.take_connections(done),
            Kind::NoAcks => self.read_no_acks(done),
            Kind::Gap => self.leave_a_gap(done),
            Kind::Topics => self.create_topics(done),
        }
    }

    fn say_and_wait(&self, bytes: &[u8], done: &mut u64) -> io::Result<()> {
        let mut raw = Raw::connect(self.to, 0)?;
        raw.say(bytes)?;
        *done += 1;
        self.wait_until_closed(&mut raw)
    }

    fn wait_until_closed(&self, raw: &mut Raw) -> io::Result<()> {
        let mut heard = [0; 4096];
        while !self.is_over() {
            match raw.read(&mut heard, PAUSE) {
                Ok(0) => return Ok(()),
                Ok(_) => (),
                Err(error) if is_timeout(&error) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait_until_over(&self) {
        while !self.is_over() {
            thread::sleep(PAUSE);
        }
    }

    fn garbage(&self, done: &mut u64) -> io::Result<()> {
        let mut random = Random::new(self.seed.wrapping_add(*done));
        let bytes: Vec<u8> = (0..64 << 10).map(|_| random.below(256) as u8).collect();
        while !self.is_over() {
            let mut raw = Raw::connect(self.to, 0)?;
            *done += 1;
            // Until the broker has had enough.
            while !self.is_over() && raw.say(&bytes).is_ok() {}
        }
        Ok(())
    }

    fn read_nothing(&self, word: Option<u8>, done: &mut u64) -> io::Result<()> {
        let mut raw = Raw::subscriber(self.to, self.topic, 0)?;
        if let Some(word) = word {
            // Something is on its way by then.
            thread::sleep(4 * PAUSE);
            raw.say(&[word])?;
        }
        *done += 1;
        // It would learn by reading that it was let go, and does not read.
        self.wait_until_over();
        Ok(())
    }

    fn read_slowly(&self, bytes_a_second: u64, comes_back: bool, done: &mut u64) -> io::Result<()> {
        let mut raw = Raw::subscriber(self.to, self.other, 64 << 10)?;
        *done += 1;
        let (begin, mut read) = (Instant::now(), 0);
        let mut into = vec![0; (bytes_a_second / 20) as usize];
        while !self.is_over() {
            thread::sleep(PAUSE);
            let due = (begin.elapsed().as_secs_f64() * bytes_a_second as f64) as u64 - read;
            let most = into.len().min(due as usize);
            match raw.read(&mut into[..most.max(1)], PAUSE) {
                Ok(0) => break,
                Ok(bytes) => read += bytes as u64,
                Err(error) if is_timeout(&error) => (),
                Err(_) => break,
            }
        }
        if !comes_back {
            self.wait_until_over();
        }
        Ok(())
    }

    fn open_and_leave(&self, done: &mut u64) -> io::Result<()> {
        let opened = Raw::publisher(self.to, self.topic, 0);
        thread::sleep(if *done < SESSIONS_AT_ONCE { Duration::from_secs(1) / SESSIONS_A_SECOND } else { PAUSE });
        opened.map(|_| *done += 1)
    }

    fn take_connections(&self, done: &mut u64) -> io::Result<()> {
        let mut held = Vec::new();
        let mut told = None;
        while !self.is_over() {
            // Publishers and subscribers in turn: they are bounded apart. There is nothing to read but heartbeats: places are to hurt,
            // not pins.
            let connected = match held.len() % 2 {
                0 => Raw::publisher_with_heartbeats(self.to, self.topic),
                _ => Raw::subscriber_with_heartbeats(self.to, self.idle),
            };
            match connected {
                Ok(raw) if held.len() < CONNECTIONS_MAX => {
                    held.push(raw);
                    *done = (*done).max(held.len() as u64);
                }
                Ok(_) => thread::sleep(PAUSE),
                Err(error) => {
                    told = Some(error);
                    thread::sleep(PAUSE);
                }
            }
        }
        told.map_or(Ok(()), Err)
    }

    fn read_no_acks(&self, done: &mut u64) -> io::Result<()> {
        let (mut raw, welcome) = Raw::publisher(self.to, self.other, SMALL_BUFFER)?;
        for batch_seq in 0.. {
            if self.is_over() {
                break;
            }
            raw.say(&batch(&welcome, batch_seq, &[7; 64]))?;
            *done += 1;
            thread::sleep(Duration::from_secs(1) / BATCHES_A_SECOND);
        }
        Ok(())
    }

    fn leave_a_gap(&self, done: &mut u64) -> io::Result<()> {
        let (mut raw, welcome) = Raw::publisher(self.to, self.topic, 0)?;
        for batch_seq in 1..=BEHIND_A_GAP {
            raw.say(&batch(&welcome, batch_seq, &[0; 64]))?;
        }
        *done += 1;
        self.wait_until_closed(&mut raw)
    }

    fn create_topics(&self, done: &mut u64) -> io::Result<()> {
        let mut raw = Raw::connect(self.to, 0)?;
        while !self.is_over() {
            let name = format!("hostile-{done}");
            let record = TopicRecord {
                order_level: OrderLevel::Session as u8,
                ack_level: AckLevel::Committed as u8,
                replicas: 1,
                ..TopicRecord::zeroed()
            };
            let topic_bytes = name.len() as u16;
            let request = Request { operation: Operation::TopicCreate as u8, topic_bytes, ..Request::default() };
            raw.say(&frame::with_body(&request, &[name.as_bytes(), bytes_of(&record)].concat()))?;
            match raw.expect::<Reply>()?.code {
                0 => *done += 1,
                code => return Err(io::Error::other(format!("topic {done} is refused with code {code}"))),
            }
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
