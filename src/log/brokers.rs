//! Which brokers serve, and where clients find them: each says so in lines of its own, and everybody reads it there.
//!
//! An address counts while its lines carry the incarnation of the broker process that serves. Who is leaving, or has stopped in good order, is not
//! listed; one that was killed is, since it may be back at any time.

use std::fmt::Write;

use crate::limits::ADDRESS_BYTES_MAX;
use crate::log::View;
use crate::pool::Memory;
use crate::pool::layout::ADDRESS_LINES;
use crate::pool::line::{self, Owned, observe_words};
use crate::pool::record::{ADDRESS_PIECE_BYTES, AddressLine, BrokerLine, member_state};
use crate::wire::frame::{self, BROKER_LIST_BYTES_MAX, Brokers, is_address};

/// How often it is looked who serves, ns.
const LOOK_NS: u64 = 20_000_000;
/// And while somebody is to be welcomed, who is told of all that serve by then.
const WELCOME_LOOK_NS: u64 = 1_000_000;

const _: () = assert!(ADDRESS_BYTES_MAX <= ADDRESS_LINES as usize * ADDRESS_PIECE_BYTES);

/// Says where clients find a broker, as of this incarnation of it. The caller holds its host lock.
///
/// # Panics
/// If that is no address.
pub fn announce_address<M: Memory>(view: &View<M>, broker: u32, incarnation: u64, address: &str) {
    assert!(is_address(address), "{address:?} is host:port");
    let mut pieces = address.as_bytes().chunks(ADDRESS_PIECE_BYTES);
    for part in 0..ADDRESS_LINES {
        let mut text = [0; ADDRESS_PIECE_BYTES];
        let piece = pieces.next().unwrap_or_default();
        text[..piece.len()].copy_from_slice(piece);
        // The place may have been another host's.
        let at = view.layout.address_line(broker, part);
        Owned::take_from_another(view.memory.clone(), at).publish(&AddressLine { incarnation, text });
    }
}

/// What a broker's lines say under an incarnation. `None`: not yet, or they are damaged.
fn address<M: Memory>(view: &View<M>, broker: u32, incarnation: u64) -> Option<String> {
    let mut text = Vec::with_capacity(ADDRESS_BYTES_MAX);
    for part in 0..ADDRESS_LINES {
        let at = view.layout.address_line(broker, part);
        let (_, line) = line::observe::<_, AddressLine>(&view.memory, at, view.access_to_broker(broker))?;
        if line.incarnation != incarnation {
            return None;
        }
        text.extend(line.text.iter().take_while(|byte| **byte != 0));
    }
    String::from_utf8(text).ok().filter(|text| is_address(text))
}

/// Where the last process that had a broker's place was to be found, if it said so.
pub fn last_address<M: Memory>(view: &View<M>, broker: u32) -> Option<String> {
    let line: BrokerLine = observe_words(&view.memory, view.layout.broker_line(broker), view.access_to_broker(broker));
    address(view, broker, line.incarnation).filter(|_| line.incarnation > 0)
}

/// The brokers that serve, as clients are told of them: `id address` in a line each.
#[derive(Debug)]
pub struct BrokerList<M> {
    view: View<M>,
    /// Is listed first, and whatever else there is no room for.
    own: u32,
    /// By broker: the incarnation that serves, and where. 0: none does.
    known: Vec<(u64, String)>,
    text: String,
    version: u64,
    looked_ns: Option<u64>,
}

impl<M: Memory> BrokerList<M> {
    /// As the broker `own` tells it.
    pub fn new(view: &View<M>, own: u32) -> Self {
        let known = vec![(0, String::new()); view.layout.geometry.brokers as usize];
        BrokerList { view: view.clone(), own, known, text: String::new(), version: 0, looked_ns: None }
    }

