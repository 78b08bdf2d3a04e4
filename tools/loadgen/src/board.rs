//! What the threads of a run share: how far each is, when to start, and when to stop.
//!
//! Workers write their own counters and look at the flags; the main thread reads. Counters are relaxed:
//! they are for display. Figures of the verdict travel through the threads' results.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use embarcadero::BrokerProgress;
use tools_common::clock::monotonic_ns;

use crate::events::EventLog;
use crate::fleet::Fleet;
use crate::pause::Pause;

/// How far one publisher session is.
#[derive(Default)]
pub struct SessionBoard {
    /// Messages handed to the client.
    pub sent: AtomicU64,
    /// Messages acked; at ack level 0, messages written to sockets.
    pub acked: AtomicU64,
    brokers: Mutex<Vec<BrokerProgress>>,
}

impl SessionBoard {
    /// Shows where the session's messages are.
    pub fn set_brokers(&self, progress: &[BrokerProgress]) {
        *lock(&self.brokers) = progress.to_vec();
    }

    /// Where the session's messages were when it last said so.
    pub fn brokers(&self) -> Vec<BrokerProgress> {
        lock(&self.brokers).clone()
    }
}

/// What the threads of a run share.
pub struct Board {
    /// One per publisher session.
    pub sessions: Vec<SessionBoard>,
    /// Messages delivered, one per subscriber.
    pub delivered: Vec<AtomicU64>,
    /// Opened when everyone is connected.
    pub gate: Gate,
    /// When a subscriber was stopped, and what publishers did meanwhile.
    pub pause: Pause,
    /// What happened meanwhile and is rare.
    pub events: EventLog,
    fleet: Fleet,
    begin_ns: OnceLock<u64>,
    sessions_ended: AtomicUsize,
    session_failed: AtomicBool,
    reader_failed: AtomicBool,
    interrupted: Arc<AtomicBool>,
}

impl Board {
    /// A board for these clients. `interrupted` is set by the signal handler.
    pub fn new(fleet: Fleet, interrupted: Arc<AtomicBool>) -> Board {
        Board {
            sessions: (0..fleet.sessions).map(|_| SessionBoard::default()).collect(),
            delivered: (0..fleet.readers).map(|_| AtomicU64::new(0)).collect(),
            gate: Gate::default(),
            pause: Pause::default(),
            events: EventLog::default(),
            fleet,
            begin_ns: OnceLock::new(),
            sessions_ended: AtomicUsize::new(0),
            session_failed: AtomicBool::new(false),
            reader_failed: AtomicBool::new(false),
            interrupted,
        }
    }

    /// When the run began, on the monotonic clock: when the first worker past the gate asked.
    pub fn begin_ns(&self) -> u64 {
        *self.begin_ns.get_or_init(monotonic_ns)
    }

    /// Messages handed to clients for a topic, once all sessions have ended and that is known for good.
    pub fn published(&self, topic: usize) -> Option<u64> {
        let sent = |session: usize| self.sessions[session].sent.load(Ordering::Relaxed);
        // The acquire of `sessions_ended` orders the loads behind the sessions' last stores.
        self.sessions_ended().then(|| self.fleet.sessions_of(topic).map(sent).sum())
    }

    /// Whether the user wants the run to end now.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Notes that a publisher session has ended, and how. Pairs with the acquire in `sessions_ended`.
    pub fn session_ended(&self, failed: bool) {
        self.session_failed.fetch_or(failed, Ordering::Relaxed);
        self.sessions_ended.fetch_add(1, Ordering::Release);
    }

    /// Whether all publisher sessions have ended.
    pub fn sessions_ended(&self) -> bool {
        self.sessions_ended.load(Ordering::Acquire) == self.sessions.len()
    }

    /// Whether a publisher session gave up, so that subscribers need not wait for all messages.
    pub fn session_failed(&self) -> bool {
        self.session_failed.load(Ordering::Relaxed)
    }

    /// Notes that a subscriber gave up: the run cannot pass any more, so it need not go on.
    pub fn fail_reader(&self) {
        self.reader_failed.store(true, Ordering::Relaxed);
    }

    /// Whether a subscriber gave up.
    pub fn reader_failed(&self) -> bool {
        self.reader_failed.load(Ordering::Relaxed)
    }

    /// Messages handed to clients by all sessions.
    pub fn sent(&self) -> u64 {
        self.sessions.iter().map(|session| session.sent.load(Ordering::Relaxed)).sum()
    }

