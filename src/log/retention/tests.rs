//! Floors and pins, step by step.

use super::*;
use crate::log::commit::CommitWriter;
use crate::log::member::Member;
use crate::log::views::plain_view;
use crate::pool::{Access, Process};
use crate::testing::memory::HostMemory;
use crate::testing::watched::Watched;

/// To where the next extent would end.
fn advance(trimmer: &mut Trimmer<HostMemory>) -> bool {
    let next = [32, 64, 96, 128].into_iter().find(|end| *end > trimmer.floor());
    trimmer.advance(next.expect("there is one"))
}

#[test]
fn a_pin_holds_the_floor_and_a_late_pin_withdraws() {
    let view = plain_view(1);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 0);
    trimmer.announce();
    let floors = FloorReader::new(&view);
    let mut pin = Pin::take(&view, 1, 1);
    pin.try_lower(40, &floors).unwrap();
    assert!(!advance(&mut trimmer), "nothing is given up past the checkpoint");
    trimmer.set_checkpoint(96);
    assert!(advance(&mut trimmer));
    assert_eq!(trimmer.floor(), 32);
    advance(&mut trimmer);
    assert!(trimmer.is_pinned());
    assert_eq!(trimmer.floor(), 40, "held by the pin");
    let mut late = Pin::take(&view, 0, 1);
    assert_eq!(late.try_lower(30, &floors), Err(Some(40)));
    assert_eq!(late.position(), NO_PIN);
    let line: Peer<PinLine, _> = Peer::new(view.memory.clone(), view.layout.pin_line(0), Access::Local);
    assert_eq!(line.observe().map(|pin| pin.position), Some(NO_PIN), "nor does it hold anything");
    // A reader goes from one broker to another: what it needs is wanted, and never without a pin.
    late.try_lower(40, &floors).unwrap();
    pin.raise(NO_PIN);
    advance(&mut trimmer);
    assert_eq!(trimmer.floor(), 40, "held by the other pin");
    late.raise(64);
    assert!(advance(&mut trimmer) && advance(&mut trimmer), "given up, then the next is wanted");
    assert!(!advance(&mut trimmer));
    assert_eq!(trimmer.floor(), 64);
}

/// Whoever claims may have to replay what the floors of its predecessor say is gone: they are nobody's until it is active.
#[test]
fn nothing_is_pinned_by_the_floors_of_a_superseded_sequencer() {
    let view = plain_view(2);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    Trimmer::new(&view, 0, epoch, 0, 0).announce();
    let floors = FloorReader::new(&view);
    let mut pin = Pin::take(&view, 0, 1);
    assert_eq!(pin.lower_to_floor(&floors), Some(0));
    pin.raise(NO_PIN);
    CommitWriter::take(&view, 1).claim(epoch, 1);
    assert_eq!((pin.lower_to_floor(&floors), pin.position()), (None, NO_PIN));
}

/// A pin that moves is unreadable for a moment. It holds all the same.
#[test]
fn a_pin_that_is_being_moved_holds() {
    for moment in 0..30 {
        let view = plain_view(1);
        let mut commit = CommitWriter::take(&view, 0);
        let epoch = commit.claim(0, 1);
        commit.activate(0);
        let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 100);
        trimmer.announce();
        Member::announce(&view, 1, Process::default());
        let watched = view.with_memory(Watched::new(view.memory.clone()));
        let mut pin = Pin::take(&watched, 1, 1);
        pin.try_lower(40, &FloorReader::new(&watched)).unwrap();
        watched.memory.at(moment, move || {
            trimmer.advance(100);
            assert!(trimmer.floor() <= 60, "moment {moment}: the floor is at {}", trimmer.floor());
        });
        pin.raise(60);
    }
}

