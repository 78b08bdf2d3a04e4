//! Who takes part in the pool: the line each member has, and what it says of itself there.
//!
//! A member is a broker, or a process in an attached place. Its line names the process that has it, and beats while that process
//! looks after itself. All member lines lie at a place that no layout moves, so that a program of any version can see whether
//! somebody lives in a pool.

use crate::log::View;
use crate::pool::line::Owned;
use crate::pool::record::{BrokerLine, member_state};
use crate::pool::{Memory, Process};

/// A member's line is written at most this often, and while its process looks after itself not much less often, ns. Whoever
/// judges by silence allows for several of these.
pub const BEAT_NS: u64 = 20_000_000;

/// A member's own side: the line it alone writes. The caller holds the member's host lock.
#[derive(Debug)]
pub struct Member<M> {
    line: Owned<BrokerLine, M>,
    record: BrokerLine,
    beat_ns: u64,
}

impl<M: Memory> Member<M> {
    /// Announces a new process of a member, under the next incarnation. Before that it writes no other line of the member's: what
    /// is dead is told from what lives by incarnations.
    pub fn announce(view: &View<M>, member: u32, process: Process) -> Self {
        let mut line: Owned<BrokerLine, M> = Owned::take(view.memory.clone(), view.layout.broker_line(member));
        // Words, not the record: its last owner may have been killed while it wrote, and the number must go up all the same. The
        // beat goes on too, so that whoever watches it sees it move.
        let before = line.last();
        let record = BrokerLine {
            incarnation: before.incarnation + 1,
            heartbeat: before.heartbeat.wrapping_add(1),
            state: member_state::SERVING,
            process: process.id.into(),
            started_at: process.started_at_utc_ns,
            boot_id: process.boot_id,
            host: view.host().into(),
        };
        line.publish(&record);
        Member { line, record, beat_ns: 0 }
    }

    /// Which process of the member this is, from 1.
    pub fn incarnation(&self) -> u64 {
        self.record.incarnation
    }

    /// Shows that its process looks after itself, if that was not shown just now. True if it was written.
    pub fn beat(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.beat_ns) < BEAT_NS {
            return false;
        }
        self.beat_ns = now_ns;
        self.record.heartbeat = self.record.heartbeat.wrapping_add(1);
        self.line.publish(&self.record);
        true
    }

    /// Says that it is about to stop: clients are not sent to it any more.
    pub fn leave(&mut self) {
        self.record.state = member_state::LEAVING;
        self.line.publish(&self.record);
    }

    /// Says that it stopped in good order.
    pub fn stop(&mut self) {
        self.record.state = member_state::STOPPED;
        self.line.publish(&self.record);
    }
}

/// Says of a member that it stopped: its process ended without a word, and whoever says so knows that.
pub fn stop_for<M: Memory>(view: &View<M>, member: u32) {
    let mut line: Owned<BrokerLine, M> = Owned::take_from_another(view.memory.clone(), view.layout.broker_line(member));
    // Words: it may have been cut off while it wrote.
    line.publish(&BrokerLine { state: member_state::STOPPED, ..line.last() });
}

/// How long somebody has shown the same, on the clock of whoever watches.
///
/// A watcher that slept finds everyone silent: so one look adds at most two of its looking intervals, and a silence is long only if
/// it was looked at all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence<S> {
    seen: S,
    silent_ns: u64,
    /// When it was last looked at; 0: never.
    looked_ns: u64,
}

impl<S: PartialEq> Silence<S> {
    /// Looks, about every `interval_ns`; gives how long the same has been seen.
    pub fn look(&mut self, seen: S, now_ns: u64, interval_ns: u64) -> u64 {
        if self.looked_ns == 0 || seen != self.seen {
            (self.seen, self.silent_ns, self.looked_ns) = (seen, 0, now_ns);
            return 0;
        }
        self.look_again(now_ns, interval_ns)
    }

    /// Looks where nothing can be made out: nothing new was shown. Who never showed anything is not silent.
    pub fn look_again(&mut self, now_ns: u64, interval_ns: u64) -> u64 {
        if self.looked_ns == 0 {
            return 0;
        }
        self.silent_ns += now_ns.saturating_sub(self.looked_ns).min(2 * interval_ns);
        self.looked_ns = now_ns;
        self.silent_ns
    }

    /// It is not silent, whatever it shows.
    pub fn broken(&mut self) {
        self.looked_ns = 0;
    }

    /// What was last seen.
    pub fn seen(&self) -> &S {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_slept_takes_nobody_for_dead() {
        let mut silence = Silence::default();
        let look = |silence: &mut Silence<u64>, seen, now_ns| silence.look(seen, now_ns, 10);
        assert_eq!(silence.look_again(10, 10), 0, "nothing to be silent since");
        assert_eq!(look(&mut silence, 7, 1000), 0);
        assert_eq!(look(&mut silence, 7, 1010), 10);
        assert_eq!(look(&mut silence, 7, 900_000), 30, "it slept: two intervals at most");
        assert_eq!(look(&mut silence, 7, 900_010), 40);
        assert_eq!(silence.look_again(900_020, 10), 50, "it cannot be made out");
        assert_eq!(look(&mut silence, 8, 900_030), 0, "it lives");
        assert_eq!(look(&mut silence, 8, 900_040), 10);
        silence.broken();
        assert_eq!(look(&mut silence, 8, 900_050), 0);
    }
    use crate::log::views::plain_view;
    use crate::pool::line::INVALID;

    /// A broker was killed while it announced itself: dead pins are told from living ones by the number going up all the same.
    #[test]
    fn an_incarnation_is_above_one_cut_short() {
        let view = plain_view(1);
        let announce = || Member::announce(&view, 0, Process::default()).incarnation();
        let before = (0..3).map(|_| announce()).max();
        view.memory.store(view.layout.broker_line(0), INVALID);
        assert!(Some(announce()) > before);
    }

    #[test]
    fn a_member_beats_now_and_then() {
        let view = plain_view(1);
        let mut member = Member::announce(&view, 1, Process { id: 7, started_at_utc_ns: 8, boot_id: 9 });
        let seen = || crate::pool::line::read::<_, BrokerLine>(&view.memory, view.layout.broker_line(1)).unwrap().1;
        let before = seen();
        assert_eq!((before.process, before.started_at, before.boot_id, before.host), (7, 8, 9, 0));
        assert!(member.beat(BEAT_NS) && !member.beat(2 * BEAT_NS - 1) && member.beat(2 * BEAT_NS));
        assert_eq!(seen().heartbeat, before.heartbeat + 2);
        member.stop();
        assert_eq!(seen().state, member_state::STOPPED);
    }
}
