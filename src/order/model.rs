//! The order core against a naive model: the same arrivals, decided by the plainest code that could be right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::order::core::{Expiry, OpenRequest, OrderCore, OrderLimits, Verdict};
use crate::order::event::{Arrival, Event, Origin};
use crate::order::table::SESSION_LEVEL;

const LIMITS: OrderLimits = OrderLimits { sessions_max: 8, topics_max: 2, lanes: 3, held_batches_max: 16 };

pub(crate) fn open(core: &mut OrderCore, session: u64, epoch: u32, emit: &mut impl FnMut(Event)) {
    let request = OpenRequest {
        session,
        session_epoch: epoch,
        topic: 0,
        origin: Origin::default(),
        full_code: 5,
        unknown_code: 3,
    };
    open_or_close(core, request, u64::MAX, emit);
}

/// Opens a session, in the place of another if need be.
fn open_or_close(core: &mut OrderCore, request: OpenRequest, expiry: impl Into<Expiry>, emit: &mut impl FnMut(Event)) {
    core.make_place(request.topic, expiry, emit);
    core.open(request, emit);
}

pub(crate) fn core(level: u8) -> OrderCore {
    let mut core = OrderCore::new(LIMITS);
    assert_eq!(core.create_topic(level, 0, 0, 0, &mut |_| ()), Some(0));
    core
}

pub(crate) fn arrival(session: u64, batch_seq: u64, lane: u16, lane_slot: u64) -> Arrival {
    Arrival {
        session,
        batch_seq,
        lane,
        lane_slot,
        session_epoch: 1,
        message_count: batch_seq as u32 % 3 + 1,
        ..Arrival::default()
    }
}

/// Per session: what is expected, what waits.
#[derive(Default)]
struct Naive {
    next: BTreeMap<u64, u64>,
    waiting: BTreeMap<u64, BTreeSet<u64>>,
    order: Vec<(u64, u64)>,
}

impl Naive {
    fn arrive(&mut self, session: u64, seq: u64) {
        let next = self.next.entry(session).or_default();
        let waiting = self.waiting.entry(session).or_default();
        if seq >= *next {
            waiting.insert(seq);
        }
        while waiting.remove(next) {
            self.order.push((session, *next));
            *next += 1;
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(arrivals in prop::collection::vec((1u64..4, 0u64..6, 0u16..3), 0..200)) {
        let (mut core, mut naive, mut order) = (core(SESSION_LEVEL), Naive::default(), Vec::new());
        (1..4).for_each(|session| open(&mut core, session, 1, &mut |_| ()));
        let mut expected_order = 0;
        let mut slots = [0u64; 3];
        let mut finished: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); 3];
        let mut parked_slots: BTreeMap<(u64, u64), (u16, u64)> = BTreeMap::new();
        for (session, seq, lane) in arrivals {
            let lane_slot = slots[usize::from(lane)];
            slots[usize::from(lane)] += 1;
            let mut appended = Vec::new();
            let verdict = core.arrive(arrival(session, seq, lane, lane_slot), 0, &mut |event| {
                if let Event::Batch { arrival, first_order, .. } = event {
                    assert_eq!(first_order, expected_order, "dense");
                    expected_order += u64::from(arrival.message_count);
                    appended.push((arrival.session, arrival.batch_seq));
                    finished[usize::from(arrival.lane)].insert(arrival.lane_slot);
                }
            });
            naive.arrive(session, seq);
            match verdict {
                Verdict::Parked => {
                    parked_slots.insert((session, seq), (lane, lane_slot));
                }
                _ => {
                    finished[usize::from(lane)].insert(lane_slot);
                }
            }
            parked_slots.retain(|batch, _| !appended.contains(batch));
            order.extend(appended);
            prop_assert_eq!(core.held() as usize, parked_slots.len());
            for lane in 0..3u16 {
                let oldest = parked_slots.values().filter(|(l, _)| *l == lane).map(|(_, slot)| *slot).min();
                prop_assert_eq!(core.settled(lane, slots[usize::from(lane)]), oldest.unwrap_or(slots[usize::from(lane)]));
            }
        }
        prop_assert_eq!(order, naive.order);
    }
}