#[test]
fn a_dead_brokers_pin_holds_nothing_and_its_successors_does() {
    let view = plain_view(1);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 0);
    trimmer.announce();
    let floors = FloorReader::new(&view);
    let announce = |incarnation| {
        let mut line: Owned<BrokerLine, _> = Owned::take(view.memory.clone(), view.layout.broker_line(1));
        line.publish(&BrokerLine { incarnation, ..BrokerLine::default() });
    };
    announce(1);
    Pin::take(&view, 1, 1).try_lower(10, &floors).unwrap();
    trimmer.set_checkpoint(96);
    advance(&mut trimmer);
    assert_eq!(trimmer.floor(), 10);
    trimmer.note_dead(1, 1);
    assert!(advance(&mut trimmer));
    assert_eq!(trimmer.floor(), 32);
    announce(2);
    let mut next = Pin::take(&view, 1, 2);
    next.try_lower(40, &floors).unwrap();
    advance(&mut trimmer);
    assert_eq!(trimmer.floor(), 40, "the successor lives");
    // It dies while it writes its pin.
    view.memory.store(view.layout.pin_line(1), 0);
    assert!(!advance(&mut trimmer));
    trimmer.note_dead(1, 2);
    assert!(advance(&mut trimmer));
    assert_eq!(trimmer.floor(), 64);
}

/// Several readers behind one pin, whose holder was stopped for long while memory was wanted: the lowest is told before anything of
/// it is handed on, the one above what is given up stays.
#[test]
fn a_hold_that_was_not_waited_for_ends_for_those_below() {
    let view = plain_view(1);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 0);
    trimmer.announce();
    Member::announce(&view, 1, Process::default());
    let mut hold = Hold::take(&view, 1, 1);
    assert_eq!((hold.lower_to_floor(), hold.look(10)), (Some(0), Ok(true)));
    trimmer.set_checkpoint(96);
    let mut now_ns = 0;
    let mut looks = |trimmer: &mut Trimmer<HostMemory>, count: u32| {
        for _ in 0..count {
            now_ns += 10;
            advance(trimmer);
            trimmer.judge_pins(now_ns, 10, |_| 100);
        }
    };
    for _ in 0..10 {
        looks(&mut trimmer, 8);
        assert_eq!(hold.look(10), Ok(true), "it shows itself in time");
    }
    assert_eq!((trimmer.floor(), trimmer.dropped_pins()), (10, 0));
    looks(&mut trimmer, 20);
    assert_eq!((trimmer.floor(), trimmer.dropped_pins()), (96, 1));
    assert_eq!(hold.look(10), Err(Dropped { closing: 96 }));
    assert_eq!(hold.look(40), Err(Dropped { closing: 96 }), "nor can those be pinned anew");
    assert_eq!((hold.look(96), hold.position()), (Ok(true), 96), "the others");
    trimmer.set_checkpoint(128);
    looks(&mut trimmer, 8);
    assert_eq!(trimmer.floor(), 96, "are waited for again");
}

/// The trimmer says what it is about to close, and finds a pin below that which was not there when it looked first: it waits for it, and the
/// holder is not told that it does not. (Seed 36098 of its time: a reader was let go, and what was being sent to it used again.)
#[test]
fn a_pin_below_what_is_closing_is_waited_for_until_it_is_dropped() {
    let view = plain_view(1);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 96);
    trimmer.announce();
    let floors = FloorReader::new(&view);
    let mut pin = Pin::take(&view, 1, 1);
    let closes = |trimmer: &mut Trimmer<HostMemory>, closing| {
        trimmer.record.closing = closing;
        trimmer.floors.publish(&trimmer.record);
    };
    pin.try_lower(10, &floors).unwrap();
    closes(&mut trimmer, 64);
    assert!(!trimmer.advance(64) || trimmer.floor() == 10, "it is waited for");
    assert_eq!((trimmer.floor(), pin.renew(10, &floors)), (10, Ok(true)));
    assert_eq!(pin.renew(20, &floors), Ok(true), "and moves up");
    trimmer.advance(64);
    assert_eq!(trimmer.floor(), 20);
    // It does not look after it, and is not waited for: it is told, though the floor has not moved yet.
    trimmer.drop_pin(1);
    assert_eq!(pin.renew(20, &floors), Err(Dropped { closing: 64 }));
    // Another sequencer has counted for itself: by its floors nothing is known of what its predecessor did.
    pin.try_lower(64, &floors).unwrap();
    let epoch = commit.claim(64, 2);
    commit.activate(64);
    let mut next = Trimmer::new(&view, 0, epoch, 20, 96);
    next.set_dropped_pins(trimmer.dropped_pins());
    closes(&mut next, 90);
    assert_eq!(pin.renew(64, &floors), Err(Dropped { closing: 90 }));
    // What is gone is gone, whoever was dropped.
    let mut pin = Pin::take(&view, 1, 2);
    pin.try_lower(92, &floors).unwrap();
    (next.record.closing, next.record.floor) = (96, 93);
    next.floors.publish(&next.record);
    assert_eq!(pin.renew(92, &floors), Err(Dropped { closing: 96 }));
}