    /// Messages acked to all sessions.
    pub fn acked(&self) -> u64 {
        self.sessions.iter().map(|session| session.acked.load(Ordering::Relaxed)).sum()
    }

    /// Messages delivered, over all subscribers.
    pub fn delivered_to_all(&self) -> u64 {
        self.delivered.iter().map(|delivered| delivered.load(Ordering::Relaxed)).sum()
    }

    /// Messages delivered to the slowest subscriber; none if there are no subscribers.
    pub fn delivered(&self) -> Option<u64> {
        self.delivered.iter().map(|delivered| delivered.load(Ordering::Relaxed)).min()
    }
}

/// Holds all workers until each is connected, so that no message is sent before a subscriber listens.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    arrived: usize,
    failure: Option<String>,
    open: Option<bool>,
}

impl Gate {
    /// A worker is connected, or says why not. Whether the run starts.
    pub fn arrive(&self, connected: Result<(), String>) -> bool {
        let mut state = lock(&self.state);
        state.arrived += 1;
        if let Err(reason) = connected {
            state.failure.get_or_insert(reason);
        }
        self.changed.notify_all();
        // Without a deadline of its own: `start` decides within its deadline, whatever happens.
        while state.open.is_none() {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state.open == Some(true)
    }

    /// Waits until `workers` have arrived, then lets them start; or sends them home if one failed, `wait` is
    /// over, or the user interrupts.
    pub fn start(&self, workers: usize, wait: Duration, board: &Board) -> Result<(), String> {
        let deadline = Instant::now() + wait;
        let mut state = lock(&self.state);
        while state.arrived < workers && state.failure.is_none() && !board.interrupted() && Instant::now() < deadline {
            let step = Duration::from_millis(50);
            let waited = self.changed.wait_timeout(state, step);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let missing = workers - state.arrived;
        let outcome = match state.failure.take() {
            Some(reason) => Err(reason),
            None if missing > 0 && board.interrupted() => Err("interrupted before all were connected".to_owned()),
            None if missing > 0 => Err(format!("{missing} of {workers} clients were not connected after {wait:?}")),
            None => Ok(()),
        };
        state.open = Some(outcome.is_ok());
        self.changed.notify_all();
        outcome
    }
}

/// A counter behind a lock stays readable when a thread died: display needs no more than that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(Fleet::new(1, 2, 1), Arc::new(AtomicBool::new(false)))
    }

    #[test]
    fn what_a_topic_has_is_known_when_all_sessions_have_ended() {
        let board = Board::new(Fleet::new(2, 3, 2), Arc::default());
        for (session, sent) in board.sessions.iter().zip([5, 7, 11]) {
            session.sent.store(sent, Ordering::Relaxed);
        }
        board.session_ended(false);
        board.session_ended(false);
        assert_eq!(board.published(0), None);
        board.session_ended(false);
        assert_eq!((board.published(0), board.published(1)), (Some(16), Some(7)));
    }

    fn two_workers(first: Result<(), String>, second: Result<(), String>) -> (Result<(), String>, [bool; 2]) {
        let board = board();
        std::thread::scope(|scope| {
            let one = scope.spawn(|| board.gate.arrive(first));
            let two = scope.spawn(|| board.gate.arrive(second));
            let outcome = board.gate.start(2, Duration::from_secs(30), &board);
            (outcome, [one.join().unwrap(), two.join().unwrap()])
        })
    }

    #[test]
    fn the_gate_opens_for_all_or_for_none() {
        assert_eq!(two_workers(Ok(()), Ok(())), (Ok(()), [true, true]));
        let (outcome, started) = two_workers(Ok(()), Err("no route".to_owned()));
        assert_eq!((outcome, started), (Err("no route".to_owned()), [false, false]));
    }

    #[test]
    fn the_gate_does_not_wait_for_ever() {
        let board = board();
        let outcome = board.gate.start(1, Duration::from_millis(1), &board);
        assert!(outcome.unwrap_err().contains("1 of 1 clients"));
    }

    #[test]
    fn the_slowest_subscriber_counts() {
        let board = Board::new(Fleet::new(1, 0, 2), Arc::default());
        board.delivered[0].store(5, Ordering::Relaxed);
        assert_eq!((board.delivered(), board.delivered_to_all()), (Some(0), 5));
        assert_eq!(Board::new(Fleet::new(1, 0, 0), Arc::default()).delivered(), None);
    }
}
