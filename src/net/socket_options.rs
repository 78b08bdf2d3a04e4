//! What both ends ask of the kernel for every connection: no waiting to send little, and an end to one whose other end is gone.
//!
//! A host that goes down says nothing. Keepalive finds that out where nothing is under way, the user timeout where something is. The
//! user timeout also ends a connection whose peer takes nothing for as long, so it is not for one whose reader may rest.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. Values are alive for the call and as long as the kernel is told; the kernel keeps no pointer.
//! 2. The descriptor is that of the socket that is borrowed.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a client takes a broker's host for gone, as a broker does with clients unless it is configured otherwise.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Unanswered questions after which the other end is gone.
const QUESTIONS: u32 = 5;
/// Bytes that a publisher's connection keeps beyond what the broker has room for.
const UNSENT_MAX: u32 = 512 << 10;
/// Connections that wait to be accepted; what comes beyond is dropped by the kernel, which has a bound of its own (net.core.somaxconn).
const QUEUE_MAX: i32 = 4096;

/// For a new connection: small writes leave at once; if the other end's host is silent for `silence`, the connection is over. Zero: the
/// kernel's own times.
///
/// # Errors
/// The kernel's; the connection works without.
pub fn prepare(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    if silence.is_zero() {
        return Ok(());
    }
    // Half of the time nothing is asked, then five times in the other half.
    let seconds = |part: u32| u32::try_from((silence / part).as_secs()).unwrap_or(u32::MAX).clamp(1, 32767);
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(2))?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(2 * QUESTIONS))?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, QUESTIONS)?;
    let ms = silence.as_millis().min(i32::MAX as u128) as u32;
    set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms)
}

/// Of a prepared connection that much is written to: it keeps little that the other end has no room for. The writer waits, and holds on to
/// what it has: a batch can still go to another broker; and what is sent is sent by the writer, where else the broker's acknowledgements
/// would have the kernel send it, on the broker's core. For brokers that serve readers it measures no better.
///
/// # Errors
/// The kernel's; the connection works without.
pub fn keep_little(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT_MAX)
}

/// Of a prepared connection whose other end may take nothing for as long as it likes.
///
/// # Errors
/// The kernel's.
pub fn let_rest(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0)
}

/// A listener on `address`, to be shared by the receive cores of a broker.
///
/// # Errors
/// The kernel's.
pub fn listen(address: SocketAddr) -> io::Result<Arc<TcpListener>> {
    let listener = TcpListener::bind(address)?;
    // Again, with a longer queue than the standard library asks for: whoever fills it keeps others out of it.
    // SAFETY: invariant 2; a socket that listens may be told so again.
    let result = unsafe { libc::listen(listener.as_raw_fd(), QUEUE_MAX) };
    if result == 0 { Ok(Arc::new(listener)) } else { Err(io::Error::last_os_error()) }
}

fn set(stream: &TcpStream, level: i32, option: i32, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: invariants 1 and 2.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(stream: &TcpStream, level: i32, option: i32) -> u32 {
        let (mut value, mut length) = (0u32, size_of::<u32>() as libc::socklen_t);
        let socket = stream.as_raw_fd();
        // SAFETY: invariants 1 and 2.
        let result = unsafe { libc::getsockopt(socket, level, option, (&raw mut value).cast(), &mut length) };
        assert_eq!(result, 0);
        value
    }

    #[test]
    fn what_was_asked_for_is_what_the_kernel_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let times = |stream: &TcpStream| {
            [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT, libc::TCP_USER_TIMEOUT]
                .map(|option| get(stream, libc::IPPROTO_TCP, option))
        };
        let is_kept_alive = |stream: &TcpStream| get(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE) == 1;
        let stream = connect();
        prepare(&stream, Duration::from_secs(30)).unwrap();
        assert!(stream.nodelay().unwrap() && is_kept_alive(&stream));
        keep_little(&stream).unwrap();
        assert_eq!(get(&stream, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), UNSENT_MAX);
        assert_eq!(times(&stream), [15, 3, 5, 30_000]);
        let_rest(&stream).unwrap();
        assert!(is_kept_alive(&stream));
        assert_eq!(times(&stream), [15, 3, 5, 0]);
        let stream = connect();
        prepare(&stream, Duration::from_secs(1)).unwrap();
        assert_eq!(times(&stream), [1, 1, 5, 1000], "the kernel counts in seconds");
        let stream = connect();
        prepare(&stream, Duration::ZERO).unwrap();
        assert!(is_kept_alive(&stream) && times(&stream)[3] == 0);
        let stream = connect();
        prepare(&stream, Duration::MAX).unwrap();
        assert_eq!(times(&stream), [32767, 32767, 5, i32::MAX as u32]);
    }
}
