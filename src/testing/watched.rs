//! A memory that lets a test act between any two operations of the code under test: look at the pool from another
//! host, change it, or end the process there and then.
//!
//! With it "never at any moment" is tested as such: every state that another host can see is looked at, not only those
//! between two calls.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use crate::pool::{Keep, Memory, WordByWord};

type Act = Box<dyn FnMut() + Send>;

/// A host's memory with an act before each operation.
#[derive(Clone)]
pub struct Watched<M> {
    inner: M,
    act: Arc<Mutex<Option<Act>>>,
}

/// What a process that ends in the middle of something unwinds with.
struct Killed;

impl<M: Memory> Watched<M> {
    /// Over another memory; nothing happens until [`Self::on_each`].
    pub fn new(inner: M) -> Self {
        Watched { inner, act: Arc::new(Mutex::new(None)) }
    }

    /// From now on `act` runs before each operation. It must not use this memory itself.
    pub fn on_each(&self, act: impl FnMut() + Send + 'static) {
        self.set(Some(Box::new(act)));
    }

    /// From now on nothing happens.
    pub fn stop(&self) {
        self.set(None);
    }

    /// Runs `act` once, before operation `number` from now on, counted from 0.
    pub fn at(&self, number: u64, act: impl FnOnce() + Send + 'static) {
        let (mut left, mut act) = (number, Some(act));
        self.on_each(move || match left {
            0 => {
                if let Some(act) = act.take() {
                    act();
                }
            }
            _ => left -= 1,
        });
    }

    /// Runs `work` as a process that is killed before its operation `number`. `None`: it was killed.
    pub fn killed_at<R>(&self, number: u64, work: impl FnOnce() -> R) -> Option<R> {
        self.at(number, || resume_unwind(Box::new(Killed)));
        let result = catch_unwind(AssertUnwindSafe(work));
        self.stop();
        match result {
            Ok(result) => Some(result),
            Err(cause) if cause.is::<Killed>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }

    fn set(&self, act: Option<Act>) {
        *self.act.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = act;
    }

    fn step(&self) {
        // A process that was killed poisons the lock; what it left is what others go on with.
        if let Some(act) = self.act.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_mut() {
            act();
        }
    }
}

impl<M: Memory> Memory for Watched<M> {
    const SOFTWARE: bool = M::SOFTWARE;
    type Line<'a> = WordByWord<'a, Self>;

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
    fn line(&self, at: u64) -> WordByWord<'_, Self> {
        WordByWord(self, at)
    }
    fn store(&self, at: u64, word: u64) {
        self.step();
        self.inner.store(at, word);
    }
    fn load(&self, at: u64) -> u64 {
        self.step();
        self.inner.load(at)
    }
    fn flush_line(&self, at: u64, keep: Keep) {
        self.step();
        self.inner.flush_line(at, keep);
    }
    fn store_fence(&self) {
        self.step();
        self.inner.store_fence();
    }
    fn full_fence(&self) {
        self.step();
        self.inner.full_fence();
    }
    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        self.step();
        self.inner.with_bytes(at, bytes, read)
    }
    fn copy_in(&self, at: u64, bytes: &[u8]) {
        self.step();
        self.inner.copy_in(at, bytes);
    }
    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        self.step();
        self.inner.copy_within(from, to, bytes);
    }
}
