//! The scratch copy, its one build, and the runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A test that takes longer with no mutant on is taken for hung. Most take a second, those of loom half a minute.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not end.
    TimedOut,
}

/// What keeps the mutants from being run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// From the system.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The woven tree does not compile. The compiler's message shows which mutant: its name stands in a comment there.
    #[error(
        "the woven tree does not compile: a broken mutant is not caught, it is broken. The compiler named it above"
    )]
    Build,
    /// The list names a test that does not exist.
    #[error("there is no test `{0}`")]
    NoTest(String),
}

/// What a build of the library's tests needs, from the root of the repository.
const PARTS: [&str; 7] = ["Cargo.toml", "Cargo.lock", "src", "tests", "tools", "perf", "config"];

/// Makes `tree` a copy of the repository with some files replaced. A file that is there already as it should be keeps its age, so
/// that the next build is short; one that is in the copy only is removed.
pub fn copy_tree(root: &Path, tree: &Path, replaced: &BTreeMap<PathBuf, String>) -> Result<(), RunError> {
    let mut wanted = BTreeSet::new();
    for part in PARTS {
        list_files(root, Path::new(part), &mut wanted)?;
    }
    let mut found = BTreeSet::new();
    if tree.exists() {
        list_files(tree, Path::new(""), &mut found)?;
    }
    for file in found.difference(&wanted) {
        std::fs::remove_file(tree.join(file)).map_err(|error| io(file, error))?;
    }
    for file in &wanted {
        let text = match replaced.get(file) {
            Some(text) => text.clone().into_bytes(),
            None => std::fs::read(root.join(file)).map_err(|error| io(file, error))?,
        };
        let target = tree.join(file);
        if std::fs::read(&target).is_ok_and(|old| old == text) {
            continue;
        }
        std::fs::create_dir_all(target.parent().unwrap_or(tree)).map_err(|error| io(file, error))?;
        std::fs::write(&target, text).map_err(|error| io(file, error))?;
    }
    Ok(())
}

fn list_files(root: &Path, at: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), RunError> {
    let full = root.join(at);
    if full.is_file() {
        found.insert(at.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(&full).map_err(|error| io(&full, error))? {
        let entry = entry.map_err(|error| io(&full, error))?;
        list_files(root, &at.join(entry.file_name()), found)?;
    }
    Ok(())
}

fn io(at: &Path, error: std::io::Error) -> RunError {
    RunError::Io(at.display().to_string(), error)
}

/// The built test programs, by target.
pub struct Tests {
    programs: BTreeMap<String, PathBuf>,
    directory: PathBuf,
}

impl Tests {
    /// Builds the targets that these tests are in.
    pub fn build<'a>(tree: &Path, target: &Path, tests: impl Iterator<Item = &'a str>) -> Result<Tests, RunError> {
        let names: BTreeSet<&str> = tests.filter_map(|test| test.split_once(' ')).map(|(name, _)| name).collect();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.current_dir(tree).env("CARGO_TARGET_DIR", target);
        command.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]);
        for name in &names {
            match *name {
                "lib" => command.arg("--lib"),
                other => command.args(["--test", other]),
            };
        }
        let output = command.stderr(Stdio::inherit()).output().map_err(|error| RunError::Io("cargo".into(), error))?;
        if !output.status.success() {
            return Err(RunError::Build);
        }
        let programs = programs(&String::from_utf8_lossy(&output.stdout));
        Ok(Tests { programs, directory: tree.to_path_buf() })
    }

    /// Runs one test with one mutant on; 0: none. After `limit` it is taken for hung.
    pub fn run(&self, test: &str, mutant: usize, limit: Duration) -> Result<Outcome, RunError> {
        let missing = || RunError::NoTest(test.to_string());
        let (target, name) = test.split_once(' ').ok_or_else(missing)?;
        let program = self.programs.get(target).ok_or_else(missing)?;
        let failed = |error| RunError::Io(program.display().to_string(), error);
        let listed = Command::new(program).args(["--exact", name, "--list"]).output().map_err(failed)?;
        if !String::from_utf8_lossy(&listed.stdout).contains(": test") {
            return Err(missing());
        }
        let mut child = Command::new(program)
            .args(["--exact", name, "--quiet"])
            .current_dir(&self.directory)
            .env("MUTANT", mutant.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(if status.success() { Outcome::Passed } else { Outcome::Failed });
            }
            if started.elapsed() > limit {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                return Ok(Outcome::TimedOut);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The executables that cargo's messages name, by the target they test.
fn programs(messages: &str) -> BTreeMap<String, PathBuf> {
    #[derive(serde::Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    // A line of JSON is YAML as well.
    let messages = messages.lines().filter(|line| line.contains("\"executable\":\""));
    messages
        .filter_map(|line| serde_yaml::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?, message.executable?)))
        .map(|(target, program)| {
            (if target.kind.iter().any(|kind| kind == "lib") { "lib".into() } else { target.name }, program)
        })
        .collect()
}
