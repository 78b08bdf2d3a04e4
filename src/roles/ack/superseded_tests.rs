//! Acks under a sequencer that was superseded and does not know it, and acks of a tracker that was left behind.

use super::tracker::Tracker;
use crate::log::commit::CommitWriter;
use crate::log::directory::BANKS;
use crate::log::order_index::IndexWriter;
use crate::log::views::plain_view;
use crate::pool::Memory;
use crate::pool::line::INVALID;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::roles::sequence::tests::{FIRST, Feeder, batch, open, start, topic_spec};
use crate::wire::OrderLevel;
use crate::wire::frame::NOTHING_LET_GO;

/// An ack cannot be undone: once a higher epoch is claimed, nothing of the old one is followed, nor begun with.
#[test]
fn what_a_superseded_sequencer_appends_is_not_followed() {
    let view = plain_view(2);
    let sequencer = crate::roles::sequence::tests::start(&view, 0);
    let mut tracker = Tracker::new(&view, 0, 4);
    assert_eq!(tracker.follow(&mut |_| ()), Ok(1), "it starts");
    let mut append = IndexWriter::new(&view, 0, sequencer.epoch(), 0);
    append.append(IndexEntry { kind: entry_kind::SESSION_REFUSED, ..IndexEntry::default() });
    let mut zombie = CommitWriter::take(&view, 0);
    CommitWriter::take(&view, 1).claim(sequencer.epoch(), 2);
    zombie.advance(1, 1);
    assert_eq!(tracker.follow(&mut |_| panic!("told of what is void")), Ok(0));
    let mut late = Tracker::new(&view, 0, 4);
    assert_eq!((late.follow(&mut |_| ()), late.is_started()), (Ok(0), false));
}

/// It stood still while the index came round: it begins again from the checkpoints. Then a takeover: what was parked is forgotten, and
/// publishers hear of it.
#[test]
fn left_behind_or_taken_over_it_tells_of_what_it_missed() {
    let view = plain_view(2);
    let mut feeder = Feeder::new(&view, 0);
    let mut sequencer = start(&view, 0);
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    feeder.lane.publish(&open());
    (2..5).for_each(|now| {
        sequencer.pass(now);
    });
    let mut tracker = Tracker::new(&view, 0, 4);
    while tracker.follow(&mut |_| ()).unwrap() > 0 {}
    let slot = tracker.table().slot_of(FIRST).expect("it is open");
    tracker.attach(0, slot);
    for seq in 0..3000 {
        while !feeder.put(batch(FIRST, seq), 64) {
            sequencer.pass(10 + seq);
        }
    }
    (4000..4010).for_each(|now| {
        sequencer.pass(now);
    });
    while tracker.follow(&mut |_| ()).expect("it begins again") > 0 {}
    assert_eq!(tracker.take_dirty(), Some(slot));
    assert_eq!(tracker.ack(0).map(|ack| ack.committed_next), Some(3000));
    let _successor = start(&view, 1);
    assert_eq!((tracker.follow(&mut |_| ()), tracker.take_dirty()), (Ok(1), Some(slot)));
    assert_eq!(tracker.ack(0).map(|ack| ack.let_go_from), Some(3000));
    assert_eq!(tracker.ack(0).map(|ack| ack.let_go_from), Some(NOTHING_LET_GO));
}

/// The sequencer was stopped in the middle of a line of its directory: the segment cannot be made out, and is not gone.
#[test]
fn what_cannot_be_made_out_now_is_not_taken_for_gone() {
    let view = plain_view(2);
    let mut feeder = Feeder::new(&view, 0);
    let mut sequencer = start(&view, 0);
    let mut tracker = Tracker::new(&view, 0, 4);
    assert_eq!(tracker.follow(&mut |_| ()), Ok(1), "it starts");
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    sequencer.pass(2);
    let geometry = view.layout.geometry;
    let places = (0..BANKS).flat_map(|bank| (0..u64::from(geometry.segments)).map(move |place| (bank, place)));
    let lines: Vec<u64> = places.map(|(bank, place)| view.layout.directory_line(0, bank, 0, place)).collect();
    let guards: Vec<u64> = lines.iter().map(|at| view.memory.load(*at)).collect();
    lines.iter().for_each(|at| view.memory.store(*at, INVALID));
    assert!((0..10).all(|_| tracker.follow(&mut |_| ()) == Ok(0)), "not now");
    lines.iter().zip(guards).for_each(|(at, guard)| view.memory.store(*at, guard));
    assert_eq!(tracker.follow(&mut |_| ()), Ok(1));
}

/// What a sequencer that was succeeded left may be used again while it is read: no damage.
#[test]
fn damage_counts_only_under_the_highest_epoch() {
    let view = plain_view(2);
    let sequencer = start(&view, 0);
    let at = view.layout.session_line(0, 0);
    (1..8).for_each(|word| view.memory.store(at + 8 * word, u64::MAX));
    assert!(Tracker::new(&view, 0, 4).follow(&mut |_| ()).is_err());
    CommitWriter::take(&view, 1).claim(sequencer.epoch(), 2);
    assert_eq!(Tracker::new(&view, 0, 4).follow(&mut |_| ()), Ok(0));
}
