//! Who is granted what, and when: the policy alone, and with lanes and sequencers that come and go.

use std::sync::Arc;

use super::active::ActiveSequencer;
use super::stock::{Presence, Stock};
use super::tests::{FIRST, Feeder, batch, open, start, topic_spec, with_session};
use crate::limits::{EXTENTS_FOUNDING, GRANTS_AHEAD_MAX};
use crate::log::View;
use crate::log::appender::Appender;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::entry::grant_number;
use crate::log::extents::Extents;
use crate::log::faults::FaultNotes;
use crate::log::grants::{Grant, GrantReader, GrantWriter};
use crate::log::retention::FloorReader;
use crate::log::views::{host_views, plain_view};
use crate::order::{Arrival, Event};
use crate::pool::record::{BatchSlot, GrantLine, LaneStatus, holding, slot_kind};
use crate::pool::{Access, Geometry, Layout, Memory};
use crate::testing::memory::{HostMemory, Whim, small_geometry};
use crate::testing::watched::Watched;
use crate::wire::OrderLevel;

/// Lanes that write as they are told, and the stock between them.
struct Table {
    layout: Arc<Layout>,
    stock: Stock,
    position: u64,
    /// By lane: extents in hand, and taken ever.
    hands: Vec<Vec<u32>>,
    taken: Vec<u64>,
}

impl Table {
    fn new(brokers: u32, pool_bytes: u64) -> Table {
        let geometry = Geometry { brokers, pool_bytes, ..small_geometry(1) };
        let layout = Arc::new(Layout::new(geometry).unwrap());
        let stock = Stock::new(&layout, Extents::founded(&layout.geometry));
        let lanes = layout.geometry.lanes();
        let hands = (0..lanes).map(|lane| layout.geometry.founding_extents(lane).collect()).collect();
        Table { layout, stock, position: 0, hands, taken: vec![EXTENTS_FOUNDING.into(); lanes as usize] }
    }

    fn happen(&mut self, event: Event) {
        self.stock.happen(self.position, &event);
        self.position += 1;
    }

    fn hear(&mut self, lane: usize, is_waiting: bool, presence: Presence) {
        let status = LaneStatus {
            incarnation: 1,
            free_extents: self.hands[lane].len() as u64,
            taken: self.taken[lane],
            paused: is_waiting.into(),
            ..LaneStatus::default()
        };
        self.stock.hear(lane as u32, Some(status), presence);
    }

    /// Grants what can be; gives to whom.
    fn grant(&mut self, first: usize) -> Vec<u32> {
        let mut to = Vec::new();
        while let Some((lane, extent)) = self.stock.next_grant(first) {
            let number = self.stock.extents().granted(lane);
            self.happen(Event::Granted { extent, lane: lane as u16, number });
            self.hands[lane as usize].push(extent);
            self.taken[lane as usize] += 1;
            to.push(lane);
        }
        to
    }

    /// A lane fills an extent of its hand with a batch, and closes it. False: it has none.
    fn fill(&mut self, lane: usize) -> bool {
        if self.hands[lane].is_empty() {
            return false;
        }
        let extent = self.hands[lane].remove(0);
        let blog_at = self.layout.extent(extent);
        let arrival = Arrival { lane: lane as u16, blog_at, batch_bytes: 64, message_count: 1, ..Arrival::default() };
        self.happen(Event::Batch { slot: 0, arrival, first_order: 0 });
        self.happen(Event::ExtentClosed { extent, lane: lane as u16, lane_slot: 9 });
        true
    }
}

