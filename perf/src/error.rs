//! Why a comparison ends without figures.

use std::io;
use std::path::PathBuf;

use embarcadero::ClientError;

/// Why a comparison ends without figures.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Something asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file or process of this run.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The broker's binary is not beside this one.
    #[error("{} does not exist; build it with the same profile: cargo build [--release] -p embarcadero", path.display())]
    NoBroker {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A process that is measured did not do what it should.
    #[error("{name}: {what}{log}")]
    Subject {
        /// Which.
        name: String,
        /// What went wrong.
        what: String,
        /// The end of its log, if it has one.
        log: String,
    },
    /// The client gave up.
    #[error("{doing}: {source}")]
    Client {
        /// What was being done, and to what.
        doing: String,
        /// Why not.
        source: ClientError,
    },
    /// A run that does not add up says nothing about speed.
    #[error("{name}: {what}; this run's figures would be wrong")]
    Unsound {
        /// Which case.
        name: String,
        /// What does not add up.
        what: String,
    },
    /// The figures are sound, and not what is aimed at.
    #[error("{name}: the aim was missed: {what}")]
    Missed {
        /// Which comparison.
        name: String,
        /// By what.
        what: String,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl CompareError {
    /// An error of the operating system. Allocates nothing before there is one, as the measured loops need.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> CompareError {
        move |source| CompareError::Io { doing: doing.into(), source }
    }

    /// An error of the client library. Allocates nothing before there is one.
    pub fn client(doing: impl Into<String>) -> impl FnOnce(ClientError) -> CompareError {
        move |source| CompareError::Client { doing: doing.into(), source }
    }

    /// 2: could not start; 130: interrupted; 1: anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            CompareError::Usage(_) | CompareError::NoBroker { .. } => 2,
            CompareError::Interrupted => 130,
            _ => 1,
        }
    }
}
