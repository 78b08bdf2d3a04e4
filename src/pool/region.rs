//! The life of a pool as a file or device: create, format, attach or refuse.
//!
//! One function, [`Pool::open`], decides. Locks ([`LockName`]) hold between processes of this host only; between hosts every line
//! has a home host instead, and beats show who lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memmap2::MmapOptions;

use crate::config::CoherenceMode;
use crate::pool::coherence::{Mapped, Mapping, Memory, Software};
use crate::pool::device::{Extent, not_opened};
pub use crate::pool::device::{device_bytes, device_node, device_state, is_missing_device, unmappable_device};
pub use crate::pool::error::{DeviceState, PoolError};
use crate::pool::format::{self, Found};
use crate::pool::layout::{Geometry, Layout, SUPERBLOCK_BYTES};
pub use crate::pool::locks::{HostLock, LockName};
use crate::pool::locks::{Opened, os_error};
pub use crate::pool::os::free_bytes;
use crate::pool::os::{self, HUGE_PAGE_BYTES, LockMode};
use crate::pool::superblock::{HomeHosts, Superblock, SuperblockError};
use crate::pool::touch::{Told, by_pieces};
use crate::utc::utc_ns;

/// Whether a pool may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Refuse.
    Never,
    /// Format a file that does not exist or is empty, or whose formatting was cut short; nothing else.
    IfMissing,
    /// Format what is there if it is that, a pool of ours or a blank device; refuse anything else, and what is in use.
    Format,
    /// Format whatever is there; refuse only if it is in use.
    Overwrite,
}

/// What a process that opens a pool expects it to be, or would make it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the configuration asks for; its `extents` is ignored.
    pub geometry: Geometry,
    /// Whether an existing pool may have another length.
    pub any_size: bool,
    /// Whether an existing pool may have places for other numbers of brokers.
    pub any_places: bool,
    /// Whether an existing pool may have places for another number of sequencer candidates.
    pub any_candidates: bool,
    /// Those it was formatted with.
    pub homes: HomeHosts,
    /// What all its processes do; none: whatever it was formatted for, software for a new one.
    pub coherence: Option<CoherenceMode>,
    /// Who is told how far it is while a new one is made.
    pub told: Told,
}

/// An attached pool.
#[derive(Clone, Debug)]
pub struct Pool {
    path: PathBuf,
    opened: Opened,
    mapping: Arc<Mapping>,
    layout: Arc<Layout>,
    superblock: Superblock,
    formatted: bool,
    /// Whether there was nothing, or an empty file, before.
    made: bool,
    use_lock: Arc<HostLock>,
}

/// What becomes of a pool that is still ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No name leads to it any more.
    #[error(
        "it was unlinked: whatever is in it is gone when the last process that has it ends, and no new one can find it"
    )]
    Unlinked,
    /// Another file has its name.
    #[error("another file lies at its path: brokers that start now would run a second log beside this one")]
    Replaced,
    /// It is shorter than it was.
    #[error("it was cut to {found} bytes of {expected}")]
    Short {
        /// Length now, bytes.
        found: u64,
        /// Length of the pool.
        expected: u64,
    },
    /// Another pool lies in its memory.
    #[error(
        "it was formatted anew, or is being: all that was in it is gone. Whoever did it, on this host or another, did not wait for this process to end"
    )]
    Formatted,
}

/// How often a file that was replaced just when it was opened is opened anew.
const OPENED_ANEW_MAX: u32 = 100;
/// How long another process formats at most: every page of a large pool is cleared.
const FORMAT_WAIT: Duration = Duration::from_secs(120);
/// What a thread touches at once, bytes.
const TOUCH_BYTES: u64 = 16 << 20;
/// How long others have the lock of a member that is gone at most, while they look after what it had.
pub(crate) const CARE_WAIT: Duration = Duration::from_millis(300);

