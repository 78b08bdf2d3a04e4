//! What a service manager is told: `READY=1` when the brokers listen and all roles run, `STOPPING=1` when they drain, `WATCHDOG=1` while they make
//! progress. Protocol: `sd_notify(3)`, datagrams of lines to a Unix socket.
//!
//! `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are the manager's own words, by which it says that it listens; no switches of ours. Without
//! them nothing is said, and nothing is different.
//!
//! * A watchdog is told of the process that every thread of it went on since it was told last. A thread that hangs in a pass keeps the word back, and
//!   the manager ends the process: another takes over what it had, which it could not while this one lived.
//! * It is told at half of its time, and not before; when a thread was late, as soon as that goes on.
//! * From the beginning of a drain it is told nothing: a drain has its own limit. Its last word comes with `STOPPING=1`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Ticks;

/// Longest wait for room in the manager's socket: it is not worth more to be told, and says so if it misses a word.
const SEND_MAX: Duration = Duration::from_secs(1);

/// Whoever listens to this process, if anybody does.
#[derive(Debug, Default)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the manager said in this process's environment.
    pub(super) fn of_this_process() -> Manager {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Manager::default() };
        let word = |name: &str| env::var(name).ok();
        let watchdog = watchdog(word("WATCHDOG_USEC").as_deref(), word("WATCHDOG_PID").as_deref(), std::process::id());
        match Manager::at(&address, watchdog) {
            Ok(manager) => manager,
            Err(error) => {
                log::warn!(
                    "the service manager cannot be told anything: NOTIFY_SOCKET is {address:?}, expected a path or @name: {error}"
                );
                Manager::default()
            }
        }
    }

    /// One that listens at a path, or at an abstract address (`@name`).
    fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Manager> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        Ok(Manager { socket: Some((socket, address)), watchdog })
    }

    /// Says that the process does its work from now on, and in words what that is.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Tells it; whether that went.
    fn tell(&self, words: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return false };
        match socket.send_to_addr(words.as_bytes(), address) {
            Ok(_) => true,
            Err(error) => {
                log::warn!("the service manager was not told {words:?}: {error}");
                false
            }
        }
    }
}

/// The time after which the manager misses this process, if it watches it. `WATCHDOG_PID` names who is meant: a child inherits all of this.
fn watchdog(microseconds: Option<&str>, process: Option<&str>, this: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(this)) {
        return None;
    }
    microseconds?.parse().ok().filter(|time| *time > 0).map(Duration::from_micros)
}

/// What the housekeeping thread tells the manager as time goes by.
pub(super) struct Told {
    manager: Manager,
    threads: Vec<Arc<Ticks>>,
    /// Passes of each thread when the watchdog was told last.
    passes: Vec<u64>,
    looks_since: u32,
    looks_between: u32,
    look_every: Duration,
    stopping: bool,
}

impl Told {
    /// Of these threads; somebody looks every `look_every`, or as often as [`Told::look_every`] says.
    pub(super) fn new(manager: Manager, threads: Vec<Arc<Ticks>>, look_every: Duration) -> Told {
        let half = manager.watchdog.map_or(look_every, |time| time / 2);
        let look_every = look_every.min(half);
        let looks_between = (half.as_nanos() / look_every.as_nanos().max(1)).max(1);
        let passes = passes(&threads);
        let looks_between = u32::try_from(looks_between).unwrap_or(u32::MAX);
        Told { manager, threads, passes, looks_since: 0, looks_between, look_every, stopping: false }
    }

    /// How often to look.
    pub(super) fn look_every(&self) -> Duration {
        self.look_every
    }

    /// A look: says what is to be said now.
    pub(super) fn look(&mut self, is_stopping: bool) {
        if is_stopping {
            return self.stopping();
        }
        self.looks_since = self.looks_since.saturating_add(1);
        if self.manager.watchdog.is_none() || self.looks_since < self.looks_between {
            return;
        }
        let passes = passes(&self.threads);
        let all_went_on = passes.iter().zip(&self.passes).all(|(now, before)| now != before);
        if all_went_on && self.manager.tell("WATCHDOG=1") {
            (self.passes, self.looks_since) = (passes, 0);
        }
    }

    /// Says once that the process is about to end.
    pub(super) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            let watchdog = if self.manager.watchdog.is_some() { "\nWATCHDOG=1" } else { "" };
            self.manager.tell(&format!("STOPPING=1{watchdog}\nSTATUS=drains"));
        }
    }
}

