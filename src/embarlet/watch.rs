//! Housekeeping of a process: a thread that looks once a second whether its pool is still what it was, and after what dead members of its host have there.
//! A service manager hears from it how the process does.
//!
//! Roles do not look: it costs system calls, and time. Whoever loses its pool goes on with memory that nobody else will ever see, beside
//! processes that began a new log at the same path; so it is told, and the process ends.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::embarlet::notify::Told;
use crate::pool::region::Lost;
use crate::pool::{Memory, Pool};
use crate::roles::caretaker::Caretaker;
use crate::runtime::Shutdown;

/// How often it looks; more often if a service manager wants to hear of it more often.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread, until it is stopped.
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Option<Lost>>>,
}

impl Watch {
    /// Begins to look. The process is asked to end when the pool is lost.
    pub(super) fn start<M: Memory + Send + 'static>(
        pool: Pool,
        shutdown: Arc<Shutdown>,
        mut caretaker: Caretaker<M>,
        mut told: Told,
    ) -> std::io::Result<Watch> {
        let (stop, stopped) = channel();
        let look = move || {
            while stopped.recv_timeout(told.look_every()) == Err(RecvTimeoutError::Timeout) {
                told.look(shutdown.is_requested());
                if let Err(lost) = pool.check() {
                    log::error!("FAULT: pool {} is lost to this process: {lost}; it ends", pool.path().display());
                    shutdown.request();
                    told.stopping();
                    return Some(lost);
                }
                let given = caretaker.look(&pool);
                if given > 0 {
                    log::info!("{given} extents of members of this host that are gone go back to the pool's stock");
                }
            }
            told.stopping();
            None
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
