//! Pools as files: what is made, attached to, refused and left alone.

use super::*;
use crate::pool::layout::tests::small;

fn open(path: &Path, geometry: Geometry, any_size: bool, create: Create) -> Result<Pool, PoolError> {
    Pool::open(path, geometry, &HomeHosts::single_host(&geometry), any_size, create)
}

struct TempPool(PathBuf);
impl TempPool {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("embarcadero-region-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        TempPool(path)
    }
}
impl Drop for TempPool {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn create_attach_refuse() {
    let at = TempPool::new("life");
    let path = &at.0;
    assert!(matches!(open(path, small(), false, Create::Never), Err(PoolError::Missing { .. })));
    let first = open(path, small(), false, Create::IfMissing).unwrap();
    assert!(first.was_formatted());
    let second = open(path, small(), false, Create::IfMissing).unwrap();
    assert!(!second.was_formatted());
    assert_eq!(first.superblock(), second.superblock());
    assert!(matches!(open(path, small(), false, Create::Format), Err(PoolError::InUse { .. })));
    let other = Geometry { ring_slots: 128, ..small() };
    assert!(matches!(open(path, other, false, Create::Never), Err(PoolError::Differs { name: "ring_slots", .. })));
    let larger = Geometry { pool_bytes: 32 << 20, ..small() };
    assert!(matches!(open(path, larger, false, Create::Never), Err(PoolError::Differs { name: "pool.bytes", .. })));
    assert!(open(path, larger, true, Create::Never).is_ok());
    let homes = HomeHosts { brokers: vec![0, 1], candidates: vec![0] };
    let elsewhere = Pool::open(path, small(), &homes, false, Create::Never);
    assert!(matches!(elsewhere, Err(PoolError::Home { found: 0, expected: 1, .. })), "{elsewhere:?}");
    drop((first, second));
    assert!(open(path, small(), false, Create::Format).unwrap().was_formatted());
}

#[test]
fn foreign_truncated_and_half_formatted_files() {
    let at = TempPool::new("foreign");
    let path = &at.0;
    let refused = |create| open(path, small(), false, create).unwrap_err();
    std::fs::write(path, vec![b'x'; 8192]).unwrap();
    let foreign = refused(Create::IfMissing);
    assert!(matches!(foreign, PoolError::Superblock { source: SuperblockError::Foreign { .. }, .. }), "{foreign}");
    std::fs::write(path, b"short").unwrap();
    assert!(matches!(refused(Create::IfMissing), PoolError::Superblock { source: SuperblockError::Short { .. }, .. }));
    // Cut short while it was formatted: by what this program writes first.
    let mut page = vec![0; 8192];
    page[..8].copy_from_slice(&crate::pool::superblock::MAGIC_UNFINISHED.to_le_bytes());
    std::fs::write(path, page).unwrap();
    assert!(matches!(refused(Create::Never), PoolError::Superblock { source: SuperblockError::Unformatted, .. }));
    drop(open(path, small(), false, Create::IfMissing).unwrap());
    OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    assert!(matches!(refused(Create::Never), PoolError::Superblock { source: SuperblockError::Geometry(_), .. }));
    assert!(open(path, small(), false, Create::Format).is_ok(), "damaged or not, it is a pool of ours");
}

/// What begins with a page of zeros may be anything: an image of a disk, a file somebody else maps.
#[test]
fn a_file_that_begins_with_zeros_is_not_formatted_unless_that_is_said() {
    let at = TempPool::new("zeros");
    let path = &at.0;
    let mut foreign = vec![0; 32 << 10];
    foreign.extend(b"DATA".repeat(1000));
    std::fs::write(path, &foreign).unwrap();
    for create in [Create::Never, Create::IfMissing] {
        let error = open(path, small(), false, create).unwrap_err();
        assert!(matches!(error, PoolError::Superblock { source: SuperblockError::Zeros, .. }), "{error}");
    }
    let error = open(path, small(), false, Create::Format).unwrap_err();
    assert!(matches!(error, PoolError::NotOurs { .. }) && error.to_string().contains("--overwrite-foreign"), "{error}");
    assert_eq!(std::fs::read(path).unwrap(), foreign);
    assert!(open(path, small(), false, Create::Overwrite).unwrap().was_formatted());
}

/// A client that opened the pool just before somebody formatted it anew sees the new layout, not the one before.
#[test]
fn what_is_inspected_is_what_is_attached_to() {
    let at = TempPool::new("inspect");
    let path = &at.0;
    drop(open(path, small(), false, Create::IfMissing).unwrap());
    let other = Geometry { ring_slots: small().ring_slots * 4, topics_max: small().topics_max * 2, ..small() };
    for writable in [true, false] {
        let geometry = if writable { other } else { small() };
        let formatted = || drop(open(path, geometry, false, Create::Format).unwrap());
        let pool = Pool::inspect_as(path, writable, formatted).unwrap();
        assert_eq!(pool.layout().geometry.ring_slots, geometry.ring_slots, "the layout of the pool before it");
        assert!(matches!(open(path, small(), false, Create::Format), Err(PoolError::InUse { .. })));
    }
}

#[test]
fn a_pool_can_be_looked_at_without_the_right_to_write_it() {
    let at = TempPool::new("look");
    let path = &at.0;
    let pool = open(path, small(), false, Create::IfMissing).unwrap();
    let held = pool.lock(LockName::Broker(0)).unwrap();
    // Root may open everything: that it is mapped to look is what is asked.
    let seen = Pool::look(path).unwrap();
    assert!(!seen.opened.is_writable());
    assert_eq!((seen.superblock(), seen.is_locked(LockName::Broker(0)).unwrap()), (pool.superblock(), true));
    drop((held, pool));
    assert!(matches!(open(path, small(), false, Create::Format), Err(PoolError::InUse { .. })), "it is looked at");
}

/// The kernel does not say which process has a lock, and the number of a process says nothing in another container.
#[test]
fn who_holds_a_lock_knows_it() {
    let at = TempPool::new("holds");
    let [ours, theirs] = [0, 1].map(|_| open(&at.0, small(), false, Create::IfMissing).unwrap());
    let (same, name) = (ours.clone(), LockName::Candidate(0));
    assert!(!ours.holds(name));
    let held = ours.lock(name).unwrap();
    assert!(ours.holds(name) && same.holds(name) && !ours.holds(LockName::Broker(0)));
    assert!(theirs.is_locked(name).unwrap() && !theirs.holds(name) && theirs.try_to_lock(name).unwrap().is_none());
    drop(held);
    assert!(!ours.holds(name) && !theirs.holds(name));
}

#[test]
fn a_pool_begins_where_a_huge_page_may() {
    let at = TempPool::new("aligned");
    let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
    assert_eq!(pool.mapping().address(0, 8).addr() as u64 % HUGE_PAGE_BYTES, 0);
    // Reserved around it is only address space: the last word is its own.
    let last = pool.mapping().bytes() - 8;
    let view = Mapped::<Software>::new(pool.mapping().clone());
    view.store(last, 7);
    let again = open(&at.0, small(), false, Create::Never).unwrap();
    assert_eq!(Mapped::<Software>::new(again.mapping().clone()).load(last), 7);
}

#[test]
fn the_coherence_it_was_formatted_for_is_held_to() {
    let at = TempPool::new("coherence");
    let wanted = |coherence| {
        let homes = HomeHosts::single_host(&small());
        let (any_size, any_places, any_candidates) = (false, false, false);
        let wanted = Wanted { geometry: small(), any_size, any_places, any_candidates, homes, coherence, told: |_| () };
        Pool::open_as(&at.0, &wanted, Create::IfMissing)
    };
    drop(wanted(Some(CoherenceMode::Hardware)).unwrap());
    let refused = wanted(Some(CoherenceMode::Software)).unwrap_err();
    assert!(matches!(refused, PoolError::Coherence { found: CoherenceMode::Hardware, .. }), "{refused}");
    assert_eq!(wanted(None).unwrap().superblock().coherence(), CoherenceMode::Hardware);
}

/// Another host holds no lock here, but it beats.
#[test]
fn a_pool_is_not_formatted_while_a_member_beats() {
    let at = TempPool::new("beats");
    let path = at.0.clone();
    drop(open(&path, small(), false, Create::IfMissing).unwrap());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let beat = |number: u64| {
        std::os::unix::fs::FileExt::write_all_at(&file, &number.to_le_bytes(), 4096 + 64 * 3 + 16).unwrap();
    };
    beat(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 2.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                beat(number);
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
        });
        let error = open(&path, small(), false, Create::Format).map(drop);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(error, Err(PoolError::Lives { member: 3, .. })), "{error:?}");
    });
    assert!(open(&path, small(), false, Create::Format).is_ok(), "a beat that stands still is a dead member's");
}

