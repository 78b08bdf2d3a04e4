//! What each address that clients come from holds of one broker process, and how fast it comes: nobody shows who he is, so an address is
//! all that can be told apart. One address gets a share, and whoever comes from another finds the rest.
//!
//! * An address is an IPv4 address, or the first 64 bits of an IPv6 address: whoever has one of those has all of them.
//! * What is counted is counted here, in this process: not what other brokers of the pool gave the same address, nor what
//!   was made before this process began, nor what an address made that was not heard of for long while thousands of others were.
//! * Touched when a connection, session, topic or cursor comes or goes and when something is asked for, never for a batch; the lock is held
//!   for a look at a table.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::SESSIONS_MAX;
use crate::roles::heartbeats;

/// Most addresses that are told apart. The one that was not heard for longest and has no connection makes room; without such a one,
/// newcomers are counted as one.
pub const ADDRESSES_MAX: usize = 4096;
/// Longest that somebody is held back, ns.
pub const HELD_BACK_MAX_NS: u64 = 1_000_000_000;
/// Connections of an address above its bound that are told so; more are reset without a word.
const TOLD_MAX: u32 = 16;
/// What was asked for and is not there yet counts as there for so long, ns.
const COMING_NS: u64 = 10_000_000_000;
/// Parts of one opening, see [`Cost`].
const PARTS: u64 = 64;

/// What one address may have, and how fast it may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBounds {
    /// Connections of every kind.
    pub connections: u32,
    /// Sessions, connected or not.
    pub sessions: u32,
    /// Topics it created.
    pub topics: u32,
    /// Cursors it made.
    pub cursors: u32,
    /// Connections a second, and what counts as much; 0: any.
    pub openings: u32,
    /// So many come at once before anybody is held back, if none came for long.
    pub openings_at_once: u32,
    /// Heartbeats a second that its connections share, see `heartbeats::in_heartbeats`; 0: any.
    pub heartbeats: u32,
}

impl AddressBounds {
    /// None that anybody meets.
    pub const NONE: AddressBounds = AddressBounds {
        connections: u32::MAX >> 1,
        sessions: u32::MAX,
        topics: u32::MAX,
        cursors: u32::MAX,
        openings: 0,
        openings_at_once: 0,
        heartbeats: 0,
    };
}

/// What something counts as, in parts of an opening: about the processor time it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Cost {
    /// A request that makes nothing.
    Request = 1,
    /// A connection; a session.
    Opening = PARTS,
    /// A topic or cursor.
    Making = 4 * PARTS,
    /// A connection that broke the protocol.
    Breach = 16 * PARTS,
}

/// When somebody's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At once.
    Now,
    /// Then, ns.
    At(u64),
    /// So many wait already that it is not worth waiting.
    Never,
}

/// What an address makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Topics.
    Topic,
    /// Cursors.
    Cursor,
}

/// An address as it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(u128);

impl Address {
    /// Of those for whom there was no place of their own, or whose address is not known.
    pub const OTHERS: Address = Address(0);

    /// The address that this peer is taken for. This host by IPv6 is this host by IPv4.
    pub fn of(peer: IpAddr) -> Address {
        let mapped = |four: Ipv4Addr| Address(four.to_ipv6_mapped().to_bits());
        match peer {
            IpAddr::V4(four) => mapped(four),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => mapped(Ipv4Addr::LOCALHOST),
            IpAddr::V6(six) => match six.to_ipv4_mapped() {
                Some(four) => mapped(four),
                None => Address(six.to_bits() & !u128::from(u64::MAX)),
            },
        }
    }
}

/// What an address has.
#[derive(Default)]
struct Entry {
    connections: u32,
    /// Connections that are one too many, and wait to be told so, or for a place.
    too_many: u32,
    sessions: u32,
    /// Hash of what it made, and when it was asked for, ns.
    topics: Vec<(u64, u64)>,
    cursors: Vec<(u64, u64)>,
    /// When everything it asked for so far is paid for, ns.
    paid_ns: u64,
    seen_ns: u64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Address, Entry>,
    /// Sessions that nobody has: until when each counts, ns, in the order in which they were left; of two times.
    left: [VecDeque<(u64, Address)>; 2],
}

impl Table {
    fn entry(&mut self, address: Address, now_ns: u64) -> &mut Entry {
        let entry = self.entries.entry(address).or_default();
        entry.seen_ns = now_ns;
        entry
    }

