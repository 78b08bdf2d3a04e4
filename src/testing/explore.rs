//! Goes through everything that can come of a small program of several threads on simulated hosts: every interleaving of its
//! operations, every act of the caches between them, every choice of an operation, a host's loss of power at every moment.
//!
//! A thread is an ordinary function over [`Memory`], so that the protocol's own code is what is tried. It has no state but what it
//! loaded: to do its next operation it is run again from its beginning, fed with what it loaded before; what it does after the
//! operation has no effect. States are visited once.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::limits::LINE_BYTES;
use crate::pool::{Keep, Memory, WordByWord};
use crate::testing::caches::{Caches, Whim};
use crate::testing::random::{Chance, Choices};

/// Lines that a program may use.
const LINES: u64 = 2;

/// A kind of operation that a thread leaves out, to see what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    Nothing,
    /// `clwb` or `clflushopt` that writes back.
    WriteBack,
    /// `clflushopt` that drops.
    Drop,
    StoreFence,
    FullFence,
    /// The fence is an `sfence` instead.
    FullFenceForStoreFence,
}

/// One thread of a program. What it gives is its part of the outcome.
#[derive(Clone, Copy)]
pub(super) struct Thread {
    pub host: usize,
    pub run: fn(&Probe) -> u64,
    pub left_out: LeftOut,
    /// It begins when this thread has ended: somebody told it so, by other means than this memory.
    pub after: Option<usize>,
}

/// A program, and what to look at when it is over.
#[derive(Clone, Default)]
pub(super) struct Program {
    pub threads: Vec<Thread>,
    /// This host may lose power at any moment.
    pub power: Option<usize>,
}

/// How a run ended.
pub(super) struct End<'a> {
    /// By thread; `None`: it was cut short by the loss of power.
    pub results: Vec<Option<u64>>,
    caches: &'a Caches,
}

impl End<'_> {
    /// A word of the pool, behind all caches.
    pub fn in_memory(&self, at: u64) -> u64 {
        let bytes = &self.caches.memory[at as usize..at as usize + 8];
        u64::from_le_bytes(bytes.try_into().expect("a word"))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Progress {
    /// What each operation gave so far.
    Running(Vec<u64>),
    Ended(u64),
    Dead,
}

#[derive(Clone)]
struct State {
    caches: Caches,
    threads: Vec<Progress>,
}

impl State {
    fn key(&self) -> u128 {
        let mut hasher = SipHasher13::new();
        self.caches.hash(&mut hasher);
        self.threads.hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}

/// A thread's memory: replays, does one operation, then does nothing.
#[derive(Clone)]
pub(super) struct Probe {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    caches: Caches,
    core: usize,
    host: usize,
    left_out: LeftOut,
    history: Vec<u64>,
    next: usize,
    /// How many operations had been done before this run.
    before: usize,
    wants_more: bool,
    found: Found,
}

/// What is known of a program only when all of it was seen.
#[derive(Clone, Default, PartialEq)]
struct Found {
    /// Lines that hosts look at: the only ones that their caches need to take in by themselves.
    touched: BTreeSet<(usize, u32)>,
    /// Threads that load: only theirs is a store buffer that can be noticed.
    loading: BTreeSet<usize>,
}

impl Probe {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no program panics")
    }

    fn operation(&self, act: impl FnOnce(&mut Caches, usize) -> u64) -> u64 {
        let mut inner = self.inner();
        let at = inner.next;
        inner.next += 1;
        if at < inner.before {
            return inner.history[at];
        }
        if at > inner.before {
            inner.wants_more = true;
            return 0;
        }
        let core = inner.core;
        let result = act(&mut inner.caches, core);
        inner.history.push(result);
        result
    }

    fn access(&self, at: u64, act: impl FnOnce(&mut Caches, usize) -> u64) -> u64 {
        assert!(at.is_multiple_of(8));
        let result = self.operation(act);
        let mut inner = self.inner();
        // What only an imaginary load led to is not touched.
        if !inner.wants_more {
            let host = inner.host;
            inner.found.touched.insert((host, (at / LINE_BYTES) as u32));
        }
        result
    }

    fn leaves_out(&self, kind: LeftOut) -> bool {
        self.inner().left_out == kind
    }
}

impl Memory for Probe {
    const SOFTWARE: bool = true;
    type Line<'a> = WordByWord<'a, Self>;

    fn bytes(&self) -> u64 {
        LINES * LINE_BYTES
    }
    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }
    fn store(&self, at: u64, word: u64) {
        self.access(at, |caches, core| {
            caches.store(core, at, word);
            0
        });
    }
    fn load(&self, at: u64) -> u64 {
        let core = self.inner().core;
        self.inner().found.loading.insert(core);
        self.access(at, |caches, core| caches.load(core, at))
    }
    fn flush_line(&self, at: u64, keep: Keep) {
        let kind = if keep == Keep::Cached { LeftOut::WriteBack } else { LeftOut::Drop };
        if !self.leaves_out(kind) {
            self.operation(|caches, core| {
                caches.flush(core, at, keep);
                0
            });
        }
    }
    fn store_fence(&self) {
        if !self.leaves_out(LeftOut::StoreFence) {
            self.operation(|caches, core| {
                caches.store_fence(core);
                0
            });
        }
    }
    fn full_fence(&self) {
        if self.leaves_out(LeftOut::FullFenceForStoreFence) {
            return self.store_fence();
        }
        if !self.leaves_out(LeftOut::FullFence) {
            self.operation(|caches, core| {
                caches.full_fence(core);
                0
            });
        }
    }
    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        let words: Vec<u64> = (at..at + bytes).step_by(8).map(|at| self.load(at)).collect();
        read(bytemuck::cast_slice(&words))
    }
    fn copy_in(&self, at: u64, bytes: &[u8]) {
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        (at..).step_by(8).zip(words).for_each(|(at, word)| self.store(at, word));
    }
    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        self.with_bytes(from, bytes, |bytes| self.copy_in(to, bytes));
    }
}