/// Another pool at the same path: its locks are not this one's, and this process says what became of its own.
#[test]
fn locks_belong_to_the_file_that_was_opened() {
    let at = TempPool::new("replaced");
    let path = &at.0;
    let pool = open(path, small(), false, Create::IfMissing).unwrap();
    let held = pool.lock(LockName::Broker(1)).unwrap();
    assert_eq!(pool.check(), Ok(()));
    std::fs::remove_file(path).unwrap();
    assert_eq!(pool.check(), Err(Lost::Unlinked));
    assert!(matches!(pool.lock(LockName::Broker(0)), Err(PoolError::Replaced { .. })));
    let other = open(path, small(), false, Create::IfMissing).unwrap();
    assert!(other.lock(LockName::Broker(1)).is_ok() && pool.is_locked(LockName::Broker(1)).unwrap());
    assert!(matches!(pool.lock(LockName::Broker(0)), Err(PoolError::Replaced { .. })));
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    assert_eq!(other.check(), Err(Lost::Replaced));
    std::fs::rename(&aside, path).unwrap();
    assert_eq!(other.check(), Ok(()));
    OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(other.check(), Err(Lost::Short { found: 1 << 20, expected: small().pool_bytes }));
    drop(held);
}

/// Another host formats what this one has; no lock of this host keeps it from that.
#[test]
fn a_pool_that_was_formatted_under_its_processes_is_lost_to_them() {
    use std::os::unix::fs::FileExt;
    let at = TempPool::new("anew");
    let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&at.0).unwrap();
    let mut uuid = [0; 1];
    file.read_exact_at(&mut uuid, 16).unwrap();
    file.write_all_at(&[uuid[0] ^ 1], 16).unwrap();
    assert_eq!(pool.check(), Err(Lost::Formatted));
    file.write_all_at(&uuid, 16).unwrap();
    assert_eq!(pool.check(), Ok(()));
    file.write_all_at(&crate::pool::superblock::MAGIC_UNFINISHED.to_le_bytes(), 0).unwrap();
    assert_eq!(pool.check(), Err(Lost::Formatted), "it is being formatted");
}

