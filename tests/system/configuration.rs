//! The command line and the configuration file: whatever cannot be used is refused with exit code 2, file, line and remedy.

use std::process::Command;

use crate::harness::{Ended, Setup, Site, finish, run_embarlet};

/// A refusal on the command line: code 2, one line, nothing else touched.
fn refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let first = ended.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("embarlet: "), "{ended:?}");
    for part in parts {
        assert!(first.contains(part), "{part:?} is not in: {first}");
    }
}

/// A file that differs from a good one by `change`.
fn check(name: &str, change: impl Fn(&str) -> String) -> (Site, Ended) {
    let site = Site::new(name, &Setup::default());
    let good = std::fs::read_to_string(&site.config_file).unwrap();
    let bad = change(&good);
    assert_ne!(good, bad, "{name}: nothing was changed");
    std::fs::write(&site.config_file, bad).unwrap();
    let file = site.config_file.display().to_string();
    let ended = run_embarlet(&["--config", &file, "--check-config"]);
    // Started in earnest, the same words come, and no pool is made.
    let started = run_embarlet(&["--config", &file]);
    assert_eq!((started.code, &started.stderr), (ended.code, &ended.stderr), "{name}: started and checked");
    assert!(!site.pool.exists(), "{name}: a pool was made");
    (site, ended)
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_file_line_and_remedy() {
    // Line 1 is the pool, 2 the geometry, 3 the brokers, 4 to 7 their list, 8 the sequencer.
    type Case = (&'static str, usize, fn(&str) -> String, &'static [&'static str]);
    let cases: &[Case] = &[
        (
            "unknown-key",
            2,
            |t| t.replace("ring_slots", "ring_slot"),
            &["geometry.ring_slot", "did you mean `ring_slots`"],
        ),
        ("unknown-section", 8, |t| t.replace("sequencer:", "sequencers:"), &["sequencers", "did you mean `sequencer`"]),
        ("wrong-type", 2, |t| t.replace("ring_slots: 64", "ring_slots: many"), &["ring_slots", "many"]),
        ("no-unit", 8, |t| t.replace("session_lease: 5s", "session_lease: 5"), &["session_lease", "unit"]),
        (
            "small-ring",
            2,
            |t| t.replace("ring_slots: 64", "ring_slots: 63"),
            &["geometry.ring_slots", "63", "power of two"],
        ),
        ("odd-extent", 2, |t| t.replace("extent_bytes: 1MiB", "extent_bytes: 3MiB"), &["extent_bytes", "power of two"]),
        ("tiny-pool", 1, |t| t.replace("bytes: 64MiB", "bytes: 1MiB"), &["pool.bytes", "1MiB", "at least 16MiB"]),
        ("relative-pool", 1, |t| t.replace("path: /dev", "path: dev"), &["pool.path", "absolute"]),
        ("port-0", 4, |t| t.replace(":7300", ":0"), &["brokers[0].address", "port"]),
        ("same-port", 5, |t| t.replace(":7301", ":7300"), &["brokers[1].address", "no other broker"]),
        (
            "host",
            6,
            |t| t.replacen("host: 0", "host: 5", 3).replacen("host: 5", "host: 0", 2),
            &["brokers[2].host", "5"],
        ),
        ("id", 4, |t| t.replacen("host: 0", "id: 0", 1), &["unknown key `brokers[0].id`", "host, address, advertise"]),
        ("candidates", 8, |t| t.replace("session_lease: 5s", "candidates: 9"), &["sequencer.candidates", "9"]),
    ];
    for (name, line, change, parts) in cases {
        let (site, ended) = check(name, change);
        let place = format!("{}:{line}:", site.config_file.display());
        refused(&ended, parts);
        assert!(ended.stderr.contains(&place), "{name}: {place} is not in {}", ended.stderr);
    }
    let (site, ended) = check("no-yaml", |_| "pool: [".into());
    refused(&ended, &[&site.config_file.display().to_string(), "not a YAML configuration"]);
    let (_, ended) = check("empty", |_| String::new());
    refused(&ended, &["config/embarcadero.yaml"]);
}

/// Sizes that are each allowed and do not fit together: what does not fit, how much there is, how much would do.
#[test]
fn a_pool_too_small_for_its_parts_is_refused() {
    for (from, to) in [
        ("extent_bytes: 1MiB", "extent_bytes: 8MiB"),
        ("ring_slots: 64", "ring_slots: 1048576"),
        ("segments: 8", "segments: 4096"),
        ("segment_entries: 256", "segment_entries: 1048576"),
    ] {
        let (site, ended) = check("too-small", |text| text.replace(from, to));
        let place = format!("{}:1: ", site.config_file.display());
        refused(&ended, &[&place, "67108864 bytes is too small", "give a larger pool.bytes"]);
        // The size that the message says would do, does.
        let numbers = ended.stderr.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
        let needed = numbers.max().unwrap();
        assert!(needed > 64 << 20, "the message names no size that would do: {}", ended.stderr);
        let text = std::fs::read_to_string(&site.config_file).unwrap();
        std::fs::write(&site.config_file, text.replace("bytes: 64MiB", &format!("bytes: {needed}"))).unwrap();
        let ended = run_embarlet(&["--config", &site.config_file.display().to_string(), "--check-config"]);
        assert_eq!(ended.code, Some(0), "{to}: {needed} bytes were to do: {ended:?}");
    }
}

#[test]
fn wrong_flags_are_refused_with_the_usage() {
    let site = Site::new("flags", &Setup::default());
    let file = site.config_file.display().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--confg", "x"], &["--confg"]),
        (&["--config"], &["--config needs a value"]),
        (&["--config", &file, "--brokers"], &["--brokers needs a value"]),
        (&["--config", &file, "--brokers", "0,x"], &["--brokers", "x"]),
        (&["--config", &file, "--brokers", "1,1"], &["broker 1 twice"]),
        (&["extra"], &["extra"]),
    ];
    for (arguments, parts) in cases {
        let ended = run_embarlet(arguments);
        refused(&ended, parts);
        assert!(ended.stderr.contains("usage: embarlet"), "{ended:?}");
    }
    refused(&run_embarlet(&["--config", "/nowhere/at-all.yaml"]), &["/nowhere/at-all.yaml", "check the path"]);
    refused(&run_embarlet(&["--config", &file, "--brokers", "4"]), &["broker 4 is not configured", "0 to 3"]);
    assert!(!site.pool.exists(), "no pool was made on the way to a refusal");
}

/// What a start on this machine would be refused for is refused before; nothing is touched.
#[test]
fn what_could_not_start_here_is_refused_when_it_is_checked() {
    type Case = (&'static str, fn(&str) -> String, &'static [&'static str]);
    let cases: &[Case] = &[
        ("absurd-size", |t| t.replace("bytes: 64MiB", "bytes: 99999TiB"), &["pool.bytes", "at most 64TiB"]),
        ("no-such-core", |t| t.replace("mode: shared", "mode: shared, cores: [997]"), &["names core 997", "may use"]),
        (
            "too-few-cores",
            |t| t.replace("mode: shared", "mode: dedicated, cores: [0]"),
            &["dedicated", "needs 14 cores"],
        ),
        (
            "full",
            |t| t.replace("bytes: 64MiB", "bytes: 63TiB").replace("extent_bytes: 1MiB", "extent_bytes: 64MiB"),
            &["cannot reserve", "are free", "make room"],
        ),
    ];
    for (name, change, parts) in cases {
        let (_site, ended) = check(name, change);
        refused(&ended, parts);
    }
    let site = Site::new("directory", &Setup::default());
    std::fs::create_dir(&site.pool).unwrap();
    let ended = run_embarlet(&["--config", &site.config_file.display().to_string(), "--check-config"]);
    std::fs::remove_dir(&site.pool).unwrap();
    refused(&ended, &["it is a directory"]);
}

/// The shipped file for bare metal, on a machine without its device.
#[test]
fn a_configuration_for_another_machine_is_checked_as_far_as_that_goes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cxl-64-core.yaml");
    if std::path::Path::new("/dev/dax0.0").exists() {
        eprintln!("not shown: this machine has the device");
        return;
    }
    let checked = run_embarlet(&["--config", file, "--check-config"]);
    assert!(checked.code == Some(0) && checked.stdout.contains("path: /dev/dax0.0"), "{checked:?}");
    assert!(checked.stderr.contains("note: /dev/dax0.0 is not on this machine"), "{checked:?}");
}

#[test]
fn whoever_reads_the_first_line_only_gets_it() {
    let site = Site::new("head", &Setup::default());
    let mut shell = Command::new("bash");
    shell.args(["-c", "set -o pipefail; \"$@\" | head -1", "bash", env!("CARGO_BIN_EXE_embarlet"), "--print-layout"]);
    shell.args(["--config", &site.config_file.display().to_string()]);
    let ended = finish(shell, "head");
    assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
}

#[test]
fn what_is_asked_about_is_printed() {
    let site = Site::new("printed", &Setup::default());
    let file = site.config_file.display().to_string();
    let checked = run_embarlet(&["--config", &file, "--check-config"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let reread = embarcadero::config::Config::parse(&checked.stdout, "printed").expect("what is printed can be used");
    assert_eq!(reread, site.config);
    let layout = run_embarlet(&["--config", &file, "--print-layout"]);
    assert!(layout.code == Some(0) && layout.stdout.contains("order index"), "{layout:?}");
    for flag in ["--help", "--version"] {
        let ended = run_embarlet(&[flag]);
        assert!(ended.code == Some(0) && ended.stdout.starts_with("embarlet"), "{ended:?}");
    }
    assert!(!site.pool.exists(), "asking makes no pool");
}
