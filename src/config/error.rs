//! What can be wrong with a configuration.

use std::fmt;

/// A configuration that cannot be used. Each says where, what was found, what is expected and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}; check the path and its permissions")]
    Read {
        /// Path as given.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML, or not one document that is a mapping.
    #[error("{place}: not a YAML configuration: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// The parser's words.
        problem: String,
    },
    /// A key nobody reads: a typing error, or a key in the wrong section.
    #[error("{place}: unknown key `{key}`{}", hint(nearest, known))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key with its sections.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
        /// Every key of that section.
        known: Vec<String>,
    },
    /// A value of the wrong type, unit or name, or a key that is missing.
    #[error("{place}: {problem}")]
    WrongValue {
        /// Where.
        place: Place,
        /// Key, what was found and what is expected.
        problem: String,
    },
    /// A value that is well formed and cannot work.
    #[error("{place}: `{key}` is {found}, expected {expected}")]
    Impossible {
        /// Where.
        place: Place,
        /// The key with its sections.
        key: String,
        /// Its value.
        found: String,
        /// What it may be, and what to do.
        expected: String,
    },
}

/// A file and, where it is known, a line in it. Displays as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}", self.file),
            None => out.write_str(&self.file),
        }
    }
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}