/// All lanes are in need at once, and there is hardly any stock: each gets one before any gets a second, and nobody waits for longer than
/// all others take one.
#[test]
fn no_lane_starves() {
    let lanes = 20;
    let mut table = Table::new(lanes, 28 << 20);
    let lanes = lanes as usize;
    let mut waits = vec![0; lanes];
    let mut longest = 0;
    for pass in 0..4000 {
        for (lane, waits) in waits.iter_mut().enumerate() {
            *waits = if table.fill(lane) { 0 } else { *waits + 1 };
            longest = longest.max(*waits);
            table.hear(lane, *waits > 0, Presence::There);
        }
        // Two extents' worth is given up in a pass, however many are wanted.
        let floor = table.position.saturating_sub(2 * lanes as u64);
        table.stock.take_back(floor, |_| u64::MAX);
        table.grant(pass % lanes);
    }
    assert!(longest <= 40, "a lane was without memory for {longest} passes");
    let mut table = Table::new(20, 28 << 20);
    (0..lanes).for_each(|lane| while table.fill(lane) {});
    (0..lanes).for_each(|lane| table.hear(lane, true, Presence::There));
    let mut got = table.grant(7);
    let before = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), before.min(lanes), "a second one before all others had one: {before}");
}

#[test]
fn what_may_still_come_into_the_order_keeps_its_extent() {
    let mut table = Table::new(2, 16 << 20);
    table.fill(0);
    let end = table.position;
    let free = table.stock.in_stock();
    assert!(!table.stock.take_back(end, |_| 8), "a batch in it is parked");
    assert!(!table.stock.take_back(0, |_| 9), "what it holds is kept");
    assert_eq!(table.stock.oldest_end(), Some(1));
    assert!(table.stock.take_back(1, |_| 9));
    assert_eq!((table.stock.in_stock(), table.stock.oldest_end()), (free + 1, None));
}

/// What lies where memory failed goes with all before it, and nobody is granted that extent again.
#[test]
fn an_extent_whose_memory_failed_is_granted_to_nobody() {
    let mut table = Table::new(2, 16 << 20);
    let (held, stocked) = (table.hands[0][0], table.layout.geometry.extents - 1);
    for extent in [held, stocked] {
        assert!(table.stock.retire(extent) && !table.stock.retire(extent), "once");
    }
    assert_eq!(table.stock.failed_end(), None, "its lane has it");
    table.fill(1);
    table.fill(0);
    assert_eq!(table.stock.failed_end(), Some(3), "the batch in it, behind another's that was closed");
    let mut granted = 0;
    for pass in 0..400 {
        (0..2).for_each(|lane| {
            table.fill(lane);
            table.hear(lane, true, Presence::There);
        });
        table.stock.take_back(table.position, |_| 9);
        granted += table.grant(pass % 2).len();
        assert!(!table.hands.iter().flatten().any(|extent| [held, stocked].contains(extent)), "in pass {pass}");
    }
    assert!(granted > 400, "others are granted again and again: {granted}");
    assert_eq!(table.stock.failed_end(), None, "it went");
}

/// Memory fails under a process that a reader made read it; the sequencer hears of it, as does each of its successors.
#[test]
fn what_lies_where_memory_failed_is_given_up() {
    let view = plain_view(2);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut seq = 0;
    let failed = view.layout.geometry.founding_extents(0).start;
    // Two extents are filled, and some of the third.
    while sequencer.stock().extents().is_of(failed, 0) || seq < 40 {
        assert!(feeder.put(batch(FIRST, seq), 64 << 10));
        seq += 1;
        sequencer.pass(1_000_000 * seq);
    }
    let floor = |view: &View<HostMemory>| FloorReader::new(view).read().expect("one is active").floor;
    assert_eq!(floor(&view), 0, "nothing had to go");
    FaultNotes::open(&view, 1).note(view.layout.extent(failed) + 70_000);
    sequencer.call_the_roll(1_000_000 * seq, |_| false);
    sequencer.pass(1_000_000 * seq);
    assert!(floor(&view) > 0 && sequencer.stock().extents().get(failed).state == holding::STOCK);
    let is_free = |sequencer: &ActiveSequencer<HostMemory>| {
        let all = sequencer.stock().extents().all();
        sequencer.stock().in_stock() == all.iter().filter(|known| known.state == holding::STOCK).count() as u64
    };
    assert!(!is_free(&sequencer), "one of those that nobody has is no stock");
    let mut successor = start(&view, 1);
    successor.look_at_failed_memory();
    successor.pass(1_000_000 * seq);
    assert!(successor.stock().extents().get(failed).state == holding::STOCK && !is_free(&successor));
}