impl Pool {
    /// Attaches to the pool at `path`, creating or formatting it as `create` allows, of whatever coherence.
    ///
    /// `geometry` is what the configuration asks for; its `extents` is ignored. With `any_size` an existing
    /// pool may have another length than `geometry.pool_bytes`. `homes` must be those that it was formatted with.
    pub fn open(
        path: &Path,
        geometry: Geometry,
        homes: &HomeHosts,
        any_size: bool,
        create: Create,
    ) -> Result<Pool, PoolError> {
        let (any_places, any_candidates, coherence) = (false, false, None);
        let wanted =
            Wanted { geometry, any_size, any_places, any_candidates, homes: homes.clone(), coherence, told: |_| () };
        Self::open_as(path, &wanted, create)
    }

    /// Attaches to the pool at `path`, creating or formatting it as `create` allows.
    pub fn open_as(path: &Path, wanted: &Wanted, create: Create) -> Result<Pool, PoolError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::open_once(path, wanted, create) {
                // Whoever made it could not go on, and took it away while we waited for its lock.
                Err(PoolError::Replaced { .. }) if tries < OPENED_ANEW_MAX => {}
                result => return result,
            }
        }
    }

    fn open_once(path: &Path, wanted: &Wanted, create: Create) -> Result<Pool, PoolError> {
        let opened = Self::open_file(path, create != Create::Never, true)?;
        let _format_lock = opened.wait_lock(LockName::Format, FORMAT_WAIT)?;
        let extent = Extent::of(path, opened.file())?;
        let examined = Self::examine(path, opened.file(), extent);
        match (create, examined) {
            (Create::Format | Create::Overwrite, examined) => {
                Self::format_over(&opened, wanted, extent, examined.map(drop), create == Create::Overwrite)
            }
            (
                Create::IfMissing,
                Err(Examined::Found(SuperblockError::Unformatted | SuperblockError::Short { found: 0 })),
            ) => Self::format(&opened, wanted, extent),
            (_, Err(error)) => Err(error.told(path)),
            (_, Ok((superblock, layout))) => {
                agree_on_all(path, &superblock, &layout.geometry, wanted)?;
                let shared = Self::share(&opened)?;
                Self::attach(&opened, superblock, layout, shared)
            }
        }
    }

    /// Attaches to an existing pool of any geometry, to look at it or to take a place in it.
    pub fn inspect(path: &Path) -> Result<Pool, PoolError> {
        Self::inspect_as(path, true, || ())
    }

    /// Attaches to an existing pool of any geometry, to look at it and nothing else: without the right to write it. No line of
    /// it can be written: a store ends the process.
    pub fn look(path: &Path) -> Result<Pool, PoolError> {
        Self::inspect_as(path, false, || ())
    }

    /// `before_lock` is for tests: what others do before this process has its lock.
    fn inspect_as(path: &Path, writable: bool, before_lock: impl FnOnce()) -> Result<Pool, PoolError> {
        let opened = Self::open_file(path, false, writable)?;
        before_lock();
        // Nobody formats it from here on: what is examined is what is attached to.
        let shared = Self::share(&opened)?;
        let extent = Extent::of(path, opened.file())?;
        let (superblock, layout) = Self::examine(path, opened.file(), extent).map_err(|error| error.told(path))?;
        Self::attach(&opened, superblock, layout, shared)
    }

    fn open_file(path: &Path, may_create: bool, writable: bool) -> Result<Opened, PoolError> {
        if is_missing_device(path) {
            return Err(unmappable_device(path).unwrap_or_else(|| PoolError::NoDevice { path: path.into() }));
        }
        let mut options = OpenOptions::new();
        let result = options.read(true).write(writable).create(may_create).truncate(false).mode(0o600).open(path);
        let doing = if writable { "open it for reading and writing" } else { "open it for reading" };
        let file = result.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if !may_create => PoolError::Missing { path: path.into() },
            _ => not_opened(path, doing, source),
        })?;
        Opened::new(path, file, writable)
    }

    /// Says that this process uses it.
    fn share(opened: &Opened) -> Result<HostLock, PoolError> {
        let shared = opened.try_lock(LockName::Use, LockMode::Shared)?;
        let in_use = || PoolError::InUse { path: opened.path().into(), what: "it (it is being formatted)".into() };
        shared.ok_or_else(in_use)
    }

    fn examine(path: &Path, file: &File, extent: Extent) -> Result<(Superblock, Layout), Examined> {
        if extent.bytes < SUPERBLOCK_BYTES {
            return Err(Examined::Found(SuperblockError::Short { found: extent.bytes }));
        }
        // Mapped, not read: a devdax device has no read(2).
        let view = Self::map_to_look(path, file, extent.head_bytes()).map_err(Examined::Failed)?;
        // A superblock is immutable once it is written, and the caller holds a lock that keeps others from formatting.
        view.discard(0, SUPERBLOCK_BYTES);
        view.with_bytes(0, SUPERBLOCK_BYTES, |bytes| Superblock::read(bytes, extent.bytes)).map_err(Examined::Found)
    }

    fn format_over(
        opened: &Opened,
        wanted: &Wanted,
        extent: Extent,
        examined: Result<(), Examined>,
        even_foreign: bool,
    ) -> Result<Pool, PoolError> {
        let path = opened.path();
        let found = match examined {
            Ok(()) => Ok(()),
            Err(Examined::Found(error)) => Err(error),
            Err(Examined::Failed(error)) => return Err(error),
        };
        let head = match extent.bytes >= SUPERBLOCK_BYTES {
            true => Some(Self::map_to_look(path, opened.file(), extent.head_bytes())?),
            false => None,
        };
        match Found::new(found, head.as_ref().filter(|_| extent.is_device)) {
            Found::Nothing => {}
            Found::Foreign(_) if even_foreign => {}
            Found::Foreign(source) => return Err(PoolError::NotOurs { path: path.into(), source }),
            Found::Ours => {
                // A lock says so at once for this host; other hosts' members are watched.
                drop(Self::alone(opened)?);
                if let Some(member) = head.as_ref().and_then(format::living_member) {
                    return Err(PoolError::Lives { path: path.into(), member });
                }
            }
        }
        Self::format(opened, wanted, extent)
    }

    fn alone(opened: &Opened) -> Result<HostLock, PoolError> {
        let alone = opened.try_lock(LockName::Use, LockMode::Exclusive)?;
        alone.ok_or_else(|| PoolError::InUse { path: opened.path().into(), what: LockName::Use.to_string() })
    }

    /// The caller holds the format lock, and knows that what is there may be lost.
    fn format(opened: &Opened, wanted: &Wanted, extent: Extent) -> Result<Pool, PoolError> {
        let (path, file) = (opened.path(), opened.file());
        let layout = Layout::new(wanted.geometry).map_err(|source| {
            if extent.bytes == 0 {
                // We may have made it just now; nothing that was anybody's is lost.
                let _ = std::fs::remove_file(path);
            }
            PoolError::Layout { path: path.into(), source }
        })?;
        let alone = Self::alone(opened)?;
        let bytes = layout.geometry.pool_bytes;
        extent.holds(path, bytes)?;
        if !extent.is_device {
            format::make_room(path, file, bytes, extent.is_huge(), wanted.told)?;
        }
        let view = Self::map(path, file, bytes)?;
        if extent.is_device || extent.is_huge() {
            format::begin_mapped(&view, layout.fixed_bytes());
        }
        let [uuid @ .., key_0, key_1] = format::random(path)?;
        let now = utc_ns();
        let coherence = wanted.coherence.unwrap_or(CoherenceMode::Software);
        let superblock = Superblock::new(layout.geometry, &wanted.homes, coherence, uuid, [key_0, key_1], now);
        format::finish(&view, &superblock);
        drop(alone);
        let shared = Self::share(opened)?;
        let pool = Self::attach(opened, superblock, layout, shared)?;
        Ok(Pool { formatted: true, made: extent.bytes == 0, ..pool })
    }

    fn map(path: &Path, file: &File, bytes: u64) -> Result<Mapped<Software>, PoolError> {
        let is_huge = |file| os::huge_page_bytes(file).is_ok_and(|bytes| bytes.is_some());
        // Devices and huge pages have an alignment of their own.
        if file.metadata().is_ok_and(|meta| meta.file_type().is_file())
            && !is_huge(file)
            && let Ok((map, start)) = os::map_aligned(file, bytes as usize, HUGE_PAGE_BYTES as usize)
        {
            return Ok(Mapped::new(Mapping::of_part(map, start, bytes as usize)));
        }
        // An explicit length: a device's stat says 0.
        let map = MmapOptions::new().len(bytes as usize).map_raw(file).map_err(os_error(path, "map it"))?;
        Ok(Mapped::new(Mapping::new(map)))
    }

    fn map_to_look(path: &Path, file: &File, bytes: u64) -> Result<Mapped<Software>, PoolError> {
        let map = MmapOptions::new().len(bytes as usize).map_raw_read_only(file).map_err(os_error(path, "map it"))?;
        Ok(Mapped::new(Mapping::new(map)))
    }

    fn attach(opened: &Opened, superblock: Superblock, layout: Layout, shared: HostLock) -> Result<Pool, PoolError> {
        let (path, file, bytes) = (opened.path(), opened.file(), layout.geometry.pool_bytes);
        let view = match opened.is_writable() {
            true => {
                format::fill_holes(path, file, bytes)?;
                Self::map(path, file, bytes)?
            }
            false => Self::map_to_look(path, file, bytes)?,
        };
        Ok(Pool {
            path: path.into(),
            mapping: view.mapping().clone(),
            opened: opened.clone(),
            layout: Arc::new(layout),
            superblock,
            formatted: false,
            made: false,
            use_lock: Arc::new(shared),
        })
    }

    /// Takes a pool away again that this process made just now, if nobody else has come to use it: it cannot start, and what it
    /// made is of no use to anybody. Others that wait for it make their own.
    pub fn take_away(&self) {
        if self.made && self.use_lock.try_alone() && self.opened.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Whether it is what a process that wants this would attach to.
    ///
    /// # Errors
    /// What is different.
    pub fn agrees_with(&self, wanted: &Wanted) -> Result<(), PoolError> {
        agree_on_all(&self.path, &self.superblock, &self.layout.geometry, wanted)
    }

    /// Whether its file is still what it was: at its path, in its whole length.
    ///
    /// # Errors
    /// What became of it.
    pub fn check(&self) -> Result<(), Lost> {
        let Ok(meta) = self.opened.file().metadata() else { return Ok(()) };
        let expected = self.layout.geometry.pool_bytes;
        let is_file = meta.file_type().is_file();
        if is_file && meta.len() < expected {
            return Err(Lost::Short { found: meta.len(), expected });
        }
        if is_file && self.opened.was_linked() && std::os::unix::fs::MetadataExt::nlink(&meta) == 0 {
            return Err(Lost::Unlinked);
        }
        if !self.opened.is_in_place() {
            return Err(Lost::Replaced);
        }
        // Another host's locks keep nobody out here.
        let view = Mapped::<Software>::new(self.mapping.clone());
        view.discard(0, SUPERBLOCK_BYTES);
        let is_ours = |bytes: &[u8]| bytes.starts_with(bytemuck::bytes_of(&self.superblock));
        if view.with_bytes(0, SUPERBLOCK_BYTES, is_ours) { Ok(()) } else { Err(Lost::Formatted) }
    }

    /// Takes a lock of this host for as long as the answer lives. Waits a moment: others have one that is nobody's while they look after what the dead
    /// had.
    pub fn lock(&self, name: LockName) -> Result<HostLock, PoolError> {
        self.opened.wait_lock(name, CARE_WAIT)
    }

    /// Takes a lock of this host if nobody has it.
    pub fn try_to_lock(&self, name: LockName) -> Result<Option<HostLock>, PoolError> {
        self.opened.try_lock(name, LockMode::Exclusive)
    }

    /// The lock of a member: a broker, or the process in an attached place.
    pub fn member_lock(&self, member: u32) -> LockName {
        if member < self.layout().geometry.brokers { LockName::Broker(member) } else { LockName::Attached(member) }
    }

    /// Whether a process of this host holds a lock.
    pub fn is_locked(&self, name: LockName) -> Result<bool, PoolError> {
        self.opened.is_locked(name)
    }

    /// Whether a lock was taken through this opening of the pool, or a copy of it, and is held: by this very process.
    pub fn holds(&self, name: LockName) -> bool {
        self.opened.holds(name)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Its mapping.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Touches what a process may write: the tables and rings, and every extent, since any may be granted to it. If that fails, first
    /// writes are slower.
    pub fn populate(&self, tell: Told) {
        let (mapping, layout) = (&self.mapping, &self.layout);
        let blog = layout.extent(0)..layout.extent(0) + layout.blog_bytes();
        let touch = |range| by_pieces("touching", range, TOUCH_BYTES, tell, |at, bytes| mapping.populate(at, bytes));
        if let Err(error) = touch(0..layout.fixed_bytes()).and_then(|()| touch(blog)) {
            log::warn!("cannot touch the pool in advance ({error}): first writes will be slower");
        }
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

/// Why there is no superblock to be had.
enum Examined {
    /// This was found instead.
    Found(SuperblockError),
    /// It could not be looked at.
    Failed(PoolError),
}

impl Examined {
    fn told(self, path: &Path) -> PoolError {
        match self {
            Examined::Found(source) => PoolError::Superblock { path: path.into(), source },
            Examined::Failed(error) => error,
        }
    }
}

fn agree_on_all(path: &Path, found: &Superblock, geometry: &Geometry, wanted: &Wanted) -> Result<(), PoolError> {
    agree(path, geometry, wanted)?;
    agree_on_homes(path, &found.homes(), wanted)?;
    agree_on_coherence(path, found.coherence(), wanted.coherence)
}

fn agree(path: &Path, found: &Geometry, expected: &Wanted) -> Result<(), PoolError> {
    let wanted = &expected.geometry;
    let same = |name, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(PoolError::Differs { path: path.into(), name, found, expected }) }
    };
    if !expected.any_size {
        same("pool.bytes", found.pool_bytes, wanted.pool_bytes)?;
    }
    same("extent_bytes", found.extent_bytes, wanted.extent_bytes)?;
    same("hosts", found.hosts.into(), wanted.hosts.into())?;
    if !expected.any_places {
        same("the number of places for brokers", found.brokers.into(), wanted.brokers.into())?;
    }
    same("lanes_per_broker", found.lanes_per_broker.into(), wanted.lanes_per_broker.into())?;
    same("attached_per_broker", found.attached_per_broker.into(), wanted.attached_per_broker.into())?;
    if !expected.any_candidates {
        same("the number of sequencer candidates", found.candidates.into(), wanted.candidates.into())?;
    }
    same("ring_slots", found.ring_slots.into(), wanted.ring_slots.into())?;
    same("segment_entries", found.segment_entries.into(), wanted.segment_entries.into())?;
    same("segments", found.segments.into(), wanted.segments.into())?;
    same("sessions_max", found.sessions_max.into(), wanted.sessions_max.into())?;
    same("topics_max", found.topics_max.into(), wanted.topics_max.into())?;
    same("cursors_max", found.cursors_max.into(), wanted.cursors_max.into())
}

fn agree_on_homes(path: &Path, found: &HomeHosts, expected: &Wanted) -> Result<(), PoolError> {
    let wanted = &expected.homes;
    let part = |kind, any: bool, found: &[u32], wanted: &[u32]| {
        let found = if any { &[] } else { found };
        let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        differs.map(|number| (format!("{kind} {number}"), found[number], wanted[number]))
    };
    let differs = part("broker", expected.any_places, &found.brokers, &wanted.brokers)
        .or_else(|| part("sequencer candidate", expected.any_candidates, &found.candidates, &wanted.candidates));
    match differs {
        Some((part, found, expected)) => Err(PoolError::Home { path: path.into(), part, found, expected }),
        None => Ok(()),
    }
}

fn agree_on_coherence(path: &Path, found: CoherenceMode, wanted: Option<CoherenceMode>) -> Result<(), PoolError> {
    match wanted {
        Some(expected) if expected != found => Err(PoolError::Coherence { path: path.into(), found, expected }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
