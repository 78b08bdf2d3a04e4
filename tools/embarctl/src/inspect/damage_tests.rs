//! One damage at a time in a pool that is sound: exactly the promise that it breaks is named, at the right offset.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use embarcadero::pool::line;
use embarcadero::pool::record::{GrantLine, IndexEntry, SegmentLine, entry_kind};

use super::findings::Promise;
use super::look;
use super::report::Report;
use super::tests::Sample;

/// Which place of a sample.
type At = fn(&Sample) -> u64;

/// A damage: what it is called, which word is changed, how, what breaks, and how far from the word's byte that is told.
struct Damage {
    name: &'static str,
    at: At,
    flip: u64,
    breaks: Promise,
    told_at: At,
}

fn damage(name: &'static str, at: At, flip: u64, breaks: Promise) -> Damage {
    Damage { name, at, flip, breaks, told_at: at }
}

fn entry_at(sample: &Sample, position: u64) -> u64 {
    sample.view.layout.index_entry(0, position / 128, position % 128)
}

fn entry(sample: &Sample, position: u64) -> IndexEntry {
    line::read::<_, IndexEntry>(&sample.view.memory, entry_at(sample, position)).expect("it was written").1
}

/// The position of the `number`-th batch whose session has this place.
fn batch(sample: &Sample, session_slot: u32, number: usize) -> u64 {
    let is_it = |position: &u64| {
        let entry = entry(sample, *position);
        entry.kind == entry_kind::BATCH && entry.session_slot == session_slot
    };
    (0..).filter(is_it).nth(number).expect("there are as many")
}

fn batch_entry(sample: &Sample) -> u64 {
    entry_at(sample, batch(sample, 0, 5))
}

fn batch_header(sample: &Sample) -> u64 {
    entry(sample, batch(sample, 0, 5)).blog_at()
}

/// The line of the segment that holds position 0.
fn segment_line(sample: &Sample) -> u64 {
    let lines = (0..2).map(|bank| sample.view.layout.directory_line(0, bank, 0, 0));
    let is_it =
        |at: &u64| line::read::<_, SegmentLine>(&sample.view.memory, *at).is_some_and(|(_, line)| line.end == 128);
    lines.into_iter().find(is_it).expect("it is listed")
}

fn flip(sample: &Sample, at: u64, bits: u64) {
    let file = OpenOptions::new().read(true).write(true).open(&sample.path).expect("it is there");
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).expect("in the pool");
    let changed = u64::from_le_bytes(word) ^ bits;
    file.write_all_at(&changed.to_le_bytes(), at).expect("in the pool");
}

fn hold(sample: &Sample, damage: &Damage) {
    let (at, told_at) = ((damage.at)(sample), (damage.told_at)(sample));
    flip(sample, at, damage.flip);
    let found = sample.broken();
    flip(sample, at, damage.flip);
    let places: Vec<(Promise, u64)> = found.iter().map(|(promise, broken)| (*promise, broken.at)).collect();
    let few: Vec<_> = found.iter().take(5).collect();
    assert!(places == [(damage.breaks, told_at)], "{}, expected at {told_at}: {few:#?}", damage.name);
}

