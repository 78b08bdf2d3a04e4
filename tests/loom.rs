//! Interleavings of the lock-free protocols, explored by loom: the real line protocol, lane ring, commit point and floors,
//! over a `Memory` whose words are loom's atomics (hardware coherence: what the memory model allows between cores).
//!
//! What incoherent memory adds is the simulator's business (`src/sim`).

use std::collections::HashMap;
use std::sync::Arc as StdArc;

use embarcadero::log::View;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::log::lane::{LaneReader, LaneWriter};
use embarcadero::log::retention::{FloorReader, NO_PIN, Pin, Trimmer};
use embarcadero::pool::line::{self, Owned, Peer};
use embarcadero::pool::record::{BatchSlot, LaneProgress, SegmentLine, slot_kind};
use embarcadero::pool::{Access, Geometry, Keep, Layout, Memory, WordByWord};
use embarcadero::testing::memory::small_geometry;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

/// The lines a model touches, as loom atomics.
#[derive(Clone)]
struct LoomMemory {
    words: Arc<HashMap<u64, AtomicU64>>,
    bytes: u64,
}

// SAFETY: none needed: the type is made of `Arc`s of `Sync` things; loom's are `Send` too.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<LoomMemory>();
};

impl LoomMemory {
    fn new(lines: &[u64], bytes: u64) -> Self {
        let words = lines.iter().flat_map(|line| (0..8).map(move |word| (line + 8 * word, AtomicU64::new(0))));
        LoomMemory { words: Arc::new(words.collect()), bytes }
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        self.words.get(&at).unwrap_or_else(|| panic!("the model does not know word {at}"))
    }
}

impl Memory for LoomMemory {
    const SOFTWARE: bool = false;
    type Line<'a> = WordByWord<'a, Self>;
    fn bytes(&self) -> u64 {
        self.bytes
    }
    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }
    fn store(&self, at: u64, word: u64) {
        self.word(at).store(word, Ordering::Release);
    }
    fn load(&self, at: u64) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }
    fn flush_line(&self, _at: u64, _keep: Keep) {}
    fn store_fence(&self) {}
    fn full_fence(&self) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
    fn with_bytes<R>(&self, _at: u64, _bytes: u64, _read: impl FnOnce(&[u8]) -> R) -> R {
        unreachable!("no payload in these models")
    }
    fn copy_in(&self, _at: u64, _bytes: &[u8]) {
        unreachable!("no payload in these models")
    }
    fn copy_within(&self, _from: u64, _to: u64, _bytes: u64) {
        unreachable!("no payload in these models")
    }
}

/// Runs a model with bounded preemptions, and prints how many executions that were.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = StdArc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
}

fn record(version: u64) -> SegmentLine {
    SegmentLine { epoch: version, first: version, end: version, filled_by: version, reserved: [version; 3] }
}

/// A record rewritten in place is seen whole or not at all.
#[test]
fn seqlock_lines_are_never_torn() {
    explore("seqlock line", 3, || {
        let memory = LoomMemory::new(&[64], 4096);
        let mut owned: Owned<SegmentLine, _> = Owned::take(memory.clone(), 64);
        owned.publish(&record(1));
        let writer = thread::spawn(move || owned.publish(&record(2)));
        let peer: Peer<SegmentLine, _> = Peer::new(memory, 64, Access::Remote);
        for _ in 0..2 {
            if let Some(seen) = peer.observe() {
                assert!(seen == record(1) || seen == record(2), "torn: {seen:?}");
            }
        }
        writer.join().unwrap();
        assert_eq!(peer.observe(), Some(record(2)));
    });
}

/// The check that makes the test above mean something: without the pass through invalid, loom finds the torn read.
#[test]
#[should_panic(expected = "torn")]
fn without_the_pass_through_invalid_a_torn_line_is_found() {
    explore("no invalid", 3, || {
        let memory = LoomMemory::new(&[64], 4096);
        line::publish(&memory, 64, 1, &record(1));
        let writing = memory.clone();
        let writer = thread::spawn(move || {
            for word in 1..8 {
                writing.store(64 + 8 * word, 2);
            }
            writing.store(64, 2);
        });
        if let Some((_, seen)) = line::observe::<_, SegmentLine>(&memory, 64, Access::Remote) {
            assert!(seen == record(1) || seen == record(2), "torn: {seen:?}");
        }
        writer.join().unwrap();
    });
}

