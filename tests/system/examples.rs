//! The examples of `tests/examples`, and the lines of README, against a broker: what is printed is what their readers are told.
//!
//! The Python client was written from PROTOCOL.md alone; so these tests hold that document against the brokers. Where there is no
//! Python they say so and pass.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::harness::{Cluster, Ended, Setup, Site, finish, finish_with};

/// The broker that README and the examples dial unless they are told another.
const DEFAULT_BROKER: &str = "127.0.0.1:7300";

/// Two brokers, each with a place for attached clients.
fn start(name: &str) -> (Site, Cluster) {
    let geometry = "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 64, topics_max: 16, \
                    attached_per_broker: 1";
    let site = Site::new(name, &Setup { brokers: 2, geometry, ..Setup::default() });
    let cluster = site.start();
    (site, cluster)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder of the example binaries. `cargo test` builds them beside the tests, `cargo test --test system` does not.
fn examples() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let binaries = Path::new(env!("CARGO_BIN_EXE_embarlet")).parent().expect("a binary is in a folder");
        let folder = binaries.join("examples");
        let names = ["hello", "publish", "subscribe", "resume", "attach"];
        if !names.iter().all(|name| folder.join(name).exists()) {
            let mut build = Command::new(env!("CARGO"));
            build.current_dir(repository("")).args(["build", "--quiet", "--package", "embarcadero", "--examples"]);
            build.arg("--target-dir").arg(binaries.parent().expect("the target folder"));
            if binaries.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo runs").success(), "the examples build");
        }
        folder
    })
}

/// What it printed; fails unless it ended well.
fn printed(ended: Ended, name: &str) -> String {
    assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    ended.stdout
}

fn run_example(name: &str, arguments: &[&str]) -> String {
    let mut program = Command::new(examples().join(name));
    program.args(arguments);
    printed(finish(program, name), name)
}

/// A Python that finds `client.py`; none if there is none here, which is said.
fn python() -> Option<Command> {
    let answer = Command::new("python3").args(["-c", "import sys; assert sys.version_info >= (3, 9)"]).output();
    if !answer.is_ok_and(|answer| answer.status.success()) {
        // Past what the test harness keeps of a test that passes.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: no python3 of 3.9 or later here, so the Python client was not run");
        return None;
    }
    let mut python = Command::new("python3");
    // Nothing is left beside the sources.
    python.env("PYTHONPATH", repository("tests/examples")).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(python)
}

/// Runs `client.py`, which reads `input`. None where there is no Python.
fn run_python_client(site: &Site, arguments: &[&str], input: &str) -> Option<Ended> {
    let mut client = python()?;
    client.arg(repository("tests/examples/client.py")).args(arguments);
    let file = site.file("input");
    std::fs::write(&file, input).unwrap();
    Some(finish_with(client, "client.py", Stdio::from(File::open(file).unwrap())))
}

/// The lines of `start..end`, as `line` makes them.
fn lines(orders: std::ops::Range<u64>, line: impl Fn(u64) -> String) -> String {
    orders.map(|order| line(order) + "\n").collect()
}

/// The block of README in this language.
fn readme_block(language: &str) -> String {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let (_, block) = readme.split_once(&format!("```{language}\n")).expect("README has such a block");
    block.split_once("```").expect("the block ends").0.to_owned()
}

#[test]
fn what_one_example_publishes_another_reads() {
    let (site, cluster) = start("examples-publish");
    let said = run_example("publish", &[&site.address(0), "orders"]);
    assert!(said.starts_with("batch 0: "), "{said}");
    assert!(said.ends_with("10 of 10 messages acked\n"), "{said}");
    // At the other broker.
    let said = run_example("subscribe", &[&site.address(1), "orders"]);
    assert_eq!(said, lines(0..10, |order| format!("orders {order} message {order}")));
    // A second topic, in one subscription with the first.
    run_example("publish", &[&site.address(1), "bills"]);
    let said = run_example("subscribe", &[&site.address(0), "orders", "bills"]);
    let of = |topic| lines(0..10, |order| format!("{topic} {order} message {order}"));
    assert_eq!(said, of("orders") + &of("bills"));
    cluster.stop();
}

#[test]
fn the_resuming_example_goes_on_where_it_was() {
    let (site, cluster) = start("examples-resume");
    run_example("publish", &[&site.address(0), "orders"]);
    let mut came_to = 0;
    for (run, handled) in [4, 4, 2, 0].into_iter().enumerate() {
        let said = run_example("resume", &[&site.address(run as u32 % 2), "orders", "billing"]);
        let end = came_to + handled;
        let messages = lines(came_to..end, |order| format!("{order} message {order}"));
        assert_eq!(said, format!("from order {came_to}\n{messages}up to order {end}\n"), "run {run}");
        came_to = end;
    }
    // Another cursor of the same topic stands elsewhere.
    let said = run_example("resume", &[&site.address(0), "orders", "search"]);
    assert!(said.starts_with("from order 0\n0 message 0\n"), "{said}");
    cluster.stop();
}