#[test]
fn damage_of_what_is_committed_is_named() {
    let sample = Sample::with(40, 100);
    for damage in [
        damage("an entry's guard", batch_entry, 1 << 3, Promise::Entries),
        damage("an entry's kind", |s| batch_entry(s) + 8, 0x40, Promise::Entries),
        Damage {
            told_at: |s| batch_entry(s) + 12,
            ..damage("an entry's epoch", |s| batch_entry(s) + 8, 1 << 40, Promise::Entries)
        },
        damage("an entry's session", |s| batch_entry(s) + 16, 1 << 9, Promise::Entries),
        damage("an entry's batch", |s| batch_entry(s) + 24, 1 << 2, Promise::Order),
        damage("an entry's order", |s| batch_entry(s) + 32, 1 << 4, Promise::Order),
        Damage {
            told_at: |s| batch_entry(s) + 20,
            ..damage("an entry's session epoch", |s| batch_entry(s) + 16, 1 << 33, Promise::Order)
        },
        Damage {
            told_at: |s| batch_header(s) + 60,
            ..damage("a header's session", |s| batch_header(s) + 16, 1 << 7, Promise::Headers)
        },
        damage("a header's magic", batch_header, 1, Promise::Headers),
        Damage {
            told_at: |s| batch_header(s) + 64,
            ..damage("a payload", |s| batch_header(s) + 96, 1 << 5, Promise::Bodies)
        },
        Damage {
            told_at: |s| batch_header(s) + 64,
            ..damage("a message's length", |s| batch_header(s) + 64, 1 << 20, Promise::Bodies)
        },
    ] {
        hold(&sample, &damage);
    }
    assert_eq!(sample.broken(), [], "all is as it was");
}

#[test]
fn damage_of_what_the_sequencer_keeps_is_named() {
    let sample = Sample::with(40, 100);
    for damage in [
        Damage { told_at: |_| 12, ..damage("the superblock", |_| 64, 1 << 2, Promise::Superblock) },
        damage("the superblock's version", |_| 8, 1 << 1, Promise::Superblock),
        damage("a watermark beyond the segments", |s| s.view.layout.epoch_line(0) + 32, 1 << 20, Promise::Epochs),
        damage(
            "an epoch that is active and not claimed",
            |s| s.view.layout.epoch_line(0) + 16,
            1 << 9,
            Promise::Epochs,
        ),
        Damage {
            told_at: |s| s.view.layout.floor_line(0) + 56,
            ..damage("a floor", |s| s.view.layout.floor_line(0) + 24, 4, Promise::Floors)
        },
        damage("where a segment ends", |s| segment_line(s) + 24, 1 << 8, Promise::Directory),
        damage("a segment's number", segment_line, 1 << 2, Promise::Directory),
        damage("the epoch of a segment's line", |s| segment_line(s) + 8, 1 << 4, Promise::Directory),
        damage("a topic's name", |s| s.view.layout.topic_line(0, 1, 1) + 8, 1, Promise::Topics),
        damage("where a topic was created", |s| s.view.layout.topic_line(0, 1, 0) + 48, 1 << 3, Promise::Topics),
        damage("a topic's order", |s| s.view.layout.topic_line(0, 0, 3) + 8, 1 << 3, Promise::Topics),
        damage("a session's next batch", |s| s.view.layout.session_line(0, 0) + 24, 1 << 1, Promise::Sessions),
        damage("a session's order", |s| s.view.layout.session_line(0, 1) + 32, 1 << 1, Promise::Sessions),
        damage("a session's id", |s| s.view.layout.session_line(0, 2) + 8, 1 << 1, Promise::Sessions),
        Damage {
            told_at: |s| s.view.layout.cursor_line(0, 1) + 8,
            ..damage("a cursor's order", |s| s.view.layout.cursor_line(0, 1) + 16, 1, Promise::Cursors)
        },
    ] {
        hold(&sample, &damage);
    }
    assert_eq!(sample.broken(), [], "all is as it was");
}

