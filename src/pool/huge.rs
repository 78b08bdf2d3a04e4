//! The memory of a fresh file: on huge pages where that costs no more than it is worth.
//!
//! A pool on huge pages is mapped in no time by every process, then and later. The kernel makes them of any file in memory that nobody
//! uses yet if it is asked for each (`MADV_COLLAPSE`), whatever `shmem_enabled` says and without any right. What they cost differs:
//! where the memory of a virtual machine is given back to its host in large pieces, each such page is fetched anew, and those
//! that were given back in part are at hand. So both kinds are measured all the while, and the better one is made.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::pool::coherence::Mapping;
use crate::pool::os::{self, HUGE_PAGE_BYTES};
use crate::pool::touch::{Told, by_pieces};

/// Small pages are mapped one by one by every process that maps them: a huge one may cost so many times as much.
const WORTH: u32 = 2;
/// One in so many pieces is of the other kind.
const PROBED: u64 = 32;
/// One in so many measurements is what is known of a kind.
const WEIGHT: u32 = 4;

/// Gives the file all its memory, as far as it has room. Errors: the file system is full.
pub(super) fn fill(path: &Path, file: &File, bytes: u64, tell: Told) -> io::Result<()> {
    let Ok((map, start)) = os::map_aligned(file, bytes as usize, HUGE_PAGE_BYTES as usize) else { return Ok(()) };
    let mapping = Mapping::of_part(map, start, bytes as usize);
    let costs = Mutex::new(Costs::default());
    let whole = bytes - bytes % HUGE_PAGE_BYTES;
    let filled = by_pieces("clearing", 0..whole, HUGE_PAGE_BYTES, tell, |at, bytes| {
        let is_huge = costs.lock().expect("nobody panics with it").choose(at / HUGE_PAGE_BYTES);
        let begin = Instant::now();
        if is_huge {
            // A page must be there; and a full file system says so here, where a store would end the process.
            os::allocate(file, at, 1)?;
            match mapping.collapse(at, bytes) {
                // The kernel has the page in hand just now.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {}
                other => other?,
            }
        } else {
            os::allocate(file, at, bytes)?;
            // Only now they are cleared.
            mapping.populate(at, bytes)?;
        }
        costs.lock().expect("nobody panics with it").note(is_huge, begin.elapsed());
        Ok(())
    });
    match filled {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Err(error),
        Err(error) => {
            log::debug!("pool {}: not on huge pages ({error})", path.display());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What a piece of each kind costs: small, huge.
#[derive(Clone, Copy, Debug, Default)]
struct Costs([Option<Duration>; 2]);

impl Costs {
    /// Which kind this piece is to be of: true for a huge page.
    fn choose(&self, piece: u64) -> bool {
        let is_probe = piece % PROBED == PROBED - 1;
        match self.0 {
            [_, None] => true,
            [None, Some(_)] => !is_probe,
            [Some(small), Some(huge)] => (huge <= small * WORTH) != is_probe,
        }
    }

    fn note(&mut self, is_huge: bool, cost: Duration) {
        let known = &mut self.0[usize::from(is_huge)];
        *known = Some(known.map_or(cost, |known| (known * (WEIGHT - 1) + cost) / WEIGHT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn huge_of_32(costs: &Costs) -> usize {
        (0..32).filter(|piece| costs.choose(*piece)).count()
    }

    #[test]
    fn the_cheaper_kind_is_made_and_the_other_one_is_watched() {
        let mut costs = Costs::default();
        assert_eq!(huge_of_32(&costs), 32, "nothing is known");
        costs.note(true, 2 * MS);
        assert_eq!(huge_of_32(&costs), 31);
        costs.note(false, MS);
        assert_eq!(huge_of_32(&costs), 31, "worth as much");
        for _ in 0..20 {
            costs.note(true, 8 * MS);
        }
        assert_eq!(huge_of_32(&costs), 1, "too dear");
        for _ in 0..20 {
            costs.note(false, 8 * MS);
        }
        assert_eq!(huge_of_32(&costs), 31, "small ones have become as dear");
    }
}
