//! Acks under a sequencer that was superseded and does not know it, and acks of a tracker that was left behind.

use super::tracker::Tracker;
use crate::log::commit::CommitWriter;
use crate::log::order_index::IndexWriter;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::roles::sequence::tests::{Feeder, batch, open, start, topic_spec};
use crate::sim::memory::plain_view;
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
    feeder.lane.publish(&open(9));
    (2..5).for_each(|now| {
        sequencer.pass(now);
    });
    let mut tracker = Tracker::new(&view, 0, 4);
    while tracker.follow(&mut |_| ()).unwrap() > 0 {}
    let slot = tracker.table().slot_of(9).expect("it is open");
    tracker.attach(0, slot);
    for seq in 0..3000 {
        while !feeder.put(batch(9, seq), 64) {
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
