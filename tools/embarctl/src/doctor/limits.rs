//! Limits of this process: of the user, and of the control groups it is in.

use std::path::{Path, PathBuf};

use embarcadero::embarlet::preflight::descriptors_needed;
use embarcadero::embarlet::rings::RingShare;
use embarcadero::net::Ring;
use embarcadero::net::network::FRAME_BYTES;
use embarcadero::net::ring::RingError;
use embarcadero::runtime::machine::{group_folders_below, memory_room_below};

use super::Seen;
use super::report::{Check, State};
use super::tree::{Tree, size};

/// The right to lock memory without a limit, see capabilities(7).
const CAP_IPC_LOCK: u64 = 1 << 14;
/// The rights to have more processes than the limit allows: CAP_SYS_ADMIN, CAP_SYS_RESOURCE.
const CAP_PROCESSES: u64 = 1 << 21 | 1 << 24;

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![locked_memory(seen), descriptors(seen), threads(seen), group_memory(seen), group_cores(seen)]
}

/// The limit in effect and the highest it can be raised to, which is what a broker does with the first two; `u64::MAX`: none.
fn limit(tree: &Tree, name: &str) -> Option<(u64, u64)> {
    let limits = tree.text("proc/self/limits")?;
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut numbers =
        rest.split_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    Some((numbers.next()??, numbers.next()??))
}

fn has_right(tree: &Tree, rights: u64) -> bool {
    let effective = tree.line("proc/self/status", "CapEff");
    effective.and_then(|word| u64::from_str_radix(&word, 16).ok()).is_some_and(|found| found & rights != 0)
}

fn locked_memory(seen: &Seen<'_>) -> Check {
    const NAME: &str = "locked memory";
    let Some((_, hard)) = limit(seen.tree, "Max locked memory") else {
        return Check::unknown(NAME, "\"Max locked memory\" in /proc/self/limits");
    };
    let of_ring = |ring: &RingShare| Ring::locked_bytes(ring.operations) + u64::from(ring.frames) * FRAME_BYTES as u64;
    let rings: u64 = seen.needs.rings().iter().map(of_ring).sum();
    let needed = match seen.needs.zero_copy() {
        true => format!("unlimited: zero-copy sends pin what is under way (or copy), beside {} of rings", size(rings)),
        false => format!("{} for rings; nothing is sent without a copy", size(rings)),
    };
    let found = if hard == u64::MAX { "unlimited".to_owned() } else { format!("{} at most (hard limit)", size(hard)) };
    if has_right(seen.tree, CAP_IPC_LOCK) {
        return Check::new(
            NAME,
            State::Ok,
            format!("no limit holds for this user (CAP_IPC_LOCK); without it: {found}"),
        );
    }
    let is_enough = hard == u64::MAX || !seen.needs.zero_copy() && hard >= rings;
    // Not every kernel counts rings.
    let is_refused = matches!(seen.asked.rings, Err(RingError::LockedMemory { .. }));
    Check::new(NAME, if is_refused { State::Fail } else { State::Warn }, found)
        .needed(format!("{needed}; all processes of a user share it"))
        .remedy("LimitMEMLOCK=infinity        # in the unit; or in /etc/security/limits.d/:")
        .remedy("embarcadero - memlock unlimited")
        .ok_if(is_enough && !is_refused)
}

fn descriptors(seen: &Seen<'_>) -> Check {
    const NAME: &str = "descriptors";
    let Some((_, hard)) = limit(seen.tree, "Max open files") else {
        return Check::unknown(NAME, "\"Max open files\" in /proc/self/limits");
    };
    let need = descriptors_needed(&seen.needs.config, seen.needs.brokers.len() as u64);
    let what = format!("{} for {} connections", need.needed, need.connections);
    let found = if hard == u64::MAX { "unlimited".to_owned() } else { format!("{hard} at most (hard limit)") };
    if need.needed <= hard {
        return Check::new(NAME, State::Ok, format!("{found}; needed: {what}"));
    }
    // As a broker does: fewer connections than the defaults are served all the same.
    let state = if need.is_default { State::Warn } else { State::Fail };
    let check = Check::new(NAME, state, found)
        .needed(format!("{what}, as receive.connections_max, export.connections_max and lanes say"))
        .remedy(format!(
            "LimitNOFILE={}        # in the unit; or: ulimit -n {}",
            need.needed.next_power_of_two(),
            need.needed
        ));
    match seen.tree.number("proc/sys/fs/nr_open") {
        Some(most) if most < need.needed => {
            check.remedy(format!("sysctl -w fs.nr_open={}        # first", need.needed.next_power_of_two()))
        }
        _ => check,
    }
}

