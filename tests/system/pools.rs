//! Pools that cannot be used, and what else keeps a broker from starting: exit code 2 and one clear message.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use embarcadero::embarlet::{Embarlet, StartOptions};
use embarcadero::pool::region::LockName;
use embarcadero::pool::superblock::{LAYOUT_VERSION, MAGIC_UNFINISHED, Superblock};
use embarcadero::wire::{OrderLevel, Receipts, crc32c};

use crate::harness::{Ended, Process, Setup, Site, finish, run_embarlet};
use crate::traffic::publish;

fn site(name: &str, pool: &'static str) -> Site {
    Site::new(name, &Setup { brokers: 2, pool, ..Setup::default() })
}

fn start(site: &Site, more: &[&str]) -> Ended {
    let file = site.config_file.display().to_string();
    run_embarlet(&[&["--config", &file], more].concat())
}

/// Formats the pool from a shell that does something first.
fn start_by_shell(site: &Site, first: &str) -> Ended {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_embarlet")]);
    shell.args(["--config", &site.config_file.display().to_string(), "--format-only"]);
    finish(shell, first)
}

/// Exit code 2, and the last line of the log says what was found and what to do.
fn refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("embarlet: "), "the last line is the message: {ended:?}");
    for part in parts {
        assert!(last.contains(part), "{part:?} is not in: {last}");
    }
}

