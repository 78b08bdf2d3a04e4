//! What can be told before anything is touched: whether this machine can run what is configured.
//!
//! What is wrong wherever it runs is refused by the configuration itself. Here it is held against a machine: refused if it could not
//! start on this one; unless its pool is a device that is not here, for then it is meant for another machine, and what
//! only that one can tell is said instead.

use std::path::Path;

use crate::config::{Config, ExportConfig, Place, ReceiveConfig, word};
use crate::embarlet::error::StartError;
use crate::embarlet::places::check_brokers;
use crate::embarlet::pool::{geometry, memory_limit, pool_bytes};
use crate::pool::layout::{Layout, LayoutError};
use crate::pool::region::{PoolError, device_bytes, device_node, free_bytes, is_missing_device, unmappable_device};
use crate::roles::receive::SPARE_CONNECTIONS;
use crate::runtime::IdlePolicy;
use crate::runtime::cpu::{numa_node, usable_cores};
use crate::runtime::machine::raise_limits;
use crate::runtime::{RoleKind, RoleSpec, plan};

/// Descriptors of everything but connections, with room to spare: the pool, its locks, rings, listeners, log, signals.
const DESCRIPTORS_BESIDE: u64 = 48;
const DESCRIPTORS_PER_BROKER: u64 = 8;

/// Which role would run on which core of this machine, and why.
///
/// # Errors
/// What a start would be refused with.
pub fn describe_plan(config: &Config, brokers: &[u32]) -> Result<String, StartError> {
    check_brokers(config, brokers)?;
    let (roles, usable) = (role_specs(config, brokers, Some(0)), usable_cores()?);
    let plan = plan(&roles, &usable, &config.rested_threads())?;
    let cores: Vec<String> = usable.ids.iter().map(ToString::to_string).collect();
    let quota = match usable.count() < usable.ids.len() {
        true => format!(", of which {} may be busy at once (CPU quota)", usable.count()),
        false => String::new(),
    };
    let threads = &config.threads;
    let spinning = plan.threads.iter().filter(|thread| thread.idle == IdlePolicy::Spin).count();
    let mut text = format!(
        "usable cores: {}{quota}; the first of each physical core come first, and core {} is given out last: interrupts are mostly there\n\
         asked for: threads.mode {}, threads.cores {}, threads.idle {}; {} roles\n",
        cores.join(", "),
        cores[0],
        word(&threads.mode),
        threads.cores.as_ref().map_or("auto".to_owned(), |cores| format!("{cores:?}")),
        word(&threads.idle),
        roles.len()
    );
    text += &plan.describe(&roles);
    text += &format!(
        "why: {spinning} threads spin, at most {} may: one usable core is left for whoever the broker serves\n",
        usable.count() - 1
    );
    if let Some(node) = device_node(&config.pool.path) {
        text += &plan.describe_distance(node, numa_node);
    }
    Ok(text)
}

/// Looks at everything that a start would need. Gives what could not be looked at here.
///
/// # Errors
/// What a start would be refused with.
pub fn check(config: &Config, file: Option<&Path>, brokers: Option<&[u32]>) -> Result<Vec<String>, StartError> {
    let path = &config.pool.path;
    let mut notes = Vec::new();
    if is_missing_device(path) {
        if let Some(error) = unmappable_device(path) {
            return Err(error.into());
        }
        let needed = lay_out_for_any_size(config, file)?;
        notes.push(format!(
            "{} is not on this machine: the configuration is for another one, and only that can tell whether its cores, the \
             device's size (at least {needed} bytes are needed) and alignment, and its limits are enough",
            path.display()
        ));
        return Ok(notes);
    }
    let bytes = length(config)?;
    lay_out(config, bytes, file)?;
    let all: Vec<u32> = (0..config.brokers.len() as u32).collect();
    match brokers {
        Some(brokers) => check_brokers(config, brokers)?,
        None if check_brokers(config, &all).is_err() => {
            notes.push(
                "its brokers are on several hosts: cores and descriptors were not looked at; say --brokers".into(),
            );
            return Ok(notes);
        }
        None => {}
    }
    let brokers = brokers.unwrap_or(&all);
    plan(&role_specs(config, brokers, Some(0)), &usable_cores()?, &config.rested_threads())?;
    notes.extend(descriptors(config, brokers)?);
    Ok(notes)
}

/// Length that the pool has, or would be made with.
fn length(config: &Config) -> Result<u64, StartError> {
    let path = &config.pool.path;
    if let Some(found) = device_bytes(path)? {
        let bytes = config.pool.bytes.unwrap_or(found);
        if bytes > found {
            return Err(PoolError::DeviceTooSmall { path: path.clone(), found, expected: bytes }.into());
        }
        return Ok(bytes);
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(PoolError::Directory { path: path.clone() }.into()),
        Ok(meta) if !meta.is_file() => return Err(PoolError::Kind { path: path.clone() }.into()),
        Ok(meta) if meta.len() > 0 => return Ok(config.pool.bytes.unwrap_or(meta.len())),
        _ => {}
    }
    let bytes = pool_bytes(config)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let free = free_bytes(folder).map_err(|source| StartError::Free { path: path.clone(), source })?;
    if free < bytes {
        let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
        return Err(PoolError::NoRoom { path: path.clone(), bytes, free, source }.into());
    }
    memory_limit(config, bytes)?;
    Ok(bytes)
}

/// Sizes that do not fit together are the file's fault, not the pool's: they are told with file and line.
pub fn lay_out(config: &Config, pool_bytes: u64, file: Option<&Path>) -> Result<Layout, StartError> {
    let place = || Config::place_of(file, "pool.bytes");
    Layout::new(geometry(config, pool_bytes)).map_err(|source| layout_error(place(), source))
}

