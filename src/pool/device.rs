//! What the operating system says of a pool's file or device: its length, the piece in which it is mapped, whether it may be made, and
//! where it is.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::limits::REGION_ALIGNMENT_BYTES;
use crate::pool::error::{DeviceState, PoolError};
use crate::pool::locks::os_error;
use crate::pool::os;

/// Where the kernel lists devices of memory.
const DAX_DEVICES: &str = "/sys/bus/dax/devices";
/// Pages of ordinary files, bytes.
const PAGE_BYTES: u64 = 4096;

/// Length of a pool's file or device, and how it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Length, bytes.
    pub bytes: u64,
    /// A mapping is a multiple of this: what the device says, the size of a huge page, or of a page.
    pub alignment: u64,
    /// Whether it is a device.
    pub is_device: bool,
}

impl Extent {
    /// Of a file as the file system says, of a device as sysfs says.
    pub(super) fn of(path: &Path, file: &File) -> Result<Extent, PoolError> {
        let meta = file.metadata().map_err(os_error(path, "stat it"))?;
        if meta.file_type().is_file() {
            let huge = os::huge_page_bytes(file).map_err(os_error(path, "ask for its file system"))?;
            return Ok(Extent { bytes: meta.len(), alignment: huge.unwrap_or(PAGE_BYTES), is_device: false });
        }
        if !meta.file_type().is_char_device() {
            return Err(PoolError::Kind { path: path.into() });
        }
        let size = said(&meta, "size").map_err(|source| match source.kind() {
            // Only devices of memory have one: this is another, such as /dev/null.
            io::ErrorKind::NotFound => PoolError::Kind { path: path.into() },
            _ => os_error(path, "read the device's size from /sys/dev/char")(source),
        })?;
        let bytes = size.parse().map_err(|_| PoolError::Kind { path: path.into() })?;
        // Kernels before 5.10 do not say; 2 MiB is what devices are given unless somebody asks for more.
        let alignment = said(&meta, "align").ok().and_then(|text| text.parse().ok());
        Ok(Extent { bytes, alignment: alignment.unwrap_or(REGION_ALIGNMENT_BYTES), is_device: true })
    }

    /// Whether it is a file of huge pages: it is mapped and reserved like others, and has no write(2).
    pub(super) fn is_huge(&self) -> bool {
        !self.is_device && self.alignment > PAGE_BYTES
    }

    /// How much is mapped to look at the beginning.
    pub(super) fn head_bytes(&self) -> u64 {
        REGION_ALIGNMENT_BYTES.max(self.alignment).min(self.bytes)
    }

    /// Whether a pool of this length can be mapped here.
    pub(super) fn holds(&self, path: &Path, bytes: u64) -> Result<(), PoolError> {
        if self.is_device && bytes > self.bytes {
            return Err(PoolError::DeviceTooSmall { path: path.into(), found: self.bytes, expected: bytes });
        }
        if !bytes.is_multiple_of(self.alignment) {
            return Err(PoolError::Alignment { path: path.into(), bytes, alignment: self.alignment });
        }
        Ok(())
    }
}

/// What the kernel says of a character device.
fn said(meta: &Metadata, what: &str) -> io::Result<String> {
    // Linux encodes a device number in 12 bits of major and 20 of minor (makedev(3)).
    let (major, minor) = (meta.rdev() >> 8 & 0xfff, meta.rdev() & 0xff | meta.rdev() >> 12 & 0xfff00);
    let text = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/{what}"))?;
    Ok(text.trim().to_owned())
}

/// The NUMA node that a device is nearest to, if it is one and the kernel tells.
pub fn device_node(path: &Path) -> Option<usize> {
    let meta = std::fs::metadata(path).ok().filter(|meta| meta.file_type().is_char_device())?;
    said(&meta, "numa_node").ok()?.parse().ok()
}

/// Why the device cannot be mapped that should be at a path where nothing is; none: there is no such device.
pub fn unmappable_device(path: &Path) -> Option<PoolError> {
    device_state(Path::new(DAX_DEVICES), path).map(|state| PoolError::Device { path: path.into(), state })
}

/// Why a pool's file or device cannot be opened: whose it is, if one may not; of a device that no driver of ours has (ENXIO), what it is there as; else what
/// the operating system said.
pub(super) fn not_opened(path: &Path, doing: &'static str, source: io::Error) -> PoolError {
    let refused = match source.raw_os_error() {
        // It has a node: that is what was opened.
        Some(libc::ENXIO | libc::ENODEV) => device_state(Path::new(DAX_DEVICES), path)
            .filter(|state| !matches!(state, DeviceState::NoNode { .. }))
            .map(|state| PoolError::Device { path: path.into(), state }),
        _ if source.kind() == io::ErrorKind::PermissionDenied => not_permitted(path, doing),
        _ => None,
    };
    refused.unwrap_or_else(|| PoolError::Os { path: path.into(), doing, source })
}

