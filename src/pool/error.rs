//! What cannot be done with a pool, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::CoherenceMode;
use crate::pool::layout::LayoutError;
use crate::pool::superblock::SuperblockError;

/// What cannot be done with a pool, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is none.
    #[error(
        "pool {path}: there is none; create it with `embarlet --config FILE --format`, or set pool.create: if_missing"
    )]
    Missing {
        /// Its path.
        path: PathBuf,
    },
    /// The superblock says it is not ours.
    #[error("pool {path}: {source}")]
    Superblock {
        /// Its path.
        path: PathBuf,
        /// What was found.
        source: SuperblockError,
    },
    /// Laid out by another configuration.
    #[error(
        "pool {path}: it was formatted with {name} = {found}, the configuration says {expected}; make them agree, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Differs {
        /// Its path.
        path: PathBuf,
        /// Which number.
        name: &'static str,
        /// In the pool.
        found: u64,
        /// In the configuration.
        expected: u64,
    },
    /// Its parts belong to other hosts than the configuration says.
    #[error(
        "pool {path}: it was formatted with {part} on host {found}, the configuration says host {expected}; make them agree, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Home {
        /// Its path.
        path: PathBuf,
        /// Which broker or sequencer candidate.
        part: String,
        /// In the pool.
        found: u32,
        /// In the configuration.
        expected: u32,
    },
    /// Used with another coherence than the configuration says.
    #[error(
        "pool {path}: it was formatted for coherence: {}, this process was told {}; all processes of a pool do the same: make them agree, or re-format with `embarlet --config FILE --format` (its data is lost)",
        coherence_word(*found), coherence_word(*expected)
    )]
    Coherence {
        /// Its path.
        path: PathBuf,
        /// In the pool.
        found: CoherenceMode,
        /// Asked for.
        expected: CoherenceMode,
    },
    /// Not a pool, and nobody said that it may be lost.
    #[error(
        "pool {path}: it is not formatted over, since it is not a pool of ours: {source}. To format it all the same, say `--overwrite-foreign` too: what is in it is lost"
    )]
    NotOurs {
        /// Its path.
        path: PathBuf,
        /// What was found.
        source: SuperblockError,
    },
    /// A member of it shows life, on this host or another.
    #[error(
        "pool {path}: it is not formatted, since somebody lives in it: the beat of member {member} moves; stop the brokers and attached clients of every host first"
    )]
    Lives {
        /// Its path.
        path: PathBuf,
        /// Whose line changed while it was looked at.
        member: u32,
    },
    /// A device that is not there.
    #[error(
        "pool {path}: there is no such device, and an ordinary file is not made below /dev; check the name (`ls /dev/dax*`, `daxctl list`), or name a file in /dev/shm"
    )]
    NoDevice {
        /// Its path.
        path: PathBuf,
    },
    /// A device that is there, and cannot be mapped.
    #[error("pool {path}: {state}")]
    Device {
        /// Its path.
        path: PathBuf,
        /// As what it is there.
        state: DeviceState,
    },
    /// Another user's.
    #[error(
        "pool {path}: cannot {doing}: it belongs to user {user} and group {group}, with mode {mode:o}; run as that user, or give it to the one that runs this (`chown`; for a device by a udev rule, as config/OPERATING.md has it)"
    )]
    Permission {
        /// Its path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Its owner.
        user: u32,
        /// Its group.
        group: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The file that was opened lies there no more.
    #[error(
        "pool {path}: another file lies there than the one that was opened, or none: it was unlinked or replaced; this process has nothing to do with the new one"
    )]
    Replaced {
        /// Its path.
        path: PathBuf,
    },
    /// The pool is larger than its device.
    #[error(
        "pool {path}: the device has {found} bytes, pool.bytes is {expected}; give a smaller size, or `bytes: auto`"
    )]
    DeviceTooSmall {
        /// Its path.
        path: PathBuf,
        /// The device's length.
        found: u64,
        /// Asked for.
        expected: u64,
    },
    /// A device, or a file of huge pages, that is mapped in larger pieces.
    #[error(
        "pool {path}: {bytes} bytes are no multiple of {alignment}, the piece in which it can be mapped; give a multiple, or, for a device, `bytes: auto`"
    )]
    Alignment {
        /// Its path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// Of the device, or its file system.
        alignment: u64,
    },
    /// The geometry cannot be laid out.
    #[error("pool {path}: {source}")]
    Layout {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: LayoutError,
    },
    /// Somebody uses it.
    #[error("pool {path}: another process uses {what}; stop it first (`fuser {path}` names it)")]
    InUse {
        /// Its path.
        path: PathBuf,
        /// Which part.
        what: String,
    },
    /// The file system is full.
    #[error(
        "pool {path}: cannot reserve {bytes} bytes ({source}); {free} are free on its file system: make room, or give a smaller pool.bytes"
    )]
    NoRoom {
        /// Its path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// Left.
        free: u64,
        /// As the kernel says.
        source: io::Error,
    },
    /// Too few huge pages.
    #[error(
        "pool {path}: cannot reserve {bytes} bytes of huge pages ({source}); see HugePages_Free in /proc/meminfo, and have more (`sysctl vm.nr_hugepages=N`), or give a smaller pool.bytes"
    )]
    NoHugePages {
        /// Its path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// As the kernel says.
        source: io::Error,
    },
    /// The file system is full, and the pool came with holes.
    #[error(
        "pool {path}: {missing} bytes of it are holes (it was copied or restored without them), and they cannot be reserved ({source}); {free} are free on its file system: make room, a store into a hole would end the broker later"
    )]
    Holes {
        /// Its path.
        path: PathBuf,
        /// Not reserved yet.
        missing: u64,
        /// Left.
        free: u64,
        /// As the kernel says.
        source: io::Error,
    },
    /// The limit of this process for any file.
    #[error(
        "pool {path}: {bytes} bytes are above this process's limit for a file, which is {limit}: raise it (`ulimit -f unlimited`, LimitFSIZE=infinity), or give a smaller pool.bytes"
    )]
    FileLimit {
        /// Its path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// RLIMIT_FSIZE.
        limit: u64,
    },
    /// Neither a file nor a character device.
    #[error("pool {path}: it is neither a regular file nor a device like /dev/dax0.0; name another path")]
    Kind {
        /// Its path.
        path: PathBuf,
    },
    /// A directory.
    #[error("pool {path}: it is a directory; name a file in it")]
    Directory {
        /// Its path.
        path: PathBuf,
    },
    /// Anything else the operating system says.
    #[error("pool {path}: cannot {doing}: {source}")]
    Os {
        /// Its path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// As the kernel says.
        source: io::Error,
    },
}

/// How a device that cannot be mapped is there all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Its memory was given to the kernel.
    SystemRam {
        /// As the kernel calls it.
        name: String,
    },
    /// No driver has it.
    Disabled {
        /// As the kernel calls it.
        name: String,
    },
    /// It could be mapped if it had a name below /dev.
    NoNode {
        /// As the kernel calls it.
        name: String,
    },
}

impl fmt::Display for DeviceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceState::SystemRam { name } => write!(
                out,
                "the device is there as system RAM (mode system-ram): the kernel gives its memory to programs. Take it back: \
                 `daxctl offline-memory {name}`, then `daxctl reconfigure-device --mode=devdax {name}`"
            ),
            DeviceState::Disabled { name } => {
                write!(out, "the device is there and disabled, no driver has it: `daxctl enable-device {name}`")
            }
            DeviceState::NoNode { name } => write!(
                out,
                "the kernel has the device {name}, and there is no node for it below /dev: wait for udev, or give it to the container \
                 (`--device /dev/{name}`)"
            ),
        }
    }
}

fn coherence_word(mode: CoherenceMode) -> &'static str {
    match mode {
        CoherenceMode::Software => "software",
        CoherenceMode::Hardware => "hardware",
    }
}
