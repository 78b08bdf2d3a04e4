//! Receives, lists, frames and cancels over real sockets, and what may not be touched meanwhile.

use super::*;
use crate::net::conformance::{Bed, conformance};
use crate::net::network::Socket;
use crate::pool::{Hardware, Mapped, Memory};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

fn ring() -> Ring {
    let map = memmap2::MmapOptions::new().len(1 << 20).map_anon().unwrap();
    Ring::new(8, 2, Mapping::new(map.into())).unwrap()
}

fn wait(ring: &mut Ring) -> Completion {
    for _ in 0..100 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.submit(Some(Duration::from_millis(100))).unwrap();
    }
    panic!("no completion within 10 s");
}

#[test]
fn receives_land_in_the_pool_and_frames_are_lent_until_done() {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let asker = |tag| Asker { role: 3, tag };
    ring.receive_pool(asker(1), ours.as_raw_fd(), 4096, 100).unwrap();
    peer.write_all(b"hello").unwrap();
    assert_eq!(wait(&mut ring), Completion { role: 3, tag: 1, result: 5, stage: Stage::Done });
    let pool = crate::pool::Mapped::<crate::pool::Hardware>::new(ring.pool().clone());
    crate::pool::Memory::with_bytes(&pool, 4096, 5, |bytes| assert_eq!(bytes, b"hello"));
    let slot = ring.lease_frames(1)[0];
    ring.frame_mut(slot)[..3].copy_from_slice(b"ack");
    ring.send_frame(asker(2), ours.as_raw_fd(), slot, false).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ring.frame_mut(slot)[0] = 0)).is_err());
    assert_eq!(wait(&mut ring).result, 64);
    let mut got = [0; 64];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got[..3], b"ack");
    ring.frame_mut(slot)[0] = 1;
}

#[test]
fn a_list_is_sent_with_its_payload_and_can_be_consumed_in_part() {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let pool = crate::pool::Mapped::<crate::pool::Hardware>::new(ring.pool().clone());
    crate::pool::Memory::copy_in(&pool, 0, &[7; 128]);
    let id = ring.take_list();
    let list = ring.list(id);
    list.push(&[1; 64], 0, 128);
    list.push(&[2; 64], 0, 0);
    list.consume(70);
    assert_eq!(list.bytes(), 186);
    ring.send_list(Asker { role: 0, tag: 9 }, ours.as_raw_fd(), id, false).unwrap();
    assert_eq!(wait(&mut ring).result, 186);
    let mut got = [0; 186];
    peer.read_exact(&mut got).unwrap();
    assert!(got[..122].iter().all(|byte| *byte == 7) && got[122..].iter().all(|byte| *byte == 2));
    ring.give_back_list(id);
}

/// The peer reads nothing: its window fills, and what was sent by zero copy beyond it stays lent.
#[test]
fn an_aborted_connection_gives_lent_pages_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_peer, _) = listener.accept().unwrap();
    let map = memmap2::MmapOptions::new().len(16 << 20).map_anon().unwrap();
    let mut ring = Ring::new(8, 0, Mapping::new(map.into())).unwrap();
    let id = ring.take_list();
    ring.list(id).push(&[1; 64], 0, 16 << 20);
    let operation = ring.send_list(Asker { role: 0, tag: 1 }, ours.as_raw_fd(), id, true).unwrap();
    for _ in 0..20 {
        ring.submit(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(ring.next_completion(), None, "more was taken than the peer can have room for");
    }
    ring.cancel(operation);
    let cut = wait(&mut ring);
    assert!((1..16 << 20).contains(&cut.result), "part of it was sent: {cut:?}");
    assert_eq!(cut.stage, Stage::Accepted);
    for _ in 0..20 {
        ring.submit(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(ring.next_completion(), None, "pages in the socket are still lent");
    }
    ours.abort();
    assert!(matches!(wait(&mut ring).stage, Stage::Released { .. }));
    ring.give_back_list(id);
}

#[test]
fn cancelled_operations_complete_and_operations_are_bounded() {
    let (_peer, ours) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let asker = Asker { role: 0, tag: 0 };
    let operation = ring.receive_pool(asker, ours.as_raw_fd(), 0, 10).unwrap();
    (1..8).for_each(|_| assert!(ring.poll_readable(asker, ours.as_raw_fd()).is_some()));
    assert_eq!(ring.poll_readable(asker, ours.as_raw_fd()), None);
    ring.cancel(operation);
    assert_eq!(wait(&mut ring).result, -libc::ECANCELED);
    assert_eq!(ring.room(), 1);
}

/// The kernel was at work on it just then: the cancel has ended nothing, and the operation would wait for ever.
#[test]
fn a_cancel_that_met_its_operation_at_work_is_asked_for_again() {
    let (_peer, ours) = UnixStream::pair().unwrap();
    let mut ring = ring();
    let operation = ring.receive_pool(Asker { role: 0, tag: 0 }, ours.as_raw_fd(), 0, 10).unwrap();
    ring.submit(Some(Duration::from_millis(5))).unwrap();
    ring.cancelled(operation.0, -libc::EALREADY);
    assert_eq!(wait(&mut ring).result, -libc::ECANCELED);
    // Word of one that is over by now ends nobody else's.
    let next = ring.receive_pool(Asker { role: 0, tag: 1 }, ours.as_raw_fd(), 0, 10).unwrap();
    ring.cancelled(operation.0, -libc::EALREADY);
    ring.submit(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(ring.next_completion(), None);
    ring.cancel(next);
    assert_eq!(wait(&mut ring).tag, 1);
}

/// A ring, and the other ends as sockets.
struct Sockets {
    ring: Ring,
    listener: TcpListener,
    peers: Vec<Option<TcpStream>>,
}

impl Bed for Sockets {
    type N = Ring;

    fn new(operations_max: u32) -> Sockets {
        let map = memmap2::MmapOptions::new().len(1 << 20).map_anon().unwrap();
        let ring = Ring::new(operations_max, 2, Mapping::new(map.into())).unwrap();
        Sockets { ring, listener: TcpListener::bind("127.0.0.1:0").unwrap(), peers: Vec::new() }
    }

    fn net(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn accept(&mut self, asker: Asker) -> Operation {
        self.ring.accept(asker, &self.listener).unwrap()
    }

    fn pass(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
    }

    fn next(&mut self) -> Option<Completion> {
        self.ring.next_completion().or_else(|| {
            self.ring.submit(Some(Duration::from_millis(2))).unwrap();
            self.ring.next_completion()
        })
    }

    fn connect(&mut self) -> (TcpStream, usize) {
        let peer = self.dial();
        (self.listener.accept().unwrap().0, peer)
    }

    fn dial(&mut self) -> usize {
        let peer = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        peer.set_nonblocking(true).unwrap();
        self.peers.push(Some(peer));
        self.peers.len() - 1
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        self.peers[peer].as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn read(&mut self, peer: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        match self.peers[peer].as_mut()?.read(&mut buffer) {
            Ok(0) => None,
            Ok(bytes) => Some(buffer[..bytes].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(Vec::new()),
            Err(_) => None,
        }
    }

    fn close(&mut self, peer: usize) {
        self.peers[peer] = None;
    }

    fn fill_pool(&mut self, at: u64, bytes: &[u8]) {
        Mapped::<Hardware>::new(self.ring.pool().clone()).copy_in(at, bytes);
    }
}

conformance!(Sockets);
