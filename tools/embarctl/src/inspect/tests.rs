//! Pools that are sound, filled by a real sequencer and real lanes: nothing is found broken in them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use embarcadero::crc::crc32c;
use embarcadero::log::View;
use embarcadero::log::appender::Appender;
use embarcadero::log::checkpoint::recover;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::log::member::Member;
use embarcadero::log::mend::mend_candidate;
use embarcadero::log::topics::{Topic, TopicReader};
use embarcadero::order::Origin;
use embarcadero::pool::record::{BatchSlot, CursorLine, slot_kind};
use embarcadero::pool::region::Create;
use embarcadero::pool::superblock::HomeHosts;
use embarcadero::pool::{Mapped, Memory, Pool, Process, Software, line};
use embarcadero::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use embarcadero::testing::memory::small_geometry;
use embarcadero::wire::frame::{self, BatchHeader};
use embarcadero::wire::message::push;
use embarcadero::wire::{AckLevel, OrderLevel};

use super::findings::{Broken, Promise};
use super::look;
use super::report::Report;

type Written = View<Mapped<Software>>;

const SETTINGS: SequencerSettings = SequencerSettings {
    session_lease_ns: 1_000_000,
    session_expiry_ns: u64::MAX,
    retention_bytes: 1 << 20,
    retention_ns: 0,
    reader_stall_ns: 1 << 40,
    member_silence_ns: 1 << 40,
};

/// A pool in a file of its own, with what its processes would have in memory.
pub struct Sample {
    pub path: PathBuf,
    pub view: Written,
    sequencer: ActiveSequencer<Mapped<Software>>,
    lanes: Vec<Appender<Mapped<Software>>>,
    /// Each session: its id, its topic, its next batch, and the lane it is published through.
    sessions: Vec<(u64, u32, u64, usize)>,
    now: u64,
    retention_bytes: u64,
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn start(view: &Written, candidate: u32, retention_bytes: u64) -> ActiveSequencer<Mapped<Software>> {
    mend_candidate(view, candidate);
    let reader = CommitReader::new(view);
    let mut commit = CommitWriter::take(view, candidate);
    let epoch = commit.claim(reader.highest_claimed(), 1);
    let recovered = recover(view, &reader).expect("it is sound");
    ActiveSequencer::take_over(
        view,
        candidate,
        commit,
        epoch,
        recovered,
        SequencerSettings { retention_bytes, ..SETTINGS },
    )
}

impl Sample {
    /// A pool with topics, cursors and sessions, and nothing published, that keeps one of its sixteen MiB.
    pub fn new() -> Sample {
        Sample::keeping(1 << 20)
    }

    /// One that keeps so many bytes; 0: as much as fits.
    pub fn keeping(retention_bytes: u64) -> Sample {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("embarctl-inspect-{}-{number}", std::process::id()));
        let geometry = small_geometry(2);
        let homes = HomeHosts::single_host(&geometry);
        let pool = Pool::open(&path, geometry, &homes, false, Create::Format).expect("a small pool fits");
        let view: Written = View::single_host(Mapped::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        let sequencer = start(&view, 0, retention_bytes);
        (0..2).for_each(|member| drop(Member::announce(&view, member, Process::this())));
        let lanes = (0..2).map(|lane| Appender::take(&view, lane)).collect();
        let mut sample = Sample { path, view, sequencer, lanes, sessions: Vec::new(), now: 0, retention_bytes };
        for (name, order) in [("gone", OrderLevel::Total), ("s", OrderLevel::Session), ("t", OrderLevel::Total)] {
            let asked = sample.lanes[0].ask_for_topic(&Topic::new(name, order, AckLevel::Committed));
            assert!(asked.is_some(), "there is room");
            sample.turn();
            if name == "gone" {
                let slot = BatchSlot { kind: slot_kind::TOPIC_DELETE, batch_seq: 0, ..BatchSlot::default() };
                sample.lanes[0].publish(&slot);
                sample.turn();
            }
        }
        sample.set_cursor("s", "billing", 3);
        sample.set_cursor("t", "search", 5);
        for (topic, lane) in [("s", 0), ("t", 1), ("s", 1)] {
            sample.open(topic, lane);
        }
        sample
    }

