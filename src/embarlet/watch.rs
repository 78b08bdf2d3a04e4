//! Housekeeping of a process: a thread that looks once a second whether its pool is still what it was, and after what dead members of its host have
//! there; and says how the process does: in the pool, and to a service manager.
//!
//! Roles do not look: it costs system calls, and time. Whoever loses its pool goes on with memory that nobody else will ever see, beside
//! processes that began a new log at the same path; so it is told, and the process ends.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::embarlet::account::Account;
use crate::embarlet::notify::Told;
use crate::embarlet::reload::Reload;
use crate::pool::region::Lost;
use crate::pool::{Memory, Pool};
use crate::roles::caretaker::Caretaker;
use crate::runtime::Shutdown;

/// How often it looks; more often if a service manager wants to hear of it more often.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be looked after.
pub(super) struct Chores<M: Memory> {
    pub pool: Pool,
    pub shutdown: Arc<Shutdown>,
    pub caretaker: Caretaker<M>,
    pub account: Account<M>,
    pub reload: Option<Reload>,
    pub told: Told,
}

impl<M: Memory> Chores<M> {
    /// Looks after everything once. Gives what became of the pool, if it was lost.
    fn look(&mut self) -> Option<Lost> {
        self.told.look(self.shutdown.is_requested());
        if let Err(lost) = self.pool.check() {
            log::error!("FAULT: pool {} is lost to this process: {lost}; it ends", self.pool.path().display());
            self.shutdown.request();
            return Some(lost);
        }
        self.reload.iter_mut().for_each(Reload::look);
        let given = self.caretaker.look(&self.pool);
        if given > 0 {
            log::info!("{given} extents of members of this host that are gone go back to the pool's stock");
        }
        self.account.write();
        None
    }

    /// The process ends. Into a pool that is lost nothing is written any more.
    fn end(&mut self, lost: Option<&Lost>) {
        self.told.stopping();
        if lost.is_none() {
            self.account.write();
        }
    }
}

/// The thread, until it is stopped.
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Option<Lost>>>,
}

impl Watch {
    /// Begins to look. The process is asked to end when the pool is lost.
    pub(super) fn start<M: Memory>(mut chores: Chores<M>) -> std::io::Result<Watch> {
        let (stop, stopped) = channel();
        let look = move || {
            chores.account.write();
            let mut lost = None;
            while lost.is_none() && stopped.recv_timeout(chores.told.look_every()) == Err(RecvTimeoutError::Timeout) {
                lost = chores.look();
            }
            chores.end(lost.as_ref());
            lost
        };
        let thread = std::thread::Builder::new().name("housekeeping".into()).spawn(look)?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends it; says what became of the pool, if it was lost.
    pub(super) fn stop(&mut self) -> Option<Lost> {
        drop(self.stop.take());
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}
