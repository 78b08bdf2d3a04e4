//! Where bytes land: as a rule in one buffer for all connections of a core, so that it stays in the nearest caches. There they are checked
//! before they go to the pool.
//!
//! Between two receives a stream keeps what is left of a line. One that has to wait for a place keeps the buffer, and the core lands in
//! another. There are only so many: from the last one on no more is received than there is a place for, so that it is free again at once.

use crate::limits::LINE_BYTES;

/// What has come of a stream and is not taken in.
#[derive(Debug)]
pub enum Rest {
    /// Less than a line, and how much.
    Line([u8; LINE_BYTES as usize], u8),
    /// What lies in a landing buffer from here to there.
    Buffer(Box<[u8]>, usize, usize),
}

impl Default for Rest {
    fn default() -> Rest {
        Rest::Line([0; LINE_BYTES as usize], 0)
    }
}

impl Rest {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Rest::Line(_, 0))
    }
}

/// The landing buffers of a core that no stream keeps; at least one.
#[derive(Debug)]
pub struct Landing {
    free: Vec<Box<[u8]>>,
}

impl Landing {
    /// So many buffers of so many bytes. Those that nobody ever waited with are never touched.
    pub fn new(buffers: u32, bytes: u64) -> Landing {
        assert!(buffers >= 1 && bytes >= LINE_BYTES, "something can be received");
        Landing { free: (0..buffers).map(|_| vec![0; bytes as usize].into()).collect() }
    }

    /// Whether there is but one: what lands there must be taken in.
    pub fn is_scarce(&self) -> bool {
        self.free.len() == 1
    }

    /// A buffer with what is left of a line in front, and how much that is; the one that was used last.
    pub fn take(&mut self, rest: &mut Rest) -> (Box<[u8]>, usize) {
        let Rest::Line(line, left) = std::mem::take(rest) else {
            unreachable!("nothing is received while something waits")
        };
        let mut buffer = self.free.pop().expect("the last one is never kept");
        buffer[..line.len()].copy_from_slice(&line);
        (buffer, left.into())
    }

    /// What lies in a buffer from here to there is not taken in.
    pub fn leave(&mut self, buffer: Box<[u8]>, from: usize, to: usize) -> Rest {
        if to - from >= LINE_BYTES as usize {
            return Rest::Buffer(buffer, from, to);
        }
        let mut line = [0; LINE_BYTES as usize];
        line[..to - from].copy_from_slice(&buffer[from..to]);
        self.give_back(buffer);
        Rest::Line(line, (to - from) as u8)
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, buffer: Box<[u8]>) {
        self.free.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_lies_in_front_of_what_comes() {
        let mut landing = Landing::new(3, 320);
        let mut rest = Rest::default();
        let (mut buffer, left) = landing.take(&mut rest);
        assert_eq!((buffer.len(), left), (320, 0));
        buffer[..100].fill(7);
        let first = buffer.as_ptr();
        rest = landing.leave(buffer, 64, 100);
        assert!(matches!(rest, Rest::Line(_, 36)) && !rest.is_empty());
        let (buffer, left) = landing.take(&mut rest);
        assert_eq!((left, &buffer[..36], buffer.as_ptr()), (36, &[7; 36][..], first), "the one used last");
        assert!(rest.is_empty());
        // One that waits keeps its buffer.
        let waits = landing.leave(buffer, 0, 64);
        assert!(matches!(waits, Rest::Buffer(_, 0, 64)));
        let (other, _) = landing.take(&mut rest);
        assert!(other.as_ptr() != first && landing.is_scarce());
        landing.give_back(other);
        assert!(!landing.is_scarce());
    }
}