    /// The address something of this peer is counted for.
    fn place(&mut self, address: Address) -> Address {
        if self.entries.contains_key(&address) || self.entries.len() < ADDRESSES_MAX {
            return address;
        }
        let gone = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.connections + entry.too_many == 0)
            .min_by_key(|(_, entry)| entry.seen_ns);
        match gone.map(|(address, _)| *address) {
            Some(gone) => {
                self.entries.remove(&gone);
                address
            }
            None => Address::OTHERS,
        }
    }

    /// Sessions that were left long enough ago count no longer.
    fn expire(&mut self, now_ns: u64) {
        for queue in &mut self.left {
            while queue.front().is_some_and(|(until_ns, _)| *until_ns <= now_ns) || queue.len() > SESSIONS_MAX as usize
            {
                let (_, address) = queue.pop_front().expect("looked at");
                if let Some(entry) = self.entries.get_mut(&address) {
                    entry.sessions = entry.sessions.saturating_sub(1);
                }
            }
        }
    }
}

/// The addresses that a broker process serves.
pub struct Addresses {
    bounds: AddressBounds,
    table: Mutex<Table>,
    hasher: RandomState,
}

/// A connection's place among those of its address; given back when it is dropped.
pub struct Admission {
    addresses: Arc<Addresses>,
    /// The address it is counted for.
    pub address: Address,
    is_one_too_many: bool,
}

impl Admission {
    /// Whether its address has no place for it, not even now.
    pub fn is_one_too_many(&mut self) -> bool {
        if self.is_one_too_many
            && let Some(entry) = self.addresses.lock().entries.get_mut(&self.address)
            && entry.connections < self.addresses.bounds.connections
        {
            entry.connections += 1;
            entry.too_many = entry.too_many.saturating_sub(1);
            self.is_one_too_many = false;
        }
        self.is_one_too_many
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Admission({:?})", self.address)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(entry) = self.addresses.lock().entries.get_mut(&self.address) {
            let count = if self.is_one_too_many { &mut entry.too_many } else { &mut entry.connections };
            *count = count.saturating_sub(1);
        }
    }
}

/// Whether a connection finds a place.
pub enum Admitted {
    /// Yes.
    Yes(Admission),
    /// Its address has all it may have; to be told so.
    Full(Admission),
    /// Not even that.
    Crowd,
}

impl Addresses {
    /// With these bounds.
    pub fn new(bounds: AddressBounds) -> Arc<Addresses> {
        Arc::new(Addresses { bounds, table: Mutex::default(), hasher: RandomState::new() })
    }

    /// What each may have.
    pub fn bounds(&self) -> &AddressBounds {
        &self.bounds
    }

