//! A pool file in which anything was written over: it is refused, or works; whoever attaches, recovers, follows, exports or takes
//! a lane over says what is damaged or goes on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use embarcadero::log::View;
use embarcadero::log::blog::Blog;
use embarcadero::log::checkpoint::recover;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::log::cursors::{CursorReader, write_request};
use embarcadero::log::inherit::check_broker;
use embarcadero::log::lane::LaneWriter;
use embarcadero::log::member::Member;
use embarcadero::log::reader::{Reader, Sought, TopicStart};
use embarcadero::log::retention::{FloorReader, NO_PIN, Pin};
use embarcadero::log::topics::{Topic, TopicReader, write_spec};
use embarcadero::pool::Process;
use embarcadero::pool::record::{BatchSlot, CursorLine, slot_kind};
use embarcadero::pool::region::Create;
use embarcadero::pool::superblock::HomeHosts;
use embarcadero::pool::{Keep, Layout, Mapped, Memory, Pool, Software};
use embarcadero::roles::ack::tracker::Tracker;
use embarcadero::roles::caretaker::Caretaker;
use embarcadero::roles::locks::Locks;
use embarcadero::roles::receive::ingest::Ingest;
use embarcadero::roles::sequence::TakeoverSettings;
use embarcadero::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use embarcadero::roles::sequence::candidate::Candidate;
use embarcadero::testing::memory::small_geometry;
use embarcadero::wire::StartAt;
use embarcadero::wire::frame::{self, BatchHeader};
use embarcadero::wire::message::push;
use embarcadero::wire::{AckLevel, OrderLevel};

use crate::Cursor;
use crate::wire::reseal;

type HostView = View<Mapped<Software>>;

const SETTINGS: SequencerSettings = SequencerSettings {
    session_lease_ns: 1_000_000,
    session_expiry_ns: u64::MAX,
    retention_bytes: 1 << 20,
    retention_ns: 0,
    reader_stall_ns: 1 << 40,
    member_silence_ns: 1 << 40,
};
const TAKEOVER: TakeoverSettings = TakeoverSettings { after_ns: 1, settle_ns: 1 };
/// Batches of the sound pool: more than a segment of its index.
const BATCHES: u64 = 200;
/// Rounds that whoever looks at a pool has; nobody needs as many.
const ROUNDS: u64 = 64;

/// Nobody has a lock; whether members are taken for gone therefore.
struct NoLocks(bool);

impl Locks for NoLocks {
    fn while_member_free(&self, _: u32, act: &mut dyn FnMut()) {
        act();
    }
    fn is_candidate_held(&self, _: u32) -> bool {
        false
    }
    fn while_free(&self, _: u32, act: &mut dyn FnMut()) {
        act();
    }
    fn is_member_gone(&self, _: u32) -> bool {
        self.0
    }
}

/// A pool file with a history, and how it was.
struct Sound {
    path: PathBuf,
    file: File,
    layout: Layout,
    /// Superblock, tables, rings, index and the first of the blog.
    image: Vec<u8>,
}

impl Drop for Sound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Sound {
    fn new() -> Sound {
        // A file for each: tests of one process run at once, and a shared one was written over under its readers.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/embarcadero-fuzz-{}-{number}", std::process::id()));
        let homes = HomeHosts::single_host(&small_geometry(2));
        let pool = Pool::open(&path, small_geometry(2), &homes, false, Create::Format).expect("a small pool fits");
        let layout = (**pool.layout()).clone();
        history(&View::single_host(Mapped::new(pool.mapping().clone()), pool.layout().clone()));
        drop(pool);
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it was made");
        let mut image = vec![0; layout.extent(0) as usize + (64 << 10)];
        file.read_exact_at(&mut image, 0).expect("the pool is longer");
        Sound { path, file, layout, image }
    }

