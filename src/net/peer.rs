//! One connection as the kernel sees it: what its peer has taken, what it has said, and how to end it without waiting for it.
//!
//! For sockets whose sends are a ring's: none of these calls blocks, whatever the mode of the descriptor.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. Buffers and out-parameters are alive for the call and as long as the kernel is told; the kernel keeps no pointer.
//! 2. A descriptor that is not a connected socket is no memory error: the call fails.

#![allow(unsafe_code)]

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::net::network::Socket;
use crate::net::socket_options;

/// Where `tcpi_bytes_acked` lies in `struct tcp_info` (linux/tcp.h: 8 bytes, 24 words, two rates of 64 bits).
const BYTES_ACKED_AT: usize = 8 + 24 * 4 + 2 * 8;

/// Where `tcpi_min_rtt` lies there: behind 16 more bytes and three words.
const MIN_RTT_AT: usize = BYTES_ACKED_AT + 8 + 8 + 3 * 4;
const INFO_BYTES: usize = MIN_RTT_AT + 4;

/// What the kernel says of a connection.
fn info_of(stream: &TcpStream) -> Option<[u8; INFO_BYTES]> {
    let mut info = [0; INFO_BYTES];
    let mut length = info.len() as libc::socklen_t;
    let into = info.as_mut_ptr().cast();
    // SAFETY: invariants 1 and 2.
    let result = unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut length) };
    (result == 0 && length as usize == info.len()).then_some(info)
}

/// What a call that gives a number of bytes came to.
fn bytes_of(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl Socket for TcpStream {
    type Handle = RawFd;

    fn handle(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn prepare(&self, silence: Duration) {
        let _ = socket_options::prepare(self, silence);
    }

    fn let_rest(&self) {
        let _ = socket_options::let_rest(self);
    }

    fn shut(&self, how: Shutdown) {
        // The other end may be gone already.
        let _ = self.shutdown(how);
    }

    /// The descriptor stays open. A failure means that there is no connection any more, or that the kernel is busy with it: see whether the
    /// pages came back, and ask again.
    fn abort(&self) {
        // SAFETY: a sockaddr is a plain C struct for which all zero is valid.
        let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
        nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        // SAFETY: invariants 1 and 2.
        unsafe { libc::connect(self.as_raw_fd(), &nowhere, size_of::<libc::sockaddr>() as libc::socklen_t) };
    }

    fn receive_now(&self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: invariants 1 and 2.
        bytes_of(unsafe { libc::recv(self.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
    }

    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: invariants 1 and 2.
        bytes_of(unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
    }

    fn acked_bytes(&self) -> Option<u64> {
        let info = info_of(self)?;
        Some(u64::from_ne_bytes(*info[BYTES_ACKED_AT..].first_chunk().expect("8 bytes")))
    }

    fn round_trip_us(&self) -> Option<u32> {
        let info = info_of(self)?;
        let us = u32::from_ne_bytes(*info[MIN_RTT_AT..].first_chunk().expect("4 bytes"));
        // That nothing was answered yet is written so.
        (us < u32::MAX).then_some(us)
    }

    fn unacked_bytes(&self) -> Option<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: invariants 1 and 2.
        let result = unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
        (result == 0).then_some(bytes.max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn what_a_peer_took_said_and_did_not_take_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        assert_eq!(ours.receive_now(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let before = ours.acked_bytes().unwrap();
        assert_eq!(ours.send_now(&[1; 1000]).unwrap(), 1000);
        peer.read_exact(&mut [0; 1000]).unwrap();
        while ours.unacked_bytes().unwrap() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(ours.acked_bytes().unwrap() - before, 1000);
        let away_us = ours.round_trip_us().unwrap();
        assert!(away_us > 0 && away_us < 1_000_000, "{away_us} us to ourselves");
        // What nobody reads is acknowledged up to the peer's window, and no further.
        let mut given = 0;
        while let Ok(bytes) = ours.send_now(&[1; 64 << 10]) {
            given += bytes as u64;
        }
        let unacked = ours.unacked_bytes().unwrap();
        assert!(unacked > 0 && unacked < given, "{unacked} of {given}");
        peer.write_all(b"word").unwrap();
        let mut word = [0; 8];
        while ours.receive_now(&mut word).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(&word[..4], b"word");
        drop(peer);
        while !ours.discard_received() {
            std::thread::yield_now();
        }
    }
}
