//! Attaching to a pool: opening it, and taking one of its places for attached clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::client::attached::{Life, damaged};
use crate::client::error::ClientError;
use crate::config::CoherenceMode;
use crate::log::namesake::look_for_namesake;
use crate::log::{Homes, View};
use crate::pool::coherence::Coherence;
use crate::pool::region::{CARE_WAIT, HostLock, LockName};
use crate::pool::{Mapped, PlaceKind, Pool, PoolError, Process};

/// Opens the pool at `path`, whatever its geometry.
pub(super) fn open(path: &Path, host: u32) -> Result<Pool, ClientError> {
    let pool = Pool::inspect(path).map_err(|error| ClientError::Pool(Arc::new(error)))?;
    let hosts = pool.layout().geometry.hosts;
    if host >= hosts {
        let expected = format!("the number of a host of the pool, 0 to {}", hosts - 1);
        return Err(ClientError::Option { option: "host", found: host.to_string(), expected });
    }
    Ok(pool)
}

/// A place of this process: nobody else writes its lines as long as this lives.
pub(super) struct Place {
    /// Keeps the mapping, and others from formatting it.
    _pool: Pool,
    pub member: u32,
    /// Its lane, if it is for publishing.
    pub lane: Option<u32>,
    _lock: HostLock,
}

/// A place that was taken, the pool as it is seen from there, and the line that shows that its process lives.
pub(super) struct Taken<C: Coherence> {
    pub place: Place,
    pub view: View<Mapped<C>>,
    pub life: Life<Mapped<C>>,
}

impl Place {
    /// Takes a free place of a host and announces it.
    pub fn take<C: Coherence>(pool: &Pool, host: u32, kind: PlaceKind) -> Result<Taken<C>, ClientError> {
        let found = pool.superblock().coherence();
        if !C::SOFTWARE && found == CoherenceMode::Software {
            // The other way round costs time only: what is written back needlessly is right on every pool.
            let error = PoolError::Coherence { path: pool.path().into(), found, expected: C::MODE };
            return Err(ClientError::Pool(Arc::new(error)));
        }
        let homes = Homes::new(host, pool.superblock().homes());
        let view = View::new(Mapped::<C>::new(pool.mapping().clone()), pool.layout().clone(), homes);
        let g = pool.layout().geometry;
        // Brokers beat all the time; an attached process only while it is used.
        look_for_namesake(&view, 0..g.brokers, Process::this().boot_id)
            .map_err(|source| ClientError::OtherHost { pool: pool.path().into(), source })?;
        let members = g.members_of(kind);
        let places: Vec<u32> = members.clone().filter(|member| view.home_of_member(*member) == host).collect();
        let free = || {
            let lock =
                |member: &u32| pool.try_to_lock(LockName::Attached(*member)).map(|lock| lock.map(|it| (*member, it)));
            places.iter().find_map(|member| lock(member).transpose()).transpose()
        };
        let io = |error| ClientError::Pool(Arc::new(error));
        let mut found = free().map_err(io)?;
        if found.is_none() && !places.is_empty() {
            // A broker of this host may have one for a moment, to give back what a dead process had there.
            std::thread::sleep(CARE_WAIT);
            found = free().map_err(io)?;
        }
        let Some((member, lock)) = found else {
            return Err(ClientError::NoPlace { pool: pool.path().into(), host, kind, places: places.len() as u32 });
        };
        let lane = (kind == PlaceKind::Publisher).then(|| g.attached_lane(member - members.start));
        let life = Life::begin(&view, member, lane, Process::this(), Instant::now());
        let life = life.map_err(damaged(pool.path()))?;
        let place = Place { _pool: pool.clone(), member, lane, _lock: lock };
        Ok(Taken { place, view, life })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::attached::tests::of_two_hosts;
    use crate::log::member::{BEAT_NS, Member};
    use crate::pool::coherence::Software;
    use crate::pool::region::Create;
    use crate::pool::superblock::HomeHosts;

    /// On host 1 without a word of the host: 0 is meant, whose places are another machine's, and no lock of it is seen here.
    #[test]
    fn no_place_of_a_host_that_another_machine_is() {
        let path = std::env::temp_dir().join(format!("embarcadero-attach-namesake-{}", std::process::id()));
        let homes = HomeHosts { brokers: vec![0, 1], candidates: vec![0] };
        let pool = Pool::open(&path, of_two_hosts(), &homes, false, Create::Overwrite).unwrap();
        let at_host_0 = Homes::new(0, homes);
        let view = View::new(Mapped::<Software>::new(pool.mapping().clone()), pool.layout().clone(), at_host_0);
        let there = Process { id: 70, started_at_utc_ns: 1, boot_id: Process::this().boot_id + 1 };
        let mut member = Member::announce(&view, 0, there);
        let take = |host| Place::take::<Software>(&pool, host, PlaceKind::Publisher).map(|taken| taken.place.member);
        let first = pool.layout().geometry.writer_member(0);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| take(0));
            let mut now_ns = 0;
            while !asked.is_finished() {
                now_ns += BEAT_NS;
                member.beat(now_ns);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let error = asked.join().unwrap().expect_err("its machine lives");
            assert!(matches!(error, ClientError::OtherHost { .. }) && !error.is_transient(), "{error}");
        });
        assert_eq!(take(1).unwrap(), first + 1, "its own host");
        assert_eq!(take(0).unwrap(), first, "the other is gone, or was this one before it was started anew");
        std::fs::remove_file(&path).unwrap();
    }
}
