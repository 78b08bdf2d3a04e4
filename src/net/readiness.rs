//! Waiting until a socket can be read or written: `ppoll(2)` behind a safe interface.
//!
//! For callers with a handful of sockets (the client library); the broker's threads have a ring each. It keeps no
//! descriptor between two waits and owns none: registering anew for every wait costs nothing at this number.
//!
//! Invariants:
//! 1. The kernel is given a pointer to, and the length of, one live `Vec<pollfd>` that nobody else can reach during
//!    the call, since the call borrows it mutably. It writes `revents` of those entries and nothing else.
//! 2. `timespec` lives on the stack for the whole call; the signal mask is null, which `ppoll` defines as "unchanged".
//! 3. A descriptor that was closed in the meantime is no memory error: `ppoll` answers `POLLNVAL` for it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A set of sockets to wait for, rebuilt for every wait. The memory is kept.
#[derive(Debug, Default)]
pub struct Readiness {
    entries: Vec<libc::pollfd>,
}

impl Readiness {
    /// Forgets every socket.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Asks to be woken when `socket` can be read (or was closed by the peer), and, if `write`, when it can be written.
    pub fn watch(&mut self, socket: &impl AsRawFd, write: bool) {
        let events = if write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
        self.entries.push(libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 });
    }

    /// Asks to be woken when `socket` can be written, or failed: what it has to hear can wait.
    pub fn watch_for_room(&mut self, socket: &impl AsRawFd) {
        self.entries.push(libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 });
    }

    /// How many sockets it watches.
    pub fn watched(&self) -> usize {
        self.entries.len()
    }

    /// Whether the last wait found that `socket`, watched for it, can be written.
    pub fn is_writable(&self, socket: &impl AsRawFd) -> bool {
        self.entries.iter().any(|entry| entry.fd == socket.as_raw_fd() && entry.revents & libc::POLLOUT != 0)
    }

    /// Whether the last wait found that `socket` can be read, has ended, or failed.
    pub fn is_readable(&self, socket: &impl AsRawFd) -> bool {
        self.entries.iter().any(|entry| entry.fd == socket.as_raw_fd() && entry.revents & !libc::POLLOUT != 0)
    }

    /// Waits until a socket is ready or `timeout` has passed, and says how many are. A signal ends the wait early with 0.
    ///
    /// With no socket it is a sleep. Errors: what `ppoll(2)` answers other than `EINTR`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: invariants 1 and 2: pointer and length are of the vector borrowed by `&mut self`, `time` outlives the
        // call and a null mask is allowed. Invariant 3 covers descriptors that are gone.
        let ready = unsafe {
            libc::ppoll(self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t, &time, std::ptr::null())
        };
        match usize::try_from(ready) {
            Ok(ready) => Ok(ready),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_written_byte_wakes_and_silence_does_not() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut readiness = Readiness::default();
        readiness.watch(&near, false);
        assert_eq!(readiness.wait(Duration::ZERO).unwrap(), 0);
        far.write_all(b"x").unwrap();
        assert_eq!(readiness.wait(Duration::from_secs(1)).unwrap(), 1);
        assert!(readiness.is_readable(&near) && !readiness.is_readable(&far));
        readiness.clear();
        assert_eq!(readiness.wait(Duration::from_micros(10)).unwrap(), 0);
        assert!(!readiness.is_writable(&near) && !readiness.is_readable(&near));
        readiness.watch(&near, true);
        assert_eq!(readiness.wait(Duration::ZERO).unwrap(), 1);
        assert!(readiness.is_writable(&near) && !readiness.is_writable(&far));
        far.write_all(b"y").unwrap();
        readiness.clear();
        readiness.watch_for_room(&near);
        assert_eq!(readiness.wait(Duration::ZERO).unwrap(), 1);
        assert!(readiness.is_writable(&near) && !readiness.is_readable(&near), "what it has to hear can wait");
        drop(far);
        readiness.clear();
        readiness.watch(&near, false);
        readiness.wait(Duration::ZERO).unwrap();
        assert!(readiness.is_readable(&near), "its end is something to read");
    }
}
