//! What a user sees while a run goes on, on standard error: a bar on a terminal, else a line each second.

use std::time::{Duration, Instant};

use embarcadero::{BrokerProgress, UNKNOWN_BROKER};
use indicatif::{ProgressBar, ProgressStyle};

use crate::board::Board;

/// Time between looks at the board.
pub const TICK: Duration = Duration::from_millis(100);
/// Time between interval lines, and between updates of the per-broker line.
const INTERVAL: Duration = Duration::from_secs(1);

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    /// A line each second.
    Lines,
    /// A bar.
    Bar,
}

/// Shows how far a run is.
pub struct Progress {
    show: Show,
    bar: ProgressBar,
    total: u64,
    message_bytes: u64,
    started: Instant,
    last: Sample,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    sent: u64,
    acked: u64,
    delivered: u64,
}

impl Progress {
    /// For a run of `total` messages; 0 if their number is not known.
    pub fn new(show: Show, total: u64, message_bytes: u64) -> Progress {
        let bar = if show == Show::Bar { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = "{elapsed_precise} [{bar:30}] {percent:>3} % {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("a template that is tested").progress_chars("=> "));
        let now = Instant::now();
        let last = Sample { at: now, sent: 0, acked: 0, delivered: 0 };
        Progress { show, bar, total, message_bytes, started: now, last }
    }

    /// Looks at the board; shows what changed when it is time.
    pub fn tick(&mut self, board: &Board) {
        let now = Sample {
            at: Instant::now(),
            sent: board.sent(),
            acked: board.acked(),
            delivered: board.delivered().unwrap_or(0),
        };
        self.bar.set_position(if board.delivered.is_empty() { now.acked } else { now.delivered });
        if now.at.duration_since(self.last.at) < INTERVAL {
            return;
        }
        let rates = self.rates(board, &now);
        let awaiting = self.awaits_acks(board, &now).then(|| ack_line(board, self.total));
        match self.show {
            Show::Nothing => {}
            Show::Bar if board.sessions.is_empty() => self.bar.set_message(rates),
            Show::Bar => self.bar.set_message(format!("{rates}  {}", ack_line(board, self.total))),
            Show::Lines => {
                eprintln!("{:6.1} s  {rates}", now.at.duration_since(self.started).as_secs_f64());
                if let Some(line) = awaiting {
                    eprintln!("          {line}");
                }
            }
        }
        self.last = now;
    }

    /// Ends the display.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn rates(&self, board: &Board, now: &Sample) -> String {
        let seconds = now.at.duration_since(self.last.at).as_secs_f64();
        let rate = |messages: u64| messages as f64 * self.message_bytes as f64 / seconds / 1e6;
        let mut parts = Vec::new();
        if !board.sessions.is_empty() {
            parts.push(format!("{:8.1} MB/s acked", rate(now.acked - self.last.acked)));
        }
        if !board.delivered.is_empty() {
            parts.push(format!("{:8.1} MB/s delivered", rate(now.delivered.saturating_sub(self.last.delivered))));
        }
        if self.total > 0 && self.show == Show::Lines {
            let reached = if board.delivered.is_empty() { now.acked } else { now.delivered };
            parts.push(format!("{:3.0} %", 100.0 * reached as f64 / self.total as f64));
        }
        parts.join("  ")
    }

    /// Whether acks are all that is left to wait for, or have stopped for a second.
    fn awaits_acks(&self, board: &Board, now: &Sample) -> bool {
        let all_sent = now.sent == self.total && now.acked < self.total;
        let stalled = now.acked == self.last.acked && now.acked < now.sent;
        !board.sessions.is_empty() && (all_sent || stalled)
    }
}

/// The line of `Publisher::progress_line`, summed over the sessions of the run.
pub fn ack_line(board: &Board, total: u64) -> String {
    let sums = sum_brokers(board.sessions.iter().flat_map(|session| session.brokers()));
    let brokers: Vec<String> = sums.iter().map(|broker| format!("B{}={}", broker.broker, broker.acked)).collect();
    format!("Waiting for ACKs: [{}] total={}/{total}", brokers.join(", "), board.acked())
}

/// Progress per broker, summed over sessions, by broker.
pub fn sum_brokers(all: impl Iterator<Item = BrokerProgress>) -> Vec<BrokerProgress> {
    let mut sums: Vec<BrokerProgress> = Vec::new();
    for one in all.filter(|one| one.broker != UNKNOWN_BROKER) {
        match sums.iter_mut().find(|sum| sum.broker == one.broker) {
            Some(sum) => {
                sum.sent += one.sent;
                sum.acked += one.acked;
                sum.connected &= one.connected;
            }
            None => sums.push(one),
        }
    }
    sums.sort_by_key(|sum| sum.broker);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn broker(id: u16, acked: u64) -> BrokerProgress {
        BrokerProgress { broker: id, address: "127.0.0.1:1".to_owned(), sent: acked + 1, acked, connected: true }
    }

    #[test]
    fn the_ack_line_sums_sessions() {
        let board = Board::new(Fleet::new(1, 2, 0), Arc::default());
        board.sessions[0].set_brokers(&[broker(1, 5), broker(0, 7)]);
        board.sessions[1].set_brokers(&[broker(0, 1)]);
        board.sessions[1].acked.store(13, Ordering::Relaxed);
        assert_eq!(ack_line(&board, 20), "Waiting for ACKs: [B0=8, B1=5] total=13/20");
    }

    #[test]
    fn the_template_is_good() {
        Progress::new(Show::Bar, 10, 1024).finish();
    }
}
