//! The first 4 KiB of a pool: what it is, in which version, laid out how. Immutable; written last when formatting.

use bytemuck::{Zeroable, bytes_of, from_bytes};

use crate::config::CoherenceMode;
use crate::described;
use crate::pool::layout::{Geometry, Layout, SUPERBLOCK_BYTES};

/// First eight bytes of every pool.
pub const MAGIC: u64 = u64::from_le_bytes(*b"EMBRPOOL");
/// First eight bytes of a pool that is being formatted, by whoever holds the locks for it: what was cut short is told from what
/// belongs to somebody else.
pub const MAGIC_UNFINISHED: u64 = u64::from_le_bytes(*b"EMBRPART");
/// Feature bits that this program knows: none are given out yet.
pub const FEATURES_KNOWN: u64 = 0;
/// Version of the pool's layout and of every record in it. Compared exactly.
pub const LAYOUT_VERSION: u32 = 8;

described! {
    /// What a pool says of itself.
    pub struct Superblock: 256 {
        /// "EMBRPOOL"
        magic: u64,
        /// layout version, 8
        layout_version: u32,
        /// CRC32C of this struct with this field as 0
        crc: u32,
        /// random identity of this pool
        uuid: [u64; 2],
        /// random key that session tokens are made with
        token_key: [u64; 2],
        /// format time, UTC ns
        formatted_at: u64,
        /// who keeps caches in agreement: 0 software, 1 hardware; all processes of the pool do the same
        coherence: u32,
        /// fork of the log; 0 until logs are forked
        fork: u32,
        /// geometry, 64 bytes
        geometry: [u64; 8],
        /// home host of each broker
        broker_homes: [u8; 64],
        /// home host of each sequencer candidate
        candidate_homes: [u8; 8],
        /// index position at which the log was forked; 0 until logs are forked
        forked_at: u64,
        /// features that a reader must know
        features_to_read: u64,
        /// features that a writer must know
        features_to_write: u64,
        /// 0
        reserved: [u64; 4],
    }
}

/// The host each part of a pool belongs to, fixed when it is formatted: whoever attaches reads it from the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HomeHosts {
    /// Home host of each broker, and so of its lanes and of the attached places that go with it.
    pub brokers: Vec<u32>,
    /// Home host of each sequencer candidate.
    pub candidates: Vec<u32>,
}

impl HomeHosts {
    /// Everything on host 0.
    pub fn single_host(geometry: &Geometry) -> HomeHosts {
        HomeHosts { brokers: vec![0; geometry.brokers as usize], candidates: vec![0; geometry.candidates as usize] }
    }
}

const _: () = assert!(crate::limits::BROKERS_MAX <= 64 && crate::limits::CANDIDATES_MAX <= 8);
const _: () = assert!(crate::limits::HOSTS_MAX <= 256);

/// Why bytes are not a pool this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuperblockError {
    /// Shorter than a superblock.
    #[error(
        "it holds {found} bytes, less than a superblock of {SUPERBLOCK_BYTES}; it is truncated or no pool: name another path, or remove it if it is not needed"
    )]
    Short {
        /// Length, bytes.
        found: u64,
    },
    /// Not a pool.
    #[error(
        "its first bytes are {found:#018x}, not a pool's {MAGIC:#018x}; it belongs to something else: name another path, or remove it if it is not needed"
    )]
    Foreign {
        /// The first eight bytes.
        found: u64,
    },
    /// Formatting it was begun and not finished.
    #[error("it was never completely formatted; format it with `embarlet --config FILE --format`")]
    Unformatted,
    /// All zero: never formatted, or somebody else's.
    #[error(
        "its first page is all zeros: it was never completely formatted, or belongs to something else; if nobody needs it, format it with `embarlet --config FILE --format-only` (a file with `--overwrite-foreign` too), else name another path"
    )]
    Zeros,
    /// A later release's pool, with features this program does not know.
    #[error(
        "it needs features {unknown:#x} that this program does not know; use the release that made it, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Features {
        /// The unknown bits.
        unknown: u64,
    },
    /// Another layout version.
    #[error(
        "its layout version is {found}, this program's is {LAYOUT_VERSION}; use the release that made it, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Version {
        /// As found.
        found: u32,
    },
    /// Checksum mismatch.
    #[error(
        "its superblock CRC32C is {found:#010x}, computed {computed:#010x}: it is damaged; restore it, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Damaged {
        /// As stored.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// The geometry does not make sense or does not fit the mapping.
    #[error(
        "its geometry does not fit: {0}; it is damaged or truncated: restore it, or re-format with `embarlet --config FILE --format` (its data is lost)"
    )]
    Geometry(String),
}