#[test]
fn below_level_5_everything_is_appended_as_it_comes() {
    let mut core = core(4);
    open(&mut core, 1, 1, &mut |_| ());
    let mut order = Vec::new();
    for seq in [0, 2, 2, 1] {
        let verdict = core.arrive(arrival(1, seq, 0, seq), 0, &mut |event| {
            if let Event::Batch { arrival, .. } = event {
                order.push(arrival.batch_seq);
            }
        });
        assert_eq!(verdict, Verdict::Appended { drained: 0 });
    }
    assert_eq!(order, [0, 2, 2, 1]);
}

#[test]
fn a_full_buffer_lets_go_and_says_so_once() {
    let mut core = core(SESSION_LEVEL);
    open(&mut core, 1, 1, &mut |_| ());
    let mut told = Vec::new();
    let mut note = |event| {
        if let Event::LetGo { from, .. } = event {
            told.push(from)
        }
    };
    for seq in 1..=16 {
        assert_eq!(core.arrive(arrival(1, seq, 0, seq), 0, &mut note), Verdict::Parked);
    }
    for seq in 17..20 {
        assert_eq!(core.arrive(arrival(1, seq, 0, seq), 0, &mut note), Verdict::LetGo);
    }
    assert_eq!(core.arrive(arrival(1, 0, 0, 20), 0, &mut note), Verdict::Appended { drained: 16 });
    assert_eq!(core.arrive(arrival(1, 17, 0, 21), 0, &mut note), Verdict::Appended { drained: 0 });
    assert_eq!(told, [17]);
    assert_eq!(core.let_go(), 3);
}

#[test]
fn a_short_lane_lets_its_oldest_session_go() {
    let mut core = core(SESSION_LEVEL);
    open(&mut core, 1, 1, &mut |_| ());
    for (seq, lane) in [(2, 0), (3, 1), (5, 0)] {
        core.arrive(arrival(1, seq, lane, seq), 0, &mut |_| ());
    }
    let mut told = Vec::new();
    assert!(core.let_go_lane(1, &mut |event| told.push(event)));
    assert_eq!(told, [Event::LetGo { slot: 0, session_epoch: 1, from: 2 }]);
    assert_eq!((core.held(), core.settled(0, 9), core.settled(1, 9)), (0, 9, 9));
    assert!(!core.let_go_lane(0, &mut |_| ()));
}

#[test]
fn a_gap_past_the_lease_fences_and_the_next_epoch_goes_on_at_the_frontier() {
    let mut core = core(SESSION_LEVEL);
    let mut order = Vec::new();
    let mut note = |event| {
        if let Event::Batch { arrival, .. } = event {
            order.push(arrival.batch_seq)
        }
    };
    open(&mut core, 1, 1, &mut note);
    core.arrive(arrival(1, 0, 0, 0), 10, &mut note);
    core.arrive(arrival(1, 2, 0, 1), 20, &mut note);
    assert_eq!(core.expire(120, 100, 8, &mut note), (0, None));
    let mut fenced = Vec::new();
    assert_eq!(core.expire(121, 100, 8, &mut |event| fenced.push(event)), (1, Some(0)));
    assert_eq!(fenced, [Event::Fence { slot: 0, session_epoch: 1, next_batch: 1 }]);
    assert_eq!(core.arrive(arrival(1, 1, 0, 2), 122, &mut note), Verdict::Fenced, "nothing above the frontier, ever");
    open(&mut core, 1, 3, &mut note);
    assert_eq!(core.table().session(0).epoch, 1, "epochs are not skipped");
    open(&mut core, 1, 2, &mut note);
    let late = core.arrive(arrival(1, 1, 0, 3), 123, &mut note);
    assert_eq!(late, Verdict::Fenced, "the old epoch stays fenced");
    for seq in [1, 2] {
        let batch = Arrival { session_epoch: 2, ..arrival(1, seq, 0, 4 + seq) };
        assert_eq!(core.arrive(batch, 124, &mut note), Verdict::Appended { drained: 0 });
    }
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(core.fenced(), 3, "one was parked, two came too late");
}

