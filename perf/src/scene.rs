//! A pool of the bench's own, with a sequencer that no broker process drives.

use std::path::{Path, PathBuf};

use embarcadero::config::CoherenceMode;
use embarcadero::log::{Homes, View};
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::region::{Create, HostLock, LockName, Wanted};
use embarcadero::pool::superblock::HomeHosts;
use embarcadero::pool::{Geometry, Mapped, Pool};
use embarcadero::roles::sequence::TakeoverSettings;
use embarcadero::roles::sequence::active::SequencerSettings;
use embarcadero::roles::sequence::candidate::Candidate;

use crate::error::CompareError;

/// A pool of one host, and the lock of its sequencer.
pub struct BenchPool {
    /// Where it lies.
    pub path: PathBuf,
    /// The pool.
    pub pool: Pool,
    name: &'static str,
}

impl BenchPool {
    /// A new one at `path`, for the bench of this name.
    pub fn create(
        name: &'static str,
        path: &Path,
        geometry: Geometry,
        coherence: CoherenceMode,
    ) -> Result<BenchPool, CompareError> {
        let homes = HomeHosts::single_host(&geometry);
        let coherence = Some(coherence);
        let wanted = Wanted {
            geometry,
            any_size: false,
            any_places: false,
            any_candidates: false,
            homes,
            coherence,
            told: |_| (),
        };
        let pool = Pool::open_as(path, &wanted, Create::IfMissing)
            .map_err(|error| CompareError::Usage(format!("{name}: {error}")))?;
        Ok(BenchPool { path: path.to_owned(), pool, name })
    }

    /// Touches all of it.
    pub fn touch(&self) -> Result<(), CompareError> {
        let bytes = self.pool.layout().geometry.pool_bytes;
        let touched = self.pool.mapping().populate(0, bytes);
        touched.map_err(CompareError::io(format!("{}: touching the pool", self.name)))
    }

    /// The right to be its sequencer.
    pub fn lock(&self) -> Result<HostLock, CompareError> {
        let lock = self.pool.lock(LockName::Candidate(0));
        lock.map_err(|error| CompareError::Usage(format!("{}: {error}", self.name)))
    }
}

/// The pool as this host sees it.
pub fn view<C: Coherence>(pool: &Pool) -> View<Mapped<C>> {
    let homes = Homes::new(0, pool.superblock().homes());
    View::new(Mapped::<C>::new(pool.mapping().clone()), pool.layout().clone(), homes)
}

/// A sequencer with the usual settings. The caller holds its lock.
pub fn candidate<C: Coherence>(view: &View<Mapped<C>>) -> Candidate<Mapped<C>> {
    let settings = SequencerSettings {
        session_lease_ns: 5_000_000_000,
        session_expiry_ns: 300_000_000_000,
        retention_bytes: 0,
        retention_ns: 0,
        reader_stall_ns: 10_000_000_000,
        member_silence_ns: 2_000_000_000,
    };
    Candidate::new(view, 0, settings, TakeoverSettings { after_ns: 500_000_000, settle_ns: 0 })
}