/// A lane that writes fast gets ahead of what it begins; once it rests it is granted less, and what it does not use is asked back only when
/// somebody has nothing.
#[test]
fn who_writes_fast_has_more_in_hand() {
    let mut table = Table::new(2, 64 << 20);
    let mut now_ns = 0;
    let mut turn = |table: &mut Table, fills: usize| {
        now_ns += 10_000_000;
        (0..fills).for_each(|_| {
            table.fill(0);
        });
        (0..2).for_each(|lane| table.hear(lane, false, Presence::There));
        table.stock.look(now_ns);
        table.stock.take_back(u64::MAX, |_| u64::MAX);
        table.grant(0);
        table.hands[0].len()
    };
    (0..50).for_each(|_| {
        turn(&mut table, 8);
    });
    assert!(turn(&mut table, 0) > 8, "{:?}", table.hands);
    assert!(table.hands[0].len() <= GRANTS_AHEAD_MAX as usize && table.hands[1].len() == EXTENTS_FOUNDING as usize);
    (0..400).for_each(|_| {
        turn(&mut table, 0);
    });
    table.fill(0);
    let before = table.hands[0].len();
    assert_eq!(turn(&mut table, 0), before, "it has enough by now");
}

/// The last of the stock is for whoever will have none: who has one in hand gets no other, however much it wants.
#[test]
fn the_last_of_the_stock_is_kept_for_who_has_none() {
    let mut table = Table::new(2, 256 << 20);
    let mut now_ns = 0;
    let mut is_seen = false;
    for turn in 0..400 {
        now_ns += 10_000_000;
        (0..8).for_each(|_| {
            table.fill(0);
        });
        (0..2).for_each(|lane| table.hear(lane, false, Presence::There));
        table.stock.look(now_ns);
        if turn < 50 {
            table.stock.take_back(u64::MAX, |_| u64::MAX);
        }
        // Then nothing comes back any more.
        let left = table.stock.in_stock();
        let is_granted = !table.grant(0).is_empty();
        if (1..4).contains(&left) && is_granted {
            assert_eq!(table.hands[0].len(), 1, "{left} were left");
            is_seen = true;
        }
    }
    assert!(is_seen, "there never was little");
}

#[test]
fn what_nobody_uses_is_asked_back_when_somebody_has_nothing() {
    let mut table = Table::new(2, 4 << 20);
    // Nothing of what it writes can be given up yet.
    while table.fill(0) {
        table.hear(0, true, Presence::There);
        table.hear(1, false, Presence::There);
        table.grant(0);
    }
    table.hear(0, true, Presence::There);
    table.stock.take_back(0, |_| 0);
    assert_eq!((table.stock.recall(0), table.stock.recall(1)), (0, 2), "it may keep what it wants, which is one");
    assert!(!table.stock.has_been_dry(1, 10), "the other has some in hand");
    assert_eq!((table.stock.recall(0), table.stock.recall(1)), (0, 1));
    assert!(table.stock.has_been_dry(11, 10), "and does not give it back");
    let extent = table.hands[1].pop().expect("it has some");
    table.happen(Event::ExtentClosed { extent, lane: 1, lane_slot: 0 });
    assert!(table.stock.take_back(0, |_| 0), "nothing was ever in it");
    assert!(!table.stock.has_been_dry(12, 10));
    assert_eq!((table.grant(0), table.stock.recall(1)), (vec![0], 2));
}

