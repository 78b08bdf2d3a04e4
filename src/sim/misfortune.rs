//! Misfortunes, and what each of them does to the world: who dies, stands still, loses power or a connection, and comes back.

use crate::log::View;
use crate::log::faults::FaultNotes;
use crate::sim::kernel::State;
use crate::sim::network::End;
use crate::sim::part::{LinkId, Part};
use crate::sim::scenario::Fault;
use crate::sim::trace::Event;

/// A connection that nothing comes through is given up by its ends after this time at most, ns.
const SILENCE_MAX_NS: u64 = 500_000_000;

/// A host that lost power stays off for this time at most, ns.
const OFF_NS_MAX: u64 = 500_000_000;

impl State {
    /// Whether a misfortune of this kind strikes now, `times` in `of`.
    pub(super) fn strikes(&mut self, fault: Fault, times: u64, of: u64) -> bool {
        let may = !self.is_calm && self.scenario.has(fault) && self.faults < self.scenario.faults_max;
        let strikes = self.luck.chance(times, of) && may;
        self.faults += u64::from(strikes);
        strikes
    }

    /// Now and then a misfortune strikes.
    pub(super) fn strike(&mut self) {
        if !self.luck.chance(self.scenario.fault_rate, 10_000) {
            return;
        }
        let fault = Fault::ALL[self.luck.below(Fault::ALL.len() as u64) as usize];
        if !self.strikes(fault, 1, 1) {
            return;
        }
        match fault {
            // These strike in the middle of steps.
            Fault::HoldUp | Fault::KillInStep => {}
            Fault::KillBroker => self.kill_one(fault, |part| matches!(part, Part::Receive(..))),
            Fault::StopBroker => self.stop_one(),
            Fault::KillSequencer => self.kill_one(fault, |part| matches!(part, Part::Sequencer(_))),
            Fault::KillPublisher => {
                self.kill_one(fault, |part| matches!(part, Part::Publisher(_)) || part.is_attached())
            }
            Fault::PowerLoss => {
                let hosts = 1 + self.luck.below((1 << self.scenario.hosts) - 1);
                self.lose_power(hosts);
            }
            Fault::ClockJump => self.set_a_clock(),
            Fault::MemoryFailure => self.fail_memory(),
            Fault::Pause => self.pause_one(200_000_000, |part| {
                matches!(part, Part::Receive(..) | Part::Sequencer(_)) || part.is_attached()
            }),
            Fault::SilentPublisher => self.pause_one(600_000_000, |part| matches!(part, Part::Publisher(_))),
            Fault::SlowSubscriber => self.pause_one(300_000_000, |part| matches!(part, Part::Subscriber(_))),
            Fault::Cut | Fault::Stall | Fault::HalfOpen => self.harm_link(fault),
        }
    }

    fn one_of(&mut self, is_meant: impl Fn(&Part) -> bool) -> Option<usize> {
        let alive = |process: &usize| {
            let process = &self.processes[*process];
            process.is_alive && is_meant(&process.part)
        };
        let all: Vec<usize> = (0..self.processes.len()).filter(alive).collect();
        let pick = self.luck.below(all.len().max(1) as u64) as usize;
        all.get(pick).copied()
    }

    fn kill_one(&mut self, fault: Fault, is_meant: impl Fn(&Part) -> bool) {
        if let Some(process) = self.one_of(is_meant) {
            self.note(Event::Killed(self.processes[process].part, fault));
            // With its machine, perhaps: then nobody says so.
            let is_silent = self.processes[process].host.is_none() && self.strikes(Fault::HalfOpen, 1, 2);
            self.kill(process, is_silent);
        }
    }

    /// Memory fails under a broker process, whichever it reads or writes there.
    fn fail_memory(&mut self) {
        let is_broker = |part: &Part| matches!(part, Part::Receive(..));
        let Some(process) = self.one_of(is_broker).filter(|_| !self.checker.has_failed_memory()) else { return };
        let (Part::Receive(broker, _), Some(host)) = (self.processes[process].part, self.processes[process].host)
        else {
            return;
        };
        let g = self.layout.geometry;
        let (extent, within) = (self.luck.below(g.extents.into()) as u32, self.luck.below(g.extent_bytes));
        let view = View::new(self.memory.host(host), self.layout.clone(), self.scenario.homes(host));
        FaultNotes::open(&view, broker).note(self.layout.extent(extent) + within);
        self.note(Event::MemoryFailed(self.processes[process].part, extent));
        self.kill(process, false);
        self.checker.memory_failed(&self.memory, extent);
    }

    fn pause_one(&mut self, most_ns: u64, is_meant: impl Fn(&Part) -> bool) {
        if let Some(process) = self.one_of(is_meant) {
            let until_ns = self.now_ns + self.luck.below(most_ns);
            self.processes[process].until_ns = until_ns;
            self.note(Event::Paused(self.processes[process].part, until_ns));
        }
    }

    /// A broker or a candidate is asked to end.
    fn stop_one(&mut self) {
        let may_stop = |part: &Part| matches!(part, Part::Receive(..) | Part::Sequencer(_));
        if let Some(process) = self.one_of(may_stop) {
            self.note(Event::Stopped(self.processes[process].part));
            self.processes[process].is_stopping = true;
        }
    }

