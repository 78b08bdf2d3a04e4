//! What a damaged pool is told by: a field of a record, what it holds, and what a sound one could hold.
//!
//! Most records have guards but no checksums. So whatever is read back from the pool after a restart, or from another process, is held
//! against the geometry before it is used as a place or folded into anything: an address, a place in a table, a count.

use crate::pool::record::Checked;

/// Counts stay below this: no sum of two of them and a batch overflows. A pool that appends a million batches a second reaches it
/// in a hundred thousand years.
pub const COUNT_MAX: u64 = 1 << 62;

/// A field that holds what no writer puts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct FieldFault {
    /// Which field.
    pub field: &'static str,
    /// What it holds.
    pub found: u64,
    /// What it may hold.
    pub expected: Expected,
}

/// Values a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A range.
    Range {
        /// The lowest.
        low: u64,
        /// The highest.
        high: u64,
        /// Distance from one to the next; 1: all.
        step: u64,
    },
    /// As told.
    Told(&'static str),
}

impl std::fmt::Display for Expected {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Expected::Range { low, high, .. } if low == high => write!(out, "{low}"),
            Expected::Range { low, high, step: 1 } => write!(out, "{low} to {high}"),
            Expected::Range { low, high, step } => write!(out, "{low} to {high} in steps of {step}"),
            Expected::Told(text) => write!(out, "{text}"),
        }
    }
}

/// The field lies in a range.
#[inline]
pub fn within(field: &'static str, found: u64, low: u64, high: u64) -> Result<(), FieldFault> {
    within_steps(field, found, low, high, 1)
}

/// The field is one of the values from `low` to `high`, in steps.
#[inline]
pub fn within_steps(field: &'static str, found: u64, low: u64, high: u64, step: u64) -> Result<(), FieldFault> {
    if (low..=high).contains(&found) && (found - low).is_multiple_of(step) {
        return Ok(());
    }
    Err(outside(field, found, low, high, step))
}

/// Out of the way of those that are not.
#[cold]
fn outside(field: &'static str, found: u64, low: u64, high: u64, step: u64) -> FieldFault {
    FieldFault { field, found, expected: Expected::Range { low, high, step } }
}

/// The field has one value.
pub fn exactly(field: &'static str, found: u64, expected: u64) -> Result<(), FieldFault> {
    within(field, found, expected, expected)
}

/// The field is a place in a table of `count` places.
#[inline]
pub fn place(field: &'static str, found: u64, count: u64) -> Result<(), FieldFault> {
    within(field, found, 0, count - 1)
}

/// The field is a count that nothing can overflow.
#[inline]
pub fn count(field: &'static str, found: u64) -> Result<(), FieldFault> {
    within(field, found, 0, COUNT_MAX)
}

/// What lay under a valid guard is what its writer put there. Gives it as it is in memory of our own.
pub fn sound<R: Checked>(mut found: R) -> Result<R, FieldFault> {
    let check = *found.check_mut();
    exactly("check", check.into(), (*found.sealed().check_mut()).into()).map(|()| found.unsealed())
}
