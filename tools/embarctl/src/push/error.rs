//! Why metrics could not be pushed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use embarcadero::pool::region::Lost;

/// Why metrics could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// An address that begins with `https`.
    #[error(
        "https is not spoken here, and {url} asks for it: push to a collector on this machine by http, which passes it on by https"
    )]
    Https {
        /// As it was given.
        url: String,
    },
    /// No address.
    #[error("{url:?} is no address like http://HOST:PORT/PATH: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its name means nothing.
    #[error("the name of {at} cannot be looked up: {source}; is it written right?")]
    Lookup {
        /// Host and port.
        at: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Nobody is there.
    #[error("nobody answers at {address}: {source}; is it running, and is this its port?")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection with {at} broke: {source}")]
    Broke {
        /// Host and port.
        at: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("{at} took longer than {seconds} s (--timeout)")]
    Deadline {
        /// Host and port.
        at: String,
        /// The deadline.
        seconds: u64,
    },
    /// The pool is not what it was, and no other is in its place.
    #[error("pool {} is lost, and no other is in its place: {source}", path.display())]
    Lost {
        /// The pool.
        path: PathBuf,
        /// What became of it.
        source: Lost,
    },
    /// An answer that is none.
    #[error("what {at} answered is no HTTP: {reason}")]
    Answer {
        /// Host and port.
        at: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It does not want it.
    #[error("{at} answered {status}, 200 was expected: {words}")]
    Refused {
        /// Host and port.
        at: String,
        /// Code and word.
        status: String,
        /// The beginning of what it said.
        words: String,
    },
    /// It does not want a part of it.
    #[error("{at} took the metrics but for {rejected} values: {words}")]
    Partly {
        /// Host and port.
        at: String,
        /// Values that it did not take.
        rejected: u64,
        /// What it said.
        words: String,
    },
    /// What was to be pushed is not what a broker shows.
    #[error("line {line} of the metrics of {from} is not understood: {reason}; is that an embarlet of this version?")]
    Metrics {
        /// Where they came from.
        from: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl PushError {
    /// Whether the command line is to be corrected.
    pub fn is_usage(&self) -> bool {
        matches!(self, PushError::Https { .. } | PushError::Url { .. })
    }
}
