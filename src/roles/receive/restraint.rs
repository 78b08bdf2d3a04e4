//! Lines of the log about what others do: at most one a second of each kind, and how many were not said, so that whoever does it as
//! fast as it goes writes no log.

use crate::roles::addresses::Address;

/// Time between two lines of one kind, ns.
const SAID_EVERY_NS: u64 = 1_000_000_000;
/// Most addresses of one kind that are counted apart between two lines.
const ADDRESSES_MAX: usize = 256;

/// What was and was not said of one kind.
struct Kind<K> {
    kind: K,
    said_ns: u64,
    unsaid: u64,
    addresses: Vec<Address>,
}

/// What is said of several kinds.
pub struct Restraint<K> {
    kinds: Vec<Kind<K>>,
}

impl<K> Default for Restraint<K> {
    fn default() -> Self {
        Restraint { kinds: Vec::new() }
    }
}

impl<K: PartialEq + Copy> Restraint<K> {
    /// Something of this kind happened. Gives what is to stand behind its line; nothing: it is not said, only counted.
    pub fn may_say(&mut self, kind: K, address: Address, now_ns: u64) -> Option<String> {
        let Some(known) = self.kinds.iter_mut().find(|known| known.kind == kind) else {
            self.kinds.push(Kind { kind, said_ns: now_ns, unsaid: 0, addresses: Vec::new() });
            return Some(String::new());
        };
        if now_ns.saturating_sub(known.said_ns) >= SAID_EVERY_NS {
            return Some(known.take(now_ns).map_or_else(String::new, |more| format!(" (before it {more})")));
        }
        known.unsaid += 1;
        if !known.addresses.contains(&address) && known.addresses.len() < ADDRESSES_MAX {
            known.addresses.push(address);
        }
        None
    }

    /// A kind of which something was not said for as long as lines are apart, and what it was.
    pub fn overdue(&mut self, now_ns: u64) -> Option<(K, String)> {
        let is_overdue = |kind: &&mut Kind<K>| kind.unsaid > 0 && now_ns.saturating_sub(kind.said_ns) >= SAID_EVERY_NS;
        let known = self.kinds.iter_mut().find(is_overdue)?;
        known.take(now_ns).map(|more| (known.kind, more))
    }
}

impl<K> Kind<K> {
    fn take(&mut self, now_ns: u64) -> Option<String> {
        self.said_ns = now_ns;
        let (unsaid, addresses) = (std::mem::take(&mut self.unsaid), self.addresses.len());
        self.addresses.clear();
        let or_more = if addresses == ADDRESSES_MAX { " or more" } else { "" };
        let plural = if addresses == 1 { "" } else { "es" };
        (unsaid > 0).then(|| format!("{unsaid} more from {addresses}{or_more} address{plural}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_of_each_kind_and_the_rest_is_counted() {
        let mut restraint = Restraint::default();
        let address = |last| Address::of(std::net::IpAddr::from([10, 0, 0, last]));
        let start = 5 * SAID_EVERY_NS;
        assert_eq!(restraint.may_say("garbage", address(1), start), Some(String::new()));
        assert_eq!(restraint.may_say("full", address(1), start), Some(String::new()), "another kind");
        for number in 0..1000 {
            assert_eq!(restraint.may_say("garbage", address((number % 7) as u8), start + number), None);
        }
        assert_eq!(restraint.overdue(start + SAID_EVERY_NS - 1), None);
        let more = "1000 more from 7 addresses".to_owned();
        let said = restraint.may_say("garbage", address(1), start + SAID_EVERY_NS);
        assert_eq!(said, Some(format!(" (before it {more})")));
        assert_eq!(restraint.may_say("garbage", address(1), start + SAID_EVERY_NS + 1), None);
        // It ended, and what was not said is said all the same.
        let said = restraint.overdue(start + 2 * SAID_EVERY_NS);
        assert_eq!(said, Some(("garbage", "1 more from 1 address".to_owned())));
        assert_eq!(restraint.overdue(start + 9 * SAID_EVERY_NS), None, "it is said once");
    }
}
