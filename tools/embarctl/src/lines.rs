//! Lines of an input that may be endless, read ahead by a thread of its own in bounded blocks.
//!
//! The publisher must be driven while standard input is silent, and a terminal's line must go out when it is
//! complete, not when a buffer is full. So a thread reads what there is and hands over the complete lines.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes asked of the input at a time.
const READ_BYTES: usize = 256 << 10;
/// Blocks read ahead.
const BLOCKS_MAX: usize = 4;

/// Complete lines, without their newlines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
    /// Where each line ends in `bytes`.
    ends: Vec<usize>,
}

impl Block {
    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin..end])
    }

    fn push(&mut self, parts: [&[u8]; 2]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }
}

/// What the reading thread hands over. A channel that closes without `End` means that the thread died.
#[derive(Debug)]
pub enum Input {
    /// Some lines.
    Lines(Block),
    /// All lines have been handed over.
    End,
    /// The rest cannot be read.
    Failed(InputError),
}

/// Why an input could not be read to its end.
#[derive(Debug)]
pub enum InputError {
    /// It could not be read.
    Io(io::Error),
    /// This line (from 1) is longer than asked for.
    LineTooLong(u64),
}

/// Splits what was read into lines; keeps the beginning of the one that is not complete.
struct Splitter {
    begun: Vec<u8>,
    line_bytes_max: u64,
    lines: u64,
}

impl Splitter {
    fn take(&mut self, mut read: &[u8]) -> Result<Block, InputError> {
        let mut block = Block::default();
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            self.check(self.begun.len() + end)?;
            block.push([&self.begun, &read[..end]]);
            self.begun.clear();
            self.lines += 1;
            read = &read[end + 1..];
        }
        self.check(self.begun.len() + read.len())?;
        self.begun.extend_from_slice(read);
        Ok(block)
    }

    /// The last line, if it did not end in a newline.
    fn finish(&mut self) -> Block {
        let mut block = Block::default();
        if !self.begun.is_empty() {
            block.push([&self.begun, &[]]);
        }
        block
    }

    fn check(&self, bytes: usize) -> Result<(), InputError> {
        if bytes as u64 > self.line_bytes_max {
            return Err(InputError::LineTooLong(self.lines + 1));
        }
        Ok(())
    }
}

/// Reads `input` ahead. The thread ends with the input or the channel, or with the process if the input is
/// silent then.
pub fn read_ahead(input: Box<dyn Read + Send>, line_bytes_max: u64) -> Receiver<Input> {
    let (sender, receiver) = sync_channel(BLOCKS_MAX);
    thread::spawn(move || {
        let last = match read(input, line_bytes_max, &sender) {
            Ok(()) => Input::End,
            Err(error) => Input::Failed(error),
        };
        // The other side may have given up already; then nobody wants to know.
        let _ = sender.send(last);
    });
    receiver
}

fn read(mut input: Box<dyn Read + Send>, line_bytes_max: u64, sender: &SyncSender<Input>) -> Result<(), InputError> {
    let mut splitter = Splitter { begun: Vec::new(), line_bytes_max, lines: 0 };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = match input.read(&mut buffer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(InputError::Io(error)),
        };
        let block = if bytes == 0 { splitter.finish() } else { splitter.take(&buffer[..bytes])? };
        let wanted = block.ends.is_empty() || sender.send(Input::Lines(block)).is_ok();
        if bytes == 0 || !wanted {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &'static [u8], max: u64) -> Result<Vec<Vec<u8>>, InputError> {
        let mut lines = Vec::new();
        for input in read_ahead(Box::new(input), max) {
            match input {
                Input::Lines(block) => lines.extend(block.lines().map(<[u8]>::to_vec)),
                Input::End => return Ok(lines),
                Input::Failed(error) => return Err(error),
            }
        }
        panic!("the thread ended without a last word");
    }

    #[test]
    fn lines_come_without_newlines() {
        assert_eq!(lines_of(b"", 9).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(lines_of(b"a\n\nbc\n", 9).unwrap(), [&b"a"[..], b"", b"bc"]);
        assert_eq!(lines_of(b"a\nlast", 9).unwrap(), [&b"a"[..], b"last"]);
    }

    #[test]
    fn lines_are_whole_wherever_reads_end() {
        let text = b"one\n\ntwo and more\n3\n";
        for cut in 0..=text.len() {
            let mut splitter = Splitter { begun: Vec::new(), line_bytes_max: 100, lines: 0 };
            let first = splitter.take(&text[..cut]).unwrap();
            let second = splitter.take(&text[cut..]).unwrap();
            let lines: Vec<_> = first.lines().chain(second.lines()).collect();
            assert_eq!(lines, [&b"one"[..], b"", b"two and more", b"3"], "cut at {cut}");
            assert!(splitter.finish().ends.is_empty());
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        assert!(matches!(lines_of(b"ok\n123456", 5), Err(InputError::LineTooLong(2))));
        assert!(matches!(lines_of(b"123456\n", 5), Err(InputError::LineTooLong(1))));
        assert!(lines_of(b"12345\n", 5).is_ok());
    }
}