/// Somebody's connections use it: what they have sent must not vanish because another asks for the next epoch.
#[test]
fn a_session_that_is_not_fenced_is_not_reopened() {
    let mut core = core(SESSION_LEVEL);
    open(&mut core, 1, 1, &mut |_| ());
    core.arrive(arrival(1, 1, 0, 0), 10, &mut |_| ());
    open(&mut core, 1, 2, &mut |event| panic!("{event:?}"));
    assert_eq!(core.arrive(arrival(1, 0, 0, 1), 11, &mut |_| ()), Verdict::Appended { drained: 1 });
}

#[test]
fn sessions_are_bounded_and_the_longest_silent_one_makes_room() {
    let mut core = core(SESSION_LEVEL);
    let mut events = Vec::new();
    let request = |session| OpenRequest {
        session,
        session_epoch: 1,
        topic: 0,
        origin: Origin::default(),
        full_code: 5,
        unknown_code: 3,
    };
    for session in 1..=9 {
        core.set_time(session);
        open_or_close(&mut core, request(session), 100, &mut |event| events.push(event));
    }
    assert_eq!(events.last(), Some(&Event::Refused { code: 5, origin: Origin::default() }));
    core.set_time(102);
    open_or_close(&mut core, request(10), 100, &mut |event| events.push(event));
    assert_eq!(events[events.len() - 2], Event::Close { slot: 0 });
    assert!(core.table().slot_of(10).is_some() && core.table().slot_of(1).is_none());
}

/// Opened and abandoned, as fast as they come: they shut nobody out for long. A session that is connected says so, and one that was
/// used is kept as long as it is worth.
#[test]
fn a_session_that_was_never_used_makes_room_first() {
    let mut core = core(SESSION_LEVEL);
    let mut events = Vec::new();
    let expiry = Expiry { silent_ns: 100, unused_ns: 10 };
    let request = |session| OpenRequest {
        session,
        session_epoch: 1,
        topic: 0,
        origin: Origin::default(),
        full_code: 5,
        unknown_code: 3,
    };
    core.set_time(1);
    (1..=8).for_each(|session| open_or_close(&mut core, request(session), expiry, &mut |_| ()));
    core.arrive(arrival(1, 0, 0, 0), 0, &mut |_| ());
    core.set_time(9);
    (2..=7).for_each(|session| core.touch(core.table().slot_of(session).unwrap()));
    open_or_close(&mut core, request(9), expiry, &mut |event| events.push(event));
    assert_eq!(events.last(), Some(&Event::Refused { code: 5, origin: Origin::default() }), "not yet");
    core.set_time(12);
    open_or_close(&mut core, request(10), expiry, &mut |event| events.push(event));
    assert!(core.table().slot_of(10).is_some() && core.table().slot_of(8).is_none(), "the only abandoned one");
    open_or_close(&mut core, request(11), expiry, &mut |event| events.push(event));
    assert_eq!(events.last(), Some(&Event::Refused { code: 5, origin: Origin::default() }), "all are there");
    core.set_time(102);
    (2..=10)
        .filter_map(|session| core.table().slot_of(session))
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|slot| core.touch(slot));
    open_or_close(&mut core, request(12), expiry, &mut |event| events.push(event));
    assert!(core.table().slot_of(1).is_none(), "it was silent for long, and all others are there");
}

/// The clock of gaps stands still under pressure and begins at 0: it says nothing about silence.
#[test]
fn a_session_that_sends_is_not_silent_whatever_the_clock_of_gaps_says() {
    let mut core = core(SESSION_LEVEL);
    let mut events = Vec::new();
    let request = |session| OpenRequest {
        session,
        session_epoch: 1,
        topic: 0,
        origin: Origin::default(),
        full_code: 5,
        unknown_code: 3,
    };
    for session in 1..=8 {
        core.set_time(1000);
        open_or_close(&mut core, request(session), 100, &mut |event| events.push(event));
    }
    for session in (1..=8).filter(|session| *session != 3) {
        core.set_time(1090);
        core.arrive(arrival(session, 0, 0, session), 0, &mut |event| events.push(event));
    }
    core.set_time(1120);
    open_or_close(&mut core, request(9), 100, &mut |event| events.push(event));
    assert!(core.table().slot_of(9).is_some() && core.table().slot_of(3).is_none(), "the silent one made room");
    assert!(core.table().slot_of(1).is_some(), "{events:?}");
    open_or_close(&mut core, request(10), 100, &mut |event| events.push(event));
    assert_eq!(events.last(), Some(&Event::Refused { code: 5, origin: Origin::default() }), "all others sent lately");
}