    /// Looks who serves, now and then; more often if somebody `is_welcomed`. True if that changed.
    pub fn look(&mut self, is_welcomed: bool, now_ns: u64) -> bool {
        let every_ns = if is_welcomed { WELCOME_LOOK_NS } else { LOOK_NS };
        if self.looked_ns.is_some_and(|looked_ns| now_ns.saturating_sub(looked_ns) < every_ns) {
            return false;
        }
        self.looked_ns = Some(now_ns);
        let view = &self.view;
        let mut is_changed = false;
        for (broker, (known, at)) in (0..).zip(&mut self.known) {
            // Words: whoever was killed while it beat serves on as far as anybody can tell.
            let line: BrokerLine =
                observe_words(&view.memory, view.layout.broker_line(broker), view.access_to_broker(broker));
            let serving = if line.state == member_state::SERVING { line.incarnation } else { 0 };
            if serving == *known {
                continue;
            }
            let found = if serving == 0 { Some(String::new()) } else { address(view, broker, serving) };
            if let Some(found) = found {
                (*known, *at) = (serving, found);
                is_changed = true;
            }
        }
        if is_changed {
            (self.text, self.version) = (self.listed(), self.version + 1);
        }
        is_changed
    }

    fn listed(&self) -> String {
        let count = self.known.len() as u32;
        let mut text = String::new();
        for broker in (0..count).map(|offset| (self.own + offset) % count) {
            let (serving, address) = &self.known[broker as usize];
            if *serving > 0 && text.len() + address.len() + "65535 \n".len() <= BROKER_LIST_BYTES_MAX {
                let _ = writeln!(text, "{broker} {address}");
            }
        }
        text
    }

    /// As it was last found.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The frame that says which brokers there are, for a conversation in this version of the protocol that was told the list of the version `told`;
    /// it counts as told then. `None`: that is this list, or the protocol does not have the frame.
    pub fn news(&self, told: &mut u64, protocol: u8) -> Option<Vec<u8>> {
        let is_news = *told != self.version && protocol >= frame::VERSION_3;
        is_news.then(|| {
            *told = self.version;
            frame::with_body(&Brokers { version: protocol, ..Brokers::default() }, self.text.as_bytes())
        })
    }

    /// Grows whenever it changes; 0: nobody was found yet.
    pub fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::member::Member;
    use crate::log::views::plain_view;
    use crate::pool::Process;

    #[test]
    fn who_serves_is_listed_and_who_leaves_is_not() {
        let view = plain_view(1);
        let mut list = BrokerList::new(&view, 1);
        assert!(!list.look(false, 1) && list.text().is_empty());
        let announce = |broker, address: &str| {
            let member = Member::announce(&view, broker, Process::default());
            announce_address(&view, broker, member.incarnation(), address);
            member
        };
        let mut first = announce(0, "a:1");
        assert!(!list.look(false, LOOK_NS) && list.look(false, LOOK_NS + 1));
        assert_eq!((list.text(), list.version()), ("0 a:1\n", 1));
        let long = format!("{}:65535", "x".repeat(249));
        announce(1, &long);
        assert!(list.look(false, 3 * LOOK_NS));
        assert_eq!(list.text(), format!("1 {long}\n0 a:1\n"), "its own is first");
        first.leave();
        assert!(list.look(false, 5 * LOOK_NS) && !list.look(false, 7 * LOOK_NS));
        assert_eq!(list.text(), format!("1 {long}\n"));
        announce(0, "b:2");
        assert!(!list.look(false, 7 * LOOK_NS + WELCOME_LOOK_NS));
        assert!(list.look(true, 7 * LOOK_NS + WELCOME_LOOK_NS), "it is told to whoever is welcomed by now");
        assert!(list.text().ends_with("0 b:2\n") && list.version() == 4);
    }

    /// A broker process took a place over and was killed, or held up, before it had said where it is: what the one before had said is void.
    #[test]
    fn an_address_is_of_one_incarnation() {
        let view = plain_view(1);
        let mut list = BrokerList::new(&view, 0);
        let before = Member::announce(&view, 1, Process::default());
        announce_address(&view, 1, before.incarnation(), "a:1");
        let now = Member::announce(&view, 1, Process::default());
        assert!(!list.look(false, LOOK_NS));
        announce_address(&view, 1, now.incarnation(), "c:1");
        assert!(list.look(false, 3 * LOOK_NS));
        assert_eq!(list.text(), "1 c:1\n");
        view.memory.store(view.layout.address_line(1, 0) + 16, u64::from_le_bytes(*b"c 1\0\0\0\0\0"));
        assert_eq!(address(&view, 1, now.incarnation()), None, "damaged: no address");
    }
}