fn view(lines: &dyn Fn(&Layout) -> Vec<u64>) -> View<LoomMemory> {
    // One broker: the fewer lines a model touches, the more of its interleavings can be walked.
    let layout = Layout::new(Geometry { brokers: 1, ..small_geometry(1) }).expect("the small geometry fits");
    let memory = LoomMemory::new(&lines(&layout), layout.geometry.pool_bytes);
    View::single_host(memory, StdArc::new(layout))
}

fn batch(seq: u64) -> BatchSlot {
    BatchSlot {
        kind: slot_kind::BATCH,
        batch_seq: seq,
        session: seq,
        blog_at: seq,
        received_at: seq,
        ..BatchSlot::default()
    }
}

/// A slot is seen only when it is of this lap and whole, while the producer laps the ring.
#[test]
fn slots_over_laps() {
    explore("slots over laps", 2, || {
        let view = view(&|layout| {
            let mut lines: Vec<u64> = (0..64).map(|slot| layout.ring_slot(0, slot)).collect();
            lines.extend([layout.lane_status(0), layout.lane_progress(0, 0), layout.epoch_line(0)]);
            lines
        });
        let mut commit = CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        // The ring stands one slot before its end, and the consumer with it.
        let mut writer = LaneWriter::take(&view, 0);
        for seq in 0..63 {
            writer.publish(&batch(seq));
        }
        let mut progress: Owned<LaneProgress, _> = Owned::take(view.memory.clone(), view.layout.lane_progress(0, 0));
        progress.publish(&LaneProgress { epoch: 1, consumed: 63, ..LaneProgress::default() });
        let commit_reader = CommitReader::new(&view);
        writer.refresh(&commit_reader);
        let mut reader = LaneReader::new(&view, 0, 63);
        let producer = thread::spawn(move || {
            writer.publish(&batch(63));
            writer.publish(&batch(64));
        });
        for _ in 0..3 {
            if let Some(slot) = reader.peek() {
                let number = reader.consume();
                assert_eq!(slot, batch(number), "slot {number} of this lap, whole");
            }
        }
        producer.join().unwrap();
        while let Some(slot) = reader.peek() {
            let number = reader.consume();
            assert_eq!(slot, batch(number));
        }
        assert_eq!(reader.consumed(), 65);
    });
}

/// Whoever sees the watermark sees everything below it.
#[test]
fn entries_below_the_watermark_are_visible() {
    explore("commit watermark", 1, || {
        let view = view(&|layout| vec![layout.epoch_line(0), layout.lane_status(0)]);
        let entry = view.layout.lane_status(0);
        let mut commit = CommitWriter::take(&view, 0);
        commit.claim(0, 1);
        commit.activate(0);
        let memory = view.memory.clone();
        let sequencer = thread::spawn(move || {
            line::write(&memory, entry, 1, &record(1));
            memory.store_fence();
            commit.advance(1, 0);
        });
        let reader = CommitReader::new(&view);
        let seen = reader.current().expect("it is active");
        let found = line::read::<_, SegmentLine>(&view.memory, entry);
        assert!(seen.watermark == 0 || found == Some((1, record(1))), "below the watermark, and not there");
        sequencer.join().unwrap();
        assert_eq!(reader.current().expect("settled").watermark, 1);
    });
}

/// Two floors: either the trimmer sees the pin, or the reader sees `closing` and withdraws.
#[test]
fn a_pin_is_never_missed() {
    explore("pins and floors", 1, || {
        let view =
            view(&|layout| vec![layout.epoch_line(0), layout.floor_line(0), layout.pin_line(0), layout.broker_line(0)]);
        let mut commit = CommitWriter::take(&view, 0);
        let epoch = commit.claim(0, 1);
        commit.activate(0);
        let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 0);
        trimmer.announce();
        trimmer.set_checkpoint(100);
        let mut pin = Pin::take(&view, 0, 1);
        let floors = FloorReader::new(&view);
        let reader = thread::spawn(move || {
            let pinned = pin.try_lower(50, &floors).is_ok();
            (pinned, pin)
        });
        trimmer.advance(100);
        let given_up = trimmer.floor() > 50;
        let (pinned, pin) = reader.join().unwrap();
        assert!(!(pinned && given_up), "position 50 is pinned and given up");
        assert_eq!(pinned, pin.position() != NO_PIN);
    });
}
