//! Formatting a pool: over what, in how much room, in which order it is written.
//!
//! What is there is formatted over only if it is nothing (an empty file, a device whose beginning is blank), a pool of ours
//! that nobody lives in, or one whose formatting was cut short; anything else only if that is said in so many words. A pool
//! that is being formatted says so in its first word, before anything else of it is touched: so what was cut short is never taken
//! for somebody else's file that begins with zeros, nor the other way round.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;

use crate::limits::{LINE_BYTES, REGION_ALIGNMENT_BYTES};
use crate::pool::coherence::{Keep, Mapped, Memory, Software};
use crate::pool::error::PoolError;
use crate::pool::huge;
use crate::pool::layout::{MEMBER_LINES, MEMBERS_AT, SUPERBLOCK_BYTES};
use crate::pool::locks::os_error;
use crate::pool::os;
use crate::pool::superblock::{MAGIC_UNFINISHED, Superblock, SuperblockError};
use crate::pool::touch::Told;

/// How long members are watched for a beat, each of which beats at least every 100 ms.
const WATCH: Duration = Duration::from_millis(1000);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What lies where a pool is to be.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing: a file without a byte, or a device whose beginning is blank.
    Nothing,
    /// A pool of this or another version, whole, damaged or half formatted.
    Ours,
    /// Something else.
    Foreign(SuperblockError),
}

impl Found {
    /// Judges what an examination of the first page came to. `head` is the beginning of a device; a file has its length.
    pub(super) fn new(result: Result<(), SuperblockError>, device_head: Option<&Mapped<Software>>) -> Found {
        match result {
            Ok(()) => Found::Ours,
            Err(SuperblockError::Short { found: 0 }) => Found::Nothing,
            Err(SuperblockError::Zeros) if device_head.is_some_and(is_blank) => Found::Nothing,
            Err(error @ (SuperblockError::Short { .. } | SuperblockError::Foreign { .. } | SuperblockError::Zeros)) => {
                Found::Foreign(error)
            }
            Err(
                SuperblockError::Unformatted
                | SuperblockError::Version { .. }
                | SuperblockError::Features { .. }
                | SuperblockError::Damaged { .. }
                | SuperblockError::Geometry(_),
            ) => Found::Ours,
        }
    }
}

/// A device has no length that says that nothing was ever written. Whatever else lives on devices shows itself near their beginning.
fn is_blank(head: &Mapped<Software>) -> bool {
    let bytes = head.bytes().min(REGION_ALIGNMENT_BYTES);
    head.discard(0, bytes);
    head.with_bytes(0, bytes, |bytes| bytes.iter().all(|byte| *byte == 0))
}

/// The number of a member whose line changes while it is looked at: somebody lives here, on whatever host. Member lines lie at one
/// place in all versions of the layout from 3 on; what lies there in older ones does not change while nobody uses it either.
pub(super) fn living_member(head: &Mapped<Software>) -> Option<u32> {
    let bytes = u64::from(MEMBER_LINES) * LINE_BYTES;
    if head.bytes() < MEMBERS_AT + bytes {
        return None;
    }
    let words = || -> Vec<u64> {
        head.discard(MEMBERS_AT, bytes);
        (0..bytes / 8).map(|word| head.load(MEMBERS_AT + 8 * word)).collect()
    };
    let first = words();
    if first.iter().all(|word| *word == 0) {
        return None;
    }
    let deadline = Instant::now() + WATCH;
    while Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
        let now = words();
        if let Some(moved) = (0..now.len()).find(|word| now[*word] != first[*word]) {
            return Some((moved as u64 * 8 / LINE_BYTES) as u32);
        }
    }
    None
}

