//! What every server's clients can do.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::CompareError;
use crate::subject::Subject;

/// A server that is measured.
pub trait Peer {
    /// Its name in the report.
    fn name(&self) -> &'static str;
    /// Its process.
    fn subject(&self) -> &Subject;
    /// A producer with a connection of its own. If it is told that its messages are single, it sends each by itself and at once; otherwise
    /// as it does when nothing is said.
    fn producer(&self, is_single: bool) -> Result<Box<dyn Producer>, CompareError>;
    /// A consumer of what is published from now on.
    fn consumer(&self) -> Result<Box<dyn Consumer>, CompareError>;
}

/// Sends messages and hears of what became of them.
pub trait Producer: Send {
    /// Takes a message. It may keep it until it is told to hand over, and wait if the server takes nothing.
    fn send(&mut self, payload: &[u8]) -> Result<(), CompareError>;
    /// Nothing more is known to come: what was kept and does not wait for company goes.
    fn hand_over(&mut self) -> Result<(), CompareError>;
    /// Messages it may have unacknowledged.
    fn window(&self) -> u64;
    /// Messages acknowledged.
    fn acked(&self) -> u64;
    /// Hears what has come; if nothing has, waits for it no longer than this.
    fn hear(&mut self, longest: Duration) -> Result<(), CompareError>;
}

/// Is given messages.
pub trait Consumer: Send {
    /// Gives what has come to `each`; if nothing has, waits for it no longer than this.
    fn take(&mut self, longest: Duration, each: &mut dyn FnMut(&[u8])) -> Result<(), CompareError>;
}

/// Where this program is, if it is installed.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What to say of one that is not.
pub fn missing(program: &str) -> String {
    format!("{program} is not installed and left out; perf/peers.sh installs it")
}
