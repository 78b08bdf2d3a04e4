//! The life of a pool as a file or device: create, format, attach or refuse; and the locks of this host.
//!
//! One function, [`Pool::open`], decides. Locks are open-file-description locks on bytes far behind the pool's data:
//! each is held by a close-on-exec descriptor of its own, the kernel releases it however the process ends, and nothing
//! is left behind. They hold between processes of this host only; between hosts every line has a home host instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use memmap2::MmapOptions;

use crate::pool::coherence::{Keep, Mapped, Mapping, Memory, Software};
use crate::pool::layout::{Geometry, Layout, LayoutError, SUPERBLOCK_BYTES};
pub use crate::pool::os::free_bytes;
use crate::pool::os::{self, LockMode};
use crate::pool::superblock::{HomeHosts, Superblock, SuperblockError};

/// What cannot be done with a pool, and what to do about it.
#[derive(Debug, thiserror::Error)]
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

/// What may be locked on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockName {
    /// Deciding about the pool's format.
    Format,
    /// Using the pool; shared.
    Use,
    /// Being a broker and the one writer of its lanes.
    Broker(u32),
    /// Having an attached place, as that member, and being the one writer of its lines.
    Attached(u32),
    /// Being a sequencer candidate.
    Candidate(u32),
}

impl LockName {
    fn byte(self) -> i64 {
        const BASE: i64 = 1 << 62;
        BASE + match self {
            LockName::Format => 0,
            LockName::Use => 1,
            LockName::Candidate(slot) => 16 + i64::from(slot),
            // Members are numbered behind the brokers.
            LockName::Broker(member) | LockName::Attached(member) => 1024 + i64::from(member),
        }
    }
}

impl std::fmt::Display for LockName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockName::Format => write!(out, "its format lock"),
            LockName::Use => write!(out, "it"),
            LockName::Broker(id) => write!(out, "its broker {id}"),
            LockName::Attached(member) => write!(out, "its attached place {member}"),
            LockName::Candidate(slot) => write!(out, "its sequencer candidate {slot}"),
        }
    }
}

/// A lock held until dropped, or until the process ends.
#[derive(Debug)]
pub struct HostLock {
    file: File,
    byte: i64,
}

impl Drop for HostLock {
    fn drop(&mut self) {
        // Closing is not enough: a process being started has a copy of the descriptor until it executes its program.
        let _ = os::unlock(&self.file, self.byte);
    }
}

/// Whether a missing pool may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Refuse.
    Never,
    /// Create and format a regular file.
    IfMissing,
    /// Format whatever is there; refuse only if it is in use.
    Format,
}

/// An attached pool.
#[derive(Clone, Debug)]
pub struct Pool {
    path: PathBuf,
    mapping: Arc<Mapping>,
    layout: Arc<Layout>,
    superblock: Superblock,
    formatted: bool,
    _use: Arc<HostLock>,
}

/// How long to wait for another process that is formatting.
const FORMAT_WAIT: Duration = Duration::from_secs(30);

impl Pool {
    /// Attaches to the pool at `path`, creating or formatting it as `create` allows.
    ///
    /// `geometry` is what the configuration asks for; its `extents_per_lane` is ignored. With `any_size` an existing
    /// pool may have another length than `geometry.pool_bytes`. `homes` must be those that it was formatted with.
    pub fn open(
        path: &Path,
        geometry: Geometry,
        homes: &HomeHosts,
        any_size: bool,
        create: Create,
    ) -> Result<Pool, PoolError> {
        let file = Self::open_file(path, create)?;
        let format_lock = Self::wait_lock(path, LockName::Format)?;
        let length = Self::length(path, &file)?;
        let pool = match Self::examine(path, &file, length) {
            _ if create == Create::Format => Self::format(path, &file, geometry, homes, length)?,
            Err(PoolError::Superblock {
                source: SuperblockError::Unformatted | SuperblockError::Short { found: 0 },
                ..
            }) if create == Create::IfMissing => Self::format(path, &file, geometry, homes, length)?,
            Err(error) => return Err(error),
            Ok((superblock, layout)) => {
                Self::agree(path, &layout.geometry, &geometry, any_size)?;
                Self::agree_on_homes(path, &superblock.homes(), homes)?;
                Self::attach(path, &file, superblock, layout, false)?
            }
        };
        drop(format_lock);
        Ok(pool)
    }

