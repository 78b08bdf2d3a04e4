//! Where the choices of a test come from: a small deterministic generator, or a list that goes through all of them.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the same seed gives the same run on every
/// machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Any 64 bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// True `times` in `of`.
    #[inline]
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }
}

/// Choices made in a row, each with its bound. Made again and again with [`Self::advance`] between, they go through all that can be
/// chosen, like the digits of a counter.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    made: Vec<(u64, u64)>,
    next: usize,
}

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        if self.next == self.made.len() {
            self.made.push((0, bound));
        }
        let (choice, of) = self.made[self.next];
        assert_eq!(of, bound, "the same choices lead to the same question");
        self.next += 1;
        choice
    }

    /// Goes on to the next row of choices. False: there is no other.
    pub fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((choice, of)) = self.made.pop() {
            if choice + 1 < of {
                self.made.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// A source of choices.
#[derive(Clone, Debug)]
pub enum Chance {
    /// One of all runs.
    Seeded(Random),
    /// All of them, one after another: what may happen at all is as good as what happens often.
    Listed(Choices),
}

impl Chance {
    /// A number below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        match self {
            Chance::Seeded(random) => random.below(bound),
            Chance::Listed(choices) => choices.below(bound),
        }
    }

    /// True `times` in `of`.
    #[inline]
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        match self {
            Chance::Seeded(random) => random.chance(times, of),
            Chance::Listed(_) if times == 0 || times >= of => times > 0,
            Chance::Listed(choices) => choices.below(2) == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_go_through_all_there_are() {
        let (mut chance, mut seen) = (Choices::default(), Vec::new());
        loop {
            let mut listed = Chance::Listed(chance);
            let first = listed.below(3);
            // What is asked next may depend on what was chosen.
            seen.push((first, if first == 1 { u64::from(listed.chance(1, 1000)) } else { listed.below(1) }));
            let Chance::Listed(made) = listed else { unreachable!() };
            chance = made;
            if !chance.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (2, 0)]);
    }
}
