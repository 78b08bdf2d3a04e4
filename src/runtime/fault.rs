//! Faults of the pool's memory: its file was cut short under this process, or the memory itself failed. There is no way on: what
//! is told is where, and the process ends.
//!
//! A load or store meets SIGBUS; the kernel, on our behalf, EFAULT or EHWPOISON ([`end`]).

use std::fmt::{self, Write};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::runtime::{logging, os};

/// Code of a process that ended since its pool was lost: unlinked, replaced, cut short, or its memory failed.
pub const EXIT_CODE: u8 = 3;

/// Longest path in a record; a longer one is cut.
const PATH_BYTES_MAX: usize = 256;

struct Watched {
    from: usize,
    bytes: usize,
    path: [u8; PATH_BYTES_MAX],
    path_bytes: usize,
}

static WATCHED: OnceLock<Watched> = OnceLock::new();

/// Keeps a place, an offset in the pool, for those who come after. It runs in the handler of a signal: it takes no lock and no memory.
type Note = Box<dyn Fn(u64) + Send + Sync>;

static NOTE: OnceLock<Note> = OnceLock::new();

/// From now on a bus error in the pool, mapped at `address` with `bytes`, is told with its place, and ends the process with
/// [`EXIT_CODE`]. Of one pool; for the process that has it, so never called by a library.
///
/// # Errors
/// The kernel's, if it takes no handler.
pub fn watch(path: &Path, address: *const u8, bytes: u64) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = path.as_os_str().as_bytes();
    let path_bytes = name.len().min(PATH_BYTES_MAX);
    let mut path = [0; PATH_BYTES_MAX];
    path[..path_bytes].copy_from_slice(&name[..path_bytes]);
    let _ = WATCHED.set(Watched { from: address as usize, bytes: bytes as usize, path, path_bytes });
    os::on_bus_error()
}

/// From now on places that the hardware reports are noted before the process ends.
pub fn note_with(note: Note) {
    let _ = NOTE.set(note);
}

/// In the handler: writes the record if the address is the pool's.
pub(super) fn told(address: usize, code: i32) -> bool {
    let Some(watched) = WATCHED.get() else { return false };
    let offset = address.wrapping_sub(watched.from);
    if offset >= watched.bytes {
        return false;
    }
    let mut line = Line { bytes: [0; 1024], used: 0 };
    let is_hardware = os::is_hardware(code);
    if let Some(note) = NOTE.get().filter(|_| is_hardware) {
        note(offset as u64);
    }
    let why = match is_hardware {
        true => "the hardware reports that this memory failed",
        false => "its file was cut short, or its file system could not give the memory",
    };
    let path = std::str::from_utf8(&watched.path[..watched.path_bytes]).unwrap_or("(not UTF-8)");
    let _ = writeln!(
        line,
        "embarlet: FAULT: SIGBUS (code {code}) at address {address:#x}, offset {offset} of pool {path}: {why}; this process ends with code {EXIT_CODE}"
    );
    os::write_at_once(libc::STDERR_FILENO, &line.bytes[..line.used]);
    true
}

/// Text on the stack; what does not fit is left out.
struct Line {
    bytes: [u8; 1024],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.used;
        let taken = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.used..self.used + taken.len()].copy_from_slice(taken);
        self.used += taken.len();
        Ok(())
    }
}

/// Whether an errno of an operation on pool memory says that the memory is not there: EFAULT, EHWPOISON.
pub fn is_memory_fault(errno: i32) -> bool {
    matches!(errno, libc::EFAULT | libc::EHWPOISON)
}

/// The kernel met a fault in one of these ranges of the pool (offset, bytes), in an operation of ours that failed with `errno`: tells of it and
/// ends the process with [`EXIT_CODE`]. `what` names the operation. Which byte it was the kernel does not say: all are read, and the one that is not
/// there is met by the handler.
pub fn end(what: &str, ranges: &[(u64, u64)], errno: i32) -> ! {
    let error = io::Error::from_raw_os_error(errno);
    let (at, bytes) = (ranges.first().map_or(0, |(at, _)| *at), ranges.iter().map(|(_, bytes)| bytes).sum::<u64>());
    log::error!(
        "FAULT: {what}: the kernel cannot use {bytes} bytes, in {} ranges of the pool, the first at offset {at} ({error}): its file was cut short, or its memory failed; this process ends with code {EXIT_CODE}",
        ranges.len()
    );
    logging::flush(Duration::from_secs(1));
    if let Some(watched) = WATCHED.get() {
        let is_inside = |(at, bytes): &&(u64, u64)| at + bytes <= watched.bytes as u64;
        ranges
            .iter()
            .filter(is_inside)
            .for_each(|(at, bytes)| os::read_all(watched.from + *at as usize, *bytes as usize));
    }
    std::process::exit(EXIT_CODE.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// What a file that was cut short does is no fault of the memory.
    #[test]
    fn what_the_hardware_reports_is_noted() {
        static NOTED: AtomicU64 = AtomicU64::new(u64::MAX);
        let pool = [0_u8; 4096];
        watch(Path::new("/pool"), pool.as_ptr(), 4096).unwrap();
        note_with(Box::new(|offset| NOTED.store(offset, Ordering::Relaxed)));
        let at = pool.as_ptr() as usize;
        assert!(told(at + 100, libc::BUS_ADRERR) && NOTED.load(Ordering::Relaxed) == u64::MAX);
        assert!(told(at + 100, libc::BUS_MCEERR_AR) && NOTED.load(Ordering::Relaxed) == 100);
        assert!(told(at + 200, libc::BUS_MCEERR_AO) && NOTED.load(Ordering::Relaxed) == 200);
        assert!(!told(at + 4096, libc::BUS_MCEERR_AR), "not the pool's");
    }

    #[test]
    fn a_record_that_is_too_long_is_cut() {
        let mut line = Line { bytes: [0; 1024], used: 0 };
        write!(line, "{}", "x".repeat(2000)).unwrap();
        assert_eq!(line.used, 1024);
        assert!(is_memory_fault(libc::EFAULT) && is_memory_fault(libc::EHWPOISON) && !is_memory_fault(libc::EPIPE));
    }
}
