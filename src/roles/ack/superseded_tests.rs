//! Acks under a sequencer that was superseded and does not know it.

use super::tracker::Tracker;
use crate::log::commit::CommitWriter;
use crate::log::order_index::IndexWriter;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::sim::memory::plain_view;

/// An ack cannot be undone: once a higher epoch is claimed, nothing of the old one is followed, nor begun with.
#[test]
fn what_a_superseded_sequencer_appends_is_not_followed() {
    let view = plain_view(2);
    let sequencer = crate::roles::sequence::tests::start(&view, 0);
    let mut tracker = Tracker::new(&view, 0, 4);
    assert_eq!(tracker.follow(&mut |_| ()), Ok(1), "it starts");
    let mut append = IndexWriter::new(&view, 0, sequencer.epoch(), 0, 0);
    append.append(IndexEntry { kind: entry_kind::SESSION_REFUSED, ..IndexEntry::default() });
    let mut zombie = CommitWriter::take(&view, 0);
    CommitWriter::take(&view, 1).claim(sequencer.epoch(), 2);
    zombie.advance(1, 1);
    assert_eq!(tracker.follow(&mut |_| panic!("told of what is void")), Ok(0));
    let mut late = Tracker::new(&view, 0, 4);
    assert_eq!((late.follow(&mut |_| ()), late.is_started()), (Ok(0), false));
}
