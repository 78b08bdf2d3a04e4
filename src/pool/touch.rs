//! Memory made ready ahead of its use: piece by piece, by as many threads as there are processors, while somebody is told how far it is.

use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// More threads than this only wait for each other: the kernel zeroes as fast as memory takes it.
const THREADS_MAX: usize = 16;
/// How often is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// What is done to the memory.
    pub what: &'static str,
    /// Bytes that are ready.
    pub done: u64,
    /// Of so many.
    pub all: u64,
    /// How often that was told before: five times a second.
    pub told: u64,
}

/// Who is told. Never for what takes less than a moment.
pub type Told = fn(Touched);

/// Does `touch` (where, how many bytes) to every piece of `range`. The first error ends it.
pub(super) fn by_pieces(
    what: &'static str,
    range: Range<u64>,
    piece_bytes: u64,
    tell: Told,
    touch: impl Fn(u64, u64) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let all = range.end - range.start;
    let pieces = all.div_ceil(piece_bytes);
    let (next, done, is_over, failed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Ok(())));
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            let at = range.start + piece * piece_bytes;
            let bytes = piece_bytes.min(range.end - at);
            if let Err(error) = touch(at, bytes) {
                is_over.store(true, Ordering::Relaxed);
                *failed.lock().expect("nobody panics with it") = Err(error);
            }
            done.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(THREADS_MAX).min(pieces as usize);
    thread::scope(|scope| {
        let (working, ended) = channel::<()>();
        for _ in 0..threads {
            let working = working.clone();
            scope.spawn(|| {
                work();
                drop(working);
            });
        }
        drop(working);
        let mut told = 0;
        while ended.recv_timeout(TELL_EVERY) == Err(RecvTimeoutError::Timeout) {
            tell(Touched { what, done: done.load(Ordering::Relaxed), all, told });
            told += 1;
        }
        if told > 0 {
            tell(Touched { what, done: all, all, told });
        }
    });
    failed.into_inner().expect("nobody panics with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_touched_once() {
        let touched = Mutex::new(Vec::new());
        by_pieces(
            "test",
            10..1000,
            64,
            |_| (),
            |at, bytes| {
                touched.lock().unwrap().push(at..at + bytes);
                Ok(())
            },
        )
        .unwrap();
        let mut touched = touched.into_inner().unwrap();
        touched.sort_by_key(|range| range.start);
        assert_eq!((touched[0].start, touched.last().unwrap().end), (10, 1000));
        assert!(touched.windows(2).all(|pair| pair[0].end == pair[1].start));
        by_pieces("test", 10..10, 64, |_| (), |_, _| unreachable!("there is nothing")).unwrap();
    }

    #[test]
    fn the_first_error_ends_it() {
        let calls = AtomicU64::new(0);
        let failed = by_pieces(
            "test",
            0..1 << 40,
            1,
            |_| (),
            |_, _| {
                calls.fetch_add(1, Ordering::Relaxed);
                Err(io::ErrorKind::OutOfMemory.into())
            },
        );
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert!(calls.into_inner() <= THREADS_MAX as u64);
    }

    #[test]
    fn what_takes_longer_is_told() {
        static TOLD: Mutex<Vec<Touched>> = Mutex::new(Vec::new());
        let tell = |touched| TOLD.lock().unwrap().push(touched);
        by_pieces("test", 0..2, 1, tell, |_, _| {
            thread::sleep(TELL_EVERY * 2);
            Ok(())
        })
        .unwrap();
        let told = TOLD.lock().unwrap();
        let last = told.last().unwrap();
        assert!(told.len() > 1 && (last.what, last.done, last.all) == ("test", 2, 2), "{told:?}");
    }
}