    /// With so many batches of each session.
    pub fn with(batches: u64, body_bytes: usize) -> Sample {
        let mut sample = Sample::new();
        (0..batches).for_each(|_| sample.publish(body_bytes));
        sample
    }

    fn topic(&self, name: &str) -> Topic {
        let mut topics = TopicReader::new(&self.view);
        topics.find(name).expect("it was created").clone()
    }

    pub fn set_cursor(&mut self, topic: &str, name: &str, order: u64) {
        let topic = self.topic(topic);
        let cursor = CursorLine::new(topic.id, name, order);
        assert!(self.lanes[0].ask_for_cursor(slot_kind::CURSOR_SET, &topic, &cursor).is_some(), "there is room");
        self.turn();
    }

    pub fn open(&mut self, topic: &str, lane: usize) {
        let topic = self.topic(topic);
        let slot = self.lanes[lane].ask_to_open(0, 1, topic.id, topic.created_position);
        self.turn();
        let table = self.sequencer.core().table();
        let place = table.opened_by(Origin { lane: lane as u16, slot }).expect("it was opened");
        self.sessions.push((table.session(place).id, topic.id, 0, lane));
    }

    /// The sequencer looks at the lanes, they at what it did.
    pub fn turn(&mut self) {
        for _ in 0..4 {
            self.now += 1;
            self.sequencer.pass(self.now);
            for lane in &mut self.lanes {
                lane.refresh(u64::MAX);
                lane.report(false);
            }
        }
    }

    /// A batch of each session.
    pub fn publish(&mut self, body_bytes: usize) {
        for index in 0..self.sessions.len() {
            let (session, topic, batch_seq, lane) = self.sessions[index];
            let mut body = Vec::new();
            push(&mut body, &vec![b'a'; body_bytes]);
            push(&mut body, b"the second");
            let header = BatchHeader {
                message_count: 2,
                session,
                session_epoch: 1,
                topic,
                batch_seq,
                created_at: 7,
                body_bytes: body.len() as u32,
                body_crc: crc32c(&body),
                ..BatchHeader::default()
            };
            let mut bytes = frame::seal(&header).to_vec();
            bytes.extend_from_slice(&body);
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            let header: BatchHeader = frame::read(bytes.first_chunk().expect("a header"));
            let length = bytes.len() as u64;
            let run = (0..20).find_map(|_| {
                let run = self.lanes[lane].acquire(length, length);
                self.turn();
                run
            });
            let run = run.expect("memory is given back");
            self.view.memory.copy_in(run.start, &bytes);
            self.lanes[lane].publish_batch(&header, run.start, 0);
            self.lanes[lane].release(run, length, length);
            self.sessions[index].2 += 1;
            self.turn();
        }
    }

    /// Another candidate takes over.
    pub fn take_over(&mut self, candidate: u32) {
        self.sequencer = start(&self.view, candidate, self.retention_bytes);
        self.turn();
    }

    /// A lane's writer gives back what it has, and is gone.
    pub fn leave(&mut self, lane: usize) {
        self.sessions.retain(|(.., of)| *of != lane);
        self.lanes[lane].leave();
        self.turn();
    }

    /// What `inspect` finds: everything that is broken.
    pub fn broken(&self) -> Vec<(Promise, Broken)> {
        let seen = look(&self.path).expect("a pool");
        let of = |promise: &Promise| {
            seen.findings.of(*promise).broken.iter().map(|broken| (*promise, broken.clone())).collect::<Vec<_>>()
        };
        Promise::EVERY.iter().flat_map(of).collect()
    }

    pub fn text(&self) -> String {
        let seen = look(&self.path).expect("a pool");
        Report { pool: &self.path, seen: &seen, limit: 20 }.text()
    }