/// A broker died, what its readers had pinned went, and it is back: they are told so before they are handed other bytes.
#[test]
fn what_went_with_a_dead_process_is_not_held_by_the_next() {
    let view = plain_view(1);
    let mut commit = CommitWriter::take(&view, 0);
    let epoch = commit.claim(0, 1);
    commit.activate(0);
    let mut trimmer = Trimmer::new(&view, 0, epoch, 0, 100);
    trimmer.announce();
    let mut former = Hold::take(&view, 1, 1);
    assert_eq!((former.lower_to_floor(), former.look(10)), (Some(0), Ok(true)));
    trimmer.note_dead(1, 1);
    assert!(advance(&mut trimmer));
    let mut hold = Hold::take_on(&view, 1, 2);
    assert_eq!((hold.position(), hold.look(10)), (10, Err(Dropped { closing: 32 })));
    assert_eq!((hold.look(32), hold.position()), (Ok(true), 32));
}

/// Found by simulation: an attached subscriber showed itself just after it was given up on, and was killed before it saw that. Its pin
/// stood below the floor, where it was neither judged nor passed, and no lane ever got memory again.
#[test]
fn a_pin_below_the_floor_holds_nothing() {
    let view = plain_view(1);
    let mut trimmer = Trimmer::new(&view, 0, 1, 0, 100);
    let mut pin = Pin::take(&view, 1, 1);
    pin.try_lower(10, &FloorReader::new(&view)).expect_err("nobody is active");
    (pin.record.position, pin.record.beat) = (10, 1);
    pin.line.publish(&pin.record);
    (0..20).for_each(|time| {
        trimmer.advance(32);
        trimmer.judge_pins(10 * time, 10, |_| 100);
    });
    assert_eq!((trimmer.floor(), trimmer.dropped_pins()), (32, 1));
    pin.record.beat += 1;
    pin.line.publish(&pin.record);
    trimmer.judge_pins(210, 10, |_| 100);
    assert!(trimmer.advance(40));
    assert_eq!(trimmer.floor(), 40);
}

/// Where a killed holder's line is cut short it may name any position: it is judged though nothing above the floor is wanted.
#[test]
fn a_pin_that_cannot_be_read_is_judged_at_the_floor() {
    let view = plain_view(1);
    let mut trimmer = Trimmer::new(&view, 0, 1, 5, 100);
    drop(Pin::take(&view, 1, 1));
    view.memory.store(view.layout.pin_line(1), crate::pool::line::INVALID);
    trimmer.advance(32);
    assert!(trimmer.floor() == 5 && trimmer.is_pinned(), "it holds, and is looked at");
    (0..20).for_each(|time| trimmer.judge_pins(10 * time, 10, |_| 100));
    assert!(advance(&mut trimmer) && !trimmer.is_pinned());
    assert_eq!(trimmer.floor(), 32);
}
