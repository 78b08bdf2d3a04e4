//! What a machine does not give, or takes away again: what is said, with which code the broker ends, what is left behind.
//!
//! `cargo test --test system resources -- --nocapture` prints a row of a table for each. What needs rights that this user
//! lacks says so.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use embarcadero::wire::{OrderLevel, Receipts};

use crate::harness::{Ended, Setup, Site, Task, finish, wait_for};
use crate::traffic::publish;

/// As `id -u` says.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("every system has it");
    id.stdout == b"0\n"
}

fn site(name: &str) -> Site {
    Site::new(name, &Setup { brokers: 2, pool: "bytes: 32MiB", ..Setup::default() })
}

/// A row of the table.
fn row(what: &str, code: Option<i32>, said: &str, left: &str) {
    let said = said.split_once("embarlet: ").map_or(said, |(_, words)| words);
    println!("| {what} | {} | {left} | {said} |", code.map_or("signal".into(), |code| code.to_string()));
}

fn skipped(what: &str, why: &str) {
    println!("| {what} | not shown: {why} | | |");
    eprintln!("not shown: {what}: {why}");
}

/// Changes the configuration of a site.
fn change(site: &Site, from: &str, to: &str) {
    let text = std::fs::read_to_string(&site.config_file).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(&site.config_file, text.replace(from, to)).unwrap();
}

/// Runs the broker behind a shell command that sets the scene.
fn behind(site: &Site, scene: &str, shell: &[&str], more: &[&str]) -> Ended {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", &format!("{scene}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_embarlet")]);
    command.args(["--config", &site.config_file.display().to_string()]).args(more);
    finish(command, scene)
}

/// Could not start: code 2, the last line says it, no pool is left.
fn refused(what: &str, site: &Site, ended: &Ended, parts: &[&str]) {
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(ended.code, Some(2), "{what}: {ended:?}");
    for part in parts {
        assert!(last.contains(part), "{what}: {part:?} is not in: {last}");
    }
    assert!(!ended.stderr.contains("ready: "), "{what}: {ended:?}");
    assert!(!site.pool.exists(), "{what}: a pool is left behind");
    row(what, ended.code, last, "nothing");
}

#[test]
fn too_few_descriptors() {
    let site = site("descriptors");
    let ended = behind(&site, "ulimit -n 64", &["sh"], &[]);
    refused(
        "64 descriptors",
        &site,
        &ended,
        &["192 connections", "may have 64", "ulimit -Hn", "receive.connections_max"],
    );
}

/// Root may lock what it likes; so somebody else starts the broker.
#[test]
fn too_little_locked_memory() {
    let site = site("memlock");
    let shell: &[&str] = match is_root() {
        true => &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh"],
        false => &["sh"],
    };
    let ended = behind(&site, "ulimit -l 4", shell, &[]);
    if matches!(ended.code, Some(126 | 127)) {
        return skipped("4 KiB of locked memory", &ended.stderr);
    }
    if ended.code.is_none() {
        return skipped("4 KiB of locked memory", "this kernel counts no ring as locked memory");
    }
    refused("4 KiB of locked memory", &site, &ended, &["io_uring cannot be set up", "4096 (memlock)", "ulimit -l"]);
}

/// Denies io_uring's system calls to itself (425 to 427, by a filter that answers EPERM, as containers do), then becomes the program.
const WITHOUT_IO_URING: &str = "
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 2, 0, 425), (0x15, 1, 0, 426), (0x15, 0, 1, 427), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
filter = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
libc, program = ctypes.CDLL(None), Program(len(steps), ctypes.addressof(filter))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0): sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn io_uring_denied() {
    let site = site("denied");
    let mut python = Command::new("python3");
    python.args(["-c", WITHOUT_IO_URING, env!("CARGO_BIN_EXE_embarlet"), "--config"]).arg(&site.config_file);
    if Command::new("python3").arg("--version").output().is_err() {
        return skipped("io_uring denied", "there is no python3 to deny it with");
    }
    let ended = finish(python, "without io_uring");
    if ended.code == Some(77) {
        return skipped("io_uring denied", "this kernel takes no filter");
    }
    refused("io_uring denied", &site, &ended, &["io_uring cannot be set up", "seccomp"]);
}

