//! Who publishes to which topic, and who reads it. Pure.
//!
//! A client's session and a subscription are of one topic. With more topics than publishers, each publisher has a session for
//! each of its topics; with fewer, several publishers share a topic. The same goes for subscribers. So there are as many
//! sessions as the larger of the two numbers, session `i` is of topic `i mod topics`, and every topic has its share.

/// Numbers of topics, sessions and subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Topics.
    pub topics: usize,
    /// Sessions, at least one for each topic.
    pub sessions: usize,
    /// Subscriptions, at least one for each topic, or none at all.
    pub readers: usize,
}

impl Fleet {
    /// For so many topics, publishers and subscribers.
    ///
    /// # Panics
    /// Without a topic.
    pub fn new(topics: u32, publishers: u32, subscribers: u32) -> Fleet {
        assert!(topics > 0, "there is a topic");
        let readers = if subscribers == 0 { 0 } else { subscribers.max(topics) };
        let sessions = if publishers == 0 { 0 } else { publishers.max(topics) };
        Fleet { topics: topics as usize, sessions: sessions as usize, readers: readers as usize }
    }

    /// Topic of a session or a subscription.
    pub fn topic_of(&self, index: usize) -> usize {
        index % self.topics
    }

    /// Sessions of a topic.
    pub fn sessions_of(&self, topic: usize) -> impl Iterator<Item = usize> + use<> {
        (topic..self.sessions).step_by(self.topics)
    }

    /// Subscriptions of each topic that all have: how often every message is delivered at least.
    pub fn copies(&self) -> usize {
        self.readers / self.topics
    }

    /// Name of a topic: the run's, with a number if there are several.
    pub fn topic_name(&self, name: &str, topic: usize) -> String {
        if self.topics == 1 { name.to_owned() } else { format!("{name}-{topic}") }
    }
}

/// Deals `count` things to at most `threads` threads.
pub fn deal(count: usize, threads: usize) -> impl Iterator<Item = Vec<usize>> {
    let threads = threads.min(count).max(1);
    (0..threads)
        .map(move |thread| (thread..count).step_by(threads).collect())
        .filter(|dealt: &Vec<_>| !dealt.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_sessions_and_readers() {
        for (topics, publishers, subscribers) in [(500, 64, 64), (1, 64, 3), (7, 64, 5), (3, 3, 3)] {
            let fleet = Fleet::new(topics, publishers, subscribers);
            assert_eq!(fleet.sessions, publishers.max(topics) as usize);
            let mut sessions: Vec<usize> = (0..fleet.topics).flat_map(|topic| fleet.sessions_of(topic)).collect();
            sessions.sort_unstable();
            assert!(sessions.into_iter().eq(0..fleet.sessions), "each session is of one topic");
            for topic in 0..fleet.topics {
                assert!(fleet.sessions_of(topic).all(|session| fleet.topic_of(session) == topic));
                assert!((0..fleet.readers).any(|reader| fleet.topic_of(reader) == topic));
            }
        }
        assert_eq!(Fleet::new(500, 64, 0).readers, 0);
        assert_eq!((Fleet::new(500, 64, 64).copies(), Fleet::new(1, 64, 16).copies()), (1, 16));
    }

    #[test]
    fn one_topic_has_the_runs_name() {
        assert_eq!(Fleet::new(1, 1, 1).topic_name("t", 0), "t");
        assert_eq!(Fleet::new(2, 1, 1).topic_name("t", 1), "t-1");
    }

    #[test]
    fn everything_is_dealt_once() {
        let dealt: Vec<Vec<usize>> = deal(5, 2).collect();
        assert_eq!(dealt, [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(deal(3, 8).count(), 3);
        assert_eq!(deal(0, 4).count(), 0);
    }
}
