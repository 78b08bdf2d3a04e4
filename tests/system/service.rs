//! A broker process that is a service: what its manager hears of it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use launch::process::{End, Process, Signal};

use crate::harness::{LIMIT, Setup, Site};

/// `WATCHDOG_USEC`: short, so that the test is.
const WATCHDOG_US: &str = "400000";

/// The manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        let mut words = [0; 512];
        let length = self.0.recv(&mut words).unwrap_or_else(|error| panic!("nothing was heard: {error}"));
        String::from_utf8_lossy(&words[..length]).into_owned()
    }
}

#[test]
fn a_service_manager_hears_that_it_is_ready_goes_on_and_stops() {
    let site = Site::new("service", &Setup { brokers: 1, ..Setup::default() });
    let socket = site.file("notify");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embarlet"));
    command.arg("--config").arg(&site.config_file).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG_US);
    let mut broker = Process::start("embarlet", command, &site.file("embarlet.log"), End::Killed).unwrap();

    let ready = manager.hears();
    assert!(ready.starts_with("READY=1\nSTATUS=brokers [0] listen on "), "{ready}");
    assert!(ready.ends_with(&site.address(0)), "{ready}");
    assert_eq!([manager.hears(), manager.hears()], ["WATCHDOG=1", "WATCHDOG=1"]);

    broker.signal(Signal::TERM).unwrap();
    let stopping = std::iter::repeat_with(|| manager.hears()).find(|words| words != "WATCHDOG=1");
    assert_eq!(stopping.as_deref(), Some("STOPPING=1\nWATCHDOG=1\nSTATUS=drains"));
    assert_eq!(broker.ended(LIMIT).and_then(|status| status.code()), Some(0), "{}", broker.log());
}
