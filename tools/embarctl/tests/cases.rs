//! Whole-program cases: what a user did, and rightly expected, as the scripts in `tests/cases` tell it. Each is run with the binaries
//! of this build, and has a pool, a port and a deadline of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use launch::place::build_broker;

/// Longest time for one case.
const CASE_MAX: Duration = Duration::from_secs(90);
/// What a case exits with that cannot be tried on this machine.
const CANNOT_BE_TRIED: i32 = 77;

/// Cases that are known not to be so yet. One that is mended fails this test until it is taken off the list.
const NOT_YET: [&str; 0] = [];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a case; its exit code (none: killed at its deadline) and what it said.
fn run(script: &Path, binaries: &Path) -> (Option<i32>, String) {
    let output = std::env::temp_dir().join(format!("case-{}", std::process::id()));
    let file = std::fs::File::create(&output).expect("a file for what it says");
    let mut command = Command::new("bash");
    command.arg(script).env("BIN", binaries).stdin(Stdio::null());
    command.stderr(file.try_clone().expect("another descriptor")).stdout(file);
    let (mut child, begin) = (command.spawn().expect("bash runs"), Instant::now());
    let code = loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => break status.code(),
            None if begin.elapsed() > CASE_MAX => {
                // It is asked to end first: what it started is taken away by its trap.
                let _ = Command::new("kill").arg(child.id().to_string()).status();
                std::thread::sleep(Duration::from_secs(2));
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = std::fs::read_to_string(&output).unwrap_or_default();
    let _ = std::fs::remove_file(output);
    (code, said)
}

#[test]
fn what_users_did_and_expected() {
    let binaries = build_broker(Path::new(env!("CARGO_BIN_EXE_embarctl")), &workspace());
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(workspace().join("tests/cases"))
        .expect("the cases are there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(char::is_numeric)))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "{scripts:?}");
    let mut wrong = Vec::new();
    for script in scripts {
        let name = script.file_stem().expect("a file").to_string_lossy().into_owned();
        let is_listed = NOT_YET.contains(&name.as_str());
        let (code, said) = run(&script, &binaries);
        match code {
            Some(0) if is_listed => wrong.push(format!("{name} is as expected now: take it off the list\n{said}")),
            Some(0) => println!("{name}: as expected. {said}"),
            Some(CANNOT_BE_TRIED) => eprintln!("{name}: SKIPPED: {said}"),
            _ if is_listed => eprintln!("{name}: NOT YET: {said}"),
            code => wrong.push(format!("{name}: exit code {code:?}: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