/// The number in a file of a group's folder; none: there is no such file, or no limit.
fn group_number(folder: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

/// Folders without the root of the tree, for people.
fn shown(tree: &Tree, folder: &Path) -> String {
    format!("/{}", folder.strip_prefix(tree.root()).unwrap_or(folder).display())
}

fn threads(seen: &Seen<'_>) -> Check {
    const NAME: &str = "threads";
    let needed = seen.needs.threads();
    let free = |folder: &PathBuf| {
        let most = group_number(folder, "pids.max")?;
        Some((most.saturating_sub(group_number(folder, "pids.current").unwrap_or(0)), most, folder.clone()))
    };
    let of_groups = group_folders_below(seen.tree.root(), "pids").iter().filter_map(free).min();
    let of_user = match limit(seen.tree, "Max processes") {
        Some((soft, _)) if soft < u64::MAX && !has_right(seen.tree, CAP_PROCESSES) => Some(soft),
        _ => None,
    };
    let mut found = Vec::new();
    found.extend(
        of_groups
            .iter()
            .map(|(free, most, folder)| format!("{free} free of {most} (pids.max of {})", shown(seen.tree, folder))),
    );
    found.extend(of_user.map(|most| format!("{most} of this user (ulimit -u)")));
    if found.is_empty() {
        found.push("no limit of this user or its control groups was found".into());
    }
    let least = of_groups.iter().map(|(free, ..)| *free).chain(of_user).min();
    Check::new(NAME, State::Fail, format!("{}; needed: {needed}", found.join(", ")))
        .needed(format!(
            "{needed}: those of the plan, some for housekeeping, one for each core while the pool is touched"
        ))
        .remedy("TasksMax=infinity        # in the unit; or: docker run --pids-limit -1 ...")
        .remedy("ulimit -u unlimited")
        .ok_if(least.is_none_or(|least| least >= needed))
}

/// What lies in memory counts against the limit: above it the kernel kills without a word.
fn group_memory(seen: &Seen<'_>) -> Check {
    const NAME: &str = "cgroup memory";
    let Some(room) = memory_room_below(seen.tree.root()) else {
        return Check::new(NAME, State::Ok, "no limit on this process or above it");
    };
    let found = format!(
        "{} free of {} (limit of {})",
        size(room.free_bytes),
        size(room.limit_bytes),
        shown(seen.tree, &room.group)
    );
    let (is_made, bytes) = (super::memory::takes_memory(seen), seen.asked.pool_bytes.as_ref().copied().unwrap_or(0));
    if !is_made {
        return Check::new(NAME, State::Ok, format!("{found}; the pool takes none of it"));
    }
    Check::new(NAME, State::Fail, found)
        .needed(format!("{} for the pool that is to be made", size(bytes)))
        .remedy("MemoryMax=infinity        # in the unit; or: docker run --memory 0 ...")
        .remedy("pool: { bytes: 320MiB }        # or another size that fits, in the configuration")
        .ok_if(room.free_bytes >= bytes)
}

/// The smallest quota, in cores, with its folder.
fn quota(seen: &Seen<'_>) -> Option<(f64, PathBuf)> {
    let of_second = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    };
    // -1, no quota, is no number of this kind.
    let of_first = |folder: &Path| {
        Some(group_number(folder, "cpu.cfs_quota_us")? as f64 / group_number(folder, "cpu.cfs_period_us")? as f64)
    };
    let folders = group_folders_below(seen.tree.root(), "cpu");
    let quotas =
        folders.into_iter().filter_map(|folder| Some((of_second(&folder).or_else(|| of_first(&folder))?, folder)));
    quotas.min_by(|one, other| one.0.total_cmp(&other.0))
}

fn group_cores(seen: &Seen<'_>) -> Check {
    const NAME: &str = "cgroup quota";
    let Some((cores, folder)) = quota(seen) else {
        return Check::new(NAME, State::Ok, "no quota on this process or above it");
    };
    let throttled = std::fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
    let throttled = throttled.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap_or("0").to_owned();
    let found = format!("{cores:.1} cores ({}), held back {throttled} times so far", shown(seen.tree, &folder));
    // Who parks uses little of it.
    let state = if seen.needs.spins() { State::Warn } else { State::Note };
    Check::new(NAME, state, found)
        .needed("no quota: whoever used it up stands still for the rest of a period, with all roles of it; give cores instead")
        .remedy("CPUQuota=        # empty, in the unit; and AllowedCPUs=2-31 for cores of its own")
}