/// As of `memfd_create`: a file without a name is found through a process that has it.
#[test]
fn a_file_without_a_name_is_a_pool_too() {
    use std::os::fd::AsRawFd;
    let at = TempPool::new("nameless");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&at.0).unwrap();
    std::fs::remove_file(&at.0).unwrap();
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    let pool = open(&path, small(), false, Create::IfMissing).unwrap();
    assert_eq!(pool.check(), Ok(()), "it was never linked");
    let _lock = pool.lock(LockName::Broker(0)).unwrap();
    assert!(Pool::inspect(&path).unwrap().is_locked(LockName::Broker(0)).unwrap());
}

#[test]
fn of_a_pool_of_another_user_is_said_whose_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let at = TempPool::new("theirs");
    drop(open(&at.0, small(), false, Create::IfMissing).unwrap());
    std::fs::set_permissions(&at.0, std::fs::Permissions::from_mode(0o400)).unwrap();
    let source = io::Error::from(io::ErrorKind::PermissionDenied);
    let said = not_opened(&at.0, "open it for reading and writing", source).to_string();
    assert!(said.contains("with mode 400") && said.contains("chown"), "{said}");
}

#[test]
fn what_was_made_in_vain_is_taken_away_unless_others_use_it() {
    let at = TempPool::new("vain");
    let path = &at.0;
    let pool = open(path, small(), false, Create::IfMissing).unwrap();
    let other = open(path, small(), false, Create::IfMissing).unwrap();
    pool.take_away();
    assert!(path.exists(), "somebody else uses it");
    other.take_away();
    assert!(path.exists(), "it was there before");
    drop(other);
    pool.take_away();
    assert!(!path.exists());
}