    /// The image with the input's damages: region, line (2), word, way, value (8).
    fn damage(&self, input: &[u8]) {
        let mut bytes = self.image.clone();
        let mut cursor = Cursor(input);
        while !cursor.is_empty() {
            let region = cursor.byte();
            let line = u64::from(cursor.byte()) << 8 | u64::from(cursor.byte());
            let (word, way, value) = (u64::from(cursor.byte() % 8), cursor.byte(), cursor.number());
            let at = (self.line(region, line) + 8 * word) as usize;
            let before = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
            let after = match way % 4 {
                0 => value,
                1 => value % 300,
                2 => before ^ 1 << (value % 64),
                _ => before.wrapping_add(value as i8 as u64),
            };
            bytes[at..at + 8].copy_from_slice(&after.to_le_bytes());
        }
        reseal(&mut bytes);
        self.file.write_all_at(&bytes, 0).expect("the pool is longer");
    }

    /// Lines of each kind in turn.
    fn line(&self, region: u8, line: u64) -> u64 {
        let (l, g) = (&self.layout, &self.layout.geometry);
        let candidate = (line % 2) as u32;
        let line = line / 2;
        match region % 17 {
            0 => 64 * (line % 2),
            1 => l.epoch_line(candidate),
            2 => l.floor_line(candidate),
            3 => l.broker_line(candidate),
            4 => l.pin_line(candidate),
            5 => l.lane_status(candidate),
            6 => l.lane_progress(candidate, (line % 2) as u32),
            7 => l.topic_line(candidate, (line / 4 % 8) as u32, line % 4),
            8 => l.session_line(candidate, (line % u64::from(g.sessions_max)) as u32),
            9 => l.directory_line(candidate, line as u32 % 2, candidate, line % u64::from(g.segments)),
            10 => l.extent_line((line % u64::from(g.extents)) as u32),
            11 => l.ring_slot(candidate, line),
            12 => l.extent(0) + 64 * (line % 512),
            13 => l.holding_line(candidate, (line % u64::from(g.extents)) as u32),
            14 => l.grant_line(candidate, 0, line),
            16 => l.cursor_line(candidate, (line % u64::from(g.cursors_max)) as u32),
            // The index most of all: its first two segments.
            _ => l.index_entry(0, u64::from(candidate), line % u64::from(g.segment_entries)),
        }
    }
}

