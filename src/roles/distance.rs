//! How far away clients are: of a role's connections the one that takes longest to answer, looked for as the role reports.

use std::net::SocketAddr;

use crate::net::Socket;

/// Connections asked in one report at most: each costs a system call.
const ASKED_MAX: usize = 128;

/// Asks some of the connections each time, and all of them in turn.
#[derive(Debug, Default)]
pub struct Distances {
    next: usize,
}

/// A client that is far away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Farthest {
    /// Its shortest answer lately, us.
    pub round_trip_us: u64,
    /// Where it is, as [`packed`].
    pub address: u64,
}

impl Distances {
    /// The farthest of those asked now. Of `places` connections, `socket` gives those that are there.
    pub fn look<'a, S: Socket>(&mut self, places: usize, socket: impl Fn(usize) -> Option<&'a S>) -> Farthest {
        let first = std::mem::take(&mut self.next);
        let there = (first..places).filter_map(|place| Some((place, socket(place)?)));
        let mut farthest = Farthest::default();
        for (asked, (place, socket)) in there.enumerate() {
            if asked == ASKED_MAX {
                self.next = place;
                break;
            }
            let round_trip_us = socket.round_trip_us().map_or(0, u64::from);
            if round_trip_us > farthest.round_trip_us {
                farthest = Farthest { round_trip_us, address: packed(socket.peer()) };
            }
        }
        farthest
    }
}

/// An address in a counter's word: IPv4 times 65,536, and the port; of IPv6 the port alone.
pub fn packed(peer: Option<SocketAddr>) -> u64 {
    peer.map_or(0, |peer| match peer.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(peer.port()),
        std::net::IpAddr::V6(_) => peer.port().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn all_are_asked_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let stream = TcpStream::connect(here).unwrap();
        let mut distances = Distances::default();
        let asked = std::cell::RefCell::new(Vec::new());
        let socket = |place: usize| {
            asked.borrow_mut().push(place);
            Some(&stream)
        };
        let farthest = distances.look(300, socket);
        assert!(farthest.round_trip_us > 0);
        assert_eq!(farthest.address, 0x7f00_0001 << 16 | u64::from(here.port()));
        (0..2).for_each(|_| assert!(distances.look(300, socket).round_trip_us > 0));
        asked.borrow_mut().sort_unstable();
        asked.borrow_mut().dedup();
        assert_eq!(asked.into_inner(), (0..300).collect::<Vec<_>>());
        assert_eq!(distances.look(0, |_| None::<&TcpStream>), Farthest::default());
    }

    #[test]
    fn an_address_fits_a_word_with_its_port() {
        let packed_of = |text: &str| packed(Some(text.parse().unwrap()));
        assert_eq!(packed_of("10.0.0.7:65535"), 0x0a00_0007_ffff);
        assert_eq!(packed_of("[::ffff:10.0.0.7]:1"), 0x0a00_0007_0001, "the same client over a socket of IPv6");
        assert_eq!(packed_of("[fe80::1]:9"), 9);
        assert_eq!(packed(None), 0);
    }

    /// A connection that is so far away, us.
    struct Far(Option<u32>);

    impl Socket for Far {
        type Handle = ();

        fn handle(&self) {}
        fn peer(&self) -> Option<SocketAddr> {
            Some(SocketAddr::from(([10, 0, 0, 1], self.0.unwrap_or(0) as u16)))
        }
        fn prepare(&self, _: Duration) {}
        fn let_rest(&self) {}
        fn shut(&self, _: Shutdown) {}
        fn abort(&self) {}
        fn receive_now(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send_now(&self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn acked_bytes(&self) -> Option<u64> {
            None
        }
        fn round_trip_us(&self) -> Option<u32> {
            self.0
        }
        fn unacked_bytes(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn the_farthest_is_told_of() {
        let there = [Some(30), None, Some(700), Some(20)].map(Far);
        let farthest = Distances::default().look(there.len(), |place| there.get(place));
        assert_eq!(farthest, Farthest { round_trip_us: 700, address: 0x0a00_0001 << 16 | 700 });
    }
}
