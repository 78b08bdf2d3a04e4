//! The few calls to the operating system that a process needs for itself and the standard library lacks.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. Out-parameters are plain C structs for which all zero is a valid value, alive for the call.
//! 2. A handler of a fault only looks at atomics, stores words to the pool, writes from its own stack with `write`, and ends the process with
//!    `_exit` or leaves it to the default action: nothing in it allocates, locks or unwinds.
//! 3. A buffer outlives the call that reads it.
//! 4. The pool stays mapped until the process ends, once it is watched: what was watched can be read, or raises a signal that is handled.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// A limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors (`ulimit -n`).
    Descriptors,
    /// Bytes of locked memory (`ulimit -l`), of all processes of the user.
    LockedMemory,
}

impl Resource {
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Resource::Descriptors => libc::RLIMIT_NOFILE,
            Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }
}

/// What the system's monotonic clock says, ns.
#[inline]
pub(super) fn since_boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: invariant 1. Every Linux has this clock: the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The system runs others before this thread, if they want to run: its niceness is `niceness` from now on.
pub(super) fn set_niceness(niceness: i32) -> io::Result<()> {
    // SAFETY: no memory is involved. 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The limit in effect and the highest it may be raised to; `u64::MAX` is none.
pub fn limit(resource: Resource) -> io::Result<(u64, u64)> {
    // SAFETY: invariant 1.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: invariant 1.
    match unsafe { libc::getrlimit(resource.number(), &mut limit) } {
        0 => Ok((limit.rlim_cur, limit.rlim_max)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit in effect to the highest there is; gives that.
pub fn raise(resource: Resource) -> io::Result<u64> {
    let (soft, hard) = limit(resource)?;
    if soft < hard {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: invariant 1.
        if unsafe { libc::setrlimit(resource.number(), &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(hard)
}

/// Whether files of the file system at `path` lie in memory: tmpfs, hugetlbfs.
pub(super) fn is_in_memory(path: &std::path::Path) -> io::Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: invariant 1.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: invariants 1 and 3.
    match unsafe { libc::statfs(name.as_ptr(), &mut stat) } {
        0 => Ok(matches!(stat.f_type, libc::TMPFS_MAGIC | libc::HUGETLBFS_MAGIC)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From now on the `fault` module tells of bus errors in the pool. Others end the process as if nothing had been installed.
pub(super) fn on_bus_error() -> io::Result<()> {
    // SAFETY: invariant 1.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    // On the thread's signal stack, which the standard library gives to each.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: invariants 1 and 2.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a siginfo to a handler with SA_SIGINFO; a bus error's has an address and a code.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    if super::fault::told(address, code) {
        // SAFETY: invariant 2.
        unsafe { libc::_exit(super::fault::EXIT_CODE.into()) };
    }
    // Not the pool's. The instruction runs again and meets the default action.
    // SAFETY: invariant 2.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// Reads a byte of each line of what is watched, which may not be there: the handler of that signal does not return.
pub(super) fn read_all(address: usize, bytes: usize) {
    for at in (address..address + bytes).step_by(64) {
        // SAFETY: invariant 4. A value that somebody else changes meanwhile is not used.
        unsafe { std::ptr::read_volatile(at as *const u8) };
    }
}

/// Whether the hardware reported the memory itself, not the mapping of it.
pub(super) fn is_hardware(code: i32) -> bool {
    matches!(code, libc::BUS_MCEERR_AR | libc::BUS_MCEERR_AO)
}

/// Writes to a descriptor if that does not have to wait, from wherever: a pipe that nobody reads is left alone.
pub(super) fn write_at_once(descriptor: RawFd, bytes: &[u8]) {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    // SAFETY: invariants 1 and 3. A pipe that can be written takes a line (PIPE_BUF) without waiting.
    unsafe {
        if libc::poll(&mut poll, 1, 100) == 1 {
            libc::write(descriptor, bytes.as_ptr().cast(), bytes.len());
        }
    }
}