fn format(site: &Site) {
    let ended = start(site, &["--format-only"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("formatted"), "{ended:?}");
}

#[test]
fn a_missing_pool_is_made_only_where_that_is_allowed() {
    let site = site("missing", "bytes: 32MiB, create: never");
    refused(&start(&site, &[]), &["there is none", "--format", "create: if_missing"]);
    assert!(!site.pool.exists());
    format(&site);
    let process = site.process(&[]);
    drop(process);
}

#[test]
fn pools_of_others_are_refused_and_left_as_they_are() {
    let site = site("foreign", "bytes: 32MiB");
    let refuses = |what: &str, parts: &[&str]| {
        let before = std::fs::read(&site.pool).unwrap();
        refused(&start(&site, &[]), parts);
        assert!(std::fs::read(&site.pool).unwrap() == before, "{what}: it was changed");
    };
    std::fs::write(&site.pool, vec![b'x'; 1 << 20]).unwrap();
    refuses("foreign", &["belongs to something else", "another path"]);
    std::fs::write(&site.pool, b"short").unwrap();
    refuses("short", &["holds 5 bytes", "remove it"]);
    // A page of zeros and then somebody's data: an image of a disk, say.
    std::fs::write(&site.pool, [vec![0; 32 << 10], b"DATA".repeat(1000)].concat()).unwrap();
    refuses("zeros", &["its first page is all zeros", "name another path"]);
    let by_hand = start(&site, &["--format-only"]);
    refused(&by_hand, &["not a pool of ours", "--overwrite-foreign"]);
    refuses("zeros, by hand", &["its first page is all zeros"]);
    let by_force = start(&site, &["--format-only", "--overwrite-foreign"]);
    assert!(by_force.code == Some(0) && by_force.stdout.contains("formatted"), "{by_force:?}");
    std::fs::remove_file(&site.pool).unwrap();
    format(&site);
    let whole = std::fs::read(&site.pool).unwrap();
    // A later release's: its own checksum is right.
    let mut block: Superblock = bytemuck::pod_read_unaligned(&whole[..size_of::<Superblock>()]);
    (block.layout_version, block.crc) = (block.layout_version + 1, 0);
    block.crc = crc32c(bytemuck::bytes_of(&block));
    let file = OpenOptions::new().write(true).open(&site.pool).unwrap();
    file.write_all_at(bytemuck::bytes_of(&block), 0).unwrap();
    refuses("another version", &[&format!("layout version is {}", LAYOUT_VERSION + 1), "the release that made it"]);
    block.layout_version -= 1;
    file.write_all_at(bytemuck::bytes_of(&block), 0).unwrap();
    refuses("damaged", &["CRC32C", "damaged"]);
    file.write_all_at(&whole[..4096], 0).unwrap();
    file.set_len(16 << 20).unwrap();
    refuses("truncated", &["33554432 bytes, there are 16777216", "truncated"]);
    // What is refused can still be formatted by hand.
    let process = site.process(&["--format"]);
    drop(process);
}

#[test]
fn a_pool_of_another_configuration_is_refused() {
    let site = site("differs", "bytes: 32MiB");
    format(&site);
    for (from, to, parts) in [
        ("bytes: 32MiB", "bytes: 48MiB", ["pool.bytes", "33554432", "50331648"]),
        ("ring_slots: 64", "ring_slots: 128", ["ring_slots", "64", "128"]),
        ("sessions_max: 64", "sessions_max: 65", ["sessions_max", "64", "65"]),
    ] {
        let good = std::fs::read_to_string(&site.config_file).unwrap();
        std::fs::write(&site.config_file, good.replace(from, to)).unwrap();
        refused(&start(&site, &[]), &parts);
        refused(&start(&site, &[]), &["make them agree", "--format"]);
        std::fs::write(&site.config_file, good).unwrap();
    }
}

#[test]
fn paths_that_are_no_pool_are_refused() {
    let site = site("paths", "bytes: 32MiB");
    std::fs::create_dir(&site.pool).unwrap();
    refused(&start(&site, &[]), &[&site.pool.display().to_string(), "directory"]);
    std::fs::remove_dir(&site.pool).unwrap();
    let good = std::fs::read_to_string(&site.config_file).unwrap();
    let pool = site.pool.display().to_string();
    for (path, parts) in [
        ("/dev/null", ["/dev/null", ""]),
        ("/nowhere/pool", ["/nowhere/pool", "No such file"]),
        ("/dev/dax9.9", ["no such device", "/dev/dax9.9"]),
    ] {
        std::fs::write(&site.config_file, good.replace(&pool, path)).unwrap();
        refused(&start(&site, &[]), &parts);
    }
    std::fs::write(
        &site.config_file,
        good.replace("bytes: 32MiB", "bytes: 64TB").replace("extent_bytes: 1MiB", "extent_bytes: 64MiB"),
    )
    .unwrap();
    refused(&start(&site, &[]), &["make room, or give a smaller pool.bytes"]);
    assert!(!site.pool.exists(), "a pool that cannot be had is not left behind");
}

/// A full file system and a limit of the process: a message, never SIGBUS or SIGXFSZ, and nothing is left behind.
#[test]
fn a_pool_that_does_not_fit_is_refused_before_it_is_touched() {
    let site = site("no-room", "bytes: 64MiB");
    let limited = start_by_shell(&site, "ulimit -f 1024");
    refused(&limited, &["67108864 bytes are above this process's limit for a file", "ulimit -f"]);
    assert!(!site.pool.exists(), "a pool that cannot be had is not left behind");
    // One more than what is free, whatever that is now: others may take some of it meanwhile, and give none.
    let free = embarcadero::pool::region::free_bytes(site.pool.parent().unwrap()).unwrap();
    let good = std::fs::read_to_string(&site.config_file).unwrap();
    let above = (free / (1 << 30) + 64) << 30;
    std::fs::write(&site.config_file, good.replace("bytes: 64MiB", &format!("bytes: {above}"))).unwrap();
    refused(&start(&site, &["--format-only"]), &["cannot reserve", "are free on its file system", "make room"]);
    assert!(!site.pool.exists(), "a pool that cannot be had is not left behind");
    on_a_file_system_of_its_own();
}

/// Most of 40 MiB is taken by others. Only where the machine lets this user have a file system: not all of a test.
fn on_a_file_system_of_its_own() {
    let site = site("small-tmpfs", "bytes: 32MiB");
    let folder = site.file("small");
    std::fs::create_dir(&folder).unwrap();
    let in_it = folder.join("pool").display().to_string();
    let good = std::fs::read_to_string(&site.config_file).unwrap();
    std::fs::write(&site.config_file, good.replace(&site.pool.display().to_string(), &in_it)).unwrap();
    let mount = format!("mount -t tmpfs -o size=40m none {}", folder.display());
    let inside = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c", script]).args(["sh", env!("CARGO_BIN_EXE_embarlet")]);
        unshare.args(["--config", &site.config_file.display().to_string(), "--format-only"]);
        finish(unshare, "unshare")
    };
    let probe = inside(&mount);
    if probe.code != Some(0) {
        eprintln!("not shown: this user may not mount a file system of its own: {probe:?}");
        return;
    }
    let fits = inside(&format!("{mount} && exec \"$@\""));
    assert_eq!(fits.code, Some(0), "{fits:?}");
    let filled = inside(&format!("{mount} && head -c 16777216 /dev/zero > {}/other && exec \"$@\"", folder.display()));
    refused(&filled, &["cannot reserve 33554432 bytes", "25165824 are free", "make room"]);
}