/// A topic of each level, sessions and batches.
fn history(view: &HostView) {
    let mut commit = CommitWriter::take(view, 0);
    let epoch = commit.claim(0, 1);
    let mut sequencer = ActiveSequencer::take_over(view, 0, commit, epoch, None, SETTINGS);
    Member::announce(view, 0, Process::default());
    let mut lane = LaneWriter::take(view, 0);
    let mut blog = Blog::take(view, 0, 0);
    let heard = CommitReader::new(view);
    let mut now = 0;
    let mut present = |slot: BatchSlot, lane: &mut LaneWriter<_>| {
        lane.publish(&slot);
        now += 1;
        sequencer.pass(now);
        sequencer.pass(now);
        lane.refresh(&heard);
    };
    // The number of a topic that is gone is given to the next.
    for (name, order) in [("gone", OrderLevel::Total), ("session", OrderLevel::Session), ("total", OrderLevel::Total)] {
        let run = blog.acquire(192, 192, lane.produced()).expect("an extent is free");
        write_spec(view, run.start, &Topic::new(name, order, AckLevel::Committed));
        present(BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: run.start, ..BatchSlot::default() }, &mut lane);
        let produced = lane.produced();
        blog.release(run, 192, 192, produced);
        if name == "gone" {
            present(BatchSlot { kind: slot_kind::TOPIC_DELETE, ..BatchSlot::default() }, &mut lane);
        }
    }
    let run = blog.acquire(128, 128, lane.produced()).expect("an extent is free");
    for (at, name) in [(run.start, "billing"), (run.start + 64, "search")] {
        write_request(view, at, &CursorLine::new(1, name, 7));
        // The topic was created at index position 3.
        let (kind, topic, batch_seq) = (slot_kind::CURSOR_SET, 1, 3);
        present(BatchSlot { kind, topic, batch_seq, blog_at: at, ..BatchSlot::default() }, &mut lane);
    }
    let produced = lane.produced();
    blog.release(run, 128, 128, produced);
    for number in 0..4 {
        let (kind, topic) = (slot_kind::SESSION_OPEN, number % 2);
        let batch_seq = u64::from(topic) + 2;
        present(BatchSlot { kind, topic, session_epoch: 1, batch_seq, ..BatchSlot::default() }, &mut lane);
    }
    for number in 0..BATCHES {
        // They were opened at index positions 6 to 9.
        let (session, batch_seq) = (number % 4 + 7, number / 4);
        let (topic, session_epoch, message_count) = (number as u32 % 2, 1, 1);
        let mut body = Vec::new();
        push(&mut body, b"a message");
        let header = BatchHeader { message_count, session, session_epoch, topic, batch_seq, ..BatchHeader::default() };
        let bytes = frame::with_body(&header, &body);
        let run = blog.acquire(128, 128, lane.produced()).expect("an extent is free");
        view.memory.copy_in(run.start, &bytes);
        let (kind, blog_at, batch_bytes) = (slot_kind::BATCH, run.start, bytes.len() as u32);
        let slot = BatchSlot {
            kind,
            session,
            session_epoch,
            topic,
            message_count,
            batch_seq,
            blog_at,
            batch_bytes,
            ..BatchSlot::default()
        };
        present(slot, &mut lane);
        let produced = lane.produced();
        blog.release(run, 128, 128, produced);
    }
    assert_eq!(sequencer.counters().appended_batches, BATCHES);
}

/// Everything a reader does. Each ends: it goes on, or stands still.
fn read(view: &HostView) {
    let commit = CommitReader::new(view);
    // What is acked cannot be undone, so an ack core also wants that nobody claims a higher epoch; a successor does that itself.
    let is_sound = matches!(recover(view, &commit), Ok(Some(found)) if commit.confirm(found.commit.epoch));
    for broker in 0..view.layout.geometry.brokers {
        let mut tracker = Tracker::new(view, broker, 2);
        let mut rounds = 0;
        while let Ok(1..) = tracker.follow(&mut |_| ()) {
            rounds += 1;
            assert!(rounds < ROUNDS, "an ack core follows without end");
        }
        assert_eq!(tracker.is_started(), is_sound, "ack core and recovery disagree");
    }
    let cursors = CursorReader::new(view).visit(|_, _| ());
    assert!(!is_sound || cursors.is_ok(), "a reader of cursors and recovery disagree: {cursors:?}");
    let mut topics = TopicReader::new(view);
    topics.refresh();
    let Some(current) = commit.current() else { return };
    let start_of =
        |topic: &Topic, start| TopicStart { topic: topic.id, created_position: topic.created_position, start };
    for topic in topics.known() {
        for start in [StartAt::Earliest, StartAt::Latest, StartAt::Order(5), StartAt::Timestamp(1)] {
            export(view, &current, &topics, &[start_of(topic, start)]);
        }
    }
    let all: Vec<_> = topics.known().iter().map(|topic| start_of(topic, StartAt::Earliest)).collect();
    if !all.is_empty() {
        export(view, &current, &topics, &all);
    }
}

fn export(
    view: &HostView,
    commit: &embarcadero::log::commit::Commit,
    topics: &TopicReader<Mapped<Software>>,
    subscribed: &[TopicStart],
) {
    let floor = FloorReader::new(view).read().map_or(0, |floors| floors.closing);
    let mut reader = Reader::new(view, subscribed.iter().copied(), floor, false);
    for _ in 0..ROUNDS {
        match reader.seek(commit, topics) {
            Ok(Sought::NotYet) => {}
            Ok(Sought::Found) => {
                let next = (0..subscribed.len()).map(|place| reader.next_order(place)).collect();
                return deliver(&mut reader, commit, next);
            }
            Ok(Sought::Trimmed { .. } | Sought::Deleted { .. }) | Err(_) => return,
        }
    }
}

