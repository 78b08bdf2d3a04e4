//! Named cursors through lane, sequencer and index: each request once, in the order, whoever is killed.

use super::tests::{Feeder, start, topic_spec};
use crate::log::View;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::cursors::{CURSOR_SPEC_BYTES, CursorReader, write_request};
use crate::log::mend::mend_candidate;
use crate::log::order_index::IndexReader;
use crate::log::views::{host_views, plain_view};
use crate::pool::Memory;
use crate::pool::record::{BatchSlot, CursorLine, IndexEntry, entry_kind, slot_kind};
use crate::testing::memory::{HostMemory, Whim};
use crate::testing::watched::Watched;
use crate::wire::OrderLevel;

/// Places of the blog that nothing else of these tests uses.
fn request(view: &View<impl Memory>, lane: u32, number: u64, kind: u8, cursor: &CursorLine) -> BatchSlot {
    let at = super::tests::aside(view, lane) + (number + 4) * CURSOR_SPEC_BYTES;
    write_request(view, at, cursor);
    BatchSlot { kind, blog_at: at, batch_bytes: CURSOR_SPEC_BYTES as u32, ..BatchSlot::default() }
}

/// Orders of the set requests that were committed, in the order.
fn committed(view: &View<impl Memory>) -> Vec<u64> {
    let commit = CommitReader::new(view).current().expect("active");
    let mut index = IndexReader::new(view, 0);
    let (mut entries, mut found) = ([IndexEntry::default(); 64], Vec::new());
    loop {
        let count = index.read(&commit, &mut entries).expect("sound");
        if count == 0 {
            return found;
        }
        let sets = entries[..count].iter().filter(|entry| entry.kind == entry_kind::CURSOR_SET);
        found.extend(sets.map(|entry| entry.first_order));
        index.advance(count);
    }
}

#[test]
fn a_cursor_is_set_moved_and_removed() {
    let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
    let (here, there) = (&views[0], &views[1]);
    let mut sequencer = start(here, 0);
    let mut feeder = Feeder::new(here, 0);
    let mut far = Feeder::new(there, 1);
    feeder.lane.publish(&topic_spec(here, OrderLevel::Session));
    sequencer.pass(1);
    let reader = CursorReader::new(there);
    let cursor = |order| CursorLine::new(0, "billing", order);
    feeder.lane.publish(&request(here, 0, 0, slot_kind::CURSOR_SET, &cursor(5)));
    sequencer.pass(2);
    assert_eq!(reader.find(0, "billing"), Ok(Some((Some(cursor(5)), true))));
    far.lane.publish(&request(there, 1, 0, slot_kind::CURSOR_SET, &cursor(9)));
    sequencer.pass(3);
    assert_eq!(reader.find(0, "billing"), Ok(Some((Some(cursor(9)), true))));
    far.lane.publish(&request(there, 1, 1, slot_kind::CURSOR_DELETE, &cursor(0)));
    sequencer.pass(4);
    assert_eq!(reader.find(0, "billing"), Ok(Some((None, true))));
    assert_eq!(sequencer.counters().invalid_slots, 0);
    feeder.lane.publish(&request(here, 0, 1, slot_kind::CURSOR_SET, &CursorLine::new(7, "no such topic", 1)));
    // Meant for a topic that had the number before.
    let stale = request(here, 0, 2, slot_kind::CURSOR_SET, &CursorLine::new(0, "stale", 1));
    feeder.lane.publish(&BatchSlot { batch_seq: 3, ..stale });
    feeder.lane.publish(&BatchSlot { kind: slot_kind::CURSOR_SET, blog_at: 64, ..BatchSlot::default() });
    (5..9).for_each(|now| {
        sequencer.pass(now);
    });
    assert_eq!(sequencer.counters().invalid_slots, 3);
    // A request whose lines this host had in its cache from before.
    let at = request(there, 1, 2, slot_kind::CURSOR_SET, &cursor(40));
    here.memory.with_bytes(at.blog_at, 64, |bytes| assert_eq!(bytes.len(), 64));
    far.lane.publish(&request(there, 1, 2, slot_kind::CURSOR_SET, &cursor(41)));
    sequencer.pass(9);
    assert_eq!(reader.find(0, "billing"), Ok(Some((Some(cursor(41)), true))));
}

/// What it goes on writing once a higher epoch is claimed is seen by nobody.
#[test]
fn a_superseded_sequencer_moves_no_cursor() {
    let view = plain_view(2);
    let mut sequencer = start(&view, 0);
    let mut feeder = Feeder::new(&view, 0);
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    let reader = CursorReader::new(&view);
    let epoch = CommitReader::new(&view).highest_claimed();
    CommitWriter::take(&view, 1).claim(epoch, 2);
    feeder.lane.publish(&request(&view, 0, 0, slot_kind::CURSOR_SET, &CursorLine::new(0, "billing", 5)));
    sequencer.pass(2);
    assert_eq!(reader.find(0, "billing"), Ok(None), "a takeover is under way");
}

/// One lane's request after another's: killed between any two operations and succeeded, each is committed once, and the cursor
/// stands where the last of the order put it.
#[test]
fn killed_between_any_two_operations_each_request_counts_once() {
    let mut killed = 0;
    for operation in (0..400).chain((400..3000).step_by(13)) {
        let view = plain_view(2);
        let watched = Watched::new(view.memory.clone());
        let mut first = start(&view.with_memory(watched.clone()), 0);
        let mut lanes: [Feeder<HostMemory>; 2] = [Feeder::new(&view, 0), Feeder::new(&view, 1)];
        lanes[0].lane.publish(&topic_spec(&view, OrderLevel::Session));
        first.pass(1);
        let mut ask = |order: u64| {
            let lane = order as u32 % 2;
            let slot = request(&view, lane, order, slot_kind::CURSOR_SET, &CursorLine::new(0, "c", order));
            lanes[lane as usize].lane.publish(&slot);
        };
        let whole = watched.killed_at(operation, || {
            for order in 0..8 {
                ask(order);
                first.pass(2 + order);
            }
        });
        killed += u32::from(whole.is_none());
        mend_candidate(&view, 0);
        let mut second = start(&view, (operation % 2) as u32);
        (0..4).for_each(|now| {
            second.pass(100 + now);
        });
        let sets = committed(&view);
        let mut once = sets.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), sets.len(), "killed before operation {operation}: {sets:?}");
        let found =
            CursorReader::new(&view).find(0, "c").expect("sound").expect("readable").0.map(|cursor| cursor.order);
        assert_eq!(found, sets.last().copied(), "killed before operation {operation}");
    }
    assert!(killed > 400, "only {killed} were killed");
}
