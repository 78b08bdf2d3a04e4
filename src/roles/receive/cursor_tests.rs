//! A commit of a cursor is answered as it went.
use super::desk::{Asked, Desk, Maker};
use super::ingest::Ingest;
use super::requests::look;
use crate::log::cursors::CursorReader;
use crate::log::topics::{Topic, TopicReader};
use crate::log::views::plain_view;
use crate::pool::Keep;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::roles::addresses::{Address, AddressBounds, Addresses, Cost, Turn};
use crate::roles::sequence::tests::start;
use crate::wire::frame::{self, Request};
use crate::wire::{AckLevel, Operation, OrderLevel};

fn commit(name: &str) -> Asked {
    let request = Request { operation: Operation::CursorCommit as u8, topic_bytes: 1, number: 5, ..Request::default() };
    let body = [b"t", name.as_bytes()].concat();
    let whole = frame::with_body(&request, &body);
    Asked::read(whole[..64].try_into().unwrap(), &body).unwrap()
}

#[test]
fn two_commits_for_the_last_place_are_not_both_answered_done() {
    let view = plain_view(1);
    let mut sequencer = start(&view, 0);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    assert!(ingest.lane.ask_for_topic(&Topic::new("t", OrderLevel::Session, AckLevel::Committed)).is_some());
    sequencer.pass(1);
    let mut topics = TopicReader::new(&view);
    let cursors = CursorReader::new(&view);
    let addresses = Addresses::new(AddressBounds::NONE);
    let names = ["a", "b", "c", "d", "e"];
    assert_eq!(view.layout.geometry.cursors_max, 4);
    let mut asked = names.map(commit);
    let mut see = |asked: &mut Asked| {
        let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 };
        let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: 1, maker };
        look(&mut desk, asked)
    };
    // Five consumers at once; the table has room when each of them is looked at.
    asked.iter_mut().for_each(|asked| assert_eq!(see(asked), Ok(None)));
    (2..5).for_each(|now| {
        sequencer.pass(now);
    });
    let topic = topics_id(&view);
    for (name, asked) in names.iter().zip(&mut asked) {
        let answer = see(asked);
        let stands = CursorReader::new(&view).find(topic, name).unwrap().unwrap().0.map(|cursor| cursor.order);
        println!("{name}: answered {answer:?}, stands at {stands:?}");
        if answer.is_ok_and(|answer| answer.is_some()) {
            assert_eq!(stands, Some(5), "answered as done: every broker resumes there");
        }
    }
}

#[test]
fn a_commit_that_waits_for_room_in_its_lane_is_charged_once() {
    let view = plain_view(1);
    let mut sequencer = start(&view, 0);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    assert!(ingest.lane.ask_for_topic(&Topic::new("t", OrderLevel::Session, AckLevel::Committed)).is_some());
    sequencer.pass(1);
    let (mut topics, cursors) = (TopicReader::new(&view), CursorReader::new(&view));
    while ingest.control(BatchSlot { kind: slot_kind::SESSION_ALIVE, ..BatchSlot::default() }) {}
    let addresses = Addresses::new(AddressBounds { openings: 1, openings_at_once: 64, ..AddressBounds::NONE });
    let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 << 40 };
    let mut asked = commit("a");
    for _ in 0..10 {
        let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: 1, maker };
        assert_eq!(look(&mut desk, &mut asked), Ok(None));
        assert_eq!(asked.passed_on, None, "the lane is full");
    }
    let left = (0..64).filter(|_| addresses.charge(maker.address, Cost::Opening, maker.now_ns) == Turn::Now).count();
    assert_eq!(left, 60);
}

fn topics_id<M: crate::pool::Memory>(view: &crate::log::View<M>) -> u32 {
    TopicReader::new(view).find("t").unwrap().id
}