/// A lane that shows no life is given one that nobody else lacks; one that has ended, none.
#[test]
fn silence_is_no_end() {
    for (presence, expected) in [(Presence::Silent, vec![1]), (Presence::Away, vec![])] {
        let mut table = Table::new(2, 16 << 20);
        table.hands[1].clear();
        table.hear(1, true, presence);
        assert_eq!(table.grant(0), expected, "{presence:?}");
        assert!(table.stock.wants_given_up().is_none() && !table.stock.is_in_need(1), "nothing is given up for it");
    }
}

/// Only who has an extent closes it, and names it by the grant it has it by.
#[test]
fn a_stale_close_says_nothing() {
    let mut table = Table::new(2, 16 << 20);
    let at = |table: &Table, extent| table.layout.extent(extent);
    assert_eq!(table.stock.closes(0, at(&table, 0), 0), Some(0));
    assert_eq!(table.stock.closes(1, at(&table, 0), 0), None, "another's");
    assert_eq!(table.stock.closes(0, at(&table, 0), 7), None, "of another grant");
    assert_eq!(table.stock.closes(0, at(&table, 0) + 64, 0), None, "no extent begins there");
    assert_eq!(table.stock.closes(0, u64::MAX, 0), None);
    table.fill(0);
    assert_eq!(table.stock.closes(0, at(&table, 0), 0), None, "closed before");
    table.stock.take_back(u64::MAX, |_| u64::MAX);
    let grant = grant_number(table.position);
    table.happen(Event::Granted { extent: 0, lane: 0, number: 4 });
    assert_eq!(table.stock.closes(0, at(&table, 0), 0), None, "it is the lane's again, by another grant");
    assert_eq!(table.stock.closes(0, at(&table, 0), grant), Some(0));
}

/// Memory goes from a lane on one host to a lane on another and back, under load, and whoever takes over as sequencer goes on with it.
#[test]
fn memory_goes_from_host_to_host_whoever_is_the_sequencer() {
    for takeover in 0..20 {
        let (_, views) = host_views([0, 1], &[0, 1], Whim::HARSH, takeover);
        let mut sequencer = start(&views[0], 0);
        let mut feeders = [Feeder::new(&views[0], 0), Feeder::new(&views[1], 1)];
        feeders[0].lane.publish(&topic_spec(&views[0], OrderLevel::Session));
        sequencer.pass(1);
        feeders[0].lane.publish(&open());
        sequencer.pass(2);
        let (mut now, mut next) = (3, 0);
        let mut of = [0; 2];
        // One writes all, then the other, in turn.
        for turn in 0..6 {
            let feeder = &mut feeders[turn % 2];
            for _ in 0..200 {
                if feeder.put(batch(FIRST, next), 64 << 10) {
                    (next, of[turn % 2]) = (next + 1, of[turn % 2] + 1);
                }
                now += 100_000;
                sequencer.pass(now);
                if now / 100_000 == 37 * takeover {
                    sequencer = match takeover % 2 {
                        0 => start(&views[1], 1),
                        _ => start(&views[0], 0),
                    };
                }
            }
        }
        assert!(of.iter().all(|count| *count > 500), "takeover at {takeover}: {of:?}");
        let moved = |lane: u32| {
            let other = |extent: &u32| views[0].layout.geometry.founding_extents(1 - lane).contains(extent);
            let of_lane = (0..).zip(sequencer.stock().extents().all()).filter(|(_, known)| known.lane == lane);
            of_lane.map(|(extent, _)| extent).filter(other).count()
        };
        assert!(moved(0) + moved(1) > 0, "what one was founded with is the other's by now");
        assert_eq!(sequencer.counters().invalid_slots, 0, "takeover at {takeover}");
    }
}

