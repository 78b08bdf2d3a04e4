//! `make mutants`: proves that the tests would notice if a write-back, a fence, a discard or a guard check were missing.
//!
//! Copies the tree, weaves the mutants of `tests/mutants.yaml` into the copy's sources, builds its tests once, and runs for each
//! mutant, one after the other, the one test that must fail. First every such test must pass with no mutant on. A test that does
//! not end in time counts as failed: a mutant may make a wait endless. Exit code: 0 all caught, 1 a mutant survived or its test
//! fails without it, 2 the list or the build is broken.

mod list;
mod run;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use list::Mutant;
use run::{Outcome, Tests};

const LIBRARY: &str = "src/lib.rs";
const AT_A_TIME: usize = 2;
/// A test is taken for hung under a mutant after so many times what it takes without one,
const HUNG_TIMES: u32 = 5;
/// but not before this.
const HUNG_MIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match check() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Gives how many survived. Arguments, all optional: parts of the mutants' names with commas between them, to run only those; the
/// scratch directory; how many tests run at a time (most wait more than they compute).
fn check() -> Result<usize, Box<dyn std::error::Error>> {
    let root = root().canonicalize()?;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let scratch = std::env::args().nth(2).map_or_else(|| root.join("target/mutants"), PathBuf::from);
    let mutants = list::read(&root.join("tests/mutants.yaml"))?;
    let tree = scratch.join("tree");
    run::copy_tree(&root, &tree, &woven(&root, &mutants)?)?;
    let tests = Tests::build(&tree, &scratch.join("target"), mutants.iter().map(|mutant| mutant.test.as_str()))?;
    let parts: Vec<&str> = wanted.split(',').collect();
    let selected: Vec<(usize, &Mutant)> =
        mutants.iter().enumerate().filter(|(_, mutant)| parts.iter().any(|part| mutant.name.contains(part))).collect();
    let at_a_time = std::env::args().nth(3).map_or(Ok(AT_A_TIME), |text| text.parse())?;
    let sound = baseline(&tests, &selected, at_a_time)?;
    println!("| mutant | caught by | caught | seconds |\n|---|---|---|---|");
    let score = Mutex::new(Score::default());
    each(&selected, at_a_time, |(index, mutant)| {
        let started = Instant::now();
        let (word, count): (_, fn(&mut Score) -> &mut usize) = if mutant.test.is_empty() {
            ("equivalent", |score| &mut score.equivalent)
        } else if let Some(took) = sound.get(mutant.test.as_str()) {
            match tests.run(&mutant.test, index + 1, HUNG_MIN.max(*took * HUNG_TIMES))? {
                Outcome::Failed => ("yes", |score| &mut score.caught),
                Outcome::TimedOut => ("yes, it hung", |score| &mut score.caught),
                Outcome::Passed => ("**NO**", |score| &mut score.survived),
            }
        } else {
            ("**the test fails without it**", |score| &mut score.survived)
        };
        *count(&mut score.lock().unwrap_or_else(PoisonError::into_inner)) += 1;
        let by = if mutant.test.is_empty() { mutant.equivalent.trim() } else { &mutant.test };
        println!("| {} | {by} | {word} | {:.1} |", mutant.name, started.elapsed().as_secs_f64());
        Ok(())
    })?;
    let Score { caught, equivalent, survived } = score.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\nscore: {caught} of {} caught, {survived} survived; {equivalent} equivalent", caught + survived);
    Ok(survived)
}

#[derive(Default)]
struct Score {
    caught: usize,
    equivalent: usize,
    survived: usize,
}

/// Does it for every item, several at a time; the first error ends it.
fn each<T: Copy + Sync>(
    items: &[T],
    at_a_time: usize,
    work: impl Fn(T) -> Result<(), run::RunError> + Sync,
) -> Result<(), run::RunError> {
    let next = AtomicUsize::new(0);
    let take = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(*item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time.max(1)).map(|_| scope.spawn(take)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Which tests pass with no mutant on, and how long each takes: one that fails anyway catches nothing.
fn baseline<'a>(
    tests: &Tests,
    mutants: &[(usize, &'a Mutant)],
    at_a_time: usize,
) -> Result<BTreeMap<&'a str, Duration>, run::RunError> {
    let names: BTreeSet<&str> =
        mutants.iter().map(|(_, mutant)| mutant.test.as_str()).filter(|test| !test.is_empty()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let sound = Mutex::new(BTreeMap::new());
    each(&names, at_a_time, |test| {
        let started = Instant::now();
        match tests.run(test, 0, run::TEST_TIMEOUT)? {
            Outcome::Passed => {
                sound.lock().unwrap_or_else(PoisonError::into_inner).insert(test, started.elapsed());
            }
            other => eprintln!("test `{test}` does not pass with no mutant on: {other:?}"),
        }
        Ok(())
    })?;
    Ok(sound.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The sources with all mutants in them, by their path from the root. Fails if the list names what is not there.
fn woven(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<PathBuf, String>, Box<dyn std::error::Error>> {
    let mut files = BTreeMap::new();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).map_err(|error| format!("{file}: {error}"));
    for file in mutants.iter().map(|mutant| mutant.file.as_str()).collect::<BTreeSet<&str>>() {
        let source = read(file)?;
        let mut placed = Vec::new();
        for (index, mutant) in mutants.iter().enumerate().filter(|(_, mutant)| mutant.file == file) {
            let range = list::locate(mutant, &source)?;
            placed.push(weave::Placed { number: index + 1, name: &mutant.name, range, replace: &mutant.replace });
        }
        files.insert(file.into(), weave::weave(&source, placed)?);
    }
    files.insert(LIBRARY.into(), weave::library(&read(LIBRARY)?));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list cannot rot: every place it names is there, what is put in its stead can stand there, and every test is there.
    #[test]
    fn every_mutant_has_its_place_and_its_test() {
        let root = root();
        let mutants = list::read(&root.join("tests/mutants.yaml")).unwrap();
        assert!(mutants.len() > 50, "only {} mutants", mutants.len());
        woven(&root, &mutants).unwrap();
        for mutant in &mutants {
            for (file, source) in woven(&root, std::slice::from_ref(mutant)).unwrap() {
                let parsed = syn::parse_file(&source).map(drop).map_err(|error| error.to_string());
                assert_eq!(
                    parsed,
                    Ok(()),
                    "mutant `{}` takes the place of half an expression in {file:?}",
                    mutant.name
                );
            }
        }
        for mutant in mutants.iter().filter(|mutant| !mutant.test.is_empty()) {
            let (target, path) = mutant.test.split_once(' ').expect("a target and a name");
            let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
            let candidates = match target {
                "lib" => {
                    let file = module.replace("::", "/");
                    let parent = file.rsplit_once('/').map_or("", |(parent, _)| parent).to_string();
                    ["{file}.rs", "{parent}.rs", "{parent}/mod.rs", "{parent}_tests.rs"]
                        .map(|name| format!("src/{}", name.replace("{file}", &file).replace("{parent}", &parent)))
                        .to_vec()
                }
                target => vec![format!("tests/{target}.rs")],
            };
            let is_there = candidates.iter().any(|file| {
                let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
                source.contains(&format!("fn {name}("))
            });
            assert!(is_there, "mutant `{}`: there is no test `{}`", mutant.name, mutant.test);
        }
    }
}
