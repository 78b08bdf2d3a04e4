//! The list of mutants: what each changes, and the test that must fail because of it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

/// One deliberate fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name, unique.
    pub name: String,
    /// The file it changes, from the root of the repository.
    pub file: String,
    /// Text that stands once in the file; `find` is looked for behind its start. Not needed where `find` is unique.
    #[serde(default)]
    pub after: String,
    /// The statements or the expression to replace.
    pub find: String,
    /// Where what is replaced ends, if it is more than `find`: at the end of this text.
    #[serde(default)]
    pub until: String,
    /// What stands there instead; empty: nothing.
    #[serde(default)]
    pub replace: String,
    /// The test that catches it: a target (`lib`, or a file of `tests/`), a space, and the test's full name.
    #[serde(default)]
    pub test: String,
    /// Why no test can tell it from the original; it is counted apart.
    #[serde(default)]
    pub equivalent: String,
}

/// What is wrong with the list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// It is not what it should be.
    #[error("{0}: {1}")]
    Parse(String, serde_yaml::Error),
    /// Two have one name.
    #[error("mutant `{0}` stands twice in the list")]
    Twice(String),
    /// Neither a test nor an explanation, or both.
    #[error("mutant `{0}` needs a `test`, or, where there cannot be one, `equivalent` with the reason; not both")]
    Unclear(String),
    /// The text is gone, or there are several.
    #[error("mutant `{name}`: {what} stands {times} times in {file}, not once: bring the list up to date")]
    NotOnce {
        /// The mutant.
        name: String,
        /// Which text.
        what: &'static str,
        /// How often it is there.
        times: usize,
        /// Where it was looked for.
        file: String,
    },
    /// Two mutants cut through each other.
    #[error("mutants `{0}` and `{1}` overlap without one being inside the other")]
    Overlap(String, String),
}

/// Reads the list and checks what can be checked without the sources.
pub fn read(path: &Path) -> Result<Vec<Mutant>, ListError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ListError::Read(name.clone(), error))?;
    let list: Vec<Mutant> = serde_yaml::from_str(&text).map_err(|error| ListError::Parse(name, error))?;
    let mut names = BTreeSet::new();
    for mutant in &list {
        if !names.insert(&mutant.name) {
            return Err(ListError::Twice(mutant.name.clone()));
        }
        if mutant.test.is_empty() == mutant.equivalent.is_empty() {
            return Err(ListError::Unclear(mutant.name.clone()));
        }
    }
    Ok(list)
}

/// Where a mutant's text stands in its file.
pub fn locate(mutant: &Mutant, source: &str) -> Result<std::ops::Range<usize>, ListError> {
    let not_once =
        |what, times| ListError::NotOnce { name: mutant.name.clone(), what, times, file: mutant.file.clone() };
    let find = mutant.find.trim();
    let from = if mutant.after.is_empty() {
        let times = source.matches(find).count();
        if times != 1 {
            return Err(not_once("`find`", times));
        }
        0
    } else {
        let times = source.matches(mutant.after.trim()).count();
        if times != 1 {
            return Err(not_once("`after`", times));
        }
        source.find(mutant.after.trim()).unwrap_or(0)
    };
    let start = from + source[from..].find(find).ok_or_else(|| not_once("`find`", 0))?;
    let mut end = start + find.len();
    if !mutant.until.is_empty() {
        let until = mutant.until.trim();
        end += source[end..].find(until).ok_or_else(|| not_once("`until`", 0))? + until.len();
    }
    Ok(start..end)
}
