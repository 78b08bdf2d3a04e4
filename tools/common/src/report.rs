//! What every report says of where its figures were taken, and how it is written.

use std::fs::{self, read_to_string};
use std::io;
use std::path::{Path, PathBuf};

use embarcadero::crc::described;
use embarcadero::pool::writes_described;
use embarcadero::processor::limited_to;
use embarcadero::runtime::cpu::usable_cores;
use serde_json::{Value, json};

/// The commit this was built from, if that is known.
pub const GIT_ID: Option<&str> = option_env!("EMBARCADERO_GIT_ID");

/// Processors this process may use.
pub fn cores() -> usize {
    usable_cores().map_or(1, |cores| cores.count())
}

/// A line of /proc/meminfo, bytes.
pub fn memory_bytes(name: &str) -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// What may change between two machines with the same figures.
pub fn machine() -> Value {
    let line = |path: &str| read_to_string(path).ok().map(|text| text.trim().to_owned());
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let virtual_machine = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    json!({
        "processor": field("model name"),
        "usable_cores": cores(),
        "virtual_machine": virtual_machine,
        "instructions": limited_to().to_string(),
        "checksums": described(),
        "writes": writes_described(),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "memory_bytes": memory_bytes("MemTotal:"),
        "shmem_huge_pages": line("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "load_average": line("/proc/loadavg"),
        "git": GIT_ID,
        "optimized": !cfg!(debug_assertions),
    })
}

/// Writes JSON to a file, whole or not at all; to a pipe or a device as it is.
///
/// # Errors
/// As the file system has it.
pub fn write_json(json: &Value, path: &Path) -> io::Result<()> {
    write_text(&format!("{json:#}\n"), path)
}

/// Writes a text to a file, whole or not at all; to a pipe or a device as it is.
///
/// # Errors
/// As the file system has it.
pub fn write_text(text: &str, path: &Path) -> io::Result<()> {
    if path.exists() && !path.is_file() {
        return fs::write(path, text);
    }
    let partial = partial(path);
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // It may have filled the disk.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Whether a text could be written to a file: what a long run is for is not to be lost at its end.
///
/// # Errors
/// As the file system has it.
pub fn may_write(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Whoever reads a pipe may come later.
    if path.exists() && !path.is_file() {
        return Ok(());
    }
    let partial = partial(path);
    fs::write(&partial, "").and_then(|()| fs::remove_file(&partial))
}

/// Where a file is written before it has its name.
fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_before_and_leaves_nothing() {
        let folder = std::env::temp_dir().join(format!("tools-common-report-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("a");
        may_write(&file).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "asking leaves nothing");
        write_text("text", &file).unwrap();
        may_write(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        for wrong in [folder.clone(), folder.join("none/a"), file.join("a")] {
            assert!(may_write(&wrong).is_err() && write_text("", &wrong).is_err(), "{}", wrong.display());
        }
        may_write(Path::new("/dev/null")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_machine_has_memory_and_a_processor() {
        assert!(memory_bytes("MemTotal:").is_some_and(|bytes| bytes > 0));
        assert!(machine()["usable_cores"].as_u64().is_some_and(|cores| cores > 0));
    }
}
