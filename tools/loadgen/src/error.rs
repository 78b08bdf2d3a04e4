//! Why a run could not be made. What a run found wrong is a verdict, not an error.

use std::path::PathBuf;

use embarcadero::ClientError;

use crate::html::document::DocumentError;

/// Why a run could not be made. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The topic could not be created.
    #[error("cannot create topic {topic:?}: {source}")]
    Topic {
        /// Its name.
        topic: String,
        /// The client's reason.
        source: ClientError,
    },
    /// A publisher or subscriber could not be set up.
    #[error("{0}")]
    Connect(String),
    /// A file or thread could not be made.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The pool that is to be watched.
    #[error("--inside: {0}")]
    Inside(embarcadero::pool::PoolError),
    /// A result that is to be reported is none.
    #[error("{0}")]
    Document(#[from] DocumentError),
    /// The signal handlers could not be installed.
    #[error("cannot handle SIGINT and SIGTERM: {0}")]
    Signals(std::io::Error),
    /// A bug in this tool.
    #[error("a thread of the load generator panicked; its message is above. Please report it")]
    Panicked,
}
