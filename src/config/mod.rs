//! The configuration: a YAML file, read strictly, checked whole, printable in full.
//!
//! * `file`: reads, checks and prints it.
//! * `schema`: every key, its type and default. The manual is `config/embarcadero.yaml`.
//! * `units`: sizes and durations as text. `number`: whole numbers.
//! * `locate`: the line of a key; the known key an unknown one was meant to be.
//! * `validate`: values that cannot work.
//! * [`coherence`]: what attached clients have in common with brokers; all there is without the feature `broker`.
//!
//! Nothing is read from the environment, and nothing is guessed: an unknown key stops the process. Imports `limits`,
//! `processor` and the level names of `wire` only.

pub mod coherence;
#[cfg(feature = "broker")]
pub mod error;
#[cfg(feature = "broker")]
pub mod file;
#[cfg(feature = "broker")]
pub mod locate;
#[cfg(feature = "broker")]
pub mod number;
#[cfg(feature = "broker")]
pub mod schema;
#[cfg(feature = "broker")]
pub mod units;
#[cfg(feature = "broker")]
pub mod validate;

pub use coherence::CoherenceMode;
#[cfg(feature = "broker")]
pub use error::{ConfigError, Place};
#[cfg(feature = "broker")]
pub use file::*;
#[cfg(feature = "broker")]
pub use schema::*;

#[cfg(test)]
mod tests;
