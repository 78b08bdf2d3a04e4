//! The contract of a [`Network`], case by case, for whoever implements it: [`conformance!`] makes a test of each.

use std::io::ErrorKind;
use std::net::Shutdown;

use crate::net::{Asker, Completion, Network, Operation, Socket, Stage};

/// A network with a pool of 64 KiB at least, and the other end of its connections.
pub(crate) trait Bed: Sized {
    type N: Network;

    /// With room for so many operations.
    fn new(operations_max: u32) -> Self;
    fn net(&mut self) -> &mut Self::N;
    /// Asks for the next connection.
    fn accept(&mut self, asker: Asker) -> Operation;
    /// Lets time pass.
    fn pass(&mut self);
    /// Lets time pass, and gives what has completed.
    fn next(&mut self) -> Option<Completion>;
    /// A connection, and the number of its other end.
    fn connect(&mut self) -> (<Self::N as Network>::Socket, usize);
    /// The other end of a connection that nobody has accepted.
    fn dial(&mut self) -> usize;
    fn write(&mut self, peer: usize, bytes: &[u8]);
    /// What has come. Nothing: the connection is over.
    fn read(&mut self, peer: usize) -> Option<Vec<u8>>;
    fn close(&mut self, peer: usize);
    fn fill_pool(&mut self, at: u64, bytes: &[u8]);
}

/// Looks at a completion before it is given up as missing.
const LOOKS_MAX: usize = 2000;

fn asker(tag: u64) -> Asker {
    Asker { role: 3, tag }
}

/// The next completion, of an operation that is meant to end.
fn wait<B: Bed>(bed: &mut B) -> Completion {
    (0..LOOKS_MAX).find_map(|_| bed.next()).expect("an operation completes")
}

/// Nothing completes: everything did once already.
fn no_more<B: Bed>(bed: &mut B) {
    for _ in 0..50 {
        assert_eq!(bed.next(), None, "an operation completes once");
    }
}

/// Reads so many bytes at the other end.
fn gets<B: Bed>(bed: &mut B, peer: usize, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    for _ in 0..LOOKS_MAX {
        got.extend(bed.read(peer).expect("the connection is up"));
        if got.len() >= bytes {
            return got;
        }
        assert_eq!(bed.next(), None, "nothing else is under way");
    }
    panic!("{} of {bytes} bytes came", got.len());
}

pub(crate) fn an_owned_buffer_comes_back_with_what_came<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    bed.net().receive_owned(asker(2), socket.handle(), vec![9; 8].into(), 3).unwrap();
    no_more(&mut bed);
    bed.write(peer, b"ab");
    let result = wait(&mut bed).result;
    let back = bed.net().take_returned().expect("its buffer");
    assert_eq!(&back[..3 + result as usize], &b"\x09\x09\x09ab"[..3 + result as usize]);
    assert!(bed.net().take_returned().is_none(), "it comes back once");
}

pub(crate) fn a_cancelled_receive_completes_once_and_takes_nothing_later<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    let buffer = || -> Box<[u8]> { vec![0; 8].into() };
    let operation = bed.net().receive_owned(asker(1), socket.handle(), buffer(), 0).unwrap();
    bed.net().cancel(operation);
    assert_eq!(wait(&mut bed).result, -libc::ECANCELED);
    assert_eq!(bed.net().take_returned(), Some(buffer()));
    bed.write(peer, b"later");
    no_more(&mut bed);
    // Nor does a cancel of what is over end anything else.
    bed.net().receive_owned(asker(2), socket.handle(), buffer(), 0).unwrap();
    bed.net().cancel(operation);
    let next = wait(&mut bed);
    assert!(next.tag == 2 && next.result > 0, "{next:?}");
    assert_eq!(bed.net().take_returned().expect("its buffer")[0], b'l');
}

pub(crate) fn a_cancelled_owned_receive_gives_its_buffer_back<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, _peer) = bed.connect();
    let operation = bed.net().receive_owned(asker(1), socket.handle(), vec![0; 64].into(), 0).unwrap();
    bed.net().cancel(operation);
    assert_eq!(wait(&mut bed).result, -libc::ECANCELED);
    assert_eq!(bed.net().take_returned().map(|buffer| buffer.len()), Some(64));
}