    fn harm_link(&mut self, fault: Fault) {
        let open = self.network.open();
        if open.is_empty() {
            return;
        }
        let link = open[self.luck.below(open.len() as u64) as usize];
        let until_ns = self.now_ns + self.luck.below(300_000_000);
        match fault {
            Fault::Cut => {
                self.network.cut(link, &mut self.luck);
                self.note(Event::Cut(link));
            }
            Fault::HalfOpen => self.silence(link),
            _ => {
                self.network.stall(link, until_ns);
                self.note(Event::Stalled(link, until_ns));
            }
        }
    }

    /// A process dies: what it had in memory of its own is gone; what its host's cache holds stays there.
    /// `is_silent`: its machine goes with it, and those that it was connected to are not told.
    pub(super) fn kill(&mut self, process: usize, is_silent: bool) {
        // Now and then it stays away for much longer than anybody waits for a silent member.
        let is_long = self.processes[process].host.is_some() && self.luck.chance(1, 6);
        let restart_ns = self.now_ns + self.luck.below(if is_long { 1_000_000_000 } else { 60_000_000 });
        self.memory.settle();
        let dead = &mut self.processes[process];
        (dead.life, dead.is_alive, dead.until_ns) = (dead.life + 1, false, restart_ns);
        dead.is_stopping = false;
        for locked in self.processes.iter_mut().filter(|locked| locked.locked_by == Some(process)) {
            locked.locked_by = None;
        }
        for place in self.places.iter_mut().filter(|place| place.process == process) {
            if let Some(actor) = place.actor.take() {
                self.remains.push(Box::new(actor));
            }
            (place.interrupts, place.is_running, place.is_drained) = (None, false, false);
        }
        // The kernel ends what it had under way, and closes what it had open.
        self.rings
            .iter_mut()
            .filter(|ring| ring.as_ref().is_some_and(|ring| ring.process == process))
            .for_each(|ring| *ring = None);
        let (end, is_its_own): (End, Box<dyn Fn(Part, u32) -> bool>) = match self.processes[process].part {
            Part::Receive(broker, _) => {
                if let Some(common) = self.common[broker as usize].take() {
                    self.remains.push(Box::new(common));
                }
                (End::Broker, Box::new(move |_, to| to == broker))
            }
            part => (End::Client, Box::new(move |from, _| from == part)),
        };
        for link in self.network.open().to_vec() {
            let (from, to) = self.network.ends(link);
            if !is_its_own(from, to) {
                continue;
            }
            match is_silent {
                true => self.silence(link),
                false => self.network.cut(link, &mut self.luck),
            }
            self.network.close(link, end);
        }
    }

    /// Nothing comes through on a connection any more, and nobody says so, until an end has tried for long enough.
    fn silence(&mut self, link: LinkId) {
        let until_ns = self.now_ns + self.luck.below(SILENCE_MAX_NS);
        self.network.silence(link, until_ns);
        self.note(Event::Silenced(link, until_ns));
    }

    /// Hosts lose power, each a bit.
    pub(super) fn lose_power(&mut self, hosts: u64) {
        let is_silent = self.strikes(Fault::HalfOpen, 1, 2);
        for host in (0..self.scenario.hosts).filter(|host| hosts >> host & 1 == 1) {
            self.note(Event::PowerLost(host));
            for process in 0..self.processes.len() {
                if self.processes[process].host == Some(host) && self.processes[process].is_alive {
                    self.kill(process, is_silent);
                }
            }
            self.memory.lose_power(host);
            if self.luck.chance(1, 3) {
                // It stays off for a while.
                let until_ns = self.now_ns + self.luck.below(OFF_NS_MAX);
                let of_host = self.processes.iter_mut().filter(|process| process.host == Some(host));
                of_host.for_each(|process| process.until_ns = process.until_ns.max(until_ns));
            }
        }
    }

    /// A host to be forgotten from another: one that was begun with, or, if that is wanted, one on which nothing runs. It is switched off.
    pub fn begin_to_forget(&mut self, from: usize, wants: bool) -> Option<usize> {
        if let Some(begun) = self.forgotten_from.iter().position(|by| *by == Some(from)) {
            return Some(begun);
        }
        let runs = |host: usize| self.processes.iter().any(|process| process.host == Some(host) && process.is_alive);
        let is_meant = |host: &usize| *host != from && self.forgotten_from[*host].is_none() && !runs(*host);
        let host = (0..self.scenario.hosts).find(is_meant).filter(|_| wants)?;
        self.forgotten_from[host] = Some(from);
        self.note(Event::PowerLost(host));
        self.memory.lose_power(host);
        Some(host)
    }

    /// It may be switched on again. Until now it fetched nothing, ahead of need or not.
    pub fn has_forgotten(&mut self, host: usize) {
        self.memory.lose_power(host);
        self.forgotten_from[host] = None;
    }

    /// Somebody sets a host's time of day: a little, or wrong.
    fn set_a_clock(&mut self) {
        let host = self.luck.below(self.scenario.hosts as u64) as usize;
        let most_ns = [1_000_000, 1_000_000_000, 3_600_000_000_000][self.luck.below(3) as usize];
        let ahead_ns = self.luck.below(2 * most_ns) as i64 - most_ns as i64;
        self.clocks[host].ahead_ns = ahead_ns;
        self.note(Event::ClockSet(host, ahead_ns));
    }

    pub(super) fn restart_due(&mut self) {
        for process in 0..self.processes.len() {
            let dead = &mut self.processes[process];
            let is_kept_off = dead.host.is_some_and(|host| self.forgotten_from[host].is_some());
            if !dead.is_alive && !is_kept_off && dead.locked_by.is_none() && dead.until_ns <= self.now_ns {
                dead.is_alive = true;
                self.note(Event::Restarted(self.processes[process].part));
            }
        }
    }
}