/// What was seen of a program.
pub(super) struct Seen {
    /// Every outcome.
    pub outcomes: BTreeSet<String>,
    /// Different states visited.
    pub states: usize,
}

/// Goes through everything; `tell` puts an end into words.
pub(super) fn explore(program: &Program, tell: impl Fn(&End) -> String) -> Seen {
    let mut found = Found::default();
    loop {
        let wanted = found.touched.iter().copied().collect();
        let mut walk = Walk { program, wanted, before: found.clone(), found, visited: HashSet::new() };
        let outcomes = walk.all(&tell);
        if walk.found == walk.before {
            return Seen { outcomes, states: walk.visited.len() };
        }
        found = walk.found;
    }
}

struct Walk<'a> {
    program: &'a Program,
    wanted: Vec<(usize, u32)>,
    /// What was found before this walk: if it finds more, another is needed.
    before: Found,
    found: Found,
    visited: HashSet<u128>,
}

impl Walk<'_> {
    fn all(&mut self, tell: &impl Fn(&End) -> String) -> BTreeSet<String> {
        let hosts = self.program.threads.iter().map(|thread| thread.host + 1).max().expect("a thread");
        let listed = Chance::Listed(Choices::default());
        let mut caches = Caches::new(LINES * LINE_BYTES, hosts, Whim::LISTED, listed);
        for (number, thread) in self.program.threads.iter().enumerate() {
            assert_eq!(caches.core(thread.host), number, "a core each");
            if !self.before.loading.contains(&number) {
                caches.make_direct(number);
            }
        }
        let threads = vec![Progress::Running(Vec::new()); self.program.threads.len()];
        let (mut stack, mut outcomes) = (vec![State { caches, threads }], BTreeSet::new());
        while let Some(state) = stack.pop() {
            // Buffers empty themselves in the end.
            let is_over =
                |number| !matches!(state.threads[number], Progress::Running(_)) && state.caches.is_settled(number);
            if (0..state.threads.len()).all(is_over) {
                outcomes.insert(tell(&end_of(&state)));
            }
            let mut next = Vec::new();
            (0..state.threads.len()).for_each(|number| self.step(&state, number, &mut next));
            self.acts(&state, &mut next);
            next.extend(self.power_loss(&state));
            next.retain(|state| self.visited.insert(state.key()));
            stack.append(&mut next);
        }
        outcomes
    }

    /// A thread's next operation, with each choice that it leaves.
    fn step(&mut self, state: &State, number: usize, next: &mut Vec<State>) {
        let Progress::Running(history) = &state.threads[number] else { return };
        let thread = self.program.threads[number];
        // It is told by a system call, which no store waits through.
        let has_told =
            |other: usize| matches!(state.threads[other], Progress::Ended(_)) && state.caches.is_settled(other);
        if thread.after.is_some_and(|other| !has_told(other)) {
            return;
        }
        let mut choices = Choices::default();
        loop {
            let mut caches = state.caches.clone();
            caches.chance = Chance::Listed(choices);
            let inner = Inner {
                caches,
                core: number,
                host: thread.host,
                left_out: thread.left_out,
                history: history.clone(),
                next: 0,
                before: history.len(),
                wants_more: false,
                found: std::mem::take(&mut self.found),
            };
            let probe = Probe { inner: Arc::new(Mutex::new(inner)) };
            let result = (thread.run)(&probe);
            let inner =
                Arc::into_inner(probe.inner).expect("no program keeps it").into_inner().expect("no program panics");
            let Inner { mut caches, history: now, wants_more, found, .. } = inner;
            self.found = found;
            let made = std::mem::replace(&mut caches.chance, Chance::Listed(Choices::default()));
            let mut threads = state.threads.clone();
            threads[number] = if wants_more { Progress::Running(now) } else { Progress::Ended(result) };
            next.push(State { caches, threads });
            let Chance::Listed(made) = made else { unreachable!("it was put there") };
            choices = made;
            if !choices.advance() {
                return;
            }
        }
    }

    fn acts(&self, state: &State, next: &mut Vec<State>) {
        for act in state.caches.acts(&self.wanted) {
            let mut choices = Choices::default();
            loop {
                let mut caches = state.caches.clone();
                caches.chance = Chance::Listed(choices);
                caches.act(act);
                let made = std::mem::replace(&mut caches.chance, Chance::Listed(Choices::default()));
                next.push(State { caches, threads: state.threads.clone() });
                let Chance::Listed(made) = made else { unreachable!("it was put there") };
                choices = made;
                if !choices.advance() {
                    break;
                }
            }
        }
    }

    fn power_loss(&self, state: &State) -> Option<State> {
        let host = self.program.power?;
        let mut after = state.clone();
        after.caches.lose_power(host);
        for (thread, progress) in self.program.threads.iter().zip(&mut after.threads) {
            if thread.host == host && matches!(progress, Progress::Running(_)) {
                *progress = Progress::Dead;
            }
        }
        Some(after)
    }
}

fn end_of(state: &State) -> End<'_> {
    let result = |progress: &Progress| match progress {
        Progress::Ended(result) => Some(*result),
        _ => None,
    };
    End { results: state.threads.iter().map(result).collect(), caches: &state.caches }
}