#[test]
fn the_attached_example_needs_no_address() {
    let (site, cluster) = start("examples-attach");
    let pool = site.pool.to_str().expect("UTF-8");
    for run in 0..2 {
        let said = run_example("attach", &[pool, "orders"]);
        assert_eq!(said, lines(0..3, |number| format!("{} attached message {number}", 3 * run + number)));
    }
    let said = run_example("subscribe", &[&site.address(0), "orders"]);
    assert_eq!(said, lines(0..6, |order| format!("orders {order} attached message {}", order % 3)));
    cluster.stop();
}

/// README's ten lines of Rust are those of an example, and what it does is what README says.
#[test]
fn the_rust_of_the_readme_works_as_it_stands() {
    let example = std::fs::read_to_string(repository("tests/examples/hello.rs")).unwrap();
    let block = readme_block("rust");
    let written: Vec<&str> = block.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut rest = example.lines().map(str::trim);
    for line in written {
        // The example takes its broker from its arguments.
        let line = if line.contains(DEFAULT_BROKER) {
            "let (brokers, topic, create) = (vec![broker], \"orders\".to_owned(), Some(TopicProperties::default()));"
        } else {
            line
        };
        assert!(rest.any(|ours| ours == line), "tests/examples/hello.rs has no such line, or not there: {line}");
    }
    let (site, cluster) = start("readme-rust");
    assert_eq!(run_example("hello", &[&site.address(1)]), "0 a first message\n1 and a second\n");
    cluster.stop();
}

#[test]
fn the_python_of_the_readme_works_as_it_stands() {
    let block = readme_block("python");
    assert!(block.contains(DEFAULT_BROKER), "{block}");
    let Some(mut python) = python() else { return };
    let (site, cluster) = start("readme-python");
    python.args(["-c", &block.replace(DEFAULT_BROKER, &site.address(1))]);
    let said = printed(finish(python, "the Python of README"), "README");
    assert_eq!(said, "0 a first message\n1 and a second\n");
    cluster.stop();
}

/// Either client reads what the other wrote, whatever the batches are like.
#[test]
fn a_client_written_from_the_protocol_alone_talks_to_ours() {
    let (site, cluster) = start("examples-python");
    let (first, second) = (site.address(0), site.address(1));
    let python = |arguments: &[&str], input: &str| {
        run_python_client(&site, arguments, input).map(|ended| printed(ended, "client.py"))
    };
    let Some(said) = python(&["create", &first, "words"], "") else { return };
    assert!(said.starts_with("generation "), "{said}");
    assert_eq!(python(&["create", &second, "words"], "").as_deref(), Some(said.as_str()), "created once");
    // Empty ones, some of a few bytes and some that fill several batches.
    let word = |number: u64| "x".repeat((number * 7919 % 2000) as usize);
    let input = lines(0..100, word);
    let said = python(&["publish", &first, "words"], &input).unwrap();
    let batches = said.strip_prefix("committed ").and_then(|said| said.strip_suffix(" batches, up to order 100\n"));
    assert!(batches.is_some_and(|batches| batches.parse::<u64>().unwrap() > 1), "{said}");
    assert_eq!(run_example("subscribe", &[&second, "words"]), lines(0..100, |n| format!("words {n} {}", word(n))));
    assert_eq!(python(&["subscribe", &second, "words"], "").unwrap(), lines(0..100, |n| format!("{n} {}", word(n))));
    // From the middle of a batch.
    let said = python(&["subscribe", &first, "words", "7"], "").unwrap();
    assert_eq!(said, lines(7..100, |n| format!("{n} {}", word(n))));
    run_example("publish", &[&second, "words"]);
    let said = python(&["subscribe", &first, "words", "100"], "").unwrap();
    assert_eq!(said, lines(100..110, |n| format!("{n} message {}", n - 100)));
    // From a start that lies ahead, where nothing is yet.
    assert_eq!(python(&["subscribe", &second, "words", "500"], "").as_deref(), Some(""));
    // A refusal is an error with the broker's own words.
    let ended = run_python_client(&site, &["publish", &first, "nothing"], "").unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("client.py: refused with code 2, detail 0: "), "{ended:?}");
    cluster.stop();
}