/// For an ordinary user; root may open everything.
#[test]
fn a_pool_without_permission_is_refused() {
    let site = site("permission", "bytes: 32MiB");
    format(&site);
    std::fs::set_permissions(&site.pool, std::fs::Permissions::from_mode(0o000)).unwrap();
    if OpenOptions::new().write(true).open(&site.pool).is_ok() {
        eprintln!("not shown: this user may open every file");
        return;
    }
    refused(&start(&site, &[]), &["Permission denied"]);
}

#[test]
fn a_pool_in_use_is_refused() {
    let site = site("in-use", "bytes: 32MiB");
    let first = site.process(&["--brokers", "0"]);
    refused(&start(&site, &["--brokers", "0"]), &["another process uses its broker 0", "stop it first"]);
    refused(&start(&site, &["--brokers", "1,0"]), &["broker 0"]);
    refused(&start(&site, &["--format-only"]), &["another process uses it"]);
    refused(&start(&site, &["--format", "--brokers", "1"]), &["another process uses it"]);
    // None of it harmed the one that runs, nor holds the broker that is free.
    let second = site.process(&["--brokers", "1"]);
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    publish(site.publisher("t"), 0, 1000);
    drop((first, second));
}

#[test]
fn a_port_in_use_is_refused() {
    let site = site("port", "bytes: 32MiB");
    let address = site.address(1);
    let taken = TcpListener::bind(&address).unwrap();
    refused(&start(&site, &[]), &["broker 1 cannot listen on", &address, "stop it or configure another"]);
    assert!(!site.pool.exists(), "a pool made in vain is not left behind");
    drop(taken);
    let process: Process = site.process(&[]);
    drop(process);
}

/// Whoever drops the brokers without a word gets the pool, the ports and the locks back: no thread goes on without its lock.
#[test]
fn brokers_that_are_dropped_are_stopped_first() {
    let site = site("dropped", "bytes: 32MiB");
    for _ in 0..2 {
        let options = StartOptions { brokers: vec![0, 1], ..StartOptions::default() };
        let embarlet = Embarlet::start(&site.config, &options).unwrap();
        site.create_topic("t", OrderLevel::Session, Receipts::Batch);
        drop(embarlet);
        let pool = site.pool_now();
        assert!(!pool.is_locked(LockName::Broker(0)).unwrap() && !pool.is_locked(LockName::Candidate(0)).unwrap());
        let listened = TcpListener::bind(site.address(0));
        assert!(listened.is_ok(), "a thread still listens: {listened:?}");
    }
}

/// A start that was killed while it formatted left a part of a pool; the next one makes a whole one of it, of automatic size too.
#[test]
fn a_pool_whose_formatting_was_cut_short_is_made_anew() {
    for bytes in ["bytes: 32MiB", "bytes: auto"] {
        let site = site("unfinished", bytes);
        let mut part = MAGIC_UNFINISHED.to_le_bytes().to_vec();
        part.resize(1 << 20, 0);
        std::fs::write(&site.pool, part).unwrap();
        let process = site.process(&[]);
        assert!(process.log().contains(": formatted, "), "{}", process.log());
    }
}