/// A fresh file of zeros behind the word that says it is not finished, with all its blocks reserved. Nothing of an old pool is
/// touched before it is known that there is room; a file that cannot be had is not left behind.
pub(super) fn make_room(path: &Path, file: &File, bytes: u64, is_huge: bool, tell: Told) -> Result<(), PoolError> {
    let meta = file.metadata().map_err(os_error(path, "stat it"))?;
    let give_up = |error| {
        if meta.len() == 0 {
            let _ = std::fs::remove_file(path);
        }
        error
    };
    let limit = os::file_bytes_limit().map_err(os_error(path, "ask for the limit of a file"))?;
    if limit < bytes {
        return Err(give_up(PoolError::FileLimit { path: path.into(), bytes, limit }));
    }
    // Asked first: the kernel would fill the file system to the brim before it says no. Its own blocks come back.
    let free = os::free_bytes(path).map_err(os_error(path, "ask how much is free"))? + 512 * meta.blocks();
    let no_room = |source| PoolError::NoRoom { path: path.into(), bytes, free, source };
    // Of huge pages nobody says how many this user may have.
    if free < bytes && !is_huge {
        return Err(give_up(no_room(io::Error::from_raw_os_error(libc::ENOSPC))));
    }
    file.set_len(0).map_err(os_error(path, "truncate it"))?;
    if is_huge {
        // They are zeros, and there is no write(2): whoever maps it says that it is not finished.
        return os::allocate(file, 0, bytes).map_err(|source| {
            let _ = std::fs::remove_file(path);
            PoolError::NoHugePages { path: path.into(), bytes, source }
        });
    }
    let mut page = [0; SUPERBLOCK_BYTES as usize];
    page[..8].copy_from_slice(&MAGIC_UNFINISHED.to_le_bytes());
    let begun = file.write_all_at(&page, 0).and_then(|()| file.set_len(bytes));
    begun.and_then(|()| huge::fill(path, file, bytes, tell)).and_then(|()| os::reserve(file, bytes)).map_err(|source| {
        let _ = std::fs::remove_file(path);
        no_room(source)
    })
}

/// Reserves the blocks of a pool that came here with holes, as by a copy: no store hits a full file system later.
pub(super) fn fill_holes(path: &Path, file: &File, bytes: u64) -> Result<(), PoolError> {
    let meta = file.metadata().map_err(os_error(path, "stat it"))?;
    if !meta.file_type().is_file() || 512 * meta.blocks() >= bytes {
        return Ok(());
    }
    match os::allocate(file, 0, bytes) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            let free = os::free_bytes(path).map_err(os_error(path, "ask how much is free"))?;
            Err(PoolError::Holes { path: path.into(), missing: bytes - 512 * meta.blocks(), free, source: error })
        }
        Err(error) => {
            log::warn!(
                "pool {}: its blocks cannot be reserved ({error}): if its file system runs full, this process ends with a fault",
                path.display()
            );
            Ok(())
        }
    }
}

/// Clears the tables and rings of what is written through its mapping alone; a fresh file is clear. First of all it says that this is not a pool yet.
pub(super) fn begin_mapped(view: &Mapped<Software>, fixed_bytes: u64) {
    view.copy_in(0, &MAGIC_UNFINISHED.to_le_bytes());
    view.write_back(0, 8, Keep::Dropped);
    view.store_fence();
    view.copy_in(8, &[0; SUPERBLOCK_BYTES as usize - 8]);
    view.write_back(0, SUPERBLOCK_BYTES, Keep::Dropped);
    clear(view, SUPERBLOCK_BYTES, fixed_bytes);
}

fn clear(view: &Mapped<Software>, from: u64, end: u64) {
    const CHUNK: u64 = 64 << 10;
    let zeros = vec![0; CHUNK as usize];
    let mut at = from;
    while at < end {
        let now = CHUNK.min(end - at);
        view.copy_in(at, &zeros[..now as usize]);
        view.write_back(at, now, Keep::Dropped);
        at += now;
    }
    view.store_fence();
}

/// Makes it a pool: the superblock last, and of that the first word, which says so.
pub(super) fn finish(view: &Mapped<Software>, superblock: &Superblock) {
    let bytes = bytes_of(superblock);
    view.copy_in(8, &bytes[8..]);
    view.write_back(0, SUPERBLOCK_BYTES, Keep::Dropped);
    view.store_fence();
    view.copy_in(0, &bytes[..8]);
    view.write_back(0, 8, Keep::Dropped);
    view.store_fence();
}

/// Random words: a uuid and a key.
pub(super) fn random(path: &Path) -> Result<[u64; 4], PoolError> {
    let mut bytes = [0; 32];
    let mut source = File::open("/dev/urandom").map_err(os_error(path, "open /dev/urandom"))?;
    source.read_exact(&mut bytes).map_err(os_error(path, "read /dev/urandom"))?;
    Ok(bytemuck::cast(bytes))
}
