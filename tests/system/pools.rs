//! Pools that cannot be used, and what else keeps a broker from starting: exit code 2 and one clear message.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};

use embarcadero::pool::superblock::Superblock;
use embarcadero::wire::{OrderLevel, Receipts, crc32c};

use crate::harness::{Ended, Process, Setup, Site, run_embarlet};
use crate::traffic::publish;

fn site(name: &str, pool: &'static str) -> Site {
    Site::new(name, &Setup { brokers: 2, pool, ..Setup::default() })
}

fn start(site: &Site, more: &[&str]) -> Ended {
    let file = site.config_file.display().to_string();
    run_embarlet(&[&["--config", &file], more].concat())
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
    std::fs::remove_file(&site.pool).unwrap();
    format(&site);
    let whole = std::fs::read(&site.pool).unwrap();
    // A later release's: its own checksum is right.
    let mut block: Superblock = bytemuck::pod_read_unaligned(&whole[..size_of::<Superblock>()]);
    (block.layout_version, block.crc) = (block.layout_version + 1, 0);
    block.crc = crc32c(bytemuck::bytes_of(&block));
    let file = OpenOptions::new().write(true).open(&site.pool).unwrap();
    file.write_all_at(bytemuck::bytes_of(&block), 0).unwrap();
    refuses("another version", &["layout version is 2", "the release that made it"]);
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
    for (path, parts) in [("/dev/null", ["/dev/null", ""]), ("/nowhere/pool", ["/nowhere/pool", "No such file"])] {
        std::fs::write(&site.config_file, good.replace(&pool, path)).unwrap();
        refused(&start(&site, &[]), &parts);
    }
    std::fs::write(&site.config_file, good.replace("bytes: 32MiB", "bytes: 64TB")).unwrap();
    refused(&start(&site, &[]), &["make room, or give a smaller pool.bytes"]);
    assert!(!site.pool.exists(), "a pool that cannot be had is not left behind");
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
    drop(taken);
    let process: Process = site.process(&[]);
    drop(process);
}
