//! What the reader that is killed keeps: what it has read, in a file of its own, and how far it has read, in a durable named cursor
//! of the topic.
//!
//! Both are written after every poll: first the [`Ledger`], which stands for whatever an application makes of messages; then the
//! cursor, from which the next life goes on. A kill between the two leaves the cursor behind the ledger, never ahead of it: what
//! is delivered again is known by its order and left out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embarcadero::{ClientError, Cursor};
use verification::ledger::Ledger;

/// Name of the cursor. The topic is the run's own, and so is the cursor.
const CURSOR: &str = "loadgen-resume";
/// Longest wait for an answer about the cursor.
pub const CURSOR_TIMEOUT: Duration = Duration::from_secs(10);

/// The cursor of the reader that is killed, where it was committed last.
pub fn open_cursor(brokers: &[String], topic: &str) -> Result<Cursor, ClientError> {
    Cursor::open(brokers, topic, CURSOR, CURSOR_TIMEOUT)
}

/// The ledger in this folder; none before the first was written.
pub fn load_ledger(folder: &Path) -> io::Result<Option<Ledger>> {
    match fs::read(ledger_file(folder)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the ledger down, whole or not at all, whenever this process is killed. (Not if the machine is: nothing here outlives
/// that.)
pub fn store_ledger(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    let (file, partial) = (ledger_file(folder), folder.join("ledger.partial"));
    fs::write(&partial, serde_json::to_vec(ledger)?)?;
    fs::rename(&partial, file)
}

fn ledger_file(folder: &Path) -> PathBuf {
    folder.join("ledger")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_half_of_it_is_an_error() {
        let folder = std::env::temp_dir().join(format!("loadgen-position-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(load_ledger(&folder).unwrap(), None);
        store_ledger(&folder, &Ledger::new(123, 5)).unwrap();
        assert_eq!(load_ledger(&folder).unwrap(), Some(Ledger::new(123, 5)));
        let text = fs::read(ledger_file(&folder)).unwrap();
        fs::write(ledger_file(&folder), &text[..text.len() / 2]).unwrap();
        assert!(load_ledger(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
