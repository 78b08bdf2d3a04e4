//! Where each session stands, by its id: open addressing over place numbers alone. The ids are in the table of sessions, to which whoever
//! looks goes next anyway; so that of 100,000 sessions this takes a megabyte and stays in the cache of a core.
//!
//! Invariant: a place is here exactly once iff a session has it, within the run of taken entries that begins at its id's own.

/// No place.
const NONE: u32 = u32::MAX;

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Places {
    /// A power of two, at most half of it taken.
    entries: Vec<u32>,
}

impl Places {
    /// For at most so many.
    pub fn new(places_max: u32) -> Places {
        Places { entries: vec![NONE; (2 * places_max as usize).next_power_of_two().max(2)] }
    }

    /// Ids are positions of the index, which nobody outside chooses: spreading them is enough.
    #[inline]
    fn home(&self, id: u64) -> usize {
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> (64 - self.entries.len().trailing_zeros())) as usize
    }

    #[inline]
    fn next(&self, entry: usize) -> usize {
        (entry + 1) & (self.entries.len() - 1)
    }

    /// The place of an id that `is_there`.
    #[inline]
    pub fn find(&self, id: u64, is_there: impl Fn(u32) -> bool) -> Option<u32> {
        let mut entry = self.home(id);
        loop {
            match self.entries[entry] {
                NONE => return None,
                place if is_there(place) => return Some(place),
                _ => entry = self.next(entry),
            }
        }
    }

    /// Notes the place of an id; noted already, it stays.
    pub fn insert(&mut self, id: u64, place: u32) {
        let mut entry = self.home(id);
        while self.entries[entry] != NONE {
            if self.entries[entry] == place {
                return;
            }
            entry = self.next(entry);
        }
        self.entries[entry] = place;
    }

    /// Forgets the place of an id, if it is noted. `id_of` gives the ids of all other places that are.
    pub fn remove(&mut self, id: u64, place: u32, id_of: impl Fn(u32) -> u64) {
        let mut gap = self.home(id);
        while self.entries[gap] != place {
            if self.entries[gap] == NONE {
                return;
            }
            gap = self.next(gap);
        }
        // Whoever would be looked for across the gap moves into it.
        let mut entry = gap;
        loop {
            entry = self.next(entry);
            let there = self.entries[entry];
            if there == NONE {
                break;
            }
            let mask = self.entries.len() - 1;
            let from_home = entry.wrapping_sub(self.home(id_of(there))) & mask;
            if from_home >= entry.wrapping_sub(gap) & mask {
                self.entries[gap] = there;
                gap = entry;
            }
        }
        self.entries[gap] = NONE;
    }

    /// Places that are noted.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.entries.iter().filter(|entry| **entry != NONE).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// As a map does, whatever comes and goes, in tables so small that runs are long and go round the end.
    #[test]
    fn it_knows_what_a_map_knows() {
        for seed in 1..200u64 {
            let mut random = seed;
            let mut chance = |most: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % most
            };
            let most = 1 + chance(12) as u32;
            let mut places = Places::new(most);
            let (mut ids, mut model) = (vec![0u64; most as usize], HashMap::new());
            for step in 0..400u64 {
                let place = chance(most.into()) as usize;
                if ids[place] == 0 {
                    ids[place] = 1 + step * (1 + chance(1 << 40));
                    model.insert(ids[place], place as u32);
                    places.insert(ids[place], place as u32);
                    places.insert(ids[place], place as u32);
                } else {
                    let id = std::mem::take(&mut ids[place]);
                    model.remove(&id);
                    places.remove(id, place as u32, |other| ids[other as usize]);
                    places.remove(id, place as u32, |other| ids[other as usize]);
                    assert_eq!(places.find(id, |place| ids[place as usize] == id), None);
                }
                assert_eq!(places.count(), model.len());
                for (id, place) in &model {
                    assert_eq!(places.find(*id, |place| ids[place as usize] == *id), Some(*place), "seed {seed}");
                }
            }
        }
    }
}