impl Superblock {
    /// A superblock for a new pool.
    pub fn new(
        geometry: Geometry,
        homes: &HomeHosts,
        coherence: CoherenceMode,
        uuid: [u64; 2],
        token_key: [u64; 2],
        formatted_at: u64,
    ) -> Superblock {
        let mut superblock = Superblock {
            magic: MAGIC,
            layout_version: LAYOUT_VERSION,
            crc: 0,
            uuid,
            token_key,
            formatted_at,
            coherence: (coherence == CoherenceMode::Hardware).into(),
            fork: 0,
            geometry: bytemuck::cast(geometry),
            broker_homes: packed(&homes.brokers),
            candidate_homes: packed(&homes.candidates),
            forked_at: 0,
            features_to_read: 0,
            features_to_write: 0,
            reserved: [0; 4],
        };
        superblock.crc = superblock.computed_crc();
        superblock
    }

    /// Home hosts of its brokers and candidates, as it was formatted.
    pub fn homes(&self) -> HomeHosts {
        let geometry: Geometry = bytemuck::cast(self.geometry);
        let hosts = |homes: &[u8], count: u32| homes[..count as usize].iter().map(|host| u32::from(*host)).collect();
        HomeHosts {
            brokers: hosts(&self.broker_homes, geometry.brokers),
            candidates: hosts(&self.candidate_homes, geometry.candidates),
        }
    }

    /// Who keeps caches in agreement, as it was formatted.
    pub fn coherence(&self) -> CoherenceMode {
        if self.coherence == 0 { CoherenceMode::Software } else { CoherenceMode::Hardware }
    }

    fn computed_crc(&self) -> u32 {
        crate::crc::crc32c(bytes_of(&Superblock { crc: 0, ..*self }))
    }

    /// Reads and checks the superblock of `pool_bytes` bytes of memory that begin with `bytes`.
    pub fn read(bytes: &[u8], pool_bytes: u64) -> Result<(Superblock, Layout), SuperblockError> {
        const SIZE: usize = size_of::<Superblock>();
        let Some(head) = bytes.get(..SIZE) else {
            return Err(SuperblockError::Short { found: bytes.len() as u64 });
        };
        let mut aligned = Superblock::zeroed();
        bytemuck::bytes_of_mut(&mut aligned).copy_from_slice(head);
        let superblock: Superblock = *from_bytes(bytes_of(&aligned));
        if head.iter().all(|byte| *byte == 0) {
            return Err(SuperblockError::Zeros);
        }
        if superblock.magic == MAGIC_UNFINISHED {
            return Err(SuperblockError::Unformatted);
        }
        if superblock.magic != MAGIC {
            return Err(SuperblockError::Foreign { found: superblock.magic });
        }
        if superblock.layout_version != LAYOUT_VERSION {
            return Err(SuperblockError::Version { found: superblock.layout_version });
        }
        let computed = superblock.computed_crc();
        if superblock.crc != computed {
            return Err(SuperblockError::Damaged { found: superblock.crc, computed });
        }
        match (superblock.features_to_read | superblock.features_to_write) & !FEATURES_KNOWN {
            0 => {}
            unknown => return Err(SuperblockError::Features { unknown }),
        }
        let geometry: Geometry = bytemuck::cast(superblock.geometry);
        if geometry.pool_bytes > pool_bytes {
            return Err(SuperblockError::Geometry(format!(
                "it is laid out for {} bytes, there are {pool_bytes}",
                geometry.pool_bytes
            )));
        }
        let layout = Layout::new(geometry).map_err(|error| SuperblockError::Geometry(error.to_string()))?;
        if layout.geometry != geometry {
            return Err(SuperblockError::Geometry(format!(
                "{} extents, computed {}",
                geometry.extents, layout.geometry.extents
            )));
        }
        let homes = superblock.homes();
        if let Some(host) = homes.brokers.iter().chain(&homes.candidates).find(|host| **host >= geometry.hosts) {
            return Err(SuperblockError::Geometry(format!("host {host} where there are {}", geometry.hosts)));
        }
        Ok((superblock, layout))
    }
}

