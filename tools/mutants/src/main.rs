//! `make mutants`: proves that the tests would notice if a write-back, a fence, a discard or a guard check were missing.
//!
//! Copies the tree, weaves the mutants of `tests/mutants.yaml` into the copy's sources, builds its tests once, and runs for each
//! mutant the one test that must fail. First every such test must pass with no mutant on. A test that does not end in
//! time counts as failed: a mutant may make a wait endless. Exit code: 0 all caught, 1 a mutant survived, 2 the list or the
//! build is broken.

mod list;
mod run;
mod weave;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use list::Mutant;
use run::{Outcome, Tests};

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

/// Gives how many survived. Arguments, both optional: a part of a mutant's name, to run only those; the scratch directory.
fn check() -> Result<usize, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let scratch = std::env::args().nth(2).map_or_else(|| root.join("target/mutants"), PathBuf::from);
    let mutants = list::read(&root.join("tests/mutants.yaml"))?;
    let tree = scratch.join("tree");
    run::copy_tree(&root, &tree)?;
    weave_all(&tree, &mutants)?;
    let tests = Tests::build(&tree, &scratch.join("target"), mutants.iter().map(|mutant| mutant.test.as_str()))?;
    let selected = || mutants.iter().enumerate().filter(|(_, mutant)| mutant.name.contains(&wanted));
    baseline(&tests, selected().map(|(_, mutant)| mutant))?;
    let (mut caught, mut equivalent, mut survived) = (0, 0, 0);
    println!("| mutant | caught by | caught |\n|---|---|---|");
    for (index, mutant) in selected() {
        if mutant.test.is_empty() {
            equivalent += 1;
            println!("| {} | {} | equivalent |", mutant.name, mutant.equivalent.trim());
            continue;
        }
        let outcome = tests.run(&mutant.test, index + 1)?;
        let word = match outcome {
            Outcome::Failed => "yes",
            Outcome::TimedOut => "yes, it hung",
            Outcome::Passed => "**NO**",
        };
        *(if outcome == Outcome::Passed { &mut survived } else { &mut caught }) += 1;
        println!("| {} | {} | {word} |", mutant.name, mutant.test);
    }
    println!("\nscore: {caught} of {} caught, {survived} survived; {equivalent} equivalent", caught + survived);
    Ok(survived)
}

/// With no mutant on, every test must pass: a test that fails anyway catches nothing.
fn baseline<'a>(tests: &Tests, mutants: impl Iterator<Item = &'a Mutant>) -> Result<(), run::RunError> {
    let names: std::collections::BTreeSet<&str> =
        mutants.map(|mutant| mutant.test.as_str()).filter(|test| !test.is_empty()).collect();
    for test in names {
        match tests.run(test, 0)? {
            Outcome::Passed => {}
            other => return Err(run::RunError::Baseline(test.to_string(), other)),
        }
    }
    Ok(())
}

fn weave_all(tree: &Path, mutants: &[Mutant]) -> Result<(), Box<dyn std::error::Error>> {
    let files: std::collections::BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
    for file in files {
        let path = tree.join(file);
        let source = std::fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
        let mut placed = Vec::new();
        for (index, mutant) in mutants.iter().enumerate().filter(|(_, mutant)| mutant.file == file) {
            let range = list::locate(mutant, &source)?;
            placed.push(weave::Placed { number: index + 1, name: &mutant.name, range, replace: &mutant.replace });
        }
        std::fs::write(&path, weave::weave(&source, placed)?)?;
    }
    let library = tree.join("src/lib.rs");
    let source = std::fs::read_to_string(&library)?;
    Ok(std::fs::write(&library, source + weave::RUNTIME)?)
}