/// A successor does not know when its predecessor heard from whom.
#[test]
fn sessions_taken_over_are_not_silent_since_ever() {
    let mut before = core(SESSION_LEVEL);
    (1..=8).for_each(|session| open(&mut before, session, 1, &mut |_| ()));
    let mut core = core(SESSION_LEVEL);
    core.take_over(before.table().clone());
    let request = OpenRequest {
        session: 9,
        session_epoch: 1,
        topic: 0,
        origin: Origin::default(),
        full_code: 5,
        unknown_code: 3,
    };
    for (now_ns, is_open) in [(1000, false), (1100, false), (1101, true)] {
        core.set_time(now_ns);
        open_or_close(&mut core, request, 100, &mut |_| ());
        assert_eq!(core.table().slot_of(9).is_some(), is_open, "at {now_ns}");
    }
}

proptest! {
    /// Topics, their sessions and their orders, decided by the plainest code that could be right: what is deleted takes its sessions
    /// with it, and what comes after it under the same number begins at 0.
    #[test]
    fn topics_come_and_go_as_in_the_model(actions in prop::collection::vec((0u8..8, 0u32..2, 1u64..5, 0u64..4), 0..200)) {
        let mut core = OrderCore::new(LIMITS);
        // By number: order of the next message. By session: its topic, next batch, and what is parked.
        let mut topics: [Option<u64>; 2] = [None; 2];
        let mut sessions: BTreeMap<u64, (u32, u64, BTreeSet<u64>)> = BTreeMap::new();
        for (slot, (action, topic, session, seq)) in (0u64..).zip(actions) {
            let mut events = Vec::new();
            let mut note = |event| events.push(event);
            match action {
                0 => {
                    let free = topics.iter().position(Option::is_none).map(|id| id as u32);
                    prop_assert_eq!(core.create_topic(SESSION_LEVEL, 0, slot, 64, &mut note), free);
                    free.into_iter().for_each(|id| topics[id as usize] = Some(0));
                    prop_assert_eq!(events.len(), usize::from(free.is_some()));
                }
                1 if topics[topic as usize].is_some() => {
                    core.delete_topic(topic, 0, slot, &mut note);
                    topics[topic as usize] = None;
                    sessions.retain(|_, session| session.0 != topic);
                    prop_assert_eq!(events, [Event::TopicDeleted { topic, lane: 0, lane_slot: slot }]);
                }
                2 => {
                    let request = OpenRequest { session, session_epoch: 1, topic, origin: Origin::default(), full_code: 5, unknown_code: 3 };
                    open_or_close(&mut core, request, u64::MAX, &mut note);
                    if topics[topic as usize].is_some() {
                        sessions.entry(session).or_insert((topic, 0, BTreeSet::new()));
                    }
                }
                _ => {
                    let verdict = core.arrive(Arrival { topic, ..arrival(session, seq, 0, slot) }, 0, &mut note);
                    let Some(known) = sessions.get_mut(&session).filter(|known| known.0 == topic) else {
                        prop_assert_eq!(verdict, Verdict::Unknown);
                        continue;
                    };
                    if seq >= known.1 {
                        known.2.insert(seq);
                    }
                    let next_order = topics[topic as usize].as_mut().expect("a session's topic is there");
                    for event in events {
                        let Event::Batch { arrival, first_order, .. } = event else { panic!("{event:?}") };
                        prop_assert_eq!((arrival.batch_seq, first_order), (known.1, *next_order));
                        prop_assert!(known.2.remove(&known.1));
                        (known.1, *next_order) = (known.1 + 1, *next_order + u64::from(arrival.message_count));
                    }
                    prop_assert!(!known.2.contains(&known.1), "what was next was appended");
                }
            }
            prop_assert_eq!([0, 1].map(|id| core.table().topic(id).map(|topic| topic.next_order)), topics);
            let parked: usize = sessions.values().map(|session| session.2.len()).sum();
            prop_assert_eq!(core.held() as usize, parked);
            prop_assert_eq!(core.gapped() as usize, sessions.values().filter(|session| !session.2.is_empty()).count());
            (1..5).for_each(|session| assert_eq!(core.table().slot_of(session).is_some(), sessions.contains_key(&session)));
        }
    }
}