    pub fn floor(&self) -> u64 {
        look(&self.path).expect("a pool").part.expect("a log").floor.expect("floors")
    }
}

fn looked(sample: &Sample, promise: Promise) -> u64 {
    look(&sample.path).expect("a pool").findings.of(promise).looked
}

#[test]
fn a_pool_that_was_only_formatted_is_sound() {
    let path = std::env::temp_dir().join(format!("embarctl-inspect-{}-blank", std::process::id()));
    let geometry = small_geometry(1);
    let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::Format).unwrap();
    drop(pool);
    let seen = look(&path).expect("a pool");
    std::fs::remove_file(&path).unwrap();
    assert!(seen.findings.count() == 0 && seen.part.is_none());
}

#[test]
fn a_pool_with_all_of_its_history_is_sound() {
    let sample = Sample::with(40, 100);
    assert_eq!(sample.broken(), []);
    assert_eq!(sample.floor(), 0);
    assert_eq!((looked(&sample, Promise::Headers), looked(&sample, Promise::Topics)), (120, 2));
    assert_eq!((looked(&sample, Promise::Sessions), looked(&sample, Promise::Cursors)), (3, 2));
    assert!(looked(&sample, Promise::Order) > 128, "more than a segment");
    assert!(sample.text().ends_with("nothing is broken\n"), "{}", sample.text());
}

#[test]
fn a_pool_that_gave_most_of_its_history_up_is_sound() {
    let mut sample = Sample::with(400, 3000);
    assert!(sample.floor() > 128, "floor {}", sample.floor());
    assert_eq!(sample.broken(), [], "{}", sample.text());
    sample.take_over(1);
    assert_eq!(sample.broken(), [], "taken over: {}", sample.text());
    (0..300).for_each(|_| sample.publish(3000));
    sample.set_cursor("s", "billing", 77);
    assert_eq!(sample.broken(), [], "and gone on: {}", sample.text());
    sample.take_over(1);
    sample.take_over(0);
    (0..3).for_each(|_| sample.publish(3000));
    assert_eq!(sample.broken(), [], "and again: {}", sample.text());
}

/// Extents go round: they are closed, given up and granted again while entries are kept that say so.
#[test]
fn a_pool_is_sound_at_every_moment() {
    let mut sample = Sample::keeping(0);
    for round in 0..200 {
        sample.publish(60_000);
        if round == 100 {
            sample.leave(1);
        }
        assert_eq!(sample.broken(), [], "round {round}: {}", sample.text());
        if round % 40 == 39 {
            sample.take_over(u32::from(round % 80 == 39));
        }
    }
    assert!(sample.floor() > 0);
}

/// What a kill leaves half written is no damage.
#[test]
fn a_line_that_was_cut_short_is_told_and_is_not_damage() {
    let sample = Sample::with(10, 100);
    let layout = &sample.view.layout;
    let torn = [
        (layout.floor_line(0), "floor line 0"),
        (layout.session_line(0, 1), "checkpoint of session 1"),
        (layout.lane_progress(0, 0), "progress of lane 0"),
        (layout.epoch_line(0), "epoch line 0"),
        (layout.holding_line(0, 2), "holding of extent 2"),
        (layout.topic_line(0, 1, 0), "topic 1"),
        (layout.pin_line(1), ""),
    ];
    for (at, name) in torn {
        let guard = sample.view.memory.load(at);
        sample.view.memory.store(at, line::INVALID);
        let text = sample.text();
        sample.view.memory.store(at, guard);
        assert!(text.ends_with("nothing is broken\n"), "{name}: {text}");
        let note = format!("note: {name} at {at} was cut short by a kill; it is mended by the next start");
        assert!(name.is_empty() || text.contains(&note), "{name}: {text}");
    }
}

#[test]
fn what_is_found_is_an_object_for_programs() {
    let sample = Sample::with(3, 100);
    let seen = look(&sample.path).expect("a pool");
    let json = Report { pool: &sample.path, seen: &seen, limit: 20 }.json();
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((object["schema"].as_u64(), object["broken_count"].as_u64()), (Some(1), Some(0)));
    assert_eq!(object["promises"].as_array().map(Vec::len), Some(Promise::EVERY.len()));
    assert_eq!(object["log"]["epoch"].as_u64(), Some(1));
}