pub(crate) fn operations_are_bounded_and_make_room_when_they_end<B: Bed>() {
    let mut bed = B::new(4);
    let (socket, _peer) = bed.connect();
    let begun: Vec<Operation> =
        (0..4).map(|tag| bed.net().poll_readable(asker(tag), socket.handle()).expect("room for four")).collect();
    assert_eq!(bed.net().poll_readable(asker(9), socket.handle()), None);
    bed.net().cancel(begun[2]);
    assert_eq!(wait(&mut bed).tag, 2);
    assert!(bed.net().poll_readable(asker(9), socket.handle()).is_some());
}

pub(crate) fn a_send_comes_whole_and_its_buffer_back<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    let words: Vec<u8> = (0..5000u32).map(|number| number as u8).collect();
    bed.net().send_owned(asker(4), socket.handle(), words.clone().into()).unwrap();
    assert_eq!(wait(&mut bed), Completion { role: 3, tag: 4, result: 5000, stage: Stage::Done });
    assert_eq!(bed.net().take_returned().as_deref(), Some(&words[..]));
    assert_eq!(gets(&mut bed, peer, 5000), words);
}

pub(crate) fn a_frame_is_lent_until_its_last_completion<B: Bed>() {
    for zero_copy in [false, true] {
        let mut bed = B::new(8);
        let (socket, peer) = bed.connect();
        let slot = bed.net().lease_frames(1)[0];
        *bed.net().frame_mut(slot) = [5; 64];
        bed.net().send_frame(asker(1), socket.handle(), slot, zero_copy).unwrap();
        let is_lent = |bed: &mut B| {
            let touch = std::panic::AssertUnwindSafe(|| bed.net().frame_mut(slot)[0]);
            std::panic::catch_unwind(touch).is_err()
        };
        assert!(is_lent(&mut bed));
        let first = wait(&mut bed);
        assert_eq!(first.result, 64);
        assert_eq!(gets_beside(&mut bed, peer, 64), [5; 64]);
        if first.stage == Stage::Accepted {
            let last = wait(&mut bed);
            assert!(matches!(last.stage, Stage::Released { .. }) && last.tag == 1);
        }
        assert!(!is_lent(&mut bed));
        no_more(&mut bed);
    }
}

/// As [`gets`], while a release may complete.
fn gets_beside<B: Bed>(bed: &mut B, peer: usize, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    for _ in 0..LOOKS_MAX {
        got.extend(bed.read(peer).expect("the connection is up"));
        if got.len() >= bytes {
            break;
        }
        bed.pass();
    }
    got
}

pub(crate) fn a_list_goes_out_of_the_pool_and_can_go_on_in_part<B: Bed>() {
    let mut bed = B::new(8);
    bed.fill_pool(128, &[7; 128]);
    let (socket, peer) = bed.connect();
    let id = bed.net().take_list();
    let list = bed.net().list(id);
    list.push(&[1; 64], 128, 128);
    list.push(&[2; 64], 0, 0);
    list.consume(70);
    assert_eq!(list.bytes(), 186);
    bed.net().send_list(asker(9), socket.handle(), id, false).unwrap();
    assert_eq!(wait(&mut bed).result, 186);
    let got = gets(&mut bed, peer, 186);
    assert!(got[..122].iter().all(|byte| *byte == 7) && got[122..].iter().all(|byte| *byte == 2));
    bed.net().list(id).consume(186);
    bed.net().give_back_list(id);
}

/// The other end reads nothing, and more is sent than fits anywhere: a cancel gives what was sent, an abort gives the rest back.
pub(crate) fn a_zero_copy_send_comes_back_in_two_stages<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, _peer) = bed.connect();
    let id = bed.net().take_list();
    (0..64).for_each(|_| bed.net().list(id).push(&[1; 64], 0, 60 << 10));
    let all = bed.net().list(id).bytes();
    let operation = bed.net().send_list(asker(1), socket.handle(), id, true).unwrap();
    no_more(&mut bed);
    bed.net().cancel(operation);
    let cut = wait(&mut bed);
    assert!(cut.result > 0 && (cut.result as u64) < all, "part of it was sent: {cut:?}");
    if cut.stage == Stage::Accepted {
        no_more(&mut bed);
        socket.abort();
        assert!(matches!(wait(&mut bed).stage, Stage::Released { .. }));
    }
    bed.net().list(id).clear();
    bed.net().give_back_list(id);
}