/// A claimant that was superseded grants what nobody takes; and its numbers are given by its successor to others.
#[test]
fn what_a_superseded_sequencer_grants_is_not_taken() {
    let view = plain_view(2);
    let extents = Extents::founded(&view.layout.geometry);
    let mut first = CommitWriter::take(&view, 0);
    let epoch = first.claim(0, 1);
    let writer = GrantWriter::take_over(&view, 0, epoch, &extents);
    first.activate(0);
    let reader = CommitReader::new(&view);
    let mut lane = GrantReader::new(&view, 0, EXTENTS_FOUNDING.into());
    assert_eq!(lane.take(&reader), None);
    let tell = |writer: &GrantWriter<_>, number: u64, extent| {
        writer.write(0, number, Grant { extent, grant: 100 + number });
        view.memory.store_fence();
    };
    tell(&writer, 4, 20);
    assert_eq!(lane.take(&reader), Some(Grant { extent: 20, grant: 104 }));
    let mut second = CommitWriter::take(&view, 1);
    second.claim(epoch, 1);
    tell(&writer, 5, 21);
    assert_eq!(lane.take(&reader), None, "somebody has claimed");
    let successor = GrantWriter::take_over(&view, 1, epoch + 1, &extents);
    second.activate(0);
    tell(&writer, 5, 21);
    assert_eq!(lane.take(&reader), None, "nobody looks there");
    tell(&successor, 5, 22);
    assert_eq!(lane.take(&reader), Some(Grant { extent: 22, grant: 105 }));
    // The first is the sequencer again: what it had told in its former life is not what it tells now.
    let mut again = CommitWriter::take(&view, 0);
    let epoch = again.claim(epoch + 1, 1);
    let mut known = extents.clone();
    for (position, number) in [(104, 4), (105, 5)] {
        known.apply(position, &Event::Granted { extent: 20 + number as u32, lane: 0, number }, &view.layout);
    }
    tell(&writer, 6, 23);
    let former = writer;
    let writer = GrantWriter::take_over(&view, 0, epoch, &known);
    again.activate(0);
    assert_eq!(lane.take(&reader), None, "the seventh was not granted");
    tell(&former, 6, 23);
    assert_eq!(lane.take(&reader), None, "of an epoch that is over");
    tell(&writer, 6, 24);
    assert_eq!(lane.take(&reader), Some(Grant { extent: 24, grant: 106 }));
}

/// Of what a lane was granted nothing is lost, nor begun twice, wherever its writer is killed.
#[test]
fn a_lane_taken_over_has_what_it_was_granted() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut next = 0;
    for now in 2..400 {
        if feeder.put(batch(FIRST, next), 64 << 10) {
            next += 1;
        }
        sequencer.pass(now * 1_000_000);
        if now % 7 == 0 {
            feeder = Feeder { lane: Appender::take(&view, 0), ..feeder };
        }
    }
    assert_eq!(sequencer.counters().appended_batches, next);
    assert_eq!(sequencer.counters().invalid_slots, 0);
    let of_lane = |known: &&crate::pool::record::HoldingLine| known.lane == 0 && known.state == holding::GRANTED;
    let held = sequencer.stock().extents().all().iter().filter(of_lane).count();
    assert!(held <= 2 * GRANTS_AHEAD_MAX as usize, "{held} extents are the lane's");
    let foreign = BatchSlot { kind: slot_kind::BATCH, blog_at: view.layout.extent(4), ..batch(FIRST, next) };
    feeder.lane.publish(&BatchSlot { batch_bytes: 128, ..foreign });
    sequencer.pass(401_000_000);
    assert_eq!(sequencer.counters().invalid_slots, 1, "what is another lane's is not named by this one");
}

/// Its candidate was the sequencer twice: of what it had told in between lives nothing is told again that was not granted.
#[test]
fn grants_of_a_former_life_are_not_told_again() {
    let view = plain_view(1);
    let extents = Extents::founded(&view.layout.geometry);
    let at = |number| view.layout.grant_line(0, 0, number);
    let former = GrantWriter::take_over(&view, 0, 1, &extents);
    former.write(0, 6, Grant { extent: 23, grant: 9 });
    assert_ne!(view.memory.load(at(6)), 0);
    GrantWriter::take_over(&view, 0, 2, &extents);
    assert_eq!(view.memory.load(at(6)), 0, "it was never granted");
}

