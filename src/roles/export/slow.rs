//! Readers that publishers have waited for, as far as that is remembered when they go: one that comes back is not waited for anew.
//!
//! What a reader was waited for counts for whoever comes from the same address for one of the same topics, from the moment at which
//! publishers began to wait: what is left of `export.reader_wait_max` is all that it gets, and one that was let go is waited for no
//! longer than those that asked for `disconnect`. An address several of whose readers were let go gets nothing for any topic.
//! A reader that was there before is not held to it. All of it is forgotten after ten times what a reader is waited for.

use std::net::IpAddr;

use crate::roles::addresses::Address;

/// Readers remembered at most; the one to be forgotten first makes room.
const KNOWN_MAX: usize = 256;
/// Readers of one address that were let go, from which on the address is known for all topics.
const ALL_TOPICS_FROM: usize = 4;
/// How many times as long as a reader is waited for it is known.
const KNOWN_TIMES: u64 = 10;

/// One that publishers have waited for.
struct Known {
    address: Address,
    topics: Box<[u32]>,
    /// When they began to.
    from_ns: u64,
    /// For how long they did; [`LET_GO`]: it was let go.
    waited_ns: u64,
    until_ns: u64,
}

/// It is not waited for any more.
pub(super) const LET_GO: u64 = u64::MAX;

/// See the head of the file.
pub(super) struct Slow {
    known: Vec<Known>,
    keep_ns: u64,
}

impl Slow {
    /// Of an exporter that waits up to `wait_ns` for a reader.
    pub(super) fn new(wait_ns: u64) -> Slow {
        Slow { known: Vec::new(), keep_ns: wait_ns.saturating_mul(KNOWN_TIMES) }
    }

    /// A reader of these topics was waited for until `now_ns`.
    pub(super) fn note(&mut self, address: IpAddr, topics: Box<[u32]>, from_ns: u64, waited_ns: u64, now_ns: u64) {
        let (address, until_ns) = (Address::of(address), now_ns.saturating_add(self.keep_ns));
        self.known.retain(|known| known.until_ns > now_ns);
        let same = |known: &&mut Known| known.address == address && known.topics == topics;
        if let Some(known) = self.known.iter_mut().find(same) {
            known.from_ns = known.from_ns.min(from_ns);
            known.waited_ns = known.waited_ns.max(waited_ns);
            known.until_ns = until_ns;
            return;
        }
        if self.known.len() == KNOWN_MAX {
            let first = (0..KNOWN_MAX).min_by_key(|index| self.known[*index].until_ns).expect("it is full");
            self.known.swap_remove(first);
        }
        self.known.push(Known { address, topics, from_ns, waited_ns, until_ns });
    }

    /// For how long publishers have waited already for a reader of these topics that came at `came_ns`; [`LET_GO`]: it was let go.
    pub(super) fn waited_ns(
        &self,
        address: IpAddr,
        topics: impl Iterator<Item = u32>,
        came_ns: u64,
        now_ns: u64,
    ) -> u64 {
        if self.known.is_empty() {
            return 0;
        }
        let address = Address::of(address);
        let of_address = || {
            let counts =
                |known: &&Known| known.address == address && known.from_ns <= came_ns && now_ns < known.until_ns;
            self.known.iter().filter(counts)
        };
        if of_address().filter(|known| known.waited_ns == LET_GO).count() >= ALL_TOPICS_FROM {
            return LET_GO;
        }
        let waited_for = |topic| {
            let follows = |known: &&Known| known.topics.contains(&topic);
            of_address().filter(follows).map(|known| known.waited_ns).max()
        };
        topics.filter_map(waited_for).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn what_one_was_waited_for_counts_for_those_that_came_since_from_there_for_its_topics() {
        let mut slow = Slow::new(100);
        slow.note(HERE, [1, 2].into(), 50, 30, 80);
        let waited = |slow: &Slow, address, topic, came, now| slow.waited_ns(address, [topic].into_iter(), came, now);
        assert_eq!(waited(&slow, HERE, 2, 81, 90), 30);
        assert_eq!(waited(&slow, "::ffff:10.0.0.1".parse().unwrap(), 2, 81, 90), 30, "the same address");
        assert_eq!((waited(&slow, HERE, 3, 81, 90), waited(&slow, THERE, 2, 81, 90)), (0, 0), "others");
        assert_eq!((waited(&slow, HERE, 2, 49, 90), waited(&slow, HERE, 2, 50, 90)), (0, 30), "it was there before");
        assert_eq!((waited(&slow, HERE, 2, 81, 1079), waited(&slow, HERE, 2, 81, 1080)), (30, 0), "for a time");
        slow.note(HERE, [1, 2].into(), 90, LET_GO, 100);
        assert_eq!(waited(&slow, HERE, 1, 81, 1090), LET_GO);
        slow.note(HERE, [1, 2].into(), 95, 7, 100);
        assert_eq!(waited(&slow, HERE, 1, 81, 1090), LET_GO, "that it was waited for less since makes no difference");
    }

    #[test]
    fn who_goes_through_the_topics_is_known_for_all_of_them_and_what_is_known_is_bounded() {
        let mut slow = Slow::new(100);
        for topic in 0..4 {
            assert_eq!(slow.waited_ns(HERE, [9].into_iter(), 50, 50), 0);
            slow.note(HERE, [topic].into(), 10, LET_GO, 50);
        }
        assert_eq!(
            (slow.waited_ns(HERE, [9].into_iter(), 50, 50), slow.waited_ns(THERE, [9].into_iter(), 50, 50)),
            (LET_GO, 0)
        );
        for host in 0..1000_u32 {
            slow.note(IpAddr::V4((host + 1).into()), [1].into(), 10, 5, 60 + u64::from(host));
        }
        assert_eq!(slow.known.len(), KNOWN_MAX);
        assert_eq!(slow.waited_ns(IpAddr::V4(1000.into()), [1].into_iter(), 50, 1000), 5, "the newest are kept");
        assert_eq!(slow.waited_ns(IpAddr::V4(1.into()), [1].into_iter(), 50, 1000), 0);
        let (six, same, other) = ("2001:db8::1:2", "2001:db8::77", "2001:db8:0:1::77");
        slow.note(six.parse().unwrap(), [1].into(), 10, 5, 1100);
        assert_eq!(slow.waited_ns(same.parse().unwrap(), [1].into_iter(), 50, 1100), 5);
        assert_eq!(slow.waited_ns(other.parse().unwrap(), [1].into_iter(), 50, 1100), 0);
    }
}