/// Restored by a copy that left the zeros out: its blocks are reserved before anybody serves from it.
#[test]
fn holes_are_filled_before_a_pool_is_used() {
    use std::os::unix::fs::MetadataExt;
    let at = TempPool::new("holes");
    drop(open(&at.0, small(), false, Create::IfMissing).unwrap());
    let whole = std::fs::read(&at.0).unwrap();
    std::fs::remove_file(&at.0).unwrap();
    std::fs::write(&at.0, &whole[..4096]).unwrap();
    let file = OpenOptions::new().write(true).open(&at.0).unwrap();
    file.set_len(whole.len() as u64).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < whole.len() as u64);
    let _pool = open(&at.0, small(), false, Create::Never).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 >= whole.len() as u64);
}

#[test]
fn no_ordinary_file_is_made_where_a_device_is_meant() {
    let path = Path::new("/dev/embarcadero-no-such-device");
    let refused = open(path, small(), false, Create::IfMissing);
    assert!(matches!(refused, Err(PoolError::NoDevice { .. })) && !path.exists(), "{refused:?}");
}

#[test]
fn locks_are_exclusive_and_go_with_their_holder() {
    let at = TempPool::new("locks");
    let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
    let held = pool.lock(LockName::Broker(1)).unwrap();
    assert!(pool.is_locked(LockName::Broker(1)).unwrap());
    assert!(matches!(pool.lock(LockName::Broker(1)), Err(PoolError::InUse { .. })));
    assert!(pool.lock(LockName::Broker(0)).is_ok());
    drop(held);
    assert!(!pool.is_locked(LockName::Broker(1)).unwrap());
    assert!(pool.lock(LockName::Broker(1)).is_ok());
}

/// Found by the system tests: one that starts processes held up another that formatted a pool.
#[test]
fn a_lock_given_back_is_free_though_its_descriptor_was_copied() {
    let at = TempPool::new("copied");
    let pool = open(&at.0, small(), false, Create::IfMissing).unwrap();
    let held = pool.lock(LockName::Broker(1)).unwrap();
    let _copy = held.copied_descriptor().unwrap();
    drop(held);
    assert!(pool.lock(LockName::Broker(1)).is_ok());
}

#[test]
fn a_pool_larger_than_the_file_system_is_refused_and_leaves_nothing() {
    let at = TempPool::new("huge");
    let huge = Geometry { pool_bytes: 1 << 50, extent_bytes: 1 << 30, ..small() };
    let error = open(&at.0, huge, false, Create::IfMissing).unwrap_err();
    assert!(matches!(error, PoolError::NoRoom { .. }), "{error}");
    assert!(!at.0.exists());
    let tiny = Geometry { pool_bytes: 1 << 20, ..small() };
    assert!(matches!(open(&at.0, tiny, false, Create::IfMissing), Err(PoolError::Layout { .. })));
    assert!(!at.0.exists());
}
