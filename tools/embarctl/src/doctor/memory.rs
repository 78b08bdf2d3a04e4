//! Memory for the pool: room for it, and the pages that it lies on.

use std::path::Path;

use super::Seen;
use super::kernel::release;
use super::report::{Check, State};
use super::tree::size;

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![free_space(seen), available(seen), shared_huge_pages(seen), reserved_huge_pages(seen)]
}

/// Type of the file system of the pool's file; none of a device.
fn file_system(seen: &Seen<'_>) -> Option<String> {
    if seen.asked.place.is_device() {
        return None;
    }
    seen.tree.file_system(seen.needs.pool().parent().unwrap_or(Path::new("/")))
}

/// Whether starting a broker makes a pool that takes memory of this machine.
pub fn takes_memory(seen: &Seen<'_>) -> bool {
    seen.asked.place.is_to_be_made() && file_system(seen).is_some_and(|kind| kind == "tmpfs" || kind == "hugetlbfs")
}

fn free_space(seen: &Seen<'_>) -> Check {
    const NAME: &str = "space for the pool";
    let asked = seen.asked;
    let folder = seen.needs.pool().parent().unwrap_or(Path::new("/")).display().to_string();
    if asked.place.is_device() {
        return Check::new(NAME, State::Ok, "the pool is a device: it takes no space of a file system");
    }
    if !asked.place.is_to_be_made() {
        return Check::new(NAME, State::Ok, "the pool is there: it has its space");
    }
    let kind = file_system(seen).map_or(String::new(), |kind| format!(" ({kind})"));
    match (&asked.pool_bytes, asked.free_bytes) {
        (_, None) => Check::new(NAME, State::Fail, format!("there is no folder {folder}"))
            .needed("a folder in a file system that lies in memory")
            .remedy("pool: { path: /dev/shm/embarcadero }        # in the configuration"),
        (Err(error), _) => Check::new(NAME, State::Fail, error.clone())
            .needed("320 MiB at least, for `pool.bytes: auto`")
            .remedy(format!("mount -o remount,size=90% {folder}        # if it is a tmpfs")),
        (Ok(bytes), Some(free)) => {
            Check::new(NAME, State::Fail, format!("{} free in {folder}{kind}; needed: {}", size(free), size(*bytes)))
                .needed("room for the whole pool: it is reserved when it is made")
                .remedy(format!("mount -o remount,size=90% {folder}        # if it is a tmpfs; of all memory"))
                .remedy("docker run --shm-size 4g ...        # in a container")
                .ok_if(free >= *bytes)
        }
    }
}

fn available(seen: &Seen<'_>) -> Check {
    const NAME: &str = "available memory";
    let Some(available) = seen.tree.memory_bytes("MemAvailable") else {
        return Check::unknown(NAME, "MemAvailable in /proc/meminfo");
    };
    let bytes = match &seen.asked.pool_bytes {
        Ok(bytes) if takes_memory(seen) => *bytes,
        _ => return Check::new(NAME, State::Ok, format!("{}; no pool is to be made of it", size(available))),
    };
    if file_system(seen).is_some_and(|kind| kind == "hugetlbfs") {
        return Check::new(
            NAME,
            State::Ok,
            format!("{}; the pool is made of huge pages, which are apart", size(available)),
        );
    }
    Check::new(NAME, State::Fail, format!("{}; the pool to be made takes {}", size(available), size(bytes)))
        .needed("memory for the whole pool: what is missing is swapped out, or somebody is killed for it")
        .remedy(format!("pool: {{ bytes: {}MiB }}        # in the configuration", (available >> 21).max(16)))
        .ok_if(available > bytes)
}

/// A fresh pool in a tmpfs is put on huge pages by MADV_COLLAPSE, which asks no setting but the one that denies all.
fn shared_huge_pages(seen: &Seen<'_>) -> Check {
    const NAME: &str = "huge pages of tmpfs";
    const SETTING: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    if file_system(seen).is_none_or(|kind| kind != "tmpfs") {
        return Check::new(NAME, State::Ok, "the pool does not lie in a tmpfs");
    }
    let Some(chosen) = seen.tree.chosen(SETTING) else { return Check::unknown(NAME, &format!("/{SETTING}")) };
    let needed =
        "anything but deny: a pool on small pages misses the address cache for each 4 KiB; then format it anew";
    if chosen == "deny" {
        let remedy = format!("echo advise > /{SETTING}");
        return Check::new(NAME, State::Warn, "shmem_enabled: deny").needed(needed).remedy(remedy);
    }
    let makes_itself = ["always", "within_size", "force"].contains(&&*chosen);
    match release(seen.tree) {
        Some(found) if found < (6, 1) && !makes_itself => {
            Check::new(NAME, State::Note, format!("shmem_enabled: {chosen}, and this kernel makes none when asked"))
                .needed("kernel 6.1, or within_size: else the pool lies on pages of 4 KiB")
                .remedy(format!("echo within_size > /{SETTING}"))
        }
        _ => Check::new(
            NAME,
            State::Ok,
            format!("shmem_enabled: {chosen}; a fresh pool asks for huge pages, as far as they cost no more"),
        ),
    }
}

fn reserved_huge_pages(seen: &Seen<'_>) -> Check {
    const NAME: &str = "reserved huge pages";
    let tree = seen.tree;
    let count = |key: &str| tree.line("proc/meminfo", key).and_then(|word| word.parse::<u64>().ok());
    let (Some(total), Some(free), Some(page)) =
        (count("HugePages_Total"), count("HugePages_Free"), tree.memory_bytes("Hugepagesize"))
    else {
        return Check::unknown(NAME, "HugePages_Total in /proc/meminfo");
    };
    let found = format!("{free} free of {total}, {} each", size(page));
    if file_system(seen).is_none_or(|kind| kind != "hugetlbfs") {
        let unused = Check::new(
            NAME,
            State::Note,
            format!("{found}: {} of memory that the pool does not use", size(free * page)),
        )
        .needed("a pool on a mounted hugetlbfs, to use them; or none")
        .remedy("sysctl -w vm.nr_hugepages=0        # gives those back that nobody uses");
        return if free > 0 {
            unused
        } else {
            Check::new(NAME, State::Ok, format!("{found}; the pool needs none of them"))
        };
    }
    if !seen.asked.place.is_to_be_made() {
        return Check::new(NAME, State::Ok, format!("{found}; the pool is there: it has its pages"));
    }
    let pages = seen.asked.pool_bytes.as_ref().copied().unwrap_or(0).div_ceil(page);
    Check::new(NAME, State::Fail, found)
        .needed(format!("{pages} free: the pool lies on a hugetlbfs"))
        .remedy(format!(
            "sysctl -w vm.nr_hugepages={}        # soon after a boot: later memory is in pieces",
            total + pages.saturating_sub(free)
        ))
        .ok_if(free >= pages)
}
