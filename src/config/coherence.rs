//! How the hosts of a pool see each other's writes: the one setting that attached clients share with brokers.

/// What keeps two readers of one line in agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "broker", derive(serde::Deserialize, serde::Serialize), serde(rename_all = "snake_case"))]
pub enum CoherenceMode {
    /// Explicit write-back and discard of lines: right on every pool.
    Software,
    /// The hardware does: one host, or a pool with back-invalidation (CXL 3).
    Hardware,
}
