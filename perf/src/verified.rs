//! Sessions on a cluster while something is done to it, and whether everything that was acked was then delivered: to two
//! subscribers, once, in order, and to both the same.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use embarcadero::PublisherStats;
use verification::ledger::Ledger;

use crate::args::LoadArgs;
use crate::cluster::Cluster;
use crate::error::CompareError;
use crate::session::Session;
use crate::witness::watch;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Messages acked.
    pub acked: u64,
    /// Of the subscriber that got fewer.
    pub delivered: u64,
    /// Acked and not delivered to one of the two.
    pub lost: u64,
    /// Of both.
    pub duplicates: u64,
    /// Of both: what was not the next, or not what was sent.
    pub reorders: u64,
    /// Both were given the same stream.
    pub equal: bool,
    /// What the clients had to do again.
    pub resent_batches: u64,
    /// How often a session was fenced.
    pub fences: u64,
    /// The first thing that was wrong in what was delivered.
    pub example: Option<String>,
}

impl Verdict {
    fn of(sent: &[(u64, PublisherStats)], readers: &[Ledger]) -> Verdict {
        let acked = sent.iter().map(|(sent, _)| sent).sum();
        let same = |one: &Ledger| (one.hash, one.delivered()) == (readers[0].hash, readers[0].delivered());
        Verdict {
            acked,
            delivered: readers.iter().map(Ledger::delivered).min().unwrap_or(0),
            lost: readers.iter().map(|one| acked - one.delivered().min(acked)).max().unwrap_or(acked),
            duplicates: readers.iter().map(|one| one.repeats).sum(),
            reorders: readers.iter().map(|one| one.gaps + one.wrong).sum(),
            equal: readers.iter().all(same),
            example: readers.iter().flat_map(|one| one.examples.iter().cloned()).next(),
            resent_batches: sent.iter().map(|(_, stats)| stats.resent_batches).sum(),
            fences: sent.iter().map(|(_, stats)| stats.fences).sum(),
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        let Verdict { acked, delivered, lost, duplicates, reorders, equal, resent_batches, fences, example } = self;
        format!(
            "acked {acked}, delivered {delivered}: lost {lost}, duplicates {duplicates}, reorders {reorders}, readers \
             equal: {equal}; {resent_batches} batches sent again, {fences} fences{}",
            example.as_ref().map(|example| format!("; {example}")).unwrap_or_default()
        )
    }

    /// An error if a promise was broken.
    pub fn check(&self, name: &str) -> Result<(), CompareError> {
        let nothing_more = self.delivered <= self.acked;
        if self.lost + self.duplicates + self.reorders == 0 && self.equal && nothing_more {
            return Ok(());
        }
        Err(CompareError::Unsound { name: name.to_owned(), what: self.words() })
    }
}

/// Publishes and subscribes while `act` does what it does; then waits for every ack, and for every message.
pub fn under_load<T>(
    cluster: &mut Cluster<'_>,
    load: &LoadArgs,
    topic: &str,
    act: impl FnOnce(&mut Cluster<'_>, &[Session<'_>]) -> Result<T, CompareError>,
) -> Result<(T, Verdict), CompareError> {
    let (stop, watched) = (AtomicBool::new(false), AtomicBool::new(false));
    let due = AtomicU64::new(u64::MAX);
    let (numbers, payloads) = (0..load.sessions, load.payloads());
    let sessions: Vec<_> = numbers.map(|number| Session::new(load, topic, number, &stop)).collect();
    let seeds = [cluster.seeds.clone(), cluster.seeds_from(cluster.len() / 2)];
    thread::scope(|scope| {
        let watcher = |seeds: &Vec<String>| {
            let (seeds, payloads, watched, due) = (seeds.clone(), &payloads, &watched, &due);
            scope.spawn(move || watch(seeds, topic, payloads, watched, due))
        };
        let watchers = [watcher(&seeds[0]), watcher(&seeds[1])];
        let publishers: Vec<_> = sessions.iter().map(|session| scope.spawn(|| session.publish(&seeds[0]))).collect();
        let done = act(cluster, &sessions);
        stop.store(true, Ordering::Relaxed);
        let sent: Result<Vec<_>, CompareError> = publishers.into_iter().map(joined).collect();
        due.store(sent.as_ref().map_or(0, |sent| sent.iter().map(|(sent, _)| sent).sum()), Ordering::Release);
        watched.store(true, Ordering::Release);
        let findings: Result<Vec<_>, _> = watchers.into_iter().map(joined).collect();
        let findings = findings.map_err(CompareError::client("a subscriber"));
        // The clients know best why nothing moved.
        for error in [sent.as_ref().err(), findings.as_ref().err()].into_iter().flatten().filter(|_| done.is_err()) {
            eprintln!("compare: {error}");
        }
        let (done, sent, findings) = (done?, sent?, findings?);
        Ok((done, Verdict::of(&sent, &findings)))
    })
}

/// What a thread gave; its panic goes on here.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: u64, hash: u64) -> Ledger {
        Ledger { messages, hash, ..Ledger::default() }
    }

    #[test]
    fn a_broken_promise_is_an_error() {
        let sent = [(10, PublisherStats::default())];
        let check = |readers: [Ledger; 2]| Verdict::of(&sent, &readers).check("test");
        assert!(check([read(10, 7), read(10, 7)]).is_ok());
        assert!(check([read(10, 7), read(9, 7)]).is_err(), "one is lost");
        assert!(check([read(10, 7), read(10, 8)]).is_err(), "not the same");
        assert!(check([read(11, 7), read(11, 7)]).is_err(), "what nobody sent");
        let twice = Ledger { repeats: 1, ..read(11, 7) };
        assert!(check([read(10, 7), twice]).is_err());
        let out_of_order = Ledger { gaps: 1, ..read(10, 7) };
        assert!(check([out_of_order, read(10, 7)]).is_err());
        assert!(check([Ledger { wrong: 1, ..read(10, 7) }, read(10, 7)]).is_err(), "not what was sent");
    }
}