#[test]
fn damage_of_lanes_and_their_memory_is_named() {
    let mut sample = Sample::with(300, 3000);
    // All that was given up is told; the last batches lie in extents that were granted.
    sample.turn();
    for damage in [
        damage("an extent's line", |s| s.view.layout.extent_line(last_extent(s)) + 8, 1 << 1, Promise::Extents),
        damage(
            "the grant in an extent's line",
            |s| s.view.layout.extent_line(last_extent(s)) + 16,
            1 << 3,
            Promise::Extents,
        ),
        damage("whose an extent is", |s| s.view.layout.holding_line(0, last_extent(s)) + 40, 1, Promise::Extents),
        damage("by which grant it is", |s| s.view.layout.holding_line(0, last_extent(s)) + 8, 1 << 1, Promise::Extents),
        damage("what a lane was told of a grant", |s| told_grant(s) + 16, 1, Promise::Extents),
        damage("what a lane has consumed", |s| s.view.layout.lane_progress(0, 1) + 16, 1 << 40, Promise::Lanes),
        damage("what a lane has settled", |s| s.view.layout.lane_progress(0, 1) + 24, 1 << 40, Promise::Lanes),
        damage("a slot's guard", |s| s.view.layout.ring_slot(0, 9), 1 << 2, Promise::Lanes),
        damage("a member's host", |s| s.view.layout.broker_line(1) + 56, 1 << 2, Promise::Members),
        damage("a member's state", |s| s.view.layout.broker_line(0) + 24, 1 << 4, Promise::Members),
        damage("a failed place that is none", |s| s.view.layout.fault_line(1) + 8, 1 << 50, Promise::Memory),
    ] {
        hold(&sample, &damage);
    }
    assert_eq!(sample.broken(), [], "all is as it was");
}

/// The line by which the lane of the first session was told of the extent that its last batch lies in.
fn told_grant(sample: &Sample) -> u64 {
    let extent = u64::from(last_extent(sample));
    let lines = (0..16).map(|number| sample.view.layout.grant_line(0, 0, number));
    let is_it =
        |at: &u64| line::read::<_, GrantLine>(&sample.view.memory, *at).is_some_and(|(_, l)| l.extent == extent);
    lines.into_iter().find(is_it).expect("it was told")
}

/// Where the last batch of the first session lies.
fn last_extent(sample: &Sample) -> u32 {
    let watermark = embarcadero::log::commit::CommitReader::new(&sample.view).current().expect("active").watermark;
    let is_batch = |position: &u64| {
        let entry = entry(sample, *position);
        entry.kind == entry_kind::BATCH && entry.session_slot == 0
    };
    let last = (0..watermark).rev().find(is_batch).expect("it published");
    sample.view.layout.extent_of(entry(sample, last).blog_at()).expect("in the blog")
}

/// Whatever bit of a record with a check turns, it is noticed.
#[test]
fn every_bit_of_a_record_with_a_check_counts() {
    let sample = Sample::with(2, 100);
    let lines =
        [(sample.view.layout.floor_line(0), Promise::Floors), (sample.view.layout.cursor_line(0, 0), Promise::Cursors)];
    for (at, promise) in lines {
        // Every eleventh, so that each byte has its turn.
        for bit in (64..512).step_by(11) {
            let (word, bits) = (at + bit / 64 * 8, 1 << (bit % 64));
            flip(&sample, word, bits);
            let found = sample.broken();
            flip(&sample, word, bits);
            assert!(found.iter().any(|(broken, _)| *broken == promise), "bit {bit}: {found:?}");
        }
    }
}

/// It would be wrong to say that it is to be formatted.
#[test]
fn what_is_of_something_else_is_no_broken_pool() {
    let path = std::env::temp_dir().join(format!("embarctl-inspect-foreign-{}", std::process::id()));
    std::fs::write(&path, [7; 1 << 16]).unwrap();
    let told = look(&path).map(|_| ()).map_err(|error| error.to_string());
    std::fs::remove_file(&path).unwrap();
    assert!(told.as_ref().is_err_and(|told| told.contains("it belongs to something else")), "{told:?}");
}

#[test]
fn what_was_not_looked_at_is_not_told_to_be_right() {
    let sample = Sample::with(1, 100);
    let file = OpenOptions::new().write(true).open(&sample.path).unwrap();
    file.write_all_at(&99_u32.to_le_bytes(), 8).unwrap();
    let seen = look(&sample.path).unwrap();
    let text = Report { pool: &sample.path, seen: &seen, limit: 9 }.text();
    assert!(text.contains("layout_version is 99") && text.contains("use the embarctl of that one"), "{text}");
    assert!(!text.contains("\nok ") && text.contains("\n-      entries "), "{text}");
}
