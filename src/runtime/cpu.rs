//! The cores this process may use, pinning to one, and where one is.
//!
//! Usable means: in the affinity mask this process was started with, and within its cgroup's CPU quota. A container
//! with a quota of two CPUs on a machine with sixty-four may use two.

use std::fs;
use std::path::Path;

use core_affinity::CoreId;

use crate::runtime::os;

/// Cores cannot be found out or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The kernel does not say which cores may be used.
    #[error("cannot read the affinity mask of this process; check that sched_getaffinity is allowed here")]
    Mask,
    /// The kernel refuses a core.
    #[error(
        "cannot pin this thread to core {core}; choose one of the cores in `taskset -p $$`, or set `threads.cores: auto`"
    )]
    Pin {
        /// The core.
        core: usize,
    },
}

/// Cores this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableCores {
    /// Their numbers: one thread of each physical core first, hyperthread siblings of those last.
    pub ids: Vec<usize>,
    /// How many of them may be busy at once: all, or fewer under a CPU quota. At least 1.
    pub limit: usize,
}

impl UsableCores {
    /// These cores, all of them.
    ///
    /// # Panics
    /// If there are none.
    pub fn all_of(ids: Vec<usize>) -> UsableCores {
        assert!(!ids.is_empty(), "a process that runs has a core");
        UsableCores { limit: ids.len(), ids }
    }

    /// How many threads can run at once: at least 1.
    pub fn count(&self) -> usize {
        self.limit.min(self.ids.len()).max(1)
    }
}

/// The system's number of the calling thread, where the system says it.
pub fn current_task() -> Option<u64> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

/// Time that a thread of this process was on a core, and time that it could have run and had none, ns; as the system counts.
pub fn times_of_task(task: u64) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/self/task/{task}/schedstat")).ok()?;
    let mut words = text.split_ascii_whitespace().map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

/// The cores that the calling thread may use. Called before any thread is pinned: a pinned one has one core.
///
/// # Errors
/// [`CpuError::Mask`].
pub fn usable_cores() -> Result<UsableCores, CpuError> {
    let mask = core_affinity::get_core_ids().filter(|ids| !ids.is_empty()).ok_or(CpuError::Mask)?;
    let ids = mask.into_iter().map(|core| core.id).collect();
    // The standard library knows where cgroups of both versions keep their quota.
    let limit = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(UsableCores { ids: siblings_last(ids, siblings), limit })
}

/// Pins the calling thread to a core.
///
/// # Errors
/// [`CpuError::Pin`].
pub fn pin_current_thread(core: usize) -> Result<(), CpuError> {
    if core_affinity::set_for_current(CoreId { id: core }) { Ok(()) } else { Err(CpuError::Pin { core }) }
}

/// How far a thread stands back that nobody waits for.
const NICENESS_IN_BACKGROUND: i32 = 10;

/// This thread stands back where others want its core. If it may not, it runs like the others: that is no fault.
pub fn stand_back() {
    if let Err(error) = os::set_niceness(NICENESS_IN_BACKGROUND) {
        log::debug!("a thread that nobody waits for cannot stand back: {error}");
    }
}

/// NUMA node of a core, if the kernel tells.
pub fn numa_node(core: usize) -> Option<usize> {
    numa_node_below(Path::new("/"), core)
}

/// The same, as `/sys` below another root says it.
pub fn numa_node_below(root: &Path, core: usize) -> Option<usize> {
    let entries = fs::read_dir(root.join("sys/devices/system/cpu").join(format!("cpu{core}"))).ok()?;
    entries.flatten().find_map(|entry| node_number(entry.file_name().to_str()?))
}

fn node_number(entry: &str) -> Option<usize> {
    entry.strip_prefix("node")?.parse().ok()
}

fn siblings(core: usize) -> Vec<usize> {
    let list = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    fs::read_to_string(list).ok().and_then(|text| parse_cores(&text)).unwrap_or_default()
}

/// Puts the second and further threads of each physical core behind all first ones: two roles that spin on one
/// physical core take each other's time.
fn siblings_last(ids: Vec<usize>, siblings: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let is_first = |core: &usize| !siblings(*core).iter().any(|other| other < core && ids.contains(other));
    let (mut first, later): (Vec<usize>, Vec<usize>) = ids.iter().partition(|core| is_first(core));
    first.extend(later);
    first
}

/// Reads the kernel's list format, such as `0-3,8`. None if it is something else.
pub fn parse_cores(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        // Wider than any machine: not a list of cores.
        if to < from || to - from > 1 << 16 {
            return None;
        }
        cores.extend(from..=to);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_to_use_and_pin_to() {
        std::thread::spawn(|| {
            let usable = usable_cores().expect("a mask");
            assert!(usable.count() >= 1 && usable.count() <= usable.ids.len());
            let core = *usable.ids.last().expect("at least one");
            pin_current_thread(core).expect("a usable core can be pinned to");
            assert_eq!(usable_cores().expect("a mask").ids, [core], "a pinned thread has one core");
            assert_eq!(pin_current_thread(1023), Err(CpuError::Pin { core: 1023 }));
        })
        .join()
        .expect("the thread passes");
    }

    #[test]
    fn a_quota_bounds_the_count() {
        let cores = |limit| UsableCores { ids: (0..64).collect(), limit };
        assert_eq!((cores(2).count(), cores(0).count(), cores(100).count()), (2, 1, 64));
    }

    #[test]
    fn siblings_come_last() {
        let pairs = |core: usize| vec![core % 4, core % 4 + 4];
        assert_eq!(siblings_last((0..8).collect(), pairs), [0, 1, 2, 3, 4, 5, 6, 7]);
        let neighbours = |core: usize| vec![core & !1, core | 1];
        assert_eq!(siblings_last((0..6).collect(), neighbours), [0, 2, 4, 1, 3, 5]);
        assert_eq!(
            siblings_last(vec![1, 2, 3], neighbours),
            [1, 2, 3],
            "a sibling that may not be used takes no time of ours"
        );
        assert_eq!(siblings_last(vec![3, 5], |_| Vec::new()), [3, 5]);
    }

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse_cores("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cores("5"), Some(vec![5]));
        for bad in ["", "a", "3-1", "0-", "0-99999999999"] {
            assert_eq!(parse_cores(bad), None, "{bad}");
        }
        assert_eq!((node_number("node12"), node_number("nodex"), node_number("cache")), (Some(12), None, None));
    }
}