fn layout_error(place: Place, source: LayoutError) -> StartError {
    StartError::Layout { place, source }
}

/// The smallest pool that this configuration fits.
fn lay_out_for_any_size(config: &Config, file: Option<&Path>) -> Result<u64, StartError> {
    match (config.pool.bytes, Layout::new(geometry(config, 0))) {
        (Some(bytes), _) => lay_out(config, bytes, file).map(|_| bytes),
        (None, Err(LayoutError::TooSmall { needed, .. })) => Ok(needed),
        (None, Err(source)) => Err(layout_error(Config::place_of(file, "pool.bytes"), source)),
        (None, Ok(layout)) => Ok(layout.geometry.pool_bytes),
    }
}

/// The roles of a process with brokers in these places, in the order in which they are made. `candidate` is where it runs the sequencer; none: it waits for
/// a place.
pub fn role_specs(config: &Config, brokers: &[u32], candidate: Option<u32>) -> Vec<RoleSpec> {
    let mut specs = Vec::new();
    let lanes = config.geometry.lanes_per_broker;
    for broker in brokers.iter().copied() {
        for number in broker * lanes..(broker + 1) * lanes {
            specs.push(RoleSpec { name: format!("receive {broker}/{number}"), kind: RoleKind::Receive, broker });
        }
        specs.push(RoleSpec { name: format!("ack {broker}"), kind: RoleKind::Ack, broker });
        specs.push(RoleSpec { name: format!("export {broker}"), kind: RoleKind::Export, broker });
    }
    let name = candidate.map_or("sequence".into(), |slot| format!("sequence {slot}"));
    specs.push(RoleSpec { name, kind: RoleKind::Sequence, broker: brokers[0] });
    specs
}

/// What a process needs of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorsNeeded {
    /// Connections that are configured.
    pub connections: u64,
    /// Descriptors in all.
    pub needed: u64,
    /// Whether nobody chose the numbers of connections: fewer are served then.
    pub is_default: bool,
}

/// What a process with so many brokers needs of descriptors.
pub fn descriptors_needed(config: &Config, brokers: u64) -> DescriptorsNeeded {
    let (receive, export) = (config.receive.connections_max, config.export.connections_max);
    let lanes = u64::from(config.geometry.lanes_per_broker);
    let connections = brokers * (lanes * u64::from(receive + SPARE_CONNECTIONS) + u64::from(export));
    let needed = connections + DESCRIPTORS_BESIDE + brokers * DESCRIPTORS_PER_BROKER;
    let is_default =
        receive == ReceiveConfig::default().connections_max && export == ExportConfig::default().connections_max;
    DescriptorsNeeded { connections, needed, is_default }
}

/// Refuses connections that cannot all be had. Numbers that nobody chose, the defaults, are a warning: a small limit serves
/// fewer.
pub(super) fn descriptors(config: &Config, brokers: &[u32]) -> Result<Option<String>, StartError> {
    let found = raise_limits().descriptors;
    let DescriptorsNeeded { connections, needed, is_default } = descriptors_needed(config, brokers.len() as u64);
    if needed <= found {
        return Ok(None);
    }
    let error = StartError::Descriptors { connections, needed, found };
    if is_default { Ok(Some(format!("fewer connections than configured: {error}"))) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_beyond_the_limit_are_told_and_chosen_numbers_refused() {
        let mut config = Config::embedded();
        config.geometry.lanes_per_broker = 200;
        let brokers = [0, 1, 2, 3];
        // 832,000 connections: above what this process may have, or the test says nothing.
        if raise_limits().descriptors < 800_000 {
            let note = descriptors(&config, &brokers).unwrap();
            assert!(note.is_some_and(|note| note.contains("ulimit -Hn")));
            config.receive.connections_max = 1000;
            let refused = descriptors(&config, &brokers).unwrap_err();
            assert!(matches!(refused, StartError::Descriptors { needed, found, .. } if needed > found), "{refused}");
        }
        (config.geometry.lanes_per_broker, config.receive.connections_max) = (1, 16);
        config.export.connections_max = 16;
        assert_eq!(descriptors(&config, &brokers).unwrap(), None);
    }

    #[test]
    fn a_configuration_for_another_machine_is_looked_at_as_far_as_it_goes() {
        for file in [include_str!("../../config/cxl-64-core.yaml"), include_str!("../../config/cxl-two-hosts.yaml")] {
            let mut config = Config::parse(file, "shipped").unwrap();
            config.pool.path = "/dev/dax987.0".into();
            let notes = check(&config, None, None).unwrap();
            assert!(notes[0].contains("is not on this machine") && notes[0].contains("bytes are needed"), "{notes:?}");
            config.pool.bytes = Some(1 << 30);
            assert!(matches!(check(&config, None, None), Err(StartError::Layout { .. })), "too small wherever it runs");
        }
    }

    #[test]
    fn what_could_not_start_here_is_refused() {
        let mut config = Config::embedded();
        config.pool.path = std::env::temp_dir();
        assert!(matches!(check(&config, None, None), Err(StartError::Pool(PoolError::Directory { .. }))));
        config.pool.path = "/dev/shm/embarcadero-preflight-not-there".into();
        config.pool.bytes = Some(64 << 40);
        assert!(matches!(check(&config, None, None), Err(StartError::Pool(PoolError::NoRoom { .. }))));
        config.pool.bytes = Some(512 << 20);
        assert_eq!(check(&config, None, Some(&[0])).map_err(|error| error.to_string()), Ok(vec![]));
        config.threads.cores = Some(vec![997]);
        assert!(matches!(check(&config, None, None), Err(StartError::Plan(_))));
    }
}
