//! Every interleaving of 2 sessions × 4 batches × 3 lanes, with a duplicate, losses and fences, against what must hold.
//!
//! States are visited once: what can happen next depends only on the key below. A batch may come by any lane, once more as
//! a duplicate (one for each session), or never; a session with a gap may be fenced at any moment, reopened at the next
//! epoch, and sent again under it.

use std::collections::HashSet;

use crate::order::core::{OrderCore, OrderLimits, Verdict};
use crate::order::event::{Arrival, Event};
use crate::order::model::{arrival, open};
use crate::order::table::{SESSION_LEVEL, State};

const SESSIONS: u64 = 2;
const BATCHES: u64 = 4;
const LANES: u16 = 3;

/// What the world has done with one session, besides what the core knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Sent {
    /// Batches sent under the current epoch.
    once: u8,
    /// The one that was sent twice under it, + 1.
    twice: u8,
    epoch: u32,
}

#[derive(Clone)]
struct World {
    core: OrderCore,
    sent: [Sent; SESSIONS as usize],
    slots: [u64; LANES as usize],
    next_order: u64,
    /// Committed batches of each session.
    committed: [u64; SESSIONS as usize],
}

/// What the future depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    sent: [Sent; SESSIONS as usize],
    committed: [u64; SESSIONS as usize],
    fenced: [bool; SESSIONS as usize],
    held: [u32; SESSIONS as usize],
    /// How many of a lane's slots are not settled.
    open_slots: [u64; LANES as usize],
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Arrive { session: u64, seq: u64, lane: u16 },
    Fence,
    Reopen { session: u64 },
}

impl World {
    fn new() -> World {
        let limits = OrderLimits { sessions_max: 2, topics_max: 1, lanes: LANES.into(), held_batches_max: 8 };
        let mut core = OrderCore::new(limits);
        core.create_topic(SESSION_LEVEL, 0, 0, 0, &mut |_| ());
        (1..=SESSIONS).for_each(|session| open(&mut core, session, 1, &mut |_| ()));
        let sent = [Sent { epoch: 1, ..Sent::default() }; SESSIONS as usize];
        World { core, sent, slots: [0; 3], next_order: 0, committed: [0; 2] }
    }

    fn key(&self) -> Key {
        let slot = |session: usize| self.core.table().slot_of(session as u64 + 1).expect("open");
        let each = [slot(0), slot(1)];
        Key {
            sent: self.sent,
            committed: self.committed,
            fenced: each.map(|slot| self.core.table().session(slot).state == State::Fenced),
            held: each.map(|slot| self.core.held_of(slot)),
            open_slots: [0, 1, 2].map(|lane| self.slots[lane] - self.core.settled(lane as u16, self.slots[lane])),
        }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for session in 1..=SESSIONS {
            let sent = self.sent[session as usize - 1];
            for seq in 0..BATCHES {
                if sent.once >> seq & 1 == 0 || sent.twice == 0 {
                    actions.extend((0..LANES).map(|lane| Action::Arrive { session, seq, lane }));
                }
            }
            let slot = self.core.table().slot_of(session).expect("open");
            if self.core.table().session(slot).state == State::Fenced && sent.epoch == 1 {
                actions.push(Action::Reopen { session });
            }
        }
        if self.core.gapped() > 0 {
            actions.push(Action::Fence);
        }
        actions
    }

    /// Does it, and checks everything that can be seen of it.
    fn act(&mut self, action: Action) {
        let (before, mut events) = (self.committed, Vec::new());
        match action {
            Action::Arrive { session, seq, lane } => {
                let verdict = self.arrive(session, seq, lane, &mut events);
                self.check_verdict(session, seq, before[session as usize - 1], verdict, events.len());
            }
            // Gap clocks are not part of the state: whoever waits is fenced together.
            Action::Fence => {
                self.core.expire(u64::MAX, 0, 8, &mut |event| events.push(event));
                assert!(!events.is_empty() && self.core.gapped() == 0 && self.core.held() == 0);
            }
            Action::Reopen { session } => {
                open(&mut self.core, session, 2, &mut |event| events.push(event));
                self.sent[session as usize - 1] = Sent { epoch: 2, ..Sent::default() };
            }
        }
        events.iter().for_each(|event| self.check_event(event));
        for lane in 0..LANES {
            let consumed = self.slots[usize::from(lane)];
            assert!(self.core.settled(lane, consumed) <= consumed);
        }
        if self.core.held() == 0 {
            assert!((0..LANES).all(|lane| self.core.settled(lane, self.slots[usize::from(lane)]) == self.slots[usize::from(lane)]));
        }
    }

    fn arrive(&mut self, session: u64, seq: u64, lane: u16, events: &mut Vec<Event>) -> Verdict {
        let sent = &mut self.sent[session as usize - 1];
        if sent.once >> seq & 1 == 1 {
            sent.twice = seq as u8 + 1;
        }
        sent.once |= 1 << seq;
        let lane_slot = self.slots[usize::from(lane)];
        self.slots[usize::from(lane)] += 1;
        let batch = Arrival { session_epoch: sent.epoch, ..arrival(session, seq, lane, lane_slot) };
        self.core.arrive(batch, 0, &mut |event| events.push(event))
    }

    fn check_verdict(&self, session: u64, seq: u64, next: u64, verdict: Verdict, events: usize) {
        let slot = self.core.table().slot_of(session).expect("open");
        let fenced = self.core.table().session(slot).state == State::Fenced;
        match verdict {
            Verdict::Fenced => assert!(fenced && events == 0),
            Verdict::Appended { drained } => assert!(seq == next && events == 1 + drained as usize && !fenced),
            Verdict::Parked => assert!(seq > next && events == 0),
            Verdict::Duplicate => assert!(events == 0 && (seq < next || self.core.held_of(slot) > 0)),
            Verdict::LetGo | Verdict::Unknown => panic!("there was room, and the session is open"),
        }
    }

    fn check_event(&mut self, event: &Event) {
        match *event {
            Event::Batch { arrival, first_order, .. } => {
                let next = &mut self.committed[arrival.session as usize - 1];
                assert_eq!(arrival.batch_seq, *next, "no gap, no repeat");
                *next += 1;
                assert_eq!(first_order, self.next_order, "dense");
                self.next_order += u64::from(arrival.message_count);
            }
            Event::Fence { slot, next_batch, .. } => {
                let session = self.core.table().session(slot).id;
                assert_eq!(next_batch, self.committed[session as usize - 1], "the frontier reported is the frontier");
            }
            Event::Open { session, next_batch, .. } => assert_eq!(next_batch, self.committed[session as usize - 1]),
            _ => {}
        }
    }
}

#[test]
fn every_interleaving_of_two_sessions_four_batches_three_lanes() {
    let (mut seen, mut stack, mut steps) = (HashSet::new(), vec![World::new()], 0u64);
    let mut complete = 0u64;
    seen.insert(stack[0].key());
    while let Some(world) = stack.pop() {
        complete += u64::from(world.committed == [BATCHES; 2]);
        for action in world.actions() {
            let mut next = world.clone();
            next.act(action);
            steps += 1;
            if seen.insert(next.key()) {
                stack.push(next);
            }
        }
    }
    println!("{} states, {steps} transitions, {complete} states in which everything is committed", seen.len());
    assert!(seen.len() > 10_000 && complete > 100, "the walk went everywhere");
}
