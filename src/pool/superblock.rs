//! The first 4 KiB of a pool: what it is, in which version, laid out how. Immutable; written last when formatting.

use bytemuck::{Zeroable, bytes_of, from_bytes};

use crate::described;
use crate::pool::layout::{Geometry, Layout, SUPERBLOCK_BYTES};

/// First eight bytes of every pool.
pub const MAGIC: u64 = u64::from_le_bytes(*b"EMBRPOOL");
/// Version of the pool's layout and of every record in it. Compared exactly.
pub const LAYOUT_VERSION: u32 = 2;

described! {
    /// What a pool says of itself.
    pub struct Superblock: 128 {
        /// "EMBRPOOL"
        magic: u64,
        /// layout version, 1
        layout_version: u32,
        /// CRC32C of this struct with this field as 0
        crc: u32,
        /// random identity of this pool
        uuid: [u64; 2],
        /// random key that session tokens are made with
        token_key: [u64; 2],
        /// format time, UTC ns
        formatted_at: u64,
        /// 0
        reserved: u64,
        /// geometry, 64 bytes
        geometry: [u64; 8],
    }
}

/// Why bytes are not a pool this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Shorter than a superblock.
    #[error(
        "it holds {found} bytes, less than a superblock of {SUPERBLOCK_BYTES}; it is truncated or no pool: remove it, or name another path"
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
    /// All zero: never formatted, or formatting was cut short.
    #[error("it was never completely formatted; format it with `embarlet --config FILE --format`")]
    Unformatted,
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
    pub fn new(geometry: Geometry, uuid: [u64; 2], token_key: [u64; 2], formatted_at: u64) -> Superblock {
        let mut superblock = Superblock {
            magic: MAGIC,
            layout_version: LAYOUT_VERSION,
            crc: 0,
            uuid,
            token_key,
            formatted_at,
            reserved: 0,
            geometry: bytemuck::cast(geometry),
        };
        superblock.crc = superblock.computed_crc();
        superblock
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
                "{} extents a lane, computed {}",
                geometry.extents_per_lane, layout.geometry.extents_per_lane
            )));
        }
        Ok((superblock, layout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::layout::tests::small;

    fn good() -> (Vec<u8>, u64) {
        let layout = Layout::new(small()).unwrap();
        let block = Superblock::new(layout.geometry, [1, 2], [3, 4], 5);
        (bytes_of(&block).to_vec(), layout.geometry.pool_bytes)
    }

    #[test]
    fn what_was_written_reads_back() {
        let (bytes, length) = good();
        assert!(Superblock::read(&bytes, length).is_ok());
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
        assert!(matches!(Superblock::read(&[0; 4096], 4096), Err(SuperblockError::Unformatted)));
        assert!(matches!(Superblock::read(&bytes[..100], 100), Err(SuperblockError::Short { .. })));
        assert!(matches!(Superblock::read(&bytes, length - 1), Err(SuperblockError::Geometry(_))));
    }
}
