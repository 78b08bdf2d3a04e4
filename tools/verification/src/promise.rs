//! What a topic's order level promises its readers.

/// The order levels, by the numbers that the protocol gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// 0: nothing.
    None,
    /// 1: order within a broker.
    Broker,
    /// 2: one total order.
    Total,
    /// 4: one total order, each connection's messages in theirs.
    Connection,
    /// 5: one total order, each session's messages in theirs, each once.
    Session,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 5] = [Level::None, Level::Broker, Level::Total, Level::Connection, Level::Session];

    /// The level of this number.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(number: u8) -> Level {
        let found = Level::ALL.into_iter().find(|level| level.number() == number);
        found.unwrap_or_else(|| panic!("there is no order level {number}"))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Level::None => 0,
            Level::Broker => 1,
            Level::Total => 2,
            Level::Connection => 4,
            Level::Session => 5,
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(out)
    }
}

/// What may become of a subscriber that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooSlow {
    /// Publishers wait for it.
    IsWaitedFor,
    /// It is told what it missed, and goes on.
    Skips,
    /// It is told, and ends or begins anew.
    IsLetGo,
}

/// What a run promised.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// Order level of the topics.
    pub order: Level,
    /// Whether sessions are acked; otherwise what was written to sockets counts.
    pub is_acked: bool,
    /// Whether the run's own publishers filled the topics, and only they.
    pub own_topic: bool,
    /// Messages each subscriber was to read, where that was said; of its own topic it is what was published.
    pub wanted: Option<u64>,
    /// The subscriber that was stopped on purpose: brokers may refuse to go on with it.
    pub stopped: Option<usize>,
    /// What was to become of subscribers that are too slow.
    pub too_slow: TooSlow,
    /// Whether the user ended the run.
    pub interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_by_their_numbers() {
        for level in Level::ALL {
            assert_eq!(Level::of(level.number()), level);
        }
        assert_eq!(Level::Connection.to_string(), "4");
    }
}