/// Hosts as bytes: a host's number is below [`HOSTS_MAX`](crate::limits::HOSTS_MAX).
fn packed<const N: usize>(hosts: &[u32]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(hosts).for_each(|(byte, host)| *byte = *host as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::layout::tests::small;

    fn good() -> (Vec<u8>, u64) {
        let layout = Layout::new(small()).unwrap();
        let block = Superblock::new(
            layout.geometry,
            &HomeHosts::single_host(&layout.geometry),
            CoherenceMode::Hardware,
            [1, 2],
            [3, 4],
            5,
        );
        (bytes_of(&block).to_vec(), layout.geometry.pool_bytes)
    }

    #[test]
    fn what_was_written_reads_back() {
        let (bytes, length) = good();
        let (block, _) = Superblock::read(&bytes, length).unwrap();
        assert_eq!(block.coherence(), CoherenceMode::Hardware);
    }

    #[test]
    fn features_of_later_releases_are_refused_and_so_is_what_is_not_finished() {
        let (bytes, length) = good();
        let mut block: Superblock = bytemuck::pod_read_unaligned(&bytes[..size_of::<Superblock>()]);
        for features in [[1 << 3, 0], [0, 1 << 3]] {
            [block.features_to_read, block.features_to_write] = features;
            block.crc = block.computed_crc();
            let found = Superblock::read(bytes_of(&block), length);
            assert!(matches!(found, Err(SuperblockError::Features { unknown: 8 })), "{found:?}");
        }
        block.magic = MAGIC_UNFINISHED;
        assert!(matches!(Superblock::read(bytes_of(&block), length), Err(SuperblockError::Unformatted)));
    }

    #[test]
    fn homes_are_kept_and_those_of_no_host_are_refused() {
        let layout = Layout::new(Geometry { hosts: 3, ..small() }).unwrap();
        let homes = HomeHosts { brokers: vec![2, 1], candidates: vec![1] };
        let block = Superblock::new(layout.geometry, &homes, CoherenceMode::Software, [1, 2], [3, 4], 5);
        let (read, _) = Superblock::read(bytes_of(&block), layout.geometry.pool_bytes).unwrap();
        assert_eq!(read.homes(), homes);
        let homes = HomeHosts { brokers: vec![3, 1], candidates: vec![1] };
        let block = Superblock::new(layout.geometry, &homes, CoherenceMode::Software, [1, 2], [3, 4], 5);
        let found = Superblock::read(bytes_of(&block), layout.geometry.pool_bytes);
        assert!(matches!(found, Err(SuperblockError::Geometry(_))), "{found:?}");
    }

    #[test]
    fn others_are_refused_by_name() {
        let (bytes, length) = good();
        let changed = |at: usize, value: u8| {
            let mut bad = bytes.clone();
            bad[at] = value;
            Superblock::read(&bad, length).unwrap_err()
        };
        assert!(matches!(changed(0, b'X'), SuperblockError::Foreign { .. }));
        assert!(matches!(changed(8, 9), SuperblockError::Version { found: 9 }));
        for (at, byte) in bytes.iter().enumerate().skip(12) {
            assert!(matches!(changed(at, byte ^ 1), SuperblockError::Damaged { .. }), "byte {at}");
        }
        assert!(matches!(Superblock::read(&[0; 4096], 4096), Err(SuperblockError::Zeros)));
        assert!(matches!(Superblock::read(&bytes[..100], 100), Err(SuperblockError::Short { .. })));
        assert!(matches!(Superblock::read(&bytes, length - 1), Err(SuperblockError::Geometry(_))));
    }
}
