//! Quantities and words that the tools read alike from their command lines.

use std::time::Duration;

use embarcadero::client::SlowReaderPolicy;
use embarcadero::config::CoherenceMode;
use embarcadero::config::units::{parse_bytes, parse_duration};

/// A number of bytes, as in the broker's configuration: `4096`, `64KiB`, `1GB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

/// A duration, as in the broker's configuration: `500us`, `5ms`, `2s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// What becomes of slow readers: `wait`, `wait:64MiB`, `skip`, `disconnect`.
pub fn slow_reader(text: &str) -> Result<SlowReaderPolicy, String> {
    match text.split_once(':') {
        Some(("wait", size)) => match bytes(size)? {
            0 => Err("wait:0 would wait for nobody; write disconnect or skip".to_owned()),
            lag_bytes => Ok(SlowReaderPolicy::Wait { lag_bytes }),
        },
        None if text == "wait" => Ok(SlowReaderPolicy::Wait { lag_bytes: 0 }),
        None if text == "skip" => Ok(SlowReaderPolicy::Skip),
        None if text == "disconnect" => Ok(SlowReaderPolicy::Disconnect),
        _ => Err(format!("{text:?} is none of wait, wait:SIZE, skip, disconnect")),
    }
}

/// How hosts see each other's stores.
pub fn coherence(text: &str) -> Result<CoherenceMode, String> {
    match text {
        "software" => Ok(CoherenceMode::Software),
        "hardware" => Ok(CoherenceMode::Hardware),
        _ => Err(format!("{text:?} is neither software nor hardware")),
    }
}
