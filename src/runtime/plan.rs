//! Roles on threads, threads on cores. A pure function of what there is to run, what it may run on and what was asked
//! for.
//!
//! What holds for every plan: each role is on exactly one thread; at most `usable - 1` threads spin, so that whoever
//! the broker serves can run too; a thread's roles are in duty-cycle order. `auto` and `shared` have a plan for any
//! number of cores.

use std::fmt::Write;

use crate::config::{IdleMode, ThreadMode, ThreadsConfig};
use crate::runtime::cpu::UsableCores;
use crate::runtime::idle::IdlePolicy;
use crate::runtime::role::{ROLES_PER_THREAD_MAX, RoleKind};

/// A role to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSpec {
    /// Its name, for people.
    pub name: String,
    /// What it does.
    pub kind: RoleKind,
    /// Broker it belongs to: roles of one broker share data and are kept together.
    pub broker: u32,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadPlan {
    /// Its name.
    pub name: String,
    /// Core it is pinned to.
    pub core: Option<usize>,
    /// How it rests.
    pub idle: IdlePolicy,
    /// Its roles, as places in the list of roles, in the order they are driven.
    pub roles: Vec<usize>,
}

/// All threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The threads.
    pub threads: Vec<ThreadPlan>,
    /// What was decided otherwise than asked for, or for want of cores; for people.
    pub notes: Vec<String>,
}

impl Plan {
    /// The plan as text, a thread a line, for the log. `roles` is the list it was made from.
    pub fn describe(&self, roles: &[RoleSpec]) -> String {
        let mut text = String::new();
        for thread in &self.threads {
            let core = thread.core.map_or("any core".to_owned(), |core| format!("core {core}"));
            let names: Vec<&str> = thread.roles.iter().map(|role| &*roles[*role].name).collect();
            let _ = writeln!(text, "thread {}: {core}, {}: {}", thread.name, thread.idle, names.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    /// Where memory on this NUMA node is from the cores of this plan, for the log; `node_of` tells the node of a core.
    pub fn describe_distance(&self, node: usize, node_of: impl Fn(usize) -> Option<usize>) -> String {
        let mut text = format!("the pool's memory is on NUMA node {node}\n");
        let is_far = |thread: &&ThreadPlan| thread.core.and_then(&node_of).is_some_and(|of_core| of_core != node);
        for thread in self.threads.iter().filter(is_far) {
            let core = thread.core.expect("it has one");
            let _ = writeln!(
                text,
                "note: thread {} is on core {core}, which is on another node: `threads.cores` lists better ones, if there are any",
                thread.name
            );
        }
        text
    }
}

/// What was asked for cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to run.
    #[error("no roles to run: this process serves no broker; check `brokers`")]
    NoRoles,
    /// `dedicated` without enough cores.
    #[error(
        "`threads.mode: dedicated` needs {needed} cores for {roles} roles and one to spare, found {found} to use; \
         use `mode: auto`, run fewer roles, or allow more cores (threads.cores, taskset, the cgroup's quota)"
    )]
    TooFewCores {
        /// Roles to place.
        roles: usize,
        /// Cores they need, the spare one included.
        needed: usize,
        /// Cores there are, the spare one included.
        found: usize,
    },
    /// A configured core this process may not use.
    #[error(
        "`threads.cores` names core {core}, and this process may use {usable:?}; choose among those, or set it to auto"
    )]
    CoreNotUsable {
        /// The core.
        core: usize,
        /// What may be used.
        usable: Vec<usize>,
    },
    /// More roles than one thread takes.
    #[error(
        "{roles} roles on one thread, at most {ROLES_PER_THREAD_MAX}; configure fewer brokers or lanes for this process"
    )]
    TooManyRoles {
        /// Roles of that thread.
        roles: usize,
    },
}

/// Places `roles` on `usable` cores as `threads` asks.
///
/// # Errors
/// [`PlanError`]. In `auto` and `shared` with `cores: auto` never for want of cores.
pub fn plan(roles: &[RoleSpec], usable: &UsableCores, threads: &ThreadsConfig) -> Result<Plan, PlanError> {
    if roles.is_empty() {
        return Err(PlanError::NoRoles);
    }
    let planner = Planner::new(roles, usable, threads)?;
    let plan = match threads.mode {
        ThreadMode::Shared => planner.shared(Vec::new()),
        ThreadMode::Dedicated => planner.dedicated()?,
        ThreadMode::Auto => planner.auto(),
    };
    let spinning = plan.threads.iter().filter(|thread| thread.idle == IdlePolicy::Spin).count();
    assert!(spinning < usable.count(), "one usable core never spins");
    match plan.threads.iter().map(|thread| thread.roles.len()).max() {
        Some(roles) if roles > ROLES_PER_THREAD_MAX => Err(PlanError::TooManyRoles { roles }),
        _ => Ok(plan),
    }
}

struct Planner<'a> {
    roles: &'a [RoleSpec],
    threads: &'a ThreadsConfig,
    /// Cores to pin to, in the order they are given out.
    cores: Vec<usize>,
    usable: usize,
}