    /// Attaches to an existing pool of any geometry, to look at it.
    pub fn inspect(path: &Path) -> Result<Pool, PoolError> {
        let file = Self::open_file(path, Create::Never)?;
        let length = Self::length(path, &file)?;
        let (superblock, layout) = Self::examine(path, &file, length)?;
        Self::attach(path, &file, superblock, layout, false)
    }

    fn open_file(path: &Path, create: Create) -> Result<File, PoolError> {
        let may_create = create != Create::Never;
        let result =
            OpenOptions::new().read(true).write(true).create(may_create).truncate(false).mode(0o600).open(path);
        result.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if !may_create => PoolError::Missing { path: path.into() },
            _ => PoolError::Os { path: path.into(), doing: "open it for reading and writing", source },
        })
    }

    fn os(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> PoolError {
        move |source| PoolError::Os { path: path.into(), doing, source }
    }

    /// Length in bytes: of a file as the file system says, of a device as sysfs says.
    fn length(path: &Path, file: &File) -> Result<u64, PoolError> {
        let meta = file.metadata().map_err(Self::os(path, "stat it"))?;
        if meta.file_type().is_file() {
            return Ok(meta.len());
        }
        if !meta.file_type().is_char_device() {
            return Err(PoolError::Kind { path: path.into() });
        }
        // Linux encodes a device number in 12 bits of major and 20 of minor (makedev(3)).
        let (major, minor) = (meta.rdev() >> 8 & 0xfff, meta.rdev() & 0xff | meta.rdev() >> 12 & 0xfff00);
        let size = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"))
            .map_err(Self::os(path, "read the device's size from /sys/dev/char"))?;
        size.trim().parse().map_err(|_| PoolError::Kind { path: path.into() })
    }

    fn examine(path: &Path, file: &File, length: u64) -> Result<(Superblock, Layout), PoolError> {
        let wrap = |source| PoolError::Superblock { path: path.into(), source };
        if length < SUPERBLOCK_BYTES {
            return Err(wrap(SuperblockError::Short { found: length }));
        }
        // Mapped, not read: a devdax device has no read(2).
        let view = Self::map(path, file, length.min(crate::limits::REGION_ALIGNMENT_BYTES))?;
        // No lane is attached yet: we hold the format lock, and the superblock is immutable once written.
        view.discard(0, SUPERBLOCK_BYTES);
        view.with_bytes(0, SUPERBLOCK_BYTES, |bytes| Superblock::read(bytes, length)).map_err(wrap)
    }

    fn agree(path: &Path, found: &Geometry, wanted: &Geometry, any_size: bool) -> Result<(), PoolError> {
        let same = |name, found: u64, expected: u64| {
            if found == expected {
                Ok(())
            } else {
                Err(PoolError::Differs { path: path.into(), name, found, expected })
            }
        };
        if !any_size {
            same("pool.bytes", found.pool_bytes, wanted.pool_bytes)?;
        }
        same("extent_bytes", found.extent_bytes, wanted.extent_bytes)?;
        same("hosts", found.hosts.into(), wanted.hosts.into())?;
        same("the number of brokers", found.brokers.into(), wanted.brokers.into())?;
        same("lanes_per_broker", found.lanes_per_broker.into(), wanted.lanes_per_broker.into())?;
        same("attached_per_broker", found.attached_per_broker.into(), wanted.attached_per_broker.into())?;
        same("the number of sequencer candidates", found.candidates.into(), wanted.candidates.into())?;
        same("ring_slots", found.ring_slots.into(), wanted.ring_slots.into())?;
        same("segment_entries", found.segment_entries.into(), wanted.segment_entries.into())?;
        same("segments", found.segments.into(), wanted.segments.into())?;
        same("sessions_max", found.sessions_max.into(), wanted.sessions_max.into())?;
        same("topics_max", found.topics_max.into(), wanted.topics_max.into())?;
        same("cursors_max", found.cursors_max.into(), wanted.cursors_max.into())?;
        // Last: it is clipped to what the other numbers leave.
        let wanted = Layout::new(Geometry { pool_bytes: found.pool_bytes, ..*wanted });
        let wanted = wanted.map_err(|source| PoolError::Layout { path: path.into(), source })?.geometry;
        same("attached_extents", found.attached_extents.into(), wanted.attached_extents.into())
    }

    fn agree_on_homes(path: &Path, found: &HomeHosts, wanted: &HomeHosts) -> Result<(), PoolError> {
        let part = |kind, found: &[u32], wanted: &[u32]| {
            let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
            differs.map(|number| (format!("{kind} {number}"), found[number], wanted[number]))
        };
        let differs = part("broker", &found.brokers, &wanted.brokers)
            .or_else(|| part("sequencer candidate", &found.candidates, &wanted.candidates));
        match differs {
            Some((part, found, expected)) => Err(PoolError::Home { path: path.into(), part, found, expected }),
            None => Ok(()),
        }
    }

    fn format(path: &Path, file: &File, geometry: Geometry, homes: &HomeHosts, length: u64) -> Result<Pool, PoolError> {
        let layout = Layout::new(geometry).map_err(|source| {
            if length == 0 {
                // We may have made it just now; nothing that was anybody's is lost.
                let _ = std::fs::remove_file(path);
            }
            PoolError::Layout { path: path.into(), source }
        })?;
        let alone = Self::try_lock(path, LockName::Use, LockMode::Exclusive)?;
        if alone.is_none() {
            return Err(PoolError::InUse { path: path.into(), what: LockName::Use.to_string() });
        }
        let bytes = layout.geometry.pool_bytes;
        let regular = file.metadata().map_err(Self::os(path, "stat it"))?.file_type().is_file();
        if regular {
            Self::make_room(path, file, bytes)?;
        } else if length < bytes {
            let found = format!("the device has {length} bytes, pool.bytes is {bytes}");
            return Err(PoolError::Superblock { path: path.into(), source: SuperblockError::Geometry(found) });
        }
        let view = Self::map(path, file, bytes)?;
        if !regular {
            Self::clear(&view, layout.fixed_bytes());
        }
        let random = Self::random(path)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let superblock = Superblock::new(layout.geometry, homes, [random[0], random[1]], [random[2], random[3]], now);
        // Last: a pool whose formatting was cut short has no superblock.
        view.copy_in(0, bytes_of(&superblock));
        view.write_back(0, SUPERBLOCK_BYTES, Keep::Dropped);
        view.store_fence();
        drop(alone);
        Self::attach(path, file, superblock, layout, true)
    }

    /// A fresh file of zeros with all its blocks reserved. A file that cannot be had is not left behind.
    fn make_room(path: &Path, file: &File, bytes: u64) -> Result<(), PoolError> {
        file.set_len(0).map_err(Self::os(path, "truncate it"))?;
        let limit = os::file_bytes_limit().map_err(Self::os(path, "ask for the limit of a file"))?;
        if limit < bytes {
            let _ = std::fs::remove_file(path);
            return Err(PoolError::FileLimit { path: path.into(), bytes, limit });
        }
        // Asked first: the kernel would fill the file system to the brim before it says no.
        let free = os::free_bytes(path).map_err(Self::os(path, "ask how much is free"))?;
        let reserved =
            if free < bytes { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { os::reserve(file, bytes) };
        reserved.map_err(|source| {
            let _ = std::fs::remove_file(path);
            PoolError::NoRoom { path: path.into(), bytes, free, source }
        })
    }

    fn clear(view: &Mapped<Software>, bytes: u64) {
        const CHUNK: u64 = 64 << 10;
        let zeros = vec![0; CHUNK as usize];
        let mut at = 0;
        while at < bytes {
            let now = CHUNK.min(bytes - at);
            view.copy_in(at, &zeros[..now as usize]);
            view.write_back(at, now, Keep::Dropped);
            at += now;
        }
        view.store_fence();
    }

    fn random(path: &Path) -> Result<[u64; 4], PoolError> {
        let mut bytes = [0; 32];
        let mut source = File::open("/dev/urandom").map_err(Self::os(path, "open /dev/urandom"))?;
        source.read_exact(&mut bytes).map_err(Self::os(path, "read /dev/urandom"))?;
        Ok(bytemuck::cast(bytes))
    }

    fn map(path: &Path, file: &File, bytes: u64) -> Result<Mapped<Software>, PoolError> {
        // An explicit length: a device's stat says 0.
        let map = MmapOptions::new().len(bytes as usize).map_raw(file).map_err(Self::os(path, "map it"))?;
        Ok(Mapped::new(Mapping::new(map)))
    }

    fn attach(
        path: &Path,
        file: &File,
        superblock: Superblock,
        layout: Layout,
        formatted: bool,
    ) -> Result<Pool, PoolError> {
        let shared = Self::try_lock(path, LockName::Use, LockMode::Shared)?;
        let in_use = || PoolError::InUse { path: path.into(), what: "it (it is being formatted)".into() };
        let shared = Arc::new(shared.ok_or_else(in_use)?);
        let view = Self::map(path, file, layout.geometry.pool_bytes)?;
        Ok(Pool {
            path: path.into(),
            mapping: view.mapping().clone(),
            layout: Arc::new(layout),
            superblock,
            formatted,
            _use: shared,
        })
    }

    fn try_lock(path: &Path, name: LockName, mode: LockMode) -> Result<Option<HostLock>, PoolError> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(Self::os(path, "open it to lock it"))?;
        let locked = os::try_lock(&file, mode, name.byte()).map_err(Self::os(path, "lock it"))?;
        Ok(locked.then_some(HostLock { file, byte: name.byte() }))
    }

    fn wait_lock(path: &Path, name: LockName) -> Result<HostLock, PoolError> {
        let deadline = Instant::now() + FORMAT_WAIT;
        loop {
            if let Some(lock) = Self::try_lock(path, name, LockMode::Exclusive)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(PoolError::InUse { path: path.into(), what: name.to_string() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes a lock of this host for as long as the answer lives.
    pub fn lock(&self, name: LockName) -> Result<HostLock, PoolError> {
        self.try_to_lock(name)?.ok_or_else(|| PoolError::InUse { path: self.path.clone(), what: name.to_string() })
    }

    /// Takes a lock of this host if nobody has it.
    pub fn try_to_lock(&self, name: LockName) -> Result<Option<HostLock>, PoolError> {
        Self::try_lock(&self.path, name, LockMode::Exclusive)
    }

    /// Whether a process of this host holds a lock.
    pub fn is_locked(&self, name: LockName) -> Result<bool, PoolError> {
        let file = File::open(&self.path).map_err(Self::os(&self.path, "open it to look at a lock"))?;
        os::is_locked(&file, LockMode::Shared, name.byte()).map_err(Self::os(&self.path, "look at a lock"))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Its mapping.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Its layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
    /// Its superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }
    /// Whether this call formatted it.
    pub fn was_formatted(&self) -> bool {
        self.formatted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::layout::tests::small;

    fn open(path: &Path, geometry: Geometry, any_size: bool, create: Create) -> Result<Pool, PoolError> {
        Pool::open(path, geometry, &HomeHosts::single_host(&geometry), any_size, create)
    }

    struct TempPool(PathBuf);
    impl TempPool {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("embarcadero-region-{name}-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            TempPool(path)
        }
    }
    impl Drop for TempPool {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn create_attach_refuse() {
        let at = TempPool::new("life");
        let path = &at.0;
        assert!(matches!(open(path, small(), false, Create::Never), Err(PoolError::Missing { .. })));
        let first = open(path, small(), false, Create::IfMissing).unwrap();
        assert!(first.was_formatted());
        let second = open(path, small(), false, Create::IfMissing).unwrap();
        assert!(!second.was_formatted());
        assert_eq!(first.superblock(), second.superblock());
        assert!(matches!(open(path, small(), false, Create::Format), Err(PoolError::InUse { .. })));
        let other = Geometry { ring_slots: 128, ..small() };
        assert!(matches!(open(path, other, false, Create::Never), Err(PoolError::Differs { name: "ring_slots", .. })));
        let larger = Geometry { pool_bytes: 32 << 20, ..small() };
        assert!(matches!(open(path, larger, false, Create::Never), Err(PoolError::Differs { name: "pool.bytes", .. })));
        assert!(open(path, larger, true, Create::Never).is_ok());
        let homes = HomeHosts { brokers: vec![0, 1], candidates: vec![0] };
        let elsewhere = Pool::open(path, small(), &homes, false, Create::Never);
        assert!(matches!(elsewhere, Err(PoolError::Home { found: 0, expected: 1, .. })), "{elsewhere:?}");
        drop((first, second));
        assert!(open(path, small(), false, Create::Format).unwrap().was_formatted());
    }

    #[test]
    fn foreign_truncated_and_half_formatted_files() {
        let at = TempPool::new("foreign");
        let path = &at.0;
        let refused = |create| open(path, small(), false, create).unwrap_err();
        std::fs::write(path, vec![b'x'; 8192]).unwrap();
        let foreign = refused(Create::IfMissing);
        assert!(matches!(foreign, PoolError::Superblock { source: SuperblockError::Foreign { .. }, .. }), "{foreign}");
        std::fs::write(path, b"short").unwrap();
        assert!(matches!(
            refused(Create::IfMissing),
            PoolError::Superblock { source: SuperblockError::Short { .. }, .. }
        ));
        std::fs::write(path, vec![0; 8192]).unwrap();
        assert!(matches!(refused(Create::Never), PoolError::Superblock { source: SuperblockError::Unformatted, .. }));
        drop(open(path, small(), false, Create::IfMissing).unwrap());
        OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
        assert!(matches!(refused(Create::Never), PoolError::Superblock { source: SuperblockError::Geometry(_), .. }));
    }

    #[test]
    fn locks_are_exclusive_and_go_with_their_holder() {
        let at = TempPool::new("locks");
        let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
        let held = pool.lock(LockName::Broker(1)).unwrap();
        assert!(pool.is_locked(LockName::Broker(1)).unwrap());
        assert!(matches!(pool.lock(LockName::Broker(1)), Err(PoolError::InUse { .. })));
        assert!(pool.lock(LockName::Broker(0)).is_ok());
        drop(held);
        assert!(!pool.is_locked(LockName::Broker(1)).unwrap());
        assert!(pool.lock(LockName::Broker(1)).is_ok());
    }

    /// Found by the system tests: one that starts processes held up another that formatted a pool.
    #[test]
    fn a_lock_given_back_is_free_though_its_descriptor_was_copied() {
        let at = TempPool::new("copied");
        let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
        let held = pool.lock(LockName::Broker(1)).unwrap();
        let _copy = held.file.try_clone().unwrap();
        drop(held);
        assert!(pool.lock(LockName::Broker(1)).is_ok());
    }

    #[test]
    fn a_pool_larger_than_the_file_system_is_refused_and_leaves_nothing() {
        let at = TempPool::new("huge");
        let huge = Geometry { pool_bytes: 1 << 50, extent_bytes: 1 << 30, ..small() };
        let error = open(&at.0, huge, false, Create::IfMissing).unwrap_err();
        assert!(matches!(error, PoolError::NoRoom { .. }), "{error}");
        assert!(!at.0.exists());
        let tiny = Geometry { pool_bytes: 1 << 20, ..small() };
        assert!(matches!(open(&at.0, tiny, false, Create::IfMissing), Err(PoolError::Layout { .. })));
        assert!(!at.0.exists());
    }
}
