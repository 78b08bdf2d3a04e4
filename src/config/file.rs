//! The configuration as a file: read, checked, printed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_yaml::Value;

use crate::config::error::{ConfigError, Place};
use crate::config::schema::Config;
use crate::config::{locate, validate};

/// The configuration that runs without a file: four brokers in one process on a small machine.
pub const EMBEDDED: &str = include_str!("../../config/two-core.yaml");

/// Its name in messages.
const EMBEDDED_NAME: &str = "two-core.yaml (embedded)";

/// Largest configuration file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A value of the configuration, one of several words, as the file has it.
pub fn word(value: &impl Serialize) -> String {
    let value = serde_yaml::to_value(value).ok();
    value.as_ref().and_then(Value::as_str).unwrap_or("?").to_owned()
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], with file and line.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        match read_bounded(path) {
            Ok(text) => Config::parse(&text, &file),
            Err(source) => Err(ConfigError::Read { file, source }),
        }
    }

    /// The configuration that runs without a file.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn embedded() -> Config {
        Config::parse(EMBEDDED, EMBEDDED_NAME).expect("the embedded configuration is checked by a test")
    }

    /// Reads and checks `text`; `file_name` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`], with file and line; never [`ConfigError::Read`].
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        // What some editors put in front of every file they save.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let place = |line: Option<usize>| Place { file: file_name.into(), line };
        let failed_at = |error: &serde_yaml::Error| place(error.location().map(|location| location.line()));
        let tree: Value = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::Syntax { place: failed_at(&error), problem: error.to_string() })?;
        if !tree.is_mapping() {
            let problem = "found no `key: value` at its top; config/embarcadero.yaml shows all keys".into();
            return Err(ConfigError::Syntax { place: place(None), problem });
        }
        if let Some(unknown) = locate::unknown_key(&tree, &every_key()) {
            return Err(ConfigError::UnknownKey {
                place: place(locate::line_of(text, &unknown.steps)),
                key: locate::path(&unknown.steps),
                nearest: unknown.nearest,
                known: unknown.known,
            });
        }
        let config: Config = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::WrongValue { place: failed_at(&error), problem: without_position(&error) })?;
        validate::check(&config).map_err(|wrong| ConfigError::Impossible {
            place: place(locate::line_of(text, &locate::steps(&wrong.key))),
            key: wrong.key,
            found: wrong.found,
            expected: wrong.expected,
        })?;
        Ok(config)
    }

    /// The complete configuration in effect, defaults included, as YAML that reads back to an equal one.
    ///
    /// # Panics
    /// Never: every value has a YAML form.
    pub fn effective(&self) -> String {
        serde_yaml::to_string(self).expect("every configuration value has a YAML form")
    }

    /// Where `key` is written in the file at `path`, or in the embedded configuration: for what turns out to be impossible
    /// only where more is known than the configuration. The file alone if it cannot be read any more.
    pub fn place_of(path: Option<&Path>, key: &str) -> Place {
        let (file, text) = match path {
            Some(path) => (path.display().to_string(), read_bounded(path).unwrap_or_default()),
            None => (EMBEDDED_NAME.into(), EMBEDDED.into()),
        };
        Place { file, line: locate::line_of(&text, &locate::steps(key)) }
    }
}

/// Smallest pool that `auto` makes, bytes.
pub const AUTO_POOL_BYTES_MIN: u64 = 320 << 20;
/// Largest pool that `auto` makes, bytes.
pub const AUTO_POOL_BYTES_MAX: u64 = 2 << 30;
/// Memory that is left for everything but the pool, bytes.
const AUTO_BESIDE_BYTES: u64 = 64 << 20;
const AUTO_POOL_BYTES_STEP: u64 = 64 << 20;

/// `pool.bytes: auto` found too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`pool.bytes: auto` found {free_bytes} bytes free in the pool's file system and {available_bytes} of memory available, \
     and needs {AUTO_POOL_BYTES_MIN} of both, and {AUTO_BESIDE_BYTES} of memory besides; free some (old pools in /dev/shm?), enlarge /dev/shm, or set pool.bytes"
)]
pub struct AutoPoolError {
    /// Free in the file system of the pool's file, bytes.
    pub free_bytes: u64,
    /// Memory available, bytes.
    pub available_bytes: u64,
}

/// Size that `pool.bytes: auto` gives a pool in a file: a quarter of what is free, rounded down to 64 MiB, from 320 MiB
/// to 2 GiB.
///
/// `free_bytes` is what the file system of the file has free, `available_bytes` the memory available to this process; 64 MiB of that
/// are for everything but the pool.
///
/// # Errors
/// [`AutoPoolError`] if less than 320 MiB is free.
pub fn auto_pool_bytes(free_bytes: u64, available_bytes: u64) -> Result<u64, AutoPoolError> {
    let room = free_bytes.min(available_bytes.saturating_sub(AUTO_BESIDE_BYTES));
    if room < AUTO_POOL_BYTES_MIN {
        return Err(AutoPoolError { free_bytes, available_bytes });
    }
    let quarter = free_bytes.min(available_bytes) / 4 / AUTO_POOL_BYTES_STEP * AUTO_POOL_BYTES_STEP;
    let bytes = quarter.clamp(AUTO_POOL_BYTES_MIN, AUTO_POOL_BYTES_MAX);
    assert!(bytes <= room && bytes.is_multiple_of(AUTO_POOL_BYTES_STEP));
    Ok(bytes)
}

/// A configuration with every key in it, as YAML: what keys are known.
pub(super) fn every_key() -> Value {
    let topic = "topics: [{ name: any }]\nbrokers: [{ address: \"127.0.0.1:1\", advertise: \"any:1\" }]";
    let config: Config = serde_yaml::from_str(topic).expect("a constant that a test reads");
    serde_yaml::to_value(&config).expect("every configuration value has a YAML form")
}

/// A whole file, unless it is larger than any configuration: a device given by mistake has no end.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "found more than the {FILE_BYTES_MAX} bytes a configuration may have"
        )));
    }
    Ok(text)
}

/// The parser's words without the position, which is told in front.
fn without_position(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((words, _)) => words.into(),
        None => text,
    }
}