/// The first lane, which has begun all that it was founded with, and waits for more.
fn lane_in_need(view: &View<HostMemory>) -> Appender<HostMemory> {
    let mut lane = Appender::take(view, 0);
    (0..EXTENTS_FOUNDING).for_each(|_| {
        lane.acquire(64, view.layout.geometry.extent_bytes).expect("a founding extent");
    });
    lane.report(true);
    lane
}

/// A lane that had not heard of its last grants before the sequencer was killed hears of them from the next one.
#[test]
fn what_was_granted_is_told_anew_by_a_successor() {
    let view = plain_view(2);
    let mut sequencer = start(&view, 0);
    let mut lane = lane_in_need(&view);
    (1..4).for_each(|now| {
        sequencer.pass(now);
    });
    let granted = sequencer.stock().extents().granted(0);
    assert!(granted > EXTENTS_FOUNDING.into());
    let _successor = start(&view, 1);
    lane.refresh(u64::MAX);
    assert_eq!(lane.free_extents(), granted - u64::from(EXTENTS_FOUNDING));
}

/// Whoever has the lane next takes anew only what was not begun: so what was taken is told first.
#[test]
fn what_is_taken_is_told_before_it_is_begun() {
    let view = plain_view(1);
    let mut sequencer = start(&view, 0);
    let mut lane = lane_in_need(&view);
    (1..4).for_each(|now| {
        sequencer.pass(now);
    });
    lane.refresh(u64::MAX);
    assert!(lane.free_extents() > 0);
    let status: LaneStatus = crate::pool::line::observe_words(&view.memory, view.layout.lane_status(0), Access::Local);
    assert_eq!(status.taken, u64::from(EXTENTS_FOUNDING) + lane.free_extents());
}

/// Whatever the sequencer is killed at: what a lane was told it has, the log says too.
#[test]
fn no_grant_is_seen_before_it_is_committed() {
    let view = plain_view(1);
    let watched = Watched::new(view.memory.clone());
    let mut sequencer = start(&view.with_memory(watched.clone()), 0);
    let _lane = lane_in_need(&view);
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (looks, told) = (view.clone(), seen.clone());
    watched.on_each(move || {
        let commit = CommitReader::new(&looks).current().expect("it is active");
        for number in 4..8 {
            let at = looks.layout.grant_line(0, 0, number);
            if let Some((guard, line)) = crate::pool::line::read::<_, GrantLine>(&looks.memory, at)
                && guard == number + 1
            {
                assert!(
                    line.grant <= commit.watermark,
                    "grant {} is told, {} is committed",
                    line.grant,
                    commit.watermark
                );
                told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    (1..4).for_each(|now| {
        sequencer.pass(now);
    });
    watched.stop();
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

/// Nothing can be granted, and nothing of the log is left to be given up: what its lanes have begun is, and they are told so although the floor stands
/// where it stood. (Seed 1584.)
#[test]
fn what_is_given_up_is_told_where_the_floor_stands_already() {
    let view = plain_view(1);
    let (mut sequencer, mut feeder) = with_session(&view);
    let mut now_ns = 1_000_000_000;
    for step in 0..600 {
        if step % 200 == 0 {
            // Consumed, and not appended.
            feeder.lane.publish(&BatchSlot { kind: slot_kind::SESSION_ALIVE, session: FIRST, ..BatchSlot::default() });
        }
        while feeder.lane.acquire(64, view.layout.geometry.extent_bytes).is_some() {}
        feeder.lane.refresh(u64::MAX);
        feeder.lane.report(true);
        now_ns += 10_000_000;
        sequencer.pass(now_ns);
    }
    feeder.lane.refresh(u64::MAX);
    assert_eq!((sequencer.stock().in_stock(), feeder.lane.free_extents()), (0, 0), "it is dry");
    assert_eq!(feeder.lane.progress().reusable, feeder.lane.produced());
}