fn passes(threads: &[Arc<Ticks>]) -> Vec<u64> {
    threads.iter().map(|ticks| ticks.read().passes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ticks::Charge;
    use std::path::PathBuf;

    const SECOND: Duration = Duration::from_secs(1);

    /// A manager's end, at a path that is gone with it.
    struct Listener(UnixDatagram, PathBuf);

    impl Listener {
        fn new(name: &str) -> Listener {
            let path = std::env::temp_dir().join(format!("embarcadero-notify-{}-{name}", std::process::id()));
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Listener(socket, path)
        }

        fn manager(&self, watchdog: Option<Duration>) -> Manager {
            Manager::at(self.1.as_os_str(), watchdog).unwrap()
        }

        /// The next datagram, if there is one.
        fn heard(&self) -> Option<String> {
            heard(&self.0)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.1);
        }
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut words = [0; 256];
        socket.recv(&mut words).ok().map(|length| String::from_utf8_lossy(&words[..length]).into_owned())
    }

    fn threads(count: usize) -> Vec<Arc<Ticks>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    fn go_on(ticks: &Ticks) {
        ticks.charge(Charge::Asleep, 1, 0, 1);
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_an_abstract_address() {
        let listener = Listener::new("path");
        listener.manager(None).ready("brokers 0");
        assert_eq!(listener.heard().as_deref(), Some("READY=1\nSTATUS=brokers 0"));

        let name = format!("embarcadero-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Manager::at(OsStr::new(&format!("@{name}")), None).unwrap().ready("x");
        assert_eq!(heard(&socket).as_deref(), Some("READY=1\nSTATUS=x"));
    }

    #[test]
    fn an_address_that_is_none_is_refused_and_a_manager_that_is_gone_does_no_harm() {
        assert!(Manager::at(OsStr::new("vsock:2:1"), None).is_err());
        let listener = Listener::new("gone");
        let manager = listener.manager(None);
        drop(listener);
        assert!(!manager.tell("READY=1"));
        assert!(!Manager::default().tell("READY=1"));
    }

    #[test]
    fn a_watchdog_is_who_means_this_process() {
        assert_eq!(watchdog(Some("30000000"), None, 7), Some(30 * SECOND));
        assert_eq!(watchdog(Some("30000000"), Some("7"), 7), Some(30 * SECOND));
        assert_eq!(watchdog(Some("30000000"), Some("8"), 7), None);
        assert_eq!(
            (watchdog(Some("0"), None, 7), watchdog(Some("soon"), None, 7), watchdog(None, None, 7)),
            (None, None, None)
        );
    }

    #[test]
    fn a_watchdog_is_told_at_half_of_its_time() {
        let (listener, threads) = (Listener::new("half"), threads(2));
        let mut told = Told::new(listener.manager(Some(6 * SECOND)), threads.clone(), SECOND);
        assert_eq!(told.look_every(), SECOND);
        for look in 1..=6 {
            threads.iter().for_each(|ticks| go_on(ticks));
            told.look(false);
            let expected = (look % 3 == 0).then_some("WATCHDOG=1");
            assert_eq!(listener.heard().as_deref(), expected, "look {look}");
        }
        let short = Told::new(listener.manager(Some(SECOND)), threads, SECOND);
        assert_eq!(short.look_every(), SECOND / 2);
    }

    #[test]
    fn a_thread_that_stands_still_keeps_the_word_back_until_it_goes_on() {
        let (listener, threads) = (Listener::new("still"), threads(2));
        let mut told = Told::new(listener.manager(Some(2 * SECOND)), threads.clone(), SECOND);
        for _ in 0..5 {
            go_on(&threads[0]);
            told.look(false);
            assert_eq!(listener.heard(), None);
        }
        go_on(&threads[1]);
        told.look(false);
        assert_eq!(listener.heard().as_deref(), Some("WATCHDOG=1"));
        told.look(false);
        assert_eq!(listener.heard(), None, "both stand still");
    }

    #[test]
    fn the_end_is_said_once_and_the_watchdog_hears_nothing_after_it() {
        let (listener, threads) = (Listener::new("end"), threads(1));
        let mut told = Told::new(listener.manager(Some(2 * SECOND)), threads.clone(), SECOND);
        for _ in 0..3 {
            go_on(&threads[0]);
            told.look(true);
        }
        told.stopping();
        assert_eq!(listener.heard().as_deref(), Some("STOPPING=1\nWATCHDOG=1\nSTATUS=drains"));
        assert_eq!(listener.heard(), None);
    }

    #[test]
    fn without_a_watchdog_only_the_end_is_said() {
        let (listener, threads) = (Listener::new("none"), threads(1));
        let mut told = Told::new(listener.manager(None), threads.clone(), SECOND);
        go_on(&threads[0]);
        told.look(false);
        assert_eq!((told.look_every(), listener.heard()), (SECOND, None));
        told.stopping();
        assert_eq!(listener.heard().as_deref(), Some("STOPPING=1\nSTATUS=drains"));
    }
}