    /// The number that something made is known by, see [`Addresses::make`].
    pub fn number_of(&self, name: impl Hash) -> u64 {
        self.hasher.hash_one(name)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counts stay sound whatever a holder was doing when it panicked; and then the process ends anyway.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection.
    pub fn admit(self: &Arc<Self>, peer: Option<IpAddr>, now_ns: u64) -> Admitted {
        let mut table = self.lock();
        let address = table.place(peer.map_or(Address::OTHERS, Address::of));
        let entry = table.entry(address, now_ns);
        let is_one_too_many = entry.connections >= self.bounds.connections;
        let count = if is_one_too_many { &mut entry.too_many } else { &mut entry.connections };
        if is_one_too_many && *count >= TOLD_MAX {
            return Admitted::Crowd;
        }
        *count += 1;
        drop(table);
        let admission = Admission { addresses: self.clone(), address, is_one_too_many };
        if is_one_too_many { Admitted::Full(admission) } else { Admitted::Yes(admission) }
    }

    /// Counts something that costs work, and says when it may be done. What is never done does not count: those of an address that come
    /// faster than they may keep each other waiting, but do not keep all of them out.
    pub fn charge(&self, address: Address, cost: Cost, now_ns: u64) -> Turn {
        self.count(address, cost, now_ns, false)
    }

    /// Counts something that costs work and is done already, or is done in any case.
    pub fn owe(&self, address: Address, cost: Cost, now_ns: u64) {
        self.count(address, cost, now_ns, true);
    }

    fn count(&self, address: Address, cost: Cost, now_ns: u64, is_done: bool) -> Turn {
        if self.bounds.openings == 0 {
            return Turn::Now;
        }
        let part_ns = 1_000_000_000 / (PARTS * u64::from(self.bounds.openings));
        let in_advance_ns = PARTS * u64::from(self.bounds.openings_at_once) * part_ns;
        let mut table = self.lock();
        let entry = table.entry(address, now_ns);
        let since_ns = now_ns.saturating_sub(in_advance_ns);
        let paid_ns = entry.paid_ns.max(since_ns) + cost as u64 * part_ns;
        let latest_ns = now_ns + HELD_BACK_MAX_NS;
        if paid_ns > latest_ns {
            if is_done {
                entry.paid_ns = latest_ns;
            }
            return Turn::Never;
        }
        entry.paid_ns = paid_ns;
        if paid_ns <= now_ns { Turn::Now } else { Turn::At(paid_ns) }
    }

    /// In how many of a broker's heartbeats one more connection of this address is told that the broker is there.
    pub fn in_heartbeats(&self, address: Address, heartbeat_ms: u32) -> u16 {
        let connections = self.lock().entries.get(&address).map_or(0, |entry| entry.connections);
        heartbeats::in_heartbeats(connections, heartbeat_ms, self.bounds.heartbeats)
    }

    /// Counts a session. `Err`: how many the address has, which is all it may.
    pub fn open_session(&self, address: Address, now_ns: u64) -> Result<(), u32> {
        let mut table = self.lock();
        table.expire(now_ns);
        let entry = table.entry(address, now_ns);
        if entry.sessions >= self.bounds.sessions {
            return Err(entry.sessions);
        }
        entry.sessions += 1;
        Ok(())
    }

    /// A session that was counted was closed, or was left by its connection and counts for `after_ns` yet. `was_used`: something
    /// was published to it, and so others of that kind are left for as long.
    pub fn leave_session(&self, address: Address, was_used: bool, after_ns: u64, now_ns: u64) {
        let mut table = self.lock();
        table.left[usize::from(was_used)].push_back((now_ns.saturating_add(after_ns), address));
        table.expire(now_ns);
    }

    /// A session that was counted is closed.
    pub fn close_session(&self, address: Address) {
        if let Some(entry) = self.lock().entries.get_mut(&address) {
            entry.sessions = entry.sessions.saturating_sub(1);
        }
    }

    /// Counts a topic or cursor that is asked for; again if it was counted already. What is not among `existing` any more does not
    /// count.
    /// `Err`: how many the address has, which is all it may.
    pub fn make(
        &self,
        address: Address,
        made: Made,
        what: u64,
        existing: impl FnOnce() -> Vec<u64>,
        now_ns: u64,
    ) -> Result<(), u32> {
        let mut table = self.lock();
        let entry = table.entry(address, now_ns);
        let (list, most) = match made {
            Made::Topic => (&mut entry.topics, self.bounds.topics),
            Made::Cursor => (&mut entry.cursors, self.bounds.cursors),
        };
        if list.iter().any(|(known, _)| *known == what) {
            return Ok(());
        }
        if list.len() >= most as usize {
            let existing = existing();
            let is_coming = |asked_ns| now_ns.saturating_sub(asked_ns) < COMING_NS;
            list.retain(|(known, asked_ns)| is_coming(*asked_ns) || existing.contains(known));
        }
        if list.len() >= most as usize {
            return Err(list.len() as u32);
        }
        list.push((what, now_ns));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BOUNDS: AddressBounds = AddressBounds {
        connections: 2,
        sessions: 2,
        topics: 2,
        cursors: 1,
        openings: 10,
        openings_at_once: 10,
        heartbeats: 0,
    };

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn address(last: u8) -> Address {
        Address::of(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn addresses_are_told_apart_as_they_are_given_out() {
        let of = |text: &str| Address::of(text.parse().unwrap());
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::1"), of("127.0.0.1"));
        assert_ne!(of("::1"), Address::OTHERS);
    }

    #[test]
    fn connections_of_one_address_are_bounded_and_come_back() {
        let addresses = Addresses::new(BOUNDS);
        let admit = |last| addresses.admit(peer(last), SECOND);
        let (Admitted::Yes(first), Admitted::Yes(_second)) = (admit(1), admit(1)) else { panic!("two may") };
        let told: Vec<Admitted> = (0..TOLD_MAX).map(|_| admit(1)).collect();
        assert!(told.iter().all(|admitted| matches!(admitted, Admitted::Full(_))), "told so");
        assert!(matches!(admit(1), Admitted::Crowd), "and no more than a few of them");
        assert!(matches!(admit(2), Admitted::Yes(_)), "others notice nothing");
        drop(first);
        let mut told: Vec<Admission> = told
            .into_iter()
            .map(|admitted| if let Admitted::Full(admission) = admitted { admission } else { unreachable!() })
            .collect();
        assert!(!told[0].is_one_too_many(), "those that wait to be told so keep nobody out");
        assert!(told[1].is_one_too_many() && matches!(admit(1), Admitted::Full(_)), "two are there again");
        drop(told);
        assert!(matches!(admit(1), Admitted::Yes(_)));
    }

    #[test]
    fn who_comes_fast_waits_and_others_do_not() {
        let addresses = Addresses::new(BOUNDS);
        let now = 100 * SECOND;
        let charge = |last, cost, now| addresses.charge(address(last), cost, now);
        for opening in 0..10 {
            assert_eq!(charge(1, Cost::Opening, now), Turn::Now, "{opening}: so many at once");
        }
        let Turn::At(first) = charge(1, Cost::Opening, now) else { panic!("the next waits") };
        assert!((now + SECOND / 11..now + SECOND / 9).contains(&first), "{}", first - now);
        let waits = (0..20).filter(|_| matches!(charge(1, Cost::Opening, now), Turn::At(_))).count();
        assert!((8..=10).contains(&waits), "{waits}: a second's worth waits, the rest is not worth it");
        assert_eq!(charge(1, Cost::Opening, now), Turn::Never);
        assert_eq!(
            charge(2, Cost::Breach, now),
            Turn::At(now + 6 * SECOND / 10),
            "another has its own, and a breach is dear"
        );
        assert_eq!(charge(1, Cost::Opening, now + 3 * SECOND), Turn::Now);
    }

    #[test]
    fn what_comes_at_once_is_bounded_apart_from_the_rate() {
        let addresses = Addresses::new(AddressBounds { openings: 50, openings_at_once: 1024, ..BOUNDS });
        let charge = |now| addresses.charge(address(1), Cost::Opening, now);
        let now = 100 * SECOND;
        assert!((0..1024).all(|_| charge(now) == Turn::Now), "all clients of an address come back at once");
        let waits = (0..100).filter(|_| matches!(charge(now), Turn::At(_))).count();
        assert_eq!(waits, 50, "a second's worth waits");
        // As fast as it goes for ten seconds: no more than the rate gets through.
        let served = (1..=10_000).filter(|ms| charge(now + ms * SECOND / 1000) != Turn::Never).count();
        assert!((490..=510).contains(&served), "{served}");
        assert!((0..200).all(|_| charge(now + 15 * SECOND) == Turn::Now), "what was not used comes back");
    }

    #[test]
    fn sessions_count_until_they_are_closed_or_long_left() {
        let addresses = Addresses::new(BOUNDS);
        let open = |now| addresses.open_session(address(1), now);
        assert_eq!((open(1), open(1), open(1)), (Ok(()), Ok(()), Err(2)));
        addresses.close_session(address(1));
        assert_eq!((open(2), open(2)), (Ok(()), Err(2)));
        addresses.leave_session(address(1), true, 5 * SECOND, 2);
        addresses.leave_session(address(1), false, SECOND, 2);
        assert_eq!((open(3), open(SECOND + 2), open(SECOND + 2)), (Err(2), Ok(()), Err(2)));
        assert_eq!((open(5 * SECOND + 2), open(5 * SECOND + 2)), (Ok(()), Err(2)));
    }

    #[test]
    fn what_was_made_counts_until_it_is_gone() {
        let addresses = Addresses::new(BOUNDS);
        let make = |what, gone: u64, now| {
            let existing = || (1..9).filter(|known| *known != gone).collect();
            addresses.make(address(1), Made::Topic, what, existing, now)
        };
        assert_eq!((make(1, 0, 1), make(2, 0, 1), make(1, 0, 1)), (Ok(()), Ok(()), Ok(())), "asked for again is one");
        assert_eq!(make(3, 0, 1), Err(2));
        assert_eq!(make(3, 1, 1), Err(2), "it may be coming yet");
        assert_eq!(make(3, 1, COMING_NS + 1), Ok(()), "it is gone");
        assert_eq!(addresses.make(address(2), Made::Topic, 9, Vec::new, 1), Ok(()), "others notice nothing");
        assert_eq!(addresses.make(address(1), Made::Cursor, 9, Vec::new, 1), Ok(()), "each for itself");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_there() {
        let addresses = Addresses::new(BOUNDS);
        let admit = |number: usize| {
            let [_, _, high, low] = (number as u32).to_be_bytes();
            addresses.admit(Some(IpAddr::from([10, 1, high, low])), number as u64)
        };
        let all: Vec<Admitted> = (0..ADDRESSES_MAX).map(admit).collect();
        assert!(
            matches!(admit(ADDRESSES_MAX), Admitted::Yes(Admission { address: Address::OTHERS, .. })),
            "all are there"
        );
        drop(all);
        for number in 0..2 * ADDRESSES_MAX {
            assert!(matches!(admit(number), Admitted::Yes(_)));
        }
        assert!(addresses.lock().entries.len() <= ADDRESSES_MAX + 1);
    }
}