fn deliver(reader: &mut Reader<Mapped<Software>>, commit: &embarcadero::log::commit::Commit, mut next: Vec<u64>) {
    for _ in 0..ROUNDS {
        if !matches!(reader.fetch(commit), Ok(1..)) {
            return;
        }
        loop {
            match reader.next_delivery() {
                Ok(Some(delivery)) => {
                    assert_eq!(delivery.header.frame_bytes(), delivery.bytes);
                    assert!(delivery.end_order > next[delivery.place], "it goes back");
                    next[delivery.place] = delivery.end_order;
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// What a broker process does to a pool it takes over.
fn write(view: &HostView) {
    let mut lanes = Vec::new();
    for broker in 0..view.layout.geometry.brokers {
        if check_broker(view, broker).is_err() {
            continue;
        }
        let incarnation = Member::announce(view, broker, Process::default()).incarnation();
        let mut pin = Pin::take(view, broker, incarnation);
        if pin.lower_to_floor(&FloorReader::new(view)).is_some() {
            pin.raise(NO_PIN);
        }
        let mut ingest = Ingest::take(view, broker * view.layout.geometry.lanes_per_broker, Keep::Cached);
        ingest.refresh();
        ingest.report(false);
        lanes.push(ingest);
    }
    let mut candidate = Candidate::new(view, view.layout.geometry.candidates - 1, SETTINGS, TAKEOVER);
    for step in 1..ROUNDS {
        candidate.step(step * 20_000_000, &NoLocks(false));
        for ingest in &mut lanes {
            ingest.refresh();
            ingest.control(BatchSlot { kind: slot_kind::SESSION_OPEN, session_epoch: 1, ..BatchSlot::default() });
        }
    }
    assert!(candidate.active().is_none() || candidate.fault().is_none());
    drop(lanes);
    let mut caretaker = Caretaker::new(view);
    for _ in 0..3 {
        caretaker.look(&NoLocks(true));
    }
}

#[test]
fn a_damaged_pool_file_is_refused_or_works() {
    let sound = Sound::new();
    bolero::check!(name = "pool").for_each(|input: &[u8]| {
        sound.damage(input);
        // As a broker, whose configuration says what the geometry must be; and as a tool that takes any.
        let mine = Pool::open(
            &sound.path,
            sound.layout.geometry,
            &HomeHosts::single_host(&sound.layout.geometry),
            false,
            Create::Never,
        );
        let Ok(pool) = Pool::inspect(&sound.path) else {
            assert!(mine.is_err(), "a broker takes what a tool refuses");
            return;
        };
        let view: HostView = View::single_host(Mapped::new(pool.mapping().clone()), pool.layout().clone());
        read(&view);
        write(&view);
        read(&view);
    });
}

/// Without damage the pool is whole: else the target would show nothing.
#[test]
fn the_pool_without_damage_works() {
    let sound = Sound::new();
    let pool = Pool::inspect(&sound.path).expect("it is sound");
    let view: HostView = View::single_host(Mapped::new(pool.mapping().clone()), pool.layout().clone());
    let recovered = recover(&view, &CommitReader::new(&view)).expect("nothing is damaged").expect("it was active");
    assert_eq!((recovered.commit.watermark, recovered.topics.iter().flatten().count()), (BATCHES + 10, 2));
    assert_eq!(check_broker(&view, 0), Ok(()));
    let mut candidate = Candidate::new(&view, 1, SETTINGS, TAKEOVER);
    for step in 1..9 {
        candidate.step(step * 20_000_000, &NoLocks(false));
    }
    assert!(candidate.active().is_some());
}
