//! What became of each session's batches, as far as its next batch does not say it: counted where it is decided, since counting began. A batch
//! that comes in its turn costs nothing here.

/// Of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Its next batch less this is how many of it were ordered; wraps, since below level 5 numbers may go back.
    pub not_counted: u64,
    /// Batches that had been ordered or parked before.
    pub duplicate: u64,
    /// Batches of an epoch that was over, that were let go to be sent again, or that were parked when the epoch ended.
    pub refused: u64,
}

/// Of all sessions, by their places. Storage is allocated once.
#[derive(Clone, Debug)]
pub struct OutcomeTable {
    outcomes: Vec<Outcomes>,
    /// Those that changed since they were last taken from here, and whether a place is among them.
    changed: Vec<u32>,
    is_changed: Vec<bool>,
}

impl OutcomeTable {
    /// Of so many places.
    pub fn new(places: u32) -> Self {
        OutcomeTable {
            outcomes: vec![Outcomes::default(); places as usize],
            changed: Vec::with_capacity(places as usize),
            is_changed: vec![false; places as usize],
        }
    }

    /// What became of the batches of the session at a place.
    pub fn of(&self, slot: u32) -> &Outcomes {
        &self.outcomes[slot as usize]
    }

    /// One that changed.
    pub fn take_changed(&mut self) -> Option<u32> {
        let slot = self.changed.pop()?;
        self.is_changed[slot as usize] = false;
        Some(slot)
    }

    /// A session begins at a place, or is found there: none of its batches below the next one is counted.
    pub(super) fn begin(&mut self, slot: u32, next_batch: u64) {
        *self.change(slot) = Outcomes { not_counted: next_batch, ..Outcomes::default() };
    }

    /// A batch was ordered out of turn.
    #[cold]
    pub(super) fn ordered_out_of_turn(&mut self, slot: u32, next_batch: u64, batch_seq: u64) {
        let outcomes = self.change(slot);
        outcomes.not_counted = outcomes.not_counted.wrapping_add(batch_seq).wrapping_sub(next_batch);
    }

    pub(super) fn duplicate(&mut self, slot: u32) {
        self.change(slot).duplicate += 1;
    }

    pub(super) fn refused(&mut self, slot: u32, batches: u32) {
        if batches > 0 {
            self.change(slot).refused += u64::from(batches);
        }
    }

    /// Its outcomes are to be taken, changed or not.
    pub(super) fn renew(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.is_changed[slot as usize], true) {
            self.changed.push(slot);
        }
    }

    fn change(&mut self, slot: u32) -> &mut Outcomes {
        self.renew(slot);
        &mut self.outcomes[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::order::core::{OrderCore, Verdict};
    use crate::order::event::{Arrival, Event};
    use crate::order::model::{arrival, core, open};
    use crate::order::table::SESSION_LEVEL;
    use crate::testing::random::Random;

    /// Of a session, counted from outside: batches taken in, and those that got a place.
    type Seen = BTreeMap<u64, (u64, u64)>;

    fn check(core: &OrderCore, seen: &Seen) {
        for (slot, session) in (0..).zip(core.table().sessions()).filter(|(_, session)| session.id > 0) {
            let (outcomes, parked) = (core.outcomes().of(slot), u64::from(core.held_of(slot)));
            let ordered = session.next_batch.wrapping_sub(outcomes.not_counted);
            let received = ordered + outcomes.duplicate + outcomes.refused + parked;
            assert_eq!((received, ordered), seen[&session.id], "{session:?}: {outcomes:?}, parked {parked}");
        }
    }

    /// Whatever happens, each batch of a session is one thing.
    #[test]
    fn received_is_ordered_duplicate_refused_or_parked() {
        for (level, seed) in [(SESSION_LEVEL, 1), (SESSION_LEVEL, 2), (0, 3)] {
            let (mut core, mut random, mut seen) = (core(level), Random::new(seed), Seen::new());
            let (mut refused, mut duplicate) = (0, 0);
            for step in 0..20_000u64 {
                let session = 1 + random.below(8);
                let mut events = Vec::new();
                let mut note = |event| events.push(event);
                match random.below(60) {
                    0..4 => open(&mut core, session, 1 + random.below(3) as u32, &mut note),
                    4 => core.close(session, &mut note),
                    5 => drop(core.expire(step, 300, 2, &mut note)),
                    6 => drop(core.let_go_lane(random.below(3) as u16, &mut note)),
                    7 if random.chance(1, 20) => {
                        // What a successor finds is not counted; nothing is parked with it.
                        let table = core.table().clone();
                        core = crate::order::model::core(level);
                        core.take_over(table);
                        seen.values_mut().for_each(|seen| *seen = (0, 0));
                    }
                    _ => {
                        // Mostly what is next, or close to it.
                        let next =
                            core.table().slot_of(session).map_or(0, |slot| core.table().session(slot).next_batch);
                        let (seq, epoch) = ((next + random.below(6)).saturating_sub(2), 1 + random.below(2) as u32);
                        let arrival =
                            Arrival { session_epoch: epoch, ..arrival(session, seq, random.below(3) as u16, step) };
                        let verdict = core.arrive(arrival, step, &mut note);
                        if verdict != Verdict::Unknown {
                            seen.entry(session).or_default().0 += 1;
                        }
                        refused += u64::from(matches!(verdict, Verdict::Fenced | Verdict::LetGo));
                        duplicate += u64::from(verdict == Verdict::Duplicate);
                    }
                }
                for event in events {
                    match event {
                        Event::Open { session, session_epoch: 1, .. } => drop(seen.insert(session, (0, 0))),
                        Event::Batch { slot, .. } => seen.get_mut(&core.table().session(slot).id).unwrap().1 += 1,
                        _ => {}
                    }
                }
                check(&core, &seen);
            }
            assert!(
                refused > 100 && (level < SESSION_LEVEL || duplicate > 100),
                "{refused} refused, {duplicate} twice"
            );
        }
    }

    /// What changed is taken once; what is parked is told of as often as it is asked for.
    #[test]
    fn outcomes_are_taken_once() {
        let mut core = core(SESSION_LEVEL);
        let taken = |core: &mut OrderCore| {
            let mut all: Vec<u32> = std::iter::from_fn(|| core.take_outcome()).collect();
            all.sort_unstable();
            all
        };
        (1..=3).for_each(|session| open(&mut core, session, 1, &mut |_| ()));
        assert_eq!(taken(&mut core), [0, 1, 2], "they began");
        for seq in [0, 1, 1, 1] {
            core.arrive(arrival(1, seq, 0, seq), 0, &mut |_| ());
        }
        core.arrive(arrival(2, 1, 0, 9), 0, &mut |_| ());
        assert_eq!(taken(&mut core), [0], "a batch in its turn changes nothing, and one that is parked is asked for");
        core.renew_outcomes([2].into_iter());
        assert_eq!(taken(&mut core), [1, 2]);
        assert_eq!(taken(&mut core), [0; 0]);
    }
}