/// A replica of the fold that sees only the events has the same table.
#[test]
fn state_is_a_fold_of_the_events() {
    let mut core = core(SESSION_LEVEL);
    let mut events = vec![Event::Topic { topic: 0, order_level: 5, lane: 0, lane_slot: 0, blog_at: 0 }];
    let mut random = crate::testing::random::Random::new(3);
    for step in 0..5000u64 {
        let session = 1 + random.below(12);
        let mut note = |event| events.push(event);
        match random.below(40) {
            0 => open(&mut core, session, 1 + random.below(3) as u32, &mut note),
            3 if random.chance(1, 8) => {
                core.delete_topic(0, 0, step, &mut note);
                core.create_topic(SESSION_LEVEL, 0, step, 0, &mut note);
            }
            1 => core.close(session, &mut note),
            2 => {
                core.expire(step, 300, 2, &mut note);
            }
            _ => {
                core.arrive(arrival(session, random.below(8), random.below(3) as u16, step), step, &mut note);
            }
        }
    }
    let mut fold = crate::order::SessionTable::new(LIMITS.sessions_max, LIMITS.topics_max);
    events.iter().for_each(|event| fold.apply(event));
    assert_eq!(fold.sessions(), core.table().sessions());
    assert_eq!(fold.topic(0), core.table().topic(0));
    assert!(events.len() > 100);
    assert!(events.iter().filter(|event| matches!(event, Event::TopicDeleted { .. })).count() > 5);
    // A checkpoint may be newer than where the replay starts: replaying the tail again changes nothing.
    let (before, gone) = (fold.sessions().to_vec(), events.len() / 2);
    events[gone..].iter().for_each(|event| fold.apply(event));
    assert_eq!(fold.sessions(), before);
}

/// Sessions whose gaps close and age in any order: those that are left are still found, and no other is fenced.
#[test]
fn gaps_close_and_age_in_any_order() {
    for closed in 0..6u64 {
        let mut core = core(SESSION_LEVEL);
        (1..=6).for_each(|session| open(&mut core, session, 1, &mut |_| ()));
        let mut slot = 0;
        let mut arrive = |core: &mut OrderCore, session, batch_seq, now_ns| {
            slot += 1;
            core.arrive(arrival(session, batch_seq, 0, slot), now_ns, &mut |_| ())
        };
        (1..=6).for_each(|session| assert_eq!(arrive(&mut core, session, 1, session), Verdict::Parked));
        let first = 1 + closed;
        let second = 1 + (closed + 4) % 6;
        for session in [first, second] {
            assert_eq!(arrive(&mut core, session, 0, 10), Verdict::Appended { drained: 1 });
        }
        assert_eq!(core.gapped(), 4);
        let mut fenced = Vec::new();
        for now_ns in 101..108 {
            let mut emit = |event: Event| {
                if let Event::Fence { slot, .. } = event {
                    fenced.push(slot);
                }
            };
            core.expire(now_ns, 100, 6, &mut emit);
        }
        let table = core.table();
        let fenced: BTreeSet<u64> = fenced.into_iter().map(|slot| table.session(slot).id).collect();
        let expected: BTreeSet<u64> = (1..=6).filter(|session| ![first, second].contains(session)).collect();
        assert_eq!((fenced, core.gapped()), (expected, 0));
    }
}