/// What is said of a pool that somebody else owns.
fn not_permitted(path: &Path, doing: &'static str) -> Option<PoolError> {
    let meta = std::fs::metadata(path).ok()?;
    let (user, group, mode) = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
    Some(PoolError::Permission { path: path.into(), doing, user, group, mode })
}

/// As what a device is there that has the name of `path`, where the kernel lists devices (`/sys/bus/dax/devices`); none: it has no such.
/// One that a driver of ours has is [`DeviceState::NoNode`], whether or not there is a node.
pub fn device_state(devices: &Path, path: &Path) -> Option<DeviceState> {
    let name = path.file_name()?.to_str()?.to_owned();
    let device = devices.join(&name);
    if !device.exists() {
        return None;
    }
    let driver: Option<PathBuf> = std::fs::read_link(device.join("driver")).ok();
    match driver.as_deref().and_then(Path::file_name) {
        None => Some(DeviceState::Disabled { name }),
        Some(driver) if driver == "kmem" => Some(DeviceState::SystemRam { name }),
        Some(_) => Some(DeviceState::NoNode { name }),
    }
}

/// The largest pool that a device holds; none if `path` is no device.
pub fn device_bytes(path: &Path) -> Result<Option<u64>, PoolError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_char_device() => {}
        _ => return Ok(None),
    }
    let file = File::open(path).map_err(|source| not_opened(path, "open it", source))?;
    let extent = Extent::of(path, &file)?;
    Ok(Some(extent.bytes - extent.bytes % extent.alignment))
}

/// Whether a device is meant, and is not there. A pool made at its name would be an ordinary file, in memory that nobody counts on.
/// Other file systems are mounted below /dev, as /dev/shm: those are for files.
pub fn is_missing_device(path: &Path) -> bool {
    if !path.starts_with("/dev") || path.starts_with("/dev/shm") || path.exists() {
        return false;
    }
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    path.parent().and_then(device).is_none_or(|parent| Some(parent) == device(Path::new("/dev")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_holds_what_fits_in_whole_pieces() {
        let path = Path::new("/dev/dax0.0");
        let device = Extent { bytes: 6 << 30, alignment: 1 << 30, is_device: true };
        assert_eq!(device.head_bytes(), 1 << 30, "a smaller piece cannot be mapped");
        assert!(device.holds(path, 6 << 30).is_ok());
        assert!(
            matches!(device.holds(path, 7 << 30), Err(PoolError::DeviceTooSmall { found, .. }) if found == 6 << 30)
        );
        let odd = device.holds(path, (1 << 30) + (2 << 20));
        assert!(matches!(odd, Err(PoolError::Alignment { alignment, .. }) if alignment == 1 << 30), "{odd:?}");
        assert!(Extent { bytes: 0, alignment: 4096, is_device: false }.holds(path, 7 << 30).is_ok());
        let huge = Extent { bytes: 0, alignment: 2 << 20, is_device: false };
        assert!(huge.is_huge() && huge.holds(path, 7 << 30).is_ok());
        assert!(
            matches!(huge.holds(path, (1 << 30) + 4096), Err(PoolError::Alignment { alignment, .. }) if alignment == 2 << 20)
        );
    }

    #[test]
    fn a_device_that_cannot_be_mapped_says_why() {
        let devices = std::env::temp_dir().join(format!("embarcadero-dax-{}", std::process::id()));
        let state = |driver: Option<&str>| {
            let device = devices.join("dax0.0");
            let _ = std::fs::remove_dir_all(&devices);
            std::fs::create_dir_all(&device).unwrap();
            if let Some(driver) = driver {
                std::os::unix::fs::symlink(format!("../../../bus/dax/drivers/{driver}"), device.join("driver"))
                    .unwrap();
            }
            device_state(&devices, Path::new("/dev/dax0.0")).map(|state| state.to_string())
        };
        for (driver, words) in [
            (Some("kmem"), "daxctl reconfigure-device --mode=devdax dax0.0"),
            (None, "daxctl enable-device dax0.0"),
            (Some("device_dax"), "--device /dev/dax0.0"),
        ] {
            let said = state(driver).unwrap();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(device_state(&devices, Path::new("/dev/dax1.0")), None);
        std::fs::remove_dir_all(&devices).unwrap();
    }

    #[test]
    fn a_device_that_is_not_there_is_told_from_a_file_to_be_made() {
        for (path, missing) in [
            ("/dev/dax987.0", true),
            ("/dev/nowhere/pool", true),
            ("/dev/null", false),
            ("/dev/shm/embarcadero-not-there", false),
            ("/nowhere/pool", false),
        ] {
            assert_eq!(is_missing_device(Path::new(path)), missing, "{path}");
        }
    }
}
