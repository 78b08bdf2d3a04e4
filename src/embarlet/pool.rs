//! The pool that a configuration asks for: laid out how, how large, made or only opened.

use std::path::Path;

use crate::config::{Config, Create as ConfigCreate, auto_pool_bytes};
use crate::embarlet::error::StartError;
use crate::embarlet::progress;
use crate::pool::layout::Geometry;
use crate::pool::region::{Create, Wanted, device_bytes};
use crate::pool::superblock::{HomeHosts, SuperblockError};
use crate::pool::{Pool, PoolError};
use crate::runtime::machine::{is_in_memory, memory_room};

/// The geometry a configuration asks for, on a pool of `pool_bytes`.
pub fn geometry(config: &Config, pool_bytes: u64) -> Geometry {
    let g = &config.geometry;
    Geometry {
        pool_bytes,
        extent_bytes: g.extent_bytes,
        hosts: g.hosts,
        brokers: g.hosts * config.brokers_per_host(),
        lanes_per_broker: g.lanes_per_broker,
        candidates: config.candidates(),
        ring_slots: g.ring_slots,
        segment_entries: g.segment_entries,
        segments: g.segments,
        sessions_max: g.sessions_max,
        topics_max: g.topics_max,
        cursors_max: g.cursors_max,
        extents: 0,
        attached_per_broker: g.attached_per_broker,
        spare_per_host: (config.brokers_per_host() - config.listed_per_host()) as u16,
    }
}

/// The host of each place for a broker, and of each for a sequencer candidate: the former host by host, the latter on the hosts in turn.
pub fn home_hosts(config: &Config) -> HomeHosts {
    let (hosts, of_host) = (config.geometry.hosts, config.brokers_per_host());
    HomeHosts {
        brokers: (0..hosts * of_host).map(|place| place / of_host).collect(),
        candidates: (0..config.candidates()).map(|place| place % hosts).collect(),
    }
}

/// Length a new pool of this configuration would have, bytes.
pub fn pool_bytes(config: &Config) -> Result<u64, StartError> {
    if let Some(bytes) = config.pool.bytes {
        return Ok(bytes);
    }
    let path = &config.pool.path;
    if let Some(bytes) = device_bytes(path)? {
        return Ok(bytes);
    }
    let free = |source| StartError::Free { path: path.clone(), source };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let free_bytes = crate::pool::region::free_bytes(folder).map_err(free)?;
    let available = available_memory().map_err(free)?;
    // A container's limit says less than the machine has, and what is above it is killed without a word.
    let limit = memory_room().filter(|room| room.free_bytes < available);
    let limited = limit.as_ref().map_or(String::new(), |room| {
        format!(
            " (the memory available is what the limit of control group {}, {} bytes, leaves)",
            room.group.display(),
            room.limit_bytes
        )
    });
    let available = limit.map_or(available, |room| room.free_bytes);
    auto_pool_bytes(free_bytes, available).map_err(|source| StartError::AutoPool {
        path: path.clone(),
        source,
        limited,
    })
}

/// `MemAvailable`, bytes.
fn available_memory() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemAvailable"))
}

/// Whether a pool may be made: as the command line says, else as the configuration does.
pub fn creation(config: &Config, format: bool, overwrite_foreign: bool) -> Create {
    match (format, config.pool.create) {
        (true, _) if overwrite_foreign => Create::Overwrite,
        (true, _) => Create::Format,
        (false, ConfigCreate::IfMissing) => Create::IfMissing,
        (false, ConfigCreate::Never) => Create::Never,
    }
}

/// What a process with this configuration expects its pool to be, or would make it with so many bytes.
pub fn wanted(config: &Config, pool_bytes: u64) -> Wanted {
    Wanted {
        geometry: geometry(config, pool_bytes),
        any_size: config.pool.bytes.is_none(),
        any_places: config.geometry.brokers_per_host.is_none(),
        any_candidates: config.sequencer.candidates.is_none(),
        homes: home_hosts(config),
        coherence: Some(config.pool.coherence),
        told: progress::show,
    }
}

/// Opens the configured pool.
pub fn open_pool(config: &Config, create: Create) -> Result<Pool, StartError> {
    let path = &config.pool.path;
    let open = |bytes, create| Pool::open_as(path, &wanted(config, bytes), create);
    let is_made = matches!(create, Create::Format | Create::Overwrite);
    let exists = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0 || !meta.is_file());
    if !is_made && (exists || create == Create::Never) {
        // It keeps its size: how much is free now says nothing about it.
        match open(config.pool.bytes.unwrap_or(u64::MAX >> 1), Create::Never) {
            Err(PoolError::Superblock {
                source: SuperblockError::Unformatted | SuperblockError::Short { found: 0 },
                ..
            }) if create == Create::IfMissing => {}
            result => return Ok(result?),
        }
    }
    let bytes = pool_bytes(config)?;
    memory_limit(config, bytes)?;
    Ok(open(bytes, create)?)
}

/// A pool that lies in memory counts against the limits of control groups: beyond them the kernel kills without a word.
pub(super) fn memory_limit(config: &Config, bytes: u64) -> Result<(), StartError> {
    let path = &config.pool.path;
    let folder = path.parent().unwrap_or(Path::new("/"));
    match memory_room() {
        Some(room) if room.free_bytes < bytes && is_in_memory(folder) => {
            let (free, limit) = (room.free_bytes, room.limit_bytes);
            Err(StartError::MemoryLimit { path: path.clone(), bytes, free, limit, group: room.group })
        }
        _ => Ok(()),
    }
}