impl<'a> Planner<'a> {
    fn new(roles: &'a [RoleSpec], usable: &UsableCores, threads: &'a ThreadsConfig) -> Result<Self, PlanError> {
        let cores = match &threads.cores {
            Some(cores) => cores.clone(),
            // The first is where the kernel and interrupts mostly are: it is the one to spare.
            None => usable.ids[1..].to_vec(),
        };
        match cores.iter().find(|core| !usable.ids.contains(core)) {
            Some(core) => Err(PlanError::CoreNotUsable { core: *core, usable: usable.ids.clone() }),
            None => Ok(Planner { roles, threads, cores, usable: usable.count() }),
        }
    }

    /// Threads that may spin, each on a core of its own.
    fn spinning_max(&self) -> usize {
        (self.usable - 1).min(self.cores.len())
    }

    fn auto(self) -> Plan {
        let (count, usable) = (self.roles.len(), self.usable);
        let enough = usable >= 3 && count <= self.spinning_max();
        if enough {
            return self.each_its_core();
        }
        let note = format!("{count} roles on {usable} usable cores do not get a core each");
        // The sequencer and at least one group, each where it does not disturb the other.
        if usable >= 4 && self.cores.len() >= 2 { self.grouped(vec![note]) } else { self.shared(vec![note]) }
    }

    fn dedicated(self) -> Result<Plan, PlanError> {
        if self.roles.len() > self.spinning_max() {
            let (roles, found) = (self.roles.len(), self.spinning_max() + 1);
            return Err(PlanError::TooFewCores { roles, needed: roles + 1, found });
        }
        Ok(self.each_its_core())
    }

    /// One role, one core. The sequencer's is the first.
    fn each_its_core(self) -> Plan {
        let mut order: Vec<usize> = (0..self.roles.len()).collect();
        order.sort_by_key(|role| (self.roles[*role].kind != RoleKind::Sequence, *role));
        let idle = self.own_core_idle();
        let thread = |(role, core): (usize, &usize)| {
            let name = self.roles[role].name.clone();
            ThreadPlan { name, core: Some(*core), idle, roles: vec![role] }
        };
        Plan { threads: order.into_iter().zip(&self.cores).map(thread).collect(), notes: Vec::new() }
    }

    /// The sequencer on a core of its own; the roles of a broker together, on up to `usable - 2` threads.
    fn grouped(self, notes: Vec<String>) -> Plan {
        let (sequencers, others): (Vec<usize>, Vec<usize>) =
            (0..self.roles.len()).partition(|role| self.roles[*role].kind == RoleKind::Sequence);
        let mut cores = self.cores.iter().copied();
        let mut threads = Vec::new();
        if !sequencers.is_empty() {
            let (core, idle) = (cores.next(), self.own_core_idle());
            threads.push(ThreadPlan { name: "sequence".into(), core, idle, roles: self.in_duty_order(sequencers) });
        }
        let mut brokers: Vec<u32> = others.iter().map(|role| self.roles[*role].broker).collect();
        brokers.sort_unstable();
        brokers.dedup();
        let groups = brokers.len().min(self.usable - 2).min(cores.len());
        for group in 0..groups {
            let in_group = |role: &usize| {
                let place = brokers.binary_search(&self.roles[*role].broker).expect("the list has every broker");
                place % groups == group
            };
            let roles = self.in_duty_order(others.iter().copied().filter(in_group).collect());
            // Chosen cores are used; otherwise a thread that sleeps goes where there is room.
            let core = cores.next().filter(|_| self.threads.cores.is_some());
            threads.push(ThreadPlan { name: format!("brokers-{group}"), core, idle: self.shared_core_idle(), roles });
        }
        Plan { threads, notes }
    }

    /// Everything on one thread.
    fn shared(self, mut notes: Vec<String>) -> Plan {
        let core = self.threads.cores.as_ref().and_then(|cores| cores.first().copied());
        let mut idle = self.shared_core_idle();
        if idle == IdlePolicy::Spin && self.usable < 2 {
            notes.push(
                "`threads.idle: spin` on the only usable core would keep everybody else from running: parking".into(),
            );
            idle = self.park();
        }
        let roles = self.in_duty_order((0..self.roles.len()).collect());
        Plan { threads: vec![ThreadPlan { name: "shared".into(), core, idle, roles }], notes }
    }

    fn in_duty_order(&self, mut roles: Vec<usize>) -> Vec<usize> {
        roles.sort_by_key(|role| (self.roles[*role].kind, self.roles[*role].broker, *role));
        roles
    }

    fn own_core_idle(&self) -> IdlePolicy {
        self.idle_or(IdlePolicy::Spin)
    }

    fn shared_core_idle(&self) -> IdlePolicy {
        self.idle_or(self.park())
    }

    fn idle_or(&self, automatic: IdlePolicy) -> IdlePolicy {
        match self.threads.idle {
            IdleMode::Auto => automatic,
            IdleMode::Spin => IdlePolicy::Spin,
            IdleMode::Yield => IdlePolicy::Yield,
            IdleMode::Park => self.park(),
        }
    }

    fn park(&self) -> IdlePolicy {
        let ThreadsConfig { spin_for, park_min, park_max, rest_max, .. } = *self.threads;
        IdlePolicy::Park { spin_for, park_min, park_max, rest_max }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
