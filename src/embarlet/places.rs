//! The places that a process takes in a pool: one for each of its brokers, and one to run the sequencer in, if there is one to be had.
//!
//! A place belongs to a host, and is had by whoever holds its lock there. A broker that comes back takes the place it had, by its address; else the
//! one it has in the list, so that a whole cluster started anew has the numbers it is configured in; else any.

use crate::config::Config;
use crate::embarlet::error::StartError;
use crate::log::View;
use crate::log::brokers::last_address;
use crate::pool::region::{HostLock, LockName};
use crate::pool::{Memory, Pool};

/// Takes a place for each of these brokers, which are named by where the configuration lists them.
///
/// # Errors
/// None is free, one of them runs already, or the pool cannot be locked.
pub(super) fn take<M: Memory>(
    config: &Config,
    entries: &[u32],
    pool: &Pool,
    view: &View<M>,
) -> Result<(Vec<u32>, Vec<HostLock>), StartError> {
    let brokers = view.layout.geometry.brokers;
    let here: Vec<u32> = (0..brokers).filter(|place| view.home_of_broker(*place) == view.host()).collect();
    let (mut places, mut locks) = (Vec::new(), Vec::new());
    for entry in entries.iter().map(|entry| *entry as usize) {
        let address = config.brokers[entry].advertised();
        let before = config.brokers[..entry].iter().filter(|broker| broker.host == config.brokers[entry].host).count();
        let had = here.iter().copied().find(|place| last_address(view, *place).as_deref() == Some(&address));
        let mut taken = None;
        if let Some(place) = had {
            // If it is taken, then by a process that is told to be found there: this one, started twice.
            taken = Some((place, pool.lock(LockName::Broker(place))?));
        }
        for place in here.get(before).into_iter().chain(&here).filter(|_| had.is_none()) {
            taken = pool.try_to_lock(LockName::Broker(*place))?.map(|lock| (*place, lock));
            if taken.is_some() {
                break;
            }
        }
        let Some((place, lock)) = taken else {
            let (path, host, places) = (pool.path().into(), view.host(), here.len());
            return Err(StartError::NoPlace { path, address, host, places });
        };
        places.push(place);
        locks.push(lock);
    }
    Ok((places, locks))
}

/// Takes a place in which the process of these brokers may run the sequencer, if one of its host is free: that of its first broker's rank on the host,
/// so that those which start at once have the same as ever; else the last that is free.
///
/// # Errors
/// The pool cannot be locked.
pub(super) fn take_candidate<M: Memory>(
    brokers: &[u32],
    pool: &Pool,
    view: &View<M>,
) -> Result<Option<(u32, HostLock)>, StartError> {
    let here: Vec<u32> = view.candidates_here().collect();
    let rank = (0..brokers[0]).filter(|place| view.home_of_broker(*place) == view.host()).count();
    for slot in here.get(rank).into_iter().chain(here.iter().rev()) {
        if let Some(lock) = pool.try_to_lock(LockName::Candidate(*slot))? {
            return Ok(Some((*slot, lock)));
        }
    }
    log::info!("all places of this host to run the sequencer in are taken: this process waits for one");
    Ok(None)
}

/// Holds the brokers that a process is to run against the configuration: each is there, and all are of one host.
pub(super) fn check_brokers(config: &Config, brokers: &[u32]) -> Result<(), StartError> {
    let last = config.brokers.len() as u32 - 1;
    if let Some(found) = brokers.iter().find(|broker| **broker > last) {
        return Err(StartError::UnknownBroker { found: *found, last });
    }
    let host = |broker: u32| config.brokers[broker as usize].host;
    match brokers.iter().find(|broker| host(**broker) != host(brokers[0])) {
        Some(second) => Err(StartError::TwoHosts { first: brokers[0], second: *second }),
        None => Ok(()),
    }
}
