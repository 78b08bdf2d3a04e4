//! What only asking the kernel tells: whether a ring can be set up, a port be had, the pool be looked at. Nothing is left behind.

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use embarcadero::embarlet::{pool_bytes, wanted};
use embarcadero::net::ring::{RingError, RingMode};
use embarcadero::pool::coherence::flush_described;
use embarcadero::pool::region::{LockName, free_bytes, is_missing_device};
use embarcadero::pool::{Pool, PoolError};
use embarcadero::runtime::machine::raise_limits;

use super::needs::Needs;

/// What lies at the pool's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: a file may be made there.
    Nothing,
    /// A file of so many bytes.
    File(u64),
    /// A device.
    Device,
    /// A device should be there, and is not.
    NoDevice,
}

impl Place {
    fn of(path: &Path) -> Place {
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_char_device() => Place::Device,
            Ok(meta) => Place::File(meta.len()),
            Err(_) if is_missing_device(path) => Place::NoDevice,
            Err(_) => Place::Nothing,
        }
    }

    /// Whether it is a device, or was meant to be one.
    pub fn is_device(self) -> bool {
        matches!(self, Place::Device | Place::NoDevice)
    }

    /// Whether a pool would be made there: it takes memory that is not taken yet.
    pub fn is_to_be_made(self) -> bool {
        matches!(self, Place::Nothing | Place::File(0))
    }
}

/// What a pool says of itself.
#[derive(Debug)]
pub struct PoolSaid {
    /// Its length, bytes.
    pub bytes: u64,
    /// Whether it is what the configuration wants.
    pub agrees: Result<(), PoolError>,
    /// Whether this user may write it.
    pub writable: io::Result<()>,
    /// Brokers of this host that run in it.
    pub brokers: usize,
}

/// The answers.
pub struct Asked {
    /// Rings as large as the brokers' would be, all at once.
    pub rings: Result<Option<RingMode>, RingError>,
    /// What lies at the pool's path.
    pub place: Place,
    /// Bytes free to this user where the pool's file would lie; none if there is no such folder.
    pub free_bytes: Option<u64>,
    /// Length that a new pool would have, bytes; or why it cannot be.
    pub pool_bytes: Result<u64, String>,
    /// The pool that is there.
    pub pool: Result<PoolSaid, PoolError>,
    /// Each broker's address: whether it can be listened at.
    pub ports: Vec<(SocketAddr, io::Result<()>)>,
    /// Instructions that write lines back.
    pub write_back: &'static str,
    /// How checksums are computed here, in words.
    pub checksums: String,
    /// How batches are written, in words.
    pub writes: String,
}

impl Asked {
    /// Asks.
    pub fn of(needs: &Needs) -> Asked {
        let path = needs.pool();
        let folder = path.parent().unwrap_or(Path::new("/"));
        let rings: Vec<(u32, u32)> = needs.rings().iter().map(|ring| (ring.operations, ring.frames)).collect();
        let address = |broker: &u32| needs.config.brokers[*broker as usize].address;
        // As a broker does before it sets rings up.
        raise_limits();
        // A listener that nobody connected to leaves nothing: it can be had again at once.
        let listened = |address| (address, TcpListener::bind(address).map(drop));
        Asked {
            rings: embarcadero::net::Ring::try_out(&rings),
            place: Place::of(path),
            free_bytes: free_bytes(folder).ok(),
            pool_bytes: pool_bytes(&needs.config).map_err(|error| error.to_string()),
            pool: look(needs),
            ports: needs.brokers.iter().map(address).map(listened).collect(),
            write_back: flush_described(),
            checksums: embarcadero::crc::described(),
            writes: embarcadero::pool::writes_described(),
        }
    }
}

fn look(needs: &Needs) -> Result<PoolSaid, PoolError> {
    let path = needs.pool();
    let pool = Pool::look(path)?;
    let geometry = &pool.layout().geometry;
    let runs = |broker: &u32| pool.is_locked(LockName::Broker(*broker)).unwrap_or(false);
    let expected = needs.config.pool.bytes.unwrap_or(geometry.pool_bytes);
    Ok(PoolSaid {
        bytes: geometry.pool_bytes,
        agrees: pool.agrees_with(&wanted(&needs.config, expected)),
        // Opened, and nothing else.
        writable: OpenOptions::new().read(true).write(true).open(path).map(drop),
        brokers: (0..geometry.brokers).filter(runs).count(),
    })
}
