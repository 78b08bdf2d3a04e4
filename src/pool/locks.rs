//! Locks of this host: who may write which lines of a pool, and who uses it.
//!
//! Open-file-description locks on bytes far behind the pool's data: each is held by a close-on-exec descriptor of its own, the
//! kernel releases it however the process ends, and nothing is left behind. They belong to the file that was opened: if another
//! one lies at the path by now, its locks say nothing about this pool, and none is taken there.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pool::error::PoolError;
use crate::pool::os::{self, LockMode};

/// What may be locked on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockName {
    /// Deciding about the pool's format.
    Format,
    /// Using the pool; shared.
    Use,
    /// Being a broker and the one writer of its lanes.
    Broker(u32),
    /// Having an attached place, as that member, and being the one writer of its lines.
    Attached(u32),
    /// Being a sequencer candidate.
    Candidate(u32),
}

impl LockName {
    fn byte(self) -> i64 {
        const BASE: i64 = 1 << 62;
        BASE + match self {
            LockName::Format => 0,
            LockName::Use => 1,
            LockName::Candidate(slot) => 16 + i64::from(slot),
            // Members are numbered behind the brokers.
            LockName::Broker(member) | LockName::Attached(member) => 1024 + i64::from(member),
        }
    }
}

impl std::fmt::Display for LockName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockName::Format => write!(out, "its format lock"),
            LockName::Use => write!(out, "it"),
            LockName::Broker(id) => write!(out, "its broker {id}"),
            LockName::Attached(member) => write!(out, "its attached place {member}"),
            LockName::Candidate(slot) => write!(out, "its sequencer candidate {slot}"),
        }
    }
}

/// A lock held until dropped, or until the process ends.
#[derive(Debug)]
pub struct HostLock {
    file: File,
    byte: i64,
    /// Where it is noted that this process has it.
    held: Held,
}

/// The locks that were taken through one opening of a pool and are held: the kernel says whether a lock is held, and not by which process.
type Held = Arc<Mutex<Vec<i64>>>;

/// What was noted; who panicked meanwhile left a list behind that is whole.
fn noted(held: &Held) -> MutexGuard<'_, Vec<i64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for HostLock {
    fn drop(&mut self) {
        let mut held = noted(&self.held);
        if let Some(place) = held.iter().position(|byte| *byte == self.byte) {
            held.swap_remove(place);
        }
        // Closing is not enough: a process being started has a copy of the descriptor until it executes its program.
        let _ = os::unlock(&self.file, self.byte);
    }
}

/// The file or device that was opened as a pool.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    path: PathBuf,
    file: Arc<File>,
    writable: bool,
    identity: (u64, u64),
    was_linked: bool,
    held: Held,
}

impl Opened {
    pub(super) fn new(path: &Path, file: File, writable: bool) -> Result<Opened, PoolError> {
        let meta = file.metadata().map_err(os_error(path, "stat it"))?;
        let (identity, was_linked) = ((meta.dev(), meta.ino()), meta.nlink() > 0);
        Ok(Opened { path: path.into(), file: Arc::new(file), writable, identity, was_linked, held: Held::default() })
    }

    /// Whether it had a name when it was opened; memory files have none (`memfd_create`, `/proc/PID/fd/N`).
    pub(super) fn was_linked(&self) -> bool {
        self.was_linked
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was opened to be written.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether it still lies at its path. What cannot be asked just now is taken to be so: it ends a process if not.
    pub(super) fn is_in_place(&self) -> bool {
        match std::fs::metadata(&self.path) {
            Ok(meta) => (meta.dev(), meta.ino()) == self.identity,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Takes a lock if nobody has it. It has a descriptor of its own: it goes with that.
    pub(super) fn try_lock(&self, name: LockName, mode: LockMode) -> Result<Option<HostLock>, PoolError> {
        let file = OpenOptions::new().read(true).write(self.writable).open(&self.path);
        let file = match file {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(PoolError::Replaced { path: self.path.clone() });
            }
            file => file.map_err(os_error(&self.path, "open it to lock it"))?,
        };
        let meta = file.metadata().map_err(os_error(&self.path, "stat it"))?;
        if (meta.dev(), meta.ino()) != self.identity {
            return Err(PoolError::Replaced { path: self.path.clone() });
        }
        let locked = os::try_lock(&file, mode, name.byte()).map_err(os_error(&self.path, "lock it"))?;
        Ok(locked.then(|| {
            noted(&self.held).push(name.byte());
            HostLock { file, byte: name.byte(), held: Arc::clone(&self.held) }
        }))
    }

    /// Whether a lock was taken through this opening, and is held.
    pub(super) fn holds(&self, name: LockName) -> bool {
        noted(&self.held).contains(&name.byte())
    }

    /// Takes a lock that somebody may have for so long at most.
    pub(super) fn wait_lock(&self, name: LockName, most: Duration) -> Result<HostLock, PoolError> {
        let deadline = Instant::now() + most;
        loop {
            if let Some(lock) = self.try_lock(name, LockMode::Exclusive)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(PoolError::InUse { path: self.path.clone(), what: name.to_string() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether a process of this host holds a lock. The descriptor holds none itself, so it sees those of this process too.
    pub(super) fn is_locked(&self, name: LockName) -> Result<bool, PoolError> {
        os::is_locked(&self.file, LockMode::Shared, name.byte()).map_err(os_error(&self.path, "look at a lock"))
    }
}

impl HostLock {
    /// What a process that is being started has for a moment.
    #[cfg(test)]
    pub(super) fn copied_descriptor(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// Makes a shared lock an exclusive one, if nobody else has a share.
    pub(super) fn try_alone(&self) -> bool {
        os::try_lock(&self.file, LockMode::Exclusive, self.byte).unwrap_or(false)
    }
}

/// Anything the operating system says about `path`.
pub(super) fn os_error(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> PoolError {
    move |source| PoolError::Os { path: path.into(), doing, source }
}
