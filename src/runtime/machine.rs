//! What this machine and its limits leave this process: descriptors, locked memory, memory of its control groups.

use std::fs;
use std::path::{Path, PathBuf};

use crate::runtime::os::{self, Resource, limit, raise};

/// What a process may use, after its limits were raised as far as they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors.
    pub descriptors: u64,
    /// Locked memory, bytes.
    pub locked_bytes: u64,
}

/// Raises the limits in effect to the highest this process may have. One that cannot be raised stays as it is: what does not fit
/// says so later.
pub fn raise_limits() -> Limits {
    let raised = |resource| {
        let or_current = |_| limit(resource).map_or(u64::MAX, |(soft, _)| soft);
        raise(resource).unwrap_or_else(or_current)
    };
    Limits { descriptors: raised(Resource::Descriptors), locked_bytes: raised(Resource::LockedMemory) }
}

/// Locked memory that all processes of this user may have, bytes; `u64::MAX`: no limit.
pub fn locked_bytes_limit() -> u64 {
    limit(Resource::LockedMemory).map_or(u64::MAX, |(soft, _)| soft)
}

/// Whether files of the file system at `path` lie in memory.
pub fn is_in_memory(path: &Path) -> bool {
    os::is_in_memory(path).unwrap_or(false)
}

/// The control group that leaves this process the least memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRoom {
    /// Bytes its limit leaves now; what the kernel can drop counts as free.
    pub free_bytes: u64,
    /// Its limit, bytes.
    pub limit_bytes: u64,
    /// Its folder.
    pub group: PathBuf,
}

/// What the memory limits of this process's control groups, version 1 or 2, and of those above them leave; none without a limit.
pub fn memory_room() -> Option<MemoryRoom> {
    memory_room_below(Path::new("/"))
}

/// The same, as `/proc` and the hierarchies below another root say it.
pub fn memory_room_below(root: &Path) -> Option<MemoryRoom> {
    let rooms = group_folders_below(root, "memory").into_iter().filter_map(|folder| room_of(&folder));
    rooms.min_by_key(|room| room.free_bytes)
}

/// Folders of the control groups of this process that a controller, such as `memory`, `cpu` or `pids`, may limit, and of those above
/// them; those of version 2 whether or not they have it. `/proc` and the hierarchies are looked for below `root`.
pub fn group_folders_below(root: &Path, controller: &str) -> Vec<PathBuf> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let found = folders(&read("proc/self/cgroup"), &read("proc/self/mountinfo"), controller);
    found.into_iter().map(|folder| root.join(folder.strip_prefix("/").unwrap_or(&folder))).collect()
}

/// Folders of the groups this process is in that the controller may limit, and of those above.
fn folders(groups: &str, mounts: &str, wanted: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        // number:controllers:path, see cgroups(7); version 2 has number 0 and no controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let is_second = number == "0" && controllers.is_empty();
        if !is_second && !controllers.split(',').any(|controller| controller == wanted) {
            continue;
        }
        let Some((root, point)) = mounts.lines().find_map(|mount| mount_of(mount, is_second, wanted)) else { continue };
        // In a namespace of its own a process may see a path that its mount does not have.
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("/").trim_start_matches('/');
        let mut folder = point.join(below);
        while folder.starts_with(&point) {
            folders.push(folder.clone());
            if !folder.pop() {
                break;
            }
        }
    }
    folders
}

/// Root and mount point of a hierarchy that may have the controller: fields 4 and 5, the type behind the dash, options last: see proc(5).
fn mount_of(line: &str, second: bool, wanted: &str) -> Option<(String, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut kind = kind.split(' ');
    let is_it = match (kind.next()?, second) {
        ("cgroup2", true) => true,
        ("cgroup", false) => kind.next_back()?.split(',').any(|option| option == wanted),
        _ => false,
    };
    is_it.then(|| (root.into(), point.into()))
}

fn room_of(folder: &Path) -> Option<MemoryRoom> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit_bytes = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    // Version 1 says "no limit" with a number near the highest there is.
    if limit_bytes >= 1 << 60 {
        return None;
    }
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let said = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse::<u64>().ok())
    };
    // Pages of files that were not used lately are dropped before anybody goes without.
    let droppable = said("total_inactive_file").or_else(|| said("inactive_file")).unwrap_or(0);
    let free_bytes = limit_bytes.saturating_sub(used.saturating_sub(droppable));
    Some(MemoryRoom { free_bytes, limit_bytes, group: folder.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_and_those_above_are_found() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      34 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 30 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let found = folders("5:cpu:/x\n4:memory:/a/b\n0::/s\n", mounts, "memory");
        let expected = ["memory/a/b", "memory/a", "memory", "unified/s", "unified"];
        assert_eq!(found, expected.map(|name| Path::new("/sys/fs/cgroup").join(name)));
        let of_cpu = folders("5:cpu:/x\n4:memory:/a/b\n", mounts, "cpu");
        assert_eq!(of_cpu, ["cpu/x", "cpu"].map(|name| Path::new("/sys/fs/cgroup").join(name)));
        // A container whose mount shows a part of the hierarchy, and one whose namespace begins at its own group.
        let inside = "35 30 0:31 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(folders("0::/docker/7/c\n", inside, "memory")[0], Path::new("/sys/fs/cgroup/c"));
        assert_eq!(folders("0::/../other\n", inside, "memory")[0], Path::new("/sys/fs/cgroup"));
        assert!(folders("", "", "memory").is_empty() && folders("nonsense\n", "nonsense\n", "memory").is_empty());
    }

    #[test]
    fn what_a_limit_leaves() {
        let folder = std::env::temp_dir().join(format!("embarcadero-cgroup-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        put("memory.max", "max\n");
        put("memory.current", "900\n");
        assert_eq!(room_of(&folder), None);
        put("memory.max", "1000\n");
        put("memory.stat", "anon 500\ninactive_file 300\nactive_file 100\n");
        assert_eq!(room_of(&folder).map(|room| (room.free_bytes, room.limit_bytes)), Some((400, 1000)));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn limits_are_raised_and_stay() {
        let raised = raise_limits();
        assert_eq!(raised, raise_limits());
        assert_eq!(locked_bytes_limit(), raised.locked_bytes);
        assert_eq!(limit(Resource::Descriptors).unwrap(), (raised.descriptors, raised.descriptors));
    }
}