/// A memory control group of either version; gone when it is dropped.
struct Group(PathBuf);

impl Group {
    fn new(name: &str, bytes: u64) -> Option<Group> {
        let name = format!("embarcadero-{}-{name}", std::process::id());
        let limit = bytes.to_string();
        for (folder, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Path::new(folder).join(&name);
            if std::fs::create_dir(&group).is_ok() {
                let group = Group(group);
                if std::fs::write(group.0.join(file), &limit).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }

    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment to see that it is empty. A test that fails has said why: nothing panics here.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn a_memory_limit_is_obeyed_or_told() {
    let (Some(small), Some(large)) = (Group::new("small", 256 << 20), Group::new("large", 1 << 30)) else {
        return skipped("memory limit of a control group", "this user can make none");
    };
    let site = site("group");
    change(&site, "bytes: 32MiB", "bytes: auto");
    let ended = behind(&site, &small.enter(), &["sh"], &[]);
    refused("auto in 256 MiB", &site, &ended, &["`pool.bytes: auto`", "control group", "268435456 bytes"]);
    let fits = behind(&site, &large.enter(), &["sh"], &["--format-only"]);
    assert!(fits.code == Some(0) && fits.stdout.contains("335544320 bytes"), "{fits:?}");
    row("auto in 1 GiB", fits.code, fits.stdout.trim(), "the pool, as asked");
    std::fs::remove_file(&site.pool).unwrap();
    change(&site, "bytes: auto", "bytes: 512MiB");
    let ended = behind(&site, &small.enter(), &["sh"], &[]);
    refused("512 MiB in 256 MiB", &site, &ended, &["536870912 bytes", "leaves", "limit of 268435456", "memory.max"]);
}

/// Shell text that runs in a mount namespace with a file system of 40 MiB at `folder`.
fn on_its_own_file_system(site: &Site, script: &str) -> Option<Ended> {
    let folder = site.file("small");
    std::fs::create_dir_all(&folder).unwrap();
    let in_it = folder.join("pool").display().to_string();
    let text = std::fs::read_to_string(&site.config_file).unwrap();
    std::fs::write(&site.config_file, text.replace(&site.pool.display().to_string(), &in_it)).unwrap();
    let run = |script: &str| {
        let mount = format!("mount -t tmpfs -o size=40m none {0} && cd {0}", folder.display());
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c", &format!("{mount} && {script}")]);
        unshare.args(["sh", env!("CARGO_BIN_EXE_embarlet"), "--config", &site.config_file.display().to_string()]);
        finish(unshare, script)
    };
    (run("true").code == Some(0)).then(|| run(script))
}

#[test]
fn a_pool_with_holes_on_a_full_file_system_is_refused_before_it_is_used() {
    let site = site("holes");
    let script = "\"$@\" --format-only && cp --sparse=always pool copy && mv copy pool && head -c 39m /dev/zero > other; exec \"$@\"";
    let Some(ended) = on_its_own_file_system(&site, script) else {
        return skipped("a pool with holes on a full file system", "this user may mount none");
    };
    refused("a pool with holes on a full file system", &site, &ended, &["are holes", "make room"]);
}

#[test]
fn a_file_system_that_is_full_makes_no_pool() {
    let site = site("full");
    let script = "head -c 30m /dev/zero > other; \"$@\"; code=$?; ls; exit $code";
    let Some(ended) = on_its_own_file_system(&site, script) else {
        return skipped("a full file system", "this user may mount none");
    };
    refused("a full file system", &site, &ended, &["cannot reserve 33554432 bytes", "are free", "make room"]);
    assert_eq!(ended.stdout.trim(), "other", "what is left there");
}

#[test]
fn a_pool_that_cannot_be_written_is_refused() {
    let site = site("read-only");
    let Some(ended) = on_its_own_file_system(&site, "\"$@\" --format-only && mount -o remount,ro . && exec \"$@\"")
    else {
        return skipped("a read-only pool", "this user may mount none");
    };
    refused("a read-only pool", &site, &ended, &["cannot open it for reading and writing", "Read-only file system"]);
}

/// The pool of a running broker is taken away in some way: it ends with code 3 and says what happened.
fn lost(what: &str, name: &str, take: impl FnOnce(&Site), parts: &[&str]) {
    let site = site(name);
    let mut process = site.process(&[]);
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    publish(site.publisher("t"), 0, 100);
    take(&site);
    let status = process.wait();
    let log = process.log();
    let fault = log.lines().find(|line| line.contains("FAULT")).unwrap_or_else(|| panic!("{what}: no record in {log}"));
    for part in parts {
        assert!(fault.contains(part), "{what}: {part:?} is not in: {fault}");
    }
    assert_eq!(status.code(), Some(3), "{what}: {log}");
    let left = if site.pool.exists() { "what lies there now" } else { "nothing" };
    row(what, status.code(), fault, left);
}

#[test]
fn a_pool_that_is_unlinked_under_a_broker_ends_it() {
    lost("unlinked", "unlinked", |site| std::fs::remove_file(&site.pool).unwrap(), &["unlinked"]);
}

#[test]
fn a_pool_that_is_replaced_under_a_broker_ends_it() {
    let replace = |site: &Site| {
        let aside = site.file("another");
        std::fs::copy(&site.pool, &aside).unwrap();
        // Not in one step: the folder is on another file system. Whatever is seen first is a loss.
        std::fs::rename(&site.pool, site.pool.with_extension("aside")).unwrap();
        std::fs::copy(&aside, &site.pool).unwrap();
    };
    lost("replaced", "replaced", replace, &["another file lies at its path"]);
    for entry in std::fs::read_dir("/dev/shm").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("-replaced-") && name.ends_with(".aside") && name.contains(&std::process::id().to_string()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_pool_that_is_cut_under_a_broker_ends_it_with_a_record() {
    let cut = |site: &Site| OpenOptions::new().write(true).open(&site.pool).unwrap().set_len(0).unwrap();
    lost("cut short", "cut", cut, &["embarlet: FAULT: SIGBUS", "address 0x", "offset", "cut short"]);
}

/// The tables are there, and the payload is not any more: the kernel meets it first, as it receives into it.
#[test]
fn a_pool_without_its_payload_ends_its_broker_with_a_record() {
    let cut = |site: &Site| {
        let payload = site.pool_now().layout().extent(0);
        OpenOptions::new().write(true).open(&site.pool).unwrap().set_len(payload).unwrap();
        // What comes of it nobody waits for.
        let options = site.publisher("t");
        Task::spawn("a publisher without a pool", move || publish(options, 100, 200));
    };
    lost("cut short below the payload", "payload", cut, &["FAULT: ", "cut"]);
}

/// Stderr is a pipe that is full, and nobody reads it: no line can be written, and everything else goes on.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let site = site("unread");
    let (unread, full) = std::io::pipe().unwrap();
    let mut filler = full.try_clone().unwrap();
    // Whatever it holds; the thread ends when the other end is closed.
    let filled = std::thread::spawn(move || while filler.write_all(&[b'x'; 4096]).is_ok() {});
    let mut child = Command::new(env!("CARGO_BIN_EXE_embarlet"))
        .arg("--config")
        .arg(&site.config_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    wait_for("the broker to listen", || TcpStream::connect(site.address(0)).ok());
    site.create_topic("t", OrderLevel::Session, Receipts::Batch);
    publish(site.publisher("t"), 0, 1000);
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = wait_for("the broker to end", || child.try_wait().unwrap());
    drop(unread);
    filled.join().unwrap();
    assert_eq!(status.code(), Some(0));
    row("a log that nobody reads", status.code(), "(nothing: it has nobody to tell)", "the pool, as asked");
}
