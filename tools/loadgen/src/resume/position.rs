//! Where the reader that is killed keeps how far it has read, and what it had read by then.
//!
//! Two things are written after every poll: first the [`Ledger`], which is the reader's own and stands for whatever an
//! application makes of messages; then the position, from which the next life asks the broker to go on. A kill between the two
//! leaves the position behind the ledger, never ahead of it: what is delivered again is known by its order.
//!
//! The position is a file here. [`Position`] is the one place that knows: a durable named cursor takes the place of its two
//! methods (`SubscriberOptions::cursor` for `ask`, `Subscriber::commit` for `commit`), and nothing else changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use embarcadero::client::{Start, Subscriber, SubscriberOptions};

use super::ledger::Ledger;

/// How far a reader has read, as far as the broker is concerned.
pub struct Position {
    file: PathBuf,
}

impl Position {
    /// Kept in this folder.
    pub fn new(folder: &Path) -> Position {
        Position { file: folder.join("position") }
    }

    /// Asks to go on where it was committed, or from the earliest message if it never was.
    pub fn ask(&self, options: &mut SubscriberOptions) -> io::Result<()> {
        options.start = match fs::read_to_string(&self.file) {
            Ok(text) => Start::Order(text.trim().parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a position", self.file.display()))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Start::Earliest,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Everything below `order` has been read.
    pub fn commit(&mut self, _subscriber: &mut Subscriber, order: u64) -> io::Result<()> {
        write(&self.file, order.to_string().as_bytes())
    }
}

/// The ledger in this folder; none before the first was written.
pub fn load_ledger(folder: &Path) -> io::Result<Option<Ledger>> {
    match fs::read(ledger_file(folder)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the ledger down.
pub fn store_ledger(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    write(&ledger_file(folder), &serde_json::to_vec(ledger)?)
}

fn ledger_file(folder: &Path) -> PathBuf {
    folder.join("ledger")
}

/// Whole or not at all, whenever this process is killed. (Not if the machine is: nothing here outlives that.)
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = file.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_before_that() {
        let folder = std::env::temp_dir().join(format!("loadgen-position-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (position, mut options) = (Position::new(&folder), SubscriberOptions::default());
        position.ask(&mut options).unwrap();
        assert_eq!((options.start, load_ledger(&folder).unwrap()), (Start::Earliest, None));
        write(&position.file, b"123").unwrap();
        store_ledger(&folder, &Ledger::new(123, 5)).unwrap();
        position.ask(&mut options).unwrap();
        assert_eq!(options.start, Start::Order(123));
        assert_eq!(load_ledger(&folder).unwrap(), Some(Ledger::new(123, 5)));
        write(&position.file, b"12x").unwrap();
        assert!(position.ask(&mut options).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