pub(crate) fn the_end_of_a_connection_ends_what_waits_for_it<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    bed.net().receive_owned(asker(1), socket.handle(), vec![0; 100].into(), 0).unwrap();
    bed.net().poll_readable(asker(2), socket.handle()).unwrap();
    bed.close(peer);
    let (first, second) = (wait(&mut bed), wait(&mut bed));
    let receive = if first.tag == 1 { first } else { second };
    assert!(receive.result <= 0 && first.tag + second.tag == 3, "{first:?} {second:?}");
    no_more(&mut bed);
}

pub(crate) fn a_poll_waits_for_bytes<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    bed.net().poll_readable(asker(1), socket.handle()).unwrap();
    no_more(&mut bed);
    bed.write(peer, b"x");
    assert!(wait(&mut bed).result > 0);
    no_more(&mut bed);
}

pub(crate) fn an_accept_gives_its_connection_once<B: Bed>() {
    let mut bed = B::new(8);
    bed.accept(asker(1));
    let peer = bed.dial();
    assert!(wait(&mut bed).result >= 0);
    let socket = bed.net().take_accepted().expect("a connection");
    assert!(bed.net().take_accepted().is_none() && socket.peer().is_some());
    bed.write(peer, b"hi");
    bed.net().receive_owned(asker(2), socket.handle(), vec![0; 8].into(), 0).unwrap();
    assert_eq!(wait(&mut bed).tag, 2);
    let waiting = bed.accept(asker(3));
    bed.net().cancel(waiting);
    assert_eq!(wait(&mut bed).result, -libc::ECANCELED);
    assert!(bed.net().take_accepted().is_none());
}

pub(crate) fn what_was_received_is_taken_without_waiting<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    let mut buffer = [0; 3];
    assert_eq!(socket.receive_now(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    bed.write(peer, b"words");
    let mut got: Vec<u8> = Vec::new();
    for _ in 0..LOOKS_MAX {
        assert_eq!(bed.next(), None);
        // No more than there is room for, and perhaps less.
        match socket.receive_now(&mut buffer) {
            Ok(bytes) => got.extend(&buffer[..bytes]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if got.len() == 5 {
            break;
        }
    }
    assert_eq!(got, b"words");
    assert_eq!(socket.receive_now(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    bed.close(peer);
    let end = (0..LOOKS_MAX).find_map(|_| {
        bed.pass();
        socket.receive_now(&mut buffer).ok()
    });
    assert_eq!(end, Some(0), "nothing more comes");
}

pub(crate) fn what_was_said_before_the_end_is_heard<B: Bed>() {
    let mut bed = B::new(8);
    let (socket, peer) = bed.connect();
    assert_eq!(socket.send_now(b"bye").unwrap(), 3);
    socket.shut(Shutdown::Write);
    let mut got = Vec::new();
    for _ in 0..LOOKS_MAX {
        match bed.read(peer) {
            Some(bytes) => got.extend(bytes),
            None => break,
        }
        assert_eq!(bed.next(), None);
    }
    assert_eq!((got, bed.read(peer)), (b"bye".to_vec(), None));
}

/// A test of each case, for one implementation.
macro_rules! conformance {
    ($bed:ty: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::net::conformance::$case::<$bed>();
        })*
    };
    ($bed:ty) => {
        $crate::net::conformance::conformance!($bed:
            an_owned_buffer_comes_back_with_what_came
            a_cancelled_receive_completes_once_and_takes_nothing_later
            a_cancelled_owned_receive_gives_its_buffer_back
            operations_are_bounded_and_make_room_when_they_end
            a_send_comes_whole_and_its_buffer_back
            a_frame_is_lent_until_its_last_completion
            a_list_goes_out_of_the_pool_and_can_go_on_in_part
            a_zero_copy_send_comes_back_in_two_stages
            the_end_of_a_connection_ends_what_waits_for_it
            a_poll_waits_for_bytes
            an_accept_gives_its_connection_once
            what_was_received_is_taken_without_waiting
            what_was_said_before_the_end_is_heard
        );
    };
}
pub(crate) use conformance;
