//! Why a command could not do what it was asked.

use std::io;

use embarcadero::ClientError;
use embarcadero::wire::OrderLevel;

use crate::push::error::PushError;

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The brokers could not be reached, or refused.
    #[error("cannot {doing}: {source}")]
    Client {
        /// What was being done.
        doing: String,
        /// The client's reason.
        source: ClientError,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// A topic that was read is no more.
    #[error("the topic was deleted while {topics} was read; everything that came before is printed: {source}")]
    Deleted {
        /// The topics that were read.
        topics: String,
        /// The client's reason.
        source: ClientError,
    },
    /// The pool could not be looked at.
    #[error(transparent)]
    Pool(#[from] embarcadero::pool::PoolError),
    /// Metrics could not be pushed.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The input could not be read.
    #[error("cannot read {name}: {source}")]
    Input {
        /// A file's path, or standard input.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is longer than a message may be.
    #[error("line {number} of the input is longer than {max} bytes, the largest message these brokers take")]
    LineTooLong {
        /// Line number, from 1.
        number: u64,
        /// Largest message, bytes.
        max: u64,
    },
    /// The terminal cannot be used.
    #[error("this is no terminal that can be drawn on: {0}; `--once` prints one screen")]
    Terminal(io::Error),
    /// The output could not be written. A reader that went away is not an error.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A wait came to its deadline.
    #[error("{waiting_for} took longer than {seconds} s (--timeout)")]
    Deadline {
        /// What was awaited, and what is known about it.
        waiting_for: String,
        /// The deadline.
        seconds: u64,
    },
    /// A topic is not what the command line relies on.
    #[error("topic {topic:?} has order level {has}, not {asked}: leave --order out, or name another topic")]
    OtherOrder {
        /// The topic.
        topic: String,
        /// Its level.
        has: OrderLevel,
        /// As asked for.
        asked: OrderLevel,
    },
    /// Nothing of what was asked for is there.
    #[error(
        "topic {topic:?} has no message of order {from}: its next one has order {next_order}; with --follow it is waited for"
    )]
    BeyondTheEnd {
        /// The topic.
        topic: String,
        /// Order asked for.
        from: u64,
        /// Order of the topic's next message.
        next_order: u64,
    },
    /// A pool has no such host.
    #[error("there is no host {found}: the pool has hosts 0 to {last}")]
    NoHost {
        /// Its number.
        found: u32,
        /// The last there is.
        last: u32,
    },
    /// A host that was said to be off is not.
    #[error(
        "host {host} is not off: {who}; nothing was done. Switch it off, or end its processes in good order: then they give back what they have"
    )]
    HostLives {
        /// Its number.
        host: u32,
        /// Who of it lives, and how that is known.
        who: String,
    },
    /// What a host left in the pool is no record of it.
    #[error("what host {host} left is damaged: {source}")]
    Damaged {
        /// Its number.
        host: u32,
        /// What is damaged.
        source: embarcadero::log::recover::RecoverError,
    },
    /// Every broker of the pool is gone.
    #[error("no broker of this pool runs")]
    AllGone,
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] embarcadero::config::ConfigError),
    /// A broker would not run on this machine.
    #[error("this machine is not set up for these brokers; checks that failed: {failed}")]
    NotSetUp {
        /// How many checks failed.
        failed: usize,
    },
    /// A pool does not keep what it promises.
    #[error(
        "the pool does not keep what it promises, places: {places}; restore it, or re-format it with `embarlet --config FILE --format` (its data is lost)"
    )]
    Broken {
        /// How many places.
        places: u64,
    },
    /// There is no such cursor.
    #[error("topic {topic:?} has no cursor {cursor:?}; `embarctl cursor list {topic}` lists those it has")]
    NoCursor {
        /// The topic.
        topic: String,
        /// The cursor asked for.
        cursor: String,
    },
    /// The signal handlers could not be installed.
    #[error("cannot handle SIGINT and SIGTERM: {0}")]
    Signals(io::Error),
    /// A bug in this tool.
    #[error("the thread that reads {0} panicked; its message is above. Please report it")]
    Panicked(String),
}

impl CommandError {
    /// Whether the command line is to be corrected, rather than the brokers to be looked at.
    pub fn is_usage(&self) -> bool {
        if let CommandError::Push(error) = self {
            return error.is_usage();
        }
        matches!(
            self,
            CommandError::Usage(_)
                | CommandError::Config(_)
                | CommandError::Client { source: ClientError::Option { .. }, .. }
        )
    }

    /// A closure that says what the client was doing.
    pub fn client(doing: impl Into<String>) -> impl FnOnce(ClientError) -> CommandError {
        let doing = doing.into();
        move |source| CommandError::Client { doing, source }
    }
}
