//! The few calls to the operating system that the pool needs and the standard library lacks.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. Descriptors are borrowed from a live `File`.
//! 2. Out-parameters are plain C structs for which all zero is a valid value, alive for the call.
//! 3. What is mapped at a given address takes the place of a reservation of our own that nobody else knows of, and goes with it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

/// The smaller of x86-64's huge pages.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// What to ask of a byte-range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Held by any number at once.
    Shared,
    /// Held by one.
    Exclusive,
}

fn byte_lock(mode: LockMode, byte: i64) -> libc::flock {
    // SAFETY: invariant 2.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = match mode {
        LockMode::Shared => libc::F_RDLCK as i16,
        LockMode::Exclusive => libc::F_WRLCK as i16,
    };
    lock.l_whence = libc::SEEK_SET as i16;
    (lock.l_start, lock.l_len) = (byte, 1);
    lock
}

/// Tries to lock one byte with an open-file-description lock: the kernel gives it back when the last descriptor of
/// `file` closes, however the process ends. False: somebody else holds it.
pub fn try_lock(file: &File, mode: LockMode, byte: i64) -> io::Result<bool> {
    let lock = byte_lock(mode, byte);
    // SAFETY: invariants 1 and 2.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file holds a lock on the byte that would keep `mode` out.
pub fn is_locked(file: &File, mode: LockMode, byte: i64) -> io::Result<bool> {
    let mut lock = byte_lock(mode, byte);
    // SAFETY: invariants 1 and 2.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    if result == 0 { Ok(lock.l_type != libc::F_UNLCK as i16) } else { Err(io::Error::last_os_error()) }
}

/// Gives a lock back at once, whoever else still has the descriptor.
pub fn unlock(file: &File, byte: i64) -> io::Result<()> {
    let mut lock = byte_lock(LockMode::Shared, byte);
    lock.l_type = libc::F_UNLCK as i16;
    // SAFETY: invariants 1 and 2.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reserves the file's blocks, so that no store can hit a full file system later.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: invariant 1.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as i64) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Reserves the blocks of holes in a range and keeps what is there: other processes may be writing it. `posix_fallocate` would write to blocks
/// itself where the file system cannot do it.
pub fn allocate(file: &File, at: u64, bytes: u64) -> io::Result<()> {
    // SAFETY: invariant 1.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, at as i64, bytes as i64) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Most bytes a file of this process may have (`ulimit -f`); asking the kernel for more is answered by SIGXFSZ.
pub fn file_bytes_limit() -> io::Result<u64> {
    // SAFETY: invariant 2.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: invariant 2.
    match unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A mapping whose part from the second value on begins at a multiple of `alignment`, and shows the file from its start: the kernel maps huge
/// pages of a file only where file and address agree on them, and gives ordinary files no such address.
pub fn map_aligned(file: &File, bytes: usize, alignment: usize) -> io::Result<(MmapRaw, usize)> {
    let reserved: MmapRaw = MmapOptions::new().len(bytes + alignment).no_reserve_swap().map_anon()?.into();
    let start = reserved.as_ptr().align_offset(alignment);
    let address = reserved.as_mut_ptr().wrapping_add(start).cast();
    let (rights, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: invariants 1 and 3: `start` is below `alignment`, so address and length lie inside the reservation.
    match unsafe { libc::mmap(address, bytes, rights, how, file.as_raw_fd(), 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok((reserved, start)),
    }
}

/// Puts a range of a file on a huge page, and fills what is missing with zeros. What is in it stays.
pub fn collapse(map: &MmapRaw, at: usize, bytes: usize) -> io::Result<()> {
    assert!(at <= map.len() && bytes <= map.len() - at, "it lies in the mapping");
    // SAFETY: the range lies in the mapping; contents and rights of its memory stay what they are.
    match unsafe { libc::madvise(map.as_mut_ptr().wrapping_add(at).cast(), bytes, libc::MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Size of the huge pages that a file consists of; none, if it lies on no hugetlbfs.
pub fn huge_page_bytes(file: &File) -> io::Result<Option<u64>> {
    // SAFETY: invariant 2.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: invariants 1 and 2.
    match unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) } {
        0 => Ok((stat.f_type == libc::HUGETLBFS_MAGIC).then_some(stat.f_bsize as u64)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes free to this user on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: invariant 2.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: invariant 2; `name` is a C string alive for the call.
    match unsafe { libc::statvfs(name.as_ptr(), &mut stat) } {
        0 => Ok(stat.f_bavail * stat.f_frsize),
        _ => Err(io::Error::last_os_error()),
    }
}
