//! The user who wants a program to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a program exits with that a signal ended.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What a second signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// It ends the process at once.
    Ends,
    /// Nothing: what the process started has to be taken away first.
    IsIgnored,
}

/// A flag that the first SIGINT or SIGTERM raises, so that a run can say what it reached.
///
/// # Errors
/// If no handler can be installed.
pub fn flag(second: Second) -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if second == Second::Ends {
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED.into(), Arc::clone(&interrupted))?;
        }
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
