//! The sequencer role.

pub mod active;
#[cfg(test)]
mod tests;
